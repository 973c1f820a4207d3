"""What a run found out, as data: every report is a reader of these classes and of nothing else."""

from __future__ import annotations

import dataclasses
import enum
from dataclasses import dataclass, field
from typing import Any

SCHEMA_VERSION = "1.0"
"""Version of the result document; the major number changes when a reader of the old one would be misled."""


class Outcome(enum.StrEnum):
    """What is known about one promise after it was tried."""

    KEPT = "kept"
    """The promise was seen to hold."""
    BROKEN = "broken"
    """The cluster did not do what it promises."""
    UNSUPPORTED = "unsupported"
    """The capability is neither declared nor found; `reason` says what was looked for."""
    SKIPPED = "skipped"
    """The user asked not to prove it."""
    ERROR = "error"
    """The surroundings failed, so nothing was learned about the promise."""
    FLAKY = "flaky"
    """Broken, then kept when it was proven once more in a fresh namespace; never counted as kept."""


@dataclass(frozen=True, slots=True)
class Step:
    """One thing a promise did or waited for, in order."""

    name: str
    started: float
    """Seconds since the epoch."""
    seconds: float
    passed: bool = True
    detail: str = ""
    """What was missing, when it did not pass."""


@dataclass(frozen=True, slots=True)
class Attachment:
    """A piece of evidence, kept only when a promise did not hold; already capped and redacted."""

    name: str
    media_type: str
    text: str


@dataclass(frozen=True, slots=True)
class Availability:
    """What one client saw that asked at a steady rate while something else went on, interval by interval."""

    url: str
    asked_from: str
    """Where the client stood and how it connected: `the runner, a new connection each time`."""
    started: float
    """Seconds since the epoch."""
    interval: float
    """Seconds that each of the following numbers stands for."""
    answered: tuple[int, ...]
    failed: tuple[int, ...]
    slowest: tuple[float, ...]
    """Seconds that the slowest request of each interval took; 0 where none ended."""
    longest_gap: float
    """Longest time in seconds without a good answer."""


@dataclass(frozen=True, slots=True)
class Rights:
    """What somebody was granted, and what they were answered when they tried it."""

    who: str
    granted: tuple[str, ...]
    """Verbs with what they are done to: `get configmaps`."""
    answers: dict[str, int]
    """HTTP status of each request that was tried, by verb and resource."""


@dataclass(frozen=True, slots=True)
class Result:
    """The outcome of one promise, or of one case of it."""

    id: str
    """Stable report id: `apps/deployment/rolling_update`, with `[case]` where there are several."""
    nodeid: str
    """The id pytest selects it by; differs between a checkout and an installed wheel."""
    promise: str
    """The sentence that must hold: the first sentence of the test's docstring."""
    source: str
    """Where Kubernetes documents it: a URL, or empty."""
    tier: str
    """smoke, normal, full or disruptive."""
    capabilities: tuple[str, ...]
    """Names of the capabilities it needs beyond what every cluster must do."""
    outcome: Outcome
    reason: str = ""
    """One line: why it is not kept. Empty for kept."""
    message: str = ""
    """Everything the failure said, several lines; of a flaky promise, what its first try said."""
    started: float = 0.0
    """Seconds since the epoch."""
    seconds: float = 0.0
    """Wall time of set-up, call and teardown together, of all tries."""
    worker: str = ""
    """Name of the process that proved it: `main`, `gw0`, ..."""
    namespaces: tuple[str, ...] = ()
    steps: tuple[Step, ...] = ()
    measurements: dict[str, float] = field(default_factory=dict)
    """Figures the promise reports, by name with unit: `{"time to recover (s)": 1.2}`."""
    attachments: tuple[Attachment, ...] = ()
    requests: int = 0
    """API requests this promise made."""
    cluster: str = ""
    """UID of the cluster it was proven on; a run that was resumed may have had two."""
    tries: int = 1
    """How often it was proven: twice where `--retry-broken` was given and it was broken at first."""
    availability: tuple[Availability, ...] = ()
    """What its probes saw, one for each client."""
    rights: tuple[Rights, ...] = ()
    """Who was allowed what, where it is about that."""

    @property
    def area(self) -> str:
        """First part of the id: `apps`."""
        return self.id.split("/", 1)[0]

    @property
    def object(self) -> str:
        """Middle part of the id, or the area where there is none: `deployment`."""
        parts = self.id.split("[", 1)[0].split("/")
        return parts[1] if len(parts) > 2 else parts[0]


