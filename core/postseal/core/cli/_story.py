"""What happens in the demonstration, the same on each broker; what came of it, and what must not have."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from postseal.core import AuditEvent, Refused, Verdict
from postseal.core.cli._broker import Broker, Held
from postseal.core.cli._orders import Order, leaks, orders
from postseal.core.cli._parties import KeyService, Parties
from postseal.core.wire import decode

__all__ = ["ORDERS", "Act", "Attack", "Outcome", "Story"]

ORDERS: Final = 40
_PATIENCE: Final = 15.0
"""Seconds for messages to arrive. Only ends what has failed anyway."""
_PICKLE: Final = "application/x-python-pickle"


class Attack(NamedTuple):
    """Something that a broker's administrator, or a program with too many rights, can do.

    Attributes:
        name: In one or two words.
        what: In a sentence.
        verdict: What it must come to.
    """

    name: str
    what: str
    verdict: Verdict


TAMPERED: Final = Attack("tampered", "one bit of the sealed order is flipped at the broker", Verdict.FORGED)
INJECTED: Final = Attack(
    "injected", "an order in clear text is put beside the sealed ones", Verdict.UNPROTECTED
)
MOVED: Final = Attack(
    "moved", "a sealed order is copied, byte for byte, from orders to refunds", Verdict.WRONG_DESTINATION
)
RELABELLED: Final = Attack("relabelled", f"content-type of a sealed order becomes {_PICKLE}", Verdict.FORGED)
INSIDER: Final = Attack(
    "wrong sender", "the warehouse signs with its own key, and says it is the shop", Verdict.UNKNOWN_SENDER
)
IMPOSTOR: Final = Attack(
    "impostor", "a stranger signs with a new key under the id of the shop's", Verdict.FORGED
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one attack.

    Attributes:
        handed_on: How many messages reached the handler.
        events: The audit events that it made.
        key_calls: How often the key service was asked because of it.
    """

    attack: Attack
    handed_on: int
    events: tuple[AuditEvent, ...]
    key_calls: int

    @property
    def verdict(self) -> str:
        """The verdict, in one word."""
        return self.events[0].verdict.value if self.events else "none"

    @property
    def as_it_must_be(self) -> bool:
        """Whether the message was refused for the right reason, with one audit event, and nobody was bothered."""
        return (
            self.handed_on == 0
            and [event.verdict for event in self.events] == [self.attack.verdict]
            and not self.key_calls
        )


@dataclass(slots=True)
class Act:
    """The story on one broker.

    Attributes:
        sent: What the application sent.
        held: What the broker held of it.
        got: What the handler got, attacks included.
        leaks: Secrets of *sent* found in *held*.
        calls: What the key service was asked to do, by operation.
        outcomes: Of the attacks.
        refused_kept: Refused messages that the broker keeps.
        seconds: Time taken.
    """

    broker: str
    scheme: str
    where: str
    settled: str
    sent: list[Order] = field(default_factory=list)
    held: list[Held] = field(default_factory=list)
    got: list[bytes] = field(default_factory=list)
    leaks: list[str] = field(default_factory=list)
    calls: dict[str, int] = field(default_factory=dict)
    outcomes: list[Outcome] = field(default_factory=list)
    refused_kept: int = 0
    seconds: float = 0.0
    example: Held = field(default=Held(b"", None, None))
    """The first order as the broker held it."""
    example_envelope: bytes = b""

    @property
    def secrets(self) -> int:
        """How many secrets were looked for."""
        return sum(len(order.secrets) for order in self.sent[: len(self.held)])

    @property
    def clear_bytes(self) -> int:
        """Bytes of all bodies as they were sent."""
        return sum(len(order.to_json()) for order in self.sent[: len(self.held)])

    @property
    def held_bytes(self) -> int:
        """Bytes of all bodies as the broker held them."""
        return sum(len(message.body) for message in self.held)

    @property
    def added(self) -> int:
        """Bytes added to a message, on average."""
        return (self.held_bytes - self.clear_bytes) // max(len(self.held), 1)

    @property
    def refused(self) -> Counter[str]:
        """How many messages were refused, by verdict."""
        return Counter(event.verdict.value for outcome in self.outcomes for event in outcome.events)

    @property
    def problems(self) -> list[str]:
        """What must not have happened, and did."""
        found = [f"{self.broker} could read the {leak}" for leak in self.leaks]
        honest = sorted(order.to_json() for order in self.sent)
        if sorted(self.got) != honest:
            strange = sum((Counter(self.got) - Counter(honest)).values())
            missing = sum((Counter(honest) - Counter(self.got)).values())
            found.append(
                f"{self.broker}: {missing} of {len(honest)} orders did not reach the handler as they were sent, "
                f"{strange} messages did that nobody sent"
            )
        found += [
            f"{self.broker}: {outcome.attack.name}: the verdict is {outcome.verdict} where {outcome.attack.verdict.value} is "
            f"due, {len(outcome.events)} audit events, {outcome.handed_on} handed on, {outcome.key_calls} key-service calls"
            for outcome in self.outcomes
            if not outcome.as_it_must_be
        ]
        return found


