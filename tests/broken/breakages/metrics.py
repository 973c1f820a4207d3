"""Resource metrics that do not tell what happens: a server that stands between the metrics server and everybody."""

from __future__ import annotations

import contextlib
import copy
import json
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from clusterproof.embedded.pki import Authority, Pair

from clusterproof import kinds
from clusterproof.conditions import has_condition
from clusterproof.objects import Object, Selection
from clusterproof.wait import eventually

from ..registry import Damage, breakage
from ..relay import Answer, Ask, Relay, Request, serving, speaking
from ..subject import SYSTEM, Subject

Metric = dict[str, Any]


class Teller(NamedTuple):
    """Who tells metrics."""

    namespace: str
    labels: str
    """Of its only pod."""
    port: int
    """Where it listens in its pod."""
    asked: Mapping[str, str]
    """A path by which it can be asked, for each of its APIServices."""


SERVER = Teller(SYSTEM, "k8s-app=metrics-server", 10250, {"v1beta1.metrics.k8s.io": kinds.NODE_METRICS.path()})


@contextlib.contextmanager
def _telling(subject: Subject, distort: Callable[[Metric], Metric]) -> Iterator[None]:
    """Everybody is told what `distort` makes of the metrics of a node or pod."""

    def exchange(request: Request, ask: Ask) -> Answer:
        if "/v1beta1/" in request.path:
            request.headers["Accept"] = "application/json"
        answer = ask(request)
        if "/v1beta1/" in request.path and answer.status == 200:
            found = json.loads(answer.body)
            distorted = [distort(item) for item in found["items"]] if "items" in found else distort(found)
            answer.body = json.dumps({**found, "items": distorted} if "items" in found else distorted).encode()
        return answer

    with in_between(subject, exchange):
        yield


@contextlib.contextmanager
def in_between(
    subject: Subject,
    exchange: Callable[[Request, Ask], Answer],
    teller: Teller = SERVER,
    identity: Pair | None = None,
) -> Iterator[None]:
    """A metrics API is answered by `exchange`, which asks who tells them as an administrator, or with an identity."""

    def noticed(request: Request, ask: Ask) -> Answer:
        asked.append(request.path)
        return exchange(request, ask)

    asked: list[str] = []
    (pod,) = Selection(subject.client, kinds.POD, teller.namespace, teller.labels).read()
    host = str(subject.state.host_address)
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as changes:
        authority = Authority(subject.state.pki, "ca")
        served = authority.issue("relay", user="relay", server=[host], folder=Path(folder))
        asks = identity or authority.issue("teller", user="teller", groups=["system:masters"], folder=Path(folder))
        target = f"{pod.status['podIP']}:{teller.port}"
        relay = Relay(host, target, noticed, tls=serving(served), towards=speaking(asks))
        changes.enter_context(relay.running())
        changes.enter_context(subject.having(*_service("broken-metrics", host, relay.port)))
        for name in teller.asked:
            changes.enter_context(subject.changed(kinds.API_SERVICE, name, "", _served_by("broken-metrics")))
        for name, path in teller.asked.items():
            _await(subject, name, path, asked)
        yield
    for name in teller.asked:
        eventually(Object(subject.client, kinds.API_SERVICE, name), has_condition("Available"), within=30)


def _await(subject: Subject, name: str, path: str, asked: list[str]) -> None:
    deadline = time.monotonic() + 30
    while not any(each.startswith(path) for each in asked):
        assert time.monotonic() < deadline, f"nobody asks the relay for {path}"
        subject.client.request("GET", path)
        time.sleep(0.2)
    eventually(Object(subject.client, kinds.API_SERVICE, name), has_condition("Available"), within=30)


def _served_by(name: str) -> Callable[[dict[str, Any]], None]:
    def change(api_service: dict[str, Any]) -> None:
        spec = api_service["spec"]
        spec["service"] |= {"namespace": SYSTEM, "name": name, "port": 443}
        spec["insecureSkipTLSVerify"] = True
        spec.pop("caBundle", None)

    return change


