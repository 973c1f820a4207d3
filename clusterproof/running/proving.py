"""Runs promises in one process and turns what pytest saw of each into a Result."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from _pytest.outcomes import Skipped  # `pytest.skip.Exception` is the same class, but no type

from clusterproof import catalog, settings, steps
from clusterproof.errors import ApiError, SurroundingsError
from clusterproof.marks import TIERS, alone
from clusterproof.outcome import Attachment, Outcome, Result
from clusterproof.running import journal, shards
from clusterproof.running.run import RunFolder

if TYPE_CHECKING:
    from clusterproof.cluster import Cluster
    from clusterproof.running.heartbeat import Heartbeat

RUN = pytest.StashKey[RunFolder]()
PLAN = "plan.json"
"""File of the run's folder: the promises that were selected, by nodeid."""
SELECTION = "selection.json"
"""File of the run's folder: the ids of what was selected, where only a part of it is proven here."""
PROVEN = "proven.json"
"""File of the run's folder: where it is resumed, the ids of what was proven before."""
CARRIED = "clusterproof"
"""Attribute of a test's last report: its Result as JSON. It travels from the workers to the controller."""

worker = os.environ.get("PYTEST_XDIST_WORKER", "main")
"""Name of this process among those of the run."""

LONGEST_REASON = 300
"""Characters."""


@dataclass(slots=True)
class Notes:
    """What is noted about a promise while it runs."""

    started: float
    """Seconds since the epoch."""
    reports: dict[str, pytest.TestReport] = field(default_factory=dict)
    """By phase."""
    failures: list[tuple[str, BaseException]] = field(default_factory=list)
    """What was raised, skips included, with the phase."""
    evidence: tuple[Attachment, ...] = ()
    in_the_way: str = ""
    """Which of the surroundings failed, if any did."""
    lost: str = ""
    """Whether the connection to the API server was lost while it ran or shortly before."""


NOTES = pytest.StashKey[Notes]()
CLUSTER: pytest.StashKey[Cluster] = pytest.StashKey()
"""The cluster as this process sees it, once a promise has asked for it."""
PEER: pytest.StashKey[Cluster] = pytest.StashKey()
"""The other cluster of its ClusterSet, once a promise has asked for it."""
HEARTBEAT: pytest.StashKey[Heartbeat] = pytest.StashKey()
"""Of this process, once it has proven a promise."""


class Unsupported(Skipped):
    """The cluster does not claim what a promise needs."""

    @classmethod
    def dropped(cls, field: str, gate: str) -> Unsupported:
        """The API server of a cluster without a feature gate has left a field out of what it stored."""
        return cls(f"the API server drops {field}, as without the feature gate {gate}")


def is_promise(item: pytest.Item) -> bool:
    """Whether a test is about a cluster: it asks for one, if only through other fixtures."""
    return "cluster" in getattr(item, "fixturenames", ())


def the_cluster(config: pytest.Config) -> Cluster:
    """The Cluster under proof; the first promise of the run makes it."""
    if CLUSTER not in config.stash:
        from clusterproof.client import Client
        from clusterproof.cluster import Cluster

        run, chosen = config.stash[RUN], settings.of(config)
        try:
            access, facts = run.acquire(chosen)
        except pytest.UsageError as error:
            raise SurroundingsError(str(error)) from error
        client = Client.from_kubeconfig(access.kubeconfig, access.context)
        config.stash[CLUSTER] = Cluster(access, facts, chosen, run.id, client)
        # Finding a cluster is not the work of the promise that happened to be first.
        steps.current.requests_before = Client.total_requests
    return config.stash[CLUSTER]


def the_peer(config: pytest.Config) -> Cluster:
    """Another cluster of the same ClusterSet, as this process sees it."""
    if PEER not in config.stash:
        from clusterproof import facts
        from clusterproof.client import Client
        from clusterproof.cluster import Cluster

        cluster = the_cluster(config)
        if (access := cluster.access.peer) is None:
            raise Unsupported("no other cluster of its ClusterSet is named: --peer")
        client = Client.from_kubeconfig(access.kubeconfig, access.context)
        found = facts.detect(client, access, cluster.settings.capabilities)
        config.stash[PEER] = Cluster(access, found, cluster.settings, cluster.run_id, client)
    return config.stash[PEER]


