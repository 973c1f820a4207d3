"""The kind room without Docker: shapes, what is missing, records, and what the programs are asked for."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
import yaml
from clusterproof.kind import managers, preflight, shapes, state
from clusterproof.kind.commands import sweep
from clusterproof.kind.oci_runtime import without
from clusterproof.kind.provider import K3d, Kind

from clusterproof.errors import SurroundingsError
from clusterproof.provider import Shape


@pytest.fixture(autouse=True)
def own_state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Records of its own."""
    monkeypatch.setenv("CLUSTERPROOF_STATE", str(tmp_path / "state"))


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """What kind, k3d, minikube and docker were asked: programs in PATH that write down their arguments and KUBECONFIG.

    This proves the words only; tests/kind has real kind.
    """
    programs, log = tmp_path / "bin", tmp_path / "said"
    programs.mkdir()
    for name in ("kind", "k3d", "minikube", "docker", "kubectl"):
        program = programs / name
        program.write_text(
            f'#!/bin/sh\nprintf "%s|" {name} "$@" "$KUBECONFIG" >> {log}\necho >> {log}\necho refused >&2\n'
        )
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("KUBECONFIG", "the-user's")
    return log


def manager(kind: type[managers.Manager], tmp_path: Path, nodes: int = 2) -> managers.Manager:
    return kind.of("it's mine", tmp_path / "kubeconfig", shapes.layout(Shape("x", nodes=nodes)), version="1.37.2")


@pytest.mark.parametrize(
    ("name", "nodes", "control_planes"), [("single", 1, 1), ("two-node", 2, 1), ("ha", 5, 3), ("dual-stack", 2, 1)]
)
def test_shapes(name: str, nodes: int, control_planes: int) -> None:
    layout = shapes.layout(Shape("x", layout=name))
    assert (layout.nodes, layout.control_planes) == (nodes, control_planes)
    assert layout.plain == (name != "dual-stack")


@pytest.mark.parametrize("nodes", [1, 2, 4])
def test_a_number_of_nodes_is_a_shape(nodes: int) -> None:
    layout = shapes.layout(Shape("x", nodes=nodes))
    assert (layout.nodes, layout.control_planes) == (nodes, 1)


def test_a_shape_of_the_users_own(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("kind: Cluster\nnodes: [{role: control-plane}, {role: worker}, {role: worker}]")
    assert shapes.layout(Shape("x", layout=str(tmp_path / "mine.yaml"))).nodes == 3


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (None, "there is no such shape or file; there are dual-stack, ha, single, two-node"),
        ("kind: Deployment", "is not a kind configuration"),
        ("{", "cannot be read"),
        ("kind: Cluster\nnodes: three", "`nodes` is not a list of mappings"),
    ],
)
def test_a_shape_that_is_none(tmp_path: Path, text: str | None, problem: str) -> None:
    path = tmp_path / "shape.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(pytest.UsageError, match=problem):
        shapes.layout(Shape("x", layout=str(path)))


def test_all_that_is_missing_is_said_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(pytest.UsageError) as refused:
        Kind().create(Shape("x"))
    lines = str(refused.value).splitlines()
    assert [line.split(":")[0] for line in lines[1:]] == [
        f"  - no {name} in PATH" for name in ("kind", "kubectl", "docker")
    ]
    assert all("clusterproof kind-docker" in line for line in lines[1:])


def test_a_docker_that_does_not_answer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    docker = tmp_path / "docker"
    docker.write_text("#!/bin/sh\necho Cannot connect >&2\nexit 1\n")
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert [each for each in preflight.problems("k3d") if "Cannot connect" in each] == [
        "no Docker daemon answers (Cannot connect): start it (systemctl start docker)"
    ]


def test_only_kind_makes_networks(said: Path) -> None:
    with pytest.raises(pytest.UsageError, match="only kind makes it"):
        K3d().create(Shape("x", layout="dual-stack"))


