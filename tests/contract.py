"""What every adapter does, whatever its client and its broker: one suite for all of them.

A flavour of an adapter passes it by a subclass whose fixture ``line`` gives a `Line`, the few things that a test needs of a client::

    class TestClients(BinaryBodies, NullBodies, AdapterContract):
        @pytest.fixture
        def line(self, cluster):
            return ClientLine(cluster)

What not every broker has (bodies that are no text, messages without a body) stands in classes of its own, to be inherited where it has it.
"""

from __future__ import annotations

import copy
import json
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import pytest

from postseal.core import (
    AuditEvent,
    HmacKey,
    KeyRing,
    KeyUnavailable,
    LedgerUnavailable,
    MemoryLedger,
    MemoryReferences,
    Policy,
    Refused,
    Sealer,
    SqliteLedger,
    TooLarge,
    Verdict,
)
from postseal.core.audit import Counted
from postseal.core.replay import Receipt
from postseal.core.shortening import is_short
from postseal.core.wire import decode
from tests.core.stand_ins import join_threads
from tests.fakes import FakeKeys

__all__ = [
    "AdapterContract",
    "BinaryBodies",
    "EncryptedHeaders",
    "LedgerContract",
    "Line",
    "NullBodies",
    "Raw",
    "Receiving",
    "World",
]

ORDER = json.dumps({"order": 4711, "card": "4111 1111 1111 1111", "name": "Zoë Beispiel"}).encode()
SECRETS = (b"4111 1111 1111 1111", b'"order": 4711', b"Beispiel")
"""None so short that base64 might say it by chance."""


DIRECT = 4096 - 33
"""Bytes of body that the key service of tests itself encrypts. Source: SPEC.md 3.7."""


@dataclass(frozen=True)
class Raw:
    """A message as the broker has it.

    Args:
        body: As bytes, also where the broker has text. None where it has none.
        headers: Application headers, the broker's or the adapter's own ones too.
    """

    body: bytes | None
    headers: Mapping[str, str] = field(default_factory=dict)


class Receiving(ABC):
    """A consumer at work, through the adapter.

    Attributes:
        bodies: What was handed on so far, in that order.
        headers: The application headers of each, as the handler sees them; bytes that are text are written as text.
        refused: The `Refused` that were raised so far, where the client raises them.
        redelivered: Those of *bodies* that came with the broker's word that it had delivered them before. Only `pika`'s callbacks note it.
    """

    def __init__(self) -> None:
        self.redelivered: set[bytes | None] = set()
        self.bodies: list[bytes | None] = []
        self.headers: list[dict[str, Any]] = []
        self.refused: list[Refused] = []

    def got(self, body: bytes | None, headers: Mapping[Any, Any] | Iterable[tuple[Any, Any]] | None) -> None:
        """Note what was handed on."""
        pairs = headers.items() if isinstance(headers, Mapping) else headers or ()
        self.headers.append({_shown(name): _shown(value) for name, value in pairs})
        self.bodies.append(body)

    @abstractmethod
    def step(self) -> None:
        """Ask the client once for what there is, waiting some tenths of a second at most.

        Note what is handed on in *bodies*, and settle it unless told otherwise; note what is raised as refused in *refused*.
        """

    def until(self, done: Callable[[], bool], seconds: float = 90.0) -> None:
        """Go on until *done*. The time only ends a test that would fail anyway."""
        end = time.monotonic() + seconds
        while not done():
            if time.monotonic() > end:
                raise AssertionError(f"never came: handed on {len(self.bodies)}, refused {self.refused}")
            self.step()

    def take(self, count: int) -> list[bytes | None]:
        """Go on until *count* bodies were handed on in all, and return them."""
        self.until(lambda: len(self.bodies) >= count)
        return self.bodies


def _shown(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) and value.isascii() else value


class Line(ABC):
    """One flavour of one adapter on one broker: its sending end, its receiving end, and bare clients beside them."""

    scheme: ClassVar[str]
    """Of destinations: ``"kafka"``, ``"sqs"``."""
    ordered: ClassVar[bool]
    """Whether messages of one place arrive in the order in which they were sent."""
    settled_by_client: ClassVar[bool] = False
    """Whether the client, or the program, settles what is handed over: the adapter has no say there."""

    def envelope(self, body: bytes) -> bytes:
        """Return the envelope that the broker holds as *body*; the same bytes, unless it has to be text."""
        return body

    def body(self, envelope: bytes) -> bytes:
        """Return what the broker holds for *envelope*."""
        return envelope

    @abstractmethod
    def place(self) -> str:
        """Make a queue or topic that nobody used before; return its name."""

    @abstractmethod
    def place_with_dead_letters(self) -> tuple[str, str]:
        """Make a place whose refused messages go to another, by on_refused = "dead-letter"; return both names."""

    @abstractmethod
    def send(
        self, sealer: Sealer, place: str, body: bytes | None, headers: Mapping[str, str] | None = None
    ) -> None:
        """Send through the adapter; return when the broker has it. Hand *headers* to the client as they are."""

    @abstractmethod
    def batch(self, place: str, bodies: list[bytes]) -> Any:
        """Make the client's own arguments for sending several messages in one call."""

    @abstractmethod
    def send_batch(self, sealer: Sealer, place: str, batch: Any) -> None:
        """Send through the adapter what `batch` made, in one call; return when the broker has it."""

    @abstractmethod
    def receiving(
        self, sealer: Sealer, place: str, *, settles: bool = True
    ) -> AbstractContextManager[Receiving]:
        """Begin to receive through the adapter, at the first message that is not settled. On exit, what is not settled is given back."""

    @abstractmethod
    def put(self, place: str, *messages: Raw) -> None:
        """Send with a bare client: what an administrator, a bridge or an attacker does."""

    @abstractmethod
    def held(self, place: str, count: int) -> list[Raw]:
        """Read with a bare client, settling nothing, until *count* messages were seen; return all that were."""

    @abstractmethod
    def has_message(self, place: str) -> bool:
        """Tell whether a message lies at *place*, without waiting for one."""


