"""Deployments, DaemonSets, StatefulSets, Jobs and CronJobs: of what users ask for of them, one thing is not done."""

from __future__ import annotations

import threading
from typing import Any

from clusterproof import kinds
from clusterproof.client import Client
from clusterproof.errors import ApiError

from ..registry import Damage, breakage
from ..subject import Subject
from .controllers import rewritten

DEPLOYMENTS = "apps/v1/deployments"
DAEMON_SETS = "apps/v1/daemonsets"
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
    DAEMON_SETS,
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
    DAEMON_SETS,
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
    "statefulset_forgets_its_template",
    "StatefulSets take their newest template for the current one, also while pods below a partition run an older one.",
    f"{STATEFUL_SETS}/status",
    "has(object.status.updateRevision) ? "
    '[JSONPatch{op: "add", path: "/status/currentRevision", value: object.status.updateRevision}] : []',
    patch="JSONPatch",
    breaks={"apps/statefulset/update": r"db: db-0 is below the partition, and came back from the new template"},
    keeps=["apps/statefulset/parallel"],
    scale=1.0,
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
    breaks={
        "apps/statefulset/claims[Retain]": r"persistentvolumeclaims .* number exactly 2.*there are [01], not 2|"
        r"belong to a pod that has gone|are to be kept, but belong to somebody"
    },
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
    breaks={"apps/job/failed_indexes": r"part-0: its index 0 is to be tried 1 times, .*'failed': 2"},
    keeps=["apps/job/suspend"],
    scale=1.0,
)
rewritten(
    "job_index_never_tried_again",
    "Jobs give an index up as soon as one pod of it has failed, however often it may be tried.",
    JOBS,
    "has(object.spec.backoffLimitPerIndex) ? "
    '[JSONPatch{op: "replace", path: "/spec/backoffLimitPerIndex", value: 0}] : []',
    patch="JSONPatch",
    breaks={"apps/job/failed_indexes": r"part-1: its index 0 is to be tried 2 times, .*'failed': 1"},
    keeps=["apps/job/max_failed_indexes"],
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
    "job_succeeds_by_any_index",
    "Jobs are complete when any of their indexes has succeeded, whichever their success policy names.",
    JOBS,
    "has(object.spec.successPolicy) && has(object.spec.successPolicy.rules[0].succeededIndexes) ? "
    '[JSONPatch{op: "replace", path: "/spec/successPolicy/rules/0", value: {"succeededCount": 1}}] : []',
    patch="JSONPatch",
    breaks={"apps/job/success_policy": r"Job \S+/lead is not to succeed before its index 0 has, and tells of"},
    keeps=["apps/job/suspend"],
    scale=1.0,
)
rewritten(
    "job_succeeds_by_all_indexes",
    "Jobs wait for all of their indexes where their success policy says how many are enough.",
    JOBS,
    "has(object.spec.successPolicy) && has(object.spec.successPolicy.rules[0].succeededCount) ? "
    '[JSONPatch{op: "replace", path: "/spec/successPolicy/rules/0/succeededCount", '
    "value: object.spec.completions}] : []",
    patch="JSONPatch",
    breaks={
        "apps/job/success_policy": r"Job \S+/any (is to be complete by its indexes 0, and not by 0,1|"
        r"has condition Complete=True \(SuccessPolicy\): not within)"
    },
    keeps=["apps/job/suspend"],
    scale=1.0,
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
    DAEMON_SETS,
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
rewritten(
    "daemonset_tolerates_everything",
    "DaemonSets have a pod on every node, whether it tolerates the node's NoSchedule taints or not.",
    DAEMON_SETS,
    '[JSONPatch{op: "add", path: "/spec/template/spec/tolerations", value: '
    '[{"operator": "Exists", "effect": "NoSchedule"}]}]',
    patch="JSONPatch",
    breaks={"apps/daemonset/taints": r"DaemonSet \S+/shy (is meant for 0 nodes: not within|has a pod on Node)"},
    keeps=["apps/deployment/self_heal"],
)
rewritten(
    "daemonset_stays_on_tainted_nodes",
    "Pods of DaemonSets stay, whatever NoExecute taint their node gets.",
    DAEMON_SETS,
    "has(object.spec.template.spec.tolerations) ? [JSONPatch{"
    'op: "add", path: "/spec/template/spec/tolerations/-", value: {"operator": "Exists", "effect": "NoExecute"}}] : []',
    patch="JSONPatch",
    breaks={"apps/daemonset/taints": r"Pod \S+/bold-\w+ told to end: not within"},
    keeps=["apps/deployment/self_heal"],
)
rewritten(
    "daemonset_surges_everywhere",
    "Rolling updates of DaemonSets start a new pod on all nodes at once, however few they are to start.",
    DAEMON_SETS,
    "object.spec.updateStrategy.rollingUpdate.maxSurge == 1 ? "
    '[JSONPatch{op: "replace", path: "/spec/updateStrategy/rollingUpdate/maxSurge", value: "100%"}] : []',
    patch="JSONPatch",
    breaks={"apps/daemonset/update[1/0]": r"at most 1 nodes have a new pod that is not ready .*: not at moment"},
    keeps=["apps/daemonset/update[0/1]"],
    scale=1.0,
)
rewritten(
    "daemonset_history_lost",
    "DaemonSets keep no revision of an earlier template.",
    DAEMON_SETS,
    "Object{spec: Object.spec{revisionHistoryLimit: 0}}",
    breaks={"apps/daemonset/rollback": r"agent: its newest revision is \S+ \S+, not \S+ \S+ of its first template"},
    keeps=["apps/daemonset/every_node"],
    scale=1.0,
)
rewritten(
    "daemonset_update_waits",
    "DaemonSets replace a pod by their changed template only when somebody deletes it.",
    DAEMON_SETS,
    '[JSONPatch{op: "replace", path: "/spec/updateStrategy", value: {"type": "OnDelete"}}]',
    patch="JSONPatch",
    breaks={"apps/daemonset/rollback": r"pods .* number exactly 2, .* with image \S+: not within .*their images are"},
    keeps=["apps/daemonset/every_node"],
)
rewritten(
    "job_stays_longer",
    "Jobs that have finished stay for a minute, also those that are to go sooner.",
    JOBS,
    "has(object.spec.ttlSecondsAfterFinished) && object.spec.ttlSecondsAfterFinished < 60 ? "
    '[JSONPatch{op: "replace", path: "/spec/ttlSecondsAfterFinished", value: 60}] : []',
    patch="JSONPatch",
    breaks={"apps/job/ttl": r"Job \S+/brief gone: not within .* still there"},
    keeps=["apps/job/suspend"],
)
rewritten(
    "job_deadline_late",
    "Jobs may be active for a minute, also those that have less.",
    JOBS,
    "has(object.spec.activeDeadlineSeconds) && object.spec.activeDeadlineSeconds < 60 ? "
    '[JSONPatch{op: "replace", path: "/spec/activeDeadlineSeconds", value: 60}] : []',
    patch="JSONPatch",
    breaks={"apps/job/active_deadline": r"Job \S+/late has condition Failed=True \(DeadlineExceeded\): not within"},
    keeps=["apps/job/suspend"],
)
rewritten(
    "job_deadline_early",
    "Jobs that have a deadline may be active for a second, also those that have longer.",
    JOBS,
    "has(object.spec.activeDeadlineSeconds) && object.spec.activeDeadlineSeconds > 1 ? "
    '[JSONPatch{op: "replace", path: "/spec/activeDeadlineSeconds", value: 1}] : []',
    patch="JSONPatch",
    breaks={
        "apps/job/active_deadline": r"late may be active for 3 s, and failed|patient may be active for an hour, and|"
        r"number exactly 1, none being deleted: not within"
    },
    keeps=["apps/job/suspend"],
)
rewritten(
    "job_fails_at_any_exit_code",
    "Jobs whose failure policy names exit codes fail at any other, too.",
    JOBS,
    "has(object.spec.podFailurePolicy) && has(object.spec.podFailurePolicy.rules[0].onExitCodes) ? "
    '[JSONPatch{op: "replace", path: "/spec/podFailurePolicy/rules/0/onExitCodes", value: '
    '{"operator": dyn("NotIn"), "values": dyn([1])}}] : []',
    patch="JSONPatch",
    breaks={"apps/job/failure[other_exit_code]": r"'reason': 'PodFailurePolicy'"},
    keeps=["apps/job/failure[backoff_limit]", "apps/job/failure[pod_failure_policy]"],
    scale=1.0,
)
rewritten(
    "job_counts_disruptions",
    "Jobs count pods that were disrupted as failed, although they are to ignore them.",
    JOBS,
    'has(object.spec.podFailurePolicy) && object.spec.podFailurePolicy.rules[0].action == "Ignore" ? '
    '[JSONPatch{op: "replace", path: "/spec/podFailurePolicy/rules/0/action", value: "Count"}] : []',
    patch="JSONPatch",
    breaks={"apps/job/disruption": r"are 1, all ready, without work-\w+: not within|work is to ignore that"},
    keeps=["apps/job/failure[pod_failure_policy]"],
)
rewritten(
    "deployment_gives_up_late",
    "Deployments say that they do not progress only after a minute, also those that have less.",
    DEPLOYMENTS,
    "object.spec.progressDeadlineSeconds < 60 ? "
    '[JSONPatch{op: "replace", path: "/spec/progressDeadlineSeconds", value: 60}] : []',
    patch="JSONPatch",
    breaks={"apps/deployment/bad_rollout": r"Deployment \S+/web .*ProgressDeadlineExceeded.* not within"},
    keeps=["apps/deployment/revision_history"],
)
rewritten(
    "deployment_gives_up_at_once",
    "Deployments say that they do not progress as soon as they have not for a second.",
    DEPLOYMENTS,
    "object.spec.progressDeadlineSeconds < 60 ? "
    '[JSONPatch{op: "replace", path: "/spec/progressDeadlineSeconds", value: 1}] : []',
    patch="JSONPatch",
    breaks={"apps/deployment/bad_rollout": r"web may be without progress for 3 s, and was given up after [012]\b"},
    keeps=["apps/deployment/revision_history"],
    scale=1.0,
)
rewritten(
    "deployment_soon_available",
    "Pods of Deployments are available two seconds after they are ready, also those that are to wait longer.",
    DEPLOYMENTS,
    "has(object.spec.minReadySeconds) && object.spec.minReadySeconds > 2 ? "
    '[JSONPatch{op: "replace", path: "/spec/minReadySeconds", value: 2}] : []',
    patch="JSONPatch",
    breaks={
        "apps/deployment/min_ready_seconds": r"web has no available pods: no longer after .* its pod is available|"
        r"its pod is available as soon as it is ready"
    },
    keeps=["apps/deployment/revision_history"],
    scale=1.0,
)


def _claims_kept(field: str, other: str) -> str:
    """What a StatefulSet does with claims in one case, it does as it is told for another."""
    told = "persistentVolumeClaimRetentionPolicy"
    return f"Object{{spec: Object.spec{{{told}: Object.spec.{told}{{{field}: object.spec.{told}.{other}}}}}}}"


rewritten(
    "statefulset_claims_as_if_scaled",
    "StatefulSets that are deleted do with their claims as they are told for being scaled down.",
    STATEFUL_SETS,
    _claims_kept("whenDeleted", "whenScaled"),
    breaks={
        "apps/statefulset/claims[Delete/Retain]": r"there are [01], not 1|are to be kept, but belong to somebody",
        "apps/statefulset/claims[Retain/Delete]": r"persistentvolumeclaims .* number exactly 0.*there are 2, not 0",
    },
    keeps=["apps/statefulset/claims[Retain]", "apps/statefulset/claims[Delete]"],
)
rewritten(
    "statefulset_claims_as_if_deleted",
    "StatefulSets that are scaled down do with their claims as they are told for being deleted.",
    STATEFUL_SETS,
    _claims_kept("whenScaled", "whenDeleted"),
    breaks={
        "apps/statefulset/claims[Delete/Retain]": r"persistentvolumeclaims .* number exactly 1.*there are 2, not 1",
        "apps/statefulset/claims[Retain/Delete]": r"persistentvolumeclaims .* number exactly 2.*there are [12], not 2|"
        r"belong to a pod that has gone",
    },
    keeps=["apps/statefulset/claims[Retain]", "apps/statefulset/claims[Delete]"],
)
rewritten(
    "statefulset_never_parallel",
    "StatefulSets start their pods one after the other, although they need not wait.",
    STATEFUL_SETS,
    'Object{spec: Object.spec{podManagementPolicy: "OrderedReady"}}',
    breaks={"apps/statefulset/parallel": r"number exactly 3, none being deleted: not within .*there are 1, not 3"},
    keeps=["apps/statefulset/order"],
)
rewritten(
    "statefulset_ends_one_at_a_time",
    "StatefulSets that are scaled down end one pod, and the next only when that is gone: here, never.",
    f"{STATEFUL_SETS}/scale",
    "object.spec.replicas < oldObject.spec.replicas - 1 ? "
    '[JSONPatch{op: "replace", path: "/spec/replicas", value: oldObject.spec.replicas - 1}] : []',
    patch="JSONPatch",
    breaks={"apps/statefulset/parallel": r"Pod \S+/db-1 told to end: not within"},
    keeps=["apps/statefulset/start_ordinal"],
)
rewritten(
    "cronjob_deadline_short",
    "CronJobs start no Job that is more than a minute late, whatever their deadline.",
    "batch/v1/cronjobs",
    "has(object.spec.startingDeadlineSeconds) ? "
    '[JSONPatch{op: "replace", path: "/spec/startingDeadlineSeconds", value: 60}] : []',
    patch="JSONPatch",
    breaks={"apps/cronjob/catch_up": r"were started by CronJob \S+/lenient: not within"},
    keeps=["apps/cronjob/time_zone"],
)
rewritten(
    "budgets_by_unavailable_pods_ignored",
    "Disruption budgets that say how many pods may be unavailable keep none.",
    "policy/v1/poddisruptionbudgets",
    'has(object.spec.maxUnavailable) ? [JSONPatch{op: "replace", path: "/spec/maxUnavailable", value: "100%"}] : []',
    patch="JSONPatch",
    breaks={"apps/pdb/max_unavailable": r"PodDisruptionBudget \S+/web allows 1 disruptions of 2 .*: not within"},
    keeps=["apps/pdb/eviction"],
    scale=1.0,
)
rewritten(
    "statefulset_ready_is_available",
    "Pods of StatefulSets are available as soon as they are ready.",
    STATEFUL_SETS,
    "Object{spec: Object.spec{minReadySeconds: 0}}",
    breaks={"apps/statefulset/min_ready_seconds": r"db: its pod is available as soon as it is ready"},
    keeps=["apps/statefulset/parallel"],
    scale=1.0,
)
rewritten(
    "statefulset_goes_on_before_available",
    "StatefulSets make their next pod when the one before is not available yet.",
    STATEFUL_SETS,
    "has(object.spec.minReadySeconds) && object.spec.minReadySeconds > 0 ? "
    '[JSONPatch{op: "replace", path: "/spec/podManagementPolicy", value: "Parallel"}] : []',
    patch="JSONPatch",
    breaks={"apps/statefulset/min_ready_seconds": r"whose first is not available, number 1: no longer.*there are 2"},
    keeps=["apps/statefulset/order"],
    scale=1.0,
)
rewritten(
    "statefulset_history_lost",
    "StatefulSets keep no revision of an earlier template.",
    STATEFUL_SETS,
    "Object{spec: Object.spec{revisionHistoryLimit: 0}}",
    breaks={"apps/statefulset/revision_history": r"revisions 4 exist, not 3 and 4"},
    keeps=["apps/statefulset/parallel"],
)
rewritten(
    "statefulset_history_endless",
    "StatefulSets keep every revision they ever had.",
    STATEFUL_SETS,
    "Object{spec: Object.spec{revisionHistoryLimit: 100}}",
    breaks={"apps/statefulset/revision_history": r"revisions 1, 2, 3, 4 exist, not 3 and 4"},
    keeps=["apps/statefulset/parallel"],
)
rewritten(
    "daemonset_ready_is_available",
    "Pods of DaemonSets are available as soon as they are ready.",
    DAEMON_SETS,
    "Object{spec: Object.spec{minReadySeconds: 0}}",
    breaks={
        "apps/daemonset/min_ready_seconds": r"agent: its pod is available as soon as it is ready|"
        r"agent has no available pods: no longer"
    },
    keeps=["apps/daemonset/every_node"],
    scale=1.0,
)
rewritten(
    "budgets_keep_unhealthy_pods",
    "Disruption budgets without room protect pods that are not ready, too, also where they are told not to.",
    "policy/v1/poddisruptionbudgets",
    _without("unhealthyPodEvictionPolicy"),
    patch="JSONPatch",
    breaks={"apps/pdb/unhealthy_pods": r"protects no pod that is not ready, and the eviction of Pod \S+ got 429"},
    keeps=["apps/pdb/eviction"],
    scale=1.0,
)
rewritten(
    "budgets_let_unhealthy_pods_go",
    "Disruption budgets never protect pods that are not ready.",
    "policy/v1/poddisruptionbudgets",
    "has(object.spec.unhealthyPodEvictionPolicy) ? "
    '[JSONPatch{op: "replace", path: "/spec/unhealthyPodEvictionPolicy", value: "AlwaysAllow"}] : []',
    patch="JSONPatch",
    breaks={"apps/pdb/unhealthy_pods": r"web has no room, and the eviction of Pod \S+ got 201"},
    keeps=["apps/pdb/eviction"],
    scale=1.0,
)
rewritten(
    "job_tries_all_indexes",
    "Jobs try all their indexes, however many of them have failed.",
    JOBS,
    _without("maxFailedIndexes"),
    patch="JSONPatch",
    breaks={"apps/job/max_failed_indexes": r"Job \S+/all: .*'reason': 'FailedIndexes'"},
    keeps=["apps/job/failed_indexes"],
)
rewritten(
    "job_gives_up_no_index",
    "Jobs try an index again whose pod has failed in a way for which it is to be given up.",
    JOBS,
    'has(object.spec.podFailurePolicy) && object.spec.podFailurePolicy.rules[0].action == "FailIndex" ? '
    '[JSONPatch{op: "replace", path: "/spec/podFailurePolicy/rules/0/action", value: "Count"}] : []',
    patch="JSONPatch",
    breaks={"apps/job/fail_index": r"part: its index 0 is not to be tried again, .*'failed': 2"},
    keeps=["apps/job/failed_indexes"],
    scale=1.0,
)
rewritten(
    "job_replaces_at_once",
    "Jobs count and replace pods as soon as they are told to end, although they are to wait until they have ended.",
    JOBS,
    "has(object.spec.podReplacementPolicy) && !has(object.spec.podFailurePolicy) ? "
    '[JSONPatch{op: "replace", path: "/spec/podReplacementPolicy", value: "TerminatingOrFailed"}] : []',
    patch="JSONPatch",
    breaks={"apps/job/replacement": r"Job \S+/work waits for the end: (not within|no longer).* 1 failed"},
    keeps=["apps/job/suspend"],
)
rewritten(
    "job_of_others_taken_over",
    "Jobs that somebody else manages are run by the cluster, too.",
    JOBS,
    _without("managedBy"),
    patch="JSONPatch",
    breaks={"apps/job/managed_by": r"untouched: no longer .* Job \S+/others has the status|others is somebody else's"},
    keeps=["apps/job/suspend"],
    scale=1.0,
)


@breakage(
    breaks={"apps/cronjob/schedule": r"tick started several Jobs for one minute"}, keeps=["apps/job/suspend"], scale=1.0
)
def cronjob_starts_twice(subject: Subject) -> Damage:
    """CronJobs start two Jobs each time."""
    done = threading.Event()
    doubling = threading.Thread(target=_double_jobs, args=(Client.from_kubeconfig(subject.state.kubeconfig), done))
    doubling.start()
    try:
        yield []
    finally:
        done.set()
        doubling.join()


def _double_jobs(client: Client, done: threading.Event) -> None:
    """Give every Job that a CronJob has started a twin, until it is `done`."""
    seen: set[str] = set()
    while not done.wait(0.2):
        for job in client.get(kinds.JOB.path())["items"]:
            metadata = job["metadata"]
            owners = [owner["kind"] for owner in metadata.get("ownerReferences", [])]
            if "CronJob" in owners and metadata["uid"] not in seen and not metadata["name"].endswith("-twin"):
                seen.add(metadata["uid"])
                _twin(client, job)


def _twin(client: Client, job: dict[str, Any]) -> None:
    kept = {key: job["metadata"][key] for key in ("annotations", "ownerReferences") if key in job["metadata"]}
    template = {"spec": job["spec"]["template"]["spec"]}
    metadata = {"name": f"{job['metadata']['name']}-twin", **kept}
    twin = {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": {"template": template}}
    try:
        client.post(kinds.JOB.path(job["metadata"]["namespace"]), twin)
    except ApiError as error:
        if error.status not in (403, 409):  # its namespace may be on its way out
            raise
