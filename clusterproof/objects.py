"""Objects and selections of objects, as handles: they know where they live and what was last seen of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clusterproof import kinds
from clusterproof.client import Client, ExecResult, Response
from clusterproof.errors import ApiError
from clusterproof.kinds import Kind

PATCH_TYPES = {
    "merge": "application/merge-patch+json",
    "json": "application/json-patch+json",
    "strategic": "application/strategic-merge-patch+json",
    "apply": "application/apply-patch+yaml",
}
MANAGER = "clusterproof"
"""Field manager of everything the suites write."""


class Object:
    """One object of the cluster. Reading an attribute never makes a request; `read()` does."""

    def __init__(self, client: Client, kind: Kind, name: str, namespace: str = "", raw: dict[str, Any] | None = None):
        self.client = client
        self.kind = kind
        self.name = name
        self.namespace = namespace
        self.raw: dict[str, Any] = raw or {}
        """As the server last sent it; empty when it was never read, or does not exist any more."""
        self.last_word = False
        """`raw` is the answer to our own last write: a wait may start from it without reading."""

    @classmethod
    def of(cls, client: Client, raw: dict[str, Any], kind: Kind | None = None) -> Object:
        """The object that a server's answer describes."""
        metadata = raw["metadata"]
        return cls(client, kind or kinds.of(raw), metadata["name"], metadata.get("namespace", ""), raw)

    @property
    def metadata(self) -> dict[str, Any]:
        return self.raw.get("metadata") or {}

    @property
    def uid(self) -> str:
        return str(self.metadata.get("uid", ""))

    @property
    def labels(self) -> dict[str, str]:
        return self.metadata.get("labels") or {}

    @property
    def annotations(self) -> dict[str, str]:
        return self.metadata.get("annotations") or {}

    @property
    def generation(self) -> int:
        return int(self.metadata.get("generation", 0))

    @property
    def resource_version(self) -> str:
        return str(self.metadata.get("resourceVersion", ""))

    @property
    def deleting(self) -> bool:
        """Deletion was asked for and waits for finalizers or the grace period."""
        return "deletionTimestamp" in self.metadata

    @property
    def spec(self) -> dict[str, Any]:
        return self.raw.get("spec") or {}

    @property
    def status(self) -> dict[str, Any]:
        return self.raw.get("status") or {}

    @property
    def path(self) -> str:
        """Path of the object at the API server."""
        return self.kind.path(self.namespace, self.name)

    def __getitem__(self, key: str) -> Any:
        return self.raw[key]

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace + '/' if self.namespace else ''}{self.name}"

    def __repr__(self) -> str:
        return f"<{self}>"

    def condition(self, type: str) -> dict[str, Any]:
        """The status condition of a type; empty when there is none."""
        found: list[dict[str, Any]] = [c for c in self.status.get("conditions") or [] if c.get("type") == type]
        return found[0] if found else {}

    def read(self) -> Object:
        """Read it again; ApiError with status 404 when it does not exist."""
        return self._take(self.client.get(self.path), last_word=False)

    def exists(self) -> bool:
        """Whether it exists now; reads it again."""
        try:
            self.read()
        except ApiError as error:
            if error.status != 404:
                raise
            self.raw = {}
        return bool(self.raw)

    def patch(
        self,
        body: Any,
        *,
        type: str = "merge",
        subresource: str = "",
        query: Mapping[str, Any] | None = None,
    ) -> Object:
        """Change it in place: `type` is merge, json, strategic or apply (server-side apply)."""
        path = self.kind.path(self.namespace, self.name, subresource)
        answer = self.client.patch(
            path, body, {"fieldManager": MANAGER, **(query or {})}, content_type=PATCH_TYPES[type]
        )
        return self._wrote(answer)

    def replace(self, body: dict[str, Any], *, subresource: str = "") -> Object:
        """Write it whole; a stale resourceVersion in `body` is refused with status 409."""
        return self._wrote(self.client.put(self.kind.path(self.namespace, self.name, subresource), body))

    def scale(self, replicas: int) -> Object:
        """Set the number of replicas through the scale subresource."""
        return self.patch({"spec": {"replicas": replicas}}, subresource="scale")

    def set_image(self, image: str) -> Object:
        """Give the container `main` of a workload's template another image, as `kubectl set image` does."""
        containers = [{"name": "main", "image": image}]
        return self.patch({"spec": {"template": {"spec": {"containers": containers}}}}, type="strategic")

    def delete(self, *, grace: int | None = None, propagation: str = "Background") -> Object:
        """Ask for its deletion and return at once. `grace` in seconds; propagation as in DeleteOptions."""
        options: dict[str, Any] = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": propagation}
        if grace is not None:
            options["gracePeriodSeconds"] = grace
        self.client.delete(self.path, options)
        # The answer may carry the version of the removal itself, and a watch from there would never see it.
        self.last_word = False
        return self

    def evict(self) -> Response:
        """Ask for a pod's eviction; the answer whatever its status: 201 when it ends, 429 while a budget forbids it."""
        eviction = {"apiVersion": "policy/v1", "kind": "Eviction"}
        metadata = {"name": self.name, "namespace": self.namespace}
        path = self.kind.path(self.namespace, self.name, "eviction")
        return self.client.request("POST", path, body={**eviction, "metadata": metadata})

    def pods(self) -> Selection:
        """The pods that its selector selects."""
        return Selection(self.client, kinds.POD, self.namespace, selector_of(self.spec.get("selector") or {}))

    def logs(
        self,
        container: str = "",
        *,
        previous: bool = False,
        timestamps: bool = False,
        tail: int | None = None,
        since: float | None = None,
    ) -> str:
        """What a pod's container printed so far; `previous` is the one before its last restart.

        Only its last `tail` lines, and what it printed in the last `since` seconds, where these are given. With
        `timestamps` each line begins with the moment at which it was printed.
        """
        query: dict[str, Any] = {"previous": previous, "timestamps": timestamps}
        if container:
            query["container"] = container
        if tail is not None:
            query["tailLines"] = tail
        if since is not None:
            query["sinceSeconds"] = math.ceil(since)
        return self.client.get_text(self.kind.path(self.namespace, self.name, "log"), query)

    def exec(
        self,
        command: Sequence[str],
        *,
        container: str = "",
        stdin: str = "",
        tty: bool = False,
        within: float = 60.0,
    ) -> ExecResult:
        """Run a command in a pod's container, with a terminal where `tty`; its exit code is part of the result."""
        path = self.kind.path(self.namespace, self.name, "exec")
        return self.client.exec(path, command, container=container, stdin=stdin, tty=tty, within=within)

    def attach(self, stdin: str, *, container: str = "", within: float = 60.0) -> ExecResult:
        """Speak to a container that reads its input, and hear what it says from then on until it ends."""
        path = self.kind.path(self.namespace, self.name, "attach")
        return self.client.exec(path, [], container=container, stdin=stdin, within=within)

    def forward(self, port: int, sent: bytes, *, until: bytes, within: float = 60.0) -> bytes:
        """Send to a port of a pod, as `kubectl port-forward` does; the answer, up to and with `until`."""
        path = self.kind.path(self.namespace, self.name, "portforward")
        return self.client.forward(path, port, sent, until=until, within=within)

    def proxy(self, path: str = "/", port: int | str = 80, *, method: str = "GET", body: Any = None) -> Response:
        """A request to a pod or Service through the API server's proxy."""
        target = self.kind.path(self.namespace, f"{self.name}:{port}", "proxy") + path
        return self.client.request(method, target, body=body, accept="*/*")

    def events(self) -> list[str]:
        """What the cluster's components reported about it, oldest first: `Warning FailedScheduling: 0/2 nodes ...`."""
        fields = f"involvedObject.kind={self.kind},involvedObject.name={self.name}"
        found = self.client.get(kinds.EVENT.path(self.namespace), {"fieldSelector": fields})["items"]
        found.sort(key=lambda event: event.get("lastTimestamp") or event.get("eventTime") or "")
        return [f"{event.get('type')} {event.get('reason')}: {event.get('message')}" for event in found]

    def _wrote(self, answer: dict[str, Any]) -> Object:
        # A subresource may answer with another kind (Scale); that says nothing about the object itself.
        if answer.get("kind") == self.kind.kind:
            return self._take(answer, last_word=True)
        self.last_word = False
        return self

    def _take(self, raw: dict[str, Any], *, last_word: bool) -> Object:
        self.raw, self.last_word = raw, last_word
        return self


