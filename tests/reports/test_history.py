"""What many runs say together."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from clusterproof.reports import document, history, result

from clusterproof import cli
from clusterproof.outcome import Outcome

from . import samples

DAY = 86_400.0
WORDS = {".": "kept", "B": "broken", "E": "error", "f": "flaky", "u": "unsupported", "s": "skipped"}


def runs(*strips: str, versions: str = "", **changes: object) -> history.History:
    """A history of promises a, b, …, whose outcomes are said by one sign a run; `-` is not tried."""
    pasts = []
    for day, signs in enumerate(zip(*strips, strict=True)):
        known = {f"apps/job/{name}": WORDS[sign] for name, sign in zip("abc", signs, strict=False) if sign != "-"}
        past = history.Past(
            file=f"{day}.json",
            run=f"run-{day}",
            started=samples.START + day * DAY,
            seconds=100.0,
            complete=True,
            cluster="embedded",
            version=f"v1.3{versions[day]}.0" if versions else "v1.37.2",
            outcomes=known,
            durations=dict.fromkeys(known, 10.0 + day),
        )
        pasts.append(replace(past, **changes))  # type: ignore[arg-type]
    return history.make(pasts)


@pytest.mark.parametrize(
    ("strip", "flaky"),
    [
        ("....", 0),
        ("BBBB", 0),
        # One turn that lasts is a change: something broke, or was repaired.
        ("..BB", 0),
        ("BB..", 0),
        (".B..", 1),
        (".B.B", 2),
        ("B.-B", 1),
        # Nothing was learned from these.
        (".E.u.s", 0),
        (".f..", 1),
        ("fff", 3),
        (".B.f", 2),
    ],
)
def test_flaky_is_what_turned_and_turned_back_or_was_called_so(strip: str, flaky: int) -> None:
    (record,) = runs(strip).records
    assert record.flaky == flaky


def test_outcomes_on_another_version_or_cluster_are_no_flake() -> None:
    assert runs(".B.B", versions="6767").flaky == []
    assert runs(".B.B", versions="6776").flaky == []
    assert runs(".B..", versions="6666").flaky != []
    first, second = (runs(strip, cluster=name).runs for strip, name in ((".....", "one"), ("BBBBB", "two")))
    assert history.make(sorted((*first, *second), key=lambda past: past.started)).flaky == []


def test_the_most_frequent_comes_first() -> None:
    found = runs(".B.....", "-----.f", "B.B.B.B")

    assert [record.id[-1] for record in found.flaky] == ["c", "b", "a"]
    assert [(record.id[-1], record.broken, record.tried) for record in found.broken] == [("c", 4, 7), ("a", 1, 7)]


def test_only_what_was_kept_says_how_long_it_takes() -> None:
    (record,) = runs(".B.").records

    assert record.seconds == (10.0, 12.0)
    assert record.typical == 11.0


def test_the_slowest_comes_first() -> None:
    found = runs("-.", ".-", "B-")
    assert [record.id[-1] for record in found.slowest] == ["a", "b"]


def test_the_text_shows_runs_and_strips() -> None:
    lines = document.as_text(history.document(runs(".B.f", "..-B"), top=10)).splitlines()

    assert lines[0] == "Clusterproof: 4 runs"
    assert lines[2] == "1 flaky promise; in the last run 1 broken"
    table = lines.index("Runs (4)")
    head, _, third = (" ".join(lines[table + n].split()) for n in (1, 2, 4))
    assert head == "started Kubernetes kept broken flaky not tried took complete"
    assert third.endswith(" v1.37.2 1 0 0 1 1 min 40 s yes")
    assert lines[lines.index("Flaky promises (1)") + 2].split() == ["apps/job/a", "2", "of", "4", ".B.f"]
    assert lines[lines.index("Most often broken (2)") + 2].split()[:4] == ["apps/job/b", "1", "of", "3"]


def test_an_outcome_of_a_later_version_is_kept_as_it_is() -> None:
    (past,) = runs(".").runs
    odd = history.make([past, replace(past, run="later", outcomes={"apps/job/a": "dubious"})])

    assert odd.records[0].outcomes == ("kept", "dubious")
    assert "dubious" in document.as_text(history.document(odd, top=10))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of two runs, each with every outcome, the later of them there twice."""
    for day, name in enumerate(("monday", "tuesday")):
        (tmp_path / name).mkdir()
        run = samples.mixed_run(id=name, started=samples.START + day * DAY)
        result.write(run, tmp_path / name)
    (tmp_path / "latest.json").write_bytes((tmp_path / "tuesday" / result.NAME).read_bytes())
    return tmp_path


