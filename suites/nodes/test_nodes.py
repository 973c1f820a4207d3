"""Nodes: each machine is the one that its node says it is, with the right time and room to work."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from statistics import median

from clusterproof import Cluster, Machine, Machines, cri, kinds, machine, measure

AGREEMENT = 2.0
"""Seconds that the clocks of a cluster may be apart."""
HALF_A_SECOND = timedelta(seconds=0.5)
"""A server tells its time in whole seconds: it is this much later in the middle, and may be this far off."""
UNITS = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
NODE_ROOT = "/var/lib/kubelet"
"""Where the kubelet keeps its pods' volumes, unless it is told another place."""
SAME_NAME = ("containerd", "crio")
"""Container runtimes whose process tells the version that is reported of them."""
_VERSIONS = """
for pid; do timeout 10 "/proc/$pid/exe" --version 2>/dev/null | head -n 1; done
exit 0
"""
_ROOM = """
for path; do
    [ -d "$path" ] || continue
    echo "$path $(df -Pk "$path" | awk 'NR == 2 {print $2, $4}') $(df -Pi "$path" | awk 'NR == 2 {print $2, $4}')"
done
"""


def test_versions(machines: Machines, cluster: Cluster) -> None:
    """Every node MUST run the kernel, operating system, kubelet and container runtime that its kubelet reports.

    Source: https://kubernetes.io/docs/reference/node/node-status/#info
    """
    told = {node.name: node.status["nodeInfo"] for node in cluster.list(kinds.NODE)}

    def differs(each: Machine) -> Iterator[str]:
        for what, seen, reported in (
            ("kernel", each.survey.kernel, told[each.name]["kernelVersion"]),
            ("operating system", each.survey.os, told[each.name]["osImage"]),
        ):
            if seen != reported:
                yield f"runs {what} {seen!r}, but its kubelet reports {reported!r}"
        for what, names, reported in (
            ("kubelet", ("kubelet",), told[each.name]["kubeletVersion"].removeprefix("v")),
            ("container runtime", SAME_NAME, told[each.name]["containerRuntimeVersion"].rpartition("://")[2]),
        ):
            versions = _versions(each, *names)
            if versions and reported.removeprefix("v") not in versions:
                yield f"runs {what} {' and '.join(sorted(versions))}, but its kubelet reports {reported}"

    machines.nodes.prove(differs)


def test_clock(machines: Machines, cluster: Cluster) -> None:
    """The clocks of all machines of the cluster MUST agree with one another and with the API server's within 2 s.

    Whether the observer's own clock is right does not matter.

    Source: https://etcd.io/docs/latest/op-guide/hardware/
    """
    clocks = {each.name: machine.clock(each.name, each.host) for each in machines.all}
    before = datetime.now(UTC)
    told = parsedate_to_datetime(cluster.client.request("GET", "/version").headers["Date"]) + HALF_A_SECOND
    after = datetime.now(UTC)
    server = (told - before - (after - before) / 2).total_seconds()
    middle = median([server, *(offset for offset, _ in clocks.values())])
    for name, (offset, _) in clocks.items():
        measure(f"{name}: clock ahead of the API server's (s)", offset - server)

    def is_away(each: Machine) -> Iterator[str]:
        offset, uncertainty = clocks[each.name]
        if abs(offset - middle) > AGREEMENT + uncertainty + HALF_A_SECOND.total_seconds():
            yield f"has a clock that is {offset - middle:+.1f} s away from the middle of the cluster's clocks"

    machines.prove(is_away)


def test_room(machines: Machines) -> None:
    """Every node MUST have more room on its disks, and more inodes, than where its kubelet begins to evict pods.

    Source: https://kubernetes.io/docs/concepts/scheduling-eviction/node-pressure-eviction/#hard-eviction-thresholds
    """

    def lacks_room(each: Machine) -> Iterator[str]:
        limits = each.kubelet("evictionHard") or {}
        root = each.program("kubelet").flag("root-dir", NODE_ROOT)
        images = cri.status(each).config.get("containerdRootDir", "")
        for line in each.run(_ROOM, root, images or root).splitlines():
            path, *numbers = line.split()
            signal = "nodefs" if path == root else "imagefs"
            size, free, inodes, inodes_free = (int(number) for number in numbers)
            for what, left, total in (("available", free * 1024, size * 1024), ("inodesFree", inodes_free, inodes)):
                limit = limits.get(f"{signal}.{what}", "0%")
                if total and left <= _amount(limit, total):
                    yield f"has {left} of {total} left at {path}; its kubelet evicts pods at {signal}.{what}={limit}"

    machines.nodes.prove(lacks_room)


def _versions(machine: Machine, *programs: str) -> set[str]:
    """What the running programs of these names say to `--version`, without what they do not say in a known way."""
    if machine.survey.user != 0:
        return set()
    told = machine.run(_VERSIONS, *(str(program.pid) for program in machine.programs(*programs)))
    return set(re.findall(r"^(?:Kubernetes|containerd \S+|crio version) v?(\d\S*)", told, re.MULTILINE))


def _amount(limit: str, total: int) -> float:
    """What a threshold (`10%`, `1Gi`) is of a total."""
    if limit.endswith("%"):
        return total * float(limit[:-1]) / 100
    number = limit.rstrip("KMGTik")
    return float(number) * UNITS.get(limit.removeprefix(number), 1)
