"""Where a cluster comes from. Suites never see a provider; the `cluster` fixture does."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import pytest

GROUP = "clusterproof.providers"
"""Entry-point group; the entry point's name is what users type after `--cluster`."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What the user asked the cluster to be; a provider that cannot make it raises `pytest.UsageError`."""

    name: str
    nodes: int = 2
    """Nodes in all, the control plane's included where it runs pods."""
    kubernetes_version: str = ""
    """`1.37.2`; empty for the provider's default."""
    kubeconfig: Path | None = None
    """Only for clusters that exist already."""
    context: str = ""
    """Context in the kubeconfig; empty for its current one."""
    layout: str = ""
    """Name or file of a provider's own description of the nodes; then `nodes` counts for nothing."""
    node_image: str = ""
    """Image of the nodes, where they are containers; empty for the provider's default."""
    reuse: bool = False
    """A cluster of that name that is there already is the one that is meant."""
    keep: bool = False
    """The cluster is to stay when the run has ended, however it ends."""
    disruptive: bool = False
    """The run may disturb it as a whole: it is to have what changes the number of its nodes, where that can be had."""
    peered: bool = False
    """Another cluster is to be there beside it, joined with it to a ClusterSet: `Access.peer`."""
    namespaces: tuple[str, ...] = ()
    """Of a cluster that exists already: those that are lent to the run, whose user may make none."""
    needs: frozenset[str] | None = None
    """Names of the capabilities that the run's promises ask for; None where they are not known, or may yet change.

    A provider may leave out what nobody asks for.
    """
    timeout_scale: float = 1.0
    """What the seconds are multiplied with that the cluster may take to be there."""


@dataclass(frozen=True, slots=True)
class Access:
    """How to reach a cluster that a provider made or found. Plain data: it travels between processes as JSON."""

    provider: str
    name: str
    kubeconfig: str
    """Path of a kubeconfig file."""
    context: str = ""
    capabilities: tuple[str, ...] = ()
    """Names of capabilities that the provider vouches for."""
    images: dict[str, str] = field(default_factory=dict)
    """Image map entries this cluster has under another name: `{"agnhost": "registry.example/agnhost:2.66"}`."""
    ingress_address: str = ""
    """`host:port` at which the runner reaches the ingress controller; empty to find it from Ingress status."""
    node_hosts: str = ""
    """How nodes are looked at from inside, as `--node-hosts` has it: `docker://{name}`; empty when it is not known.

    A machine of the control plane that is no node may be among them, under a name of its own.
    """
    peer: Access | None = None
    """Another cluster of the same ClusterSet, where there is one."""
    details: dict[str, Any] = field(default_factory=dict)
    """What else this provider knows of it; `remove` is the command that removes a cluster that was kept."""


class Provider(Protocol):
    """Makes clusters, or finds them."""

    def create(self, shape: Shape) -> Access:
        """Block until the API answers and nodes are Ready. On failure nothing is left behind."""

    def delete(self, access: Access) -> None:
        """Remove what `create` made. Safe to call twice; leaves clusters alone that were only found."""

    def adopt(self, access: Access) -> None:
        """Another process goes on with the cluster: the one that had it made was killed."""

    def collect_logs(self, access: Access, into: Path) -> None:
        """Write the logs of the cluster's own components into a folder, one file each."""


@runtime_checkable
class Operator(Protocol):
    """What a provider may be besides, when it runs the control plane itself: it vouches for `health.operator` then."""

    def stop(self, access: Access, program: str) -> None:
        """End a program of the control plane (`etcd`) or of a node (`node-1/kubelet`) at once, as a crash would."""

    def start(self, access: Access) -> None:
        """Start whatever has ended. Safe to call when everything runs."""


def registered() -> dict[str, EntryPoint]:
    """Every provider that is installed, by the name that users type."""
    return {point.name: point for point in entry_points(group=GROUP)}


def load(name: str) -> Provider:
    """The provider that is registered under a name; UsageError names those there are."""
    found = registered()
    if name not in found:
        raise pytest.UsageError(f"--cluster={name}: no such provider; registered are {', '.join(sorted(found))}")
    provider: Provider = found[name].load()()
    return provider
