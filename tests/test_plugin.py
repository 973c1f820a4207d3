"""What pytest makes of promises: small suites, run by a pytest of their own against a fake API server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from clusterproof import catalog, provider
from clusterproof.hold import HOLD
from clusterproof.provider import Access, Shape

from .fake_api import FakeApi, group, resource

HEAD = """
import os, pytest
from clusterproof import capabilities, eventually, kinds, measure, step
from clusterproof.conditions import gone
from clusterproof.errors import ApiError, SurroundingsError
MAP = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "one"}}
"""


@pytest.fixture
def suite(pytester: pytest.Pytester, kubeconfig: Path, monkeypatch: pytest.MonkeyPatch) -> Suite:
    monkeypatch.setenv("CLUSTERPROOF_CLUSTER", "external")
    monkeypatch.setenv("CLUSTERPROOF_KUBECONFIG", str(kubeconfig))
    return Suite(pytester)


class Suite:
    """A suite in a folder of its own."""

    def __init__(self, pytester: pytest.Pytester) -> None:
        self.pytester = pytester

    def write(self, body: str, path: str = "suites/apps/test_thing.py") -> None:
        file = self.pytester.path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(HEAD + body)

    def run(self, *options: str) -> pytest.RunResult:
        arguments = ("-p", "no:cacheprovider", "-p", "no:randomly", *options)
        return self.pytester.runpytest_inprocess("suites", *arguments, no_reraise_ctrlc=True)

    @property
    def out(self) -> Path:
        return self.pytester.path / "reports/out"

    @property
    def document(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads((self.out / "result.json").read_text())
        return document

    @property
    def results(self) -> dict[str, dict[str, Any]]:
        return {result["id"]: result for result in self.document["results"]}

    @property
    def outcomes(self) -> dict[str, str]:
        return {id: result["outcome"] for id, result in self.results.items()}


def test_inert_without_a_promise(suite: Suite, api: FakeApi) -> None:
    suite.write("def test_nothing(): pass")
    result = suite.run("-n0")
    result.assert_outcomes(passed=1)
    assert not api.requests
    assert not suite.out.exists()
    result.stdout.no_fnmatch_line("*clusterproof:*")


def test_each_outcome_has_its_cause(suite: Suite) -> None:
    suite.write(
        '''
def test_kept(cluster):
    """It MUST be kept."""
def test_broken(cluster):
    """It MUST break."""
    assert 1 == 2, "one is not two"
def test_never(namespace):
    """It MUST go away."""
    eventually(namespace.create(MAP), gone, within=0.1)
def test_refused(namespace):
    """It MUST exist."""
    namespace.get(kinds.POD, "none")
def test_lost(cluster):
    """It MUST answer."""
    raise SurroundingsError("no connection")
def test_defect(cluster):
    """It MUST be sound."""
    {}["x"]
def test_right(cluster):
    """It MUST be allowed."""
    raise ApiError(403, "Forbidden", 'pods is forbidden: User "jane" cannot list', "GET", "/", {})
def test_denied(cluster):
    """Others MUST be told."""
    raise ApiError(403, "Forbidden", 'pods is forbidden: User "jane" cannot list', "GET", "/", {}, user="jane")
@pytest.fixture
def failing(cluster):
    raise ValueError("no such thing")
def test_setup(failing):
    """It MUST begin."""
@pytest.fixture
def untidy(cluster):
    yield
    raise ValueError("does not go")
def test_teardown(untidy):
    """It MUST end."""
@pytest.mark.requires(capabilities.GATEWAY)
def test_unclaimed(cluster):
    """It MUST be claimed."""
@pytest.mark.skip(reason="not today")
def test_skipped(cluster):
    """It MUST be skipped."""
@pytest.mark.xfail(reason="known")
def test_expected(cluster):
    """It MUST be known."""
    assert False
'''
    )
    assert suite.run("-n0").ret == pytest.ExitCode.TESTS_FAILED
    told = {id.rpartition("/")[2]: (each["outcome"], each["reason"]) for id, each in suite.results.items()}
    assert told["kept"] == ("kept", "")
    assert told["broken"] == ("broken", "one is not two")
    assert told["never"][0] == "broken"
    assert told["never"][1].endswith("last seen: one (for a slower cluster raise --timeout-scale)")
    assert told["refused"][0] == "broken"
    assert told["lost"] == ("error", "no connection")
    assert told["defect"] == ("error", "the promise could not be evaluated: KeyError: 'x'")
    assert told["right"] == ("error", 'a right is missing: pods is forbidden: User "jane" cannot list')
    assert told["denied"][0] == "broken"
    assert told["setup"] == ("error", "setup: no such thing")
    assert told["teardown"] == ("error", "teardown: does not go")
    assert told["unclaimed"] == ("unsupported", "network.gateway: no API group gateway.networking.k8s.io")
    assert told["skipped"] == ("skipped", "not today")
    assert told["expected"] == ("skipped", "expected to fail: known")
    assert suite.document["complete"]


def test_a_quota_of_others_is_in_the_way(suite: Suite) -> None:
    """Where a quota is exceeded that no promise has made, nothing is learned of the cluster."""
    suite.write(
        '''
QUOTA = {"apiVersion": "v1", "kind": "ResourceQuota"}
def exceed(name):
    said = f"pods is forbidden: exceeded quota: {name}, requested: pods=1, used: pods=3, limited: pods=3"
    raise ApiError(403, "Forbidden", said, "POST", "/", {})
def test_theirs(namespace):
    """It MUST have room."""
    namespace.client.post(kinds.RESOURCE_QUOTA.path(namespace.name), {**QUOTA, "metadata": {"name": "team"}})
    exceed("team")
def test_ours(namespace):
    """It MUST be counted."""
    namespace.create({**QUOTA, "metadata": {"name": "few"}})
    exceed("few")
'''
    )
    suite.run("-n0")
    told = {id.rpartition("/")[2]: (each["outcome"], each["reason"]) for id, each in suite.results.items()}
    assert told["theirs"][0] == "error"
    assert told["theirs"][1].endswith("/team: exceeded quota: team, requested: pods=1, used: pods=3, limited: pods=3")
    assert told["ours"][0] == "broken"


def test_a_result_says_what_was_done(suite: Suite) -> None:
    suite.write(
        '''
@pytest.mark.smoke
@pytest.mark.parametrize("number", [pytest.param(1, id="one")])
def test_all(namespace, number):
    """A map MUST be
    stored. More is said later.

    Source: https://kubernetes.io/docs/
    """
    with step("look"):
        namespace.create(MAP)
    measure("time (s)", 1.5)
'''
    )
    assert suite.run("-n0").ret == pytest.ExitCode.OK
    result = suite.results["apps/thing/all[one]"]
    assert result["promise"] == "A map MUST be stored."
    assert (result["tier"], result["source"]) == ("smoke", "https://kubernetes.io/docs/")
    assert result["measurements"] == {"time (s)": 1.5}
    assert result["requests"] == 3  # Namespace, the map, the deletion
    assert [step["name"] for step in result["steps"]][-2:] == ["create ConfigMap one", "look"]
    assert len(result["namespaces"]) == 1
    assert suite.document["expected"] == ["apps/thing/all[one]"]
    assert suite.document["cluster"]["version"] == "v1.37.2"
    _, proven, ended = map(json.loads, (suite.out / "journal.jsonl").read_text().splitlines())
    assert proven == result
    assert ended == {"ended": {"complete": True}}


def test_everything_carries_the_run_and_goes_with_it(suite: Suite, api: FakeApi) -> None:
    suite.write(
        '''
ROLE = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "rules": []}
def test_all(cluster, namespace, namespaces):
    """It MUST go."""
    namespaces().create(MAP)
    for name in "older", "newer":
        cluster.create({**ROLE, "metadata": {"name": name}})
'''
    )
    assert suite.run("-n0", "--run-id=mine").ret == pytest.ExitCode.OK
    created = [
        raw for _, event, _, raw in api.history if event == "ADDED" and raw["kind"] in ("ConfigMap", "ClusterRole")
    ]
    assert [raw["metadata"]["labels"]["clusterproof.dev/run"] for raw in created] == ["mine"] * 3
    deleted = [
        raw["metadata"]["name"] for _, event, path, raw in api.history if event == "DELETED" and "default" not in path
    ]
    assert deleted[:2] == ["newer", "older"]
    assert {path for path in api.objects if "cp-mine" in path} == set()


def test_a_pod_security_level_is_enforced(suite: Suite, api: FakeApi) -> None:
    suite.write(
        '''
def test_default(namespace):
    """It MUST be restricted."""
@pytest.mark.pod_security("privileged")
def test_privileged(namespace):
    """It MUST be privileged."""
'''
    )
    suite.run("-n0")
    made = [raw["metadata"] for _, event, path, raw in api.history if event == "ADDED" and "/cp-" in path]
    levels = [each["labels"]["pod-security.kubernetes.io/enforce"] for each in made if "labels" in each]
    assert levels == ["restricted", "privileged"]


def test_keep_failed_keeps_only_what_failed(suite: Suite, api: FakeApi) -> None:
    suite.write(
        '''
def test_kept(namespace):
    """It MUST be kept."""
def test_broken(namespace):
    """It MUST break."""
    assert False
'''
    )
    suite.run("-n0", "--keep-failed")
    (left,) = [path for path in api.objects if path.startswith("/api/v1/namespaces/cp-") and path.count("/") == 4]
    assert "-broken-" in left
    assert suite.document["leaks"] == []
    assert suite.results["apps/thing/broken"]["attachments"]


def test_disruptive_promises_only_when_asked_for(suite: Suite) -> None:
    suite.write(
        '''
@pytest.mark.disruptive
def test_storm(cluster):
    """It MUST survive."""
def test_calm(cluster):
    """It MUST live."""
'''
    )
    suite.run("-n0")
    assert suite.outcomes == {"apps/thing/calm": "kept"}
    suite.run("-n0", "--disruptive")
    assert set(suite.outcomes) == {"apps/thing/calm", "apps/thing/storm"}


def test_disruptive_promises_are_proven_last_and_alone(installed: Suite) -> None:
    installed.write(
        '''
import time
@pytest.mark.disruptive
@pytest.mark.parametrize("number", [1, 2])
def test_storm(cluster, number):
    """It MUST survive."""
    time.sleep(0.2)
@pytest.mark.parametrize("number", [1, 2, 3])
def test_calm(cluster, number):
    """It MUST live."""
    time.sleep(0.2 * number)
'''
    )
    assert installed.run("--workers=3", "--disruptive").ret == pytest.ExitCode.OK
    results = sorted(installed.results.values(), key=lambda each: each["started"])
    assert [each["id"] for each in results[3:]] == ["apps/thing/storm[1]", "apps/thing/storm[2]"]
    ends = [each["started"] + each["seconds"] for each in results]
    assert max(ends[:3]) <= results[3]["started"]
    assert ends[3] <= results[4]["started"]


def test_long_promises_come_first(suite: Suite) -> None:
    suite.write(
        '''
def test_short(cluster):
    """It MUST be short."""
@pytest.mark.first
def test_long(cluster):
    """It MUST be long."""
'''
    )
    suite.run("-n0")
    assert list(suite.outcomes) == ["apps/thing/long", "apps/thing/short"]


def test_stopping_early_leaves_an_incomplete_run(suite: Suite) -> None:
    suite.write(
        '''
def test_first(cluster):
    """It MUST be kept."""
def test_second(cluster):
    """It MUST break."""
    assert False
def test_third(cluster):
    """It MUST be tried."""
'''
    )
    assert suite.run("-n0", "-x").ret == pytest.ExitCode.TESTS_FAILED
    assert suite.outcomes == {"apps/thing/first": "kept", "apps/thing/second": "broken"}
    assert not suite.document["complete"]
    assert len(suite.document["expected"]) == 3


def test_an_interrupted_run_is_written(suite: Suite, api: FakeApi) -> None:
    suite.write(
        '''
def test_first(cluster):
    """It MUST be kept."""
def test_second(namespace):
    """It MUST be tried."""
    raise KeyboardInterrupt
'''
    )
    result = suite.pytester.runpytest_subprocess("suites", "-n0", "-p", "no:cacheprovider")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    assert suite.outcomes == {"apps/thing/first": "kept"}
    assert not suite.document["complete"]
    assert not [path for path in api.objects if "/cp-" in path]


def test_a_crashed_worker_is_an_error(suite: Suite, api: FakeApi) -> None:
    suite.write(
        '''
def test_kept(cluster):
    """It MUST be kept."""
def test_crash(namespace):
    """It MUST be tried."""
    os._exit(1)
def test_after(cluster):
    """It MUST be kept as well."""
'''
    )
    assert suite.run("-n2").ret == pytest.ExitCode.TESTS_FAILED
    assert suite.outcomes == {
        "apps/thing/kept": "kept",
        "apps/thing/crash": "error",
        "apps/thing/after": "kept",
    }
    crash = suite.results["apps/thing/crash"]
    assert crash["reason"] == "the worker process crashed while proving it"
    assert crash["promise"] == "It MUST be tried."
    assert not suite.document["complete"]
    assert not [path for path in api.objects if "/cp-" in path]


def test_results_of_workers_are_written_down_without_loading_a_client(suite: Suite) -> None:
    """Ctrl-C in the middle of that would lose the result, and leave half a client for what comes after."""
    (suite.pytester.path / "conftest.py").write_text(
        """
