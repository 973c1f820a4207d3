"""Pods: what users ask for of them and is not done, by the API server, the kubelet or the container runtime."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from clusterproof import kinds

from ..registry import Damage, breakage
from ..subject import MANAGER, Subject, forgotten

_WRAPPER = """#!{python}
# Stands before the real runc, and changes what a container is to be before it is made.
import json, os, sys
arguments = sys.argv[1:]
verb = next((word for word in arguments if word in ("create", "run", "update")), "")
if verb == "update" and {updates!r}:
    os.execv("/bin/true", ["true"])
if verb in ("create", "run"):
    path = os.path.join(arguments[arguments.index("--bundle") + 1], "config.json")
    with open(path) as file:
        config = json.load(file)
    process, linux = config["process"], config["linux"]
    # What holds a pod's network together has nothing to say.
    if config.get("annotations", {{}}).get("io.kubernetes.cri.container-type") == "container":
{change}
        with open(path, "w") as file:
            json.dump(config, file)
os.execv({runc!r}, ["runc", *arguments])
"""


@contextlib.contextmanager
def runtime(subject: Subject, change: str, *, updates: bool = False, first: int = 0) -> Iterator[None]:
    """Containers are made after `change` (Python, of `config`, `process` and `linux`) was applied, on all nodes.

    Or on those from the `first`. With `updates` also what is changed of running containers is dropped.
    """
    real = subject.run_on(subject.nodes[0], "which runc").strip()
    body = "".join(f"        {line}\n" for line in change.strip().splitlines())
    # A virtual environment may lie where nodes have folders of their own; what it was made of does not.
    python = os.path.realpath(sys.executable)
    text = _WRAPPER.format(python=python, change=body, runc=real, updates=updates)
    wrappers = [
        subject.state.node_folder(node) / "opt/clusterproof/bin/runc" for node in subject.state.nodes[first:]
    ]  # first on the path of containerd and its shims
    try:
        for wrapper in wrappers:
            wrapper.write_text(text)
            wrapper.chmod(0o755)
        yield
    finally:
        for wrapper in wrappers:
            wrapper.unlink(missing_ok=True)


def made_otherwise(
    name: str,
    meaning: str,
    change: str,
    *,
    breaks: Mapping[str, str],
    keeps: Sequence[str] = ("pods/resources/qos",),
    updates: bool = False,
    first: int = 0,
    scale: float = 0.3,
) -> None:
    """Register a breakage: the runtime, of nodes from the `first`, makes containers other than they should be."""

    @breakage(name=name, meaning=meaning, breaks=breaks, keeps=keeps, scale=scale)
    def otherwise(subject: Subject) -> Damage:
        with runtime(subject, change, updates=updates, first=first):
            yield []


made_otherwise(
    "runtime_without_seccomp",
    "The container runtime sets no seccomp profile.",
    'linux.pop("seccomp", None)',
    breaks={"pods/security_context/confinement": r"its seccomp mode is 0, not 2"},
    keeps=["pods/security_context/user"],
)
made_otherwise(
    "runtime_without_limits",
    "The container runtime limits neither CPU nor memory of containers; their pods' control groups still do.",
    'linux["resources"].pop("memory", None); linux["resources"].pop("cpu", None)',
    breaks={
        "pods/resources/control_group": r"its control group allows",
        "pods/resources/resize": r"is given .* not within|its control group allows",
    },
    keeps=["pods/resources/qos", "pods/security_context/confinement"],
    updates=True,
)
made_otherwise(
    "runtime_of_a_node_without_seccomp",
    "The container runtime of the second node sets no seccomp profile.",
    'linux.pop("seccomp", None)',
    breaks={"pods/security_context/confinement": r"on \S+-node-2, .*its seccomp mode is 0, not 2"},
    keeps=["pods/security_context/user"],
    first=1,
)
made_otherwise(
    "runtime_of_a_node_without_limits",
    "The container runtime of the second node limits neither CPU nor memory of containers.",
    'linux["resources"].pop("memory", None); linux["resources"].pop("cpu", None)',
    breaks={"pods/resources/control_group": r"on \S+-node-2: its control group allows"},
    keeps=["pods/resources/qos", "pods/security_context/confinement"],
    first=1,
)
made_otherwise(
    "runtime_of_a_node_that_never_resizes",
    "The container runtime of the second node drops what is changed of running containers.",
    "pass",
    breaks={
        "pods/resources/resize": r"on \S+-node-2: its control group allows 100m|Pod \S+/some-1 is given .* not within"
    },
    keeps=["pods/resources/control_group"],
    updates=True,
    first=1,
)
made_otherwise(
    "runtime_of_a_node_as_root",
    "The container runtime of the second node runs everything as root.",
    'process["user"] = {"uid": 0, "gid": 0}',
    breaks={"pods/security_context/user": r"on \S+-node-2: user is 0, not 12345"},
    keeps=["pods/security_context/read_only_root"],
    first=1,
)
made_otherwise(
    "runtime_of_a_node_with_writable_root",
    "The container runtime of the second node makes every root file system writable.",
    'config["root"]["readonly"] = False',
    breaks={"pods/security_context/read_only_root": r"on \S+-node-2: its root file system is read-only, and a file"},
    keeps=["pods/security_context/user"],
    first=1,
)
made_otherwise(
    "runtime_without_weights",
    "The container runtime gives all containers the same weight.",
    'linux["resources"].get("cpu", {}).pop("shares", None)',
    breaks={"pods/resources/cpu_request": r"have the weights (\d+) and \1"},
    keeps=["pods/resources/control_group"],
)
made_otherwise(
    "runtime_with_equal_ends",
    "The container runtime does not tell the kernel whom to end first when there is no memory.",
    'process.pop("oomScoreAdj", None)',
    breaks={"pods/resources/out_of_memory": r"oom_score_adj is .*, not larger with each class"},
    keeps=["pods/resources/cpu_request"],
)
made_otherwise(
    "runtime_with_capabilities",
    "The container runtime takes no capabilities away.",
    """
