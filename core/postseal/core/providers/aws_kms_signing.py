"""Signing keys in AWS KMS: they never leave it, its key policies say who may sign, CloudTrail records who did.

A call for each message would be slow and dear, so they sign no messages: they delegate to short-lived keys in memory::

    root = AwsKmsEs256Key("billing-root", kms, "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-...")
    ring = KeyRing([DelegatedKey(root, senders=["billing-api"])])

Source: SPEC.md 7.3; AWS KMS API: Sign, GetPublicKey, GenerateMac, VerifyMac.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

from postseal.core import crypto
from postseal.core.crypto import InvalidSignature
from postseal.core.errors import ConfigError, KeyRefused, KeyUnavailable
from postseal.core.findings import Finding
from postseal.core.forking import ForkSafeLock
from postseal.core.providers._aws_calls import InvalidMac, Kms, arn_of, is_of_the_key
from postseal.core.providers._aws_states import HMAC, SIGNS, examined
from postseal.core.providers._service_keys import Es256InService, ServiceKey
from postseal.core.signing import Origin, Sign, Verify
from postseal.core.wire import Algorithm

if TYPE_CHECKING:
    from mypy_boto3_kms.client import KMSClient

__all__ = ["AwsKmsEs256Key", "AwsKmsHmacKey"]

_ES256: Final = "ECDSA_SHA_256"
_HMAC: Final = "HMAC_SHA_256"
_MAC_SIZE: Final = 32
_MINUTE: Final = 60.0


class AwsKmsEs256Key(Es256InService):
    """A key of AWS KMS on P-256 (``ECC_NIST_P256``, ``SIGN_VERIFY``), to delegate with. Proves sender origin.

    Who signs needs ``kms:Sign`` and ``kms:GetPublicKey``, who verifies ``kms:GetPublicKey``; or nothing, with an export of the public key::

        DelegatedKey(Es256Key("billing-root", public_key=public, senders=["billing-api"]), senders=["billing-api"])

    Args:
        key_id: Names it in the policy and in delegations; the same on both sides.
        client: ``boto3.client("kms", ...)``, made by the caller, with short timeouts.
        key: Its ARN. An alias will not do: where it leads may change, and messages already sent must go on to verify.
        signs: Whether this process may sign with it.
        refresh: Seconds for which a fetched public key verifies: the revocation window, when the right to fetch it is withdrawn. Do not
            count on disabling the key alone: that ends signing, and AWS KMS may go on to give the public key.
        max_stale: Seconds for which it goes on while AWS KMS does not answer.

    Raises:
        ConfigError: No such key can be, or it is in another Region than the client.
    """

    def __init__(
        self,
        key_id: str,
        client: KMSClient,
        key: str,
        *,
        signs: bool = True,
        refresh: float = 300.0,
        max_stale: float = 3600.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(key_id, signs=signs, refresh=refresh, max_stale=max_stale, monotonic=monotonic)
        self._kms, self._arn = Kms(client), arn_of(key, client)

    def __repr__(self) -> str:
        return f"<AwsKmsEs256Key {self.id!r} {self._arn}>"

    def examine(self, *, clock: Callable[[], float] = time.time) -> Iterator[Finding]:
        """Ask AWS KMS about the key: one call."""
        yield from examined(self._kms, self._arn, clock(), kind=SIGNS)

    def _ask_for_public_key(self) -> crypto.P256PublicKey:
        answer = self._call("GetPublicKey")
        if answer.get("KeyUsage") != "SIGN_VERIFY" or _ES256 not in answer.get("SigningAlgorithms", ()):
            raise KeyRefused(
                f"{self._arn} is not for {_ES256}: a key of ECC_NIST_P256 and SIGN_VERIFY is needed"
            )
        try:
            return crypto.p256_of_der(answer.get("PublicKey", b""))
        except ValueError:
            raise KeyUnavailable(f"AWS KMS GetPublicKey on {self._arn}: no public key on P-256") from None

    def _ask_to_sign(self, message: bytes) -> bytes:
        answer = self._call("Sign", Message=message, MessageType="RAW", SigningAlgorithm=_ES256)
        try:
            return crypto.raw_signature(answer.get("Signature", b""))
        except ValueError:
            raise KeyUnavailable(f"AWS KMS Sign on {self._arn}: no signature in DER") from None

    def _call(self, operation: str, **request: Any) -> dict[str, Any]:
        self.calls[operation].tick()
        return _of_the_key(
            self._kms.call(operation, self._arn, KeyId=self._arn, **request), operation, self._arn
        )


class AwsKmsHmacKey(ServiceKey):
    """A key of AWS KMS for HMAC-SHA-256 (``HMAC_256``, ``GENERATE_VERIFY_MAC``), to delegate with. Proves group origin.

    AWS KMS can give one side the right to make MACs and the other only the right to verify them (``kms:GenerateMac``, ``kms:VerifyMac``);
    postseal calls it group origin all the same, because a MAC convinces nobody else. Who verifies has to ask for each delegation, and so
    for forged ones, too: `max_calls` bounds that. `AwsKmsEs256Key` has no such cost.

    Args:
        key_id: Names it in the policy and in delegations; the same on both sides.
        client: ``boto3.client("kms", ...)``, made by the caller, with short timeouts.
        key: Its ARN.
        signs: Whether this process may make MACs with it.
        refresh: Seconds for which an answer about a delegation holds: the revocation window.
        max_stale: Seconds for which it goes on to hold while AWS KMS does not answer.
        max_calls: Calls of VerifyMac in a minute, at most. Beyond, what nobody can tell about is kept for later (`KeyUnavailable`).

    Raises:
        ConfigError: No such key can be, or it is in another Region than the client.
    """

    algorithm = Algorithm.HMAC_256
    origin = Origin.GROUP
    public_key_fingerprints: frozenset[bytes] = frozenset()

    def __init__(
        self,
        key_id: str,
        client: KMSClient,
        key: str,
        *,
        signs: bool = True,
        refresh: float = 300.0,
        max_stale: float = 3600.0,
        max_calls: int = 600,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(key_id, signs=signs, refresh=refresh, max_stale=max_stale, monotonic=monotonic)
        if not 1 <= max_calls <= 600_000:  # noqa: PLR2004 - AWS KMS takes 10,000 a second
            raise ConfigError(f"max_calls of key {key_id!r} must be 1 to 600,000 a minute: {max_calls!r}")
        self._kms, self._arn = Kms(client), arn_of(key, client)
        self.confirmed_for, self.max_stale = refresh, max_stale
        self._max_calls = max_calls
        self._lock = ForkSafeLock()
        self._left, self._counted = float(max_calls), monotonic()

    def __repr__(self) -> str:
        return f"<AwsKmsHmacKey {self.id!r} {self._arn}>"

    def examine(self, *, clock: Callable[[], float] = time.time) -> Iterator[Finding]:
        """Ask AWS KMS about the key: one call."""
        yield from examined(self._kms, self._arn, clock(), kind=HMAC)

    def signer(self, sender: str, destination: str, prefix: bytes = b"") -> Sign:  # noqa: ARG002 - one key for all
        """Return the function that has AWS KMS make a MAC: one call of GenerateMac."""
        self._must_sign()

        def sign(message: bytes) -> bytes:
            answer = self._call("GenerateMac", Message=prefix + message)
            mac: bytes = answer.get("Mac", b"")
            if len(mac) != _MAC_SIZE:
                raise KeyUnavailable(f"AWS KMS GenerateMac on {self._arn}: a MAC of {len(mac)} bytes")
            return mac

        return sign

    def verifier(self, sender: str, destination: str, prefix: bytes = b"") -> Verify:  # noqa: ARG002 - one key for all
        """Return the function that has AWS KMS verify a MAC: one call of VerifyMac, if it is not one too many."""

        def verify(message: bytes, mac: bytes) -> None:
            self._failures.check()
            self._take_call()
            try:
                answer = self._call("VerifyMac", Message=prefix + message, Mac=mac)
            except InvalidMac:
                raise InvalidSignature from None
            except (KeyUnavailable, KeyRefused) as error:
                self._failures.remember(error)
                raise
            if answer.get("MacValid") is not True:
                raise InvalidSignature

        return verify

    def _take_call(self) -> None:
        """Count a call; the allowance fills up again within a minute."""
        with self._lock:
            now = self._monotonic()
            filled = self._left + (now - self._counted) * self._max_calls / _MINUTE
            self._left, self._counted = min(filled, float(self._max_calls)), now
            if self._left < 1:
                raise KeyUnavailable(
                    f"{self} was asked about delegations {self._max_calls} times in a minute: is somebody forging them?"
                )
            self._left -= 1

    def _call(self, operation: str, **request: Any) -> dict[str, Any]:
        self.calls[operation].tick()
        answer = self._kms.call(operation, self._arn, KeyId=self._arn, MacAlgorithm=_HMAC, **request)
        return _of_the_key(answer, operation, self._arn)


def _of_the_key(answer: dict[str, Any], operation: str, arn: str) -> dict[str, Any]:
    """See that *answer* is of the key that was asked."""
    if not is_of_the_key(answer, arn):
        raise KeyUnavailable(f"AWS KMS {operation} on {arn}: half an answer, or one of another key")
    return answer
