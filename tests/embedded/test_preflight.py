"""What a machine is told that cannot run a cluster; tests/clusters proves the whole message on a real one."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

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


@pytest.mark.parametrize(("addons", "needed"), [(True, 15), (False, 10)])
def test_inotify_instances_for_one_more_node(
    limit: Path, monkeypatch: pytest.MonkeyPatch, addons: bool, needed: int
) -> None:
    limit.write_text("128\n")
    monkeypatch.setattr(preflight, "_can_watch", lambda wanted: min(wanted, needed))
    preflight.check_one_more(addons=addons)
    monkeypatch.setattr(preflight, "_can_watch", lambda wanted: min(wanted, needed - 1))
    with pytest.raises(preflight.PreflightError, match=f"no further node: .* and {needed} are needed"):
        preflight.check_one_more(addons=addons)


def test_counting_holds_nothing() -> None:
    before = len(os.listdir("/proc/self/fd"))
    assert preflight._can_watch(3) == 3
    assert len(os.listdir("/proc/self/fd")) == before


GIB = 1 << 30


@pytest.fixture
def free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Bytes free under each root of an empty machine; tests change them."""
    bytes_free = {"cache": 100 * GIB, "state": 100 * GIB}
    for root in (preflight.cache, preflight.state):
        folder = tmp_path / root.__name__.rpartition(".")[2]
        folder.mkdir()
        monkeypatch.setattr(root, "root", lambda folder=folder: folder)
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda path: SimpleNamespace(free=bytes_free[path.name]))
    return bytes_free


def disk_problems() -> list[str]:
    return [problem for problem in preflight.problems(1, addons=False) if "GiB free" in problem]


def test_disk_for_a_first_build(free: dict[str, int]) -> None:
    assert disk_problems() == []
    free["cache"] = 5 * GIB + GIB // 2
    (problem,) = disk_problems()
    assert "cache has 5.5 GiB free and 6 are needed: free some, or point CLUSTERPROOF_CACHE" in problem


def test_disk_once_everything_is_built(free: dict[str, int], tmp_path: Path) -> None:
    (tmp_path / "cache" / "programs").mkdir()
    free.update(cache=0, state=2 * GIB)
    assert disk_problems() == []
    free["state"] = GIB // 2
    (problem,) = disk_problems()
    assert "state has 0.5 GiB free and 1 are needed" in problem