import os, pathlib, sys
def pytest_runtest_logreport(report):
    if "PYTEST_XDIST_WORKER" not in os.environ:
        pathlib.Path("loaded").write_text(" ".join(sys.modules))
"""
    )
    suite.write('\ndef test_kept(cluster):\n    """It MUST be kept."""\n')
    assert suite.pytester.runpytest_subprocess("suites", "-n2", "-p", "no:cacheprovider").ret == pytest.ExitCode.OK
    assert suite.outcomes == {"apps/thing/kept": "kept"}
    loaded = (suite.pytester.path / "loaded").read_text().split()
    assert "clusterproof.running.journal" in loaded
    assert not {"kubernetes", "urllib3", "clusterproof.client"} & set(loaded)


def test_one_cluster_for_all_workers(suite: Suite, api: FakeApi) -> None:
    suite.write("".join(f'\ndef test_{name}(cluster):\n    """It MUST hold."""' for name in "abcdef"))
    suite.run("-n3")
    assert len(suite.outcomes) == 6
    reviews = [line for line in api.requests if line.endswith("selfsubjectaccessreviews")]
    assert len(reviews) == 1, "whoever may do everything is not asked about each right"


def test_every_promise_says_the_same_sentence_when_there_is_no_cluster(suite: Suite, api: FakeApi) -> None:
    api.git_version = "v1.20.0"
    suite.write("".join(f'\ndef test_{name}(cluster):\n    """It MUST hold."""' for name in "ab"))
    assert suite.run("-n0").ret == pytest.ExitCode.TESTS_FAILED
    # There is no cluster, hence no document; pytest's own report says it.
    assert len([line for line in api.requests if line == "GET /version"]) == 1


def test_a_run_of_other_tests_has_no_verdict(suite: Suite) -> None:
    suite.write('def test_a(cluster):\n    """It MUST hold."""')
    suite.run("-n0")
    assert suite.document["profiles"] == []


@pytest.fixture
def installed(suite: Suite, monkeypatch: pytest.MonkeyPatch) -> Suite:
    """The suite taken for the installed one."""
    monkeypatch.setattr(catalog, "root", lambda: (suite.pytester.path / "suites").resolve())
    return suite


def test_what_disturbs_others_is_proven_last_and_alone(installed: Suite) -> None:
    promise = '''
@pytest.mark.{mark}
def test_{name}(cluster):
    """It MUST take a while."""
    import threading
    threading.Event().wait(0.2)
'''
    marks = {"storm": "disruptive", "flood": "disruptive", "wind": "alone", "calm": "normal", "mild": "normal"}
    installed.write("".join(promise.format(mark=mark, name=name) for name, mark in marks.items()))

    installed.run("--workers=4", "--disruptive")

    times = {id: (each["started"], each["started"] + each["seconds"]) for id, each in installed.results.items()}
    calm = max(times[f"apps/thing/{name}"][1] for name in ("calm", "mild"))
    wind = times["apps/thing/wind"]
    first, second = sorted(times[f"apps/thing/{name}"] for name in ("storm", "flood"))
    assert calm <= wind[0]
    assert wind[1] <= first[0]
    assert first[1] <= second[0]


def test_what_is_proven_alone_needs_no_option(suite: Suite) -> None:
    suite.write(
        '''
@pytest.mark.alone
def test_wind(cluster):
    """A wind MUST pass."""
def test_calm(cluster):
    """It MUST be calm."""
'''
    )

    suite.run("-n0")

    assert sorted(suite.results, key=lambda id: suite.results[id]["started"]) == ["apps/thing/calm", "apps/thing/wind"]
    assert suite.results["apps/thing/wind"]["tier"] == "normal"


def test_suites_are_proven_by_many_processes(installed: Suite) -> None:
    installed.write(
        """
