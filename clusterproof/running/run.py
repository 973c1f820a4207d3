"""One run over all its worker processes: its id, its folder, and the cluster that exactly one of them creates."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import functools
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from clusterproof import provider
from clusterproof.errors import ApiError, SurroundingsError
from clusterproof.kinds import Kind
from clusterproof.outcome import CapabilityFact, ClusterFacts, NodeFact
from clusterproof.provider import Access, Shape
from clusterproof.settings import NEW, Settings

KINDS = "kinds"
"""File of the run's folder: kinds of what it created outside of its namespaces, each on a line."""
IN_USE = "in-use"
"""File of the run's folder that each of its processes holds a lock on, as long as it lives."""
REUSED = "clusterproof"
"""What the cluster is called that runs with --reuse share, when they give it no name."""


@dataclass(frozen=True, slots=True)
class RunFolder:
    """What the processes of a run share. The controller makes it; workers get its path."""

    id: str
    path: Path

    @classmethod
    def make(cls, run_id: str = "") -> RunFolder:
        """A new run, with a random id where none is given."""
        run_id = run_id or secrets.token_hex(4)
        # Made at first use: a pytest run without promises leaves no trace.
        return cls(run_id, Path(tempfile.gettempdir(), f"{_folders(run_id)}{secrets.token_hex(4)}"))

    def acquire(self, settings: Settings, needs: frozenset[str] | None = None) -> tuple[Access, ClusterFacts]:
        """The run's cluster: the first process to come creates it, the others wait.

        `needs` are names of all the capabilities that the run asks for, if they are known. UsageError with one sentence
        when it cannot be had; every process gets the same.
        """
        with self.locked("cluster"):
            if (self.path / "failure").exists():
                raise pytest.UsageError((self.path / "failure").read_text())
            if not self.ready:
                self._create(settings, needs)
        return self.access(), self.facts()

    def adopt(self, settings: Settings, access: Access, uid: str) -> bool:
        """Go on with the cluster of an interrupted run, which has this UID of namespace kube-system.

        Where it has gone, what is left of it is removed, and a new one can be made under its name.
        """
        from kubernetes.config import ConfigException

        from clusterproof import facts
        from clusterproof.client import Client

        source = provider.load(settings.cluster)
        try:
            client = Client.from_kubeconfig(access.kubeconfig, access.context)
            found = facts.detect(client, access, settings.capabilities)
            there = found.uid == uid
        except (SurroundingsError, ApiError, OSError, ConfigException):
            there = False
        if not there:
            source.delete(access)
            return False
        source.adopt(access)
        self.write("access.json", dataclasses.asdict(access))
        self.write("facts.json", dataclasses.asdict(found))
        return True

    def facts(self) -> ClusterFacts:
        """What was found out about the run's cluster; OSError when there is none."""
        return facts_of(self.read("facts.json"))

    def access(self) -> Access:
        """How to reach the run's cluster; KeyError when it was never created."""
        return access_of(self.read("access.json"))

    @property
    def created(self) -> bool:
        """Whether there is a cluster to give back."""
        return self.has("access.json")

    @property
    def ready(self) -> bool:
        """Whether there is a cluster that promises can be proven on."""
        return self.has("facts.json")

    def release(self, settings: Settings) -> None:
        """Delete the cluster, unless it is to be kept or was only found."""
        if self.created and not settings.keeps_cluster:
            provider.load(settings.cluster).delete(self.access())

    def remove(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.path, ignore_errors=True)

    def write(self, name: str, value: Any) -> None:
        """Share a JSON value with the other processes, whole or not at all."""
        self._exist()
        part = self.path / f"{name}.{os.getpid()}"
        part.write_text(json.dumps(value))
        part.rename(self.path / name)

    def has(self, name: str) -> bool:
        """Whether a process has shared a value of that name."""
        return (self.path / name).exists()

    def locked(self, name: str) -> FileLock:
        """A lock of the run's processes on what one of them does for all."""
        self._exist()
        return FileLock(self.path / f"{name}.lock")

    def _exist(self) -> None:
        self.path.mkdir(mode=0o700, exist_ok=True)
        _use(self.path)

    def _create(self, settings: Settings, needs: frozenset[str] | None) -> None:
        from clusterproof import external, facts
        from clusterproof.client import Client

        source = provider.load(settings.cluster)
        try:
            # First: nothing is to be made beside a cluster that cannot be used.
            peer = external.peer(settings.peer) if settings.peer not in ("", NEW) else None
            access = source.create(shape(settings, self.id, needs))
            access = dataclasses.replace(access, peer=peer or access.peer)
            self.write("access.json", dataclasses.asdict(access))
            client = Client.from_kubeconfig(access.kubeconfig, access.context)
            found = facts.detect(client, access, settings.capabilities)
            if peer and found.uid and found.uid == facts.uid(Client.from_kubeconfig(peer.kubeconfig, peer.context)):
                raise pytest.UsageError(
                    f"--peer={settings.peer}: is the cluster under proof itself, by the UID of its namespace "
                    f"kube-system; name another cluster of its ClusterSet"
                )
            self.write("facts.json", dataclasses.asdict(found))
        except (pytest.UsageError, SurroundingsError, ApiError, OSError, RuntimeError) as error:
            sentence = str(error) if isinstance(error, pytest.UsageError) else f"--cluster={settings.cluster}: {error}"
            (self.path / "failure").write_text(sentence)
            raise pytest.UsageError(sentence) from error

    def note_kinds(self, kinds: Iterable[Kind]) -> None:
        """Remember kinds of which the run has created objects that do not go with its namespaces."""
        if lines := "".join(f"{json.dumps(dataclasses.asdict(kind))}\n" for kind in kinds):
            self._exist()
            with contextlib.suppress(OSError), (self.path / KINDS).open("a") as file:  # a full disk ends no run
                file.write(lines)  # at once, so that what several processes write is not mixed

    def noted_kinds(self) -> set[Kind]:
        """Every kind that a process of the run has noted."""
        with contextlib.suppress(FileNotFoundError):
            return {Kind(**json.loads(line)) for line in (self.path / KINDS).read_text().splitlines()}
        return set()

    def read(self, name: str) -> dict[str, Any]:
        """A value that a process has shared; OSError when none has."""
        value: dict[str, Any] = json.loads((self.path / name).read_text())
        return value