def test_results_are_found_in_the_folder_and_below_it(folder: Path) -> None:
    found = history.read(folder)

    assert [past.run for past in found.runs] == ["monday", "tuesday"]
    assert found.runs[0].counts == {str(name): n for name, n in samples.mixed_run().counts.items()}
    assert found.runs[0].cluster == samples.CLUSTER.uid
    assert [past.run for past in history.read(folder, last=1).runs] == ["tuesday"]


def test_what_is_no_result_is_passed_over_and_named(folder: Path) -> None:
    (folder / "broken.json").write_text("{")
    (folder / "diff.json").write_text('{"schema": "1.0", "changes": {}}')
    (folder / "list.json").write_text("[]")
    (folder / "later.json").write_text('{"schema": "2.0"}')
    changed = json.loads((folder / "latest.json").read_text()) | {"started": "yesterday"}
    (folder / "when.json").write_text(json.dumps(changed))
    found = history.read(folder)

    assert len(found.runs) == 2
    assert [line.removeprefix(f"{folder}/").partition(": ")[::2] for line in found.passed_over] == [
        ("broken.json", found.passed_over[0].partition(": ")[2]),
        ("diff.json", "not a result document"),
        ("later.json", "schema version 2.0 cannot be read; this is version 1.0"),
        ("list.json", "not a result document"),
        ("when.json", "not a result document"),
    ]
    assert "not a JSON document" in found.passed_over[0]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("started", "1e400"),
        ("started", "1e20"),
        ("started", "NaN"),
        ("seconds", "NaN"),
        ("seconds", "9" * 400),
        ("other", "[" * 100_000),
    ],
)
@pytest.mark.parametrize("within", ["", "results"])
def test_what_cannot_be_is_passed_over_and_named(field: str, value: str, within: str, folder: Path, call: Call) -> None:
    changed = json.loads((folder / "latest.json").read_text())
    (changed[within][0] if within else changed)[field] = "here"
    (folder / "odd.json").write_text(json.dumps(changed).replace('"here"', value))
    code, told, errors = call(folder)

    assert (code, errors) == (0, "")
    assert [line.split(": ")[1] for line in history.read(folder).passed_over] in (
        ["not a result document"],
        ["not a JSON document"],
    )
    assert f"{folder / 'odd.json'}: not a " in told


def test_a_run_without_a_cluster_has_its_place(tmp_path: Path) -> None:
    result.write(samples.run(samples.result("health/livez", Outcome.ERROR, "x"), cluster=None), tmp_path)
    assert history.read(tmp_path).runs[0].version == ""


Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    """Run `clusterproof history`; its exit code, output and error output."""

    def run_it(*arguments: object) -> tuple[int, str, str]:
        code = cli.main(["history", *map(str, arguments)])
        return code, *capsys.readouterr()

    return run_it


@pytest.mark.parametrize("kind", ["text", "markdown", "html", "json"])
def test_the_command_writes_every_format(kind: str, call: Call, folder: Path) -> None:
    code, printed, errors = call(folder, "--format", kind)
    assert (code, errors) == (0, "")
    assert "rolling" in printed

    assert call(folder, "--format", kind, "--output", folder / "out")[0] == 0
    assert (folder / "out").read_text() == printed


def test_json_has_every_run_and_promise(call: Call, folder: Path) -> None:
    told = json.loads(call(folder, "--format=json")[1])

    assert [run["run"] for run in told["runs"]] == ["monday", "tuesday"]
    assert len(told["records"]) == len(samples.EVERY_OUTCOME)


def test_all_bad_input_is_said_at_once(call: Call, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    code, printed, errors = call(tmp_path / "empty", "--last=0", "--top=0", "--output=/nowhere/out")

    assert (code, printed) == (4, "")
    assert errors.splitlines() == [
        "clusterproof: 4 things are wrong with the input:",
        "  --last=0: must be at least 1",
        "  --top=0: must be at least 1",
        "  --output=/nowhere/out: there is no folder /nowhere",
        f"  {tmp_path / 'empty'}: holds no result document",
    ]
    assert call(tmp_path / "none") == (4, "", f"clusterproof: {tmp_path / 'none'}: is no folder\n")
