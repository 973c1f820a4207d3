"""Nodes that are added to a cluster that runs, and taken away again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from clusterproof.embedded import loops
from clusterproof.embedded.addons.disks import CLASS

from clusterproof import Client, conditions, eventually, kinds, manifests
from clusterproof.images import resolve
from clusterproof.objects import Object

from .machine import Cluster, Machine, Snapshot, machine


@pytest.fixture(scope="module")
def up(programs: object) -> Iterator[Cluster]:
    """A cluster of one node, to which others are added."""
    with machine() as made:
        yield made.up("grow", "--nodes", "1")


def test_a_node_comes_and_goes(up: Cluster) -> None:
    """A node that is added MUST be Ready and run pods that others reach, and leave nothing when it is removed."""
    before = _lasting(up)
    first = f"{up.name}-node-1"

    name = up.machine.must("node", "add", "--name", up.name, "--taint", "kept=for-me:NoSchedule").strip()

    assert name == f"{up.name}-node-2"
    assert [(node.name, conditions.ready(node)) for node in up.nodes()] == [(first, None), (name, None)]
    added = up.nodes()[1]
    assert added.spec["providerID"] == f"embedded://{up.name}/{name}"
    assert {"key": "kept", "value": "for-me", "effect": "NoSchedule"} in added.spec["taints"]
    assert f"  node {name}: 10.201.0.12" in up.machine.must("status", "--name", up.name)
    assert f"{name}/kubelet" in up.machine.must("logs", "--name", up.name).splitlines()
    assert _answer(up, [first, name]) == "there", f"a pod on {first} reaches one on {name}"

    assert up.machine.must("node", "remove", "--name", up.name, name) == f"node {name} is gone\n"

    assert [(node.name, conditions.ready(node)) for node in up.nodes()] == [(first, None)]
    assert up.machine.left_since(before) == []
    now = up.machine.snapshot()
    assert [line for kind in ("processes", "control groups") for line in now[kind] if name in line] == []
    assert [path for path in (up.folder / "nodes").iterdir() if path.name != first] == []
    assert not (up.folder / "logs" / name).exists()
    assert name not in (up.folder / "state.json").read_text()
    assert up.machine.must("status", "--name", up.name).startswith(f"{up.name}: running")


def test_whoever_asks_again_gets_the_same_node(up: Cluster) -> None:
    """A node that was added for a claim MUST be found again by it, and another be given to another claim."""
    names = [up.machine.must("node", "add", "--name", up.name, "--claim", claim).strip() for claim in ("a", "a", "b")]

    assert (names[0] == names[1], names[1] == names[2]) == (True, False)
    for name in {*names}:
        up.machine.must("node", "remove", "--name", up.name, name)
    assert len(json.loads((up.folder / "state.json").read_text())["nodes"]) == 1


def test_a_cluster_ends_with_its_added_nodes(up: Cluster) -> None:
    """`down` MUST leave nothing of a node that was added."""
    before = _lasting(up)
    other = up.machine.up("gone", "--nodes", "1")
    up.machine.must("node", "add", "--name", other.name)

    up.machine.must("down", "--name", other.name)

    assert up.machine.left_since(before) == []
    now = up.machine.snapshot()
    assert [line for kind in ("processes", "control groups") for line in now[kind] if other.name in line] == []
    assert not other.folder.exists()


@pytest.mark.skipif(bool(loops.refused()), reason="this machine attaches no files as devices")
def test_devices_end_with_their_cluster(fresh: Machine) -> None:
    """`down` MUST detach every loop device, also those of a pod whose node was switched off before."""
    before = fresh.snapshot()["loop devices"]
    up = fresh.up("disk", "--addons", "disks")
    name = fresh.must("node", "add", "--name", up.name).strip()
    up.ask(lambda client: _pod(client, name, device=True).name)
    assert len(fresh.snapshot()["loop devices"]) == len(before) + 2  # the volume's own, and the kubelet's upon it

    fresh.must("node", "remove", "--name", up.name, name)
    fresh.must("down", "--name", up.name)

    assert fresh.snapshot()["loop devices"] == before


def test_what_cannot_be_removed_is_one_sentence(up: Cluster) -> None:
    """The last node, and one that is not there, MUST be refused with one sentence."""
    first = f"{up.name}-node-1"
    for name, sentence in (
        (first, "is the only node of cluster"),
        ("nobody", f"has no node 'nobody'; it has: {first}"),
    ):
        done = up.machine.clusterproof("node", "remove", "--name", up.name, name)
        assert (done.returncode, sentence in done.stderr, len(done.stderr.splitlines())) == (1, True, 1), done.stderr


def _lasting(up: Cluster) -> Snapshot:
    """What there is of those kinds that do not change by themselves as a cluster runs."""
    seen = up.machine.snapshot()
    return {kind: seen[kind] for kind in ("mounts", "network and kernel")}


def _answer(up: Cluster, nodes: list[str]) -> str:
    """What a pod on the first of two nodes hears from a pod on the second."""

    def ask(client: Client) -> str:
        here, there = (_pod(client, node) for node in nodes)
        command = ["curl", "--silent", "--max-time", "5", f"http://{there.status['podIP']}:8080/echo?msg=there"]
        try:
            return here.exec(command).stdout
        finally:
            for each in (here, there):
                each.delete(grace=0)

    return up.ask(ask)


def _pod(client: Client, node: str, *, device: bool = False) -> Object:
    options: dict[str, Any] = {"args": ["netexec"], "readiness": manifests.http_probe(), "spec": {"nodeName": node}}
    if device:
        claim = manifests.pvc("data", "1Gi", class_name=CLASS, spec={"volumeMode": "Block"})
        client.post(kinds.PERSISTENT_VOLUME_CLAIM.path("default"), claim)
        options["volumes"] = [manifests.claim_volume("data", "data")]
        options["container"] = {"volumeDevices": [{"name": "data", "devicePath": "/dev/data"}]}
    raw = client.post(kinds.POD.path("default"), manifests.pod(f"on-{node}", resolve().agnhost, **options))
    return eventually(Object.of(client, raw, kinds.POD), conditions.ready, within=60)
