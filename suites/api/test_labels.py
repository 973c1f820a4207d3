"""Labels: objects are chosen by what they carry, and whoever chose them follows a change."""

from __future__ import annotations

import pytest

from clusterproof import Images, Namespace, Object, Timeouts, conditions, eventually, kinds, manifests
from clusterproof.refusals import refused

LABELLED = {
    "a": {"tier": "web", "env": "prod"},
    "b": {"tier": "web", "env": "test"},
    "c": {"tier": "db", "env": "prod"},
    "d": {"tier": ""},
    "e": {},
}
SELECTED = {
    "tier=web": "ab",
    "tier==db": "c",
    "tier=": "d",
    "tier!=web": "cde",
    "tier": "abcd",
    "!tier": "e",
    "tier in (web,db)": "abc",
    "tier notin (web)": "cde",
    "tier,tier notin (web,db)": "d",
    "tier=web,env=prod": "a",
    "tier=web,env!=prod": "b",
    "tier in (web,db),env=prod": "ac",
    "tier=web,!env": "",
    "tier=WEB": "",
}
"""Selectors, and the names of the objects that each selects."""


@pytest.mark.smoke
def test_selectors(namespace: Namespace) -> None:
    """A label selector, by equality or by set, MUST select exactly the objects that match it.

    To list them and to delete them; a selector that cannot be understood is refused.

    Source: https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors
    """
    for name, labels in LABELLED.items():
        namespace.create(manifests.config_map(name, labels=labels))

    # Every object of ours has the label `app`; what the cluster itself puts into a namespace has not.
    chosen = {text: _names(namespace, text) for text in SELECTED}
    wrong = [
        f"{text!r} selects {chosen[text]!r}, not {want!r}" for text, want in SELECTED.items() if chosen[text] != want
    ]
    assert not wrong, f"ConfigMaps of {namespace} labelled {LABELLED}: {'; '.join(wrong)}"
    with refused("the selector 'tier in web', without parentheses,", 400):
        namespace.list(kinds.CONFIG_MAP, labels="tier in web")

    namespace.client.delete(kinds.CONFIG_MAP.path(namespace.name), query={"labelSelector": "tier in (web)"})
    left = _names(namespace, "")
    assert left == "cde", f"deleting the ConfigMaps of {namespace} with 'tier in (web)' left {left!r}, not 'cde'"


@pytest.mark.smoke
def test_watched(namespace: Namespace, timeouts: Timeouts) -> None:
    """A watch with a selector MUST tell of an object that a changed label brings in as added, and out as deleted.

    Source: https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes
    """
    item = namespace.create(manifests.config_map("item", labels={"tier": "web"}))
    query = {"labelSelector": "tier=db", "resourceVersion": item.resource_version}
    changes = namespace.client.watch(kinds.CONFIG_MAP.path(namespace.name), query, within=timeouts.request)

    for tier, value in (("web", "1"), ("db", "2"), ("db", "3"), ("web", "4"), ("web", "5"), ("db", "6")):
        item.patch({"metadata": {"labels": {"tier": tier}}, "data": {"change": value}})
    item.delete()

    seen: list[tuple[str, str]] = []
    for event in changes:
        if event.type != "BOOKMARK":
            seen.append((event.type, (event.object.get("data") or {}).get("change", "")))
        if len(seen) == 5:
            break
    assert [kind for kind, _ in seen] == ["ADDED", "MODIFIED", "DELETED", "ADDED", "DELETED"], (
        f"a watch for tier=db of {item}, which came in, changed, went out, came in and was deleted, was told {seen}"
    )
    # What goes out is told by the change that took it out.
    assert [value for kind, value in seen if kind != "DELETED"] == ["2", "3", "6"], f"{item}: the watch was told {seen}"


@pytest.mark.smoke
def test_relabelling(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A pod whose label is changed MUST leave its Service and its ReplicaSet, which replaces it, and go on running.

    Source: https://kubernetes.io/docs/concepts/workloads/controllers/replicaset/#isolating-pods-from-a-replicaset
    """
    namespace.create(manifests.service("web"))
    web = namespace.create(
        manifests.replica_set(
            "web", images.agnhost, args=["netexec", "--http-port=8080"], readiness=manifests.http_probe()
        )
    )
    slices = namespace.select(kinds.ENDPOINT_SLICE, labels="kubernetes.io/service-name=web")
    eventually(slices, conditions.endpoints(1), within=timeouts.pod)
    (first,) = web.pods().read()

    first.patch({"metadata": {"labels": {"app": "debug"}}})
    eventually(slices, _without(first.status["podIP"]), within=timeouts.propagation)
    eventually(first, _released, within=timeouts.object)
    (second,) = eventually(web.pods(), conditions.all_ready(1), within=timeouts.recovery)
    eventually(slices, _only(second.status["podIP"]), within=timeouts.propagation)

    restarts = sum(each["restartCount"] for each in first.read().status["containerStatuses"])
    assert first.status["phase"] == "Running", f"{first} left its ReplicaSet and is now {first.status['phase']}"
    assert (first.deleting, restarts) == (False, 0), f"{first} left its ReplicaSet and was deleted or restarted"


def _names(namespace: Namespace, selector: str) -> str:
    found = namespace.list(kinds.CONFIG_MAP, labels=",".join(filter(None, ("app", selector))))
    return "".join(each.name for each in found)


def _released(pod: Object) -> str | None:
    """It belongs to nobody."""
    owners = pod.metadata.get("ownerReferences")
    return f"it still belongs to {', '.join(each['name'] for each in owners)}" if owners else None


def _without(address: str) -> conditions.ListCondition:
    def offer_it_no_more(slices: list[Object]) -> str | None:
        """The address is in none of them, ready or not."""
        found = [each for piece in slices for end in piece.raw.get("endpoints") or [] for each in end["addresses"]]
        return f"{address} is still among {found}" if address in found else None

    return offer_it_no_more


def _only(address: str) -> conditions.ListCondition:
    def offer_only_the_replacement(slices: list[Object]) -> str | None:
        """The ready addresses are just this one."""
        found = conditions.ready_addresses(slices)
        return None if found == {address} else f"ready addresses are {sorted(found) or 'none'}, not {address}"

    return offer_only_the_replacement
