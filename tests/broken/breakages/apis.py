"""The API as it is seen through a proxy that distorts it: events lost, answers that lie, schemas thrown away."""

from __future__ import annotations

import contextlib
import itertools
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from clusterproof.embedded.pki import Authority, Pair

from ..registry import Damage, breakage
from ..relay import Answer, Ask, Exchange, Relay, Request, serving, speaking
from ..subject import Subject, kubeconfig_of

HERE = "127.0.0.1"
WRITES = {"POST", "PUT", "PATCH", "DELETE"}


@contextlib.contextmanager
def through(subject: Subject, **distortion: Callable[..., object]) -> Iterator[list[str]]:
    """The API server behind a proxy that knows its clients by their certificates and tokens, as a front proxy does."""
    pki = subject.state.pki
    authority, trusted = Authority(pki, "ca"), str(pki / "ca.crt")
    identity = Pair(pki / "front-proxy-client.crt", pki / "front-proxy-client.key")
    with tempfile.TemporaryDirectory() as folder:
        pair = authority.issue("relay", user="relay", server=[HERE], folder=Path(folder))
        relay = Relay(
            HERE,
            subject.client.server.removeprefix("https://"),
            tls=serving(pair, trusted),
            towards=speaking(identity, trusted),
            speaks_for_clients=True,
            **distortion,  # type: ignore[arg-type]
        )
        with relay.running():
            yield [f"--kubeconfig={kubeconfig_of(subject, f'https://{relay.address}', Path(folder))}"]


@breakage(
    breaks={"api/watch/every_change": r"MUST tell of all \d+ changes, but missed"},
    keeps=["api/crud_conflict/stale_write", "apps/statefulset/parallel"],
)
def watch_drops_events(subject: Subject) -> Damage:
    """One event in 100 of all watches is lost."""
    count = itertools.count(1)

    def drop(request: Request, line: bytes) -> bytes | None:
        return line if next(count) % 100 else None

    with through(subject, line=drop) as arguments:
        yield arguments


@breakage(breaks={"api/watch/bookmarks": r"a watch of 6 s had none"}, keeps=["api/watch/every_change"])
def watch_without_bookmarks(subject: Subject) -> Damage:
    """No watch is told how far it has come, but for the end of what there was at first."""

    def drop(request: Request, line: bytes) -> bytes | None:
        return None if b'"type":"BOOKMARK"' in line and b"initial-events-end" not in line else line

    with through(subject, line=drop) as arguments:
        yield arguments


@breakage(
    breaks={"api/watch/bookmarks": r"after a bookmark \d+, .* a watch MUST tell of"}, keeps=["api/watch/every_change"]
)
def watch_bookmarks_ahead(subject: Subject) -> Damage:
    """Bookmarks tell of a version that is yet to come: whoever goes on from there misses what is before it."""

    def lead(request: Request, line: bytes) -> bytes | None:
        if b'"type":"BOOKMARK"' not in line or b"initial-events-end" in line:
            return line
        event = json.loads(line)
        version = event["object"]["metadata"]["resourceVersion"]
        event["object"]["metadata"]["resourceVersion"] = str(int(version) + 50)
        return json.dumps(event).encode() + b"\n"

    with through(subject, line=lead) as arguments:
        yield arguments


@breakage(
    breaks={"api/watch/every_change": r"500", "health/latency": r"500"},
    keeps=["api/crud_conflict/stale_write", "api/labels/selectors"],
)
def writes_answered_500(subject: Subject) -> Damage:
    """One write in 50 is answered with 500, although it was done."""
    count = itertools.count(1)

    def lie(request: Request, ask: Ask) -> Answer:
        answer = ask(request)
        if request.method in WRITES and next(count) % 50 == 0:
            status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 500, "message": "timeout"}
            return Answer(500, {"Content-Type": "application/json"}, json.dumps(status).encode())
        return answer

    with through(subject, exchange=lie) as arguments:
        yield arguments


@breakage(breaks={"health/latency": r"MUST take at most 1 s, but"}, keeps=["health/livez"])
def slow_answers(subject: Subject) -> Damage:
    """One request in 25 is answered late."""
    with through(subject, exchange=_late(25, lambda _: True)) as arguments:
        yield arguments


