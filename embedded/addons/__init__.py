"""Add-ons of an embedded cluster: one folder each, whose module has an `ADDON`.

An add-on is its upstream's own manifests, read from the pinned module, with the changes that its folder names; or a
program of the control plane; or both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from clusterproof import kinds
from clusterproof.client import Client
from clusterproof.conditions import Condition, has_condition, rolled_out
from clusterproof.kinds import Kind
from clusterproof.objects import Object
from clusterproof.wait import eventually

from ..builder import Artifacts
from ..process import Component
from ..state import CannotStart, ClusterState

NAMES = (
    "cloud",
    "dns",
    "metrics",
    "custom-metrics",
    "ingress",
    "storage",
    "disks",
    "vpa",
    "cert-manager",
    "network-policies",
)
"""Those that a cluster has if none are named and the machine can run them, in the order in which they are started."""
DISRUPTIVE = ("autoscaler",)
"""Those for disruptive promises."""
FEDERATED = ("clusterset",)
"""Those for promises about several clusters."""
ALL = (*FEDERATED, *NAMES, *DISRUPTIVE)
"""All there are, in that order."""

WITH_NODES = ("cloud",)
"""Programs alone, whose user may do anything: they start with the nodes, while the API server still makes its roles."""
FIRST = (*WITH_NODES, "clusterset", "dns")
"""What nodes and nearly all pods wait for: the many objects and pods of the others come once it is there."""

ESTABLISHED = 20.0
"""Seconds for a definition to be served."""

Manifest = dict[str, Any]


def _nothing(*_: object) -> tuple[()]:
    return ()


def _never() -> str:
    return ""


@dataclass(frozen=True, slots=True)
class Addon:
    """Something a cluster has beyond its nodes, and what it takes to have it."""

    name: str
    capabilities: tuple[str, ...]
    """What the cluster can do with it."""
    images: tuple[str, ...] = ()
    """Names from images.py."""
    manifests: Callable[[ClusterState, Artifacts], Iterable[Manifest]] = _nothing
    workloads: tuple[tuple[Kind, str, str], ...] = ()
    """(kind, namespace, name) of what must be available for the add-on to work."""
    components: tuple[str, ...] = ()
    """Names from components.py, beyond those that its images are made of."""
    start: Callable[[ClusterState, Artifacts], Iterable[Component]] = _nothing
    """Starts the programs that it has beside the control plane's."""
    nodes: int = 0
    """How many nodes it may add."""
    needs: tuple[str, ...] = ()
    """Names of the add-ons without which it does nothing; whoever asks for it gets them, too."""
    refused: Callable[[], str] = _never
    """Why this machine cannot run it, and what to do about that; empty when it can."""


def usual() -> tuple[str, ...]:
    """Names of the add-ons that a cluster has if none are named: those of `NAMES` that this machine can run."""
    return tuple(addon.name for addon in named(NAMES) if not addon.refused())


def serving(needs: Iterable[str], among: Sequence[str]) -> tuple[str, ...]:
    """Names of those add-ons that clusters always have, or that give them one of these capabilities or a part of it."""
    wanted = tuple(needs)
    return tuple(
        addon.name
        for addon in named(among)
        if addon.name in FIRST or any(f"{need}.".startswith(f"{had}.") for need in wanted for had in addon.capabilities)
    )


def named(names: Iterable[str]) -> list[Addon]:
    """The add-ons of these names, and those that they need; CannotStart names those there are."""
    wanted = set(names)
    if unknown := sorted(wanted - set(ALL)):
        raise CannotStart(f"--addons: there is no {', '.join(unknown)}; choose from: {', '.join(ALL)}")
    found: dict[str, Addon] = {name: _module(name).ADDON for name in ALL if name in wanted}
    if lacking := {need for addon in found.values() for need in addon.needs} - wanted:
        return named(wanted | lacking)
    return list(found.values())


def _module(name: str) -> Any:
    return import_module(f"{__name__}.{name.replace('-', '_')}")


def apply(
    cluster: ClusterState, artifacts: Artifacts, client: Client, chosen: Sequence[Addon], started: list[Component]
) -> None:
    """Create all objects of these add-ons, which become ready on their own; `started` gets the programs they have."""
    for addon in chosen:
        defined: dict[str, str] = {}
        for manifest in addon.manifests(cluster, artifacts):
            kind = kinds.of(manifest)
            if definition := defined.pop(kind.kind, ""):
                eventually(
                    Object(client, kinds.CUSTOM_RESOURCE_DEFINITION, definition),
                    has_condition("Established"),
                    within=ESTABLISHED * cluster.timeout_scale,
                )
            client.post(kind.path(manifest["metadata"].get("namespace", "")), manifest)
            if kind == kinds.CUSTOM_RESOURCE_DEFINITION:
                defined[manifest["spec"]["names"]["kind"]] = manifest["metadata"]["name"]
        started.extend(addon.start(cluster, artifacts))


def await_ready(addon: Addon, client: Client, within: float) -> None:
    """Wait until every workload of an add-on is available; NeverHappened says which one is not."""
    for kind, namespace, name in addon.workloads:
        works: Condition = has_condition("Available") if kind == kinds.API_SERVICE else rolled_out
        eventually(Object(client, kind, name, namespace), works, within=within)
