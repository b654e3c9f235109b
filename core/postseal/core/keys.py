"""Where data keys come from: the `KeyProvider` protocol, and what passes through it.

Source: SPEC.md 6.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from postseal.core.errors import KeyBroken, KeyRefused, KeyUnavailable, NotMine
from postseal.core.wire import Recipient

__all__ = [
    "DirectKeys",
    "KeyBroken",
    "KeyContext",
    "KeyProvider",
    "KeyRefused",
    "KeyUnavailable",
    "NewDataKey",
    "NotMine",
    "PublicKeys",
    "Recipient",
    "ReferenceStore",
    "direct_keys",
    "forget_with",
]


class KeyContext(NamedTuple):
    """What a wrapped key is bound to: the same for all messages of a policy to a destination."""

    policy: str
    destination: str

    def as_dict(self) -> dict[str, str]:
        """Return the encryption context of key services that take one. Source: SPEC.md 6.2."""
        return {"postseal:policy": self.policy, "postseal:destination": self.destination}


class NewDataKey(NamedTuple):
    """A data key just made: its 32 bytes, and the same wrapped for each recipient. The bytes do not show in `repr`."""

    data_key: bytes
    recipients: tuple[Recipient, ...]

    def __repr__(self) -> str:
        return f"<NewDataKey for {len(self.recipients)} recipients>"

    def __reduce__(self) -> str:
        raise TypeError("a key is not for pickling")


@runtime_checkable
class PublicKeys(Protocol):
    """What wraps for, or signs with, key pairs whose public halves are known here. Providers and signing keys that have none leave it out.

    An identity is two key pairs, one to open and one to sign: a sealer is not made where one key is on both sides.
    """

    @property
    def public_key_fingerprints(self) -> frozenset[bytes]:
        """SHA-256 of each public key as DER SubjectPublicKeyInfo: `crypto.fingerprint`."""
        ...


class DirectKeys(Protocol):
    """What also encrypts bodies itself, one call for each: for policies that are `direct`. Providers that cannot leave all of it out.

    Every method raises `KeyUnavailable` and `KeyRefused`, as those of `KeyProvider` do.
    """

    @property
    def most_direct(self) -> int:
        """Bytes that it encrypts at most. Before it knows its key, what no key of its kind exceeds."""
        ...

    @property
    def anybody_encrypts(self) -> bool:
        """Whether it encrypts with a public key: then nothing it decrypts says who made it."""
        ...

    def encrypt(self, plaintext: bytes, context: KeyContext) -> Recipient:
        """Have *plaintext* encrypted under *context*, where the service takes one.

        Returns:
            Which key, and in the place of a wrapped key the ciphertext, 1 to 6144 bytes.

        Raises:
            TooLarge: It is over what this key takes; nobody was asked to encrypt it.
        """
        ...

    def decrypt(self, recipient: Recipient, context: KeyContext) -> bytes:
        """Undo `encrypt`.

        Raises:
            NotMine: It names no key of this provider; nobody was asked.
            KeyBroken: Changed bytes, or another context or key. Do not retry.
        """
        ...


def direct_keys(provider: object) -> DirectKeys | None:
    """Return *provider* as one that encrypts bodies itself, or None."""
    names = ("encrypt", "decrypt", "most_direct", "anybody_encrypts")
    return provider if all(hasattr(provider, name) for name in names) else None  # type: ignore[return-value]  # it has what it needs


@runtime_checkable
class KeyProvider(Protocol):
    """Makes data keys and unwraps them. Called by many threads at once; never for a message whose key is cached.

    Every method raises, besides what it names:
        KeyUnavailable: No answer, or a request to wait. Trying again may help.
        KeyRefused: The service said no: rights, or a key that is disabled or deleted. Do not retry.
    """

    def generate(self, context: KeyContext) -> NewDataKey:
        """Have a new data key made, wrapped under *context*."""
        ...

    def wrap(self, data_key: bytes, context: KeyContext) -> tuple[Recipient, ...]:
        """Wrap a *data_key* of 32 bytes that another provider made."""
        ...

    def unwrap(self, recipients: Sequence[Recipient], context: KeyContext) -> bytes:
        """Unwrap the data key from the one of *recipients* that is this provider's.

        Args:
            recipients: As the envelope carried them: 1 to 16, not authenticated. No two of one algorithm and key id.
            context: The context it was wrapped under.

        Returns:
            The 32-byte data key. The caller checks it against the commitment.

        Raises:
            NotMine: None of them is this provider's. Try the next provider. Where a service had to be asked to know, with its answer as
                the cause.
            KeyBroken: Changed bytes, or another context. Do not retry.
        """
        ...


@runtime_checkable
class ReferenceStore(Protocol):
    """Where records are published: bytes of at most 64 KiB under 16 bytes. Called by many threads at once.

    A record says nothing that envelopes do not say, and holds no secret. Whoever can write to the store cannot exchange a record, whose
    reference is its hash; he can take it away, and then its messages do not open.

    Every method raises:
        KeyUnavailable: No answer. Trying again may help.
        KeyRefused: The store said no.
    """

    def get(self, reference: bytes, /) -> bytes | None:
        """Return the record; None only if it is certain that none was there when this was called."""
        ...

    def put(self, reference: bytes, record: bytes, /) -> None:
        """Keep *record*, unless it is there. Return when whoever calls `get` from now on will find it."""
        ...


def forget_with(*providers: KeyProvider) -> None:
    """Have *providers* drop the wrapping keys that they keep in memory, and ask again. Who keeps some has a ``forget()``."""
    for provider in providers:
        forget = getattr(provider, "forget", None)
        if callable(forget):
            forget()
