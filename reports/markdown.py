"""summary.md: the run for people, in GitHub-flavoured Markdown: what needs attention first, everything at the end."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from clusterproof.outcome import ClusterFacts, NodeFact, Outcome, Result, Run

from . import files, text
from .text import markdown as safe

NAME = "summary.md"

# GitHub refuses a job summary of more than 1 MiB; what is cut here is whole in result.json.
_MESSAGE_LIMIT = 4_000

_MARKS = {
    Outcome.KEPT: "✅ kept",
    Outcome.BROKEN: "❌ broken",
    Outcome.FLAKY: "🔁 flaky",
    Outcome.ERROR: "⚠️ error",
    Outcome.UNSUPPORTED: "⬜ unsupported",
    Outcome.SKIPPED: "⏭️ skipped",
}
_YES_NO = {True: "yes", False: "no"}


def write(run: Run, directory: Path) -> Path:
    """Write the run as Markdown."""
    return files.replace(directory / NAME, "\n".join(_lines(text.clean(run))) + "\n")


def _lines(run: Run) -> Iterator[str]:
    yield f"# Clusterproof: {safe(text.heading(run))}"
    yield ""
    yield f"**{text.counts(run.counts)}** in {text.duration(run.seconds)}"
    yield ""
    if said := text.incomplete(run):
        yield "> [!WARNING]"
        yield f"> Incomplete run: {said}."
        yield ""
    if run.profiles:
        rows = [
            (safe(profile.profile), f"**{profile.verdict}**", text.counts(profile.counts), safe(profile.reason))
            for profile in run.profiles
        ]
        yield from _table(("profile", "verdict", "results", "why"), rows)
    yield from _failures(run, Outcome.BROKEN, "Broken promises")
    yield from _failures(run, Outcome.FLAKY, "Flaky: broken, then kept in a fresh namespace")
    yield from _failures(run, Outcome.ERROR, "Errors: nothing was learned")
    yield from _reasons("Unsupported", text.having(run, Outcome.UNSUPPORTED))
    yield from _reasons("Skipped", text.having(run, Outcome.SKIPPED))
    yield from _reasons("Not tried", text.untried(run))
    if run.leaks:
        yield from _section("Left behind")
        yield from (f"- {_code(leak)}" for leak in run.leaks)
        yield ""
    yield from _measurements(run)
    yield from _section("Run")
    yield from _table(("", ""), [(name, safe(value)) for name, value in text.facts(run)])
    if run.cluster:
        yield from _cluster(run.cluster)
    yield from _section("All promises")
    for area, results in text.by_area(run.results).items():
        yield f"### {safe(area)}"
        yield ""
        promises = [(_MARKS[result.outcome], _promise(result), f"{result.seconds:.1f}") for result in results]
        yield from _table(("outcome", "promise", "seconds"), promises)


def _failures(run: Run, outcome: Outcome, title: str) -> Iterator[str]:
    results = text.having(run, outcome)
    if results:
        yield from _section(title)
    for result in results:
        yield f"### {_code(result.id)}"
        yield ""
        yield from (safe(result.promise), "") if result.promise else ()
        yield f"**{safe(text.reason(result))}**"
        yield ""
        if result.message:
            message = text.clip(result.message, _MESSAGE_LIMIT)
            yield from ("<details><summary>details</summary>", "", *_fenced(message), "", "</details>", "")


def _reasons(title: str, results: list[Result]) -> Iterator[str]:
    if results:
        yield from _section(title)
        rows = [
            (safe(reason), "<br>".join(_code(result.id) for result in alike))
            for reason, alike in text.by_reason(results).items()
        ]
        yield from _table(("reason", "promises"), rows)


def _measurements(run: Run) -> Iterator[str]:
    rows = [
        (_code(result.id), safe(name), text.figure(value))
        for result in text.by_id(run.results)
        for name, value in result.measurements.items()
    ]
    if rows:
        yield from _section("Measured")
        yield from _table(("promise", "figure", "value"), rows)


def _cluster(cluster: ClusterFacts) -> Iterator[str]:
    yield from _section("Nodes")
    head = ("node", "kubelet", "system", "kernel", "runtime", "ready", "seen by", "cgroup", "clock ahead of ours (s)")
    yield from _table(head, [tuple(map(safe, _node(node))) for node in cluster.nodes])
    yield from _section("Capabilities")
    capabilities = [
        (safe(fact.name), fact.level, _YES_NO[fact.supported], safe(fact.evidence)) for fact in cluster.capabilities
    ]
    yield from _table(("capability", "level", "supported", "evidence"), capabilities)


def _node(node: NodeFact) -> tuple[str, ...]:
    known = (node.name, node.version, node.os_image, node.kernel, node.runtime, _YES_NO[node.ready])
    offset = "-" if node.clock_offset is None else f"{node.clock_offset:+.2f}"
    return (*known, node.seen_by or "-", node.cgroup or "-", offset)


def _promise(result: Result) -> str:
    where = f" ([Kubernetes]({_url(result.source)}))" if result.source else ""
    return f"{_code(result.id)}<br>{safe(result.promise)}{where}"


def _section(title: str) -> tuple[str, str]:
    return f"## {title}", ""


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    for row in (head, ("---",) * len(head), *rows):
        yield f"| {' | '.join(row)} |"
    yield ""


def _code(words: str) -> str:
    """Text in code style; the pipe, the one character a table reads even there, is escaped."""
    words = text.one_line(words).replace("|", r"\|")
    ticks = "`" * (1 + max(map(len, re.findall("`+", words)), default=0))
    gap = " " if words.startswith("`") or words.endswith("`") else ""
    return f"{ticks}{gap}{words}{gap}{ticks}"


def _fenced(words: str) -> tuple[str, str, str]:
    """A block that no run of backticks in the text can close."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", words)), default=0))
    return f"{fence}text", words, fence


def _url(address: str) -> str:
    return "<" + re.sub(r"[\s<>|]", lambda found: f"%{ord(found[0]):02X}", text.one_line(address)) + ">"
