"""Proves a broken promise once more, in a fresh namespace: what holds then is flaky, and never counts as kept."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from _pytest.runner import runtestprotocol  # what pytest's own loop and pytest-xdist run; there is no public name

from clusterproof import settings
from clusterproof.outcome import Outcome, Result
from clusterproof.running import journal, proving

FLAKY = "clusterproof_flaky"
"""Attribute of the reports of a flaky promise; it travels from the workers to the controller."""


def prove(item: pytest.Item, nextitem: pytest.Item | None) -> list[pytest.TestReport]:
    """Run a test, a broken promise twice if the user wants that; the reports, which are still to be logged."""
    reports = runtestprotocol(item, log=False, nextitem=nextitem)
    first = _result(reports)
    if first is None or first.outcome is not Outcome.BROKEN or not settings.of(item.config).retry_broken:
        return reports
    proving.begin(item)
    again = runtestprotocol(item, log=False, nextitem=nextitem)
    second = _result(again)
    assert second is not None
    result = judge(first, second)
    if result.outcome is Outcome.FLAKY:
        reports = again
        for report in reports:
            setattr(report, FLAKY, True)
    setattr(reports[-1], proving.CARRIED, journal.dumps(result))
    return reports


def judge(first: Result, second: Result) -> Result:
    """What is known about a promise that was broken at first: the evidence is always that of the first try."""
    flaky = second.outcome is Outcome.KEPT
    told = f"proven once more in a fresh namespace: {second.outcome}"
    return replace(
        first,
        outcome=Outcome.FLAKY if flaky else Outcome.BROKEN,
        reason=f"broken at first, kept in a fresh namespace: {first.reason}" if flaky else first.reason,
        message=f"{first.message}\n\n{told}{f': {second.reason}' if second.reason else ''}",
        seconds=second.started + second.seconds - first.started,
        namespaces=first.namespaces + second.namespaces,
        steps=first.steps + second.steps,
        measurements=second.measurements if flaky else first.measurements,
        availability=first.availability + second.availability,
        rights=second.rights if flaky else first.rights,
        requests=first.requests + second.requests,
        tries=2,
    )


class Retrying:
    """Hooks of every process, where the user wants broken promises proven once more."""

    @pytest.hookimpl
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
        """What pytest's own loop does, with `prove` in the middle; forked processes have a loop of their own."""
        if not proving.is_promise(item):
            return None
        hook, where = item.ihook, {"nodeid": item.nodeid, "location": item.location}
        hook.pytest_runtest_logstart(**where)
        for report in prove(item, nextitem):
            hook.pytest_runtest_logreport(report=report)
        hook.pytest_runtest_logfinish(**where)
        return True

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(self, report: pytest.TestReport) -> tuple[str, str, Any] | None:
        """Flaky is a category of its own in pytest's output as well."""
        if report.when == "call" and getattr(report, FLAKY, False):
            return "flaky", "f", ("FLAKY", {"yellow": True})
        return None


def _result(reports: list[pytest.TestReport]) -> Result | None:
    """None for a test that is no promise."""
    carried = getattr(reports[-1], proving.CARRIED, None)
    return journal.loads(carried) if carried else None