def clusters(config: pytest.Config) -> list[Cluster]:
    """The Cluster under proof, and the other one of its ClusterSet where there is one."""
    one = the_cluster(config)
    return [one, the_peer(config)] if one.access.peer else [one]


def _turn(item: pytest.Item) -> int:
    """Its place among the tests: what takes long comes first, what disturbs the others last."""
    if not is_promise(item):
        return 1
    if alone(item):
        return 3 if item.get_closest_marker("disruptive") else 2
    return 0 if item.get_closest_marker("first") else 1


class Prover:
    """Hooks of every process that runs tests."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Leave out what only `--disruptive` allows, or leave it to the end; start what takes long before all else."""
        promises = [item for item in items if is_promise(item)]
        if not promises:
            return
        if not settings.of(self.config).disruptive:
            left_out = [item for item in promises if item.get_closest_marker("disruptive")]
            if left_out:
                self.config.hook.pytest_deselected(items=left_out)
                items[:] = [item for item in items if item not in left_out]
        items.sort(key=_turn)

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Tell the controller what is going to be proven; it does not collect itself."""
        plan = {item.nodeid: plan_of(item) for item in session.items if is_promise(item)}
        if not plan:
            return
        run, chosen = self.config.stash[RUN], settings.of(self.config)
        if chosen.shard:
            first = {
                plan[item.nodeid]["id"]: bool(item.get_closest_marker("first"))
                for item in session.items
                if item.nodeid in plan
            }
            number, of = chosen.shard
            mine = shards.divide(shards.weights(first, chosen.shard_by), of)[number - 1]
            run.write(SELECTION, {"ids": list(first)})
            others = {nodeid for nodeid, planned in plan.items() if planned["id"] not in mine}
            plan = {nodeid: planned for nodeid, planned in plan.items() if nodeid not in others}
            self._leave_out(session, [item for item in session.items if item.nodeid in others])
        run.write(PLAN, plan)
        if chosen.resume:
            proven = set(run.read(PROVEN)["ids"])
            self._leave_out(session, [each for each in session.items if plan.get(each.nodeid, {}).get("id") in proven])

    def _leave_out(self, session: pytest.Session, items: list[pytest.Item]) -> None:
        self.config.hook.pytest_deselected(items=items)
        left_out = set(items)
        session.items[:] = [item for item in session.items if item not in left_out]

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        if is_promise(item):
            begin(item)
        return (yield)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Skip, with the evidence, what needs a capability that the cluster does not claim."""
        names = [name for mark in item.iter_markers("requires") for name in mark.args] if is_promise(item) else []
        if not names:
            return
        claims = [the_cluster(self.config).claim(name) for name in names]
        missing = [f"{claim.name}: {claim.evidence}" for claim in claims if not claim.supported]
        if missing:
            raise Unsupported("; ".join(missing))

    @pytest.hookimpl(wrapper=True, specname="pytest_runtest_setup")
    def pytest_runtest_setup_rights(self, item: pytest.Item) -> Generator[None]:
        """What cannot be set up for lack of a right is unsupported."""
        with self._rights(item):
            yield

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None]:
        """What cannot be tried for lack of a right is unsupported."""
        self._listen()
        with self._rights(item):
            yield

    def _listen(self) -> None:
        """Notice from now on when the API server is out of reach."""
        if CLUSTER not in self.config.stash:
            return
        if HEARTBEAT not in self.config.stash:
            from clusterproof.running.heartbeat import Heartbeat

            heartbeat = Heartbeat(self.config.stash[CLUSTER].client, self.config.stash[RUN])
            self.config.stash[HEARTBEAT] = heartbeat
            self.config.add_cleanup(heartbeat.stop)
        self.config.stash[HEARTBEAT].ensure()

    @contextlib.contextmanager
    def _rights(self, item: pytest.Item) -> Iterator[None]:
        try:
            yield
        except (ApiError, SurroundingsError, AssertionError) as error:
            if is_promise(item) and (lacking := _lacking(self.config, error)):
                raise Unsupported(f"right: the kubeconfig's user may not {lacking}") from error
            raise

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Generator[None]:
        """Cluster-scoped objects go first: they were created after the namespaces they refer to."""
        problem = None
        if is_promise(item) and CLUSTER in self.config.stash:
            try:
                self.config.stash[CLUSTER].delete_created()
            except (ApiError, SurroundingsError) as error:
                problem = error
        yield
        if problem:
            raise problem

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        if not is_promise(item):
            return report
        notes = item.stash[NOTES]
        notes.reports[call.when] = report
        if call.excinfo is not None:
            notes.failures.append((call.when, call.excinfo.value))
            # What a disruptive promise does to the API server is its own doing.
            if report.failed and not item.get_closest_marker("disruptive"):
                notes.lost = notes.lost or self._lost(notes)
            if report.failed and call.when != "teardown":
                self._keep_evidence(notes)
        if call.when == "teardown":
            self.config.stash[RUN].note_kinds(steps.current.outside)
            setattr(report, CARRIED, journal.dumps(result_of(item)))
        return report

    def _lost(self, notes: Notes) -> str:
        if HEARTBEAT not in self.config.stash:
            return ""
        return self.config.stash[HEARTBEAT].loss(notes.started, settings.of(self.config).timeouts.recovery)

    def _keep_evidence(self, notes: Notes) -> None:
        """Now: the fixtures' clean-up removes what there is to see."""
        from clusterproof.running import bundle

        if CLUSTER not in self.config.stash:
            return
        cluster, namespaces = self.config.stash[CLUSTER], steps.current.namespaces
        notes.evidence = bundle.collect(namespaces, cluster.client)
        notes.in_the_way = _in_the_way(cluster, namespaces, notes.failures[-1][1])


