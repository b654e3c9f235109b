"""`Sealer`: seals messages in the producer, opens them in the consumer, as the policies say."""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, Self, TypeAlias, TypeVar

from postseal.core.accelerator import Native, native
from postseal.core.context import Headers, check_destination
from postseal.core.crypto import HmacContext, MessageKey, RandomBytes, random_bytes
from postseal.core.datakeys import CacheCounts, CacheTallies, Calls, OpenedKey, SealingKeys
from postseal.core.errors import (
    ConfigError,
    KeyBroken,
    KeyRefused,
    KeyUnavailable,
    MissingExtraError,
    NotMine,
    PostsealError,
    Refused,
    TooLarge,
    Verdict,
    nearest,
)
from postseal.core.forking import ForkSafeLock
from postseal.core.incoming import Beside, Examined, Incoming
from postseal.core.keys import KeyContext, KeyProvider
from postseal.core.opened import Opened, Parts, Verified, reference_of, varying_of
from postseal.core.outgoing import LEAST_START, UNBOUND, Outgoing
from postseal.core.policy import Policies, Policy
from postseal.core.rules import Rules
from postseal.core.signing import Ask, KeyRing, deduplication_key
from postseal.core.wire import (
    MAX_BODY,
    REFERENCE_SIZE,
    SHORT_HEAD,
    TIME_MAX,
    TIME_MIN,
    Envelope,
    decode,
    looks_sealed,
)

if TYPE_CHECKING:
    from postseal.core._native import Hand
    from postseal.core.audit import AlarmEvent, AlarmLimits, AuditEvent, AuditSink, FloodLimit
    from postseal.core.config import PolicySource, Reload, Watch
    from postseal.core.keys import ReferenceStore
    from postseal.core.references import References
    from postseal.core.replay import Ledger, Receipt, Register, ReplayWindow, Windows

__all__ = ["Kept", "SealAtHand", "Sealer", "Watcher"]

_MAX_DESTINATIONS: Final = 4096
"""Destinations whose precomputed parts are kept, in each direction."""

_MAX_ASKED: Final = 4
"""Calls that may be needed to tell whether one signature counts."""

_T = TypeVar("_T")
_K = TypeVar("_K")
_Where: TypeAlias = str | tuple[str, str]
"""A destination, or one and who reads there."""


class SealAtHand(Protocol):
    """What `Sealer.at_hand` returns."""

    def __call__(self, body: bytes, content_type: str | None = None, /) -> bytes | None:
        """Return the envelope of *body*, or None where it is no common case."""


class Kept(Protocol):
    """What is made of policies and kept."""

    def clear(self) -> None:
        """Forget it."""
        ...


class Watcher(Protocol):
    """What ``Sealer(telemetry=...)`` takes."""

    def watch(self, sealer: Sealer, /) -> None:
        """Measure *sealer*."""
        ...

    def watched(self, name: str, provider: KeyProvider, /) -> KeyProvider:
        """Return *provider* with its calls measured, as the one of that *name*."""
        ...


