"""Starting and ending an embedded cluster, in the order that gets it Ready soonest."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from clusterproof import kinds
from clusterproof.client import Client
from clusterproof.conditions import ready
from clusterproof.errors import NeverHappened, SurroundingsError
from clusterproof.objects import Object, Selection
from clusterproof.wait import eventually

from . import addons, builder, cgroups, images, network, preflight, process, state
from .components import DEFAULT_KUBERNETES
from .controlplane import ControlPlane
from .node import NodeProcesses
from .state import ClusterState, EmbeddedError, Node

BASE = ("kubernetes", "etcd", "containerd", "cni-plugins")
BASE_IMAGES = ("pause", "agnhost", "agnhost-old")

Progress = Callable[[str], None]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Plan:
    """What a cluster is to be."""

    name: str
    nodes: int = 2
    kubernetes_version: str = DEFAULT_KUBERNETES
    addons: tuple[str, ...] = addons.NAMES
    images: tuple[str, ...] = ()
    """Images beyond those that every cluster and the add-ons need."""
    owner: int = 0
    """Process id of the run that the cluster ends with; 0 for one that stays until `down`."""


def build(plan: Plan, progress: Progress) -> tuple[builder.Artifacts, Path]:
    """What such a cluster needs, from the cache if it is there: programs, and a store with its images unpacked."""
    chosen = addons.named(plan.addons)
    wanted = [*BASE_IMAGES, *plan.images, *(image for addon in chosen for image in addon.images)]
    artifacts = builder.ensure([*BASE, *images.components(wanted)], plan.kubernetes_version, progress)
    return artifacts, images.store(wanted, artifacts, progress)


def up(plan: Plan, progress: Progress) -> ClusterState:
    """Start a cluster; all nodes are Ready and the add-ons answer when this returns.

    Raises EmbeddedError, and leaves nothing behind, when that does not succeed.
    """
    preflight.check()
    artifacts, store = build(plan, progress)
    cluster = state.allocate(plan.name, plan.kubernetes_version, plan.nodes, plan.owner)
    try:
        Launch(cluster, artifacts, store, progress).run(plan.addons)
    except BaseException:
        down(plan.name)
        raise
    return cluster


def down(name: str) -> None:
    """End a cluster and remove every trace of it; works from what the machine shows, however far its start came."""
    cluster = state.load(name)
    process.kill(network.processes_in(network.namespaces_of(name)))
    process.reap()
    network.delete(cluster)
    cgroups.remove(name)
    state.forget(name)


class Launch:
    """One start of one cluster. What does not depend on each other runs side by side."""

    def __init__(self, cluster: ClusterState, artifacts: builder.Artifacts, store: Path, progress: Progress) -> None:
        self.cluster = cluster
        self._artifacts = artifacts
        self._store = store
        self._progress = progress
        self._started = time.monotonic()
        self._nodes: list[NodeProcesses] = []
        self.milestones: dict[str, float] = {}
        """Seconds from the first process to what was reached: `API server ready`, `2 nodes Ready`, `dns ready`, ..."""

    def run(self, names: Sequence[str]) -> None:
        """Start everything and wait for it."""
        cluster = self.cluster
        with ThreadPoolExecutor(max_workers=4) as pool:
            control_plane = self._start_network_and_etcd()
            prepared = [pool.submit(self._prepare, node) for node in cluster.nodes]
            control_plane.start_api_server()
            self._nodes = _all(prepared)
            client = self._await_api_server(control_plane)
            self._said("API server ready")
            control_plane.start_controllers()
            _all([pool.submit(self._join, node) for node in self._nodes])
            cluster.save()
            applied = pool.submit(addons.apply, cluster, self._artifacts, client.clone(), names)
            self._await_nodes(client)
            self._said(f"{len(cluster.nodes)} nodes Ready")
            applied.result()
        addons.await_ready(cluster, client, names, self._said)
        cluster.ready = True
        cluster.save()

    def _prepare(self, node: Node) -> NodeProcesses:
        network.add_node(self.cluster, node)
        processes = NodeProcesses(self.cluster, node, self._artifacts)
        processes.prepare(self._store)
        return processes

    def _join(self, processes: NodeProcesses) -> None:
        """Register the node, with the range its routes lead to, and start what makes it Ready."""
        node = processes.node
        Client.from_kubeconfig(self.cluster.kubeconfig).post(
            kinds.NODE.path(),
            {
                "apiVersion": "v1",
                "kind": "Node",
                "metadata": {"name": node.name},
                "spec": {"podCIDR": node.pods, "podCIDRs": [node.pods]},
            },
        )
        processes.start_kubernetes()

    def run_api_server_alone(self) -> None:
        """The floor of every start: the network, etcd, and an API server that answers."""
        control_plane = self._start_network_and_etcd()
        control_plane.start_api_server()
        self._await_api_server(control_plane)
        self._said("API server ready")

    def _start_network_and_etcd(self) -> ControlPlane:
        self.cluster.logs.mkdir(parents=True)
        network.create(self.cluster)
        control_plane = ControlPlane(self.cluster, self._artifacts)
        control_plane.prepare()
        return control_plane

    def _await_api_server(self, control_plane: ControlPlane, within: float = 60.0) -> Client:
        client = Client.from_kubeconfig(self.cluster.kubeconfig)
        deadline = time.monotonic() + within
        while True:
            try:
                answer = client.request("GET", "/readyz", timeout=2)
                if answer.status == 200:
                    return client
                seen = answer.text
            except SurroundingsError as error:
                seen = str(error)
            for component in control_plane.components:
                component.check()
            if time.monotonic() > deadline:
                raise EmbeddedError(f"kube-apiserver is not ready after {within:g} s: {seen}; see {self.cluster.logs}")
            time.sleep(0.05)

    def _await_nodes(self, client: Client, within: float = 60.0) -> None:
        wanted = {node.name for node in self.cluster.nodes}
        try:
            eventually(
                Selection(client, kinds.NODE), lambda seen: _unready(seen, wanted), within=within, describe="be Ready"
            )
        except NeverHappened as late:
            for component in (one for node in self._nodes for one in node.components):
                component.check()
            raise EmbeddedError(f"{late}; logs are in {self.cluster.logs}") from late

    def _said(self, what: str) -> None:
        self.milestones[what] = time.monotonic() - self._started
        self._progress(f"{self.cluster.name}: {what} after {self.milestones[what]:.1f} s")


def _unready(seen: list[Object], wanted: set[str]) -> str | None:
    """A condition: the wanted nodes are all Ready."""
    waiting = {node.name: missing for node in seen if (missing := ready(node))}
    waiting |= {name: "it has not registered" for name in wanted - {node.name for node in seen}}
    return "; ".join(f"{name}: {missing}" for name, missing in sorted(waiting.items())) or None


def _all(futures: Sequence[Future[T]]) -> list[T]:
    """Results of what runs side by side; the first failure is raised once all have ended."""
    wait(futures)
    return [future.result() for future in futures]
