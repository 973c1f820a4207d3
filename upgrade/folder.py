"""The folder in which an upgrade's observation is kept: all of it, so that any machine that has it can go on."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from clusterproof import external
from clusterproof.client import Client

from .timeline import Timeline

FORMAT = 1
"""Of `before.json`; raised when older programs would misread it."""


@dataclass(slots=True)
class Before:
    """What was laid down, and what the cluster was like then. Plain data."""

    run: str
    """Value of the run label of everything that was laid down."""
    namespace: str
    kubeconfig: str
    context: str
    cluster: str
    """Uid of the namespace kube-system: which cluster it is."""
    image: str
    started: float
    """Seconds since the epoch."""
    format: int = FORMAT
    complete: bool = False
    """Everything is in place and answers."""
    version: str = ""
    """gitVersion of the API server."""
    nodes: dict[str, dict[str, Any]] = field(default_factory=dict)
    surface: list[str] = field(default_factory=list)
    """Every resource that was served: `apps/v1/deployments`."""
    foreign_groups: list[str] = field(default_factory=list)
    """API groups that definitions or other servers bring: no upgrade of Kubernetes removes their versions."""
    objects: list[dict[str, Any]] = field(default_factory=list)
    """What was laid down: apiVersion, kind, plural, namespaced, namespace, name, uid."""
    services: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Every Service of the cluster by namespace/name: its addresses and node ports."""
    containers: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Every pod of the cluster by uid: its name, node, and restarts."""
    volumes: dict[str, str] = field(default_factory=dict)
    """SHA-256 of what was written, by pod, or by the claim that no pod uses."""
    custom_group: str = ""
    service: str = ""
    """Address of the Service that is asked all the time."""
    ingress: str = ""
    """`host:port` at which Ingresses are reached; empty without."""
    balancer: str = ""
    """`host:port` of the Service with a load balancer; empty without."""
    token: str = ""
    """A service account's, from before."""
    token_until: float = 0.0
    unsupported: dict[str, str] = field(default_factory=dict)
    """What was not laid down, and why."""

    @property
    def host(self) -> str:
        """The host name that the Ingress serves."""
        return f"{self.namespace}.clusterproof.test"


class Folder:
    """The folder, by what is in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.timeline = Timeline(path / "timeline.jsonl")

    @property
    def stop(self) -> Path:
        """A file whose presence tells the monitor to end."""
        return self.path / "stop"

    def monitor_lock(self) -> FileLock:
        """Held by the monitor while it runs; the kernel takes it from one that was killed."""
        return FileLock(self.path / "monitor.lock")

    def make(self, before: Before) -> None:
        """Start an observation here; UsageError when there is one already."""
        if (self.path / "before.json").exists():
            there = self.load()
            raise pytest.UsageError(
                f"--state={self.path}: holds an observation already (run {there.run}, namespace {there.namespace}); "
                "choose another folder, or end that one with: clusterproof upgrade verify --remove"
            )
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.save(before)
        except OSError as error:
            raise pytest.UsageError(f"--state={self.path}: cannot be written: {error}") from error

    def save(self, before: Before) -> None:
        """Write it so that a reader never sees half of it."""
        draft = self.path / "before.json.new"
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(asdict(before), file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        draft.rename(self.path / "before.json")

    def end(self) -> None:
        """Put aside what is there, under the run's name, so that the folder can be used again."""
        run = self.load().run
        for name, suffix in (("before", "json"), ("timeline", "jsonl")):
            if (self.path / f"{name}.{suffix}").exists():
                (self.path / f"{name}.{suffix}").rename(self.path / f"{name}-{run}.{suffix}")

    def load(self) -> Before:
        """What was laid down; UsageError when nothing was, or not all of it."""
        try:
            raw = json.loads((self.path / "before.json").read_text())
            known = {each.name for each in fields(Before)}
            before = Before(**{name: value for name, value in raw.items() if name in known})
        except FileNotFoundError:
            raise pytest.UsageError(
                f"--state={self.path}: nothing was prepared there; begin with: clusterproof upgrade prepare"
            ) from None
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise pytest.UsageError(f"--state={self.path}: before.json cannot be read: {error}") from error
        if before.format != FORMAT:
            raise pytest.UsageError(f"--state={self.path}: was written in format {before.format}, this reads {FORMAT}")
        return before

    def prepared(self, kubeconfig: Path | None, context: str) -> tuple[Before, Client]:
        """What was laid down and a client for that cluster, by another kubeconfig or context where one is named.

        UsageError when `prepare` did not finish, or the kubeconfig names another cluster.
        """
        before = self.load()
        if not before.complete:
            raise pytest.UsageError(
                f"--state={self.path}: `prepare` was cut off; remove what it made with: clusterproof upgrade verify "
                f"--remove --state {self.path}, then prepare again"
            )
        client, _, _ = external.connect(kubeconfig or Path(before.kubeconfig), context or before.context)
        return before, client
