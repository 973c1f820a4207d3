"""The API server, started with other arguments: who may do what, what is admitted, how it is known.

Comes after what needs the network: whoever follows the API server takes a while to find it again.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from clusterproof.embedded.pki import LIFETIME, Authority, Pair
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from clusterproof import kinds, manifests
from clusterproof.credentials import KUBELETS

from ..registry import Damage, breakage
from ..subject import SERVER, SYSTEM, Subject

NAMES = ("kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local")
"""By which pods know the API server."""
REQUEST_HEADER = (
    "client-ca-file",
    "allowed-names",
    "extra-headers-prefix",
    "group-headers",
    "username-headers",
)


def admission_off(*plugins: str, name: str, meaning: str, breaks: Mapping[str, str], keeps: Sequence[str]) -> None:
    """Register a breakage: the API server admits objects without some of the plugins that are on by default."""

    @breakage(name=name, meaning=meaning, breaks=breaks, keeps=keeps)
    def off(subject: Subject) -> Damage:
        with subject.flagged(SERVER, "disable-admission-plugins", ",".join(plugins)):
            yield []


@breakage(
    breaks={
        "access/rbac/matrix": r"was granted nothing yet, but is not refused",
        "access/rbac/scope": r"was granted everything in \S+ and nothing else, but is answered",
        "access/rbac/resource_names": r"was granted all verbs on mine alone, but is answered",
        "access/rbac/subresources": r"was granted only",
        "access/rbac/non_resource_urls": r"was granted only",
        "access/rbac/revocation": r"a right that was taken away, becomes 403: not within",
        "access/rbac/escalation": r"MUST be refused with 403, but it was accepted",
        "access/rbac/impersonation": r"may impersonate nobody, but is answered",
        "access/rbac/unbound": r"was granted nothing, but is answered",
        "nodes/ports/api_server": r"control-plane runs its API server with --authorization-mode=AlwaysAllow",
    },
    keeps=["api/crud_conflict/stale_write", "health/livez"],
)
def authorization_always_allow(subject: Subject) -> Damage:
    """The API server lets everybody do everything."""
    with subject.flagged(SERVER, "authorization-mode", "AlwaysAllow"):
        yield []


@breakage(
    breaks={
        "health/anonymous": r"without credentials .*answered 200",
        "access/rbac/broad_grants": r"granted to everybody: ClusterRoleBinding broken grants system:unauthenticated",
    },
    keeps=["api/crud_conflict/stale_write", "health/livez"],
)
def anonymous_is_administrator(subject: Subject) -> Damage:
    """Whoever shows no credentials is bound to cluster-admin."""
    everybody = manifests.subject("Group", "system:unauthenticated")
    with subject.having(manifests.cluster_role_binding("broken", "cluster-admin", [everybody])):
        yield []


admission_off(
    "ResourceQuota",
    name="quota_admission_off",
    meaning="Nobody is held to a ResourceQuota, and what is created is not counted at once.",
    breaks={
        "api/quota/limit": r"create the first Lease under ResourceQuota .* it counts .*'0'.*, not 1",
        "api/quota/race": r"create the first Lease under ResourceQuota .* it counts .*'0'.*, not 1",
        "api/quota/resources": r"MUST be refused with 'exceeded quota: tight.* 'it is let in'",
    },
    keeps=["api/quota/limit_range", "api/crud_conflict/validation"],
)
admission_off(
    "NamespaceLifecycle",
    "LimitRanger",
    name="namespace_and_limit_admission_off",
    meaning="Objects are let into namespaces that do not exist or are being deleted, and no LimitRange is looked at.",
    breaks={
        "api/quota/limit_range": r"a container without requests: not within",
        "api/namespaces/missing": r"MUST be refused with 404, but it was accepted",
    },
    keeps=["api/quota/limit", "api/crud_conflict/validation"],
)
admission_off(
    "MutatingAdmissionWebhook",
    "ValidatingAdmissionWebhook",
    name="webhook_admission_off",
    meaning="Webhooks are registered, and nobody calls them.",
    breaks={
        "api/admission_webhooks/mutating": r"is changed by both webhooks: not within",
        "api/admission_webhooks/validating": r"is refused: not within",
        "api/admission_webhooks/failure_policy": r"is refused: not within",
    },
    keeps=["api/admission_policies/deny", "api/crud_conflict/validation"],
)
admission_off(
    "DefaultIngressClass",
    name="default_ingress_class_admission_off",
    meaning="There is a default IngressClass, and nobody enters it.",
    breaks={"network/ingress/default_class": r"names no class and was given None, not"},
    keeps=["api/admission_webhooks/mutating"],
)
admission_off(
    "PodSecurity",
    name="pod_security_admission_off",
    meaning="Namespaces are labelled with Pod Security levels, and nobody looks at them.",
    breaks={"access/pod_security/enforce": r"MUST be refused with 403, but it was accepted"},
    keeps=["access/rbac/unbound", "api/quota/limit"],
)
admission_off(
    "ServiceAccount",
    name="service_account_admission_off",
    meaning="Pods are given no service account and no token.",
    breaks={
        "access/credentials/automount": r"a pod that names no service account",
        "access/credentials/in_pod": r"MUST reach the API server with what it was given",
        "extend/controller/reconcile": r"ConfigMap \S+/mine has the size that was asked for: not within",
    },
    keeps=["access/credentials/tokens"],
)
admission_off(
    "DefaultTolerationSeconds",
    name="default_tolerations_admission_off",
    meaning="Pods are given no time for which they tolerate that their node is lost.",
    breaks={"scheduling/taints/default_tolerations": r"Pod \S+/silent is lost with its node at once"},
    keeps=["scheduling/taints/no_execute"],
)
admission_off(
    "RuntimeClass",
    name="runtime_class_admission_off",
    meaning="Pods name a RuntimeClass, and nobody looks at it.",
    breaks={"pods/runtime_class/admission": r"Pod \S+/known of RuntimeClass \S+ has the overhead None"},
    keeps=["pods/resources/qos"],
)
admission_off(
    "PersistentVolumeClaimResize",
    name="expansion_admission_off",
    meaning="Claims may be made larger whatever their class says.",
    breaks={"storage/no_expansion": r"of a larger size MUST be refused with 403, but it was accepted"},
    keeps=["storage/binding"],
)
admission_off(
    "CertificateApproval",
    name="approval_admission_off",
    meaning="Who may approve signing requests may do so for every signer.",
    breaks={"access/credentials/signers[approve]": r"approval of .* it was accepted without the right"},
    keeps=["access/credentials/signers[sign]"],
)
admission_off(
    "CertificateSigning",
    name="signing_admission_off",
    meaning="Who may sign may do so for every signer.",
    breaks={"access/credentials/signers[sign]": r"status of .* it was accepted without the right"},
    keeps=["access/credentials/signers[approve]"],
)
admission_off(
    "TaintNodesByCondition",
    name="new_node_taint_admission_off",
    meaning="New nodes are open to pods before they are Ready.",
    breaks={"scheduling/taints/new_node": r"Node \S+-new MUST be made with the taint .*not-ready.*, but has"},
    keeps=["scheduling/taints/no_schedule"],
)
admission_off(
    "DefaultStorageClass",
    name="default_class_admission_off",
    meaning="Claims without class are created without one; a controller enters it later.",
    breaks={"storage/dynamic": r"no default class was entered"},
    keeps=["storage/binding"],
)
admission_off(
    "StorageObjectInUseProtection",
    name="in_use_protection_admission_off",
    meaning="Claims are created unprotected; a controller protects them later.",
    breaks={"storage/protection": r"PersistentVolumeClaim \S+/data was created without kubernetes.io/pvc-protection"},
    keeps=["storage/binding"],
)
admission_off(
    "CertificateSubjectRestriction",
    name="subject_admission_off",
    meaning="Certificates of the group that may do everything can be asked for.",
    breaks={"access/credentials/certificates": r"for the group system:masters MUST be refused"},
    keeps=["access/credentials/signers"],
)
admission_off(
    "MutatingAdmissionPolicy",
    name="mutating_policies_off",
    meaning="Policies that change objects are bound, and nobody evaluates them.",
    breaks={"api/admission_policies/mutate": r"a red ConfigMap in \S+ .*not within"},
    keeps=["api/admission_policies/deny"],
)
admission_off(
    "Priority",
    name="priority_admission_off",
    meaning="Pods name a PriorityClass, and all have the same priority.",
    breaks={"scheduling/priority[PreemptLowerPriority]": r"Pod \S+/low told to end: not within"},
    keeps=["scheduling/fit"],
)


def bounds_rewritten(
    name: str, meaning: str, resource: str, expression: str, *, breaks: Mapping[str, str], keeps: Sequence[str]
) -> None:
    """Register a breakage: something that a ResourceQuota or LimitRange says is not done."""

    @breakage(name=name, meaning=meaning, breaks=breaks, keeps=keeps)
    def rewrite(subject: Subject) -> Damage:
        with subject.mutating(resource, expression, patch="JSONPatch"):
            yield []


def _limits(condition: str) -> str:
    """CEL: only those limits of a LimitRange for which a condition holds."""
    kept = f"object.spec.limits.filter(each, {condition})"
    return f'[JSONPatch{{op: "replace", path: "/spec/limits", value: {kept}}}]'


def _without(bound: str, type: str) -> str:
    """CEL: the first two limits of a LimitRange without a bound, if they are of this type."""
    parts = (
        f'(object.spec.limits.size() > {place} && object.spec.limits[{place}].type == "{type}" && '
        f"has(object.spec.limits[{place}].{bound}) ? "
        f'[JSONPatch{{op: "remove", path: "/spec/limits/{place}/{bound}"}}] : [])'
        for place in (0, 1)
    )
    return " + ".join(parts)


bounds_rewritten(
    "quota_scopes_ignored",
    "A ResourceQuota holds for all pods, whatever its scope.",
    "v1/resourcequotas",
    'has(object.spec.scopes) ? [JSONPatch{op: "remove", path: "/spec/scopes"}] : []',
    breaks={"api/quota/scopes": r"is for \w+ pods, and a pod that is not one MUST be let in, but: .*exceeded quota"},
    keeps=["api/quota/resources"],
)
bounds_rewritten(
    "quotas_for_all_priorities",
    "A ResourceQuota holds for all pods, whatever priority class it is for.",
    "v1/resourcequotas",
    'has(object.spec.scopeSelector) ? [JSONPatch{op: "remove", path: "/spec/scopeSelector"}] : []',
    breaks={"api/quota/priority_scope": r"a pod without a class MUST be let in, but: .*exceeded quota"},
    keeps=["api/quota/scopes"],
)
bounds_rewritten(
    "limits_of_pods_ignored",
    "A LimitRange holds for each container and each claim, and not for pods.",
    "v1/limitranges",
    _limits('each.type != "Pod"'),
    breaks={"api/quota/limit_range_types": r"a pod of two containers .*: not within .*per Pod is 1.*it is let in"},
    keeps=["api/quota/limit_range"],
)
bounds_rewritten(
    "limits_of_claims_ignored",
    "A LimitRange holds for pods and their containers, and not for claims.",
    "v1/limitranges",
    _limits('each.type != "PersistentVolumeClaim"'),
    breaks={"api/quota/limit_range_types": r"a claim of 2Gi .*: not within .*per PersistentVolumeClaim.*it is let in"},
    keeps=["api/quota/limit_range"],
)
bounds_rewritten(
    "least_of_pods_ignored",
    "A LimitRange lets in pods that ask for less than it says.",
    "v1/limitranges",
    _without("min", "Pod"),
    breaks={"api/quota/limit_range_types": r"a pod with 50m of CPU .*: not within .*per Pod is 100m.*it is let in"},
    keeps=["api/quota/limit_range"],
)
bounds_rewritten(
    "least_of_claims_ignored",
    "A LimitRange lets in claims that ask for less than it says.",
    "v1/limitranges",
    _without("min", "PersistentVolumeClaim"),
    breaks={"api/quota/limit_range_types": r"a claim of 32Mi .*: not within .*per PersistentVolumeClaim.*it is let in"},
    keeps=["api/quota/limit_range"],
)
bounds_rewritten(
    "ratio_of_pods_ignored",
    "A LimitRange lets in pods whose limits are more times what they request than it says.",
    "v1/limitranges",
    _without("maxLimitRequestRatio", "Pod"),
    breaks={"api/quota/limit_range_types": r"a pod with 300m to 900m of CPU .*: not within .*ratio per Pod.*let in"},
    keeps=["api/quota/limit_range"],
)


@breakage(
    breaks={"scheduling/taints/default_tolerations": r"stays on a lost node too long or not: .*86400"},
    keeps=["scheduling/taints/no_execute"],
)
def lost_nodes_keep_pods_a_day(subject: Subject) -> Damage:
    """Pods tolerate for a day that their node is lost, if they do not say otherwise."""
    with subject.flagged(SERVER, "default-unreachable-toleration-seconds", "86400"):
        yield []


@breakage(
    breaks={
        "access/node_isolation/writes": r"MUST be refused with 403, but it was accepted",
        "access/node_isolation/pods": r"reporting the status of Pod \S+/pod, .* MUST be refused .* it was accepted",
    },
    keeps=["access/node_isolation/reads"],
)
def node_restriction_off(subject: Subject) -> Damage:
    """Kubelets may change other nodes and pods than their own."""
    with subject.flagged(SERVER, "enable-admission-plugins", "NamespaceLifecycle"):
        yield []


@breakage(
    breaks={"access/node_isolation/reads": r"MUST be refused with 403"},
    keeps=["access/rbac/unbound"],
)
def node_authorizer_off(subject: Subject) -> Damage:
    """Kubelets may read what other nodes' pods need: their rights come from a role."""
    every_node = manifests.subject("Group", KUBELETS)
    with (
        subject.having(manifests.cluster_role_binding("broken", "system:node", [every_node])),
        subject.flagged(SERVER, "authorization-mode", "RBAC"),
    ):
        yield []


