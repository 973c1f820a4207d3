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
