"""``postseal inspect``: every part of an envelope, none of its secrets, and what is wrong with what is no envelope."""

import base64
import io
import json
import os
import sys
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from hypothesis import given
from hypothesis import strategies as st

from postseal.core import (
    Ed25519Key,
    Es256Key,
    HmacKey,
    KeyRing,
    Policy,
    Sealer,
    UnsafeLocalKeys,
    UnsafeLocalKeysWarning,
    Verdict,
)
from postseal.core.cli._anatomy import _WRAPPING
from postseal.core.cli._app import run
from postseal.core.cli._encodings import ENCODINGS, read
from postseal.core.errors import Refused
from postseal.core.providers.local import ALGORITHM as LOCAL
from postseal.core.wire import decode, looks_sealed

BODY = b"4111 1111 1111 1111"
SENT = datetime(2026, 10, 17, 12, 30, 15, 250_000, UTC)
WRITTEN = {
    "raw": lambda data: data,
    "base64": base64.b64encode,
    "base64url": lambda data: base64.urlsafe_b64encode(data).rstrip(b"="),
    "hex": lambda data: data.hex().encode(),
}


def ring(*keys):
    return KeyRing(keys)


@pytest.fixture(scope="module")
def sealer() -> Sealer:
    with pytest.warns(UnsafeLocalKeysWarning):
        main, archive = UnsafeLocalKeys.ephemeral("main"), UnsafeLocalKeys.ephemeral("archive")
    policies = [
        Policy(
            name="hidden",
            destinations=["kafka:hidden"],
            keys=["main", "archive"],
            bind_headers=["tenant", "content-type"],
            version=7,
        ),
        *(
            Policy(
                name=f"signed-{sign}",
                destinations=[f"kafka:{sign}"],
                keys=["main"],
                protection="privacy",
                sign=sign,
                senders=["shop"],
            )
            for sign in ("ed25519", "es256", "hmac")
        ),
        Policy(
            name="open", destinations=["kafka:open"], protection="integrity", sign="hmac", senders=["shop"]
        ),
    ]
    signers = {
        "ed25519": ring(
            Ed25519Key("shop-1", private_key=ed25519.Ed25519PrivateKey.generate(), senders=["shop"])
        ),
        "es256": ring(
            Es256Key("shop-2", private_key=ec.generate_private_key(ec.SECP256R1()), senders=["shop"])
        ),
        "hmac": ring(HmacKey("group-1", os.urandom(32))),
    }
    return Sealer(
        sender="shop",
        policies=policies,
        keys={"main": main, "archive": archive},
        signers=signers,
        clock=lambda: int(SENT.timestamp() * 1000) * 1_000_000,
    )


@pytest.fixture
def inspect(tmp_path, capsys):
    """Give what runs ``postseal inspect --json`` over contents, and returns its exit code and reports."""

    def inspected(*contents: bytes, options: tuple[str, ...] = ()):
        paths = []
        for index, content in enumerate(contents):
            path = tmp_path / f"{index}.bin"
            path.write_bytes(content)
            paths.append(str(path))
        code = run(["inspect", "--json", *options, *paths])
        out, err = capsys.readouterr()
        assert err == ""
        return code, [json.loads(line) for line in out.splitlines()]

    return inspected


def test_confidentiality_shows_every_part(sealer, inspect):
    envelope = sealer.seal(
        BODY,
        destination="kafka:hidden",
        content_type="text/plain",
        headers={"tenant": "acme"},
        expires_at=datetime(2030, 1, 1, tzinfo=UTC),
    )
    header = decode(envelope).header
    code, [report] = inspect(envelope)
    assert code == 0
    assert (report["ok"], report["authenticated"], report["encoding"]) == (True, False, "raw")
    assert (report["version"], report["protection"], report["structure"]) == (
        1,
        "confidentiality",
        "COSE_Encrypt",
    )
    assert report["unverified"] == {
        "sender": "shop",
        "destination": "kafka:hidden",
        "sent_at": "2026-10-17T12:30:15.250Z",
        "expires_at": "2030-01-01T00:00:00.000Z",
        "message_id": header.message_id.hex(),
        "content_type": "text/plain",
        "policy": "hidden",
        "policy_version": 7,
        "bound_headers": ["content-type", "tenant"],
        "encrypts_headers": False,
        "in_reply_to": None,
        "encryption": {
            "algorithm": "AES-256-GCM",
            "number": 3,
            "nonce": header.nonce.hex(),
            "key_commitment": header.commitment.hex(),
        },
        "recipients": [
            {
                "algorithm": "local key file (development)",
                "number": -65538,
                "key_id": name,
                "key_id_hex": name.encode().hex(),
                "wrapped_key_bytes": 60,
            }
            for name in ("main", "archive")
        ],
        "signature": None,
    }


