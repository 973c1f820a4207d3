"""The end of pytest's output: what is not kept and why, the verdicts, and where the reports are."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from clusterproof.outcome import Outcome, Run, Verdict

from . import text
from .writer import WRITTEN, Written

Line = tuple[str, dict[str, bool]]
"""A line and how pytest's terminal writer marks it up."""

_LABEL = 13
_WIDEST = 120
_SHOWN = 5

RED = {"red": True}
YELLOW = {"yellow": True}
GREEN = {"green": True}
PLAIN: dict[str, bool] = {}
_BLANK: Line = ("", PLAIN)
_VERDICTS = {Verdict.CONFORMANT: GREEN, Verdict.BROKEN: RED, Verdict.PARTIAL: YELLOW}


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say what the run came to; nothing where no promise was tried."""
    if not (written := config.stash.get(WRITTEN, None)):
        return
    terminalreporter.section(f"clusterproof: {text.clean(text.heading(written.run))}")
    for line, markup in lines(written, width_of(config)):
        terminalreporter.write_line(line, **markup)


def width_of(config: pytest.Config) -> int:
    """Columns to wrap to."""
    return min(config.get_terminal_writer().fullwidth, _WIDEST)


def lines(written: Written, width: int) -> Iterator[Line]:
    """The summary, wrapped to a width in columns: details first, so that the verdicts end next to the prompt."""
    run = text.clean(written.run)
    details = [
        *_failures(run, Outcome.BROKEN, width),
        *_failures(run, Outcome.FLAKY, width),
        *_failures(run, Outcome.ERROR, width),
        *_reasons(run, Outcome.UNSUPPORTED, width),
        *_reasons(run, Outcome.SKIPPED, width),
        *entry("left behind", some(run.leaks), width, YELLOW),
        *entry("measured", some(_figures(run)), width),
    ]
    yield from details
    if details and details[-1] != _BLANK:
        yield _BLANK
    yield from _verdicts(run, width)
    if said := text.incomplete(run):
        missing = some([result.id for result in text.untried(run)])
        yield from entry("INCOMPLETE", f"{said}: {missing}" if missing else said, width, YELLOW)
    if written.paths:
        names = "  ".join(path.name for path in written.paths)
        yield from entry("reports", f"{_relative(written.directory)}: {names}", width)
    for problem in written.problems:
        yield from entry("NO REPORT", problem, width, RED)


def _failures(run: Run, outcome: Outcome, width: int) -> Iterator[Line]:
    for result in text.having(run, outcome):
        yield from entry(outcome.upper(), result.id, width, {**RED, "bold": True})
        yield from entry("", result.promise, width)
        yield from entry("", text.reason(result), width, RED)
        yield _BLANK


def _reasons(run: Run, outcome: Outcome, width: int) -> Iterator[Line]:
    for reason, alike in text.by_reason(text.having(run, outcome)).items():
        yield from entry(outcome, f"{reason} ({some([result.id for result in alike])})", width, YELLOW)


def _figures(run: Run) -> list[str]:
    return [
        f"{name}: {text.figure(value)} ({result.id})"
        for result in text.by_id(run.results)
        for name, value in result.measurements.items()
    ]


def _verdicts(run: Run, width: int) -> Iterator[Line]:
    if cluster := run.cluster:
        nodes = text.plural(len(cluster.nodes), "node")
        yield from entry("cluster", f"Kubernetes {cluster.version}, {nodes}, {cluster.provider}", width)
    yield from entry("promises", f"{text.counts(run.counts)} in {text.duration(run.seconds)}", width)
    for profile in run.profiles:
        # The reason of a conformant profile is that everything is kept, which its counts say.
        why = f"; {profile.reason}" if profile.reason and profile.verdict is not Verdict.CONFORMANT else ""
        told = f"{profile.verdict:10}  {text.counts(profile.counts)}{why}"
        yield from entry(profile.profile, told, width, _VERDICTS[profile.verdict])


def entry(label: str, words: str, width: int, markup: dict[str, bool] = PLAIN) -> Iterator[Line]:
    """Words beside a label, wrapped under their own beginning; nothing where there are no words."""
    wrapped = textwrap.wrap(
        words,
        width - 1,
        initial_indent=f"{text.one_line(label):{_LABEL - 1}} ",
        subsequent_indent=" " * _LABEL,
        # Ids and addresses are for copying.
        break_long_words=False,
        break_on_hyphens=False,
    )
    for line in wrapped:
        yield line, markup


def some(words: Sequence[str]) -> str:
    """The first few, and how many there are besides."""
    rest = len(words) - _SHOWN
    return ", ".join(words[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def _relative(directory: Path) -> str:
    """The folder as seen from where the user stands, where that is shorter."""
    absolute = directory.absolute()
    return str(absolute.relative_to(Path.cwd())) if absolute.is_relative_to(Path.cwd()) else str(absolute)
