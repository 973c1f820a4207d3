"""What an upgrade came to: checks with their outcomes, as text, Markdown and JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .timeline import Seen

KEPT, BROKEN, UNSUPPORTED, SKIPPED = "kept", "broken", "unsupported", "skipped"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that an upgrade must leave as it was, or must bring about."""

    id: str
    """`nodes/version`."""
    outcome: str
    sentences: tuple[str, ...]
    """What was found; for a broken one, what is wrong, of which object, and how it was before."""


@dataclass(slots=True)
class Verdict:
    """All that is known in the end."""

    run: str
    server: str
    before: str
    """Version of the API server when it began."""
    after: str
    started: float
    ended: float
    checks: list[Check]
    seen: list[Seen] = field(default_factory=list)
    cost: dict[str, Any] = field(default_factory=dict)
    """Of the last monitor: requests, requests per second, share of a CPU."""
    told: list[str] = field(default_factory=list)
    """What is neither good nor bad, but should be known."""

    @property
    def broken(self) -> list[Check]:
        return [check for check in self.checks if check.outcome == BROKEN]

    @property
    def sentence(self) -> str:
        """The verdict in one line."""
        way = f"{self.before} to {self.after}" if self.before != self.after else f"{self.after} as before"
        kept = sum(check.outcome == KEPT for check in self.checks)
        if self.broken:
            return f"BROKEN: {way}: {len(self.broken)} of {len(self.checks)} checks failed, {kept} are kept"
        return f"KEPT: {way}: {kept} checks kept, {len(self.checks) - kept} not made"

    def text(self) -> str:
        """For a terminal."""
        lines = [self.sentence, ""]
        for check in sorted(self.checks, key=lambda each: each.outcome != BROKEN):
            first, *rest = check.sentences or ("",)
            lines.append(f"{check.outcome:<12} {check.id:<22} {first}")
            lines += [f"{'':<36}{sentence}" for sentence in rest]
        if self.seen:
            width = max(len(seen.vantage) for seen in self.seen)
            head = f"{'seen from':<{width}} {'probe':<32} {'requests':>8} {'failed':>7} {'down':>8} {'longest':>8}"
            lines += ["", f"{head} {'not observed':>13}", *(_row(seen, width) for seen in self.seen)]
        if self.cost:
            lines += [
                "",
                f"the observer made {self.cost['rate']:.1f} requests/s with {self.cost['cpu']:.1%} of one CPU",
            ]
        lines += [f"note: {each}" for each in self.told]
        return "\n".join(lines) + "\n"

    def markdown(self) -> str:
        """For people who were not there."""
        lines = [f"# Upgrade: {_plain(self.sentence)}", "", f"Cluster {self.server}, run {self.run}.", ""]
        lines += ["| outcome | check | found |", "|---|---|---|"]
        for check in sorted(self.checks, key=lambda each: each.outcome != BROKEN):
            found = "<br>".join(_plain(each) for each in check.sentences)
            lines.append(f"| {check.outcome} | {check.id} | {found} |")
        if self.seen:
            lines += ["", "| seen from | probe | requests | failed | down | longest gap | not observed |"]
            lines.append("|---|---|---:|---:|---:|---:|---:|")
            for seen in self.seen:
                figures = f"{seen.disruption:.1f} s | {seen.longest_gap:.1f} s | {seen.unobserved:.1f} s"
                lines.append(f"| {seen.vantage} | {seen.probe} | {seen.requests} | {seen.failures} | {figures} |")
        lines += ["", *(f"- {_plain(each)}" for each in self.told)]
        return "\n".join(lines).rstrip() + "\n"

    def json(self) -> str:
        """For programs."""
        probes = [
            {
                "vantage": seen.vantage,
                "probe": seen.probe,
                "requests": seen.requests,
                "failures": seen.failures,
                "disruption_seconds": round(seen.disruption, 3),
                "longest_gap_seconds": round(seen.longest_gap, 3),
                "observed_seconds": round(seen.observed, 3),
                "unobserved_seconds": round(seen.unobserved, 3),
                "outages": [asdict(each) for each in seen.outages],
                "observers_own_outages": [asdict(each) for each in seen.excused],
            }
            for seen in self.seen
        ]
        whole = {
            "format": 1,
            "verdict": BROKEN if self.broken else KEPT,
            "sentence": self.sentence,
            "run": self.run,
            "server": self.server,
            "before": self.before,
            "after": self.after,
            "started": self.started,
            "ended": self.ended,
            "checks": [asdict(check) for check in self.checks],
            "probes": probes,
            "monitor": self.cost,
            "notes": self.told,
        }
        return json.dumps(whole, indent=1) + "\n"

    def write(self, folder: Path) -> None:
        """Leave all three in a folder."""
        for suffix, content in (("txt", self.text()), ("md", self.markdown()), ("json", self.json())):
            (folder / f"verdict.{suffix}").write_text(content)


def check(id: str, problems: Iterable[str], kept: str, *, most: int = 20) -> Check:
    """A check that is broken by any problem; at most so many of them are told one by one."""
    found = list(problems)
    if not found:
        return Check(id, KEPT, (kept,))
    more = [f"... and {len(found) - most} more"] if len(found) > most else []
    return Check(id, BROKEN, (*found[:most], *more))


def _row(seen: Seen, width: int) -> str:
    return (
        f"{seen.vantage:<{width}} {seen.probe:<32} {seen.requests:>8} {seen.failures:>7} "
        f"{seen.disruption:>6.1f} s {seen.longest_gap:>6.1f} s {seen.unobserved:>11.1f} s"
    )


def _plain(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
