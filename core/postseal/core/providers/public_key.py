"""Recipients known by a public key or an X.509 certificate: producers wrap for them without asking anybody, they alone unwrap.

Where private keys are held here, no key service is asked: nobody records who opened, and no right can be withdrawn from who holds a private
key. Stop wrapping for it instead. A producer needs no private key; a consumer needs no public one.

Source: SPEC.md 6.2 and 6.3.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from math import inf
from typing import Final, Protocol, runtime_checkable

from postseal.core import crypto
from postseal.core.crypto import DATA_KEY_SIZE, RandomBytes
from postseal.core.errors import ConfigError, KeyRefused, KeyUnavailable, NotMine
from postseal.core.findings import Examined, Finding, ends_of
from postseal.core.keys import KeyContext, NewDataKey, Recipient
from postseal.core.providers._attempts import first_that_opens
from postseal.core.providers._binding import canonical
from postseal.core.publickeys import RSA_OAEP_256, OpeningKey, RecipientKey
from postseal.core.wire import MAX_RECIPIENTS

__all__ = ["Opener", "OpeningKey", "PublicKeyRecipients", "RecipientKey", "RecipientSource"]

_NOBODY: Final = "no recipient is of a private key of this process"


@runtime_checkable
class RecipientSource(Protocol):
    """Says for whom to wrap at this moment: a directory of public keys, a group."""

    def recipients(self, context: KeyContext) -> Sequence[RecipientKey]:
        """Return the public keys for *context*. Never waits for a network.

        Raises:
            KeyUnavailable: It does not know now.
            KeyRefused: There is nobody.
        """
        ...


class Opener(Protocol):
    """A private key to open with: one that is held here (`OpeningKey`), or one in a key service (`AwsKmsRsaKey`, `AzureRsaKey`)."""

    @property
    def public(self) -> RecipientKey:
        """Its public half."""
        ...

    def unwrap(self, wrapped: bytes, context: bytes) -> bytes:
        """Unwrap a data key. Raises what a key provider does."""
        ...


class PublicKeyRecipients:
    """Key provider on public keys to wrap for and private keys to unwrap with.

    Args:
        recipients: For whom it wraps: public keys, 16 at most, or a `RecipientSource`. Each opens alone. Nobody where it only opens.
        open_with: Private keys that unwrap, held here or in a key service. None for a process that only seals.
        clock: Seconds since the epoch. A certificate wraps while it is valid; what was wrapped for it opens for ever.

    Raises:
        ConfigError: Neither of the two, or one key twice, or too many.
    """

    def __init__(
        self,
        recipients: Iterable[RecipientKey] | RecipientSource = (),
        *,
        open_with: Iterable[Opener] = (),
        random: RandomBytes = crypto.random_bytes,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if isinstance(recipients, RecipientSource):
            self._source: RecipientSource | None = recipients
            self._recipients: tuple[RecipientKey, ...] = ()
        else:
            self._source = None
            self._recipients = _distinct(recipients)
        opening = tuple(open_with)
        self._open_with = {key.public.key_id: key for key in opening if isinstance(key, OpeningKey)}
        self._in_service = tuple(key for key in opening if not isinstance(key, OpeningKey))
        if not self._recipients and self._source is None and not opening:
            raise ConfigError(
                "PublicKeyRecipients needs a public key to wrap for, or a private key to open with"
            )
        self._random, self._clock = random, clock

    def __repr__(self) -> str:
        told = self._source or ", ".join(f"{key.kind} {key.key_id.hex()}" for key in self._recipients)
        count = len(self._open_with) + len(self._in_service)
        opens = f", opens with {count}" if count else ""
        return f"<PublicKeyRecipients for {told or 'nobody'}{opens}>"

    def examine(self) -> Iterator[Finding]:
        """Say which certificates end, and ask about keys in services."""
        now = self._clock()
        for key in self._recipients:
            if key.not_after != inf:
                yield from ends_of(
                    key.not_after,
                    f"the certificate of {key.name}",
                    now,
                    "have it renewed, and name the new one",
                )
        asked: tuple[object, ...] = (self._source, *self._in_service)
        for each in asked:
            if isinstance(each, Examined):
                yield from each.examine()

    def __reduce__(self) -> str:
        raise TypeError("a key is not for pickling")

    @property
    def public_key_fingerprints(self) -> frozenset[bytes]:
        """SHA-256 of each public key, those of `open_with` too: a sealer does not sign or verify with the same (B1).

        Keys in a service are RSA keys, which sign no messages.
        """
        opening = (key.public for key in self._open_with.values())
        return frozenset(key.fingerprint for key in (*self._recipients, *opening))

    def generate(self, context: KeyContext) -> NewDataKey:
        """Make a data key from the operating system's randomness, and wrap it for every recipient."""
        data_key = self._random(DATA_KEY_SIZE)
        return NewDataKey(data_key, self.wrap(data_key, context))

    def wrap(self, data_key: bytes, context: KeyContext) -> tuple[Recipient, ...]:
        """Wrap *data_key* for every recipient.

        Raises:
            KeyRefused: There is nobody to wrap for, or a certificate is not valid now.
        """
        try:
            bound = canonical(context)
            return tuple(
                Recipient(key.algorithm, key.key_id, key.wrap(data_key, bound, random=self._random))
                for key in self._usable(context)
            )
        finally:
            del data_key  # a traceback shows the locals of its frames to whoever asks

    def unwrap(self, recipients: Sequence[Recipient], context: KeyContext) -> bytes:
        """Unwrap with whichever private key one of *recipients* names."""
        bound = canonical(context)
        return first_that_opens(
            (
                partial(self._unwrap, recipient, bound)
                for recipient in recipients
                if recipient.key_id in self._open_with
                or (self._in_service and recipient.algorithm == RSA_OAEP_256)
            ),
            _NOBODY,
        )

    def _unwrap(self, recipient: Recipient, bound: bytes) -> bytes:
        key = self._open_with.get(recipient.key_id) or self._named(recipient)
        if key is None or recipient.algorithm != key.public.algorithm:
            raise NotMine(_NOBODY)
        return key.unwrap(recipient.wrapped_key, bound)

    def _named(self, recipient: Recipient) -> Opener | None:
        """Return the key of a service that *recipient* names; its public half is asked for the first time."""
        try:
            return next((key for key in self._in_service if key.public.key_id == recipient.key_id), None)
        except KeyRefused as error:
            # That says nothing about the message: without the public half nobody can tell whose it is.
            raise KeyUnavailable(str(error)) from error

    def _usable(self, context: KeyContext) -> Sequence[RecipientKey]:
        keys = self._recipients if self._source is None else _distinct(self._source.recipients(context))
        if not keys:
            raise KeyRefused("there is no public key here to wrap for: this process only opens")
        now = self._clock()
        for key in keys:
            if not key.not_before <= now <= key.not_after:
                when = "has expired" if now > key.not_after else "is not valid yet"
                raise KeyRefused(f"the certificate of {key.name} {when}")
        return keys


def _distinct(recipients: Iterable[RecipientKey]) -> tuple[RecipientKey, ...]:
    keys = tuple(recipients)
    if len({key.key_id for key in keys}) != len(keys):
        raise ConfigError("one public key is named twice as a recipient")
    if len(keys) > MAX_RECIPIENTS:
        raise ConfigError(f"{len(keys)} recipients; an envelope holds {MAX_RECIPIENTS}")
    return keys
