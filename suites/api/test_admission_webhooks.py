"""Admission webhooks: servers of the user's own that change or refuse what is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import product
from typing import Any

from clusterproof import (
    Cluster,
    Images,
    Namespace,
    Response,
    Timeouts,
    conditions,
    eventually,
    kinds,
    manifests,
    webhooks,
)
from clusterproof.refusals import refused

Webhook = dict[str, Any]


def test_mutating(cluster: Cluster, namespaces: Callable[[], Namespace], images: Images, timeouts: Timeouts) -> None:
    """Mutating webhooks MUST change what is written, each what the one before it made, and only where they are to.

    Neither in a namespace nor of an object that their selectors or conditions leave out.

    Source: https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/
    """
    ours, theirs = namespaces(), namespaces()
    server = webhooks.serve(ours, images.agnhost, "webhook", within=timeouts.pod)
    call = server.client_config("/mutating-configmaps")
    not_spared = {"objectSelector": {"matchExpressions": [{"key": "spared", "operator": "DoesNotExist"}]}}
    not_exempt = {"matchConditions": [{"name": "not-exempt", "expression": "request.name != 'exempt'"}]}
    steps = [_webhook(f"{step}.clusterproof.dev", ours, call, **not_spared, **not_exempt) for step in ("one", "two")]
    cluster.create(_configuration("MutatingWebhookConfiguration", ours.name, steps))

    asked = {"mutation-start": "yes"}
    eventually(
        lambda: _stored(_try(ours, asked)),
        lambda seen: None if len(seen) == 3 else f"it is stored with {seen}",
        within=timeouts.propagation,
        describe=f"a ConfigMap in {ours} is changed by both webhooks",
    )

    changed = ours.create(manifests.config_map("item", asked))["data"]
    assert changed == {**asked, "mutation-stage-1": "yes", "mutation-stage-2": "yes"}, f"it was changed to {changed}"
    late = ours.create(manifests.config_map("late", {"mutation-start": "no"})).patch({"data": asked})["data"]
    assert late == changed, f"by a patch it was changed to {late}, not {changed} as when it is created so"
    elsewhere = theirs.create(manifests.config_map("item", asked))
    spared = ours.create(manifests.config_map("spared", asked, labels={"spared": "yes"}))
    exempt = ours.create(manifests.config_map("exempt", asked))
    for item in (elsewhere, spared, exempt):
        assert item["data"] == asked, f"{item}, which no webhook is for, was changed to {item['data']}"


def test_validating(cluster: Cluster, namespaces: Callable[[], Namespace], images: Images, timeouts: Timeouts) -> None:
    """What a validating webhook refuses MUST NOT be created, changed or deleted, and its message be handed on.

    Source: https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/
    """
    ours, theirs = namespaces(), namespaces()
    kept = ours.create(manifests.config_map("kept", {KEY: "webhook-nondeletable"}))
    server = webhooks.serve(ours, images.agnhost, "webhook", within=timeouts.pod)
    judge = _webhook("judge.clusterproof.dev", ours, server.client_config("/configmaps"))
    cluster.create(_configuration("ValidatingWebhookConfiguration", ours.name, [judge]))
    _until_refused(ours, {KEY: "webhook-disallow"}, timeouts, by=(400, 403))

    bad = manifests.config_map("item", {KEY: "webhook-disallow"})
    with refused("a ConfigMap that a webhook refuses", 400, 403) as refusal:
        ours.create(bad)
    assert "the configmap contains unwanted key and value" in refusal.message, (
        f"the refusal MUST carry the webhook's message: {refusal.message}"
    )
    item = ours.create(manifests.config_map("item", {KEY: "allowed"}))
    with refused(f"changing {item} to what a webhook refuses", 400, 403):
        item.patch({"data": bad["data"]})
    with refused(f"deleting {kept}, which a webhook refuses", 400, 403):
        kept.delete()
    assert item.read()["data"] == {KEY: "allowed"}, f"a refused write changed {item}"
    assert not kept.read().deleting, f"{kept} is being deleted, although that was refused"
    theirs.create(bad)


def test_timeout(cluster: Cluster, namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A webhook that takes longer than its timeout MUST be treated as one that does not answer.

    Source: https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/#timeouts
    """
    server = webhooks.serve(namespace, images.agnhost, "webhook", within=timeouts.pod)
    slow = server.client_config("/always-allow-delay-5s")
    hooks = [
        _webhook(f"{policy}.clusterproof.dev".lower(), namespace, slow, timeoutSeconds=1, failurePolicy=policy,
            objectSelector={"matchLabels": {"policy": policy}})
        for policy in ("Fail", "Ignore")
    ]  # fmt: skip
    cluster.create(_configuration("ValidatingWebhookConfiguration", namespace.name, hooks))
    _until_refused(namespace, {}, timeouts, by=(500,), policy="Fail")

    with refused("a ConfigMap whose webhook takes 5 s, and has 1 s to answer, under the policy Fail", 500) as refusal:
        namespace.create(manifests.config_map("fail", labels={"policy": "Fail"}))
    assert "fail.clusterproof.dev" in refusal.message, f"the refusal MUST name the webhook: {refusal.message}"
    let_in = namespace.create(manifests.config_map("ignore", labels={"policy": "Ignore"}))
    assert let_in.exists(), f"{let_in}, whose webhook may be ignored, was not stored"


