"""Signatures and MACs over a whole envelope: the keys, who may use them, and the ring that a policy names.

An algorithm is a property of the key, never of the message: a verifier finds the key by its id and refuses a message that says otherwise.

A MAC is not a signature. `HmacKey` proves *group* origin: some holder of the secret sealed it, and every consumer that can verify can also
seal. `Ed25519Key` and `Es256Key` prove *sender* origin: only the holder of the private key can.

Source: SPEC.md 7.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal, Protocol, TypeAlias, get_args, runtime_checkable
from weakref import WeakSet

from postseal.core import crypto
from postseal.core.context import check_name, head, text
from postseal.core.counting import Tallies
from postseal.core.errors import ConfigError, Refused, Verdict, nearest
from postseal.core.forking import ForkSafeLock
from postseal.core.wire import MAX_KEY_ID, NO_CREDENTIAL, Algorithm, Credential

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519
    from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

__all__ = [
    "AnyKey",
    "Ask",
    "Ed25519Key",
    "Es256Key",
    "HmacKey",
    "KeyRing",
    "NotVouched",
    "Origin",
    "Renewed",
    "RingKey",
    "Sign",
    "SigningKey",
    "State",
    "Verify",
    "Voucher",
    "Watcher",
    "deduplication_key",
    "vouched_key",
]

Sign: TypeAlias = Callable[[bytes], bytes]
"""Signs the prefix it was made with and then its argument; returns the signature."""

Verify: TypeAlias = Callable[[bytes, bytes], None]
"""Checks the signature, its second argument, over the prefix it was made with and then its first; raises `InvalidSignature`."""

State: TypeAlias = Literal["pending", "active", "retired", "revoked"]
"""pending verifies and does not sign yet; active does both; retired verifies, if given a date until then; revoked does neither."""

_MIN_SECRET: Final = 32
_HMAC_INFO: Final = b"postseal v1 HMAC"
_DEDUPLICATION_INFO: Final = b"postseal v1 deduplication"
_COORDINATE: Final = 32
_MAX_VOUCHED: Final = 1024
"""Keys that are vouched for, kept by one ring."""


class Ask(Exception):
    """Whether a key may verify takes a call. Make it, once for each *what*, and try again. Never leaves the core.

    Attributes:
        what: Names the question.
        call: Asks it, and keeps the answer where it was missing. Raises `KeyUnavailable`, `KeyRefused` or `Refused`.
    """

    def __init__(self, what: object, call: Callable[[], None]) -> None:
        super().__init__(what)
        self.what = what
        self.call = call


class NotVouched(Refused):
    """One voucher does not vouch for a key; another one of the ring may."""


class Origin(StrEnum):
    """What an opened message proves about who sealed it."""

    SENDER = "sender"
    """A signature: the named sender and nobody else."""
    GROUP = "group"
    """A MAC: some holder of the secret, consumers included."""
    NONE = "none"
    """Encryption alone: whoever may make a data key for this destination."""


class SigningKey(Protocol):
    """One key of a ring, with or without its private part."""

    @property
    def id(self) -> str:
        """Names it in the policy: 1 to 64 bytes of UTF-8."""
        ...

    @property
    def kid(self) -> bytes:
        """Names it in envelopes: 1 to 64 bytes."""
        ...

    @property
    def credential(self) -> bytes:
        """What envelopes carry of it: their unprotected header."""
        ...

    @property
    def signed_between(self) -> tuple[int, int] | None:
        """When a message must have been sealed that it verifies: first and last second since the epoch; None for any time."""
        ...

    @property
    def algorithm(self) -> Algorithm:
        """The one algorithm it is for."""
        ...

    @property
    def origin(self) -> Origin:
        """What it proves."""
        ...

    @property
    def state(self) -> State:
        """Whether it signs and verifies."""
        ...

    @property
    def retired_until(self) -> datetime | None:
        """When a retired key ends to verify."""
        ...

    @property
    def senders(self) -> frozenset[str] | None:
        """Who may use it; None for all senders of the policy."""
        ...

    @property
    def can_sign(self) -> bool:
        """Whether it has a private part."""
        ...

    @property
    def public_key_fingerprints(self) -> frozenset[bytes]:
        """Of its public part, where it has one: `crypto.fingerprint`."""
        ...

    def signer(self, sender: str, destination: str, prefix: bytes = b"") -> Sign:
        """Make the function that signs for *sender* to *destination* what begins with *prefix*."""
        ...

    def verifier(self, sender: str, destination: str, prefix: bytes = b"") -> Verify:
        """Make the function that verifies what *sender* signed for *destination* and begins with *prefix*."""
        ...


@runtime_checkable
class Voucher(Protocol):
    """Something of a ring that verifies through keys which it vouches for, by what an envelope carries of them."""

    @property
    def id(self) -> str:
        """Names it in the policy."""
        ...

    @property
    def origin(self) -> Origin:
        """What its keys prove."""
        ...

    @property
    def state(self) -> State:
        """Whether its keys sign and verify."""
        ...

    @property
    def retired_until(self) -> datetime | None:
        """When it ends to vouch."""
        ...

    @property
    def senders(self) -> frozenset[str] | None:
        """For whom it may vouch."""
        ...

    @property
    def can_sign(self) -> bool:
        """Whether it makes keys that sign here."""
        ...

    @property
    def public_key_fingerprints(self) -> frozenset[bytes]:
        """Of the public keys that it knows beforehand."""
        ...

    def vouch(self, unverified_key_id: bytes, unverified_credential: Credential | None) -> SigningKey | None:
        """Return the key of that id, good until its `retired_until`, or None where it is none of ours.

        Where there is a credential, the id is its hash: the ring has seen to that.

        Raises:
            NotVouched: It is not, by what it says of itself: others are asked.
            Refused: *forged*, *unknown-key* or *unknown-sender*: no other is.
            Ask: Nobody can tell without a call.
            KeyUnavailable: It cannot be told now.
        """
        ...


@runtime_checkable
class Renewed(Protocol):
    """Something of a ring that signs with one key after another."""

    @property
    def sender(self) -> str | None:
        """As whom it signs."""
        ...

    def current(self) -> SigningKey | None:
        """Return the key that signs now; None where there is none yet."""
        ...

    def due(self) -> bool:
        """Tell whether `renew` must be waited for before the next message is signed."""
        ...

    def renew(self) -> None:
        """Make the next key, if it is time. Raises `KeyUnavailable` or `KeyRefused`."""
        ...

    def watch(self, watcher: Watcher) -> None:
        """Have *watcher* told of each new key, for as long as it lives."""


AnyKey: TypeAlias = "SigningKey | Voucher"
"""What a ring is made of."""


class RingKey:
    """What all keys of a ring have in common."""

    algorithm: Algorithm
    origin: Origin
    credential: bytes = NO_CREDENTIAL
    signed_between: tuple[int, int] | None = None

    def __init__(
        self,
        key_id: str,
        senders: Iterable[str] | None,
        state: State,
        retired_until: datetime | None,
    ) -> None:
        self.id = check_name(key_id, "a signing key's id", most=MAX_KEY_ID)
        self.kid = self.id.encode()
        if isinstance(senders, str):
            raise ConfigError(f"senders of key {key_id!r} must be a list of names, not one text")
        self.senders = (
            None
            if senders is None
            else frozenset(check_name(name, f"a sender of key {key_id!r}") for name in senders)
        )
        if self.senders is not None and not self.senders:
            raise ConfigError(f"key {key_id!r} has an empty list of senders, so nobody may use it")
        if state not in get_args(State):
            raise ConfigError(f"state of key {key_id!r} is {state!r}{nearest(str(state), get_args(State))}")
        if retired_until is not None and (state != "retired" or retired_until.tzinfo is None):
            raise ConfigError(
                f"retired_until of key {key_id!r} needs state='retired' and a date with its time zone"
            )
        self.state: State = state
        self.retired_until = retired_until

    def must_name_senders(self) -> frozenset[str]:
        """Return the senders of a key that is not everybody's."""
        if self.senders is None:
            raise ConfigError(f"key {self.id!r} must name its senders: whose signature is it?")
        return self.senders

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id!r} {self.state}>"

    def __reduce__(self) -> str:
        raise TypeError("a key is not for pickling")


