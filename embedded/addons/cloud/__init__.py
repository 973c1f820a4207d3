"""The cloud: a cloud controller manager that knows the nodes as its instances and gives load balancers addresses.

It is what makes a node fit for use: until it has said what the node is, the node has a taint that keeps pods away.
"""

from __future__ import annotations

from ...controlplane import ControlPlane
from .. import Addon

ADDON = Addon(
    name="cloud",
    capabilities=("network.loadbalancer", "cloud.nodes"),
    components=("cloud",),
    start=ControlPlane.start_cloud_controllers,
)
