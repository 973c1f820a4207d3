"""What many runs together say: trends, flaky promises, the slowest and those that break most."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby, pairwise
from pathlib import Path
from statistics import median
from typing import Any

from clusterproof.outcome import SCHEMA_VERSION, Outcome

from . import result, text
from .document import Document, Table

_JUDGED = (Outcome.KEPT, Outcome.BROKEN)
_TRIED = (*_JUDGED, Outcome.FLAKY, Outcome.ERROR)
_SIGNS = {"kept": ".", "broken": "B", "error": "E", "flaky": "f", "unsupported": "u", "skipped": "s", "": "-"}
_LEGEND = "one sign a run, the last run last: " + ", ".join(
    f"{sign} {outcome or 'not tried'}" for outcome, sign in _SIGNS.items()
)
_SHOWN = 30
"""Runs that a strip of signs shows."""


@dataclass(frozen=True, slots=True)
class Past:
    """One run, as far as a history needs it."""

    file: str
    run: str
    started: float
    """Seconds since the epoch."""
    seconds: float
    complete: bool
    cluster: str
    """Which cluster it was: the UID of one that is there to stay, the provider of one that was made for the run."""
    version: str
    """gitVersion of the API server; empty where none was reached."""
    outcomes: dict[str, str]
    """By promise. Words that a later version has for an outcome are kept as they are."""
    durations: dict[str, float]
    """Seconds by promise."""

    @property
    def counts(self) -> Counter[str]:
        """Number of results by outcome."""
        return Counter(self.outcomes.values())


@dataclass(frozen=True, slots=True)
class Record:
    """One promise over all runs, from the first to the last."""

    id: str
    outcomes: tuple[str, ...]
    """One for each run; empty where it was not tried."""
    tried: int
    """Runs in which it was kept, broken, flaky or an error."""
    broken: int
    flaky: int
    """Runs in which it was called flaky, and turns from kept to broken and back on the same cluster version."""
    seconds: tuple[float, ...]
    """How long it took, for each run in which it was kept."""

    @property
    def typical(self) -> float:
        """Median of its times, in seconds; 0 without one."""
        return median(self.seconds) if self.seconds else 0.0


@dataclass(frozen=True, slots=True)
class History:
    """All runs, from the first to the last, and all promises."""

    runs: tuple[Past, ...]
    records: tuple[Record, ...]
    passed_over: tuple[str, ...]
    """A sentence for each file that is no result document."""

    @property
    def flaky(self) -> list[Record]:
        """The most frequently flaky first."""
        found = (record for record in self.records if record.flaky)
        return sorted(found, key=lambda record: (-record.flaky / record.tried, record.id))

    @property
    def broken(self) -> list[Record]:
        """The most frequently broken first."""
        found = (record for record in self.records if record.broken)
        return sorted(found, key=lambda record: (-record.broken / record.tried, record.id))

    @property
    def slowest(self) -> list[Record]:
        """The slowest first."""
        found = (record for record in self.records if record.seconds)
        return sorted(found, key=lambda record: (-record.typical, record.id))


def read(folder: Path, last: int | None = None) -> History:
    """The history of the result documents in a folder: `*.json` in it, and `result.json` anywhere below it.

    `last` is how many runs are wanted, counted from the last. ValueError when there is none.
    """
    runs: dict[tuple[str, float], Past] = {}
    passed_over = []
    for path in sorted({*folder.glob("*.json"), *folder.rglob(result.NAME)}):
        try:
            past = _past(path)
        except ValueError as error:
            passed_over.append(str(error))
        else:
            # The same run may be there twice, under its own name and as the latest.
            runs.setdefault((past.run, past.started), past)
    if not runs:
        raise ValueError("\n".join([f"{folder}: holds no result document", *passed_over]))
    in_order = sorted(runs.values(), key=lambda past: past.started)
    return make(in_order[-last:] if last else in_order, passed_over)


def make(runs: Iterable[Past], passed_over: Iterable[str] = ()) -> History:
    """The history of runs, which are in order."""
    known = tuple(runs)
    promises = sorted({promise for past in known for promise in past.outcomes})
    return History(known, tuple(_record(promise, known) for promise in promises), tuple(passed_over))


def to_json(history: History) -> str:
    """The history as a document for programs."""
    return json.dumps({"schema": SCHEMA_VERSION, **dataclasses.asdict(history)}, indent=1) + "\n"


def document(history: History, top: int) -> Document:
    """The history for people; of promises that are slow or often broken the first `top`."""
    latest = history.runs[-1]
    bad = [
        f"{number} {outcome}" for outcome, number in latest.counts.items() if outcome in (Outcome.BROKEN, Outcome.ERROR)
    ]
    flaky = text.plural(len(history.flaky), "flaky promise")
    return Document(
        f"Clusterproof: {text.plural(len(history.runs), 'run')}",
        f"{flaky}; in the last run {', '.join(bad) or 'nothing broken'}",
        not bad and not history.flaky,
        (
            ("From", text.moment(history.runs[0].started)),
            ("To", text.moment(latest.started)),
            ("Runs", _LEGEND),
            *(("Passed over", each) for each in history.passed_over),
        ),
        (
            _runs(history),
            Table(
                "Flaky promises",
                ("promise", "how often", "runs"),
                tuple((each.id, f"{each.flaky} of {each.tried}", _strip(each)) for each in history.flaky),
                True,
            ),
            Table(
                "Most often broken",
                ("promise", "how often", "last", "runs"),
                tuple(
                    (each.id, f"{each.broken} of {each.tried}", each.outcomes[-1] or "not tried", _strip(each))
                    for each in history.broken[:top]
                ),
                True,
            ),
            Table(
                "Slowest",
                ("promise", "median", "last", "last ÷ median"),
                tuple(
                    (
                        each.id,
                        text.duration(each.typical),
                        text.duration(each.seconds[-1]),
                        f"{each.seconds[-1] / each.typical:.2f}" if each.typical else "-",
                    )
                    for each in history.slowest[:top]
                ),
            ),
        ),
    )


def _runs(history: History) -> Table:
    there = {outcome for past in history.runs for outcome in past.counts}
    columns = [*(outcome for outcome in _SIGNS if outcome in there), *sorted(there - _SIGNS.keys())]
    return Table(
        "Runs",
        ("started", "Kubernetes", *columns, "not tried", "took", "complete"),
        tuple(
            (
                text.moment(past.started),
                past.version or "-",
                *(str(past.counts[outcome]) for outcome in columns),
                str(len(history.records) - len(past.outcomes)),
                text.duration(past.seconds),
                "yes" if past.complete else "no",
            )
            for past in history.runs
        ),
    )


def _strip(record: Record) -> str:
    signs = "".join(_SIGNS.get(outcome, "?") for outcome in record.outcomes[-_SHOWN:])
    return f"…{signs}" if len(record.outcomes) > _SHOWN else signs


def _record(promise: str, runs: tuple[Past, ...]) -> Record:
    outcomes = tuple(past.outcomes.get(promise, "") for past in runs)
    return Record(
        promise,
        outcomes,
        sum(outcome in _TRIED for outcome in outcomes),
        outcomes.count(Outcome.BROKEN),
        outcomes.count(Outcome.FLAKY) + sum(_turns(promise, runs)),
        tuple(past.durations[promise] for past in runs if past.outcomes.get(promise) == Outcome.KEPT),
    )


def _turns(promise: str, runs: tuple[Past, ...]) -> Iterator[int]:
    """How often it turned and turned back, for each cluster version; one turn that lasts is a change, not a flake."""
    same = sorted(runs, key=lambda past: (past.cluster, past.version))
    for _, alike in groupby(same, key=lambda past: (past.cluster, past.version)):
        judged = [past.outcomes[promise] for past in alike if past.outcomes.get(promise) in _JUDGED]
        yield max(0, sum(before != after for before, after in pairwise(judged)) - 1)


def _past(path: Path) -> Past:
    """A run from its document, of which only what is needed is looked at: there may be hundreds."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: {getattr(error, 'strerror', None) or f'not a JSON document: {error}'}") from None
    version = raw.get("schema") if isinstance(raw, dict) else None
    if isinstance(version, str) and version.split(".")[0] != SCHEMA_VERSION.split(".")[0]:
        raise ValueError(f"{path}: schema version {version} cannot be read; this is version {SCHEMA_VERSION}")
    try:
        return _built(path, raw)
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError):
        raise ValueError(f"{path}: not a result document") from None


def _built(path: Path, raw: dict[str, Any]) -> Past:
    cluster = raw["cluster"] or {"provider": "", "uid": "", "version": ""}
    for each in (raw, *raw["results"]):
        result.check_time(float(each.get("started", 0)), float(each["seconds"]))
    return Past(
        str(path),
        str(raw["id"]),
        float(raw["started"]),
        float(raw["seconds"]),
        bool(raw["complete"]),
        str(cluster["uid"] if cluster["provider"] == "external" else cluster["provider"]),
        str(cluster["version"]),
        {str(each["id"]): str(each["outcome"]) for each in raw["results"]},
        {str(each["id"]): float(each["seconds"]) for each in raw["results"]},
    )
