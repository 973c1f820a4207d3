"""`clusterproof report`: the reports of a run made again from its result.json alone."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from clusterproof.cli import DONE, FAILED
from clusterproof.settings import names

from . import allure, result, writer

SITE = "allure-report"
_ALLURE = "allure"
_PATIENCE = 300.0
"""Seconds that the Allure site may take."""


class Report:
    """Makes the page, Markdown, JUnit and the Allure results and site from a result document."""

    help = "make the reports of a run again from its result.json"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("result", type=Path, metavar="RESULT.json", help="the result document of a run")
        parser.add_argument(
            "--output", type=Path, metavar="DIR", help="where the reports go (default: the folder of the document)"
        )
        made = tuple(name for name in writer.FORMATS if name != "json")
        parser.add_argument(
            "--formats", type=names, default=made, metavar="NAMES", help=f"formats to write (default: {','.join(made)})"
        )

    def run(self, args: argparse.Namespace) -> int:
        """Write them; UsageError for a document or a format that there is not, before anything is written."""
        problems = []
        if unknown := writer.unknown(args.formats):
            problems.append(f"--formats: {unknown}")
        try:
            run = result.read(args.result)
        except OSError as error:
            problems.append(f"{args.result}: cannot be read: {error.strerror}")
        except ValueError as error:
            problems.append(str(error))
        if problems:
            raise pytest.UsageError("; ".join(problems))
        written = writer.write(run, args.output or args.result.parent, args.formats)
        for path in written.paths:
            print(f"wrote {path}")
        problems = list(written.problems)
        if written.directory / allure.NAME in written.paths:
            told, problem = _site(written.directory)
            print(told or problem, file=sys.stderr if problem else sys.stdout)
            problems += filter(None, [problem])
        for sentence in written.problems:
            print(f"clusterproof: {sentence}", file=sys.stderr)
        return FAILED if problems else DONE


report = Report()


def _site(directory: Path) -> tuple[str, str]:
    """Make the Allure site in place of an earlier one: what became of it, and what went wrong, as sentences."""
    results, site = directory / allure.NAME, directory / SITE
    if not (program := shutil.which(_ALLURE)):
        return f"no Allure site: there is no program `{_ALLURE}` on the PATH; its results are in {results}", ""
    try:
        with tempfile.TemporaryDirectory(prefix=f".{SITE}.", dir=directory) as folder:
            made, before = Path(folder, "made"), Path(folder, "before")
            command = [program, "generate", str(results), "--output", str(made), *_settings(program, results)]
            done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE, stdin=subprocess.DEVNULL)
            if done.returncode or not (made / "index.html").exists():
                said = (done.stderr.strip() or done.stdout.strip() or "nothing").splitlines()[-1]
                return "", f"no Allure site: `{_ALLURE} generate` ended with {done.returncode} and said: {said}"
            if site.exists():
                site.rename(before)
            made.rename(site)
    except (OSError, subprocess.TimeoutExpired) as error:
        return "", f"no Allure site: {getattr(error, 'strerror', '') or error}"
    return f"wrote {site}", ""


def _settings(program: str, results: Path) -> list[str]:
    """How Allure 3 is told the categories; Allure 2 finds them among the results, and has no such option."""
    said = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=_PATIENCE).stdout
    return [] if said.strip().startswith("2.") else ["--config", str(results / "allurerc.json")]
