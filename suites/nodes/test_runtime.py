"""Container runtime: it answers the kubelet, finds its network, and puts containers where the kubelet expects them."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator

from clusterproof import Machine, Machines, Unseen, cri

_CNI = """
for file in "$1"/*.conf "$1"/*.conflist "$1"/*.json; do
    [ ! -f "$file" ] || echo "$file $(base64 < "$file" | tr -d '\\n')"
done
"""
_FOLDERS = """
for program; do
    found=; for folder in $FOLDERS; do [ ! -x "$folder/$program" ] || found=yes; done
    [ -n "$found" ] || echo "$program"
done
"""
_PLACES = "grep -hs kubepods /proc/[0-9]*/cgroup | cut -d: -f3- | sort -u"
BY_SYSTEMD = re.compile(r".*?kubepods[^/:]*\.slice(/[^/:]+\.slice)*(/[^/:]+\.scope|$)")
BY_CGROUPFS = re.compile(r".*?/kubepods(/(burstable|besteffort))?/pod[^/:.]+(/[^/:]+|$)")
"""Where each driver puts a container; what it has below that is its own business.

Under version 1 a runtime's own processes may be where the pod is.
"""


def test_cri(machines: Machines) -> None:
    """Every node's container runtime MUST answer at the endpoint that the kubelet uses, and say that it is ready.

    Source: https://kubernetes.io/docs/concepts/containers/cri/
    """

    def is_not_ready(each: Machine) -> Iterator[str]:
        try:
            runtime = cri.status(each)
        except cri.Silent as error:
            yield str(error)
            return
        for name in ("RuntimeReady", "NetworkReady"):
            if missing := runtime.conditions.get(name, "the runtime does not report it"):
                yield f"has a runtime at {runtime.endpoint} that is not {name}: {missing}"

    machines.nodes.prove(is_not_ready)


def test_cni(machines: Machines) -> None:
    """Every node MUST have a CNI configuration for its pods, and the plugins that it names.

    Source: https://kubernetes.io/docs/concepts/extend-kubernetes/compute-storage-net/network-plugins/
    """

    def lacks_network(each: Machine) -> Iterator[str]:
        runtime = cri.status(each)
        settings, folder = runtime.config.get("cni") or {}, runtime.network_folder
        found = [line.split(" ") for line in each.run(_CNI, folder).splitlines()]
        if not found:
            yield f"has no CNI configuration (*.conflist, *.conf or *.json) in {folder}"
        for path, encoded in sorted(found)[:1]:  # runtimes take the first
            plugins = _plugins(encoded)
            if not plugins:
                yield f"has a CNI configuration {path} that names no plugin"
            folders = settings.get("binDirs") or [settings.get("binDir") or "/opt/cni/bin"]
            for missing in each.run(f"FOLDERS='{' '.join(folders)}'\n{_FOLDERS}", *plugins).split():
                yield f"lacks the CNI plugin {missing}, which {path} names, in {', '.join(folders)}"

    machines.nodes.prove(lacks_network)


def test_cgroups(machines: Machines) -> None:
    """Every node's runtime MUST put containers into control groups by the driver that the kubelet uses.

    Source: https://kubernetes.io/docs/setup/production-environment/container-runtimes/#cgroup-drivers
    """

    def disagrees(each: Machine) -> Iterator[str]:
        places = each.run(_PLACES).split()
        if not places:
            raise Unseen("runs no pod whose control group can be seen")
        strange = [place for place in places if not BY_SYSTEMD.match(place) and not BY_CGROUPFS.match(place)]
        if strange:
            yield f"has a container in {strange[0]}, where neither the driver systemd nor cgroupfs puts it"
        systemd, cgroupfs = ([place for place in places if by.match(place)] for by in (BY_SYSTEMD, BY_CGROUPFS))
        if systemd and cgroupfs:
            yield f"has containers of both drivers: systemd's in {systemd[0]}, cgroupfs's in {cgroupfs[0]}"

    machines.nodes.prove(disagrees)


def _plugins(encoded: str) -> list[str]:
    """Types of the plugins that a base64-encoded CNI configuration names."""
    try:
        config = json.loads(base64.b64decode(encoded))
    except ValueError:
        return []
    return [each["type"] for each in config.get("plugins", [config]) if "type" in each]
