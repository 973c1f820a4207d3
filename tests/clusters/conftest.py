"""What tests on real clusters share."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from clusterproof.embedded import cluster

from .machine import Machine, machine


@pytest.fixture(scope="session")
def programs() -> cluster.builder.Artifacts:
    """What clusters are made of, built before a machine needs it: theirs have no way to the internet."""
    if os.geteuid() != 0:
        pytest.skip("embedded clusters need root")
    return cluster.build(cluster.Plan("any", addons=("dns", "disks", "clusterset")), print)[0]


@pytest.fixture(scope="module")
def shared(programs: object) -> Iterator[Machine]:
    """A machine for tests that leave it as it was."""
    with machine() as made:
        yield made


@pytest.fixture
def fresh(programs: object) -> Iterator[Machine]:
    """A machine that nothing has happened on."""
    with machine() as made:
        yield made
