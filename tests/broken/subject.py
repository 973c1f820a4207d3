"""The cluster that is broken: what can be done to it. Everything done here is undone when its block ends."""

from __future__ import annotations

import contextlib
import json
import secrets
import shlex
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

from clusterproof.embedded import operate, process, provider, state
from clusterproof.embedded.addons.disks import CONTROLLER as DISKS
from clusterproof.embedded.addons.disks import SIDECARS, SNAPSHOTS
from clusterproof.embedded.clusterset import PROGRAM as CLUSTERSET
from clusterproof.embedded.state import ClusterState

from clusterproof import images, kinds
from clusterproof.capabilities import OPERATOR
from clusterproof.client import Client
from clusterproof.conditions import exists, ready, rolled_out
from clusterproof.errors import ApiError, SurroundingsError
from clusterproof.kinds import Kind
from clusterproof.objects import Object
from clusterproof.wait import eventually

SYSTEM = "kube-system"
SERVER = "kube-apiserver"
MANAGER = "kube-controller-manager"
SCHEDULER = "kube-scheduler"
CLOUD = "cloud-controller-manager"
FOLLOWERS = (MANAGER, SCHEDULER, CLOUD, "/kubelet", "/kube-proxy")
"""Ends of the names of what follows the API server."""
ADMISSION = ("admissionregistration.k8s.io", "v1")
POLICY = kinds.custom(*ADMISSION, "MutatingAdmissionPolicy", "mutatingadmissionpolicies", namespaced=False)
BINDING = kinds.custom(
    *ADMISSION, "MutatingAdmissionPolicyBinding", "mutatingadmissionpolicybindings", namespaced=False
)
SETTLE_SECONDS = 30.0
"""For a program that was started again, or a changed policy, to be in effect."""


