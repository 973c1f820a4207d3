"""Storage: a claim gets a volume, the volume outlives its pods, and goes the way its class says."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from clusterproof import (
    Cluster,
    Images,
    Namespace,
    Object,
    Timeouts,
    capabilities,
    case,
    consistently,
    eventually,
    hollow,
    kinds,
    manifests,
)
from clusterproof.capabilities import REGION
from clusterproof.conditions import (
    Condition,
    ListCondition,
    gone,
    phase,
    placed_on,
    ready,
    scheduled,
    succeeded,
    waits_for_node,
)
from clusterproof.load import quantity
from clusterproof.refusals import refused
from clusterproof.running.proving import Unsupported

dynamic = pytest.mark.requires(capabilities.DYNAMIC_STORAGE)

PROTECTIONS = {
    kinds.PERSISTENT_VOLUME: "kubernetes.io/pv-protection",
    kinds.PERSISTENT_VOLUME_CLAIM: "kubernetes.io/pvc-protection",
    kinds.VOLUME_ATTRIBUTES_CLASS: "kubernetes.io/vac-protection",
}

FILL = "head -c 1000000 /dev/urandom > /data/blob; sync"
TELL = "(sha256sum /data/blob || ls -A /data) > /dev/termination-log 2>&1"
"""Leaves the check sum of what is on the volume in the pod's status; without it, what else there is."""


def test_binding(namespace: Namespace, cluster: Cluster, timeouts: Timeouts) -> None:
    """A claim MUST be bound to the smallest volume of its class that is large enough, and leave it Released.

    The volumes are made by hand and never used. Of those that fit better one is of another class, one for another
    access, and one has none of the labels that the claim asks for.

    Source: https://kubernetes.io/docs/concepts/storage/persistent-volumes/#binding
    """
    own, mark = namespace.name, {"clusterproof.dev/good": "yes"}
    made = {size: cluster.create(_volume(f"{own}-{size}", own, f"{size}Gi", labels=mark)) for size in (3, 1, 2)}
    others = [
        _volume(f"{own}-class", f"{own}-other", "1500Mi", labels=mark),
        _volume(f"{own}-access", own, "1500Mi", "ReadOnlyMany", labels=mark),
        _volume(f"{own}-labels", own, "1500Mi", labels={"clusterproof.dev/good": "no"}),
    ]
    for each in (*made.values(), *map(cluster.create, others)):
        eventually(each, phase("Available"), within=timeouts.object)

    asked = {"selector": {"matchLabels": mark}}
    claim = namespace.create(manifests.pvc("data", size="1500Mi", class_name=own, spec=asked))
    eventually(claim, phase("Bound"), within=timeouts.volume)
    chosen = claim.spec["volumeName"]
    assert chosen == made[2].name, f"{claim} of 1500Mi with {asked} got {chosen}, not the 2Gi one"
    volume = eventually(made[2], phase("Bound"), within=timeouts.object)
    assert volume.spec["claimRef"]["uid"] == claim.uid

    claim.delete()
    eventually(claim, gone, within=timeouts.object)
    eventually(volume, phase("Released"), within=timeouts.object)


