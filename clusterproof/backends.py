"""Ways to a node that testinfra does not have: its namespaces on this machine, and a pod that sees the whole node.

Importing this module registers them with testinfra, so that `nsenter://4711` and `pod://NAME?namespace=...` are hosts
like any other.
"""

from __future__ import annotations

from typing import Any

import testinfra.backend
from testinfra.backend import base

from clusterproof import kinds
from clusterproof.client import Client
from clusterproof.objects import Object

NODE_ROOT = "/node"
"""Where a pod that looks at its node has the node's files."""


class NsenterBackend(base.BaseBackend):
    """Runs commands in the namespaces of a process of this machine; the host is its id. Needs root here."""

    NAME = "nsenter"

    def run(self, command: str, *args: str, **kwargs: Any) -> base.CommandResult:
        entered = "nsenter --target=%s --mount --uts --net --pid --wd=/ /bin/sh -c %s"
        return self.run_local(entered, self.hostname, self.get_command(command, *args))


class PodBackend(base.BaseBackend):
    """Runs commands as root of the node that a pod runs on, through `exec` and `chroot`; the host is the pod."""

    NAME = "pod"

    def __init__(
        self, name: str, *args: Any, namespace: str = "default", kubeconfig: str = "", context: str = "", **kwargs: Any
    ) -> None:
        super().__init__(name, *args, **kwargs)
        self._pod = Object(Client.from_kubeconfig(kubeconfig, context), kinds.POD, name, namespace)

    def run(self, command: str, *args: str, **kwargs: Any) -> base.CommandResult:
        said = self._pod.exec(["chroot", NODE_ROOT, "/bin/sh", "-c", self.get_command(command, *args)])
        return self.result(said.code, command.encode(), said.stdout.encode(), said.stderr.encode())


for _backend in (NsenterBackend, PodBackend):
    testinfra.backend.BACKENDS.setdefault(_backend.NAME, f"{__name__}.{_backend.__name__}")
