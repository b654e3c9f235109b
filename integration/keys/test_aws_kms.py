"""`AwsKms` against a key service that behaves like the real one: also where moto is lax, with disabled and deleted keys."""

from __future__ import annotations

import pytest

from integration.servers import AwsEmulator
from postseal.core import (
    AwsKms,
    CombinedKeys,
    KeyRefused,
    KeyUnavailable,
    OpeningLimits,
    Policy,
    Refused,
    Sealer,
    Verdict,
)
from postseal.core.errors import KeyBroken, NotMine
from postseal.core.keys import Recipient
from tests.core.provider_contract import ProviderContract
from tests.core.stand_ins import CONTEXT, Clock, in_threads


def new_key(kms) -> str:
    return kms.create_key()["KeyMetadata"]["Arn"]


class TestAwsKms(ProviderContract):
    @pytest.fixture
    def provider(self, kms):
        return AwsKms(kms, new_key(kms))

    @pytest.fixture
    def stranger(self, kms):
        return AwsKms(kms, new_key(kms))


class TestTwoAwsKmsCombined(ProviderContract):
    @pytest.fixture
    def provider(self, kms):
        return CombinedKeys([AwsKms(kms, new_key(kms)), AwsKms(kms, new_key(kms))])

    @pytest.fixture
    def stranger(self, kms):
        return AwsKms(kms, new_key(kms))


@pytest.fixture
def strict(aws: AwsEmulator) -> None:
    """For what moto does not do."""
    if aws.flavour == "moto":
        pytest.skip("moto lets disabled and deleted keys work")


def test_two_keys_each_open_alone_and_a_third_cannot(kms):
    """A5, B10."""
    first, second, third = (AwsKms(kms, new_key(kms)) for _ in range(3))
    made = CombinedKeys([first, second]).generate(CONTEXT)
    assert len(made.recipients) == 2
    for provider in (first, second):
        assert provider.unwrap(made.recipients, CONTEXT) == made.data_key
    with pytest.raises(NotMine):
        third.unwrap(made.recipients, CONTEXT)


def test_the_second_opens_when_the_first_is_disabled(kms, strict):
    """B12."""
    keys = [new_key(kms), new_key(kms)]
    both = CombinedKeys([AwsKms(kms, arn) for arn in keys])
    made = both.generate(CONTEXT)
    kms.disable_key(KeyId=keys[0])
    assert both.unwrap(made.recipients, CONTEXT) == made.data_key


def test_a_disabled_key_is_refused_and_an_enabled_one_works_again(kms, strict):
    arn = new_key(kms)
    provider = AwsKms(kms, arn)
    made = provider.generate(CONTEXT)
    kms.disable_key(KeyId=arn)
    for use in (
        lambda: provider.generate(CONTEXT),
        lambda: provider.wrap(made.data_key, CONTEXT),
        lambda: provider.unwrap(made.recipients, CONTEXT),
    ):
        with pytest.raises(KeyRefused, match="DisabledException"):
            use()
    kms.enable_key(KeyId=arn)
    assert provider.unwrap(made.recipients, CONTEXT) == made.data_key


def test_a_key_that_is_to_be_deleted_is_refused(kms, strict):
    """B15: erasure by destroying a key."""
    arn = new_key(kms)
    provider = AwsKms(kms, arn)
    made = provider.generate(CONTEXT)
    kms.schedule_key_deletion(KeyId=arn, PendingWindowInDays=7)
    with pytest.raises(KeyRefused, match="KMSInvalidStateException"):
        provider.unwrap(made.recipients, CONTEXT)
    with pytest.raises(KeyRefused, match="KMSInvalidStateException"):
        provider.generate(CONTEXT)


def test_a_key_that_is_not_there_is_refused(kms):
    arn = new_key(kms)
    missing = arn.split("key/")[0] + "key/00000000-0000-4000-8000-000000000000"
    with pytest.raises(KeyRefused, match="NotFoundException"):
        AwsKms(kms, missing).generate(CONTEXT)
    with pytest.raises(KeyRefused, match="NotFoundException"):
        AwsKms(kms, "alias/not-there").generate(CONTEXT)


