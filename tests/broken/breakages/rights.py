"""Rights that are granted to more than are to have them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from clusterproof import manifests
from clusterproof.credentials import KUBELETS

from ..registry import Damage, breakage
from ..subject import SYSTEM, Subject

EVERYBODY = manifests.subject("Group", "system:authenticated")
DEFAULT = manifests.subject("ServiceAccount", "default", "default")


def granted(
    name: str,
    meaning: str,
    rule: Mapping[str, Any],
    to: Mapping[str, Any],
    *,
    breaks: Mapping[str, str],
    keeps: Sequence[str] = ("access/rbac/resource_names",),
) -> None:
    """Register a breakage: a ClusterRole with one rule is bound to somebody, everywhere."""

    @breakage(name=name, meaning=meaning, breaks=breaks, keeps=keeps)
    def grant(subject: Subject) -> Damage:
        role = manifests.cluster_role("broken", [dict(rule)])
        with subject.having(role, manifests.cluster_role_binding("broken", "broken", [dict(to)])):
            yield []


def _grants(whom: str, what: str) -> dict[str, str]:
    return {"access/rbac/broad_grants": rf"ClusterRoleBinding broken grants {whom} .*{what}"}


def _told(what: str) -> dict[str, str]:
    return {"access/rbac/unbound": rf"was granted nothing, but is told by a review of their rules: .*{what}"}


granted(
    "everybody_makes_pods",
    "Everybody known may list and create pods.",
    manifests.rbac_rule(["list", "create"], ["pods"]),
    EVERYBODY,
    breaks=_grants("system:authenticated", "pods") | _told("pods"),
)
granted(
    "everybody_reads_pods",
    "Everybody known may list pods.",
    manifests.rbac_rule(["list"], ["pods"]),
    EVERYBODY,
    breaks=_told("pods"),
    keeps=["access/rbac/broad_grants"],
)
granted(
    "everybody_reaches_kubelets",
    "Everybody known may ask kubelets through the API server.",
    manifests.rbac_rule(["get"], ["nodes/proxy"]),
    EVERYBODY,
    breaks=_grants("system:authenticated", "nodes/proxy") | _told("nodes/proxy"),
)
granted(
    "everybody_impersonates",
    "Everybody known may act as any user.",
    manifests.rbac_rule(["impersonate"], ["users"]),
    EVERYBODY,
    breaks=_grants("system:authenticated", "impersonate") | _told("impersonate"),
)
granted(
    "default_account_runs_commands",
    "Pods with the service account that they have by default may run commands in every other pod.",
    manifests.rbac_rule(["create"], ["pods/exec"]),
    DEFAULT,
    breaks=_grants("default", "pods/exec"),
    keeps=["access/rbac/unbound"],
)
granted(
    "default_account_reads_configuration",
    "Pods with the service account that they have by default may read the configuration of all.",
    manifests.rbac_rule(["get", "list"], ["configmaps"]),
    DEFAULT,
    breaks=_grants("default", "configmaps"),
    keeps=["access/rbac/unbound"],
)
granted(
    "default_account_named_as_user",
    "The service account that pods have by default may read every Secret, as the user that it is.",
    manifests.rbac_rule(["get"], ["secrets"]),
    manifests.subject("User", "system:serviceaccount:default:default"),
    breaks=_grants("system:serviceaccount:default:default", "secrets"),
    keeps=["access/rbac/unbound"],
)
granted(
    "everybody_changes_what_is_written",
    "Everybody known may have webhooks called that change what others write.",
    manifests.rbac_rule(["create"], ["mutatingwebhookconfigurations"], groups=["admissionregistration.k8s.io"]),
    EVERYBODY,
    breaks=_grants("system:authenticated", "mutatingwebhookconfigurations"),
)
granted(
    "everybody_approves_certificates",
    "Everybody known may approve requests for certificates.",
    manifests.rbac_rule(["update"], ["certificatesigningrequests/approval"], groups=["certificates.k8s.io"]),
    EVERYBODY,
    breaks=_grants("system:authenticated", "certificatesigningrequests/approval"),
    keeps=["access/rbac/unbound"],
)
granted(
    "everybody_labels_namespaces",
    "Everybody known may change namespaces, and with their labels what pods in them may do.",
    manifests.rbac_rule(["patch"], ["namespaces"]),
    EVERYBODY,
    breaks=_grants("system:authenticated", "namespaces") | _told("namespaces"),
)
granted(
    "default_account_makes_volumes",
    "Pods with the service account that they have by default may make volumes of any folder of a node.",
    manifests.rbac_rule(["create"], ["persistentvolumes"]),
    DEFAULT,
    breaks=_grants("default", "persistentvolumes"),
    keeps=["access/rbac/unbound"],
)
granted(
    "nodes_read_all_pods",
    "Every node may read the pods of all others.",
    manifests.rbac_rule(["get", "list", "watch"], ["pods"]),
    manifests.subject("Group", KUBELETS),
    breaks={"access/node_isolation/reads": r"no pod is bound, MUST be refused with 403, but: .*/pods\S*': 200"},
    keeps=["access/node_isolation/pods"],
)
granted(
    "nodes_read_all_claims",
    "Every node may read the claims of volumes of all namespaces.",
    manifests.rbac_rule(["get", "list"], ["persistentvolumeclaims"]),
    manifests.subject("Group", KUBELETS),
    breaks={"access/node_isolation/reads": r"MUST be refused with 403, but: .*/persistentvolumeclaims': 200"},
    keeps=["access/node_isolation/pods"],
)


@breakage(
    breaks=_grants("system:serviceaccounts:kube-system", r"'\*'"),
    keeps=["access/rbac/unbound"],
)
def system_accounts_are_administrators(subject: Subject) -> Damage:
    """All service accounts of kube-system are bound to cluster-admin."""
    accounts = manifests.subject("Group", f"system:serviceaccounts:{SYSTEM}")
    with subject.having(manifests.cluster_role_binding("broken", "cluster-admin", [accounts])):
        yield []


@breakage(
    breaks={"access/rbac/broad_grants": r"RoleBinding kube-system/broken grants default .*'\*'"},
    keeps=["access/rbac/unbound"],
)
def default_account_rules_kube_system(subject: Subject) -> Damage:
    """Pods of the namespace default may do everything in kube-system."""
    binding = manifests.role_binding("broken", "cluster-admin", [DEFAULT], role_kind="ClusterRole")
    binding["metadata"]["namespace"] = SYSTEM
    with subject.having(binding):
        yield []


@breakage(
    breaks={"access/rbac/broad_grants": r"RoleBinding default/broken grants system:unauthenticated .*pods"},
    keeps=["access/rbac/unbound"],
)
def anonymous_views_default(subject: Subject) -> Damage:
    """Whoever shows no credentials may look into the namespace default."""
    nobody = manifests.subject("Group", "system:unauthenticated")
    binding = manifests.role_binding("broken", "view", [nobody], role_kind="ClusterRole")
    binding["metadata"]["namespace"] = "default"
    with subject.having(binding):
        yield []
