"""junit.xml: the run for GitLab, Jenkins, GitHub and everything else that reads JUnit. One test suite per area.

It keeps to what the strictest reader, Jenkins' xUnit plugin, allows, as that one drops a whole file for one attribute
too many: no properties and no `file` at a test case, no `skipped` at the root.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from clusterproof.outcome import Outcome, Result, Run

from . import files, text

NAME = "junit.xml"

# CI servers refuse a report that is too large; what is cut here is whole in result.json.
_TEXT_LIMIT = 20_000

_ELEMENTS = {
    Outcome.BROKEN: "failure",
    Outcome.ERROR: "error",
    # Neither kept nor a failure; JUnit has no other word that every reader allows.
    Outcome.FLAKY: "skipped",
    Outcome.UNSUPPORTED: "skipped",
    Outcome.SKIPPED: "skipped",
}


def write(run: Run, directory: Path) -> Path:
    """Write the run as JUnit XML; a selected promise without a result is there as skipped: its absence must show."""
    run = text.clean(run)
    suites = {
        area: [_case(result) for result in results]
        for area, results in text.by_area((*run.results, *text.untried(run))).items()
    }
    root = Element("testsuites", {"name": "clusterproof", **_statistics(chain.from_iterable(suites.values()))})
    del root.attrib["skipped"]
    # The suites ran side by side: the sum of their times is not what the run took.
    root.set("time", f"{run.seconds:.3f}")
    for area, cases in suites.items():
        suite = SubElement(root, "testsuite", {"name": area, **_statistics(cases)})
        suite.set("timestamp", text.moment(run.started))
        properties = SubElement(suite, "properties")
        for name, value in text.facts(run):
            SubElement(properties, "property", name=name, value=value)
        suite.extend(cases)
    indent(root)
    return files.replace(directory / NAME, tostring(root, "utf-8", xml_declaration=True).decode() + "\n")


def _case(result: Result) -> Element:
    case = Element("testcase", classname=f"{result.area}.{result.object}", name=text.promise_name(result.id))
    case.set("time", f"{result.seconds:.3f}")
    if element := _ELEMENTS.get(result.outcome):
        found = SubElement(case, element, type=result.outcome, message=text.told(result))
        found.text = "\n\n".join(filter(None, (result.promise, text.clip(result.message, _TEXT_LIMIT))))
    if result.outcome in text.FAILED:
        SubElement(case, "system-out").text = _evidence(result)
    return case


def _statistics(elements: Iterable[Element]) -> dict[str, str]:
    cases = list(elements)
    numbers = {
        "tests": len(cases),
        "failures": sum(case.find("failure") is not None for case in cases),
        "errors": sum(case.find("error") is not None for case in cases),
        "skipped": sum(case.find("skipped") is not None for case in cases),
    }
    seconds = sum(float(case.get("time", 0)) for case in cases)
    return {**{name: str(number) for name, number in numbers.items()}, "time": f"{seconds:.3f}"}


def _evidence(result: Result) -> str:
    """The steps with their times, then the attachments, each under its name."""
    parts = [
        f"{'ok    ' if step.passed else 'FAILED'} {step.name} ({text.duration(step.seconds)}) {step.detail}".rstrip()
        for step in result.steps
    ]
    for attachment in result.attachments:
        parts.append(f"\n===== {attachment.name} =====\n{text.clip(attachment.text, _TEXT_LIMIT)}")
    return "\n".join(parts)
