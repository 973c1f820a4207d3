"""Absences: clusters on which it is noticed that a node or a program was away, or which do not recover from it.

Their promises end programs themselves.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import shlex
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from clusterproof import kinds
from clusterproof.objects import Selection

from ..registry import Damage, breakage
from ..relay import Answer, Ask, Exchange, Request
from ..subject import MANAGER, SCHEDULER, SYSTEM, Subject
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


@breakage(breaks={"resilience/control_plane/stored": r"MUST tell of \["}, keeps=[], scale=1.0)
def watches_limp_after_return(subject: Subject) -> Damage:
    """Once the API server was away, its watches lose one event in ten (shown to the observer)."""
    count, was_away = itertools.count(1), threading.Event()

    def drop(request: Request, line: bytes) -> bytes | None:
        return None if was_away.is_set() and next(count) % 10 == 0 else line

    with observed(subject, exchange=noting(was_away), line=drop) as arguments:
        yield arguments


@breakage(breaks={"resilience/control_plane/stored": r"not as they were written: item-0$"}, keeps=[], scale=1.0)
def writes_lost_with_server(subject: Subject) -> Damage:
    """Once the API server was away, one ConfigMap in each namespace is missing (shown to the observer)."""
    was_away = threading.Event()
    ask_noting = noting(was_away)

    def exchange(request: Request, ask: Ask) -> Answer:
        answer = ask_noting(request, ask)
        if was_away.is_set() and request.method == "GET" and "/configmaps?" in request.path:
            found = json.loads(answer.body)
            found["items"] = found["items"][1:]
            answer.body = json.dumps(found).encode()
        return answer

    with observed(subject, exchange=exchange) as arguments:
        yield arguments


def noting(was_away: threading.Event) -> Exchange:
    """Passes on everything, and remembers whether the server behind was away."""

    def exchange(request: Request, ask: Ask) -> Answer:
        try:
            return ask(request)
        except OSError:
            was_away.set()
            raise

    return exchange


@breakage(
    breaks={"resilience/dns/pod_loss": r"looked up kubernetes\.default \d+ times, of which \d+ failed"},
    keeps=[],
    scale=1.0,
)
def dns_relies_on_one_pod(subject: Subject) -> Damage:
    """The Service of the cluster's DNS leads to one of its pods only: the one there is at the time."""
    servers = Selection(subject.client, kinds.POD, SYSTEM, "k8s-app=kube-dns")
    chosen = {"clusterproof.dev/chosen": "yes"}
    servers.read()[0].patch({"metadata": {"labels": chosen}})
    with subject.changed(kinds.SERVICE, "kube-dns", SYSTEM, lambda raw: raw["spec"]["selector"].update(chosen)):
        yield []


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

    with observed(subject, exchange=exchange) as arguments:
        yield arguments


@contextlib.contextmanager
def observed(subject: Subject, **distortion: Callable[..., object]) -> Iterator[list[str]]:
    """The API server behind a proxy, for an observer who may also end programs: he has only this one kubeconfig."""
    kubeconfig = subject.state.kubeconfig
    before = kubeconfig.read_text()
    with through(subject, **distortion) as (argument,), subject.operated() as arguments:
        kubeconfig.write_text(Path(argument.partition("=")[2]).read_text())
        try:
            yield arguments
        finally:
            kubeconfig.write_text(before)