@pytest.mark.first
def test_long(cluster):
    '''It MUST take long.'''
    import threading
    threading.Event().wait(1)
"""
        + "".join(f'\ndef test_{name}(cluster):\n    """It MUST hold."""' for name in "abcd")
    )
    assert installed.run("--workers=2").ret == pytest.ExitCode.OK
    workers = {id: each["worker"] for id, each in installed.results.items()}
    assert workers.pop("apps/thing/long") == "w0"
    assert set(workers.values()) == {"w1"}, "nothing waits behind a long promise"
    assert installed.document["profiles"][0]["verdict"] == "conformant"
    assert installed.document["complete"]


def test_workers_of_pytest_xdist_when_asked_for(installed: Suite) -> None:
    installed.write("".join(f'\ndef test_{name}(cluster):\n    """It MUST hold."""' for name in "ab"))
    assert installed.run("-n2").ret == pytest.ExitCode.OK
    assert {each["worker"] for each in installed.results.values()} == {"gw0", "gw1"}


def test_what_a_forked_process_prints_and_raises_is_reported(installed: Suite) -> None:
    installed.write(
        '''
def test_a(cluster):
    """It MUST be seen."""
    print("this was printed")
    assert [1, 2] == [1, 3]
def test_b(cluster):
    """It MUST hold."""
'''
    )
    result = installed.run()
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*assert [[]1, 2] == [[]1, 3]", "*At index 1 diff: 2 != 3*", "*this was printed*"])


def test_a_forked_process_that_ends_is_replaced(installed: Suite) -> None:
    installed.write(
        '''
def test_a(namespace):
    """It MUST be tried."""
    os._exit(1)
'''
        + "".join(f'\ndef test_{name}(cluster):\n    """It MUST hold."""' for name in "bcd")
    )
    assert installed.run("--workers=2").ret == pytest.ExitCode.TESTS_FAILED
    assert installed.outcomes == {f"apps/thing/{name}": "kept" for name in "bcd"} | {"apps/thing/a": "error"}
    assert installed.results["apps/thing/a"]["reason"] == "the worker process crashed while proving it"


def test_a_forked_process_that_fails_by_itself_says_why(installed: Suite) -> None:
    installed.write("".join(f'\ndef test_{name}(cluster):\n    """It MUST hold."""' for name in "abc"))
    (installed.pytester.path / "suites/conftest.py").write_text(
        """
