"""Endpoints: what EndpointSlices came from; clients that still read or write them MUST find the same."""

from __future__ import annotations

from collections.abc import Callable

from clusterproof import Images, Namespace, Object, Timeouts, eventually, kinds, manifests
from clusterproof.conditions import ListCondition, endpoints, ready, ready_addresses


def test_follow(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """The Endpoints of a Service MUST name the ready pods that it selects, and no others.

    Source: https://kubernetes.io/docs/concepts/services-networking/service/#endpoints
    """
    pod = namespace.create(manifests.pod("web", images.agnhost, args=["pause"]))
    web = namespace.create(manifests.service("web"))
    told = namespace.object(kinds.ENDPOINTS, web.name)
    eventually(pod, ready, within=timeouts.pod)

    eventually(told, _name({pod.status["podIP"]}), within=timeouts.propagation)
    pod.patch({"metadata": {"labels": {"app": "other"}}})
    eventually(told, _name(set()), within=timeouts.propagation)


def test_ports(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """EndpointSlices MUST tell the ports of a Service's pods: numbers, names, protocols, and what is spoken there.

    Source: https://kubernetes.io/docs/concepts/services-networking/endpoint-slices/
    """
    ports = [
        {"name": "web", "port": 80, "targetPort": "named", "appProtocol": "kubernetes.io/h2c"},
        {"name": "names", "port": 53, "targetPort": 5353, "protocol": "UDP"},
    ]
    named = {"ports": [{"name": "named", "containerPort": 8765}]}
    pod = namespace.create(manifests.pod("web", images.agnhost, args=["pause"], container=named))
    web = namespace.create(manifests.service("web", spec={"ports": ports}))
    slices = namespace.select(kinds.ENDPOINT_SLICE, labels=f"kubernetes.io/service-name={web.name}")
    eventually(pod, ready, within=timeouts.pod)

    eventually(slices, endpoints(1), within=timeouts.propagation)

    for each in slices.read():
        told = {port["name"]: (port["port"], port["protocol"], port.get("appProtocol")) for port in each["ports"]}
        wanted = {"web": (8765, "TCP", "kubernetes.io/h2c"), "names": (5353, "UDP", None)}
        assert told == wanted, f"{each} tells the ports {told}, not {wanted}"


def test_mirrored(namespace: Namespace, timeouts: Timeouts) -> None:
    """Endpoints made by hand, for a Service without selector, MUST be mirrored to EndpointSlices, also when changed.

    Source: https://kubernetes.io/docs/concepts/services-networking/service/#endpointslice-mirroring
    """
    outside = namespace.create(manifests.service("outside", selector={}))
    slices = namespace.select(kinds.ENDPOINT_SLICE, labels=f"kubernetes.io/service-name={outside.name}")
    # Addresses that are for documentation only (RFC 5737): nobody sends anything there.
    made = namespace.create(manifests.endpoints("outside", ["192.0.2.1"], port=9000))

    eventually(slices, _offer({"192.0.2.1"}), within=timeouts.object)
    made.patch({"subsets": manifests.endpoints("outside", ["192.0.2.2"], port=9000)["subsets"]})
    eventually(slices, _offer({"192.0.2.2"}), within=timeouts.object)
    made.delete()
    eventually(slices, _offer(set()), within=timeouts.object)


def _name(addresses: set[str]) -> Callable[[Object], str | None]:
    def name(told: Object) -> str | None:
        seen = {each["ip"] for subset in told.raw.get("subsets") or [] for each in subset.get("addresses") or []}
        return None if seen == addresses else f"they name {', '.join(sorted(seen)) or 'none'}"

    name.__name__ = f"name {', '.join(sorted(addresses)) or 'no address'}"
    return name


def _offer(addresses: set[str]) -> ListCondition:
    def offer(slices: list[Object]) -> str | None:
        seen = ready_addresses(slices)
        return None if seen == addresses else f"they offer {', '.join(sorted(seen)) or 'none'}"

    offer.__name__ = f"offer {', '.join(sorted(addresses)) or 'no address'}"
    return offer
