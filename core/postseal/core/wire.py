"""Bytes to `Envelope` and back. No crypto, no I/O, no policy.

`decode` reads any bytes and refuses whatever is not exactly of SPEC.md, sections 2 to 4. `Skeleton` is the hot path: what is constant in
the headers of all messages of one data key, so that the rest is four holes of fixed place and width.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterable, Sequence
from enum import IntEnum
from itertools import pairwise
from typing import Final, NamedTuple, NoReturn

from postseal.core.context import HeaderValue, byte_string, head, integer, is_plain, text
from postseal.core.errors import ConfigError, Refused, Verdict

__all__ = [
    "MAX_TEXT",
    "Algorithm",
    "Credential",
    "Delegation",
    "Envelope",
    "Header",
    "Outer",
    "Protection",
    "Reader",
    "Recipient",
    "Skeleton",
    "Template",
    "decode",
    "encode_direct",
    "encode_recipients",
    "encrypted_with",
    "looks_sealed",
]

VERSION: Final = 1
LABEL: Final = -65537
MAX_BODY: Final = 2**31 - 17
MAX_RECIPIENTS: Final = 16
MAX_WRAPPED: Final = 6144
"""Bytes of a wrapped key; and of a body that the key service encrypted itself."""
MAX_KEY_ID: Final = 64
MAX_BOUND: Final = 64
MAX_TEXT: Final = 255
MAX_DESTINATION: Final = 512
MAX_POLICY: Final = 64
MESSAGE_ID_SIZE: Final = 16
NONCE_SIZE: Final = 12
REFERENCE_SIZE: Final = 32
MORE_FRAMED: Final = 1
MORE_IN_REPLY_TO: Final = 2
"""Labels of the map of SPEC.md 4.1."""
FRAMING: Final = 1
"""The one framing there is. Source: SPEC.md 3.5."""
TIME_MIN: Final = 2**16
TIME_MAX: Final = 2**32 - 1
MAX_CERTIFICATES: Final = 5
MAX_CERTIFICATE: Final = 8192
COORDINATE: Final = 32
MAX_DELEGATION: Final = 512
"""Bytes of a delegation's claims: 255 of the sender and what else there is."""
X5CHAIN: Final = 33
"""Label of a chain of certificates. Source: RFC 9360 2."""
KCWT: Final = 13
"""Label of a CWT that confirms a key. Source: RFC 9528 10.6."""
NO_CREDENTIAL: Final = b"\xa0"
"""The unprotected header that holds nothing."""
DELEGATION_DOMAIN: Final = b"postseal v1 delegation"
"""``external_aad`` of a delegation. What signs messages begins there with another byte."""

TAG_ENCRYPT: Final = 96
TAG_MAC: Final = 17
TAG_SIGN: Final = 18
FORMAT_ENCRYPT: Final = 96
"""CoAP content format of ``application/cose; cose-type="cose-encrypt"``."""

_UNSIGNED, _NEGATIVE, _BYTES, _TEXT, _ARRAY, _MAP, _TAG = range(7)
_NULL: Final = 0xF6
_SIMPLE: Final[dict[int, bool | None]] = {0xF4: False, 0xF5: True, _NULL: None}
ENCRYPT_HEAD: Final = b"\xd8\x60\x84"
"""Tag 96 and the array of COSE_Encrypt."""
SHORT_HEAD: Final = b"\xda\x70\x73\x6c\x31"
"""Tag 0x70736c31 of the short form. Source: SPEC.md 3.6."""
_ENC_STRUCTURE: Final = b"\x83\x67Encrypt"
_START: Final = re.compile(
    rb"(?s:\xd8\x60\x84(?:\x58.|\x59..)|[\xd1\xd2]\x84(?:[\x43-\x57]|\x58.|\x59..))[\xa3-\xa5]\x01|\xdapsl1[\x83\x84]\x50"
)
"""Tag, array, the protected byte string's head, then the map's and its first label; or those of the short form. Source: SPEC.md 3.4."""
_LABEL_HEAD: Final = integer(LABEL)


class Protection(IntEnum):
    """What an envelope does for its body. Source: SPEC.md 1."""

    CONFIDENTIALITY = 1
    PRIVACY = 2
    INTEGRITY = 3


class Algorithm(IntEnum):
    """COSE algorithm numbers of this profile. Source: SPEC.md 10.1; RFC 9053."""

    A256GCM = 3
    KEY_SERVICE = -65543
    """The body was encrypted by the wrapping key itself, without a data key."""
    HMAC_256 = 5
    ES256 = -7
    EDDSA = -8

    @property
    def tag(self) -> int:
        """The CBOR tag of the structure that it signs."""
        return TAG_MAC if self is Algorithm.HMAC_256 else TAG_SIGN

    @property
    def signature_size(self) -> int:
        """Bytes of a MAC or signature."""
        return 32 if self is Algorithm.HMAC_256 else 64


class Recipient(NamedTuple):
    """One wrapped key among several. Authenticated by nothing until the commitment of what it unwraps to was checked."""

    algorithm: int
    key_id: bytes
    wrapped_key: bytes


