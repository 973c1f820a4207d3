"""What a machine knows about its clusters: whose namespaces are whose, and which clusters nobody will end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
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
