"""Goes on with a run that was interrupted: what its journal has is not proven again."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING

import pytest

from clusterproof import catalog
from clusterproof.outcome import ClusterFacts, Outcome, Result
from clusterproof.running import journal
from clusterproof.settings import Settings

if TYPE_CHECKING:
    from clusterproof.running.run import RunFolder


@dataclass(frozen=True, slots=True)
class Earlier:
    """What an interrupted run has proven."""

    parts: tuple[journal.Opened, ...]
    """The run, and each time that it was resumed."""
    results: tuple[Result, ...]
    """Without errors: of those nothing was learned, and what interrupted the run may be their cause."""
    seconds: float
    """How long all parts went on, as far as results tell."""

    @property
    def first(self) -> journal.Opened:
        """How the run began."""
        return self.parts[0]

    @property
    def last(self) -> journal.Opened:
        """The part that was interrupted last."""
        return self.parts[-1]

    def clusters(self) -> tuple[ClusterFacts, ...]:
        """The clusters that something was proven on, each once."""
        by_uid = {part.cluster.uid: part.cluster for part in self.parts}
        used = {result.cluster for result in self.results}
        return tuple(cluster for uid, cluster in by_uid.items() if uid in used)


def load(settings: Settings, *, suites: bool) -> Earlier:
    """The interrupted run of the reports' folder; UsageError when there is none, or it cannot be gone on with."""
    path = settings.reports_dir / journal.NAME
    parts, lines, complete = journal.read(path)
    if not parts:
        raise pytest.UsageError(f"--resume: nothing to resume: {path} has no promise that was proven")
    first, latest = parts[0], {result.id: result for _, result in lines}
    if complete:
        raise pytest.UsageError(f"--resume: nothing to resume: run {first.id} in {path} came to its end")
    _check(first, settings, suites=suites)
    ends = [
        max((result.started + result.seconds for number, result in lines if number == index), default=part.started)
        for index, part in enumerate(parts)
    ]
    return Earlier(
        parts,
        tuple(result for result in latest.values() if result.outcome is not Outcome.ERROR),
        sum(end - part.started for end, part in zip(ends, parts, strict=True)),
    )


def digest(*, suites: bool) -> str:
    """What tells one version of the suites from another; empty for promises of somebody's own."""
    return catalog.digest() if suites else ""


def check_selection(earlier: Earlier, selected: Iterable[str]) -> None:
    """UsageError when other promises are selected than the interrupted run had selected."""
    now, then = set(selected), set(earlier.first.expected)
    if now != then:
        raise pytest.UsageError(
            f"--resume: run {earlier.first.id} had {len(then)} promises selected, and now there are {len(now)}, "
            f"{len(now ^ then)} of them in only one of the two: give the same selection as for that run"
        )


def take_over(earlier: Earlier, run: RunFolder, settings: Settings, needs: frozenset[str] | None) -> bool:
    """Give the run a cluster: the one it had, if that is there; whether it is that one.

    A cluster that was made for the run and has gone is replaced by one that is made in the same way. UsageError when
    the cluster is another than it was.
    """
    was = earlier.last.cluster
    if settings.cluster != "external":
        # Of a shape, or of a cluster that was there before, the number of nodes is not what --nodes says.
        if not (settings.shape or settings.reuse) and len(was.nodes) != settings.nodes:
            raise pytest.UsageError(
                f"--nodes={settings.nodes}: the cluster of run {earlier.first.id} has {len(was.nodes)}"
            )
        if run.adopt(settings, earlier.last.access, was.uid):
            return True
    _, facts = run.acquire(settings, needs)
    if facts.uid == was.uid:
        return True
    if settings.cluster == "external":
        raise pytest.UsageError(
            f"--resume: run {earlier.first.id} was on the cluster with UID {was.uid} of namespace kube-system, "
            f"and {facts.name} has UID {facts.uid}"
        )
    if facts.version != was.version or _claimed(facts) != _claimed(was):
        raise pytest.UsageError(
            f"--resume: the cluster of run {earlier.first.id} has gone, and the new one is not like it: "
            f"Kubernetes {facts.version} instead of {was.version}, or other capabilities"
        )
    return False


def _check(first: journal.Opened, settings: Settings, *, suites: bool) -> None:
    problems = []
    if first.suite_version != version("clusterproof") or first.sha256 != digest(suites=suites):
        problems.append("the suites have changed since")
    if settings.chosen_id not in ("", first.id):
        problems.append(f"--run-id={settings.chosen_id} is another run")
    if first.access.provider != settings.cluster:
        problems.append(f"it has a cluster from --cluster={first.access.provider}, not {settings.cluster}")
    if problems:
        raise pytest.UsageError(f"--resume: run {first.id} cannot be resumed: {'; '.join(problems)}")


def _claimed(facts: ClusterFacts) -> set[str]:
    return {claim.name for claim in facts.capabilities if claim.supported}
