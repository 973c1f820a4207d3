"""Named parts of what is to be proven, and what each came to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from clusterproof import catalog
from clusterproof.outcome import Outcome, ProfileVerdict, Result, Verdict, count


@dataclass(frozen=True, slots=True)
class Profile:
    """A set of promises: by area, and by the prefix of the capabilities they need."""

    name: str
    meaning: str
    areas: tuple[str, ...] = ()
    """Areas that belong to it; empty for all."""
    capabilities: tuple[str, ...] = ()
    """Names, or prefixes ending in a dot, of capabilities that belong to it."""
    every_capability: bool = False

    def holds(self, area: str, capabilities: Iterable[str]) -> bool:
        """Whether a promise of an area that needs these capabilities belongs to it."""
        if self.areas and area not in self.areas:
            return False
        return self.every_capability or all(
            any(name == mine or (mine.endswith(".") and name.startswith(mine)) for mine in self.capabilities)
            for name in capabilities
        )


CORE = Profile("core", "What every cluster must do.", capabilities=("access.", "nodes.several"))
NETWORKING = Profile(
    "networking", "Pods, Services and what leads to them.", ("network",), ("network.", "nodes.several")
)
STORAGE = Profile("storage", "Volumes.", ("storage",), ("storage.",))
AUTOSCALING = Profile("autoscaling", "Following the load.", ("scale",), ("scale.",))
FULL = Profile("full", "Everything the suites know.", every_capability=True)

ALL: dict[str, Profile] = {each.name: each for each in (CORE, NETWORKING, STORAGE, AUTOSCALING, FULL)}
"""Every profile by name."""


def verdict(profile: Profile, results: Iterable[Result], missing: Iterable[str]) -> ProfileVerdict | None:
    """What a profile came to; `missing` are ids of its promises without a result. None when nothing of it was tried."""
    mine = tuple(result for result in results if profile.holds(result.area, result.capabilities))
    if not mine:
        return None
    broken = [result.id for result in mine if result.outcome is Outcome.BROKEN]
    flaky = [result.id for result in mine if result.outcome is Outcome.FLAKY]
    open_ends = [
        f"{result.id} {result.outcome}" for result in mine if result.outcome in (Outcome.SKIPPED, Outcome.ERROR)
    ]
    open_ends += [f"{id} not run" for id in missing]
    kept = sum(result.outcome is Outcome.KEPT for result in mine)
    if broken:
        judged, reason = Verdict.BROKEN, f"broken: {_some(broken)}"
    elif flaky or open_ends:
        told = {"flaky": flaky, "not proven": open_ends}
        judged = Verdict.PARTIAL
        reason = "; ".join(f"{what}: {_some(names)}" for what, names in told.items() if names)
    elif not kept:
        judged, reason = Verdict.PARTIAL, "not proven: the cluster claims none of it"
    else:
        judged, reason = Verdict.CONFORMANT, f"all {kept} promises that the cluster claims are kept"
    return ProfileVerdict(profile.name, judged, count(mine), reason)


def verdicts(results: Iterable[Result], planned: Iterable[Mapping[str, Any]]) -> list[ProfileVerdict]:
    """What each profile came to that something was tried of.

    A profile is about all promises of the suites that belong to it, also those that were not selected; `planned` are
    those that were, as arguments of Result.
    """
    done = tuple(results)
    tried = {result.id for result in done} | {result.id.partition("[")[0] for result in done}
    untried = {
        promise.id: promise.capabilities
        for promise in catalog.scan([catalog.root()])
        if promise.id not in tried and promise.tier != "disruptive"
    }
    untried |= {each["id"]: tuple(each["capabilities"]) for each in planned if each["id"] not in tried}
    judged = []
    for profile in ALL.values():
        missing = [id for id, needs in untried.items() if profile.holds(id.partition("/")[0], needs)]
        judged.append(verdict(profile, done, missing))
    return [each for each in judged if each is not None]


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
