"""What runs in the pods of a sharded run: each proves its part, and one puts the results together.

A result goes from pod to pod as ConfigMaps that belong to the Job of the shards: they need no volume that pods on
several nodes could share, and go when the Job goes.
"""

from __future__ import annotations

import base64
import gzip
import os
import signal
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from kubernetes.config import ConfigException

from clusterproof import cli, kinds
from clusterproof.client import IN_CLUSTER, Client
from clusterproof.errors import SurroundingsError
from clusterproof.objects import Object, Selection
from clusterproof.wait import eventually

JOB_LABEL, SHARD_LABEL = "clusterproof.dev/shards-of", "clusterproof.dev/shard"
"""Of the ConfigMaps with results: the Job's UID, and the number of the shard, from 1."""
RESULT = "result.json.gz"
LIMIT = 900_000
"""Bytes in one ConfigMap, of which the API server takes 1 MiB; a result that has more is cut into several."""

_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_TOLD = ("JOB_NAME", "JOB_COMPLETION_INDEX")


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod of an Indexed Job."""

    namespace: str
    job: str
    index: int
    """From 0, as Kubernetes counts."""

    @classmethod
    def of_environment(cls) -> Pod:
        """The pod that this runs in; UsageError where it is none, or was not told of which Job it is."""
        if missing := [name for name in _TOLD if not os.environ.get(name)]:
            raise pytest.UsageError(
                f"job-shard runs in pods of an Indexed Job, which have {' and '.join(_TOLD)} in their environment "
                f"({' and '.join(missing)} is missing here); see: clusterproof manifests shards"
            )
        return cls(own_namespace(), os.environ["JOB_NAME"], int(os.environ["JOB_COMPLETION_INDEX"]))


def own_namespace() -> str:
    """The namespace of the pod that this runs in; UsageError where it is none."""
    try:
        return _NAMESPACE.read_text().strip()
    except OSError as error:
        raise pytest.UsageError(f"this runs in pods with a service account, and here is none: {error}") from error


def shard(pod: Pod, arguments: list[str]) -> int:
    """Prove the shard of a pod and hand over its result, be it good or bad; the exit code of a run that was none.

    The number of shards is that of the Job's completions.
    """
    client = _client()
    job = Object(client, kinds.JOB, pod.job, pod.namespace).read()
    number, of = pod.index + 1, job.spec["completions"]
    run = job.uid[:8]
    # Should this be the second try of a pod that was killed: what the first one left would be in the way.
    cli.main(["sweep", "--run", f"{run}-{number}", f"--kubeconfig={IN_CLUSTER}"])
    with tempfile.TemporaryDirectory(prefix="clusterproof-shard-") as folder:
        chosen = ["--cluster=external", f"--run-id={run}", f"--shard={number}/{of}", f"--reports-dir={folder}"]
        code = _pytest([*arguments, *chosen])
        result = Path(folder, "result.json")
        if code not in (cli.DONE, cli.FAILED) or not result.exists():
            return code or cli.FAILED
        publish(client, job, number, result.read_bytes())
    print(f"shard {number} of {of} of Job {job.namespace}/{job.name}: result handed over")
    return cli.DONE


def publish(client: Client, job: Object, number: int, result: bytes) -> None:
    """Keep the result of a shard, in place of what an earlier try of it may have left."""
    for old in Selection(
        client, kinds.CONFIG_MAP, job.namespace, f"{JOB_LABEL}={job.uid},{SHARD_LABEL}={number}"
    ).read():
        old.delete()
    packed = gzip.compress(result, mtime=0)
    for part, start in enumerate(range(0, len(packed), LIMIT)):
        manifest = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": f"{job.name}-{number}-{part}",
                "labels": {JOB_LABEL: job.uid, SHARD_LABEL: str(number)},
                "ownerReferences": [{"apiVersion": "batch/v1", "kind": "Job", "name": job.name, "uid": job.uid}],
            },
            "binaryData": {RESULT: base64.b64encode(packed[start : start + LIMIT]).decode()},
        }
        client.post(kinds.CONFIG_MAP.path(job.namespace), manifest)


def merge(namespace: str, name: str, output: Path, *, within: float) -> int:
    """Wait until the Job of the shards has ended, and put together what they handed over; exits as one run would."""
    client = _client()
    job = eventually(Object(client, kinds.JOB, name, namespace), ended, within=within)
    with tempfile.TemporaryDirectory(prefix="clusterproof-merge-") as folder:
        files = []
        for number, result in results(client, job).items():
            files.append(Path(folder, f"shard-{number}.json"))
            files[-1].write_bytes(result)
        if not files:
            raise SurroundingsError(f"Job {namespace}/{name} has ended, and none of its pods handed a result over")
        return cli.main(["merge", *map(str, files), f"--output={output}"])


def ended(job: Object) -> str | None:
    """A condition: no pod of the Job will run any more."""
    for outcome in ("Complete", "Failed"):
        if job.condition(outcome).get("status") == "True":
            return None
    status = job.status
    wanted = job.spec["completions"]
    return f"{status.get('succeeded', 0)} of {wanted} pods have ended well, {status.get('failed', 0)} badly"


def results(client: Client, job: Object) -> dict[int, bytes]:
    """What the shards of a Job have handed over, by the number of the shard."""
    found = Selection(client, kinds.CONFIG_MAP, job.namespace, f"{JOB_LABEL}={job.uid}").read()
    parts: dict[int, dict[int, bytes]] = {}
    for each in found:
        part = int(each.name.rpartition("-")[2])
        content = base64.b64decode(each.raw["binaryData"][RESULT])
        parts.setdefault(int(each.metadata["labels"][SHARD_LABEL]), {})[part] = content
    return {
        number: gzip.decompress(b"".join(content for _, content in sorted(of.items())))
        for number, of in sorted(parts.items())
    }


def _pytest(arguments: list[str]) -> int:
    """Run the suites in a process of their own, which is told when this pod is to end; its exit code."""
    running = subprocess.Popen(["pytest", *arguments])
    before = signal.signal(signal.SIGTERM, lambda *_: running.terminate())
    try:
        return running.wait()
    finally:
        signal.signal(signal.SIGTERM, before)


def _client() -> Client:
    try:
        return Client.from_kubeconfig(IN_CLUSTER)
    except ConfigException as error:
        raise pytest.UsageError(f"this runs in pods with a service account, and here is none: {error}") from error
