"""Metrics of applications' own: an adapter that serves gauges of annotated pods (modules/custom-metrics/main.go)."""

from __future__ import annotations

from collections.abc import Iterable

from clusterproof import kinds

from ... import images
from ...builder import Artifacts
from ...state import ClusterState
from .. import Addon, Manifest
from ..manifests import container, of_kind, pod_spec, read

_NAME = "custom-metrics-apiserver"
_SERVED = ("v1beta1.custom.metrics.k8s.io", "v1beta2.custom.metrics.k8s.io", "v1beta1.external.metrics.k8s.io")


def _manifests(cluster: ClusterState, artifacts: Artifacts) -> Iterable[Manifest]:
    found = read(artifacts.source("custom-metrics") / "test-adapter-deploy/testing-adapter.yaml")
    deployment = of_kind(found, "Deployment")
    adapter = container(deployment, _NAME)
    adapter["image"] = images.REFERENCES["custom-metrics"]
    adapter["args"] = [arg for arg in adapter["args"] if not arg.startswith("--v=")]
    adapter["resources"] = {"requests": {"cpu": "20m", "memory": "50Mi"}}
    adapter["readinessProbe"] = {
        "httpGet": {"path": "/readyz", "port": "https", "scheme": "HTTPS"},
        "periodSeconds": 1,
    }
    adapter["securityContext"] = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    pod_spec(deployment)["terminationGracePeriodSeconds"] = 5
    # Upstream's is told its metrics by this port; ours asks pods for them.
    adapter["ports"] = [port for port in adapter["ports"] if port["name"] != "http"]
    ports = of_kind(found, "Service")["spec"]["ports"]
    ports[:] = [port for port in ports if port["name"] != "http"]
    (rule,) = of_kind(found, "ClusterRole", "custom-metrics-resource-reader")["rules"]
    rule["verbs"].append("watch")
    # The account first: a Deployment whose account is missing tries again less and less often.
    return sorted(found, key=lambda one: one["kind"] not in ("Namespace", "ServiceAccount"))


ADDON = Addon(
    name="custom-metrics",
    images=("custom-metrics",),
    capabilities=("scale.custom-metrics", "scale.service-metrics", "scale.external-metrics"),
    manifests=_manifests,
    workloads=(
        (kinds.DEPLOYMENT, "custom-metrics", _NAME),
        *((kinds.API_SERVICE, "", name) for name in _SERVED),
    ),
)
