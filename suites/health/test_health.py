"""Health: the control plane, the nodes and what runs on them for the cluster itself are well."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from time import monotonic

import pytest

from clusterproof import (
    Client,
    Cluster,
    Images,
    Namespace,
    NeverHappened,
    Object,
    Response,
    SurroundingsError,
    Timeouts,
    capabilities,
    conditions,
    consistently,
    eventually,
    hollow,
    inside,
    kinds,
    manifests,
    measure,
    tls,
)
from clusterproof.credentials import Credentials
from clusterproof.namespace import RUN_LABEL

PRESSURES = ("MemoryPressure", "DiskPressure", "PIDPressure", "NetworkUnavailable")
OLDEST_KUBELET = 3
"""Minor versions that a kubelet may be behind its API server."""
AGREEMENT = timedelta(seconds=2)
"""How far two clocks of a cluster may be apart."""
SLO = 1.0
"""Seconds that a request for one object may take by Kubernetes' own objective, 1 in 100 left out."""
TURNS = 4
"""In how many turns requests are counted at the most: one may meet a moment in which the machine is busy otherwise."""
CLOSED = ("/api", "/apis", "/api/v1", "/metrics", "/logs/", "/openapi/v2", "/livez/ping", "/debug/pprof/", "/configz")
"""Paths that are no objects and for nobody without credentials."""
CLOSED_KINDS = (kinds.NAMESPACE, kinds.NODE, kinds.POD, kinds.SECRET, kinds.CONFIG_MAP, kinds.CLUSTER_ROLE)
DISCOVERY = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
STABLE = {
    *("admissionregistration.k8s.io/v1", "apiextensions.k8s.io/v1", "apiregistration.k8s.io/v1", "apps/v1"),
    *("authentication.k8s.io/v1", "authorization.k8s.io/v1", "autoscaling/v1", "autoscaling/v2", "batch/v1"),
    *("certificates.k8s.io/v1", "coordination.k8s.io/v1", "discovery.k8s.io/v1", "events.k8s.io/v1"),
    *("flowcontrol.apiserver.k8s.io/v1", "networking.k8s.io/v1", "node.k8s.io/v1", "policy/v1"),
    *("rbac.authorization.k8s.io/v1", "scheduling.k8s.io/v1", "storage.k8s.io/v1"),
}
"""What every API server has served since Kubernetes 1.29, and does not give up: see the deprecation policy."""
_SERVER = "the API server"
_TRUST = r"""
host=$KUBERNETES_SERVICE_HOST port=$KUBERNETES_SERVICE_PORT
ask() {
    said=$(curl -sS -o /dev/null --cacert /trust/ca.crt "$@" 2>&1) || { code=$?; echo "$*: $said" >&2; exit $code; }
}
for name in kubernetes.default.svc kubernetes.default kubernetes; do
    ask --resolve "$name:$port:$host" "https://$name:$port/version"
done
case $host in *:*) host="[$host]";; esac
ask "https://$host:$port/version"
"""
"""Verifies the API server by the names, address and authority that every pod is given, without DNS."""
_OLD_TLS = ("--tlsv1.0", "--tls-max", "1.1", "--ciphers", "DEFAULT@SECLEVEL=0")
"""Options by which curl asks for nothing newer than TLS 1.1."""
_UNREACHABLE = (7, 28)
"""Exit codes of curl when it could not connect, or not in time."""


@pytest.mark.smoke
def test_livez(cluster: Cluster) -> None:
    """The API server MUST answer /livez with 200 and ok, in all and for each check that it lists.

    Source: https://kubernetes.io/docs/reference/using-api/health-checks/
    """
    checks = _prove_health(cluster, "livez")

    assert "ping" in checks, f"/livez does not check ping, only {checks}"


@pytest.mark.smoke
def test_readyz(cluster: Cluster) -> None:
    """The API server MUST answer /readyz with 200 and ok, in all and for each check, its storage and caches included.

    Source: https://kubernetes.io/docs/reference/using-api/health-checks/
    """
    checks = _prove_health(cluster, "readyz")

    missing = {"ping", "etcd", "informer-sync"} - set(checks)
    assert not missing, f"/readyz MUST check {', '.join(sorted(missing))}, but checks only {checks}"


