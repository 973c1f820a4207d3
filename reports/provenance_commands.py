"""`clusterproof sign`, `verify-report` and `keygen`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from clusterproof import catalog, cli
from clusterproof.outcome import Run

from . import document, text

if TYPE_CHECKING:
    from .provenance import Statement

# What signs and verifies is imported when it is needed: every `clusterproof` command loads this module.


class Sign:
    """Vouches for a result document."""

    help = "sign a result.json, so that whoever reads it can tell that it is whole and by whom"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("report", type=Path, metavar="RESULT.json", help="the report to vouch for")
        parser.add_argument(
            "--key", type=Path, required=True, metavar="KEY.pem", help="Ed25519 private key (see `clusterproof keygen`)"
        )
        parser.add_argument("--output", type=Path, metavar="FILE", help="where to (default: RESULT.json.intoto.jsonl)")

    def run(self, args: argparse.Namespace) -> int:
        from . import keys, provenance

        output = args.output or args.report.parent / (args.report.name + provenance.SUFFIX)
        problems = document.bad_output(output)
        if args.output and args.output.resolve() in (args.report.resolve(), args.key.resolve()):
            problems.append(f"--output={args.output}: would replace what is read; name another file")
        report = _read(args.report, problems)
        try:
            key = keys.read_private(args.key)
        except ValueError as error:
            problems.append(f"--key: {error}")
        if problems:
            document.bad_input(problems)
        try:
            envelope = provenance.sign(report, args.report.name, key)
        except ValueError as error:
            document.bad_input([str(error)])
        except provenance.Refused as refused:
            return _refuse(f"{args.report} is not signed", refused.reasons)
        document.put(envelope.decode(), output)
        print(output)
        return cli.DONE


class VerifyReport:
    """Checks a result document against what was signed."""

    help = "check that a report is byte by byte what was signed, and that no promise is missing from it"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("envelope", type=Path, metavar="ENVELOPE", help="what `clusterproof sign` wrote")
        parser.add_argument(
            "--key", type=Path, required=True, metavar="PUB.pem", help="the signer's Ed25519 public key"
        )
        parser.add_argument(
            "--report", type=Path, metavar="RESULT.json", help="the report (default: the one it names, beside it)"
        )

    def run(self, args: argparse.Namespace) -> int:
        from . import keys, provenance

        problems: list[str] = []
        envelope = _read(args.envelope, problems)
        if args.report:
            _read(args.report, problems)
        try:
            key = keys.read_public(args.key)
        except ValueError as error:
            problems.append(f"--key: {error}")
        if problems:
            document.bad_input(problems)
        try:
            statement = provenance.open_envelope(envelope, key)
            report = _read(args.report or args.envelope.with_name(Path(statement.name).name), problems)
            if problems:
                document.bad_input(problems)
            run = provenance.check(statement, report)
        except provenance.Refused as refused:
            return _refuse(f"{args.envelope} is refused", refused.reasons)
        for line in _verified(run, statement):
            print(line)
        return cli.DONE


class KeyGen:
    """Makes keys to sign with."""

    help = "make a pair of Ed25519 keys: NAME.pem to sign with, NAME.pub.pem for those who verify"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("name", metavar="NAME", help="path of the keys, without .pem")

    def run(self, args: argparse.Namespace) -> int:
        from . import keys

        private, public = Path(f"{args.name}.pem"), Path(f"{args.name}.pub.pem")
        try:
            keys.write_pair(private, public)
        except OSError as error:
            document.bad_input([f"{error.filename}: {error.strerror}"])
        print(f"{private}\n{public}")
        return cli.DONE


sign, verify_report, keygen = Sign(), VerifyReport(), KeyGen()


def _read(path: Path, problems: list[str]) -> bytes:
    """A file's content; what is wrong with it is added to the problems."""
    try:
        return path.read_bytes()
    except OSError as error:
        problems.append(f"{path}: {error.strerror}")
        return b""


def _refuse(what: str, reasons: tuple[str, ...]) -> int:
    told = f" {reasons[0]}" if len(reasons) == 1 else "".join(f"\n  {reason}" for reason in reasons)
    print(f"clusterproof: {what}:{told}", file=sys.stderr)
    return cli.FAILED


def _verified(run: Run, statement: Statement) -> Iterator[str]:
    """What a reader may now believe."""
    run = text.clean(run)
    yield f"{'verified':20} {statement.name}, sha256 {statement.sha256}"
    yield f"{'signed by':20} Ed25519 key {statement.key_id}"
    for name, value in text.facts(run):
        yield f"{name.lower():20} {value}"
    if run.suites:
        same = "the same as here" if run.suites.sha256 == catalog.digest() else "others than here"
        yield f"{'suites':20} sha256 {run.suites.sha256}, {same}"
    left_out = statement.predicate["promises"]["notSelected"]
    yield f"{'promises':20} {len(set(run.expected))} selected, each with one outcome; {_left_out(left_out)}"
    for profile in run.profiles:
        yield f"{profile.profile:20} {profile.verdict}; {text.counts(profile.counts)}"


def _left_out(names: list[str]) -> str:
    if not names:
        return "none of the suites was left out"
    rest = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"{len(names)} of the suites were not selected: {', '.join(names[:5])}{rest}"
