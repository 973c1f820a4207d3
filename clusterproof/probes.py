"""A client that asks at a steady rate, inside the cluster or outside it, and accounts for every answer.

A probe has one *lane* for each way of connecting: a new connection for every request, or one connection that is kept.
Both matter: an endpoint that goes away refuses the first and cuts off the second. Each lane asks one request after the
other, as a patient client does: a slow answer delays the next request, and that delay is part of the gap.
"""

from __future__ import annotations

import abc
import collections
import contextlib
import http.client
import math
import shlex
import socket
import ssl
import threading
import time
import urllib.parse
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from clusterproof import kinds, manifests, steps
from clusterproof.conditions import running
from clusterproof.errors import ApiError, NeverHappened, SurroundingsError
from clusterproof.namespace import Namespace
from clusterproof.objects import Object
from clusterproof.outcome import Availability
from clusterproof.wait import eventually

TOO_LATE = 1.0
"""Seconds after which a request without an answer has failed, unless the caller says otherwise."""

_SHORTEST, _MOST = 0.5, 100
"""Seconds of the shortest interval that a report tells about, and how many intervals there may be."""

_PLENTY = 1_000_000
"""Requests after which curl would end by itself: more than five hours at 50 a second."""

_CURL_EXITS = {
    6: "name not found",
    7: "could not connect",
    18: "cut off half-way",
    28: "no answer in time",
    35: "TLS failed",
    52: "closed without an answer",
    55: "connection reset",
    56: "connection reset",
    60: "TLS failed",
}
"""What curl's exit codes mean in our words (https://curl.se/libcurl/c/libcurl-errors.html)."""


@dataclass(frozen=True, slots=True)
class Answer:
    """How one request ended."""

    at: float
    """Seconds since the epoch, by the clock of whoever asked."""
    seconds: float
    """From asking to the last byte, or to giving up."""
    error: str = ""
    """The kind of failure, `could not connect` or `answered 503`; empty for an answer below 400."""
    detail: str = ""
    """The failure in the client's own words."""
    connected: bool = False
    """Whether this request opened a connection."""


