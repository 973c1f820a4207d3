"""Requests of pods that follow their use: the VerticalPodAutoscaler's recommender, updater and admission controller."""

from __future__ import annotations

from collections.abc import Iterable

from clusterproof import kinds

from ... import images
from ...builder import Artifacts
from ...pki import Authority, Pair, encoded
from ...state import ClusterState
from .. import Addon, Manifest
from ..manifests import container, pod_spec, probe_often, read

_FILES = (
    "vpa-v1-crd-gen",
    "vpa-rbac",
    "admission-controller-service",
    "recommender-deployment",
    "updater-deployment",
    "admission-controller-deployment",
)
_SERVICE, _NAMESPACE = "vpa-webhook", "kube-system"
_ARGUMENTS = {
    # Every 3 s, as often as metrics are measured, in place of once a minute.
    "recommender": ("--recommender-interval=3s", "--memory-saver"),
    "updater": ("--updater-interval=3s", "--min-replicas=1"),
    # Upstream's would register itself, ten seconds after its start; and the updater waits for the lease.
    "admission-controller": ("--register-webhook=false", "--status-lease-update-interval=3s"),
}
_WEBHOOK_SECONDS = 3
"""What a pod waits at most where the admission controller cannot be reached; it is then created as it was asked for."""


def _manifests(cluster: ClusterState, artifacts: Artifacts) -> Iterable[Manifest]:
    found = read(*(artifacts.source("vpa") / f"deploy/{name}.yaml" for name in _FILES))
    for deployment in (one for one in found if one["kind"] == "Deployment"):
        name = deployment["metadata"]["name"].removeprefix("vpa-")
        program = container(deployment, name)
        program["image"] = images.REFERENCES[f"vpa-{name}"]
        program["args"] = ["--v=2", *_ARGUMENTS[name]]
        program["resources"] = {"requests": {"cpu": "10m", "memory": "40Mi"}}
        probe_often(program)
        # It counts what was done in the last intervals, which are short here: a busy machine is no reason to restart.
        program["livenessProbe"]["failureThreshold"] = 12
        pod_spec(deployment)["terminationGracePeriodSeconds"] = 5
    authority = Authority(cluster.pki, "vpa-ca")
    served = authority.issue("vpa", user="vpa", server=[f"{_SERVICE}.{_NAMESPACE}.svc"])
    return [_certificate(served), *found, _webhook(authority)]


def _certificate(pair: Pair) -> Manifest:
    """What upstream's gencerts.sh makes."""
    files = {"serverCert.pem": pair.certificate, "serverKey.pem": pair.key}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "vpa-tls-certs", "namespace": _NAMESPACE},
        "data": {key: encoded(path) for key, path in files.items()},
    }


def _webhook(authority: Authority) -> Manifest:
    """As the admission controller registers itself, but for the time that it may take."""

    def rule(group: str, version: str, resource: str, *operations: str) -> Manifest:
        return {"apiGroups": [group], "apiVersions": [version], "resources": [resource], "operations": operations}

    reached = {"service": {"namespace": _NAMESPACE, "name": _SERVICE}, "caBundle": encoded(authority.pair.certificate)}
    webhook = {
        "name": "vpa.k8s.io",
        "admissionReviewVersions": ["v1"],
        "rules": [
            rule("", "v1", "pods", "CREATE"),
            rule("autoscaling.k8s.io", "*", "verticalpodautoscalers", "CREATE", "UPDATE"),
        ],
        "clientConfig": reached,
        "failurePolicy": "Ignore",
        "sideEffects": "None",
        "timeoutSeconds": _WEBHOOK_SECONDS,
    }
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": "vpa-webhook-config"},
        "webhooks": [webhook],
    }


ADDON = Addon(
    name="vpa",
    images=tuple(f"vpa-{name}" for name in _ARGUMENTS),
    capabilities=("scale.vpa", "scale.vpa.in-place"),
    manifests=_manifests,
    workloads=tuple((kinds.DEPLOYMENT, _NAMESPACE, f"vpa-{name}") for name in _ARGUMENTS),
    needs=("metrics",),
)
