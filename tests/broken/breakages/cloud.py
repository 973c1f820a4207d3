"""The cloud: what it says of nodes, and its load balancers."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address
from typing import Any

from clusterproof import kinds
from clusterproof.errors import ApiError
from clusterproof.objects import Object, Selection

from ..registry import Damage, breakage
from ..subject import CLOUD, Subject

_NO_ADDRESS = r"has address: not within .*its status carries no address"


@breakage(
    breaks={
        "network/load_balancer/address": _NO_ADDRESS,
        "network/load_balancer/source_ranges": _NO_ADDRESS,
        "network/load_balancer/client_address": _NO_ADDRESS,
        "nodes/cloud/initialization": r"it still has the taint node.cloudprovider.kubernetes.io/uninitialized",
        "nodes/cloud/removal": r"is removed, as the cloud has no \S+: not within",
    },
    keeps=["network/load_balancer/health_check_port", "nodes/cloud/description"],
)
def cloud_controllers_stopped(subject: Subject) -> Damage:
    """The cloud controller manager does not run."""
    with subject.stopped(CLOUD):
        yield []


@breakage(
    breaks={"nodes/cloud/description": r"-node-2: it still has the taint node.cloudprovider.kubernetes.io"},
    keeps=["health/livez"],
)
def node_not_initialized(subject: Subject) -> Damage:
    """The cloud has not looked at one of the nodes."""

    def anew(node: dict[str, Any]) -> None:
        taint = {"key": "node.cloudprovider.kubernetes.io/uninitialized", "value": "true", "effect": "NoSchedule"}
        node["spec"].setdefault("taints", []).append(taint)

    with subject.stopped(CLOUD), subject.changed(kinds.NODE, subject.nodes[1], "", anew):
        yield []


@breakage(
    breaks={
        "nodes/cloud/description": r"-node-2 has no label topology.kubernetes.io/zone, but \S+-node-1 has one",
    },
    keeps=["nodes/cloud/removal"],
)
def node_without_zone(subject: Subject) -> Damage:
    """Of one of the nodes nobody knows the zone."""

    def nowhere(node: dict[str, Any]) -> None:
        for label in ("topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone"):
            del node["metadata"]["labels"][label]

    with subject.changed(kinds.NODE, subject.nodes[1], "", nowhere):
        yield []


@breakage(
    breaks={
        "network/load_balancer/address": r"is reached at \S+:80: not within .*it is '', not",
        "network/load_balancer/source_ranges": r"open is reached at \S+: not within .*it is '', not 'web'",
        "network/load_balancer/client_address": r"nobody answers connection 1;",
    },
    keeps=["network/service/node_port"],
)
def load_balancers_lead_nowhere(subject: Subject) -> Damage:
    """Load balancers have addresses, and what is sent there is lost."""
    rule = f"to {subject.state.balancer_network} blackhole"
    with subject.commanded("control-plane", f"ip rule add {rule}", f"ip rule del {rule}"):
        yield []


@breakage(
    breaks={"network/load_balancer/client_address": r"nobody answers connection \d+;"},
    keeps=["network/load_balancer/source_ranges"],
)
def load_balancers_lead_to_any_node(subject: Subject) -> Damage:
    """Load balancers do not ask which nodes have pods of a Service for local traffic."""
    pool, table = subject.state.balancer_network, "lookup 100"
    hops = " ".join(f"nexthop via {node.address}" for node in subject.state.nodes)
    with (
        subject.commanded("control-plane", f"ip route add {pool} table 100 {hops}", "ip route flush table 100"),
        subject.commanded("control-plane", f"ip rule add to {pool} {table}", f"ip rule del to {pool} {table}"),
    ):
        yield []


@contextlib.contextmanager
def _meddling(subject: Subject, meddle: Callable[[Object, str], None]) -> Iterator[None]:
    """Somebody does something to each Service that has a load balancer's address, again and again."""
    over = threading.Event()

    def at_work() -> None:
        services = Selection(subject.client.clone(), kinds.SERVICE)
        while not over.wait(0.2):
            for each in services.read():
                for given in each.status["loadBalancer"].get("ingress") or []:
                    with contextlib.suppress(ApiError):  # it is done already, or the Service has gone
                        meddle(each, given["ip"])

    worker = threading.Thread(target=at_work)
    worker.start()
    try:
        yield
    finally:
        over.set()
        worker.join()


@breakage(
    breaks={"network/load_balancer/address": r"keeps its address (\S+)(, and .* not \('\1'|: no longer .* it is at )"},
    keeps=["network/load_balancer/client_address"],
)
def load_balancer_addresses_change(subject: Subject) -> Damage:
    """When a Service gets a further port, its load balancer gets another address."""
    others: dict[str, str] = {}

    def move(service: Object, address: str) -> None:
        if len(service.spec["ports"]) > 1:
            other = others.setdefault(service.uid, str(IPv4Address(address) + 100))
            if address != other:  # the controller may put it back once
                service.patch({"status": {"loadBalancer": {"ingress": [{"ip": other}]}}}, subresource="status")

    with _meddling(subject, move):
        yield []


@breakage(
    breaks={"network/load_balancer/address": r"does not lead to \S+ \S+ any more: not within .* still answers"},
    keeps=["network/load_balancer/health_check_port"],
)
def load_balancer_addresses_never_given_up(subject: Subject) -> Damage:
    """What is sent to the address of a load balancer that has been deleted still comes to its pods."""

    def keep(service: Object, address: str) -> None:
        spec = {key: service.spec[key] for key in ("selector", "ports")} | {"externalIPs": [address]}
        for port in spec["ports"]:
            port.pop("nodePort", None)
        metadata = {"name": f"kept-{service.name}", "namespace": service.namespace}
        twin = {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}
        subject.client.post(kinds.SERVICE.path(service.namespace), twin)

    pool, node = subject.state.balancer_network, subject.state.nodes[0].address
    lead, lead_not = f"ip route replace {pool} via {node}", f"ip route replace unreachable {pool}"
    with _meddling(subject, keep), subject.commanded("control-plane", lead, lead_not):
        yield []