class Sealer:
    """Seals and opens messages as *policies* say. One for a process; safe for threads and tasks.

    A working program::

        keys = UnsafeLocalKeys.ephemeral()
        orders = Policy(name="orders", destinations=["kafka:orders"], keys=["main"])
        sealer = Sealer(sender="billing-api", policies=[orders], keys={"main": keys})
        envelope = sealer.seal(b"4111 1111 1111 1111", destination="kafka:orders")
        assert sealer.open(envelope, destination="kafka:orders").body == b"4111 1111 1111 1111"

    Args:
        sender: Who we are; travels in each message as ``iss``.
        policies: What must be done for which destination.
        keys: Key providers by the names that policies use.
        signers: Key rings by the names that policies use.
        ledger: Knows which messages were settled: tells redeliveries from duplicates, and refuses conflicts. None asks nobody.
        references: Where data keys are published that messages carry by reference: `SqliteReferences`, `DynamoReferences` and their kin.
            Sealing needs it where a policy says ``key_by_reference``, opening wherever such messages come.
        deduplication_secret: At least 32 random bytes that all producers share and never change with other keys: keeps content-based
            deduplication working on brokers that have it (SQS FIFO).
        verify_only: For gateways: `verify` works, with no *keys* given whatever the policies name, and neither sealing nor opening does. It
            takes no private keys.
        on_audit: Called with each `AuditEvent`.
        audit: Where events are written, beside `logging`: `AuditFile`, `AuditSyslog`.
        audit_log: How many events `logging` is told whole; "usual" is ``FloodLimit()``, None all of them.
        alarm: When refused messages are so many that the alarm is raised; "usual" is ``AlarmLimits()``, None never.
        on_alarm: Called with each `AlarmEvent`: once when it is raised, once when it is over.
        telemetry: Measures this sealer and its calls to key services: `postseal.core.telemetry.Telemetry`.
        clock: Nanoseconds since the epoch.
        monotonic: Seconds; runs the caches.
        random: Gives random bytes. Only for test vectors.

    Raises:
        ConfigError: Something is wrong with the above; the text names it and the nearest right one.
    """

    def __init__(
        self,
        *,
        sender: str,
        policies: Iterable[Policy],
        keys: Mapping[str, KeyProvider] | None = None,
        signers: Mapping[str, KeyRing] | None = None,
        ledger: Ledger | None = None,
        references: ReferenceStore | None = None,
        deduplication_secret: bytes | None = None,
        verify_only: bool = False,
        on_audit: Callable[[AuditEvent], None] | None = None,
        audit: Iterable[AuditSink] = (),
        audit_log: FloodLimit | Literal["usual"] | None = "usual",
        alarm: AlarmLimits | Literal["usual"] | None = "usual",
        on_alarm: Callable[[AlarmEvent], None] | None = None,
        telemetry: Watcher | None = None,
        clock: Callable[[], int] = time.time_ns,
        monotonic: Callable[[], float] = time.monotonic,
        random: RandomBytes = random_bytes,
    ) -> None:
        self._tallies = {"sealing": CacheTallies(), "opening": CacheTallies()}
        self._rules = Rules(
            sender=sender,
            policies=policies,
            keys=keys or {},
            signers=signers or {},
            verify_only=verify_only,
            monotonic=monotonic,
            tallies=self._tallies["opening"],
            watched=None if telemetry is None else telemetry.watched,
        )
        self.generation = 0
        """How often other rules were taken over. Who keeps what a policy says looks at it."""
        self._kept: list[weakref.ref[Kept]] = []
        self._source: PolicySource | None = None
        self._given: Mapping[str, Any] = {}
        """What the program said in the place of the file."""
        self._watch: Watch | None = None
        # Loaded with the first sealer: `import postseal.core` is to be quick.
        from postseal.core.audit import Auditor  # noqa: PLC0415

        self.auditor = Auditor(
            on_audit,
            **_auditing({"audit": audit, "audit_log": audit_log, "alarm": alarm}),
            on_alarm=on_alarm,
            clock=clock,
            monotonic=monotonic,
        )
        self.ledger = ledger
        _check_ledger(ledger, self._rules.policies)
        self._references: References | None = None
        if references is not None:
            from postseal.core.references import References  # noqa: PLC0415 - for who has some alone

            self._references = References(references, clock=monotonic)
        self._reference_store = references
        _check_references(self._references, self._rules.policies)
        self._windows: Windows | None = None
        from postseal.core.replies import Requests  # noqa: PLC0415 - as the audit

        self.requests = Requests()
        """What was asked and heard, and may yet be answered: for adapters."""
        self._clock = clock
        self._monotonic = monotonic
        self._random = random
        self._deduplication: tuple[bytes | None, dict[str, HmacContext]] = deduplication_secret, {}
        if deduplication_secret is not None:
            deduplication_key(deduplication_secret, "")  # complains now, if it must
        self._lock = ForkSafeLock()
        self._calls: Calls[None] = Calls()
        self._reloading = ForkSafeLock()
        self._outgoing: dict[str, Outgoing] = {}
        self._incoming: dict[_Where, Incoming] = {}
        self._verify_only = verify_only
        self._telemetry = telemetry
        if telemetry is not None:
            telemetry.watch(self)

    @classmethod
    def from_file(
        cls,
        path: str | os.PathLike[str],
        *,
        sender: str | None = None,
        keys: Mapping[str, KeyProvider] | None = None,
        signers: Mapping[str, KeyRing] | None = None,
        verify_only: bool = False,
        watch: bool | float = False,
        on_reload: Callable[[Reload], None] | None = None,
        **options: Any,
    ) -> Self:
        """Make a sealer of the policy file at *path*.

        Args:
            path: Of a TOML file; docs/policy.md says what stands in it.
            sender: Who we are, in the place of what the file says.
            keys: Key providers by name, in the place of the file's: on clients of your own.
            signers: Key rings by name, likewise.
            verify_only: As for the class; no key provider is made then.
            watch: Seconds between looks whether the file has changed, or what it refers to; True for 5. Then it is read again, by
                `reload`. A file with a mistake leaves what was before in force.
            on_reload: Called with a `Reload` each time.
            **options: As for the class: ``on_audit`` and so on; in the place of what the file says.

        Raises:
            PolicyFileError: The file is wrong. It carries all mistakes, each with its line.
            ConfigError: There is no such file.
            MissingExtraError: A key service of the file needs a library that is not installed.
        """
        from postseal.core.config import PolicySource, Watch  # noqa: PLC0415 - loaded by who has a file

        source = PolicySource(
            path,
            sender=sender,
            keys=keys or {},
            signers=signers or {},
            verify_only=verify_only,
            on_reload=on_reload,
        )
        settings = source.read()
        if "audit" in options:
            options["audit"] = tuple(options["audit"])
        sealer = cls(**{**settings.arguments, **options}, verify_only=verify_only)
        source.take(settings)
        sealer._source, sealer._given = source, options
        if watch:
            sealer._watch = Watch(sealer, source, 5.0 if watch is True else float(watch))
        return sealer

    def reload(self) -> Reload:
        """Read the policy file again, and have what it says now in force.

        Messages that are under way end as they began. What has not changed stays as it is: data keys at hand, clients, key rings; so this
        costs no call to a key service. Safe in any thread.

        Raises:
            PolicyFileError: The file is wrong. What was before stays in force, in all of these.
            ConfigError: There is no such file, or the sealer was not made of one.
            MissingExtraError: A key service of the file needs a library that is not installed.
        """
        source = self._source
        if source is None:
            raise ConfigError(
                "this sealer was made of objects, not by Sealer.from_file: there is no file to read"
            )
        from postseal.core.config import Reload, compared  # noqa: PLC0415 - loaded, as there is a file

        with self._reloading:
            try:
                settings = source.read()
                rules = Rules(
                    **{name: settings.arguments[name] for name in ("sender", "policies", "keys", "signers")},
                    verify_only=self._verify_only,
                    monotonic=self._monotonic,
                    tallies=self._tallies["opening"],
                    watched=None if self._telemetry is None else self._telemetry.watched,
                    before=self._rules,
                )
                given = {**settings.arguments, **self._given}
                ledger, waits = self._ledger_after(given.get("ledger"))
                _check_ledger(ledger, rules.policies)
                _check_references(self._references, rules.policies)
                if given.get("references") is not self._reference_store:
                    waits += (
                        "references",
                    )  # what lies in the store of the start would not be found in another
                audit = _auditing(given)
            except (ConfigError, MissingExtraError) as error:
                source.tell(Reload(str(source.path), error))
                raise
            reload = compared(str(source.path), self.policies, tuple(rules.policies))._replace(waits=waits)
            self.auditor.take_over(**audit)
            self._take_over(rules, given.get("deduplication_secret"), ledger)
            source.take(settings)
        source.tell(reload)
        return reload

    def _ledger_after(self, wanted: Ledger | None) -> tuple[Ledger | None, tuple[str, ...]]:
        """Return the ledger that is in force after a reload, and which sections wait.

        Clients that are protected already tell a ledger, or none, what they settle; and one that lives in memory would know nothing if it
        were another. So both wait for the next start.
        """
        from postseal.core.replay import MemoryLedger  # noqa: PLC0415 - for who has a file

        ledger = self.ledger
        if wanted is ledger:
            return ledger, ()
        alike = type(wanted) is type(ledger) is MemoryLedger
        if wanted is None or ledger is None or alike:
            return ledger, ("ledger",)
        return wanted, ()

    def _take_over(self, rules: Rules, deduplication_secret: bytes | None, ledger: Ledger | None) -> None:
        """Have *rules* in force from now on: for a message, those of its beginning hold to its end."""
        with self._lock:
            before, self._rules = self._rules, rules
            self.ledger = ledger
            self._deduplication = deduplication_secret, {}
            for destination, way in tuple(self._outgoing.items()):
                if not before.seals_alike(rules, way.policy, destination):
                    del self._outgoing[destination]
            # What opens is made again of the data keys that `rules` took over. It knows all policies: where else its messages may lie.
            self._incoming.clear()
            self.generation += 1
            self._kept = [each for each in self._kept if each() is not None]
            for each in self._kept:
                if (kept := each()) is not None:
                    kept.clear()

    def forget_with(self, kept: Kept) -> None:
        """Have ``kept.clear()`` called when other rules are taken over: for adapters, which keep what a policy says.

        What is put there meanwhile may be of the rules before: who puts it looks at `generation` before and after.
        """
        with self._lock:
            self._kept.append(weakref.ref(kept))

    # -- sealing ---------------------------------------------------------------------------------------------------

    def seal(  # noqa: C901 - one step after the other; a call less for what is common
        self,
        body: bytes,
        *,
        destination: str,
        headers: Headers | None = None,
        content_type: str | None = None,
        content_encoding: str | None = None,
        ordering_key: bytes | None = None,
        expires_at: datetime | None = None,
        in_reply_to: Verified | str | None = None,
    ) -> bytes:
        """Seal *body* for *destination*.

        Args:
            body: 0 to 2**31 - 17 bytes.
            destination: The logical destination, ``scheme:name``.
            headers: Of the message; those that the policy binds are authenticated, and those that it encrypts travel in the envelope: do
                not send these beside it.
            content_type: Media type of *body*; travels in the envelope.
            content_encoding: The broker's property, if it is set; authenticated.
            ordering_key: Record key, group id; authenticated where the policy binds it.
            expires_at: With its time zone; the message will not open from then on. Whole seconds.
            in_reply_to: The request that this answers, as it was opened, or its `Opened.reference`: who asked opens it as the reply to no
                other.

        Returns:
            The envelope. *body* itself where the policy's mode seals nothing (off, observe), or where it is already an envelope for this
            destination that opens here: a message is never sealed twice.

        Raises:
            ConfigError: No policy speaks of *destination*, or this sender may not send there.
            KeyUnavailable: The key service did not answer. Retrying may help.
            KeyRefused: The key service said no.
            TooLarge: The body is over a limit.
            Refused: *body* is an envelope, but none that opens here.
        """
        try:
            way = self._outgoing[destination]
        except KeyError:
            way = self._make_outgoing(destination)
        if type(body) is not bytes:
            body = _as_bytes(body)
        if (  # the common case, with nothing looked at that need not be
            (plain := way.plain) is not None
            and (current := plain.key) is not None
            and headers is None
            and content_encoding is None
            and ordering_key is None
            and expires_at is None
            and in_reply_to is None
            and body < LEAST_START
            and (write := current.writers.get(content_type)) is not None
            and (sealed := write(body, UNBOUND, None, False))  # noqa: FBT003 - by position, which is quicker
        ):
            return sealed
        if way.passes:
            self._note_unsealed(way)
            return body
        if way.renewed is not None and way.renewed.due():
            way.renewed.renew()
        if (
            headers is None
            and content_encoding is None
            and ordering_key is None
            and not way.policy.bind_headers
        ):
            beside, external = None, UNBOUND
        else:
            beside = self._beside(way.policy, headers, content_encoding, ordering_key)
            external = beside.external(way.policy.bind_headers)
        if body[:1] >= LEAST_START and looks_sealed(body):
            return self._pass_sealed(way, body, destination, beside)
        expires = None if expires_at is None else _seconds(expires_at)
        reply = None if in_reply_to is None and not way.policy.bind_replies else _answers(way, in_reply_to)
        if way.frames:
            body = _frame(way.policy.encrypt_headers, beside and beside.headers, body)
        keys, size = way.keys, len(body)
        if size > MAX_BODY:
            raise _too_large(size)
        if keys is None:
            if way.policy.direct:
                return way.seal_direct(body, external, content_type, expires, reply)
            return way.sign(body, external, content_type, expires, reply)
        key = keys.cached(size) or keys.take(size)
        writers = key.writers if expires is None else key.expiring_writers
        write = (reply is None and writers.get(content_type)) or way.writer(key, content_type, expires, reply)
        return write(body, external, expires, True)  # noqa: FBT003

    async def aseal(
        self,
        body: bytes,
        *,
        destination: str,
        headers: Headers | None = None,
        content_type: str | None = None,
        content_encoding: str | None = None,
        ordering_key: bytes | None = None,
        expires_at: datetime | None = None,
        in_reply_to: Verified | str | None = None,
    ) -> bytes:
        """Like `seal`, without blocking the loop: with a cached data key it does not even yield."""
        way = self._outgoing.get(destination) or self._make_outgoing(destination)
        if (
            headers is None
            and content_type is None
            and content_encoding is None
            and ordering_key is None
            and expires_at is None
            and in_reply_to is None
            and (envelope := way.quick(body)) is not None
        ):
            return envelope
        body = _as_bytes(body)
        if way.passes:
            self._note_unsealed(way)
            return body
        if way.renewed is not None and way.renewed.due():
            await self._calls.run_async(way.renewed, way.renewed.renew)
        beside = self._beside(way.policy, headers, content_encoding, ordering_key)
        external = beside.external(way.policy.bind_headers)
        if body[:1] >= LEAST_START and looks_sealed(body):
            return await self._pass_sealed_async(way, body, destination, beside)
        expires = None if expires_at is None else _seconds(expires_at)
        reply = None if in_reply_to is None and not way.policy.bind_replies else _answers(way, in_reply_to)
        if way.frames:
            body = _frame(way.policy.encrypt_headers, beside.headers, body)
        keys, size = way.keys, len(body)
        if size > MAX_BODY:
            raise _too_large(size)
        if keys is None:
            if way.policy.direct:
                return await way.seal_direct_async(body, external, content_type, expires, reply)
            return way.sign(body, external, content_type, expires, reply)
        key = keys.cached(size) or await keys.take_async(size)
        writers = key.writers if expires is None else key.expiring_writers
        write = (reply is None and writers.get(content_type)) or way.writer(key, content_type, expires, reply)
        return write(body, external, expires, True)  # noqa: FBT003

    def at_hand(self, destination: str) -> SealAtHand:
        """Return a function that seals for *destination* at once, in the common case alone: for adapters, which call it for every message.

        It takes a body, and its content type where it has one, with nothing else beside it, and gives the envelope; or None, where there is
        anything to wait for or to look at: no data key at hand, a policy that binds headers or is not in force, a body that is no `bytes`
        or looks sealed. Then `seal` or `aseal` it.
        """
        outgoing = self._outgoing
        if (compiled := native()) is not None:
            return self._hand(compiled, outgoing, destination).seal

        def seal(body: bytes, content_type: str | None = None) -> bytes | None:
            # Looked up each time: so that `close`, and the end of a way that was not used for long, hold here too.
            way = outgoing.get(destination)
            if way is None:
                return None
            if (  # as `Outgoing.quick` begins, without another call
                (plain := way.plain) is not None
                and (current := plain.key) is not None
                and type(body) is bytes
                and body < LEAST_START
                and (write := current.writers.get(content_type)) is not None
                and (sealed := write(body, UNBOUND, None, False))  # noqa: FBT003 - by position, which is quicker
            ):
                return sealed
            return way.quick(body, content_type)

        return seal

    def note_unsealed(self, destination: str, messages: int = 1) -> None:
        """Count messages that go out as they are, because the mode of *destination* seals nothing: for adapters that do not `seal` then.

        What *enforce* would not seal is told of, where the mode is *observe*.
        """
        way = self._outgoing.get(destination) or self._make_outgoing(destination)
        for _ in range(messages):
            self._note_unsealed(way)

    def _note_unsealed(self, way: Outgoing) -> None:
        way.tally.tick()
        if way.policy.producing == "observe" and way.stranger is not None:
            from postseal.core.audit import AuditEvent  # noqa: PLC0415 - as in `__init__`

            self.auditor.tell(
                AuditEvent(
                    time=datetime.fromtimestamp(self._clock() / 1e9, UTC),
                    verdict=Verdict.UNKNOWN_SENDER,
                    detail="we are not among the senders of the policy, and send all the same: mode is observe",
                    destination=way.destination,
                    policy=way.policy.name,
                    handed_on=True,
                    let_through=True,
                    mode=way.policy.producing,
                )
            )

    def deduplication_id(self, body: bytes, *, destination: str) -> str:
        """Return the id by which a broker may know two messages of equal *body*: 64 hex digits that tell nothing about it.

        Raises:
            ConfigError: The sealer was made without a ``deduplication_secret``.

        Source: SPEC.md 12.
        """
        secret, known = self._deduplication
        keyed = known.get(destination)
        if keyed is None:
            if secret is None:
                raise ConfigError(
                    f"{destination!r} deduplicates by content, and no two ciphertexts are alike: "
                    "give the sealer a deduplication_secret, or each message an id of its own"
                )
            keyed = deduplication_key(secret, destination)
            if len(known) >= _MAX_DESTINATIONS:
                known.clear()
            known[destination] = keyed
        context = keyed.copy()
        context.update(body)
        return context.finalize().hex()

    def reference(self, envelope: bytes) -> str:
        """Return the `Opened.reference` of an *envelope* that this sealer made, to demand it of the reply.

        Raises:
            Refused: It is no envelope.
        """
        data = _as_bytes(envelope)
        header = decode(data if self._references is None else self._references.known(data)).header
        return reference_of(header, varying_of(header)).hex()

    # -- opening ---------------------------------------------------------------------------------------------------

    def open(
        self,
        envelope: bytes,
        *,
        destination: str,
        headers: Headers | None = None,
        content_encoding: str | None = None,
        ordering_key: bytes | None = None,
        coordinates: Mapping[str, str | int] | None = None,
        reader: str = "",
        is_delivery: bool = True,
        in_reply_to: Verified | str | None = None,
    ) -> Opened:
        """Open *envelope*, which lay at *destination*.

        Args:
            envelope: Any bytes.
            destination: Where it lay: the queue or topic that it was read from.
            headers: Of the message as it was received: all of them, so that none stands there which came encrypted.
            content_encoding: The broker's property, if it is set.
            ordering_key: Record key, group id; needed where the policy binds it.
            coordinates: Where the broker has it, for the audit event.
            reader: Who reads, where several each get a copy of every message: the queue of a fan-out, the subscription, the consumer group.
                To the ledger, each is a place of its own.
            is_delivery: False for what is only looked at and not received: the ledger is not asked.
            in_reply_to: The `reference` of the request that it has to answer; the reply to any other is refused, and what is no reply.

        Returns:
            The opened message.

        Raises:
            Refused: It will never be handed on; one audit event was made.
            KeyUnavailable: The key service, or the ledger, did not answer. Keep the message; retrying may help.
            ConfigError: No policy speaks of *destination*.

        Source: SPEC.md 8.
        """
        try:
            way = self._incoming[(destination, reader) if reader else destination]
        except KeyError:
            way = self._make_incoming(destination, reader)
        data = envelope if type(envelope) is bytes else _as_bytes(envelope)
        beside = None
        if (
            headers is not None
            or content_encoding is not None
            or ordering_key is not None
            or in_reply_to is not None
        ):
            beside = self._beside(way.policy, headers, content_encoding, ordering_key, in_reply_to)
        try:
            learnt = is_delivery and in_reply_to is None
            if learnt:
                # Most messages are like the one before: then nothing has to be looked up.
                if (latest := way.latest) is not None and (opened := latest(data, beside)) is not None:
                    return opened
                short = way.learnt.get(data[way.hint])
                if short is not None and short is not latest and (opened := short(data, beside)) is not None:
                    way.latest = short
                    return opened
            examined = self._asking(partial(self._examine, way, data, beside, coordinates, learnt=learnt))
            if isinstance(examined, Opened):
                return examined
            if way.policy.direct:
                opened = way.decrypt_direct(examined)
            else:
                opened = self._finish(way, examined, way.fetch(examined) if way.keyed else None)
            if way.register is None or not is_delivery:
                self._tell_late(examined, way, data, coordinates)
                way.tally.tick()
                return opened
            receipt = way.receipt(way.register, examined)
            verdict = way.register.ledger.meet(receipt)
            return self._judged(way, examined, opened, receipt, verdict, data=data, coordinates=coordinates)
        except (Refused, KeyRefused, KeyBroken, NotMine) as error:
            refused = self._refusal(error, way, data, coordinates)
            raise refused from _cause(error, refused)

    async def aopen(
        self,
        envelope: bytes,
        *,
        destination: str,
        headers: Headers | None = None,
        content_encoding: str | None = None,
        ordering_key: bytes | None = None,
        coordinates: Mapping[str, str | int] | None = None,
        reader: str = "",
        is_delivery: bool = True,
        in_reply_to: Verified | str | None = None,
    ) -> Opened:
        """Like `open`, without blocking the loop: with a cached data key it does not even yield."""
        where = (destination, reader) if reader else destination
        way = self._incoming.get(where) or self._make_incoming(destination, reader)
        data = envelope if type(envelope) is bytes else _as_bytes(envelope)
        beside = None
        if (
            headers is not None
            or content_encoding is not None
            or ordering_key is not None
            or in_reply_to is not None
        ):
            beside = self._beside(way.policy, headers, content_encoding, ordering_key, in_reply_to)
        try:
            learnt = is_delivery and in_reply_to is None
            if learnt:
                # Most messages are like the one before: then nothing has to be looked up.
                if (latest := way.latest) is not None and (opened := latest(data, beside)) is not None:
                    return opened
                short = way.learnt.get(data[way.hint])
                if short is not None and short is not latest and (opened := short(data, beside)) is not None:
                    way.latest = short
                    return opened
            examined = await self._asking_async(
                partial(self._examine, way, data, beside, coordinates, learnt=learnt)
            )
            if isinstance(examined, Opened):
                return examined
            if way.policy.direct:
                opened = await way.decrypt_direct_async(examined)
            else:
                opened = self._finish(way, examined, await way.fetch_async(examined) if way.keyed else None)
            if way.register is None or not is_delivery:
                self._tell_late(examined, way, data, coordinates)
                way.tally.tick()
                return opened
            receipt = way.receipt(way.register, examined)
            verdict = await way.register.ledger.ameet(receipt)
            return self._judged(way, examined, opened, receipt, verdict, data=data, coordinates=coordinates)
        except (Refused, KeyRefused, KeyBroken, NotMine) as error:
            refused = self._refusal(error, way, data, coordinates)
            raise refused from _cause(error, refused)

    def open_cached(
        self,
        envelope: bytes,
        *,
        destination: str,
        headers: Headers | None = None,
        content_encoding: str | None = None,
        ordering_key: bytes | None = None,
        coordinates: Mapping[str, str | int] | None = None,
        reader: str = "",
        is_delivery: bool = True,
        in_reply_to: Verified | str | None = None,
    ) -> Opened | None:
        """Like `open`, where that need not wait for the key service or the ledger; else do nothing and return None.

        For event loops that are not asyncio's: what returns None is opened in another thread.

        Raises:
            Refused: It will never be handed on; one audit event was made.
            ConfigError: No policy speaks of *destination*.
        """
        where = (destination, reader) if reader else destination
        way = self._incoming.get(where) or self._make_incoming(destination, reader)
        data = envelope if type(envelope) is bytes else _as_bytes(envelope)
        beside = None
        if (
            headers is not None
            or content_encoding is not None
            or ordering_key is not None
            or in_reply_to is not None
        ):
            beside = self._beside(way.policy, headers, content_encoding, ordering_key, in_reply_to)
        try:
            learnt = is_delivery and in_reply_to is None
            if learnt and (quick := _like_before(way, data, beside)) is not None:
                return quick
            examined = self._examine(way, data, beside, coordinates, learnt=learnt)
            if isinstance(examined, Opened):
                return examined
            register = way.register if is_delivery else None
            key = way.cached(examined) if way.keyed else None
            waits = way.policy.direct or (key is None and way.keyed)
            if waits or (register is not None and register.ledger.waits):
                return None
            opened = self._finish(way, examined, key)
            if register is None:
                self._tell_late(examined, way, data, coordinates)
                way.tally.tick()
                return opened
            receipt = way.receipt(register, examined)
            verdict = register.ledger.meet(receipt)
            return self._judged(way, examined, opened, receipt, verdict, data=data, coordinates=coordinates)
        except Ask:
            return None
        except (Refused, KeyRefused, KeyBroken, NotMine) as error:
            refused = self._refusal(error, way, data, coordinates)
            raise refused from _cause(error, refused)

    def open_at_hand(self, destination: str, reader: str = "") -> Callable[[bytes], Opened | None]:
        """Return a function that opens what lay at *destination* at once, in the common case alone: for adapters, as `at_hand`.

        It takes an envelope with no content encoding and no ordering key beside it, and gives what was opened; or None, where there is
        anything more to do: an envelope unlike those that were opened before, one that binds headers, one that is to be refused, clear
        text. Then open it by another verb, which alone refuses and tells of it.
        """
        incoming, where = self._incoming, (destination, reader) if reader else destination
        if (compiled := native()) is not None:
            return self._hand(compiled, incoming, where).open

        def open_(envelope: bytes) -> Opened | None:
            # Looked up each time, as in `at_hand`.
            way = incoming.get(where)
            if way is None or type(envelope) is not bytes:
                return None
            # As `Incoming.quick`, without another call.
            if (short := way.plain.get(envelope[way.hint])) is None:
                return None
            try:
                return short(envelope, None)
            except (Refused, KeyUnavailable):
                return None

        return open_

    def body_at_hand(self, destination: str) -> Callable[[bytes], bytes | None]:
        """Like `open_at_hand`, for who needs the body alone: it gives None, too, where the ledger is to be told of the message."""
        incoming = self._incoming
        if (compiled := native()) is not None:
            return self._hand(compiled, incoming, destination).body

        def open_body(envelope: bytes) -> bytes | None:
            way = incoming.get(destination)  # looked up each time, as in `at_hand`
            return None if way is None else way.quick_body(envelope)

        return open_body

    def parts_at_hand(self, destination: str, reader: str = "") -> Callable[[bytes], Parts | None]:
        """Like `open_at_hand`, for who needs body, content type and receipt alone. Without a ledger, the receipt is None."""
        incoming, where = self._incoming, (destination, reader) if reader else destination
        if (compiled := native()) is not None:
            return self._hand(compiled, incoming, where).parts

        def open_parts(envelope: bytes) -> Parts | None:
            way = incoming.get(where)  # looked up each time, as in `at_hand`
            return None if way is None else way.quick_parts(envelope)

        return open_parts

    @staticmethod
    def _hand(compiled: Native, ways: Mapping[Any, Any], at: str | tuple[str, str]) -> Hand:
        return compiled.hand(
            ways=ways, at=at, unbound=UNBOUND, least=LEAST_START[0], refusals=(Refused, KeyUnavailable)
        )

    def verify(
        self,
        envelope: bytes,
        *,
        destination: str,
        headers: Headers | None = None,
        content_encoding: str | None = None,
        ordering_key: bytes | None = None,
        coordinates: Mapping[str, str | int] | None = None,
        in_reply_to: Verified | str | None = None,
    ) -> Verified:
        """Verify a signed message without opening it: needs no right to any data key, and asks no key service.

        Raises:
            Refused: As `open` would, by any step before the key service.
            ConfigError: The policy signs nothing.
        """
        way = self._incoming.get(destination) or self._make_incoming(destination)
        if way.policy.sign is None:
            raise ConfigError(
                f"policy {way.policy.name!r} signs nothing, so nothing can be verified without opening"
            )
        data = _as_bytes(envelope)
        beside = self._beside(way.policy, headers, content_encoding, ordering_key, in_reply_to)
        try:
            examined = self._asking(lambda: way.examine(self._whole(data), beside))
        except (Refused, KeyRefused) as error:
            refused = self._refusal(error, way, data, coordinates)
            raise refused from _cause(error, refused)
        self._tell_late(examined, way, data, coordinates)
        way.tally.tick()
        return way.verified(examined)

    # -- the ledger ------------------------------------------------------------------------------------------------

    def settled(self, *messages: Opened | Receipt) -> None:
        """Note in the ledger that *messages* are settled. Adapters do it; whoever opens by hand calls it just before he settles.

        A message that is given back to its broker is not settled: then call nothing. Clear text, and anything where there is no ledger, is
        passed over.

        Args:
            messages: What `open` gave, or its ``receipt``, which does not hold the body.

        Raises:
            LedgerUnavailable: The ledger did not answer. Do not settle; trying again may help.
        """
        if self.ledger is not None and (receipts := _receipts(messages)):
            self.ledger.settle(receipts)

    def unsettled(self, *messages: Opened | Receipt) -> None:
        """Take back what `settled` noted: the broker did not take it, so the messages come again.

        Raises:
            LedgerUnavailable: The ledger did not answer; those messages will count as duplicates.
        """
        if self.ledger is not None and (receipts := _receipts(messages)):
            self.ledger.unsettle(receipts)

    async def asettled(self, *messages: Opened | Receipt) -> None:
        """Like `settled`, without blocking the loop."""
        if self.ledger is not None and (receipts := _receipts(messages)):
            await self.ledger.asettle(receipts)

    async def aunsettled(self, *messages: Opened | Receipt) -> None:
        """Like `unsettled`, without blocking the loop."""
        if self.ledger is not None and (receipts := _receipts(messages)):
            await self.ledger.aunsettle(receipts)

    def replay_allowed(
        self, destination: str, since: datetime, until: datetime, *, reason: str, lasts: float = 3600.0
    ) -> ReplayWindow:
        """Let messages that were settled be delivered again: for a deliberate rewind, such as offsets that are set back.

        They have the verdict *redelivery*, make no event each, and are counted in the window. Opening it makes one event. It holds in this
        process, for messages in conflict never.

        Args:
            destination: Where they lie or were sent to; one name, no pattern.
            since: When they were sent, at the earliest, with its time zone.
            until: When they were sent, at the latest.
            reason: Why, in a line for the auditor.
            lasts: Seconds after which the window ends; at most a week. `ReplayWindow.close` ends it before.

        Raises:
            ConfigError: Something is wrong with the above, or no policy speaks of *destination*, or there is no ledger.
        """
        way = self._make_incoming(destination)
        if self.ledger is None:
            raise ConfigError("this sealer has no ledger: whatever comes again is delivered")
        from postseal.core.replay import Windows  # noqa: PLC0415 - loaded, as there is a ledger

        with self._lock:
            if self._windows is None:
                self._windows = Windows()
            now = datetime.fromtimestamp(self._clock() / 1e9, UTC)
            window = self._windows.open(destination, since, until, reason=reason, now=now, lasts=lasts)
        from postseal.core.audit import AuditEvent  # noqa: PLC0415 - as in `__init__`

        self.auditor.tell(
            AuditEvent(
                time=now,
                verdict=Verdict.REDELIVERY,
                detail=f"what was sent from {since.isoformat()} to {until.isoformat()} may be delivered again "
                f"until {window.ends.isoformat()}: {reason}",
                destination=destination,
                policy=way.policy.name,
                handed_on=True,
                mode=way.mode,
            )
        )
        return window

    def _judged(
        self,
        way: Incoming,
        examined: Examined,
        opened: Opened,
        receipt: Receipt,
        verdict: Verdict,
        *,
        data: bytes,
        coordinates: Mapping[str, str | int] | None,
    ) -> Opened:
        """Do step 12: hand on *opened* with the ledger's *verdict*, or refuse it. Source: SPEC.md 8.1."""
        if verdict is Verdict.CONFLICT:
            raise Refused(verdict, "another message of its sender had its id")
        if (
            verdict is Verdict.DUPLICATE
            and self._windows
            and self._windows.admit(
                (way.destination, opened.destination or ""), opened.sent_ms, self._clock() / 1e9
            )
        ):
            verdict = Verdict.REDELIVERY
        if examined.late is not None:  # which would have been refused before the ledger was asked
            self._tell_late(examined, way, data, coordinates)
        elif verdict is Verdict.DUPLICATE:
            if way.policy.on_duplicate == "deliver":
                detail = "it was settled here before, and is handed on all the same"
                self._tell_handed_on(verdict, detail, way, data, coordinates)
            elif way.mode == "observe":
                self._tell_let_through(verdict, "it was settled here before", way, data, coordinates)
            else:
                raise Refused(verdict, "it was settled here before")
        way.tally.tick()
        return opened.judged(verdict, receipt)

    # -- the rest --------------------------------------------------------------------------------------------------

    @property
    def policies(self) -> tuple[Policy, ...]:
        """All policies."""
        return tuple(self._rules.policies)

    @property
    def binds_replies(self) -> bool:
        """Whether any policy says so."""
        return self._rules.binds_replies

    @property
    def sender(self) -> str:
        """Who we are."""
        return self._rules.sender

    @property
    def key_providers(self) -> tuple[KeyProvider, ...]:
        """What makes and unwraps the data keys of each policy, as it is asked."""
        return tuple(self._rules.providers.values())

    @property
    def data_keys_at_hand(self) -> dict[str, int]:
        """How many data keys are cached, for ``sealing`` and for ``opening``."""
        with self._lock:
            ways = [
                way for way in self._outgoing.values() if way.keys is not None and way.keys.key is not None
            ]
            return {"sealing": len(ways), "opening": sum(keys.held for keys in self._rules.opening.values())}

    @property
    def key_rings(self) -> frozenset[KeyRing]:
        """The key rings of all policies."""
        return frozenset(self._rules.rings.values())

    @property
    def caches(self) -> dict[str, CacheCounts]:
        """What the caches of data keys have done, and what they hold: ``sealing`` and ``opening``."""
        with self._lock:
            outgoing = {name: way for name, way in self._outgoing.items() if way.keys is not None}
            incoming = {way.destination for way in self._incoming.values() if way.keys is not None}
            opening = list(self._rules.opening.values())
        sealed, passed = self.auditor.sealed.values_now, self.auditor.passed.values_now
        return {
            "sealing": self._tallies["sealing"].counts(
                sum(sealed.get(name, 0) for name in outgoing),
                chain.from_iterable(way.keys.states() for way in outgoing.values() if way.keys is not None),
            ),
            "opening": self._tallies["opening"].counts(
                sum(passed.get(name, 0) for name in incoming),
                chain.from_iterable(keys.states() for keys in opening),
            ),
        }

    def policy_for(self, destination: str) -> Policy:
        """Return the policy in force at *destination*.

        Raises:
            ConfigError: None speaks of it.
        """
        way = self._incoming.get(destination) or self._make_incoming(destination)
        return way.policy

    def close(self) -> None:
        """Forget all data keys, write what the audit held back, look after the policy file no more.

        The sealer can go on; it will ask for new keys.
        """
        if self._watch is not None:
            self._watch.end()
        self._drop()
        self.auditor.close()

    def purge(self) -> None:
        """Forget everything that the key services said: data keys, what did not unwrap, and the wrapping keys that providers keep.

        The next message of each destination asks anew. So a right that was withdrawn ends here at once, and not after
        `OpeningLimits.max_age`: call it in each process after a key was disabled or a right taken back. Calls that are under way serve the
        messages that wait for them, and no other.
        """
        self._drop()
        self._rules.forget()

    def _drop(self) -> None:
        """Forget all data keys, and what was learnt with them."""
        with self._lock:
            for outgoing in self._outgoing.values():
                if outgoing.keys is not None:
                    outgoing.keys.drop()
            for incoming in self._incoming.values():
                incoming.forget()
            for opening in self._rules.opening.values():
                opening.drop()
            for bodies in self._rules.direct.values():
                bodies.drop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _make_outgoing(self, destination: str) -> Outgoing:
        check_destination(destination)
        with self._lock:  # also for the look at the rules: others may just be taken over
            rules = self._rules
            policy = rules.policies.find(destination)
            if self._verify_only and policy.seals:
                raise ConfigError("this sealer was made with verify_only=True: it seals nothing")
            if (way := self._outgoing.get(destination)) is not None:
                return way
            keys = None
            if (provider := rules.providers.get(policy.name)) is not None and not policy.direct:
                context = KeyContext(policy.name, destination)
                keys = SealingKeys(
                    provider,
                    context,
                    policy.data_key,
                    clock=self._monotonic,
                    flights=rules.flights[policy.name],
                    tallies=self._tallies["sealing"],
                )
            way = Outgoing(
                rules.sender,
                destination,
                policy,
                keys,
                rules.rings.get(policy.name),
                direct=rules.direct.get(policy.name),
                clock=self._clock,
                monotonic=self._monotonic,
                random=self._random,
                tally=(self.auditor.sealed if policy.seals else self.auditor.unsealed)[
                    destination, policy.producing
                ],
                shortening=self._references.shortening
                if policy.key_by_reference and self._references is not None
                else None,
            )
            _put(self._outgoing, destination, way)
            return way

    def _make_incoming(self, destination: str, reader: str = "") -> Incoming:
        check_destination(destination)
        where = (destination, reader) if reader else destination
        with self._lock:  # as above
            rules = self._rules
            policy = rules.policies.find(destination)
            if (way := self._incoming.get(where)) is not None:
                return way
            way = Incoming(
                destination,
                policy,
                rules.policies,
                rules.opening.get(policy.name),
                rules.rings.get(policy.name),
                direct=rules.direct.get(policy.name),
                register=self._register(policy, reader),
                clock=self._clock,
                monotonic=self._monotonic,
                tally=self.auditor.passed[destination, policy.consuming],
            )
            _put(self._incoming, where, way)
            return way

    def _register(self, policy: Policy, reader: str) -> Register | None:
        if self.ledger is None or policy.consuming == "off":
            return None
        from postseal.core.replay import Register  # noqa: PLC0415 - for who has a ledger alone

        age = policy.max_message_age
        # A message may be dated ahead by the skew, and is then stale so much later.
        return Register(
            self.ledger, reader, self.ledger.max_age if age is None else age + policy.max_clock_skew
        )

    @staticmethod
    def _beside(
        policy: Policy,
        headers: Headers | None,
        content_encoding: str | None,
        ordering_key: bytes | None,
        in_reply_to: Verified | str | None = None,
    ) -> Beside:
        answers = None if in_reply_to is None else _reference(in_reply_to)
        beside = Beside(
            headers, content_encoding, ordering_key if policy.bind_ordering_key else None, answers
        )
        return beside.kept() if policy.encrypt_headers else beside

    def _examine(
        self,
        way: Incoming,
        data: bytes,
        beside: Beside | None,
        coordinates: Mapping[str, str | int] | None,
        *,
        learnt: bool,
    ) -> Examined | Opened:
        """Do all steps before the key service; answer clear text where the mode lets it pass.

        What is in the short form is made whole; then it may be like one that was *learnt*.
        """
        mode = way.mode
        if mode != "enforce" and (mode == "off" or not looks_sealed(data)):
            until = way.policy.tolerate_until
            if mode != "tolerate" or (until is not None and self._clock() / 1e9 < until.timestamp()):
                if mode != "off":
                    verdict = Verdict.CLEAR if mode == "tolerate" else Verdict.UNPROTECTED
                    detail = f"clear text passes: mode is {mode}"
                    self._tell_let_through(verdict, detail, way, data, coordinates)
                return Opened.in_clear(data)
        if (whole := self._whole(data)) is not data and learnt:
            short = way.learnt.get(whole[way.hint])
            if short is not None and (opened := short(whole, beside)) is not None:
                return opened
        return way.examine(whole, beside)

    def _whole(self, data: bytes) -> bytes:
        """Return the whole envelope of *data*, or *data* where it is in no short form.

        Raises:
            Ask: Its record has to be looked up.
            Refused: There is none.
        """
        if self._references is None or not data.startswith(SHORT_HEAD):
            return data
        return self._references.whole(data)

    def _asking(self, step: Callable[[], _T]) -> _T:
        """Do *step*, once it is known what takes a call to know."""
        for _ in range(_MAX_ASKED):
            try:
                return step()
            except Ask as ask:
                self._calls.run(ask.what, ask.call)
        raise KeyUnavailable("what was asked was not kept")

    async def _asking_async(self, step: Callable[[], _T]) -> _T:
        """Like `_asking`, without blocking the loop."""
        for _ in range(_MAX_ASKED):
            try:
                return step()
            except Ask as ask:
                await self._calls.run_async(ask.what, ask.call)
        raise KeyUnavailable("what was asked was not kept")

    @staticmethod
    def _finish(way: Incoming, examined: Examined, key: OpenedKey | None) -> Opened:
        """Open what was examined; with no *key*, what is in integrity."""
        if key is None:
            return way.clear(examined)
        opened = way.decrypt(examined, key.key)
        way.learn(examined, key)
        return opened

    def _tell_late(
        self,
        examined: Examined,
        way: Incoming,
        data: bytes,
        coordinates: Mapping[str, str | int] | None,
    ) -> None:
        """Tell of a message that only its time speaks against, once it was opened: who observes hands it on."""
        if examined.late is not None:
            self._tell_let_through(examined.late.verdict, examined.late.detail, way, data, coordinates)

    def _refusal(
        self, error: PostsealError, way: Incoming, data: bytes, coordinates: Mapping[str, str | int] | None
    ) -> Refused:
        """Turn whatever ended the opening into the one `Refused` that leaves, and tell of it."""
        refused = _as_refused(error, way.destination)
        self.auditor.tell(self._event(refused.verdict, refused.detail, way, data, coordinates))
        return refused

    def _tell_handed_on(
        self,
        verdict: Verdict,
        detail: str,
        way: Incoming,
        data: bytes,
        coordinates: Mapping[str, str | int] | None,
    ) -> None:
        """Tell of a message that is delivered, though not as its policy wants it."""
        self.auditor.tell(self._event(verdict, detail, way, data, coordinates)._replace(handed_on=True))

    def _tell_let_through(
        self,
        verdict: Verdict,
        detail: str,
        way: Incoming,
        data: bytes,
        coordinates: Mapping[str, str | int] | None,
    ) -> None:
        """Tell of a message that is delivered because the mode is tolerate or observe, and would be refused in enforce."""
        event = self._event(verdict, detail, way, data, coordinates)
        self.auditor.tell(event._replace(handed_on=True, let_through=True))

    def _event(
        self,
        verdict: Verdict,
        detail: str,
        way: Incoming,
        data: bytes,
        coordinates: Mapping[str, str | int] | None,
    ) -> AuditEvent:
        from postseal.core.audit import AuditEvent  # noqa: PLC0415 - as in `__init__`

        event = AuditEvent(
            time=datetime.fromtimestamp(self._clock() / 1e9, UTC),
            verdict=verdict,
            detail=detail,
            destination=way.destination,
            policy=way.policy.name,
            coordinates=dict(coordinates or {}),
            mode=way.mode,
        )
        try:
            envelope = decode(data if self._references is None else self._references.known(data))
        except Refused:
            return event
        header = envelope.header
        return event._replace(
            unverified_sender=header.sender,
            unverified_destination=header.destination,
            unverified_message_id=header.message_id.hex(),
            unverified_key_id=_key_ids(envelope),
        )

    # -- what is already sealed ------------------------------------------------------------------------------------

    def _pass_sealed(self, way: Outgoing, body: bytes, destination: str, beside: Beside | None) -> bytes:
        """Let an envelope pass that opens here; refuse any other.

        Only what authenticates may go out as it is: bytes that merely look sealed would go out in clear.
        """
        incoming = self._incoming.get(destination) or self._make_incoming(destination)
        try:
            examined = self._asking(lambda: incoming.examine(self._whole(body), beside))
            if examined.late is not None:
                raise examined.late
            if incoming.direct is not None:
                incoming.decrypt_direct(examined)
            elif incoming.keys is not None:
                incoming.decrypt(examined, _our_key(way, examined) or incoming.fetch(examined).key)
        except (Refused, KeyRefused, KeyBroken, NotMine) as error:
            refused = _as_refused(error, destination)
            raise refused from _cause(error, refused)
        return body

    async def _pass_sealed_async(
        self, way: Outgoing, body: bytes, destination: str, beside: Beside | None
    ) -> bytes:
        incoming = self._incoming.get(destination) or self._make_incoming(destination)
        try:
            examined = await self._asking_async(lambda: incoming.examine(self._whole(body), beside))
            if examined.late is not None:
                raise examined.late
            if incoming.direct is not None:
                await incoming.decrypt_direct_async(examined)
            elif incoming.keys is not None:
                ours = _our_key(way, examined)
                incoming.decrypt(examined, ours or (await incoming.fetch_async(examined)).key)
        except (Refused, KeyRefused, KeyBroken, NotMine) as error:
            refused = _as_refused(error, destination)
            raise refused from _cause(error, refused)
        return body


