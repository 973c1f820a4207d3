"""`--baseline`: the run compared with an earlier one, at the end of pytest's output and in files beside the reports."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

from clusterproof import settings
from clusterproof.outcome import Run

from . import diff, document, files, result, terminal, text

NAMES = {"diff.json": "json", "diff.md": "markdown"}
"""Files that are written into the reports' folder, and their formats."""

BASELINE = pytest.StashKey[Run]()
"""The earlier run, read before anything is proven."""
COMPARED = pytest.StashKey[tuple[diff.Comparison, tuple[str, ...]]]()
"""What changed, and one sentence for each file that could not be written."""


def pytest_sessionstart(session: pytest.Session) -> None:
    """UsageError for a baseline that cannot be read, before anything is proven."""
    if settings.SETTINGS not in session.config.stash or hasattr(session.config, "workerinput"):
        return
    chosen = settings.of(session.config)
    problems = [f"--slower={chosen.slower:g} {wrong}"] if (wrong := diff.bad_factor(chosen.slower)) else []
    if chosen.baseline:
        try:
            session.config.stash[BASELINE] = result.read(chosen.baseline)
        except OSError as error:
            problems.append(f"--baseline={chosen.baseline}: {error.strerror}")
        except ValueError as error:
            problems.append(f"--baseline: {error}")
    if problems:
        raise pytest.UsageError("\n".join(problems))


def pytest_clusterproof_finished(config: pytest.Config, run: Run) -> None:
    """Compare the run with the baseline, and write down what changed."""
    baseline = config.stash.get(BASELINE, None)
    if baseline is None:
        return
    chosen = settings.of(config)
    names = (str(chosen.baseline), str(chosen.reports_dir / result.NAME))
    comparison = diff.compare(baseline, run, slower=chosen.slower, files=names)
    config.stash[COMPARED] = comparison, _write(comparison, chosen.reports_dir)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> Generator[None]:
    """A regression fails the session, as a broken promise does; it changes no other exit code."""
    yield
    compared = session.config.stash.get(COMPARED, None)
    # What a run that was interrupted, or could not start, ended with says more.
    if compared and compared[0].regressed and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say what changed, after what the run itself came to; nothing where there is no baseline."""
    if not (compared := config.stash.get(COMPARED, None)):
        return
    comparison, problems = compared
    terminalreporter.section("clusterproof: compared with the baseline")
    width = terminal.width_of(config)
    for line, markup in lines(comparison, problems, width):
        terminalreporter.write_line(line, **markup)


def lines(comparison: diff.Comparison, problems: tuple[str, ...], width: int) -> list[terminal.Line]:
    """The comparison in a few lines, wrapped to a width in columns: the verdict last, next to the prompt."""
    told: list[terminal.Line] = []
    for group, changes in reversed(comparison.changes.items()):
        worse = any(change.regressed for change in changes)
        markup = terminal.RED if worse else terminal.PLAIN
        told += terminal.entry("WORSE" if worse else "changed", f"{diff.title(group)}: {_some(changes)}", width, markup)
    old = comparison.old
    when = f"{old.file}: {old.cluster}, {old.version or 'no version'}, {text.moment(old.started)}"
    told += terminal.entry("baseline", when, width)
    for each in comparison.unknown:
        told += terminal.entry("not compared", each, width, terminal.YELLOW)
    for problem in problems:
        told += terminal.entry("NO REPORT", problem, width, terminal.RED)
    markup = terminal.RED if comparison.regressed else terminal.GREEN
    return [*told, *terminal.entry("verdict", diff.verdict(comparison), width, markup)]


def _some(changes: tuple[diff.Change, ...]) -> str:
    in_order = sorted(changes, key=lambda change: not change.regressed)
    return terminal.some([f"{change.what} ({change.old} → {change.new})" for change in in_order])


def _write(comparison: diff.Comparison, directory: Path) -> tuple[str, ...]:
    problems = []
    for name, kind in NAMES.items():
        content = diff.to_json(comparison) if kind == "json" else document.MAKERS[kind](diff.document(comparison))
        try:
            directory.mkdir(parents=True, exist_ok=True)
            files.replace(directory / name, content)
        except OSError as error:
            problems.append(f"cannot write {directory / name}: {error.strerror}")
    return tuple(problems)
