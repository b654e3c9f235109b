"""The archive: what it opens when nothing else does, its shares, and what a recovery tells."""

from __future__ import annotations

import base64
import json
import os
import re
import sys
from itertools import combinations

import pytest
import shamir_mnemonic

from postseal.core import (
    CombinedKeys,
    ConfigError,
    Ed25519Key,
    HmacKey,
    KeyRing,
    MissingExtraError,
    OpeningKey,
    Policy,
    PublicKeyRecipients,
    Refused,
    Sealer,
)
from postseal.core.recovery import Kept, Output, Proof, Recovery, join, read_dump, recover, split
from postseal.core.wire import decode
from tests.core.kit import ED25519, SECRET
from tests.core.stand_ins import local_keys

ARCHIVE = OpeningKey.from_seed(bytes(range(32)))
HERE = "kafka:orders"
SIGNERS = {
    "hmac": KeyRing([HmacKey("hmac-1", SECRET)]),
    "ed": KeyRing([Ed25519Key("ed-1", private_key=ED25519, senders=["shop"])]),
}


def policy(sign: str | None = None, *, protection: str | None = None, **options) -> Policy:
    given = {"name": "orders", "destinations": [HERE], "keys": ["main", "archive"]} | options
    protection = protection or ("privacy" if sign else "confidentiality")
    if protection == "integrity":
        given["keys"] = []
    return Policy(protection=protection, sign=sign, senders=["shop"] if sign else [], **given)


def sealer(orders: Policy, archive: OpeningKey = ARCHIVE) -> Sealer:
    """A producer whose key service is gone as soon as it has sealed."""
    keys = {"main": local_keys(), "archive": PublicKeyRecipients([archive.public])}
    return Sealer(sender="shop", policies=[orders], keys=keys if orders.keys else {}, signers=SIGNERS)


def recovery(**options) -> Recovery:
    return Recovery(PublicKeyRecipients(open_with=[ARCHIVE]), **options)


def kept(envelope: bytes, **beside) -> Kept:
    return Kept("x:1", envelope, **beside)


# -- what opens --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sign", "protection", "proof"),
    [
        (None, "confidentiality", Proof.NONE),
        ("hmac", "privacy", Proof.GROUP),
        ("ed", "privacy", Proof.SENDER),
        ("hmac", "integrity", Proof.GROUP),
        ("ed", "integrity", Proof.SENDER),
    ],
)
def test_every_form_opens_and_says_what_is_proved_of_its_sender(sign, protection, proof):
    """B11."""
    orders = policy(sign, protection=protection)
    envelope = sealer(orders).seal(b"4111", destination=HERE, content_type="text/plain")
    with_keys = recovery(policies=[orders], signers=SIGNERS).open(kept(envelope))
    without = recovery().open(kept(envelope))
    assert (with_keys.opened.body, with_keys.proof) == (b"4111", proof)
    assert (without.opened.body, without.proof) == (b"4111", Proof.NONE if sign is None else Proof.UNCHECKED)
    assert without.opened.sender == "shop"
    assert without.opened.content_type == "text/plain"
    assert "4111" not in repr(without)


def test_a_policy_without_its_ring_verifies_nothing_and_says_so():
    orders = policy("ed")
    envelope = sealer(orders).seal(b"4111", destination=HERE)
    assert recovery(policies=[orders]).open(kept(envelope)).proof is Proof.UNCHECKED


def test_what_was_forged_is_found_where_the_keys_are_given():
    """Whoever has the archive's public key can seal for it; that it is signed by another shows only to who has the sender's key."""
    orders = policy("ed")
    envelope = sealer(orders).seal(b"4111", destination=HERE)
    forged = envelope[:-1] + bytes([envelope[-1] ^ 1])
    with pytest.raises(Refused, match="forged"):
        recovery(policies=[orders], signers=SIGNERS).open(kept(forged))
    assert recovery().open(kept(forged)).proof is Proof.UNCHECKED


def test_what_a_given_policy_demands_must_hold():
    envelope = sealer(policy(None)).seal(b"4111", destination=HERE)
    with pytest.raises(Refused, match="downgrade"):
        recovery(policies=[policy("ed")], signers=SIGNERS).open(kept(envelope))