class Header(NamedTuple):
    """The protected header: what every message says of itself. Source: SPEC.md 4.

    *nonce* and *commitment* are there where a data key encrypts, *key_id* in integrity. *seconds* and *expires* count from the epoch.
    *framed* says that what is encrypted is headers and body (`framing`); *in_reply_to* is the reference of the request that it answers, 32
    bytes.
    """

    algorithm: Algorithm
    sender: str
    destination: str
    seconds: int
    millis: int
    message_id: bytes
    protection: Protection
    policy: str
    policy_version: int = 0
    bound: tuple[str, ...] = ()
    content_type: str | None = None
    expires: int | None = None
    nonce: bytes | None = None
    commitment: bytes | None = None
    key_id: bytes | None = None
    framed: bool = False
    in_reply_to: bytes | None = None

    @property
    def says_more(self) -> bool:
        """Whether there is more in it than most headers have: the map of SPEC.md 4.1."""
        return self.framed or self.in_reply_to is not None

    @property
    def direct(self) -> bool:
        """Whether the key service encrypted the body itself. Source: SPEC.md 3.7."""
        return self.algorithm is Algorithm.KEY_SERVICE

    def encode(self) -> bytes:
        """Encode the content of the protected byte string."""
        template = Template(self)
        times = template.times(self.seconds, self.expires)
        filled = template.pack(
            template.first,
            self.nonce or b"",
            times,
            self.message_id,
            template.fourth,
            self.millis,
            template.last,
        )
        start, stop = byte_span(filled, template.begin)
        return filled[start:stop]


class Delegation(NamedTuple):
    """A CWT in which one key says that another signs for it, for a while. Source: SPEC.md 7.3; RFC 8392; RFC 8747 3.2.

    Nothing in it is authenticated yet. *begins* and *ends* are seconds since the epoch.
    """

    algorithm: Algorithm
    """Of the key that delegates."""
    key_id: bytes
    """Names that key."""
    sender: str
    begins: int
    ends: int
    delegate: Algorithm
    """What the other key is for."""
    public_key: bytes
    """That key: 32 bytes of Ed25519, or both coordinates of a point on P-256."""
    signature: bytes = b""

    def protected(self) -> bytes:
        """Encode its protected header."""
        return b"\xa2\x01" + integer(self.algorithm) + b"\x04" + byte_string(self.key_id)

    def claims(self) -> bytes:
        """Encode its payload."""
        return b"".join(
            (
                b"\xa4\x02",
                text(self.sender),
                b"\x04",
                head(_UNSIGNED, self.ends),
                b"\x05",
                head(_UNSIGNED, self.begins),
                b"\x08\xa1\x01",
                self._cose_key(),
            )
        )

    def _cose_key(self) -> bytes:
        if self.delegate is Algorithm.EDDSA:  # kty OKP, crv Ed25519
            return b"\xa3\x01\x01\x20\x06\x21" + byte_string(self.public_key)
        x, y = self.public_key[:COORDINATE], self.public_key[COORDINATE:]  # kty EC2, crv P-256
        return b"\xa4\x01\x02\x20\x01\x21" + byte_string(x) + b"\x22" + byte_string(y)

    def to_be_signed(self) -> bytes:
        """Encode what the delegating key signs."""
        start = to_be_signed_head(self.algorithm, self.protected())
        return start + byte_string(DELEGATION_DOMAIN) + byte_string(self.claims())

    def encode(self) -> bytes:
        """Encode the whole."""
        start = signed_head(self.algorithm, self.protected())
        return start + byte_string(self.claims()) + byte_string(self.signature)


class Credential(NamedTuple):
    """What a signed envelope carries of the key that signed it, in its unprotected header: the key's id binds it. Source: SPEC.md 7.1.

    *value* is as it stood there, without its label.
    """

    label: int
    value: bytes
    certificates: tuple[bytes, ...] = ()
    delegation: Delegation | None = None

    def encode(self) -> bytes:
        """Encode the unprotected header."""
        return b"\xa1" + integer(self.label) + self.value

    @classmethod
    def chain(cls, certificates: Sequence[bytes]) -> Credential:
        """Make that of a chain of certificates, the signer's own first."""
        items = tuple(map(byte_string, certificates))
        value = items[0] if len(items) == 1 else head(_ARRAY, len(items)) + b"".join(items)
        return cls(X5CHAIN, value, tuple(certificates))

    @classmethod
    def of(cls, delegation: Delegation) -> Credential:
        """Make that of a delegation."""
        return cls(KCWT, delegation.encode(), (), delegation)


class Outer(NamedTuple):
    """What signs an encrypting envelope, in privacy. *unprotected* is its unprotected header."""

    algorithm: Algorithm
    key_id: bytes
    protected: bytes
    signature: bytes
    unprotected: bytes = NO_CREDENTIAL


class Envelope(NamedTuple):
    """A decoded envelope. Nothing in it is authenticated yet.

    Attributes:
        protected: The protected byte string's content, as it stood there.
        header: The same, parsed.
        payload: Ciphertext with tag; in integrity the clear body.
        recipients: One to 16; none in integrity.
        recipients_bytes: The same, as they stood there.
        outer: What signs it, in privacy.
        inner: The bytes of the encrypting envelope itself, in privacy.
        signature: MAC or signature, in integrity.
        credential: What it carries of the key that signed it.
    """

    protected: bytes
    header: Header
    payload: bytes
    recipients: tuple[Recipient, ...] = ()
    recipients_bytes: bytes = b""
    outer: Outer | None = None
    inner: bytes = b""
    signature: bytes = b""
    credential: Credential | None = None