def begin(item: pytest.Item) -> None:
    """Forget what an earlier try noted."""
    steps.restart(_requests())
    item.stash[NOTES] = Notes(time.time())


def result_of(item: pytest.Item) -> Result:
    """What is known about a promise after its last phase."""
    notes, record = item.stash[NOTES], steps.current
    outcome, reason = judge(notes)
    return Result(
        **plan_of(item),
        nodeid=item.nodeid,
        outcome=outcome,
        reason=reason,
        message="\n".join(report.longreprtext for report in notes.reports.values() if report.failed),
        started=notes.started,
        seconds=time.time() - notes.started,
        worker=worker,
        namespaces=tuple(record.namespaces),
        steps=tuple(record.steps),
        measurements=record.measurements,
        attachments=notes.evidence,
        requests=_requests() - record.requests_before,
        availability=tuple(record.availability),
        rights=tuple(record.rights),
    )


def plan_of(item: pytest.Item) -> dict[str, Any]:
    """What is known about a promise before it is tried, as arguments of Result."""
    case = f"[{item.callspec.id}]" if hasattr(item, "callspec") else ""
    function = getattr(item, "originalname", None) or item.name
    docstring = getattr(getattr(item, "obj", None), "__doc__", "")
    return {
        "id": catalog.report_id(_below_suites(item), function) + case,
        "promise": catalog.sentence(docstring) or function,
        "source": catalog.source(docstring),
        "tier": next((mark.name for mark in item.iter_markers() if mark.name in TIERS), "normal"),
        "capabilities": tuple(str(name) for mark in item.iter_markers("requires") for name in mark.args),
    }


def judge(notes: Notes) -> tuple[Outcome, str]:
    """The outcome of a promise and its reason on one line."""
    tried = notes.reports.get("call")
    if tried is not None and hasattr(tried, "wasxfail"):
        return Outcome.SKIPPED, f"expected to fail: {tried.wasxfail}"
    for phase, error in notes.failures:
        if isinstance(error, Unsupported):
            return Outcome.UNSUPPORTED, one_line(error)
        if isinstance(error, pytest.skip.Exception):
            return Outcome.SKIPPED, one_line(error)
        where = "" if phase == "call" else f"{phase}: "
        if notes.lost:
            return Outcome.ERROR, _shortened(f"{notes.lost}, so nothing was learned from: {where}{one_line(error)}")
        if where:
            return Outcome.ERROR, f"{where}{one_line(error)}"
        if notes.in_the_way and not isinstance(error, SurroundingsError):
            return Outcome.ERROR, notes.in_the_way
        return _blame(error)
    if tried is not None and tried.failed:
        return Outcome.BROKEN, tried.longreprtext.strip().partition("\n")[0]
    return Outcome.KEPT, ""


