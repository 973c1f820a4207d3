"""Controllers and scheduler: each of them off, and rules that they no longer keep to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from clusterproof import kinds, manifests

from ..registry import Damage, breakage
from ..subject import MANAGER, SCHEDULER, SYSTEM, Subject, forgotten

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
        with subject.flagged(MANAGER, "controllers", f"*,-{controller}"):
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
        "apps/replicaset/scale": r"ReplicaSet|pods",
        "apps/replicaset/adoption": r"ReplicaSet|pods",
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
    breaks={"apps/daemonset/every_node": r"one on each of 2 nodes, ready: not within .* they are on no node"},
    keeps=["apps/deployment/self_heal"],
)
controller_off(
    "endpointslice-controller",
    breaks={"network/service/cluster_ip": r"answered", "network/service/discovery": r"finds by DNS"},
    keeps=["network/pod_to_pod"],
)
controller_off(
    "persistentvolume-attach-detach-controller",
    breaks={"storage/disks/attachment": r"Pod \S+/first ready: not within"},
    keeps=["storage/dynamic"],
)
controller_off(
    "garbage-collector-controller",
    breaks={
        "api/garbage_collection/background": r"gone: not within .* still there",
        "api/garbage_collection/foreground": r"is being deleted: not within",
        "api/garbage_collection/orphan": r"gone: not within .* held by orphan",
    },
    keeps=["apps/statefulset/parallel"],
)
controller_off(
    "namespace-controller",
    breaks={"api/namespaces/deletion": r"Namespace \S+ gone: not within"},
    keeps=["api/labels/selectors"],
)
controller_off(
    "node-lifecycle-controller",
    breaks={
        "scheduling/taints/conditions": r"Node clusterproof-hollow-\S+ is tainted by disk-pressure.*: not within",
        "scheduling/taints/silence": r"Pod \S+/\w+ gets clusterproof-hollow-\S+: not within .* untolerated taint",
    },
    keeps=["scheduling/taints/no_schedule"],
    scale=0.6,
)
controller_off(
    "pod-garbage-collector-controller",
    breaks={"pods/lifecycle/orphan": r"Pod \S+/orphan gone: not within .* still there"},
    keeps=["api/garbage_collection/background"],
    scale=0.7,
)
controller_off(
    "replicationcontroller-controller",
    breaks={"apps/replication_controller/scale": r"number exactly 2.*: not within .* there are 0"},
    keeps=["apps/replicaset/scale"],
)
controller_off(
    "endpoints-controller",
    breaks={"network/endpoints/follow": r"Endpoints \S+/web name \S+: not within"},
    keeps=["network/service/cluster_ip"],
)
controller_off(
    "endpointslice-mirroring-controller",
    breaks={"network/endpoints/mirrored": r"offer 192\.0\.2\.1: not within .* they offer none"},
    keeps=["network/service/manual"],
)
controller_off(
    "validatingadmissionpolicy-status-controller",
    breaks={"api/admission_policies/types": r"ValidatingAdmissionPolicy \S+ warns about .*: not within"},
    keeps=["api/admission_policies/deny"],
)
controller_off(
    "persistentvolume-protection-controller",
    breaks={"storage/volume_protection": r"PersistentVolume \S+ gone: not within .* held by \S+/pv-protection"},
    keeps=["storage/binding"],
)
controller_off(
    "volumeattributesclass-protection-controller",
    breaks={"storage/attributes_protection": r"VolumeAttributesClass \S+-unused gone: not within .* held by \S+/vac-"},
    keeps=["storage/volume_protection"],
)
controller_off(
    "resourceclaim-controller",
    breaks={
        "scheduling/resource_claims/template": r"Pod \S+/stays has claim: not within .*names no ResourceClaim",
        "scheduling/resource_claims/device": r"Pod \S+/first has claim: not within .*names no ResourceClaim",
    },
    keeps=["scheduling/fit"],
)
controller_off(
    "device-taint-eviction-controller",
    breaks={"scheduling/resource_claims/taint": r"Pod \S+/user told to end: not within"},
    keeps=["scheduling/resource_claims/device"],
)
controller_off(
    "service-cidr-controller",
    breaks={"network/service_addresses/ranges": r"ServiceCIDR \S+ .*Ready.*: not within"},
    keeps=["network/service_addresses/chosen"],
)
controller_off(
    "storage-version-migrator-controller",
    breaks={"extend/conversion/storage_migration": r"StorageVersionMigration \S+: it succeeds: not within .*Succeeded"},
    keeps=["extend/conversion/migration"],
)
controller_off("resourcequota-controller", breaks={"api/quota/limit": r"ResourceQuota"})
controller_off(
    "horizontal-pod-autoscaler-controller",
    breaks={
        "scale/hpa/cpu": r"HorizontalPodAutoscaler \S+ settles at 3 replicas: not within",
        "scale/hpa_custom/object": r"HorizontalPodAutoscaler \S+ settles at 3 replicas: not within",
        "scale/hpa_custom/external": r"HorizontalPodAutoscaler \S+ settles at 3 replicas: not within",
    },
    keeps=["scale/metrics"],
    scale=0.3,
)
controller_off(
    "cronjob-controller",
    breaks={
        "apps/cronjob/catch_up": r"were started by CronJob \S+/lenient: not within",
        "apps/cronjob/time_zone": r"were started by CronJob \S+/noon: not within",
        "apps/cronjob/concurrency": r"of CronJob \S+/allow are",
    },
    keeps=["apps/job/suspend"],
)
controller_off("job-controller", breaks={"apps/job/suspend": r"Job"}, keeps=["apps/cronjob/catch_up"])
controller_off(
    "taint-eviction-controller",
    breaks={"scheduling/taints/no_execute": r"Pod \S+/leaves-late told to end: not within"},
    keeps=["scheduling/taints/no_schedule"],
    scale=0.15,
)
controller_off("ttl-after-finished-controller", breaks={"apps/job/ttl": r"Job"}, keeps=["apps/job/suspend"])
controller_off("disruption-controller", breaks={"apps/pdb/eviction": r"PodDisruptionBudget"}, scale=0.3)
controller_off(
    "persistentvolume-binder-controller",
    breaks={"storage/binding": r"PersistentVolume \S+ has phase Available: not within"},
    keeps=["api/labels/selectors"],
)
controller_off(
    "persistentvolumeclaim-protection-controller",
    breaks={"storage/protection": r"PersistentVolumeClaim", "storage/binding": r"held by kubernetes.io/pvc-protection"},
    keeps=["api/labels/selectors"],
    scale=0.4,
)
controller_off(
    "clusterrole-aggregation-controller",
    breaks={"access/rbac/aggregation": r"allowed what the aggregated role allows"},
    keeps=["access/rbac/scope"],
)


controller_off(
    "certificatesigningrequest-approving-controller",
    breaks={"access/credentials/kubelet_renewal": r"is signed: not within"},
    keeps=["access/credentials/certificates"],
)
controller_off(
    "certificatesigningrequest-signing-controller",
    breaks={"access/credentials/certificates": r"is signed: not within .* has not answered"},
    keeps=["access/credentials/tokens"],
)
# Every promise that has a pod says so.
controller_off(
    "serviceaccount-controller",
    breaks={
        "access/credentials/default_account": r"ServiceAccount \S+/default exists: not within",
        "pods/volumes/empty_dir": r"ServiceAccount \S+/default exists: not within",
    },
    keeps=["access/credentials/root_authority", "health/livez"],
)
controller_off(
    "root-ca-certificate-publisher-controller",
    breaks={"access/credentials/root_authority": r"ConfigMap \S+/kube-root-ca.crt exists: not within"},
    keeps=["access/credentials/default_account", "access/credentials/tokens"],
)


@breakage(breaks={"access/credentials/stored_tokens": r"Secret"}, keeps=["access/credentials/tokens"], scale=0.2)
def stored_tokens_not_signed(subject: Subject) -> Damage:
    """The controller manager has no key to sign tokens that are kept in Secrets."""
    with subject.restarted(MANAGER, ("--service-account-private-key-file=", "")):
        yield []


@breakage(
    breaks={
        "scale/hpa/cpu": r"settles at 3 replicas: not within .* has 2 replicas and wants 2",
        "scale/hpa_custom/connections": r"settles at 3 replicas: not within .* has 2 replicas and wants 2",
        "scale/hpa_custom/object": r"settles at 3 replicas: not within .* has 1 replicas and wants 1",
    },
    keeps=["scale/metrics"],
)
def autoscaler_tolerance_10(subject: Subject) -> Damage:
    """Horizontal autoscaling takes everything up to eleven times the target for near enough."""
    with subject.flagged(MANAGER, "horizontal-pod-autoscaler-tolerance", "10"):
        yield []


@breakage(
    breaks={"scale/hpa/memory": r"\(ScaleDownStabilized\): not within|takes no pod away at once"},
    keeps=["scale/hpa/cpu", "scale/hpa/behaviour"],
)
def autoscaler_without_patience(subject: Subject) -> Damage:
    """Horizontal autoscaling takes pods away a second after they are not needed any more, if nothing else is said."""
    with subject.flagged(MANAGER, "horizontal-pod-autoscaler-downscale-stabilization", "1s"):
        yield []


@breakage(
    breaks={
        "apps/deployment/self_heal": r"not within .* Pending",
        "apps/statefulset/order": r"StatefulSet \S+/db rolled out: not within",
        "scheduling/too_large": r"Pod \S+/large waits .* not within .* its condition PodScheduled is not there",
        "scheduling/node_selector": r"Pod \S+/first gets \S+: not within .* it has no node: nobody says why",
    },
    keeps=["apps/statefulset/parallel", "api/labels/selectors"],
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


@breakage(
    breaks={"access/credentials/trust_bundle": r"Pod \S+/pod running: not within"},
    keeps=["access/credentials/root_authority"],
    scale=0.3,
)
def trust_bundle_unpublished(subject: Subject) -> Damage:
    """Nobody publishes the certificates by which the API server is known for everybody to trust."""
    publisher = "kube-apiserver-serving-clustertrustbundle-publisher-controller"
    with subject.flagged(MANAGER, "controllers", f"*,-{publisher}"):
        subject.client.delete(kinds.CLUSTER_TRUST_BUNDLE.path())
        yield []


@breakage(breaks={"network/service/endpoint_removal": r"is answered: not within"}, keeps=["network/pod_to_pod"])
def endpoints_late(subject: Subject) -> Damage:
    """Changed endpoints of Services are made known only after half a minute."""
    with subject.flagged(MANAGER, "endpointslice-updates-batch-period", "30s"):
        yield []


@breakage(
    breaks={"apps/daemonset/every_node": r"one on each of 2 nodes"}, keeps=["apps/deployment/self_heal"], scale=0.15
)
def daemonset_misses_a_node(subject: Subject) -> Damage:
    """DaemonSets have no pod on one of the nodes."""
    value = f'{{"kubernetes.io/hostname": "{subject.nodes[0]}"}}'
    change = f'[JSONPatch{{op: "add", path: "/spec/template/spec/nodeSelector", value: {value}}}]'
    with subject.mutating("apps/v1/daemonsets", change, patch="JSONPatch"):
        yield []


def rewritten(
    name: str,
    meaning: str,
    resource: str,
    expression: str,
    *,
    patch: str = "ApplyConfiguration",
    breaks: Mapping[str, str],
    keeps: Sequence[str] = (),
    scale: float = 0.3,
) -> None:
    """Register a breakage: what users ask for of a resource is not what is kept of it."""

    @breakage(name=name, meaning=meaning, breaks=breaks, keeps=keeps, scale=scale)
    def rewrite(subject: Subject) -> Damage:
        with subject.mutating(resource, expression, patch=patch):
            yield []


rewritten(
    "statefulset_partition_ignored",
    "Rolling updates of StatefulSets do not stop at their partition.",
    "apps/v1/statefulsets",
    "Object{spec: Object.spec{updateStrategy: Object.spec.updateStrategy{"
    "rollingUpdate: Object.spec.updateStrategy.rollingUpdate{partition: 0}}}}",
    breaks={"apps/statefulset/update": r"partition|pods run its template"},
    keeps=["apps/statefulset/parallel"],
)
rewritten(
    "deployment_all_at_once",
    "Rolling updates of Deployments replace all pods at once.",
    "apps/v1/deployments",
    '[JSONPatch{op: "replace", path: "/spec/strategy", value: '
    '{"type": dyn("RollingUpdate"), "rollingUpdate": dyn({"maxUnavailable": "100%", "maxSurge": "0%"})}}]',
    patch="JSONPatch",
    breaks={"apps/deployment/rolling_update": r"at least \d+ pods are available: not at moment"},
    keeps=["apps/statefulset/parallel"],
    scale=1.0,
)
rewritten(
    "job_parallelism_exceeded",
    "Jobs run one pod more at a time than they should.",
    "batch/v1/jobs",
    "Object{spec: Object.spec{parallelism: object.spec.parallelism + 1}}",
    breaks={"apps/job/completion": r"at most 2 pods are active at a time"},
    keeps=["apps/job/suspend"],
    scale=1.0,
)
rewritten(
    "cronjob_concurrency_ignored",
    "CronJobs start Jobs although the last one still runs.",
    "batch/v1/cronjobs",
    'Object{spec: Object.spec{concurrencyPolicy: "Allow"}}',
    breaks={"apps/cronjob/concurrency": r"those of CronJob \S+/(forbid|replace) are"},
    keeps=["apps/cronjob/catch_up"],
)
rewritten(
    "autoscaler_behaviour_ignored",
    "Horizontal autoscaling keeps to no policy.",
    "autoscaling/v2/horizontalpodautoscalers",
    forgotten("behavior"),
    patch="JSONPatch",
    breaks={"scale/hpa/behaviour": r"AbleToScale=True \(ScaleUpStabilized\): not within"},
    keeps=["api/labels/selectors"],
    scale=0.3,
)
rewritten(
    "tolerances_of_autoscalers_ignored",
    "Horizontal autoscaling takes the same for near enough whatever an autoscaler says.",
    "autoscaling/v2/horizontalpodautoscalers",
    forgotten("behavior.scaleUp.tolerance"),
    patch="JSONPatch",
    breaks={"scale/hpa/tolerance": r"worker settles at 1 replicas: not within .*it has 2 replicas and wants 2"},
    keeps=["api/labels/selectors"],
    scale=0.3,
)
rewritten(
    "containers_taken_for_their_pods",
    "Horizontal autoscaling goes by what pods use as a whole, also where it is to go by one of their containers.",
    "autoscaling/v2/horizontalpodautoscalers",
    'object.spec.metrics[0].type == "ContainerResource" ? [JSONPatch{op: "replace", path: "/spec/metrics/0", value: {'
    '"type": dyn("Resource"), "resource": dyn({"name": dyn("memory"), "target": '
    "dyn(object.spec.metrics[0].containerResource.target)})}}] : []",
    patch="JSONPatch",
    breaks={"scale/hpa/container": r"worker settles at 2 replicas: not within .*it has 1 replicas and wants 1"},
    keeps=["api/labels/selectors"],
    scale=0.3,
)
rewritten(
    "autoscaler_takes_pods_at_once",
    "Horizontal autoscaling takes pods away as soon as they are not needed, whatever its window.",
    "autoscaling/v2/horizontalpodautoscalers",
    "has(object.spec.behavior) && has(object.spec.behavior.scaleDown) ? "
    '[JSONPatch{op: "replace", path: "/spec/behavior/scaleDown/stabilizationWindowSeconds", value: 0}] : []',
    patch="JSONPatch",
    breaks={"scale/hpa/behaviour": r"AbleToScale=True \(ScaleDownStabilized\): not within|takes no pod away"},
    keeps=["api/labels/selectors"],
)
rewritten(
    "autoscaler_takes_many_pods",
    "Horizontal autoscaling takes away all pods that are not needed in one step, whatever its policies.",
    "autoscaling/v2/horizontalpodautoscalers",
    "has(object.spec.behavior) && has(object.spec.behavior.scaleDown) && "
    "has(object.spec.behavior.scaleDown.policies) ? ["
    'JSONPatch{op: "replace", path: "/spec/behavior/scaleDown/policies/0/type", value: "Percent"}, '
    'JSONPatch{op: "replace", path: "/spec/behavior/scaleDown/policies/0/value", value: 100}] : []',
    patch="JSONPatch",
    breaks={"scale/hpa/behaviour": r"HorizontalPodAutoscaler \S+/worker should change by one pod at a time"},
    keeps=["api/labels/selectors"],
    scale=0.5,
)
rewritten(
    "autoscaler_adds_what_it_may_not",
    "Horizontal autoscaling adds pods by its policies where it is to add none.",
    "autoscaling/v2/horizontalpodautoscalers",
    "has(object.spec.behavior) && has(object.spec.behavior.scaleUp) && "
    "has(object.spec.behavior.scaleUp.selectPolicy) ? "
    '[JSONPatch{op: "replace", path: "/spec/behavior/scaleUp/selectPolicy", value: "Max"}] : []',
    patch="JSONPatch",
    breaks={"scale/hpa/behaviour": r"HorizontalPodAutoscaler \S+/worker is to add no pod yet, but it wants 2 replicas"},
    keeps=["api/labels/selectors"],
)
rewritten(
    "autoscaler_adds_pods_at_once",
    "Horizontal autoscaling adds pods as soon as they are needed, whatever its window.",
    "autoscaling/v2/horizontalpodautoscalers",
    "has(object.spec.behavior) && has(object.spec.behavior.scaleUp) && "
    "has(object.spec.behavior.scaleUp.stabilizationWindowSeconds) ? "
    '[JSONPatch{op: "replace", path: "/spec/behavior/scaleUp/stabilizationWindowSeconds", value: 0}] : []',
    patch="JSONPatch",
    breaks={"scale/hpa/behaviour": r"AbleToScale=True \(ScaleUpStabilized\): not within"},
    keeps=["api/labels/selectors"],
)
controller_off(
    "ephemeral-volume-controller",
    breaks={"storage/ephemeral": r"Pod \S+/user succeeded: not within"},
    keeps=["storage/binding"],
)
rewritten(
    "budgets_allow_nothing",
    "Disruption budgets keep every pod where it is.",
    "policy/v1/poddisruptionbudgets",
    '[JSONPatch{op: "replace", path: "/spec/minAvailable", value: "100%"}]',
    patch="JSONPatch",
    breaks={"scheduling/taints/drain": r"not within .*429"},
    keeps=["scheduling/taints/no_schedule"],
)
rewritten(
    "budgets_allow_everything",
    "Disruption budgets keep no pod where it is.",
    "policy/v1/poddisruptionbudgets",
    '[JSONPatch{op: "replace", path: "/spec/minAvailable", value: 0}]',
    patch="JSONPatch",
    breaks={
        "scheduling/taints/drain": r"is not yet replaced, and the eviction of \S+ \S+ is answered 201",
        "apps/pdb/eviction": r"PodDisruptionBudget",
    },
    keeps=["scheduling/taints/no_schedule"],
)


def quota_forgotten(name: str, meaning: str, *resources: str, breaks: Mapping[str, str]) -> None:
    """Register a breakage: ResourceQuotas do not limit some of the resources that they name."""
    parts = (
        f'("{each}" in object.spec.hard ? [JSONPatch{{op: "remove", path: "/spec/hard/{each}"}}] : [])'
        for each in resources
    )
    rewritten(
        name,
        meaning,
        "v1/resourcequotas",
        " + ".join(parts),
        patch="JSONPatch",
        breaks=breaks,
        keeps=["api/quota/race"],
    )


quota_forgotten(
    "quotas_for_pods_forgotten",
    "Quotas do not count pods and Services.",
    "pods",
    "services",
    breaks={
        "api/quota/limit": r"a second Service in \S+ under ResourceQuota \S+ MUST be refused",
        "api/quota/resources": r"ResourceQuota \S+/tight",
    },
)
quota_forgotten(
    "quotas_for_claims_forgotten",
    "Quotas do not count claims.",
    "persistentvolumeclaims",
    breaks={"api/quota/limit": r"a second PersistentVolumeClaim in \S+ under ResourceQuota \S+ MUST be refused"},
)
quota_forgotten(
    "quotas_for_storage_forgotten",
    "Quotas do not sum up the storage that claims ask for.",
    "requests.storage",
    breaks={"api/quota/limit": r"a claim of 2Gi in \S+ under ResourceQuota \S+ MUST be refused"},
)
quota_forgotten(
    "quotas_for_memory_forgotten",
    "Quotas do not sum up the memory that pods request.",
    "requests.memory",
    breaks={"api/quota/resources": r"a pod with requests.memory=96Mi under ResourceQuota \S+: not within .*is let in"},
)
rewritten(
    "static_pods_unseen",
    "What kubelets tell of the static pods that they run is refused.",
    "v1/pods",
    'has(object.metadata.annotations) && "kubernetes.io/config.mirror" in object.metadata.annotations ? '
    '[JSONPatch{op: "replace", path: "/spec/restartPolicy", value: "Sometimes"}] : []',
    patch="JSONPatch",
    breaks={"pods/host/static": r"Pod \S+/static-\S+ ready: not within .* it does not exist"},
    keeps=["pods/host/names"],
)
rewritten(
    "nothing_is_privileged",
    "Namespaces that are to let everything in keep to the level baseline.",
    "v1/namespaces",
    'object.metadata.?labels["pod-security.kubernetes.io/enforce"] == optional.of("privileged") ? ['
    'JSONPatch{op: "replace", path: "/metadata/labels/pod-security.kubernetes.io~1enforce", value: "baseline"}] : []',
    patch="JSONPatch",
    breaks={"access/pod_security/privileged": r"403 Forbidden: .* violates PodSecurity .baseline"},
    keeps=["access/pod_security/enforce"],
)


@breakage(
    breaks={"extend/crd/autoscaled": r"HorizontalPodAutoscaler \S+/mine wants 3 replicas: not within .*forbidden"},
    keeps=["extend/crd/subresources"],
    scale=0.5,
)
def autoscaler_knows_deployments_only(subject: Subject) -> Damage:
    """The HorizontalPodAutoscaler's controller may scale Deployments and nothing else."""

    def narrow(role: dict[str, Any]) -> None:
        (rule,) = (each for each in role["rules"] if "*/scale" in each.get("resources", ()))
        rule |= {"apiGroups": ["apps"], "resources": ["deployments/scale"]}

    with subject.changed(kinds.CLUSTER_ROLE, "system:controller:horizontal-pod-autoscaler", "", narrow):
        yield []