@dynamic
def test_dynamic(namespace: Namespace, cluster: Cluster, images: Images, timeouts: Timeouts) -> None:
    """A claim that names no class MUST get a new, empty volume of the default class, at least as large as asked for.

    What is written to it is not on the volume of another claim.

    Source: https://kubernetes.io/docs/concepts/storage/dynamic-provisioning/
    """
    claim, other = (namespace.create(manifests.pvc(name, size="64Mi")) for name in ("data", "other"))
    for each in (claim, other):
        assert each.spec.get("storageClassName"), f"{each} names no class, and no default class was entered in it"
    script = f"(ls -A /data; {FILL}; test -s /data/blob && ls -A /other) > /dev/termination-log"
    pod = namespace.create(_pod("writer", images, script, further="other"))
    for each in (claim, other):
        eventually(each, phase("Bound"), within=timeouts.volume)
    eventually(pod, succeeded, within=timeouts.pod + timeouts.volume)

    volume = cluster.get(kinds.PERSISTENT_VOLUME, claim.spec["volumeName"])
    chosen = cluster.get(kinds.STORAGE_CLASS, claim.spec["storageClassName"])
    assert chosen.annotations.get(capabilities.DEFAULT_STORAGE_CLASS) == "true", (
        f"{claim} got {chosen}, which is not a default class"
    )
    assert volume.spec["storageClassName"] == chosen.name, f"{volume} is of {volume.spec['storageClassName']}"
    assert volume.spec["claimRef"]["uid"] == claim.uid, (
        f"{volume} is bound to {volume.spec['claimRef']}, not to {claim}"
    )
    assert quantity(volume.spec["capacity"]["storage"]) >= quantity("64Mi"), f"{volume} has {volume.spec['capacity']}"
    assert "ReadWriteOnce" in volume.spec["accessModes"]
    found = set(_message(pod).split()) - {"lost+found"}
    assert not found, f"{claim} and {other} have new volumes of their own, and {pod} found on them: {found}"


@dynamic
def test_wait_for_first_consumer(namespace: Namespace, cluster: Cluster, images: Images, timeouts: Timeouts) -> None:
    """A claim of a class that waits for the first consumer MUST get its volume only when a pod needs it.

    Source: https://kubernetes.io/docs/concepts/storage/storage-classes/#volume-binding-mode
    """
    own = _own_class(namespace, cluster, volumeBindingMode="WaitForFirstConsumer")
    claim = namespace.create(manifests.pvc("data", class_name=own.name))
    notes = namespace.select(kinds.EVENT, fields=f"involvedObject.uid={claim.uid}")
    eventually(notes, _tell_of("WaitForFirstConsumer"), within=timeouts.volume)
    assert not claim.read().spec.get("volumeName"), f"{claim} has a volume although no pod needs it"

    pod = namespace.create(_pod("consumer", images, FILL))
    eventually(claim, phase("Bound"), within=timeouts.volume)
    eventually(pod, succeeded, within=timeouts.pod + timeouts.volume)


@dynamic
def test_data_survives(
    namespace: Namespace, cluster: Cluster, nodes: list[Object], images: Images, timeouts: Timeouts
) -> None:
    """What a pod has written to its claim MUST be there for the next pod, on another node where the volume can move.

    Source: https://kubernetes.io/docs/concepts/storage/persistent-volumes/
    """
    claim = namespace.create(manifests.pvc("data"))
    writer = namespace.create(_pod("writer", images, f"{FILL}; {TELL}"))
    eventually(claim, phase("Bound"), within=timeouts.volume)
    eventually(writer, succeeded, within=timeouts.pod + timeouts.volume)
    written, first = _message(writer), writer.spec["nodeName"]
    writer.delete()
    eventually(writer, gone, within=timeouts.pod_end)

    volume = cluster.get(kinds.PERSISTENT_VOLUME, claim.read().spec["volumeName"])
    others = [node.name for node in nodes if node.name != first]
    bound_to_node = "nodeAffinity" in volume.spec or not others
    reader = namespace.create(_pod("reader", images, TELL, node="" if bound_to_node else others[0]))
    eventually(reader, succeeded, within=timeouts.pod + timeouts.volume)

    assert _message(reader) == written, f"{volume}: {writer} wrote {written}, and {reader} found {_message(reader)}"


