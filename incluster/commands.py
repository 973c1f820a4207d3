"""The room's commands: `clusterproof image` and `manifests`; `job-shard` and `job-merge`, which run in pods."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pytest

from . import jobs, manifests
from .image import recipe

WITHIN = 6 * 3600.0
"""Seconds that all shards of a run may take."""


class Image:
    """Makes the image that runs the suites in a cluster."""

    help = "make the image that runs the suites inside a cluster, without Docker; its file is the last line"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """It has none."""

    def run(self, args: argparse.Namespace) -> int:
        archive = recipe.ensure(_say)
        _say(f"{recipe.REFERENCE} is made; `docker load` takes it, `ctr images import`, and `clusterproof load`")
        print(archive)
        return 0


class Manifests:
    """Prints what runs the suites in a cluster."""

    help = "print the manifests that run the suites inside a cluster, for kubectl apply"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        told = ", ".join(f"{name} ({what})" for name, what in manifests.SETS.items())
        parser.add_argument("sets", nargs="+", metavar="SET", choices=tuple(manifests.SETS), help=told)
        parser.add_argument(
            "--image", default=recipe.REFERENCE, metavar="REF", help=f"where nodes get it (default: {recipe.REFERENCE})"
        )
        parser.add_argument("--shards", type=int, default=4, metavar="N", help="pods of one run (default: 4)")

    def run(self, args: argparse.Namespace) -> int:
        if args.shards < 1:
            raise pytest.UsageError(f"--shards={args.shards}: at least 1")
        print(manifests.text(args.sets, args.image, args.shards), end="")
        return 0


class Shard:
    """Runs in a pod of an Indexed Job."""

    help = "in a pod of an Indexed Job: prove the part of its index, and hand the result over to job-merge"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="...", help="what pytest is given")

    def run(self, args: argparse.Namespace) -> int:
        given = args.arguments[1:] if args.arguments[:1] == ["--"] else args.arguments
        return jobs.shard(jobs.Pod.of_environment(), given)


class Merge:
    """Runs in a pod beside an Indexed Job."""

    help = "in a pod: wait for the shards of an Indexed Job, and put their results together"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("job", help="name of the Indexed Job, in the pod's own namespace")
        parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="where the reports go")
        parser.add_argument(
            "--within",
            type=float,
            default=WITHIN,
            metavar="SECONDS",
            help=f"how long the shards may take (default: {WITHIN:g})",
        )

    def run(self, args: argparse.Namespace) -> int:
        return jobs.merge(jobs.own_namespace(), args.job, args.output, within=args.within)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


image, manifests_command, shard, merge = Image(), Manifests(), Shard(), Merge()
