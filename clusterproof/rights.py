"""Granting rights, and finding out by real requests what they allow."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from clusterproof import kinds, manifests, steps
from clusterproof.client import READ_SECONDS, Client
from clusterproof.errors import ApiError
from clusterproof.kinds import Kind
from clusterproof.namespace import Namespace
from clusterproof.objects import PATCH_TYPES, Object
from clusterproof.outcome import Rights

VERBS = ("get", "list", "watch", "create", "update", "patch", "delete", "deletecollection")

_DRY = {"dryRun": "All"}


def attempt(client: Client, verb: str, kind: Kind, namespace: str, item: Mapping[str, Any]) -> int:
    """Status of a real request for a verb; `item` is what it reads, or writes as a dry run.

    Authorization decides about a dry run as about any write, but nobody is hurt when it allows too much.
    """
    name = item["metadata"]["name"]
    whole, single = kind.path(namespace), kind.path(namespace, name)
    match verb:
        case "get":
            return client.request("GET", single).status
        case "list":
            return client.request("GET", whole, query={"limit": 1}).status
        case "watch":
            return _watch(client, whole)
        case "create":
            fresh = {key: value for key, value in item["metadata"].items() if key in ("labels", "annotations")}
            body = {**item, "metadata": {**fresh, "name": f"{name}-more"}}
            return client.request("POST", whole, body=body, query=_DRY).status
        case "update":
            return client.request("PUT", single, body=item, query=_DRY).status
        case "patch":
            return client.request("PATCH", single, body={}, content_type=PATCH_TYPES["merge"], query=_DRY).status
        case "delete":
            return client.request("DELETE", single, query=_DRY).status
        case "deletecollection":
            query = {**_DRY, "fieldSelector": f"metadata.name={name}"}
            return client.request("DELETE", whole, query=query).status
    raise ValueError(f"no request is known for the verb {verb}")


def review(
    client: Client, verb: str, kind: Kind, namespace: str = "", *, name: str = "", subresource: str = ""
) -> bool:
    """Whether the server says that somebody may do something, asked by themselves."""
    attributes = {
        "verb": verb,
        "group": kind.group,
        "resource": kind.plural,
        "namespace": namespace,
        "name": name,
        "subresource": subresource,
    }
    asked = kinds.SELF_SUBJECT_ACCESS_REVIEW
    body = {"apiVersion": asked.api_version, "kind": asked.kind, "spec": {"resourceAttributes": attributes}}
    return bool(client.post(asked.path(), body)["status"]["allowed"])


def told_rules(client: Client, namespace: str) -> list[dict[str, Any]]:
    """What the server tells somebody of what they may do to objects of a namespace; it need not be all of it."""
    api = "authorization.k8s.io/v1"
    body = {"apiVersion": api, "kind": "SelfSubjectRulesReview", "spec": {"namespace": namespace}}
    rules: list[dict[str, Any]] = client.post(f"/apis/{api}/selfsubjectrulesreviews", body)["status"]["resourceRules"]
    return rules


def grant(
    namespace: Namespace,
    rules: Sequence[Mapping[str, Any]],
    subjects: Iterable[Mapping[str, Any]],
    *,
    role: str = "Role",
    binding: str = "RoleBinding",
    name: str = "granted",
) -> tuple[Object, Object]:
    """Make a role of these rules and bind it, in a namespace, or in the whole cluster under a name that begins with it.

    Both objects; they go when the promise ends.
    """
    cluster, whole_name = namespace.cluster, f"{namespace.name}-{name}"
    listed = [dict(rule) for rule in rules]
    if role == "Role":
        made = namespace.create(manifests.role(name, listed))
    else:
        made = cluster.create(manifests.cluster_role(whole_name, listed))
    return made, bind(namespace, made.name, subjects, role=role, binding=binding, name=name)


def bind(
    namespace: Namespace,
    to: str,
    subjects: Iterable[Mapping[str, Any]],
    *,
    role: str = "ClusterRole",
    binding: str = "RoleBinding",
    name: str = "granted",
) -> Object:
    """Bind a role that there is, in a namespace, or in the whole cluster under a name that begins with it."""
    whom = [dict(subject) for subject in subjects]
    if binding == "RoleBinding":
        return namespace.create(manifests.role_binding(name, to, whom, role_kind=role))
    return namespace.cluster.create(manifests.cluster_role_binding(f"{namespace.name}-{name}", to, whom))


def note(who: str, granted: Iterable[str], answers: Mapping[str, int]) -> None:
    """Put into the report what somebody was granted, and the status that each request was answered with.

    Both by verb and resource: `get configmaps`.
    """
    steps.current.rights.append(Rights(who, tuple(granted), dict(answers)))


def _watch(client: Client, path: str) -> int:
    try:
        # It is over after a second, and nobody reads it; but that it is answered may take longer.
        client.watch(path, {"timeoutSeconds": 1}, within=READ_SECONDS)
    except ApiError as refusal:
        return refusal.status
    return 200
