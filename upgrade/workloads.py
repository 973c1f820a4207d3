"""What is laid down before an upgrade: one of everything, with data, as an application would have it."""

from __future__ import annotations

from typing import Any

from clusterproof import kinds, manifests
from clusterproof.kinds import Kind

WEB, KEEPER, SHELF, READER = "web", "keeper", "shelf", "reader"
"""A server without state, one with a volume for each pod, a claim that is only used now and then, and a user."""
FRONT = "front"
"""How the server is reached from outside, by a load balancer."""
DATA = {"season": "autumn", "list": "1\n2\n3\n"}
"""Of the ConfigMap and the Secret."""
VERSIONS = ("v1", "v1beta1")
"""Of the custom kind; the first is the one that is stored."""
SUM = "sha256sum /data/blob"
FILL = f"test -e /data/blob || head -c 1000000 /dev/urandom > /data/blob; sync; {SUM}"

_SPREAD = {
    "maxSkew": 1,
    "topologyKey": "kubernetes.io/hostname",
    "whenUnsatisfiable": "ScheduleAnyway",
}


def web(image: str) -> list[dict[str, Any]]:
    """A Deployment behind a Service, which keeps serving while its pods are moved one after the other."""
    resources = {"requests": {"cpu": "10m", "memory": "16Mi"}}
    pods = manifests.web(
        WEB,
        image,
        replicas=2,
        grace=10,
        resources=resources,
        # By the time a pod ends, nobody sends it requests any more.
        container={"lifecycle": {"preStop": {"exec": {"command": ["sleep", "5"]}}}},
        spec=_spread(WEB),
    )
    return [pods, manifests.service(WEB), budget(WEB)]


def balanced() -> dict[str, Any]:
    """A Service with a load balancer for the same pods."""
    return manifests.service(FRONT, selector={"app": WEB}, type="LoadBalancer")


def keeper(image: str, *, volumes: bool) -> list[dict[str, Any]]:
    """A StatefulSet, with a volume for each pod where the cluster can make them."""
    storage: dict[str, Any] = {"claims": [manifests.pvc("data")], "mounts": {"data": "/data"}} if volumes else {}
    pods = manifests.stateful_set(
        KEEPER,
        image,
        replicas=2,
        args=["netexec", "--http-port=8080"],
        ports=[8080],
        readiness=manifests.http_probe(),
        more={"podManagementPolicy": "Parallel"},
        spec=_spread(KEEPER),
        **storage,
    )
    return [manifests.service(KEEPER, headless=True), pods, budget(KEEPER)]


def batch(image: str, *, volumes: bool) -> list[dict[str, Any]]:
    """A Job that ends at once, having written to a volume where there is one, and a CronJob for every minute."""
    options: dict[str, Any] = {"command": ["sh", "-c", "true"]}
    if volumes:
        options = _shelf(f"({FILL}) > /dev/termination-log")
    once = manifests.job("once", image, restart_policy="Never", **options)
    minutely = manifests.cron_job(
        "minutely",
        image,
        command=["sh", "-c", "true"],
        restart_policy="Never",
        more={"concurrencyPolicy": "Forbid", "successfulJobsHistoryLimit": 1, "failedJobsHistoryLimit": 1},
    )
    return [*([manifests.pvc(SHELF)] if volumes else []), once, minutely]


def shelf_reader(image: str, name: str) -> dict[str, Any]:
    """A pod that says in its status what is in the volume of the claim."""
    return manifests.pod(name, image, restart_policy="Never", **_shelf(f"{SUM} > /dev/termination-log 2>&1"))


def configuration() -> list[dict[str, Any]]:
    """A ConfigMap, a Secret, and what the monitor writes to."""
    return [
        manifests.config_map("settings", DATA),
        manifests.secret("settings", DATA),
        manifests.config_map("beat", {"number": "0"}),
    ]


def rights(namespace: str) -> list[dict[str, Any]]:
    """A user who may read ConfigMaps here, and nothing else."""
    rule = manifests.rbac_rule(["get"], ["configmaps"])
    who = manifests.subject("ServiceAccount", READER, namespace)
    return [
        manifests.service_account(READER),
        manifests.role(READER, [rule]),
        manifests.role_binding(READER, READER, [who]),
    ]


def policies() -> list[dict[str, Any]]:
    """A NetworkPolicy that concerns no pod."""
    spec = {"podSelector": {"matchLabels": {"app": "nobody"}}, "policyTypes": ["Ingress"]}
    metadata = {"name": "nobody"}
    return [{"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": spec}]


def definition(group: str) -> dict[str, Any]:
    """A CustomResourceDefinition that is served at two versions."""
    made = manifests.crd(group, "Keepsake", "keepsakes", version=VERSIONS[0])
    (stored,) = made["spec"]["versions"]
    made["spec"]["versions"].append({**stored, "name": VERSIONS[1], "storage": False})
    return made


def custom_kind(group: str, version: str) -> Kind:
    """The custom kind at one of its versions."""
    return kinds.custom(group, version, "Keepsake", "keepsakes")


def keepsakes(group: str) -> list[dict[str, Any]]:
    """A custom object written at each version."""
    return [
        manifests.custom_object(custom_kind(group, version), f"of-{version}", spec={"written": version, "weight": 7})
        for version in VERSIONS
    ]


def budget(name: str) -> dict[str, Any]:
    """A PodDisruptionBudget that lets one pod at a time be moved."""
    spec = {"maxUnavailable": 1, "selector": {"matchLabels": {"app": name}}}
    return {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": name}, "spec": spec}


def _shelf(script: str) -> dict[str, Any]:
    return {
        "command": ["sh", "-c", script],
        "volumes": [manifests.claim_volume("data", SHELF)],
        "mounts": {"data": "/data"},
    }


def _spread(name: str) -> dict[str, Any]:
    return {"topologySpreadConstraints": [{**_SPREAD, "labelSelector": {"matchLabels": {"app": name}}}]}
