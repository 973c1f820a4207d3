"""Signed reports: one that is whole is verified, any other is refused."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from clusterproof.reports import keys, provenance, result
from clusterproof.reports.provenance import Refused
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from securesystemslib.dsse import Envelope
from securesystemslib.signer import CryptoSigner

from clusterproof import catalog, cli
from clusterproof.outcome import Run, Suites

from . import samples

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(32))
SUITES = Suites("f" * 64, ("apps/deployment/rolling_update", "health/livez", "storage/claim/dynamic"))
RUN = samples.mixed_run(suites=SUITES)


def written(run: Run, folder: Path) -> bytes:
    return result.write(run, folder).read_bytes()


@pytest.fixture
def report(tmp_path: Path) -> bytes:
    return written(RUN, tmp_path)


@pytest.fixture
def envelope(report: bytes) -> bytes:
    return provenance.sign(report, result.NAME, KEY)


def verify(envelope: bytes, report: bytes) -> Run:
    return provenance.check(provenance.open_envelope(envelope, KEY.public_key()), report)


def resigned(envelope: bytes, change: Callable[[dict[str, Any]], object], key: Ed25519PrivateKey = KEY) -> bytes:
    """An envelope as somebody makes it who holds the key and writes what he likes."""
    statement = json.loads(base64.b64decode(json.loads(envelope)["payload"]))
    change(statement)
    made = Envelope(json.dumps(statement).encode(), provenance.PAYLOAD_TYPE, {})
    made.sign(CryptoSigner(key))
    return json.dumps(made.to_dict(), separators=(",", ":")).encode() + b"\n"


def test_what_was_signed_is_verified(envelope: bytes, report: bytes) -> None:
    assert verify(envelope, report) == RUN


def test_the_statement_is_in_toto_s(envelope: bytes) -> None:
    document = json.loads(envelope)
    statement = json.loads(base64.b64decode(document["payload"]))

    assert document["payloadType"] == "application/vnd.in-toto+json"
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["subject"][0]["name"] == "result.json"
    said = statement["predicate"]
    assert said["suites"] == {"version": "0.1.0", "sha256": "f" * 64}
    assert said["cluster"]["uid"] == samples.CLUSTER.uid
    assert said["cluster"]["nodes"][0]["image"] == "Debian GNU/Linux 12"
    assert said["profiles"] == {"core": "broken", "networking": "partial"}
    assert said["promises"]["expected"] == sorted(RUN.expected)
    assert said["promises"]["notSelected"] == ["storage/claim/dynamic"]


def test_every_changed_byte_of_the_envelope_is_refused(envelope: bytes, report: bytes) -> None:
    assert envelope.endswith(b"\n")
    for position in range(len(envelope)):
        for bit in (1, 2, 32):
            changed = bytearray(envelope)
            changed[position] ^= bit
            with pytest.raises(Refused):
                verify(bytes(changed), report)


def test_every_changed_byte_of_the_report_is_refused(envelope: bytes, report: bytes) -> None:
    statement = provenance.open_envelope(envelope, KEY.public_key())
    for position in range(len(report)):
        changed = bytearray(report)
        changed[position] ^= 1
        with pytest.raises(Refused, match="should have sha256"):
            provenance.check(statement, bytes(changed))


@pytest.mark.parametrize("addition", [b" ", b"\n", b"\x00"])
def test_what_is_added_or_cut_off_is_refused(addition: bytes, envelope: bytes, report: bytes) -> None:
    for changed in (envelope + addition, addition + envelope, envelope[:-1]):
        with pytest.raises(Refused):
            verify(changed, report)
    for changed in (report + addition, addition + report, report[:-1], b""):
        with pytest.raises(Refused, match="should have sha256"):
            verify(envelope, changed)


@pytest.mark.parametrize(
    "content",
    [b"", b"[" * 100_000, b"\xff", b"null", b"{}", b'{"payload":1,"payloadType":"","signatures":[]}'],
)
def test_what_is_no_envelope_is_refused(content: bytes, report: bytes) -> None:
    with pytest.raises(Refused, match="the envelope should be"):
        verify(content, report)


@pytest.mark.parametrize(
    "rewrite",
    [
        lambda document: {**document, "more": 1},
        lambda document: {**document, "signatures": document["signatures"] * 2},
        lambda document: {**document, "signatures": []},
        lambda document: {**document, "payloadType": "text/plain"},
        lambda document: {**document, "payload": document["payload"].rstrip("=") + "===="},
        lambda document: dict(reversed(document.items())),
    ],
)
def test_an_envelope_written_otherwise_is_refused(
    rewrite: Callable[[dict[str, Any]], object], envelope: bytes, report: bytes
) -> None:
    changed = json.dumps(rewrite(json.loads(envelope)), separators=(",", ":")).encode() + b"\n"
    with pytest.raises(Refused):
        verify(changed, report)


def test_another_key_is_named(report: bytes) -> None:
    with pytest.raises(Refused, match=r"should be signed by key \w+, but names key '\w+'"):
        verify(provenance.sign(report, result.NAME, OTHER), report)


def test_another_key_under_the_name_of_the_right_one_is_refused(envelope: bytes, report: bytes) -> None:
    document = json.loads(provenance.sign(report, result.NAME, OTHER))
    document["signatures"][0]["keyid"] = json.loads(envelope)["signatures"][0]["keyid"]
    with pytest.raises(Refused, match="signature should be that of key"):
        verify(json.dumps(document, separators=(",", ":")).encode() + b"\n", report)


def fields(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of all values that hold no others."""
    if isinstance(value, dict) and value:
        for name, each in value.items():
            yield from fields(each, (*path, name))
    elif isinstance(value, list) and value:
        for number, each in enumerate(value):
            yield from fields(each, (*path, number))
    else:
        yield path


