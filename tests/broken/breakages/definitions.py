"""What users define, custom kinds, policies and storage classes, loses one thing on its way to the API server."""

from __future__ import annotations

from typing import Any

from .apis import Change, rewritten_on_the_way, without

SUBTLE = ("format", "multipleOf", "exclusiveMinimum", "minItems", "minLength", "maxProperties")
"""What a schema may say beside types, ranges, patterns and enumerations."""


def _without_finalizers(item: dict[str, Any]) -> None:
    item["metadata"].pop("finalizers", None)


def _first_owner_only(item: dict[str, Any]) -> None:
    if owners := item["metadata"].get("ownerReferences"):
        item["metadata"]["ownerReferences"] = owners[:1]


def _versions_without(*fields: str) -> Change:
    """No version of a custom kind says anything of these fields."""

    def change(definition: dict[str, Any]) -> None:
        for version in definition["spec"]["versions"]:
            for field in fields:
                version.pop(field, None)

    return change


def _schemas_without(*keywords: str) -> Change:
    """No schema of a custom kind says anything by these keywords, at any depth."""

    def change(definition: dict[str, Any]) -> None:
        for version in definition["spec"]["versions"]:
            _simplify(version["schema"], keywords)

    return change


def _simplify(schema: Any, keywords: tuple[str, ...]) -> None:
    for each in schema if isinstance(schema, list) else []:
        _simplify(each, keywords)
    if isinstance(schema, dict):
        for keyword in keywords:
            schema.pop(keyword, None)
        for each in schema.values():
            _simplify(each, keywords)


def _all_served(definition: dict[str, Any]) -> None:
    for version in definition["spec"]["versions"]:
        version["served"] = True


def _immediate(storage_class: dict[str, Any]) -> None:
    storage_class["volumeBindingMode"] = "Immediate"


def _deleted(storage_class: dict[str, Any]) -> None:
    storage_class["reclaimPolicy"] = "Delete"


def _mutable(item: dict[str, Any]) -> None:
    item.pop("immutable", None)


def _without_owners(item: dict[str, Any]) -> None:
    item["metadata"].pop("ownerReferences", None)


def _divided(pod: dict[str, Any]) -> None:
    shared = {each["name"] for each in pod["spec"].get("volumes", []) if "persistentVolumeClaim" in each}
    for container in pod["spec"]["containers"]:
        for mount in container.get("volumeMounts", []):
            if mount["name"] in shared:
                mount["subPath"] = pod["metadata"]["name"]


def _confused(pod: dict[str, Any]) -> None:
    claimed = [each["name"] for each in pod["spec"].get("volumes", []) if "persistentVolumeClaim" in each]
    for container in pod["spec"]["containers"]:
        for mount in container.get("volumeMounts", []):
            if mount["name"] in claimed:
                mount["name"] = claimed[0]


def _for_any_access(volume: dict[str, Any]) -> None:
    volume["spec"]["accessModes"] = ["ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany"]


def _of_any_class(volume: dict[str, Any]) -> None:
    volume["spec"]["storageClassName"] = volume["spec"]["storageClassName"].removesuffix("-other")


