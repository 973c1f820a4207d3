"""The API's kinds as values: where each is served, so that nothing has to be discovered first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of object at one version of its API."""

    api_version: str
    """`v1`, `apps/v1`."""
    kind: str
    plural: str
    namespaced: bool = True

    @property
    def group(self) -> str:
        """API group; empty for the core group."""
        return self.api_version.rpartition("/")[0]

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
        """Path of the collection, of one object, or of its subresource. Without namespace: across all of them."""
        parts = ["/apis" if self.group else "/api", self.api_version]
        if self.namespaced and namespace:
            parts += ["namespaces", namespace]
        parts.append(self.plural)
        parts += [part for part in (name, subresource) if part]
        return "/".join(parts)

    def __str__(self) -> str:
        return self.kind


_known: dict[tuple[str, str], Kind] = {}


def _kind(api_version: str, kind: str, plural: str, *, namespaced: bool = True) -> Kind:
    return _known.setdefault((api_version, kind), Kind(api_version, kind, plural, namespaced))


def custom(group: str, version: str, kind: str, plural: str, *, namespaced: bool = True) -> Kind:
    """A kind that a CustomResourceDefinition or an aggregated API serves; `of` knows it from then on."""
    return _kind(f"{group}/{version}", kind, plural, namespaced=namespaced)


def of(manifest: Mapping[str, Any]) -> Kind:
    """The kind of a manifest; ValueError for one that is neither built in nor made known by `custom`."""
    key = (manifest.get("apiVersion", ""), manifest.get("kind", ""))
    if key not in _known:
        raise ValueError(
            f"unknown kind {key[0]} {key[1]}: make it known with kinds.custom(group, version, kind, plural)"
        )
    return _known[key]


CONFIG_MAP = _kind("v1", "ConfigMap", "configmaps")
ENDPOINTS = _kind("v1", "Endpoints", "endpoints")
EVENT = _kind("v1", "Event", "events")
LIMIT_RANGE = _kind("v1", "LimitRange", "limitranges")
NAMESPACE = _kind("v1", "Namespace", "namespaces", namespaced=False)
NODE = _kind("v1", "Node", "nodes", namespaced=False)
PERSISTENT_VOLUME = _kind("v1", "PersistentVolume", "persistentvolumes", namespaced=False)
PERSISTENT_VOLUME_CLAIM = _kind("v1", "PersistentVolumeClaim", "persistentvolumeclaims")
POD = _kind("v1", "Pod", "pods")
POD_TEMPLATE = _kind("v1", "PodTemplate", "podtemplates")
REPLICATION_CONTROLLER = _kind("v1", "ReplicationController", "replicationcontrollers")
RESOURCE_QUOTA = _kind("v1", "ResourceQuota", "resourcequotas")
SECRET = _kind("v1", "Secret", "secrets")
SERVICE = _kind("v1", "Service", "services")
SERVICE_ACCOUNT = _kind("v1", "ServiceAccount", "serviceaccounts")

CONTROLLER_REVISION = _kind("apps/v1", "ControllerRevision", "controllerrevisions")
DAEMON_SET = _kind("apps/v1", "DaemonSet", "daemonsets")
DEPLOYMENT = _kind("apps/v1", "Deployment", "deployments")
REPLICA_SET = _kind("apps/v1", "ReplicaSet", "replicasets")
STATEFUL_SET = _kind("apps/v1", "StatefulSet", "statefulsets")

CRON_JOB = _kind("batch/v1", "CronJob", "cronjobs")
JOB = _kind("batch/v1", "Job", "jobs")

ENDPOINT_SLICE = _kind("discovery.k8s.io/v1", "EndpointSlice", "endpointslices")
INGRESS = _kind("networking.k8s.io/v1", "Ingress", "ingresses")
INGRESS_CLASS = _kind("networking.k8s.io/v1", "IngressClass", "ingressclasses", namespaced=False)
NETWORK_POLICY = _kind("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies")
SERVICE_CIDR = _kind("networking.k8s.io/v1", "ServiceCIDR", "servicecidrs", namespaced=False)

CLUSTER_ROLE = _kind("rbac.authorization.k8s.io/v1", "ClusterRole", "clusterroles", namespaced=False)
CLUSTER_ROLE_BINDING = _kind(
    "rbac.authorization.k8s.io/v1", "ClusterRoleBinding", "clusterrolebindings", namespaced=False
)
ROLE = _kind("rbac.authorization.k8s.io/v1", "Role", "roles")
ROLE_BINDING = _kind("rbac.authorization.k8s.io/v1", "RoleBinding", "rolebindings")

CERTIFICATE_SIGNING_REQUEST = _kind(
    "certificates.k8s.io/v1", "CertificateSigningRequest", "certificatesigningrequests", namespaced=False
)
POD_CERTIFICATE_REQUEST = _kind("certificates.k8s.io/v1", "PodCertificateRequest", "podcertificaterequests")
CLUSTER_TRUST_BUNDLE = _kind("certificates.k8s.io/v1", "ClusterTrustBundle", "clustertrustbundles", namespaced=False)
SELF_SUBJECT_ACCESS_REVIEW = _kind(
    "authorization.k8s.io/v1", "SelfSubjectAccessReview", "selfsubjectaccessreviews", namespaced=False
)
SUBJECT_ACCESS_REVIEW = _kind(
    "authorization.k8s.io/v1", "SubjectAccessReview", "subjectaccessreviews", namespaced=False
)
TOKEN_REVIEW = _kind("authentication.k8s.io/v1", "TokenReview", "tokenreviews", namespaced=False)

