"""`clusterproof matrix`: the same suites on several clusters, side by side."""

from __future__ import annotations

import argparse
from pathlib import Path

from clusterproof import cli

from . import document, matrix


class ShowMatrix:
    """Puts clusters side by side."""

    help = "put the runs of several clusters side by side, and say where they differ"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "results",
            nargs="+",
            metavar="[NAME=]RESULT",
            help="result.json of a cluster's run; NAME is how to call it (default: the folder it is in)",
        )
        parser.add_argument(
            "--format", choices=(*document.MAKERS, "json"), default="text", help="what to write (default: text)"
        )
        parser.add_argument("--output", type=Path, metavar="FILE", help="where to write it (default: the terminal)")

    def run(self, args: argparse.Namespace) -> int:
        problems = document.bad_output(args.output)
        try:
            found = matrix.load([_named(given) for given in args.results])
        except ValueError as error:
            problems += str(error).splitlines()
        if problems:
            document.bad_input(problems)
        if args.format == "json":
            content = matrix.to_json(found)
        else:
            content = document.MAKERS[args.format](matrix.document(found))
        document.put(content, args.output)
        return cli.DONE if found.good else cli.FAILED


def _named(given: str) -> tuple[str, Path]:
    name, equals, path = given.partition("=")
    if equals and not Path(given).exists():
        return name, Path(path)
    return Path(given).absolute().parent.name, Path(given)


command = ShowMatrix()
