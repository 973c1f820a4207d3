"""What is told before a run on a cluster with rules of its own, and to somebody who has few rights there."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from clusterproof.reports import result

from clusterproof import eventually, kinds, manifests
from clusterproof.client import Client
from clusterproof.objects import Object
from clusterproof.running import ledger

from .machine import Cluster, Machine

LIMIT = 10.0
"""Seconds within which everything must be said."""
TEAMS = ("team-a", "team-b")
TAINT = {"key": "dedicated", "value": "databases", "effect": "NoSchedule"}
ADMISSION = "admissionregistration.k8s.io/v1"
POLICY = {
    "apiVersion": ADMISSION,
    "kind": "MutatingAdmissionPolicy",
    "metadata": {"name": "cost-centre"},
    "spec": {
        "matchConstraints": {
            "resourceRules": [
                {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
            ]
        },
        "failurePolicy": "Fail",
        "reinvocationPolicy": "Never",
        "mutations": [
            {
                "patchType": "JSONPatch",
                "jsonPatch": {
                    "expression": "[JSONPatch{op: 'add', path: '/spec/nodeSelector', value: {'pool': 'cheap'}}, "
                    "JSONPatch{op: 'add', path: '/metadata/labels/cost-centre', value: '42'}]"
                },
            }
        ],
    },
}
BINDING = {
    "apiVersion": ADMISSION,
    "kind": "MutatingAdmissionPolicyBinding",
    "metadata": {"name": "cost-centre"},
    "spec": {"policyName": "cost-centre"},
}


@pytest.fixture(scope="module")
def sound(shared: Machine) -> Cluster:
    """A cluster that nobody has made rules for yet."""
    return shared.up("doc", "--nodes", "1")


@pytest.fixture(scope="module")
def teams(sound: Cluster) -> Cluster:
    """The same with namespaces of teams, each with a quota, and somebody who is their admin and nothing else."""
    sound.ask(_make_teams)
    return sound


@pytest.fixture
def restricted(teams: Cluster) -> Iterator[Cluster]:
    """The same with a taint on every node, and a policy that changes pods."""
    (node,) = teams.nodes()
    path = f"/apis/{ADMISSION}/mutatingadmissionpolic"

    def restrict(client: Client) -> None:
        Object(client, kinds.NODE, node.name).patch({"spec": {"taints": [TAINT]}})
        client.post(f"{path}ies", POLICY)
        client.post(f"{path}ybindings", BINDING)

    def relax(client: Client) -> None:
        Object(client, kinds.NODE, node.name).patch({"spec": {"taints": None}})
        client.delete(f"{path}ybindings/cost-centre")
        client.delete(f"{path}ies/cost-centre")

    teams.ask(restrict)
    try:
        yield teams
    finally:
        teams.ask(relax)


def examined(cluster: Cluster, kubeconfig: Path, code: int) -> list[dict[str, Any]]:
    """What is found; that it is in time, and that nothing is changed, holds for every examination."""
    started = time.monotonic()
    done = cluster.machine.clusterproof("doctor", "--kubeconfig", str(kubeconfig), "--format", "json")
    seconds = time.monotonic() - started

    assert done.returncode == code, f"{done.stdout}\n{done.stderr}"
    assert seconds < LIMIT, f"it took {seconds:.1f} s"
    # The cluster's own controllers may still be making theirs.
    there = cluster.ask(ledger.snapshot).entries.values()
    assert [str(entry) for entry in there if entry.name.startswith("clusterproof-doctor")] == []
    found: list[dict[str, Any]] = json.loads(done.stdout)["findings"]
    return found


def _about(found: list[dict[str, Any]], topic: str, weight: str) -> str:
    return "\n".join(each["what"] for each in found if (each["topic"], each["weight"]) == (topic, weight))


def test_nothing_is_in_the_way_of_a_run_on_a_sound_cluster(sound: Cluster) -> None:
    """Where nothing hinders a run, that MUST be said, and what the cluster does not claim to do."""
    found = examined(sound, sound.kubeconfig, 0)

    assert not [each for each in found if each["weight"] == "hinders"]
    assert "network.ingress: no IngressClass" in _about(found, "capabilities", "unsupported")
    assert "a pod of ours is accepted and stored as it was sent" in _about(found, "admission", "fine")


def test_rules_of_the_cluster_are_found(restricted: Cluster) -> None:
    """Taints, quotas and policies that would break promises MUST each be named."""
    _await_policy(restricted)
    found = examined(restricted, restricted.kubeconfig, 1)

    assert "no node takes pods" in _about(found, "nodes", "hinders")
    assert "with taint dedicated" in _about(found, "nodes", "hinders")
    assert "2 of 2 namespaces have a ResourceQuota team (pods=8" in _about(found, "quotas", "hinders")
    changed = _about(found, "admission", "hinders")
    assert "label cost-centre=42" in changed
    assert "nodeSelector nothing became {'pool': 'cheap'}" in changed
    assert "MutatingAdmissionPolicy cost-centre meets pods" in _about(found, "admission", "told")


def test_missing_rights_are_named(teams: Cluster, tmp_path: Path) -> None:
    """Whoever is admin of some namespaces only MUST be told which rights are missing, and for which promises."""
    found = examined(teams, namespace_admin(teams, tmp_path / "kubeconfig"), 1)

    missing = {each["what"]: each["promises"] for each in found if each["topic"] == "rights"}
    assert missing["the kubeconfig's user may not create namespaces"] == ["every promise"]
    assert "extend/crd" in missing["the kubeconfig's user may not create customresourcedefinitions"]


PROMISES = '''
"""What an admin of some namespaces may do, and what not."""
import pytest
from clusterproof import eventually, kinds, manifests
from clusterproof.refusals import refused

def test_config(namespace):
    """A ConfigMap MUST be there once it was made."""
    namespace.create(manifests.config_map("one"))
    namespace.get(kinds.CONFIG_MAP, "one")

def test_rollout(namespace, images, timeouts):
    """A Deployment's pods MUST be made."""
    web = namespace.create(manifests.deployment("web", images.agnhost, replicas=2, spec=manifests.PARKED))
    eventually(web.pods(), lambda pods: None if len(pods) == 2 else "too few", within=timeouts.rollout)
    # Its Endpoints bear its labels, and no admin of a namespace may remove those.
    namespace.create(manifests.service("web"))
    endpoints = namespace.select(kinds.ENDPOINT_SLICE, "kubernetes.io/service-name=web")
    eventually(endpoints, lambda found: None if found else "there are none", within=timeouts.object)

