"""D2: policies whose key service encrypts each body itself, over every key service that can; calls counted there."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import logging
import os
from collections import Counter
from contextlib import nullcontext
from functools import partial

import pytest
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from moto import mock_aws

from postseal.core import (
    AzureKeyVault,
    CombinedKeys,
    ConfigError,
    DataKeyLimits,
    Ed25519Key,
    HmacKey,
    KeyContext,
    KeyRefused,
    KeyRing,
    KeyUnavailable,
    MemoryLedger,
    OpeningLimits,
    Policy,
    Recipient,
    Refused,
    Sealer,
    TooLarge,
    Verdict,
)
from postseal.core.cli._app import run
from postseal.core.crypto import sha256
from postseal.core.datakeys.rationing import BURST
from postseal.core.direct import BOUND_SIZE
from postseal.core.keys import KeyBroken, NotMine, direct_keys
from postseal.core.recovery import Kept, Recovery
from postseal.core.resilience import Breaker
from postseal.core.resilience._around import Around
from postseal.core.rewrapping import Rewrapper
from postseal.core.telemetry import _Watched
from postseal.core.wire import decode
from tests.core.key_services import Aws, Azure, ManagedHsm, Transit
from tests.core.key_vault import KeyVaultDouble
from tests.core.stand_ins import Clock, forms_of, in_tasks, in_threads, local_keys
from tests.core.transit import TransitDouble
from tests.fakes import FakeKeys

PLACE = "kafka:orders"
BODY = b"4111 1111 1111 1111"
CONTEXT = KeyContext("orders", PLACE)
SECRET = os.urandom(32)
SIGNED = {"protection": "privacy", "sign": "ring", "senders": ["shop"]}


def policy(**options) -> Policy:
    return Policy(
        **{"name": "orders", "destinations": ["kafka:*"], "keys": ["main"], "direct": True} | options
    )


def sealer(keys, *policies: Policy, **options) -> Sealer:
    ring = KeyRing([HmacKey("2026-10", SECRET)])
    return Sealer(
        **{
            "sender": "shop",
            "policies": policies or [policy()],
            "keys": {"main": keys},
            "signers": {"ring": ring},
            "alarm": None,
        }
        | options
    )


def refused(consumer: Sealer, envelope: bytes, **beside) -> Verdict:
    with pytest.raises(Refused) as caught:
        consumer.open(envelope, destination=PLACE, **beside)
    return caught.value.verdict


# -- over key services -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def key_vault():
    with KeyVaultDouble() as double, double.client() as client:
        yield double, client


@pytest.fixture(scope="module")
def transit():
    with TransitDouble() as double:
        client = double.client()
        yield double, client
        client.adapter.close()


class Local:
    """As a key service that counts."""

    encrypts, decrypts = "encrypt", "decrypt"

    def __init__(self) -> None:
        self.provider = FakeKeys()
        self.asked = self.provider.calls


@pytest.fixture(params=["aws", "azure", "vault", "local"])
def service(request):
    """A key service: its `provider`, what it was `asked`, and what the two verbs are called there."""
    if request.param == "local":
        yield Local()
    elif request.param == "aws":
        with mock_aws():
            aws = Aws()
            aws.encrypts, aws.decrypts = "Encrypt", "Decrypt"
            yield aws
    elif request.param == "azure":
        azure = Azure(*request.getfixturevalue("key_vault"), Clock())
        azure.encrypts, azure.decrypts = "", "decrypt"
        yield azure
    else:
        vault = Transit(*request.getfixturevalue("transit"))
        vault.encrypts, vault.decrypts = "encrypt", "decrypt"
        yield vault


def calls(service, encrypted: int, decrypted: int) -> dict[str, int]:
    """What so many messages must cost."""
    counts = Counter({service.decrypts: decrypted})
    if service.encrypts:
        counts[service.encrypts] += encrypted
    else:
        counts["get"] = 1  # the public key
    return {name: count for name, count in counts.items() if count}


@pytest.fixture(params=["signed", "as little as may be"])
def directly(request, service) -> Policy:
    """A direct policy that *service* can serve."""
    signs = request.param == "signed" or direct_keys(service.provider).anybody_encrypts
    return policy(**SIGNED) if signs else policy()


def test_so_many_messages_cost_so_many_calls(service):
    """D2: operations = messages."""
    ours = sealer(service.provider, policy(**SIGNED))
    envelopes = [ours.seal(b"%d" % number, destination=PLACE) for number in range(50)]
    assert service.asked == calls(service, 50, 0)
    assert [ours.open(envelope, destination=PLACE).body for envelope in envelopes] == [
        b"%d" % number for number in range(50)
    ]
    assert service.asked == calls(service, 50, 50)


def test_so_many_tasks_and_threads_cost_so_many_calls(service):
    """D2: none shares another's call, and none is made twice."""
    ours = sealer(service.provider, policy(**SIGNED))
    ours.seal(b"", destination=PLACE)  # what is to be fetched is
    envelopes = in_tasks(*[partial(ours.aseal, BODY, destination=PLACE)] * 40)
    envelopes += in_threads(*[partial(ours.seal, BODY, destination=PLACE)] * 8)
    assert len(set(envelopes)) == 48
    opened = in_tasks(*(partial(ours.aopen, envelope, destination=PLACE) for envelope in envelopes))
    assert {each.body for each in opened} == {BODY}
    assert service.asked == calls(service, 49, 48)


