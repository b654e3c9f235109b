"""Binds a wrapped key to its context where the key service cannot: with a tag that only the data key itself can make.

Whoever does not know the data key can neither move its wrap to another policy or destination nor change the tag. It is not a right: the
service unwraps for every context alike, and only we look at the tag.

Source: SPEC.md 6.2.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from postseal.core.context import head, text
from postseal.core.crypto import DATA_KEY_SIZE, derive, equal
from postseal.core.errors import KeyBroken
from postseal.core.keys import KeyContext

if TYPE_CHECKING:
    from postseal.core.publickeys import RecipientKey

__all__ = ["TAG_SIZE", "canonical", "check_tag", "opened_by_service", "tag"]

TAG_SIZE: Final = 16
_DOMAIN: Final = "postseal v1 context"


def canonical(context: KeyContext) -> bytes:
    """Return the deterministic encoding of *context*."""
    return head(4, 3) + text(_DOMAIN) + text(context.policy) + text(context.destination)


def tag(data_key: bytes, context: KeyContext) -> bytes:
    """Make the tag of *data_key* for *context*: 16 bytes."""
    return derive(data_key, canonical(context), TAG_SIZE)


def check_tag(data_key: bytes, context: KeyContext, claimed: bytes) -> None:
    """See, in constant time, that *data_key* was wrapped for *context*.

    Raises:
        KeyBroken: It was not, or the tag was changed.
    """
    try:
        right = equal(tag(data_key, context), claimed)
    finally:
        del data_key  # a traceback shows the locals of its frames to whoever asks
    if not right:
        raise KeyBroken("the wrapped key is of another context, or its tag was changed")


def opened_by_service(
    public: RecipientKey, wrapped: bytes, context: bytes, decrypt: Callable[[bytes], bytes]
) -> bytes:
    """Unwrap what was wrapped for an RSA key whose private half is in a service. Source: SPEC.md 6.3.

    Args:
        public: The public half.
        wrapped: As the envelope carries it: the size is seen before the service is asked.
        context: As `canonical` gives it.
        decrypt: Has the service decrypt. Raises what a key provider does.

    Raises:
        KeyBroken: It is no data key of that context.
    """
    encrypted, claimed = wrapped[:-TAG_SIZE], wrapped[-TAG_SIZE:]
    if public.kind != f"rsa-{8 * len(encrypted)}":
        raise KeyBroken(f"{len(wrapped)} bytes are no wrapped key of this kind")
    data_key = decrypt(encrypted)
    if len(data_key) == DATA_KEY_SIZE and equal(derive(data_key, context, TAG_SIZE), claimed):
        return data_key
    del data_key  # likewise
    raise KeyBroken("the wrapped key is of another context, or its tag was changed")
