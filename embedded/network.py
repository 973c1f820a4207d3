"""An embedded cluster's network: a namespace for each node, and one for the control plane, which is the router.

The bridge between them stands in the control plane's namespace, so the host's firewall (Docker's FORWARD policy, say)
has no say in it, and taking the namespaces away takes every link, address and rule away with them. The host has one
link into the bridge, and routes to nodes, pods and load balancers over it. Pods are routed, not bridged: Service
replies between pods of one node then need no br_netfilter.

An address of a load balancer is a route of the router's, to the nodes; those that nobody has lead nowhere.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from .state import NAMESPACES, RANGE, ClusterState, EmbeddedError, Node, lock, namespace_name, namespaces_of


def forwards() -> bool:
    """Whether this machine passes packets on: then nodes and pods can reach what it reaches."""
    return Path("/proc/sys/net/ipv4/ip_forward").read_text().strip() == "1"


def host_link(state: ClusterState) -> str:
    """Name of the host's end of its link to the cluster; 15 characters are the kernel's limit."""
    return f"clusterproof{state.index}"


def create(state: ClusterState) -> None:
    """The control plane's namespace with its bridge, and the host's link into it."""
    link, router = host_link(state), state.control_plane
    _add_namespace(router)
    _batch(
        f"link add {link} type veth peer name uplink netns {router}",
        f"address add {state.host_address}/24 dev {link}",
        f"link set {link} up",
    )
    _batch(
        "link set lo up",
        # An address of its own: else it has that of one of its links, and is out of reach when that one goes.
        f"link add br0 address 0a:58:{state.api_address.packed.hex(':')} type bridge forward_delay 0",
        f"address add {state.api_address}/24 dev br0",
        "link set br0 up",
        "link set uplink master br0 up",
        f"route add default via {state.host_address}",
        f"route add unreachable {state.balancer_network}",
        namespace=router,
    )
    behind = (state.pod_network, state.balancer_network)
    _batch(*(f"route add {network} via {state.api_address} dev {link}" for network in behind))
    _sysctl(
        router,
        "net/ipv4/ip_forward=1",
        "net/bridge/bridge-nf-call-iptables=0",
        "net/ipv4/fib_multipath_hash_policy=1",  # a load balancer's connections are spread over its nodes one by one
        # The host is not told of a shorter way: where a load balancer leads to changes.
        "net/ipv4/conf/all/send_redirects=0",
        "net/ipv4/conf/br0/send_redirects=0",
    )
    if forwards():
        _reach_the_world(state)


def add_node(state: ClusterState, node: Node) -> None:
    """A node's namespace, linked to the bridge, with routes to and from all the others' pods."""
    namespace, port = namespace_name(state.name, node.name), _port(node)
    _add_namespace(namespace)
    _batch(
        f"link add {port} type veth peer name eth0 netns {namespace}",
        f"link set {port} master br0 up",
        f"route add {node.pods} via {node.address}",
        namespace=state.control_plane,
    )
    others = [other for other in state.nodes if other != node]
    _batch(
        "link set lo up",
        f"address add {node.address}/24 dev eth0",
        "link set eth0 up",
        f"route add default via {state.api_address}",
        *(f"route add {other.pods} via {other.address}" for other in others),
        # What kube-proxy lets pass would go back to the router, and in circles.
        f"rule add iif eth0 to {state.balancer_network} unreachable",
        namespace=namespace,
    )
    # route_localnet: a hostPort on 127.0.0.1 is translated on its way out of the loopback interface.
    _sysctl(
        namespace,
        "net/ipv4/ip_forward=1",
        "net/ipv4/conf/all/route_localnet=1",
        "net/bridge/bridge-nf-call-iptables=0",
    )


def make_known(state: ClusterState, node: Node) -> None:
    """Give the nodes that were there before a route to a further node's pods."""
    for other in state.nodes:
        if other != node:
            _batch(f"route add {node.pods} via {node.address}", namespace=namespace_name(state.name, other.name))


def connect(one: ClusterState, other: ClusterState) -> None:
    """Link two clusters' routers, so that nodes, pods and API server of each are reached from the other as they are."""
    link, back = _link_to(other), _link_to(one)
    _batch(f"link add {link} type veth peer name {back} netns {other.control_plane}", namespace=one.control_plane)
    for here, there in ((one, other), (other, one)):
        _batch(
            f"address add {here.api_address} peer {there.api_address} dev {_link_to(there)}",
            f"link set {_link_to(there)} up",
            f"route add {there.node_network} via {there.api_address}",
            f"route add {there.pod_network} via {there.api_address}",
            namespace=here.control_plane,
        )


def _link_to(other: ClusterState) -> str:
    """Name of a router's link to that of another cluster."""
    return f"cluster{other.index}"


def delete_node(state: ClusterState, node: Node) -> None:
    """Take a node's namespace, link and routes away; what is gone is no error. Its processes must have ended."""
    _ip("-n", state.control_plane, "link", "delete", _port(node))
    for place in (state.control_plane, *(namespace_name(state.name, other.name) for other in state.nodes)):
        _ip("-n", place, "route", "delete", node.pods, "via", node.address)
    _ip("netns", "delete", namespace_name(state.name, node.name))