@breakage(breaks={"health/latency": r"creating one like \S+ \S+ MUST take at most 1 s, but"}, keeps=["health/livez"])
def slow_creations(subject: Subject) -> Damage:
    """One creation or deletion in 10 is answered late, and nothing else."""
    with through(subject, exchange=_late(10, lambda request: request.method in ("POST", "DELETE"))) as arguments:
        yield arguments


def _late(every: int, which: Callable[[Request], bool]) -> Exchange:
    """Holds back one answer in so many of these requests for longer than a second."""
    count = itertools.count(1)

    def delay(request: Request, ask: Ask) -> Answer:
        answer = ask(request)
        if which(request) and next(count) % every == 0:
            time.sleep(1.3)
        return answer

    return delay


@breakage(breaks={"health/apis": r"broken\.example"}, keeps=["health/livez", "api/namespaces/isolation"])
def aggregated_api_dead(subject: Subject) -> Damage:
    """An aggregated API is registered whose server does not exist."""
    nobody = {
        "apiVersion": "apiregistration.k8s.io/v1",
        "kind": "APIService",
        "metadata": {"name": "v1.broken.example"},
        "spec": {
            "group": "broken.example",
            "version": "v1",
            "service": {"name": "nobody", "namespace": "default"},
            "groupPriorityMinimum": 1000,
            "versionPriority": 10,
        },
    }
    with subject.having(nobody):
        yield []


@breakage(
    breaks={
        "extend/crd/schema": r"MUST be refused with 422, but it was accepted",
        "extend/crd/rules": r"MUST be refused|accepted",
    },
    keeps=["extend/crd/lifecycle", "extend/crd/subresources"],
)
def schemas_thrown_away(subject: Subject) -> Damage:
    """Custom objects are not validated: every definition loses its schemas on its way to the API server."""

    def strip(request: Request, ask: Ask) -> Answer:
        if request.method == "POST" and "/customresourcedefinitions" in request.path:
            definition = json.loads(request.body)
            for version in definition["spec"]["versions"]:
                anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
                version["schema"] = {"openAPIV3Schema": anything}
            request.body = json.dumps(definition).encode()
        return ask(request)

    with through(subject, exchange=strip) as arguments:
        yield arguments


Change = Callable[[dict[str, Any]], None]
"""Changes what is about to be created."""


def rewritten_on_the_way(
    name: str,
    meaning: str,
    resource: str,
    change: Change,
    *,
    breaks: Mapping[str, str],
    keeps: Sequence[str],
) -> None:
    """Register a breakage: new objects of a resource, which no admission policy may touch, lose what they ask for."""

    @breakage(name=name, meaning=meaning, breaks=breaks, keeps=keeps)
    def rewrite(subject: Subject) -> Damage:
        def exchange(request: Request, ask: Ask) -> Answer:
            if request.method == "POST" and request.path.partition("?")[0].endswith(f"/{resource}"):
                made = json.loads(request.body)
                change(made)
                request.body = json.dumps(made).encode()
            return ask(request)

        with through(subject, exchange=exchange) as arguments:
            yield arguments


def _webhooks_with(field: str, value: Any) -> Change:
    """All webhooks of a configuration have this value of a field."""

    def change(configuration: dict[str, Any]) -> None:
        for webhook in configuration["webhooks"]:
            webhook[field] = value

    return change


def _with_equal_precedence(schema: dict[str, Any]) -> None:
    schema["spec"]["matchingPrecedence"] = 4


def _first_alternative_only(claim: dict[str, Any]) -> None:
    for request in claim["spec"]["devices"]["requests"]:
        if alternatives := request.get("firstAvailable"):
            request["firstAvailable"] = alternatives[:1]


def _devices_requested_without(field: str) -> Change:
    """A claim's requests for exact devices say nothing of a field."""

    def change(claim: dict[str, Any]) -> None:
        for request in claim["spec"]["devices"]["requests"]:
            request.get("exactly", {}).pop(field, None)

    return change


def _of_any_kind(claim: dict[str, Any]) -> None:
    claim["spec"]["devices"].pop("constraints", None)


