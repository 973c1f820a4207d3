"""The embedded cluster that a run asks for when one of that name is there already."""

from __future__ import annotations

from pathlib import Path

import pytest
from clusterproof.embedded import state
from clusterproof.embedded.provider import Embedded

from clusterproof.provider import Shape


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> state.ClusterState:
    """A cluster of three nodes, to which an autoscaler has added one."""
    monkeypatch.setenv("CLUSTERPROOF_STATE", str(tmp_path / "state"))
    monkeypatch.setattr(state, "NAMESPACES", tmp_path / "netns")
    monkeypatch.setattr(state, "_routed_networks", lambda: [])
    made = state.allocate("a", "1.37.2", 3)
    made.plan_node("somebody")
    made.ready = True
    made.save()
    return made


@pytest.mark.parametrize("asked", [{}, {"kubernetes_version": "v1.37.2"}, {"nodes": 3}, {"nodes": 2}], ids=str)
def test_a_cluster_that_is_as_asked_for_is_used(there: state.ClusterState, asked: dict[str, object]) -> None:
    """Two nodes are the default: nobody may have asked for them."""
    access = Embedded().create(Shape("a", reuse=True, **asked))  # type: ignore[arg-type]
    assert access.kubeconfig == str(there.kubeconfig)


@pytest.mark.parametrize(
    ("asked", "differs"),
    [
        ({"kubernetes_version": "1.36.3"}, "cluster a runs Kubernetes 1.37.2, and 1.36.3 was asked for"),
        ({"nodes": 4}, "cluster a has 3 nodes, and 4 were asked for"),
    ],
    ids=["version", "nodes"],
)
def test_a_cluster_that_is_not_as_asked_for_is_refused(
    there: state.ClusterState, asked: dict[str, object], differs: str
) -> None:
    with pytest.raises(state.CannotStart) as caught:
        Embedded().create(Shape("a", reuse=True, **asked))  # type: ignore[arg-type]
    todo = ": remove it with `clusterproof down --name a`, or choose another name with --cluster-name"
    assert str(caught.value) == differs + todo
