"""Container images made without a container engine: OCI archives around the cluster's own programs.

Images that share layers come in one archive, so that a node reads and unpacks each layer once. Layers are not
compressed: an archive never leaves the machine, and unpacking it is on the way to a ready node. The same programs give
the same bytes, whenever and wherever the archive is made.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tarfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

from . import rootfs
from .builder import Artifacts
from .cache import Progress, key, obtain
from .components import DEFAULT_KUBERNETES, Chosen, choose
from .imagestore import Importer
from .releases import platform
from .rootfs import Entry, File, Folder, Link
from .state import EmbeddedError

Layer = tuple[Entry, ...] | Path
"""What is in a layer, or the tar file that it is already."""
_Contents = Sequence[tuple["Image", list[Layer]]]

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_TAR = "application/vnd.oci.image.layer.v1.tar"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_FORMAT = 1
"""To be raised when the same ingredients are to give other bytes."""


@dataclass(frozen=True, slots=True)
class Image:
    """What an image consists of and how a container of it runs."""

    reference: str
    """Full name, as pods ask for it."""
    layers: Callable[[Artifacts], list[Layer]]
    components: tuple[str, ...]
    """Components whose programs or data are in it."""
    archive: str = ""
    """Name of the archive it comes in; empty: one of its own."""
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    user: str = ""
    ports: tuple[int, ...] = ()
    folder: str = "/"
    """Where a container starts."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """PATH among them where it is to be another than the usual one."""


def archive(name: str, artifacts: Artifacts, progress: Progress) -> Path:
    """The OCI archive that has an image (and those it shares layers with), for `ctr images import`.

    Raises EmbeddedError for an unknown name or where `artifacts` lacks what is in the images, BuildError where this
    machine lacks a program.
    """
    shelf = _shelf(name)
    contents = _contents(shelf, artifacts)

    def make(draft: Path) -> None:
        _write(draft / "images.tar", contents, progress)

    return obtain("images", shelf, key(_ingredients(contents)), make, progress) / "images.tar"


def store(names: Iterable[str], artifacts: Artifacts, progress: Progress) -> Path:
    """Containerd's root folder with these images unpacked in it, to be given to nodes by `clone`.

    Made once, by the containerd among the artifacts, which needs root's rights. Raises what `archive` raises.
    """
    shelves = {shelf: _contents(shelf, artifacts) for shelf in sorted({_shelf(name) for name in names})}
    containerd = str(artifacts.binary("containerd"))
    ingredients = {"containerd": containerd, "shelves": [_ingredients(contents) for contents in shelves.values()]}

    def make(draft: Path) -> None:
        with Importer(artifacts, draft / "root", progress) as importer:
            for contents in shelves.values():
                packed = draft / "images.tar"
                _write(packed, contents, progress)
                importer.load(packed)
                packed.unlink()

    return obtain("stores", "images", key(ingredients), make, progress) / "root"


def _shelf(name: str) -> str:
    """Name of the archive that has an image."""
    if name not in IMAGES:
        raise EmbeddedError(f"there is no image {name!r}; choose from: {', '.join(IMAGES)}")
    return IMAGES[name].archive or name


def _contents(shelf: str, artifacts: Artifacts) -> _Contents:
    return [(image, image.layers(artifacts)) for name, image in IMAGES.items() if _shelf(name) == shelf]


def _ingredients(contents: _Contents) -> dict[str, Any]:
    """Everything that decides the bytes of an archive."""
    return {
        "format": _FORMAT,
        "platform": platform(),
        "images": [
            [_settings(image), [[_identity(entry) for entry in _entries(layer)] for layer in layers]]
            for image, layers in contents
        ],
    }


def components(names: Iterable[str]) -> list[str]:
    """Components that must be in the artifacts to make the archives that have these images."""
    shelves = {_shelf(name) for name in names}
    inside = (image for name, image in IMAGES.items() if _shelf(name) in shelves)
    return list(dict.fromkeys(component for image in inside for component in image.components))


def _settings(image: Image) -> dict[str, Any]:
    """The `config` of an image: how a container of it runs."""
    settings: dict[str, Any] = {
        "Env": [f"{name}={value}" for name, value in {"PATH": _PATH, **image.environment}.items()],
        "WorkingDir": image.folder,
        # Tells two images of the same layers apart, so that each keeps its own digest and name.
        "Labels": {"org.opencontainers.image.ref.name": image.reference},
    }
    if image.entrypoint:
        settings["Entrypoint"] = list(image.entrypoint)
    if image.command:
        settings["Cmd"] = list(image.command)
    if image.user:
        settings["User"] = image.user
    if image.ports:
        settings["ExposedPorts"] = {f"{port}/tcp": {} for port in image.ports}
    return settings


def _identity(entry: Entry) -> list[Any]:
    """What decides the bytes of an entry. Programs are told by path, size and time: reading them all takes seconds."""
    if not isinstance(entry, File):
        return [type(entry).__name__, *(getattr(entry, name) for name in entry.__slots__)]
    if isinstance(entry.content, bytes):
        return ["File", entry.path, entry.mode, hashlib.sha256(entry.content).hexdigest()]
    status = entry.content.stat()
    return ["File", entry.path, entry.mode, str(entry.content), status.st_size, status.st_mtime_ns]


def _write(path: Path, contents: _Contents, progress: Progress) -> None:
    """Write an archive; its folder needs room for one more layer meanwhile."""
    progress(f"images: packing {', '.join(image.reference for image, _ in contents)}")
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
        _fill(tar, contents, path.with_name("layer.tar"))


def docker_archive(path: Path, wanted: Sequence[Image], artifacts: Artifacts, progress: Progress) -> None:
    """Write an archive of these images that `docker load` takes as well as `ctr images import`."""
    progress(f"images: packing {', '.join(image.reference for image in wanted)}")
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
        listed = _fill(tar, [(image, image.layers(artifacts)) for image in wanted], path.with_suffix(".layer"))
        names = [image.reference.rpartition(":") for image in wanted]
        tags: dict[str, dict[str, str]] = {repository: {} for repository, _, _ in names}
        for repository, _, tag in names:
            tags[repository][tag] = ""
        # In this order: readers that want all tags of an archive look at whichever of the two comes first.
        _add(tar, File("repositories", json.dumps(tags).encode()))
        _add(tar, File("manifest.json", json.dumps(listed).encode()))


def _fill(tar: tarfile.TarFile, contents: _Contents, scratch: Path) -> list[dict[str, Any]]:
    """Fill an OCI image layout; what Docker's own `manifest.json` has for these images."""
    system, architecture = platform().split("/")
    written: dict[str, int] = {}
    packed: dict[Layer, str] = {}
    manifests: list[dict[str, Any]] = []
    listed: list[dict[str, Any]] = []

    def blob(content: bytes) -> str:
        digest = hashlib.sha256(content).hexdigest()
        if digest not in written:
            written[digest] = len(content)
            _add(tar, File(f"blobs/sha256/{digest}", content))
        return digest

    def described(media: str, digest: str) -> dict[str, Any]:
        return {"mediaType": media, "digest": f"sha256:{digest}", "size": written[digest]}

    for image, layers in contents:
        for layer in layers:
            if layer not in packed:
                file = _pack(layer, scratch)
                packed[layer] = digest = _digest(file)
                if digest not in written:
                    written[digest] = file.stat().st_size
                    _add(tar, File(f"blobs/sha256/{digest}", file))
                file.unlink()
        digests = [packed[layer] for layer in layers]
        config = {
            "created": "1970-01-01T00:00:00Z",
            "architecture": architecture,
            "os": system,
            "config": _settings(image),
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}" for digest in digests]},
        }
        settings = blob(json.dumps(config).encode())
        listed.append(
            {
                "Config": f"blobs/sha256/{settings}",
                "RepoTags": [image.reference],
                "Layers": [f"blobs/sha256/{digest}" for digest in digests],
            }
        )
        manifest = {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "config": described(_CONFIG, settings),
            "layers": [described(_TAR, digest) for digest in digests],
        }
        manifests.append(
            {
                **described(_MANIFEST, blob(json.dumps(manifest).encode())),
                "platform": {"architecture": architecture, "os": system},
                "annotations": {
                    "io.containerd.image.name": image.reference,
                    "org.opencontainers.image.ref.name": image.reference.rpartition(":")[2],
                },
            }
        )
    _add(tar, File("oci-layout", b'{"imageLayoutVersion":"1.0.0"}'))
    _add(tar, File("index.json", json.dumps({"schemaVersion": 2, "manifests": manifests}).encode()))
    return listed


