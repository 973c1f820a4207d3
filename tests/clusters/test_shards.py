"""A run that is divided among several: on one cluster, with the outcomes of a run that is not."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

from clusterproof.reports import result

from clusterproof import catalog
from clusterproof.outcome import Run

from .machine import Cluster, Machine

NUMBER = 4
SELECTION = ("health", "access/test_rbac.py", "api/test_namespaces.py", "extend/test_crd.py")


def _command(cluster: Cluster, into: Path, *options: str) -> list[str | Path]:
    paths = [catalog.root() / each for each in SELECTION]
    external = ["--cluster=external", f"--kubeconfig={cluster.kubeconfig}", f"--reports-dir={into}"]
    return [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--workers=3", *paths, *external, *options]


def _outcomes(run: Run) -> dict[str, str]:
    return {each.id: each.outcome.value for each in run.results}


def test_four_shards_come_to_what_one_run_comes_to(shared: Machine, tmp_path: Path) -> None:
    """Four shards at a time on one cluster, merged, MUST have the outcomes and verdicts of one run."""
    cluster = shared.up("shards", "--nodes", "1")
    done = shared.run(*_command(cluster, tmp_path / "whole"), within=300)
    assert done.returncode in (0, 1), done.stdout
    whole = result.read(tmp_path / "whole" / result.NAME)

    parts = [tmp_path / str(number) for number in range(1, NUMBER + 1)]
    by = f"--shard-by={tmp_path / 'whole' / result.NAME}"
    with contextlib.ExitStack() as running:
        started = [
            running.enter_context(
                shared.start(*_command(cluster, into, by, f"--shard={into.name}/{NUMBER}", "--run-id=night"))
            )
            for into in parts
        ]
        codes = [each.wait(300) for each in started]
    assert set(codes) <= {0, 1}, codes
    files = [str(into / result.NAME) for into in parts]
    merged = shared.clusterproof("merge", *files, "--output", str(tmp_path / "merged"))

    assert merged.returncode == done.returncode, merged.stderr
    run = result.read(tmp_path / "merged" / result.NAME)
    assert _outcomes(run) == _outcomes(whole)
    assert run.profiles == whole.profiles
    assert (run.complete, run.leaks) == (True, ())
    refused = shared.clusterproof("merge", *files[1:], "--output", str(tmp_path / "refused"))
    assert refused.returncode == 4
    assert f"shard 1 of {NUMBER} is missing" in refused.stderr
