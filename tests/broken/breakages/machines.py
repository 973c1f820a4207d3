"""Machines: what is wrong on a node itself, with its files, its kernel, its runtime and its clock."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator
from datetime import timedelta

from clusterproof.embedded.pki import Authority

from ..registry import Damage, breakage
from ..subject import Subject

SOUND = "nodes/versions"
"""What has nothing to do with any of them."""
SHADOW = "/tmp/broken"
"""A file on the node that is shown in place of another."""


@contextlib.contextmanager
def shown(subject: Subject, node: str, path: str, content: str, *, mode: str = "644") -> Iterator[None]:
    """While a node sees other content in a file that is the machine's own."""
    make = f"printf %s {shlex.quote(content)} > {SHADOW} && chmod {mode} {SHADOW} && mount --bind {SHADOW} {path}"
    with subject.commanded(node, f"sh -c {shlex.quote(make)}", f"umount {path}"):
        yield


@breakage(
    breaks={"nodes/files/private": r"node-2 has private key /var/lib/kubelet/pki/server\.key .* mode 644"},
    keeps=["nodes/files/writable", SOUND],
)
def private_key_world_readable(subject: Subject) -> Damage:
    """Everybody on one node may read the kubelet's private key."""
    key = "/var/lib/kubelet/pki/server.key"
    with subject.commanded(subject.nodes[1], f"chmod 644 {key}", f"chmod 600 {key}"):
        yield []


@breakage(
    breaks={"nodes/files/writable": r"node-2 has /var/lib/kubelet/config\.json .* mode 666"},
    keeps=["nodes/files/private", SOUND],
)
def kubelet_config_writable(subject: Subject) -> Damage:
    """Everybody on one node may change the kubelet's configuration."""
    file = "/var/lib/kubelet/config.json"
    with subject.commanded(subject.nodes[1], f"chmod 666 {file}", f"chmod 644 {file}"):
        yield []


@breakage(
    breaks={"nodes/files/writable": r"node-2 has folder /var/lib/kubelet/pki \(kubelet's\) with mode 777"},
    keeps=["nodes/files/private", SOUND],
)
def kubelet_folder_writable(subject: Subject) -> Damage:
    """Everybody on one node may put another certificate in the place of the kubelet's."""
    folder = "/var/lib/kubelet/pki"
    mode = subject.run_on(subject.nodes[1], f"stat -c %a {folder}").strip()
    with subject.commanded(subject.nodes[1], f"chmod 777 {folder}", f"chmod {mode} {folder}"):
        yield []


@breakage(
    breaks={"nodes/files/writable": r"node-2 has /var/lib/cni/net\.d/\S+ \(kubelet's\) with mode 666"},
    keeps=["nodes/files/private", SOUND],
)
def network_config_writable(subject: Subject) -> Damage:
    """Everybody on one node may change the configuration of its pods' network."""
    file = "/var/lib/cni/net.d/10-clusterproof.conflist"
    with subject.commanded(subject.nodes[1], f"chmod 666 {file}", f"chmod 644 {file}"):
        yield []


@breakage(
    breaks={"nodes/kubelet/access": r"node-2 has authentication\.anonymous\.enabled=true in /var/lib/kubelet/config"},
    keeps=["nodes/kubelet/running", SOUND],
)
def kubelet_anonymous(subject: Subject) -> Damage:
    """The kubelet of one node is configured to let in whoever shows no credentials."""
    authentication = {
        "anonymous": {"enabled": True},
        "webhook": {"enabled": True},
        "x509": {"clientCAFile": "/var/lib/kubelet/pki/ca.crt"},
    }
    with subject.kubelet_config(subject.nodes[1], authentication=authentication):
        yield []


@breakage(
    breaks={"nodes/kernel/ip_forward": r"node-2 has 0 in /proc/sys/net/ipv4/ip_forward"},
    keeps=["nodes/kernel/parameters", SOUND],
)
def ip_forward_off(subject: Subject) -> Damage:
    """One node does not pass on its pods' packets."""
    file = "/proc/sys/net/ipv4/ip_forward"
    with subject.commanded(subject.nodes[1], f"sh -c 'echo 0 > {file}'", f"sh -c 'echo 1 > {file}'"):
        yield []


