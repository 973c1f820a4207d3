"""The external provider: one sentence for each reason why a cluster cannot be proven."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from kubernetes.config import incluster_config

from clusterproof.certificates import self_signed
from clusterproof.external import External, connect
from clusterproof.provider import Shape

from .fake_api import NODE, FakeApi


def shape(kubeconfig: Path | None = None, context: str = "") -> Shape:
    return Shape("any", kubeconfig=kubeconfig, context=context)


def refusal(kubeconfig: Path | None = None, context: str = "") -> str:
    with pytest.raises(pytest.UsageError) as caught:
        External().create(shape(kubeconfig, context))
    return str(caught.value)


def test_a_fit_cluster_is_found(kubeconfig: Path) -> None:
    access = External().create(shape(kubeconfig))
    assert (access.provider, access.name, access.context) == ("external", "fake", "fake")
    assert access.kubeconfig == str(kubeconfig)
    External().delete(access)


@pytest.fixture
def account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The token of a service account, where a pod has it; the environment is not that of a pod yet."""
    token, authority = tmp_path / "token", tmp_path / "ca.crt"
    token.write_text("secret")
    authority.write_text(self_signed("kubernetes").certificate)
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(token))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(authority))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    return token


@pytest.fixture
def pod(account: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same in a pod, told of a server that does not answer; real ones are in tests/incluster."""
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "9")
    return account


@pytest.mark.usefixtures("account")
def test_no_cluster_is_chosen_silently() -> None:
    assert refusal() == (
        "--cluster=external needs --kubeconfig or --context, or a pod with a service account's token to run in: "
        "no cluster is chosen silently"
    )


@pytest.mark.usefixtures("account")
def test_no_pod() -> None:
    assert "in-cluster: this is no pod with a service account: Service host/port" in refusal(Path("in-cluster"))


def test_a_pod_without_a_token(pod: Path) -> None:
    pod.unlink()
    assert refusal().startswith("--cluster=external needs --kubeconfig or --context, or a pod with a service account")


@pytest.mark.usefixtures("pod")
@pytest.mark.parametrize("named", [None, Path("in-cluster")])
def test_a_pod_proves_its_own_cluster(named: Path | None) -> None:
    assert refusal(named).startswith("cluster of context 'in-cluster': https://127.0.0.1:9: cannot connect")


@pytest.mark.usefixtures("pod")
def test_a_pods_own_cluster_has_no_contexts() -> None:
    assert refusal(Path("in-cluster"), "other").startswith("--context=other: in a pod there is only its own cluster")


def test_the_token_of_a_pod_is_read_again(pod: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client, path, context = connect(Path("in-cluster"), "")
    assert (str(path), context) == ("in-cluster", "in-cluster")
    assert client.configuration.auth_settings()["BearerToken"]["value"] == "bearer secret"
    pod.write_text("renewed")
    later = datetime.datetime.now() + datetime.timedelta(minutes=2)
    monkeypatch.setattr(incluster_config.datetime, "datetime", type("Later", (), {"now": staticmethod(lambda: later)}))
    assert client.configuration.auth_settings()["BearerToken"]["value"] == "bearer renewed"


def test_a_kubeconfig_goes_before_the_pods_own_cluster(pod: Path, kubeconfig: Path) -> None:
    assert External().create(shape(kubeconfig)).kubeconfig == str(kubeconfig)


def test_unreadable(tmp_path: Path) -> None:
    assert "No such file or directory" in refusal(tmp_path / "none")
    (tmp_path / "text").write_text("{")
    assert "cannot be read" in refusal(tmp_path / "text")
    (tmp_path / "list").write_text("[]")
    assert "is not a kubeconfig" in refusal(tmp_path / "list")


def test_an_unknown_context(kubeconfig: Path) -> None:
    assert refusal(kubeconfig, "other") == f"--context=other: {kubeconfig} has the contexts fake"


def test_no_current_context(kubeconfig: Path) -> None:
    kubeconfig.write_text(kubeconfig.read_text().replace("current-context: fake", "current-context: ''"))
    assert refusal(kubeconfig).startswith("no --context was given and there is no current context")


def test_a_dead_address(api: FakeApi, tmp_path: Path) -> None:
    api.url = "http://127.0.0.1:9"
    assert "cannot connect: [Errno 111] Connection refused" in refusal(api.kubeconfig(tmp_path / "dead"))


def test_a_refused_token(api: FakeApi, kubeconfig: Path) -> None:
    api.token = "another"
    assert "refused the kubeconfig's credentials (401 Unauthorized)" in refusal(kubeconfig)


def test_an_expired_certificate(api: FakeApi, tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "jane")])
    day = datetime.datetime(2024, 5, 6, tzinfo=datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    made = builder.serial_number(1).not_valid_before(day - datetime.timedelta(days=1)).not_valid_after(day)
    pem = serialization.Encoding.PEM
    (tmp_path / "crt").write_bytes(made.sign(key, hashes.SHA256()).public_bytes(pem))
    plain = serialization.NoEncryption()
    (tmp_path / "key").write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    user = {"client-certificate": str(tmp_path / "crt"), "client-key": str(tmp_path / "key")}
    api.url = api.url.replace("http:", "https:")
    config = api.kubeconfig(tmp_path / "config", **user)
    assert refusal(config) == f"{config}: its client certificate expired on 2024-05-06 00:00 UTC"


def test_missing_rights(api: FakeApi, kubeconfig: Path) -> None:
    api.denied = {("create", "namespaces"), ("create", "pods/exec")}
    assert "the kubeconfig's user may not create namespaces, create pods/exec;" in refusal(kubeconfig)


def lend(api: FakeApi, kubeconfig: Path, *names: str) -> None:
    for name in names:
        api.put(f"/api/v1/namespaces/{name}", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    External().create(Shape("any", kubeconfig=kubeconfig, namespaces=("mine", "yours", "ours")))


def test_namespaces_that_are_not_there_are_named(api: FakeApi, kubeconfig: Path) -> None:
    api.denied = {("create", "pods")}
    with pytest.raises(pytest.UsageError, match=r"^--namespaces=mine,yours,ours: .* has no namespace mine, ours; name"):
        lend(api, kubeconfig, "yours")


def test_namespaces_that_may_not_be_read_are_used(api: FakeApi, kubeconfig: Path) -> None:
    def forbidden(request: Any) -> bool:
        request.fail(403, "Forbidden")
        return True

    api.overrides["GET /api/v1/namespaces/mine"] = forbidden
    lend(api, kubeconfig, "yours", "ours")


def test_a_token_may_end_with_a_line_break(api: FakeApi, tmp_path: Path) -> None:
    api.token = "secret"
    assert External().create(shape(api.kubeconfig(tmp_path / "config", token="secret\n"))).context == "fake"


@pytest.mark.parametrize("token", ["sec\nret", "sec\u2026ret", "sec\x00ret"])
def test_a_token_that_fits_no_header_is_refused(api: FakeApi, tmp_path: Path, token: str) -> None:
    config = api.kubeconfig(tmp_path / "config", token=token)
    assert refusal(config) == (
        f"{config}: context 'fake' cannot be used: its token cannot be sent: only ASCII characters on one line are "
        "expected in it"
    )


def test_the_token_of_a_pod_that_fits_no_header(pod: Path) -> None:
    pod.write_text("sec\nret")
    assert "its token cannot be sent: only ASCII characters" in refusal(Path("in-cluster"))


@pytest.mark.parametrize("version", ["v1.33.9", "v1.39.0", "v2.0.0"])
def test_a_version_out_of_range(api: FakeApi, kubeconfig: Path, version: str) -> None:
    api.git_version = version
    assert f"runs Kubernetes {version}; this version of clusterproof proves 1.34 to 1.38" in refusal(kubeconfig)


def test_something_else_answers(api: FakeApi, kubeconfig: Path) -> None:
    api.git_version = "nginx"
    assert "does not answer like a Kubernetes API server" in refusal(kubeconfig)


def test_no_nodes(api: FakeApi, kubeconfig: Path) -> None:
    api.remove("/api/v1/nodes/node-1")
    assert refusal(kubeconfig).endswith("has no nodes, so no pod can run")


def test_no_node_takes_pods(api: FakeApi, kubeconfig: Path) -> None:
    api.put("/api/v1/nodes/node-1", {**NODE, "spec": {"taints": [{"key": "off", "effect": "NoSchedule"}]}})
    lost: dict[str, object] = {**NODE["status"], "conditions": [{"type": "Ready", "status": "Unknown"}]}
    api.put("/api/v1/nodes/node-2", {**NODE, "metadata": {"name": "node-2"}, "status": lost})
    assert "no node takes pods: node-1 is Ready, with taint off; node-2 is not Ready" in refusal(kubeconfig)
