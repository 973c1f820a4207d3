"""One node of an embedded cluster: containerd, kubelet and kube-proxy, with the folders that a real node has.

Inside the node's mount namespace /var/lib, /var/log, /opt, /tmp and /run are the node's, so a hostPath volume, a log
collector or a local volume meets what it would meet on a machine of its own.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from clusterproof.credentials import KUBELETS

from . import cgroups, imagestore
from .builder import Artifacts
from .network import forwards
from .pki import Authority, write_kubeconfig
from .process import BIN, Component, start, start_anchor
from .state import ClusterState, Node, namespace_name

CNI_BIN = "/opt/cni/bin"
CNI_CONFIG = "/var/lib/cni/net.d"
REGISTRIES = "/var/lib/registries"
"""Where a node may be told, by a `<registry>/hosts.toml`, to pull from other places."""
SOCKET = "/run/containerd/containerd.sock"
CNI_PLUGINS = ("loopback", "ptp", "host-local", "portmap")
PROGRAMS = ("containerd", "containerd-shim-runc-v2", "ctr", "kubelet", "kube-proxy")
DISKS = "/var/lib/disks"
"""Where a node finds the volumes that it shares with others, in a cluster that has such ones."""

# The kubelet sets these kernel parameters and gives up when it may not. They are the host's, so it is shown files
# that hold the values it wants.
_KERNEL = {
    "vm/overcommit_memory": 1,
    "vm/panic_on_oom": 0,
    "kernel/panic": 10,
    "kernel/panic_on_oops": 1,
    "kernel/keys/root_maxkeys": 1000000,
    "kernel/keys/root_maxbytes": 25000000,
}

_PREPARE = """
disk=$(stat -c %m .)  # where the disk is mounted on which the node's folder is
mount --bind tmp /tmp
mount --bind log /var/log
mount --bind opt /opt
resolv=$(readlink -m /etc/resolv.conf)
mount -t tmpfs -o mode=755,size=64m tmpfs /run
case $resolv in
    /run/*) mkdir -p "$(dirname "$resolv")" && cp resolv.conf "$resolv" ;;
    *) mount --bind resolv.conf "$resolv" ;;
esac
for file in sysctl/*/* sysctl/*/*/*; do
    if [ -f "$file" ] && [ -e "/proc/sys/${file#sysctl/}" ]; then mount --bind "$file" "/proc/sys/${file#sysctl/}"; fi