@breakage(breaks={"health/control_plane": r"Lease kube-system/kube-scheduler .*not within"}, keeps=["health/livez"])
def scheduler_ended(subject: Subject) -> Damage:
    """The scheduler has ended, and its Lease still names it as the leader."""
    with subject.stopped("kube-scheduler"):
        yield []


@breakage(
    breaks={"api/events": r"Scheduled.*not within|not within .*Scheduled"},
    keeps=["apps/deployment/self_heal"],
)
def scheduler_tells_nothing(subject: Subject) -> Damage:
    """The scheduler lacks the right to record events."""

    def change(role: dict[str, Any]) -> None:
        role["rules"] = [rule for rule in role["rules"] if "events" not in rule.get("resources", [])]

    with subject.changed(kinds.CLUSTER_ROLE, "system:kube-scheduler", "", change):
        yield []


@breakage(
    breaks={"health/control_plane": r"kube-scheduler runs as Pod kube-system/broken, but there is no Lease"},
    keeps=["health/livez"],
)
def scheduler_not_elected(subject: Subject) -> Damage:
    """A pod of the scheduler is there, but it has no Lease: nobody leads."""
    pod = manifests.pod("broken", subject.agnhost, labels={"component": SCHEDULER}, args=["pause"])
    pod["metadata"]["namespace"] = SYSTEM
    with subject.stopped(SCHEDULER):
        subject.client.delete(kinds.LEASE.path(SYSTEM, SCHEDULER))
        with subject.having(pod):
            yield []


@breakage(
    breaks={"apps/statefulset/max_unavailable": r"runs its template in 2 pods, 1 ready: not within"},
    keeps=["apps/statefulset/on_delete"],
    scale=0.5,
)
def statefulsets_one_by_one(subject: Subject) -> Damage:
    """StatefulSets replace one pod at a time, however many may be unavailable."""
    with subject.flagged(MANAGER, "feature-gates", "MaxUnavailableStatefulSet=false"):
        yield []


@breakage(
    breaks={"scale/hpa_custom/zero": r"HorizontalPodAutoscaler \S+/parked settles at 3 replicas: not within"},
    keeps=["scale/hpa_custom/external"],
    scale=0.3,
)
def autoscaler_gives_up_at_zero(subject: Subject) -> Damage:
    """Horizontal autoscaling lets everything be of which there are no pods."""
    with subject.flagged(MANAGER, "feature-gates", "HPAScaleToZero=false"):
        yield []
