"""What ingress controllers are told in annotations, each in its own words: the Ingress API has no fields for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

Annotations = dict[str, str]


@dataclass(frozen=True, slots=True)
class Dialect:
    """The annotations of one controller; None where it has none that count for a single Ingress."""

    body_size: Callable[[int], Annotations] | None = None
    """The largest request body in KiB."""
    timeout: Callable[[int], Annotations] | None = None
    """The longest time in seconds that a backend may take to answer."""
    redirect: Annotations | None = None
    """Visitors by http are sent to https."""
    websocket: Annotations | None = None
    """Connections are upgraded to websockets; empty where nothing has to be said."""


DIALECTS: Mapping[str, Dialect] = {
    "projectcontour.io/ingress-controller": Dialect(
        timeout=lambda seconds: {"projectcontour.io/response-timeout": f"{seconds}s"},
        redirect={"ingress.kubernetes.io/force-ssl-redirect": "true"},
        websocket={"projectcontour.io/websocket-routes": "/"},
    ),
    "k8s.io/ingress-nginx": Dialect(
        body_size=lambda size: {"nginx.ingress.kubernetes.io/proxy-body-size": f"{size}k"},
        timeout=lambda seconds: {"nginx.ingress.kubernetes.io/proxy-read-timeout": str(seconds)},
        redirect={"nginx.ingress.kubernetes.io/force-ssl-redirect": "true"},
        websocket={},
    ),
    "nginx.org/ingress-controller": Dialect(
        body_size=lambda size: {"nginx.org/client-max-body-size": f"{size}k"},
        timeout=lambda seconds: {"nginx.org/proxy-read-timeout": f"{seconds}s"},
        redirect={"nginx.org/redirect-to-https": "true"},
    ),
    "haproxy-ingress.github.io/controller": Dialect(
        body_size=lambda size: {"haproxy-ingress.github.io/proxy-body-size": f"{size}k"},
        timeout=lambda seconds: {"haproxy-ingress.github.io/timeout-server": f"{seconds}s"},
        redirect={"haproxy-ingress.github.io/ssl-redirect": "true"},
        websocket={},
    ),
    "haproxy.org/ingress-controller": Dialect(
        timeout=lambda seconds: {"haproxy.org/timeout-server": f"{seconds}s"},
        redirect={"haproxy.org/ssl-redirect": "true"},
        websocket={},
    ),
    # Traefik is told by objects of its own, which an annotation only names.
    "traefik.io/ingress-controller": Dialect(websocket={}),
    # What the load balancer of a cloud can be told counts for all Ingresses that share it.
    "ingress.k8s.aws/alb": Dialect(
        redirect={
            "alb.ingress.kubernetes.io/listen-ports": '[{"HTTP": 80}, {"HTTPS": 443}]',
            "alb.ingress.kubernetes.io/ssl-redirect": "443",
        },
        websocket={},
    ),
}
"""By the controller's name, as in an IngressClass."""


def of(controller: str) -> Dialect:
    """The dialect of a controller; one that has no words for anything when it is not known."""
    # Several controllers of one kind are told apart by what follows their name.
    known = [name for name in DIALECTS if controller == name or controller.startswith(f"{name}/")]
    return DIALECTS[known[0]] if known else Dialect()
