"""The cloud: a cloud controller manager that knows the nodes as its instances and gives load balancers addresses.

It is what makes a node fit for use: until it has said what the node is, the node has a taint that keeps pods away. It
runs beside the control plane's managers, where the router is that leads to load balancers.
"""

from __future__ import annotations

from collections.abc import Iterable

from ...builder import Artifacts
from ...controlplane import PLACE, manager_flags
from ...pki import Authority
from ...process import Component, start
from ...state import ClusterState
from .. import Addon

PROGRAM = "cloud-controller-manager"


def _start(cluster: ClusterState, artifacts: Artifacts) -> Iterable[Component]:
    flags = [
        *manager_flags(cluster, Authority(cluster.pki, "ca"), PROGRAM, PROGRAM, ["system:masters"]),
        "--cloud-provider=embedded",
        f"--cloud-config={cluster.folder / 'state.json'}",
        f"--load-balancer-network={cluster.balancer_network}",
        f"--cluster-name={cluster.name}",
        "--allocate-node-cidrs=false",
        "--configure-cloud-routes=false",
        "--webhook-secure-port=0",  # it has no webhooks, and would make keys for them
        "--node-monitor-period=2s",
        "--concurrent-node-syncs=4",
        "--concurrent-service-syncs=4",
        "--kube-api-qps=200",
        "--kube-api-burst=400",
    ]
    yield start(cluster, PROGRAM, [artifacts.binary(PROGRAM), *flags], on=PLACE)


ADDON = Addon(
    name="cloud",
    capabilities=("network.loadbalancer", "cloud.nodes"),
    components=("cloud",),
    start=_start,
)