@pytest.mark.parametrize(
    ("kind", "made", "deleted"),
    [
        (
            managers.Kind,
            "kind|create|cluster|--name|it's mine|--config|{0}/kind.yaml|--kubeconfig|{0}/kubeconfig|the-user's|",
            "kind|delete|cluster|--name|it's mine|--kubeconfig|{0}/kubeconfig|the-user's|",
        ),
        (
            managers.K3d,
            "k3d|cluster|create|it's mine|--wait|--timeout=600s|--kubeconfig-update-default=false|"
            "--kubeconfig-switch-context=false|--servers=1|--agents=1|--image|rancher/k3s:v1.37.2-k3s1|the-user's|",
            "k3d|cluster|delete|it's mine|the-user's|",
        ),
        (
            managers.Minikube,
            "minikube|start|--profile|it's mine|--driver=docker|--embed-certs|--wait=all|--nodes=2|"
            "--kubernetes-version=v1.37.2|--force|{0}/kubeconfig|",
            "minikube|delete|--profile|it's mine|{0}/kubeconfig|",
        ),
    ],
)
def test_what_the_programs_are_asked(
    kind: type[managers.Manager], made: str, deleted: str, said: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    one = manager(kind, tmp_path)

    with pytest.raises(SurroundingsError, match="was made and is not ready"):
        one.create(timeout=0.1)
    one.delete()

    lines = said.read_text().splitlines()
    assert lines[0] == made.format(tmp_path)
    assert lines[-1] == deleted.format(tmp_path)
    assert os.environ["KUBECONFIG"] == "the-user's"
    assert not (tmp_path / "kubeconfig").exists()


def test_a_slower_machine_has_longer(said: Path) -> None:
    with pytest.raises(SurroundingsError, match="was made and is not ready"):
        K3d().create(Shape("x", nodes=1, timeout_scale=0.5))
    assert "|--timeout=300s|" in said.read_text()


def test_what_a_program_said_is_in_the_error(said: Path, tmp_path: Path) -> None:
    (said.parent / "bin/kind").write_text("#!/bin/sh\necho no space left >&2\nexit 3\n")
    with pytest.raises(SurroundingsError, match="`kind create cluster` of cluster it's mine ended with 3:\n  no space"):
        manager(managers.Kind, tmp_path).create()


def test_a_cluster_that_cannot_be_made_leaves_nothing(said: Path) -> None:
    (said.parent / "bin/kind").write_text('#!/bin/sh\n[ "$1" != create ] || exit 3\n')
    with pytest.raises(SurroundingsError, match="ended with 3"):
        Kind().create(Shape("x", nodes=1))
    assert not list(state.records())
    assert not any(state.root().iterdir())


def test_manifests_may_have_any_character(tmp_path: Path, said: Path) -> None:
    seen = tmp_path / "applied"
    (said.parent / "bin/kubectl").write_text(f'#!/bin/sh\nwhile [ "$1" != -f ]; do shift; done\ncp "$2" {seen}\n')
    (tmp_path / "kubeconfig").touch()
    manifest = {"data": {"text": "it's; $(touch /tmp/never)"}}
    manager(managers.Kind, tmp_path).apply(manifest)
    assert yaml.safe_load(seen.read_text()) == manifest


def test_records() -> None:
    mine = state.Record("mine", "kind", state.me())
    mine.save()
    assert stat.S_IMODE(mine.kubeconfig.stat().st_mode) == 0o600
    assert list(state.records()) == [mine]
    assert not mine.abandoned
    assert state.Record("a", "kind", "1:1").abandoned
    assert not state.Record("a", "kind", "1:1", kept=True).abandoned
    mine.forget()
    assert not list(state.records())


def test_sweep_removes_what_killed_runs_left_and_nothing_else(said: Path) -> None:
    state.Record("dead", "kind", "1:1").save()
    state.Record("alive", "kind", state.me()).save()
    state.Record("kept", "kind", "1:1", kept=True).save()
    (removed, kept) = (line for line in sweep("", False) if "cluster" in line)
    assert removed == "removed kind cluster dead"
    assert kept.startswith("kept kind cluster kept: it was started to stay")
    assert [record.name for record in state.records()] == ["alive", "kept"]
    state.Record("cp-run1", "k3d", state.me()).save()
    assert list(sweep("run1", False)) == ["removed k3d cluster cp-run1"]


def test_the_modest_runtime_asks_for_nothing_that_the_host_lacks() -> None:
    process = {
        "oomScoreAdj": -999,
        "rlimits": [{}],
        "args": ["sh"],
        "capabilities": {"bounding": ["CAP_KILL", "CAP_SYS_RESOURCE"]},
    }
    assert without(process) == {"args": ["sh"], "capabilities": {"bounding": ["CAP_KILL"]}}
    assert without({"oomScoreAdj": 5})["oomScoreAdj"] == 5
