"""What a machine needs for an embedded cluster: all that is missing is said at once, with the command that helps."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

from . import cache, cgroups, rootfs, state
from .state import CannotStart

TOOLS = {
    "ip": "iproute2",
    "nsenter": "util-linux",
    "unshare": "util-linux",
    "mount": "mount",
    "iptables": "iptables",
    "iptables-restore": "iptables",
    "runc": "runc",
}
"""Programs that clusters use from this machine, each with its Debian package."""

_ISOLATED = ("unshare", "--net", "--mount", "--pid", "--fork")
"""What comes before a command that may change a network, which is nobody else's."""
_INOTIFY = Path("/proc/sys/fs/inotify/max_user_instances")
BUILD_DISK = 6 << 30
"""Bytes that a first build needs where its results are kept."""
CLUSTER_DISK = 1 << 30
"""Bytes that a cluster needs for its nodes' containers, logs and volumes."""


class PreflightError(CannotStart):
    """This machine cannot run an embedded cluster; the message lists all reasons."""


def check(nodes: int, more: Iterable[str] = (), *, addons: bool) -> None:
    """Raise PreflightError when something is missing for a cluster of that many nodes, or `more` is known to be."""
    if missing := [*problems(nodes, addons=addons), *more]:
        listed = "\n".join(f"  - {problem}" for problem in missing)
        raise PreflightError(f"this machine cannot run an embedded cluster yet:\n{listed}")


def check_one_more(*, addons: bool) -> None:
    """Raise PreflightError when this machine has no room for one more node of a cluster that runs."""
    if missing := list(_inotify_problems(_instances(addons=addons))):
        raise PreflightError(f"there can be no further node: {missing[0]}")


def problems(nodes: int, *, addons: bool) -> Iterator[str]:
    """Everything that is missing, one sentence each, with what to do about it."""
    if os.name != "posix" or not Path("/proc/self/ns/net").exists():
        yield "it is not Linux: use --cluster=kind or --cluster=external"
        return
    root = os.geteuid() == 0
    if not root:
        yield "you are not root: run it again with sudo, or use --cluster=kind or --cluster=external"
    # Others than root often have no /usr/sbin in their PATH; sudo has.
    path = os.environ.get("PATH", "") + ("" if root else ":/usr/sbin:/sbin")
    tools = {package for tool, package in TOOLS.items() if not shutil.which(tool, path=path)}
    if packages := tools | set(rootfs.missing_packages()):
        yield f"packages are missing: apt-get install --no-install-recommends -y {' '.join(sorted(packages))}"
    if root:  # the kernel refuses these to everybody else, whatever it can do
        yield from _kernel_problems(packages)
        yield from _inotify_problems(15 + nodes * _instances(addons=addons))
    yield from _cgroup_problems(writable=root)
    if not os.path.exists(cache.root() / "programs"):
        yield from _disk_problems(cache.root(), BUILD_DISK)
    yield from _disk_problems(state.root(), CLUSTER_DISK)


def queues_refused() -> str:
    """Why the kernel hands no packets to programs, and what to do about it.

    Empty when it does, or when `problems` says already why it cannot be tried.
    """
    if os.geteuid() or not all(shutil.which(tool) for tool in ("unshare", "iptables")):
        return ""
    said = _refused(*_ISOLATED, "iptables", "-t", "mangle", "-A", "POSTROUTING", "-j", "NFQUEUE", "--queue-num", "98")
    return said and f"the kernel hands no packets to programs ({said}): modprobe -a xt_NFQUEUE nfnetlink_queue"


def _kernel_problems(missing: set[str]) -> Iterator[str]:
    if not missing & {"iproute2", "util-linux"} and (
        said := _refused(*_ISOLATED, "sh", "-ec", "ip link add v0 type veth peer name v1; ip link add br0 type bridge")
    ):
        help = "in a container, run it --privileged; else: modprobe -a veth bridge"
        yield f"namespaces, veth links or bridges are refused ({said}): {help}"
    # Some kernels list a table that they cannot have rules in.
    translate = ("iptables", "-t", "nat", "-A", "POSTROUTING", "-m", "comment", "--comment", "ours", "-j", "MASQUERADE")
    if not missing & {"iptables", "util-linux"} and (said := _refused(*_ISOLATED, *translate)):
        help = "modprobe -a iptable_nat xt_comment xt_conntrack xt_statistic"
        yield f"iptables cannot translate addresses ({said}): {help}"
    if "overlay" not in Path("/proc/filesystems").read_text():
        yield "the kernel has no overlay file system: modprobe overlay"


def _instances(*, addons: bool) -> int:
    """How many inotify instances one node needs, with some to spare."""
    return 15 if addons else 10


def _inotify_problems(wanted: int) -> Iterator[str]:
    """Most machines allow a user 128 instances, which a few clusters use up; then kubelets end as they start.

    A control plane has 13, a node 9, and Envoy 4 on each.
    """
    limit = int(_INOTIFY.read_text())
    if (free := min(limit, _can_watch(min(wanted, 500)))) < min(wanted, 500) or limit < wanted:
        yield (
            f"the kernel gives {free} more inotify instances to root, of {limit} in all, and {wanted} are needed: "
            f"sysctl -w fs.inotify.max_user_instances={max(1024, 2 * limit, 2 * wanted)}"
        )


def _can_watch(wanted: int) -> int:
    """How many inotify instances can be had, up to those that are wanted; nothing else counts everybody's."""
    kernel, held = ctypes.CDLL(None), list[int]()
    while len(held) < wanted and (descriptor := kernel.inotify_init()) >= 0:
        held.append(descriptor)
    for descriptor in held:
        os.close(descriptor)
    return len(held)


def _refused(*command: str) -> str:
    """What a command said when it failed; empty when it did not."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stderr.strip() or f"exit {done.returncode}" if done.returncode else ""


def _cgroup_problems(*, writable: bool) -> Iterator[str]:
    missing = cgroups.needed() - cgroups.controllers()
    if missing:
        yield (
            f"cgroup controllers are missing ({', '.join(sorted(missing))}): boot with cgroup_enable=memory, "
            "or in a container mount /sys/fs/cgroup writable"
        )
    elif writable and not os.access(cgroups.hierarchies()[0], os.W_OK):
        yield "cgroups cannot be written: in a container, run it --privileged --cgroupns=host"
    elif cgroups.is_crowded():
        help = f"cd {cgroups.MOUNT} && mkdir init && for p in $(cat cgroup.procs); do echo $p >init/cgroup.procs; done"
        yield f"processes are in the topmost cgroup, which then gives no controllers to others: {help}"


def _disk_problems(folder: Path, wanted: int) -> Iterator[str]:
    # os.path says no where Path would complain: others than root may not look into the folder.
    there = next(path for path in (folder, *folder.parents) if os.path.exists(path))
    if (free := shutil.disk_usage(there).free) < wanted:
        help = "free some, or point CLUSTERPROOF_CACHE and CLUSTERPROOF_STATE elsewhere"
        yield f"{folder} has {free / 2**30:.1f} GiB free and {wanted >> 30} are needed: {help}"
