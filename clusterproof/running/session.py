"""The process that the user started: it gives the run its cluster, keeps the record, and ends both."""

from __future__ import annotations

import contextlib
import shutil
import signal
import time
from collections.abc import Iterable
from dataclasses import replace
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import pytest

from clusterproof import catalog, outcome, profiles, provider, settings
from clusterproof.errors import SurroundingsError
from clusterproof.outcome import ClusterFacts, Outcome, Result, Run
from clusterproof.running import journal, proving, resume
from clusterproof.running.forks import Forks
from clusterproof.running.redaction import redacted
from clusterproof.running.run import RunFolder
from clusterproof.settings import Settings

if TYPE_CHECKING:
    from clusterproof.client import Client
    from clusterproof.provider import Access


LOGS = "cluster-logs"
"""Folder beside the reports, with what the components of the run's cluster have logged."""


class Conductor:
    """Hooks of the process that the user started, be it the only one or xdist's controller."""

    def __init__(self, config: pytest.Config, run: RunFolder, *, suites: bool, earlier: resume.Earlier | None) -> None:
        self.config = config
        self.run = run
        self.suites = suites
        """The suites themselves are run: the cluster is made at once, and by this process."""
        self.earlier = earlier
        """What was proven before, where an interrupted run is resumed."""
        self.started = time.time()
        self.results: list[Result] = []
        self.crashed = False
        self.on_cluster = False
        """Whether the run came as far as its cluster; before that, it can have left nothing."""
        self._journal: journal.Journal | None = None
        self._handler = signal.getsignal(signal.SIGTERM)

    @property
    def settings(self) -> Settings:
        return settings.of(self.config)

    @property
    def plan(self) -> dict[str, dict[str, Any]]:
        """The promises that were selected, by nodeid; empty before they are known."""
        try:
            return self.run.read(proving.PLAN)
        except OSError:
            return {}

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Tell an xdist worker which run it belongs to."""
        node.workerinput["clusterproof"] = [self.run.id, str(self.run.path)]

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self) -> None:
        """Refuse to go on with another selection; nothing is proven before all workers have collected."""
        if self.earlier:
            resume.check_selection(self.earlier, self._selected())

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionstart(self) -> None:
        """Find what is wrong with the promises before anything is started."""
        if self.suites:
            catalog.check(catalog.scan([catalog.root()]))
            # How a scheduler ends a job: the cluster must not stay behind.
            self._handler = signal.signal(signal.SIGTERM, signal.default_int_handler)
        if self.earlier:
            self.run.write(proving.PROVEN, {"ids": [result.id for result in self.earlier.results]})

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool | None:
        """Make the cluster for the suites, and the processes; UsageError ends the session when that fails."""
        if self.config.option.collectonly or not (self.earlier or self._distributed or self.run.has(proving.PLAN)):
            return None  # nothing is to be proven: what there is of an earlier run stays as it is
        if self.suites or self.earlier or self.plan:
            # First of all: another run may write there, or this very one may still be under way.
            self._journal = journal.Journal(self.settings.reports_dir, resume=self.earlier is not None)
        if self.earlier:
            if not self._resume(self.earlier):
                return True
        elif self.suites:
            with self._terminal():
                self.run.acquire(self.settings, self._needs())
        else:
            return None
        proving.the_cluster(self.config)
        self.on_cluster = True
        return Forks(self.settings.workers).prove(session) if self._free_to_fork() else None

    def _resume(self, earlier: resume.Earlier) -> bool:
        """Get the run its cluster back, free of what the interrupted part left; False when nothing is left to prove."""
        from clusterproof.running import ledger

        if not self._distributed:  # pytest-xdist's workers have not collected yet
            resume.check_selection(earlier, self._selected())
        missing = len(earlier.first.expected) - len(earlier.results)
        if not missing:
            self._say(earlier, "only the reports were missing")
            return False
        with self._terminal():
            same = resume.take_over(earlier, self.run, self.settings, self._needs())
        where = "on the same cluster" if same else "on a new cluster: that of the run has gone"
        self._say(earlier, f"the other {missing} are proven {where}")
        if same:
            within = self.settings.timeouts.namespace
            for cluster in proving.clusters(self.config):
                for stuck in ledger.sweep(cluster.new_client(), self.run.id, within=within, spare=self._kept()).stuck:
                    self._print(f"left by the interrupted part, and still there: {stuck}")
        return True

    def _needs(self) -> frozenset[str] | None:
        """Names of the capabilities that the selected promises ask for.

        None where workers of pytest-xdist have not collected yet, and for tests of others, which may not tell.
        """
        if not (self.suites and (plan := self.plan)):
            return None
        return frozenset(name for planned in plan.values() for name in planned["capabilities"])

    def _say(self, earlier: resume.Earlier, what_now: str) -> None:
        first = earlier.first
        self._print(f"resuming run {first.id}: {len(earlier.results)} of {len(first.expected)} are proven; {what_now}")

    def _print(self, line: str) -> None:
        if terminal := self.config.pluginmanager.getplugin("terminalreporter"):
            terminal.write_line(line)

    @property
    def _distributed(self) -> bool:
        """Whether workers of pytest-xdist collect and prove, and this process does not."""
        return getattr(self.config.option, "dist", "no") != "no"

    def _free_to_fork(self) -> bool:
        """Unless the user asked for pytest-xdist, for one process (`-n 0`), or for the debugger."""
        option = self.config.option
        asked = self._distributed or getattr(option, "numprocesses", None) is not None
        return not asked and not option.usepdb and self.settings.workers > 1

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Write down what was proven, before anything else happens."""
        carried = getattr(report, proving.CARRIED, None)
        if carried is not None:
            self._add(journal.loads(carried))
        elif str(report.when) == "???" and report.nodeid in self.plan:
            self.crashed = True
            self._add(self._crash(report))

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Verify that the run left nothing, hand over its record, and give the cluster back."""
        told = f"interrupted again; what is still there of this run goes with: {self._sweep_commands()}"
        try:
            self._end(session, exitstatus)
        except KeyboardInterrupt:
            raise pytest.exit.Exception(told, pytest.ExitCode.INTERRUPTED) from None

    def _end(self, session: pytest.Session, exitstatus: int) -> None:
        try:
            if self.earlier and exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
                failed = any(each.outcome is Outcome.BROKEN for each in self.earlier.results)
                exitstatus = session.exitstatus = pytest.ExitCode.TESTS_FAILED if failed else pytest.ExitCode.OK
            if self.run.has(proving.SELECTION) and self.run.ready and exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED:
                # More shards than promises.
                exitstatus = session.exitstatus = pytest.ExitCode.OK
                self._finish(exitstatus)
            elif self._to_be_told(exitstatus):
                self._finish(exitstatus)
        finally:
            self._close_journal()
            try:
                with self._terminal():
                    self._give_back()
            finally:
                self.run.remove()
                signal.signal(signal.SIGTERM, self._handler)

    def _close_journal(self) -> None:
        if self._journal is None:
            return
        self._journal.close()
        if why := self._journal.trouble:
            where = f"{journal.NAME} to {self.settings.reports_dir}"
            self._print(f"\ncannot write {where}: {why}; --resume would prove again what it lacks")

    def _to_be_told(self, exitstatus: int) -> bool:
        """Whether there is something to report; what was refused leaves the reports as they are."""
        if self.results or exitstatus == pytest.ExitCode.USAGE_ERROR:
            return bool(self.results)
        ended = exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)
        return (ended and self._all_proven()) or bool(self.plan and self.run.ready)

    def _all_proven(self) -> bool:
        return self.earlier is not None and len(self.earlier.results) == len(self.earlier.first.expected)

    def _add(self, result: Result) -> None:
        if self._journal is None:
            self._journal = journal.Journal(self.settings.reports_dir)
        if self.run.ready:
            result = replace(result, cluster=self.run.facts().uid)
        self.results.append(result)  # before what takes longer, and Ctrl-C may come into
        if len(self.results) == 1 and self.run.ready:
            self._journal.open(self._opened())
        self._journal.add(result)

    def _opened(self) -> journal.Opened:
        return journal.Opened(
            id=self.run.id,
            suite_version=version("clusterproof"),
            sha256=resume.digest(suites=self.suites),
            started=self.started,
            arguments=self._arguments(),
            expected=self._expected(),
            cluster=self.run.facts(),
            access=self.run.access(),
        )

    def _arguments(self) -> tuple[str, ...]:
        return tuple(redacted(str(argument)) for argument in self.config.invocation_params.args)

    def _selected(self) -> tuple[str, ...]:
        return tuple(planned["id"] for planned in self.plan.values())

    def _expected(self) -> tuple[str, ...]:
        return self.earlier.first.expected if self.earlier else self._selected()

    def _all_results(self) -> tuple[Result, ...]:
        """Those of before the interruption, and those of now, which replace them."""
        now = {result.id for result in self.results}
        return (*(each for each in (self.earlier.results if self.earlier else ()) if each.id not in now), *self.results)

    def _crash(self, report: pytest.TestReport) -> Result:
        planned = self.plan[report.nodeid]
        worker = report.node.gateway.id if hasattr(report, "node") else report.worker
        return Result(
            **{**planned, "capabilities": tuple(planned["capabilities"])},
            nodeid=report.nodeid,
            outcome=Outcome.ERROR,
            reason="the worker process crashed while proving it",
            message=str(report.longrepr),
            worker=worker,
        )

    def _finish(self, exitstatus: int) -> None:
        if self.run.created:
            shutil.rmtree(self.settings.reports_dir / LOGS, ignore_errors=True)  # of the run before
        earlier, results = self.earlier, self._all_results()
        complete = self._complete(exitstatus, results)
        facts, leaks = self._inspect(complete=complete)
        clusters = earlier.clusters() if earlier else ()
        run = Run(
            id=self.run.id,
            suite_version=version("clusterproof"),
            started=earlier.first.started if earlier else self.started,
            seconds=time.time() - self.started + (earlier.seconds if earlier else 0),
            complete=complete,
            arguments=earlier.first.arguments if earlier else self._arguments(),
            expected=self._expected(),
            cluster=facts,
            results=results,
            profiles=tuple(profiles.verdicts(results, self.plan.values())) if self.suites else (),
            shard=self._shard(),
            earlier_clusters=tuple(each for each in clusters if facts and each.uid != facts.uid),
            leaks=leaks,
            suites=self._suites(),
        )
        self.config.hook.pytest_clusterproof_finished(config=self.config, run=run)
        if self._journal is not None:
            self._journal.end(complete=run.complete)

    def _complete(self, exitstatus: int, results: Iterable[Result]) -> bool:
        ended = exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)
        return ended and not self.crashed and {result.id for result in results} >= set(self._expected())

    def _shard(self) -> outcome.Shard | None:
        if not self.settings.shard:
            return None
        return outcome.Shard(*self.settings.shard, promises=tuple(self.run.read(proving.SELECTION)["ids"]))

    def _suites(self) -> outcome.Suites | None:
        if not self.suites:
            return None
        known = {promise.id for promise in catalog.scan([catalog.root()])}
        return outcome.Suites(catalog.digest(), tuple(sorted(known)))

    def _inspect(self, *, complete: bool) -> tuple[ClusterFacts | None, tuple[str, ...]]:
        """The cluster's facts, and what the run left there and in the other one of its ClusterSet."""
        if not self.run.ready:
            return self.earlier.last.cluster if self.earlier else None, ()
        access, facts = self.run.acquire(self.settings)
        leaks = self._left_in(access, complete=complete)
        if access.peer:
            leaks += tuple(f"{leak} (in {access.peer.name})" for leak in self._left_in(access.peer, complete=complete))
        return self._with_machines(facts), leaks

    def _left_in(self, access: Access, *, complete: bool) -> tuple[str, ...]:
        from clusterproof.client import Client
        from clusterproof.errors import ApiError, SurroundingsError

        client, ends = Client.from_kubeconfig(access.kubeconfig, access.context), self._ends_with_run(access)
        lost = any(result.outcome is Outcome.ERROR for result in self.results)
        # Where a promise did not end in order, it did not note what it has created, nor let go what it held.
        in_order = complete and not lost
        limits = self.settings.timeouts
        within = limits.namespace
        try:
            if not (in_order or ends or self.settings.namespaces):
                self._clean_up(client, lost=lost)
                within = limits.object  # all the rest has been waited for
            everywhere = self.earlier is not None or not in_order
            return self._leaks(client, ends=ends, everywhere=everywhere, within=within)
        except (ApiError, SurroundingsError) as error:
            return (f"unknown: the cluster could not be inspected: {error}",)
        except KeyboardInterrupt:  # whoever has pressed Ctrl-C twice wants the reports, and no more waiting
            command = self._sweep_command(access)
            return (f"unknown: interrupted again before all had gone; the rest goes with: {command}",)

    def _sweep_commands(self) -> str:
        if not self.run.ready:
            return f"clusterproof sweep --run {self.run.id}"
        access = self.run.access()
        return " and ".join(dict.fromkeys(map(self._sweep_command, filter(None, (access, access.peer)))))

    def _sweep_command(self, access: Access) -> str:
        if self._ends_with_run(access):
            return f"clusterproof sweep --run {self.run.id}"
        return f"clusterproof sweep --kubeconfig {access.kubeconfig} --run {self.run.id}"

    def _with_machines(self, facts: ClusterFacts) -> ClusterFacts:
        """The facts with what was seen of the nodes from inside, if a promise looked."""
        if not any(result.area == "nodes" for result in self.results):
            return facts
        from clusterproof import machines

        return machines.facts(facts, self.run)

    def _clean_up(self, client: Client, *, lost: bool) -> None:
        """Remove what promises that did not end in order left; once the API server answers, where it was lost."""
        from clusterproof.running import ledger
        from clusterproof.wait import eventually

        limits = self.settings.timeouts
        if lost:
            eventually(lambda: client.request("GET", "/version").status, lambda status: None, within=limits.recovery)
        ledger.sweep(client, self.run.id, within=limits.namespace, spare=self._kept())

    def _leaks(self, client: Client, *, ends: bool, everywhere: bool, within: float) -> tuple[str, ...]:
        """What the run left, looked for among all kinds or among those that it is known to have created.

        Its namespaces are waited for at most `within` seconds.
        """
        from clusterproof.running import ledger

        namespaces = [name for result in self._all_results() for name in result.namespaces]
        kept = self._kept()
        # Of a cluster that ends now, namespaces and their volumes go with it: there is nothing to wait for.
        goes_along = [*namespaces, "PersistentVolume "] if ends else []
        # Whoever was lent namespaces makes none.
        left = [] if goes_along or self.settings.namespaces else self._namespaces_left(client, kept, within)
        if self.on_cluster:
            # What is in a namespace that was lent does not go with it.
            everywhere = everywhere or bool(self.settings.namespaces)

            def look() -> list[str]:
                if everywhere:
                    leaks = ledger.left(ledger.snapshot(client), self.run.id, namespaces, kept)
                else:
                    leaks = ledger.remains(client, self.run.noted_kinds(), self.run.id, namespaces, kept)
                return [leak for leak in leaks if not any(name in leak for name in (*left, *goes_along))]

            leaks = look()
            if not left and any(leak.startswith("PersistentVolume ") for leak in leaks):
                # They go after the namespaces that they were claimed from.
                ledger.await_volumes(client, namespaces, within=self.settings.timeouts.volume_end)
                leaks = look()
            left += leaks
        return tuple(left)

    def _ends_with_run(self, access: Access) -> bool:
        return access.provider != "external" and not self.settings.keeps_cluster

    def _kept(self) -> list[str]:
        if not self.settings.keep_failed:
            return []
        failed = (
            each for each in self._all_results() if each.outcome in (Outcome.BROKEN, Outcome.FLAKY, Outcome.ERROR)
        )
        return [name for each in failed for name in each.namespaces]

    def _namespaces_left(self, client: Client, kept: list[str], within: float) -> list[str]:
        """Delete what a killed worker could not, and wait for all namespaces of the run to be gone."""
        from clusterproof import kinds
        from clusterproof.errors import NeverHappened
        from clusterproof.namespace import RUN_LABEL, end_pods
        from clusterproof.objects import Object, Selection
        from clusterproof.wait import eventually

        mine = Selection(client, kinds.NAMESPACE, labels=f"{RUN_LABEL}={self.run.id}")

        def others(found: list[Object]) -> list[Object]:
            return [each for each in found if each.name not in kept]

        def gone(found: list[Object]) -> str | None:
            return f"{len(others(found))} are still there" if others(found) else None

        for each in others(mine.read()):
            if not each.deleting:
                each.delete()
            end_pods(client, each.name)
        try:
            eventually(mine, gone, within=within)
        except NeverHappened:
            return [str(each) for each in others(mine.read())]
        return []

    def _give_back(self) -> None:
        if not self.run.created:
            return
        if self._ends_with_run(self.run.access()) and any(
            each.outcome in (Outcome.BROKEN, Outcome.ERROR) for each in self.results
        ):
            self._keep_logs()
        self.run.release(self.settings)
        if self.settings.keeps_cluster and self.settings.cluster != "external":
            access = self.run.access()
            print(f"\ncluster {access.name} is kept: export KUBECONFIG={access.kubeconfig}")
            print(f"remove it with: {access.details.get('remove', f'clusterproof down --name {access.name}')}")

    def _keep_logs(self) -> None:
        """What the components of a cluster have logged that will be gone when somebody asks why."""
        into = self.settings.reports_dir / LOGS
        try:
            provider.load(self.settings.cluster).collect_logs(self.run.access(), into)
        except (OSError, SurroundingsError) as error:
            print(f"\nwhat the cluster's components have logged could not be kept: {error}")
        else:
            print(f"\nwhat the cluster's components have logged: {into}")

    def _terminal(self) -> contextlib.AbstractContextManager[None]:
        """Let what a provider prints reach the terminal."""
        capture = self.config.pluginmanager.getplugin("capturemanager")
        return capture.global_and_fixture_disabled() if capture else contextlib.nullcontext()