CSI_NODE = _kind("storage.k8s.io/v1", "CSINode", "csinodes", namespaced=False)
CSI_DRIVER = _kind("storage.k8s.io/v1", "CSIDriver", "csidrivers", namespaced=False)
STORAGE_CLASS = _kind("storage.k8s.io/v1", "StorageClass", "storageclasses", namespaced=False)
VOLUME_ATTACHMENT = _kind("storage.k8s.io/v1", "VolumeAttachment", "volumeattachments", namespaced=False)
VOLUME_ATTRIBUTES_CLASS = _kind(
    "storage.k8s.io/v1", "VolumeAttributesClass", "volumeattributesclasses", namespaced=False
)
VOLUME_SNAPSHOT = _kind("snapshot.storage.k8s.io/v1", "VolumeSnapshot", "volumesnapshots")
VOLUME_SNAPSHOT_CLASS = _kind(
    "snapshot.storage.k8s.io/v1", "VolumeSnapshotClass", "volumesnapshotclasses", namespaced=False
)
VOLUME_SNAPSHOT_CONTENT = _kind(
    "snapshot.storage.k8s.io/v1", "VolumeSnapshotContent", "volumesnapshotcontents", namespaced=False
)

HORIZONTAL_POD_AUTOSCALER = _kind("autoscaling/v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers")
VERTICAL_POD_AUTOSCALER = _kind("autoscaling.k8s.io/v1", "VerticalPodAutoscaler", "verticalpodautoscalers")
NODE_METRICS = _kind("metrics.k8s.io/v1beta1", "NodeMetrics", "nodes", namespaced=False)
POD_METRICS = _kind("metrics.k8s.io/v1beta1", "PodMetrics", "pods")
POD_DISRUPTION_BUDGET = _kind("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets")
PRIORITY_CLASS = _kind("scheduling.k8s.io/v1", "PriorityClass", "priorityclasses", namespaced=False)
FLOW_SCHEMA = _kind("flowcontrol.apiserver.k8s.io/v1", "FlowSchema", "flowschemas", namespaced=False)
PRIORITY_LEVEL_CONFIGURATION = _kind(
    "flowcontrol.apiserver.k8s.io/v1", "PriorityLevelConfiguration", "prioritylevelconfigurations", namespaced=False
)
LEASE = _kind("coordination.k8s.io/v1", "Lease", "leases")
RUNTIME_CLASS = _kind("node.k8s.io/v1", "RuntimeClass", "runtimeclasses", namespaced=False)

STORAGE_VERSION_MIGRATION = _kind(
    "storagemigration.k8s.io/v1", "StorageVersionMigration", "storageversionmigrations", namespaced=False
)
DEVICE_CLASS = _kind("resource.k8s.io/v1", "DeviceClass", "deviceclasses", namespaced=False)
RESOURCE_CLAIM = _kind("resource.k8s.io/v1", "ResourceClaim", "resourceclaims")
RESOURCE_CLAIM_TEMPLATE = _kind("resource.k8s.io/v1", "ResourceClaimTemplate", "resourceclaimtemplates")
RESOURCE_SLICE = _kind("resource.k8s.io/v1", "ResourceSlice", "resourceslices", namespaced=False)
DEVICE_TAINT_RULE = _kind("resource.k8s.io/v1", "DeviceTaintRule", "devicetaintrules", namespaced=False)

SERVICE_EXPORT = _kind("multicluster.x-k8s.io/v1alpha1", "ServiceExport", "serviceexports")
SERVICE_IMPORT = _kind("multicluster.x-k8s.io/v1alpha1", "ServiceImport", "serviceimports")

API_SERVICE = _kind("apiregistration.k8s.io/v1", "APIService", "apiservices", namespaced=False)
CUSTOM_RESOURCE_DEFINITION = _kind(
    "apiextensions.k8s.io/v1", "CustomResourceDefinition", "customresourcedefinitions", namespaced=False
)
MUTATING_WEBHOOK_CONFIGURATION = _kind(
    "admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration", "mutatingwebhookconfigurations", namespaced=False
)
VALIDATING_WEBHOOK_CONFIGURATION = _kind(
    "admissionregistration.k8s.io/v1",
    "ValidatingWebhookConfiguration",
    "validatingwebhookconfigurations",
    namespaced=False,
)
MUTATING_ADMISSION_POLICY = _kind(
    "admissionregistration.k8s.io/v1", "MutatingAdmissionPolicy", "mutatingadmissionpolicies", namespaced=False
)
MUTATING_ADMISSION_POLICY_BINDING = _kind(
    "admissionregistration.k8s.io/v1",
    "MutatingAdmissionPolicyBinding",
    "mutatingadmissionpolicybindings",
    namespaced=False,
)
VALIDATING_ADMISSION_POLICY = _kind(
    "admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicy", "validatingadmissionpolicies", namespaced=False
)
VALIDATING_ADMISSION_POLICY_BINDING = _kind(
    "admissionregistration.k8s.io/v1",
    "ValidatingAdmissionPolicyBinding",
    "validatingadmissionpolicybindings",
    namespaced=False,
)
