"""The API: lists in pages, shared ownership of fields, events, and warnings of what will be gone."""

from __future__ import annotations

import re
from typing import Any

from clusterproof import (
    Cluster,
    Images,
    Namespace,
    Object,
    Response,
    Timeouts,
    eventually,
    kinds,
    manifests,
    measure,
    step,
)
from clusterproof.counters import series
from clusterproof.refusals import refused

OBJECTS = 250
PAGE = 70
PROTOBUF = "application/vnd.kubernetes.protobuf"


def test_pagination(namespace: Namespace) -> None:
    """A list in pages MUST give every object of its first moment exactly once, whatever is written meanwhile.

    Alone or with label and field selectors; a continue token that was not given out is refused.

    Source: https://kubernetes.io/docs/reference/using-api/api-concepts/#retrieving-large-results-sets-in-chunks
    """
    client, path = namespace.client, kinds.CONFIG_MAP.path(namespace.name)
    names = [f"item-{number:03}" for number in range(OBJECTS)]
    for number, name in enumerate(names):
        client.post(path, manifests.config_map(name, labels={"set": "all", "parity": ("even", "odd")[number % 2]}))

    first = client.get(path, {"limit": PAGE, "labelSelector": "set=all"})
    client.delete(f"{path}/{names[-1]}")
    client.post(path, manifests.config_map("item-late", labels={"set": "all"}))
    pages = [first, *_rest(namespace, first, "set=all")]
    even = client.get(path, {"limit": PAGE, "labelSelector": "parity=even"})
    evens = [even, *_rest(namespace, even, "parity=even")]
    one = client.get(path, {"limit": PAGE, "fieldSelector": f"metadata.name={names[7]}"})

    assert max(map(len, map(_names, pages))) <= PAGE, (
        f"pages of at most {PAGE} hold {list(map(len, map(_names, pages)))}"
    )
    _same(f"ConfigMaps of {namespace} in pages of {PAGE}", [name for page in pages for name in _names(page)], names)
    _same(f"ConfigMaps of {namespace} with parity=even", [name for page in evens for name in _names(page)], names[::2])
    assert _names(one) == [names[7]], f"the field selector for {names[7]} selects {_names(one)}"
    with refused("a continue token that nobody gave out", 400):
        client.get(path, {"limit": PAGE, "continue": "bm90LWEtdG9rZW4"})


def test_field_selectors(namespace: Namespace, images: Images) -> None:
    """A field selector MUST select exactly what has these values, and be refused where a field cannot be selected by.

    Source: https://kubernetes.io/docs/concepts/overview/working-with-objects/field-selectors/
    """
    for name in ("one", "other"):
        namespace.create(manifests.pod(name, images.agnhost, spec=manifests.PARKED))
    selected = {
        "metadata.name!=one": ["other"],
        "status.phase=Pending": ["one", "other"],
        "status.phase=Pending,metadata.name=one": ["one"],
        "status.phase==Running": [],
        "spec.nodeName=": ["one", "other"],
        "spec.restartPolicy!=Always": [],
    }

    for fields, names in selected.items():
        found = [pod.name for pod in namespace.list(kinds.POD, fields=fields)]
        assert found == names, f"the field selector {fields} selects {found} in {namespace}, not {names}"
    with refused("selecting pods by a field that they do not have", 400):
        namespace.list(kinds.POD, fields="spec.nothing=1")


def test_representations(namespace: Namespace) -> None:
    """An object MUST be told as whoever reads it asks, in Protobuf, as a row of a table, or only its metadata.

    What was told in Protobuf can be written back, and other media types are refused.

    Source: https://kubernetes.io/docs/reference/using-api/api-concepts/#alternate-representations-of-resources
    """
    item = namespace.create(manifests.config_map("item", {"colour": "blue"}))

    told = _told(item, PROTOBUF)
    assert told.body.startswith(b"k8s\0"), f"{item} in Protobuf begins with {told.body[:20]!r}, not with 'k8s' and 0"
    changed = told.body.replace(b"blue", b"teal")
    answer = item.client.request("PUT", item.path, body=changed, content_type=PROTOBUF)
    seen = answer.status, item.read()["data"]
    assert seen == (200, {"colour": "teal"}), f"{item}: written in Protobuf with teal, it was answered and is {seen}"

    told = _told(item, "application/json;as=Table;g=meta.k8s.io;v=v1")
    rows = [row["cells"][:2] for row in told.json().get("rows", [])]
    assert rows == [["item", 1]], f"{item} as a table has the rows {rows}, not one of its name and its single value"
    known = _told(item, "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1").json()
    shown = known["kind"], known["metadata"]["name"], "data" in known
    assert shown == ("PartialObjectMetadata", "item", False), (
        f"the metadata of {item} alone are {shown}, with {list(known)}"
    )

    strange = "application/strange"
    written = item.client.request("PUT", item.path, body=b"{}", content_type=strange)
    for what, answer, status in (("asked for as", _told(item, strange), 406), ("written as", written, 415)):
        assert answer.status == status, f"{item}, {what} {strange}, was answered with {answer.status}, not {status}"