@pytest.mark.parametrize(
    ("sign", "structure", "signature"),
    [
        ("ed25519", "COSE_Sign1", ("EdDSA (Ed25519)", -8, "shop-1", 64, "sender")),
        ("es256", "COSE_Sign1", ("ES256", -7, "shop-2", 64, "sender")),
        ("hmac", "COSE_Mac0", ("HMAC 256/256", 5, "group-1", 32, "group")),
    ],
)
def test_privacy_says_who_would_have_signed(sealer, inspect, sign, structure, signature):
    """D9: a MAC is said to prove a group, a signature a sender."""
    code, [report] = inspect(sealer.seal(BODY, destination=f"kafka:{sign}"))
    assert code == 0
    assert report["protection"] == "privacy"
    assert report["structure"] == f"{structure} around COSE_Encrypt"
    assert len(report["unverified"]["recipients"]) == 1
    shown = report["unverified"]["signature"]
    names = ("algorithm", "number", "key_id", "bytes", "would_prove")
    assert tuple(shown[name] for name in names) == signature


def test_integrity_says_that_the_body_is_clear_and_does_not_show_it(sealer, tmp_path, capsys):
    path = tmp_path / "open.bin"
    path.write_bytes(sealer.seal(BODY, destination="kafka:open"))
    assert run(["inspect", str(path)]) == 0
    out = capsys.readouterr().out
    assert "in clear: integrity hides nothing" in out
    assert "4111" not in out
    assert "encryption" not in out
    assert "recipient " not in out


@pytest.mark.parametrize("destination", ["hidden", "ed25519", "es256", "hmac", "open"])
@pytest.mark.parametrize("size", [0, 19, 300, 70_000])
def test_sizes_add_up(sealer, inspect, destination, size):
    envelope = sealer.seal(b"x" * size, destination=f"kafka:{destination}")
    _, [report] = inspect(envelope)
    sizes = report["bytes"]
    assert sizes["body"] == size
    assert sizes["envelope"] == len(envelope) == size + sizes["added"]
    assert sizes["header"] + sizes["recipients"] + sizes["signature"] < sizes["added"]
    assert sizes["as_base64url"] == len(WRITTEN["base64url"](envelope))


@pytest.mark.parametrize("destination", ["hidden", "ed25519", "open"])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_the_encoding_is_found(sealer, inspect, destination, encoding):
    envelope = sealer.seal(BODY * 20, destination=f"kafka:{destination}")
    _, [plain, written, told] = (
        0,
        [
            inspect(envelope)[1][0],
            inspect(WRITTEN[encoding](envelope))[1][0],
            inspect(WRITTEN[encoding](envelope), options=("--encoding", encoding))[1][0],
        ],
    )
    for report in (written, told):
        # Bytes that need none of the characters in which the two alphabets differ are both.
        assert report.pop("encoding") in ({encoding, "base64"} if encoding == "base64url" else {encoding})
    assert plain.pop("encoding") == "raw"
    assert written == told == plain


@given(body=st.binary(max_size=64), encoding=st.sampled_from(["base64", "base64url", "hex"]), data=st.data())
def test_text_may_be_broken_into_lines_quoted_and_upper_case(body, encoding, data):
    envelope = b"\xd8\x60\x84\x58\x20\xa4\x01" + body
    text = WRITTEN[encoding](envelope)
    if encoding == "hex" and data.draw(st.booleans()):
        text = b"0x" + text.upper()
    width = data.draw(st.integers(4, 80))
    broken = b"\r\n".join(text[start : start + width] for start in range(0, len(text), width))
    assert read(b' "' + broken + b'"\n').data == envelope


def test_standard_input_is_read(sealer, capsys, monkeypatch):
    text = WRITTEN["base64url"](sealer.seal(BODY, destination="kafka:hmac"))
    for args in (["inspect", "--json"], ["inspect", "--json", "-"]):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))
        assert run(args) == 0
        assert json.loads(capsys.readouterr().out)["source"] == "standard input"


def test_with_nothing_to_read_a_terminal_is_not_waited_for(monkeypatch, capsys):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stdin", Terminal())
    assert run(["inspect"]) == 2
    assert capsys.readouterr().err == "postseal: nothing to inspect: name a file, or pipe an envelope in\n"


def test_a_misspelt_file_gets_the_nearest_name(tmp_path, capsys):
    (tmp_path / "orders.bin").write_bytes(b"")
    assert run(["inspect", str(tmp_path / "oders.bin")]) == 2
    assert f"did you mean '{tmp_path / 'orders.bin'}'?" in capsys.readouterr().err


def test_several_are_shown_though_one_of_them_is_none(sealer, inspect):
    good = sealer.seal(BODY, destination="kafka:hidden")
    code, reports = inspect(good, b'{"card": "4111"}', good)
    assert code == 1
    assert [report["ok"] for report in reports] == [True, False, True]


