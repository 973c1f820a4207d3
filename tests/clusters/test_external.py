"""Clusters that somebody else runs: how they are reached, why they are refused, and what an interrupted run leaves."""

from __future__ import annotations

import base64
import datetime
import json
import re
import shlex
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from clusterproof.embedded.pki import Authority
from clusterproof.reports import result

from clusterproof import catalog, kinds, manifests
from clusterproof.client import Client
from clusterproof.namespace import RUN_LABEL
from clusterproof.objects import Object, Selection
from clusterproof.outcome import Outcome
from clusterproof.running import ledger

from ..fake_api import NODE, FakeApi, serve
from .machine import Cluster, Machine, Started

LIMIT = 15.0
"""Seconds within which a cluster must be refused, the start of pytest included."""
API = "client.authentication.k8s.io/v1"
"""What exec plugins speak."""
HELLO = base64.b64encode(b"hello").decode()
GONE = "192.0.2.9"
"""An address to which packets go, and from which none comes back."""

ROOM = {"cpu": "64", "memory": "256Gi", "pods": "100"}
WINDOWS = {
    "apiVersion": "v1",
    "kind": "Node",
    "metadata": {"name": "windows", "labels": {"kubernetes.io/os": "windows"}},
    "status": {
        "capacity": ROOM,
        "allocatable": ROOM,
        "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}],
        "nodeInfo": {**NODE["status"]["nodeInfo"], "osImage": "Windows Server 2022 Datacenter"},
    },
}
"""A node that seems to run Windows, and never starts anything."""

PROMISES = '''
"""A pod, spoken to over every kind of connection."""
import pytest
from clusterproof import eventually
from clusterproof.conditions import ready
from clusterproof.manifests import pod

@pytest.mark.parametrize("case", ["first", "second"])
def test_pod(namespace, images, timeouts, case):
    """A pod MUST run, say what it does, and do what it is told."""
    one = namespace.create(pod("one", images.agnhost, args=["netexec"]))
    eventually(one, ready, within=timeouts.pod)
    one.logs()
    assert one.exec(["sh", "-c", "echo $0 there", "is"]).stdout == "is there\\n"
'''

ENDLESS = '''
"""Promises that take long."""
import pathlib, threading
import pytest
from clusterproof.manifests import cluster_role, config_map

def test_quick(namespace):
    """It MUST be kept."""
    namespace.create(config_map("quick"))

@pytest.mark.parametrize("case", ["first", "second"])
def test_endless(cluster, namespace, case):
    """The user MUST wait."""
    namespace.create(config_map("long"))
    cluster.create(cluster_role(namespace.name, []))
    pathlib.Path(f"endless-{case}").touch()
    threading.Event().wait(300)
'''

UNSEEN = '''
"""A promise that is not kept, however well the connection is."""
import pathlib
from clusterproof import eventually
from clusterproof.manifests import config_map, cluster_role

def test_unseen(cluster, namespace):
    """It MUST get data from somewhere."""
    cluster.create(cluster_role(namespace.name, []))
    one = namespace.create(config_map("one"))
    pathlib.Path("waiting").touch()
    eventually(one, lambda seen: None if "data" in seen.raw else "no data", within=20)
'''


@pytest.fixture(scope="module")
def owned(shared: Machine) -> Cluster:
    """A cluster that was started separately, where the way to the internet leads through a proxy."""
    proxy = "http://127.0.0.1:9"
    return shared.up("theirs", "--nodes", "1", HTTPS_PROXY=proxy, HTTP_PROXY=proxy, NO_PROXY="example.org")


@pytest.fixture
def promises(tmp_path: Path) -> Path:
    """A folder with a promise of somebody's own."""
    (tmp_path / "test_own.py").write_text(PROMISES)
    return tmp_path


# How a cluster is reached