every = [f"CAP_{name}" for name in ("CHOWN", "KILL", "NET_RAW", "SETUID", "NET_BIND_SERVICE")]
process["capabilities"] = {"bounding": every}
""",
    breaks={"pods/security_context/confinement": r"its capabilities are limited to 0x\w+, not 0x0"},
    keeps=["pods/security_context/read_only_root"],
)
made_otherwise(
    "runtime_with_new_privileges",
    "The container runtime lets programs gain privileges.",
    'process["noNewPrivileges"] = False',
    breaks={"pods/security_context/confinement": r"NoNewPrivs is not set"},
    keeps=["pods/security_context/read_only_root"],
)
made_otherwise(
    "runtime_as_root",
    "The container runtime runs everything as root.",
    'process["user"] = {"uid": 0, "gid": 0}',
    breaks={"pods/security_context/user": r"user is 0, not 12345"},
    keeps=["pods/security_context/read_only_root"],
)
made_otherwise(
    "runtime_without_groups_of_images",
    "The container runtime gives nobody a group that only the image tells of.",
    """
user = process["user"]
user["additionalGids"] = [group for group in user.get("additionalGids", []) if group != 50000]
""",
    breaks={"pods/security_context/groups_policy": r"Pod \S+/merge: with Merge it is in the groups"},
    keeps=["pods/security_context/user"],
)
made_otherwise(
    "runtime_with_writable_root",
    "The container runtime makes every root file system writable.",
    'config["root"]["readonly"] = False',
    breaks={"pods/security_context/read_only_root": r"is read-only, and a file was made in it"},
    keeps=["pods/security_context/user"],
)
made_otherwise(
    "runtime_with_private_volumes",
    "The container runtime gives every container an emptyDir of its own.",
    """
for mount in config["mounts"]:
    if "kubernetes.io~empty-dir" in mount.get("source", ""):
        mount.update(type="tmpfs", source="tmpfs", options=["mode=1777"])
""",
    breaks={"pods/volumes/empty_dir": r"the diary on the volume"},
    keeps=["pods/config/sources"],
)


made_otherwise(
    "runtime_with_empty_image_volumes",
    "The container runtime mounts nothing where an image is to be.",
    """
for mount in config["mounts"]:
    if mount["destination"] in ("/lent", "/part"):
        mount.update(type="tmpfs", source="tmpfs", options=["ro"])
""",
    breaks={"pods/volumes/image": r"Pod \S+/reader: /lent/agnhost is not as /agnhost"},
    keeps=["pods/volumes/empty_dir"],
)
made_otherwise(
    "runtime_with_writable_image_volumes",
    "The container runtime lays something over images that can be written to.",
    """
import tempfile
for mount in config["mounts"]:
    if mount["destination"] == "/lent":
        upper, work = tempfile.mkdtemp(dir="/run"), tempfile.mkdtemp(dir="/run")
        os.chmod(upper, 0o777)
        layers = [f"lowerdir={mount['source']}", f"upperdir={upper}", f"workdir={work}"]
        mount.update(type="overlay", source="overlay", options=layers)
