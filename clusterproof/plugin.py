"""Which pytest hooks clusterproof uses, and the one list that wires the rooms together.

Inert until a test asks for the `cluster` fixture, or the suites themselves are run.
"""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from clusterproof import catalog, hookspecs, marks, proving, settings
from clusterproof.run import RunFolder
from clusterproof.session import Conductor

pytest_plugins = [
    "clusterproof.fixtures.cluster",
    "clusterproof.fixtures.namespace",
    "clusterproof.fixtures.images",
    "clusterproof.fixtures.clients",
    "clusterproof.fixtures.workloads",
    "clusterproof.reports.writer",
    "clusterproof.reports.terminal",
]

WORKERS = 10
"""Processes by default: promises mostly wait, so there are more of them than processors."""
FEW = 2
"""So many promises are proven in one process: starting others would take longer."""

CONDUCTOR = pytest.StashKey[Conductor]()


def pytest_addoption(parser: pytest.Parser) -> None:
    settings.add_options(parser)


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    pluginmanager.add_hookspecs(hookspecs)


@pytest.hookimpl(wrapper=True)
def pytest_cmdline_main(config: pytest.Config) -> Generator[None, object, object]:
    """Prove in parallel by default; as a wrapper, before pytest-xdist reads its options."""
    chosen = _suites(config)
    if chosen is not None and _free_to_distribute(config):
        number = len(catalog.scan(chosen)) if not any("::" in argument for argument in config.args) else 1
        config.option.numprocesses = min(WORKERS, number) if number > FEW else 0
    return (yield)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    for description in marks.DESCRIPTIONS:
        config.addinivalue_line("markers", description)
    settings.of(config)
    shared = getattr(config, "workerinput", {}).get("clusterproof")
    if shared:
        config.stash[proving.RUN] = RunFolder(shared[0], Path(shared[1]))
    else:
        config.stash[proving.RUN] = RunFolder.make(settings.of(config).run_id)
        conductor = Conductor(config, config.stash[proving.RUN], suites=_suites(config) is not None)
        config.stash[CONDUCTOR] = conductor
        config.pluginmanager.register(conductor, "clusterproof.conductor")
    config.pluginmanager.register(proving.Prover(config), "clusterproof.prover")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Our own scheduling for the suites, unless the user chose another than the default."""
    if _suites(config) is None or config.getoption("dist") != "load":
        return None
    from clusterproof.scheduling import LongOnesAlone

    return LongOnesAlone(config, log, config.stash[CONDUCTOR].count_first)


def _suites(config: pytest.Config) -> list[Path] | None:
    start = config.invocation_params.dir
    return catalog.targets(config.args, by_module=config.option.pyargs, start=start)


def _free_to_distribute(config: pytest.Config) -> bool:
    option = config.option
    if hasattr(config, "workerinput"):  # xdist calls this hook in its workers, too
        return False
    if not hasattr(option, "numprocesses") or option.collectonly or option.usepdb:
        return False
    return option.numprocesses is None and option.dist == "no" and not option.tx