@dynamic
def test_shared_by_pods(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """Pods of one node that use the same claim MUST see the same data at the same time.

    Source: https://kubernetes.io/docs/concepts/storage/persistent-volumes/#access-modes
    """
    namespace.create(manifests.pvc("data"))
    writer = namespace.create(_pod("writer", images, f"{FILL}; exec /agnhost pause"))
    eventually(writer, ready, within=timeouts.pod + timeouts.volume)

    seek = f"until test -s /data/blob; do sleep 1; done; {TELL}"
    reader = namespace.create(_pod("reader", images, seek, node=writer.spec["nodeName"]))
    eventually(reader, succeeded, within=timeouts.pod)

    found = writer.exec(["sha256sum", "/data/blob"]).stdout.strip()
    assert _message(reader) == found, f"{writer} sees {found}, and {reader} beside it {_message(reader)}"


@dynamic
def test_protection(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A claim that is deleted while a pod uses it MUST stay until that pod is gone, protected from the beginning.

    Source: https://kubernetes.io/docs/concepts/storage/persistent-volumes/#storage-object-in-use-protection
    """
    claim = namespace.create(manifests.pvc("data"))
    assert _protected(claim), f"{claim} was created without {PROTECTIONS[claim.kind]}: a pod may use it unprotected"
    pod = namespace.create(_pod("user", images, "exec /agnhost pause"))
    eventually(pod, ready, within=timeouts.pod + timeouts.volume)

    claim.delete()
    consistently(claim, _stays, during=timeouts.steady)

    pod.delete()
    eventually(pod, gone, within=timeouts.pod_end)
    eventually(claim, gone, within=timeouts.object)


def test_volume_protection(namespace: Namespace, cluster: Cluster, timeouts: Timeouts) -> None:
    """A volume that is deleted while a claim is bound to it MUST stay until that claim is gone.

    Source: https://kubernetes.io/docs/concepts/storage/persistent-volumes/#storage-object-in-use-protection
    """
    volume, claim = _bound(namespace, cluster, timeouts)

    volume.delete()
    consistently(volume, _stays, during=timeouts.steady)

    claim.delete()
    eventually(claim, gone, within=timeouts.object)
    eventually(volume, gone, within=timeouts.object)


@pytest.mark.requires(capabilities.VOLUME_ATTRIBUTES)
def test_attributes_protection(namespace: Namespace, cluster: Cluster, timeouts: Timeouts) -> None:
    """A VolumeAttributesClass that is deleted while a claim names it MUST stay until that claim is gone.

    Source: https://kubernetes.io/docs/concepts/storage/volume-attributes-classes/
    """
    used, unused = (cluster.create(_attributes(f"{namespace}-{name}")) for name in ("used", "unused"))
    asked = {"volumeAttributesClassName": used.name}
    claim = namespace.create(manifests.pvc("data", class_name=namespace.name, spec=asked))
    # Where it is known that nobody makes a volume for it, it is known that it names the class.
    notes = namespace.select(kinds.EVENT, fields=f"involvedObject.uid={claim.uid}")
    eventually(notes, _tell_of("ProvisioningFailed"), within=timeouts.volume)

    for each in (unused, used):
        each.delete()
    eventually(unused, gone, within=timeouts.object)
    consistently(used, _stays, during=timeouts.steady)

    claim.delete()
    eventually(claim, gone, within=timeouts.object)
    eventually(used, gone, within=timeouts.object)


def test_no_expansion(namespace: Namespace, cluster: Cluster, timeouts: Timeouts) -> None:
    """A claim MUST NOT be made larger where its class does not say that its volumes can grow.

    Source: https://kubernetes.io/docs/concepts/storage/persistent-volumes/#expanding-persistent-volumes-claims
    """
    _, claim = _bound(namespace, cluster, timeouts)

    with refused(f"{claim} of a larger size"):
        claim.patch({"spec": {"resources": {"requests": {"storage": "2Gi"}}}})


def test_one_pod(namespace: Namespace, cluster: Cluster, images: Images, timeouts: Timeouts) -> None:
    """A claim that is for one pod at a time (ReadWriteOncePod) MUST NOT be given to a second one, on any node.

    Source: https://kubernetes.io/docs/concepts/storage/persistent-volumes/#access-modes
    """
    _bound(namespace, cluster, timeouts, "ReadWriteOncePod")
    first = namespace.create(manifests.pod("first", images.agnhost, **_held_with_claim()))
    eventually(first, scheduled, within=timeouts.object)
    second = namespace.create(manifests.pod("second", images.agnhost, **_held_with_claim()))
    eventually(second, waits_for_node("ReadWriteOncePod"), within=timeouts.object)

    first.delete()
    eventually(second, scheduled, within=timeouts.pod_end)


@pytest.mark.requires(capabilities.CLOUD_NODES)
def test_region(
    namespace: Namespace, cluster: Cluster, nodes: list[Object], images: Images, timeouts: Timeouts
) -> None:
    """A pod MUST NOT get a node in another region than the one that its volume's label names.

    Source: https://kubernetes.io/docs/reference/labels-annotations-taints/#topologykubernetesiozone
    """
    if not (node := next((each for each in nodes if REGION in each.labels), None)):
        raise Unsupported(f"no node that takes pods has the label {REGION}")
    volume, _ = _bound(namespace, cluster, timeouts, labels={REGION: f"not-{node.labels[REGION]}"})
    held = manifests.pod("held", images.agnhost, node=node.name, **_held_with_claim())
    pod = namespace.create(held)
    eventually(pod, waits_for_node("no available volume zone"), within=timeouts.object)

    volume.patch({"metadata": {"labels": {REGION: node.labels[REGION]}}})
    eventually(pod, placed_on(node), within=timeouts.object)


@pytest.mark.requires(capabilities.OWN_NODE)
def test_limit(namespace: Namespace, cluster: Cluster, hollow_node: Object, images: Images, timeouts: Timeouts) -> None:
    """A node MUST NOT be given pods with more volumes of a driver than it can have, and the next when one has gone.

    Source: https://kubernetes.io/docs/concepts/storage/storage-limits/#dynamic-volume-limits
    """
    driver, own = f"{namespace}.clusterproof.dev", hollow.pods_on(hollow_node)
    cluster.create(_csi_node(hollow_node, driver, most=1))
    for name in ("one", "two"):
        volume = cluster.create(_volume(f"{namespace}-{name}", namespace.name, "1Gi", driver=driver))
        asked = {"volumeName": volume.name}
        claim = namespace.create(manifests.pvc(name, size="1Gi", class_name=namespace.name, spec=asked))
        eventually(claim, phase("Bound"), within=timeouts.volume)
    first = namespace.create(manifests.pod("first", images.agnhost, spec=own, **_held_with_claim("one")))
    eventually(first, placed_on(hollow_node), within=timeouts.object)
    numbers = itertools.count(1)

    def second() -> Object:
        # Who gives out nodes hears of their limits apart from pods, and may know of them only at a later try.
        made = manifests.pod(f"second-{next(numbers)}", images.agnhost, spec=own, **_held_with_claim("two"))
        pod = eventually(namespace.create(made), _is_decided, within=timeouts.object)
        if "nodeName" in pod.spec:
            hollow.end(pod)
        return pod

    what = f"pod with a volume of {driver} gets no place on {hollow_node}, which can have one"
    next_ = eventually(second, _waits_because_of("exceed max volume count"), within=timeouts.object, describe=what)
    hollow.end(first)
    eventually(next_, placed_on(hollow_node), within=timeouts.object)


@dynamic
@pytest.mark.parametrize("policy", [case("Delete", "Delete"), case("Retain", "Retain")])
def test_reclaim(namespace: Namespace, cluster: Cluster, images: Images, timeouts: Timeouts, policy: str) -> None:
    """A volume whose claim is deleted MUST go (Delete) or stay, Released (Retain), as its class says.

    One that stays can be given to another claim, with what is on it, and goes when its own policy is changed to Delete.

    Source: https://kubernetes.io/docs/concepts/storage/persistent-volumes/#reclaiming
    """
    own = _own_class(namespace, cluster, reclaimPolicy=policy)
    claim = namespace.create(manifests.pvc("data", class_name=own.name))
    pod = namespace.create(_pod("user", images, f"{FILL}; {TELL}"))
    eventually(claim, phase("Bound"), within=timeouts.volume)
    volume = cluster.get(kinds.PERSISTENT_VOLUME, claim.spec["volumeName"])
    try:
        seen = volume.spec["persistentVolumeReclaimPolicy"]
        assert seen == policy, f"{volume} has the reclaim policy {seen}, its class {own.name} {policy}"
        written = _message(eventually(pod, succeeded, within=timeouts.pod + timeouts.volume))
        pod.delete()
        claim.delete()
        eventually(claim, gone, within=timeouts.pod_end)
        if policy == "Retain":
            eventually(volume, phase("Released"), within=timeouts.object)
            # A volume that goes with its claim is Released for a moment, too.
            consistently(volume, phase("Released"), during=timeouts.steady)
            _reused(volume, written, namespace, images, timeouts)
    finally:
        # Otherwise the storage behind a kept volume would be left for ever.
        if policy == "Retain" and volume.exists():
            volume.patch({"spec": {"persistentVolumeReclaimPolicy": "Delete"}})
    eventually(volume, gone, within=timeouts.volume_end)


@dynamic
def test_ephemeral(namespace: Namespace, cluster: Cluster, images: Images, timeouts: Timeouts) -> None:
    """A pod with a generic ephemeral volume MUST get a claim and a volume of its own, which go with the pod.

    Source: https://kubernetes.io/docs/concepts/storage/ephemeral-volumes/#generic-ephemeral-volumes
    """
    template = {"spec": manifests.pvc("data")["spec"]}
    volume = {"name": "data", "ephemeral": {"volumeClaimTemplate": template}}
    pod = namespace.create(_pod("user", images, f"{FILL}; test -s /data/blob", volume=volume))
    eventually(pod, succeeded, within=timeouts.pod + timeouts.volume)

    claim = namespace.get(kinds.PERSISTENT_VOLUME_CLAIM, "user-data")
    (owner,) = claim.metadata.get("ownerReferences") or [{}]
    assert owner.get("uid") == pod.uid, f"{claim} belongs to {owner}, not to {pod}"
    behind = cluster.get(kinds.PERSISTENT_VOLUME, claim.spec["volumeName"])

    pod.delete()
    eventually(claim, gone, within=timeouts.pod_end)
    if behind.spec["persistentVolumeReclaimPolicy"] == "Delete":
        eventually(behind, gone, within=timeouts.volume_end)


def _reused(volume: Object, written: str, namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A Released volume is given to another claim, and what was written to it is there."""
    volume.patch({"spec": {"claimRef": None}})
    eventually(volume, phase("Available"), within=timeouts.object)
    made = manifests.pvc("again", class_name=volume.spec["storageClassName"])
    made["spec"]["volumeName"] = volume.name
    claim = namespace.create(made)
    eventually(claim, phase("Bound"), within=timeouts.volume)
    reader = namespace.create(_pod("reader", images, TELL, volume=manifests.claim_volume("data", "again")))
    eventually(reader, succeeded, within=timeouts.pod + timeouts.volume)

    found = _message(reader)
    assert found == written, f"{volume} was left with {written}, and {reader} of the next claim found {found}"
    reader.delete()
    claim.delete()
    eventually(claim, gone, within=timeouts.pod_end)


def _pod(
    name: str, images: Images, script: str, *, node: str = "", volume: dict[str, Any] | None = None, further: str = ""
) -> dict[str, Any]:
    """A pod that runs a script once, with the claim `data` at /data unless another volume is given.

    It has a further claim at the path of that name, if one is given.
    """
    volumes = [volume or manifests.claim_volume("data", "data")]
    return manifests.pod(
        name,
        images.agnhost,
        command=["sh", "-c", script],
        restart_policy="Never",
        node=node,
        volumes=volumes + ([manifests.claim_volume(further, further)] if further else []),
        mounts={"data": "/data"} | ({further: f"/{further}"} if further else {}),
    )


def _csi_node(node: Object, driver: str, *, most: int) -> dict[str, Any]:
    """What a driver tells of a node: that it is there, and how many of its volumes the node can have."""
    told = {"name": driver, "nodeID": node.name, "topologyKeys": [], "allocatable": {"count": most}}
    metadata = {"name": node.name}
    kind = kinds.CSI_NODE
    return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata, "spec": {"drivers": [told]}}


def _is_decided(pod: Object) -> str | None:
    """A pod has a node, or says why it has none."""
    told = pod.condition("PodScheduled").get("reason")
    return None if "nodeName" in pod.spec or told == "Unschedulable" else "nobody has looked for a node for it"


def _waits_because_of(reason: str) -> Condition:
    def waits(pod: Object) -> str | None:
        if place := pod.spec.get("nodeName"):
            return f"{pod} got {place}"
        told = pod.condition("PodScheduled").get("message", "nobody says why")
        return None if reason in told else f"{pod} waits because {told}"

    return waits


def _held_with_claim(claim: str = "data") -> dict[str, Any]:
    """Options of a held pod that has a claim."""
    volumes = [*manifests.HELD["volumes"], manifests.claim_volume("data", claim)]
    return {"volumes": volumes, "mounts": {**manifests.HELD["mounts"], "data": "/data"}}


def _bound(
    namespace: Namespace,
    cluster: Cluster,
    timeouts: Timeouts,
    access: str = "ReadWriteOnce",
    *,
    labels: dict[str, str] | None = None,
) -> tuple[Object, Object]:
    """A volume made by hand, and the claim `data` that is bound to it."""
    volume = cluster.create(_volume(namespace.name, namespace.name, "1Gi", access, labels=labels))
    claim = namespace.create(manifests.pvc("data", size="1Gi", class_name=namespace.name, access=access))
    eventually(claim, phase("Bound"), within=timeouts.volume)
    return volume, claim


def _volume(
    name: str,
    class_name: str,
    size: str,
    access: str = "ReadWriteOnce",
    *,
    labels: dict[str, str] | None = None,
    driver: str = "",
) -> dict[str, Any]:
    """A volume made by hand, of a class that only this test knows: of a driver, if one is given, else of a folder."""
    source = {"csi": {"driver": driver, "volumeHandle": name}} if driver else {"hostPath": {"path": f"/tmp/{name}"}}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name, "labels": labels or {}},
        "spec": {
            "storageClassName": class_name,
            "capacity": {"storage": size},
            "accessModes": [access],
            "persistentVolumeReclaimPolicy": "Retain",
            **source,
        },
    }


