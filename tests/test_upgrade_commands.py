"""`clusterproof upgrade` before it reaches a cluster, and what it writes about one."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from clusterproof.embedded import state
from clusterproof.embedded.components import kubernetes_versions
from clusterproof.upgrade.folder import Before, Folder
from clusterproof.upgrade.timeline import Outage, Seen
from clusterproof.upgrade.verdict import Check, Verdict, check

from clusterproof.cli import main

BEFORE = Before("upgrade-abc", "cp-upgrade-abc", "/nowhere", "prod", "uid", "agnhost", 1.0)


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Exit code and the one sentence of a command that cannot be carried out."""
    try:
        code = main(["upgrade", *arguments])
    except SystemExit as exit:
        code = int(exit.code or 0)
    return code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["prepare"], "a cluster must be named by --kubeconfig or --context"),
        (["prepare", "--kubeconfig", "{folder}/none"], "none: cannot be read"),
        (["prepare", "--rate", "0", "--kubeconfig", "x"], "0: 1 to 100 requests per second are expected"),
        (["monitor"], "nothing was prepared there; begin with: clusterproof upgrade prepare"),
        (["verify"], "nothing was prepared there; begin with: clusterproof upgrade prepare"),
        (["verify", "--remove"], "nothing was prepared there"),
        (["verify", "--budget", "web=1"], "--budget: 'web=1': there is no 'web'"),
        (["back"], "invalid choice: 'back'"),
    ],
)
def test_misuse_is_one_sentence(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    arguments: list[str],
    sentence: str,
) -> None:
    monkeypatch.delenv("CLUSTERPROOF_KUBECONFIG", raising=False)
    monkeypatch.setenv("CLUSTERPROOF_UPGRADE_STATE", str(tmp_path / "state"))

    code, told = said(capsys, *(each.format(folder=tmp_path) for each in arguments))

    assert code == 4
    assert sentence in told
    assert len(told.splitlines()) == 1
    assert not (tmp_path / "state").exists()


def test_a_folder_holds_one_observation(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "state")
    folder.make(BEFORE)

    with pytest.raises(pytest.UsageError, match="holds an observation already"):
        folder.make(BEFORE)
    with pytest.raises(pytest.UsageError, match="`prepare` was cut off"):
        folder.prepared(None, "")
    folder.end()
    folder.make(BEFORE)
    assert asdict(folder.load()) == asdict(BEFORE)
    assert (folder.path / "before.json").stat().st_mode & 0o077 == 0, "it has a token in it"


@pytest.mark.parametrize(("content", "complaint"), [("{", "cannot be read"), ('{"run": 1}', "cannot be read")])
def test_a_damaged_folder_is_one_sentence(tmp_path: Path, content: str, complaint: str) -> None:
    (tmp_path / "before.json").write_text(content)

    with pytest.raises(pytest.UsageError, match=complaint):
        Folder(tmp_path).load()


def test_the_verdict_is_told_three_ways(tmp_path: Path) -> None:
    outage = Outage(100.0, 103.5, "no answer in time")
    verdict = Verdict(
        run="upgrade-abc",
        server="https://prod",
        before="v1.36.3",
        after="v1.37.2",
        started=1.0,
        ended=200.0,
        checks=[check("nodes/ready", [], "all are"), check("data/volumes", ["a|b is <empty>"], "")],
        seen=[Seen("observer", "api read", 10, 2, 99.0, 1.0, [outage], [])],
        cost={"requests": 10, "rate": 5.0, "cpu": 0.025},
        told=["Node n1 is new"],
    )
    verdict.write(tmp_path)

    assert verdict.sentence == "BROKEN: v1.36.3 to v1.37.2: 1 of 2 checks failed, 1 are kept"
    text = (tmp_path / "verdict.txt").read_text()
    assert text.index("broken       data/volumes") < text.index("kept         nodes/ready")
    assert "note: Node n1 is new" in text
    assert "| broken | data/volumes | a\\|b is &lt;empty> |" in (tmp_path / "verdict.md").read_text()
    read = json.loads((tmp_path / "verdict.json").read_text())
    assert (read["verdict"], read["probes"][0]["disruption_seconds"]) == ("broken", 3.5)
    assert read["probes"][0]["outages"] == [{"start": 100.0, "end": 103.5, "error": "no answer in time"}]


def test_many_problems_are_counted() -> None:
    assert check("a/b", ["x"] * 25, "").sentences[-1] == "... and 5 more"
    assert check("a/b", [], "fine") == Check("a/b", "kept", ("fine",))


@pytest.mark.parametrize(
    ("now", "arguments", "sentence"),
    [
        ("1.37.2", ["--to", "1.36.3"], "--to=1.36.3: a cluster at 1.37.2 is upgraded to a newer one"),
        ("1.36.3", ["--to", "1.40.0"], "--to=1.40.0: cannot be had here; choose from: 1.36.3, 1.37.2"),
        ("1.35.0", [], "--to=1.37.2: a cluster at 1.35.0 is upgraded to a newer one of its minor, or of the next"),
        ("1.36.3", ["--from", "1.35.0"], "--from=1.35.0: cluster here is at 1.36.3"),
    ],
)
def test_what_cannot_be_upgraded_is_one_sentence(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    now: str,
    arguments: list[str],
    sentence: str,
) -> None:
    monkeypatch.setenv("CLUSTERPROOF_STATE", str(tmp_path))
    made = state.allocate("here", now, 1)
    made.ready = True
    made.save()

    code, told = said(capsys, "run", "--name", "here", *arguments)

    assert (code, sentence in told) == (4, True), told


def test_there_are_two_minors() -> None:
    assert kubernetes_versions() == {"1.36.3": "1.36", "1.37.2": "1.37"}
