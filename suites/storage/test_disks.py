"""Disks: volumes that a driver makes, and that can grow, be copied, be shared, and follow their pod to other nodes."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
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
    kinds,
    manifests,
    watching,
)
from clusterproof.conditions import Condition, ListCondition, gone, ready, scheduled
from clusterproof.load import quantity

pytestmark = pytest.mark.pod_security("baseline")  # a device is root's

SIZE = "1Gi"
"""Most clouds give no less."""
GIBIBYTE = 1 << 30
DEFAULT_TAKER = "snapshot.storage.kubernetes.io/is-default-class"
"""Annotation of the VolumeSnapshotClass that a snapshot without class gets."""
FILL = {
    "Filesystem": "head -c 1000000 /dev/urandom > /data/blob && sync",
    "Block": "head -c 1000000 /dev/urandom > /dev/data && sync",
}
SUM = {"Filesystem": "sha256sum < /data/blob", "Block": "head -c 1000000 /dev/data | sha256sum"}
"""Tells the check sum of what FILL left."""
ROOM = {"Filesystem": "df -P -k /data | awk 'END { print $2 * 1024 }'", "Block": "blockdev --getsize64 /dev/data"}
"""Tells how many bytes there is room for."""
MODES = [
    case("filesystem", "Filesystem"),
    case("block", "Block", marks=pytest.mark.requires(capabilities.VOLUME_BLOCK)),
]
Classes = list[dict[str, Any]]


@pytest.fixture
def classes(cluster: Cluster) -> Classes:
    """The StorageClasses that there are."""
    return [each.raw for each in cluster.list(kinds.STORAGE_CLASS)]


@pytest.mark.requires(capabilities.VOLUME_EXPANSION)
@pytest.mark.parametrize("mode", MODES)
def test_expansion(
    namespace: Namespace, cluster: Cluster, classes: Classes, images: Images, timeouts: Timeouts, mode: str
) -> None:
    """A claim that asks for more MUST be given it while its pod goes on: more room there, and all data as before.

    A kubelet looks again when the pod changes, so its annotation is changed all the time; else once a minute or two.

    Source: https://kubernetes.io/docs/concepts/storage/persistent-volumes/#expanding-persistent-volumes-claims
    """
    able = _able(cluster, classes, capabilities.VOLUME_BLOCK.name if mode == "Block" else "")
    claim = namespace.create(_claim("data", _first(capabilities.growing(able)), mode))
    user = _user(namespace, "user", images, timeouts, mode=mode)
    written, room, size = _fill(user, mode), int(_said(user, ROOM[mode])), _size(claim.read().status)

    wanted, nudges = size + GIBIBYTE, count()
    claim.patch({"spec": {"resources": {"requests": {"storage": str(wanted)}}}})

    def nudged() -> Object:
        user.patch({"metadata": {"annotations": {"clusterproof.dev/nudge": str(next(nudges))}}})
        return claim.read()

    eventually(nudged, _has(wanted), within=timeouts.expansion, describe=f"{claim} has what it asks for")
    volume = cluster.get(kinds.PERSISTENT_VOLUME, claim.spec["volumeName"])
    assert _size(volume.spec) >= wanted, f"{claim} has {wanted} bytes, but {volume} {volume.spec['capacity']}"
    # A volume that is a folder among others has the room of them all.
    if room <= 2 * size:
        at_least, what = room + GIBIBYTE // 2, f"room that {user} has on {claim}"
        eventually(lambda: int(_said(user, ROOM[mode])), _no_less_than(at_least), within=timeouts.object, describe=what)
    _still_there(user, mode, written, f"{claim} was made larger")
    (main,) = user.read().status["containerStatuses"]
    assert main["restartCount"] == 0, f"{claim} was made larger, and {user} had to start again"


@pytest.mark.requires(capabilities.VOLUME_BLOCK)
def test_block(namespace: Namespace, cluster: Cluster, classes: Classes, images: Images, timeouts: Timeouts) -> None:
    """A claim for a device MUST give its pod one, as large as was asked for, and the next pod the same bytes.

    Source: https://kubernetes.io/docs/concepts/storage/persistent-volumes/#raw-block-volume-support
    """
    claim = namespace.create(_claim("data", _first(_able(cluster, classes, capabilities.VOLUME_BLOCK.name)), "Block"))
    writer = _user(namespace, "writer", images, timeouts, mode="Block")
    kind = _said(writer, "test -b /dev/data && echo device || ls -ld /dev/data")
    assert kind == "device", f"{writer} should have {claim} as a device, but has {kind}"
    room, size = int(_said(writer, ROOM["Block"])), _size(claim.read().status)
    assert room >= size >= GIBIBYTE, f"{claim} has {size} bytes, but the device in {writer} {room}"
    written = _fill(writer, "Block")
    _end(writer, timeouts)

    reader = _user(namespace, "reader", images, timeouts, mode="Block")

    _still_there(reader, "Block", written, f"{writer} wrote to {claim} and ended")


@pytest.mark.requires(capabilities.VOLUME_SNAPSHOTS)
def test_snapshot(namespace: Namespace, cluster: Cluster, classes: Classes, images: Images, timeouts: Timeouts) -> None:
    """A claim that is made of a snapshot MUST have what was there when it was taken, whatever was written since.

    Source: https://kubernetes.io/docs/concepts/storage/volume-snapshots/
    """
    takers = {each["driver"]: each.name for each in sorted(cluster.list(kinds.VOLUME_SNAPSHOT_CLASS), key=_is_usual)}
    taken_of = _first(capabilities.made_by(takers, classes))
    claim = namespace.create(_claim("data", taken_of))
    user = _user(namespace, "user", images, timeouts)
    first = _fill(user)

    snapshot = namespace.create(_snapshot("taken", claim, takers[taken_of["provisioner"]]))
    eventually(snapshot, _is_ready_to_use, within=timeouts.snapshot)
    second = _fill(user)
    size = snapshot.status.get("restoreSize", SIZE)
    restored = namespace.create(_claim("restored", taken_of, of=snapshot, size=size))
    reader = _user(namespace, "reader", images, timeouts, claim="restored", patience=timeouts.snapshot)

    _still_there(reader, "Filesystem", first, f"{restored} was made of {snapshot}")
    _still_there(user, "Filesystem", second, f"{restored} was made of a snapshot of {claim}")
    content = cluster.get(kinds.VOLUME_SNAPSHOT_CONTENT, snapshot.status["boundVolumeSnapshotContentName"])
    content.patch({"spec": {"deletionPolicy": "Delete"}})  # else the storage behind it would be left for ever
    _end(reader, timeouts)  # a driver may refuse while something is made of it
    eventually(restored.delete(), gone, within=timeouts.volume)
    eventually(snapshot.delete(), gone, within=timeouts.snapshot)
    eventually(content, gone, within=timeouts.snapshot)


@pytest.mark.requires(capabilities.VOLUME_CLONES)
def test_clone(namespace: Namespace, cluster: Cluster, classes: Classes, images: Images, timeouts: Timeouts) -> None:
    """A claim that is made of another MUST begin with what is on that, and be a volume of its own from then on.

    Source: https://kubernetes.io/docs/concepts/storage/volume-pvc-datasource/
    """
    made_of = _first(_able(cluster, classes, capabilities.VOLUME_CLONES.name))
    claim = namespace.create(_claim("data", made_of))
    writer = _user(namespace, "writer", images, timeouts)
    written, here = _fill(writer), cluster.get(kinds.NODE, writer.spec["nodeName"])
    _end(writer, timeouts)  # a claim that is in use need not be copied

    copy = namespace.create(_claim("copy", made_of, of=claim))
    # On the same node, since clouds copy within a zone.
    user = _user(namespace, "user", images, timeouts, claim="copy", node=here, patience=timeouts.snapshot)
    _still_there(user, "Filesystem", written, f"{copy} was made of {claim}")
    changed = _fill(user)
    reader = _user(namespace, "reader", images, timeouts)

    _still_there(reader, "Filesystem", written, f"{copy} was made of {claim}, and written to")
    _still_there(user, "Filesystem", changed, f"{copy} was written to")


@pytest.mark.requires(capabilities.VOLUME_ATTACHMENT)
def test_attachment(
    namespace: Namespace,
    cluster: Cluster,
    classes: Classes,
    nodes: list[Object],
    images: Images,
    timeouts: Timeouts,
) -> None:
    """A volume for one node MUST be attached to the node that needs it, and to another one only when that is over.

    A pod on the other node, which the volume may go to, waits until then, and finds what was written.

    Source: https://kubernetes.io/docs/reference/kubernetes-api/config-and-storage-resources/volume-attachment-v1/
    """
    attaching = capabilities.attaching([each.raw for each in cluster.list(kinds.CSI_DRIVER)])
    made_of = _first(capabilities.made_by(attaching, classes))
    claim = namespace.create(_claim("data", made_of))
    first = _user(namespace, "first", images, timeouts)
    written, volume = _fill(first), claim.read().spec["volumeName"]
    here = cluster.get(kinds.NODE, first.spec["nodeName"])
    there = _another(here, _with_driver(cluster, nodes, made_of), cluster.get(kinds.PERSISTENT_VOLUME, volume))
    attachments = cluster.select(kinds.VOLUME_ATTACHMENT)
    eventually(attachments, _attach(volume, here), within=timeouts.volume)

    with watching(attachments) as history:
        second = namespace.create(_pod("second", images, node=there))
        eventually(second, scheduled, within=timeouts.object)
        consistently(attachments, _attach(volume, here), during=timeouts.steady)
        _end(first, timeouts)
        eventually(second, ready, within=2 * timeouts.volume + timeouts.pod)
    history.every(_have_on_one_node_only(volume))
    _still_there(second, "Filesystem", written, f"{claim} went from {here} to {there}")
    eventually(attachments, _attach(volume, there), within=timeouts.volume)
    _end(second, timeouts)
    eventually(attachments, _attach(volume), within=timeouts.volume)


@pytest.mark.requires(capabilities.VOLUME_SHARING, capabilities.SEVERAL_NODES)
def test_shared(
    namespace: Namespace,
    cluster: Cluster,
    classes: Classes,
    nodes: list[Object],
    images: Images,
    timeouts: Timeouts,
) -> None:
    """Pods of different nodes that use a claim for several nodes (ReadWriteMany) MUST see the same data.

    Source: https://kubernetes.io/docs/concepts/storage/persistent-volumes/#access-modes
    """
    made_of = _first(_able(cluster, classes, capabilities.VOLUME_SHARING.name))
    claim = namespace.create(_claim("data", made_of, access="ReadWriteMany"))
    able = _with_driver(cluster, nodes, made_of)
    here = _user(namespace, "here", images, timeouts, node=able[0])
    there = _user(namespace, "there", images, timeouts, node=able[-1])

    for writer, reader in ((here, there), (there, here)):
        _still_there(reader, "Filesystem", _fill(writer), f"{writer} wrote to {claim}")


def _first(classes: Classes) -> dict[str, Any]:
    """The one that a promise uses; the cluster claims that there is one."""
    assert classes, "the cluster claims to make such volumes, but no StorageClass does: see kubectl get storageclasses"
    return classes[0]


def _able(cluster: Cluster, classes: Classes, capability: str = "") -> Classes:
    """Those that claim a capability, then those whose volumes a driver makes that the cluster knows."""
    drivers = (driver.name for driver in cluster.list(kinds.CSI_DRIVER))
    return capabilities.labelled(capability, classes) + capabilities.made_by(drivers, classes)


def _with_driver(cluster: Cluster, nodes: list[Object], made_of: dict[str, Any]) -> list[Object]:
    """The nodes that can have the volumes of a StorageClass: where no driver is known, which needs one, each."""
    known = {each.name: each.spec.get("drivers") or [] for each in cluster.list(kinds.CSI_NODE)}
    able = [node for node in nodes if made_of["provisioner"] in {each["name"] for each in known.get(node.name, [])}]
    return able or nodes


def _is_usual(taker: Object) -> tuple[bool, bool]:
    """What sorts VolumeSnapshotClasses, the one to take last."""
    return taker.annotations.get(DEFAULT_TAKER) == "true", taker["deletionPolicy"] == "Delete"


def _claim(
    name: str,
    made_of: dict[str, Any],
    mode: str = "Filesystem",
    *,
    access: str = "ReadWriteOnce",
    of: Object | None = None,
    size: str = SIZE,
) -> manifests.Manifest:
    """A claim that begins, where one is given, as a copy `of` a claim or snapshot."""
    spec: dict[str, Any] = {"volumeMode": mode}
    if of is not None:
        spec["dataSource"] = {"apiGroup": of.kind.group, "kind": of.kind.kind, "name": of.name}
    return manifests.pvc(name, size, class_name=made_of["metadata"]["name"], access=access, spec=spec)


def _snapshot(name: str, claim: Object, taker: str) -> manifests.Manifest:
    """A snapshot of a claim, taken as a VolumeSnapshotClass says."""
    kind = kinds.VOLUME_SNAPSHOT
    spec = {"volumeSnapshotClassName": taker, "source": {"persistentVolumeClaimName": claim.name}}
    return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": {"name": name}, "spec": spec}


def _pod(
    name: str, images: Images, *, claim: str = "data", mode: str = "Filesystem", node: Object | None = None
) -> manifests.Manifest:
    """A pod that waits, with a claim at /data or as the device /dev/data."""
    options: dict[str, Any] = {"args": ["pause"], "volumes": [manifests.claim_volume("data", claim)]}
    if mode == "Block":
        options["container"] = {"volumeDevices": [{"name": "data", "devicePath": "/dev/data"}]}
        options["spec"] = {"securityContext": {}}
    else:
        options["mounts"] = {"data": "/data"}
    return manifests.pod(name, images.agnhost, node=node.name if node else "", **options)


def _user(
    namespace: Namespace, name: str, images: Images, timeouts: Timeouts, *, patience: float = 0, **options: Any
) -> Object:
    """A pod as `_pod` makes it, which runs, if need be after so many seconds of `patience` more than others need."""
    pod = namespace.create(_pod(name, images, **options))
    return eventually(pod, ready, within=timeouts.volume + timeouts.pod + patience)


def _end(pod: Object, timeouts: Timeouts) -> None:
    pod.delete()
    eventually(pod, gone, within=timeouts.pod_end)


def _said(pod: Object, script: str) -> str:
    answer = pod.exec(["sh", "-c", script])
    assert answer.code == 0, f"{pod}: {script}: exit code {answer.code}: {answer.stderr or answer.stdout}"
    return answer.stdout.strip()


def _fill(pod: Object, mode: str = "Filesystem") -> str:
    """Write to the volume; the check sum of what was written."""
    return _said(pod, f"{FILL[mode]} && {SUM[mode]}")


def _still_there(pod: Object, mode: str, written: str, why: str) -> None:
    """A pod finds on its volume what was written."""
    __tracebackhide__ = True
    answer = pod.exec(["sh", "-c", SUM[mode]])
    found = answer.stdout.strip() or answer.stderr.strip()
    assert found == written, f"{why}: {pod} MUST find {written} there, but finds {found}"


def _size(part: dict[str, Any]) -> int:
    """Bytes that a claim's status or a volume's spec tells of."""
    return int(quantity(part["capacity"]["storage"]))


def _has(wanted: int) -> Condition:
    def has_grown(claim: Object) -> str | None:
        told = [f"{each['type']}: {each.get('message', '')}" for each in claim.status.get("conditions") or []]
        size = _size(claim.status)
        return None if size >= wanted else f"it has {size} bytes, not {wanted}{''.join(f'; {each}' for each in told)}"

    return has_grown


def _no_less_than(wanted: int) -> Callable[[int], str | None]:
    def no_less(room: int) -> str | None:
        return None if room >= wanted else f"it is {room} bytes, and should be {wanted} at least"

    return no_less


def _is_ready_to_use(snapshot: Object) -> str | None:
    if snapshot.status.get("readyToUse"):
        return None
    return str((snapshot.status.get("error") or {}).get("message", "it is not ready to use"))


def _another(here: Object, nodes: list[Object], volume: Object) -> Object:
    """Another node that a volume may go to, which clouds keep in a zone; the same where there is none."""
    terms = volume.spec.get("nodeAffinity", {}).get("required", {}).get("nodeSelectorTerms") or [{}]

    def is_meant(node: Object, term: dict[str, Any]) -> bool:
        return all(node.labels.get(each["key"]) in each["values"] for each in term.get("matchExpressions", []))

    others = [node for node in nodes if node.name != here.name and any(is_meant(node, term) for term in terms)]
    return (others or [here])[0]


def _have_on_one_node_only(volume: str) -> ListCondition:
    def have_it_on_one_node_only(attachments: list[Object]) -> str | None:
        mine = [each for each in attachments if each.spec["source"].get("persistentVolumeName") == volume]
        where = sorted({each.spec["nodeName"] for each in mine})
        return f"{volume} is at {' and '.join(where)} at the same time" if len(where) > 1 else None

    return have_it_on_one_node_only


def _attach(volume: str, *nodes: Object) -> ListCondition:
    """A volume is attached to these nodes, and to no others."""

    def attach(attachments: list[Object]) -> str | None:
        mine = [each for each in attachments if each.spec["source"].get("persistentVolumeName") == volume]
        where = [each.spec["nodeName"] for each in mine if each.status.get("attached")]
        if where == [node.name for node in nodes] and len(mine) == len(where):
            return None
        waiting = [each.spec["nodeName"] for each in mine if not each.status.get("attached")]
        also = f"; it waits for {', '.join(waiting)}" if waiting else ""
        return f"{volume} is attached to {', '.join(where) or 'no node'}{also}"

    attach.__name__ = f"attach {volume} to {' and '.join(map(str, nodes)) or 'no node'}"
    return attach
