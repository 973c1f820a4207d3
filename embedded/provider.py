"""The `embedded` provider: what `pytest suites/` uses when no cluster is named."""

from __future__ import annotations

import contextlib
import os
import shutil
from dataclasses import replace
from pathlib import Path

from clusterproof.capabilities import OPERATOR
from clusterproof.provider import Access, Shape

from . import addons, cluster, clusterset, operate, state
from .components import DEFAULT_KUBERNETES
from .state import CannotStart


class Embedded:
    """A cluster from plain processes on this machine."""

    def create(self, shape: Shape) -> Access:
        """Start a cluster with the add-ons that it needs; EmbeddedError, and nothing left behind, when that fails."""
        version = shape.kubernetes_version or DEFAULT_KUBERNETES
        if shape.reuse and (there := [each for each in state.clusters() if each.name == shape.name and each.ready]):
            if shape.peered and not there[0].peers:
                raise CannotStart(f"cluster {shape.name} is joined with no other one; see: clusterproof join --help")
            _check_reuse(there[0], shape)
            return access(there[0])
        offered = (*addons.usual(), *(addons.DISRUPTIVE if shape.disruptive else ()))
        chosen = offered if shape.needs is None else addons.serving(shape.needs, offered)
        owner = 0 if shape.keep else os.getpid()
        # All images, whatever is started: nodes of all runs begin with the same store of them.
        everything = tuple(image for addon in addons.named(offered) for image in addon.images)
        plan = cluster.Plan(shape.name, shape.nodes, version, chosen, everything, owner, shape.timeout_scale)
        return access(up_with_peer(plan) if shape.peered else cluster.up(plan, print))

    def delete(self, access: Access) -> None:
        """End it, and the one beside it, and remove every trace."""
        known = {each.name for each in state.clusters()}
        for name in _made_here(access):
            if name in known:
                cluster.down(name)

    def adopt(self, access: Access) -> None:
        """From now on it ends with this process's run, unless it is one that stays."""
        for name in _made_here(access):
            if (found := state.load(name)).owner:
                with found.changing():
                    found.owner, found.launcher = os.getpid(), state.identity(os.getpid())

    def collect_logs(self, access: Access, into: Path) -> None:
        """One file for each component of each node; and in `pods`, what those have said that still run there."""
        found = state.load(access.name)
        shutil.copytree(found.logs, into, dirs_exist_ok=True)
        for node in found.nodes:
            with contextlib.suppress(shutil.Error):  # pods go, and their logs with them
                shutil.copytree(found.node_folder(node) / "log/pods", into / node.name / "pods")

    def stop(self, access: Access, program: str) -> None:
        """End a program at once."""
        operate.stop(state.load(access.name), program)

    def start(self, access: Access) -> None:
        """Start everything that has ended, as whoever watches over the programs of other clusters does."""
        operate.mend(state.load(access.name))


def peer_of(name: str) -> str:
    """What the cluster is called that is started beside another one."""
    return f"{name[:35].rstrip('-')}-peer"


def up_with_peer(plan: cluster.Plan) -> state.ClusterState:
    """Start a cluster, and beside it a small one that it is joined with."""
    beside = replace(plan, name=peer_of(plan.name), nodes=1, addons=addons.FEDERATED)
    with contextlib.ExitStack() as undo:
        one = cluster.up(replace(plan, addons=(*addons.FEDERATED, *plan.addons)), print)
        undo.callback(cluster.down, one.name)
        other = cluster.up(beside, print)
        undo.callback(cluster.down, other.name)
        clusterset.join(one, other)
        undo.pop_all()
    return one


def _check_reuse(there: state.ClusterState, shape: Shape) -> None:
    """CannotStart when a cluster is not what was asked for, as far as anything was: the default may be anybody's."""
    mine, asked = there.kubernetes_version.removeprefix("v"), shape.kubernetes_version.removeprefix("v")
    counted = sum(not node.claim for node in there.nodes)  # those that the autoscaler has added come and go
    if asked not in ("", mine):
        differs = f"runs Kubernetes {mine}, and {asked} was asked for"
    elif shape.nodes not in (Shape(shape.name).nodes, counted):
        differs = f"has {counted} nodes, and {shape.nodes} were asked for"
    else:
        return
    raise CannotStart(
        f"cluster {shape.name} {differs}: remove it with `clusterproof down --name {shape.name}`, or choose another "
        f"name with --cluster-name"
    )


def _made_here(access: Access) -> list[str]:
    """Names of the clusters of a run that this provider has made; the second one may be somebody else's."""
    return [each.name for each in (access.peer, access) if each and each.provider == "embedded"]


def access(made: state.ClusterState) -> Access:
    """How to reach a cluster that is up, and the first one that it is joined with."""
    alone = _access(made)
    if not made.peers:
        return alone
    remove = " && ".join(f"clusterproof down --name {name}" for name in (made.name, *made.peers))
    return replace(alone, peer=_access(state.load(made.peers[0])), details={"remove": remove})


def _access(made: state.ClusterState) -> Access:
    """How to reach a cluster, and what it vouches for."""
    return Access(
        provider="embedded",
        name=made.name,
        kubeconfig=str(made.kubeconfig),
        capabilities=(*cluster.capabilities(addons.named(made.addons)), OPERATOR.name),
        node_hosts=",".join(f"{place}=nsenter://{pid}" for place, pid in made.anchors.items()),
        ingress_address=f"{made.nodes[0].address}:80" if "ingress" in made.addons else "",
    )
