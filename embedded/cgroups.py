"""Control groups of embedded clusters: `/clusterproof/<cluster>/<node>` in every hierarchy, above a node's pods.

cgroup v1 has a hierarchy for each controller, v2 one for all; the kubelet wants its root to exist in every one of them.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

MOUNT = Path("/sys/fs/cgroup")
TOP = "clusterproof"


def is_v2() -> bool:
    """Whether this machine has the unified hierarchy only."""
    return (MOUNT / "cgroup.controllers").exists()


def hierarchies() -> list[Path]:
    """Mount points of all cgroup hierarchies that pods are put into."""
    if is_v2():
        return [MOUNT]
    return [path for path in sorted(MOUNT.iterdir()) if path.is_dir() and not path.is_symlink()]


def controllers() -> set[str]:
    """Names of the controllers this machine has: cpu, memory, pids, ..."""
    if is_v2():
        return set((MOUNT / "cgroup.controllers").read_text().split())
    return {name for path in MOUNT.iterdir() if path.is_dir() for name in path.name.split(",")}


def needed() -> set[str]:
    """Names of the controllers without which a kubelet does not start, or does not hold pods to their limits."""
    return {"cpu", "memory", "pids"} if is_v2() else {"cpu", "cpuset", "memory", "pids"}


def is_crowded() -> bool:
    """v2, in a container: processes are in its topmost group, which then gives no controllers to groups below it.

    Source: https://docs.kernel.org/admin-guide/cgroup-v2.html#no-internal-process-constraint
    """
    if not is_v2() or not (MOUNT / "cgroup.type").exists():  # the kernel's own topmost group has no type, and may
        return False
    given = (MOUNT / "cgroup.subtree_control").read_text().split()
    return not needed() <= {*given} and bool((MOUNT / "cgroup.procs").read_text().strip())


def path_of(cluster: str, node: str) -> str:
    """A node's control group, as the kubelet's `cgroupRoot` wants it."""
    return f"/{TOP}/{cluster}/{node}"


def create(path: str) -> None:
    """Make a control group in every hierarchy, ready to have children and processes."""
    for mount in hierarchies():
        parent = mount
        for part in path.strip("/").split("/"):
            if is_v2():
                _delegate(parent)
            child = parent / part
            child.mkdir(exist_ok=True)
            for name in ("cpuset.cpus", "cpuset.mems"):  # v1 starts them empty, and then no process may enter
                if not is_v2() and (child / name).exists() and not (child / name).read_text().strip():
                    (child / name).write_text((parent / name).read_text())
            parent = child


def remove(cluster: str, node: str = "") -> None:
    """Remove the control groups of a cluster, or of one of its nodes, whose processes must have ended.

    The parent of all clusters' groups goes with the last of them.
    """
    for mount in hierarchies():
        group = mount / TOP / cluster / node
        _drop_page_cache(group)
        for folder, _, _ in os.walk(group, topdown=False):
            _remove_group(Path(folder))
        with contextlib.suppress(OSError):  # other clusters are in it
            (mount / TOP).rmdir()


def _delegate(group: Path) -> None:
    """v2: let children of this group use its controllers."""
    wanted = (group / "cgroup.controllers").read_text().split()
    (group / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in wanted))


def _drop_page_cache(group: Path) -> None:
    """Have the kernel forget the files that processes of a group, and of groups that it had, have read or written.

    While memory is plenty it would keep each of those groups for them, though it was removed, and a machine on which
    clusters have come and gone for hours takes longer to make new ones.

    Source: https://docs.kernel.org/admin-guide/cgroup-v1/memory.html#force-empty and
    https://docs.kernel.org/admin-guide/cgroup-v2.html#memory-interface-files
    """
    with contextlib.suppress(OSError):  # another hierarchy, an older kernel, or not all of it could be dropped
        if is_v2():
            (group / "memory.reclaim").write_text((group / "memory.current").read_text())
        else:
            (group / "memory.force_empty").write_text("0")


def _remove_group(group: Path) -> None:
    deadline = time.monotonic() + 2
    while True:
        try:
            group.rmdir()
        except FileNotFoundError:
            return
        except OSError:  # EBUSY: the kernel has not yet let go of the last process
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return
