"""The embedded cluster while it runs: Ready, closed to strangers, and out of the way of others."""

from __future__ import annotations

import json
import os
import ssl
import stat
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network, ip_address
from pathlib import Path

import pytest
from clusterproof.embedded import cluster

from clusterproof import conditions, kinds, wait
from clusterproof.objects import Object

from .machine import Cluster, Machine, machine

API_SERVER = "10.201.0.1"
NODE = "10.201.0.11"
"""Addresses of the first cluster of a machine."""


@pytest.fixture(scope="module")
def up(programs: object) -> Iterator[Cluster]:
    """A cluster of three nodes, for tests that change nothing in it."""
    with machine() as made:
        yield made.up("a-b", "--nodes", "3")


def test_every_node_is_ready(up: Cluster) -> None:
    """When `up` returns every node MUST be Ready, and `status` MUST say that the cluster runs."""
    assert up.said == f"cluster {up.name} is ready: export KUBECONFIG={up.folder / 'kubeconfig'}\n"
    assert up.machine.must("kubeconfig", "--name", up.name) == f"{up.folder / 'kubeconfig'}\n"
    assert [(node.name, conditions.ready(node)) for node in up.nodes()] == [
        (f"{up.name}-node-{number}", None) for number in (1, 2, 3)
    ]

    told = up.machine.must("status", "--name", up.name)

    assert told.startswith(f"{up.name}: running; Kubernetes 1.37")
    assert "add-ons: none" in told
    assert all(f"  node {node.name}: 10.201.0." in told for node in up.nodes())
    assert f"{up.name}-node-3/kubelet" in up.machine.must("logs", "--name", up.name).splitlines()
    assert "Serving securely" in up.machine.must("logs", "--name", up.name, "kube-apiserver")


def test_a_busy_api_server_is_waited_for(shared: Machine) -> None:
    """A start MUST go on when the API server has not answered for some seconds while add-ons become ready."""
    name = shared.name("busy")
    with shared.start(shared.program("clusterproof"), "up", "--name", name, "--addons", "dns") as running:
        running.reaches(lambda: "2 nodes Ready" in running.output)
        shared.kill("kube-apiserver", "STOP")
        time.sleep(wait.BEGINNING + 2 * cluster.WINDOW)
        shared.kill("kube-apiserver", "CONT")
        assert running.wait() == 0, running.output
    shared.must("down", "--name", name)


def test_clusters_may_have_a_disk_of_their_own(shared: Machine) -> None:
    """Nodes MUST become Ready where a disk is mounted that has nothing but clusters: kubelets look how full it is."""
    disk, name = shared.folder / "tmp/disk", shared.name("disk")
    disk.mkdir()
    with disk.with_suffix(".img").open("wb") as image:
        image.truncate(3 << 30)
    assert shared.run("mkfs.ext4", "-q", image.name).returncode == 0
    assert shared.run("mount", "-o", "loop", image.name, disk).returncode == 0
    try:
        shared.must("up", "--name", name, "--nodes", "1", "--addons", "none", CLUSTERPROOF_STATE=str(disk))
        shared.must("down", "--name", name, CLUSTERPROOF_STATE=str(disk))
    finally:
        shared.run("umount", disk)
        disk.rmdir()
        Path(image.name).unlink()


def test_secrets_are_their_owners(up: Cluster) -> None:
    """Every private key and every kubeconfig of a cluster MUST be readable by nobody but its owner."""
    keys = {path: path.stat().st_mode for path in _files(up.folder) if _is_secret(path)}

    assert {up.folder / "kubeconfig", up.folder / "pki/ca.key", up.folder / "pki/service-accounts.key"} <= keys.keys()
    assert sum("kubelet" in path.parts for path in keys) >= 6, "each kubelet has two keys"
    assert {path: oct(mode) for path, mode in keys.items() if stat.S_IMODE(mode) & 0o177} == {}
    assert stat.S_IMODE(up.folder.stat().st_mode) == 0o700


