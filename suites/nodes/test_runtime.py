"""Container runtime: it answers the kubelet, finds its network, and puts containers where the kubelet expects them."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from typing import Any

from clusterproof import Machine, Machines, Unseen, cri

CNI_CONFIG = "/etc/cni/net.d"
"""Where runtimes look that are told no other place."""
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
_PLACES = "grep -hs kubepods /proc/[0-9]*/cgroup | cut -d: -f3 | sort -u"


def test_cri(machines: Machines) -> None:
    """Every node's container runtime MUST answer at the endpoint that the kubelet uses, and say that it is ready.

    Source: https://kubernetes.io/docs/concepts/containers/cri/
    """

    def is_not_ready(each: Machine) -> Iterator[str]:
        try:
            runtime = cri.status(each)
        except cri.Silent as error:
            yield f"has no container runtime that answers at {error}"
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
        settings = _config(each).get("cni") or {}
        folder = settings.get("confDir") or CNI_CONFIG
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
        by_systemd = {place for place in places if re.search(r"kubepods[^/:]*\.slice", place)}
        if by_systemd and len(by_systemd) < len(places):
            yield f"has pods of both drivers: {sorted(by_systemd)[0]} and {sorted(set(places) - by_systemd)[0]}"
        for place in places:
            if ":" in place or (place in by_systemd) != (".scope" in place):
                yield f"has a container in {place}, where neither driver alone would put it"
                break

    machines.nodes.prove(disagrees)


def _config(machine: Machine) -> dict[str, Any]:
    """What the runtime tells of its configuration; nothing when it does not answer, which is another promise's."""
    try:
        return cri.status(machine).config
    except cri.Silent as error:
        raise Unseen(f"has a runtime that does not answer: {error}") from error


def _plugins(encoded: str) -> list[str]:
    """Types of the plugins that a base64-encoded CNI configuration names."""
    try:
        config = json.loads(base64.b64decode(encoded))
    except ValueError:
        return []
    return [each["type"] for each in config.get("plugins", [config]) if "type" in each]
