"""Results of shards put together, and why some are refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from clusterproof.reports import result

from clusterproof import cli
from clusterproof.outcome import Outcome, Run, Shard

from . import samples

IDS = ("health/livez", "apps/job/completion", "apps/job/retry")


def shard(number: int, *ids: str, of: int = 2, **changes: object) -> Run:
    results = tuple(samples.result(id) for id in ids)
    return samples.run(*results, **{"id": f"night-{number}", "shard": Shard(number, of, IDS), **changes})


def run(tmp_path: Path, *runs: Run) -> tuple[int, Path]:
    paths = []
    for number, each in enumerate(runs):
        folder = tmp_path / str(number)
        folder.mkdir()
        paths.append(str(result.write(each, folder)))
    return cli.main(["merge", *paths, "--output", str(tmp_path / "out")]), tmp_path / "out" / result.NAME


def test_shards_become_one_run(tmp_path: Path) -> None:
    late = shard(2, IDS[2], started=samples.START + 100)
    code, path = run(tmp_path, shard(1, *IDS[:2]), late)
    assert code == cli.DONE
    merged = result.read(path)
    assert (merged.id, merged.shard, merged.complete) == ("night", None, True)
    assert sorted(merged.expected) == sorted(IDS)
    assert {each.id: each.worker for each in merged.results} == {IDS[0]: "1/gw0", IDS[1]: "1/gw0", IDS[2]: "2/gw0"}
    assert (merged.started, merged.seconds) == (samples.START, 142.0)


def test_a_broken_promise_shows_in_the_exit_code(tmp_path: Path) -> None:
    broken = samples.result(IDS[2], Outcome.BROKEN, "it broke")
    code, _ = run(tmp_path, shard(1, *IDS[:2]), shard(2, IDS[2], results=(broken,)))
    assert code == cli.FAILED


def test_everything_that_is_wrong_is_said_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = dataclasses.replace(samples.CLUSTER, uid="another")
    code, path = run(
        tmp_path,
        shard(1, IDS[0], of=3),
        shard(1, IDS[0], of=3, cluster=other, suite_version="0.0.9"),
        shard(2, of=3, expected=(IDS[1],)),
        samples.run(samples.result("api/pods")),
    )
    said = capsys.readouterr().err
    assert code == cli.MISUSED
    for problem in (
        "3/result.json: is not the result of a shard",
        "2/result.json: 1 of 1 selected promise not tried; go on with that shard: --resume",
        "they are of 2 different suites: ",
        "they are of 2 different clusters: ",
        "shard 1 is there 2 times",
        "shard 3 of 3 is missing",
        "health/livez: is in 2 of the results",
    ):
        assert problem in said
    assert not path.exists()


def test_a_promise_that_no_shard_has_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _ = run(tmp_path, shard(1, IDS[0]), shard(2, IDS[1]))
    assert code == cli.MISUSED
    assert "apps/job/retry: is in none of the results" in capsys.readouterr().err
