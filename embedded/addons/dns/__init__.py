"""Cluster DNS: CoreDNS, from the manifest that comes with Kubernetes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from clusterproof import kinds

from ... import images
from ...builder import Artifacts
from ...node import name_servers
from ...state import ClusterState
from .. import Addon, Manifest
from ..manifests import container, of_kind, probe_often, read

CLUSTERSET = "clusterset.local"
"""Zone of the names that are the same in all clusters of a ClusterSet."""


def _manifests(cluster: ClusterState, artifacts: Artifacts) -> Iterable[Manifest]:
    found = read(artifacts.source("kubernetes") / "cluster/addons/dns/coredns/coredns.yaml.base")
    deployment = of_kind(found, "Deployment")
    dns = container(deployment, "coredns")
    dns["image"] = images.REFERENCES["coredns"]
    dns["resources"] = {"limits": {"memory": "170Mi"}, "requests": {"cpu": "50m", "memory": "70Mi"}}
    probe_often(dns)
    deployment["spec"]["replicas"] = 2
    of_kind(found, "Service")["spec"]["clusterIP"] = str(cluster.dns_address)
    corefile = of_kind(found, "ConfigMap")["data"]
    zones = ["cluster.local"]
    if "clusterset" in cluster.addons:
        zones.append(CLUSTERSET)
        imports = {"apiGroups": ["multicluster.x-k8s.io"], "resources": ["serviceimports"], "verbs": ["list", "watch"]}
        of_kind(found, "ClusterRole")["rules"].append(imports)
    corefile["Corefile"] = _corefile(corefile["Corefile"], zones)
    return found


def _corefile(text: str, zones: Sequence[str]) -> str:
    """As kubeadm writes it: names of the cluster are not cached, so a changed Service is seen at once."""
    text = text.replace("__DNS__DOMAIN__", " ".join(zones))
    if CLUSTERSET in zones:
        text = re.sub(r"(\n +)(pods insecure)", rf"\1\2\1multicluster {CLUSTERSET}", text)
    uncached = "".join(f"        disable {what} {' '.join(zones)}\n" for what in ("success", "denial"))
    text = text.replace("cache 30", f"cache 30 {{\n{uncached}    }}")
    if not name_servers():
        text = _isolated(text, zones)
    return text


def _isolated(text: str, zones: Sequence[str]) -> str:
    """With nowhere to forward to: what is not the cluster's does not exist. A zone apart: `template` goes first."""
    text = re.sub(r" +forward .*?\n    }\n", "", text, flags=re.DOTALL)
    text = text.replace(".:53 {", f"{' '.join(f'{zone}:53' for zone in (*zones, 'in-addr.arpa', 'ip6.arpa'))} {{")
    return f"{text}.:53 {{\n    errors\n    template ANY ANY {{\n        rcode NXDOMAIN\n    }}\n}}\n"


ADDON = Addon(
    name="dns",
    images=("coredns",),
    capabilities=(),
    manifests=_manifests,
    workloads=((kinds.DEPLOYMENT, "kube-system", "coredns"),),
)
