"""Delegated keys: SPEC.md 7.3."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from postseal.core import (
    ConfigError,
    Ed25519Key,
    Es256Key,
    HmacKey,
    KeyRefused,
    KeyRing,
    KeyUnavailable,
    Origin,
    Refused,
    Verdict,
)
from postseal.core.delegation import DelegatedKey
from postseal.core.wire import Credential, Delegation, decode
from tests.core.kit import ED25519, HERE, P256, SECRET, SENDER, Clock, CountedKeys, Party, local_keys, policy

FORMS = ["privacy", "integrity"]
ROOTS = ["ed25519", "es256", "hmac", "remote"]
DELEGATES = ["ed25519", "es256"]


class Remote:
    """A key in a cloud: each use is counted, and may fail."""

    remote = True
    confirmed_for, max_stale = float("inf"), 0.0

    def __init__(self, *, can_sign: bool = True) -> None:
        self.inner = HmacKey("root", SECRET)
        self.signed = self.verified = 0
        self.fail: BaseException | None = None
        self.can_sign = can_sign
        for name in ("id", "kid", "algorithm", "origin", "public_key_fingerprints"):
            setattr(self, name, getattr(self.inner, name))

    def signer(self, sender, destination, prefix=b""):
        def sign(message):
            self.signed += 1
            if self.fail is not None:
                raise self.fail
            return self.inner.signer(sender, destination, prefix)(message)

        return sign

    def verifier(self, sender, destination, prefix=b""):
        def verify(message, signature):
            self.verified += 1
            if self.fail is not None:
                raise self.fail
            self.inner.verifier(sender, destination, prefix)(message, signature)

        return verify


def root(kind: str, *, public: bool = False):
    if kind == "remote":
        return Remote(can_sign=not public)
    if kind == "hmac":
        return HmacKey("root", SECRET)
    private = {"ed25519": ED25519, "es256": P256}[kind]
    part = {"public_key": private.public_key()} if public else {"private_key": private}
    return (Ed25519Key if kind == "ed25519" else Es256Key)("root", senders=[SENDER], **part)


class Ends:
    """A producer that signs with delegated keys, and a consumer that knows the root alone."""

    def __init__(
        self, form: str = "privacy", kind: str = "ed25519", *, delegate: str = "ed25519", **options
    ) -> None:
        self.clock = Clock()
        self.roots = root(kind), root(kind, public=True)
        common = {"senders": [SENDER], "clock": self.clock.seconds}
        making = {name: options.pop(name) for name in ("lifetime",) if name in options}
        self.key = DelegatedKey(self.roots[0], delegate=delegate, **common, **making)
        self.voucher = DelegatedKey(self.roots[1], **common, **options)
        keys = CountedKeys(local_keys())
        self.producer, self.consumer = (
            Party(
                policy(f"{form}-hmac"),
                keys=keys,
                rings={"hmac": KeyRing([key], clock=self.clock.seconds)},
                clock=self.clock,
            )
            for key in (self.key, self.voucher)
        )

    def seal(self, body: bytes = b"x", **options) -> bytes:
        return self.producer.seal(body, destination=HERE, **options)

    def open(self, envelope: bytes):
        return self.consumer.open(envelope, destination=HERE)

    def refusal(self, envelope: bytes) -> Verdict:
        with pytest.raises(Refused) as refused:
            self.open(envelope)
        return refused.value.verdict


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ROOTS)
@pytest.mark.parametrize("delegate", DELEGATES)
def test_what_a_delegated_key_signed_verifies_through_its_root(form, kind, delegate):
    ends = Ends(form, kind, delegate=delegate)
    for index in range(5):
        body = f"{index}".encode()
        opened = ends.open(ends.seal(body, content_type="a/b" if index % 2 else None))
        assert opened.body == body
        assert opened.sender == SENDER
        assert opened.origin is (Origin.GROUP if kind in ("hmac", "remote") else Origin.SENDER)
    assert ends.producer.open(ends.seal(), destination=HERE).body == b"x"
    assert ends.producer.seal(envelope := ends.seal(), destination=HERE) == envelope  # never sealed twice


@pytest.mark.parametrize("form", FORMS)
def test_the_awaitable_twins_do_the_same(form):
    ends = Ends(form, "remote")

    async def main():
        envelopes = await asyncio.gather(
            *(ends.producer.sealer.aseal(b"x", destination=HERE) for _ in range(20))
        )
        opened = await asyncio.gather(*(ends.consumer.sealer.aopen(e, destination=HERE) for e in envelopes))
        return [o.body for o in opened]

    assert asyncio.run(main()) == [b"x"] * 20
    assert (ends.roots[0].signed, ends.roots[1].verified) == (1, 1)


@pytest.mark.parametrize("form", FORMS)
def test_the_root_is_asked_once_for_many_messages(form):
    ends = Ends(form, "remote")
    for _ in range(50):
        ends.open(ends.seal())
    assert (ends.roots[0].signed, ends.roots[1].verified) == (1, 1)


def test_many_threads_wait_for_one_call():
    ends = Ends("privacy", "remote")
    start = threading.Barrier(8)
    opened = []

    def work():
        start.wait()
        opened.extend(ends.open(ends.seal()).body for _ in range(10))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert opened == [b"x"] * 80
    assert (ends.roots[0].signed, ends.roots[1].verified) == (1, 1)


def test_a_message_waits_until_all_who_sign_know_the_new_key():
    """Else it would be told that there is none, while another thread was telling of it."""
    ends = Ends("privacy", "remote")
    seen: list[bool] = []

    class Late:
        def ring_changed(self) -> None:
            seen.append(ends.key.due())

    late = Late()
    ends.key.watch(late)
    ends.seal()
    assert seen == [True]
    assert not ends.key.due()


def wait_for_thread() -> None:
    for thread in threading.enumerate():
        if thread.name == "postseal-delegation":
            thread.join()


@pytest.mark.parametrize("form", FORMS)
def test_the_next_key_is_made_ahead_of_time_and_no_message_is_refused(form):
    """A rotation every ten minutes, for a day."""
    ends = Ends(form, "remote")
    kids = set()
    for _ in range(24 * 60):
        ends.clock.ms += 60_000
        envelope = ends.seal()
        parsed = decode(envelope)
        kids.add(parsed.header.key_id if parsed.outer is None else parsed.outer.key_id)
        assert ends.open(envelope).body == b"x"
        wait_for_thread()
    assert 144 <= len(kids) <= 24 * 60 / 6
    assert ends.roots[0].signed - len(kids) in (0, 1), "one call a key; the last one may not have signed yet"
    assert ends.roots[1].verified == len(kids)
    assert ends.consumer.events == []


@pytest.mark.parametrize("form", FORMS)
def test_a_key_service_that_is_away_stops_sealing_at_the_end_of_the_delegation_and_not_before(form):
    ends = Ends(form, "remote")
    ends.seal()
    ends.roots[0].fail = KeyUnavailable("away")
    ends.clock.ms += 590_000
    ends.open(ends.seal())
    wait_for_thread()
    ends.clock.ms += 11_000
    for _ in range(3):
        with pytest.raises(KeyUnavailable):
            ends.seal()
    with pytest.raises(KeyUnavailable):
        asyncio.run(ends.producer.sealer.aseal(b"x", destination=HERE))
    assert ends.producer.sealer.at_hand(HERE)(b"x") is None
    asked = ends.roots[0].signed
    assert asked <= 4, "those who wait share one failure"
    ends.roots[0].fail = None
    ends.clock.ms += 3_000
    assert ends.open(ends.seal()).body == b"x"


@pytest.mark.parametrize("form", FORMS)
def test_where_the_key_service_says_no_nothing_more_is_signed(form):
    ends = Ends(form, "remote")
    ends.seal()
    ends.roots[0].fail = KeyRefused("no")
    ends.clock.ms += 450_000
    ends.seal()  # has the next one made
    wait_for_thread()
    with pytest.raises(KeyRefused):
        ends.seal()


@pytest.mark.parametrize("form", FORMS)
def test_a_message_is_kept_while_nobody_can_say_whether_its_key_is_genuine(form):
    ends = Ends(form, "remote")
    envelope = ends.seal()
    ends.roots[1].fail = KeyUnavailable("away")
    with pytest.raises(KeyUnavailable):
        ends.open(envelope)
    with pytest.raises(KeyUnavailable):
        ends.consumer.sealer.verify(envelope, destination=HERE)
    with pytest.raises(KeyUnavailable):
        asyncio.run(ends.consumer.sealer.aopen(envelope, destination=HERE))
    assert ends.consumer.sealer.open_cached(envelope, destination=HERE) is None
    assert ends.consumer.events == []
    ends.roots[1].fail = KeyRefused("no")
    assert ends.refusal(envelope) is Verdict.UNKNOWN_KEY
    ends.roots[1].fail = None
    assert ends.open(envelope).body == b"x"


# -- what is refused ---------------------------------------------------------------------------------------------------


def forged(ends: Ends, /, **changes) -> bytes:
    """Make a message as who holds a short-lived key could, with another statement, signed by the root."""
    key = ed25519.Ed25519PrivateKey.generate()
    now = ends.clock.ms // 1000
    signer = changes.pop("root", ends.roots[0])
    given = {
        "algorithm": signer.algorithm,
        "key_id": b"root",
        "sender": SENDER,
        "begins": now,
        "ends": now + 600,
        "delegate": Ed25519Key.algorithm,
        "public_key": Ed25519Key("x", private_key=key, senders=["x"]).public_bytes,
    } | changes
    unsigned = Delegation(**given)
    signed = unsigned._replace(
        signature=signer.signer(unsigned.sender, "postseal v1 delegation")(unsigned.to_be_signed())
    )
    return message(ends, key, Credential.of(signed))


def message(ends: Ends, key, credential: Credential, kid: bytes | None = None) -> bytes:
    from postseal.core.crypto import sha256

    signer = Ed25519Key("x", private_key=key, senders=[SENDER])
    signer.kid, signer.credential = kid or sha256(credential.value), credential.encode()
    return Party(
        policy("privacy-hmac"), keys=ends.producer.keys, rings={"hmac": KeyRing([signer])}, clock=ends.clock
    ).seal(b"x", destination=HERE)


@pytest.mark.parametrize("kind", ROOTS)
@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({}, None),
        ({"sender": "shop-web"}, Verdict.UNKNOWN_SENDER),
        ({"key_id": b"toor"}, Verdict.UNKNOWN_KEY),
        ({"begins": 1_790_847_016}, Verdict.UNKNOWN_KEY),
        ({"ends": 1_790_847_014}, Verdict.UNKNOWN_KEY),
        ({"ends": 1_790_847_015}, None),
        ({"begins": 1_790_847_015 - 301, "ends": 1_790_847_015 + 86_400}, Verdict.UNKNOWN_KEY),
        ({"begins": 1_790_847_015 - 300, "ends": 1_790_847_015 + 86_400}, None),
    ],
)
def test_a_genuine_statement_that_does_not_cover_the_message_is_refused(kind, changes, verdict):
    ends = Ends("privacy", kind)
    envelope = forged(ends, **changes)
    if verdict is None:
        assert ends.open(envelope).body == b"x"
    else:
        assert ends.refusal(envelope) is verdict


@pytest.mark.parametrize("kind", ROOTS)
def test_a_statement_by_another_key_is_forged_and_asked_about_once(kind):
    ends = Ends("privacy", kind)
    other = {
        "ed25519": lambda: Ed25519Key(
            "root", private_key=ed25519.Ed25519PrivateKey.generate(), senders=["x"]
        ),
        "es256": lambda: Es256Key("root", private_key=ec.generate_private_key(ec.SECP256R1()), senders=["x"]),
    }.get(kind, lambda: HmacKey("root", bytes(32)))()
    envelope = forged(ends, root=other)
    for _ in range(5):
        assert ends.refusal(envelope) is Verdict.FORGED
    if kind == "remote":
        assert ends.roots[1].verified == 1
        ends.clock.ms += 31_000
        assert ends.refusal(envelope) is Verdict.FORGED
        assert ends.roots[1].verified == 2


@pytest.mark.parametrize("kind", ROOTS)
def test_a_statement_of_another_algorithm_under_the_name_of_the_key_is_forged(kind):
    ends = Ends("privacy", kind)
    other = (
        HmacKey("root", SECRET)
        if kind in ("ed25519", "es256")
        else Ed25519Key("root", private_key=ED25519, senders=["x"])
    )
    assert ends.refusal(forged(ends, root=other)) is Verdict.FORGED
    assert kind != "remote" or ends.roots[1].verified == 0


def test_the_root_of_a_delegation_signs_no_messages_and_a_message_is_no_delegation():
    """Domains apart: what signs a delegation begins with another external_aad, and the root's kid is no message key."""
    ends = Ends("privacy", "ed25519")
    direct = Party(
        policy("privacy-hmac"),
        keys=ends.producer.keys,
        rings={"hmac": KeyRing([ends.roots[0]])},
        clock=ends.clock,
    ).seal(b"x", destination=HERE)
    assert ends.refusal(direct) is Verdict.UNKNOWN_KEY


