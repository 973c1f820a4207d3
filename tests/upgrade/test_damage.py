"""Upgrades that do damage: each ends in a verdict that names it, and blames nothing else."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from clusterproof.embedded import builder, operate

from clusterproof import conditions, kinds
from clusterproof.objects import Object
from clusterproof.wait import eventually

from ..broken.subject import SERVER, Subject
from .conftest import OLD
from .observation import Observation

Damage = Callable[[Subject, str], contextlib.AbstractContextManager[None]]
ENDLESS = "100000"
"""Budget in seconds, where not the outages of the repairs are to be judged."""


@contextlib.contextmanager
def node_left_behind(subject: Subject, namespace: str) -> Iterator[None]:
    """The second node still has its old kubelet."""
    node = subject.state.nodes[1]
    program = subject.state.node_folder(node) / "opt/clusterproof/bin/kubelet"
    new = program.with_suffix(".new")
    program.rename(new)
    os.link(builder.ensure(("kubernetes",), OLD).binary("kubelet"), program)
    try:
        operate.restart(subject.state, f"{node.name}/kubelet")
        _await_version(subject, node.name, f"v{OLD}")
        yield
    finally:
        new.replace(program)
        operate.restart(subject.state, f"{node.name}/kubelet")
        _await_version(subject, node.name, f"v{subject.state.kubernetes_version}")


@contextlib.contextmanager
def lost_route(subject: Subject, namespace: str) -> Iterator[None]:
    """The first node has no route to the pods of the second."""
    pods, address = subject.state.nodes[1].pods, subject.state.nodes[1].address
    lost, found = f"ip route replace blackhole {pods}", f"ip route replace {pods} via {address}"
    with subject.commanded(subject.nodes[0], lost, found):
        yield


@contextlib.contextmanager
def dropped_version(subject: Subject, namespace: str) -> Iterator[None]:
    """A definition is not served at its older version any more."""
    group = f"{namespace.removeprefix('cp-')}.clusterproof.dev"

    def drop(definition: dict[str, Any]) -> None:
        definition["spec"]["versions"][1]["served"] = False

    path = f"/apis/{group}/v1beta1/namespaces/{namespace}/keepsakes"
    with subject.changed(kinds.CUSTOM_RESOURCE_DEFINITION, f"keepsakes.{group}", "", drop):
        eventually(lambda: subject.client.request("GET", path).status, conditions.equals(404), within=30)
        yield
    eventually(lambda: subject.client.request("GET", path).status, conditions.equals(200), within=30)


@contextlib.contextmanager
def wiped_volume(subject: Subject, namespace: str) -> Iterator[None]:
    """The volume of one pod is empty."""
    claim = Object(subject.client, kinds.PERSISTENT_VOLUME_CLAIM, "data-keeper-0", namespace).read()
    opt = [subject.state.node_folder(node) / "opt" for node in subject.state.nodes]
    ((blob,),) = [found for each in opt if (found := list(each.rglob(f"{claim.spec['volumeName']}*/blob")))]
    aside = Path(f"{blob.parent}.aside")
    blob.rename(aside)
    try:
        yield
    finally:
        aside.rename(blob)


@contextlib.contextmanager
def authorization_off(subject: Subject, namespace: str) -> Iterator[None]:
    """The API server was started with a flag that lets everybody do everything."""
    with subject.restarted(SERVER, ("--authorization-mode=", "--authorization-mode=AlwaysAllow")):
        yield


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (node_left_behind, {"nodes/version": "Node {second} is left behind at v1.36.3; the API server runs v1.37.2"}),
        (lost_route, {"network/ways": "from {first}, the pod on {second} is not reached: curl: "}),
        (
            dropped_version,
            {
                "api/custom_objects": "Keepsake {namespace}/of-v1, written at v1, cannot be read at {group}/v1beta1",
                "api/surface": "{group}/v1beta1/keepsakes is no longer served; it was before",
            },
        ),
        (wiped_volume, {"data/volumes": "the volume of pod {namespace}/keeper-0 does not hold what was written"}),
        (
            authorization_off,
            {"access/authorization": "was granted to read ConfigMaps alone is answered 200 when it wants to read a S"},
        ),
    ],
)
def test_damage_is_named(subject: Subject, observed: Observation, damage: Damage, named: dict[str, str]) -> None:
    """An upgrade that did damage MUST end in a verdict that names it, in exit code 1, and in no other complaint."""
    namespace = observed.before.namespace
    names = {"namespace": namespace, "first": subject.nodes[0], "second": subject.nodes[1]}
    names["group"] = f"{namespace.removeprefix('cp-')}.clusterproof.dev"

    with damage(subject, namespace):
        judged = observed.verify("--budget", ENDLESS, "--within", "60")

    assert judged.code == 1
    assert set(judged.broken) == set(named), judged.text
    for check, sentence in named.items():
        assert sentence.format(**names) in judged.broken[check], judged.text
        assert sentence.format(**names) in (observed.folder / "verdict.txt").read_text()
        assert sentence.format(**names)[:40] in (observed.folder / "verdict.md").read_text()


def test_sound_again(observed: Observation) -> None:
    """Once all of it is repaired, the verdict MUST be good, without a budget for what was done meanwhile."""
    judged = observed.verify("--budget", ENDLESS)

    assert (judged.code, judged.broken) == (0, {}), judged.text


def _await_version(subject: Subject, node: str, version: str) -> None:
    def runs(seen: Object) -> str | None:
        found = seen.status["nodeInfo"]["kubeletVersion"]
        return conditions.ready(seen) if found == version else f"it runs {found}"

    eventually(Object(subject.client, kinds.NODE, node), runs, within=90)
