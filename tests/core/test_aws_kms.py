"""`AwsKms` on moto, and on botocore's Stubber for what moto does not do: refusals, lost answers, wrong answers."""

from __future__ import annotations

import functools
import logging
import subprocess
import sys
from hashlib import sha256

import boto3
import botocore.session
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError, ReadTimeoutError
from botocore.stub import ANY, Stubber
from moto import mock_aws

from postseal.core import (
    AwsKms,
    CombinedKeys,
    ConfigError,
    DataKeyLimits,
    KeyRefused,
    KeyUnavailable,
    OpeningLimits,
    Policy,
    Refused,
    Sealer,
    Verdict,
)
from postseal.core.errors import KeyBroken, NotMine
from postseal.core.keys import KeyContext, Recipient
from postseal.core.providers.aws_kms import ALGORITHM, ERRORS, key_id_of
from tests.core.provider_contract import ProviderContract
from tests.core.stand_ins import CONTEXT, forms_of, in_threads, local_keys, shown_by_tracebacks

REGION = "eu-west-1"
ARN = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
OTHER_ARN = "arn:aws:kms:eu-west-1:111122223333:key/99999999-12ab-34cd-56ef-1234567890ab"
MULTI_REGION = "arn:aws:kms:{}:111122223333:key/mrk-1234abcd12ab34cd56ef1234567890ab"
PLAINTEXT = bytes(range(32))
WRAPPED = b"wrapped" * 20
ENCRYPTION_CONTEXT = {"postseal:policy": "orders", "postseal:destination": "kafka:orders"}


def kms_client(region: str = REGION):
    return boto3.client(
        "kms",
        region_name=region,
        aws_access_key_id="testing",
        aws_secret_access_key="testing",
        config=Config(retries={"total_max_attempts": 1}),
    )


shared_client = functools.cache(kms_client)
"""Making a client takes longer than most tests: those that do nothing to it share one for each Region."""


# -- on moto -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def moto():
    with mock_aws():
        yield


def new_key(client) -> str:
    return client.create_key()["KeyMetadata"]["Arn"]


class TestAwsKmsOnMoto(ProviderContract):
    @pytest.fixture
    def provider(self, moto):
        client = shared_client()
        return AwsKms(client, new_key(client))

    @pytest.fixture
    def stranger(self, moto):
        client = shared_client()
        return AwsKms(client, new_key(client))


class TestTwoAwsKmsCombinedOnMoto(ProviderContract):
    @pytest.fixture
    def provider(self, moto):
        clients = shared_client("eu-west-1"), shared_client("us-east-1")
        return CombinedKeys([AwsKms(client, new_key(client)) for client in clients])

    @pytest.fixture
    def stranger(self, moto):
        client = shared_client()
        return AwsKms(client, new_key(client))


@pytest.fixture
def client(moto):
    return shared_client()


class Calls:
    """Counts what a client is asked, by operation."""

    def __init__(self, client) -> None:
        self.names: list[str] = []
        client.meta.events.register("before-call.kms", self._note)

    def _note(self, model, **_) -> None:
        self.names.append(model.name)


def test_two_kms_keys_each_open_alone_and_a_third_cannot(client):
    """A5: two Regions, one ciphertext, each consumer holds one right."""
    first, second, third = (AwsKms(client, new_key(client)) for _ in range(3))
    made = CombinedKeys([first, second]).generate(CONTEXT)
    assert len(made.recipients) == 2
    assert first.unwrap(made.recipients, CONTEXT) == second.unwrap(made.recipients, CONTEXT) == made.data_key
    with pytest.raises(NotMine):
        third.unwrap(made.recipients, CONTEXT)


def test_every_message_carries_every_wrap_that_its_policy_names(client):
    """B10: whichever key service is left opens it."""
    keys = {
        "eu": AwsKms(client, new_key(client)),
        "us": AwsKms(client, new_key(client)),
        "archive": local_keys(),
    }
    policy = Policy(name="orders", destinations=["kafka:orders"], keys=list(keys))
    envelope = Sealer(sender="shop", policies=[policy], keys=keys).seal(b"body", destination="kafka:orders")
    for name, provider in keys.items():
        alone = policy.replace(keys=[name])
        opened = Sealer(sender="shop", policies=[alone], keys={name: provider}).open(
            envelope, destination="kafka:orders"
        )
        assert opened.body == b"body"


