"""`--baseline` in real pytest runs, of promises about a cluster that is not there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from clusterproof.reports import result

pytest_plugins = ["pytester"]

PROMISES = '''
import os, pytest

@pytest.fixture(scope="session")
def cluster():
    """Nothing asks it anything."""

def test_sun(cluster):
    """The sun MUST rise."""

def test_tide(cluster):
    """The tide MUST turn."""
    if "EBB" in os.environ:
        pytest.skip("the user has no time") if os.environ["EBB"] == "skip" else pytest.fail("it does not turn")
'''


@pytest.fixture
def sky(pytester: pytest.Pytester) -> pytest.Pytester:
    """Promises that have been kept once, with the result as `old.json`."""
    pytester.makepyfile(test_sky=PROMISES)
    ran = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-n", "0")
    assert ran.ret == pytest.ExitCode.OK
    Path("reports/out", result.NAME).rename("old.json")
    assert not list(Path("reports/out").glob("diff.*"))
    return pytester


def prove(sky: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    return sky.runpytest_subprocess("-p", "no:cacheprovider", "--baseline=old.json", *(arguments or ("-n", "0")))


@pytest.mark.parametrize("workers", ["0", "2"])
def test_nothing_worse_passes(sky: pytest.Pytester, workers: str) -> None:
    ran = prove(sky, "-n", workers)

    assert ran.ret == pytest.ExitCode.OK
    ran.stdout.fnmatch_lines(
        ["*= clusterproof: no cluster*", "*= clusterproof: compared with the baseline =*", "verdict *nothing regressed"]
    )
    assert json.loads(Path("reports/out/diff.json").read_text())["regressed"] is False
    assert "**nothing regressed**" in Path("reports/out/diff.md").read_text()


def test_what_is_worse_is_said(sky: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EBB", "fail")
    ran = prove(sky)

    assert ran.ret == pytest.ExitCode.TESTS_FAILED
    ran.stdout.fnmatch_lines(
        ["WORSE        newly broken: sky/tide (kept → broken)", "verdict      regressed: 1 newly broken"]
    )


def test_a_regression_fails_a_run_that_would_have_passed(sky: pytest.Pytester) -> None:
    document = json.loads(Path("old.json").read_text())
    for each in document["results"]:
        each["seconds"] = 1e-9
    Path("old.json").write_text(json.dumps(document))
    sky.makeconftest("from clusterproof.reports import diff; diff.SLOWER_SECONDS = diff.WORSE_SECONDS = 0")

    assert prove(sky, "-n", "0", "--slower=0").ret == pytest.ExitCode.OK
    ran = prove(sky)
    assert ran.ret == pytest.ExitCode.TESTS_FAILED
    ran.stdout.fnmatch_lines(["WORSE        slower: sky/*", "verdict      regressed: 2 slower", "*2 passed*"])


def test_what_is_not_worse_does_not_fail(sky: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EBB", "skip")
    ran = prove(sky)

    assert ran.ret == pytest.ExitCode.OK
    ran.stdout.fnmatch_lines(["changed      newly skipped: sky/tide (kept → skipped)", "verdict *nothing regressed"])


def test_a_bad_baseline_is_refused_before_anything_is_proven(sky: pytest.Pytester) -> None:
    Path("old.json").write_text("{}")
    ran = prove(sky, "-n", "0", "--slower=0.5")

    assert ran.ret == pytest.ExitCode.USAGE_ERROR
    ran.stderr.fnmatch_lines(
        [
            "ERROR: --slower=0.5 must be more than 1, or 0 for never",
            "--baseline: old.json: not a result document: it does not name its schema version",
        ]
    )
    assert not Path("reports/out/diff.json").exists()
    ran.stdout.no_fnmatch_line("*passed*")


def test_files_that_cannot_be_written_cost_no_verdict(sky: pytest.Pytester) -> None:
    Path("reports/out/diff.md").mkdir(parents=True)
    ran = prove(sky)

    assert ran.ret == pytest.ExitCode.OK
    ran.stdout.fnmatch_lines(["NO REPORT    cannot write reports/out/diff.md: Is a directory", "verdict *"])
