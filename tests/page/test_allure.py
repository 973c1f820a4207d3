"""The Allure site, made by Allure itself and opened in Chromium."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from clusterproof.reports import result
from playwright.sync_api import Browser

from clusterproof import cli

from ..reports import samples

LOCKED = Path(__file__).parent / "allure"
"""Allure's version, and those of all that it needs."""


@pytest.fixture(scope="module")
def allure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of the program `allure`, which is on the PATH meanwhile."""
    folder = tmp_path_factory.mktemp("allure")
    for name in "package.json", "package-lock.json":
        shutil.copy(LOCKED / name, folder)
    install = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    subprocess.run(install, cwd=folder, check=True, timeout=600)
    programs = folder / "node_modules" / ".bin"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
        yield programs


@pytest.fixture
def document(tmp_path: Path, allure: Path) -> Path:
    """The result document of a run, beside an Allure site of an earlier one."""
    (tmp_path / "run" / "allure-report").mkdir(parents=True)
    (tmp_path / "run" / "allure-report" / "old").touch()
    return result.write(samples.mixed_run(), tmp_path / "run")


def test_the_site_shows_the_run(document: Path, browser: Browser, capsys: pytest.CaptureFixture[str]) -> None:
    site = document.parent / "allure-report"

    assert cli.main(["report", str(document), "--formats=allure"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"wrote {site}"
    made = {path.name for path in document.parent.iterdir()}
    assert made == {"result.json", "allure", "allure-history", "allure-report"}
    assert not (site / "old").exists()

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=site))
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{server.server_port}/index.html")
        for name in "self_heal", "rolling_update":
            page.get_by_text(name).first.wait_for(timeout=20_000)
    finally:
        server.shutdown()
        server.server_close()


def test_where_none_can_be_made_one_sentence_says_so_and_the_earlier_site_stays(
    document: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NODE_OPTIONS", "--no-such-option")

    assert cli.main(["report", str(document), "--formats=allure"]) == 1
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("no Allure site: `allure generate` ended with 9 and said: ")
    assert {path.name for path in (document.parent / "allure-report").iterdir()} == {"old"}


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing of what was asked for."""
