"""What a run on a cluster will be able to prove, found out before it, without changing anything.

Rights are asked for; what admission makes of a namespace and a pod of ours is seen by creating them as a dry run.
"""

from __future__ import annotations

import enum
import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from clusterproof import catalog, facts, images, kinds, manifests
from clusterproof.client import Client
from clusterproof.cluster import schedulable
from clusterproof.doctor import admission, needs
from clusterproof.errors import ApiError, SurroundingsError
from clusterproof.external import lacking
from clusterproof.namespace import RUN_LABEL
from clusterproof.objects import Object
from clusterproof.outcome import ClusterFacts
from clusterproof.provider import Access

ENFORCE = "pod-security.kubernetes.io/enforce"
"""Label by which a namespace enforces a Pod Security level."""

_DRY = {"dryRun": "All"}
_SMALL = {"cpu": "1m", "memory": "8Mi"}


class Weight(enum.StrEnum):
    """What a finding means for a run."""

    HINDERS = "hinders"
    """Rights or rules of the cluster keep promises from being proven, or will break them."""
    UNSUPPORTED = "unsupported"
    """The cluster claims no such capability: its promises will be unsupported."""
    TOLD = "told"
    """Worth knowing; nothing may come of it."""
    FINE = "fine"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    topic: str
    """`rights`, `nodes`, `admission`, ..."""
    weight: Weight
    what: str
    """One sentence, with what was seen."""
    promises: tuple[str, ...] = ()
    """Which promises it is about: ids, or files of them (`apps/deployment`)."""
    advice: str = ""
    """What to do about it."""


@dataclass(frozen=True, slots=True)
class Examination:
    """Everything that was found."""

    cluster: ClusterFacts
    findings: tuple[Finding, ...]

    @property
    def hindered(self) -> bool:
        """Whether rights or rules keep something from being proven."""
        return any(each.weight is Weight.HINDERS for each in self.findings)


