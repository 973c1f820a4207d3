"""Nodes that are lost, and come back: what ran there runs elsewhere, but never twice where that must not be."""

from __future__ import annotations

from time import monotonic

import pytest

from clusterproof import (
    Cluster,
    Images,
    Namespace,
    Object,
    Timeouts,
    capabilities,
    consistently,
    eventually,
    kinds,
    manifests,
    measure,
)
from clusterproof.conditions import (
    ListCondition,
    all_ready,
    has_condition,
    ready,
    ready_addresses,
    takes_pods,
    told_to_end,
)

pytestmark = [pytest.mark.disruptive, pytest.mark.requires(capabilities.OPERATOR, capabilities.SEVERAL_NODES)]

SPREAD = {
    "maxSkew": 1,
    "topologyKey": "kubernetes.io/hostname",
    "whenUnsatisfiable": "DoNotSchedule",
    "nodeTaintsPolicy": "Honor",
}
"""As many pods on one node as on another, of those that are not lost."""


def test_loss(cluster: Cluster, namespace: Namespace, nodes: list[Object], images: Images, timeouts: Timeouts) -> None:
    """The pods of a lost node MUST be replaced on others, Services MUST NOT send there, and it MUST be able to return.

    Lost is a node whose kubelet has ended: its pods may run on, but nobody speaks for them.

    Source: https://kubernetes.io/docs/concepts/architecture/nodes/#condition
    """
    spread = [SPREAD | {"labelSelector": {"matchLabels": {"app": "web"}}}]
    spec = {"tolerations": manifests.LEAVE_AT_ONCE, "topologySpreadConstraints": spread}
    web = namespace.create(manifests.web("web", images.agnhost, replicas=len(nodes), spec=spec))
    namespace.create(manifests.service("web"))
    slices = namespace.select(kinds.ENDPOINT_SLICE, labels="kubernetes.io/service-name=web")
    eventually(web.pods(), all_ready(len(nodes)), within=timeouts.rollout)

    lost, began = nodes[-1], monotonic()
    with cluster.without(f"{lost.name}/kubelet"):
        eventually(lost, has_condition("Ready", "Unknown"), within=timeouts.node_loss)
        measure("time until it is known to be lost (s)", monotonic() - began)
        eventually(web.pods(), _ready_elsewhere(lost, len(nodes)), within=timeouts.recovery)
        measure("time until its pods are replaced (s)", monotonic() - began)
        eventually(slices, _offer_only(web, lost), within=timeouts.propagation)

    eventually(lost, takes_pods, within=timeouts.recovery)
    eventually(web.pods(), all_ready(len(nodes)), within=timeouts.pod_end)


def test_at_most_one(
    cluster: Cluster, namespace: Namespace, nodes: list[Object], images: Images, timeouts: Timeouts
) -> None:
    """A StatefulSet's pod on a lost node MUST NOT get a twin elsewhere, and MUST be replaced when the node is back.

    Source: https://kubernetes.io/docs/tasks/run-application/force-delete-stateful-set-pod/#statefulset-considerations
    """
    lost = nodes[-1]
    spec = {"tolerations": manifests.LEAVE_AT_ONCE, "affinity": manifests.rather_on(lost.name, nodes[0].name)}
    only = namespace.create(manifests.stateful_set("only", images.agnhost, args=["pause"], spec=spec))
    (first,) = eventually(only.pods(), _one_on(lost), within=timeouts.pod)

    with cluster.without(f"{lost.name}/kubelet"):
        eventually(first, told_to_end, within=timeouts.node_loss)
        consistently(only.pods(), _no_other_than(first), during=timeouts.steady)

    eventually(lost, takes_pods, within=timeouts.recovery)
    (second,) = eventually(only.pods(), _replaced(first), within=timeouts.recovery)
    assert second.name == first.name, f"{first} is replaced by {second}, not by a pod of the same name"


def _ready_elsewhere(lost: Object, number: int) -> ListCondition:
    """So many pods are ready on other nodes than the lost one."""

    def ready_elsewhere(pods: list[Object]) -> str | None:
        able = [pod.name for pod in pods if pod.spec.get("nodeName") != lost.name and not ready(pod)]
        return None if len(able) == number else f"ready on other nodes are {', '.join(able) or 'none'}, not {number}"

    ready_elsewhere.__name__ = f"are {number}, all ready, without those on {lost.name}"
    return ready_elsewhere


def _offer_only(workload: Object, lost: Object) -> ListCondition:
    """No address is offered but those of the workload's pods on other nodes."""

    def offer(slices: list[Object]) -> str | None:
        places = {pod.status.get("podIP", ""): pod for pod in workload.pods().read()}
        offered = ready_addresses(slices)
        wrong = [str(places[each]) for each in offered if each in places and _is_on(places[each], lost)]
        return f"{', '.join(wrong)} on {lost.name} is offered" if wrong else None if offered else "nothing is offered"

    offer.__name__ = f"offer no pod on {lost.name}"
    return offer


def _one_on(node: Object) -> ListCondition:
    one = all_ready(1)

    def one_on(pods: list[Object]) -> str | None:
        return one(pods) or (None if _is_on(pods[0], node) else f"it is on {pods[0].spec.get('nodeName')}")

    one_on.__name__ = f"is one, ready on {node.name}"
    return one_on


def _no_other_than(pod: Object) -> ListCondition:
    def no_other_than(pods: list[Object]) -> str | None:
        others = [f"{each.name} on {each.spec.get('nodeName', 'no node yet')}" for each in pods if each.uid != pod.uid]
        if others:
            return f"there is another {', '.join(others)}, though {pod.name} may still run on its lost node"
        return None

    no_other_than.__name__ = f"are no others than the {pod.name} of the lost node"
    return no_other_than


def _replaced(pod: Object) -> ListCondition:
    one = all_ready(1)

    def replaced(pods: list[Object]) -> str | None:
        return one(pods) or ("it is still the first one" if pods[0].uid == pod.uid else None)

    replaced.__name__ = f"is one, ready, another than the first {pod.name}"
    return replaced


def _is_on(pod: Object, node: Object) -> bool:
    return bool(pod.spec.get("nodeName") == node.name)