@pytest.mark.smoke
def test_healthz(cluster: Cluster) -> None:
    """The deprecated /healthz MUST still answer 200 and ok, and check nothing that /livez and /readyz do not.

    Source: https://kubernetes.io/docs/reference/using-api/health-checks/
    """
    checks = _prove_health(cluster, "healthz")

    others = {*_checks(_ask(cluster, "/livez?verbose")), *_checks(_ask(cluster, "/readyz?verbose"))}
    assert set(checks) <= others, f"/healthz alone checks {sorted(set(checks) - others)}"


@pytest.mark.smoke
def test_anonymous(namespace: Namespace, credentials: Credentials) -> None:
    """Whoever shows no credentials MUST be refused all but health and version, to read as to write.

    Source: https://kubernetes.io/docs/reference/access-authn-authz/authentication/#anonymous-requests
    """
    kept = namespace.create(manifests.config_map("kept", {"value": "xyzzy"}))
    collection = kinds.CONFIG_MAP.path(namespace.name)
    closed = [*CLOSED, *(kind.path() for kind in CLOSED_KINDS), kinds.SECRET.path("kube-system"), collection, kept.path]
    tried = [("GET", path, None) for path in closed] + [
        ("POST", collection, manifests.config_map("intruder")),
        ("PUT", kept.path, kept.raw),
        ("PATCH", kept.path, [{"op": "remove", "path": "/data"}]),
        ("DELETE", kept.path, None),
        ("DELETE", collection, None),
    ]

    nobody = credentials.anonymous()
    answers = {f"{verb} {path}": _send(nobody, verb, path, body) for verb, path, body in tried}

    allowed = [f"{what} answered {each.status}" for what, each in answers.items() if each.status not in (401, 403)]
    assert not allowed, f"without credentials all of this MUST be refused with 401 or 403, but {'; '.join(allowed)}"
    told = [what for what, each in answers.items() if "xyzzy" in each.text]
    assert not told, f"refusals carry the data that they refuse: {told}"
    assert kept.read()["data"] == {"value": "xyzzy"}, f"{kept} was changed by somebody without credentials"


@pytest.mark.smoke
def test_public_info(cluster: Cluster, credentials: Credentials, timeouts: Timeouts) -> None:
    """Health and version MUST be told to everybody just as the binding system:public-info-viewer says.

    False credentials are refused, not taken for none.

    Source: https://kubernetes.io/docs/reference/access-authn-authz/rbac/#discovery-roles
    """
    bindings = cluster.list(kinds.CLUSTER_ROLE_BINDING, fields="metadata.name=system:public-info-viewer")
    names = [who["name"] for each in bindings for who in each.raw.get("subjects") or []]
    # A server may be told to take nobody without credentials, or not on every path.
    allowed = (200, 401) if "system:unauthenticated" in names else (401, 403)

    nobody = credentials.anonymous()
    answers = {
        path: eventually(partial(nobody.request, "GET", path), conditions.no_failure, within=timeouts.propagation)
        for path in ("/livez", "/readyz", "/healthz", "/version")
    }
    false = cluster.client.as_user("nobody", token="not-a-token").request("GET", "/version")

    wrong = [f"{path} answered {each.status}" for path, each in answers.items() if each.status not in allowed]
    assert not wrong, f"bound to {names}, health MUST answer anybody with {allowed}, but {'; '.join(wrong)}"
    assert false.status == 401, f"a false token MUST be refused with 401, but /version answered {false.status}"


