"""Pod Security: a namespace refuses the pods that its level forbids, and says which rule they break."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from clusterproof import Hopeless, Images, Namespace, Response, Timeouts, case, eventually, kinds, manifests
from clusterproof.conditions import has_condition
from clusterproof.counters import total
from clusterproof.kinds import Kind
from clusterproof.refusals import refused

DRY = {"dryRun": "All"}
"""Pods are only tried: admission cannot tell, and no node has to run them when they are let in."""

HOST = {"hostPath": {"path": "/"}, "name": "host"}
UNCONFINED = {"type": "Unconfined"}

BASELINE: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "host namespaces": ({"hostNetwork": True}, {}),
    "host namespaces (hostPID=true)": ({"hostPID": True}, {}),
    "host namespaces (hostIPC=true)": ({"hostIPC": True}, {}),
    "hostPath volumes": ({"volumes": [HOST]}, {}),
    "hostPort": ({}, {"ports": [{"containerPort": 80, "hostPort": 8123}]}),
    "privileged": ({}, {"securityContext": {"privileged": True}}),
    "non-default capabilities": ({}, {"securityContext": {"capabilities": {"add": ["SYS_ADMIN"]}}}),
    "seccompProfile": ({"securityContext": {"seccompProfile": UNCONFINED}}, {}),
    "forbidden AppArmor profile": ({"securityContext": {"appArmorProfile": UNCONFINED}}, {}),
    "seLinuxOptions": ({"securityContext": {"seLinuxOptions": {"user": "root"}}}, {}),
    "forbidden sysctls": ({"securityContext": {"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}}, {}),
}
"""What `baseline` forbids, by the rule that a refusal names: what to change in a pod's spec and in its container."""

RESTRICTED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "allowPrivilegeEscalation != false": ({}, {"securityContext": {"capabilities": {"drop": ["ALL"]}}}),
    "unrestricted capabilities": ({}, {"securityContext": {"allowPrivilegeEscalation": False}}),
    "runAsNonRoot != true": ({"securityContext": {"seccompProfile": {"type": "RuntimeDefault"}}}, {}),
    "runAsUser=0": (
        {"securityContext": {"runAsNonRoot": True, "runAsUser": 0, "seccompProfile": {"type": "RuntimeDefault"}}},
        {},
    ),
    "seccompProfile": ({"securityContext": {"runAsNonRoot": True}}, {}),
    "restricted volume types": ({"volumes": [{"name": "far", "nfs": {"server": "nowhere", "path": "/"}}]}, {}),
}
"""What `restricted` forbids beyond that."""
BOTH = {rule: BASELINE[rule] for rule in ("host namespaces", "hostPort", "privileged", "forbidden sysctls")}


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("level", "forbidden"),
    [
        case("baseline", "baseline", BASELINE, marks=pytest.mark.pod_security("baseline")),
        case("restricted", "restricted", BOTH | RESTRICTED, marks=pytest.mark.pod_security("restricted")),
    ],
)
def test_enforce(
    namespace: Namespace, images: Images, timeouts: Timeouts, level: str, forbidden: dict[str, Any]
) -> None:
    """A pod that breaks a rule of the level that its namespace enforces MUST be refused with 403 naming that rule.

    Whoever makes it: a controller is refused as a user is.

    Source: https://kubernetes.io/docs/concepts/security/pod-security-standards/
    """
    for rule, (spec, container) in forbidden.items():
        with refused(f"a pod with {rule} in {namespace}, which enforces {level},") as refusal:
            _try(namespace, images, spec, container)
        said = refusal.message
        assert f'violates PodSecurity "{level}:' in said, f"the refusal MUST name the level {level}: {said}"
        assert rule.partition(" (")[0] in said, f"the refusal MUST name the rule {rule!r}: {said}"

    good = manifests.pod_spec(images.agnhost)["containers"][0]
    with refused(f"a pod with a privileged init container in {namespace}, which enforces {level},"):
        _try(
            namespace,
            images,
            {"initContainers": [{**good, "name": "init", "securityContext": {"privileged": True}}]},
            {},
        )
    maker = namespace.create(manifests.replica_set("maker", images.agnhost, spec={"hostNetwork": True}))
    eventually(maker, has_condition("ReplicaFailure", reason="FailedCreate"), within=timeouts.object)
    why = maker.condition("ReplicaFailure")["message"]
    assert f'violates PodSecurity "{level}:' in why, f"{maker} MUST be told why it gets no pod: {why}"
    answer = _try(namespace, images, {"initContainers": [{**good, "name": "init"}]}, {})
    assert answer["metadata"]["uid"], f"a pod that breaks no rule MUST be let into {namespace}: {answer}"


