"""RSA keys in key services as recipients (B2): wrapped for here, unwrapped there; looked up, kept and looked at again."""

from __future__ import annotations

import asyncio
import functools
import threading
import uuid
from collections import Counter
from datetime import UTC, datetime
from types import SimpleNamespace

import boto3
import pytest
from azure.keyvault.keys.aio import KeyClient as AsyncKeyClient
from botocore.exceptions import ClientError, EndpointConnectionError
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from postseal.core import (
    ConfigError,
    KeyRefused,
    KeyUnavailable,
    OpeningKey,
    PublicKeyRecipients,
    Refused,
    Sealer,
    Verdict,
)
from postseal.core.errors import KeyBroken, NotMine
from postseal.core.keys import Recipient
from postseal.core.providers import clients
from postseal.core.providers.aws_kms_recipients import AwsKmsRsaKey
from postseal.core.providers.azure_recipients import AzureRsaKey
from postseal.core.providers.service_recipients import ServiceRecipients
from postseal.core.publickeys import _OAEP
from tests.core.key_vault import AnyAsyncCredential, AnyCredential, KeyVaultDouble
from tests.core.provider_contract import ProviderContract
from tests.core.stand_ins import CONTEXT, Clock, in_threads, local_keys

ARN = "arn:aws:kms:eu-west-1:111122223333:key/{}"
SPKI = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
HERE = "kafka:orders"


@functools.cache
def private(number: int) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


class Kms:
    """AWS KMS with RSA keys, as its client shows it: moto decrypts with none."""

    def __init__(self, count: int = 1) -> None:
        self.meta = SimpleNamespace(
            region_name="eu-west-1", events=SimpleNamespace(register_last=lambda *_, **__: None)
        )
        self.keys = {ARN.format(number): private(number) for number in range(count)}
        self.asked: Counter[str] = Counter()
        self.fail: BaseException | None = None
        self.changes: dict[str, object] = {}

    def _asked(self, operation: str) -> None:
        self.asked[operation] += 1
        if self.fail is not None:
            raise self.fail

    def get_public_key(self, KeyId):  # noqa: N803 - AWS's names
        self._asked("GetPublicKey")
        return {
            "KeyId": KeyId,
            "KeyUsage": "ENCRYPT_DECRYPT",
            "EncryptionAlgorithms": ["RSAES_OAEP_SHA_256"],
            "PublicKey": self.keys[KeyId].public_key().public_bytes(*SPKI),
            **self.changes,
        }

    def decrypt(self, KeyId, CiphertextBlob, EncryptionAlgorithm):  # noqa: N803 - likewise
        self._asked("Decrypt")
        assert EncryptionAlgorithm == "RSAES_OAEP_SHA_256"
        try:
            return {
                "KeyId": KeyId,
                "Plaintext": self.keys[KeyId].decrypt(CiphertextBlob, _OAEP),
                **self.changes,
            }
        except ValueError:
            raise ClientError({"Error": {"Code": "InvalidCiphertextException"}}, "Decrypt") from None

    def key(self, number: int = 0) -> AwsKmsRsaKey:
        return AwsKmsRsaKey(self, ARN.format(number))


AWAY = EndpointConnectionError(endpoint_url="https://kms.example")
DENIED = ClientError({"Error": {"Code": "AccessDeniedException"}}, "any")


def both(*keys) -> PublicKeyRecipients:
    return PublicKeyRecipients(ServiceRecipients(keys), open_with=keys)


class TestAnRsaKeyOfAwsKms(ProviderContract):
    @pytest.fixture
    def provider(self):
        return both(Kms().key())

    @pytest.fixture
    def stranger(self):
        return both(Kms(2).key(1))


@pytest.fixture(scope="module")
def double():
    with KeyVaultDouble() as vault:
        yield vault


@pytest.fixture(scope="module")
def client(double):
    with double.client() as client:
        yield client


def azure_key(client) -> AzureRsaKey:
    return AzureRsaKey(client, client.create_rsa_key(f"orders-{uuid.uuid4().hex}").id)


class TestAnRsaKeyOfKeyVault(ProviderContract):
    @pytest.fixture
    def provider(self, double, client):
        double.begin_again()
        return both(azure_key(client))

    @pytest.fixture
    def stranger(self, double, client):
        return both(azure_key(client))


class TestKeysOfTwoClouds(ProviderContract):
    @pytest.fixture
    def provider(self, double, client):
        return both(Kms().key(), azure_key(client))

    @pytest.fixture
    def stranger(self, double, client):
        return both(Kms(2).key(1), azure_key(client))


# -- looked up and kept ------------------------------------------------------------------------------------------------


class Jobs:
    """Runs what is to be run beside when it is told to."""

    def __init__(self) -> None:
        self.waiting: list = []

    def __call__(self, job) -> None:
        self.waiting.append(job)

    def run(self) -> None:
        waiting, self.waiting = self.waiting, []
        for job in waiting:
            job()


