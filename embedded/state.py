"""What this machine knows about its embedded clusters: one folder each, and the address ranges it was given.

The folder is the whole truth: `down`, `status` and `sweep` work from it, also after the launcher was killed or the
machine was restarted.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any, TypeVar, cast

from filelock import FileLock

from clusterproof.errors import SurroundingsError

T = TypeVar("T")

RANGE = IPv4Network("10.192.0.0/10")
"""All addresses of all embedded clusters: nodes 10.201/16, load balancers 10.202/16, pods 10.208/12,
Services 10.224/14."""
NAMESPACES = Path("/run/netns")
"""Where `ip netns` keeps namespaces by name."""
MOST = 64
"""Clusters one machine can have at a time."""
MOST_NODES = 127
"""Nodes one cluster can have at a time."""
NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?")


class EmbeddedError(SurroundingsError):
    """Something about an embedded cluster did not work; the message says what, of which part, and what to do."""


class CannotStart(EmbeddedError):
    """A cluster cannot be what was asked for, or not on this machine; nothing was started."""


def root() -> Path:
    """Folder of all embedded clusters of this machine (`$CLUSTERPROOF_STATE`, else /var/lib/clusterproof)."""
    return Path(os.environ.get("CLUSTERPROOF_STATE", "/var/lib/clusterproof"))


def lock() -> FileLock:
    """Held while clusters are added to or taken off this machine's list."""
    root().mkdir(mode=0o711, parents=True, exist_ok=True)
    return FileLock(root() / ".lock")


@dataclass(frozen=True, slots=True)
class Node:
    """One node's name and addresses."""

    name: str
    address: str
    pods: str
    """Range of its pods' addresses."""
    claim: str = ""
    """For whom it was added, where somebody wants to find it again by that."""


@dataclass(slots=True)
class Program:
    """A program that was started, and how to start it again."""

    anchor: str
    """Where it runs: a node's name, or `control-plane`."""
    command: list[str]
    pid: int
    """Process id on the host of the `nsenter` whose only child it is."""


