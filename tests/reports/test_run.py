"""Reports of real pytest runs, of promises about a cluster that is not there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from clusterproof.reports import result, text
from junitparser import JUnitXml

from clusterproof import eventually
from clusterproof.outcome import Outcome, Run

pytest_plugins = ["pytester"]

PROMISES = '''
"""Promises of every outcome."""
import os, pytest, time
from clusterproof import SurroundingsError

@pytest.fixture(scope="session")
def cluster():
    """Nothing asks it anything."""

def test_kept(cluster):
    """The sun MUST rise."""

def test_broken(cluster):
    """The moon MUST shine."""
    assert False, "it does not shine"

def test_error(cluster):
    """The stars MUST be seen."""
    raise SurroundingsError("clouds")

def test_skipped(cluster):
    """The tide MUST turn."""
    pytest.skip("the user has no time")

@pytest.mark.parametrize("case", ["first", "second"])
def test_cases(cluster, case):
    """The wind MUST blow."""
'''


@pytest.fixture
def promises(pytester: pytest.Pytester) -> pytest.Pytester:
    """A folder with a promise of every outcome that needs no cluster."""
    pytester.makepyfile(test_sky=PROMISES)
    return pytester


def prove(pytester: pytest.Pytester, *arguments: str) -> tuple[pytest.RunResult, Run]:
    """What pytest printed, and what result.json holds."""
    ran = pytester.runpytest_subprocess("-p", "no:cacheprovider", *arguments)
    return ran, result.read(pytester.path / "reports" / "out" / "result.json")


@pytest.mark.parametrize("workers", ["0", "2"])
def test_reports_hold_every_outcome(promises: pytest.Pytester, workers: str) -> None:
    ran, run = prove(promises, "-n", workers)

    assert ran.ret == pytest.ExitCode.TESTS_FAILED
    assert run.complete
    assert {each.id.rpartition("/")[2]: each.outcome for each in run.results} == {
        "kept": Outcome.KEPT,
        "broken": Outcome.BROKEN,
        "error": Outcome.ERROR,
        "skipped": Outcome.SKIPPED,
        "cases[first]": Outcome.KEPT,
        "cases[second]": Outcome.KEPT,
    }
    out = promises.path / "reports" / "out"
    assert {path.name for path in out.iterdir()} >= {"result.json", "junit.xml", "summary.md", "allure"}
    assert len(list((out / "allure").glob("*-result.json"))) == 6
    document = JUnitXml.fromfile(str(out / "junit.xml"))
    assert (document.tests, document.failures, document.errors) == (6, 1, 1)
    ran.stdout.fnmatch_lines(
        [
            "*= clusterproof: no cluster was reached =*",
            "BROKEN *broken",
            " *The moon MUST shine.",
            " *it does not shine*",
            "ERROR *error",
            " *clouds",
            "skipped *the user has no time (*skipped)",
            "promises     3 kept, 1 broken, 1 error, 1 skipped in *",
            "reports      reports/out: result.json  junit.xml  summary.md  allure",
            " *report.html",
        ]
    )


def test_a_run_that_stops_at_the_first_failure_says_so(promises: pytest.Pytester) -> None:
    ran, run = prove(promises, "-x", "-n", "0")

    assert not run.complete
    assert len(run.results) == 2
    ran.stdout.fnmatch_lines(["INCOMPLETE   4 of 6 selected promises not tried: *"])
    assert "> Incomplete run: 4 of 6" in Path("reports/out/summary.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("workers", ["0", "2"])
def test_what_was_proven_before_ctrl_c_is_written(promises: pytest.Pytester, workers: str) -> None:
    promises.makepyfile(
        test_wind="""
        import pathlib, pytest, threading
        @pytest.fixture(scope="session")
        def cluster():
            "Nothing asks it anything."
        def test_endless(cluster):
            "The user MUST wait."
            pathlib.Path("endless").touch()
            threading.Event().wait(60)
        """
    )
    command = [sys.executable, "-m", "pytest", "-n", workers]
    with promises.popen(command, stdin=subprocess.DEVNULL, start_new_session=True) as running:
        eventually(Path("endless").exists, lambda there: None if there else "not begun", within=30)
        # As a terminal does it: to every process at once.
        os.killpg(running.pid, signal.SIGINT)
        output = running.communicate(timeout=30)[0].decode()
    run = result.read(Path("reports/out/result.json"))

    assert running.returncode == pytest.ExitCode.INTERRUPTED
    assert not run.complete
    assert run.results
    assert "wind/endless" in {each.id for each in text.untried(run)}
    assert f"INCOMPLETE   {len(text.untried(run))} of 7 selected promises not tried: " in output


def test_a_crashed_worker_is_an_error(promises: pytest.Pytester) -> None:
    promises.makepyfile(
        test_wind="""
        import os, pytest
        @pytest.fixture(scope="session")
        def cluster():
            "Nothing asks it anything."
        def test_crash(cluster):
            "The worker MUST live."
            os._exit(3)
    """
    )
    ran, run = prove(promises, "-n", "2")

    assert not run.complete
    (crash,) = (each for each in run.results if each.id.endswith("/crash"))
    assert crash.outcome is Outcome.ERROR
    assert len(run.results) == 7
    ran.stdout.fnmatch_lines(["ERROR *crash", "INCOMPLETE *"])


def test_reports_that_cannot_be_written_cost_no_outcome(promises: pytest.Pytester) -> None:
    Path("out").mkdir()
    Path("out/summary.md").mkdir()
    ran = promises.runpytest_subprocess("-n", "0", "--reports-dir=out")

    assert ran.ret == pytest.ExitCode.TESTS_FAILED
    ran.stdout.fnmatch_lines(
        ["reports      out: result.json  junit.xml  allure  report.html", "NO REPORT    cannot write markdown to out*"]
    )


def test_an_unknown_format_is_named(promises: pytest.Pytester) -> None:
    ran = promises.runpytest_subprocess("-n", "0", "--report-formats=json,pdf")

    assert ran.ret == pytest.ExitCode.USAGE_ERROR
    ran.stderr.fnmatch_lines(
        ["ERROR: --report-formats: no report format pdf; there are json, junit, markdown, allure, html"]
    )


def test_nothing_is_said_or_written_without_promises(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_plain(): pass")
    ran = pytester.runpytest_subprocess("-n", "0")

    assert ran.ret == pytest.ExitCode.OK
    ran.stdout.no_fnmatch_line("*clusterproof:*")
    assert not (pytester.path / "reports").exists()
