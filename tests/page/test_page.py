"""What a reader does with the page: look, filter, use the keyboard, listen, print."""

from __future__ import annotations

from itertools import product

import pytest
from axe_playwright_python.sync_playwright import Axe

from clusterproof.outcome import Outcome

from ..reports import samples
from .conftest import Opened

MIXED = samples.mixed_run()
IDS = {each.id for each in MIXED.results}


def test_everything_is_shown_at_first(opened: Opened) -> None:
    assert set(opened.shown()) == IDS
    assert opened.page.get_by_role("status").inner_text() == f"{len(IDS)} of {len(IDS)} promises"
    for each in MIXED.results:
        told = opened.page.locator(f"[id='{each.id}']").inner_text()
        assert all(words in told for words in (each.promise, each.outcome, each.reason, each.tier))
    for verdict in MIXED.profiles:
        assert opened.page.locator("#verdicts tr", has_text=verdict.reason).count() == 1


@pytest.mark.parametrize("outcome", sorted({each.outcome for each in MIXED.results}))
def test_filter_by_outcome(opened: Opened, outcome: Outcome) -> None:
    box = opened.page.get_by_role("checkbox", name=outcome)

    box.uncheck()
    assert set(opened.shown()) == {each.id for each in MIXED.results if each.outcome is not outcome}
    box.check()
    assert set(opened.shown()) == IDS


def test_filter_by_area_and_tier(opened: Opened) -> None:
    page = opened.page

    page.get_by_label("Area").select_option("apps")
    assert set(opened.shown()) == {id for id in IDS if id.startswith("apps/")}
    assert page.locator(".area:visible h3").all_inner_texts() == ["apps"]
    page.get_by_label("Tier").select_option("smoke")
    assert opened.shown() == ["apps/deployment/self_heal"]
    page.get_by_role("button", name="Show all").click()
    page.get_by_text(f"{len(IDS)} of {len(IDS)} promises").wait_for()
    assert set(opened.shown()) == IDS


def test_search_finds_words_in_any_order_in_folded_evidence_too(opened: Opened) -> None:
    search = opened.page.get_by_role("searchbox", name="Search")

    search.fill("ERRIMAGEPULL deployment")
    assert opened.shown() == ["apps/deployment/rolling_update"]
    search.fill("backoff")
    assert set(opened.shown()) == {each.id for each in MIXED.results if each.attachments}
    search.fill("of this there is nothing")
    assert opened.page.get_by_role("status").inner_text() == f"0 of {len(IDS)} promises"


def test_a_link_to_a_hidden_promise_shows_it(opened: Opened) -> None:
    opened.page.get_by_role("searchbox", name="Search").fill("livez")
    opened.page.get_by_role("link", name="network/ingress/routing").first.click()

    opened.page.locator("[id='network/ingress/routing']").wait_for(state="visible")
    assert set(opened.shown()) == IDS


def test_the_keyboard_is_enough(opened: Opened) -> None:
    keyboard, focused = opened.page.keyboard, "document.activeElement"

    keyboard.press("Tab")
    assert opened.page.evaluate(f"{focused}.textContent") == "Skip to the promises"
    keyboard.press("Enter")
    keyboard.press("Tab")
    assert opened.page.evaluate(f"{focused}.id") == "words"
    keyboard.type("rolling")
    assert opened.shown() == ["apps/deployment/rolling_update"]
    opened.page.get_by_role("checkbox", name="broken").focus()
    keyboard.press("Space")
    assert opened.shown() == []
    keyboard.press("Space")
    summary = opened.page.locator(".promise:visible summary").first
    summary.focus()
    keyboard.press("Enter")
    assert opened.page.locator(".promise:visible details[open] pre").first.is_visible()


def test_evidence_is_folded_and_whole(opened: Opened) -> None:
    promise = opened.page.locator("[id='apps/deployment/rolling_update']")
    pre = promise.get_by_label("events")

    assert not pre.is_visible()
    for summary in promise.locator("summary").all():
        summary.click()
    assert pre.inner_text() == "Warning BackOff"


def test_pictures_have_words_and_a_table(opened: Opened) -> None:
    names = [each.get_attribute("aria-label") or "" for each in opened.page.get_by_role("img").all()]

    assert [name.partition(". ")[0] for name in names] == [
        "Timeline of the run",
        f"{samples.SEEN.url} asked from {samples.SEEN.asked_from}",
        f"access/rbac/matrix: {samples.TRIED.who}",
    ]
    assert "32 failed, longest gap 0.75 s" in names[1]
    assert "get secrets: not granted, allowed (200)" in names[2]
    assert opened.page.locator("#pictures details table").count() == len(names)


@pytest.mark.parametrize("opened", [("odd", "light")], indirect=True)
def test_what_a_cluster_says_is_never_markup(opened: Opened) -> None:
    assert opened.page.locator("d").count() == 0
    assert "<d> & ]]>" in opened.page.get_by_role("heading", level=1).inner_text()


@pytest.mark.parametrize("opened", [*product(("every outcome", "odd"), ("light", "dark"))], indirect=True, ids="-".join)
def test_axe_finds_no_violation(opened: Opened) -> None:
    for details in opened.page.locator("details").all():
        details.evaluate("each => each.open = true")
    found = Axe().run(opened.page)

    assert found.violations_count == 0, found.generate_report()


def test_it_prints_what_failed_unfolded_and_without_the_form(opened: Opened) -> None:
    assert opened.page.pdf().startswith(b"%PDF-")
    opened.page.emulate_media(media="print")
    opened.page.evaluate("dispatchEvent(new Event('beforeprint'))")

    assert not opened.page.locator("#filter").is_visible()
    assert opened.page.locator("[id='apps/deployment/rolling_update'] pre").first.is_visible()
    opened.page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert not opened.page.locator("[id='apps/deployment/rolling_update'] pre").first.is_visible()


@pytest.mark.parametrize("opened", [("300", "light")], indirect=True)
def test_300_promises_are_small_and_quick(opened: Opened, capsys: pytest.CaptureFixture[str]) -> None:
    load = "performance.getEntriesByType('navigation')[0].loadEventEnd"
    milliseconds = opened.page.wait_for_function(load).json_value()
    size = opened.path.stat().st_size
    with capsys.disabled():
        print(f"\n300 promises: {size / 1e6:.2f} MB, loaded in {milliseconds:.0f} ms")

    assert opened.page.get_by_role("status").inner_text() == "300 of 300 promises"
    assert size < 3_000_000
    assert milliseconds < 10_000
