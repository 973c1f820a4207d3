"""Flow control: which requests wait for each other when there are more than the API server answers at once."""

from __future__ import annotations

import functools
from collections.abc import Callable

from clusterproof import Client, Cluster, Namespace, Object, Response, Timeouts, eventually, kinds, manifests
from clusterproof.credentials import Credentials

LEVEL = "catch-all"
"""A priority level that every cluster has."""


def test_flow_schema(namespace: Namespace, cluster: Cluster, credentials: Credentials, timeouts: Timeouts) -> None:
    """A request MUST belong to the FlowSchema of lowest matchingPrecedence that matches it, and its answer tell so.

    Source: https://kubernetes.io/docs/concepts/cluster-administration/flow-control/#flowschema
    """
    for name in ("somebody", "other"):
        namespace.create(manifests.service_account(name))
    somebody, other = (
        credentials.token(namespace.object(kinds.SERVICE_ACCOUNT, name)) for name in ("somebody", "other")
    )
    answered = functools.partial(_answer, somebody, namespace)
    # Lower than those of a cluster's own, some of which are for all accounts; they match nobody but ours.
    later = cluster.create(_schema(namespace, "later", precedence=4))
    eventually(answered, _belongs_to(later), within=timeouts.propagation)

    sooner = cluster.create(_schema(namespace, "sooner", precedence=3))
    answer = eventually(answered, _belongs_to(sooner), within=timeouts.propagation)
    level = cluster.get(kinds.PRIORITY_LEVEL_CONFIGURATION, LEVEL)
    told = answer.headers.get("X-Kubernetes-PF-PriorityLevel-UID")
    assert told == level.uid, f"{sooner} gives requests the level {level}, and one was told {told}, not {level.uid}"
    strange = _belongs_to(sooner)(_answer(other, namespace))
    assert strange, f"{sooner} is for requests of {somebody.user} only, and one of {other.user} belongs to it"
    sooner.delete()

    eventually(answered, _belongs_to(later), within=timeouts.propagation)


def _schema(namespace: Namespace, name: str, *, precedence: int) -> dict[str, object]:
    """A FlowSchema for reading ConfigMaps of a namespace as its account `somebody`."""
    subject = {"kind": "ServiceAccount", "serviceAccount": {"name": "somebody", "namespace": namespace.name}}
    resources = {"verbs": ["list"], "apiGroups": [""], "resources": ["configmaps"], "namespaces": [namespace.name]}
    return {
        "apiVersion": kinds.FLOW_SCHEMA.api_version,
        "kind": kinds.FLOW_SCHEMA.kind,
        "metadata": {"name": f"{namespace}-{name}"},
        "spec": {
            "priorityLevelConfiguration": {"name": LEVEL},
            "matchingPrecedence": precedence,
            "rules": [{"subjects": [subject], "resourceRules": [resources]}],
        },
    }


def _answer(client: Client, namespace: Namespace) -> Response:
    """The answer to a request for ConfigMaps, which is classified before anybody asks whether it is allowed."""
    return client.request("GET", kinds.CONFIG_MAP.path(namespace.name))


def _belongs_to(schema: Object) -> Callable[[Response], str | None]:
    def belongs_to(answer: Response) -> str | None:
        told = answer.headers.get("X-Kubernetes-PF-FlowSchema-UID")
        return None if told == schema.uid else f"it belongs to the FlowSchema with the uid {told}, not {schema.uid}"

    belongs_to.__name__ = f"belongs to {schema}"
    return belongs_to