@pytest.mark.parametrize("form", ["alias", "bare", "alias-arn"])
def test_a_name_that_is_no_arn_is_asked_for_once(client, form):
    arn = new_key(client)
    client.create_alias(AliasName="alias/orders", TargetKeyId=arn)
    name = {
        "alias": "alias/orders",
        "bare": arn.split("/")[1],
        "alias-arn": arn.split(":key/")[0] + ":alias/orders",
    }[form]
    calls = Calls(client)
    provider = AwsKms(client, name)
    assert calls.names == []
    outcomes = in_threads(*[lambda: provider.generate(CONTEXT)] * 16)
    assert {made.recipients[0].key_id for made in outcomes} == {key_id_of(arn)}
    assert provider.unwrap(outcomes[0].recipients, CONTEXT) == outcomes[0].data_key
    assert calls.names.count("DescribeKey") == 1


def test_a_key_named_by_its_arn_takes_no_right_to_describe(client):
    calls = Calls(client)
    provider = AwsKms(client, new_key(client))
    provider.unwrap(provider.generate(CONTEXT).recipients, CONTEXT)
    assert calls.names == ["CreateKey", "GenerateDataKey", "Decrypt"]


def test_a_rotated_out_key_still_opens_and_no_longer_wraps(client):
    old, new = new_key(client), new_key(client)
    made = AwsKms(client, old).generate(CONTEXT)
    provider = AwsKms(client, new, also_open=[old])
    assert provider.unwrap(made.recipients, CONTEXT) == made.data_key
    assert [recipient.key_id for recipient in provider.generate(CONTEXT).recipients] == [key_id_of(new)]
    with pytest.raises(NotMine):
        AwsKms(client, new).unwrap(made.recipients, CONTEXT)


# -- on the Stubber ----------------------------------------------------------------------------------------------------


@pytest.fixture
def stubbed():
    client = shared_client()
    with Stubber(client) as stub:
        yield client, stub
        stub.assert_no_pending_responses()


RECIPIENT = Recipient(ALGORITHM, key_id_of(ARN), WRAPPED)


def test_the_requests_are_those_of_the_specification(stubbed):
    """SPEC.md 6.2 and 6.3: the context is two pairs and nothing per message, Decrypt names the key."""
    client, stub = stubbed
    provider = AwsKms(client, ARN)
    stub.add_response(
        "generate_data_key",
        {"Plaintext": PLAINTEXT, "CiphertextBlob": WRAPPED, "KeyId": ARN},
        {"KeyId": ARN, "NumberOfBytes": 32, "EncryptionContext": ENCRYPTION_CONTEXT},
    )
    made = provider.generate(CONTEXT)
    assert made.data_key == PLAINTEXT
    assert made.recipients == (Recipient(-65537, sha256(ARN.encode()).digest()[:8], WRAPPED),)
    stub.add_response(
        "encrypt",
        {"CiphertextBlob": WRAPPED, "KeyId": ARN},
        {"KeyId": ARN, "Plaintext": PLAINTEXT, "EncryptionContext": ENCRYPTION_CONTEXT},
    )
    assert provider.wrap(PLAINTEXT, CONTEXT) == made.recipients
    stub.add_response(
        "decrypt",
        {"Plaintext": PLAINTEXT, "KeyId": ARN},
        {"KeyId": ARN, "CiphertextBlob": WRAPPED, "EncryptionContext": ENCRYPTION_CONTEXT},
    )
    assert provider.unwrap(made.recipients, CONTEXT) == PLAINTEXT


def test_all_replicas_of_a_multi_region_key_have_one_key_id():
    """SPEC.md 6.3: the ARN with an empty Region."""
    emptied = "arn:aws:kms::111122223333:key/mrk-1234abcd12ab34cd56ef1234567890ab"
    expected = sha256(emptied.encode()).digest()[:8]
    assert {key_id_of(MULTI_REGION.format(region)) for region in ("eu-west-1", "us-east-1")} == {expected}
    assert key_id_of(ARN) != key_id_of(ARN.replace("eu-west-1", "us-east-1"))


