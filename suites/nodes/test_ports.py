"""Ports: kubelet, API server and etcd are bound where they are reached, and nowhere else."""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import urlsplit

import pytest

from clusterproof import Cluster, Machine, Machines, Unseen, case, kinds
from clusterproof.inside import in_url

Address = IPv4Address | IPv6Address
LISTENING = "0A"
"""The kernel's word for it."""
ETCD_URLS = ("listen-client-urls", "listen-peer-urls")
ETCD_PORTS = (2379, 2380)
_SOCKETS = "cat /proc/net/tcp; cat /proc/net/tcp6 2>/dev/null; true"
_OWN = "ip -o address show scope global | awk '{print $4}'"
_ASK = """
for url; do
    told=$(curl -sk --noproxy '*' --max-time 5 "$url" | head -c 200 | tr -d '\\n') || true
    [ -z "$told" ] || echo "$url $told"
done
"""


def test_kubelet(machines: Machines, cluster: Cluster) -> None:
    """Every kubelet MUST listen where the API server looks for it, and serve its health where it is configured to.

    Source: https://kubernetes.io/docs/reference/networking/ports-and-protocols/
    """
    status = {node.name: node.status for node in cluster.list(kinds.NODE)}

    def is_bound_wrongly(each: Machine) -> Iterator[str]:
        bound = _bound(each)
        port = status[each.name]["daemonEndpoints"]["kubeletEndpoint"]["Port"]
        inner = [ip_address(one["address"]) for one in status[each.name]["addresses"] if one["type"] == "InternalIP"]
        if not inner:
            raise Unseen("has no InternalIP")
        if not any(_takes(at, address) for at in bound.get(port, ()) for address in inner):
            yield f"has nothing that listens at its address {', '.join(map(str, inner))} on port {port}, the kubelet's"
        health, wanted = each.kubelet("healthzPort"), ip_address(each.kubelet("healthzBindAddress") or "127.0.0.1")
        if wrong := [at for at in bound.get(health, ()) if wanted.is_loopback and not at.is_loopback]:
            yield f"serves its kubelet's health on port {health} at {wrong[0]}, and is to do so at {wanted}"

    machines.nodes.prove(is_bound_wrongly)


def test_api_server(machines: Machines) -> None:
    """Every API server MUST listen on its secure port at an address that others reach, and on no insecure one.

    Source: https://kubernetes.io/docs/concepts/security/controlling-access/#api-server-ports-and-ips
    """

    def is_bound_wrongly(each: Machine) -> Iterator[str]:
        server, bound = each.program("kube-apiserver"), _bound(each)
        port = int(server.flag("secure-port", "6443"))
        if all(at.is_loopback for at in bound.get(port, ())):
            yield f"has no API server that others reach on port {port}; it is bound to {bound.get(port, 'nothing')}"
        if server.flag("insecure-port", "0") != "0":
            yield f"runs its API server with --insecure-port={server.flag('insecure-port')}"
        if server.flag("anonymous-auth") != "false" and server.flag("authorization-mode") == "AlwaysAllow":
            yield "runs its API server with --authorization-mode=AlwaysAllow and lets in whoever shows no credentials"

    machines.running("kube-apiserver").prove(is_bound_wrongly)


@pytest.mark.parametrize(
    ("program", "usual"),
    [case("scheduler", "kube-scheduler", 10259), case("controllers", "kube-controller-manager", 10257)],
)
def test_health(machines: Machines, program: str, usual: int) -> None:
    """Every scheduler and controller manager MUST say on its own port that it is well.

    Source: https://kubernetes.io/docs/reference/networking/ports-and-protocols/
    """

    def is_silent(each: Machine) -> Iterator[str]:
        found = each.program(program)
        port = int(found.flag("secure-port", str(usual)))
        at = ip_address(found.flag("bind-address") or "0.0.0.0")
        url = f"https://{'localhost' if at.is_unspecified else in_url(str(at))}:{port}/healthz"
        _needs_curl(each)
        told = each.run(_ASK, url).strip().removeprefix(url).strip()
        if told != "ok":
            yield f"has a {program} that says {told or 'nothing'} at {url}, and is to say ok"

    machines.running(program).prove(is_silent)


def test_etcd(machines: Machines) -> None:
    """No etcd MUST answer anybody without a client certificate, pods least of all.

    Asked at every address that it listens at and that is not its machine's alone.

    Source: https://kubernetes.io/docs/tasks/administer-cluster/configure-upgrade-etcd/#securing-etcd-clusters
    Also CIS Kubernetes Benchmark 2.2 and 2.5.
    """

    def is_open(each: Machine) -> Iterator[str]:
        etcd, bound = each.program("etcd"), _bound(each)
        written = [url for flag in ETCD_URLS for url in etcd.flag(flag).split(",") if url]
        ports = {urlsplit(url).port or 0 for url in written} or set(ETCD_PORTS)
        outside = [(at, port) for port in sorted(ports) for at in bound.get(port, ()) if not at.is_loopback]
        if not any(bound.get(port) for port in ports):
            raise Unseen(f"runs an etcd (process {etcd.pid}) that listens on none of {sorted(ports)}")
        hosts = {(host, port) for at, port in outside for host in ([str(at)] if not at.is_unspecified else _own(each))}
        urls = [f"{scheme}://{in_url(host)}:{port}/version" for host, port in sorted(hosts) for scheme in _SCHEMES]
        if urls:
            _needs_curl(each)
        for line in each.run(_ASK, *urls).splitlines():
            url, _, told = line.partition(" ")
            yield f"has an etcd that tells {url} to whoever asks: {told}"

    machines.running("etcd").prove(is_open)


_SCHEMES = ("http", "https")


def _bound(machine: Machine) -> dict[int, list[Address]]:
    """Where something listens on a machine, by port."""
    found: dict[int, list[Address]] = {}
    for line in machine.run(_SOCKETS).splitlines():
        if sockets := re.match(r"\s*\d+: ([0-9A-F]+):([0-9A-F]{4}) \S+ (\S\S) ", line):
            raw, port, state = sockets.groups()
            if state == LISTENING:
                found.setdefault(int(port, 16), []).append(_address(raw))
    return found


def _address(raw: str) -> Address:
    """An address as the kernel prints it: in words of four bytes, each the last byte first."""
    packed = b"".join(bytes.fromhex(raw[i : i + 8])[::-1] for i in range(0, len(raw), 8))
    address = ip_address(packed)
    return getattr(address, "ipv4_mapped", None) or address


def _takes(at: Address, address: Address) -> bool:
    """Whether what listens at one address is reached at another; `::` takes both families."""
    return at == address or (at.is_unspecified and at.version >= address.version)


def _own(machine: Machine) -> list[str]:
    """A machine's addresses that others reach."""
    return [network.partition("/")[0] for network in machine.run(_OWN).split()]


def _needs_curl(machine: Machine) -> None:
    if not machine.run("command -v curl || true").strip():
        raise Unseen("has no curl to ask etcd with")
