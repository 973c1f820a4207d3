"""Versions of a custom kind whose objects look different in each: converted, and moved from one to the other."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any

import pytest

from clusterproof import (
    Cluster,
    Hopeless,
    Images,
    Namespace,
    Object,
    Timeouts,
    capabilities,
    conditions,
    eventually,
    kinds,
    manifests,
    webhooks,
)
from clusterproof.kinds import Kind
from clusterproof.namespace import RUN_LABEL
from clusterproof.refusals import refused
from clusterproof.running.proving import Unsupported

GROUP = "stable.example.com"
"""The group that agnhost's conversion webhook knows: what is `hostPort` in v1 is `host` and `port` in v2."""
ANYTHING = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}


def test_webhook(cluster: Cluster, namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """Objects of a kind with a conversion webhook MUST be read and written in each version as that version is.

    Alone, in lists and in watches, whichever version they were written in; with their identity unchanged.

    Source: https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definition-versioning/#webhook-conversion
    """
    server = webhooks.serve(namespace, images.agnhost, "crd-conversion-webhook", within=timeouts.pod)
    call = {"clientConfig": server.client_config("/crdconvert"), "conversionReviewVersions": ["v1"]}
    old, new = _define(cluster, namespace, {"strategy": "Webhook", "webhook": call}, timeouts)
    # From where the API server is, a Service may be reached a moment later than its pods are known.
    trial = manifests.custom_object(new, "trial", host="one", port="1")
    eventually(functools.partial(namespace.would_store, trial), lambda stored: None, within=timeouts.propagation)
    first = namespace.create(manifests.custom_object(old, "first", hostPort="one:1"))
    second = namespace.create(manifests.custom_object(new, "second", host="two", port="2"))

    as_old = {item.name: item.raw.get("hostPort") for item in namespace.list(old)}
    as_new = {item.name: (item.raw.get("host"), item.raw.get("port")) for item in namespace.list(new)}
    assert as_old == {"first": "one:1", "second": "two:2"}, f"objects of {old.api_version} are {as_old}"
    assert as_new == {"first": ("one", "1"), "second": ("two", "2")}, f"objects of {new.api_version} are {as_new}"

    query = {"resourceVersion": second.resource_version}
    changes = cluster.client.watch(new.path(namespace.name), query, within=timeouts.request)
    first.patch({"hostPort": "three:3"})
    told = next((each.object for each in changes if each.type == "MODIFIED"), {})
    assert (told.get("host"), told.get("port")) == ("three", "3"), f"a watch of {new.api_version} tells of {told}"
    again = namespace.get(new, "first")
    again.patch({"port": "4"})
    assert first.read()["hostPort"] == "three:4", f"{again} was given port 4, but {old.api_version} has {first.raw}"
    assert (first.uid, first["apiVersion"]) == (again.uid, old.api_version), f"{again} became another: {first.raw}"


def test_migration(cluster: Cluster, namespace: Namespace, timeouts: Timeouts) -> None:
    """A version MUST be given up only when nothing is stored in it any more, and its objects live on in another.

    Source: https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definition-versioning/#upgrade-existing-objects-to-a-new-stored-version
    """
    old, new = _define(cluster, namespace, {"strategy": "None"}, timeouts)
    definition = cluster.get(kinds.CUSTOM_RESOURCE_DEFINITION, f"{old.plural}.{GROUP}")
    item = namespace.create(manifests.custom_object(old, "item", spec={"size": 1}))

    definition.patch({"spec": {"versions": _versions("v2", "v1", "v2")}})
    eventually(definition, _stores("v1", "v2"), within=timeouts.definition)
    with refused(f"taking v1 out of {definition}, in which objects are stored,", 422) as refusal:
        definition.patch({"spec": {"versions": _versions("v2", "v2")}})
    assert "status.storedVersions" in refusal.message, f"the refusal does not say why: {refusal.message}"

    rewrite = functools.partial(_rewrite, namespace.object(new, "item"))
    eventually(rewrite, _stored_anew_since(item), within=timeouts.definition, describe=f"{item} is stored in v2")
    definition.read().patch({"status": {"storedVersions": ["v2"]}}, subresource="status")
    definition.patch({"spec": {"versions": _versions("v2", "v2")}})
    _until_answered(cluster, old.path(), 404, timeouts)
    left = namespace.get(new, "item")
    assert (left.uid, left.spec) == (item.uid, {"size": 1}), f"{item} was kept as {left.raw}"


@pytest.mark.requires(capabilities.STORAGE_MIGRATION)
def test_storage_migration(cluster: Cluster, namespace: Namespace, timeouts: Timeouts) -> None:
    """A StorageVersionMigration MUST come to its end, with everything of its resource written anew.

    It is of PodTemplates, which hardly anybody has: where somebody does, they are left alone.

    Source: https://kubernetes.io/docs/tasks/manage-kubernetes-objects/storage-version-migration/
    """
    if others := [str(each) for each in cluster.list(kinds.POD_TEMPLATE) if RUN_LABEL not in each.labels]:
        raise Unsupported(f"it would write anew what is not the run's own: {', '.join(others[:3])}")
    kind, of = kinds.STORAGE_VERSION_MIGRATION, {"resource": {"group": "", "resource": kinds.POD_TEMPLATE.plural}}
    template = {"metadata": {"labels": {"app": "item"}}, "spec": {"containers": [{"name": "main", "image": "none"}]}}
    item = namespace.create(manifests.custom_object(kinds.POD_TEMPLATE, "item", template=template))
    migration = cluster.create(manifests.custom_object(kind, namespace.name, spec=of))
    numbers = itertools.count()

    def progress_of() -> Object:
        # Who writes has to know of everything that there was, and is told so by what comes later.
        item.patch({"metadata": {"labels": {"clusterproof.dev/number": str(next(numbers))}}})
        return migration.read()

    eventually(progress_of, _migrated, within=timeouts.recovery, describe=f"{migration}: it succeeds")


def _migrated(migration: Object) -> str | None:
    if (failure := migration.condition("Failed")).get("status") == "True":
        raise Hopeless(f"it failed: {failure.get('message')}")
    return conditions.has_condition("Succeeded")(migration)


def _rewrite(item: Object) -> str:
    """Write an object as it is; its resourceVersion then."""
    return item.replace(item.read().raw).resource_version


def _stored_anew_since(item: Object) -> Callable[[str], str | None]:
    """Nothing is stored where nothing changes: who serves objects may learn later than others of their new version."""
    before = item.resource_version

    def stored_anew(now: str) -> str | None:
        return None if now != before else f"writing it changes nothing, it is still at resourceVersion {before}"

    return stored_anew


def _define(
    cluster: Cluster, namespace: Namespace, conversion: dict[str, Any], timeouts: Timeouts
) -> tuple[Kind, Kind]:
    """Define a kind with the versions v1, which is stored, and v2; both are served when this returns."""
    # The group is not ours alone, so its kinds are told apart by the namespace's name.
    name = namespace.name.replace("-", "")
    manifest = manifests.crd(GROUP, name.capitalize(), f"{name}s")
    manifest["spec"] |= {"versions": _versions("v1", "v1", "v2"), "conversion": conversion}
    definition = cluster.create(manifest)
    eventually(definition, conditions.has_condition("Established"), within=timeouts.definition)
    served = [kinds.custom(GROUP, version, name.capitalize(), f"{name}s") for version in ("v1", "v2")]
    for kind in served:
        _until_answered(cluster, kind.path(), 200, timeouts)
    return served[0], served[1]


def _until_answered(cluster: Cluster, path: str, status: int, timeouts: Timeouts) -> None:
    eventually(
        lambda: cluster.client.request("GET", path).status,
        conditions.equals(status),
        within=timeouts.definition,
        describe=f"{path} is answered with {status}",
    )


def _versions(stored: str, *served: str) -> list[dict[str, Any]]:
    schema = {"openAPIV3Schema": ANYTHING}
    return [{"name": each, "served": True, "storage": each == stored, "schema": schema} for each in served]


def _stores(*versions: str) -> conditions.Condition:
    def stores_in_these_versions(definition: Object) -> str | None:
        """Its status names them as stored."""
        stored = definition.status.get("storedVersions")
        return None if stored == list(versions) else f"it says that {stored} are stored, not {list(versions)}"

    return stores_in_these_versions
