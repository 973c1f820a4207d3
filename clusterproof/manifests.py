"""The objects that promises create, as plain manifests: named by the caller, labelled `app=<name>`.

Every pod is fit for Pod Security `restricted`, ends within a second, and mounts no API token unless it names a service
account. Whatever has no parameter goes in through `spec` (the pod's), `container` (the first container's) or `more`
(the workload's own spec).
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from clusterproof import kinds
from clusterproof.kinds import Kind

Manifest = dict[str, Any]

RBAC = "rbac.authorization.k8s.io"

PARKED: Manifest = {"schedulingGates": [{"name": "clusterproof.dev/parked"}]}
"""`spec` of a pod that is never scheduled: it exists and costs nothing, for promises about controllers alone."""

HELD: Manifest = {
    "volumes": [{"name": "held", "configMap": {"name": "clusterproof-there-is-none"}}],
    "mounts": {"held": "/held"},
}
"""Options of a pod that gets a node and never starts there, for promises about the scheduler alone."""

LEAVE_AT_ONCE: list[Manifest] = [
    {"key": f"node.kubernetes.io/{key}", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 0}
    for key in ("not-ready", "unreachable")
]
"""`tolerations` of pods that leave a lost node as soon as it is known to be lost, not after the usual five minutes."""

DOWN_AT_ONCE: Manifest = {"scaleDown": {"stabilizationWindowSeconds": 0}}
"""`behavior` of an autoscaler that scales down as soon as the load is gone, not after the usual five minutes."""


def http_probe(port: int = 8080, path: str = "/", *, period: int = 1, failures: int = 3) -> Manifest:
    """A readiness, liveness or startup probe by HTTP; `period` in seconds."""
    return {"httpGet": {"port": port, "path": path}, "periodSeconds": period, "failureThreshold": failures}


def container(
    name: str,
    image: str,
    *,
    args: Sequence[str] | None = None,
    command: Sequence[str] | None = None,
    mounts: Mapping[str, str] | None = None,
    env: Mapping[str, str] | None = None,
    ports: Sequence[int] = (),
    **more: Any,
) -> Manifest:
    """A container for a pod that has several; `more` are further fields of it, by the names that they have there."""
    made: Manifest = {"name": name, "image": image, "imagePullPolicy": "IfNotPresent"}
    parts: dict[str, Any] = {
        "args": list(args) if args is not None else None,
        "command": list(command) if command is not None else None,
        "env": [{"name": name, "value": value} for name, value in (env or {}).items()],
        "ports": [{"containerPort": port} for port in ports],
        "volumeMounts": [{"name": name, "mountPath": path} for name, path in (mounts or {}).items()],
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    return made | {key: value for key, value in (parts | more).items() if value}


_container = container  # where a parameter has its name


def pod_spec(
    image: str,
    *,
    args: Sequence[str] | None = None,
    command: Sequence[str] | None = None,
    node: str = "",
    restart_policy: str = "",
    grace: int = 1,
    volumes: Sequence[Manifest] = (),
    mounts: Mapping[str, str] | None = None,
    env: Mapping[str, str] | None = None,
    resources: Manifest | None = None,
    readiness: Manifest | None = None,
    liveness: Manifest | None = None,
    ports: Sequence[int] = (),
    service_account: str = "",
    privileged: bool = False,
    container: Mapping[str, Any] | None = None,
    beside: Sequence[Manifest] = (),
    init: Sequence[Manifest] = (),
    spec: Mapping[str, Any] | None = None,
) -> Manifest:
    """The spec of a pod with a container `main`, and those `beside` it and before it (`init`) as made by `container`.

    `args` are for the image's program, `command` replaces it. `node` pins it there, through the scheduler. `mounts`
    maps the name of a volume to its path. `privileged` makes it root on the node: needs Pod Security `privileged`.
    """
    main = _container(
        "main",
        image,
        args=args,
        command=command,
        mounts=mounts,
        env=env,
        ports=ports,
        resources=resources,
        readinessProbe=readiness,
        livenessProbe=liveness,
    )
    if privileged:
        main["securityContext"] = {"privileged": True}
    made: Manifest = {
        "terminationGracePeriodSeconds": grace,
        "enableServiceLinks": False,
        "automountServiceAccountToken": bool(service_account),
        "containers": [main | dict(container or {}), *beside],
    }
    if init:
        made["initContainers"] = list(init)
    if not privileged:
        made["securityContext"] = {
            "runAsNonRoot": True,
            "runAsUser": 1000,
            "runAsGroup": 1000,
            "fsGroup": 1000,
            "seccompProfile": {"type": "RuntimeDefault"},
        }
    if node:
        made["affinity"] = only_on(node)
    if restart_policy:
        made["restartPolicy"] = restart_policy
    if volumes:
        made["volumes"] = list(volumes)
    if service_account:
        made["serviceAccountName"] = service_account
    return made | dict(spec or {})


def for_linux(manifest: Manifest) -> Manifest:
    """A manifest whose pods go to nodes that run Linux, as our images need it, unless it says where they go.

    Only clusters that also have nodes of Windows need it: on them nothing else keeps our pods from these.
    """
    match manifest:
        case {"kind": "Pod", "spec": dict() as spec}:
            required = "requiredDuringSchedulingIgnoredDuringExecution"
            if spec.get("nodeSelector") or required in spec.get("affinity", {}).get("nodeAffinity", {}):
                return manifest
            return {**manifest, "spec": {**spec, "nodeSelector": {"kubernetes.io/os": "linux"}}}
        case {"spec": {"template": {"spec": dict()} as template} as spec}:
            inner = for_linux({**template, "kind": "Pod"})
            return {**manifest, "spec": {**spec, "template": {**template, "spec": inner["spec"]}}}
        case {"spec": {"jobTemplate": {"spec": {"template": dict()}} as template} as spec}:
            return {**manifest, "spec": {**spec, "jobTemplate": for_linux(template)}}
    return manifest


def only_on(*nodes: str) -> Manifest:
    """The `affinity` of pods that get one of these nodes, or none."""
    terms = {"nodeSelectorTerms": [_named(node) for node in nodes]}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}


def rather_on(node: str, otherwise: str) -> Manifest:
    """The `affinity` of pods that get this node if they can, and the other if not.

    Of very many nodes a scheduler looks at a part only, which need not have the one that is preferred.
    """
    affinity = only_on(node, otherwise)
    wish = {"weight": 100, "preference": _named(node)}
    affinity["nodeAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"] = [wish]
    return affinity


def pod(name: str, image: str, *, labels: Mapping[str, str] | None = None, **options: Any) -> Manifest:
    """A Pod; options as for `pod_spec`."""
    return _manifest("v1", "Pod", name, labels=labels, spec=pod_spec(image, **options))


def deployment(
    name: str,
    image: str,
    *,
    replicas: int = 1,
    labels: Mapping[str, str] | None = None,
    strategy: Manifest | None = None,
    more: Mapping[str, Any] | None = None,
    **options: Any,
) -> Manifest:
    """A Deployment; `strategy` as in its spec; options as for `pod_spec`."""
    own = {"replicas": replicas, **({"strategy": strategy} if strategy else {}), **(more or {})}
    return _workload("Deployment", name, image, labels, own, options)


def stateful_set(
    name: str,
    image: str,
    *,
    replicas: int = 1,
    labels: Mapping[str, str] | None = None,
    claims: Sequence[Manifest] = (),
    more: Mapping[str, Any] | None = None,
    **options: Any,
) -> Manifest:
    """A StatefulSet governed by the headless Service of its own name; `claims` as made by `pvc`."""
    own: Manifest = {"replicas": replicas, "serviceName": name, **(more or {})}
    if claims:
        own["volumeClaimTemplates"] = list(claims)
    return _workload("StatefulSet", name, image, labels, own, options)


def daemon_set(
    name: str,
    image: str,
    *,
    labels: Mapping[str, str] | None = None,
    more: Mapping[str, Any] | None = None,
    **options: Any,
) -> Manifest:
    """A DaemonSet; options as for `pod_spec`."""
    return _workload("DaemonSet", name, image, labels, dict(more or {}), options)


def replica_set(
    name: str, image: str, *, replicas: int = 1, labels: Mapping[str, str] | None = None, **options: Any
) -> Manifest:
    """A ReplicaSet; options as for `pod_spec`."""
    return _workload("ReplicaSet", name, image, labels, {"replicas": replicas}, options)


def replication_controller(
    name: str, image: str, *, replicas: int = 1, labels: Mapping[str, str] | None = None, **options: Any
) -> Manifest:
    """A ReplicationController; options as for `pod_spec`."""
    spec = {"replicas": replicas, "selector": {"app": name}, "template": _template(name, image, labels, options)}
    return _manifest("v1", "ReplicationController", name, labels=labels, spec=spec)


def job(
    name: str,
    image: str,
    *,
    labels: Mapping[str, str] | None = None,
    completions: int = 1,
    parallelism: int = 1,
    more: Mapping[str, Any] | None = None,
    **options: Any,
) -> Manifest:
    """A Job whose pods are not restarted in place; options as for `pod_spec`."""
    return _manifest(
        "batch/v1", "Job", name, spec=_job_spec(name, image, labels, completions, parallelism, more, options)
    )


def cron_job(
    name: str,
    image: str,
    *,
    schedule: str = "* * * * *",
    labels: Mapping[str, str] | None = None,
    more: Mapping[str, Any] | None = None,
    **options: Any,
) -> Manifest:
    """A CronJob; `more` goes into its own spec, options are as for `pod_spec`."""
    template = {"spec": _job_spec(name, image, labels, 1, 1, None, options)}
    return _manifest("batch/v1", "CronJob", name, spec={"schedule": schedule, "jobTemplate": template, **(more or {})})


def web(name: str, image: str, **options: Any) -> Manifest:
    """A Deployment of a web server on port 8080 that answers `/hostname` and is ready when it serves."""
    defaults = {"args": ["netexec", "--http-port=8080"], "ports": [8080], "readiness": http_probe()}
    return deployment(name, image, **{**defaults, **options})


def pod_disruption_budget(name: str, *, least: int = 0, unavailable: int = 0) -> Manifest:
    """A PodDisruptionBudget that keeps at least so many of the pods labelled `app=<name>`, or all but `unavailable`."""
    limit = {"maxUnavailable": unavailable} if unavailable else {"minAvailable": least}
    spec = {**limit, "selector": {"matchLabels": {"app": name}}}
    return _manifest("policy/v1", "PodDisruptionBudget", name, spec=spec)


def service(
    name: str,
    *,
    port: int = 80,
    target: int | str = 8080,
    selector: Mapping[str, str] | None = None,
    headless: bool = False,
    type: str = "ClusterIP",
    spec: Mapping[str, Any] | None = None,
) -> Manifest:
    """A Service for the pods labelled `app=<name>`."""
    made: Manifest = {
        "type": type,
        "selector": dict(selector) if selector is not None else {"app": name},
        "ports": [{"name": "main", "port": port, "targetPort": target}],
    }
    if headless:
        made["clusterIP"] = "None"
    return _manifest("v1", "Service", name, spec=made | dict(spec or {}))


def service_export(name: str) -> Manifest:
    """Exports the Service of this name to the other clusters of the ClusterSet."""
    return _manifest(kinds.SERVICE_EXPORT.api_version, "ServiceExport", name)


def endpoints(name: str, addresses: Sequence[str], *, port: int) -> Manifest:
    """Ready endpoints of the port `main` of the Service of this name, in the form that was there before slices."""
    subset = {"addresses": [{"ip": address} for address in addresses], "ports": [{"name": "main", "port": port}]}
    return {**_manifest("v1", "Endpoints", name), "subsets": [subset]}


def endpoint_slice(name: str, *, service: str, addresses: Sequence[str], port: int) -> Manifest:
    """Ready endpoints of a Service's port `main`, made by hand."""
    family = "IPv6" if ":" in addresses[0] else "IPv4"
    made = _manifest("discovery.k8s.io/v1", "EndpointSlice", name, labels={"kubernetes.io/service-name": service})
    endpoints = [{"addresses": [address], "conditions": {"ready": True}} for address in addresses]
    return {**made, "addressType": family, "endpoints": endpoints, "ports": [{"name": "main", "port": port}]}


