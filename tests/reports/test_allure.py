"""Allure results."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pytest
from allure_commons.logger import AllureFileLogger
from clusterproof.reports import allure

from clusterproof.outcome import Outcome, Run

from . import samples


def read(run: Run, folder: Path) -> dict[str, dict[str, Any]]:
    """The results of a run by report id."""
    results = [json.loads(path.read_text(encoding="utf-8")) for path in allure.write(run, folder).glob("*-result.json")]
    return {result["fullName"]: result for result in results}


def labels(result: dict[str, Any], name: str) -> list[str]:
    return [label["value"] for label in result["labels"] if label["name"] == name]


@pytest.fixture(autouse=True)
def _no_ci_server(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CI_PIPELINE_ID", "BUILD_TAG", "GITHUB_RUN_ID"):
        monkeypatch.delenv(name, raising=False)


def test_epic_feature_and_story(tmp_path: Path) -> None:
    result = read(samples.mixed_run(), tmp_path)["apps/deployment/rolling_update"]

    assert labels(result, "epic") == ["apps"]
    assert labels(result, "feature") == ["deployment"]
    assert labels(result, "story") == ["The deployment rolling_update MUST hold."]
    assert result["titlePath"] == ["apps", "deployment"]
    assert result["name"] == "rolling_update"


@pytest.mark.parametrize(
    ("outcome", "status"),
    [
        (Outcome.KEPT, "passed"),
        (Outcome.BROKEN, "failed"),
        (Outcome.ERROR, "broken"),
        (Outcome.FLAKY, "unknown"),
        (Outcome.UNSUPPORTED, "skipped"),
        (Outcome.SKIPPED, "skipped"),
    ],
)
def test_status(outcome: Outcome, status: str, tmp_path: Path) -> None:
    (result,) = read(samples.run(samples.result("health/livez", outcome, "because")), tmp_path).values()

    assert result["status"] == status


def test_severity(tmp_path: Path) -> None:
    results = read(samples.mixed_run(), tmp_path)

    assert labels(results["health/livez"], "severity") == ["blocker"]
    assert labels(results["apps/job/completion[indexed]"], "severity") == ["critical"]
    assert labels(results["access/rbac/matrix"], "severity") == ["normal"]
    assert labels(results["network/ingress/routing"], "severity") == ["normal"]


def test_steps_have_their_times_and_the_last_one_failed(tmp_path: Path) -> None:
    first, last = read(samples.mixed_run(), tmp_path)["apps/deployment/rolling_update"]["steps"]

    assert (first["status"], first["stop"] - first["start"]) == ("passed", 100)
    assert (last["status"], last["stop"] - last["start"]) == ("failed", 1200)
    assert last["statusDetails"]["message"].startswith("rolled out: not within 30 s")


def test_attachments_only_where_something_went_wrong(tmp_path: Path) -> None:
    kept = samples.result("health/livez", attachments=samples.EVIDENCE)
    broken = samples.result("health/readyz", Outcome.BROKEN, "because")
    results = read(samples.run(kept, broken), tmp_path)

    assert "attachments" not in results["health/livez"]
    events, manifest = results["health/readyz"]["attachments"]
    assert (tmp_path / "allure" / events["source"]).read_text() == "Warning BackOff"
    assert manifest["type"] == "application/yaml"
    assert len(list((tmp_path / "allure").glob("*-attachment.*"))) == 2


def test_history_goes_by_promise_and_case(tmp_path: Path) -> None:
    before = read(samples.mixed_run(), tmp_path / "before")
    after = read(samples.mixed_run(id="run-2", cluster=None), tmp_path / "after")

    ids = {name: result["historyId"] for name, result in before.items()}
    assert ids == {name: result["historyId"] for name, result in after.items()}
    assert len(set(ids.values())) == len(ids)
    indexed, parallel = before["apps/job/completion[indexed]"], before["apps/job/completion[parallel]"]
    assert indexed["testCaseId"] == parallel["testCaseId"]
    assert indexed["parameters"] == [{"name": "case", "value": "indexed"}]


def test_every_result_but_the_kept_is_in_one_category(tmp_path: Path) -> None:
    import re

    results = read(samples.mixed_run(expected=("apps/job/retry",)), tmp_path)
    categories = json.loads((tmp_path / "allure" / "categories.json").read_text())

    found = {
        name: [
            category["name"]
            for category in categories
            if result["status"] in category["matchedStatuses"]
            and re.match(category.get("messageRegex", ""), result.get("statusDetails", {}).get("message", ""))
        ]
        for name, result in results.items()
    }
    assert {name: categories for name, categories in found.items() if categories} == {
        "apps/deployment/rolling_update": ["Broken promise"],
        "network/ingress/routing": ["Surroundings failed"],
        "network/service/load_balancer": ["Unsupported"],
        "api/restart": ["Skipped"],
        "apps/job/suspend": ["Flaky promise"],
        "apps/job/retry": ["Skipped"],
    }
    settings = json.loads((tmp_path / "allure" / "allurerc.json").read_text())
    assert settings["categories"]["rules"] == categories


def test_environment_is_the_cluster(tmp_path: Path) -> None:
    read(samples.mixed_run(complete=False), tmp_path)
    lines = (tmp_path / "allure" / "environment.properties").read_text().splitlines()

    assert "Cluster = prod-eu" in lines
    assert r"API\ server = https://10.0.0.1:6443" in lines
    assert "Complete = no: it was stopped, or lost a worker process" in lines


def test_executor_is_the_ci_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI_PIPELINE_ID", "7")
    monkeypatch.setenv("CI_JOB_URL", "https://ci.example/7")
    read(samples.mixed_run(), tmp_path)

    assert json.loads((tmp_path / "allure" / "executor.json").read_text()) == {
        "name": "clusterproof",
        "type": "gitlab",
        "buildName": "pipeline 7",
        "buildUrl": "https://ci.example/7",
        "reportName": "Clusterproof: prod-eu",
    }


def test_a_second_run_takes_the_place_of_the_first(tmp_path: Path) -> None:
    read(samples.mixed_run(), tmp_path)
    history = tmp_path / "allure" / "history" / "history.json"
    history.parent.mkdir()
    history.write_text("{}")

    assert set(read(samples.run(samples.result("health/livez")), tmp_path)) == {"health/livez"}
    assert list((tmp_path / "allure").glob("*-attachment.*")) == []
    assert history.exists()


def test_a_full_disk_leaves_the_earlier_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read(samples.mixed_run(), tmp_path)
    before = {path: path.read_bytes() for path in (tmp_path / "allure").iterdir()}
    room = iter(range(3))

    def report_result(self: AllureFileLogger, item: object) -> None:
        if next(room, None) is None:
            raise OSError(errno.ENOSPC, "No space left on device")
        original(self, item)

    original = AllureFileLogger.report_result
    monkeypatch.setattr(AllureFileLogger, "report_result", report_result)
    with pytest.raises(OSError, match="No space left"):
        allure.write(samples.mixed_run(), tmp_path)

    assert {path: path.read_bytes() for path in (tmp_path / "allure").iterdir()} == before


def test_odd_characters(tmp_path: Path) -> None:
    (result,) = read(samples.odd_run(), tmp_path).values()

    assert "😀" in result["statusDetails"]["message"]
    assert (tmp_path / "allure" / "environment.properties").read_text().isascii()


def test_the_history_that_was_kept_is_used(tmp_path: Path) -> None:
    allure.write(samples.mixed_run(), tmp_path)
    settings = json.loads((tmp_path / "allure" / "allurerc.json").read_text())
    assert settings["historyPath"] == str(tmp_path / "allure-history" / "history.jsonl")
    assert not (tmp_path / "allure" / "history").exists()

    (tmp_path / "allure-history").mkdir()
    (tmp_path / "allure-history" / "history.jsonl").write_text("{}\n")
    (tmp_path / "allure-history" / "history-trend.json").write_text("[]")
    allure.write(samples.mixed_run(), tmp_path)

    assert [path.name for path in (tmp_path / "allure" / "history").iterdir()] == ["history-trend.json"]
    assert (tmp_path / "allure-history" / "history.jsonl").read_text() == "{}\n"