@dataclass(slots=True)
class ClusterState:
    """One embedded cluster: its name, its place among the others, and its nodes."""

    name: str
    index: int
    """0 to 63: decides all its address ranges."""
    kubernetes_version: str
    nodes: list[Node] = field(default_factory=list)
    addons: list[str] = field(default_factory=list)
    anchors: dict[str, int] = field(default_factory=dict)
    """Process id on the host of each node's first process; the control plane is `control-plane`."""
    programs: dict[str, Program] = field(default_factory=dict)
    """What runs, by name: `kube-apiserver`, `<node>/kubelet`."""
    store: str = ""
    """Folder with the images that every node starts with."""
    numbered: int = 0
    """Number of the node that was named last."""
    ready: bool = False
    """Its start is complete."""
    owner: int = 0
    """Process id of the run that it belongs to; 0 when somebody started it by hand."""
    launcher: str = ""
    """The process that starts it, as `identity` has it."""
    peers: list[str] = field(default_factory=list)
    """Names of the clusters that it was joined with to a ClusterSet."""
    timeout_scale: float = 1.0
    """What the seconds are multiplied with that its programs and nodes may take, on this machine."""

    @property
    def abandoned(self) -> bool:
        """Nobody will end it: its start was cut off, or the run that it belongs to was."""
        return (not self.ready or bool(self.owner)) and not _lives(self.launcher)

    @property
    def folder(self) -> Path:
        """Everything this cluster has on disk."""
        return root() / self.name

    @property
    def pki(self) -> Path:
        """Certificates and keys."""
        return self.folder / "pki"

    @property
    def logs(self) -> Path:
        """One file for each component of each node."""
        return self.folder / "logs"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig, mode 0600."""
        return self.folder / "kubeconfig"

    @property
    def control_plane(self) -> str:
        """Name of the control plane's network namespace."""
        return namespace_name(self.name, "control-plane")

    def log(self, program: str) -> Path:
        """Log of a program."""
        return self.logs / f"{program}.log"

    @property
    def node_network(self) -> IPv4Network:
        """The network that nodes, control plane and host share."""
        return IPv4Network(f"10.201.{self.index}.0/24")

    @property
    def balancer_network(self) -> IPv4Network:
        """Addresses that load balancers may have."""
        return IPv4Network(f"10.202.{self.index}.0/24")

    @property
    def pod_network(self) -> IPv4Network:
        """All pods' addresses; each node has a /25 of it."""
        return IPv4Network(f"10.{208 + self.index // 4}.{64 * (self.index % 4)}.0/18")

    @property
    def service_network(self) -> IPv4Network:
        """All Services' cluster IPs."""
        return IPv4Network(f"10.{224 + self.index // 16}.{16 * (self.index % 16)}.0/20")

    @property
    def api_address(self) -> IPv4Address:
        """Where the API server listens."""
        return self.node_network[1]

    @property
    def host_address(self) -> IPv4Address:
        """This machine's own address in the cluster's network."""
        return self.node_network[254]

    @property
    def cloud(self) -> bool:
        """Whether a cloud controller manager looks after the nodes."""
        return "cloud" in self.addons

    @property
    def disks(self) -> Path | None:
        """Folder of the volumes that nodes share; None where the cluster has no such ones."""
        return self.folder / "disks" if "disks" in self.addons else None

    @property
    def members(self) -> Path:
        """Folder with a kubeconfig for each member of its ClusterSet, itself included, where it is in one."""
        return self.folder / "members"

    @property
    def dns_address(self) -> IPv4Address:
        """Cluster IP of the DNS Service."""
        return self.service_network[10]

    @property
    def server(self) -> str:
        """URL of the API server."""
        return f"https://{self.api_address}:6443"

    def plan_node(self, claim: str = "") -> Node:
        """Give name and addresses to one more node; those of nodes that were removed come last."""
        taken = {node.name for node in self.nodes}
        turns = (turn % MOST_NODES + 1 for turn in range(self.numbered, self.numbered + MOST_NODES))
        number = next((each for each in turns if self._node_name(each) not in taken), 0)
        if not number:
            raise EmbeddedError(f"cluster {self.name} has {MOST_NODES} nodes already, as many as there can be")
        ranges = list(self.pod_network.subnets(new_prefix=25))
        address = self.node_network[10 + number]
        node = Node(self._node_name(number), str(address), str(ranges[number - 1]), claim)
        self.nodes.append(node)
        self.numbered = number
        return node

    def _node_name(self, number: int) -> str:
        return f"{self.name}-node-{number}"

    def provider_id(self, node: Node) -> str:
        """What the node is called by whoever provides it."""
        return f"embedded://{self.name}/{node.name}"

    def node_folder(self, node: Node) -> Path:
        """What is under /var/lib, /var/log, /opt and /tmp on that node."""
        return self.folder / "nodes" / node.name

    def node(self, name: str) -> Node:
        """The node of that name; EmbeddedError when there is none."""
        for node in self.nodes:
            if node.name == name:
                return node
        known = ", ".join(node.name for node in self.nodes)
        raise EmbeddedError(f"cluster {self.name} has no node {name!r}; it has: {known}")

    @contextlib.contextmanager
    def changing(self) -> Iterator[None]:
        """While it is changed: first it becomes what others have written meanwhile, and it is written at the end.

        Others wait until then: programs are restarted, and nodes come and go, by several processes.
        """
        with FileLock(self.folder / ".lock"):
            now = load(self.name)
            for each in fields(ClusterState):
                setattr(self, each.name, getattr(now, each.name))
            try:
                yield
            finally:
                self.save()

    def save(self) -> None:
        """Write the state so that a reader never sees half of it; once it is ready, only inside of `changing`."""
        draft = self.folder / "state.json.new"
        draft.write_text(self.text())
        draft.replace(self.folder / "state.json")

    def text(self) -> str:
        """What `load` reads."""
        return json.dumps(asdict(self), indent=1)


def namespace_name(cluster: str, node: str) -> str:
    """Name of a network namespace, told from everybody else's by its prefix."""
    return f"clusterproof-{cluster}-{node}"


def namespaces_of(cluster: str) -> list[str]:
    """Names of the network namespaces of one cluster, and of none whose name only begins like its."""
    nodes = re.compile(rf"{namespace_name(cluster, f'{cluster}-node-')}\d+")
    control_plane = namespace_name(cluster, "control-plane")
    there = (path.name for path in NAMESPACES.glob(f"{namespace_name(cluster, '')}*"))
    return sorted(name for name in there if name == control_plane or nodes.fullmatch(name))


