"""Dual stack: pods and Services have an address of each family, and are reached at both."""

from __future__ import annotations

import functools
from typing import Any

import pytest

from clusterproof import Images, Namespace, Object, Timeouts, capabilities, eventually, inside
from clusterproof.conditions import ready
from clusterproof.manifests import http_probe, pod, service

pytestmark = pytest.mark.requires(capabilities.DUAL_STACK)


def test_both_families(namespace: Namespace, nodes: list[Object], images: Images, timeouts: Timeouts) -> None:
    """A pod, and a Service that asks for it, MUST have an IPv4 and an IPv6 address and be reached at both.

    Source: https://kubernetes.io/docs/concepts/services-networking/dual-stack/
    """
    both = {"ipFamilyPolicy": "RequireDualStack"}
    web = namespace.create(service("web", selector={"app": "server"}, spec=both))
    serve: dict[str, Any] = {"args": ["netexec"], "readiness": http_probe()}
    server = namespace.create(pod("server", images.agnhost, node=nodes[0].name, **serve))
    client = namespace.create(pod("client", images.agnhost, args=["pause"], node=nodes[-1].name))
    for each in (server, client):
        eventually(each, ready, within=timeouts.pod)

    addresses = {"pod": [each["ip"] for each in server.status["podIPs"]], "Service": web.spec["clusterIPs"]}
    for owner, its in addresses.items():
        assert sorted(":" in one for one in its) == [False, True], f"the {owner} MUST have both families, but has {its}"
    urls = [_url(one, 8080) for one in addresses["pod"]] + [_url(one, 80) for one in addresses["Service"]]
    read = functools.partial(inside.fetch, client, urls)
    eventually(read, _all_answer, within=timeouts.propagation, describe=f"{client} reaches {server} at each address")


def test_one_family(namespace: Namespace) -> None:
    """A Service that asks for one family MUST be given an address of that family and no other.

    Source: https://kubernetes.io/docs/concepts/services-networking/dual-stack/#services
    """
    for family in ("IPv4", "IPv6"):
        single = {"ipFamilyPolicy": "SingleStack", "ipFamilies": [family]}
        made = namespace.create(service(family.lower(), spec=single))
        given = made.spec["clusterIPs"]
        assert [":" in one for one in given] == [family == "IPv6"], f"{made} asks for {family}, but has {given}"


def _url(address: str, port: int) -> str:
    return f"http://{inside.in_url(address)}:{port}/hostname"


def _all_answer(answers: dict[str, set[str]]) -> str | None:
    """Each URL is answered by the server."""
    wrong = [f"{url}: {', '.join(sorted(given))}" for url, given in answers.items() if given != {"server"}]
    return "; ".join(wrong) or None
