"""Resilience: a key provider around a key provider, which asks again, in time, in turn, or not at all.

Each is a decorator, and they go around each other; this is their order, and what `resilient` makes::

    from postseal.core.resilience import Breaker, Deadline, Limited, Limiter, Retrying

    quota = Limiter(400, per=10)
    keys = Retrying(Breaker(Limited(Deadline(keys, 2), quota)))

Between several key services, ``CombinedKeys(providers, hedge=0.2)`` asks the next beside one that is silent.

What they end is `KeyUnavailable`: the message stays where it is, and a data key at hand may serve on for its ``max_stale``. A key service
that says no is believed at once: a refusal is neither tried again nor held against the service.

They wait in the thread that asks. Tasks await a thread of the cache's own, so an event loop never waits: whoever has `Sealer.aseal` and
``aopen`` needs nothing else.

Source: docs/resilience.md.
"""

from __future__ import annotations

from postseal.core.keys import KeyProvider
from postseal.core.resilience._around import Around, Measure, NotAsked, measures
from postseal.core.resilience._breaker import Breaker
from postseal.core.resilience._deadline import Deadline
from postseal.core.resilience._hedge import Hedged
from postseal.core.resilience._limit import Limited, Limiter
from postseal.core.resilience._retry import Retrying

__all__ = [
    "Around",
    "Breaker",
    "Deadline",
    "Hedged",
    "Limited",
    "Limiter",
    "Measure",
    "NotAsked",
    "Retrying",
    "measures",
    "resilient",
]


def resilient(
    provider: KeyProvider, *, deadline: float = 5.0, limiter: Limiter | None = None, name: str = ""
) -> KeyProvider:
    """Put all of them around *provider*, as they are by default.

    Args:
        provider: On a client that makes one attempt: else there are tries within tries, and the limiter sees but the first of each.
        deadline: Seconds for which one try may take.
        limiter: Of the quota that the calls count against. Without it, they are not limited.
        name: What it is called in errors and metrics.

    Raises:
        MissingExtraError: tenacity is not installed.
    """
    timed: KeyProvider = Deadline(provider, deadline, name=name)
    if limiter is not None:
        timed = Limited(timed, limiter, name=name)
    return Retrying(Breaker(timed, name=name), name=name)