""",
    breaks={"pods/volumes/image": r"Pod \S+/reader: a file could be made in its image"},
    keeps=["pods/volumes/empty_dir"],
)


def kubelets_without(name: str, meaning: str, *gates: str, breaks: Mapping[str, str], keeps: Sequence[str]) -> None:
    """Register a breakage: the kubelets do not know what some feature gates stand for; the API server does."""

    @breakage(name=name, meaning=meaning, breaks=breaks, keeps=keeps, scale=0.5)
    def without(subject: Subject) -> Damage:
        with kubelets(subject, featureGates=dict.fromkeys(gates, False)):
            yield []


kubelets_without(
    "restart_rules_ignored",
    "Kubelets follow the restart policy of pods whatever rules containers have of their own.",
    "ContainerRestartRules",
    "RestartAllContainersOnContainerExits",
    breaks={"pods/lifecycle/restart_rules": r"Pod \S+/ruled: after 0 restarts its container ended with 42, not with 7"},
    keeps=["pods/lifecycle/restart_on_failure"],
)
kubelets_without(
    "files_of_variables_ignored",
    "Kubelets look into no files for variables.",
    "EnvFiles",
    breaks={"pods/config/env_file": r"Pod \S+/reader: its variable COLOUR is '', not 'dark blue'"},
    keeps=["pods/config/sources"],
)


kubelets_without(
    "certificates_of_pods_never_asked_for",
    "Kubelets ask for no certificates of pods.",
    "PodCertificateRequest",
    breaks={"access/credentials/pod_certificate": r"podcertificaterequests in \S+ number exactly 1: not within"},
    keeps=["pods/volumes/projected"],
)


def _untold(name: str, meaning: str, expression: str, *, breaks: str) -> None:
    """Register a breakage: the status of pods does not tell all that kubelets say."""

    @breakage(name=name, meaning=meaning, breaks={"pods/lifecycle/status": breaks}, keeps=["pods/lifecycle/grace"])
    def untold(subject: Subject) -> Damage:
        with subject.mutating("/v1/pods/status", expression, patch="JSONPatch"):
            yield []


_CONDITION = 'i < size(object.status.conditions) && object.status.conditions[i].type == "PodReadyToStartContainers"'
_untold(
    "start_of_containers_foretold",
    "Every pod tells at once that its containers can be started.",
    f"!has(object.status.conditions) ? [] : [0, 1, 2, 3, 4, 5].filter(i, {_CONDITION}).map(i, "
    'JSONPatch{op: "replace", path: "/status/conditions/" + string(i) + "/status", value: "True"})',
    breaks=r"Pod \S+/held has condition PodReadyToStartContainers=False: not within",
)
_untold(
    "generations_untold",
    "The status of pods does not tell which generation of their spec it is about.",
    'has(object.status.observedGeneration) ? [JSONPatch{op: "remove", path: "/status/observedGeneration"}] : []',
    breaks=r"Pod \S+/starting tells of its generation: not within .*and its status is about None",
)


def unlike(name: str, meaning: str, expression: str, *, breaks: Mapping[str, str], keeps: Sequence[str]) -> None:
    """Register a breakage: of what is asked for of a pod something is lost; the expression is a list of changes."""

    @breakage(name=name, meaning=meaning, breaks=breaks, keeps=keeps, scale=0.3)
    def lost(subject: Subject) -> Damage:
        with subject.mutating("v1/pods", expression, patch="JSONPatch"):
            yield []


def _of_containers(field: str) -> str:
    """Takes a field away from the containers of a pod."""
    there = f"i < size(object.spec.containers) && has(object.spec.containers[i].{field})"
    path = f'"/spec/containers/" + string(i) + "/{field}"'
    return f'[0, 1, 2, 3, 4].filter(i, {there}).map(i, JSONPatch{{op: "remove", path: {path}}})'


_LET_IN = r"Pod \S+/stranger has a container that waits as ErrImagePull or ImagePullBackOff: not within"


def _lost_secrets(where: str) -> str:
    """Has pods name other Secrets for images, where CEL says so; if they named none, they would get their account's."""
    return (
        f"has(object.spec.imagePullSecrets) && {where} ? "
        '[JSONPatch{op: "replace", path: "/spec/imagePullSecrets", value: [{"name": "lost"}]}] : []'
    )


def _pulled(asked: str, instead: str) -> str:
    """Replaces a pull policy of a pod's first container by another."""
    return (
        f'object.spec.containers[0].imagePullPolicy == "{asked}" ? '
        f'[JSONPatch{{op: "replace", path: "/spec/containers/0/imagePullPolicy", value: "{instead}"}}] : []'
    )


