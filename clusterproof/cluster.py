"""The cluster under proof, as promises see it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from clusterproof import images, kinds, namespace, provider
from clusterproof.capabilities import Capability
from clusterproof.client import Client
from clusterproof.conditions import takes_pods
from clusterproof.errors import ApiError, SurroundingsError
from clusterproof.images import Images
from clusterproof.kinds import Kind
from clusterproof.objects import Object, Selection
from clusterproof.outcome import CapabilityFact, ClusterFacts
from clusterproof.provider import Access
from clusterproof.settings import Settings
from clusterproof.steps import step


@dataclass(slots=True)
class Cluster:
    """The cluster under proof and what is known about it."""

    access: Access
    facts: ClusterFacts
    settings: Settings
    run_id: str
    client: Client
    """The identity of the run: the kubeconfig's user."""
    _created: list[Object] = field(default_factory=list)

    @property
    def images(self) -> Images:
        """The images under the names this cluster has them by."""
        return images.resolve(self.settings.image_registry, self.access.images)

    @property
    def mixed(self) -> bool:
        """Whether some of its nodes run Windows."""
        return any("Windows" in node.os_image for node in self.facts.nodes)

    def nodes(self) -> list[Object]:
        """Linux nodes that are Ready and take pods without a toleration."""
        return [node for node in self.list(kinds.NODE) if schedulable(node)]

    def get(self, kind: Kind, name: str, namespace: str = "") -> Object:
        """Read an object, in any namespace; ApiError with status 404 when there is none."""
        return Object(self.client, kind, name, namespace).read()

    def list(self, kind: Kind, namespace: str = "", labels: str = "", fields: str = "") -> list[Object]:
        """The objects of a kind, by name; without namespace those of all namespaces."""
        return self.select(kind, namespace, labels, fields).read()

    def select(self, kind: Kind, namespace: str = "", labels: str = "", fields: str = "") -> Selection:
        """The objects of a kind that match, to be waited for or read."""
        return Selection(self.client, kind, namespace, labels, fields)

    def create(self, manifest: dict[str, Any]) -> Object:
        """Create a cluster-scoped object, labelled with the run; it is deleted when the test ends, the newest first."""
        kind = kinds.of(manifest)
        with step(f"create {kind} {manifest['metadata'].get('name', '')}"):
            made = namespace.create(self.client, kind, manifest, self.run_id)
        self._created.append(made)
        return made

    def delete_created(self) -> None:
        """Delete what `create` made since the last call, the newest first."""
        while self._created:
            made = self._created.pop()
            try:
                made.delete()
            except SurroundingsError:
                self._created.append(made)  # it may well be there: tried again after the next promise
                raise
            except ApiError as error:
                if error.status != 404:
                    raise

    @contextmanager
    def without(self, program: str) -> Iterator[None]:
        """A block during which a program of the control plane (`etcd`) or of a node (`node-1/kubelet`) does not run.

        SurroundingsError where the cluster's provider cannot end it: such promises require `health.operator`.
        """
        operator = provider.load(self.access.provider)
        if not isinstance(operator, provider.Operator):
            raise SurroundingsError(f"the provider {self.access.provider} cannot end {program}")
        with step(f"end {program}"):
            operator.stop(self.access, program)
        try:
            yield
        finally:
            with step(f"start {program}"):
                operator.start(self.access)

    def new_client(self) -> Client:
        """The same identity with connections of its own, for another thread."""
        return self.client.clone()

    def claim(self, capability: Capability | str) -> CapabilityFact:
        """Whether the cluster claims a capability, and how we know."""
        name = str(capability)
        for fact in self.facts.capabilities:
            if fact.name == name:
                return fact
        raise ValueError(f"no capability {name}")


def schedulable(node: Object) -> bool:
    """Whether a node is Ready, runs Linux as our images need it, and takes pods without a toleration."""
    windows = node.labels.get("kubernetes.io/os") == "windows"
    return not windows and not node.spec.get("unschedulable") and takes_pods(node) is None
