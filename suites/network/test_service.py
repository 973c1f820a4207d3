"""Service: one stable address and name for pods that come and go."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Callable, Iterable
from time import monotonic
from typing import Any

import pytest

from clusterproof import Images, Namespace, Object, Timeouts, capabilities, eventually, inside, kinds, measure
from clusterproof.conditions import ListCondition, equals, ready, running
from clusterproof.manifests import endpoint_slice, http_probe, pod, service

ZONE = "topology.kubernetes.io/zone"
TRIES = 24
"""Requests to one port in one reading; whom they miss by chance of three pods, the next reading finds."""
MANY = 300
"""Requests, or look-ups, of which none may fail; so many that they meet a loss of 1 in 100 nearly always."""
BACKENDS = range(9000, 9016)
"""Ports of one pod, each an endpoint: so many that the same one is hardly chosen twice by chance."""


@pytest.mark.smoke
def test_cluster_ip(namespace: Namespace, nodes: list[Object], images: Images, timeouts: Timeouts) -> None:
    """A Service MUST spread requests from every node over all its ready pods, port by port and protocol by protocol.

    Of hundreds of requests none fails. Pods that ask their own Service are sent to themselves as well; others see the
    address of the pod that asks. One port is known by a name that stands for another number in each pod, and a UDP port
    has the same number as a TCP port.

    Source: https://kubernetes.io/docs/concepts/services-networking/service/#defining-a-service
    """
    ports = [_port("by-name", 80, "http"), _port("by-number", 81, 9000), _port("datagrams", 80, "udp", "UDP")]
    web = namespace.create(service("web", selector={"backend": "yes"}, spec={"ports": ports}))
    places = list(enumerate((nodes * 2)[: max(2, len(nodes))]))
    servers = [_server(namespace, images, f"web-{number}", node, number) for number, node in places]
    # Each leads to one pod, so that somebody who asks is sure to be another one.
    single = [namespace.create(service(f"only-{n}", target=9000, selector={"port": f"{8080 + n}"})) for n in range(2)]
    _await(servers, timeouts)

    backends = [server for server in servers if server.labels["backend"] == "yes"]
    names = {server.name for server in backends}
    for client in servers:
        expected = {
            _tcp(web, 80, "serverport"): {server.labels["port"] for server in backends},
            _tcp(web, 81, "hostname"): names,
            _tcp(web, 81, "serverport"): {"9000"},
            _udp(web, 80, "hostname"): names,
        }
        _served(client, expected, timeouts)
        _served_without_fail(client, _tcp(web, 81, "hostname"), names, timeouts)
        _seen_as_itself(client, single[client is servers[0]], timeouts)


@pytest.mark.smoke
def test_endpoint_removal(namespace: Namespace, nodes: list[Object], images: Images, timeouts: Timeouts) -> None:
    """A Service MUST stop sending requests to a pod that was deleted or is no longer selected, on every node.

    The pod that is no longer selected goes on serving, so that every request that still reaches it is seen.

    Source: https://kubernetes.io/docs/concepts/services-networking/service/#services-in-kubernetes
    """
    ports = [_port("requests", 80, 9000), _port("datagrams", 80, "udp", "UDP")]
    web = namespace.create(service("web", selector={"backend": "yes"}, spec={"ports": ports}))
    urls = [_tcp(web, 80, "hostname"), _udp(web, 80, "hostname")]
    stays = _server(namespace, images, "stays", nodes[0])
    leaves = _server(namespace, images, "leaves", nodes[-1])
    dies = _server(namespace, images, "dies", nodes[-1])
    visitors = [_server(namespace, images, f"visitor-{n}", node, n, backend="no") for n, node in enumerate(nodes[1:-1])]
    clients = [stays, leaves, *visitors]
    _await([*clients, dies], timeouts)
    for client in clients:
        _served(client, {url: {"stays", "leaves", "dies"} for url in urls}, timeouts)

    started = monotonic()
    dies.delete()
    leaves.patch({"metadata": {"labels": {"backend": "no"}}})

    for client in clients:
        _served(client, {url: {"stays"} for url in urls}, timeouts)
    measure("time until no request goes to a removed pod (s)", monotonic() - started)


def test_udp_client(namespace: Namespace, nodes: list[Object], images: Images, timeouts: Timeouts) -> None:
    """A UDP client that keeps its port MUST be answered by another pod when its own is not the Service's any more.

    Its node remembers who has answered it. That pod goes on serving, so that every datagram that still reaches it is
    seen.

    Source: https://kubernetes.io/docs/reference/networking/virtual-ips/
    """
    ports = [_port("datagrams", 80, "udp", "UDP")]
    web = namespace.create(service("web", selector={"port": "8080"}, spec={"ports": ports}))
    servers = [_server(namespace, images, f"web-{n}", nodes[-n], n) for n in range(2)]
    client = namespace.create(pod("client", images.agnhost, args=["pause"], node=nodes[-1].name))
    _await([*servers, client], timeouts)
    ask = functools.partial(inside.ask_by_datagram, client, web.spec["clusterIP"], 80, "hostname", own_port=5353)
    what = f"{client.name} on {nodes[-1].name}, which keeps its port, is answered by {web}"
    eventually(ask, equals("web-0"), within=timeouts.propagation, describe=what)

    web.patch({"spec": {"selector": {"port": "8081"}}})

    eventually(ask, equals("web-1"), within=timeouts.propagation, describe=what)


@pytest.mark.smoke
def test_discovery(namespace: Namespace, nodes: list[Object], images: Images, timeouts: Timeouts) -> None:
    """Every pod MUST find Services by DNS as they are now, and find nothing where there is nothing.

    From every node: addresses, also by the short names of the search path and over TCP; ports by SRV records; the name
    of an address; all pods of a headless Service, and each of them by its host name; an ExternalName. A change is seen
    as soon as the answer before it may no longer be remembered. Of hundreds of look-ups none fails.

    Source: https://github.com/kubernetes/dns/blob/master/docs/specification.md
    """
    places = list(enumerate((nodes * 2)[: max(2, len(nodes))]))
    peers = [namespace.create(_peer(f"peer-{number}", images, node)) for number, node in places]
    ports = [_port("main", 80), _port("talk", 53, protocol="UDP")]
    web = namespace.create(service("web", spec={"ports": ports}))
    namespace.create(service("peers", port=8080, headless=True, selector={"peer": "yes"}))
    _await(peers, timeouts)
    here = _domain(peers[0])
    namespace.create(service("elsewhere", spec={"type": "ExternalName", "externalName": f"web.{here}"}))
    for client in peers:
        # That a name was not there yet may be remembered, too.
        _found(client, _names(here, web, peers), inside.LONGEST_TTL + timeouts.propagation)
        ttl = _found(client, _changing(here, [web], peers), inside.LONGEST_TTL + timeouts.propagation, times=16)
        _looked_up_without_fail(client, f"web.{here}", inside.record(web.spec["clusterIP"]))

    web.delete()
    services = [namespace.create(service(name)) for name in ("web", "late")]
    peers[-1].patch({"metadata": {"labels": {"peer": "no"}}})

    started = monotonic()
    for client in peers:
        _found(
            client, _changing(here, services, peers[:-1]), min(ttl, inside.LONGEST_TTL) + timeouts.propagation, times=16
        )
    measure("time until changed names are seen (s)", monotonic() - started)


def test_manual(namespace: Namespace, nodes: list[Object], images: Images, timeouts: Timeouts) -> None:
    """A Service without selector MUST send requests to the addresses that its EndpointSlice names, and to no others.

    Source: https://kubernetes.io/docs/concepts/services-networking/service/#services-without-selectors
    """
    first, second = (_server(namespace, images, name, node) for name, node in (("one", nodes[0]), ("two", nodes[-1])))
    outside = namespace.create(service("outside", selector={}, spec={"ports": [_port("main", 80)]}))
    _await([first, second], timeouts)
    slice_ = namespace.create(
        endpoint_slice("by-hand", service="outside", addresses=[first.status["podIP"]], port=9000)
    )
    for client in (first, second):
        _served(client, {_tcp(outside, 80, "hostname"): {"one"}}, timeouts)

    slice_.patch({"endpoints": [{"addresses": [second.status["podIP"]]}]})

    for client in (first, second):
        _served(client, {_tcp(outside, 80, "hostname"): {"two"}}, timeouts)


def test_not_ready(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A Service MUST NOT send requests to a pod that is not ready, nor name it, unless it publishes such pods.

    Source: https://kubernetes.io/docs/reference/kubernetes-api/service-resources/service-v1/#ServiceSpec
    """
    never = {**http_probe(9000), "httpGet": {"port": 1, "path": "/"}}
    lonely = namespace.create(pod("lonely", images.agnhost, args=["netexec"], readiness=never))
    alone: dict[str, Any] = {"selector": {"app": "lonely"}}
    published = {**alone, "spec": {"publishNotReadyAddresses": True}}
    quiet, hidden = (
        namespace.create(service(name, headless=name == "hidden", **alone)) for name in ("quiet", "hidden")
    )
    loud, _ = (namespace.create(service(name, headless=name == "shown", **published)) for name in ("loud", "shown"))
    eventually(lonely, running, within=timeouts.pod)

    _served(lonely, {_tcp(loud, 80, "hostname"): {"lonely"}}, timeouts)
    answers = inside.fetch(lonely, [url := _tcp(quiet, 80, "hostname")])[url]

    assert all(answer.startswith("curl: ") for answer in answers), (
        f"{quiet}: a pod that is not ready answered {answers}"
    )

    record = inside.record(lonely.status["podIP"])
    kind, here = record.partition(" ")[0], _domain(lonely)
    # When the one that was created later names the pod, so could the other one.
    _found(lonely, {f"shown.{here} {kind}": {record}}, inside.LONGEST_TTL + timeouts.propagation, times=16)
    named = inside.look_up(lonely, [name := f"hidden.{here} {kind}"], times=16)[name].records
    assert record not in named, f"{hidden} has the address of a pod that is not ready: {name} gives {sorted(named)}"


