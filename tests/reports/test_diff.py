"""Two runs compared: what changed, and whether it is worse."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from clusterproof.reports import diff, document, result
from markdown_it import MarkdownIt

from clusterproof import cli
from clusterproof.outcome import CapabilityFact, Outcome, Run, Suites

from . import samples

KINDS = ("apps/v1 Deployment", "apps/v1beta1 Deployment", "example.org/v1 Thing", "v1 Pod")
CLUSTER = replace(samples.CLUSTER, kinds=KINDS)


def run(*results: object, **changes: object) -> Run:
    return samples.run(*results, **{"cluster": CLUSTER, **changes})  # type: ignore[arg-type]


def one(old: Outcome | None, new: Outcome | None) -> diff.Comparison:
    """A comparison of runs of one promise."""
    runs = [run(*([samples.result("apps/job/completion", each, "because")] if each else [])) for each in (old, new)]
    return diff.compare(*runs)


@pytest.mark.parametrize(
    ("old", "new", "group", "worse"),
    [
        (Outcome.KEPT, Outcome.BROKEN, "newly_broken", True),
        (Outcome.ERROR, Outcome.BROKEN, "newly_broken", True),
        (Outcome.UNSUPPORTED, Outcome.BROKEN, "newly_broken", True),
        (Outcome.KEPT, Outcome.UNSUPPORTED, "newly_unsupported", True),
        (Outcome.SKIPPED, Outcome.UNSUPPORTED, "newly_unsupported", False),
        (Outcome.KEPT, Outcome.ERROR, "newly_error", True),
        (Outcome.BROKEN, Outcome.ERROR, "newly_error", False),
        (Outcome.KEPT, Outcome.SKIPPED, "newly_skipped", False),
        (Outcome.KEPT, Outcome.FLAKY, "newly_flaky", True),
        (Outcome.BROKEN, Outcome.FLAKY, "newly_flaky", False),
        (Outcome.FLAKY, Outcome.BROKEN, "newly_broken", True),
        (Outcome.FLAKY, Outcome.KEPT, "newly_kept", False),
        (Outcome.BROKEN, Outcome.KEPT, "newly_kept", False),
        (None, Outcome.BROKEN, "new_promises", False),
        (Outcome.KEPT, None, "promises_gone", False),
    ],
)
def test_a_changed_outcome_has_its_group(old: Outcome | None, new: Outcome | None, group: str, worse: bool) -> None:
    comparison = one(old, new)

    (change,) = comparison.changes[group]
    assert list(comparison.changes) == [group]
    assert (change.what, change.old, change.new) == ("apps/job/completion", old or "-", new or "-")
    assert change.regressed is comparison.regressed is worse
    assert change.why == ("because" if new else "")


def test_a_promise_that_the_suites_still_have_is_not_gone() -> None:
    old = run(samples.result("apps/job/completion[plain]"), samples.result("apps/job/retry"))
    comparison = diff.compare(old, run(suites=Suites("f" * 64, ("apps/job/completion",))))

    assert [change.what for change in comparison.changes["not_selected"]] == ["apps/job/completion[plain]"]
    assert [change.what for change in comparison.changes["promises_gone"]] == ["apps/job/retry"]
    assert not comparison.regressed


@pytest.mark.parametrize("outcome", list(Outcome))
def test_an_unchanged_outcome_is_no_change(outcome: Outcome) -> None:
    assert one(outcome, outcome).changes == {}


def test_a_kept_promise_that_was_not_tried_again_is_worse() -> None:
    kept = samples.result("apps/job/completion")
    comparison = diff.compare(run(kept), run(expected=(kept.id,), complete=False))

    assert comparison.changes["no_longer_tried"][0].new == "not tried"
    assert comparison.regressed
    assert comparison.unknown == ("everything: of the new run, 1 of 1 selected promise not tried",)


@pytest.mark.parametrize(
    ("was", "is_now", "slower", "told", "worse"),
    [
        (20.0, 81.0, 2.0, True, True),
        (20.0, 81.0, 5.0, False, False),
        (20.0, 81.0, 0.0, False, False),
        (90.0, 170.0, 2.0, False, False),
        # As much as a CronJob's minute makes of it.
        (20.0, 79.0, 2.0, True, False),
        # Three times as long, and yet only as much as a busy machine makes of it.
        (4.0, 12.0, 2.0, False, False),
        (0.0, 62.0, 2.0, True, True),
    ],
)
def test_slower_is_by_factor_and_by_seconds(was: float, is_now: float, slower: float, told: bool, worse: bool) -> None:
    runs = [run(samples.result("apps/job/completion", seconds=seconds)) for seconds in (was, is_now)]
    comparison = diff.compare(*runs, slower=slower)

    assert ("slower" in comparison.changes) is told
    assert comparison.regressed is worse


def paced(slow: float, **others: float) -> Run:
    """A run in which most promises take some seconds, and others what is said."""
    usual = [samples.result(f"apps/job/usual_{number}", seconds=slow) for number in range(20)]
    return run(*usual, *(samples.result(f"apps/job/{name}", seconds=seconds) for name, seconds in others.items()))


def test_a_busy_machine_does_not_look_like_slower_promises() -> None:
    comparison = diff.compare(paced(10, one=20.0, other=20.0), paced(18, one=50.0, other=90.0))

    assert [change.what for change in comparison.changes["slower"]] == ["apps/job/other"]


def test_everything_slower_is_said_once_and_not_called_worse() -> None:
    (change,) = diff.compare(paced(10, one=20.0), paced(30, one=55.0)).changes["slower"]

    assert (change.what, change.new, change.regressed) == ("all 21 promises", "3.0 times as long", False)
    assert diff.compare(paced(10), paced(30), slower=0).changes == {}


def test_how_long_a_failure_takes_is_not_compared() -> None:
    runs = [run(samples.result("apps/job/completion", Outcome.BROKEN, "x", seconds=each)) for each in (1.0, 90.0)]
    assert diff.compare(*runs).changes == {}


def test_a_capability_that_is_no_longer_claimed_is_worse() -> None:
    def claiming(supported: bool) -> Run:
        fact = CapabilityFact("storage.dynamic", "extended", supported, "no default StorageClass")
        return run(cluster=replace(CLUSTER, capabilities=(fact,)))

    lost = diff.compare(claiming(True), claiming(False))
    assert lost.regressed
    assert lost.changes["capabilities_gone"][0].why == "no default StorageClass"
    gained = diff.compare(claiming(False), claiming(True))
    assert not gained.regressed
    assert gained.changes["new_capabilities"][0].what == "storage.dynamic"


def test_a_kind_that_is_no_longer_served_is_worse_and_says_what_is_left_of_it() -> None:
    later = ("apps/v1 Deployment", "example.net/v1 Other", "v1 Pod")
    comparison = diff.compare(run(), run(cluster=replace(CLUSTER, kinds=later)))

    assert comparison.regressed
    assert {change.what: change.why for change in comparison.changes["api_kinds_gone"]} == {
        "apps/v1beta1 Deployment": "still served as apps/v1",
        "example.org/v1 Thing": "not served at any version",
    }
    assert [change.what for change in comparison.changes["new_api_kinds"]] == ["example.net/v1 Other"]


def test_what_was_not_recorded_is_not_called_gone() -> None:
    for other in (replace(CLUSTER, kinds=()), None):
        for runs in ((run(cluster=other), run()), (run(), run(cluster=other))):
            comparison = diff.compare(*runs)
            assert not comparison.regressed
            assert len(comparison.unknown) == 1


def test_versions_nodes_and_suites_are_facts_and_not_worse() -> None:
    later = replace(CLUSTER, version="v1.38.0", nodes=CLUSTER.nodes[:1], uid="other")
    suites = [Suites(sha256=letter * 64, promises=()) for letter in "ab"]
    comparison = diff.compare(run(suites=suites[0]), run(cluster=later, suite_version="0.2.0", suites=suites[1]))

    assert not comparison.regressed
    changed = {change.what: (change.old, change.new) for change in comparison.changes["facts"]}
    assert changed["Kubernetes"] == ("v1.37.2", "v1.38.0")
    assert changed["Clusterproof"] == ("0.1.0", "0.2.0")
    assert changed["Suites' sources"] == ("a" * 12, "b" * 12)
    assert {"Nodes", "Kubelets", "Cluster identity"} <= changed.keys()


def worse() -> diff.Comparison:
    old = run(samples.result("apps/a/b"), samples.result("apps/c/d", Outcome.BROKEN, "x"))
    new = run(samples.result("apps/a/b", Outcome.BROKEN, samples.ODD), samples.result("apps/c/d"))
    return diff.compare(old, new, files=("old.json", "new.json"))


def test_what_is_worse_comes_first_and_makes_the_verdict() -> None:
    assert list(worse().changes) == ["newly_broken", "newly_kept"]
    assert diff.verdict(worse()) == "regressed: 1 newly broken"
    assert diff.verdict(one(Outcome.KEPT, Outcome.KEPT)) == "nothing regressed"


def test_text_has_the_verdict_and_aligned_columns() -> None:
    lines = document.as_text(diff.document(worse())).splitlines()

    assert lines[:3] == ["Clusterproof: run-1 compared with run-1", "", "regressed: 1 newly broken"]
    table = lines[lines.index("Newly broken (1)") + 1 :]
    assert table[0] == "  what      old   new     worse  why"
    assert table[1].startswith("  apps/a/b  kept  broken  yes    a|b `c` <d>")
    assert "\x1b" not in "".join(lines)


def test_markdown_shows_odd_characters_as_they_are() -> None:
    page = MarkdownIt("gfm-like", {"linkify": False}).render(document.as_markdown(diff.document(worse())))
    root = ElementTree.fromstring(f"<page>{page}</page>")
    cells = ["".join(cell.itertext()) for cell in root.iter("td")]

    assert any(cell.startswith("a|b `c` <d> & ]]>") and "*e* _f_ [g](h)" in cell for cell in cells)
    assert [title.text for title in root.iter("h2")] == ["Newly broken (1)", "Newly kept (1)"]


def test_html_is_one_page_without_anything_from_elsewhere() -> None:
    page = document.as_html(diff.document(worse()))

    assert page.startswith("<!DOCTYPE html>\n<html")
    assert "a|b `c` &lt;d&gt; &amp; ]]&gt;" in page
    assert "http" not in page.replace("<!DOCTYPE", "")
    assert "<script" not in page
    assert '<h2 class="bad">Newly broken</h2>' in page


def test_json_has_everything() -> None:
    told = json.loads(diff.to_json(worse()))

    assert told["schema"] == diff.SCHEMA_VERSION
    assert told["regressed"] is True
    assert told["old"]["file"] == "old.json"
    assert told["changes"]["newly_broken"][0]["what"] == "apps/a/b"


Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    """Run `clusterproof diff`; its exit code, output and error output."""

    def run_it(*arguments: object) -> tuple[int, str, str]:
        code = cli.main(["diff", *map(str, arguments)])
        return code, *capsys.readouterr()

    return run_it


@pytest.fixture
def recorded(tmp_path: Path) -> tuple[Path, Path]:
    """Files of a run that keeps all, and of one in which something is broken."""
    paths = tmp_path / "old", tmp_path / "new"
    for path, outcome in zip(paths, (Outcome.KEPT, Outcome.BROKEN), strict=True):
        path.mkdir()
        result.write(run(samples.result("apps/a/b", outcome, "" if outcome is Outcome.KEPT else "no pod")), path)
    return paths[0] / result.NAME, paths[1] / result.NAME


@pytest.mark.parametrize("kind", ["text", "markdown", "html", "json"])
def test_the_command_writes_every_format_and_exits_by_the_verdict(
    kind: str, call: Call, recorded: tuple[Path, Path], tmp_path: Path
) -> None:
    old, new = recorded
    code, printed, errors = call(old, new, "--format", kind)
    assert (code, errors) == (1, "")
    assert "apps/a/b" in printed

    assert call(old, new, "--format", kind, "--output", tmp_path / "out") == (1, "", "")
    assert (tmp_path / "out").read_text() == printed
    assert call(old, old, "--format", kind)[0] == 0


def test_all_that_is_wrong_with_the_input_is_said_at_once(call: Call, recorded: tuple[Path, Path]) -> None:
    old, new = recorded
    new.write_text("{")
    old.unlink()
    code, printed, errors = call(old, new, "--slower=0.5", "--output=/nowhere/diff.md")

    assert (code, printed) == (4, "")
    assert errors.splitlines() == [
        "clusterproof: 4 things are wrong with the input:",
        "  --slower=0.5: must be more than 1, or 0 for never",
        "  --output=/nowhere/diff.md: there is no folder /nowhere",
        f"  {old}: No such file or directory",
        f"  {new}: not a JSON document: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)",
    ]


def test_one_thing_that_is_wrong_is_one_line(call: Call, recorded: tuple[Path, Path], tmp_path: Path) -> None:
    old, new = recorded
    assert call(tmp_path, new) == (4, "", f"clusterproof: {tmp_path}: Is a directory\n")
    assert call(old, new, "--output", tmp_path)[2].endswith("is a folder; a file is expected\n")
