"""Conditions for `eventually` and `consistently`: each answers None when met, else what is missing.

Every condition on a workload compares `generation` to `observedGeneration`, so that a stale status never meets it.
Conditions on pods end a wait at once: Hopeless when the pod has ended, SurroundingsError when its image cannot be had.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from clusterproof.client import Response
from clusterproof.errors import Hopeless, SurroundingsError
from clusterproof.objects import Object

Condition = Callable[[Object], str | None]
ListCondition = Callable[[list[Object]], str | None]
C = TypeVar("C", bound=Callable[..., str | None])

IMAGE_TROUBLE = ("ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName")
"""Reasons of a waiting container whose image cannot be had; a single failed pull is not among them."""


def image_trouble(pod: Object) -> str:
    """Why a container's image cannot be had: `image NAME: ImagePullBackOff: ...`; empty when it can."""
    for container in _containers(pod):
        waiting = (container.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") in IMAGE_TROUBLE:
            return f"image {container['image']}: {waiting['reason']}: {waiting.get('message', '')}"
    return ""


def being_pulled(pod: Object, events: Iterable[Object]) -> str:
    """Which image a container still waits for, by the events of its namespace; empty where it waits for none."""
    told = [(event["reason"], event["message"]) for event in events if event["involvedObject"].get("uid") == pod.uid]
    for container in _containers(pod):
        if "waiting" in (container.get("state") or {}):
            image = container["image"]
            reasons = {reason for reason, message in told if f'"{image}"' in message}
            if "Pulling" in reasons and not reasons & {"Pulled", "Failed"}:
                return f"image {image}: {pod.spec.get('nodeName')} still pulls it"
    return ""


def ready(item: Object) -> str | None:
    """A pod or node is Ready; for a pod also: not being deleted."""
    if item.kind.kind == "Pod":
        if item.deleting:  # it may have ended already, and may be replaced
            return "it is being deleted"
        _can_still_run(item)
    return _has(item, "Ready", "True")


def running(pod: Object) -> str | None:
    """A pod's containers have all been started."""
    _can_still_run(pod)
    phase = pod.status.get("phase")
    return None if phase == "Running" else f"its phase is {phase}"


def succeeded(pod: Object) -> str | None:
    """A pod's containers have all ended with exit code 0."""
    phase = pod.status.get("phase")
    if phase == "Failed":
        raise Hopeless(f"it failed: {pod.status.get('message') or pod.status.get('reason') or 'see its containers'}")
    _image_is_there(pod)
    return None if phase == "Succeeded" else f"its phase is {phase}"


def scheduled(pod: Object) -> str | None:
    """A pod has a node."""
    return _has(pod, "PodScheduled", "True")


def placed_on(node: Object) -> Condition:
    """A pod got this node."""

    def placed_on(pod: Object) -> str | None:
        if (place := pod.spec.get("nodeName")) not in (None, node.name):
            raise Hopeless(f"it got {place}")
        return None if place else f"it has no node: {pod.condition('PodScheduled').get('message', 'nobody says why')}"

    return _named(f"gets {node.name}", placed_on)


def waits_for_node(reason: str) -> Condition:
    """A pod got no node, and says why."""

    def waits_for(pod: Object) -> str | None:
        if place := pod.spec.get("nodeName"):
            raise Hopeless(f"it got {place}")
        told = pod.condition("PodScheduled")
        if (told.get("status"), told.get("reason")) != ("False", "Unschedulable"):
            return f"its condition PodScheduled is {told or 'not there'}"
        return None if reason in told["message"] else f"it waits because {told['message']}"

    return _named(f"waits for a node because of {reason!r}", waits_for)


def container_waits(*reasons: str, message: str = "") -> Condition:
    """A pod's only container waits for one of these reasons, and says something that has the message in it."""

    def waits(pod: Object) -> str | None:
        (status,) = pod.status.get("containerStatuses") or [{}]
        waiting = (status.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") in reasons and message in waiting.get("message", ""):
            return None
        return f"its container's state is {status.get('state') or 'not there'}"

    return _named(f"has a container that waits as {' or '.join(reasons)}", waits)


def told_to_end(pod: Object) -> str | None:
    """A pod is being deleted, by whomever."""
    return None if pod.deleting else "nobody has asked for its end"


def observed(workload: Object) -> str | None:
    """A workload's controller has seen its current spec, so that its status is about that."""
    seen = workload.status.get("observedGeneration", 0) >= workload.generation
    return None if seen else f"its controller has not seen generation {workload.generation}"


def has_ready_pods(workload: Object) -> str | None:
    """A Deployment, StatefulSet, DaemonSet or ReplicaSet has a ready pod, available or not."""
    ready_pods = workload.status.get("numberReady" if workload.kind.kind == "DaemonSet" else "readyReplicas")
    return observed(workload) or (None if ready_pods else "it has no ready pod")


def rolled_out(workload: Object) -> str | None:
    """A Deployment, StatefulSet, DaemonSet or ReplicaSet runs its current template, every replica available."""
    status = workload.status
    if missing := observed(workload):
        return missing
    if workload.kind.kind == "DaemonSet":
        want, have = status.get("desiredNumberScheduled", 0), status.get("currentNumberScheduled", 0)
        fresh, available = status.get("updatedNumberScheduled", 0), status.get("numberAvailable", 0)
        have += status.get("numberMisscheduled", 0)
    else:
        want, have = workload.spec.get("replicas", 1), status.get("replicas", 0)
        available = status.get("availableReplicas", 0)
        fresh = have if workload.kind.kind == "ReplicaSet" else status.get("updatedReplicas", 0)
    if fresh == available == have == want:
        return None
    return f"{fresh}/{want} pods run its template, {available}/{want} are available, {have} exist"


def scaled(replicas: int) -> Condition:
    """A workload has exactly this number of pods, all available."""

    def scaled(workload: Object) -> str | None:
        want = workload.spec.get("replicas")
        return rolled_out(workload) if want == replicas else f"its spec asks for {want} replicas, not {replicas}"

    return scaled


def replicas_between(low: int, high: int) -> ListCondition:
    """The number of replicas that workloads are to have is within the bounds."""

    def between(workloads: list[Object]) -> str | None:
        wrong = [each.spec["replicas"] for each in workloads if not low <= each.spec["replicas"] <= high]
        return f"its number of replicas was set to {wrong[0]}, not to {low} to {high}" if wrong else None

    return _named(f"replicas between {low} and {high}", between)


def complete(job: Object) -> str | None:
    """A Job has succeeded; Hopeless when it failed."""
    failure = job.condition("Failed")
    if failure.get("status") == "True":
        raise Hopeless(f"it failed: {failure.get('reason')}: {failure.get('message')}")
    return _job(job, "Complete")


def failed(job: Object) -> str | None:
    """A Job has failed; Hopeless when it succeeded."""
    if job.condition("Complete").get("status") == "True":
        raise Hopeless("it succeeded")
    return _job(job, "Failed")


def exists(item: Object) -> str | None:
    """An object exists; a wait does not ask about one that does not."""
    return "it is being deleted" if item.deleting else None


def gone(item: Object | list[Object]) -> str | None:
    """An object does not exist any more, or nothing is left of a selection."""
    if isinstance(item, list):
        return f"{len(item)} are still there" if item else None
    if not item.raw:
        return None
    finalizers = item.metadata.get("finalizers")
    if item.deleting:
        return f"it is being deleted{', held by ' + ', '.join(finalizers) if finalizers else ''}"
    return "it is still there"


def count(number: int) -> ListCondition:
    """A selection has exactly this number of objects, those being deleted not counted."""

    def count(items: list[Object]) -> str | None:
        alive = [item for item in items if not item.deleting]
        return None if len(alive) == number else f"there are {len(alive)}, not {number}"

    return _named(f"number exactly {number}", count)


def settled(number: int) -> ListCondition:
    """A selection has exactly this number of objects, none of them being deleted."""

    def settled(items: list[Object]) -> str | None:
        ending = [item.name for item in items if item.deleting]
        if len(items) == number and not ending:
            return None
        return f"there are {len(items)}, not {number}{', being deleted: ' + ', '.join(ending) if ending else ''}"

    return _named(f"number exactly {number}, none being deleted", settled)


def all_ready(number: int) -> ListCondition:
    """A selection has exactly this number of objects, all ready and none being deleted."""

    def all_ready(items: list[Object]) -> str | None:
        lacking = [f"{item.name}: {missing}" for item in items if (missing := ready(item))]
        if len(items) != number:
            return f"there are {len(items)}, not {number}"
        return f"{len(lacking)}/{number} are not ready: {'; '.join(lacking[:3])}" if lacking else None

    return _named(f"are {number}, all ready", all_ready)


def without(pod: Object, condition: ListCondition) -> ListCondition:
    """The condition holds for a selection, and `pod` is not there any more."""

    def without(items: list[Object]) -> str | None:
        return f"{pod.name} is still there" if pod.uid in {item.uid for item in items} else condition(items)

    return _named(f"{condition.__name__}, without {pod.name}", without)


def phase(wanted: str) -> Condition:
    """Its phase is this one: of a Pod, Namespace, PersistentVolumeClaim, ..."""

    def phase(item: Object) -> str | None:
        if item.kind.kind == "Pod" and wanted in ("Running", "Succeeded"):
            _image_is_there(item)
        seen = item.status.get("phase")
        if item.kind.kind == "Pod" and seen != wanted and seen in ("Succeeded", "Failed"):
            raise Hopeless(f"its phase is {seen}")
        return None if seen == wanted else f"its phase is {seen}"

    return _named(f"has phase {wanted}", phase)


def has_condition(type: str, status: str = "True", reason: str = "") -> Condition:
    """A status condition of its current generation has this status, and this reason where one is given."""

    def has_condition(item: Object) -> str | None:
        return _has(item, type, status, reason)

    return _named(f"has condition {type}={status}{f' ({reason})' if reason else ''}", has_condition)


def has_address(item: Object) -> str | None:
    """An Ingress or a LoadBalancer Service was given an address."""
    entries = (item.status.get("loadBalancer") or {}).get("ingress") or []
    return None if any(e.get("ip") or e.get("hostname") for e in entries) else "its status carries no address"


def tell_of(what: str) -> ListCondition:
    """A selection of Events has one whose message has this in it."""

    def tell_of(events: list[Object]) -> str | None:
        told = [event["message"] for event in events]
        return None if any(what in message for message in told) else f"they tell {told or 'nothing'}"

    return _named(f"tell of {what!r}", tell_of)


def endpoints(number: int) -> ListCondition:
    """A selection of EndpointSlices carries exactly this number of ready addresses."""

    def endpoints(slices: list[Object]) -> str | None:
        addresses = ready_addresses(slices)
        return None if len(addresses) == number else f"ready addresses are {sorted(addresses) or 'none'}, not {number}"

    return _named(f"carry {number} ready addresses", endpoints)


UNINITIALIZED = "node.cloudprovider.kubernetes.io/uninitialized"
"""Key of the taint of a node that its cloud has not looked at."""


def initialized(node: Object) -> str | None:
    """A node's cloud, where it has one, has said what it is."""
    tainted = any(taint["key"] == UNINITIALIZED for taint in node.spec.get("taints") or [])
    return f"it still has the taint {UNINITIALIZED}" if tainted else None


def takes_pods(node: Object) -> str | None:
    """A node is Ready, and has no taint that keeps pods away; those that tell of its trouble go a moment after that."""
    keep = [each for each in node.spec.get("taints") or [] if each["effect"] != "PreferNoSchedule"]
    taints = [f"{each['key']}:{each['effect']}" for each in keep]
    return ready(node) or (f"it still has the taints {', '.join(taints)}" if taints else None)


def ready_addresses(slices: list[Object]) -> set[str]:
    """Addresses that EndpointSlices offer as ready. By the API, an unset condition means ready."""
    return {
        address
        for piece in slices
        for endpoint in piece.raw.get("endpoints") or []
        if (endpoint.get("conditions") or {}).get("ready") is not False
        for address in endpoint["addresses"]
    }


def its_own(answer: Response) -> str | None:
    """An answer is that of the server that was asked, not 503 for one behind it that is too busy for a moment."""
    return f"it is answered 503: {answer.text[:200]}" if answer.status == 503 else None


def no_failure(answer: Response) -> str | None:
    """An answer is not that something in the server has failed, or was too busy for a moment to tell."""
    return f"it is answered {answer.status}: {answer.text[:200]}" if answer.status >= 500 else None


def equals(wanted: Any) -> Callable[[Any], str | None]:
    """What was read equals this value."""

    def equals(seen: Any) -> str | None:
        return None if seen == wanted else f"it is {seen!r}, not {wanted!r}"

    return _named(f"equals {wanted!r}", equals)


def _named(name: str, condition: C) -> C:
    condition.__name__ = name
    return condition


def _has(item: Object, type: str, status: str, reason: str = "") -> str | None:
    found = item.condition(type)
    if not found:
        return f"it has no condition {type} yet"
    if found.get("observedGeneration", item.generation) < item.generation:
        return f"its condition {type} is about an older generation"
    if found["status"] == status and reason in ("", found.get("reason")):
        return None
    return ": ".join(filter(None, (f"{type} is {found['status']}", found.get("reason"), found.get("message"))))


def _job(job: Object, type: str) -> str | None:
    if job.condition(type).get("status") == "True":
        return None
    counts = {key: job.status.get(key, 0) for key in ("active", "succeeded", "failed")}
    return "its pods: " + ", ".join(f"{number} {key}" for key, number in counts.items())


def _containers(pod: Object) -> list[dict[str, Any]]:
    """What is known of each container of a pod."""
    return [*(pod.status.get("initContainerStatuses") or []), *(pod.status.get("containerStatuses") or [])]


def _image_is_there(pod: Object) -> None:
    if trouble := image_trouble(pod):
        raise SurroundingsError(f"{pod}: {trouble}")


def _can_still_run(pod: Object) -> None:
    phase = pod.status.get("phase")
    if phase in ("Succeeded", "Failed"):
        raise Hopeless(f"its phase is {phase}")
    _image_is_there(pod)
