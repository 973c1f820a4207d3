"""Multi-Cluster Services: one Service of several clusters, under a name that is the same in all of them."""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic
from typing import Any

import pytest

from clusterproof import Namespace, Object, Timeouts, capabilities, consistently, eventually, inside, kinds, measure
from clusterproof.conditions import Condition, equals, gone, has_condition, ready
from clusterproof.manifests import http_probe, pod, service, service_export

pytestmark = pytest.mark.requires(capabilities.MULTI_CLUSTER_SERVICES)

TRIES = 24
"""Requests in one reading: enough to meet both of two pods."""
TIMES = 8
"""Look-ups in one reading: enough to meet each of two name servers."""
NOBODY = {"NXDOMAIN"}


def test_reached(namespace: Namespace, peer_namespace: Namespace, visitor: Object, timeouts: Timeouts) -> None:
    """A Service that one cluster exports MUST be reached from another by its name, and one that it does not, not.

    Source: https://github.com/kubernetes/enhancements/tree/master/keps/sig-multicluster/1645-multi-cluster-services-api
    """
    far = _server(peer_namespace, "far")
    for name in ("web", "private"):
        peer_namespace.create(service(name, selector={"backend": "yes"}))
    eventually(far, ready, within=timeouts.pod)
    _named(visitor, [f"{_host(visitor)} A"], NOBODY, timeouts)

    export = peer_namespace.create(service_export("web"))

    eventually(export, has_condition("Valid"), within=timeouts.propagation)
    imported = eventually(namespace.object(kinds.SERVICE_IMPORT, "web"), _has_address, within=timeouts.propagation)
    assert imported.spec["type"] == "ClusterSetIP", f"{imported}: its type should be ClusterSetIP, not {imported.spec}"
    _answered(visitor, {"far"}, timeouts)
    _named(visitor, [f"{_host(visitor, 'private')} A"], NOBODY, timeouts)


def test_merged(namespace: Namespace, peer_namespace: Namespace, visitor: Object, timeouts: Timeouts) -> None:
    """What several clusters export under one name MUST be one Service, with the pods of all of them behind it.

    The Services that it is made of stay what they are: each has the pods of its own cluster.

    Source: https://github.com/kubernetes/enhancements/tree/master/keps/sig-multicluster/1645-multi-cluster-services-api
    """
    _export_both(namespace, peer_namespace, timeouts)

    for at in (namespace, peer_namespace):
        imported = at.object(kinds.SERVICE_IMPORT, "web")
        eventually(imported, _comes_from(2), within=timeouts.propagation)
    _answered(visitor, {"near", "far"}, timeouts)
    _answered(visitor, {"near"}, timeouts, by=inside.url_of(namespace.get(kinds.SERVICE, "web")))


def test_withdrawn(namespace: Namespace, peer_namespace: Namespace, visitor: Object, timeouts: Timeouts) -> None:
    """A Service MUST NOT be reached in a cluster any more that exports it no longer, and not at all once none does.

    Source: https://github.com/kubernetes/enhancements/tree/master/keps/sig-multicluster/1645-multi-cluster-services-api
    """
    _export_both(namespace, peer_namespace, timeouts)
    _answered(visitor, {"near", "far"}, timeouts)
    started = monotonic()

    peer_namespace.object(kinds.SERVICE_EXPORT, "web").delete()

    _answered(visitor, {"near"}, timeouts)
    measure("time until no request goes to a cluster that exports no longer (s)", monotonic() - started)
    namespace.object(kinds.SERVICE_EXPORT, "web").delete()
    _named(visitor, [f"{_host(visitor)} A"], NOBODY, timeouts)
    for at in (namespace, peer_namespace):
        eventually(at.object(kinds.SERVICE_IMPORT, "web"), gone, within=timeouts.propagation)


def test_failover(namespace: Namespace, peer_namespace: Namespace, visitor: Object, timeouts: Timeouts) -> None:
    """When the pods of one cluster go, those of another MUST answer all requests for a Service that both export.

    When they are back, they answer again.

    Source: https://github.com/kubernetes/enhancements/tree/master/keps/sig-multicluster/1645-multi-cluster-services-api
    """
    near, far = _export_both(namespace, peer_namespace, timeouts)
    _answered(visitor, {"near", "far"}, timeouts)

    started = monotonic()
    far.delete()
    _answered(visitor, {"near"}, timeouts, after=timeouts.pod_end)
    measure("time until the other cluster answers alone (s)", monotonic() - started)

    eventually(_server(peer_namespace, "back"), ready, within=timeouts.pod)
    _answered(visitor, {"near", "back"}, timeouts)
    near.delete()
    _answered(visitor, {"back"}, timeouts, after=timeouts.pod_end)


def test_headless(namespace: Namespace, peer_namespace: Namespace, visitor: Object, timeouts: Timeouts) -> None:
    """The name of a headless Service MUST give the pods of all clusters that export it, each under its own name, too.

    Source: https://github.com/kubernetes/enhancements/tree/master/keps/sig-multicluster/1645-multi-cluster-services-api#dns
    """
    pods = _export_both(namespace, peer_namespace, timeouts, headless=True)
    records = {each.name: inside.record(each.status["podIP"]) for each in pods}
    kind, host = records["near"].split()[0], _host(visitor)

    imported = eventually(namespace.object(kinds.SERVICE_IMPORT, "web"), _comes_from(2), within=timeouts.propagation)
    assert imported.spec["type"] == "Headless", f"{imported}: its type should be Headless, not {imported.spec}"
    _named(visitor, [f"{host} {kind}"], set(records.values()), timeouts)
    members = [each["cluster"] for each in imported.status["clusters"]]
    for name, record in records.items():
        _named(visitor, [f"{name}.{member}.{host} {kind}" for member in members], {record} | NOBODY, timeouts)


