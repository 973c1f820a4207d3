"""What a machine needs for an embedded cluster: everything that is missing is said at once, each with the command that helps."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from . import cache, cgroups, rootfs, state
from .state import EmbeddedError

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

CONTROLLERS = {"cpu", "cpuset", "memory", "pids"}
DISK = 6 << 30
"""Bytes that a first build and its clusters need; a warm cache needs a tenth."""


class PreflightError(EmbeddedError):
    """This machine cannot run an embedded cluster; the message lists all reasons."""


def check() -> None:
    """Raise PreflightError when something is missing."""
    if missing := list(problems()):
        listed = "\n".join(f"  - {problem}" for problem in missing)
        raise PreflightError(f"this machine cannot run an embedded cluster yet:\n{listed}")


def problems() -> Iterator[str]:
    """Everything that is missing, one sentence each, with what to do about it."""
    if os.name != "posix" or not Path("/proc/self/ns/net").exists():
        yield "it is not Linux: use --cluster=kind or --cluster=external"
        return
    if os.geteuid() != 0:
        yield "you are not root: run it again with sudo, or use --cluster=kind or --cluster=external"
        return
    packages = {package for tool, package in TOOLS.items() if not shutil.which(tool)} | set(rootfs.missing_packages())
    if packages:
        yield f"packages are missing: apt-get install --no-install-recommends -y {' '.join(sorted(packages))}"
    yield from _kernel_problems(packages)
    yield from _cgroup_problems()
    for folder in {cache.root(), state.root()}:
        yield from _disk_problems(folder)


def _kernel_problems(missing: set[str]) -> Iterator[str]:
    if not missing & {"iproute2", "util-linux"}:
        probe = [
            "unshare",
            "--net",
            "--mount",
            "--pid",
            "--fork",
            "sh",
            "-ec",
            "ip link add v0 type veth peer name v1; ip link add br0 type bridge",
        ]
        done = subprocess.run(probe, capture_output=True, text=True, check=False)
        if done.returncode:
            yield f"namespaces, veth links or bridges are refused ({done.stderr.strip()}): in a container, run it --privileged; else: modprobe -a veth bridge"
    if "iptables" not in missing and shutil.which("unshare"):
        done = subprocess.run(
            ["unshare", "--net", "iptables", "-t", "nat", "-L", "-n"], capture_output=True, text=True, check=False
        )
        if done.returncode:
            yield f"iptables cannot translate addresses ({done.stderr.strip()}): modprobe -a iptable_nat xt_comment xt_conntrack xt_statistic"
    if "overlay" not in Path("/proc/filesystems").read_text():
        yield "the kernel has no overlay file system: modprobe overlay"


def _cgroup_problems() -> Iterator[str]:
    missing = CONTROLLERS - cgroups.controllers()
    if missing:
        yield (
            f"cgroup controllers are missing ({', '.join(sorted(missing))}): boot with cgroup_enable=memory, "
            "or in a container mount /sys/fs/cgroup writable"
        )
    elif not os.access(cgroups.hierarchies()[0], os.W_OK):
        yield "cgroups cannot be written: in a container, run it --privileged --cgroupns=host"


def _disk_problems(folder: Path) -> Iterator[str]:
    there = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(there).free
    if free < DISK and not (folder / "programs").exists():
        yield f"{folder} has {free >> 30} GiB free and {DISK >> 30} are needed: free some, or point CLUSTERPROOF_CACHE and CLUSTERPROOF_STATE elsewhere"
