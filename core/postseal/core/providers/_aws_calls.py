"""What is said to AWS KMS, by the client that the caller made, and what its errors mean.

Source: AWS KMS API: the errors of each operation, and those common to all.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from postseal.core.errors import (
    KeyBroken,
    KeyRefused,
    KeyUnavailable,
    MissingExtraError,
    NotMine,
    PostsealError,
)

try:
    from botocore.exceptions import ClientError
except ImportError as missing:
    raise MissingExtraError.naming("aws", "AWS KMS", missing) from missing

if TYPE_CHECKING:
    from mypy_boto3_kms.client import KMSClient

__all__ = ["ARN", "ERRORS", "InvalidMac", "Kms", "in_region"]

ARN: Final = re.compile(
    r"arn:(?P<partition>[^:\s]+):kms:(?P<region>[^:\s]+):(?P<account>[^:\s]+):key/(?P<id>[\w-]+)"
)
_GOING_AWAY: Final = re.compile(r" is pending (replica )?(deletion|import)\b")
"""What AWS KMS says of a key that somebody took away: scheduled for deletion, or without its imported material."""
_METHODS: Final = {
    "GenerateDataKey": "generate_data_key",
    "Encrypt": "encrypt",
    "Decrypt": "decrypt",
    "DescribeKey": "describe_key",
    "GetKeyRotationStatus": "get_key_rotation_status",
    "Sign": "sign",
    "GetPublicKey": "get_public_key",
    "GenerateMac": "generate_mac",
    "VerifyMac": "verify_mac",
}


class InvalidMac(PostsealError):
    """AWS KMS says that a MAC is not of its key. Never leaves the providers."""


# Refused is what is about the key or a right to it: somebody decided so. What is about this process (its credentials, its clock), about
# load, or not known is unavailable: it says nothing about the message, and a message must not be lost over it.
ERRORS: Final[Mapping[str, type[PostsealError]]] = MappingProxyType(
    {
        # The service says no.
        "AccessDeniedException": KeyRefused,
        "NotAuthorized": KeyRefused,
        "DisabledException": KeyRefused,
        "NotFoundException": KeyRefused,
        "InvalidArnException": KeyRefused,
        "InvalidKeyUsageException": KeyRefused,
        "InvalidGrantTokenException": KeyRefused,
        "UnsupportedOperationException": KeyRefused,
        # The wrapped key is none of ours, or not as we made it.
        "IncorrectKeyException": NotMine,
        "InvalidCiphertextException": KeyBroken,
        "KMSInvalidMacException": InvalidMac,
        # The key is being made, changed or copied, or its own store is away. But see _GOING_AWAY.
        "KMSInvalidStateException": KeyUnavailable,
        # The service cannot, now.
        "KeyUnavailableException": KeyUnavailable,
        "DependencyTimeoutException": KeyUnavailable,
        "KMSInternalException": KeyUnavailable,
        "InternalFailure": KeyUnavailable,
        "ServiceUnavailable": KeyUnavailable,
        "LimitExceededException": KeyUnavailable,
        "ThrottlingException": KeyUnavailable,
        "Throttling": KeyUnavailable,
        "RequestLimitExceeded": KeyUnavailable,
        "TooManyRequestsException": KeyUnavailable,
        # Our credentials or clock: they are renewed, set right.
        "ExpiredTokenException": KeyUnavailable,
        "UnrecognizedClientException": KeyUnavailable,
        "InvalidClientTokenId": KeyUnavailable,
        "InvalidSignatureException": KeyUnavailable,
        "IncompleteSignature": KeyUnavailable,
        "MissingAuthenticationToken": KeyUnavailable,
        "RequestExpired": KeyUnavailable,
        # Somebody put DryRun into our request.
        "DryRunOperationException": KeyUnavailable,
    }
)
"""By the code of an error of AWS KMS: what it means for whoever asked. What is not here is `KeyUnavailable`."""


class Kms:
    """AWS KMS, by the client that the caller made for it."""

    def __init__(self, client: KMSClient) -> None:
        self._client = client

    def call(self, operation: str, key: str, advice: str = "", /, **request: Any) -> dict[str, Any]:
        """Ask for *operation* on *key*.

        Raises:
            PostsealError: As `ERRORS` says. The service's own text stays out of it.
        """
        method = getattr(self._client, _METHODS[operation])
        try:
            answer: dict[str, Any] = method(**request)
        except Exception as error:  # noqa: BLE001 - whatever ended the call, it had no answer; see ERRORS
            failure = _mapped(error, operation, key, advice)
            # The frames of the SDK hold the request, and with Encrypt the data key.
            failure.__cause__ = error.with_traceback(None)
        else:
            return answer
        finally:
            del request
        raise failure


def _mapped(error: Exception, operation: str, key: str, advice: str = "") -> PostsealError:
    """Say what *error* means. The service's own text stays out of it: it may quote the request."""
    if not isinstance(error, ClientError):
        return KeyUnavailable(f"AWS KMS {operation} on {key}: no answer ({type(error).__name__})")
    told = error.response.get("Error", {})
    code = str(told.get("Code", "no code"))
    kind = ERRORS.get(code, KeyUnavailable)
    if code == "KMSInvalidStateException" and _GOING_AWAY.search(str(told.get("Message", ""))):
        kind = KeyRefused
    request_id = error.response.get("ResponseMetadata", {}).get("RequestId", "none")
    why = f"kms:{operation} is not allowed" if code in ("AccessDeniedException", "NotAuthorized") else code
    return kind(f"AWS KMS {operation} on {key}: {why} (request {request_id}){advice}")


def in_region(key: re.Match[str], region: str) -> str:
    """Return the ARN of the multi-Region *key* as it is called in *region*."""
    return f"arn:{key['partition']}:kms:{region}:{key['account']}:key/{key['id']}"
