"""D2 over key services that behave like the real ones: bodies that they encrypt themselves, at their limits, and calls counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from postseal.core import (
    AwsKms,
    AzureKeyVault,
    HmacKey,
    KeyContext,
    KeyRing,
    Policy,
    Refused,
    Sealer,
    TooLarge,
    VaultTransit,
    Verdict,
)
from postseal.core.errors import KeyBroken, KeyRefused, NotMine
from postseal.core.keys import Recipient, direct_keys

HERE = "kafka:orders"
SIGNED: dict[str, Any] = {"protection": "privacy", "sign": "ring", "senders": ["shop"]}


class Counting:
    """Counts what is asked of a key service."""

    def __init__(self, inner: Any) -> None:
        self.inner, self.asked = inner, Counter[str]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def generate(self, context: KeyContext) -> Any:
        raise AssertionError("no data key is made")

    wrap = unwrap = generate

    def encrypt(self, plaintext: bytes, context: KeyContext) -> Recipient:
        self.asked["encrypt"] += 1
        return self.inner.encrypt(plaintext, context)

    def decrypt(self, recipient: Recipient, context: KeyContext) -> bytes:
        self.asked["decrypt"] += 1
        return self.inner.decrypt(recipient, context)


@pytest.fixture(params=["aws", "vault", "derived vault", "azure"])
def keys(request: pytest.FixtureRequest, kms: Any, openbao: Any, key_vault: Any, fresh: Any) -> Iterator[Any]:
    """A key of each service that encrypts bodies."""
    if request.param == "aws":
        yield AwsKms(kms, kms.create_key()["KeyMetadata"]["Arn"])
    elif request.param == "azure":
        with key_vault.client() as client:
            yield AzureKeyVault(client, client.create_rsa_key(fresh("orders")).name)
    else:
        client, name, derived = openbao.client(), fresh("orders"), request.param == "derived vault"
        with closing(client.adapter):
            client.secrets.transit.create_key(name, derived=derived)
            yield VaultTransit(client, name, derived=derived)


def sealer(keys: Any, **options: Any) -> Sealer:
    policy = Policy(name="orders", destinations=[HERE], keys=["main"], direct=True, **SIGNED | options)
    ring = KeyRing([HmacKey("2026-10", bytes(range(32)))])
    return Sealer(sender="shop", policies=[policy], keys={"main": keys}, signers={"ring": ring}, alarm=None)


def test_so_many_messages_cost_so_many_calls(keys):
    """Also of the largest size; one byte more costs none."""
    counting = Counting(keys)
    ours = sealer(counting)
    ours.seal(b"", destination=HERE)  # what is to be fetched is
    most = keys.most_direct - 33
    bodies = [bytes([n]) * most for n in range(5)] + [b"", b"4711"]
    envelopes = [ours.seal(body, destination=HERE) for body in bodies]
    assert [ours.open(envelope, destination=HERE).body for envelope in envelopes] == bodies
    assert counting.asked == {"encrypt": 8, "decrypt": 7}
    with pytest.raises(TooLarge):
        ours.seal(bytes(most + 1), destination=HERE)
    assert counting.asked == {"encrypt": 8, "decrypt": 7}


def test_what_was_changed_does_not_open_and_is_no_outage(keys):
    """A9, B14: such a message must be settled, and not come again for ever."""
    direct = direct_keys(keys)
    context = KeyContext("orders", HERE)
    made = direct.encrypt(bytes(40), context)
    wrapped = made.wrapped_key
    for garbage in (wrapped[:-1], wrapped[:40] + bytes(8) + wrapped[48:], bytes(len(wrapped)), b"x"):
        with pytest.raises((KeyBroken, KeyRefused, NotMine)):
            direct.decrypt(made._replace(wrapped_key=garbage), context)
    if not direct.anybody_encrypts:
        with pytest.raises(KeyBroken):
            direct.decrypt(made, KeyContext("orders", "kafka:payments"))
    assert direct.decrypt(made, context) == bytes(40)


def test_a_key_that_was_rotated_opens_what_it_encrypted_before(keys, kms, openbao):
    ours = sealer(keys)
    before = ours.seal(b"before", destination=HERE)
    if isinstance(keys, VaultTransit):
        keys._client.secrets.transit.rotate_key(keys._name)
    elif isinstance(keys, AwsKms):
        kms.rotate_key_on_demand(KeyId=keys._arn)
    after = ours.seal(b"after", destination=HERE)
    assert [ours.open(each, destination=HERE).body for each in (before, after)] == [b"before", b"after"]


def test_a_disabled_key_refuses(kms):
    """B3: at the next message, as nothing is cached."""
    arn = kms.create_key()["KeyMetadata"]["Arn"]
    ours = sealer(AwsKms(kms, arn))
    first, second = (ours.seal(b"order", destination=HERE) for _ in range(2))
    assert ours.open(first, destination=HERE).body == b"order"
    kms.disable_key(KeyId=arn)
    with pytest.raises(Refused) as refused:
        ours.open(second, destination=HERE)
    assert refused.value.verdict is Verdict.UNKNOWN_KEY
