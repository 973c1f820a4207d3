"""The client, against a real local server: answers, refusals, watches, and what it says when there is no answer."""

from __future__ import annotations

import base64
import datetime
import gc
import ipaddress
import socket
import ssl
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from clusterproof.client import Client
from clusterproof.errors import ApiError, SurroundingsError

from .fake_api import FakeApi

MAPS = "/api/v1/namespaces/ns/configmaps"


def test_an_answer_whatever_its_status(client: Client) -> None:
    answer = client.request("GET", "/api/v1/namespaces/ns/pods/none")
    assert answer.status == 404
    assert answer.json()["reason"] == "NotFound"
    assert answer.headers["content-type"] == "application/json"


def test_a_refusal_says_who_refused_what(client: Client) -> None:
    with pytest.raises(ApiError, match="GET /api/v1/namespaces/ns/pods/none: 404 NotFound: notfound") as caught:
        client.get("/api/v1/namespaces/ns/pods/none")
    assert (caught.value.status, caught.value.reason, caught.value.user) == (404, "NotFound", "")


def test_a_refusal_names_the_fields(api: FakeApi, client: Client) -> None:
    def refuse(handler: Any) -> bool:
        handler.answer(422, {"reason": "Invalid", "message": "no", "details": {"causes": [{"field": "spec.x"}]}})
        return True

    api.overrides[f"POST {MAPS}"] = refuse
    with pytest.raises(ApiError) as caught:
        client.post(MAPS, {})
    assert caught.value.fields == ["spec.x"]


def test_a_refusal_that_is_no_status_object(api: FakeApi, client: Client) -> None:
    def refuse(handler: Any) -> bool:
        handler.send_error(502, "Bad Gateway")
        return True

    api.overrides["GET /x"] = refuse
    with pytest.raises(ApiError, match="502 Unknown"):
        client.get("/x")


def test_every_request_is_counted(client: Client) -> None:
    before = Client.total_requests
    for _ in range(3):
        client.request("GET", "/version")
    assert client.requests == 3
    assert Client.total_requests - before == 3


def test_a_busy_server_is_asked_again(api: FakeApi, client: Client) -> None:
    busy = iter([True, True])

    def answer(handler: Any) -> bool:
        if next(busy, False):
            handler.answer(429, {"reason": "TooManyRequests"}, Retry_After="0")
            return True
        return False

    api.overrides["GET /version"] = answer
    assert client.get("/version") == {"gitVersion": "v1.37.2"}


def test_refused_eviction_is_not_repeated(api: FakeApi, client: Client) -> None:
    def refuse(handler: Any) -> bool:
        handler.answer(429, {"reason": "TooManyRequests"})
        return True

    api.overrides["POST /eviction"] = refuse
    assert client.request("POST", "/eviction", body={}).status == 429
    assert api.requests.count("POST /eviction") == 1


def test_a_watch_tells_what_happens_and_ends_in_time(api: FakeApi, client: Client) -> None:
    watch = client.watch(MAPS, {"resourceVersion": api.version}, within=0.6)
    api.put(f"{MAPS}/a", {"kind": "ConfigMap", "metadata": {"name": "a"}})
    api.remove(f"{MAPS}/a")
    assert [event.type for event in watch] == ["ADDED", "DELETED"]


def test_a_watch_that_nobody_reads_is_closed(api: FakeApi, client: Client) -> None:
    client.watch(MAPS, {"resourceVersion": api.version}, within=30)
    gc.collect()  # a socket that is left open warns now, and a warning fails


def test_a_watch_of_a_forgotten_version_is_refused(api: FakeApi, client: Client) -> None:
    api.oldest = api.version
    with pytest.raises(ApiError, match="410 Expired"):
        next(client.watch(MAPS, {"resourceVersion": 1}, within=1))


def test_a_token_is_sent(api: FakeApi, client: Client) -> None:
    api.token = "secret"
    assert client.request("GET", "/version").status == 200
    assert client.as_user("nobody").request("GET", "/version").status == 401
    assert client.as_user("other", token="secret").request("GET", "/version").status == 200
    assert client.clone().request("GET", "/version").status == 200


