"""HorizontalPodAutoscaler: the number of pods follows what an application says of itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from clusterproof import (
    ApiError,
    Images,
    Namespace,
    Object,
    Timeouts,
    capabilities,
    eventually,
    kinds,
    load,
    manifests,
    visitors,
    watching,
)
from clusterproof.conditions import all_ready, has_condition, ready, replicas_between, rolled_out, scaled
from clusterproof.manifests import DOWN_AT_ONCE, Manifest, deployment, hpa
from clusterproof.running.proving import Unsupported

pytestmark = [pytest.mark.requires(capabilities.CUSTOM_METRICS), pytest.mark.first]

CONNECTIONS: Manifest = {"metric": {"name": visitors.METRIC}}
NO_SUCH: Manifest = {"metric": {"name": "clusterproof_no_such_metric"}}


def test_connections(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A HorizontalPodAutoscaler MUST keep as many pods as the number of their current connections asks for.

    Each pod is to have 4 connections on average. A visitor opens 10 to one of two pods, so three are needed. Then it
    closes them, so none is needed, and the minimum of two stays.

    Source: https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale-walkthrough/#autoscaling-on-multiple-metrics-and-custom-metrics
    """
    made = deployment("web", images.agnhost, replicas=2, **visitors.OPTIONS)
    web = namespace.create(visitors.annotated(made))
    visitor = namespace.create(manifests.pod("visitor", images.agnhost, **visitors.OPTIONS))
    of_pods = {"type": "Pods", "pods": CONNECTIONS | _average("4")}
    scaler = namespace.create(hpa("web", target="web", low=2, high=4, metrics=[of_pods], behavior=DOWN_AT_ONCE))
    eventually(web, rolled_out, within=timeouts.pod)
    eventually(visitor, ready, within=timeouts.pod)
    host = web.pods().read()[0]

    with watching(namespace.select(kinds.DEPLOYMENT)) as history:
        visitors.visit(host, 10, by=visitor, within=timeouts.propagation)
        eventually(scaler, _settled(3, 10, "DesiredWithinRange"), within=timeouts.scale)
        visitors.visit(host, 0, by=visitor, within=timeouts.propagation)
        eventually(scaler, _settled(2, 0, "TooFewReplicas"), within=timeouts.scale)

    history.every(replicas_between(2, 4))


