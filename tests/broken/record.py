"""What was noticed of each breakage, as a table for the terminal and as a page of the documentation."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from clusterproof.outcome import Outcome, Result

from .registry import ALL

SIGNS = {Outcome.BROKEN: "✗", Outcome.KEPT: "·"}
"""How an outcome is shown; all others by `?`."""

INTRODUCTION = (
    "A promise is worth something when it is broken on a cluster on which exactly that is broken. Each of the clusters",
    "below is sound but for one thing. `tox run -e broken` breaks them one after the other and checks that the",
    "promises named here are broken, that their reasons point at the fault, and that others are kept. This page was",
    "written by `pytest tests/broken --write-detection`.",
)


@dataclass(frozen=True, slots=True)
class Finding:
    """What one case of a promise found on a broken cluster."""

    id: str
    outcome: Outcome
    reason: str

    @classmethod
    def of(cls, id: str, outcome: str, reason: str) -> Finding:
        """As it is kept in a file."""
        return cls(id, Outcome(outcome), reason)

    @property
    def promise(self) -> str:
        """The id without its case."""
        return self.id.partition("[")[0]


@dataclass(slots=True)
class Record:
    """What the promises found, by the names of the breakages."""

    found: dict[str, list[Finding]] = field(default_factory=dict)

    def add(self, broken: str, results: Iterable[Result]) -> None:
        """Note what the promises found on the broken cluster."""
        seen = [Finding(each.id, each.outcome, _readable(each.reason)) for each in results]
        self.found[broken] = sorted(seen, key=lambda each: each.id)

    def kept_in(self, path: Path) -> Record:
        """This, and what the file tells of breakages that were not tried now; the file then tells of both."""
        before = json.loads(path.read_text()) if path.exists() else {}
        known = {name: [Finding.of(**each) for each in found] for name, found in before.items()} | self.found
        whole = Record({name: known[name] for name in ALL if name in known})
        raw = {name: [asdict(each) for each in found] for name, found in whole.found.items()}
        path.write_text(json.dumps(raw, indent=1, ensure_ascii=False) + "\n")
        return whole

    def table(self) -> Iterator[str]:
        """Promises by breakages: noticed (✗), kept (·), neither (?)."""
        width = max(len(promise) for promise in self._promises())
        for number, name in enumerate(self.found, 1):
            yield f"{number:4} {name}: {ALL[name].meaning}"
        yield ""
        yield " " * width + "".join(f"{number:4}" for number in range(1, len(self.found) + 1))
        for promise in self._promises():
            yield f"{promise:{width}}" + "".join(f"   {sign}" for sign in self._signs(promise))

    def page(self) -> str:
        """What was noticed, in Markdown, with what the promises said."""
        return "\n".join(self._lines()) + "\n"

    def _lines(self) -> Iterator[str]:
        yield "# What is noticed"
        yield ""
        yield from INTRODUCTION
        yield ""
        yield "| | broken cluster | noticed by | which says |"
        yield "|---|---|---|---|"
        for number, (name, found) in enumerate(self.found.items(), 1):
            noticed = [each for each in found if each.outcome is Outcome.BROKEN]
            for row, each in enumerate(noticed):
                first = f"{number} | **{name}**: {ALL[name].meaning}" if row == 0 else " | "
                yield f"| {first} | {each.id} | {_cell(each.reason)} |"
        yield ""
        yield "## Breakages by promise"
        yield ""
        yield "| promise | noticed | was kept, as it has nothing to do with it |"
        yield "|---|---|---|"
        for promise in self._promises():
            signs = list(self._signs(promise))
            noticed, kept = (_numbers(signs, SIGNS[outcome]) for outcome in (Outcome.BROKEN, Outcome.KEPT))
            yield f"| {promise} | {noticed} | {kept} |"

    def _promises(self) -> list[str]:
        return sorted({each.promise for found in self.found.values() for each in found})

    def _signs(self, promise: str) -> Iterator[str]:
        for found in self.found.values():
            yield _sign({each.outcome for each in found if each.promise == promise})


def _sign(outcomes: set[Outcome]) -> str:
    """One sign for all cases of a promise: one that notices is enough."""
    if not outcomes:
        return " "
    return SIGNS.get(Outcome.BROKEN if Outcome.BROKEN in outcomes else min(outcomes), "?")


def _numbers(signs: list[str], sign: str) -> str:
    return ", ".join(str(number) for number, each in enumerate(signs, 1) if each == sign)


def _readable(reason: str) -> str:
    """A reason without what differs from run to run."""
    return re.sub(r"\bcp-[0-9a-f]{5,8}-([a-z0-9-]*?)-(?:w\d+|m\w*)-\d+", r"\1", reason)


def _cell(text: str) -> str:
    """Fit for a cell of a table."""
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
