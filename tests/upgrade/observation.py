"""`clusterproof upgrade` as its user runs it, with what it wrote."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clusterproof.upgrade.folder import Before, Folder

COMMAND = str(Path(sys.executable).with_name("clusterproof"))
PATIENCE = 300.0
"""Seconds for one command, on a machine that has much else to do."""


def clusterproof(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run([COMMAND, *arguments], capture_output=True, text=True, timeout=PATIENCE, check=False)


@dataclass(frozen=True, slots=True)
class Judged:
    """How `verify` ended."""

    code: int
    text: str
    verdict: dict[str, Any]

    @property
    def broken(self) -> dict[str, str]:
        """The checks that failed, each with what was said."""
        checks = (each for each in self.verdict["checks"] if each["outcome"] == "broken")
        return {each["id"]: " ".join(each["sentences"]) for each in checks}

    def probe(self, vantage: str, name: str) -> dict[str, Any]:
        """Figures of one client."""
        (found,) = [
            each for each in self.verdict["probes"] if each["vantage"] == vantage and each["probe"].startswith(name)
        ]
        return dict(found)


class Observation:
    """One observation of one cluster."""

    def __init__(self, kubeconfig: Path, folder: Path) -> None:
        self.kubeconfig = kubeconfig
        self.folder = folder

    def run(self, stage: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a stage to its end."""
        return clusterproof("upgrade", stage, "--state", str(self.folder), *arguments)

    def prepare(self) -> None:
        """Lay things down."""
        done = self.run("prepare", "--kubeconfig", str(self.kubeconfig))
        assert done.returncode == 0, done.stderr

    @contextlib.contextmanager
    def monitored(self) -> Iterator[subprocess.Popen[str]]:
        """While a monitor runs; whoever is in charge ends it."""
        command = [COMMAND, "upgrade", "monitor", "--state", str(self.folder)]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as monitor:
            try:
                yield monitor
            finally:
                monitor.kill()

    def verify(self, *arguments: str) -> Judged:
        """Judge it."""
        done = self.run("verify", *arguments)
        assert done.returncode in (0, 1), done.stderr
        return Judged(done.returncode, done.stdout, json.loads((self.folder / "verdict.json").read_text()))

    @property
    def before(self) -> Before:
        """What was laid down."""
        return Folder(self.folder).load()

    def end(self) -> None:
        """Remove what was laid down."""
        self.run("verify", "--remove")
