"""A node that no machine stands behind, for what the control plane decides about nodes: taints, cordon, capacity.

Its own taint keeps everybody else's pods away, so whatever is done to it disturbs nobody. A pod that gets it never
runs, and nobody ends it when it is deleted: `end` does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from clusterproof.errors import ApiError
from clusterproof.manifests import Manifest
from clusterproof.namespace import RUN_LABEL
from clusterproof.objects import Object, Selection

if TYPE_CHECKING:
    from clusterproof.cluster import Cluster

PREFIX = "clusterproof-hollow-"
"""Every such node's name begins with it: `sweep` removes no other nodes."""
LABEL = "clusterproof.dev/hollow"
"""Key of its label and of its taint."""
MACHINES = f"!{RUN_LABEL},type!=virtual-kubelet,kubernetes.io/os!=windows"
"""Label selector of the nodes that are not a run's own, and not a virtual kubelet's: a Linux stands behind them."""

_NO_TRAFFIC = "node.kubernetes.io/exclude-from-external-load-balancers"
_ABSENT = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
"""Taints that a node gets when no kubelet speaks for it."""


def create(
    cluster: Cluster,
    name: str,
    capacity: Mapping[str, str] | None = None,
    *,
    provider_id: str = "",
    taints: Sequence[Manifest] = (),
    ready: bool = True,
) -> Object:
    """Add such a node for the current promise; it has 4 CPUs, 8 GiB and room for 20 pods, or what `capacity` says.

    `provider_id` is the instance of a cloud that it claims to be; `taints` are further ones.
    """
    room = {"cpu": "4", "memory": "8Gi", "pods": "20", **(capacity or {})}
    # No operating system: a DaemonSet that asks for one passes it by.
    return cluster.create(
        {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": PREFIX + name, "labels": {LABEL: name, _NO_TRAFFIC: ""}},
            "spec": {
                "taints": [{"key": LABEL, "effect": "NoSchedule"}, *taints],
                **({"providerID": provider_id} if provider_id else {}),
            },
            "status": {
                "capacity": room,
                "allocatable": room,
                "conditions": [{"type": "Ready", "status": str(ready), "reason": "Hollow"}],
            },
        }
    )


def pods_on(node: Object, *tolerations: Manifest) -> Manifest:
    """`spec` of pods that can go to this node only, and tolerate what makes it hollow, and further taints."""
    absent: list[Manifest] = [{"key": key, "operator": "Exists"} for key in (LABEL, *_ABSENT)]
    return {"nodeSelector": {LABEL: node.labels[LABEL]}, "tolerations": [*absent, *tolerations]}


def end(pod: Object) -> None:
    """Remove a pod of such a node, as its kubelet would once it has ended."""
    try:
        pod.delete(grace=0)
    except ApiError as error:
        if error.status != 404:
            raise


def end_all(pods: Selection, node: Object) -> None:
    """Remove all pods that the node got."""
    for pod in pods.read():
        if pod.spec.get("nodeName") == node.name:
            end(pod)