class HmacKey(RingKey):
    """HMAC-SHA-256 with a key derived for each sender and destination from a shared *secret*.

    Args:
        key_id: Names it in envelopes.
        secret: At least 32 random bytes, which only senders and consumers hold.
        senders: Who may use it; None for all senders of the policy.
        state: Whether it signs and verifies.
        retired_until: When a retired key ends to verify.

    Raises:
        ConfigError: The secret is short, or an option makes no sense.
    """

    algorithm = Algorithm.HMAC_256
    origin = Origin.GROUP
    can_sign = True
    public_key_fingerprints: frozenset[bytes] = frozenset()

    def __init__(
        self,
        key_id: str,
        secret: bytes,
        *,
        senders: Iterable[str] | None = None,
        state: State = "active",
        retired_until: datetime | None = None,
    ) -> None:
        super().__init__(key_id, senders, state, retired_until)
        self._secret = _secret(secret, f"the secret of key {key_id!r}")

    def begun(self, sender: str, destination: str, prefix: bytes = b"") -> crypto.HmacContext:
        """Derive the key of *sender* and *destination*; return an HMAC to be copied, which has absorbed *prefix*.

        What `signer` and `verifier` are made of, for who cannot afford their call.
        """
        info = _HMAC_INFO + head(4, 2) + text(sender) + text(destination)
        context = crypto.hmac_context(crypto.derive(self._secret, info))
        context.update(prefix)
        return context

    def signer(self, sender: str, destination: str, prefix: bytes = b"") -> Sign:
        """Derive the key of *sender* and *destination*; absorb *prefix* once."""
        begun = self.begun(sender, destination, prefix)

        def sign(message: bytes) -> bytes:
            context = begun.copy()
            context.update(message)
            return context.finalize()

        return sign

    def verifier(self, sender: str, destination: str, prefix: bytes = b"") -> Verify:
        """Derive the key of *sender* and *destination*; absorb *prefix* once."""
        begun = self.begun(sender, destination, prefix)

        def verify(message: bytes, signature: bytes) -> None:
            context = begun.copy()
            context.update(message)
            context.verify(signature)

        return verify