def _entries(layer: Layer) -> tuple[Entry, ...]:
    return (File("", layer),) if isinstance(layer, Path) else layer


def _pack(layer: Layer, into: Path) -> Path:
    if isinstance(layer, Path):
        shutil.copyfile(layer, into)
        return into
    with tarfile.open(into, "w", format=tarfile.GNU_FORMAT) as tar:
        for entry in layer:
            _add(tar, entry)
    return into


def _add(tar: tarfile.TarFile, entry: Entry) -> None:
    """Add an entry as root's, from 1970: neither the maker nor the moment may show."""
    member = tarfile.TarInfo(entry.path)
    match entry:
        case Folder():
            member.type, member.mode, member.uid, member.gid = tarfile.DIRTYPE, entry.mode, entry.owner, entry.owner
            tar.addfile(member)
        case Link():
            member.type, member.mode, member.linkname = tarfile.SYMTYPE, 0o777, entry.target
            tar.addfile(member)
        case File(content=bytes() as content):
            member.mode, member.size = entry.mode, len(content)
            tar.addfile(member, BytesIO(content))
        case File(content=Path() as source):
            member.mode, member.size = entry.mode, source.stat().st_size
            with source.open("rb") as file:
                tar.addfile(member, file)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@cache
def tools() -> Layer:
    """The root file system with a shell and tools; one for a whole run, since finding libraries takes a while."""
    return tuple(rootfs.entries())