@pytest.fixture
def world():
    kms, clock, jobs = Kms(2), Clock(), Jobs()
    source = ServiceRecipients([kms.key(0), kms.key(1)], monotonic=clock, run=jobs)
    return SimpleNamespace(
        kms=kms, clock=clock, jobs=jobs, source=source, provider=PublicKeyRecipients(source)
    )


def test_public_keys_are_fetched_once_and_a_data_key_costs_no_call(world):
    """B2: nothing at construction, one call for each key at the first data key, none for a hundred more."""
    assert world.kms.asked == {}
    in_threads(*[lambda: world.provider.generate(CONTEXT)] * 8)
    for _ in range(100):
        assert len(world.provider.generate(CONTEXT).recipients) == 2
    assert world.kms.asked == {"GetPublicKey": 2}
    world.clock.pass_(300)
    for _ in range(3):
        world.provider.generate(CONTEXT)
    assert len(world.jobs.waiting) == 1, "looked at again beside, once"
    world.jobs.run()
    assert world.kms.asked == {"GetPublicKey": 4}
    world.provider.generate(CONTEXT)
    assert world.jobs.waiting == []


def test_while_the_service_is_away_it_goes_on_for_max_stale(world):
    world.provider.generate(CONTEXT)
    world.kms.fail = AWAY
    for _ in range(10):
        world.clock.pass_(8_600)
        world.provider.generate(CONTEXT)
        world.jobs.run()
    world.clock.pass_(500)
    with pytest.raises(KeyUnavailable, match="nothing was seen"):
        world.provider.generate(CONTEXT)
    world.kms.fail = None
    world.jobs.run()
    world.provider.generate(CONTEXT)


def test_a_no_ends_wrapping_for_all_and_a_yes_brings_it_back(world, caplog):
    """A message is sealed for all of its recipients or not at all."""
    world.provider.generate(CONTEXT)
    world.kms.fail = DENIED
    world.clock.pass_(300)
    world.provider.generate(CONTEXT)
    world.jobs.run()
    with pytest.raises(KeyRefused, match="GetPublicKey"):
        world.provider.generate(CONTEXT)
    assert "nothing more is sealed" in caplog.text
    world.kms.fail = None
    world.clock.pass_(31)
    with pytest.raises(KeyRefused):
        world.provider.generate(CONTEXT)
    world.jobs.run()
    world.provider.generate(CONTEXT)


def test_at_first_there_must_be_an_answer(world):
    for fail, kind in ((AWAY, KeyUnavailable), (DENIED, KeyRefused)):
        world.kms.fail = fail
        with pytest.raises(kind):
            world.provider.generate(CONTEXT)
    world.kms.fail = None
    world.provider.generate(CONTEXT)


def test_a_thread_looks_again():
    kms, clock = Kms(), Clock()
    source = ServiceRecipients([kms.key()], monotonic=clock)
    provider = PublicKeyRecipients(source)
    provider.generate(CONTEXT)
    clock.pass_(300)
    provider.generate(CONTEXT)
    for thread in threading.enumerate():
        if thread.name == "postseal-recipients":
            thread.join()
    assert kms.asked == {"GetPublicKey": 2}


# -- opening -----------------------------------------------------------------------------------------------------------


def test_a_consumer_asks_for_its_public_key_once_and_once_for_each_data_key():
    kms = Kms(2)
    made = PublicKeyRecipients(ServiceRecipients([kms.key(0), kms.key(1)])).generate(CONTEXT)
    kms.asked.clear()
    consumer = PublicKeyRecipients(open_with=[kms.key(1)])
    for _ in range(3):
        assert consumer.unwrap(made.recipients, CONTEXT) == made.data_key
    assert kms.asked == {"GetPublicKey": 1, "Decrypt": 3}


def test_recipients_of_others_cost_a_consumer_no_call():
    kms = Kms()
    consumer = PublicKeyRecipients(open_with=[kms.key()])
    stranger = OpeningKey.generate("x25519")
    made = PublicKeyRecipients([stranger.public]).generate(CONTEXT)
    with pytest.raises(NotMine):
        consumer.unwrap([*made.recipients, *local_keys().generate(CONTEXT).recipients], CONTEXT)
    assert kms.asked == {}


def test_a_key_that_is_held_opens_beside_one_of_a_service():
    kms, held = Kms(), OpeningKey.generate("x25519")
    consumer = PublicKeyRecipients(open_with=[held, kms.key()])
    for producer in (PublicKeyRecipients([held.public]), PublicKeyRecipients(ServiceRecipients([kms.key()]))):
        made = producer.generate(CONTEXT)
        assert consumer.unwrap(made.recipients, CONTEXT) == made.data_key
    assert "opens with 2" in repr(consumer)


