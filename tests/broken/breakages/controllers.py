"""Controllers and scheduler: each of them off, and rules that they no longer keep to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..registry import Damage, breakage
from ..subject import Subject

MANAGER = "kube-controller-manager"
APIS = ("api/crud_conflict/stale_write", "api/namespaces/isolation")
"""Promises that need nothing but the API server."""


def controller_off(
    controller: str, *, breaks: Mapping[str, str], keeps: Sequence[str] = APIS, scale: float = 0.2
) -> None:
    """Register a breakage: the controller manager runs without one of its controllers."""
    label = controller.removesuffix("-controller").replace("-", "_")

    @breakage(
        name=f"{label}_controller_off",
        meaning=f"The controller manager runs without {controller}.",
        breaks=breaks,
        keeps=keeps,
        scale=scale,
    )
    def off(subject: Subject) -> Damage:
        with subject.restarted(MANAGER, ("--controllers=", f"--controllers=*,-{controller}")):
            yield []


controller_off(
    "deployment-controller",
    breaks={
        "apps/deployment/rolling_update": r"Deployment \S+/web .*controller",
        "apps/deployment/self_heal": r"pods .* are 2, all ready: not within .* there are 0",
        "apps/deployment/pause": r"Deployment",
    },
    keeps=["apps/statefulset/parallel", "api/namespaces/isolation"],
)
controller_off(
    "replicaset-controller",
    breaks={
        "apps/deployment/self_heal": r"pods .* are 2, all ready: not within .* there are 0",
        "apps/replicaset/scale": r"",
        "apps/replicaset/adoption": r"",
        "api/labels/relabelling": r"ready addresses are none",
    },
    keeps=["apps/statefulset/parallel", "api/namespaces/isolation"],
)
controller_off(
    "statefulset-controller",
    breaks={
        "apps/statefulset/order": r"StatefulSet",
        "apps/statefulset/parallel": r"pods",
        "apps/statefulset/start_ordinal": r"pods",
    },
    keeps=["apps/deployment/self_heal"],
)
controller_off(
    "daemonset-controller",
    breaks={"apps/daemonset/every_node": r"DaemonSet"},
    keeps=["apps/deployment/self_heal"],
)
controller_off(
    "endpointslice-controller",
    breaks={"network/service/cluster_ip": r"answered", "network/service/discovery": r"finds by DNS"},
    keeps=["network/pod_to_pod"],
)
controller_off(
    "garbage-collector-controller",
    breaks={
        "api/garbage_collection/background": r"",
        "api/garbage_collection/foreground": r"",
        "api/garbage_collection/orphan": r"",
    },
    keeps=["apps/statefulset/parallel"],
)
controller_off("namespace-controller", breaks={"api/namespaces/deletion": r"Namespace"}, keeps=["api/labels/selectors"])
controller_off("resourcequota-controller", breaks={"api/quota/limit": r"ResourceQuota"})
controller_off(
    "horizontal-pod-autoscaler-controller",
    breaks={"scale/hpa/cpu": r"HorizontalPodAutoscaler"},
    keeps=["scale/metrics"],
    scale=0.1,
)


@breakage(
    breaks={"scale/hpa/cpu": r"HorizontalPodAutoscaler"},
    keeps=["scale/metrics"],
)
def autoscaler_tolerance_10(subject: Subject) -> Damage:
    """Horizontal autoscaling takes everything up to eleven times the target for near enough."""
    with subject.restarted(
        MANAGER, ("--horizontal-pod-autoscaler-tolerance=", "--horizontal-pod-autoscaler-tolerance=10")
    ):
        yield []


@breakage(
    breaks={"apps/deployment/self_heal": r"Deployment", "apps/statefulset/order": r"StatefulSet"},
    keeps=["apps/statefulset/parallel", "api/namespaces/deletion"],
    scale=0.15,
)
def scheduler_stopped(subject: Subject) -> Damage:
    """The scheduler does not run."""
    with subject.stopped("kube-scheduler"):
        yield []


@breakage(
    breaks={"apps/statefulset/order": r"was created before|were created in the order"},
    keeps=["apps/statefulset/parallel", "apps/statefulset/start_ordinal"],
)
def statefulset_order_violated(subject: Subject) -> Damage:
    """StatefulSets start all their pods at once, although they are to be started in order."""
    change = 'Object{spec: Object.spec{podManagementPolicy: "Parallel"}}'
    with subject.mutating("apps/v1/statefulsets", change):
        yield []