def test_session_affinity(namespace: Namespace, nodes: list[Object], images: Images, timeouts: Timeouts) -> None:
    """A Service with session affinity MUST send all requests of one client to the same pod.

    Source: https://kubernetes.io/docs/reference/networking/virtual-ips/#session-affinity
    """
    names = {"one": nodes[0], "two": nodes[-1]}
    servers = [_server(namespace, images, name, node) for name, node in names.items()]
    ports = {"ports": [_port("requests", 80, 9000)]}
    sticky = namespace.create(
        service("sticky", selector={"backend": "yes"}, spec={**ports, "sessionAffinity": "ClientIP"})
    )
    plain = namespace.create(service("plain", selector={"backend": "yes"}, spec=ports))
    _await(servers, timeouts)

    for client in servers:
        # When the one that was created later sends requests to both pods, so could the other one.
        _served(client, {_tcp(plain, 80, "hostname"): set(names)}, timeouts)
        url = _tcp(sticky, 80, "hostname")
        answers = functools.partial(inside.fetch, client, [url], tries=2 * TRIES)
        what = f"{sticky}: requests of {client.name} go to one pod"
        eventually(answers, _come_from_one_of(set(names)), within=timeouts.propagation, describe=what)


def test_internal_traffic_policy(namespace: Namespace, nodes: list[Object], images: Images, timeouts: Timeouts) -> None:
    """A Service with internalTrafficPolicy Local MUST send requests to pods of the client's own node only.

    Source: https://kubernetes.io/docs/concepts/services-networking/service-traffic-policy/
    """
    names = {"one": nodes[0], "two": nodes[-1]}
    servers = [_server(namespace, images, name, node) for name, node in names.items()]
    policy = {"ports": [_port("requests", 80, 9000)], "internalTrafficPolicy": "Local"}
    near = namespace.create(service("near", selector={"backend": "yes"}, spec=policy))
    _await(servers, timeouts)

    for client in servers:
        own = {server.name for server in servers if server.spec["nodeName"] == client.spec["nodeName"]}
        _served(client, {_tcp(near, 80, "hostname"): own}, timeouts)

    one, two = servers
    if one.spec["nodeName"] != two.spec["nodeName"]:
        one.patch({"metadata": {"labels": {"backend": "no"}}})
        answers = functools.partial(inside.fetch, one, [_tcp(near, 80, "hostname")])
        nobody = f"{near} has no pod for {one} on its node"
        eventually(answers, _no_answer, within=timeouts.propagation, describe=nobody)


