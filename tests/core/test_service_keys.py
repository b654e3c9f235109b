"""Signing keys of AWS KMS, on moto, and of Azure Key Vault, on a double: as roots that delegate."""

from __future__ import annotations

import asyncio
import functools
import json
import threading
import time
import uuid
from collections import Counter
from datetime import UTC, datetime
from types import SimpleNamespace

import boto3
import pytest
from azure.keyvault.keys.aio import KeyClient as AsyncKeyClient
from botocore.config import Config
from botocore.exceptions import ClientError, EndpointConnectionError
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_public_key
from moto import mock_aws

from postseal.core import (
    AwsKmsEs256Key,
    AwsKmsHmacKey,
    AzureEs256Key,
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
from postseal.core.crypto import InvalidSignature, p256_of_point, sha256
from postseal.core.providers._azure_keys import encode
from postseal.core.signing import Ask
from postseal.core.wire import Credential, Delegation, decode
from tests.core.key_vault import Answer, AnyAsyncCredential, KeyVaultDouble
from tests.core.kit import HERE, SENDER, Clock, CountedKeys, Party, local_keys, policy
from tests.core.test_delegation import wait_for_thread

REGION = "eu-west-1"
ARN = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
KINDS = {
    "aws-es256": (AwsKmsEs256Key, {"KeySpec": "ECC_NIST_P256", "KeyUsage": "SIGN_VERIFY"}),
    "aws-hmac": (AwsKmsHmacKey, {"KeySpec": "HMAC_256", "KeyUsage": "GENERATE_VERIFY_MAC"}),
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


class Aws:
    """AWS KMS on moto, with a client for each side, which counts."""

    def __init__(self, kind: str) -> None:
        self.kind = kind.removeprefix("aws-")
        self.make, self.spec = KINDS[kind]
        self.clients = kms_client(), kms_client()
        self.asked: tuple[Counter[str], Counter[str]] = Counter(), Counter()
        self.fails: list[BaseException | None] = [None, None]
        for side in range(2):
            self.clients[side].meta.events.register("before-call.kms", self._hear(side))
        self.key = self.new_key()
        self.asked[0].clear()

    def new_key(self) -> str:
        return self.clients[0].create_key(**self.spec)["KeyMetadata"]["Arn"]

    def root(self, side: int, key: str | None = None, name: str = "root", **options):
        return self.make(name, self.clients[side], key or self.key, **options)

    def public_key(self):
        return load_der_public_key(self.clients[0].get_public_key(KeyId=self.key)["PublicKey"])

    def fail(self, side: int, how: str | None) -> None:
        self.fails[side] = {"away": AWAY, "denied": DENIED, None: None}[how]

    def _hear(self, side: int):
        def hear(model, **_) -> None:
            self.asked[side][model.name] += 1
            if (fail := self.fails[side]) is not None:
                raise fail

        return hear


class Azure:
    """A double of Azure Key Vault; its calls are those that the roots of each side counted, as many as it heard of."""

    def __init__(self, kind: str) -> None:
        self.double, self.client = vault()
        self.double.begin_again()
        self.roots: tuple[list, list] = [], []
        self.key = self.new_key()
        self.double.asked.clear()

    def new_key(self) -> str:
        return self.client.create_ec_key(f"signing-{uuid.uuid4().hex}").id

    def root(self, side: int, key: str | None = None, name: str = "root", **options):
        made = AzureEs256Key(name, self.client, key or self.key, **options)
        self.roots[side].append(made)
        return made

    @property
    def asked(self) -> tuple[Counter[str], ...]:
        counted = tuple(
            sum((Counter(root.calls.values_now) for root in side), Counter()) for side in self.roots
        )
        heard = Counter({name: self.double.asked[name] for name in ("get", "sign")})
        assert counted[0] + counted[1] == heard + Counter()
        return counted

    def public_key(self):
        self.double.asked["get"] -= 1
        key = self.client.get_key(self.key.split("/")[-2], self.key.split("/")[-1]).key
        return p256_of_point(key.x, key.y)

    def fail(self, side: int, how: str | None) -> None:
        self.double.away = how == "away"
        self.double.denied = {"get", "sign"} if how == "denied" else set()


@functools.cache
def vault():
    double = KeyVaultDouble().__enter__()
    return double, double.client()


@pytest.fixture(scope="module", autouse=True)
def vault_ends():
    yield
    if vault.cache_info().currsize:
        double, client = vault()
        client.close()
        double.__exit__()
        vault.cache_clear()


class Ends:
    """A producer whose key delegates in a key service, and a consumer that knows that key."""

    def __init__(self, kind: str, form: str = "privacy", **options) -> None:
        self.clock = Clock()
        self.service = Azure(kind) if kind == "azure" else Aws(kind)
        self.fail = self.service.fail
        common = {"monotonic": self.clock.seconds}
        self.roots = (
            self.service.root(0, **common),
            self.service.root(1, signs=False, **common, **options),
        )
        self.keys = [self.delegated(root) for root in self.roots]
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

    @property
    def asked(self):
        return self.service.asked

    def delegated(self, root) -> DelegatedKey:
        return DelegatedKey(root, senders=[SENDER], clock=self.clock.seconds)

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


MAKES = {
    "aws-es256": {"GetPublicKey": 1, "Sign": 1},
    "aws-hmac": {"GenerateMac": 1},
    "azure": {"get": 1, "sign": 1},
}
VERIFIES = {"aws-es256": {"GetPublicKey": 1}, "aws-hmac": {"VerifyMac": 1}, "azure": {"get": 1}}
ASYMMETRIC = ["aws-es256", "azure"]


@pytest.mark.parametrize("form", ["privacy", "integrity"])
@pytest.mark.parametrize("kind", MAKES)
def test_a_key_of_a_service_delegates_and_no_message_pays_a_call(kind, form):
    """A6, E4: a hundred messages, two calls at most on each side; the counters of the keys say the same."""
    ends = Ends(kind, form)
    for number in range(100):
        opened = ends.open(ends.seal(b"%d" % number))
        assert (opened.body, opened.sender) == (b"%d" % number, SENDER)
        assert opened.origin is (Origin.GROUP if kind == "aws-hmac" else Origin.SENDER)
    assert dict(ends.asked[0]) == ends.roots[0].calls.values_now == MAKES[kind]
    assert dict(ends.asked[1]) == ends.roots[1].calls.values_now == VERIFIES[kind]


@pytest.mark.parametrize("kind", MAKES)
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


@pytest.mark.parametrize("kind", MAKES)
def test_rotation_under_load_refuses_nothing(kind):
    """E4: a delegation every ten minutes, for six hours; a root that rotates meanwhile."""
    ends = Ends(kind)
    kids = set()
    for minute in range(360):
        if minute == 180:
            key = ends.service.new_key()
            new = [
                ends.delegated(ends.service.root(side, key, "root-2", monotonic=ends.clock.seconds))
                for side in range(2)
            ]
            ends.consumer.sealer._rules.rings["orders"].replace([ends.keys[1], new[1]])
            ends.producer.sealer._rules.rings["orders"].replace([new[0]])
        ends.pass_(60)
        envelope = ends.seal()
        kids.add(decode(envelope).outer.key_id)
        assert ends.open(envelope).body == b"x"
        wait_for_thread()
    assert len(kids) >= 36
    made = sum(ends.asked[0][name] for name in ("Sign", "GenerateMac", "sign"))
    assert made - len(kids) in (0, 1, 2), "one call a key; the last one of each root may not have signed yet"
    assert ends.consumer.events == []


# -- away, and no ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", MAKES)
def test_a_passing_fault_keeps_the_message_and_a_no_refuses_it(kind):
    """Of the producer: it cannot seal. Of the consumer: a message is kept, or refused."""
    ends = Ends(kind)
    ends.fail(0, "away")
    with pytest.raises(KeyUnavailable):
        ends.seal()
    ends.fail(0, "denied")
    ends.pass_(3)
    with pytest.raises(KeyRefused, match=r"is not allowed|ForbiddenByRbac"):
        ends.seal()
    ends.fail(0, None)
    ends.pass_(31)
    envelope = ends.seal()
    ends.fail(1, "away")
    with pytest.raises(KeyUnavailable):
        ends.open(envelope)
    assert ends.consumer.events == []
    ends.fail(1, "denied")
    ends.pass_(3)
    assert ends.refusal(envelope) is Verdict.UNKNOWN_KEY
    ends.fail(1, None)
    ends.pass_(31)
    assert ends.open(envelope).body == b"x"


@pytest.mark.parametrize("kind", MAKES)
@pytest.mark.parametrize(("fault", "seconds"), [("away", 2), ("denied", 30)])
def test_messages_drive_no_calls_while_the_service_fails(kind, fault, seconds):
    """B8: genuine ones or forged, as many as there are."""
    ends = Ends(kind)
    envelopes = [ends.seal()] + [forged(ends) for _ in range(20)]
    ends.fail(1, fault)
    for envelope in envelopes:
        with pytest.raises((KeyUnavailable, Refused)):
            ends.open(envelope)
    assert ends.asked[1].total() == 1
    ends.pass_(seconds - 0.1)
    with pytest.raises((KeyUnavailable, Refused)):
        ends.open(envelopes[0])
    assert ends.asked[1].total() == 1
    ends.pass_(0.2)
    ends.fail(1, None)
    assert ends.open(envelopes[0]).body == b"x"


@pytest.mark.parametrize("kind", MAKES)
def test_what_was_verified_goes_on_while_the_service_is_away_and_ends_when_it_says_no(kind):
    """A13: the window of a root that was disabled is `refresh`, 5 minutes."""
    ends = Ends(kind, max_stale=900)
    envelope = ends.seal()
    assert ends.open(envelope).body == b"x"
    ends.fail(1, "away")
    ends.pass_(301)
    for _ in range(5):
        assert ends.open(envelope).body == b"x"
    assert ends.asked[1].total() == 2, "asked again, once"
    ends.pass_(900)
    with pytest.raises(KeyUnavailable):
        ends.open(envelope)
    ends.fail(1, None)
    ends.pass_(3)
    assert ends.open(envelope).body == b"x"
    ends.fail(1, "denied")
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
    signer.kid, signer.credential = sha256(credential.value), credential.encode()
    thief = Party(
        policy("privacy-hmac"), keys=ends.producer.keys, rings={"hmac": KeyRing([signer])}, clock=ends.clock
    )
    return thief.seal(b"x", destination=HERE)


@pytest.mark.parametrize("kind", ASYMMETRIC)
def test_forged_delegations_cost_a_verifier_with_a_public_key_no_call(kind):
    """E3, B8."""
    ends = Ends(kind)
    assert ends.open(ends.seal()).body == b"x"
    for _ in range(20):
        assert ends.refusal(forged(ends)) is Verdict.FORGED
    assert dict(ends.asked[1]) == VERIFIES[kind]


def test_forged_delegations_of_a_mac_are_bounded_and_drive_out_no_genuine_one():
    """E3, B8: each forged one is asked about once; beyond `max_calls` a minute the message is kept, and what was confirmed goes on."""
    ends = Ends("aws-hmac", max_calls=10)
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
    ends = Ends("aws-hmac", max_calls=10_000)
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


@pytest.mark.parametrize("kind", ASYMMETRIC)
def test_who_verifies_may_have_an_export_of_the_public_key_and_no_right_to_anything(kind):
    """B6: and the gateway that fetches it needs `signs=False`."""
    ends = Ends(kind)
    envelope = ends.seal()
    public = ends.service.public_key()
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


@pytest.mark.parametrize("kind", ASYMMETRIC)
def test_a_key_to_open_with_signs_nothing_also_where_it_is_known_only_once_it_was_fetched(kind):
    """B1."""
    ends = Ends(kind)
    public = ends.service.public_key()
    pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    keys = PublicKeyRecipients([RecipientKey.from_pem(pem)])
    sealed = ends.seal()
    for use in (
        lambda party: party.seal(b"x", destination=HERE),
        lambda party: party.open(sealed, destination=HERE),
    ):
        key = ends.delegated(ends.service.root(0))
        party = Party(policy("privacy-hmac"), keys=keys, rings={"hmac": KeyRing([key])}, clock=ends.clock)
        with pytest.raises(ConfigError, match="two key pairs"):
            use(party)


@pytest.mark.parametrize("kind", MAKES)
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


@pytest.mark.parametrize(
    "signature", [b"", b"\x30", bytes(64), OF_ANOTHER_MESSAGE], ids=["none", "cut", "zeros", "another's"]
)
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
    for answer in ({"KeyId": ARN}, {"KeyId": ARN, "MacValid": False}):
        key = AwsKmsHmacKey("root", Answers(verify_mac=answer), ARN)
        with pytest.raises(InvalidSignature):
            key.verifier(SENDER, "x")(b"message", bytes(32))


# -- of a vault ----------------------------------------------------------------------------------------------------------

VAULT = "https://billing.vault.azure.net"
VERSION = "0123456789abcdef0123456789abcdef"


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("signing", "NAME/VERSION"),
        ("{}/keys/signing", "each version is a key of its own"),
        ("{}/keys/signing/latest", "NAME/VERSION"),
        (f"{VAULT}/keys/signing/{VERSION}", "the client is of"),
    ],
)
def test_a_key_of_a_vault_is_named_with_its_version(key, words):
    double, client = vault()
    with pytest.raises(ConfigError, match=words):
        AzureEs256Key("root", client, key.format(double.url))
    with pytest.raises(ConfigError, match="KeyClient"):
        AzureEs256Key("root", object(), f"{double.url}/keys/signing/{VERSION}")
    assert VERSION in repr(AzureEs256Key("root", client, f"{double.url}/keys/signing/{VERSION.upper()}"))


