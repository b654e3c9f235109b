"""What AWS KMS says of a key: its state, its kind, its end, whether it rotates.

Source: AWS KMS API: DescribeKey, GetKeyRotationStatus; AWS KMS Developer Guide, key states.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from postseal.core.errors import KeyRefused, KeyUnavailable, PostsealError
from postseal.core.findings import Finding, bad, clock_of, ends_of, good, warning
from postseal.core.providers._aws_calls import Kms

__all__ = ["HMAC", "OPENS", "SIGNS", "WRAPS", "examined"]

WRAPS: Final = ("ENCRYPT_DECRYPT", "SYMMETRIC_DEFAULT")
SIGNS: Final = ("SIGN_VERIFY", "ECC_NIST_P256")
HMAC: Final = ("GENERATE_VERIFY_MAC", "HMAC_256")
OPENS: Final = ("ENCRYPT_DECRYPT", "RSA")
"""What a key must be for, and how its kind begins."""

_STATES: Final[Mapping[str, tuple[str, str]]] = {
    "Disabled": ("is disabled", "aws kms enable-key --key-id {}"),
    "PendingDeletion": (
        "is waiting for deletion{}: then nothing that was wrapped under it opens ever again",
        "aws kms cancel-key-deletion --key-id {0}; aws kms enable-key --key-id {0}",
    ),
    "PendingReplicaDeletion": (
        "is waiting for its replicas to be deleted",
        "aws kms cancel-key-deletion --key-id {}",
    ),
    "PendingImport": ("has no key material", "import it again: aws kms import-key-material --key-id {} ..."),
    "Unavailable": ("is away with its key store", "connect the custom key store of {}"),
}
_PASSING: Final = frozenset({"Creating", "Updating"})


def examined(kms: Kms, key: str, now: float, *, kind: tuple[str, str] | None = None) -> Iterator[Finding]:
    """Say how *key* is.

    Args:
        kms: To ask.
        key: Its ARN or another name of it.
        now: Seconds since the epoch.
        kind: What it must be; None for what only opens what it wrapped once.
    """
    try:
        answer = kms.call("DescribeKey", key, KeyId=key)
    except KeyRefused as error:
        yield warning(f"its state is not to be seen: {error}", "allow kms:DescribeKey to whoever examines")
        return
    except PostsealError as error:
        yield bad(str(error), "look at region, endpoint, credentials and network")
        return
    told: dict[str, Any] = answer.get("KeyMetadata", {})
    arn = str(told.get("Arn", key))
    yield from _state(told, arn, now)
    if kind is not None:
        yield from _kind(told, arn, kind)
    if kind == WRAPS:
        yield from _rotation(kms, told, arn)
    yield from clock_of(answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date"), now)


def _state(told: Mapping[str, Any], arn: str, now: float) -> Iterator[Finding]:
    state = str(told.get("KeyState", "Enabled"))
    if state in _STATES:
        says, mend = _STATES[state]
        deletion = told.get("DeletionDate")
        yield bad(
            f"{arn} " + says.format("" if deletion is None else f" on {deletion:%Y-%m-%d}"), mend.format(arn)
        )
    elif state in _PASSING:
        yield warning(f"{arn} is {state.lower()}", "wait a moment")
    else:
        yield good(f"{arn} is enabled")
    yield from ends_of(
        told.get("ValidTo"), f"the key material of {arn}", now, "import it again, with a later end"
    )


def _kind(told: Mapping[str, Any], arn: str, wanted: tuple[str, str]) -> Iterator[Finding]:
    usage = told.get("KeyUsage", "ENCRYPT_DECRYPT")
    spec = told.get("KeySpec", told.get("CustomerMasterKeySpec", "SYMMETRIC_DEFAULT"))
    if usage != wanted[0] or not str(spec).startswith(wanted[1]):
        yield bad(f"{arn} is a key for {usage}, {spec}", f"take one for {wanted[0]}, {wanted[1]}")


def _rotation(kms: Kms, told: Mapping[str, Any], arn: str) -> Iterator[Finding]:
    if told.get("Origin", "AWS_KMS") != "AWS_KMS" or told.get("KeyState", "Enabled") != "Enabled":
        return
    try:
        rotates = kms.call("GetKeyRotationStatus", arn, KeyId=arn).get("KeyRotationEnabled")
    except (KeyRefused, KeyUnavailable):
        return  # whoever only uses keys need not see that
    if rotates:
        yield good("it is rotated by AWS KMS")
    else:
        yield warning("it is never rotated", f"aws kms enable-key-rotation --key-id {arn}")