done
if [ -d ../../disks ]; then mount --bind ../../disks lib/disks; fi
mount --rbind lib /var/lib
mkdir -p "$disk"  # by now another folder of the same disk: the kubelet looks there how full it is
"""


class NodeProcesses:
    """Starts one node's processes; `components` are those that run."""

    def __init__(self, state: ClusterState, node: Node, artifacts: Artifacts, name_servers: str | None = None) -> None:
        self.state = state
        self.node = node
        self.components: list[Component] = []
        self._artifacts = artifacts
        self._folder = state.node_folder(node)
        self._name_servers = resolv_conf() if name_servers is None else name_servers

    def prepare(self, images: Path) -> None:
        """Folders, identities, control group, anchor and container runtime; `images` is a store with all unpacked."""
        if self.state.disks:
            self.state.disks.mkdir(mode=0o700, exist_ok=True)
        self._lay_out_folders(images)
        self._write_identities()
        cgroups.create(cgroups.path_of(self.state.name, self.node.name))
        namespace = namespace_name(self.state.name, self.node.name)
        self.state.anchors[self.node.name] = start_anchor(self.node.name, namespace, self._folder, _PREPARE)
        self._start("containerd", "--config=/var/lib/containerd.toml")

    def start_kubelet(self) -> None:
        """Start the kubelet, and with it the driver of volumes where there is one; the API server answers by now."""
        (containerd,) = self.components
        containerd.await_said("containerd successfully booted")  # without it the kubelet gives up at once
        self._start(
            "kubelet",
            "--config=/var/lib/kubelet/config.json",
            "--kubeconfig=/var/lib/kubelet/kubeconfig",
            f"--hostname-override={self.node.name}",
            f"--node-ip={self.node.address}",
            "--housekeeping-interval=3s",  # as often as the metrics server asks for use
            *(["--cloud-provider=external"] if self.state.cloud else []),
        )
        if self.state.disks:
            self._start_disks()

    def start_kube_proxy(self) -> None:
        """Start kube-proxy; the API server has the roles that it needs by now."""
        self._start("kube-proxy", "--config=/var/lib/kube-proxy/config.json", f"--hostname-override={self.node.name}")

    def _start_disks(self) -> None:
        """The node's part of the driver, which the kubelet then finds."""
        kubelet = Path("/var/lib/kubelet")
        self._start(
            "disks",
            f"--disks={DISKS}",
            f"--node={self.node.name}",
            f"--socket={kubelet / 'plugins/disks.sock'}",
            f"--registry={kubelet / 'plugins_registry'}",
        )

    def _start(self, program: str, *flags: str) -> None:
        command = [f"{BIN}/{program}", *flags]
        self.components.append(start(self.state, f"{self.node.name}/{program}", command, on=self.node.name))

    def _lay_out_folders(self, images: Path) -> None:
        folder = self._folder
        for part in (
            "lib/disks",
            "lib/kubelet/pki",
            "lib/kubelet/plugins",
            "lib/kubelet/plugins_registry",
            "lib/kube-proxy",
            "lib/cni/net.d",
            "log",
            "opt/cni/bin",
            "opt/clusterproof/bin",
            "tmp",
        ):
            (folder / part).mkdir(parents=True)
        (folder / "tmp").chmod(0o1777)
        for program in (*PROGRAMS, *(["disks"] if self.state.disks else [])):
            link(self._artifacts.binary(program), folder / "opt/clusterproof/bin" / program)
        for plugin in CNI_PLUGINS:
            link(self._artifacts.binary(plugin), folder / "opt/cni/bin" / plugin)
        imagestore.clone(images, into=folder / "lib/containerd")
        for key, value in _KERNEL.items():
            path = folder / "sysctl" / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{value}\n")
        (folder / "resolv.conf").write_text(self._name_servers)
        (folder / "lib/containerd.toml").write_text(_containerd_config())
        _write_json(folder / "lib/cni/net.d/10-clusterproof.conflist", _cni_config(self.node))
        _write_json(folder / "lib/kubelet/config.json", self._kubelet_config())
        _write_json(folder / "lib/kube-proxy/config.json", self._kube_proxy_config())

    def _write_identities(self) -> None:
        """Certificates and kubeconfigs of kubelet and kube-proxy."""
        authority = Authority(self.state.pki, "ca")
        kubelet, proxy = self._folder / "lib/kubelet", self._folder / "lib/kube-proxy"
        shutil.copy(authority.pair.certificate, kubelet / "pki/ca.crt")
        user = f"system:node:{self.node.name}"
        authority.issue("server", user=user, server=[self.node.name, self.node.address], folder=kubelet / "pki")
        for folder, name, groups in ((kubelet, user, [KUBELETS]), (proxy, "system:kube-proxy", [])):
            write_kubeconfig(
                folder / "kubeconfig",
                cluster=f"clusterproof-{self.state.name}",
                server=self.state.server,
                authority=authority.pair.certificate,
                user=name,
                identity=authority.issue("client", user=name, groups=groups, folder=folder / "pki"),
            )

    def _kubelet_config(self) -> dict[str, object]:
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": "/var/lib/kubelet/pki/ca.crt"},
            },
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": "/var/lib/kubelet/pki/server.crt",
            "tlsPrivateKeyFile": "/var/lib/kubelet/pki/server.key",
            "containerRuntimeEndpoint": f"unix://{SOCKET}",
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": cgroups.path_of(self.state.name, self.node.name),
            "failCgroupV1": False,
            "failSwapOn": False,
            "oomScoreAdj": 0,  # lowering it needs CAP_SYS_RESOURCE, which sandboxed machines lack
            "clusterDNS": [str(self.state.dns_address)],
            "clusterDomain": "cluster.local",
            "resolvConf": "/etc/resolv.conf",
            "staticPodPath": "/var/lib/kubelet/manifests",
            # The disk is the host's and usually well filled: neither evict pods nor collect the preloaded
            # images for that.
            "imageGCHighThresholdPercent": 100,
            "evictionHard": {
                "memory.available": "50Mi",
                "nodefs.available": "0%",
                "imagefs.available": "0%",
                "nodefs.inodesFree": "0%",
            },
            "imageMaximumGCAge": "0s",
            # It mounts no volume before it has told that it needs it, which it does every 10 s if left alone.
            **({"nodeStatusUpdateFrequency": "1s", "nodeStatusReportFrequency": "5m"} if self.state.disks else {}),
            "volumeStatsAggPeriod": "5s",  # how long a volume may be over its limit: a minute, if left alone
            "logging": {"flushFrequency": "1s"},
        }

    def _kube_proxy_config(self) -> dict[str, object]:
        return {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "clientConnection": {"kubeconfig": "/var/lib/kube-proxy/kubeconfig"},
            "mode": "iptables",
            "clusterCIDR": str(self.state.pod_network),
            # Connection tracking has host-wide sizes, which a network namespace may not change.
            "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        }


def _cni_config(node: Node) -> dict[str, object]:
    address = {
        "type": "host-local",
        "ranges": [[{"subnet": node.pods}]],
        "routes": [{"dst": "0.0.0.0/0"}],
        "dataDir": "/run/cni",
    }
    return {
        "cniVersion": "1.0.0",
        "name": "clusterproof",
        "plugins": [
            {"type": "ptp", "ipMasq": False, "ipam": address},
            # Without a word about the backend, it looks for iptables each time, also when there are no ports to map.
            {"type": "portmap", "capabilities": {"portMappings": True}, "snat": True, "backend": "iptables"},
        ],
    }


def _containerd_config() -> str:
    runtime = "plugins.'io.containerd.cri.v1.runtime'"
    return f"""version = 3
root = '/var/lib/containerd'
state = '/run/containerd'

[grpc]
address = '{SOCKET}'

[plugins.'io.containerd.cri.v1.images'.registry]
config_path = '{REGISTRIES}'

[{runtime}]
restrict_oom_score_adj = true  # lowering it needs CAP_SYS_RESOURCE, which sandboxed machines lack

[{runtime}.containerd]
default_runtime_name = 'runc'

[{runtime}.containerd.runtimes.runc]
runtime_type = 'io.containerd.runc.v2'

[{runtime}.containerd.runtimes.runc.options]
SystemdCgroup = false

[{runtime}.cni]
bin_dirs = ['{CNI_BIN}']
conf_dir = '{CNI_CONFIG}'
"""


def like(state: ClusterState, model: Node) -> tuple[Artifacts, str]:
    """What a further node is made of: the programs and the name servers that another has."""
    folder = state.node_folder(model)
    places = (folder / "opt/clusterproof/bin", folder / "opt/cni/bin")
    programs = {path.name: path for place in places for path in place.iterdir()}
    return Artifacts(programs, {}, {}), (folder / "resolv.conf").read_text()


def resolv_conf() -> str:
    """What nodes have in the file of that name."""
    return "".join(f"nameserver {address}\n" for address in name_servers())


def name_servers() -> list[str]:
    """The host's name servers that nodes can reach: not those on its loopback, and none if it does not forward."""
    if not forwards():
        return []
    resolved = Path("/run/systemd/resolve/resolv.conf")
    source = resolved if resolved.exists() else Path("/etc/resolv.conf")
    lines = [line.split() for line in source.read_text().splitlines()] if source.exists() else []
    found = [words[1] for words in lines if len(words) > 1 and words[0] == "nameserver"]
    return [address for address in found if not address.startswith(("127.", "::1"))]


def link(source: Path, target: Path) -> None:
    """The same file at another place; a copy where the two are on different file systems."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1))