@pytest.mark.smoke
def test_apis(cluster: Cluster, timeouts: Timeouts) -> None:
    """Every API group and version that discovery names MUST answer, and be described by OpenAPI.

    Served by the API server itself or by another behind it, which has to be Available. What is stable in all versions
    of Kubernetes is named by every cluster's.

    Source: https://kubernetes.io/docs/concepts/overview/kubernetes-api/#discovery-api
    """
    services = cluster.select(kinds.API_SERVICE)
    own = _built_in(services.read())
    # Others define and remove APIs meanwhile: between two requests one may have come or gone.
    # Some servers ask those behind them once a minute only.
    eventually(
        lambda: _silent_apis(cluster, own),
        conditions.equals({}),
        within=timeouts.metrics,
        describe="what discovery names and does not answer",
    )
    eventually(services, _serve, within=timeouts.propagation)

    document = cluster.client.get("/openapi/v2")
    assert document["swagger"] == "2.0", f"/openapi/v2 is no OpenAPI document: {str(document)[:200]}"
    assert {"io.k8s.api.core.v1.Pod", "io.k8s.api.apps.v1.Deployment"} <= document["definitions"].keys()
    index = cluster.client.get("/openapi/v3")["paths"]
    unlisted = sorted(name for name in own if f"apis/{name}" not in index)
    assert not unlisted, f"{', '.join(unlisted)}: /openapi/v3 does not list it"
    behind = [each.spec for each in services.read() if each.spec.get("service")]
    aggregated = {f"apis/{spec['group']}/{spec['version']}" for spec in behind} & index.keys()
    for path in ["api/v1", "apis/apps/v1", *sorted(aggregated)]:
        assert path in index, f"/openapi/v3 does not list {path}"
        # Of an aggregated API it comes from its own server.
        read = partial(cluster.client.request, "GET", index[path]["serverRelativeURL"])
        what = f"the OpenAPI document of {path}"
        answer = eventually(read, conditions.its_own, within=timeouts.propagation, describe=what)
        assert answer.status == 200, f"{what} is answered {answer.status}: {answer.text[:200]}"
        described = answer.json()
        assert described["openapi"].startswith("3."), f"{path} is described by no OpenAPI document"
        assert described["paths"], f"{what} names no path"


@pytest.mark.smoke
@pytest.mark.requires(capabilities.LEADER_ELECTION)
def test_control_plane(cluster: Cluster, timeouts: Timeouts) -> None:
    """Scheduler and controller manager MUST each have a leader, that renews its Lease before that runs out.

    Of Leases with the same name the freshest counts. Who has none counts where pods of it run that should elect.

    Source: https://kubernetes.io/docs/concepts/architecture/leases/#leader-election
    """
    found = {name: cluster.list(kinds.LEASE, fields=f"metadata.name={name}") for name in capabilities.LEADERS}
    leases = [max(each, key=lambda lease: lease.spec.get("renewTime") or "") for each in found.values() if each]
    assert leases, f"there is no Lease {' or '.join(capabilities.LEADERS)}"
    for name in (name for name, each in found.items() if not each):
        silent = [pod for pod in cluster.list(kinds.POD, "kube-system", f"component={name}") if _elects(pod)]
        assert not silent, f"{name} runs as {silent[0]}, but there is no Lease {name}: it has no leader"

    for lease in leases:
        assert lease.spec.get("holderIdentity"), f"{lease} has no leader"
        eventually(lease, _renewed_since(lease.spec["renewTime"]), within=lease.spec["leaseDurationSeconds"])


@pytest.mark.smoke
def test_nodes(cluster: Cluster, timeouts: Timeouts) -> None:
    """Every node MUST be Ready, without pressure, with a fresh Lease, an answering kubelet and a version that fits.

    Source: https://kubernetes.io/docs/reference/node/node-status/
    """
    # A node may be just joining or leaving.
    nodes = eventually(cluster.select(kinds.NODE, labels=hollow.MACHINES), _are_well, within=timeouts.recovery)
    measure("nodes", len(nodes))
    server = _minor(cluster.client.get("/version")["gitVersion"])
    answer = cluster.client.request("GET", kinds.LEASE.path("kube-node-lease"))
    leases = {item["metadata"]["name"]: item["spec"] for item in answer.json()["items"]}

    for node in nodes:
        lease = leases.get(node.name)
        assert lease, f"{node} has no Lease in kube-node-lease; there are {sorted(leases)}"
        age = _date(answer) - datetime.fromisoformat(lease["renewTime"])
        limit = timedelta(seconds=lease["leaseDurationSeconds"])
        assert age < limit, f"{node} MUST renew its Lease within {limit}, but did so {age} ago"
        health = _kubelet_health(cluster, node)
        assert (health.status, health.text) == (200, "ok"), (
            f"the kubelet of {node} MUST answer /healthz with ok, but answered {health.status} {health.text[:200]!r}"
        )
        version = node.status["nodeInfo"]["kubeletVersion"]
        assert 0 <= server - _minor(version) <= OLDEST_KUBELET, (
            f"{node} runs {version} under an API server of 1.{server}"
        )


