"""The cluster's machines: how each is reached, what was found out about them, and proving a promise on all of them."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import testinfra
from testinfra.host import Host
from testinfra.utils.ansible_runner import AnsibleRunner

from clusterproof import backends, hollow, kinds, machine, manifests, namespace, steps
from clusterproof.conditions import running
from clusterproof.errors import ApiError, NeverHappened, SurroundingsError
from clusterproof.machine import Machine, Unseen
from clusterproof.objects import Object
from clusterproof.outcome import ClusterFacts, NodeFact, Step
from clusterproof.running.proving import Unsupported
from clusterproof.running.redaction import redacted
from clusterproof.wait import eventually

if TYPE_CHECKING:
    from clusterproof.cluster import Cluster
    from clusterproof.running.run import RunFolder

RECORD = "machines.json"
"""File of the run's folder: how machines are reached, and what the first look at them found."""
BY_POD = "pod"
"""What users write for a pod on each node."""
_AT_ONCE = 8
"""Machines that are asked at the same time."""

Check = Callable[[Machine], Iterable[str]]
"""What is wrong on a machine; raises Unseen when the machine does not show it."""


class Machines:
    """The machines of a cluster that can be reached."""

    def __init__(self, all_: Sequence[Machine]) -> None:
        self.all = tuple(all_)

    @property
    def nodes(self) -> Machines:
        """Those that are Nodes of the cluster."""
        return Machines([each for each in self.all if each.node])

    def running(self, *programs: str) -> Machines:
        """Those on which one of these programs runs; skips the promise as unsupported when there is none."""
        found = [each for each in self.all if each.programs(*programs)]
        if not found:
            names = ", ".join(each.name for each in self.all)
            raise Unsupported(f"no process called {' or '.join(programs)} is seen on {names}")
        return Machines(found)

    def prove(self, check: Check) -> None:
        """Look at every machine and fail with everything that is wrong, each with the machine's name.

        When nothing is wrong but a machine did not show what was looked for, the promise is unsupported.
        """
        __tracebackhide__ = True
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            looks = list(pool.map(lambda each: _look(each, check), self.all))
        steps.current.steps += [look.step for look in looks]
        broken = [f"{look.name} {problem}" for look in looks for problem in look.problems]
        assert not broken, "; ".join(broken)
        if unseen := [f"{look.name} {look.unseen}" for look in looks if look.unseen]:
            raise Unsupported("; ".join(unseen))


@dataclass(frozen=True, slots=True)
class _Look:
    name: str
    problems: tuple[str, ...]
    unseen: str
    step: Step


def _look(each: Machine, check: Check) -> _Look:
    began, clock = time.time(), time.monotonic()
    problems: list[str] = []
    unseen = ""
    try:
        for problem in check(each):  # those before it turned out that the rest cannot be seen
            problems.append(problem)
    except Unseen as error:
        unseen = str(error)
    seconds, detail = time.monotonic() - clock, "; ".join(problems) or unseen
    done = Step(f"look at {each.name}", began, seconds, not problems, detail)
    return _Look(each.name, tuple(problems), unseen, done)


def of(cluster: Cluster, run: RunFolder) -> Machines:
    """The machines of a run's cluster; the first process that asks looks at them for all.

    Unsupported when no way to them is known. SurroundingsError when one cannot be reached, or is another machine than
    the node it is to be.
    """
    with run.locked("machines"):
        if not (run.path / RECORD).exists():
            run.write(RECORD, _first_look(cluster))
    record = run.read(RECORD)
    if record["unsupported"]:
        raise Unsupported(record["unsupported"])
    if record["failure"]:
        raise SurroundingsError(record["failure"])
    return Machines([_machine(raw) for raw in record["machines"]])


def facts(before: ClusterFacts, run: RunFolder) -> ClusterFacts:
    """A cluster's facts with what was seen of its nodes from inside."""
    if not (run.path / RECORD).exists():
        return before
    seen = {raw["name"]: _machine(raw) for raw in run.read(RECORD)["machines"]}
    nodes = [_node_fact(node, seen[node.name]) if node.name in seen else node for node in before.nodes]
    return replace(before, nodes=tuple(nodes))


def _node_fact(node: NodeFact, seen: Machine) -> NodeFact:
    way = seen.host.backend.get_connection_type()
    return replace(node, seen_by=way, cgroup=seen.survey.cgroup, clock_offset=seen.survey.offset)


def _first_look(cluster: Cluster) -> dict[str, Any]:
    record: dict[str, Any] = {"machines": [], "unsupported": "", "failure": ""}
    nodes = {node.name: node for node in cluster.list(kinds.NODE, labels=hollow.MACHINES)}
    try:
        hosts = _hosts(cluster, nodes)
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            record["machines"] = list(
                pool.map(lambda item: _described(cluster, item[0], item[1], nodes), hosts.items())
            )
    except Unsupported as error:
        record["unsupported"] = str(error)
    except SurroundingsError as error:
        record["failure"] = redacted(str(error))  # it may repeat what the user wrote, passwords included
    return record


def _hosts(cluster: Cluster, nodes: dict[str, Object]) -> dict[str, str]:
    """testinfra's host for each machine, by name."""
    settings = cluster.settings
    if settings.node_inventory:
        return _of_inventory(settings.node_inventory, nodes)
    if settings.node_hosts == BY_POD:
        return _pods(cluster, nodes)
    if settings.node_hosts:
        hosts = dict(_written(settings.node_hosts, nodes))
        if missing := sorted(set(nodes) - set(hosts)):
            raise SurroundingsError(
                f"--node-hosts={settings.node_hosts} has no host for {', '.join(missing)}; it names {', '.join(hosts)}"
            )
        return hosts
    if cluster.access.node_hosts:  # of the nodes that the cluster began with: others may have come since
        return dict(_written(cluster.access.node_hosts, nodes))
    raise Unsupported(
        "no way to the nodes is known; name one: --node-hosts='ssh://root@{address}', --node-inventory=FILE, or "
        "--node-hosts=pod for a privileged pod on each node"
    )


