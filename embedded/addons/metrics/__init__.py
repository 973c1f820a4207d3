"""Resource metrics of nodes and pods: metrics-server."""

from __future__ import annotations

from collections.abc import Iterable

from clusterproof import kinds

from ... import images
from ...builder import Artifacts
from ...state import ClusterState
from .. import Addon, Manifest
from ..manifests import container, of_kind, pod_spec, probe_often, read

_LABELS = {"k8s-app": "metrics-server"}


def _manifests(cluster: ClusterState, artifacts: Artifacts) -> Iterable[Manifest]:
    base = artifacts.source("metrics-server") / "manifests/base"
    found = read(*(base / f"{name}.yaml" for name in ("rbac", "service", "deployment", "apiservice")))
    deployment, service = of_kind(found, "Deployment"), of_kind(found, "Service")
    # Upstream's kustomization adds this label to every object and selector.
    for one in found:
        one["metadata"].setdefault("labels", {}).update(_LABELS)
    deployment["spec"]["selector"] = {"matchLabels": _LABELS}
    deployment["spec"]["template"].setdefault("metadata", {})["labels"] = _LABELS
    service["spec"]["selector"] = _LABELS
    server = container(deployment, "metrics-server")
    server["image"] = images.REFERENCES["metrics-server"]
    server["args"] = [arg for arg in server["args"] if not arg.startswith("--metric-resolution")]
    # The kubelets' certificates come from the cluster's own authority, which every pod is given.
    authority = "--kubelet-certificate-authority=/var/run/secrets/kubernetes.io/serviceaccount/ca.crt"
    server["args"] += ["--metric-resolution=10s", "--kubelet-request-timeout=5s", authority]
    # Less than its option allows: see modules/metrics-server/main.go.
    server["env"] = [{"name": "METRIC_RESOLUTION", "value": "3s"}]
    server["resources"] = {"requests": {"cpu": "50m", "memory": "60Mi"}}
    probe_often(server)
    pod_spec(deployment)["terminationGracePeriodSeconds"] = 5
    return found


ADDON = Addon(
    name="metrics",
    images=("metrics-server",),
    capabilities=("scale.metrics",),
    manifests=_manifests,
    workloads=((kinds.DEPLOYMENT, "kube-system", "metrics-server"), (kinds.API_SERVICE, "", "v1beta1.metrics.k8s.io")),
)
