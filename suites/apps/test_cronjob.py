"""CronJob: Jobs are started on time, and neither too often nor too many at once.

Only one promise waits for the clock. The others make a CronJob that was due half an hour ago and did not run: what it
would do on time, it has to do now.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from clusterproof import Images, Namespace, Object, Timeouts, eventually, kinds, manifests, measure
from clusterproof.conditions import Condition, ListCondition, complete, failed

PUNCTUAL = 10
"""Seconds after its time by which a Job is started: the controller looks at least that often."""

SCHEDULED = "batch.kubernetes.io/cronjob-scheduled-timestamp"
"""Annotation of a Job: the time of the schedule that it was started for."""

LONG_AGO = timedelta(minutes=30)
"""When a CronJob made by `_overdue` was due."""


@pytest.mark.first
def test_schedule(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A CronJob MUST start a Job of its own within 10 s of the time of its schedule, and none while it is suspended.

    Source: https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/
    """
    tick = namespace.create(manifests.cron_job("tick", images.agnhost, command=["true"]))
    idle = namespace.create(manifests.cron_job("idle", images.agnhost, command=["true"], more={"suspend": True}))
    due = _time(tick.metadata["creationTimestamp"]).replace(second=0) + timedelta(minutes=1)

    job = eventually(namespace.select(kinds.JOB), _any_of(tick), within=timeouts.cron)[-1]
    late = (_time(job.metadata["creationTimestamp"]) - due).total_seconds()
    measure("start after its minute (s)", late)
    # A second before: the clocks of those who start it and of those who note when may differ.
    assert -1 <= late <= max(PUNCTUAL, timeouts.object / 2), (
        f"{job} was started {late:g} s after {due:%H:%M:%S}, when {tick} was due"
    )
    (owner,) = job.metadata.get("ownerReferences") or [{}]
    assert (owner.get("uid"), owner.get("controller")) == (tick.uid, True), f"{job} belongs to {owner}, not to {tick}"

    eventually(job, complete, within=timeouts.job)
    eventually(tick, _noted(due), within=timeouts.object)
    # Not by when they were made: whoever is late starts the Jobs of two minutes in one.
    minutes = [each.annotations.get(SCHEDULED, each.name) for each in _of(tick, namespace.list(kinds.JOB))]
    assert len(minutes) == len(set(minutes)), f"{tick} started several Jobs for one minute; theirs are {minutes}"
    assert not (strays := _of(idle, namespace.list(kinds.JOB))), f"{idle} is suspended, and has started {strays}"