@pytest.mark.pod_security("privileged")
def test_privileged(namespace: Namespace, images: Images) -> None:
    """A namespace of the level privileged MUST take every pod, whatever it asks of its node.

    Source: https://kubernetes.io/docs/concepts/security/pod-security-standards/#privileged
    """
    for rule, (spec, container) in (BASELINE | RESTRICTED).items():
        answer = _try(namespace, images, spec, container)
        assert answer["metadata"]["uid"], f"a pod with {rule} MUST be let into {namespace}, but: {answer}"


@pytest.mark.pod_security("baseline")
def test_warn(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A pod, or what makes pods, that breaks a rule of the level a namespace warns of MUST be let in with a warning.

    Source: https://kubernetes.io/docs/concepts/security/pod-security-admission/
    """
    level = {"pod-security.kubernetes.io/warn": "restricted"}
    namespace.object(kinds.NAMESPACE, namespace.name).patch({"metadata": {"labels": level}})
    spec: dict[str, Any] = {"spec": {"securityContext": {"runAsNonRoot": False}}}
    makers = {
        kinds.POD: (manifests.pod("try", images.agnhost, **spec), manifests.pod("try", images.agnhost)),
        kinds.DEPLOYMENT: (
            manifests.deployment("try", images.agnhost, **spec),
            manifests.deployment("try", images.agnhost),
        ),
    }

    for kind, (bad, good) in makers.items():
        answer = eventually(
            partial(_ask, namespace, kind, bad),
            _warns,
            within=timeouts.propagation,
            describe=f"a {kind} in {namespace}",
        )
        quiet = _ask(namespace, kind, good)
        assert answer.status == 201, f"a {kind} in {namespace}, which only warns, is refused: {answer.text}"
        warning = quiet.headers.get("Warning", "")
        assert "would violate PodSecurity" not in warning, f"a {kind} that breaks no rule is warned about: {warning}"


@pytest.mark.pod_security("baseline")
def test_audit(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A pod that breaks a rule of the level a namespace audits MUST be let in without a warning, and be counted.

    Source: https://kubernetes.io/docs/concepts/security/pod-security-admission/
    """
    level = {"pod-security.kubernetes.io/audit": "restricted"}
    namespace.object(kinds.NAMESPACE, namespace.name).patch({"metadata": {"labels": level}})
    bad = manifests.pod("try", images.agnhost, spec={"securityContext": {"runAsNonRoot": False}})

    def tried() -> tuple[Response, float]:
        before = _audited(namespace)
        answer = _ask(namespace, kinds.POD, bad)
        return answer, _audited(namespace) - before

    eventually(tried, _is_audited, within=timeouts.propagation, describe=f"a Pod in {namespace}, which only audits,")


def _audited(namespace: Namespace) -> float:
    """How many pods the API server has let in though an audited level forbids them."""
    violations = {"decision": "deny", "mode": "audit", "policy_level": "restricted"}
    return total(namespace.client, "pod_security_evaluations_total", **violations)


def _is_audited(tried: tuple[Response, float]) -> str | None:
    """It is let in without a warning, and counted."""
    answer, counted = tried
    if answer.status != 201:
        raise Hopeless(f"is refused with {answer.status}: {answer.text}")
    if "would violate PodSecurity" in (warning := answer.headers.get("Warning", "")):
        raise Hopeless(f"is warned of: {warning}")
    return None if counted else "is not counted as a violation of the level restricted"


def _ask(namespace: Namespace, kind: Kind, manifest: dict[str, Any]) -> Response:
    return namespace.client.request("POST", kind.path(namespace.name), body=manifest, query=DRY)


def _try(namespace: Namespace, images: Images, spec: dict[str, Any], container: dict[str, Any]) -> dict[str, Any]:
    """What would be stored of a pod that breaks no rule but for these changes; nothing is."""
    manifest = manifests.pod("try", images.agnhost, spec=spec, container=container)
    return namespace.would_store(manifest)


def _warns(answer: Response) -> str | None:
    """It is warned that it would violate the level."""
    warning = answer.headers.get("Warning", "")
    told = 'would violate PodSecurity \\"restricted:' in warning and "runAsNonRoot != true" in warning
    return None if told else f"the answer {answer.status} carries the warning {warning!r}"
