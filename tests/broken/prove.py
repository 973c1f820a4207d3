"""Running named promises with a pytest of their own, and what they found."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from clusterproof import catalog
from clusterproof.outcome import Result
from clusterproof.running import journal
from clusterproof.running.proving import PLAN

LONGEST_SECONDS = 420.0
"""For the promises of one breakage."""


class Prover:
    """Runs promises by their report ids; the runs' files go to a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known = {promise.id: promise for promise in catalog.scan([catalog.root()])}
        self._runs: list[Proof] = []

    def unknown(self, ids: Sequence[str]) -> list[str]:
        """Ids that no promise has."""
        return [id for id in ids if id.partition("[")[0] not in self._known]

    def start(self, ids: Sequence[str], arguments: Sequence[str], *, scale: float = 1.0) -> Proof:
        """Begin to prove promises, each with all its cases or with the one that its id names."""
        folder = Path(tempfile.mkdtemp(dir=self._folder))
        self._runs.append(Proof([self._node_id(id) for id in ids], arguments, scale, folder))
        return self._runs[-1]

    def end(self) -> None:
        """End the runs that are still waiting."""
        for run in self._runs:
            run.end()

    def _node_id(self, id: str) -> str:
        name, bracket, case = id.partition("[")
        promise = self._known[name]
        return f"{promise.path}::{promise.function}{bracket}{case}"


class Proof:
    """One run of pytest."""

    def __init__(self, nodes: Sequence[str], arguments: Sequence[str], scale: float, folder: Path) -> None:
        self._folder, self._log = folder, folder / "output.txt"
        command = [sys.executable, "-m", "pytest", *nodes, *arguments, f"--timeout-scale={scale}"]
        command += [f"--reports-dir={folder}", "--report-formats=json", "--disruptive", "-q", "-pno:cacheprovider"]
        with self._log.open("wb") as output:
            self._process = subprocess.Popen(
                command,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=catalog.root().parent,
                env={**os.environ, "TMPDIR": str(folder)},  # its plan is found there
            )

    def results(self, within: float = LONGEST_SECONDS) -> list[Result]:
        """All results, as soon as the last one is known, which takes so many seconds at most.

        The run itself goes on: it waits for its namespaces to go away, which may take long on a broken cluster.
        """
        deadline = time.monotonic() + within
        while (code := self._process.poll()) is None:
            if (found := self._found()) is not None:
                return found
            assert time.monotonic() < deadline, f"promises still run after {within:g} s:\n{self._said()}"
            time.sleep(0.1)
        assert code in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED), f"pytest ended with {code}:\n{self._said()}"
        return self._record()

    def end(self) -> None:
        """End it, if it still waits."""
        if self._process.poll() is None:
            self._process.terminate()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _found(self) -> list[Result] | None:
        """The results, when there is one for each promise that was planned."""
        for plan in self._folder.glob(f"*/{PLAN}"):
            planned = {promise["id"] for promise in json.loads(plan.read_text()).values()}
            found = self._record()
            if {result.id for result in found} >= planned:
                return found
        return None

    def _record(self) -> list[Result]:
        _, results, _ = journal.read(self._folder / journal.NAME)
        return [result for _, result in results]

    def _said(self) -> str:
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-40:])
