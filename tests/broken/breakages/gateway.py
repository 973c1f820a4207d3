"""Gateways: routes that are read in another way than they are written, and grants that count for nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from clusterproof import kinds

from ..registry import Damage, breakage
from ..relay import Answer, Ask, Request
from ..subject import Subject
from . import apis
from .ingress import ask_for_the_root, through

GROUP = "gateway.networking.k8s.io"
ROUTES = f"{GROUP}/v1/httproutes"
ROUTE = kinds.custom(GROUP, "v1", "HTTPRoute", "httproutes")
UP_TO_THREE = "[0, 1, 2].filter(i, i < size({of})).map(i, {change})"
"""CEL: a change of each element of a list that promises make no longer than this."""


@breakage(
    breaks={
        "network/gateway/routing": r"serves every page: not within .*/ should be root, not status 404",
        "network/gateway/weights": r"is served by Gateway \S+: not within .*it is answered with status 404",
        "network/gateway/grant": r"is not reached: not within .*/shared should be status 500, not status 404",
    },
    keeps=["network/ingress/endpoints"],
)
def gateway_takes_no_routes(subject: Subject) -> Damage:
    """No gateway believes that a route is meant for it."""
    change = '[JSONPatch{op: "replace", path: "/spec/parentRefs/0/name", value: "nobody"}]'
    with subject.mutating(ROUTES, change, patch="JSONPatch"):
        yield []


@breakage(
    breaks={"network/gateway/routing": r"http://nobody\.\S+/ should be none of ours, not root"},
    keeps=["network/ingress/endpoints"],
)
def gateway_ignores_host(subject: Subject) -> Damage:
    """A gateway serves the pages of a route for every host."""
    with subject.mutating(ROUTES, '[JSONPatch{op: "remove", path: "/spec/hostnames"}]', patch="JSONPatch"):
        yield []


@breakage(
    breaks={"network/gateway/routing": r"/docs should be docs, not root"},
    keeps=["network/gateway/weights"],
)
def gateway_ignores_path(subject: Subject) -> Damage:
    """A gateway looks at the host only."""

    with through(subject, ask_for_the_root) as arguments:
        yield arguments


@breakage(
    breaks={"network/gateway/routing": r"/docsearch should be root, not docs"},
    keeps=["network/gateway/weights"],
)
def gateway_compares_letters(subject: Subject) -> Damage:
    """A gateway compares the beginnings of paths by letters, not by elements."""
    pattern = '{"type": "RegularExpression", "value": object.spec.rules[i].matches[0].path.value + ".*"}'
    change = f'JSONPatch{{op: "replace", path: "/spec/rules/" + string(i) + "/matches/0/path", value: {pattern}}}'
    everywhere = UP_TO_THREE.format(of="object.spec.rules", change=change)
    with subject.mutating(ROUTES, everywhere, patch="JSONPatch"):
        yield []


@contextlib.contextmanager
def _weighing(subject: Subject, weight: str) -> Iterator[None]:
    """While each backend of a route has another weight, which is CEL about its `weight`."""
    backends, path = "object.spec.rules[0].backendRefs", "/spec/rules/0/backendRefs/"
    value = weight.replace("weight", f"{backends}[i].weight")
    change = f'JSONPatch{{op: "replace", path: "{path}" + string(i) + "/weight", value: {value}}}'
    with subject.mutating(ROUTES, UP_TO_THREE.format(of=backends, change=change), patch="JSONPatch"):
        yield


@breakage(
    breaks={"network/gateway/weights": r"at weights of 5 and 1 were spread as Counter"},
    keeps=["network/gateway/routing"],
)
def gateway_spreads_evenly(subject: Subject) -> Damage:
    """A gateway sends as much to each backend, unless its weight is 0."""
    with _weighing(subject, "weight > 0 ? 1 : 0"):
        yield []


@breakage(
    breaks={"network/gateway/weights": r"at weights of 5, 1 and 0 reach two: not within .*'never'"},
    keeps=["network/gateway/routing"],
)
def gateway_serves_weight_0(subject: Subject) -> Damage:
    """A gateway takes the weight 0 for 1."""
    with _weighing(subject, "weight > 0 ? weight : 1"):
        yield []


@breakage(
    breaks={"network/gateway/weights": r"at weights of 5, 1 and 0 reach two: not within .* it is {'old'}, not"},
    keeps=["network/ingress/routing"],
)
def gateway_prefers_the_heaviest(subject: Subject) -> Damage:
    """A gateway sends everything to backends that have most of the weight."""
    with _weighing(subject, "weight > 1 ? 1 : 0"):
        yield []


@breakage(
    breaks={"network/gateway/grant": r"is not reached: not within .*/shared should be status 500, not shared"},
    keeps=["network/gateway/routing"],
)
def gateway_needs_no_grant(subject: Subject) -> Damage:
    """A gateway serves the pages of any namespace's Services to whoever writes a route to them."""

    def exchange(request: Request, ask: Ask) -> Answer:
        answer = ask(request)
        return _ungranted(subject, request) if answer.status == 500 else answer

    with through(subject, exchange) as arguments:
        yield arguments


