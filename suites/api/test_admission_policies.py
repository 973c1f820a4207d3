"""Admission policies: rules of the user's own, evaluated by the API server itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from clusterproof import (
    Cluster,
    Hopeless,
    Namespace,
    Object,
    Response,
    Timeouts,
    capabilities,
    conditions,
    eventually,
    kinds,
    manifests,
)
from clusterproof.counters import total
from clusterproof.refusals import refused

REGISTRATION = "admissionregistration.k8s.io/v1"
WRITES = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": ["configmaps"]}
NO_RED = {"expression": "object.?data.color != optional.of('red')", "message": "red is not allowed"}
PAINT = {
    "patchType": "ApplyConfiguration",
    "applyConfiguration": {"expression": "Object{data: {'painted': 'yes'}}"},
}
FRAME = {
    "patchType": "JSONPatch",
    "jsonPatch": {"expression": "[JSONPatch{op: 'add', path: '/data/framed', value: 'yes'}]"},
}
BY = "painter"
"""A key that an expression takes for granted, and fails without."""


def test_deny(cluster: Cluster, namespace: Namespace, timeouts: Timeouts) -> None:
    """An object that violates a bound policy MUST be refused with the policy's message, and others be let in.

    Source: https://kubernetes.io/docs/reference/access-authn-authz/validating-admission-policy/
    """
    _bind(cluster, namespace, ["Deny"])

    _until_refused(namespace, timeouts)
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
    warning = quiet.headers.get("Warning", "")
    assert "red is not allowed" not in warning, f"a blue ConfigMap is warned about: {warning}"


def test_audit(cluster: Cluster, namespace: Namespace, timeouts: Timeouts) -> None:
    """An object that violates a policy bound to audit MUST be let in without a warning, and be counted.

    Source: https://kubernetes.io/docs/reference/access-authn-authz/validating-admission-policy/#validation-actions
    """
    _bind(cluster, namespace, ["Audit"])

    def tried() -> tuple[Response, float]:
        answer = _try(namespace, "red")
        violations = {"policy": namespace.name, "enforcement_action": "audit"}
        return answer, total(cluster.client, "apiserver_validating_admission_policy_check_total", **violations)

    eventually(tried, _is_audited, within=timeouts.propagation, describe=f"a red ConfigMap in {namespace}")


def test_scope(cluster: Cluster, namespace: Namespace, namespaces: Callable[[], Namespace], timeouts: Timeouts) -> None:
    """A policy MUST NOT apply to what its binding's selector, its match conditions or its exclusions leave out.

    Source: https://kubernetes.io/docs/reference/access-authn-authz/validating-admission-policy/
    """
    other = namespaces()
    rules = {
        "matchConstraints": {"resourceRules": [WRITES], "excludeResourceRules": [WRITES | {"resourceNames": ["free"]}]},
        "matchConditions": [{"name": "not-exempt", "expression": "object.metadata.name != 'exempt'"}],
        "validations": [NO_RED],
    }
    _bound(cluster, namespace, "ValidatingAdmissionPolicy", rules, validationActions=["Deny"])
    _until_refused(namespace, timeouts)

    red = {"color": "red"}
    for place, made, why in (
        (other, manifests.config_map("item", red), "in a namespace that its binding does not select"),
        (namespace, manifests.secret("item", red), "of another kind than it is about"),
        (namespace, manifests.config_map("exempt", red), "that its match condition leaves out"),
        (namespace, manifests.config_map("free", red), "that it excludes by its name"),
    ):
        answer = place.client.request("POST", kinds.of(made).path(place.name), body=made)
        told = answer.json().get("message")
        assert answer.status == 201, f"a policy MUST NOT apply to a {made['kind']} {why}, but: {told}"


@pytest.mark.parametrize("policy", ["Fail", "Ignore"])
def test_failure_policy(cluster: Cluster, namespace: Namespace, timeouts: Timeouts, policy: str) -> None:
    """What a policy cannot be evaluated for MUST be refused where its failure policy is Fail, and let in with Ignore.

    Source: https://kubernetes.io/docs/reference/access-authn-authz/validating-admission-policy/#failure-policy
    """
    failing = {"expression": f"object.metadata.name != 'try' || object.data.{BY} == 'clusterproof'"}
    rules = {"validations": [NO_RED, failing], "failurePolicy": policy}
    _bound(cluster, namespace, "ValidatingAdmissionPolicy", rules, validationActions=["Deny"])
    _until_refused(namespace, timeouts, **{BY: "clusterproof"})

    fine = _try(namespace, "blue", **{BY: "clusterproof"})
    assert fine.status == 201, f"a ConfigMap that violates nothing is answered {fine.status}: {fine.text}"
    eventually(
        lambda: _try(namespace, "blue").status,
        conditions.equals({"Fail": 422, "Ignore": 201}[policy]),
        within=timeouts.propagation,
        describe=f"what a ConfigMap that an expression fails for is answered under the failure policy {policy}",
    )


def test_parameters(cluster: Cluster, namespace: Namespace, timeouts: Timeouts) -> None:
    """A policy with parameters MUST go by those that its binding names, as they are now.

    Source: https://kubernetes.io/docs/reference/access-authn-authz/validating-admission-policy/#parameter-resources
    """
    chosen, _ = (namespace.create(manifests.config_map(f"no-{each}", {"not": each})) for each in ("red", "green"))
    rule = {
        "expression": "object.?data.color != optional.of(params.data['not'])",
        "messageExpression": "params.data['not'] + ' is not allowed'",
    }
    parameters = {"paramKind": {"apiVersion": "v1", "kind": "ConfigMap"}, "validations": [rule]}
    named = {"name": chosen.name, "namespace": namespace.name, "parameterNotFoundAction": "Deny"}
    _bound(cluster, namespace, "ValidatingAdmissionPolicy", parameters, validationActions=["Deny"], paramRef=named)

    def answers() -> dict[str, int]:
        return {color: _try(namespace, color).status for color in ("red", "green", "blue")}

    what = f"are those of a policy whose parameter is {chosen}"
    only = conditions.equals({"red": 422, "green": 201, "blue": 201})
    eventually(answers, only, within=timeouts.propagation, describe=what)
    chosen.patch({"data": {"not": "blue"}})
    only = conditions.equals({"red": 201, "green": 201, "blue": 422})
    eventually(answers, only, within=timeouts.propagation, describe=f"{what}, which says blue by now")
    told = _try(namespace, "blue").json()["message"]
    assert "blue is not allowed" in told, f"the refusal MUST say what the policy's messageExpression makes: {told}"


@pytest.mark.requires(capabilities.MUTATING_POLICIES)
def test_mutate(cluster: Cluster, namespace: Namespace, timeouts: Timeouts) -> None:
    """An object that a bound policy changes MUST be stored as changed, and one that it does not match as it was sent.

    Source: https://kubernetes.io/docs/reference/access-authn-authz/mutating-admission-policy/
    """
    painting = {
        "matchConditions": [{"name": "red", "expression": "object.?data.color == optional.of('red')"}],
        "mutations": [PAINT, FRAME],
        "reinvocationPolicy": "Never",
    }
    _bound(cluster, namespace, "MutatingAdmissionPolicy", painting)

    eventually(
        lambda: _try(namespace, "red"),
        _is_painted,
        within=timeouts.propagation,
        describe=f"a red ConfigMap in {namespace}",
    )
    stored = {color: namespace.create(manifests.config_map(color, {"color": color})) for color in ("red", "blue")}

    changed = stored["red"].read()["data"]
    wanted = {"color": "red", "painted": "yes", "framed": "yes"}
    assert changed == wanted, f"{stored['red']} is stored as {changed}, not {wanted} as its policy changes it"
    assert stored["blue"].read()["data"] == {"color": "blue"}, f"{stored['blue']}, which is not red, was changed"


def test_types(cluster: Cluster, namespace: Namespace, timeouts: Timeouts) -> None:
    """A policy MUST say in its status which of its expressions do not fit the objects that it is about.

    Source: https://kubernetes.io/docs/reference/access-authn-authz/validating-admission-policy/#type-checking
    """
    expressions = ["object.data.size() < 9", "object.spec.replicas > 1"]
    rules = {"validations": [{"expression": each} for each in expressions]}

    policy = _policy(cluster, namespace, "ValidatingAdmissionPolicy", rules)

    eventually(policy, _warns_about("spec.validations[1].expression"), within=timeouts.object)


def _bind(cluster: Cluster, namespace: Namespace, actions: list[str]) -> None:
    """Let no ConfigMap of the namespace be red."""
    _bound(cluster, namespace, "ValidatingAdmissionPolicy", {"validations": [NO_RED]}, validationActions=actions)


def _bound(cluster: Cluster, namespace: Namespace, kind: str, spec: dict[str, Any], **binding: Any) -> None:
    """A policy about the ConfigMaps of the namespace."""
    _policy(cluster, namespace, kind, spec)
    here = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace.name}}}
    bound = {"policyName": namespace.name, "matchResources": here, **binding}
    metadata = {"name": namespace.name}
    cluster.create({"apiVersion": REGISTRATION, "kind": f"{kind}Binding", "metadata": metadata, "spec": bound})


def _policy(cluster: Cluster, namespace: Namespace, kind: str, spec: dict[str, Any]) -> Object:
    """A policy about ConfigMaps that nothing is bound to."""
    about = {"matchConstraints": {"resourceRules": [WRITES]}, **spec}
    return cluster.create(
        {"apiVersion": REGISTRATION, "kind": kind, "metadata": {"name": namespace.name}, "spec": about}
    )


def _try(namespace: Namespace, color: str, **more: str) -> Response:
    """What creating a ConfigMap of a color comes to; nothing is stored."""
    manifest = manifests.config_map("try", {"color": color, **more})
    return namespace.answer_to(manifest)


def _until_refused(namespace: Namespace, timeouts: Timeouts, **more: str) -> None:
    """Wait until the policy that denies red ConfigMaps is in effect."""
    eventually(
        lambda: _try(namespace, "red", **more),
        _is_refused,
        within=timeouts.propagation,
        describe=f"a red ConfigMap in {namespace}",
    )


def _is_refused(answer: Response) -> str | None:
    """It was refused."""
    return None if answer.status == 422 else f"a red ConfigMap is answered with {answer.status}, not 422"


def _is_audited(tried: tuple[Response, float]) -> str | None:
    """It is let in without a warning, and counted."""
    answer, counted = tried
    if answer.status != 201:
        raise Hopeless(f"a policy that only audits refused it with {answer.status}: {answer.text}")
    if "red is not allowed" in (warning := answer.headers.get("Warning", "")):
        raise Hopeless(f"a policy that only audits warned of it: {warning}")
    return None if counted else "it is not counted as a violation of the policy"


def _is_painted(answer: Response) -> str | None:
    """The policy's change is in it."""
    data = answer.json().get("data")
    return None if (data or {}).get("painted") == "yes" else f"it is answered {answer.status} with the data {data}"


def _warns_about(field: str) -> Callable[[Object], str | None]:
    """The status of a policy warns about this field, and about no other."""

    def warns(policy: Object) -> str | None:
        checked = policy.status.get("typeChecking")
        if checked is None:
            return "its status says nothing about its expressions"
        fields = [each["fieldRef"] for each in checked.get("expressionWarnings") or []]
        return None if fields == [field] else f"it warns about {', '.join(fields) or 'nothing'}"

    warns.__name__ = f"warns about {field}"
    return warns


def _warns(answer: Response) -> str | None:
    """It carries the policy's message as a warning."""
    warning = answer.headers.get("Warning", "")
    return None if "red is not allowed" in warning else f"a red ConfigMap is answered with the warning {warning!r}"
