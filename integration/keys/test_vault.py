"""`VaultTransit` against OpenBao: its transit engine, its policies, its tokens, and an outage."""

from __future__ import annotations

from contextlib import closing

import pytest

from integration.servers import OpenBao
from postseal.core import (
    CombinedKeys,
    KeyContext,
    KeyRefused,
    KeyUnavailable,
    OpeningLimits,
    Policy,
    Refused,
    Sealer,
    VaultTransit,
    Verdict,
)
from postseal.core.errors import KeyBroken, NotMine
from tests.core.provider_contract import ProviderContract
from tests.core.stand_ins import CONTEXT, Clock, in_threads

HERE = "rabbitmq:shop/orders"


@pytest.fixture(scope="module")
def client(openbao):
    client = openbao.client()
    with closing(client.adapter):
        yield client


@pytest.fixture
def new_key(client, fresh):
    """Make a key of transit, and return its name."""

    def make(**options) -> str:
        name = fresh("orders")
        client.secrets.transit.create_key(name, **options)
        return name

    return make


@pytest.fixture
def with_rights(openbao: OpenBao, client, fresh):
    """Make a client whose token has the rights of a policy, in the vault's own language."""
    opened = []

    def make(rules: str):
        name = fresh("policy")
        client.sys.create_or_update_policy(name, rules)
        token = client.auth.token.create(policies=[name])["auth"]["client_token"]
        opened.append(openbao.client(token))
        return opened[-1]

    yield make
    for each in opened:
        each.adapter.close()


class TestAKey(ProviderContract):
    @pytest.fixture
    def provider(self, client, new_key):
        return VaultTransit(client, new_key())

    @pytest.fixture
    def stranger(self, client, new_key):
        return VaultTransit(client, new_key())


class TestAChaChaKey(ProviderContract):
    @pytest.fixture
    def provider(self, client, new_key):
        return VaultTransit(client, new_key(key_type="chacha20-poly1305"))

    @pytest.fixture
    def stranger(self, client, new_key):
        return VaultTransit(client, new_key(key_type="chacha20-poly1305"))


class TestADerivedKey(ProviderContract):
    @pytest.fixture
    def provider(self, client, new_key):
        return VaultTransit(client, new_key(derived=True), derived=True)

    @pytest.fixture
    def stranger(self, client, new_key):
        return VaultTransit(client, new_key(derived=True), derived=True)


def test_two_keys_each_open_alone_and_a_third_cannot(client, new_key):
    """A5, B10."""
    first, second, third = (VaultTransit(client, new_key()) for _ in range(3))
    made = CombinedKeys([first, second]).generate(CONTEXT)
    for provider in (first, second):
        assert provider.unwrap(made.recipients, CONTEXT) == made.data_key
    with pytest.raises(NotMine):
        third.unwrap(made.recipients, CONTEXT)


def test_old_versions_open_until_they_are_under_the_least_allowed(client, new_key):
    """A13, B15: rotation changes nothing for what lies in queues; raising min_decryption_version ends it."""
    name = new_key()
    provider = VaultTransit(client, name)
    old = provider.generate(CONTEXT)
    client.secrets.transit.rotate_key(name)
    new = provider.generate(CONTEXT)
    assert provider.unwrap(old.recipients, CONTEXT) == old.data_key
    client.secrets.transit.update_key_configuration(name, min_decryption_version=2)
    with pytest.raises(KeyRefused, match="min_decryption_version"):
        provider.unwrap(old.recipients, CONTEXT)
    assert provider.unwrap(new.recipients, CONTEXT) == new.data_key


def test_the_words_of_the_vault_are_still_those_that_we_know(client, new_key):
    """Fails where a later version says otherwise why it does not encrypt or decrypt."""
    with pytest.raises(KeyRefused, match="derived=True"):
        VaultTransit(client, new_key(derived=True)).generate(CONTEXT)
    with pytest.raises(KeyRefused, match="aes256-gcm96"):
        VaultTransit(client, new_key(key_type="rsa-2048")).generate(CONTEXT)
    name = new_key()
    provider = VaultTransit(client, name)
    (recipient,) = provider.generate(CONTEXT).recipients
    too_new = recipient._replace(wrapped_key=b"\x00\x00\x00\x09" + recipient.wrapped_key[4:])
    with pytest.raises(KeyBroken):
        provider.unwrap([too_new], CONTEXT)
    client.secrets.transit.update_key_configuration(name, deletion_allowed=True)
    client.secrets.transit.delete_key(name)
    with pytest.raises(KeyRefused, match="not there"):
        provider.unwrap([recipient], CONTEXT)
    with pytest.raises(KeyRefused):
        VaultTransit(client, name, mount_point="not/there").generate(CONTEXT)


# -- rights, as docs/keys.md has them ----------------------------------------------------------------------------------

PRODUCER = """
path "transit/encrypt/{key}" {{
  capabilities = ["update"]
  allowed_parameters = {{ "plaintext" = [], "associated_data" = ["{context}"] }}
}}
"""
CONSUMER = """
path "transit/decrypt/{key}" {{
  capabilities = ["update"]
  allowed_parameters = {{ "ciphertext" = [], "associated_data" = ["{context}"] }}
}}
"""


