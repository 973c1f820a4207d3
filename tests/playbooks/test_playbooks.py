"""Each playbook does what its first lines say, over ssh and on the controller's own machine."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import testinfra

from .conftest import ROOT, Controller

FEW = ["-k", "health and (livez or readyz)"]
LOCAL = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What users install."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--outdir", folder, ROOT], check=True, capture_output=True
    )
    (made,) = folder.glob("*.whl")
    return made


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Path:
    """A folder where the role has been once: installing takes longer than everything else."""
    return tmp_path_factory.mktemp("installed")


@pytest.fixture
def proven(kubeconfig: Path, installed: Path, wheel: Path) -> dict[str, Any]:
    """Variables of a host that proves a few promises of the cluster."""
    return {
        "clusterproof_package": str(wheel),
        "clusterproof_home": str(installed),
        "clusterproof_python": sys.executable,
        "clusterproof_kubeconfig": str(kubeconfig),
        "clusterproof_options": FEW,
    }


def test_after_upgrade(controller: Controller, by_ssh: dict[str, Any], proven: dict[str, Any]) -> None:
    """The role MUST install and prove over ssh, fetch the reports, change nothing the second time, and tell damage."""
    hosts = {"clusters": {"prod": {**by_ssh, **proven}}}
    checked = controller.play("after_upgrade.yml", hosts, "--check")
    assert checked.code == 0, checked.output

    first = controller.play("after_upgrade.yml", hosts)
    assert first.code == 0, first.output
    assert first.recap["prod"]["changed"] > 0
    reports = controller.playbooks / "reports/prod"
    results = json.loads((reports / "result.json").read_text())["results"]
    assert {each["outcome"] for each in results} == {"kept"}
    assert {"junit.xml", "summary.md"} <= {path.name for path in reports.iterdir()}

    second = controller.play("after_upgrade.yml", hosts)
    assert second.code == 0, second.output
    assert second.recap["prod"]["changed"] == 0, second.output


def test_baseline(controller: Controller, by_ssh: dict[str, Any], proven: dict[str, Any]) -> None:
    """A cluster that is worse than its baseline MUST fail, with what is worse in the message."""
    hosts = {"clusters": {"prod": {**by_ssh, **proven}}}
    assert controller.play("after_upgrade.yml", hosts).code == 0
    before = controller.folder / "before.json"
    was = json.loads((controller.playbooks / "reports/prod/result.json").read_text())
    was["cluster"]["kinds"] = [*was["cluster"]["kinds"], "gone.example/v1 Gadget"]
    before.write_text(json.dumps(was))
    hosts["clusters"]["prod"]["clusterproof_baseline"] = str(before)

    judged = controller.play("after_upgrade.yml", hosts)

    assert judged.code != 0
    assert "gone.example/v1 Gadget" in judged.output, judged.output


def test_nightly(controller: Controller, proven: dict[str, Any]) -> None:
    """Each night MUST leave its result, and the history of all nights."""
    programs = str(Path(sys.executable).with_name("clusterproof"))
    hosts = {"clusters": {"prod": {**LOCAL, **proven, "clusterproof_controller": programs}}}
    done = controller.play("nightly.yml", hosts)

    assert done.code == 0, done.output
    history = controller.playbooks / "history/prod"
    assert len(list(history.glob("*/result.json"))) == 1
    assert "1 run" in (history / "history.md").read_text()


def test_fleet(controller: Controller, by_ssh: dict[str, Any], proven: dict[str, Any], tmp_path: Path) -> None:
    """Many clusters MUST be proven at once; one that cannot be is named, and the others are put side by side."""
    programs = str(Path(sys.executable).with_name("clusterproof"))
    lost = {**proven, "clusterproof_kubeconfig": str(tmp_path / "none.yaml")}
    hosts = {
        "clusters": {
            "near": {**LOCAL, **proven},
            "far": {**by_ssh, **proven, "clusterproof_home": str(tmp_path / "far")},
            "lost": {**LOCAL, **lost},
        }
    }
    done = controller.play("fleet.yml", hosts, "-e", f"clusterproof_controller={programs}", "--forks=3")

    assert done.code != 0
    assert "1 were not proven (lost)" in " ".join(done.output.split()), done.output
    matrix = json.loads((controller.playbooks / "fleet/matrix.json").read_text())
    assert sorted(column["name"] for column in matrix["columns"]) == ["far", "near"]
    assert {outcome for row in matrix["promises"] for outcome in row["outcomes"]} == {"kept"}
    assert "| near | far |" in (controller.playbooks / "fleet/matrix.md").read_text()


def test_nodes(controller: Controller, by_ssh: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The written inventory MUST lead to the machines, and a second run change nothing."""
    hosts = {"nodes": {"worker-1": by_ssh}}
    first = controller.play("nodes.yml", hosts)
    assert first.code == 0, first.output
    facts = json.loads((controller.playbooks / "nodes.json").read_text())
    assert facts["worker-1"]["kernel"]

    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=":")  # it asks ansible-inventory
    (host,) = testinfra.get_hosts(["ansible://nodes"], ansible_inventory=str(controller.playbooks / "nodes.ini"))
    assert host.check_output("uname -r") == facts["worker-1"]["kernel"]

    second = controller.play("nodes.yml", hosts)
    assert second.recap["worker-1"]["changed"] == 0, second.output