def _answers(way: Outgoing, in_reply_to: Verified | str | None) -> bytes:
    """Return the reference of the request that a message answers, where its policy may demand one."""
    if in_reply_to is None:
        raise ConfigError(
            f"{way.destination!r} takes replies alone (bind_replies of policy {way.policy.name!r}), and this one names no request: give "
            "seal() in_reply_to, or answer with the correlation id of a request that was opened by this sealer. Nothing was sealed"
        )
    return _reference(in_reply_to)


def _like_before(way: Incoming, data: bytes, beside: Beside | None) -> Opened | None:
    """Open *data* as one like it was opened before: `Sealer.open` and `aopen` begin so, without another call."""
    if (latest := way.latest) is not None and (opened := latest(data, beside)) is not None:
        return opened
    short = way.learnt.get(data[way.hint])
    if short is None or short is latest or (opened := short(data, beside)) is None:
        return None
    way.latest = short
    return opened


def _frame(names: tuple[str, ...], headers: Headers | None, body: bytes) -> bytes:
    from postseal.core.framing import frame  # noqa: PLC0415 - for who encrypts headers; `import postseal.core` is to be quick

    return frame(names, headers, body)


def _our_key(way: Outgoing, examined: Examined) -> MessageKey | None:
    """Return the data key that this process itself seals with now, if that sealed it: a producer may have no right to unwrap."""
    if way.keys is None or examined.envelope.header.commitment is None:
        return None
    return way.keys.current(examined.envelope.header.commitment)


