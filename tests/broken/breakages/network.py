"""The network: routes, packets, Services, names."""

from __future__ import annotations

from ..registry import Damage, breakage
from ..subject import Subject


@breakage(
    breaks={
        "network/service/cluster_ip": r"-node-2 is answered",
        "network/service/endpoint_removal": r"-node-2 is answered",
    },
    keeps=["network/pod_to_pod", "api/namespaces/isolation"],
)
def kube_proxy_stopped(subject: Subject) -> Damage:
    """On one node kube-proxy does not run: what it had set up stays, what is new never comes."""
    with subject.stopped(f"{subject.nodes[1]}/kube-proxy"):
        yield []


@breakage(
    breaks={"network/pod_to_pod": r"-node-1 exchanges data with every other pod.* on \S+-node-2"},
    keeps=["api/namespaces/isolation", "apps/statefulset/parallel"],
)
def route_missing(subject: Subject) -> Damage:
    """One node has no route to the pods of another."""
    pods = subject.state.nodes[1].pods
    via = f"{pods} via {subject.state.nodes[1].address}"
    with subject.commanded(subject.nodes[0], f"ip route replace blackhole {pods}", f"ip route replace {via}"):
        yield []


@breakage(
    breaks={"network/pod_to_pod": r"exchanges data with every other pod.*(full packet|bulk)"},
    keeps=["api/namespaces/isolation", "apps/statefulset/parallel"],
)
def large_packets_lost(subject: Subject) -> Damage:
    """A link between two nodes swallows packets larger than 1400 bytes, and tells nobody."""
    rule = "FORWARD -i eth0 -m length --length 1401:65535 -j DROP"
    with subject.commanded(subject.nodes[0], f"iptables -w -I {rule}", f"iptables -w -D {rule}"):
        yield []


@breakage(
    breaks={"network/service/cluster_ip": r"never \S+ \(itself\)"},
    keeps=["network/pod_to_pod"],
)
def hairpin_off(subject: Subject) -> Damage:
    """On one node pods cannot reach themselves through their own Service."""
    pods = subject.state.nodes[0].pods
    rule = f"POSTROUTING -s {pods} -d {pods} -m conntrack --ctstate DNAT -j ACCEPT"
    with subject.commanded(subject.nodes[0], f"iptables -w -t nat -I {rule}", f"iptables -w -t nat -D {rule}"):
        yield []


@breakage(
    breaks={"network/pod_to_pod": r"source should be"},
    keeps=["network/service/cluster_ip"],
)
def pods_masqueraded(subject: Subject) -> Damage:
    """What pods of one node send to those of another seems to come from the node."""
    rule = f"POSTROUTING -s {subject.state.nodes[0].pods} -o eth0 -j MASQUERADE"
    with subject.commanded(subject.nodes[0], f"iptables -w -t nat -A {rule}", f"iptables -w -t nat -D {rule}"):
        yield []


@breakage(
    breaks={"network/service/cluster_ip": r"udp"},
    keeps=["apps/statefulset/parallel"],
)
def udp_lost(subject: Subject) -> Damage:
    """One node passes on no UDP but look-ups of names."""
    rule = "FORWARD -p udp ! --dport 53 ! --sport 53 -j DROP"
    with subject.commanded(subject.nodes[0], f"iptables -w -I {rule}", f"iptables -w -D {rule}"):
        yield []


@breakage(
    breaks={"network/service/discovery": r"finds by DNS"},
    keeps=["network/service/cluster_ip"],
)
def dns_stopped(subject: Subject) -> Damage:
    """The DNS Service has no pods."""
    with subject.scaled("coredns", 0):
        yield []
