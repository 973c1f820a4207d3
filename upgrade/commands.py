"""The command `clusterproof upgrade`: `prepare`, `monitor`, `verify`, and what other rooms add, such as `run`."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from clusterproof.cli import DONE, FAILED, Command

STAGES = "clusterproof.upgrade"
"""Entry-point group of further subcommands: those that upgrade clusters of a kind."""
STATE = "clusterproof-upgrade"
"""Folder of the observation, unless another is named."""


def _add_cluster(parser: argparse.ArgumentParser, otherwise: str) -> None:
    parser.add_argument(
        "--kubeconfig",
        type=Path,
        default=os.environ.get("CLUSTERPROOF_KUBECONFIG"),
        metavar="FILE",
        help=f"the cluster ({otherwise}; environment: CLUSTERPROOF_KUBECONFIG)",
    )
    parser.add_argument(
        "--context",
        default=os.environ.get("CLUSTERPROOF_CONTEXT", ""),
        help="context in that file (default: its current one; environment: CLUSTERPROOF_CONTEXT)",
    )
    parser.add_argument(
        "--state",
        type=Path,
        default=os.environ.get("CLUSTERPROOF_UPGRADE_STATE", STATE),
        metavar="FOLDER",
        help=f"where all of it is kept (default: {STATE}; environment: CLUSTERPROOF_UPGRADE_STATE)",
    )


def _per_second(text: str) -> int:
    rate = int(text)
    if not 1 <= rate <= 100:
        raise argparse.ArgumentTypeError(f"{text}: 1 to 100 requests per second are expected")
    return rate


class Prepare:
    """Lays down what an upgrade must not harm."""

    help = "before an upgrade: lay down one of everything with data, and note what the cluster is like"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        _add_cluster(parser, "must be named, here or by its context")
        parser.add_argument(
            "--image-registry",
            default=os.environ.get("CLUSTERPROOF_IMAGE_REGISTRY", ""),
            metavar="HOST[/PATH]",
            help="registry that has copies of the images (see: clusterproof images)",
        )
        parser.add_argument(
            "--ingress-address",
            default=os.environ.get("CLUSTERPROOF_INGRESS_ADDRESS", ""),
            metavar="HOST:PORT",
            help="where Ingresses are reached, from here and from pods (default: as the Ingress's status says)",
        )
        parser.add_argument(
            "--load-balancer",
            action="store_true",
            help="also lay down a Service with a load balancer (default: where the cluster declares that it has some)",
        )
        parser.add_argument(
            "--rate",
            type=_per_second,
            default=5,
            metavar="N",
            help="requests per second of each pod's clients (default: 5)",
        )
        parser.add_argument(
            "--within", type=float, default=180.0, metavar="SECONDS", help="how long it may take (default: 180)"
        )

    def run(self, args: argparse.Namespace) -> int:
        from clusterproof import external

        from .folder import Folder
        from .prepare import Wishes, prepare

        client, path, context = external.connect(args.kubeconfig, args.context)
        wishes = Wishes(args.image_registry, args.ingress_address, args.load_balancer, args.rate, args.within)
        folder = Folder(args.state)
        before = prepare(folder, client, path, context, wishes, _say)
        for what, why in before.unsupported.items():
            _say(f"not laid down: {what} ({why})")
        print(
            f"{context} is prepared at {before.version}, {len(before.nodes)} nodes: start `clusterproof upgrade "
            f"monitor --state {args.state}`, upgrade it, then `clusterproof upgrade verify --state {args.state}`"
        )
        return DONE


class Monitor:
    """Watches while the upgrade goes on."""

    help = "during an upgrade: ask all the time, until `verify`, a signal, or --for is over"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        _add_cluster(parser, "default: as for prepare")
        parser.add_argument(
            "--rate", type=_per_second, default=5, metavar="N", help="requests per second of each client (default: 5)"
        )
        parser.add_argument(
            "--for",
            dest="seconds",
            type=float,
            default=0.0,
            metavar="SECONDS",
            help="end after so long (default: when verify begins, or at SIGINT or SIGTERM)",
        )

    def run(self, args: argparse.Namespace) -> int:
        from .folder import Folder
        from .monitor import monitor

        folder = Folder(args.state)
        before, client = folder.prepared(args.kubeconfig, args.context)
        enough = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: enough.set())
        _say(f"watching {before.context}; ends with `verify`, Ctrl-C or SIGTERM")
        monitor(folder, client, before, rate=args.rate, seconds=args.seconds, enough=enough, progress=_say)
        return DONE


class Verify:
    """Judges what the upgrade did."""

    help = "after an upgrade: is everything as it was, every node at its version, every outage within its budget"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        from .budget import DEFAULT

        defaults = ",".join(f"{name}={seconds:g}" for name, seconds in DEFAULT.items())
        _add_cluster(parser, "default: as for prepare")
        parser.add_argument(
            "--to",
            default="",
            metavar="VERSION",
            help="version that every node should have (default: the API server's)",
        )
        parser.add_argument(
            "--budget",
            default="",
            metavar="SECONDS",
            help="how long requests may go unanswered in all: for every kind, or as api=60,service=2 "
            f"(default: {defaults})",
        )
        parser.add_argument(
            "--within",
            type=float,
            default=120.0,
            metavar="SECONDS",
            help="by when what still moves must have come to rest (default: 120)",
        )
        parser.add_argument("--remove", action="store_true", help="remove afterwards what prepare laid down")

    def run(self, args: argparse.Namespace) -> int:
        from . import budget
        from .folder import Folder
        from .removal import remove
        from .verify import verify

        try:
            allowed = budget.parse(args.budget)
        except ValueError as error:
            raise pytest.UsageError(f"--budget: {error}") from error
        folder = Folder(args.state)
        if args.remove and not folder.load().complete:
            remove(folder, args.kubeconfig, args.context, _say)
            return DONE
        before, client = folder.prepared(args.kubeconfig, args.context)
        found = verify(folder, client, before, expected=args.to, allowed=allowed, within=args.within, progress=_say)
        print(found.text(), end="")
        print(f"written: {folder.path}/verdict.txt, verdict.md, verdict.json")
        if args.remove:
            remove(folder, args.kubeconfig, args.context, _say)
        else:
            _say(
                "what was laid down is still there; remove it with: clusterproof upgrade verify --remove "
                f"--state {args.state}"
            )
        return FAILED if found.broken else DONE


class Upgrade:
    """Everything around an upgrade."""

    help = "around an upgrade of any cluster: prepare, monitor, verify"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        stages = parser.add_subparsers(dest="stage", metavar="STAGE", title="stages", required=True)
        for name, stage in self._stages().items():
            sentence = f"{stage.help[:1].upper()}{stage.help[1:]}."
            stage.add_arguments(stages.add_parser(name, help=stage.help, description=sentence))

    def run(self, args: argparse.Namespace) -> int:
        return self._stages()[args.stage].run(args)

    def _stages(self) -> dict[str, Command]:
        further = {point.name: point.load() for point in entry_points(group=STAGES)}
        return {"prepare": Prepare(), "monitor": Monitor(), "verify": Verify(), **further}


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


upgrade = Upgrade()
