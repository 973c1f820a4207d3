"""Makes the node image, and the archive with kind's load balancer: everything is kept in the cache as one entry.

In three steps, each of which goes without what the next one needs: programs are built or fetched (parts), Debian's root
file system is made (mmdebstrap, needs a way to a Debian mirror), and kind builds the image (docker, no network at all).
"""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import subprocess
import tarfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from clusterproof import debian, images, parts
from clusterproof.parts import Progress

from .. import docker

HERE = Path(__file__).parent

SUITE = "bookworm"
"""Debian's release in the image: the newest whose systemd still runs under cgroup v1."""

PACKAGES = (
    *("systemd", "systemd-sysv", "dbus"),
    *("conntrack", "iptables", "nftables", "iproute2", "ethtool", "util-linux", "mount", "kmod"),
    *("libseccomp2", "pigz", "e2fsprogs", "bash", "ca-certificates", "curl", "jq", "procps", "socat", "runc"),
)
"""What kind's own base image installs, less network storage, and runc, which that one builds."""

LOAD_BALANCER = "docker.io/envoyproxy/envoy:v1.36.2"
"""What kind 0.33 runs in front of several control planes; ours is the version of the embedded cluster's Envoy."""

OF_KIND = (
    "docker.io/kindest/kindnetd:v20260820-69b56db7",
    "docker.io/kindest/local-path-provisioner:v20260820-69b56db7",
    "docker.io/kindest/local-path-helper:v20260131-7181c60a",
)
"""What kind 0.33 puts into every cluster; `kind build node-image` would pull what is not named exactly so."""

_BINARIES = {
    "usr/local/bin": ("containerd", "containerd-shim-runc-v2", "ctr"),
    "opt/cni/bin": ("host-local", "loopback", "ptp", "portmap"),
}
_ARCHIVES = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy")
"""Files that kind looks for in Kubernetes' server tarball; together they hold all images."""


@dataclass(frozen=True, slots=True)
class NodeImage:
    """A node image on disk."""

    name: str
    """What `docker load` makes of it: `clusterproof/node:v1.37.2`."""
    archives: tuple[Path, ...]
    """The node's and the load balancer's, for `docker load`."""


def name_of(kubernetes_version: str) -> str:
    """What the node image of a Kubernetes version is called."""
    return f"clusterproof/node:v{parts.load().version(kubernetes_version)}"


def ensure(kubernetes_version: str, progress: Progress) -> NodeImage:
    """The node image of that Kubernetes version, made now if it is not in the cache.

    Raises SurroundingsError with what is in the way.
    """
    made = parts.load()
    version = made.version(kubernetes_version)
    programs = made.programs(version, progress)
    files = made.source("kind", version, progress) / "images/base/files"
    rootfs = debian.rootfs("kind", SUITE, PACKAGES, progress)

    def make(draft: Path) -> None:
        started = time.monotonic()
        context = draft / "context"
        _base(context / "base", rootfs, files, programs)
        _server(context, version, files, progress)
        made.archive(draft / "load-balancer.tar", [LOAD_BALANCER], version, progress)
        progress(f"kind: building {name_of(version)}")
        tag = hashlib.sha256(str(draft).encode()).hexdigest()[:12]
        command = ["bash", str(HERE / "build.sh"), str(context), f"clusterproof/base:{tag}", name_of(version)]
        docker.check_run(command, draft / "build.log", progress, [programs["kind"].parent])
        (context / "node.tar").rename(draft / "node.tar")
        shutil.rmtree(context)
        progress(f"kind: {name_of(version)} built in {time.monotonic() - started:.0f} s")

    ingredients = {
        "rootfs": str(rootfs),
        "files": str(files),
        "programs": {name: str(path) for name, path in programs.items()},
        "recipe": {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(HERE.iterdir())
            if path.is_file()
        },
        "images": [made.recipe(), *images.resolve().all],
    }
    entry = made.obtain("kind", f"node-v{version}", ingredients, make, progress)
    return NodeImage(name_of(version), (entry / "node.tar", entry / "load-balancer.tar"))


def _base(folder: Path, rootfs: Path, files: Path, programs: Mapping[str, Path]) -> None:
    """The folder that the Dockerfile is built in."""
    overlay = folder / "overlay"
    shutil.copytree(files, overlay, copy_function=shutil.copyfile)
    for executable in ("usr/local/bin", "kind/bin"):
        for path in (overlay / executable).iterdir():
            path.chmod(0o755)
    for place, names in _BINARIES.items():
        (overlay / place).mkdir(parents=True, exist_ok=True)
        for name in names:
            shutil.copy(programs[name], overlay / place / name)
    shutil.copy(HERE / "crictl.sh", overlay / "usr/local/bin/crictl")
    (overlay / "usr/local/bin/crictl").chmod(0o755)
    # Hosts that lack CAP_SYS_RESOURCE cannot lower a process's OOM score; elsewhere it makes no difference here.
    _replace(overlay / "etc/containerd/config.toml", "restrict_oom_score_adj = false", "restrict_oom_score_adj = true")
    # Kubelets of today refuse cgroup v1 unless told; kind's own images leave such hosts behind.
    _replace(overlay / "etc/default/kubelet", "KUBELET_EXTRA_ARGS=", "KUBELET_EXTRA_ARGS=--fail-cgroupv1=false ")
    shutil.copy(HERE / "Dockerfile", folder)
    os.link(rootfs, folder / "rootfs.tar")


def _replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    if old not in text:
        raise ValueError(f"{path.name} of this version of kind has no {old!r}: look at the recipe again")
    path.write_text(text.replace(old, new))


def _server(context: Path, version: str, files: Path, progress: Progress) -> None:
    """Kubernetes' server tarball, with all images that a node needs inside those that kind expects there."""
    made = parts.load()
    programs = made.programs(version, progress)
    listing = [str(programs["kubeadm"]), "config", "images", "list", "--kubernetes-version", f"v{version}"]
    required = subprocess.run(listing, capture_output=True, text=True, check=True).stdout.split()
    pause = next(
        line.split('"')[1]
        for line in (files / "etc/containerd/config.toml").read_text().splitlines()
        if line.strip().startswith("sandbox_image")
    )
    named = [*(name for name in required if "/pause:" not in name), pause, *OF_KIND, *images.resolve().all]
    first = {name: [each for each in named if f"/{name}:" in each] for name in _ARCHIVES}
    others = [each for each in named if not any(each in mine for mine in first.values())]
    binaries = context / "kubernetes/server/bin"
    binaries.mkdir(parents=True)
    (context / "kubernetes/version").write_text(f"v{version}")
    for name in _ARCHIVES:
        more = others if name == "kube-proxy" else []  # which shares layers with most of them
        script = (HERE / "kindnetd.sh").read_bytes()
        made.archive(binaries / f"{name}.tar", [*first[name], *more], version, progress, script)
    for name in ("kubeadm", "kubelet", "kubectl"):
        shutil.copy(programs[name], binaries / name)
    # kind reads nothing but gzip; it is unpacked again at once, so nothing is gained by making it small.
    with (
        gzip.open(context / "server.tar.gz", "wb", compresslevel=0) as file,
        tarfile.open(fileobj=file, mode="w") as tar,
    ):
        tar.add(context / "kubernetes", "kubernetes")
    shutil.rmtree(context / "kubernetes")