def _service(name: str, address: str, port: int) -> tuple[dict[str, Any], ...]:
    """A Service whose only endpoint is outside the cluster."""
    metadata = {"name": name, "namespace": SYSTEM}
    return (
        {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"ports": [{"port": 443}]}},
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {**metadata, "labels": {"kubernetes.io/service-name": name}},
            "addressType": "IPv4",
            "ports": [{"port": port}],
            "endpoints": [{"addresses": [address], "conditions": {"ready": True}}],
        },
    )


def _name(metric: Metric) -> tuple[str, str, str]:
    metadata = metric["metadata"]
    return metric.get("kind", ""), metadata.get("namespace", ""), metadata["name"]


@breakage(breaks={"scale/metrics": r"stand still|s old"}, keeps=["network/pod_to_pod"], scale=0.3)
def metrics_frozen(subject: Subject) -> Damage:
    """Every node and pod keeps the metrics that it had first."""
    first: dict[tuple[str, str, str], Metric] = {}
    with _telling(subject, lambda metric: first.setdefault(_name(metric), metric)):
        yield []


@breakage(
    breaks={"scale/metrics": r"still tell \d+m of CPU|of CPU where it used|of CPU only"},
    keeps=["network/pod_to_pod"],
    scale=0.3,
)
def metrics_frozen_with_fresh_times(subject: Subject) -> Damage:
    """Every node and pod keeps the metrics that it had first, as if they had just been measured."""
    first: dict[tuple[str, str, str], Metric] = {}

    def refreshed(metric: Metric) -> Metric:
        old = first.setdefault(_name(metric), metric)
        return {**old, "timestamp": metric["timestamp"], "window": metric["window"]}

    with _telling(subject, refreshed):
        yield []


@breakage(breaks={"scale/metrics": r"of CPU where it used"}, keeps=["network/pod_to_pod"], scale=0.3)
def metrics_doubled(subject: Subject) -> Damage:
    """Everything seems to use twice of what it does."""

    def doubled(metric: Metric) -> Metric:
        metric = copy.deepcopy(metric)
        for part in metric.get("containers") or [metric]:
            part["usage"] = {
                key: re.sub(r"^\d+", lambda number: str(2 * int(number[0])), value)
                for key, value in part["usage"].items()
            }
        return metric

    with _telling(subject, doubled):
        yield []


@breakage(
    breaks={"scale/metrics": r"those of \S+ tell [\d.]+ cores (where its kubelet says|of) "},
    keeps=["network/pod_to_pod"],
    scale=0.5,
)
def metrics_of_nodes_doubled(subject: Subject) -> Damage:
    """Nodes seem to use twice the CPU that they do, pods what they do."""

    def doubled(metric: Metric) -> Metric:
        metric = copy.deepcopy(metric)
        if "containers" not in metric:
            cpu = metric["usage"]["cpu"]
            metric["usage"]["cpu"] = re.sub(r"^\d+", lambda number: str(2 * int(number[0])), cpu)
        return metric

    with _telling(subject, doubled):
        yield []


@breakage(breaks={"scale/hpa/memory": r"HorizontalPodAutoscaler \S+/worker"}, keeps=["network/pod_to_pod"], scale=0.3)
def memory_never_used(subject: Subject) -> Damage:
    """Nothing seems to use any memory."""

    def forgotten(metric: Metric) -> Metric:
        metric = copy.deepcopy(metric)
        for part in metric.get("containers") or [metric]:
            part["usage"]["memory"] = "0"
        return metric

    with _telling(subject, forgotten):
        yield []


@breakage(
    breaks={"extend/aggregation/identity[Group]": r"nodes is answered to \S+: not within .* it is 403, not 200"},
    keeps=["extend/aggregation/identity[User]", "api/labels/selectors"],
)
def groups_not_passed_on(subject: Subject) -> Damage:
    """The server behind the metrics API learns who calls, but not in which groups."""

    def exchange(request: Request, ask: Ask) -> Answer:
        request.headers = {key: value for key, value in request.headers.items() if key.lower() != "x-remote-group"}
        return ask(request)

    pki = subject.state.pki
    front_proxy = Pair(pki / "front-proxy-client.crt", pki / "front-proxy-client.key")
    with in_between(subject, exchange, identity=front_proxy):
        yield []
