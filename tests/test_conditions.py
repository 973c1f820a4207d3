"""Conditions: met, not met and why, and hopeless."""

from __future__ import annotations

from typing import Any

import pytest
from kubernetes.client import Configuration

from clusterproof import conditions, kinds
from clusterproof.client import Client
from clusterproof.errors import Hopeless, SurroundingsError
from clusterproof.kinds import Kind
from clusterproof.objects import Object

CLIENT = Client(Configuration())


def an(kind: Kind, status: dict[str, Any], spec: dict[str, Any] | None = None, **metadata: Any) -> Object:
    raw = {"metadata": {"name": "x", "generation": 2, **metadata}, "spec": spec or {}, "status": status}
    return Object(CLIENT, kind, "x", "ns", raw)


def pod(phase: str = "Running", ready: str = "True", **metadata: Any) -> Object:
    return an(kinds.POD, {"phase": phase, "conditions": [{"type": "Ready", "status": ready}]}, **metadata)


def waiting(reason: str) -> Object:
    state = {"waiting": {"reason": reason, "message": "no such image"}}
    return an(kinds.POD, {"phase": "Pending", "containerStatuses": [{"name": "main", "image": "img", "state": state}]})


def deployment(**status: int) -> Object:
    return an(kinds.DEPLOYMENT, {"observedGeneration": 2, **status}, {"replicas": 2})


ALL = {"replicas": 2, "updatedReplicas": 2, "availableReplicas": 2}


def test_rolled_out() -> None:
    assert conditions.rolled_out(deployment(**ALL)) is None
    assert conditions.rolled_out(deployment(**ALL | {"replicas": 3})) == (
        "2/2 pods run its template, 2/2 are available, 3 exist"
    )
    assert conditions.rolled_out(deployment()) == "0/2 pods run its template, 0/2 are available, 0 exist"


def test_a_stale_status_never_meets_a_condition() -> None:
    assert conditions.rolled_out(deployment(**ALL, observedGeneration=1)) == "its controller has not seen generation 2"
    old = {"conditions": [{"type": "Ready", "status": "True", "observedGeneration": 1}]}
    assert conditions.has_condition("Ready")(an(kinds.POD, old)) == "its condition Ready is about an older generation"


def test_rolled_out_of_a_daemon_set() -> None:
    numbers = {"desiredNumberScheduled": 2, "currentNumberScheduled": 2, "updatedNumberScheduled": 2}
    daemon_set = an(kinds.DAEMON_SET, {"observedGeneration": 2, "numberAvailable": 2, **numbers})
    assert conditions.rolled_out(daemon_set) is None
    stray = an(kinds.DAEMON_SET, {"observedGeneration": 2, "numberAvailable": 2, "numberMisscheduled": 1, **numbers})
    assert conditions.rolled_out(stray) == "2/2 pods run its template, 2/2 are available, 3 exist"


def test_scaled_is_about_the_number_that_was_asked_for() -> None:
    assert conditions.scaled(2)(deployment(**ALL)) is None
    assert conditions.scaled(3)(deployment(**ALL)) == "its spec asks for 2 replicas, not 3"


def test_ready() -> None:
    assert conditions.ready(pod()) is None
    assert conditions.ready(pod(ready="False")) == "Ready is False"
    assert conditions.ready(pod(deletionTimestamp="now")) == "it is being deleted"
    assert conditions.ready(an(kinds.POD, {"phase": "Pending"})) == "it has no condition Ready yet"


@pytest.mark.parametrize("condition", [conditions.ready, conditions.running, conditions.phase("Running")])
def test_a_pod_that_ended_can_not_run_any_more(condition: conditions.Condition) -> None:
    with pytest.raises(Hopeless, match="its phase is Failed"):
        condition(pod("Failed"))


@pytest.mark.parametrize("condition", [conditions.ready, conditions.running, conditions.succeeded])
def test_an_image_that_cannot_be_had_is_not_the_clusters_fault(condition: conditions.Condition) -> None:
    assert condition(waiting("ErrImagePull")) is not None
    with pytest.raises(SurroundingsError, match="Pod ns/x: image img: ImagePullBackOff: no such image"):
        condition(waiting("ImagePullBackOff"))


def test_an_image_that_is_still_being_pulled() -> None:
    creating, other = waiting("ContainerCreating"), {"uid": "another"}

    def event(reason: str, message: str, involved: dict[str, str] | None = None) -> Object:
        about = {"uid": creating.uid} if involved is None else involved
        raw = {"metadata": {"name": "e"}, "reason": reason, "message": message, "involvedObject": about}
        return Object.of(creating.client, raw, kinds.EVENT)

    pulling, pulled = event("Pulling", 'Pulling image "img"'), event("Pulled", 'Successfully pulled image "img" in 1s')
    assert conditions.being_pulled(creating, [pulling]).startswith("image img: ")
    assert conditions.being_pulled(creating, [pulling, pulled]) == ""
    assert conditions.being_pulled(creating, [event("Pulling", 'Pulling image "img"', other)]) == ""
    assert conditions.being_pulled(pod(), [pulling]) == ""


def test_jobs() -> None:
    succeeded = an(kinds.JOB, {"conditions": [{"type": "Complete", "status": "True"}]})
    gave_up = an(kinds.JOB, {"conditions": [{"type": "Failed", "status": "True", "reason": "Backoff", "message": "m"}]})
    assert conditions.complete(succeeded) is None
    assert conditions.failed(gave_up) is None
    assert conditions.complete(an(kinds.JOB, {"active": 1})) == "its pods: 1 active, 0 succeeded, 0 failed"
    with pytest.raises(Hopeless, match="it failed: Backoff: m"):
        conditions.complete(gave_up)
    with pytest.raises(Hopeless, match="it succeeded"):
        conditions.failed(succeeded)


def test_gone() -> None:
    assert conditions.gone(Object(CLIENT, kinds.POD, "x", "ns")) is None
    assert conditions.gone([]) is None
    assert conditions.gone(pod()) == "it is still there"
    held = pod(deletionTimestamp="now", finalizers=["a/b"])
    assert conditions.gone(held) == "it is being deleted, held by a/b"


def test_numbers() -> None:
    going = pod(deletionTimestamp="now")
    assert conditions.count(1)([pod(), going]) is None
    assert conditions.count(2)([pod(), going]) == "there are 1, not 2"
    assert conditions.all_ready(1)([pod()]) is None
    assert conditions.all_ready(1)([pod(), going]) == "there are 2, not 1"
    assert conditions.all_ready(2)([pod(), going]) == "1/2 are not ready: x: it is being deleted"


def test_endpoints() -> None:
    raw = {
        "metadata": {"name": "s"},
        "endpoints": [
            {"addresses": ["10.0.0.1"], "conditions": {"ready": True}},
            {"addresses": ["10.0.0.2"], "conditions": {"ready": False}},
            {"addresses": ["10.0.0.3"]},
        ],
    }
    piece = Object(CLIENT, kinds.ENDPOINT_SLICE, "s", "ns", raw)
    assert conditions.endpoints(2)([piece]) is None
    assert conditions.endpoints(3)([piece]) == "ready addresses are ['10.0.0.1', '10.0.0.3'], not 3"


def test_addresses() -> None:
    assert conditions.has_address(an(kinds.INGRESS, {"loadBalancer": {"ingress": [{"ip": "1.2.3.4"}]}})) is None
    assert conditions.has_address(an(kinds.INGRESS, {})) == "its status carries no address"