@pytest.mark.smoke
def test_system_pods(cluster: Cluster, namespace: Namespace, timeouts: Timeouts) -> None:
    """Every pod of kube-system MUST be Ready, as many as are asked for, and none be restarted during the run.

    Source: https://kubernetes.io/docs/concepts/overview/components/
    """
    mine = cluster.list(kinds.NAMESPACE, labels=f"{RUN_LABEL}={cluster.run_id}")
    begin = min(each.metadata["creationTimestamp"] for each in mine)
    pods = cluster.select(kinds.POD, "kube-system", fields="status.phase!=Succeeded,status.phase!=Failed")

    for kind in (kinds.DEPLOYMENT, kinds.DAEMON_SET, kinds.STATEFUL_SET):
        eventually(cluster.select(kind, "kube-system"), _are_available, within=timeouts.rollout)
    found = eventually(pods, _are_ready, within=timeouts.recovery)
    try:
        consistently(pods, _stay_ready(found), during=timeouts.steady)
    except NeverHappened:  # a probe fails that gets no processor for a moment: not again, where that is all
        found = eventually(pods, _are_ready, within=timeouts.recovery)
        consistently(pods, _stay_ready(found), during=timeouts.steady)

    ended = [f"{pod} {why}" for pod in pods.read() for why in _ended_since(pod, begin)]
    assert not ended, f"containers of kube-system were restarted since the run began at {begin}: {'; '.join(ended)}"
    measure("system pods", len(found))


