"""`clusterproof upgrade run`: takes an embedded cluster from one Kubernetes minor to the next while it works.

The control plane goes first, then node by node, as Kubernetes' version skew policy asks. Every step is done whole or
taken back: a program that does not come up at its new version is started at its old one again. An upgrade that was cut
off goes on where it was when it is started again.
"""

from __future__ import annotations

import argparse
import filecmp
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from clusterproof import kinds
from clusterproof.client import Client
from clusterproof.conditions import equals, ready
from clusterproof.errors import ApiError, NeverHappened, SurroundingsError
from clusterproof.objects import Object, Selection
from clusterproof.wait import eventually

from . import builder, operate, state
from .components import DEFAULT_KUBERNETES, kubernetes_versions
from .node import link
from .state import CannotStart, ClusterState, EmbeddedError

CONTROL_PLANE = ("kube-apiserver", "kube-controller-manager", "kube-scheduler")
"""In the order of the version skew policy: nobody may be newer than the API server."""
NODE = ("kubelet", "kube-proxy")
COMES_UP = 90.0
"""Seconds for a program to work at its new version."""
PATIENCE = 2.0
"""Seconds for a program to end in its own way; by then it does not work any more."""
DRAIN = 240.0
"""Seconds for the pods of a node to be moved; budgets may hold an eviction up."""

Progress = Callable[[str], None]


def upgrade(name: str, to: str, progress: Progress, *, expected: str = "") -> None:
    """Upgrade a cluster in place. `expected` is the version it should have now, where the caller names one.

    CannotStart before anything is changed; EmbeddedError says which step failed, and what is at which version then.
    """
    cluster = state.load(name)
    _check(cluster, to, expected)
    artifacts = builder.ensure(("kubernetes",), to, progress)
    change = _Change(cluster, artifacts, to, progress)
    started = time.monotonic()
    change.control_plane()
    for node in cluster.nodes:
        change.node(node.name)
    with cluster.changing():
        cluster.kubernetes_version = to
    progress(f"{name}: all of it is at {to} after {time.monotonic() - started:.1f} s")


def _check(cluster: ClusterState, to: str, expected: str) -> None:
    """Raise CannotStart for what no cluster, or not this one, can be upgraded to."""
    problems = []
    known = list(kubernetes_versions())
    now = cluster.kubernetes_version.removeprefix("v")
    if not cluster.ready:
        problems.append(f"cluster {cluster.name} did not complete its start")
    if expected and now != expected:
        problems.append(f"--from={expected}: cluster {cluster.name} is at {now}")
    if to not in known:
        problems.append(f"--to={to}: cannot be had here; choose from: {', '.join(known)}")
    elif _minor(to) - _minor(now) not in (0, 1) or _numbers(to) < _numbers(now):
        problems.append(f"--to={to}: a cluster at {now} is upgraded to a newer one of its minor, or of the next")
    if problems:
        raise CannotStart("; ".join(problems))


