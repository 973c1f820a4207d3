"""A result document vouched for: an in-toto Statement about it, in a DSSE envelope, signed with an Ed25519 key.

The statement repeats what a reader relies on, and lists the promises that were expected and those that were not
selected, so that an omission shows: a report without one of them is refused even when it was signed.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import jsonschema
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import CryptoSigner, SSlibKey

from clusterproof import catalog
from clusterproof.outcome import ClusterFacts, Run

from . import result

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
PREDICATE_TYPE = "https://clusterproof.dev/result/v1"

SUFFIX = ".intoto.jsonl"
"""What is appended to the name of a result document to name its envelope."""

_FILE_NAME = r"\A(?!\.*\Z)[^/\x00-\x1f\x7f]+\Z"
"""Never a path: the report is looked for beside the envelope."""
_TEXT = {"type": "string"}
_ENVELOPE = {
    "type": "object",
    "required": ["payload", "payloadType", "signatures"],
    "additionalProperties": False,
    "properties": {
        "payload": _TEXT,
        "payloadType": _TEXT,
        "signatures": {
            "type": "array",
            "minItems": 1,
            "maxItems": 1,
            "items": {
                "type": "object",
                "required": ["keyid", "sig"],
                "additionalProperties": False,
                "properties": {"keyid": _TEXT, "sig": _TEXT},
            },
        },
    },
}
_STATEMENT = {
    "type": "object",
    "required": ["_type", "subject", "predicateType", "predicate"],
    "properties": {
        "_type": {"const": STATEMENT_TYPE},
        "predicateType": {"const": PREDICATE_TYPE},
        "predicate": {"type": "object"},
        "subject": {
            "type": "array",
            "minItems": 1,
            "maxItems": 1,
            "items": {
                "type": "object",
                "required": ["name", "digest"],
                "properties": {
                    "name": {"type": "string", "pattern": _FILE_NAME},
                    "digest": {"type": "object", "required": ["sha256"], "properties": {"sha256": _TEXT}},
                },
            },
        },
    },
}


class Refused(Exception):
    """A report that must not be believed, or must not be signed: one sentence for each reason."""

    def __init__(self, *reasons: str) -> None:
        super().__init__("; ".join(reasons))
        self.reasons = reasons


@dataclass(frozen=True, slots=True)
class Statement:
    """What somebody who holds the key has said of a result document."""

    key_id: str
    name: str
    """The document's file name."""
    sha256: str
    predicate: dict[str, Any]


def sign(report: bytes, name: str, key: Ed25519PrivateKey) -> bytes:
    """The envelope for a result document, which is a file of one line.

    ValueError when it is no result document; Refused when promises are missing from it or doubled in it.
    """
    run = result.parse(report, name)
    if reasons := [*_without_suites(run), *_omissions(run)]:
        raise Refused(*reasons)
    statement = {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": name, "digest": {"sha256": hashlib.sha256(report).hexdigest()}}],
        "predicateType": PREDICATE_TYPE,
        "predicate": predicate(run),
    }
    envelope = Envelope(json.dumps(statement, separators=(",", ":")).encode(), PAYLOAD_TYPE, {})
    envelope.sign(CryptoSigner(key))
    return _serialized(envelope)


def open_envelope(content: bytes, key: Ed25519PublicKey) -> Statement:
    """What the holder of the key has said. Refused, with what was expected and found, when he has not said it."""
    public = SSlibKey.from_crypto(key)
    try:
        document = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise Refused(f"the envelope should be JSON, but: {error}") from None
    _fits(document, _ENVELOPE, "the envelope should be a DSSE envelope with one signature")
    found = document["signatures"][0]["keyid"]
    if found != public.keyid:
        raise Refused(f"the envelope should be signed by key {public.keyid}, but names key {found!r:.80}")
    try:
        envelope = Envelope.from_dict(document)
        envelope.verify([public], 1)
    except (ValueError, VerificationError):
        raise Refused(f"the envelope's signature should be that of key {public.keyid}, but is not") from None
    # Base64 and JSON can say the same thing in several ways; only one of them was written by `sign`.
    if _serialized(envelope) != content:
        raise Refused("the envelope should be byte by byte what was signed, but is written differently")
    if envelope.payload_type != PAYLOAD_TYPE:
        raise Refused(f"the envelope should hold {PAYLOAD_TYPE}, but holds {envelope.payload_type!r:.80}")
    return _statement(public.keyid, envelope.payload)


