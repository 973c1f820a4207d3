"""junit.xml, read by another program's reader."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from clusterproof.reports import junit
from junitparser import Error, Failure, JUnitXml, Skipped, TestCase

from clusterproof.outcome import Outcome, Run

from . import samples


def read(run: Run, folder: Path) -> tuple[JUnitXml, dict[str, TestCase]]:
    document = JUnitXml.fromfile(str(junit.write(run, folder)))
    return document, {f"{case.classname}.{case.name}": case for suite in document for case in suite}


def test_suites_are_areas_and_cases_are_promises(tmp_path: Path) -> None:
    document, cases = read(samples.mixed_run(), tmp_path)

    assert [suite.name for suite in document] == ["access", "api", "apps", "health", "network"]
    assert "apps.job.completion[indexed]" in cases
    assert "health.health.livez" in cases
    assert (document.tests, document.failures, document.errors) == (10, 1, 1)
    assert document.time == 42.0


def test_each_outcome_has_its_element(tmp_path: Path) -> None:
    _, cases = read(samples.mixed_run(), tmp_path)

    (broken,) = cases["apps.deployment.rolling_update"].result
    assert isinstance(broken, Failure)
    assert broken.message.startswith("rolled out: not within 30 s")
    assert broken.text.startswith("The deployment rolling_update MUST hold.\n\n")
    assert "assert 1 == 2" in broken.text
    (error,) = cases["network.ingress.routing"].result
    assert isinstance(error, Error)
    (unsupported,) = cases["network.service.load_balancer"].result
    assert isinstance(unsupported, Skipped)
    assert unsupported.message.startswith("unsupported: network.loadbalancer: no Service")
    (skipped,) = cases["api.api.restart"].result
    assert skipped.message == "skipped: disruptive: needs --disruptive"
    assert cases["health.health.livez"].result == []


def test_evidence_only_where_something_went_wrong(tmp_path: Path) -> None:
    _, cases = read(samples.mixed_run(), tmp_path)

    assert {name for name, case in cases.items() if case.system_out} == {
        "apps.deployment.rolling_update",
        "apps.job.suspend",
        "network.ingress.routing",
    }
    assert "===== web.yaml =====\nkind: Pod" in cases["apps.deployment.rolling_update"].system_out


def test_the_numbers_of_each_suite_add_up(tmp_path: Path) -> None:
    document, _ = read(samples.mixed_run(), tmp_path)

    for suite in document:
        said = (suite.tests, suite.failures, suite.errors, suite.skipped, suite.time)
        suite.update_statistics()
        assert said == (suite.tests, suite.failures, suite.errors, suite.skipped, suite.time)


def test_an_omitted_promise_is_a_skipped_case(tmp_path: Path) -> None:
    run = samples.run(samples.result("health/livez"), expected=("health/livez", "apps/job/retry"), complete=False)
    document, cases = read(run, tmp_path)

    (missing,) = cases["apps.job.retry"].result
    assert missing.message == "skipped: not tried: the run ended before its turn"
    properties = {each.name: each.value for suite in document for each in suite.properties()}
    assert properties["Complete"] == "no: 1 of 2 selected promises not tried"


def test_odd_characters_stay_legal_xml_and_readable(tmp_path: Path) -> None:
    _, cases = read(samples.odd_run(), tmp_path)

    (case,) = cases.values()
    assert "a|b `c` <d> & ]]>" in case.result[0].message
    assert "😀" in case.result[0].text


def test_a_huge_failure_stays_small(tmp_path: Path) -> None:
    path = junit.write(samples.huge_run(), tmp_path)

    assert path.stat().st_size < 200_000
    assert "characters left out" in path.read_text()


def test_nothing_tried(tmp_path: Path) -> None:
    document, cases = read(samples.run(cluster=None, complete=False), tmp_path)

    assert (document.tests, cases) == (0, {})


def test_every_outcome_but_kept_is_mapped(tmp_path: Path) -> None:
    results = [samples.result(f"health/{outcome}", outcome, "because") for outcome in Outcome]
    _, cases = read(samples.run(*results), tmp_path)

    assert [name for name, case in cases.items() if case.is_passed] == ["health.health.kept"]


def test_nothing_that_the_strictest_reader_refuses(tmp_path: Path) -> None:
    allowed = {
        "testsuites": {"name", "time", "tests", "failures", "errors"},
        "testsuite": {"name", "time", "tests", "failures", "errors", "skipped", "timestamp"},
        "testcase": {"name", "time", "classname"},
        "properties": set(),
        "property": {"name", "value"},
        "failure": {"type", "message"},
        "error": {"type", "message"},
        "skipped": {"type", "message"},
        "system-out": set(),
    }
    root = ElementTree.parse(junit.write(samples.mixed_run(), tmp_path)).getroot()

    for element in root.iter():
        assert set(element.attrib) <= allowed[element.tag], element.tag
        assert element.tag == "testsuite" or element.find("properties") is None
