"""Whether the API server could be reached during a promise: no failure is blamed on a cluster that is out of reach.

The promises' own requests cannot tell. A watch whose packets are lost is silent, as one is on which nothing happens;
and a cluster whose nodes and controllers lost their API server is late with everything for a while.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from dataclasses import dataclass

from filelock import Timeout

from clusterproof.client import Client
from clusterproof.errors import SurroundingsError
from clusterproof.running.run import RunFolder

EVERY = 2.0
"""Seconds from an answer to the next question."""
PATIENCE = 5.0
"""Seconds for an answer, and as many for one over a new connection: a busy API server is not a lost one."""
OUTAGES = "outages.json"
"""File of the run's folder: every Outage so far."""


@dataclass(slots=True)
class Outage:
    """A time without an answer, in seconds since the epoch."""

    since: float
    """The last answer before it."""
    until: float | None
    """The first answer after it; None while it goes on."""
    trouble: str
    """How the last attempt failed."""

    def told(self, started: float) -> str:
        """The outage from the view of a promise that was started then."""
        if self.until is None:
            when = f"{time.time() - self.since:.0f} s ago"
        elif self.until < started:
            when = f"until {started - self.until:.0f} s before it was proven"
        else:
            when = f"for {self.until - self.since:.0f} s while it was proven"
        return f"the connection to the API server was lost {when} ({self.trouble})"


class Heartbeat:
    """Asks the API server at a steady pace, in a thread, for what it can answer without anything else.

    Of all processes of a run one asks, and the others learn from the run's folder; when it ends another takes over.
    """

    def __init__(self, client: Client, run: RunFolder) -> None:
        self._client = client.clone(counted=False)
        self._run = run
        self._turn = run.locked("heartbeat")
        self._enough = threading.Event()
        self._thread: threading.Thread | None = None

    def ensure(self) -> None:
        """Begin to ask, if no process of the run does."""
        if self._thread is not None:
            return
        try:
            self._turn.acquire(timeout=0)
        except Timeout:
            return
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ask no more, and let another process do it."""
        if self._thread is not None:
            self._enough.set()
            self._thread.join()
            self._turn.release()

    def loss(self, started: float, aftermath: float) -> str:
        """What became of the connection since a promise was started, asking now once more; empty when all was well.

        A sound cluster may need `aftermath` seconds after an outage to elect leaders and find its nodes again.
        """
        if trouble := self._trouble():
            return f"the connection to the API server is lost ({trouble})"
        for outage in reversed(self._outages()):
            if outage.until is None or outage.until > started - aftermath:
                return outage.told(started)
        return ""

    def _outages(self) -> list[Outage]:
        try:
            return [Outage(**each) for each in self._run.read(OUTAGES)["outages"]]
        except OSError:
            return []  # there was none yet

    def _beat(self) -> None:
        outages, answered = self._outages(), time.time()
        while not self._enough.wait(EVERY):
            trouble = self._trouble()
            going_on = outages[-1] if outages and outages[-1].until is None else None
            if not trouble:
                answered = time.time()
                if not going_on:
                    continue
                going_on.until = answered
            elif going_on:
                going_on.trouble = trouble
            else:
                outages.append(Outage(answered, None, trouble))
            self._run.write(OUTAGES, {"outages": [dataclasses.asdict(each) for each in outages]})

    def _trouble(self) -> str:
        """Why there is no answer; empty where there is one. A proxy answers 502 to 504 for a server that is gone."""
        trouble = ""
        for _ in range(2):  # the connection that was kept may have been closed by the server meanwhile
            try:
                status = self._client.request("GET", "/version", timeout=PATIENCE).status
            except SurroundingsError as error:
                trouble = str(error)
            else:
                return f"{self._client.server}: answered {status}" if status >= 500 else ""
        return trouble
