"""One cluster for all breakages, the record of what was noticed, and the table that is made of it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from clusterproof.embedded import addons, cluster, provider, state

from clusterproof.outcome import Result

from . import breakages as breakages  # registers them
from .prove import Prover
from .record import Record
from .registry import Breakage
from .subject import Subject

NAME = "broken"
SOUND_SECONDS = 1800.0
"""For all promises of all breakages; those that disturb the cluster are proven one after the other."""
DETECTION = Path(__file__).parents[2] / "docs" / "detection.md"
FOUND = Path(__file__).with_name("found.json")
"""What the page was written from; those breakages that are tried again replace their part of it."""
RECORD = pytest.StashKey[Record]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("broken clusters")
    group.addoption("--write-detection", action="store_true", help="bring docs/detection.md up to date with this run")
    group.addoption("--broken-cluster", metavar="NAME", help="break this embedded cluster, and leave it running")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[RECORD] = Record()


@pytest.fixture(scope="session")
def subject(request: pytest.FixtureRequest) -> Iterator[Subject]:
    """A sound embedded cluster, to be broken and repaired."""
    if chosen := request.config.getoption("--broken-cluster"):
        yield Subject(state.load(chosen))
        return
    for name in (NAME, provider.peer_of(NAME)):
        with contextlib.suppress(state.EmbeddedError):
            cluster.down(name)  # of a run that was killed
    made = provider.up_with_peer(cluster.Plan(NAME, addons=addons.ALL, owner=os.getpid()))
    try:
        yield Subject(made)
    finally:
        provider.Embedded().delete(provider.access(made))


@pytest.fixture(scope="session")
def prover(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prover]:
    """Runs promises by their ids."""
    runs = Prover(tmp_path_factory.mktemp("runs"))
    yield runs
    runs.end()


@pytest.fixture(scope="session")
def record(pytestconfig: pytest.Config) -> Record:
    """What was noticed so far."""
    return pytestconfig.stash[RECORD]


@pytest.fixture(scope="session")
def sound(request: pytest.FixtureRequest, subject: Subject, prover: Prover) -> list[Result]:
    """What the promises of all selected breakages find before anything is broken."""
    items = [item for item in request.session.items if isinstance(item, pytest.Function)]
    chosen = [item.callspec.params["broken"] for item in items if hasattr(item, "callspec")]
    named = {id: None for each in chosen if isinstance(each, Breakage) for id in each.promises}
    whole = [id for id in named if "[" not in id or id.partition("[")[0] not in named]
    return prover.start(whole, subject.arguments).results(within=SOUND_SECONDS) if whole else []


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the table of promises and breakages, and keep it when asked to."""
    found = config.stash[RECORD]
    if not found.found:
        return
    terminalreporter.section("broken clusters")
    for line in found.table():
        terminalreporter.write_line(line)
    if config.getoption("--write-detection"):
        DETECTION.write_text(found.kept_in(FOUND).page())
        terminalreporter.write_line(f"written: {DETECTION}")
