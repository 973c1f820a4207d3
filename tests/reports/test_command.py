"""`clusterproof report`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from clusterproof.reports import result

from clusterproof import cli

from . import samples


@pytest.fixture
def document(tmp_path: Path) -> Path:
    """The result document of a run, alone in a folder."""
    (tmp_path / "run").mkdir()
    return result.write(samples.mixed_run(), tmp_path / "run")


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The one folder on the PATH besides the system's own."""
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.usefixtures("programs")
def test_everything_is_made_from_the_document_alone(document: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = document.read_bytes()

    assert cli.main(["report", str(document)]) == 0
    assert names(document.parent) == {"result.json", "report.html", "summary.md", "junit.xml", "allure"}
    assert document.read_bytes() == before
    assert "no Allure site: there is no program `allure` on the PATH; " in capsys.readouterr().out


def test_only_what_was_asked_for_goes_where_it_was_asked(document: Path, tmp_path: Path) -> None:
    assert cli.main(["report", str(document), "--output", str(tmp_path / "new" / "place"), "--formats=html"]) == 0
    assert names(tmp_path / "new" / "place") == {"report.html"}
    assert names(document.parent) == {"result.json"}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "cannot be read: No such file or directory"),
        ("{", "not a JSON document: "),
        ("[]", "not a result document: it does not name its schema version"),
        ('{"schema": "9.0"}', "schema version 9.0 cannot be read; this is version "),
        ('{"schema": "1.0"}', "not a result document: $: "),
    ],
)
def test_bad_input_is_one_sentence(
    content: str | None, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = tmp_path / "result.json"
    if content is not None:
        document.write_text(content)
    before = names(tmp_path)

    assert cli.main(["report", str(document), "--formats=html,pdf"]) == 4
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("clusterproof: --formats: no report format pdf; there are json, ")
    assert f"; {document}: {told}" in line
    assert names(tmp_path) == before


def test_a_folder_is_no_document(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["report", str(tmp_path)]) == 4
    assert capsys.readouterr().err == f"clusterproof: {tmp_path}: cannot be read: Is a directory\n"


def test_a_folder_that_cannot_be_made_is_one_sentence(document: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["report", str(document), f"--output={document}/below"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("clusterproof: cannot write junit, markdown, allure, html to ")
    assert line.endswith("Not a directory")


FILL = """
set -e
mount -t tmpfs -o size=2m tmpfs "$DISK"
"$PROGRAM" report "$DOCUMENT" --output "$DISK"
before=$(cd "$DISK" && find . -type f | sort | xargs cat | sha256sum; ls -R "$DISK")
cat /dev/zero > "$DISK/rest" 2>/dev/null || true
code=0
"$PROGRAM" report "$LATER" --output "$DISK" || code=$?
rm "$DISK/rest"
after=$(cd "$DISK" && find . -type f | sort | xargs cat | sha256sum; ls -R "$DISK")
[ "$before" = "$after" ] || echo "not as before: $before $after"
exit "$code"
"""


@pytest.mark.skipif(
    not shutil.which("unshare") or subprocess.run(["unshare", "-rm", "true"], capture_output=True).returncode != 0,
    reason="no file system can be mounted here",
)
@pytest.mark.usefixtures("programs")
def test_a_full_disk_is_one_sentence_and_the_earlier_reports_stay(document: Path, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "later").mkdir()
    later = result.write(samples.run(*samples.EVERY_OUTCOME[:4]), tmp_path / "later")
    surroundings = {
        "PATH": os.environ["PATH"],
        "PROGRAM": str(Path(sys.executable).with_name("clusterproof")),
        "DISK": str(tmp_path / "disk"),
        "DOCUMENT": str(document),
        "LATER": str(later),
    }
    done = subprocess.run(["unshare", "-rm", "sh", "-c", FILL], env=surroundings, capture_output=True, text=True)

    assert done.stderr == (
        f"clusterproof: cannot write junit, markdown, allure, html to {tmp_path / 'disk'}: No space left on device\n"
    )
    assert done.returncode == 1
    assert "not as before" not in done.stdout
