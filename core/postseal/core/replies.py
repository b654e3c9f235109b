"""Which request a reply answers, by correlation id: so that adapters bind the two without a line of their users'.

For policies with `bind_replies`. Who asks notes what was asked, and demands it of the reply; who answers notes what was heard, and names it
in the reply. What is noted is the reference of a request (SPEC.md 5.4), never its body.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from postseal.core.forking import ForkSafeLock
from postseal.core.wire import REFERENCE_SIZE

__all__ = ["Requests"]

_MAX_REQUESTS: Final = 65_536
"""Requests remembered, in each direction; beyond, the oldest is forgotten: some 300 bytes each."""
_NO_REQUEST: Final = bytes(REFERENCE_SIZE).hex()
"""Demanded of a reply to nothing that was asked here: no hash that anybody finds is this."""


class Requests:
    """The requests of one sealer that may yet be answered: those that it sealed, and those that it opened. Safe for threads."""

    def __init__(self) -> None:
        self._lock = ForkSafeLock()
        self._asked: dict[tuple[str, object], str] = {}
        self._heard: dict[tuple[str, object], str] = {}

    def asked(self, policy: str, ids: Iterable[object], reference: str) -> None:
        """Note a request that was sealed.

        Args:
            policy: Name of the policy of where its replies come.
            ids: By any of which a reply may name it. None is no id.
            reference: Of the request.
        """
        self._note(self._asked, policy, ids, reference)

    def demanded(self, policy: str, correlation_id: object) -> str:
        """Return what `Sealer.open` has to demand of a reply with that *correlation_id*; of one to nothing, what none fulfils."""
        if correlation_id is None:
            return _NO_REQUEST
        return self._asked.get((policy, correlation_id), _NO_REQUEST)

    def heard(self, destination: str, ids: Iterable[object], reference: str | None) -> None:
        """Note a request that was opened.

        Args:
            destination: Where its replies go.
            ids: As in `asked`.
            reference: Of the request; None where it came in clear, and nothing can name it.
        """
        if reference is not None:
            self._note(self._heard, destination, ids, reference)

    def answered(self, destination: str, correlation_id: object) -> str | None:
        """Return what `Sealer.seal` has to name in a reply with that *correlation_id*; None where no such request was heard."""
        return None if correlation_id is None else self._heard.get((destination, correlation_id))

    def _note(
        self, noted: dict[tuple[str, object], str], where: str, ids: Iterable[object], reference: str
    ) -> None:
        with self._lock:
            for each in ids:
                if each is None:
                    continue
                noted.pop((where, each), None)  # it counts as new
                while len(noted) >= _MAX_REQUESTS:
                    del noted[next(iter(noted))]
                noted[where, each] = reference
