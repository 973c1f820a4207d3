"""ValidatingAdmissionPolicy: rules of the user's own, evaluated by the API server itself."""

from __future__ import annotations

from collections.abc import Callable

from clusterproof import Cluster, Namespace, Response, Timeouts, eventually, kinds, manifests
from clusterproof.refusals import refused

REGISTRATION = "admissionregistration.k8s.io/v1"


def test_deny(cluster: Cluster, namespace: Namespace, timeouts: Timeouts) -> None:
    """An object that violates a bound policy MUST be refused with the policy's message, and others be let in.

    Source: https://kubernetes.io/docs/reference/access-authn-authz/validating-admission-policy/
    """
    _bind(cluster, namespace, ["Deny"])

    eventually(
        lambda: _try(namespace, "red"),
        _is_refused,
        within=timeouts.propagation,
        describe=f"a red ConfigMap in {namespace}",
    )
    with refused("a red ConfigMap under a policy that denies it", 422) as refusal:
        namespace.create(manifests.config_map("item", {"color": "red"}))
    assert "red is not allowed" in refusal.message, f"the refusal MUST carry the policy's message: {refusal.message}"
    item = namespace.create(manifests.config_map("item", {"color": "blue"}))
    with refused(f"changing {item} to red under a policy that denies it", 422):
        item.patch({"data": {"color": "red"}})
    assert item.read()["data"] == {"color": "blue"}, f"a refused write changed {item}"


def test_warn(cluster: Cluster, namespace: Namespace, timeouts: Timeouts) -> None:
    """An object that violates a policy bound to warn MUST be let in with the policy's message as a warning.

    Source: https://kubernetes.io/docs/reference/access-authn-authz/validating-admission-policy/#validation-actions
    """
    _bind(cluster, namespace, ["Warn"])

    warned = eventually(
        lambda: _try(namespace, "red"), _warns, within=timeouts.propagation, describe=f"a red ConfigMap in {namespace}"
    )
    quiet = _try(namespace, "blue")

    assert warned.status == 201, f"a policy that only warns refused a red ConfigMap with {warned.status}: {warned.text}"
    assert "Warning" not in quiet.headers, f"a blue ConfigMap is warned about: {quiet.headers['Warning']}"


def test_scope(cluster: Cluster, namespace: Namespace, namespaces: Callable[[], Namespace], timeouts: Timeouts) -> None:
    """A policy MUST NOT apply where its binding's namespace selector does not match.

    Source: https://kubernetes.io/docs/reference/access-authn-authz/validating-admission-policy/
    """
    other = namespaces()
    _bind(cluster, namespace, ["Deny"])
    eventually(
        lambda: _try(namespace, "red"),
        _is_refused,
        within=timeouts.propagation,
        describe=f"a red ConfigMap in {namespace}",
    )

    other.create(manifests.config_map("item", {"color": "red"}))
    namespace.create(manifests.secret("item", {"color": "red"}))


def _bind(cluster: Cluster, namespace: Namespace, actions: list[str]) -> None:
    """Let no ConfigMap of the namespace be red."""
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": ["configmaps"]}
    policy = {
        "matchConstraints": {"resourceRules": [rule]},
        "validations": [{"expression": "object.?data.color != optional.of('red')", "message": "red is not allowed"}],
    }
    here = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace.name}}}
    binding = {"policyName": namespace.name, "validationActions": actions, "matchResources": here}
    for kind, spec in ("ValidatingAdmissionPolicy", policy), ("ValidatingAdmissionPolicyBinding", binding):
        cluster.create({"apiVersion": REGISTRATION, "kind": kind, "metadata": {"name": namespace.name}, "spec": spec})


def _try(namespace: Namespace, color: str) -> Response:
    """What creating a ConfigMap of a color comes to; nothing is stored."""
    manifest = manifests.config_map("try", {"color": color})
    return namespace.client.request(
        "POST", kinds.CONFIG_MAP.path(namespace.name), body=manifest, query={"dryRun": "All"}
    )


def _is_refused(answer: Response) -> str | None:
    """It was refused."""
    return None if answer.status == 422 else f"a red ConfigMap is answered with {answer.status}, not 422"


def _warns(answer: Response) -> str | None:
    """It carries the policy's message as a warning."""
    warning = answer.headers.get("Warning", "")
    return None if "red is not allowed" in warning else f"a red ConfigMap is answered with the warning {warning!r}"
