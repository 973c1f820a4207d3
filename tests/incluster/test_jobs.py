"""The CronJob, and the Indexed Job: what they come to, and that nothing of them stays."""

from __future__ import annotations

import json
import time

from clusterproof import kinds
from clusterproof.objects import Object, Selection
from clusterproof.outcome import Outcome, Run

from .conftest import NAMESPACE, Place

SMOKE = ("suites/", "-m", "smoke")
SELECTION = (
    "suites/health",
    "suites/access/test_rbac.py",
    "suites/api",
    "suites/apps/test_deployment.py",
    "--workers=3",
)
"""What takes a machine of 2 cores two minutes, four pods at a time."""


def _pods(place: Place, job: str) -> list[Object]:
    return Selection(place.client, kinds.POD, NAMESPACE, f"batch.kubernetes.io/job-name={job}").read()


def _outcomes(run: Run) -> dict[str, str]:
    return {each.id: each.outcome.value for each in run.results}


def test_the_cron_job_proves_the_cluster_it_runs_in(place: Place) -> None:
    """A Job of the CronJob MUST prove promises, with the rights of its service account, and keep its result."""
    (nightly,) = place.apply("nightly", args=SMOKE)

    job = place.run(nightly, "by-hand")

    assert job.condition("Complete").get("status") == "True", place.said("by-hand")
    reader = place.reader()
    run = place.result(reader, "/history/by-hand/result.json")
    assert run.complete
    assert run.cluster is not None
    assert (run.cluster.provider, run.cluster.name, len(run.cluster.nodes)) == ("external", "in-cluster", 2)
    wrong = {each.id: each.message for each in run.results if each.outcome in (Outcome.BROKEN, Outcome.ERROR)}
    assert not wrong
    assert sum(each.outcome is Outcome.KEPT for each in run.results) > 30
    assert run.leaks == ()
    told = json.loads(reader.exec(["clusterproof", "history", "/history", "--format=json"]).stdout)
    assert [past["run"] for past in told["runs"]] == ["nightly"]
    assert reader.exec(["test", "-s", "/history/by-hand/report.html"]).code == 0


def test_four_shards_come_to_what_one_pod_comes_to(place: Place) -> None:
    """Four pods that share a run MUST have the outcomes and verdicts of one pod that has it to itself."""
    (nightly,) = place.apply("nightly", args=SELECTION)
    began = time.monotonic()
    place.run(nightly, "whole")
    one = time.monotonic() - began

    began = time.monotonic()
    place.apply("shards", args=SELECTION)
    shards = place.end("shards")
    four = time.monotonic() - began
    merge = place.end("merge")

    assert shards.status.get("completedIndexes") == "0-3", place.said("shards")
    assert len({pod.spec["nodeName"] for pod in _pods(place, "shards")}) == 2
    reader = place.reader()
    whole = place.result(reader, "/history/whole/result.json")
    merged = place.result(reader, f"/history/shards-{merge.uid}/result.json")
    assert _outcomes(merged) == _outcomes(whole)
    assert merged.profiles == whole.profiles
    assert (merged.complete, merged.leaks) == (True, ())
    assert merge.condition("Complete").get("status") == "True", place.said("merge")
    print(f"{len(whole.results)} promises: one pod {one:.0f} s ({whole.seconds:.0f} s of it the run), ")
    print(f"four pods {four:.0f} s; from the first promise to the last: {merged.seconds:.0f} s")
