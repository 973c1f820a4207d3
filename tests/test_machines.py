"""Machines seen from inside: this one, really asked; what is made of several; and how nodes are reached."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import testinfra
from testinfra.host import Host

from clusterproof import cri, machine, machines, steps
from clusterproof.errors import NeverHappened, SurroundingsError
from clusterproof.machine import Machine, Program, Unseen
from clusterproof.machines import Machines
from clusterproof.objects import Object
from clusterproof.running.proving import Unsupported
from clusterproof.settings import Settings

from .fake_api import NODE

KUBELET = Program("kubelet", 7, 0, "", ("/bin/kubelet", "--config=/a", "--v", "4", "--config", "/b", "--debug"))


@pytest.fixture(scope="module")
def here() -> Host:
    """This machine."""
    return testinfra.get_host("local://")


@pytest.fixture(scope="module")
def this(here: Host) -> Machine:
    return Machine("this", here, True, machine.look_at("this", here))


def node(name: str, address: str) -> Object:
    raw = {**NODE, "metadata": {"name": name}}
    raw["status"] = {**NODE["status"], "addresses": [{"type": "InternalIP", "address": address}]}
    return Object.of(None, raw)  # type: ignore[arg-type]


def reached(nodes: Iterable[Object] = (), access: str = "", **settings: Any) -> dict[str, str]:
    """How the nodes of a cluster are reached."""
    cluster = SimpleNamespace(settings=Settings(**settings), access=SimpleNamespace(node_hosts=access))
    return machines._hosts(cluster, {each.name: each for each in nodes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("flag", "value"), [("config", "/b"), ("v", "4"), ("debug", "true"), ("absent", ""), ("onfig", "")]
)
def test_flags_are_read_as_programs_read_them(flag: str, value: str) -> None:
    assert KUBELET.flag(flag) == value


def test_what_every_machine_shows(this: Machine) -> None:
    seen = this.survey

    assert seen.boot_id == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert abs(seen.offset) <= seen.uncertainty + 0.1, "this machine's clock is not its own"
    assert machine.from_json(machine.to_json(replace(seen, programs=(KUBELET,)))).programs == (KUBELET,)


def test_arguments_are_not_part_of_the_script(this: Machine) -> None:
    assert this.run('printf "%s|" "$@"', "a b", "$(id)", "100%").split("|")[:3] == ["a b", "$(id)", "100%"]


def test_a_command_that_fails_has_not_shown_anything(this: Machine) -> None:
    with pytest.raises(Unseen, match=r"exited with 3: no way"):
        this.run("echo no way >&2; exit 3")


def test_everything_that_is_wrong_is_said_with_the_machines_name(this: Machine) -> None:
    both = Machines([replace(this, name="one"), replace(this, name="two")])
    record = steps.restart()

    def check(each: Machine) -> Iterable[str]:
        yield "has a fault"
        if each.name == "two":
            raise Unseen("hides the rest")

    with pytest.raises(AssertionError, match=r"(?m)^one has a fault; two has a fault$"):
        both.prove(check)
    assert [(step.name, step.passed) for step in record.steps] == [("look at one", False), ("look at two", False)]


def test_what_cannot_be_seen_is_unsupported_unless_something_is_wrong(this: Machine) -> None:
    def hides(each: Machine) -> Iterable[str]:
        raise Unseen("has no curl")

    with pytest.raises(Unsupported, match=r"^this has no curl$"):
        Machines([this]).prove(hides)
    Machines([this]).prove(lambda _: [])


def test_a_program_that_runs_nowhere_is_unsupported(this: Machine) -> None:
    with pytest.raises(Unsupported, match=r"no process called no-such is seen on this"):
        Machines([this]).running("no-such")


def test_how_nodes_are_reached() -> None:
    nodes = [node("n1", "10.0.0.1"), node("n2", "10.0.0.2")]
    named = {"n1": "ssh://a?sudo=true", "n2": "docker://b"}

    assert reached(nodes, node_hosts="ssh://root@{address}") == {
        "n1": "ssh://root@10.0.0.1",
        "n2": "ssh://root@10.0.0.2",
    }
    assert reached(nodes, node_hosts="docker://kind-{name}")["n2"] == "docker://kind-n2"
    assert reached(nodes, node_hosts="n1=ssh://a?sudo=true,n2=docker://b") == named
    assert reached(nodes, access="docker://{name}") == {"n1": "docker://n1", "n2": "docker://n2"}
    assert reached(nodes, access="docker://{name}", node_hosts="n1=ssh://a?sudo=true,n2=docker://b") == named
    assert reached(nodes, access="n1=nsenter://1,router=nsenter://2") == {"n1": "nsenter://1", "router": "nsenter://2"}
    with pytest.raises(SurroundingsError, match="is one machine, but there are 2 nodes"):
        reached(nodes, node_hosts="local://")
    with pytest.raises(Unsupported, match="no way to the nodes is known; name one: --node-hosts="):
        reached(nodes)


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("n1=ssh://a,n2", "'n2' is not NAME=HOST, as the other parts are"),
        ("ssh://a,n2=ssh://b", "'ssh://a' is not NAME=HOST, as the other parts are"),
        ("n1=ssh://a, n2=ssh://b", "' n2=ssh://b' is not NAME=HOST"),
        ("n1=ssh://a,m2=ssh://b", "has no host for n2; it names n1, m2"),
    ],
)
def test_no_part_of_a_list_of_hosts_and_no_node_is_passed_over(written: str, told: str) -> None:
    nodes = [node("n1", "10.0.0.1"), node("n2", "10.0.0.2")]

    with pytest.raises(SurroundingsError) as caught:
        reached(nodes, node_hosts=written)
    assert str(caught.value).startswith(f"--node-hosts={written}")
    assert told in str(caught.value)


def test_pods_of_shards_are_in_namespaces_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    def refuse(_: object, name: str, level: str) -> None:
        opened.append(name)
        raise NeverHappened("no")

    monkeypatch.setattr(machines.namespace, "open_namespace", refuse)
    for shard in "night-7-1", "night-7-2":
        cluster = SimpleNamespace(settings=Settings(), run_id=shard)
        with pytest.raises(SurroundingsError, match="no privileged pod on each node"):
            machines._pods(cluster, {})  # type: ignore[arg-type]

    assert len(set(opened)) == 2, opened


def test_hosts_of_an_inventory_are_known_by_name_or_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
    inventory = tmp_path / "hosts.ini"
    inventory.write_text("n1\nother ansible_host=10.0.0.2\nbastion\n")
    nodes = [node("n1", "10.0.0.1"), node("n2", "10.0.0.2")]

    found = reached(nodes, node_inventory=inventory)

    assert found == {
        "n1": f"ansible://n1?ansible_inventory={inventory}",
        "n2": f"ansible://other?ansible_inventory={inventory}",
    }
    with pytest.raises(SurroundingsError, match=r"has no host with the name or an address of n3"):
        reached([*nodes, node("n3", "10.0.0.3")], node_inventory=inventory)


def test_a_machine_that_is_not_there_is_no_broken_promise() -> None:
    with pytest.raises(SurroundingsError, match=r"n1 cannot be looked at by nsenter://999999999: "):
        machine.look_at("n1", testinfra.get_host("nsenter://999999999"))


def test_a_socket_that_listens_is_seen(this: Machine) -> None:
    from clusterproof.suites.nodes import test_ports

    with socket.create_server(("127.0.0.1", 0)) as server:
        assert [str(at) for at in test_ports._bound(this)[server.getsockname()[1]]] == ["127.0.0.1"]
    assert str(test_ports._address("B80D01200000000067452301EFCDAB89")) == "2001:db8::123:4567:89ab:cdef"


def test_a_runtimes_answer_over_grpc() -> None:
    ready = b"\x0a\x10\x0a\x0cRuntimeReady\x10\x01"
    missing = b"\x0a\x1c\x0a\x0cNetworkReady\x1a\x05NoCNI\x22\x05no it"
    config = b"\x12\x1a\x0a\x06config\x12\x10" + b'{"cni":{"a":1}} '
    status = b"\x0a" + bytes([len(ready + missing)]) + ready + missing

    runtime = cri._of_grpc("unix:///s", bytes(5) + status + config)

    assert runtime.conditions == {"RuntimeReady": "", "NetworkReady": "NoCNI no it"}
    assert runtime.config == {"cni": {"a": 1}}


def test_a_runtimes_answer_by_crictl() -> None:
    conditions = [
        {"type": "RuntimeReady", "status": True, "reason": "", "message": ""},
        {"type": "NetworkReady", "status": False, "reason": "NoCNI", "message": "no it"},
    ]

    runtime = cri._of_crictl("unix:///s", {"status": {"conditions": conditions}, "config": {"cni": {"a": 1}}})

    assert runtime.conditions == {"RuntimeReady": "", "NetworkReady": "NoCNI no it"}
    assert runtime.config == {"cni": {"a": 1}}


@pytest.mark.parametrize(("socket_there", "said"), [(False, "there is no such socket"), (True, "curl: ")])
def test_a_runtime_that_does_not_answer(this: Machine, tmp_path: Path, socket_there: bool, said: str) -> None:
    path = tmp_path / "cri.sock"
    asked = replace(this, kubelet_config={"containerRuntimeEndpoint": f"unix://{path}"})
    with socket.socket(socket.AF_UNIX) as server:
        if socket_there:
            server.bind(str(path))  # nobody listens

        with pytest.raises(cri.Silent, match=rf"no container runtime that answers at unix://{path}: {said}"):
            cri.status(asked)
