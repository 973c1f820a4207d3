"""A small API server in this process: stores, lists, patches and watches objects of every kind; controls nothing.

It answers over real HTTP, so that the client's connections, watches and time limits are really exercised.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qs, urlsplit

import yaml

JSON = dict[str, Any]
NODE: JSON = {
    "apiVersion": "v1",
    "kind": "Node",
    "metadata": {"name": "node-1"},
    "spec": {},
    "status": {
        "conditions": [{"type": "Ready", "status": "True"}],
        "nodeInfo": {
            "kubeletVersion": "v1.37.2",
            "osImage": "os",
            "kernelVersion": "6",
            "containerRuntimeVersion": "c",
        },
    },
}


@dataclass
class FakeApi:
    """The server's state; tests read and change it directly."""

    objects: dict[str, JSON] = field(default_factory=dict)
    """By path."""
    history: list[tuple[int, str, str, JSON]] = field(default_factory=list)
    """Every change: version, event type, path, object."""
    version: int = 100
    oldest: int = 0
    """Watches from before this version get 410."""
    initial_events: Literal["told", "refused", "endless"] = "told"
    """What becomes of a watch that asks for the objects there are: `endless` lacks the bookmark after them."""
    git_version: str = "v1.37.2"
    denied: set[tuple[str, str]] = field(default_factory=set)
    """(verb, resource) that access reviews refuse."""
    requests: list[str] = field(default_factory=list)
    """`METHOD path?query` of every request."""
    overrides: dict[str, Callable[[BaseHTTPRequestHandler], bool]] = field(default_factory=dict)
    """By `METHOD path`: answers in place of the server when it returns True."""
    token: str = ""
    """The only one that is let in; empty for everybody."""
    url: str = ""
    changed: threading.Condition = field(default_factory=threading.Condition)

    def put(self, path: str, raw: JSON) -> JSON:
        """Create or change an object."""
        with self.changed:
            known = self.objects.get(path)
            self.version += 1
            metadata = {**raw["metadata"], "resourceVersion": str(self.version)}
            metadata["uid"] = known["metadata"]["uid"] if known else f"uid-{self.version}"
            if "/namespaces/" in path and not path.startswith("/api/v1/namespaces/" + metadata["name"]):
                metadata["namespace"] = path.split("/namespaces/")[1].split("/")[0]
            stored = {**raw, "metadata": metadata}
            self.objects[path] = stored
            self._tell("MODIFIED" if known else "ADDED", path, stored)
        return stored

    def remove(self, path: str) -> JSON:
        """Delete an object, and what lives in it if it is a namespace."""
        with self.changed:
            for inner in [key for key in self.objects if key.startswith(path + "/")]:
                self.remove(inner)
            self.version += 1
            gone = self.objects.pop(path)
            gone = {**gone, "metadata": {**gone["metadata"], "resourceVersion": str(self.version)}}
            self._tell("DELETED", path, gone)
        return gone

    def _tell(self, event: str, path: str, raw: JSON) -> None:
        self.history.append((self.version, event, path, raw))
        self.changed.notify_all()

    def discovers(self, root: str, *groups: JSON) -> None:
        """Have `/api` or `/apis` tell of these groups, each made by `group`."""

        def answer(handler: Any) -> bool:
            handler.answer(200, {"kind": "APIGroupDiscoveryList", "items": list(groups)})
            return True

        self.overrides[f"GET {root}"] = answer

    def kubeconfig(self, path: Path, **user: Any) -> Path:
        """Write a kubeconfig with one context, `fake`."""
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "fake",
            "clusters": [{"name": "fake", "cluster": {"server": self.url}}],
            "users": [{"name": "user", "user": user}],
            "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "user"}}],
        }
        path.write_text(yaml.safe_dump(document))
        return path


def resource(plural: str, kind: str, *, namespaced: bool = False, verbs: tuple[str, ...] = ("list", "delete")) -> JSON:
    """A resource, as aggregated discovery tells of it."""
    scope = "Namespaced" if namespaced else "Cluster"
    return {"resource": plural, "responseKind": {"kind": kind}, "scope": scope, "verbs": list(verbs)}


def group(name: str, *versions: tuple[str, list[JSON]]) -> JSON:
    """An API group with the resources of its versions, as aggregated discovery tells of it."""
    served = [{"version": version, "resources": resources} for version, resources in versions]
    return {"metadata": {"name": name}, "versions": served}