def identity(pid: int) -> str:
    """A process of this machine, told from a later one that gets the same id: `<id>:<when it began>`; or nothing."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else f"{pid}:{fields[19]}"


def _lives(process: str) -> bool:
    return bool(process) and identity(int(process.partition(":")[0])) == process


def load(name: str) -> ClusterState:
    """The state of a cluster of this machine; EmbeddedError when there is none."""
    found = _read(name)
    if found is None:
        known = ", ".join(state.name for state in clusters()) or "none"
        raise EmbeddedError(f"no embedded cluster {name!r} on this machine; there are: {known}")
    return found


def _read(name: str) -> ClusterState | None:
    path = root() / name / "state.json"
    try:
        raw = json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError:
        raise EmbeddedError(f"embedded clusters are root's, and {path} cannot be read: run it with sudo") from None
    raw["nodes"] = [_made(Node, node) for node in raw["nodes"]]
    raw["programs"] = {name: _made(Program, program) for name, program in raw.get("programs", {}).items()}
    return _made(ClusterState, raw)


def _made(what: type[T], raw: dict[str, Any]) -> T:
    """Of the fields that are known here: a state that another version of this program wrote is enough for `down`."""
    known_fields = {each.name for each in fields(cast(Any, what))}
    return what(**{key: value for key, value in raw.items() if key in known_fields})


def clusters() -> list[ClusterState]:
    """All embedded clusters of this machine, also those that are half built."""
    try:
        names = sorted(os.listdir(root()))
    except FileNotFoundError:
        return []
    except PermissionError:
        raise EmbeddedError(f"embedded clusters are root's, and {root()} cannot be read: run it with sudo") from None
    return [state for name in names if NAME.fullmatch(name) and (state := _read(name))]


def problems(name: str, nodes: int) -> Iterator[str]:
    """Why there can be no new cluster like that, one sentence each, before anything is built for it."""
    if not NAME.fullmatch(name):
        yield f"--name={name}: a cluster's name has 1 to 40 of a-z, 0-9 and -, and starts and ends with no -"
    elif (root() / name).exists():
        yield f"embedded cluster {name!r} exists already; remove it with: clusterproof down --name {name}"
    elif there := namespaces_of(name):
        yield (
            f"--name={name}: network namespaces of such a cluster are there ({', '.join(there)}), but not in {root()}: "
            "choose another name, or set CLUSTERPROOF_STATE to where it was started"
        )
    if not 1 <= nodes <= MOST_NODES:
        yield f"--nodes={nodes}: an embedded cluster has 1 to {MOST_NODES} nodes"


def allocate(name: str, kubernetes_version: str, nodes: int, owner: int = 0) -> ClusterState:
    """Enter a new cluster in this machine's list, with address ranges that nothing else here uses."""
    with lock():
        for problem in problems(name, nodes):
            raise CannotStart(problem)
        taken = {state.index for state in clusters()}
        foreign = _routed_networks()
        for index in range(MOST):
            state = ClusterState(name, index, kubernetes_version, owner=owner, launcher=identity(os.getpid()))
            wanted = (state.node_network, state.balancer_network, state.pod_network, state.service_network)
            if index not in taken and not any(a.overlaps(b) for a in wanted for b in foreign):
                for _ in range(nodes):
                    state.plan_node()
                _enter(state)
                return state
    raise CannotStart(f"no free address range: {len(taken)} embedded clusters and the host's routes use all of {RANGE}")


def _hidden(name: str) -> Path:
    """Where a folder is that is not yet, or no longer, a cluster's; nothing that was there stays."""
    for left in root().glob(".clusterproof-*"):
        shutil.rmtree(left, ignore_errors=True)
    return root() / f".clusterproof-{name}"


def _enter(state: ClusterState) -> None:
    """Make its folder, with the state in it from the first moment: without that nobody could end the cluster."""
    draft = _hidden(state.name)
    draft.mkdir(mode=0o700)
    (draft / "state.json").write_text(state.text())
    draft.rename(state.folder)


def forget(name: str) -> None:
    """Remove a cluster's folder, the last trace of it; at once as far as others see it."""
    with lock():
        with contextlib.suppress(FileNotFoundError):  # somebody else was quicker
            (root() / name).rename(_hidden(name))
        _hidden(name)


def _routed_networks() -> list[IPv4Network]:
    """Networks inside our range that this machine already routes somewhere."""
    routes = subprocess.run(["ip", "-json", "route", "show", "table", "all"], capture_output=True, check=False)
    if routes.returncode:
        raise EmbeddedError(f"the host's routes cannot be read: ip: {routes.stderr.decode(errors='replace').strip()}")
    found = []
    for route in json.loads(routes.stdout or "[]"):
        try:
            network = IPv4Network(route["dst"])
        except ValueError:
            continue  # "default", or IPv6
        if network.subnet_of(RANGE):
            found.append(network)
    return found
