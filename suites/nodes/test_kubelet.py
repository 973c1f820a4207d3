"""Kubelet: it runs, comes back after a restart of the machine, and has the configuration that its node needs."""

from __future__ import annotations

from collections.abc import Iterator

from clusterproof import Cluster, Machine, Machines, Unseen, cri, kinds
from clusterproof.machine import RUNTIMES

STARTED_AT_BOOT = ("enabled", "enabled-runtime", "static", "indirect", "generated", "alias", "linked")
"""What systemd says of a unit that something starts at boot."""


def test_running(machines: Machines, cluster: Cluster) -> None:
    """Every node MUST run a kubelet and a container runtime, and start both at boot where systemd starts things.

    Source: https://kubernetes.io/docs/setup/production-environment/tools/kubeadm/kubelet-integration/
    """

    def is_off(each: Machine) -> Iterator[str]:
        for what, names, works in (
            ("kubelet", ("kubelet",), _kubelet_answers),
            ("container runtime", RUNTIMES, _runtime_answers),
        ):
            found = each.programs(*names)
            if not found and not works(each, cluster):
                yield f"runs no {what}: no process called {' or '.join(names)}, and nothing that answers in its place"
            elif not found:
                raise Unseen(f"has a {what}, but no process called {' or '.join(names)}")
            elif each.survey.systemd and not any(program.unit for program in found):
                yield f"runs its {what} outside of any systemd unit: nothing starts it again"
            for unit in {program.unit for program in found if program.unit and each.survey.systemd}:
                state = each.run('systemctl is-enabled "$1" || true', unit).strip()
                if state not in STARTED_AT_BOOT:
                    yield f"does not start {unit} at boot: systemd says {state!r}"

    machines.nodes.prove(is_off)


def test_access(machines: Machines) -> None:
    """Every kubelet MUST be configured to let nobody in without credentials, and to ask the API server who may do what.

    Source: https://kubernetes.io/docs/reference/access-authn-authz/kubelet-authn-authz/
    Also CIS Kubernetes Benchmark 4.2.1, 4.2.2 and 4.2.4.
    """

    def is_open(each: Machine) -> Iterator[str]:
        where = _configuration(each)
        if each.kubelet("authentication", "anonymous", "enabled"):
            yield f"has authentication.anonymous.enabled=true in {where}"
        if (mode := each.kubelet("authorization", "mode")) == "AlwaysAllow":
            yield f"has authorization.mode={mode} in {where}"
        if port := each.kubelet("readOnlyPort"):
            yield f"has readOnlyPort={port} in {where}"
        if not each.kubelet("authentication", "x509", "clientCAFile") and not each.kubelet(
            "authentication", "webhook", "enabled"
        ):
            yield f"has no way to know anybody by in {where}: neither clientCAFile nor webhook"

    machines.nodes.prove(is_open)


def test_swap(machines: Machines) -> None:
    """Every node MUST have its swap as its kubelet is configured to have it: none, or one that pods may use.

    Source: https://kubernetes.io/docs/concepts/cluster-administration/swap-memory-management/
    """

    def mismatches(each: Machine) -> Iterator[str]:
        areas = [line.split()[0] for line in each.run("cat /proc/swaps").splitlines()[1:]]
        where = _configuration(each)
        if areas and each.kubelet("failSwapOn"):
            yield f"swaps to {', '.join(areas)} (/proc/swaps), although {where} has failSwapOn=true"
        behaviour = each.kubelet("memorySwap", "swapBehavior")
        if areas and behaviour == "LimitedSwap" and each.survey.cgroup != "v2":
            yield f"has memorySwap.swapBehavior=LimitedSwap in {where}, which needs cgroup v2"

    machines.nodes.prove(mismatches)


def _kubelet_answers(machine: Machine, cluster: Cluster) -> bool:
    """Whether something is a node's kubelet, under whatever name."""
    return cluster.new_client().request("GET", f"{kinds.NODE.path(None, machine.name, 'proxy')}/healthz").status == 200


def _runtime_answers(machine: Machine, cluster: Cluster) -> bool:
    """Whether something is a node's container runtime, under whatever name."""
    try:
        return bool(cri.status(machine).conditions)
    except cri.Silent:
        return False


def _configuration(machine: Machine) -> str:
    """Where a kubelet's configuration was written."""
    named = [kubelet.flag("config") for kubelet in machine.programs("kubelet")]
    return next(filter(None, named), "the kubelet's configuration")