@breakage(
    breaks={"extend/aggregation/trust": r"MUST carry .*requestheader-client-ca-file"},
    keeps=["api/labels/selectors"],
)
def front_proxy_unknown(subject: Subject) -> Damage:
    """Aggregated APIs are not told how to know the API server."""
    with subject.restarted(SERVER, *((f"--requestheader-{flag}=", "") for flag in REQUEST_HEADER)):
        _told_anew(subject)
        yield []


def _told_anew(subject: Subject) -> None:
    """Have aggregated APIs told how to know the API server; what they were told before would be kept."""
    subject.client.delete(kinds.CONFIG_MAP.path(SYSTEM, "extension-apiserver-authentication"))
    subject.await_object(kinds.CONFIG_MAP, "extension-apiserver-authentication", SYSTEM)


@breakage(
    breaks={"access/credentials/impostors": r"-user writes the headers .* and is taken for system:admin"},
    keeps=["access/credentials/tokens", "health/livez"],
)
def front_proxies_signed_by_the_authority_of_clients(subject: Subject) -> Damage:
    """Everybody with a client certificate is believed to be a front proxy."""
    with tempfile.TemporaryDirectory() as folder:
        # The API server does not start with the very same certificate in both places; with the same key it does.
        authority = _renewed(Authority(subject.state.pki, "ca").pair, Path(folder))
        arguments = (
            ("--requestheader-client-ca-file=", f"--requestheader-client-ca-file={authority}"),
            ("--requestheader-allowed-names=", ""),
        )
        with subject.restarted(SERVER, *arguments):
            yield []
    _told_anew(subject)


