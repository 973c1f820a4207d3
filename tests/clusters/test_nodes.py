"""Nodes of a real cluster, reached by each of the ways that users have: ssh, an inventory, and a pod on each node."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from clusterproof.reports import result

from clusterproof import catalog
from clusterproof.outcome import Outcome, Run

from .machine import Cluster, Machine

SSHD = "mkdir -p /run/sshd && /usr/sbin/sshd -f /tmp/sshd_config"
SSHD_CONFIG = """
HostKey /tmp/host_key
AuthorizedKeysFile /tmp/key.pub
StrictModes no
PidFile none
"""
NO_CONTROL_PLANE = {
    f"nodes/ports/{name}" for name in ("api_server", "etcd", "health[controllers]", "health[scheduler]")
}
"""What is not seen, since an embedded cluster's control plane is on none of its nodes."""
NO_CLOUD = {f"nodes/cloud/{name}" for name in ("description", "initialization", "removal")}
"""What nobody claims where nodes are no cloud's."""
NO_POD = {"nodes/runtime/cgroups"}
"""What is not seen either, until there is a pod."""


@pytest.fixture(scope="module")
def owned(shared: Machine) -> Cluster:
    """A cluster of two nodes, on each of which sshd runs and lets in who has the key `tmp/key`."""
    cluster = shared.up("nodes", "--nodes", "2")
    for name in ("key", "host_key"):
        assert (
            shared.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", shared.folder / "tmp" / name).returncode
            == 0
        )
    for node in (cluster.folder / "nodes").iterdir():
        for name in ("key.pub", "host_key"):
            (node / "tmp" / name).touch(mode=0o600)
            (node / "tmp" / name).write_bytes((shared.folder / "tmp" / name).read_bytes())
        (node / "tmp/sshd_config").write_text(SSHD_CONFIG)
        anchor = json.loads((cluster.folder / "state.json").read_text())["anchors"][node.name]
        started = shared.run("nsenter", f"--target={anchor}", "--mount", "--uts", "--net", "--pid", "sh", "-c", SSHD)
        assert started.returncode == 0, started.stderr
    return cluster


def by_ssh(cluster: Cluster) -> str:
    """One host for all nodes, with the address filled in."""
    folder = cluster.machine.folder / "tmp"
    (folder / "ssh_config").write_text(f"StrictHostKeyChecking no\nUserKnownHostsFile {folder}/known_hosts\n")
    return f"--node-hosts=ssh://root@{{address}}?ssh_identity_file={folder}/key&ssh_config={folder}/ssh_config"


def by_inventory(cluster: Cluster) -> str:
    """An Ansible inventory whose hosts have other names than the nodes, but their addresses."""
    folder = cluster.machine.folder / "tmp"
    known = f"-o StrictHostKeyChecking=no -o UserKnownHostsFile={folder}/known_hosts"
    lines = [
        f"host-{number} ansible_host={node.status['addresses'][0]['address']} ansible_user=root "
        f"ansible_ssh_private_key_file={folder}/key ansible_ssh_common_args='{known}'"
        for number, node in enumerate(cluster.nodes())
    ]
    (folder / "hosts.ini").write_text("\n".join(lines) + "\n")
    return f"--node-inventory={folder}/hosts.ini"


def by_pod(cluster: Cluster) -> str:
    """Nothing but the cluster itself."""
    return "--node-hosts=pod"


@pytest.mark.parametrize(
    ("way", "kind", "unseen"),
    [
        (by_ssh, "ssh", NO_CONTROL_PLANE | NO_CLOUD | NO_POD),
        (by_inventory, "ansible", NO_CONTROL_PLANE | NO_CLOUD | NO_POD),
        (by_pod, "pod", NO_CONTROL_PLANE | NO_CLOUD),
    ],
)
def test_nodes_are_reached(owned: Cluster, way: Callable[[Cluster], str], kind: str, unseen: set[str]) -> None:
    """Every promise about nodes MUST be proven by each way to them, and the report say which it was."""
    run = prove(owned, way(owned))

    outcomes = {each.id: each.outcome for each in run.results if each.outcome is not Outcome.KEPT}
    assert outcomes == dict.fromkeys(unseen, Outcome.UNSUPPORTED), run.results
    assert run.cluster is not None
    assert {node.seen_by for node in run.cluster.nodes} == {kind}
    assert all(abs(node.clock_offset or 9) < 5 for node in run.cluster.nodes)
    assert run.leaks == ()


@pytest.mark.parametrize(
    ("option", "outcome", "reason"),
    [
        ("", Outcome.UNSUPPORTED, "no way to the nodes is known; name one: --node-hosts='ssh://root@{address}'"),
        ("--node-hosts=ssh://root@{address}:9", Outcome.ERROR, "cannot be reached by ssh://"),
        ("--node-hosts=local://", Outcome.ERROR, "is one machine, but there are 2 nodes"),
    ],
)
def test_nodes_that_are_not_reached(owned: Cluster, option: str, outcome: Outcome, reason: str) -> None:
    """A node that cannot be looked at MUST NOT be blamed: the reason says what is missing."""
    run = prove(owned, option, "-k", "ip_forward")

    (only,) = run.results
    assert (only.outcome, reason in only.reason) == (outcome, True), only.reason


def prove(cluster: Cluster, *options: str) -> Run:
    """What a run of the promises about nodes found."""
    machine = cluster.machine
    reports = Path(machine.folder / "tmp/reports")
    done = machine.run(
        machine.program("pytest"),
        catalog.root() / "nodes",
        "--cluster=external",
        f"--kubeconfig={cluster.kubeconfig}",
        f"--reports-dir={reports}",
        "--workers=4",
        "-q",
        *filter(None, options),
        PATH=f"{machine.program('pytest').parent}:{os.environ['PATH']}",
        ANSIBLE_HOME=str(machine.folder / "tmp/ansible"),
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return result.read(reports / result.NAME)
