"""Before an upgrade: lays down one of everything, waits until all of it answers, and notes what the cluster is like."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clusterproof import capabilities, images, kinds, manifests, namespace
from clusterproof.capabilities import Capability, Survey
from clusterproof.client import Client
from clusterproof.conditions import complete, equals, exists, has_address, has_condition, rolled_out
from clusterproof.credentials import Credentials
from clusterproof.entrypoint import web_address
from clusterproof.errors import ApiError, NeverHappened, SurroundingsError
from clusterproof.namespace import RUN_LABEL
from clusterproof.objects import Object, Selection
from clusterproof.probes import Connection
from clusterproof.wait import eventually

from . import surface, vantage, workloads
from .folder import Before, Folder

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the user decided about what is laid down."""

    image_registry: str = ""
    ingress_address: str = ""
    """`host:port`; empty to take it from the Ingress's status."""
    load_balancer: bool = False
    """Whether the cluster can be asked for one, though it does not say so itself."""
    rate: int = 5
    """Requests per second of each client."""
    within: float = 180.0
    """Seconds for everything to be in place."""


def prepare(
    folder: Folder, client: Client, kubeconfig: Path, context: str, wishes: Wishes, progress: Progress
) -> Before:
    """Lay everything down; it answers when this returns.

    SurroundingsError names what did not come up. What was made by then stays, for a look at it, until it is removed.
    """
    run = f"upgrade-{secrets.token_hex(3)}"
    before = Before(
        run=run,
        namespace=f"cp-{run}",
        kubeconfig=str(kubeconfig),
        context=context,
        cluster=Object(client, kinds.NAMESPACE, "kube-system").read().uid,
        image=images.resolve(wishes.image_registry).agnhost,
        started=time.time(),
        custom_group=f"{run}.clusterproof.dev",
    )
    folder.make(before)
    laying = _Laying(client, before, time.monotonic() + wishes.within)
    try:
        laying.everything(wishes, progress)
    except (NeverHappened, ApiError) as error:
        raise SurroundingsError(
            f"prepare: {error}; look at namespace {before.namespace}, then remove what was made with: "
            f"clusterproof upgrade verify --remove --state {folder.path}"
        ) from error
    before.complete = True
    folder.save(before)
    return before