@pytest.mark.requires(capabilities.TRAFFIC_DISTRIBUTION)
def test_traffic_distribution(namespace: Namespace, nodes: list[Object], images: Images, timeouts: Timeouts) -> None:
    """The EndpointSlices of a Service that prefers the client's node or zone MUST hint at that of each ready pod.

    No requests are sent: whoever carries the Service out may still choose another node, where the near pods are busy.

    Source: https://kubernetes.io/docs/concepts/services-networking/service/#traffic-distribution
    """
    names = {"one": nodes[0].name, "two": nodes[-1].name}
    pods = [
        namespace.create(pod(name, images.agnhost, args=["pause"], node=node, labels={"backend": "yes"}))
        for name, node in names.items()
    ]
    zones = {node.name: node.labels.get(ZONE, "") for node in nodes}
    itself = {name: name for name in zones}
    ways = [("PreferSameNode", "forNodes", itself), ("PreferSameZone", "forZones", zones)]
    _await(pods, timeouts)

    # Only where every node is in a zone, pods have one to prefer.
    for wish, hints, places in ways if all(zones.values()) else ways[:1]:
        near = {"trafficDistribution": wish}
        web = namespace.create(service(wish.lower(), selector={"backend": "yes"}, spec=near))
        wanted = {each.name: [places[each.spec["nodeName"]]] for each in pods}
        slices = namespace.select(kinds.ENDPOINT_SLICE, labels=f"kubernetes.io/service-name={web.name}")
        eventually(slices, _hint_at(hints, wanted), within=timeouts.object)