def _as_refused(error: PostsealError, destination: str) -> Refused:
    """Map what a key provider said of a message's keys to its verdict. Source: SPEC.md 8, step 8."""
    if isinstance(error, Refused):
        error.destination = destination
        return error
    verdict = Verdict.FORGED if isinstance(error, KeyBroken) else Verdict.UNKNOWN_KEY
    return Refused(verdict, str(error), destination=destination)


def _cause(error: PostsealError, refused: Refused) -> PostsealError | None:
    return None if refused is error else error


def _key_ids(envelope: Envelope) -> str:
    if envelope.outer is not None:
        return _printable(envelope.outer.key_id)
    if envelope.header.key_id is not None:
        return _printable(envelope.header.key_id)
    return ", ".join(_printable(recipient.key_id) for recipient in envelope.recipients)


def _printable(key_id: bytes) -> str:
    """Show a key id as text where it is plain ASCII, else in hex."""
    return key_id.decode() if key_id.isascii() and key_id.decode().isprintable() else key_id.hex()


def _as_bytes(body: bytes) -> bytes:
    if type(body) is bytes:
        return body
    if isinstance(body, (bytes, bytearray, memoryview)):
        return bytes(body)
    raise TypeError(
        f"a body is bytes, not {type(body).__name__}" + ("; encode it first" if isinstance(body, str) else "")
    )