def test_the_key_id_binds_the_statement():
    ends = Ends()
    key = ed25519.Ed25519PrivateKey.generate()
    one, two = decode(ends.seal()).credential, decode(Ends().seal()).credential
    assert (
        ends.refusal(message(ends, key, one)) is Verdict.FORGED
    )  # the statement is genuine; the signature is not
    assert ends.refusal(message(ends, key, one, kid=bytes(32))) is Verdict.UNKNOWN_KEY
    genuine = ends.seal()
    swapped = genuine.replace(one.encode(), two.encode())
    assert swapped != genuine
    assert ends.refusal(swapped) is Verdict.UNKNOWN_KEY
    ends.open(genuine)
    assert ends.refusal(swapped) is Verdict.UNKNOWN_KEY
    stripped = genuine.replace(one.encode(), b"\xa0")
    # Verified before, it is known by its id: the statement is carried for those who have not seen it.
    assert ends.open(stripped).body == b"x"
    assert Ends().refusal(stripped) is Verdict.UNKNOWN_KEY


@pytest.mark.parametrize("warm", [True, False])
def test_any_flipped_bit_of_a_statement_is_refused(warm):
    ends = Ends("privacy", "es256")
    genuine = ends.seal()
    if warm:
        ends.open(genuine)
    value = decode(genuine).credential.encode()
    at = genuine.index(value)
    for index in range(len(value)):
        changed = bytearray(genuine)
        changed[at + index] ^= 1 << index % 8
        (ends if warm else Ends("privacy", "es256")).refusal(bytes(changed))