def _attributes(name: str) -> dict[str, Any]:
    """A class of what can be changed of the volumes of a driver that does not exist."""
    kind = kinds.VOLUME_ATTRIBUTES_CLASS
    changes = {"driverName": "clusterproof.dev", "parameters": {"speed": "high"}}
    return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": {"name": name}, **changes}


def _own_class(namespace: Namespace, cluster: Cluster, **changes: str) -> Object:
    """A class like the default one, but for some changes, that only this test uses."""
    classes = cluster.list(kinds.STORAGE_CLASS)
    default = next(
        (each for each in classes if each.annotations.get(capabilities.DEFAULT_STORAGE_CLASS) == "true"), None
    )
    assert default is not None, (
        f"no StorageClass is the default one; there are: {', '.join(map(str, classes)) or 'none'}"
    )
    copied = {"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", **default.raw, **changes}
    return cluster.create(copied | {"metadata": {"name": namespace.name}})


def _stays(item: Object) -> str | None:
    return None if item.deleting and _protected(item) else f"it is not held back by {PROTECTIONS[item.kind]}"


def _protected(item: Object) -> bool:
    return PROTECTIONS[item.kind] in item.metadata.get("finalizers", [])


def _tell_of(reason: str) -> ListCondition:
    def tell(events: list[Object]) -> str | None:
        reasons = [event.raw.get("reason", "") for event in events]
        return None if reason in reasons else f"they tell of {', '.join(reasons) or 'nothing'}"

    tell.__name__ = f"tell of {reason}"
    return tell


def _message(pod: Object) -> str:
    """What the pod left in its termination message."""
    (main,) = pod.status["containerStatuses"]
    return str(main["state"]["terminated"].get("message", "")).strip()
