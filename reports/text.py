"""What all report formats say the same way: names, order, figures, sentences, and text that is safe to print."""

from __future__ import annotations

import dataclasses
import enum
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, TypeVar, cast

from clusterproof.outcome import Outcome, Result, Run

_T = TypeVar("_T")

_ORDER = (Outcome.KEPT, Outcome.BROKEN, Outcome.FLAKY, Outcome.ERROR, Outcome.UNSUPPORTED, Outcome.SKIPPED)

FAILED = frozenset({Outcome.BROKEN, Outcome.FLAKY, Outcome.ERROR})
"""Outcomes that call for evidence."""

_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
_ILLEGAL = re.compile(r"[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_MARKDOWN = re.compile(r"([\\`*_\[\]<>&#|~$])")


def clean(value: _T) -> _T:
    """A run, or a part of one, whose texts are fit for XML, UTF-8 and terminals.

    Colours are dropped, and a mark stands in place of each character that must not be there. Every format but
    result.json, which keeps what was said as it was said, starts with this.
    """
    made: Any = value
    if isinstance(value, enum.Enum):
        pass
    elif isinstance(value, str):
        made = _ILLEGAL.sub("\N{REPLACEMENT CHARACTER}", _ANSI.sub("", value).replace("\r\n", "\n"))
    elif isinstance(value, tuple):
        made = tuple(clean(each) for each in value)
    elif isinstance(value, dict):
        made = {clean(name): clean(each) for name, each in value.items()}
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = (field.name for field in dataclasses.fields(value))
        made = dataclasses.replace(value, **{name: clean(getattr(value, name)) for name in names})
    return cast(_T, made)


def one_line(text: str) -> str:
    """Text on a single line."""
    return " ".join(text.split())


def clip(text: str, limit: int) -> str:
    """Text of about `limit` characters: its beginning and its end, and in between how much is left out."""
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]}\n[... {len(text) - 2 * half} characters left out; result.json has them ...]\n{text[-half:]}"


def markdown(text: str) -> str:
    """Text on a single line that Markdown, also inside a table, shows as it is."""
    return _MARKDOWN.sub(r"\\\1", one_line(text))


def duration(seconds: float) -> str:
    """`0.4 s`, `12.0 s`, `2 min 05 s`, `1 h 02 min`."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min"


def figure(value: float) -> str:
    """A measured value in as many digits as are of use: `0.0312`, `1.25`, `1234567`."""
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def moment(epoch: float) -> str:
    """Seconds since the epoch as `2026-11-23T17:03:00+00:00`."""
    return datetime.fromtimestamp(epoch, UTC).isoformat(timespec="seconds")


def plural(number: int, noun: str) -> str:
    """`1 promise`, `2 promises`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def counts(numbers: dict[str, int]) -> str:
    """Numbers by outcome in a line: `41 kept, 2 broken, 1 unsupported`; outcomes that did not occur are left out."""
    words = {Outcome.ERROR: "errors"} if numbers.get(Outcome.ERROR, 0) > 1 else {}
    told = [f"{numbers[outcome]} {words.get(outcome, outcome)}" for outcome in _ORDER if numbers.get(outcome)]
    return ", ".join(told) or "nothing tried"


def promise_name(result_id: str) -> str:
    """Last part of a report id with its case: `completion[indexed]` of `apps/job/completion[indexed]`."""
    path, bracket, case = result_id.partition("[")
    return path.rsplit("/", 1)[-1] + bracket + case


def reason(result: Result) -> str:
    """Why a promise is not kept, on one line."""
    return one_line(result.reason) or "no reason was given"


def told(result: Result) -> str:
    """The reason on one line; one that is neither a success nor a failure begins with which of the two kinds it is."""
    return reason(result) if result.outcome in FAILED else f"{result.outcome}: {reason(result)}"


def by_id(results: Iterable[Result]) -> list[Result]:
    """Results in the order of their ids, so that two reports of equal runs are equal, in whichever order they ran."""
    return sorted(results, key=lambda result: result.id)


def having(run: Run, outcome: Outcome) -> list[Result]:
    """The results with an outcome, by id."""
    return by_id(result for result in run.results if result.outcome is outcome)


def by_area(results: Iterable[Result]) -> dict[str, list[Result]]:
    """Results by area, both sorted."""
    areas: dict[str, list[Result]] = {}
    for result in by_id(results):
        areas.setdefault(result.area, []).append(result)
    return areas


def by_reason(results: Iterable[Result]) -> dict[str, list[Result]]:
    """Results by their reason on one line: one missing capability often explains many."""
    reasons: dict[str, list[Result]] = {}
    for result in by_id(results):
        reasons.setdefault(reason(result), []).append(result)
    return reasons


def untried(run: Run) -> list[Result]:
    """The promises that were selected and have no result, as skipped ones: no report may pass over them in silence."""
    missing = set(run.expected) - {result.id for result in run.results}
    return [
        Result(
            id=result_id,
            nodeid="",
            promise="",
            source="",
            tier="",
            capabilities=(),
            outcome=Outcome.SKIPPED,
            reason="not tried: the run ended before its turn",
            started=run.started + run.seconds,
        )
        for result_id in sorted(missing)
    ]


def incomplete(run: Run) -> str:
    """What must be said of a run that did not try everything; empty for one that did."""
    if missing := len(untried(run)):
        return f"{missing} of {plural(len(set(run.expected)), 'selected promise')} not tried"
    return "" if run.complete else "it was stopped, or lost a worker process"


def heading(run: Run) -> str:
    """Which cluster it was: `prod-eu`; without one, that it was not reached."""
    return one_line(run.cluster.name) if run.cluster else "no cluster was reached"


def facts(run: Run) -> list[tuple[str, str]]:
    """What was proven, by what and when, as pairs of name and value; one line each."""
    pairs = []
    if cluster := run.cluster:
        ready = sum(node.ready for node in cluster.nodes)
        pairs += [
            ("Cluster", cluster.name),
            ("Provider", cluster.provider),
            ("API server", cluster.server),
            ("Kubernetes", cluster.version),
            ("Cluster identity", cluster.uid),
            ("Nodes", f"{ready} of {len(cluster.nodes)} ready"),
            ("Kubelets", _distinct(node.version for node in cluster.nodes)),
            ("Operating systems", _distinct(node.os_image for node in cluster.nodes)),
            ("Kernels", _distinct(node.kernel for node in cluster.nodes)),
            ("Container runtimes", _distinct(node.runtime for node in cluster.nodes)),
            ("Capabilities", ", ".join(fact.name for fact in cluster.capabilities if fact.supported) or "none"),
        ]
    pairs += [
        ("Clusterproof", run.suite_version),
        ("Run", run.id),
        ("Started", moment(run.started)),
        ("Took", duration(run.seconds)),
        ("Complete", f"no: {said}" if (said := incomplete(run)) else "yes"),
        ("Result", counts(run.counts)),
    ]
    return [(name, one_line(value)) for name, value in pairs]


def _distinct(values: Iterable[str]) -> str:
    return ", ".join(sorted({value for value in values if value})) or "unknown"
