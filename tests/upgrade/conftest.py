"""One embedded cluster: upgraded first, damaged afterwards."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import pytest
from clusterproof.embedded import cluster, state
from clusterproof.embedded.upgrade import upgrade

from ..broken.subject import Subject
from .observation import Observation

NAME = "upgraded"
OLD, NEW = "1.36.3", "1.37.2"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("upgrades")
    group.addoption("--upgrade-cluster", metavar="NAME", help="damage this embedded cluster, and leave it running")


@pytest.fixture(scope="session")
def old(request: pytest.FixtureRequest) -> Iterator[state.ClusterState]:
    """A cluster of two nodes at the older version."""
    if os.geteuid() != 0:
        pytest.skip("embedded clusters need root")
    if chosen := request.config.getoption("--upgrade-cluster"):
        yield state.load(chosen)
        return
    with contextlib.suppress(state.EmbeddedError):
        cluster.down(NAME)  # of a run that was killed
    made = cluster.up(cluster.Plan(NAME, kubernetes_version=OLD, owner=os.getpid()), print)
    try:
        yield made
    finally:
        cluster.down(NAME)


@pytest.fixture(scope="session")
def subject(old: state.ClusterState) -> Subject:
    """The same cluster once it is upgraded, to be damaged."""
    if state.load(old.name).kubernetes_version != NEW:  # only some of the tests were selected
        upgrade(old.name, NEW, print)
    return Subject(state.load(old.name))


@pytest.fixture(scope="module")
def observed(subject: Subject, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Observation]:
    """An observation of it, begun while it is sound; each damage is undone before the next."""
    observation = Observation(subject.state.kubeconfig, tmp_path_factory.mktemp("observation") / "state")
    observation.prepare()
    yield observation
    observation.end()