def ingress(
    name: str,
    *,
    rules: Sequence[Manifest] = (),
    class_name: str = "",
    annotations: Mapping[str, str] | None = None,
    spec: Mapping[str, Any] | None = None,
) -> Manifest:
    """An Ingress; `rules` as made by `rule`. Without class it is for the default class."""
    made: Manifest = {"rules": list(rules)} if rules else {}
    if class_name:
        made["ingressClassName"] = class_name
    manifest = _manifest("networking.k8s.io/v1", "Ingress", name, spec=made | dict(spec or {}))
    if annotations:
        manifest["metadata"]["annotations"] = dict(annotations)
    return manifest


def ingress_class(name: str, *, controller: str) -> Manifest:
    """An IngressClass for a controller's name, as `example.com/ingress-controller`."""
    return _manifest("networking.k8s.io/v1", "IngressClass", name, spec={"controller": controller})


def rule(host: str, paths: Mapping[str, str], *, port: int = 80, path_type: str = "Prefix") -> Manifest:
    """A rule of an Ingress: for a host, which path goes to which Service."""
    backends = [
        {"path": path, "pathType": path_type, "backend": {"service": {"name": target, "port": {"number": port}}}}
        for path, target in paths.items()
    ]
    return {"host": host, "http": {"paths": backends}} if host else {"http": {"paths": backends}}


