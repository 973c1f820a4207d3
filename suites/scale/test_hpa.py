"""HorizontalPodAutoscaler: the number of pods follows their load, within the bounds that were set."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from itertools import pairwise
from typing import Any

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
    load,
    watching,
)
from clusterproof.conditions import has_condition, replicas_between, rolled_out
from clusterproof.manifests import DOWN_AT_ONCE, Manifest, container, deployment, hpa
from clusterproof.wait import History

pytestmark = [pytest.mark.requires(capabilities.METRICS), pytest.mark.first]

_ALL_OF_IT = {"type": "Utilization", "averageUtilization": 100}
MEMORY = {"type": "Resource", "resource": {"name": "memory", "target": _ALL_OF_IT}}
"""Pods are to use as much memory as they request."""
FILES = 3
"""MiB of the image's files that count as a pod's memory: from none, where another pod has read them before, to 6."""


PERIOD = 10
"""Seconds between two steps."""
ONE_BY_ONE: Manifest = {"policies": [{"type": "Pods", "value": 1, "periodSeconds": PERIOD}]}
HOUR: Manifest = {"stabilizationWindowSeconds": 3600}
AT_ONCE: Manifest = {"stabilizationWindowSeconds": 0}


@pytest.fixture
def patience(cluster: Cluster, timeouts: Timeouts) -> float:
    """Seconds for an autoscaler to follow a change of load."""
    answer = cluster.client.request("GET", kinds.NODE_METRICS.path())
    served = cluster.list(kinds.NODE_METRICS) if answer.status == 200 else []
    return load.patience(served, timeouts.scale)


def test_cpu(namespace: Namespace, images: Images, patience: float, timeouts: Timeouts) -> None:
    """A HorizontalPodAutoscaler MUST keep as many pods as their CPU use asks for, and never fewer than its minimum.

    Pods request 120m and are to use 40 % of that. One of them burns 120m, so three pods are needed. Then none burns
    anything, so none is needed, and the minimum of two stays.

    Source: https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale/#algorithm-details
    """
    requests = {"requests": {"cpu": "120m"}}
    made = deployment("worker", images.agnhost, replicas=2, command=load.command(), resources=requests)
    workers = namespace.create(made)
    scaler = namespace.create(hpa("worker", target="worker", low=2, high=4, cpu=40, behavior=DOWN_AT_ONCE))
    eventually(workers, rolled_out, within=timeouts.pod)
    burning = workers.pods().read()[0]

    with watching(namespace.select(kinds.DEPLOYMENT)) as history:
        load.burn(burning, 120)
        with load.needed(burning, 120):
            eventually(scaler, _settled(3, 2.5, "DesiredWithinRange"), within=patience)
        load.burn(burning, 0)
        eventually(scaler, _settled(2, 0, "TooFewReplicas"), within=patience)

    history.every(replicas_between(2, 4))


def test_memory(namespace: Namespace, images: Images, patience: float, timeouts: Timeouts) -> None:
    """A HorizontalPodAutoscaler MUST follow the memory use of its pods up to its maximum, and take none away at once.

    Pods request 24Mi and are to use 100 % of that. One of them holds 60Mi, so three pods are needed, and the maximum of
    two is allowed. Then none holds anything, and one pod is enough. The other stays for five minutes if nothing else is
    said, and goes when it is.

    Source: https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale/#support-for-resource-metrics
    """
    requests = {"requests": {"memory": "24Mi"}}
    workers = namespace.create(deployment("worker", images.agnhost, command=load.command(), resources=requests))
    scaler = namespace.create(hpa("worker", target="worker", low=1, high=2, metrics=[MEMORY]))
    eventually(workers, rolled_out, within=timeouts.pod)
    holding = workers.pods().read()[0]

    with watching(namespace.select(kinds.DEPLOYMENT)) as history:
        load.hold(holding, 60)
        eventually(scaler, _settled(2, (60 + FILES) / 24, "TooManyReplicas"), within=patience)
        load.hold(holding, 0)
        eventually(scaler, has_condition("AbleToScale", reason="ScaleDownStabilized"), within=patience)
        consistently(scaler, _wants(2), during=PERIOD, describe="takes no pod away at once")
        scaler.patch({"spec": {"behavior": DOWN_AT_ONCE}})
        eventually(scaler, _settled(1, FILES / 24, "DesiredWithinRange"), within=patience)

    history.every(replicas_between(1, 2))


def test_container(namespace: Namespace, images: Images, patience: float, timeouts: Timeouts) -> None:
    """A HorizontalPodAutoscaler for a container's metric MUST go by this container, whatever the pod has beside it.

    The container holds more than twice the memory that it requests; its pod as a whole half of that.

    Source: https://kubernetes.io/docs/concepts/workloads/autoscaling/horizontal-pod-autoscale/#container-resource-metrics
    """
    idle = container("idle", images.agnhost, args=["pause"], resources={"requests": {"memory": "120Mi"}})
    requests = {"requests": {"memory": "24Mi"}}
    options: dict[str, Any] = {"command": load.command(), "resources": requests, "beside": [idle]}
    workers = namespace.create(deployment("worker", images.agnhost, **options))
    metric = {"name": "memory", "container": "main", "target": _ALL_OF_IT}
    of_main = {"type": "ContainerResource", "containerResource": metric}
    scaler = namespace.create(hpa("worker", target="worker", low=1, high=2, metrics=[of_main]))
    eventually(workers, rolled_out, within=timeouts.pod)

    load.hold(workers.pods().read()[0], 60, container="main")

    eventually(scaler, _settled(2, (60 + FILES) / 24, "TooManyReplicas"), within=patience)


@pytest.mark.requires(capabilities.HPA_TOLERANCE)
def test_tolerance(namespace: Namespace, images: Images, patience: float, timeouts: Timeouts) -> None:
    """A HorizontalPodAutoscaler MUST leave the number of pods alone while their use is within its tolerance.

    A pod uses two and a half times what it is to use: within a tolerance of 200 %, and far from the usual 10 %.

    Source: https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale/#tolerance
    """
    requests = {"requests": {"memory": "24Mi"}}
    workers = namespace.create(deployment("worker", images.agnhost, command=load.command(), resources=requests))
    tolerant = {"scaleUp": {"tolerance": "2"}}
    scaler = namespace.create(hpa("worker", target="worker", low=1, high=2, metrics=[MEMORY], behavior=tolerant))
    eventually(workers, rolled_out, within=timeouts.pod)
    load.hold(workers.pods().read()[0], 60)
    needed = (60 + FILES) / 24

    eventually(scaler, _settled(1, needed, "DesiredWithinRange"), within=patience)
    scaler.patch({"spec": {"behavior": {"scaleUp": {"tolerance": None}}}})
    eventually(scaler, _settled(2, needed, "TooManyReplicas"), within=patience)


def test_behaviour(namespace: Namespace, images: Images, patience: float, timeouts: Timeouts) -> None:
    """A HorizontalPodAutoscaler MUST add and remove pods no faster than its policies allow, none too soon, and say so.

    Memory use asks for four pods at once. At first only what has been needed for an hour may be added, then none, then
    one in each 10 s. Then it asks for one, and the window in which pods stay is an hour. When there is no window any
    more, the policy allows one less in each 10 s.

    Source: https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale/#scaling-policies
    """
    requests = {"requests": {"memory": "16Mi"}}
    workers = namespace.create(deployment("worker", images.agnhost, command=load.command(), resources=requests))
    slowly = {"scaleUp": ONE_BY_ONE | HOUR, "scaleDown": HOUR}
    eventually(workers, rolled_out, within=timeouts.pod)
    load.hold(holding := workers.pods().read()[0], 56)

    with watching(namespace.select(kinds.HORIZONTAL_POD_AUTOSCALER)) as history:
        scaler = namespace.create(hpa("worker", target="worker", high=4, metrics=[MEMORY], behavior=slowly))
        eventually(scaler, has_condition("AbleToScale", reason="ScaleUpStabilized"), within=patience)
        scaler.patch({"spec": {"behavior": {"scaleUp": AT_ONCE | {"selectPolicy": "Disabled"}}}})
        eventually(scaler, has_condition("ScalingLimited", reason="ScaleUpLimit"), within=patience)
        early = _wants_at_most(1)(scaler)
        assert not early, f"{scaler} is to add no pod yet, but {early}"
        scaler.patch({"spec": {"behavior": {"scaleUp": {"selectPolicy": "Max"}}}})
        # Not until three pods run: on a busy node that takes longer than until the next step.
        eventually(scaler, _wants(3), within=patience)
        load.hold(holding, 0)
        eventually(scaler, has_condition("AbleToScale", reason="ScaleDownStabilized"), within=patience)
    _one_by_one(history, 2, 3)
    # So long that the last step on the way up is no part of the first period on the way down.
    consistently(scaler, _wants(3), during=PERIOD, describe="takes no pod away for an hour")
    many = scaler.status["desiredReplicas"]

    with watching(namespace.select(kinds.HORIZONTAL_POD_AUTOSCALER)) as history:
        scaler.patch({"spec": {"behavior": {"scaleDown": ONE_BY_ONE | AT_ONCE}}})
        eventually(scaler, _wants_at_most(2), within=patience)
    _one_by_one(history, *range(many, 1, -1))


def _one_by_one(history: History, *wanted: int) -> None:
    """An autoscaler has wanted these numbers of replicas first, one after the other and each for its period."""
    (scaler, *_) = seen = [scaler for state in history.states for scaler in state]
    told = [each.status for each in seen if "lastScaleTime" in each.status]
    steps = sorted({(each["lastScaleTime"], each["desiredReplicas"]) for each in told})
    pauses = [(_time(later) - _time(earlier)).total_seconds() for (earlier, _), (later, _) in pairwise(steps)]
    first = tuple(replicas for _, replicas in steps)[: len(wanted)]
    assert first == wanted, f"{scaler} should change by one pod at a time, as {wanted}: {steps}"
    # Times are given in whole seconds.
    assert min(pauses) > PERIOD - 2, f"{scaler} should pause for {PERIOD} s between two steps: {steps}"


def _wants(replicas: int) -> Callable[[Object], str | None]:
    """So many replicas, or more, are wanted by now."""

    def wants(scaler: Object) -> str | None:
        wanted = scaler.status.get("desiredReplicas", 0)
        return None if wanted >= replicas else f"it wants {wanted} replicas"

    wants.__name__ = f"wants {replicas} replicas"
    return wants


def _wants_at_most(replicas: int) -> Callable[[Object], str | None]:
    """So many replicas, or fewer, are wanted by now."""

    def wants(scaler: Object) -> str | None:
        wanted = scaler.status["desiredReplicas"]
        return None if wanted <= replicas else f"it wants {wanted} replicas"

    wants.__name__ = f"wants at most {replicas} replicas"
    return wants


def _settled(replicas: int, needed: float, reason: str) -> Callable[[Object], str | None]:
    """So many replicas, which use what `needed` replicas are to use; `reason` says why there are not others."""

    def settled(scaler: Object) -> str | None:
        status, wanted = scaler.status, scaler.spec["metrics"][0]
        (of,) = {"resource", "containerResource"} & wanted.keys()
        target = wanted[of]["target"]["averageUtilization"]
        seen = (status.get("currentReplicas"), status.get("desiredReplicas"))
        metrics = [metric.get(of) or {} for metric in status.get("currentMetrics") or [{}]]
        percent = (metrics[0].get("current") or {}).get("averageUtilization")
        if inactive := has_condition("ScalingActive", reason="ValidMetricFound")(scaler):
            return inactive
        if seen != (replicas, replicas):
            return f"it has {seen[0]} replicas and wants {seen[1]}, not {replicas}, at {percent} % of their requests"
        if percent is None or abs(percent - target * needed / replicas) > target / 4:
            return f"its pods use {percent} % of their requests, not about {target * needed / replicas:.0f} %"
        return has_condition("ScalingLimited", str(reason != "DesiredWithinRange"), reason)(scaler)

    settled.__name__ = f"settles at {replicas} replicas"
    return settled


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