@pytest.mark.parametrize(
    ("clear", "begins"), [(b'{"card": "4111 1111 1111 1111"}', "7b"), (b"4111111111111111", "34")]
)
def test_clear_text_is_unprotected_and_not_shown(inspect, clear, begins):
    code, [report] = inspect(clear)
    assert code == 1
    assert report["verdict"] == "unprotected"
    assert report["error"].endswith(f"begins with {begins}")
    assert "4111" not in json.dumps(report)


def test_an_empty_file_is_said_to_be_empty(inspect):
    code, [report] = inspect(b"")
    assert (code, report["error"]) == (1, "this is no envelope: it is empty")


@pytest.mark.parametrize(
    ("change", "wrong", "where"),
    [
        (lambda e: e[:-1], "the envelope ends early", "at byte {size:,} of {less:,} of the envelope"),
        (
            lambda e: e + b"\0",
            "1 bytes after the end of the envelope",
            "at byte {size} of {more} of the envelope",
        ),
        (
            lambda e: e.replace(b"\x01\x03", b"\x01\x02", 1),
            "encryption algorithm 2 is not of this profile",
            "at byte 3 of {header} of the header",
        ),
        (
            lambda e: e.replace(b"\x3a\x00\x01\x00\x00\x87\x01", b"\x3a\x00\x01\x00\x00\x87\x02", 1),
            "version 2; this library knows version 1",
            "of the header",
        ),
        (lambda e: e.replace(b"kafka:", b"kafk\xff:", 1), "text that is not UTF-8", "of the header"),
    ],
)
def test_malformed_bytes_are_told_what_is_wrong_and_where(sealer, inspect, change, wrong, where):
    envelope = sealer.seal(BODY, destination="kafka:hidden")
    assert change(envelope) != envelope
    code, [report] = inspect(change(envelope))
    assert code == 1
    assert (report["ok"], report["verdict"]) == (False, "malformed")
    size = len(envelope)
    at = where.format(size=size, less=size - 1, more=size + 1, header=len(decode(envelope).protected))
    assert wrong in report["error"]
    if "ends early" not in wrong:
        assert at in report["error"]
    else:
        assert f"of {size - 1} of the envelope" in report["error"]


@pytest.mark.parametrize(
    ("encoding", "given", "error"),
    [
        ("hex", b"d86084zz", "this is not hex: byte 6 is 0x7a"),
        ("hex", b"d8608", "this is not hex: characters are missing, or too many"),
        ("base64", b"2GCE_w==", "this is not base64: byte 4 is 0x5f"),
        ("base64url", b"2GCE/w==", "this is not base64url: byte 4 is 0x2f"),
        ("base64", b"2GCEW", "this is not base64: characters are missing, or too many"),
    ],
)
def test_what_is_not_of_the_encoding_named_is_told_where(inspect, encoding, given, error):
    code, [report] = inspect(given, options=("--encoding", encoding))
    assert (code, report["error"]) == (1, error)


@given(st.binary(max_size=200).filter(lambda data: data[:1] not in b"\xd1\xd2\xd8"))
def test_bytes_that_begin_otherwise_are_decoded_text_or_refused(data):
    verdict = None
    try:
        found = read(data)
    except Refused as refused:
        verdict = refused.verdict
    else:
        assert found.encoding != "raw"
        assert looks_sealed(found.data)
    assert verdict in {None, Verdict.UNPROTECTED}


def test_what_others_wrote_does_not_reach_the_terminal_as_commands(sealer, tmp_path, capsys):
    path = tmp_path / "evil.bin"
    path.write_bytes(sealer.seal(BODY, destination="kafka:hidden", content_type="a\x1b[2J\x07\u202eb[red]c"))
    assert run(["inspect", str(path)]) == 0
    out = capsys.readouterr().out
    assert r"a\x1b[2J\x07\u202eb[red]c" in out
    assert not {"\x1b", "\x07", "\u202e"} & set(out)


def test_it_says_plainly_that_nothing_is_authenticated(sealer, tmp_path, capsys):
    path = tmp_path / "order.bin"
    path.write_bytes(sealer.seal(BODY, destination="kafka:ed25519"))
    assert run(["inspect", str(path)]) == 0
    out = capsys.readouterr().out
    assert "UNVERIFIED: nothing below is authenticated" in out
    assert "signature, unchecked" in out
    assert max(map(len, out.splitlines())) <= 80


def test_wrapping_algorithms_have_the_numbers_of_their_providers():
    from postseal.core.providers.aws_kms import ALGORITHM as AWS

    assert _WRAPPING[AWS] == "AWS KMS"
    assert _WRAPPING[LOCAL].startswith("local key file")


def test_an_unknown_wrapping_algorithm_is_shown_by_its_number(sealer, inspect):
    envelope = sealer.seal(BODY, destination="kafka:hmac")
    changed = envelope.replace(b"\x3a\x00\x01\x00\x01", b"\x3a\x00\x01\x00\x09")
    _, [report] = inspect(changed)
    [recipient] = report["unverified"]["recipients"]
    assert (recipient["algorithm"], recipient["number"]) == ("unknown here", -65546)
