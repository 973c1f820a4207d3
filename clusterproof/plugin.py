"""Which pytest hooks clusterproof uses, and the one list that wires the rooms together.

Inert until a test asks for the `cluster` fixture, or the suites themselves are run.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from clusterproof import catalog, marks, settings
from clusterproof.running import hookspecs, proving, resume, retry, shards
from clusterproof.running.run import RunFolder
from clusterproof.running.session import Conductor

pytest_plugins = [
    "clusterproof.fixtures.cluster",
    "clusterproof.fixtures.namespace",
    "clusterproof.fixtures.images",
    "clusterproof.fixtures.clients",
    "clusterproof.fixtures.workloads",
    "clusterproof.fixtures.nodes",
    "clusterproof.reports.writer",
    "clusterproof.reports.terminal",
    "clusterproof.reports.baseline",
]


def pytest_addoption(parser: pytest.Parser) -> None:
    settings.add_options(parser)


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    pluginmanager.add_hookspecs(hookspecs)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    for description in marks.DESCRIPTIONS:
        config.addinivalue_line("markers", description)
    settings.of(config)
    shared = getattr(config, "workerinput", {}).get("clusterproof")
    if shared:
        config.stash[proving.RUN] = RunFolder(shared[0], Path(shared[1]))
    else:
        chosen, suites = settings.of(config), _suites(config)
        if chosen.shard:
            shards.weights({}, chosen.shard_by)  # in a worker, nobody would hear that it cannot be read
        earlier = resume.load(chosen, suites=suites) if chosen.resume else None
        config.stash[proving.RUN] = RunFolder.make(earlier.first.id if earlier else chosen.chosen_id)
        conductor = Conductor(config, config.stash[proving.RUN], suites=suites, earlier=earlier)
        config.pluginmanager.register(conductor, "clusterproof.conductor")
    config.pluginmanager.register(proving.Prover(config), "clusterproof.prover")
    if settings.of(config).retry_broken:
        config.pluginmanager.register(retry.Retrying(), "clusterproof.retrying")


def _suites(config: pytest.Config) -> bool:
    return catalog.are_suites(config.args, by_module=config.option.pyargs, start=config.invocation_params.dir)