@contextlib.contextmanager
def serve(api: FakeApi) -> Iterator[FakeApi]:
    """Serve it on a free port until the block ends."""

    class Handler(_Handler):
        fake = api

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    api.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield api
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    fake: FakeApi

    def do_GET(self) -> None:
        self._serve()

    do_POST = do_PUT = do_PATCH = do_DELETE = do_GET

    def log_message(self, *args: Any) -> None:
        """Say nothing."""

    def _serve(self) -> None:
        address = urlsplit(self.path)
        self.query = {key: values[0] for key, values in parse_qs(address.query).items()}
        self.fake.requests.append(f"{self.command} {self.path}")
        length = int(self.headers.get("Content-Length") or 0)
        self.body = json.loads(self.rfile.read(length) or "null")
        if self.fake.token and self.headers.get("authorization") != f"Bearer {self.fake.token}":
            self.fail(401, "Unauthorized")
            return
        override = self.fake.overrides.get(f"{self.command} {address.path}")
        if override is None or not override(self):
            getattr(self, f"_{self.command.lower()}")(address.path)

    def answer(self, status: int, value: JSON, **headers: str) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        for name, content in {"Content-Type": "application/json", "Content-Length": str(len(data)), **headers}.items():
            self.send_header(name.replace("_", "-"), content)
        self.end_headers()
        self.wfile.write(data)

    def fail(self, status: int, reason: str, message: str = "") -> None:
        body = {"kind": "Status", "code": status, "reason": reason, "message": message or reason.lower()}
        self.answer(status, body)

    def _get(self, path: str) -> None:
        fixed: dict[str, JSON] = {
            "/version": {"gitVersion": self.fake.git_version},
            "/apis": {"kind": "APIGroupDiscoveryList", "groups": [], "items": []},
            "/api": {"kind": "APIGroupDiscoveryList", "items": []},
        }
        if path in fixed:
            self.answer(200, fixed[path])
        elif "watch" in self.query:
            self._watch(path)
        elif path in self.fake.objects:
            self.answer(200, self.fake.objects[path])
        elif path.count("/") == 5 or (path.endswith("s") and not path.startswith("/api/v1/namespaces/")):
            items, version = self._stored(path)
            self.answer(200, {"kind": "List", "metadata": {"resourceVersion": str(version)}, "items": items})
        else:
            self.fail(404, "NotFound")

    def _post(self, path: str) -> None:
        if path.endswith("selfsubjectaccessreviews"):
            asked = self.body["spec"]["resourceAttributes"]
            resource = "/".join(filter(None, (asked["resource"], asked.get("subresource"))))
            allowed = (
                not self.fake.denied if asked["verb"] == "*" else (asked["verb"], resource) not in self.fake.denied
            )
            self.answer(201, {"status": {"allowed": allowed}})
            return
        name = self.body["metadata"]["name"]
        target = f"{path}/{name}"
        if target in self.fake.objects:
            self.fail(409, "AlreadyExists")
            return
        self.answer(201, self.fake.put(target, self.body))
        if path == "/api/v1/namespaces":
            account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
            self.fake.put(f"{target}/serviceaccounts/default", account)

    def _put(self, path: str) -> None:
        self.answer(200, self.fake.put(path, self.body))

    def _patch(self, path: str) -> None:
        if path not in self.fake.objects:
            self.fail(404, "NotFound")
            return
        self.answer(200, self.fake.put(path, _merged(self.fake.objects[path], self.body)))

    def _delete(self, path: str) -> None:
        if path not in self.fake.objects:
            self.fail(404, "NotFound")
            return
        self.answer(200, self.fake.remove(path))

    def _watch(self, path: str) -> None:
        begins_with_all = "sendInitialEvents" in self.query
        if begins_with_all and self.fake.initial_events == "refused":
            self.fail(422, "Invalid", "sendInitialEvents: Forbidden: sendInitialEvents is forbidden for watch")
            return
        since = int(self.query.get("resourceVersion", self.fake.version))
        end = time.monotonic() + float(self.query["timeoutSeconds"])
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        if since < self.fake.oldest:
            gone = {"code": 410, "reason": "Expired", "message": "too old"}
            self._chunk({"type": "ERROR", "object": gone})
            self._chunk(None)
            return
        if begins_with_all:
            since = self._tell_of_all(path)
        while (left := end - time.monotonic()) > 0:
            with self.fake.changed:
                news = [
                    each for each in self.fake.history if each[0] > since and self._selected(path, each[2], each[3])
                ]
                since = self.fake.version
                if not news:
                    self.fake.changed.wait(min(left, 0.2))
            try:
                for _, event, _, raw in news:
                    self._chunk({"type": event, "object": raw})
            except OSError:
                return
        self._chunk(None)

    def _stored(self, path: str) -> tuple[list[JSON], int]:
        with self.fake.changed:
            items = [raw for key, raw in sorted(self.fake.objects.items()) if self._selected(path, key, raw)]
            return items, self.fake.version

    def _tell_of_all(self, path: str) -> int:
        items, version = self._stored(path)
        for raw in items:
            self._chunk({"type": "ADDED", "object": raw})
        if self.fake.initial_events == "told":
            metadata = {"resourceVersion": str(version), "annotations": {"k8s.io/initial-events-end": "true"}}
            self._chunk({"type": "BOOKMARK", "object": {"metadata": metadata}})
        return version

    def _chunk(self, value: JSON | None) -> None:
        data = b"" if value is None else json.dumps(value).encode() + b"\n"
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
            self.wfile.flush()

    def _selected(self, collection: str, key: str, raw: JSON) -> bool:
        folder, _, name = key.rpartition("/")
        everywhere = "/namespaces/" in folder and "/namespaces/" not in collection
        if everywhere:
            base, _, rest = folder.partition("/namespaces/")
            folder = f"{base}/{rest.split('/', 1)[1]}"
        wanted = dict(pair.split("=") for pair in filter(None, self.query.get("labelSelector", "").split(",")))
        labels = raw["metadata"].get("labels") or {}
        field = self.query.get("fieldSelector", "")
        return (
            folder == collection
            and all(labels.get(each) == value for each, value in wanted.items())
            and (not field.startswith("metadata.name=") or field == f"metadata.name={name}")
        )


def _merged(old: Any, new: Any) -> Any:
    """JSON merge patch."""
    if not isinstance(old, dict) or not isinstance(new, dict):
        return new
    merged = {**old, **{key: _merged(old.get(key), value) for key, value in new.items()}}
    return {key: value for key, value in merged.items() if value is not None}
