"""Where Ingresses are reached, as a fake API server's objects say."""

from __future__ import annotations

from typing import Any, cast

import pytest

from clusterproof.client import Client
from clusterproof.cluster import Cluster
from clusterproof.entrypoint import EntryPoint
from clusterproof.outcome import ClusterFacts
from clusterproof.provider import Access
from clusterproof.settings import Settings
from clusterproof.timeouts import Timeouts

from .fake_api import FakeApi

NETWORKING = "/apis/networking.k8s.io/v1"


@pytest.mark.parametrize(
    ("told", "reached"),
    [
        ({"ip": "192.0.2.1"}, "192.0.2.1:80"),
        ({"ip": "fd00::1"}, "[fd00::1]:80"),
        ({"hostname": "lb.example"}, "lb.example:80"),
    ],
)
def test_address_from_status(api: FakeApi, client: Client, told: dict[str, Any], reached: str) -> None:
    """The address in an Ingress' status MUST become one that a URL can have, of whichever family it is."""
    api.put(
        f"{NETWORKING}/ingressclasses/ours", {"metadata": {"name": "ours"}, "spec": {"controller": "example.com/c"}}
    )
    web = {"spec": {"ingressClassName": "ours"}, "status": {"loadBalancer": {"ingress": [told]}}}
    api.put(f"{NETWORKING}/namespaces/ns/ingresses/web", {"metadata": {"name": "web"}, **web})
    access = Access(provider="external", name="x", kubeconfig="")
    cluster = Cluster(access, cast(ClusterFacts, None), Settings(), "run", client)

    assert EntryPoint(cluster, Timeouts()).address == reached
