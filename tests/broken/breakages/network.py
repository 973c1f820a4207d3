"""The network: routes, packets, Services, names."""

from __future__ import annotations

import contextlib
import json
import re
import socketserver
import threading
from collections.abc import Iterator
from typing import Any

from clusterproof import kinds

from ..registry import Damage, breakage
from ..subject import SYSTEM, Subject, forgotten
from .apis import rewritten_on_the_way


@breakage(
    breaks={
        "network/service/cluster_ip": r"-node-2 is answered",
        "network/service/endpoint_removal": r"-node-2 is answered",
        "network/service/node_port": r"should give server, but gave never server",
    },
    keeps=["network/pod_to_pod", "api/namespaces/isolation"],
)
def kube_proxy_stopped(subject: Subject) -> Damage:
    """On one node kube-proxy does not run: what it had set up stays, what is new never comes."""
    with subject.stopped(f"{subject.nodes[1]}/kube-proxy"):
        yield []


@breakage(
    breaks={
        "network/service/udp_client": r"client on \S+-node-2, which keeps its port, is answered .*not within .*web-0"
    },
    keeps=["network/service/endpoint_removal"],
)
def lost_pods_remembered(subject: Subject) -> Damage:
    """On one node the kernel is never told to forget which pod has answered a client by UDP."""
    # kube-proxy may not do so itself, but its tools may still write rules: they have the right by their files.
    few = "-all,+dac_override,+net_raw"
    rights = f"setpriv --securebits +noroot --inh-caps {few} --ambient-caps {few}"
    tools = "/var/lib/kube-proxy/tools"
    script = (
        f'mkdir {tools} && cp "$(readlink -f "$(command -v iptables)")" {tools}/xtables && '
        f"setcap cap_net_admin,cap_net_raw+ep {tools}/xtables && "
        f"for tool in iptables ip6tables; do for what in '' -save -restore; do ln -s xtables {tools}/$tool$what; done; "
        f'done && export PATH={tools}:$PATH && exec {rights} -- "$@"'
    )
    try:
        with subject.prepared(f"{subject.nodes[1]}/kube-proxy", script):
            yield []
    finally:
        subject.run_on(subject.nodes[1], f"rm -rf {tools}")


def _routed(subject: Subject, place: str, kind: str) -> contextlib.AbstractContextManager[None]:
    """A place whose route to the pods of the second node is of another kind, and leads nowhere."""
    node = subject.state.nodes[1]
    away, back = f"ip route replace {kind} {node.pods}", f"ip route replace {node.pods} via {node.address}"
    return subject.commanded(place, away, back)


@breakage(
    breaks={"network/pod_to_pod": r"-node-1 exchanges data with every other pod.* on \S+-node-2"},
    keeps=["api/namespaces/isolation", "apps/statefulset/parallel"],
)
def route_missing(subject: Subject) -> Damage:
    """One node has no route to the pods of another."""
    with _routed(subject, subject.nodes[0], "blackhole"):
        yield []


@breakage(
    breaks={"pods/interactive/proxy": r"Pod \S+/serves-1 on \S+-node-2: its proxy answers 5\d\d"},
    keeps=["network/pod_to_pod", "pods/interactive/exec"],
)
def pods_out_of_reach(subject: Subject) -> Damage:
    """The control plane has no route to the pods of one node."""
    with _routed(subject, "control-plane", "unreachable"):
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
    breaks={"network/service/node_port": r"should give server, but gave never server"},
    keeps=["network/service/cluster_ip"],
)
def node_ports_filtered(subject: Subject) -> Damage:
    """A packet filter on one node lets nothing through to the ports of Services."""
    rule = "PREROUTING -i eth0 -p tcp --syn --dport 30000:32767 -j DROP"
    with subject.commanded(subject.nodes[0], f"iptables -w -t raw -I {rule}", f"iptables -w -t raw -D {rule}"):
        yield []