def test_nothing_listens_outside_the_cluster(up: Cluster) -> None:
    """No program of a cluster MUST listen on the machine itself; etcd and the managers on no network at all."""
    assert _listeners(up.machine, "") == set()

    control_plane = _listeners(up.machine, f"clusterproof-{up.name}-control-plane")
    assert {address for address, port in control_plane} == {"127.0.0.1", API_SERVER}
    assert {port for address, port in control_plane if address == API_SERVER} == {6443}
    assert {2379, 2380, 10257, 10259} <= {port for address, port in control_plane if address == "127.0.0.1"}

    node = f"clusterproof-{up.name}-{up.name}-node-1"
    assert ("0.0.0.0", 10250) in _listeners(up.machine, node), "the kubelet listens on its node"
    ranges = [IPv4Network("127.0.0.0/8"), IPv4Network("10.192.0.0/10")]
    for link in json.loads(up.machine.run("ip", "-n", node, "-json", "-4", "address").stdout):
        for address in link["addr_info"]:
            assert any(IPv4Address(address["local"]) in each for each in ranges), f"{node} is in a foreign network"


@pytest.mark.parametrize("place", ["the machine", "a node"])
def test_etcd_cannot_be_reached(up: Cluster, place: str) -> None:
    """Neither from the machine nor from a node MUST anybody reach etcd; both reach the API server."""
    enter = ["nsenter", f"--net=/run/netns/clusterproof-{up.name}-{up.name}-node-1"] if place == "a node" else []

    def knock(port: int) -> str:
        done = up.machine.run(*enter, "bash", "-c", f"exec 3<>/dev/tcp/{API_SERVER}/{port}")
        return done.stderr.rpartition(": ")[2].strip()

    assert knock(6443) == ""
    assert {port: knock(port) for port in (2379, 2380, 10257, 10259)} == dict.fromkeys(
        (2379, 2380, 10257, 10259), "Connection refused"
    )


def test_kubelets_and_api_server_refuse_strangers(up: Cluster) -> None:
    """A kubelet MUST answer nobody without credentials, the API server nobody without TLS, both the administrator."""
    context = ssl.create_default_context(cafile=str(up.folder / "pki/ca.crt"))
    for path in ("/pods", "/metrics", "/run/default/none/none", "/configz", "/healthz"):
        assert _status(up.machine, f"https://{NODE}:10250{path}", context) == 401, path
    assert _status(up.machine, f"https://{API_SERVER}:6443/api/v1/nodes", context) == 403
    assert _status(up.machine, f"http://{API_SERVER}:6443/api") == 400

    context.load_cert_chain(str(up.folder / "pki/kubelet-client.crt"), str(up.folder / "pki/kubelet-client.key"))
    assert _status(up.machine, f"https://{NODE}:10250/pods", context) == 200


def test_managers_have_certificates_of_the_cluster(up: Cluster) -> None:
    """Controller manager and scheduler MUST each show a certificate that the cluster's authority vouches for."""
    inside = ["nsenter", f"--net=/run/netns/clusterproof-{up.name}-control-plane"]
    ask = [*inside, "curl", "--silent", "--show-error", "--cacert", str(up.folder / "pki/ca.crt")]
    seen = {port: up.machine.run(*ask, f"https://127.0.0.1:{port}/healthz") for port in (10257, 10259)}

    assert {port: done.stdout or done.stderr for port, done in seen.items()} == dict.fromkeys(seen, "ok")


def test_two_clusters_do_not_meet(up: Cluster) -> None:
    """Clusters of one machine MUST have addresses of their own, and one's end MUST leave the others as they are."""
    before = up.machine.snapshot()
    other = up.machine.up("a", "--nodes", "1")
    assert up.name.startswith(f"{other.name}-"), "one's name is the beginning of the other's"

    assert [conditions.ready(node) for node in other.nodes()] == [None]
    assert not _addresses(up) & _addresses(other)
    (*kept, nothing) = up.machine.must("sweep").splitlines()
    assert nothing == "nothing was left on this machine; no cluster was named"
    assert [line.partition(": it was started to stay")[0] for line in kept] == [
        f"kept embedded cluster {name}" for name in (other.name, up.name)
    ]

    assert up.machine.must("down", "--name", other.name) == f"cluster {other.name} is gone\n"

    assert [conditions.ready(node) for node in up.nodes()] == [None, None, None]
    assert up.machine.must("status").startswith(f"{up.name}: running")
    lasting = {kind: before[kind] for kind in ("mounts", "network and kernel")}  # the rest comes and goes as it runs
    assert up.machine.left_since(lasting) == []
    assert not other.folder.exists()


