"""While an upgrade goes on: clients outside the cluster that ask all the time, and the reading of those inside it.

The monitor never gives up: whatever fails is what it is there to see. It ends when it is told to, by a signal, by
`verify`, or after the time it was given; a new one goes on where an old one was killed.
"""

from __future__ import annotations

import os
import resource
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from filelock import Timeout

from clusterproof import kinds
from clusterproof.client import Client, Response
from clusterproof.errors import ApiError, NeverHappened, SurroundingsError
from clusterproof.objects import PATCH_TYPES
from clusterproof.probes import Connection

from . import surface
from .folder import Before, Folder
from .timeline import OBSERVER, Recorder, Timeline
from .vantage import Collector

WITHIN = 2.0
"""Seconds after which a request without an answer has failed."""
SILENCE = 6.0
"""Seconds without an event, while writes succeed, after which a watch has failed."""
LOOK = 10.0
"""Seconds between two looks at nodes, and at what the pods saw."""

Progress = Callable[[str], None]
Ask = Callable[[], str]
"""Makes one request; how it failed, or nothing."""


def monitor(
    folder: Folder,
    client: Client,
    before: Before,
    *,
    rate: int,
    seconds: float,
    enough: threading.Event,
    progress: Progress,
) -> str:
    """Watch until `enough` is set, for at most `seconds` where that is not 0; why it ended.

    UsageError when another monitor uses the same folder.
    """
    lock = folder.monitor_lock()
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise pytest.UsageError(f"--state={folder.path}: another monitor is running with it") from None
    with lock:
        folder.stop.unlink(missing_ok=True)
        return _Watchers(folder, client, before, rate, enough).run(seconds, progress)


class _Watchers:
    """One thread for each client, and this one for everything else."""

    def __init__(self, folder: Folder, client: Client, before: Before, rate: int, enough: threading.Event) -> None:
        self._folder = folder
        self._client = client
        self._before = before
        self._enough = enough
        timeline = folder.timeline
        seen = _seen_until(timeline)

        def asker(probe: str, ask: Ask) -> _Asker:
            return _Asker(Recorder(timeline, probe, seen_until=seen.get(probe, 0.0)), ask, rate, enough)

        beat = kinds.CONFIG_MAP.path(before.namespace, "beat")
        self._writer = _Writer(client.clone(), beat)
        self._askers: list[_Asker | _Follower] = [
            asker("api read, new connections", _reader(client.clone(), beat, reuse=False)),
            asker("api read, one kept connection", _reader(client.clone(), beat, reuse=True)),
            asker("api write, one kept connection", self._writer.ask),
            _Follower(
                Recorder(timeline, "watch, resumed when cut", seen_until=seen.get("watch, resumed when cut", 0.0)),
                client.clone(),
                before.namespace,
                self._writer,
                timeline,
                enough,
            ),
        ]
        for what, address, headers in (
            ("ingress", before.ingress, {"Host": before.host}),
            ("balancer", before.balancer, {}),
        ):
            for reuse, how in ((False, "new connections"), (True, "one kept connection")):
                if address:
                    visitor = Connection(f"http://{address}/", headers, reuse, WITHIN, None)
                    self._askers.append(asker(f"{what}, {how}", _visit(visitor)))

    def run(self, seconds: float, progress: Progress) -> str:
        started, cost = time.time(), _Cost()
        self._folder.timeline.event("started", started, process=os.getpid())
        for each in self._askers:
            each.start()
        why, looked, nodes = "", 0.0, self._known_nodes()
        collector = Collector(self._folder, self._client.clone(), self._before)
        while not why:
            if time.time() - looked >= LOOK:
                looked = time.time()
                nodes = self._look(collector, nodes, progress)
                self._folder.timeline.event("cost", looked, **cost.so_far(self._requests))
            self._enough.wait(0.5)
            why = self._over(started, seconds)
        self._enough.set()
        for each in self._askers:
            each.join()
        self._look(collector, nodes, progress)
        ended = cost.so_far(self._requests)
        self._folder.timeline.event("cost", time.time(), **ended)
        self._folder.timeline.event("ended", time.time(), why=why)
        progress(
            f"ended by {why} after {time.time() - started:.0f} s: {ended['requests']} requests, "
            f"{ended['rate']:.1f}/s, {ended['cpu']:.1%} of one CPU"
        )
        return why

    @property
    def _requests(self) -> int:
        return sum(each.recorder.requests for each in self._askers)

    def _over(self, started: float, seconds: float) -> str:
        if self._enough.is_set():
            return "a signal"
        if self._folder.stop.exists():
            return "verify"
        return "its time" if seconds and time.time() - started >= seconds else ""

    def _known_nodes(self) -> dict[str, dict[str, Any]]:
        known = dict(self._before.nodes)
        for event in self._folder.timeline.events("node"):
            known[event["node"]] = {key: event[key] for key in ("version", "boot", "ready", "unschedulable")}
        return known

    def _look(
        self, collector: Collector, known: dict[str, dict[str, Any]], progress: Progress
    ) -> dict[str, dict[str, Any]]:
        """Note what changed about nodes, and take over what the pods saw; an API server that is away is no reason."""
        try:
            nodes = surface.nodes(self._client)
            for name, now in nodes.items():
                if known.get(name) != now:
                    self._folder.timeline.event("node", time.time(), node=name, **now)
                    progress(f"{name}: {_described(now)}")
            known = nodes
            collector.collect()
        except (ApiError, SurroundingsError, NeverHappened):
            pass  # the clients account for it
        return known


