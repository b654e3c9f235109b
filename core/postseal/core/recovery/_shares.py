"""The archive's private key in n shares, of which any k give it back and fewer tell nothing.

The scheme is Shamir's over GF(256) as SLIP-39 has it, by the library of its authors: each share is 33 words, with a checksum, that a person
can write down, read aloud and type in.

Source: SLIP-0039.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from postseal.core.errors import ConfigError, MissingExtraError
from postseal.core.publickeys import OpeningKey

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["join", "split"]

_LEAST: Final = 2  # with one, each share would be the key
_MOST: Final = 16  # SLIP-0039: a member index has 4 bits
_LINE: Final = re.compile(r"(kind|key|words):\s*(.*)")
_HEAD: Final = """\
# Share {number} of {shares} of a postseal archive key: any {threshold} of them give its private key, fewer tell nothing.
# The words are of SLIP-39. Keep this share apart from the others; a copy on paper will do.
"""


def split(key: OpeningKey, *, threshold: int, shares: int) -> tuple[str, ...]:
    """Split the private *key* into texts, one a share.

    Args:
        key: X25519 or X-Wing.
        threshold: How many give it back, at least 2.
        shares: How many there are, 16 at most.

    Raises:
        ConfigError: The numbers make no sense, or the key is of another kind.
        MissingExtraError: The extra ``recover`` is not installed.
    """
    if not _LEAST <= threshold <= shares <= _MOST:
        raise ConfigError(
            f"threshold {threshold} of {shares} shares: at least 2, at most all of them, and {_MOST} shares at most"
        )
    slip39 = _library()
    [group] = slip39.generate_mnemonics(1, [(threshold, shares)], key.seed)
    return tuple(
        _HEAD.format(number=number, shares=shares, threshold=threshold)
        + f"kind: {key.public.kind}\nkey: {key.public.key_id.hex()}\nwords: {words}\n"
        for number, words in enumerate(group, 1)
    )


def join(shares: Sequence[str], *, kind: str | None = None) -> OpeningKey:
    """Put the private key together from *shares*: what `split` gave, or the bare words.

    Args:
        shares: As many as are needed, or more; in any order.
        kind: ``x25519`` or ``x-wing``, where there are only words.

    Raises:
        ConfigError: Too few, of different keys, or one is not as it was written down. No word is quoted.
        MissingExtraError: The extra ``recover`` is not installed.
    """
    slip39 = _library()
    parts = [_parsed(text, f"share {number}", slip39) for number, text in enumerate(shares, 1)]
    if not parts:
        raise ConfigError("no shares were given")
    if len({part.share.identifier for part in parts}) > 1:
        raise ConfigError("these are shares of different keys")
    words = {part.share.index: part.words for part in parts}
    needed = parts[0].share.member_threshold
    if len(words) < needed:
        raise ConfigError(f"{needed} different shares are needed; there are {len(words)}")
    kinds = {part.kind for part in parts if part.kind} | ({kind} if kind else set())
    if len(kinds) != 1:
        raise ConfigError("the shares do not say of what kind the key is: x25519 or x-wing?")
    try:
        # More than are needed would have to be consistent with each other, too.
        seed = slip39.combine_mnemonics(list(words.values())[:needed])
    except slip39.MnemonicError:
        raise ConfigError("the shares do not belong together") from None
    key = OpeningKey.from_seed(seed, kinds.pop())
    named = {part.key for part in parts if part.key}
    if named and named != {key.public.key_id.hex()}:
        raise ConfigError("the shares give another key than the one that they name")
    return key


class _Part(NamedTuple):
    words: str
    share: Any
    kind: str
    key: str

    def __repr__(self) -> str:
        return "<a share>"


def _parsed(text: str, what: str, slip39: ModuleType) -> _Part:
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    said = {match[1]: match[2] for line in lines if (match := _LINE.fullmatch(line))}
    bare = " ".join(line for line in lines if not _LINE.fullmatch(line))
    words = " ".join(said.get("words", bare).lower().split())
    try:
        share = slip39.Share.from_mnemonic(words)
    except slip39.MnemonicError:
        raise ConfigError(
            f"{what} is not as it was written down: a word is wrong, missing or in another place"
        ) from None
    return _Part(words, share, said.get("kind", ""), said.get("key", ""))


def _library() -> ModuleType:
    try:
        import shamir_mnemonic  # noqa: PLC0415 - for these few alone
    except ImportError as missing:
        raise MissingExtraError.naming("recover", __name__, missing) from missing
    module: ModuleType = shamir_mnemonic
    return module