def test_what_was_stopped_can_be_ended(up: Cluster) -> None:
    """A program that a signal has stopped, and with it the process that waits for it, MUST end and start again."""
    up.machine.kill("kube-scheduler", "STOP")

    up.restart("kube-scheduler")

    assert "ended" not in up.machine.must("status", "--name", up.name)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--name", "Sky"], "--name=Sky: a cluster's name has 1 to 40 of a-z, 0-9 and -"),
        (["--name", "a" * 41], "a cluster's name has 1 to 40 of a-z, 0-9 and -"),
        (["--nodes", "128"], "--nodes=128: an embedded cluster has 1 to 127 nodes"),
        (["--nodes", "0"], "--nodes=0: an embedded cluster has 1 to 127 nodes"),
        (["--addons", "dns,mesh"], "--addons: there is no mesh; choose from: clusterset, cloud, dns, "),
        (["--kubernetes-version", "1.12.0"], "Kubernetes 1.12.0 cannot be had here; choose from: 1.36."),
        (["--name", "{up}"], "embedded cluster '{up}' exists already; remove it with: clusterproof down --name {up}"),
    ],
)
def test_what_cannot_be_is_one_sentence(up: Cluster, arguments: list[str], sentence: str) -> None:
    """What was asked for and cannot be MUST be answered by one sentence and exit code 4, before anything is started."""
    done = up.machine.clusterproof("up", *(argument.format(up=up.name) for argument in arguments))

    assert done.returncode == 4, done.stderr
    assert done.stderr.startswith("clusterproof: ")
    assert sentence.format(up=up.name) in done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert os.listdir(up.folder.parent) in (listed := [".lock", up.name], listed[::-1])


def _files(folder: Path) -> Iterator[Path]:
    """Files that may hold secrets: all but what containers run from."""
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink() and not {"containerd", "opt", "etcd"} & set(path.parts):
            yield path


def _is_secret(path: Path) -> bool:
    content = path.read_bytes()[:100_000]
    return b"PRIVATE KEY-----" in content or b"client-key-data" in content


def _listeners(machine: Machine, namespace: str) -> set[tuple[str, int]]:
    """Who listens by TCP or UDP in a network namespace, the machine's own if it has no name."""
    enter = ["nsenter", f"--net=/run/netns/{namespace}"] if namespace else []
    found = set()
    for table, waiting in (("tcp", "0A"), ("tcp6", "0A"), ("udp", "07"), ("udp6", "07")):
        for line in machine.run(*enter, "cat", f"/proc/net/{table}").stdout.splitlines()[1:]:
            local, _, state = line.split()[1:4]
            if state == waiting:
                raw, _, port = local.partition(":")
                words = [bytes.fromhex(raw[i : i + 8])[::-1] for i in range(0, len(raw), 8)]
                address = ip_address(b"".join(words))
                plain = "0.0.0.0" if address.is_unspecified else str(getattr(address, "ipv4_mapped", None) or address)
                found.add((plain, int(port, 16)))
    return found


def _status(machine: Machine, url: str, context: ssl.SSLContext | None = None) -> int:
    with machine.network():
        try:
            with urllib.request.urlopen(url, context=context, timeout=30) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as refused:
            refused.close()
            return refused.code


def _addresses(one: Cluster) -> set[str]:
    """All of its ranges and nodes' addresses."""
    raw = json.loads((one.folder / "state.json").read_text())
    nodes = {value for node in raw["nodes"] for value in (node["address"], node["pods"])}
    services = one.ask(lambda client: Object(client, kinds.SERVICE, "kubernetes", "default").read())
    return nodes | {services.spec["clusterIP"]}
