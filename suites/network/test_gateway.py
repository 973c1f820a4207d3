"""Gateway API: web requests reach Services by routes that teams write for themselves, at gateways that are there."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

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
    inside,
    kinds,
)
from clusterproof.conditions import Condition, equals, has_condition
from clusterproof.entrypoint import EntryPoint, serve_pages
from clusterproof.manifests import custom_object, service

pytestmark = pytest.mark.requires(capabilities.GATEWAY)

GROUP = "gateway.networking.k8s.io"
ROUTE = kinds.custom(GROUP, "v1", "HTTPRoute", "httproutes")
GRANT = kinds.custom(GROUP, "v1beta1", "ReferenceGrant", "referencegrants")
REQUESTS = 150
"""How many are spread by weight: of five to one, two thirds at most get to the first once in two million times; of one
to one, more than two thirds do once in 76 thousand times."""


@pytest.fixture
def gateway(cluster: Cluster) -> Object:
    """A Gateway that takes routes of every namespace for any host, by http."""
    found = [each for each in cluster.list(capabilities.GATEWAY_KIND) if capabilities.open_listener(each.raw)]
    if not found:
        raise SurroundingsError("no Gateway takes routes of all namespaces, for any host, by http")
    return found[0]


@pytest.fixture
def entry(cluster: Cluster, gateway: Object, timeouts: Timeouts) -> EntryPoint:
    """Where its routes are reached: as set, or as its status says."""
    if told := cluster.settings.gateway_address:
        return EntryPoint(cluster, timeouts, told)
    (address, *_) = [each["value"] for each in gateway.status.get("addresses") or []] or [""]
    port = (capabilities.open_listener(gateway.raw) or {})["port"]
    assert address, f"{gateway} MUST be given an address (or set --gateway-address), but its status is {gateway.status}"
    return EntryPoint(cluster, timeouts, f"{inside.in_url(address)}:{port}")


def test_routing(namespace: Namespace, gateway: Object, entry: EntryPoint, images: Images, timeouts: Timeouts) -> None:
    """A Gateway MUST serve each host of a route its own pages, by the longest path that matches, and no other host.

    Source: https://gateway-api.sigs.k8s.io/reference/spec/#httproute
    """
    serve_pages(namespace, images.agnhost, "root", "docs", "guide", within=timeouts.pod)
    host = f"web.{namespace}.test"
    rules = [_rule("root"), _rule("docs", path="/docs"), _rule("guide", path="/docs/guide")]
    namespace.create(_route("web", gateway, host, *rules))

    pages = {
        **{(host, path): "root" for path in ("/", "/other", "/docsearch")},
        **{(host, path): "docs" for path in ("/docs", "/docs/", "/docs/guides")},
        **{(host, path): "guide" for path in ("/docs/guide", "/docs/guide/one")},
        (f"nobody.{namespace}.test", "/"): NOBODY,
    }
    read = functools.partial(_pages, namespace, entry, pages)
    as_meant = functools.partial(_differences, pages)
    eventually(read, as_meant, within=timeouts.ingress, describe=f"{gateway} serves every page")


def test_status(namespace: Namespace, gateway: Object, timeouts: Timeouts) -> None:
    """A Gateway MUST tell that it is accepted and, where it has an address, programmed, and its routes the same.

    Source: https://gateway-api.sigs.k8s.io/reference/spec/#gatewaystatus
    """
    namespace.create(service("web"))
    route = namespace.create(_route("web", gateway, f"web.{namespace}.test", _rule("web")))

    eventually(gateway, has_condition("Accepted"), within=timeouts.ingress)
    if gateway.status.get("addresses"):
        eventually(gateway, has_condition("Programmed"), within=timeouts.ingress)
    eventually(route, _tells(gateway, "Accepted", "True"), within=timeouts.ingress)
    eventually(route, _tells(gateway, "ResolvedRefs", "True"), within=timeouts.ingress)


def test_weights(namespace: Namespace, gateway: Object, entry: EntryPoint, images: Images, timeouts: Timeouts) -> None:
    """A route MUST spread requests over its backends by their weights, and send none to one of weight 0.

    Source: https://gateway-api.sigs.k8s.io/guides/traffic-splitting/
    """
    serve_pages(namespace, images.agnhost, "old", "new", "never", within=timeouts.pod)
    host = f"web.{namespace}.test"
    namespace.create(_route("web", gateway, host, _weighted(old=5, new=1, never=0)))
    ask = functools.partial(_pages, namespace, entry, {(host, "/"): ""})
    eventually(ask, _is_served, within=timeouts.ingress, describe=f"{host} is served by {gateway}")

    def spread() -> Counter[str]:
        return Counter(page for _ in range(REQUESTS) for page in ask().values())

    what = f"{REQUESTS} requests at weights of 5, 1 and 0 reach two"
    seen = eventually(spread, lambda seen: equals({"old", "new"})(set(seen)), within=timeouts.ingress, describe=what)
    assert seen["old"] > 2 * seen["new"], f"{REQUESTS} requests at weights of 5 and 1 were spread as {seen}"


def test_grant(
    namespaces: Callable[[], Namespace], gateway: Object, entry: EntryPoint, images: Images, timeouts: Timeouts
) -> None:
    """A route MUST reach a Service of another namespace while that namespace grants it, at no other time, and say so.

    Source: https://gateway-api.sigs.k8s.io/api-types/referencegrant/
    """
    ours, theirs = namespaces(), namespaces()
    serve_pages(ours, images.agnhost, "own", within=timeouts.pod)
    serve_pages(theirs, images.agnhost, "shared", within=timeouts.pod)
    host = f"web.{ours}.test"
    foreign = _rule("shared", path="/shared", namespace=theirs.name)
    route = ours.create(_route("web", gateway, host, _rule("own"), foreign))
    read = functools.partial(_pages, theirs, entry, {(host, "/shared"): ""})
    refused = functools.partial(_differences, {(host, "/shared"): "status 500"})
    eventually(read, refused, within=timeouts.ingress, describe=f"the Service of {theirs} is not reached")
    eventually(route, _tells(gateway, "ResolvedRefs", "False", "RefNotPermitted"), within=timeouts.ingress)

    to, whose = [{"group": "", "kind": "Service"}], [{"group": GROUP, "kind": "HTTPRoute", "namespace": ours.name}]
    grant = theirs.create(custom_object(GRANT, "shared", spec={"from": whose, "to": to}))

    granted = functools.partial(_differences, {(host, "/shared"): "shared"})
    eventually(read, granted, within=timeouts.ingress, describe=f"the Service of {theirs} is reached")
    eventually(route, _tells(gateway, "ResolvedRefs", "True"), within=timeouts.ingress)

    grant.delete()
    eventually(read, refused, within=timeouts.ingress, describe=f"the Service of {theirs} is reached no longer")


NOBODY = "none of ours"
"""What is wanted for a host that no route of ours names: whether others serve it, or nobody does, is up to them."""
Pages = Mapping[tuple[str, str], str]
"""By host and path: the name of the backend whose page it is, or how it is answered."""


def _route(name: str, gateway: Object, host: str, *rules: dict[str, Any]) -> dict[str, Any]:
    parent = {"name": gateway.name, "namespace": gateway.namespace}
    return custom_object(ROUTE, name, spec={"parentRefs": [parent], "hostnames": [host], "rules": list(rules)})


def _rule(target: str, *, path: str = "/", namespace: str = "") -> dict[str, Any]:
    backend = {"name": target, "port": 80, **({"namespace": namespace} if namespace else {})}
    return {"matches": [{"path": {"type": "PathPrefix", "value": path}}], "backendRefs": [backend]}


def _tells(gateway: Object, type: str, status: str, reason: str = "") -> Condition:
    """A route's condition about a gateway has this status, and this reason where one is given."""

    def tells(route: Object) -> str | None:
        parents = [each for each in route.status.get("parents") or [] if each["parentRef"]["name"] == gateway.name]
        found = [told for each in parents for told in each.get("conditions") or [] if told["type"] == type]
        fresh = [told for told in found if told.get("observedGeneration", route.generation) >= route.generation]
        if any(told["status"] == status and reason in ("", told.get("reason")) for told in fresh):
            return None
        said = [f"{told['status']} ({told.get('reason')}: {told.get('message')})" for told in fresh]
        return f"its condition {type} is {', '.join(said) or 'not there'}"

    tells.__name__ = f"tells of {gateway} {type}={status}{f' ({reason})' if reason else ''}"
    return tells


def _weighted(**weights: int) -> dict[str, Any]:
    return {"backendRefs": [{"name": name, "port": 80, "weight": weight} for name, weight in weights.items()]}


def _pages(namespace: Namespace, entry: EntryPoint, pages: Pages) -> Pages:
    """Whose page is served for each host and path."""
    seen = {}
    for host, path in pages:
        answer = entry.get(host, path)
        ours, _, name = answer.text.partition("/")
        seen[host, path] = name if answer.status == 200 and ours == namespace.name else f"status {answer.status}"
        if answer.status == 503:  # a gateway that has the route, and nobody behind it: it says why
            seen[host, path] += f" ({answer.text[:80]})"
    return seen


def _differences(wanted: Pages, seen: Pages) -> str | None:
    """Every page is served as it should be."""
    wrong = [
        f"http://{host}{path} should be {page}, not {seen[host, path]}"
        for (host, path), page in wanted.items()
        if seen[host, path] != page and not (page == NOBODY and seen[host, path].startswith("status "))
    ]
    return "; ".join(wrong) or None


def _is_served(seen: Pages) -> str | None:
    """Every page is one of ours."""
    others = [page for page in seen.values() if page.startswith("status ")]
    return f"it is answered with {others[0]}" if others else None
