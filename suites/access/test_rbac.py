"""RBAC: everybody may do what was granted to them, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from itertools import product
from time import monotonic
from typing import Any

import pytest

from clusterproof import (
    Client,
    Cluster,
    Images,
    Namespace,
    Object,
    Response,
    Timeouts,
    case,
    conditions,
    eventually,
    kinds,
    manifests,
    measure,
)
from clusterproof.credentials import Credentials
from clusterproof.kinds import Kind
from clusterproof.objects import PATCH_TYPES
from clusterproof.refusals import refused
from clusterproof.rights import VERBS, attempt, bind, grant, note, review, told_rules

Subject = dict[str, Any]
Cell = tuple[str, Kind]
"""A verb, and what it is done to."""

GRANTED: Mapping[Kind, tuple[str, ...]] = {
    kinds.CONFIG_MAP: ("get", "list", "create", "update"),
    kinds.SECRET: ("get", "watch", "patch", "delete"),
    kinds.SERVICE_ACCOUNT: ("list", "create", "patch", "deletecollection"),
    kinds.CRON_JOB: ("watch", "update", "deletecollection"),
    kinds.LEASE: ("delete",),
}
"""Every verb on two kinds, no two verbs on the same two: mistaking one verb for another shows."""
UNBOUND = (kinds.NODE, kinds.NAMESPACE, kinds.PERSISTENT_VOLUME, kinds.CLUSTER_ROLE)
"""Kinds without namespace."""
CELLS: tuple[Cell, ...] = tuple((verb, kind) for kind, verb in product(GRANTED, VERBS))
MINE = tuple((verb, kind) for verb, kind in CELLS if verb in GRANTED[kind])
OTHERS = tuple((verb, kind) for verb, kind in CELLS if verb not in GRANTED[kind])
RULES = [manifests.rbac_rule(verbs, [kind.plural], groups=[kind.group]) for kind, verbs in GRANTED.items()]

USER, GROUP, ACCOUNT = "user", "group", "account"
SMOKE = pytest.mark.smoke


@pytest.mark.parametrize(
    ("who", "role", "binding"),
    [
        case("user-Role-RoleBinding", USER, "Role", "RoleBinding", marks=SMOKE),
        case("user-ClusterRole-RoleBinding", USER, "ClusterRole", "RoleBinding"),
        case("user-ClusterRole-ClusterRoleBinding", USER, "ClusterRole", "ClusterRoleBinding"),
        case("group-Role-RoleBinding", GROUP, "Role", "RoleBinding"),
        case("group-ClusterRole-RoleBinding", GROUP, "ClusterRole", "RoleBinding"),
        case("group-ClusterRole-ClusterRoleBinding", GROUP, "ClusterRole", "ClusterRoleBinding", marks=SMOKE),
        case("account-Role-RoleBinding", ACCOUNT, "Role", "RoleBinding"),
        case("account-ClusterRole-RoleBinding", ACCOUNT, "ClusterRole", "RoleBinding", marks=SMOKE),
        case("account-ClusterRole-ClusterRoleBinding", ACCOUNT, "ClusterRole", "ClusterRoleBinding"),
    ],
)  # fmt: skip
def test_matrix(
    namespace: Namespace, credentials: Credentials, timeouts: Timeouts, who: str, role: str, binding: str
) -> None:
    """Of all verbs on all resources exactly the granted ones MUST be allowed, and all others refused with 403.

    By real requests of a user or group with a client certificate, or of a service account with a token. What the
    server says when they review their own access is the same.

    Source: https://kubernetes.io/docs/reference/access-authn-authz/rbac/
    """
    seeds = _sow(namespace)
    client, subject = _somebody(who, namespace, credentials)
    already = [_text(cell) for cell in MINE if _try(client, namespace, cell, seeds) != 403]
    assert not already, f"{client.user} was granted nothing yet, but is not refused {', '.join(already)}"

    grant(namespace, RULES, [subject], role=role, binding=binding)
    _until_allowed(client, lambda: _lacking(client, namespace, MINE, seeds), timeouts)

    surplus = _surplus(client, namespace, MINE, OTHERS, seeds)
    assert not surplus, f"{client.user} MUST be refused with 403 all that was not granted, but is answered {surplus}"
    reviews = {cell: review(client, *cell, namespace.name) for cell in CELLS}
    wrong = [f"{_text(cell)}: {said}" for cell, said in reviews.items() if said != (cell in MINE)]
    assert not wrong, f"{client.user} reviews the own access, and the server says otherwise than it does: {wrong}"


def test_scope(namespaces: Callable[[], Namespace], credentials: Credentials, timeouts: Timeouts) -> None:
    """What is granted in a namespace MUST NOT count in another one, for all at once, or for what has no namespace.

    Not even where it is a ClusterRole that names everything.

    Source: https://kubernetes.io/docs/reference/access-authn-authz/rbac/#rolebinding-and-clusterrolebinding
    """
    ours, theirs = namespaces(), namespaces()
    seeds = _sow(ours)
    client, subject = _somebody(ACCOUNT, ours, credentials)

    everything = [manifests.rbac_rule(["*"], ["*"], groups=["*"])]
    grant(ours, everything, [subject], role="ClusterRole")
    _until_allowed(client, lambda: _lacking(client, ours, CELLS, seeds), timeouts)

    # Their own namespace is an object in it; the other one is not.
    seeds[kinds.NAMESPACE] = manifests.custom_object(kinds.NAMESPACE, theirs.name)
    answers = {f"{_text(cell)} in {theirs}": _try(client, theirs, cell, seeds) for cell in CELLS}
    everywhere = Namespace("", ours.cluster, client)
    for cell in product(("list", "watch", "deletecollection"), (*GRANTED, *UNBOUND)):
        answers[f"{_text(cell)} everywhere"] = _try(client, everywhere, cell, seeds)
    for cell in product(("get", "create", "update", "patch", "delete"), UNBOUND):
        answers[_text(cell)] = _try(client, everywhere, cell, seeds)
    answers |= {path: client.request("GET", path).status for path in ("/metrics", "/livez/ping")}
    leaks = {what: status for what, status in answers.items() if status != 403}
    assert not leaks, f"{client.user} was granted everything in {ours} and nothing else, but is answered {leaks}"


def test_resource_names(namespace: Namespace, credentials: Credentials, timeouts: Timeouts) -> None:
    """What is granted for objects of some names MUST be allowed for these alone, and to list or watch just these.

    Source: https://kubernetes.io/docs/reference/access-authn-authz/rbac/#referring-to-resources
    """
    mine, other = (namespace.create(manifests.config_map(name)) for name in ("mine", "other"))
    client, subject = _somebody(ACCOUNT, namespace, credentials)
    grant(namespace, [manifests.rbac_rule(VERBS, ["configmaps"], names=["mine"])], [subject])

    def tried(verb: str, item: Object) -> int:
        return attempt(client, verb, kinds.CONFIG_MAP, namespace.name, item.raw)

    single = ("get", "update", "patch", "delete")
    _until_allowed(client, lambda: [verb for verb in single if tried(verb, mine) != 200], timeouts)
    answers = {f"{verb} other": tried(verb, other) for verb in (*single, "deletecollection")}
    answers |= {f"{verb} all": tried(verb, mine) for verb in ("list", "watch", "create")}
    named = {
        item.name: client.request("GET", mine.kind.path(namespace.name), query=_only(item)) for item in (mine, other)
    }
    surplus = {what: status for what, status in answers.items() if status != 403}
    assert not surplus, f"{client.user} was granted all verbs on mine alone, but is answered {surplus}"
    assert named["other"].status == 403, f"{client.user} may list the name other: {named['other'].text}"
    assert [item["metadata"]["name"] for item in named["mine"].json()["items"]] == ["mine"]


def test_subresources(namespace: Namespace, credentials: Credentials, timeouts: Timeouts, images: Images) -> None:
    """What is granted on a resource MUST NOT reach its subresources, and the other way round.

    Nor does who may read commands in pods run one: since Kubernetes 1.35 that takes create, by websocket, too.

    Source: https://kubernetes.io/docs/reference/access-authn-authz/rbac/#referring-to-resources
    """
    namespace.create(manifests.deployment("seed", images.agnhost, replicas=0))
    whole, owner = _somebody(ACCOUNT, namespace, credentials, "whole")
    parts, operator = _somebody(ACCOUNT, namespace, credentials, "parts")
    groups = ["", "apps"]
    names = ["pods/log", "pods/exec", "pods/status", "deployments/scale", "deployments/status"]
    grant(namespace, [manifests.rbac_rule(["*"], ["pods", "deployments"], groups=groups)], [owner], name="whole")
    grant(namespace, [manifests.rbac_rule(["*"], names, groups=groups)], [operator], name="parts")

    pod, workload = namespace.object(kinds.POD, "none"), namespace.object(kinds.DEPLOYMENT, "seed")
    of_whole = [("GET", pod, ""), ("GET", workload, ""), ("PATCH", workload, "")]
    of_parts = [("GET", pod, "log"), ("POST", pod, "exec"), ("GET", pod, "status")]
    of_parts += [(method, workload, part) for method in ("GET", "PATCH") for part in ("scale", "status")]
    for client, mine, others in ((whole, of_whole, of_parts), (parts, of_parts, of_whole)):
        _until_allowed(client, partial(_forbidden, client, mine), timeouts)
        kept = _forbidden(client, others)
        surplus = [_part(*each) for each in others if _part(*each) not in kept]
        assert not surplus, f"{client.user} was granted only {[_part(*each) for each in mine]}, but may {surplus}"

    reader, curious = _somebody(ACCOUNT, namespace, credentials, "reader")
    grant(namespace, [manifests.rbac_rule(["get"], ["pods/log", "pods/exec"])], [curious], name="reader")
    _until_allowed(reader, partial(_forbidden, reader, [("GET", pod, "log")]), timeouts)
    methods = ("GET", "POST") if _minor(reader) >= COMMANDS_TAKE_CREATE else ("POST",)
    let_in = [_part(each, pod, "exec") for each in methods if not _forbidden(reader, [(each, pod, "exec")])]
    assert not let_in, f"{reader.user} may get pods/exec but not create it, and is let in by {let_in}"


def test_non_resource_urls(namespace: Namespace, credentials: Credentials, timeouts: Timeouts) -> None:
    """What is granted on a path that is no object MUST be allowed there, below it where it ends in *, nowhere else.

    Source: https://kubernetes.io/docs/reference/access-authn-authz/rbac/#referring-to-resources
    """
    client, subject = _somebody(ACCOUNT, namespace, credentials)
    rule = {"nonResourceURLs": ["/livez/*", "/healthz/ping"], "verbs": ["get"]}
    grant(namespace, [rule], [subject], role="ClusterRole", binding="ClusterRoleBinding")

    def refusals(paths: Iterable[str]) -> list[str]:
        return [path for path in paths if client.request("GET", path).status != 200]

    _until_allowed(client, lambda: refusals(["/livez/ping", "/livez/etcd", "/healthz/ping"]), timeouts)
    paths = ["/readyz/ping", "/healthz/etcd", "/healthz/ping/", "/metrics", "/livezping", "/logs/"]
    answers = {f"get {path}": client.request("GET", path).status for path in paths}
    answers["post /livez/ping"] = client.request("POST", "/livez/ping", body={}).status
    surplus = {what: status for what, status in answers.items() if status != 403}
    assert not surplus, f"{client.user} was granted only {rule}, but is answered {surplus}"


def test_aggregation(cluster: Cluster, namespace: Namespace, credentials: Credentials, timeouts: Timeouts) -> None:
    """An aggregated ClusterRole MUST grant what all ClusterRoles with its label do, and no longer than they have it.

    Source: https://kubernetes.io/docs/reference/access-authn-authz/rbac/#aggregated-clusterroles
    """
    client, subject = _somebody(ACCOUNT, namespace, credentials)
    label, seeds = {"clusterproof.dev/part-of": namespace.name}, _sow(namespace)
    sum_of_parts = manifests.cluster_role(f"{namespace}-sum", [])
    cluster.create({**sum_of_parts, "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": label}]}})
    bind(namespace, f"{namespace}-sum", [subject])
    for name, resource, labels in (
        ("one", "configmaps", label),
        ("two", "secrets", label),
        ("none", "serviceaccounts", {}),
    ):
        rules = [manifests.rbac_rule(["list"], [resource])]
        part = cluster.create(manifests.cluster_role(f"{namespace}-{name}", rules, labels=labels))
        if name == "one":
            first = part

    def allowed() -> list[str]:
        cells = [("list", kind) for kind in (kinds.CONFIG_MAP, kinds.SECRET, kinds.SERVICE_ACCOUNT)]
        return [_text(cell) for cell in cells if _try(client, namespace, cell, seeds) == 200]

    what = f"what the aggregated role allows {client.user}"
    both = conditions.equals(["list configmaps", "list secrets"])
    eventually(allowed, both, within=timeouts.object, describe=f"{what} is what its two parts do")
    first.patch({"metadata": {"labels": {"clusterproof.dev/part-of": None}}})
    one = conditions.equals(["list secrets"])
    eventually(allowed, one, within=timeouts.object, describe=f"{what}, of which one part was taken out, is the other")


@pytest.mark.parametrize("how", ["binding", "role", "rule", "subject"])
def test_revocation(namespace: Namespace, credentials: Credentials, timeouts: Timeouts, how: str) -> None:
    """A right that is taken away MUST be refused from then on, however it was taken; the time it takes is reported.

    By deleting the binding or the role, or by taking the rule out of the role or the subject out of the binding.

    Source: https://kubernetes.io/docs/reference/access-authn-authz/rbac/
    """
    client, subject = _somebody(ACCOUNT, namespace, credentials)
    path, rules = kinds.CONFIG_MAP.path(namespace.name), [manifests.rbac_rule(["list"], ["configmaps"])]
    role, binding = grant(namespace, rules, [subject])
    whose = f"what {client.user} is answered to a list of ConfigMaps"
    eventually(
        lambda: client.request("GET", path).status,
        conditions.equals(200),
        within=timeouts.propagation,
        describe=f"{whose} becomes 200",
    )

    started = monotonic()
    _take_away(how, role, binding)
    eventually(
        lambda: client.request("GET", path).status,
        conditions.equals(403),
        within=timeouts.propagation,
        describe=f"{whose}, a right that was taken away, becomes 403",
    )
    measure("time to revoke (s)", monotonic() - started)

    again = [client.request("GET", path).status for _ in range(20)]
    assert set(again) == {403}, (
        f"{client.user} lost the right to list ConfigMaps of {namespace}, but is answered {again}"
    )


def test_escalation(namespace: Namespace, credentials: Credentials, timeouts: Timeouts) -> None:
    """Whoever may write roles and bindings MUST NOT grant more than they hold, unless they may escalate or bind.

    Source: https://kubernetes.io/docs/reference/access-authn-authz/rbac/#privilege-escalation-prevention-and-bootstrapping
    """
    client, subject = _somebody(ACCOUNT, namespace, credentials)
    mine, theirs = namespace, namespace.as_(client)
    writing = manifests.rbac_rule(
        ["create", "get", "update", "patch"], ["roles", "rolebindings"], groups=[manifests.RBAC]
    )
    reading = manifests.rbac_rule(["get"], ["secrets"])
    own, _ = grant(mine, [writing], [subject])
    _until_made(theirs, manifests.role("harmless", [writing]), timeouts)
    harmless = theirs.get(kinds.ROLE, "harmless")

    with refused(f"{client.user}, who may not read secrets, making a role that reads them") as refusal:
        theirs.create(manifests.role("reader", [reading]))
    assert "not currently held" in refusal.message, f"the refusal does not say why: {refusal.message}"
    for role in (harmless, theirs.get(kinds.ROLE, own.name)):
        with refused(f"{client.user}, who may not read secrets, adding that to {role}"):
            role.patch({"rules": [writing, reading]})
    for name in ("cluster-admin", "view"):
        with refused(f"{client.user} binding {name}, which grants more than they hold,"):
            bind(theirs, name, [subject], name=name)

    more = [manifests.rbac_rule(["escalate"], ["roles"], groups=[manifests.RBAC])]
    more += [manifests.rbac_rule(["bind"], ["clusterroles"], groups=[manifests.RBAC], names=["view"])]
    grant(mine, more, [subject], role="ClusterRole", name="more")
    _until_made(theirs, manifests.role("reader", [reading]), timeouts)
    bind(theirs, "view", [subject], name="view")
    with refused(f"{client.user}, who may bind only view, binding cluster-admin"):
        bind(theirs, "cluster-admin", [subject], name="cluster-admin")


def test_impersonation(namespace: Namespace, credentials: Credentials, timeouts: Timeouts) -> None:
    """Somebody MUST be taken for another only where they may impersonate just that user or group.

    Source: https://kubernetes.io/docs/reference/access-authn-authz/user-impersonation/
    """
    client, subject = _somebody(ACCOUNT, namespace, credentials)
    friend, kind = f"{namespace}-friend", {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}

    def act_as(user: str, *groups: str) -> Response:
        headers = {"Impersonate-User": user, **({"Impersonate-Group": groups[0]} if groups else {})}
        return client.request("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", body=kind, headers=headers)

    early = act_as(friend)
    assert early.status == 403, f"{client.user} may impersonate nobody, but is answered {early.status} {early.text}"
    rule = manifests.rbac_rule(["impersonate"], ["users"], names=[friend])
    grant(namespace, [rule], [subject], role="ClusterRole", binding="ClusterRoleBinding")
    let_in = eventually(
        lambda: act_as(friend), _accepted, within=timeouts.propagation, describe=f"{client.user} acts as {friend}"
    )
    taken_for = let_in.json()["status"]["userInfo"]

    assert taken_for["username"] == friend, f"acting as {friend}, {client.user} is taken for {taken_for}"
    for user, *groups in (["admin"], ["system:admin"], [friend, "system:masters"]):
        answer = act_as(user, *groups)
        assert answer.status == 403, f"{client.user} may impersonate only {friend}, but is let in as {user} {groups}"


WORK = (kinds.DEPLOYMENT, kinds.SERVICE, kinds.CRON_JOB)
"""Kinds of three API groups that an application is made of."""
DEFAULTS: Mapping[str, tuple[list[Cell], list[Cell]]] = {
    "view": (
        [*product(("get", "list", "watch"), (kinds.CONFIG_MAP, kinds.POD, *WORK))],
        [
            *product(("get", "list", "watch"), (kinds.SECRET, kinds.ROLE, kinds.ROLE_BINDING)),
            *product(("create", "update", "patch", "delete", "deletecollection"), (kinds.CONFIG_MAP, kinds.CRON_JOB)),
        ],
    ),
    "edit": (
        [*product(VERBS, (kinds.CONFIG_MAP, kinds.SECRET, *WORK))],
        [
            *product(VERBS, (kinds.ROLE, kinds.ROLE_BINDING)),
            ("create", kinds.RESOURCE_QUOTA),
            ("patch", kinds.NAMESPACE),
        ],
    ),
    "admin": (
        [*product(VERBS, (kinds.CONFIG_MAP, kinds.SECRET, *WORK, kinds.ROLE, kinds.ROLE_BINDING))],
        [
            *product(("create", "update", "patch", "delete"), (kinds.RESOURCE_QUOTA, kinds.NAMESPACE)),
            ("list", kinds.NODE),
        ],
    ),
    "cluster-admin": (
        [
            *product(VERBS, (kinds.CONFIG_MAP, kinds.SECRET, kinds.ROLE, kinds.RESOURCE_QUOTA)),
            ("patch", kinds.NAMESPACE),
        ],
        [("list", kinds.NODE), ("create", kinds.NAMESPACE), ("create", kinds.CLUSTER_ROLE)],
    ),
}
"""What each default ClusterRole, bound in a namespace, allows there, and what it does not."""


@pytest.mark.smoke
@pytest.mark.parametrize("role", DEFAULTS)
def test_defaults(namespace: Namespace, credentials: Credentials, timeouts: Timeouts, role: str) -> None:
    """The default ClusterRoles MUST exist and, bound in a namespace, allow there what they are documented to.

    `view` reads but no secrets, `edit` writes but no roles, `admin` no quota and not the namespace itself.

    Source: https://kubernetes.io/docs/reference/access-authn-authz/rbac/#user-facing-roles
    """
    allowed, forbidden = DEFAULTS[role]
    seeds = _sow(namespace)
    client, subject = _somebody(ACCOUNT, namespace, credentials)

    bind(namespace, role, [subject])
    _until_allowed(client, lambda: _lacking(client, namespace, allowed, seeds), timeouts)

    surplus = _surplus(client, namespace, allowed, forbidden, seeds)
    assert not surplus, f"{role} MUST NOT allow this in {namespace}, but {client.user} is answered {surplus}"
    changes = [rule for rule in told_rules(client, namespace.name) if _lets_change(rule)] if role == "view" else []
    assert not changes, f"{role} MUST NOT allow to change anything in {namespace}, but {client.user} may {changes}"


@pytest.mark.smoke
def test_unbound(namespace: Namespace, credentials: Credentials, timeouts: Timeouts) -> None:
    """Whoever is known but was granted nothing MUST be refused all but discovery, health and reviews of themselves.

    Source: https://kubernetes.io/docs/reference/access-authn-authz/rbac/#discovery-roles
    """
    seeds = _sow(namespace)
    strangers = [_somebody(who, namespace, credentials)[0] for who in (USER, ACCOUNT)]
    everywhere = Namespace("", namespace.cluster, namespace.client)

    for client in strangers:
        answers = {_text(cell): _try(client, namespace, cell, seeds) for cell in CELLS}
        for cell in product(("list", "watch"), (*GRANTED, *UNBOUND)):
            answers[f"{_text(cell)} everywhere"] = _try(client, everywhere, cell, seeds)
        answers |= {path: client.request("GET", path).status for path in ("/metrics", "/livez/ping", "/logs/")}
        surplus = {what: status for what, status in answers.items() if status != 403}
        assert not surplus, f"{client.user} was granted nothing, but is answered {surplus}"
        told = {
            path: eventually(
                partial(client.request, "GET", path), conditions.no_failure, within=timeouts.propagation
            ).status
            for path in ("/api", "/apis", "/version", "/livez", "/openapi/v3")
        }
        assert set(told.values()) == {200}, (
            f"discovery and health are for everybody known, but {client.user} got {told}"
        )
        assert not review(client, "get", kinds.SECRET, namespace.name), f"a review lets {client.user} read secrets"
        rules = [rule for rule in told_rules(client, namespace.name) if _is_of_the_core(rule)]
        assert not rules, f"{client.user} was granted nothing, but is told by a review of their rules: {rules}"


@pytest.mark.smoke
def test_broad_grants(cluster: Cluster) -> None:
    """No binding MUST let anybody without credentials see into the cluster or change it, or everybody take it over.

    By reading secrets, writing pods, commands in them, kubelets, or in another's name; or by writing volumes, which
    may be parts of nodes, namespaces' labels, what is admitted, or approvals of certificates. Nor a service account
    called default, which every pod has by default, or all accounts of a namespace, all over the cluster; where they
    may not read all configuration either.

    Source: https://kubernetes.io/docs/concepts/security/rbac-good-practices/
    """
    rules = {("ClusterRole", "", each.name): each.raw.get("rules") or [] for each in cluster.list(kinds.CLUSTER_ROLE)}
    rules |= {("Role", each.namespace, each.name): each.raw.get("rules") or [] for each in cluster.list(kinds.ROLE)}
    assert ("ClusterRole", "", "cluster-admin") in rules, f"there is no ClusterRole cluster-admin, only {sorted(rules)}"

    broad = []
    for binding in cluster.list(kinds.CLUSTER_ROLE_BINDING) + cluster.list(kinds.ROLE_BINDING):
        ref = binding["roleRef"]
        granted = rules.get((ref["kind"], binding.namespace if ref["kind"] == "Role" else "", ref["name"]), [])
        for who in binding.raw.get("subjects") or []:
            broad += [f"{binding} grants {who['name']} {rule}" for rule in granted if _is_too_much(binding, who, rule)]
    assert not broad, f"granted to everybody: {'; '.join(broad)}"


STRANGERS = ("system:anonymous", "system:unauthenticated")
EVERYBODY = (*STRANGERS, "system:authenticated", "system:serviceaccounts")
REVIEWS = {"authorization.k8s.io", "authentication.k8s.io"}
"""To ask what one may do, or who one is, is a write in form only."""
COMMANDS_TAKE_CREATE = 35
"""Minor version of the first API server that asks for it, however a command is sent."""
READING = {"get", "list", "watch"}
OWN = {"", "*", "apps", "autoscaling", "batch", "networking.k8s.io", "policy", manifests.RBAC}
"""API groups of the objects that `view` is about."""
ANOTHER = {"impersonate", "escalate", "bind"}
"""Verbs by which somebody gets the rights of another."""
IDENTITIES = {"users", "groups", "serviceaccounts"}
ENTRANCES = {"pods/exec", "pods/attach", "nodes/proxy", "serviceaccounts/token"}
"""Whoever has them can be what runs in a pod, whatever the verb: also reading takes commands to it."""
LEVERS = {
    *("persistentvolumes", "mutatingwebhookconfigurations", "validatingwebhookconfigurations"),
    *("mutatingadmissionpolicies", "validatingadmissionpolicies", "certificatesigningrequests/approval"),
}
"""Whoever writes them gets into nodes, into what others write, or at any certificate."""
CORE = IDENTITIES | {
    *("*", "pods", "services", "secrets", "configmaps", "nodes", "namespaces", "endpoints", "events"),
    *("persistentvolumes", "persistentvolumeclaims", "replicationcontrollers", "resourcequotas", "limitranges"),
}
"""Resources without API group; vendors have others there, besides their own group."""


def _somebody(
    who: str, namespace: Namespace, credentials: Credentials, name: str = "somebody"
) -> tuple[Client, Subject]:
    """Somebody with real credentials, and who a binding has to name for them."""
    unique = f"{namespace}-{name}"
    if who == ACCOUNT:
        client = credentials.token(namespace.create(manifests.service_account(name)))
        return client, manifests.subject("ServiceAccount", name, namespace.name)
    if who == GROUP:
        return credentials.certificate(unique, [f"{unique}-group"]), manifests.subject("Group", f"{unique}-group")
    return credentials.certificate(unique), manifests.subject("User", unique)


def _sow(namespace: Namespace) -> dict[Kind, dict[str, Any]]:
    """One object for each kind that rights are tried on: those that are granted exist."""
    made = {
        kinds.CONFIG_MAP: manifests.config_map("seed"),
        kinds.SECRET: manifests.secret("seed"),
        kinds.SERVICE_ACCOUNT: manifests.service_account("seed"),
        kinds.CRON_JOB: manifests.cron_job("seed", "image", schedule="0 0 29 2 *"),
        kinds.LEASE: manifests.custom_object(kinds.LEASE, "seed"),
    }
    named = {
        kinds.POD: manifests.pod("seed", "image"),
        kinds.SERVICE: manifests.service("seed"),
        kinds.DEPLOYMENT: manifests.custom_object(kinds.DEPLOYMENT, "seed"),
        kinds.ROLE: manifests.role("seed", []),
        kinds.ROLE_BINDING: manifests.role_binding("seed", "view", [], role_kind="ClusterRole"),
        kinds.RESOURCE_QUOTA: manifests.custom_object(kinds.RESOURCE_QUOTA, "seed"),
        kinds.NAMESPACE: manifests.custom_object(kinds.NAMESPACE, namespace.name),
        kinds.CLUSTER_ROLE: manifests.cluster_role(f"{namespace}-seed", []),
        kinds.NODE: manifests.custom_object(kinds.NODE, f"{namespace}-seed"),
        kinds.PERSISTENT_VOLUME: manifests.custom_object(kinds.PERSISTENT_VOLUME, f"{namespace}-seed"),
    }
    return {kind: namespace.create(manifest).raw for kind, manifest in made.items()} | named


def _try(client: Client, namespace: Namespace, cell: Cell, seeds: Mapping[Kind, dict[str, Any]]) -> int:
    verb, kind = cell
    return attempt(client, verb, kind, namespace.name, seeds[kind])


def _lacking(
    client: Client, namespace: Namespace, cells: Iterable[Cell], seeds: Mapping[Kind, dict[str, Any]]
) -> dict[str, int]:
    """What somebody is not allowed of this, with the status that says so."""
    answers = {_text(cell): _try(client, namespace, cell, seeds) for cell in cells}
    # What is allowed may still fail, of an object that only has a name.
    return {what: status for what, status in answers.items() if status in (401, 403) or status >= 500}


def _surplus(
    client: Client,
    namespace: Namespace,
    granted: Iterable[Cell],
    others: Iterable[Cell],
    seeds: Mapping[Kind, dict[str, Any]],
) -> dict[str, int]:
    """What somebody is not refused though it was not granted, with the status; all that is tried is in the report."""
    mine = {_text(cell): _try(client, namespace, cell, seeds) for cell in granted}
    answers = {_text(cell): _try(client, namespace, cell, seeds) for cell in others}
    note(client.user, mine, mine | answers)
    return {what: status for what, status in answers.items() if status != 403}


def _until_made(namespace: Namespace, role: dict[str, Any], timeouts: Timeouts) -> None:
    """Wait until somebody may make a role, and make it."""
    what = f"{namespace.client.user} makes the role {role['metadata']['name']}"
    eventually(lambda: namespace.create(role), _done, within=timeouts.propagation, describe=what)


def _take_away(how: str, role: Object, binding: Object) -> None:
    """Take away what a role and its binding grant."""
    match how:
        case "binding":
            binding.delete()
        case "role":
            role.delete()
        case "rule":
            role.patch({"rules": [manifests.rbac_rule(["get"], ["configmaps"])]})
        case "subject":
            binding.patch({"subjects": []})


def _until_allowed(client: Client, lacking: Callable[[], Any], timeouts: Timeouts) -> None:
    """Wait until nothing is lacking of what was granted: the authorizer learns of it by a watch."""
    __tracebackhide__ = True
    eventually(lacking, _nothing, within=timeouts.propagation, describe=f"what was granted to {client.user} is allowed")


def _nothing(lacking: Any) -> str | None:
    """Everything that was granted is allowed."""
    return f"not allowed, though granted: {lacking}" if lacking else None


def _text(cell: Cell) -> str:
    return f"{cell[0]} {cell[1].plural}"


def _only(item: Object) -> dict[str, str]:
    return {"fieldSelector": f"metadata.name={item.name}"}


def _part(method: str, item: Object, part: str) -> str:
    return f"{method} {item.kind.plural}{'/' + part if part else ''}"


def _forbidden(client: Client, requests: Iterable[tuple[str, Object, str]]) -> list[str]:
    """Which of these requests on objects and their parts are refused; what is allowed may be answered with 404."""
    found = []
    for method, item, part in requests:
        path = item.kind.path(item.namespace, item.name, part)
        query = {"command": "id"} if part == "exec" else {} if method == "GET" else {"dryRun": "All"}
        body: Subject | None = None if method == "GET" else {}
        answer = client.request(method, path, body=body, content_type=PATCH_TYPES["merge"], query=query, accept="*/*")
        if answer.status == 403:
            found.append(_part(method, item, part))
    return found


def _done(made: Object) -> str | None:
    """It was accepted."""
    return None


def _accepted(answer: Response) -> str | None:
    """It was accepted."""
    return None if answer.status == 201 else f"it was answered with {answer.status} {answer.text}"


def _is_of_the_core(rule: Mapping[str, Any]) -> bool:
    """Whether a rule is about objects that every cluster has; a single one with a name may be for everybody."""
    resources = {each.partition("/")[0] for each in rule.get("resources") or []}
    in_the_core = {"", "*"} & set(rule.get("apiGroups") or [])
    return bool(in_the_core and resources & CORE and not rule.get("resourceNames"))


def _lets_change(rule: Mapping[str, Any]) -> bool:
    """Whether more than reading objects of Kubernetes itself is allowed by a rule."""
    resources = _touched(rule) if OWN & set(rule.get("apiGroups") or []) else set()
    return bool(resources) and (not set(rule["verbs"]) <= READING or bool(resources & ENTRANCES))


def _minor(client: Client) -> int:
    """37 of an API server 1.37, or of one that keeps to what 1.37 did."""
    told = client.get("/version")
    return int(str(told.get("emulationMinor") or told["minor"]).rstrip("+"))


def _is_too_much(binding: Object, who: Subject, rule: Mapping[str, Any]) -> bool:
    """Whether somebody who stands for many is granted secrets, everything, or what leads to that."""
    resources, verbs = _touched(rule), set(rule.get("verbs") or [])
    everywhere, name = not binding.namespace, who["name"]
    writes, everything = not verbs <= READING, bool(resources & {"*", "secrets"})
    if not resources:
        return "*" in (rule.get("nonResourceURLs") or []) and name in EVERYBODY
    if name in STRANGERS:
        # A single object that may be read in one namespace is how machines find a cluster that they are to join.
        published = not everywhere and (rule.get("resourceNames") or binding.namespace == "kube-public")
        return writes or everything or not published
    another = bool(verbs & ANOTHER) or ("*" in verbs and bool(resources & IDENTITIES))
    enters = bool(resources & ENTRANCES) or (writes and bool(resources & ({"pods"} | LEVERS)))
    # To make one of their own is given to everybody on some clusters; its labels say what its pods may do.
    enters |= "namespaces" in resources and not verbs <= READING | {"create"}
    reads_all = everywhere and "configmaps" in resources and not rule.get("resourceNames")
    # What may be done in kube-system leads to everything else.
    return (everything or reads_all or another or enters) and _is_many(
        who, everywhere=everywhere or binding.namespace == "kube-system"
    )


def _is_many(who: Subject, *, everywhere: bool) -> bool:
    """Whether a subject is everybody, or, in a binding that counts for others' pods, what pods are by default."""
    name = who["name"]
    if who["kind"] == "ServiceAccount":
        return everywhere and name == "default"
    by_default = name.startswith("system:serviceaccount:") and name.endswith(":default")
    return name in EVERYBODY or (everywhere and (by_default or name.startswith("system:serviceaccounts:")))


def _touched(rule: Mapping[str, Any]) -> set[str]:
    """Resources of Kubernetes that a rule is about, except for what is only asked."""
    groups, resources = set(rule.get("apiGroups") or []) - REVIEWS, set(rule.get("resources") or [])
    if any(group and ("." not in group or group.endswith(".k8s.io")) for group in groups):
        return resources
    return {each for each in resources if each.partition("/")[0] in CORE} if "" in groups else set()
