"""Absences: clusters on which it is noticed that a node or a program was away, or which do not recover from it.

Their promises end programs themselves.
"""

from __future__ import annotations

import contextlib
import shlex
from pathlib import Path

from ..registry import Damage, breakage
from ..relay import Answer, Request
from ..subject import MANAGER, SCHEDULER, Subject
from .answers import Ask
from .apis import through

FORGOTTEN = "iptables --table nat --flush KUBE-SERVICES"
"""A node no longer knows where Services lead to."""


@breakage(
    breaks={
        "resilience/node/loss": r"Node \S+-2 has condition Ready=Unknown: not within",
        "scheduling/taints/silence": r"Node clusterproof-hollow-\S+ has condition Ready=Unknown: not within",
    },
    keeps=[],
    scale=0.6,
)
def lost_nodes_pass_for_ready(subject: Subject) -> Damage:
    """A node may be silent for a quarter of an hour before it is taken for lost."""
    patient = ("--node-monitor-grace-period=", "--node-monitor-grace-period=15m")
    with subject.restarted(MANAGER, patient), subject.operated() as arguments:
        yield arguments


@breakage(
    breaks={
        "resilience/node/loss": r"pods .* are 2, all ready, without those on .*-2: not within",
        "resilience/node/at_most_one": r"Pod \S+/only-0 told to end: not within .* nobody has asked for its end",
    },
    keeps=[],
    scale=0.6,
)
def lost_nodes_keep_their_pods(subject: Subject) -> Damage:
    """The controller manager runs without taint-eviction-controller: pods stay on nodes that are lost."""
    without = ("--controllers=", "--controllers=*,-taint-eviction-controller")
    with subject.restarted(MANAGER, without), subject.operated() as arguments:
        yield arguments


@breakage(
    breaks={"resilience/control_plane/api_server": r"every request is answered without the API server: .* failed"},
    keeps=[],
    scale=1.0,
)
def services_lost_with_server(subject: Subject) -> Damage:
    """As long as the API server does not answer, a node forgets where Services lead to."""
    asks = f"curl --silent --insecure --max-time 2 {subject.client.server}/readyz"
    watches = f"while sleep 0.5; do {asks} || {FORGOTTEN}; done"
    do = f"setsid sh -c '{watches}' < /dev/null > /dev/null 2>&1 & echo $! > /tmp/watches"
    undo = "kill $(cat /tmp/watches) && rm /tmp/watches"
    with contextlib.ExitStack() as nodes:
        for node in subject.nodes:
            nodes.enter_context(subject.commanded(node, f"sh -c {shlex.quote(do)}", f"sh -c {shlex.quote(undo)}"))
        yield nodes.enter_context(subject.operated())


def never_returning(program: str, *, case: str, said: str) -> None:
    """Register a breakage: a program of the control plane that has ended is started again, but does nothing."""

    @breakage(
        name=f"{case}_gone_for_good",
        meaning=f"{program}, once it has ended, is started again but does nothing.",
        breaks={f"resilience/control_plane/leader[{case}]": said},
        keeps=[],
    )
    def away(subject: Subject) -> Damage:
        with subject.never_returning(program), subject.operated() as arguments:
            yield arguments


never_returning(SCHEDULER, case="scheduler", said=r"Deployment .*/web rolled out: not within .* 0/1 are available")
never_returning(MANAGER, case="controllers", said=r"Deployment .*/web rolled out: not within .* has not seen")


@breakage(
    breaks={"resilience/control_plane/service_proxy": r"every request is answered without .*'s proxy: .* failed"},
    keeps=[],
    scale=1.0,
)
def proxy_forgets_at_start(subject: Subject) -> Damage:
    """A node's proxy takes all Services out of service for three seconds when it starts."""
    proxy = f"{subject.nodes[0]}/kube-proxy"
    with subject.prepared(proxy, f"{FORGOTTEN} && sleep 3"), subject.operated() as arguments:
        yield arguments


@breakage(breaks={"health/etcd/loss": r"/readyz names etcd: .*not within"}, keeps=[])
def readiness_ignores_storage(subject: Subject) -> Damage:
    """The API server says that it is ready, whatever becomes of its storage (shown to the observer)."""

    def exchange(request: Request, ask: Ask) -> Answer:
        answer = ask(request)
        if request.path.startswith("/readyz"):
            answer.status, answer.body = 200, answer.body.replace(b"[-]etcd", b"[+]etcd")
        return answer

    kubeconfig = subject.state.kubeconfig
    before = kubeconfig.read_text()
    with through(subject, exchange=exchange) as (argument,), subject.operated() as arguments:
        kubeconfig.write_text(Path(argument.partition("=")[2]).read_text())
        try:
            yield arguments
        finally:
            kubeconfig.write_text(before)