@dataclass(frozen=True, slots=True)
class CapabilityFact:
    """Whether the cluster under proof claims a capability, and how we know."""

    name: str
    level: str
    """`extended`: a cluster may lack it. What every cluster must do needs no capability."""
    supported: bool
    evidence: str
    """`declared by the embedded provider`, `found IngressClass contour`, `no default StorageClass`."""


@dataclass(frozen=True, slots=True)
class NodeFact:
    """One node as the run found it."""

    name: str
    version: str
    """kubelet version, `v1.37.2`."""
    os_image: str
    kernel: str
    runtime: str
    ready: bool
    seen_by: str = ""
    """How it was looked at from inside: `ssh`, `docker`, ...; empty when it was not."""
    cgroup: str = ""
    """Version of its control groups, `v1` or `v2`; empty when it was not looked at."""
    clock_offset: float | None = None
    """Seconds that its clock was ahead of the observer's; null when it was not looked at."""


@dataclass(frozen=True, slots=True)
class ClusterFacts:
    """The cluster as the run found it before the first promise."""

    name: str
    provider: str
    server: str
    """URL of the API server."""
    version: str
    """gitVersion of the API server."""
    uid: str
    """UID of namespace kube-system: the cluster's identity. Empty where the kubeconfig's user may not read it."""
    nodes: tuple[NodeFact, ...]
    capabilities: tuple[CapabilityFact, ...]
    kinds: tuple[str, ...] = ()
    """Every kind its API serves, by apiVersion: `apps/v1 Deployment`; empty where it was not recorded."""


class Verdict(enum.StrEnum):
    """What a profile came to."""

    CONFORMANT = "conformant"
    """Every promise of the profile that the cluster claims is kept."""
    BROKEN = "broken"
    """At least one promise is broken."""
    PARTIAL = "partial"
    """Nothing is broken, but something was flaky, skipped, not run, or ended in an error."""


@dataclass(frozen=True, slots=True)
class ProfileVerdict:
    """The verdict of one profile and the counts it rests on."""

    profile: str
    verdict: Verdict
    counts: dict[str, int]
    """Number of results by outcome name."""
    reason: str
    """One line: which promises decided it."""


@dataclass(frozen=True, slots=True)
class Suites:
    """The suites that a run took its promises from."""

    sha256: str
    """Of their sources: of a line `<sha256 of the file>  <path>` for each, sorted by path."""
    promises: tuple[str, ...]
    """Ids, without a case, of all promises there are, so that those that were not selected show."""


@dataclass(frozen=True, slots=True)
class Shard:
    """Which part of a run that was divided among several this is."""

    number: int
    """From 1."""
    of: int
    promises: tuple[str, ...]
    """Ids of all promises that were divided, so that a part that is missing shows."""


@dataclass(frozen=True, slots=True)
class Run:
    """A whole run: the result document."""

    id: str
    suite_version: str
    """Version of clusterproof."""
    started: float
    """Seconds since the epoch."""
    seconds: float
    complete: bool
    """False when it was interrupted, stopped by -x, or lost a worker."""
    arguments: tuple[str, ...]
    """What pytest was called with, secrets left out."""
    expected: tuple[str, ...]
    """Ids of all promises that were selected, so that an omission shows."""
    cluster: ClusterFacts | None
    results: tuple[Result, ...]
    profiles: tuple[ProfileVerdict, ...]
    earlier_clusters: tuple[ClusterFacts, ...] = ()
    """Clusters other than `cluster` that something was proven on before the run was interrupted and resumed."""
    shard: Shard | None = None
    """None where the run was not divided."""
    leaks: tuple[str, ...] = ()
    """Objects of this run that were still there at its end: `kind namespace/name`."""
    suites: Suites | None = None
    """None where the promises are not those of the suites."""
    schema: str = SCHEMA_VERSION

    @property
    def counts(self) -> dict[str, int]:
        """Number of results by outcome name, all outcomes present."""
        return count(self.results)


def count(results: tuple[Result, ...]) -> dict[str, int]:
    """Number of results by outcome name, all outcomes present."""
    return {outcome.value: sum(r.outcome is outcome for r in results) for outcome in Outcome}


def to_json(value: Any) -> dict[str, Any]:
    """A dataclass of this module as plain JSON values."""
    return dataclasses.asdict(value)
