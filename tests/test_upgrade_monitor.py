"""The monitor's writer at a server that carries out a write when nobody waits for it any more."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from clusterproof.upgrade import monitor
from kubernetes.client import Configuration

from clusterproof.client import Client


class Store:
    """One ConfigMap, and every number that it ever held."""

    def __init__(self) -> None:
        self.version = 1
        self.told = [0]
        self.hold = threading.Event()
        """Set: the next write waits for `release`."""
        self.release = threading.Event()
        self.lock = threading.Lock()

    def object(self) -> dict[str, Any]:
        return {"metadata": {"resourceVersion": str(self.version)}, "data": {"number": str(self.told[-1])}}

    def write(self, body: dict[str, Any]) -> int:
        if self.hold.is_set():
            self.hold.clear()
            assert self.release.wait(30)
        with self.lock:
            if body["metadata"]["resourceVersion"] != str(self.version):
                return 409
            self.version += 1
            self.told.append(int(body["data"]["number"]))
            return 200


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def client(store: Store) -> Iterator[Client]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(200)

        def do_PATCH(self) -> None:
            self._answer(store.write(json.loads(self.rfile.read(int(self.headers["Content-Length"])))))

        def log_message(self, *_: Any) -> None:
            """Nothing is logged."""

        def _answer(self, status: int) -> None:
            content = json.dumps(store.object()).encode()
            try:
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)
            except ConnectionError:
                pass  # whoever asked has given up

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    configuration = Configuration()
    configuration.host, configuration.proxy = f"http://127.0.0.1:{server.server_port}", None
    yield Client(configuration)
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_write_that_is_carried_out_late_is_refused(
    store: Store, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitor, "WITHIN", 0.5)
    writer = monitor._Writer(client, "/beat")
    assert [writer.ask() for _ in range(3)] == ["", "", ""]
    assert store.told == [0, 1, 2]

    store.hold.set()
    assert writer.ask() == "no answer in time"
    assert [writer.ask() for _ in range(3)] == ["", "", ""]
    store.release.set()
    assert [writer.ask() for _ in range(3)] == ["", "", ""]

    assert store.told == sorted(set(store.told)), "a number was told again, or out of order"
    assert store.told[-1] >= 5
