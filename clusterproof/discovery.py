"""What an API server serves, asked of it in two requests."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from clusterproof.client import Client
from clusterproof.errors import SurroundingsError

_AGGREGATED = ",".join(
    f"application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList" for version in ("v2", "v2beta1")
)


def groups(client: Client) -> list[dict[str, Any]]:
    """Every group as an APIGroupDiscovery, the core group without a name; one whose server is away has no resources.

    SurroundingsError when the server does not answer with aggregated discovery.
    """
    found: list[dict[str, Any]] = []
    for root in ("/api", "/apis"):
        answer = client.request("GET", root, accept=f"{_AGGREGATED},application/json")
        if answer.status >= 400 or answer.json().get("kind") != "APIGroupDiscoveryList":
            raise SurroundingsError(
                f"{client.server}{root} should answer with aggregated discovery, as every server since Kubernetes 1.27 "
                f"does, but answered {answer.status}; without it nobody knows which kinds of objects there are"
            )
        found += answer.json()["items"]
    return found


def resources(groups: Iterable[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every resource with its apiVersion, in the server's order: of each group the preferred version first."""
    for group in groups:
        name = group["metadata"].get("name", "")
        for version in group["versions"]:
            api_version = f"{name}/{version['version']}" if name else version["version"]
            for resource in version.get("resources") or []:
                yield api_version, resource


def kinds(groups: Iterable[dict[str, Any]]) -> tuple[str, ...]:
    """Every kind with its apiVersion, sorted: `apps/v1 Deployment`."""
    # A resource that has subresources only has no kind of its own.
    kinds_of = ((version, (each.get("responseKind") or {}).get("kind")) for version, each in resources(groups))
    return tuple(sorted({f"{version} {kind}" for version, kind in kinds_of if kind}))
