"""summary.md, as another program's Markdown reader understands it."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path

from clusterproof.reports import markdown, text
from markdown_it import MarkdownIt

from clusterproof.outcome import Run

from . import samples


def read(run: Run, folder: Path) -> str:
    return markdown.write(run, folder).read_text(encoding="utf-8")


def render(source: str) -> str:
    return MarkdownIt("commonmark").enable("table").render(source)


def test_what_needs_attention_comes_first(tmp_path: Path) -> None:
    titles = re.findall("^## (.*)$", read(samples.mixed_run(), tmp_path), re.MULTILINE)

    assert titles == [
        "Broken promises",
        "Flaky: broken, then kept in a fresh namespace",
        "Errors: nothing was learned",
        "Unsupported",
        "Skipped",
        "Left behind",
        "Measured",
        "Run",
        "Nodes",
        "Capabilities",
        "All promises",
    ]


def test_a_broken_promise_is_told_in_full(tmp_path: Path) -> None:
    summary = read(samples.mixed_run(), tmp_path)
    section = summary.split("## Broken promises")[1].split("## Errors")[0]

    assert "### `apps/deployment/rolling_update`" in section
    assert r"The deployment rolling\_update MUST hold." in section
    assert "**rolled out: not within 30 s; 1/3 pods run the new template; last seen: web-7c9f ErrImagePull**" in section
    assert "assert 1 == 2" in section


def test_verdicts_and_counts(tmp_path: Path) -> None:
    summary = read(samples.mixed_run(), tmp_path)

    assert "**5 kept, 1 broken, 1 flaky, 1 error, 1 unsupported, 1 skipped** in 42.0 s" in summary
    assert r"| core | **broken** | 5 kept, 1 broken | apps/deployment/rolling\_update is broken |" in summary


def test_a_run_without_trouble_is_short(tmp_path: Path) -> None:
    summary = read(samples.run(samples.result("health/livez")), tmp_path)

    assert re.findall("^## (.*)$", summary, re.MULTILINE) == ["Run", "Nodes", "Capabilities", "All promises"]
    assert "incomplete" not in summary.lower()


def test_an_incomplete_run_says_so_at_the_top(tmp_path: Path) -> None:
    run = samples.run(samples.result("health/livez"), expected=("health/livez", "apps/job/retry"), complete=False)
    summary = read(run, tmp_path)

    assert "> Incomplete run: 1 of 2 selected promises not tried." in summary.split("## ")[0]
    assert "apps/job/retry" in summary.split("## Not tried")[1].split("## ")[0]


def test_odd_characters_are_shown_as_they_are(tmp_path: Path) -> None:
    rendered = render(read(samples.odd_run(), tmp_path))
    shown = text.one_line(text.clean(samples.ODD))

    cells = [unescape(cell) for cell in re.findall("<td>(.*?)</td>", rendered)]
    assert shown in cells
    # Inside code nothing is escaped but the pipe, which the table takes.
    assert any(shown.replace("<", "<") in cell for cell in cells if cell.startswith("<code>"))
    for row in re.findall("<tr>(.*?)</tr>", rendered.split("All promises")[1], re.DOTALL):
        assert row.count("</t") == 3
    assert "<em>" not in rendered
    assert "href" in rendered


def test_a_message_cannot_leave_its_block(tmp_path: Path) -> None:
    rendered = render(read(samples.odd_run(), tmp_path))

    block = rendered.split("<pre>")[1].split("</pre>")[0]
    assert "```" in block
    assert block.count("[g](h)") == 2


def test_a_huge_failure_stays_small(tmp_path: Path) -> None:
    assert len(read(samples.huge_run(), tmp_path)) < 20_000


def test_no_cluster(tmp_path: Path) -> None:
    summary = read(samples.run(cluster=None, complete=False, profiles=()), tmp_path)

    assert "# Clusterproof: no cluster was reached" in summary
    assert "> Incomplete run: it was stopped, or lost a worker process." in summary