class Template:
    """The header of all messages of one data key and content type, with holes for nonce, times and message id: for sealing.

    What is filled in is not the header alone but all that AES-GCM authenticates, from which the header is then cut: that saves putting
    it together a second time.

    Attributes:
        pack: Puts together `first`, the nonce, the `times`, the message id, `fourth`, the milliseconds, `last`. Returns
            ``Enc_structure``, with the *external* that the template was made with as an encoded byte string.
        first: What stands before the nonce.
        fourth: What stands between message id and milliseconds.
        last: What stands behind the milliseconds.
        begin: Where in that the protected byte string begins, with its own head.
        end: Where it ends.
        places: Where the holes are: nonce, expiry (if there is one), seconds, message id, milliseconds.
    """

    __slots__ = ("_pack_times", "_times", "begin", "end", "first", "fourth", "last", "pack", "places")

    def __init__(self, header: Header, external: bytes = b"") -> None:
        fixed, holes = _fixed_parts(header), _holes(header)
        inside = _size(fixed, holes)
        before = _ENC_STRUCTURE + head(_BYTES, inside)
        self.begin = len(_ENC_STRUCTURE)
        self.end = len(before) + inside
        self.places = _places((before + fixed[0], *fixed[1:]), holes)
        self.first, self._times = before + fixed[0], fixed[1:-2]
        self.fourth, self.last = fixed[-2], fixed[-1] + external
        times = _layout(self._times, [*holes[1:-3], ""])
        self._pack_times = times.pack
        self.pack: Callable[..., bytes] = _layout(
            (self.first, bytes(times.size), self.fourth, self.last), [holes[0], *holes[-3:]]
        ).pack

    def blank(self) -> bytes:
        """Return ``Enc_structure`` up to ``external_aad``, with zeros in the holes."""
        times = self.times(0, None if len(self._times) == 2 else 0)  # noqa: PLR2004 - two without an expiry
        return self.pack(self.first, b"", times, b"", self.fourth, 0, self.last)[: self.end]

    def times(self, seconds: int, expires: int | None) -> bytes:
        """Encode what stands between nonce and message id: the same for all messages of a second that expire together."""
        claims, *iat, cti = self._times
        if expires is None:
            return self._pack_times(claims, seconds, cti)
        return self._pack_times(claims, expires, *iat, seconds, cti)


class Skeleton:
    """All that stands before the ciphertext of messages of one data key and content type: for opening.

    Bytes that match and have allowed values in the holes are bytes that `decode` would have accepted.

    Attributes:
        size: Bytes of the whole.
        expires: Whether it has a hole for an expiry.
        fixed: What stands before, between and behind the holes.
        holes: The layout of the holes alone, as `struct` names it: the nonce, the expiry (if there is one), the seconds, the message id,
            the milliseconds; what is `fixed` is skipped.
        whole: The layout of `fixed` parts and holes, in turn.
        places: Where the holes are.
        blank: All of it, with zeros in the holes.
    """

    __slots__ = ("blank", "expires", "fixed", "holes", "places", "size", "whole")

    def __init__(self, header: Header) -> None:
        fixed, holes = _fixed_parts(header), _holes(header)
        inside = _size(fixed, holes)
        before = ENCRYPT_HEAD + head(_BYTES, inside)
        self.expires = header.expires is not None
        self.fixed = (before + fixed[0], *fixed[1:-1], fixed[-1] + b"\xa0")
        self.holes = "".join(f"{len(part)}x{hole}" for part, hole in zip(self.fixed, holes, strict=True))
        self.whole = "".join(f"{len(part)}s{hole}" for part, hole in zip(self.fixed, holes, strict=True))
        self.places = _places(self.fixed, holes)
        self.blank = b"".join(
            part + bytes(struct.calcsize(">" + hole)) for part, hole in zip(self.fixed, holes, strict=True)
        )
        self.size = len(before) + inside + 1


def _fixed_parts(header: Header) -> tuple[bytes, ...]:
    """Encode what stands between the holes of the protected header's content. Source: SPEC.md 4."""
    count = 4 - header.direct + (header.content_type is not None)
    first = [head(_MAP, count), b"\x01", integer(header.algorithm)]
    if header.content_type is not None:
        first += (b"\x03", text(header.content_type))
    if header.direct:
        pass  # the key service has a nonce of its own, if it has one
    elif header.nonce is None:
        first += (b"\x04", byte_string(header.key_id or b""))
    else:
        first += (b"\x05", head(_BYTES, NONCE_SIZE))
    names = b"\x01" + text(header.sender) + b"\x03" + text(header.destination)
    exp, iat, cti = b"\x04\x1a", b"\x06\x1a", b"\x07\x50"
    if header.expires is None:
        claims: tuple[bytes, ...] = (b"\x0f\xa4" + names + iat,)
    else:
        claims = (b"\x0f\xa5" + names + exp, iat)
    more = _more(header)
    size = 8 if more else 7
    postseal = (
        _LABEL_HEAD + head(_ARRAY, size) + head(_UNSIGNED, VERSION) + head(_UNSIGNED, header.protection)
    )
    last = (
        text(header.policy),
        head(_UNSIGNED, header.policy_version),
        head(_ARRAY, len(header.bound)),
        *map(text, header.bound),
        more,
        b"\xf6" if header.commitment is None else byte_string(header.commitment),
    )
    return b"".join(first), *claims, cti, postseal + b"\x42", b"".join(last)


