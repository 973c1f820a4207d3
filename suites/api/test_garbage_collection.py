"""Garbage collection: what belongs to a deleted object goes, waits or stays, as the deletion asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from clusterproof import Namespace, Object, Timeouts, conditions, eventually, kinds, manifests
from clusterproof.hold import HOLD, held


def test_background(namespace: Namespace, timeouts: Timeouts) -> None:
    """Background deletion MUST remove an object at once and then all that it owns, directly or not, and nothing else.

    Source: https://kubernetes.io/docs/concepts/architecture/garbage-collection/#background-deletion
    """
    owner, other = namespace.create(manifests.config_map("owner")), namespace.create(manifests.config_map("other"))
    child = namespace.create(_owned("child", owner))
    namespace.create(_owned("grandchild", child))
    namespace.create(_owned("foreign", other))

    owner.delete(propagation="Background")
    assert not owner.exists(), f"{owner} MUST be gone at once, whatever it owns"
    family = namespace.select(kinds.CONFIG_MAP, labels="app in (child,grandchild)")
    eventually(family, conditions.gone, within=timeouts.object)

    left = [each.name for each in namespace.list(kinds.CONFIG_MAP, labels="app")]
    assert left == ["foreign", "other"], f"deleting {owner} MUST leave what it does not own, but left {left}"


def test_foreground(namespace: Namespace, timeouts: Timeouts) -> None:
    """Foreground deletion MUST keep an object until everything it owns is gone.

    Source: https://kubernetes.io/docs/concepts/architecture/garbage-collection/#foreground-deletion
    """
    owner = namespace.create(manifests.config_map("owner"))
    child = namespace.create(_owned("child", owner, finalizers=[HOLD]))
    free = namespace.create(_owned("free", owner))

    owner.delete(propagation="Foreground")
    with held(child):
        eventually(child, _is_being_deleted, within=timeouts.object)
        eventually(free, conditions.gone, within=timeouts.object)
        assert owner.exists(), f"{owner} is gone before {child}, which it owns"
        finalizers = owner.metadata["finalizers"]
        assert finalizers == ["foregroundDeletion"], f"{owner} waits for {child} but is held by {finalizers}"

    eventually(owner, conditions.gone, within=timeouts.object)
    assert not child.exists(), f"{owner} is gone, but {child}, which it owned, is still there"


def test_orphan(namespace: Namespace, timeouts: Timeouts) -> None:
    """Orphaning deletion MUST remove an object but leave what it owned, belonging to nobody.

    Source: https://kubernetes.io/docs/concepts/architecture/garbage-collection/#orphaned-dependents
    """
    owner = namespace.create(manifests.config_map("owner"))
    children = [namespace.create(_owned(name, owner)) for name in ("first", "second")]

    owner.delete(propagation="Orphan")
    eventually(owner, conditions.gone, within=timeouts.object)

    for child in children:
        assert child.exists(), f"{child} MUST stay when its owner is deleted by orphaning"
        owners = child.metadata.get("ownerReferences")
        assert not owners, f"{owner} is gone, but {child} still belongs to {owners}"


def test_second_owner(namespace: Namespace, timeouts: Timeouts) -> None:
    """An object with several owners MUST stay while one of them is left, and go with the last.

    Source: https://kubernetes.io/docs/concepts/architecture/garbage-collection/#owners-dependents
    """
    first, second = (namespace.create(manifests.config_map(name)) for name in ("first", "second"))
    child = namespace.create(_owned("child", first, second))

    first.delete(propagation="Background")
    eventually(child, _belongs_to(second), within=timeouts.object)
    assert not child.deleting, f"{child} is being deleted though {second}, which owns it too, is still there"

    second.delete(propagation="Background")
    eventually(child, conditions.gone, within=timeouts.object)


def test_finalizers(namespace: Namespace, timeouts: Timeouts) -> None:
    """A deleted object MUST stay, marked as being deleted, until its last finalizer is removed; then it MUST go.

    Source: https://kubernetes.io/docs/concepts/overview/working-with-objects/finalizers/
    """
    second = "clusterproof.dev/second"
    item = namespace.create(_owned("item", finalizers=[HOLD, second]))

    with held(item):
        item.delete(grace=0)
        assert item.exists(), f"{item} is gone although {HOLD} and {second} hold it"
        item.patch({"metadata": {"finalizers": [second]}})
        assert item.deleting, f"{item} was deleted, but is not marked as being deleted"
        item.patch({"metadata": {"labels": {"still": "here"}}})
        assert item.labels["still"] == "here", f"{item} MUST take changes while {second} holds it"

    assert not item.exists(), f"{item} MUST be gone with its last finalizer"


def _owned(name: str, *owners: Object, finalizers: Sequence[str] = ()) -> dict[str, Any]:
    """A ConfigMap that belongs to others, which wait for it when they are deleted in the foreground."""
    manifest = manifests.config_map(name)
    manifest["metadata"] |= {
        "finalizers": list(finalizers),
        "ownerReferences": [
            {
                "apiVersion": owner.kind.api_version,
                "kind": owner.kind.kind,
                "name": owner.name,
                "uid": owner.uid,
                "blockOwnerDeletion": True,
            }
            for owner in owners
        ],
    }
    return manifest


def _is_being_deleted(item: Object) -> str | None:
    """Its deletion was asked for."""
    return None if item.deleting else "nobody has asked for its deletion"


def _belongs_to(owner: Object) -> conditions.Condition:
    def belongs_only_to_what_is_left(item: Object) -> str | None:
        """This is its only owner."""
        names = [each["name"] for each in item.metadata.get("ownerReferences") or []]
        return None if names == [owner.name] else f"it belongs to {names or 'nobody'}, not to {owner.name}"

    return belongs_only_to_what_is_left
