"""Nodes: their number follows what the pods need, as an autoscaler of nodes promises.

Whichever it is, pods that must not share a node ask it for more of them: one more than there are nodes fits nowhere.
They tolerate every taint, since an autoscaler's nodes may have taints of their own.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from clusterproof import (
    Cluster,
    Images,
    Namespace,
    NeverHappened,
    Object,
    Timeouts,
    capabilities,
    consistently,
    eventually,
    kinds,
)
from clusterproof.conditions import gone, ready, rolled_out
from clusterproof.manifests import deployment, pod_disruption_budget

pytestmark = [pytest.mark.requires(capabilities.NODES), pytest.mark.full, pytest.mark.alone]

HOST = "kubernetes.io/hostname"
APART = {"topologyKey": HOST, "labelSelector": {"matchLabels": {"app": "crowd"}}}
HELD_BACK = {"karpenter.sh/do-not-disrupt": "true", "cluster-autoscaler.kubernetes.io/safe-to-evict": "false"}
"""What a pod says that is not to be moved: to Karpenter, and to the Cluster Autoscaler."""


@pytest.fixture
def before(cluster: Cluster, timeouts: Timeouts) -> Iterator[set[str]]:
    """Names of the nodes that are there; when the pods of the promise have gone, there are no others again."""
    names = {node.name for node in cluster.list(kinds.NODE)}
    yield names
    if not cluster.settings.keep_failed:  # else the pods may have to stay
        with contextlib.suppress(NeverHappened):  # that they go is a promise of its own
            eventually(cluster.select(kinds.NODE), _none_but(names), within=timeouts.node_down)


def test_up(before: set[str], cluster: Cluster, namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A pod that fits on no node MUST be given a new one, which becomes Ready and runs it.

    Source: https://kubernetes.io/docs/concepts/cluster-administration/node-autoscaling/#provisioning
    """
    (fresh,) = _fresh_nodes(cluster, _crowd(namespace, images, before, 1), before, 1, timeouts)

    eventually(fresh, ready, within=timeouts.node_up)


