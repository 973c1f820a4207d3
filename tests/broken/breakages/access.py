"""Access: who may do what, and what is admitted."""

from __future__ import annotations

from typing import Any

from clusterproof import kinds, manifests

from ..registry import Damage, breakage
from ..subject import SYSTEM, Subject

SERVER = "kube-apiserver"


@breakage(
    breaks={
        "access/rbac/matrix": r"was granted nothing yet, but is not refused",
        "access/rbac/scope": r"was granted everything in \S+ and nothing else, but is answered",
        "access/rbac/resource_names": r"",
        "access/rbac/subresources": r"",
        "access/rbac/non_resource_urls": r"",
        "access/rbac/revocation": r"",
        "access/rbac/escalation": r"",
        "access/rbac/impersonation": r"",
        "access/rbac/unbound": r"",
    },
    keeps=["api/crud_conflict/stale_write", "health/livez"],
)
def authorization_always_allow(subject: Subject) -> Damage:
    """The API server lets everybody do everything."""
    with subject.restarted(SERVER, ("--authorization-mode=", "--authorization-mode=AlwaysAllow")):
        yield []


@breakage(
    breaks={"health/anonymous": r"without credentials .*answered 200", "access/rbac/broad_grants": r""},
    keeps=["api/crud_conflict/stale_write", "health/livez"],
)
def anonymous_is_administrator(subject: Subject) -> Damage:
    """Whoever shows no credentials is bound to cluster-admin."""
    everybody = manifests.subject("Group", "system:unauthenticated")
    with subject.having(manifests.cluster_role_binding("broken", "cluster-admin", [everybody])):
        yield []


@breakage(
    breaks={
        "api/quota/limit": r"MUST be refused with 403.* accepted",
        "api/quota/race": r"has room for",
        "api/quota/resources": r"",
    },
    keeps=["api/quota/limit_range", "api/crud_conflict/validation"],
)
def quota_admission_off(subject: Subject) -> Damage:
    """ResourceQuotas are counted, but nobody is held to them."""
    with subject.restarted(SERVER, ("--disable-admission-plugins=", "--disable-admission-plugins=ResourceQuota")):
        yield []


@breakage(
    breaks={"api/quota/limit_range": r"", "api/namespaces/missing": r""},
    keeps=["api/quota/limit", "api/crud_conflict/validation"],
)
def namespace_and_limit_admission_off(subject: Subject) -> Damage:
    """Objects are let into namespaces that do not exist or are being deleted, and no LimitRange is looked at."""
    off = "--disable-admission-plugins=NamespaceLifecycle,LimitRanger"
    with subject.restarted(SERVER, ("--disable-admission-plugins=", off)):
        yield []


@breakage(
    breaks={"access/pod_security/enforce": r"MUST be refused with 403, but it was accepted"},
    keeps=["access/rbac/unbound", "api/quota/limit"],
)
def pod_security_admission_off(subject: Subject) -> Damage:
    """Namespaces are labelled with Pod Security levels, and nobody looks at them."""
    with subject.restarted(SERVER, ("--disable-admission-plugins=", "--disable-admission-plugins=PodSecurity")):
        yield []


@breakage(
    breaks={
        "access/credentials/automount": r"a pod that names no service account",
        "access/credentials/in_pod": r"MUST reach the API server with what it was given",
    },
    keeps=["access/credentials/tokens"],
)
def service_account_admission_off(subject: Subject) -> Damage:
    """Pods are given no service account and no token."""
    with subject.restarted(SERVER, ("--disable-admission-plugins=", "--disable-admission-plugins=ServiceAccount")):
        yield []


@breakage(
    breaks={"access/node_isolation/writes": r"MUST be refused with 403, but it was accepted"},
    keeps=["access/node_isolation/reads"],
)
def node_restriction_off(subject: Subject) -> Damage:
    """Kubelets may change other nodes and pods than their own."""
    with subject.restarted(SERVER, ("--enable-admission-plugins=", "--enable-admission-plugins=NamespaceLifecycle")):
        yield []


@breakage(
    breaks={"access/node_isolation/reads": r"MUST be refused with 403"},
    keeps=["access/rbac/unbound"],
)
def node_authorizer_off(subject: Subject) -> Damage:
    """Kubelets may read what other nodes' pods need: their rights come from a role."""
    every_node = manifests.subject("Group", "system:nodes")
    with (
        subject.having(manifests.cluster_role_binding("broken", "system:node", [every_node])),
        subject.restarted(SERVER, ("--authorization-mode=", "--authorization-mode=RBAC")),
    ):
        yield []


@breakage(
    breaks={"access/kubelet_api/refuses": r"kubelets MUST refuse"},
    keeps=["access/kubelet_api/read_only_port"],
)
def kubelet_open_to_anybody(subject: Subject) -> Damage:
    """The kubelet of one node answers whoever asks."""
    authentication = {
        "anonymous": {"enabled": True},
        "webhook": {"enabled": True},
        "x509": {"clientCAFile": "/var/lib/kubelet/pki/ca.crt"},
    }
    authorization = {"mode": "AlwaysAllow"}
    with subject.kubelet_config(subject.nodes[1], authentication=authentication, authorization=authorization):
        yield []


@breakage(
    breaks={"access/kubelet_api/read_only_port": r"the read-only port MUST be closed"},
    keeps=["access/kubelet_api/refuses"],
)
def kubelet_read_only_port_open(subject: Subject) -> Damage:
    """The kubelet of one node has its read-only port open."""
    with subject.kubelet_config(subject.nodes[1], readOnlyPort=10255):
        yield []


@breakage(
    breaks={"extend/aggregation/trust": r"MUST carry .*requestheader-client-ca-file"},
    keeps=["api/labels/selectors"],
)
def front_proxy_unknown(subject: Subject) -> Damage:
    """Aggregated APIs are not told how to know the API server."""
    with subject.restarted(SERVER, *((f"--requestheader-{flag}=", "") for flag in REQUEST_HEADER)):
        # What was told before would be kept.
        subject.client.delete(kinds.CONFIG_MAP.path(SYSTEM, "extension-apiserver-authentication"))
        subject.await_object(kinds.CONFIG_MAP, "extension-apiserver-authentication", SYSTEM)
        yield []


REQUEST_HEADER = (
    "client-ca-file",
    "allowed-names",
    "extra-headers-prefix",
    "group-headers",
    "username-headers",
)


@breakage(
    breaks={"storage/dynamic": r"no default class was entered"},
    keeps=["storage/binding"],
)
def default_storage_class_missing(subject: Subject) -> Damage:
    """The cluster claims to make volumes, but no StorageClass is the default."""

    def change(storage_class: dict[str, Any]) -> None:
        storage_class["metadata"]["annotations"]["storageclass.kubernetes.io/is-default-class"] = "false"

    with subject.changed(kinds.STORAGE_CLASS, "local-path", "", change):
        yield ["--capabilities=storage.dynamic"]