rewritten_on_the_way(
    "finalizers_lost",
    "Nothing holds a deleted ConfigMap.",
    "configmaps",
    _without_finalizers,
    breaks={
        "api/garbage_collection/finalizers": r"ConfigMap \S+/item is gone although .* hold it",
        "api/namespaces/finalizers": r"NamespaceFinalizersRemaining.*: not within",
    },
    keeps=["api/garbage_collection/background"],
)
rewritten_on_the_way(
    "second_owners_forgotten",
    "An object belongs to the first of its owners alone.",
    "configmaps",
    _first_owner_only,
    breaks={"api/garbage_collection/second_owner": r"ConfigMap \S+/child .*(second|gone)"},
    keeps=["api/garbage_collection/background"],
)
rewritten_on_the_way(
    "status_written_with_spec",
    "Custom objects have no subresources.",
    "customresourcedefinitions",
    _versions_without("subresources"),
    breaks={"extend/crd/subresources": r"the status of \S+ \S+/mine MUST NOT be written with it"},
    keeps=["extend/crd/schema"],
)
rewritten_on_the_way(
    "schemas_simplified",
    "Custom objects are checked for types, ranges and patterns, and not for sizes and formats.",
    "customresourcedefinitions",
    _schemas_without(*SUBTLE),
    breaks={
        "extend/crd/schema": r"with the spec \{'size': 1, 'marks': .* MUST be refused with 422, but it was accepted"
    },
    keeps=["extend/crd/rules"],
)
rewritten_on_the_way(
    "schemas_without_alternatives",
    "Custom objects are checked against each part of their schema, and not for which of several parts go together.",
    "customresourcedefinitions",
    _schemas_without("oneOf", "anyOf", "not"),
    breaks={
        "extend/crd/schema": r"with the spec \{'size': 1, 'source': \{\}\} MUST be refused with 422, but it was acc"
    },
    keeps=["extend/crd/rules"],
)
rewritten_on_the_way(
    "embedded_objects_unchecked",
    "Objects within custom objects need be none.",
    "customresourcedefinitions",
    _schemas_without("x-kubernetes-embedded-resource"),
    breaks={
        "extend/crd/schema": r"with the spec \{'size': 1, 'template': .* MUST be refused with 422, but it was accep"
    },
    keeps=["extend/crd/rules"],
)
rewritten_on_the_way(
    "deprecations_untold",
    "Nobody is told that a version of a custom kind is deprecated.",
    "customresourcedefinitions",
    _versions_without("deprecated", "deprecationWarning"),
    breaks={"extend/crd/versions": r"is deprecated for v2, but its users are warned ''"},
    keeps=["extend/crd/schema"],
)
rewritten_on_the_way(
    "columns_forgotten",
    "Custom objects are printed without the columns of their definition.",
    "customresourcedefinitions",
    _versions_without("additionalPrinterColumns"),
    breaks={"extend/crd/served": r"printed in the columns Name and Size, not .*Age"},
    keeps=["extend/crd/schema"],
)
rewritten_on_the_way(
    "selectable_fields_forgotten",
    "Custom objects are selected by no field of their own.",
    "customresourcedefinitions",
    _versions_without("selectableFields"),
    breaks={"extend/crd/selectable_fields": r"400 BadRequest: .*spec\.color"},
    keeps=["extend/crd/schema"],
)
rewritten_on_the_way(
    "every_version_served",
    "Custom objects are served in versions that are not to be.",
    "customresourcedefinitions",
    _all_served,
    breaks={"extend/crd/versions": r"\S+/v3 MUST NOT be served"},
    keeps=["extend/crd/schema"],
)
rewritten_on_the_way(
    "policies_everywhere",
    "Admission policies are bound to all namespaces.",
    "validatingadmissionpolicybindings",
    without("matchResources"),
    breaks={"api/admission_policies/scope": r"red is not allowed"},
    keeps=["api/crud_conflict/validation"],
)
rewritten_on_the_way(
    "volumes_made_at_once",
    "Claims get their volumes before any pod needs them.",
    "storageclasses",
    _immediate,
    breaks={"storage/wait_for_first_consumer": r"WaitForFirstConsumer.*not within|has a volume although no pod"},
    keeps=["storage/binding"],
)
rewritten_on_the_way(
    "volumes_never_kept",
    "Volumes go with their claims, whatever their class says.",
    "storageclasses",
    _deleted,
    breaks={"storage/reclaim[Retain]": r"PersistentVolume \S+ has the reclaim policy Delete, its class \S+ Retain"},
    keeps=["storage/binding"],
)
rewritten_on_the_way(
    "nothing_immutable",
    "ConfigMaps can be changed that are said to be immutable.",
    "configmaps",
    _mutable,
    breaks={
        "api/crud_conflict/immutable": r"sealed, which is immutable, MUST be refused with 422, but it was accepted"
    },
    keeps=["api/crud_conflict/validation"],
)
rewritten_on_the_way(
    "custom_objects_without_owners",
    "Custom objects belong to nobody.",
    "gadgets",
    _without_owners,
    breaks={"extend/crd/ownership": r"/(child|grandchild) gone: not within"},
    keeps=["extend/crd/schema"],
)
rewritten_on_the_way(
    "volumes_divided",
    "Each pod has a folder of its own in a volume that it shares with others.",
    "pods",
    _divided,
    breaks={
        "storage/data_survives": r"Pod \S+/reader",
        "storage/shared_by_pods": r"Pod \S+/reader succeeded: not within",
        "storage/reclaim[Retain]": r"was left with .*, and Pod \S+/reader of the next claim found",
    },
    keeps=["storage/binding"],
)
rewritten_on_the_way(
    "claims_share_a_volume",
    "Two claims of a pod have their data at the same place.",
    "pods",
    _confused,
    breaks={"storage/dynamic": r"have new volumes of their own, and Pod \S+/writer found on them: \{'blob'\}"},
    keeps=["storage/binding"],
)
rewritten_on_the_way(
    "volumes_bound_for_any_access",
    "Claims get volumes that are not for the access that they ask for.",
    "persistentvolumes",
    _for_any_access,
    breaks={"storage/binding": r"of 1500Mi .*got \S+-access, not the 2Gi one"},
    keeps=["storage/no_expansion"],
)
rewritten_on_the_way(
    "volumes_bound_of_any_class",
    "Claims get volumes of another class than theirs.",
    "persistentvolumes",
    _of_any_class,
    breaks={"storage/binding": r"of 1500Mi .*got \S+-class, not the 2Gi one"},
    keeps=["storage/no_expansion"],
)
