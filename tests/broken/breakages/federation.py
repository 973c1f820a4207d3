"""What can be wrong between the clusters of a ClusterSet."""

from __future__ import annotations

from clusterproof.embedded.clusterset import PROGRAM
from clusterproof.embedded.controlplane import PLACE

from clusterproof import kinds

from ..registry import Damage, breakage
from ..subject import Subject
from .network import corefile

EXPORT_STATUS = "multicluster.x-k8s.io/v1beta1/serviceexports/status"
IMPORTS = "multicluster.x-k8s.io/v1beta1/serviceimports"
SLICES = "discovery.k8s.io/v1/endpointslices"
COPIED = "'multicluster.kubernetes.io/service-name' in object.metadata.?labels.orValue({})"
"""Whether an EndpointSlice is an imported one, in CEL."""


@breakage(
    breaks={
        "federation/mcs/reached": r"ServiceImport \S+/web .*: not within",
        "federation/mcs/merged": r"ServiceImport \S+/web comes from 2 clusters: not within",
    },
    keeps=["network/service/discovery"],
)
def imports_stopped(subject: Subject) -> Damage:
    """Nobody imports what other clusters export."""
    with subject.stopped(PROGRAM):
        yield []


@breakage(
    breaks={"federation/mcs/without_service": r"ServiceExport \S+/late has condition Valid=False: not within"},
    keeps=["network/service/manual"],
)
def peer_exports_untold(subject: Subject) -> Damage:
    """In the other cluster nobody looks after exports and imports."""
    with subject.peer.stopped(PROGRAM):
        yield []


@breakage(
    breaks={"federation/mcs/reached": r"what DNS has for \S+ A: not within"},
    keeps=["network/service/discovery", "federation/mcs/conflict"],
)
def clusterset_unnamed(subject: Subject) -> Damage:
    """The name server does not know the names of the ClusterSet."""
    with corefile(subject, r" clusterset\.local (in-addr.*?)\n +multicluster clusterset\.local", r" \1"):
        yield []


@breakage(
    breaks={
        "federation/mcs/reached": r"who answers \S+: not within",
        "federation/mcs/merged": r"who answers \S+: not within",
    },
    keeps=["network/service/manual", "federation/mcs/conflict"],
)
def clusters_unlinked(subject: Subject) -> Damage:
    """Packets of pods do not get to the pods of the other cluster."""
    drop = f"FORWARD -s {subject.state.pod_network} -d {subject.peer.state.pod_network} -j DROP"
    with subject.commanded(PLACE, f"iptables -w -I {drop}", f"iptables -w -D {drop}"):
        yield []


@breakage(
    breaks={
        "federation/mcs/merged": r"who answers \S+: not within",
        "federation/mcs/failover": r"who answers \S+: not within",
    },
    keeps=["network/service/manual", "federation/mcs/conflict"],
)
def only_own_endpoints_imported(subject: Subject) -> Damage:
    """A Service of several clusters has only the pods of the own one behind it."""
    other = f"object.metadata.labels['multicluster.kubernetes.io/source-cluster'] != '{subject.state.name}'"
    nobody = '[JSONPatch{op: "replace", path: "/endpoints", value: []}]'
    with subject.mutating(SLICES, f"{COPIED} && {other} ? {nobody} : []", patch="JSONPatch"):
        yield []


@breakage(
    breaks={"federation/mcs/failover": r"who answers \S+: not within"},
    keeps=["federation/mcs/reached"],
)
def imported_endpoints_stay(subject: Subject) -> Damage:
    """Pods that have been ready stay behind an imported Service when they are not any more."""
    keep = '[JSONPatch{op: "replace", path: "/endpoints", value: oldObject.endpoints}]'
    had = "oldObject != null && oldObject.?endpoints.orValue([]).exists(each, each.?conditions.?ready.orValue(true))"
    with subject.mutating(SLICES, f"{COPIED} && {had} ? {keep} : []", patch="JSONPatch"):
        yield []


@breakage(breaks={"federation/mcs/withdrawn": r"who answers \S+: not within"}, keeps=["federation/mcs/reached"])
def imported_slices_stay(subject: Subject) -> Damage:
    """What was imported stays when it is exported no longer."""
    metadata = {"metadata": {"name": "broken-imports-stay"}}
    policy, binding = kinds.VALIDATING_ADMISSION_POLICY, kinds.VALIDATING_ADMISSION_POLICY_BINDING
    allowed = {"expression": f"!({COPIED.replace('object', 'oldObject')})"}
    rules = {
        "resourceRules": [
            {
                "apiGroups": ["discovery.k8s.io"],
                "apiVersions": ["v1"],
                "resources": ["endpointslices"],
                "operations": ["DELETE"],
            }
        ]
    }
    with subject.having(
        {"apiVersion": policy.api_version, "kind": policy.kind, **metadata}
        | {"spec": {"matchConstraints": rules, "validations": [allowed]}},
        {"apiVersion": binding.api_version, "kind": binding.kind, **metadata}
        | {"spec": {"policyName": "broken-imports-stay", "validationActions": ["Deny"]}},
    ):
        yield []


@breakage(
    breaks={"federation/mcs/headless": r"its type should be Headless|what DNS has for .*: not within"},
    keeps=["federation/mcs/reached"],
)
def headless_imports_have_no_pods(subject: Subject) -> Damage:
    """An imported Service is never headless, so that its name gives no pods."""
    with subject.mutating(IMPORTS, 'Object{spec: Object.spec{type: "ClusterSetIP"}}'):
        yield []


@breakage(
    breaks={"federation/mcs/conflict": r"ServiceExport \S+/web has condition Conflict=True: not within"},
    keeps=["federation/mcs/reached"],
)
def conflicts_untold(subject: Subject) -> Damage:
    """Exports that differ do not tell of it."""
    lie = (
        "object.status.?conditions.orValue([]).exists(each, each.type == 'Conflict' && each.status == 'True') ? "
        '[JSONPatch{op: "replace", path: "/status/conditions", value: '
        "object.status.conditions.filter(each, each.type != 'Conflict')}] : []"
    )
    with subject.mutating(EXPORT_STATUS, lie, patch="JSONPatch"):
        yield []


@breakage(
    breaks={"federation/mcs/conflict": r"has the ports \(80,\): (no longer|not within)"},
    keeps=["federation/mcs/without_service"],
)
def youngest_export_counts(subject: Subject) -> Damage:
    """Where exports differ, the ports of the youngest are imported."""
    other = 'JSONPatch{op: "replace", path: "/spec/ports/0/port", value: 81}'
    lie = f"object.metadata.name == 'web' && oldObject != null ? [{other}] : []"
    with subject.mutating(IMPORTS, lie, patch="JSONPatch"):
        yield []


@breakage(
    breaks={"federation/mcs/without_service": r"ServiceExport \S+/late has condition Valid=False: not within"},
    keeps=["federation/mcs/reached"],
)
def exports_always_valid(subject: Subject) -> Damage:
    """Exports say that they are valid, whether there is such a Service or not."""
    valid = (
        "object.status.?conditions.orValue([]).exists(each, each.type == 'Valid' && each.status == 'False') ? "
        '[JSONPatch{op: "remove", path: "/status/conditions"}] : []'
    )
    with subject.peer.mutating(EXPORT_STATUS, valid, patch="JSONPatch"):
        yield []