def test_down(before: set[str], cluster: Cluster, namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A node that was added for pods MUST go away again when they have gone.

    Source: https://kubernetes.io/docs/concepts/cluster-administration/node-autoscaling/#consolidation
    """
    crowd = _crowd(namespace, images, before, 1)
    (idle,) = _fresh_nodes(cluster, crowd, before, 1, timeouts)

    crowd.delete()

    eventually(idle, gone, within=timeouts.node_down)


@pytest.mark.parametrize("why", ["annotation", "budget"])
def test_keeps(
    before: set[str], why: str, cluster: Cluster, namespace: Namespace, images: Images, timeouts: Timeouts
) -> None:
    """A node MUST stay, although others would have room, as long as a pod on it is not to be disrupted.

    Its own annotation says so, or a PodDisruptionBudget. How long it has to stay is measured: in that time another
    node, on which nothing runs, goes away; and for as long again nothing may happen to it.

    Source: https://kubernetes.io/docs/concepts/cluster-administration/node-autoscaling/#consolidation-constraints
    """
    crowd = _crowd(namespace, images, before, 2)
    kept, idle = _fresh_nodes(cluster, crowd, before, 2, timeouts)
    guard = _guard(namespace, images, kept, why)
    (guarded,) = eventually(guard, rolled_out, within=timeouts.pod).pods().read()

    crowd.delete()
    started = time.monotonic()
    eventually(idle, gone, within=timeouts.node_down)

    stays = f"{guarded} stays on {kept}, by its {why}"
    consistently(guard.pods(), _are_just(guarded), during=time.monotonic() - started, describe=stays)
    assert not kept.read().deleting, f"{kept} is being taken away, although {guarded} is not to be disrupted"


def test_fewest(before: set[str], cluster: Cluster, namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """Pods that one node holds MUST NOT be left on two: they are moved together, and a node goes away.

    The two nodes were added for others, which have gone.

    Source: https://kubernetes.io/docs/concepts/cluster-administration/node-autoscaling/#consolidation
    """
    crowd = _crowd(namespace, images, before, 2)
    fresh = list(_fresh_nodes(cluster, crowd, before, 2, timeouts))
    old = [cluster.get(kinds.NODE, name).labels[HOST] for name in sorted(before)]
    pair = [namespace.create(_resident(f"on-{number}", images, old, node)) for number, node in enumerate(fresh)]
    for each in pair:
        eventually(each, rolled_out, within=timeouts.pod)

    placed = {pod.spec["nodeName"] for each in pair for pod in each.pods().read()}
    assert placed == {node.name for node in fresh}, f"pods that would rather be on one each of {fresh} are on {placed}"

    crowd.delete()

    eventually(cluster.select(kinds.NODE), _no_more_than(len(before) + 1), within=timeouts.node_down)
    for each in pair:
        eventually(each, rolled_out, within=timeouts.node_down)


def _crowd(namespace: Namespace, images: Images, before: set[str], more: int) -> Object:
    """Pods that must not share a node, so many more than there are nodes."""
    apart = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [APART]}}
    anywhere = {"affinity": apart, "tolerations": [{"operator": "Exists"}]}
    replicas = len(before) + more
    return namespace.create(deployment("crowd", images.agnhost, replicas=replicas, args=["pause"], spec=anywhere))


def _fresh_nodes(
    cluster: Cluster, crowd: Object, before: set[str], number: int, timeouts: Timeouts
) -> Iterator[Object]:
    """The new nodes on which pods of the crowd run."""

    def run_on_new_nodes(pods: list[Object]) -> str | None:
        found = [pod for pod in pods if pod.spec.get("nodeName", "") not in {"", *before}]
        waiting = [pod.condition("PodScheduled").get("message", "") for pod in pods if not pod.spec.get("nodeName")]
        lacking = [f"{pod.name} on {pod.spec['nodeName']}: {missing}" for pod in found if (missing := ready(pod))]
        if len(found) - len(lacking) >= number:
            return None
        others = f"; {len(waiting)} wait for a node: {waiting[0]}" if waiting else ""
        return f"{len(found)} were given a new node, not {number}{others}{''.join(f'; {each}' for each in lacking)}"

    run_on_new_nodes.__name__ = f"run on {number} new node{'s' * (number > 1)}"
    pods = eventually(crowd.pods(), run_on_new_nodes, within=timeouts.node_up)
    names = sorted({pod.spec["nodeName"] for pod in pods if not ready(pod)} - before)
    return (cluster.get(kinds.NODE, name) for name in names[:number])


def _guard(namespace: Namespace, images: Images, node: Object, why: str) -> Object:
    """A Deployment whose only pod is on that node now, would fit on others, and is not to be disrupted."""
    spec: dict[str, Any] = {"nodeName": node.name, "tolerations": _own_taints(node)}
    made = deployment("guard", images.agnhost, args=["pause"], spec=spec)
    if why == "annotation":
        made["spec"]["template"]["metadata"]["annotations"] = HELD_BACK
    else:
        namespace.create(pod_disruption_budget("guard", least=1))
    return namespace.create(made)


def _resident(name: str, images: Images, not_on: list[str], node: Object) -> dict[str, Any]:
    """A Deployment whose only pod may not be on some hosts, and would rather be on this one."""
    wish = {"weight": 100, "preference": _host("In", [node.labels[HOST]])}
    affinity = {
        "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [_host("NotIn", not_on)]},
        "preferredDuringSchedulingIgnoredDuringExecution": [wish],
    }
    spec = {"affinity": {"nodeAffinity": affinity}, "tolerations": _own_taints(node)}
    return deployment(name, images.agnhost, args=["pause"], spec=spec)


def _host(operator: str, names: list[str]) -> dict[str, Any]:
    return {"matchExpressions": [{"key": HOST, "operator": operator, "values": names}]}


def _own_taints(node: Object) -> list[dict[str, str]]:
    """Tolerations of what the node is, and not of what an autoscaler marks nodes with that are to go."""
    return [{"key": taint["key"], "operator": "Exists"} for taint in node.spec.get("taints") or []]


def _none_but(names: set[str]) -> Callable[[list[Object]], str | None]:
    """There are no nodes but these."""

    def none_but_those_before(nodes: list[Object]) -> str | None:
        more = sorted({node.name for node in nodes} - names)
        return f"there are also {', '.join(more)}" if more else None

    return none_but_those_before


def _no_more_than(number: int) -> Callable[[list[Object]], str | None]:
    def no_more(nodes: list[Object]) -> str | None:
        names = ", ".join(node.name for node in nodes)
        return f"there are still {len(nodes)}: {names}" if len(nodes) > number else None

    no_more.__name__ = f"no more than {number}"
    return no_more


def _are_just(wanted: Object) -> Callable[[list[Object]], str | None]:
    """A selection has this pod and no other, and nobody ends it."""

    def are_just(pods: list[Object]) -> str | None:
        if [pod.uid for pod in pods] != [wanted.uid]:
            return f"{wanted.name} is not the only one: there are {', '.join(pod.name for pod in pods) or 'none'}"
        return "it is being ended" if pods[0].deleting else ready(pods[0])

    return are_just
