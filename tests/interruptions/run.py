"""Kills runs with SIGKILL at random moments: `--resume` proves only what is missing and ends with the same outcomes.

A fast selection is proven once undisturbed, then once for each round with a kill in between: of the runner alone, or of
the runner and all its processes. `clusterproof sweep` is run right after the kill, or only after the resumed run, and
then every object of every kind, the cluster-scoped included, is compared with what there was before. Exit code 0 when
all rounds are as they must be.
    python tests/interruptions/run.py [--rounds N] [--first N] [--seed N] [--kubeconfig FILE] [--folder FOLDER]
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from clusterproof.embedded import cluster
from clusterproof.reports import result

from clusterproof import catalog
from clusterproof.client import Client
from clusterproof.outcome import Outcome, Run
from clusterproof.running import journal, ledger

NAME = "interruptions"
SELECTION = (
    "access/test_credentials.py::test_automount",
    "access/test_credentials.py::test_certificates",
    "access/test_rbac.py::test_aggregation",
    "access/test_rbac.py::test_escalation",
    "access/test_rbac.py::test_non_resource_urls",
    "access/test_rbac.py::test_revocation",
    "access/test_rbac.py::test_scope",
    "api/test_admission_policies.py",
    "api/test_admission_webhooks.py::test_validating",
    "api/test_namespaces.py",
    "apps/test_deployment.py::test_recreate",
    "apps/test_deployment.py::test_self_heal",
    "apps/test_job.py::test_completion",
    "extend/test_aggregation.py::test_identity",
    "extend/test_conversion.py::test_webhook",
    "extend/test_crd.py",
    "health/test_health.py::test_livez",
    "health/test_health.py::test_readyz",
    "network/test_service.py::test_cluster_ip",
    "storage/test_storage.py::test_dynamic",
)
"""Of the suites: pods, volumes, objects of all scopes, kinds and webhooks of their own, and promises that only look."""
REFERENCE = "whole"
"""The run that nothing disturbs."""
PATIENCE = 300.0
"""Seconds for one run on a busy machine."""
GOING = 120.0
"""Seconds within which all that was removed must have gone."""


@dataclass(slots=True)
class Round:
    """What became of one run that was killed."""

    killed: float
    """Seconds from its start."""
    proven: int
    """Promises that were proven when it was killed."""
    seconds: float
    """How long the resumed part took."""
    swept: int
    """Objects that `sweep` still found after that."""
    problems: list[str]


class Bench:
    """One cluster, and runs on it."""

    def __init__(self, kubeconfig: Path, folder: Path) -> None:
        self.kubeconfig = kubeconfig
        self.folder = folder

    def command(self, into: Path, *options: str) -> list[str]:
        paths = [str(catalog.root() / each) for each in SELECTION]
        external = ["--cluster=external", f"--kubeconfig={self.kubeconfig}", f"--reports-dir={into}"]
        quiet = ["-q", "-p", "no:cacheprovider", "--report-formats=json", "--workers=6"]
        return [sys.executable, "-m", "pytest", *paths, *external, *quiet, *options]

    def prove(self, into: Path, *options: str) -> tuple[int, float, str]:
        """A run to its end: its exit code, its seconds, and what it said."""
        began = time.monotonic()
        done = subprocess.run(
            self.command(into, *options), capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        return done.returncode, time.monotonic() - began, done.stdout + done.stderr

    def undisturbed(self, before: ledger.Ledger) -> tuple[float, dict[str, str]]:
        """A run that nothing disturbs, where none was kept: its seconds, and the outcome of each promise."""
        into, took = self.folder / REFERENCE, self.folder / "seconds"
        if not took.exists():
            code, seconds, said = self.prove(into, f"--run-id={REFERENCE}")
            assert code in (0, 1), said
            assert not (left := self.left(before, REFERENCE)), left
            took.write_text(str(seconds))
        return float(took.read_text()), _outcomes(result.read(into / result.NAME))

    def kill(self, into: Path, after: float, *, everything: bool, run: str) -> None:
        """Start a run, and kill it after so many seconds, or when it has ended."""
        command = self.command(into, f"--run-id={run}")
        with subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        ) as running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                running.wait(after)
            with contextlib.suppress(ProcessLookupError):
                (os.killpg if everything else os.kill)(running.pid, signal.SIGKILL)

    def left(self, before: ledger.Ledger, run: str) -> tuple[str, ...]:
        """What is new in the cluster, once what is going had time to go."""
        client, deadline = Client.from_kubeconfig(self.kubeconfig), time.monotonic() + GOING
        while True:
            leaks = ledger.compare(before, ledger.snapshot(client), run)
            left = (*leaks.ours, *leaks.appeared)
            if not left or time.monotonic() > deadline:
                return left
            time.sleep(1)

    def sweep(self, run: str) -> int:
        """How many objects `clusterproof sweep` still removes."""
        command = [
            Path(sys.executable).with_name("clusterproof"),
            "sweep",
            "--kubeconfig",
            self.kubeconfig,
            "--run",
            run,
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True)
        lines = [line for line in done.stdout.splitlines() if line.startswith("removed ")]
        return sum(not line.startswith("removed files of a killed run: ") for line in lines)

    def one_round(self, number: int, after: float, expected: dict[str, str], before: ledger.Ledger) -> Round:
        """Kill a run, sweep what it left in half of the rounds, resume it, sweep in all of them, and compare."""
        run, into = f"kill-{number}", self.folder / f"{number}"
        self.kill(into, after, everything=bool(number % 2), run=run)
        _, lines, complete = journal.read(into / journal.NAME)
        proven = {each.id for _, each in lines if each.outcome is not Outcome.ERROR}
        problems, swept = [], 0
        if number % 4 > 1:
            swept = self.sweep(run)
            problems += [f"left in the cluster after the kill: {one}" for one in self.left(before, run)]
        code, seconds, said = self.prove(into, "--resume")
        if not proven or complete:
            if code != 4 or "--resume: nothing to resume" not in said:
                problems.append(f"there was nothing to resume, but it exited with {code}: {said[-300:]}")
        else:
            problems += _compared(into, code, said, proven, expected)
        swept += self.sweep(run)
        problems += [f"left in the cluster: {one}" for one in self.left(before, run)]
        return Round(after, len(proven), seconds, swept, problems)


def _compared(into: Path, code: int, said: str, proven: set[str], expected: dict[str, str]) -> list[str]:
    """What is wrong with a run that was resumed."""
    if code not in (0, 1):
        return [f"--resume exited with {code}: {said[-300:]}"]
    run, (_, lines, _) = result.read(into / result.NAME), journal.read(into / journal.NAME)
    problems = [f"proven twice: {each.id}" for number, each in lines if number == 1 and each.id in proven]
    found = _outcomes(run)
    problems += [
        f"{id}: {found.get(id)} instead of {outcome}" for id, outcome in expected.items() if found.get(id) != outcome
    ]
    if not run.complete:
        problems.append("the run is not complete")
    return problems + [f"leak: {leak}" for leak in run.leaks]


def _outcomes(run: Run) -> dict[str, str]:
    return {each.id: each.outcome.value for each in run.results}


def main() -> int:
    """All rounds; 0 when nothing was wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20, metavar="N", help="runs to kill (default: 20)")
    parser.add_argument("--first", type=int, default=0, metavar="N", help="number of the first round (default: 0)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of the moments (default: 1)")
    parser.add_argument("--kubeconfig", type=Path, metavar="FILE", help="cluster to use (default: one of its own)")
    parser.add_argument(
        "--folder", type=Path, metavar="FOLDER", help="keeps all results; the undisturbed run is not repeated"
    )
    args = parser.parse_args()
    with contextlib.ExitStack() as ended:
        kubeconfig, folder = args.kubeconfig, args.folder
        if not kubeconfig:
            kubeconfig = cluster.up(cluster.Plan(NAME, owner=os.getpid()), print).kubeconfig
            ended.callback(cluster.down, NAME)
        if not folder:
            folder = Path(ended.enter_context(tempfile.TemporaryDirectory(prefix="clusterproof-interruptions-")))
        bench = Bench(kubeconfig, folder)
        wrong = _rounds(bench, args.seed, range(args.first, args.first + args.rounds))
    print(f"{args.rounds} rounds, {wrong} wrong")
    return 1 if wrong else 0


def _rounds(bench: Bench, seed: int, numbers: range) -> int:
    """How many of the rounds are not as they must be."""
    before = ledger.snapshot(Client.from_kubeconfig(bench.kubeconfig))
    whole, expected = bench.undisturbed(before)
    print(f"one run: {len(expected)} promises in {whole:.1f} s", flush=True)
    wrong = 0
    for number in numbers:
        # Each round has its moment, whichever round is the first.
        after = random.Random(f"{seed}-{number}").uniform(0.1, 1.0) * whole
        done = bench.one_round(number, after, expected, before)
        wrong += bool(done.problems)
        print(
            f"round {number}: killed after {done.killed:.1f} s with {done.proven} proven; resumed in "
            f"{done.seconds:.1f} s, {done.killed + done.seconds - whole:+.1f} s in all; {done.swept} swept",
            *done.problems,
            sep="\n  ",
            flush=True,
        )
    return wrong


if __name__ == "__main__":
    sys.exit(main())
