"""What is found out about a cluster before the first promise, with the evidence, in a handful of requests."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from clusterproof import capabilities, discovery
from clusterproof.capabilities import Capability, Finding, Survey
from clusterproof.client import Client
from clusterproof.errors import ApiError
from clusterproof.outcome import CapabilityFact, ClusterFacts, NodeFact
from clusterproof.provider import Access

T = TypeVar("T")

LEVEL = "extended"
"""Of every capability: a cluster may lack it, and then its promises are unsupported."""


def detect(client: Client, access: Access, declared: Iterable[str] = ()) -> ClusterFacts:
    """Version, nodes, identity, what its API serves, and for each capability whether the cluster claims it.

    `declared` are names of capabilities that the user vouches for.
    """
    survey = Survey(client)
    # Whoever only has some namespaces may not see them.
    nodes: list[dict[str, Any]] = _unless_forbidden(lambda: survey.nodes, [])
    vouched = {
        **dict.fromkeys(survey.declared.get("capabilities", "").split(), "by ConfigMap kube-public/clusterproof"),
        **dict.fromkeys(access.capabilities, f"by the {access.provider} provider"),
        **dict.fromkeys(declared, "by --capabilities"),
    }
    return ClusterFacts(
        name=access.name,
        provider=access.provider,
        server=client.server,
        version=survey.version,
        uid=uid(client),
        nodes=tuple(_node(raw) for raw in nodes),
        capabilities=tuple(_claim(each, survey, vouched) for each in capabilities.ALL.values()),
        kinds=discovery.kinds(survey.served),
    )


def uid(client: Client) -> str:
    """What tells a cluster from all others: the UID of namespace kube-system; empty where it may not be seen."""
    return _unless_forbidden(lambda: str(client.get("/api/v1/namespaces/kube-system")["metadata"]["uid"]), "")


def _unless_forbidden(read: Callable[[], T], otherwise: T) -> T:
    try:
        return read()
    except ApiError as refused:
        if refused.status != 403:
            raise
        return otherwise


def _claim(capability: Capability, survey: Survey, vouched: dict[str, str]) -> CapabilityFact:
    if capability.name in vouched:
        return CapabilityFact(capability.name, LEVEL, True, f"declared {vouched[capability.name]}")
    try:
        finding = capability.detect(survey)
    except ApiError as refused:
        finding = Finding(False, f"not declared, and looking for it was refused: {refused.message}")
    return CapabilityFact(capability.name, LEVEL, finding.found, finding.evidence)


def _node(raw: dict[str, Any]) -> NodeFact:
    info = raw["status"]["nodeInfo"]
    conditions = {each["type"]: each["status"] for each in raw["status"].get("conditions") or []}
    return NodeFact(
        name=raw["metadata"]["name"],
        version=info["kubeletVersion"],
        os_image=info["osImage"],
        kernel=info["kernelVersion"],
        runtime=info["containerRuntimeVersion"],
        ready=conditions.get("Ready") == "True",
    )
