"""What all formats say the same way."""

from __future__ import annotations

import pytest
from clusterproof.reports import text

from . import samples


def test_clean_leaves_only_what_xml_and_terminals_take() -> None:
    cleaned = text.clean("tab\tline\n\x1b[1;31mred\x1b[0m \x1b]0;title\x07\x00\x08\ud800\ufffe😀")

    assert cleaned == "tab\tline\nred \ufffd\ufffd\ufffd\ufffd😀"


def test_clip_keeps_both_ends_and_says_how_much_is_missing() -> None:
    clipped = text.clip("begin" + "x" * 1_000_000 + "end", 1_000)

    assert clipped.startswith("beginx")
    assert clipped.endswith("xend")
    assert "999008 characters left out" in clipped
    assert len(clipped) < 1_100


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0.0 s"),
        (1.25, "1.2 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min 00 s"),
        (125.4, "2 min 05 s"),
        (3725, "1 h 02 min"),
    ],
)
def test_duration(seconds: float, said: str) -> None:
    assert text.duration(seconds) == said


@pytest.mark.parametrize(("value", "said"), [(0.03123, "0.03123"), (1.25, "1.25"), (1_234_567, "1234567")])
def test_figure(value: float, said: str) -> None:
    assert text.figure(value) == said


def test_promise_name_keeps_a_case_with_slashes() -> None:
    assert text.promise_name("apps/job/completion[a/b]") == "completion[a/b]"
    assert text.promise_name("health/livez") == "livez"


def test_an_omitted_promise_is_named() -> None:
    run = samples.run(samples.result("health/livez"), expected=("health/livez", "health/readyz"))

    assert [result.id for result in text.untried(run)] == ["health/readyz"]
    assert text.incomplete(run) == "1 of 2 selected promises not tried"


def test_an_interruption_is_said_even_when_everything_has_a_result() -> None:
    assert text.incomplete(samples.mixed_run(complete=False)) == "it was stopped, or lost a worker process"
    assert text.incomplete(samples.mixed_run()) == ""


def test_facts_without_a_cluster() -> None:
    assert ("Result", "nothing tried") in text.facts(samples.run(cluster=None))


def test_counts_leave_out_what_did_not_occur() -> None:
    assert text.counts({"kept": 2, "broken": 0, "error": 2}) == "2 kept, 2 errors"
    assert text.counts({"error": 1}) == "1 error"
