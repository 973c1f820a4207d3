"""Certificates: cert-manager's controller, for SelfSigned and CA issuers. Its webhook does not run."""

from __future__ import annotations

from collections.abc import Iterable

from clusterproof import kinds, manifests

from ... import images
from ...builder import Artifacts
from ...state import ClusterState
from .. import Addon, Manifest
from ..manifests import read

_NAME = "cert-manager"
_GROUP = "cert-manager.io"
_KINDS = ("certificaterequests", "certificates", "clusterissuers", "issuers")
_HEALTH = 9403


def _manifests(cluster: ClusterState, artifacts: Artifacts) -> Iterable[Manifest]:
    crds = artifacts.source("cert-manager") / "deploy/crds"
    definitions = read(*(crds / f"{_GROUP}_{kind}.yaml" for kind in _KINDS))
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": _NAME}}
    account = manifests.subject("ServiceAccount", _NAME, _NAME)
    return [
        *definitions,
        namespace,
        _inside(manifests.service_account(_NAME)),
        manifests.cluster_role(_NAME, _rules()),
        manifests.cluster_role_binding(_NAME, _NAME, [account]),
        _inside(_controller()),
    ]


def _rules() -> list[Manifest]:
    """What upstream's chart grants for these issuers; there it is a template that only helm can fill in."""
    rule, watched, written = manifests.rbac_rule, ["get", "list", "watch"], ["create", "update", "patch", "delete"]
    return [
        rule([*watched, *written], _KINDS, groups=[_GROUP]),
        rule(["update", "patch"], [f"{kind}/status" for kind in _KINDS], groups=[_GROUP]),
        rule(["update"], [f"{kind}/finalizers" for kind in _KINDS], groups=[_GROUP]),
        rule(["approve"], ["signers"], groups=[_GROUP]),
        rule([*watched, *written], ["secrets"]),
        rule(["create", "patch"], ["events"]),
        rule(watched, ["ingresses"], groups=["networking.k8s.io"]),
        rule(["update"], ["ingresses/finalizers"], groups=["networking.k8s.io"]),
    ]


def _controller() -> Manifest:
    return manifests.deployment(
        _NAME,
        images.REFERENCES[_NAME],
        strategy={"type": "Recreate"},  # two of them would both renew
        env={"POD_NAMESPACE": _NAME},  # where Secrets of ClusterIssuers are
        readiness=manifests.http_probe(_HEALTH, "/livez"),
        resources={"requests": {"cpu": "10m", "memory": "64Mi"}},
        service_account=_NAME,
    )


def _inside(manifest: Manifest) -> Manifest:
    manifest["metadata"]["namespace"] = _NAME
    return manifest


ADDON = Addon(
    name="cert-manager",
    images=("cert-manager",),
    capabilities=("extend.cert-manager",),
    manifests=_manifests,
    workloads=((kinds.DEPLOYMENT, _NAME, _NAME),),
)
