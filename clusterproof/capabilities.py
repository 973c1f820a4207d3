"""What a cluster may claim to do beyond what every cluster must, and how a claim is recognised.

Detection asks for the claim, not whether it works: a claim that does not work is a broken promise. What every cluster
must do needs no capability here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from clusterproof import dialects, discovery, kinds
from clusterproof.client import Client
from clusterproof.credentials import KUBELETS
from clusterproof.errors import ApiError
from clusterproof.kinds import Kind
from clusterproof.namespace import RUN_LABEL


class Finding(NamedTuple):
    """Whether a claim was found, and what was found or looked for."""

    found: bool
    evidence: str


class Survey:
    """What detection looks at, read once and only when asked for."""

    def __init__(self, client: Client) -> None:
        self.client = client

    @cached_property
    def version(self) -> str:
        """gitVersion of the API server."""
        return str(self.client.get("/version")["gitVersion"])

    @cached_property
    def groups(self) -> set[str]:
        """Every API group that discovery names."""
        return {group["metadata"].get("name", "") for group in self.served}

    @cached_property
    def served(self) -> list[dict[str, Any]]:
        """What the API server serves, as `discovery.groups` gives it."""
        return discovery.groups(self.client)

    @cached_property
    def ingress_classes(self) -> list[dict[str, Any]]:
        return self._items(kinds.INGRESS_CLASS)

    @cached_property
    def ingresses(self) -> list[dict[str, Any]]:
        return self._items(kinds.INGRESS)

    @cached_property
    def gateways(self) -> list[dict[str, Any]]:
        try:
            return self._items(GATEWAY_KIND)
        except ApiError:  # the group is there, but not this kind or version of it
            return []

    @cached_property
    def storage_classes(self) -> list[dict[str, Any]]:
        return self._items(kinds.STORAGE_CLASS)

    @cached_property
    def csi_drivers(self) -> list[dict[str, Any]]:
        return self._items(kinds.CSI_DRIVER)

    @cached_property
    def snapshot_classes(self) -> list[dict[str, Any]]:
        if kinds.VOLUME_SNAPSHOT_CLASS.group not in self.groups:
            return []
        return self._items(kinds.VOLUME_SNAPSHOT_CLASS)

    @cached_property
    def cluster_role_bindings(self) -> list[dict[str, Any]]:
        return self._items(kinds.CLUSTER_ROLE_BINDING)

    @cached_property
    def nodes(self) -> list[dict[str, Any]]:
        return self._items(kinds.NODE)

    @cached_property
    def declared(self) -> dict[str, str]:
        """Data of the ConfigMap `clusterproof` in `kube-public`, where a cluster may declare what it can do."""
        try:
            return self.client.get(kinds.CONFIG_MAP.path("kube-public", "clusterproof")).get("data") or {}
        except ApiError:
            return {}

    @cached_property
    def leaders(self) -> list[str]:
        """Leases of the control plane's programs that have a leader, as namespace/name."""
        found = [each["metadata"] for name in LEADERS for each in self._items(kinds.LEASE, f"metadata.name={name}")]
        return [f"{each['namespace']}/{each['name']}" for each in found]

    def _items(self, kind: Kind, fields: str = "") -> list[dict[str, Any]]:
        query = {"fieldSelector": fields} if fields else None
        found: list[dict[str, Any]] = self.client.get(kind.path(), query)["items"]
        return found


REGION = "topology.kubernetes.io/region"
"""Label that the cloud gives to nodes."""
RENEWAL = "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient"
"""ClusterRole by which kubelets are given new certificates without anybody's help."""
RESIZING = 33
"""Minor version of the first kubelet that resizes pods unless told not to; the API server may be three ahead of it."""
IMAGE_RUNTIMES = {"containerd": (2, 1), "cri-o": (1, 33)}
"""The first versions of container runtimes that mount images as volumes; of others nothing is known."""
LEADERS = ("kube-scheduler", "kube-controller-manager")
"""Names of the Leases by which the control plane's programs elect a leader."""


@dataclass(frozen=True, slots=True)
class Capability:
    """Something a cluster claims to do. Promises require it; users declare it by name."""

    name: str
    """What users type: `storage.dynamic`."""
    meaning: str
    """One sentence, for lists and reports."""
    detect: Callable[[Survey], Finding] = field(repr=False, compare=False)

    def __str__(self) -> str:
        return self.name


