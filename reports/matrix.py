"""One table of promises by clusters: where the same suites, run on several clusters, came out differently."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from clusterproof.outcome import SCHEMA_VERSION, Outcome, Run

from . import result, text
from .document import Document, Table

_NOT_TRIED = "not tried"
_BAD = (Outcome.BROKEN, Outcome.ERROR, Outcome.FLAKY)


@dataclass(frozen=True, slots=True)
class Column:
    """One cluster, by what its run said."""

    name: str
    """What the user calls it."""
    cluster: str
    version: str
    """gitVersion of the API server; empty where none was reached."""
    complete: bool
    """Whether everything that was selected was tried."""
    counts: dict[str, int]
    """Number of results by outcome name."""


@dataclass(frozen=True, slots=True)
class Row:
    """One promise or capability on all clusters."""

    what: str
    outcomes: tuple[str, ...]
    """One for each column."""
    why: tuple[str, ...] = ()
    """The reason for each outcome, where there is one."""

    @property
    def alike(self) -> bool:
        """Whether it is the same on all clusters."""
        return len(set(self.outcomes)) == 1


@dataclass(frozen=True, slots=True)
class Matrix:
    """Several runs side by side."""

    columns: tuple[Column, ...]
    promises: tuple[Row, ...]
    capabilities: tuple[Row, ...]
    schema: str = SCHEMA_VERSION

    @property
    def good(self) -> bool:
        """Whether nothing is broken, flaky or an error anywhere, and every run is whole."""
        whole = all(column.complete for column in self.columns)
        return whole and not any(outcome in _BAD for row in self.promises for outcome in row.outcomes)


def load(files: Sequence[tuple[str, Path]]) -> Matrix:
    """The matrix of result documents, each with a name for its cluster.

    ValueError has a line for each file that cannot be read and each name that is there twice.
    """
    runs, problems = {}, []
    for name, path in files:
        if name in runs:
            problems.append(f"{path}: there is another cluster named {name!r}; say NAME={path}")
            continue
        try:
            runs[name] = result.read(path)
        except OSError as error:
            problems.append(f"{path}: {error.strerror}")
        except ValueError as error:
            problems.append(str(error))
    if problems:
        raise ValueError("\n".join(problems))
    return make(runs)


def make(runs: dict[str, Run]) -> Matrix:
    """The matrix of runs, by name of their cluster."""
    results = [{each.id: each for each in run.results} for run in runs.values()]
    expected = [{*run.expected, *found} for run, found in zip(runs.values(), results, strict=True)]
    promises = sorted(set().union(*expected))
    claims = [{fact.name: fact for fact in run.cluster.capabilities} if run.cluster else {} for run in runs.values()]
    names = sorted(set().union(*claims))
    return Matrix(
        tuple(
            Column(
                name,
                text.heading(run),
                run.cluster.version if run.cluster else "",
                run.complete,
                dict(run.counts),
            )
            for name, run in runs.items()
        ),
        tuple(
            Row(
                promise,
                tuple(str(found[promise].outcome) if promise in found else _NOT_TRIED for found in results),
                tuple(found[promise].reason if promise in found else "" for found in results),
            )
            for promise in promises
        ),
        tuple(
            Row(
                name,
                tuple("yes" if name in known and known[name].supported else "no" for known in claims),
                tuple(known[name].evidence if name in known else "" for known in claims),
            )
            for name in names
        ),
    )


def to_json(matrix: Matrix) -> str:
    """The matrix as a document for programs."""
    return json.dumps(dataclasses.asdict(matrix), indent=1) + "\n"


def document(matrix: Matrix) -> Document:
    """The matrix for people: first what differs, then what is bad everywhere, then everything."""
    names = tuple(column.name for column in matrix.columns)
    differing = tuple(row for row in matrix.promises if not row.alike)
    bad = tuple(row for row in matrix.promises if row.alike and row.outcomes[0] in _BAD)
    verdict = [f"{text.plural(len(matrix.columns), 'cluster')}", f"{text.plural(len(matrix.promises), 'promise')}"]
    verdict.append(f"{len(differing)} differ between them" if differing else "all come out alike")
    if not matrix.good:
        verdict.append("not all are kept")
    return Document(
        "Clusterproof: clusters side by side",
        ", ".join(verdict),
        matrix.good,
        tuple(
            (column.name, ", ".join(filter(None, (column.cluster, column.version, text.counts(column.counts)))))
            for column in matrix.columns
        ),
        (
            Table("Different", ("promise", *names, "why"), tuple(_told(row) for row in differing), True),
            Table("Bad everywhere", ("promise", *names, "why"), tuple(_told(row) for row in bad), True),
            Table(
                "Capabilities that differ",
                ("capability", *names),
                tuple((row.what, *row.outcomes) for row in matrix.capabilities if not row.alike),
            ),
            Table(
                "All promises",
                ("promise", *names),
                tuple((row.what, *row.outcomes) for row in matrix.promises),
            ),
        ),
    )


def _told(row: Row) -> tuple[str, ...]:
    """The reason is that of the first cluster which did not keep it."""
    reasons = zip(row.outcomes, row.why, strict=True)
    return (row.what, *row.outcomes, next((why for outcome, why in reasons if outcome != Outcome.KEPT and why), ""))
