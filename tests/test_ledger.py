"""The leak ledger and the sweep, against a fake API server."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

from clusterproof.client import Client
from clusterproof.errors import SurroundingsError
from clusterproof.hold import HOLD
from clusterproof.kinds import CLUSTER_ROLE, CONFIG_MAP, NAMESPACE, custom
from clusterproof.namespace import RUN_LABEL
from clusterproof.running import ledger

from .fake_api import FakeApi, group, resource

JSON = dict[str, Any]
CORE = "/api/v1"
RBAC = "/apis/rbac.authorization.k8s.io/v1"


def _answers(handler: Any, status: int, value: JSON) -> bool:
    handler.answer(status, value)
    return True


@pytest.fixture
def stocked(api: FakeApi) -> FakeApi:
    """With a handful of kinds, and objects that were there before the run."""
    core = [
        resource("namespaces", "Namespace"),
        resource("nodes", "Node"),
        resource("persistentvolumes", "PersistentVolume"),
        resource("configmaps", "ConfigMap", namespaced=True),
        resource("events", "Event", namespaced=True),
        resource("bindings", "Binding", namespaced=True, verbs=("create",)),
    ]
    api.discovers("/api", group("", ("v1", core)))
    api.discovers(
        "/apis",
        group(
            "autoscaling",
            ("v2", [resource("scalers", "Scaler", namespaced=True)]),
            ("v1", [resource("scalers", "Scaler", namespaced=True)]),
        ),
        group("rbac.authorization.k8s.io", ("v1", [resource("clusterroles", "ClusterRole")])),
        group("metrics.k8s.io", ("v1beta1", [resource("nodes", "NodeMetrics")])),
        {"metadata": {"name": "stale.example"}, "versions": [{"version": "v1", "freshness": "Stale"}]},
    )
    put(api, f"{CORE}/namespaces/default")
    return api


def put(api: FakeApi, path: str, *, run: str = "", **more: Any) -> None:
    labels = {RUN_LABEL: run} if run else {}
    api.put(path, {"metadata": {"name": path.rpartition("/")[2], "labels": labels, **more.pop("metadata", {})}, **more})


def volume(api: FakeApi, name: str, claimed_from: str, policy: str = "Delete") -> None:
    spec = {"claimRef": {"namespace": claimed_from}, "persistentVolumeReclaimPolicy": policy}
    put(api, f"{CORE}/persistentvolumes/{name}", spec=spec)


class TestSnapshot:
    def test_holds_every_kind_that_can_be_listed_once(self, stocked: FakeApi, client: Client) -> None:
        put(stocked, f"{CORE}/namespaces/default/configmaps/settings")
        put(stocked, f"{CORE}/namespaces/default/events/e1")
        put(stocked, f"{RBAC}/clusterroles/admin")
        found = sorted(str(entry) for entry in ledger.snapshot(client).entries.values())
        assert found == [
            "ClusterRole admin",
            "ConfigMap default/settings",
            "Namespace default",
            "Namespace kube-system",
            "Node node-1",
        ]

    def test_asks_for_each_kind_at_its_preferred_version(self, stocked: FakeApi, client: Client) -> None:
        ledger.snapshot(client)
        asked = sorted(request.partition("?")[0] for request in stocked.requests)
        collections = ("configmaps", "namespaces", "nodes", "persistentvolumes")
        assert asked == [
            "GET /api",
            *(f"GET {CORE}/{plural}" for plural in collections),
            "GET /apis",
            "GET /apis/autoscaling/v2/scalers",
            f"GET {RBAC}/clusterroles",
        ]

    def test_reads_page_by_page(self, stocked: FakeApi, client: Client) -> None:
        pages: Iterator[JSON] = iter(
            [
                {"metadata": {"continue": "next"}, "items": [{"metadata": {"name": "a", "uid": "1"}}]},
                {"metadata": {}, "items": [{"metadata": {"name": "b", "uid": "2"}}]},
            ]
        )
        stocked.overrides[f"GET {RBAC}/clusterroles"] = lambda handler: _answers(handler, 200, next(pages))
        found = {str(entry) for entry in ledger.snapshot(client).entries.values()}
        assert {"ClusterRole a", "ClusterRole b"} <= found

    def test_starts_again_when_a_page_came_too_late(self, stocked: FakeApi, client: Client) -> None:
        def answer(handler: Any) -> bool:
            if "continue" in handler.query:
                return _answers(handler, 410, {"kind": "Status", "reason": "Expired"})
            more = {"continue": "next"} if "limit" in handler.query else {}
            items = [
                {"metadata": {"name": "a", "uid": "1"}},
                *([] if more else [{"metadata": {"name": "b", "uid": "2"}}]),
            ]
            return _answers(handler, 200, {"metadata": more, "items": items})

        stocked.overrides[f"GET {RBAC}/clusterroles"] = answer
        found = [str(entry) for entry in ledger.snapshot(client).entries.values()]
        assert (found.count("ClusterRole a"), found.count("ClusterRole b")) == (1, 1)

    def test_says_what_could_not_be_read(self, stocked: FakeApi, client: Client) -> None:
        stocked.overrides[f"GET {RBAC}/clusterroles"] = forbidden
        snapshot = ledger.snapshot(client)
        assert list(snapshot.unread) == ["ClusterRole"]
        assert snapshot.unread["ClusterRole"].startswith("403 ")
        assert snapshot.entries

    def test_leaves_out_what_is_computed(self, stocked: FakeApi, client: Client) -> None:
        virtual = {"metadata": {}, "items": [{"metadata": {"name": "computed"}}]}
        stocked.overrides[f"GET {RBAC}/clusterroles"] = lambda handler: _answers(handler, 200, virtual)
        assert not [entry for entry in ledger.snapshot(client).entries.values() if entry.name == "computed"]

    def test_needs_aggregated_discovery(self, stocked: FakeApi, client: Client) -> None:
        stocked.overrides["GET /apis"] = lambda handler: _answers(handler, 200, {"kind": "APIGroupList", "groups": []})
        with pytest.raises(SurroundingsError, match="/apis should answer with aggregated discovery"):
            ledger.snapshot(client)


def forbidden(handler: BaseHTTPRequestHandler) -> bool:
    return _answers(handler, 403, {"kind": "Status", "reason": "Forbidden", "message": "no"})


class TestCompare:
    def test_ours_is_what_is_labelled_in_our_namespaces_or_claimed_from_them(
        self, stocked: FakeApi, client: Client
    ) -> None:
        before = ledger.snapshot(client)
        put(stocked, f"{CORE}/namespaces/mine", run="r1")
        put(stocked, f"{CORE}/namespaces/mine/configmaps/unlabelled")
        put(stocked, f"{CORE}/namespaces/kube-system/configmaps/lent", run="r1")
        put(stocked, f"{RBAC}/clusterroles/ours", run="r1")
        volume(stocked, "pv-1", "mine")
        volume(stocked, "pv-2", "gone-by-now")
        put(stocked, f"{RBAC}/clusterroles/of-another-run", run="r2")
        put(stocked, f"{CORE}/namespaces/default/configmaps/foreign")
        leaks = ledger.compare(before, ledger.snapshot(client), "r1", ["gone-by-now"])
        assert leaks.ours == (
            "ClusterRole ours",
            "ConfigMap kube-system/lent",
            "ConfigMap mine/unlabelled",
            "Namespace mine",
            "PersistentVolume pv-1",
            "PersistentVolume pv-2",
        )
        assert leaks.appeared == ("ClusterRole of-another-run", "ConfigMap default/foreign")

    def test_a_run_that_cleaned_up_leaves_nothing(self, stocked: FakeApi, client: Client) -> None:
        before = ledger.snapshot(client)
        put(stocked, f"{RBAC}/clusterroles/ours", run="r1")
        stocked.remove(f"{RBAC}/clusterroles/ours")
        assert ledger.compare(before, ledger.snapshot(client), "r1") == ledger.Leaks((), ())

    def test_what_was_recreated_has_appeared(self, stocked: FakeApi, client: Client) -> None:
        put(stocked, f"{RBAC}/clusterroles/same-name")
        before = ledger.snapshot(client)
        stocked.remove(f"{RBAC}/clusterroles/same-name")
        put(stocked, f"{RBAC}/clusterroles/same-name")
        assert ledger.compare(before, ledger.snapshot(client), "r1").appeared == ("ClusterRole same-name",)

    def test_nothing_is_known_about_kinds_that_could_not_be_read_before(self, stocked: FakeApi, client: Client) -> None:
        put(stocked, f"{RBAC}/clusterroles/old")
        stocked.overrides[f"GET {RBAC}/clusterroles"] = forbidden
        before = ledger.snapshot(client)
        del stocked.overrides[f"GET {RBAC}/clusterroles"]
        assert ledger.compare(before, ledger.snapshot(client), "r1").appeared == ()


class TestRemains:
    def test_are_labelled_objects_of_the_kinds_it_created_and_volumes_claimed_from_its_namespaces(
        self, stocked: FakeApi, client: Client
    ) -> None:
        put(stocked, f"{RBAC}/clusterroles/ours", run="r1")
        put(stocked, f"{RBAC}/clusterroles/of-another-run", run="r2")
        put(stocked, f"{CORE}/namespaces/default/configmaps/never-created-by-it", run="r1")
        volume(stocked, "pv-1", "gone-by-now")
        volume(stocked, "pv-2", "default")
        remains = ledger.remains(client, [CLUSTER_ROLE], "r1", ["gone-by-now"])
        assert remains == ("ClusterRole ours", "PersistentVolume pv-1")

    def test_of_namespaces_that_stay_on_purpose_are_none(self, stocked: FakeApi, client: Client) -> None:
        put(stocked, f"{CORE}/namespaces/mine", run="r1")
        put(stocked, f"{CORE}/namespaces/mine/configmaps/inside", run="r1")
        volume(stocked, "pv-1", "mine")
        assert ledger.remains(client, [NAMESPACE, CONFIG_MAP], "r1", ["mine"], ["mine"]) == ()
        assert ledger.left(ledger.snapshot(client), "r1", spare=["mine"]) == ()

    def test_volumes_go_after_their_namespaces(self, stocked: FakeApi, client: Client) -> None:
        volume(stocked, "pv-1", "gone-by-now")
        volume(stocked, "pv-2", "default")
        volume(stocked, "pv-3", "gone-by-now", "Retain")
        removal = threading.Timer(0.3, stocked.remove, [f"{CORE}/persistentvolumes/pv-1"])
        removal.start()
        ledger.await_volumes(client, ["gone-by-now"], within=10)
        removal.join()
        assert ledger.remains(client, [], "r1", ["gone-by-now"]) == ("PersistentVolume pv-3",)

    def test_volumes_that_stay_are_waited_for_no_longer_than_said(self, stocked: FakeApi, client: Client) -> None:
        volume(stocked, "pv-1", "gone-by-now")
        ledger.await_volumes(client, ["gone-by-now"], within=0.3)
        assert ledger.remains(client, [], "r1", ["gone-by-now"]) == ("PersistentVolume pv-1",)

    def test_cost_a_request_for_each_kind_and_one_for_volumes(self, stocked: FakeApi, client: Client) -> None:
        before = len(stocked.requests)
        ledger.remains(client, [CLUSTER_ROLE], "r1", [])
        assert len(stocked.requests) == before + 2

    def test_of_a_kind_that_is_gone_are_none(self, stocked: FakeApi, client: Client) -> None:
        gone = custom("example.com", "v1", "Gadget", "gadgets")
        stocked.overrides[f"GET {gone.path()}"] = lambda handler: _answers(handler, 404, {"reason": "NotFound"})
        assert ledger.remains(client, [gone], "r1", []) == ()


class TestSweep:
    def test_removes_what_a_run_left_and_nothing_else(self, stocked: FakeApi, client: Client) -> None:
        put(stocked, f"{CORE}/namespaces/mine", run="r1")
        put(stocked, f"{CORE}/namespaces/mine/configmaps/inside", run="r1")
        put(stocked, f"{CORE}/namespaces/kube-system/configmaps/lent", run="r1")
        put(stocked, f"{RBAC}/clusterroles/ours", run="r1")
        volume(stocked, "pv-1", "mine", "Retain")
        volume(stocked, "pv-2", "default", "Retain")
        put(stocked, f"{RBAC}/clusterroles/of-another-run", run="r2")
        put(stocked, f"{CORE}/nodes/node-2", run="r1")
        put(stocked, f"{CORE}/nodes/clusterproof-hollow-mine", run="r1")
        swept = ledger.sweep(client, "r1", within=5)
        assert sorted(swept.removed) == [
            "ClusterRole ours",
            "ConfigMap kube-system/lent",
            "Namespace mine",
            "Node clusterproof-hollow-mine",
            "PersistentVolume pv-1",
        ]
        assert swept.stuck == ()
        left = {path.rpartition("/")[2] for path in stocked.objects}
        assert left == {"node-1", "node-2", "kube-system", "default", "of-another-run", "pv-2"}

    def test_a_volume_that_its_provisioner_removes_is_left_to_it(self, stocked: FakeApi, client: Client) -> None:
        put(stocked, f"{CORE}/namespaces/mine", run="r1")
        volume(stocked, "pv-1", "mine", "Delete")
        swept = ledger.sweep(client, "r1", within=0.3)
        assert f"DELETE {CORE}/persistentvolumes/pv-1" not in stocked.requests
        assert [line.partition(":")[0] for line in swept.stuck] == ["PersistentVolume pv-1"]

    def test_what_holds_up_removal_goes_first(self, stocked: FakeApi, client: Client) -> None:
        hooks = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
        kind = resource("validatingwebhookconfigurations", "ValidatingWebhookConfiguration")
        stocked.discovers("/apis", group("admissionregistration.k8s.io", ("v1", [kind])))
        put(stocked, f"{CORE}/namespaces/mine", run="r1")
        put(stocked, f"{hooks}/hook", run="r1")
        ledger.sweep(client, "r1", within=5)
        deleted = [request for request in stocked.requests if request.startswith("DELETE")]
        mine = [f"{CORE}/namespaces/mine", "/apis/batch/v1/namespaces/mine/jobs", f"{CORE}/namespaces/mine/pods"]
        assert deleted == [f"DELETE {each}" for each in (f"{hooks}/hook", *mine)]

    def test_no_job_holds_its_namespace(self, stocked: FakeApi, client: Client) -> None:
        put(stocked, f"{CORE}/namespaces/mine", run="r1")
        put(stocked, "/apis/batch/v1/namespaces/mine/jobs/index")
        ledger.sweep(client, "r1", within=5)
        deleted = [request for request in stocked.requests if request.startswith("DELETE")]
        assert deleted[1:] == ["DELETE /apis/batch/v1/namespaces/mine/jobs", f"DELETE {CORE}/namespaces/mine/pods"]

    def test_names_what_holds_a_namespace(self, stocked: FakeApi, client: Client) -> None:
        message = "Some content has finalizers remaining: example.com/hold in 1 resource instances"
        condition = {"type": "NamespaceFinalizersRemaining", "status": "True", "message": message}
        put(stocked, f"{CORE}/namespaces/mine", run="r1", status={"conditions": [condition]})
        stocked.overrides[f"DELETE {CORE}/namespaces/mine"] = lambda handler: _answers(handler, 200, {})
        swept = ledger.sweep(client, "r1", within=0.3)
        assert swept == ledger.Swept((), (f"Namespace mine: still there; {message}",))

    def test_names_the_finalizer_of_any_other_object(self, stocked: FakeApi, client: Client) -> None:
        put(stocked, f"{RBAC}/clusterroles/held", run="r1", metadata={"finalizers": ["example.com/hold"]})
        stocked.overrides[f"DELETE {RBAC}/clusterroles/held"] = lambda handler: _answers(handler, 200, {})
        swept = ledger.sweep(client, "r1", within=0.3)
        assert swept.stuck == ("ClusterRole held: still there; held by example.com/hold",)

    def test_lets_go_what_a_killed_promise_holds(self, stocked: FakeApi, client: Client) -> None:
        held = f"{CORE}/namespaces/mine/configmaps/held"
        put(stocked, f"{CORE}/namespaces/mine", run="r1")
        put(stocked, held, run="r1", metadata={"finalizers": [HOLD, "example.com/hold"]})
        stocked.overrides[f"DELETE {CORE}/namespaces/mine"] = lambda handler: _answers(handler, 200, {})
        ledger.sweep(client, "r1", within=0.3)
        assert stocked.objects[held]["metadata"]["finalizers"] == ["example.com/hold"]

    def test_says_what_it_may_not_remove(self, stocked: FakeApi, client: Client) -> None:
        put(stocked, f"{RBAC}/clusterroles/ours", run="r1")
        stocked.overrides[f"DELETE {RBAC}/clusterroles/ours"] = forbidden
        swept = ledger.sweep(client, "r1", within=5)
        assert swept.removed == ()
        assert "403 Forbidden: no" in swept.stuck[0]

    def test_without_a_run_takes_every_run(self, stocked: FakeApi, client: Client) -> None:
        stocked.discovers("/api")
        stocked.discovers(
            "/apis", group("rbac.authorization.k8s.io", ("v1", [resource("clusterroles", "ClusterRole")]))
        )
        asked: list[JSON] = []

        def answer(handler: Any) -> bool:
            asked.append(handler.query)
            return _answers(handler, 200, {"metadata": {}, "items": []})

        stocked.overrides[f"GET {RBAC}/clusterroles"] = answer
        assert ledger.sweep(client) == ledger.Swept((), ())
        assert asked == [{"limit": "500", "labelSelector": RUN_LABEL}]
