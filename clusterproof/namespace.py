"""A namespace of its own for a promise: everything the promise creates in it goes with it."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from clusterproof import kinds, manifests, steps
from clusterproof.client import Client, Response
from clusterproof.conditions import exists
from clusterproof.errors import ApiError, NeverHappened, SurroundingsError
from clusterproof.kinds import Kind
from clusterproof.objects import MANAGER, Object, Selection
from clusterproof.steps import step
from clusterproof.wait import eventually

if TYPE_CHECKING:
    from clusterproof.cluster import Cluster

T = TypeVar("T")

RUN_LABEL = "clusterproof.dev/run"
"""Carried by every object that a run creates; its value is the run's id."""
RUNS_PODS = {
    kinds.POD,
    kinds.REPLICATION_CONTROLLER,
    kinds.REPLICA_SET,
    kinds.DEPLOYMENT,
    kinds.STATEFUL_SET,
    kinds.DAEMON_SET,
    kinds.JOB,
    kinds.CRON_JOB,
}
"""Kinds whose objects are pods or have some."""


@dataclass(frozen=True, slots=True)
class Namespace:
    """A namespace, seen with one identity's rights."""

    name: str
    cluster: Cluster
    client: Client

    def create(self, manifest: dict[str, Any]) -> Object:
        """Create an object in this namespace, labelled with the run; ApiError when it is refused."""
        kind, fit = kinds.of(manifest), self._fit(manifest)
        with step(f"create {kind} {manifest['metadata'].get('name', '')}"):
            return self._accounted(lambda: create(self.client, kind, fit, self.cluster.run_id, self.name))

    def would_store(self, manifest: dict[str, Any]) -> dict[str, Any]:
        """What would be stored of an object in this namespace; nothing is. ApiError when it is refused."""
        path = kinds.of(manifest).path(self.name)
        return self._accounted(lambda: self.client.post(path, self._fit(manifest), {"dryRun": "All"}))

    def answer_to(self, manifest: dict[str, Any]) -> Response:
        """How creating an object in this namespace would be answered, whatever that is; nothing is stored."""
        path = kinds.of(manifest).path(self.name)
        return self.client.request("POST", path, body=self._fit(manifest), query={"dryRun": "All"})

    def _fit(self, manifest: dict[str, Any]) -> dict[str, Any]:
        return manifests.for_linux(manifest) if self.cluster.mixed and kinds.of(manifest) in RUNS_PODS else manifest

    def _accounted(self, post: Callable[[], T]) -> T:
        """Post what may have pods, once more where the namespace's service account was not there yet."""
        try:
            return post()
        except ApiError as refused:
            if f"error looking up service account {self.name}/default:" not in refused.message:
                raise
        # The API server itself waits for it for a second or two, which is too short for a busy cluster.
        account = Object(self.cluster.client, kinds.SERVICE_ACCOUNT, "default", self.name)
        eventually(account, exists, within=self.cluster.settings.timeouts.object)
        return post()

    def object(self, kind: Kind, name: str) -> Object:
        """A handle on an object that may or may not exist; makes no request."""
        return Object(self.client, kind, name, self.name if kind.namespaced else "")

    def get(self, kind: Kind, name: str) -> Object:
        """Read an object; ApiError with status 404 when there is none."""
        return self.object(kind, name).read()

    def list(self, kind: Kind, labels: str = "", fields: str = "") -> list[Object]:
        """The objects of a kind, by name."""
        return self.select(kind, labels, fields).read()

    def select(self, kind: Kind, labels: str = "", fields: str = "") -> Selection:
        """The objects of a kind that match, to be waited for or read."""
        return Selection(self.client, kind, self.name, labels, fields)

    def pods(self, labels: str = "") -> Selection:
        """The pods that match."""
        return self.select(kinds.POD, labels)

    @property
    def pull_secrets(self) -> tuple[dict[str, str], ...]:
        """The Secret by which its pods get the images of the suites, as `imagePullSecrets` has it, if they need one."""
        name = self.cluster.settings.image_pull_secret.partition("/")[2]
        return ({"name": name},) if name else ()

    def as_(self, client: Client) -> Namespace:
        """The same namespace with another identity's rights."""
        return dataclasses.replace(self, client=client)

    def __str__(self) -> str:
        return self.name


