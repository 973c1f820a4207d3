"""A cluster whose nodes have the image, and what is set up in it by the manifests that users get."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from clusterproof.embedded import cluster, operate
from clusterproof.incluster import manifests
from clusterproof.incluster.image import recipe
from clusterproof.incluster.jobs import ended
from clusterproof.reports import result

from clusterproof import eventually, kinds
from clusterproof.client import Client
from clusterproof.conditions import gone, ready
from clusterproof.objects import Object, Selection
from clusterproof.outcome import Run
from clusterproof.running import ledger

NAME, NAMESPACE = "incluster", "clusterproof"
PATIENCE = 600.0
"""Seconds that a Job with promises may take on a busy machine."""
_WHOLE = (kinds.CLUSTER_ROLE, kinds.CLUSTER_ROLE_BINDING)


@dataclass(frozen=True, slots=True)
class Place:
    """Where the suites run: a namespace of a cluster."""

    client: Client
    folder: Path
    """For what is read out of it."""

    def apply(self, *sets: str, args: tuple[str, ...] = ()) -> list[Object]:
        """Create the manifests of some sets; `args` are added to what pytest is given."""
        made = []
        for manifest in manifests.read(sets, recipe.REFERENCE, 4):
            for pytest_args in _args(manifest) if args else ():
                pytest_args[:] = [*args, *pytest_args[1:]]
            kind = kinds.of(manifest)
            raw = self.client.post(kind.path(manifest["metadata"].get("namespace")), manifest)
            made.append(Object.of(self.client, raw, kind))
        return made

    def run(self, cron_job: Object, name: str) -> Object:
        """What `kubectl create job --from=cronjob/...` does; the Job when it has ended."""
        owner = {"apiVersion": "batch/v1", "kind": "CronJob", "name": cron_job.name, "uid": cron_job.uid}
        manifest = {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": name, "ownerReferences": [{**owner, "controller": True}]},
            "spec": cron_job.spec["jobTemplate"]["spec"],
        }
        self.client.post(kinds.JOB.path(NAMESPACE), manifest)
        return self.end(name)

    def end(self, job: str) -> Object:
        """A Job when it has ended."""
        return eventually(Object(self.client, kinds.JOB, job, NAMESPACE), _over, within=PATIENCE)

    def said(self, job: str) -> str:
        """What the pods of a Job said, all of their containers, for messages."""
        pods = Selection(self.client, kinds.POD, NAMESPACE, f"batch.kubernetes.io/job-name={job}").read()
        said = []
        for pod in pods:
            for container in pod.spec.get("initContainers", []) + pod.spec["containers"]:
                path = kinds.POD.path(NAMESPACE, pod.name, "log")
                answer = self.client.request("GET", path, query={"container": container["name"]}, accept="*/*")
                said.append(f"--- {pod.name} {container['name']}: {pod.status.get('phase')}\n{answer.text}")
        return "\n".join(said) or f"Job {job} has no pods"

    def reader(self) -> Object:
        """The pod to look at results from."""
        (reader,) = self.apply("reader")
        return eventually(reader, ready, within=120)

    def result(self, reader: Object, path: str) -> Run:
        """The result of a run, as it is on the volume."""
        copy = self.folder / "result.json"
        copy.write_text(reader.exec(["cat", path]).stdout)
        return result.read(copy)


def _args(manifest: dict[str, Any]) -> Iterator[list[str]]:
    for pod in manifests.pods(manifest):
        yield from (each["args"] for each in pod["containers"] if each["name"] == "suites")


def _over(job: Object) -> str | None:
    return ended(job) if "completions" in job.spec else "it is not known how many pods it has"


@pytest.fixture(scope="session")
def administrator() -> Iterator[Client]:
    """Of a cluster with two nodes that have the image."""
    if os.geteuid() != 0:
        pytest.skip("embedded clusters need root")
    archive = recipe.ensure(print)
    made = cluster.up(cluster.Plan(NAME, nodes=2, addons=("dns", "storage")), print)
    try:
        operate.load(made, archive)
        yield Client.from_kubeconfig(made.kubeconfig)
    finally:
        cluster.down(NAME)


@pytest.fixture
def place(administrator: Client, tmp_path: Path) -> Iterator[Place]:
    """What `clusterproof manifests access` makes; it is deleted as its first lines say, and nothing stays."""
    before = ledger.snapshot(administrator)
    made = Place(administrator, tmp_path)
    made.apply("access")
    yield made
    whole = [Object(administrator, kind, NAMESPACE) for kind in (*_WHOLE, kinds.NAMESPACE)]
    for each in whole:
        each.delete()
    for each in whole:
        eventually(each, gone, within=180)

    def left() -> tuple[str, ...]:
        return ledger.compare(before, ledger.snapshot(administrator), "no run").appeared

    eventually(left, lambda seen: "; ".join(seen) or None, within=120, describe="nothing is left")
