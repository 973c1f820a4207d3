"""Ingress and Gateway API: Contour as the controller of both, Envoy on ports 80 and 443 of every node."""

from __future__ import annotations

from collections.abc import Iterable

from clusterproof import capabilities, kinds

from ... import images
from ...builder import Artifacts
from ...pki import Authority, Pair, encoded
from ...state import ClusterState
from .. import Addon, Manifest
from ..manifests import container, of_kind, pod_spec, probe_often, read

_GROUP = capabilities.GATEWAY_KIND.group
kinds.custom(_GROUP, "v1", "GatewayClass", "gatewayclasses", namespaced=False)  # so that it can be created

_FILES = (
    "contour/00-common",
    "gateway/00-crds",
    "gateway/03-contour-config",  # in place of contour/01-contour-config, which says nothing that is not the default
    "contour/01-crds",
    "contour/02-rbac",
    "contour/02-role-contour",
    "contour/02-service-contour",
    "contour/02-service-envoy",
    "gateway/01-gatewayclass",
    "gateway/02-gateway",
    "contour/03-contour",
    "contour/03-envoy",
)
_WITHOUT = ("backendtlspolicies", "grpcroutes", "tcproutes", "tlsroutes")
"""Kinds of the Gateway API that Contour can do without, and promises do."""
_UNUSED = (
    # Only Contour's own operator reads it, and it is the largest by far.
    "contourdeployments.projectcontour.io",
    *(f"{kind}.{_GROUP}" for kind in (*_WITHOUT, "udproutes")),
    *(f"{kind}.gateway.networking.x-k8s.io" for kind in ("xbackendtrafficpolicies", "xlistenersets")),
)
_GATEWAY_CERTIFICATE = "gatewaycert"


def _manifests(cluster: ClusterState, artifacts: Artifacts) -> Iterable[Manifest]:
    examples = artifacts.source("contour") / "examples"
    found = [
        one for one in read(*(examples / f"{name}.yaml" for name in _FILES)) if one["metadata"]["name"] not in _UNUSED
    ]
    for definition in (one for one in found if one["kind"] == "CustomResourceDefinition"):
        # Each further version of a kind is as large as the first, and nobody asks for it.
        definition["spec"]["versions"] = [one for one in definition["spec"]["versions"] if one["storage"]]
    # With a Gateway, Envoy listens only where its listeners are: Ingresses, too, are served by https on this one.
    of_kind(found, "Gateway")["spec"]["listeners"].append(_https())
    controller, proxy = of_kind(found, "Deployment"), of_kind(found, "DaemonSet")
    controller["spec"]["replicas"] = 1
    serve = container(controller, "contour")
    # Nodes are the way in: there may be no load balancer whose address the Envoy Service could have.
    serve["args"].append(f"--ingress-status-address={cluster.nodes[0].address}")
    serve["args"] += [f"--disable-feature={kind}" for kind in _WITHOUT]
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


def _https() -> Manifest:
    certificate = {"name": _GATEWAY_CERTIFICATE}  # shown to nobody, as each Ingress has its own, but there must be one
    return {"name": "https", "protocol": "HTTPS", "port": 443, "tls": {"certificateRefs": [certificate]}}


def _certificates(cluster: ClusterState) -> list[Manifest]:
    """What upstream's certgen Job makes, without the seconds that its pod takes, and one for the Gateway."""
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
        secret(_GATEWAY_CERTIFICATE, authority.issue("gateway", user="gateway", server=["gateway"])),
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
    capabilities=("network.ingress", "network.gateway"),
    manifests=_manifests,
    workloads=((kinds.DEPLOYMENT, "projectcontour", "contour"), (kinds.DAEMON_SET, "projectcontour", "envoy")),
)
