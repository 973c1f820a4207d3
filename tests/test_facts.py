"""What is found out about a cluster before the first promise."""

from __future__ import annotations

from typing import Any

import pytest

from clusterproof import discovery, facts
from clusterproof.client import Client
from clusterproof.errors import SurroundingsError
from clusterproof.provider import Access

from .fake_api import FakeApi


def serves(api: FakeApi, root: str, *groups: tuple[str, dict[str, list[str | None]]]) -> None:
    """Let the server say that it serves these kinds: of each group by version."""
    items = [
        {
            "metadata": {"name": name} if name else {},
            "versions": [
                {
                    "version": version,
                    "resources": [{"resource": "each", "responseKind": kind and {"kind": kind}} for kind in kinds],
                }
                for version, kinds in versions.items()
            ],
        }
        for name, versions in groups
    ]

    def answer(request: Any) -> bool:
        request.answer(200, {"kind": "APIGroupDiscoveryList", "items": items, "groups": []})
        return True

    api.overrides[f"GET {root}"] = answer


def test_every_kind_is_recorded_with_its_version(api: FakeApi, client: Client) -> None:
    serves(api, "/api", ("", {"v1": ["Pod", "Service"]}))
    serves(api, "/apis", ("apps", {"v1": ["Deployment"], "v1beta1": ["Deployment"]}), ("example.org", {"v1": [None]}))
    found = facts.detect(client, Access(provider="external", name="fake", kubeconfig="", context=""))

    assert found.kinds == ("apps/v1 Deployment", "apps/v1beta1 Deployment", "v1 Pod", "v1 Service")


def test_a_server_without_aggregated_discovery_is_named(api: FakeApi, client: Client) -> None:
    def answer(request: Any) -> bool:
        request.answer(200, {"kind": "APIGroupList", "groups": []})
        return True

    api.overrides["GET /apis"] = answer
    with pytest.raises(SurroundingsError, match="/apis should answer with aggregated discovery"):
        discovery.groups(client)