def test_server_side_apply(namespace: Namespace) -> None:
    """A field MUST belong to who applied it: others are refused, naming the owner, unless they force it.

    What an owner no longer applies goes away, unless somebody else owns it too.

    Source: https://kubernetes.io/docs/reference/using-api/server-side-apply/
    """
    item = namespace.object(kinds.CONFIG_MAP, "item")
    _apply(item, "alice", {"color": "blue", "size": "1", "shape": "round"})
    _apply(item, "bob", {"size": "1"})
    with refused(f"applying another color of {item} than its owner alice", 409) as refusal:
        _apply(item, "bob", {"size": "1", "color": "red"})
    assert 'conflict with "alice"' in refusal.message, f"the refusal does not name the owner: {refusal.message}"
    assert refusal.fields == [".data.color"], f"the refusal names {refusal.fields}, not .data.color"
    assert item.read()["data"]["color"] == "blue", f"a refused apply changed {item}"

    _apply(item, "bob", {"size": "1", "color": "red"}, force=True)
    assert _owners(item, "color") == {"bob"}, f"bob forced the color of {item}, but it belongs to {item.metadata}"
    assert _owners(item, "size") == {"alice", "bob"}
    _apply(item, "alice", {"size": "1"})
    assert item["data"] == {"color": "red", "size": "1"}, f"alice dropped the shape of {item}, but it is {item['data']}"
    _apply(item, "bob", {"color": "red"})
    assert item.read()["data"] == {"color": "red", "size": "1"}, f"alice still owns the size of {item}: {item['data']}"


def test_apply_to_lists(namespace: Namespace) -> None:
    """A list whose items have keys MUST be merged by them: who applies some of them leaves those of others alone.

    Source: https://kubernetes.io/docs/reference/using-api/server-side-apply/#merge-strategy
    """
    web = namespace.object(kinds.SERVICE, "web")

    def apply(manager: str, *numbers: int) -> list[int]:
        listed = [{"name": f"port-{number}", "port": number, "protocol": "TCP"} for number in numbers]
        manifest = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": web.name}, "spec": {"ports": listed}}
        web.patch(manifest, type="apply", query={"fieldManager": manager})
        return sorted(each["port"] for each in web.spec["ports"])

    apply("alice", 80, 81)
    both = apply("bob", 82)
    assert both == [80, 81, 82], f"bob applied the port 82 of {web} beside alice's 80 and 81, and it has {both}"
    left = apply("alice", 80)
    assert left == [80, 82], f"alice applied the port 80 of {web} alone, beside bob's 82, and it has {left}"


