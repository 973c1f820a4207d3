"""Watch: whoever follows a resource is told of every change, once and in order."""

from __future__ import annotations

from collections.abc import Iterable
from time import monotonic

from clusterproof import ApiError, Event, Namespace, Timeouts, eventually, kinds, manifests

CHANGES = 200
SHORT = 6.0
"""Seconds of a watch that waits for its bookmark."""
Told = tuple[str, str]
"""Type of an event, and the resourceVersion of its object; of a deletion it is not known beforehand."""


def test_every_change(namespace: Namespace, timeouts: Timeouts) -> None:
    """A watch from a resourceVersion MUST tell of every later change exactly once and in order.

    Told to watches that were open while it happened, of one name, of a namespace and of all namespaces, and to one
    that was opened afterwards.

    Source: https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes
    """
    item = namespace.create(manifests.config_map(namespace.name))
    client, start = namespace.client, {"resourceVersion": item.resource_version}
    mine, everywhere = kinds.CONFIG_MAP.path(namespace.name), kinds.CONFIG_MAP.path()
    watched = {
        "by name": (mine, start | {"fieldSelector": f"metadata.name={item.name}"}),
        "by label": (mine, start | {"labelSelector": f"app={item.name}"}),
        "in all namespaces": (everywhere, start | {"labelSelector": f"app={item.name}"}),
    }
    # Open for as long as a slow machine may take to make the changes; the last change ends the reading.
    feeds = {how: client.watch(path, query, within=timeouts.job) for how, (path, query) in watched.items()}

    happened: list[Told] = []
    for number in range(CHANGES):
        item.patch({"data": {"number": str(number)}})
        happened.append(("MODIFIED", item.resource_version))
    item.delete()
    again = namespace.create(manifests.config_map(namespace.name))
    happened += [("DELETED", ""), ("ADDED", again.resource_version)]

    path, query = watched["by label"]
    feeds["opened afterwards"] = client.watch(path, query, within=timeouts.request)
    for how, feed in feeds.items():
        _compare(f"a watch of {item} {how}", _until(feed, again.resource_version), happened)


def test_initial_events(namespace: Namespace, timeouts: Timeouts) -> None:
    """A watch that asks for initial events MUST begin with every object there is, and mark their end by a bookmark.

    Source: https://kubernetes.io/docs/reference/using-api/api-concepts/#streaming-lists
    """
    names = [f"item-{number}" for number in range(5)]
    made = {namespace.create(manifests.config_map(name)).uid: name for name in names}
    query = {"sendInitialEvents": True, "resourceVersionMatch": "NotOlderThan", "labelSelector": "app"}

    seen: dict[str, str] = {}
    try:
        for event in namespace.client.watch(kinds.CONFIG_MAP.path(namespace.name), query, within=timeouts.request):
            metadata = event.object["metadata"]
            if event.type != "BOOKMARK":
                seen[metadata["uid"]] = metadata["name"]
            elif "k8s.io/initial-events-end" in metadata.get("annotations", {}):
                break
        else:
            raise AssertionError(f"no bookmark marked the end of the initial events of {namespace}, after {seen}")
    except ApiError as refusal:
        # A server may be without streaming lists; then it has to say so.
        if (refusal.status, refusal.fields) != (422, ["sendInitialEvents"]):
            raise
        return
    assert seen == made, f"the initial events of {namespace} name {seen}, but there are {made}"


def test_bookmarks(namespace: Namespace, timeouts: Timeouts) -> None:
    """A watch MUST be told by bookmarks how far it has come: whoever goes on from there misses nothing.

    It is told shortly before its time is over, at the latest, by every API server that is built on upstream's library.

    Source: https://kubernetes.io/docs/reference/using-api/api-concepts/#watch-bookmarks
    """
    item, path = namespace.create(manifests.config_map("item")), kinds.CONFIG_MAP.path(namespace.name)

    def bookmarks() -> list[str]:
        feed = namespace.client.watch(path, {"resourceVersion": item.resource_version}, within=SHORT)
        item.patch({"data": {"at": str(monotonic())}})
        return [event.object["metadata"]["resourceVersion"] for event in feed if event.type == "BOOKMARK"]

    found = eventually(bookmarks, _any, within=timeouts.object, describe=f"a bookmark in {namespace}")
    last = item.resource_version
    item.patch({"data": {"at": "last"}})
    feed = namespace.client.watch(path, {"resourceVersion": found[-1]}, within=timeouts.request)
    told = _until(feed, item.resource_version)
    wanted = [("MODIFIED", item.resource_version)]
    assert told == wanted, (
        f"after a bookmark {found[-1]}, behind {last}, a watch MUST tell of {wanted}, but told of {told}"
    )


def test_expired(namespace: Namespace, timeouts: Timeouts) -> None:
    """A watch from a version that the server has forgotten MUST be ended with 410, and never begin after a gap.

    Source: https://kubernetes.io/docs/reference/using-api/api-concepts/#410-gone-responses
    """
    item = namespace.create(manifests.config_map("item"))
    query = {"resourceVersion": "1", "labelSelector": "app"}

    # A young server may remember everything since its first version: then it has to tell it.
    try:
        changes = namespace.client.watch(kinds.CONFIG_MAP.path(namespace.name), query, within=timeouts.request)
        first = next((event for event in changes if event.type != "BOOKMARK"), None)
    except ApiError as refusal:
        if (refusal.status, refusal.reason) != (410, "Expired"):
            raise
        return
    assert first is not None, f"a watch of {namespace} from version 1 got neither 410 nor the creation of {item}"
    assert (first.type, first.object["metadata"]["uid"]) == ("ADDED", item.uid), (
        f"a watch of {namespace} from version 1 MUST get 410 or begin with {item}, but began with {first}"
    )


def _any(versions: list[str]) -> str | None:
    return None if versions else f"a watch of {SHORT:g} s had none"


def _until(feed: Iterable[Event], version: str) -> list[Told]:
    """What a watch tells, up to a version."""
    told: list[Told] = []
    for event in feed:
        if event.type != "BOOKMARK":
            told.append((event.type, "" if event.type == "DELETED" else event.object["metadata"]["resourceVersion"]))
        if told and told[-1][1] == version:
            break
    return told


def _compare(what: str, told: list[Told], happened: list[Told]) -> None:
    __tracebackhide__ = True
    missed = [each for each in happened if each not in told]
    twice = [each for each in set(told) if told.count(each) > 1]
    assert not missed, f"{what} MUST tell of all {len(happened)} changes, but missed {len(missed)}: {missed[:5]}"
    assert not twice, f"{what} MUST tell of each change once, but told of {twice[:5]} again"
    assert told == happened, f"{what} MUST tell of changes in order, but told of {told[:20]}, not {happened[:20]}"