class _Asker(threading.Thread):
    """Asks at a steady rate and accounts for each answer."""

    def __init__(self, recorder: Recorder, ask: Ask, rate: int, enough: threading.Event) -> None:
        super().__init__(daemon=True)
        self.recorder = recorder
        self._ask = ask
        self._pause = 1 / rate
        self._enough = enough

    def run(self) -> None:
        due = time.monotonic()
        while not self._enough.wait(max(0.0, due - time.monotonic())):
            # What a slow answer delayed is made up for by one request at most, never by a burst.
            due = max(due, time.monotonic() - self._pause) + self._pause
            start = time.time()
            error = self._ask()
            self.recorder.note(start, time.time(), error)
        self.recorder.flush()


class _Writer:
    """Counts in a ConfigMap, one by one; the watch must tell every number.

    Each write is made upon a version that was read: one that had no answer, and is carried out when nobody reckons with
    it any more, is refused then.
    """

    def __init__(self, client: Client, path: str) -> None:
        self._client = client
        self._path = path
        self._version = ""
        """What the next write is made upon; empty when that is not known."""
        self._number = 0
        self.last_success = 0.0

    def ask(self) -> str:
        version, self._version = self._version, ""
        try:
            if version:
                metadata, data = {"resourceVersion": version}, {"number": str(self._number + 1)}
                body = {"metadata": metadata, "data": data}
                answer = self._request("PATCH", body=body, content_type=PATCH_TYPES["merge"])
            else:
                answer = self._request("GET")
        except SurroundingsError as error:
            return _kind(error)
        if answer.status == 409:  # an earlier attempt was carried out after all
            return ""
        if answer.status >= 400:
            return f"answered {answer.status}"
        found = answer.json()
        self._version, self._number = found["metadata"]["resourceVersion"], int(found["data"]["number"])
        if version:
            self.last_success = time.time()
        return ""

    def _request(self, method: str, **arguments: Any) -> Response:
        return self._client.request(method, self._path, timeout=WITHIN, **arguments)