def test_a_revoked_delegation_and_one_that_ended_too_long_ago_verify_nothing():
    ends = Ends()
    envelope = ends.seal()
    kid = decode(envelope).outer.key_id
    assert ends.open(envelope).body == b"x"
    ends.consumer.sealer._rules.rings["orders"].replace(
        [DelegatedKey(ends.roots[1], senders=[SENDER], revoked=[kid.hex()], clock=ends.clock.seconds)]
    )
    assert ends.refusal(envelope) is Verdict.UNKNOWN_KEY
    late = Ends(accept_for=3600)
    envelope = late.seal()
    late.clock.ms += (600 + 3599) * 1000
    assert late.open(envelope).body == b"x"
    assert late.open(envelope).body == b"x"  # on the short way
    late.clock.ms += 2000
    assert late.refusal(envelope) is Verdict.UNKNOWN_KEY


def test_a_stolen_short_lived_key_signs_until_its_delegation_ends_and_no_longer():
    """The window: what it signs says when, and that must lie within the delegation, on the short way too."""
    ends = Ends()
    ends.open(ends.seal())
    stolen = ends.key.current()
    ends.clock.ms += 599_000
    thief = Party(
        policy("privacy-hmac"),
        keys=ends.producer.keys,
        rings={"hmac": KeyRing([_forever(stolen)])},
        clock=ends.clock,
    )
    assert ends.open(thief.seal(b"y", destination=HERE)).body == b"y"
    ends.clock.ms += 5_000
    later = thief.seal(b"y", destination=HERE)
    assert ends.refusal(later) is Verdict.UNKNOWN_KEY
    other = Ends()
    other.clock.ms = ends.clock.ms
    assert other.refusal(later) is Verdict.UNKNOWN_KEY


