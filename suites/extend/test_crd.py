"""CustomResourceDefinition: a kind of the user's own is served, checked and kept like a built-in one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from time import monotonic
from typing import Any

import pytest

from clusterproof import Cluster, Namespace, Object, Timeouts, conditions, eventually, kinds, manifests, measure
from clusterproof.client import Event
from clusterproof.hold import HOLD, held
from clusterproof.kinds import Kind
from clusterproof.refusals import Refusal, refused

Schema = dict[str, Any]

STRING: Schema = {"type": "string"}
INTEGER: Schema = {"type": "integer"}
VERBS = {"create", "get", "list", "watch", "update", "patch", "delete", "deletecollection"}
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"


@pytest.mark.smoke
def test_lifecycle(cluster: Cluster, namespace: Namespace, timeouts: Timeouts) -> None:
    """A defined kind MUST be found and served like a built-in one, and go with all its objects when it is undefined.

    Source: https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/
    """
    manifest = _manifest(namespace, {"size": INTEGER}, names={"shortNames": ["gdg"], "categories": ["gear"]})
    definition, kind = _define(cluster, manifest, timeouts)
    (found,) = [each for each in _discovered(cluster, kind) if each["name"] == "gadgets"]
    assert (found["kind"], found["shortNames"], found["categories"]) == ("Gadget", ["gdg"], ["gear"])
    assert set(found["verbs"]) == VERBS, f"discovery names for {kind} the verbs {found['verbs']}, not {VERBS}"

    gadget = namespace.create(_gadget(kind, "mine", size=1))
    with refused(f"creating {gadget} twice", 409):
        namespace.create(_gadget(kind, "mine"))
    stale = gadget.raw
    gadget.patch({"spec": {"size": 2}})
    with refused(f"replacing {gadget} as it was one version ago", 409):
        gadget.replace(stale)
    gadget.patch([{"op": "replace", "path": "/spec/size", "value": 3}], type="json")
    assert gadget.read().spec == {"size": 3}, f"{gadget} was patched to size 3, but is stored as {gadget.spec}"
    assert gadget.generation == 3, f"each changed spec MUST raise the generation of {gadget}: {gadget.generation}"
    namespace.create(_gadget(kind, "other")).delete()
    assert [each.uid for each in namespace.list(kind)] == [gadget.uid], f"one {kind} of two was deleted"

    definition.delete()
    eventually(definition, conditions.gone, within=timeouts.definition)
    eventually(
        lambda: _status(cluster, kind.path()),
        conditions.equals(404),
        within=timeouts.definition,
        describe=f"{kind.path()}, whose definition is gone, is answered 404",
    )
    _define(cluster, manifest, timeouts)
    left = namespace.list(kind)
    assert not left, f"{definition} was deleted and made anew, but still has {[str(each) for each in left]}"


@pytest.mark.smoke
def test_served(cluster: Cluster, namespace: Namespace, timeouts: Timeouts) -> None:
    """Objects of a defined kind MUST be selected, watched, applied and printed in columns like built-in ones.

    Source: https://kubernetes.io/docs/concepts/extend-kubernetes/api-extension/custom-resources/#common-features
    """
    columns = [{"name": "Size", "type": "integer", "jsonPath": ".spec.size"}]
    manifest = _manifest(namespace, {"size": INTEGER, "color": STRING}, more={"additionalPrinterColumns": columns})
    _, kind = _define(cluster, manifest, timeouts)
    red, blue = (namespace.create(_gadget(kind, name, size=1)) for name in ("red", "blue"))
    query = {"resourceVersion": blue.resource_version, "labelSelector": "app=red"}
    changes = cluster.client.watch(kind.path(namespace.name), query, within=timeouts.request)

    blue.patch({"spec": {"size": 7}})
    for size in range(2, 12):
        red.patch({"spec": {"size": size}})
    _apply(red, "painter", {"color": "green"})
    with refused(f"applying another color of {red} than its owner", 409) as refusal:
        _apply(red, "other", {"color": "pink"})
    table = cluster.client.request("GET", kind.path(namespace.name), accept=TABLE).json()
    selected = {
        text: [each.name for each in namespace.list(kind, labels=text)] for text in ("app=red", "app!=red", "app")
    }
    red.delete()

    told = _sizes(changes)
    happened = [("MODIFIED", size) for size in [*range(2, 12), 11]] + [("DELETED", 11)]
    assert told == happened, f"a watch of {red} MUST tell each change once and in order, but told {told}"
    assert '"painter"' in refusal.message, f"the refusal does not name the owner: {refusal.message}"
    printed = [each["name"] for each in table["columnDefinitions"]]
    assert printed == ["Name", "Size"], f"{kind} MUST be printed in the columns Name and Size, not {printed}"
    assert [row["cells"] for row in table["rows"]] == [["blue", 7], ["red", 11]], (
        f"{kind} is printed as {table['rows']}"
    )
    assert selected == {"app=red": ["red"], "app!=red": ["blue"], "app": ["blue", "red"]}, f"selected: {selected}"


def _sizes(changes: Iterator[Event]) -> list[tuple[str, int]]:
    """What happened to an object, each time with its size, up to its deletion."""
    told = []
    for event in changes:
        told += [(event.type, event.object["spec"]["size"])] if event.type != "BOOKMARK" else []
        if event.type == "DELETED":
            break
    return told


SCHEMA: dict[str, Schema] = {
    "size": {**INTEGER, "minimum": 1, "maximum": 10},
    "color": {**STRING, "enum": ["red", "blue"], "default": "red"},
    "name": {**STRING, "pattern": "^[a-z]+$", "maxLength": 8},
    "tags": {"type": "array", "items": STRING, "maxItems": 3, "x-kubernetes-list-type": "set"},
    "parts": {"type": "array", "items": {"type": "object", "properties": {"weight": INTEGER}, "required": ["weight"]}},
    "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
    "port": {"x-kubernetes-int-or-string": True},
    "marks": {"type": "object", "additionalProperties": STRING, "maxProperties": 2},
    "named": {
        "type": "array",
        "items": {"type": "object", "properties": {"key": STRING}, "required": ["key"]},
        "minItems": 1,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["key"],
    },
    "share": {"type": "number", "minimum": 0, "exclusiveMinimum": True, "multipleOf": 0.5},
    "since": {**STRING, "format": "date-time"},
    "note": {**STRING, "nullable": True, "minLength": 2},
    "source": {
        "type": "object",
        "properties": {"file": STRING, "url": STRING},
        "oneOf": [{"required": ["file"]}, {"required": ["url"]}],
    },
    "grade": {**STRING, "anyOf": [{"maxLength": 1}, {"pattern": "^grade"}]},
    "floor": {**INTEGER, "not": {"enum": [13]}},
    "template": {
        "type": "object",
        "x-kubernetes-embedded-resource": True,
        "x-kubernetes-preserve-unknown-fields": True,
    },
}
INVALID: list[tuple[str, dict[str, Any]]] = [
    ("spec.size", {}),
    ("spec.size", {"size": 0}),
    ("spec.size", {"size": 11}),
    ("spec.size", {"size": "1"}),
    ("spec.size", {"size": 1.5}),
    ("spec.color", {"size": 1, "color": "green"}),
    ("spec.name", {"size": 1, "name": "No"}),
    ("spec.name", {"size": 1, "name": "muchtoolong"}),
    ("spec.tags", {"size": 1, "tags": ["a", "b", "c", "d"]}),
    ("spec.tags[1]", {"size": 1, "tags": ["a", "a"]}),
    ("spec.tags[1]", {"size": 1, "tags": ["a", 2]}),
    ("spec.parts[1].weight", {"size": 1, "parts": [{"weight": 1}, {}]}),
    ("spec.port", {"size": 1, "port": True}),
    ("spec.marks.left", {"size": 1, "marks": {"left": 1}}),
    ("spec.marks", {"size": 1, "marks": {"a": "", "b": "", "c": ""}}),
    ("spec.named", {"size": 1, "named": []}),
    ("spec.named[1]", {"size": 1, "named": [{"key": "a"}, {"key": "a"}]}),
    ("spec.share", {"size": 1, "share": 0}),
    ("spec.share", {"size": 1, "share": 0.7}),
    ("spec.since", {"size": 1, "since": "today"}),
    ("spec.note", {"size": 1, "note": "x"}),
    ("spec.source.file", {"size": 1, "source": {}}),
    ("spec.source", {"size": 1, "source": {"file": "here", "url": "there"}}),
    ("spec.grade", {"size": 1, "grade": "good"}),
    ("spec.floor", {"size": 1, "floor": 13}),
    ("spec.template.kind", {"size": 1, "template": {"apiVersion": "v1", "metadata": {"name": "some"}}}),
]
"""Specs that are invalid in one field, with that field."""


def test_schema(cluster: Cluster, namespace: Namespace, timeouts: Timeouts) -> None:
    """A custom object that violates its schema MUST be refused with 422 naming the field, created or changed.

    What it leaves out is given its default, and what its schema does not know is dropped.

    Source: https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#validation
    """
    _, kind = _define(cluster, _manifest(namespace, SCHEMA, required=["size"]), timeouts)
    fitting = {"size": 10, "free": {"deep": {"any": 1}}, "port": "web", "share": 1.5, "note": None}
    good = namespace.create(_gadget(kind, "good", unknown=1, **fitting))

    for field, spec in INVALID:
        with refused(f"a {kind} with the spec {spec}", 422) as refusal:
            namespace.create(_gadget(kind, "bad", **spec))
        _must_name(field, refusal)
        with refused(f"changing {good} to the spec {spec}", 422) as refusal:
            good.replace({**good.raw, "spec": spec})
        _must_name(field, refusal)
    with refused("a field that the schema does not know, under strict validation,", 400) as refusal:
        cluster.client.post(
            kind.path(namespace.name), _gadget(kind, "bad", size=1, unknown=1), {"fieldValidation": "Strict"}
        )
    assert 'unknown field "spec.unknown"' in refusal.message, f"the refusal does not name it: {refusal.message}"

    (stored,) = namespace.list(kind)
    wanted = fitting | {"color": "red"}
    assert stored.spec == wanted, f"{good} is stored as {stored.spec}, not as {wanted}"


def test_rules(cluster: Cluster, namespace: Namespace, timeouts: Timeouts) -> None:
    """A custom object that violates a rule of its schema MUST be refused with the rule's message, at its field.

    Rules compare fields to each other, and to what they were before.

    Source: https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#validation-rules
    """
    fixed = {**STRING, "x-kubernetes-validations": [{"rule": "self == oldSelf", "message": "the color stays"}]}
    order = [
        {
            "rule": "!has(self.low) || self.low <= self.high",
            "messageExpression": "self.high == 1 ? 'low above 1' : 'low above high'",
            "fieldPath": ".low",
        }
    ]
    manifest = _manifest(namespace, {"low": INTEGER, "high": INTEGER, "color": fixed}, rules=order)
    _, kind = _define(cluster, manifest, timeouts)

    with refused(f"a {kind} with low 2 above high 1", 422) as refusal:
        namespace.create(_gadget(kind, "bad", low=2, high=1))
    assert (refusal.fields, "low above 1" in refusal.message) == (["spec.low"], True), refusal.message
    gadget = namespace.create(_gadget(kind, "good", low=1, high=1, color="red"))
    with refused(f"changing the color of {gadget}, which has to stay,", 422) as refusal:
        gadget.patch({"spec": {"color": "blue"}})
    assert (refusal.fields, "the color stays" in refusal.message) == (["spec.color"], True), refusal.message
    with refused(f"raising low above high of {gadget}", 422):
        gadget.patch({"spec": {"low": 5}})
    gadget.patch({"spec": {"low": 5, "high": 6}})
    assert gadget.read().spec == {"low": 5, "high": 6, "color": "red"}, f"{gadget} is stored as {gadget.spec}"


def test_ratcheting(cluster: Cluster, namespace: Namespace, timeouts: Timeouts) -> None:
    """An object that a tightened schema no longer allows MUST still take changes that leave its bad fields alone.

    Source: https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#validation-ratcheting
    """
    manifest = _manifest(namespace, {"size": INTEGER, "color": STRING})
    definition, kind = _define(cluster, manifest, timeouts)
    old = namespace.create(_gadget(kind, "old", size=50, color="red"))

    size = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/size/maximum"
    definition.patch([{"op": "add", "path": size, "value": 10}], type="json")
    eventually(
        lambda: _dry(namespace, kind, size=50),
        conditions.equals(422),
        within=timeouts.propagation,
        describe=f"a new {kind} too big for the tightened schema is refused",
    )

    old.patch({"spec": {"color": "blue"}})
    with refused(f"setting the size of {old} to another one that is too big", 422) as refusal:
        old.patch({"spec": {"size": 60}})
    assert refusal.fields == ["spec.size"], f"the refusal names {refusal.fields}: {refusal.message}"
    assert old.read().spec == {"size": 50, "color": "blue"}, f"{old} is stored as {old.spec}"
    old.patch({"spec": {"size": 5}})
    with refused(f"setting the size of {old} back to one that is too big", 422):
        old.patch({"spec": {"size": 50}})


def test_selectable_fields(cluster: Cluster, namespace: Namespace, timeouts: Timeouts) -> None:
    """Custom objects MUST be selected by the fields that their definition names, in lists and watches, by no others.

    Source: https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#crd-selectable-fields
    """
    manifest = _manifest(
        namespace, {"size": INTEGER, "color": STRING}, more={"selectableFields": [{"jsonPath": ".spec.color"}]}
    )
    _, kind = _define(cluster, manifest, timeouts)
    for name, color in ("a", "red"), ("b", "blue"), ("c", "red"):
        last = namespace.create(_gadget(kind, name, size=1, color=color))

    wanted = {"spec.color=red": ["a", "c"], "spec.color!=red": ["b"], "spec.color=green": [], "metadata.name=a": ["a"]}
    found = {text: [each.name for each in namespace.list(kind, fields=text)] for text in wanted}
    assert found == wanted, f"field selectors of {kind} select {found}, not {wanted}"
    with refused("selecting by a field that the definition does not name", 400):
        namespace.list(kind, fields="spec.size=1")
    query = {"resourceVersion": last.resource_version, "fieldSelector": "spec.color=blue"}
    changes = cluster.client.watch(kind.path(namespace.name), query, within=timeouts.request)
    last.patch({"spec": {"color": "blue"}})
    event = next((each for each in changes if each.type != "BOOKMARK"), None)
    assert event, f"a watch for blue ones was not told that {last} became blue"
    assert (event.type, event.object["metadata"]["name"]) == ("ADDED", "c"), f"a watch for blue ones was told {event}"


def test_subresources(cluster: Cluster, namespace: Namespace, timeouts: Timeouts) -> None:
    """With a status subresource spec and status MUST be written apart, and with scale replicas be set by it.

    Source: https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#subresources
    """
    _, kind = _define(cluster, _scalable(namespace), timeouts)

    gadget = namespace.create({**_gadget(kind, "mine", count=1), "status": {"count": 9}})
    assert not gadget.status, f"the status of {gadget} MUST NOT be written with it, but is {gadget.status}"
    gadget.patch({"spec": {"count": 2}, "status": {"count": 9}})
    assert (gadget.status, gadget.generation) == ({}, 2), f"{gadget} was changed to {gadget.raw}"
    gadget.patch({"spec": {"count": 9}, "status": {"count": 2, "who": "app=mine"}}, subresource="status")
    assert (gadget.spec, gadget.status["count"]) == ({"count": 2}, 2), f"writing its status made {gadget} {gadget.raw}"
    assert gadget.generation == 2, f"writing its status MUST NOT raise the generation of {gadget}: {gadget.generation}"

    path = kind.path(namespace.name, gadget.name, "scale")
    before = cluster.client.get(path)
    assert (before["kind"], before["spec"]["replicas"], before["status"]) == (
        "Scale", 2, {"replicas": 2, "selector": "app=mine"},
    ), f"the scale of {gadget} is {before}"  # fmt: skip
    gadget.scale(5)
    assert gadget.read().spec == {"count": 5}, f"{gadget} was scaled to 5, but is {gadget.spec}"


@pytest.mark.first
def test_autoscaled(cluster: Cluster, namespace: Namespace, timeouts: Timeouts) -> None:
    """A HorizontalPodAutoscaler MUST set the replicas of a kind of the user's own, by its scale subresource.

    There are less than its minimum, which it keeps whatever metrics there are.

    Source: https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale/#how-does-a-horizontalpodautoscaler-work
    """
    _, kind = _define(cluster, _scalable(namespace), timeouts)
    gadget = namespace.create(_gadget(kind, "mine", count=1))
    gadget.patch({"status": {"count": 1, "who": "app=mine"}}, subresource="status")

    made = manifests.hpa("mine", target="mine", target_kind=kind.kind, target_version=kind.api_version, low=3)
    scaler = namespace.create(made)

    eventually(scaler, _wants(3), within=timeouts.scale)
    assert gadget.read().spec == {"count": 3}, f"{scaler} has set its minimum of 3, but {gadget} is {gadget.spec}"


def test_versions(cluster: Cluster, namespace: Namespace, timeouts: Timeouts) -> None:
    """An object MUST be served under every served version of its kind, whichever it was written in, and no other.

    Source: https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definition-versioning/
    """
    manifest = _manifest(namespace, {"size": INTEGER})
    (first,) = manifest["spec"]["versions"]
    manifest["spec"]["versions"] += [
        {**first, "name": "v2", "storage": False},
        {**first, "name": "v3", "storage": False, "served": False},
    ]
    first |= {"deprecated": True, "deprecationWarning": "use v2"}
    definition, kind = _define(cluster, manifest, timeouts)
    newer, unserved = (kinds.custom(kind.group, version, kind.kind, kind.plural) for version in ("v2", "v3"))

    written = namespace.create(_gadget(newer, "mine", size=1))
    written.patch({"spec": {"size": 2}})
    read = namespace.get(kind, "mine")
    assert (read["apiVersion"], read.spec, read.uid) == (kind.api_version, {"size": 2}, written.uid), (
        f"{written} was written as {newer.api_version}, but {kind.api_version} has {read.raw}"
    )
    read.patch({"spec": {"size": 3}})
    assert written.read().spec == {"size": 3}, f"{written} was changed in {kind.api_version}, but is {written.spec}"
    assert written["apiVersion"] == newer.api_version
    v1, v2 = (_warning(cluster, each.path(namespace.name)) for each in (kind, newer))
    assert "use v2" in v1, f"{kind.api_version} is deprecated for v2, but its users are warned {v1!r}"
    assert not v2, f"{newer.api_version} is not deprecated, but its users are warned {v2!r}"
    assert _status(cluster, unserved.path(namespace.name)) == 404, f"{unserved.api_version} MUST NOT be served"
    assert definition.read().status["storedVersions"] == ["v1"], f"{definition} stores {definition.status}"


@pytest.mark.first
def test_ownership(cluster: Cluster, namespace: Namespace, timeouts: Timeouts) -> None:
    """What belongs to a custom object, and a custom object that belongs to another, MUST go with its owner.

    A finalizer holds it until then. The time that the garbage collector takes to learn of a new kind is reported.

    Source: https://kubernetes.io/docs/concepts/architecture/garbage-collection/
    """
    _, kind = _define(cluster, _manifest(namespace, {"size": INTEGER}), timeouts)
    owner, plain = namespace.create(_gadget(kind, "owner")), namespace.create(manifests.config_map("plain"))
    children = [
        namespace.create(_owned(manifests.config_map("child"), owner)),
        namespace.create(_owned(_gadget(kind, "child"), plain)),
        namespace.create(_owned(_gadget(kind, "grandchild"), owner)),
    ]
    stranger = namespace.create(_gadget(kind, "stranger"))
    kept = namespace.create(_owned(_gadget(kind, "kept"), plain, finalizers=[HOLD]))

    owner.delete()
    plain.delete()
    with held(kept):
        started = monotonic()
        for child in children:
            eventually(child, conditions.gone, within=timeouts.namespace)
        measure("time to collect (s)", monotonic() - started)
        eventually(kept, _is_being_deleted, within=timeouts.object)

    assert not kept.exists(), f"{kept} MUST be gone with its last finalizer"
    assert stranger.exists(), f"{stranger} belongs to nobody, but is gone"


def _manifest(
    namespace: Namespace,
    properties: Mapping[str, Schema],
    *,
    status: Mapping[str, Schema] | None = None,
    required: list[str] | None = None,
    rules: list[Schema] | None = None,
    **options: Any,
) -> dict[str, Any]:
    """The definition of Gadgets, in a group of the namespace's own; options as for `manifests.crd`."""
    spec: Schema = {"type": "object", "properties": dict(properties), "required": required or []}
    if rules:
        spec["x-kubernetes-validations"] = rules
    parts = {"spec": spec} | ({"status": {"type": "object", "properties": dict(status)}} if status else {})
    schema = {"type": "object", "properties": parts}
    return manifests.crd(f"{namespace}.clusterproof.dev", "Gadget", "gadgets", schema=schema, **options)