def _group(name: str) -> Callable[[Survey], Finding]:
    def detect(survey: Survey) -> Finding:
        return Finding(name in survey.groups, f"{'found' if name in survey.groups else 'no'} API group {name}")

    return detect


def _served(kind: Kind, *, kubelets: int = 0) -> Callable[[Survey], Finding]:
    """Whether a kind is served, and perhaps known to the kubelets, which have to do something about it."""

    def detect(survey: Survey) -> Finding:
        found = any(
            (version, resource["resource"]) == (kind.api_version, kind.plural)
            for version, resource in discovery.resources(survey.served)
        )
        finding = Finding(found, f"{'found' if found else 'no'} {kind} in {kind.api_version}")
        return _with_kubelets(kubelets, survey, finding)

    return detect


def _since(minor: int, *, kubelets: int = 0) -> Callable[[Survey], Finding]:
    """Whether the API server, and perhaps the kubelets, are of versions that do what nothing else tells of."""

    def detect(survey: Survey) -> Finding:
        found = re.match(r"v1\.(\d+)", survey.version)
        known = "of" if found and int(found[1]) >= minor else "not of"
        finding = Finding(known == "of", f"version {survey.version} is {known} 1.{minor} or later")
        return _with_kubelets(kubelets, survey, finding)

    return detect


def _ingress(survey: Survey) -> Finding:
    names = [each["metadata"]["name"] for each in survey.ingress_classes]
    return Finding(bool(names), f"found IngressClass {', '.join(names)}" if names else "no IngressClass")


DEFAULT_INGRESS_CLASS = "ingressclass.kubernetes.io/is-default-class"
"""Annotation of the IngressClass that an Ingress without class gets."""


def served_class(classes: list[dict[str, Any]]) -> dict[str, Any]:
    """The IngressClass that promises use: the default class, or the first one; there must be one."""
    return (default_classes(classes) or classes)[0]


