"""Clusters side by side."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from clusterproof.reports import document, matrix, result

from clusterproof import cli
from clusterproof.outcome import Outcome, Run

from . import samples

Write = Callable[[str, Run], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a run's document into a folder named after its cluster."""

    def written(name: str, run: Run) -> Path:
        (tmp_path / name).mkdir()
        result.write(run, tmp_path / name)
        return tmp_path / name / result.NAME

    return written


def test_what_differs_comes_first() -> None:
    """A promise that only one cluster keeps MUST be told with the other's reason, before everything else."""
    broken = samples.result("apps/job/suspend", Outcome.BROKEN, "it ran")
    both = samples.result("health/livez")
    runs = {"eu": samples.run(both, samples.result("apps/job/suspend")), "us": samples.run(both, broken)}

    made = matrix.make(runs)
    told = document.as_text(matrix.document(made))

    assert not made.good
    assert "1 differ between them" in told
    assert told.index("apps/job/suspend") < told.index("health/livez")
    assert "it ran" in told


def test_a_promise_that_was_not_tried_differs() -> None:
    """A promise that one run did not come to MUST NOT pass for kept."""
    both = samples.result("health/livez")
    cut = replace(samples.run(both), complete=False, expected=("health/livez", "health/readyz"))

    made = matrix.make({"eu": samples.run(both, samples.result("health/readyz")), "us": cut})

    assert [row.outcomes for row in made.promises if row.what == "health/readyz"] == [("kept", "not tried")]
    assert not made.good


def test_the_command(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 0 MUST mean that every promise is kept everywhere; a cluster is called as the user calls it."""
    kept = samples.run(samples.result("health/livez"))
    files = [str(write("eu", kept)), f"asia={write('us', kept)}"]

    assert cli.main(["matrix", *files, "--format=json"]) == cli.DONE
    assert [column["name"] for column in json.loads(capsys.readouterr().out)["columns"]] == ["eu", "asia"]

    files.append(str(write("worse", samples.run(samples.result("health/livez", Outcome.BROKEN, "no")))))
    assert cli.main(["matrix", *files]) == cli.FAILED


def test_everything_wrong_is_told_at_once(write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A missing file and a doubled name MUST be told in one message."""
    file = write("eu", samples.run(samples.result("health/livez")))

    assert cli.main(["matrix", str(file), f"eu={file}", f"us={tmp_path}/none.json"]) == cli.MISUSED
    said = capsys.readouterr().err
    assert "there is another cluster named 'eu'" in said
    assert "none.json: No such file or directory" in said
