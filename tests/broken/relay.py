"""A server in front of another one, which passes everything on except for what it distorts."""

from __future__ import annotations

import contextlib
import http.client
import select
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from clusterproof.embedded.pki import Pair

HOP_BY_HOP = {"connection", "transfer-encoding", "content-length", "accept-encoding", "keep-alive"}
SECONDS = 120.0
"""For an answer of the server behind."""


@dataclass(slots=True)
class Request:
    """What somebody asked for; may be changed before it is passed on."""

    method: str
    path: str
    """With the query."""
    headers: dict[str, str]
    body: bytes

    @property
    def is_stream(self) -> bool:
        """Whether the answer comes line by line, for as long as it is wanted."""
        return any(sign in self.path for sign in ("watch=true", "watch=1", "follow=true", "follow=1"))


@dataclass(slots=True)
class Answer:
    """What the server behind answered; may be changed before it is passed on."""

    status: int
    headers: dict[str, str]
    body: bytes


Ask = Callable[[Request], Answer]
Exchange = Callable[[Request, Ask], Answer]


def passed_on(request: Request, ask: Ask) -> Answer:
    """What the server behind answers."""
    return ask(request)


def _unchanged(request: Request, line: bytes) -> bytes | None:
    return line


def as_asked(request: Request) -> None:
    """Changes nothing."""


@dataclass(slots=True)
class Relay:
    """Where it listens, whom it stands in front of, and what it distorts."""

    listen: str
    """Address; the port is chosen by the kernel."""
    target: str
    """`host:port`."""
    exchange: Exchange = passed_on
    """Answers a request, usually with the help of the second argument, which asks the server behind."""
    line: Callable[[Request, bytes], bytes | None] = _unchanged
    """A line of a stream; None drops it."""
    asked: Callable[[Request], None] = as_asked
    """Changes whatever is asked for, streams included, before anything else is done with it."""
    tls: ssl.SSLContext | None = None
    """How it serves TLS; None: it does not."""
    towards: ssl.SSLContext | None = None
    """How it speaks TLS to the server behind; None: it does not."""
    speaks_for_clients: bool = False
    """Tell the server behind, in the headers of a front proxy, whose certificate a client has shown."""
    port: int = field(default=0, init=False)

    @property
    def address(self) -> str:
        """`host:port` where it listens."""
        return f"{self.listen}:{self.port}"

    @contextlib.contextmanager
    def running(self) -> Iterator[Relay]:
        """Serve until the block ends."""
        relay = self

        class Bound(_Handler):
            served = relay

        server = _Server((self.listen, 0), Bound)
        self.port = server.server_address[1]
        if self.tls:
            server.socket = self.tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
            thread.join()

    def connect(self) -> http.client.HTTPConnection:
        """A new connection to the server behind."""
        if self.towards:
            return http.client.HTTPSConnection(self.target, context=self.towards, timeout=SECONDS)
        return http.client.HTTPConnection(self.target, timeout=SECONDS)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away, or does not trust us, is nothing to talk about."""


class _Handler(BaseHTTPRequestHandler):
    served: Relay
    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        if isinstance(self.request, ssl.SSLSocket):
            self.request.settimeout(10)
            self.request.do_handshake()
            self.request.settimeout(None)
        super().setup()

    def handle_any(self) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        headers = {key: value for key, value in self.headers.items() if key.lower() not in HOP_BY_HOP}
        if self.served.towards:
            headers.pop("Host", None)
        if self.served.speaks_for_clients:
            # Who a client is, it cannot say itself.
            headers = {key: value for key, value in headers.items() if not key.lower().startswith("x-remote-")}
            headers |= self._identity()
        request = Request(self.command, self.path, headers, self.rfile.read(size))
        self.served.asked(request)
        if "Upgrade" in headers:
            self._tunnel(request)
        elif request.is_stream:
            self._stream(request)
        else:
            self._answer(self.served.exchange(request, self._ask))

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = handle_any

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: pytest's output is for results."""

    def _identity(self) -> dict[str, str]:
        certificate = self.request.getpeercert() or {}
        subject = [pair for part in certificate.get("subject", ()) for pair in part]
        users = [value for key, value in subject if key == "commonName"]
        groups = [value for key, value in subject if key == "organizationName"]
        return {"X-Remote-User": users[0], "X-Remote-Group": ",".join(groups)} if users else {}

    def _ask(self, request: Request) -> Answer:
        connection = self.served.connect()
        try:
            response = self._send(connection, request)
            return Answer(response.status, _headers(response), response.read())
        finally:
            connection.close()

    def _send(self, connection: http.client.HTTPConnection, request: Request) -> http.client.HTTPResponse:
        connection.putrequest(
            request.method, request.path, skip_host="Host" in request.headers, skip_accept_encoding=True
        )
        for key, value in request.headers.items():
            # A front proxy names several groups in several headers.
            for part in value.split(",") if key == "X-Remote-Group" else [value]:
                connection.putheader(key, part)
        connection.putheader("Content-Length", str(len(request.body)))
        connection.endheaders(request.body)
        return connection.getresponse()

    def _answer(self, answer: Answer) -> None:
        self.send_response_only(answer.status)
        for key, value in answer.headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    def _stream(self, request: Request) -> None:
        connection = self.served.connect()
        try:
            response = self._send(connection, request)
            if response.status != 200:
                self._answer(Answer(response.status, _headers(response), response.read()))
                return
            self.send_response_only(200)
            for key, value in _headers(response).items():
                self.send_header(key, value)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            while line := response.readline():
                if (kept := self.served.line(request, line)) is not None:
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(kept), kept))
            self.wfile.write(b"0\r\n\r\n")
        finally:
            connection.close()

    def _tunnel(self, request: Request) -> None:
        """Whatever is spoken after an upgrade is passed on as it is, both ways."""
        connection = self.served.connect()
        connection.connect()
        assert connection.sock is not None
        head = [f"{request.method} {request.path} HTTP/1.1", f"Host: {self.served.target}", "Connection: Upgrade"]
        for key, value in request.headers.items():
            head += [f"{key}: {part}" for part in (value.split(",") if key == "X-Remote-Group" else [value])]
        connection.sock.sendall("\r\n".join([*head, "", ""]).encode())
        _splice(self.request, connection.sock)
        connection.close()
        self.close_connection = True


def _headers(response: http.client.HTTPResponse) -> dict[str, str]:
    return {key: value for key, value in response.getheaders() if key.lower() not in HOP_BY_HOP}


def _splice(one: socket.socket, other: socket.socket) -> None:
    ends = {one: other, other: one}
    with contextlib.suppress(OSError):
        while True:
            waiting = [end for end in ends if isinstance(end, ssl.SSLSocket) and end.pending()]
            for end in waiting or select.select(list(ends), [], [])[0]:
                data = end.recv(65536)
                if not data:
                    return
                ends[end].sendall(data)


def serving(pair: Pair, clients: str = "") -> ssl.SSLContext:
    """Serve TLS with a certificate, asking clients for one of the authority in the file `clients`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    if clients:
        context.load_verify_locations(clients)
        context.verify_mode = ssl.CERT_OPTIONAL
    return context


def speaking(identity: Pair, authority: str = "") -> ssl.SSLContext:
    """Speak TLS with a client certificate to a server that an authority vouches for, or to any."""
    context = ssl.create_default_context(cafile=authority or None)
    context.load_cert_chain(identity.certificate, identity.key)
    if not authority:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