def network_policy(
    name: str, *, select: Mapping[str, str] | None = None, types: Sequence[str] = (), **rules: Sequence[Manifest]
) -> Manifest:
    """A NetworkPolicy for the pods with these labels, by default all; `rules` are its `ingress` and `egress`."""
    spec = {"podSelector": {"matchLabels": dict(select or {})}, "policyTypes": list(types)}
    more = {direction: list(each) for direction, each in rules.items()}
    return _manifest("networking.k8s.io/v1", "NetworkPolicy", name, spec=spec | more)


def config_map(
    name: str, data: Mapping[str, str] | None = None, *, labels: Mapping[str, str] | None = None
) -> Manifest:
    """A ConfigMap."""
    return _manifest("v1", "ConfigMap", name, labels=labels, data=dict(data or {}))


def secret(name: str, data: Mapping[str, str] | None = None, *, type: str = "Opaque") -> Manifest:
    """A Secret; `data` in plain text."""
    encoded = {key: base64.b64encode(value.encode()).decode() for key, value in (data or {}).items()}
    return _manifest("v1", "Secret", name, type=type, data=encoded)


def tls_secret(name: str, certificate: str, key: str) -> Manifest:
    """A Secret with a certificate and its key, both as PEM text."""
    return secret(name, {"tls.crt": certificate, "tls.key": key}, type="kubernetes.io/tls")


