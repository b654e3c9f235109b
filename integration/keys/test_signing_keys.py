"""Keys that sign in a service, as roots that delegate: against AWS KMS and a key vault in processes of their own, over HTTP and TLS."""

from __future__ import annotations

import uuid

import pytest

from integration.servers import AwsEmulator
from postseal.core import (
    AwsKmsEs256Key,
    AwsKmsHmacKey,
    AzureEs256Key,
    DelegatedKey,
    KeyRefused,
    KeyRing,
    KeyUnavailable,
    Origin,
    Policy,
    Refused,
    Sealer,
    UnsafeLocalKeys,
    Verdict,
)
from tests.core.stand_ins import in_threads

HERE = "kafka:orders"
KINDS = ["aws-es256", "aws-hmac", "azure"]
SPECS = {
    "aws-es256": {"KeySpec": "ECC_NIST_P256", "KeyUsage": "SIGN_VERIFY"},
    "aws-hmac": {"KeySpec": "HMAC_256", "KeyUsage": "GENERATE_VERIFY_MAC"},
}
pytestmark = pytest.mark.filterwarnings("ignore::postseal.core.UnsafeLocalKeysWarning")


class Service:
    """A signing key in a key service, and what it takes to withdraw it."""

    def __init__(self, kind: str, request: pytest.FixtureRequest) -> None:
        self.kind = kind
        if kind == "azure":
            self.client = request.getfixturevalue("vault_client")
            self.key = self.client.create_ec_key(f"signing-{uuid.uuid4().hex}").id
        else:
            self.client = request.getfixturevalue("kms")
            self.key = self.client.create_key(**SPECS[kind])["KeyMetadata"]["Arn"]

    def root(self, **options):
        make = {"aws-es256": AwsKmsEs256Key, "aws-hmac": AwsKmsHmacKey, "azure": AzureEs256Key}[self.kind]
        return make("root", self.client, self.key, **options)

    def enable(self, so: bool) -> None:
        if self.kind == "azure":
            name, version = self.key.split("/")[-2:]
            self.client.update_key_properties(name, version, enabled=so)
        elif so:
            self.client.enable_key(KeyId=self.key)
        else:
            self.client.disable_key(KeyId=self.key)


@pytest.fixture(scope="module")
def vault_client(key_vault):
    with key_vault.client() as client:
        yield client


@pytest.fixture(params=KINDS)
def service(request):
    return Service(request.param, request)


@pytest.fixture
def strict(service, aws: AwsEmulator) -> None:
    """For what moto does not do."""
    if service.kind != "azure" and aws.flavour == "moto":
        pytest.skip("moto lets disabled keys work")


def sealer(root, keys, **options) -> Sealer:
    policy = Policy(
        name="orders",
        destinations=[HERE],
        protection="privacy",
        keys=["main"],
        sign="billing",
        senders=["billing-api"],
    )
    ring = KeyRing([DelegatedKey(root, senders=["billing-api"], **options)])
    return Sealer(sender="billing-api", policies=[policy], keys={"main": keys}, signers={"billing": ring})


def test_64_threads_seal_and_open_and_the_service_is_asked_once(service):
    """A6, E4, D4: 512 messages, one call of each operation."""
    keys = UnsafeLocalKeys.ephemeral()
    roots = service.root(), service.root(signs=False)
    producer, consumer = (sealer(root, keys) for root in roots)
    envelopes = in_threads(*[lambda: [producer.seal(b"x", destination=HERE) for _ in range(8)]] * 64)
    opened = in_threads(
        *[lambda some=some: [consumer.open(one, destination=HERE) for one in some] for some in envelopes]
    )
    origin = Origin.GROUP if service.kind == "aws-hmac" else Origin.SENDER
    assert {(message.body, message.origin) for some in opened for message in some} == {(b"x", origin)}
    assert all(count == 1 for root in roots for count in root.calls.values_now.values())
    assert sum(root.calls.total for root in roots) == (2 if service.kind == "aws-hmac" else 3)


def test_a_key_that_was_disabled_signs_no_more_and_comes_back(service, strict):
    """A13: the windows are in `tests/core/test_service_keys.py`; who asks anew is told at once."""
    keys = UnsafeLocalKeys.ephemeral()
    producer, consumer = (sealer(service.root(), keys) for _ in range(2))
    envelope = producer.seal(b"x", destination=HERE)
    assert consumer.open(envelope, destination=HERE).body == b"x"
    service.enable(False)
    fresh = sealer(service.root(), keys)
    with pytest.raises(KeyRefused):
        fresh.seal(b"x", destination=HERE)
    if service.kind != "aws-es256":  # localemu goes on to give the public key
        with pytest.raises(Refused) as refused:
            fresh.open(envelope, destination=HERE)
        assert refused.value.verdict is Verdict.UNKNOWN_KEY
    service.enable(True)
    assert sealer(service.root(), keys).open(envelope, destination=HERE).body == b"x"


def test_a_key_of_another_kind_is_refused(service, aws):
    if service.kind == "azure":
        service.key = service.client.create_rsa_key(f"signing-{uuid.uuid4().hex}").id
    elif aws.flavour == "moto":
        pytest.skip("moto signs with keys of another kind")
    else:
        service.key = service.client.create_key(KeySpec="RSA_2048", KeyUsage="ENCRYPT_DECRYPT")[
            "KeyMetadata"
        ]["Arn"]
    with pytest.raises(KeyRefused):
        sealer(service.root(), UnsafeLocalKeys.ephemeral()).seal(b"x", destination=HERE)


def test_a_server_that_is_not_there_is_a_passing_fault(aws, key_vault):
    kms = aws.kms("http://127.0.0.1:9")  # the discard port: nothing listens
    arn = "arn:aws:kms:eu-west-1:111122223333:key/00000000-0000-4000-8000-000000000000"
    keys = UnsafeLocalKeys.ephemeral()
    for make in (AwsKmsEs256Key, AwsKmsHmacKey):
        with pytest.raises(KeyUnavailable, match="EndpointConnectionError"):
            sealer(make("root", kms, arn), keys).seal(b"x", destination=HERE)
    with key_vault.client(connection_verify=True, retry_total=0) as stranger:
        root = AzureEs256Key("root", stranger, f"{key_vault.address}/keys/signing/{'0' * 32}")
        with pytest.raises(KeyUnavailable, match="no answer"):
            sealer(root, keys).seal(b"x", destination=HERE)
