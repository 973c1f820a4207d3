"""Volumes of the pod's own: empty at its start, gone with it, and what is projected or lent by the node."""

from __future__ import annotations

from typing import Any

import pytest

from clusterproof import Cluster, Images, Namespace, Object, Timeouts, capabilities, eventually, kinds, manifests
from clusterproof.conditions import gone, phase, ready, succeeded, tell_of
from clusterproof.credentials import claims_of
from clusterproof.inside import said
from clusterproof.running.proving import Unsupported

MACHINE_ID = "/etc/machine-id"


def test_empty_dir(namespace: Namespace, nodes: list[Object], images: Images, timeouts: Timeouts) -> None:
    """An emptyDir MUST be empty at first, shared by the pod's containers, and outlive their restarts but not the pod.

    Source: https://kubernetes.io/docs/concepts/storage/volumes/#emptydir
    """
    script = "echo begins >> /shared/diary; while ! test -e /shared/end-$(wc -l < /shared/diary); do sleep 0.2; done"
    mounts = {"shared": "/shared"}
    visitor = manifests.container("visitor", images.agnhost, args=["pause"], mounts=mounts)
    manifest = manifests.pod(
        "scratch",
        images.agnhost,
        command=["sh", "-c", script],
        volumes=[{"name": "shared", "emptyDir": {}}],
        mounts=mounts,
        beside=[visitor],
        node=nodes[0].name,
    )
    pod = eventually(namespace.create(manifest), ready, within=timeouts.pod)
    eventually(lambda: _diary(pod), _is("begins\n"), within=timeouts.request)

    said(pod, "touch /shared/end-1", container="visitor")
    eventually(lambda: _diary(pod), _is("begins\nbegins\n"), within=timeouts.recovery)
    pod.delete()
    eventually(pod, gone, within=timeouts.pod_end)
    again = eventually(namespace.create(manifest), ready, within=timeouts.pod)

    assert again.uid != pod.uid
    eventually(lambda: _diary(again), _is("begins\n"), within=timeouts.request)


