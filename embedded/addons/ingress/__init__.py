"""Ingress: Contour as the controller, Envoy on ports 80 and 443 of every node."""

from __future__ import annotations

from collections.abc import Iterable

from clusterproof import kinds

from ... import images
from ...builder import Artifacts
from ...pki import Authority, Pair, encoded
from ...state import ClusterState
from .. import Addon, Manifest
from ..manifests import container, of_kind, pod_spec, probe_often, read

_FILES = (
    "00-common",
    "01-contour-config",
    "01-crds",
    "02-rbac",
    "02-role-contour",
    "02-service-contour",
    "02-service-envoy",
)
_WORKLOADS = ("03-contour", "03-envoy")
# Only Contour's own operator reads it, and it is the largest by far.
_UNUSED = "contourdeployments.projectcontour.io"


def _manifests(cluster: ClusterState, artifacts: Artifacts) -> Iterable[Manifest]:
    examples = artifacts.source("contour") / "examples/contour"
    found = read(*(examples / f"{name}.yaml" for name in (*_FILES, *_WORKLOADS)))
    found = [one for one in found if one["metadata"]["name"] != _UNUSED]
    controller, proxy = of_kind(found, "Deployment"), of_kind(found, "DaemonSet")
    controller["spec"]["replicas"] = 1
    serve = container(controller, "contour")
    # Nodes are the way in: there may be no load balancer whose address the Envoy Service could have.
    serve["args"].append(f"--ingress-status-address={cluster.nodes[0].address}")
    of_kind(found, "Service", "envoy")["spec"]["type"] = "NodePort"
    for workload, names in ((controller, ["contour"]), (proxy, ["shutdown-manager", "envoy-initconfig"])):
        for name in names:
            container(workload, name)["image"] = images.REFERENCES["contour"]
    envoy = container(proxy, "envoy")
    envoy["image"] = images.REFERENCES["envoy"]
    probe_often(serve)
    probe_often(envoy)
    pod_spec(proxy)["terminationGracePeriodSeconds"] = 30
    namespace, rest = found[0], found[1:]
    return [namespace, *_certificates(cluster), _ingress_class(), *rest]


def _certificates(cluster: ClusterState) -> list[Manifest]:
    """What upstream's certgen Job makes, without the seconds that its pod takes."""
    authority = Authority(cluster.pki, "contour-ca")

    def secret(name: str, pair: Pair) -> Manifest:
        files = {"ca.crt": authority.pair.certificate, "tls.crt": pair.certificate, "tls.key": pair.key}
        return {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": "kubernetes.io/tls",
            "metadata": {"name": name, "namespace": "projectcontour"},
            "data": {key: encoded(path) for key, path in files.items()},
        }

    names = ["contour", "contour.projectcontour", "contour.projectcontour.svc"]
    return [
        secret("contourcert", authority.issue("contour", user="contour", server=names)),
        secret("envoycert", authority.issue("envoy", user="envoy", server=["envoy"])),
    ]


def _ingress_class() -> Manifest:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "IngressClass",
        "metadata": {"name": "contour", "annotations": {"ingressclass.kubernetes.io/is-default-class": "true"}},
        "spec": {"controller": "projectcontour.io/ingress-controller"},
    }


ADDON = Addon(
    name="ingress",
    images=("contour", "envoy"),
    capabilities=("network.ingress",),
    manifests=_manifests,
    workloads=((kinds.DEPLOYMENT, "projectcontour", "contour"), (kinds.DAEMON_SET, "projectcontour", "envoy")),
)
