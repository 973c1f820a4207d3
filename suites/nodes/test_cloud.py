"""The cloud: what it says of the nodes, and what becomes of those that it does not have any more."""

from __future__ import annotations

import pytest

from clusterproof import Cluster, Namespace, Object, Timeouts, capabilities, eventually, hollow, kinds
from clusterproof.capabilities import REGION
from clusterproof.conditions import UNINITIALIZED, gone, initialized

ZONE = "topology.kubernetes.io/zone"
DESCRIPTION = (REGION, ZONE, "node.kubernetes.io/instance-type")


@pytest.mark.requires(capabilities.CLOUD_NODES)
def test_description(cluster: Cluster, timeouts: Timeouts) -> None:
    """The cloud MUST say of every node which instance it is, its region and zone, and at which address it is.

    A cloud that has no zones gives none to any node.

    Source: https://kubernetes.io/docs/concepts/architecture/cloud-controller/#node-controller
    """
    nodes = cluster.select(kinds.NODE, labels=hollow.MACHINES)
    eventually(nodes, _described, within=timeouts.recovery, describe="are all described by the cloud")


@pytest.mark.requires(capabilities.OWN_NODE, capabilities.CLOUD_NODES)
def test_initialization(cluster: Cluster, namespace: Namespace, timeouts: Timeouts) -> None:
    """A new node MUST be described by the cloud, and then be relieved of the taint that keeps pods away.

    Shown by a second Node object of an instance, without a machine of its own.

    Source: https://kubernetes.io/docs/tasks/administer-cluster/running-cloud-controller/#running-cloud-controller-manager
    """
    known = _instance(cluster)
    taint = {"key": UNINITIALIZED, "value": "true", "effect": "NoSchedule"}
    new = hollow.create(cluster, namespace.name, provider_id=known.spec["providerID"], taints=[taint])

    eventually(new, initialized, within=timeouts.recovery)
    for label in DESCRIPTION:
        told, right = new.labels.get(label), known.labels.get(label)
        assert told == right, f"{new} is the same instance as {known}, but its label {label} is {told}, not {right}"


@pytest.mark.requires(capabilities.OWN_NODE, capabilities.CLOUD_NODES)
def test_removal(cluster: Cluster, namespace: Namespace, timeouts: Timeouts) -> None:
    """A node that is not Ready MUST be removed when the cloud does not have its instance, and stay when it has.

    Source: https://kubernetes.io/docs/concepts/architecture/cloud-controller/#node-controller
    """
    instance = _instance(cluster).spec["providerID"]
    silent = hollow.create(cluster, f"{namespace.name}-silent", provider_id=instance, ready=False)
    lost = hollow.create(cluster, f"{namespace.name}-lost", provider_id=_unlike(instance), ready=False)

    what = f"is removed, as the cloud has no {lost.spec['providerID']}"
    eventually(lost, gone, within=timeouts.recovery, describe=what)
    assert silent.exists(), f"{silent} was removed, too, although the cloud has its instance {instance}"


def _instance(cluster: Cluster) -> Object:
    """A node that the cloud knows; the promise about all of them says what is wrong where there is none."""
    nodes = cluster.list(kinds.NODE, labels=hollow.MACHINES)
    known = [node for node in nodes if node.spec.get("providerID")]
    assert known, f"none of the nodes has a providerID: {', '.join(node.name for node in nodes)}"
    return known[0]


def _unlike(provider_id: str) -> str:
    """A providerID of the same form that no instance has."""
    # Digits stand for themselves in names and in hexadecimal numbers alike.
    path, slash, name = provider_id.rpartition("/")
    end = "9999" if not name.endswith("9999") else "8888"
    return f"{path}{slash}{name[: -len(end)]}{end}"


def _described(nodes: list[Object]) -> str | None:
    zones = [node.name for node in nodes if ZONE in node.labels]
    instances = [node.spec.get("providerID", "") for node in nodes]
    for node, instance in zip(nodes, instances, strict=True):
        if missing := initialized(node):
            return f"{node.name}: {missing}"
        if not instance:
            return f"{node.name} has no providerID"
        if instances.count(instance) > 1:
            return f"{node.name} is {instance}, and so is another node"
        if REGION not in node.labels:
            return f"{node.name} has no label {REGION}"
        if zones and ZONE not in node.labels:
            return f"{node.name} has no label {ZONE}, but {zones[0]} has one"
        if not any(address["type"] == "InternalIP" for address in node.status.get("addresses") or []):
            return f"{node.name} has no address of type InternalIP"
    return None
