"""The timeline of an upgrade: what each client saw from when to when, as one JSON line for each interval.

It is written as it happens, never rewritten, and says of every moment whether requests were answered, failed, or
whether nobody looked: an observer that was killed or held up leaves a gap that nobody mistakes for an outage.
"""

from __future__ import annotations

import dataclasses
import json
import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

GOOD, FAILING, UNOBSERVED = "good", "failing", "not observed"
"""States of an interval."""

BEAT = 5.0
"""Seconds after which an interval is written although nothing changed: at most so much is lost with the observer."""
HELD_UP = 1.5
"""Seconds between two requests of a client from which on nobody looked."""
BLUR = 2.5
"""Seconds by which one outage is shorter or longer for one client than for another that asks at other moments."""
OBSERVER = "observer"
"""The vantage point outside the cluster."""


@dataclass(frozen=True, slots=True)
class Interval:
    """What one client saw from one moment to another, both in seconds since the epoch by the observer's clock."""

    vantage: str
    """Where the client stands: `observer`, or the node of a pod."""
    probe: str
    """What it asks for, and how: `api read, new connections`."""
    start: float
    end: float
    state: str
    requests: int = 0
    failures: int = 0
    error: str = ""
    """The kind of the first failure."""
    pod: str = ""
    """Uid of the pod that looked; empty for the observer."""

    @property
    def seconds(self) -> float:
        return self.end - self.start

    @property
    def family(self) -> str:
        """What a budget is given for: `api`, `watch`, `service`, `dns`, `ingress` or `balancer`."""
        return self.probe.split()[0].rstrip(",")


class Timeline:
    """The file of intervals and events; whole lines only, from any thread."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()

    def interval(self, interval: Interval) -> None:
        """Append an interval."""
        self._append({**dataclasses.asdict(interval), "start": round(interval.start, 3), "end": round(interval.end, 3)})

    def event(self, name: str, at: float, **details: Any) -> None:
        """Append something that happened at one moment: `started`, `ended`, `node`, `watch`, `cost`."""
        self._append({"event": name, "at": round(at, 3), **details})

    def read(self) -> Iterator[dict[str, Any]]:
        """Every line, in the order of writing; one that was cut off when its writer was killed is left out."""
        if not self.path.exists():
            return
        with self.path.open() as lines:
            for line in lines:
                try:
                    yield json.loads(line)
                except ValueError:
                    continue

    def intervals(self) -> Iterator[Interval]:
        """Every interval."""
        return (Interval(**line) for line in self.read() if "event" not in line)

    def events(self, name: str) -> list[dict[str, Any]]:
        """Every event of a name."""
        return [line for line in self.read() if line.get("event") == name]

    def _append(self, line: Mapping[str, Any]) -> None:
        text = (json.dumps(line) + "\n").encode()
        with self._lock:
            handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
            try:
                # What an earlier observer left of a line must not spoil this one.
                size = os.fstat(handle).st_size
                torn = size > 0 and os.pread(handle, 1, size - 1) != b"\n"
                os.write(handle, b"\n" * torn + text)
                os.fdatasync(handle)
            finally:
                os.close(handle)


class Recorder:
    """Makes intervals of one client's answers. Use it from one thread."""

    def __init__(self, timeline: Timeline, probe: str, *, seen_until: float = 0.0) -> None:
        self._timeline = timeline
        self._probe = probe
        self._end = seen_until
        """Until when this client's answers are accounted for; 0 when it never asked."""
        self._open: Interval | None = None
        self.requests = 0

    def note(self, start: float, end: float, error: str = "") -> None:
        """Account for a request from one moment to another, and how it failed."""
        self.requests += 1
        if self._end and start - self._end > HELD_UP:
            self.flush()
            self._timeline.interval(Interval(OBSERVER, self._probe, self._end, start, UNOBSERVED))
            self._open = None
        state = FAILING if error else GOOD
        now = self._open or Interval(OBSERVER, self._probe, start, start, state, error=error)
        if now.state != state:
            # An outage begins when the first request that failed was made, and ends when one was answered.
            turn = max(now.end, start if error else end)
            self._open = dataclasses.replace(now, end=turn)
            self.flush()
            now = Interval(OBSERVER, self._probe, turn, turn, state, error=error)
        self._open = dataclasses.replace(
            now, end=max(end, now.end), requests=now.requests + 1, failures=now.failures + bool(error)
        )
        self._end = self._open.end
        if self._open.seconds >= BEAT:
            self.flush()

    def flush(self) -> None:
        """Write what is not written yet; the same state goes on from there."""
        if (now := self._open) is not None and now.requests:
            self._timeline.interval(now)
            self._open = dataclasses.replace(now, start=now.end, requests=0, failures=0)


