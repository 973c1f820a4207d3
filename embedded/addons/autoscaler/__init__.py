"""Nodes that come and go with what the pods need: Karpenter, which has this project's own commands add and remove them.

It runs on the machine itself, beside the control plane: a pod could not start a node. Its nodes are tainted, so that
pods which wait for something else bring none about, and so that they are nobody's but those pods' that tolerate it.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from clusterproof import kinds

from ... import state
from ...builder import Artifacts
from ...controlplane import kubeconfig
from ...pki import Authority
from ...process import HOST, Component, start
from ...state import ClusterState, EmbeddedError
from .. import Addon, Manifest
from ..manifests import read

PROGRAM = "karpenter"
TAINT = "clusterproof.dev/autoscaled"
"""Key of the taint that keeps pods off the nodes unless they tolerate it."""
MOST = 2
"""Nodes that it may add."""
NODE_POOL = kinds.custom("karpenter.sh", "v1", "NodePool", "nodepools", namespaced=False)
NODE_CLASS = kinds.custom("embedded.clusterproof.dev", "v1", "NodeClass", "nodeclasses", namespaced=False)
NAME = "embedded"
"""Of its only NodePool, and that one's NodeClass."""


def _manifests(cluster: ClusterState, artifacts: Artifacts) -> Iterable[Manifest]:
    crds = artifacts.source(PROGRAM) / "pkg/apis/crds"
    yield from read(crds / "karpenter.sh_nodepools.yaml")
    yield from read(crds / "karpenter.sh_nodeclaims.yaml")
    yield from read(crds / "karpenter.sh_nodeoverlays.yaml")
    yield _definition()
    yield {
        "apiVersion": NODE_CLASS.api_version,
        "kind": NODE_CLASS.kind,
        "metadata": {"name": NAME},
        # Nobody has to find anything out about it: it is Ready from the start.
        "status": {
            "conditions": [
                {
                    "type": "Ready",
                    "status": "True",
                    "reason": "Ready",
                    "message": "",
                    "lastTransitionTime": "2026-01-01T00:00:00Z",
                }
            ]
        },
    }
    yield {
        "apiVersion": NODE_POOL.api_version,
        "kind": NODE_POOL.kind,
        "metadata": {"name": NAME},
        "spec": {
            "limits": {"nodes": str(MOST)},
            "disruption": {
                "consolidationPolicy": "WhenEmptyOrUnderutilized",
                "consolidateAfter": "1s",  # and then about half a minute, by which Karpenter makes sure of it
                "budgets": [{"nodes": "100%"}],
            },
            "template": {
                "spec": {
                    "expireAfter": "Never",
                    "requirements": [{"key": "kubernetes.io/os", "operator": "In", "values": ["linux"]}],
                    "nodeClassRef": {"group": NODE_CLASS.group, "kind": NODE_CLASS.kind, "name": NAME},
                    "taints": [{"key": TAINT, "effect": "NoSchedule"}],
                }
            },
        },
    }


def _definition() -> Manifest:
    """The NodeClass that Karpenter wants every provider of nodes to have."""
    anything: dict[str, Any] = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    return {
        "apiVersion": kinds.CUSTOM_RESOURCE_DEFINITION.api_version,
        "kind": kinds.CUSTOM_RESOURCE_DEFINITION.kind,
        "metadata": {"name": f"{NODE_CLASS.plural}.{NODE_CLASS.group}"},
        "spec": {
            "group": NODE_CLASS.group,
            "scope": "Cluster",
            "names": {"kind": NODE_CLASS.kind, "plural": NODE_CLASS.plural, "listKind": f"{NODE_CLASS.kind}List"},
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": anything}}],
        },
    }


def _start(cluster: ClusterState, artifacts: Artifacts) -> Iterable[Component]:
    config = kubeconfig(cluster, Authority(cluster.pki, "ca"), PROGRAM, f"system:{PROGRAM}", ["system:masters"])
    command: list[str | Path] = [
        "env",
        f"CLUSTERPROOF_STATE={state.root()}",
        artifacts.binary(PROGRAM),
        f"--kubeconfig={config}",
        f"--cluster={cluster.name}",
        f"--state={cluster.folder / 'state.json'}",
        f"--clusterproof={_clusterproof()}",
        "--disable-leader-election=true",  # there is only one
        "--disable-cluster-state-observability=true",  # nobody reads those metrics
        "--batch-idle-duration=200ms",  # pods come a few at a time here
        "--batch-max-duration=2s",
    ]
    yield start(cluster, PROGRAM, command, on=HOST)


def _clusterproof() -> Path:
    """The command of the Python environment that runs this."""
    path = f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}"
    if found := shutil.which("clusterproof", path=path):
        return Path(found)
    raise EmbeddedError(f"add-on autoscaler: the command clusterproof, which it adds nodes with, is nowhere in {path}")


ADDON = Addon(
    name="autoscaler",
    capabilities=("scale.nodes",),
    manifests=_manifests,
    components=(PROGRAM,),
    start=_start,
    nodes=MOST,
)
