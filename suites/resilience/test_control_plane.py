"""The control plane's programs and a node's proxy: what is noticed of their absence, and of their return."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from time import monotonic

import pytest

from clusterproof import (
    ApiError,
    Cluster,
    Images,
    Namespace,
    Object,
    SurroundingsError,
    Timeouts,
    capabilities,
    case,
    consistently,
    eventually,
    kinds,
    manifests,
    measure,
)
from clusterproof.conditions import all_ready, equals, rolled_out
from clusterproof.inside import fetch, url_of
from clusterproof.probes import inside, unbroken

pytestmark = [pytest.mark.disruptive, pytest.mark.requires(capabilities.OPERATOR)]

RATE = 40
"""Requests a second, half of them over new and half over kept connections."""
ITEMS = 20
EXPIRED = ["410"]
"""What a watch tells whose start has been forgotten."""


def test_api_server(cluster: Cluster, namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """What runs MUST NOT be disturbed while the API server is away, and MUST be under control again when it is back.

    Source: https://kubernetes.io/docs/concepts/architecture/#control-plane-components
    """
    web = namespace.create(manifests.web("web", images.agnhost, replicas=2))
    url = url_of(namespace.create(manifests.service("web")))
    before = eventually(web.pods(), all_ready(2), within=timeouts.rollout)

    with inside(namespace, url, image=images.agnhost, rate=RATE, within=timeouts.request / 3) as client:
        with cluster.without("kube-apiserver"):
            consistently(lambda: _answers(cluster), equals(False), during=timeouts.steady, describe="no API server")
        back = monotonic()
        eventually(lambda: _answers(cluster), equals(True), within=timeouts.recovery, describe="/readyz is well again")
        web.scale(3)
        after = eventually(web.pods(), all_ready(3), within=timeouts.rollout)
    measure("time until a change is carried out again (s)", monotonic() - back)

    seen = client.result()
    assert (trouble := unbroken(seen)) is None, f"every request is answered without the API server: {trouble}"
    lost = {pod.name for pod in before} - {pod.name for pod in after if not _restarts(pod)}
    assert not lost, f"{', '.join(sorted(lost))} ran undisturbed before the API server was away, and does not any more"


def test_stored(cluster: Cluster, namespace: Namespace, timeouts: Timeouts) -> None:
    """What was written MUST be there as it was after the API server was away, and watches MUST tell what comes next.

    A watch from a version of before it was away is told all of that, too, or by 410 to read anew.

    Source: https://kubernetes.io/docs/reference/using-api/api-concepts/#410-gone-responses
    """
    items = [namespace.create(manifests.config_map(f"item-{number}")) for number in range(ITEMS)]
    written, before = {item.name: item.resource_version for item in items}, items[-1].resource_version

    with cluster.without("kube-apiserver"):
        consistently(lambda: _answers(cluster), equals(False), during=timeouts.steady, describe="no API server")
    eventually(lambda: _answers(cluster), equals(True), within=timeouts.recovery, describe="/readyz is well again")

    found = namespace.client.get(kinds.CONFIG_MAP.path(namespace.name), {"labelSelector": "app"})
    there = {each["metadata"]["name"]: each["metadata"]["resourceVersion"] for each in found["items"]}
    wrong = [name for name in written.keys() | there.keys() if written.get(name) != there.get(name)]
    assert not wrong, f"ConfigMaps in {namespace} are not as they were written: {', '.join(sorted(wrong))}"
    changes = [item.patch({"data": {"number": "1"}}).resource_version for item in items]
    for start, allowed in ((found["metadata"]["resourceVersion"], [changes]), (before, [changes, EXPIRED])):
        told = _told(namespace, start, timeouts)
        assert told in allowed, f"a watch of {namespace} from {start} MUST tell of {changes}, but told of {told}"


@pytest.mark.parametrize(
    "program", [case("scheduler", "kube-scheduler"), case("controllers", "kube-controller-manager")]
)
def test_leader(cluster: Cluster, namespace: Namespace, images: Images, timeouts: Timeouts, program: str) -> None:
    """What is declared while the scheduler or the controller manager is away MUST be carried out when it is back.

    Source: https://kubernetes.io/docs/concepts/architecture/leases/#leader-election
    """
    with cluster.without(program):
        web = namespace.create(manifests.deployment("web", images.agnhost, args=["pause"]))
        consistently(web, _nothing_runs, during=timeouts.steady, describe=f"{web} waits for {program}")
    back = monotonic()

    eventually(web, rolled_out, within=timeouts.rollout)
    measure("time until a change is carried out again (s)", monotonic() - back)
    leader = cluster.get(kinds.LEASE, program, "kube-system")
    assert leader.spec.get("holderIdentity"), f"{leader} has no holder, though {program} works"


def test_service_proxy(
    cluster: Cluster, namespace: Namespace, nodes: list[Object], images: Images, timeouts: Timeouts
) -> None:
    """Clients of Services MUST NOT notice that a node's proxy ends and comes back, and it MUST follow changes again.

    Source: https://kubernetes.io/docs/reference/networking/virtual-ips/
    """
    place = nodes[0].name
    web = namespace.create(manifests.web("web", images.agnhost, replicas=2))
    url = url_of(namespace.create(manifests.service("web")))
    asker = namespace.create(manifests.pod("asker", images.agnhost, args=["pause"], node=place))
    eventually(web.pods(), all_ready(2), within=timeouts.rollout)

    probe = inside(namespace, url, image=images.agnhost, rate=RATE, node=place, within=timeouts.request / 3)
    with probe as client:
        with cluster.without(f"{place}/kube-proxy"):
            later = url_of(namespace.create(manifests.service("later", selector={"app": "web"})))
            consistently(web.pods(), all_ready(2), during=timeouts.steady)
        eventually(
            lambda: fetch(asker, [later])[later], _from(web), within=timeouts.recovery, describe=f"{later} answers"
        )

    seen = client.result()
    assert (trouble := unbroken(seen)) is None, f"every request is answered without {place}'s proxy: {trouble}"


def _answers(cluster: Cluster) -> bool:
    """Whether the API server says that it is ready."""
    try:
        return cluster.client.request("GET", "/readyz", timeout=5).status == 200
    except SurroundingsError:
        return False


def _told(namespace: Namespace, since: str, timeouts: Timeouts) -> list[str]:
    """The versions of the first changes of ConfigMaps that a watch from a version tells of."""
    query = {"resourceVersion": since, "labelSelector": "app"}
    try:
        feed = namespace.client.watch(kinds.CONFIG_MAP.path(namespace.name), query, within=timeouts.request)
        changes = (each.object["metadata"]["resourceVersion"] for each in feed if each.type != "BOOKMARK")
        return list(islice(changes, ITEMS))
    except ApiError as refusal:
        if refusal.status != 410:
            raise
        return EXPIRED


def _nothing_runs(workload: Object) -> str | None:
    available = workload.status.get("availableReplicas", 0)
    return f"{available} of its pods are available, without anybody who could have seen to it" if available else None


def _from(workload: Object) -> Callable[[set[str]], str | None]:
    """Answers are the names of a workload's pods."""

    def come_from(answers: set[str]) -> str | None:
        others = answers - {pod.name for pod in workload.pods().read()}
        return f"it is answered {sorted(others)}, not by a pod of {workload}" if others or not answers else None

    return come_from


def _restarts(pod: Object) -> int:
    return sum(each["restartCount"] for each in pod.status["containerStatuses"])