def test_match_policy(cluster: Cluster, namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A webhook for one version of a kind MUST be asked about writes through another, unless it wants exact matches.

    Source: https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/#matching-requests-matchpolicy
    """
    server = webhooks.serve(namespace, images.agnhost, "webhook", within=timeouts.pod)
    rule = {"apiGroups": ["autoscaling"], "apiVersions": ["v2"], "resources": ["horizontalpodautoscalers"]}
    hooks = [
        _webhook(f"{policy}.clusterproof.dev".lower(), namespace, server.client_config("/always-deny"),
            matchPolicy=policy, rules=[rule | {"operations": ["CREATE"]}],
            objectSelector={"matchLabels": {"policy": policy}})
        for policy in POLICIES
    ]  # fmt: skip
    cluster.create(_configuration("ValidatingWebhookConfiguration", namespace.name, hooks))

    def refusals() -> set[str]:
        """In which versions, and under which policies, no autoscaler is created."""
        ways = product(("v1", "v2"), POLICIES)
        return {
            f"{version}, {policy}" for version, policy in ways if _scale_by(namespace, version, policy) in (400, 403)
        }

    wanted = {"v1, Equivalent", "v2, Equivalent", "v2, Exact"}
    what = f"refusals by webhooks for autoscalers of autoscaling/v2 in {namespace}"
    eventually(refusals, conditions.equals(wanted), within=timeouts.propagation, describe=what)


def test_failure_policy(cluster: Cluster, namespace: Namespace, timeouts: Timeouts) -> None:
    """A write whose webhook does not answer MUST be refused where its failure policy is Fail, and let in with Ignore.

    Source: https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/#failure-policy
    """
    namespace.create(manifests.service("nobody", selector={}))
    nobody = {"service": {"namespace": namespace.name, "name": "nobody"}}
    for kind in ("Mutating", "Validating"):
        hooks = [
            _webhook(
                f"{policy}.{kind}.clusterproof.dev".lower(), namespace, nobody,
                failurePolicy=policy, objectSelector={"matchLabels": {"policy": f"{policy}-{kind}"}},
            )
            for policy in ("Fail", "Ignore")
        ]  # fmt: skip
        cluster.create(_configuration(f"{kind}WebhookConfiguration", namespace.name, hooks))
        _until_refused(namespace, {}, timeouts, by=(500,), policy=f"Fail-{kind}")

        what = f"a ConfigMap whose {kind.lower()} webhook does not answer, under the failure policy Fail"
        with refused(what, 500) as refusal:
            namespace.create(manifests.config_map("fail", labels={"policy": f"Fail-{kind}"}))
        name = f"fail.{kind.lower()}.clusterproof.dev"
        assert name in refusal.message, f"the refusal MUST name the webhook: {refusal.message}"
        for policy in (f"Ignore-{kind}", f"none-{kind}"):
            namespace.create(manifests.config_map(policy.lower(), labels={"policy": policy}))


POLICIES = ("Equivalent", "Exact")
"""Which versions of a kind a webhook is for, as its matchPolicy says."""
KEY = "webhook-e2e-test"
"""What agnhost's webhook looks at."""


def _configuration(kind: str, name: str, hooks: list[Webhook]) -> dict[str, Any]:
    metadata = {"name": name}
    return {"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": metadata, "webhooks": hooks}


def _webhook(name: str, namespace: Namespace, call: Mapping[str, Any], **more: Any) -> Webhook:
    """A webhook for all writes of ConfigMaps in a namespace."""
    writes = ["CREATE", "UPDATE", "DELETE"]
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": writes, "resources": ["configmaps"]}
    made = {
        "name": name,
        "clientConfig": dict(call),
        "rules": [rule],
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace.name}},
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
        "timeoutSeconds": 10,
    }
    return made | more


def _try(namespace: Namespace, data: Mapping[str, str], **labels: str) -> Response:
    """What creating a ConfigMap comes to; nothing is stored."""
    return namespace.answer_to(manifests.config_map("try", data, labels=labels))


def _scale_by(namespace: Namespace, version: str, policy: str) -> int:
    """How creating an autoscaler in a version, for the webhook with this policy, is answered; nothing is stored."""
    kind = kinds.custom("autoscaling", version, "HorizontalPodAutoscaler", "horizontalpodautoscalers")
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "nobody"}
    made = manifests.custom_object(
        kind, "try", labels={"policy": policy}, spec={"scaleTargetRef": target, "maxReplicas": 1}
    )
    return namespace.answer_to(made).status


def _stored(answer: Response) -> dict[str, str]:
    """The data with which a ConfigMap would be stored."""
    data: dict[str, str] = answer.json().get("data") or {}
    return data


def _until_refused(
    namespace: Namespace, data: Mapping[str, str], timeouts: Timeouts, by: tuple[int, ...], **labels: str
) -> None:
    """Wait until the webhook for such a ConfigMap is in effect: with status 500 where it is not reached."""
    eventually(
        lambda: _try(namespace, data, **labels).status,
        lambda status: None if status in by else f"it is answered with {status}",
        within=timeouts.propagation,
        describe=f"a ConfigMap with {data or labels} in {namespace} is refused",
    )
