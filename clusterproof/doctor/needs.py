"""The rights that the suites need, which promises need them, and whether the run's identity has them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from clusterproof import catalog, kinds
from clusterproof.client import Client
from clusterproof.errors import ApiError

_REFUSED = re.compile(
    r'User "(?P<user>[^"]*)" cannot (?P<verb>\w+) resource "(?P<resource>[^"]+)" in API group "(?P<group>[^"]*)"'
    r'(?: in the namespace "(?P<namespace>[^"]*)")?'
)
"""How an authorizer refuses: that of admission reads otherwise."""
_ESCALATES = re.compile(
    r'(?P<resource>\w+)\.rbac\.authorization\.k8s\.io "[^"]*" is forbidden: user "(?P<user>[^"]*)" .*'
    r"is attempting to grant RBAC permissions not currently held"
)
"""How the API server refuses a role, or its binding, that allows more than the user may."""


@dataclass(frozen=True, slots=True)
class Need:
    """A right, and how a promise shows that it needs it."""

    verb: str
    group: str
    resource: str
    """With the subresource: `pods/log`."""
    uses: str = ""
    """Regular expression that is found in the source of promises that need it; empty: all do."""

    def __str__(self) -> str:
        return f"{self.verb} {self.resource}"


RBAC, ADMISSION = "rbac.authorization.k8s.io", "admissionregistration.k8s.io"

NEEDS = (
    Need("create", "", "namespaces"),
    Need("delete", "", "namespaces"),
    Need("create", "", "pods", r"pod\(|deployment\(|visitor|images"),
    Need("get", "", "pods/log", r"\.logs\("),
    Need("create", "", "pods/exec", r"\.exec\(|visitor"),
    Need("create", "", "pods/attach", r"\.attach\("),
    Need("create", "", "pods/portforward", r"\.forward\("),
    Need("create", "", "services", r"service\("),
    Need("create", "", "endpoints", r"manifests\.endpoints\("),
    Need("create", "", "replicationcontrollers", r"replication_controller\("),
    Need("create", "", "secrets", r"secret\("),
    Need("create", "", "resourcequotas", r"quota\(|RESOURCE_QUOTA"),
    Need("create", "", "serviceaccounts/token", r"credentials\.token|\bbearer\b"),
    Need("list", "", "nodes", r"cluster\.nodes\(|\b(some_)?nodes\b|kinds\.NODE\b"),
    Need("create", "", "nodes", r"hollow_node|hollow\.create"),
    Need("create", "", "persistentvolumes", r"_volume\(|persistent_volume\("),
    Need("create", "apps", "deployments", r"deployment\("),
    Need("create", "apps", "statefulsets", r"stateful_?set\("),
    Need("create", "apps", "daemonsets", r"daemon_?set\("),
    Need("create", "autoscaling.k8s.io", "verticalpodautoscalers", r"\bvpa\("),
    Need("create", "batch", "jobs", r"\bjob\("),
    Need("create", "gateway.networking.k8s.io", "httproutes", r"\bHTTPRoute\b"),
    Need("create", "networking.k8s.io", "ingresses", r"manifests\.ingress\("),
    Need("create", "networking.k8s.io", "ingressclasses", r"ingress_class\b"),
    Need("create", "networking.k8s.io", "networkpolicies", r"network_policy\("),
    Need("create", RBAC, "roles", r"rights\.grant|manifests\.role\("),
    Need("create", RBAC, "clusterroles", r"cluster_role\(|CLUSTER_ROLE\b|ClusterRole\b"),
    Need("create", RBAC, "clusterrolebindings", r"cluster_role_binding\(|ClusterRoleBinding"),
    Need("create", "apiextensions.k8s.io", "customresourcedefinitions", r"manifests\.crd\(|CUSTOM_RESOURCE_DEFINITION"),
    Need("create", "apiregistration.k8s.io", "apiservices", r"API_SERVICE|api_service\("),
    Need("create", ADMISSION, "mutatingwebhookconfigurations", r"MutatingWebhookConfiguration|MUTATING_WEBHOOK"),
    Need("create", ADMISSION, "validatingwebhookconfigurations", r"ValidatingWebhookConfiguration|VALIDATING_WEBHOOK"),
    Need("create", ADMISSION, "validatingadmissionpolicies", r"VALIDATING_ADMISSION|ValidatingAdmissionPolicy"),
    Need("create", ADMISSION, "mutatingadmissionpolicies", r"MutatingAdmissionPolicy"),
    Need("create", "certificates.k8s.io", "certificatesigningrequests", r"credentials\.certificate|signing_request"),
    Need("patch", "certificates.k8s.io", "podcertificaterequests/status", r"POD_CERTIFICATE_REQUEST"),
    Need("create", "cert-manager.io", "certificates", r"cert-manager\.io"),
    Need("create", "storage.k8s.io", "storageclasses", r"STORAGE_CLASS|storage_class\("),
    Need("create", "storage.k8s.io", "volumeattributesclasses", r"VOLUME_ATTRIBUTES_CLASS"),
    Need("create", "storagemigration.k8s.io", "storageversionmigrations", r"STORAGE_VERSION_MIGRATION"),
    Need("create", "resource.k8s.io", "resourceclaimtemplates", r"RESOURCE_CLAIM_TEMPLATE"),
    Need("create", "scheduling.k8s.io", "priorityclasses", r"priority_class\("),
    Need("create", "flowcontrol.apiserver.k8s.io", "flowschemas", r"FLOW_SCHEMA"),
    Need("create", "node.k8s.io", "runtimeclasses", r"\bRuntimeClass"),
)
"""Rights by which promises stand and fall; those that go along with them in any usual role are left out."""


def may(client: Client, need: Need, namespace: str = "") -> bool:
    """Whether the client's user has a right, in all namespaces where none is named, says the server."""
    resource, _, subresource = need.resource.partition("/")
    asked = {"verb": need.verb, "group": need.group, "resource": resource, "subresource": subresource}
    kind = kinds.SELF_SUBJECT_ACCESS_REVIEW
    attributes = {**asked, "namespace": namespace}
    body = {"apiVersion": kind.api_version, "kind": kind.kind, "spec": {"resourceAttributes": attributes}}
    return bool(client.post(kind.path(), body)["status"].get("allowed"))