unlike(
    "readiness_probes_ignored",
    "No pod is asked whether it is ready.",
    _of_containers("readinessProbe"),
    breaks={"pods/probes/readiness": r"has containers that are all not ready after 0 restarts: not within"},
    keeps=["pods/probes/liveness"],
)
unlike(
    "liveness_probes_ignored",
    "No container is restarted for failing its liveness probe.",
    _of_containers("livenessProbe"),
    breaks={"pods/probes/liveness": r"has containers that are all ready after 1 restarts: not within"},
    keeps=["pods/probes/readiness"],
)
unlike(
    "startup_probes_ignored",
    "Nobody waits until a container has started up.",
    _of_containers("startupProbe"),
    breaks={"pods/probes/startup": r"Pod \S+/(slow|never)"},
    keeps=["pods/security_context/user"],
)
unlike(
    "readiness_gates_ignored",
    "Nobody waits for the conditions that a pod's readiness gates name.",
    forgotten("readinessGates"),
    breaks={"pods/probes/readiness_gate": r"Pod \S+/gated .*Ready.*: not within"},
    keeps=["pods/probes/readiness"],
)
unlike(
    "success_thresholds_ignored",
    "A container is ready as soon as its readiness probe has succeeded once.",
    "has(object.spec.containers[0].readinessProbe) ? "
    '[JSONPatch{op: "replace", path: "/spec/containers/0/readinessProbe/successThreshold", value: 1}] : []',
    breaks={"pods/probes/success_threshold": r"Pod \S+/shaky is ready after [1-5] answers of its probe"},
    keeps=["pods/probes/readiness_gate"],
)
unlike(
    "grace_of_probes_ignored",
    "A container that fails its liveness probe is given its pod's time to end.",
    forgotten("containers[0].livenessProbe.terminationGracePeriodSeconds"),
    breaks={"pods/probes/grace_period": r"Pod \S+/stubborn was restarted: not within"},
    keeps=["pods/probes/success_threshold"],
)
unlike(
    "hooks_never_sleep",
    "Hooks that are to sleep are over at once.",
    forgotten("containers[0].lifecycle.preStop"),
    breaks={"pods/lifecycle/hooks": r"Pod \S+/hooked: its preStop hook sleeps for 4 s, and it ended after [0-2] s"},
    keeps=["pods/lifecycle/grace"],
)
unlike(
    "hooks_never_ask",
    "Hooks that are to ask by HTTP are left out.",
    forgotten("containers[0].lifecycle.postStart"),
    breaks={"pods/lifecycle/hooks": r"sidecar of Pod \S+/hooked is asked by its postStart hook: not within"},
    keeps=["pods/lifecycle/grace"],
)
unlike(
    "probe_headers_forgotten",
    "Probes ask without the headers that they are given.",
    forgotten("containers[0].readinessProbe.httpGet.httpHeaders"),
    breaks={"pods/probes/http_request": r"its probe asked .*, without \['Host: own.example', 'User-Agent"},
    keeps=["pods/probes/success_threshold"],
)
unlike(
    "probes_without_tls",
    "Probes that are to ask by TLS ask without.",
    forgotten("containers[1].readinessProbe.httpGet.scheme"),
    breaks={"pods/probes/http_request": r"Pod \S+/asked ready: not within"},
    keeps=["pods/probes/success_threshold"],
)
unlike(
    "host_names_of_choice_ignored",
    "Pods have the host name that they are called by, whichever they choose.",
    forgotten("hostnameOverride"),
    breaks={"pods/host/hostname_override": r"Pod \S+/named: its host name is me, not printer.example"},
    keeps=["pods/host/names"],
)
unlike(
    "groups_always_merged",
    "Containers are in the groups of their images whatever their policy.",
    forgotten("securityContext.supplementalGroupsPolicy"),
    breaks={"pods/security_context/groups_policy": r"Pod \S+/strict: with Strict it is in the groups .*50000\]"},
    keeps=["pods/security_context/user"],
)
unlike(
    "working_directories_forgotten",
    "Containers begin in the directory of their image.",
    _of_containers("workingDir"),
    breaks={"pods/lifecycle/command": r"Pod \S+/told: its container was started in /, not in its working directory"},
    keeps=["pods/lifecycle/last_words"],
)
unlike(
    "whole_secrets_forgotten",
    "Containers find variables of Secrets that they name one by one, and not all of a Secret.",
    "has(object.spec.containers[0].envFrom) && size(object.spec.containers[0].envFrom) > 1 ? "
    '[JSONPatch{op: "remove", path: "/spec/containers/0/envFrom/1"}] : []',
    breaks={"pods/config/sources": r"SAFE_password"},
    keeps=["pods/config/missing"],
)
unlike(
    "resize_policies_ignored",
    "Containers go on whatever they are resized in, although they want to be restarted.",
    _of_containers("resizePolicy"),
    breaks={"pods/resources/resize_restart": r"Pod \S+/some was restarted 1 times: not within .*it was 0 times"},
    keeps=["pods/resources/qos"],
)
unlike(
    "last_words_lost",
    "Nobody looks at the log of a container that has failed.",
    _of_containers("terminationMessagePolicy"),
    breaks={"pods/lifecycle/last_words": r"termination messages of its containers are .*'fails': ''"},
    keeps=["pods/lifecycle/grace"],
)
unlike(
    "tokens_for_the_api_server_only",
    "Projected tokens are for the API server, whomever they are asked for.",
    'has(object.spec.volumes) && object.spec.volumes.exists(v, v.name == "all")'
    ' ? [JSONPatch{op: "remove", path: "/spec/volumes/0/projected/sources/3/serviceAccountToken/audience"}] : []',
    breaks={"pods/volumes/projected": r"its projected token is for \['https.*, not for somebody"},
    keeps=["pods/volumes/empty_dir"],
)
unlike(
    "hooks_ignored",
    "Containers are started and ended without their hooks.",
    _of_containers("lifecycle"),
    breaks={
        "pods/lifecycle/start": r"not hook and main",
        "pods/lifecycle/end": r"its containers were told to end as \['TERM', 'two', 'one'\]",
    },
    keeps=["pods/lifecycle/grace"],
)
unlike(
    "init_containers_ignored",
    "Pods start without what is to come before.",
    forgotten("initContainers"),
    breaks={"pods/lifecycle/start": r"its init containers did", "pods/lifecycle/end": r"when only \['polite'\]"},
    keeps=["pods/lifecycle/grace"],
)
unlike(
    "grace_periods_ignored",
    "Pods are given a second to end, whatever they ask for.",
    '[JSONPatch{op: "replace", path: "/spec/terminationGracePeriodSeconds", value: 1}]',
    breaks={"pods/lifecycle/grace": r"a container was killed after [0-6] s, its grace period is 8 s"},
    keeps=["pods/lifecycle/start"],
)
unlike(
    "environment_incomplete",
    "Containers get nothing of what they ask for as a whole.",
    _of_containers("envFrom"),
    breaks={"pods/config/sources": r"the environment of Pod \S+ differ: EVERY_colour is None, not 'blue'"},
    keeps=["pods/config/missing"],
)
unlike(
    "everything_optional",
    "Containers start although what they need does not exist.",
    "[0, 1, 2].filter(i, has(object.spec.containers[0].env) && i < size(object.spec.containers[0].env) && "
    "has(object.spec.containers[0].env[i].valueFrom) && "
    "has(object.spec.containers[0].env[i].valueFrom.configMapKeyRef)).map(i, "
    'JSONPatch{op: "add", path: "/spec/containers/0/env/" + string(i) + "/valueFrom/configMapKeyRef/optional", '
    "value: true})",
    breaks={"pods/config/missing": r"has a container that waits as CreateContainerConfigError: not within"},
    keeps=["pods/config/immutable"],
)
_VOLUME = "has(object.spec.volumes) && size(object.spec.volumes) > 0 && has(object.spec.volumes[0].{})"
unlike(
    "volumes_without_limit",
    "An emptyDir may grow, and memory is never its medium.",
    f'{_VOLUME.format("emptyDir")} ? [JSONPatch{{op: "replace", path: "/spec/volumes/0/emptyDir", value: {{}}}}] : []',
    breaks={
        "pods/volumes/memory": r"its volume is \S+ of \d+ KiB, not tmpfs of 4096",
        "pods/volumes/size_limit": r"has phase Failed: not within",
    },
    keeps=["pods/volumes/empty_dir"],
)
unlike(
    "projections_incomplete",
    "A projected volume lacks the first of its parts.",
    f'{_VOLUME.format("projected")} && object.spec.volumes[0].name == "all" ? '
    '[JSONPatch{op: "remove", path: "/spec/volumes/0/projected/sources/0"}] : []',
    breaks={"pods/volumes/projected": r"its volume holds \['./name', './password', './token'\]"},
    keeps=["pods/volumes/memory"],
)
unlike(
    "host_path_types_ignored",
    "Nobody looks at what lies at a hostPath.",
    f'{_VOLUME.format("hostPath")} ? [JSONPatch{{op: "remove", path: "/spec/volumes/0/hostPath/type"}}] : []',
    breaks={"pods/volumes/host_path": r"tell of 'hostPath type check failed': not within"},
    keeps=["pods/volumes/memory"],
)
unlike(
    "resources_forgotten",
    "Pods have neither requests nor limits.",
    _of_containers("resources"),
    breaks={
        "pods/resources/qos": r"with .* is BestEffort, not (Guaranteed|Burstable)",
        "pods/resources/memory_limit": r"a container with a limit of 64Mi that uses 256 MiB ended as Completed",
    },
    keeps=["pods/volumes/memory"],
)
unlike(
    "everybody_is_1000",
    "Every container is given a user that is not root, so nobody is kept from being root.",
    '[JSONPatch{op: "add", path: "/spec/securityContext/runAsUser", value: 1000}]',
    breaks={
        "pods/security_context/non_root": r"its container runs, although its image is for root",
        "pods/security_context/user": r"user is 1000, not 12345",
    },
    keeps=["pods/security_context/read_only_root"],
)
unlike(
    "grace_periods_prolonged",
    "Pods are given half a minute more to end than they ask for.",
    '[JSONPatch{op: "replace", path: "/spec/terminationGracePeriodSeconds", '
    "value: object.spec.terminationGracePeriodSeconds + 30}]",
    breaks={"pods/lifecycle/grace": r"a container was killed after 3\d s|Pod \S+/stays gone: not within"},
    keeps=["pods/lifecycle/start"],
)
unlike(
    "names_of_nodes_forgotten",
    "Pods that want the names of their node get those of the cluster.",
    'object.spec.dnsPolicy == "Default" ? ['
    'JSONPatch{op: "replace", path: "/spec/dnsPolicy", value: "ClusterFirst"}] : []',
    breaks={"pods/host/names": r"it has the cluster's names, not its node's"},
    keeps=["pods/host/host_port"],
)
unlike(
    "first_affinity_term_only",
    "Of the terms of a required node affinity, any of which is enough, only the first counts.",
    "has(object.spec.affinity) && has(object.spec.affinity.nodeAffinity) && "
    "has(object.spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution) && "
    "object.spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms.size() > 1 ? ["
    'JSONPatch{op: "remove", path: "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution'
    '/nodeSelectorTerms/1"}] : []',
    breaks={"scheduling/node_affinity": r"Pod \S+/either gets \S+: not within"},
    keeps=["scheduling/gates"],
)
unlike(
    "pull_secrets_forgotten",
    "Nodes pull images without the credentials of pods.",
    _lost_secrets("true"),
    breaks={
        "pods/images/pull_secret[pod]": r"Pod \S+/guest runs: not within .*ErrImagePull",
        "pods/images/pull_secret[service_account]": r"Pod \S+/guest runs: not within .*ErrImagePull",
    },
    keeps=["pods/images/pull_policy"],
)
unlike(
    "credentials_for_everybody",
    "Pods that name no credentials for images are lent those of others.",
    "has(object.spec.imagePullSecrets) ? [] : "
    '[JSONPatch{op: "add", path: "/spec/imagePullSecrets", value: [{"name": "credentials"}]}]',
    breaks={
        "pods/images/pull_secret[pod]": _LET_IN,
        "pods/images/pulled_by_others": _LET_IN,
    },
    keeps=["pods/images/pull_policy"],
)
unlike(
    "accounts_lend_no_pull_secrets",
    "Pods get no credentials for images from their service accounts.",
    _lost_secrets('object.spec.serviceAccountName != "default"'),
    breaks={"pods/images/pull_secret[service_account]": r"Pod \S+/guest runs: not within .*ErrImagePull"},
    keeps=["pods/images/pull_secret[pod]"],
)
unlike(
    "images_never_pulled_again",
    "What a node has under an image's tag is used even where it is to be pulled always.",
    _pulled("Always", "IfNotPresent"),
    breaks={"pods/images/pull_policy": r"Pod \S+/curious: with Always it has .*, as before its tag meant another"},
    keeps=["pods/images/pull_secret[pod]"],
)
unlike(
    "images_pulled_nonetheless",
    "What a node has not is pulled even where it is never to be.",
    _pulled("Never", "IfNotPresent"),
    breaks={"pods/images/pull_policy": r"Pod \S+/frugal has a container that waits as ErrImageNeverPull: not within"},
    keeps=["pods/images/pull_secret[pod]"],
)
unlike(
    "digests_ignored",
    "Images that pods name by a digest are those that have the tag `latest`.",
    'object.spec.containers[0].image.contains("@") ? '
    '[JSONPatch{op: "replace", path: "/spec/containers/0/image", value: '
    'object.spec.containers[0].image.split("@")[0] + ":latest"}] : []',
    breaks={"pods/images/digest": r"Pod \S+/exact has \S+, and names \S+ by its digest"},
    keeps=["pods/images/pull_policy"],
)
unlike(
    "ephemeral_storage_unlimited",
    "Containers may write as much to their own files as they like.",
    "has(object.spec.containers[0].resources.limits) && "
    '"ephemeral-storage" in object.spec.containers[0].resources.limits '
    '? [JSONPatch{op: "remove", path: "/spec/containers/0/resources/limits/ephemeral-storage"}] : []',
    breaks={"pods/resources/ephemeral_storage": r"Pod \S+/greedy has phase Failed: not within"},
    keeps=["pods/volumes/size_limit"],
)
unlike(
    "host_aliases_forgotten",
    "Pods are not told further names of hosts.",
    forgotten("hostAliases"),
    breaks={"pods/host/names": r"its host aliases are not in"},
    keeps=["pods/host/host_port"],
)
unlike(
    "host_networks_refused",
    "No pod is let into its node's network.",
    forgotten("hostNetwork"),
    breaks={"pods/host/host_network": r"its address is \S+, and its node's is"},
    keeps=["pods/host/names"],
)
unlike(
    "host_ports_forgotten",
    "No port of a pod is mapped to its node.",
    "has(object.spec.containers[0].ports) && has(object.spec.containers[0].ports[0].hostPort) ? "
    '[JSONPatch{op: "remove", path: "/spec/containers/0/ports/0/hostPort"}] : []',
    breaks={"pods/host/host_port": r"asks http://\S+ of Pod \S+ on \S+: not within|on which its port is taken"},
    keeps=["pods/host/names"],
)


