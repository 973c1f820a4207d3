"""Upstream's manifests, read from the pinned modules, and the changes that add-ons make to them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from .. import cache

Manifest = dict[str, Any]


def read(*paths: Path) -> list[Manifest]:
    """All objects of these YAML files, kept as JSON in the cache: parsing a large YAML takes seconds."""
    digest = cache.key([str(path) for path in paths])  # a module's path names its version

    def make(folder: Path) -> None:
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        found = [one for path in paths for one in yaml.load_all(path.read_text(), loader) if one]
        (folder / "manifests.json").write_text(json.dumps(found))

    folder = cache.obtain("manifests", paths[0].stem, digest, make, lambda line: None)
    objects: list[Manifest] = json.loads((folder / "manifests.json").read_text())
    return objects


def of_kind(manifests: Iterable[Manifest], kind: str, name: str = "") -> Manifest:
    """The only object of a kind, or of a kind and name."""
    (found,) = (one for one in manifests if one["kind"] == kind and name in ("", one["metadata"]["name"]))
    return found


def pod_spec(workload: Manifest) -> dict[str, Any]:
    """The pod template's spec of a Deployment, DaemonSet or StatefulSet."""
    spec: dict[str, Any] = workload["spec"]["template"]["spec"]
    return spec


def container(workload: Manifest, name: str) -> dict[str, Any]:
    """A container of a workload's pods, init containers included."""
    spec = pod_spec(workload)
    all_containers: list[dict[str, Any]] = [*spec["containers"], *spec.get("initContainers", [])]
    (found,) = (one for one in all_containers if one["name"] == name)
    return found


def probe_often(of: dict[str, Any]) -> None:
    """Probe readiness every second from the start: upstream's pauses are most of a small cluster's start."""
    of["readinessProbe"] |= {"initialDelaySeconds": 0, "periodSeconds": 1}
