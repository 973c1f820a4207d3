"""The append-only record of a run: one result a line, on disk before the next promise starts.

Before the first result, and again where a run is resumed, a line says which run it is and on which cluster; the last
line says that the run came to an end.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from clusterproof.outcome import Attachment, Availability, ClusterFacts, Outcome, Result, Rights, Step, to_json
from clusterproof.provider import Access
from clusterproof.running.run import access_of, facts_of

NAME = "journal.jsonl"


@dataclass(frozen=True, slots=True)
class Opened:
    """A run, or a part of one that was resumed, as it began."""

    id: str
    suite_version: str
    sha256: str
    """Of the suites' sources; empty for promises of somebody's own."""
    started: float
    """Seconds since the epoch."""
    arguments: tuple[str, ...]
    expected: tuple[str, ...]
    """Ids of all promises that were selected."""
    cluster: ClusterFacts
    access: Access


class Journal:
    """Writes the journal of one run; its first line replaces what an earlier run has written, or goes on with it."""

    def __init__(self, directory: Path, *, resume: bool = False) -> None:
        """UsageError when the directory cannot be written to, or another run is writing there."""
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._file = (directory / NAME).open("ab", buffering=0)
        except OSError as error:
            raise pytest.UsageError(f"--reports-dir={directory}: cannot be written to: {error.strerror}") from error
        try:
            # A record lock: it ends with this process, whatever becomes of those that it forks.
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.close()
            raise pytest.UsageError(f"--reports-dir={directory}: another run is writing there") from error
        self._replaces = not resume
        self._unwritten = b"\n" if resume else b""  # the last line may have been cut off
        self.trouble = ""
        """Why something is not written yet: no reason to prove nothing more. Empty when everything is."""

    def open(self, opened: Opened) -> None:
        """Say whose results follow."""
        self._write({"opened": dataclasses.asdict(opened)})

    def add(self, result: Result) -> None:
        """Append a result; it is handed to the operating system before this returns, unless the disk is full."""
        self._write(to_json(result))

    def end(self, *, complete: bool) -> None:
        """Say that the run came to its end, and whether everything was tried."""
        self._write({"ended": {"complete": complete}})

    def close(self) -> None:
        """No more results follow; of a run without any, as of one that was refused, nothing is left in the folder."""
        path = Path(self._file.name)
        with contextlib.suppress(OSError):  # it has gone, or there are reports of earlier runs beside it
            if self._replaces and not path.stat().st_size:
                path.unlink()
                path.parent.rmdir()
        self._file.close()

    def _write(self, line: dict[str, Any]) -> None:
        self._unwritten += json.dumps(line).encode() + b"\n"
        try:
            if self._replaces:
                self._file.truncate(0)
                self._replaces = False
            while self._unwritten:
                self._unwritten = self._unwritten[self._file.write(self._unwritten) :]
            self.trouble = ""
        except OSError as error:
            self.trouble = error.strerror or str(error)


def read(path: Path) -> tuple[tuple[Opened, ...], list[tuple[int, Result]], bool]:
    """The parts of a run, its results with the number of their part, and whether it came to its end with all tried.

    A line that was cut off is passed over. UsageError when the file cannot be read, or a line is none of a journal.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return (), [], False
    except (OSError, UnicodeDecodeError) as error:
        raise pytest.UsageError(f"{path}: cannot be read: {error}") from error
    parts: list[Opened] = []
    results: list[tuple[int, Result]] = []
    complete = False
    for number, line in enumerate(lines, 1):
        raw: dict[str, Any] = {}
        with contextlib.suppress(ValueError):
            raw = json.loads(line)
        try:
            if "opened" in raw:
                parts.append(_opened(raw["opened"]))
            elif "ended" in raw:
                complete = raw["ended"]["complete"]
            elif raw and parts:
                results.append((len(parts) - 1, _result(raw)))
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise pytest.UsageError(
                f"{path}: line {number} is not as this version of Clusterproof writes it "
                f"({type(error).__name__}: {error}): another version did, or it is damaged; begin the run anew, "
                f"without --resume"
            ) from error
    return tuple(parts), results, complete


def dumps(result: Result) -> str:
    """A result as one line of JSON."""
    return json.dumps(to_json(result))


def loads(line: str) -> Result:
    """A result from a line that `dumps` made."""
    return _result(json.loads(line))


def _result(raw: dict[str, Any]) -> Result:
    return Result(
        **{
            **raw,
            "outcome": Outcome(raw["outcome"]),
            "capabilities": tuple(raw["capabilities"]),
            "namespaces": tuple(raw["namespaces"]),
            "steps": tuple(Step(**step) for step in raw["steps"]),
            "attachments": tuple(Attachment(**attachment) for attachment in raw["attachments"]),
            "availability": tuple(_availability(seen) for seen in raw["availability"]),
            "rights": tuple(Rights(**{**each, "granted": tuple(each["granted"])}) for each in raw["rights"]),
        }
    )


def _availability(raw: dict[str, Any]) -> Availability:
    series = {name: tuple(raw[name]) for name in ("answered", "failed", "slowest")}
    return Availability(**{**raw, **series})


def _opened(raw: dict[str, Any]) -> Opened:
    names = {name: tuple(raw[name]) for name in ("arguments", "expected")}
    return Opened(**{**raw, **names, "cluster": facts_of(raw["cluster"]), "access": access_of(raw["access"])})
