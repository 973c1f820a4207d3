"""Fixtures of the engine's tests: a fake API server, a client of it, and small suites run by a pytest of their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from clusterproof.client import Client

from .fake_api import NODE, FakeApi, serve

pytest_plugins = ["pytester"]


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