def test_age_and_expiry_do_not_matter():
    from datetime import UTC, datetime

    orders = policy("hmac", max_message_age=60.0)
    envelope = sealer(orders).seal(b"4111", destination=HERE, expires_at=datetime(2027, 1, 1, tzinfo=UTC))
    assert recovery(policies=[orders], signers=SIGNERS).open(kept(envelope)).proof is Proof.GROUP


@pytest.mark.parametrize("sign", [None, "hmac"])
def test_what_is_bound_is_taken_from_the_dump_or_named_as_missing(sign):
    orders = policy(sign, bind_headers=["region", "type"], bind_ordering_key=True)
    beside = {
        "headers": [("type", b"card"), ("region", b"eu")],
        "content_encoding": "gzip",
        "ordering_key": b"k-1",
    }
    envelope = sealer(orders).seal(b"4111", destination=HERE, **beside)
    whole = kept(
        envelope, headers=(("region", "eu"), ("type", b"card")), content_encoding="gzip", ordering_key=b"k-1"
    )
    assert recovery(policies=[orders], signers=SIGNERS).open(whole).opened.body == b"4111"
    with pytest.raises(Refused) as refused:
        recovery().open(kept(envelope, headers=(("type", b"card"),)))
    assert refused.value.detail == "it binds headers that this dump does not have: region; or it was changed"
    # What a dump has beside what was bound does no harm.
    plain = sealer(policy(sign)).seal(b"4111", destination=HERE)
    assert recovery().open(kept(plain, content_encoding="gzip", ordering_key=b"k-1")).opened.body == b"4111"


def test_one_data_key_is_unwrapped_once():
    asked = []

    class Counted(PublicKeyRecipients):
        def unwrap(self, recipients, context):
            asked.append(context)
            return super().unwrap(recipients, context)

    shop = sealer(policy())
    opener = Recovery(Counted(open_with=[ARCHIVE]))
    for number in range(20):
        assert opener.open(kept(shop.seal(b"%d" % number, destination=HERE))).opened.body == b"%d" % number
    assert len(asked) == 1


def test_each_reason_is_told_in_a_sentence():
    good = sealer(policy()).seal(b"4111", destination=HERE)
    elsewhere = sealer(policy(), OpeningKey.generate("x25519")).seal(b"4111", destination=HERE)
    private = sealer(policy("ed")).seal(b"4111", destination=HERE)
    at = good.index(decode(good).payload)
    changed = good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :]
    last = good[:-1] + bytes([good[-1] ^ 1])
    stripped = private[private.index(b"\xd8\x60") : -66]
    for envelope, verdict, detail in (
        (b"clear", "unprotected", "no envelope"),
        (good[:-1], "malformed", "end"),
        (changed, "forged", "changed"),
        (last, "forged", "wrapped for this archive key is changed"),
        (elsewhere, "unknown-key", "not wrapped for this archive key"),
        (stripped, "downgrade", "signature was taken away"),
    ):
        with pytest.raises(Refused) as refused:
            recovery().open(kept(envelope))
        assert refused.value.verdict.value == verdict
        assert detail in refused.value.detail


# -- shares ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["x25519", "x-wing"])
def test_any_three_of_five_shares_give_the_key_and_two_do_not(kind):
    """B11: k of n."""
    key = OpeningKey.generate(kind)
    shares = split(key, threshold=3, shares=5)
    assert len(shares) == 5
    for some in combinations(shares, 3):
        assert join(some).public == key.public
    assert join(shares).public == key.public
    for some in combinations(shares, 2):
        with pytest.raises(ConfigError, match="3 different shares are needed; there are 2"):
            join(some)
    with pytest.raises(ConfigError, match="3 different shares are needed; there are 1"):
        join([shares[0]] * 3)


def test_the_bare_words_are_enough_with_the_kind():
    key = OpeningKey.generate("x25519")
    words = [share.split("words: ")[1].upper() for share in split(key, threshold=2, shares=3)]
    assert all(len(text.split()) == 33 for text in words)
    assert join(words[:2], kind="x25519").public == key.public
    with pytest.raises(ConfigError, match="x25519 or x-wing"):
        join(words[:2])