def default_classes(classes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The IngressClasses that are default ones: there should be one at most, and the API server takes the newest."""
    annotations = [each["metadata"].get("annotations") or {} for each in classes]
    return [
        each for each, notes in zip(classes, annotations, strict=True) if notes.get(DEFAULT_INGRESS_CLASS) == "true"
    ]


def _default_ingress_class(survey: Survey) -> Finding:
    names = [each["metadata"]["name"] for each in default_classes(survey.ingress_classes)]
    return Finding(
        bool(names), f"found default IngressClass {', '.join(names)}" if names else "no default IngressClass"
    )


def _default_backend(survey: Survey) -> Finding:
    if not (found := _ingress(survey)).found:
        return found
    # Those of promises that have ended go with their namespaces.
    others = [each for each in survey.ingresses if RUN_LABEL not in (each["metadata"].get("labels") or {})]
    names = [f"{each['metadata']['namespace']}/{each['metadata']['name']}" for each in others if _serves_all(each)]
    told = f"Ingress {', '.join(names)} serves the hosts" if names else "no Ingress serves the hosts"
    return Finding(not names, f"{told} that no other one names")


def _serves_all(ingress: dict[str, Any]) -> bool:
    """Whether an Ingress serves hosts that it does not name."""
    spec = ingress["spec"]
    return "defaultBackend" in spec or not all(rule.get("host") for rule in spec.get("rules") or [])


def _told(setting: str) -> Callable[[Survey], Finding]:
    """Whether the ingress controller can be told something for one Ingress."""

    def detect(survey: Survey) -> Finding:
        if not survey.ingress_classes:
            return Finding(False, "no IngressClass")
        found = served_class(survey.ingress_classes)
        name, controller = found["metadata"]["name"], found["spec"].get("controller", "")
        knows = getattr(dialects.of(controller), setting) is not None
        known = "is known" if knows else "is not known"
        return Finding(knows, f"it {known} how IngressClass {name}'s controller {controller} is told")

    return detect


GATEWAY_KIND = kinds.custom("gateway.networking.k8s.io", "v1", "Gateway", "gateways")


def open_listener(gateway: dict[str, Any]) -> dict[str, Any] | None:
    """The listener of a Gateway that takes routes of every namespace, for any host and by http; None without one."""
    for listener in gateway["spec"]["listeners"]:
        routes: dict[str, Any] = (listener.get("allowedRoutes") or {}).get("namespaces") or {}
        if listener["protocol"] == "HTTP" and routes.get("from") == "All" and not listener.get("hostname"):
            return dict(listener)
    return None


def _open_gateway(survey: Survey) -> Finding:
    if not (found := _group(GATEWAY_KIND.group)(survey)).found:
        return found
    names = [each["metadata"]["name"] for each in survey.gateways if open_listener(each)]
    if names:
        return Finding(True, f"found Gateway {', '.join(names)}")
    return Finding(False, "no Gateway takes routes of all namespaces, for any host, by http")


CLAIM = "clusterproof.dev/"
"""Begins the label by which a StorageClass claims a capability, by its name; the value is `true`."""
DEFAULT_STORAGE_CLASS = "storageclass.kubernetes.io/is-default-class"
"""Annotation of the StorageClass that a claim without class gets."""


def _is_default(storage_class: dict[str, Any]) -> bool:
    return (storage_class["metadata"].get("annotations") or {}).get(DEFAULT_STORAGE_CLASS) == "true"


def _default_storage(survey: Survey) -> Finding:
    return _classes(filter(_is_default, survey.storage_classes), "default StorageClass")


def _classes(found: Iterable[dict[str, Any]], what: str) -> Finding:
    names = ", ".join(each["metadata"]["name"] for each in found)
    return Finding(bool(names), f"found {what} {names}" if names else f"no {what.rstrip(':')}")


def growing(classes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The StorageClasses whose volumes can be made larger, in the order given."""
    return [each for each in classes if each.get("allowVolumeExpansion")]


def made_by(drivers: Iterable[str], classes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The StorageClasses whose volumes one of these drivers makes, a default one first."""
    names = set(drivers)
    return _default_first(each for each in classes if each["provisioner"] in names)


def labelled(capability: str, classes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The StorageClasses whose volumes can do something, if their labels are to be believed, a default one first."""
    label = f"{CLAIM}{capability}"
    return _default_first(each for each in classes if (each["metadata"].get("labels") or {}).get(label) == "true")


def _default_first(classes: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(classes, key=_is_default, reverse=True)


def attaching(drivers: list[dict[str, Any]]) -> list[str]:
    """Names of the CSIDrivers whose volumes are attached to the node that needs them."""
    return [each["metadata"]["name"] for each in drivers if each["spec"].get("attachRequired", True)]


def _expansion(survey: Survey) -> Finding:
    # Classes of drivers that the cluster does not know say so, too: their volumes may be folders, which nobody grows.
    names = (each["metadata"]["name"] for each in survey.csi_drivers)
    return _classes(growing(made_by(names, survey.storage_classes)), "StorageClass of volumes that can grow:")


def _attachment(survey: Survey) -> Finding:
    found = made_by(attaching(survey.csi_drivers), survey.storage_classes)
    return _classes(found, "StorageClass of volumes that are attached to nodes:")


def _snapshots(survey: Survey) -> Finding:
    found = made_by((each["driver"] for each in survey.snapshot_classes), survey.storage_classes)
    return _classes(found, "StorageClass of volumes that snapshots are taken of:")


def _labelled(name: str) -> Callable[[Survey], Finding]:
    """Whether a StorageClass claims what no driver tells of itself."""

    def detect(survey: Survey) -> Finding:
        return _classes(labelled(name, survey.storage_classes), f"StorageClass with the label {CLAIM}{name}:")

    return detect


def _dual_stack(survey: Survey) -> Finding:
    families = {":" in cidr for node in survey.nodes for cidr in node["spec"].get("podCIDRs") or []}
    return Finding(len(families) == 2, f"{'found' if len(families) == 2 else 'no'} pod networks of both families")


def _several_nodes(survey: Survey) -> Finding:
    def takes_pods(node: dict[str, Any]) -> bool:
        effects = {taint.get("effect") for taint in node["spec"].get("taints") or []}
        return not node["spec"].get("unschedulable") and not {"NoSchedule", "NoExecute"} & effects

    number = sum(takes_pods(node) for node in survey.nodes if _is_linux(node))
    return Finding(number > 1, f"found {number} node{'' if number == 1 else 's'} that take{'s' * (number == 1)} pods")


def _leader_election(survey: Survey) -> Finding:
    names = survey.leaders
    return Finding(bool(names), f"found Lease {', '.join(names)}" if names else f"no Lease {' or '.join(LEADERS)}")


def _resize(survey: Survey) -> Finding:
    found = any(
        (version, resource["resource"], subresource["subresource"]) == ("v1", "pods", "resize")
        for version, resource in discovery.resources(survey.served)
        for subresource in resource.get("subresources") or []
    )
    return _with_kubelets(RESIZING, survey, Finding(found, f"{'found' if found else 'no'} subresource resize of pods"))


def _image_volumes(survey: Survey) -> Finding:
    told = {each["metadata"]["name"]: _runtime(each) for each in survey.nodes if _is_linux(each)}
    lacking = [f"{version} on {name}" for name, version in told.items() if not _mounts_images(version)]
    if lacking:
        return Finding(False, f"not known to mount images: {lacking[0]}")
    return _since(36, kubelets=35)(survey)


def _runtime(node: dict[str, Any]) -> str:
    return str(node["status"].get("nodeInfo", {}).get("containerRuntimeVersion") or "an unknown container runtime")


def _mounts_images(runtime: str) -> bool:
    found = re.match(r"([\w-]+)://v?(\d+)\.(\d+)", runtime)
    first = IMAGE_RUNTIMES.get(found[1]) if found else None
    return bool(found and first and (int(found[2]), int(found[3])) >= first)


def _with_kubelets(minor: int, survey: Survey, finding: Finding) -> Finding:
    """What was found of the API server, and counts only where no kubelet is of a version before this minor one."""
    behind = [node["metadata"]["name"] for node in survey.nodes if _is_linux(node) and _is_before(minor, node)]
    if finding.found and behind:
        return Finding(False, f"{finding.evidence}, but a kubelet before 1.{minor} on {behind[0]}")
    return finding


def _is_linux(node: dict[str, Any]) -> bool:
    labels: dict[str, str] = node["metadata"].get("labels") or {}
    return labels.get("kubernetes.io/os", "linux") == "linux"


def _is_before(minor: int, node: dict[str, Any]) -> bool:
    """Whether its kubelet is of a version before this minor one; of one that tells no version, nothing is known."""
    version: str = node["status"].get("nodeInfo", {}).get("kubeletVersion", "")
    told = re.match(r"v1\.(\d+)", version)
    return told is not None and int(told[1]) < minor


def _vpa_in_place(survey: Survey) -> Finding:
    for needed in (_group(kinds.VERTICAL_POD_AUTOSCALER.group)(survey), _resize(survey)):
        if not needed.found:
            return needed
    mode = "InPlaceOrRecreate"
    found = mode in survey.client.request("GET", f"/openapi/v3/apis/{kinds.VERTICAL_POD_AUTOSCALER.api_version}").text
    return Finding(found, f"{'found' if found else 'no'} mode {mode} of VerticalPodAutoscalers")


def _group_policies(survey: Survey) -> Finding:
    known = {each["metadata"]["name"]: each["status"].get("features") or {} for each in survey.nodes if _is_linux(each)}
    lacking = [name for name, features in known.items() if not features.get("supplementalGroupsPolicy")]
    told = f"{', '.join(lacking)} does not tell of supplementalGroupsPolicy"
    return Finding(not lacking, told if lacking else "every node tells of supplementalGroupsPolicy")


def _user_namespaces(survey: Survey) -> Finding:
    lacking = [node["metadata"]["name"] for node in survey.nodes if not _has_user_namespaces(node)]
    told = f"the default runtime of {', '.join(lacking)} does not tell of user namespaces"
    return Finding(not lacking, told if lacking else "the default runtime of every node tells of user namespaces")


def _has_user_namespaces(node: dict[str, Any]) -> bool:
    handlers = {each["name"]: each.get("features") or {} for each in node["status"].get("runtimeHandlers") or []}
    return bool(handlers.get("", {}).get("userNamespaces"))


def _cloud(survey: Survey) -> Finding:
    names = [node["metadata"]["name"] for node in survey.nodes if _from_a_cloud(node)]
    told = f"{names[0]} has an instance and a region" if names else "no node has an instance and a region"
    return Finding(bool(names), told)


def _from_a_cloud(node: dict[str, Any]) -> bool:
    return bool(node["spec"].get("providerID") and REGION in (node["metadata"].get("labels") or {}))


def _only_declared(survey: Survey) -> Finding:
    return Finding(False, "not declared, and it cannot be detected")


def _certificates(survey: Survey) -> Finding:
    if "-eks-" in survey.version:
        return Finding(False, "Amazon EKS does not sign users' certificates")
    return _group("certificates.k8s.io")(survey)


def _kubelet_renewal(survey: Survey) -> Finding:
    names = [each["metadata"]["name"] for each in survey.cluster_role_bindings if _lets_kubelets_renew(each)]
    told = f"found ClusterRoleBinding {names[0]} of" if names else "no ClusterRoleBinding gives kubelets"
    return Finding(bool(names), f"{told} {RENEWAL}")


def _lets_kubelets_renew(binding: dict[str, Any]) -> bool:
    subjects = [each["name"] for each in binding.get("subjects") or []]
    return bool(binding["roleRef"]["name"] == RENEWAL and KUBELETS in subjects)


CERTIFICATES = Capability("access.certificates", "The cluster signs client certificates of users.", _certificates)
KUBELET_RENEWAL = Capability(
    "access.kubelet-renewal", "Kubelets are given new certificates without anybody's help.", _kubelet_renewal
)
TRUST_BUNDLES = Capability(
    "access.trust-bundles",
    "Pods can mount the certificates that everybody shall trust.",
    _served(kinds.CLUSTER_TRUST_BUNDLE, kubelets=37),
)
POD_CERTIFICATES = Capability(
    "access.pod-certificates",
    "Pods are given certificates of their own by signers.",
    _served(kinds.POD_CERTIFICATE_REQUEST, kubelets=37),
)
MUTATING_POLICIES = Capability(
    "api.mutating-policies",
    "Objects are changed by policies that the API server evaluates.",
    _served(kinds.MUTATING_ADMISSION_POLICY),
)
STORAGE_MIGRATION = Capability(
    "api.storage-migration",
    "Objects that are stored in an old version are written anew.",
    _served(kinds.STORAGE_VERSION_MIGRATION),
)
LEADER_ELECTION = Capability(
    "health.leader-election", "Scheduler and controller manager show by a Lease that they are led.", _leader_election
)
OPERATOR = Capability("health.operator", "Programs of the cluster can be ended and started.", _only_declared)
INGRESS = Capability("network.ingress", "Web requests reach Services by host and path through one address.", _ingress)
INGRESS_BODY_SIZE = Capability(
    "network.ingress.body-size", "An Ingress can limit the size of uploads.", _told("body_size")
)
INGRESS_TIMEOUT = Capability(
    "network.ingress.timeout", "An Ingress can limit the time that a backend takes.", _told("timeout")
)
INGRESS_REDIRECT = Capability(
    "network.ingress.redirect", "An Ingress can send visitors from http to https.", _told("redirect")
)
INGRESS_WEBSOCKET = Capability("network.ingress.websocket", "An Ingress passes on websockets.", _told("websocket"))
INGRESS_DEFAULT_CLASS = Capability(
    "network.ingress.default-class", "An Ingress without class gets one.", _default_ingress_class
)
INGRESS_DEFAULT_BACKEND = Capability(
    "network.ingress.default-backend", "Hosts that no Ingress names can be given a backend.", _default_backend
)
LOAD_BALANCER = Capability("network.loadbalancer", "A LoadBalancer Service gets an address.", _only_declared)
NETWORK_POLICY = Capability("network.policy", "NetworkPolicies are enforced.", _only_declared)
POLICY_IP_BLOCKS = Capability(
    "network.policy.ip-blocks", "Address blocks of NetworkPolicies count for pods, too.", _only_declared
)
SERVICE_RANGES = Capability(
    "network.service-ranges", "Services can have addresses of further ranges.", _served(kinds.SERVICE_CIDR)
)
TRAFFIC_DISTRIBUTION = Capability(
    "network.traffic-distribution", "A Service can prefer pods of the client's own node.", _since(35)
)
MULTI_CLUSTER_SERVICES = Capability(
    "federation.mcs", "Services can be exported to the other clusters of a ClusterSet.", _group("multicluster.x-k8s.io")
)
CLOUD_NODES = Capability("cloud.nodes", "Nodes are a cloud's instances, which says what they are.", _cloud)
DUAL_STACK = Capability("network.dualstack", "Pods and Services have addresses of both families.", _dual_stack)
GATEWAY = Capability("network.gateway", "Routes of the Gateway API are served, whoever writes them.", _open_gateway)
MAX_UNAVAILABLE = Capability("apps.max-unavailable", "A StatefulSet can replace several pods at a time.", _since(37))
DEVICE_ALTERNATIVES = Capability(
    "scheduling.device-alternatives", "A claim can name several devices of which one is enough.", _since(36)
)
DEVICE_ADMINS = Capability("scheduling.device-admins", "Administrators can use devices that others have.", _since(36))
EXTENDED_RESOURCES = Capability(
    "scheduling.device-resources", "Pods get devices for extended resources that they request.", _since(37)
)
RESOURCE_CLAIMS = Capability(
    "scheduling.resource-claims", "Pods can claim devices of nodes.", _served(kinds.RESOURCE_CLAIM)
)
DEVICE_TAINTS = Capability(
    "scheduling.device-taints", "Devices can be kept from pods by taints.", _served(kinds.DEVICE_TAINT_RULE)
)
SEVERAL_NODES = Capability("nodes.several", "Pods run on two nodes or more.", _several_nodes)
DYNAMIC_STORAGE = Capability(
    "storage.dynamic", "A claim without a volume gets one from a default class.", _default_storage
)
VOLUME_ATTACHMENT = Capability(
    "storage.attachment", "Volumes go to the node that needs them, and are attached to it.", _attachment
)
VOLUME_ATTRIBUTES = Capability(
    "storage.attributes",
    "There are classes of what can be changed of a volume.",
    _served(kinds.VOLUME_ATTRIBUTES_CLASS),
)
VOLUME_BLOCK = Capability("storage.block", "A pod can have a volume as a device.", _labelled("storage.block"))
VOLUME_CLONES = Capability("storage.clones", "A volume can begin as a copy of another.", _labelled("storage.clones"))
VOLUME_EXPANSION = Capability("storage.expansion", "Volumes can be made larger while they are used.", _expansion)
VOLUME_SHARING = Capability(
    "storage.shared", "Pods of several nodes can have a volume at a time.", _labelled("storage.shared")
)
VOLUME_SNAPSHOTS = Capability("storage.snapshots", "A volume can begin as a snapshot of another.", _snapshots)
METRICS = Capability("scale.metrics", "CPU and memory use of nodes and pods is served.", _group("metrics.k8s.io"))
CUSTOM_METRICS = Capability(
    "scale.custom-metrics", "Metrics of an application's own are served.", _group("custom.metrics.k8s.io")
)
VPA = Capability("scale.vpa", "Requests of pods follow their use.", _group(kinds.VERTICAL_POD_AUTOSCALER.group))
VPA_IN_PLACE = Capability(
    "scale.vpa.in-place", "Requests of running pods follow their use without a restart.", _vpa_in_place
)
SERVICE_METRICS = Capability(
    "scale.service-metrics", "A Service's metrics are the sum of its pods' own.", _only_declared
)
EXTERNAL_METRICS = Capability(
    "scale.external-metrics", "Metrics of an application's own are served as external ones, too.", _only_declared
)
HPA_ZERO = Capability("scale.hpa-zero", "An autoscaler can take all pods away while nothing is to do.", _since(37))
HPA_TOLERANCE = Capability("scale.hpa-tolerance", "An autoscaler can have a tolerance of its own.", _since(37))
NODES = Capability("scale.nodes", "Nodes come and go with what the pods need.", _only_declared)
CERT_MANAGER = Capability("extend.cert-manager", "Certificates are issued into Secrets.", _group("cert-manager.io"))
OWN_NODE = Capability(
    "nodes.own", "A run may add a Node object of its own, without a machine behind it.", _only_declared
)
RESIZE = Capability("pods.resize", "What a running pod may use can be changed.", _resize)
HOSTNAME_OVERRIDE = Capability(
    "pods.hostname-override", "A pod can have a host name of any domain.", _since(37, kubelets=35)
)
IMAGE_CREDENTIALS = Capability(
    "pods.image-credentials", "Images stay with those who have their credentials.", _since(35, kubelets=35)
)
IMAGE_VOLUMES = Capability("pods.image-volumes", "Pods can mount images as volumes.", _image_volumes)
RESTART_RULES = Capability(
    "pods.restart-rules", "Containers have rules of their own for when to be restarted.", _since(35, kubelets=35)
)
ENV_FILES = Capability(
    "pods.env-files", "Containers find variables in files that others have written.", _since(35, kubelets=35)
)
POD_RESOURCES = Capability("pods.resources", "A pod has limits of its own.", _since(34, kubelets=34))
POD_STATUS = Capability(
    "pods.status",
    "A pod tells whether its containers can be started, and for which generation.",
    _since(37, kubelets=35),
)
GROUPS_POLICY = Capability(
    "pods.groups-policy", "Pods say whether the groups that their images give users count.", _group_policies
)
USERNS = Capability("pods.userns", "Pods can have a user namespace of their own.", _user_namespaces)

ALL: dict[str, Capability] = {each.name: each for each in list(globals().values()) if isinstance(each, Capability)}
"""Every capability by name."""