def pvc(
    name: str,
    size: str = "64Mi",
    *,
    class_name: str | None = None,
    access: str = "ReadWriteOnce",
    spec: Manifest | None = None,
) -> Manifest:
    """A PersistentVolumeClaim; without `class_name` the default class serves it. `spec` adds to its spec."""
    spec = {"accessModes": [access], "resources": {"requests": {"storage": size}}, **(spec or {})}
    if class_name is not None:
        spec["storageClassName"] = class_name
    return _manifest("v1", "PersistentVolumeClaim", name, spec=spec)


def claim_volume(name: str, claim: str) -> Manifest:
    """A pod's volume that is a claim."""
    return {"name": name, "persistentVolumeClaim": {"claimName": claim}}


def priority_class(name: str, value: int, **more: Any) -> Manifest:
    """A PriorityClass; `more` are further fields of it."""
    return _manifest("scheduling.k8s.io/v1", "PriorityClass", name, value=value, **more)


def service_account(name: str) -> Manifest:
    """A ServiceAccount."""
    return _manifest("v1", "ServiceAccount", name)


def rbac_rule(
    verbs: Sequence[str], resources: Sequence[str], *, groups: Sequence[str] = ("",), names: Sequence[str] = ()
) -> Manifest:
    """A rule of a Role; `groups` are API groups, `names` limits it to objects of these names."""
    rule = {"apiGroups": list(groups), "resources": list(resources), "verbs": list(verbs)}
    return rule | ({"resourceNames": list(names)} if names else {})


def role(name: str, rules: Sequence[Manifest]) -> Manifest:
    """A Role; rules as made by `rbac_rule`."""
    return _manifest(f"{RBAC}/v1", "Role", name, rules=list(rules))


def cluster_role(name: str, rules: Sequence[Manifest], *, labels: Mapping[str, str] | None = None) -> Manifest:
    """A ClusterRole; rules as made by `rbac_rule`."""
    return _manifest(f"{RBAC}/v1", "ClusterRole", name, labels=labels, rules=list(rules))


def subject(kind: str, name: str, namespace: str = "") -> Manifest:
    """Who a binding is for: kind User, Group or ServiceAccount."""
    if kind == "ServiceAccount":
        return {"kind": kind, "name": name, "namespace": namespace}
    return {"kind": kind, "name": name, "apiGroup": RBAC}


def role_binding(name: str, role: str, subjects: Sequence[Manifest], *, role_kind: str = "Role") -> Manifest:
    """A RoleBinding to a Role, or with `role_kind="ClusterRole"` to a ClusterRole; subjects as made by `subject`."""
    return _binding("RoleBinding", name, role_kind, role, subjects)