@contextlib.contextmanager
def proxy_configured(subject: Subject, node: str, **changes: Any) -> Iterator[None]:
    """A node whose kube-proxy has another configuration."""
    folder = subject.state.node_folder(subject.state.node(node)) / "lib/kube-proxy"
    changed = folder / "changed.json"
    changed.write_text(json.dumps({**json.loads((folder / "config.json").read_text()), **changes}))
    try:
        with subject.flagged(f"{node}/kube-proxy", "config", f"/var/lib/kube-proxy/{changed.name}"):
            yield
    finally:
        changed.unlink()


@breakage(
    breaks={"network/service/cluster_ip": r"web-1 on \S+-node-2 is seen as \S+ by the pod of Service \S+: not within"},
    keeps=["network/pod_to_pod"],
)
def clients_of_services_masqueraded(subject: Subject) -> Damage:
    """What pods of one node send to Services seems to come from the node."""
    with proxy_configured(subject, subject.nodes[1], iptables={"masqueradeAll": True}):
        yield []


@breakage(
    breaks={"network/service/external_traffic_policy": r"is seen as"},
    keeps=["network/service/node_port"],
)
def outside_clients_masqueraded(subject: Subject) -> Damage:
    """What comes to the pods of one node from outside seems to come from the node."""
    rule = f"POSTROUTING ! -s {subject.state.pod_network} -d {subject.state.nodes[0].pods} -j MASQUERADE"
    with subject.commanded(subject.nodes[0], f"iptables -w -t nat -I {rule}", f"iptables -w -t nat -D {rule}"):
        yield []


@breakage(
    breaks={"network/service/discovery": r"finds by DNS: not within"},
    keeps=["network/service/cluster_ip"],
)
def dns_stopped(subject: Subject) -> Damage:
    """The DNS Service has no pods."""
    with subject.scaled("coredns", 0):
        yield []


@breakage(
    breaks={"network/service/cluster_ip": r"-node-2: 300 requests \S+ MUST not fail, but twice: \S*curl: \(7\)"},
    keeps=["network/pod_to_pod"],
)
def connections_refused_now_and_then(subject: Subject) -> Damage:
    """One in 100 connections from pods of one node is refused."""
    seldom = "-m statistic --mode nth --every 100 --packet 50"
    pods = f"FORWARD -s {subject.state.nodes[1].pods} -p tcp --syn --dport 9000"
    rule = f"{pods} {seldom} -j REJECT --reject-with tcp-reset"
    with subject.commanded(subject.nodes[1], f"iptables -w -I {rule}", f"iptables -w -D {rule}"):
        yield []


