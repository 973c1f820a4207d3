"""The append-only record of a run."""

from __future__ import annotations

import pytest

from clusterproof.outcome import Result
from clusterproof.running import journal

from .reports import samples


@pytest.mark.parametrize("result", samples.mixed_run().results, ids=lambda result: result.id)
def test_a_line_reads_back_the_same(result: Result) -> None:
    assert journal.loads(journal.dumps(result)) == result