def test_a_body_of_the_largest_size_opens_and_one_byte_more_is_refused_before_any_call(service):
    """D2."""
    ours = sealer(service.provider, policy(**SIGNED))
    ours.seal(b"", destination=PLACE)
    before = dict(service.asked)
    most = direct_keys(service.provider).most_direct - BOUND_SIZE
    assert most in (4063, 157)
    for size in (most + 1, 100_000):
        with pytest.raises(TooLarge, match=rf"{size:,} bytes.* {most:,}.*data key"):
            ours.seal(bytes(size), destination=PLACE)
    assert service.asked == before
    envelope = ours.seal(bytes(most), destination=PLACE)
    assert ours.open(envelope, destination=PLACE).body == bytes(most)


def test_what_is_bound_is_bound(service):
    """A9: sender, message id, time and bound headers, though no service is told anything per message."""
    ours = sealer(service.provider, policy(bind_headers=["tenant"], **SIGNED))
    envelope = ours.seal(BODY, destination=PLACE, headers={"tenant": "north"})
    assert ours.open(envelope, destination=PLACE, headers={"tenant": "north"}).body == BODY
    assert refused(ours, envelope, headers={"tenant": "south"}) is Verdict.FORGED


def test_ciphertexts_cannot_be_exchanged_even_by_who_may_sign(service):
    """A9: else one sender could send what another sealed as his own, without having read it."""
    ring = KeyRing([HmacKey("2026-10", SECRET)])
    theirs = policy(**SIGNED | {"senders": ["shop", "mallory"]})
    ours = sealer(service.provider, theirs)
    envelope = ours.seal(BODY, destination=PLACE)
    mallory = sealer(Passing(decode(envelope)), theirs, sender="mallory", signers={"ring": ring})
    passed_off = mallory.seal(b"", destination=PLACE)
    assert decode(passed_off).payload == decode(envelope).payload
    assert refused(ours, passed_off) is Verdict.FORGED
    assert ours.open(envelope, destination=PLACE).body == BODY


class Passing:
    """Passes off what another encrypted."""

    most_direct = 4096
    anybody_encrypts = False

    def generate(self, *_): ...

    wrap = unwrap = decrypt = generate

    def __init__(self, stolen) -> None:
        self._recipient = stolen.recipients[0]._replace(wrapped_key=stolen.payload)

    def encrypt(self, plaintext: bytes, context: KeyContext) -> Recipient:
        return self._recipient


def test_a_wrapped_data_key_is_no_body_and_a_body_is_no_wrapped_data_key(service):
    """Of an empty body, all that was encrypted is known to everybody: as a data key it would be a key that everybody has."""
    provider = service.provider
    keyed, direct = policy(direct=False, **SIGNED), policy(**SIGNED)
    stolen = sealer(provider, keyed).seal(BODY, destination=PLACE)
    wrapped = decode(stolen).recipients[0]
    wrapped = wrapped._replace(wrapped_key=wrapped.wrapped_key[: 256 if wrapped.algorithm == -41 else None])
    bodies = sealer(provider, direct)._rules.direct["orders"]
    with pytest.raises(KeyBroken):
        bodies.decrypt(wrapped, b"bound", PLACE)
    empty = sealer(provider, direct).seal(b"", destination=PLACE)
    made = decode(empty).recipients[0]._replace(wrapped_key=decode(empty).payload)
    with pytest.raises(KeyBroken):
        provider.unwrap([made], CONTEXT)


