"""NetworkPolicies: what keeps packets from pods, and what it makes of each part of a policy."""

from __future__ import annotations

from typing import Any

from clusterproof import kinds

from ..registry import Damage, breakage
from ..subject import SYSTEM, Subject

ENFORCER = "kube-network-policies"
KEPT = "network/service/cluster_ip"


@breakage(
    breaks={
        "network/policy/default_deny": r"let through: not within .*client-\d to server-\d:8080 is;",
        "network/policy/from": r"let through: not within .*stranger to server:8080 is;",
        "network/policy/egress": r"let through: not within .*client to other:8080 is;",
        "network/policy/ip_block": r"let through: not within .*stranger to server:8080 is;",
        "network/policy/ports": r"let through: not within .*client to server:8080 is;",
        "network/policy/several": r"let through: not within .*stranger to server:8080 is;",
        "network/policy/service": r"let through: not within .*stranger to server:8080 is;",
        "network/policy/labels": r"let through: not within .*client to server:8080 is;",
    },
    keeps=[KEPT],
)
def policy_engine_missing(subject: Subject) -> Damage:
    """The cluster claims to enforce NetworkPolicies, and nobody does."""
    yield from _enforced_only_on(subject, "nowhere")


@breakage(
    breaks={"network/policy/default_deny": r"let through: not within .*client-1 to server-1:8080 is;"},
    keeps=[KEPT],
)
def policy_engine_missing_on_a_node(subject: Subject) -> Damage:
    """On one node nobody enforces NetworkPolicies."""
    yield from _enforced_only_on(subject, subject.nodes[0])


def _enforced_only_on(subject: Subject, node: str) -> Damage:
    def choose(workload: dict[str, Any]) -> None:
        workload["spec"]["template"]["spec"]["nodeSelector"] = {"kubernetes.io/hostname": node}

    with subject.reconfigured(kinds.DAEMON_SET, ENFORCER, SYSTEM, choose):
        yield []


@breakage(
    breaks={"network/policy/default_deny": r"Pod \S+/server-late ready: not within"},
    keeps=[KEPT],
)
def policies_keep_kubelets_out(subject: Subject) -> Damage:
    """What a policy does not let through is lost even when a node sends it to its own pods."""
    packets = f"POSTROUTING -d {subject.state.nodes[0].pods} -m addrtype --src-type LOCAL -m conntrack --ctstate NEW"
    with _rule(subject, f"{packets} -j NFQUEUE --queue-num 98 --queue-bypass"):
        yield []


@breakage(
    breaks={"network/policy/ports": r"let through: not within .*client to server:8081 is;"},
    keeps=["network/policy/from"],
)
def policies_ignore_udp(subject: Subject) -> Damage:
    """Policies are enforced for TCP only."""
    with _rule(subject, "POSTROUTING -p udp -j ACCEPT"):
        yield []


def _rule(subject: Subject, rule: str) -> Any:
    return subject.commanded(subject.nodes[0], f"iptables -w -t mangle -I {rule}", f"iptables -w -t mangle -D {rule}")


def policy_rewritten(name: str, meaning: str, expression: str, *, breaks: dict[str, str]) -> None:
    """Register a breakage: something that a NetworkPolicy says is not done."""

    @breakage(name=name, meaning=meaning, breaks=breaks, keeps=["network/policy/default_deny"])
    def rewrite(subject: Subject) -> Damage:
        with subject.mutating("networking.k8s.io/v1/networkpolicies", expression, patch="JSONPatch"):
            yield []


def _of_rules(condition: str, changes: str) -> str:
    """CEL: these changes of the first rule for packets that come in, where the condition holds for it."""
    given = "has(object.spec.ingress) && object.spec.ingress.size() > 0"
    return f"{given} && {condition} ? [{changes}] : []"


_RULE = "object.spec.ingress[0]"
_PATH = "/spec/ingress/0"

