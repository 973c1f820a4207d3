"""The manifests that run the suites inside a cluster, and what may be different in them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent

SETS = {
    "access": "namespace, rights and volume, which the others need",
    "nightly": "a CronJob",
    "shards": "one run over several pods",
    "reader": "a pod to look at the results from",
}
"""Names of the sets, with what is in each."""


def text(sets: Iterable[str], image: str, shards: int) -> str:
    """The manifests of some sets as YAML, for an image and a number of shards."""
    return "---\n".join(yaml.safe_dump(each, sort_keys=False) for each in read(sets, image, shards))


def read(sets: Iterable[str], image: str, shards: int) -> list[dict[str, Any]]:
    """The manifests of some sets, for an image and a number of shards."""
    found = [each for name in sets for each in yaml.safe_load_all((HERE / f"{name}.yaml").read_text())]
    for each in found:
        for pod in pods(each):
            for container in pod.get("initContainers", []) + pod["containers"]:
                container["image"] = image
        if each["kind"] == "Job" and each["spec"].get("completionMode") == "Indexed":
            each["spec"]["completions"] = each["spec"]["parallelism"] = shards
    return found


def pods(manifest: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The specs of the pods that a manifest makes."""
    match manifest:
        case {"kind": "Pod", "spec": spec}:
            yield spec
        case {"kind": "Job", "spec": {"template": {"spec": spec}}}:
            yield spec
        case {"kind": "CronJob", "spec": {"jobTemplate": {"spec": {"template": {"spec": spec}}}}}:
            yield spec
