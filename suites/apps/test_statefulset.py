"""StatefulSet: pods with an order, and with a name, an address and a volume that outlive them."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from clusterproof import (
    Images,
    Namespace,
    Object,
    Timeouts,
    capabilities,
    case,
    consistently,
    eventually,
    inside,
    kinds,
    manifests,
    watching,
)
from clusterproof.conditions import (
    Condition,
    ListCondition,
    all_ready,
    equals,
    gone,
    has_ready_pods,
    observed,
    rolled_out,
    scaled,
    settled,
    told_to_end,
    without,
)
from clusterproof.hold import HOLD, held
from clusterproof.running.proving import Unsupported

LONG = 500
"""Seconds, more than any promise lasts."""
END = "That is all."
"""The last line that a pod of `test_identity` prints."""


def test_order(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A StatefulSet MUST create each pod only when the one before is ready, and end them one by one from the top.

    Judged by when each pod was seen to be created, ready, told to end, and gone.

    Source: https://kubernetes.io/docs/concepts/workloads/controllers/statefulset/#deployment-and-scaling-guarantees
    """
    # Between running and ready lies a second, so that the one cannot pass for the other.
    readiness = manifests.http_probe() | {"initialDelaySeconds": 1}
    server = manifests.stateful_set("db", images.agnhost, replicas=3, args=["netexec"], readiness=readiness)

    with watching(namespace.pods("app=db")) as rise:
        db = namespace.create(server)
        eventually(db, rolled_out, within=timeouts.rollout)
    with watching(namespace.pods("app=db")) as fall:
        db.scale(1)
        eventually(db, scaled(1), within=timeouts.rollout)

    waited_for = _ready_before(rise.states)
    assert list(waited_for) == ["db-0", "db-1", "db-2"], f"{db}: its pods were created in the order {list(waited_for)}"
    for before, pod in pairwise(waited_for):
        assert before in waited_for[pod], f"{db}: {pod} was created before {before} had been ready"
    fall.every(_ends_from_the_top(db))
    left = [pod.uid for pod in fall.states[-1]]
    assert left == [pod.uid for pod in rise.states[-1] if pod.name == "db-0"], f"{db}: its first pod was replaced"


