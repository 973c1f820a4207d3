"""Joining embedded clusters to a ClusterSet: their networks reach each other, and their controllers see all exports.

Who is a member is a folder of each cluster: it has a kubeconfig for every one. The controller (modules/clusterset)
begins anew when that changes.
"""

from __future__ import annotations

import contextlib
import shutil

from . import network, state
from .controlplane import kubeconfig
from .pki import Authority
from .state import ClusterState, EmbeddedError

PROGRAM = "clusterset"
"""Name of the controller among the programs that run."""


def enter(cluster: ClusterState) -> None:
    """Make a cluster the only member of its own ClusterSet."""
    cluster.members.mkdir()
    config = cluster.members / f"{cluster.name}.kubeconfig"
    kubeconfig(cluster, Authority(cluster.pki, "ca"), PROGRAM, PROGRAM, ["system:masters"], config)


def join(one: ClusterState, other: ClusterState) -> None:
    """Join two clusters that run; EmbeddedError where one of them cannot be, or they are already."""
    for each in (one, other):
        if PROGRAM not in each.programs:
            raise EmbeddedError(f"cluster {each.name} has no add-on {PROGRAM}: start it with --addons that name it")
    if one.name == other.name:
        raise EmbeddedError(f"cluster {one.name} cannot be joined with itself")
    if other.name in one.peers:
        raise EmbeddedError(f"clusters {one.name} and {other.name} are joined already")
    network.connect(one, other)
    for each, beside in ((one, other), (other, one)):
        with each.changing():
            each.peers.append(beside.name)
        known = f"{beside.name}.kubeconfig"
        # Whole or not at all: the controller looks at any time.
        draft = each.members / f".{known}"
        shutil.copy2(beside.members / known, draft)
        draft.rename(each.members / known)


def leave(cluster: ClusterState) -> None:
    """Make the others forget a cluster that ends; its network takes the links along."""
    for name in cluster.peers:
        with contextlib.suppress(EmbeddedError, OSError):  # it ends, too
            other = state.load(name)
            (other.members / f"{cluster.name}.kubeconfig").unlink(missing_ok=True)
            with other.changing():
                other.peers = [each for each in other.peers if each != cluster.name]
