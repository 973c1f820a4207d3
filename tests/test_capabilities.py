"""What counts as a claim to a capability, judged by what a cluster tells of itself."""

from __future__ import annotations

from typing import Any

import pytest

from clusterproof import capabilities
from clusterproof.capabilities import Survey
from clusterproof.client import Client


def node(name: str, *handlers: dict[str, Any]) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": {}, "status": {"runtimeHandlers": list(handlers)}}


CAPABLE = {"name": "", "features": {"userNamespaces": True}}
INCAPABLE = {"name": "", "features": {"userNamespaces": False}}
SPECIAL = {"name": "special", "features": {"userNamespaces": True}}


@pytest.mark.parametrize(
    ("nodes", "found", "evidence"),
    [
        ([node("a", CAPABLE), node("b", SPECIAL, CAPABLE)], True, "of every node"),
        ([node("a", CAPABLE), node("b", INCAPABLE, SPECIAL)], False, "default runtime of b does not tell"),
        ([node("a")], False, "default runtime of a does not tell"),
    ],
)
def test_user_namespaces_are_claimed_by_the_runtimes(
    client: Client, nodes: list[dict[str, Any]], found: bool, evidence: str
) -> None:
    survey = Survey(client)
    survey.__dict__["nodes"] = nodes

    finding = capabilities.USERNS.detect(survey)

    assert finding.found is found
    assert evidence in finding.evidence


@pytest.mark.parametrize(
    ("provider_id", "labels", "found"),
    [
        ("aws:///eu-west-1a/i-1", {"topology.kubernetes.io/region": "eu-west-1"}, True),
        ("kind://docker/kind/kind-worker", {}, False),
        ("", {"topology.kubernetes.io/region": "cellar"}, False),
    ],
)
def test_a_cloud_is_claimed_by_an_instance_in_a_region(
    client: Client, provider_id: str, labels: dict[str, str], found: bool
) -> None:
    survey = Survey(client)
    seen = {"metadata": {"name": "b", "labels": labels}, "spec": {"providerID": provider_id}}
    survey.__dict__["nodes"] = [node("a"), seen]

    finding = capabilities.CLOUD_NODES.detect(survey)

    assert finding.found is found
    assert finding.evidence == f"{'b has' if found else 'no node has'} an instance and a region"
