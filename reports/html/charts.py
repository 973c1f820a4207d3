"""The pictures of the page: Vega-Lite charts, drawn once into SVG that stands in the page.

Colours are the page's own (CSS variables), so that pictures follow light, dark and print. A picture is one image to a
screen reader; what it shows is in a table next to it as well, which the template makes.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup, escape

from clusterproof.outcome import Availability, Outcome, Result, Rights, Run

from .. import text

_VEGA_LITE = "6.1"
# In a process of its own: a JavaScript engine leaves threads behind, after which nobody should fork, and may crash.
_DRAW = """
import json, sys, vl_convert
json.dump([vl_convert.vegalite_to_svg(spec, vl_version=sys.argv[1]) for spec in json.load(sys.stdin)], sys.stdout)
"""
_STYLE = {
    "background": None,
    "font": "sans-serif",
    "view": {"stroke": None},
    "axis": {
        "labelColor": "currentColor",
        "titleColor": "currentColor",
        "gridColor": "var(--line)",
        "domainColor": "var(--line)",
        "tickColor": "var(--line)",
        "titleFontWeight": "normal",
    },
    "legend": {"labelColor": "currentColor", "titleColor": "currentColor", "orient": "top", "title": None},
    "header": {"labelColor": "currentColor", "titleColor": "currentColor"},
}
_WIDTH = 860
_GRANTED, _REFUSED, _SURPLUS, _LACKING = (
    "granted, allowed",
    "not granted, refused",
    "not granted, allowed",
    "granted, refused",
)


@dataclass(slots=True)
class Chart:
    """A picture with its words."""

    title: str
    told: str
    """What is to be seen on it, in a sentence."""
    spec: dict[str, Any]
    """What Vega-Lite draws."""
    svg: Markup = field(default_factory=Markup)
    """Empty until it is drawn."""


@dataclass(frozen=True, slots=True)
class Matrix:
    """Who may do what, of one promise: verbs across, resources down."""

    result: Result
    who: str
    verbs: tuple[str, ...]
    rows: tuple[tuple[str, tuple[tuple[str, int | None], ...]], ...]
    """For each resource: what each verb on it came to, and its HTTP status; None where it was not tried."""
    chart: Chart


def draw(charts: Sequence[Chart]) -> None:
    """Draw charts all at once: to start the JavaScript engine takes longer than any of them."""
    if not charts:
        return
    drawn = subprocess.run(
        [sys.executable, "-c", _DRAW, _VEGA_LITE],
        input=json.dumps([{**chart.spec, "config": _STYLE} for chart in charts]),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout
    for chart, svg in zip(charts, json.loads(drawn), strict=True):
        label = escape(f"{chart.title}. {chart.told}")
        chart.svg = Markup(svg.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1))


def timeline(run: Run) -> Chart | None:
    """Which process proved what, when; None when nothing was tried."""
    bars = [
        {
            "process": each.worker,
            "start": max(0.0, each.started - run.started),
            "end": each.started - run.started + each.seconds,
            "outcome": each.outcome,
            "told": f"{each.id}: {each.outcome} in {text.duration(each.seconds)}",
        }
        for each in run.results
        if each.started
    ]
    if not bars:
        return None
    processes = sorted({str(bar["process"]) for bar in bars}, key=lambda name: (len(name), name))
    outcomes = [each for each in Outcome if any(bar["outcome"] is each for bar in bars)]
    several = "process" if len(processes) == 1 else "processes"
    told = f"{text.plural(len(bars), 'promise')} in {len(processes)} {several}, {text.duration(run.seconds)} in all."
    spec = {
        "width": _WIDTH,
        "height": {"step": 18},
        "data": {"values": bars},
        "mark": {"type": "bar", "stroke": "var(--page)", "strokeWidth": 0.5},
        "encoding": {
            "y": {"field": "process", "type": "nominal", "sort": processes, "title": None},
            "x": {"field": "start", "type": "quantitative", "title": "seconds since the run began"},
            "x2": {"field": "end"},
            "color": {
                "field": "outcome",
                "type": "nominal",
                "scale": {"domain": outcomes, "range": [_colour(each) for each in outcomes]},
            },
            "description": {"field": "told"},
        },
    }
    return Chart("Timeline of the run", told, spec)


def availability(result: Result) -> tuple[Chart, ...]:
    """For each client of a promise, how many of its requests were answered and how long the slowest took."""
    return tuple(_availability(seen, result) for seen in result.availability)


def rights(results: Iterable[Result]) -> list[Matrix]:
    """The matrices of all promises that tried rights."""
    return [_matrix(result, tried) for result in results for tried in result.rights]


def _availability(seen: Availability, result: Result) -> Chart:
    values: list[dict[str, Any]] = []
    for number, (answered, failed, slowest) in enumerate(zip(seen.answered, seen.failed, seen.slowest, strict=True)):
        when = {"from": number * seen.interval, "to": (number + 1) * seen.interval}
        values.append({**when, "kind": "answered", "low": 0, "high": answered})
        values.append({**when, "kind": "failed", "low": answered, "high": answered + failed})
        values.append({**when, "slowest": slowest * 1000})
    span = len(seen.answered) * seen.interval
    x = {
        "field": "from",
        "type": "quantitative",
        "title": "seconds since the first answer",
        "scale": {"domain": [0, span]},
    }
    spec = {
        "vconcat": [
            {
                "width": _WIDTH,
                "height": 90,
                "transform": [{"filter": "datum.kind != null"}],
                "mark": {"type": "rect", "stroke": "var(--page)", "strokeWidth": 0.5},
                "encoding": {
                    "x": {**x, "title": None},
                    "x2": {"field": "to"},
                    "y": {"field": "low", "type": "quantitative", "title": f"requests per {seen.interval:.1f} s"},
                    "y2": {"field": "high"},
                    "color": {
                        "field": "kind",
                        "type": "nominal",
                        "scale": {"domain": ["answered", "failed"], "range": ["var(--kept)", "var(--broken)"]},
                    },
                },
            },
            {
                "width": _WIDTH,
                "height": 60,
                "transform": [{"filter": "datum.slowest != null"}],
                "mark": {"type": "line", "interpolate": "step-after", "color": "var(--accent)"},
                "encoding": {"x": x, "y": {"field": "slowest", "type": "quantitative", "title": "slowest (ms)"}},
            },
        ],
        "data": {"values": values},
    }
    failed = sum(seen.failed)
    told = (
        f"{text.plural(sum(seen.answered) + failed, 'request')} in {text.duration(span)}, "
        f"{failed or 'none'} failed, longest gap {seen.longest_gap:.2f} s."
    )
    return Chart(f"{seen.url} asked from {seen.asked_from}", told, spec)


def _matrix(result: Result, tried: Rights) -> Matrix:
    granted = set(tried.granted)
    verbs = tuple(dict.fromkeys(what.partition(" ")[0] for what in tried.answers))
    resources = tuple(dict.fromkeys(what.partition(" ")[2] for what in tried.answers))
    rows = tuple(
        (resource, tuple(_cell(f"{verb} {resource}", granted, tried.answers) for verb in verbs))
        for resource in resources
    )
    cells = [
        {"resource": resource, "verb": verb, "came to": told, "told": f"{verb} {resource}: {told} ({status})"}
        for resource, row in rows
        for verb, (told, status) in zip(verbs, row, strict=True)
        if status is not None
    ]
    wrong = [str(cell["told"]) for cell in cells if cell["came to"] in (_SURPLUS, _LACKING)]
    told = f"{len(granted)} of {len(cells)} granted; " + (
        f"not as granted: {', '.join(wrong)}." if wrong else "all requests were answered as granted."
    )
    spec = {
        "width": {"step": 64},
        "height": {"step": 22},
        "data": {"values": cells},
        "mark": {"type": "rect", "stroke": "var(--page)", "strokeWidth": 2},
        "encoding": {
            "x": {
                "field": "verb",
                "sort": list(verbs),
                "title": None,
                "axis": {"orient": "top", "labelAngle": 0, "labelLimit": 62, "grid": False},
            },
            "y": {"field": "resource", "sort": list(resources), "title": None},
            "color": {
                "field": "came to",
                "scale": {
                    "domain": [_GRANTED, _REFUSED, _SURPLUS, _LACKING],
                    "range": ["var(--kept)", "var(--quiet)", "var(--broken)", "var(--error)"],
                },
                "legend": {"orient": "bottom"},
            },
            "description": {"field": "told"},
        },
    }
    return Matrix(result, tried.who, verbs, rows, Chart(f"{result.id}: {tried.who}", told, spec))


def _cell(what: str, granted: set[str], answers: dict[str, int]) -> tuple[str, int | None]:
    if what not in answers:
        return "", None
    status = answers[what]
    # What is allowed may still be answered with 404 or 409, of an object that only has a name.
    allowed = status not in (401, 403)
    if what in granted:
        return (_GRANTED if allowed else _LACKING), status
    return (_SURPLUS if allowed else _REFUSED), status


def _colour(outcome: Outcome) -> str:
    return f"var(--{outcome})"