def _written(text: str, nodes: dict[str, Object]) -> Iterator[tuple[str, str]]:
    """What `--node-hosts` or a provider says: NAME=HOST for each machine, or one for all with {name} or {address}."""
    parts = {part: re.fullmatch(r"([\w.-]+)=([\w-]+://.*)", part) for part in text.split(",")}
    if any(parts.values()):
        for part, named in parts.items():
            if not named:
                raise SurroundingsError(f"--node-hosts={text}: {part!r} is not NAME=HOST, as the other parts are")
            yield named[1], named[2]
        return
    if "{" not in text and len(nodes) > 1:
        raise SurroundingsError(
            f"--node-hosts={text} is one machine, but there are {len(nodes)} nodes; write {{name}} or {{address}} in it"
        )
    for name, node in nodes.items():
        yield name, text.replace("{name}", name).replace("{address}", _addresses(node)[0])


def _of_inventory(inventory: Path, nodes: dict[str, Object]) -> dict[str, str]:
    """Hosts of an Ansible inventory: a node's has its name, or one of its addresses."""
    runner = AnsibleRunner.get_runner(str(inventory))
    try:
        hosts = runner.get_hosts("all")
    except (AssertionError, RuntimeError, ValueError) as error:  # how testinfra says that it is no inventory
        why = "is there no ansible-inventory (package ansible-core) in PATH?"
        raise SurroundingsError(f"--node-inventory={inventory} cannot be read; {why} {error}") from error
    found = {}
    for host in hosts:
        known = {host, str(runner.get_variables(host).get("ansible_host", ""))}
        for name, node in nodes.items():
            if known & {name, *_addresses(node)}:
                found[name] = f"ansible://{host}?ansible_inventory={inventory}"
    if missing := set(nodes) - set(found):
        raise SurroundingsError(
            f"--node-inventory={inventory} has no host with the name or an address of {', '.join(sorted(missing))}"
        )
    return found


def _pods(cluster: Cluster, nodes: dict[str, Object]) -> dict[str, str]:
    """A pod on each node, in a namespace that carries the run's label and so ends with it."""
    within = cluster.settings.timeouts.pod
    try:
        made = namespace.open_namespace(cluster, namespace.name_of(cluster.run_id, "nodes"), "privileged")
        pods = {name: made.create(_looking_at(name, cluster.images.agnhost)) for name in nodes}
        for pod in pods.values():
            eventually(pod, running, within=within)
    except (ApiError, NeverHappened) as error:
        raise SurroundingsError(f"--node-hosts=pod: no privileged pod on each node: {error}") from error
    access = {"namespace": made.name, "kubeconfig": cluster.access.kubeconfig, "context": cluster.access.context}
    return {name: f"pod://{pod.name}?{urlencode(access)}" for name, pod in pods.items()}


def _looking_at(node: str, image: str) -> dict[str, Any]:
    """A pod that sees a node as the node's root does. It gets there past the scheduler, and so past every taint."""
    whole = {"name": "node", "hostPath": {"path": "/"}}
    limits = {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"memory": "128Mi"}}
    return manifests.pod(
        f"look-at-{node}"[:63].rstrip("-."),
        image,
        args=["pause"],
        privileged=True,
        volumes=[whole],
        resources=limits,
        container={"volumeMounts": [{"name": "node", "mountPath": backends.NODE_ROOT, "readOnly": True}]},
        spec={"nodeName": node, "hostPID": True, "hostNetwork": True, "tolerations": [{"operator": "Exists"}]},
    )


def _described(cluster: Cluster, name: str, spec: str, nodes: dict[str, Object]) -> dict[str, Any]:
    """One machine as plain values."""
    survey = machine.look_at(name, _host(spec))
    node = nodes.get(name)
    reported = node.status["nodeInfo"]["bootID"] if node else survey.boot_id
    if survey.boot_id != reported:
        raise SurroundingsError(
            f"{spec} is not node {name}: it has boot id {survey.boot_id}, and the node's kubelet says {reported}"
        )
    config: dict[str, Any] = {}
    if node:
        answer = cluster.new_client().request("GET", kinds.NODE.path(None, name, "proxy") + "/configz")
        config = answer.json().get("kubeletconfig", {}) if answer.status == 200 else {}
    plain = machine.to_json(survey)
    return {"name": name, "spec": spec, "node": node is not None, "survey": plain, "kubelet_config": config}


def _machine(raw: dict[str, Any]) -> Machine:
    return Machine(
        raw["name"], _host(raw["spec"]), raw["node"], machine.from_json(raw["survey"]), raw["kubelet_config"]
    )


def _host(spec: str) -> Host:
    try:
        return testinfra.get_host(spec)
    except (RuntimeError, OSError, ValueError, ImportError) as error:
        raise SurroundingsError(f"{spec} is no host that testinfra knows: {error}") from error


def _addresses(node: Object) -> list[str]:
    """A node's addresses, those inside the cluster first."""
    listed = node.status.get("addresses") or []
    inner = [each["address"] for each in listed if each["type"] == "InternalIP"]
    return inner + [each["address"] for each in listed if each["address"] not in inner]
