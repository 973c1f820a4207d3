"""What can be broken: each breakage is one small function, which breaks, yields, and repairs.

    @breakage(breaks={"apps/cronjob/schedule": r"0 Jobs"}, keeps=["apps/job/completion"])
    def cronjob_controller_off(subject: Subject) -> Damage:
        \"\"\"The CronJob controller does not run.\"\"\"
        with subject.restarted("kube-controller-manager", ("--controllers=", "--controllers=*,-cronjob-controller")):
            yield []

What it yields are further arguments for pytest: how the promises are to reach the cluster, when they shall look at it
through something that distorts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from clusterproof.outcome import Outcome, Result

from .subject import Subject

Damage = Iterator[Sequence[str]]

SCALE = 0.3
"""Times the usual budgets, for promises that must be broken: those that fail by waiting shall not wait long."""


@dataclass(frozen=True, slots=True)
class Breakage:
    """One way in which a cluster can be broken, and what is to be noticed of it."""

    name: str
    meaning: str
    """What is wrong with the cluster, in one sentence."""
    breaks: Mapping[str, str]
    """Promises that must be broken, each with a regular expression that its message matches.

    An id without its case stands for all cases, of which at least one must be broken.
    """
    keeps: tuple[str, ...]
    """Promises that have nothing to do with it, and must be kept."""
    scale: float
    damage: Callable[[Subject], Damage]

    @property
    def promises(self) -> list[str]:
        """Everything that is tried on the broken cluster."""
        return [*self.breaks, *self.keeps]

    def cases(self, id: str, results: Iterable[Result]) -> list[Result]:
        """The results of a promise: of the case that its id names, or of all."""
        return [result for result in results if id in (result.id, result.id.partition("[")[0])]

    def unnoticed(self, id: str, results: Iterable[Result]) -> Iterator[str]:
        """What is wrong with the results of a promise that had to notice it."""
        cases = self.cases(id, results)
        said = [result.reason for result in cases if result.outcome is Outcome.BROKEN]
        if not said:
            yield f"{id} did not notice it: " + "; ".join(
                f"{each.id} is {each.outcome}: {each.reason}" for each in cases
            )
        for reason in said:
            if not re.search(self.breaks[id], reason):
                yield f"{id} does not point at it, with /{self.breaks[id]}/: {reason}"
        for each in cases:
            if each.outcome is Outcome.ERROR:
                yield f"{each.id} blames its surroundings: {each.reason}"


ALL: dict[str, Breakage] = {}
"""By name, in the order of their definition."""


def breakage(
    *, breaks: Mapping[str, str], keeps: Sequence[str], scale: float = SCALE, name: str = "", meaning: str = ""
) -> Callable[[Callable[[Subject], Damage]], Callable[[Subject], Damage]]:
    """Register a function as a breakage; its name and docstring say what is wrong, unless they are given."""

    def register(damage: Callable[[Subject], Damage]) -> Callable[[Subject], Damage]:
        known = name or damage.__name__
        assert known not in ALL, f"two breakages are called {known}"
        said = meaning or (damage.__doc__ or "").strip().partition("\n")[0]
        ALL[known] = Breakage(known, said, breaks, tuple(keeps), scale, damage)
        return damage

    return register