def test_session_timeout(namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """A Service with session affinity MUST forget a client who is silent for longer than its timeout, and no sooner.

    A timeout of one second is over soon. One of three hours, which is the default, is not over after some seconds.

    Source: https://kubernetes.io/docs/reference/networking/virtual-ips/#session-stickiness-timeout
    """
    sticky, second = {"sessionAffinity": "ClientIP"}, {"sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 1}}}
    brief = namespace.create(service("brief", selector={}, spec={**sticky, **second}))
    lasting = namespace.create(service("lasting", selector={}, spec=sticky))
    env = {f"SERVE_PORT_{port}": f"backend-{port}" for port in BACKENDS}
    backends = pod("backends", images.agnhost, args=["porter"], env=env, readiness=http_probe(BACKENDS[-1]))
    client = eventually(namespace.create(backends), ready, within=timeouts.pod)
    here = [client.status["podIP"]]
    for name, port in itertools.product(("brief", "lasting"), BACKENDS):
        namespace.create(endpoint_slice(f"{name}-{port}", service=name, addresses=here, port=port))
    urls = [_tcp(web, 80, "") for web in (brief, lasting)]
    answers = functools.partial(inside.fetch, client, urls, tries=TRIES)
    eventually(answers, _only_answers, within=timeouts.propagation, describe=f"{brief} and {lasting}")

    # In IPVS mode a client is remembered until its closed connections are forgotten, which takes two minutes.
    first, *others = _chosen(client, urls[0], [2.0] * 5 + [1.1 * timeouts.rollout] * 2)
    assert set(others) - {first}, f"{brief} should forget its client after 1 s of silence, but chose always {first}"
    met = _chosen(client, urls[1], [3.0] * 2)
    assert len(set(met)) == 1, f"{lasting} should know its client after 3 s of silence, but chose {', '.join(met)}"


@pytest.mark.pod_security("privileged")
def test_node_port(namespace: Namespace, nodes: list[Object], images: Images, timeouts: Timeouts) -> None:
    """A NodePort Service MUST answer on its ports of every node, by TCP and UDP, also where none of its pods runs.

    Source: https://kubernetes.io/docs/concepts/services-networking/service/#type-nodeport
    """
    ports = [_port("requests", 80, 9000), _port("datagrams", 80, "udp", "UDP")]
    made = service("web", type="NodePort", selector={"backend": "yes"}, spec={"ports": ports})
    web = namespace.create(made)
    server = _server(namespace, images, "server", nodes[0])
    outsider = namespace.create(_on_network_of(nodes[-1], images))
    _await([server, outsider], timeouts)

    requests, datagrams = (port["nodePort"] for port in web.spec["ports"])
    addresses = [inside.node_address(node, web) for node in nodes]
    tcp = {f"http://{inside.in_url(address)}:{requests}/hostname": {"server"} for address in addresses}
    _served(outsider, tcp, timeouts)
    udp = {inside.datagram(address, datagrams, "hostname"): {"server"} for address in addresses}
    _served(server, tcp | udp, timeouts)


@pytest.mark.requires(capabilities.SEVERAL_NODES)
@pytest.mark.pod_security("privileged")
def test_external_traffic_policy(namespace: Namespace, nodes: list[Object], images: Images, timeouts: Timeouts) -> None:
    """With externalTrafficPolicy Local a node MUST send requests to its own pods only, which see who asks.

    A node without such a pod does not answer.

    Source: https://kubernetes.io/docs/reference/networking/virtual-ips/#external-traffic-policy
    """
    policy = {"ports": [_port("requests", 80, 9000)], "externalTrafficPolicy": "Local"}
    web = namespace.create(service("web", type="NodePort", selector={"backend": "yes"}, spec=policy))
    near, far = (_server(namespace, images, name, node) for name, node in (("near", nodes[0]), ("far", nodes[-1])))
    outsider = namespace.create(_on_network_of(nodes[-1], images))
    _await([near, far, outsider], timeouts)

    url = f"http://{inside.in_url(inside.node_address(nodes[0], web))}:{web.spec['ports'][0]['nodePort']}"
    _served(outsider, {f"{url}/hostname": {"near"}}, timeouts)
    seen = outsider.exec(["curl", "--silent", "--max-time", "5", "--write-out", " %{local_ip}", f"{url}/clientip"])
    source, own = seen.stdout.rsplit(" ", 1)
    assert source.startswith(f"{inside.in_url(own)}:"), f"{near}: a client with the address {own} is seen as {source}"

    near.delete()
    answers = functools.partial(_fetch, outsider, {f"{url}/hostname": set()}, {f"{url}/hostname": set()})
    what = f"{nodes[0]}, which has no pod of {web} any more, does not answer"
    eventually(answers, _no_answer, within=timeouts.pod_end + timeouts.propagation, describe=what)


def _server(
    namespace: Namespace, images: Images, name: str, node: Object, number: int = 0, *, backend: str = ""
) -> Object:
    """A pod that serves TCP 9000, and under the names `http` and `udp` ports of its own number."""
    http, udp = 8080 + number, 8180 + number
    script = (
        f"/agnhost netexec --http-port=9000 --udp-port=-1 & exec /agnhost netexec --http-port={http} --udp-port={udp}"
    )
    named = [{"name": "http", "containerPort": http}, {"name": "udp", "containerPort": udp, "protocol": "UDP"}]
    # Three pods behind a Service are enough to prove; those on further nodes only ask.
    labels = {"backend": backend or ("yes" if number < 3 else "no"), "port": str(http)}
    options: dict[str, Any] = {"command": ["sh", "-c", script], "container": {"ports": named}}
    readiness = http_probe(http, "/healthz")
    return namespace.create(pod(name, images.agnhost, node=node.name, labels=labels, readiness=readiness, **options))


def _peer(name: str, images: Images, node: Object) -> dict[str, Any]:
    """A pod with a host name of its own in the headless Service `peers`."""
    spec = {"hostname": name, "subdomain": "peers"}
    return pod(name, images.agnhost, args=["pause"], node=node.name, labels={"peer": "yes"}, spec=spec)


def _on_network_of(node: Object, images: Images) -> dict[str, Any]:
    """A pod that asks with the address of its node, as somebody outside of the pod network does."""
    return pod("outsider", images.agnhost, args=["pause"], node=node.name, spec={"hostNetwork": True})


def _port(name: str, number: int, target: int | str = 8080, protocol: str = "TCP") -> dict[str, Any]:
    return {"name": name, "port": number, "targetPort": target, "protocol": protocol}


def _await(pods: Iterable[Object], timeouts: Timeouts) -> None:
    for each in pods:
        eventually(each, ready, within=timeouts.pod)


def _tcp(to: Object, port: int, request: str) -> str:
    return f"http://{inside.in_url(to.spec['clusterIP'])}:{port}/{request}"


def _udp(to: Object, port: int, request: str) -> str:
    return inside.datagram(to.spec["clusterIP"], port, request)


_CHOSEN = r"""
url=$1; shift
ask() { curl --silent --max-time 5 --header 'Connection: close' "$url"; }
first=$(ask); echo "$first"
for silence; do sleep "$silence"; next=$(ask); echo "$next"; [ "$next" = "$first" ] || break; done
"""
"""Asks a Service after each of some silences (s), until another pod answers than at first."""

Answers = dict[str, set[str]]
"""By URL, or by question to DNS."""


def _served(client: Object, expected: Answers, timeouts: Timeouts) -> None:
    """Wait until a pod gets these answers from these URLs: each of them at some time, and no other in one reading."""
    met: Answers = {url: set() for url in expected}
    read = functools.partial(_fetch, client, expected, met)
    what = f"{client.name} on {client.spec.get('nodeName')} is answered"
    eventually(read, functools.partial(_differences, expected, client.name), within=timeouts.propagation, describe=what)


def _fetch(client: Object, expected: Answers, met: Answers) -> Answers:
    """The answers that a pod gets now, and in `met` the expected ones that it got before."""
    answers = inside.fetch(client, expected, tries=TRIES)
    for url, wanted in expected.items():
        met[url] |= answers[url] & wanted
    return {url: answers[url] | met[url] for url in expected}


def _seen_as_itself(client: Object, to: Object, timeouts: Timeouts) -> None:
    """Wait until the only pod of a Service sees a pod's own address when that one asks."""
    own = tuple(f"{inside.in_url(each['ip'])}:" for each in client.status["podIPs"])
    ask = functools.partial(inside.fetch, client, [url := _tcp(to, 80, "clientip")])

    def seen_as_itself(answers: Answers) -> str | None:
        seen = sorted(answers[url])
        return None if len(seen) == 1 and seen[0].startswith(own) else f"it is seen as {', '.join(seen) or 'nobody'}"

    what = f"{client.name} on {client.spec.get('nodeName')} is seen as {client.status['podIP']} by the pod of {to}"
    eventually(ask, seen_as_itself, within=timeouts.propagation, describe=what)


def _hint_at(hints: str, wanted: dict[str, list[str]]) -> ListCondition:
    """EndpointSlices offer these pods, each to clients at these places by their hints `forNodes` or `forZones`."""

    def hint_at(slices: list[Object]) -> str | None:
        offered = [endpoint for piece in slices for endpoint in piece.raw.get("endpoints") or []]
        seen = {
            each["targetRef"]["name"]: [place["name"] for place in (each.get("hints") or {}).get(hints) or []]
            for each in offered
        }
        return None if seen == wanted else f"they hint at {seen or 'nothing'}"

    hint_at.__name__ = f"hint at {wanted} ({hints})"
    return hint_at


def _served_without_fail(client: Object, url: str, wanted: set[str], timeouts: Timeouts) -> None:
    """Many requests of a pod get no other answers than these."""
    ask = functools.partial(inside.fetch, client, [url], tries=MANY, patience=timeouts.request)
    _without_fail(lambda: ask()[url], wanted, f"{client.name} on {client.spec.get('nodeName')}: {MANY} requests {url}")


def _looked_up_without_fail(client: Object, name: str, record: str) -> None:
    """Many look-ups of a name get no other answer than this."""
    question = f"{name} {record.partition(' ')[0]}"
    ask = functools.partial(inside.look_up, client, [question], times=MANY)
    what = f"{client.name} on {client.spec.get('nodeName')}: {MANY} look-ups of {question}"
    _without_fail(lambda: ask()[question].records, {record}, what)


def _without_fail(read: Callable[[], set[str]], wanted: set[str], what: str) -> None:
    """One of two readings has only these answers: both fail where losses go on, not where something happened once."""
    if first := read() - wanted:
        again = read() - wanted
        assert not again, f"{what} MUST not fail, but twice: {', '.join(sorted(first))}; {', '.join(sorted(again))}"


def _chosen(client: Object, url: str, silences: list[float]) -> list[str]:
    """Who answers a pod at first, and after each of some silences (s), until it is another one than at first."""
    command = ["bash", "-c", _CHOSEN, "chosen", url, *map(str, silences)]
    return client.exec(command, within=sum(silences) + 60).stdout.split()


def _only_answers(answers: Answers) -> str | None:
    """Every request is answered."""
    failures = sorted(answer for each in answers.values() for answer in each if answer.startswith("curl: "))
    return failures[0] if failures else None


def _come_from_one_of(names: set[str]) -> Callable[[Answers], str | None]:
    """All answers are the same, and somebody's of these."""

    def come_from_one(answers: Answers) -> str | None:
        (given,) = answers.values()
        return None if len(given) == 1 and given <= names else f"they are answered by {sorted(given)}"

    return come_from_one


def _no_answer(answers: Answers) -> str | None:
    """No request is answered."""
    given = sorted(answer for each in answers.values() for answer in each if not answer.startswith("curl: "))
    return f"it answers {', '.join(given)}" if given else None


def _differences(expected: Answers, own: str, answers: Answers) -> str | None:
    parts = []
    for question, wanted in expected.items():
        lacking, wrong = wanted - answers[question], answers[question] - wanted
        said = [f"never {name}{' (itself)' if name == own else ''}" for name in sorted(lacking)] + sorted(wrong)
        if said:
            parts.append(f"{question} should give {', '.join(sorted(wanted)) or 'nothing'}, but gave {', '.join(said)}")
    return "; ".join(parts) or None


def _domain(client: Object) -> str:
    """The domain of the Services of a pod's namespace, with a dot at its end, as its search path names it."""
    said = client.exec(["cat", "/etc/resolv.conf"]).stdout
    found = re.search(rf"^search ({client.namespace}\.svc\.(\S+)) svc\.\2 \2(\s|$)", said, re.MULTILINE)
    assert found, f"{client}: its search path should begin with {client.namespace}.svc.DOMAIN svc.DOMAIN DOMAIN: {said}"
    return f"{found[1]}."


def _names(here: str, web: Object, peers: Iterable[Object]) -> Answers:
    """Questions to DNS and their answers, for what does not change."""
    address, short = inside.record(web.spec["clusterIP"]), web.namespace
    kind, other = ("A", "AAAA") if address.startswith("A ") else ("AAAA", "A")
    return {
        **{f"+search {name} {kind}": {address} for name in ("web", f"web.{short}", f"web.{short}.svc")},
        f"+tcp web.{here} {kind}": {address},
        f"web.{here} {other}": set(),
        f"-x {web.spec['clusterIP']}": {f"PTR web.{here}"},
        f"_main._tcp.web.{here} SRV": {f"SRV 80 web.{here}"},
        f"_talk._udp.web.{here} SRV": {f"SRV 53 web.{here}"},
        f"_main._tcp.peers.{here} SRV": {f"SRV 8080 {peer.name}.peers.{here}" for peer in peers},
        **{f"{peer.name}.peers.{here} {kind}": {inside.record(peer.status["podIP"])} for peer in peers},
        f"elsewhere.{here} CNAME": {f"CNAME web.{here}"},
        f"_talk._tcp.web.{here} SRV": {"NXDOMAIN"},
        f"nobody.peers.{here} {kind}": {"NXDOMAIN"},
    }


def _changing(here: str, services: Iterable[Object], peers: Iterable[Object]) -> Answers:
    """Questions to DNS and their answers, for what changes."""
    records = {service.name: {inside.record(service.spec["clusterIP"])} for service in services}
    records["peers"] = {inside.record(peer.status["podIP"]) for peer in peers}
    kind = next(iter(records["peers"])).partition(" ")[0]
    return {f"{name}.{here} {kind}": records.get(name, {"NXDOMAIN"}) for name in ("web", "late", "peers")}


def _found(client: Object, expected: Answers, within: float, *, times: int = 1) -> int:
    """Wait until DNS gives a pod these answers; the seconds for which it may remember them."""
    ttls: list[int] = []
    read = functools.partial(_look_up, client, expected, times, ttls)
    what = f"{client.name} on {client.spec.get('nodeName')} finds by DNS"
    eventually(read, functools.partial(_differences, expected, ""), within=within, describe=what)
    return max(ttls)


def _look_up(client: Object, questions: Iterable[str], times: int, ttls: list[int]) -> Answers:
    answers = inside.look_up(client, questions, times=times)
    ttls.append(max(answer.ttl for answer in answers.values()))
    return {question: answer.records for question, answer in answers.items()}
