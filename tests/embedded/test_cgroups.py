"""Control groups of embedded clusters, on the kernel of this machine."""

from __future__ import annotations

import ctypes
import mmap
import os
import subprocess
from pathlib import Path

import pytest
from clusterproof.embedded import cgroups, preflight

CLUSTER = "cgroups-test"
SIZE = 8 << 20
"""Bytes of the file that a process writes."""
WRITES = 'echo $$ > "$0/cgroup.procs" && head -c "$1" /dev/zero > "$2" && sync "$2"'


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_cluster_that_goes_takes_along_what_its_processes_have_read_or_written(tmp_path: Path) -> None:
    if _says("stat", "-f", "-c", "%T", str(tmp_path)) == "tmpfs":
        pytest.skip("temporary files are in memory here")
    path, file = cgroups.path_of(CLUSTER, "node-1"), tmp_path / "file"
    cgroups.create(path)
    try:
        (memory,) = (each for each in cgroups.hierarchies() if (each / path[1:] / "memory.stat").exists())
        pod = memory / path[1:] / "pod"
        pod.mkdir()
        subprocess.run(["sh", "-c", WRITES, str(pod), str(SIZE), str(file)], check=True)
        pod.rmdir()
        before = _in_memory(file)
    finally:
        cgroups.remove(CLUSTER)

    assert before == SIZE
    assert _in_memory(file) < SIZE / 4  # the kernel may spare what it has just looked at
    assert not [each for each in cgroups.hierarchies() if (each / cgroups.TOP / CLUSTER).exists()]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_topmost_group_of_version_2_is_emptied_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a container sees it: what is topmost there has a group above it. Without controllers, where v1 has them."""
    subprocess.run(["mount", "-t", "cgroup2", "cgroup2", str(tmp_path)], check=True)
    top = tmp_path / CLUSTER
    monkeypatch.setattr(cgroups, "MOUNT", top)
    monkeypatch.setattr(cgroups, "controllers", cgroups.needed)
    try:
        top.mkdir()
        before = cgroups.is_crowded()
        with subprocess.Popen(["sleep", "60"]) as process:
            (top / "cgroup.procs").write_text(str(process.pid))
            problems = list(preflight._cgroup_problems(writable=True))
            for problem in problems:
                subprocess.run(["sh", "-ec", problem.rpartition(": ")[2]], check=False)
            after = cgroups.is_crowded()
            process.kill()
        assert (before, len(problems), after) == (False, 1, False), problems
    finally:
        for group in (top / "init", top):
            cgroups._remove_group(group)
        subprocess.run(["umount", str(tmp_path)], check=True)


def _in_memory(file: Path) -> int:
    """Bytes of a file that the kernel holds, by mincore(2)."""
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_COPY) as mapped:
        pages = (ctypes.c_ubyte * (len(mapped) // mmap.PAGESIZE))()
        first = ctypes.c_char.from_buffer(mapped)
        assert not ctypes.CDLL(None).mincore(ctypes.byref(first), ctypes.c_size_t(len(mapped)), pages)
        del first  # else the mapping could not be closed
    return sum(page & 1 for page in pages) * mmap.PAGESIZE


def _says(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
