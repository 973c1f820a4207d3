"""A registry in a pod, with images as small as they can be, for promises about how images are pulled."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import secrets
import struct
import tarfile
from collections.abc import Iterable, Mapping
from typing import Any

from clusterproof import manifests
from clusterproof.images import Images
from clusterproof.namespace import Namespace
from clusterproof.objects import Object
from clusterproof.running import proving

_OCI = "application/vnd.oci.image"
_HOST = "localhost"
_FOLDER = "/var/registry"
_USER, _PASSWORD = "user", "password"  # those that agnhost's registry asks for

_SLEEPS = {
    # push 34 (pause); pop rax; syscall; jmp to the first of them
    "amd64": (62, bytes.fromhex("6a22 58 0f05 ebf9")),
    # mov x0 to x3, 0; mov x8, 73 (ppoll); svc 0; b to the first of them
    "arm64": (
        183,
        struct.pack("<7I", 0xD2800000, 0xD2800001, 0xD2800002, 0xD2800003, 0xD2800928, 0xD4000001, 0x17FFFFFA),
    ),
}
"""By architecture: the number by which ELF knows it, and code that does nothing for ever."""
_LOADED_AT = 0x400000

_FIRST_PORT = 12000
_PROCESSES = 32
"""At most as many processes of a run have ports of their own."""


class Registry:
    """A registry that one node has to itself, as `localhost`: runtimes usually need no certificate of it there.

    Its images have two files: one that tells which edition they are, and a program of some hundred bytes that sleeps.
    To copy agnhost into each would have nodes write 60 MB for every pod.
    """

    def __init__(
        self, namespace: Namespace, node: Object, images: Images, editions: Mapping[str, str], *, private: bool = False
    ) -> None:
        """Have it started in a namespace that allows `privileged` pods; `editions` are those of its tags.

        One that is `private` gives images only to those who have the credentials of `secret`. Unsupported where nobody
        has written the program for the node's architecture.
        """
        self._images = images
        self._node = node
        self._namespace = namespace
        self._port = _port()
        self._name = f"clusterproof-{secrets.token_hex(4)}"  # nobody is to have it from an earlier run
        self._digests: dict[str, str] = {}
        files: dict[str, bytes] = {}
        for edition in set(editions.values()):
            # A node tells of the same image by any of the names that it has pulled it by.
            manifest, *blobs = _image(f"{edition} of {self._name}", node.status["nodeInfo"]["architecture"])
            self._digests[edition] = _digest(manifest)
            files |= {f"{self._name}/manifests/{_place(manifest)}": manifest}
            files |= {f"{self._name}/blobs/{_place(blob)}": blob for blob in blobs}
        files |= {self._tag(tag): self._digests[edition].encode() for tag, edition in editions.items()}
        data = {_key(path): base64.b64encode(content).decode() for path, content in files.items()}
        namespace.create(manifests.config_map("registry") | {"binaryData": data})
        self.pod = namespace.create(self._server(files, private=private))
        """Its pod, which is ready when images can be pulled."""

    def tagged(self, tag: str) -> str:
        """How pods of its node name the image that has a tag."""
        return f"{_HOST}:{self._port}/{self._name}:{tag}"

    def exactly(self, edition: str) -> str:
        """How they name an edition by its digest."""
        return f"{_HOST}:{self._port}/{self._name}@{self._digests[edition]}"

    def retag(self, tag: str, edition: str) -> None:
        """Let a tag mean another of its editions from now on."""
        done = self.pod.exec(["sh", "-c", f"printf {self._digests[edition]} > {_FOLDER}/{self._tag(tag)}"])
        assert done.code == 0, f"{self.pod}: a tag cannot be changed: {done.stderr}"

    def secret(self, name: str) -> dict[str, Any]:
        """A Secret with the credentials of a private one."""
        word = base64.b64encode(f"{_USER}:{_PASSWORD}".encode()).decode()
        told = json.dumps({"auths": {f"{_HOST}:{self._port}": {"auth": word}}})
        return manifests.secret(name, {".dockerconfigjson": told}, type="kubernetes.io/dockerconfigjson")

    def pod_of(self, name: str, image: str, *, policy: str = "IfNotPresent", **more: Any) -> Object:
        """Create a pod of one of its images, on its node; `more` is for `manifests.pod`."""
        asked = {"imagePullPolicy": policy}
        return self._namespace.create(manifests.pod(name, image, node=self._node.name, container=asked, **more))

    def _tag(self, tag: str) -> str:
        return f"{self._name}/manifests/{tag}"

    def _server(self, paths: Iterable[str], *, private: bool) -> dict[str, Any]:
        server = f"/agnhost fake-registry-server --port={self._port}{' --private' if private else ''}"
        items = [{"key": _key(path), "path": path} for path in paths]
        return manifests.pod(
            "registry",
            self._images.agnhost,
            command=["sh", "-c", f"cp -rL /lent/. {_FOLDER} && exec {server}"],  # a ConfigMap's volume is made of links
            node=self._node.name,
            ports=[self._port],
            readiness={"tcpSocket": {"port": self._port}, "periodSeconds": 1},
            volumes=[
                {"name": "lent", "configMap": {"name": "registry", "items": items}},
                {"name": "served", "emptyDir": {}},
            ],
            mounts={"lent": "/lent", "served": _FOLDER},
            spec={"hostNetwork": True},
        )


def _port() -> int:
    """One that no other process of the run chooses, and others hardly ever."""
    number = int("".join(filter(str.isdigit, proving.worker)) or 0) % _PROCESSES
    return _FIRST_PORT + number + _PROCESSES * secrets.randbelow(250)


def _key(path: str) -> str:
    """Under which a ConfigMap has a file: keys have no slashes."""
    return path.replace("/", ".")


def _image(edition: str, architecture: str) -> tuple[bytes, bytes, bytes]:
    """The manifest of an image, its configuration, and its only layer."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as archive:
        for name, content in (("edition", edition.encode()), ("sleep", _program(architecture))):
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o755
            archive.addfile(member, io.BytesIO(content))
    packed = gzip.compress(layer.getvalue(), mtime=0)
    rootfs = {"type": "layers", "diff_ids": [_digest(layer.getvalue())]}
    run = {"Entrypoint": ["/sleep"]}
    config = json.dumps({"architecture": architecture, "os": "linux", "config": run, "rootfs": rootfs}).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{_OCI}.manifest.v1+json",
        "config": _described(config, "config.v1+json"),
        "layers": [_described(packed, "layer.v1.tar+gzip")],
    }
    return json.dumps(manifest).encode(), config, packed


def _program(architecture: str) -> bytes:
    """An ELF file of one segment, which is all of it."""
    if architecture not in _SLEEPS:
        raise proving.Unsupported(f"there is no program for images of {architecture}, only of {', '.join(_SLEEPS)}")
    machine, code = _SLEEPS[architecture]
    identity = b"\x7fELF" + bytes((2, 1, 1))  # of 64 bits, little-endian, version 1
    header = struct.pack("<16s2HI3QI6H", identity, 2, machine, 1, _LOADED_AT + 120, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    segment = struct.pack("<2I6Q", 1, 5, 0, _LOADED_AT, _LOADED_AT, 120 + len(code), 120 + len(code), 0x10000)
    return header + segment + code


def _described(blob: bytes, kind: str) -> dict[str, Any]:
    return {"mediaType": f"{_OCI}.{kind}", "size": len(blob), "digest": _digest(blob)}


def _digest(blob: bytes) -> str:
    return f"sha256:{hashlib.sha256(blob).hexdigest()}"


def _place(blob: bytes) -> str:
    """Where agnhost's registry looks for it: `sha256/ab/abc.../data`."""
    algorithm, _, word = _digest(blob).partition(":")
    return f"{algorithm}/{word[:2]}/{word}/data"
