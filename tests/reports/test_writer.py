"""Which formats are written, and what happens when one cannot be."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from clusterproof.reports import files, junit, writer

from . import samples


def test_every_format_is_written(tmp_path: Path) -> None:
    written = writer.write(samples.mixed_run(), tmp_path / "out", writer.FORMATS)

    assert [path.name for path in written.paths] == ["result.json", "junit.xml", "summary.md", "allure", "report.html"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "allure",
        "junit.xml",
        "report.html",
        "result.json",
        "summary.md",
    ]
    assert written.problems == ()


def test_only_what_was_chosen_is_written(tmp_path: Path) -> None:
    writer.write(samples.mixed_run(), tmp_path, ["markdown"])

    assert [path.name for path in tmp_path.iterdir()] == ["summary.md"]


def test_a_full_disk_is_one_sentence_and_earlier_files_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer.write(samples.mixed_run(), tmp_path, ["json", "junit"])
    before = {path.name: path.read_text() for path in tmp_path.iterdir()}

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", full)
    written = writer.write(samples.run(), tmp_path, ["json", "junit"])

    assert written.problems == (f"cannot write json, junit to {tmp_path}: No space left on device",)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == before


def test_a_folder_that_is_a_file_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")

    (problem,) = writer.write(samples.run(), tmp_path / "out", writer.FORMATS).problems
    assert problem == f"cannot write json, junit, markdown, allure, html to {tmp_path / 'out'}: File exists"


def test_a_defect_in_one_format_costs_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def defect(*_: object) -> Path:
        raise KeyError("area")

    monkeypatch.setattr(junit, "write", defect)
    written = writer.write(samples.mixed_run(), tmp_path, writer.FORMATS)

    assert [path.name for path in written.paths] == ["result.json", "summary.md", "allure", "report.html"]
    assert written.problems == (f"cannot write junit to {tmp_path}: KeyError: 'area'",)


def test_replace_leaves_nothing_half_written(tmp_path: Path) -> None:
    with pytest.raises(UnicodeEncodeError):
        files.replace(tmp_path / "x", "\ud800")

    assert list(tmp_path.iterdir()) == []
