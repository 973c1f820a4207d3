"""Several clusters: they are joined, what they promise together is proven, and each forgets one that ends."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from clusterproof import catalog
from clusterproof.running import ledger

from .machine import Cluster, Machine, machine

SUITE = catalog.root() / "federation"
MINUTES = 300.0
"""Seconds for a run of all that is proven of two clusters."""


@pytest.fixture(scope="module")
def pair(programs: object) -> Iterator[tuple[Cluster, Cluster]]:
    """Two clusters that are joined."""
    with machine() as made:
        one, other = (made.up(name, "--nodes", "1", "--addons", "clusterset") for name in ("one", "other"))
        assert made.must("join", one.name, other.name) == f"clusters {one.name} and {other.name} are joined\n"
        yield one, other


def test_what_two_clusters_promise_together(pair: tuple[Cluster, Cluster], tmp_path: Path) -> None:
    """Promises about several clusters MUST be proven on those that are named, and nothing be left in either."""
    one, other = pair
    peer = f"--peer={other.kubeconfig}:clusterproof-{other.name}"
    done = _prove(one.machine, tmp_path, "--cluster=external", f"--kubeconfig={one.kubeconfig}", peer)

    assert done == (0, [])
    for each in pair:
        assert each.ask(ledger.run_objects) == []


def test_a_cluster_is_forgotten_by_the_one_it_was_joined_with(pair: tuple[Cluster, Cluster]) -> None:
    """A cluster that ends MUST be no member of the others' ClusterSet any more; only those that are can be joined."""
    one, other = pair
    again = one.machine.clusterproof("join", other.name, one.name)
    assert again.stderr == f"clusterproof: clusters {other.name} and {one.name} are joined already\n"
    plain = one.machine.up("plain", "--nodes", "1")
    refused = one.machine.clusterproof("join", one.name, plain.name)
    assert f"cluster {plain.name} has no add-on clusterset" in refused.stderr

    one.machine.must("down", "--name", other.name)

    assert "joined with" not in one.machine.must("status", "--name", one.name)
    assert [path.stem for path in (one.folder / "members").iterdir()] == [one.name]


def test_a_run_brings_its_own_second_cluster(fresh: Machine, tmp_path: Path) -> None:
    """With `--peer=new` a second cluster MUST be there for the run, and go with the first."""
    before = fresh.snapshot()

    assert _prove(fresh, tmp_path, "--peer=new", "-k", "reached") == (0, [])

    assert fresh.left_since(before) == []


def test_nothing_is_left_of_a_run_that_was_killed(fresh: Machine, tmp_path: Path) -> None:
    """Where a run with a second cluster is killed, `sweep` MUST take both away, by its name and with all others."""
    before = fresh.snapshot()
    with fresh.start(*_command(fresh, tmp_path, "--peer=new", "--run-id=mine")) as running:
        running.reaches(lambda: "cp-mine-peer: 1 nodes Ready" in running.output)
        os.kill(running.pid, signal.SIGKILL)
        running.wait()

    removed = fresh.must("sweep", "--run=mine").splitlines()

    assert {f"removed embedded cluster cp-mine{each}" for each in ("", "-peer")} <= {*removed}
    assert fresh.left_since(before) == []


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--peer=/nowhere",), "--peer=/nowhere: --kubeconfig=/nowhere: cannot be read"),
        (("--cluster=external", "--peer=new"), "--peer=new is for --cluster=embedded"),
        (("--cluster=external", "--namespaces=a", "--peer=b"), "--peer cannot be had with --namespaces"),
    ],
)
def test_a_peer_that_cannot_be_had(shared: Machine, tmp_path: Path, options: tuple[str, ...], sentence: str) -> None:
    """A second cluster that cannot be used MUST be refused with one sentence, before anything is made."""
    code, said = _prove(shared, tmp_path, *options)

    assert code == 4
    assert any(sentence in line for line in said), said
    assert shared.must("status") == "no embedded clusters on this machine\n"


def _prove(at: Machine, folder: Path, *options: str) -> tuple[int, list[str]]:
    """Prove what several clusters promise; the exit code, and what was said where it is not 0."""
    done = at.run(*_command(at, folder, *options), within=MINUTES)
    return done.returncode, [*done.stdout.splitlines(), *done.stderr.splitlines()] if done.returncode else []


def _command(at: Machine, folder: Path, *options: str) -> list[str | Path]:
    return [at.program("pytest"), SUITE, "-q", "-p", "no:cacheprovider", f"--reports-dir={folder}", *options]
