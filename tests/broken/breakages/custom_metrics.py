"""Metrics of applications' own that do not tell what the applications say."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Any

from clusterproof import load

from ..registry import Damage, breakage
from ..relay import Answer, Request
from ..subject import Subject
from .metrics import Ask, Metric, Teller, in_between

_ANY = "namespaces/default/pods/any/any"
ADAPTER = Teller(
    "custom-metrics",
    "app=custom-metrics-apiserver",
    6443,
    {
        "v1beta1.custom.metrics.k8s.io": f"/apis/custom.metrics.k8s.io/v1beta1/{_ANY}",
        "v1beta2.custom.metrics.k8s.io": f"/apis/custom.metrics.k8s.io/v1beta2/{_ANY}",
        "v1beta1.external.metrics.k8s.io": "/apis/external.metrics.k8s.io/v1beta1/namespaces/default/any",
    },
)


@contextlib.contextmanager
def _answering(subject: Subject, change: Callable[[Request, Answer], None]) -> Iterator[None]:
    """Everybody is told what `change` makes of an answer to a question for metrics."""

    def exchange(request: Request, ask: Ask) -> Answer:
        if "/namespaces/" not in request.path:
            return ask(request)
        request.headers["Accept"] = "application/json"
        answer = ask(request)
        change(request, answer)
        return answer

    with in_between(subject, exchange, ADAPTER):
        yield


def _telling(subject: Subject, distort: Callable[[str, Metric], Any]) -> contextlib.AbstractContextManager[None]:
    """Everybody is told what `distort` makes of a metric, given the path by which it was asked for."""

    def change(request: Request, answer: Answer) -> None:
        if answer.status == 200:
            found = json.loads(answer.body)
            values = [{**item, "value": str(distort(request.path, item))} for item in found["items"]]
            answer.body = json.dumps({**found, "items": values}).encode()

    return _answering(subject, change)


def _milli(value: float) -> str:
    return f"{value * 1000:.0f}m"


STANDS_STILL = (
    r"settles at (3 replicas: not within .* has [12] replicas and wants [12].* at 0"
    r"|[12] replicas: not within .* has 3 replicas and wants 3.* at 3\.33\d) for"
)
"""Of no connections, or of so many that three pods are needed, whichever was heard of first."""


@breakage(
    breaks={
        "scale/hpa_custom/connections": STANDS_STILL,
        "scale/hpa_custom/object": STANDS_STILL,
        "scale/hpa_custom/external": STANDS_STILL,
    },
    keeps=["api/labels/selectors"],
)
def custom_metrics_frozen(subject: Subject) -> Damage:
    """Every pod and Service keeps the custom metrics that it had first."""
    first: dict[tuple[str, str], str] = {}

    def old(path: str, metric: Metric) -> str:
        which = {key: value for key, value in metric.items() if key not in ("value", "timestamp")}
        return first.setdefault((path, json.dumps(which)), metric["value"])

    with _telling(subject, old):
        yield []


@breakage(
    breaks={
        "scale/hpa_custom/connections": r"settles at 3 replicas: not within .* has 4 replicas and wants 4, not 3",
        "scale/hpa_custom/object": r"settles at 3 replicas: not within .* has 5 replicas and wants 5, not 3",
        "scale/hpa_custom/external": r"settles at 3 replicas: not within .* has 5 replicas and wants 5, not 3",
    },
    keeps=["api/labels/selectors"],
)
def custom_metrics_doubled(subject: Subject) -> Damage:
    """Every custom metric seems to be twice of what it is."""
    with _telling(subject, lambda path, metric: _milli(2 * load.quantity(metric["value"]))):
        yield []


@breakage(
    breaks={"scale/hpa_custom/service": r"settles at 3 replicas: not within .* has 2 replicas and wants 2, not 3"},
    keeps=["scale/hpa_custom/object"],
)
def service_metrics_averaged(subject: Subject) -> Damage:
    """A Service's custom metrics are the average of its two pods' and not their sum."""

    def averaged(path: str, metric: Metric) -> str:
        parts = 2 if "/services/" in path else 1
        return _milli(load.quantity(metric["value"]) / parts)

    with _telling(subject, averaged):
        yield []


@breakage(
    breaks={"scale/hpa_custom/missing": r"keeps 2 replicas: not within .* wants 1 replicas, not 2"},
    keeps=["scale/hpa_custom/object"],
)
def custom_metrics_zero_when_missing(subject: Subject) -> Damage:
    """Custom metrics that nobody tells seem to be zero."""

    def zero(request: Request, answer: Answer) -> None:
        _, _, group, version, _, namespace, *which = request.path.partition("?")[0].split("/")
        if answer.status == 404 and len(which) == 3:
            described = {"kind": "Pod", "namespace": namespace, "name": which[1], "apiVersion": "v1"}
            item = {"describedObject": described, "metric": {"name": which[2]}, "value": "0"}
            item["timestamp"] = "2000-01-01T00:00:00Z"
            listed = {"kind": "MetricValueList", "apiVersion": f"{group}/{version}", "metadata": {}, "items": [item]}
            answer.status, answer.body = 200, json.dumps(listed).encode()
            answer.headers["Content-Type"] = "application/json"

    with _answering(subject, zero):
        yield []


@breakage(
    breaks={
        "scale/hpa_custom/largest": r"settles at 4 replicas: not within .* has 2 replicas and wants 2, not 4",
        "scale/hpa_custom/missing": r"keeps 2 replicas: not within .* wants 1 replicas, not 2",
    },
    keeps=["scale/hpa_custom/object"],
)
def autoscaler_forgets_a_metric(subject: Subject) -> Damage:
    """Horizontal autoscaling loses the second of several metrics."""
    forget = 'size(object.spec.metrics) > 1 ? [JSONPatch{op: "remove", path: "/spec/metrics/1"}] : []'
    with subject.mutating("autoscaling/v2/horizontalpodautoscalers", forget, patch="JSONPatch"):
        yield []


@breakage(
    breaks={
        "scale/hpa_custom/connections": r"settles at 3 replicas: not within .*FailedGetPodsMetric",
        "scale/hpa_custom/external": r"settles at 3 replicas: not within .*FailedGetExternalMetric",
    },
    keeps=["api/labels/selectors"],
)
def custom_metrics_adapter_off(subject: Subject) -> Damage:
    """Nobody answers for custom metrics, although their API is registered."""
    with subject.scaled("custom-metrics-apiserver", 0, "custom-metrics"):
        yield []
