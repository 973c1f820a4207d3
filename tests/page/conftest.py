"""Chromium, and pages in it that were opened from a file."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from clusterproof.reports import html
from playwright.sync_api import Browser, Page, sync_playwright

from clusterproof.outcome import Attachment, Outcome, Result, Run, Step

from ..reports import samples

AREAS = ("access", "api", "apps", "network", "storage")
TIERS = ("smoke", "normal", "full")
REASON = "pods are 3, all ready: not within 60 s; 2/3 are ready; last seen: web-1 ErrImagePull"


def many(number: int) -> Run:
    """A run of so many promises, each tenth broken, each with what a real one has to tell."""
    return samples.run(*(_one(each) for each in range(number)), seconds=number / 4)


def _one(number: int) -> Result:
    broken = number % 10 == 3
    began = samples.START + number / 5
    name = f"{AREAS[number % len(AREAS)]}/object_{number // 20}/promise_{number}"
    return replace(
        samples.result(name, Outcome.BROKEN if broken else Outcome.KEPT, REASON if broken else ""),
        promise=f"A thing of kind {number} MUST do what the documentation of Kubernetes says of it, and nothing else.",
        tier=TIERS[number % len(TIERS)],
        started=began,
        seconds=1 + number % 7,
        worker=f"w{number % 10}",
        message="E   assert pods are ready\n" * 150 if broken else "",
        steps=tuple(Step(f"wait until pods in cp-1-a-{at} are 3, all ready", began + at, 0.7) for at in range(12)),
        attachments=(Attachment("log", "text/plain", 'I1123 17:03:01 "ready" pod=<web-1>\n' * 400),) * 3
        if broken
        else (),
        availability=(samples.SEEN,) if number in (3, 4) else (),
        rights=(samples.TRIED,) if number in (5, 6) else (),
    )


@dataclass
class Opened:
    """A page that was opened, and what went on meanwhile."""

    page: Page
    path: Path
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def shown(self) -> list[str]:
        """Ids of the promises that are to be seen."""
        found: list[str] = self.page.locator(".promise:visible").evaluate_all("all => all.map(each => each.id)")
        return found


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Debian's Chromium."""
    program = shutil.which("chromium")
    assert program, "these tests need the program chromium: apt-get install chromium"
    with sync_playwright() as playwright:
        # Its sandbox needs rights that root in a container lacks; it only opens pages made here.
        running = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture(scope="session")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Pages of runs made by hand, by name."""
    runs = {"every outcome": samples.mixed_run(), "odd": samples.odd_run(), "300": many(300)}
    return {name: html.write(run, tmp_path_factory.mktemp("page")) for name, run in runs.items()}


@pytest.fixture
def opened(request: pytest.FixtureRequest, browser: Browser, pages: dict[str, Path]) -> Iterator[Opened]:
    """A page, opened from its file: `every outcome` unless the test names another, with the colours it asks for."""
    name, colours = getattr(request, "param", ("every outcome", "light"))
    page = browser.new_page(color_scheme=colours)
    page.set_default_timeout(15_000)
    watched = Opened(page, pages[name])
    page.on("request", lambda asked: watched.requests.append(asked.url))
    page.on("console", lambda said: watched.complaints.append(said.text))
    page.on("pageerror", lambda error: watched.complaints.append(str(error)))
    page.goto(watched.path.as_uri())
    yield watched
    page.close()
    assert watched.requests == [watched.path.as_uri()], "the page asks for something"
    assert watched.complaints == []