policy_rewritten(
    "policy_ports_ignored",
    "Policies let through to all ports, whichever they name.",
    _of_rules(f"has({_RULE}.ports)", f'JSONPatch{{op: "remove", path: "{_PATH}/ports"}}'),
    breaks={
        "network/policy/from": r"let through: not within .*friend to server:8090 is;",
        "network/policy/ports": r"let through: not within .*client to server:8080 is;",
    },
)
policy_rewritten(
    "policy_port_ranges_ignored",
    "Policies let through to the first port of a range only.",
    _of_rules(
        f"has({_RULE}.ports) && has({_RULE}.ports[0].endPort)",
        f'JSONPatch{{op: "remove", path: "{_PATH}/ports/0/endPort"}}',
    ),
    breaks={"network/policy/ports": r"let through: not within .*client to server:8090 is not \("},
)
policy_rewritten(
    "policy_exceptions_ignored",
    "Policies let through all of a block of addresses, whatever they except.",
    _of_rules(
        f"has({_RULE}.from) && has({_RULE}.from[0].ipBlock) && has({_RULE}.from[0].ipBlock.except)",
        f'JSONPatch{{op: "remove", path: "{_PATH}/from/0/ipBlock/except"}}',
    ),
    breaks={"network/policy/ip_block": r"let through: not within .*stranger to server:8080 is;"},
)
policy_rewritten(
    "policy_blocks_are_everybody",
    "Policies that name a block of addresses let through every address, less those that they except.",
    _of_rules(
        f"has({_RULE}.from) && has({_RULE}.from[0].ipBlock)",
        f'JSONPatch{{op: "replace", path: "{_PATH}/from/0/ipBlock/cidr", value: "0.0.0.0/0"}}',
    ),
    breaks={"network/policy/ip_block": r"let through: not within .*server to stranger:8080 is;"},
)
policy_rewritten(
    "policy_expressions_ignored",
    "Policies let through pods with any labels where they name them by an expression.",
    _of_rules(
        f"has({_RULE}.from) && has({_RULE}.from[0].podSelector) && has({_RULE}.from[0].podSelector.matchExpressions)",
        f'JSONPatch{{op: "remove", path: "{_PATH}/from/0/podSelector/matchExpressions"}}',
    ),
    breaks={"network/policy/from": r"let through: not within .*stranger to server:8080 is;"},
)
policy_rewritten(
    "policy_namespaces_ignored",
    "Policies let through pods with the right labels of every namespace, whichever they name.",
    _of_rules(
        f"has({_RULE}.from)",
        f'JSONPatch{{op: "add", path: "{_PATH}/from/0/namespaceSelector", value: {{}}}}',
    ),
    breaks={"network/policy/from": r"let through: not within .*friend-elsewhere to server:8080 is;"},
)
policy_rewritten(
    "egress_policies_ignored",
    "Policies hold for what comes in, and not for what goes out.",
    'object.spec.policyTypes == ["Egress"] ? ['
    'JSONPatch{op: "replace", path: "/spec/podSelector", value: {"matchLabels": {"selects": "nothing"}}}] : []',
    breaks={"network/policy/egress": r"let through: not within .*client to other:8080 is;"},
)
policy_rewritten(
    "egress_policies_close_both_ways",
    "Policies for what goes out keep everybody from the pods that they select, too.",
    'object.spec.policyTypes == ["Egress"] ? ['
    'JSONPatch{op: "replace", path: "/spec/policyTypes", value: ["Egress", "Ingress"]}] : []',
    breaks={"network/policy/egress": r"let through: not within .*other to client:8080 is not \("},
)
policy_rewritten(
    "one_policy_for_a_pod",
    "Of several policies for the same pods one counts; here it is never the one for guests.",
    'object.metadata.name == "for-guest" ? ['
    'JSONPatch{op: "replace", path: "/spec/podSelector", value: {"matchLabels": {"selects": "nothing"}}}] : []',
    breaks={"network/policy/several": r"let through: not within .*guest to server:8080 is not \("},
)


@breakage(
    breaks={"network/policy/default_deny": r"let through: not within .*client-\d to server-\d:8080 is not \("},
    keeps=["network/policy/from"],
)
def policies_never_change(subject: Subject) -> Damage:
    """Policies stay as they were first, however they are changed."""
    kept = 'oldObject != null ? [JSONPatch{op: "replace", path: "/spec", value: oldObject.spec}] : []'
    with subject.mutating("networking.k8s.io/v1/networkpolicies", kept, patch="JSONPatch"):
        yield []


@breakage(
    breaks={"network/policy/labels": r"let through: not within .*client to server:8080 is not \("},
    keeps=["network/policy/from"],
)
def policies_see_first_labels(subject: Subject) -> Damage:
    """Policies go by the labels that pods had first."""
    kept = 'JSONPatch{op: "replace", path: "/metadata/labels", value: oldObject.metadata.labels}'
    with subject.mutating(
        "v1/pods", f"oldObject != null && has(oldObject.metadata.labels) ? [{kept}] : []", patch="JSONPatch"
    ):
        yield []


@breakage(
    breaks={"network/policy/service": r"let through: not within .*stranger to server:8080 is;"},
    keeps=["network/policy/from"],
)
def policies_passed_by_services(subject: Subject) -> Damage:
    """Policies do not hold for what comes through a Service."""
    with _rule(subject, "POSTROUTING -m conntrack --ctstate DNAT -j ACCEPT"):
        yield []
