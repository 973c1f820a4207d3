"""Volumes that can grow, be copied, be devices and go from node to node: a CSI driver of our own (modules/disks).

It is not the default StorageClass: most volumes of a run are better off on a node's own disk, which costs less. Its
controller and upstream's programs, which every driver has beside it, run beside the control plane; its part on each
node is started with the kubelet (node.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from clusterproof import kinds
from clusterproof.capabilities import CLAIM

from ... import loops
from ...builder import Artifacts
from ...controlplane import PLACE, kubeconfig
from ...pki import Authority
from ...process import Component, start
from ...state import CannotStart, ClusterState
from .. import Addon, Manifest
from ..manifests import read

DRIVER = "disks.clusterproof.dev"
CONTROLLER = "disks"
"""Name of the driver's controller among the programs that run."""
SIDECARS = ("csi-provisioner", "csi-attacher", "csi-resizer", "csi-snapshotter")
"""Programs that watch the API and ask the driver."""
SNAPSHOTS = "snapshot-controller"
"""What binds snapshots to their contents, whoever's driver makes them."""
LONGEST = 107
"""Bytes of a socket's path."""
CLASS = "disks"
"""Of claims, and of snapshots."""
_CLAIMED = ("storage.block", "storage.clones", "storage.shared")
"""Capabilities that only the StorageClass can tell of."""
_SOON = ("--retry-interval-start=100ms", "--retry-interval-max=2s")
"""What has to wait for something else is tried again as soon as that may be there: there are few volumes here."""
_DEFINITIONS = ("volumesnapshotclasses", "volumesnapshotcontents", "volumesnapshots")


def _manifests(cluster: ClusterState, artifacts: Artifacts) -> Iterable[Manifest]:
    crds = artifacts.source("csi-snapshotter") / "config/crd"
    yield from read(*(crds / f"snapshot.storage.k8s.io_{plural}.yaml" for plural in _DEFINITIONS))
    yield _manifest(kinds.CSI_DRIVER, DRIVER, spec={"attachRequired": True, "fsGroupPolicy": "File"})
    storage_class = _manifest(kinds.STORAGE_CLASS, CLASS, provisioner=DRIVER, allowVolumeExpansion=True)
    storage_class["metadata"]["labels"] = {f"{CLAIM}{name}": "true" for name in _CLAIMED}
    yield storage_class
    yield _manifest(kinds.VOLUME_SNAPSHOT_CLASS, CLASS, driver=DRIVER, deletionPolicy="Delete")


def _manifest(kind: kinds.Kind, name: str, **fields: Any) -> Manifest:
    return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": {"name": name}, **fields}


def _start(cluster: ClusterState, artifacts: Artifacts) -> Iterable[Component]:
    socket = cluster.folder / "disks.sock"
    if len(str(socket)) > LONGEST:
        raise CannotStart(f"add-on disks: {socket} is too long for a socket: set CLUSTERPROOF_STATE to a shorter path")
    assert cluster.disks is not None
    yield start(
        cluster, CONTROLLER, [artifacts.binary("disks"), f"--disks={cluster.disks}", f"--socket={socket}"], on=PLACE
    )
    authority = Authority(cluster.pki, "ca")
    for program in (*SIDECARS, SNAPSHOTS):
        config = kubeconfig(cluster, authority, program, program, ["system:masters"])
        flags = [f"--kubeconfig={config}", "--kube-api-qps=200", "--kube-api-burst=400", *_SOON]
        if program != SNAPSHOTS:
            flags.append(f"--csi-address={socket}")
        if program in ("csi-snapshotter", SNAPSHOTS):
            flags.append("--feature-gates=CSIVolumeGroupSnapshot=false")  # else it waits half a minute for definitions
        yield start(cluster, program, [artifacts.binary(program), *flags], on=PLACE)


ADDON = Addon(
    name="disks",
    capabilities=(
        "storage.attachment",
        "storage.expansion",
        "storage.snapshots",
        *_CLAIMED,
    ),
    manifests=_manifests,
    components=("disks", *SIDECARS),
    start=_start,
    refused=loops.refused,
)