class _Change:
    """One upgrade of one cluster."""

    def __init__(self, cluster: ClusterState, artifacts: builder.Artifacts, to: str, progress: Progress) -> None:
        self._cluster = cluster
        self._artifacts = artifacts
        self._to = f"v{to}"
        self._progress = progress
        self._client = Client.from_kubeconfig(cluster.kubeconfig)

    def control_plane(self) -> None:
        """API server, controller manager and scheduler, one after the other; each works before the next."""
        for name in CONTROL_PLANE:
            new = str(self._artifacts.binary(name))
            before = list(self._cluster.programs[name].command)
            if before[0] == new:
                continue
            started = time.monotonic()

            def take_back(name: str = name, command: list[str] = before) -> None:
                self._restart(name, command)

            with self._taken_back(name, take_back):
                self._restart(name, [new, *before[1:]])
                self._works(name)
            self._progress(f"{name}: {self._to} after {time.monotonic() - started:.1f} s")

    def node(self, name: str) -> None:
        """Drain a node, exchange its programs, and let it take pods again."""
        node = Object(self._client, kinds.NODE, name).read()
        if _version(node) == self._to and not node.spec.get("unschedulable"):
            return
        started = time.monotonic()
        node.patch({"spec": {"unschedulable": True}})
        try:
            moved = self._drain(name)
            drained = time.monotonic()
            self._exchange(name)
        finally:
            # Also where it failed: by then the node works as before, and whoever looks after it decides.
            node.patch({"spec": {"unschedulable": None}})
        self._progress(
            f"{name}: {moved} pods moved in {drained - started:.1f} s, {self._to} and Ready "
            f"after {time.monotonic() - drained:.1f} s"
        )

    def _exchange(self, node: str) -> None:
        folder = self._cluster.node_folder(self._cluster.node(node)) / "opt/clusterproof/bin"
        for program in NODE:
            place, new, old = folder / program, self._artifacts.binary(program), folder / f"{program}.old"
            if filecmp.cmp(place, new, shallow=False):
                continue
            name = f"{node}/{program}"
            command = list(self._cluster.programs[name].command)

            def take_back(name: str = name, command: list[str] = command, old: Path = old, place: Path = place) -> None:
                old.replace(place)
                self._restart(name, command)

            place.replace(old)
            with self._taken_back(name, take_back):
                link(new, place)
                self._restart(name, command)
                self._works(name)
            old.unlink()

    def _drain(self, node: str) -> int:
        """Evict what may be moved, as often as budgets refuse it, and wait until it has gone; the number of pods."""
        within = DRAIN * self._cluster.timeout_scale
        deadline = time.monotonic() + within
        there = Selection(self._client, kinds.POD, fields=f"spec.nodeName={node}")
        moved = [pod for pod in there.read() if _movable(pod)]
        waiting = moved
        while waiting:
            refused = {pod: why for pod in waiting if (why := self._evict(pod))}
            waiting = list(refused)
            if waiting and time.monotonic() > deadline:
                told = "; ".join(f"{pod}: {why}" for pod, why in refused.items())
                raise EmbeddedError(f"{node} was not drained within {within:g} s: {told}; it takes pods again")
            if waiting:
                time.sleep(0.5)
        uids = {pod.uid for pod in moved}
        try:
            eventually(there, lambda pods: _still(pods, uids), within=max(1.0, deadline - time.monotonic()))
        except NeverHappened as late:
            raise EmbeddedError(f"{node} was not drained: {late}; it takes pods again") from late
        return len(moved)

    def _evict(self, pod: Object) -> str:
        """Ask for it; why it was refused for now, or nothing."""
        metadata = {"name": pod.name, "namespace": pod.namespace}
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": metadata}
        try:
            self._client.post(kinds.POD.path(pod.namespace, pod.name, "eviction"), body)
        except ApiError as error:
            if error.status == 404:
                return ""
            if error.status == 429:
                return error.message
            raise
        return ""

    def _restart(self, name: str, command: list[str]) -> None:
        # An API server that is told to end refuses everybody at once, but waits for its watches a minute longer.
        operate.stop(self._cluster, name, kill=False, patience=PATIENCE)
        operate.start(self._cluster, name, lambda _: command)

    def _works(self, program: str) -> None:
        """Wait until a program answers at the new version."""
        place, _, name = program.rpartition("/")
        within = COMES_UP * self._cluster.timeout_scale
        try:
            match name:
                case "kube-apiserver":
                    eventually(self._served_version, self._is_new, within=within)
                case "kubelet":
                    node = Object(self._client, kinds.NODE, place)
                    eventually(node, lambda seen: self._is_new(_version(seen)) or ready(seen), within=within)
                case "kube-proxy":
                    address = self._cluster.node(place).address
                    eventually(lambda: _health(f"http://{address}:10256/healthz"), equals(200), within=within)
                case _:
                    lease = Object(self._client, kinds.LEASE, name, "kube-system")
                    eventually(lease, _led, within=within)
        except (NeverHappened, ApiError, SurroundingsError) as error:
            log = "clusterproof logs --name " + self._cluster.name
            raise EmbeddedError(f"{program} does not work at {self._to}: {error} (see: {log} {program})") from error

    def _served_version(self) -> str:
        if (answer := self._client.request("GET", "/readyz", timeout=2)).status != 200:
            return f"not ready: {answer.text[-200:]}"
        return str(self._client.get("/version")["gitVersion"])

    def _is_new(self, version: str) -> str | None:
        return None if version == self._to else f"it is at {version}"

    @contextmanager
    def _taken_back(self, what: str, undo: Callable[[], object]) -> Iterator[None]:
        """When the body fails, undo what it did; the error says so."""
        try:
            yield
        except EmbeddedError as error:
            undo()
            raise EmbeddedError(
                f"{error}; {what} runs at its old version again, and what came before it stays upgraded: correct the "
                "cause and start the upgrade again, it goes on from here"
            ) from error


def _movable(pod: Object) -> bool:
    """Whether a drain moves it: somebody makes a new one elsewhere, and it has not ended."""
    owners = {owner["kind"] for owner in pod.metadata.get("ownerReferences") or [] if owner.get("controller")}
    return bool(owners) and not owners & {"DaemonSet", "Node"} and pod.status.get("phase") in ("Pending", "Running")


def _still(pods: list[Object], uids: set[str]) -> str | None:
    """Condition: none of these pods is there any more."""
    left = [f"{pod.namespace}/{pod.name}" for pod in pods if pod.uid in uids]
    return f"still there: {', '.join(left)}" if left else None


def _led(lease: Object) -> str | None:
    """Condition: somebody leads."""
    return None if lease.spec.get("holderIdentity") else "nobody leads"


def _health(url: str) -> int:
    """Status of a health page; 0 without an answer."""
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return int(answer.status)
    except OSError:
        return 0


def _version(node: Object) -> str:
    return str(node.status.get("nodeInfo", {}).get("kubeletVersion", ""))


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def _minor(version: str) -> int:
    return _numbers(version)[1]


class Run:
    """Upgrades an embedded cluster for real."""

    help = "upgrade an embedded cluster: control plane first, then node by node with a drain"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--name", default="default", help="name of the cluster (default: default)")
        parser.add_argument(
            "--from", dest="origin", default="", metavar="VERSION", help="refuse a cluster that is not at this version"
        )
        parser.add_argument(
            "--to",
            default=DEFAULT_KUBERNETES,
            metavar="VERSION",
            help=f"Kubernetes version to go to (default: {DEFAULT_KUBERNETES})",
        )

    def run(self, args: argparse.Namespace) -> int:
        to, origin = args.to.removeprefix("v"), args.origin.removeprefix("v")
        try:
            upgrade(args.name, to, _say, expected=origin)
        except CannotStart as error:
            raise pytest.UsageError(str(error)) from error
        print(f"cluster {args.name} is at Kubernetes {to}")
        return 0


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


run = Run()
