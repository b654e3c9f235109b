"""What a message is bound to besides its body, and the canonical bytes of it.

Values travel beside the body, in the broker's own fields; the envelope only holds their names. Their canonical encoding is the
``external_aad`` of COSE, so that a value which was changed, added or taken away makes the envelope refuse to open.

Source: SPEC.md 5.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, TypeAlias

from postseal.core.errors import ConfigError

__all__ = [
    "EMPTY",
    "Field",
    "HeaderValue",
    "Headers",
    "byte_string",
    "canonical",
    "check_destination",
    "check_name",
    "encoded_headers",
    "encoded_values",
    "fold",
    "head",
    "integer",
    "pairs_of",
    "text",
]

HeaderValue: TypeAlias = str | bytes | int | bool | None
"""One value of a header, as its adapter normalised it."""

Headers: TypeAlias = Mapping[str, HeaderValue] | Iterable[tuple[str, HeaderValue]]
"""Headers as a mapping, or as pairs where a name may come more than once. Order counts only among equal names."""

_DOMAIN: Final = "postseal v1"
_LETTERS: Final = frozenset("abcdefghijklmnopqrstuvwxyz")
_MAX_SCHEME: Final = 16
_INT_MIN: Final = -(2**63)
_INT_MAX: Final = 2**64 - 1
_MAX_DESTINATION: Final = 512
_MAX_NAME: Final = 255


def head(major: int, value: int) -> bytes:
    """Encode a CBOR head in its shortest form: *major* type 0 to 7, argument *value* below 2**64. Source: RFC 8949 3."""
    if value < 24:  # noqa: PLR2004 - RFC 8949 3: arguments below 24 stand in the first byte
        return bytes((major << 5 | value,))
    for size, code in ((1, 24), (2, 25), (4, 26), (8, 27)):
        if value < 1 << 8 * size:
            return bytes((major << 5 | code,)) + value.to_bytes(size, "big")
    raise OverflowError(value)


def byte_head(size: int) -> bytes:
    """Encode the head of a byte string of *size* bytes; the same as ``head(2, size)``, and short for what is common."""
    if size < 24:  # noqa: PLR2004 - RFC 8949 3
        return _SHORT_HEADS[size]
    if size < 1 << 8:
        return b"\x58" + size.to_bytes(1, "big")
    if size < 1 << 16:
        return b"\x59" + size.to_bytes(2, "big")
    return head(2, size)


def text(value: str) -> bytes:
    """Encode a CBOR text string."""
    raw = value.encode()
    return head(3, len(raw)) + raw


def byte_string(value: bytes) -> bytes:
    """Encode a CBOR byte string."""
    return head(2, len(value)) + value


def integer(value: int) -> bytes:
    """Encode a CBOR integer, -2**64 to 2**64 - 1."""
    return head(0, value) if value >= 0 else head(1, -1 - value)


def canonical(
    names: Sequence[str] = (),
    headers: Headers | None = None,
    *,
    content_encoding: str | None = None,
    ordering_key: bytes | None = None,
) -> bytes:
    """Encode what a message is bound to.

    Args:
        names: Names of the bound headers, ascending, none twice.
        headers: All headers of the message; those not in *names* are passed over, but for names that differ from one of them only in case.
        content_encoding: As the broker carries it.
        ordering_key: Kafka record key, SQS message group id and the like, where the policy binds it.

    Returns:
        The ``external_aad``, 16 bytes where nothing is bound.

    Raises:
        TypeError: A bound header, or the content encoding, has a value that has no canonical form; or a header's name could be taken for
            that of a bound one.

    Source: SPEC.md 5.2.
    """
    values = encoded_values(names, headers)
    parts = [
        head(4, 4),
        text(_DOMAIN),
        b"\xf6" if content_encoding is None else _text(content_encoding, "the content encoding"),
        b"\xf6" if ordering_key is None else byte_string(ordering_key),
        encoded_headers(values),
    ]
    return b"".join(parts)


def encoded_values(names: Sequence[str], headers: Headers | None) -> dict[str, list[bytes]]:
    """Encode the values of those of *headers* that are in *names*: a list for each, empty where there are none.

    Raises:
        TypeError: One has no canonical form, or a header's name could be taken for one of *names*.
    """
    values: dict[str, list[bytes]] = {name: [] for name in names}
    if values and headers is not None:
        folded = None
        for name, value in pairs_of(headers):
            if name in values:
                values[name].append(_value(name, value))
                continue
            folded = folded or {fold(each) for each in names}
            if fold(name) in folded:
                raise TypeError(
                    f"a header's name could be taken for {_twin(name, names)!r}, which is bound or encrypted, and is not the same"
                )
    return values


def encoded_headers(values: Mapping[str, Sequence[bytes]]) -> bytes:
    """Encode names with their encoded values, in the order of *values*. Source: SPEC.md 5.2."""
    parts = [head(4, len(values))]
    for name, encoded in values.items():
        parts += (head(4, 2), text(name), head(4, len(encoded)), *encoded)
    return b"".join(parts)


def pairs_of(headers: Headers) -> Iterable[tuple[str, HeaderValue]]:
    """Return *headers* as pairs of name and value."""
    return headers.items() if isinstance(headers, Mapping) else headers  # pyright: ignore[reportReturnType] # a mapping is of names


class Field(str):
    """The name of a field of the broker's own, and not of a header: no header's name can be taken for it."""

    __slots__ = ()


def fold(name: object) -> object:
    """Return what all names that a program might take for *name* have in common: those that differ in case, or in how they are encoded.

    What is no text, or a `Field`, is nobody's twin.
    """
    if not isinstance(name, str) or isinstance(name, Field):
        return (name,)
    if name.isascii():
        return name.lower()
    import unicodedata  # noqa: PLC0415 - few names are not ASCII

    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())


def _twin(name: object, names: Sequence[str]) -> str:
    return next(each for each in names if fold(each) == fold(name))


def _value(name: str, value: HeaderValue) -> bytes:
    if isinstance(value, str):
        return _text(value, f"header {name!r}")
    if isinstance(value, (bytes, bytearray, memoryview)):
        return byte_string(bytes(value))
    if value is None:
        return b"\xf6"
    if value is True or value is False:
        return b"\xf5" if value else b"\xf4"
    if isinstance(value, int) and _INT_MIN <= value <= _INT_MAX:
        return integer(value)
    raise TypeError(
        f"header {name!r} is bound and cannot be: {type(value).__name__} has no canonical form; "
        "text, bytes, integers of 64 bits, booleans and None have"
    )


def _text(value: str, what: str) -> bytes:
    try:
        return text(value)
    except (UnicodeEncodeError, AttributeError):
        # Not `from` that error: it holds the value, and errors travel further than headers may.
        raise TypeError(f"{what} is bound and cannot be: it is no text of Unicode") from None


def check_name(name: object, what: str, *, most: int = _MAX_NAME) -> str:
    """Return *name* if a header may carry it as *what*: 1 to *most* bytes of NFC text without control characters."""
    if not isinstance(name, str):
        raise ConfigError(f"{what} must be text, not {type(name).__name__}")
    if not name or len(name.encode("utf-8", "surrogatepass")) > most:
        raise ConfigError(f"{what} must have 1 to {most} bytes of UTF-8: {name[:80]!r}")
    if not is_plain(name):
        raise ConfigError(
            f"{what} must be in Unicode normalisation form C and without control characters: {name!r}"
        )
    return name


def check_destination(destination: object, what: str = "destination") -> str:
    """Return *destination* if it is ``scheme:name`` of 3 to 512 bytes."""
    name = check_name(destination, what, most=_MAX_DESTINATION)
    scheme, _, rest = name.partition(":")
    if not rest or not 1 <= len(scheme) <= _MAX_SCHEME or not _LETTERS.issuperset(scheme):
        raise ConfigError(f"{what} must be scheme:name, like 'kafka:orders' or 'sqs:orders': {name!r}")
    return name


def is_plain(name: str) -> bool:
    """Tell whether *name* is in normalisation form C and without control characters, so that no two names look alike by encoding."""
    if name.isascii():
        return name.isprintable()
    try:
        name.encode()
    except UnicodeEncodeError:  # a lone surrogate
        return False
    import unicodedata  # noqa: PLC0415 - few names are not ASCII

    return unicodedata.is_normalized("NFC", name) and not any(unicodedata.category(c) == "Cc" for c in name)


_SHORT_HEADS: Final = tuple(head(2, size) for size in range(24))

EMPTY: Final = canonical()
"""The encoding where nothing is bound."""
