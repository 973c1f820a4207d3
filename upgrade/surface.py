"""What an API server serves, and what a cluster is like: read before an upgrade and after it, to be compared."""

from __future__ import annotations

import re
from typing import Any

from clusterproof import discovery, kinds
from clusterproof.client import Client
from clusterproof.kinds import Kind
from clusterproof.objects import Object, Selection


def surface(client: Client) -> list[str]:
    """Every resource that is served, at every version: `v1/pods`, `apps/v1/deployments`; sorted."""
    return sorted(
        {f"{api_version}/{each['resource']}" for api_version, each in discovery.resources(discovery.groups(client))}
    )


def foreign_groups(client: Client) -> list[str]:
    """API groups that CustomResourceDefinitions or other API servers bring; sorted."""
    definitions = client.get(kinds.CUSTOM_RESOURCE_DEFINITION.path())["items"]
    aggregated = [each for each in client.get(kinds.API_SERVICE.path())["items"] if each["spec"].get("service")]
    return sorted({each["spec"]["group"] for each in (*definitions, *aggregated)})


def nodes(client: Client) -> dict[str, dict[str, Any]]:
    """Every node by name: kubelet version, boot id, whether it is Ready and whether it takes pods."""
    found = {}
    for node in Selection(client, kinds.NODE).read():
        info = node.status["nodeInfo"]
        found[node.name] = {
            "version": info["kubeletVersion"],
            "boot": info["bootID"],
            "ready": node.condition("Ready").get("status") == "True",
            "unschedulable": bool(node.spec.get("unschedulable")),
        }
    return found


def services(client: Client) -> dict[str, dict[str, Any]]:
    """Every Service by namespace/name: uid, cluster addresses, node ports, and addresses of its load balancer."""
    found = {}
    for service in Selection(client, kinds.SERVICE).read():
        entries = (service.status.get("loadBalancer") or {}).get("ingress") or []
        found[f"{service.namespace}/{service.name}"] = {
            "cluster addresses": service.spec.get("clusterIPs") or [],
            "node ports": [port["nodePort"] for port in service.spec.get("ports") or [] if port.get("nodePort")],
            "load balancer": sorted(each.get("ip") or each.get("hostname") or "" for each in entries),
        }
    return found


def containers(client: Client) -> dict[str, dict[str, Any]]:
    """Every pod by uid: its name, its node, and how often its containers were restarted."""
    return {
        pod.uid: {
            "pod": f"{pod.namespace}/{pod.name}",
            "node": pod.spec.get("nodeName", ""),
            "restarts": sum(each.get("restartCount", 0) for each in pod.status.get("containerStatuses") or []),
        }
        for pod in Selection(client, kinds.POD).read()
    }


def plain(version: str) -> str:
    """`1.37.2` of `v1.37.2-eks-a1b2c3`: what a server and its nodes have in common."""
    found = re.match(r"v?(\d+\.\d+\.\d+)", version)
    return found[1] if found else version


def identity(item: Object) -> dict[str, Any]:
    """An object as data, enough to find it again and to know whether it is the same."""
    kind = item.kind
    where = {"api_version": kind.api_version, "kind": kind.kind, "plural": kind.plural, "namespaced": kind.namespaced}
    return {**where, "namespace": item.namespace, "name": item.name, "uid": item.uid}


def found_again(client: Client, known: dict[str, Any]) -> Object:
    """The object that `identity` described; makes no request."""
    kind = Kind(known["api_version"], known["kind"], known["plural"], known["namespaced"])
    return Object(client, kind, known["name"], known["namespace"])