def delete(state: ClusterState) -> None:
    """Take everything away again; what is gone already is no error. Processes in the namespaces must have ended."""
    # From its other end, so that it is this cluster's link for certain; the kernel would remove it later.
    _ip("-n", state.control_plane, "link", "delete", "uplink")
    for namespace in namespaces_of(state.name):
        _ip("netns", "delete", namespace)
    _forget_namespaces()
    for rule in _world_rules(state):
        while subprocess.run(["iptables", "-w", *rule("-D")], capture_output=True, check=False).returncode == 0:
            pass


def _port(node: Node) -> str:
    """Name of the bridge's end of a node's link."""
    return f"port{node.address.rsplit('.', 1)[1]}"


def _add_namespace(name: str) -> None:
    with lock():
        if refused := _ip("netns", "add", name):
            raise EmbeddedError(f"network: the namespace {name} cannot be made: {refused}")


def _forget_namespaces() -> None:
    """Once there is no namespace with a name left, take away what the first `ip netns add` made for their names."""
    with lock(), contextlib.suppress(OSError):
        if not any(NAMESPACES.iterdir()):
            subprocess.run(["umount", NAMESPACES], capture_output=True, check=False)
            NAMESPACES.rmdir()


def processes_in(namespaces: list[str]) -> list[int]:
    """Ids of all processes whose network is one of these namespaces."""
    inodes = set()
    for name in namespaces:
        with contextlib.suppress(FileNotFoundError):  # somebody else ends the cluster, too
            inodes.add((NAMESPACES / name).stat().st_ino)
    return [pid for pid, inode in _network_of_each_process() if inode in inodes]


def _network_of_each_process() -> Iterator[tuple[int, int]]:
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError):  # it ended meanwhile
                yield int(entry.name), os.stat(f"/proc/{entry.name}/ns/net").st_ino


def _reach_the_world(state: ClusterState) -> None:
    """Where the host forwards packets at all, let nodes and pods out, so that they can pull images."""
    outward = ["-s", str(state.pod_network), "!", "-d", str(RANGE), "-j", "MASQUERADE"]
    _in(state.control_plane, "iptables", "-w", "-t", "nat", "-A", "POSTROUTING", *outward)
    for rule in _world_rules(state):
        done = subprocess.run(["iptables", "-w", *rule("-I")], capture_output=True, text=True, check=False)
        if done.returncode:
            raise EmbeddedError(f"network: the host's iptables {' '.join(rule('-I'))} failed: {done.stderr.strip()}")


class _Rule:
    """A rule in the host's firewall, marked as this cluster's so that it is found again."""

    def __init__(self, state: ClusterState, table: str, chain: str, *match: str) -> None:
        mark = ["-m", "comment", "--comment", namespace_name(state.name, "")]
        self._table, self._rest = table, [chain, *mark, *match]

    def __call__(self, verb: str) -> list[str]:
        return ["-t", self._table, verb, *self._rest]


def _world_rules(state: ClusterState) -> list[_Rule]:
    nodes, link = str(state.node_network), host_link(state)
    return [
        _Rule(state, "nat", "POSTROUTING", "-s", nodes, "!", "-d", str(RANGE), "-j", "MASQUERADE"),
        _Rule(state, "filter", "FORWARD", "-i", link, "-j", "ACCEPT"),
        _Rule(state, "filter", "FORWARD", "-o", link, "-j", "ACCEPT"),
    ]


def _ip(*arguments: str) -> str:
    """One change; what the kernel or `ip` had against it, or nothing."""
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    return done.stderr.strip() or f"exit {done.returncode}" if done.returncode else ""


def _batch(*lines: str, namespace: str = "") -> None:
    """Several changes in one call; EmbeddedError says which one the kernel refused."""
    where = ["-n", namespace] if namespace else []
    done = subprocess.run(
        ["ip", *where, "-batch", "-"], input="\n".join(lines), capture_output=True, text=True, check=False
    )
    if done.returncode:
        place = namespace or "the host"
        raise EmbeddedError(
            f"network: in {place} the kernel refused one of these: {'; '.join(lines)}: {done.stderr.strip()}"
        )


def _in(namespace: str, *command: str) -> None:
    entered = ["nsenter", f"--net={NAMESPACES / namespace}", *command]
    done = subprocess.run(entered, capture_output=True, text=True, check=False)
    if done.returncode:
        raise EmbeddedError(f"network: {' '.join(command)} in {namespace} failed: {done.stderr.strip()}")


def _sysctl(namespace: str, *settings: str) -> None:
    """Set what the kernel has of these (`net/…=value`); br_netfilter may not be loaded, and then filters nothing."""
    lines = [
        f"[ ! -e /proc/sys/{key} ] || echo {value} > /proc/sys/{key}"
        for key, _, value in (setting.partition("=") for setting in settings)
    ]
    _in(namespace, "sh", "-ec", "\n".join(lines))
