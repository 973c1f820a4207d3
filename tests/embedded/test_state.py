"""What a machine knows about its clusters: whose namespaces are whose, and which clusters nobody will end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from clusterproof.embedded import commands, state

from clusterproof.running.run import cluster_name


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without clusters."""
    monkeypatch.setenv("CLUSTERPROOF_STATE", str(tmp_path / "state"))
    monkeypatch.setattr(state, "NAMESPACES", tmp_path / "netns")
    monkeypatch.setattr(state, "_routed_networks", lambda: [])
    return tmp_path


def ended() -> str:
    """A process that has ended, as `identity` had it."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        was = state.identity(process.pid)
    assert was.startswith(f"{process.pid}:")
    return was


def test_namespaces_of_a_cluster_are_not_those_of_a_longer_name(root: Path) -> None:
    (root / "netns").mkdir()
    for name in ("a-control-plane", "a-a-node-1", "a-a-node-12", "a-b-control-plane", "a-b-a-b-node-1", "a-a-node-1-x"):
        (root / "netns" / f"clusterproof-{name}").touch()

    names = [f"clusterproof-{name}" for name in ("a-a-node-1", "a-a-node-12", "a-control-plane")]
    assert state.namespaces_of("a") == names
    assert state.namespaces_of("a-b") == ["clusterproof-a-b-a-b-node-1", "clusterproof-a-b-control-plane"]
    with pytest.raises(state.CannotStart, match="network namespaces of such a cluster are there"):
        state.allocate("a", "1.37.2", 1)


def test_a_cluster_is_abandoned_when_its_launcher_has_ended() -> None:
    made = state.allocate("a", "1.37.2", 1)
    assert made.launcher == state.identity(os.getpid())
    assert not made.abandoned, "it is being started"

    made.launcher = ended()
    assert made.abandoned, "its start was cut off"
    made.ready = True
    assert not made.abandoned, "it is for its user to end"
    made.owner = 17
    assert made.abandoned, "its run was cut off"


def test_an_id_that_was_given_again_is_another_process() -> None:
    made = state.allocate("a", "1.37.2", 1)
    made.launcher = f"{os.getpid()}:1"

    assert made.abandoned


def test_sweep_ends_what_is_abandoned_or_named(monkeypatch: pytest.MonkeyPatch) -> None:
    gone: list[str] = []
    monkeypatch.setattr(commands.cluster, "down", gone.append)
    for name in ("cut", "starting", "stays", cluster_name("r1")):
        made = state.allocate(name, "1.37.2", 1, owner=7 if name == cluster_name("r1") else 0)
        made.ready = name not in ("cut", "starting")
        if name == "cut":
            made.launcher = ended()
        made.save()

    (removed, kept) = commands.sweep("", False)
    assert removed == "removed embedded cluster cut"
    assert kept.startswith("kept embedded cluster stays: it was started to stay, with `clusterproof up` or --keep")
    assert list(commands.sweep("r1", False)) == ["removed embedded cluster cp-r1"]
    assert gone == ["cut", "cp-r1"]


def test_a_kept_cluster_is_only_swept_with_all(monkeypatch: pytest.MonkeyPatch) -> None:
    gone: list[str] = []
    monkeypatch.setattr(commands.cluster, "down", gone.append)
    made = state.allocate(cluster_name("r1"), "1.37.2", 1)
    made.ready, made.launcher = True, ended()
    made.save()

    for run in "", "r1":
        (line,) = commands.sweep(run, False)
        assert line.endswith("(remove it with: clusterproof down --name cp-r1)")
    assert gone == []
    assert list(commands.sweep("", True)) == ["removed embedded cluster cp-r1"]


def test_half_of_a_folder_is_never_seen(root: Path) -> None:
    state.allocate("a", "1.37.2", 1)
    hidden = root / "state/.clusterproof-b"  # whoever made or removed it was killed
    (hidden / "logs").mkdir(parents=True)
    (hidden / "state.json").write_text("{")

    assert [each.name for each in state.clusters()] == ["a"]
    state.forget("a")
    assert os.listdir(root / "state") == [".lock"]


@pytest.mark.parametrize("run", ["3f2a1b0c", "nightly-2024-05-06", "a" * 60, "x" * 36 + "-y"])
def test_the_cluster_of_a_run_has_a_name_that_can_be(run: str) -> None:
    assert state.NAME.fullmatch(cluster_name(run))


def test_what_another_version_has_noted_can_be_read(root: Path) -> None:
    made = state.allocate("a", "1.37.2", 1)
    path = made.folder / "state.json"
    raw = json.loads(path.read_text())
    raw["later"] = raw["nodes"][0]["later"] = True
    path.write_text(json.dumps(raw))

    assert state.load("a") == made


def test_nodes_come_and_go_without_meeting() -> None:
    made = state.allocate("a", "1.37.2", 2)
    made.nodes.remove(made.nodes[0])

    third = made.plan_node("somebody")

    assert [node.name for node in made.nodes] == ["a-node-2", "a-node-3"]
    assert (third.address, third.pods, third.claim) == ("10.201.0.13", "10.208.1.0/25", "somebody")
    assert made.provider_id(third) == "embedded://a/a-node-3"
    names = [made.plan_node().name for _ in range(state.MOST_NODES - 2)]
    assert names[-1] == "a-node-1", "what was used before comes last"
    assert len({(node.name, node.address, node.pods) for node in made.nodes}) == state.MOST_NODES
    with pytest.raises(state.EmbeddedError, match="has 127 nodes already"):
        made.plan_node()


def test_what_others_wrote_meanwhile_is_kept() -> None:
    state.allocate("a", "1.37.2", 1)
    here, there = state.load("a"), state.load("a")
    with here.changing():
        here.plan_node()

    with there.changing():
        there.owner = 17

    now = state.load("a")
    assert ([node.name for node in now.nodes], now.owner) == (["a-node-1", "a-node-2"], 17)


def test_a_change_waits_for_the_one_before() -> None:
    state.allocate("a", "1.37.2", 1)
    changed = threading.Barrier(4)

    def change() -> None:
        mine = state.load("a")
        changed.wait()
        with mine.changing():
            mine.plan_node()

    several = [threading.Thread(target=change) for _ in range(4)]
    for each in several:
        each.start()
    for each in several:
        each.join()

    assert [node.name for node in state.load("a").nodes] == [f"a-node-{number}" for number in range(1, 6)]
