"""What changed between two runs, and whether something regressed."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from clusterproof.outcome import ClusterFacts, Outcome, Result, Run
from clusterproof.settings import Settings

from . import result, text
from .document import Document, Table

SCHEMA_VERSION = "1.0"
"""Version of the JSON document; the major number changes when a reader of the old one would be misled."""

SLOWER = Settings().slower
"""By which factor a promise must have become slower to be called so."""
SLOWER_SECONDS = 10.0
"""By how many seconds it must have become slower besides: a short promise is slow for many a reason."""
WORSE_SECONDS = 60.0
"""By how many seconds to be a regression: whether a CronJob's minute has just begun makes as much of a difference."""

_ENOUGH = 10
"""Promises that a median is worth something of."""

_NOT_TRIED = "not tried"
_ABSENT = "-"
_COMPARED = (
    "Kubernetes",
    "Cluster identity",
    "Nodes",
    "Kubelets",
    "Operating systems",
    "Kernels",
    "Container runtimes",
    "Clusterproof",
)
"""The facts of a run that are worth comparing, by the names `text.facts` gives them."""


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that is different."""

    what: str
    """Id of a promise, name of a capability, `apps/v1 Deployment`, or name of a fact."""
    old: str
    new: str
    why: str = ""
    """What the new run says about it."""
    regressed: bool = False
    """Whether it is worse than it was."""


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two runs."""

    file: str
    run: str
    started: float
    """Seconds since the epoch."""
    complete: bool
    cluster: str
    version: str
    """gitVersion of the API server."""
    suite_version: str
    counts: dict[str, int]
    """Number of results by outcome name."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """What is different between two runs."""

    old: Side
    new: Side
    slower: float
    """The factor that was asked for."""
    regressed: bool
    changes: dict[str, tuple[Change, ...]]
    """By what kind of change it is, those that are worse first; kinds without a change are absent."""
    unknown: tuple[str, ...]
    """What could not be compared, and why."""
    schema: str = SCHEMA_VERSION


def compare(old: Run, new: Run, *, slower: float = SLOWER, files: tuple[str, str] = ("", "")) -> Comparison:
    """What changed from one run to the other; `files` are where they were read from.

    Worse is: a promise that is broken and was not, or was kept and now is not, unless the user asked not to prove it; a
    capability or a kind of the API that is gone; a promise that takes more than `slower` times as long (0: whatever),
    and a minute more, beyond how much longer all of them take.
    """
    groups: dict[str, list[Change]] = {}
    for group, change in (
        *_promises(old, new),
        *_speed(old, new, slower),
        *_capabilities(old.cluster, new.cluster),
        *_kinds(old.cluster, new.cluster),
        *(("facts", change) for change in _facts(old, new)),
    ):
        groups.setdefault(group, []).append(change)
    in_order = sorted(groups.items(), key=lambda group: not any(change.regressed for change in group[1]))
    return Comparison(
        _side(old, files[0]),
        _side(new, files[1]),
        slower,
        any(change.regressed for changes in groups.values() for change in changes),
        {group: tuple(changes) for group, changes in in_order},
        tuple(_unknown(old, new)),
    )


def load(old: Path, new: Path) -> tuple[Run, Run]:
    """Both runs. ValueError has a line for each file that cannot be read."""
    runs, problems = [], []
    for path in old, new:
        try:
            runs.append(result.read(path))
        except OSError as error:
            problems.append(f"{path}: {error.strerror}")
        except ValueError as error:
            problems.append(str(error))
    if problems:
        raise ValueError("\n".join(problems))
    return runs[0], runs[1]


def bad_factor(slower: float) -> str:
    """What is wrong with a factor; empty when nothing is."""
    return "" if slower == 0 or slower > 1 else "must be more than 1, or 0 for never"


def to_json(comparison: Comparison) -> str:
    """The comparison as a document for programs."""
    return json.dumps(dataclasses.asdict(comparison), indent=1) + "\n"


def verdict(comparison: Comparison) -> str:
    """What is worse, in a line: `regressed: 2 newly broken, 1 capability gone`; or that nothing is."""
    worse = [f"{number} {title(group)}" for group, number in worse_by_group(comparison).items()]
    return f"regressed: {', '.join(worse)}" if worse else "nothing regressed"


def worse_by_group(comparison: Comparison) -> dict[str, int]:
    """Number of changes for the worse by what kind of change it is; kinds without one are absent."""
    numbers = {group: sum(each.regressed for each in changes) for group, changes in comparison.changes.items()}
    return {group: number for group, number in numbers.items() if number}


def title(group: str) -> str:
    """`newly_broken` for people: `newly broken`."""
    return group.replace("_", " ").replace("api ", "API ")


def document(comparison: Comparison) -> Document:
    """The comparison for people."""
    return Document(
        f"Clusterproof: {comparison.old.run} compared with {comparison.new.run}",
        verdict(comparison),
        not comparison.regressed,
        (
            ("Old", _told(comparison.old)),
            ("New", _told(comparison.new)),
            *(("Not compared", each) for each in comparison.unknown),
        ),
        tuple(
            Table(
                title(group).capitalize().replace("Api", "API"),
                ("what", "old", "new", "worse", "why"),
                tuple(
                    (change.what, change.old, change.new, "yes" if change.regressed else "", change.why)
                    for change in sorted(changes, key=lambda change: not change.regressed)
                ),
                any(change.regressed for change in changes),
            )
            for group, changes in comparison.changes.items()
        ),
    )


def _promises(old: Run, new: Run) -> Iterator[tuple[str, Change]]:
    before, after = _outcomes(old), _outcomes(new)
    for each in sorted(before.keys() | after.keys()):
        was, is_now = before.get(each), after.get(each)
        if was == is_now:
            continue
        if was is None:
            yield "new_promises", Change(each, _ABSENT, str(is_now), _why(new, each))
        elif is_now is None:
            yield _absence(new, each), Change(each, was, _ABSENT)
        else:
            lost = was == Outcome.KEPT and is_now != Outcome.SKIPPED
            worse = is_now != Outcome.KEPT and (is_now == Outcome.BROKEN or lost)
            group = "no_longer_tried" if is_now == _NOT_TRIED else f"newly_{is_now}"
            yield group, Change(each, was, is_now, _why(new, each), worse)


def _absence(run: Run, promise: str) -> str:
    """Whether the suites still have a promise that a run did not select."""
    there = run.suites.promises if run.suites else ()
    return "not_selected" if promise.partition("[")[0] in there else "promises_gone"


def _outcomes(run: Run) -> dict[str, str]:
    """The outcome of every promise that was selected."""
    return {**dict.fromkeys(run.expected, _NOT_TRIED), **{each.id: str(each.outcome) for each in run.results}}


def _why(run: Run, promise: str) -> str:
    return next((each.reason for each in run.results if each.id == promise), "")


def _speed(old: Run, new: Run, slower: float) -> Iterator[tuple[str, Change]]:
    """Only of what was kept both times: how long a failure takes says nothing."""
    before, after = _kept(old), _kept(new)
    times = {each: (before[each].seconds, after[each].seconds) for each in after if each in before}
    pace = _pace(times.values())
    if slower and pace > slower:
        # Cluster or machine: nobody can tell from here.
        why = "in the median, as on a busier machine; each promise is compared with that"
        yield "slower", Change(f"all {len(times)} promises", "1", f"{pace:.1f} times as long", why)
    for each, (was, is_now) in times.items():
        usual = was * max(1.0, pace)
        if slower and is_now > usual * slower and is_now - usual > SLOWER_SECONDS:
            why = f"{is_now / was:.1f} times as long" if was else ""
            worse = is_now - usual > WORSE_SECONDS
            yield "slower", Change(each, text.duration(was), text.duration(is_now), why, worse)


def _pace(times: Iterable[tuple[float, float]]) -> float:
    """How many times as long everything took: a busier machine must not look like many slower promises.

    1 where there are too few promises to tell.
    """
    ratios = [is_now / was for was, is_now in times if was > 0]
    return median(ratios) if len(ratios) >= _ENOUGH else 1.0


def _kept(run: Run) -> dict[str, Result]:
    return {each.id: each for each in text.having(run, Outcome.KEPT)}


def _capabilities(old: ClusterFacts | None, new: ClusterFacts | None) -> Iterator[tuple[str, Change]]:
    before = {fact.name: fact for fact in old.capabilities} if old else {}
    for fact in new.capabilities if new else ():
        was = before.get(fact.name)
        if was and was.supported and not fact.supported:
            yield "capabilities_gone", Change(fact.name, "claimed", "not claimed", fact.evidence, True)
        elif was and fact.supported and not was.supported:
            yield "new_capabilities", Change(fact.name, "not claimed", "claimed", fact.evidence)


def _kinds(old: ClusterFacts | None, new: ClusterFacts | None) -> Iterator[tuple[str, Change]]:
    if not (old and old.kinds and new and new.kinds):
        return
    before, after = set(old.kinds), set(new.kinds)
    for each in sorted(before - after):
        left = [f"{kind.partition(' ')[0]}" for kind in new.kinds if _family(kind) == _family(each)]
        why = f"still served as {', '.join(left)}" if left else "not served at any version"
        yield "api_kinds_gone", Change(each, "served", "not served", why, True)
    for each in sorted(after - before):
        yield "new_api_kinds", Change(each, "not served", "served")


def _family(kind: str) -> tuple[str, str]:
    """Group and name of a kind, whatever its version."""
    api_version, _, name = kind.partition(" ")
    return api_version.rpartition("/")[0], name


def _facts(old: Run, new: Run) -> Iterator[Change]:
    before, after = dict(text.facts(old)), dict(text.facts(new))
    for name in _COMPARED:
        if name in before and name in after and before[name] != after[name]:
            yield Change(name, before[name], after[name])
    if old.suites and new.suites and old.suites.sha256 != new.suites.sha256:
        yield Change("Suites' sources", old.suites.sha256[:12], new.suites.sha256[:12], "promises may have changed")


def _unknown(old: Run, new: Run) -> Iterator[str]:
    for which, run in ("old", old), ("new", new):
        if run.cluster is None:
            yield f"capabilities and API kinds: the {which} run reached no cluster"
        elif not run.cluster.kinds:
            yield f"API kinds: the {which} run did not record them"
        if said := text.incomplete(run):
            yield f"everything: of the {which} run, {said}"


def _side(run: Run, file: str) -> Side:
    version = run.cluster.version if run.cluster else ""
    return Side(
        file, run.id, run.started, run.complete, text.heading(run), version, run.suite_version, dict(run.counts)
    )


def _told(side: Side) -> str:
    parts = (side.file, side.cluster, side.version, text.moment(side.started), text.counts(side.counts))
    return ", ".join(filter(None, parts))
