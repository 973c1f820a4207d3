"""The results of all shards of a run, put together into one."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from clusterproof import catalog, cli, profiles, settings
from clusterproof.outcome import ClusterFacts, Outcome, Run

from . import document, result, text, writer


def problems(runs: dict[str, Run]) -> Iterator[str]:
    """Why these results, by the names of their files, are not exactly the shards of one run; nothing when they are."""
    for name, run in runs.items():
        if run.shard is None:
            yield f"{name}: is not the result of a shard"
        if said := text.incomplete(run):
            yield f"{name}: {said}; go on with that shard: --resume"
    yield from _differing(
        "suites", {n: f"{r.suite_version} {r.suites.sha256 if r.suites else ''}" for n, r in runs.items()}
    )
    yield from _differing("clusters", {name: run.cluster.uid if run.cluster else "none" for name, run in runs.items()})
    shards = {name: run.shard for name, run in runs.items() if run.shard}
    yield from _differing("numbers of shards", {name: str(shard.of) for name, shard in shards.items()})
    yield from _differing("selections", {name: " ".join(sorted(shard.promises)) for name, shard in shards.items()})
    there = Counter(shard.number for shard in shards.values())
    yield from (f"shard {number} is there {times} times" for number, times in sorted(there.items()) if times > 1)
    of = max((shard.of for shard in shards.values()), default=0)
    yield from (f"shard {number} of {of} is missing" for number in range(1, of + 1) if number not in there)
    tried = Counter(id for run in runs.values() for id in run.expected)
    yield from (f"{id}: is in {times} of the results" for id, times in sorted(tried.items()) if times > 1)
    if set(there) == set(range(1, of + 1)):
        selected = {id for shard in shards.values() for id in shard.promises}
        yield from (f"{id}: is in none of the results" for id in sorted(selected - set(tried)))
    if any(run.suites and run.suites.sha256 != catalog.digest() for run in runs.values()):
        yield "the suites of these results are not those that are installed here"


def merge(runs: Sequence[Run]) -> Run:
    """One run of all shards, as `problems` has found nothing wrong with."""
    first = min(runs, key=lambda run: run.shard.number if run.shard else 0)
    results = tuple(
        replace(each, worker=f"{run.shard.number if run.shard else 0}/{each.worker}")
        for run in runs
        for each in run.results
    )
    ids = {run.id.removesuffix(f"-{run.shard.number}") if run.shard else run.id for run in runs}
    earlier: dict[str, ClusterFacts] = {each.uid: each for run in runs for each in run.earlier_clusters}
    started = min(run.started for run in runs)
    return replace(
        first,
        id="+".join(sorted(ids)),
        started=started,
        seconds=max(run.started + run.seconds for run in runs) - started,
        complete=all(run.complete for run in runs),
        expected=tuple(id for run in runs for id in run.expected),
        results=results,
        profiles=tuple(profiles.verdicts(results, {})) if first.suites else (),
        earlier_clusters=tuple(earlier.values()),
        leaks=tuple(dict.fromkeys(leak for run in runs for leak in run.leaks)),
        shard=None,
    )


class Merge:
    """Puts the results of shards together."""

    help = "put the results of all shards of a run together into one report"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        defaults = settings.Settings()
        parser.add_argument("results", nargs="+", type=Path, metavar="RESULT", help="result.json of each shard")
        parser.add_argument(
            "--output",
            type=Path,
            default=defaults.reports_dir,
            metavar="DIR",
            help=f"where the reports go (default: {defaults.reports_dir})",
        )

    def run(self, args: argparse.Namespace) -> int:
        runs: dict[str, Run] = {}
        wrong = []
        for path in args.results:
            try:
                runs[str(path)] = result.read(path)
            except (OSError, ValueError) as error:
                wrong.append(str(error))
        wrong += problems(runs)
        if wrong:
            document.bad_input(wrong)
        merged = merge(tuple(runs.values()))
        written = writer.write(merged, args.output, settings.Settings().report_formats)
        for problem in written.problems:
            wrong.append(problem)
        print(f"{len(runs)} shards: {text.counts(merged.counts)}; reports: {args.output}")
        if wrong:
            document.bad_input(wrong)
        held = not any(each.outcome in (Outcome.BROKEN, Outcome.ERROR) for each in merged.results)
        return cli.DONE if held else cli.FAILED


def _differing(what: str, values: dict[str, str]) -> Iterator[str]:
    """What must be the same in all files, and is not."""
    groups: dict[str, list[str]] = {}
    for name, value in values.items():
        groups.setdefault(value, []).append(name)
    if len(groups) > 1:
        told = " | ".join(", ".join(names) for names in groups.values())
        yield f"they are of {len(groups)} different {what}: {told}"


command = Merge()
