"""Promises read from source: ids, sentences, tiers, capabilities; and what verdicts make of them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from clusterproof import catalog, profiles
from clusterproof.outcome import Outcome, Result, Verdict


@pytest.mark.parametrize(
    ("path", "function", "expected"),
    [
        ("apps/test_deployment.py", "test_rolling_update", "apps/deployment/rolling_update"),
        ("health/test_health.py", "test_livez", "health/livez"),
        ("network/service/test_cluster_ip.py", "test_udp", "network/service/cluster_ip/udp"),
        ("test_thing.py", "test_it", "thing/it"),
    ],
)
def test_report_ids(path: str, function: str, expected: str) -> None:
    assert catalog.report_id(Path(path), function) == expected


@pytest.mark.parametrize(
    ("docstring", "expected"),
    [
        ("A pod MUST run. It says more.", "A pod MUST run."),
        ("A pod MUST\n    run.\n\n    More.", "A pod MUST run."),
        ("Version 1.2 MUST work", "Version 1.2 MUST work"),
        (None, ""),
    ],
)
def test_sentences(docstring: str | None, expected: str) -> None:
    assert catalog.sentence(docstring) == expected


def test_marks_are_read_from_the_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "root", lambda: tmp_path)
    (tmp_path / "network").mkdir()
    (tmp_path / "network/test_ingress.py").write_text(
        "pytestmark = [pytest.mark.requires(capabilities.INGRESS)]\n"
        "@pytest.mark.smoke\n"
        "@pytest.mark.requires(METRICS)\n"
        '@pytest.mark.pod_security("privileged")\n'
        'def test_one(): "It MUST."\n'
        'def test_two(): "It MUST."\n'
        "def helper(): pass\n"
    )
    one, two = catalog.scan([tmp_path])
    assert (one.id, one.tier, set(one.capabilities)) == (
        "network/ingress/one",
        "smoke",
        {"network.ingress", "scale.metrics"},
    )
    assert (two.tier, two.capabilities) == ("normal", ("network.ingress",))
    assert (one.pod_security, two.pod_security) == (("privileged",), ())


def test_a_file_that_is_not_python_is_named(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text("\nassert ...,,\n")
    with pytest.raises(pytest.UsageError, match=r"test_it.py:2: invalid syntax"):
        catalog.scan([tmp_path])


def test_what_lies_in_the_suites(tmp_path: Path) -> None:
    suites = catalog.root()
    assert catalog.are_suites([f"{suites}::test_it"], by_module=False, start=tmp_path)
    assert catalog.are_suites(["clusterproof.suites"], by_module=True, start=tmp_path)
    assert not catalog.are_suites([str(suites), "tests"], by_module=False, start=tmp_path)
    assert not catalog.are_suites([], by_module=False, start=tmp_path)


def result(id: str, outcome: Outcome = Outcome.KEPT, *capabilities: str) -> Result:
    return Result(id, id, "It MUST.", "", "normal", capabilities, outcome)


def judged(name: str, *results: Result, missing: tuple[str, ...] = ()) -> Verdict | None:
    verdict = profiles.verdict(profiles.ALL[name], results, missing)
    return verdict.verdict if verdict else None


def test_verdicts() -> None:
    kept, unclaimed = result("api/a"), result("network/b", Outcome.UNSUPPORTED, "network.ingress")
    assert judged("core", kept) is Verdict.CONFORMANT
    assert judged("core", kept, result("api/c", Outcome.BROKEN)) is Verdict.BROKEN
    assert judged("core", kept, result("api/c", Outcome.ERROR)) is Verdict.PARTIAL
    assert judged("core", kept, result("api/c", Outcome.SKIPPED)) is Verdict.PARTIAL
    assert judged("core", kept, missing=("api/d",)) is Verdict.PARTIAL
    assert judged("networking", unclaimed) is Verdict.PARTIAL
    assert judged("full", kept, unclaimed) is Verdict.CONFORMANT
    assert judged("storage", kept) is None


def test_a_core_profile_is_not_about_extended_capabilities() -> None:
    assert judged("core", result("network/b", Outcome.BROKEN, "network.ingress")) is None
    assert judged("core", result("access/c", Outcome.KEPT, "access.certificates")) is Verdict.CONFORMANT


def test_every_promise_of_the_suites_names_its_source() -> None:
    nameless = [promise.id for promise in catalog.scan([catalog.root()]) if not promise.source.startswith("https://")]
    assert not nameless, "their docstrings must have a line `Source: URL` of what documents them"


def test_the_digest_is_of_every_source_and_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "root", lambda: tmp_path)
    (tmp_path / "apps").mkdir()
    source = tmp_path / "apps" / "test_job.py"
    source.write_text("one")
    lines = f"{hashlib.sha256(b'one').hexdigest()}  apps/test_job.py\n"
    assert catalog.digest() == hashlib.sha256(lines.encode()).hexdigest()

    (tmp_path / "apps" / "test_job.cpython.pyc").write_text("compiled")
    assert catalog.digest() == hashlib.sha256(lines.encode()).hexdigest()
    source.rename(tmp_path / "apps" / "test_cronjob.py")
    assert catalog.digest() != hashlib.sha256(lines.encode()).hexdigest()
