"""Proves promises in many processes, forked when everything is collected and the cluster is there.

Promises mostly wait, so there are more processes than processors. A forked process costs a few milliseconds, where a
worker of pytest-xdist imports and collects everything again; and it takes the next promise only when it has ended the
one before, so that nothing waits behind a long one. What disturbs the whole cluster comes last, one at a time.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe, wait
from types import FrameType
from typing import Any, NoReturn

import pytest

from clusterproof import marks
from clusterproof.running import proving, retry

ENDING = 30.0
"""Seconds that an interrupted process has for its clean-up."""

INTERRUPTIONS = {signal.SIGINT, signal.SIGTERM}
"""What a user's Ctrl-C and a scheduler send."""

PR_SET_PDEATHSIG = 1
"""Of prctl(2)."""


@dataclass(slots=True)
class Worker:
    """A forked process, as its parent sees it."""

    name: str
    pid: int
    connection: Connection
    item: pytest.Item | None = None
    """What it is proving."""
    trouble: str = ""
    """Why it ends, where it could say so."""


class Forks:
    """Replaces pytest's loop over the tests by one that hands them to forked processes."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.workers: list[Worker] = []
        self.started = 0

    def prove(self, session: pytest.Session) -> bool | None:
        """Run all tests of the session, as `pytest_runtestloop` does; None when that is left to pytest."""
        if session.testsfailed or len(session.items) < 2:
            return None  # collection failed, or there is nothing to share: left to pytest
        if terminal := session.config.pluginmanager.getplugin("terminalreporter"):
            # Results of several files come in any order: their names would be repeated again and again.
            terminal.showfspath = False
        alone = [item for item in session.items if marks.alone(item)]
        together = [item for item in session.items if item not in alone]
        try:
            # What disturbs others comes when nothing else goes on, one after the other.
            for items, number in ((together, self.number), (alone, 1)):
                waiting = deque(items)
                for _ in range(min(number, len(waiting))):
                    self._give(self._fork(session), waiting, session)
                while self.workers:
                    self._listen(waiting, session)
        finally:
            self._end()
        return True

    def _listen(self, waiting: deque[pytest.Item], session: pytest.Session) -> None:
        """Wait for somebody to be done, pass on what was seen, and hand out the next."""
        ready = wait([worker.connection for worker in self.workers])
        for worker in [worker for worker in self.workers if worker.connection in ready]:
            assert worker.item is not None
            try:
                told = worker.connection.recv()
                if isinstance(told, str):
                    worker.trouble = told  # and its end follows
                    continue
                reports = [_restored(session.config, raw) for raw in told]
            except EOFError:
                self._bury(worker)
                reports = [_crash(worker)]
                if waiting and (not self.workers or not marks.alone(waiting[0])):
                    worker = self._fork(session)
            _log(reports, session)
            if worker in self.workers:
                self._give(worker, waiting, session)

    def _give(self, worker: Worker, waiting: deque[pytest.Item], session: pytest.Session) -> None:
        if session.shouldfail:
            raise session.Failed(session.shouldfail)
        if session.shouldstop:
            raise session.Interrupted(session.shouldstop)
        if waiting and (len(self.workers) == 1 or not marks.alone(waiting[0])):
            worker.item = waiting.popleft()
            worker.connection.send(session.items.index(worker.item))
        else:
            worker.connection.send(None)
            self._bury(worker)

    def _fork(self, session: pytest.Session) -> Worker:
        ours, theirs = Pipe()
        name = f"w{self.started}"
        self.started += 1
        with _uninterrupted():
            parent, pid = os.getpid(), os.fork()
            if not pid:
                for other in [ours, *(worker.connection for worker in self.workers)]:
                    # Otherwise nobody would notice the end of a process.
                    other.close()
                _serve(name, theirs, session, parent)
            theirs.close()
            self.workers.append(Worker(name, pid, ours))
        return self.workers[-1]

    def _bury(self, worker: Worker) -> None:
        self.workers.remove(worker)
        worker.connection.close()
        os.waitpid(worker.pid, 0)

    def _end(self) -> None:
        """Let those that are still at it clean up; kill what does not end."""
        for worker in self.workers:
            os.kill(worker.pid, signal.SIGTERM)
        for worker in list(self.workers):
            with contextlib.suppress(EOFError, OSError):
                while worker.connection.poll(ENDING):
                    worker.connection.recv()
                os.kill(worker.pid, signal.SIGKILL)
            self._bury(worker)


class _Sender:
    """In a forked process: runs one test and keeps its reports for the parent, instead of logging them."""

    def __init__(self) -> None:
        self.reports: list[pytest.TestReport] = []

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> bool:
        self.reports = retry.prove(item, nextitem=None)
        return True


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Have Ctrl-C and SIGTERM wait for the end of the block.

    KeyboardInterrupt in the middle of fork(2) is lost where Python calls back there, leaves a process that nobody knows
    of, and takes the forked one into its parent's code.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, INTERRUPTIONS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(name: str, connection: Connection, session: pytest.Session, parent: int) -> NoReturn:
    """Prove what the parent sends until it sends nothing more; never returns into the parent's code."""
    config, sender = session.config, _Sender()
    proving.worker = name
    try:
        _listen_to_signals(parent)
        config.pluginmanager.register(sender)
        _capture_anew(config)
        while (number := connection.recv()) is not None:
            item = session.items[number]
            config.hook.pytest_runtest_protocol(item=item, nextitem=None)
            serialize = config.hook.pytest_report_to_serializable
            connection.send([serialize(config=config, report=report) for report in sender.reports])
    except KeyboardInterrupt:
        with contextlib.suppress(Exception):  # what stays behind is the parent's to remove
            session._setupstate.teardown_exact(None)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass  # the parent has gone
    except Exception:  # of pytest's own, or of somebody's plugin: a promise that fails is a report
        with contextlib.suppress(OSError):
            connection.send(traceback.format_exc())
    finally:
        os._exit(0)


