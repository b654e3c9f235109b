"""How an envelope rides in the body of an SQS message: as text, one or many at once; and the MD5 of bodies. Pure.

What is done for each message of a call is here twice, in Python and by the accelerator: tests/sqs/test_text.py compares them.

Source: RFC 4648 5 and 3.5; SPEC.md 3.4.
"""

from __future__ import annotations

import binascii
from collections.abc import Callable
from hashlib import md5
from typing import Any, Final

from postseal.core.accelerator import native
from postseal.core.wire import looks_sealed

__all__ = [
    "bytes_of",
    "envelope_of",
    "in_order",
    "open_texts",
    "seal_texts",
    "text_md5",
    "text_md5s",
    "text_of",
]

_PADDING: Final = ("", None, "==", "=")
"""By the length modulo 4; None where no bytes have a text of that length."""
_LAST: Final = ("", "", "AQgw", "AEIMQUYcgkosw048")
"""What a text may end in, by its length modulo 4, so that the bits it leaves over are zero. Source: RFC 4648 3.5."""
_STARTS: Final = ("2GCE", "0Y", "0o", "2nBzbDG")
"""How the text of an envelope begins: bytes d8 60 84, d1 84, d2 84, da 70736c31. Source: SPEC.md 3.4."""


def text_of(envelope: bytes) -> str:
    """Write *envelope* as SQS takes it: base64url without padding, four characters for three bytes. Source: RFC 4648 5."""
    if (compiled := native()) is not None:
        return compiled.encode(envelope)
    text = binascii.b2a_base64(envelope, newline=False)
    # Quicker than bytes.translate, and than the same in str.
    return text.replace(b"+", b"-").replace(b"/", b"_").rstrip(b"=").decode()


def envelope_of(text: str) -> bytes | None:
    """Return the envelope that *text* is, exactly as `text_of` would write it; None where it is anything else.

    What it returns only looks like an envelope: nothing in it is authenticated.
    """
    envelope = bytes_of(text) if text.startswith(_STARTS) else None  # most that is sent is spared the call
    return envelope if envelope is not None and looks_sealed(envelope) else None


def bytes_of(text: str) -> bytes | None:
    """Return the bytes that *text* is, if it begins as an envelope's text does, and is exactly as `text_of` would write them; else None."""
    if (compiled := native()) is not None:
        return compiled.decode(text) if text.startswith(_STARTS) else None
    if not text.startswith(_STARTS) or "+" in text or "/" in text or "=" in text:
        return None
    over = len(text) % 4
    padding = _PADDING[over]
    if padding is None or (over and text[-1] not in _LAST[over]):
        return None
    try:
        return binascii.a2b_base64(text.replace("-", "+").replace("_", "/") + padding, strict_mode=True)
    except ValueError:  # a letter that is none of base64, also one outside ASCII
        return None


# -- those of a whole call ---------------------------------------------------------------------------------------------


def seal_texts(seal: Callable[[bytes], bytes | None], texts: list[Any]) -> list[str]:
    """Seal *texts* at once, up to the first that is to go the whole way: that *seal* does not seal, or may be an envelope already.

    Args:
        seal: `Sealer.at_hand`.
        texts: What a caller gave as bodies: any objects.

    Returns:
        What travels in the places of those that were sealed.
    """
    if (compiled := native()) is not None:
        return compiled.seal_texts(seal, texts)
    sealed: list[str] = []
    for text in texts:
        if type(text) is not str or text.startswith(_STARTS):
            break
        try:
            envelope = seal(text.encode())
        except UnicodeEncodeError:
            break
        if envelope is None:
            break
        sealed.append(text_of(envelope))
    return sealed


def open_texts(open_: Callable[[bytes], bytes | None], texts: list[Any]) -> list[str]:
    """Open *texts* at once, up to the first that is to go the whole way: that *open_* does not open, or what it holds is no text.

    Args:
        open_: `Sealer.body_at_hand`.
        texts: Bodies as they came.

    Returns:
        The clear text of each that was opened.
    """
    if (compiled := native()) is not None:
        return compiled.open_texts(open_, texts)
    clear: list[str] = []
    for text in texts:
        envelope = bytes_of(text) if type(text) is str else None
        if envelope is None or (body := open_(envelope)) is None:
            break
        try:
            clear.append(body.decode())
        except UnicodeDecodeError:
            break
    return clear


def in_order(before: bytes, texts: list[str], data: bytes) -> bool:
    """Tell whether each *before* in *data* has one of *texts* behind it, in their order, and a quotation mark behind that."""
    if (compiled := native()) is not None:
        return compiled.in_order(before, texts, data)
    find, at = data.find, 0
    for text in texts:
        at = find(before, at) + len(before)
        if at < len(before) or not data.startswith(text.encode() + b'"', at):
            return False
        at += len(text)
    return find(before, at) < 0


# -- MD5 ---------------------------------------------------------------------------------------------------------------


def text_md5(text: str | bytes) -> str:
    """Return the MD5 of a body in hex, as SQS does."""
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    return md5(data, usedforsecurity=False).hexdigest()


def text_md5s(texts: list[str]) -> list[str]:
    """Return the MD5 of each of *texts*, which have no half of a surrogate pair."""
    if (compiled := native()) is not None:
        return compiled.md5s(texts)
    return [text_md5(text) for text in texts]