def _too_large(size: int) -> TooLarge:
    return TooLarge(
        f"a body of {size:,} bytes is over the limit of an envelope, {MAX_BODY:,}: nothing was sealed"
    )


def _seconds(expires_at: datetime) -> int:
    if expires_at.tzinfo is None:
        raise ConfigError("expires_at needs a time zone")
    seconds = int(expires_at.timestamp())
    if not TIME_MIN <= seconds <= TIME_MAX:
        raise ConfigError(f"expires_at must lie between 1970-01-02 and 2106-02-07: {expires_at.isoformat()}")
    return seconds


def _reference(request: Verified | str) -> bytes:
    reference = request.reference if isinstance(request, Verified) else request
    if reference is None:
        raise ConfigError(
            "a request that came in clear cannot be answered with in_reply_to: nothing tells it from another"
        )
    try:
        raw = bytes.fromhex(reference)
    except (TypeError, ValueError):
        raw = b""
    if len(raw) != REFERENCE_SIZE:
        raise ConfigError("in_reply_to is an opened message, or its reference: 64 hex digits")
    return raw


def _put(ways: dict[_K, _T], where: _K, way: _T) -> None:
    while len(ways) >= _MAX_DESTINATIONS:
        del ways[next(iter(ways))]
    ways[where] = way