def _scalable(namespace: Namespace) -> dict[str, Any]:
    """A kind whose objects have a status, and replicas that are set by the subresource scale."""
    scale = {
        "specReplicasPath": ".spec.count",
        "statusReplicasPath": ".status.count",
        "labelSelectorPath": ".status.who",
    }
    return _manifest(
        namespace, {"count": INTEGER}, status={"count": INTEGER, "who": STRING},
        more={"subresources": {"status": {}, "scale": scale}},
    )  # fmt: skip


def _wants(replicas: int) -> conditions.Condition:
    """An autoscaler wants so many replicas."""

    def wants(scaler: Object) -> str | None:
        wanted, able = scaler.status.get("desiredReplicas"), scaler.condition("AbleToScale")
        return None if wanted == replicas else f"it wants {wanted}, and says: {able.get('message', 'nothing')}"

    wants.__name__ = f"wants {replicas} replicas"
    return wants


def _define(cluster: Cluster, manifest: dict[str, Any], timeouts: Timeouts) -> tuple[Object, Kind]:
    """Create a definition; its kind is served when this returns."""
    definition = cluster.create(manifest)
    eventually(definition, conditions.has_condition("Established"), within=timeouts.definition)
    spec = manifest["spec"]
    kind = kinds.custom(spec["group"], "v1", spec["names"]["kind"], spec["names"]["plural"])
    eventually(
        lambda: _status(cluster, kind.path()),
        conditions.equals(200),
        within=timeouts.definition,
        describe=f"{kind.path()} is served",
    )
    eventually(lambda: [each["name"] for each in _discovered(cluster, kind)], _names(kind), within=timeouts.definition)
    return definition, kind


