"""Configuration: what ConfigMaps, Secrets and the pod's own description bring into its containers."""

from __future__ import annotations

from base64 import b64encode
from itertools import count
from typing import Any

import pytest

from clusterproof import Images, Namespace, Object, Timeouts, capabilities, case, eventually, kinds, manifests
from clusterproof.conditions import container_waits, ready, tell_of
from clusterproof.inside import said
from clusterproof.refusals import refused
from clusterproof.running.proving import Unsupported

SECRET = "s3cret"
MOUNTED = ("plain", "safe", "self")
"""Volumes of a reader: a ConfigMap, a Secret, and what it is told about itself."""


def test_sources(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A container MUST find ConfigMaps, Secrets and facts about its pod in its environment and files, as it asks for.

    Source: https://kubernetes.io/docs/concepts/configuration/configmap/#configmaps-and-pods
    """
    bytes_ = {"binaryData": {"raw": b64encode(b"bytes").decode()}}
    namespace.create(manifests.config_map("plain", {"colour": "blue", "shape": "round"}) | bytes_)
    namespace.create(manifests.secret("safe", {"password": SECRET, "open": "yes"}))
    pod = namespace.create(_told_everything(images))
    eventually(pod, ready, within=timeouts.pod)

    node = pod.spec["nodeName"]
    expected = {
        **{"COLOUR": "blue", "PASSWORD": SECRET, "MISSING": None, "NAME": "reader", "LABEL": "reader"},
        **{"ADDRESS": pod.status["podIP"], "NODE": node, "LIMIT": "96", "TOGETHER": f"reader on {node}"},
        **{"odd.name-1:x": "odd"},
        **{"EVERY_colour": "blue", "EVERY_shape": "round", "SAFE_password": SECRET, "SAFE_open": "yes"},
    }
    environment = _environment(pod)
    _same({name: environment.get(name) for name in expected}, expected, f"the environment of {pod}")
    expected = {"plain/colour": "blue", "plain/shape": "round", "plain/raw": "bytes"}
    expected |= {"safe/password": SECRET, "safe/deep/open": "yes"}
    _same({path: said(pod, f"cat /{path}") for path in expected}, expected, f"the files of {pod}")
    modes = {path: said(pod, f"stat -L -c %a /{path}").strip() for path in ("safe/password", "safe/deep/open")}
    _same(modes, {"safe/password": "444", "safe/deep/open": "440"}, f"the modes of the files of {pod}")
    assert 'clusterproof.dev/kind="reader"' in said(pod, "cat /self/labels"), f"{pod} does not find its labels"


@pytest.mark.requires(capabilities.ENV_FILES)
def test_env_file(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A container MUST find a variable that its pod's init container wrote into a file, where it asks for it.

    Source: https://kubernetes.io/docs/tasks/inject-data-application/define-environment-variable-via-file/
    """
    script = "echo \"COLOUR='dark blue'\" > /files/own"
    writer = manifests.container("writer", images.agnhost, command=["sh", "-c", script], mounts={"files": "/files"})
    variable = _from("COLOUR", "fileKeyRef", volumeName="files", path="own", key="COLOUR")
    spec = {"initContainers": [writer], "volumes": [{"name": "files", "emptyDir": {}}]}
    asking: dict[str, Any] = {"container": {"env": [variable]}, "spec": spec}
    pod = namespace.create(manifests.pod("reader", images.agnhost, args=["pause"], **asking))
    if "fileKeyRef" not in pod.spec["containers"][0]["env"][0]["valueFrom"]:
        raise Unsupported.dropped("fileKeyRef", "EnvFiles")
    eventually(pod, ready, within=timeouts.pod)

    found = _environment(pod).get("COLOUR")
    assert found == "dark blue", f"{pod}: its variable COLOUR is {found!r}, not 'dark blue' as in the file"


def test_live_update(namespace: Namespace, some_nodes: list[Object], images: Images, timeouts: Timeouts) -> None:
    """Mounted ConfigMaps, Secrets and facts about the pod MUST follow their changes; the environment does not.

    How soon is up to the kubelet. It looks again when the pod changes, so its annotation is changed all the time. Shown
    on each node, of many on eight.

    Source: https://kubernetes.io/docs/concepts/configuration/configmap/#mounted-configmaps-are-updated-automatically
    """
    plain = namespace.create(manifests.config_map("plain", {"value": "old"}))
    safe = namespace.create(manifests.secret("safe", {"value": "old"}))
    pods = [namespace.create(_reader(f"reader-{number}", images, node)) for number, node in enumerate(some_nodes)]
    for pod in pods:
        eventually(pod, ready, within=timeouts.pod)
        found = _mounted(pod)
        assert set(found.values()) == {"old"}, f"{pod} finds {found} in its volumes, not what is in their sources: old"

    plain.patch({"data": {"value": "new"}})
    safe.patch({"stringData": {"value": "new"}})
    for pod in pods:
        pod.patch({"metadata": {"labels": {"value": "new"}}})

    nudges = count()

    def files() -> dict[str, dict[str, str]]:
        nudge = {"metadata": {"annotations": {"clusterproof.dev/nudge": str(next(nudges))}}}
        return {f"{pod} on {pod.spec['nodeName']}": _mounted(pod.patch(nudge)) for pod in pods}

    eventually(files, _are_new, within=timeouts.rollout, describe="of the readers follow their sources")
    for pod in pods:
        kept = said(pod, "echo $VALUE; cat /part").split()
        assert kept == ["old", "old"], f"{pod}: environment and subPath are what they were at its start, but are {kept}"


def test_service_variables(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A container MUST find address and port of the Services that were there before it, where its pod asks for them.

    Source: https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
    """
    web = namespace.create(manifests.service("web", port=8765))
    address = web.spec["clusterIP"]
    expected = {"WEB_SERVICE_HOST": address, "WEB_SERVICE_PORT": "8765", "WEB_SERVICE_PORT_MAIN": "8765"}
    links = {"enableServiceLinks": True}
    for turn in range(3):  # its kubelet may not have heard of the Service when it starts the container
        pod = namespace.create(manifests.pod(f"linked-{turn}", images.agnhost, args=["pause"], spec=links))
        eventually(pod, ready, within=timeouts.pod)
        environment = _environment(pod)
        if environment.keys() >= expected.keys():
            break

    _same({name: environment.get(name) for name in expected}, expected, f"the environment of {pod}")


def test_missing(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A container that needs what does not exist MUST wait and say what is missing, and start when it is there.

    Source: https://kubernetes.io/docs/tasks/configure-pod-container/configure-pod-configmap/#restrictions
    """
    namespace.create(manifests.config_map("plain", {"other": "value"}))
    variable = _from("VALUE", "configMapKeyRef", name="plain", key="value")
    pod = namespace.create(manifests.pod("reader", images.agnhost, args=["pause"], container={"env": [variable]}))
    volume: dict[str, Any] = {
        "mounts": {"safe": "/safe"},
        "volumes": [{"name": "safe", "secret": {"secretName": "safe"}}],
    }
    mounting = namespace.create(manifests.pod("mounting", images.agnhost, args=["pause"], **volume))
    notes = namespace.select(kinds.EVENT, fields=f"involvedObject.uid={mounting.uid},reason=FailedMount")

    eventually(notes, tell_of('secret "safe" not found'), within=timeouts.volume)
    namespace.create(manifests.secret("safe", {"value": "there"}))
    says = "couldn't find key value in ConfigMap"
    eventually(pod, container_waits("CreateContainerConfigError", message=says), within=timeouts.pod)
    namespace.get(kinds.CONFIG_MAP, "plain").patch({"data": {"value": "there"}})
    eventually(pod, ready, within=timeouts.pod)
    assert said(pod, "echo $VALUE").strip() == "there"
    # The kubelet looks for what it mounts later and later.
    eventually(mounting, ready, within=timeouts.pod + timeouts.volume)
    assert said(mounting, "cat /safe/value") == "there"


@pytest.mark.parametrize("kind", [case("configmap", "configmap"), case("secret", "secret")])
def test_immutable(namespace: Namespace, kind: str) -> None:
    """An immutable ConfigMap or Secret MUST refuse every change of its data, and stays immutable.

    Source: https://kubernetes.io/docs/concepts/configuration/configmap/#configmap-immutable
    """
    make = manifests.config_map if kind == "configmap" else manifests.secret
    found = namespace.create(make("fixed", {"colour": "blue"}) | {"immutable": True})
    before = found.raw["data"]

    for change in ({"data": {"colour": "cmVk"}}, {"data": {"shape": "cm91bmQ="}}, {"immutable": False}):
        with refused(f"changing the immutable {found} by {change}", 422):
            found.patch(change)
    found.patch({"metadata": {"labels": {"may": "change"}}})

    assert found.read().raw["data"] == before, f"{found} is immutable, and its data was changed"


def _told_everything(images: Images) -> dict[str, Any]:
    """A pod that asks for something of each kind, in its environment and in files."""
    variables = [
        _from("COLOUR", "configMapKeyRef", name="plain", key="colour"),
        _from("PASSWORD", "secretKeyRef", name="safe", key="password"),
        _from("MISSING", "configMapKeyRef", name="plain", key="missing", optional=True),
        _from("NAME", "fieldRef", fieldPath="metadata.name"),
        _from("LABEL", "fieldRef", fieldPath="metadata.labels['app']"),
        _from("ADDRESS", "fieldRef", fieldPath="status.podIP"),
        _from("NODE", "fieldRef", fieldPath="spec.nodeName"),
        _from("LIMIT", "resourceFieldRef", resource="limits.memory", divisor="1Mi"),
        {"name": "TOGETHER", "value": "$(NAME) on $(NODE)"},
        {"name": "odd.name-1:x", "value": "odd"},
    ]
    files = [{"key": "open", "path": "deep/open", "mode": 0o440}, {"key": "password", "path": "password"}]
    downward = [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]
    volumes = [
        {"name": "plain", "configMap": {"name": "plain"}},
        {"name": "safe", "secret": {"secretName": "safe", "defaultMode": 0o444, "items": files}},
        {"name": "self", "downwardAPI": {"items": downward}},
    ]
    every = [
        {"prefix": "EVERY_", "configMapRef": {"name": "plain"}},
        {"prefix": "SAFE_", "secretRef": {"name": "safe"}},
    ]
    return manifests.pod(
        "reader",
        images.agnhost,
        args=["pause"],
        labels={"clusterproof.dev/kind": "reader"},
        volumes=volumes,
        mounts={name: f"/{name}" for name in ("plain", "safe", "self")},
        resources={"limits": {"memory": "96Mi"}},
        container={"env": variables, "envFrom": every},
    )


def _reader(name: str, images: Images, node: Object) -> dict[str, Any]:
    """A pod on a node that has the value of each source in a file that follows it, and that of one also in others."""
    label = [{"path": "value", "fieldRef": {"fieldPath": "metadata.labels['value']"}}]
    volumes = [
        {"name": "plain", "configMap": {"name": "plain"}},
        {"name": "safe", "secret": {"secretName": "safe"}},
        {"name": "self", "downwardAPI": {"items": label}},
    ]
    mounts = [{"name": name, "mountPath": f"/{name}"} for name in MOUNTED]
    part = {"name": "plain", "mountPath": "/part", "subPath": "value"}
    variable = _from("VALUE", "configMapKeyRef", name="plain", key="value")
    return manifests.pod(
        name,
        images.agnhost,
        args=["pause"],
        labels={"value": "old"},
        node=node.name,
        volumes=volumes,
        container={"volumeMounts": [*mounts, part], "env": [variable]},
    )


def _mounted(pod: Object) -> dict[str, str]:
    """The value that a reader finds in each of its volumes."""
    lines = said(pod, f"for name in {' '.join(MOUNTED)}; do cat /$name/value; echo; done").splitlines()
    return dict(zip(MOUNTED, lines, strict=True))


def _are_new(found: dict[str, dict[str, str]]) -> str | None:
    stale = {where: [name for name, value in values.items() if value != "new"] for where, values in found.items()}
    told = (
        f"{where} still holds what was there before in {', '.join(names)}" for where, names in stale.items() if names
    )
    return "; ".join(told) or None


def _environment(pod: Object) -> dict[str, str]:
    return dict(line.split("=", 1) for line in said(pod, "env").splitlines() if "=" in line)


def _from(variable: str, source: str, **where: Any) -> dict[str, Any]:
    return {"name": variable, "valueFrom": {source: where}}


def _same(found: dict[str, Any], expected: dict[str, Any], what: str) -> None:
    wrong = {key: f"{found[key]!r}, not {value!r}" for key, value in expected.items() if found[key] != value}
    assert not wrong, f"{what} differ: " + "; ".join(f"{key} is {told}" for key, told in wrong.items())