class Story:
    """Plays the story on one broker.

    Args:
        broker: Empty.
        parties: Who takes part.
        service: Counts what it is asked.
        events: Where billing's audit events appear.
        tell: Told what happens now, in a few words.
    """

    def __init__(
        self,
        broker: Broker,
        parties: Parties,
        service: KeyService,
        *,
        events: list[AuditEvent],
        tell: Callable[[str], None],
    ) -> None:
        self._broker = broker
        self._parties = parties
        self._service = service
        self._events = events
        self._tell = tell
        self._act = Act(broker.name, broker.scheme, broker.where, broker.settled)

    def play(self) -> Act:
        """Play it, and return what came of it."""
        begun, calls_before = time.monotonic(), Counter(self._service.calls)
        act, broker = self._act, self._broker

        honest = orders(ORDERS)
        self._send(honest)
        self._look(honest)
        self._tell(f"{broker.name}: billing receives them")
        self._receive(ORDERS)

        for attack, strike in self._attacks() if act.held else ():
            self._tell(f"{broker.name}: {attack.what}")
            act.outcomes.append(self._outcome(attack, strike))

        # After all that, honest orders still pass.
        self._send(orders(1, first=ORDERS + 1))
        self._receive(1)

        act.refused_kept = broker.refused()
        act.calls = dict(self._service.calls - calls_before)
        act.seconds = time.monotonic() - begun
        return act

    def _send(self, honest: list[Order]) -> None:
        self._tell(f"{self._broker.name}: orders to send: {len(honest)}")
        self._broker.send(self._parties.shop, honest)
        self._act.sent += honest

    def _look(self, honest: list[Order]) -> None:
        self._tell(f"{self._broker.name}: an administrator reads what the broker holds")
        act = self._act
        act.held = self._broker.look(len(honest))
        act.leaks = leaks(honest, [message.everything for message in act.held])
        # Partitions are read in any order; a record's key, which is not sealed, tells which one it is.
        first = honest[0].number.encode()
        mixed = [*act.held, act.example]
        act.example = next((message for message in mixed if message.key == first), mixed[0])
        act.example_envelope = self._broker.envelope(act.example.body)

    def _receive(self, more: int) -> None:
        """Have billing receive until *more* messages were dealt with, handed on or refused."""
        act, events = self._act, self._events
        due = len(act.got) + len(events) + more
        end = time.monotonic() + _PATIENCE
        self._broker.receive(
            self._parties.billing,
            act.got.append,
            lambda: len(act.got) + len(events) >= due or time.monotonic() > end,
        )

    def _attacks(self) -> list[tuple[Attack, Callable[[], None]]]:
        broker, parties, stolen = self._broker, self._parties, self._act.example
        order = orders(1, first=666)[0]
        flipped = broker.body(_with_a_bit_flipped(self._act.example_envelope))
        return [
            (TAMPERED, lambda: broker.put("orders", stolen._replace(body=flipped))),
            (INJECTED, lambda: broker.put("orders", stolen._replace(body=order.to_json()))),
            (MOVED, lambda: broker.put("refunds", stolen)),
            (RELABELLED, lambda: broker.put("orders", stolen._replace(content_type=_PICKLE))),
            (INSIDER, lambda: broker.send(parties.insider, [order])),
            (IMPOSTOR, lambda: broker.send(parties.impostor, [order])),
        ]

    def _outcome(self, attack: Attack, strike: Callable[[], None]) -> Outcome:
        got, told, calls = len(self._act.got), len(self._events), self._service.calls.total()
        strike()
        self._receive(1)
        return Outcome(
            attack,
            handed_on=len(self._act.got) - got,
            events=tuple(self._events[told:]),
            key_calls=self._service.calls.total() - calls,
        )


def _with_a_bit_flipped(envelope: bytes) -> bytes:
    """Return *envelope* with one bit changed in the middle of what is encrypted."""
    try:
        payload = decode(envelope).payload
    except Refused:  # nothing was sealed, and that will be said
        payload = envelope
    changed = bytearray(envelope)
    changed[envelope.index(payload) + len(payload) // 2] ^= 1
    return bytes(changed)