def test_events(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A pod that is scheduled and started MUST leave events on it that say so, each naming who reports it.

    Source: https://kubernetes.io/docs/reference/kubernetes-api/cluster-resources/event-v1/
    """
    pod = namespace.create(manifests.pod("pod", images.agnhost, args=["pause"]))
    about = namespace.select(kinds.EVENT, fields=f"involvedObject.kind=Pod,involvedObject.name={pod.name}")

    events = eventually(about, _tell_of("Scheduled", "Pulled", "Created", "Started"), within=timeouts.pod)

    for event in events:
        assert event["involvedObject"]["uid"] == pod.uid, f"{event} is about another {pod}: {event['involvedObject']}"
        assert event["message"], f"{event} for {event['reason']} of {pod} has no message"
        reporter = event.raw.get("reportingComponent") or event.raw.get("source", {}).get("component")
        assert reporter, f"{event} for {event['reason']} of {pod} does not say who reports it"


def test_deprecated(cluster: Cluster, timeouts: Timeouts) -> None:
    """Who uses a deprecated API MUST be warned, and the API server tell which ones are in use and when they will go.

    Those in use that the next minor version does not have any more are reported.

    Source: https://kubernetes.io/docs/reference/using-api/deprecation-policy/#rest-resources-aka-api-objects
    """
    # Deprecated for ever, and asked for one that does not exist: nothing has to be looked up.
    warned = cluster.client.request("GET", f"{OLDEST}/nobody").headers.get("Warning", "")
    assert "ComponentStatus is deprecated" in warned, (
        f"a request for {OLDEST} MUST be warned of, but is with {warned!r}"
    )

    def told() -> dict[str, str]:
        cluster.client.request("GET", f"{OLDEST}/nobody")
        return _deprecated_in_use(cluster)

    # Where there are several API servers, each of them counts for itself.
    in_use = eventually(told, _tells_of("v1 componentstatuses"), within=timeouts.propagation)
    major, minor = re.findall(r"\d+", cluster.facts.version)[:2]
    leaving = [name for name, until in in_use.items() if until == f"{major}.{int(minor) + 1}"]
    measure("APIs in use that the next minor version does not have", len(leaving))
    for name in leaving:
        with step(f"in use, but not in the next minor version: {name}"):
            pass


OLDEST = "/api/v1/componentstatuses"


def _deprecated_in_use(cluster: Cluster) -> dict[str, str]:
    """Deprecated APIs that the answering server was asked for, each with the version that no longer has it."""
    counted = series(cluster.client, "apiserver_requested_deprecated_apis")
    return {
        f"{each['group'] + '/' if each['group'] else ''}{each['version']} {each['resource']}": each["removed_release"]
        for each, number in counted
        if number
    }


def _tells_of(name: str) -> Any:
    def deprecated_apis_in_use(found: dict[str, str]) -> str | None:
        """The metric `apiserver_requested_deprecated_apis` names it."""
        return None if name in found else f"the metric names {sorted(found) or 'none'}, not {name}"

    return deprecated_apis_in_use


def _names(page: dict[str, Any]) -> list[str]:
    return [item["metadata"]["name"] for item in page["items"]]


def _told(item: Object, accept: str) -> Response:
    return item.client.request("GET", item.path, accept=accept)


def _rest(namespace: Namespace, page: dict[str, Any], selector: str) -> list[dict[str, Any]]:
    """All pages after this one."""
    pages: list[dict[str, Any]] = []
    while (more := page["metadata"].get("continue")) and len(pages) < OBJECTS:
        query = {"limit": PAGE, "labelSelector": selector, "continue": more}
        page = namespace.client.get(kinds.CONFIG_MAP.path(namespace.name), query)
        pages.append(page)
    return pages


def _same(what: str, found: list[str], wanted: list[str]) -> None:
    __tracebackhide__ = True
    missing, surplus = sorted(set(wanted) - set(found)), sorted(set(found) - set(wanted))
    assert not missing, f"{what} MUST be {len(wanted)}, but {len(missing)} are missing: {missing[:5]}"
    assert not surplus, f"{what} MUST be {len(wanted)}, but there are also {surplus[:5]}"
    assert len(found) == len(wanted), f"{what} MUST be given once each, but {len(wanted)} were given as {len(found)}"


def _apply(item: Object, manager: str, data: dict[str, str], *, force: bool = False) -> None:
    manifest = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": item.name}, "data": data}
    item.patch(manifest, type="apply", query={"fieldManager": manager, "force": force})


def _owners(item: Object, key: str) -> set[str]:
    """Who owns a key of a ConfigMap's data."""
    owners = [each for each in item.metadata["managedFields"] if f"f:{key}" in each["fieldsV1"].get("f:data", {})]
    return {each["manager"] for each in owners}


def _tell_of(*reasons: str) -> Any:
    def tell_how_it_started(events: list[Object]) -> str | None:
        """There is an event for each of these reasons."""
        missing = [reason for reason in reasons if reason not in [event["reason"] for event in events]]
        return f"none for {', '.join(missing)} among {[event['reason'] for event in events]}" if missing else None

    return tell_how_it_started