class Subject:
    """A sound embedded cluster of two nodes, until somebody breaks it."""

    def __init__(self, cluster: ClusterState) -> None:
        self.state = cluster
        self.client = Client.from_kubeconfig(cluster.kubeconfig)
        self.nodes = [node.name for node in cluster.nodes]
        self.access = provider.access(cluster)
        self.arguments = [
            "--cluster=external",
            f"--kubeconfig={cluster.kubeconfig}",
            f"--ingress-address={self.access.ingress_address}",
            # Whoever does not know it by its provider can end none of its programs.
            f"--capabilities={','.join(each for each in self.access.capabilities if each != OPERATOR.name)}",
            f"--node-hosts={self.access.node_hosts}",
        ]
        """How pytest is told to use it."""
        if self.access.peer:
            self.arguments.append(f"--peer={self.access.peer.kubeconfig}")
        self.agnhost = images.resolve().agnhost

    @contextlib.contextmanager
    def operated(self) -> Iterator[list[str]]:
        """Arguments by which pytest knows it as its provider does: promises may end its programs and start them."""
        try:
            yield ["--cluster=embedded", f"--cluster-name={self.state.name}", "--reuse"]
        finally:
            self.state.programs |= state.load(self.state.name).programs

    @property
    def peer(self) -> Subject:
        """The cluster that it is joined with."""
        return Subject(state.load(self.state.peers[0]))

    def mend(self) -> None:
        """Start what has ended on its own: on a machine that is much too busy, leaders lose their leases."""
        for name, program in list(self.state.programs.items()):
            if process.child_of(program.pid) is None:
                self._start(name, None)

    def run_on(self, place: str, command: str) -> str:
        """Run a command on a node or on the `control-plane`; its output."""
        return operate.run_on(self.state, place, *shlex.split(command))

    @contextlib.contextmanager
    def stopped(self, *programs: str) -> Iterator[None]:
        """Without some programs (`kube-scheduler`, `<node>/kube-proxy`); what they have done before stays."""
        for program in programs:
            operate.stop(self.state, program)
        try:
            yield
        finally:
            for program in programs:
                self._start(program, None)

    @contextlib.contextmanager
    def restarted(self, program: str, *arguments: tuple[str, str]) -> Iterator[None]:
        """A program with other arguments: each that starts with the first of a pair becomes the second, or nothing."""
        change = operate.replacing(*arguments)
        with self._command_changed(program, lambda command: [part for part in change(command) if part]):
            yield

    def flagged(self, program: str, flag: str, value: str) -> contextlib.AbstractContextManager[None]:
        """A program that is started with another value of a flag, or with a flag that it does not have."""
        return self.restarted(program, (f"--{flag}=", f"--{flag}={value}"))

    @contextlib.contextmanager
    def prepared(self, program: str, script: str) -> Iterator[None]:
        """A program before each start of which a shell script is run in its place."""
        with self._command_changed(program, lambda command: ["sh", "-c", f'{script} && exec "$@"', program, *command]):
            yield

    @contextlib.contextmanager
    def deceived(self, program: str, tool: str, script: str) -> Iterator[None]:
        """A program that finds a shell script where it looks for a tool of the machine, which is `real` in there."""
        anchor = self.state.programs[program].anchor
        on_node = anchor in self.nodes
        folder = self.state.node_folder(self.state.node(anchor)) / "lib" if on_node else self.state.folder
        seen_as = Path("/var/lib") if on_node else folder
        path = folder / "instead" / tool
        path.parent.mkdir(exist_ok=True)
        path.write_text(f'#!/bin/sh\nPATH=${{PATH#*:}}\nreal() {{ exec {tool} "$@"; }}\n{script}\n')
        path.chmod(0o755)
        look_there = f'PATH={seen_as / "instead"}:$PATH exec "$@"'
        try:
            with self._command_changed(program, lambda command: ["sh", "-c", look_there, program, *command]):
                yield
        finally:
            path.unlink()

    @contextlib.contextmanager
    def never_returning(self, program: str) -> Iterator[None]:
        """A program that runs, but does nothing once it has ended and was started again."""
        before = list(self.state.programs[program].command)
        try:
            with self.state.changing():
                self.state.programs[program].command = ["sleep", "1000000"]
            yield
        finally:
            self._restart(program, lambda _: before)

    @contextlib.contextmanager
    def _command_changed(self, program: str, change: Callable[[list[str]], list[str]]) -> Iterator[None]:
        before = list(self.state.programs[program].command)
        try:
            self._restart(program, change)
            yield
        finally:
            self._restart(program, lambda _: before)

    @contextlib.contextmanager
    def kubelet_config(self, node: str, **changes: Any) -> Iterator[None]:
        """A node whose kubelet has another configuration."""
        path = self.state.node_folder(self.state.node(node)) / "lib/kubelet/config.json"
        before = path.read_text()
        try:
            path.write_text(json.dumps({**json.loads(before), **changes}))
            self._restart(f"{node}/kubelet", None)
            yield
        finally:
            path.write_text(before)
            self._restart(f"{node}/kubelet", None)

    @contextlib.contextmanager
    def commanded(self, place: str, do: str, undo: str) -> Iterator[None]:
        """After a command on a node or on the `control-plane`, until another that takes it back."""
        self.run_on(place, do)
        try:
            yield
        finally:
            self.run_on(place, undo)

    @contextlib.contextmanager
    def having(self, *manifests: dict[str, Any]) -> Iterator[None]:
        """With further objects."""
        made: list[Object] = []
        try:
            for manifest in manifests:
                kind = kinds.of(manifest)
                raw = self.client.post(kind.path(manifest["metadata"].get("namespace", "")), manifest)
                made.append(Object.of(self.client, raw, kind))
            yield
        finally:
            for each in reversed(made):
                each.delete()

    @contextlib.contextmanager
    def changed(
        self, kind: Kind, name: str, namespace: str, change: Callable[[dict[str, Any]], None]
    ) -> Iterator[None]:
        """With an object that `change` was applied to."""
        found = Object(self.client, kind, name, namespace).read()
        before = json.loads(json.dumps(found.raw))
        change(found.raw)
        found.replace(found.raw)
        try:
            yield
        finally:
            now = found.read().raw
            kept = {key: value for key, value in now.items() if key in ("metadata", "status")}
            # Labels and annotations are part of what was changed.
            kept["metadata"] |= {key: before["metadata"].get(key, {}) for key in ("labels", "annotations")}
            found.replace({**before, **kept})

    @contextlib.contextmanager
    def reconfigured(
        self, kind: Kind, name: str, namespace: str, change: Callable[[dict[str, Any]], None]
    ) -> Iterator[None]:
        """With a workload that `change` was applied to, once its pods are as it says; then as it was, pods included."""
        found = Object(self.client, kind, name, namespace)
        with self.changed(kind, name, namespace, change):
            eventually(found, rolled_out, within=2 * SETTLE_SECONDS)
            yield
        eventually(found, rolled_out, within=2 * SETTLE_SECONDS)

    @contextlib.contextmanager
    def mutating(self, resource: str, expression: str, *, patch: str = "ApplyConfiguration") -> Iterator[None]:
        """While an admission policy changes all objects of a resource (`apps/v1/statefulsets`) as they are written.

        The expression is CEL: an object to merge, or with `patch="JSONPatch"` a list of changes.
        """
        field = {"ApplyConfiguration": "applyConfiguration", "JSONPatch": "jsonPatch"}[patch]
        mutation = {"patchType": patch, field: {"expression": expression}}
        with self.having(*_policy(f"broken-{secrets.token_hex(4)}", resource, mutation)):
            self._policies_settle()
            yield
        self._policies_settle()

    @contextlib.contextmanager
    def scaled(self, name: str, replicas: int, namespace: str = SYSTEM) -> Iterator[None]:
        """With another number of pods of a Deployment."""
        found = Object(self.client, kinds.DEPLOYMENT, name, namespace).read()
        before = found.spec["replicas"]
        self._scale(found, replicas)
        try:
            yield
        finally:
            self._scale(found, before)

    def await_object(self, kind: Kind, name: str, namespace: str = "") -> None:
        """Wait until an object exists (again)."""
        eventually(Object(self.client, kind, name, namespace), exists, within=SETTLE_SECONDS)

    def await_ready(self, node: str) -> None:
        """Wait until a node has recovered."""
        eventually(Object(self.client, kinds.NODE, node), ready, within=2 * SETTLE_SECONDS)

    def recreate_pods(self, deployment: str, namespace: str = SYSTEM) -> None:
        """Replace the pods of a Deployment by new ones, all at once, so that they read their configuration."""
        found = Object(self.client, kinds.DEPLOYMENT, deployment, namespace).read()
        replicas = found.spec["replicas"]
        self._scale(found, 0)
        self._scale(found, replicas)

    def _scale(self, found: Object, replicas: int) -> None:
        found.scale(replicas)
        eventually(found, rolled_out, within=60)

    def _restart(self, program: str, change: Callable[[list[str]], list[str]] | None) -> None:
        # Whoever follows an API server that has just been started is refused at first, and then tries again less and
        # less often: so everybody comes back after it. Those beside a driver of volumes end when they lose it.
        ends = {SERVER: FOLLOWERS, DISKS: SIDECARS}.get(program, ())
        followers = [name for name in self.state.programs if name.endswith(ends)]
        for each in (program, *followers):
            operate.stop(self.state, each)
        self._start(program, change)
        started = [operate.start(self.state, each) for each in followers]
        for each, component in zip(followers, started, strict=True):
            self._await(each, component)

    def _start(self, program: str, change: Callable[[list[str]], list[str]] | None) -> None:
        self._await(program, operate.start(self.state, program, change))

    def _await(self, program: str, component: process.Component) -> None:
        deadline = time.monotonic() + SETTLE_SECONDS
        while not self._works(program):
            component.check()
            assert time.monotonic() < deadline, f"{program} does not work {SETTLE_SECONDS:g} s after its start"
            time.sleep(0.1)

    def _works(self, program: str) -> bool:
        place, _, name = program.rpartition("/")
        try:
            match name:
                case _ if program == SERVER:
                    return self.client.request("GET", "/readyz", timeout=2).status == 200
                case "etcd":
                    return self.client.request("GET", "/readyz/etcd", timeout=2).status == 200
                case "containerd":
                    return "Server" in self.run_on(place, f"{process.BIN}/ctr version")
                case "kube-proxy":
                    with urlopen(f"http://{self.state.node(place).address}:10256/healthz", timeout=2) as answer:
                        return bool(answer.status == 200)
                case "karpenter":
                    with urlopen(f"http://{self.state.api_address}:8081/readyz", timeout=2) as answer:
                        return bool(answer.status == 200)
                case _ if name in (DISKS, SNAPSHOTS, *SIDECARS, CLUSTERSET):
                    return True  # it tells nobody
                case "kubelet":
                    healthy = self.client.request("GET", kinds.NODE.path(None, place, "proxy") + "/healthz", timeout=2)
                    node = Object(self.client, kinds.NODE, place).read()
                    return healthy.status == 200 and node.condition("Ready").get("status") == "True"
                case _:
                    lease = Object(self.client, kinds.LEASE, name, SYSTEM).read()
                    return bool(lease.spec.get("holderIdentity"))
        except (ApiError, SurroundingsError, URLError, OSError):
            return False

    def _policies_settle(self) -> None:
        """Policies are taken up together, about once a second: when one more is in effect, so are all before it."""
        value = secrets.token_hex(4)
        merge = f'Object{{data: {{"{value}": "seen"}}}}'
        mutation = {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": merge}}
        probe = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "broken-probe"}}

        def in_effect() -> bool:
            stored = self.client.post(kinds.CONFIG_MAP.path(SYSTEM), probe, {"dryRun": "All"})
            return value in (stored.get("data") or {})

        only = [{"name": "probe", "expression": 'object.metadata.name == "broken-probe"'}]
        with self.having(*_policy(f"broken-{value}", "v1/configmaps", mutation, only)):
            deadline = time.monotonic() + SETTLE_SECONDS
            while not in_effect():
                assert time.monotonic() < deadline, f"policies are not in effect after {SETTLE_SECONDS:g} s"
                time.sleep(0.1)