@dataclass
class World:
    """Keys, secrets and audit events of one test."""

    line: Line
    keys: FakeKeys = field(default_factory=FakeKeys)
    events: list[AuditEvent] = field(default_factory=list)
    ring: KeyRing = field(default_factory=lambda: KeyRing([HmacKey("2026-10", bytes(range(32)))]))
    direct: bool = False
    """Whether the key service encrypts bodies itself, where they are encrypted."""

    def policy(self, *places: str, **options: Any) -> Policy:
        """Make the policy "orders" of these places."""
        hides = options.get("protection") != "integrity"
        options = {"keys": ["main"], "direct": self.direct and hides} | options
        return Policy(name="orders", destinations=[f"{self.line.scheme}:{p}" for p in places], **options)

    def sealer(self, *policies: Policy, sender: str = "shop", **options: Any) -> Sealer:
        """Make a sealer with caches of its own, as another process would have."""
        signers = {"shop": self.ring} if any(policy.sign for policy in policies) else {}
        options = {"keys": {"main": self.keys}, "signers": signers, "on_audit": self.events.append} | options
        return Sealer(sender=sender, policies=policies, **options)

    def verdicts(self) -> list[Verdict]:
        """Return the verdict of each audit event, in order."""
        return [event.verdict for event in self.events]


def flipped(line: Line, message: Raw) -> Raw:
    """Return *message* with one bit of its ciphertext (or clear payload, in integrity) changed, all else as it was."""
    assert message.body is not None
    envelope = line.envelope(message.body)
    payload = decode(envelope).payload
    at = envelope.index(payload)
    return replace(message, body=line.body(envelope[:at] + bytes([payload[0] ^ 1]) + envelope[at + 1 :]))


def cut(envelope: bytes) -> bytes:
    """Take the last byte away."""
    return envelope[:-1]


def grown(envelope: bytes) -> bytes:
    """Add a byte behind the end."""
    return envelope + b"\x00"


def newer(envelope: bytes) -> bytes:
    """Make it version 2: the first element of the array of label -65537, behind the array's head. Source: SPEC.md 4 and 11."""
    label = bytes.fromhex("3a00010000")
    at = envelope.index(label) + len(label) + 1
    assert envelope[at] == 1
    return envelope[:at] + b"\x02" + envelope[at + 1 :]


