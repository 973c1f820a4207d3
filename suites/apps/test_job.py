"""Job: work is done as often as asked, not more at a time than asked, and given up when told to."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from clusterproof import Images, Namespace, Object, Timeouts, case, consistently, eventually, kinds, manifests, watching
from clusterproof.conditions import Condition, all_ready, complete, failed, gone, has_condition, settled, without
from clusterproof.inside import said

TELL = "echo $JOB_COMPLETION_INDEX $(hostname) > /dev/termination-log"


def _fail_job_at(code: int) -> dict[str, Any]:
    """Of a Job that may try twice, and fails at once when a pod ends with this exit code."""
    rule = {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [code]}}
    return {"backoffLimit": 1, "podFailurePolicy": {"rules": [rule]}}


@pytest.mark.parametrize("mode", [case("plain", "NonIndexed"), case("indexed", "Indexed")])
def test_completion(namespace: Namespace, images: Images, timeouts: Timeouts, mode: str) -> None:
    """A Job MUST be complete when as many pods as asked for have succeeded, never more of them active than asked for.

    With indexes, each index succeeds once, in a pod that knows it and is named by it.

    Source: https://kubernetes.io/docs/concepts/workloads/controllers/job/#parallel-jobs
    """
    manifest = manifests.job(
        "sum",
        images.agnhost,
        completions=3,
        parallelism=2,
        command=["sh", "-c", TELL],
        more={"completionMode": mode},
    )

    with watching(namespace.pods()) as pods:
        job = namespace.create(manifest)
        eventually(job, complete, within=timeouts.job)

    active = max(([pod.name for pod in state if not _ended(pod)] for state in pods.states), key=len)
    assert len(active) == 2, f"{job}: at most 2 pods are active at a time; {', '.join(active) or 'none'} were"
    phases = [pod.status["phase"] for pod in pods.states[-1]]
    assert phases == ["Succeeded"] * 3, f"{job} is complete, and the phases of its pods are {phases}"
    assert job.status.get("succeeded") == 3, f"{job}: its status tells of {job.status}"
    told = sorted(_message(pod) for pod in pods.states[-1])
    if mode == "Indexed":
        assert told == ["0 sum-0", "1 sum-1", "2 sum-2"], f"{job}: its pods gave index and host name as {told}"
        assert job.status.get("completedIndexes") == "0-2", f"{job}: its status tells of {job.status}"
    else:
        assert told == [pod.name for pod in pods.states[-1]], f"{job}: its pods gave their host names as {told}"


@pytest.mark.parametrize(
    ("more", "reason", "tries"),
    [
        case("backoff_limit", {"backoffLimit": 1}, "BackoffLimitExceeded", 2),
        case("pod_failure_policy", _fail_job_at(42), "PodFailurePolicy", 1),
        case("other_exit_code", _fail_job_at(41), "BackoffLimitExceeded", 2),
    ],
)
def test_failure(
    namespace: Namespace, images: Images, timeouts: Timeouts, more: dict[str, Any], reason: str, tries: int
) -> None:
    """A Job whose pods fail MUST fail after exactly as many of them as its limits allow, and say why.

    Source: https://kubernetes.io/docs/concepts/workloads/controllers/job/#handling-pod-and-container-failures
    """
    manifest = manifests.job("fail", images.agnhost, command=["sh", "-c", "exit 42"], more=more)

    with watching(namespace.pods()) as pods:
        job = namespace.create(manifest)
        eventually(job, failed, within=timeouts.job)

    assert job.condition("Failed")["reason"] == reason, f"{job}: {job.condition('Failed')}"
    tried = {pod.name for state in pods.states for pod in state}
    assert len(tried) == tries, f"{job}: {len(tried)} pods were tried, not {tries}"
    assert job.status.get("failed") == tries, f"{job}: its status tells of {job.status}"


def test_disruption(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A Job whose failure policy ignores disruptions MUST run another pod for an evicted one, and not count that one.

    Source: https://kubernetes.io/docs/concepts/workloads/controllers/job/#pod-failure-policy
    """
    rule = {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    more = {"backoffLimit": 0, "podFailurePolicy": {"rules": [rule]}}
    # It has to be killed: a pod that ends well when it is told to has succeeded, and so would the Job.
    job = namespace.create(manifests.job("work", images.agnhost, command=["sleep", "3600"], more=more))
    (first,) = eventually(job.pods(), all_ready(1), within=timeouts.pod)

    answer = first.evict()
    assert answer.status == 201, f"no budget protects {first}, and its eviction got {answer.status}: {answer.text}"

    eventually(job.pods(), without(first, all_ready(1)), within=timeouts.pod_end + timeouts.job)
    counted = _failure(job.read())
    assert not counted, f"{job} is to ignore that {first} was evicted, and has failed: {counted}"


def test_failed_indexes(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A Job with a limit per index MUST try an index as often as that allows, and finish the others when it has failed.

    Source: https://kubernetes.io/docs/concepts/workloads/controllers/job/#backoff-limit-per-index
    """
    script, jobs = ["sh", "-c", "test $JOB_COMPLETION_INDEX != 0"], []
    for limit in (0, 1):
        more = {"completionMode": "Indexed", "backoffLimitPerIndex": limit}
        manifest = manifests.job(f"part-{limit}", images.agnhost, completions=2, command=script, more=more)
        jobs.append(namespace.create(manifest))

    for tries, job in enumerate(jobs, 1):
        eventually(job, has_condition("Failed", reason="FailedIndexes"), within=timeouts.job)
        outcome = {key: job.status.get(key) for key in ("failedIndexes", "completedIndexes", "failed", "succeeded")}
        wanted = {"failedIndexes": "0", "completedIndexes": "1", "failed": tries, "succeeded": 1}
        assert outcome == wanted, f"{job}: its index 0 is to be tried {tries} times, and its status tells of {outcome}"


def test_max_failed_indexes(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A Job with maxFailedIndexes MUST fail as soon as more of its indexes have failed, and try no other one.

    Source: https://kubernetes.io/docs/concepts/workloads/controllers/job/#backoff-limit-per-index
    """
    more = {"completionMode": "Indexed", "backoffLimitPerIndex": 0, "maxFailedIndexes": 0}
    with watching(namespace.pods()) as pods:
        job = namespace.create(manifests.job("all", images.agnhost, completions=2, command=["false"], more=more))
        eventually(job, failed, within=timeouts.job)

    assert job.condition("Failed")["reason"] == "MaxFailedIndexesExceeded", f"{job}: {job.condition('Failed')}"
    tried = {pod.name for state in pods.states for pod in state}
    assert len(tried) == 1, f"{job}: {len(tried)} pods were tried, and the first that failed was one too many"
    assert job.status.get("failedIndexes") == "0", f"{job}: its status tells of {job.status}"


def test_fail_index(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A Job whose failure policy says FailIndex MUST give up the index of a pod that fails so, and go on with others.

    Source: https://kubernetes.io/docs/concepts/workloads/controllers/job/#backoff-limit-per-index
    """
    rule = {"action": "FailIndex", "onExitCodes": {"operator": "In", "values": [42]}}
    policy = {"backoffLimitPerIndex": 1, "podFailurePolicy": {"rules": [rule]}}
    script = ["sh", "-c", "test $JOB_COMPLETION_INDEX != 0 || exit 42"]
    more = {"completionMode": "Indexed", **policy}
    job = namespace.create(manifests.job("part", images.agnhost, completions=2, command=script, more=more))

    eventually(job, has_condition("Failed", reason="FailedIndexes"), within=timeouts.job)

    outcome = {key: job.status.get(key) for key in ("failedIndexes", "completedIndexes", "failed", "succeeded")}
    wanted = {"failedIndexes": "0", "completedIndexes": "1", "failed": 1, "succeeded": 1}
    assert outcome == wanted, f"{job}: its index 0 is not to be tried again, and its status tells of {outcome}"


def test_replacement(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A Job with podReplacementPolicy Failed MUST NOT count or replace a pod that is to end before it has ended.

    Source: https://kubernetes.io/docs/concepts/workloads/controllers/job/#pod-replacement-policy
    """
    command = ["sh", "-c", "trap '' TERM; until test -e /tmp/end; do sleep 0.5; done; exit 1"]
    more = {"podReplacementPolicy": "Failed"}
    job = namespace.create(manifests.job("work", images.agnhost, command=command, more=more))
    (first,) = eventually(job.pods(), all_ready(1), within=timeouts.pod)

    first.delete(grace=round(2 * timeouts.pod))
    eventually(job, _waits_for_the_end, within=timeouts.object)
    consistently(job, _waits_for_the_end, during=timeouts.steady)

    said(first, "touch /tmp/end")
    eventually(job.pods(), without(first, settled(1)), within=timeouts.pod_end + timeouts.job)


def test_managed_by(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A Job that names somebody else as the one who manages it MUST be left alone by the cluster's own controller.

    Source: https://kubernetes.io/docs/concepts/workloads/controllers/job/#delegation-of-managing-a-job-object-to-external-controller
    """
    nobody = {"managedBy": "clusterproof.dev/nobody"}
    other = namespace.create(manifests.job("others", images.agnhost, more=nobody, spec=manifests.PARKED))
    own = namespace.create(manifests.job("own", images.agnhost, spec=manifests.PARKED))

    eventually(own.pods(), settled(1), within=timeouts.object)
    consistently(namespace.select(kinds.JOB, "app=others"), _untouched, during=timeouts.steady)
    pods = namespace.pods("app=others").read()
    assert not pods, f"{other} is somebody else's, and was given {', '.join(map(str, pods))}"


def test_success_policy(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A Job with a success policy MUST be complete, and end the pods that are left, when that is met, and no sooner.

    Of one Job the index 0 is enough, which succeeds when it is told to; 1 does so at once, and 2 never. Of the other
    any index is enough.

    Source: https://kubernetes.io/docs/concepts/workloads/controllers/job/#success-policy
    """
    until_told = "until test -e /tmp/end; do sleep 0.5; done"
    command = ["sh", "-c", f"case $JOB_COMPLETION_INDEX in 0) {until_told};; 2) exec /agnhost pause;; esac"]
    listed, counted = _enough({"succeededIndexes": "0"}), _enough({"succeededCount": 1})
    lead = manifests.job("lead", images.agnhost, completions=3, parallelism=3, command=command, more=listed)
    job = namespace.create(lead)
    other = namespace.create(manifests.job("any", images.agnhost, completions=2, command=["true"], more=counted))

    eventually(job, _completed("1"), within=timeouts.job)
    early = [type for type in ("SuccessCriteriaMet", "Complete") if has_condition(type)(job) is None]
    assert not early, f"{job} is not to succeed before its index 0 has, and tells of {', '.join(early)}"
    leads = namespace.pods("app=lead,batch.kubernetes.io/job-completion-index=0")
    (leader,) = eventually(leads, all_ready(1), within=timeouts.pod)
    said(leader, "touch /tmp/end")

    for each, indexes in ((job, "0,1"), (other, "0")):
        eventually(each, has_condition("Complete", reason="SuccessPolicy"), within=timeouts.job)
        done = each.status.get("completedIndexes")
        assert done == indexes, f"{each} is to be complete by its indexes {indexes}, and not by {done}: {each.status}"
    eventually(namespace.pods(), _none_active, within=timeouts.pod_end)


def test_active_deadline(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A Job that is active for longer than activeDeadlineSeconds MUST fail, and its pods end.

    Source: https://kubernetes.io/docs/concepts/workloads/controllers/job/#job-termination-and-cleanup
    """
    hour, seconds = {"activeDeadlineSeconds": 3600}, 3
    patient = namespace.create(manifests.job("patient", images.agnhost, more=hour, spec=manifests.PARKED))
    job = namespace.create(manifests.job("late", images.agnhost, spec=manifests.PARKED))
    for each in (patient, job):
        eventually(each.pods(), settled(1), within=timeouts.object)

    # Only now: a deadline from the start may pass on a busy cluster before there is a pod.
    job.patch({"spec": {"activeDeadlineSeconds": seconds}})
    eventually(job, has_condition("Failed", reason="DeadlineExceeded"), within=seconds + timeouts.object)
    eventually(job.pods(), gone, within=timeouts.pod_end)

    # Both are whole seconds of one clock, and the end is reckoned from the start as it stands there.
    started, ended = job.status["startTime"], job.condition("Failed")["lastTransitionTime"]
    active = (datetime.fromisoformat(ended) - datetime.fromisoformat(started)).total_seconds()
    assert active >= seconds, f"{job} may be active for {seconds} s, and failed after {active:g}"
    failure = _failure(patient.read())
    assert not failure, f"{patient} may be active for an hour, and has failed: {failure}"


def test_suspend(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A suspended Job MUST have no pods; it gets them when it is resumed, and loses them when it is suspended again.

    Source: https://kubernetes.io/docs/concepts/workloads/controllers/job/#suspending-a-job
    """
    job = namespace.create(manifests.job("held", images.agnhost, more={"suspend": True}, spec=manifests.PARKED))
    eventually(job, has_condition("Suspended", reason="JobSuspended"), within=timeouts.object)
    assert not namespace.pods().read(), f"{job} has pods although it is suspended"

    job.patch({"spec": {"suspend": False}})
    eventually(namespace.pods(), settled(1), within=timeouts.object)
    eventually(job, has_condition("Suspended", "False"), within=timeouts.object)
    job.patch({"spec": {"suspend": True}})
    eventually(namespace.pods(), settled(0), within=timeouts.object)
    eventually(job, has_condition("Suspended"), within=timeouts.object)


def test_ttl(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A Job that has finished MUST go away, with its pods, ttlSecondsAfterFinished later, and no sooner.

    Source: https://kubernetes.io/docs/concepts/workloads/controllers/ttlafterfinished/
    """
    second, hour = {"ttlSecondsAfterFinished": 1}, {"ttlSecondsAfterFinished": 3600}
    brief = namespace.create(manifests.job("brief", images.agnhost, command=["true"], more=second))
    lasting = namespace.create(manifests.job("lasting", images.agnhost, command=["true"], more=hour))

    eventually(lasting, complete, within=timeouts.job)
    eventually(namespace.select(kinds.JOB, "app=brief"), _all_finished, within=timeouts.job)
    eventually(brief, gone, within=1 + timeouts.object)
    eventually(namespace.pods("batch.kubernetes.io/job-name=brief"), gone, within=timeouts.pod_end)
    assert lasting.exists(), f"{lasting} is to stay for an hour after its end, and has gone away"


def _enough(rule: dict[str, Any]) -> dict[str, Any]:
    """Of a Job with indexes that has succeeded when it keeps to this rule."""
    return {"completionMode": "Indexed", "successPolicy": {"rules": [rule]}}


def _completed(indexes: str) -> Condition:
    """Just these of its indexes have succeeded."""

    def completed(job: Object) -> str | None:
        seen = job.status.get("completedIndexes")
        return None if seen == indexes else f"its completed indexes are {seen or 'none'}"

    completed.__name__ = f"has completed indexes {indexes}"
    return completed


def _waits_for_the_end(job: Object) -> str | None:
    """A pod of it is to end, and has not been counted as failed yet, nor has another one been made."""
    counts = {key: job.status.get(key, 0) for key in ("terminating", "active", "failed")}
    uncounted = (job.status.get("uncountedTerminatedPods") or {}).get("failed")
    if counts == {"terminating": 1, "active": 0, "failed": 0} and not uncounted:
        return None
    return "its pods: " + ", ".join(f"{number} {key}" for key, number in counts.items())


def _untouched(jobs: list[Object]) -> str | None:
    return "; ".join(f"{job} has the status {job.status}" for job in jobs if job.status) or None


def _failure(job: Object) -> dict[str, Any]:
    """The condition that tells of its failure, also where its pods have not ended yet; empty when there is none."""
    found = (job.condition(type) for type in ("Failed", "FailureTarget"))
    return next((each for each in found if each.get("status") == "True"), {})


def _all_finished(jobs: list[Object]) -> str | None:
    """No Job is unfinished; one that has gone away had finished."""
    return "; ".join(f"{job.name}: {missing}" for job in jobs if (missing := complete(job))) or None


def _ended(pod: Object) -> bool:
    return pod.status.get("phase") in ("Succeeded", "Failed")


def _none_active(pods: list[Object]) -> str | None:
    active = [pod.name for pod in pods if not _ended(pod)]
    return f"{', '.join(active)} are active" if active else None


def _message(pod: Object) -> str:
    """What the pod left in its termination message."""
    (main,) = pod.status["containerStatuses"]
    return str(main["state"]["terminated"].get("message", "")).strip()
