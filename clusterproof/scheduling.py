"""Gives each promise that takes long a worker of its own, so that nothing waits behind it.

pytest-xdist starts a test only when it knows the one after it, so a worker always has one test in reserve that nobody
else can take. A worker that is shut down after its first test has none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from xdist.scheduler import LoadScheduling


class LongOnesAlone(LoadScheduling):  # type: ignore[misc]  # without types
    """Load scheduling, one test at a time; the first `alone()` tests each get a worker that does nothing else."""

    def __init__(self, config: pytest.Config, log: Any, alone: Callable[[], int]) -> None:
        super().__init__(config, log)
        self.collection: list[str] | None
        self.maxschedchunk = 1
        self._alone = alone

    def schedule(self) -> None:
        """Hand out the first tests; later calls, after a crash, are the parent's."""
        if self.collection is not None or not self._check_nodes_have_same_collection():
            super().schedule()
            return
        collection = next(iter(self.node2collection.values()))
        self.collection = collection
        self.pending[:] = range(len(collection))
        # At least one worker is left for all the rest.
        alone = min(self._alone(), len(self.nodes) - 1, len(self.pending) - 1)
        for node in self.nodes[:alone]:
            self._send_tests(node, 1)
            node.shutdown()
        shared = self.nodes[alone:]
        # One and one in reserve for each; alternately, so that few tests are spread over many workers.
        for node in shared * 2:
            self._send_tests(node, 1)
        if not self.pending:
            for node in shared:
                node.shutdown()