def _discovered(cluster: Cluster, kind: Kind) -> list[dict[str, Any]]:
    """What discovery says of a kind's group."""
    found: list[dict[str, Any]] = cluster.client.get(f"/apis/{kind.api_version}")["resources"]
    return found


def _names(kind: Kind) -> Callable[[list[str]], str | None]:
    def discovery_names(resources: list[str]) -> str | None:
        """The kind is among them."""
        return (
            None
            if kind.plural in resources
            else f"discovery of {kind.api_version} names {resources}, not {kind.plural}"
        )

    return discovery_names


def _status(cluster: Cluster, path: str) -> int:
    return cluster.client.request("GET", path).status


def _warning(cluster: Cluster, path: str) -> str:
    """What is warned of when a path is read."""
    return cluster.client.request("GET", path).headers.get("Warning", "")


def _must_name(field: str, refusal: Refusal) -> None:
    # Of alternatives in a schema only the message tells.
    named = field in refusal.fields or f'"{field}" must' in refusal.message
    assert named, f"the refusal names {refusal.fields}, not {field}: {refusal.message}"


def _gadget(kind: Kind, name: str, /, **spec: Any) -> dict[str, Any]:
    return manifests.custom_object(kind, name, spec=spec)


def _dry(namespace: Namespace, kind: Kind, **spec: Any) -> int:
    """How creating an object would be answered; nothing is stored."""
    return namespace.answer_to(_gadget(kind, "dry", **spec)).status


def _apply(item: Object, manager: str, spec: dict[str, Any]) -> None:
    manifest = manifests.custom_object(item.kind, item.name, spec=spec)
    item.patch(manifest, type="apply", query={"fieldManager": manager})


def _owned(manifest: dict[str, Any], owner: Object, finalizers: list[str] | None = None) -> dict[str, Any]:
    reference = {"apiVersion": owner.kind.api_version, "kind": owner.kind.kind, "name": owner.name, "uid": owner.uid}
    manifest["metadata"] |= {"ownerReferences": [reference], "finalizers": finalizers or []}
    return manifest


def _is_being_deleted(item: Object) -> str | None:
    """Its deletion was asked for."""
    return None if item.deleting else "nobody has asked for its deletion"
