"""The evidence that is kept of a broken promise, against a fake API server."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from kubernetes.client import Configuration

from clusterproof.client import Client
from clusterproof.outcome import Attachment
from clusterproof.running import bundle
from clusterproof.running.redaction import redacted

from .fake_api import FakeApi

HERE = "/api/v1/namespaces/here"
TOKEN = ".".join(
    base64.urlsafe_b64encode(part).decode().rstrip("=") for part in (b'{"alg":"x"}', b'{"sub":"bob"}', b"sig")
)
KEY = "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEE\n-----END EC PRIVATE KEY-----"


def collected(client: Client, *namespaces: str) -> dict[str, Attachment]:
    return {attachment.name: attachment for attachment in bundle.collect(namespaces or ("here",), client)}


def event(name: str, reason: str, last: str = "", **more: Any) -> dict[str, Any]:
    about = {"kind": "Pod", "name": "web"}
    times = {"lastTimestamp": last} if last else {}
    metadata = {"name": name, "creationTimestamp": "2026-01-01T00:00:00Z"}
    return {"metadata": metadata, "type": "Warning", "reason": reason, "involvedObject": about, **times, **more}


def pod(name: str, *, restarts: int = 0, ready: bool = True, state: str = "running") -> dict[str, Any]:
    container = {"name": "main", "ready": ready, "restartCount": restarts, "state": {state: {}}}
    return {
        "metadata": {"name": name, "managedFields": [{"manager": "kubelet"}]},
        "status": {"phase": "Running", "containerStatuses": [container]},
    }


def logs(api: FakeApi, name: str, text: str | Callable[[dict[str, str]], str]) -> None:
    def answer(handler: Any) -> bool:
        body = (text if isinstance(text, str) else text(handler.query)).encode()
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)
        return True

    api.overrides[f"GET {HERE}/pods/{name}/log"] = answer


def refuses(api: FakeApi, path: str) -> None:
    def answer(handler: Any) -> bool:
        handler.fail(403, "Forbidden", "not yours")
        return True

    api.overrides[f"GET {path}"] = answer


def test_events_are_one_line_each_and_in_order(api: FakeApi, client: Client) -> None:
    api.put(f"{HERE}/events/a", event("a", "BackOff", "2026-01-01T10:00:02Z", count=3, message="restarting\n  main"))
    api.put(f"{HERE}/events/b", event("b", "Pulled", "2026-01-01T10:00:01Z", message="image is there"))
    api.put(f"{HERE}/events/c", event("c", "Scheduled", eventTime="2026-01-01T10:00:00.5Z", message="to node-1"))
    assert collected(client)["here/events"].text.splitlines() == [
        "2026-01-01T10:00:00.5Z Warning Pod/web Scheduled: to node-1",
        "2026-01-01T10:00:01Z Warning Pod/web Pulled: image is there",
        "2026-01-01T10:00:02Z Warning Pod/web BackOff x3: restarting main",
    ]


def test_objects_are_yaml_without_managed_fields(api: FakeApi, client: Client) -> None:
    api.put(f"{HERE}/pods/web-1", pod("web-1"))
    api.put("/apis/apps/v1/namespaces/here/deployments/web", {"metadata": {"name": "web"}, "spec": {"replicas": 3}})
    found = list(yaml.safe_load_all(collected(client)["here/objects"].text))
    assert [(each["apiVersion"], each["kind"], each["metadata"]["name"]) for each in found] == [
        ("v1", "Pod", "web-1"),
        ("apps/v1", "Deployment", "web"),
    ]
    assert "managedFields" not in found[0]["metadata"]


def test_secrets_are_redacted(api: FakeApi, client: Client) -> None:
    applied = {"kubectl.kubernetes.io/last-applied-configuration": "hunter2"}
    secret = {"metadata": {"name": "s", "annotations": applied}, "data": {"password": "aHVudGVyMg=="}}
    api.put(f"{HERE}/secrets/s", secret)
    text = collected(client)["here/objects"].text
    assert "hunter2" not in text
    assert "aHVudGVyMg==" not in text
    assert yaml.safe_load(text)["data"] == {"password": "<12 characters>"}


def test_tokens_and_keys_are_redacted_everywhere(api: FakeApi, client: Client) -> None:
    api.put(f"{HERE}/pods/web", pod("web"))
    logs(api, "web", f"got {TOKEN}\nAuthorization: Bearer abcdefgh12345678\n{KEY}\nfine\n")
    text = collected(client)["here/web/main.log"].text
    assert text == "got <token>\nAuthorization: Bearer <credentials>\n<private key>\nfine\n"


def test_a_key_that_was_cut_off_is_redacted_too() -> None:
    assert redacted(f"key: {KEY[:40]}") == "key: <private key>"


def test_passwords_in_urls_are_redacted() -> None:
    said = "dialing amqp://guest:hunter2@rabbit:5672/a@b, then https://web.example:443/a@b and ssh://root@node-1:22"
    told = "dialing amqp://guest:<password>@rabbit:5672/a@b, then https://web.example:443/a@b and ssh://root@node-1:22"
    assert redacted(said) == told


def test_current_and_previous_logs(api: FakeApi, client: Client) -> None:
    api.put(f"{HERE}/pods/steady", pod("steady"))
    api.put(f"{HERE}/pods/crashing", pod("crashing", restarts=2, ready=False, state="waiting"))
    api.put(f"{HERE}/pods/unborn", pod("unborn", ready=False, state="waiting"))
    for name in ("steady", "crashing"):
        logs(api, name, lambda query: "before" if "previous" in query else f"now, {query['tailLines']} lines of it")
    found = {name: each.text for name, each in collected(client).items() if name.endswith(".log")}
    assert found == {
        "here/crashing/main.log": "now, 200 lines of it",
        "here/crashing/main.previous.log": "before",
        "here/steady/main.log": "now, 200 lines of it",
    }


def test_pods_in_trouble_come_first(api: FakeApi, client: Client) -> None:
    for number in range(bundle.PODS + 3):
        api.put(f"{HERE}/pods/a{number:02}", pod(f"a{number:02}"))
        logs(api, f"a{number:02}", "fine")
    api.put(f"{HERE}/pods/z", pod("z", ready=False))
    logs(api, "z", "trouble")
    names = [name for name in collected(client) if name.endswith(".log")]
    assert names[0] == "here/z/main.log"
    assert len(names) == bundle.PODS


def test_nodes_say_what_is_wrong_with_them(api: FakeApi, client: Client) -> None:
    conditions = [
        {"type": "DiskPressure", "status": "True", "reason": "Full", "message": "no space", "lastTransitionTime": "t1"},
        {"type": "Ready", "status": "True", "reason": "KubeletReady", "lastTransitionTime": "t2"},
    ]
    spec = {"unschedulable": True, "taints": [{"key": "k", "effect": "NoSchedule"}]}
    api.put(
        "/api/v1/nodes/node-1", {"metadata": {"name": "node-1"}, "spec": spec, "status": {"conditions": conditions}}
    )
    assert collected(client)["nodes"].text.splitlines() == [
        "node-1 unschedulable k:NoSchedule",
        "  DiskPressure=True since t1 Full: no space",
        "  Ready=True since t2",
    ]


def test_what_cannot_be_had_is_said_in_its_place(api: FakeApi, client: Client) -> None:
    api.put(f"{HERE}/pods/web", pod("web"))
    refuses(api, f"{HERE}/events")
    refuses(api, f"{HERE}/secrets")
    refuses(api, f"{HERE}/pods/web/log")
    refuses(api, "/api/v1/nodes")
    found = collected(client)
    assert "403" in found["here/events"].text
    assert "# secrets could not be listed: GET" in found["here/objects"].text
    assert "kind: Pod" in found["here/objects"].text
    assert "could not be read: 403" in found["here/web/main.log"].text
    assert "could not be read:" in found["nodes"].text


def test_a_server_that_is_gone_does_not_replace_the_failure() -> None:
    configuration = Configuration()
    configuration.host = "http://127.0.0.1:9"
    found = collected(Client(configuration))
    assert "cannot connect" in found["nodes"].text
    assert "cannot connect" in found["here/objects"].text


@pytest.mark.parametrize("size", [bundle.LIMIT - 1, bundle.LIMIT + 1000])
def test_a_long_log_keeps_its_end(api: FakeApi, client: Client, size: int) -> None:
    api.put(f"{HERE}/pods/web", pod("web"))
    logs(api, "web", "x" * size + "the end")
    text = collected(client)["here/web/main.log"].text
    assert text.endswith("the end")
    assert len(text) < bundle.LIMIT + 100
    assert text.startswith("x" if size < bundle.LIMIT - 10 else "(")


def test_the_whole_has_a_limit_and_says_what_it_left_out(api: FakeApi, client: Client) -> None:
    for number in range(6):
        api.put(f"{HERE}/pods/p{number}", pod(f"p{number}"))
        logs(api, f"p{number}", "x" * 60_000)
    found = collected(client)
    assert sum(len(each.text) for each in found.values()) < bundle.TOTAL + 1000
    assert found["left out"].text == "here/p4/main.log: 60000 characters\nhere/p5/main.log: 60000 characters"


def test_costs_few_requests(api: FakeApi, client: Client) -> None:
    api.put(f"{HERE}/pods/web", pod("web"))
    logs(api, "web", "")
    collected(client)
    assert client.requests == len(bundle.OBJECTS) + 3
