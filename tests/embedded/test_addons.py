"""Which add-ons a cluster gets for those that are asked for."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from clusterproof.embedded import addons, cluster, loops, preflight
from clusterproof.embedded.state import CannotStart

from clusterproof import capabilities


@pytest.mark.parametrize(
    ("asked", "given"),
    [
        ((), []),
        (("vpa", "dns"), ["dns", "metrics", "vpa"]),
        (addons.NAMES, list(addons.NAMES)),
    ],
)
def test_an_addon_brings_those_that_it_needs(asked: tuple[str, ...], given: list[str]) -> None:
    assert [addon.name for addon in addons.named(asked)] == given


@pytest.mark.parametrize(
    ("needs", "started"),
    [
        ((), ("cloud", "dns")),
        (("scale.metrics", "access.certificates"), ("cloud", "dns", "metrics")),
        (("network.ingress.body-size",), ("cloud", "dns", "ingress")),
        (("storage.dynamic", "storage.block"), ("cloud", "dns", "storage", "disks")),
        (("scale.vpa",), ("cloud", "dns", "metrics", "vpa")),
        (capabilities.ALL, (*addons.NAMES, *addons.DISRUPTIVE)),
    ],
)
def test_a_run_gets_the_addons_that_its_promises_need(needs: tuple[str, ...], started: tuple[str, ...]) -> None:
    chosen = addons.serving(needs, (*addons.NAMES, *addons.DISRUPTIVE))
    assert tuple(addon.name for addon in addons.named(chosen)) == started


def test_an_unknown_addon_is_named_with_those_there_are() -> None:
    with pytest.raises(CannotStart, match=r"there is no mesh; choose from: .*dns, .*vpa"):
        addons.named(["dns", "mesh"])


@pytest.fixture
def no_queues(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose kernel hands no packets to programs."""
    monkeypatch.setattr(preflight.os, "geteuid", lambda: 0)
    monkeypatch.setattr(preflight, "_refused", lambda *command: "no such target" if "NFQUEUE" in command else "")
    monkeypatch.setattr(loops, "PROGRAMS", {})
    monkeypatch.setattr(loops, "CONTROL", Path("/dev/null"))
    monkeypatch.setattr(loops, "_attach_refused", str)


@pytest.mark.usefixtures("no_queues")
def test_what_the_machine_cannot_run_is_left_out_unless_it_is_named() -> None:
    assert addons.usual() == tuple(name for name in addons.NAMES if name != "network-policies")
    with pytest.raises(CannotStart, match=r"add-on network-policies: .*\(no such target\): modprobe -a xt_NFQUEUE"):
        cluster.check(cluster.Plan("some", addons=("network-policies",)))


def test_all_that_is_wrong_with_a_plan_is_said_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CLUSTERPROOF_STATE", str(tmp_path))
    with pytest.raises(CannotStart) as caught:
        cluster.check(cluster.Plan("A_B", 0, "1.20", ("nosuch",), timeout_scale=0))
    assert [line.split(":")[0] for line in str(caught.value).splitlines()] == [
        "no such cluster can be started",
        "  --name=A_B",
        "  --nodes=0",
        "  --addons",
        "  Kubernetes 1.20 cannot be had here; choose from",
        "  --timeout-scale=0 has to be a finite number that is more than 0",
    ]
    with pytest.raises(CannotStart, match=r"^--nodes=128: an embedded cluster has 1 to 127 nodes$"):
        cluster.check(cluster.Plan("some", 128, addons=("dns",)))


def test_disks_need_loop_devices_and_programs_that_make_file_systems(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(loops, "PROGRAMS", {"sh": "dash", "mkfs.none": "nonetools"})
    assert loops.refused() == "packages are missing: apt-get install --no-install-recommends -y nonetools"

    monkeypatch.setattr(loops, "PROGRAMS", {"sh": "dash"})
    monkeypatch.setattr(loops, "CONTROL", tmp_path / "loop-control")
    assert loops.refused().startswith(f"there is no {tmp_path}/loop-control: modprobe loop")

    (tmp_path / "loop-control").touch()
    monkeypatch.setattr(loops, "_attach_refused", lambda: "no device appears")
    monkeypatch.setattr(loops.os, "geteuid", lambda: 0)
    assert loops.refused() == "no device appears"
    monkeypatch.setattr(loops.os, "geteuid", lambda: 1000)
    assert loops.refused() == ""  # what only root can try is said of others anyway


@pytest.mark.skipif(os.geteuid() != 0 or bool(loops.refused()), reason="needs root and loop devices")
def test_whether_a_file_can_be_attached_is_tried(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert loops._attach_refused() == ""

    fails = tmp_path / "losetup"
    fails.write_text("#!/bin/sh\necho 'cannot find an unused loop device' >&2; exit 1\n")
    fails.chmod(0o755)
    monkeypatch.setattr(loops, "_PATH", str(tmp_path))
    assert loops._attach_refused().startswith("no file can be attached as a device (cannot find an unused loop device)")


@pytest.mark.skipif(os.geteuid() != 0 or bool(loops.refused()), reason="needs root and loop devices")
def test_files_are_detached_from_their_devices(tmp_path: Path) -> None:
    volume = tmp_path / "volume.disk"
    volume.write_bytes(bytes(1 << 20))
    losetup = ["losetup", "--noheadings", "--output", "NAME"]
    subprocess.run(["losetup", "--find", str(volume)], check=True)
    assert subprocess.run([*losetup, "--associated", volume], capture_output=True, check=True).stdout

    loops.detach(tmp_path)

    assert not subprocess.run([*losetup, "--associated", volume], capture_output=True, check=True).stdout
