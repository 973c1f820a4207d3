"""Where Ingresses and routes of a Gateway are reached from outside the cluster."""

from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from clusterproof import dialects, kinds, manifests
from clusterproof.capabilities import served_class
from clusterproof.client import Response
from clusterproof.conditions import ready
from clusterproof.dialects import Dialect
from clusterproof.inside import in_url
from clusterproof.wait import eventually

if TYPE_CHECKING:
    from clusterproof.cluster import Cluster
    from clusterproof.namespace import Namespace
    from clusterproof.objects import Object
    from clusterproof.timeouts import Timeouts

OLD_CLASS = "kubernetes.io/ingress.class"
"""Annotation by which an Ingress named its class before there was a field for it."""

_UPGRADE = (
    "Connection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
"""What a visitor says who wants a websocket (RFC 6455, with the key of its example)."""


@dataclass(slots=True)
class EntryPoint:
    """A visitor in front of the ingress controller, or of a Gateway at a known address."""

    cluster: Cluster
    timeouts: Timeouts
    known: str = ""
    """`host:port`, where it is known without asking."""
    _class: Mapping[str, Any] = field(default_factory=dict)

    @property
    def address(self) -> str:
        """`host:port`: the known one, or else that of Ingresses: as set, as the provider says, or as the status of one.

        NeverHappened when no Ingress of the class has an address.
        """
        if not self.known:
            told = self.cluster.settings.ingress_address or self.cluster.access.ingress_address
            self.known = told or self._from_status()
        return self.known

    @property
    def class_name(self) -> str:
        """Name of the IngressClass to be served at the address: the default class, or the first one."""
        return str(self._served_class["metadata"]["name"])

    @property
    def dialect(self) -> Dialect:
        """What its controller understands beyond the Ingress API."""
        return dialects.of(self._served_class["spec"].get("controller", ""))

    @property
    def _served_class(self) -> Mapping[str, Any]:
        if not self._class:
            self._class = served_class([each.raw for each in self.cluster.list(kinds.INGRESS_CLASS)])
        return self._class

    def get(
        self,
        host: str,
        path: str = "/",
        *,
        method: str = "GET",
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """Ask for a host's page on a new connection. Never raises: status 0 means no answer, the body says why."""
        connection = http.client.HTTPConnection(self.address, timeout=self.timeouts.request)
        try:
            connection.request(method, path, body=body, headers={**(headers or {}), "Host": host})
            answer = connection.getresponse()
            return Response(answer.status, cast(Mapping[str, str], answer.headers), answer.read())
        except (OSError, http.client.HTTPException) as error:
            return Response(0, {}, f"no answer from {self.address}: {error}".encode())
        finally:
            connection.close()

    def get_secured(self, host: str, authority: str, path: str = "/") -> Response:
        """Ask for a host's page by https, on port 443 of the same address, trusting this certificate (PEM) only.

        Never raises, as `get`.
        """
        try:
            with self._secure(host, authority) as secure:
                connection = http.client.HTTPConnection(host)
                connection.sock = secure
                connection.request("GET", path)
                answer = connection.getresponse()
                return Response(answer.status, cast(Mapping[str, str], answer.headers), answer.read())
        except (OSError, http.client.HTTPException) as error:
            return Response(0, {}, f"no answer from {self._name}:443: {error}".encode())

    def certificate(self, host: str, authority: str) -> str:
        """The certificate (PEM) that a host's visitor is shown by https, trusting this authority (PEM) only.

        Never raises: without one it is the reason why.
        """
        try:
            with self._secure(host, authority) as secure:
                return ssl.DER_cert_to_PEM_cert(secure.getpeercert(binary_form=True) or b"")
        except OSError as error:
            return f"none from {self._name}:443: {error}"

    @property
    def _name(self) -> str:
        return self.address.rpartition(":")[0].strip("[]")

    def _secure(self, host: str, authority: str) -> ssl.SSLSocket:
        """A connection to port 443 for a host's pages."""
        context = ssl.create_default_context(cadata=authority)
        plain = socket.create_connection((self._name, 443), timeout=self.timeouts.request)
        return context.wrap_socket(plain, server_hostname=host)

    def echo(self, host: str, said: bytes, path: str = "/") -> tuple[str, bytes]:
        """Ask for a websocket and say something: the first line of the answer, and as many bytes of what comes then.

        Never raises: an empty line means no answer, and then the bytes say why.
        """
        name, _, port = self.address.rpartition(":")
        try:
            with socket.create_connection((name.strip("[]"), int(port)), timeout=self.timeouts.request) as connection:
                connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n{_UPGRADE}\r\n".encode())
                answer = connection.makefile("rb")
                status = answer.readline().decode(errors="replace").strip()
                while answer.readline().strip():
                    pass  # its headers
                if " 101 " not in status:
                    return status, b""
                connection.sendall(said)
                return status, answer.read(len(said))
        except OSError as error:
            return "", f"no answer from {self.address}: {error}".encode()

    def _from_status(self) -> str:
        def some_address(ingresses: list[Object]) -> str | None:
            ours = [each for each in ingresses if self._is_ours(each)]
            return None if any(map(web_address, ours)) else f"none of {len(ours)} Ingresses has an address"

        what = f"some Ingress of class {self.class_name} has an address (or set --ingress-address)"
        everywhere = self.cluster.select(kinds.INGRESS)
        ingresses = eventually(everywhere, some_address, within=self.timeouts.ingress, describe=what)
        return next(filter(None, (web_address(each) for each in ingresses if self._is_ours(each))))

    def _is_ours(self, ingress: Object) -> bool:
        return self.class_name in (ingress.spec.get("ingressClassName"), ingress.annotations.get(OLD_CLASS))


def serve_pages(namespace: Namespace, image: str, *names: str, within: float) -> None:
    """Start a pod of agnhost's image that serves a page for each name, and for each page a Service of that name.

    A page is the names of its namespace and itself, with a slash between; NeverHappened when the pod is not ready
    `within` seconds.
    """
    ports = {name: 8080 + number for number, name in enumerate(names)}
    env = {f"SERVE_PORT_{port}": f"{namespace}/{name}" for name, port in ports.items()}
    made = manifests.pod("backends", image, args=["porter"], env=env, readiness=manifests.http_probe(8080))
    backends = namespace.create(made)
    for name, port in ports.items():
        namespace.create(manifests.service(name, target=port, selector={"app": "backends"}))
    eventually(backends, ready, within=within)


def web_address(served: Object) -> str:
    """`host:80` of the first address in the status of an Ingress or a Service; empty while it has none."""
    entries = (served.status.get("loadBalancer") or {}).get("ingress") or []
    found = [entry.get("ip") or entry.get("hostname") for entry in entries]
    return f"{in_url(found[0])}:80" if found else ""
