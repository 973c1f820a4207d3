"""LoadBalancer: a Service with an address of its own for those outside of the cluster."""

from __future__ import annotations

import functools
from collections.abc import Callable
from http.client import HTTPConnection, HTTPException
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any

import pytest

from clusterproof import Cluster, Images, Namespace, Object, Timeouts, capabilities, consistently, eventually, kinds
from clusterproof.conditions import equals, gone, has_address, ready
from clusterproof.inside import in_url, node_address
from clusterproof.manifests import http_probe, pod, service

Network = IPv4Network | IPv6Network

RANGES = {"IPv4": ("203.0.113.0/24", "0.0.0.0/0"), "IPv6": ("2001:db8::/32", "::/0")}
"""By family, addresses that are nobody's (RFC 5737, RFC 3849), and all."""


@pytest.mark.requires(capabilities.LOAD_BALANCER)
def test_address(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A LoadBalancer Service MUST be given an address that leads to its pods, and keep it for as long as it exists.

    Source: https://kubernetes.io/docs/concepts/services-networking/service/#loadbalancer
    """
    server = _serve(namespace, namespace.name, images, timeouts)
    web = namespace.create(service("web", type="LoadBalancer", selector={"app": server.name}))
    address = _address(eventually(web, has_address, within=timeouts.balancer))
    what = f"{web} is reached at {address}:80"
    eventually(lambda: _ask(address, 80), equals(server.name), within=timeouts.balancer, describe=what)

    def now() -> tuple[str, str]:
        return (kept := _address(web.read())), _ask(kept, 81)

    more = [*web.spec["ports"], {"name": "more", "port": 81, "targetPort": 8080}]
    web.patch({"spec": {"ports": more}})
    what = f"{web} keeps its address {address}, and is reached at port 81, too"
    eventually(now, equals((address, server.name)), within=timeouts.balancer, describe=what)
    consistently(web, _at(address), during=timeouts.steady, describe=f"keeps its address {address}")

    web.delete()
    eventually(web, gone, within=timeouts.balancer)
    # Others may be given the address at once.
    what = f"{address} does not lead to {server} any more"
    eventually(lambda: _ask(address, 80), _not_by(server), within=timeouts.balancer, describe=what)


def test_node_ports(namespace: Namespace) -> None:
    """A LoadBalancer Service MUST have a port of the nodes for each of its own, and none where it needs none.

    Nobody takes care of these: their class is nobody's.

    Source: https://kubernetes.io/docs/concepts/services-networking/service/#load-balancer-nodeport-allocation
    """
    nobodys: dict[str, Any] = {"loadBalancerClass": f"{namespace}.clusterproof.dev/nobody"}
    found = {}
    for name, more in (("usual", {}), ("without", {"allocateLoadBalancerNodePorts": False})):
        made = namespace.create(service(name, type="LoadBalancer", spec=nobodys | more))
        found[name] = [port.get("nodePort") for port in made.spec["ports"]]

    assert all(found["usual"]), f"Service {namespace}/usual has no node port: {found['usual']}"
    assert found["without"] == [None], f"Service {namespace}/without wants no node port, and has {found['without']}"


@pytest.mark.requires(capabilities.LOAD_BALANCER)
def test_source_ranges(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A LoadBalancer Service MUST answer those only who come from the ranges that it names.

    Source: https://kubernetes.io/docs/reference/kubernetes-api/service-resources/service-v1/#ServiceSpec
    """
    _serve(namespace, "web", images, timeouts)
    open_one = namespace.create(service("open", type="LoadBalancer", selector={"app": "web"}))
    nobody, everybody = RANGES[open_one.spec["ipFamilies"][0]]
    web = namespace.create(service("web", type="LoadBalancer", spec={"loadBalancerSourceRanges": [nobody]}))
    address, open_address = (
        _address(eventually(each, has_address, within=timeouts.balancer)) for each in (web, open_one)
    )
    read = functools.partial(_ask, open_address, 80)
    eventually(read, equals("web"), within=timeouts.balancer, describe=f"{open_one} is reached at {open_address}")

    read = functools.partial(_ask, address, 80)
    eventually(read, equals(""), within=timeouts.balancer, describe=f"{web} does not answer us at {address}")
    web.patch({"spec": {"loadBalancerSourceRanges": [everybody]}})
    eventually(read, equals("web"), within=timeouts.balancer, describe=f"{web} answers everybody at {address}")


@pytest.mark.requires(capabilities.LOAD_BALANCER)
def test_client_address(
    namespace: Namespace, cluster: Cluster, nodes: list[Object], images: Images, timeouts: Timeouts
) -> None:
    """A load balancer of a Service for local traffic MUST lead to its pods only, and let them see who asks.

    Source: https://kubernetes.io/docs/tasks/access-application-cluster/create-external-load-balancer/#preserving-the-client-source-ip
    """
    server = _serve(namespace, "web", images, timeouts, node=nodes[-1].name)
    web = namespace.create(service("web", type="LoadBalancer", spec={"externalTrafficPolicy": "Local"}))
    address = _address(eventually(web, has_address, within=timeouts.balancer))
    inside = [network for node in cluster.list(kinds.NODE) for network in _networks(node)]

    # As many as make it unlikely that each of them happened to come to the right node.
    what = f"20 of 20 connections to {web} at {address} come to {server}, which sees the client's address"
    seen = functools.partial(_seen_as, address, 20)
    eventually(seen, _not_from(inside), within=timeouts.balancer, describe=what)


@pytest.mark.requires(capabilities.SEVERAL_NODES)
@pytest.mark.pod_security("privileged")
def test_health_check_port(namespace: Namespace, nodes: list[Object], images: Images, timeouts: Timeouts) -> None:
    """Each node MUST tell load balancers whether it has a pod of a Service for local traffic.

    Shown without a load balancer: the Service is of a class that nobody serves.

    Source: https://kubernetes.io/docs/tasks/access-application-cluster/create-external-load-balancer/#preserving-the-client-source-ip
    """
    local = {"externalTrafficPolicy": "Local", "loadBalancerClass": "clusterproof.dev/nobody"}
    web = namespace.create(service("web", type="LoadBalancer", spec=local))
    asks = pod("balancer", images.agnhost, args=["pause"], node=nodes[-1].name, spec={"hostNetwork": True})
    balancer = namespace.create(asks)
    server = _serve(namespace, "web", images, timeouts, node=nodes[0].name)
    eventually(balancer, ready, within=timeouts.pod)

    port = web.spec["healthCheckNodePort"]
    addresses = [node_address(node, web) for node in (nodes[0], nodes[-1])]
    told = functools.partial(_told, balancer, addresses, port)
    what = f"nodes with a pod of {web} answer 200 on port {port}, and others 503"
    eventually(told, equals(["200", "503"]), within=timeouts.propagation, describe=what)
    server.delete()
    eventually(told, equals(["503", "503"]), within=timeouts.pod_end + timeouts.propagation, describe=what)


def _serve(namespace: Namespace, name: str, images: Images, timeouts: Timeouts, **options: Any) -> Object:
    made = pod(name, images.agnhost, args=["netexec"], readiness=http_probe(), **options)
    return eventually(namespace.create(made), ready, within=timeouts.pod)


def _address(balanced: Object) -> str:
    """The first address that a Service has now; empty when it has none."""
    (first, *_) = (balanced.status.get("loadBalancer") or {}).get("ingress") or [{}]
    return str(first.get("ip") or first.get("hostname") or "")


def _at(address: str) -> Callable[[Object], str | None]:
    def at(balanced: Object) -> str | None:
        return None if (now := _address(balanced)) == address else f"it is at {now or 'no address'}"

    return at


def _ask(address: str, port: int) -> str:
    """Who answers at an address, asked from outside; empty when nobody does."""
    return _get(address, port, "/hostname")[0]


def _get(address: str, port: int, path: str) -> tuple[str, str]:
    """What is answered, and the address from which it was asked; both empty when nobody answers."""
    connection = HTTPConnection(address, port, timeout=3)
    try:
        connection.connect()
        own = connection.sock.getsockname()[0]
        connection.request("GET", path)
        return connection.getresponse().read().decode(), own
    except (OSError, HTTPException):
        return "", ""
    finally:
        connection.close()


def _not_by(server: Object) -> Callable[[str], str | None]:
    def not_by(answer: str) -> str | None:
        return f"{server} still answers" if answer == server.name else None

    return not_by


def _seen_as(address: str, times: int) -> list[tuple[str, str]]:
    """For each connection the address that the server sees, and the client's own; up to the first without answer."""
    seen = []
    for _ in range(times):
        answer, own = _get(address, 80, "/clientip")
        seen.append((answer.rpartition(":")[0].strip("[]"), own))
        if not answer:
            break
    return seen


def _not_from(inside: list[Network]) -> Callable[[list[tuple[str, str]]], str | None]:
    """A client may be seen by its own address, or by one outside of the cluster that it was given on its way."""

    def not_from(seen: list[tuple[str, str]]) -> str | None:
        for number, (source, own) in enumerate(seen, 1):
            if not source:
                return f"nobody answers connection {number}"
            if source != own and any(ip_address(source) in each for each in inside):
                return f"a client with the address {own} is seen as {source}, which is the cluster's own"
        return None

    return not_from


def _networks(node: Object) -> list[Network]:
    """A node's own addresses and those of its pods."""
    own = [each["address"] for each in node.status.get("addresses") or [] if each["type"].endswith("IP")]
    return [ip_network(each) for each in (*own, *(node.spec.get("podCIDRs") or []))]


def _told(client: Object, addresses: list[str], port: int) -> list[str]:
    """The status with which a health check is answered at each address."""
    command = ["curl", "--silent", "--max-time", "3", "--output", "/dev/null", "--write-out", "%{http_code}"]
    return [client.exec([*command, f"http://{in_url(address)}:{port}/"]).stdout for address in addresses]
