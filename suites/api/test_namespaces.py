"""Namespace: objects live apart from those of other namespaces, and go with their namespace."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from clusterproof import Cluster, Images, Namespace, Timeouts, conditions, eventually, kinds, manifests
from clusterproof.hold import HOLD, held
from clusterproof.refusals import refused


@pytest.mark.smoke
def test_isolation(namespaces: Callable[[], Namespace], timeouts: Timeouts) -> None:
    """Objects of one namespace MUST be invisible in another, where their names are free to be taken.

    Read by name, by list, by selector and by watch; deleting one leaves its namesake alone.

    Source: https://kubernetes.io/docs/concepts/overview/working-with-objects/namespaces/
    """
    ours, theirs = namespaces(), namespaces()
    changes = theirs.client.watch(kinds.CONFIG_MAP.path(theirs.name), {"labelSelector": "app"}, within=timeouts.request)

    ours.create(manifests.config_map("private"))
    shared = ours.create(manifests.config_map("shared", {"owner": "ours"}))
    namesake = theirs.create(manifests.config_map("shared", {"owner": "theirs"}))

    first = next((event for event in changes if event.type != "BOOKMARK"), None)
    assert first is not None, f"a watch of {theirs} was told nothing about {namesake}"
    assert first.object["metadata"]["uid"] == namesake.uid, f"a watch of {theirs} was told about {first.object}"
    assert [each.uid for each in theirs.list(kinds.CONFIG_MAP, labels="app")] == [namesake.uid]
    assert [each.name for each in ours.list(kinds.CONFIG_MAP, labels="app")] == ["private", "shared"]
    assert theirs.get(kinds.CONFIG_MAP, "shared")["data"] == {"owner": "theirs"}
    with refused(f"reading from {theirs} what only {ours} has", 404):
        theirs.get(kinds.CONFIG_MAP, "private")

    namesake.delete()
    assert shared.read()["data"] == {"owner": "ours"}, f"deleting {namesake} changed {shared}"
    assert not namesake.exists(), f"{namesake} MUST be gone once it was deleted"


@pytest.mark.smoke
@pytest.mark.first
def test_deletion(cluster: Cluster, namespaces: Callable[[], Namespace], images: Images, timeouts: Timeouts) -> None:
    """Deleting a namespace MUST remove every object in it, end its pods, and take nothing more into it.

    Source: https://kubernetes.io/docs/tasks/administer-cluster/namespaces/#deleting-a-namespace
    """
    doomed, bystander = namespaces(), namespaces()
    kept = bystander.create(manifests.config_map("kept"))
    pod = doomed.create(manifests.pod("pod", images.agnhost, args=["pause"]))
    made = [pod] + [
        doomed.create(manifest)
        for manifest in (
            manifests.config_map("plain"),
            manifests.secret("secret"),
            manifests.service("service"),
            manifests.service_account("account"),
            manifests.role("role", [manifests.rbac_rule(["get"], ["pods"])]),
            manifests.deployment("idle", images.agnhost, replicas=0),
            manifests.cron_job("never", images.agnhost, schedule="0 0 29 2 *"),
        )
    ]
    eventually(pod, conditions.running, within=timeouts.pod)

    space = doomed.object(kinds.NAMESPACE, doomed.name).delete()
    eventually(space, conditions.gone, within=timeouts.namespace)

    left = [str(each) for kind in {each.kind for each in made} for each in cluster.list(kind, doomed.name)]
    assert not left, f"{space} is gone, but the API still has of it: {', '.join(left)}"
    with refused(f"creating an object in {space}, which is gone,", 404, 403):
        doomed.create(manifests.config_map("late"))
    assert kept.exists(), f"deleting {space} also removed {kept}"


@pytest.mark.smoke
@pytest.mark.first
def test_finalizers(namespaces: Callable[[], Namespace], timeouts: Timeouts) -> None:
    """A namespace being deleted MUST stay while a finalizer holds one of its objects, say so, and take no new object.

    Source: https://kubernetes.io/docs/concepts/overview/working-with-objects/finalizers/
    """
    doomed = namespaces()
    manifest = manifests.config_map("item")
    manifest["metadata"]["finalizers"] = [HOLD]
    item, free = doomed.create(manifest), doomed.create(manifests.config_map("free"))
    space = doomed.object(kinds.NAMESPACE, doomed.name).delete()

    with held(item):
        says_so = conditions.has_condition("NamespaceFinalizersRemaining", reason="SomeFinalizersRemain")
        eventually(space, says_so, within=timeouts.namespace)
        why = space.condition("NamespaceFinalizersRemaining")["message"]
        assert HOLD in why, f"{space} does not name the finalizer {HOLD} that holds it: {why}"
        assert space.status["phase"] == "Terminating", f"{space} is held by a finalizer but {space.status['phase']}"
        assert item.read().deleting, f"{item} was not deleted with its namespace"
        assert not free.exists(), f"{free} is still there though only {item} has a finalizer"
        with refused(f"creating an object in {space}, which is being deleted,") as refusal:
            doomed.create(manifests.config_map("late"))
        assert "being terminated" in refusal.message, f"the refusal does not say why: {refusal.message}"

    eventually(space, conditions.gone, within=timeouts.namespace)


def test_missing(namespace: Namespace, images: Images) -> None:
    """An object MUST NOT be stored in a namespace that does not exist, whatever its kind.

    Source: https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/#namespacelifecycle
    """
    nowhere = Namespace(f"{namespace.name}-not", namespace.cluster, namespace.client)

    for manifest in (
        manifests.config_map("stray"),
        manifests.deployment("stray", images.agnhost, replicas=0),
        manifests.role("stray", [manifests.rbac_rule(["get"], ["pods"])]),
    ):
        with refused(f"creating a {manifest['kind']} in Namespace {nowhere}, which does not exist,", 404):
            nowhere.create(manifest)
        kind = kinds.of(manifest)
        assert not nowhere.list(kind), f"the refused {kind} was stored in Namespace {nowhere} all the same"