def test_catch_up(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A CronJob that missed runs MUST make up for the latest one, unless it is longer ago than startingDeadlineSeconds.

    Source: https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/#starting-deadline
    """
    strict, _ = _overdue(namespace, images, "strict", startingDeadlineSeconds=60)
    lenient = _overdue(namespace, images, "lenient", startingDeadlineSeconds=3600)
    patient = _overdue(namespace, images, "patient")

    for cron in (strict, lenient[0], patient[0]):
        _resume(cron)
    for cron, due in (lenient, patient):
        jobs = eventually(namespace.select(kinds.JOB), _any_of(cron), within=timeouts.object)
        made_up = [job.name for job in _of(cron, jobs)]
        assert made_up == [f"{cron.name}-{due}"], f"{cron} started {made_up}, not just the Job of minute {due}"
    late = _of(strict, namespace.list(kinds.JOB))
    assert not late, f"{strict} started {late}, half an hour after its time"


def test_time_zone(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A CronJob with a time zone MUST follow the clock of that zone.

    Source: https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/#time-zones
    """
    there = timezone(timedelta(hours=5, minutes=30))
    cron, due = _overdue(namespace, images, "noon", zone=there, timeZone="Asia/Kolkata")

    _resume(cron)
    jobs = eventually(namespace.select(kinds.JOB), _any_of(cron), within=timeouts.object)

    assert [job.name for job in jobs] == [f"noon-{due}"]


def test_concurrency(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A CronJob that is due while its last Job runs MUST start another (Allow), replace it (Replace), or wait (Forbid).

    Source: https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/#concurrency-policy
    """
    crons, due = {}, {}  # a minute may begin between two of them
    for policy in ("Forbid", "Replace", "Allow"):
        cron, due[policy] = _overdue(namespace, images, policy.lower(), concurrencyPolicy=policy)
        running = namespace.create(_job_of(cron, f"{cron.name}-running", images.agnhost, spec=manifests.PARKED))
        cron.patch({"status": {"active": [_reference(running)]}}, subresource="status")
        crons[policy] = cron
    forbid, replace, allow = crons.values()

    for cron in crons.values():
        _resume(cron)
    jobs = namespace.select(kinds.JOB)
    eventually(jobs, _exactly(allow, "allow-running", f"allow-{due['Allow']}"), within=timeouts.object)
    eventually(jobs, _exactly(replace, f"replace-{due['Replace']}"), within=timeouts.object)
    eventually(jobs, _exactly(forbid, "forbid-running"), within=timeouts.object)

    namespace.object(kinds.JOB, "forbid-running").delete()
    eventually(jobs, _exactly(forbid, f"forbid-{due['Forbid']}"), within=timeouts.object)


def test_history(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A CronJob MUST keep as many Jobs that succeeded and that failed as its limits say, the latest ones.

    Source: https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/#jobs-history-limits
    """
    cron, _ = _overdue(namespace, images, "keep", successfulJobsHistoryLimit=1, failedJobsHistoryLimit=1)

    for number in (1, 2):
        good = namespace.create(_job_of(cron, f"good-{number}", images.agnhost, completions=0))
        deadline = {"activeDeadlineSeconds": 1}
        bad = namespace.create(_job_of(cron, f"bad-{number}", images.agnhost, more=deadline, spec=manifests.PARKED))
        eventually(good, complete, within=timeouts.job)
        eventually(bad, failed, within=timeouts.job)

    eventually(namespace.select(kinds.JOB), _exactly(cron, "bad-2", "good-2"), within=timeouts.object)


def _overdue(
    namespace: Namespace, images: Images, name: str, *, zone: timezone = UTC, **spec: Any
) -> tuple[Object, int]:
    """A suspended CronJob that ran two hours ago and was due half an hour ago; and that minute, which names its Job."""
    now = datetime.now(UTC)
    due = now - LONG_AGO
    hour = due.astimezone(zone).hour if "timeZone" in spec else "*"
    cron = namespace.create(
        manifests.cron_job(
            name,
            images.agnhost,
            schedule=f"{due.astimezone(zone).minute} {hour} * * *",
            more={"suspend": True, "timeZone": "Etc/UTC", **spec},
            spec=manifests.PARKED,
        )
    )
    last = (now - timedelta(hours=2)).strftime("%Y-%m-%dT%H:%M:%SZ")
    cron.patch({"status": {"lastScheduleTime": last}}, subresource="status")
    return cron, int(due.timestamp()) // 60


def _resume(cron: Object) -> None:
    cron.patch({"spec": {"suspend": False}})


def _job_of(cron: Object, name: str, image: str, **options: Any) -> dict[str, Any]:
    """A Job that belongs to the CronJob, as `kubectl create job --from` makes it."""
    manifest = manifests.job(name, image, **options)
    owner = {"apiVersion": "batch/v1", "kind": "CronJob", "name": cron.name, "uid": cron.uid, "controller": True}
    manifest["metadata"]["ownerReferences"] = [owner]
    return manifest


def _reference(job: Object) -> dict[str, str]:
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "name": job.name,
        "namespace": job.namespace,
        "uid": job.uid,
        "resourceVersion": job.resource_version,
    }


def _of(cron: Object, jobs: list[Object]) -> list[Object]:
    """The Jobs of a CronJob that are not being deleted."""
    owners = {job.name: [owner["uid"] for owner in job.metadata.get("ownerReferences") or []] for job in jobs}
    return [job for job in jobs if cron.uid in owners[job.name] and not job.deleting]


def _any_of(cron: Object) -> ListCondition:
    def any_of(jobs: list[Object]) -> str | None:
        return None if _of(cron, jobs) else f"none belongs to {cron}"

    any_of.__name__ = f"were started by {cron}"
    return any_of


def _exactly(cron: Object, *names: str) -> ListCondition:
    def exactly(jobs: list[Object]) -> str | None:
        found = [job.name for job in _of(cron, jobs)]
        return None if sorted(found) == sorted(names) else f"those of {cron} are {', '.join(found) or 'none'}"

    exactly.__name__ = f"of {cron} are {', '.join(names)}"
    return exactly


def _noted(due: datetime) -> Condition:
    """The CronJob's status tells of a run at `due` or later, and of its success."""

    def noted(cron: Object) -> str | None:
        ran, succeeded = (cron.status.get(key) for key in ("lastScheduleTime", "lastSuccessfulTime"))
        known = ran and succeeded and _time(ran) >= due and _time(succeeded) >= due - timedelta(seconds=1)
        return None if known else f"its last run was at {ran}, its last success at {succeeded}"

    noted.__name__ = f"tells of its run of {due:%H:%M}"
    return noted


def _time(stamp: str) -> datetime:
    return datetime.fromisoformat(stamp.replace("Z", "+00:00"))
