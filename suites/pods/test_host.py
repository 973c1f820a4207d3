"""The pod and its host: names, name servers, and the node's own network."""

from __future__ import annotations

import functools
import json
import re
import secrets
from typing import Any

import pytest

from clusterproof import (
    Cluster,
    Images,
    Namespace,
    Object,
    Timeouts,
    capabilities,
    eventually,
    inside,
    kinds,
    manifests,
)
from clusterproof.conditions import gone, ready
from clusterproof.running.proving import Unsupported

OUTSIDE = "kubernetes.io."
"""A host outside of the cluster that every name server of the internet knows."""
NOT_ANSWERED = {"SERVFAIL", "REFUSED", "no answer"}
"""What a look-up gives that did not succeed, and does not say either that there is no such name."""
LONGEST_HOST_NAME = 64
"""Characters that a kernel takes."""
NAMED: dict[str, Any] = {
    "hostname": "me",
    "subdomain": "us",
    "setHostnameAsFQDN": False,
    "hostAliases": [{"ip": "192.0.2.7", "hostnames": ["printer", "printer.example"]}],
    "dnsPolicy": "None",
    "dnsConfig": {
        "nameservers": ["192.0.2.53"],
        "searches": ["example", "sub.example"],
        "options": [{"name": "ndots", "value": "2"}],
    },
}
"""What a pod says that it is called, and which names and name servers it wants to know."""