def _listen_to_signals(parent: int) -> None:
    """Take up those that have waited since the fork; KeyboardInterrupt when the parent has had enough already."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; the parent decides what it means
    for number in (signal.SIGTERM, signal.SIGALRM):
        signal.signal(number, _interrupt)
    sys.unraisablehook = _insistent(sys.unraisablehook)
    _end_with(parent)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, INTERRUPTIONS)


def _end_with(parent: int) -> None:
    """Have the kernel interrupt this process when its parent is killed: nobody would take its result any more."""
    with contextlib.suppress(AttributeError):  # Linux only; elsewhere it ends after the promise that it is proving
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        os._exit(1)


def _insistent(hook: Callable[[sys.UnraisableHookArgs], Any]) -> Callable[[sys.UnraisableHookArgs], Any]:
    """The hook, but where KeyboardInterrupt was lost in what Python calls back, as for garbage, it comes once more."""

    def told(lost: sys.UnraisableHookArgs) -> None:
        if lost.exc_type is KeyboardInterrupt:
            signal.setitimer(signal.ITIMER_REAL, 0.1)
        else:
            hook(lost)

    return told


def _interrupt(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


def _capture_anew(config: pytest.Config) -> None:
    """Processes must not capture into the file that their parent opened."""
    if capture := config.pluginmanager.getplugin("capturemanager"):
        capture.stop_global_capturing()
        capture.start_global_capturing()


def _restored(config: pytest.Config, raw: dict[str, Any]) -> pytest.TestReport:
    report: pytest.TestReport = config.hook.pytest_report_from_serializable(config=config, data=raw)
    return report


def _log(reports: list[pytest.TestReport], session: pytest.Session) -> None:
    hook, where = session.config.hook, {"nodeid": reports[0].nodeid, "location": reports[0].location}
    hook.pytest_runtest_logstart(**where)
    for report in reports:
        hook.pytest_runtest_logreport(report=report)
    hook.pytest_runtest_logfinish(**where)


def _crash(worker: Worker) -> pytest.TestReport:
    """A report in the form in which pytest-xdist tells of a crashed worker."""
    assert worker.item is not None
    said = f"the process {worker.name} ended while proving {worker.item.nodeid}"
    return pytest.TestReport(
        nodeid=worker.item.nodeid,
        location=worker.item.location,
        keywords={},
        outcome="failed",
        longrepr=said + (f":\n{worker.trouble}" if worker.trouble else ""),
        when="???",  # type: ignore[arg-type]  # as pytest-xdist does
        worker=worker.name,
    )