@breakage(
    breaks={"nodes/kernel/parameters": r"node-2 has vm\.overcommit_memory=2, which MUST be 1"},
    keeps=["nodes/kernel/ip_forward", SOUND],
)
def kernel_refuses_memory(subject: Subject) -> Damage:
    """The kernel of one node refuses memory that it may not have (shown to the observer)."""
    with shown(subject, subject.nodes[1], "/proc/sys/vm/overcommit_memory", "2"):
        yield []


@breakage(
    breaks={
        "nodes/runtime/cri": r"node-2 has no container runtime that answers at unix:///run/containerd/containerd\.sock",
        "nodes/kubelet/running": r"node-2 runs no container runtime",
    },
    keeps=["nodes/kernel/ip_forward"],
)
def runtime_stopped(subject: Subject) -> Damage:
    """The container runtime of one node has ended."""
    with subject.stopped(f"{subject.nodes[1]}/containerd"):
        yield []
    subject.await_ready(subject.nodes[1])


@breakage(
    breaks={"nodes/runtime/cni": r"node-2 has no CNI configuration .* in /var/lib/cni/net\.d"},
    keeps=["nodes/kubelet/running", SOUND],
)
def cni_config_missing(subject: Subject) -> Damage:
    """One node has lost its CNI configuration."""
    file, aside = "/var/lib/cni/net.d/10-clusterproof.conflist", "/var/lib/cni/broken"
    # Written, not moved there: containerd reads its configuration again only when a file is written or goes.
    with subject.commanded(subject.nodes[1], f"mv {file} {aside}", f"sh -c 'cp {aside} {file} && rm {aside}'"):
        yield []
    subject.await_ready(subject.nodes[1])


@breakage(
    breaks={"nodes/runtime/cni": r"node-2 lacks the CNI plugin portmap, which .*10-clusterproof\.conflist names"},
    keeps=["nodes/runtime/cri", SOUND],
)
def cni_plugin_missing(subject: Subject) -> Damage:
    """One node has lost a program that its CNI configuration names."""
    file = "/opt/cni/bin/portmap"
    with subject.commanded(subject.nodes[1], f"mv {file} {file}.broken", f"mv {file}.broken {file}"):
        yield []


@breakage(
    breaks={"nodes/files/certificates": r"node-2 has certificate /var/lib/kubelet/pki/short\.crt .* that ends"},
    keeps=["nodes/files/private", SOUND],
)
def kubelet_certificate_about_to_expire(subject: Subject) -> Damage:
    """The serving certificate of one kubelet ends in 5 days."""
    node = subject.state.node(subject.nodes[1])
    folder = subject.state.node_folder(node) / "lib/kubelet/pki"
    Authority(subject.state.pki, "ca").issue(
        "short",
        user=f"system:node:{node.name}",
        server=[node.name, node.address],
        folder=folder,
        lifetime=timedelta(days=5),
    )
    files = {"tlsCertFile": "/var/lib/kubelet/pki/short.crt", "tlsPrivateKeyFile": "/var/lib/kubelet/pki/short.key"}
    try:
        with subject.kubelet_config(node.name, **files):
            yield []
    finally:
        for suffix in ("crt", "key"):
            (folder / f"short.{suffix}").unlink()


@breakage(breaks={"nodes/clock": r"node-2 has a clock that is \+(29|30|31)\.\d s away"}, keeps=[SOUND])
def machine_clock_ahead(subject: Subject) -> Damage:
    """The clock of one machine is 30 s ahead, as it tells who asks there."""
    ahead = "#!/bin/sh\nexec /tmp/date --date='30 seconds' \"$@\"\n"
    with (
        subject.commanded(subject.nodes[1], "cp /usr/bin/date /tmp/date", "rm /tmp/date"),
        shown(subject, subject.nodes[1], "/usr/bin/date", ahead, mode="755"),
    ):
        yield []


