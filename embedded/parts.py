"""What other rooms get from this one: programs, images around them, and the cache. See `clusterproof.parts`."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from clusterproof.parts import Packing

from . import cache, images, rootfs
from .builder import Artifacts, ensure
from .cache import Progress
from .components import DEFAULT_KUBERNETES
from .images import Image
from .rootfs import File
from .state import EmbeddedError

COMPONENTS = (
    "kubernetes",
    "kubeadm",
    "kind",
    "containerd",
    "cni-plugins",
    "etcd",
    "coredns",
    "local-path-provisioner",
    "agnhost",
    "envoy",
)
"""Everything that is inside or around the nodes of a kind cluster."""


class Parts:
    """The embedded room's builder, as others see it."""

    def version(self, kubernetes_version: str) -> str:
        """The Kubernetes version that is meant: the one given, or the default for an empty one."""
        return kubernetes_version.removeprefix("v") or DEFAULT_KUBERNETES

    def programs(self, kubernetes_version: str, progress: Progress) -> Mapping[str, Path]:
        """Every program that a node of that Kubernetes version is made of, by name."""
        return self._artifacts(kubernetes_version, progress).programs

    def source(self, component: str, kubernetes_version: str, progress: Progress) -> Path:
        """Folder laid out as the component's module, with those files of it that are read at run time."""
        return self._artifacts(kubernetes_version, progress).source(component)

    def archive(
        self, into: Path, references: Sequence[str], kubernetes_version: str, progress: Progress, script: bytes = b""
    ) -> None:
        """Write an archive with an image under each reference; EmbeddedError for one that is not known here."""
        known = _templates(script)
        wanted = [dataclasses.replace(_template(known, reference), reference=reference) for reference in references]
        images.docker_archive(into, wanted, self._artifacts(kubernetes_version, progress), progress)

    def pack(self, into: Path, image: Packing, progress: Progress) -> None:
        """Write an archive with one image of layers that are there."""
        packed = Image(
            image.reference,
            lambda _: [layer if layer.is_file() else tuple(rootfs.tree(layer)) for layer in image.layers],
            (),
            command=image.command,
            user=image.user,
            folder=image.folder,
            environment=image.environment,
        )
        images.docker_archive(into, [packed], Artifacts({}, {}, {}), progress)

    def recipe(self) -> str:
        """Changes with how `archive` makes images, whatever they are made of."""
        sources = [Path(module.__file__ or "") for module in (images, rootfs)] + [Path(__file__)]
        return cache.key([hashlib.sha256(source.read_bytes()).hexdigest() for source in sources])

    def obtain(
        self, kind: str, name: str, ingredients: object, make: Callable[[Path], None], progress: Progress
    ) -> Path:
        """Folder that `make` fills, kept in the cache under everything that decides what is in it."""
        return cache.obtain(kind, name, cache.key(ingredients), make, progress)

    def _artifacts(self, kubernetes_version: str, progress: Progress) -> Artifacts:
        return ensure(COMPONENTS, self.version(kubernetes_version), progress)


def _templates(script: bytes) -> dict[str, Image]:
    """Images by the last part of their repository."""
    own = {image.reference.rpartition(":")[0].rpartition("/")[2]: image for image in images.IMAGES.values()}
    plain = {
        name: Image("", images.alone(name, f"usr/local/bin/{name}"), ())
        for name in ("kube-apiserver", "kube-controller-manager", "kube-scheduler")
    }
    return {
        **own,
        **plain,
        "kube-proxy": Image(
            "",
            lambda made: [
                images.tools(),
                tuple(rootfs.iptables()),
                (File("usr/local/bin/kube-proxy", made.binary("kube-proxy"), 0o755),),
            ],
            (),
        ),
        "kindnetd": Image(
            "",
            lambda made: [
                images.tools(),
                tuple(rootfs.iptables()),
                (File("usr/local/bin/kubectl", made.binary("kubectl"), 0o755), File("kindnetd", script, 0o755)),
            ],
            (),
            entrypoint=("/kindnetd",),
        ),
        "local-path-helper": Image("", lambda _: [images.tools()], (), command=("sh",)),
        # kind's load balancer starts it through a shell.
        "envoy": Image("", lambda made: [images.tools(), *own["envoy"].layers(made)], ()),
    }


def _template(known: Mapping[str, Image], reference: str) -> Image:
    name = reference.rpartition(":")[0].rpartition("/")[2]
    if name not in known:
        raise EmbeddedError(f"image {reference} cannot be made here; known are: {', '.join(sorted(known))}")
    return known[name]
