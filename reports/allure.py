"""allure/: the run as Allure results, which `allure generate` turns into a site."""

from __future__ import annotations

import json
import mimetypes
import os
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid4, uuid5

from allure_commons.logger import AllureFileLogger
from allure_commons.model2 import (
    ATTACHMENT_PATTERN,
    Attachment,
    Label,
    Link,
    Parameter,
    Status,
    StatusDetails,
    TestResult,
    TestStepResult,
)
from allure_commons.types import LabelType, LinkType, Severity

from clusterproof.outcome import Attachment as Evidence
from clusterproof.outcome import Outcome, Result, Run, Step

from . import files, text

NAME = "allure"

_STATUSES = {
    Outcome.KEPT: Status.PASSED,
    Outcome.BROKEN: Status.FAILED,
    # Allure's word for a test that could not do its work, which is what an error is; a broken promise is "failed".
    Outcome.ERROR: Status.BROKEN,
    # Neither passed nor failed; the details say that it is flaky.
    Outcome.FLAKY: Status.UNKNOWN,
    Outcome.UNSUPPORTED: Status.SKIPPED,
    Outcome.SKIPPED: Status.SKIPPED,
}

# Allure's one "skipped" stands for two outcomes, told apart by the first word of the reason.
_CATEGORIES = [
    {"name": "Broken promise", "matchedStatuses": [Status.FAILED]},
    {"name": "Surroundings failed", "matchedStatuses": [Status.BROKEN]},
    {"name": "Flaky promise", "matchedStatuses": [Status.UNKNOWN]},
    {"name": "Unsupported", "matchedStatuses": [Status.SKIPPED], "messageRegex": "^unsupported: .*"},
    {"name": "Skipped", "matchedStatuses": [Status.SKIPPED], "messageRegex": "^skipped: .*"},
]

HISTORY = "allure-history"
"""Folder beside `allure`, for CI to keep from run to run. Allure 3 appends to `history.jsonl` in it; whoever has
Allure 2 puts there what the `history` folder of its last report holds."""

# How a CI server says which build this is: Allure's name for it, then the build's name and its address.
_EXECUTORS = {
    "gitlab": ("pipeline {CI_PIPELINE_ID}", "{CI_JOB_URL}"),
    "jenkins": ("{BUILD_TAG}", "{BUILD_URL}"),
    "github": ("run {GITHUB_RUN_ID}", "{GITHUB_SERVER_URL}/{GITHUB_REPOSITORY}/actions/runs/{GITHUB_RUN_ID}"),
}


def write(run: Run, directory: Path) -> Path:
    """Write the run as Allure results in place of a previous run's, which stay until all of the new are there."""
    run, folder = text.clean(run), directory / NAME
    previous = _results_in(folder)
    # The class has no annotations.
    make_logger: Any = AllureFileLogger
    logger = make_logger(str(folder))
    try:
        for result in (*run.results, *text.untried(run)):
            test = _test_result(result)
            if result.outcome in text.FAILED:
                test.attachments = [_attach(logger, attachment) for attachment in result.attachments]
            logger.report_result(test)
        _about(run, directory)
    except BaseException:
        _remove(_results_in(folder) - previous)
        raise
    _remove(previous)
    return folder


def _about(run: Run, directory: Path) -> None:
    """Write what Allure wants to know besides the results."""
    folder, executor = directory / NAME, _executor(run)
    # Allure 2 takes the categories from a file of their own, Allure 3 from its settings: `allure generate --config`.
    settings = {
        "name": executor["reportName"],
        "categories": {"rules": _CATEGORIES},
        # Whole, because Allure takes it from where it is started.
        "historyPath": str((directory / HISTORY / "history.jsonl").absolute()),
    }
    for name, document in ("categories", _CATEGORIES), ("executor", executor), ("allurerc", settings):
        files.replace(folder / f"{name}.json", json.dumps(document, indent=1) + "\n")
    files.replace(folder / "environment.properties", "".join(f"{_property(*pair)}\n" for pair in text.facts(run)))
    _hand_over(directory / HISTORY, folder / "history")


def _hand_over(kept: Path, history: Path) -> None:
    """Put what Allure 2 has written of earlier runs where it looks for it."""
    for path in kept.glob("*.json"):
        history.mkdir(exist_ok=True)
        files.replace(history / path.name, path.read_text(encoding="utf-8"))