def test_a_share_that_was_copied_wrongly_is_named_and_not_quoted():
    key = OpeningKey.generate("x25519")
    first, second = split(key, threshold=2, shares=2)
    word = second.split()[-1]
    wrong = second.removesuffix(word + "\n") + ("academic\n" if word != "academic" else "acid\n")
    with pytest.raises(ConfigError) as caught:
        join([first, wrong])
    assert (
        str(caught.value)
        == "share 2 is not as it was written down: a word is wrong, missing or in another place"
    )
    for bad in ("", "hello"):
        with pytest.raises(ConfigError, match="share 1"):
            join([bad])


def test_shares_of_two_keys_or_of_another_than_they_name_do_not_join():
    one, other = (split(OpeningKey.generate("x25519"), threshold=2, shares=2) for _ in range(2))
    with pytest.raises(ConfigError, match="different keys"):
        join([one[0], other[1]])
    lying = [re.sub(r"\nkey: \w+", "\nkey: 0000000000000000", share) for share in one]
    with pytest.raises(ConfigError, match="another key than the one that they name"):
        join(lying)
    with pytest.raises(ConfigError, match="no shares"):
        join([])


@pytest.mark.parametrize(("threshold", "shares"), [(1, 3), (4, 3), (2, 17), (0, 0)])
def test_numbers_that_make_no_sense_are_refused(threshold, shares):
    with pytest.raises(ConfigError, match="at least 2"):
        split(ARCHIVE, threshold=threshold, shares=shares)
    with pytest.raises(ConfigError, match="no seed"):
        split(OpeningKey.generate("p-256"), threshold=2, shares=3)


# vectors.json of the scheme's authors: numbers 20 (valid), 21 (invalid checksum), 23 (2 of 3), 24 (too few), 37 (groups); passphrase "TREZOR".
SINGLE = "theory painting academic academic armed sweater year military elder discuss acne wildlife boring employer fused large satoshi bundle carbon diagnose anatomy hamster leaves tracks paces beyond phantom capital marvel lips brave detect"
TWO = [
    "humidity disease academic always aluminum jewelry energy woman receiver strategy amuse duckling lying evidence network walnut tactics forget hairy rebound impulse brother survive clothes stadium mailman rival ocean reward venture always armed unwrap",
    "humidity disease academic agency actress jacket gross physics cylinder solution fake mortgage benefit public busy prepare sharp friar change work slow purchase ruler again tricycle involve viral wireless mixture anatomy desert cargo upgrade",
]
GROUPS = [
    "wildlife deal decision scared acne fatal snake paces obtain election dryer dominant romp tactics railroad marvel trust helpful flip peanut theory theater photo luck install entrance taxi step oven network dictate intimate listen",
    "wildlife deal beard romp alcohol space mild usual clothes union nuclear testify course research heat listen task location thank hospital slice smell failure fawn helpful priest ambition average recover lecture process dough stadium",
    "wildlife deal decision smug ancestor genuine move huge cubic strategy smell game costume extend swimming false desire fake traffic vegan senior twice timber submit leader payroll fraction apart exact forward pulse tidy install",
]


@pytest.mark.parametrize(
    ("mnemonics", "secret"),
    [
        ([f"{SINGLE} luck"], "989baf9dcaad5b10ca33dfd8cc75e42477025dce88ae83e75a230086a0e00e92"),
        ([f"{SINGLE} lunar"], None),
        (TWO, "c938b319067687e990e05e0da0ecce1278f75ff58d9853f19dcaeed5de104aae"),
        (TWO[:1], None),
        (GROUPS, "5385577c8cfc6c1a8aa0f7f10ecde0a3318493262591e78b8c14c6686167123b"),
    ],
)
def test_the_library_passes_the_vectors_of_slip_39(mnemonics, secret):
    if secret is None:
        with pytest.raises(shamir_mnemonic.MnemonicError):
            shamir_mnemonic.combine_mnemonics(mnemonics, b"TREZOR")
    else:
        assert shamir_mnemonic.combine_mnemonics(mnemonics, b"TREZOR").hex() == secret