class FullSink:
    """An audit sink that must be told, and takes nothing while it is full."""

    limit = None
    required = True

    def __init__(self) -> None:
        self.full = True
        self.refused = 0
        self.verdicts: list[str] = []

    def write(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Take *lines*, or do not."""
        if self.full:
            self.refused += 1
            raise OSError("No space left on device")
        self.verdicts += [line["verdict"] for line in lines if line["kind"] == "event"]

    def close(self) -> None:
        """Have nothing to close."""


class AdapterContract:
    """To be inherited with a fixture ``line`` that returns a `Line`.

    With ``direct = True``, the same is done where the key service encrypts bodies itself (D2).
    """

    direct: ClassVar[bool] = False

    @pytest.fixture
    def world(self, line: Line) -> Iterator[World]:
        return World(line, direct=self.direct)

    # -- there and back --------------------------------------------------------------------------------------------

    @pytest.mark.parametrize(
        "body",
        [
            pytest.param(b"", id="empty"),
            pytest.param(b"x", id="one byte"),
            pytest.param(ORDER, id="json"),
            pytest.param("Straße, 漢字, 🐟, \u202e".encode(), id="text of all kinds"),
            pytest.param(b"0123456789abcdef" * 12_500, id="200 kB"),
        ],
    )
    def test_a_body_comes_back_as_it_was(self, world: World, line: Line, body: bytes) -> None:
        place = line.place()
        policy = world.policy(place)
        if world.direct and len(body) > DIRECT:
            with pytest.raises(TooLarge, match="4,063"):
                line.send(world.sealer(policy), place, body)
            assert not world.keys.calls
            body = body[:DIRECT]
        line.send(world.sealer(policy), place, body)
        with line.receiving(world.sealer(policy), place) as receiving:
            assert receiving.take(1) == [body]
        assert world.events == []

    @pytest.mark.parametrize("protection", ["confidentiality", "privacy", "integrity"])
    def test_every_protection_passes(self, world: World, line: Line, protection: str) -> None:
        place = line.place()
        options: dict[str, Any] = {"protection": protection}
        if protection != "confidentiality":
            options |= {"sign": "shop", "senders": ["shop"]}
        if protection == "integrity":
            options |= {"keys": []}
        policy = world.policy(place, **options)
        line.send(world.sealer(policy), place, ORDER)
        with line.receiving(world.sealer(policy), place) as receiving:
            assert receiving.take(1) == [ORDER]

    def test_the_broker_holds_no_clear_text(self, world: World, line: Line) -> None:
        """A1: what lies at the broker says nothing."""
        place = line.place()
        line.send(world.sealer(world.policy(place)), place, ORDER)
        [raw] = line.held(place, 1)
        assert raw.body
        assert not [secret for secret in SECRETS if secret in raw.body]

    def test_a_message_whose_data_key_travels_by_reference_comes_back(self, world: World, line: Line) -> None:
        """A1: it is 16 bytes that name a record; and what is altered is refused as ever."""
        place, store = line.place(), MemoryReferences()
        policy = world.policy(place, key_by_reference=True, direct=False)
        sealer = world.sealer(policy, references=store)
        sealer.seal(ORDER, destination=f"{line.scheme}:{place}")
        join_threads("postseal-references")
        line.send(sealer, place, ORDER)
        [raw] = line.held(place, 1)
        assert raw.body is not None
        envelope = line.envelope(raw.body)
        assert is_short(envelope)
        line.put(place, replace(raw, body=line.body(envelope[:-1] + bytes([envelope[-1] ^ 1]))))
        with line.receiving(world.sealer(policy, references=store), place) as receiving:
            receiving.until(lambda: len(receiving.bodies) >= 1 and len(world.events) >= 1)
        assert receiving.bodies == [ORDER]
        assert world.verdicts() == [Verdict.FORGED]

    def test_a_batch_comes_back_whole(self, world: World, line: Line) -> None:
        place = line.place()
        policy = world.policy(place)
        bodies = [b"order %d" % number for number in range(7)]
        line.send_batch(world.sealer(policy), place, line.batch(place, bodies))
        with line.receiving(world.sealer(policy), place) as receiving:
            came = receiving.take(len(bodies))
        assert self._arranged(line, came) == bodies

    def test_the_callers_arguments_stay_as_they_were(self, world: World, line: Line) -> None:
        """A retry with the same arguments must not seal twice."""
        place = line.place()
        sealer = world.sealer(world.policy(place, bind_headers=["tenant"]))
        headers = {"tenant": "north", "other": "x"}
        line.send(sealer, place, ORDER, headers)
        assert headers == {"tenant": "north", "other": "x"}
        plain = world.sealer(world.policy(place))
        batch = line.batch(place, [b"one", b"two"])
        before = copy.deepcopy(batch)
        line.send_batch(plain, place, batch)
        assert batch == before

    def test_a_retry_with_the_same_arguments_opens_too(self, world: World, line: Line) -> None:
        place = line.place()
        policy = world.policy(place)
        sealer = world.sealer(policy)
        batch = line.batch(place, [b"one", b"two"])
        line.send_batch(sealer, place, batch)
        line.send_batch(sealer, place, batch)
        with line.receiving(world.sealer(policy), place) as receiving:
            assert sorted(body or b"" for body in receiving.take(4)) == [b"one", b"one", b"two", b"two"]

    def test_headers_pass_untouched(self, world: World, line: Line) -> None:
        place = line.place()
        line.send(world.sealer(world.policy(place)), place, ORDER, {"tenant": "north", "colour": "grün"})
        [raw] = line.held(place, 1)
        assert raw.headers["tenant"] == "north"
        assert raw.headers["colour"] == "grün"

    def test_a_bound_header_opens_as_it_was_sent(self, world: World, line: Line) -> None:
        place = line.place()
        policy = world.policy(place, bind_headers=["tenant", "absent"])
        line.send(world.sealer(policy), place, ORDER, {"tenant": "grün", "other": "x"})
        with line.receiving(world.sealer(policy), place) as receiving:
            assert receiving.take(1) == [ORDER]

    def test_what_was_not_settled_is_delivered_and_opened_again(self, world: World, line: Line) -> None:
        place = line.place()
        policy = world.policy(place)
        line.send(world.sealer(policy), place, ORDER)
        for settles in (False, True):
            with line.receiving(world.sealer(policy), place, settles=settles) as receiving:
                assert receiving.take(1) == [ORDER]
        assert world.events == []

    # -- what is refused -------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("bad", [0, 2, 4])
    def test_one_bad_message_never_costs_the_others(self, world: World, line: Line, bad: int) -> None:
        """A9, E5, E6: wherever it stands, it is never handed on and makes one event, and all others are handed on once."""
        bodies = [b"order %d" % number for number in range(5)]
        place, sealed, sealer = self._moved(world, line, bodies)
        line.put(place, *(flipped(line, raw) if at == bad else raw for at, raw in enumerate(sealed)))
        with line.receiving(sealer, place) as receiving:
            receiving.until(lambda: len(receiving.bodies) >= 4 and len(world.events) >= 1)
        assert len(receiving.bodies) == len(set(receiving.bodies)) == 4
        assert set(receiving.bodies) < set(bodies)
        if line.ordered:
            assert receiving.bodies == [body for at, body in enumerate(bodies) if at != bad]
        assert world.verdicts() == [Verdict.FORGED]

    def test_clear_text_is_refused(self, world: World, line: Line) -> None:
        """A9: who can write to the broker cannot inject."""
        place = line.place()
        line.put(place, Raw(ORDER))
        assert self._refused(world, line, world.sealer(world.policy(place)), place) == Verdict.UNPROTECTED

    def test_a_header_turns_nothing_off(self, world: World, line: Line) -> None:
        """A9: nothing that travels in a message may turn protection off."""
        place = line.place()
        line.put(place, Raw(ORDER, {"__rule.name": "x", "postseal": "off", "encrypted": "false"}))
        assert self._refused(world, line, world.sealer(world.policy(place)), place) == Verdict.UNPROTECTED

    def test_an_altered_message_is_refused(self, world: World, line: Line) -> None:
        """A9, E2."""
        place, [raw], sealer = self._moved(world, line, [ORDER])
        line.put(place, flipped(line, raw))
        assert self._refused(world, line, sealer, place) == Verdict.FORGED

    @pytest.mark.parametrize("how", [cut, grown, newer])
    def test_a_damaged_envelope_is_refused(
        self, world: World, line: Line, how: Callable[[bytes], bytes]
    ) -> None:
        """A9: cut short, with something after its end, or of a version that is yet to come."""
        place, [raw], sealer = self._moved(world, line, [ORDER])
        assert raw.body is not None
        line.put(place, replace(raw, body=line.body(how(line.envelope(raw.body)))))
        assert self._refused(world, line, sealer, place) == Verdict.MALFORMED

    def test_a_body_of_another_message_is_refused(self, world: World, line: Line) -> None:
        """A9: two ciphertexts of one key change places, their headers stay."""
        place, [one, two], sealer = self._moved(world, line, [b"order 1", b"order 2"])
        assert one.body is not None
        assert two.body is not None
        first, second = line.envelope(one.body), line.envelope(two.body)
        swapped = first.replace(decode(first).payload, decode(second).payload)
        assert swapped != first
        line.put(place, replace(one, body=line.body(swapped)))
        assert self._refused(world, line, sealer, place) == Verdict.FORGED

    def test_a_message_of_another_place_is_refused(self, world: World, line: Line) -> None:
        """A9, E3: both places are of one policy and one key, and yet its messages cannot be swapped."""
        here, there = line.place(), line.place()
        policy = world.policy(here, there)
        line.send(world.sealer(policy), there, ORDER)
        line.put(here, *line.held(there, 1))
        assert self._refused(world, line, world.sealer(policy), here) == Verdict.WRONG_DESTINATION

    @pytest.mark.parametrize("tampered", [{"tenant": "south"}, {}], ids=["changed", "taken away"])
    def test_a_bound_header_that_was_tampered_with_is_refused(
        self, world: World, line: Line, tampered: dict[str, str]
    ) -> None:
        """A9."""
        sent = {"tenant": "north", "other": "x"}
        place, [raw], sealer = self._moved(world, line, [ORDER], sent, bind_headers=["tenant"])
        rest = {name: value for name, value in raw.headers.items() if name != "tenant"}
        line.put(place, Raw(raw.body, rest | tampered))
        assert self._refused(world, line, sealer, place) == Verdict.FORGED

    def test_an_unknown_sender_is_refused_without_asking_the_key_service(
        self, world: World, line: Line
    ) -> None:
        """E3, B6: the signature comes first."""
        place = line.place()
        signed = {"protection": "privacy", "sign": "shop"}
        line.send(
            world.sealer(world.policy(place, senders=["mallory"], **signed), sender="mallory"), place, ORDER
        )
        sealer = world.sealer(world.policy(place, senders=["shop"], **signed))
        assert self._refused(world, line, sealer, place) == Verdict.UNKNOWN_SENDER
        assert world.keys.opened == 0

    def test_the_audit_event_says_where_the_message_is(self, world: World, line: Line) -> None:
        """E6: and shows nothing of it."""
        place = line.place()
        line.put(place, Raw(ORDER))
        self._refused(world, line, world.sealer(world.policy(place)), place)
        [event] = world.events
        assert event.destination == f"{line.scheme}:{place}"
        assert event.coordinates
        assert "4111" not in str(event.as_dict())

    def test_each_bad_message_of_a_batch_makes_exactly_one_event(self, world: World, line: Line) -> None:
        """E6: also beside others that are bad, for other reasons, and beside good ones."""
        bodies = [b"order %d" % number for number in range(6)]
        place, sealed, sealer = self._moved(world, line, bodies)
        body = sealed[3].body
        assert body is not None
        sealed[1] = flipped(line, sealed[1])
        sealed[3] = replace(sealed[3], body=line.body(cut(line.envelope(body))))
        sealed[4] = Raw(ORDER)
        line.put(place, *sealed)
        with line.receiving(sealer, place) as receiving:
            receiving.until(lambda: len(receiving.bodies) >= 3 and len(world.events) >= 3)
        assert sorted(body or b"" for body in receiving.bodies) == sorted(bodies[at] for at in (0, 2, 5))
        assert sorted(world.verdicts()) == [Verdict.FORGED, Verdict.MALFORMED, Verdict.UNPROTECTED]
        assert all(event.coordinates for event in world.events)
        assert sealer.auditor.counts == dict.fromkeys(world.verdicts(), 1)

    def test_what_must_be_audited_and_cannot_be_is_kept(self, world: World, line: Line) -> None:
        """E5, E6: a required sink that is full: nothing is settled, nothing handed on; then each refused delivery is one line."""
        place = line.place()
        line.put(place, Raw(ORDER))
        sink = FullSink()
        sealer = world.sealer(world.policy(place), audit=[sink])
        with line.receiving(sealer, place) as receiving:
            receiving.until(lambda: sink.refused >= 2)
            assert receiving.bodies == []
            assert receiving.refused == []
            assert world.events == []
            sink.full = False
            receiving.until(lambda: bool(world.events))
        assert receiving.bodies == []
        assert sink.verdicts == world.verdicts()

    # -- dead letters ----------------------------------------------------------------------------------------------

    def test_a_dead_letter_stays_sealed_and_opens_after_the_way_back(self, world: World, line: Line) -> None:
        """A10: sealed there, once; opens there where the policy accepts it, and at home again."""
        place, dead = line.place_with_dead_letters()
        options = {
            "on_refused": "dead-letter",
            "quarantine": f"{line.scheme}:{dead}",
            "accept_from": [f"{line.scheme}:{dead}"],
            "bind_headers": ["tenant"],
        }
        policy = world.policy(place, **options)
        line.send(world.sealer(policy), place, ORDER, {"tenant": "north"})
        [sent] = line.held(place, 1)
        world.keys.refused.set()
        with line.receiving(world.sealer(policy), place) as receiving:
            receiving.until(lambda: bool(world.events))
            [letter] = self._dead_letters(line, receiving, dead)
        assert receiving.bodies == []
        assert set(world.verdicts()) == {Verdict.UNKNOWN_KEY}
        assert letter.body == sent.body
        assert letter.headers["tenant"] == "north"

        world.keys.refused.clear()
        world.events.clear()
        with line.receiving(world.sealer(policy), dead) as receiving:
            assert receiving.take(1) == [ORDER]
        line.put(place, letter)
        with line.receiving(world.sealer(policy), place) as receiving:
            assert receiving.take(1) == [ORDER]
        assert world.events == []

    def test_a_sealed_message_is_not_sealed_again(self, world: World, line: Line) -> None:
        """A10: a dead-letter tool that sends what it read gives the broker the same envelope."""
        place = line.place()
        policy = world.policy(place)
        sealer = world.sealer(policy)
        line.send(sealer, place, ORDER)
        [raw] = line.held(place, 1)
        assert raw.body is not None
        line.send(sealer, place, raw.body)
        assert {held.body for held in line.held(place, 2)} == {raw.body}
        with line.receiving(world.sealer(policy), place) as receiving:
            assert receiving.take(2) == [ORDER, ORDER]

    def test_what_only_looks_sealed_is_not_sent(self, world: World, line: Line) -> None:
        """A10: it would go out in clear."""
        place = line.place()
        sealer = world.sealer(world.policy(place))
        line.send(sealer, place, ORDER)
        [raw] = line.held(place, 1)
        forged = flipped(line, raw).body
        with pytest.raises(Refused):
            line.send(sealer, place, forged)

    # -- rollout ---------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("side", ["mode", "consume_mode"])
    def test_who_observes_is_handed_clear_text_and_told_what_enforce_would_refuse(
        self, world: World, line: Line, side: str
    ) -> None:
        """A11: as it came, headers too; one event that says so; what is sealed opens meanwhile."""
        place = line.place()
        policy = world.policy(place, on_refused="discard", **{side: "observe"})
        consumer = world.sealer(policy)
        line.put(place, Raw(ORDER, {"tenant": "north"}))
        with line.receiving(consumer, place) as receiving:
            assert receiving.take(1) == [ORDER]
            assert receiving.headers[0]["tenant"] == "north"
            line.send(world.sealer(world.policy(place)), place, b"sealed")
            assert receiving.take(2) == [ORDER, b"sealed"]
        destination = f"{line.scheme}:{place}"
        assert consumer.auditor.counts_by_kind == {
            Counted(Verdict.UNPROTECTED, destination, "observe", "let-through"): 1
        }
        assert consumer.auditor.passed.by_mode == {(destination, "observe"): 1}
        assert [event.let_through for event in world.events] == [True]

    @pytest.mark.parametrize("on_refused", ["discard", "dead-letter"])
    def test_who_observes_settles_nothing_and_is_handed_no_forgery(
        self, world: World, line: Line, on_refused: str
    ) -> None:
        """A9, A11: what is sealed and does not open is neither handed on, as nobody could read it, nor taken away: it lies there."""
        home = line.place()
        place, dead = line.place_with_dead_letters()
        options: dict[str, Any] = {"on_refused": on_refused, "accept_from": [f"{line.scheme}:{place}"]}
        if on_refused == "dead-letter":
            options["quarantine"] = f"{line.scheme}:{dead}"
        line.send(world.sealer(world.policy(home, **options)), home, ORDER)
        [raw] = line.held(home, 1)
        forged = flipped(line, raw)
        line.put(place, forged)
        observer = world.sealer(world.policy(home, consume_mode="observe", **options))
        with line.receiving(observer, place) as receiving:
            receiving.until(lambda: bool(world.events))
            assert receiving.bodies == []
        assert world.verdicts()[0] == Verdict.FORGED
        if line.settled_by_client:
            return
        assert not line.has_message(dead)
        world.events.clear()
        with line.receiving(world.sealer(world.policy(home, **options)), place) as receiving:
            receiving.until(lambda: bool(world.events))  # it is there, for who enforces
        assert world.verdicts()[0] == Verdict.FORGED

    def test_tolerate_ends_on_its_date(self, world: World, line: Line) -> None:
        """A11: clear text passes until then, one event each; then it is refused."""
        place, now = line.place(), [time.time_ns()]
        until = datetime.now(UTC) + timedelta(days=1)
        policy = world.policy(place, consume_mode="tolerate", tolerate_until=until, on_refused="discard")
        consumer = world.sealer(policy, clock=lambda: now[0])
        line.put(place, Raw(b"one"))
        with line.receiving(consumer, place) as receiving:
            assert receiving.take(1) == [b"one"]
            now[0] = time.time_ns() + 2 * 86_400 * 10**9
            line.put(place, Raw(b"two"))
            receiving.until(lambda: len(world.events) >= 2)
        assert receiving.bodies == [b"one"]
        kinds = [(each.verdict, each.mode, each.outcome) for each in world.events]
        assert kinds == [
            (Verdict.CLEAR, "tolerate", "let-through"),
            (Verdict.UNPROTECTED, "tolerate", "refused"),
        ]

    @pytest.mark.parametrize("mode", ["off", "observe"])
    def test_a_producer_that_does_not_seal_yet_sends_as_it_would_without_us_and_is_counted(
        self, world: World, line: Line, mode: str
    ) -> None:
        """A11: per side: consumers may enforce long before, or after."""
        place = line.place()
        policy = world.policy(place, produce_mode=mode, encrypt_headers=[])
        producer = world.sealer(policy)
        line.send(producer, place, ORDER, {"tenant": "north"})
        line.send_batch(producer, place, line.batch(place, [b"one", b"two"]))
        held = line.held(place, 3)
        assert sorted(raw.body or b"" for raw in held) == sorted([ORDER, b"one", b"two"])
        assert {raw.headers.get("tenant") for raw in held} == {"north", None}
        assert producer.auditor.unsealed.by_mode == {(f"{line.scheme}:{place}", mode): 3}
        assert producer.auditor.sealed.total == 0
        assert world.keys.calls["generate"] == 0

    def test_both_sides_go_over_one_after_the_other_and_nothing_is_sealed_twice(
        self, world: World, line: Line
    ) -> None:
        """A10, A11: consumers observe, producers enforce, consumers enforce; a bridge that sends on what is sealed changes nothing."""
        place = line.place()
        early = world.policy(place, produce_mode="observe", consume_mode="observe")
        later = world.policy(place, consume_mode="observe")
        with line.receiving(world.sealer(early), place) as receiving:
            line.send(world.sealer(early), place, b"one")
            assert receiving.take(1) == [b"one"]
            line.send(world.sealer(later), place, b"two")
            assert receiving.take(2) == [b"one", b"two"]
        place = line.place()
        line.send(world.sealer(world.policy(place, consume_mode="observe")), place, ORDER)
        [raw] = line.held(place, 1)
        with line.receiving(world.sealer(world.policy(place)), place) as receiving:
            assert receiving.take(1) == [ORDER]
            for mode in ("off", "observe", "enforce"):  # a bridge
                assert raw.body is not None
                line.send(world.sealer(world.policy(place, mode=mode)), place, raw.body)
            assert receiving.take(4) == [ORDER] * 4

    # -- the key service -------------------------------------------------------------------------------------------

    def test_an_absent_key_service_loses_nothing(self, world: World, line: Line) -> None:
        """B14: while it is away nothing is handed on and nothing settled; then all is, once, in order."""
        place = line.place()
        policy = world.policy(place)
        sealer = world.sealer(policy)
        bodies = [b"order %d" % number for number in range(5)]
        for body in bodies:
            line.send(sealer, place, body)
        world.keys.unavailable.set()
        with line.receiving(world.sealer(policy), place) as receiving:
            receiving.until(lambda: world.keys.opened >= 2)
            assert receiving.bodies == []
            world.keys.unavailable.clear()
            came = receiving.take(5)
        assert self._arranged(line, came) == bodies
        assert world.events == []
        assert receiving.refused == []

    def test_without_a_key_nothing_is_sent(self, world: World, line: Line) -> None:
        """B14: and the same call succeeds when the key service is back."""
        place = line.place()
        policy = world.policy(place)
        sealer = world.sealer(policy)
        world.keys.unavailable.set()
        with pytest.raises(KeyUnavailable):
            line.send(sealer, place, b"first")
        world.keys.unavailable.clear()
        line.send(sealer, place, b"second")
        assert len(line.held(place, 1)) == 1
        with line.receiving(world.sealer(policy), place) as receiving:
            assert receiving.take(1) == [b"second"]

    def test_the_key_service_is_asked_once(self, world: World, line: Line) -> None:
        """D4: one call to seal a hundred messages, one to open them. D2: one for each where the service itself encrypts."""
        place = line.place()
        policy = world.policy(place)
        sealer = world.sealer(policy)
        bodies = [b"order %03d" % number for number in range(100)]
        for at in range(0, 100, 10):
            line.send_batch(sealer, place, line.batch(place, bodies[at : at + 10]))
        with line.receiving(world.sealer(policy), place) as receiving:
            assert self._arranged(line, receiving.take(100)) == bodies
        asked = {"encrypt": 100, "decrypt": 100} if world.direct else {"generate": 1, "unwrap": 1}
        assert world.keys.calls == asked

    # -- what the tests share --------------------------------------------------------------------------------------

    @staticmethod
    def _moved(
        world: World,
        line: Line,
        bodies: list[bytes],
        headers: dict[str, str] | None = None,
        **options: Any,
    ) -> tuple[str, list[Raw], Sealer]:
        """Send *bodies* to one place; return another at which they may lie, what the broker holds of them, and who opens there."""
        home, place = line.place(), line.place()
        policy = world.policy(home, accept_from=[f"{line.scheme}:{place}"], **options)
        sealer = world.sealer(policy)
        for body in bodies:
            line.send(sealer, home, body, headers)
        return place, line.held(home, len(bodies)), world.sealer(policy)

    @staticmethod
    def _refused(world: World, line: Line, sealer: Sealer, place: str) -> Verdict:
        """Receive until one message was refused, none handed on; return the verdict."""
        with line.receiving(sealer, place) as receiving:
            receiving.until(lambda: bool(world.events))
        assert receiving.bodies == []
        [event] = world.events
        return event.verdict

    @staticmethod
    def _dead_letters(line: Line, receiving: Receiving, dead: str) -> list[Raw]:
        """Receive on until a dead letter lies there: some brokers move it only after a few deliveries."""
        receiving.until(lambda: line.has_message(dead))
        return line.held(dead, 1)

    @staticmethod
    def _arranged(line: Line, bodies: list[bytes | None]) -> list[bytes | None]:
        return bodies if line.ordered else sorted(bodies, key=lambda body: body or b"")


class LedgerContract:
    """For adapters that see messages settled: to be inherited with the fixture ``line``, too."""

    direct: ClassVar[bool] = False

    def test_redelivery_is_delivered(self, line: Line) -> None:
        """What was not settled comes again, as brokers do, and is no replay."""
        world, place = World(line, direct=self.direct), line.place()
        policy = world.policy(place, on_duplicate="refuse", on_refused="discard")
        line.send(world.sealer(policy, ledger=MemoryLedger()), place, ORDER)
        consumer = world.sealer(policy, ledger=MemoryLedger())
        for settles in (False, False, True):
            with line.receiving(consumer, place, settles=settles) as receiving:
                assert receiving.take(1) == [ORDER]
        assert world.events == []

    @pytest.mark.parametrize("on_duplicate", ["deliver", "settle", "refuse"])
    def test_a_replay_after_settlement_follows_its_policy(self, line: Line, on_duplicate: str) -> None:
        """A9: an old copy, put where it was: one event, and the handler is called only where the policy says so."""
        world, place, raw, consumer = self._settled(line, on_duplicate=on_duplicate, on_refused="discard")
        line.put(place, raw)
        delivered = [ORDER] if on_duplicate == "deliver" else []
        with line.receiving(consumer, place) as receiving:
            receiving.until(lambda: len(receiving.bodies) >= len(delivered) and bool(world.events))
            line.send(consumer, place, b"behind it")
            receiving.until(lambda: b"behind it" in receiving.bodies)
        assert receiving.bodies == [*delivered, b"behind it"]
        assert world.verdicts() == [Verdict.DUPLICATE]
        [event] = world.events
        assert event.coordinates
        assert event.handed_on == (on_duplicate == "deliver")
        with line.receiving(consumer, place) as receiving:  # all of it was settled
            line.send(consumer, place, b"later")
            assert receiving.take(1) == [b"later"]

    def test_another_body_under_the_same_id_is_refused(self, line: Line) -> None:
        """A9: whoever holds a sender's keys may choose ids; one that is taken is an attack, whatever on_duplicate says."""
        world, place = World(line, direct=self.direct), line.place()
        policy = world.policy(place, on_refused="discard")
        forger = world.sealer(policy, random=_one_id)
        consumer = world.sealer(policy, ledger=MemoryLedger())
        with line.receiving(consumer, place) as receiving:
            line.send(forger, place, ORDER)
            assert receiving.take(1) == [ORDER]
            line.send(forger, place, b"another order")
            receiving.until(lambda: bool(world.events))
        assert receiving.bodies == [ORDER]
        assert world.verdicts() == [Verdict.CONFLICT]

    def test_a_rewind_that_is_allowed_delivers_again(self, line: Line) -> None:
        """An old copy that an operator puts back, from the dead letters or by setting offsets back: one event for the window, none for each."""
        world, place, raw, consumer = self._settled(line, on_duplicate="refuse", on_refused="discard")
        now, hour = datetime.now(UTC), timedelta(hours=1)
        destination = f"{line.scheme}:{place}"
        with consumer.replay_allowed(
            destination, now - hour, now + hour, reason="redrive, ticket 4711"
        ) as window:
            line.put(place, raw)
            with line.receiving(consumer, place) as receiving:
                assert receiving.take(1) == [ORDER]
        assert window.count == 1
        [event] = world.events
        assert "ticket 4711" in event.detail
        line.put(place, raw)
        with line.receiving(consumer, place) as receiving:
            receiving.until(lambda: len(world.events) >= 2)
        assert receiving.bodies == []
        assert world.verdicts() == [Verdict.REDELIVERY, Verdict.DUPLICATE]

    def test_a_crash_between_receiving_and_settling_loses_nothing(self, line: Line, tmp_path: Path) -> None:
        """The next process gets it; what that settles, a third one knows."""
        world, place = World(line, direct=self.direct), line.place()
        policy = world.policy(place)
        line.send(world.sealer(policy), place, ORDER)
        [raw] = line.held(place, 1)
        ledgers = [SqliteLedger(tmp_path / "ledger.db") for _ in range(3)]
        crashed, next_one, third = (world.sealer(policy, ledger=ledger) for ledger in ledgers)
        for sealer, settles in ((crashed, False), (next_one, True)):
            with line.receiving(sealer, place, settles=settles) as receiving:
                assert receiving.take(1) == [ORDER]
        assert world.events == []
        line.put(place, raw)
        with line.receiving(third, place) as receiving:
            assert receiving.take(1) == [ORDER]
        assert world.verdicts() == [Verdict.DUPLICATE]
        for ledger in ledgers:
            ledger.close()

    def test_an_absent_ledger_loses_nothing(self, line: Line) -> None:
        """While it is away nothing is handed on and nothing settled; then all is, once."""
        world, place, ledger = World(line, direct=self.direct), line.place(), Away()
        policy = world.policy(place)
        bodies = [b"order %d" % number for number in range(3)]
        for body in bodies:
            line.send(world.sealer(policy), place, body)
        with line.receiving(world.sealer(policy, ledger=ledger), place) as receiving:
            receiving.until(lambda: ledger.asked >= 2)
            assert receiving.bodies == []
            ledger.away = False
            came = receiving.take(3)
        assert sorted(body or b"" for body in came) == bodies
        assert world.events == []
        assert receiving.refused == []

    def _settled(self, line: Line, **options: Any) -> tuple[World, str, Raw, Sealer]:
        """Send a message and settle it; return a copy of it as the broker had it, and the sealer that settled it."""
        world, place = World(line, direct=self.direct), line.place()
        policy = world.policy(place, **options)
        consumer = world.sealer(policy, ledger=MemoryLedger())
        line.send(consumer, place, ORDER)
        [raw] = line.held(place, 1)
        with line.receiving(consumer, place) as receiving:
            assert receiving.take(1) == [ORDER]
        assert world.events == []
        return world, place, raw, consumer


class Away(MemoryLedger):
    """A ledger whose server is away until it is told otherwise."""

    def __init__(self) -> None:
        super().__init__()
        self.away = True
        self.asked = 0

    def meet(self, receipt: Receipt) -> Verdict:
        self.asked += 1
        if self.away:
            raise LedgerUnavailable("away")
        return super().meet(receipt)


def _one_id(size: int) -> bytes:
    """Random bytes of a sealer whose messages all have one id: behind the nonce, where both are drawn at once."""
    return os.urandom(size - 16) + bytes(16) if size >= 16 else os.urandom(size)


class BinaryBodies:
    """For brokers whose bodies need not be text."""

    direct: ClassVar[bool] = False

    @pytest.mark.parametrize(
        "body",
        [
            pytest.param(bytes(range(256)), id="all bytes"),
            pytest.param(b"\x00", id="zero"),
            pytest.param(b"\xd8\x60", id="begins like an envelope"),
            pytest.param(b"\xff" * 500_000, id="500 kB"),
        ],
    )
    def test_a_binary_body_comes_back_as_it_was(self, line: Line, body: bytes) -> None:
        world = World(line, direct=self.direct)
        place = line.place()
        policy = world.policy(place)
        body = body[:DIRECT] if self.direct else body
        line.send(world.sealer(policy), place, body)
        with line.receiving(world.sealer(policy), place) as receiving:
            assert receiving.take(1) == [body]


class NullBodies:
    """For brokers that have messages without a body."""

    direct: ClassVar[bool] = False

    def test_a_message_without_a_body_stays_one(self, line: Line) -> None:
        """A Kafka tombstone deletes by being null: sealed, it would delete nothing."""
        world = World(line, direct=self.direct)
        place = line.place()
        policy = world.policy(place)
        sealer = world.sealer(policy)
        for body in (b"one", None, b"", b"two"):
            line.send(sealer, place, body)
        held = [raw.body for raw in line.held(place, 4)]
        assert held[1] is None
        assert all(held[at] for at in (0, 2, 3))
        with line.receiving(world.sealer(policy), place) as receiving:
            assert receiving.take(4) == [b"one", None, b"", b"two"]
        assert world.events == []


class EncryptedHeaders:
    """For flavours that can take headers out of a message, and put them back."""

    direct: ClassVar[bool] = False

    def test_an_encrypted_header_arrives_and_the_broker_never_has_it(self, line: Line) -> None:
        """A1: neither its value nor its name; A9: and it was authenticated."""
        world = World(line, direct=self.direct)
        place = line.place()
        policy = world.policy(place, encrypt_headers=["patient", "absent"])
        sealer = world.sealer(policy)
        headers = {"patient": "Zoe Beispiel"}
        line.send(sealer, place, ORDER, headers)
        line.send(sealer, place, b"second", None)
        assert headers == {"patient": "Zoe Beispiel"}
        for raw in line.held(place, 2):
            assert "patient" not in raw.headers
            assert b"patient" not in (raw.body or b"")
            assert b"Zoe Beispiel" not in line.envelope(raw.body or b"")
        with line.receiving(world.sealer(policy), place) as receiving:
            receiving.take(2)
        found = dict(zip(receiving.bodies, receiving.headers, strict=True))
        assert found[ORDER]["patient"] == "Zoe Beispiel"
        assert "patient" not in found[b"second"]
        assert "absent" not in found[ORDER]
        assert world.events == []

    @pytest.mark.parametrize("beside", ["patient", "Patient", "absent"], ids=["same", "other case", "absent"])
    def test_a_header_beside_that_was_to_be_encrypted_is_refused(self, line: Line, beside: str) -> None:
        """A9: never handed on as if it had been sealed."""
        world = World(line, direct=self.direct)
        home, place = line.place(), line.place()
        policy = world.policy(
            home, accept_from=[f"{line.scheme}:{place}"], encrypt_headers=["patient", "absent"]
        )
        line.send(world.sealer(policy), home, ORDER, {"patient": "Zoe"})
        [raw] = line.held(home, 1)
        line.put(place, replace(raw, headers={**raw.headers, beside: "Mallory"}))
        with line.receiving(world.sealer(policy), place) as receiving:
            receiving.until(lambda: bool(world.events))
        assert receiving.bodies == []
        assert world.verdicts() == [Verdict.FORGED]

    def test_a_message_without_a_frame_is_refused_where_headers_are_encrypted(self, line: Line) -> None:
        """A9: a downgrade, and no call to the key service."""
        world = World(line, direct=self.direct)
        place = line.place()
        line.send(world.sealer(world.policy(place)), place, ORDER)
        sealer = world.sealer(world.policy(place, encrypt_headers=["patient"]))
        with line.receiving(sealer, place) as receiving:
            receiving.until(lambda: bool(world.events))
        assert receiving.bodies == []
        assert world.verdicts() == [Verdict.DOWNGRADE]
        assert world.keys.opened == 0

    def test_producers_can_encrypt_headers_before_their_consumers_demand_it(self, line: Line) -> None:
        world = World(line, direct=self.direct)
        place = line.place()
        line.send(
            world.sealer(world.policy(place, encrypt_headers=["patient"])), place, ORDER, {"patient": "Zoe"}
        )
        with line.receiving(world.sealer(world.policy(place)), place) as receiving:
            receiving.take(1)
        assert receiving.headers[0]["patient"] == "Zoe"

    def test_what_is_not_sealed_keeps_its_headers(self, line: Line) -> None:
        """Where the mode seals nothing, nothing is taken out either."""
        world = World(line, direct=self.direct)
        place = line.place()
        policy = world.policy(place, encrypt_headers=["patient"], mode="off")
        line.send(world.sealer(policy), place, ORDER, {"patient": "Zoe"})
        [raw] = line.held(place, 1)
        assert raw.headers["patient"] == "Zoe"

    def test_an_envelope_that_is_sent_again_takes_no_clear_header_along(self, line: Line) -> None:
        """A10: what is inside stays inside; what would go out in clear beside it does not go out."""
        world = World(line, direct=self.direct)
        place = line.place()
        sealer = world.sealer(world.policy(place, encrypt_headers=["patient"]))
        line.send(sealer, place, ORDER, {"patient": "Zoe"})
        [raw] = line.held(place, 1)
        with pytest.raises(Refused):
            line.send(sealer, place, raw.body, {"patient": "Zoe"})
        line.send(sealer, place, raw.body, None)
        assert all("patient" not in each.headers for each in line.held(place, 2))