def without(field: str) -> Change:
    """An object's spec says nothing of a field."""

    def change(made: dict[str, Any]) -> None:
        made["spec"].pop(field, None)

    return change


def _creations_only(configuration: dict[str, Any]) -> None:
    for webhook in configuration["webhooks"]:
        webhook["rules"] = [{**rule, "operations": ["CREATE"]} for rule in webhook["rules"]]


def _ignore_selectors(configuration: dict[str, Any]) -> None:
    for webhook in configuration["webhooks"]:
        webhook.pop("objectSelector", None)


def _ignore_conditions(configuration: dict[str, Any]) -> None:
    for webhook in configuration["webhooks"]:
        webhook.pop("matchConditions", None)


def _ignore_errors(policy: dict[str, Any]) -> None:
    policy["spec"]["failurePolicy"] = "Ignore"


def _excluding_nothing(policy: dict[str, Any]) -> None:
    policy["spec"]["matchConstraints"].pop("excludeResourceRules", None)


def _in_fixed_words(policy: dict[str, Any]) -> None:
    for rule in policy["spec"]["validations"]:
        rule.pop("messageExpression", None)


def _merging_only(policy: dict[str, Any]) -> None:
    mutations = policy["spec"]["mutations"]
    policy["spec"]["mutations"] = [each for each in mutations if each["patchType"] == "ApplyConfiguration"]


def _instead_of_audits(binding: dict[str, Any], instead: str) -> None:
    actions = binding["spec"]["validationActions"]
    binding["spec"]["validationActions"] = [instead if action == "Audit" else action for action in actions]


def _refuse_on_errors(policy: dict[str, Any]) -> None:
    policy["spec"]["failurePolicy"] = "Fail"


