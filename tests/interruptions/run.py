"""Ends runs at random moments: `--resume` proves only what is missing and ends with the same outcomes.

A fast selection is proven once undisturbed, then once for each round with SIGKILL in between: for the runner alone, or
for the runner and all its processes. `clusterproof sweep` is run right after the kill, or only after the resumed run,
and then every object of every kind, the cluster-scoped included, is compared with what there was before. With
`--ctrl-c` all processes get SIGINT instead, in every second round while they are being forked, and the run has to clean
up by itself. Exit code 0 when all rounds are as they must be.
    python tests/interruptions/run.py [--ctrl-c] [--rounds N] [--first N] [--seed N] [--kubeconfig FILE]
        [--folder FOLDER]
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
ENDING = 60.0
"""Seconds within which a run must have ended after Ctrl-C, with all that it made."""
FORKING = (1.5, 4.0)
"""Seconds from a run's start between which it forks its processes, and these load what they need."""


@dataclass(slots=True)
class Round:
    """What became of one run that was ended."""

    ended: float
    """Seconds from its start."""
    proven: int
    """Promises that were proven when it was ended."""
    seconds: float
    """How long the resumed part took."""
    swept: int
    """Objects that `sweep` still found after that."""
    problems: list[str]


class Bench:
    """One cluster, and runs on it."""

    def __init__(self, kubeconfig: Path, folder: Path, *, ctrl_c: bool) -> None:
        self.kubeconfig = kubeconfig
        self.folder = folder
        self.ctrl_c = ctrl_c

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

    def interrupt(self, into: Path, after: float, *, run: str) -> list[str]:
        """Start a run, and press Ctrl-C after so many seconds; what is wrong with its end."""
        command = self.command(into, f"--run-id={run}")
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
        ) as running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                running.communicate(timeout=after)
                return []  # it was faster
            os.killpg(running.pid, signal.SIGINT)
            try:
                said, _ = running.communicate(timeout=ENDING)
            except subprocess.TimeoutExpired:
                os.killpg(running.pid, signal.SIGKILL)
                return [f"it had not ended {ENDING:.0f} s after Ctrl-C"]
        problems = [] if running.returncode == 2 else [f"it exited with {running.returncode} after Ctrl-C"]
        return problems + [line for line in said.splitlines() if "Traceback" in line]

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
        """End a run, sweep what it left in half of the rounds, resume it, sweep in all of them, and compare."""
        run, into = f"ended-{number}", self.folder / f"{number}"
        problems, swept = [], 0
        if self.ctrl_c:
            problems += self.interrupt(into, after, run=run)
            problems += [f"left in the cluster after Ctrl-C: {one}" for one in self.left(before, run)]
        else:
            self.kill(into, after, everything=bool(number % 2), run=run)
            if number % 4 > 1:
                swept = self.sweep(run)
                problems += [f"left in the cluster after the kill: {one}" for one in self.left(before, run)]
        _, lines, complete = journal.read(into / journal.NAME)
        proven = {each.id for _, each in lines if each.outcome is not Outcome.ERROR}
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
    parser.add_argument("--ctrl-c", action="store_true", help="end runs with SIGINT instead of SIGKILL")
    parser.add_argument("--rounds", type=int, default=20, metavar="N", help="runs to end (default: 20)")
    parser.add_argument("--first", type=int, default=0, metavar="N", help="number of the first round (default: 0)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of the moments (default: 1)")
    parser.add_argument("--kubeconfig", type=Path, metavar="FILE", help="cluster to use (default: one of its own)")
    parser.add_argument(
        "--folder", type=Path, metavar="FOLDER", help="keeps all results; the undisturbed run is not repeated"
    )
    args = parser.parse_args()
    # What is started in the background ignores it otherwise, and so would all that it starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with contextlib.ExitStack() as ended:
        kubeconfig, folder = args.kubeconfig, args.folder
        if not kubeconfig:
            kubeconfig = cluster.up(cluster.Plan(NAME, owner=os.getpid()), print).kubeconfig
            ended.callback(cluster.down, NAME)
        if not folder:
            folder = Path(ended.enter_context(tempfile.TemporaryDirectory(prefix="clusterproof-interruptions-")))
        bench = Bench(kubeconfig, folder, ctrl_c=args.ctrl_c)
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
        forking = bench.ctrl_c and number % 2
        after = random.Random(f"{seed}-{number}").uniform(*(FORKING if forking else (0.1 * whole, whole)))
        done = bench.one_round(number, after, expected, before)
        wrong += bool(done.problems)
        print(
            f"round {number}: ended after {done.ended:.1f} s with {done.proven} proven; resumed in "
            f"{done.seconds:.1f} s, {done.ended + done.seconds - whole:+.1f} s in all; {done.swept} swept",
            *done.problems,
            sep="\n  ",
            flush=True,
        )
    return wrong


if __name__ == "__main__":
    sys.exit(main())