def pytest_runtest_makereport(item):
    if item.name == "test_b":
        raise OSError("the disk is full")
"""
    )
    assert installed.run("--workers=2").ret == pytest.ExitCode.TESTS_FAILED
    assert installed.outcomes == {"apps/thing/a": "kept", "apps/thing/b": "error", "apps/thing/c": "kept"}
    assert "OSError: the disk is full" in installed.results["apps/thing/b"]["message"]


STUCK = '''
def test_stuck(namespace):
    """It MUST be tried."""
    open("stuck", "w").close()
    import threading
    threading.Event().wait(60)
'''


def stays(api: FakeApi, path: str) -> None:
    """Have the server agree to the object's deletion, and keep it."""

    def keep(handler: Any) -> bool:
        handler.answer(200, {"kind": "Status"})
        return True

    api.overrides[f"DELETE {path}"] = keep


def one_is_proven_and_one_is_stuck(suite: Suite) -> None:
    """Wait for the journal to have more than its opening, and for `STUCK` to be stuck."""
    journal = suite.out / "journal.jsonl"
    while not (journal.exists() and journal.read_text().count("\n") > 1 and Path("stuck").exists()):
        threading.Event().wait(0.05)


def test_stopping_early_does_not_wait_for_the_others(installed: Suite, api: FakeApi) -> None:
    installed.write(
        STUCK
        + 'def test_broken(cluster):\n    """It MUST."""\n    while not os.path.exists("stuck"): pass\n    assert 0'
    )
    started = time.monotonic()
    assert installed.run("-x").ret == pytest.ExitCode.TESTS_FAILED
    assert time.monotonic() - started < 20
    assert installed.outcomes == {"apps/thing/broken": "broken"}
    assert not installed.document["complete"]
    assert not [path for path in api.objects if "/cp-" in path]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_cleans_up_in_every_process(installed: Suite, api: FakeApi, number: signal.Signals) -> None:
    installed.write(STUCK + 'def test_kept(cluster):\n    """It MUST hold."""')

    def interrupt() -> None:
        one_is_proven_and_one_is_stuck(installed)
        os.kill(os.getpid(), number)

    threading.Thread(target=interrupt, daemon=True).start()
    assert installed.run().ret == pytest.ExitCode.INTERRUPTED
    assert installed.outcomes == {"apps/thing/kept": "kept"}
    assert not installed.document["complete"]
    assert not [path for path in api.objects if "/cp-" in path]


