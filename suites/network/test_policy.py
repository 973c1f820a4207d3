"""NetworkPolicy: who may talk to whom, decided by labels, ports and addresses."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from clusterproof import Images, Namespace, Object, Timeouts, capabilities, eventually, inside, kinds
from clusterproof.conditions import ready
from clusterproof.manifests import http_probe, network_policy, pod, service

pytestmark = pytest.mark.requires(capabilities.NETWORK_POLICY)

OPEN, OTHER, DATAGRAMS = 8080, 8090, 8081
"""Ports on which every pod here serves, the last one by UDP."""
EVERY = (OPEN, OTHER, DATAGRAMS)
RANGE = {"port": OTHER - 5, "endPort": OTHER + 5}
"""Has the second of them."""


def test_default_deny(namespace: Namespace, some_nodes: list[Object], images: Images, timeouts: Timeouts) -> None:
    """A policy that allows nothing MUST keep everybody from the pods it selects, on each node, until it is deleted.

    Of many nodes it is shown on eight.

    It is followed when it is changed to allow everything, and nothing again. A node is not kept from its own pods: its
    kubelet sees whether they are ready.

    Source: https://kubernetes.io/docs/concepts/services-networking/network-policies/#default-policies
    """
    names = [f"{role}-{number}" for role in ("server", "client") for number in range(len(some_nodes))]
    made = _pods(namespace, some_nodes, images, timeouts, *names)
    servers, clients = made[: len(some_nodes)], made[len(some_nodes) :]
    who = dict.fromkeys(clients, servers)
    open = {f"{client.name} to {server.name}:8080" for client in clients for server in servers}
    _allowed(who, open, timeouts)

    closed = namespace.create(network_policy("closed", types=["Ingress"]))
    _allowed(who, set(), timeouts)
    (late,) = _pods(namespace, some_nodes, images, timeouts, "server-late")
    _allowed({client: [late] for client in clients}, set(), timeouts)

    closed.patch({"spec": {"ingress": [{}]}})
    _allowed(who, open, timeouts)
    closed.patch({"spec": {"ingress": []}})
    _allowed(who, set(), timeouts)

    closed.delete()
    _allowed(who, open, timeouts)


def test_from(namespaces: Callable[[], Namespace], nodes: list[Object], images: Images, timeouts: Timeouts) -> None:
    """A policy MUST let through those whose pod and namespace it names, to the port that it names, and nobody else.

    It names some by their labels, and others by an expression about labels.

    Source: https://kubernetes.io/docs/concepts/services-networking/network-policies/#behavior-of-to-and-from-selectors
    """
    ours, theirs = namespaces(), namespaces()
    started = _started(theirs, nodes, images, "guest", "friend-elsewhere")
    server, friend, stranger = _pods(ours, nodes, images, timeouts, "server", "friend", "stranger")
    guest, namesake = (eventually(each, ready, within=timeouts.pod) for each in started)
    who = {each: [server] for each in (friend, stranger, guest, namesake)}
    named = {"matchLabels": {"kubernetes.io/metadata.name": theirs.name}}
    friends = {"matchExpressions": [{"key": "role", "operator": "In", "values": ["friend"]}]}
    peers = [{"podSelector": friends}, {"namespaceSelector": named, "podSelector": _of("guest")}]

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

    The server lets through everybody but the stranger, who lets through nobody but the friend.

    Source: https://kubernetes.io/docs/reference/kubernetes-api/policy-resources/network-policy-v1/#NetworkPolicySpec
    """
    server, friend, stranger = _pods(namespace, nodes, images, timeouts, "server", "friend", "stranger")
    everybody, bits = ("::/0", 128) if ":" in stranger.status["podIP"] else ("0.0.0.0/0", 32)
    own = {each: f"{each.status['podIP']}/{bits}" for each in (friend, stranger)}
    blocks = {"server": {"cidr": everybody, "except": [own[stranger]]}, "stranger": {"cidr": own[friend]}}
    for role, block in blocks.items():
        rules = [{"from": [{"ipBlock": block}]}]
        namespace.create(network_policy(f"for-{role}", select={"role": role}, types=["Ingress"], ingress=rules))

    who = {friend: [server, stranger], stranger: [server], server: [stranger]}
    _allowed(who, {"friend to server:8080", "friend to stranger:8080"}, timeouts)


@pytest.mark.parametrize(
    ("rule", "port"),
    [(RANGE, OTHER), ({"port": "other"}, OTHER), ({"port": DATAGRAMS, "protocol": "UDP"}, DATAGRAMS)],
    ids=["range", "name", "udp"],
)
def test_ports(
    namespace: Namespace, nodes: list[Object], images: Images, timeouts: Timeouts, rule: dict[str, Any], port: int
) -> None:
    """A policy MUST let through to the ports that it names, by range, name or protocol, and to no other.

    Source: https://kubernetes.io/docs/concepts/services-networking/network-policies/#targeting-a-range-of-ports
    """
    server, client = _pods(namespace, nodes, images, timeouts, "server", "client")
    _allowed({client: [server]}, {f"client to server:{each}" for each in EVERY}, timeouts, ports=EVERY)

    namespace.create(
        network_policy("by-port", select={"role": "server"}, types=["Ingress"], ingress=[{"ports": [rule]}])
    )

    _allowed({client: [server]}, {f"client to server:{port}"}, timeouts, ports=EVERY)