def test_every_changed_field_of_the_statement_is_refused_even_when_signed(envelope: bytes, report: bytes) -> None:
    statement = json.loads(base64.b64decode(json.loads(envelope)["payload"]))
    paths = list(fields(statement))
    assert len(paths) > 40

    for *way, last in paths:
        for lose in (False, True):

            def change(document: Any, way: list[Any] = way, last: Any = last, lose: bool = lose) -> None:
                for step in way:
                    document = document[step]
                if lose:
                    del document[last]
                else:
                    document[last] = f"{document[last]}x" if isinstance(document[last], str) else 17.5

            if lose is False and (*way, last) == ("subject", 0, "name"):
                continue  # the name of a file is not part of what it says
            with pytest.raises(Refused):
                verify(resigned(envelope, change), report)


@pytest.mark.parametrize("name", ["", ".", "..", "/etc/passwd", "../result.json", "a\nb", "\x1b[31m", "a\0"])
def test_a_report_is_named_by_a_file_name_only(name: str, envelope: bytes) -> None:
    changed = resigned(envelope, lambda statement: statement["subject"][0].update(name=name))
    with pytest.raises(Refused, match=r"at \$\.subject\[0\]\.name"):
        provenance.open_envelope(changed, KEY.public_key())


def test_a_contradiction_names_the_field(envelope: bytes, report: bytes) -> None:
    changed = resigned(envelope, lambda statement: statement["predicate"]["profiles"].update(core="conformant"))
    with pytest.raises(
        Refused, match=r'^profiles\.core should be "conformant", as was signed, but the report says "br'
    ):
        verify(changed, report)


LAST = RUN.results[-1].id

INCOMPLETE = {
    "missing": (replace(RUN, results=RUN.results[:-1]), f"but 1 have none: {LAST}"),
    "doubled": (replace(RUN, results=(*RUN.results, RUN.results[-1])), f"but 1 are doubled: {LAST}"),
    "added": (replace(RUN, results=(*RUN.results, samples.result("api/more"))), "but 1 others do: api/more"),
    "selected twice": (replace(RUN, expected=(*RUN.expected, LAST)), f"but 1 are doubled: {LAST}"),
    "of no suites": (replace(RUN, suites=None), "should name the suites"),
}


