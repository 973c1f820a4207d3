"""Waiting: `eventually` and `consistently`, by watch where the API can watch.

A condition answers `None` when it is met, else a short phrase that says what is missing. `Hopeless` ends a wait at
once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar, overload

from clusterproof import steps
from clusterproof.client import Event, Events
from clusterproof.conditions import gone
from clusterproof.errors import ApiError, Hopeless, NeverHappened, SurroundingsError
from clusterproof.objects import Object, Selection
from clusterproof.outcome import Step
from clusterproof.summary import summary

T = TypeVar("T")

FIRST_PAUSE, LONGEST_PAUSE = 0.05, 0.5
"""Seconds between two readings of what cannot be watched; the pause grows from one to the other."""
SETTLED = 0.05
"""Seconds before a deadline at which no new watch is opened: it could not tell anything any more."""

BEGINNING = 5.0
"""Seconds for a watch to tell of the objects there are; they are listed where it does not."""

_FROM_THE_BEGINNING = {"sendInitialEvents": True, "resourceVersionMatch": "NotOlderThan"}
_INITIAL_EVENTS_END = "k8s.io/initial-events-end"
_TELLS_CHANGES_ONLY: set[str] = set()
"""Servers, each with an apiVersion, whose watches cannot begin with the objects there are: off, or another server's."""


@overload
def eventually(
    source: Object, condition: Callable[[Object], str | None], *, within: float, describe: str = ""
) -> Object: ...
@overload
def eventually(
    source: Selection, condition: Callable[[list[Object]], str | None], *, within: float, describe: str = ""
) -> list[Object]: ...
@overload
def eventually(
    source: Callable[[], T], condition: Callable[[T], str | None], *, within: float, describe: str = ""
) -> T: ...
def eventually(source: Any, condition: Callable[[Any], str | None], *, within: float, describe: str = "") -> Any:
    """Wait until the condition is met, at most `within` seconds, and return what met it.

    An Object or a Selection is watched. A callable is read again and again; ApiError and SurroundingsError of a
    reading count as not met yet. Raises NeverHappened when time is up, Hopeless at once when the condition can no
    longer be met, and SurroundingsError when the connection is still lost when time is up.
    """
    __tracebackhide__ = True
    what = describe or _name(condition)
    with _recorded(f"wait until {_phrase(source, what)}"):
        missing: str | None = "it was never seen"
        seen = None
        trouble: Exception | None = None
        for seen, trouble in _states(source, time.monotonic() + within):
            if trouble is None:
                try:
                    missing = _judge(condition, seen)
                except Hopeless as end:
                    raise Hopeless(f"{_phrase(source, what)}: {end}; last seen: {summary(seen)}") from None
                if missing is None:
                    return seen
            elif isinstance(trouble, ApiError):
                missing = str(trouble)
        if isinstance(trouble, SurroundingsError):
            raise SurroundingsError(f"{_phrase(source, what)}: not seen within {within:g} s; {trouble}") from trouble
        raise NeverHappened(
            f"{_phrase(source, what)}: not within {within:g} s; {missing}; last seen: {summary(seen)} "
            f"(for a slower cluster raise --timeout-scale)"
        )


def consistently(source: Any, condition: Callable[[Any], str | None], *, during: float, describe: str = "") -> Any:
    """Prove that the condition holds at every watched moment for `during` seconds; return what was last seen.

    Raises NeverHappened at the first moment it does not hold.
    """
    __tracebackhide__ = True
    what = describe or _name(condition)
    with _recorded(f"see for {during:g} s that {_phrase(source, what)}"):
        started, seen, trouble = time.monotonic(), None, None
        for seen, trouble in _states(source, started + during):
            missing = str(trouble) if isinstance(trouble, ApiError) else None if trouble else _judge(condition, seen)
            if missing is not None:
                raise NeverHappened(
                    f"{_phrase(source, what)}: no longer after {time.monotonic() - started:.1f} s of {during:g} s; "
                    f"{missing}; last seen: {summary(seen)}"
                )
        if isinstance(trouble, SurroundingsError):
            raise trouble
        return seen


