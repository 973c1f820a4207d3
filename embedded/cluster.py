"""Starting and ending an embedded cluster, in the order that gets it Ready soonest."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

from kubernetes.client import Configuration

from clusterproof import kinds, manifests
from clusterproof.capabilities import RENEWAL
from clusterproof.client import Client
from clusterproof.conditions import UNINITIALIZED, takes_pods
from clusterproof.credentials import KUBELETS
from clusterproof.errors import NeverHappened, SurroundingsError
from clusterproof.objects import Object, Selection
from clusterproof.wait import eventually

from . import addons, builder, cgroups, clusterset, images, loops, network, preflight, process, state
from .components import DEFAULT_KUBERNETES, kubernetes_versions
from .controlplane import ControlPlane
from .node import NodeProcesses
from .process import SLOWER, Component
from .state import CannotStart, ClusterState, EmbeddedError, Node

BASE = ("kubernetes", "etcd", "containerd", "cni-plugins")
BASE_IMAGES = ("pause", "agnhost", "agnhost-old")
NOT_YET_KNOWN = {"key": UNINITIALIZED, "value": "true", "effect": "NoSchedule"}
"""Taint of a node until the cloud has said what it is."""
READY = "/readyz"
SERVES = kinds.CONFIG_MAP.path("kube-system", "extension-apiserver-authentication")
"""What an API server that is not ready yet answers to an administrator. It still makes the roles that others need;
kubelets need none."""
API_SERVER = 60.0
"""Seconds for it to answer."""
NODES = 60.0
"""Seconds for all of them to be Ready."""
ADDON = 120.0
"""Seconds for each to be ready."""
WINDOW = 2.0
"""Seconds after which a program that has ended is noticed, and for one answer of the API server."""

Progress = Callable[[str], None]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Plan:
    """What a cluster is to be."""

    name: str
    nodes: int = 2
    kubernetes_version: str = DEFAULT_KUBERNETES
    addons: tuple[str, ...] = field(default_factory=addons.usual)
    images: tuple[str, ...] = ()
    """Images beyond those that every cluster and the add-ons need."""
    owner: int = 0
    """Process id of the run that the cluster ends with; 0 for one that stays until `down`."""
    timeout_scale: float = 1.0
    """What the seconds are multiplied with that programs, nodes and add-ons may take."""


def build(plan: Plan, progress: Progress) -> tuple[builder.Artifacts, Path]:
    """What such a cluster needs, from the cache if it is there: programs, and a store with its images unpacked."""
    chosen = addons.named(plan.addons)
    wanted = [*BASE_IMAGES, *plan.images, *(image for addon in chosen for image in addon.images)]
    components = [*BASE, *images.components(wanted), *(name for addon in chosen for name in addon.components)]
    artifacts = builder.ensure(components, plan.kubernetes_version, progress)
    return artifacts, images.store(wanted, artifacts, progress)


def up(plan: Plan, progress: Progress) -> ClusterState:
    """Start a cluster; all nodes are Ready and the add-ons answer when this returns.

    Raises EmbeddedError, and leaves nothing behind, when that does not succeed.
    """
    check(plan)
    artifacts, store = build(plan, progress)
    cluster = state.allocate(plan.name, plan.kubernetes_version, plan.nodes, plan.owner)
    cluster.timeout_scale = plan.timeout_scale
    try:
        Launch(cluster, artifacts, store, progress).run(plan.addons)
    except BaseException:
        _remove(cluster)
        raise
    return cluster


def check(plan: Plan) -> None:
    """Raise CannotStart, before anything is built, for all that is wrong with the plan, or else with the machine."""
    wrong = list(state.problems(plan.name, plan.nodes))
    chosen: list[addons.Addon] = []
    try:
        chosen = addons.named(plan.addons)
    except CannotStart as error:
        wrong.append(str(error))
    if plan.kubernetes_version.removeprefix("v") not in (known := kubernetes_versions()):
        wrong.append(f"Kubernetes {plan.kubernetes_version} cannot be had here; choose from: {', '.join(known)}")
    if not 0 < plan.timeout_scale < math.inf:
        wrong.append(f"--timeout-scale={plan.timeout_scale:g} has to be a finite number that is more than 0")
    if wrong:
        raise CannotStart("\n  ".join(wrong if len(wrong) == 1 else ["no such cluster can be started:", *wrong]))
    refused = [f"add-on {addon.name}: {reason}" for addon in chosen if (reason := addon.refused())]
    preflight.check(plan.nodes + sum(addon.nodes for addon in chosen), refused, addons=bool(plan.addons))


def capabilities(chosen: Iterable[addons.Addon]) -> tuple[str, ...]:
    """What a cluster with these add-ons can do, whoever uses it."""
    more = [capability for addon in chosen for capability in addon.capabilities]
    return ("access.certificates", "nodes.own", *more)


def down(name: str) -> None:
    """End a cluster and remove every trace of it; works from what the machine shows, however far its start came."""
    _remove(state.load(name))


def _remove(cluster: ClusterState) -> None:
    while processes := network.processes_in(state.namespaces_of(cluster.name)):
        process.kill(processes)
    process.reap()
    clusterset.leave(cluster)
    loops.detach(cluster.folder / "disks")
    network.delete(cluster)
    cgroups.remove(cluster.name)
    state.forget(cluster.name)


class Launch:
    """One start of one cluster. What does not depend on each other runs side by side."""

    def __init__(self, cluster: ClusterState, artifacts: builder.Artifacts, store: Path, progress: Progress) -> None:
        self.cluster = cluster
        self._artifacts = artifacts
        self._store = store
        self._progress = progress
        self._started = time.monotonic()
        self._nodes: list[NodeProcesses] = []
        self._control_plane: ControlPlane | None = None
        self._beside: list[Component] = []
        self.milestones: dict[str, float] = {}
        """Seconds from the first process to what was reached: `API server ready`, `2 nodes Ready`, `dns ready`, ..."""

    def run(self, names: Sequence[str]) -> None:
        """Start everything and wait for it."""
        cluster = self.cluster
        chosen = addons.named(names)
        cluster.addons = [addon.name for addon in chosen]
        with_nodes = [addon for addon in chosen if addon.name in addons.WITH_NODES]
        first = [addon for addon in chosen if addon.name in addons.FIRST and addon not in with_nodes]
        others = [addon for addon in chosen if addon.name not in addons.FIRST]
        with ThreadPoolExecutor(max_workers=4) as pool:
            cluster.store = str(self._store)
            control_plane = self._start_network_and_etcd()
            prepared = [pool.submit(self._prepare, node) for node in cluster.nodes]
            control_plane.start_api_server()
            self._nodes = _all(prepared)
            client = self._await_api_server(control_plane, SERVES)
            joining = [pool.submit(join, cluster, node) for node in self._nodes]
            self._apply(client, with_nodes)
            self._await_api_server(control_plane, READY)
            self._said("API server ready")
            control_plane.start_controllers()
            _all(joining)
            applied = pool.submit(self._apply, client.clone(), first)
            for node in self._nodes:
                node.start_kube_proxy()
            cluster.save()
            self._await_nodes(client)
            self._said(f"{len(cluster.nodes)} nodes Ready")
            applied.result()
        self._await_addons(client, [*with_nodes, *first])
        self._apply(client, others)
        self._await_addons(client, others)
        self._let_kubelets_renew(client)
        self._declare(client, chosen)
        self._check_programs()
        cluster.ready = True
        cluster.save()

    def _prepare(self, node: Node) -> NodeProcesses:
        network.add_node(self.cluster, node)
        processes = NodeProcesses(self.cluster, node, self._artifacts)
        processes.prepare(self._store)
        return processes

    def _apply(self, client: Client, chosen: Sequence[addons.Addon]) -> None:
        addons.apply(self.cluster, self._artifacts, client, chosen, self._beside)

    def _declare(self, client: Client, chosen: Sequence[addons.Addon]) -> None:
        """Tell what the cluster can do, for those who reach it by its kubeconfig alone."""
        told = manifests.config_map("clusterproof", {"capabilities": " ".join(capabilities(chosen))})
        client.post(kinds.CONFIG_MAP.path("kube-public"), told)

    def _let_kubelets_renew(self, client: Client) -> None:
        """Let kubelets be given new certificates when theirs are about to end, as kubeadm does."""
        kubelets = manifests.subject("Group", KUBELETS)
        client.post(
            kinds.CLUSTER_ROLE_BINDING.path(), manifests.cluster_role_binding("kubelet-renewal", RENEWAL, [kubelets])
        )

    def run_api_server_alone(self) -> None:
        """The floor of every start: the network, etcd, and an API server that answers."""
        control_plane = self._start_network_and_etcd()
        control_plane.start_api_server()
        self._await_api_server(control_plane, READY)
        self._said("API server ready")

    def _start_network_and_etcd(self) -> ControlPlane:
        self.cluster.logs.mkdir(parents=True)
        network.create(self.cluster)
        self._control_plane = ControlPlane(self.cluster, self._artifacts)
        self._control_plane.prepare()
        return self._control_plane

    def _await_api_server(self, control_plane: ControlPlane, path: str) -> Client:
        within = API_SERVER * self.cluster.timeout_scale
        client = administrator(self.cluster)
        deadline = time.monotonic() + within
        while True:
            try:
                answer = client.request("GET", path, timeout=WINDOW * self.cluster.timeout_scale)
                if answer.status == 200:
                    return client
                seen = answer.text
            except SurroundingsError as error:
                seen = str(error)
            self._check_programs()
            if time.monotonic() > deadline:
                last_words = control_plane.components[-1].last_words
                raise EmbeddedError(f"kube-apiserver is not ready after {within:g} s {SLOWER}: {seen}; {last_words}")
            time.sleep(0.05)

    def _await_nodes(self, client: Client) -> None:
        within = NODES * self.cluster.timeout_scale
        wanted = {node.name for node in self.cluster.nodes}
        nodes = Selection(client, kinds.NODE)
        try:
            self._await(lambda window: eventually(nodes, lambda seen: _unready(seen, wanted), within=window), within)
        except NeverHappened as late:
            kubelets = [one.last_words for node in self._nodes for one in node.components if "kubelet" in one.name]
            raise EmbeddedError(f"nodes are not Ready after {within:g} s: {late}; {kubelets[0]}") from late

    def _await_addons(self, client: Client, chosen: Sequence[addons.Addon]) -> None:
        within = ADDON * self.cluster.timeout_scale
        for addon in chosen:
            try:
                self._await(partial(addons.await_ready, addon, client), within)
            except NeverHappened as late:
                raise EmbeddedError(f"add-on {addon.name} is not ready after {within:g} s: {late}") from late
            self._said(f"{addon.name} ready")

    def _await(self, wait: Callable[[float], object], within: float) -> None:
        """Wait in windows of a few seconds, and between them look whether a program has ended.

        An API server that does not answer meanwhile may just be busy. NeverHappened when time is up.
        """
        deadline = time.monotonic() + within
        while True:
            try:
                wait(min(WINDOW * self.cluster.timeout_scale, within))
                return
            except (NeverHappened, SurroundingsError) as late:
                self._check_programs()
                if time.monotonic() > deadline:
                    raise NeverHappened(str(late)) from late

    def _check_programs(self) -> None:
        """Raise EmbeddedError for the first program that has ended."""
        of_control_plane = self._control_plane.components if self._control_plane else []
        for component in (*of_control_plane, *self._beside, *(one for node in self._nodes for one in node.components)):
            component.check()

    def _said(self, what: str) -> None:
        self.milestones[what] = time.monotonic() - self._started
        self._progress(f"{self.cluster.name}: {what} after {self.milestones[what]:.1f} s")


def join(cluster: ClusterState, processes: NodeProcesses, taints: Sequence[dict[str, str]] = ()) -> None:
    """Register the node, with the range its routes lead to, and start its kubelet, which makes it Ready."""
    node = processes.node
    administrator(cluster).post(
        kinds.NODE.path(),
        {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": node.name},
            "spec": {
                "podCIDR": node.pods,
                "podCIDRs": [node.pods],
                # The cloud finds it out where there is one.
                **({} if cluster.cloud else {"providerID": cluster.provider_id(node)}),
                # A kubelet adds that of the cloud only to a Node that it makes itself.
                "taints": [*([NOT_YET_KNOWN] if cluster.cloud else []), *taints],
            },
        },
    )
    processes.start_kubelet()


def administrator(cluster: ClusterState) -> Client:
    """What the kubeconfig makes, but without copies of its key in temporary files, which stay when this is killed."""
    configuration = Configuration()
    configuration.host, configuration.proxy = cluster.server, None
    configuration.ssl_ca_cert = str(cluster.pki / "ca.crt")
    configuration.cert_file, configuration.key_file = str(cluster.pki / "admin.crt"), str(cluster.pki / "admin.key")
    return Client(configuration)


def _unready(seen: list[Object], wanted: set[str]) -> str | None:
    """A condition: the wanted nodes are all Ready and take pods, known to the cloud where there is one."""
    waiting = {node.name: missing for node in seen if (missing := takes_pods(node))}
    waiting |= {name: "it has not registered" for name in wanted - {node.name for node in seen}}
    return "; ".join(f"{name}: {missing}" for name, missing in sorted(waiting.items())) or None


def _all(futures: Sequence[Future[T]]) -> list[T]:
    """Results of what runs side by side; the first failure is raised once all have ended."""
    wait(futures)
    return [future.result() for future in futures]
