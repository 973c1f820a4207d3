"""The end of pytest's output."""

from __future__ import annotations

from pathlib import Path

import pytest
from clusterproof.reports import terminal
from clusterproof.reports.writer import Written

from clusterproof.outcome import Outcome, Run

from . import samples


def summary(run: Run, width: int = 80, problems: tuple[str, ...] = ()) -> str:
    directory = Path.cwd() / "reports" / "out"
    written = Written(run, directory, (directory / "result.json", directory / "allure"), problems)
    return "\n".join(line for line, _ in terminal.lines(written, width))


def test_everything_a_reader_needs() -> None:
    assert (
        summary(samples.mixed_run())
        == """\
BROKEN       apps/deployment/rolling_update
             The deployment rolling_update MUST hold.
             rolled out: not within 30 s; 1/3 pods run the new template; last
             seen: web-7c9f ErrImagePull

FLAKY        apps/job/suspend
             The job suspend MUST hold.
             broken at first, kept in a fresh namespace: not within 30 s

ERROR        network/ingress/routing
             The ingress routing MUST hold.
             image agnhost could not be pulled

unsupported  network.loadbalancer: no Service of type LoadBalancer has an
             address (network/service/load_balancer)
skipped      disruptive: needs --disruptive (api/restart)
left behind  ConfigMap cp-1-a/left
measured     time to recover (s): 1.25 (apps/deployment/self_heal)

cluster      Kubernetes v1.37.2, 2 nodes, external
promises     5 kept, 1 broken, 1 flaky, 1 error, 1 unsupported, 1 skipped in
             42.0 s
core         broken      5 kept, 1 broken; apps/deployment/rolling_update is
             broken
networking   partial     1 error, 1 unsupported; network/ingress/routing ended
             in an error
reports      reports/out: result.json  allure"""
    )


def test_a_run_without_trouble_is_short() -> None:
    assert (
        summary(samples.run(samples.result("health/livez")))
        == """\
cluster      Kubernetes v1.37.2, 2 nodes, external
promises     1 kept in 42.0 s
core         conformant  1 kept
reports      reports/out: result.json  allure"""
    )


def test_an_incomplete_run_says_what_was_not_tried() -> None:
    expected = ("health/livez", *(f"apps/job/case_{number}" for number in range(7)))
    said = summary(samples.run(samples.result("health/livez"), expected=expected, complete=False), width=200)

    assert "INCOMPLETE   7 of 8 selected promises not tried: apps/job/case_0, " in said
    assert "apps/job/case_4 and 2 more" in said


def test_an_interrupted_run_without_a_cluster() -> None:
    said = summary(samples.run(cluster=None, complete=False, profiles=()))

    assert "promises     nothing tried in 42.0 s\nINCOMPLETE   it was stopped, or lost a worker process" in said


def test_one_missing_capability_is_one_entry() -> None:
    results = [samples.result(f"network/service/lb_{number}", Outcome.UNSUPPORTED, "no LB") for number in range(7)]
    said = summary(samples.run(*results), width=200)

    assert said.count("no LB") == 1
    assert "network/service/lb_4 and 2 more)" in said


def test_reports_that_could_not_be_written() -> None:
    said = summary(samples.run(), problems=("cannot write json to reports/out: No space left on device",))

    assert "NO REPORT    cannot write json to reports/out: No space left on device" in said


@pytest.mark.parametrize("run", [samples.odd_run(), samples.mixed_run()], ids=["odd", "mixed"])
@pytest.mark.parametrize("width", [80, 120])
def test_lines_fit_and_hold_no_control_characters(run: Run, width: int) -> None:
    for line in summary(run, width).splitlines():
        assert len(line) < width or " " not in line.strip()
        assert line.isprintable() or "\ufffd" in line
        assert "\x1b" not in line