def test_no_body_shows_in_a_log_or_in_a_text(service, directly, caplog):
    """D3: also with everything logged at DEBUG, the client's own library included."""
    caplog.set_level(logging.DEBUG)
    ours = sealer(service.provider, directly)
    opened = ours.open(ours.seal(BODY, destination=PLACE), destination=PLACE)
    told = caplog.text + repr(opened) + str(opened) + repr(ours)
    assert not [form for form in forms_of(BODY) if form in told]


def test_an_envelope_of_another_key_is_not_ours(service, directly):
    ours = sealer(service.provider, directly)
    envelope = sealer(local_keys("other"), directly).seal(BODY, destination=PLACE)
    assert refused(ours, envelope) is Verdict.UNKNOWN_KEY
    assert isinstance(service, Local) or not service.asked


def test_changed_bytes_and_other_contexts_are_broken(service):
    """A8: of those services that take a context."""
    keys = direct_keys(service.provider)
    made = keys.encrypt(bytes(40), CONTEXT)
    assert keys.decrypt(made, CONTEXT) == bytes(40)
    for at in (0, len(made.wrapped_key) // 2, -1):
        changed = bytearray(made.wrapped_key)
        changed[at] ^= 1
        for garbage in (bytes(changed), made.wrapped_key[:-1], b"x", bytes(6144)):
            with pytest.raises((KeyBroken, KeyRefused, NotMine)):  # moto says no to what it cannot read
                keys.decrypt(made._replace(wrapped_key=garbage), CONTEXT)
    if not keys.anybody_encrypts:
        with pytest.raises(KeyBroken):
            keys.decrypt(made, KeyContext("orders", "kafka:payments"))
    for stranger in (made._replace(key_id=b"?" * len(made.key_id)), made._replace(algorithm=-4_000_000_000)):
        with pytest.raises(NotMine):
            keys.decrypt(stranger, CONTEXT)


# -- Azure alone -------------------------------------------------------------------------------------------------------


def test_what_azure_decrypts_is_the_format_of_the_spec(key_vault):
    """SPEC.md 3.7: RSA-OAEP-256 of the byte 01, the digest of Enc_structure, the body."""
    double, _ = key_vault
    azure = Azure(*key_vault, Clock())
    envelope = sealer(azure.provider, policy(**SIGNED)).seal(BODY, destination=PLACE)
    decoded = decode(envelope)
    version = next(
        v for vs in double.keys.values() for v in vs if v.name == decoded.recipients[0].key_id[8:].hex()
    )
    oaep = padding.OAEP(mgf=padding.MGF1(SHA256()), algorithm=SHA256(), label=None)
    plaintext = version.secret.decrypt(decoded.payload, oaep)
    protected = decoded.protected
    structure = b"\x83\x67Encrypt\x58" + bytes([len(protected)]) + protected
    structure += bytes.fromhex("50846b706f73747365616c207631f6f680")
    assert plaintext == b"\x01" + sha256(structure) + BODY


def test_without_a_signature_a_public_key_is_refused(key_vault):
    """A9: anybody can encrypt with it."""
    azure = Azure(*key_vault, Clock())
    with pytest.raises(ConfigError, match="privacy"):
        sealer(azure.provider)


def test_before_the_key_is_known_a_body_over_what_any_rsa_key_takes_is_refused_without_a_call(key_vault):
    """D2."""
    azure = Azure(*key_vault, Clock())
    ours = sealer(azure.provider, policy(**SIGNED))
    with pytest.raises(TooLarge, match="413"):
        ours.seal(bytes(414), destination=PLACE)
    assert not azure.asked
    with pytest.raises(TooLarge, match="157"):
        ours.seal(bytes(300), destination=PLACE)
    assert azure.asked == {"get": 1}


def test_a_symmetric_key_of_a_managed_hsm_encrypts_no_bodies(key_vault):
    hsm = ManagedHsm(*key_vault, Clock())
    with pytest.raises(KeyRefused, match="symmetric"):
        sealer(hsm.provider, policy(**SIGNED)).seal(BODY, destination=PLACE)


def test_a_key_that_is_for_wrapping_alone_encrypts_no_bodies(key_vault):
    double, client = key_vault
    azure = Azure(double, client, Clock())
    only = client.create_rsa_key("wraps-only", key_operations=["wrapKey", "unwrapKey"]).name
    provider = AzureKeyVault(client, only)
    assert provider.unwrap(provider.generate(CONTEXT).recipients, CONTEXT)
    with pytest.raises(KeyRefused, match="not for encrypt"):
        sealer(provider, policy(**SIGNED)).seal(BODY, destination=PLACE)
    assert azure.asked["decrypt"] == 0


def test_who_knows_the_public_key_of_azure_forges_nothing_and_costs_no_call(key_vault):
    """A9, B6: the signature comes first."""
    azure = Azure(*key_vault, Clock())
    ours = sealer(azure.provider, policy(**SIGNED))
    theirs = sealer(
        azure.provider, policy(**SIGNED), signers={"ring": KeyRing([HmacKey("2026-10", os.urandom(32))])}
    )
    forged = [theirs.seal(b"%d" % number, destination=PLACE) for number in range(200)]
    assert {refused(ours, envelope) for envelope in forged} == {Verdict.FORGED}
    assert azure.asked["decrypt"] == 0


# -- downgrade, forgery, flood -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, SIGNED], ids=["confidentiality", "privacy"])
def test_a_direct_message_and_one_with_a_data_key_are_not_taken_for_one_another(options):
    """A9: refused before any call."""
    keys = FakeKeys()
    direct, keyed = sealer(keys, policy(**options)), sealer(keys, policy(direct=False, **options))
    with_key, without = keyed.seal(BODY, destination=PLACE), direct.seal(BODY, destination=PLACE)
    assert refused(keyed, without) is Verdict.DOWNGRADE
    assert refused(direct, with_key) is Verdict.DOWNGRADE
    assert keys.opened == 0


def flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def test_every_byte_of_an_envelope_counts():
    """A9."""
    ours = sealer(local_keys(), on_audit=lambda _: None, monotonic=(clock := Clock()))
    envelope = ours.seal(BODY, destination=PLACE)
    for at in range(len(envelope)):
        clock.pass_(2.0)
        with pytest.raises(Refused):
            ours.open(flip(envelope, at), destination=PLACE)
    assert ours.open(envelope, destination=PLACE).body == BODY


def test_a_flood_of_forgeries_has_a_rate():
    """D2, B6: ten at once, then one a second cost a call; what came then is kept, and opens later."""
    keys, clock = FakeKeys(), Clock()
    ours = sealer(keys, monotonic=clock)
    good = ours.seal(BODY, destination=PLACE)
    payload = decode(good).payload
    forged = [good.replace(payload, os.urandom(len(payload))) for _ in range(400)]
    kept = 0
    for envelope in forged:
        try:
            ours.open(envelope, destination=PLACE)
        except KeyUnavailable:
            kept += 1
        except Refused:
            pass
    assert keys.calls["decrypt"] == BURST
    assert kept == 400 - BURST
    with pytest.raises(KeyUnavailable, match="too many"):
        ours.open(good, destination=PLACE)
    clock.pass_(BURST)
    for _ in range(50):
        assert ours.open(good, destination=PLACE).body == BODY  # what opens earns the next call
    assert keys.calls["decrypt"] == BURST + 50


def test_a_flood_in_one_senders_name_slows_no_other(key_vault):
    """B6: a sender whose signature was verified is an account of its own."""
    azure = Azure(*key_vault, Clock())
    rules = policy(**SIGNED | {"senders": ["shop", "broken"]})
    ours = sealer(azure.provider, rules, monotonic=Clock())
    good = ours.seal(BODY, destination=PLACE)
    stolen = decode(good)
    broken = sealer(Passing(stolen), rules, sender="broken")
    outcomes = Counter()
    for _ in range(50):
        try:
            ours.open(broken.seal(b"", destination=PLACE), destination=PLACE)
        except (KeyUnavailable, Refused) as error:
            outcomes[type(error)] += 1
    assert outcomes == {Refused: BURST, KeyUnavailable: 50 - BURST}
    for _ in range(20):
        assert ours.open(good, destination=PLACE).body == BODY


def test_the_same_forgery_costs_one_call_in_30_seconds():
    """B6."""
    keys, clock = FakeKeys(), Clock()
    ours = sealer(keys, monotonic=clock)
    good = ours.seal(BODY, destination=PLACE)
    forged = flip(good, good.index(decode(good).payload))
    for _ in range(50):
        assert refused(ours, forged) is Verdict.FORGED
    assert keys.calls["decrypt"] == 1
    clock.pass_(31.0)
    assert refused(ours, forged) is Verdict.FORGED
    assert keys.calls["decrypt"] == 2


# -- the key service fails ---------------------------------------------------------------------------------------------


def test_unavailable_keeps_and_refused_refuses():
    """B14."""
    keys = FakeKeys()
    ours = sealer(keys)
    envelope = ours.seal(BODY, destination=PLACE)
    keys.unavailable.set()
    for call in (
        lambda: ours.seal(BODY, destination=PLACE),
        lambda: ours.open(envelope, destination=PLACE),
        lambda: asyncio.run(ours.aseal(BODY, destination=PLACE)),
        lambda: asyncio.run(ours.aopen(envelope, destination=PLACE)),
    ):
        with pytest.raises(KeyUnavailable):
            call()
    keys.unavailable.clear()
    assert ours.open(envelope, destination=PLACE).body == BODY
    keys.refused.set()
    assert refused(ours, envelope) is Verdict.UNKNOWN_KEY
    with pytest.raises(KeyRefused, match="refuse"):
        ours.seal(BODY, destination=PLACE)


def test_a_right_that_is_withdrawn_ends_at_once():
    """B3: nothing is cached."""
    keys = FakeKeys()
    ours = sealer(keys)
    envelopes = [ours.seal(BODY, destination=PLACE) for _ in range(2)]
    assert ours.open(envelopes[0], destination=PLACE).body == BODY
    keys.refused.set()
    assert refused(ours, envelopes[1]) is Verdict.UNKNOWN_KEY


def test_a_slow_key_service_blocks_no_loop():
    """B7: the loop goes on while messages wait."""
    keys = FakeKeys()
    ours = sealer(keys)
    keys.slow.set()

    async def both() -> bytes:
        sealing = asyncio.create_task(ours.aseal(BODY, destination=PLACE))
        await asyncio.to_thread(keys.waiting.wait, 30)
        assert not sealing.done()
        keys.unblock()
        return await sealing

    assert ours.open(asyncio.run(both()), destination=PLACE).body == BODY


def test_what_need_not_wait_does_not_open_at_once():
    """`open_cached` and `at_hand` have nothing at hand; what is refused without a call is refused at once."""
    keys = FakeKeys()
    ours = sealer(keys)
    envelope = ours.seal(BODY, destination=PLACE)
    assert ours.open_cached(envelope, destination=PLACE) is None
    assert ours.open_at_hand(PLACE)(envelope) is None
    assert ours.at_hand(PLACE)(BODY) is None
    with pytest.raises(Refused):
        ours.open_cached(BODY, destination=PLACE)
    assert keys.opened == 0


# -- with all else -----------------------------------------------------------------------------------------------------


def test_encrypted_headers_count_to_the_size_and_come_back():
    ours = sealer(local_keys(), policy(encrypt_headers=["tenant"]))
    envelope = ours.seal(BODY, destination=PLACE, headers={"tenant": "north"})
    assert b"north" not in envelope
    assert ours.open(envelope, destination=PLACE).headers == (("tenant", "north"),)
    with pytest.raises(TooLarge):
        ours.seal(bytes(4063), destination=PLACE)


def test_the_ledger_knows_them():
    """B8: a duplicate is one, and another body under the same id a conflict."""
    one_id = bytes(28)
    keys = local_keys()
    ours = sealer(keys, policy(on_duplicate="refuse"), ledger=MemoryLedger(), random=lambda n: one_id[:n])
    first, other = ours.seal(BODY, destination=PLACE), ours.seal(b"other", destination=PLACE)
    ours.settled(ours.open(first, destination=PLACE))
    assert refused(ours, first) is Verdict.DUPLICATE
    assert refused(ours, other) is Verdict.CONFLICT


def test_a_reply_is_bound_to_its_request():
    """E11."""
    ours = sealer(local_keys())
    requests = [ours.seal(BODY, destination=PLACE) for _ in range(2)]
    opened = ours.open(requests[0], destination=PLACE)
    reply = ours.seal(b"yes", destination=PLACE, in_reply_to=opened)
    for index, request in enumerate(requests):
        asked = ours.reference(request)
        if index == 0:
            assert ours.open(reply, destination=PLACE, in_reply_to=asked).body == b"yes"
        else:
            assert refused(ours, reply, in_reply_to=asked) is Verdict.WRONG_DESTINATION


def test_an_expiry_holds():
    now = [1_790_847_015 * 10**9]
    ours = sealer(local_keys(), clock=lambda: now[0])
    expires = dt.datetime.fromtimestamp(1_790_847_075, dt.UTC)
    envelope = ours.seal(BODY, destination=PLACE, expires_at=expires, content_type="text/plain")
    opened = ours.open(envelope, destination=PLACE)
    assert (opened.expires_at, opened.content_type) == (expires, "text/plain")
    now[0] += 60 * 10**9
    assert refused(ours, envelope) is Verdict.STALE


def test_a_gateway_verifies_without_any_key():
    """A12."""
    keys = FakeKeys()
    private = Ed25519PrivateKey.generate()
    signer = Ed25519Key("2026-10", private_key=private, senders=["shop"])
    public = Ed25519Key("2026-10", public_key=private.public_key(), senders=["shop"])
    ours = sealer(keys, policy(**SIGNED), signers={"ring": KeyRing([signer])})
    envelope = ours.seal(BODY, destination=PLACE)
    gateway = Sealer(
        sender="gateway",
        policies=[policy(**SIGNED)],
        signers={"ring": KeyRing([public])},
        verify_only=True,
        alarm=None,
    )
    assert gateway.verify(envelope, destination=PLACE).sender == "shop"
    with pytest.raises(ConfigError, match="no keys"):
        gateway.open(envelope, destination=PLACE)
    assert keys.opened == 0


def test_a_sealed_message_is_not_sealed_again():
    """A10: it passes if it opens, which costs a call."""
    keys = FakeKeys()
    ours = sealer(keys)
    envelope = ours.seal(BODY, destination=PLACE)
    assert ours.seal(envelope, destination=PLACE) == envelope
    assert asyncio.run(ours.aseal(envelope, destination=PLACE)) == envelope
    with pytest.raises(Refused):
        ours.seal(flip(envelope, envelope.index(decode(envelope).payload)), destination=PLACE)


def test_a_policy_may_become_direct_while_it_runs():
    """What was sealed before is then refused: both sides change when the queue is empty, or under another policy."""
    keys = FakeKeys()
    keyed = sealer(keys, policy(direct=False))
    envelope = keyed.seal(BODY, destination=PLACE)
    rules = sealer(keys)._rules
    keyed._take_over(rules, None, None)
    assert refused(keyed, envelope) is Verdict.DOWNGRADE
    assert keyed.open(keyed.seal(BODY, destination=PLACE), destination=PLACE).body == BODY


# -- bad input ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"protection": "integrity", "keys": [], "sign": "r", "senders": ["s"]}, "hides none"),
        ({"keys": ["main", "archive"]}, "one key, not 2"),
        ({"data_key": DataKeyLimits(max_messages=1)}, "data_key speaks of data keys"),
        ({"opening": OpeningLimits(max_age=60)}, "opening speaks of data keys"),
        ({"opening": OpeningLimits(max_keys=5, max_failures=3)}, "opening speaks of data keys"),
        ({"key_by_reference": True}, "key_by_reference speaks of data keys"),
    ],
    ids=["integrity", "two keys", "data_key", "opening", "opening in part", "key_by_reference"],
)
def test_what_does_not_go_with_direct_is_refused(options, text):
    with pytest.raises(ConfigError, match=text):
        policy(**options)