def who_needs(need: Need) -> tuple[str, ...]:
    """Files of promises that need a right, as in ids: `apps/deployment`."""
    return who_uses(need.uses) if need.uses else ("every promise",)


def who_uses(pattern: str) -> tuple[str, ...]:
    """Files of promises in whose source a regular expression is found, as in ids: `apps/deployment`."""
    found = re.compile(pattern)
    root = catalog.root()
    files = (path for path in sorted(root.rglob("test_*.py")) if found.search(path.read_text()))
    return tuple(catalog.report_id(path.relative_to(root), "").rstrip("/") for path in files)


def is_missing_right(refusal: ApiError) -> bool:
    """Whether an authorizer refused, and not admission, which also answers 403."""
    return refusal.status == 403 and _REFUSED.search(refusal.message) is not None


def missing(client: Client, said: str) -> Need | None:
    """The right for whose lack the client's user was refused, as `said` by the server; None where that is not so.

    The server is asked anew: an authorizer that refuses what the user is said to be allowed is not excused.
    """
    if found := _REFUSED.search(said):
        need, namespace = Need(found["verb"], found["group"], found["resource"]), found["namespace"] or ""
    elif found := _ESCALATES.search(said):
        verb = "bind" if "binding" in found["resource"] else "escalate"
        need, namespace = Need(verb, RBAC, found["resource"].replace("bindings", "s")), ""
    else:
        return None
    return need if found["user"] == _name_of(client) and not may(client, need, namespace) else None


def _name_of(client: Client) -> str:
    """Who the client's user is, says the server."""
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    answer = client.post("/apis/authentication.k8s.io/v1/selfsubjectreviews", body)
    return str(answer["status"]["userInfo"]["username"])
