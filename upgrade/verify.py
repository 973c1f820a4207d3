"""After an upgrade: is everything as it was, is every node where it should be, who went without answers for long."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from filelock import Timeout

from clusterproof.client import Client
from clusterproof.errors import ApiError, NeverHappened, SurroundingsError

from . import belongings, budget, cluster, network, rights
from .context import Context
from .folder import Before, Folder
from .timeline import account
from .vantage import Collector
from .verdict import Check, Verdict, check

STOPPING = 30.0
"""Seconds that the monitor may take to end."""

CHECKS: tuple[tuple[str, Callable[[Context], list[Check]]], ...] = (
    ("workloads/available", belongings.work),
    ("objects/identity", belongings.identity),
    ("pods/restarts", cluster.restarts),
    ("data/volumes", belongings.data),
    ("api/custom_objects", belongings.custom),
    ("api/surface", cluster.served),
    ("services/addresses", cluster.services),
    ("network/ways", network.ways),
    ("access/authorization", rights.refusals),
)
"""Each with an id for when it could not be made at all."""


def verify(
    folder: Folder,
    client: Client,
    before: Before,
    *,
    expected: str,
    allowed: Mapping[str, float],
    within: float,
    progress: Callable[[str], None],
) -> Verdict:
    """End the monitor, look at everything, and write the verdict into the folder.

    `expected` is the version that every node should have; empty for the API server's. SurroundingsError when the API
    server does not answer `within` seconds.
    """
    _end_monitor(folder, progress)
    context = Context(client, before, time.monotonic() + within)
    _await_server(context)
    checks = _made("nodes/version", lambda: cluster.nodes(context, expected))
    for id, make in CHECKS:
        checks += _made(id, lambda make=make: make(context))  # type: ignore[misc]
    context.told += [f"not laid down: {what} ({why})" for what, why in before.unsupported.items()]
    context.told += Collector(folder, client, before).collect(everything=True)
    seen = account(folder.timeline.intervals())
    checks += [*budget.disruption(seen, allowed), _watch(folder)]
    costs = folder.timeline.events("cost")
    verdict = Verdict(
        run=before.run,
        server=client.server,
        before=before.version,
        after=str(client.get("/version")["gitVersion"]),
        started=before.started,
        ended=time.time(),
        checks=checks,
        seen=seen,
        cost=costs[-1] if costs else {},
        told=context.told,
    )
    verdict.write(folder.path)
    return verdict


def _end_monitor(folder: Folder, progress: Callable[[str], None]) -> None:
    lock = folder.monitor_lock()
    try:
        lock.acquire(timeout=0)
    except Timeout:
        progress("the monitor is told to end")
        folder.stop.touch()
        try:
            lock.acquire(timeout=STOPPING)
        except Timeout:
            raise SurroundingsError(f"the monitor of {folder.path} did not end within {STOPPING:g} s; end it") from None
    folder.stop.unlink(missing_ok=True)
    lock.release()


def _await_server(context: Context) -> None:
    while True:
        try:
            answer = context.client.request("GET", "/readyz", timeout=5)
            # Whoever may not ask for it is answered nevertheless.
            if answer.status in (200, 401, 403):
                return
            seen = f"answered {answer.status}"
        except SurroundingsError as error:
            seen = str(error)
        if time.monotonic() > context.deadline:
            raise SurroundingsError(f"verify: the API server is not ready: {seen}")
        time.sleep(0.5)


def _made(id: str, make: Callable[[], list[Check]]) -> list[Check]:
    """The checks; when making them fails, that is a broken one: before the upgrade all of it worked."""
    try:
        return make()
    except (ApiError, SurroundingsError, NeverHappened) as error:
        return [check(id, [str(error)], "")]


def _watch(folder: Folder) -> Check:
    events = folder.timeline.events("watch")
    problems = [
        f"a watch {'told again' if each['what'] == 'told again' else 'left out'}: change {each['number']} "
        f"came after {each['after']}"
        for each in events
        if each["what"] in ("told again", "left out")
    ]
    again = sum(each["what"] == "listed again" for each in events)
    kept = f"every change was told once and in order; lists read anew after a cut: {again}"
    return check("watch/order", problems, kept)
