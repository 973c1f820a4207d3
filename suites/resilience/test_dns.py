"""The cluster's DNS: what clients notice when a server of it goes away."""

from __future__ import annotations

import pytest

from clusterproof import Cluster, Images, Namespace, Timeouts, eventually, kinds, manifests, measure
from clusterproof.conditions import all_ready, gone, running

pytestmark = pytest.mark.disruptive

ASKED = "kubernetes.default"
_ASK = r"""
while :; do
    # Of a try that fails, dig tells among the answers, also where the next one succeeds.
    answer=$(dig +search +short +time=2 +tries=3 "$1" "$2" 2>&1 | grep -v '^;; communications error')
    echo "${answer:-no such name}"
    sleep 0.05
done
"""
"""Asks for a name's record all the time, and as patiently as a resolver does; each answer is a line."""


def test_pod_loss(cluster: Cluster, namespace: Namespace, images: Images, timeouts: Timeouts) -> None:
    """Names MUST be found, at every look-up, while a pod of the cluster's DNS is told to end and is replaced.

    Source: https://kubernetes.io/docs/concepts/services-networking/dns-pod-service/
    """
    servers = cluster.select(kinds.POD, "kube-system", "k8s-app=kube-dns")
    before = servers.read()
    if len(before) < 2:
        pytest.skip(f"{len(before)} pods in kube-system are labelled k8s-app=kube-dns: nobody stands in for one")
    service = cluster.get(kinds.SERVICE, "kubernetes", "default")
    record = "AAAA" if ":" in service.spec["clusterIP"] else "A"
    asking = ["bash", "-c", _ASK, "ask", ASKED, record]
    client = namespace.create(manifests.pod("client", images.agnhost, command=asking))
    eventually(client, running, within=timeouts.pod)

    for pod in before[:2]:
        pod.delete()
        eventually(pod, gone, within=timeouts.pod_end)
        eventually(servers, all_ready(len(before)), within=timeouts.recovery)

    answers = client.logs().splitlines()
    failed = [answer for answer in answers if answer != service.spec["clusterIP"]]
    measure("look-ups", len(answers))
    assert answers, f"{client} has not looked up {ASKED} even once"
    assert not failed, f"{client} looked up {ASKED} {len(answers)} times, of which {len(failed)} failed: {failed[0]}"