def test_without_the_extra_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "shamir_mnemonic", None)
    for call in (lambda: split(ARCHIVE, threshold=2, shares=3), lambda: join(["x"])):
        with pytest.raises(MissingExtraError, match=r"pip install 'postseal\[recover\]'"):
            call()


# -- dumps -------------------------------------------------------------------------------------------------------------


def envelopes(count: int) -> list[bytes]:
    shop = sealer(policy())
    return [shop.seal(b"order %d" % number, destination=HERE) for number in range(count)]


def as_lengths(messages: list[bytes]) -> bytes:
    return b"".join(len(message).to_bytes(4, "big") + message for message in messages)


def as_lines(messages: list[bytes], field: str = "value") -> bytes:
    return b"".join(
        json.dumps({field: base64.b64encode(message).decode()}).encode() + b"\n" for message in messages
    )


@pytest.mark.parametrize("written", ["raw", "base64", "base64url", "hex"])
def test_a_folder_of_files_is_read_however_they_are_written(tmp_path, written):
    messages = envelopes(3)
    how = {
        "raw": bytes,
        "base64": base64.b64encode,
        "base64url": lambda data: base64.urlsafe_b64encode(data).rstrip(b"="),
        "hex": lambda data: data.hex().encode() + b"\n",
    }
    (tmp_path / "deeper").mkdir()
    for number, message in enumerate(messages):
        (tmp_path / ("deeper" if number else ".") / f"{number}.bin").write_bytes(how[written](message))
    found = list(read_dump(tmp_path))
    assert [each.source for each in found] == ["0.bin", "deeper/1.bin", "deeper/2.bin"]
    assert [each.envelope for each in found] == messages


@pytest.mark.parametrize("form", ["lengths", "jsonl"])
def test_a_file_of_many_is_known_by_its_looks(tmp_path, form):
    messages = envelopes(3)
    file = tmp_path / "orders"
    file.write_bytes(as_lengths(messages) if form == "lengths" else as_lines(messages))
    for asked in ("auto", form):
        found = list(read_dump(file, asked))
        assert [each.envelope for each in found] == messages
        assert [each.source for each in found] == ["orders:1", "orders:2", "orders:3"]


@pytest.mark.parametrize("field", ["body", "value", "payload", "envelope", "Body"])
def test_a_line_of_json_holds_what_was_bound(tmp_path, field):
    orders = policy(bind_headers=["type", "b", "n"], bind_ordering_key=True)
    headers = [("b", b"\xff"), ("n", 7), ("type", b"card")]
    envelope = sealer(orders).seal(
        b"4111", destination=HERE, headers=headers, ordering_key=b"k-1", content_encoding="gzip"
    )
    line = {
        field: base64.b64encode(envelope).decode(),
        "headers": {"type": "card", "b": {"base64": "/w=="}, "n": 7},
        "key": base64.b64encode(b"k-1").decode(),
        "content_encoding": "gzip",
    }
    file = tmp_path / "orders.jsonl"
    listed = line | {"headers": [[name, value] for name, value in line["headers"].items()]}
    file.write_text(json.dumps(line) + "\n\n" + json.dumps(listed))
    assert [recovery().open(each).opened.body for each in read_dump(file)] == [b"4111"] * 2


def test_what_cannot_be_read_is_counted_and_not_passed_over(tmp_path):
    [good] = envelopes(1)
    bad = [
        b"[]",
        b"7",
        b'{"value": 7}',
        b'{"value": "A"}',
        b"{",
        b'{"other": ""}',
        b'{"value": "aGVsbG8=", "headers": 7}',
        b'{"value": "aGVsbG8=", "key": "!"}',
    ]
    file = tmp_path / "orders.jsonl"
    file.write_bytes(as_lines([good]) + b"\n".join(bad) + b"\n" + b'{"value": ' + b"[" * 100_000)
    lengths = tmp_path / "orders.lengths"
    lengths.write_bytes(as_lengths([good]) + b"\x00\x00\x00\xff cut")
    outcomes = []
    for path in (file, lengths):
        with Output(tmp_path / f"{path.name}.out") as output:
            outcomes.append(recover(read_dump(path), recovery(), output))
    assert [(report.recovered, report.lost) for report in outcomes] == [(1, 9), (1, 1)]
    with pytest.raises(ConfigError, match="cannot be read"):
        list(read_dump(tmp_path / "nothing"))
    with pytest.raises(ConfigError, match="did you mean 'jsonl'"):
        list(read_dump(file, "jsonlines"))