def cluster_role_binding(name: str, role: str, subjects: Sequence[Manifest]) -> Manifest:
    """A ClusterRoleBinding; subjects as made by `subject`."""
    return _binding("ClusterRoleBinding", name, "ClusterRole", role, subjects)


def hpa(
    name: str,
    *,
    target: str,
    low: int = 1,
    high: int = 4,
    cpu: int = 50,
    metrics: Sequence[Manifest] = (),
    behavior: Manifest | None = None,
    target_kind: str = "Deployment",
    target_version: str = "apps/v1",
) -> Manifest:
    """A HorizontalPodAutoscaler of `target` from `low` to `high` replicas, by default for this percentage of CPU."""
    by_cpu = {
        "type": "Resource",
        "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": cpu}},
    }
    spec: Manifest = {
        "scaleTargetRef": {"apiVersion": target_version, "kind": target_kind, "name": target},
        "minReplicas": low,
        "maxReplicas": high,
        "metrics": list(metrics) or [by_cpu],
    }
    if behavior:
        spec["behavior"] = behavior
    return _manifest("autoscaling/v2", "HorizontalPodAutoscaler", name, spec=spec)


def vpa(
    name: str, *, target: str, mode: str, policies: Sequence[Manifest] = (), target_kind: str = "Deployment"
) -> Manifest:
    """A VerticalPodAutoscaler of `target`, however few pods that has; `policies` are those of its containers."""
    spec: Manifest = {
        "targetRef": {"apiVersion": "apps/v1", "kind": target_kind, "name": target},
        "updatePolicy": {"updateMode": mode, "minReplicas": 1},
    }
    if policies:
        spec["resourcePolicy"] = {"containerPolicies": list(policies)}
    return _manifest("autoscaling.k8s.io/v1", "VerticalPodAutoscaler", name, spec=spec)


def crd(
    group: str,
    kind: str,
    plural: str,
    *,
    schema: Manifest | None = None,
    version: str = "v1",
    scope: str = "Namespaced",
    names: Mapping[str, Any] | None = None,
    more: Mapping[str, Any] | None = None,
) -> Manifest:
    """A CustomResourceDefinition with one version.

    `schema` is the object's openAPIV3Schema (by default anything goes), `names` adds short names and categories, `more`
    goes into the version: subresources, printer columns, selectable fields.
    """
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    served = {"name": version, "served": True, "storage": True, "schema": {"openAPIV3Schema": schema or anything}}
    spec = {
        "group": group,
        "scope": scope,
        "names": {"kind": kind, "plural": plural, "singular": kind.lower(), "listKind": f"{kind}List", **(names or {})},
        "versions": [served | dict(more or {})],
    }
    return _manifest("apiextensions.k8s.io/v1", "CustomResourceDefinition", f"{plural}.{group}", spec=spec)


def custom_object(kind: Kind, name: str, **content: Any) -> Manifest:
    """An object of a custom kind; `content` is what stands beside metadata, `spec` mostly."""
    return _manifest(kind.api_version, kind.kind, name, **content)


def _manifest(
    api_version: str, kind: str, name: str, *, labels: Mapping[str, str] | None = None, **content: Any
) -> Manifest:
    metadata = {"name": name, "labels": {"app": name, **(labels or {})}}
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **content}


def _template(name: str, image: str, labels: Mapping[str, str] | None, options: Manifest) -> Manifest:
    return {"metadata": {"labels": {"app": name, **(labels or {})}}, "spec": pod_spec(image, **options)}


def _workload(
    kind: str, name: str, image: str, labels: Mapping[str, str] | None, own: Manifest, options: Manifest
) -> Manifest:
    template = _template(name, image, labels, options)
    spec = {"selector": {"matchLabels": {"app": name}}, "template": template, **own}
    return _manifest("apps/v1", kind, name, labels=labels, spec=spec)


def _job_spec(
    name: str,
    image: str,
    labels: Mapping[str, str] | None,
    completions: int,
    parallelism: int,
    more: Mapping[str, Any] | None,
    options: Manifest,
) -> Manifest:
    template = _template(name, image, labels, {"restart_policy": "Never", **options})
    return {"completions": completions, "parallelism": parallelism, "template": template, **(more or {})}


def _binding(kind: str, name: str, role_kind: str, role: str, subjects: Sequence[Manifest]) -> Manifest:
    ref = {"apiGroup": RBAC, "kind": role_kind, "name": role}
    return _manifest(f"{RBAC}/v1", kind, name, roleRef=ref, subjects=list(subjects))


def _named(node: str) -> Manifest:
    return {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}
