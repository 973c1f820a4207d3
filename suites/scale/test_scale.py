"""Metrics: what nodes and pods use is measured, everywhere and all the time."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

import pytest

from clusterproof import (
    Cluster,
    Images,
    Namespace,
    Object,
    SurroundingsError,
    Timeouts,
    capabilities,
    eventually,
    hollow,
    kinds,
    load,
)
from clusterproof.conditions import ready, running
from clusterproof.manifests import pod

pytestmark = [pytest.mark.requires(capabilities.METRICS), pytest.mark.first]

HELD = 40
"""Mebibytes that each pod holds; its own shell is about one more."""
TOLERANCE = 0.25
"""Part of the true use by which a metric may be off."""
SLACK = 0.005
"""Cores by which it may be off where almost nothing is used."""
NODE_SLACK = 0.05
"""Cores by which it may be off for a node."""
OLDEST = 60
"""Seconds that may have passed since the time that a metric is about."""
PAUSE = 4
"""Seconds between two questions to a kubelet, which measures about every ten."""


def test_metrics(
    cluster: Cluster, namespace: Namespace, nodes: list[Object], images: Images, timeouts: Timeouts
) -> None:
    """Metrics of every node and pod MUST tell what it uses, within 25 %, and be at most a minute old.

    A pod on each node burns 100m of CPU, then none, and keeps an account of it from its own cgroup: metrics that stand
    still cannot fit both. What nodes use is compared to what their kubelets say.

    Source: https://kubernetes.io/docs/tasks/debug/debug-cluster/resource-metrics-pipeline/
    """
    options: dict[str, Any] = {"command": load.command(100, megabytes=HELD), "resources": {"requests": {"cpu": "100m"}}}
    burners = [
        namespace.create(pod(f"burner-{number}", images.agnhost, node=node.name, **options))
        for number, node in enumerate(nodes)
    ]
    for burner in burners:
        eventually(burner, running, within=timeouts.pod)
    pod_metrics, what = namespace.select(kinds.POD_METRICS).read, "metrics of pods tell what they use"
    some = eventually(pod_metrics, _some, within=timeouts.metrics, describe="there are metrics of pods")
    patience = load.patience(some, timeouts.metrics)
    busy = eventually(pod_metrics, _tell_the_use(burners), within=patience, describe=what)
    node_metrics = cluster.select(kinds.NODE_METRICS).read
    nodes_before = eventually(node_metrics, _some, within=timeouts.request, describe="there are metrics of nodes")

    for burner in burners:
        load.burn(burner, 0)

    eventually(pod_metrics, _tell_the_use(burners, busy), within=patience, describe=f"{what} now")
    nodes_now = _tell_the_nodes_use(cluster, nodes_before, burners[0])
    eventually(node_metrics, nodes_now, within=patience, describe="metrics of nodes tell what they use now")


def _some(metrics: list[Object]) -> str | None:
    return None if metrics else "there are none"


class Use(NamedTuple):
    """What a metric says."""

    start: float
    """Beginning of the time that it is about, in seconds since the epoch."""
    end: float
    """End of that time. Metrics give it in whole seconds: it may be up to a second later."""
    cores: float
    mebibytes: float


def _use(metric: Object) -> Use:
    """The use of a node, or of a pod's only container."""
    end = datetime.fromisoformat(metric["timestamp"]).timestamp()
    usage = metric.raw.get("usage") or metric["containers"][0]["usage"]
    start = end - load.window(metric)
    return Use(start, end, load.quantity(usage["cpu"]), load.quantity(usage["memory"]) / 1024**2)


def _tell_the_use(burners: list[Object], busy: Iterable[Object] = ()) -> Callable[[list[Object]], str | None]:
    """Metrics of every pod agree with its own account, and tell half as much as those of its `busy` time or less."""
    before = {metric.name: _use(metric) for metric in busy}

    def tell_the_use(metrics: list[Object]) -> str | None:
        uses = {metric.name: _use(metric) for metric in metrics}
        for burner in burners:
            use, earlier = uses.get(burner.name), before.get(burner.name)
            place = f"{burner.name} on {burner.spec.get('nodeName')}"
            if use is None:
                return f"there are none of {place}"
            if earlier and use.end <= earlier.end:
                return f"those of {place} stand still"
            if earlier and use.cores > earlier.cores / 2:
                return f"those of {place} still tell {use.cores * 1000:.0f}m of CPU, as when it was busy"
            if wrong := _wrong(use, load.account(burner)):
                return f"those of {place} {wrong}"
        return None

    return tell_the_use


