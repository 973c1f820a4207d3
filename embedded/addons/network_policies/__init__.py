"""NetworkPolicies, enforced on each node by a program around upstream's own (modules/network-policies/main.go)."""

from __future__ import annotations

from collections.abc import Iterable

from clusterproof import kinds

from ... import images, preflight
from ...builder import Artifacts
from ...state import ClusterState
from .. import Addon, Manifest
from ..manifests import container, of_kind, pod_spec, read

_NAME = "kube-network-policies"


def _manifests(cluster: ClusterState, artifacts: Artifacts) -> Iterable[Manifest]:
    found = read(artifacts.source("network-policies") / "install.yaml")
    workload = of_kind(found, "DaemonSet")
    enforcer, spec = container(workload, _NAME), pod_spec(workload)
    enforcer["image"] = images.REFERENCES["network-policies"]
    enforcer["args"] = ["--hostname-override=$(MY_NODE_NAME)"]
    enforcer["resources"] = {"requests": {"cpu": "20m", "memory": "30Mi"}}
    # Upstream's program asks the container runtime for addresses before the API server has them, which makes each
    # start of a container wait for an answer.
    del enforcer["volumeMounts"], spec["volumes"]
    spec["terminationGracePeriodSeconds"] = 5
    return found


ADDON = Addon(
    name="network-policies",
    images=("network-policies",),
    capabilities=("network.policy", "network.policy.ip-blocks"),
    manifests=_manifests,
    workloads=((kinds.DAEMON_SET, "kube-system", _NAME),),
    refused=preflight.queues_refused,
)
