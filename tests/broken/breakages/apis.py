"""The API as it is seen through a proxy that distorts it: events lost, answers that lie, schemas thrown away."""

from __future__ import annotations

import contextlib
import itertools
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from clusterproof.embedded.pki import Authority, Pair

from ..registry import Damage, breakage
from ..relay import Answer, Relay, Request, serving, speaking
from ..subject import Subject, kubeconfig_of

HERE = "127.0.0.1"
WRITES = {"POST", "PUT", "PATCH", "DELETE"}


@contextlib.contextmanager
def _through(subject: Subject, **distortion: Callable[..., object]) -> Iterator[list[str]]:
    """The API server behind a proxy that knows its clients by their certificates and tokens, as a front proxy does."""
    pki = subject.state.pki
    authority, trusted = Authority(pki, "ca"), str(pki / "ca.crt")
    identity = Pair(pki / "front-proxy-client.crt", pki / "front-proxy-client.key")
    with tempfile.TemporaryDirectory() as folder:
        pair = authority.issue("relay", user="relay", server=[HERE], folder=Path(folder))
        relay = Relay(
            HERE,
            subject.client.server.removeprefix("https://"),
            tls=serving(pair, trusted),
            towards=speaking(identity, trusted),
            speaks_for_clients=True,
            **distortion,  # type: ignore[arg-type]
        )
        with relay.running():
            yield [f"--kubeconfig={kubeconfig_of(subject, f'https://{relay.address}', Path(folder))}"]


@breakage(
    breaks={"api/watch/every_change": r"MUST tell of all \d+ changes, but missed"},
    keeps=["api/crud_conflict/stale_write", "apps/statefulset/parallel"],
)
def watch_drops_events(subject: Subject) -> Damage:
    """One event in 100 of all watches is lost."""
    count = itertools.count(1)

    def drop(request: Request, line: bytes) -> bytes | None:
        return line if next(count) % 100 else None

    with _through(subject, line=drop) as arguments:
        yield arguments


@breakage(
    breaks={"api/watch/every_change": r"500", "health/latency": r"500"},
    keeps=["api/crud_conflict/stale_write", "api/labels/selectors"],
)
def writes_answered_500(subject: Subject) -> Damage:
    """One write in 50 is answered with 500, although it was done."""
    count = itertools.count(1)

    def lie(request: Request, ask: Callable[[Request], Answer]) -> Answer:
        answer = ask(request)
        if request.method in WRITES and next(count) % 50 == 0:
            status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 500, "message": "timeout"}
            return Answer(500, {"Content-Type": "application/json"}, json.dumps(status).encode())
        return answer

    with _through(subject, exchange=lie) as arguments:
        yield arguments
