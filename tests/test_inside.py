"""What pods ask: URLs as they stand in requests."""

from __future__ import annotations

from kubernetes.client import Configuration

from clusterproof import inside, kinds
from clusterproof.client import Client
from clusterproof.objects import Object


def test_addresses_in_urls() -> None:
    """An IPv6 address MUST have brackets around it in a URL; other addresses and names MUST stay as they are."""
    assert inside.in_url("fd00::1") == "[fd00::1]"
    assert [inside.in_url(host) for host in ("192.0.2.1", "web.ns.svc")] == ["192.0.2.1", "web.ns.svc"]


def test_url_of_a_service() -> None:
    """The URL of a Service MUST be that of its cluster IP, of whichever family that is."""
    web = Object(Client(Configuration()), kinds.SERVICE, "web", "ns", {"spec": {"clusterIP": "192.0.2.1"}})
    assert inside.url_of(web) == "http://192.0.2.1/hostname"

    web.raw["spec"]["clusterIP"] = "fd00::1"
    assert inside.url_of(web, "/clientip") == "http://[fd00::1]/clientip"
