"""pytest-kubernetes' managers of kind, k3d and minikube, as a conformance run needs them.

What is different from theirs: a cluster has exactly the name it was given; no shell is involved, so that names and
manifests may have any character; what a program said is in the error; ready means that every node and DNS are Ready;
nothing but our own kubeconfig is ever changed. Theirs stay as they are for the `k8s` fixture.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml
from kubernetes.config import ConfigException
from pytest_kubernetes.options import ClusterOptions
from pytest_kubernetes.providers.base import AClusterManager
from pytest_kubernetes.providers.k3d import K3dManagerBase
from pytest_kubernetes.providers.kind import KindManagerBase
from pytest_kubernetes.providers.minikube import MinikubeManager

from clusterproof import kinds
from clusterproof.client import Client
from clusterproof.conditions import ready
from clusterproof.errors import ApiError, NeverHappened, SurroundingsError
from clusterproof.objects import Object, Selection
from clusterproof.wait import eventually

from .shapes import Layout

CREATE = 600
"""Seconds that the program may take to make a cluster, with images to be pulled."""
READY = 240
"""Seconds that nodes and DNS may take after that."""

LAST_LINES = 15


class Manager(AClusterManager):  # type: ignore[misc]  # pytest-kubernetes has no types
    """What is the same for all three."""

    layout: Layout
    image = ""
    """Image of the nodes; empty for the program's own choice."""
    version_asked = ""
    """Kubernetes version; empty for the program's own choice."""

    @classmethod
    def of(
        cls,
        name: str,
        kubeconfig: Path,
        layout: Layout,
        image: str = "",
        version: str = "",
        within: float = CREATE,
    ) -> Manager:
        """A manager for one cluster, whose kubeconfig is (or will be) in that file; made within so many seconds."""
        manager = cls(name, None, kubeconfig)
        manager._cluster_options.cluster_timeout = round(within)
        manager.layout, manager.image, manager.version_asked = layout, image, version
        return manager

    def _set_cluster_name(self, cluster_name: str | None, provider_config: str | None) -> str:
        self._cluster_options.cluster_name = cluster_name
        return str(cluster_name)

    def _exec(
        self, arguments: list[str], additional_env: dict[str, str] | None = None, timeout: int | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run the program; SurroundingsError with its last lines when it fails or takes too long."""
        # It ends with a run that is killed: otherwise it would go on making what was swept already.
        with_us = ["setpriv", "--pdeathsig=KILL"] if sys.platform == "linux" else []
        words = [*with_us, str(self._exec_path), *arguments]
        called = " ".join([self.get_binary_name(), *arguments[:2]])
        within = timeout or self._cluster_options.cluster_timeout
        try:
            done = subprocess.run(
                words,
                env={**os.environ, **(additional_env or {})},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=within,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise SurroundingsError(f"`{called}` of cluster {self.cluster_name} took more than {within} s") from error
        if done.returncode:
            lines = "\n".join(f"  {line}" for line in (done.stdout + done.stderr).strip().splitlines()[-LAST_LINES:])
            raise SurroundingsError(f"`{called}` of cluster {self.cluster_name} ended with {done.returncode}:\n{lines}")
        return done

    def apply(self, input: Path | str | dict[str, Any]) -> None:
        """Apply a file or an object."""
        if not isinstance(input, dict):
            super().apply(input)
            return
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            yaml.safe_dump(input, file)
            file.flush()
            super().apply(Path(file.name))

    def version(self) -> tuple[int, int]:
        """Major and minor of the API server; some append a `+` to theirs."""
        found = Client.from_kubeconfig(str(self.kubeconfig)).get("/version")
        return int(found["major"]), int(str(found["minor"]).rstrip("+"))

    def ready(self, timeout: float = READY) -> bool:
        """Whether, within that many seconds, all nodes and DNS are Ready."""
        return not self.lacking(timeout)

    def lacking(self, timeout: float) -> str:
        """What keeps the cluster from being ready after that many seconds; empty when it is."""
        if not self.kubeconfig or not self.kubeconfig.exists() or not self.kubeconfig.read_text().strip():
            return "it has no kubeconfig"
        try:
            client = Client.from_kubeconfig(self.kubeconfig)
            eventually(Selection(client, kinds.NODE), self._all_nodes, within=timeout)
            names = Selection(client, kinds.POD, "kube-system", labels="k8s-app=kube-dns")
            eventually(names, _some_ready, within=timeout, describe="DNS is Ready")
        except (ApiError, NeverHappened, SurroundingsError, ConfigException, OSError) as error:
            return str(error)
        return ""

    def create(self, cluster_options: ClusterOptions | None = None, timeout: float = READY, **kwargs: object) -> None:
        """Make the cluster; SurroundingsError with the program's words, or with what is not Ready in time."""
        self._on_create(cluster_options or self._cluster_options, **kwargs)
        if problem := self.lacking(timeout):
            raise SurroundingsError(f"cluster {self.cluster_name} was made and is not ready: {problem}")

    def exists(self) -> bool:
        """Whether there is a cluster of that name."""
        raise NotImplementedError

    def write_kubeconfig(self) -> None:
        """Write the kubeconfig of a cluster that exists."""
        raise NotImplementedError

    def has_image(self, image: str) -> bool:
        """Whether the nodes have an image, as far as can be told."""
        return False

    def collect_logs(self, into: Path) -> None:
        """Write what its components logged into a folder."""
        raise NotImplementedError

    def _all_nodes(self, nodes: list[Object]) -> str | None:
        lacking = [f"{node.name}: {missing}" for node in nodes if (missing := ready(node))]
        if len(nodes) < self.layout.nodes:
            return f"there are {len(nodes)} nodes, not {self.layout.nodes}"
        return "; ".join(lacking) or None

    def _keep(self, kubeconfig: str) -> None:
        assert self.kubeconfig is not None
        self.kubeconfig.touch(mode=0o600)
        self.kubeconfig.write_text(kubeconfig)


def _some_ready(pods: list[Object]) -> str | None:
    if any(not ready(pod) for pod in pods):
        return None
    return "no pod of it is" if pods else "there are no pods of it"


class Kind(Manager, KindManagerBase):  # type: ignore[misc]
    """Clusters of kind."""

    def _on_create(self, cluster_options: ClusterOptions, **kwargs: object) -> None:
        assert self.kubeconfig is not None
        configuration = self.kubeconfig.with_name("kind.yaml")
        configuration.write_text(yaml.safe_dump(self.layout.configuration))
        arguments = ["create", "cluster", "--name", self.cluster_name, "--config", str(configuration)]
        arguments += ["--kubeconfig", str(self.kubeconfig), *(["--image", self.image] if self.image else [])]
        self._exec(arguments)

    def _on_delete(self) -> None:
        # Without a file of its own it would look for contexts of that name in the user's.
        self._exec(["delete", "cluster", "--name", self.cluster_name, "--kubeconfig", str(self.kubeconfig)])

    def exists(self) -> bool:
        return self.cluster_name in self._exec(["get", "clusters"]).stdout.split()

    def write_kubeconfig(self) -> None:
        self._keep(self._exec(["get", "kubeconfig", "--name", self.cluster_name]).stdout)

    def has_image(self, image: str) -> bool:
        names = self._exec(["get", "nodes", "--name", self.cluster_name]).stdout.split()
        return all(_succeeds("docker", "exec", name, "crictl", "inspecti", image) for name in names)

    def collect_logs(self, into: Path) -> None:
        self._exec(["export", "logs", str(into), "--name", self.cluster_name])


class K3d(Manager, K3dManagerBase):  # type: ignore[misc]
    """Clusters of k3d: k3s in containers."""

    def _on_create(self, cluster_options: ClusterOptions, **kwargs: object) -> None:
        image = self.image or (f"rancher/k3s:v{self.version_asked}-k3s1" if self.version_asked else "")
        within = self._cluster_options.cluster_timeout
        arguments = ["cluster", "create", self.cluster_name, "--wait", f"--timeout={within}s"]
        arguments += ["--kubeconfig-update-default=false", "--kubeconfig-switch-context=false"]
        arguments += [f"--servers={self.layout.control_planes}"]
        arguments += [f"--agents={self.layout.nodes - self.layout.control_planes}"]
        self._exec([*arguments, *(["--image", image] if image else [])])
        self.write_kubeconfig()

    def exists(self) -> bool:
        listed = self._exec(["cluster", "list", "--no-headers"]).stdout.splitlines()
        return self.cluster_name in {line.split()[0] for line in listed if line.strip()}

    def write_kubeconfig(self) -> None:
        self._keep(self._exec(["kubeconfig", "get", self.cluster_name]).stdout)

    def collect_logs(self, into: Path) -> None:
        _container_logs("k3d.cluster", self.cluster_name, into)


class Minikube(Manager, MinikubeManager):  # type: ignore[misc]
    """Clusters of minikube, in containers."""

    def _on_create(self, cluster_options: ClusterOptions, **kwargs: object) -> None:
        arguments = ["start", "--profile", self.cluster_name, "--driver=docker", "--embed-certs", "--wait=all"]
        arguments += [f"--nodes={self.layout.nodes}", *(["--ha"] if self.layout.control_planes > 1 else [])]
        arguments += [f"--kubernetes-version=v{self.version_asked}"] if self.version_asked else []
        arguments += [f"--base-image={self.image}"] if self.image else []
        arguments += ["--force"] if os.geteuid() == 0 else []  # it refuses to run its containers as root otherwise
        self._exec(arguments, self._own)

    def _on_delete(self) -> None:
        self._exec(["delete", "--profile", self.cluster_name], self._own)

    def exists(self) -> bool:
        listed = self._exec(["profile", "list", "--output=json"], self._own).stdout
        found = yaml.safe_load(listed) or {}
        return self.cluster_name in {each["Name"] for kind in ("valid", "invalid") for each in found.get(kind) or []}

    def write_kubeconfig(self) -> None:
        self._exec(["update-context", "--profile", self.cluster_name], self._own)

    def collect_logs(self, into: Path) -> None:
        into.mkdir(parents=True, exist_ok=True)
        self._exec(["logs", "--profile", self.cluster_name, f"--file={into / 'minikube.log'}"], self._own)

    @property
    def _own(self) -> dict[str, str]:
        """It writes into the kubeconfig that the environment names."""
        return {"KUBECONFIG": str(self.kubeconfig)}


def _succeeds(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _container_logs(label: str, value: str, into: Path) -> None:
    into.mkdir(parents=True, exist_ok=True)
    listing = ["docker", "ps", "--all", "--filter", f"label={label}={value}", "--format", "{{.Names}}"]
    for name in subprocess.run(listing, capture_output=True, text=True, check=False).stdout.split():
        with (into / f"{name}.log").open("wb") as log:
            subprocess.run(["docker", "logs", name], stdout=log, stderr=log, check=False)


def docker_image(reference: str) -> bool:
    """Whether Docker has an image."""
    return _succeeds("docker", "image", "inspect", reference)


def pull(reference: str) -> bool:
    """Whether Docker has an image after it was asked to fetch it."""
    return docker_image(reference) or _succeeds("docker", "pull", "--quiet", reference)