# -- the whole ---------------------------------------------------------------------------------------------------------


def bodies(folder) -> list[bytes]:
    lines = (folder / "recovered.jsonl").read_text().splitlines()
    return [base64.b64decode(json.loads(line)["body"]) for line in lines]


def test_a_dump_is_recovered_and_what_did_not_open_is_told(tmp_path):
    messages = envelopes(10)
    messages[3] = messages[3][:-1]
    messages[7] = b"clear text"
    with Output(tmp_path / "out") as output:
        report = recover((Kept(f"o:{n}", m) for n, m in enumerate(messages)), recovery(), output)
    assert (report.recovered, report.lost, report.seen) == (8, 2, 10)
    assert report.proofs[Proof.NONE] == 8
    assert sum(failure["messages"] for failure in report.as_dict()["failures"]) == 2
    assert {example for failure in report.as_dict()["failures"] for example in failure["examples"]} == {
        "o:3",
        "o:7",
    }
    assert bodies(tmp_path / "out") == [b"order %d" % n for n in range(10) if n not in {3, 7}]
    failed = [json.loads(line) for line in (tmp_path / "out" / "failed.jsonl").read_text().splitlines()]
    assert [(line["source"], line["verdict"]) for line in failed] == [
        ("o:3", "malformed"),
        ("o:7", "unprotected"),
    ]
    if os.name == "posix":
        assert {path.stat().st_mode & 0o077 for path in (tmp_path / "out").iterdir()} == {0}


@pytest.mark.parametrize("torn", [b"", b'{"source": "o:'])
def test_a_recovery_that_was_stopped_goes_on_and_opens_nothing_twice(tmp_path, torn):
    messages = [Kept(f"o:{n}", message) for n, message in enumerate(envelopes(10))]
    broken = [*messages[:5], messages[5]._replace(envelope=b"")]
    with Output(tmp_path) as output:
        assert recover(broken, recovery(), output).recovered == 5
    with (tmp_path / "recovered.jsonl").open("ab") as file:
        file.write(torn)  # stopped within a line
    with Output(tmp_path) as output:
        report = recover(messages, recovery(), output)
    assert (report.before, report.recovered, report.lost) == (5, 5, 0)
    assert bodies(tmp_path) == [b"order %d" % n for n in range(10)]
    assert (tmp_path / "failed.jsonl").read_bytes() == b""


def test_a_folder_that_is_none_of_ours_is_left_alone(tmp_path):
    (tmp_path / "recovered.jsonl").write_text("something else\n")
    with pytest.raises(ConfigError, match="none of ours"):
        Output(tmp_path)
    assert (tmp_path / "recovered.jsonl").read_text() == "something else\n"


def test_an_archive_beside_two_key_services_opens_without_them():
    """B11, B10: every data key has the archive's wrap; the services are gone."""
    both = CombinedKeys([local_keys("aws"), local_keys("azure")])
    orders = policy("ed")
    shop = Sealer(
        sender="shop",
        policies=[orders],
        keys={"main": both, "archive": PublicKeyRecipients([ARCHIVE.public])},
        signers=SIGNERS,
    )
    dump = [Kept(f"o:{n}", shop.seal(b"%d" % n, destination=HERE)) for n in range(50)]
    shop.close()
    key = join(split(ARCHIVE, threshold=2, shares=3)[1:])
    opener = Recovery(PublicKeyRecipients(open_with=[key]), policies=[orders], signers=SIGNERS)
    assert [opener.open(each).opened.body for each in dump] == [b"%d" % n for n in range(50)]
