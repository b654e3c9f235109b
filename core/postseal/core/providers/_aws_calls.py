"""What is said to AWS KMS, by the client that the caller made, and what its errors mean.

Source: AWS KMS API: the errors of each operation, and those common to all.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from postseal.core.errors import (
    ConfigError,
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

__all__ = ["ARN", "ERRORS", "InvalidMac", "Kms", "arn_of", "hide_from_logs", "in_region", "is_of_the_key"]

ARN: Final = re.compile(
    r"arn:(?P<partition>[^:\s]+):kms:(?P<region>[^:\s]+):(?P<account>[^:\s]+):key/(?P<id>[\w-]+)"
)
_GOING_AWAY: Final = re.compile(r" is pending (replica )?(deletion|import)\b")
"""What AWS KMS says of a key that somebody took away: scheduled for deletion, or without its imported material."""
_SECRET_OPERATIONS: Final = ("GenerateDataKey", "Encrypt", "Decrypt")
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


def arn_of(key: str, client: KMSClient) -> str:
    """Return the ARN *key* as it is called in the client's Region.

    Raises:
        ConfigError: It is none, or of another Region.
    """
    match, region = ARN.fullmatch(key), client.meta.region_name
    if match is None:
        raise ConfigError(f"key must be the ARN of a KMS key, arn:aws:kms:REGION:ACCOUNT:key/ID, not {key!r}")
    if match["id"].startswith("mrk-"):
        return in_region(match, region)
    if match["region"] != region:
        raise ConfigError(f"key is in {match['region']}, but the client is of {region}: {key!r}")
    return key


def is_of_the_key(answer: Mapping[str, Any], arn: str) -> bool:
    """Tell whether *answer* is of the key that was asked: AWS KMS names it by its ARN, emulators also by its id."""
    return answer.get("KeyId") in (arn, arn.rpartition("/")[2])


class _Hidden(bytes):
    """Bytes that travel as they are, and do not show in a log."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<{len(self)} bytes, hidden by postseal>"

    __str__ = __repr__


def hide_from_logs(client: KMSClient) -> None:
    """Keep data keys out of botocore's debug log, which prints whole requests and answers."""
    for operation in _SECRET_OPERATIONS:
        for event, hide in (("before-call", _hide_request), ("before-parse", _hide_answer)):
            client.meta.events.register_last(
                f"{event}.kms.{operation}", hide, unique_id=f"postseal-{event}-{operation}"
            )


def _hide_request(params: dict[str, Any], **_: Any) -> None:
    if isinstance(params.get("body"), bytes):
        params["body"] = _Hidden(params["body"])


def _hide_answer(response_dict: dict[str, Any], **_: Any) -> None:
    if isinstance(response_dict.get("body"), bytes):
        response_dict["body"] = _Hidden(response_dict["body"])