@breakage(
    breaks={"nodes/kubelet/swap": r"node-2 swaps to /dev/broken .* /var/lib/kubelet/config\.json has failSwapOn=true"},
    keeps=["nodes/kubelet/access", SOUND],
)
def swap_where_none_may_be(subject: Subject) -> Damage:
    """One node got swap after its kubelet had made sure that there is none (shown to the observer)."""
    swaps = "Filename\tType\tSize\tUsed\tPriority\n/dev/broken\tpartition\t1024\t0\t-2\n"
    with (
        subject.kubelet_config(subject.nodes[1], failSwapOn=True),
        shown(subject, subject.nodes[1], "/proc/swaps", swaps),
    ):
        yield []


@breakage(
    breaks={"nodes/kernel/log": r"node-2 has 2 such lines .* blocked for more than 120 seconds"},
    keeps=["nodes/kernel/parameters", SOUND],
)
def kernel_in_trouble(subject: Subject) -> Damage:
    """The kernel of one node says that memory ran out and that a task hangs (shown to the observer)."""
    lines = (
        "[99999999.000001] Out of memory: Killed process 4711 (java) total-vm:1kB",
        "[99999999.000002] INFO: task jbd2:17 blocked for more than 120 seconds.",
    )
    told = "\n".join(lines)
    with shown(subject, subject.nodes[1], "/usr/bin/dmesg", f"#!/bin/sh\necho '{told}'\n", mode="755"):
        yield []


@breakage(
    breaks={"nodes/room": r"node-2 has 0 of \d+ left at /var/lib/kubelet; its kubelet evicts pods at nodefs"},
    keeps=["nodes/clock", SOUND],
)
def disk_full(subject: Subject) -> Damage:
    """The disk of one node is full (shown to the observer)."""
    full = "#!/bin/sh\necho 'Filesystem 1024-blocks Used Available'\necho '/dev/broken 1000 1000 0'\n"
    with shown(subject, subject.nodes[1], "/usr/bin/df", full, mode="755"):
        yield []


@breakage(
    breaks={"nodes/ports/etcd": r"control-plane has an etcd that tells https?://\S+:2379/version to whoever asks"},
    keeps=["nodes/ports/api_server", "health/livez"],
)
def etcd_open(subject: Subject) -> Damage:
    """etcd answers whoever asks, at an address that pods reach."""
    address = f"https://{subject.state.api_address}:2379"
    open_ = (
        ("--listen-client-urls=", f"--listen-client-urls=https://127.0.0.1:2379,{address}"),
        ("--client-cert-auth", ""),
        ("--trusted-ca-file=", ""),
    )
    with subject.restarted("etcd", *open_):
        yield []


@breakage(
    breaks={"nodes/versions": r"node-2 runs operating system 'Broken 1', but its kubelet reports"},
    keeps=["nodes/kubelet/running"],
)
def system_changed_under_the_kubelet(subject: Subject) -> Damage:
    """The operating system of one node was exchanged, and its kubelet has not noticed."""
    with shown(subject, subject.nodes[1], "/etc/os-release", 'PRETTY_NAME="Broken 1"\n'):
        yield []


@breakage(
    breaks={
        "apps/daemonset/log_agent": r"have found the line of the writer on their node, one on each node: not within"
    },
    keeps=["apps/daemonset/every_node"],
)
def logs_elsewhere(subject: Subject) -> Damage:
    """The kubelet of one node keeps the logs of its containers in a folder of its own choice."""
    with subject.kubelet_config(subject.nodes[1], podLogsDir="/var/log/elsewhere"):
        yield []


@breakage(
    breaks={"nodes/runtime/cgroups": r"node-2 has containers of both drivers: systemd's in \S+broken\.scope"},
    keeps=["nodes/runtime/cri", SOUND],
)
def containers_of_another_driver(subject: Subject) -> Damage:
    """The runtime of one node has put a container where another driver of control groups would."""
    inside = "broken/kubepods.slice/kubepods-podbroken.slice/cri-containerd-broken.scope"
    enter = f"cd /sys/fs/cgroup; [ ! -d pids ] || cd pids; place={inside}"
    do = f"{enter}; mkdir -p $place; sleep 600 > /dev/null 2>&1 & echo $! > $place/cgroup.procs"
    undo = f"{enter}; kill $(cat $place/cgroup.procs); until rmdir -p $place 2> /dev/null; do sleep 0.1; done"
    with subject.commanded(subject.nodes[1], f"sh -c {shlex.quote(do)}", f"sh -c {shlex.quote(undo)}"):
        yield []
