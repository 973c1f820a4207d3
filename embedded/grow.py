"""Nodes that come and go while a cluster runs: each a node like the others, with nothing left of it when it is gone."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from clusterproof import kinds
from clusterproof.conditions import ready
from clusterproof.errors import NeverHappened
from clusterproof.objects import Object
from clusterproof.wait import eventually

from . import cgroups, network, node, preflight, process
from .cluster import administrator, join
from .state import ClusterState, EmbeddedError, Node, namespace_name

READY = 60.0
"""Seconds for a node to be Ready; it takes two."""

Taint = dict[str, str]


def add(cluster: ClusterState, *, claim: str = "", taints: Sequence[Taint] = ()) -> Node:
    """Add a node to a cluster that runs; it has registered when this returns, and is Ready soon after.

    Whoever asks again with the same claim gets the same node. EmbeddedError, and nothing left behind, when it fails.
    """
    with cluster.changing():
        if not cluster.ready:
            raise EmbeddedError(f"cluster {cluster.name} is still being started: wait until it is ready")
        if claim and (there := [each for each in cluster.nodes if each.claim == claim]):
            return there[0]
        preflight.check_one_more(addons=bool(cluster.addons))
        artifacts, name_servers = node.like(cluster, cluster.nodes[0])
        made = cluster.plan_node(claim)
        cluster.save()  # whoever ends the cluster from now on knows of it
        try:
            network.add_node(cluster, made)
            network.make_known(cluster, made)
            processes = node.NodeProcesses(cluster, made, artifacts, name_servers)
            processes.prepare(Path(cluster.store))
            join(cluster, processes, taints)
            processes.start_kube_proxy()
        except BaseException:
            _take_away(cluster, made)
            raise
    return made


def await_ready(cluster: ClusterState, added: Node) -> None:
    """Wait until a node is Ready; EmbeddedError says what is missing."""
    try:
        eventually(Object(administrator(cluster), kinds.NODE, added.name), ready, within=READY * cluster.timeout_scale)
    except NeverHappened as late:
        log = process.tail(cluster.log(f"{added.name}/kubelet"))
        raise EmbeddedError(f"{late}; the log of its kubelet ends with:\n{log}") from late


def remove(cluster: ClusterState, name: str) -> None:
    """Take a node away as if its machine were switched off for ever, and everything that was made for it.

    Its pods are not moved before: whoever wants that drains it. EmbeddedError for the last node, or one that is not
    there.
    """
    with cluster.changing():
        leaving = cluster.node(name)
        if len(cluster.nodes) == 1:
            raise EmbeddedError(f"{name} is the only node of cluster {cluster.name}: end the cluster instead")
        _take_away(cluster, leaving)


def _take_away(cluster: ClusterState, leaving: Node) -> None:
    """Works from what the machine shows, however far the node's start came."""
    while processes := network.processes_in([namespace_name(cluster.name, leaving.name)]):
        process.kill(processes)
    process.reap()
    network.delete_node(cluster, leaving)
    cgroups.remove(cluster.name, leaving.name)
    administrator(cluster).request("DELETE", kinds.NODE.path(None, leaving.name))
    shutil.rmtree(cluster.node_folder(leaving), ignore_errors=True)
    shutil.rmtree(cluster.logs / leaving.name, ignore_errors=True)
    cluster.nodes.remove(leaving)
    cluster.anchors.pop(leaving.name, None)
    for program in [name for name, each in cluster.programs.items() if each.anchor == leaving.name]:
        del cluster.programs[program]