def _more(header: Header) -> bytes:
    """Encode the map of what few headers have; nothing where this has none of it. Source: SPEC.md 4.1."""
    entries = []
    if header.framed:
        entries.append(head(_UNSIGNED, MORE_FRAMED) + head(_UNSIGNED, FRAMING))
    if header.in_reply_to is not None:
        entries.append(head(_UNSIGNED, MORE_IN_REPLY_TO) + byte_string(header.in_reply_to))
    return head(_MAP, len(entries)) + b"".join(entries) if entries else b""


def _holes(header: Header) -> list[str]:
    """Name what stands behind each of `_fixed_parts`, as `struct` does."""
    holes = [f"{0 if header.nonce is None else NONCE_SIZE}s", "I", f"{MESSAGE_ID_SIZE}s", "H", ""]
    if header.expires is not None:
        holes.insert(1, "I")
    return holes


def _places(fixed: tuple[bytes, ...], holes: list[str]) -> tuple[int, ...]:
    """Return where each of *holes* begins."""
    places, at = [], 0
    for part, hole in zip(fixed, holes, strict=True):
        places.append(at + len(part))
        at += len(part) + struct.calcsize(">" + hole)
    return tuple(places[:-1])


def _size(fixed: tuple[bytes, ...], holes: list[str]) -> int:
    return sum(map(len, fixed)) + struct.calcsize(">" + "".join(holes))


def _layout(fixed: tuple[bytes, ...], holes: list[str]) -> struct.Struct:
    return struct.Struct(
        ">" + "".join(f"{len(part)}s{hole}" for part, hole in zip(fixed, holes, strict=True))
    )


def encode_recipients(recipients: Sequence[Recipient]) -> bytes:
    """Encode the recipients array.

    Raises:
        ConfigError: A key provider made what no decoder would take, so that nobody could ever open the message.
    """
    if not 1 <= len(recipients) <= MAX_RECIPIENTS or len({r[:2] for r in recipients}) != len(recipients):
        raise ConfigError(
            f"a message has 1 to {MAX_RECIPIENTS} recipients, no two of one algorithm and key id; not {len(recipients)}"
        )
    for algorithm, key_id, wrapped_key in recipients:
        if not (
            -(1 << 32) <= algorithm < 1 << 32
            and 1 <= len(key_id) <= MAX_KEY_ID
            and 1 <= len(wrapped_key) <= MAX_WRAPPED
        ):
            raise ConfigError(
                f"a recipient has a key id of 1 to {MAX_KEY_ID} bytes and a wrapped key of 1 to {MAX_WRAPPED}, "
                f"not {len(key_id)} and {len(wrapped_key)}"
            )
    parts = [head(_ARRAY, len(recipients))]
    for recipient in recipients:
        parts += (
            b"\x83\x40\xa2\x01",
            integer(recipient.algorithm),
            b"\x04",
            byte_string(recipient.key_id),
            byte_string(recipient.wrapped_key),
        )
    return b"".join(parts)


def encode_direct(protected: bytes, made: Recipient) -> bytes:
    """Encode the envelope of a body that a key service encrypted itself: *made* holds what it gave. Source: SPEC.md 3.7.

    Raises:
        ConfigError: A key provider made what no decoder would take.
    """
    if not (1 <= len(made.key_id) <= MAX_KEY_ID and 1 <= len(made.wrapped_key) <= MAX_WRAPPED):
        raise ConfigError(
            f"a body that a key service encrypted has 1 to {MAX_WRAPPED} bytes and a key id of 1 to {MAX_KEY_ID}, "
            f"not {len(made.wrapped_key)} and {len(made.key_id)}"
        )
    return b"".join(
        (
            ENCRYPT_HEAD,
            byte_string(protected),
            b"\xa0",
            byte_string(made.wrapped_key),
            b"\x81\x83\x40\xa2\x01",
            integer(made.algorithm),
            b"\x04",
            byte_string(made.key_id),
            b"\x40",
        )
    )


def encrypted_with(protected: bytes, external: bytes) -> bytes:
    """Encode ``Enc_structure``: what is authenticated with a body. *external* is an encoded byte string. Source: RFC 9052 5.3."""
    return _ENC_STRUCTURE + byte_string(protected) + external


def encode_outer(algorithm: Algorithm, key_id: bytes) -> bytes:
    """Encode the content of the outer protected byte string of privacy. Source: SPEC.md 3.2."""
    return (
        b"\xa3\x01"
        + integer(algorithm)
        + b"\x03"
        + head(_UNSIGNED, FORMAT_ENCRYPT)
        + b"\x04"
        + byte_string(key_id)
    )