def sweep(run_id: str = "") -> Iterator[str]:
    """Remove the folders of runs whose processes were all killed, or of one such run; what was removed."""
    for lock in Path(tempfile.gettempdir()).glob(f"{_folders(run_id or '*')}*/{IN_USE}"):
        with contextlib.suppress(OSError), lock.open() as file:  # in use, or somebody else's
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(lock.parent)
            yield f"removed files of a killed run: {lock.parent}"


def _folders(run_id: str) -> str:
    return f"clusterproof-{run_id}-"


@functools.cache
def _use(folder: Path) -> int:
    # Processes that were forked from this one share the lock, and programs that it starts do not.
    lock = os.open(folder / IN_USE, os.O_RDONLY | os.O_CREAT, 0o600)
    fcntl.flock(lock, fcntl.LOCK_SH)
    return lock


def cluster_name(run_id: str) -> str:
    """What the cluster of a run is called that was given no name: fit for names of Kubernetes objects."""
    return f"cp-{run_id[:37]}".rstrip("-")


def shape(settings: Settings, run_id: str, needs: frozenset[str] | None = None) -> Shape:
    """What the user asked the cluster to be, and what it has to be able to do, if that is known."""
    return Shape(
        name=settings.cluster_name or (REUSED if settings.reuse else cluster_name(run_id)),
        nodes=settings.nodes,
        kubernetes_version=settings.kubernetes_version,
        kubeconfig=settings.kubeconfig,
        context=settings.context,
        layout=settings.shape,
        node_image=settings.node_image,
        keep=settings.keeps_cluster,
        reuse=settings.reuse,
        disruptive=settings.disruptive,
        peered=settings.peer == NEW,
        namespaces=settings.namespaces,
        needs=None if settings.keeps_cluster else needs,
        timeout_scale=settings.timeout_scale,
    )


def access_of(raw: dict[str, Any]) -> Access:
    """What was written as JSON."""
    peer = access_of(raw["peer"]) if raw.get("peer") else None
    return Access(**{**raw, "capabilities": tuple(raw["capabilities"]), "peer": peer})


def facts_of(raw: dict[str, Any]) -> ClusterFacts:
    """What was written as JSON."""
    nodes = tuple(NodeFact(**node) for node in raw["nodes"])
    claims = tuple(CapabilityFact(**claim) for claim in raw["capabilities"])
    return ClusterFacts(**{**raw, "nodes": nodes, "capabilities": claims, "kinds": tuple(raw["kinds"])})
