"""Manifests: pods are fit for Pod Security `restricted`, and every kind is known."""

from __future__ import annotations

from typing import Any

import pytest

from clusterproof import images, kinds, manifests

IMAGE = images.resolve().agnhost
WORKLOADS = [
    manifests.deployment("x", IMAGE),
    manifests.web("x", IMAGE),
    manifests.stateful_set("x", IMAGE, claims=[manifests.pvc("data")]),
    manifests.daemon_set("x", IMAGE),
    manifests.replica_set("x", IMAGE),
    manifests.replication_controller("x", IMAGE),
    manifests.job("x", IMAGE),
    manifests.cron_job("x", IMAGE),
    manifests.pod("x", IMAGE),
]


def spec_of(manifest: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = manifest["spec"]
    if manifest["kind"] == "CronJob":
        spec = spec["jobTemplate"]["spec"]
    return spec["template"]["spec"] if "template" in spec else spec


@pytest.mark.parametrize("manifest", WORKLOADS, ids=lambda manifest: manifest["kind"])
def test_pods_go_to_linux_where_there_is_windows(manifest: dict[str, Any]) -> None:
    fit = manifests.for_linux(manifest)
    assert spec_of(fit) == spec_of(manifest) | {"nodeSelector": {"kubernetes.io/os": "linux"}}
    assert "nodeSelector" not in spec_of(manifest)


@pytest.mark.parametrize("place", [{"node": "one"}, {"spec": {"nodeSelector": {"is": "hollow"}}}])
def test_pods_go_where_they_say(place: dict[str, Any]) -> None:
    pod = manifests.pod("x", IMAGE, **place)
    assert manifests.for_linux(pod) == pod


@pytest.mark.parametrize("manifest", WORKLOADS, ids=lambda manifest: manifest["kind"])
def test_every_pod_is_restricted(manifest: dict[str, Any]) -> None:
    spec = spec_of(manifest)
    (main,) = spec["containers"]
    assert spec["securityContext"]["runAsNonRoot"]
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert main["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    assert main["image"] == IMAGE
    assert spec["terminationGracePeriodSeconds"] == 1
    assert not spec["automountServiceAccountToken"]


@pytest.mark.parametrize("manifest", WORKLOADS, ids=lambda manifest: manifest["kind"])
def test_every_kind_is_known_and_named(manifest: dict[str, Any]) -> None:
    assert kinds.of(manifest).kind == manifest["kind"]
    assert manifest["metadata"]["name"] == "x"
    assert manifest["metadata"]["labels"] == {"app": "x"}


def test_a_privileged_pod_is_root() -> None:
    spec = manifests.pod_spec(IMAGE, privileged=True)
    assert spec["containers"][0]["securityContext"] == {"privileged": True}
    assert "securityContext" not in spec


def test_every_container_of_a_pod_is_as_restricted_as_the_first() -> None:
    more = manifests.container("more", IMAGE, args=["pause"], mounts={"data": "/data"}, stdin=True)
    spec = manifests.pod_spec(IMAGE, beside=[more], init=[more])
    first, second = spec["containers"]
    assert (first["name"], second["name"]) == ("main", "more")
    assert first["securityContext"] == second["securityContext"]
    assert second["stdin"]
    assert second["volumeMounts"] == [{"name": "data", "mountPath": "/data"}]
    assert spec["initContainers"] == [more]


def test_a_selector_selects_the_pods() -> None:
    made = manifests.deployment("x", IMAGE, labels={"tier": "front"})
    assert made["spec"]["selector"]["matchLabels"] == {"app": "x"}
    assert made["spec"]["template"]["metadata"]["labels"] == {"app": "x", "tier": "front"}


def test_what_has_no_parameter_goes_in_all_the_same() -> None:
    made = manifests.deployment(
        "x", IMAGE, more={"paused": True}, spec={"hostname": "h"}, container={"tty": True}, env={"A": "b"}
    )
    assert made["spec"]["paused"]
    assert spec_of(made)["hostname"] == "h"
    assert spec_of(made)["containers"][0]["tty"]
    assert spec_of(made)["containers"][0]["env"] == [{"name": "A", "value": "b"}]


def test_an_unknown_kind_is_named() -> None:
    with pytest.raises(ValueError, match=r"unknown kind example.com/v1 Thing"):
        kinds.of({"apiVersion": "example.com/v1", "kind": "Thing"})


def test_paths() -> None:
    assert kinds.POD.path("ns", "x", "log") == "/api/v1/namespaces/ns/pods/x/log"
    assert kinds.DEPLOYMENT.path() == "/apis/apps/v1/deployments"
    assert kinds.NODE.path(None, "n") == "/api/v1/nodes/n"
    gadget = kinds.custom("example.com", "v1", "Gadget", "gadgets", namespaced=False)
    assert gadget.path(name="x") == "/apis/example.com/v1/gadgets/x"
    assert kinds.of(manifests.custom_object(gadget, "x")) is gadget


def test_images_of_a_mirror() -> None:
    mirrored = images.resolve("mirror.example/k8s", {"agnhost_old": "local:1", "unknown": "x"})
    assert mirrored.agnhost.startswith("mirror.example/k8s/e2e-test-images/agnhost:")
    assert mirrored.agnhost_old == "local:1"
    assert set(images.resolve().all) == set(images.IMAGES.values())
