"""What a run leaves behind: all objects of all kinds before and after it, and the sweep that removes what is left.

Only metadata is read, a page at a time, so a ledger of a big cluster costs requests but little memory.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from clusterproof import discovery, kinds
from clusterproof.client import Client
from clusterproof.conditions import gone
from clusterproof.errors import ApiError, NeverHappened
from clusterproof.hollow import PREFIX as HOLLOW
from clusterproof.kinds import Kind
from clusterproof.namespace import RUN_LABEL, end_pods
from clusterproof.objects import Object, Selection
from clusterproof.wait import eventually

PAGE = 500
"""Objects in one answer."""

_METADATA = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"

UNCOUNTED = {
    # Reports of what happened; the server removes them after an hour.
    ("", "Event"),
    ("events.k8s.io", "Event"),
    # Heartbeats: nodes and leaders come and go, and renew them every few seconds.
    ("coordination.k8s.io", "Lease"),
    # Computed when asked for, and stored nowhere.
    ("", "ComponentStatus"),
    ("metrics.k8s.io", "NodeMetrics"),
    ("metrics.k8s.io", "PodMetrics"),
}
"""Kinds that say nothing about what a run left, as (group, kind)."""

_FIRST = ("ValidatingWebhookConfiguration", "MutatingWebhookConfiguration", "APIService")
"""Removed before all else: when what they point to is gone, they hold up the removal of everything else."""

_REMAINING = ("NamespaceContentRemaining", "NamespaceFinalizersRemaining", "NamespaceDeletionDiscoveryFailure")
"""Conditions by which a namespace says why it is still there."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One object, as far as the ledger is concerned."""

    kind: Kind
    namespace: str
    """Empty for a cluster-scoped object."""
    name: str
    uid: str
    run: str = ""
    """Value of the run label; empty without."""
    claimed_from: str = ""
    """Namespace of the claim that a PersistentVolume belongs to."""
    retained: bool = False
    """A PersistentVolume that nobody removes when its claim is gone."""
    finalizers: tuple[str, ...] = ()

    @property
    def held(self) -> bool:
        """Whether a promise holds it, which nobody else will let go."""
        return any(map(_is_ours, self.finalizers))

    @property
    def places(self) -> set[str]:
        """Names of the namespaces that it is, is in, or was claimed from."""
        named = {self.name} if self.kind == kinds.NAMESPACE else set()
        return (named | {self.namespace, self.claimed_from}) - {""}

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace + '/' if self.namespace else ''}{self.name}"


@dataclass(frozen=True, slots=True)
class Ledger:
    """All objects of a cluster at one time."""

    entries: dict[str, Entry]
    """By uid: the same object may be served by several API groups."""
    unread: dict[str, str] = field(default_factory=dict)
    """Kinds that could not be listed, and why; nothing is known about their objects."""


@dataclass(frozen=True, slots=True)
class Leaks:
    """The difference between two ledgers."""

    ours: tuple[str, ...]
    """Objects of the run that are still there: `PersistentVolume pvc-1`."""
    appeared: tuple[str, ...]
    """Objects that are new but not known to be the run's: others work on the cluster too, so this only informs."""


@dataclass(frozen=True, slots=True)
class Swept:
    """What a sweep came to."""

    removed: tuple[str, ...]
    stuck: tuple[str, ...]
    """Objects that are still there, each with what holds it."""


def snapshot(client: Client) -> Ledger:
    """All objects of all kinds that the API serves, aggregated ones and cluster-scoped ones included."""
    return _read(client, kinds_of(client), "")


def run_objects(client: Client, run_id: str = "") -> list[Entry]:
    """Objects that carry the label of a run, or of any run when none is named."""
    return list(_read(client, kinds_of(client), f"{RUN_LABEL}={run_id}" if run_id else RUN_LABEL).entries.values())


def compare(before: Ledger, after: Ledger, run_id: str, namespaces: Iterable[str] = ()) -> Leaks:
    """What is still there of a run, and what else is new.

    `namespaces` are names of the run's namespaces that may be gone by now: volumes that were claimed from them are its.
    """
    ours = left(after, run_id, [*namespaces, *_namespaces(before, run_id)])
    appeared = (
        str(entry)
        for uid, entry in after.entries.items()
        if uid not in before.entries and str(entry.kind) not in before.unread
    )
    return Leaks(ours, tuple(sorted(set(appeared) - set(ours))))


