"""What a cluster's own admission does to pods of ours: webhooks and policies, and what they change."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from clusterproof.client import Client
from clusterproof.namespace import RUN_LABEL

_GROUP = "/apis/admissionregistration.k8s.io"
_POD_FIELDS = (
    "affinity",
    "hostNetwork",
    "initContainers",
    "nodeSelector",
    "priorityClassName",
    "runtimeClassName",
    "securityContext",
    "serviceAccountName",
    "terminationGracePeriodSeconds",
    "topologySpreadConstraints",
    "volumes",
)
"""What the API server itself fills in for no pod of ours, with `_DEFAULTS`."""
_CONTAINER_FIELDS = ("args", "command", "env", "image", "imagePullPolicy", "resources", "securityContext")
_DEFAULTS: dict[str, Any] = {"serviceAccountName": "default", "hostNetwork": False}
_OWN_TOLERATIONS = {"node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"}
"""Given to every pod by the API server."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A webhook, or a policy as it is bound, that looks at pods when they are created."""

    name: str
    """`MutatingWebhookConfiguration istio (sidecar.istio.io)`."""
    selectors: tuple[Mapping[str, Any], ...]
    """Selectors that the namespace must match."""

    def meets(self, namespace_labels: Mapping[str, str]) -> bool:
        """Whether it looks at pods of a namespace with these labels."""
        return all(selects(selector, namespace_labels) for selector in self.selectors)

    def __str__(self) -> str:
        return self.name


def rules(client: Client) -> tuple[list[Rule], list[str]]:
    """Everything of others that looks at new pods, and a sentence for each kind that could not be looked at."""
    found: list[Rule] = []
    refused: list[str] = []
    for kind in ("Mutating", "Validating"):
        webhooks = _items(client, f"{kind.lower()}webhookconfigurations", refused)
        for each in webhooks:
            found += _webhooks(f"{kind}WebhookConfiguration", each)
        policies = _items(client, f"{kind.lower()}admissionpolicies", refused)
        bindings = _items(client, f"{kind.lower()}admissionpolicybindings", refused)
        found += _policies(f"{kind}AdmissionPolicy", policies, bindings)
    return found, refused


def changes(sent: Mapping[str, Any], stored: Mapping[str, Any]) -> list[str]:
    """What of a pod differs from what was sent, beyond what the API server fills in: `container added: sidecar`."""
    before, after = sent["spec"], stored["spec"]
    differing: list[str] = []
    for name in ("labels", "annotations"):
        old, new = (each["metadata"].get(name) or {} for each in (sent, stored))
        differing += [f"{name[:-1]} {key}={new.get(key)}" for key in sorted(new) if new[key] != old.get(key)]
    for name in _POD_FIELDS:
        if (after.get(name) or _DEFAULTS.get(name)) != (before.get(name) or _DEFAULTS.get(name)):
            differing.append(f"{name} {_short(before.get(name))} became {_short(after.get(name))}")
    keys = {each.get("key") for each in after.get("tolerations") or []} - _OWN_TOLERATIONS
    differing += [f"toleration added: {key or 'of everything'}" for key in sorted(keys, key=str)]
    differing += _containers(before["containers"], after["containers"])
    return differing


def selects(selector: Mapping[str, Any] | None, labels: Mapping[str, str]) -> bool:
    """Whether a label selector, as objects have it, matches; one that is empty matches everything."""
    chosen = selector or {}
    if any(labels.get(key) != value for key, value in (chosen.get("matchLabels") or {}).items()):
        return False
    return all(_holds(rule, labels) for rule in chosen.get("matchExpressions") or [])


def _holds(rule: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    key, values = rule["key"], rule.get("values") or []
    match rule["operator"]:
        case "In":
            return labels.get(key) in values
        case "NotIn":
            return labels.get(key) not in values
        case "Exists":
            return key in labels
    return key not in labels


def _webhooks(kind: str, raw: Mapping[str, Any]) -> Iterator[Rule]:
    if RUN_LABEL in (raw["metadata"].get("labels") or {}):
        return
    for each in raw.get("webhooks") or []:
        if _about_pods(each.get("rules")):
            policy = each.get("failurePolicy", "Fail")
            said = f"{kind} {raw['metadata']['name']} ({each['name']}, failurePolicy {policy})"
            yield Rule(said, (each.get("namespaceSelector") or {},))


def _policies(kind: str, policies: list[dict[str, Any]], bindings: list[dict[str, Any]]) -> Iterator[Rule]:
    by_name = {each["metadata"]["name"]: each for each in policies}
    for binding in bindings:
        policy = by_name.get(binding["spec"].get("policyName", ""))
        if policy is None or RUN_LABEL in (policy["metadata"].get("labels") or {}):
            continue
        constraints = policy["spec"].get("matchConstraints") or {}
        narrower = binding["spec"].get("matchResources") or {}
        if _about_pods(constraints.get("resourceRules")) and (
            not narrower.get("resourceRules") or _about_pods(narrower["resourceRules"])
        ):
            actions = "/".join(binding["spec"].get("validationActions") or [])
            said = f"{kind} {policy['metadata']['name']}{f' ({actions})' if actions else ''}"
            yield Rule(said, tuple(each.get("namespaceSelector") or {} for each in (constraints, narrower)))


def _about_pods(found: list[dict[str, Any]] | None) -> bool:
    return any(
        {"", "*"} & set(rule.get("apiGroups") or [])
        and {"pods", "*", "*/*"} & set(rule.get("resources") or [])
        and {"CREATE", "*"} & set(rule.get("operations") or [])
        for rule in found or []
    )


def _items(client: Client, plural: str, refused: list[str]) -> list[dict[str, Any]]:
    for version in ("v1", "v1beta1"):
        answer = client.request("GET", f"{_GROUP}/{version}/{plural}")
        if answer.status == 404:
            continue  # not served: mutating policies are young
        if answer.status >= 400:
            refused.append(f"{plural} cannot be looked at: the answer was {answer.status}")
            return []
        found: list[dict[str, Any]] = answer.json()["items"]
        return found
    return []


def _containers(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> Iterator[str]:
    sent = {each["name"]: each for each in before}
    for each in after:
        old = sent.get(each["name"])
        if old is None:
            yield f"container added: {each['name']} ({each.get('image')})"
            continue
        for name in _CONTAINER_FIELDS:
            if (each.get(name) or None) != (old.get(name) or None):
                where = f"container {each['name']}: {name}"
                yield f"{where} {_short(old.get(name))} became {_short(each.get(name))}"


def _short(value: Any) -> str:
    text = "nothing" if value in (None, {}, [], "") else str(value)
    return text if len(text) <= 100 else f"{text[:97]}..."