def _agnhost(artifacts: Artifacts) -> list[Layer]:
    """As upstream's test/images/agnhost/Dockerfile, less the parts that only non-conformance specs use."""
    certificates = artifacts.source("agnhost") / "test/images/agnhost/porter"
    program = (
        Folder("uploads"),
        File("agnhost", artifacts.binary("agnhost"), 0o755),
        Link("agnhost-2", "agnhost"),
        File("localhost.crt", certificates / "localhost.crt"),
        File("localhost.key", certificates / "localhost.key", 0o600),
    )
    return [tools(), program]


def alone(program: str, path: str) -> Callable[[Artifacts], list[Layer]]:
    """An image with nothing but one static program, /tmp and the users of /etc/passwd."""
    return lambda artifacts: [(*rootfs.runtime(()), File(path, artifacts.binary(program), 0o755))]


def _resource_consumer(artifacts: Artifacts) -> list[Layer]:
    """As upstream's, less the program that uses up memory."""
    programs = (
        File("consumer", artifacts.binary("resource-consumer"), 0o755),
        Folder("consume-cpu"),
        File("consume-cpu/consume-cpu", artifacts.binary("consume-cpu"), 0o755),
    )
    return [(*rootfs.runtime(()), *programs)]


def _picture(animal: str) -> Callable[[Artifacts], list[Layer]]:
    """agnhost with a picture to serve: what upstream's update demo tells its two versions apart by."""

    def layers(artifacts: Artifacts) -> list[Layer]:
        folder = artifacts.source("e2e-images") / "test/images" / animal / "html"
        pictures = tuple(File(name, folder / name) for name in (f"{animal}.jpg", "data.json"))
        return [*_agnhost(artifacts), pictures]

    return layers


def _nonewprivs(artifacts: Artifacts) -> list[Layer]:
    return [tools(), (File("usr/local/bin/nnp", artifacts.binary("nonewprivs"), 0o6755),)]


