"""Prove that a Kubernetes cluster keeps its promises.

What a suite needs, by the names it uses; everything is imported at first use, so that a pytest run without a cluster
pays nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clusterproof import capabilities, conditions, cri, hollow, inside, kinds, load, machine, manifests, visitors
    from clusterproof.client import Client, Event, ExecResult, Response
    from clusterproof.cluster import Cluster
    from clusterproof.errors import ApiError, Hopeless, NeverHappened, SurroundingsError
    from clusterproof.images import Images
    from clusterproof.machine import Machine, Program, Unseen
    from clusterproof.machines import Machines
    from clusterproof.marks import case
    from clusterproof.namespace import Namespace
    from clusterproof.objects import Object, Selection
    from clusterproof.probes import Probe
    from clusterproof.steps import measure, step
    from clusterproof.timeouts import Timeouts
    from clusterproof.wait import consistently, eventually, watching

__all__ = [
    "ApiError",
    "Client",
    "Cluster",
    "Event",
    "ExecResult",
    "Hopeless",
    "Images",
    "Machine",
    "Machines",
    "Namespace",
    "NeverHappened",
    "Object",
    "Probe",
    "Program",
    "Response",
    "Selection",
    "SurroundingsError",
    "Timeouts",
    "Unseen",
    "capabilities",
    "case",
    "conditions",
    "consistently",
    "cri",
    "eventually",
    "hollow",
    "inside",
    "kinds",
    "load",
    "machine",
    "manifests",
    "measure",
    "step",
    "visitors",
    "watching",
]

_HOMES = {
    "client": ("Client", "Event", "ExecResult", "Response"),
    "cluster": ("Cluster",),
    "errors": ("ApiError", "Hopeless", "NeverHappened", "SurroundingsError"),
    "images": ("Images",),
    "machine": ("Machine", "Program", "Unseen"),
    "machines": ("Machines",),
    "marks": ("case",),
    "namespace": ("Namespace",),
    "objects": ("Object", "Selection"),
    "probes": ("Probe",),
    "steps": ("measure", "step"),
    "timeouts": ("Timeouts",),
    "wait": ("consistently", "eventually", "watching"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}


if not TYPE_CHECKING:  # it would let every name pass

    def __getattr__(name: str) -> Any:
        if name in _HOME:
            return getattr(importlib.import_module(f"clusterproof.{_HOME[name]}"), name)
        if name in __all__:
            return importlib.import_module(f"clusterproof.{name}")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