@breakage(
    breaks={"network/service/discovery": r"-node-2: 300 look-ups of web\.\S+ A MUST not fail, but twice: SERVFAIL"},
    keeps=["network/service/cluster_ip"],
)
def dns_fails_now_and_then(subject: Subject) -> Damage:
    """One in 100 look-ups of names from one node is answered with SERVFAIL."""

    class Failing(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            asked, socket = self.request
            # The same identity and question, as an answer of the code 2.
            socket.sendto(asked[:2] + b"\x81\x82" + asked[4:], self.client_address)

    with socketserver.UDPServer((str(subject.state.host_address), 0), Failing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        host, port = server.server_address[:2]
        seldom = "-m statistic --mode nth --every 100 --packet 50"
        pods = f"PREROUTING -s {subject.state.nodes[1].pods} -p udp --dport 53"
        rule = f"{pods} {seldom} -j DNAT --to-destination {host}:{port}"
        try:
            with subject.commanded(subject.nodes[1], f"iptables -w -t nat -I {rule}", f"iptables -w -t nat -D {rule}"):
                yield []
        finally:
            server.shutdown()


@contextlib.contextmanager
def corefile(subject: Subject, pattern: str, replacement: str) -> Iterator[None]:
    """DNS with another configuration."""

    def change(config_map: dict[str, Any]) -> None:
        before = config_map["data"]["Corefile"]
        config_map["data"]["Corefile"] = re.sub(pattern, replacement, before, count=1, flags=re.DOTALL)
        assert config_map["data"]["Corefile"] != before, f"there is no {pattern} in {before}"

    try:
        with subject.changed(kinds.CONFIG_MAP, "coredns", SYSTEM, change):
            subject.recreate_pods("coredns")
            yield
    finally:
        subject.recreate_pods("coredns")


@breakage(breaks={"network/service/discovery": r"finds by DNS: not within"}, keeps=["network/pod_to_pod"])
def dns_stale(subject: Subject) -> Damage:
    """DNS remembers the cluster's names for 300 s."""
    with corefile(subject, r"ttl 30(.*?)cache 30 \{.*?\n    \}", r"ttl 300\1cache 300"):
        yield []


@breakage(breaks={"network/service/discovery": r"peers\S* "}, keeps=["network/service/cluster_ip"])
def dns_without_headless(subject: Subject) -> Damage:
    """DNS knows no pods of headless Services."""
    lines = ["template IN ANY cluster.local {", "match ^peers[.]", "rcode NXDOMAIN", "fallthrough", "}", "kubernetes "]
    with corefile(subject, "kubernetes ", "\n".join(lines)):
        yield []


@breakage(
    breaks={"network/service/discovery": r"-node-1 finds by DNS: not within"}, keeps=["network/service/cluster_ip"]
)
def dns_unreachable_from_a_node(subject: Subject) -> Damage:
    """Look-ups of names from one node are lost."""
    rule = f"FORWARD -p udp --dport 53 -s {subject.state.nodes[0].pods} -j DROP"
    with subject.commanded(subject.nodes[0], f"iptables -w -I {rule}", f"iptables -w -D {rule}"):
        yield []


@contextlib.contextmanager
def outer_name_server(subject: Subject) -> Iterator[None]:
    """The nodes have a name server of their own, which knows one address for every name."""

    class Knowing(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            asked, socket = self.request
            end = asked.index(b"\0", 12) + 5
            question, kind = asked[12:end], asked[end - 4 : end]
            # A pointer to the name in the question, its kind, a minute to live, and the four bytes of the address.
            record = b"\xc0\x0c" + kind + b"\0\0\0\x3c\0\x04" + bytes((192, 0, 2, 1))
            answers = [record] if kind == b"\0\x01\0\x01" else []
            counts = bytes((0, 1, 0, len(answers), 0, 0, 0, 0))
            socket.sendto(asked[:2] + b"\x81\x80" + counts + question + b"".join(answers), self.client_address)

    host = str(subject.state.host_address)
    with socketserver.UDPServer((host, 53), Knowing) as server, contextlib.ExitStack() as stack:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        stack.callback(server.shutdown)
        for node in subject.nodes:
            file = subject.state.node_folder(subject.state.node(node)) / "lib/kubelet/outer-resolv.conf"
            file.write_text(f"nameserver {host}\n")
            stack.callback(file.unlink)
            stack.enter_context(subject.kubelet_config(node, resolvConf=f"/var/lib/kubelet/{file.name}"))
        yield


@breakage(
    breaks={
        "pods/host/outside_names": r"to Pod \S+/pod about kubernetes\.io\., which .* finds at 192\.0\.2\.1: "
        r"not within .*it is (SERVFAIL|REFUSED)"
    },
    keeps=["network/service/discovery"],
)
def dns_forwards_nothing(subject: Subject) -> Damage:
    """DNS asks nobody about names outside of the cluster, which the nodes look up without it."""
    with outer_name_server(subject), corefile(subject, r" +(forward|template ANY ANY) .*?\n    }\n", ""):
        yield []


def service_rewritten(
    name: str,
    meaning: str,
    expression: str,
    *,
    breaks: dict[str, str],
    keeps: str = "network/service/cluster_ip",
    patch: str = "",
) -> None:
    """Register a breakage: something that users ask for of a Service is not done."""

    @breakage(name=name, meaning=meaning, breaks=breaks, keeps=[keeps])
    def rewrite(subject: Subject) -> Damage:
        with subject.mutating("v1/services", expression, patch=patch or "ApplyConfiguration"):
            yield []


def _any_address(service: dict[str, Any]) -> None:
    if service["spec"].get("clusterIP") != "None":
        service["spec"].pop("clusterIP", None)


rewritten_on_the_way(
    "addresses_of_choice_ignored",
    "Services get any address, although they ask for a certain one.",
    "services",
    _any_address,
    breaks={"network/service_addresses/chosen": r"a second Service with \S+, .* MUST be refused with 422, but it was"},
    keeps=["network/service/cluster_ip"],
)
service_rewritten(
    "items_of_others_lost",
    "Who applies an item of a list takes one of somebody else's away.",
    "oldObject != null && size(object.spec.ports) == 3 && size(oldObject.spec.ports) == 2 ? "
    '[JSONPatch{op: "remove", path: "/spec/ports/0"}] : []',
    breaks={"api/apply_to_lists": r"bob applied the port 82 of Service \S+/web beside alice's .* it has \[81, 82\]"},
    patch="JSONPatch",
)
service_rewritten(
    "node_ports_for_all_load_balancers",
    "Every LoadBalancer has node ports, whether it needs them or not.",
    "has(object.spec.allocateLoadBalancerNodePorts) ? "
    '[JSONPatch{op: "replace", path: "/spec/allocateLoadBalancerNodePorts", value: true}] : []',
    breaks={"network/load_balancer/node_ports": r"Service \S+/without wants no node port, and has \[\d+\]"},
    patch="JSONPatch",
)
service_rewritten(
    "zones_ignored",
    "Services that prefer the client's zone prefer nobody.",
    'has(object.spec.trafficDistribution) && object.spec.trafficDistribution == "PreferSameZone" ? '
    '[JSONPatch{op: "remove", path: "/spec/trafficDistribution"}] : []',
    breaks={"network/service/traffic_distribution": r"hint at .*forZones.*: not within"},
    patch="JSONPatch",
)
service_rewritten(
    "spoken_protocols_forgotten",
    "Nobody tells what is spoken at a port.",
    forgotten("ports[0].appProtocol"),
    breaks={"network/endpoints/ports": r"EndpointSlice \S+ tells the ports .*8765, 'TCP', None"},
    patch="JSONPatch",
)
service_rewritten(
    "not_ready_pods_served",
    "Services send requests to pods that are not ready.",
    "Object{spec: Object.spec{publishNotReadyAddresses: true}}",
    breaks={
        "network/service/not_ready": r"a pod that is not ready answered",
        "scheduling/taints/drain_under_load": r"should serve while Node .* is drained: .* failed",
    },
)
service_rewritten(
    "not_ready_pods_named",
    "Headless Services name pods that are not ready.",
    'object.spec.?clusterIP == optional.of("None") && object.metadata.namespace != "kube-system" ? ['
    'JSONPatch{op: "add", path: "/spec/publishNotReadyAddresses", value: true}] : []',
    breaks={"network/service/not_ready": r"Service \S+/hidden has the address of a pod that is not ready"},
    patch="JSONPatch",
)
service_rewritten(
    "traffic_distribution_ignored",
    "Services that prefer pods of the client's own node send requests to all alike.",
    forgotten("trafficDistribution"),
    breaks={"network/service/traffic_distribution": r"hint at .*: not within .*they hint at .*'(one|two)': \[\]"},
    patch="JSONPatch",
)
service_rewritten(
    "session_affinity_ignored",
    "Services do not send a client to the same pod again.",
    "has(object.spec.sessionAffinityConfig) ? ["
    'JSONPatch{op: "replace", path: "/spec/sessionAffinity", value: "None"}, '
    'JSONPatch{op: "remove", path: "/spec/sessionAffinityConfig"}] : []',
    breaks={"network/service/session_affinity": r"requests of one go to one pod: not within"},
    patch="JSONPatch",
)
service_rewritten(
    "internal_traffic_policy_ignored",
    "Services for local traffic send requests to other nodes, too.",
    'Object{spec: Object.spec{internalTrafficPolicy: "Cluster"}}',
    breaks={"network/service/internal_traffic_policy": r"should give (one|two), but gave (one|two)"},
)
service_rewritten(
    "external_traffic_policy_ignored",
    "Nodes send requests from outside to other nodes' pods, although they are to go to their own only.",
    'object.spec.?externalTrafficPolicy == optional.of("Local") ? ['
    'JSONPatch{op: "replace", path: "/spec/externalTrafficPolicy", value: "Cluster"}] : []',
    breaks={
        "network/service/external_traffic_policy": r"should give near, but gave far|near: a client .* is seen as",
        "network/load_balancer/client_address": r"is seen as \S+, which is the cluster's own",
    },
    patch="JSONPatch",
)
service_rewritten(
    "source_ranges_ignored",
    "Load balancers let everybody in, whatever ranges a Service names.",
    "has(object.spec.loadBalancerSourceRanges) ? ["
    'JSONPatch{op: "remove", path: "/spec/loadBalancerSourceRanges"}] : []',
    breaks={"network/load_balancer/source_ranges": r"does not answer us at \S+: not within .*it is 'web', not ''"},
    patch="JSONPatch",
)
service_rewritten(
    "selectors_never_change",
    "Services keep the selector that they had first.",
    "oldObject != null && has(oldObject.spec.selector) ? ["
    'JSONPatch{op: "replace", path: "/spec/selector", value: oldObject.spec.selector}] : []',
    breaks={"apps/deployment/blue_green": r"Service \S+/web sends 20 requests to green: not within"},
    patch="JSONPatch",
)


@breakage(
    breaks={"network/service/manual": r"is answered: not within .* should give two, but gave never two"},
    keeps=["network/service/cluster_ip"],
)
def slices_by_hand_never_change(subject: Subject) -> Damage:
    """EndpointSlices that no controller manages keep the addresses that they had first."""
    managed = 'has(object.metadata.labels) && "endpointslice.kubernetes.io/managed-by" in object.metadata.labels'
    keep = 'JSONPatch{op: "replace", path: "/endpoints", value: oldObject.endpoints}'
    expression = f"oldObject != null && !({managed}) ? [{keep}] : []"
    with subject.mutating("discovery.k8s.io/v1/endpointslices", expression, patch="JSONPatch"):
        yield []


service_rewritten(
    "clients_stay",
    "Services send each client to one and the same pod.",
    'Object{spec: Object.spec{sessionAffinity: "ClientIP"}}',
    breaks={
        "apps/deployment/canary": r"Service \S+/web knows its pods: not within",
        "network/service/cluster_ip": r"is answered: not within .* should give web-0, web-1, but gave never web-\d",
    },
    keeps="network/pod_to_pod",
)


def _forgetting_after(seconds: int) -> str:
    """CEL: every Service with session affinity has this timeout."""
    path = "/spec/sessionAffinityConfig/clientIP/timeoutSeconds"
    change = f'JSONPatch{{op: "replace", path: "{path}", value: {seconds}}}'
    return f"has(object.spec.sessionAffinityConfig) ? [{change}] : []"


service_rewritten(
    "session_timeout_ignored",
    "Services send a client to the same pod for hours, however long it has been silent.",
    _forgetting_after(10800),
    breaks={"network/service/session_timeout": r"should forget its client after 1 s of silence"},
    patch="JSONPatch",
)
service_rewritten(
    "session_timeout_short",
    "Services forget a client after a second of silence, whatever timeout they have.",
    _forgetting_after(1),
    breaks={
        "network/service/session_timeout": r"lasting should know its client after 3 s of silence, but chose backend"
    },
    patch="JSONPatch",
)


@breakage(
    breaks={"network/load_balancer/health_check_port": r"it is \['200', '200'\], not \['200', '503'\]"},
    keeps=["network/service/cluster_ip"],
)
def health_checks_answered_anywhere(subject: Subject) -> Damage:
    """Load balancers are told by every node that it has a pod, wherever the pods are."""
    here, there = (node.address for node in subject.state.nodes)
    rule = f"OUTPUT -p tcp -d {there} --dport 30000:32767 -j DNAT --to-destination {here}"
    with subject.commanded(subject.nodes[1], f"iptables -w -t nat -I {rule}", f"iptables -w -t nat -D {rule}"):
        yield []


@breakage(
    breaks={
        "network/dual_stack/both_families": r"422|ipFamilyPolicy",
        "network/dual_stack/one_family": r"422|ipFamilies",
    },
    keeps=["network/service/cluster_ip"],
)
def dual_stack_missing(subject: Subject) -> Damage:
    """The cluster claims to have addresses of both families, and has one."""
    yield ["--capabilities=network.dualstack"]
