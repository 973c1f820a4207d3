"""The catalogue of promises: pages of the site, written from the sources of suites and breakages when it is built.

A hook of MkDocs. `pages` knows nothing of it and gives Markdown, for whatever builds a site.
"""

from __future__ import annotations

import html
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from clusterproof import capabilities, catalog, profiles
from clusterproof.catalog import Promise

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

ROOT = Path(__file__).parent.parent
FOLDER = "catalogue/"
"""Where the pages are in the site; it stands in the navigation of mkdocs.yml, and is replaced by them."""

PROVEN_BY = "Broken on purpose"
UNPROVEN = "No cluster is broken on purpose for it yet."


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages to those of the documentation, and put them into its navigation."""
    from mkdocs.structure.files import File

    written = pages()
    for name, content in written.items():
        files.append(File.generated(config, FOLDER + name, content=content))
    for entry in config.nav or []:
        for title, place in entry.items() if isinstance(entry, dict) else ():
            if place == FOLDER:
                entry[title] = [FOLDER + name for name in written]
    return files


def pages() -> dict[str, str]:
    """Markdown by file name: an overview, and a page for each area."""
    promises = sorted(catalog.scan([catalog.root()]), key=lambda promise: promise.id)
    catalog.check(promises)
    areas = {area: list(members) for area, members in groupby(promises, key=_area)}
    proofs = breakages()
    written = {f"{area}.md": _lines_of_area(area, members, proofs) for area, members in areas.items()}
    written = {"index.md": _lines_of_overview(areas, proofs), **written}
    return {name: "\n".join(lines) + "\n" for name, lines in written.items()}


def breakages() -> dict[str, dict[str, str]]:
    """By promise: the clusters on which it must be broken, and what is wrong with each."""
    if str(ROOT) not in sys.path:
        sys.path.append(str(ROOT))
    from tests.broken import breakages, registry

    assert breakages, "importing them registers them"
    found: dict[str, dict[str, str]] = {}
    for each in registry.ALL.values():
        for id in each.breaks:
            found.setdefault(id.partition("[")[0], {})[each.name] = each.meaning
    return found


def anchor(id: str) -> str:
    """The fragment of a promise or capability in its page."""
    return re.sub(r"[^a-z0-9_]+", "-", id.lower())


def _lines_of_overview(areas: dict[str, list[Promise]], proofs: dict[str, dict[str, str]]) -> Iterator[str]:
    every = [promise for members in areas.values() for promise in members]
    proven = sum(promise.id in proofs for promise in every)
    clusters = {name for found in proofs.values() for name in found}
    yield "# Catalogue of promises"
    yield ""
    yield (
        f"{len(every)} promises, each with the documentation that makes it. {proven} of them must be broken on "
        f"clusters that are broken in one way each, {len(clusters)} altogether: `tox run -e broken` tries that, and "
        "[What is noticed](../detection.md) has what they said. These pages are written from their source."
    )
    yield ""
    yield "| area | promises | smoke | disruptive | broken on purpose |"
    yield "|---|---:|---:|---:|---:|"
    for area, members in areas.items():
        tiers = Counter(promise.tier for promise in members)
        noticed = sum(promise.id in proofs for promise in members)
        yield f"| [{area}]({area}.md) | {len(members)} | {tiers['smoke']} | {tiers['disruptive']} | {noticed} |"
    yield ""
    yield "## Capabilities"
    yield ""
    yield "What a cluster may claim, beyond what every cluster must do: `--capabilities=NAME`, or found."
    yield ""
    yield "| capability | means | promises that need it |"
    yield "|---|---|---|"
    for name, capability in sorted(capabilities.ALL.items()):
        needing = [_link(promise) for promise in every if name in promise.capabilities]
        yield f'| <span id="{anchor(name)}">`{name}`</span> | {_escaped(capability.meaning)} | {", ".join(needing)} |'
    yield ""
    yield "## Profiles"
    yield ""
    yield "| profile | holds | promises |"
    yield "|---|---|---:|"
    for profile in profiles.ALL.values():
        held = sum(profile.holds(_area(promise), promise.capabilities) for promise in every)
        yield f"| {profile.name} | {_escaped(profile.meaning)} | {held} |"


def _lines_of_area(area: str, members: list[Promise], proofs: dict[str, dict[str, str]]) -> Iterator[str]:
    yield f"# {area}"
    yield ""
    yield f"{len(members)} promises: `pytest suites/{area}`"
    for path, promises in groupby(sorted(members, key=lambda promise: promise.path), key=lambda promise: promise.path):
        yield ""
        yield f"## {path.stem.removeprefix('test_')}"
        for promise in promises:
            yield ""
            yield from _lines_of_promise(promise, proofs.get(promise.id, {}))


def _lines_of_promise(promise: Promise, proofs: dict[str, str]) -> Iterator[str]:
    held = [each.name for each in profiles.ALL.values() if each.holds(_area(promise), promise.capabilities)]
    path = promise.path.relative_to(catalog.root()).as_posix()
    yield f"### {promise.function.removeprefix('test_')} {{ #{anchor(promise.id)} }}"
    yield ""
    yield _escaped(promise.sentence)
    yield ""
    yield f"- Source: <{promise.source}>"
    yield f"- Tier {promise.tier}; profile{'s' * (len(held) > 1)} {', '.join(held)}"
    if promise.capabilities:
        yield f"- Requires {', '.join(f'[`{name}`](index.md#{anchor(name)})' for name in promise.capabilities)}"
    if promise.pod_security:
        yield f"- Needs namespaces of Pod Security level {', '.join(promise.pod_security)}"
    if promise.tier == "disruptive":
        yield "- Disturbs the whole cluster: only with `--disruptive`"
    yield f"- Alone: `pytest suites/{path}::{promise.function}`"
    yield f"- {_proven(proofs.items())}"


def _proven(proofs: Iterable[tuple[str, str]]) -> str:
    told = "; ".join(f"**{_escaped(name)}**: {_escaped(meaning).rstrip('.')}" for name, meaning in proofs)
    return f"[{PROVEN_BY}](../detection.md): {told}." if told else UNPROVEN


def _link(promise: Promise) -> str:
    return f"[{_escaped(promise.id)}]({_area(promise)}.md#{anchor(promise.id)})"


def _area(promise: Promise) -> str:
    return promise.id.partition("/")[0]


def _escaped(text: str) -> str:
    """Text that Markdown and its tables take for nothing else."""
    return re.sub(r"([\\`*_\[\]|#])", r"\\\1", html.escape(text, quote=False))