def left(ledger: Ledger, run_id: str, namespaces: Iterable[str] = (), spare: Iterable[str] = ()) -> tuple[str, ...]:
    """What is still there of a run, as `compare` finds it: the labels on objects tell without a ledger of before.

    The namespaces to `spare` stay on purpose, with what is in them.
    """
    spared = set(spare)
    ours_too = {*namespaces, *_namespaces(ledger, run_id)}
    ours = (
        str(entry)
        for entry in ledger.entries.values()
        if (entry.run == run_id or not ours_too.isdisjoint(entry.places)) and spared.isdisjoint(entry.places)
    )
    return tuple(sorted(ours))


def remains(
    client: Client, served: Iterable[Kind], run_id: str, namespaces: Iterable[str], spare: Iterable[str] = ()
) -> tuple[str, ...]:
    """What is still there of a run that created objects of these kinds, if its namespaces are gone but for some.

    All that was in them went with them, but for volumes that were claimed from there.
    """
    volumes = _read(client, [kinds.PERSISTENT_VOLUME], "")
    labelled = _read(client, served, f"{RUN_LABEL}={run_id}")
    return left(Ledger({**labelled.entries, **volumes.entries}), run_id, namespaces, spare)


def await_volumes(client: Client, namespaces: Iterable[str], *, within: float) -> None:
    """Wait at most `within` seconds for volumes that were claimed from these namespaces, which have gone, to go too.

    Their provisioners come to them a moment later; clouds need minutes. Retained ones are not waited for.
    """
    claimed_from = set(namespaces)

    def gone_too(volumes: list[Object]) -> str | None:
        found = (_entry(kinds.PERSISTENT_VOLUME, volume.raw) for volume in volumes)
        going = [each for each in found if each.claimed_from in claimed_from and not each.retained]
        return f"{len(going)} are still there" if going else None

    with contextlib.suppress(NeverHappened):
        eventually(Selection(client, kinds.PERSISTENT_VOLUME), gone_too, within=within)


def sweep(client: Client, run_id: str = "", *, within: float = 120.0, spare: Iterable[str] = ()) -> Swept:
    """Remove every object that carries the label of a run, or of any run, and wait at most `within` seconds in all.

    Namespaces take their contents with them; volumes that were claimed from them go too, retained ones included. What a
    killed promise holds with a finalizer of ours is released. The namespaces to `spare` stay as they are.
    """
    deadline, spared = time.monotonic() + within, set(spare)
    found = [
        entry
        for entry in run_objects(client, run_id)
        if entry.namespace not in spared and not (entry.kind == kinds.NAMESPACE and entry.name in spared)
    ]
    spaces = {entry.name for entry in found if entry.kind == kinds.NAMESPACE}
    volumes = [volume for volume in _list(client, kinds.PERSISTENT_VOLUME, "") if volume.claimed_from in spaces]
    # Nodes with a machine behind them are not ours to remove, whatever they are labelled with.
    doomed = [entry for entry in found if entry.namespace not in spaces and not _is_machine(entry)]
    doomed.sort(key=lambda entry: entry.kind.kind not in _FIRST)
    troubles = {entry: _remove(client, entry) for entry in doomed}
    for space in spaces:
        end_pods(client, space)
    troubles |= {entry: trouble for entry in found if entry.held and (trouble := _release(client, entry))}
    troubles = {entry: trouble or _awaited(client, entry, deadline) for entry, trouble in troubles.items()}
    # Only now: a claim protects its volume. One that is not retained is its provisioner's to remove, with its data.
    troubles |= {volume: _remove(client, volume) if volume.retained else "" for volume in volumes}
    troubles |= {volume: troubles[volume] or _awaited(client, volume, deadline) for volume in volumes}
    removed = tuple(str(entry) for entry, trouble in troubles.items() if not trouble)
    return Swept(removed, tuple(f"{entry}: {trouble}" for entry, trouble in troubles.items() if trouble))


def kinds_of(client: Client) -> list[Kind]:
    """Every kind whose objects can be listed, once, at the version the server prefers."""
    served: dict[tuple[str, str], Kind] = {}
    for api_version, resource in discovery.resources(discovery.groups(client)):
        if "list" in resource["verbs"]:
            namespaced = resource["scope"] == "Namespaced"
            kind = Kind(api_version, resource["responseKind"]["kind"], resource["resource"], namespaced)
            served.setdefault((kind.group, kind.plural), kind)
    return [kind for kind in served.values() if (kind.group, kind.kind) not in UNCOUNTED]