def test_parallel(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A StatefulSet with policy Parallel MUST create and end its pods without waiting for one another.

    None of the pods ever becomes ready, so whoever waits for that waits for ever. None of those that are told to end
    goes away before the test lets it.

    Source: https://kubernetes.io/docs/concepts/workloads/controllers/statefulset/#parallel-pod-management
    """
    policy = {"podManagementPolicy": "Parallel"}
    db = namespace.create(manifests.stateful_set("db", images.agnhost, replicas=3, more=policy, spec=manifests.PARKED))
    pods = eventually(db.pods(), settled(3), within=timeouts.object)
    assert [pod.name for pod in pods] == ["db-0", "db-1", "db-2"]

    with held(pods[1]), held(pods[2]):
        for pod in pods[1:]:
            pod.patch({"metadata": {"finalizers": [HOLD]}})
        db.scale(1)
        for pod in pods[1:]:
            eventually(pod, told_to_end, within=timeouts.object)
    (left,) = eventually(db.pods(), settled(1), within=timeouts.object)
    assert left.uid == pods[0].uid, f"{db}: {left} is left, not {pods[0]}"


@pytest.mark.requires(capabilities.DYNAMIC_STORAGE)
def test_identity(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A pod of a StatefulSet that is replaced MUST keep its name, host name, DNS name, volume and the data on it.

    Source: https://kubernetes.io/docs/concepts/workloads/controllers/statefulset/#pod-identity
    """
    namespace.create(manifests.service("db", headless=True))
    db = namespace.create(_diarist(namespace, images))
    (first,) = eventually(db.pods(), all_ready(1), within=timeouts.pod + timeouts.volume)
    claim = namespace.get(kinds.PERSISTENT_VOLUME_CLAIM, "data-db-0")
    said = eventually(first.logs, _complete, within=timeouts.pod)
    assert f"{namespace} was here" not in said, f"{claim}: its new volume is not empty; {first} found: {said}"

    first.delete()
    # It may get another node, and its volume has to follow it there.
    back = timeouts.recovery + timeouts.volume
    (second,) = eventually(db.pods(), without(first, all_ready(1)), within=back)

    said = eventually(second.logs, _complete, within=timeouts.pod)
    address = second.status["podIP"]
    look_up = ["dig", "+search", "+short", "db-0.db", inside.record(address).split()[0]]
    assert (second.name, said.split()[0]) == ("db-0", "db-0"), f"{second}: its host name is {said.split()[0]}, not db-0"
    assert f"{namespace} was here" in said, f"{second}: what its predecessor wrote to {claim} is lost; it found: {said}"
    now = claim.client.get(claim.path)
    assert (now["metadata"]["uid"], now["spec"]["volumeName"]) == (claim.uid, claim.spec["volumeName"])
    eventually(
        lambda: second.exec(look_up).stdout.split(),
        equals([address]),
        within=timeouts.propagation + inside.LONGEST_TTL,
        describe=f"the address of db-0.db as {second} looks it up",
    )


@pytest.mark.requires(capabilities.SEVERAL_NODES)
def test_moved(namespace: Namespace, nodes: list[Object], images: Images, timeouts: Timeouts) -> None:
    """A pod of a StatefulSet that moves to another node MUST keep its name and host name, and be found by them there.

    It has no volume: whether one can move is the storage's to say (`storage/data_survives`).

    Source: https://kubernetes.io/docs/concepts/workloads/controllers/statefulset/#stable-network-id
    """
    before, after = nodes[0].name, nodes[-1].name
    namespace.create(manifests.service("db", headless=True))
    db = namespace.create(manifests.stateful_set("db", images.agnhost, args=["pause"], node=before))
    (first,) = eventually(db.pods(), all_ready(1), within=timeouts.pod)
    assert first.spec["nodeName"] == before

    db.patch({"spec": {"template": {"spec": {"affinity": manifests.only_on(after)}}}})
    (second,) = eventually(db.pods(), without(first, all_ready(1)), within=timeouts.rollout)

    assert (second.name, second.spec["nodeName"]) == ("db-0", after), f"{second} is on {second.spec['nodeName']}"
    name = second.exec(["hostname"]).stdout.strip()
    assert name == "db-0", f"{second}: its host name is {name}, not db-0"
    address = second.status["podIP"]
    question = f"+search db-0.db {inside.record(address).split()[0]}"
    eventually(
        lambda: inside.look_up(second, [question])[question].records,
        equals({inside.record(address)}),
        within=timeouts.propagation + inside.LONGEST_TTL,
        describe=f"the address of db-0.db as {second} looks it up",
    )


def test_update(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A StatefulSet with a changed template MUST replace its pods one by one from the top, down to its partition.

    A pod below that comes back from the old template when it is deleted.

    Source: https://kubernetes.io/docs/concepts/workloads/controllers/statefulset/#rolling-updates
    """
    partition = {"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 1}}}
    db = namespace.create(
        manifests.stateful_set(
            "db", images.agnhost_old, replicas=3, args=["pause"], more=partition | {"podManagementPolicy": "Parallel"}
        )
    )
    eventually(db, rolled_out, within=timeouts.rollout)

    with watching(db.pods()) as pods:
        db.set_image(images.agnhost)
        eventually(db, _updated(2, ready=3), within=timeouts.rollout)

    before, after = ({pod.name: pod for pod in pods.states[number]} for number in (0, -1))
    kept = after["db-0"].uid == before["db-0"].uid and not after["db-0"].deleting
    assert kept, f"{db}: db-0 was replaced although it is below the partition"
    assert {_image(after["db-1"]), _image(after["db-2"])} == {images.agnhost}
    pods.every(_gives_way_only_to(db, "db-1", "db-2", images.agnhost))

    after["db-0"].delete()
    back = eventually(db.pods(), without(after["db-0"], all_ready(3)), within=timeouts.recovery)
    (image,) = (_image(pod) for pod in back if pod.name == "db-0")
    assert image == images.agnhost_old, f"{db}: db-0 is below the partition, and came back from the new template"


@pytest.mark.requires(capabilities.MAX_UNAVAILABLE)
def test_max_unavailable(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A StatefulSet MUST replace as many pods at a time as its maxUnavailable allows, the top ones, and no more.

    What they are replaced by never becomes ready, so the third is left alone.

    Source: https://kubernetes.io/docs/concepts/workloads/controllers/statefulset/#maximum-unavailable-pods
    """
    rolling = {"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 2}}}
    more = rolling | {"podManagementPolicy": "Parallel"}
    db = namespace.create(manifests.stateful_set("db", images.agnhost, replicas=3, args=["pause"], more=more))
    if "maxUnavailable" not in db.spec["updateStrategy"]["rollingUpdate"]:
        raise Unsupported.dropped("maxUnavailable", "MaxUnavailableStatefulSet")
    before = {pod.name: pod.uid for pod in eventually(db.pods(), all_ready(3), within=timeouts.rollout)}

    never = {"name": "main", "readinessProbe": {"exec": {"command": ["false"]}}}
    db.patch({"spec": {"template": {"spec": {"containers": [never]}}}}, type="strategic")
    eventually(db, _updated(2, ready=1), within=timeouts.rollout)

    pods = consistently(db.pods(), settled(3), during=timeouts.steady / 2)
    kept = sorted(pod.name for pod in pods if pod.uid == before[pod.name])
    assert kept == ["db-0"], f"{db}: with two pods that are not ready it has kept {kept} of its pods, not just db-0"


def test_on_delete(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A StatefulSet with strategy OnDelete MUST replace a pod by its changed template only when the pod was deleted.

    Source: https://kubernetes.io/docs/concepts/workloads/controllers/statefulset/#on-delete
    """
    # Parallel, or the pod that never becomes ready would hold back any update.
    more = {"updateStrategy": {"type": "OnDelete"}, "podManagementPolicy": "Parallel"}
    db = namespace.create(manifests.stateful_set("db", images.agnhost_old, more=more, spec=manifests.PARKED))
    (old,) = eventually(db.pods(), settled(1), within=timeouts.object)

    db.set_image(images.agnhost)
    eventually(db, _updated(0), within=timeouts.object)
    (kept,) = db.pods().read()
    assert (kept.uid, kept.deleting) == (old.uid, False), f"{db} replaced {old} although nobody deleted it"

    old.delete()
    (new,) = eventually(db.pods(), without(old, settled(1)), within=timeouts.object)
    assert _image(new) == images.agnhost, f"{new} was made by the old template"


def test_min_ready_seconds(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A StatefulSet MUST NOT go on to its next pod before the one before has been ready for minReadySeconds.

    Until then that one does not count as available.

    Source: https://kubernetes.io/docs/concepts/workloads/controllers/statefulset/#minimum-ready-seconds
    """
    more = {"minReadySeconds": LONG}
    db = namespace.create(manifests.stateful_set("db", images.agnhost, replicas=2, args=["pause"], more=more))

    eventually(db, has_ready_pods, within=timeouts.rollout)
    assert not db.status.get("availableReplicas"), f"{db}: its pod is available as soon as it is ready: {db.status}"
    consistently(
        db.pods(), settled(1), during=timeouts.steady, describe=f"of {db}, whose first is not available, number 1"
    )

    db.patch({"spec": {"minReadySeconds": 0}})
    eventually(db, rolled_out, within=timeouts.rollout)


def test_revision_history(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A StatefulSet MUST keep as many old ControllerRevisions as revisionHistoryLimit says, the newest ones.

    Source: https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/stateful-set-v1/#StatefulSetSpec
    """
    limit = {"revisionHistoryLimit": 1}
    db = namespace.create(manifests.stateful_set("db", images.agnhost, replicas=0, args=["pause"], more=limit))
    for turn in ("2", "3", "4"):
        eventually(db, rolled_out, within=timeouts.object)
        main = {"name": "main", "env": [{"name": "TURN", "value": turn}]}
        db.patch({"spec": {"template": {"spec": {"containers": [main]}}}}, type="strategic")
    eventually(db, rolled_out, within=timeouts.object)

    def kept(revisions: list[Object]) -> str | None:
        numbers = sorted(each["revision"] for each in revisions)
        return None if numbers == [3, 4] else f"revisions {', '.join(map(str, numbers))} exist, not 3 and 4"

    revisions = namespace.select(kinds.CONTROLLER_REVISION, "app=db")
    eventually(revisions, kept, within=timeouts.object)
    # They may be on their way from too many to too few.
    consistently(revisions, kept, during=timeouts.steady / 2)


def test_start_ordinal(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A StatefulSet MUST number its pods from its start ordinal.

    Source: https://kubernetes.io/docs/concepts/workloads/controllers/statefulset/#start-ordinal
    """
    more = {"podManagementPolicy": "Parallel", "ordinals": {"start": 5}}
    db = namespace.create(manifests.stateful_set("db", images.agnhost, replicas=2, more=more, spec=manifests.PARKED))

    pods = eventually(db.pods(), settled(2), within=timeouts.object)

    assert [pod.name for pod in pods] == ["db-5", "db-6"]
    assert [pod.labels.get("apps.kubernetes.io/pod-index") for pod in pods] == ["5", "6"]


@pytest.mark.parametrize(
    ("when_scaled", "when_deleted", "after_scaling", "after_deletion"),
    [
        case("Retain", "Retain", "Retain", 2, 2),
        case("Delete", "Delete", "Delete", 1, 0),
        case("Delete/Retain", "Delete", "Retain", 1, 1),
        case("Retain/Delete", "Retain", "Delete", 2, 0),
    ],
)
def test_claims(
    namespace: Namespace,
    images: Images,
    timeouts: Timeouts,
    when_scaled: str,
    when_deleted: str,
    after_scaling: int,
    after_deletion: int,
) -> None:
    """A StatefulSet MUST keep or delete its pods' claims as told, both when it is scaled down and when it is deleted.

    Source: https://kubernetes.io/docs/concepts/workloads/controllers/statefulset/#persistentvolumeclaim-retention
    """
    more = {
        "podManagementPolicy": "Parallel",
        "persistentVolumeClaimRetentionPolicy": {"whenScaled": when_scaled, "whenDeleted": when_deleted},
    }
    # An empty class name: nobody makes a volume for these claims.
    claims = [manifests.pvc("data", class_name="")]
    db = namespace.create(
        manifests.stateful_set("db", images.agnhost, replicas=2, claims=claims, more=more, spec=manifests.PARKED)
    )
    eventually(db.pods(), settled(2), within=timeouts.object)
    owned = namespace.select(kinds.PERSISTENT_VOLUME_CLAIM)

    db.scale(1)
    eventually(db.pods(), settled(1), within=timeouts.object)
    left = eventually(owned, settled(after_scaling), within=timeouts.object)
    doomed = [claim.name for claim in left if "Pod" in _owners(claim)]
    assert not doomed, f"{', '.join(doomed)} are to be kept when {db} is scaled down, but belong to a pod that has gone"
    db.delete()
    eventually(db.pods(), gone, within=timeouts.object)
    left = eventually(owned, settled(after_deletion), within=timeouts.object)

    doomed = [claim.name for claim in left if _owners(claim)]
    assert not doomed, f"{', '.join(doomed)} are to be kept, but belong to somebody who will take them along"


def _owners(claim: Object) -> set[str]:
    """Kinds of those with which a claim goes away."""
    return {owner["kind"] for owner in claim.metadata.get("ownerReferences") or []}


def _diarist(namespace: Namespace, images: Images) -> dict[str, Any]:
    """A StatefulSet of one pod that prints its host name and its diary, and then makes an entry."""
    read, write = "hostname; cat /data/diary", f"echo {namespace} was here >> /data/diary; sync"
    return manifests.stateful_set(
        "db",
        images.agnhost,
        claims=[manifests.pvc("data")],
        mounts={"data": "/data"},
        command=["sh", "-c", f"{read}; {write}; echo {END}; exec /agnhost pause"],
    )


def _ready_before(states: list[list[Object]]) -> dict[str, set[str]]:
    """Every pod in the order of creation, and which pods had been ready by then."""
    been_ready: set[str] = set()
    found: dict[str, set[str]] = {}
    for state in states:
        been_ready |= {pod.name for pod in state if pod.condition("Ready").get("status") == "True"}
        for pod in state:
            found.setdefault(pod.name, set(been_ready))
    return found


def _ends_from_the_top(db: Object) -> ListCondition:
    def ends(pods: list[Object]) -> str | None:
        for lower, upper in pairwise(pods):
            if lower.deleting:
                return f"{lower.name} was told to end when {upper.name} was not gone"
        return None

    ends.__name__ = f"{db}: its pods end one by one from the top"
    return ends


def _gives_way_only_to(db: Object, lower: str, upper: str, image: str) -> ListCondition:
    """`lower` is told to end only after `upper` was replaced by a ready pod with the new image."""
    done = False

    def gives_way(pods: list[Object]) -> str | None:
        nonlocal done
        found = {pod.name: pod for pod in pods}
        new = found.get(upper)
        done = done or (new is not None and _image(new) == image and new.condition("Ready").get("status") == "True")
        old = found.get(lower)
        given_way = old is None or old.deleting or _image(old) == image
        return f"{lower} gave way before {upper} had been replaced" if given_way and not done else None

    gives_way.__name__ = f"{db}: {lower} is replaced after {upper}"
    return gives_way


def _complete(log: str) -> str | None:
    return None if END in log else f"it ends with {log[-100:]!r}"


def _updated(number: int, ready: int = 0) -> Condition:
    """The controller has seen the template, and so many pods run it; so many are ready in all."""

    def updated(db: Object) -> str | None:
        if missing := observed(db):
            return missing
        seen = db.status.get("updatedReplicas", 0), db.status.get("readyReplicas", 0)
        return None if seen == (number, ready) else f"{seen[0]} pods run its template and {seen[1]} are ready"

    updated.__name__ = f"runs its template in {number} pods, {ready} ready"
    return updated


def _image(pod: Object) -> str:
    return str(pod.spec["containers"][0]["image"])
