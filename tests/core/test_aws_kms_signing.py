"""Signing keys of AWS KMS, on moto, and on botocore's Stubber for what moto does not do."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from types import SimpleNamespace

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, EndpointConnectionError
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_public_key
from moto import mock_aws

from postseal.core import (
    ConfigError,
    DelegatedKey,
    Es256Key,
    KeyRefused,
    KeyRing,
    KeyUnavailable,
    Origin,
    PublicKeyRecipients,
    RecipientKey,
    Refused,
    Sealer,
    Verdict,
)
from postseal.core.providers.aws_kms_signing import AwsKmsEs256Key, AwsKmsHmacKey
from postseal.core.signing import Ask
from postseal.core.wire import Credential, Delegation, decode
from tests.core.kit import HERE, SENDER, Clock, CountedKeys, Party, local_keys, policy
from tests.core.test_delegation import wait_for_thread

REGION = "eu-west-1"
ARN = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
KINDS = {
    "es256": (AwsKmsEs256Key, {"KeySpec": "ECC_NIST_P256", "KeyUsage": "SIGN_VERIFY"}),
    "hmac": (AwsKmsHmacKey, {"KeySpec": "HMAC_256", "KeyUsage": "GENERATE_VERIFY_MAC"}),
}
DENIED = ClientError({"Error": {"Code": "AccessDeniedException"}}, "any")
AWAY = EndpointConnectionError(endpoint_url="https://kms.example")


def kms_client(region: str = REGION):
    return boto3.client(
        "kms",
        region_name=region,
        aws_access_key_id="testing",
        aws_secret_access_key="testing",
        config=Config(retries={"total_max_attempts": 1}),
    )


class Ends:
    """A producer whose key delegates in AWS KMS, and a consumer that knows that key; each with its own client, which counts."""

    def __init__(self, kind: str, form: str = "privacy", **options) -> None:
        self.clock = Clock()
        make, spec = KINDS[kind]
        self.clients = kms_client(), kms_client()
        self.arn = self.clients[0].create_key(**spec)["KeyMetadata"]["Arn"]
        self.asked: tuple[Counter[str], Counter[str]] = Counter(), Counter()
        self.fails: list[BaseException | None] = [None, None]
        for side in range(2):
            self.clients[side].meta.events.register("before-call.kms", self._hear(side))
        self.roots = tuple(
            make(
                "root",
                client,
                self.arn,
                signs=signs,
                monotonic=self.clock.seconds,
                **(options if signs is False else {}),
            )
            for client, signs in zip(self.clients, (True, False), strict=True)
        )
        self.keys = [DelegatedKey(root, senders=[SENDER], clock=self.clock.seconds) for root in self.roots]
        provider = CountedKeys(local_keys())
        self.producer, self.consumer = (
            Party(
                policy(f"{form}-hmac"),
                keys=provider,
                rings={"hmac": KeyRing([key], clock=self.clock.seconds)},
                clock=self.clock,
            )
            for key in self.keys
        )

    def _hear(self, side: int):
        def hear(model, **_) -> None:
            self.asked[side][model.name] += 1
            if (fail := self.fails[side]) is not None:
                raise fail

        return hear

    def seal(self, body: bytes = b"x") -> bytes:
        return self.producer.seal(body, destination=HERE)

    def open(self, envelope: bytes):
        return self.consumer.open(envelope, destination=HERE)

    def refusal(self, envelope: bytes) -> Verdict:
        with pytest.raises(Refused) as refused:
            self.open(envelope)
        return refused.value.verdict

    def pass_(self, seconds: float) -> None:
        self.clock.ms += int(seconds * 1000)


@pytest.fixture(autouse=True)
def moto():
    with mock_aws():
        yield


MAKES = {"es256": {"GetPublicKey": 1, "Sign": 1}, "hmac": {"GenerateMac": 1}}
VERIFIES = {"es256": {"GetPublicKey": 1}, "hmac": {"VerifyMac": 1}}


@pytest.mark.parametrize("form", ["privacy", "integrity"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_key_of_aws_kms_delegates_and_no_message_pays_a_call(kind, form):
    """A6, E4: a hundred messages, two calls at most on each side; the counters of the keys say the same."""
    ends = Ends(kind, form)
    for number in range(100):
        opened = ends.open(ends.seal(b"%d" % number))
        assert (opened.body, opened.sender) == (b"%d" % number, SENDER)
        assert opened.origin is (Origin.SENDER if kind == "es256" else Origin.GROUP)
    assert dict(ends.asked[0]) == ends.roots[0].calls.values_now == MAKES[kind]
    assert dict(ends.asked[1]) == ends.roots[1].calls.values_now == VERIFIES[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_many_threads_and_many_tasks_wait_for_one_call(kind):
    ends = Ends(kind)
    start = threading.Barrier(8)
    opened: list[bytes] = []

    def work() -> None:
        start.wait()
        opened.extend(ends.open(ends.seal()).body for _ in range(5))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert opened == [b"x"] * 40
    assert (dict(ends.asked[0]), dict(ends.asked[1])) == (MAKES[kind], VERIFIES[kind])

    async def main() -> list[bytes]:
        tasks = Ends(kind)
        sealed = await asyncio.gather(
            *(tasks.producer.sealer.aseal(b"x", destination=HERE) for _ in range(20))
        )
        done = await asyncio.gather(*(tasks.consumer.sealer.aopen(e, destination=HERE) for e in sealed))
        assert (dict(tasks.asked[0]), dict(tasks.asked[1])) == (MAKES[kind], VERIFIES[kind])
        return [one.body for one in done]

    assert asyncio.run(main()) == [b"x"] * 20


@pytest.mark.parametrize("kind", KINDS)
def test_rotation_under_load_refuses_nothing(kind):
    """E4: a delegation every ten minutes, for six hours; a root that rotates meanwhile."""
    ends = Ends(kind)
    make, spec = KINDS[kind]
    kids = set()
    for minute in range(360):
        if minute == 180:
            arn = ends.clients[0].create_key(**spec)["KeyMetadata"]["Arn"]
            new = [make("root-2", client, arn, monotonic=ends.clock.seconds) for client in ends.clients]
            old, news = ends.keys, [DelegatedKey(k, senders=[SENDER], clock=ends.clock.seconds) for k in new]
            ends.consumer.sealer._rules.rings["orders"].replace([old[1], news[1]])
            ends.producer.sealer._rules.rings["orders"].replace([news[0]])
        ends.pass_(60)
        envelope = ends.seal()
        kids.add(decode(envelope).outer.key_id)
        assert ends.open(envelope).body == b"x"
        wait_for_thread()
    assert len(kids) >= 36
    made = ends.asked[0]["Sign"] + ends.asked[0]["GenerateMac"]
    assert made - len(kids) in (0, 1, 2), "one call a key; the last one of each root may not have signed yet"
    assert ends.consumer.events == []


# -- away, and no ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_passing_fault_keeps_the_message_and_a_no_refuses_it(kind):
    """Of the producer: it cannot seal. Of the consumer: a message is kept, or refused."""
    ends = Ends(kind)
    ends.fails[0] = AWAY
    with pytest.raises(KeyUnavailable):
        ends.seal()
    ends.fails[0] = DENIED
    ends.pass_(3)
    with pytest.raises(KeyRefused, match="is not allowed"):
        ends.seal()
    ends.fails[0] = None
    ends.pass_(31)
    envelope = ends.seal()
    ends.fails[1] = AWAY
    with pytest.raises(KeyUnavailable):
        ends.open(envelope)
    assert ends.consumer.events == []
    ends.fails[1] = DENIED
    ends.pass_(3)
    assert ends.refusal(envelope) is Verdict.UNKNOWN_KEY
    ends.fails[1] = None
    ends.pass_(31)
    assert ends.open(envelope).body == b"x"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("fault", "seconds"), [(AWAY, 2), (DENIED, 30)])
def test_messages_drive_no_calls_while_the_service_fails(kind, fault, seconds):
    """B8: genuine ones or forged, as many as there are."""
    ends = Ends(kind)
    envelopes = [ends.seal()] + [forged(ends) for _ in range(20)]
    ends.fails[1] = fault
    for envelope in envelopes:
        with pytest.raises((KeyUnavailable, Refused)):
            ends.open(envelope)
    assert ends.asked[1].total() == 1
    ends.pass_(seconds - 0.1)
    with pytest.raises((KeyUnavailable, Refused)):
        ends.open(envelopes[0])
    assert ends.asked[1].total() == 1
    ends.pass_(0.2)
    ends.fails[1] = None
    assert ends.open(envelopes[0]).body == b"x"


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_verified_goes_on_while_the_service_is_away_and_ends_when_it_says_no(kind):
    """A13: the window of a root that was disabled is `refresh`, 5 minutes."""
    ends = Ends(kind, max_stale=900)
    envelope = ends.seal()
    assert ends.open(envelope).body == b"x"
    ends.fails[1] = AWAY
    ends.pass_(301)
    for _ in range(5):
        assert ends.open(envelope).body == b"x"
    assert ends.asked[1].total() == 2, "asked again, once"
    ends.pass_(900)
    with pytest.raises(KeyUnavailable):
        ends.open(envelope)
    ends.fails[1] = None
    ends.pass_(3)
    assert ends.open(envelope).body == b"x"
    ends.fails[1] = DENIED
    ends.pass_(299)
    assert ends.open(envelope).body == b"x"
    ends.pass_(2)
    assert ends.refusal(envelope) is Verdict.UNKNOWN_KEY


# -- forged ------------------------------------------------------------------------------------------------------------


def forged(ends: Ends) -> bytes:
    """Make a message with a delegation that the root never signed."""
    private = ec.generate_private_key(ec.SECP256R1())
    signer = Es256Key("x", private_key=private, senders=[SENDER])
    now = ends.clock.ms // 1000
    statement = Delegation(
        algorithm=ends.roots[0].algorithm,
        key_id=b"root",
        sender=SENDER,
        begins=now,
        ends=now + 600,
        delegate=signer.algorithm,
        public_key=signer.public_bytes,
        signature=bytes(31) + b"\1" + bytes(ends.roots[0].algorithm.signature_size - 32),
    )
    credential = Credential.of(statement)
    from postseal.core.crypto import sha256

    signer.kid, signer.credential = sha256(credential.value), credential.encode()
    thief = Party(
        policy("privacy-hmac"), keys=ends.producer.keys, rings={"hmac": KeyRing([signer])}, clock=ends.clock
    )
    return thief.seal(b"x", destination=HERE)


def test_forged_delegations_cost_a_verifier_of_es256_no_call():
    """E3, B8."""
    ends = Ends("es256")
    assert ends.open(ends.seal()).body == b"x"
    for _ in range(20):
        assert ends.refusal(forged(ends)) is Verdict.FORGED
    assert dict(ends.asked[1]) == VERIFIES["es256"]


def test_forged_delegations_of_a_mac_are_bounded_and_drive_out_no_genuine_one():
    """E3, B8: each forged one is asked about once; beyond `max_calls` a minute the message is kept, and what was confirmed goes on."""
    ends = Ends("hmac", max_calls=10)
    genuine = ends.seal()
    assert ends.open(genuine).body == b"x"
    forgeries = [forged(ends) for _ in range(30)]
    for envelope in forgeries[:9]:
        for _ in range(3):
            assert ends.refusal(envelope) is Verdict.FORGED
    assert ends.asked[1]["VerifyMac"] == 10
    for envelope in forgeries[9:]:
        with pytest.raises(KeyUnavailable, match="in a minute"):
            ends.open(envelope)
    assert ends.asked[1]["VerifyMac"] == 10
    assert ends.open(genuine).body == b"x"
    ends.pass_(6)
    assert ends.refusal(forgeries[9]) is Verdict.FORGED
    assert ends.asked[1]["VerifyMac"] == 11


def test_a_flood_of_forged_delegations_forgets_none_that_was_confirmed():
    ends = Ends("hmac", max_calls=10_000)
    genuine = ends.seal()
    assert ends.open(genuine).body == b"x"
    voucher = ends.keys[1]
    credential = decode(genuine).credential
    delegation = credential.delegation
    for number in range(1100):
        wrong = delegation._replace(
            ends=delegation.ends - 1 - number % 300, begins=delegation.begins - number % 7
        )
        kid = number.to_bytes(32, "big")
        with pytest.raises(Ask) as ask:
            voucher.vouch(kid, Credential.of(wrong))
        ask.value.call()
    before = ends.asked[1]["VerifyMac"]
    assert voucher.vouch(decode(genuine).outer.key_id, credential) is not None
    assert ends.asked[1]["VerifyMac"] == before


# -- the two sides -----------------------------------------------------------------------------------------------------


def test_who_verifies_may_have_an_export_of_the_public_key_and_no_right_to_anything():
    """B6: and the gateway that fetches it needs `signs=False`."""
    ends = Ends("es256")
    envelope = ends.seal()
    public = load_der_public_key(ends.clients[0].get_public_key(KeyId=ends.arn)["PublicKey"])
    for root in (Es256Key("root", public_key=public, senders=[SENDER]), ends.roots[1]):
        key = DelegatedKey(root, senders=[SENDER], clock=ends.clock.seconds)
        gateway = Sealer(
            sender="gateway",
            policies=[policy("privacy-hmac")],
            signers={"hmac": KeyRing([key], clock=ends.clock.seconds)},
            verify_only=True,
            clock=ends.clock,
        )
        assert gateway.verify(envelope, destination=HERE).sender == SENDER
    with pytest.raises(ConfigError, match="private"):
        Sealer(
            sender="gateway",
            policies=[policy("privacy-hmac")],
            signers={"hmac": KeyRing([ends.keys[0]])},
            verify_only=True,
        )


def test_a_key_to_open_with_signs_nothing_also_where_it_is_known_only_once_it_was_fetched():
    """B1."""
    ends = Ends("es256")
    public = load_der_public_key(ends.clients[0].get_public_key(KeyId=ends.arn)["PublicKey"])
    pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    keys = PublicKeyRecipients([RecipientKey.from_pem(pem)])
    sealed = ends.seal()
    for use in (
        lambda party: party.seal(b"x", destination=HERE),
        lambda party: party.open(sealed, destination=HERE),
    ):
        root = AwsKmsEs256Key("root", ends.clients[0], ends.arn)
        key = DelegatedKey(root, senders=[SENDER], clock=ends.clock.seconds)
        party = Party(policy("privacy-hmac"), keys=keys, rings={"hmac": KeyRing([key])}, clock=ends.clock)
        with pytest.raises(ConfigError, match="two key pairs"):
            use(party)


@pytest.mark.parametrize("kind", KINDS)
def test_a_key_that_only_verifies_here_signs_nothing(kind):
    ends = Ends(kind)
    with pytest.raises(ConfigError, match="signs=False"):
        ends.roots[1].signer(SENDER, "x")
    with pytest.raises(ConfigError, match="DelegatedKey"):
        KeyRing([ends.roots[0]])
    with pytest.raises(ConfigError, match="no active key"):
        ends.consumer.seal(b"x", destination=HERE)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("key", "options", "words"),
    [
        ("alias/billing", {}, "must be the ARN"),
        (ARN.replace("eu-west-1", "us-east-1"), {}, "in us-east-1"),
        (ARN, {"refresh": 0}, "refresh"),
        (ARN, {"refresh": 86_401}, "refresh"),
        (ARN, {"max_stale": -1}, "max_stale"),
    ],
)
def test_a_wrong_option_is_a_config_error(kind, key, options, words):
    with pytest.raises(ConfigError, match=words):
        KINDS[kind][0]("root", kms_client(), key, **options)


def test_max_calls_is_at_least_one():
    with pytest.raises(ConfigError, match="max_calls"):
        AwsKmsHmacKey("root", kms_client(), ARN, max_calls=0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_key_of_several_regions_is_asked_in_the_clients_own(kind):
    arn = "arn:aws:kms:us-east-1:111122223333:key/mrk-1234abcd12ab34cd56ef1234567890ab"
    assert "eu-west-1" in repr(KINDS[kind][0]("root", kms_client(), arn))


# -- answers that moto does not give -------------------------------------------------------------------------------------


class Answers:
    """A client that answers what it is told."""

    meta = SimpleNamespace(region_name=REGION)

    def __init__(self, **answers) -> None:
        self.answers = answers

    def __getattr__(self, name):
        answer = self.answers[name]

        def call(**_):
            if isinstance(answer, BaseException):
                raise answer
            return answer

        return call


PRIVATE = ec.generate_private_key(ec.SECP256R1())
SPKI = PRIVATE.public_key().public_bytes(
    serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
)
P384 = (
    ec.generate_private_key(ec.SECP384R1())
    .public_key()
    .public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
)
PUBLIC = {
    "KeyId": ARN,
    "PublicKey": SPKI,
    "KeyUsage": "SIGN_VERIFY",
    "SigningAlgorithms": ["ECDSA_SHA_256"],
}


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        ({**PUBLIC, "KeyUsage": "KEY_AGREEMENT"}, KeyRefused, "ECC_NIST_P256"),
        ({**PUBLIC, "SigningAlgorithms": ["ECDSA_SHA_384"]}, KeyRefused, "ECC_NIST_P256"),
        ({**PUBLIC, "PublicKey": P384}, KeyUnavailable, "no public key on P-256"),
        ({**PUBLIC, "PublicKey": SPKI[:-1]}, KeyUnavailable, "no public key on P-256"),
        ({**PUBLIC, "KeyId": ARN[:-1] + "c"}, KeyUnavailable, "another key"),
        ({}, KeyUnavailable, "half an answer"),
        (ClientError({"Error": {"Code": "DisabledException"}}, "x"), KeyRefused, "DisabledException"),
        (
            ClientError({"Error": {"Code": "UnsupportedOperationException"}}, "x"),
            KeyRefused,
            "UnsupportedOperation",
        ),
        (ClientError({"Error": {"Code": "ThrottlingException"}}, "x"), KeyUnavailable, "Throttling"),
    ],
)
def test_an_answer_to_get_public_key_is_not_believed_unseen(answer, kind, words):
    with pytest.raises(kind, match=words):
        AwsKmsEs256Key("root", Answers(get_public_key=answer), ARN).fetch()


OF_ANOTHER_MESSAGE = PRIVATE.sign(b"another", ec.ECDSA(hashes.SHA256()))


@pytest.mark.parametrize("signature", [b"", b"\x30", bytes(64), OF_ANOTHER_MESSAGE])
def test_a_signature_that_does_not_verify_is_never_sent(signature):
    key = AwsKmsEs256Key(
        "root", Answers(get_public_key=PUBLIC, sign={"KeyId": ARN, "Signature": signature}), ARN
    )
    with pytest.raises(KeyUnavailable):
        key.signer(SENDER, "x")(b"message")


def test_a_mac_of_another_size_is_never_sent():
    client = Answers(generate_mac={"KeyId": ARN, "Mac": bytes(31)})
    with pytest.raises(KeyUnavailable, match="31 bytes"):
        AwsKmsHmacKey("root", client, ARN).signer(SENDER, "x")(b"message")


def test_an_answer_to_verify_mac_without_a_yes_is_a_no():
    from postseal.core.crypto import InvalidSignature

    for answer in ({"KeyId": ARN}, {"KeyId": ARN, "MacValid": False}):
        key = AwsKmsHmacKey("root", Answers(verify_mac=answer), ARN)
        with pytest.raises(InvalidSignature):
            key.verifier(SENDER, "x")(b"message", bytes(32))
