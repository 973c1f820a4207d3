"""Nodes: kubelets, certificates and clocks."""

from __future__ import annotations

import json
import re
from datetime import datetime, timedelta
from email.utils import format_datetime, parsedate_to_datetime

from clusterproof import manifests

from ..registry import Damage, breakage
from ..relay import Answer, Ask, Request
from ..subject import SYSTEM, Subject
from .apis import through

AHEAD = timedelta(seconds=30)


@breakage(
    breaks={
        "health/nodes": r"kubelet|healthz",
        "nodes/ports/kubelet": r"node-2 has nothing that listens at its address \S+ on port 10250",
    },
    keeps=["health/livez", "health/control_plane"],
)
def kubelet_stopped(subject: Subject) -> Damage:
    """The kubelet of one node has just ended."""
    with subject.stopped(f"{subject.nodes[1]}/kubelet"):
        yield []


@breakage(
    breaks={"health/nodes": r"the kubelet of Node \S+-node-2 MUST answer /healthz with ok, but"},
    keeps=["health/livez", "health/control_plane"],
)
def kubelet_out_of_reach(subject: Subject) -> Damage:
    """Nothing that the control plane sends gets to the kubelet of one node, which goes on for itself."""
    rule = f"OUTPUT -p tcp -d {subject.state.nodes[1].address} --dport 10250 -j DROP"
    with subject.commanded("control-plane", f"iptables -w -I {rule}", f"iptables -w -D {rule}"):
        yield []


@breakage(breaks={"health/clock": r"API server's clock"}, keeps=["health/livez"])
def server_clock_ahead(subject: Subject) -> Damage:
    """The API server's clock is 30 s ahead."""

    def exchange(request: Request, ask: Ask) -> Answer:
        answer = ask(request)
        if date := answer.headers.get("Date"):
            answer.headers["Date"] = format_datetime(parsedate_to_datetime(date) + AHEAD, usegmt=True)
        return answer

    with through(subject, exchange=exchange) as arguments:
        yield arguments


@breakage(breaks={"health/clock": r"node-2"}, keeps=["health/livez"])
def node_clock_ahead(subject: Subject) -> Damage:
    """The clock of one node is 30 s ahead, as its Lease shows."""

    def ahead(text: bytes) -> bytes:
        found = re.search(rb'"renewTime":"([^"]+)"', text)
        if found is None:
            return text
        time = datetime.fromisoformat(found[1].decode()) + AHEAD
        return text.replace(found[0], f'"renewTime":"{time:%Y-%m-%dT%H:%M:%S.%fZ}"'.encode())

    def exchange(request: Request, ask: Ask) -> Answer:
        answer = ask(request)
        if "/leases" in request.path and answer.status == 200:
            found = json.loads(answer.body)
            for lease in found.get("items", [found]):
                if lease["metadata"]["name"] == subject.nodes[1]:
                    changed = ahead(json.dumps(lease["spec"], separators=(",", ":")).encode())
                    lease["spec"] = json.loads(changed)
            answer.body = json.dumps(found).encode()
        return answer

    def line(request: Request, text: bytes) -> bytes:
        ours = "/leases" in request.path and f'"name":"{subject.nodes[1]}"'.encode() in text
        return ahead(text) if ours else text

    with through(subject, exchange=exchange, line=line) as arguments:
        yield arguments


@breakage(
    breaks={"health/system_pods": r"broken"},
    keeps=["health/livez", "health/control_plane"],
)
def system_pod_not_ready(subject: Subject) -> Damage:
    """A Deployment of kube-system has a pod that is never ready."""
    pod = manifests.deployment("broken", subject.agnhost, args=["pause"], readiness=manifests.http_probe())
    pod["metadata"]["namespace"] = SYSTEM
    with subject.having(pod):
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
    breaks={"nodes/versions": r"node-1 runs kubelet \S+, but its kubelet reports 1\.0\.0"},
    keeps=["nodes/kubelet/swap"],
)
def versions_made_up(subject: Subject) -> Damage:
    """Nodes are told to run a kubelet and a container runtime of other versions than they do."""

    def exchange(request: Request, ask: Ask) -> Answer:
        answer = ask(request)
        if request.path.startswith("/api/v1/nodes"):
            answer.body = re.sub(rb'"kubeletVersion":"[^"]+"', b'"kubeletVersion":"v1.0.0"', answer.body)
            runtime = rb'"containerRuntimeVersion":"containerd://1.0.0"'
            answer.body = re.sub(rb'"containerRuntimeVersion":"[^"]+"', runtime, answer.body)
        return answer

    with through(subject, exchange=exchange) as arguments:
        yield arguments