def test_a_second_interruption_ends_the_waiting_and_not_the_reports(installed: Suite, api: FakeApi) -> None:
    installed.write(STUCK + 'def test_kept(cluster):\n    """It MUST hold."""')

    labels = {"clusterproof.dev/run": "twice"}
    api.put("/api/v1/namespaces/left", {"kind": "Namespace", "metadata": {"name": "left", "labels": labels}})
    stays(api, "/api/v1/namespaces/left")

    def interrupt() -> None:
        one_is_proven_and_one_is_stuck(installed)
        os.kill(os.getpid(), signal.SIGINT)
        while not any("watch" in request and "run%3Dtwice" in request for request in api.requests):
            threading.Event().wait(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    assert installed.run("--run-id=twice").ret == pytest.ExitCode.INTERRUPTED
    assert installed.outcomes == {"apps/thing/kept": "kept"}
    (left,) = installed.document["leaks"]
    assert left.startswith("unknown: interrupted again before all had gone; the rest goes with: clusterproof sweep --k")


def test_what_an_interrupted_promise_holds_is_let_go(installed: Suite, api: FakeApi) -> None:
    installed.write(STUCK + 'def test_kept(cluster):\n    """It MUST hold."""')
    path = "/api/v1/namespaces/default/configmaps/held"
    metadata = {"name": "held", "labels": {"clusterproof.dev/run": "holds"}, "finalizers": [HOLD]}
    api.put(path, {"kind": "ConfigMap", "metadata": metadata})
    api.discovers("/api", group("", ("v1", [resource("configmaps", "ConfigMap", namespaced=True)])))

    stays(api, path)

    def let_go(handler: Any) -> bool:
        assert handler.body == {"metadata": {"finalizers": []}}
        handler.answer(200, api.remove(path))
        return True

    api.overrides[f"PATCH {path}"] = let_go

    def interrupt() -> None:
        one_is_proven_and_one_is_stuck(installed)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    assert installed.run("--run-id=holds").ret == pytest.ExitCode.INTERRUPTED
    assert installed.document["leaks"] == []


def test_an_interruption_in_the_middle_of_a_fork_is_not_lost(suite: Suite, api: FakeApi) -> None:
    (suite.pytester.path / "conftest.py").write_text(
        """
import os, pathlib, signal
from clusterproof import catalog
catalog.root = lambda: pathlib.Path(__file__).parent / "suites"
os.register_at_fork(after_in_parent=lambda: os.kill(os.getpid(), signal.SIGINT))
"""
    )
    suite.write("".join(f'\ndef test_{name}(namespace):\n    """It MUST hold."""' for name in "abcd"))
    result = suite.pytester.runpytest_subprocess("suites", "-p", "no:cacheprovider")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    assert "Traceback" not in result.stdout.str() + result.stderr.str()
    assert not [path for path in api.objects if "/cp-" in path]


def test_an_interruption_that_python_swallows_comes_once_more(installed: Suite) -> None:
    installed.write(
        STUCK.replace(
            "    import threading",
            "    class Stuck:\n        def __del__(self): threading.Event().wait(60)\n"
            "    import threading\n    Stuck()",
        )
        + 'def test_broken(cluster):\n    """It MUST."""\n    while not os.path.exists("stuck"): pass\n    assert 0'
    )
    started = time.monotonic()
    assert installed.run("-x").ret == pytest.ExitCode.TESTS_FAILED
    assert time.monotonic() - started < 20


def test_suites_without_a_cluster_end_at_once(installed: Suite, api: FakeApi) -> None:
    api.git_version = "v1.20.0"
    installed.write("".join(f'\ndef test_{name}(cluster):\n    """It MUST hold."""' for name in "abcd"))
    result = installed.run()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines("ERROR: *runs Kubernetes v1.20.0; this version of clusterproof proves 1.34 to 1.38")
    assert not installed.out.exists()


def test_every_promise_has_a_sentence_and_an_id_of_its_own(installed: Suite) -> None:
    installed.write('def test_silent(cluster): pass\ndef test_vague(cluster):\n    """It should."""')
    installed.write('def test_b_c(cluster):\n    """It MUST."""\n', "suites/api/test_api.py")
    installed.write('def test_c(cluster):\n    """It MUST."""\n', "suites/api/test_b_c.py")
    installed.write('def test_x(cluster):\n    """It MUST."""\n', "suites/b/test_b.py")
    installed.write('def test_x(cluster):\n    """It MUST."""\n', "suites/b/b/test_b.py")
    result = installed.run("-n0")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    text = result.stderr.str()
    assert "test_thing.py::test_silent: its docstring must begin with a sentence that says MUST" in text
    assert "test_thing.py::test_vague: its docstring" in text
    assert "b/x: 2 promises share this id" in text or "b/b/x" not in text


def test_a_selection_does_not_make_a_profile_conformant(installed: Suite) -> None:
    installed.write('def test_a(cluster):\n    """It MUST."""\ndef test_b(cluster):\n    """It MUST."""')
    installed.run("-n0", "-k", "test_a")
    core = installed.document["profiles"][0]
    assert (core["profile"], core["verdict"]) == ("core", "partial")
    assert "apps/thing/b not run" in core["reason"]


def test_collecting_makes_no_cluster(installed: Suite, api: FakeApi) -> None:
    installed.write('def test_a(cluster):\n    """It MUST."""')
    result = installed.run("--collect-only")
    assert result.ret == pytest.ExitCode.OK
    assert not api.requests


class Made:
    """A provider whose clusters are the fake API server, and have a log."""

    kubeconfig = ""
    asked: ClassVar[list[Shape]] = []

    def create(self, shape: Shape) -> Access:
        self.asked.append(shape)
        return Access(provider="made", name=shape.name, kubeconfig=self.kubeconfig)

    def delete(self, access: Access) -> None:
        """Nothing stays of it."""

    def adopt(self, access: Access) -> None:
        """It ends with nobody."""

    def collect_logs(self, access: Access, into: Path) -> None:
        into.mkdir(parents=True)
        (into / "kubelet.log").write_text(access.name)


@pytest.fixture
def made(installed: Suite, kubeconfig: Path, monkeypatch: pytest.MonkeyPatch) -> Suite:
    """The suite, proven on clusters of that provider."""
    monkeypatch.setattr(Made, "kubeconfig", str(kubeconfig))
    monkeypatch.setattr(Made, "asked", [])
    monkeypatch.setattr(provider, "registered", lambda: {"made": SimpleNamespace(load=lambda: Made)})
    monkeypatch.setenv("CLUSTERPROOF_CLUSTER", "made")
    monkeypatch.delenv("CLUSTERPROOF_KUBECONFIG")
    return installed


@pytest.mark.parametrize(("body", "kept"), [("assert not cluster", ["kubelet.log"]), ("assert cluster", None)])
def test_logs_of_a_cluster_that_goes_are_kept_when_something_broke(
    made: Suite, body: str, kept: list[str] | None
) -> None:
    logs = made.out / "cluster-logs"
    logs.mkdir(parents=True)
    (logs / "of-the-run-before.log").touch()
    made.write(f'def test_a(cluster):\n    """It MUST."""\n    {body}')

    made.run("-n0")

    assert (sorted(each.name for each in logs.iterdir()) if logs.exists() else None) == kept


@pytest.mark.parametrize(
    ("options", "needs"),
    [((), {"scale.metrics"}), (("-k", "core"), set()), (("--keep-cluster",), None), (("-n1",), None)],
    ids=["all", "selected", "kept", "not-known-yet"],
)
def test_a_provider_is_told_what_the_selected_promises_need(
    made: Suite, options: tuple[str, ...], needs: set[str] | None
) -> None:
    made.write(
        '''
def test_core(cluster):
    """It MUST."""
@pytest.mark.requires("scale.metrics")
def test_more(cluster):
    """It MUST."""
'''
    )
    made.run(*options)
    assert [shape.needs for shape in Made.asked] == [needs]


def test_what_a_run_leaves_is_named(installed: Suite, api: FakeApi) -> None:
    installed.write(
        '''
def test_untidy(cluster):
    """It MUST be tidy."""
    metadata = {"name": "left", "labels": {"clusterproof.dev/run": "mine"}}
    cluster.client.post("/api/v1/namespaces", {"metadata": metadata})
'''
    )

    stays(api, "/api/v1/namespaces/left")
    installed.run("-n0", "--run-id=mine", "--timeout-scale=0.01")
    assert installed.document["leaks"] == ["Namespace left"]


FICKLE = '''
@pytest.fixture
def once(request):
    """Whether this is the first try."""
    from pathlib import Path
    mark = Path(f"{request.node.name}.tried")
    first = not mark.exists()
    mark.touch()
    return first
def test_fickle(once, namespace):
    """It MUST hold at once."""
    with step("look"):
        assert not once, "not this time"
def test_broken(once, namespace):
    """It MUST hold."""
    assert False, "first" if once else "second"
def test_lost(once, cluster):
    """It MUST answer."""
    raise SurroundingsError("no connection")
def test_kept(once, cluster):
    """It MUST be kept."""
    assert once
'''


@pytest.mark.parametrize("how", ["--workers=2", "-n0", "-n2"])
def test_a_broken_promise_is_proven_once_more(installed: Suite, how: str) -> None:
    installed.write(FICKLE)
    result = installed.run(how, "--retry-broken")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["*2 failed, 1 passed, 1 flaky*"])
    results = {id.rpartition("/")[2]: each for id, each in installed.results.items()}
    assert {name: (each["outcome"], each["tries"]) for name, each in results.items()} == {
        "fickle": ("flaky", 2),
        "broken": ("broken", 2),
        "lost": ("error", 1),
        "kept": ("kept", 1),
    }
    fickle, broken = results["fickle"], results["broken"]
    assert fickle["reason"] == "broken at first, kept in a fresh namespace: not this time"
    assert fickle["message"].endswith("proven once more in a fresh namespace: kept")
    assert fickle["attachments"], "what the first try left to see"
    assert len(set(fickle["namespaces"])) == 2
    assert [step["passed"] for step in fickle["steps"] if step["name"] == "look"] == [False, True]
    assert broken["reason"] == "first"
    assert "broken: second" in broken["message"]


