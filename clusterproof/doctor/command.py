"""`clusterproof doctor`: what a run on a cluster will be able to prove, told before it."""

from __future__ import annotations

import argparse
import json
import os
import textwrap
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clusterproof.doctor.examine import Examination, Finding

_WIDTH = 120


class Examine:
    """Looks at a cluster, changes nothing, and says what is in the way of a run."""

    help = "say, before a run on a cluster, what it will be able to prove there, and what not and why"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "--kubeconfig",
            type=Path,
            default=os.environ.get("CLUSTERPROOF_KUBECONFIG"),
            metavar="FILE",
            help="kubeconfig file of the cluster (environment: CLUSTERPROOF_KUBECONFIG)",
        )
        parser.add_argument(
            "--context",
            default=os.environ.get("CLUSTERPROOF_CONTEXT", ""),
            help="context in that file (default: its current one; environment: CLUSTERPROOF_CONTEXT)",
        )
        parser.add_argument("--format", choices=("text", "json"), default="text", help="how it is told (default: text)")

    def run(self, args: argparse.Namespace) -> int:
        """0: nothing hinders a run; 1: something does; UsageError, which exits with 4, where nothing can be said."""
        import pytest

        from clusterproof import cli, external
        from clusterproof.doctor import examine
        from clusterproof.errors import SurroundingsError
        from clusterproof.provider import Access

        started = time.monotonic()
        client, path, context = external.connect(Path(args.kubeconfig) if args.kubeconfig else None, args.context)
        access = Access(provider="external", name=context, kubeconfig=str(path), context=context)
        try:
            external.check_version(client)
            found = examine.examine(client, access)
        except SurroundingsError as error:
            raise pytest.UsageError(f"cluster of context {context!r}: {error}") from error
        seconds = time.monotonic() - started
        if args.format == "json":
            told = {"cluster": asdict(found.cluster), "findings": [asdict(each) for each in found.findings]}
            print(json.dumps({**told, "seconds": round(seconds, 2)}, indent=2))
        else:
            print("\n".join(_text(found, seconds)))
        return cli.FAILED if found.hindered else cli.DONE


def _text(found: Examination, seconds: float) -> Iterator[str]:
    from clusterproof.doctor.examine import Weight

    headings = {
        Weight.HINDERS: "In the way of promises",
        Weight.UNSUPPORTED: "Unsupported: the cluster claims no such capability",
        Weight.TOLD: "Worth knowing",
        Weight.FINE: "Fine",
    }
    cluster = found.cluster
    yield f"{cluster.name}: Kubernetes {cluster.version} at {cluster.server}, nodes seen: {len(cluster.nodes)}"
    for weight, heading in headings.items():
        chosen = [each for each in found.findings if each.weight is weight]
        if chosen:
            yield from ("", f"{heading} ({len(chosen)})")
        for each in chosen:
            yield from _lines(each)
    hindering = sum(each.weight is Weight.HINDERS for each in found.findings)
    verdict = f"{hindering} in the way of promises" if hindering else "nothing is in the way"
    yield from ("", f"{verdict}; looked at in {seconds:.1f} s, and nothing was changed")


def _lines(finding: Finding) -> Iterator[str]:
    from clusterproof.doctor.examine import Weight

    yield from _wrapped(f"  {finding.topic}: ", finding.what)
    if finding.weight in (Weight.FINE, Weight.TOLD):
        about: tuple[str, ...] = ()
    else:
        about = finding.promises
    if about:
        shown, more = about[:6], len(about) - 6
        yield from _wrapped("    promises: ", ", ".join(shown) + (f" and {more} more" if more > 0 else ""))
    if finding.advice:
        yield from _wrapped("    to do: ", finding.advice)


def _wrapped(start: str, text: str) -> list[str]:
    hanging = " " * (len(start) - len(start.lstrip()) + 2)
    return textwrap.wrap(start + text, _WIDTH, subsequent_indent=hanging, break_on_hyphens=False)
