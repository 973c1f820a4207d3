"""RuntimeClass: which runtime a pod runs with, and what that costs."""

from __future__ import annotations

from clusterproof import Cluster, Images, Namespace, manifests
from clusterproof.refusals import refused


def test_admission(cluster: Cluster, namespace: Namespace, images: Images) -> None:
    """A pod of a RuntimeClass MUST get its overhead and its nodes, and a pod of one that does not exist be refused.

    Source: https://kubernetes.io/docs/concepts/containers/runtime-class/#scheduling
    """
    overhead, nodes = {"memory": "16Mi", "cpu": "10m"}, {"clusterproof.dev/runtime": namespace.name}
    own = cluster.create(
        {
            "apiVersion": "node.k8s.io/v1",
            "kind": "RuntimeClass",
            "metadata": {"name": namespace.name},
            "handler": "clusterproof",
            "overhead": {"podFixed": overhead},
            "scheduling": {"nodeSelector": nodes},
        }
    )

    def of_class(name: str, runtime: str) -> manifests.Manifest:
        return manifests.pod(name, images.agnhost, spec={**manifests.PARKED, "runtimeClassName": runtime})

    pod = namespace.create(of_class("known", own.name))
    assert pod.spec.get("overhead") == overhead, f"{pod} of {own} has the overhead {pod.spec.get('overhead')}"
    assert pod.spec.get("nodeSelector") == nodes, f"{pod} of {own} is for the nodes {pod.spec.get('nodeSelector')}"
    with refused("a pod of a RuntimeClass that does not exist"):
        namespace.create(of_class("unknown", f"{own.name}-none"))