@pytest.mark.parametrize(("run", "reason"), INCOMPLETE.values(), ids=INCOMPLETE.keys())
def test_an_incomplete_report_is_neither_signed_nor_verified(
    run: Run, reason: str, envelope: bytes, tmp_path: Path
) -> None:
    changed = written(run, tmp_path)
    with pytest.raises(Refused) as refused:
        provenance.sign(changed, result.NAME, KEY)
    assert reason in str(refused.value)

    digest = {"sha256": provenance.hashlib.sha256(changed).hexdigest()}
    dishonest = resigned(envelope, lambda statement: statement["subject"][0].update(digest=digest))
    with pytest.raises(Refused) as refused:
        verify(dishonest, changed)
    assert reason in str(refused.value)


def test_a_promise_left_out_on_both_sides_of_the_report_is_still_missed(envelope: bytes, tmp_path: Path) -> None:
    changed = written(replace(RUN, results=RUN.results[:-1], expected=RUN.expected[:-1]), tmp_path)
    digest = {"sha256": provenance.hashlib.sha256(changed).hexdigest()}
    dishonest = resigned(envelope, lambda statement: statement["subject"][0].update(digest=digest))

    with pytest.raises(Refused, match=f"{len(RUN.expected)} promises should have an outcome, but 1 have none: {LAST}"):
        verify(dishonest, changed)


def test_the_suites_that_are_installed_here_have_the_last_word(tmp_path: Path) -> None:
    promises = tuple(sorted({promise.id for promise in catalog.scan([catalog.root()])}))
    honest = samples.run(samples.result("health/livez"), suites=Suites(catalog.digest(), promises))
    report = written(honest, tmp_path)
    assert verify(provenance.sign(report, result.NAME, KEY), report) == honest

    report = written(replace(honest, suites=Suites(catalog.digest(), promises[:-1])), tmp_path)
    with pytest.raises(Refused, match=f"the report disagrees on {promises[-1]}"):
        verify(provenance.sign(report, result.NAME, KEY), report)


Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Run a command in a folder with a report and keys; its exit code, output and error output."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(keys.PASSPHRASE, raising=False)
    result.write(RUN, tmp_path)

    def run_it(*arguments: object) -> tuple[int, str, str]:
        code = cli.main([*map(str, arguments)])
        return code, *capsys.readouterr()

    assert run_it("keygen", "vendor") == (0, "vendor.pem\nvendor.pub.pem\n", "")
    return run_it


def test_sign_and_verify(call: Call) -> None:
    assert Path("vendor.pem").stat().st_mode & 0o777 == 0o600
    assert call("sign", "result.json", "--key=vendor.pem") == (0, "result.json.intoto.jsonl\n", "")
    code, told, errors = call("verify-report", "result.json.intoto.jsonl", "--key=vendor.pub.pem")

    assert (code, errors) == (0, "")
    assert "verified             result.json, sha256 " in told
    assert f"cluster identity     {samples.CLUSTER.uid}" in told
    assert f"promises             {len(RUN.expected)} selected, each with one outcome; 1 of the suites" in told
    assert "not selected: storage/claim/dynamic" in told
    assert "core                 broken; " in told


def test_a_report_elsewhere(call: Call) -> None:
    call("sign", "result.json", "--key=vendor.pem", "--output=vouched")
    Path("result.json").rename("other.json")
    told = call("verify-report", "vouched", "--key=vendor.pub.pem")
    assert told == (4, "", "clusterproof: result.json: No such file or directory\n")
    assert call("verify-report", "vouched", "--key=vendor.pub.pem", "--report=other.json")[0] == 0


def test_a_refusal_says_what_was_expected_and_found(call: Call) -> None:
    call("sign", "result.json", "--key=vendor.pem")
    Path("result.json").write_text(Path("result.json").read_text().replace('"broken"', '"kept"', 1))
    code, told, errors = call("verify-report", "result.json.intoto.jsonl", "--key=vendor.pub.pem")

    assert (code, told) == (1, "")
    assert errors.startswith("clusterproof: result.json.intoto.jsonl is refused: result.json should have sha256 ")
    assert ", but has " in errors


