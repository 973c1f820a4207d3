"""A cluster of two nodes is taken from one minor to the next while it is watched."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
from clusterproof.embedded import operate, state

from .conftest import NEW, OLD
from .observation import Judged, Observation, clusterproof

BUDGET = "api=120,watch=120,service=30,dns=30,ingress=90,balancer=90"
"""Seconds, for a machine with much else to do. Its one ingress controller is moved with the pods it knows of."""
API = ("api read, new", "api read, one", "api write")
"""How the names of the probes that ask the API server begin."""


def test_whole_use(old: state.ClusterState, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An upgrade that harms nothing MUST be judged so, and every outage told: whose it was, and when nobody looked."""
    observation = Observation(old.kubeconfig, tmp_path / "state")
    observation.prepare()

    with observation.monitored() as first:
        for probe in API:
            _await_text(observation, f'"probe": "{probe}', 1)
        first.kill()  # as a machine that is restarted
    killed = time.time()
    time.sleep(4)
    with observation.monitored() as monitor:
        _await_text(observation, '"event": "started"', 2)
        _cut_off(old, "INPUT", "-s", str(old.host_address), "-p", "tcp", "--dport", "6443", seconds=5)
        time.sleep(3)
        _cut_off(old, "FORWARD", "-d", _balancer(observation), seconds=4)
        began = time.time()
        done = clusterproof("upgrade", "run", "--name", old.name, "--from", OLD, "--to", NEW)
        seconds = time.time() - began
        assert done.returncode == 0, done.stderr
        judged = observation.verify("--to", NEW, "--budget", BUDGET)
        assert "ended by verify" in monitor.communicate(timeout=30)[1]

    with capsys.disabled():
        print(f"\n{done.stderr}upgraded in {seconds:.1f} s\n{judged.text}")
    assert (judged.code, judged.broken) == (0, {}), judged.text
    assert judged.verdict["sentence"].startswith(f"KEPT: v{OLD} to v{NEW}")
    _steps(done.stderr, old)
    _accounted(judged, killed)
    observation.end()
    assert not (observation.folder / "before.json").exists(), "the folder can be used again"


def _steps(said: str, old: state.ClusterState) -> None:
    """The order of the version skew policy, with a drain of each node."""
    order = ["kube-apiserver", "kube-controller-manager", "kube-scheduler", *(node.name for node in old.nodes)]
    told = [line.split(":")[0] for line in said.splitlines() if f"v{NEW}" in line]
    assert told == order
    assert all(re.search(rf"{node.name}: [1-9]\d* pods moved", said) for node in old.nodes), said


def _accounted(judged: Judged, killed: float) -> None:
    nodes = [each for each in judged.verdict["probes"] if each["vantage"].startswith("a pod on ")]
    assert len({each["vantage"] for each in nodes}) == 2, "there is a vantage point on each node"
    assert all(each["requests"] > 50 for each in nodes), nodes
    balancer = judged.probe("observer", "balancer, new")
    assert not balancer["observers_own_outages"], f"pods were answered by the API all the while: {balancer}"
    assert [each for each in balancer["outages"] if each["end"] - each["start"] > 2], f"it led nowhere: {balancer}"
    for name in API:
        seen = judged.probe("observer", name)
        own = [each for each in seen["observers_own_outages"] if each["end"] - each["start"] > 3]
        assert own, f"{name}: the observer was cut off for 5 s, and pods were not: {seen}"
        assert seen["outages"], f"{name}: the only API server was replaced, and nobody noticed: {seen}"
        assert not [each for each in seen["outages"] if killed < each["start"] < killed + 3], "nobody looked then"
        assert seen["unobserved_seconds"] > 3.5, f"{name}: nobody looked for 4 s: {seen}"


def _await_text(observation: Observation, text: str, number: int) -> None:
    """Wait until the timeline has so many lines with a text."""
    deadline = time.monotonic() + 30
    path = observation.folder / "timeline.jsonl"
    while not path.exists() or sum(text in line for line in path.read_text().splitlines()) < number:
        assert time.monotonic() < deadline, f"{path} has not {number} lines with {text}"
        time.sleep(0.2)


def _cut_off(cluster: state.ClusterState, *packets: str, seconds: float) -> None:
    """These packets do not pass the router between this machine, where the observer is, and the cluster."""
    rule = [*packets, "-j", "DROP"]
    operate.run_on(cluster, "control-plane", "iptables", "-w", "-I", *rule)
    try:
        time.sleep(seconds)
    finally:
        operate.run_on(cluster, "control-plane", "iptables", "-w", "-D", *rule)


def _balancer(observation: Observation) -> str:
    """Address of the load balancer that was laid down."""
    return observation.before.balancer.partition(":")[0]