@pytest.mark.parametrize("identity", ["certificate", "token", "exec plugin", "exec plugin with a certificate"])
def test_promises_are_proven_with_every_kind_of_identity(owned: Cluster, promises: Path, identity: str) -> None:
    """Whoever comes with a certificate, a token or an exec plugin MUST be able to prove promises."""
    user = json.loads(owned.kubeconfig.read_text())["users"][0]["user"]
    if identity != "certificate":
        credential: dict[str, str] = {"token": _token(owned, "prover", "cluster-admin")}
        if identity == "exec plugin with a certificate":
            pair = {"clientCertificateData": "client-certificate-data", "clientKeyData": "client-key-data"}
            credential = {key: base64.b64decode(user[name]).decode() for key, name in pair.items()}
        user = credential if identity == "token" else _exec_plugin(promises / "plugin", credential)
    kubeconfig = _kubeconfig(promises / "kubeconfig", owned, user)

    with owned.machine.start(*_pytest("."), "--kubeconfig", kubeconfig, at=promises) as running:
        code = running.wait()

    assert code == 0, running.output
    run = result.read(promises / "reports/out/result.json")
    assert run.complete
    assert [each.outcome for each in run.results] == [Outcome.KEPT, Outcome.KEPT]
    assert run.cluster is not None
    assert (run.cluster.provider, run.cluster.version[:5], len(run.cluster.nodes)) == ("external", "v1.37", 1)
    known = {fact.name: fact.evidence for fact in run.cluster.capabilities if fact.supported}
    assert known["nodes.own"] == "declared by ConfigMap kube-public/clusterproof"
    assert "health.operator" not in known
    assert run.leaks == ()
    assert _left(owned) == []


def test_nothing_is_sent_to_nodes_of_windows(owned: Cluster, promises: Path) -> None:
    """Where the emptiest node runs Windows, and says so in no taint, pods MUST go to one that runs Linux."""
    windows = owned.ask(lambda client: Object.of(client, client.post(kinds.NODE.path(), WINDOWS)))
    try:
        with owned.machine.start(*_pytest("."), "--kubeconfig", owned.kubeconfig, at=promises) as running:
            code = running.wait()
    finally:
        owned.ask(lambda client: client.delete(windows.path))

    assert code == 0, running.output
    run = result.read(promises / "reports/out/result.json")
    assert run.cluster is not None
    assert len(run.cluster.nodes) == 2
    assert [each.outcome for each in run.results] == [Outcome.KEPT, Outcome.KEPT]


# Why a cluster is refused


def refused(machine: Machine, *options: str | Path, **environment: str) -> str:
    """What the user is told; that it is one sentence, in time and with exit code 4, holds for every refusal."""
    arguments = _pytest(catalog.root() / "health")
    started = time.monotonic()
    done = machine.run(*arguments, *options, f"--reports-dir={machine.folder / 'tmp/out'}", **environment)
    seconds = time.monotonic() - started

    told = [line for line in done.stderr.splitlines() if line]
    assert done.returncode == 4, f"{done.stdout}\n{done.stderr}"
    assert len(told) == 1, done.stderr
    assert "Traceback" not in done.stdout, done.stdout
    assert not (machine.folder / "tmp/out").exists(), "nothing was proven, so there is nothing to report"
    assert seconds < LIMIT, f"it took {seconds:.1f} s to say: {told[0]}"
    return told[0].removeprefix("ERROR: ")


def test_a_cluster_is_named(shared: Machine) -> None:
    """A run against an external cluster that nobody named MUST be refused."""
    assert refused(shared).startswith("--cluster=external needs --kubeconfig or --context, or a pod with a service")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "cannot be read: [Errno 2] No such file or directory"),
        ("{", "cannot be read: while parsing"),
        ("hello", "is not a kubeconfig: it has no list of contexts"),
        ("contexts: [{name: a}]\ncurrent-context: a", "context 'a' cannot be used: "),
        ("contexts: [{name: a, context: {cluster: b, user: c}}]\ncurrent-context: a", "context 'a' cannot be used: "),
    ],
)
def test_a_file_that_is_no_kubeconfig(shared: Machine, tmp_path: Path, content: str | None, sentence: str) -> None:
    """A kubeconfig that is not there, or is something else, MUST be refused."""
    path = tmp_path / "kubeconfig"
    if content is not None:
        path.write_text(content)

    told = refused(shared, "--kubeconfig", path)

    assert str(path) in told
    assert sentence in told


def test_an_unknown_context(shared: Machine, owned: Cluster) -> None:
    """A context that the kubeconfig does not have MUST be refused, with those it has."""
    told = refused(shared, "--kubeconfig", owned.kubeconfig, "--context", "moon")

    assert told == f"--context=moon: {owned.kubeconfig} has the contexts clusterproof-{owned.name}"


def _expired(owned: Cluster, folder: Path) -> dict[str, Any]:
    halved = datetime.timedelta(minutes=30)  # it begins an hour ago
    pair = Authority(owned.folder / "pki", "ca").issue(
        "late", user="late", groups=["system:masters"], folder=folder, lifetime=halved
    )
    return {"client-certificate": str(pair.certificate), "client-key": str(pair.key)}