def _results_in(folder: Path) -> set[Path]:
    """The files that belong to one run; anything else in the folder, such as Allure's `history`, is the user's."""
    return {path for kind in ("result", "container", "attachment") for path in folder.glob(f"*-{kind}.*")}


def _remove(paths: set[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def _test_result(result: Result) -> TestResult:
    name = text.promise_name(result.id)
    case = name.partition("[")[2].removesuffix("]")
    promise = text.one_line(result.promise)
    return TestResult(
        uuid=str(uuid4()),
        # Both stay the same from run to run and from cluster to cluster: that is what Allure's history goes by.
        historyId=uuid5(NAMESPACE_URL, result.id).hex,
        testCaseId=uuid5(NAMESPACE_URL, result.id.partition("[")[0]).hex,
        fullName=result.id,
        titlePath=[result.area, result.object],
        name=name,
        description=_description(result),
        status=_STATUSES[result.outcome],
        statusDetails=_details(result),
        stage="finished",
        start=_milliseconds(result.started),
        stop=_milliseconds(result.started + result.seconds),
        parameters=[Parameter(name="case", value=case)] if case else [],
        steps=[_step(step, result) for step in result.steps],
        links=[Link(type=LinkType.LINK, url=result.source, name="Kubernetes documentation")] if result.source else [],
        labels=[
            Label(name=label, value=value)
            for label, value in [
                (LabelType.EPIC, result.area),
                (LabelType.FEATURE, result.object),
                (LabelType.STORY, promise),
                (LabelType.PARENT_SUITE, result.area),
                (LabelType.SUITE, result.object),
                ("package", f"{result.area}.{result.object}"),
                (LabelType.SEVERITY, _severity(result)),
                (LabelType.TAG, result.tier),
                *((LabelType.TAG, capability) for capability in result.capabilities),
                (LabelType.THREAD, result.worker),
                (LabelType.FRAMEWORK, "clusterproof"),
                (LabelType.LANGUAGE, "python"),
            ]
            if value
        ],
    )


def _severity(result: Result) -> str:
    if result.capabilities:  # which a cluster may lack
        return Severity.NORMAL.value
    return Severity.BLOCKER.value if result.tier == "smoke" else Severity.CRITICAL.value


def _description(result: Result) -> str:
    """The promise, and what was measured."""
    # Not as Allure's parameters: those make up a test's identity, and figures differ from run to run.
    measured = [f"- {text.markdown(name)}: {text.figure(value)}" for name, value in result.measurements.items()]
    return "\n".join([text.markdown(result.promise), "", *measured]).strip()


def _details(result: Result) -> StatusDetails | None:
    if result.outcome is Outcome.KEPT:
        return None
    flaky = True if result.outcome is Outcome.FLAKY else None
    return StatusDetails(flaky=flaky, message=text.told(result), trace=result.message)


def _step(step: Step, result: Result) -> TestStepResult:
    return TestStepResult(
        name=text.one_line(step.name),
        status=Status.PASSED if step.passed else _STATUSES[result.outcome],
        statusDetails=StatusDetails(message=step.detail) if step.detail else None,
        stage="finished",
        start=_milliseconds(step.started),
        stop=_milliseconds(step.started + step.seconds),
    )


def _attach(logger: Any, evidence: Evidence) -> Attachment:
    extension = (mimetypes.guess_extension(evidence.media_type) or ".txt").removeprefix(".")
    source = ATTACHMENT_PATTERN.format(prefix=uuid4(), ext=extension)
    logger.report_attached_data(evidence.text, source)
    return Attachment(name=text.one_line(evidence.name), source=source, type=evidence.media_type)


def _executor(run: Run) -> dict[str, str]:
    executor = {"name": "clusterproof", "type": "clusterproof", "buildName": run.id}
    for kind, (build, address) in _EXECUTORS.items():
        # Without all of its variables it is not this CI server.
        with suppress(KeyError):
            build, address = build.format_map(os.environ), address.format_map(os.environ)
            executor |= {"type": kind, "buildName": build, "buildUrl": address}
    return {**executor, "reportName": f"Clusterproof: {text.heading(run)}"}


def _property(name: str, value: str) -> str:
    """A line of a Java properties file, which is ASCII with the escapes that JSON has, too."""
    key = name.replace(" ", r"\ ")
    return f"{key} = {json.dumps(value)[1:-1]}"


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)