rewritten_on_the_way(
    "webhook_failures_ignored",
    "What a webhook has to look at is let in when it does not answer, whatever its failure policy.",
    "validatingwebhookconfigurations",
    _webhooks_with("failurePolicy", "Ignore"),
    breaks={"api/admission_webhooks/failure_policy": r"is refused: not within"},
    keeps=["api/admission_webhooks/mutating"],
)
rewritten_on_the_way(
    "alternatives_to_devices_ignored",
    "Claims to one of several devices are to the first of them alone.",
    "resourceclaims",
    _first_alternative_only,
    breaks={"scheduling/resource_claims/alternatives": r"is given the device one of Node \S+: not within"},
    keeps=["scheduling/resource_claims/device"],
)
rewritten_on_the_way(
    "anybody_asks_for_admin_access",
    "Claims with admin access are taken for claims as any others.",
    "resourceclaims",
    _devices_requested_without("adminAccess"),
    breaks={"scheduling/resource_claims/admin_access": r"MUST be refused with 422, but it was accepted"},
    keeps=["scheduling/resource_claims/device"],
)
rewritten_on_the_way(
    "devices_need_not_be_alike",
    "Devices of one claim are given whatever constraints it has.",
    "resourceclaims",
    _of_any_kind,
    breaks={"scheduling/resource_claims/attributes": r"ResourceClaim \S+/alike was given \['first', 'second'\]"},
    keeps=["scheduling/resource_claims/device"],
)
rewritten_on_the_way(
    "selectors_of_devices_ignored",
    "Claims are given any devices of the class, whatever they select.",
    "resourceclaims",
    _devices_requested_without("selectors"),
    breaks={"scheduling/resource_claims/attributes": r"ResourceClaim \S+/blue was given \['first'\]"},
    keeps=["scheduling/resource_claims/device"],
)
rewritten_on_the_way(
    "devices_are_no_resources",
    "A DeviceClass stands for no extended resource.",
    "deviceclasses",
    without("extendedResourceName"),
    breaks={"scheduling/resource_claims/extended_resource": r"Pod \S+/first gets \S+: not within"},
    keeps=["scheduling/resource_claims/device"],
)
rewritten_on_the_way(
    "tokens_bound_to_nothing",
    "Tokens are bound to their service accounts alone, whatever else they are to be bound to.",
    "token",
    without("boundObjectRef"),
    breaks={
        "access/credentials/bound_tokens": r"a token bound to Pod \S+ tells",
        "access/credentials/tokens_of_nodes": r"a token bound to Node \S+ tells .*None",
    },
    keeps=["access/credentials/tokens"],
)
rewritten_on_the_way(
    "precedence_ignored",
    "All FlowSchemas have the same precedence.",
    "flowschemas",
    _with_equal_precedence,
    breaks={
        "api/flow_control/flow_schema": r"belongs to FlowSchema \S+-sooner: not within .*the FlowSchema with the uid"
    },
    keeps=["api/labels/selectors"],
)
rewritten_on_the_way(
    "mutating_webhook_failures_ignored",
    "What a webhook has to change is let in as it is when it does not answer, whatever its failure policy.",
    "mutatingwebhookconfigurations",
    _webhooks_with("failurePolicy", "Ignore"),
    breaks={"api/admission_webhooks/failure_policy": r"is refused: not within"},
    keeps=["api/admission_webhooks/mutating"],
)
rewritten_on_the_way(
    "webhooks_see_creations_only",
    "Mutating webhooks are called for new objects, and not for changed ones.",
    "mutatingwebhookconfigurations",
    _creations_only,
    breaks={"api/admission_webhooks/mutating": r"by a patch it was changed to"},
    keeps=["api/admission_webhooks/validating"],
)
rewritten_on_the_way(
    "webhook_selectors_ignored",
    "Webhooks are called for objects that their selectors leave out.",
    "mutatingwebhookconfigurations",
    _ignore_selectors,
    breaks={"api/admission_webhooks/mutating": r"ConfigMap \S+/spared, which no webhook is for, was changed"},
    keeps=["api/admission_webhooks/validating"],
)
rewritten_on_the_way(
    "webhook_conditions_ignored",
    "Webhooks are called for objects that their conditions leave out.",
    "mutatingwebhookconfigurations",
    _ignore_conditions,
    breaks={"api/admission_webhooks/mutating": r"ConfigMap \S+/exempt, which no webhook is for, was changed"},
    keeps=["api/admission_webhooks/validating"],
)
rewritten_on_the_way(
    "webhook_timeouts_ignored",
    "Webhooks are waited for, however little time they have.",
    "validatingwebhookconfigurations",
    _webhooks_with("timeoutSeconds", 30),
    breaks={"api/admission_webhooks/timeout": r"is refused: not within .* it is answered with 201"},
    keeps=["api/admission_webhooks/failure_policy"],
)
rewritten_on_the_way(
    "webhooks_for_one_version_only",
    "Webhooks are called for writes through the version that they name, and not through others.",
    "validatingwebhookconfigurations",
    _webhooks_with("matchPolicy", "Exact"),
    breaks={"api/admission_webhooks/match_policy": r"autoscaling/v2 in \S+: not within .*, not \{.*'v1, Equivalent'"},
    keeps=["api/admission_webhooks/failure_policy"],
)
rewritten_on_the_way(
    "policy_conditions_ignored",
    "Policies apply to what their match conditions leave out.",
    "validatingadmissionpolicies",
    without("matchConditions"),
    breaks={"api/admission_policies/scope": r"MUST NOT apply to a ConfigMap that its match condition leaves out"},
    keeps=["api/admission_policies/deny"],
)
rewritten_on_the_way(
    "policy_exclusions_ignored",
    "Policies apply to what they exclude.",
    "validatingadmissionpolicies",
    _excluding_nothing,
    breaks={"api/admission_policies/scope": r"MUST NOT apply to a ConfigMap that it excludes by its name"},
    keeps=["api/admission_policies/deny"],
)
rewritten_on_the_way(
    "policy_messages_fixed",
    "Policies refuse in the words of the rule, whatever message they compute.",
    "validatingadmissionpolicies",
    _in_fixed_words,
    breaks={"api/admission_policies/parameters": r"MUST say what the policy's messageExpression makes"},
    keeps=["api/admission_policies/deny"],
)
rewritten_on_the_way(
    "policy_patches_ignored",
    "Of the changes that policies make, patches are left out.",
    "mutatingadmissionpolicies",
    _merging_only,
    breaks={"api/admission_policies/mutate": r"is stored as .*'painted': 'yes'\}, not "},
    keeps=["api/admission_policies/deny"],
)
rewritten_on_the_way(
    "policy_errors_ignored",
    "What a policy cannot be evaluated for is let in, whatever its failure policy.",
    "validatingadmissionpolicies",
    _ignore_errors,
    breaks={"api/admission_policies/failure_policy[Fail]": r"the failure policy Fail: not within .* 201, not 422"},
    keeps=["api/admission_policies/deny", "api/admission_policies/failure_policy[Ignore]"],
)
rewritten_on_the_way(
    "policy_errors_refused",
    "What a policy cannot be evaluated for is refused, whatever its failure policy.",
    "validatingadmissionpolicies",
    _refuse_on_errors,
    breaks={"api/admission_policies/failure_policy[Ignore]": r"the failure policy Ignore: not within .* 422, not 201"},
    keeps=["api/admission_policies/deny", "api/admission_policies/failure_policy[Fail]"],
)
rewritten_on_the_way(
    "audits_refuse",
    "What is bound to be audited is refused.",
    "validatingadmissionpolicybindings",
    partial(_instead_of_audits, instead="Deny"),
    breaks={"api/admission_policies/audit": r"a policy that only audits refused it with 422"},
    keeps=["api/admission_policies/deny", "api/admission_policies/warn"],
)
rewritten_on_the_way(
    "audits_warn",
    "What is bound to be audited is warned of.",
    "validatingadmissionpolicybindings",
    partial(_instead_of_audits, instead="Warn"),
    breaks={"api/admission_policies/audit": r"a policy that only audits warned of it"},
    keeps=["api/admission_policies/deny", "api/admission_policies/warn"],
)
rewritten_on_the_way(
    "certificates_for_a_year",
    "Certificates are good for as long as the cluster likes, for however short a time they were asked for.",
    "certificatesigningrequests",
    without("expirationSeconds"),
    breaks={"access/credentials/certificates": r"asks for 1 day, 0:00:00, but was given \d+ days"},
    keeps=["access/credentials/tokens"],
)
rewritten_on_the_way(
    "conversion_webhook_not_called",
    "Custom objects are given out in another version without being converted.",
    "customresourcedefinitions",
    without("conversion"),
    breaks={"extend/conversion/webhook": r"objects of stable\.example\.com/v1 are"},
    keeps=["extend/conversion/migration"],
)


