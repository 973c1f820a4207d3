"""What one promise did and measured, in order; collected while it runs, by the process that runs it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from clusterproof.kinds import Kind
from clusterproof.outcome import Availability, Rights, Step


@dataclass(slots=True)
class Record:
    """Collected while one promise runs."""

    steps: list[Step] = field(default_factory=list)
    measurements: dict[str, float] = field(default_factory=dict)
    availability: list[Availability] = field(default_factory=list)
    rights: list[Rights] = field(default_factory=list)
    namespaces: list[str] = field(default_factory=list)
    outside: set[Kind] = field(default_factory=set)
    """Kinds of what it created outside of its namespaces, which does not go with them."""
    busy: set[str] = field(default_factory=set)
    """Namespaces in which it has made pods run."""
    jobs: set[str] = field(default_factory=set)
    """Namespaces in which it has created Jobs."""
    requests_before: int = 0
    """Requests of this process before the promise began."""


current = Record()
"""The record of the promise that runs now; one at a time in a process."""


def restart(requests_before: int = 0) -> Record:
    """Start the record of the next promise."""
    global current
    current = Record(requests_before=requests_before)
    return current


@contextmanager
def step(name: str) -> Iterator[None]:
    """Name a part of a promise; it shows in the report with its duration, and as failed when it raises."""
    record, started, clock = current, time.time(), time.monotonic()
    try:
        yield
    except BaseException as error:
        detail = str(error) or type(error).__name__
        record.steps.append(Step(name, started, time.monotonic() - clock, False, detail))
        raise
    record.steps.append(Step(name, started, time.monotonic() - clock))


def measure(name: str, value: float) -> None:
    """Report a figure, by name with unit: `measure("time to recover (s)", 1.2)`."""
    current.measurements[name] = value