class _Laying:
    """Lays down objects, and knows by when they must be in place."""

    def __init__(self, client: Client, before: Before, deadline: float) -> None:
        self._client = client
        self._before = before
        self._deadline = deadline
        self._made: list[Object] = []
        self._survey = Survey(client)

    def everything(self, wishes: Wishes, progress: Progress) -> None:
        before = self._before
        volumes = self._can(capabilities.DYNAMIC_STORAGE, "volumes")
        ingress = self._can(capabilities.INGRESS, "Ingress")
        metrics = self._can(capabilities.METRICS, "HorizontalPodAutoscaler")
        balancer = wishes.load_balancer or self._declares(capabilities.LOAD_BALANCER, "load balancer")
        self._open_namespace()
        self._create(workloads.definition(before.custom_group))
        made = [
            self._create(each)
            for each in (
                *workloads.configuration(),
                *workloads.rights(before.namespace),
                *workloads.policies(),
                *workloads.web(before.image),
                *workloads.keeper(before.image, volumes=volumes),
                *workloads.batch(before.image, volumes=volumes),
                *([manifests.hpa(workloads.WEB, target=workloads.WEB, low=2, high=2)] if metrics else []),
                *([self._ingress()] if ingress else []),
                *([workloads.balanced()] if balancer else []),
            )
        ]
        progress(f"{len(self._made)} objects made in namespace {before.namespace}")
        named = {(each.kind.kind, each.name): each for each in made}
        before.service = named["Service", workloads.WEB].spec["clusterIP"]
        self._custom_objects()
        self._await_workloads(named, volumes=volumes, metrics=metrics)
        if ingress:
            before.ingress = wishes.ingress_address or self._address(named["Ingress", workloads.WEB])
            corrected = f" for host {before.host}, which --ingress-address can correct,"
            self._await_answer(before.ingress, {"Host": before.host}, corrected)
        if balancer:
            front = named["Service", workloads.FRONT]
            before.balancer = self._address(front)
            self._await_answer(before.balancer, {}, f", where {front} says that it is,")
        progress("workloads run and hold their data")
        pods = self._create(vantage.manifest(before, wishes.rate))
        self._wait(pods, rolled_out)
        self._wait(lambda: vantage.silent(self._client, before), _nothing_silent)
        progress(f"pods on {len(vantage.pods(self._client, before))} nodes ask all the time, and are answered")
        self._token(named["ServiceAccount", workloads.READER])
        self._look_around()

    def _can(self, capability: Capability, what: str) -> bool:
        finding = capability.detect(self._survey)
        if not finding.found:
            self._before.unsupported[what] = finding.evidence
        return finding.found

    def _declares(self, capability: Capability, what: str) -> bool:
        """What cannot be found out, and would cost something where it is tried."""
        declared = capability.name in self._survey.declared.get("capabilities", "").split()
        if not declared:
            self._before.unsupported[what] = "not declared; --load-balancer asks for one"
        return declared

    def _create(self, manifest: dict[str, Any]) -> Object:
        kind = kinds.of(manifest)
        where = self._before.namespace if kind.namespaced else ""
        made = namespace.create(self._client, kind, manifest, self._before.run, where)
        self._made.append(made)
        return made

    def _wait(self, source: Any, condition: Any) -> Any:
        return eventually(source, condition, within=max(1.0, self._deadline - time.monotonic()))

    def _open_namespace(self) -> None:
        name = self._before.namespace
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        self._create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
        self._wait(Object(self._client, kinds.SERVICE_ACCOUNT, "default", name), exists)

    def _ingress(self) -> dict[str, Any]:
        chosen = capabilities.served_class(self._survey.ingress_classes)["metadata"]["name"]
        rule = manifests.rule(self._before.host, {"/": workloads.WEB})
        return manifests.ingress(workloads.WEB, rules=[rule], class_name=chosen)

    def _address(self, served: Object) -> str:
        self._wait(served, has_address)
        return web_address(served)

    def _await_answer(self, address: str, headers: dict[str, str], whose: str) -> None:
        visitor = Connection(f"http://{address}/", headers, False, vantage.WITHIN, None)

        def asked() -> str:
            answer = visitor.ask()
            return f"{answer.error} {answer.detail}".strip()

        asked.__name__ = f"http://{address}/{whose}"
        self._wait(asked, equals(""))

    def _custom_objects(self) -> None:
        group = self._before.custom_group
        definition = Object(self._client, kinds.CUSTOM_RESOURCE_DEFINITION, f"keepsakes.{group}")
        self._wait(definition, has_condition("Established"))
        path = workloads.custom_kind(group, workloads.VERSIONS[-1]).path(self._before.namespace)
        self._wait(lambda: self._client.request("GET", path).status, equals(200))
        for manifest in workloads.keepsakes(group):
            # Whatever it was written at, it is looked for at the version that is stored.
            self._create(manifest).kind = workloads.custom_kind(group, workloads.VERSIONS[0])

    def _await_workloads(self, named: dict[tuple[str, str], Object], *, volumes: bool, metrics: bool) -> None:
        keeper = named["StatefulSet", workloads.KEEPER]
        self._wait(named["Deployment", workloads.WEB], rolled_out)
        self._wait(keeper, rolled_out)
        job = self._wait(named["Job", "once"], complete)
        if metrics:
            self._wait(named["HorizontalPodAutoscaler", workloads.WEB], has_condition("ScalingActive"))
        if volumes:
            for pod in keeper.pods().read():
                self._before.volumes[pod.name] = written(pod)
            (filler,) = [pod for pod in job.pods().read() if pod.status.get("phase") == "Succeeded"]
            self._before.volumes[workloads.SHELF] = last_words(filler)
            for claim in Selection(self._client, kinds.PERSISTENT_VOLUME_CLAIM, self._before.namespace).read():
                volume = Object(self._client, kinds.PERSISTENT_VOLUME, claim.spec["volumeName"]).read()
                self._made += [claim, volume]

    def _token(self, account: Object) -> None:
        reader = Credentials(self._client, labels={RUN_LABEL: self._before.run}, within=30)
        lasts = 24 * 3600
        granted = reader.token(account, seconds=lasts)
        self._before.token = str(granted.configuration.api_key["authorization"]).removeprefix("Bearer ")
        self._before.token_until = time.time() + lasts

    def _look_around(self) -> None:
        before, client = self._before, self._client
        before.version = str(client.get("/version")["gitVersion"])
        before.nodes = surface.nodes(client)
        before.surface = surface.surface(client)
        before.foreign_groups = surface.foreign_groups(client)
        before.services = surface.services(client)
        before.containers = surface.containers(client)
        unique: dict[str, dict[str, Any]] = {each.uid: surface.identity(each) for each in self._made}
        before.objects = list(unique.values())


def written(pod: Object) -> str:
    """Write to a pod's volume, unless it holds something; the SHA-256 of what is there."""
    done = pod.exec(["sh", "-c", workloads.FILL])
    if done.code:
        raise SurroundingsError(f"{pod}: its volume cannot be written: {(done.stderr or done.stdout).strip()}")
    return done.stdout.split()[0]


def last_words(pod: Object) -> str:
    """What a pod that has ended left in its status: the SHA-256 of what it found, or why it found nothing."""
    for status in pod.status.get("containerStatuses") or []:
        with contextlib.suppress(KeyError, IndexError):
            said = str(status["state"]["terminated"]["message"]).strip()
            return said.split()[0] if "/data/blob" in said and "sha256sum:" not in said else said
    return "it said nothing"


def _nothing_silent(missing: list[str]) -> str | None:
    return f"no good answer yet: {', '.join(missing)}" if missing else None
