"""The optional compiled accelerator: whether it is here, and whether it is wanted.

`postseal.core._native` does what `outgoing`, `learnt` and the adapters do for each message, byte for byte the same, in less time. Without
it everything works as well. The environment variable ``POSTSEAL_NATIVE`` chooses: 0 leaves it alone, 1 demands it, and unset takes it
where it is.

Source: docs/accelerator.md.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from postseal.core.errors import ConfigError

if TYPE_CHECKING:
    from postseal.core._native import Hand, Opener, Writer

__all__ = ["SWITCH", "Native", "native"]

SWITCH: Final = "POSTSEAL_NATIVE"
"""The environment variable."""


class Native:
    """What is compiled."""

    def __init__(self, module: Any) -> None:
        self.writer: type[Writer] = module.Writer
        self.opener: type[Opener] = module.Opener
        self.hand: type[Hand] = module.Hand
        self.encode: Callable[[bytes], str] = module.encode
        """Writes base64url without padding."""
        self.decode: Callable[[str], bytes | None] = module.decode
        """Reads it, exactly as `encode` writes it; None where it is anything else."""
        self.seal_texts: Callable[[Callable[[bytes], bytes | None], list[Any]], list[str]] = module.seal_texts
        self.open_texts: Callable[[Callable[[bytes], bytes | None], list[Any]], list[str]] = module.open_texts
        self.md5s: Callable[[list[str]], list[str]] = module.md5s
        self.in_order: Callable[[bytes, list[str], bytes], bool] = module.in_order
        """What `postseal.sqs._text` says of them."""


@cache
def native() -> Native | None:
    """Load the accelerator when the first message needs it; None where it is not here, or not wanted.

    Raises:
        ConfigError: It is demanded and cannot be loaded, or the variable has another value.
    """
    wanted = os.environ.get(SWITCH, "")
    if wanted not in {"", "0", "1"}:
        raise ConfigError(f"{SWITCH} is 0, 1 or unset: {wanted!r}")
    if wanted == "0":
        return None
    try:
        return Native(import_module("postseal.core._native"))
    except ImportError as error:
        if wanted:
            raise ConfigError(f"{SWITCH}=1, and the accelerator cannot be loaded: {error}") from error
        return None
