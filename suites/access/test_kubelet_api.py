"""The kubelet's own API: it answers whom the cluster has let in, and nobody else."""

from __future__ import annotations

import pytest

from clusterproof import (
    Cluster,
    Images,
    Namespace,
    Object,
    Timeouts,
    conditions,
    eventually,
    hollow,
    inside,
    kinds,
    manifests,
    measure,
)

TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount/token"
READ_ONLY = 10255
PATHS = ("/pods", "/runningpods/", "/metrics", "/logs/", "/configz", "/exec/default/none/main?command=id")
UNREACHED = "000"
"""What curl gives for a status when it could not connect."""


@pytest.mark.smoke
def test_refuses(cluster: Cluster, namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """Every kubelet MUST refuse whoever shows no credentials, false ones, or those of a service account without rights.

    Asked from a pod. A kubelet that pods do not reach is not open to them either; how many were reached is reported.

    Source: https://kubernetes.io/docs/reference/access-authn-authz/kubelet-authn-authz/
    """
    pod = namespace.create(manifests.pod("pod", images.agnhost, args=["pause"], service_account="default"))
    eventually(pod, conditions.running, within=timeouts.pod)
    token = pod.exec(["cat", TOKEN], within=timeouts.request).stdout
    urls = [
        f"https://{_host(node)}:{_port(node)}{path}"
        for node in cluster.list(kinds.NODE, labels=hollow.MACHINES)
        for path in PATHS
    ]

    nobody = _codes(pod, urls, timeouts)
    false = _codes(pod, urls, timeouts, "Authorization: Bearer false")
    powerless = _codes(pod, urls, timeouts, f"Authorization: Bearer {token}")

    measure("kubelets reached", sum(code != UNREACHED for code in nobody.values()) / len(PATHS))
    for who, codes, refusals in (
        ("somebody without credentials", nobody, ("401", "403")),
        ("somebody with a false token", false, ("401",)),
        ("a service account without rights", powerless, ("403",)),
    ):
        let_in = {url: code for url, code in codes.items() if code not in (*refusals, UNREACHED)}
        assert not let_in, f"kubelets MUST refuse {who} with {' or '.join(refusals)}, but answered {let_in}"


@pytest.mark.smoke
def test_read_only_port(cluster: Cluster, namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """No kubelet MUST serve its read-only port, which asks nobody for credentials.

    Source: https://kubernetes.io/docs/reference/config-api/kubelet-config.v1beta1/
    """
    pod = namespace.create(manifests.pod("pod", images.agnhost, args=["pause"]))
    eventually(pod, conditions.running, within=timeouts.pod)

    codes = _codes(
        pod,
        [f"http://{_host(node)}:{READ_ONLY}/pods" for node in cluster.list(kinds.NODE, labels=hollow.MACHINES)],
        timeouts,
    )

    served = {url: code for url, code in codes.items() if code != UNREACHED}
    assert codes, "there is no node to ask"
    assert not served, f"the read-only port MUST be closed on every node, but answers {served}"


def _codes(pod: Object, urls: list[str], timeouts: Timeouts, header: str = "") -> dict[str, str]:
    """How each URL is answered when it is asked from a pod."""
    command = [
        "curl",
        "-sk",
        "--parallel",
        "--parallel-max",
        "300",
        "--connect-timeout",
        "2",
        "--max-time",
        f"{timeouts.request / 3:g}",
        "-w",
        "%{url_effective} %{http_code}\n",
    ]
    command += ["-H", header] if header else []
    for url in urls:
        command += ["-o", "/dev/null", url]
    lines = pod.exec(command, within=2 * timeouts.request * (1 + len(urls) // 300)).stdout.splitlines()
    codes = dict(line.rsplit(" ", 1) for line in lines)
    missing = set(urls) - set(codes)
    assert not missing, f"curl in {pod} told nothing of {missing}, only {lines}"
    return codes


def _host(node: Object) -> str:
    """A node's address as it stands in a URL."""
    addresses = {each["type"]: each["address"] for each in reversed(node.status["addresses"])}
    return inside.in_url(str(addresses.get("InternalIP") or addresses["Hostname"]))


def _port(node: Object) -> int:
    return int(node.status["daemonEndpoints"]["kubeletEndpoint"]["Port"])
