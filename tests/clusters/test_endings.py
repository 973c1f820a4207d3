"""The end of embedded clusters: nothing is left of them, whatever became of their start and of themselves."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from clusterproof.embedded import cluster

from clusterproof import catalog

from .machine import Machine, Started


def test_everything_that_is_missing_is_said_at_once(shared: Machine) -> None:
    """A machine that is not fit MUST be told all reasons in one message, each with what helps, and exit code 4."""
    small = shared.folder / "tmp/small"
    small.mkdir()
    assert shared.run("mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", small).returncode == 0
    # Nobody in particular, but able to read this program wherever it is installed.
    nobody = ["setpriv", "--reuid=65534", "--clear-groups", "--inh-caps=+dac_read_search"]
    command = [*nobody, "--ambient-caps=+dac_read_search", "env", "PATH=/nowhere", shared.program("clusterproof"), "up"]
    try:
        done = shared.run(*command, CLUSTERPROOF_STATE=str(small))
    finally:
        shared.run("umount", small)
        small.rmdir()

    heading, *reasons = done.stderr.splitlines()
    assert done.returncode == 4, done.stderr
    assert heading == "clusterproof: this machine cannot run an embedded cluster yet:"
    assert len(reasons) == 3
    assert "you are not root: run it again with sudo" in reasons[0]
    assert "packages are missing: apt-get install --no-install-recommends -y bash" in reasons[1]
    assert f"{small} has 0.0 GiB free and 1 are needed: free some, or point" in reasons[2]


@pytest.mark.parametrize("ending", ["by down", "by killing all of its processes"])
def test_nothing_is_left_of_a_cluster(fresh: Machine, ending: str) -> None:
    """After `down` the machine MUST be as before `up`: also when all processes of the cluster were killed before."""
    before, name = fresh.snapshot(), fresh.name("a")
    fresh.must("up", "--name", name, "--nodes", "2", "--addons", "dns")
    if ending != "by down":
        fresh.kill_everything()
        ended = fresh.clusterproof("status")
        assert ended.returncode == 1
        assert f"  ended: {name}-node-2/kubelet (see: clusterproof logs" in ended.stdout

    fresh.must("down", "--name", name)

    assert fresh.left_since(before) == [], "what `up` made is still there"
    assert fresh.must("status") == "no embedded clusters on this machine\n"


def _moments(machine: Machine, name: str, running: Started) -> dict[str, Callable[[], bool]]:
    folder, namespace = machine.cluster(name), machine.root / f"run/netns/clusterproof-{name}-control-plane"
    return {
        "it is on the list": (folder / "state.json").exists,
        "the network is laid": namespace.exists,
        "etcd runs": (folder / "logs/etcd.log").exists,
        "the API server answers": lambda: "API server ready" in running.output,
        "kubelets run": (folder / f"logs/{name}-node-1/kubelet.log").exists,
        "nodes are Ready": lambda: "2 nodes Ready" in running.output,
    }


@pytest.mark.parametrize(
    ("moment", "killed"),
    [
        ("it is on the list", "the launcher"),
        ("the network is laid", "the launcher"),
        ("etcd runs", "everything"),
        ("the API server answers", "the launcher"),
        ("kubelets run", "everything"),
        ("nodes are Ready", "the launcher"),
        ("nodes are Ready", "everything"),
    ],
)
def test_nothing_is_left_of_a_start_that_was_cut_off(shared: Machine, moment: str, killed: str) -> None:
    """Wherever `up` is killed, `sweep` MUST take away all that there is by then; but nothing while it still runs."""
    before, name = shared.snapshot(), shared.name("cut")
    start = [shared.program("clusterproof"), "up", "--name", name, "--nodes", "2", "--addons", "dns"]
    with shared.start(*start) as running:
        running.reaches(_moments(shared, name, running)[moment])
        os.kill(running.pid, signal.SIGKILL)
        assert running.wait() == -signal.SIGKILL
    if killed == "everything":
        shared.kill_everything()

    assert shared.must("sweep") == f"removed embedded cluster {name}\n"

    assert shared.left_since(before) == [], f"what `up` had made when {moment} is still there"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_start_under_way_is_not_swept(shared: Machine, number: signal.Signals, code: int) -> None:
    """`sweep` MUST leave a cluster alone that somebody is just starting; Ctrl-C MUST leave nothing of it."""
    before, name = shared.snapshot(), shared.name("cut")
    with shared.start(shared.program("clusterproof"), "up", "--name", name, "--addons", "none") as running:
        running.reaches(_moments(shared, name, running)["etcd runs"])
        assert shared.must("sweep") == "nothing was left on this machine; no cluster was named\n"
        running.signal(number)
        assert running.wait() == code

    assert shared.left_since(before) == []


@pytest.fixture
def broken(shared: Machine, programs: cluster.builder.Artifacts) -> Iterator[Callable[[str], None]]:
    """Replaces a program, on this machine only, by one that ends at once."""
    false = shared.folder / "tmp/false"
    false.write_text("#!/bin/sh\nfor line in 1 2 3; do echo no such luck $line; done\nexit 7\n")
    false.chmod(0o755)
    covered: list[Path] = []

    def cover(program: str) -> None:
        covered.append(programs.binary(program))
        # The cache takes a program of another size for a damaged one, and would make it anew.
        os.truncate(false, covered[-1].stat().st_size)
        assert shared.run("mount", "--bind", false, covered[-1]).returncode == 0

    yield cover
    for path in covered:
        assert shared.run("umount", path).returncode == 0
    false.unlink()


@pytest.mark.parametrize(
    ("program", "component"),
    [
        ("etcd", "etcd"),
        ("kube-apiserver", "kube-apiserver"),
        ("kube-controller-manager", "kube-controller-manager"),
        ("containerd", "{name}-node-1/containerd"),
        ("kubelet", "{name}-node-1/kubelet"),
    ],
)
def test_nothing_is_left_of_a_start_that_failed(
    shared: Machine, broken: Callable[[str], None], program: str, component: str
) -> None:
    """When a component does not start, `up` MUST say which, how it ended and its last words, and leave nothing."""
    name = shared.name("bad")
    broken(program)
    before = shared.snapshot()

    done = shared.clusterproof("up", "--name", name, "--nodes", "1", "--addons", "none")

    assert done.returncode == 1, done.stderr
    told = done.stderr.splitlines()[-4:]
    assert told == [
        f"clusterproof: {component.format(name=name)} exited with 7; its log ends with:",
        *(f"  no such luck {line}" for line in (1, 2, 3)),
    ]
    assert shared.left_since(before) == []


def test_nothing_is_left_of_a_start_that_took_too_long(shared: Machine, tmp_path: Path) -> None:
    """Who gives a start less time than it needs, by `up` or by a run, MUST hear what was late and what to raise."""
    before, less = shared.snapshot(), "--timeout-scale=0.001"

    by_hand = shared.clusterproof("up", "--name", shared.name("late"), "--addons", "none", less)
    health = [catalog.root() / "health", "-p", "no:cacheprovider", f"--reports-dir={tmp_path}"]
    by_run = shared.run(shared.program("pytest"), *health, less)

    late = (
        "etcd did not say 'ready to serve client requests' within 0.02 s (for a slower machine raise --timeout-scale)"
    )
    assert late in by_hand.stderr
    assert late in by_run.stdout + by_run.stderr
    assert (by_hand.returncode, by_run.returncode) == (1, 4)
    assert shared.left_since(before) == []


def test_no_network_is_left_of_a_start_that_failed(shared: Machine) -> None:
    """When the kernel refuses a part of the network, `up` MUST say which, and leave nothing."""
    assert shared.run("ip", "link", "add", "clusterproof0", "type", "bridge").returncode == 0
    before = shared.snapshot()
    try:
        done = shared.clusterproof("up", "--name", shared.name("bad"), "--addons", "none")
        assert done.returncode == 1
        assert "network: in the host the kernel refused one of these: link add clusterproof0" in done.stderr
        assert "File exists" in done.stderr
        assert shared.left_since(before) == []
    finally:
        shared.run("ip", "link", "delete", "clusterproof0")