def _envoy(artifacts: Artifacts) -> list[Layer]:
    program = artifacts.binary("envoy")
    return [(*rootfs.runtime((program,)), File("usr/local/bin/envoy", program, 0o755), Folder("etc/envoy"))]


def _network_policies(artifacts: Artifacts) -> list[Layer]:
    return [
        (*rootfs.runtime(()), *rootfs.iptables(), File("network-policies", artifacts.binary("network-policies"), 0o755))
    ]


def _version(component: str) -> str:
    (chosen,) = choose([component], DEFAULT_KUBERNETES)
    return chosen.version if isinstance(chosen, Chosen) else f"v{chosen.version}"


_E2E = "registry.k8s.io/e2e-test-images"

_SHELL = b"""#!/usr/bin/bash
# Specs expect the words of busybox's shell, and variables whose names are no identifiers, which Debian's drops.
while IFS= read -r -d '' variable; do
    [[ ${variable%%=*} =~ ^[A-Za-z_][A-Za-z0-9_]*$ ]] || exec -a "$0" bash "$@"
done < /proc/self/environ
exec -a "$0" busybox "$@"
"""
"""`sh` of the busybox image."""
_DNS, _METRICS, _CONTOUR, _PATHS = map(_version, ("coredns", "metrics-server", "contour", "local-path-provisioner"))
_CERTIFICATES = _version("cert-manager")


def _vpa(program: str) -> Image:
    """One of the three programs of the VerticalPodAutoscaler."""
    version = _version("vpa").removeprefix("v")
    reference = f"registry.k8s.io/autoscaling/vpa-{program}:{version}"
    return Image(reference, alone(program, program), ("vpa",), archive="vpa", entrypoint=(f"/{program}",))