def test_another_version_is_another_key():
    """A rotation in the vault changes nothing here: what was sent goes on to verify, and the version that is named goes on to sign."""
    ends = Ends("azure")
    before = ends.seal()
    name = ends.service.key.split("/")[-2]
    new = ends.service.client.rotate_key(name)
    ends.pass_(700)
    assert ends.open(before).body == b"x"
    assert ends.open(ends.seal()).body == b"x"
    other = Party(
        policy("privacy-hmac"),
        keys=ends.producer.keys,
        rings={"hmac": KeyRing([ends.delegated(ends.service.root(0, new.id))])},
        clock=ends.clock,
    )
    assert ends.refusal(other.seal(b"x", destination=HERE)) is Verdict.FORGED


def test_a_version_that_was_disabled_ends_to_sign_and_to_verify_and_one_that_expired_to_sign():
    """A13."""
    ends = Ends("azure")
    name, version = ends.service.key.split("/")[-2:]
    envelope = ends.seal()
    assert ends.open(envelope).body == b"x"
    ends.service.client.update_key_properties(name, version, enabled=False)
    assert ends.open(envelope).body == b"x", "within the window"
    ends.pass_(301)
    assert ends.refusal(envelope) is Verdict.UNKNOWN_KEY
    ends.pass_(300)
    with pytest.raises(KeyRefused, match="disabled"):
        ends.seal()
    ends.service.client.update_key_properties(
        name, version, enabled=True, expires_on=datetime(2020, 1, 1, tzinfo=UTC)
    )
    ends.pass_(31)
    with pytest.raises(KeyRefused, match="KeyExpired"):
        ends.seal()
    assert ends.open(envelope).body == b"x"


