"""Multi-Cluster Services (KEP-1645): what the clusters of a ClusterSet export to each other.

The API is upstream's, the names are CoreDNS' (the dns add-on serves `clusterset.local` beside it), and what carries
exports from one cluster to the other is our own (modules/clusterset), which runs beside the control plane. A cluster is
a member for itself until it is joined with others: see `clusterset.py` of this room.
"""

from __future__ import annotations

from collections.abc import Iterable

from ...builder import Artifacts
from ...clusterset import PROGRAM, enter
from ...controlplane import PLACE
from ...process import Component, start
from ...state import ClusterState
from .. import Addon, Manifest
from ..manifests import read

_DEFINITIONS = ("serviceexports", "serviceimports")


def _manifests(cluster: ClusterState, artifacts: Artifacts) -> Iterable[Manifest]:
    crds = artifacts.source("clusterset") / "config/crd"
    return read(*(crds / f"multicluster.x-k8s.io_{plural}.yaml" for plural in _DEFINITIONS))


def _start(cluster: ClusterState, artifacts: Artifacts) -> Iterable[Component]:
    enter(cluster)
    flags = [f"--cluster={cluster.name}", f"--members={cluster.members}"]
    yield start(cluster, PROGRAM, [artifacts.binary("clusterset"), *flags], on=PLACE)


ADDON = Addon(
    name="clusterset",
    capabilities=("federation.mcs",),
    manifests=_manifests,
    components=("clusterset",),
    start=_start,
    needs=("dns",),
)
