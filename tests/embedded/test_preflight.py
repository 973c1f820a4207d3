"""What a machine is told that cannot run a cluster; tests/clusters proves the whole message on a real one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from clusterproof.embedded import preflight


@pytest.fixture
def limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Says how many inotify instances the kernel gives a user."""
    path = tmp_path / "max_user_instances"
    monkeypatch.setattr(preflight, "_INOTIFY", path)
    return path


def test_inotify_instances_for_all_nodes(limit: Path) -> None:
    limit.write_text("128\n")
    (problem,) = preflight._inotify_problems(1515)
    assert problem.endswith("of 128 in all, and 1515 are needed: sysctl -w fs.inotify.max_user_instances=3030")


def test_inotify_instances_that_others_have(limit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit.write_text("128\n")
    monkeypatch.setattr(preflight, "_can_watch", lambda wanted: min(wanted, 45))
    assert list(preflight._inotify_problems(45)) == []
    (problem,) = preflight._inotify_problems(60)
    assert problem == (
        "the kernel gives 45 more inotify instances to root, of 128 in all, and 60 are needed: "
        "sysctl -w fs.inotify.max_user_instances=1024"
    )


def test_counting_holds_nothing() -> None:
    before = len(os.listdir("/proc/self/fd"))
    assert preflight._can_watch(3) == 3
    assert len(os.listdir("/proc/self/fd")) == before
