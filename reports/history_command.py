"""`clusterproof history`: what the result documents of many runs say together."""

from __future__ import annotations

import argparse
from pathlib import Path

from clusterproof import cli

from . import document, history


class ShowHistory:
    """Follows runs over time."""

    help = "say what many runs together show: trends, flaky promises, the slowest, the most often broken"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "folder",
            type=Path,
            metavar="FOLDER",
            help="folder of results: every *.json in it, and every result.json below it",
        )
        parser.add_argument(
            "--format", choices=(*document.MAKERS, "json"), default="text", help="what to write (default: text)"
        )
        parser.add_argument("--output", type=Path, metavar="FILE", help="where to write it (default: the terminal)")
        parser.add_argument("--last", type=int, metavar="N", help="only the last N runs (default: all)")
        parser.add_argument(
            "--top", type=int, default=10, metavar="N", help="how many of the slowest and most broken (default: 10)"
        )

    def run(self, args: argparse.Namespace) -> int:
        problems = [
            f"--{name}={value}: must be at least 1"
            for name, value in (("last", args.last), ("top", args.top))
            if value is not None and value < 1
        ]
        problems += document.bad_output(args.output)
        if args.folder.is_dir():
            try:
                found = history.read(args.folder, args.last)
            except ValueError as error:
                problems += str(error).splitlines()
        else:
            problems.append(f"{args.folder}: is no folder")
        if problems:
            document.bad_input(problems)
        if args.format == "json":
            content = history.to_json(found)
        else:
            content = document.MAKERS[args.format](history.document(found, args.top))
        document.put(content, args.output)
        return cli.DONE


command = ShowHistory()
