"""The timeline of an upgrade: which answers make which intervals, and whose outage it was."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from clusterproof.upgrade import budget
from clusterproof.upgrade.timeline import (
    FAILING,
    GOOD,
    OBSERVER,
    UNOBSERVED,
    Interval,
    Outage,
    Recorder,
    Seen,
    Timeline,
    account,
)
from clusterproof.upgrade.vantage import parse

READ = "api read, new connections"


@pytest.fixture
def timeline(tmp_path: Path) -> Timeline:
    return Timeline(tmp_path / "timeline.jsonl")


def told(timeline: Timeline) -> list[tuple[float, float, str, int, int]]:
    return [(each.start, each.end, each.state, each.requests, each.failures) for each in timeline.intervals()]


def answered(recorder: Recorder, start: float, end: float, step: float = 0.5, error: str = "") -> None:
    """Requests one after the other, each of which takes a tenth of a second."""
    while start < end:
        recorder.note(start, start + 0.1, error)
        start += step


def test_an_outage_lasts_from_the_first_failed_request_to_the_next_good_answer(timeline: Timeline) -> None:
    recorder = Recorder(timeline, READ)
    answered(recorder, 100, 102)
    answered(recorder, 102, 103, error="could not connect")
    answered(recorder, 103, 104)
    recorder.flush()

    assert told(timeline) == [(100, 102, GOOD, 4, 0), (102, 103.1, FAILING, 2, 2), (103.1, 103.6, GOOD, 2, 0)]
    (seen,) = account(timeline.intervals())
    assert (seen.requests, seen.failures) == (8, 2)
    assert seen.outages == [Outage(102, 103.1, "could not connect")]


def test_what_lasts_is_written_piece_by_piece_and_counts_as_one(timeline: Timeline) -> None:
    recorder = Recorder(timeline, READ)
    answered(recorder, 100, 101)
    answered(recorder, 101, 121, error="no answer in time")
    assert len(told(timeline)) == 4, "at most 5 s are lost with a monitor that is killed"
    answered(recorder, 121, 122)
    recorder.flush()

    (seen,) = account(timeline.intervals())
    assert seen.outages == [Outage(101, 121.1, "no answer in time")]
    assert seen.longest_gap == pytest.approx(20.1)
    assert seen.requests == 44


def test_nobody_looked_is_no_outage(timeline: Timeline) -> None:
    first = Recorder(timeline, READ)
    answered(first, 100, 106)
    # It is killed here, and another one goes on.
    second = Recorder(timeline, READ, seen_until=max(each.end for each in timeline.intervals()))
    answered(second, 120, 121, error="could not connect")
    answered(second, 121, 122)
    answered(second, 130, 131)  # it was held up
    second.flush()

    (seen,) = account(timeline.intervals())
    assert seen.outages == [Outage(120, 121.1, "could not connect")]
    gaps = [(each.start, each.end) for each in timeline.intervals() if each.state == UNOBSERVED]
    assert gaps == [(105.1, 120), (121.6, 130)]
    assert seen.unobserved == pytest.approx(14.9 + 8.4)


def test_a_line_that_was_cut_off_spoils_no_other(timeline: Timeline) -> None:
    timeline.event("started", 1.0)
    with timeline.path.open("a") as file:
        file.write('{"vantage": "obser')
    timeline.event("started", 2.0)

    assert [each["at"] for each in timeline.events("started")] == [1.0, 2.0]
    assert len(timeline.path.read_text().splitlines()) == 3


def interval(vantage: str, probe: str, start: float, end: float, error: str = "") -> Interval:
    return Interval(vantage, probe, start, end, FAILING if error else GOOD, 10, 10 if error else 0, error)


@pytest.mark.parametrize(
    ("inside", "error", "excused"),
    [
        ([interval("a pod on n1", "api, new connections", 90, 130)], "no answer in time", True),
        ([interval("a pod on n1", "api, new connections", 90, 130)], "answered 503", False),
        ([interval("a pod on n1", "dns, by the Service's name", 90, 130)], "no answer in time", False),
        ([interval("a pod on n1", "api, new connections", 90, 103)], "no answer in time", False),
        (
            [
                interval("a pod on n1", "api, new connections", 90, 104),
                interval("a pod on n1", "api, new connections", 104, 106, "could not connect"),
                interval("a pod on n1", "api, new connections", 106, 130),
            ],
            "no answer in time",
            False,
        ),
        ([], "no answer in time", False),
    ],
    ids=["answered inside", "answered badly outside", "asked else", "not looked", "failing inside", "nobody inside"],
)
def test_an_outage_is_the_observers_own_when_pods_were_answered(
    inside: list[Interval], error: str, excused: bool
) -> None:
    outside = [interval(OBSERVER, READ, 90, 100), interval(OBSERVER, READ, 100, 110, error)]

    observer, *_ = account([*outside, *inside])

    assert (len(observer.excused), len(observer.outages)) == ((1, 0) if excused else (0, 1))


@pytest.mark.parametrize(
    ("start", "error", "excused"),
    [(101, "no answer in time", True), (101, "answered 502", False), (115, "no answer in time", False)],
    ids=["cut off, too", "answered badly", "at another time"],
)
def test_a_load_balancers_outage_is_the_observers_own_when_it_was_cut_off_from_the_api(
    start: float, error: str, excused: bool
) -> None:
    inside = interval("a pod on n1", "api, new connections", 90, 130)
    outside = [interval(OBSERVER, READ, 90, 100), interval(OBSERVER, READ, 100, 110, "no answer in time")]
    balancer = interval(OBSERVER, "balancer, new connections", start, start + 10, error)

    (seen,) = (each for each in account([*outside, inside, balancer]) if each.family == "balancer")

    assert (len(seen.excused), len(seen.outages)) == ((1, 0) if excused else (0, 1))


def test_intervals_are_read_as_they_were_written(timeline: Timeline) -> None:
    written = Interval("a pod on n1", "dns, by the Service's name", 1.5, 2.5, FAILING, 3, 2, "name not found", "uid")
    timeline.interval(written)

    assert list(timeline.intervals()) == [written]
    assert json.loads(timeline.path.read_text())["error"] == "name not found"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "service-new 1000000 3500000 failing 5 5 7 000 Failed to connect to 10.0.0.1",
            Interval("a pod on n1", "service, new connections", 0.0, 2.5, FAILING, 5, 5, "could not connect", "uid"),
        ),
        (
            "ingress 1000000 3500000 failing 5 5 0 503 ",
            Interval("a pod on n1", "ingress, new connections", 0.0, 2.5, FAILING, 5, 5, "answered 503", "uid"),
        ),
        (
            "api 1000000 3500000 good 25 0 ",
            Interval("a pod on n1", "api, new connections", 0.0, 2.5, GOOD, 25, 0, "", "uid"),
        ),
        (
            "dns 1000000 3500000 unobserved 0 0",
            Interval("a pod on n1", "dns, by the Service's name", 0.0, 2.5, UNOBSERVED, 0, 0, "", "uid"),
        ),
        ("dns answered", None),
        ("2026/11/23 20:00:00 Serving on port 8080", None),
        ("dns 1 x good 1 1", None),
    ],
)
def test_a_pods_log_is_read(line: str, expected: Interval | None) -> None:
    assert parse(line, "n1", "uid", 1.0) == expected


@pytest.mark.parametrize(
    ("text", "changed"),
    [("", {}), ("7", dict.fromkeys(budget.FAMILIES, 7.0)), ("api=90, dns=0.5", {"api": 90.0, "dns": 0.5})],
)
def test_budgets_are_read(text: str, changed: dict[str, float]) -> None:
    assert budget.parse(text) == {**budget.DEFAULT, **changed}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("soon", "'soon': a number of seconds is expected"),
        ("api=-1", "'api=-1': seconds cannot be negative"),
        ("web=3", "'web=3': there is no 'web'; choose from api, watch, service, dns, ingress, balancer"),
        ("api=nan", "'api=nan': seconds cannot be negative"),
    ],
)
def test_bad_budgets_are_refused(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match="'") as caught:
        budget.parse(text)
    assert str(caught.value) == complaint


def test_a_budget_is_for_all_outages_of_one_client() -> None:
    patient = Seen(
        "a pod on n1", "service, new connections", 50, 2, 100.0, outages=[Outage(0, 2, "x"), Outage(5, 7, "y")]
    )
    other = dataclasses.replace(patient, vantage="a pod on n2", outages=[Outage(0, 2, "x")])

    checks = {each.id: each for each in budget.disruption([patient, other], {**budget.DEFAULT, "service": 3.0})}

    assert checks["disruption/service"].outcome == "broken"
    (sentence,) = checks["disruption/service"].sentences
    assert sentence == (
        "service, new connections, seen from a pod on n1: no answers for 4.0 s in 2 outages, budget 3 s; "
        "the longest 2.0 s from 1970-01-01T00:00:00Z: x"
    )
    assert checks["disruption/api"].outcome == "skipped"