def has_failed(item: pytest.Item) -> bool:
    """Whether a promise that is being ended did not hold, or could not be proven."""
    return any(report.failed for report in item.stash[NOTES].reports.values())


def one_line(error: BaseException) -> str:
    """The first line of what an exception says, not too long."""
    return _shortened(" ".join((str(error).strip() or type(error).__name__).partition("\n")[0].split()))


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST_REASON else text[: LONGEST_REASON - 4] + " ..."


def _requests() -> int:
    """Requests of this process so far; the client is only loaded when something needs it."""
    client = sys.modules.get("clusterproof.client")
    return client.Client.total_requests if client else 0


def _blame(error: BaseException) -> tuple[Outcome, str]:
    match error:
        case SurroundingsError():
            return Outcome.ERROR, one_line(error)
        case ApiError(status=403, user="") if re.search(r'User "[^"]*" cannot', error.message):
            return Outcome.ERROR, f"a right is missing: {error.message}"
        case AssertionError() | ApiError() | pytest.fail.Exception():
            return Outcome.BROKEN, one_line(error)
    return Outcome.ERROR, f"the promise could not be evaluated: {type(error).__name__}: {one_line(error)}"


def _lacking(config: pytest.Config, error: BaseException) -> str:
    """The right that somebody lacks who has some namespaces only, and that the server confirms they lack."""
    if CLUSTER not in config.stash or not settings.of(config).namespaces:
        return ""
    from clusterproof.doctor import needs

    try:
        return str(needs.missing(config.stash[CLUSTER].client, str(error)) or "")
    except (ApiError, SurroundingsError):
        return ""


def _in_the_way(cluster: Cluster, namespaces: list[str], error: BaseException) -> str:
    """Which of the surroundings failed: an image of ours that is not there, or a quota of somebody else's."""
    try:
        return _image_trouble(cluster, namespaces) or _quota_of_others(cluster, namespaces, str(error))
    except (ApiError, SurroundingsError):
        return ""


def _image_trouble(cluster: Cluster, namespaces: list[str]) -> str:
    """Why one of our images cannot be had in these namespaces; promises may use bad ones on purpose."""
    from clusterproof import kinds
    from clusterproof.conditions import being_pulled, image_trouble

    pods = [pod for name in namespaces for pod in cluster.list(kinds.POD, name)]
    events = [event for name in namespaces for event in cluster.list(kinds.EVENT, name)]
    troubles = (image_trouble(pod) or being_pulled(pod, events) for pod in pods)
    return next((found for found in troubles if found.startswith(tuple(f"image {x}:" for x in cluster.images.all))), "")


def _quota_of_others(cluster: Cluster, namespaces: list[str], said: str) -> str:
    """Which quota is exceeded that no promise has made."""
    from clusterproof import kinds
    from clusterproof.namespace import RUN_LABEL

    if not (exceeded := re.search(r"exceeded quota: ([^,\s]+), requested: [^\n]*", said)):
        return ""
    quotas = [each for name in namespaces for each in cluster.list(kinds.RESOURCE_QUOTA, name)]
    theirs = [each for each in quotas if each.name == exceeded[1] and RUN_LABEL not in each.labels]
    return f"{theirs[0]}: {exceeded[0]}" if theirs else ""


def _below_suites(item: pytest.Item) -> Path:
    if item.path.is_relative_to(catalog.root()):
        return item.path.relative_to(catalog.root())
    if item.path.is_relative_to(item.config.rootpath):
        path = item.path.relative_to(item.config.rootpath)
        return path.relative_to("suites") if path.is_relative_to("suites") else path
    return Path(item.path.name)
