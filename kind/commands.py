"""The kind room's commands: `clusterproof kind-image` and `kind-docker`, and what `clusterproof sweep` does here."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Iterator

import pytest

from clusterproof import parts
from clusterproof.running.run import cluster_name

from . import docker, state
from .image import recipe
from .provider import PROVIDERS


class Image:
    """Makes a node image for kind, without a registry."""

    help = "make a node image for kind from this project's own programs, without any image registry"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "--kubernetes-version", default="", metavar="VERSION", help="default: the embedded cluster's"
        )

    def run(self, args: argparse.Namespace) -> int:
        made = recipe.ensure(args.kubernetes_version, _say)
        if docker.running():
            for archive in made.archives:
                docker.load(archive)
            print(f"{made.name} is in your Docker: pytest suites/ --cluster=kind")
        else:
            print(f"{made.name} is made: clusterproof kind-docker pytest suites/ --cluster=kind")
        for archive in made.archives:
            print(f"to take it to another machine: docker load --input {archive}")
        return 0


class WithDocker:
    """Runs a command with Docker, kind and a node image at hand."""

    help = "run a command with Docker, kind and kubectl at hand, also where none of them is installed"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--kubernetes-version", default="", metavar="VERSION", help="of the node image")
        parser.add_argument(
            "arguments", nargs=argparse.REMAINDER, metavar="COMMAND", help="the command, with arguments"
        )

    def run(self, args: argparse.Namespace) -> int:
        command = args.arguments[1:] if args.arguments[:1] == ["--"] else args.arguments
        if not command:
            raise pytest.UsageError(
                "kind-docker: which command? As in: clusterproof kind-docker pytest suites/ --cluster=kind"
            )
        programs = parts.load().programs(args.kubernetes_version, _say)
        archives = () if docker.running() else recipe.ensure(args.kubernetes_version, _say).archives
        path = [programs[name].parent for name in ("kind", "kubectl")]
        return docker.run(command, _say, archives=archives, path=path)


def sweep(run: str, everything: bool) -> Iterator[str]:
    """Remove clusters and Dockers whose runs were killed; `run` names one run's cluster, empty means all.

    Clusters that were started to stay do so unless `everything` is to go.
    """
    for record in list(state.records()):
        if run and record.name != cluster_name(run):
            continue
        if record.kept and not everything:
            yield f"kept {record.provider} cluster {record.name}: it was started to stay (remove it with: sweep --all)"
        elif record.kept or run or record.abandoned:
            with _docker_of(record):
                PROVIDERS[record.provider].remove(record)
            yield f"removed {record.provider} cluster {record.name}"
    if not run:
        yield from (f"removed {each}" for each in docker.sweep())


@contextlib.contextmanager
def _docker_of(record: state.Record) -> Iterator[None]:
    """A block in which programs find the Docker that a cluster was made in."""
    before = os.environ.get("DOCKER_HOST")
    if record.docker:
        os.environ["DOCKER_HOST"] = record.docker
    try:
        yield
    finally:
        os.environ.pop("DOCKER_HOST", None)
        if before is not None:
            os.environ["DOCKER_HOST"] = before


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


image, with_docker = Image(), WithDocker()