@pytest.mark.parametrize("as_", ["key_id", "also_open"])
def test_of_a_multi_region_key_the_replica_in_the_clients_region_is_asked(stubbed, as_):
    """One policy serves all Regions: what was sealed in one opens in another."""
    client, stub = stubbed
    far, near = MULTI_REGION.format("us-east-1"), MULTI_REGION.format(REGION)
    provider = AwsKms(client, far) if as_ == "key_id" else AwsKms(client, ARN, also_open=[far])
    stub.add_response(
        "decrypt",
        {"Plaintext": PLAINTEXT, "KeyId": near},
        {"KeyId": near, "CiphertextBlob": ANY, "EncryptionContext": ANY},
    )
    assert provider.unwrap([Recipient(ALGORITHM, key_id_of(far), WRAPPED)], CONTEXT) == PLAINTEXT


# Each operation, as the provider uses it.
USES = {
    "generate_data_key": lambda provider: provider.generate(CONTEXT),
    "encrypt": lambda provider: provider.wrap(PLAINTEXT, CONTEXT),
    "decrypt": lambda provider: provider.unwrap([RECIPIENT], CONTEXT),
}


@pytest.mark.parametrize("code", sorted(ERRORS))
@pytest.mark.parametrize("use", sorted(USES))
def test_every_error_of_the_service_is_mapped(stubbed, use, code):
    client, stub = stubbed
    stub.add_client_error(use, code, "the service's own words", http_status_code=400)
    with pytest.raises(ERRORS[code]) as caught:
        USES[use](AwsKms(client, ARN))
    assert type(caught.value) is ERRORS[code]
    assert isinstance(caught.value.__cause__, ClientError | NotMine)
    assert "own words" not in str(caught.value)
    if ERRORS[code] is not NotMine:
        assert ARN in str(caught.value)


@pytest.mark.parametrize("operation", ["GenerateDataKey", "Encrypt", "Decrypt", "DescribeKey"])
def test_every_error_that_botocore_knows_of_is_in_the_table(operation):
    """Fails when a later botocore lists an error that nobody has thought about."""
    model = botocore.session.Session().get_service_model("kms").operation_model(operation)
    listed = {shape.name for shape in model.error_shapes}
    assert "NotFoundException" in listed  # the model was read
    assert listed - set(ERRORS) == set()


@pytest.mark.parametrize(
    ("status", "code"),
    [(400, "BrandNewException"), (500, "500"), (503, "ServiceUnavailable"), (403, "403"), (418, "")],
)
def test_an_error_that_nobody_knows_is_a_passing_one(stubbed, status, code):
    """What is not understood says nothing about the message, and a message must not be lost over it."""
    client, stub = stubbed
    stub.add_client_error("decrypt", code, http_status_code=status)
    with pytest.raises(KeyUnavailable):
        AwsKms(client, ARN).unwrap([RECIPIENT], CONTEXT)


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("is pending deletion.", KeyRefused),
        ("is pending replica deletion.", KeyRefused),
        ("is pending import.", KeyRefused),
        ("is creating.", KeyUnavailable),
        ("is updating.", KeyUnavailable),
        ("is unavailable.", KeyUnavailable),
        ("alias/pending-orders is creating.", KeyUnavailable),
        ("", KeyUnavailable),
    ],
)
def test_a_key_that_was_taken_away_is_refused_and_one_in_the_making_is_not(stubbed, words, kind):
    client, stub = stubbed
    stub.add_client_error("decrypt", "KMSInvalidStateException", f"{ARN} {words}")
    with pytest.raises(kind):
        AwsKms(client, ARN).unwrap([RECIPIENT], CONTEXT)


