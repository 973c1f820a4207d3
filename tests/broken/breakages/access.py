"""Access: who may do what, and what is admitted."""

from __future__ import annotations

from clusterproof import manifests

from ..registry import Damage, breakage
from ..subject import Subject

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