def _wrong(use: Use, account: list[load.Account]) -> str | None:
    """In what a pod's metrics differ from its own account."""
    ways = [load.cores(account, use.start + late, use.end + late) for late in (0, 1)]
    true = [cores for cores in ways if cores is not None]
    if not true:
        return "are about a time of which it has no account"
    if account[-1].at - use.end > OLDEST:
        return f"are {account[-1].at - use.end:.0f} s old"
    if not any(_near(use.cores, cores, slack=SLACK) for cores in true):
        return f"tell {use.cores * 1000:.0f}m of CPU where it used {true[0] * 1000:.0f}m"
    if not _near(use.mebibytes, HELD + 1):
        return f"tell {use.mebibytes:.0f}Mi of memory where it holds {HELD}Mi"
    return None


def _near(told: float, true: float, *, slack: float = 0.0) -> bool:
    return abs(told - true) <= max(TOLERANCE * true, slack)


@dataclass(slots=True)
class Kubelet:
    """What a kubelet says of its node's use, asked every few seconds."""

    account: list[load.Account] = field(default_factory=list)
    """CPU time since it was asked first."""
    held: float = 0.0
    """Mebibytes in use."""
    asked: float = -math.inf
    """When, by our own clock."""
    base: float = 0.0

    def ask(self, node: Object) -> None:
        if time.monotonic() - self.asked < PAUSE:
            return
        self.asked, path = time.monotonic(), f"{node.path}/proxy/stats/summary"
        answer = node.client.request("GET", path, query={"only_cpu_and_memory": True})
        if answer.status in (401, 403):
            raise SurroundingsError(f"{node}: its kubelet may not be asked what it uses: GET {path}: {answer.text}")
        if answer.status != 200:
            return  # busy for a moment
        told = answer.json()["node"]
        self.held = float(told["memory"]["workingSetBytes"]) / 1024**2
        at, spent = datetime.fromisoformat(told["cpu"]["time"]).timestamp(), told["cpu"]["usageCoreNanoSeconds"] / 1e9
        if not self.account:
            self.base = spent
        if not self.account or at > self.account[-1].at:
            self.account.append(load.Account(at, spent - self.base))


def _tell_the_nodes_use(cluster: Cluster, before: list[Object], watch: Object) -> Callable[[list[Object]], str | None]:
    """Fresh metrics of every Ready node, newer than `before`, have been true; the pod `watch` knows what time it is."""
    earlier = {metric.name: _use(metric).end for metric in before}
    kubelets: dict[str, Kubelet] = defaultdict(Kubelet)
    true: set[str] = set()

    def tell_the_nodes_use(metrics: list[Object]) -> str | None:
        uses = {metric.name: _use(metric) for metric in metrics}
        now, wrongs = load.account(watch)[-1].at, []
        for node in cluster.list(kinds.NODE, labels=hollow.MACHINES):
            if ready(node) is None and node.name not in true:
                # Asked each time, whatever is wrong, for an account without gaps.
                (kubelet := kubelets[node.name]).ask(node)
                if wrong := _wrong_of_node(node, uses.get(node.name), earlier, now, kubelet):
                    wrongs.append(f"those of {node.name} {wrong}")
                else:
                    true.add(node.name)
        return "; ".join(wrongs[:3]) or None

    return tell_the_nodes_use


def _wrong_of_node(
    node: Object, use: Use | None, earlier: Mapping[str, float], now: float, kubelet: Kubelet
) -> str | None:
    """In what a node's metrics are not true."""
    if use is None:
        return "are missing"
    if use.end <= earlier.get(node.name, 0):
        return "stand still"
    if now - use.end > OLDEST:
        return f"are {now - use.end:.0f} s old"
    if not 0 < use.cores < (1 + TOLERANCE) * (processors := load.quantity(node.status["capacity"]["cpu"])):
        return f"tell {use.cores:.2f} cores of {processors:g}"
    if not kubelet.account:
        return "cannot be compared: its kubelet does not answer"
    if not _near(use.mebibytes, kubelet.held):
        return f"tell {use.mebibytes:.0f}Mi of memory where {kubelet.held:.0f}Mi are used"
    shifted = [(use.start + late / 4, use.end + late / 4) for late in range(5)]
    ways = [load.cores(kubelet.account, start, end) for start, end in shifted if start >= kubelet.account[0].at]
    true = [cores for cores in ways if cores is not None]
    if not true:
        return "are about a time for which its kubelet was not asked"
    if not any(_near(use.cores, cores, slack=NODE_SLACK) for cores in true):
        return f"tell {use.cores:.2f} cores where its kubelet says {true[0]:.2f}"
    return None
