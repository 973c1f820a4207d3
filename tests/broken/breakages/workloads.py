"""Deployments, DaemonSets, StatefulSets, Jobs and CronJobs: of what users ask for of them, one thing is not done."""

from __future__ import annotations

from .controllers import rewritten

DEPLOYMENTS = "apps/v1/deployments"
STATEFUL_SETS = "apps/v1/statefulsets"
JOBS = "batch/v1/jobs"


def _without(field: str) -> str:
    """Takes a field of the spec away."""
    return f'has(object.spec.{field}) ? [JSONPatch{{op: "remove", path: "/spec/{field}"}}] : []'


rewritten(
    "deployment_ready_is_available",
    "Pods of Deployments are available as soon as they are ready.",
    DEPLOYMENTS,
    "Object{spec: Object.spec{minReadySeconds: 0}}",
    breaks={"apps/deployment/min_ready_seconds": r"web: its pod is available as soon as it is ready"},
    keeps=["apps/deployment/revision_history"],
)
rewritten(
    "deployment_history_lost",
    "Deployments keep no ReplicaSet of an earlier template.",
    DEPLOYMENTS,
    "Object{spec: Object.spec{revisionHistoryLimit: 0}}",
    breaks={
        "apps/deployment/revision_history": r"revisions 4 exist, not 3 and 4",
        "apps/deployment/rollback": r"web: revisions are \['3'\], not 2 and 3",
    },
    keeps=["apps/deployment/self_heal"],
)
rewritten(
    "deployment_history_endless",
    "Deployments keep every ReplicaSet they ever had.",
    DEPLOYMENTS,
    "Object{spec: Object.spec{revisionHistoryLimit: 100}}",
    breaks={"apps/deployment/revision_history": r"revisions 1, 2, 3, 4 exist, not 3 and 4"},
    keeps=["apps/deployment/rollback"],
)
rewritten(
    "deployment_never_recreates",
    "Deployments start their new pods before the old ones have ended, whatever their strategy.",
    DEPLOYMENTS,
    'object.spec.strategy.type == "Recreate" ? '
    '[JSONPatch{op: "replace", path: "/spec/strategy", value: {"type": "RollingUpdate"}}] : []',
    patch="JSONPatch",
    breaks={"apps/deployment/recreate": r"no new pod exists beside an old one .*: not at moment .* beside web"},
    keeps=["apps/deployment/pause"],
    scale=1.0,
)
rewritten(
    "deployment_scales_newest",
    "Deployments that are scaled in the middle of a rollout give all new pods to the new template.",
    "apps/v1/replicasets",
    'has(object.metadata.annotations) && "deployment.kubernetes.io/desired-replicas" in object.metadata.annotations ? '
    '[JSONPatch{op: "remove", path: "/metadata/annotations/deployment.kubernetes.io~1desired-replicas"}] : []',
    patch="JSONPatch",
    breaks={"apps/deployment/proportional_scaling": r"by revision they ask for \{.*\}, not \{'1': 4, '2': 2\}"},
    keeps=["apps/deployment/revision_history"],
)
rewritten(
    "daemonset_selector_ignored",
    "DaemonSets have a pod on every node, whichever they ask for.",
    "apps/v1/daemonsets",
    'has(object.spec.template.spec.nodeSelector) ? [JSONPatch{op: "remove", path: "/spec/template/spec/nodeSelector"}] '
    ": []",
    patch="JSONPatch",
    breaks={"apps/daemonset/node_labels": r"agent has pods although no node has its label|rolled out: not within"},
    keeps=["apps/daemonset/every_node"],
    scale=1.0,
)
rewritten(
    "daemonset_all_at_once",
    "Rolling updates of DaemonSets replace all pods at once.",
    "apps/v1/daemonsets",
    '[JSONPatch{op: "replace", path: "/spec/updateStrategy", value: '
    '{"type": dyn("RollingUpdate"), "rollingUpdate": dyn({"maxUnavailable": dyn("100%"), "maxSurge": dyn(0)})}}]',
    patch="JSONPatch",
    breaks={"apps/daemonset/update": r"all nodes but \d have an available pod: not at moment"},
    keeps=["apps/daemonset/every_node"],
    scale=1.0,
)
rewritten(
    "statefulset_updates_by_itself",
    "StatefulSets replace their pods at once, although they are to wait until somebody deletes them.",
    STATEFUL_SETS,
    '[JSONPatch{op: "replace", path: "/spec/updateStrategy", value: {"type": "RollingUpdate"}}]',
    patch="JSONPatch",
    breaks={"apps/statefulset/on_delete": r"db replaced \S+ \S+ although nobody deleted it|0 pods run its template"},
    keeps=["apps/statefulset/parallel"],
)
rewritten(
    "statefulset_keeps_claims",
    "StatefulSets never delete a claim of theirs.",
    STATEFUL_SETS,
    "Object{spec: Object.spec{persistentVolumeClaimRetentionPolicy: Object.spec.persistentVolumeClaimRetentionPolicy{"
    'whenScaled: "Retain", whenDeleted: "Retain"}}}',
    breaks={"apps/statefulset/claims[Delete]": r"persistentvolumeclaims .* number exactly 1.*there are 2, not 1"},
    keeps=["apps/statefulset/claims[Retain]"],
)
rewritten(
    "statefulset_deletes_claims",
    "StatefulSets delete the claims of theirs that are to be kept.",
    STATEFUL_SETS,
    "Object{spec: Object.spec{persistentVolumeClaimRetentionPolicy: Object.spec.persistentVolumeClaimRetentionPolicy{"
    'whenScaled: "Delete", whenDeleted: "Delete"}}}',
    breaks={"apps/statefulset/claims[Retain]": r"persistentvolumeclaims .* number exactly 2.*there are [01], not 2"},
    keeps=["apps/statefulset/claims[Delete]"],
)
rewritten(
    "pods_without_subdomain",
    "No pod is told the domain that it is to be found in.",
    "v1/pods",
    'has(object.spec.subdomain) ? [JSONPatch{op: "remove", path: "/spec/subdomain"}] : []',
    patch="JSONPatch",
    breaks={
        "apps/statefulset/identity": r"the address of db-0\.db as \S+ \S+/db-0 looks it up: not within",
        "apps/statefulset/moved": r"the address of db-0\.db as \S+ \S+/db-0 looks it up: not within",
    },
    keeps=["apps/statefulset/parallel"],
    scale=0.5,
)
rewritten(
    "job_deadline_ignored",
    "Jobs may be active for as long as they like.",
    JOBS,
    _without("activeDeadlineSeconds"),
    patch="JSONPatch",
    breaks={"apps/job/active_deadline": r"Job \S+/late has condition Failed=True \(DeadlineExceeded\): not within"},
    keeps=["apps/job/suspend"],
)
rewritten(
    "job_tries_once_more",
    "Jobs try one more pod than they should before they fail.",
    JOBS,
    "Object{spec: Object.spec{backoffLimit: object.spec.backoffLimit + 1}}",
    breaks={"apps/job/failure": r"fail: 3 pods were tried, not 2"},
    keeps=["apps/job/suspend"],
    scale=1.0,
)
rewritten(
    "job_failure_policy_ignored",
    "Jobs look at how often their pods have failed, never at how.",
    JOBS,
    _without("podFailurePolicy"),
    patch="JSONPatch",
    breaks={"apps/job/failure[pod_failure_policy]": r"'reason': 'BackoffLimitExceeded'"},
    keeps=["apps/job/failure[backoff_limit]"],
    scale=1.0,
)
rewritten(
    "job_index_tried_again",
    "Jobs try each index once more than they should.",
    JOBS,
    "has(object.spec.backoffLimitPerIndex) ? "
    '[JSONPatch{op: "replace", path: "/spec/backoffLimitPerIndex", value: object.spec.backoffLimitPerIndex + 1}] : []',
    patch="JSONPatch",
    breaks={"apps/job/failed_indexes": r"part: \{'failedIndexes': '0', 'completedIndexes': '1', 'failed': 2"},
    keeps=["apps/job/suspend"],
    scale=1.0,
)
rewritten(
    "job_success_policy_ignored",
    "Jobs wait for all of their indexes, whatever is enough for success.",
    JOBS,
    _without("successPolicy"),
    patch="JSONPatch",
    breaks={"apps/job/success_policy": r"Job \S+/lead has condition Complete=True \(SuccessPolicy\): not within"},
    keeps=["apps/job/suspend"],
)
rewritten(
    "cronjob_history_endless",
    "CronJobs keep all Jobs that they ever started.",
    "batch/v1/cronjobs",
    "Object{spec: Object.spec{successfulJobsHistoryLimit: 10, failedJobsHistoryLimit: 10}}",
    breaks={"apps/cronjob/history": r"bad-2, good-2: not within .* bad-1, bad-2, good-1, good-2"},
    keeps=["apps/cronjob/catch_up"],
)
rewritten(
    "cronjob_suspension_ignored",
    "CronJobs start Jobs although they are suspended.",
    "batch/v1/cronjobs",
    "Object{spec: Object.spec{suspend: false}}",
    breaks={"apps/cronjob/schedule": r"CronJob \S+/idle is suspended, and has started"},
    keeps=["apps/job/suspend"],
    scale=1.0,
)
rewritten(
    "deployment_waits_for_ever",
    "Deployments never say that they do not progress.",
    DEPLOYMENTS,
    "Object{spec: Object.spec{progressDeadlineSeconds: 600}}",
    breaks={"apps/deployment/bad_rollout": r"Deployment \S+/web .*ProgressDeadlineExceeded.* not within"},
    keeps=["apps/deployment/revision_history"],
)
rewritten(
    "deployment_recreates",
    "Deployments end all their old pods before they start new ones, whatever their strategy.",
    DEPLOYMENTS,
    '[JSONPatch{op: "replace", path: "/spec/strategy", value: {"type": "Recreate"}}]',
    patch="JSONPatch",
    breaks={"apps/deployment/zero_downtime": r"every request is answered during a rolling update of Deployment"},
    keeps=["apps/deployment/self_heal"],
    scale=1.0,
)
rewritten(
    "daemonset_never_surges",
    "Rolling updates of DaemonSets end the old pod of a node before the new one is there, whatever they are to do.",
    "apps/v1/daemonsets",
    "object.spec.updateStrategy.rollingUpdate.maxSurge == 1 ? "
    '[JSONPatch{op: "replace", path: "/spec/updateStrategy/rollingUpdate", value: '
    '{"maxUnavailable": 1, "maxSurge": 0}}] : []',
    patch="JSONPatch",
    breaks={"apps/daemonset/update[1/0]": r"all nodes but 0 have an available pod: not at moment"},
    keeps=["apps/daemonset/update[0/1]"],
    scale=1.0,
)
rewritten(
    "job_goes_at_once",
    "Jobs go away as soon as they have finished, however long they are to stay.",
    JOBS,
    "has(object.spec.ttlSecondsAfterFinished) ? "
    '[JSONPatch{op: "replace", path: "/spec/ttlSecondsAfterFinished", value: 0}] : []',
    patch="JSONPatch",
    breaks={"apps/job/ttl": r"lasting is to stay for an hour after its end, and has gone away|Job \S+/lasting"},
    keeps=["apps/job/suspend"],
)
rewritten(
    "daemon_pods_tolerate_nothing",
    "Pods of DaemonSets leave nodes in trouble as all others do.",
    "v1/pods",
    "oldObject == null && has(object.metadata.ownerReferences) && has(object.spec.tolerations) && "
    'object.metadata.ownerReferences.exists(each, each.kind == "DaemonSet") ? '
    '[JSONPatch{op: "remove", path: "/spec/tolerations"}] : []',
    patch="JSONPatch",
    breaks={"apps/daemonset/every_node": r"does not tolerate .*node.kubernetes.io/not-ready.* for good"},
    keeps=["apps/deployment/self_heal"],
)
