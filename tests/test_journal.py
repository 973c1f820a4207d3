"""The append-only record of a run."""

from __future__ import annotations

import dataclasses
import json
import resource
from pathlib import Path

import pytest

from clusterproof.outcome import Result
from clusterproof.provider import Access
from clusterproof.running import journal
from clusterproof.running.run import access_of

from .reports import samples


@pytest.mark.parametrize("result", samples.mixed_run().results, ids=lambda result: result.id)
def test_a_line_reads_back_the_same(result: Result) -> None:
    assert journal.loads(journal.dumps(result)) == result


def test_how_both_clusters_of_a_run_are_reached_reads_back_the_same() -> None:
    peer = Access("external", "west", "west.yaml", capabilities=("federation.mcs",))
    access = Access("embedded", "east", "east.yaml", peer=peer, details={"remove": "down"})
    assert access_of(json.loads(json.dumps(dataclasses.asdict(access)))) == access


def test_what_does_not_fit_on_the_disk_is_written_when_it_does(tmp_path: Path) -> None:
    results = samples.mixed_run().results
    made = journal.Journal(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        for each in results[:-1]:
            made.add(each)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert made.trouble == "File too large"
    made.add(results[-1])
    made.close()

    assert made.trouble == ""
    assert [journal.loads(line) for line in (tmp_path / journal.NAME).read_text().splitlines()] == [*results]
