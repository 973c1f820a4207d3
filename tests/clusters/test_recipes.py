"""The nights of docs/recipes, as every CI server runs them, without the server."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from clusterproof.reports import result

from clusterproof import catalog, kinds
from clusterproof.outcome import Outcome

from .machine import Cluster, Machine

SHARDS = 2
CHOSEN = "livez or readyz or healthz or latency or broad_grants or public_info or escalation"
"""Some promises that take seconds; a night has them all."""

FOR_EVERYBODY: dict[str, Any] = {
    "apiVersion": "rbac.authorization.k8s.io/v1",
    "kind": "ClusterRoleBinding",
    "metadata": {"name": "for-everybody"},
    "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
    "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "system:unauthenticated"}],
}


class Job:
    """What a CI server gives a recipe: a checkout, Clusterproof on the PATH, and the cluster's kubeconfig."""

    def __init__(self, cluster: Cluster, checkout: Path) -> None:
        self.cluster, self.checkout = cluster, checkout
        root = catalog.root().parent
        for name in "suites", "docs/recipes":
            shutil.copytree(root / name, checkout / name)
        shutil.copy(root / "pyproject.toml", checkout)

    def environment(self, night: str) -> dict[str, str]:
        return {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "KUBECONFIG_FILE": str(self.cluster.kubeconfig),
            "NIGHT": night,
            "PYTEST_ADDOPTS": f"-k '{CHOSEN}' -p no:cacheprovider",
        }

    def prove(self, night: str) -> None:
        """All shards of a night."""
        for shard in range(1, SHARDS + 1):
            command = ["docs/recipes/shard.sh", str(shard), str(SHARDS)]
            done = self.cluster.machine.run(*command, within=240, at=self.checkout, **self.environment(night))
            assert done.returncode == 0, done.stdout + done.stderr

    def verdict(self, night: str) -> int:
        """The exit code of a night; what its shards wrote is gone afterwards, as it is from night to night."""
        machine = self.cluster.machine
        done = machine.run("docs/recipes/verdict.sh", at=self.checkout, **self.environment(night))
        shutil.rmtree(self.checkout / "out")
        return done.returncode


@pytest.fixture
def job(shared: Machine, tmp_path: Path) -> Job:
    """A job for a cluster of one node."""
    return Job(shared.up("nights", "--nodes", "1"), tmp_path / "checkout")


def test_a_sound_night_then_one_that_was_interrupted_and_found_something(job: Job) -> None:
    """Each night's verdict MUST be the cluster's: kept, then broken by name and compared with the night before."""
    job.prove("night-1")
    assert job.verdict("night-1") == 0
    assert {path.name for path in (job.checkout / "history").iterdir()} == {"night-1.json", "last.json"}

    job.cluster.ask(lambda client: client.post(kinds.CLUSTER_ROLE_BINDING.path(), FOR_EVERYBODY))
    command = ["docs/recipes/shard.sh", "1", str(SHARDS)]
    journal = job.checkout / "out" / "1" / "journal.jsonl"
    with job.cluster.machine.start(*command, at=job.checkout, **job.environment("night-2")) as started:
        started.reaches(lambda: journal.exists() and len(journal.read_text().splitlines()) > 2)
        started.signal(signal.SIGKILL)
        started.wait()
    job.prove("night-2")
    assert job.verdict("night-2") == 1

    found = result.read(job.checkout / "reports" / "out" / result.NAME)
    assert [each.id for each in found.results if each.outcome is Outcome.BROKEN] == ["access/rbac/broad_grants"]
    assert "**regressed: 1 newly broken**" in (job.checkout / "reports" / "out" / "diff.md").read_text()
    assert "access/rbac/broad_grants" in (job.checkout / "reports" / "out" / "history.html").read_text()
