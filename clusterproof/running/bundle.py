"""What to keep when a promise breaks: events, objects, logs and nodes as they were at that moment, capped and redacted.

Collecting never fails: what could not be had is said in its place, because a bundle is made when things go wrong.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import yaml

from clusterproof import kinds
from clusterproof.client import Client
from clusterproof.errors import ApiError, SurroundingsError
from clusterproof.kinds import Kind
from clusterproof.outcome import Attachment
from clusterproof.running.redaction import redacted

LIMIT = 64 * 1024
"""Characters of one attachment."""
TOTAL = 256 * 1024
"""Characters of a whole bundle."""
TAIL = 200
"""Lines of each container's log."""
PODS = 12
"""Pods of a namespace whose logs are read, those in trouble first."""

OBJECTS: tuple[Kind, ...] = (
    kinds.POD,
    kinds.DEPLOYMENT,
    kinds.REPLICA_SET,
    kinds.STATEFUL_SET,
    kinds.DAEMON_SET,
    kinds.JOB,
    kinds.CRON_JOB,
    kinds.HORIZONTAL_POD_AUTOSCALER,
    kinds.SERVICE,
    kinds.ENDPOINT_SLICE,
    kinds.INGRESS,
    kinds.NETWORK_POLICY,
    kinds.PERSISTENT_VOLUME_CLAIM,
    kinds.CONFIG_MAP,
    kinds.SECRET,
    kinds.ROLE,
    kinds.ROLE_BINDING,
)
"""Kinds a promise may be about; one request each for a namespace."""


def collect(namespaces: Iterable[str], client: Client) -> tuple[Attachment, ...]:
    """The evidence of these namespaces and the conditions of all nodes, at most `TOTAL` characters. Never raises."""
    found = [_attachment("nodes", lambda: _nodes(client))]
    for name in namespaces:
        found += _namespace(name, client)
    return tuple(_within(TOTAL, found))


def _namespace(name: str, client: Client) -> Iterator[Attachment]:
    yield _attachment(f"{name}/events", lambda: _events(name, client))
    pods: list[dict[str, Any]] = []
    yield _attachment(f"{name}/objects", lambda: _objects(name, client, pods), "application/yaml")
    for title, path, query in _logs(name, pods):
        yield _attachment(title, functools.partial(_log, path, query, client))


def _attachment(name: str, read: Callable[[], str], media_type: str = "text/plain") -> Attachment:
    try:
        text = read()
    except Exception as problem:  # a bundle is evidence about another failure and must not replace it
        text = f"could not be read: {problem}"
    # Of objects the beginning says more, of logs and events the end, where things went wrong.
    capped = _beginning if media_type == "application/yaml" else _end
    return Attachment(name, media_type, capped(redacted(text)))


def _beginning(text: str) -> str:
    left_out = len(text) - LIMIT
    return text if left_out <= 0 else f"{text[:LIMIT]}\n# {left_out} more characters left out\n"


def _end(text: str) -> str:
    left_out = len(text) - LIMIT
    return text if left_out <= 0 else f"({left_out} characters left out)\n{text[-LIMIT:]}"


def _within(total: int, attachments: list[Attachment]) -> Iterator[Attachment]:
    """Attachments up to a total; those that no longer fit are named in a last one."""
    left_out = []
    for attachment in attachments:
        if len(attachment.text) <= total:
            total -= len(attachment.text)
            yield attachment
        else:
            left_out.append(f"{attachment.name}: {len(attachment.text)} characters")
    if left_out:
        yield Attachment("left out", "text/plain", "\n".join(left_out))


def _events(namespace: str, client: Client) -> str:
    items = client.get(kinds.EVENT.path(namespace))["items"]
    return "\n".join(_event(item) for item in sorted(items, key=_when)) or "none"


def _event(item: dict[str, Any]) -> str:
    about = item.get("involvedObject", {})
    times = item.get("count") or item.get("series", {}).get("count") or 1
    return (
        f"{_when(item)} {item.get('type', '')} {about.get('kind', '?')}/{about.get('name', '?')} "
        f"{item.get('reason', '')}{f' x{times}' if times > 1 else ''}: {' '.join(item.get('message', '').split())}"
    )