def forgotten(path: str) -> str:
    """Changes for `mutating`: a spec has lost the field at a path, `containers[0].lifecycle`, where there is one."""
    there, seen = [], "object.spec"
    for part in path.split("."):
        name, _, number = part.rstrip("]").partition("[")
        there.append(f"has({seen}.{name})" + (f" && size({seen}.{name}) > {number}" if number else ""))
        seen += f".{part}"
    place = path.replace(".", "/").replace("[", "/").replace("]", "")
    return f'{" && ".join(there)} ? [JSONPatch{{op: "remove", path: "/spec/{place}"}}] : []'


def _policy(name: str, resource: str, mutation: dict[str, Any], only: Any = None) -> tuple[dict[str, Any], ...]:
    group, version, plural = ["", *resource.split("/", 2)][-3:]
    rule = {"apiGroups": [group], "apiVersions": [version], "resources": [plural], "operations": ["CREATE", "UPDATE"]}
    metadata = {"metadata": {"name": name}}
    spec = {
        "matchConstraints": {"resourceRules": [rule]},
        "failurePolicy": "Fail",
        "reinvocationPolicy": "Never",
        "mutations": [mutation],
        **({"matchConditions": only} if only else {}),
    }
    return (
        {"apiVersion": POLICY.api_version, "kind": POLICY.kind, **metadata, "spec": spec},
        {"apiVersion": BINDING.api_version, "kind": BINDING.kind, **metadata, "spec": {"policyName": name}},
    )


def kubeconfig_of(subject: Subject, server: str, folder: Path) -> Path:
    """The administrator's kubeconfig, for another address of the API server."""
    config = json.loads(subject.state.kubeconfig.read_text())
    config["clusters"][0]["cluster"]["server"] = server
    path = folder / "kubeconfig"
    path.touch(mode=0o600)
    path.write_text(json.dumps(config))
    return path