@breakage(
    breaks={"pods/config/sources": r"Pod \S+/reader"},
    keeps=["pods/config/missing"],
    scale=0.2,
)
def binary_data_lost(subject: Subject) -> Damage:
    """ConfigMaps keep texts only."""
    change = 'has(object.binaryData) ? [JSONPatch{op: "remove", path: "/binaryData"}] : []'
    with subject.mutating("v1/configmaps", change, patch="JSONPatch"):
        yield []


@breakage(
    breaks={"pods/resources/control_group": r"on \S+-node-2: its control group allows \S+m CPU and 96 MiB, not 100m"},
    keeps=["pods/resources/qos"],
)
def kubelet_without_cpu_quotas(subject: Subject) -> Damage:
    """The kubelet of the second node limits nobody's CPU time."""
    with subject.kubelet_config(subject.nodes[1], cpuCFSQuota=False):
        yield []


@breakage(
    breaks={
        "pods/resources/ephemeral_storage": r"Pod \S+/greedy has phase Failed: not within",
        "pods/volumes/size_limit": r"Pod \S+/greedy has phase Failed: not within",
    },
    keeps=["pods/resources/memory_limit"],
)
def kubelets_without_storage_isolation(subject: Subject) -> Damage:
    """Kubelets do not look how much pods write."""
    with kubelets(subject, localStorageCapacityIsolation=False):
        yield []


