"""A controller of the user's own: a program in a pod that makes the cluster look as a custom object says."""

from __future__ import annotations

from clusterproof import Cluster, Images, Namespace, Object, Timeouts, conditions, eventually, kinds, manifests
from clusterproof.kinds import Kind
from clusterproof.rights import grant

_CONTROLLER = r"""
account=/var/run/secrets/kubernetes.io/serviceaccount
api() {
    curl -sSN --fail --user-agent controller --cacert $account/ca.crt \
        -H "Authorization: Bearer $(cat $account/token)" "$@"
}
apply() {
    api -o /dev/null -X PATCH -H 'Content-Type: application/apply-patch+yaml' -d "$2" \
        "$1?fieldManager=controller&force=true"
}
watch() { while :; do api "$1?watch=true&timeoutSeconds=60"; sleep 0.2; done; }
reconcile() {
    gadget=$(api "$gadgets/mine") || return
    size=$(sed -n 's/.*"spec":{"size":\([0-9]*\)}.*/\1/p' <<< "$gadget")
    apply "$maps/mine" "{apiVersion: v1, kind: ConfigMap, metadata: {name: mine}, data: {size: '$size'}}"
    apply "$gadgets/mine/status" "{apiVersion: $1, kind: Gadget, metadata: {name: mine}, status: {size: $size}}"
}
server=https://kubernetes.default.svc:443
gadgets=$server/apis/$1/namespaces/$2/gadgets maps=$server/api/v1/namespaces/$2/configmaps
{ watch "$gadgets" & watch "$maps" & wait; } | while read -r event; do reconcile "$1"; done
"""
"""Watches Gadgets and ConfigMaps, and gives the Gadget `mine` a ConfigMap of its size whenever one of them changes.

It does not call itself curl, for which the server would write JSON on many lines.
"""


def test_reconcile(cluster: Cluster, namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A controller in a pod MUST be able to make what a custom object asks for, and to make it anew when it changes.

    It is told by watches, with its service account's token, of changes of the object and of what it made for it.

    Source: https://kubernetes.io/docs/concepts/extend-kubernetes/operator/
    """
    kind = _define(cluster, namespace, timeouts)
    gadget = namespace.create(manifests.custom_object(kind, "mine", spec={"size": 1}))
    _run_controller(namespace, kind, images)
    made = namespace.object(kinds.CONFIG_MAP, "mine")
    eventually(made, _has_size(1), within=timeouts.pod)

    gadget.patch({"spec": {"size": 2}})
    eventually(made, _has_size(2), within=timeouts.object)
    first = made.uid
    made.delete()
    eventually(made, _has_size(2, instead_of=first), within=timeouts.object)
    made.patch({"data": {"size": "9"}})
    eventually(made, _has_size(2), within=timeouts.object)

    assert gadget.read().status == {"size": 2}, f"the controller was to report size 2, but {gadget} has {gadget.status}"


def _define(cluster: Cluster, namespace: Namespace, timeouts: Timeouts) -> Kind:
    """Define Gadgets, in a group of the namespace's own."""
    group = f"{namespace}.clusterproof.dev"
    definition = cluster.create(manifests.crd(group, "Gadget", "gadgets", more={"subresources": {"status": {}}}))
    eventually(definition, conditions.has_condition("Established"), within=timeouts.definition)
    kind = kinds.custom(group, "v1", "Gadget", "gadgets")
    eventually(
        lambda: cluster.client.request("GET", kind.path()).status,
        conditions.equals(200),
        within=timeouts.definition,
        describe=f"{kind.path()} is served",
    )
    return kind


def _run_controller(namespace: Namespace, kind: Kind, images: Images) -> None:
    """Start the controller, with just the rights that it needs."""
    account = namespace.create(manifests.service_account("controller"))
    watched = ["get", "list", "watch"]
    rules = [
        manifests.rbac_rule(watched, ["gadgets"], groups=[kind.group]),
        manifests.rbac_rule(["patch"], ["gadgets/status"], groups=[kind.group]),
        manifests.rbac_rule([*watched, "create", "patch"], ["configmaps"]),
    ]
    grant(namespace, rules, [manifests.subject("ServiceAccount", account.name, namespace.name)])
    command = ["bash", "-c", _CONTROLLER, "controller", kind.api_version, namespace.name]
    made = manifests.deployment("controller", images.agnhost, command=command, service_account=account.name)
    namespace.create(made)


def _has_size(size: int, instead_of: str = "") -> conditions.Condition:
    def has_the_size_that_was_asked_for(made: Object) -> str | None:
        """Its data says so, and it is not the one that was deleted."""
        if made.uid == instead_of:
            return "it is still the one that was deleted"
        seen = (made.raw.get("data") or {}).get("size")
        return None if seen == str(size) else f"it has size {seen}, not {size}"

    return has_the_size_that_was_asked_for
