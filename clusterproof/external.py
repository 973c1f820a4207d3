"""The `external` provider: a cluster that somebody else runs. It is only ever used when it is named."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from kubernetes.config import ConfigException, incluster_config

from clusterproof import kinds
from clusterproof.client import IN_CLUSTER, Client, Response
from clusterproof.cluster import schedulable
from clusterproof.errors import SurroundingsError
from clusterproof.objects import Object
from clusterproof.provider import Access, Shape

OLDEST, NEWEST = 34, 38
"""Minor versions of Kubernetes 1 that the promises are written for."""

RIGHTS = (
    ("create", "", "namespaces"),
    ("delete", "", "namespaces"),
    ("list", "", "nodes"),
    ("create", "", "pods"),
    ("get", "", "pods/log"),
    ("create", "", "pods/exec"),
    ("create", "apps", "deployments"),
    ("create", "rbac.authorization.k8s.io", "clusterroles"),
    ("create", "apiextensions.k8s.io", "customresourcedefinitions"),
)
"""What the suites do in every cluster: (verb, group, resource)."""
LENT_RIGHTS = (
    ("list", "", "pods"),
    ("create", "", "pods"),
    ("delete", "", "pods"),
    ("create", "apps", "deployments"),
)
"""What they do in every namespace that is lent to them."""


class External:
    """Finds a cluster by kubeconfig, or from inside of it; neither creates nor deletes one."""

    def create(self, shape: Shape) -> Access:
        """Check within seconds that promises can be proven there; UsageError says what is in the way."""
        path, context = _named(shape)
        client = _client(path, context)
        _credentials_last(client, path)
        try:
            check_version(client)
            if shape.namespaces:
                _lent(client, shape.namespaces)
            else:
                _rights(client)
                _nodes(client)
        except SurroundingsError as error:
            raise pytest.UsageError(f"cluster of context {context!r}: {error}") from error
        return Access(provider="external", name=context, kubeconfig=str(path), context=context)

    def delete(self, access: Access) -> None:
        """It was only found."""

    def adopt(self, access: Access) -> None:
        """It was only found."""

    def collect_logs(self, access: Access, into: Path) -> None:
        """Its components' logs are its owner's."""


def peer(named: str) -> Access:
    """The cluster that `--peer` names, as `FILE` or `FILE:CONTEXT`, checked as every external cluster is."""
    file, _, context = named.partition(":")  # a context may well have colons in it
    try:
        return External().create(Shape(name="", kubeconfig=Path(file), context=context))
    except (pytest.UsageError, SurroundingsError) as error:
        raise pytest.UsageError(f"--peer={named}: {error}") from error


def connect(kubeconfig: Path | None, context: str) -> tuple[Client, Path, str]:
    """A client for a kubeconfig's context, that file, and the context's name; makes no request.

    UsageError with one sentence where neither is named, or they cannot be used.
    """
    if not kubeconfig and not context:
        raise pytest.UsageError("a cluster must be named by --kubeconfig or --context: none is chosen silently")
    path, chosen = _named(Shape(name="", kubeconfig=kubeconfig, context=context))
    client = _client(path, chosen)
    _credentials_last(client, path)
    return client, path, chosen


def _named(shape: Shape) -> tuple[Path, str]:
    if not shape.kubeconfig and not shape.context and not _in_a_pod():
        raise pytest.UsageError(
            "--cluster=external needs --kubeconfig or --context, or a pod with a service account's token to run in: "
            "no cluster is chosen silently"
        )
    if str(shape.kubeconfig) == IN_CLUSTER or not (shape.kubeconfig or shape.context):
        if shape.context not in ("", IN_CLUSTER):
            raise pytest.UsageError(f"--context={shape.context}: in a pod there is only its own cluster, no contexts")
        return Path(IN_CLUSTER), IN_CLUSTER
    path = (shape.kubeconfig or Path("~/.kube/config")).expanduser().absolute()
    try:
        raw = yaml.safe_load(path.read_text())
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise pytest.UsageError(f"--kubeconfig={path}: cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(raw, dict) or not isinstance(raw.get("contexts"), list):
        raise pytest.UsageError(f"--kubeconfig={path}: is not a kubeconfig: it has no list of contexts")
    known = [str(each.get("name")) for each in raw["contexts"] if isinstance(each, dict)]
    context = shape.context or str(raw.get("current-context") or "")
    if context not in known:
        asked = f"--context={context}: " if context else "no --context was given and there is no current context: "
        raise pytest.UsageError(f"{asked}{path} has the contexts {', '.join(known) or '(none)'}")
    return path, context


def _in_a_pod() -> bool:
    """Whether this runs in a pod of the cluster that it is to prove, and may speak to it."""
    token = Path(incluster_config.SERVICE_TOKEN_FILENAME)
    return bool(os.environ.get(incluster_config.SERVICE_HOST_ENV_NAME)) and token.is_file()


def _client(path: Path, context: str) -> Client:
    logger, complaints = logging.getLogger(), _Complaints()
    logger.addHandler(complaints)
    try:
        client = Client.from_kubeconfig(path, context)
    except (ConfigException, ValueError, OSError, TypeError, AttributeError) as error:
        if str(path) == IN_CLUSTER:
            raise pytest.UsageError(f"--kubeconfig={path}: this is no pod with a service account: {error}") from error
        # The two last: a file that has something else where the official client expects a list or a mapping.
        raise pytest.UsageError(f"{path}: context {context!r} cannot be used: {_one_line(error)}") from error
    finally:
        logger.removeHandler(complaints)
    if complaints.said:
        # The official client goes on without credentials, as somebody else.
        raise pytest.UsageError(f"{path}: context {context!r}: no credentials: {_one_line(complaints.said[0])}")
    return client


class _Complaints(logging.Handler):
    """Keeps what the official client only logs: that an exec plugin gave no credentials, and why."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())


