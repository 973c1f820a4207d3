"""The `clusterproof` command. Rooms add commands and sweepers by entry point; this module knows none of them.

A command is an object with `help`, `add_arguments` and `run`, in group `clusterproof.commands`. A sweeper is a callable
in group `clusterproof.sweepers`: it takes a run id, or nothing for all runs, and whether to remove what is meant to
stay; it removes what is left of the run outside any cluster (processes, network, files), and returns a line for each
thing: `removed ...`, or `kept ...` with the reason.
"""

from __future__ import annotations

import argparse
import difflib
import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import EntryPoint, entry_points, version
from pathlib import Path
from typing import NoReturn, Protocol

COMMANDS = "clusterproof.commands"
SWEEPERS = "clusterproof.sweepers"
"""Entry-point groups."""

DONE, FAILED, MISUSED, INTERRUPTED, UNREAD = 0, 1, 4, 130, 141
"""Exit codes: 4 as pytest's for a usage error, 130 as a shell's for Ctrl-C, 141 as one's for SIGPIPE."""

Sweeper = Callable[[str, bool], Iterable[str]]


class Command(Protocol):
    """A subcommand of `clusterproof`."""

    help: str
    """One line, as `clusterproof --help` shows it."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare its options."""

    def run(self, args: argparse.Namespace) -> int:
        """Do it; the exit code. Raises SurroundingsError, ApiError or pytest.UsageError with one sentence."""


class Sweep:
    """Removes what runs left behind."""

    help = "remove what killed runs left: cluster objects by their label, and what runs or lies on this machine"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "--run", default="", metavar="ID", help="only this run (default: every run, those under way included)"
        )
        parser.add_argument(
            "--all", action="store_true", help="also remove clusters that were started to stay, by up or --keep-cluster"
        )
        parser.add_argument(
            "--kubeconfig",
            type=Path,
            default=os.environ.get("CLUSTERPROOF_KUBECONFIG"),
            metavar="FILE",
            help="also sweep the cluster that this file names; without it, no cluster is touched "
            "(environment: CLUSTERPROOF_KUBECONFIG)",
        )
        parser.add_argument(
            "--context",
            default=os.environ.get("CLUSTERPROOF_CONTEXT", ""),
            help="context in that file (default: its current one; environment: CLUSTERPROOF_CONTEXT)",
        )
        parser.add_argument(
            "--within", type=float, default=120.0, metavar="SECONDS", help="how long removal may take (default: 120)"
        )

    def run(self, args: argparse.Namespace) -> int:
        from clusterproof.running import run

        removed, stuck = _sweep_cluster(args) if args.kubeconfig else ((), ())
        lines = [f"removed {line}" for line in removed]
        for point in sorted(entry_points(group=SWEEPERS), key=lambda point: point.name):
            sweeper: Sweeper = point.load()
            lines += sweeper(args.run, args.all)
        lines += run.sweep(args.run)
        for line in lines:
            print(line)
        for line in stuck:
            print(f"still there: {line}", file=sys.stderr)
        if not stuck and not any(line.startswith("removed ") for line in lines):
            print("nothing was left" if args.kubeconfig else "nothing was left on this machine; no cluster was named")
        return FAILED if stuck else DONE


class ListImages:
    """Lists what a cluster without a way to the internet must have."""

    help = "list every image the suites use, one reference a line"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "--image-registry",
            default=os.environ.get("CLUSTERPROOF_IMAGE_REGISTRY", ""),
            metavar="HOST[/PATH]",
            help="registry that has copies of them, as for `pytest --image-registry` "
            "(environment: CLUSTERPROOF_IMAGE_REGISTRY)",
        )

    def run(self, args: argparse.Namespace) -> int:
        from clusterproof import images

        print("\n".join(sorted(set(images.resolve(args.image_registry).all))))
        return DONE


class Version:
    """Says which clusterproof this is."""

    help = "print the version"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """It has none."""

    def run(self, args: argparse.Namespace) -> int:
        print(f"clusterproof {version('clusterproof')}")
        return DONE


class _Unavailable:
    """Stands for a command of a room that cannot be imported, so that the others still work."""

    help = "not available in this installation"

    def __init__(self, point: EntryPoint, problem: ImportError | AttributeError) -> None:
        self.why = f"{point.name}: {point.value} cannot be loaded: {problem}"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Nobody knows them."""

    def run(self, args: argparse.Namespace) -> int:
        return _say(FAILED, self.why)


class _Parser(argparse.ArgumentParser):
    """Answers bad input with one sentence and pytest's exit code for it."""

    def error(self, message: str) -> NoReturn:
        self.exit(MISUSED, f"{self.prog}: {message}; see {self.prog} --help\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        code = _run(arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever reads has seen enough, as in `clusterproof status | head -1`; the rest goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return UNREAD
    return code


def _run(arguments: list[str]) -> int:
    commands = _commands()
    parser = _parser(commands)
    if not arguments:
        parser.print_help()
        return DONE
    if not arguments[0].startswith("-") and arguments[0] not in commands:
        parser.error(_unknown(arguments[0], commands))
    args, unknown = parser.parse_known_args(arguments)
    command = commands[args.command]
    if unknown and not isinstance(command, _Unavailable):
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    return _carried_out(command, args)


def _commands() -> dict[str, Command]:
    from clusterproof.doctor.command import Examine

    commands: dict[str, Command] = {"doctor": Examine(), "sweep": Sweep(), "images": ListImages(), "version": Version()}
    for point in entry_points(group=COMMANDS):
        try:
            commands[point.name] = point.load()
        except (ImportError, AttributeError) as problem:
            commands[point.name] = _Unavailable(point, problem)
    return dict(sorted(commands.items()))


def _parser(commands: dict[str, Command]) -> argparse.ArgumentParser:
    parser = _Parser(
        prog="clusterproof",
        description="Prove that a Kubernetes cluster keeps its promises. The proof itself is run with `pytest`; these "
        "commands are for what is around it.",
        epilog="`clusterproof COMMAND --help` explains one command.",
    )
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands", required=True)
    for name, command in commands.items():
        sentence = f"{command.help[:1].upper()}{command.help[1:]}."
        command.add_arguments(subparsers.add_parser(name, help=command.help, description=sentence))
    return parser


def _unknown(name: str, commands: Iterable[str]) -> str:
    known = list(commands)
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
    return f"there is no command {name!r}; {hint}"


def _carried_out(command: Command, args: argparse.Namespace) -> int:
    import pytest  # here, because it takes longer than most commands

    from clusterproof.errors import ApiError, NeverHappened, SurroundingsError

    try:
        return command.run(args)
    except pytest.UsageError as error:
        return _say(MISUSED, str(error))
    except (SurroundingsError, ApiError, NeverHappened) as error:
        return _say(FAILED, str(error))


def _sweep_cluster(args: argparse.Namespace) -> tuple[tuple[str, ...], tuple[str, ...]]:
    from clusterproof import external
    from clusterproof.running import ledger

    client, _, _ = external.connect(args.kubeconfig, args.context)
    swept = ledger.sweep(client, args.run, within=args.within)
    return swept.removed, swept.stuck


def _say(code: int, sentence: str) -> int:
    # What is indented is a list or the end of a log, and stays as it is.
    lines = re.split(r"\n(?=  )", sentence.rstrip())
    told = (" ".join(line.split()) if not line.startswith("  ") else line.rstrip() for line in lines)
    print("clusterproof: " + "\n".join(told), file=sys.stderr)
    return code