def plugin(folder: Path, expires: str) -> dict[str, Any]:
    """An exec plugin that gives a token; it writes a line to `calls` each time."""
    path, api_version = folder / "plugin", "client.authentication.k8s.io/v1"
    status = f'{{"token": "secret", "expirationTimestamp": "{expires}"}}'
    path.write_text(
        f"#!/bin/sh\necho called >> {folder / 'calls'}\n"
        f'echo \'{{"apiVersion": "{api_version}", "kind": "ExecCredential", "status": {status}}}\'\n'
    )
    path.chmod(0o700)
    return {"apiVersion": api_version, "command": str(path), "interactiveMode": "Never"}


def test_a_token_of_an_exec_plugin_is_sent_and_refreshed(api: FakeApi, tmp_path: Path) -> None:
    api.token = "secret"
    expired = plugin(tmp_path, "2020-01-01T00:00:00Z")
    client = Client.from_kubeconfig(api.kubeconfig(tmp_path / "config", exec=expired))
    assert client.request("GET", "/version").status == 200
    assert client.request("GET", "/version").status == 200
    assert len((tmp_path / "calls").read_text().split()) > 1


def test_a_refreshed_token_that_fits_no_header_is_said(api: FakeApi, tmp_path: Path) -> None:
    expired = plugin(tmp_path, "2020-01-01T00:00:00Z")
    client = Client.from_kubeconfig(api.kubeconfig(tmp_path / "config", exec=expired))
    script = tmp_path / "plugin"
    script.write_text(script.read_text().replace('"secret"', '"sec\\\\u2026ret"'))
    with pytest.raises(SurroundingsError, match=r"^http://127\.0\.0\.1:\d+: its token cannot be sent: "):
        client.request("GET", "/version")


def test_nobody_listens(client: Client) -> None:
    nobody = client.as_user("nobody")
    nobody.configuration.host = "http://127.0.0.1:9"
    with pytest.raises(SurroundingsError, match=r"^http://127.0.0.1:9: cannot connect: .*Connection refused$"):
        nobody.get("/version")


def test_no_such_host(client: Client) -> None:
    nobody = client.as_user("nobody")
    nobody.configuration.host = "http://cluster.invalid:6443"
    with pytest.raises(SurroundingsError, match="its host name cannot be resolved"):
        nobody.get("/version")


def test_no_answer_in_time(client: Client) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        slow = client.as_user("nobody")
        slow.configuration.host = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(SurroundingsError, match="no answer in time"):
            slow.request("GET", "/version", timeout=0.2)


def test_a_connection_is_lost_half_way(api: FakeApi, client: Client) -> None:
    def cut(handler: Any) -> bool:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        handler.close_connection = True
        return True

    api.overrides["GET /cut"] = cut
    with pytest.raises(SurroundingsError, match="the connection was lost"):
        client.get("/cut")


def certificate(directory: Path, host: str) -> Path:
    """A self-signed certificate and its key in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(host))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    file = directory / f"{host}.pem"
    file.write_bytes(made.public_bytes(pem) + private)
    return file


class Secure(NamedTuple):
    """A TLS server that takes any connection and says nothing."""

    url: str
    pem: Path
    """Its certificate, which is for another name."""
    user: Path
    """The certificate and key that it knows a user by."""
    shown: list[bool]
    """For each connection, whether the user's certificate was shown."""


@pytest.fixture
def secure(tmp_path: Path) -> Iterator[Secure]:
    pem, user, shown = certificate(tmp_path, "127.0.0.9"), certificate(tmp_path, "127.0.0.10"), list[bool]()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    context.load_verify_locations(user)
    context.verify_mode = ssl.CERT_OPTIONAL
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                try:
                    with context.wrap_socket(connection, server_side=True) as talk:
                        shown.append(bool(talk.getpeercert()))
                except OSError:
                    connection.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield Secure(f"https://127.0.0.1:{listener.getsockname()[1]}", pem, user, shown)
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def trusting(api: FakeApi, path: Path, url: str, authority: Path, name: str = "127.0.0.1") -> Client:
    document = yaml.safe_load(api.kubeconfig(path).read_text())
    document["clusters"][0]["cluster"] = {
        "server": url,
        "certificate-authority": str(authority),
        "tls-server-name": name,
    }
    path.write_text(yaml.safe_dump(document))
    return Client.from_kubeconfig(path)