def test_names(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A pod MUST have the host name, further names of hosts, and name servers that it is given.

    Its host name is its full name where it asks for that.

    Source: https://kubernetes.io/docs/concepts/services-networking/dns-pod-service/#pod-s-dns-policy
    """
    pod = namespace.create(manifests.pod("named", images.agnhost, args=["pause"], spec=NAMED))
    eventually(pod, ready, within=timeouts.pod)

    name = inside.said(pod, "hostname").strip()
    assert name == "me", f"{pod}: its host name is {name}, not me"
    hosts = [line.split() for line in inside.said(pod, "cat /etc/hosts").splitlines()]
    (own,) = (line for line in hosts if line[:1] == [pod.status["podIP"]])
    assert own[1].startswith(f"me.us.{namespace}.svc."), f"{pod}: its full name is {own[1]}, not me.us.{namespace}.svc."
    assert ["192.0.2.7", "printer", "printer.example"] in hosts, f"{pod}: its host aliases are not in {hosts}"
    resolver = [line.split() for line in inside.said(pod, "cat /etc/resolv.conf").splitlines() if line.strip()]
    wanted = [["nameserver", "192.0.2.53"], ["options", "ndots:2"], ["search", "example", "sub.example"]]
    assert sorted(resolver) == wanted, f"{pod}: its resolv.conf says {resolver}, not {wanted}"

    # No kernel takes a longer name, and a pod that is to have one would wait for ever.
    wanted_name = own[1] if len(own[1]) <= LONGEST_HOST_NAME else "me"
    spec = {"hostname": "me", "subdomain": "us", "setHostnameAsFQDN": wanted_name != "me", "dnsPolicy": "Default"}
    as_node = namespace.create(manifests.pod("as-node", images.agnhost, args=["pause"], spec=spec))
    eventually(as_node, ready, within=timeouts.pod)
    name = inside.said(as_node, "hostname").strip()
    assert name == wanted_name, f"{as_node}: its host name is {name}, not {wanted_name}"
    of_node = inside.said(as_node, "cat /etc/resolv.conf")
    assert f"{namespace}.svc." not in of_node, f"{as_node}: it has the cluster's names, not its node's: {of_node}"
    # Where a kubelet is told of no file, it writes that.
    lost = re.search(r"^nameserver (127\.|::1$)", of_node, re.MULTILINE)
    assert not lost, f"{as_node}: its name server is the pod itself, not its node's: {of_node}"


@pytest.mark.requires(capabilities.HOSTNAME_OVERRIDE)
def test_hostname_override(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A pod MUST have its hostnameOverride as its host name, whatever else it is called.

    Source: https://github.com/kubernetes/enhancements/tree/master/keps/sig-network/4762-allow-arbitrary-fqdn-as-pod-hostname
    """
    wanted = "printer.example"
    spec = {"hostname": "me", "subdomain": "us", "hostnameOverride": wanted}
    pod = namespace.create(manifests.pod("named", images.agnhost, args=["pause"], spec=spec))
    eventually(pod, ready, within=timeouts.pod)

    name = inside.said(pod, "hostname").strip()
    assert name == wanted, f"{pod}: its host name is {name}, not {wanted}"
    hosts = [line.split() for line in inside.said(pod, "cat /etc/hosts").splitlines()]
    assert [pod.status["podIP"], wanted] in hosts, f"{pod}: its own address is not {wanted} in /etc/hosts: {hosts}"


def test_outside_names(namespace: Namespace, nodes: list[Object], images: Images, timeouts: Timeouts) -> None:
    """A pod with the cluster's names MUST be answered about others, too, where its node's name server knows them.

    That there is no such name is an answer: it may be meant so for pods.

    Source: https://kubernetes.io/docs/concepts/services-networking/dns-pod-service/#pod-s-dns-policy
    """
    here: dict[str, Any] = {"args": ["pause"], "node": nodes[0].name}
    as_node = namespace.create(manifests.pod("as-node", images.agnhost, **here, spec={"dnsPolicy": "Default"}))
    eventually(as_node, ready, within=timeouts.pod)
    if not (known := _addresses_outside(as_node)):
        raise Unsupported(f"the name server of {nodes[0]} knows no address of {OUTSIDE}, as without the internet")
    pod = namespace.create(manifests.pod("pod", images.agnhost, **here))
    eventually(pod, ready, within=timeouts.pod)

    def what_is_said() -> set[str]:
        records = inside.look_up(pod, [f"{OUTSIDE} A"], times=8)[f"{OUTSIDE} A"].records
        # What nobody can look up any more is nobody's fault.
        return records if _addresses_outside(as_node) else records - NOT_ANSWERED

    what = f"to {pod} about {OUTSIDE}, which {as_node} on the same node finds at {', '.join(sorted(known))}"
    eventually(what_is_said, _is_answered, within=timeouts.propagation, describe=what)


@pytest.mark.pod_security("privileged")
def test_host_network(
    namespace: Namespace, cluster: Cluster, nodes: list[Object], images: Images, timeouts: Timeouts
) -> None:
    """A pod on its node's network MUST have the node's address and, if it asks for it, the cluster's names.

    Source: https://kubernetes.io/docs/concepts/workloads/pods/advanced-pod-config/
    """
    spec = {"hostNetwork": True, "dnsPolicy": "ClusterFirstWithHostNet"}
    node = nodes[0]
    pods = [
        namespace.create(manifests.pod(name, images.agnhost, args=["pause"], node=node.name, spec=more))
        for name, more in (("on-node", spec), ("beside", None))
    ]
    on_node, beside = (eventually(pod, ready, within=timeouts.pod) for pod in pods)

    addresses = {each["address"] for each in node.status["addresses"]}
    shown = on_node.status["podIP"]
    assert shown == on_node.status["hostIP"], f"{on_node}: its address is {shown}, and its node's is {on_node.status}"
    assert shown in addresses, f"{on_node}: its address {shown} is none of {node}'s {sorted(addresses)}"
    assert beside.status["podIP"] not in addresses, f"{beside} has the address of its node"
    assert f" {shown}/" in inside.said(on_node, "ip -o address"), f"{on_node} does not have its node's address {shown}"
    assert f" {shown}/" not in inside.said(beside, "ip -o address"), f"{beside} has its node's address {shown}"
    kubernetes = cluster.get(kinds.SERVICE, "kubernetes", "default").spec["clusterIP"]
    question = "+search kubernetes.default A" if ":" not in kubernetes else "+search kubernetes.default AAAA"
    eventually(
        lambda: inside.look_up(on_node, [question])[question].records,
        _holds(kubernetes),
        within=timeouts.propagation,
        describe=f"the address of kubernetes.default as {on_node} looks it up",
    )


@pytest.mark.pod_security("privileged")
def test_host_port(namespace: Namespace, nodes: list[Object], images: Images, timeouts: Timeouts) -> None:
    """A port of a pod that is mapped to its node MUST be reached at the node's address, and is one pod's at a time.

    Two nodes have such a port each, where there are two.

    Source: https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/#ports
    """
    port = 20000 + 2 * secrets.randbelow(4000)
    places = {"server": (nodes[0].name, port), "other": (nodes[-1].name, port + 1)}
    server, other = (
        namespace.create(manifests.pod(name, images.agnhost, args=["netexec"], node=node, container=_mapped(number)))
        for name, (node, number) in places.items()
    )
    for pod in (server, other):
        eventually(pod, ready, within=timeouts.pod)
    second = namespace.create(
        manifests.pod("second", images.agnhost, node=nodes[0].name, container=_mapped(port), **manifests.HELD)
    )

    for client, pod in ((other, server), (server, other)):
        url = f"http://{inside.in_url(pod.status['hostIP'])}:{places[pod.name][1]}/hostname"
        eventually(
            functools.partial(_answers, client, url),
            _holds(pod.name),
            within=timeouts.propagation,
            describe=f"{client} on {client.spec['nodeName']} asks {url} of {pod} on {pod.spec['nodeName']}",
        )
    eventually(second, _waits_for_ports, within=timeouts.object)


@pytest.mark.disruptive
@pytest.mark.pod_security("privileged")
def test_static(namespace: Namespace, nodes: list[Object], images: Images, timeouts: Timeouts) -> None:
    """A pod whose manifest lies in its node's folder MUST run there, be seen in the API, and not end by that way.

    It changes a file on the node, in the folder that the kubelet's configuration names, and takes it away again.

    Source: https://kubernetes.io/docs/tasks/configure-pod-container/static-pod/
    """
    node = nodes[0]
    folder = node.client.get(f"{node.path}/proxy/configz")["kubeletconfig"].get("staticPodPath", "")
    if not folder:
        raise Unsupported(f"the kubelet of {node} has no staticPodPath")
    volume = {"name": "folder", "hostPath": {"path": folder, "type": "DirectoryOrCreate"}}
    writer = namespace.create(
        manifests.pod(
            "writer",
            images.agnhost,
            args=["pause"],
            node=node.name,
            privileged=True,
            volumes=[volume],
            mounts={"folder": "/static"},
        )
    )
    eventually(writer, ready, within=timeouts.pod)
    manifest: dict[str, Any] = manifests.pod("static", images.agnhost, args=["pause"])
    manifest["metadata"]["namespace"] = namespace.name
    file = f"/static/{namespace}.json"
    mirror = namespace.object(kinds.POD, f"static-{node.name}")
    try:
        _written(writer, file, manifest)
        first = eventually(mirror, ready, within=timeouts.pod).uid
        assert mirror.spec["nodeName"] == node.name
        mirror.delete()
        eventually(mirror, _other_than(first), within=timeouts.rollout)
        state = mirror.status["containerStatuses"][0]
        assert state["restartCount"] == 0, f"{mirror} was restarted when it was deleted in the API"
    finally:
        inside.said(writer, f"rm -f {file}")
    eventually(mirror, gone, within=timeouts.pod_end)


def _mapped(port: int) -> dict[str, Any]:
    """Of a container that serves at this port of its node."""
    return {"ports": [{"containerPort": 8080, "hostPort": port}]}


def _answers(client: Object, url: str) -> set[str]:
    return inside.fetch(client, [url])[url]


def _addresses_outside(pod: Object) -> set[str]:
    """The addresses that a pod finds of a host outside of the cluster."""
    records = inside.look_up(pod, [question := f"{OUTSIDE} A"])[question].records
    return {record.removeprefix("A ") for record in records if record.startswith("A ")}


def _is_answered(records: set[str]) -> str | None:
    """Nobody failed to answer, whatever the answer is."""
    return f"it is {', '.join(sorted(failed))}" if (failed := records & NOT_ANSWERED) else None


def _holds(wanted: str) -> Any:
    def holds(found: set[str]) -> str | None:
        return None if any(wanted in each for each in found) else f"the answers are {sorted(found)}, not {wanted}"

    return holds


def _waits_for_ports(pod: Object) -> str | None:
    assert "nodeName" not in pod.spec, f"{pod} got a node on which its port is taken"
    told = pod.condition("PodScheduled").get("message", "")
    return None if "free ports" in told else f"it waits because {told or 'nobody says why'}"


def _written(pod: Object, file: str, manifest: dict[str, Any]) -> None:
    # Moved to its name, so that the kubelet never sees half of it: it passes over names that begin with a dot.
    folder, _, name = file.rpartition("/")
    script = f"cat > {folder}/.{name} && mv {folder}/.{name} {file}"
    result = pod.exec(["sh", "-c", script], stdin=json.dumps(manifest))
    assert result.code == 0, f"{pod}: {file} was not written: {result.stderr}"


def _other_than(uid: str) -> Any:
    def other_than(pod: Object) -> str | None:
        return "it was not made anew" if pod.uid == uid else ready(pod)

    other_than.__name__ = "is there again after its deletion"
    return other_than