class _Follower(threading.Thread):
    """Follows the counter by a watch that is resumed where it was cut, as every informer does."""

    def __init__(
        self,
        recorder: Recorder,
        client: Client,
        namespace: str,
        writer: _Writer,
        timeline: Timeline,
        enough: threading.Event,
    ) -> None:
        super().__init__(daemon=True)
        self.recorder = recorder
        self._client = client
        self._path = kinds.CONFIG_MAP.path(namespace)
        self._writer = writer
        self._timeline = timeline
        self._enough = enough
        self._version = ""
        self._told = 0
        """The last number that was told."""
        self._last = time.time()
        """When something was last told."""

    def run(self) -> None:
        while not self._enough.is_set():
            try:
                if not self._version:
                    self._list()
                self._follow()
            except (ApiError, SurroundingsError) as error:
                self._cut(error)
                self._enough.wait(0.2)
        self.recorder.flush()

    def _list(self) -> None:
        answer = self._client.request("GET", f"{self._path}/beat", timeout=WITHIN)
        if answer.status >= 400:
            raise ApiError(answer.status, "ReadRefused", answer.text[:200], "GET", self._path, {})
        self._version = answer.json()["metadata"]["resourceVersion"]
        # Whoever reads anew knows the present state; what was between is not owed to them.
        self._told = 0
        self._last = time.time()

    def _follow(self) -> None:
        query = {"fieldSelector": "metadata.name=beat", "resourceVersion": self._version, "timeoutSeconds": 240}
        for event in self._client.watch(self._path, query, within=SILENCE):
            self._version = event.object["metadata"]["resourceVersion"]
            if event.type != "BOOKMARK":
                self._take(int(event.object["data"]["number"]))
            if self._enough.is_set():
                return
        if self._writer.last_success - self._last > SILENCE:
            raise SurroundingsError("nothing was told, although there were writes")

    def _take(self, number: int) -> None:
        now = time.time()
        self.recorder.note(min(self._last, now), now)
        self._last = now
        if number <= self._told:
            self._timeline.event("watch", now, what="told again", number=number, after=self._told)
        elif self._told and number > self._told + 1:
            self._timeline.event("watch", now, what="left out", number=number, after=self._told)
        self._told = max(self._told, number)

    def _cut(self, error: ApiError | SurroundingsError) -> None:
        now = time.time()
        if isinstance(error, ApiError) and error.status == 410:
            # After a restart the API server's history begins anew: a client lists again, and nothing is wrong.
            self._timeline.event("watch", now, what="listed again", after=self._told)
            self._version = ""
            return
        self.recorder.note(min(self._last, now), now, _kind(error))
        self._last = now


class _Cost:
    """What observing costs this machine."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._spent = _cpu()

    def so_far(self, requests: int) -> dict[str, Any]:
        """Requests, requests per second, and the share of one CPU."""
        seconds = max(0.001, time.monotonic() - self._began)
        return {"requests": requests, "rate": requests / seconds, "cpu": (_cpu() - self._spent) / seconds}


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _reader(client: Client, path: str, *, reuse: bool) -> Ask:
    headers = {} if reuse else {"Connection": "close"}
    return lambda: _outcome(lambda: client.request("GET", path, headers=headers, timeout=WITHIN))


def _visit(visitor: Connection) -> Ask:
    def ask() -> str:
        return visitor.ask().error

    return ask


def _outcome(request: Callable[[], Any]) -> str:
    try:
        answer = request()
    except SurroundingsError as error:
        return _kind(error)
    return "" if answer.status < 400 else f"answered {answer.status}"


def _kind(error: ApiError | SurroundingsError) -> str:
    """A failure in a few words that are the same each time."""
    if isinstance(error, ApiError):
        return f"answered {error.status}"
    text = str(error).partition(": ")[2] or str(error)
    return ": ".join(text.split(": ")[:2]) if text.startswith("cannot connect") else text.split(": ")[0]


def _seen_until(timeline: Timeline) -> dict[str, float]:
    """Until when each of the observer's clients is accounted for."""
    found: dict[str, float] = {}
    for interval in timeline.intervals():
        if interval.vantage == OBSERVER:
            found[interval.probe] = max(found.get(interval.probe, 0.0), interval.end)
    return found


def _described(node: dict[str, Any]) -> str:
    ready = "Ready" if node["ready"] else "not Ready"
    return f"{node['version']}, {ready}{', takes no new pods' if node['unschedulable'] else ''}"
