"""Divides the promises of one run among several machines: by all of them alike, without a word between them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import pytest

LONG, SHORT = 60.0, 5.0
"""Seconds that a promise is taken for which nothing is known about: one that is marked to come first, and any other."""


def divide(seconds: Mapping[str, float], number: int) -> list[list[str]]:
    """Ids in `number` parts that take about as long each; the same whenever the ids and seconds are the same.

    The longest is given away first, always to the part that has least; ids that take as long are in the order of their
    hashes, so that no part gets an area of its own.
    """
    parts: list[list[str]] = [[] for _ in range(number)]
    loads = [0.0] * number
    for id in sorted(seconds, key=lambda id: (-seconds[id], hashlib.sha256(id.encode()).digest())):
        least = min(range(number), key=lambda index: (loads[index], len(parts[index]), index))
        parts[least].append(id)
        loads[least] += seconds[id]
    return parts


def weights(first: Mapping[str, bool], earlier: Path | None) -> dict[str, float]:
    """Seconds of each promise, by id: from the result document of an earlier run, else guessed.

    `first` says of each whether it is marked to come first. UsageError when the document cannot be read.
    """
    known: dict[str, float] = {}
    if earlier:
        try:
            results = json.loads(earlier.read_text(encoding="utf-8"))["results"]
            known = {each["id"]: float(each["seconds"]) for each in results if each["outcome"] in ("kept", "broken")}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise pytest.UsageError(f"--shard-by={earlier}: a result.json is expected, but: {error}") from error
    return {id: known.get(id, LONG if comes_first else SHORT) for id, comes_first in first.items()}