class _AsymmetricKey(RingKey):
    """A key pair, or its public half. It belongs to the senders that it names, and it must name some."""

    origin = Origin.SENDER

    def __init__(
        self,
        key_id: str,
        senders: Iterable[str],
        state: State,
        retired_until: datetime | None,
        *,
        given: tuple[object, object],
    ) -> None:
        super().__init__(key_id, senders, state, retired_until)
        self.must_name_senders()
        if sum(part is not None for part in given) != 1:
            raise ConfigError(f"key {key_id!r} takes either a private key or a public key")


class Ed25519Key(_AsymmetricKey):
    """Ed25519, as a pair (*private_key*) or for verifying only (*public_key*).

    Args:
        key_id: Names it in envelopes.
        private_key: Signs and verifies.
        public_key: Verifies.
        senders: Whose key it is.
        state: Whether it signs and verifies.
        retired_until: When a retired key ends to verify.
    """

    algorithm = Algorithm.EDDSA

    def __init__(
        self,
        key_id: str,
        *,
        senders: Iterable[str],
        private_key: ed25519.Ed25519PrivateKey | None = None,
        public_key: ed25519.Ed25519PublicKey | None = None,
        state: State = "active",
        retired_until: datetime | None = None,
    ) -> None:
        super().__init__(key_id, senders, state, retired_until, given=(private_key, public_key))
        self._private = private_key
        public = private_key.public_key() if private_key is not None else public_key
        from cryptography.hazmat.primitives.asymmetric import ed25519  # noqa: PLC0415 - loaded by who uses it

        if not isinstance(public, ed25519.Ed25519PublicKey):
            raise ConfigError(f"key {key_id!r} is no Ed25519 key: {type(public).__name__}")
        self._public = public
        self.public_key_fingerprints = frozenset({crypto.fingerprint(public)})
        self.public_bytes = crypto.raw_public_key(public)

    @property
    def can_sign(self) -> bool:
        """Whether it has a private part."""
        return self._private is not None

    def signer(self, sender: str, destination: str, prefix: bytes = b"") -> Sign:  # noqa: ARG002 - one key for all
        """Return the function that signs."""
        if self._private is None:
            raise ConfigError(f"key {self.id!r} has no private part: it cannot sign")
        sign = self._private.sign
        return lambda message: sign(prefix + message)

    def verifier(self, sender: str, destination: str, prefix: bytes = b"") -> Verify:  # noqa: ARG002 - one key for all
        """Return the function that verifies."""
        verify = self._public.verify
        return lambda message, signature: verify(signature, prefix + message)


