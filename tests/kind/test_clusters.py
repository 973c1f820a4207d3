"""Clusters of real kind: the smoke tier is kept on one, it can be kept and used again, and nothing is left of it."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from clusterproof.kind import state
from clusterproof.kind.provider import Kind

from clusterproof import kinds
from clusterproof.client import Client
from clusterproof.conditions import ready
from clusterproof.objects import Selection

from .conftest import CLUSTERPROOF, ROOT, run_suites

NAME = "kept"
IMAGE = "clusterproof/node:v1.37.2"
MINE = "apiVersion: v1\nkind: Config\ncurrent-context: kind-kept\ncontexts: [{name: kind-kept, context: {}}]\n"


def containers(cluster: str) -> list[str]:
    listing = ["docker", "ps", "--all", "--quiet", "--filter", f"label=io.x-k8s.kind.cluster={cluster}"]
    return subprocess.run(listing, capture_output=True, text=True, check=True).stdout.split()


def record(name: str) -> state.Record:
    (found,) = (each for each in state.records() if each.name == name)
    return found


@pytest.fixture(scope="module")
def kubeconfig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The user's own, which has a context of just the name that kind gives its own."""
    path = tmp_path_factory.mktemp("user") / "config"
    path.write_text(MINE)
    before = os.environ.get("KUBECONFIG")
    os.environ["KUBECONFIG"] = str(path)
    yield path
    os.environ.pop("KUBECONFIG")
    if before is not None:
        os.environ["KUBECONFIG"] = before


@pytest.fixture(scope="module")
def kept(kubeconfig: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Reports of the smoke tier on a kind cluster of two nodes, which is kept for the other tests."""
    reports = tmp_path_factory.mktemp("reports")
    started = time.monotonic()
    done = run_suites(
        "suites/",
        "-m",
        "smoke",
        "--cluster=kind",
        "--shape=two-node",
        f"--cluster-name={NAME}",
        "--keep-cluster",
        f"--reports-dir={reports}",
    )
    print(f"smoke tier, with the cluster's creation: {time.monotonic() - started:.0f} s")
    assert f"remove it with: kind delete cluster --name {NAME}" in done.stdout
    yield reports
    Kind().remove(record(NAME))
    assert not containers(NAME)
    assert not list(state.root().iterdir())
    assert kubeconfig.read_text() == MINE


def check_kept(reports: Path, most: int) -> None:
    """The run is complete, left nothing, and more than so many promises are kept, none broken."""
    run = json.loads((reports / "result.json").read_text())
    wrong = [(each["id"], each["message"]) for each in run["results"] if each["outcome"] in ("broken", "error")]
    assert not wrong
    assert [each["outcome"] for each in run["results"]].count("kept") > most
    assert run["complete"]
    assert not run["leaks"]


def test_the_smoke_tier_is_kept(kept: Path) -> None:
    check_kept(kept, 40)


def test_what_is_promised_of_nodes_is_kept(kept: Path, tmp_path: Path) -> None:
    """Seen from inside, through Docker: files, kernel, runtime, ports and clocks of both nodes."""
    run_suites("suites/nodes", "--cluster=kind", "--reuse", f"--cluster-name={NAME}", f"--reports-dir={tmp_path}")
    check_kept(tmp_path, 15)


def test_nodes_and_dns_are_ready(kept: Path) -> None:
    client = Client.from_kubeconfig(record(NAME).kubeconfig)
    assert [ready(node) for node in Selection(client, kinds.NODE).read()] == [None, None]
    assert any(not ready(pod) for pod in Selection(client, kinds.POD, "kube-system", "k8s-app=kube-dns").read())


def test_only_its_user_can_read_the_kubeconfig(kept: Path) -> None:
    assert stat.S_IMODE(record(NAME).kubeconfig.stat().st_mode) == 0o600


def test_a_kept_cluster_is_used_again_and_the_k8s_fixture_runs_beside_it(kept: Path, tmp_path: Path) -> None:
    """Both in one session: a promise on the cluster that was kept, and pytest-kubernetes' own fixture as ever."""
    (tmp_path / "kind.yaml").write_text(
        "kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\nname: theirs\n"
        f"nodes: [{{role: control-plane, image: {IMAGE}}}]\n"
    )
    (tmp_path / "test_both.py").write_text(
        f"""
from pathlib import Path
import pytest
from pytest_kubernetes.options import ClusterOptions
from pytest_kubernetes.providers.kind import KindManagerBase


def test_ours(cluster):
    assert cluster.access.name == {NAME!r}
    assert len(cluster.nodes()) == 2


@pytest.mark.k8s(provider="kind", provider_config={str(tmp_path / "kind.yaml")!r})
def test_theirs(k8s, cluster):
    assert isinstance(k8s, KindManagerBase)
    k8s.create(timeout=120)
    assert [node["metadata"]["name"] for node in k8s.kubectl(["get", "nodes"])["items"]] == ["theirs-control-plane"]
    k8s.apply({{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {{"name": "made"}}}})
    assert k8s.kubectl(["get", "configmap", "made"])["metadata"]["name"] == "made"
    assert len(cluster.nodes()) == 2
"""
    )
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --strict-markers\n")
    reuse = ["--cluster=kind", "--reuse", f"--cluster-name={NAME}", f"--reports-dir={tmp_path / 'reports'}"]
    done = run_suites(str(tmp_path), *reuse, cwd=tmp_path)
    assert done.returncode == 0
    assert "2 passed" in done.stdout
    assert len(containers(NAME)) == 2
    assert not containers("theirs")


def test_a_name_that_is_taken_is_refused(kept: Path, tmp_path: Path) -> None:
    done = run_suites(
        "suites/health", "--cluster=kind", f"--cluster-name={NAME}", f"--reports-dir={tmp_path / 'reports'}"
    )
    assert done.returncode == 4
    assert "exists already: use it with --reuse" in done.stderr + done.stdout
    assert len(containers(NAME)) == 2


def test_a_cluster_that_cannot_be_made_leaves_nothing(kubeconfig: Path, tmp_path: Path) -> None:
    done = run_suites(
        "suites/health",
        "--cluster=kind",
        "--cluster-name=never",
        "--node-image=clusterproof/never:1",
        f"--reports-dir={tmp_path / 'reports'}",
    )
    assert done.returncode == 4
    assert "`kind create cluster` of cluster never ended with 1" in done.stderr + done.stdout
    assert not containers("never")
    assert "never" not in [each.name for each in state.records()]


def test_sweep_removes_the_cluster_of_a_killed_run(kubeconfig: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pytest", "suites/health", "--cluster=kind", "--nodes=1", "--cluster-name=killed"]
    with subprocess.Popen([*command, f"--reports-dir={tmp_path / 'reports'}"], cwd=ROOT) as process:
        deadline = time.monotonic() + 120
        while not containers("killed"):
            assert time.monotonic() < deadline, "kind started no container"
            time.sleep(0.2)
        os.kill(process.pid, signal.SIGKILL)
    swept = subprocess.run([CLUSTERPROOF, "sweep"], capture_output=True, text=True, check=True)
    assert "removed kind cluster killed" in swept.stdout
    assert not containers("killed")
    assert "killed" not in [each.name for each in state.records()]