def test_cluster_role(cluster, namespace):
    """A ClusterRole MUST be made."""
    cluster.create(manifests.cluster_role(namespace.name, []))

def test_waiting(cluster, timeouts):
    """Nodes MUST be listed."""
    eventually(lambda: cluster.nodes(), lambda found: None, within=1)

def test_refused(namespace):
    """A quota without a name MUST be refused."""
    with refused("a quota"):
        namespace.create({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"}})

def test_two(namespaces):
    """Three namespaces MUST be had."""
    namespaces(), namespaces(), namespaces()

def test_broken(namespace):
    """A promise that is broken MUST NOT hide behind missing rights."""
    with refused("what is allowed"):
        namespace.create(manifests.config_map("allowed"))
'''


def test_a_namespace_admin_proves_what_they_may(teams: Cluster, tmp_path: Path) -> None:
    """Whoever is lent namespaces MUST prove what they may there; the rest is unsupported and names the right."""
    (tmp_path / "test_own.py").write_text(PROMISES)
    kubeconfig = namespace_admin(teams, tmp_path / "kubeconfig")
    theirs = manifests.config_map("theirs")
    teams.ask(lambda client: client.request("POST", kinds.CONFIG_MAP.path(TEAMS[0]), body=theirs))
    options = ("--cluster=external", f"--kubeconfig={kubeconfig}", f"--namespaces={','.join(TEAMS)}")
    done = teams.machine.run(
        sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-n0", ".", *options, at=tmp_path
    )

    run = result.read(tmp_path / "reports/out/result.json")
    outcomes = {each.id.rpartition("/")[2]: (each.outcome.value, each.reason) for each in run.results}
    lacks = "right: the kubeconfig's user may not"
    assert outcomes == {
        "config": ("kept", ""),
        "rollout": ("kept", ""),
        "cluster_role": ("unsupported", f"{lacks} create clusterroles"),
        "waiting": ("unsupported", f"{lacks} list nodes"),
        "refused": ("unsupported", f"{lacks} create resourcequotas"),
        "two": ("unsupported", "it needs more namespaces than --namespaces has: 2"),
        "broken": ("broken", "what is allowed MUST be refused with 403, but it was accepted"),
    }, done.stdout
    assert done.returncode == 1
    assert run.leaks == ()
    assert teams.ask(ledger.run_objects) == []
    there = teams.ask(lambda client: Object(client, kinds.CONFIG_MAP, "theirs", TEAMS[0]).read())
    assert there.uid


def test_lent_namespaces_are_there(teams: Cluster, tmp_path: Path) -> None:
    """A namespace that is lent, but not there or not the user's, MUST be named before anything begins."""
    (tmp_path / "test_own.py").write_text(PROMISES)
    kubeconfig = namespace_admin(teams, tmp_path / "kubeconfig")
    options = ("--cluster=external", f"--kubeconfig={kubeconfig}", "--namespaces=default", "-k", "config")
    done = teams.machine.run(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", ".", *options, at=tmp_path)

    assert "may not list pods in default, create pods in default" in done.stdout + done.stderr


def test_a_cluster_is_named_and_answers(shared: Machine, sound: Cluster) -> None:
    """Without a cluster that was named and answers, nothing MUST be said but that, with exit code 4."""
    nobody = shared.clusterproof("doctor")
    assert nobody.returncode == 4
    assert "none is chosen silently" in nobody.stderr

    away = shared.folder / "tmp/away"
    away.write_text(sound.kubeconfig.read_text().replace(sound.server, "https://127.0.0.1:9"))
    unreachable = shared.clusterproof("doctor", "--kubeconfig", str(away))
    assert unreachable.returncode == 4
    assert "https://127.0.0.1:9: cannot connect" in unreachable.stderr


def _await_policy(cluster: Cluster) -> None:
    """Wait until the policy is in force: that takes the API server a moment."""

    def labels(client: Client) -> dict[str, str]:
        sent = manifests.pod("any", "image")
        made = client.post(kinds.POD.path("default"), sent, {"dryRun": "All"})
        return dict(made["metadata"]["labels"])

    def changed(found: dict[str, str]) -> str | None:
        return None if "cost-centre" in found else "the policy is not in force"

    cluster.ask(lambda client: eventually(lambda: labels(client), changed, within=30))


def namespace_admin(cluster: Cluster, path: Path) -> Path:
    """A kubeconfig of somebody who may do what the role `admin` allows, in the namespaces of the teams only."""
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 3600}}
    account = kinds.SERVICE_ACCOUNT.path(TEAMS[0], "lead", "token")
    token = cluster.ask(lambda client: client.post(account, request))["status"]["token"]
    raw = json.loads(cluster.kubeconfig.read_text())
    raw["users"][0]["user"] = {"token": token}
    path.write_text(json.dumps(raw))
    return path


def _make_teams(client: Client) -> None:
    lead = {"kind": "ServiceAccount", "name": "lead", "namespace": TEAMS[0]}
    for name in TEAMS:
        client.post("/api/v1/namespaces", {"metadata": {"name": name}})
        quota = {"metadata": {"name": "team"}, "spec": {"hard": {"pods": "8", "services": "4"}}}
        client.post(kinds.RESOURCE_QUOTA.path(name), quota)
        role = {"kind": "ClusterRole", "name": "admin", "apiGroup": "rbac.authorization.k8s.io"}
        client.post(kinds.ROLE_BINDING.path(name), {"metadata": {"name": "lead"}, "roleRef": role, "subjects": [lead]})
    client.post(kinds.SERVICE_ACCOUNT.path(TEAMS[0]), {"metadata": {"name": "lead"}})
