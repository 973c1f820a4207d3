"""What readers of the site find: every promise with its proof, links that lead somewhere, without any network."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from playwright.sync_api import Browser

from clusterproof import capabilities, catalog

from ..broken import breakages as breakages
from ..broken import registry
from .conftest import ROOT
from .site import Page, Section

PROMISES = catalog.scan([catalog.root()])


def section(pages: dict[str, Page], promise: catalog.Promise) -> Section:
    """Where a promise stands in the catalogue."""
    area = promise.id.partition("/")[0]
    return pages[f"catalogue/{area}.html"].sections[promise.id.replace("/", "-")]


@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise.id)
def test_every_promise_is_in_the_catalogue(pages: dict[str, Page], promise: catalog.Promise) -> None:
    found = section(pages, promise)

    assert promise.sentence in " ".join(found.text.split())
    assert promise.source in found.links
    assert f"::{promise.function}" in found.text
    assert f"Tier {promise.tier};" in found.text
    assert all(name in found.text for name in (*promise.capabilities, *promise.pod_security))
    proofs = {each.name for each in registry.ALL.values() if promise.id in {id.partition("[")[0] for id in each.breaks}}
    assert all(f"{name}: " in found.text for name in proofs)
    assert ("No cluster is broken on purpose for it yet." in found.text) == (not proofs)


def test_the_catalogue_has_nothing_else(pages: dict[str, Page]) -> None:
    entries = {
        id
        for name, page in pages.items()
        for id, found in page.sections.items()
        if name.startswith("catalogue/") and "Alone: pytest" in found.text
    }

    assert entries == {promise.id.replace("/", "-") for promise in PROMISES}
    assert all(each.meaning in found.text for each in capabilities.ALL.values() for found in _capabilities(pages))


def _capabilities(pages: dict[str, Page]) -> list[Section]:
    return [pages["catalogue/index.html"].sections["capabilities"]]


def test_links_lead_somewhere(site: Path, pages: dict[str, Page]) -> None:
    wrong = []
    for name, page in pages.items():
        if name == "404.html":  # it is shown in whatever folder was asked for
            continue
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme:
                sound = parts.scheme in ("http", "https") and re.fullmatch(r"[\w.-]+(:\d+)?", parts.netloc)
                sound = sound and not re.search(r"[\s<>\"']", link)
            else:
                target = (page.path.parent / unquote(parts.path)).resolve() if parts.path else page.path
                there = pages.get(target.relative_to(site).as_posix()) if target.is_relative_to(site) else None
                sound = target.is_file() and (not parts.fragment or (there and unquote(parts.fragment) in there.ids))
            if not sound:
                wrong.append(f"{name}: {link}")
    assert not wrong


def test_it_opens_from_files_without_a_network(site: Path, browser: Browser) -> None:
    page = browser.new_page()
    page.set_default_timeout(15_000)
    asked, said = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))

    page.goto((site / "index.html").as_uri())
    page.get_by_role("link", name="catalogue of promises", exact=False).first.click()
    page.wait_for_url("**/catalogue/index.html")
    page.locator("input.md-search__input").press_sequentially("ttlSecondsAfterFinished")
    page.locator("a.md-search-result__link[href*=apps-job-ttl]").click()
    page.wait_for_url(re.compile(r"/catalogue/apps\.html\?.*#apps-job-ttl$"))
    page.close()

    assert not [url for url in asked if not url.startswith(("file:", "data:", "blob:"))]
    assert said == []


def test_the_example_of_a_promise_is_what_the_suites_have() -> None:
    text = (ROOT / "docs" / "promise.md").read_text()
    promise, breakage = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)

    assert promise in (ROOT / "suites/apps/test_job.py").read_text()
    assert breakage in (ROOT / "tests/broken/breakages/controllers.py").read_text()
    assert "apps/job/ttl" in registry.ALL["ttl_after_finished_controller_off"].breaks
