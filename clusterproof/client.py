"""Speaking to the API server in raw JSON, over the official client's connections and credentials.

The typed models of the official client are left out: they cost a second at first use, and a conformance suite wants to
see exactly what the server said.
"""

from __future__ import annotations

import contextlib
import json
import math
import socket
import ssl
import tempfile
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

import urllib3
from kubernetes.client import ApiClient, Configuration
from kubernetes.config.incluster_config import load_incluster_config
from kubernetes.config.kube_config import load_kube_config
from urllib3.connection import HTTPConnection
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    MaxRetryError,
    NameResolutionError,
    NewConnectionError,
    ReadTimeoutError,
    SSLError,
)
from urllib3.util import create_urllib3_context

from clusterproof import streaming
from clusterproof.errors import ApiError, SurroundingsError
from clusterproof.streaming import ExecResult as ExecResult

CONNECT_SECONDS = 5.0
READ_SECONDS = 30.0
IN_CLUSTER = "in-cluster"
"""Said in place of a kubeconfig's path: the cluster is that of the pod this process runs in, as its service account."""
_LOADING = threading.Lock()
"""The official client remembers which files it has written, for all threads."""
KEEPALIVE = [
    *HTTPConnection.default_socket_options,
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    *(
        (socket.IPPROTO_TCP, getattr(socket, name), value)
        for name, value in {"TCP_KEEPIDLE": 5, "TCP_KEEPINTVL": 3, "TCP_KEEPCNT": 3}.items()
        if hasattr(socket, name)  # macOS has other names for some
    ),
]
"""Options of every connection: the end of a watch that became silent because the network is cut shows within 14 s."""


class Event(NamedTuple):
    """One event of a watch."""

    type: str
    """ADDED, MODIFIED, DELETED or BOOKMARK."""
    object: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Response:
    """An answer of the server, whatever its status."""

    status: int
    headers: Mapping[str, str]
    """Looked up without regard to case."""
    body: bytes = field(repr=False)

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode(errors="replace")

    def json(self) -> dict[str, Any]:
        """The body as JSON; ValueError when it is something else."""
        parsed: dict[str, Any] = json.loads(self.body)
        return parsed


def _connections(configuration: Configuration, context: ssl.SSLContext) -> urllib3.PoolManager:
    """The official client's connections; what they know about TLS is loaded once, and not for each of them."""
    pool: urllib3.PoolManager = ApiClient(configuration).rest_client.pool_manager
    pool.connection_pool_kw["ssl_context"] = context
    for name in ("ca_certs", "ca_cert_data", "cert_file", "key_file"):
        pool.connection_pool_kw.pop(name, None)
    return pool


def _credentials(configuration: Configuration, authority: str) -> ssl.SSLContext:
    context = create_urllib3_context(cert_reqs=ssl.CERT_REQUIRED if configuration.verify_ssl else ssl.CERT_NONE)
    if authority or configuration.ssl_ca_cert:
        with _named("certificate authority"):
            context.load_verify_locations(None if authority else configuration.ssl_ca_cert, cadata=authority or None)
    else:
        context.load_default_certs()
    if configuration.cert_file:
        with _named("client certificate"):
            # An empty password: never ask for one.
            context.load_cert_chain(configuration.cert_file, configuration.key_file, password="")
    return context


