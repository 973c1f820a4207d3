"""Ingress: web requests from outside reach the Service that their host and path name."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import pytest

from clusterproof import (
    Cluster,
    Images,
    Namespace,
    Object,
    Response,
    Timeouts,
    capabilities,
    eventually,
    kinds,
    manifests,
    measure,
)
from clusterproof.certificates import Pair, self_signed
from clusterproof.conditions import all_ready, equals, has_address, ready, rolled_out
from clusterproof.entrypoint import EntryPoint, serve_pages, web_address
from clusterproof.manifests import http_probe, ingress_class, pod, rule, service, tls_secret, web
from clusterproof.probes import outside, unbroken

pytestmark = pytest.mark.requires(capabilities.INGRESS)


@pytest.mark.smoke
def test_routing(namespace: Namespace, ingress: EntryPoint, images: Images, timeouts: Timeouts) -> None:
    """An Ingress address MUST serve each site its own pages: by host, then by the longest path that matches.

    `Exact` and `Prefix` paths, element by element and with regard to case. A host that is added later is served, and no
    longer when it is taken away; a host that nobody named is never served another's pages.

    Source: https://kubernetes.io/docs/concepts/services-networking/ingress/#path-types
    """
    red, blue, green, nobody = (f"{name}.{namespace}.test" for name in ("red", "blue", "green", "nobody"))
    serve_pages(namespace, images.agnhost, "root", "docs", "api", "exact", "blue", "green", within=timeouts.pod)
    paths = rule(red, {"/": "root", "/docs": "docs", "/docs/api": "api", "/exact": "root"})
    paths["http"]["paths"] += rule(red, {"/exact": "exact"}, path_type="Exact")["http"]["paths"]
    sites = namespace.create(_ingress("sites", ingress, paths))
    namespace.create(_ingress("other-site", ingress, rule(blue, {"/": "blue"})))
    pages = {
        **{(red, path): "root" for path in ("/", "/other", "/docsearch", "/Docs", "/exact/", "/exact/more")},
        **{(red, path): "docs" for path in ("/docs", "/docs/", "/docs/guide", "/docs/apis")},
        **{(red, path): "api" for path in ("/docs/api", "/docs/api/v1?page=/docs")},
        **{(red, "/exact"): "exact", (blue, "/"): "blue", (blue, "/docs"): "blue"},
        **{(host, path): "" for host in (nobody, f"www.{red}", green) for path in ("/", "/docs", "/exact")},
    }
    _served(namespace, ingress, pages, timeouts)

    sites.patch({"spec": {"rules": [paths, rule(green, {"/": "green"})]}})
    _served(namespace, ingress, {**pages, **{(green, path): "green" for path in ("/", "/docs", "/exact")}}, timeouts)

    sites.patch({"spec": {"rules": [paths]}})
    _served(namespace, ingress, pages, timeouts)


def test_endpoints(namespace: Namespace, ingress: EntryPoint, images: Images, timeouts: Timeouts) -> None:
    """An Ingress MUST keep serving, without one failed request, while all pods behind it are replaced.

    A client outside the cluster makes 100 requests per second, half of them on a kept connection, during a rolling
    update. Pods that are told to end go on serving for a while, as every pod behind a Service should.

    Source: https://kubernetes.io/docs/concepts/services-networking/ingress/#what-is-ingress
    """
    linger = round(timeouts.propagation)
    patient = {"args": ["netexec", f"--delay-shutdown={linger}"], "grace": 2 * linger, "readiness": http_probe()}
    one_by_one = {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}
    pods = namespace.create(web("web", images.agnhost_old, replicas=2, strategy=one_by_one, **patient))
    namespace.create(service("web"))
    namespace.create(_ingress("web", ingress, rule(host := f"web.{namespace}.test", {"/": "web"})))
    eventually(pods, rolled_out, within=timeouts.rollout)

    url = f"http://{ingress.address}/hostname"
    slow, late = timeouts.request / 3, timeouts.propagation
    # Twice, if need be: on a machine that is busy for a moment, a proxy gives up the one connection that takes so long.
    for image in (images.agnhost, images.agnhost_old):
        with outside(url, rate=100, headers={"Host": host}, within=slow, patience=late) as client:
            pods.set_image(image)
            eventually(pods, rolled_out, within=timeouts.rollout)
            new = eventually(pods.pods(), all_ready(2), within=timeouts.rollout)
        if client.result().failures != 1:
            break

    measure("longest gap (s)", client.result().longest_gap)
    trouble = unbroken(client.result())
    assert trouble is None, f"Ingress {namespace}/web should serve all the time: {trouble}"
    assert ingress.get(host, "/hostname").text in {pod.name for pod in new}


@pytest.mark.smoke
def test_classes(
    cluster: Cluster, namespace: Namespace, ingress: EntryPoint, images: Images, timeouts: Timeouts
) -> None:
    """An Ingress MUST be served by the controller of its class only.

    An Ingress of another class, whose controller does not exist, is neither served nor given an address, and takes no
    path away from an Ingress of the class that is served.

    Source: https://kubernetes.io/docs/concepts/services-networking/ingress/#ingress-class
    """
    public, admin = (f"{name}.{namespace}.test" for name in ("public", "admin"))
    cluster.create(ingress_class(f"{namespace}-admin", controller="clusterproof.dev/nobody"))
    serve_pages(namespace, images.agnhost, "public", "more", "admin", within=timeouts.pod)
    rules = [rule(admin, {"/": "admin"}), rule(public, {"/admin": "admin"})]
    others = namespace.create(manifests.ingress("admin", rules=rules, class_name=f"{namespace}-admin"))
    ours = namespace.create(_ingress("public", ingress, rule(public, {"/": "public"})))
    pages = {(public, "/"): "public", (public, "/admin"): "public", (admin, "/"): ""}
    _served(namespace, ingress, pages, timeouts)

    # By the time it serves this later change, the controller has seen the other Ingress for sure.
    ours.patch({"spec": {"rules": [rule(public, {"/": "public", "/more": "more"})]}})
    _served(namespace, ingress, {**pages, (public, "/more"): "more"}, timeouts)
    addresses = (others.read().status.get("loadBalancer") or {}).get("ingress")
    assert not addresses, f"{others}: a controller that is not of its class gave it the address {addresses}"


@pytest.mark.requires(capabilities.INGRESS_DEFAULT_BACKEND)
@pytest.mark.alone
def test_default_backend(namespace: Namespace, ingress: EntryPoint, images: Images, timeouts: Timeouts) -> None:
    """Requests for hosts that no Ingress names MUST be served by the default backend, as long as there is one.

    What a rule names is not: neither before nor after.

    Source: https://kubernetes.io/docs/concepts/services-networking/ingress/#default-backend
    """
    serve_pages(namespace, images.agnhost, "named", "rest", within=timeouts.pod)
    named, nobody = (f"{name}.{namespace}.test" for name in ("named", "nobody"))
    namespace.create(_ingress("named", ingress, rule(named, {"/": "named"})))
    without = {(named, "/"): "named", (named, "/docs"): "named", (nobody, "/"): "", (nobody, "/docs"): ""}
    _served(namespace, ingress, without, timeouts)

    backend = {"defaultBackend": {"service": {"name": "rest", "port": {"number": 80}}}}
    rest = namespace.create(_ingress("rest", ingress, spec=backend))
    _served(namespace, ingress, without | {(nobody, path): "rest" for path in ("/", "/docs")}, timeouts)

    rest.delete()
    _served(namespace, ingress, without, timeouts)


def test_address(cluster: Cluster, namespace: Namespace, ingress: EntryPoint, timeouts: Timeouts) -> None:
    """An Ingress MUST be given the address at which it is served.

    Source: https://kubernetes.io/docs/reference/kubernetes-api/service-resources/ingress-v1/#IngressStatus
    """
    if cluster.settings.ingress_address:
        pytest.skip("the address was given by --ingress-address: the controller need not know it")
    site = namespace.create(_ingress("web", ingress, rule(f"web.{namespace}.test", {"/": "web"})))

    eventually(site, has_address, within=timeouts.ingress)


def test_tls(namespace: Namespace, ingress: EntryPoint, images: Images, timeouts: Timeouts) -> None:
    """An Ingress MUST answer https for each host with the certificate of its Secret, also after that has changed.

    Each host has a certificate that nothing else would be trusted by; a visitor who trusts the new one only is served
    after the Secret was changed, without a change of the Ingress.

    Source: https://kubernetes.io/docs/concepts/services-networking/ingress/#tls
    """
    hosts = {name: f"{name}.{namespace}.test" for name in ("red", "blue")}
    serve_pages(namespace, images.agnhost, *hosts, within=timeouts.pod)
    pairs = {name: self_signed(host) for name, host in hosts.items()}
    secrets = {name: namespace.create(tls_secret(name, *pair)) for name, pair in pairs.items()}
    for name, host in hosts.items():
        tls = {"tls": [{"hosts": [host], "secretName": name}]}
        namespace.create(_ingress(name, ingress, rule(host, {"/": name}), spec=tls))
    _secured(namespace, ingress, hosts, pairs, timeouts)

    pairs["red"] = self_signed(hosts["red"])
    secrets["red"].patch({"data": tls_secret("red", *pairs["red"])["data"]})

    _secured(namespace, ingress, hosts, pairs, timeouts)


@pytest.mark.requires(capabilities.INGRESS_DEFAULT_CLASS)
def test_default_class(
    cluster: Cluster, namespace: Namespace, ingress: EntryPoint, images: Images, timeouts: Timeouts
) -> None:
    """An Ingress that names no class MUST be given the default class, and be served by its controller.

    Where there are several by mistake, it is given one of them.

    Source: https://kubernetes.io/docs/concepts/services-networking/ingress/#default-ingress-class
    """
    serve_pages(namespace, images.agnhost, "web", within=timeouts.pod)

    made = namespace.create(manifests.ingress("web", rules=[rule(host := f"web.{namespace}.test", {"/": "web"})]))

    given = made.spec.get("ingressClassName")
    classes = capabilities.default_classes([each.raw for each in cluster.list(kinds.INGRESS_CLASS)])
    defaults = [each["metadata"]["name"] for each in classes]
    of_these = f"the default {'class' if len(defaults) == 1 else 'classes'} {', '.join(defaults)}"
    assert given in defaults, f"{made} names no class and was given {given}, not {of_these}"
    read = functools.partial(_page_of, namespace, ingress, made, host)
    what = f"{made}, which was given {given} of {of_these}, is served by a controller of that class"
    eventually(read, equals("web"), within=timeouts.ingress, describe=what)


@pytest.mark.requires(capabilities.INGRESS_BODY_SIZE)
def test_body_size(namespace: Namespace, ingress: EntryPoint, images: Images, timeouts: Timeouts) -> None:
    """An Ingress MUST let uploads through up to its limit, and refuse larger ones with 413, also when it is changed.

    Source: https://kubernetes.io/docs/concepts/services-networking/ingress/#the-ingress-resource
    """
    limit = ingress.dialect.body_size
    assert limit, f"IngressClass {ingress.class_name} is of a controller whose annotation for it is not known"
    serve_pages(namespace, images.agnhost, "web", within=timeouts.pod)
    made = _ingress("web", ingress, rule(host := f"web.{namespace}.test", {"/": "web"}), annotations=limit(64))
    sites = namespace.create(made)

    def uploaded() -> dict[str, int]:
        bodies = {f"{size} KiB": b"x" * 1024 * size for size in (32, 128, 512)}
        return {size: ingress.get(host, method="POST", body=body).status for size, body in bodies.items()}

    few, more = ({"32 KiB": 200, "128 KiB": status, "512 KiB": 413} for status in (413, 200))
    eventually(uploaded, equals(few), within=timeouts.ingress, describe=f"{sites} limits uploads to 64 KiB")
    sites.patch({"metadata": {"annotations": limit(256)}})
    eventually(uploaded, equals(more), within=timeouts.ingress, describe=f"{sites} limits uploads to 256 KiB")


@pytest.mark.requires(capabilities.INGRESS_TIMEOUT)
def test_timeout(namespace: Namespace, ingress: EntryPoint, images: Images, timeouts: Timeouts) -> None:
    """An Ingress MUST answer 504 for a backend that takes longer than it allows, and wait when it allows for longer.

    Source: https://kubernetes.io/docs/concepts/services-networking/ingress/#the-ingress-resource
    """
    limit = ingress.dialect.timeout
    assert limit, f"IngressClass {ingress.class_name} is of a controller whose annotation for it is not known"
    slow = namespace.create(pod("slow", images.agnhost, args=["netexec"], readiness=http_probe()))
    namespace.create(service("slow"))
    made = _ingress("slow", ingress, rule(host := f"slow.{namespace}.test", {"/": "slow"}), annotations=limit(1))
    sites = namespace.create(made)
    eventually(slow, ready, within=timeouts.pod)

    def answered() -> dict[str, int]:
        return {path: ingress.get(host, path).status for path in ("/hostname", SLOW)}

    hurried, patient = ({"/hostname": 200, SLOW: status} for status in (504, 200))
    eventually(answered, equals(hurried), within=timeouts.ingress, describe=f"{sites} allows for 1 s")
    sites.patch({"metadata": {"annotations": limit(30)}})
    eventually(answered, equals(patient), within=timeouts.ingress, describe=f"{sites} allows for 30 s")


@pytest.mark.requires(capabilities.INGRESS_REDIRECT)
def test_redirect(namespace: Namespace, ingress: EntryPoint, timeouts: Timeouts) -> None:
    """An Ingress that is told to MUST send visitors from http to the same page by https.

    Source: https://kubernetes.io/docs/concepts/services-networking/ingress/#tls
    """
    host = f"web.{namespace}.test"
    namespace.create(service("web"))
    namespace.create(tls_secret("web", *self_signed(host)))
    tls = {"tls": [{"hosts": [host], "secretName": "web"}]}
    made = _ingress("web", ingress, rule(host, {"/": "web"}), annotations=ingress.dialect.redirect, spec=tls)
    sites = namespace.create(made)

    def sent_to() -> tuple[bool, str]:
        answer = ingress.get(host, "/docs?page=1")
        return answer.status in (301, 302, 307, 308), answer.headers.get("Location", "")

    wanted = equals((True, f"https://{host}/docs?page=1"))
    eventually(sent_to, wanted, within=timeouts.ingress, describe=f"{sites} redirects visitors to https")


@pytest.mark.requires(capabilities.INGRESS_WEBSOCKET)
def test_websocket(namespace: Namespace, ingress: EntryPoint, images: Images, timeouts: Timeouts) -> None:
    """An Ingress MUST pass on the connection of a websocket, both ways.

    Source: https://kubernetes.io/docs/concepts/services-networking/ingress/#the-ingress-resource
    """
    namespace.create(pod("echo", images.agnhost, command=["bash", "-c", _ECHO]))
    namespace.create(service("echo"))
    host, told = f"echo.{namespace}.test", ingress.dialect.websocket
    sites = namespace.create(_ingress("echo", ingress, rule(host, {"/": "echo"}), annotations=told))

    wanted = equals(("HTTP/1.1 101 Switching Protocols", FRAME))
    passed = f"{sites} passes on a websocket"
    eventually(lambda: ingress.echo(host, FRAME), wanted, within=timeouts.pod, describe=passed)


FRAME = bytes.fromhex("818537fa213d7f9f4d5158")
"""`Hello`, as a visitor says it (RFC 6455, section 5.7)."""
_ECHO = r"""
accept='s3pPLMBiTxaQ9kYGzzhZRbK+xOo='
while :; do
    coproc nc -l 8080
    while read -r line <&"${COPROC[0]}" && [ "$line" != $'\r' ]; do :; done
    {
        printf 'HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n'
        printf 'Sec-WebSocket-Accept: %s\r\n\r\n' "$accept"
        cat <&"${COPROC[0]}"
    } >&"${COPROC[1]}"
    kill %% 2> /dev/null
    wait
