"""A report of a few facts and tables, said the same way as text, Markdown and a page of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from . import files, text

_CELL_LIMIT = 400
"""Characters of one cell; a reason may be long, and the result documents have all of it."""

_STYLE = """
:root { color-scheme: light dark }
body { font: 1rem/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem }
table { border-collapse: collapse; width: 100%; font-size: .9rem }
th, td { text-align: left; vertical-align: top; padding: .25rem .75rem .25rem 0; border-bottom: 1px solid #8884 }
td:last-child { overflow-wrap: anywhere }
.bad { color: light-dark(#a40000, #ff8a80) }
.good { color: light-dark(#1b5e20, #a5d6a7) }
"""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under a title."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    bad: bool = False
    """Whether it is what made the verdict."""


@dataclass(frozen=True, slots=True)
class Document:
    """What is said: the verdict first, then the facts it rests on, then the tables that are not empty."""

    title: str
    verdict: str
    good: bool
    facts: tuple[tuple[str, str], ...]
    tables: tuple[Table, ...]


def as_text(document: Document) -> str:
    """Plain text with aligned columns."""
    return "\n".join(_text_lines(_fit(document))) + "\n"


def as_markdown(document: Document) -> str:
    """GitHub-flavoured Markdown."""
    return "\n".join(_markdown_lines(_fit(document))) + "\n"


def as_html(document: Document) -> str:
    """One self-contained page, without a script."""
    document = _fit(document)
    page = Element("html", lang="en")
    head, body = SubElement(page, "head"), SubElement(page, "body")
    SubElement(head, "meta", charset="utf-8")
    SubElement(head, "meta", name="viewport", content="width=device-width, initial-scale=1")
    SubElement(head, "title").text = document.title
    SubElement(head, "style").text = _STYLE
    main = SubElement(body, "main")
    SubElement(main, "h1").text = document.title
    verdict = SubElement(main, "p", {"class": "good" if document.good else "bad"})
    SubElement(verdict, "strong").text = document.verdict
    _html_table(main, (), document.facts)
    for table in document.tables:
        SubElement(main, "h2", {"class": "bad"} if table.bad else {}).text = table.title
        _html_table(main, table.head, table.rows)
    indent(page)
    return f"<!DOCTYPE html>\n{tostring(page, 'unicode', method='html')}\n"


MAKERS: dict[str, Callable[[Document], str]] = {"text": as_text, "markdown": as_markdown, "html": as_html}
"""Formats by the name that users type."""


def put(content: str, output: Path | None) -> None:
    """Write to a file, or print. UsageError when the file cannot be written."""
    if output is None:
        print(content, end="")
        return
    try:
        files.replace(output, content)
    except OSError as error:
        bad_input([f"--output={output}: {error.strerror}"])


def bad_output(output: Path | None) -> list[str]:
    """What is wrong with a file to write to, before any work is done; empty when nothing is."""
    if output is None:
        return []
    if output.is_dir():
        return [f"--output={output}: is a folder; a file is expected"]
    return [] if output.parent.is_dir() else [f"--output={output}: there is no folder {output.parent}"]


def bad_input(problems: list[str]) -> NoReturn:
    """Say everything that is wrong with the input in one message: UsageError."""
    import pytest

    if len(problems) == 1:
        raise pytest.UsageError(problems[0])
    raise pytest.UsageError("\n  ".join([f"{len(problems)} things are wrong with the input:", *problems]))


def _fit(document: Document) -> Document:
    """The document with cells that fit on a line and hold nothing that a format cannot show."""
    document = text.clean(document)
    tables = tuple(
        Table(table.title, table.head, tuple(tuple(map(_cell, row)) for row in table.rows), table.bad)
        for table in document.tables
        if table.rows
    )
    facts = tuple((name, _cell(value)) for name, value in document.facts)
    return Document(text.one_line(document.title), text.one_line(document.verdict), document.good, facts, tables)


def _cell(words: str) -> str:
    words = text.one_line(words)
    return words if len(words) <= _CELL_LIMIT else f"{words[:_CELL_LIMIT]} …"


def _text_lines(document: Document) -> Iterator[str]:
    yield document.title
    yield ""
    yield document.verdict
    yield ""
    yield from _columns(document.facts)
    for table in document.tables:
        yield ""
        yield f"{table.title} ({len(table.rows)})"
        yield from (f"  {line}" for line in _columns((table.head, *table.rows)))


def _columns(rows: tuple[tuple[str, ...], ...]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _markdown_lines(document: Document) -> Iterator[str]:
    yield f"# {text.markdown(document.title)}"
    yield ""
    yield f"**{text.markdown(document.verdict)}**"
    yield ""
    yield from _markdown_table(("", ""), document.facts)
    for table in document.tables:
        yield f"## {text.markdown(table.title)} ({len(table.rows)})"
        yield ""
        yield from _markdown_table(table.head, table.rows)


def _markdown_table(head: tuple[str, ...], rows: tuple[tuple[str, ...], ...]) -> Iterator[str]:
    for row in (head, ("---",) * len(head)):
        yield f"| {' | '.join(row)} |"
    for row in rows:
        yield f"| {' | '.join(map(text.markdown, row))} |"
    yield ""


def _html_table(parent: Element, head: tuple[str, ...], rows: tuple[tuple[str, ...], ...]) -> None:
    table = SubElement(parent, "table")
    if head:
        line = SubElement(SubElement(table, "thead"), "tr")
        for cell in head:
            SubElement(line, "th", scope="col").text = cell
    body = SubElement(table, "tbody")
    for row in rows:
        line = SubElement(body, "tr")
        for number, cell in enumerate(row):
            # The first cell says what the others are about.
            kind, about = ("td", {}) if number else ("th", {"scope": "row"})
            SubElement(line, kind, about).text = cell