def _stranger(owned: Cluster, folder: Path) -> dict[str, Any]:
    pair = Authority(folder, "another-ca").issue("stranger", user="kubernetes-admin", groups=["system:masters"])
    return {"client-certificate": str(pair.certificate), "client-key": str(pair.key)}


def _weak(owned: Cluster, folder: Path) -> dict[str, Any]:
    return {"token": _token(owned, "weak", "view")}


def _script(text: str) -> Callable[[Cluster, Path], dict[str, Any]]:
    def user(owned: Cluster, folder: Path) -> dict[str, Any]:
        return _exec_plugin(folder / "plugin", {}, text)

    return user


def _no_plugin(owned: Cluster, folder: Path) -> dict[str, Any]:
    return _exec_plugin(folder / "plugin", {}) | {"exec": {"command": "/nowhere/plugin", "apiVersion": API}}


@pytest.mark.parametrize(
    ("user", "sentence"),
    [
        (_expired, "its client certificate expired on 20"),
        (_stranger, "refused the kubeconfig's credentials (401 Unauthorized)"),
        (lambda *_: {"token": "false"}, "refused the kubeconfig's credentials (401 Unauthorized)"),
        (lambda *_: {}, "the kubeconfig's user may not create namespaces"),
        (_weak, "the kubeconfig's user may not create namespaces, delete namespaces, list nodes, create pods, "),
        (lambda *_: {"client-certificate-data": HELLO, "client-key-data": HELLO}, "client certificate cannot be read"),
        (_script("echo the moon is down >&2; exit 3"), "no credentials: exec: process returned 3. the moon is down"),
        (_script("echo hello"), "no credentials: exec: failed to decode process output"),
        (_no_plugin, "no credentials: "),
    ],
    ids=["expired", "strange", "false", "anonymous", "weak", "garbage", "plugin fails", "plugin babbles", "no plugin"],
)
def test_an_identity_that_does_not_do(
    owned: Cluster,
    tmp_path: Path,
    user: Callable[[Cluster, Path], dict[str, Any]],
    sentence: str,
) -> None:
    """A user whom the cluster does not let in, or lets do too little, MUST be told so before anything is created."""
    kubeconfig = _kubeconfig(tmp_path / "kubeconfig", owned, user(owned, tmp_path))

    assert sentence in refused(owned.machine, "--kubeconfig", kubeconfig)
    assert _left(owned) == []


@pytest.mark.parametrize("place", ["a closed port", "silence", "a mute server", "no name", "another's authority"])
def test_a_server_that_cannot_be_reached(shared: Machine, owned: Cluster, tmp_path: Path, place: str) -> None:
    """A server that is not there, says nothing or is not the one that it should be MUST be named, with the reason."""
    with shared.network(), socket.create_server(("127.0.0.1", 0)) as mute:
        _lay_hole(shared)
        mute_port = mute.getsockname()[1]
        server, sentence = {
            "a closed port": ("https://127.0.0.1:9", "cannot connect: [Errno 111] Connection refused"),
            "silence": (f"https://{GONE}:6443", "no answer in time"),
            "a mute server": (f"https://127.0.0.1:{mute_port}", "no answer in time"),
            "no name": ("https://cluster.invalid:6443", "its host name cannot be resolved"),
            "another's authority": (
                owned.server,
                "its certificate is not trusted by the kubeconfig's certificate",
            ),
        }[place]
        change: dict[str, Any] = {"server": server}
        if place == "another's authority":
            other = Authority(tmp_path, "another-ca").pair.certificate.read_bytes()
            change["certificate-authority-data"] = base64.b64encode(other).decode()
        kubeconfig = _kubeconfig(tmp_path / "kubeconfig", owned, server=change)

        told = refused(shared, "--kubeconfig", kubeconfig)

    assert server in told
    assert sentence in told


@pytest.mark.parametrize("version", ["v1.33.12", "v1.39.0", "v2.0.0"])
def test_a_version_that_the_promises_are_not_for(shared: Machine, tmp_path: Path, version: str) -> None:
    """A cluster of a version that the promises are not written for MUST be refused, with those that they are for."""
    fake = FakeApi(git_version=version)
    fake.put("/api/v1/nodes/node-1", NODE)
    with shared.network(), serve(fake):
        told = refused(shared, "--kubeconfig", fake.kubeconfig(tmp_path / "kubeconfig", token="any"))

    assert told.endswith(f"runs Kubernetes {version}; this version of clusterproof proves 1.34 to 1.38")
    assert not [request for request in fake.requests if not request.startswith("GET /version")]