@breakage(
    breaks={"pods/config/immutable": r"changing the immutable .* MUST be refused with 422"},
    keeps=["pods/config/missing"],
)
def nothing_is_immutable(subject: Subject) -> Damage:
    """ConfigMaps that are to be immutable are not."""
    change = 'has(object.immutable) ? [JSONPatch{op: "remove", path: "/immutable"}] : []'
    with subject.mutating("v1/configmaps", change, patch="JSONPatch"):
        yield []


@contextlib.contextmanager
def kubelets(subject: Subject, **changes: Any) -> Iterator[None]:
    """All nodes with another configuration of their kubelets."""
    with contextlib.ExitStack() as stack:
        for node in subject.nodes:
            stack.enter_context(subject.kubelet_config(node, **changes))
        yield


@breakage(
    breaks={
        "pods/interactive/logs": r"log",
        "pods/interactive/exec": r"exec",
        "pods/interactive/attach": r"attach",
        "pods/interactive/copy": r"exec",
        "pods/interactive/port_forward": r"portforward",
        "pods/interactive/debug_container": r"exec",
    },
    keeps=["scheduling/gates", "pods/resources/qos"],
)
def kubelets_without_debugging(subject: Subject) -> Damage:
    """Kubelets show no logs and run no commands."""
    with kubelets(subject, enableDebuggingHandlers=False):
        yield []