def test_no_profile_with_a_flaky_promise_is_conformant(installed: Suite) -> None:
    installed.write(FICKLE)
    result = installed.run("--retry-broken", "-k", "fickle or kept")
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(["FLAKY *apps/thing/fickle"])
    core = installed.document["profiles"][0]
    assert (core["verdict"], core["counts"]["flaky"]) == ("partial", 1)
    assert core["reason"].startswith("flaky: apps/thing/fickle; not proven: ")


def test_strict_forbids_to_try_again(suite: Suite, api: FakeApi) -> None:
    suite.write(FICKLE)
    result = suite.run("--strict", "--retry-broken")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --retry-broken cannot be had with --strict: there, *"])
    assert not api.requests


INTERRUPTED = '''
@pytest.mark.parametrize("case", ["one", "two"])
def test_kept(namespace, case):
    """It MUST be kept."""
    with open(f"proven-{case}", "a") as proven:
        proven.write("x")
@pytest.mark.skip(reason="not today")
def test_skipped(cluster):
    """It MUST be skipped."""
def test_lost(cluster):
    """It MUST answer."""
    if not os.path.exists("again"):
        raise SurroundingsError("no connection")
def test_broken(namespace):
    """It MUST hold."""
    if not os.path.exists("again"):
        open("again", "w").close()
        raise KeyboardInterrupt
    assert False
def test_late(cluster):
    """It MUST be tried."""
'''
LEFT = {"metadata": {"name": "left", "labels": {"clusterproof.dev/run": "night"}}}