def bundle(url: str, **changes) -> dict:
    numbers = PRIVATE.public_key().public_numbers()
    key = {
        "kid": f"{url}/keys/signing/{VERSION}",
        "kty": "EC",
        "crv": "P-256",
        "key_ops": ["sign", "verify"],
        "x": encode(numbers.x.to_bytes(32, "big")),
        "y": encode(numbers.y.to_bytes(32, "big")),
    }
    attributes = changes.pop("attributes", {"enabled": True})
    return {"key": key | changes, "attributes": attributes}


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"kty": "RSA"}, KeyRefused, "P-256"),
        ({"crv": "P-256K"}, KeyRefused, "P-256"),
        ({"key_ops": ["wrapKey"]}, KeyRefused, "not for signatures"),
        ({"kid": f"https://any/keys/signing/{VERSION[::-1]}"}, KeyRefused, "another key"),
        ({"attributes": {"enabled": False}}, KeyRefused, "disabled"),
        ({"x": encode(bytes(32))}, KeyUnavailable, "no point"),
        ({"y": "!"}, KeyUnavailable, "no point"),
        ({"attributes": "none"}, KeyUnavailable, "without a key"),
    ],
)
def test_an_answer_to_get_key_is_not_believed_unseen(changes, kind, words):
    double, client = vault()
    double.begin_again()
    double.answers.append(Answer(body=json.dumps(bundle(double.url, **changes)).encode()))
    key = AzureEs256Key("root", client, f"{double.url}/keys/signing/{VERSION}")
    with pytest.raises(kind, match=words):
        key.fetch()


