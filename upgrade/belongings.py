"""Checks of what was laid down: it is the same, works, and holds the data that it held."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime

from clusterproof import kinds, namespace
from clusterproof.conditions import complete, has_condition, rolled_out
from clusterproof.errors import ApiError, NeverHappened, SurroundingsError
from clusterproof.objects import Object
from clusterproof.wait import eventually

from . import surface, workloads
from .context import PATIENCE, Context
from .prepare import last_words
from .verdict import UNSUPPORTED, Check, check


def identity(context: Context) -> list[Check]:
    """Every object is the one that was laid down, by its uid."""
    problems = []
    for known in context.before.objects:
        item = surface.found_again(context.client, known)
        try:
            if not item.exists():
                problems.append(f"{item} is gone")
            elif item.uid != known["uid"]:
                problems.append(f"{item} is another one than before: its uid was {known['uid']} and is {item.uid}")
        except ApiError as error:
            problems.append(f"{item} cannot be read: {error}")
    return [check("objects/identity", problems, f"{len(context.before.objects)} objects are the same, by their uids")]


def work(context: Context) -> list[Check]:
    """Workloads are complete and available; controllers go on with what is theirs."""
    problems = []
    for kind, name in (("Deployment", "web"), ("StatefulSet", "keeper"), ("DaemonSet", "vantage")):
        item = context.object(kind, name)
        problems.append(context.settles(item, rolled_out))
    once = context.object("Job", "once")
    problems.append(context.settles(once, complete))
    if once.raw and once.status.get("succeeded") != 1:
        problems.append(f"{once} was complete, but has run {once.status.get('succeeded')} times")
    problems.append(context.settles(context.object("CronJob", "minutely"), _on_time))
    if context.laid_down("HorizontalPodAutoscaler", "web"):
        problems.append(
            context.settles(context.object("HorizontalPodAutoscaler", "web"), has_condition("ScalingActive"))
        )
    return [
        check("workloads/available", filter(None, problems), "all workloads are available and their controllers work")
    ]


def data(context: Context) -> list[Check]:
    """ConfigMap, Secret and volumes hold what they held."""
    problems = []
    plain = {name: base64.b64encode(value.encode()).decode() for name, value in workloads.DATA.items()}
    for kind, wanted in (("ConfigMap", workloads.DATA), ("Secret", plain)):
        item = context.object(kind, "settings")
        try:
            if (found := item.read().raw.get("data")) != wanted:
                problems.append(
                    f"{item} has the keys {sorted(found or {})}, or their values, not as they were laid down"
                )
        except ApiError as error:
            problems.append(f"{item} cannot be read: {error}")
    made = check("data/configuration", problems, "ConfigMap and Secret hold what they held")
    if why := context.before.unsupported.get("volumes"):
        return [made, Check("data/volumes", UNSUPPORTED, (why,))]
    return [
        made,
        check("data/volumes", _volumes(context), f"{len(context.before.volumes)} volumes hold what they held"),
    ]


def custom(context: Context) -> list[Check]:
    """Custom objects can be read at every version they were served at, with what was written."""
    problems, before = [], context.before
    for version in workloads.VERSIONS:
        kind = workloads.custom_kind(before.custom_group, version)
        for written in workloads.VERSIONS:
            item = Object(context.client, kind, f"of-{written}", before.namespace)
            try:
                found = item.read().spec
            except ApiError as error:
                problems.append(f"{item}, written at {written}, cannot be read at {kind.api_version}: {error}")
                continue
            if found != (wanted := {"written": written, "weight": 7}):
                problems.append(f"{item}, read at {kind.api_version}, was {wanted} and is {found}")
    return [check("api/custom_objects", problems, f"custom objects are read at {' and '.join(workloads.VERSIONS)}")]


def _volumes(context: Context) -> Iterator[str]:
    for name, wanted in context.before.volumes.items():
        where = f"the volume of {'claim' if name == workloads.SHELF else 'pod'} {context.before.namespace}/{name}"
        try:
            found = _shelf(context) if name == workloads.SHELF else _of_pod(context, name)
        except (ApiError, SurroundingsError, NeverHappened) as error:
            yield f"{where} cannot be read: {error}"
            continue
        if found != wanted:
            yield f"{where} does not hold what was written to it: its SHA-256 was {wanted[:12]}..., now: {found[:100]}"


def _of_pod(context: Context, name: str) -> str:
    pod = Object(context.client, kinds.POD, name, context.before.namespace)
    # A kubelet that has just been started knows nothing of its pods for a moment.
    done = eventually(
        lambda: pod.exec(["sh", "-c", workloads.SUM]),
        lambda _: None,
        within=min(PATIENCE, context.left),
        describe=f"{pod} can be asked",
    )
    return done.stdout.split()[0] if done.code == 0 else (done.stderr or done.stdout).strip()


def _shelf(context: Context) -> str:
    """By a new pod: that the volume can still be attached is part of it."""
    before = context.before
    manifest = workloads.shelf_reader(before.image, f"reader-{secrets.token_hex(3)}")
    pod = namespace.create(context.client, kinds.POD, manifest, before.run, before.namespace)
    try:
        eventually(pod, _ended, within=context.left)
        return last_words(pod)
    finally:
        pod.delete(grace=0)


def _ended(pod: Object) -> str | None:
    phase = pod.status.get("phase")
    return None if phase in ("Succeeded", "Failed") else f"its phase is {phase}"


def _on_time(cron_job: Object) -> str | None:
    """A CronJob for every minute has run within the last two."""
    last = cron_job.status.get("lastScheduleTime")
    if last is None:
        age = (datetime.now(UTC) - datetime.fromisoformat(cron_job.metadata["creationTimestamp"])).total_seconds()
        return None if age < 120 else "it has never run"
    seconds = (datetime.now(UTC) - datetime.fromisoformat(last)).total_seconds()
    return None if seconds < 120 else f"it last ran {seconds:.0f} s ago, and should every minute"
