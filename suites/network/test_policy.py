"""NetworkPolicy: who may talk to whom, decided by labels, ports and addresses."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from clusterproof import Images, Namespace, Object, Timeouts, capabilities, eventually, inside
from clusterproof.conditions import equals, ready
from clusterproof.manifests import http_probe, network_policy, pod

pytestmark = pytest.mark.requires(capabilities.NETWORK_POLICY)

OPEN, OTHER = 8080, 8090
"""Ports on which every pod here serves."""


def test_default_deny(namespace: Namespace, nodes: list[Object], images: Images, timeouts: Timeouts) -> None:
    """A policy that allows nothing MUST keep everybody from the pods it selects, until it is deleted.

    The kubelet, which looks whether they are ready, is not kept from them.

    Source: https://kubernetes.io/docs/concepts/services-networking/network-policies/#default-policies
    """
    server, client = _pods(namespace, nodes, images, timeouts, "server", "client")
    _allowed({client: [server]}, {"client to server:8080"}, timeouts)

    closed = namespace.create(network_policy("closed", types=["Ingress"]))
    _allowed({client: [server]}, set(), timeouts)
    eventually(server, ready, within=timeouts.pod)

    closed.delete()
    _allowed({client: [server]}, {"client to server:8080"}, timeouts)


def test_from(namespaces: Callable[[], Namespace], nodes: list[Object], images: Images, timeouts: Timeouts) -> None:
    """A policy MUST let through those whose pod and namespace it names, to the port that it names, and nobody else.

    Source: https://kubernetes.io/docs/concepts/services-networking/network-policies/#behavior-of-to-and-from-selectors
    """
    ours, theirs = namespaces(), namespaces()
    server, friend, stranger = _pods(ours, nodes, images, timeouts, "server", "friend", "stranger")
    guest, namesake = _pods(theirs, nodes, images, timeouts, "guest", "friend-elsewhere")
    who = {each: [server] for each in (friend, stranger, guest, namesake)}
    named = {"matchLabels": {"kubernetes.io/metadata.name": theirs.name}}
    peers = [{"podSelector": _of("friend")}, {"namespaceSelector": named, "podSelector": _of("guest")}]

    rules = [{"from": peers, "ports": [{"protocol": "TCP", "port": OPEN}]}]
    ours.create(network_policy("by-label", select={"role": "server"}, types=["Ingress"], ingress=rules))

    _allowed(who, {"friend to server:8080", "guest to server:8080"}, timeouts, ports=(OPEN, OTHER))


def test_egress(namespace: Namespace, nodes: list[Object], images: Images, timeouts: Timeouts) -> None:
    """A policy for egress MUST keep the pods it selects from everything but what it names, and nobody else from it.

    Source: https://kubernetes.io/docs/concepts/services-networking/network-policies/#the-two-sorts-of-pod-isolation
    """
    client, server, other = _pods(namespace, nodes, images, timeouts, "client", "server", "other")
    rules = [{"to": [{"podSelector": _of("server")}], "ports": [{"port": OPEN}]}]
    namespace.create(network_policy("outward", select={"role": "client"}, types=["Egress"], egress=rules))

    free = {"other to client:8080", "other to client:8090"}
    who = {client: [server, other], other: [client]}
    _allowed(who, {"client to server:8080", *free}, timeouts, ports=(OPEN, OTHER))


@pytest.mark.requires(capabilities.POLICY_IP_BLOCKS)
def test_ip_block(namespace: Namespace, nodes: list[Object], images: Images, timeouts: Timeouts) -> None:
    """A policy MUST let through the addresses that it names, less those that it excepts.

    Source: https://kubernetes.io/docs/reference/kubernetes-api/policy-resources/network-policy-v1/#NetworkPolicySpec
    """
    server, friend, stranger = _pods(namespace, nodes, images, timeouts, "server", "friend", "stranger")
    everybody, bits = ("::/0", 128) if ":" in stranger.status["podIP"] else ("0.0.0.0/0", 32)
    block = {"cidr": everybody, "except": [f"{stranger.status['podIP']}/{bits}"]}
    rules = [{"from": [{"ipBlock": block}]}]
    namespace.create(network_policy("by-address", select={"role": "server"}, types=["Ingress"], ingress=rules))

    _allowed({friend: [server], stranger: [server]}, {"friend to server:8080"}, timeouts)


Paths = dict[Object, list[Object]]
"""Which pods are asked by a pod."""


def _pods(namespace: Namespace, nodes: list[Object], images: Images, timeouts: Timeouts, *names: str) -> list[Object]:
    """A pod for each name, on one node after the other, all ready; its role is the first word of its name."""
    serve = f"/agnhost netexec --http-port={OTHER} --udp-port=-1 & exec /agnhost netexec --http-port={OPEN}"
    options: dict[str, Any] = {"command": ["sh", "-c", serve], "readiness": http_probe(OPEN)}
    made = []
    for number, name in enumerate(names):
        node, role = nodes[number % len(nodes)].name, {"role": name.partition("-")[0]}
        made.append(namespace.create(pod(name, images.agnhost, node=node, labels=role, **options)))
    return [eventually(each, ready, within=timeouts.pod) for each in made]


def _allowed(paths: Paths, wanted: set[str], timeouts: Timeouts, *, ports: Iterable[int] = (OPEN,)) -> None:
    """Wait until exactly these requests are answered: `client to server:8080`."""
    answered = functools.partial(_answered, paths, tuple(ports))
    eventually(answered, equals(wanted), within=timeouts.propagation, describe="requests that are let through")


def _answered(paths: Paths, ports: Iterable[int]) -> set[str]:
    found = set()
    for client, servers in paths.items():
        urls = {_url(server, port): f"{client.name} to {server.name}:{port}" for server in servers for port in ports}
        given = inside.fetch(client, urls)
        found |= {name for url, name in urls.items() if not any(each.startswith("curl: ") for each in given[url])}
    return found


def _url(server: Object, port: int) -> str:
    address = server.status["podIP"]
    return f"http://{f'[{address}]' if ':' in address else address}:{port}/hostname"


def _of(role: str) -> dict[str, Any]:
    return {"matchLabels": {"role": role}}