@dataclass(slots=True)
class Doctor:
    """Looks at a cluster with one identity."""

    client: Client
    access: Access
    declared: tuple[str, ...] = ()
    """Names of capabilities that the user vouches for."""
    name: str = field(default_factory=lambda: f"clusterproof-doctor-{secrets.token_hex(3)}")
    """Of the objects that are created as a dry run."""

    def examine(self) -> Examination:
        """Look at everything; SurroundingsError when the connection is lost meanwhile."""
        found = facts.detect(self.client, self.access, self.declared)
        looks: tuple[Callable[[], Iterable[Finding]], ...] = (
            self._rights,
            self._nodes,
            self._namespaces,
            self._quotas,
            self._pods,
            self._admission,
        )
        findings = [each for look in looks for each in look()]
        return Examination(found, (*findings, *_capabilities(found)))

    def _rights(self) -> Iterator[Finding]:
        missing = [need for need in needs.NEEDS if not needs.may(self.client, need)]
        for need in missing:
            yield Finding(
                "rights",
                Weight.HINDERS,
                f"the kubeconfig's user may not {need}",
                needs.who_needs(need),
                f"grant `{need.verb}` on `{need.resource}`"
                + (f" in API group {need.group}" if need.group else "")
                + (" to prove them" if need.uses else ": without it no run starts"),
            )
        if not missing:
            yield Finding("rights", Weight.FINE, f"all {len(needs.NEEDS)} rights that the suites need are granted")

    def _nodes(self) -> Iterator[Finding]:
        raw, refused = self._listed(kinds.NODE.path())
        if refused:
            yield Finding("nodes", Weight.TOLD, f"nodes cannot be looked at: {refused}")
            return
        nodes = [Object.of(self.client, each, kinds.NODE) for each in raw]
        free = [node for node in nodes if schedulable(node)]
        others = "; ".join(lacking(node for node in nodes if not schedulable(node)))
        if not free:
            yield Finding(
                "nodes",
                Weight.HINDERS,
                f"no node takes pods: {others or 'there are none'}",
                ("every promise",),
                "remove the taint from a node, or add one that takes pods without a toleration",
            )
        elif others:
            yield Finding("nodes", Weight.TOLD, f"{len(free)} of {len(nodes)} nodes take pods, but {others}")
        else:
            yield Finding("nodes", Weight.FINE, f"{len(nodes)} of {len(nodes)} nodes are Ready and take pods")
        yield from self._images(free)

    def _images(self, nodes: list[Object]) -> Iterator[Finding]:
        for reference in images.resolve().all:
            lack = [node.name for node in nodes if reference not in _images_of(node)]
            if lack:
                yield Finding(
                    "images",
                    Weight.TOLD,
                    f"{reference} is not named by {', '.join(lack)}: it will be pulled",
                    advice="where the nodes cannot reach its registry: --image-registry and `clusterproof images`",
                )

    def _namespaces(self) -> Iterator[Finding]:
        for level in ("restricted", "baseline", "privileged"):
            labels = {ENFORCE: level}
            about = needs.who_uses(rf'pod_security\("{level}"\)') if level != "restricted" else ("every promise",)
            try:
                made = self.client.post(kinds.NAMESPACE.path(), self._namespace(labels), _DRY)
            except ApiError as refused:
                if needs.is_missing_right(refused):
                    return  # told among the rights
                yield Finding(
                    "namespaces",
                    Weight.HINDERS,
                    f"a namespace that enforces Pod Security {level} would be refused: {refused.message}",
                    about,
                    "exempt namespaces named cp-* from that rule",
                )
                continue
            now = made["metadata"].get("labels") or {}
            if now.get(ENFORCE) != level:
                yield Finding(
                    "namespaces",
                    Weight.HINDERS,
                    f"a namespace that asks for Pod Security {level} is changed to {now.get(ENFORCE, 'none')}",
                    about,
                    "exempt namespaces named cp-* from that rule",
                )
            added = sorted(set(now) - {*labels, "kubernetes.io/metadata.name"})
            if added and level == "restricted":
                yield Finding("namespaces", Weight.TOLD, f"fresh namespaces get the labels {', '.join(added)}")

    def _namespace(self, labels: dict[str, str]) -> dict[str, Any]:
        return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.name, "labels": labels}}

    def _quotas(self) -> Iterator[Finding]:
        spaces, refused = self._listed(kinds.NAMESPACE.path())
        users = {each["metadata"]["name"] for each in spaces} - {"default"}
        users = {name for name in users if not name.startswith("kube-")}
        for kind in (kinds.RESOURCE_QUOTA, kinds.LIMIT_RANGE):
            items, forbidden = self._listed(kind.path())
            if refused or forbidden:
                yield Finding("quotas", Weight.TOLD, f"{kind.plural} cannot be looked at: {refused or forbidden}")
                continue
            alike = Counter(
                each["metadata"]["name"] for each in items if each["metadata"]["namespace"] in users
            ).most_common()
            for name, number in alike:
                if number < max(2, len(users) * 0.5):
                    continue
                one = next(each for each in items if each["metadata"]["name"] == name)
                yield Finding(
                    "quotas",
                    Weight.HINDERS if kind == kinds.RESOURCE_QUOTA else Weight.TOLD,
                    f"{number} of {len(users)} namespaces have a {kind} {name} ({_limits(one)}): whatever gives it to "
                    "them may give it to fresh ones, too",
                    ("every promise with pods",),
                    "exempt namespaces named cp-* from it, or leave room for 20 pods without requests in each",
                )

    def _pods(self) -> Iterator[Finding]:
        """What becomes of a pod of ours, in namespace default, which every cluster has."""
        pod = manifests.pod(self.name, images.resolve().agnhost, args=["pause"])
        small = manifests.pod(
            self.name,
            images.resolve().agnhost,
            args=["pause"],
            resources={"requests": _SMALL, "limits": _SMALL},
        )
        for sent in (pod, small):
            try:
                made = self.client.post(kinds.POD.path("default"), sent, _DRY)
            except ApiError as refused:
                if needs.is_missing_right(refused):
                    return
                quota = "quota" in refused.message
                yield Finding(
                    "admission",
                    Weight.TOLD if quota or "does not support dry run" in refused.message else Weight.HINDERS,
                    f"a pod fit for Pod Security restricted{'' if sent is pod else ', with requests and limits,'} "
                    f"would be refused in namespace default: {refused.message}",
                    () if quota else ("every promise with pods",),
                    "see whether the same holds in fresh namespaces" if quota else "exempt namespaces named cp-*",
                )
                if not quota:
                    return
                continue
            changes = admission.changes(sent, made)
            if changes:
                yield Finding(
                    "admission",
                    Weight.HINDERS,
                    f"pods are changed before they are stored: {'; '.join(changes)}",
                    ("every promise with pods",),
                    "exempt namespaces named cp-* from what changes them, or expect promises about these fields broken",
                )
            else:
                yield Finding("admission", Weight.FINE, "a pod of ours is accepted and stored as it was sent")
            return

    def _admission(self) -> Iterator[Finding]:
        rules, refused = admission.rules(self.client)
        for why in refused:
            yield Finding("admission", Weight.TOLD, why)
        for rule in rules:
            if rule.meets({"kubernetes.io/metadata.name": "cp-0", ENFORCE: "restricted", RUN_LABEL: "any"}):
                yield Finding(
                    "admission",
                    Weight.TOLD,
                    f"{rule} meets pods of fresh namespaces",
                    advice=f"should promises break by it: exempt namespaces with the label {RUN_LABEL}",
                )

    def _listed(self, path: str) -> tuple[list[dict[str, Any]], str]:
        """The items of a collection, or why they cannot be had."""
        try:
            return self.client.get(path)["items"], ""
        except ApiError as refused:
            return [], refused.message


def _capabilities(found: ClusterFacts) -> Iterator[Finding]:
    promises = catalog.scan([catalog.root()])
    for claim in found.capabilities:
        about = tuple(each.id for each in promises if claim.name in each.capabilities)
        if claim.supported:
            yield Finding("capabilities", Weight.FINE, f"{claim.name}: {claim.evidence}", about)
        elif about:
            advice = f"where the cluster should have it: --capabilities={claim.name}"
            yield Finding("capabilities", Weight.UNSUPPORTED, f"{claim.name}: {claim.evidence}", about, advice)


def _images_of(node: Object) -> set[str]:
    return {name for image in node.status.get("images") or [] for name in image.get("names") or []}


def _limits(raw: dict[str, Any]) -> str:
    spec = raw.get("spec") or {}
    if "hard" in spec:
        return ", ".join(f"{name}={amount}" for name, amount in sorted(spec["hard"].items()))
    return ", ".join(str(each.get("type")) for each in spec.get("limits") or [])


def examine(client: Client, access: Access, declared: tuple[str, ...] = ()) -> Examination:
    """What a run on this cluster will be able to prove; SurroundingsError when it cannot be reached."""
    try:
        return Doctor(client, access, declared).examine()
    except ApiError as error:
        raise SurroundingsError(f"{client.server}: {error}") from error