class Es256Key(_AsymmetricKey):
    """ECDSA on P-256 with SHA-256, as a pair (*private_key*) or for verifying only (*public_key*).

    Args:
        key_id: Names it in envelopes.
        private_key: Signs and verifies.
        public_key: Verifies.
        senders: Whose key it is.
        state: Whether it signs and verifies.
        retired_until: When a retired key ends to verify.
    """

    algorithm = Algorithm.ES256

    def __init__(
        self,
        key_id: str,
        *,
        senders: Iterable[str],
        private_key: ec.EllipticCurvePrivateKey | None = None,
        public_key: ec.EllipticCurvePublicKey | None = None,
        state: State = "active",
        retired_until: datetime | None = None,
    ) -> None:
        super().__init__(key_id, senders, state, retired_until, given=(private_key, public_key))
        self._private = private_key
        public = private_key.public_key() if private_key is not None else public_key
        from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415 - loaded by who uses it

        if not isinstance(public, ec.EllipticCurvePublicKey) or not isinstance(public.curve, ec.SECP256R1):
            raise ConfigError(f"key {key_id!r} is no P-256 key")
        self._public = public
        self.public_key_fingerprints = frozenset({crypto.fingerprint(public)})
        self.public_bytes = crypto.raw_public_key(public)

    @property
    def can_sign(self) -> bool:
        """Whether it has a private part."""
        return self._private is not None

    def signer(self, sender: str, destination: str, prefix: bytes = b"") -> Sign:  # noqa: ARG002 - one key for all
        """Return the function that signs."""
        if self._private is None:
            raise ConfigError(f"key {self.id!r} has no private part: it cannot sign")
        from cryptography.hazmat.primitives.asymmetric import utils  # noqa: PLC0415 - loaded by who uses it

        private, scheme = self._private, crypto.ecdsa_sha256()

        def sign(message: bytes) -> bytes:
            r, s = utils.decode_dss_signature(private.sign(prefix + message, scheme))
            return r.to_bytes(_COORDINATE, "big") + s.to_bytes(_COORDINATE, "big")

        return sign

    def verifier(self, sender: str, destination: str, prefix: bytes = b"") -> Verify:  # noqa: ARG002 - one key for all
        """Return the function that verifies."""
        from cryptography.hazmat.primitives.asymmetric import utils  # noqa: PLC0415 - loaded by who uses it

        public, scheme = self._public, crypto.ecdsa_sha256()

        def verify(message: bytes, signature: bytes) -> None:
            r = int.from_bytes(signature[:_COORDINATE], "big")
            s = int.from_bytes(signature[_COORDINATE:], "big")
            public.verify(utils.encode_dss_signature(r, s), prefix + message, scheme)

        return verify


class Watcher(Protocol):
    """Something that keeps what it made of a ring's keys."""

    def ring_changed(self) -> None:
        """Forget it: the ring has other keys now."""


