"""Which report formats there are, and the hook that writes them when a run has finished."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

import pytest

from clusterproof import settings
from clusterproof.outcome import Run

FORMATS = {"json": "result", "junit": "junit", "markdown": "markdown", "allure": "allure", "html": "html"}
"""Report formats by the name users type, and the module of this room that writes each. A format is one entry here."""


class Format(Protocol):
    """What a format's module has."""

    def write(self, run: Run, directory: Path) -> Path:
        """Write a run into a folder, which exists, and return what was written.

        Files are put in place whole; OSError, when that fails, leaves those of an earlier run.
        """


@dataclass(frozen=True, slots=True)
class Written:
    """What became of the reports of a run."""

    run: Run
    directory: Path
    paths: tuple[Path, ...]
    """What was written: files, and the folder of Allure results."""
    problems: tuple[str, ...]
    """One sentence for each reason why something was not written."""


WRITTEN = pytest.StashKey[Written]()
"""Where the session keeps it for the terminal summary."""


def pytest_clusterproof_finished(config: pytest.Config, run: Run) -> None:
    """Write the reports that the user chose; called once, in the process that the user started."""
    chosen = settings.of(config)
    config.stash[WRITTEN] = write(run, chosen.reports_dir, chosen.report_formats)


def write(run: Run, directory: Path, formats: Iterable[str]) -> Written:
    """Write a run in the given formats; one that fails costs none of the others."""
    chosen = tuple(dict.fromkeys(formats))
    paths: list[Path] = []
    failed: dict[str, list[str]] = {}
    for name in filter(FORMATS.__contains__, chosen):
        try:
            directory.mkdir(parents=True, exist_ok=True)
            # Imported only now: every pytest run in this environment loads the plugin, few write reports.
            module = cast(Format, importlib.import_module(f".{FORMATS[name]}", __package__))
            paths.append(module.write(run, directory))
        except OSError as error:
            failed.setdefault(error.strerror or str(error), []).append(name)
        except Exception as error:
            # A defect of ours, or of a library; what was proven has to be on disk all the same.
            failed.setdefault(f"{type(error).__name__}: {error}", []).append(name)
    problems = [f"cannot write {', '.join(names)} to {directory}: {reason}" for reason, names in failed.items()]
    problems += filter(None, [unknown(chosen)])
    return Written(run, directory, tuple(paths), tuple(problems))


def unknown(formats: Iterable[str]) -> str:
    """What is wrong with a choice of formats, or nothing."""
    names = ", ".join(name for name in formats if name not in FORMATS)
    return f"no report format {names}; there are {', '.join(FORMATS)}" if names else ""
