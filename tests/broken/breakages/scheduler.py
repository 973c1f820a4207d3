"""The scheduler: each of its plugins off, and nodes that it takes for something else."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..registry import Damage, breakage
from ..subject import SCHEDULER, Subject, forgotten
from .pods import unlike

KUBECONFIG = "--kubeconfig="


@contextlib.contextmanager
def configured(subject: Subject, **profile: Any) -> Iterator[None]:
    """The scheduler with another profile; `off` names plugins that it has to do without."""
    (kubeconfig,) = (part for part in subject.state.programs[SCHEDULER].command if part.startswith(KUBECONFIG))
    off = [{"name": name} for name in profile.pop("off", [])]
    config = {
        "apiVersion": "kubescheduler.config.k8s.io/v1",
        "kind": "KubeSchedulerConfiguration",
        # The lease settings of the command line are not looked at beside a configuration.
        "leaderElection": {"leaseDuration": "60s", "renewDeadline": "45s"},
        "clientConnection": {"kubeconfig": kubeconfig.removeprefix(KUBECONFIG)},
        "profiles": [{"schedulerName": "default-scheduler", "plugins": {"multiPoint": {"disabled": off}}, **profile}],
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scheduler.json"
        path.write_text(json.dumps(config))
        with subject.flagged(SCHEDULER, "config", str(path)):
            yield


def plugin_off(
    *plugins: str, breaks: Mapping[str, str], keeps: Sequence[str] = ("scheduling/gates",), scale: float = 0.3
) -> None:
    """Register a breakage: the scheduler runs without a plugin, or some that do the same together."""

    @breakage(
        name=f"scheduler_without_{plugins[0].lower()}",
        meaning=f"The scheduler runs without {' and '.join(plugins)}.",
        breaks=breaks,
        keeps=keeps,
        scale=scale,
    )
    def off(subject: Subject) -> Damage:
        with configured(subject, off=plugins):
            yield []


plugin_off(
    "NodeResourcesFit",
    breaks={
        "scheduling/too_large": r"Pod \S+/large waits for a node because of 'Insufficient cpu': it got \S+-node",
        "scheduling/fit": r"Pod \S+/next waits for a node because of 'Insufficient cpu': it got clusterproof-hollow",
        "scheduling/priority": r"Pod \S+/equal waits for a node .* it got clusterproof-hollow",
    },
    keeps=["scheduling/gates", "scheduling/node_affinity", "scheduling/taints/no_schedule"],
)
plugin_off(
    "TaintToleration",
    breaks={"scheduling/taints/no_schedule": r"Pod \S+/other-\w+ waits for a node .* it got clusterproof-hollow"},
    keeps=["scheduling/gates", "scheduling/taints/no_execute", "scheduling/fit"],
)
plugin_off(
    "NodeUnschedulable",
    "TaintToleration",
    breaks={"scheduling/taints/cordon": r"Pod \S+/after waits for a node .* it got clusterproof-hollow"},
    keeps=["scheduling/gates", "scheduling/fit"],
)
plugin_off(
    "NodeAffinity",
    breaks={
        "scheduling/node_selector": r"Pod \S+ (gets \S+|waits for a node .*): it got",
        "scheduling/node_affinity": r"Pod \S+ (gets \S+|waits for a node .*): it got",
        "scheduling/node_preference": r"Pod \S+ gets \S+: it got",
    },
    keeps=["scheduling/gates", "scheduling/too_large"],
)
plugin_off(
    "InterPodAffinity",
    breaks={
        "scheduling/pod_affinity": r"Pod \S+/(guest-of-\w+ gets|lonely waits for a node) .*it got",
        "scheduling/pod_anti_affinity": r"they all have a node|pods that keep apart are on",
        "scheduling/pod_preference": r"Pod \S+/for-\S+ gets \S+: it got",
    },
    keeps=["scheduling/gates", "scheduling/node_affinity"],
)
plugin_off(
    "PodTopologySpread",
    breaks={"scheduling/topology_spread": r"with a maxSkew of 1 .* have \[\d+, \d+\] of its pods"},
    keeps=["scheduling/gates", "scheduling/pod_anti_affinity"],
)
plugin_off(
    "DefaultPreemption",
    breaks={"scheduling/priority[PreemptLowerPriority]": r"Pod \S+/low told to end: not within"},
    keeps=["scheduling/gates", "scheduling/priority[Never]"],
    scale=0.15,
)
plugin_off(
    "SchedulingGates",
    breaks={"scheduling/gates": r"Pod \S+/gated is gated: not within .* non-empty .spec.schedulingGates"},
    keeps=["scheduling/node_affinity", "scheduling/fit"],
)
plugin_off(
    "VolumeRestrictions",
    breaks={"storage/one_pod": r"Pod \S+/second waits for a node because of 'ReadWriteOncePod': it got"},
    keeps=["scheduling/gates", "storage/binding"],
)
plugin_off(
    "VolumeZone",
    breaks={"storage/region": r"Pod \S+/held waits for a node because of 'no available volume zone': it got \S+-node"},
    keeps=["scheduling/gates", "storage/binding"],
)
plugin_off(
    "NodeVolumeLimits",
    breaks={
        "storage/limit": r"second pod with a volume of \S+ gets no place .*: not within .* got clusterproof-hollow"
    },
    keeps=["scheduling/gates", "storage/one_pod"],
)
plugin_off(
    "DynamicResources",
    breaks={
        "scheduling/resource_claims/device": r"ResourceClaim \S+ is given the device one of Node clusterproof-hollow"
        r"\S+: not within .*it was given no device"
    },
    keeps=["scheduling/gates", "scheduling/resource_claims/template"],
)
plugin_off(
    "NodePorts",
    breaks={"pods/host/host_port": r"Pod"},
    keeps=["scheduling/gates", "pods/host/names"],
)


@breakage(
    breaks={"nodes/ports/health[scheduler]": r"control-plane has a kube-scheduler that says nothing at https"},
    keeps=["nodes/ports/health[controllers]", "health/control_plane"],
)
def scheduler_serves_nothing(subject: Subject) -> Damage:
    """The scheduler works, and has no port at which to say so."""
    with subject.flagged(SCHEDULER, "secure-port", "0"):
        yield []


@breakage(
    breaks={"scheduling/spread": r"Deployment \S+/web: all of its 6 pods are on \S+-node-\d"},
    keeps=["scheduling/pod_anti_affinity", "scheduling/fit"],
)
def scheduler_packs(subject: Subject) -> Damage:
    """The scheduler fills one node before it looks at the next."""
    resources = [{"name": "cpu", "weight": 1}, {"name": "memory", "weight": 1}]
    strategy = {"scoringStrategy": {"type": "MostAllocated", "resources": resources}}
    fit = {"name": "NodeResourcesFit", "args": strategy}
    others = ["PodTopologySpread", "NodeResourcesBalancedAllocation", "ImageLocality"]
    with configured(subject, off=others, pluginConfig=[fit]):
        yield []


@breakage(
    breaks={
        "scheduling/pod_preference[near]": r"Pod \S+/for-host\S* gets \S+: it got \S+-node-\d",
        "scheduling/pod_preference[apart]": r"Pod \S+/for-host\S* gets \S+: it got \S+-node-\d",
    },
    keeps=["scheduling/pod_affinity", "scheduling/pod_anti_affinity", "scheduling/node_preference"],
)
def preferred_neighbours_ignored(subject: Subject) -> Damage:
    """The scheduler minds which pods a pod must be near to or apart from, and not which ones it prefers to be."""
    with configured(subject, plugins={"score": {"disabled": [{"name": "InterPodAffinity"}]}}):
        yield []


@breakage(
    breaks={"scheduling/taints/cordon": r"Pod \S+/after waits for a node .* it got clusterproof-hollow"},
    keeps=["scheduling/taints/no_schedule"],
)
def cordon_ignored(subject: Subject) -> Damage:
    """Nodes that are cordoned are uncordoned at once."""
    with subject.mutating("v1/nodes", "Object{spec: Object.spec{unschedulable: false}}"):
        yield []


@breakage(
    breaks={"scheduling/scheduler_name": r"own is for a scheduler of its own, and was given \S+-node-\d by another"},
    keeps=["scheduling/gates"],
)
def own_schedulers_ignored(subject: Subject) -> Damage:
    """The scheduler takes all pods for its own."""
    change = '[JSONPatch{op: "replace", path: "/spec/schedulerName", value: "default-scheduler"}]'
    with subject.mutating("v1/pods", change, patch="JSONPatch"):
        yield []


_REQUIRED = "affinity.{}.requiredDuringSchedulingIgnoredDuringExecution[0].{}"
unlike(
    "everybody_is_kept_apart",
    "Pods that are to be apart from those of other tenants are apart from their own as well.",
    forgotten(_REQUIRED.format("podAntiAffinity", "mismatchLabelKeys")),
    breaks={"scheduling/affinity_keys": r"Pod \S+/apart-red gets \S+: not within"},
    keeps=["scheduling/pod_affinity"],
)
unlike(
    "anybody_is_company",
    "Pods that are to be with their own tenant's are with anybody's.",
    forgotten(_REQUIRED.format("podAffinity", "matchLabelKeys")),
    breaks={"scheduling/affinity_keys": r"Pod \S+/together-blue waits for a node .*it got"},
    keeps=["scheduling/pod_affinity"],
)
unlike(
    "least_number_of_domains_ignored",
    "Pods are spread over the domains that there are, however many there are to be.",
    forgotten("topologySpreadConstraints[0].minDomains"),
    breaks={"scheduling/topology_domains": r"they all have a node|it got \S+-node-"},
    keeps=["scheduling/topology_spread"],
)
unlike(
    "older_revisions_counted",
    "Spreads count pods of other revisions as well.",
    forgotten("topologySpreadConstraints[0].matchLabelKeys"),
    breaks={"scheduling/topology_scope": r"are both on \S+-node-2: older pods were counted"},
    keeps=["scheduling/topology_spread"],
)
unlike(
    "nodes_out_of_reach_not_counted",
    "Spreads count nodes only to which their pods may go, whatever their policy.",
    forgotten("topologySpreadConstraints[0].nodeAffinityPolicy"),
    breaks={"scheduling/topology_scope": r"they all have a node: .*ignore-0"},
    keeps=["scheduling/topology_spread"],
)


@breakage(
    breaks={"scheduling/taints/no_execute": r"Pod \S+/leaves-late told to end: not within|before leaves"},
    keeps=["scheduling/taints/no_schedule"],
    scale=0.15,
)
def toleration_seconds_ignored(subject: Subject) -> Damage:
    """Pods that tolerate a taint for some seconds stay for ever."""
    change = (
        '[JSONPatch{op: "replace", path: "/spec/tolerations", value: object.spec.tolerations.map(each, '
        'has(each.tolerationSeconds) ? {"key": dyn(each.key), "operator": dyn("Exists")} : dyn(each))}]'
    )
    with subject.mutating("v1/pods", change, patch="JSONPatch"):
        yield []
