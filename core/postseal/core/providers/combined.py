"""Several key providers as one: a data key is wrapped by all and can be opened through any."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

from postseal.core.errors import ConfigError
from postseal.core.keys import KeyContext, KeyProvider, NewDataKey, PublicKeys, Recipient, forget_with
from postseal.core.providers._attempts import first_that_opens

if TYPE_CHECKING:
    from postseal.core.resilience import Measure

__all__ = ["CombinedKeys"]

_NOBODY = "no recipient is of any of the combined key providers"


class CombinedKeys:
    """Wraps under all of *providers*, opens with the first that can.

    The first makes the data key; the others wrap it. If one of them cannot, nothing is sealed: a message carries every wrap that its policy
    names, or is not sent. Opening asks them in their order and ends with the first that unwraps.

    Args:
        providers: One or more; name the nearest first.
        hedge: Seconds for which one may be silent before the next is asked beside it: whoever answers first opens. So one that is dead or
            slow holds up no message for longer. None to ask the next only when the one before has said no, or gave up.
        name: What it is called in metrics.

    Raises:
        ConfigError: No providers, or no such time.
    """

    def __init__(
        self, providers: Iterable[KeyProvider], *, hedge: float | None = None, name: str = ""
    ) -> None:
        self.parts = tuple(providers)
        if not self.parts:
            raise ConfigError("CombinedKeys needs at least one key provider")
        self.hedge = hedge
        self._hedged = None
        if hedge is not None:
            from postseal.core.resilience import Hedged  # noqa: PLC0415 - for who hedges

            self._hedged = Hedged(self.parts, hedge, name=name)

    @property
    def public_key_fingerprints(self) -> frozenset[bytes]:
        """Those of all."""
        return frozenset[bytes]().union(
            *(p.public_key_fingerprints for p in self.parts if isinstance(p, PublicKeys))
        )

    def forget(self) -> None:
        """Have all forget what they keep in memory."""
        forget_with(*self.parts)

    def generate(self, context: KeyContext) -> NewDataKey:
        """Have the first make a data key, and all others wrap it."""
        first, *others = self.parts
        made = first.generate(context)
        wrapped = [recipient for other in others for recipient in other.wrap(made.data_key, context)]
        return NewDataKey(made.data_key, _distinct((*made.recipients, *wrapped)))

    def wrap(self, data_key: bytes, context: KeyContext) -> tuple[Recipient, ...]:
        """Have all wrap *data_key*."""
        return _distinct(
            tuple(recipient for provider in self.parts for recipient in provider.wrap(data_key, context))
        )

    def unwrap(self, recipients: Sequence[Recipient], context: KeyContext) -> bytes:
        """Unwrap with the first that can.

        Raises:
            KeyUnavailable: None could, and one did not answer: it might have.
            KeyRefused: None could, and one said no.
            KeyBroken: None could, and one found its recipient changed.
            NotMine: None of the recipients is of any of them.
        """
        if self._hedged is not None:
            return first_that_opens(self._hedged.attempts(recipients, context), _NOBODY)
        return first_that_opens(
            (partial(provider.unwrap, recipients, context) for provider in self.parts),
            _NOBODY,
        )

    def measures(self) -> Iterator[Measure]:
        """Yield what is to be told of the hedge, and not of the parts."""
        if self._hedged is not None:
            yield from self._hedged.measures()


def _distinct(recipients: tuple[Recipient, ...]) -> tuple[Recipient, ...]:
    if len({(recipient.algorithm, recipient.key_id) for recipient in recipients}) != len(recipients):
        raise ConfigError("two of the combined key providers wrap under the same key")
    return recipients