def _one_line(said: object) -> str:
    return " ".join(str(said).split())


def _credentials_last(client: Client, path: Path) -> None:
    if not client.certificate:
        return
    end = x509.load_pem_x509_certificate(client.certificate.encode()).not_valid_after_utc
    if end < datetime.now(UTC):
        raise pytest.UsageError(f"{path}: its client certificate expired on {end:%Y-%m-%d %H:%M} UTC")


def _ask(client: Client, method: str, path: str, body: Any = None) -> Response:
    answer = client.request(method, path, body=body, timeout=5)
    if answer.status == 401:
        raise pytest.UsageError(f"{client.server}: refused the kubeconfig's credentials (401 Unauthorized)")
    return answer


def check_version(client: Client) -> None:
    """UsageError when it is no Kubernetes API server, refuses the credentials, or is of another version."""
    answer = _ask(client, "GET", "/version")
    try:
        version = answer.json()["gitVersion"]
        major, minor = re.match(r"v(\d+)\.(\d+)", version).groups()  # type: ignore[union-attr]  # no match: AttributeError
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise pytest.UsageError(
            f"{client.server}: does not answer like a Kubernetes API server: /version gave {answer.status}"
        ) from error
    if major != "1" or not OLDEST <= int(minor) <= NEWEST:
        raise pytest.UsageError(
            f"{client.server}: runs Kubernetes {version}; this version of clusterproof proves 1.{OLDEST} to 1.{NEWEST}"
        )


def _rights(client: Client) -> None:
    if _may(client, "*", "*", "*"):
        return
    missing = [f"{verb} {resource}" for verb, group, resource in RIGHTS if not _may(client, verb, group, resource)]
    if missing:
        raise pytest.UsageError(
            f"{client.server}: the kubeconfig's user may not {', '.join(missing)}; the suites need these rights"
        )


def _lent(client: Client, namespaces: Sequence[str]) -> None:
    # Whoever may not read a namespace (403) may still use it.
    if gone := [name for name in namespaces if _ask(client, "GET", kinds.NAMESPACE.path(None, name)).status == 404]:
        raise pytest.UsageError(
            f"--namespaces={','.join(namespaces)}: {client.server} has no namespace {', '.join(gone)}; "
            "name those that were made for the run"
        )
    lacking = [
        f"{verb} {resource} in {name}"
        for name in namespaces
        for verb, group, resource in LENT_RIGHTS
        if not _may(client, verb, group, resource, name)
    ]
    if lacking:
        raise pytest.UsageError(
            f"{client.server}: the kubeconfig's user may not {', '.join(lacking)}; --namespaces must name namespaces "
            "that are there, and that the user has these rights in"
        )


def _may(client: Client, verb: str, group: str, resource: str, namespace: str = "") -> bool:
    name, _, subresource = resource.partition("/")
    asked = {"verb": verb, "group": group, "resource": name, "subresource": subresource, "namespace": namespace}
    kind = kinds.SELF_SUBJECT_ACCESS_REVIEW
    body = {"apiVersion": kind.api_version, "kind": kind.kind, "spec": {"resourceAttributes": asked}}
    answer = _ask(client, "POST", kind.path(), body)
    return answer.status < 400 and bool(answer.json()["status"].get("allowed"))


def _nodes(client: Client) -> None:
    answer = _ask(client, "GET", kinds.NODE.path())
    nodes = [Object.of(client, raw, kinds.NODE) for raw in answer.json().get("items") or []]
    if not nodes:
        raise pytest.UsageError(f"{client.server}: has no nodes, so no pod can run")
    if not any(schedulable(node) for node in nodes):
        raise pytest.UsageError(f"{client.server}: no node takes pods: {'; '.join(lacking(nodes))}")


def lacking(nodes: Iterable[Object]) -> Iterator[str]:
    """What keeps pods from each of these nodes: `node-1 is Ready, with taint dedicated`."""
    for node in nodes:
        taints = [f"taint {taint['key']}" for taint in node.spec.get("taints") or []]
        ready = node.condition("Ready").get("status") == "True"
        yield f"{node.name} is {'' if ready else 'not '}Ready{', with ' + ', '.join(taints) if taints else ''}"
