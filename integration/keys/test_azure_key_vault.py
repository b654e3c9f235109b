"""`AzureKeyVault` against a key vault in a process of its own, over TLS: keys made, rotated, disabled and deleted by the real SDK."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest
from azure.keyvault.keys.aio import KeyClient as AsyncKeyClient

from integration.servers import KeyVault
from postseal.core import (
    AzureKeyVault,
    CombinedKeys,
    KeyRefused,
    KeyUnavailable,
    OpeningLimits,
    Policy,
    Refused,
    Sealer,
    Verdict,
)
from postseal.core.errors import NotMine
from tests.core.key_vault import AnyAsyncCredential, AnyCredential
from tests.core.provider_contract import ProviderContract
from tests.core.stand_ins import CONTEXT, Clock, in_threads

HERE = "servicebus:orders"


@pytest.fixture(scope="module")
def client(key_vault):
    with key_vault.client() as client:
        yield client


@pytest.fixture
def symmetric(key_vault: KeyVault) -> None:
    """For what needs a Managed HSM."""
    if key_vault.flavour == "lowkey-vault":
        pytest.skip("Lowkey Vault wraps with no A256KW")


class TestAnRsaKey(ProviderContract):
    @pytest.fixture
    def provider(self, client, fresh):
        return AzureKeyVault(client, client.create_rsa_key(fresh("orders")).name)

    @pytest.fixture
    def stranger(self, client, fresh):
        return AzureKeyVault(client, client.create_rsa_key(fresh("orders")).name)


class TestAKeyOfAManagedHsm(ProviderContract):
    @pytest.fixture
    def provider(self, client, fresh, symmetric):
        return AzureKeyVault(
            client, client.create_oct_key(fresh("orders"), size=256, hardware_protected=True).name
        )

    @pytest.fixture
    def stranger(self, client, fresh, symmetric):
        return AzureKeyVault(
            client, client.create_oct_key(fresh("orders"), size=256, hardware_protected=True).name
        )


def test_two_keys_each_open_alone_and_a_third_cannot(client, fresh):
    """A5, B10."""
    first, second, third = (
        AzureKeyVault(client, client.create_rsa_key(fresh("orders")).name) for _ in range(3)
    )
    made = CombinedKeys([first, second]).generate(CONTEXT)
    for provider in (first, second):
        assert provider.unwrap(made.recipients, CONTEXT) == made.data_key
    with pytest.raises(NotMine):
        third.unwrap(made.recipients, CONTEXT)


def test_old_versions_open_after_rotation(client, fresh):
    """What was sealed before each of three rotations, opened by a consumer that starts after all of them."""
    name, clock = client.create_rsa_key(fresh("orders")).name, Clock()
    producer = AzureKeyVault(client, name, refresh=300, monotonic=clock)
    made = []
    for _ in range(3):
        made.append(producer.generate(CONTEXT))
        client.create_rsa_key(name)  # a new version, as rotation makes one
        clock.pass_(300)
    assert len({each.recipients[0].key_id for each in made}) == 3
    consumer = AzureKeyVault(client, name)
    assert [consumer.unwrap(each.recipients, CONTEXT) for each in made] == [each.data_key for each in made]


def sealer(provider, clock=None) -> Sealer:
    policy = Policy(name="orders", destinations=[HERE], keys=["main"], opening=OpeningLimits(max_age=300))
    options = {} if clock is None else {"monotonic": clock}
    return Sealer(sender="shop", policies=[policy], keys={"main": provider}, **options)


def test_a_consumer_loses_its_key_within_the_window(client, fresh):
    """A13, end to end: the version is disabled in the vault, refused here when the window ends, back when it is enabled."""
    key, clock = client.create_rsa_key(fresh("orders")), Clock()
    consumer = sealer(AzureKeyVault(client, key.name), clock)
    envelope = sealer(AzureKeyVault(client, key.name)).seal(b"body", destination=HERE)
    assert consumer.open(envelope, destination=HERE).body == b"body"
    client.update_key_properties(key.name, key.properties.version, enabled=False)
    clock.pass_(299)
    assert consumer.open(envelope, destination=HERE).body == b"body"
    clock.pass_(1)
    with pytest.raises(Refused) as refused:
        consumer.open(envelope, destination=HERE)
    assert refused.value.verdict is Verdict.UNKNOWN_KEY
    client.update_key_properties(key.name, key.properties.version, enabled=True)
    clock.pass_(30)
    assert consumer.open(envelope, destination=HERE).body == b"body"


def test_a_disabled_key_seals_nothing(client, fresh):
    key = client.create_rsa_key(fresh("orders"))
    client.update_key_properties(key.name, key.properties.version, enabled=False)
    with pytest.raises(KeyRefused):
        sealer(AzureKeyVault(client, key.name)).seal(b"body", destination=HERE)


def test_a_deleted_key_is_refused(client, fresh):
    """B15: erasure by destroying a key."""
    name = client.create_rsa_key(fresh("orders")).name
    provider = AzureKeyVault(client, name)
    made = provider.generate(CONTEXT)
    client.begin_delete_key(name).wait()
    with pytest.raises(KeyRefused, match="404"):
        provider.unwrap(made.recipients, CONTEXT)
    with pytest.raises(KeyRefused, match="404"):
        AzureKeyVault(client, name).generate(CONTEXT)


def test_a_credential_and_an_address_are_enough(key_vault, client, fresh):
    """D6: all options of the client go through one call."""
    name = client.create_rsa_key(fresh("orders")).name
    provider = AzureKeyVault.connect(key_vault.address, name, AnyCredential(), **key_vault.options)
    with provider._vault._client:
        made = provider.generate(CONTEXT)
        assert provider.unwrap(made.recipients, CONTEXT) == made.data_key


def test_a_certificate_that_nobody_vouched_for_is_a_passing_fault(key_vault, client, fresh):
    name = client.create_rsa_key(fresh("orders")).name
    options = {**key_vault.options, "connection_verify": True, "retry_total": 0}
    provider = AzureKeyVault.connect(key_vault.address, name, AnyCredential(), **options)
    with provider._vault._client, pytest.raises(KeyUnavailable, match="no answer"):
        provider.generate(CONTEXT)


def test_64_threads_open_with_one_data_key(client, fresh):
    """D5, against a server."""
    both = sealer(AzureKeyVault(client, client.create_rsa_key(fresh("orders")).name))
    envelopes = in_threads(*[lambda: both.seal(b"body", destination=HERE)] * 64)
    both.close()
    opened = in_threads(*[lambda: both.open(envelopes[0], destination=HERE)] * 64)
    assert {message.body for message in opened} == {b"body"}


def test_tasks_seal_and_open_with_an_asyncio_client(key_vault, client, fresh):
    name = client.create_rsa_key(fresh("orders")).name

    @asynccontextmanager
    async def asyncio_client():
        async with AsyncKeyClient(key_vault.address, AnyAsyncCredential(), **key_vault.options) as opened:
            yield opened
        await asyncio.sleep(0.05)  # aiohttp closes TLS connections in the turns of the loop that follow

    async def run():
        async with asyncio_client() as vault:
            both = sealer(AzureKeyVault(vault, name))
            envelopes = await asyncio.gather(*(both.aseal(b"body", destination=HERE) for _ in range(100)))
            both.close()
            opened = await asyncio.gather(*(both.aopen(envelope, destination=HERE) for envelope in envelopes))
            return {message.body for message in opened}

    assert asyncio.run(run()) == {b"body"}