def test_where_nobody_can_tell_whose_it_is_the_message_is_kept():
    kms = Kms()
    made = both(kms.key()).generate(CONTEXT)
    for fail in (AWAY, DENIED):
        kms.fail = fail
        with pytest.raises(KeyUnavailable):
            PublicKeyRecipients(open_with=[kms.key()]).unwrap(made.recipients, CONTEXT)


def test_a_no_to_decrypt_refuses_and_no_answer_keeps():
    """A13."""
    kms = Kms()
    provider = both(kms.key())
    made = provider.generate(CONTEXT)
    provider.unwrap(made.recipients, CONTEXT)
    kms.fail = AWAY
    with pytest.raises(KeyUnavailable):
        provider.unwrap(made.recipients, CONTEXT)
    kms.fail = DENIED
    with pytest.raises(KeyRefused):
        provider.unwrap(made.recipients, CONTEXT)


@pytest.mark.parametrize("size", [0, 15, 16, 271, 273, 400])
def test_another_size_is_broken_without_a_call(size):
    kms = Kms()
    provider = both(kms.key())
    (recipient,) = provider.generate(CONTEXT).recipients
    with pytest.raises(KeyBroken):
        provider.unwrap([Recipient(recipient.algorithm, recipient.key_id, bytes(size))], CONTEXT)
    assert kms.asked["Decrypt"] == 0


@pytest.mark.parametrize("plaintext", [bytes(31), bytes(33), bytes(32)])
def test_what_is_no_data_key_or_of_another_context_is_broken(plaintext):
    kms = Kms()
    provider = both(kms.key())
    (recipient,) = provider.generate(CONTEXT).recipients
    kms.changes = {"Plaintext": plaintext}
    with pytest.raises(KeyBroken):
        provider.unwrap([recipient], CONTEXT)


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"KeyId": ARN.format(7)}, NotMine),
        ({"KeyId": ""}, KeyUnavailable),
        ({"Plaintext": b""}, KeyUnavailable),
    ],
)
def test_an_answer_to_decrypt_is_not_believed_unseen(changes, kind):
    kms = Kms()
    provider = both(kms.key())
    made = provider.generate(CONTEXT)
    provider.unwrap(made.recipients, CONTEXT)
    kms.changes = changes
    with pytest.raises(kind):
        provider.unwrap(made.recipients, CONTEXT)


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"KeyUsage": "SIGN_VERIFY"}, KeyRefused),
        ({"EncryptionAlgorithms": ["SM2PKE"]}, KeyRefused),
        ({"PublicKey": b"none"}, KeyUnavailable),
        (
            {"PublicKey": ec.generate_private_key(ec.SECP384R1()).public_key().public_bytes(*SPKI)},
            KeyUnavailable,
        ),
        ({"KeyId": ARN.format(7)}, KeyUnavailable),
    ],
    ids=["usage", "algorithm", "no key", "another kind", "another key"],
)
def test_an_answer_to_get_public_key_is_not_believed_unseen(changes, kind):
    kms = Kms()
    kms.changes = changes
    with pytest.raises(kind):
        kms.key().fetch()


# -- a vault -----------------------------------------------------------------------------------------------------------


def test_a_version_that_is_disabled_is_wrapped_for_no_more_and_one_that_expired_neither(double, client):
    double.begin_again()
    clock, jobs = Clock(), Jobs()
    made = client.create_rsa_key(f"orders-{uuid.uuid4().hex}")
    source = ServiceRecipients([AzureRsaKey(client, made.id)], monotonic=clock, run=jobs)
    provider = PublicKeyRecipients(source)
    provider.generate(CONTEXT)
    assert (double.asked["get"], double.asked["wrapkey"]) == (1, 0)
    client.update_key_properties(made.name, made.properties.version, enabled=False)
    clock.pass_(300)
    provider.generate(CONTEXT)
    jobs.run()
    with pytest.raises(KeyRefused, match="disabled"):
        provider.generate(CONTEXT)
    past = datetime(2020, 1, 1, tzinfo=UTC)
    client.update_key_properties(made.name, made.properties.version, enabled=True, expires_on=past)
    clock.pass_(31)
    with pytest.raises(KeyRefused, match="disabled"):
        provider.generate(CONTEXT)
    jobs.run()
    with pytest.raises(KeyRefused, match="has expired"):
        provider.generate(CONTEXT)