def _forever(stolen):
    key = stolen._key
    key.kid, key.credential = stolen.kid, stolen.credential
    return key


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: DelegatedKey(root("es256"), senders=[]), "empty list of senders"),
        (lambda: DelegatedKey(root("es256"), senders="billing-api"), "list of names"),
        (lambda: DelegatedKey(root("es256"), senders=None), "must name its senders"),
        (lambda: DelegatedKey(root("es256"), senders=["a"], sender="b"), "not for sender 'b'"),
        (lambda: DelegatedKey(root("es256"), senders=["a"], lifetime=59), "lifetime"),
        (lambda: DelegatedKey(root("es256"), senders=["a"], lifetime=86_401), "lifetime"),
        (lambda: DelegatedKey(root("es256"), senders=["a"], accept_for=-1), "accept_for"),
        (lambda: DelegatedKey(root("es256"), senders=["a"], accept_for=float("inf")), "accept_for"),
        (lambda: DelegatedKey(root("es256"), senders=["a"], delegate="ed2551"), "did you mean 'ed25519'"),
        (lambda: DelegatedKey(root("es256"), senders=["a"], state="activ"), "did you mean 'active'"),
        (lambda: DelegatedKey(root("es256"), senders=["a"], revoked=["xyz"]), "revoked"),
        (lambda: DelegatedKey(root("es256"), senders=["a"], revoked="00"), "revoked"),
        (lambda: KeyRing([root("remote")]), "DelegatedKey"),
    ],
)
def test_a_wrong_option_is_a_config_error(make, words):
    with pytest.raises(ConfigError, match=words):
        make()