IMAGES: dict[str, Image] = {
    # The references are those of upstream's test/utils/image/manifest.go at the default version of Kubernetes.
    "agnhost": Image(
        f"{_E2E}/agnhost:2.66.1",
        _agnhost,
        ("agnhost",),
        archive="base",
        entrypoint=("/agnhost",),
        command=("pause",),
        ports=(80, 5000, 8080, 8081, 9376),
    ),
    "agnhost-old": Image(
        f"{_E2E}/agnhost:2.55",
        _agnhost,
        ("agnhost",),
        archive="base",
        entrypoint=("/agnhost",),
        command=("pause",),
        ports=(80, 5000, 8080, 8081, 9376),
    ),
    # The one that containerd and kubelet expect; agnhost's `pause` does the same as upstream's program.
    "pause": Image(
        "registry.k8s.io/pause:3.10.2",
        _agnhost,
        ("agnhost",),
        archive="base",
        entrypoint=("/agnhost", "pause"),
        user="65535:65535",
    ),
    "busybox": Image(
        f"{_E2E}/busybox:1.37.0-2",
        lambda _: [tools(), (File("usr/bin/sh", _SHELL, 0o755),)],
        (),
        archive="base",
        command=("sh",),
    ),
    "coredns": Image(
        f"registry.k8s.io/coredns/coredns:{_DNS}",
        alone("coredns", "coredns"),
        ("coredns",),
        entrypoint=("/coredns",),
        ports=(53,),
    ),
    "metrics-server": Image(
        f"registry.k8s.io/metrics-server/metrics-server:{_METRICS}",
        alone("metrics-server", "metrics-server"),
        ("metrics-server",),
        entrypoint=("/metrics-server",),
        user="65534",
    ),
    "custom-metrics": Image(
        f"clusterproof.dev/embedded/custom-metrics:{_version('custom-metrics')}",
        alone("custom-metrics", "custom-metrics"),
        ("custom-metrics",),
        entrypoint=("/custom-metrics",),
        user="65534",
    ),
    "contour": Image(
        f"ghcr.io/projectcontour/contour:{_CONTOUR}",
        alone("contour", "usr/bin/contour"),
        ("contour",),
        user="65534",
    ),
    "envoy": Image(
        f"docker.io/envoyproxy/envoy:distroless-{_version('envoy')}",
        _envoy,
        ("envoy",),
        entrypoint=("/usr/local/bin/envoy",),
        user="65534",
    ),
    "local-path-provisioner": Image(
        f"docker.io/rancher/local-path-provisioner:{_PATHS}",
        alone("local-path-provisioner", "usr/bin/local-path-provisioner"),
        ("local-path-provisioner",),
        command=("local-path-provisioner",),
    ),
    "cert-manager": Image(
        f"quay.io/jetstack/cert-manager-controller:{_CERTIFICATES}",
        alone("cert-manager-controller", "cert-manager-controller"),
        ("cert-manager",),
        entrypoint=("/cert-manager-controller",),
        user="65534",
    ),
    "vpa-recommender": _vpa("recommender"),
    "vpa-updater": _vpa("updater"),
    "vpa-admission-controller": _vpa("admission-controller"),
    "network-policies": Image(
        f"clusterproof.dev/embedded/network-policies:{_version('network-policies')}",
        _network_policies,
        ("network-policies",),
        entrypoint=("/network-policies",),
    ),
    "resource-consumer": Image(
        f"{_E2E}/resource-consumer:1.14",
        _resource_consumer,
        ("e2e-images",),
        entrypoint=("/consumer",),
        ports=(8080,),
    ),
    # What follows is for upstream's specs only.
    "nautilus": Image(
        f"{_E2E}/nautilus:1.8",
        _picture("nautilus"),
        ("agnhost", "e2e-images"),
        archive="upstream",
        entrypoint=("/agnhost",),
        command=("test-webserver",),
    ),
    "kitten": Image(
        f"{_E2E}/kitten:1.8",
        _picture("kitten"),
        ("agnhost", "e2e-images"),
        archive="upstream",
        entrypoint=("/agnhost",),
        command=("test-webserver",),
    ),
    "nonewprivs": Image(
        f"{_E2E}/nonewprivs:1.4",
        _nonewprivs,
        ("e2e-images",),
        archive="upstream",
        command=("nnp",),
    ),
    "nonroot": Image(
        f"{_E2E}/nonroot:1.5",
        lambda _: [tools()],
        (),
        archive="upstream",
        command=("bash",),
        user="1234",
    ),
    "glibc-dns-testing": Image(
        f"{_E2E}/glibc-dns-testing:2.1.1",
        lambda _: [tools()],
        (),
        archive="upstream",
        command=("bash",),
    ),
    # Not nginx: busybox's web server, in specs that only want some container that keeps running.
    "nginx": Image(
        f"{_E2E}/nginx:1.27.0-2",
        lambda _: [tools()],
        (),
        archive="upstream",
        command=("busybox", "httpd", "-f", "-p", "80", "-h", "/var"),
        ports=(80,),
    ),
    "nginx-new": Image(
        f"{_E2E}/nginx:1.28.0-2",
        lambda _: [tools()],
        (),
        archive="upstream",
        command=("busybox", "httpd", "-f", "-p", "80", "-h", "/var"),
        ports=(80,),
    ),
    "etcd": Image(
        "registry.k8s.io/etcd:3.7.0-0",
        alone("etcd", "usr/local/bin/etcd"),
        ("etcd",),
        archive="upstream",
    ),
    "sample-apiserver": Image(
        f"{_E2E}/sample-apiserver:1.29.2",
        alone("sample-apiserver", "sample-apiserver"),
        ("e2e-images",),
        archive="upstream",
        entrypoint=("/sample-apiserver",),
    ),
}
"""Every image of the embedded cluster, by the name used in this package."""

UPSTREAM: tuple[str, ...] = tuple(name for name, image in IMAGES.items() if image.archive == "upstream")
"""Images that only upstream's own specs need."""

REFERENCES: dict[str, str] = {name: image.reference for name, image in IMAGES.items()}
"""Full reference of each image."""
