"""What was noticed of each breakage, as a table for the terminal and as a page of the documentation."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from clusterproof.outcome import Outcome, Result

from .registry import Breakage

SIGNS = {Outcome.BROKEN: "✗", Outcome.KEPT: "·"}
"""How an outcome is shown; all others by `?`."""

INTRODUCTION = (
    "A promise is worth something when it is broken on a cluster on which exactly that is broken. Each of the clusters",
    "below is sound but for one thing. `tox -e broken` breaks them one after the other and checks that the promises",
    "named here are broken, that their reasons point at the fault, and that others are kept. This page was written by",
    "`pytest tests/broken --write-detection`.",
)


@dataclass(slots=True)
class Record:
    """The results of all breakages that were tried."""

    entries: list[tuple[Breakage, list[Result]]] = field(default_factory=list)

    def add(self, broken: Breakage, results: list[Result]) -> None:
        """Note what the promises found on the broken cluster."""
        self.entries.append((broken, results))

    def table(self) -> Iterator[str]:
        """Promises by breakages: noticed (✗), kept (·), neither (?)."""
        width = max(len(promise) for promise in self._promises())
        for number, (broken, _) in enumerate(self.entries, 1):
            yield f"{number:4} {broken.name}: {broken.meaning}"
        yield ""
        yield " " * width + "".join(f"{number:3}" for number in range(1, len(self.entries) + 1))
        for promise in self._promises():
            yield f"{promise:{width}}" + "".join(f"  {sign}" for sign in self._signs(promise))

    def page(self) -> str:
        """The same in Markdown, with what the promises said."""
        return "\n".join(self._lines()) + "\n"

    def _lines(self) -> Iterator[str]:
        yield "# What is noticed"
        yield ""
        yield from INTRODUCTION
        yield ""
        yield "| | broken cluster | noticed by | which says |"
        yield "|---|---|---|---|"
        for number, (broken, results) in enumerate(self.entries, 1):
            for row, (id, reason) in enumerate(_noticed(results)):
                first = f"{number} | **{broken.name}**: {broken.meaning}" if row == 0 else " | "
                yield f"| {first} | {id} | {reason} |"
        yield ""
        yield "## Promise by breakage"
        yield ""
        yield "✗ noticed, · kept, as it has nothing to do with it; blank: not tried."
        yield ""
        yield "| promise | " + " | ".join(str(number) for number in range(1, len(self.entries) + 1)) + " |"
        yield "|---|" + "---|" * len(self.entries)
        for promise in self._promises():
            yield f"| {promise} | " + " | ".join(self._signs(promise)) + " |"

    def _promises(self) -> list[str]:
        return sorted({result.id.partition("[")[0] for _, results in self.entries for result in results})

    def _signs(self, promise: str) -> list[str]:
        return [_sign([each for each in found if each.id.partition("[")[0] == promise]) for _, found in self.entries]


def _sign(cases: list[Result]) -> str:
    """One sign for all cases of a promise: one that notices is enough."""
    outcomes = {result.outcome for result in cases}
    if not outcomes:
        return " "
    return SIGNS.get(Outcome.BROKEN if Outcome.BROKEN in outcomes else min(outcomes), "?")


def _noticed(results: list[Result]) -> Iterator[tuple[str, str]]:
    for result in sorted(results, key=lambda each: each.id):
        if result.outcome is Outcome.BROKEN:
            yield result.id, _readable(result.reason)


def _readable(reason: str) -> str:
    """A reason without what differs from run to run, fit for a cell of a table."""
    text = re.sub(r"\bcp-[0-9a-f]{5}-([a-z0-9-]*?)-(?:w\d+|m\w*)-\d+", r"\1", reason)
    return text.replace("|", "\\|").replace("<", "&lt;")