def test_purge_forgets_what_did_not_open():
    keys = FakeKeys()
    ours = sealer(keys)
    envelope = ours.seal(BODY, destination=PLACE)
    keys.refused.set()
    assert refused(ours, envelope) is Verdict.UNKNOWN_KEY
    keys.refused.clear()
    assert refused(ours, envelope) is Verdict.UNKNOWN_KEY  # it is remembered
    ours.purge()
    assert ours.open(envelope, destination=PLACE).body == BODY


@pytest.mark.parametrize(("max_failures", "more"), [(5.0, 1), (1.0, 0)])
def test_how_many_may_fail_is_for_the_policy_to_say(max_failures, more):
    keys, clock = FakeKeys(), Clock()
    ours = sealer(keys, policy(opening=OpeningLimits(max_failures=max_failures)), monotonic=clock)
    good = ours.seal(BODY, destination=PLACE)
    payload = decode(good).payload
    for _ in range(2):
        for _ in range(50):
            with pytest.raises((KeyUnavailable, Refused)):
                ours.open(good.replace(payload, os.urandom(len(payload))), destination=PLACE)
        clock.pass_(2.1)  # ten at five a second, and a little
    assert keys.calls["decrypt"] == BURST + more


def test_a_provider_that_encrypts_no_bodies_is_refused():
    with pytest.raises(ConfigError, match="encrypts bodies itself"):
        sealer(CombinedKeys([local_keys()]))