@pytest.mark.parametrize("signature", [b"", bytes(63), bytes(64), b"\1" * 64])
def test_a_signature_of_a_vault_that_does_not_verify_is_never_sent(signature):
    double, client = vault()
    double.begin_again()
    address = f"{double.url}/keys/signing/{VERSION}"
    double.answers.append(Answer(body=json.dumps(bundle(double.url)).encode()))
    double.answers.append(Answer(body=json.dumps({"kid": address, "value": encode(signature)}).encode()))
    with pytest.raises(KeyUnavailable):
        AzureEs256Key("root", client, address).signer(SENDER, "x")(b"message")


def test_an_asyncio_client_signs_and_verifies_on_its_loop_and_blocks_it_never():
    double, client = vault()
    double.begin_again()
    address = client.create_ec_key(f"signing-{uuid.uuid4().hex}").id

    async def main() -> None:
        async with AsyncKeyClient(double.url, AnyAsyncCredential(), **double.options) as asyncio_client:
            key = DelegatedKey(AzureEs256Key("root", asyncio_client, address), senders=[SENDER])
            clock = Clock(int(time.time() * 1000))
            party = Party(policy("privacy-hmac"), rings={"hmac": KeyRing([key])}, clock=clock)
            with pytest.raises(ConfigError, match="aseal"):
                party.seal(b"x", destination=HERE)
            envelope = await party.sealer.aseal(b"x", destination=HERE)
            fresh = DelegatedKey(AzureEs256Key("root", asyncio_client, address), senders=[SENDER])
            other = Party(
                policy("privacy-hmac"), keys=party.keys, rings={"hmac": KeyRing([fresh])}, clock=clock
            )
            with pytest.raises(ConfigError, match="aopen"):
                other.open(envelope, destination=HERE)
            assert (await other.sealer.aopen(envelope, destination=HERE)).body == b"x"

    asyncio.run(main())