def signed_head(algorithm: Algorithm, protected: bytes, unprotected: bytes = NO_CREDENTIAL) -> bytes:
    """Encode what a signed envelope has before its payload's head."""
    return head(_TAG, algorithm.tag) + b"\x84" + byte_string(protected) + unprotected


def to_be_signed_head(algorithm: Algorithm, protected: bytes) -> bytes:
    """Encode MAC_structure or Sig_structure up to ``external_aad``. Source: SPEC.md 7; RFC 9052 4.4 and 6.3."""
    word = "MAC0" if algorithm.tag == TAG_MAC else "Signature1"
    return b"\x84" + text(word) + byte_string(protected)


def byte_span(data: bytes, at: int) -> tuple[int, int]:
    """Return where the content of the byte string whose head is at *at* begins and ends, or (-1, -1) where none is there.

    For the hot path: does not say whether *data* is long enough. Raises `IndexError` where the head itself is cut.
    """
    first = data[at]
    if first == 0x59:  # noqa: PLR2004 - heads of byte strings, RFC 8949 3; likewise below
        size = data[at + 1] << 8 | data[at + 2]
        if size > 0xFF:  # noqa: PLR2004
            return at + 3, at + 3 + size
    elif first == 0x58:  # noqa: PLR2004
        size = data[at + 1]
        if size > 0x17:  # noqa: PLR2004
            return at + 2, at + 2 + size
    elif 0x40 <= first < 0x58:  # noqa: PLR2004
        return at + 1, at + 1 + first - 0x40
    elif first == 0x5A:  # noqa: PLR2004
        size = int.from_bytes(data[at + 1 : at + 5], "big")
        if size > 0xFFFF:  # noqa: PLR2004
            return at + 5, at + 5 + size
    return -1, -1


def looks_sealed(data: bytes) -> bool:
    """Tell whether *data* begins as an envelope does. Source: SPEC.md 3.4."""
    return _START.match(data) is not None


def decode(data: bytes) -> Envelope:
    """Decode an envelope, strictly.

    Takes no more memory than a few times *data*.

    Raises:
        Refused: *unprotected* where the bytes do not look sealed, *malformed* where they are not exactly of SPEC.md, *unknown-key* where
            they are in the short form: `shortening` has the whole one.
    """
    if not looks_sealed(data):
        raise Refused(Verdict.UNPROTECTED, "the body is no envelope")
    if data.startswith(SHORT_HEAD):
        raise Refused(
            Verdict.UNKNOWN_KEY, "it carries its data key by reference, and there are no references here"
        )
    reader = Reader(data, 0, len(data), "envelope")
    tag = reader.take(_TAG)
    envelope = _encrypt(reader) if tag == TAG_ENCRYPT else _signed(reader, tag)
    reader.finish()
    return envelope


def _encrypt(reader: Reader) -> Envelope:
    reader.expect(_ARRAY, 4)
    protected = reader.byte_string(24, 65535)
    reader.expect(_MAP, 0)
    header = _header(protected, encrypting=True)
    ciphertext = reader.byte_string(*((1, MAX_WRAPPED) if header.direct else (16, MAX_BODY + 16)))
    start = reader.position
    recipients = _recipients(reader, direct=header.direct)
    return Envelope(
        protected=protected,
        header=header,
        payload=ciphertext,
        recipients=recipients,
        recipients_bytes=reader.data[start : reader.position],
    )


def _recipients(reader: Reader, *, direct: bool) -> tuple[Recipient, ...]:
    count = reader.take(_ARRAY)
    most = 1 if direct else MAX_RECIPIENTS
    if not 1 <= count <= most:
        reader.malformed(f"{count} recipients; 1 to {most} may be")
    sizes = (0, 0) if direct else (1, MAX_WRAPPED)
    recipients: dict[tuple[int, bytes], Recipient] = {}
    for _ in range(count):
        reader.expect(_ARRAY, 3)
        reader.expect(_BYTES, 0)
        reader.expect(_MAP, 2)
        reader.expect(_UNSIGNED, 1)
        algorithm = reader.integer()
        reader.expect(_UNSIGNED, 4)
        key_id = reader.byte_string(1, MAX_KEY_ID)
        wrapped = reader.byte_string(*sizes)
        recipients[algorithm, key_id] = Recipient(algorithm, key_id, wrapped)
    if len(recipients) != count:
        reader.malformed("two recipients have the same algorithm and key id")
    return tuple(recipients.values())


def _signed(reader: Reader, tag: int) -> Envelope:
    reader.expect(_ARRAY, 4)
    protected = reader.byte_string(3, 65535)
    start = reader.position
    credential = _credential(reader, tag)
    unprotected = reader.data[start : reader.position]
    payload = reader.byte_string(0, reader.end)
    signature = reader.byte_string(32, 64)
    outer = _outer(protected, signature)
    if outer is None:
        header = _header(protected, encrypting=False)
        _check_signature_form(reader, header.algorithm, tag, signature)
        return Envelope(
            protected=protected, header=header, payload=payload, signature=signature, credential=credential
        )
    _check_signature_form(reader, outer.algorithm, tag, signature)
    if payload[:3] != ENCRYPT_HEAD:
        reader.malformed("a signed envelope that says it encrypts holds no encrypting one")
    inner = Reader(payload, 2, len(payload), "inner envelope")
    envelope = _encrypt(inner)
    inner.finish()
    if envelope.header.protection is not Protection.PRIVACY:
        reader.malformed("a signed envelope holds one that is not of privacy")
    return envelope._replace(
        outer=outer._replace(unprotected=unprotected), inner=payload, credential=credential
    )