def _ungranted(subject: Subject, request: Request) -> Answer:
    """The page of the other namespace's Service to which a route would lead, if it were granted."""
    client = subject.client.clone()
    (route,) = (
        each for each in client.get(ROUTE.path())["items"] if request.headers["Host"] in each["spec"]["hostnames"]
    )
    rules = [each for each in route["spec"]["rules"] if request.path.startswith(each["matches"][0]["path"]["value"])]
    backend = next(each for rule in rules for each in rule["backendRefs"] if "namespace" in each)
    page = kinds.SERVICE.path(backend["namespace"], f"{backend['name']}:{backend['port']}", "proxy")
    answer = client.request("GET", f"{page}/")
    return Answer(answer.status, {}, answer.body)


@breakage(
    breaks={"network/gateway/grant": r"is reached: not within .*/shared should be shared, not status 500"},
    keeps=["network/gateway/routing"],
)
def gateway_ignores_grants(subject: Subject) -> Damage:
    """A gateway reaches no Service of another namespace, although it is granted."""
    change = '[JSONPatch{op: "replace", path: "/spec/to/0/kind", value: "Nobody"}]'
    with subject.mutating(f"{GROUP}/v1beta1/referencegrants", change, patch="JSONPatch"):
        yield []


@breakage(
    breaks={"network/gateway/grant": r"is reached no longer: not within .*/shared should be status 500, not shared"},
    keeps=["network/gateway/routing"],
)
def gateway_keeps_grants(subject: Subject) -> Damage:
    """A gateway does not notice that a grant is taken back."""
    granted: dict[tuple[str, str], Answer] = {}

    def exchange(request: Request, ask: Ask) -> Answer:
        answer, asked = ask(request), (request.headers["Host"], request.path)
        if answer.status == 200:
            granted[asked] = answer
        return granted.get(asked, answer) if answer.status == 500 else answer

    with through(subject, exchange) as arguments:
        yield arguments


@breakage(
    breaks={
        "network/gateway/status": r"Gateway \S+ has condition Programmed=True: not within .*no condition Programmed"
    },
    keeps=["network/gateway/routing"],
)
def gateway_is_never_programmed(subject: Subject) -> Damage:
    """A gateway does not tell that it is programmed."""

    def exchange(request: Request, ask: Ask) -> Answer:
        answer = ask(request)
        answer.body = _unprogrammed(request, answer.body)
        return answer

    with apis.through(subject, exchange=exchange, line=_unprogrammed) as arguments:
        yield arguments


def _unprogrammed(request: Request, told: bytes) -> bytes:
    return told.replace(b'"Programmed"', b'"Forgotten"') if "/gateways" in request.path else told


@breakage(
    breaks={
        "network/gateway/status": r"HTTPRoute \S+/web tells of \S+ \S+ Accepted=True: not within .*is not there",
        "network/gateway/grant": r"RefNotPermitted\): not within .*ResolvedRefs is not there",
    },
    keeps=["network/gateway/routing"],
)
def gateway_tells_nothing_of_routes(subject: Subject) -> Damage:
    """A gateway serves its routes, but their status stays empty."""
    nothing = '[JSONPatch{op: "replace", path: "/status", value: {"parents": []}}]'
    with subject.mutating(f"{ROUTES}/status", nothing, patch="JSONPatch"):
        yield []


@breakage(
    breaks={"network/gateway/grant": r"RefNotPermitted\): not within .*ResolvedRefs is True"},
    keeps=["network/gateway/status"],
)
def gateway_resolves_all_in_its_words(subject: Subject) -> Damage:
    """A gateway tells of every route that its Services can be reached, granted or not."""
    found = "object.status.parents[0].conditions"
    path = 'path: "/status/parents/0/conditions/" + string(i) + "/status"'
    change = (
        f'JSONPatch{{op: "replace", {path}, value: {found}[i].type == "ResolvedRefs" ? "True" : {found}[i].status}}'
    )
    told = UP_TO_THREE.format(of=found, change=change)
    with subject.mutating(f"{ROUTES}/status", f"size(object.status.parents) > 0 ? {told} : []", patch="JSONPatch"):
        yield []