@dataclass(slots=True)
class History:
    """Every state of a selection between two moments, in order."""

    states: list[list[Object]] = field(default_factory=list)

    def every(self, condition: Callable[[list[Object]], str | None]) -> None:
        """Raise NeverHappened when the condition did not hold at one of the moments."""
        __tracebackhide__ = True
        for number, state in enumerate(self.states):
            if (missing := condition(state)) is not None:
                raise NeverHappened(
                    f"{_name(condition)}: not at moment {number + 1} of {len(self.states)}; {missing}; "
                    f"seen: {summary(state)}"
                )


@contextmanager
def watching(selection: Selection, *, within: float = 600.0) -> Iterator[History]:
    """Record every state of a selection while the body runs, at most `within` seconds.

    The watch is opened before the body and read after it, up to the state the selection then has; so nothing between
    is missed, and the body is not disturbed. `states` is empty until the body has ended.
    """
    deadline = time.monotonic() + within
    feed = _Feed(selection)
    events = feed.start(deadline) or feed.watch(deadline)
    history = History([feed.state()])
    yield history
    end = _Feed(selection)
    end.read()
    while feed.versions != end.versions:
        event = next(events, None)
        if event is None:
            raise SurroundingsError(f"the watch of {selection} ended before it had told everything")
        if feed.apply(event):
            history.states.append(feed.state())


class _Feed:
    """A source's state, kept current by the events of a watch."""

    def __init__(self, source: Object | Selection) -> None:
        self.source = source
        self.items: dict[tuple[str, str], dict[str, Any]] = {}
        self.version = ""
        """The resourceVersion up to which the state is known; empty when it must be read anew."""

    @property
    def versions(self) -> dict[tuple[str, str], str]:
        return {key: raw["metadata"]["resourceVersion"] for key, raw in self.items.items()}

    @property
    def _where(self) -> tuple[str, dict[str, str]]:
        source = self.source
        if isinstance(source, Selection):
            return source.path, source.query
        return source.kind.path(source.namespace), {"fieldSelector": f"metadata.name={source.name}"}

    def start(self, deadline: float) -> Events | None:
        """Make sure of the state as it is now; the events from there on, where they were asked for to know it.

        It is the answer to our own last write where there is one, else it is told by a watch, or read where the server
        cannot do that.
        """
        source, events = self.source, None
        if isinstance(source, Object) and source.last_word:
            # Only once: by the next wait it may be stale.
            source.last_word = False
            self.version = source.resource_version
            self._put(source.raw)
        if not self.version and (events := self._stream(deadline)) is None:
            self.read()
        return events

    def watch(self, deadline: float) -> Events:
        """The events from the state on."""
        return self._watch({"resourceVersion": self.version}, _left(deadline))

    def read(self) -> None:
        path, query = self._where
        answer = self.source.client.get(path, query)
        self.items.clear()
        self.version = answer["metadata"]["resourceVersion"]
        for raw in answer.get("items") or []:
            self._put(raw)

    def _stream(self, deadline: float) -> Events | None:
        """A watch that has told of every object there is, up to the bookmark that says so; None where there is none."""
        told = f"{self.source.client.server} {self.source.kind.api_version}"
        if told in _TELLS_CHANGES_ONLY:
            return None
        fresh, end = _Feed(self.source), time.monotonic() + BEGINNING
        try:
            events = self._watch(_FROM_THE_BEGINNING, max(BEGINNING, _left(deadline)))
            events.patience(BEGINNING)
            for event in events:
                fresh.apply(event)
                if time.monotonic() > end:
                    break
                if event.type == "BOOKMARK" and _INITIAL_EVENTS_END in event.object["metadata"].get("annotations", {}):
                    self.items, self.version = fresh.items, fresh.version
                    events.patience(_left(deadline))
                    return events
        except ApiError as refused:
            if refused.status not in (400, 422):
                return None  # whoever may not watch, or not now, may still read
        _TELLS_CHANGES_ONLY.add(told)
        return None

    def _watch(self, query: dict[str, Any], within: float) -> Events:
        path, chosen = self._where
        return self.source.client.watch(path, {**chosen, **query}, within=within)

    def apply(self, event: Event) -> bool:
        """Take over an event; False when it changed nothing."""
        self.version = event.object["metadata"]["resourceVersion"]
        if event.type == "BOOKMARK":
            return False
        if event.type == "DELETED":
            self.items.pop(self._key(event.object), None)
        else:
            self._put(event.object)
        return True

    def state(self) -> Any:
        if isinstance(self.source, Selection):
            return self.source.objects(list(self.items.values()))
        self.source.raw = next(iter(self.items.values()), {})
        return self.source

    def _put(self, raw: dict[str, Any]) -> None:
        self.items[self._key(raw)] = raw

    @staticmethod
    def _key(raw: dict[str, Any]) -> tuple[str, str]:
        return raw["metadata"].get("namespace", ""), raw["metadata"]["name"]