def _when(event: dict[str, Any]) -> str:
    """When it was last seen, as RFC 3339; the field depends on which API wrote it."""
    last = (event.get("series") or {}).get("lastObservedTime") or event.get("lastTimestamp") or event.get("eventTime")
    return str(last or event["metadata"].get("creationTimestamp"))


def _objects(namespace: str, client: Client, pods: list[dict[str, Any]]) -> str:
    """All objects of the kinds above as YAML, with a comment for each kind that could not be listed; adds to `pods`."""
    documents: list[str] = []
    for kind in OBJECTS:
        try:
            items = client.get(kind.path(namespace)).get("items") or []
        except (ApiError, SurroundingsError) as problem:
            documents.append(f"# {kind.plural} could not be listed: {' '.join(str(problem).split())}\n")
            continue
        if kind == kinds.POD:
            items.sort(key=_sound)
            pods += items
        documents += [_as_yaml({"apiVersion": kind.api_version, "kind": kind.kind, **item}) for item in items]
    return "".join(documents)


def _as_yaml(item: dict[str, Any]) -> str:
    item.get("metadata", {}).pop("managedFields", None)
    if item["kind"] == "Secret":
        for part in ("data", "stringData"):
            item[part] = {key: f"<{len(value)} characters>" for key, value in (item.get(part) or {}).items()}
        item.get("metadata", {}).get("annotations", {}).pop("kubectl.kubernetes.io/last-applied-configuration", None)
    return "---\n" + yaml.dump(item, sort_keys=False, allow_unicode=True)


def _logs(namespace: str, pods: list[dict[str, Any]]) -> Iterator[tuple[str, str, dict[str, str]]]:
    """Name, path and query of each log worth reading: the current one, and the previous one where there is one."""
    for pod in pods[:PODS]:
        name, status = pod["metadata"]["name"], pod.get("status", {})
        path = kinds.POD.path(namespace, name, "log")
        for container in [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]:
            query = {"container": container["name"], "tailLines": str(TAIL), "limitBytes": str(LIMIT)}
            restarted = bool(container.get("restartCount"))
            if restarted or "waiting" not in container.get("state", {"waiting": {}}):
                yield f"{namespace}/{name}/{container['name']}.log", path, query
            if restarted:
                yield f"{namespace}/{name}/{container['name']}.previous.log", path, {**query, "previous": "true"}


def _sound(pod: dict[str, Any]) -> bool:
    """Whether nothing seems wrong with a pod: it has succeeded, or is ready and was never restarted."""
    status = pod.get("status", {})
    containers = status.get("containerStatuses", [])
    return status.get("phase") == "Succeeded" or (
        status.get("phase") == "Running" and all(c.get("ready") and not c.get("restartCount") for c in containers)
    )


def _log(path: str, query: dict[str, str], client: Client) -> str:
    response = client.request("GET", path, query=query)
    return response.text if response.status < 400 else f"could not be read: {response.status} {response.text}"


def _nodes(client: Client) -> str:
    return "\n".join(_node(item) for item in client.get(kinds.NODE.path())["items"])


def _node(item: dict[str, Any]) -> str:
    """One line for a node and one for each condition, with the reason of those that are not as they should be."""
    spec = item.get("spec", {})
    traits = ["unschedulable"] if spec.get("unschedulable") else []
    traits += [f"{taint['key']}:{taint['effect']}" for taint in spec.get("taints", [])]
    lines = [" ".join([item["metadata"]["name"], *traits])]
    for condition in item.get("status", {}).get("conditions", []):
        expected = condition["status"] == ("True" if condition["type"] == "Ready" else "False")
        why = "" if expected else f" {condition.get('reason', '')}: {condition.get('message', '')}"
        since = condition.get("lastTransitionTime", "?")
        lines.append(f"  {condition['type']}={condition['status']} since {since}{why}")
    return "\n".join(lines)