def test_a_cluster_without_nodes(shared: Machine) -> None:
    """A cluster where no pod can run MUST be refused, with what every node lacks."""
    empty = shared.up("empty", "--nodes", "1")
    (node,) = empty.nodes()

    def cordon(client: Client) -> None:
        Object(client, kinds.NODE, node.name).patch({"spec": {"unschedulable": True}})

    def remove(client: Client) -> None:
        Object(client, kinds.NODE, node.name).delete()

    try:
        empty.ask(cordon)
        told = refused(shared, "--kubeconfig", empty.kubeconfig)
        assert f"no node takes pods: {node.name} is Ready, with taint node.kubernetes.io/unschedulable" in told

        shared.kill(f"--hostname-override={node.name}")
        empty.ask(remove)
        told = refused(shared, "--kubeconfig", empty.kubeconfig)
        assert told.endswith(f"{empty.server}: has no nodes, so no pod can run")
    finally:
        shared.must("down", "--name", empty.name)


# What an interrupted run leaves


def _under_way(cluster: Cluster, folder: Path, running: Started) -> str:
    """The run's id, once it has told of one promise and is proving two others."""
    running.reaches(lambda: {path.name for path in folder.glob("endless-*")} == {"endless-first", "endless-second"})
    running.reaches(lambda: "\n." in running.output)
    (run,) = {each.labels[RUN_LABEL] for each in cluster.ask(_namespaces)}
    return run


def test_what_was_proven_before_ctrl_c_is_told_and_nothing_is_left(owned: Cluster, tmp_path: Path) -> None:
    """A run that the user interrupts MUST write its reports, say that it is incomplete, and remove what it made."""
    (tmp_path / "test_own.py").write_text(ENDLESS)
    arguments = _pytest("-n2", "--kubeconfig", owned.kubeconfig)
    with owned.machine.start(*arguments, at=tmp_path) as running:
        _under_way(owned, tmp_path, running)
        running.signal(signal.SIGINT)
        code = running.wait()

    assert code == pytest.ExitCode.INTERRUPTED, running.output
    run = result.read(tmp_path / "reports/out/result.json")
    assert not run.complete
    assert run.leaks == ()
    outcomes = {each.id.rpartition("/")[2]: each.outcome for each in run.results}
    assert outcomes["quick"] is Outcome.KEPT
    assert {"junit.xml", "summary.md", "allure"} <= {path.name for path in (tmp_path / "reports/out").iterdir()}
    assert _left(owned) == []


def test_sweep_removes_what_a_killed_run_left(owned: Cluster, tmp_path: Path) -> None:
    """After a run was killed, `sweep` MUST remove all that it had made, and nothing else."""
    (tmp_path / "test_own.py").write_text(ENDLESS)
    temporary = owned.machine.folder / "tmp"
    owned.ask(lambda client: client.post(kinds.CONFIG_MAP.path("default"), manifests.config_map("theirs")))
    arguments = _pytest("-n2", "--kubeconfig", owned.kubeconfig)
    with owned.machine.start(*arguments, at=tmp_path) as running:
        run = _under_way(owned, tmp_path, running)
        running.signal(signal.SIGKILL)
        running.wait()
    left = _left(owned)

    removed = owned.machine.must("sweep", "--kubeconfig", str(owned.kubeconfig), "--run", run).splitlines()

    # That of the promise that was kept was going anyway.
    stayed = [line for line in left if line.startswith(("Namespace ", "ClusterRole ")) and "endless" in line]
    assert len(stayed) == 4
    assert {f"removed {line}" for line in stayed} <= set(removed)
    assert _left(owned) == []
    # No credentials either; only pytest's own folder for `tmp_path`.
    assert [path for path in temporary.iterdir() if not path.name.startswith("pytest-of-")] == []
    assert owned.ask(lambda client: Object(client, kinds.CONFIG_MAP, "theirs", "default").read()).name == "theirs"
    assert owned.machine.must("status").startswith(f"{owned.name}: running")
    again = owned.machine.must("sweep", "--kubeconfig", str(owned.kubeconfig))
    assert again.endswith("\nnothing was left\n")