@dataclass(frozen=True, slots=True)
class Lane:
    """Everything one client saw, from its first good answer on."""

    place: str
    """Where the client stands: `the runner` or `pod ns/name on node`."""
    reuse: bool
    """Whether it keeps its connection."""
    rate: float
    """Requests per second that it was asked to make."""
    answers: tuple[Answer, ...]

    @property
    def longest_gap(self) -> float:
        """Longest time in seconds between two good answers, or from the last one to the end.

        It is the sum of what the requests in between took, by the client's own clock: when the client itself is held up
        between two requests, on a busy machine, that is not the cluster's gap.
        """
        longest = waited = 0.0
        for answer in self.answers:
            waited += max(answer.seconds, 1 / self.rate)
            longest = max(longest, waited)
            if not answer.error:
                waited = 0.0
        return longest

    def availability(self, url: str) -> Availability:
        """What it saw, condensed to at most a hundred intervals of half a second or more; ValueError without an answer.

        A request counts in the interval in which it ended.
        """
        first, last = min(each.at for each in self.answers), max(each.at for each in self.answers)
        interval = max(_SHORTEST, (last - first) / (_MOST - 1))
        number = int((last - first) / interval) + 1
        answered, failed, slowest = [0] * number, [0] * number, [0.0] * number
        for answer in self.answers:
            when = int((answer.at - first) / interval)
            (failed if answer.error else answered)[when] += 1
            slowest[when] = max(slowest[when], round(answer.seconds, 4))
        series = tuple(answered), tuple(failed), tuple(slowest)
        return Availability(url, str(self), first, interval, *series, self.longest_gap)

    def __str__(self) -> str:
        return f"{self.place}, {'one kept connection' if self.reuse else 'a new connection each time'}"


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """What a probe saw. Results of several vantage points add up: `here.result() + there.result()`."""

    url: str
    lanes: tuple[Lane, ...]

    @property
    def requests(self) -> int:
        """Requests that ended, well or badly."""
        return sum(len(lane.answers) for lane in self.lanes)

    @property
    def failures(self) -> int:
        """Requests without a good answer."""
        return sum(self.errors.values())

    @property
    def errors(self) -> dict[str, int]:
        """Number of failed requests by kind, the most frequent first."""
        kinds_seen = (answer.error for lane in self.lanes for answer in lane.answers if answer.error)
        return dict(collections.Counter(kinds_seen).most_common())

    @property
    def connections(self) -> int:
        """Connections that were opened."""
        return sum(answer.connected for lane in self.lanes for answer in lane.answers)

    @property
    def longest_gap(self) -> float:
        """The longest gap of any lane, in seconds; see `Lane.longest_gap`."""
        return max((lane.longest_gap for lane in self.lanes), default=0.0)

    @property
    def p99(self) -> float:
        """Seconds within which 99 of 100 good answers came; 0 without any."""
        good = sorted(answer.seconds for lane in self.lanes for answer in lane.answers if not answer.error)
        return good[math.ceil(len(good) * 0.99) - 1] if good else 0.0

    @property
    def seconds(self) -> float:
        """From the first good answer to the last request's end."""
        ends = [answer.at for lane in self.lanes for answer in lane.answers]
        return max(ends) - min(ends) if ends else 0.0

    @property
    def rate(self) -> float:
        """Requests per second that were really made, all lanes together."""
        return self.requests / self.seconds if self.seconds else 0.0

    @property
    def first_failure(self) -> tuple[float, str] | None:
        """When (seconds since the epoch) and how the earliest failed request ended; None when none failed."""
        failed = [(answer, lane) for lane in self.lanes for answer in lane.answers if answer.error]
        if not failed:
            return None
        answer, lane = min(failed, key=lambda pair: pair[0].at)
        detail = f" ({answer.detail})" if answer.detail else ""
        return answer.at, f"{answer.error}{detail}, asked from {lane}"

    def __add__(self, other: ProbeResult) -> ProbeResult:
        url = self.url if self.url == other.url else f"{self.url}, {other.url}"
        return ProbeResult(url, self.lanes + other.lanes)

    def __str__(self) -> str:
        made = f"{self.requests} requests to {self.url} in {self.seconds:.1f} s"
        speed = f"longest gap {self.longest_gap:.2f} s, p99 {self.p99 * 1000:.0f} ms"
        if (first := self.first_failure) is None:
            return f"{made}: none failed; {speed}"
        kinds_seen = ", ".join(f"{number} x {kind}" for kind, number in self.errors.items())
        clock = datetime.fromtimestamp(first[0], UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return f"{made}: {self.failures} failed ({kinds_seen}), the first at {clock}: {first[1]}; {speed}"


def unbroken(result: ProbeResult) -> str | None:
    """Condition: every lane of the probe asked, and every request got a good answer."""
    idle = [str(lane) for lane in result.lanes if not lane.answers]
    if idle or not result.lanes:
        return f"no request was made to {result.url} from {'; '.join(idle) or 'anywhere'}, so nothing was seen"
    return str(result) if result.failures else None


class Probe(abc.ABC):
    """A client that asks from `start` to `stop`; as a context manager, for as long as its block runs."""

    _seen: ProbeResult | None = None

    @abc.abstractmethod
    def begin(self) -> None:
        """Start asking, without waiting for an answer."""

    @abc.abstractmethod
    def answered(self) -> None:
        """Wait for the first good answer of every lane; NeverHappened says what came instead.

        SurroundingsError when not even a request was made.
        """

    @abc.abstractmethod
    def finish(self) -> ProbeResult:
        """Stop asking once the request under way has ended, and account for everything since the first good answer."""

    @abc.abstractmethod
    def discard(self) -> None:
        """Stop asking at once and forget what was seen. Safe to call at any time and twice."""

    def start(self) -> Self:
        """Start asking; returns after the first good answer, so that what follows is really observed."""
        __tracebackhide__ = True
        try:
            self.begin()
            self.answered()
        except BaseException:
            self.discard()
            raise
        return self

    def stop(self) -> None:
        """Stop asking. Safe to call twice."""
        if self._seen is None:
            try:
                self._seen = self.finish()
            finally:
                self.discard()

    def result(self) -> ProbeResult:
        """What was seen; stops the probe if it still runs."""
        self.stop()
        assert self._seen is not None
        return self._seen

    def __enter__(self) -> Self:
        __tracebackhide__ = True
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        __tracebackhide__ = True
        if error is None:
            self.stop()
        else:
            self.discard()


def together(*probes: Probe) -> Probe:
    """Several probes as one: they start at the same time, and their results add up."""
    return _Together(probes)


def inside(
    namespace: Namespace,
    url: str,
    *,
    image: str,
    rate: int = 50,
    reuse: bool | None = None,
    node: str = "",
    headers: Mapping[str, str] | None = None,
    within: float = TOO_LATE,
    patience: float = 60.0,
) -> Probe:
    """A probe in a pod of this namespace.

    `image` is agnhost's: it needs a shell and curl 7.84 or later. `rate` is requests per second in all, at most: curl
    comes a few percent short of it. `reuse` keeps the connection (True), opens a new one for each request (False), or
    does half of each (None, two lanes in one pod). `node` pins the pod. A request without an answer `within` so many
    seconds has failed. `patience` is how many seconds `start` waits, for the pod to run and then for a good answer.
    """
    return _Inside(namespace, url, image, _split(rate, reuse), node, dict(headers or {}), within, patience)


def outside(
    url: str,
    *,
    rate: int = 50,
    reuse: bool | None = None,
    headers: Mapping[str, str] | None = None,
    within: float = TOO_LATE,
    patience: float = 30.0,
    context: ssl.SSLContext | None = None,
) -> Probe:
    """A probe in this process, one thread for each lane; for what must be reachable from outside the cluster.

    `context` says whom to trust for https; the rest is as for `inside`.
    """
    return _Outside(url, _split(rate, reuse), dict(headers or {}), within, patience, context)


def _split(rate: int, reuse: bool | None) -> dict[bool, int]:
    """Requests per second for each way of connecting, by whether the connection is kept."""
    if rate < 1 or (reuse is None and rate < 2):
        raise ValueError(f"rate={rate}: a probe makes at least one request per second in each lane")
    return {False: rate // 2, True: rate - rate // 2} if reuse is None else {reuse: rate}


def _since_first_good(answers: list[Answer]) -> tuple[Answer, ...]:
    """Without what came before the first good answer: then the thing that is asked was not yet there."""
    first = next((number for number, answer in enumerate(answers) if not answer.error), len(answers))
    return tuple(answers[first:])


def _noted(seen: ProbeResult) -> ProbeResult:
    """What a probe saw, once it stands in the report of the promise."""
    steps.current.availability += [lane.availability(seen.url) for lane in seen.lanes if lane.answers]
    return seen


@dataclass
class _Together(Probe):
    probes: tuple[Probe, ...]

    def begin(self) -> None:
        for probe in self.probes:
            probe.begin()

    def answered(self) -> None:
        __tracebackhide__ = True
        for probe in self.probes:
            probe.answered()

    def finish(self) -> ProbeResult:
        first, *others = (probe.result() for probe in self.probes)
        return sum(others, first)

    def discard(self) -> None:
        for probe in self.probes:
            probe.discard()


@dataclass
class _Inside(Probe):
    namespace: Namespace
    url: str
    image: str
    lanes: Mapping[bool, int]
    node: str
    headers: Mapping[str, str]
    within: float
    patience: float
    _pod: Object | None = None
    _first_line: str = ""

    def begin(self) -> None:
        command = ["sh", "-c", _script(self.url, self.lanes, self.headers, self.within)]
        name = f"probe-{uuid.uuid4().hex[:8]}"
        self._pod = self.namespace.create(manifests.pod(name, self.image, command=command, node=self.node))

    def answered(self) -> None:
        __tracebackhide__ = True
        eventually(self.pod, running, within=self.patience)
        deadline = time.monotonic() + self.patience
        silent, failed, line = set(self.lanes), 0, "nothing"
        for line in self._log():
            self._first_line = self._first_line or line
            asked = _parse(line)
            if asked and asked[1].error:
                failed += 1
            elif asked:
                silent.discard(asked[0])
            if not silent:
                return
            if time.monotonic() > deadline:
                break
        # Without a single request the probe itself is at fault, and nothing was learned about what it should ask.
        raise (NeverHappened if failed else SurroundingsError)(
            f"a first good answer from {self.url} to {self._place}: not within {self.patience:g} s; "
            f"{failed} requests failed; last seen: {line}"
        )

    def finish(self) -> ProbeResult:
        try:
            answers = self._answers()
        except ApiError as error:
            raise SurroundingsError(f"{self._place}: what the probe saw cannot be read: {error}") from error
        place = self._place
        return _noted(
            ProbeResult(
                self.url,
                tuple(
                    Lane(place, reuse, rate, _since_first_good(answers[reuse])) for reuse, rate in self.lanes.items()
                ),
            )
        )

    def discard(self) -> None:
        pod, self._pod = self._pod, None
        if pod is not None:
            # It may be gone with its namespace or its node; and it must not replace the error that led here.
            with contextlib.suppress(ApiError, SurroundingsError):
                pod.delete()

    @property
    def pod(self) -> Object:
        """The pod that asks; RuntimeError before `begin` and after the end."""
        if self._pod is None:
            raise RuntimeError("the probe does not run")
        return self._pod

    @property
    def _place(self) -> str:
        node = self.pod.spec.get("nodeName", "")
        return f"pod {self.pod.namespace}/{self.pod.name}{' on ' + node if node else ''}"

    def _answers(self) -> dict[bool, list[Answer]]:
        """Everything until one more request of each lane has ended: one under way may be the start of an outage."""
        stopped = self._last_stamp()
        answers: dict[bool, list[Answer]] = {reuse: [] for reuse in self.lanes}
        waiting, first = set(self.lanes), ""
        for line in self._log():
            first = first or line
            if (asked := _parse(line)) is None:
                continue
            reuse, answer = asked
            answers[reuse].append(answer)
            if answer.at > stopped:
                waiting.discard(reuse)
            if not waiting:
                break
        if waiting:
            raise SurroundingsError(f"{self._place}: the probe ended before it was stopped, and did not see everything")
        if first != self._first_line:
            raise SurroundingsError(
                f"{self._place}: the node discarded the beginning of the probe's log; probe less long"
            )
        return answers

    def _last_stamp(self) -> float:
        last = self.pod.client.get_text(self._log_path, {"timestamps": True, "tailLines": 1})
        return _epoch(last.partition(" ")[0]) if last else 0.0

    def _log(self) -> Iterator[str]:
        """Lines as they are printed; ends when there were none for longer than a request can take."""
        query = {"timestamps": True, "follow": True}
        return self.pod.client.stream(self._log_path, query, within=self.within + 5)

    @property
    def _log_path(self) -> str:
        return kinds.POD.path(self.pod.namespace, self.pod.name, "log")


_WRITE_OUT = r"%{stderr}%{http_code} %{exitcode} %{time_total} %{num_connects} %{errormsg}\n"
"""One line for each request. On stderr, because curl keeps back what it writes to a stdout that is not a terminal."""


def _script(url: str, lanes: Mapping[bool, int], headers: Mapping[str, str], within: float) -> str:
    """The shell script of a probe's pod: one curl for each lane, each line marked with its lane.

    The counter stands in the fragment, which is never sent, so every request is the one that was asked for. The loop
    around `read` joins what curl writes by single characters, so that the lines of two lanes do not mix; unlike other
    filters it holds nothing back in any shell. `trap` because a shell that is process 1 ignores SIGTERM otherwise.
    """
    common = ["curl", "--silent", "--output", "/dev/null", "--http1.1", "--noproxy", "*", "--write-out", _WRITE_OUT]
    common += ["--connect-timeout", f"{within:g}", "--max-time", f"{within:g}"]
    for name, value in headers.items():
        common += ["--header", f"{name}: {value}"]
    script = ["trap 'exit 0' TERM"]
    for reuse, rate in lanes.items():
        asking = [*common, "--rate", f"{rate}/s", *([] if reuse else ["--header", "Connection: close"])]
        asking.append(f"{unglobbed(url)}#[1-{_PLENTY}]")
        script.append(f'{shlex.join(asking)} 2>&1 | while read -r line; do echo "{_mark(reuse)} $line"; done &')
    return "\n".join([*script, "wait"])


def unglobbed(url: str) -> str:
    """The URL as curl takes it literally: brackets and braces have a meaning to it everywhere but around an address."""
    parts = urllib.parse.urlsplit(url)
    start = f"{parts.scheme}://{parts.netloc}"
    rest = url[len(start) :].split("#", 1)[0]
    return start + "".join(f"\\{sign}" if sign in "[]{}" else sign for sign in rest)


def _mark(reuse: bool) -> str:
    return "kept" if reuse else "new"


def _parse(line: str) -> tuple[bool, Answer] | None:
    """A line of the log, `<time> <lane> <code> <exit> <seconds> <connects> <message>`, or None for any other line."""
    with contextlib.suppress(ValueError):
        stamp, mark, code, exit_code, seconds, connects, *message = line.split(maxsplit=6)
        if mark not in ("new", "kept"):
            return None
        error = curl_error(int(exit_code), int(code))
        detail = message[0].strip() if message and error else ""
        return mark == "kept", Answer(_epoch(stamp), float(seconds), error, detail, int(connects) > 0)
    return None


def curl_error(exit_code: int, code: int) -> str:
    """The kind of failure that curl's exit code and the HTTP status tell; empty for a good answer."""
    if exit_code:
        return _CURL_EXITS.get(exit_code, f"curl exit {exit_code}")
    return "" if code < 400 else f"answered {code}"


def _epoch(stamp: str) -> float:
    """Seconds since the epoch of an RFC 3339 time with nanoseconds, of which Python reads six digits."""
    whole, _, fraction = stamp.rstrip("Z").partition(".")
    return datetime.fromisoformat(f"{whole}+00:00").timestamp() + float(f"0.{fraction or 0}")


@dataclass
class _Outside(Probe):
    url: str
    lanes: Mapping[bool, int]
    headers: Mapping[str, str]
    within: float
    patience: float
    context: ssl.SSLContext | None
    _askers: list[_Asker] = field(default_factory=list)

    def begin(self) -> None:
        for reuse, rate in self.lanes.items():
            asker = _Asker(Connection(self.url, self.headers, reuse, self.within, self.context), rate)
            self._askers.append(asker)
            asker.start()

    def answered(self) -> None:
        __tracebackhide__ = True
        deadline = time.monotonic() + self.patience
        for asker in self._askers:
            if not asker.good.wait(max(0.0, deadline - time.monotonic())):
                last = asker.answers[-1] if asker.answers else None
                seen = f"{last.error} {last.detail}".rstrip() if last else "no request that ended"
                raise NeverHappened(
                    f"a first good answer from {self.url} to the runner: not within {self.patience:g} s; "
                    f"{len(asker.answers)} requests failed; last seen: {seen}"
                )

    def finish(self) -> ProbeResult:
        self.discard()
        return _noted(
            ProbeResult(
                self.url,
                tuple(
                    Lane("the runner", asker.connection.reuse, asker.rate, _since_first_good(asker.answers))
                    for asker in self._askers
                ),
            )
        )

    def discard(self) -> None:
        for asker in self._askers:
            asker.enough.set()
        for asker in self._askers:
            asker.join()


class _Asker(threading.Thread):
    """Asks at a steady rate until told that it is enough."""

    def __init__(self, connection: Connection, rate: int) -> None:
        super().__init__(name=f"probe {connection.url}", daemon=True)
        self.connection = connection
        self.rate = rate
        self.answers: list[Answer] = []
        self.good = threading.Event()
        self.enough = threading.Event()

    def run(self) -> None:
        due = time.monotonic()
        while not self.enough.wait(max(0.0, due - time.monotonic())):
            # What a slow answer delayed is made up for by one request at most, never by a burst.
            due = max(due, time.monotonic() - 1 / self.rate) + 1 / self.rate
            answer = self.connection.ask()
            self.answers.append(answer)
            if not answer.error:
                self.good.set()
        self.connection.close()


class Connection:
    """One HTTP client, with one connection that it keeps or with a new one for each request; `ask` makes a request."""

    def __init__(
        self, url: str, headers: Mapping[str, str], reuse: bool, within: float, context: ssl.SSLContext | None
    ) -> None:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url!r}: a probe asks http://host… or https://host…")
        self.url = url
        self.reuse = reuse
        self._target = urllib.parse.urlunsplit(("", "", parts.path or "/", parts.query, ""))
        self._headers = {**headers, **({} if reuse else {"Connection": "close"})}
        self._within = within
        self._http = (
            http.client.HTTPSConnection(parts.hostname, parts.port, timeout=within, context=context)
            if parts.scheme == "https"
            else http.client.HTTPConnection(parts.hostname, parts.port, timeout=within)
        )

    def ask(self) -> Answer:
        """Make one request and say how it ended."""
        began, connected, error, detail = time.monotonic(), self._http.sock is None, "", ""
        try:
            try:
                response = self._request()
            except ConnectionError:
                # A server may close an idle connection just as the next request leaves; every client asks anew then.
                if connected:
                    raise
                self._http.close()
                connected, response = True, self._request()
            response.read()
            error = "" if response.status < 400 else f"answered {response.status}"
        except (OSError, http.client.HTTPException) as problem:
            self._http.close()
            error, detail = _kind(problem), str(problem)
        seconds = time.monotonic() - began
        if not error and seconds > self._within:  # the limit of the socket holds for each of its reads, not for all
            error = _CURL_EXITS[28]
        return Answer(time.time(), seconds, error, detail, connected)

    def close(self) -> None:
        self._http.close()

    def _request(self) -> http.client.HTTPResponse:
        self._http.request("GET", self._target, headers=self._headers)
        return self._http.getresponse()


def _kind(problem: Exception) -> str:
    """A failure in the same words as curl's, so that the errors of both kinds of probe add up."""
    match problem:
        case TimeoutError():
            return _CURL_EXITS[28]
        case socket.gaierror():
            return _CURL_EXITS[6]
        case ssl.SSLError():
            return _CURL_EXITS[35]
        case http.client.RemoteDisconnected():
            return _CURL_EXITS[52]
        case http.client.IncompleteRead():
            return _CURL_EXITS[18]
        case ConnectionResetError() | BrokenPipeError():
            return _CURL_EXITS[56]
        case OSError():
            return _CURL_EXITS[7]
        case _:
            return f"not an HTTP answer: {type(problem).__name__}"