@pytest.mark.parametrize(
    "error",
    [
        EndpointConnectionError(endpoint_url="https://kms.example"),
        ReadTimeoutError(endpoint_url="https://kms.example"),
        NoCredentialsError(),
        OSError("disk"),
        RuntimeError("a hook of somebody else's"),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("use", sorted(USES))
def test_no_answer_is_a_passing_fault(use, error):
    client = kms_client()

    def fail(**_):
        raise error

    client.meta.events.register("before-send.kms", fail)
    client.meta.events.register("before-call.kms", fail)
    with pytest.raises(KeyUnavailable, match=type(error).__name__) as caught:
        USES[use](AwsKms(client, ARN))
    assert caught.value.__cause__ is error


def test_ctrl_c_during_a_call_is_ctrl_c():
    client = kms_client()

    def interrupt(**_):
        raise KeyboardInterrupt

    client.meta.events.register("before-call.kms", interrupt)
    with pytest.raises(KeyboardInterrupt):
        AwsKms(client, ARN).generate(CONTEXT)


def test_a_missing_right_is_named(stubbed):
    client, stub = stubbed
    stub.add_client_error("decrypt", "AccessDeniedException")
    with pytest.raises(KeyRefused, match=f"Decrypt on {ARN}: kms:Decrypt is not allowed"):
        AwsKms(client, ARN).unwrap([RECIPIENT], CONTEXT)


def test_a_missing_right_to_describe_is_named_with_the_way_round_it(stubbed):
    client, stub = stubbed
    stub.add_client_error("describe_key", "AccessDeniedException")
    with pytest.raises(KeyRefused, match=r"alias/orders: kms:DescribeKey is not allowed.*by its ARN"):
        AwsKms(client, "alias/orders").generate(CONTEXT)


def test_a_consumer_that_cannot_learn_its_own_arn_keeps_its_messages(stubbed):
    """Without it nobody can tell whose a recipient is: that must not refuse a message."""
    client, stub = stubbed
    stub.add_client_error("describe_key", "AccessDeniedException")
    with pytest.raises(KeyUnavailable, match="kms:DescribeKey is not allowed"):
        AwsKms(client, "alias/orders").unwrap([RECIPIENT], CONTEXT)


def test_a_name_that_could_not_be_asked_for_is_asked_for_again(stubbed):
    client, stub = stubbed
    provider = AwsKms(client, "alias/orders")
    stub.add_client_error("describe_key", "ThrottlingException")
    with pytest.raises(KeyUnavailable):
        provider.generate(CONTEXT)
    stub.add_response("describe_key", {"KeyMetadata": {"KeyId": "1234", "Arn": ARN}})
    stub.add_response("encrypt", {"CiphertextBlob": WRAPPED, "KeyId": ARN})
    assert provider.wrap(PLAINTEXT, CONTEXT)[0].key_id == key_id_of(ARN)


def test_an_answer_for_another_key_is_not_believed(stubbed):
    client, stub = stubbed
    provider = AwsKms(client, ARN)
    stub.add_response("decrypt", {"Plaintext": PLAINTEXT, "KeyId": OTHER_ARN})
    with pytest.raises(NotMine):
        provider.unwrap([RECIPIENT], CONTEXT)
    stub.add_response(
        "generate_data_key", {"Plaintext": PLAINTEXT, "CiphertextBlob": WRAPPED, "KeyId": OTHER_ARN}
    )
    with pytest.raises(KeyRefused, match="another key"):
        provider.generate(CONTEXT)


@pytest.mark.parametrize("answer", [{}, {"KeyId": ARN}, {"Plaintext": PLAINTEXT}], ids=repr)
def test_half_an_answer_says_nothing_of_the_message(stubbed, answer):
    """What botocore makes of a body that was cut: no good message may be refused over it."""
    client, stub = stubbed
    stub.add_response("decrypt", answer)
    with pytest.raises(KeyUnavailable):
        AwsKms(client, ARN).unwrap([RECIPIENT], CONTEXT)


@pytest.mark.parametrize("size", [16, 31, 33, 64])
def test_an_answer_of_a_wrong_size_is_not_believed(stubbed, size):
    """Whoever may Encrypt under our context can have 16 bytes wrapped: that message will never open."""
    client, stub = stubbed
    provider = AwsKms(client, ARN)
    stub.add_response("decrypt", {"Plaintext": bytes(size), "KeyId": ARN})
    with pytest.raises(KeyBroken, match=f"{size} bytes"):
        provider.unwrap([RECIPIENT], CONTEXT)
    stub.add_response(
        "generate_data_key",
        {"Plaintext": bytes(size), "CiphertextBlob": WRAPPED, "KeyId": ARN},
    )
    with pytest.raises(KeyRefused, match=f"{size} bytes"):
        provider.generate(CONTEXT)


def test_an_answer_without_a_wrapped_key_is_not_believed(stubbed):
    client, stub = stubbed
    stub.add_response("encrypt", {"KeyId": ARN})
    with pytest.raises(KeyRefused, match="without a wrapped key"):
        AwsKms(client, ARN).wrap(PLAINTEXT, CONTEXT)


def test_each_of_our_keys_that_is_named_is_tried_and_the_passing_fault_is_told(stubbed):
    client, stub = stubbed
    provider = AwsKms(client, ARN, also_open=[OTHER_ARN])
    recipients = [RECIPIENT, Recipient(ALGORITHM, key_id_of(OTHER_ARN), WRAPPED)]
    stub.add_client_error(
        "decrypt",
        "DisabledException",
        expected_params={"KeyId": ARN, "CiphertextBlob": ANY, "EncryptionContext": ANY},
    )
    stub.add_response("decrypt", {"Plaintext": PLAINTEXT, "KeyId": OTHER_ARN})
    assert provider.unwrap(recipients, CONTEXT) == PLAINTEXT
    stub.add_client_error("decrypt", "ThrottlingException")
    stub.add_client_error("decrypt", "InvalidCiphertextException")
    with pytest.raises(KeyUnavailable):
        provider.unwrap(recipients, CONTEXT)


def test_a_recipient_of_an_unknown_key_costs_no_call(stubbed):
    """Nothing is stubbed: any call would fail."""
    client, _ = stubbed
    for foreign in (Recipient(ALGORITHM, b"unknown!", WRAPPED), RECIPIENT._replace(algorithm=-65538)):
        with pytest.raises(NotMine):
            AwsKms(client, ARN).unwrap([foreign], CONTEXT)
    with pytest.raises(NotMine):
        AwsKms(client, "alias/orders").unwrap([RECIPIENT._replace(algorithm=-65538)], CONTEXT)


# -- through a sealer: what the application sees -----------------------------------------------------------------------


def seal_and_close(client, stub) -> tuple[Sealer, bytes, list[float]]:
    clock = [0.0]
    policy = Policy(
        name="orders",
        destinations=["kafka:orders"],
        keys=["main"],
        data_key=DataKeyLimits(max_age=600, max_stale=0),
        opening=OpeningLimits(max_age=300, max_stale=3600),
    )
    sealer = Sealer(
        sender="shop", policies=[policy], keys={"main": AwsKms(client, ARN)}, monotonic=lambda: clock[0]
    )
    stub.add_response("generate_data_key", {"Plaintext": PLAINTEXT, "CiphertextBlob": WRAPPED, "KeyId": ARN})
    envelope = sealer.seal(b"body", destination="kafka:orders")
    stub.add_response("decrypt", {"Plaintext": PLAINTEXT, "KeyId": ARN})
    assert sealer.open(envelope, destination="kafka:orders").body == b"body"
    return sealer, envelope, clock


def test_a_right_withdrawn_takes_effect_within_the_window(stubbed):
    """A13: five minutes by default; then refused, once and for every message, though the service then goes away."""
    client, stub = stubbed
    sealer, envelope, clock = seal_and_close(client, stub)
    clock[0] = 269.9  # in its last tenth it may be asked for ahead of time
    assert sealer.open(envelope, destination="kafka:orders").body == b"body"
    clock[0] = 300.0
    stub.add_client_error("decrypt", "AccessDeniedException")
    for _ in range(3):
        with pytest.raises(Refused) as refused:
            sealer.open(envelope, destination="kafka:orders")
        assert refused.value.verdict is Verdict.UNKNOWN_KEY
    clock[0] = 400.0
    stub.add_client_error("decrypt", "ThrottlingException")
    with pytest.raises(KeyUnavailable):
        sealer.open(envelope, destination="kafka:orders")


def test_messages_open_through_an_outage_for_the_stated_time(stubbed):
    """B14: one hour by default after the window ends; then they are kept, not refused."""
    client, stub = stubbed
    sealer, envelope, clock = seal_and_close(client, stub)
    clock[0] = 300.0
    stub.add_client_error("decrypt", "KMSInternalException", http_status_code=500)
    assert sealer.open(envelope, destination="kafka:orders").body == b"body"
    clock[0] = 3900.0
    stub.add_client_error("decrypt", "KMSInternalException", http_status_code=500)
    with pytest.raises(KeyUnavailable):
        sealer.open(envelope, destination="kafka:orders")


# -- names -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key_id", "told"),
    [
        ("", "neither"),
        ("arn:aws:kms:eu-west-1:111122223333:key/", "neither"),
        ("arn:aws:s3:::bucket", "neither"),
        (f"{ARN}\n", "neither"),
        ("alias/", "neither"),
        (ARN.replace("eu-west-1", "us-east-1"), "us-east-1.*eu-west-1.*combine"),
        ("arn:aws:kms:us-east-1:111122223333:alias/orders", "us-east-1.*eu-west-1"),
    ],
)
def test_a_name_that_cannot_be_of_a_key_is_refused_at_construction(key_id, told):
    with pytest.raises(ConfigError, match=told):
        AwsKms(shared_client(), key_id)


@pytest.mark.parametrize(
    "also_open", [["alias/orders"], ["1234"], ARN, [ARN.replace("eu-west-1", "us-east-1")]], ids=str
)
def test_further_keys_are_named_by_arns_of_the_clients_region(also_open):
    with pytest.raises(ConfigError, match="also_open"):
        AwsKms(shared_client(), ARN, also_open=also_open)


@pytest.mark.parametrize("partition", ["aws-cn", "aws-us-gov", "aws-iso"])
def test_other_partitions_have_kms_keys_too(partition):
    assert AwsKms(shared_client(), ARN.replace("aws", partition, 1)) is not None


# -- what shows of a key -----------------------------------------------------------------------------------------------


def test_the_debug_log_of_botocore_shows_requests_but_no_data_key(client, caplog):
    """D3. The last lines show that the test can fail: without us, botocore logs the data key."""
    arn = new_key(client)
    caplog.set_level(logging.DEBUG)
    provider = AwsKms(client, arn)
    made = provider.generate(CONTEXT)
    provider.wrap(made.data_key, CONTEXT)
    provider.unwrap(made.recipients, CONTEXT)
    assert "OperationModel(name=Decrypt)" in caplog.text
    assert "hidden by postseal" in caplog.text
    assert not [form for form in forms_of(made.data_key) if form in caplog.text]
    caplog.clear()
    bare = kms_client().generate_data_key(KeyId=arn, NumberOfBytes=32)["Plaintext"]
    assert [form for form in forms_of(bare) if form in caplog.text]


def test_no_data_key_shows_in_the_traceback_of_an_answer_that_is_not_believed(stubbed):
    """D3."""
    client, stub = stubbed
    secret = bytes(range(100, 132))
    stub.add_response("decrypt", {"Plaintext": bytes(secret), "KeyId": OTHER_ARN})
    with pytest.raises(NotMine) as caught:
        AwsKms(client, ARN).unwrap([RECIPIENT], CONTEXT)
    text = shown_by_tracebacks(caught.value)
    assert "failures=" in text  # locals were captured
    assert not [form for form in forms_of(secret) if form in text]


def test_a_client_that_two_providers_share_is_hidden_once(client):
    first = AwsKms(client, new_key(client))
    second = AwsKms(client, new_key(client), also_open=[])
    made = CombinedKeys([first, second]).generate(CONTEXT)
    assert first.unwrap(made.recipients, CONTEXT) == made.data_key


def test_no_data_key_shows_in_the_traceback_of_a_failed_wrap(stubbed):
    """D3: error reporters print the locals of every frame, those of the client's library too."""
    client, stub = stubbed
    stub.add_client_error("encrypt", "ThrottlingException")
    provider = AwsKms(client, ARN)
    secret = bytes(range(100, 132))
    with pytest.raises(KeyUnavailable) as caught:
        provider.wrap(bytes(secret), KeyContext("orders", "kafka:orders"))
    text = shown_by_tracebacks(caught.value)
    assert "failure=" in text  # locals were captured
    assert not [form for form in forms_of(secret) if form in text]


# -- without its extra -------------------------------------------------------------------------------------------------


def test_without_boto3_the_extra_is_named():
    code = """
import sys
sys.modules["botocore"] = None
import postseal.core
try:
    postseal.core.AwsKms
except postseal.core.MissingExtraError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'postseal[aws]'" in done.stdout
