"""Writing objects: what is written is stored as answered, or refused with the reason, and never half of either."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from clusterproof import ApiError, Images, Namespace, Object, kinds, manifests
from clusterproof.refusals import refused


def test_verbs(namespace: Namespace, images: Images) -> None:
    """Create, replace, each kind of patch and delete MUST store what they answer, where get and list find it.

    Every write that changes something gives a new resourceVersion; the uid stays for an object's life, and no longer.

    Source: https://kubernetes.io/docs/reference/using-api/api-concepts/
    """
    item = namespace.create(_template(images.agnhost, env={"A": "1"}, spec={"subdomain": "dropped"}))
    with refused(f"creating {item} twice", 409):
        namespace.create(_template(images.agnhost))
    uid, versions = item.uid, [_stored(item)]

    spec = {field: value for field, value in item["template"]["spec"].items() if field != "subdomain"}
    item.replace({**item.raw, "template": {"spec": {**spec, "hostname": "put"}}})
    versions.append(_stored(item))
    assert "subdomain" not in item["template"]["spec"], f"{item} kept a field that it was replaced without"
    item.patch({"metadata": {"labels": {"app": None, "by": "merge"}}})
    versions.append(_stored(item))
    test = {"op": "test", "path": "/template/spec/hostname", "value": "put"}
    item.patch([test, {"op": "replace", "path": "/template/spec/hostname", "value": "json"}], type="json")
    versions.append(_stored(item))
    more = [{"name": "main", "env": [{"name": "B", "value": "2"}]}]
    item.patch({"template": {"spec": {"containers": more}}}, type="strategic")
    versions.append(_stored(item))

    with refused(f"a JSON patch of {item} whose test fails", 422):
        item.patch([test, {"op": "remove", "path": "/template/spec/hostname"}], type="json")
    assert (item.labels.get("app"), item.labels["by"]) == (None, "merge"), f"{item} is labelled {item.labels}"
    spec = item.read()["template"]["spec"]
    assert spec["hostname"] == "json", f"a JSON patch was to replace the hostname of {item}, but it is {spec}"
    env = {each["name"]: each["value"] for each in spec["containers"][0]["env"]}
    assert env == {"A": "1", "B": "2"}, f"a strategic patch was to add B to the environment of {item}, but it is {env}"
    assert len(set(versions)) == len(versions), f"two writes of {item} gave one resourceVersion: {versions}"
    assert item.uid == uid, f"{item} changed its uid by being written"

    item.delete()
    assert not item.exists(), f"{item} MUST be gone once its deletion was answered"
    again = namespace.create(_template(images.agnhost))
    assert again.uid != uid, f"{again} was created anew with the uid of its predecessor"


def test_stale_write(namespace: Namespace) -> None:
    """A write or deletion that names an outdated version or uid MUST be refused with 409, and change nothing.

    Source: https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions
    """
    item = namespace.create(manifests.config_map("item", {"value": "first"}))
    stale = item.raw
    item.patch({"data": {"value": "second"}})

    with refused(f"replacing {item} as it was one version ago", 409):
        item.replace({**stale, "data": {"value": "lost"}})
    with refused(f"patching {item} as it was one version ago", 409):
        item.patch({"metadata": {"resourceVersion": stale["metadata"]["resourceVersion"]}, "data": {"value": "lost"}})
    for outdated in ({"resourceVersion": stale["metadata"]["resourceVersion"]}, {"uid": "0" * 8}):
        with refused(f"deleting {item} on the precondition {outdated}", 409):
            namespace.client.delete(item.path, {"preconditions": outdated})

    assert item.read()["data"] == {"value": "second"}, f"a refused write changed {item} to {item['data']}"


def test_concurrent_writes(namespace: Namespace) -> None:
    """Of several writers that each add to what they read, none MUST lose what another wrote: all but one get 409.

    Source: https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions
    """
    writers, rounds = 4, 10
    counter = namespace.create(manifests.config_map("counter", {"value": "0"}))
    clients = [namespace.cluster.new_client() for _ in range(writers)]

    with ThreadPoolExecutor(writers) as pool:
        conflicts = list(pool.map(lambda client: _add(Object.of(client, counter.raw), rounds), clients))

    value = int(counter.read()["data"]["value"])
    assert value == writers * rounds, (
        f"{writers} writers added 1 to {counter} {rounds} times each, all acknowledged, {sum(conflicts)} times after a "
        f"conflict, but it counts {value}"
    )


def test_dry_run(namespace: Namespace) -> None:
    """A dry run MUST answer like the write it stands for, and store nothing.

    Source: https://kubernetes.io/docs/reference/using-api/api-concepts/#dry-run
    """
    item = namespace.create(manifests.config_map("item", {"value": "real"}))
    version, dry = item.resource_version, {"dryRun": "All"}
    client, path = namespace.client, kinds.CONFIG_MAP.path(namespace.name)

    made = client.post(path, manifests.config_map("ghost"), dry)
    answers = [
        client.put(item.path, {**item.raw, "data": {"value": "put"}}, dry),
        client.patch(item.path, {"data": {"value": "patch"}}, dry),
    ]
    client.delete(item.path, query=dry)
    client.delete(path, query={**dry, "labelSelector": "app"})

    assert made["metadata"]["uid"], f"the dry run of a creation answered without a uid: {made}"
    assert [each["data"]["value"] for each in answers] == ["put", "patch"]
    found = [(each.name, each.resource_version) for each in namespace.list(kinds.CONFIG_MAP, labels="app")]
    assert found == [("item", version)], (
        f"dry runs MUST store nothing, but changed {item} of version {version}: {found}"
    )


def test_size(namespace: Namespace) -> None:
    """A ConfigMap with 900 kB of data MUST be stored as it was written, and one with more than 1 MiB be refused.

    Source: https://kubernetes.io/docs/concepts/configuration/configmap/
    """
    path = kinds.CONFIG_MAP.path(namespace.name)
    # No two lines are alike, so that nothing can be left out or mixed up unnoticed.
    data = {"lines": "".join(f"{number:>9}\n" for number in range(90_000))}
    answer = namespace.client.request("POST", path, body=manifests.config_map("large", data))
    assert answer.status == 201, f"a ConfigMap with 900 kB MUST be stored, but: {answer.status} {answer.text[:200]}"
    large = Object.of(namespace.client, answer.json(), kinds.CONFIG_MAP)
    large.patch({"metadata": {"labels": {"changed": "yes"}}})
    for how, found in ("answered", answer.json()), ("read", large.read().raw), ("listed", _listed(large)):
        same = (found.get("data") or {}) == data
        assert same, f"{large} was written with 900 kB of lines, but is {how} with {len(str(found))} characters"

    # Who stands in front of an API server may refuse it before that does.
    with refused("a ConfigMap with more than 1 MiB of data", 422, 413):
        namespace.create(manifests.config_map("huge", {"lines": "x" * (1024**2 + 1)}))
    assert not namespace.object(kinds.CONFIG_MAP, "huge").exists(), "a refused ConfigMap was stored all the same"


def _service(**port: Any) -> dict[str, Any]:
    manifest = manifests.service("bad")
    manifest["spec"]["ports"][0] |= port
    return manifest


def _deployment(**spec: Any) -> dict[str, Any]:
    return manifests.deployment("bad", "image", more=spec)


def _pod(**container: Any) -> dict[str, Any]:
    return manifests.pod("bad", "image", container=container)


INVALID: dict[str, dict[str, Any]] = {
    "metadata.name": manifests.config_map("Not_A_Name"),
    "metadata.labels": manifests.config_map("bad", labels={"a": "not a value"}),
    "data[not/a/key]": manifests.config_map("bad", {"not/a/key": ""}),
    "spec.ports[0].port": _service(port=70000),
    "spec.ports[0].protocol": _service(protocol="ICMP"),
    "spec.template.metadata.labels": _deployment(selector={"matchLabels": {"app": "else"}}),
    "spec.replicas": _deployment(replicas=-1),
    "spec.containers[0].image": _pod(image=""),
    "spec.containers[0].resources.requests": _pod(resources={"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}),
    "spec.schedule": manifests.cron_job("bad", "image", schedule="61 * * * *"),
    "spec.resources[storage]": manifests.pvc("bad", size="-1Gi"),
}
"""Objects that are invalid in one field, by that field."""


def test_validation(namespace: Namespace) -> None:
    """An invalid object MUST be refused with 422, naming the field that is wrong, and not be stored.

    Source: https://kubernetes.io/docs/reference/using-api/api-concepts/
    """
    for field, manifest in INVALID.items():
        with refused(f"a {manifest['kind']} that is invalid in {field}", 422) as refusal:
            namespace.create(manifest)
        assert field in refusal.fields, f"the refusal names {refusal.fields}, not {field}: {refusal.message}"

    stored = [str(each) for kind in map(kinds.of, INVALID.values()) for each in namespace.list(kind, labels="app=bad")]
    assert not stored, f"refused objects were stored all the same: {', '.join(stored)}"


def test_immutable(namespace: Namespace, images: Images) -> None:
    """A field that cannot be changed MUST be refused with 422 when it is, and keep its value.

    Source: https://kubernetes.io/docs/concepts/configuration/configmap/#configmap-immutable
    """
    sealed = namespace.create({**manifests.config_map("sealed", {"value": "first"}), "immutable": True})
    web = namespace.create(manifests.deployment("web", images.agnhost, replicas=0))

    with refused(f"changing the data of {sealed}, which is immutable,", 422) as refusal:
        sealed.patch({"data": {"value": "second"}})
    assert refusal.fields == ["data"]
    more = {"matchLabels": {"more": "x"}}
    with refused(f"changing the selector of {web}", 422) as refusal:
        web.patch({"spec": {"selector": more, "template": {"metadata": {"labels": more["matchLabels"]}}}})
    assert refusal.fields == ["spec.selector"]

    assert sealed.read()["data"] == {"value": "first"}, f"a refused write changed {sealed}"
    assert web.read().generation == 1, f"a refused write changed {web}"


def test_unknown_fields(namespace: Namespace) -> None:
    """A field that does not exist MUST be refused under strict validation, and warned about otherwise.

    Source: https://kubernetes.io/docs/reference/using-api/api-concepts/#setting-the-field-validation-level
    """
    path, manifest = kinds.SERVICE.path(namespace.name), manifests.service("web")
    manifest["spec"]["slector"] = {"app": "web"}
    query = {"dryRun": "All"}

    with refused("a Service with the unknown field spec.slector under strict validation", 400) as refusal:
        namespace.client.post(path, manifest, {**query, "fieldValidation": "Strict"})
    answer = namespace.client.request("POST", path, body=manifest, query=query)
    quiet = namespace.client.request("POST", path, body=manifest, query={**query, "fieldValidation": "Ignore"})

    assert 'unknown field "spec.slector"' in refusal.message, f"the refusal does not name the field: {refusal.message}"
    warning = answer.headers.get("Warning", "")
    assert answer.status == 201, f"without strict validation it MUST be accepted, but was answered {answer.status}"
    assert "spec.slector" in warning, f"the answer MUST warn about the unknown field spec.slector; it warns {warning!r}"
    warning = quiet.headers.get("Warning", "")
    assert "unknown field" not in warning, f"asked to ignore unknown fields, it warns {warning!r}"
    assert "slector" not in answer.json()["spec"], "the unknown field spec.slector MUST be dropped"


def _template(image: str, **options: Any) -> dict[str, Any]:
    """A PodTemplate: no controller writes to it, and its lists are merged by strategic patches."""
    spec = {"template": {"spec": manifests.pod_spec(image, **options)}}
    return {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "item", "labels": {"app": "item"}}, **spec}


def _stored(item: Object) -> str:
    """The version that an acknowledged write gave, once get and list were seen to serve just that."""
    answered = item.raw
    for how, found in ("read", item.read().raw), ("listed", _listed(item)):
        for part in ("metadata", "template"):
            assert found.get(part) == answered[part], (
                f"{item} was answered with {part} {answered[part]}, but is {how} with {found.get(part)}"
            )
    return item.resource_version


def _listed(item: Object) -> dict[str, Any]:
    """An object as a list has it; empty where it is not in there."""
    query = {"fieldSelector": f"metadata.name={item.name}"}
    listed: list[dict[str, Any]] = item.client.get(item.kind.path(item.namespace), query)["items"]
    return listed[0] if listed else {}


def _add(counter: Object, rounds: int) -> int:
    """Add 1 as often as asked; the number of conflicts."""
    done = conflicts = 0
    while done < rounds:
        value = int(counter.read()["data"]["value"]) + 1
        try:
            counter.replace({**counter.raw, "data": {"value": str(value)}})
            done += 1
        except ApiError as refusal:
            if refusal.status != 409:
                raise
            conflicts += 1
    return conflicts