done
"""
"""A server of websockets that sends back whatever it is sent, one visitor at a time."""
SLOW = "/shell?cmd=sleep%203"
"""What a `netexec` answers after three seconds."""
NOBODY = "nobody"
"""How it begins whose page it is when a controller serves none; what it says then is up to it."""
Pages = dict[tuple[str, str], str]
"""By host and path: the name of the backend whose page it is; empty for none of ours."""


def _ingress(name: str, entry: EntryPoint, *rules: dict[str, Any], **more: Any) -> dict[str, Any]:
    """An Ingress of the class that is served at the entry point; `more` as for `manifests.ingress`."""
    return manifests.ingress(name, rules=rules, class_name=entry.class_name, **more)


def _served(namespace: Namespace, entry: EntryPoint, pages: Pages, timeouts: Timeouts) -> None:
    """Wait until every page is served as it should be."""
    read = functools.partial(_ask, namespace, entry, pages)
    differences = functools.partial(_differences, pages)
    eventually(read, differences, within=timeouts.ingress, describe=f"{entry.address} serves every page")


def _ask(namespace: Namespace, entry: EntryPoint, pages: Pages) -> Pages:
    """Whose page is served for each host and path."""
    return {(host, path): _owner(namespace, entry, entry.get(host, path)) for host, path in pages}


def _owner(namespace: Namespace, entry: EntryPoint, answer: Response) -> str:
    """The backend whose page it is, or what is there instead; empty for a page of whoever serves all hosts."""
    ours, _, name = answer.text.partition("/")
    if answer.status != 200:
        return f"{NOBODY}: status {answer.status}, {answer.text[:60]!r}"
    if ours == namespace.name:
        return name
    nobody_else = entry.cluster.claim(capabilities.INGRESS_DEFAULT_BACKEND).supported
    return f"somebody else's: {answer.text[:60]!r}" if nobody_else else ""


def _page_of(namespace: Namespace, entry: EntryPoint, ingress: Object, host: str) -> str:
    """Whose page an Ingress serves: at the entry point, or where its own status says, if that is another place."""
    page = _owner(namespace, entry, entry.get(host))
    told = web_address(ingress.read())
    if page == "web" or told in ("", entry.address):
        return page
    return _owner(namespace, entry, EntryPoint(entry.cluster, entry.timeouts, known=told).get(host))


def _secured(
    namespace: Namespace, entry: EntryPoint, hosts: Mapping[str, str], pairs: Mapping[str, Pair], timeouts: Timeouts
) -> None:
    """Wait until each host serves its page by https, to a visitor who trusts its certificate only."""
    read = functools.partial(_ask_secured, entry, hosts, pairs)
    pages = {name: f"{namespace}/{name}" for name in hosts}
    eventually(read, equals(pages), within=timeouts.ingress, describe=f"{entry.address} serves each host by https")


def _ask_secured(entry: EntryPoint, hosts: Mapping[str, str], pairs: Mapping[str, Pair]) -> dict[str, str]:
    return {name: entry.get_secured(host, pairs[name].certificate).text for name, host in hosts.items()}


def _differences(pages: Pages, seen: Pages) -> str | None:
    wrong = [
        f"http://{host}{path} should be {name or NOBODY}'s page, not {seen[host, path] or 'that of all hosts'}"
        for (host, path), name in pages.items()
        if seen[host, path] != name and (name or not seen[host, path].startswith(NOBODY))
    ]
    return "; ".join(wrong) or None