def _read(client: Client, served: Iterable[Kind], selector: str) -> Ledger:
    entries: dict[str, Entry] = {}
    unread: dict[str, str] = {}
    for kind in served:
        try:
            found = list(_list(client, kind, selector))
        except ApiError as refused:
            unread[str(kind)] = f"{refused.status} {refused.message}"
            continue
        for entry in found:
            entries.setdefault(entry.uid, entry)
    return Ledger(entries, unread)


def _is_machine(entry: Entry) -> bool:
    return entry.kind == kinds.NODE and not entry.name.startswith(HOLLOW)


def _list(client: Client, kind: Kind, selector: str) -> Iterator[Entry]:
    # Of volumes the spec is wanted, which says where they were claimed from; of all else the metadata suffices.
    accept = "application/json" if kind == kinds.PERSISTENT_VOLUME else f"{_METADATA},application/json"
    for item in _items(client, kind.path(), selector, accept):
        if "uid" in item["metadata"]:  # what has none is computed, not stored
            yield _entry(kind, item)


def _entry(kind: Kind, item: dict[str, Any]) -> Entry:
    metadata = item["metadata"]
    volume = (item.get("spec") or {}) if kind == kinds.PERSISTENT_VOLUME else {}
    return Entry(
        kind,
        metadata.get("namespace", ""),
        metadata["name"],
        metadata["uid"],
        (metadata.get("labels") or {}).get(RUN_LABEL, ""),
        (volume.get("claimRef") or {}).get("namespace", ""),
        volume.get("persistentVolumeReclaimPolicy") == "Retain",
        tuple(metadata.get("finalizers") or ()),
    )


def _items(client: Client, path: str, selector: str, accept: str) -> Iterator[dict[str, Any]]:
    """Items of a collection, page by page; all at once where a page came too late to be continued."""
    query: dict[str, Any] = {"limit": PAGE, **({"labelSelector": selector} if selector else {})}
    while True:
        answer = client.request("GET", path, query=query, accept=accept)
        if answer.status == 410 and "continue" in query:
            query = {key: value for key, value in query.items() if key == "labelSelector"}
            continue
        if answer.status >= 400:
            raise ApiError(answer.status, "ListRefused", answer.text.strip()[:300], "GET", path, {})
        page = answer.json()
        yield from page.get("items") or []
        if not (more := page["metadata"].get("continue")):
            return
        query["continue"] = more


def _namespaces(ledger: Ledger, run_id: str) -> set[str]:
    return {entry.name for entry in ledger.entries.values() if entry.kind == kinds.NAMESPACE and entry.run == run_id}


def _remove(client: Client, entry: Entry) -> str:
    """Ask for its removal; what hinders it, or nothing."""
    try:
        Object(client, entry.kind, entry.name, entry.namespace).delete()
    except ApiError as refused:
        return "" if refused.status == 404 else str(refused)
    return ""


def _release(client: Client, entry: Entry) -> str:
    """Let go what a promise holds; what hinders it, or nothing."""
    others = [name for name in entry.finalizers if not _is_ours(name)]
    try:
        Object(client, entry.kind, entry.name, entry.namespace).patch({"metadata": {"finalizers": others}})
    except ApiError as refused:
        return "" if refused.status == 404 else str(refused)
    return ""


def _is_ours(finalizer: str) -> bool:
    return finalizer.startswith("clusterproof.dev/")


def _awaited(client: Client, entry: Entry, deadline: float) -> str:
    """Wait until it is gone; what holds it, or nothing."""
    thing = Object(client, entry.kind, entry.name, entry.namespace)
    try:
        eventually(thing, gone, within=max(0.1, deadline - time.monotonic()))
    except NeverHappened:
        return f"still there; {_holder(thing)}"
    except ApiError as refused:  # 404: its kind is gone too
        return "" if refused.status == 404 else str(refused)
    return ""


def _holder(thing: Object) -> str:
    """What holds an object whose removal was asked for: finalizers, and what a namespace reports about its contents."""
    said = [found["message"] for found in map(thing.condition, _REMAINING) if found.get("status") == "True"]
    if held := thing.metadata.get("finalizers"):
        said.insert(0, f"held by {', '.join(held)}")
    return "; ".join(said) or "nothing says what holds it"