@breakage(
    breaks={"pods/host/names": r"its name server is the pod itself, not its node's"},
    keeps=["pods/lifecycle/grace"],
)
def name_servers_of_nodes_unknown(subject: Subject) -> Damage:
    """Kubelets are told of no file with their node's name servers."""
    with kubelets(subject, resolvConf=""):
        yield []


@breakage(
    breaks={"pods/lifecycle/back_off": r"the pauses before its restarts are .* should grow"},
    keeps=["pods/lifecycle/grace"],
)
def restarts_without_back_off(subject: Subject) -> Damage:
    """Containers that fail are restarted every second."""
    with kubelets(subject, crashLoopBackOff={"maxContainerRestartPeriod": "1s"}):
        yield []


@breakage(
    breaks={"pods/config/live_update": r"follow their sources: not within .* still holds? what was there before"},
    keeps=["pods/config/sources"],
    scale=0.2,
)
def configuration_remembered(subject: Subject) -> Damage:
    """Kubelets look for changes of ConfigMaps and Secrets once in an hour."""
    ttl = {"metadata": {"annotations": {"node.alpha.kubernetes.io/ttl": "3600"}}}
    with (
        subject.flagged(MANAGER, "controllers", "*,-ttl-controller"),
        kubelets(subject, configMapAndSecretChangeDetectionStrategy="Cache"),
    ):
        for node in subject.nodes:
            subject.client.patch(kinds.NODE.path(None, node), ttl)
        yield []


@breakage(
    breaks={
        "pods/config/live_update": r"follow their sources: not within .* s; Pod \S+ on \S+-node-2 still holds what was"
    },
    keeps=["pods/config/sources"],
    scale=0.2,
)
def configuration_remembered_on_a_node(subject: Subject) -> Damage:
    """The kubelet of one node looks for changes of ConfigMaps and Secrets once in an hour."""
    ttl = {"metadata": {"annotations": {"node.alpha.kubernetes.io/ttl": "3600"}}}
    node = subject.nodes[1]
    with (
        subject.flagged(MANAGER, "controllers", "*,-ttl-controller"),
        subject.kubelet_config(node, configMapAndSecretChangeDetectionStrategy="Cache"),
    ):
        subject.client.patch(kinds.NODE.path(None, node), ttl)
        yield []


@breakage(
    breaks={"pods/host/host_port": r"asks http://\S+ of Pod \S+/other on \S+-node-2: not within"},
    keeps=["pods/host/names"],
)
def ports_of_a_node_not_mapped(subject: Subject) -> Damage:
    """One node maps no port of its pods."""
    node = subject.state.nodes[1]
    path = subject.state.node_folder(node) / "lib/cni/net.d/10-clusterproof.conflist"
    before = path.read_text()
    sound = json.loads(before)
    fewer = {**sound, "plugins": [each for each in sound["plugins"] if each["type"] != "portmap"]}
    # Written, not moved there: containerd reads its configuration again only when a file is written or goes.
    try:
        path.write_text(json.dumps(fewer))
        yield []
    finally:
        path.write_text(before)
        subject.await_ready(node.name)


unlike(
    "pod_deadlines_ignored",
    "Pods may be active for as long as they like.",
    forgotten("activeDeadlineSeconds"),
    breaks={"pods/lifecycle/active_deadline": r"Pod \S+/late has phase Failed: not within"},
    keeps=["pods/lifecycle/grace"],
)
unlike(
    "pod_deadlines_early",
    "Pods that have a deadline may be active for a second, also those that have longer.",
    "has(object.spec.activeDeadlineSeconds) ? "
    '[JSONPatch{op: "replace", path: "/spec/activeDeadlineSeconds", value: 1}] : []',
    breaks={"pods/lifecycle/active_deadline": r"late may be active for 8 s, and failed [0-6]\.\d s after its creation"},
    keeps=["pods/lifecycle/grace"],
)


def _named(name: str, change: str) -> str:
    """A change of the pods of this name alone: those of the cluster itself are to go on."""
    return f'has(object.metadata.name) && object.metadata.name == "{name}" ? [{change}] : []'


