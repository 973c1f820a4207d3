"""Runs made by hand: what every report has to cope with."""

from __future__ import annotations

from dataclasses import replace

from clusterproof.outcome import (
    Attachment,
    Availability,
    CapabilityFact,
    ClusterFacts,
    NodeFact,
    Outcome,
    ProfileVerdict,
    Result,
    Rights,
    Run,
    Step,
    Verdict,
    count,
)

START = 1_795_000_000.0
ODD = "a|b `c` <d> & ]]> \x00\x07\x1b[31mred\x1b[0m \ud800 *e* _f_ [g](h) \\ 😀 \ufffe $1 #2 ~~x~~"
"""Each character here breaks some format when it is written as it is."""

EVIDENCE = (
    Attachment("events", "text/plain", "Warning BackOff"),
    Attachment("web.yaml", "application/yaml", "kind: Pod\n"),
)


def result(result_id: str, outcome: Outcome = Outcome.KEPT, reason: str = "", **more: object) -> Result:
    """A result with everything in it that its outcome leads to."""
    area, name = result_id.split("/", 1)
    made = Result(
        id=result_id,
        nodeid=f"suites/{area}/test_{name.split('/')[0]}.py::test_{result_id.rsplit('/', 1)[-1]}",
        promise=f"The {name.replace('/', ' ')} MUST hold.",
        source="https://kubernetes.io/docs/concepts/",
        tier="normal",
        capabilities=(),
        outcome=outcome,
        reason=reason,
        message=f"{reason}\nE   assert 1 == 2\n" if outcome in (Outcome.BROKEN, Outcome.FLAKY, Outcome.ERROR) else "",
        started=START,
        seconds=1.5,
        worker="gw0",
        namespaces=("cp-1-a",),
        steps=(
            Step("create Deployment cp-1-a/web", START, 0.1),
            Step("Deployment cp-1-a/web: rolled out", START + 0.1, 1.2, outcome is Outcome.KEPT, reason),
        ),
        attachments=(
            (
                Attachment("events", "text/plain", "Warning BackOff"),
                Attachment("web.yaml", "application/yaml", "kind: Pod\n"),
            )
            if outcome in (Outcome.BROKEN, Outcome.FLAKY, Outcome.ERROR)
            else ()
        ),
        requests=12,
    )
    return replace(made, **more)  # type: ignore[arg-type]


def run(*results: Result, **changes: object) -> Run:
    """A complete run of the given results; keyword arguments replace its fields."""
    made = Run(
        id="run-1",
        suite_version="0.1.0",
        started=START,
        seconds=42.0,
        complete=True,
        arguments=("suites/", "-n", "4"),
        expected=tuple(each.id for each in results),
        cluster=CLUSTER,
        results=results,
        profiles=(ProfileVerdict("core", Verdict.CONFORMANT, count(results), "all promises are kept"),),
    )
    return replace(made, **changes)  # type: ignore[arg-type]


CLUSTER = ClusterFacts(
    name="prod-eu",
    provider="external",
    server="https://10.0.0.1:6443",
    version="v1.37.2",
    uid="5b4d2f5e-0c7c-4a53-9d84-0d2a0b6f3f10",
    nodes=(
        NodeFact("node-1", "v1.37.2", "Debian GNU/Linux 12", "6.1.0", "containerd://2.4.2", True),
        NodeFact("node-2", "v1.37.1", "Debian GNU/Linux 12", "6.1.0", "containerd://2.4.2", False),
    ),
    capabilities=(
        CapabilityFact("access.certificates", "extended", True, "found API group certificates.k8s.io"),
        CapabilityFact("network.ingress", "extended", True, "found IngressClass contour"),
        CapabilityFact("network.loadbalancer", "extended", False, "no Service of type LoadBalancer has an address"),
    ),
)

SEEN = Availability(
    url="http://web.cp-1-a/hostname",
    asked_from="pod cp-1-a/probe on node-1, a new connection each time",
    started=START,
    interval=0.5,
    answered=(30, 28, 0, 29),
    failed=(0, 2, 30, 0),
    slowest=(0.012, 1.5, 1.5, 0.02),
    longest_gap=0.75,
)
TRIED = Rights(
    who="cp-1-a-somebody",
    granted=("get configmaps", "list secrets"),
    answers={"get configmaps": 200, "list configmaps": 403, "get secrets": 200, "list secrets": 200},
)
"""May get secrets, which was not granted."""

EVERY_OUTCOME = (
    result("health/livez", seconds=0.2, tier="smoke"),
    result("apps/deployment/self_heal", tier="smoke", measurements={"time to recover (s)": 1.25}),
    result(
        "apps/deployment/rolling_update",
        Outcome.BROKEN,
        "rolled out: not within 30 s; 1/3 pods run the new template; last seen: web-7c9f ErrImagePull",
        availability=(SEEN,),
    ),
    result("apps/job/completion[indexed]"),
    result("apps/job/completion[parallel]"),
    result("access/rbac/matrix", capabilities=("access.certificates",), rights=(TRIED,)),
    result(
        "network/ingress/routing", Outcome.ERROR, "image agnhost could not be pulled", capabilities=("network.ingress",)
    ),
    result(
        "network/service/load_balancer",
        Outcome.UNSUPPORTED,
        "network.loadbalancer: no Service of type LoadBalancer has an address",
        capabilities=("network.loadbalancer",),
    ),
    result("apps/job/suspend", Outcome.FLAKY, "broken at first, kept in a fresh namespace: not within 30 s", tries=2),
    result("api/restart", Outcome.SKIPPED, "disruptive: needs --disruptive", tier="disruptive"),
)


def mixed_run(**changes: object) -> Run:
    """A run with every outcome in it."""
    verdicts = (
        ProfileVerdict("core", Verdict.BROKEN, count(EVERY_OUTCOME[:6]), "apps/deployment/rolling_update is broken"),
        ProfileVerdict(
            "networking", Verdict.PARTIAL, count(EVERY_OUTCOME[6:8]), "network/ingress/routing ended in an error"
        ),
    )
    return run(*EVERY_OUTCOME, **{"profiles": verdicts, "leaks": ("ConfigMap cp-1-a/left",), **changes})


def odd_run() -> Run:
    """A run with odd characters wherever a cluster or a test can put them."""
    odd = result(
        f"odd/object/promise[{ODD}]",
        Outcome.BROKEN,
        ODD,
        promise=ODD,
        message=f"{ODD}\n```\n{ODD}",
        measurements={ODD: 1.0},
        steps=(Step(ODD, START, 0.1, False, ODD),),
        attachments=(Attachment(ODD, "text/plain", ODD),),
    )
    return run(odd, cluster=replace(CLUSTER, name=ODD), leaks=(ODD,))


def huge_run() -> Run:
    """A run with one promise that had far too much to say."""
    text = "x" * 3_000_000
    evidence = (Attachment("log", "text/plain", text),)
    return run(result("huge/object/promise", Outcome.BROKEN, "too much", message=text, attachments=evidence))