@contextlib.contextmanager
def _named(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:  # also of what is there and is no certificate
        raise OSError(f"its {what} cannot be read: {error}") from error


def _authorization(value: str) -> str:
    """A token as a header: files and blocks of YAML end it with a line break. ValueError where it fits in none."""
    scheme, _, token = value.partition(" ")
    token = token.strip()
    if not (token.isascii() and token.isprintable()):
        raise ValueError("its token cannot be sent: only ASCII characters on one line are expected in it")
    return f"{scheme} {token}"


class _Patience(urllib3.Retry):
    """Obeys `Retry-After` of a busy server (429, 503), within limits; repeats nothing else."""

    @classmethod
    def default(cls) -> _Patience:
        return cls(total=4, connect=0, read=0, redirect=0, other=0, allowed_methods=None, raise_on_status=False)

    def get_retry_after(self, response: urllib3.BaseHTTPResponse) -> float | None:
        seconds = super().get_retry_after(response)
        return None if seconds is None else min(seconds, 5.0)


class _Lines(Iterator[str]):
    """The lines of an answer that is still arriving. Its connection is closed when nobody reads any more."""

    def __init__(self, answer: urllib3.BaseHTTPResponse, explain: Callable[[Exception], str]) -> None:
        self._connection = answer.connection
        self._chunks = answer.stream(65536)
        self._explain = explain
        self._whole: deque[bytes] = deque()
        self._rest = b""
        # What is not read cannot be read by the next request on this connection, so it is not used again.
        self._close = weakref.finalize(self, answer.close)

    def __next__(self) -> str:
        while not self._whole:
            try:
                *whole, self._rest = (self._rest + next(self._chunks)).split(b"\n")
                self._whole.extend(whole)
            except (StopIteration, ReadTimeoutError):
                self._close()
                if not self._rest:
                    raise StopIteration from None
                self._whole.append(self._rest)
                self._rest, self._chunks = b"", iter(())
            except HTTPError as error:
                self._close()
                raise SurroundingsError(self._explain(error)) from error
        return self._whole.popleft().decode(errors="replace")

    def patience(self, seconds: float) -> None:
        """From now on, so many seconds of silence are the end."""
        if (sock := getattr(self._connection, "sock", None)) is not None:
            sock.settimeout(seconds)


class Events(Iterator[Event]):
    """The events of a watch as they arrive, until it ends."""

    def __init__(self, lines: _Lines, path: str) -> None:
        self._lines = lines
        self._path = path

    def __next__(self) -> Event:
        event = Event(**json.loads(next(self._lines)))
        if event.type == "ERROR":
            status = event.object
            message, reason = status.get("message", ""), status.get("reason", "Unknown")
            raise ApiError(status.get("code", 500), reason, message, "WATCH", self._path, status.get("details") or {})
        return event

    def patience(self, seconds: float) -> None:
        """From now on, so many seconds without an event are the end."""
        self._lines.patience(seconds)


class Client:
    """One identity at one API server. Use one per thread."""

    total_requests = 0
    """Requests of all clients in this process."""

    def __init__(
        self,
        configuration: Configuration,
        *,
        user: str = "",
        authority: str = "",
        context: ssl.SSLContext | None = None,
    ) -> None:
        """`authority`, as PEM text, and `context` go before the configuration's files.

        OSError where one of these cannot be read, or holds no certificate.
        """
        self.configuration = configuration
        self.configuration.socket_options = KEEPALIVE
        self.user = user
        """Who it speaks as, for messages; empty for the kubeconfig's user."""
        self.requests = 0
        """Requests made so far, watches and commands included."""
        self._counted = True
        self.certificate = ""
        """The certificate, as PEM text, with which a kubeconfig's user shows who it is; empty where it does not."""
        self._authority = authority
        self._tls = context or _credentials(configuration, authority)
        self._pool = _connections(configuration, self._tls)

    @classmethod
    def from_kubeconfig(cls, path: str | Path, context: str = "") -> Client:
        """The user of a kubeconfig's context, its current one by default: certificate, token or exec plugin.

        For the path `in-cluster` the pod's own service account, whose token is read again as it is renewed.
        ConfigException, ValueError or OSError where it cannot be used.
        """
        configuration = Configuration()
        if str(path) == IN_CLUSTER:
            load_in_cluster: Any = load_incluster_config  # without types
            load_in_cluster(configuration)
            return cls(configuration)
        load: Any = load_kube_config  # without types
        # The official client writes certificates and keys to files, which would stay where this process is killed.
        with _LOADING, tempfile.TemporaryDirectory(prefix="clusterproof-") as folder:
            load(str(path), context or None, configuration, persist_config=False, temp_file_path=folder)
            for token in configuration.api_key.values():
                _authorization(token)
            authority = Path(configuration.ssl_ca_cert).read_text() if configuration.ssl_ca_cert else ""
            client = cls(configuration, authority=authority)
            if configuration.cert_file:
                client.certificate = Path(configuration.cert_file).read_text()
        return client

    @property
    def server(self) -> str:
        """URL of the API server."""
        return str(self.configuration.host)

    def clone(self, *, counted: bool = True) -> Client:
        """The same identity with connections of its own, for another thread; its requests may be no promise's."""
        other = Client(self.configuration, user=self.user, authority=self._authority, context=self._tls)
        other._counted = counted
        return other

    def as_user(self, user: str, *, token: str = "", certificate: tuple[str, str] | None = None) -> Client:
        """Somebody else at the same server: by token, by (certificate, key) as PEM text, or by nothing: anonymous."""
        other = Configuration()
        for name in ("host", "ssl_ca_cert", "verify_ssl", "tls_server_name", "proxy", "no_proxy"):
            setattr(other, name, getattr(self.configuration, name))
        if token:
            other.api_key["authorization"] = f"Bearer {token}"
        if not certificate:
            return Client(other, user=user, authority=self._authority)
        # TLS takes a key from a file only: there is one for as long as that takes.
        with tempfile.TemporaryDirectory(prefix="clusterproof-") as folder:
            other.cert_file, other.key_file = (str(Path(folder, name)) for name in ("crt", "key"))
            for path, text in zip((other.cert_file, other.key_file), certificate, strict=True):
                Path(path).write_text(text)
            return Client(other, user=user, authority=self._authority)

    def request(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        query: Mapping[str, Any] | None = None,
        content_type: str = "application/json",
        accept: str = "application/json",
        headers: Mapping[str, str] | None = None,
        timeout: float = READ_SECONDS,
    ) -> Response:
        """Any request; the answer whatever its status. SurroundingsError when there is no answer."""
        sent = {**self._headers(accept), **(headers or {})}
        if body is not None:
            sent["Content-Type"] = content_type
        data = body if body is None or isinstance(body, str | bytes) else json.dumps(body)
        answer = self._send(method, self._url(path, query), sent, data, timeout)
        return Response(answer.status, answer.headers, answer.data)

    def get(self, path: str, query: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """GET; ApiError on a status of 400 or more, as for the other verbs."""
        return self._checked("GET", path, query=query)

    def get_text(self, path: str, query: Mapping[str, Any] | None = None) -> str:
        """GET of what is no JSON, such as `/metrics` or a log; ApiError on a status of 400 or more."""
        answer = self.request("GET", path, query=query, accept="*/*")
        if answer.status >= 400:
            self._raise(answer, "GET", path)
        return answer.text

    def post(self, path: str, body: Any, query: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """POST: create."""
        return self._checked("POST", path, body=body, query=query)

    def put(self, path: str, body: Any, query: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """PUT: replace."""
        return self._checked("PUT", path, body=body, query=query)

    def patch(
        self,
        path: str,
        body: Any,
        query: Mapping[str, Any] | None = None,
        *,
        content_type: str = "application/merge-patch+json",
    ) -> dict[str, Any]:
        """PATCH: change in place."""
        return self._checked("PATCH", path, body=body, query=query, content_type=content_type)

    def delete(self, path: str, body: Any = None, query: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """DELETE; `body` may hold DeleteOptions."""
        return self._checked("DELETE", path, body=body, query=query)

    def watch(self, path: str, query: Mapping[str, Any] | None = None, *, within: float) -> Events:
        """Changes as they happen, for at most about `within` seconds. The request is made before this returns.

        ApiError when the watch is refused or ended by the server (410: its start is too old); SurroundingsError when
        the connection is lost.
        """
        asked = {"watch": True, "timeoutSeconds": math.ceil(within), "allowWatchBookmarks": True, **(query or {})}
        return Events(self._lines(path, asked, within), path)

    def stream(self, path: str, query: Mapping[str, Any] | None = None, *, within: float) -> Iterator[str]:
        """Lines of an answer as they arrive, until it ends or nothing came for `within` seconds."""
        return self._lines(path, query, within)

    def _lines(self, path: str, query: Mapping[str, Any] | None, within: float) -> _Lines:
        answer = self._send("GET", self._url(path, query), self._headers("*/*"), None, within, stream=True)
        if answer.status >= 400:
            self._raise(Response(answer.status, answer.headers, answer.data), "GET", path)
        return _Lines(answer, self._sentence)

    def exec(
        self,
        path: str,
        command: Sequence[str],
        *,
        container: str = "",
        stdin: str = "",
        tty: bool = False,
        within: float = 60.0,
    ) -> ExecResult:
        """Run a command in a pod; `path` is the pod's `exec` subresource. NeverHappened when it does not end.

        Without a command and with the path of `attach`, it follows the container itself.
        """
        query = {"command": list(command), "stdout": True, "stderr": not tty, "stdin": bool(stdin), "tty": tty}
        if container:
            query["container"] = container
        self._count()
        return streaming.run(self._line(), self._url(path, query), stdin, within)

    def forward(self, path: str, port: int, sent: bytes, *, until: bytes, within: float = 60.0) -> bytes:
        """Send to a port of a pod; `path` is its `portforward` subresource. The answer, up to and with `until`."""
        self._count()
        return streaming.forward(self._line(), self._url(path, {"ports": port}), sent, until, within)

    def _line(self) -> streaming.Line:
        # A connection of its own: the official client's stream() swaps a method of the ApiClient it is given.
        return streaming.Line(self.configuration, self._tls, self._headers("*/*"))

    def _checked(self, method: str, path: str, **arguments: Any) -> dict[str, Any]:
        answer = self.request(method, path, **arguments)
        if answer.status >= 400:
            self._raise(answer, method, path)
        return answer.json()

    def _raise(self, answer: Response, method: str, path: str) -> None:
        try:
            status = answer.json()
        except ValueError:
            status = {"message": answer.text.strip()[:500]}
        reason = status.get("reason") or "Unknown"
        message, details = status.get("message", ""), status.get("details") or {}
        raise ApiError(answer.status, reason, message, method, path, details, user=self.user)

    def _url(self, path: str, query: Mapping[str, Any] | None) -> str:
        if not query:
            return self.server + path
        plain = {key: str(value).lower() if isinstance(value, bool) else value for key, value in query.items()}
        return f"{self.server}{path}?{urlencode(plain, doseq=True)}"

    def _headers(self, accept: str) -> dict[str, str]:
        headers = {"Accept": accept, "User-Agent": "clusterproof"}
        # Also refreshes a token that is about to expire.
        if bearer := self.configuration.auth_settings().get("BearerToken"):
            try:
                headers["authorization"] = _authorization(str(bearer["value"]))
            except ValueError as error:
                raise SurroundingsError(f"{self.server}: {error}") from error
        return headers

    def _count(self) -> None:
        if self._counted:
            self.requests += 1
            Client.total_requests += 1

    def _send(
        self, method: str, url: str, headers: dict[str, str], body: Any, timeout: float, *, stream: bool = False
    ) -> urllib3.BaseHTTPResponse:
        self._count()
        limits = urllib3.Timeout(connect=min(CONNECT_SECONDS, timeout), read=timeout)
        try:
            return self._pool.request(
                method,
                url,
                body=body,
                headers=headers,
                timeout=limits,
                retries=_Patience.default(),
                redirect=False,
                preload_content=not stream,
            )
        except HTTPError as error:
            raise SurroundingsError(self._sentence(error)) from error

    def _sentence(self, error: Exception) -> str:
        cause = error.reason if isinstance(error, MaxRetryError) and error.reason else error
        text = str(cause)
        match cause:
            case SSLError() if "CERTIFICATE_VERIFY_FAILED" in text and "match" in text:
                return f"{self.server}: its certificate is for another name: {text}"
            case SSLError() if "CERTIFICATE_VERIFY_FAILED" in text:
                return (
                    f"{self.server}: its certificate is not trusted by the kubeconfig's certificate authority: {text}"
                )
            case SSLError():
                return f"{self.server}: TLS failed: {text}"
            case NameResolutionError():
                return f"{self.server}: its host name cannot be resolved"
            case NewConnectionError():
                return f"{self.server}: cannot connect: {text.rpartition(': ')[2]}"
            case ConnectTimeoutError() | ReadTimeoutError():
                # urllib3 also shows the connection, or the pool, it speaks of.
                return f"{self.server}: no answer in time: {str(cause.args[-1]).rpartition('): ')[2]}"
            case _:
                return f"{self.server}: the connection was lost: {text}"