class KeyRing:
    """The keys of one signer name: at most one of them signs here, all that are not revoked verify.

    A ring that is in use changes by `replace`. To rotate a key without a message refused: give all consumers the new one as *pending*; then
    make it *active* in the producers, and the old one *retired*; and when no message of the old one is left anywhere, take that away.

    Args:
        keys: The first that is active and has a private part signs. None at all makes a ring that only verifies.

    Raises:
        ConfigError: No keys, or two of one id.
    """

    __slots__ = (
        "__weakref__",
        "_all",
        "_clock",
        "_keys",
        "_lock",
        "_opening",
        "_vouched",
        "_vouchers",
        "_watchers",
        "active",
    )

    def __init__(self, keys: Iterable[AnyKey], *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lock = ForkSafeLock()
        self._watchers: WeakSet[Watcher] = WeakSet()
        self._opening: frozenset[bytes] = frozenset()
        self._all: tuple[AnyKey, ...] = ()
        self._keys: Mapping[bytes, SigningKey] = MappingProxyType({})
        self._vouchers: tuple[Voucher, ...] = ()
        self._vouched: dict[bytes, SigningKey] = {}
        self.active: AnyKey | None = None
        self.replace(keys)

    def replace(self, keys: Iterable[AnyKey]) -> None:
        """Have *keys* from now on, and no others, in every sealer that has this ring. Messages that are under way go on with either.

        Raises:
            ConfigError: As for the class; or one of them is also a key to open with. Then nothing has changed.
        """
        found: dict[str, AnyKey] = {}
        for key in keys:
            if found.setdefault(key.id, key) is not key:
                raise ConfigError(f"two keys of one ring have the id {key.id!r}")
            if getattr(key, "remote", False):
                raise ConfigError(
                    f"key {key.id!r} would take a call for each message: give the ring a DelegatedKey of it"
                )
        if not found:
            raise ConfigError("a key ring needs a key")
        vouchers = tuple(key for key in found.values() if isinstance(key, Voucher))
        keys_by_kid = {key.kid: key for key in found.values() if not isinstance(key, Voucher)}
        with self._lock:
            _check_apart(found.values(), self._opening)
            # What signs from now on must verify already.
            self._all = tuple(found.values())
            self._keys, self._vouchers, self._vouched = MappingProxyType(keys_by_kid), vouchers, {}
            self.active = next((k for k in found.values() if k.state == "active" and k.can_sign), None)
            watchers = tuple(self._watchers)
        for watcher in watchers:
            watcher.ring_changed()

    def watch(self, watcher: Watcher) -> None:
        """Have *watcher* told of each change, for as long as it lives."""
        with self._lock:
            self._watchers.add(watcher)

    def keep_apart(self, opening: Iterable[bytes]) -> None:
        """Refuse, now and later, keys that are also keys to open with.

        Args:
            opening: Fingerprints of public keys that are wrapped for.

        Raises:
            ConfigError: One of them is in the ring.
        """
        with self._lock:
            opening = self._opening.union(opening)
            _check_apart(self._all, opening)
            self._opening = opening

    def holds(self, key: SigningKey) -> bool:
        """Tell whether that very key is in the ring still."""
        return (self._keys.get(key.kid) or self._vouched.get(key.kid)) is key

    def __iter__(self) -> Iterator[AnyKey]:
        return iter(self._all)

    def __repr__(self) -> str:
        return f"<KeyRing {', '.join(key.id for key in self._all)}>"

    @property
    def calls(self) -> dict[tuple[str, str], int]:
        """How often a key service was asked, by the id of the key and the operation."""
        counted = ((key.id, getattr(key, "calls", None)) for key in self._all)
        return {
            (key_id, operation): count
            for key_id, calls in counted
            if isinstance(calls, Tallies)
            for operation, count in calls.values_now.items()
        }

    @property
    def signature_size(self) -> int:
        """Bytes of the signatures that are made here; where none are, of those of the first key."""
        key = self.active or self._all[0]
        return 64 if isinstance(key, Voucher) else key.algorithm.signature_size

    @property
    def has_private(self) -> bool:
        """Whether one of its keys has a private part. The secret of an HMAC is none: it is what verifies."""
        return any(key.can_sign and key.origin is not Origin.GROUP for key in self)

    def signing_key(self, sender: str) -> AnyKey:
        """Return the key that signs for *sender*: itself, or what makes one after another (`Renewed`).

        Raises:
            ConfigError: There is none here, or it is another sender's.
        """
        key = self.active
        if key is None:
            raise ConfigError("the key ring has no active key with a private part: it only verifies")
        if key.senders is not None and sender not in key.senders:
            raise ConfigError(f"key {key.id!r} is not for sender {sender!r}{nearest(sender, key.senders)}")
        _check_apart((key,), self._opening)  # again: a public key of a service is known once it was fetched
        return key

    def find(
        self,
        unverified_key_id: bytes,
        unverified_sender: str,
        unverified_credential: Credential | None = None,
    ) -> SigningKey:
        """Return the key that may now verify a message which says that *unverified_sender* signed it.

        Raises:
            Refused: *unknown-key*, *unknown-sender*, or what a voucher says.
            Ask: A voucher cannot tell without a call.
            KeyUnavailable: A voucher cannot tell now.
        """
        key = self._keys.get(unverified_key_id)
        if key is not None and not self.may_verify(key):
            key = None
        elif key is None and self._vouchers:
            # Not asked again whether it may verify: a moment later it may have to be looked at again, and is none the less genuine.
            key = self._vouched_for(unverified_key_id, unverified_credential)
        if key is None:
            raise Refused(Verdict.UNKNOWN_KEY, "the signing key is not in the ring, or no longer verifies")
        if key.senders is not None and unverified_sender not in key.senders:
            raise Refused(
                Verdict.UNKNOWN_SENDER, f"key {key.id!r} is not of the sender that the message names"
            )
        return key

    def _vouched_for(self, key_id: bytes, credential: Credential | None) -> SigningKey | None:
        """Return the key that one of the vouchers vouches for, and keep it for as long as it does."""
        if credential is not None and _names(credential) != key_id:
            return None  # also where the key is known: what a message carries must not depend on who has seen what
        known = self._vouched
        key = known.get(key_id)
        if key is not None and self.may_verify(key):
            return key
        why_not: NotVouched | None = None
        for voucher in self._vouchers:
            try:
                key = voucher.vouch(key_id, credential) if self.may_verify(voucher) else None
            except NotVouched as refused:
                # Whose root it leads to says more than whose it does not.
                why_not = refused if why_not is None or refused.verdict is Verdict.UNKNOWN_SENDER else why_not
                continue
            if key is not None:
                _check_apart((voucher,), self._opening)  # it may have learnt its public key only now
                if not self._opening.isdisjoint(key.public_key_fingerprints):
                    raise Refused(Verdict.UNKNOWN_KEY, "the signing key is also a key to open with")
                with self._lock:
                    while len(known) >= _MAX_VOUCHED:
                        del known[next(iter(known))]
                    known[key_id] = key  # where the ring changed meanwhile, nobody looks there
                return key
        if why_not is not None:
            raise why_not
        return None

    def may_verify(self, key: AnyKey) -> bool:
        """Tell whether *key* verifies now."""
        if key.state == "revoked":
            return False
        return key.retired_until is None or self._clock() < key.retired_until.timestamp()


def vouched_key(
    public_key: PublicKeyTypes,
    *,
    voucher: Voucher,
    kid: bytes,
    senders: Iterable[str],
    until: float,
    signed_between: tuple[int, int] | None = None,
) -> Ed25519Key | Es256Key:
    """Make the key that verifies in the name of *voucher*.

    Args:
        public_key: Ed25519, or on P-256.
        voucher: Who vouches for it.
        kid: Names it in envelopes.
        senders: Who may use it.
        until: Seconds since the epoch, to which it is vouched for.
        signed_between: When a message must have been sealed that it verifies.

    Raises:
        ConfigError: It is a key of another kind.
    """
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519  # noqa: PLC0415 - loaded by who uses it

    ends = datetime.fromtimestamp(until, UTC)
    if voucher.retired_until is not None:
        ends = min(ends, voucher.retired_until)
    key: Ed25519Key | Es256Key
    if isinstance(public_key, ed25519.Ed25519PublicKey):
        key = Ed25519Key(
            voucher.id, public_key=public_key, senders=senders, state="retired", retired_until=ends
        )
    elif isinstance(public_key, ec.EllipticCurvePublicKey):
        key = Es256Key(
            voucher.id, public_key=public_key, senders=senders, state="retired", retired_until=ends
        )
    else:
        raise ConfigError(f"a key to sign with is Ed25519 or on P-256, not {type(public_key).__name__}")
    key.kid = kid
    key.origin = voucher.origin
    key.signed_between = signed_between
    return key


def _names(credential: Credential) -> bytes:
    """Return the key id of *credential*. Source: SPEC.md 7.1."""
    return crypto.sha256(credential.certificates[0] if credential.certificates else credential.value)


def _check_apart(keys: Iterable[AnyKey], opening: frozenset[bytes]) -> None:
    for key in keys:
        if not opening.isdisjoint(key.public_key_fingerprints):
            raise ConfigError(
                f"key {key.id!r} signs, and is also a key to open with: an identity is two key pairs, one for each"
            )


def deduplication_key(secret: bytes, destination: str) -> crypto.HmacContext:
    """Make the keyed hash of clear bodies for *destination*. Source: SPEC.md 12."""
    info = _DEDUPLICATION_INFO + head(4, 1) + text(destination)
    return crypto.hmac_context(crypto.derive(_secret(secret, "the deduplication secret"), info))


def _secret(secret: bytes, what: str) -> bytes:
    if not isinstance(secret, bytes):
        raise ConfigError(f"{what} must be bytes, not {type(secret).__name__}")
    if len(secret) < _MIN_SECRET:
        raise ConfigError(f"{what} has {len(secret)} bytes; at least {_MIN_SECRET} random bytes are needed")
    return secret