@breakage(
    breaks={"api/admission_policies/parameters": r"which says blue by now: not within .*'red': 422"},
    keeps=["api/admission_policies/deny"],
)
def policy_parameters_never_change(subject: Subject) -> Damage:
    """Policies keep the parameters that they had first, here that something is not to be red."""

    def exchange(request: Request, ask: Ask) -> Answer:
        if request.method == "POST" and "/validatingadmissionpolic" in request.path:
            made = json.loads(request.body)
            for field in ("paramKind", "paramRef"):
                made["spec"].pop(field, None)
            for rule in made["spec"].get("validations", []):
                rule["expression"] = rule["expression"].replace("params.data['not']", "'red'")
            request.body = json.dumps(made).encode()
        return ask(request)

    with through(subject, exchange=exchange) as arguments:
        yield arguments


@breakage(
    breaks={"extend/conversion/migration": r"says that \['v2'\] are stored, not \['v1', 'v2'\]"}, keeps=["health/livez"]
)
def stored_versions_forgotten(subject: Subject) -> Damage:
    """A version of a custom kind can be given up while objects are stored in it."""

    def forget(request: Request, ask: Ask) -> Answer:
        path, _, query = request.path.partition("?")
        if request.method == "PATCH" and "/customresourcedefinitions/" in path and not path.endswith("/status"):
            stored = [each["name"] for each in json.loads(request.body)["spec"]["versions"] if each["storage"]]
            status = json.dumps({"status": {"storedVersions": stored}}).encode()
            ask(Request("PATCH", f"{path}/status?{query}", request.headers, status))
        return ask(request)

    with through(subject, exchange=forget) as arguments:
        yield arguments


@breakage(
    breaks={
        "api/deprecated": r"MUST be warned of",
        "api/admission_policies/warn": r"is answered with the warning ''",
        "access/pod_security/warn": r"a Pod in \S+: not within",
    },
    keeps=["api/admission_policies/deny"],
)
def warnings_lost(subject: Subject) -> Damage:
    """Nobody gets to see the API server's warnings."""

    def silence(request: Request, ask: Ask) -> Answer:
        answer = ask(request)
        answer.headers.pop("Warning", None)
        return answer

    with through(subject, exchange=silence) as arguments:
        yield arguments