def _restarts(policy: str) -> str:
    return _named("tries", f'JSONPatch{{op: "replace", path: "/spec/restartPolicy", value: "{policy}"}}')


unlike(
    "failed_containers_not_restarted",
    "Containers that have failed are not restarted, although that is what they are to be.",
    _restarts("Never"),
    breaks={"pods/lifecycle/restart_on_failure": r"Pod \S+/tries succeeded: it failed"},
    keeps=["pods/lifecycle/grace"],
)
unlike(
    "finished_containers_restarted",
    "Containers that have succeeded are restarted, although only those that fail are to be.",
    _restarts("Always"),
    breaks={"pods/lifecycle/restart_on_failure": r"Pod \S+/tries succeeded: not within"},
    keeps=["pods/lifecycle/grace"],
)
unlike(
    "processes_apart",
    "Containers never see the processes of another one of their pod.",
    forgotten("shareProcessNamespace"),
    breaks={"pods/lifecycle/shared_processes": r"container main does not see 'sleep 98765' of the other one"},
    keeps=["pods/lifecycle/grace"],
)
unlike(
    "services_not_told",
    "Containers are not told of the Services there are, although they ask for that.",
    'has(object.metadata.name) && object.metadata.name.startsWith("linked-") ? '
    '[JSONPatch{op: "replace", path: "/spec/enableServiceLinks", value: false}] : []',
    breaks={"pods/config/service_variables": r"Pod \S+/linked-2 differ: WEB_SERVICE_HOST is None, not"},
    keeps=["pods/config/missing"],
)
unlike(
    "full_host_names_forgotten",
    "Pods that want their full name as host name get the short one.",
    "has(object.spec.setHostnameAsFQDN) && object.spec.setHostnameAsFQDN ? "
    '[JSONPatch{op: "remove", path: "/spec/setHostnameAsFQDN"}] : []',
    breaks={"pods/host/names": r"as-node: its host name is me, not me\.us\."},
    keeps=["pods/host/host_port"],
)
unlike(
    "first_failure_counts",
    "Containers are restarted when a liveness probe has failed once, however often it may fail.",
    _named("shaky", 'JSONPatch{op: "replace", path: "/spec/containers/0/livenessProbe/failureThreshold", value: 1}'),
    breaks={"pods/probes/failure_threshold": r"Pod \S+/shaky was restarted \d+ times; its probe failed twice"},
    keeps=["pods/probes/liveness"],
)
unlike(
    "probes_wait_for_ever",
    "Probes that are not answered in time have not failed.",
    "has(object.spec.containers[0].readinessProbe) ? "
    '[JSONPatch{op: "replace", path: "/spec/containers/0/readinessProbe/timeoutSeconds", value: 3600}] : []',
    breaks={"pods/probes/timeout": r"Pod \S+/hangs has condition Ready=False .*: not within"},
    keeps=["pods/probes/readiness"],
)
unlike(
    "secret_volumes_optional",
    "Pods start although the Secret that they mount does not exist.",
    "has(object.spec.volumes) && has(object.spec.volumes[0].secret) ? "
    '[JSONPatch{op: "add", path: "/spec/volumes/0/secret/optional", value: true}] : []',
    breaks={"pods/config/missing": r"tell of 'secret \"safe\" not found': not within"},
    keeps=["pods/config/immutable"],
)
unlike(
    "tolerations_end_at_once",
    "Pods that tolerate a taint for a while are sent off at once.",
    "[0, 1, 2, 3, 4].filter(i, oldObject == null && has(object.spec.tolerations) && "
    "i < size(object.spec.tolerations) && has(object.spec.tolerations[i].tolerationSeconds)).map(i, "
    'JSONPatch{op: "replace", path: "/spec/tolerations/" + string(i) + "/tolerationSeconds", value: 0})',
    breaks={"scheduling/taints/no_execute": r"tolerates the taint for 6 s, and had to end in|before leaves"},
    keeps=["scheduling/taints/no_schedule"],
)


@breakage(
    breaks={"health/certificates": r"the kubelet of Node \S+-node-2 MUST refuse TLS older than 1.2, but answers 40\d"},
    keeps=["health/nodes"],
)
def kubelet_takes_old_tls(subject: Subject) -> Damage:
    """The kubelet of one node still speaks TLS 1.0 and 1.1."""
    suites = ["TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA", "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA"]
    suites += ["TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"]  # for HTTP/2
    with subject.kubelet_config(subject.nodes[1], tlsMinVersion="VersionTLS10", tlsCipherSuites=suites):
        yield []


@breakage(
    breaks={"pods/resources/pod_limit": r"under its limit of 64Mi a container that uses 256 MiB ended with 0"},
    keeps=["pods/resources/qos"],
    scale=0.5,
)
def limits_of_whole_pods_ignored(subject: Subject) -> Damage:
    """Nodes hold whole pods to no limit of memory, by their control groups or by those of their containers."""
    with (
        kubelets(subject, cgroupsPerQOS=False, enforceNodeAllocatable=[]),
        runtime(subject, 'linux["resources"].pop("memory", None)'),
    ):
        yield []
