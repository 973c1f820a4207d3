"""report.html: the run as one page for people, which needs no server, no network and no other file."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import jinja2
from markupsafe import Markup

from clusterproof.outcome import Outcome, Result, Run

from .. import files, text
from . import charts

NAME = "report.html"

LARGEST = 2_900_000
"""Bytes: a page that can be sent by mail, and that a browser opens at once, whatever a run had to say."""

_CLIPS = (20_000, 4_000, 1_000, 200)
"""Characters that a message or a piece of evidence may have; the first with which the page is small enough is taken."""

_MARKS = {
    Outcome.KEPT: "✓",
    Outcome.FLAKY: "~",
    Outcome.BROKEN: "✗",
    Outcome.ERROR: "!",
    Outcome.UNSUPPORTED: "○",
    Outcome.SKIPPED: "»",
}
_VERDICT_MARKS = {"conformant": "✓", "broken": "✗", "partial": "!"}


@dataclass(frozen=True, slots=True)
class Seen:
    """What the clients of one promise saw, drawn."""

    result: Result
    charts: tuple[charts.Chart, ...]


def write(run: Run, directory: Path) -> Path:
    """Write the run as a page; what was too long for it is cut, says so, and is whole in result.json."""
    return files.replace(directory / NAME, page(run))


def page(run: Run) -> str:
    """The whole page."""
    run = text.clean(run)
    results = (*run.results, *text.untried(run))
    timeline = charts.timeline(run)
    seen = [Seen(each, charts.availability(each)) for each in text.by_id(run.results) if each.availability]
    rights = charts.rights(text.by_id(run.results))
    drawn = [chart for each in seen for chart in each.charts] + [matrix.chart for matrix in rights]
    charts.draw([timeline, *drawn] if timeline else drawn)
    made = ""
    for clip in _CLIPS:
        made = _template().render(
            run=run,
            results=results,
            areas=text.by_area(results),
            failed=[
                *text.having(run, Outcome.BROKEN),
                *text.having(run, Outcome.ERROR),
                *text.having(run, Outcome.FLAKY),
            ],
            tiers=sorted({each.tier for each in results if each.tier}),
            outcomes=list(Outcome),
            marks=_MARKS,
            verdict_marks=_VERDICT_MARKS,
            untried={each.id for each in text.untried(run)},
            clip=clip,
            text=text,
            script=_part("page.js"),
            style=_part("page.css"),
            timeline=timeline,
            seen=seen,
            rights=rights,
            script_hash=base64.b64encode(hashlib.sha256(_part("page.js").encode()).digest()).decode(),
        )
        if len(made.encode()) <= LARGEST:
            break
    return made


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_part),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html")


@cache
def _part(name: str) -> Markup:
    """A file of ours, which is markup as it is; its lines end as the browser will read them."""
    return Markup(Path(__file__).with_name(name).read_text(encoding="utf-8"))