@pytest.mark.parametrize(
    "trouble", ["nothing", "the network is cut", "the API server hangs", "the API server restarts"]
)
def test_a_lost_connection_is_not_blamed_on_the_cluster(owned: Cluster, tmp_path: Path, trouble: str) -> None:
    """What fails while the API server is out of reach MUST be an error, and what it made be removed afterwards."""
    (tmp_path / "test_own.py").write_text(UNSEEN)
    with owned.machine.start(*_pytest("."), "--kubeconfig", owned.kubeconfig, at=tmp_path) as running:
        running.reaches((tmp_path / "waiting").exists)
        _make_trouble(owned, trouble, 15)
        code = running.wait()

    assert code == 1, running.output
    run = result.read(tmp_path / "reports/out/result.json")
    (unseen,) = run.results
    assert run.complete
    assert run.leaks == ()
    assert _left(owned) == []
    if trouble == "nothing":
        assert (unseen.outcome, "no data" in unseen.reason) == (Outcome.BROKEN, True), unseen.reason
    else:
        assert unseen.outcome is Outcome.ERROR
        lost = r"the connection to the API server was lost for \d+ s while it was proven .*, so nothing was learned"
        assert re.match(lost, unseen.reason), unseen.reason


def _make_trouble(cluster: Cluster, trouble: str, seconds: float) -> None:
    """Have the API server out of reach for some seconds."""
    machine = cluster.machine
    if trouble == "the API server hangs":
        machine.kill("kube-apiserver", "STOP")
        time.sleep(seconds)
        machine.kill("kube-apiserver", "CONT")
    elif trouble == "the API server restarts":
        cluster.restart("kube-apiserver", after=seconds / 2)
    elif trouble == "the network is cut":
        rule = ["OUTPUT", "-d", str(urlsplit(cluster.server).hostname), "-j", "DROP"]
        assert machine.run("iptables", "-I", *rule).returncode == 0
        time.sleep(seconds)
        assert machine.run("iptables", "-D", *rule).returncode == 0


def _pytest(*arguments: str | Path) -> list[str | Path]:
    plain = ("-p", "no:cacheprovider", "--cluster=external")
    return [sys.executable, "-m", "pytest", *plain, *arguments]


def _kubeconfig(
    path: Path, cluster: Cluster, user: dict[str, Any] | None = None, server: dict[str, Any] | None = None
) -> Path:
    """The administrator's, with another user, or with something else about the server."""
    config = json.loads(cluster.kubeconfig.read_text())
    config["clusters"][0]["cluster"] |= server or {}
    if user is not None:
        config["users"][0]["user"] = user
    path.write_text(json.dumps(config))
    return path


def _exec_plugin(path: Path, credential: dict[str, str], body: str = "") -> dict[str, Any]:
    """A user whose credential a command prints."""
    answer = {"apiVersion": API, "kind": "ExecCredential", "status": credential}
    path.write_text(f"#!/bin/sh\n{body or f'printf %s {shlex.quote(json.dumps(answer))}'}\n")
    path.chmod(0o755)
    return {"exec": {"apiVersion": API, "command": str(path), "interactiveMode": "Never"}}


def _token(cluster: Cluster, name: str, role: str) -> str:
    """A token of a service account that is bound to a role in the whole cluster."""

    def make(client: Client) -> str:
        account = {"metadata": {"name": name}}
        if client.request("POST", kinds.SERVICE_ACCOUNT.path("default"), body=account).status == 201:
            subject = manifests.subject("ServiceAccount", name, "default")
            binding = manifests.cluster_role_binding(f"test-{name}", role, [subject])
            client.post(kinds.CLUSTER_ROLE_BINDING.path(), binding)
        path = kinds.SERVICE_ACCOUNT.path("default", name, "token")
        answer = client.post(path, {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}})
        return str(answer["status"]["token"])

    return cluster.ask(make)


def _namespaces(client: Client) -> list[Object]:
    return Selection(client, kinds.NAMESPACE, labels=RUN_LABEL).read()


def _left(cluster: Cluster) -> list[str]:
    """What carries a run's label."""
    return sorted(str(entry) for entry in cluster.ask(ledger.run_objects))


def _lay_hole(machine: Machine) -> None:
    """A network with a machine that takes packets and never answers."""
    lines = [
        "link add sink type veth peer name hole",
        "link set sink up",
        "link set hole up",
        "address add 192.0.2.1/24 dev sink",
        f"neighbour add {GONE} lladdr 02:00:00:00:00:01 dev sink nud permanent",
    ]
    if machine.run("ip", "link", "show", "sink").returncode:
        for line in lines:
            assert machine.run("ip", *line.split()).returncode == 0, line
