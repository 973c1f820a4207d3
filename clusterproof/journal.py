"""The append-only record of a run: one result a line, on disk before the next promise starts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from clusterproof.outcome import Attachment, Availability, Outcome, Result, Rights, Step, to_json

NAME = "journal.jsonl"


class Journal:
    """Writes the journal of one run; it replaces that of an earlier run."""

    def __init__(self, directory: Path) -> None:
        """UsageError when the directory cannot be written to."""
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._file = (directory / NAME).open("w", encoding="utf-8")
        except OSError as error:
            raise pytest.UsageError(f"--reports-dir={directory}: cannot be written to: {error.strerror}") from error

    def add(self, result: Result) -> None:
        """Append a result; it is handed to the operating system before this returns."""
        self._file.write(dumps(result) + "\n")
        self._file.flush()

    def close(self) -> None:
        """No more results follow."""
        self._file.close()


def dumps(result: Result) -> str:
    """A result as one line of JSON."""
    return json.dumps(to_json(result))


def loads(line: str) -> Result:
    """A result from a line that `dumps` made."""
    raw: dict[str, Any] = json.loads(line)
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