def relabelled_on_the_way(name: str, meaning: str, label: str, *, breaks: Mapping[str, str]) -> None:
    """Register a breakage: the level that a namespace audits is understood as something else."""

    @breakage(name=name, meaning=meaning, breaks=breaks, keeps=["access/pod_security/warn"])
    def relabel(subject: Subject) -> Damage:
        def exchange(request: Request, ask: Ask) -> Answer:
            request.body = request.body.replace(b"pod-security.kubernetes.io/audit", label.encode())
            return ask(request)

        with through(subject, exchange=exchange) as arguments:
            yield arguments


relabelled_on_the_way(
    "audited_levels_enforced",
    "A level that a namespace audits is enforced.",
    "pod-security.kubernetes.io/enforce",
    breaks={"access/pod_security/audit": r"is refused with 403"},
)
relabelled_on_the_way(
    "audited_levels_forgotten",
    "A level that a namespace audits is not looked at.",
    "clusterproof.dev/audit",
    breaks={"access/pod_security/audit": r"is not counted as a violation of the level restricted"},
)


def told_otherwise(
    name: str,
    meaning: str,
    path: str,
    change: Callable[[dict[str, Any]], None],
    *,
    breaks: Mapping[str, str],
    keeps: Sequence[str] = ("health/livez", "api/namespaces/isolation"),
) -> None:
    """Register a breakage: what the API server answers to a GET of a path is changed."""

    @breakage(name=name, meaning=meaning, breaks=breaks, keeps=keeps)
    def tell(subject: Subject) -> Damage:
        def exchange(request: Request, ask: Ask) -> Answer:
            answer = ask(request)
            if request.method == "GET" and request.path.partition("?")[0] == path and answer.status == 200:
                told = json.loads(answer.body)
                change(told)
                answer.body = json.dumps(told).encode()
            return answer

        with through(subject, exchange=exchange) as arguments:
            yield arguments


def _forget_policy(discovery: dict[str, Any]) -> None:
    if discovery["kind"] == "APIGroupDiscoveryList":
        discovery["items"] = [each for each in discovery["items"] if each["metadata"]["name"] != "policy"]


def _name_nothing(version: dict[str, Any]) -> None:
    version["resources"] = []


def _forget_policy_in_the_index(index: dict[str, Any]) -> None:
    index["paths"].pop("apis/policy/v1")


def _restart_a_sidecar(pods: dict[str, Any]) -> None:
    now = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    end = {"terminated": {"exitCode": 1, "reason": "Error", "finishedAt": now}}
    status = {"name": "broken", "restartCount": 1, "lastState": end}
    for pod in pods["items"]:
        pod["spec"].setdefault("initContainers", []).append({"name": "broken", "restartPolicy": "Always"})
        pod["status"].setdefault("initContainerStatuses", []).append(status)


told_otherwise(
    "aggregated_discovery_incomplete",
    "Clients that ask for all of discovery at once do not hear of one group.",
    "/apis",
    _forget_policy,
    breaks={"health/apis": r"policy/v1.*plain discovery names it, aggregated discovery does not"},
)
told_otherwise(
    "discovery_names_no_resource",
    "One version of a group of the API server's own names no resources.",
    "/apis/policy/v1",
    _name_nothing,
    breaks={"health/apis": r"/apis/policy/v1 names no resource"},
)
told_otherwise(
    "openapi_index_incomplete",
    "One version of a group of the API server's own is not described by OpenAPI.",
    "/openapi/v3",
    _forget_policy_in_the_index,
    breaks={"health/apis": r"policy/v1.*/openapi/v3 does not list it"},
)
told_otherwise(
    "system_sidecar_restarts",
    "Sidecars of the pods of kube-system were just restarted (shown to the observer).",
    "/api/v1/namespaces/kube-system/pods",
    _restart_a_sidecar,
    breaks={"health/system_pods": r"broken ended with Error \(1\)"},
)
