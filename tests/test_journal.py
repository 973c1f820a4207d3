"""The append-only record of a run."""

from __future__ import annotations

import dataclasses
import json
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clusterproof.outcome import Result
from clusterproof.provider import Access
from clusterproof.running import journal
from clusterproof.running.run import access_of

from .reports import samples


@pytest.mark.parametrize("result", samples.mixed_run().results, ids=lambda result: result.id)
def test_a_line_reads_back_the_same(result: Result) -> None:
    assert journal.loads(journal.dumps(result)) == result


def test_how_both_clusters_of_a_run_are_reached_reads_back_the_same() -> None:
    peer = Access("external", "west", "west.yaml", capabilities=("federation.mcs",))
    access = Access("embedded", "east", "east.yaml", peer=peer, details={"remove": "down"})
    assert access_of(json.loads(json.dumps(dataclasses.asdict(access)))) == access


def test_what_does_not_fit_on_the_disk_is_written_when_it_does(tmp_path: Path) -> None:
    results = samples.mixed_run().results
    made = journal.Journal(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        for each in results[:-1]:
            made.add(each)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert made.trouble == "File too large"
    made.add(results[-1])
    made.close()

    assert made.trouble == ""
    assert [journal.loads(line) for line in (tmp_path / journal.NAME).read_text().splitlines()] == [*results]


@pytest.mark.parametrize(
    "change",
    [
        lambda line: line["opened"]["access"].update(tunnel="new"),
        lambda line: line["opened"].pop("arguments"),
        lambda line: line.update(opened=5),
    ],
    ids=["unknown field", "missing field", "damaged"],
)
def test_a_journal_of_another_version_is_one_sentence(tmp_path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    run, made = samples.mixed_run(), journal.Journal(tmp_path)
    assert run.cluster is not None
    access = Access("external", "prod", "prod.yaml")
    made.open(journal.Opened("night", "1", "", 0.0, ("suites",), ("a/b",), run.cluster, access))
    made.close()
    path = tmp_path / journal.NAME
    assert journal.read(path)[0][0].access == access
    line = json.loads(path.read_text())
    change(line)
    path.write_text(json.dumps(line))

    with pytest.raises(
        pytest.UsageError, match=r"journal\.jsonl: line 1 is not as this version of .* without --resume"
    ):
        journal.read(path)


def test_a_line_that_is_no_object_is_told(tmp_path: Path) -> None:
    (tmp_path / journal.NAME).write_text("5\n")
    with pytest.raises(pytest.UsageError, match="line 1 is not as this version"):
        journal.read(tmp_path / journal.NAME)


def test_a_journal_is_replaced_by_the_first_line_and_not_before(tmp_path: Path) -> None:
    (tmp_path / journal.NAME).write_text("of the run before\n")
    journal.Journal(tmp_path).close()
    assert (tmp_path / journal.NAME).read_text() == "of the run before\n"
    made = journal.Journal(tmp_path)
    made.end(complete=True)
    made.close()
    assert (tmp_path / journal.NAME).read_text() == '{"ended": {"complete": true}}\n'