def test_conflict(namespace: Namespace, peer_namespace: Namespace, timeouts: Timeouts) -> None:
    """Where clusters export different ports under one name, the oldest export MUST count, and the other one tell of it.

    Source: https://github.com/kubernetes/enhancements/tree/master/keps/sig-multicluster/1645-multi-cluster-services-api#conflict-resolution-policy
    """
    peer_namespace.create(service("web", port=80))
    peer_namespace.create(service_export("web"))
    imports = [at.object(kinds.SERVICE_IMPORT, "web") for at in (namespace, peer_namespace)]
    for each in imports:
        eventually(each, _has_ports(80), within=timeouts.propagation)
    consistently(imports[0], _has_ports(80), during=2)  # two exports of one second are of the same age

    namespace.create(service("web", port=81))
    younger = namespace.create(service_export("web"))

    eventually(younger, has_condition("Conflict"), within=timeouts.propagation)
    for each in imports:
        consistently(each, _has_ports(80), during=1)


def test_without_service(namespace: Namespace, peer_namespace: Namespace, timeouts: Timeouts) -> None:
    """An export MUST tell that its Service is not there, or cannot be exported, and be valid once there is one.

    Source: https://github.com/kubernetes/enhancements/tree/master/keps/sig-multicluster/1645-multi-cluster-services-api#exporting-services
    """
    peer_namespace.create(service("elsewhere", spec={"type": "ExternalName", "externalName": "example.com"}))
    late, elsewhere = (peer_namespace.create(service_export(name)) for name in ("late", "elsewhere"))
    for each in (late, elsewhere):
        eventually(each, has_condition("Valid", "False"), within=timeouts.propagation)

    peer_namespace.create(service("late"))

    eventually(late, has_condition("Valid"), within=timeouts.propagation)
    eventually(namespace.object(kinds.SERVICE_IMPORT, "late"), _has_ports(80), within=timeouts.propagation)
    assert not namespace.list(kinds.SERVICE_IMPORT, fields="metadata.name=elsewhere"), f"{elsewhere} was imported"


def _server(at: Namespace, name: str) -> Object:
    """A pod behind the Services of either cluster, which tells its name."""
    options: dict[str, Any] = {"labels": {"backend": "yes"}, "readiness": http_probe()}
    spec = {"hostname": name, "subdomain": "web"}
    return at.create(pod(name, at.cluster.images.agnhost, args=["netexec", "--http-port=8080"], spec=spec, **options))


def _export_both(
    namespace: Namespace, peer_namespace: Namespace, timeouts: Timeouts, *, headless: bool = False
) -> list[Object]:
    """Export a Service with one pod from each of the clusters: `near`, and `far`."""
    pods = [_server(namespace, "near"), _server(peer_namespace, "far")]
    for at in (namespace, peer_namespace):
        at.create(service("web", port=8080 if headless else 80, selector={"backend": "yes"}, headless=headless))
        at.create(service_export("web"))
    return [eventually(each, ready, within=timeouts.pod) for each in pods]


def _host(visitor: Object, name: str = "web") -> str:
    """The name of a Service in all clusters of a ClusterSet."""
    return f"{name}.{visitor.namespace}.svc.clusterset.local"


def _answered(visitor: Object, names: set[str], timeouts: Timeouts, *, by: str = "", after: float = 0) -> None:
    """Wait until requests to a URL, or to the Service, are answered by all of these pods, and by nobody else."""
    url = by or f"http://{_host(visitor)}/hostname"
    eventually(
        lambda: inside.fetch(visitor, [url], tries=TRIES)[url],
        equals(names),
        within=inside.LONGEST_TTL + timeouts.propagation + after,
        describe=f"{visitor}: who answers {url}",
    )


def _named(visitor: Object, questions: Sequence[str], records: set[str], timeouts: Timeouts) -> None:
    """Wait until DNS has these records, and no others, for names that one of several clusters may have."""

    def found() -> set[str]:
        answers = inside.look_up(visitor, questions, times=TIMES)
        return {record for answer in answers.values() for record in answer.records}

    what = f"{visitor}: what DNS has for {' or '.join(questions)}"
    eventually(found, equals(records), within=inside.LONGEST_TTL + timeouts.propagation, describe=what)


def _has_address(imported: Object) -> str | None:
    return None if imported.spec.get("ips") else "it has no address"


def _has_ports(*wanted: int) -> Condition:
    def has_ports(imported: Object) -> str | None:
        found = tuple(port["port"] for port in imported.spec["ports"])
        return None if found == wanted else f"its ports are {found}, not {wanted}"

    has_ports.__name__ = f"has the ports {wanted}"
    return has_ports


def _comes_from(number: int) -> Condition:
    def comes_from(imported: Object) -> str | None:
        found = [each["cluster"] for each in imported.status.get("clusters") or []]
        return None if len(found) == number else f"it comes from {found}"

    comes_from.__name__ = f"comes from {number} clusters"
    return comes_from
