"""LoadBalancer: a Service with an address of its own for those outside of the cluster."""

from __future__ import annotations

import functools
from http.client import HTTPConnection, HTTPException
from typing import Any

import pytest

from clusterproof import Images, Namespace, Object, Timeouts, capabilities, eventually
from clusterproof.conditions import equals, gone, has_address, ready
from clusterproof.manifests import http_probe, pod, service


@pytest.mark.requires(capabilities.LOAD_BALANCER)
def test_address(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A LoadBalancer Service MUST be given an address that leads to its pods, and keep it for as long as it exists.

    Source: https://kubernetes.io/docs/concepts/services-networking/service/#loadbalancer
    """
    _serve(namespace, "web", images, timeouts)
    web = namespace.create(service("web", type="LoadBalancer"))
    address = _address(eventually(web, has_address, within=timeouts.rollout))
    reached = f"{web} is reached at {address}"
    eventually(lambda: _ask(address, 80), equals("web"), within=timeouts.rollout, describe=f"{reached}:80")

    more = [*web.spec["ports"], {"name": "more", "port": 81, "targetPort": 8080}]
    web.patch({"spec": {"ports": more}})
    eventually(lambda: _ask(address, 81), equals("web"), within=timeouts.rollout, describe=f"{reached}:81")
    assert _address(web.read()) == address, f"{web} was at {address}, but is given another one: {web.status}"

    web.delete()
    eventually(web, gone, within=timeouts.rollout)
    eventually(lambda: _ask(address, 80), equals(""), within=timeouts.rollout, describe=f"{address} is given up")


@pytest.mark.requires(capabilities.LOAD_BALANCER)
def test_source_ranges(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A LoadBalancer Service MUST answer those only who come from the ranges that it names.

    Source: https://kubernetes.io/docs/reference/kubernetes-api/service-resources/service-v1/#ServiceSpec
    """
    _serve(namespace, "web", images, timeouts)
    # Addresses that are nobody's (RFC 5737).
    web = namespace.create(service("web", type="LoadBalancer", spec={"loadBalancerSourceRanges": ["203.0.113.0/24"]}))
    open_one = namespace.create(service("open", type="LoadBalancer", selector={"app": "web"}))
    address, open_address = (
        _address(eventually(each, has_address, within=timeouts.rollout)) for each in (web, open_one)
    )
    read = functools.partial(_ask, open_address, 80)
    eventually(read, equals("web"), within=timeouts.rollout, describe=f"{open_one} is reached at {open_address}")

    read = functools.partial(_ask, address, 80)
    eventually(read, equals(""), within=timeouts.rollout, describe=f"{web} does not answer us at {address}")
    web.patch({"spec": {"loadBalancerSourceRanges": ["0.0.0.0/0"]}})
    eventually(read, equals("web"), within=timeouts.rollout, describe=f"{web} answers everybody at {address}")


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
    told = functools.partial(_told, balancer, [nodes[0], nodes[-1]], port)
    what = f"nodes with a pod of {web} answer 200 on port {port}, and others 503"
    eventually(told, equals(["200", "503"]), within=timeouts.propagation, describe=what)
    server.delete()
    eventually(told, equals(["503", "503"]), within=timeouts.pod_end + timeouts.propagation, describe=what)


def _serve(namespace: Namespace, name: str, images: Images, timeouts: Timeouts, **options: Any) -> Object:
    made = pod(name, images.agnhost, args=["netexec"], readiness=http_probe(), **options)
    return eventually(namespace.create(made), ready, within=timeouts.pod)


def _address(balanced: Object) -> str:
    (first, *_) = balanced.status["loadBalancer"]["ingress"]
    return str(first.get("ip") or first.get("hostname"))


def _ask(address: str, port: int) -> str:
    """Who answers at an address, asked from outside; empty when nobody does."""
    connection = HTTPConnection(address, port, timeout=3)
    try:
        connection.request("GET", "/hostname")
        return connection.getresponse().read().decode()
    except (OSError, HTTPException):
        return ""
    finally:
        connection.close()


def _told(client: Object, nodes: list[Object], port: int) -> list[str]:
    """The status with which each node answers a health check."""
    inner = [each["address"] for node in nodes for each in node.status["addresses"] if each["type"] == "InternalIP"]
    hosts = [f"[{address}]" if ":" in address else address for address in inner]
    command = ["curl", "--silent", "--max-time", "3", "--output", "/dev/null", "--write-out", "%{http_code}"]
    return [client.exec([*command, f"http://{host}:{port}/"]).stdout for host in hosts]