def test_a_key_of_another_kind_is_refused(kms, strict):
    arn = kms.create_key(KeySpec="ECC_NIST_P256", KeyUsage="SIGN_VERIFY")["KeyMetadata"]["Arn"]
    with pytest.raises(KeyRefused, match="InvalidKeyUsageException"):
        AwsKms(kms, arn).generate(CONTEXT)


def test_a_wrapped_key_under_the_name_of_another_key_does_not_open(kms):
    """Decrypt names the key: a right to both must not let a forger choose."""
    first, second = AwsKms(kms, new_key(kms)), AwsKms(kms, new_key(kms))
    ours, theirs = first.generate(CONTEXT).recipients[0], second.generate(CONTEXT).recipients[0]
    with pytest.raises((NotMine, KeyBroken, KeyRefused)):
        first.unwrap([Recipient(ours.algorithm, ours.key_id, theirs.wrapped_key)], CONTEXT)


def test_an_alias_is_resolved_once_and_opens_what_its_key_sealed(kms, fresh):
    arn, alias = new_key(kms), f"alias/{fresh('orders')}"
    kms.create_alias(AliasName=alias, TargetKeyId=arn)
    by_alias, by_arn = AwsKms(kms, alias), AwsKms(kms, arn)
    made = by_alias.generate(CONTEXT)
    assert by_arn.unwrap(made.recipients, CONTEXT) == made.data_key
    kms.update_alias(AliasName=alias, TargetKeyId=new_key(kms))
    assert by_alias.generate(CONTEXT).recipients[0].key_id == made.recipients[0].key_id


def test_a_consumer_loses_its_key_within_the_window(kms, strict):
    """A13, end to end: disabled in the key service, refused here when the window ends, back when it is enabled."""
    arn, clock = new_key(kms), Clock()
    policy = Policy(
        name="orders", destinations=["sqs:orders"], keys=["main"], opening=OpeningLimits(max_age=300)
    )
    consumer = Sealer(sender="shop", policies=[policy], keys={"main": AwsKms(kms, arn)}, monotonic=clock)
    producer = Sealer(sender="shop", policies=[policy], keys={"main": AwsKms(kms, arn)})
    envelope = producer.seal(b"body", destination="sqs:orders")
    assert consumer.open(envelope, destination="sqs:orders").body == b"body"
    kms.disable_key(KeyId=arn)
    clock.pass_(299)
    assert consumer.open(envelope, destination="sqs:orders").body == b"body"
    clock.pass_(1)
    with pytest.raises(Refused) as refused:
        consumer.open(envelope, destination="sqs:orders")
    assert refused.value.verdict is Verdict.UNKNOWN_KEY


def test_a_server_that_is_not_there_is_a_passing_fault(aws):
    kms = aws.kms("http://127.0.0.1:9")  # the discard port: nothing listens
    arn = "arn:aws:kms:eu-west-1:111122223333:key/00000000-0000-4000-8000-000000000000"
    with pytest.raises(KeyUnavailable, match="EndpointConnectionError"):
        AwsKms(kms, arn).generate(CONTEXT)


def test_64_threads_open_with_one_call(kms):
    """D4, against a server: one Decrypt for 64 threads that ask at once."""
    arn = new_key(kms)
    asked: list[str] = []
    kms.meta.events.register(
        "before-call.kms", lambda model, **_: asked.append(model.name), unique_id="asked"
    )
    try:
        policy = Policy(name="orders", destinations=["sqs:orders"], keys=["main"])
        sealer = Sealer(sender="shop", policies=[policy], keys={"main": AwsKms(kms, arn)})
        envelopes = in_threads(*[lambda: sealer.seal(b"body", destination="sqs:orders")] * 64)
        opened = in_threads(*[lambda: sealer.open(envelopes[0], destination="sqs:orders")] * 64)
    finally:
        kms.meta.events.unregister("before-call.kms", unique_id="asked")
    assert {message.body for message in opened} == {b"body"}
    assert asked == ["GenerateDataKey", "Decrypt"]
