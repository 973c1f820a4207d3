"""What is told of admission: what it changes in pods, and whom it meets."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from clusterproof import manifests
from clusterproof.doctor import admission, needs
from clusterproof.errors import ApiError

LABELS = {"kubernetes.io/metadata.name": "cp-0", "team": "a"}


def _stored() -> dict[str, Any]:
    """A pod as the API server stores it where nobody interferes."""
    pod = copy.deepcopy(manifests.pod("one", "image"))
    pod["spec"] |= {
        "serviceAccountName": "default",
        "dnsPolicy": "ClusterFirst",
        "tolerations": [{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute"}],
    }
    pod["spec"]["containers"][0] |= {"resources": {}, "terminationMessagePath": "/dev/termination-log"}
    return pod


def test_what_the_server_fills_in_is_no_change() -> None:
    assert admission.changes(manifests.pod("one", "image"), _stored()) == []


def test_every_change_is_named() -> None:
    stored = _stored()
    stored["metadata"]["annotations"] = {"injected": "yes"}
    stored["spec"]["tolerations"].append({"operator": "Exists"})
    stored["spec"]["containers"][0]["image"] = "mirror/image"
    stored["spec"]["containers"].append({"name": "proxy", "image": "sidecar"})
    assert admission.changes(manifests.pod("one", "image"), stored) == [
        "annotation injected=yes",
        "toleration added: of everything",
        "container main: image image became mirror/image",
        "container added: proxy (sidecar)",
    ]


@pytest.mark.parametrize(
    ("selector", "meets"),
    [
        (None, True),
        ({"matchLabels": {"team": "a"}}, True),
        ({"matchLabels": {"team": "b"}}, False),
        ({"matchExpressions": [{"key": "team", "operator": "In", "values": ["b"]}]}, False),
        ({"matchExpressions": [{"key": "injection", "operator": "NotIn", "values": ["off"]}]}, True),
        ({"matchExpressions": [{"key": "injection", "operator": "Exists"}]}, False),
        ({"matchExpressions": [{"key": "injection", "operator": "DoesNotExist"}]}, True),
    ],
)
def test_whom_a_selector_meets(selector: dict[str, Any] | None, meets: bool) -> None:
    assert admission.selects(selector, LABELS) is meets


@pytest.mark.parametrize(
    ("status", "message", "is_right"),
    [
        (403, 'x is forbidden: User "a" cannot create resource "pods" in API group "" in the namespace "b"', True),
        (403, 'x is forbidden: User "a" cannot list resource "nodes" in API group "" at the cluster scope', True),
        (403, "x is forbidden: exceeded quota: team", False),
        (404, 'User "a" cannot create resource "pods" in API group ""', False),
    ],
)
def test_a_missing_right_is_told_from_other_refusals(status: int, message: str, is_right: bool) -> None:
    assert needs.is_missing_right(ApiError(status, "Forbidden", message, "POST", "/", {})) is is_right


def test_every_need_is_some_promises() -> None:
    for need in needs.NEEDS:
        assert needs.who_needs(need), f"no promise shows that it needs to {need}"