def create(client: Client, kind: Kind, manifest: dict[str, Any], run_id: str, namespace: str = "") -> Object:
    """POST a manifest with the run's label added; the object holds the server's answer."""
    metadata = manifest["metadata"]
    labelled = {**metadata, "labels": {**metadata.get("labels", {}), RUN_LABEL: run_id}}
    raw = client.post(kind.path(namespace), {**manifest, "metadata": labelled}, {"fieldManager": MANAGER})
    if namespace not in steps.current.namespaces:
        steps.current.outside.add(kind)
    if kind in RUNS_PODS:
        steps.current.busy.add(namespace)
    if kind == kinds.JOB:
        steps.current.jobs.add(namespace)
    made = Object.of(client, raw, kind)
    made.last_word = True
    return made


def name_of(run_id: str, what: str) -> str:
    """`cp-3f2a1b0c-nodes`: what a namespace of a run is called, unique among runs and short enough for DNS."""
    # Ids that somebody has chosen may begin alike, as those of shards do.
    run = run_id if len(run_id) <= 8 else f"{run_id[:4].strip('-')}{hashlib.sha256(run_id.encode()).hexdigest()[:4]}"
    return f"cp-{run}-{what}"


def open_namespace(cluster: Cluster, name: str, pod_security: str) -> Namespace:
    """Create a namespace of the run that enforces a Pod Security level.

    Its service account, without which no pod can be created, may come a moment later: `Namespace.create` knows that.
    """
    labels = {"pod-security.kubernetes.io/enforce": pod_security}
    manifest = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
    with step(f"create Namespace {name}"):
        create(cluster.client, kinds.NAMESPACE, manifest, cluster.run_id)
        if cluster.settings.image_pull_secret:
            _copy_pull_secret(cluster, name)
    return Namespace(name, cluster, cluster.client)


def close_namespace(namespace: Namespace) -> None:
    """Ask for a namespace's deletion, and for that of its pods at once: nobody can make new ones in it any more.

    The cluster would come to them by itself, but where many namespaces end, minutes later, and until then they run.
    """
    client = namespace.cluster.client
    try:
        Object(client, kinds.NAMESPACE, namespace.name).delete()
    except ApiError as error:
        if error.status != 404:  # a promise may have deleted it itself
            raise
    if namespace.name in steps.current.busy:
        end_pods(client, namespace.name, jobs=namespace.name in steps.current.jobs)


def end_pods(client: Client, namespace: str, *, jobs: bool = True) -> None:
    """Ask for the end of all pods in a namespace that ends, and of Jobs before them; whoever may not has to wait.

    A namespace ends its pods before all else, and a failed pod of a Job with backoffLimitPerIndex stays until another
    has replaced it, which nobody can make there any more: it would never end. And a pod that somebody has given hours
    to end would have them.

    Source: https://kep.k8s.io/5080 and https://kep.k8s.io/3850
    """
    if jobs:
        with contextlib.suppress(ApiError):
            client.delete(kinds.JOB.path(namespace), {"propagationPolicy": "Background"})
    with contextlib.suppress(ApiError):
        client.delete(kinds.POD.path(namespace), {"gracePeriodSeconds": 1})


def _copy_pull_secret(cluster: Cluster, fresh: str) -> None:
    account = Object(cluster.client, kinds.SERVICE_ACCOUNT, "default", fresh)
    try:
        eventually(account, exists, within=cluster.settings.timeouts.object)
    except NeverHappened as error:
        raise SurroundingsError(f"no image can be pulled in Namespace {fresh}: {error}") from error
    namespace, _, name = cluster.settings.image_pull_secret.partition("/")
    try:
        original = cluster.get(kinds.SECRET, name, namespace).raw
    except ApiError as error:
        raise SurroundingsError(f"--image-pull-secret={cluster.settings.image_pull_secret}: {error}") from error
    copy = {key: original[key] for key in ("type", "data")}
    manifest = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, **copy}
    create(cluster.client, kinds.SECRET, manifest, cluster.run_id, account.namespace)
    account.patch({"imagePullSecrets": [{"name": name}]})