def test_a_resumed_run_proves_only_what_is_missing(installed: Suite, api: FakeApi) -> None:
    installed.write(INTERRUPTED)
    assert installed.run("-n0", "--run-id=night").ret == pytest.ExitCode.INTERRUPTED
    assert installed.outcomes == {
        "apps/thing/kept[one]": "kept",
        "apps/thing/kept[two]": "kept",
        "apps/thing/skipped": "skipped",
        "apps/thing/lost": "error",
    }
    with (installed.out / "journal.jsonl").open("a") as journal:
        journal.write('{"id": "cut off')
    api.put("/api/v1/namespaces/left", {"apiVersion": "v1", "kind": "Namespace", **LEFT})

    result = installed.run("--resume")

    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["resuming run night: 3 of 6 are proven; the other 3 are proven on the same cluster"])
    assert installed.outcomes == {
        "apps/thing/kept[one]": "kept",
        "apps/thing/kept[two]": "kept",
        "apps/thing/skipped": "skipped",
        "apps/thing/lost": "kept",
        "apps/thing/broken": "broken",
        "apps/thing/late": "kept",
    }
    assert (installed.pytester.path / "proven-one").read_text() == "x", "it was proven once"
    document = installed.document
    assert (document["id"], document["complete"], document["leaks"]) == ("night", True, [])
    assert set(document["expected"]) == set(installed.outcomes)
    assert {each["cluster"] for each in document["results"]} == {document["cluster"]["uid"]}
    assert document["earlier_clusters"] == []
    assert "/api/v1/namespaces/left" not in api.objects


def test_workers_of_pytest_xdist_resume_a_run(installed: Suite) -> None:
    installed.write(INTERRUPTED)
    installed.run("-n0", "--run-id=night")
    before = (installed.out / "journal.jsonl").read_text()
    document = (installed.out / "result.json").read_text()

    result = installed.run("-n2", "--resume", "-k", "kept or late")

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        ["ERROR: --resume: run night had 6 promises selected, and now there are 3, 3 of them *"]
    )
    assert (installed.out / "journal.jsonl").read_text() == before
    assert (installed.out / "result.json").read_text() == document
    assert installed.run("-n2", "--resume").ret == pytest.ExitCode.TESTS_FAILED
    assert len(installed.outcomes) == len(installed.document["expected"]) == 6
    assert installed.document["complete"]


@pytest.mark.parametrize("how", ["--workers=2", "-n2"])
def test_a_run_of_which_only_the_report_is_missing(installed: Suite, how: str) -> None:
    installed.write('def test_a(cluster):\n    """It MUST hold."""\ndef test_b(cluster):\n    """It MUST hold."""')
    assert installed.run().ret == pytest.ExitCode.OK
    journal = installed.out / "journal.jsonl"
    journal.write_text("".join(journal.read_text().splitlines(keepends=True)[:-1]))
    (installed.out / "result.json").unlink()
    assert installed.run("--resume", how).ret == pytest.ExitCode.OK
    assert installed.outcomes == {"apps/thing/a": "kept", "apps/thing/b": "kept"}
    assert installed.document["complete"]


def test_what_cannot_be_resumed(installed: Suite, api: FakeApi) -> None:
    def refused(*options: str) -> str:
        result = installed.run("--resume", *options)
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        (line,) = [line for line in result.errlines if line]
        return line.removeprefix("ERROR: ")

    installed.write(INTERRUPTED)
    assert refused().startswith("--resume: nothing to resume: reports/out/journal.jsonl has no promise that was proven")
    installed.run("-n0", "--run-id=night")
    before = (installed.out / "journal.jsonl").read_text().rstrip()

    assert "run night had 6 promises selected, and now there are 2, 4 of them" in refused("-k", "late or lost")
    assert "run night had 6 promises selected, and now there are 0, 6 of them" in refused("-k", "nosuch")
    assert refused("--run-id=day") == "--resume: run night cannot be resumed: --run-id=day is another run"
    assert "it has a cluster from --cluster=external, not embedded" in refused("--cluster=embedded")
    api.objects["/api/v1/namespaces/kube-system"]["metadata"]["uid"] = "another"
    assert refused().endswith("has UID another")
    installed.write("def test_new(cluster):\n    '''It MUST.'''", "suites/apps/test_new.py")
    assert refused() == "--resume: run night cannot be resumed: the suites have changed since"
    assert (installed.out / "journal.jsonl").read_text().rstrip() == before, "nothing is lost"


def test_a_cluster_of_which_no_number_of_nodes_was_asked_for_is_gone_on_with(made: Suite) -> None:
    made.write(INTERRUPTED)
    for option in ("--shape=single", "--reuse"):
        (made.pytester.path / "again").unlink(missing_ok=True)
        assert made.run("-n0", option).ret == pytest.ExitCode.INTERRUPTED
        assert made.run("-n0", option, "--resume").ret == pytest.ExitCode.TESTS_FAILED
        assert made.document["complete"]
    (made.pytester.path / "again").unlink()
    made.run("-n0", "--run-id=night")
    result = made.run("-n0", "--resume")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --nodes=2: the cluster of run night has 1"])


def test_a_run_that_came_to_its_end_is_not_resumed(installed: Suite) -> None:
    installed.write('def test_a(cluster):\n    """It MUST hold."""')
    installed.run("--run-id=night")
    result = installed.run("--resume")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --resume: nothing to resume: run night in * came to its end"])