def test_object(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A HorizontalPodAutoscaler MUST follow a metric of an object that is not among its own pods.

    Source: https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale-walkthrough/#autoscaling-on-multiple-metrics-and-custom-metrics
    """
    gate = namespace.create(visitors.pod("gate", images.agnhost))
    scaler = _scaled_without_pods(namespace, images, _of(gate, "4"))
    eventually(gate, ready, within=timeouts.pod)

    visitors.visit(gate, 10, within=timeouts.propagation)
    eventually(scaler, _settled(3, 10, "DesiredWithinRange"), within=timeouts.scale)
    visitors.visit(gate, 0, within=timeouts.propagation)
    eventually(scaler, _settled(1, 0, "TooFewReplicas"), within=timeouts.scale)


@pytest.mark.requires(capabilities.SERVICE_METRICS)
def test_service(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A HorizontalPodAutoscaler MUST follow a metric of a Service, which is the sum over the Service's pods.

    Source: https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale-walkthrough/#autoscaling-on-multiple-metrics-and-custom-metrics
    """
    namespace.create(visitors.annotated(deployment("gate", images.agnhost, replicas=2, **visitors.OPTIONS)))
    gate = namespace.create(manifests.service("gate"))
    scaler = _scaled_without_pods(namespace, images, _of(gate, "4"))
    both = eventually(namespace.select(kinds.POD, labels="app=gate"), all_ready(2), within=timeouts.pod)

    for pod, number in zip(both, (3, 6), strict=True):
        visitors.visit(pod, number, within=timeouts.propagation)
    eventually(scaler, _settled(3, 9, "DesiredWithinRange"), within=timeouts.scale)
    both[1].delete(grace=0)
    eventually(scaler, _settled(1, 3, "DesiredWithinRange"), within=timeouts.scale)


@pytest.mark.requires(capabilities.EXTERNAL_METRICS)
def test_external(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A HorizontalPodAutoscaler MUST follow an external metric, which belongs to no object.

    Source: https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale-walkthrough/#autoscaling-on-metrics-not-related-to-kubernetes-objects
    """
    gate = namespace.create(visitors.pod("gate", images.agnhost))
    scaler = _scaled_without_pods(namespace, images, {"type": "External", "external": CONNECTIONS | _average("4")})
    eventually(gate, ready, within=timeouts.pod)

    visitors.visit(gate, 10, within=timeouts.propagation)
    eventually(scaler, _settled(3, 10, "DesiredWithinRange"), within=timeouts.scale)
    visitors.visit(gate, 0, within=timeouts.propagation)
    eventually(scaler, _settled(1, 0, "TooFewReplicas"), within=timeouts.scale)


@pytest.mark.requires(capabilities.EXTERNAL_METRICS, capabilities.HPA_ZERO)
def test_zero(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A HorizontalPodAutoscaler with a minimum of zero MUST take away all pods while there is nothing to do.

    Source: https://github.com/kubernetes/enhancements/tree/master/keps/sig-autoscaling/2021-scale-from-zero
    """
    gate = namespace.create(visitors.pod("gate", images.agnhost))
    external = {"type": "External", "external": CONNECTIONS | _average("4")}
    try:
        scaler = _scaled_without_pods(namespace, images, external, low=0)
    except ApiError as refusal:
        if refusal.status != 422:
            raise
        raise Unsupported(f"a minimum of zero is refused: {refusal.message}") from refusal
    eventually(gate, ready, within=timeouts.pod)

    # An autoscaler that nobody has looked at yet wants none either.
    eventually(namespace.get(kinds.DEPLOYMENT, "parked"), scaled(0), within=timeouts.scale)
    visitors.visit(gate, 10, within=timeouts.propagation)
    eventually(scaler, _settled(3, 10, "DesiredWithinRange"), within=timeouts.scale)


def test_largest(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A HorizontalPodAutoscaler with several metrics MUST keep as many pods as the largest of them asks for.

    By 10 connections, the first asks for one pod, the second for four, the third for two.

    Source: https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale/#scaling-on-multiple-metrics
    """
    gate = namespace.create(visitors.pod("gate", images.agnhost))
    scaler = _scaled_without_pods(namespace, images, _of(gate, "10"), _of(gate, "2500m"), _of(gate, "5"))
    eventually(gate, ready, within=timeouts.pod)

    visitors.visit(gate, 10, within=timeouts.propagation)
    eventually(scaler, _settled(4, 10, "DesiredWithinRange"), within=timeouts.scale)


def test_missing(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A HorizontalPodAutoscaler MUST NOT remove pods while one of its metrics is missing, and MUST still add some.

    Nobody is connected, so one pod would be enough, but what the other metric asks for is unknown: there stay two. Then
    10 connections ask for three.

    Source: https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale/#scaling-on-multiple-metrics
    """
    gate = namespace.create(visitors.pod("gate", images.agnhost))
    unknown = _of(gate, "1", metric=NO_SUCH)
    eventually(gate, ready, within=timeouts.pod)

    with watching(namespace.select(kinds.DEPLOYMENT)) as history:
        scaler = _scaled_without_pods(namespace, images, _of(gate, "4"), unknown, replicas=2)
        eventually(scaler, _held_back(2), within=timeouts.scale)
        visitors.visit(gate, 10, within=timeouts.propagation)
        eventually(scaler, _settled(3, 10, "DesiredWithinRange"), within=timeouts.scale)

    history.every(replicas_between(2, 3))


def _average(value: str) -> Manifest:
    """The target of a metric: so much of it for each replica."""
    return {"target": {"type": "AverageValue", "averageValue": value}}


def _of(item: Object, value: str, metric: Manifest = CONNECTIONS) -> Manifest:
    """A metric of an object, of which there is to be so much for each replica."""
    described = {"apiVersion": item.kind.api_version, "kind": item.kind.kind, "name": item.name}
    return {"type": "Object", "object": {"describedObject": described, **metric, **_average(value)}}


def _scaled_without_pods(
    namespace: Namespace, images: Images, *metrics: Manifest, replicas: int = 1, low: int = 1
) -> Object:
    """A HorizontalPodAutoscaler of a Deployment whose pods never start: only their number matters."""
    namespace.create(deployment("parked", images.agnhost, replicas=replicas, spec=manifests.PARKED))
    made = hpa("parked", target="parked", low=low, high=6, metrics=metrics, behavior=DOWN_AT_ONCE)
    return namespace.create(made)


def _current(scaler: Object) -> list[float | None]:
    """What the HorizontalPodAutoscaler knows of each of its metrics, for each replica; None where it knows nothing."""
    parts: list[dict[str, Any]] = [
        metric.get(metric.get("type", "").lower()) or {} for metric in scaler.status.get("currentMetrics") or [{}]
    ]
    values = [(part.get("current") or {}).get("averageValue") for part in parts]
    return [None if value is None else load.quantity(value) for value in values]


def _settled(replicas: int, total: float, reason: str) -> Callable[[Object], str | None]:
    """So many replicas, which share the `total` of the first metric; `reason` says why there are not others."""

    def settled(scaler: Object) -> str | None:
        status, value = scaler.status, _current(scaler)[0]
        seen = (status.get("currentReplicas"), status.get("desiredReplicas"))
        told = "no value" if value is None else f"{value:g}"
        if inactive := has_condition("ScalingActive", reason="ValidMetricFound")(scaler):
            return inactive
        if seen != (replicas, replicas):
            return f"it has {seen[0]} replicas and wants {seen[1]}, not {replicas}, at {told} for each"
        if value is None or abs(value - total / replicas) > 0.01:
            return f"it sees {told} for each replica, not {total / replicas:g}"
        return has_condition("ScalingLimited", str(reason != "DesiredWithinRange"), reason)(scaler)

    settled.__name__ = f"settles at {replicas} replicas"
    return settled


def _held_back(replicas: int) -> Callable[[Object], str | None]:
    """It knows that its first metric is zero, and leaves the number of replicas as it is because of another."""

    def held_back(scaler: Object) -> str | None:
        if (seen := scaler.status.get("desiredReplicas")) not in (None, 0, replicas):
            return f"it wants {seen} replicas, not {replicas}, although it does not know all of its metrics"
        if (known := _current(scaler)[0]) != 0:
            return f"it sees {known} of its first metric, not 0"
        return has_condition("ScalingActive", "False", "FailedGetObjectMetric")(scaler)

    held_back.__name__ = f"keeps {replicas} replicas"
    return held_back