@pytest.mark.smoke
def test_certificates(cluster: Cluster, namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """API server and kubelets MUST show certificates that stay valid for 30 days, and take no TLS older than 1.2.

    A certificate made for less than half a year, which has to be renewed in time, for a sixth of that and at least 5
    days; a kubelet's, which renews it itself, for a twentieth. Pods can verify the API server by the authority they are
    given, whether they ask for its name or its address; kubelets show one of their node's names.

    Source: https://kubernetes.io/docs/setup/best-practices/certificates/
    """
    volume = {"name": "trust", "configMap": {"name": "kube-root-ca.crt"}}
    manifest = manifests.pod("pod", images.agnhost, args=["pause"], volumes=[volume], mounts={"trust": "/trust"})
    pod = eventually(namespace.create(manifest), conditions.running, within=timeouts.pod)

    shown = {_SERVER: tls.certificate_of(cluster.client)}
    trust = pod.exec(["sh", "-c", _TRUST], within=timeouts.request)
    if trust.code in _UNREACHABLE:
        raise SurroundingsError(f"{pod} does not reach the API server: {trust.stderr.strip()}")
    for node in cluster.list(kinds.NODE, labels=hollow.MACHINES):
        if found := _kubelet_certificates(pod, node, timeouts):
            shown[f"the kubelet of {node}"] = found[0]
            names = {address["address"] for address in node.status["addresses"]}
            assert names & set(found[0].names), (
                f"the kubelet of {node}, {names}, shows a certificate for {found[0].names}"
            )
            answer = _ask_kubelet(pod, node, timeouts, "%{http_code}", *_OLD_TLS)
            assert answer == "000", f"the kubelet of {node} MUST refuse TLS older than 1.2, but answers {answer}"

    assert trust.code == 0, f"pods MUST be able to verify the API server by kube-root-ca.crt: {trust.stderr.strip()}"
    for who, certificate in shown.items():
        # A kubelet renews its own when between a third and a tenth of its time is left.
        enough = _enough(certificate) if who == _SERVER else min(_enough(certificate), certificate.lifetime / 20)
        left = certificate.not_after - datetime.now(UTC)
        measure(f"certificate of {who} (days left)", left / timedelta(days=1))
        # Whoever talks to a kubelet that has made its own cannot verify it, whether it has ended or not.
        assert left >= enough or certificate.of_a_lone_kubelet, (
            f"the certificate of {who} MUST be valid for {enough} more, but it ends in {left}"
        )
    for version in (tls.TLS_1_0, tls.TLS_1_1):
        assert not tls.accepts(cluster.client, version), f"the API server MUST refuse TLS of version {version:#06x}"


def test_clock(cluster: Cluster, timeouts: Timeouts) -> None:
    """API server, every node and whoever observes them MUST agree about the time within 2 seconds.

    Source: https://kubernetes.io/docs/concepts/architecture/leases/#node-heart-beats
    """
    asked = datetime.now(UTC)
    answer = cluster.client.request("GET", "/version")
    behind, ahead = asked - _date(answer) - timedelta(seconds=1), _date(answer) - datetime.now(UTC)

    assert max(behind, ahead) <= AGREEMENT, (
        f"the API server's clock, {_date(answer)}, MUST be within {AGREEMENT} of the observer's, {asked}"
    )
    # The server notes to the second when it stored a Lease, into which the kubelet has just written its own time.
    eventually(cluster.select(kinds.LEASE, "kube-node-lease"), _agree_with_the_server, within=timeouts.recovery)


@pytest.mark.alone  # otherwise it would be about what this run asks of the cluster at the same time
def test_latency(cluster: Cluster, namespace: Namespace) -> None:
    """99 of 100 requests for one object MUST be answered within a second, to read, write, create or delete it.

    Source: https://github.com/kubernetes/community/blob/master/sig-scalability/slos/api_call_latency.md
    """
    item = namespace.create(manifests.config_map("item"))
    took: dict[str, list[float]] = {"reading": [], "writing": [], "creating": [], "deleting": []}

    for turn in range(TURNS):
        names = [f"item-{turn}-{number}" for number in range(50)]
        took["reading"] += [_seconds(item.read) for _ in range(200)]
        took["writing"] += [_seconds(partial(item.patch, {"data": {"name": name}})) for name in names]
        took["creating"] += [_seconds(partial(namespace.create, manifests.config_map(name))) for name in names]
        took["deleting"] += [_seconds(namespace.object(kinds.CONFIG_MAP, name).delete) for name in names]
        if all(_slowest_of_100(seconds) <= SLO for seconds in took.values()):
            break

    for what, p99 in ((what, _slowest_of_100(seconds)) for what, seconds in took.items()):
        measure(f"p99 of {what} (s)", p99)
        assert p99 <= SLO, f"{what} one like {item} MUST take at most {SLO:g} s, but 1 in 100 takes {p99:.2f} s or more"


def _ask(cluster: Cluster, path: str) -> Response:
    return cluster.client.request("GET", path, accept="*/*")


def _checks(answer: Response) -> list[str]:
    """Names of the checks that a verbose answer lists."""
    return re.findall(r"^\[[+-]\](\S+)", answer.text, re.MULTILINE)


def _prove_health(cluster: Cluster, endpoint: str) -> list[str]:
    """Prove that a health endpoint answers in every form, in one of two tries; the names of its checks."""
    __tracebackhide__ = True
    try:
        return _try_health(cluster, endpoint)
    except AssertionError:  # etcd has two seconds to answer a check, and may be busy for a moment
        answers, within = partial(_ask, cluster, f"/{endpoint}"), cluster.settings.timeouts.propagation
        with contextlib.suppress(NeverHappened):
            eventually(answers, conditions.no_failure, within=within)
        return _try_health(cluster, endpoint)


def _try_health(cluster: Cluster, endpoint: str) -> list[str]:
    __tracebackhide__ = True
    whole, verbose = _ask(cluster, f"/{endpoint}"), _ask(cluster, f"/{endpoint}?verbose")
    checks = _checks(verbose)
    failed = re.findall(r"^\[-\].*", verbose.text, re.MULTILINE)
    assert (whole.status, whole.text) == (200, "ok"), (
        f"/{endpoint} MUST answer 200 ok, but: {whole.status} {whole.text}"
    )
    assert verbose.status == 200, f"/{endpoint}?verbose MUST answer 200, but: {verbose.status} {failed or verbose.text}"
    assert checks, f"/{endpoint}?verbose MUST list what it checks, but: {verbose.text!r}"
    assert not failed, f"every check of /{endpoint} MUST pass, but: {'; '.join(failed)}"
    assert verbose.text.rstrip().endswith(f"{endpoint} check passed"), (
        f"/{endpoint}?verbose ends: {verbose.text[-99:]!r}"
    )

    for check in checks:
        alone = _ask(cluster, f"/{endpoint}/{check}")
        assert (alone.status, alone.text) == (200, "ok"), (
            f"/{endpoint}/{check} MUST answer 200 ok, but: {alone.status} {alone.text[:200]!r}"
        )
    unknown = _ask(cluster, f"/{endpoint}/clusterproof")
    assert unknown.status == 404, f"/{endpoint}/clusterproof checks nothing and MUST be 404, but: {unknown.status}"
    without = _ask(cluster, f"/{endpoint}?verbose&exclude={checks[0]}")
    assert f"[+]{checks[0]} excluded: ok" in without.text.splitlines(), (
        f"/{endpoint}?exclude={checks[0]} MUST leave that check out, but: {without.text[:200]!r}"
    )
    assert without.text.count("excluded: ok") == 1, f"/{endpoint}?exclude={checks[0]} leaves out more: {without.text!r}"
    return checks


def _send(client: Client, verb: str, path: str, body: object) -> Response:
    content_type = "application/json-patch+json" if verb == "PATCH" else "application/json"
    return client.request(verb, path, body=body, content_type=content_type)


def _silent_apis(cluster: Cluster, own: set[str]) -> dict[str, str]:
    """What does not answer of what discovery names, and how; the API server's `own` have resources, too."""
    silent: dict[str, str] = {}
    whole = cluster.client.request("GET", "/apis", accept=DISCOVERY).json().get("items", [])
    plain = cluster.client.get("/apis")["groups"]
    versions = [each["groupVersion"] for group in plain for each in group["versions"]]
    named = {f"{group['metadata']['name']}/{each['version']}" for group in whole for each in group["versions"]}
    silent |= {name: "it is stable, and discovery does not name it" for name in STABLE.difference(versions)}
    if whole:
        silent |= {name: "plain discovery names it, aggregated discovery does not" for name in set(versions) - named}
    for group in whole:
        for each in group["versions"]:
            name = f"{group['metadata']['name']}/{each['version']}"
            if name not in versions:
                silent[name] = "aggregated discovery names it, plain discovery does not"
            elif each.get("freshness") != "Current":
                silent[name] = f"aggregated discovery has it as {each.get('freshness')}"
    for name, path in [("v1", "/api/v1"), *((name, f"/apis/{name}") for name in versions)]:
        answer = cluster.client.request("GET", path)
        if answer.status != 200:
            silent[name] = f"{path} answered {answer.status} {answer.text.strip()[:100]}"
        elif answer.json().get("groupVersion") != name:
            silent[name] = f"{path} describes {answer.json().get('groupVersion')}"
        elif name in own and not answer.json().get("resources"):
            silent[name] = f"{path} names no resource"
    return silent


def _built_in(services: list[Object]) -> set[str]:
    """Groups and versions that the API server has had since its start: they neither come nor go during a run."""
    own = [each for each in services if each.labels.get("kube-aggregator.kubernetes.io/automanaged") == "onstart"]
    return {f"{each.spec['group']}/{each.spec['version']}" for each in own if each.spec.get("group")}


def _serve(services: list[Object]) -> str | None:
    """Every APIService is Available."""
    conditions_of = {each.name: each.condition("Available") for each in services}
    lacking = {name: found for name, found in conditions_of.items() if found.get("status") != "True"}
    return "; ".join(f"{name}: {found.get('reason')} {found.get('message')}" for name, found in lacking.items()) or None


def _elects(pod: Object) -> bool:
    """Whether a program of the control plane takes part in an election, as it does unless it may be told otherwise."""
    words = [word for each in pod.spec["containers"] for word in (each.get("command") or []) + (each.get("args") or [])]
    return not any(word.startswith(("--leader-elect=f", "--config=")) for word in words)


def _renewed_since(moment: str) -> conditions.Condition:
    def is_renewed(lease: Object) -> str | None:
        """It was renewed after this moment."""
        return f"{lease.spec['holderIdentity']} has not renewed it" if lease.spec["renewTime"] <= moment else None

    return is_renewed


def _are_well(nodes: list[Object]) -> str | None:
    """Every node is Ready and under no pressure."""
    problems = [f"{node.name}: {missing}" for node in nodes if (missing := conditions.ready(node))]
    for node in nodes:
        under = [name for name in PRESSURES if node.condition(name).get("status", "False") != "False"]
        problems += [f"{node.name}: {name} {node.condition(name).get('message')}" for name in under]
    return "; ".join(problems) or (None if nodes else "there is no node")


def _kubelet_health(cluster: Cluster, node: Object) -> Response:
    """What a kubelet answers the API server, which may wait for a minute and more for one that it does not reach."""
    try:
        return cluster.client.request("GET", node.path + "/proxy/healthz", accept="*/*")
    except SurroundingsError as silent:
        cluster.client.request("GET", "/readyz")  # else it is the API server that does not answer
        raise AssertionError(f"the kubelet of {node} MUST answer /healthz with ok, but does not: {silent}") from silent


def _minor(version: str) -> int:
    """37 of `v1.37.2`."""
    return int(version.split(".")[1])


def _are_available(workloads: list[Object]) -> str | None:
    """Each has as many available pods as it is to have."""
    return "; ".join(f"{each.name} {lacks}" for each in workloads if (lacks := _lacks(each))) or None


def _lacks(workload: Object) -> str:
    if unseen := conditions.observed(workload):
        return f"is not known yet: {unseen}"
    status = workload.status
    want = status.get("desiredNumberScheduled", workload.spec.get("replicas", 0))
    have = status.get("numberAvailable", status.get("availableReplicas", 0))
    return "" if have >= want else f"has {have}/{want} pods available"


def _are_ready(pods: list[Object]) -> str | None:
    """All that are not being replaced are Ready."""
    lacking = [f"{pod.name}: {missing}" for pod in pods if not pod.deleting and (missing := conditions.ready(pod))]
    return "; ".join(lacking) or None


def _stay_ready(found: list[Object]) -> conditions.ListCondition:
    uids = {pod.uid for pod in found}

    def stay_ready(pods: list[Object]) -> str | None:
        """All that were there are Ready; a new one takes a while to be."""
        return _are_ready([pod for pod in pods if pod.uid in uids])

    return stay_ready


def _ended_since(pod: Object, begin: str) -> list[str]:
    """How containers of a pod that were restarted had ended, if that was after a moment."""
    told = []
    sidecars = {each["name"] for each in pod.spec.get("initContainers") or [] if each.get("restartPolicy") == "Always"}
    beside = [each for each in pod.status.get("initContainerStatuses") or [] if each["name"] in sidecars]
    for each in (pod.status.get("containerStatuses") or []) + beside:
        end = each.get("lastState", {}).get("terminated")
        if end and end["finishedAt"] > begin:
            how = f"{end.get('reason')} ({end['exitCode']}) at {end['finishedAt']}"
            told.append(f"{each['name']} ended with {how} and was restarted for the {each['restartCount']}. time")
    return told


def _kubelet_certificates(pod: Object, node: Object, timeouts: Timeouts) -> list[tls.Certificate]:
    """What a kubelet shows to a pod; nothing where pods do not reach it."""
    return tls.certificates(_ask_kubelet(pod, node, timeouts, "%{certs}"))


def _ask_kubelet(pod: Object, node: Object, timeouts: Timeouts, what: str, *options: str) -> str:
    """What curl, in a pod, has to tell of a request to a kubelet."""
    port = node.status["daemonEndpoints"]["kubeletEndpoint"]["Port"]
    (address,) = [each["address"] for each in node.status["addresses"] if each["type"] == "InternalIP"][:1]
    url = f"https://{inside.in_url(address)}:{port}/"
    limit = ["--max-time", f"{timeouts.request:g}"]
    command = ["curl", "-sk", *limit, *options, "-o", "/dev/null", "-w", what, url]
    return pod.exec(command, within=2 * timeouts.request).stdout


def _enough(certificate: tls.Certificate) -> timedelta:
    return min(timedelta(days=30), max(timedelta(days=5), certificate.lifetime / 6))


def _date(answer: Response) -> datetime:
    """When the server answered, by its own clock, to the second."""
    return datetime.strptime(answer.headers["Date"], "%a, %d %b %Y %H:%M:%S GMT").replace(tzinfo=UTC)


def _agree_with_the_server(leases: list[Object]) -> str | None:
    """Each carries a time of its node that is close to when the server stored it."""
    problems = []
    for lease in leases:
        written = datetime.fromisoformat(lease.spec["renewTime"])
        (stored,) = [each["time"] for each in lease.metadata["managedFields"] if "renewTime" in str(each["fieldsV1"])]
        early = datetime.fromisoformat(stored)
        if not early - AGREEMENT <= written <= early + timedelta(seconds=1) + AGREEMENT:
            problems.append(f"{lease.name}: its clock said {written} when the API server's said {early}")
    return "; ".join(problems) or (None if leases else "no node has a Lease")


def _slowest_of_100(seconds: list[float]) -> float:
    """What 99 of 100 took at most."""
    return sorted(seconds)[len(seconds) * 99 // 100 - 1]


def _seconds(call: Callable[[], object]) -> float:
    started = monotonic()
    call()
    return monotonic() - started