def _states(source: Any, deadline: float) -> Iterator[tuple[Any, Exception | None]]:
    """States of the source until the deadline, each with None, or the last one again with what hindered seeing."""
    return _watched(source, deadline) if isinstance(source, Object | Selection) else _polled(source, deadline)


def _polled(read: Callable[[], Any], deadline: float) -> Iterator[tuple[Any, Exception | None]]:
    pause, seen = FIRST_PAUSE, None
    while True:
        try:
            seen = read()
            yield seen, None
        except (ApiError, SurroundingsError) as trouble:
            yield seen, trouble
        left = deadline - time.monotonic()
        if left <= 0:
            return
        time.sleep(min(pause, left))
        pause = min(pause * 1.5, LONGEST_PAUSE)


def _watched(source: Object | Selection, deadline: float) -> Iterator[tuple[Any, Exception | None]]:
    feed, pause, started = _Feed(source), FIRST_PAUSE, False
    while (left := deadline - time.monotonic()) > SETTLED or not started:
        try:
            events = feed.start(deadline)
            started = True
            yield feed.state(), None
            left = deadline - time.monotonic()
            for event in events or feed.watch(deadline):
                pause = FIRST_PAUSE
                if feed.apply(event):
                    yield feed.state(), None
                if time.monotonic() >= deadline:
                    return
        except (ApiError, SurroundingsError) as trouble:
            expired = isinstance(trouble, ApiError) and trouble.status == 410
            if isinstance(trouble, ApiError) and trouble.status < 500 and trouble.status not in (410, 429):
                raise
            # No answer to an attempt that had less than a second says nothing about the connection.
            if started and left < 1:
                break
            started, feed.version = True, ""
            if not expired:
                yield feed.state(), trouble
            time.sleep(max(0.0, min(pause, deadline - time.monotonic())))
            pause = min(pause * 1.5, LONGEST_PAUSE)
    time.sleep(max(0.0, deadline - time.monotonic()))


def _left(deadline: float) -> float:
    return max(0.01, deadline - time.monotonic())


def _judge(condition: Callable[[Any], str | None], seen: Any) -> str | None:
    if isinstance(seen, Object) and not seen.raw and condition is not gone:
        return "it does not exist"
    return condition(seen)


def _name(condition: Callable[..., Any]) -> str:
    name = getattr(condition, "__name__", "")
    return "" if name == "<lambda>" else name.strip("_").replace("_", " ")


def _subject(source: Any) -> str:
    if isinstance(source, Object | Selection):
        return str(source)
    owner = getattr(source, "__self__", None)
    return str(owner) if isinstance(owner, Object | Selection) else _name(source)


def _phrase(source: Any, what: str) -> str:
    return f"{_subject(source)} {what}".strip() or "the condition"


@contextmanager
def _recorded(name: str) -> Iterator[None]:
    record, started, clock = steps.current, time.time(), time.monotonic()
    detail = ""
    try:
        yield
    except Exception as error:
        detail = str(error)
        raise
    finally:
        record.steps.append(Step(name, started, time.monotonic() - clock, not detail, detail))