def test_telemetry_measures_its_calls_and_changes_nothing():
    """E8."""
    measured: list[str] = []

    class Telemetry:
        def watch(self, sealer): ...

        def watched(self, name, provider):
            return _Watched(self, name, provider)

        def call(self, name, verb, context):
            measured.append(verb)
            return nullcontext()

    ours = sealer(FakeKeys(), telemetry=Telemetry())
    assert ours.open(ours.seal(BODY, destination=PLACE), destination=PLACE).body == BODY
    assert measured == ["encrypt", "decrypt"]
    with pytest.raises(ConfigError, match="encrypts bodies itself"):
        sealer(CombinedKeys([local_keys()]), telemetry=Telemetry())


class Noting(Around):
    """Notes what is asked."""

    def in_words(self):
        return ()

    def _ask(self, verb, context, call):
        asked.append((verb, context))
        return call()


asked: list[tuple[str, KeyContext]] = []


def test_what_stands_around_a_key_service_stands_around_these_calls_too():
    """B7: tries, deadline, breaker and quota hold for bodies as for data keys."""
    asked.clear()
    ours = sealer(Noting(FakeKeys()))
    assert ours.open(ours.seal(BODY, destination=PLACE), destination=PLACE).body == BODY
    assert asked == [("encrypt", CONTEXT), ("decrypt", CONTEXT)]
    with pytest.raises(ConfigError, match="encrypts bodies itself"):
        sealer(Noting(CombinedKeys([local_keys()])))
    keys = FakeKeys()
    keys.unavailable.set()
    ours = sealer(Breaker(keys, failures=2))
    for _ in range(10):
        with pytest.raises(KeyUnavailable):
            ours.seal(BODY, destination=PLACE)
    assert keys.calls["encrypt"] == 2


# -- tools -------------------------------------------------------------------------------------------------------------


def test_it_is_moved_to_no_other_key_and_no_archive_opens_it():
    """B11: and both say why."""
    keys = local_keys()
    envelope = sealer(keys).seal(BODY, destination=PLACE)
    with pytest.raises(Refused) as refused:
        Rewrapper(keys, local_keys("new")).rewrap(envelope)
    assert "encrypted its body itself" in refused.value.detail
    with pytest.raises(Refused) as refused:
        Recovery(keys, policies=[policy()]).open(Kept("a file", envelope))
    assert "only that opens it" in refused.value.detail


def test_inspect_shows_what_there_is(tmp_path, capsys):
    path = tmp_path / "envelope"
    path.write_bytes(sealer(local_keys()).seal(BODY, destination=PLACE))
    assert run(["inspect", str(path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    told = told[0] if isinstance(told, list) else told.get("envelopes", [told])[0]
    assert told["unverified"]["encryption"]["algorithm"] == "the key service itself"
    assert told["unverified"]["encryption"]["nonce"] is None
    assert told["bytes"]["body"] is None
    assert run(["inspect", str(path)]) == 0
    text = capsys.readouterr().out
    assert f"{33 + len(BODY) + 28} bytes that the key service encrypted" in text
