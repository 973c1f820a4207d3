"""The `embedded` provider: what `pytest suites/` uses when no cluster is named."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from clusterproof.capabilities import OPERATOR
from clusterproof.provider import Access, Shape

from . import addons, cluster, operate, state
from .components import DEFAULT_KUBERNETES


class Embedded:
    """A cluster from plain processes on this machine."""

    def create(self, shape: Shape) -> Access:
        """Start a cluster with its add-ons; EmbeddedError, and nothing left behind, when that fails."""
        version = shape.kubernetes_version or DEFAULT_KUBERNETES
        if shape.reuse and (there := [each for each in state.clusters() if each.name == shape.name and each.ready]):
            return access(there[0])
        chosen = (*addons.usual(), *(addons.DISRUPTIVE if shape.disruptive else ()))
        plan = cluster.Plan(shape.name, shape.nodes, version, chosen, owner=0 if shape.keep else os.getpid())
        return access(cluster.up(plan, print))

    def delete(self, access: Access) -> None:
        """End it and remove every trace."""
        if any(known.name == access.name for known in state.clusters()):
            cluster.down(access.name)

    def adopt(self, access: Access) -> None:
        """From now on it ends with this process's run, unless it is one that stays."""
        found = state.load(access.name)
        if found.owner:
            with found.changing():
                found.owner, found.launcher = os.getpid(), state.identity(os.getpid())

    def collect_logs(self, access: Access, into: Path) -> None:
        """One file for each component of each node."""
        shutil.copytree(state.load(access.name).logs, into, dirs_exist_ok=True)

    def stop(self, access: Access, program: str) -> None:
        """End a program at once."""
        operate.stop(state.load(access.name), program)

    def start(self, access: Access) -> None:
        """Start everything that has ended, as whoever watches over the programs of other clusters does."""
        operate.mend(state.load(access.name))


def access(made: state.ClusterState) -> Access:
    """How to reach a cluster that is up, and what it vouches for."""
    return Access(
        provider="embedded",
        name=made.name,
        kubeconfig=str(made.kubeconfig),
        capabilities=(*cluster.capabilities(addons.named(made.addons)), OPERATOR.name),
        node_hosts=",".join(f"{place}=nsenter://{pid}" for place, pid in made.anchors.items()),
        ingress_address=f"{made.nodes[0].address}:80" if "ingress" in made.addons else "",
    )