def _auditing(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return where events are told, as `Auditor` takes it."""
    from postseal.core.audit import AlarmLimits, FloodLimit  # noqa: PLC0415 - as in `Sealer`

    return {
        "sinks": given.get("audit", ()),
        "log": _usual(given.get("audit_log", "usual"), FloodLimit, "audit_log"),
        "alarm": _usual(given.get("alarm", "usual"), AlarmLimits, "alarm"),
    }


def _usual(given: _T | Literal["usual"] | None, kind: type[_T], option: str) -> _T | None:
    """Return what "usual" stands for, or what was given.

    Raises:
        ConfigError: It is neither, nor None.
    """
    if given is None or isinstance(given, kind):
        return given
    if given == "usual":
        return kind()
    hint = nearest(given, ("usual",)) if isinstance(given, str) else ""
    raise ConfigError(f'{option} must be "usual", {kind.__name__}(...) or None, not {given!r}{hint}')


def _check_ledger(ledger: Ledger | None, policies: Policies) -> None:
    """See to it that duplicates are known where a policy speaks of them, for as long as messages may come.

    Raises:
        ConfigError: They are not.
    """
    if ledger is None:
        for policy in policies:
            if policy.on_duplicate != "deliver":
                raise ConfigError(
                    f"policy {policy.name!r}: on_duplicate = {policy.on_duplicate!r} needs a ledger: give the sealer one"
                )
        return
    if not callable(getattr(ledger, "meet", None)):
        raise ConfigError(f"ledger must be a Ledger, such as MemoryLedger(), not {type(ledger).__name__}")
    for policy in policies:
        if policy.max_message_age is not None and policy.max_message_age > ledger.max_age:
            raise ConfigError(
                f"policy {policy.name!r}: max_message_age is {policy.max_message_age:g} seconds, but the ledger remembers for "
                f"{ledger.max_age:g}: a copy could come when it has forgotten; give it a longer max_age"
            )


def _check_references(references: References | None, policies: Policies) -> None:
    """See to it that data keys can be published where a policy wants it.

    Raises:
        ConfigError: They cannot.
    """
    for policy in policies:
        if policy.key_by_reference and references is None:
            raise ConfigError(
                f"policy {policy.name!r}: key_by_reference needs references, a store to publish data keys in: give the sealer one"
            )


def _receipts(messages: tuple[Opened | Receipt, ...]) -> list[Receipt]:
    found = [each.receipt if isinstance(each, Opened) else each for each in messages]
    return [receipt for receipt in found if receipt is not None]