@dataclass(frozen=True, slots=True)
class Outage:
    """A time in which a client got no good answer."""

    start: float
    end: float
    error: str

    @property
    def seconds(self) -> float:
        return self.end - self.start


@dataclass(slots=True)
class Seen:
    """Everything one client saw."""

    vantage: str
    probe: str
    requests: int = 0
    failures: int = 0
    observed: float = 0.0
    """Seconds in which somebody looked."""
    unobserved: float = 0.0
    """Seconds between the first and the last look in which nobody did."""
    outages: list[Outage] = field(default_factory=list)
    excused: list[Outage] = field(default_factory=list)
    """Outages of the observer's own network: from inside the cluster the same was answered all the while."""
    good: list[tuple[float, float]] = field(default_factory=list)

    @property
    def family(self) -> str:
        return self.probe.split()[0].rstrip(",")

    @property
    def disruption(self) -> float:
        """Seconds without good answers that are the cluster's."""
        return sum(outage.seconds for outage in self.outages)

    @property
    def longest_gap(self) -> float:
        """The longest time in seconds without a good answer that is the cluster's."""
        return max((outage.seconds for outage in self.outages), default=0.0)

    def answered_throughout(self, outage: Outage) -> bool:
        """Whether this client looked all through somebody else's outage, and got good answers."""
        if any(mine.start < outage.end and outage.start < mine.end for mine in self.outages):
            return False
        covered = sum(max(0.0, min(end, outage.end) - max(start, outage.start)) for start, end in self.good)
        return covered >= 0.9 * outage.seconds


INSIDE = {"api": "api", "watch": "api", "ingress": "ingress"}
"""What a pod asks for that shows whether an outage of the observer's, by its family, is the cluster's."""


def account(intervals: Iterable[Interval]) -> list[Seen]:
    """What each client saw, by vantage point and probe; outages that are the observer's own are told apart."""
    clients: dict[tuple[str, str, str], list[Interval]] = {}
    for interval in intervals:
        clients.setdefault((interval.vantage, interval.pod, interval.probe), []).append(interval)
    found = [_seen(sorted(theirs, key=lambda each: each.start)) for theirs in clients.values()]
    for one in found:
        if one.vantage == OBSERVER and (inside := INSIDE.get(one.family)):
            others = [each for each in found if each.vantage != OBSERVER and each.family == inside]
            # Whoever was answered, if badly, had a way there.
            mute = [out for out in one.outages if not out.error.startswith("answered")]
            one.excused = [out for out in mute if any(each.answered_throughout(out) for each in others)]
            one.outages = [out for out in one.outages if out not in one.excused]
    # No pod asks a load balancer by the way that users come; whoever is cut off from the API is so from there, too.
    cut_off = [out for one in found for out in one.excused]
    for one in found:
        if one.family == "balancer":
            one.excused = [out for out in one.outages if any(_is_within(out, own) for own in cut_off)]
            one.outages = [out for out in one.outages if out not in one.excused]
    return sorted(found, key=lambda seen: (seen.vantage != OBSERVER, seen.vantage, seen.probe))


def _is_within(one: Outage, other: Outage) -> bool:
    return not one.error.startswith("answered") and other.start - BLUR <= one.start and one.end <= other.end + BLUR


def _seen(intervals: list[Interval]) -> Seen:
    seen = Seen(intervals[0].vantage, intervals[0].probe)
    for each in intervals:
        seen.requests += each.requests
        seen.failures += each.failures
        if each.state == UNOBSERVED:
            seen.unobserved += each.seconds
            continue
        seen.observed += each.seconds
        if each.state == GOOD:
            _join(seen.good, each)
        elif seen.outages and each.start - seen.outages[-1].end < 0.01:
            seen.outages[-1] = dataclasses.replace(seen.outages[-1], end=each.end)
        else:
            seen.outages.append(Outage(each.start, each.end, each.error))
    return seen


def _join(spans: list[tuple[float, float]], each: Interval) -> None:
    if spans and each.start - spans[-1][1] < 0.01:
        spans[-1] = (spans[-1][0], each.end)
    else:
        spans.append((each.start, each.end))
