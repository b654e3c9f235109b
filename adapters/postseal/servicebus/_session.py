"""Session state: sealed like a body, and bound to its session."""

from __future__ import annotations

from typing import Any, Final

from postseal.core import Sealer
from postseal.servicebus._flow import Flow
from postseal.servicebus._in_force import InForce

__all__ = ["State", "stands_for_a_state"]

_BOUND_TO: Final = "postseal session state "


def stands_for_a_state(content_encoding: str | None) -> bool:
    """Tell whether *content_encoding* is what a state is bound to. No message has such a one, or a state could come as one."""
    return content_encoding is not None and content_encoding.startswith(_BOUND_TO)


class State:
    """Seals and opens the states of the sessions of one entity.

    Args:
        sealer: Seals and opens.
        destination: Of the entity.
        waits: Whether sealing is awaited: the receiver is of asyncio.
    """

    def __init__(self, sealer: Sealer, destination: str, *, waits: bool) -> None:
        self._destination = destination
        self._in_force = InForce(sealer, destination)
        self._seal: Any = sealer.aseal if waits else sealer.seal
        self._open: Any = sealer.aopen if waits else sealer.open

    def sealed(self, session_id: object, state: str | bytes | bytearray | None) -> Flow[Any]:
        """Return what is to be set in the place of *state*. None clears it, and says nothing."""
        if state is None or self._in_force.policy.producing == "off":
            return state
        body = state.encode() if isinstance(state, str) else bytes(state)
        beside = self._beside(session_id)
        return (yield lambda: self._seal(body, destination=self._destination, **beside))

    def opened(self, session_id: object, held: bytes | None) -> Flow[bytes | None]:
        """Open the state that the broker holds.

        Raises:
            Refused: It is not what was set for this session. A state has nowhere to be put, so this is always raised.
            KeyUnavailable: The key service did not answer. Retrying may help.
        """
        if held is None or self._in_force.policy.consuming == "off":
            return held
        coordinates, beside = {"session_state": 1}, self._beside(session_id)
        opened = yield lambda: self._open(
            bytes(held),
            destination=self._destination,
            coordinates=coordinates,
            is_delivery=False,  # it is read as often as one likes
            **beside,
        )
        body: bytes = opened.body
        return body

    @staticmethod
    def _beside(session_id: object) -> dict[str, str]:
        if type(session_id) is not str:
            raise ValueError(
                "which session it is shows when the receiver is open; open it before its state is used"
            )
        # Always bound, unlike headers. Senders and receivers refuse a message that has it: neither can stand in for the other.
        return {"content_encoding": f"{_BOUND_TO}{session_id}"}
