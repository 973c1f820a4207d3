"""result.json and its published schema."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from clusterproof.reports import result, result_schema

from clusterproof.outcome import Run

from . import samples

RUNS = {
    "every outcome": samples.mixed_run(),
    "incomplete": samples.mixed_run(complete=False, expected=("health/livez", "health/readyz")),
    "nothing tried": samples.run(cluster=None, complete=False, profiles=()),
    "odd characters": samples.odd_run(),
    "huge": samples.huge_run(),
}


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS.keys())
def test_what_is_written_fits_the_schema_and_reads_back_the_same(run: Run, tmp_path: Path) -> None:
    path = result.write(run, tmp_path)

    jsonschema.validate(json.loads(path.read_text()), json.loads(result.SCHEMA.read_text()))
    assert result.read(path) == run


def test_the_published_schema_is_that_of_the_dataclasses() -> None:
    assert result.SCHEMA.read_text() == result_schema.text(), "run: python -m clusterproof.reports.result_schema"


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(result_schema.schema())


def test_every_field_is_explained_or_speaks_for_itself() -> None:
    outcome = result_schema.schema()["$defs"]["Result"]["properties"]

    assert outcome["seconds"]["description"] == "Wall time of set-up, call and teardown together, of all tries."
    assert "kept: The promise was seen to hold." in result_schema.schema()["$defs"]["Outcome"]["description"]


def test_a_figure_that_is_no_number_becomes_null(tmp_path: Path) -> None:
    figures = {"gap (s)": math.inf, "rate (1/s)": 2.0}
    path = result.write(samples.run(samples.result("health/livez", measurements=figures)), tmp_path)

    assert json.loads(path.read_text())["results"][0]["measurements"] == {"gap (s)": None, "rate (1/s)": 2.0}
    assert math.isnan(result.read(path).results[0].measurements["gap (s)"])


def test_fields_of_a_later_minor_version_are_passed_over(tmp_path: Path) -> None:
    path = changed(tmp_path, schema="1.7", signature="…")

    assert result.read(path).schema == "1.7"


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("{", "not a JSON document"),
        ("[]", "does not name its schema version"),
        ('{"schema": "2.0"}', "schema version 2.0 cannot be read; this is version 1.0"),
        ('{"schema": "1.0"}', "'id' is a required property"),
    ],
)
def test_reading_something_else_says_what_is_wrong(content: str, complaint: str, tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    path.write_text(content)

    with pytest.raises(ValueError, match=complaint):
        result.read(path)


@pytest.mark.parametrize(
    ("field", "value", "complaint"),
    [
        ("started", "1e400", "inf is no finite number"),
        ("started", "NaN", "nan is no finite number"),
        ("started", "1e20", r"it cannot have started at 1e\+20 and taken [\d.]+ s"),
        ("seconds", "NaN", "nan is no finite number"),
        ("seconds", "1e20", r"and taken 1e\+20 s"),
        ("seconds", "9" * 400, "int too large to convert to float"),
        ("arguments", "[" * 100_000, "maximum recursion depth exceeded"),
    ],
)
@pytest.mark.parametrize("within", ["", "results"])
def test_what_cannot_be_is_refused(field: str, value: str, complaint: str, within: str, tmp_path: Path) -> None:
    path = changed(tmp_path)
    document = json.loads(path.read_text())
    (document[within][0] if within else document)[field] = "here"
    path.write_text(json.dumps(document).replace('"here"', value))

    with pytest.raises(ValueError, match=f"^{path}: not a .*{complaint}"):
        result.read(path)


def test_an_unknown_outcome_is_refused_at_its_place(tmp_path: Path) -> None:
    path = changed(tmp_path)
    path.write_text(path.read_text().replace('"broken"', '"wobbly"'))

    with pytest.raises(ValueError, match=r"\$\.results\[2\]\.outcome: 'wobbly' is not one of"):
        result.read(path)


def changed(folder: Path, **changes: Any) -> Path:
    path = result.write(samples.run(*samples.EVERY_OUTCOME), folder)
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return path
