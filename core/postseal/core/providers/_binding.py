"""Binds a wrapped key to its context where the key service cannot: with a tag that only the data key itself can make.

Whoever does not know the data key can neither move its wrap to another policy or destination nor change the tag. It is not a right: the
service unwraps for every context alike, and only we look at the tag.

Source: SPEC.md 6.2.
"""

from __future__ import annotations

from typing import Final

from postseal.core.context import head, text
from postseal.core.crypto import derive, equal
from postseal.core.errors import KeyBroken
from postseal.core.keys import KeyContext

__all__ = ["TAG_SIZE", "canonical", "check_tag", "tag"]

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
