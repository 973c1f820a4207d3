"""Each breakage must be noticed by the promises that it breaks, and by no others."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import contextmanager

import pytest

from clusterproof.outcome import Outcome, Result

from .prove import Prover
from .record import Record
from .registry import ALL, Breakage
from .subject import Subject

# Who is connected to an API server that is killed cannot close the connection properly.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


def test_every_promise_exists(prover: Prover) -> None:
    """Breakages name promises by report ids that exist."""
    wrong = {each.name: unknown for each in ALL.values() if (unknown := prover.unknown(each.promises))}

    assert not wrong, f"these breakages name promises that do not exist: {wrong}"


def test_sound_cluster(sound: list[Result]) -> None:
    """Before anything is broken, the same promises are all kept: what is noticed later is the breakage.

    Those that this cluster does not support are declared by the breakages that claim what they need.
    """
    fine = (Outcome.KEPT, Outcome.UNSUPPORTED)
    noticed = [f"{result.id} is {result.outcome}: {result.reason}" for result in sound if result.outcome not in fine]

    assert not noticed, "on the sound cluster:\n" + "\n".join(noticed)


@pytest.mark.parametrize("broken", [pytest.param(each, id=each.name) for each in ALL.values()])
def test_detection(broken: Breakage, subject: Subject, prover: Prover, record: Record) -> None:
    """The promises that a breakage breaks are broken and say why; promises that it has nothing to do with are kept."""
    subject.mend()
    with contextmanager(broken.damage)(subject) as arguments:
        told = [*(() if _names_cluster(arguments) else subject.arguments), *arguments]
        runs = [prover.start(list(broken.breaks), told, scale=broken.scale)]
        runs += [prover.start(broken.keeps, told)] if broken.keeps else []
        results = [result for run in runs for result in run.results()]
    record.add(broken.name, results)

    wrong = [problem for id in broken.breaks for problem in broken.unnoticed(id, results)]
    wrong += [
        f"{result.id} has nothing to do with it, but is {result.outcome}: {result.reason}"
        for id in broken.keeps
        for result in broken.cases(id, results)
        if not _kept(result)
    ]
    assert not wrong, f"{broken.meaning}\n" + "\n".join(wrong)


def _names_cluster(arguments: Sequence[str]) -> bool:
    """Whether a breakage says itself which cluster is meant."""
    return any(argument.startswith("--cluster=") for argument in arguments)


def _kept(result: Result) -> bool:
    return result.outcome is Outcome.KEPT