def _credential(reader: Reader, tag: int) -> Credential | None:
    """Read the unprotected header of a signed envelope. Source: SPEC.md 7.1."""
    if not reader.take(_MAP):
        return None
    reader.position -= 1
    reader.expect(_MAP, 1)
    if tag != TAG_SIGN:
        reader.malformed("a MAC carries no credential")
    label = reader.integer()
    start = reader.position
    certificates: tuple[bytes, ...] = ()
    delegation = None
    if label == X5CHAIN:
        certificates = _certificates(reader)
    elif label == KCWT:
        delegation = _delegation(reader)
    else:
        reader.malformed("an unprotected header parameter that is not of this profile")
    return Credential(label, reader.data[start : reader.position], certificates, delegation)


def _certificates(reader: Reader) -> tuple[bytes, ...]:
    """Read ``COSE_X509``: a byte string, or an array of two and more. Source: RFC 9360 2."""
    if reader.peek() >> 5 == _BYTES:
        return (reader.byte_string(1, MAX_CERTIFICATE),)
    count = reader.take(_ARRAY)
    if not 2 <= count <= MAX_CERTIFICATES:  # noqa: PLR2004 - as the docstring says
        reader.malformed(
            f"a chain of {count} certificates; 1 to {MAX_CERTIFICATES} may be, and one is no array"
        )
    return tuple(reader.byte_string(1, MAX_CERTIFICATE) for _ in range(count))


def _delegation(reader: Reader) -> Delegation:
    tag = reader.take(_TAG)
    reader.expect(_ARRAY, 4)
    protected = reader.byte_string(6, 6 + MAX_KEY_ID)
    header = Reader(protected, 0, len(protected), "delegation's header")
    header.expect(_MAP, 2)
    algorithm = _algorithm(header)
    header.expect(_UNSIGNED, 4)
    key_id = header.byte_string(1, MAX_KEY_ID)
    header.finish()
    reader.expect(_MAP, 0)
    payload = reader.byte_string(0, MAX_DELEGATION)
    claims = Reader(payload, 0, len(payload), "delegation")
    claims.expect(_MAP, 4)
    claims.expect(_UNSIGNED, 2)
    sender = claims.name(1, MAX_TEXT)
    claims.expect(_UNSIGNED, 4)
    ends = claims.time()
    claims.expect(_UNSIGNED, 5)
    begins = claims.time()
    claims.expect(_UNSIGNED, 8)
    claims.expect(_MAP, 1)
    claims.expect(_UNSIGNED, 1)
    delegate, public_key = _cose_key(claims)
    claims.finish()
    signature = reader.byte_string(32, 64)
    _check_signature_form(reader, algorithm, tag, signature)
    return Delegation(algorithm, key_id, sender, begins, ends, delegate, public_key, signature)


def _cose_key(reader: Reader) -> tuple[Algorithm, bytes]:
    """Read an Ed25519 key or one on P-256, and no other. Source: RFC 9053 7."""
    count = reader.take(_MAP)
    reader.expect(_UNSIGNED, 1)
    if count == 3 and reader.peek() == 1:  # noqa: PLR2004 - kty OKP, crv, x
        for number in (1, -1, 6, -2):
            _expect_integer(reader, number)
        return Algorithm.EDDSA, reader.byte_string(32, 32)
    if count != 4:  # noqa: PLR2004 - kty EC2, crv, x, y
        reader.malformed("a key that is neither Ed25519 nor on P-256")
    for number in (2, -1, 1, -2):
        _expect_integer(reader, number)
    x = reader.byte_string(COORDINATE, COORDINATE)
    _expect_integer(reader, -3)
    return Algorithm.ES256, x + reader.byte_string(COORDINATE, COORDINATE)


def _expect_integer(reader: Reader, number: int) -> None:
    if reader.integer() != number:
        reader.malformed("a key that is neither Ed25519 nor on P-256")


def _check_signature_form(reader: Reader, algorithm: Algorithm, tag: int, signature: bytes) -> None:
    if algorithm.tag != tag or algorithm.signature_size != len(signature):
        reader.malformed("tag, algorithm and length of the signature do not belong together")


def _outer(protected: bytes, signature: bytes) -> Outer | None:
    """Read the outer protected header of privacy, or None where it is one of integrity."""
    reader = Reader(protected, 0, len(protected), "signature's header")
    if reader.take(_MAP) != 3:  # noqa: PLR2004 - labels 1, 3 and 4
        return None
    algorithm = _algorithm(reader)
    reader.expect(_UNSIGNED, 3)
    reader.expect(_UNSIGNED, FORMAT_ENCRYPT)
    reader.expect(_UNSIGNED, 4)
    key_id = reader.byte_string(1, MAX_KEY_ID)
    reader.finish()
    return Outer(algorithm, key_id, protected, signature)


