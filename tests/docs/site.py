"""A built site, as a reader's browser gets it: its texts, headings and links."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

HEADINGS = ("h1", "h2", "h3", "h4", "h5", "h6")


@dataclass
class Section:
    """A heading and what stands below it, up to the next one."""

    text: str = ""
    links: list[str] = field(default_factory=list)


class Page(HTMLParser):
    """One page: its sections by the heading's id, all ids, and where it points to."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.sections: dict[str, Section] = {"": Section()}
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []
        """What the browser fetches by itself."""
        self._open = self.sections[""]
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if id := given.get("id"):
            self.ids.add(id)
            if tag in HEADINGS:
                self._open = self.sections.setdefault(id, Section())
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
            self._open.links.append(given["href"])
        loads = given.get("src") or (given.get("href") if tag == "link" and given.get("rel") != "canonical" else None)
        if loads:
            self.loads.append(loads)

    def handle_data(self, data: str) -> None:
        self._open.text += data