def test_an_incomplete_report_is_not_signed(call: Call) -> None:
    result.write(replace(RUN, results=(*RUN.results[:-1], RUN.results[0])), Path())
    code, told, errors = call("sign", "result.json", "--key=vendor.pem")

    assert (code, told) == (1, "")
    assert errors.splitlines() == [
        "clusterproof: result.json is not signed:",
        f"  {len(RUN.expected)} promises should have an outcome, but 1 have none: {LAST}",
        f"  each promise should be there once, but 1 are doubled: {RUN.results[0].id}",
    ]
    assert not Path("result.json.intoto.jsonl").exists()


def test_all_bad_input_is_said_at_once(call: Call) -> None:
    code, _, errors = call("sign", "nothing.json", "--key=vendor.pub.pem", "--output=/nowhere/vouched")
    assert code == 4
    assert errors.splitlines() == [
        "clusterproof: 3 things are wrong with the input:",
        "  --output=/nowhere/vouched: there is no folder /nowhere",
        "  nothing.json: No such file or directory",
        "  --key: vendor.pub.pem: an Ed25519 private key in PEM is expected, but it holds a public key",
    ]
    code, _, errors = call("verify-report", "nothing", "--key=vendor.pem")
    assert code == 4
    assert errors.splitlines()[1:] == [
        "  nothing: No such file or directory",
        "  --key: vendor.pem: an Ed25519 public key in PEM is expected, but it holds a private key",
    ]
    Path("result.json").write_text("{}")
    assert call("sign", "result.json", "--key=vendor.pem")[0] == 4


def test_a_folder_is_no_report(call: Call) -> None:
    assert call("sign", ".", "--key=vendor.pem") == (4, "", "clusterproof: .: Is a directory\n")


@pytest.mark.parametrize("output", ["result.json", "vendor.pem", "link"])
def test_what_is_read_is_never_replaced(call: Call, output: str) -> None:
    before = Path("result.json").read_bytes(), Path("vendor.pem").read_bytes()
    Path("link").symlink_to("result.json")
    told = f"clusterproof: --output={output}: would replace what is read; name another file\n"
    assert call("sign", "result.json", "--key=vendor.pem", f"--output={output}") == (4, "", told)
    assert (Path("result.json").read_bytes(), Path("vendor.pem").read_bytes()) == before


def test_a_key_of_another_kind_is_named(call: Call) -> None:
    key = generate_private_key(SECP256R1())
    Path("ec.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    Path("ec.pub.pem").write_bytes(public)

    assert "an Ed25519 private key is expected, but it is a EC" in call("sign", "result.json", "--key=ec.pem")[2]
    assert "an Ed25519 public key is expected" in call("verify-report", "result.json", "--key=ec.pub.pem")[2]


def test_keys_are_never_overwritten(call: Call) -> None:
    before = Path("vendor.pem").read_bytes(), Path("vendor.pub.pem").read_bytes()
    assert call("keygen", "vendor") == (4, "", "clusterproof: vendor.pub.pem: File exists\n")
    Path("vendor.pub.pem").unlink()
    assert call("keygen", "vendor") == (4, "", "clusterproof: vendor.pem: File exists\n")
    assert Path("vendor.pem").read_bytes() == before[0]


def test_a_key_with_a_passphrase(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(keys.PASSPHRASE, "open sesame")
    assert call("keygen", "secret")[0] == 0
    assert call("sign", "result.json", "--key=secret.pem")[0] == 0
    assert "is set, but the key has none" in call("sign", "result.json", "--key=vendor.pem")[2]
    monkeypatch.setenv(keys.PASSPHRASE, "close sesame")
    assert call("sign", "result.json", "--key=secret.pem")[0] == 4
    monkeypatch.delenv(keys.PASSPHRASE)
    assert "is not set, but the key has one" in call("sign", "result.json", "--key=secret.pem")[2]