def _algorithm(reader: Reader) -> Algorithm:
    reader.expect(_UNSIGNED, 1)
    number = reader.integer()
    if number not in (Algorithm.HMAC_256, Algorithm.ES256, Algorithm.EDDSA):
        reader.malformed(f"signature algorithm {number} is not of this profile")
    return Algorithm(number)


def _encryption(reader: Reader) -> Algorithm:
    reader.expect(_UNSIGNED, 1)
    number = reader.integer()
    if number not in (Algorithm.A256GCM, Algorithm.KEY_SERVICE):
        reader.malformed(f"encryption algorithm {number} is not of this profile")
    return Algorithm(number)


def _header(protected: bytes, *, encrypting: bool) -> Header:  # noqa: C901 - one story, element by element
    reader = Reader(protected, 0, len(protected), "header")
    count = reader.take(_MAP)
    algorithm = _encryption(reader) if encrypting else _algorithm(reader)
    direct = algorithm is Algorithm.KEY_SERVICE
    content_type = None
    if reader.peek() == 3:  # noqa: PLR2004 - label 3, content type
        reader.expect(_UNSIGNED, 3)
        content_type = reader.text(1, MAX_TEXT)
    nonce = key_id = None
    if direct:
        pass
    elif encrypting:
        reader.expect(_UNSIGNED, 5)
        nonce = reader.byte_string(NONCE_SIZE, NONCE_SIZE)
    else:
        reader.expect(_UNSIGNED, 4)
        key_id = reader.byte_string(1, MAX_KEY_ID)
    if count != 4 - direct + (content_type is not None):
        reader.malformed(f"{count} header parameters")
    reader.expect(_UNSIGNED, 15)
    sender, destination, expires, seconds, message_id = _claims(reader)
    if reader.integer() != LABEL:
        reader.malformed("a header parameter that is not of this profile")
    size = reader.take(_ARRAY)
    if size not in (7, 8):
        reader.malformed(f"{size} elements where 7 or 8 are due")
    if (version := reader.take(_UNSIGNED)) != VERSION:
        reader.malformed(f"the envelope is of version {version}; this library knows version {VERSION}")
    protection = _protection(reader, encrypting=encrypting)
    millis = int.from_bytes(reader.byte_string(2, 2), "big")
    if millis > 999:  # noqa: PLR2004 - milliseconds of a second
        reader.malformed("more than 999 milliseconds")
    policy = reader.name(1, MAX_POLICY)
    policy_version = reader.take(_UNSIGNED)
    if policy_version >= 1 << 32:
        reader.malformed("the policy version is over 32 bits")
    bound = _bound(reader)
    framed, in_reply_to = _read_more(reader, encrypting=encrypting) if size > 7 else (False, None)  # noqa: PLR2004 - as above
    commitment = None
    if encrypting and not direct:
        commitment = reader.byte_string(32, 32)
    elif reader.byte() != _NULL:
        reader.malformed("without a data key there is no key commitment")
    reader.finish()
    return Header(
        algorithm=algorithm,
        sender=sender,
        destination=destination,
        seconds=seconds,
        millis=millis,
        message_id=message_id,
        protection=protection,
        policy=policy,
        policy_version=policy_version,
        bound=bound,
        content_type=content_type,
        expires=expires,
        nonce=nonce,
        commitment=commitment,
        key_id=key_id,
        framed=framed,
        in_reply_to=in_reply_to,
    )


def _read_more(reader: Reader, *, encrypting: bool) -> tuple[bool, bytes | None]:
    """Read the map of what few headers have. Source: SPEC.md 4.1."""
    count = reader.take(_MAP)
    framed, in_reply_to = False, None
    if reader.peek() == MORE_FRAMED and encrypting:
        reader.expect(_UNSIGNED, MORE_FRAMED)
        reader.expect(_UNSIGNED, FRAMING)
        framed = True
    if reader.peek() == MORE_IN_REPLY_TO and count > framed:
        reader.expect(_UNSIGNED, MORE_IN_REPLY_TO)
        in_reply_to = reader.byte_string(REFERENCE_SIZE, REFERENCE_SIZE)
    if not count or count != framed + (in_reply_to is not None):
        reader.malformed(f"a map of {count} more, not all of this profile")
    return framed, in_reply_to


def _claims(reader: Reader) -> tuple[str, str, int | None, int, bytes]:
    count = reader.take(_MAP)
    reader.expect(_UNSIGNED, 1)
    sender = reader.name(1, MAX_TEXT)
    reader.expect(_UNSIGNED, 3)
    destination = reader.name(3, MAX_DESTINATION)
    expires = None
    if reader.peek() == 4:  # noqa: PLR2004 - claim 4, exp
        reader.expect(_UNSIGNED, 4)
        expires = reader.time()
    if count != 4 + (expires is not None):
        reader.malformed(f"{count} claims")
    reader.expect(_UNSIGNED, 6)
    seconds = reader.time()
    reader.expect(_UNSIGNED, 7)
    message_id = reader.byte_string(MESSAGE_ID_SIZE, MESSAGE_ID_SIZE)
    return sender, destination, expires, seconds, message_id