@dataclass(frozen=True, slots=True)
class Selection:
    """All objects of a kind that match: a list that can be read, and waited for."""

    client: Client
    kind: Kind
    namespace: str = ""
    """Empty for all namespaces."""
    labels: str = ""
    """Label selector, as in `kubectl -l`."""
    fields: str = ""
    """Field selector."""

    @property
    def path(self) -> str:
        """Path of the collection."""
        return self.kind.path(self.namespace)

    @property
    def query(self) -> dict[str, str]:
        """The selectors as a query."""
        chosen = {"labelSelector": self.labels, "fieldSelector": self.fields}
        return {key: value for key, value in chosen.items() if value}

    def read(self) -> list[Object]:
        """The objects as they are now, by name."""
        return self.objects(self.client.get(self.path, self.query)["items"])

    def objects(self, raw: list[dict[str, Any]]) -> list[Object]:
        """Raw objects of this selection as objects, by name."""
        return sorted((Object.of(self.client, item, self.kind) for item in raw), key=lambda found: found.name)

    def __str__(self) -> str:
        where = f" in {self.namespace}" if self.namespace else ""
        chosen = ",".join(filter(None, (self.labels, self.fields)))
        return f"{self.kind.plural}{where}{' with ' + chosen if chosen else ''}"


def selector_of(selector: Mapping[str, Any]) -> str:
    """A label selector object, or a Service's plain map of labels, as text; ValueError when it selects nothing."""
    plain = selector.get("matchLabels", {}) if {"matchLabels", "matchExpressions"} & selector.keys() else selector
    parts = [f"{key}={value}" for key, value in plain.items()]
    for rule in selector.get("matchExpressions") or []:
        key, values = rule["key"], f"({','.join(rule.get('values') or [])})"
        parts.append(
            {"In": f"{key} in {values}", "NotIn": f"{key} notin {values}", "Exists": key}.get(
                rule["operator"], f"!{key}"
            )
        )
    if not parts:
        raise ValueError("no selector: the object was not read yet, or it has none")
    return ",".join(parts)
