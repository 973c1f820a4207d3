"""Fixtures of the engine's tests: a fake API server, a client of it, and small suites run by a pytest of their own."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from clusterproof.client import Client

from .fake_api import NODE, FakeApi, serve

pytest_plugins = ["pytester"]

NEED_MORE = (
    "broken",
    "clusters",
    "docs",
    "incluster",
    "interruptions",
    "kind",
    "page",
    "playbooks",
    "upgrade",
    "upstream",
)
"""Folders of tests that need clusters, a Docker or a browser, and minutes: they run when they are named."""


def pytest_configure() -> None:
    """Hear Ctrl-C, and with it all that tests start: a shell makes deaf to it what it runs in the background."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out what needs more than this process, unless the user asked for it."""
    if collection_path.parent != Path(__file__).parent or collection_path.name not in NEED_MORE:
        return None
    named = [Path(config.invocation_params.dir, argument.partition("::")[0]).resolve() for argument in config.args]
    return None if any(path.is_relative_to(collection_path) for path in named) else True


@pytest.fixture
def api() -> Iterator[FakeApi]:
    """A running fake API server with one node."""
    fake = FakeApi()
    fake.put("/api/v1/nodes/node-1", NODE)
    system = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "kube-system"}}
    fake.put("/api/v1/namespaces/kube-system", system)
    with serve(fake) as running:
        yield running


@pytest.fixture
def kubeconfig(api: FakeApi, tmp_path: Path) -> Path:
    """A kubeconfig of the fake API server."""
    return api.kubeconfig(tmp_path / "kubeconfig", token="secret")


@pytest.fixture
def client(kubeconfig: Path) -> Client:
    """A client of the fake API server."""
    return Client.from_kubeconfig(kubeconfig)
