"""The providers `kind`, `k3d` and `minikube`: clusters in containers, made for a run and gone with it."""

from __future__ import annotations

import dataclasses
import os
import time
from pathlib import Path

import pytest

from clusterproof import images, parts
from clusterproof.errors import SurroundingsError
from clusterproof.provider import Access, Shape

from . import managers, preflight, shapes, state

LAST_REQUEST = 3.0
"""Seconds after which Docker has done what a program asked for just before it was killed."""


class InContainers:
    """What is the same for all three."""

    program = ""
    manager: type[managers.Manager]

    def create(self, shape: Shape) -> Access:
        """Make the cluster with the images of the image map; SurroundingsError, and nothing left, when that fails."""
        preflight.check(self.program)
        layout = self._layout(shape)
        record = state.Record(shape.name, self.program, state.me(), shape.keep, os.environ.get("DOCKER_HOST", ""))
        manager = self._manager(record, layout, shape)
        if manager.exists():
            return self._reused(record, manager, shape)
        record.save()
        try:
            manager.create(timeout=managers.READY * shape.timeout_scale)
            self._load_images(manager)
        except BaseException:
            manager.delete()
            record.forget()
            raise
        return self._access(record)

    def delete(self, access: Access) -> None:
        """End it and remove every trace."""
        for record in state.records():
            if (record.name, record.provider) == (access.name, self.program):
                self.remove(record)

    def adopt(self, access: Access) -> None:
        """From now on it ends with this process's run, unless it is one that stays."""
        for record in state.records():
            if (record.name, record.provider) == (access.name, self.program):
                dataclasses.replace(record, owner=state.me()).save()

    def collect_logs(self, access: Access, into: Path) -> None:
        """What the program exports: of each node the logs of its components."""
        (record,) = (each for each in state.records() if each.name == access.name)
        self._of(record).collect_logs(into)

    def remove(self, record: state.Record) -> None:
        """Delete a cluster by its record; SurroundingsError when that fails, and the record stays."""
        manager = self._of(record)
        manager.delete()
        if record.abandoned:  # what was killed on its way may have asked Docker for one container more
            time.sleep(LAST_REQUEST)
            if manager.exists():
                manager.delete()
        record.forget()

    def _layout(self, shape: Shape) -> shapes.Layout:
        layout = shapes.layout(shape)
        if not layout.plain:
            raise pytest.UsageError(
                f"--shape={shape.layout}: only kind makes it; {self.program} knows numbers of nodes"
            )
        return layout

    def _image(self, shape: Shape) -> str:
        return shape.node_image

    def _manager(self, record: state.Record, layout: shapes.Layout, shape: Shape) -> managers.Manager:
        version = shape.kubernetes_version.removeprefix("v")
        within = managers.CREATE * shape.timeout_scale
        return self.manager.of(record.name, record.kubeconfig, layout, self._image(shape), version, within)

    def _of(self, record: state.Record) -> managers.Manager:
        return self.manager.of(record.name, record.kubeconfig, shapes.layout(Shape(record.name, nodes=1)))

    def _reused(self, record: state.Record, manager: managers.Manager, shape: Shape) -> Access:
        if not shape.reuse:
            raise pytest.UsageError(
                f"{self.program} cluster {shape.name!r} exists already: use it with --reuse, or remove it: "
                f"{self._removal(record)}"
            )
        record.save()
        manager.write_kubeconfig()
        manager.layout = shapes.layout(Shape(shape.name, nodes=1))  # it may have any number of nodes
        if problem := manager.lacking(managers.READY * shape.timeout_scale):
            raise SurroundingsError(f"{problem}; to start afresh, remove it: {self._removal(record)}")
        self._load_images(manager)
        return self._access(record)

    def _load_images(self, manager: managers.Manager) -> None:
        """Bring the suites' images into the nodes; what this machine cannot get either is left for them to pull."""
        for reference in images.resolve().all:
            if not manager.has_image(reference) and managers.pull(reference):
                manager.load_image(reference)

    def _access(self, record: state.Record) -> Access:
        return Access(
            provider=self.program,
            name=record.name,
            kubeconfig=str(record.kubeconfig),
            node_hosts="docker://{name}",  # all three name a node as they name its container
            details={"remove": self._removal(record)},
        )

    def _removal(self, record: state.Record) -> str:
        return f"kind delete cluster --name {record.name}"


class Kind(InContainers):
    """kind: Kubernetes in Docker."""

    program = "kind"
    manager = managers.Kind

    def _layout(self, shape: Shape) -> shapes.Layout:
        return shapes.layout(shape)

    def _image(self, shape: Shape) -> str:
        """The one asked for, else the one that `clusterproof kind-image` made, else kind's own."""
        own = f"clusterproof/node:v{parts.load().version(shape.kubernetes_version)}"
        if shape.node_image or managers.docker_image(own):
            return shape.node_image or own
        return f"kindest/node:v{shape.kubernetes_version.removeprefix('v')}" if shape.kubernetes_version else ""


class K3d(InContainers):
    """k3d: k3s in Docker."""

    program = "k3d"
    manager = managers.K3d

    def _removal(self, record: state.Record) -> str:
        return f"k3d cluster delete {record.name}"


class Minikube(InContainers):
    """minikube, with its Docker driver."""

    program = "minikube"
    manager = managers.Minikube

    def _removal(self, record: state.Record) -> str:
        return f"minikube delete --profile {record.name}"


PROVIDERS: dict[str, InContainers] = {each.program: each for each in (Kind(), K3d(), Minikube())}
"""Every provider of this room."""
