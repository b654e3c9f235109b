"""RSA key pairs in AWS KMS as recipients: wrapped for here, unwrapped there.

Source: SPEC.md 6.3; AWS KMS API: GetPublicKey, Decrypt.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

from postseal.core.errors import ConfigError, KeyRefused, KeyUnavailable, NotMine
from postseal.core.findings import Finding
from postseal.core.providers._aws_calls import Kms, arn_of, hide_from_logs, is_of_the_key
from postseal.core.providers._aws_states import OPENS, examined
from postseal.core.providers._binding import opened_by_service
from postseal.core.publickeys import RecipientKey

if TYPE_CHECKING:
    from mypy_boto3_kms.client import KMSClient

__all__ = ["AwsKmsRsaKey"]

_OAEP: Final = "RSAES_OAEP_SHA_256"


class AwsKmsRsaKey:
    """An RSA key of AWS KMS (``RSA_2048`` to ``RSA_4096``, ``ENCRYPT_DECRYPT``): a key for `ServiceRecipients`, and to open with.

    Who wraps needs ``kms:GetPublicKey``; who opens that and ``kms:Decrypt``. AWS KMS knows no encryption context for such keys: a right to
    decrypt with one is a right for all its policies and destinations.

    Args:
        client: ``boto3.client("kms", ...)``, made by the caller, with short timeouts.
        key: Its ARN.

    Raises:
        ConfigError: No such key can be, or it is in another Region than the client.
    """

    def __init__(self, client: KMSClient, key: str) -> None:
        self._kms, self._arn = Kms(client), arn_of(key, client)
        self._public: RecipientKey | None = None
        hide_from_logs(client)

    def __repr__(self) -> str:
        return f"<AwsKmsRsaKey {self._arn}>"

    def examine(self, *, clock: Callable[[], float] = time.time) -> Iterator[Finding]:
        """Ask AWS KMS about the key: one call."""
        yield from examined(self._kms, self._arn, clock(), kind=OPENS)

    @property
    def public(self) -> RecipientKey:
        """The public half; fetched the first time."""
        return self._public or self.fetch()

    def fetch(self) -> RecipientKey:
        """Fetch the public half: one call of GetPublicKey."""
        answer = self._call("GetPublicKey")
        if answer.get("KeyUsage") != "ENCRYPT_DECRYPT" or _OAEP not in answer.get("EncryptionAlgorithms", ()):
            raise KeyRefused(f"{self._arn} is not for {_OAEP}: an RSA key for ENCRYPT_DECRYPT is needed")
        try:
            self._public = RecipientKey.from_der(answer.get("PublicKey", b""), name=self._arn)
        except ConfigError:
            raise KeyUnavailable(f"AWS KMS GetPublicKey on {self._arn}: no public RSA key") from None
        return self._public

    def unwrap(self, wrapped: bytes, context: bytes) -> bytes:
        """Have AWS KMS unwrap a data key: one call of Decrypt. Raises what a key provider does."""
        return opened_by_service(self.public, wrapped, context, self._decrypt)

    def _decrypt(self, encrypted: bytes) -> bytes:
        answer = self._kms.call(
            "Decrypt", self._arn, KeyId=self._arn, CiphertextBlob=encrypted, EncryptionAlgorithm=_OAEP
        )
        if not answer.get("KeyId") or not answer.get("Plaintext"):
            raise KeyUnavailable(f"AWS KMS Decrypt on {self._arn}: half an answer")
        if not is_of_the_key(answer, self._arn):
            raise NotMine(f"the wrapped key was unwrapped by another key than {self._arn}")
        data_key: bytes = answer.pop("Plaintext")
        return data_key

    def _call(self, operation: str) -> dict[str, Any]:
        answer = self._kms.call(operation, self._arn, KeyId=self._arn)
        if not is_of_the_key(answer, self._arn):
            raise KeyUnavailable(f"AWS KMS {operation} on {self._arn}: half an answer, or one of another key")
        return answer
