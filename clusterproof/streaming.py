"""What is done in a pod over a connection that stays open: commands, attached containers, forwarded ports."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from time import monotonic
from typing import Any, NamedTuple

from kubernetes.client import Configuration

from clusterproof.errors import ApiError, NeverHappened, SurroundingsError


class ExecResult(NamedTuple):
    """What a command in a container said and how it ended."""

    stdout: str
    """With a terminal also what would have been said on stderr."""
    stderr: str
    code: int
    """Exit code of the command."""


class Line(NamedTuple):
    """How somebody reaches an API server."""

    configuration: Configuration
    context: ssl.SSLContext
    """What is known about TLS."""
    headers: Mapping[str, str]


def run(line: Line, url: str, stdin: str, within: float) -> ExecResult:
    """Follow a command, or an attached container, to its end. NeverHappened when it does not end in time."""
    received = {1: b"", 2: b"", 3: b""}
    with _connected(line, url, "v5.channel.k8s.io", within) as channels:
        if stdin:
            channels.send(0, stdin.encode())
            # Version 5 of the protocol can close one channel: the end of the input.
            channels.send(255, b"\x00")
        while not received[3]:
            try:
                channel, data = channels.receive()
            except TimeoutError:
                said = received[1][-200:]
                raise NeverHappened(f"the command did not end within {within:g} s; it said {said!r}") from None
            if channel in received:
                received[channel] += data
    stdout, stderr = (received[channel].decode(errors="replace") for channel in (1, 2))
    return ExecResult(stdout, stderr, _exit_code(json.loads(received[3]), url))


def forward(line: Line, url: str, sent: bytes, until: bytes, within: float) -> bytes:
    """Send to a forwarded port; what came back, up to `until`. NeverHappened when that does not come."""
    answer = trouble = b""
    opened: set[int] = set()
    with _connected(line, url, "v4.channel.k8s.io", within) as channels:
        channels.send(0, sent)
        while until not in answer:
            try:
                channel, data = channels.receive()
            except TimeoutError:
                raise NeverHappened(f"no {until!r} within {within:g} s; {answer!r} was answered") from None
            if channel not in opened:
                opened.add(channel)  # the first word of each channel is the number of the port
            elif channel == 0:
                answer += data
            elif channel == 1 and data:
                trouble += data
                raise NeverHappened(f"the port cannot be forwarded: {trouble.decode(errors='replace')}")
    return answer


class _Channels:
    """Messages on numbered channels, until a deadline."""

    def __init__(self, socket: Any, within: float) -> None:
        self._socket = socket
        self._deadline = monotonic() + within

    def send(self, channel: int, data: bytes) -> None:
        self._socket.send_binary(bytes([channel]) + data)

    def receive(self) -> tuple[int, bytes]:
        """The next message. TimeoutError at the deadline."""
        from websocket import WebSocketTimeoutException

        while True:
            self._socket.settimeout(max(0.01, self._deadline - monotonic()))
            try:
                frame = self._socket.recv()
            except WebSocketTimeoutException as error:
                raise TimeoutError from error
            data = frame.encode() if isinstance(frame, str) else frame
            if data:
                return data[0], data[1:]


@contextmanager
def _connected(line: Line, url: str, protocol: str, within: float) -> Iterator[_Channels]:
    """A connection that is closed when the block ends. SurroundingsError when it is lost before."""
    from websocket import WebSocketException

    socket = _websocket(line, url, protocol, within)
    try:
        yield _Channels(socket, within)
    except (OSError, WebSocketException) as error:
        raise SurroundingsError(f"{line.configuration.host}: lost the connection to a command: {error}") from error
    finally:
        socket.close()


def _websocket(line: Line, url: str, protocol: str, within: float) -> Any:
    import websocket
    from kubernetes.stream import ws_client

    configuration = line.configuration
    named = {"server_hostname": name} if (name := configuration.tls_server_name) else {}
    socket: Any = websocket.WebSocket(sslopt={"context": line.context, **named})  # without types
    headers = {**line.headers, "Sec-WebSocket-Protocol": protocol}
    options: dict[str, Any] = {"header": headers, "timeout": within}
    behind_proxy: Any = ws_client.websocket_proxycare
    try:
        socket.connect(url.replace("http", "ws", 1), **behind_proxy(options, configuration, url, headers))
    except websocket.WebSocketBadStatusException as refused:
        message = (refused.resp_body or b"").decode(errors="replace")
        raise ApiError(refused.status_code, "ExecRefused", message, "EXEC", url.partition("?")[0], {}) from refused
    except (OSError, websocket.WebSocketException) as error:
        raise SurroundingsError(f"{configuration.host}: cannot start a command: {error}") from error
    return socket


def _exit_code(status: dict[str, Any], url: str) -> int:
    if status.get("status") == "Success":
        return 0
    for cause in (status.get("details") or {}).get("causes") or []:
        if cause.get("reason") == "ExitCode":
            return int(cause["message"])
    code, reason, message = status.get("code", 500), status.get("reason", "Unknown"), status.get("message", "")
    raise ApiError(code, reason, message, "EXEC", url.partition("?")[0], {})