def test_a_sealer_signs_as_its_own_sender_alone():
    clock = Clock()
    for key, words in (
        (DelegatedKey(root("es256"), senders=["shop-web"], clock=clock.seconds), "not for sender"),
        (DelegatedKey(root("es256"), senders=[SENDER, "shop-web"], clock=clock.seconds), "no active key"),
        (
            DelegatedKey(root("es256"), senders=[SENDER, "shop-web"], sender="shop-web", clock=clock.seconds),
            "signs as 'shop-web'",
        ),
    ):
        party = Party(policy("privacy-hmac"), rings={"hmac": KeyRing([key])}, clock=clock)
        with pytest.raises(ConfigError, match=words):
            party.seal(b"x", destination=HERE)


def test_a_root_rotates_like_any_key():
    ends = Ends()
    before = ends.seal()
    other = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(3, 35)))
    new = Ed25519Key("new", private_key=other, senders=[SENDER])
    options = {"senders": [SENDER], "clock": ends.clock.seconds}
    until = datetime.fromtimestamp(ends.clock.ms / 1000 + 100, UTC)
    rings = [party.sealer._rules.rings["orders"] for party in (ends.producer, ends.consumer)]
    rings[1].replace([ends.voucher, DelegatedKey(new, state="pending", **options)])
    rings[0].replace([DelegatedKey(new, **options)])
    rings[1].replace(
        [
            DelegatedKey(ends.roots[1], state="retired", retired_until=until, **options),
            DelegatedKey(new, **options),
        ]
    )
    assert ends.open(before).body == b"x"
    assert ends.open(ends.seal()).body == b"x"
    ends.clock.ms += 101_000
    assert ends.refusal(before) is Verdict.UNKNOWN_KEY
    assert ends.open(ends.seal()).body == b"x"


def test_delegated_keys_verify_with_no_right_to_open():
    """B6."""
    from postseal.core import Sealer

    ends = Ends()
    gateway = Sealer(
        sender="gateway",
        policies=[policy("privacy-hmac")],
        signers={"hmac": KeyRing([ends.voucher], clock=ends.clock.seconds)},
        verify_only=True,
        clock=ends.clock,
    )
    assert gateway.verify(ends.seal(), destination=HERE).sender == SENDER