def _protection(reader: Reader, *, encrypting: bool) -> Protection:
    number = reader.take(_UNSIGNED)
    allowed: Iterable[int] = (1, 2) if encrypting else (3,)
    if number not in allowed:
        reader.malformed(f"protection {number} does not stand in this form")
    return Protection(number)


def _bound(reader: Reader) -> tuple[str, ...]:
    count = reader.take(_ARRAY)
    if count > MAX_BOUND:
        reader.malformed(f"{count} bound headers; at most {MAX_BOUND} may be")
    names = tuple(reader.text(1, MAX_TEXT) for _ in range(count))
    encoded = [name.encode() for name in names]
    if any(a >= b for a, b in pairwise(encoded)):
        reader.malformed("bound headers are out of order or repeated")
    return names


class Reader:
    """Reads deterministic CBOR from ``data[position:end]``, which is *what*, and refuses any other."""

    __slots__ = ("data", "end", "position", "what")

    def __init__(self, data: bytes, position: int, end: int, what: str) -> None:
        self.data = data
        self.position = position
        self.end = end
        self.what = what

    def malformed(self, why: str) -> NoReturn:
        """Refuse, saying up to where the bytes were read: the fault ends there."""
        raise Refused(
            Verdict.MALFORMED, f"{why} (at byte {self.position:,} of {self.end:,} of the {self.what})"
        )

    def peek(self) -> int:
        """Return the next byte without taking it; -1 at the end."""
        return self.data[self.position] if self.position < self.end else -1

    def byte(self) -> int:
        """Take one byte."""
        if self.position >= self.end:
            self.malformed(f"the {self.what} ends early")
        value = self.data[self.position]
        self.position += 1
        return value

    def take(self, major: int) -> int:
        """Take a head of *major* type and return its argument."""
        first = self.byte()
        if first >> 5 != major:
            self.malformed(f"major type {first >> 5} where {major} is due")
        return self._argument(first)

    def _argument(self, first: int) -> int:
        low = first & 0x1F
        if low < 24:  # noqa: PLR2004 - RFC 8949 3, likewise below
            return low
        if low > 27:  # noqa: PLR2004
            self.malformed("an indefinite length")
        size = 1 << low - 24
        stop = self.position + size
        if stop > self.end:
            self.malformed(f"the {self.what} ends early")
        value = int.from_bytes(self.data[self.position : stop], "big")
        self.position = stop
        if value < (24 if size == 1 else 1 << 4 * size):
            self.malformed("a number that is not in its shortest form")
        return value

    def expect(self, major: int, argument: int) -> None:
        """Take a head that must be *major* and *argument*."""
        if (found := self.take(major)) != argument:
            self.malformed(f"{found} where {argument} is due (major type {major})")

    def integer(self) -> int:
        """Take an integer between -2**32 and 2**32 - 1."""
        first = self.byte()
        major = first >> 5
        if major not in (_UNSIGNED, _NEGATIVE):
            self.malformed(f"major type {major} where an integer is due")
        value = self._argument(first)
        if value >= 1 << 32:
            self.malformed("an integer over 32 bits")
        return -1 - value if major == _NEGATIVE else value

    def time(self) -> int:
        """Take a time in whole seconds; its shortest form must have four bytes."""
        seconds = self.take(_UNSIGNED)
        if not TIME_MIN <= seconds <= TIME_MAX:
            self.malformed("a time before 1970-01-02 or after 2106-02-07")
        return seconds

    def byte_string(self, least: int, most: int) -> bytes:
        """Take a byte string of *least* to *most* bytes."""
        return self._bytes(_BYTES, least, most)

    def text(self, least: int, most: int) -> str:
        """Take a text of *least* to *most* bytes."""
        try:
            return self._bytes(_TEXT, least, most).decode()
        except UnicodeDecodeError:
            self.malformed("text that is not UTF-8")

    def name(self, least: int, most: int) -> str:
        """Take a text that is a name: NFC and without control characters."""
        name = self.text(least, most)
        if not is_plain(name):
            self.malformed("a name that is not in normalisation form C or has control characters")
        return name

    def _bytes(self, major: int, least: int, most: int) -> bytes:
        size = self.take(major)
        if not least <= size <= most:
            self.malformed(f"{size} bytes where {least} to {most} may be")
        stop = self.position + size
        if stop > self.end:
            self.malformed(f"the {self.what} ends early")
        value = self.data[self.position : stop]
        self.position = stop
        return value

    def value(self) -> HeaderValue:
        """Take a header's value: text, byte string, integer of 64 bits, boolean or null. Source: SPEC.md 5.2."""
        first = self.peek()
        major = first >> 5
        if major == _TEXT:
            return self.text(0, self.end)
        if major == _BYTES:
            return self.byte_string(0, self.end)
        if first in _SIMPLE:
            self.position += 1
            return _SIMPLE[first]
        if major not in (_UNSIGNED, _NEGATIVE):
            self.malformed("a value that no header has")
        number = self._argument(self.byte())
        if major == _NEGATIVE and number >= 1 << 63:
            self.malformed("an integer over 64 bits")
        return -1 - number if major == _NEGATIVE else number

    def finish(self) -> None:
        """See that nothing follows."""
        if self.position != self.end:
            self.malformed(f"{self.end - self.position} bytes after the end of the {self.what}")
