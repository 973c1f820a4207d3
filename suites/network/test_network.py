"""The pod network: every pod reaches every other one, on any node, as itself and with packets of any size."""

from __future__ import annotations

import functools
import hashlib
from typing import Any

import pytest

from clusterproof import Images, Namespace, Object, Timeouts, eventually, inside
from clusterproof.conditions import ready
from clusterproof.manifests import http_probe, pod


@pytest.mark.smoke
def test_pod_to_pod(namespace: Namespace, nodes: list[Object], images: Images, timeouts: Timeouts) -> None:
    """Every pod MUST reach every other pod by its address, with any amount of data, and be seen under its own.

    Every pair of nodes is tried in both directions, and two pods of one node: by TCP and UDP, and with packets of the
    interface's full size; each pod exchanges more than 1 MiB with up to eight others. No address is translated on the
    way.

    Source: https://kubernetes.io/docs/concepts/services-networking/#the-kubernetes-network-model
    """
    places = [nodes[0], *nodes]
    server: dict[str, Any] = {"args": ["netexec"], "readiness": http_probe(path="/healthz")}
    peers = [
        namespace.create(pod(f"peer-{number}", images.agnhost, node=node.name, **server))
        for number, node in enumerate(places)
    ]
    for peer in peers:
        eventually(peer, ready, within=timeouts.pod)

    for number, source in enumerate(peers):
        others = [*peers[number + 1 :], *peers[:number]]
        ask = functools.partial(_ask, source, others)
        all_well = functools.partial(_all_well, source, others)
        what = f"{_place(source)} exchanges data with every other pod"
        eventually(ask, all_well, within=timeouts.propagation, describe=what)


Answers = dict[tuple[str, str], str]
"""By address of the peer and name of the question."""

_BULK = "-".join(str(number) for number in range(1, 200_001))
_ASK_ALL = r"""
sent=$(seq -s - 200000)
read -r mtu < /sys/class/net/eth0/mtu
at_a_time=$1 number=0
shift
for peer; do (
    case $peer in *:*) url=http://[$peer]:8080 headers=48;; *) url=http://$peer:8080 headers=28;; esac
    tcp() { curl --silent --max-time 6 "$@"; }
    dial="http://localhost:8080/dial?protocol=udp&host=$peer&port=8081&request"
    udp() { tcp "$dial=$1" | sed 's/.*\["//; s/"\].*//'; }
    full=$(printf '%*s' $(((mtu < 2048 ? mtu : 2048) - headers - 5)) '' | tr ' ' x)
    reply=$(udp "echo%20$full")
    echo "$peer name $(tcp "$url/hostname")"
    echo "$peer TCP source $(tcp "$url/clientip")"
    echo "$peer UDP source $(udp clientip)"
    echo "$peer full packet $([ "$reply" = "$full" ] && echo intact || echo "${reply:0:80}")"
    [ $number -ge $at_a_time ] ||
        echo "$peer bulk $(printf 'msg=%s' "$sent" | tcp --data-binary @- "$url/echo" | sha256sum)"
) & [ $((number += 1)) -lt $at_a_time ] || wait -n; done
wait
"""
"""Asks each peer, so many at a time, for its name and for our address as it sees it, and sends it a packet as large as
the network interface allows (or as the peer's buffer holds) and, if it is among the first of them, 1.3 MB; both come
back."""
_AT_A_TIME = 8
"""How many peers are asked at a time, and given the larger amount of data: all of many nodes would be too much."""
_QUESTIONS = ("name", "TCP source", "UDP source", "full packet", "bulk")


def _ask(source: Object, others: list[Object]) -> Answers:
    """Ask all other pods everything."""
    addresses = [str(other.status["podIP"]) for other in others]
    said = source.exec(["bash", "-c", _ASK_ALL, "ask", str(_AT_A_TIME), *addresses]).stdout
    answers = {}
    for line in said.splitlines():
        address, _, rest = line.partition(" ")
        question = next(question for question in _QUESTIONS if rest.startswith(question))
        answers[address, question] = rest.removeprefix(question).strip()
    return answers


def _all_well(source: Object, others: list[Object], answers: Answers) -> str | None:
    """What is wrong with the answers, by peer."""
    own = source.status["podIP"]
    seen_as = f"{inside.in_url(own)}:"
    checksum = hashlib.sha256(_BULK.encode()).hexdigest()
    wrong = []
    for number, other in enumerate(others):
        begins = dict(zip(_QUESTIONS, (other.name, seen_as, seen_as, "intact", checksum), strict=True))
        if number >= _AT_A_TIME:
            del begins["bulk"]
        for question, expected in begins.items():
            answer = answers.get((other.status["podIP"], question), "")
            if not answer.startswith(expected):
                wrong.append(f"{_place(other)}: {question} should be {expected}, not {answer or 'without answer'}")
    return "; ".join(wrong) or None


def _place(peer: Object) -> str:
    return f"{peer.name} on {peer.spec.get('nodeName')}"