def test_several(namespace: Namespace, nodes: list[Object], images: Images, timeouts: Timeouts) -> None:
    """Policies that select the same pod MUST let through what any of them lets through.

    Source: https://kubernetes.io/docs/concepts/services-networking/network-policies/#the-two-sorts-of-pod-isolation
    """
    server, friend, guest, stranger = _pods(namespace, nodes, images, timeouts, "server", "friend", "guest", "stranger")
    who = {each: [server] for each in (friend, guest, stranger)}
    namespace.create(network_policy("closed", types=["Ingress"]))
    for name in ("friend", "guest"):
        rules = [{"from": [{"podSelector": _of(name)}]}]
        namespace.create(network_policy(f"for-{name}", select={"role": "server"}, types=["Ingress"], ingress=rules))

    _allowed(who, {"friend to server:8080", "guest to server:8080"}, timeouts)


def test_service(namespace: Namespace, nodes: list[Object], images: Images, timeouts: Timeouts) -> None:
    """A policy MUST hold for what comes through a Service, too, by the pod that has sent it.

    Source: https://kubernetes.io/docs/concepts/services-networking/network-policies/#behavior-of-to-and-from-selectors
    """
    _, friend, stranger = _pods(namespace, nodes, images, timeouts, "server", "friend", "stranger")
    way = namespace.create(service("server", target=OPEN, selector={"role": "server"}))
    who = {each: [way] for each in (stranger, friend)}
    _allowed(who, {"stranger to server:8080", "friend to server:8080"}, timeouts)

    rules = [{"from": [{"podSelector": _of("friend")}]}]
    namespace.create(network_policy("for-friends", select={"role": "server"}, types=["Ingress"], ingress=rules))

    _allowed(who, {"friend to server:8080"}, timeouts)


def test_labels(namespace: Namespace, nodes: list[Object], images: Images, timeouts: Timeouts) -> None:
    """A policy MUST follow the labels of pods: of those that it selects, and of those that it names.

    Source: https://kubernetes.io/docs/concepts/services-networking/network-policies/#behavior-of-to-and-from-selectors
    """
    server, client = _pods(namespace, nodes, images, timeouts, "server", "client")
    rules = [{"from": [{"podSelector": _of("friend")}]}]
    namespace.create(network_policy("for-friends", select={"role": "server"}, types=["Ingress"], ingress=rules))
    _allowed({client: [server]}, set(), timeouts)

    _relabel(client, "friend")
    _allowed({client: [server]}, {"client to server:8080"}, timeouts)
    _relabel(client, "stranger")
    _allowed({client: [server]}, set(), timeouts)
    _relabel(server, "free")
    _allowed({client: [server]}, {"client to server:8080"}, timeouts)


Paths = dict[Object, list[Object]]
"""Which pods are asked by a pod."""


def _pods(namespace: Namespace, nodes: list[Object], images: Images, timeouts: Timeouts, *names: str) -> list[Object]:
    """A pod for each name, on one node after the other, all ready; its role is the first word of its name."""
    return [eventually(each, ready, within=timeouts.pod) for each in _started(namespace, nodes, images, *names)]


def _started(namespace: Namespace, nodes: list[Object], images: Images, *names: str) -> list[Object]:
    serve = f"/agnhost netexec --http-port={OTHER} --udp-port=-1 & exec /agnhost netexec --http-port={OPEN}"
    named = {"ports": [{"name": "other", "containerPort": OTHER}]}
    options: dict[str, Any] = {"command": ["sh", "-c", serve], "readiness": http_probe(OPEN), "container": named}
    made = []
    for number, name in enumerate(names):
        node, role = nodes[number % len(nodes)].name, {"role": name.partition("-")[0]}
        made.append(namespace.create(pod(name, images.agnhost, node=node, labels=role, **options)))
    return made


Answers = dict[str, str]
"""What was in the way of a request, in the words of who asked; empty where it was let through."""


def _allowed(paths: Paths, wanted: set[str], timeouts: Timeouts, *, ports: Iterable[int] = (OPEN,)) -> None:
    """Wait until exactly these requests are answered: `client to server:8080`."""
    answers = functools.partial(_answers, paths, tuple(ports))
    only = functools.partial(_differences, wanted)
    eventually(answers, only, within=timeouts.propagation, describe="requests that are let through")


def _differences(wanted: set[str], answers: Answers) -> str | None:
    wrong = [
        f"{asked} is not ({answer})" if answer else f"{asked} is"
        for asked, answer in sorted(answers.items())
        if (asked in wanted) == bool(answer)
    ]
    return "; ".join(wrong) or None


def _answers(paths: Paths, ports: Iterable[int]) -> Answers:
    """All clients ask at the same time: what is kept from a client takes it as long as it is patient."""
    with ThreadPoolExecutor(len(paths)) as pool:
        return {
            asked: answer
            for each in pool.map(_answered, paths, paths.values(), itertools.repeat(ports))
            for asked, answer in each.items()
        }


def _answered(client: Object, servers: list[Object], ports: Iterable[int]) -> Answers:
    asked = {_url(server, port): (server.name, port) for server in servers for port in ports}
    given = inside.fetch(Object.of(client.client.clone(), client.raw), asked)
    return {
        f"{client.name} to {name}:{port}": "" if name in given[url] else ", ".join(given[url]) or "nothing"
        for url, (name, port) in asked.items()
    }


def _url(server: Object, port: int) -> str:
    """Of a pod's port, or of a Service of the same name."""
    if server.kind == kinds.SERVICE:
        return inside.url_of(server)
    address = server.status["podIP"]
    if port == DATAGRAMS:
        return inside.datagram(address, port, "hostname")
    return f"http://{inside.in_url(address)}:{port}/hostname"


def _relabel(pod: Object, role: str) -> None:
    pod.patch({"metadata": {"labels": {"role": role}}})


def _of(role: str) -> dict[str, Any]:
    return {"matchLabels": {"role": role}}