def test_each_side_has_its_own_right_and_no_other(new_key, with_rights):
    key = new_key()
    names = {"key": key, "context": VaultTransit.associated_data(CONTEXT)}
    producer = VaultTransit(with_rights(PRODUCER.format(**names)), key)
    consumer = VaultTransit(with_rights(CONSUMER.format(**names)), key)
    made = producer.generate(CONTEXT)
    assert consumer.unwrap(made.recipients, CONTEXT) == made.data_key
    with pytest.raises(KeyRefused, match="transit/decrypt"):
        producer.unwrap(made.recipients, CONTEXT)
    with pytest.raises(KeyRefused, match="transit/encrypt"):
        consumer.generate(CONTEXT)


@pytest.mark.parametrize(
    "other", [KeyContext("orders", "kafka:payments"), KeyContext("payments", CONTEXT.destination)]
)
def test_the_vault_keeps_two_applications_of_one_key_apart(client, new_key, with_rights, other):
    """A8: by its own policy. Who may use the key under one context can neither seal nor open under another."""
    key = new_key()
    everything = VaultTransit(client, key)
    names = {"key": key, "context": VaultTransit.associated_data(CONTEXT)}
    producer = VaultTransit(with_rights(PRODUCER.format(**names)), key)
    consumer = VaultTransit(with_rights(CONSUMER.format(**names)), key)
    theirs = everything.generate(other)
    with pytest.raises(KeyRefused):
        consumer.unwrap(theirs.recipients, other)
    with pytest.raises(KeyBroken):
        consumer.unwrap(theirs.recipients, CONTEXT)
    with pytest.raises(KeyRefused):
        producer.generate(other)


def test_a_token_that_was_revoked_is_a_passing_fault_and_a_right_that_was_is_not(
    openbao, client, new_key, fresh
):
    """The vault says *permission denied* to both."""
    key, policy = new_key(), fresh("policy")
    rules = CONSUMER.format(key=key, context=VaultTransit.associated_data(CONTEXT))
    made = VaultTransit(client, key).generate(CONTEXT)
    client.sys.create_or_update_policy(policy, rules)
    token = client.auth.token.create(policies=[policy])["auth"]["client_token"]
    limited = openbao.client(token)
    with closing(limited.adapter):
        consumer = VaultTransit(limited, key)
        assert consumer.unwrap(made.recipients, CONTEXT) == made.data_key
        client.sys.create_or_update_policy(policy, rules.replace("decrypt", "nothing"))
        with pytest.raises(KeyRefused, match="no right"):
            consumer.unwrap(made.recipients, CONTEXT)
        client.auth.token.revoke(token)
        with pytest.raises(KeyUnavailable, match="expired or was revoked"):
            consumer.unwrap(made.recipients, CONTEXT)


# -- through a sealer --------------------------------------------------------------------------------------------------


def sealer(provider, clock=None) -> Sealer:
    policy = Policy(name="orders", destinations=[HERE], keys=["main"], opening=OpeningLimits(max_age=300))
    options = {} if clock is None else {"monotonic": clock}
    return Sealer(sender="shop", policies=[policy], keys={"main": provider}, **options)


def test_a_consumer_loses_its_key_within_the_window(client, new_key, with_rights):
    """A13, end to end: the right is taken out of the vault's policy, refused here when the window ends."""
    key, clock = new_key(), Clock()
    context = KeyContext("orders", HERE)
    limited = with_rights(CONSUMER.format(key=key, context=VaultTransit.associated_data(context)))
    policy = limited.auth.token.lookup_self()["data"]["policies"][-1]
    consumer = sealer(VaultTransit(limited, key), clock)
    envelope = sealer(VaultTransit(client, key)).seal(b"body", destination=HERE)
    assert consumer.open(envelope, destination=HERE).body == b"body"
    client.sys.create_or_update_policy(policy, 'path "transit/nothing" { capabilities = ["update"] }')
    clock.pass_(299)
    assert consumer.open(envelope, destination=HERE).body == b"body"
    clock.pass_(1)
    with pytest.raises(Refused) as refused:
        consumer.open(envelope, destination=HERE)
    assert refused.value.verdict is Verdict.UNKNOWN_KEY


def test_64_threads_open_with_one_call(client, new_key):
    """D4, against a server."""
    both = sealer(VaultTransit(client, new_key()))
    envelopes = in_threads(*[lambda: both.seal(b"body", destination=HERE)] * 64)
    both.close()
    opened = in_threads(*[lambda: both.open(envelopes[0], destination=HERE)] * 64)
    assert {message.body for message in opened} == {b"body"}


def test_a_sealed_and_a_killed_vault_are_passing_faults():
    """B14: kept, not refused. A vault in memory loses its keys with its process, so it has one of its own."""
    with OpenBao() as own:
        client = own.client(timeout=5)
        with closing(client.adapter):
            client.secrets.transit.create_key("orders")
            provider = VaultTransit(client, "orders")
            made = provider.generate(CONTEXT)
            client.sys.seal()
            with pytest.raises(KeyUnavailable, match="VaultDown"):
                provider.unwrap(made.recipients, CONTEXT)
            own.kill()
            with pytest.raises(KeyUnavailable, match="no answer"):
                provider.unwrap(made.recipients, CONTEXT)
            with pytest.raises(KeyUnavailable, match="no answer"):
                provider.generate(CONTEXT)
