"""RSA keys as recipients (B2), against AWS KMS and a key vault in processes of their own: public keys fetched, data keys unwrapped there."""

from __future__ import annotations

import uuid

import pytest

from integration.servers import AwsEmulator, KeyVault
from postseal.core import KeyRefused, Policy, PublicKeyRecipients, Sealer
from postseal.core.providers.aws_kms_recipients import AwsKmsRsaKey
from postseal.core.providers.azure_recipients import AzureRsaKey
from postseal.core.providers.service_recipients import ServiceRecipients
from tests.core.provider_contract import ProviderContract
from tests.core.stand_ins import CONTEXT

HERE = "kafka:orders"


@pytest.fixture
def strict(aws: AwsEmulator) -> None:
    """For what moto does not do."""
    if aws.flavour == "moto":
        pytest.skip("moto decrypts with no RSA key")


@pytest.fixture(scope="module")
def vault(key_vault: KeyVault):
    with key_vault.client() as client:
        yield client


def aws_key(kms) -> AwsKmsRsaKey:
    return AwsKmsRsaKey(
        kms, kms.create_key(KeySpec="RSA_2048", KeyUsage="ENCRYPT_DECRYPT")["KeyMetadata"]["Arn"]
    )


def azure_key(vault) -> AzureRsaKey:
    return AzureRsaKey(vault, vault.create_rsa_key(f"orders-{uuid.uuid4().hex}").id)


def both(*keys) -> PublicKeyRecipients:
    return PublicKeyRecipients(ServiceRecipients(keys), open_with=keys)


class TestAnRsaKeyOfAwsKms(ProviderContract):
    # AWS KMS says InvalidCiphertextException to a changed RSA ciphertext, localemu has an error of its own.
    test_no_change_of_a_wrapped_key_opens_or_seems_to_pass = None
    test_a_wrapped_key_of_another_under_its_own_name_does_not_open = None

    @pytest.fixture
    def provider(self, kms, strict):
        return both(aws_key(kms))

    @pytest.fixture
    def stranger(self, kms):
        return both(aws_key(kms))


class TestAnRsaKeyOfKeyVault(ProviderContract):
    @pytest.fixture
    def provider(self, vault):
        return both(azure_key(vault))

    @pytest.fixture
    def stranger(self, vault):
        return both(azure_key(vault))


def test_two_clouds_each_open_alone_and_the_producer_opens_nothing(kms, vault, strict):
    """A5, B2, B10."""
    policy = Policy(name="orders", destinations=[HERE], keys=["main"])
    keys = aws_key(kms), azure_key(vault)
    producer = Sealer(
        sender="shop", policies=[policy], keys={"main": PublicKeyRecipients(ServiceRecipients(keys))}
    )
    envelope = producer.seal(b"x", destination=HERE)
    for key in keys:
        consumer = Sealer(
            sender="warehouse", policies=[policy], keys={"main": PublicKeyRecipients(open_with=[key])}
        )
        assert consumer.open(envelope, destination=HERE).body == b"x"


def test_a_key_for_signatures_is_wrapped_for_by_nobody(kms):
    arn = kms.create_key(KeySpec="ECC_NIST_P256", KeyUsage="SIGN_VERIFY")["KeyMetadata"]["Arn"]
    with pytest.raises(KeyRefused):
        both(AwsKmsRsaKey(kms, arn)).generate(CONTEXT)
