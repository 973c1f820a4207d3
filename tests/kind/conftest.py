"""What tests with a real Docker share."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from clusterproof.kind import docker

ROOT = Path(__file__).parents[2]
CLUSTERPROOF = str(Path(sys.executable).with_name("clusterproof"))


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    """Clusters need a Docker, and tests of our own Docker a machine that has none running."""
    there = docker.running()
    for item in items:
        if item.path.name == "test_clusters.py" and not there:
            item.add_marker(pytest.mark.skip(reason="no Docker runs: clusterproof kind-docker pytest tests/kind"))
        if item.path.name == "test_docker.py" and (there or os.geteuid() != 0):
            item.add_marker(pytest.mark.skip(reason="a Docker runs here, or we are not root"))


def run_suites(*arguments: str, timeout: float = 300, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """A pytest of its own, as a user starts it; its output also goes where this one's goes."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=timeout, check=False)
    print(done.stdout, done.stderr, sep="\n")
    return done