def test_two_runs_do_not_write_into_one_folder(installed: Suite, api: FakeApi) -> None:
    installed.write('def test_a(cluster):\n    """It MUST hold."""')
    logs = installed.out / "cluster-logs/kubelet.log"
    logs.parent.mkdir(parents=True)
    for good in (installed.out / "result.json", logs):
        good.write_text("of the run before")
    script = "import fcntl, sys; f = open(sys.argv[1], 'a'); fcntl.lockf(f, fcntl.LOCK_EX); print('locked'); input()"
    command = [sys.executable, "-uc", script, str(installed.out / "journal.jsonl")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        result = installed.run()
        other.communicate("\n")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --reports-dir=reports/out: another run is writing there"])
    assert not api.requests, "it is told before there is a cluster"
    assert (installed.out / "result.json").read_text() == logs.read_text() == "of the run before"


@pytest.mark.parametrize("how", ["-n0", "-n2"])
def test_reports_that_cannot_be_written_are_told_first(installed: Suite, api: FakeApi, how: str) -> None:
    installed.write('def test_a(cluster):\n    """It MUST hold."""')
    (installed.pytester.path / "taken").touch()
    result = installed.run(how, "--reports-dir=taken")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --reports-dir=taken: cannot be written to: *"])
    assert not api.requests


def test_promises_of_somebodys_own_need_a_folder_for_reports_too(suite: Suite, api: FakeApi) -> None:
    suite.write('def test_a(cluster):\n    """It MUST hold."""')
    (suite.pytester.path / "taken").touch()
    assert suite.run("-n0", "--reports-dir=taken").ret == pytest.ExitCode.USAGE_ERROR
    assert not api.requests


def test_a_run_that_is_refused_leaves_everything_as_it_was(installed: Suite, api: FakeApi) -> None:
    installed.write(INTERRUPTED)
    assert installed.run("-n0", "--run-id=night").ret == pytest.ExitCode.INTERRUPTED
    before = {path.name: path.read_bytes() for path in installed.out.iterdir() if path.is_file()}
    api.git_version = "v1.20.0"

    assert installed.run("-n0").ret == pytest.ExitCode.USAGE_ERROR

    assert {path.name: path.read_bytes() for path in installed.out.iterdir() if path.is_file()} == before
    api.git_version = "v1.37.2"
    assert installed.run("-n0", "--resume").ret == pytest.ExitCode.TESTS_FAILED
    assert installed.document["complete"]


@pytest.mark.parametrize("options", [[], ["-n0"], ["--shard=1/2"], ["--shard=1/2", "-n2"], ["-n2"]])
def test_nothing_selected_leaves_everything_as_it_was(installed: Suite, api: FakeApi, options: list[str]) -> None:
    installed.write(INTERRUPTED)
    installed.run("-n0", "--run-id=night")
    before = {path.name: path.read_bytes() for path in installed.out.iterdir() if path.is_file()}
    api.requests.clear()

    result = installed.run("-k", "nosuch", *options)

    assert result.ret == pytest.ExitCode.NO_TESTS_COLLECTED
    assert "Traceback" not in result.stdout.str() + result.stderr.str()
    assert "-n2" in options or not api.requests, "no cluster is made for it"
    assert {path.name: path.read_bytes() for path in installed.out.iterdir() if path.is_file()} == before


def test_another_cluster_of_its_clusterset_is_not_the_cluster_itself(
    installed: Suite, api: FakeApi, kubeconfig: Path
) -> None:
    installed.write('def test_a(cluster):\n    """It MUST hold."""')
    result = installed.run("-n0", f"--peer={kubeconfig}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    (told,) = [line for line in result.errlines if line]
    assert told.startswith(
        f"ERROR: --peer={kubeconfig}: is the cluster under proof itself, by the UID of its namespace"
    )
    assert not [path for _, _, path, _ in api.history if "/cp-" in path], "nothing is made"


def test_passwords_are_in_no_record(installed: Suite) -> None:
    installed.write('def test_a(cluster):\n    """It MUST hold."""')
    hosts = "node-1=ssh://root:hunter2@10.0.0.1:22,node-2=ssh://root:hunter@2@10.0.0.2,node-3=ssh://root@10.0.0.3"
    installed.run("-n0", f"--node-hosts={hosts}")
    masked = "node-1=ssh://root:<password>@10.0.0.1:22,node-2=ssh://root:<password>@10.0.0.2,node-3=ssh://root@10.0.0.3"
    assert f"--node-hosts={masked}" in installed.document["arguments"]
    written = [path for path in installed.out.rglob("*") if path.is_file()]
    assert "journal.jsonl" in {path.name for path in written}
    assert not [path for path in written if b"hunter" in path.read_bytes()]


def test_without_pytest_xdist(installed: Suite) -> None:
    installed.write("".join(f'\ndef test_{name}(cluster):\n    """It MUST hold."""' for name in "ab"))
    assert installed.run("-p", "no:xdist", "--workers=2").ret == pytest.ExitCode.OK
    assert {each["worker"] for each in installed.results.values()} == {"w0", "w1"}


def test_shards_prove_everything_once(installed: Suite) -> None:
    installed.write("".join(f'\ndef test_{name}(cluster):\n    """It MUST hold."""' for name in "abcde"))
    tried: list[str] = []
    for number in "123":
        assert installed.run(f"--shard={number}/3", "--run-id=nightly").ret == pytest.ExitCode.OK
        document = installed.document
        assert document["id"] == f"nightly-{number}"
        assert len(document["shard"]["promises"]) == 5
        assert set(document["expected"]) == set(installed.outcomes)
        assert document["complete"]
        tried += installed.outcomes
    assert sorted(tried) == [f"apps/thing/{name}" for name in "abcde"]


def test_a_shard_without_a_promise_is_no_failure(installed: Suite) -> None:
    installed.write('def test_a(cluster):\n    """It MUST hold."""')
    codes = []
    for number in "12":
        codes.append(installed.run(f"--shard={number}/2").ret)
        assert installed.document["shard"]["promises"] == ["apps/thing/a"]
    assert codes == [pytest.ExitCode.OK] * 2


@pytest.mark.parametrize("wrong", ["0/2", "3/2", "2", "a/b"])
def test_a_shard_that_cannot_be(suite: Suite, wrong: str) -> None:
    result = suite.run(f"--shard={wrong}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: --shard={wrong}: must be I/N, with I from 1 to N"])


@pytest.mark.parametrize("how", ["-n0", "-n2"])
def test_durations_that_cannot_be_read(installed: Suite, api: FakeApi, how: str) -> None:
    installed.write('def test_a(cluster):\n    """It MUST hold."""')
    result = installed.run(how, "--shard=1/2", "--shard-by=/nosuch")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --shard-by=/nosuch: a result.json is expected, but: *"])
    assert not api.requests
