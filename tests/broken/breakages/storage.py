"""Storage: volumes that are not made."""

from __future__ import annotations

from typing import Any

from clusterproof import kinds

from ..registry import Damage, breakage
from ..subject import Subject


@breakage(
    breaks={"storage/dynamic": r"no default class was entered"},
    keeps=["storage/binding"],
)
def default_storage_class_missing(subject: Subject) -> Damage:
    """The cluster claims to make volumes, but no StorageClass is the default."""

    def change(storage_class: dict[str, Any]) -> None:
        storage_class["metadata"]["annotations"]["storageclass.kubernetes.io/is-default-class"] = "false"

    with subject.changed(kinds.STORAGE_CLASS, "local-path", "", change):
        yield ["--capabilities=storage.dynamic"]