def test_memory(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """An emptyDir of medium Memory MUST be a file system in memory, no larger than its sizeLimit.

    Source: https://kubernetes.io/docs/concepts/storage/volumes/#emptydir-configuration-example
    """
    volume = {"name": "quick", "emptyDir": {"medium": "Memory", "sizeLimit": "4Mi"}}
    pod = namespace.create(
        manifests.pod("scratch", images.agnhost, args=["pause"], volumes=[volume], mounts={"quick": "/quick"})
    )
    eventually(pod, ready, within=timeouts.pod)

    kind, size = said(pod, "df -kT /quick | tail -1").split()[1:3]
    full = pod.exec(["sh", "-c", "dd if=/dev/zero of=/quick/large bs=1M count=8; stat -c %s /quick/large"])

    assert (kind, size) == ("tmpfs", "4096"), f"{pod}: its volume is {kind} of {size} KiB, not tmpfs of 4096"
    assert int(full.stdout) == 4 << 20, f"{pod}: {full.stdout.strip()} bytes went into its volume of 4 MiB"


def test_size_limit(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A pod that writes more to an emptyDir than its sizeLimit MUST be evicted, and say why.

    Source: https://kubernetes.io/docs/concepts/storage/volumes/#emptydir
    """
    volume = {"name": "small", "emptyDir": {"sizeLimit": "1Mi"}}
    script = "dd if=/dev/zero of=/small/large bs=1M count=5; exec /agnhost pause"
    pod = namespace.create(
        manifests.pod(
            "greedy", images.agnhost, command=["sh", "-c", script], volumes=[volume], mounts={"small": "/small"}
        )
    )

    eventually(pod, phase("Failed"), within=timeouts.pod + timeouts.eviction)

    assert pod.status.get("reason") == "Evicted", f"{pod} failed because of {pod.status.get('reason')}, not as Evicted"
    assert "EmptyDir volume" in pod.status.get("message", ""), f"{pod}: it says {pod.status.get('message')}"


@pytest.mark.requires(capabilities.IMAGE_VOLUMES)
def test_image(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A volume of an image MUST hold the files of that image, or of the part of it that is asked for, read-only.

    Source: https://kubernetes.io/docs/tasks/configure-pod-container/image-volumes/
    """
    volume = {"name": "lent", "image": {"reference": images.agnhost, "pullPolicy": "IfNotPresent"}}
    mounts = [{"name": "lent", "mountPath": "/lent"}, {"name": "lent", "mountPath": "/part", "subPath": "etc"}]
    more: dict[str, Any] = {"volumes": [volume], "container": {"volumeMounts": mounts}}
    pod = namespace.create(manifests.pod("reader", images.agnhost, args=["pause"], **more))
    eventually(pod, ready, within=timeouts.pod)

    for ours, lent in (("/agnhost", "/lent/agnhost"), ("/etc/passwd", "/part/passwd")):
        tried = pod.exec(["cmp", ours, lent])
        assert tried.code == 0, f"{pod}: {lent} is not as {ours} of the same image: {tried.stdout}{tried.stderr}"
    tried = pod.exec(["touch", "/lent/tmp/here"])
    assert "Read-only file system" in tried.stderr, f"{pod}: a file could be made in its image: {tried.stderr}"


def test_projected(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A projected volume MUST hold everything that it is made of, each where it should be; a subPath just its part.

    Source: https://kubernetes.io/docs/concepts/storage/projected-volumes/
    """
    namespace.create(manifests.config_map("plain", {"colour": "blue", "shape": "round"}))
    namespace.create(manifests.secret("safe", {"password": "s3cret"}))
    pod = namespace.create(_reader(images))
    eventually(pod, ready, within=timeouts.pod)

    found = said(pod, "cd /all; find -L . -type f ! -path './..*' | sort").split()
    assert found == ["./name", "./password", "./plain/colour", "./token"], f"{pod}: its volume holds {found}"
    told = said(pod, "cat /all/name /all/password /all/plain/colour")
    assert told == "readers3cretblue", f"{pod}: its projected files hold {told}"
    claims = claims_of(said(pod, "cat /all/token"))
    assert claims["aud"] == ["somebody"], f"{pod}: its projected token is for {claims['aud']}, not for somebody"
    told = said(pod, "cat /tmp/only; touch /part/here; ls /whole/of-reader")
    assert told == "roundhere\n", f"{pod}: its subPaths hold {told!r}"


@pytest.mark.pod_security("privileged")
def test_host_path(
    namespace: Namespace, cluster: Cluster, nodes: list[Object], images: Images, timeouts: Timeouts
) -> None:
    """A hostPath MUST show what is at that path of the node, and keep a pod waiting where something else is there.

    Shown is the file with the node's own id, read-only.

    Source: https://kubernetes.io/docs/concepts/storage/volumes/#hostpath
    """
    node = nodes[0].name
    wanted = cluster.get(kinds.NODE, node).status["nodeInfo"]["machineID"]
    if not wanted:
        raise Unsupported(f"{nodes[0]} has no {MACHINE_ID}")
    script = "cat /id/machine-id; { echo > /id/machine-id; } 2>/dev/null || echo read-only > /dev/termination-log"
    pods = {}
    for name, kind in (("reader", "File"), ("mistaken", "Socket")):
        volume = {"name": "id", "hostPath": {"path": MACHINE_ID, "type": kind}}
        mount = {"name": "id", "mountPath": "/id/machine-id", "readOnly": True}
        pods[name] = namespace.create(
            manifests.pod(
                name,
                images.agnhost,
                command=["sh", "-c", script],
                restart_policy="Never",
                privileged=True,
                node=node,
                volumes=[volume],
                container={"volumeMounts": [mount]},
            )
        )
    reader = eventually(pods["reader"], succeeded, within=timeouts.pod)

    found = reader.logs().strip()
    assert found == wanted, f"{reader} finds the id {found} in {MACHINE_ID} of {node}, which tells {wanted}"
    (state,) = reader.status["containerStatuses"]
    assert state["state"]["terminated"].get("message", "").strip() == "read-only", f"{reader} could write {MACHINE_ID}"
    notes = namespace.select(kinds.EVENT, fields=f"involvedObject.uid={pods['mistaken'].uid},reason=FailedMount")
    eventually(notes, tell_of("hostPath type check failed"), within=timeouts.volume)
    assert pods["mistaken"].read().status["phase"] == "Pending"


def _reader(images: Images) -> dict[str, Any]:
    """A pod with a projected volume of everything, and with parts of two others."""
    sources = [
        {"configMap": {"name": "plain", "items": [{"key": "colour", "path": "plain/colour"}]}},
        {"secret": {"name": "safe"}},
        {"downwardAPI": {"items": [{"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}]}},
        {"serviceAccountToken": {"path": "token", "audience": "somebody", "expirationSeconds": 600}},
    ]
    volumes = [
        {"name": "all", "projected": {"sources": sources}},
        {"name": "plain", "configMap": {"name": "plain"}},
        {"name": "scratch", "emptyDir": {}},
    ]
    mounts = [
        {"name": "all", "mountPath": "/all"},
        {"name": "plain", "mountPath": "/tmp/only", "subPath": "shape"},
        {"name": "scratch", "mountPath": "/whole"},
        {"name": "scratch", "mountPath": "/part", "subPathExpr": "of-$(NAME)"},
    ]
    name = {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
    container = {"volumeMounts": mounts, "env": [name]}
    return manifests.pod("reader", images.agnhost, args=["pause"], volumes=volumes, container=container)


def _diary(pod: Object) -> str:
    """What is in the diary; empty as long as there is none."""
    return said(pod, "cat /shared/diary || :", container="visitor")


def _is(wanted: str) -> Any:
    def is_(said: str) -> str | None:
        return None if said == wanted else f"it is {said!r}, not {wanted!r}"

    is_.__name__ = f"the diary on the volume is {wanted!r}"
    return is_
