"""Ingress: a controller that does not look at what it is told, or loses requests; seen through a proxy before it."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from typing import Any

from clusterproof import kinds, manifests
from clusterproof.capabilities import DEFAULT_INGRESS_CLASS

from ..registry import Damage, breakage
from ..relay import Answer, Ask, Exchange, Relay, Request, as_asked, passed_on
from ..subject import Subject

HERE = "127.0.0.1"


def ask_for_the_root(request: Request, ask: Ask) -> Answer:
    """What is at `/`, whatever the path."""
    request.path = "/"
    return ask(request)


@contextlib.contextmanager
def through(
    subject: Subject, exchange: Exchange = passed_on, asked: Callable[[Request], None] = as_asked
) -> Iterator[list[str]]:
    """The way in, behind a proxy."""
    with Relay(HERE, subject.access.ingress_address, exchange, asked=asked).running() as relay:
        yield [f"--ingress-address={relay.address}", f"--gateway-address={relay.address}"]


@breakage(
    breaks={"network/ingress/routing": r"should be nobody's page"},
    keeps=["network/ingress/endpoints"],
)
def ingress_ignores_host(subject: Subject) -> Damage:
    """An ingress controller serves hosts that nobody named with another's pages."""
    known: dict[str, str] = {}

    def exchange(request: Request, ask: Ask) -> Answer:
        answer, asked = ask(request), request.headers["Host"]
        owner = ".".join(asked.split(".")[-2:])
        if answer.status == 200:
            known[owner] = asked
        elif answer.status == 404 and owner in known:
            request.headers["Host"] = known[owner]
            answer = ask(request)
        return answer

    with through(subject, exchange) as arguments:
        yield arguments


@breakage(
    breaks={"network/ingress/routing": r"should be nobody's page, not somebody else's"},
    keeps=["network/ingress/endpoints"],
)
def ingress_default_page(subject: Subject) -> Damage:
    """An ingress controller serves hosts that nobody named with the pages of some other application."""

    def exchange(request: Request, ask: Ask) -> Answer:
        answer = ask(request)
        return Answer(200, {"Content-Type": "text/html"}, b"Welcome to the shop") if answer.status == 404 else answer

    with through(subject, exchange) as arguments:
        yield arguments


@breakage(
    breaks={"network/ingress/routing": r"/docs\S* should be docs's page, not root"},
    keeps=["network/service/cluster_ip"],
)
def ingress_ignores_path(subject: Subject) -> Damage:
    """An ingress controller looks at the host only."""

    with through(subject, ask_for_the_root) as arguments:
        yield arguments


@breakage(
    breaks={"network/ingress/default_backend": r"http://nobody\S+ should be rest's page, not nobody"},
    keeps=["network/ingress/routing"],
)
def ingress_without_default_backend(subject: Subject) -> Damage:
    """An ingress controller serves nobody's pages for hosts that no rule names, whatever the default backend."""

    def exchange(request: Request, ask: Ask) -> Answer:
        answer = ask(request)
        return Answer(404, {}, b"") if answer.body.endswith(b"/rest") else answer

    with through(subject, exchange) as arguments:
        yield arguments


@breakage(
    breaks={"network/ingress/default_backend": r"http://named\S+ should be named's page, not rest"},
    keeps=["network/ingress/classes"],
)
def ingress_default_backend_first(subject: Subject) -> Damage:
    """An ingress controller serves everything by the default backend where there is one."""

    def exchange(request: Request, ask: Ask) -> Answer:
        asked = request.headers["Host"]
        request.headers["Host"] = "nobody.test"
        if (answer := ask(request)).status == 200:
            return answer
        request.headers["Host"] = asked
        return ask(request)

    with through(subject, exchange) as arguments:
        yield arguments


@breakage(
    breaks={"network/ingress/endpoints": r"should serve all the time"},
    keeps=["network/ingress/routing"],
)
def ingress_loses_requests(subject: Subject) -> Damage:
    """An ingress controller fails one request in 200."""
    count = itertools.count(1)

    def exchange(request: Request, ask: Ask) -> Answer:
        if next(count) % 200 == 0:
            return Answer(503, {"Content-Type": "text/plain"}, b"upstream connect error")
        return ask(request)

    with through(subject, exchange) as arguments:
        yield arguments


@breakage(
    breaks={"network/ingress/classes": r"should be|gave it the address"},
    keeps=["network/ingress/routing"],
)
def ingress_ignores_class(subject: Subject) -> Damage:
    """An ingress controller serves the Ingresses of every class."""
    change = 'Object{spec: Object.spec{ingressClassName: "contour"}}'
    with subject.mutating("networking.k8s.io/v1/ingresses", change):
        yield []


@breakage(
    breaks={
        "network/ingress/default_class": r"Ingress \S+/web, which was given second of the default classes contour, "
        r"second, is served by a controller of that class: not within"
    },
    keeps=["network/ingress/routing"],
)
def ingress_with_two_default_classes(subject: Subject) -> Damage:
    """A second IngressClass is the default one, too, and no controller serves it."""
    second = manifests.ingress_class("second", controller="example.com/nobody")
    second["metadata"]["annotations"] = {DEFAULT_INGRESS_CLASS: "true"}
    with subject.having(second):
        yield []


@breakage(breaks={"network/ingress/tls": r"serves each host by https: not within"}, keeps=["network/ingress/classes"])
def ingress_without_tls(subject: Subject) -> Damage:
    """An ingress controller knows none of the certificates that Ingresses name."""
    change = 'has(object.spec.tls) ? [JSONPatch{op: "remove", path: "/spec/tls"}] : []'
    with subject.mutating("networking.k8s.io/v1/ingresses", change, patch="JSONPatch"):
        yield []


@breakage(
    breaks={
        "network/ingress/timeout": r"allows for 1 s: not within .*sleep%203': 200",
        "network/ingress/redirect": r"redirects visitors to https: not within .*\(False, ''\)",
    },
    keeps=["network/ingress/classes"],
)
def ingress_ignores_annotations(subject: Subject) -> Damage:
    """An ingress controller does nothing of what it is told in annotations."""
    change = 'has(object.metadata.annotations) ? [JSONPatch{op: "remove", path: "/metadata/annotations"}] : []'
    with subject.mutating("networking.k8s.io/v1/ingresses", change, patch="JSONPatch"):
        yield []


@breakage(
    breaks={"network/ingress/websocket": r"passes on a websocket: not within"},
    keeps=["network/ingress/routing"],
)
def ingress_without_websockets(subject: Subject) -> Damage:
    """An ingress controller passes requests on without the wish for another protocol."""

    def asked(request: Request) -> None:
        request.headers.pop("Upgrade", None)

    with through(subject, asked=asked) as arguments:
        yield arguments


@breakage(
    breaks={"network/ingress/address": r"its status carries no address"},
    keeps=["network/service/cluster_ip"],
)
def ingress_without_address(subject: Subject) -> Damage:
    """An ingress controller tells nobody where it serves."""

    def forget(workload: dict[str, Any]) -> None:
        (controller,) = workload["spec"]["template"]["spec"]["containers"]
        controller["args"] = [each for each in controller["args"] if not each.startswith("--ingress-status-address")]

    with subject.reconfigured(kinds.DEPLOYMENT, "contour", "projectcontour", forget):
        yield ["--ingress-address="]