def test_a_rotation_goes_consumers_first(double, client):
    double.begin_again()
    name = f"orders-{uuid.uuid4().hex}"
    old, new = (AzureRsaKey(client, client.create_rsa_key(name).id) for _ in range(2))
    consumer = PublicKeyRecipients(open_with=[new, old])
    for key in (old, new):
        made = PublicKeyRecipients(ServiceRecipients([key])).generate(CONTEXT)
        assert consumer.unwrap(made.recipients, CONTEXT) == made.data_key


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda c: c.create_ec_key(f"x-{uuid.uuid4().hex}"), KeyRefused),
        (lambda c: c.create_rsa_key(f"x-{uuid.uuid4().hex}", key_operations=["sign", "verify"]), KeyRefused),
        (lambda c: c.create_rsa_key(f"x-{uuid.uuid4().hex}", size=2048), None),
    ],
)
def test_only_a_key_that_unwraps_is_wrapped_for(double, client, make, kind):
    double.begin_again()
    key = AzureRsaKey(client, make(client).id)
    if kind is None:
        assert key.fetch().kind == "rsa-2048"
    else:
        with pytest.raises(kind, match="unwrapKey"):
            key.fetch()


def test_wrong_arguments_are_config_errors(double, client):
    with pytest.raises(ConfigError, match="needs a key"):
        ServiceRecipients([])
    with pytest.raises(ConfigError, match="refresh"):
        ServiceRecipients([Kms().key()], refresh=0)
    with pytest.raises(ConfigError, match="NAME/VERSION"):
        AzureRsaKey(client, f"{double.url}/keys/orders")
    with pytest.raises(ConfigError, match="ARN"):
        AwsKmsRsaKey(boto3.client("kms", region_name="eu-west-1"), "alias/orders")

    async def main() -> None:
        async with AsyncKeyClient(double.url, AnyAsyncCredential(), **double.options) as asyncio_client:
            with pytest.raises(ConfigError, match="no asyncio client"):
                AzureRsaKey(asyncio_client, f"{double.url}/keys/orders/{'0' * 32}")

    asyncio.run(main())


# -- in the policy file ------------------------------------------------------------------------------------------------

TEXT = """
sender = "shop"

[keys.main]
provider = "{provider}"
{options}

[[policy]]
name = "orders"
destinations = ["kafka:orders"]
keys = ["main"]
"""


def from_file(tmp_path, provider: str, options: str, **more) -> Sealer:
    path = tmp_path / f"{uuid.uuid4().hex}.toml"
    path.write_text(TEXT.format(provider=provider, options=options))
    return Sealer.from_file(path, **more)


def test_the_policy_file_has_a_provider_for_each_cloud(double, client, tmp_path, monkeypatch):
    """B2: one side wraps with public keys, the other opens with what its cloud holds."""
    double.begin_again()
    kms = Kms()
    monkeypatch.setattr(clients, "azure_credential", lambda *_: AnyCredential())
    monkeypatch.setattr(clients, "kms_client", lambda **_: kms)
    address = client.create_rsa_key(f"orders-{uuid.uuid4().hex}").id
    reached = f'connection_verify = "{double.certificate}"\nverify_challenge_resource = false\n'
    for provider, key, more in (
        ("aws-kms-public-key", ARN.format(0), ""),
        ("azure-key-vault-public-key", address, reached),
    ):
        producer = from_file(tmp_path, provider, f'keys = ["{key}"]\nrefresh = "1m"\n{more}')
        consumer = from_file(tmp_path, provider, f'open_with = ["{key}"]\n{more}')
        envelope = producer.seal(b"x", destination=HERE)
        assert consumer.open(envelope, destination=HERE).body == b"x"
        with pytest.raises(KeyRefused):
            consumer.seal(b"x", destination=HERE)
        producer.close()
        with pytest.raises(Refused) as refused:
            producer.open(envelope, destination=HERE)
        assert refused.value.verdict is Verdict.UNKNOWN_KEY
    with pytest.raises(ConfigError, match=r"keys\.main: it needs keys to wrap for, or open_with"):
        from_file(tmp_path, "aws-kms-public-key", "")


@pytest.mark.parametrize(
    ("provider", "options", "words"),
    [
        ("aws-kms-public-key", 'keys = ["alias/orders"]', "'alias/orders' is not the ARN"),
        ("aws-kms-public-key", "keys = []", "leave it out where nothing is sealed"),
        ("aws-kms-public-key", f'key_id = "{ARN.format(0)}"', "no option 'key_id'"),
        ("aws-kms-public-key", f'keys = "{ARN.format(0)}"', "must be a list"),
        (
            "azure-key-vault-public-key",
            'keys = ["https://v.vault.azure.net/keys/orders"]',
            "name the version",
        ),
        ("azure-key-vault-public-key", "open_with = []", "leave it out where nothing is opened"),
        ("aws-kms-public-keys", "", "did you mean 'aws-kms-public-key'"),
    ],
)
def test_mistakes_are_said_with_their_line(tmp_path, provider, options, words):
    with pytest.raises(ConfigError) as error:
        from_file(tmp_path, provider, options)
    assert words in str(error.value)
    assert str(error.value).count("\n") == 0
