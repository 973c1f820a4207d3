"""Namespaces that somebody lends to a run, for whoever may not make any: one promise at a time uses each."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from clusterproof import discovery, kinds
from clusterproof.conditions import gone
from clusterproof.errors import ApiError, NeverHappened, SurroundingsError
from clusterproof.kinds import Kind
from clusterproof.namespace import RUN_LABEL, Namespace
from clusterproof.objects import Object, Selection
from clusterproof.wait import eventually

if TYPE_CHECKING:
    from clusterproof.cluster import Cluster
    from clusterproof.running.run import RunFolder

ENFORCE = "pod-security.kubernetes.io/enforce"
_PATIENCE = 600.0
"""Seconds for others to be done with a namespace; a promise may take minutes."""
_spoiled: list[FileLock] = []
"""Locks of namespaces that could not be emptied, held until this process ends."""


def enforces(cluster: Cluster, name: str) -> str:
    """Which Pod Security level a namespace says that it enforces; empty where it says nothing, or may not be read."""
    try:
        return str(cluster.get(kinds.NAMESPACE, name).labels.get(ENFORCE, ""))
    except ApiError as refused:
        if refused.status != 403:
            raise SurroundingsError(f"--namespaces: {refused}") from refused
        return ""


def borrow(cluster: Cluster, run: RunFolder, names: Sequence[str]) -> tuple[Namespace, FileLock]:
    """The first of these that no other promise uses; SurroundingsError when none gets free."""
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end:
        for name in names:
            lock = run.locked(f"lent-{name}")
            try:
                # The last one is waited for a little: this is also the pause between two rounds.
                lock.acquire(timeout=0.5 if name == names[-1] else 0)
            except Timeout:
                continue
            return Namespace(name, cluster, cluster.client), lock
    raise SurroundingsError(f"none of the namespaces {', '.join(names)} of --namespaces got free in {_PATIENCE:g} s")


def give_back(namespace: Namespace, lock: FileLock) -> None:
    """Remove what the run made there, by its label, with what belongs to it; its lender's objects stay.

    SurroundingsError when something of it does not go; the namespace is then lent to no other promise of the run.
    """
    try:
        empty(namespace)
    except BaseException:
        _spoiled.append(lock)
        raise
    lock.release()


def empty(namespace: Namespace) -> None:
    """Remove everything in a namespace that carries the run's label, and wait until it has gone.

    SurroundingsError names the first object that does not go, and what was answered to its removal.
    """
    mine = [each for kind in _kinds(namespace) for each in _labelled(namespace, kind)]
    refusals = {each: _remove(each) for each in mine if not _follows(each)}
    deadline = time.monotonic() + namespace.cluster.settings.timeouts.namespace
    for each in mine:
        try:
            eventually(each, gone, within=max(0.1, deadline - time.monotonic()))
        except NeverHappened as error:
            why = refusals.get(each) or str(error)
            raise SurroundingsError(f"left in Namespace {namespace.name} by this promise: {each}: {why}") from error


def _follows(item: Object) -> bool:
    """Whether it goes with something else: what has an owner, and the mirror of a Service, which bears its labels."""
    return bool(item.metadata.get("ownerReferences")) or (item.kind.group, item.kind.kind) == ("", "Endpoints")


def _remove(item: Object) -> str:
    """Ask for an object's removal; what was answered where that is refused."""
    try:
        # With what it owns: else the next promise would meet its pods.
        item.delete(propagation="Foreground")
    except ApiError as refused:
        return "" if refused.status == 404 else str(refused)
    return ""


def _kinds(namespace: Namespace) -> list[Kind]:
    found: dict[tuple[str, str], Kind] = {}
    for api_version, resource in discovery.resources(discovery.groups(namespace.client)):
        if resource["scope"] == "Namespaced" and {"list", "delete"} <= set(resource["verbs"]):
            kind = Kind(api_version, resource["responseKind"]["kind"], resource["resource"])
            found.setdefault((kind.group, kind.plural), kind)
    return list(found.values())


def _labelled(namespace: Namespace, kind: Kind) -> list[Object]:
    selection = Selection(namespace.client, kind, namespace.name, f"{RUN_LABEL}={namespace.cluster.run_id}")
    try:
        return selection.read()
    except ApiError as refused:
        if refused.status in (403, 404, 405):  # what may not be listed was not made either
            return []
        raise
