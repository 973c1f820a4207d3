"""Kernel: what pods and Services need of it is switched on, and it has no troubles of its own."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

from clusterproof import Cluster, Machine, Machines, Unseen, hollow, kinds

PARAMETERS: Mapping[str, tuple[str, Callable[[int], bool]]] = {
    "vm.overcommit_memory": ("1", lambda value: value == 1),
    "vm.panic_on_oom": ("0", lambda value: value == 0),
    "kernel.panic": ("10, or another time after which to restart", lambda value: value != 0),
    "kernel.panic_on_oops": ("1", lambda value: value == 1),
    "kernel.keys.root_maxkeys": ("1000000 or more", lambda value: value >= 1_000_000),
    "kernel.keys.root_maxbytes": ("25000000 or more", lambda value: value >= 25_000_000),
}
"""What the kubelet sets when it starts, and needs."""
TROUBLES = re.compile(
    r"^\[\s*(?P<time>[\d.]+)\]\s*(?P<said>.*(?:(?<!Memory cgroup )[Oo]ut of memory: Kill|"
    r"INFO: task .+ blocked for more than|BUG: soft lockup|constraint=CONSTRAINT_NONE).*)"
)
"""The machine's memory ran out (not that of one pod alone), or a task or processor hung."""
RECENT = 3600.0
"""Seconds: troubles that are longer ago are over."""
_LOG = """
cut -d' ' -f1 /proc/uptime
awk -v ticks="$(getconf CLK_TCK || echo 100)" '{sub(/.*\\) /, ""); print $20 / ticks}' /proc/1/stat
dmesg
"""


def test_ip_forward(machines: Machines, cluster: Cluster) -> None:
    """Every node MUST pass on packets that are for others, which its pods' are.

    Source: https://kubernetes.io/docs/setup/production-environment/container-runtimes/#prerequisite-ipv4-forwarding-optional
    """
    # Where the network gives each node its share of addresses by itself, Services have the family of all pods.
    (usual,) = cluster.list(kinds.SERVICE, "default", fields="metadata.name=kubernetes")
    families = {
        node.name: {":" in address for address in node.spec.get("podCIDRs") or usual.spec["clusterIPs"]}
        for node in cluster.list(kinds.NODE, labels=hollow.MACHINES)
    }

    def does_not_forward(each: Machine) -> Iterator[str]:
        for ipv6 in sorted(families[each.name]):
            file = "net/ipv6/conf/all/forwarding" if ipv6 else "net/ipv4/ip_forward"
            if (value := each.run('cat "/proc/sys/$1"', file).strip()) != "1":
                yield f"has {value} in /proc/sys/{file}, which MUST be 1"

    machines.nodes.prove(does_not_forward)


def test_parameters(machines: Machines) -> None:
    """Every node's kernel MUST have the parameters that the kubelet needs.

    Source: https://kubernetes.io/docs/reference/config-api/kubelet-config.v1beta1/
    """
    files = [f"/proc/sys/{name.replace('.', '/')}" for name in PARAMETERS]

    def differs(each: Machine) -> Iterator[str]:
        if (each.kubelet("featureGates") or {}).get("KubeletInUserNamespace"):
            raise Unseen("has its kubelet in a user namespace, which sets none of them")
        values = each.run('grep -h . "$@"', *files).split()
        for (name, (wanted, is_good)), value in zip(PARAMETERS.items(), values, strict=True):
            if not is_good(int(value)):
                yield f"has {name}={value}, which MUST be {wanted}"

    machines.nodes.prove(differs)


def test_log(machines: Machines) -> None:
    """No node's kernel MUST have run out of memory as a whole, or found a hung task, within the last hour.

    Source: https://kubernetes.io/docs/tasks/debug/debug-cluster/monitor-node-health/
    """

    def had_trouble(each: Machine) -> Iterator[str]:
        now, start, *log = each.run(_LOG).splitlines()
        if not log:
            raise Unseen("shows no kernel log")
        found = [line for line in map(TROUBLES.match, log) if line]
        begin = max(float(start), float(now) - RECENT)
        since = [line["said"] for line in found if float(line["time"]) >= begin]
        if since:
            yield f"has {len(since)} such lines in its kernel's log of the last hour, the last: {since[-1][:150]}"

    machines.nodes.prove(had_trouble)