def _renewed(authority: Pair, folder: Path) -> Path:
    """Another certificate of an authority, for the same key."""
    known = x509.load_pem_x509_certificate(authority.certificate.read_bytes())
    key = serialization.load_pem_private_key(authority.key.read_bytes(), password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    builder = (
        x509.CertificateBuilder()
        .subject_name(known.subject)
        .issuer_name(known.issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(known.not_valid_before_utc)
        .not_valid_after(known.not_valid_after_utc)
    )
    for each in known.extensions:
        builder = builder.add_extension(each.value, critical=each.critical)
    path = folder / "renewed.crt"
    path.write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    return path


@contextlib.contextmanager
def _showing(subject: Subject, names: Sequence[str], *, lifetime: timedelta = LIFETIME) -> Iterator[None]:
    """An API server that shows a certificate for these names and its own address."""
    with tempfile.TemporaryDirectory() as folder:
        pair = Authority(subject.state.pki, "ca").issue(
            "shown",
            user="kube-apiserver",
            server=[*names, str(subject.state.api_address)],
            folder=Path(folder),
            lifetime=lifetime,
        )
        files = (
            ("--tls-cert-file=", f"--tls-cert-file={pair.certificate}"),
            ("--tls-private-key-file=", f"--tls-private-key-file={pair.key}"),
        )
        with subject.restarted(SERVER, *files):
            yield


@breakage(
    breaks={"health/certificates": r"certificate of the API server MUST be valid"},
    keeps=["health/livez", "api/namespaces/isolation"],
)
def certificate_about_to_expire(subject: Subject) -> Damage:
    """The certificate of the API server ends in 5 days."""
    names = [*NAMES, str(subject.state.service_network[1])]
    with _showing(subject, names, lifetime=timedelta(days=5)):
        yield []


@breakage(
    breaks={"health/certificates": r"MUST be able to verify the API server .*: https://[\d.]+:\d+/version: curl"},
    keeps=["health/livez", "api/namespaces/isolation"],
)
def certificate_not_for_the_service(subject: Subject) -> Damage:
    """The certificate of the API server is not for the address by which pods reach it."""
    with _showing(subject, NAMES):
        yield []


@breakage(
    breaks={"access/rbac/defaults[view]": r"view MUST NOT allow this in"},
    keeps=["access/rbac/scope", "access/rbac/defaults[admin]"],
)
def viewers_read_secrets(subject: Subject) -> Damage:
    """The default role view has been given the right to read Secrets."""
    with subject.having(_added_to_view(["get", "list", "watch"], "secrets")):
        yield []


@breakage(
    breaks={"access/rbac/defaults[view]": r"view MUST NOT allow to change anything in \S+, but .*pods"},
    keeps=["access/rbac/scope", "access/rbac/defaults[admin]"],
)
def viewers_make_pods(subject: Subject) -> Damage:
    """The default role view has been given the right to create pods."""
    with subject.having(_added_to_view(["create"], "pods")):
        yield []


@breakage(
    breaks={
        "access/rbac/defaults[edit]": r"not allowed, though granted: .*update deployments",
        "access/rbac/defaults[admin]": r"not allowed, though granted: .*update deployments",
    },
    keeps=["access/rbac/defaults[view]", "access/rbac/scope"],
)
def editors_edit_no_deployments(subject: Subject) -> Damage:
    """The default roles edit and admin have lost the rules about Deployments and the like."""

    def change(role: dict[str, Any]) -> None:
        role["rules"] = [rule for rule in role["rules"] if "deployments" not in rule["resources"]]

    with subject.changed(kinds.CLUSTER_ROLE, "system:aggregate-to-edit", "", change):
        yield []


@breakage(
    breaks={
        "access/credentials/stored_tokens": r"the token of Secret \S+/lost, which was deleted, .*: not within .*200"
    },
    keeps=["access/credentials/bound_tokens"],
)
def stored_tokens_never_end(subject: Subject) -> Damage:
    """Tokens that were stored in a Secret stay good when it is gone, and its service account with it."""
    with subject.flagged(SERVER, "service-account-lookup", "false"):
        yield []


@breakage(
    breaks={"health/apis": r"'autoscaling/v1': 'it is stable, and discovery does not name it'"},
    keeps=["health/livez", "api/namespaces/isolation"],
)
def stable_version_off(subject: Subject) -> Damage:
    """The API server does not serve a version that is stable."""
    with subject.flagged(SERVER, "runtime-config", "autoscaling/v1=false"):
        yield []


def _added_to_view(verbs: list[str], resource: str) -> dict[str, Any]:
    """A ClusterRole of which the default role view has all rules, too."""
    labels = {"rbac.authorization.k8s.io/aggregate-to-view": "true"}
    return manifests.cluster_role("broken", [manifests.rbac_rule(verbs, [resource])], labels=labels)


@breakage(
    breaks={"access/rbac/subresources": r"may get pods/exec but not create it, and is let in by \['GET pods/exec'\]"},
    keeps=["access/rbac/resource_names"],
)
def commands_by_reading(subject: Subject) -> Damage:
    """Whoever may get pods/exec can run commands by websocket, as before Kubernetes 1.35."""
    with subject.flagged(SERVER, "feature-gates", "AuthorizePodWebsocketUpgradeCreatePermission=false"):
        yield []


@breakage(
    breaks={"health/etcd/loss": r"20 ConfigMaps were stored before etcd was lost; after it there is no"}, keeps=[]
)
def etcd_from_a_backup(subject: Subject) -> Damage:
    """Whenever etcd starts it has what it had some time ago."""
    (data,) = (part.partition("=")[2] for part in subject.state.programs["etcd"].command if "--data-dir=" in part)
    with subject.stopped("etcd"):
        subject.run_on("control-plane", f"cp -a {data} {data}.backup")
    try:
        with subject.prepared("etcd", f"rm -rf {data} && cp -a {data}.backup {data}"):
            # Only its provider can end the programs of a cluster.
            yield ["--cluster=embedded", "--reuse", f"--cluster-name={subject.state.name}"]
    finally:
        subject.run_on("control-plane", f"rm -rf {data}.backup")
        # Everybody knows of versions that etcd has forgotten.
        with subject.restarted(SERVER):
            pass


@breakage(
    breaks={"api/flow_control/flow_schema": r"belongs to FlowSchema \S+-later: not within .*the uid None"},
    keeps=["api/labels/selectors"],
)
def flow_control_off(subject: Subject) -> Damage:
    """The API server answers whoever comes first, and belongs to no FlowSchema what he asks."""
    with subject.flagged(SERVER, "enable-priority-and-fairness", "false"):
        yield []