def test_a_wrong_authority(api: FakeApi, secure: Secure, tmp_path: Path) -> None:
    other = certificate(tmp_path, "127.0.0.5")
    with pytest.raises(SurroundingsError, match="not trusted by the kubeconfig's certificate authority"):
        trusting(api, tmp_path / "config", secure.url, other).get("/version")


def test_a_certificate_for_another_name(api: FakeApi, secure: Secure, tmp_path: Path) -> None:
    with pytest.raises(SurroundingsError, match="its certificate is for another name"):
        trusting(api, tmp_path / "config", secure.url, secure.pem).get("/version")


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files go."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def inline(api: FakeApi, path: Path, secure: Secure, **user: Any) -> Client:
    """The user of a kubeconfig that holds the authority itself."""
    document = yaml.safe_load(api.kubeconfig(path, **user).read_text())
    authority = base64.b64encode(secure.pem.read_bytes()).decode()
    document["clusters"][0]["cluster"] = {
        "server": secure.url,
        "certificate-authority-data": authority,
        "tls-server-name": "127.0.0.9",
    }
    path.write_text(yaml.safe_dump(document))
    return Client.from_kubeconfig(path)


def test_a_kubeconfig_s_key_lies_nowhere(api: FakeApi, secure: Secure, tmp_path: Path, temporary: Path) -> None:
    pair = base64.b64encode(secure.user.read_bytes()).decode()
    known = {"client-certificate-data": pair, "client-key-data": pair}
    for client in (inline(api, tmp_path / f"config-{each}", secure, **known) for each in range(2)):
        assert client.certificate == secure.user.read_text()
        for asking in (client, client.clone(), client.as_user("nobody")):
            with pytest.raises(SurroundingsError, match="the connection was lost"):
                asking.get("/version")
    assert secure.shown == [True, True, False] * 2
    assert list(temporary.iterdir()) == []


def test_an_authority_is_known_after_a_token_was_refreshed(
    api: FakeApi, secure: Secure, tmp_path: Path, temporary: Path
) -> None:
    client = inline(api, tmp_path / "config", secure, exec=plugin(tmp_path, "2020-01-01T00:00:00Z"))
    for asking in (client, client.clone(), client.as_user("nobody")):
        with pytest.raises(SurroundingsError, match="the connection was lost"):
            asking.get("/version")
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("what", ["certificate-authority", "client-certificate"])
def test_what_is_no_certificate_is_named(api: FakeApi, tmp_path: Path, what: str) -> None:
    garbage = tmp_path / "garbage"
    garbage.write_text("hello")
    document = yaml.safe_load(api.kubeconfig(tmp_path / "config").read_text())
    document["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:9"
    holder = document["clusters"][0]["cluster"] if what == "certificate-authority" else document["users"][0]["user"]
    holder |= {what: str(garbage)} | ({"client-key": str(garbage)} if what == "client-certificate" else {})
    (tmp_path / "config").write_text(yaml.safe_dump(document))
    with pytest.raises(OSError, match=f"^its {what.replace('-', ' ')} cannot be read: "):
        Client.from_kubeconfig(tmp_path / "config")


def test_a_user_s_certificate_is_shown_and_lies_nowhere(
    api: FakeApi, secure: Secure, tmp_path: Path, temporary: Path
) -> None:
    nobody = trusting(api, tmp_path / "config", secure.url, secure.pem, "127.0.0.9")
    user = nobody.as_user("user", certificate=(secure.user.read_text(), secure.user.read_text()))
    for client in (nobody, user, user.clone()):
        with pytest.raises(SurroundingsError, match="the connection was lost"):
            client.get("/version")
    assert secure.shown == [False, True, True]
    assert list(temporary.iterdir()) == []