def check(statement: Statement, report: bytes) -> Run:
    """The run of a result document that is as was said. Refused, with all reasons, when it is not."""
    found = hashlib.sha256(report).hexdigest()
    if found != statement.sha256:
        raise Refused(f"{statement.name} should have sha256 {statement.sha256}, but has {found}")
    try:
        run = result.parse(report, statement.name)
    except ValueError as error:
        raise Refused(str(error)) from None
    expected = statement.predicate.get("promises", {})
    listed = expected.get("expected") if isinstance(expected, dict) else None
    reasons = [
        *_without_suites(run),
        *_omissions(run, listed if isinstance(listed, list) else ()),
        *_unlike_the_suites(run),
    ]
    if not reasons:
        reasons = list(_contradictions(statement.predicate, predicate(run), ""))
    if reasons:
        raise Refused(*reasons)
    return run


def predicate(run: Run) -> dict[str, Any]:
    """What is said of a run: everything a reader of the report relies on. The run's suites must be known."""
    assert run.suites is not None
    selected = {each.partition("[")[0] for each in run.expected}
    return {
        "schema": run.schema,
        "run": {"id": run.id, "started": run.started, "seconds": run.seconds, "complete": run.complete},
        "suites": {"version": run.suite_version, "sha256": run.suites.sha256},
        "cluster": _cluster(run.cluster) if run.cluster else None,
        "profiles": {each.profile: each.verdict.value for each in run.profiles},
        "outcomes": run.counts,
        "promises": {
            "expected": sorted(run.expected),
            "notSelected": sorted(set(run.suites.promises) - selected),
        },
    }


def _cluster(cluster: ClusterFacts) -> dict[str, Any]:
    return {
        "uid": cluster.uid,
        "version": cluster.version,
        "provider": cluster.provider,
        "nodes": [
            {
                "name": node.name,
                "version": node.version,
                "image": node.os_image,
                "kernel": node.kernel,
                "runtime": node.runtime,
            }
            for node in cluster.nodes
        ],
        "capabilities": sorted(fact.name for fact in cluster.capabilities if fact.supported),
    }


def _serialized(envelope: Envelope) -> bytes:
    return json.dumps(envelope.to_dict(), separators=(",", ":")).encode() + b"\n"


def _statement(key_id: str, payload: bytes) -> Statement:
    try:
        document = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise Refused(f"the envelope should hold a JSON document, but: {error}") from None
    _fits(document, _STATEMENT, f"the envelope should hold an in-toto Statement of type {PREDICATE_TYPE}")
    (subject,) = document["subject"]
    return Statement(key_id, subject["name"], subject["digest"]["sha256"], document["predicate"])


def _fits(document: Any, schema: dict[str, Any], expected: str) -> None:
    wrong = jsonschema.exceptions.best_match(jsonschema.Draft202012Validator(schema).iter_errors(document))
    if wrong:
        raise Refused(f"{expected}, but at {wrong.json_path}: {wrong.message[:200]}")


def _without_suites(run: Run) -> Iterator[str]:
    if run.suites is None:
        yield "the report should name the suites its promises are from, as `pytest suites/` writes it, but names none"


def _omissions(run: Run, listed: Iterable[str] | None = None) -> Iterator[str]:
    """Promises that do not have exactly one outcome, by what was selected and by what is listed elsewhere."""
    expected = set(run.expected) | set(run.expected if listed is None else listed)
    outcomes = Counter(each.id for each in run.results)
    if missing := sorted(expected - outcomes.keys()):
        yield f"{len(expected)} promises should have an outcome, but {len(missing)} have none: {_some(missing)}"
    if doubled := sorted(each for each, number in (outcomes | Counter(run.expected)).items() if number > 1):
        yield f"each promise should be there once, but {len(doubled)} are doubled: {_some(doubled)}"
    if added := sorted(outcomes.keys() - expected):
        yield f"only promises that were selected should have an outcome, but {len(added)} others do: {_some(added)}"


def _unlike_the_suites(run: Run) -> Iterator[str]:
    """What a report says of the suites, as far as they are installed here, too."""
    if run.suites and run.suites.sha256 == catalog.digest():
        there = {promise.id for promise in catalog.scan([catalog.root()])}
        if wrong := sorted(there ^ set(run.suites.promises)):
            yield f"the suites of this sha256 have {len(there)} promises, but the report disagrees on {_some(wrong)}"


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _contradictions(said: Any, found: Any, where: str) -> Iterator[str]:
    """Where the statement and the report differ, down to the field."""
    if isinstance(said, dict) and isinstance(found, dict):
        for name in sorted(said.keys() | found.keys()):
            yield from _contradictions(said.get(name), found.get(name), f"{where}.{name}" if where else name)
    elif said != found or isinstance(said, bool) is not isinstance(found, bool):
        yield f"{where} should be {_short(said)}, as was signed, but the report says {_short(found)}"


def _short(value: Any) -> str:
    told = json.dumps(value)
    return told if len(told) <= 100 else f"{told[:100]} …"
