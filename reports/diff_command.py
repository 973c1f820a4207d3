"""`clusterproof diff`: two result documents compared."""

from __future__ import annotations

import argparse
from pathlib import Path

from clusterproof import cli

from . import diff, document


class Diff:
    """Compares two runs."""

    help = "say what changed between two runs, and whether something regressed"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("old", type=Path, metavar="OLD", help="result.json of the earlier run")
        parser.add_argument("new", type=Path, metavar="NEW", help="result.json of the later run")
        parser.add_argument(
            "--format", choices=(*document.MAKERS, "json"), default="text", help="what to write (default: text)"
        )
        parser.add_argument("--output", type=Path, metavar="FILE", help="where to write it (default: the terminal)")
        parser.add_argument(
            "--slower",
            type=float,
            default=diff.SLOWER,
            metavar="FACTOR",
            help=f"a promise that takes more than FACTOR times as long is told from {diff.SLOWER_SECONDS:.0f} s on, "
            f"and has regressed from {diff.WORSE_SECONDS:.0f} s on; 0: never (default: {diff.SLOWER:g})",
        )

    def run(self, args: argparse.Namespace) -> int:
        problems = [f"--slower={args.slower:g}: {wrong}"] if (wrong := diff.bad_factor(args.slower)) else []
        problems += document.bad_output(args.output)
        try:
            old, new = diff.load(args.old, args.new)
        except ValueError as error:
            problems += str(error).splitlines()
        if problems:
            document.bad_input(problems)
        comparison = diff.compare(old, new, slower=args.slower, files=(str(args.old), str(args.new)))
        if args.format == "json":
            content = diff.to_json(comparison)
        else:
            content = document.MAKERS[args.format](diff.document(comparison))
        document.put(content, args.output)
        return cli.FAILED if comparison.regressed else cli.DONE


command = Diff()
