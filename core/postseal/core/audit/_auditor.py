"""The one door: every event is counted, told, and looked at by the alarm here."""

from __future__ import annotations

import atexit
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from postseal.core.audit._alarm import Alarm, AlarmLimits
from postseal.core.audit._flood import Flood, FloodLimit
from postseal.core.audit._log import Seldom, audit_log
from postseal.core.audit._queue import Queue
from postseal.core.audit._records import AlarmEvent, AuditEvent, Counted, MoreEvents, Record
from postseal.core.audit._sink import AuditSink
from postseal.core.counting import OTHERS, TalliesByMode
from postseal.core.errors import AuditUnavailable, ConfigError, Verdict
from postseal.core.forking import ForkSafeLock, begin_again_in_child

__all__ = ["Auditor"]

_TICK: Final = 1.0
"""Seconds between looks while a summary is due or the alarm is raised."""
_MAX_KINDS: Final = 8192
"""Verdicts at destinations that are counted apart."""
_AT_EXIT: Final = 2.0
"""Seconds for which the end of the process waits for each sink."""


class Auditor:
    """Tells of events, and counts them: to `logging`, to sinks, to callbacks.

    What `logging` and each sink are told is limited, each by its own `FloodLimit`. The callback is called with every event.

    Args:
        callback: Called with each event, in the thread that opened the message. What it raises is logged and goes no further: the message
            is refused all the same.
        sinks: Where else lines go.
        log: The limit of `logging`; None for every event.
        alarm: When the alarm is raised; None for never.
        on_alarm: Called with each `AlarmEvent`. What it raises is logged and goes no further.
        clock: Nanoseconds since the epoch.
        monotonic: Seconds.

    Attributes:
        sealed: Messages sealed, by destination and mode of producers.
        unsealed: Messages that went out as they were, because that mode seals nothing, likewise.
        passed: Messages opened or verified, by the destination at which they lay and the mode of consumers.
    """

    def __init__(
        self,
        callback: Callable[[AuditEvent], None] | None = None,
        *,
        sinks: Iterable[AuditSink] = (),
        log: FloodLimit | None = FloodLimit(),  # noqa: B008 - frozen
        alarm: AlarmLimits | None = AlarmLimits(),  # noqa: B008 - frozen
        on_alarm: Callable[[AlarmEvent], None] | None = None,
        clock: Callable[[], int] = time.time_ns,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._callback = callback
        self._on_alarm = on_alarm
        self._alarm_limits = alarm
        self._clock = clock
        self._monotonic = monotonic
        self._outlets = [_Outlet(None, log), *(_Outlet(sink, sink.limit) for sink in _checked(sinks))]
        self.sealed = TalliesByMode()
        self.unsealed = TalliesByMode()
        self.passed = TalliesByMode()
        self._lock = ForkSafeLock()
        self._troubles = Seldom()
        self._at_exit = False
        self.begin_again()
        begin_again_in_child(self)
        if len(self._outlets) > 1:
            self._flush_at_exit()

    def begin_again(self) -> None:
        """Begin with nothing: in a forked child, whose counts are its own."""
        self._counts: Counter[Counted] = Counter()
        self._refused: Counter[str] = Counter()
        self._clear = 0
        self._lost_before = 0
        """By sinks that are no longer told."""
        self._failures: Counter[str] = Counter()
        self._alarm = None if self._alarm_limits is None else Alarm(self._alarm_limits)
        self._ticking = False
        for outlet in self._outlets:
            outlet.begin_again()

    def take_over(
        self, sinks: Iterable[AuditSink], *, log: FloodLimit | None, alarm: AlarmLimits | None
    ) -> None:
        """Tell events there and so from now on. Where nothing differs, nothing is begun again; counts go on.

        What is no longer told is told what was held back for it, and closed.
        """
        wanted = [(None, log), *((sink, sink.limit) for sink in _checked(sinks))]
        over = None
        with self._lock:
            known = {(id(outlet.sink), outlet.limit): outlet for outlet in self._outlets}
            outlets = [known.get((id(sink), limit)) or _Outlet(sink, limit) for sink, limit in wanted]
            gone = [outlet for outlet in self._outlets if outlet not in outlets]
            lines = [(outlet, more) for outlet in gone for more in outlet.flood.rest()]
            self._outlets = outlets
            if alarm != self._alarm_limits:
                over = self._take_over_alarm(alarm)
        _emit(lines)
        for outlet in gone:
            outlet.end()
        with self._lock:
            self._lost_before += sum(outlet.lost for outlet in gone)
        if over is not None:
            self._sound(over)
        if len(outlets) > 1:
            self._flush_at_exit()

    def _take_over_alarm(self, limits: AlarmLimits | None) -> AlarmEvent | None:
        raised, self._alarm_limits = self.alarmed, limits
        self._alarm = None if limits is None else Alarm(limits)
        if self._alarm is not None:
            self._alarm.raised = raised
        elif raised:  # whoever was told that it is raised is told that nobody looks any more
            return AlarmEvent(datetime.fromtimestamp(self._clock() / 1e9, UTC), False, 0, 0, 0.0, {})  # noqa: FBT003 - a field
        return None

    # -- counts ----------------------------------------------------------------------------------------------------

    @property
    def counts(self) -> dict[Verdict, int]:
        """How many events of each verdict there were. Exact, in this process."""
        totals: Counter[Verdict] = Counter()
        for (verdict, _), count in self.counts_by_destination.items():
            totals[verdict] += count
        return dict(totals)

    @property
    def counts_by_destination(self) -> dict[tuple[Verdict, str], int]:
        """The same at each destination; those beyond the first 8,192 are counted together, as ``(others)``."""
        totals: Counter[tuple[Verdict, str]] = Counter()
        for kind, count in self.counts_by_kind.items():
            totals[kind.verdict, kind.destination] += count
        return dict(totals)

    @property
    def counts_by_kind(self) -> dict[Counted, int]:
        """The same by mode and outcome, too: so that one sees what *enforce* would refuse."""
        with self._lock:
            return dict(self._counts)

    @property
    def lost(self) -> int:
        """Lines that never reached a sink. No message and no count is lost with them."""
        return self._lost_before + sum(outlet.lost for outlet in self._outlets)

    @property
    def alarmed(self) -> bool:
        """Whether the alarm is raised."""
        return self._alarm is not None and self._alarm.raised

    # -- telling ---------------------------------------------------------------------------------------------------

    def tell(self, event: AuditEvent) -> None:
        """Count *event*, log it, have it written, hand it to the callback.

        Raises:
            AuditUnavailable: A sink that is required cannot take it. Nothing was counted; the message must be kept.
        """
        for outlet in self._outlets:
            if outlet.sink is not None and outlet.sink.required:
                self._must_write(outlet.sink, event)
        now = self._monotonic()
        with self._lock:
            self._count(event)
            lines = [(outlet, line) for outlet in self._outlets for line in outlet.lines(event, now)]
            alarm = self._look(event, event.time, now)
            tick = self._needs_ticks()
        _emit(lines)
        if self._callback is not None:
            self._call(self._callback, event, "audit callback")
        if alarm is not None:
            self._sound(alarm)
        if tick:
            self._flush_at_exit()
            me = weakref.ref(self)
            threading.Thread(target=_tick_on, args=(me,), name="postseal-audit", daemon=True).start()

    def tick(self) -> None:
        """Tell what is due by now: how many more events there were, whether the alarm is over. Called each second where it matters."""
        now = self._monotonic()
        with self._lock:
            lines = [(outlet, more) for outlet in self._outlets for more in outlet.flood.due(now)]
            alarm = None
            if self.alarmed:
                alarm = self._look(None, datetime.fromtimestamp(self._clock() / 1e9, UTC), now)
        _emit(lines)
        if alarm is not None:
            self._sound(alarm)

    def flush(self, seconds: float = 5.0) -> bool:
        """Tell everything that was held back, and wait at most *seconds* for each sink; tell whether all was written.

        Where no logging is configured, Python would write it to stderr: a program that ends well says nothing there.
        """
        with self._lock:
            lines = [(outlet, more) for outlet in self._outlets for more in outlet.flood.rest()]
        if any(outlet.sink is None for outlet, _ in lines) and not audit_log().hasHandlers():
            lines = [(outlet, more) for outlet, more in lines if outlet.sink is not None]
        _emit(lines)
        queues = [outlet.queue for outlet in self._outlets if outlet.queue is not None]
        return sum(queue.flush(seconds) for queue in queues) == len(queues)

    def close(self) -> None:
        """Do what `flush` does, and close the sinks. The auditor can go on; it opens them again."""
        self.flush()
        for outlet in self._outlets:
            if outlet.sink is not None:
                outlet.sink.close()

    # -- the rest --------------------------------------------------------------------------------------------------

    def _must_write(self, sink: AuditSink, event: AuditEvent) -> None:
        try:
            sink.write([event.as_dict()])
        except Exception as error:  # noqa: BLE001 - whatever it is: the event is not where it must be
            if self._troubles.now(self._monotonic()):
                audit_log().error(
                    "%s takes no lines (%s: %s): refused messages are kept", sink, type(error).__name__, error
                )
            raise AuditUnavailable(
                f"a refused message was kept, because {sink} must take its event and did not: {type(error).__name__}"
            ) from None

    def _count(self, event: AuditEvent) -> None:
        kind = Counted(event.verdict, event.destination, event.mode, event.outcome)
        if kind not in self._counts and len(self._counts) >= _MAX_KINDS:
            kind = kind._replace(destination=OTHERS)
        self._counts[kind] += 1
        if not event.handed_on:
            self._refused[event.verdict.value] += 1
        elif event.verdict in (Verdict.CLEAR, Verdict.UNPROTECTED):
            self._clear += 1  # all others that are handed on were opened, and are counted there

    def _look(self, event: AuditEvent | None, moment: datetime, now: float) -> AlarmEvent | None:
        """Have the alarm look, if it must: under the lock."""
        if self._alarm is None or (event is not None and event.handed_on):
            return None
        newest = None if event is None else event.verdict.value
        return self._alarm.look(moment, now, self._all_passed, self._refused, newest)

    def _all_passed(self) -> int:
        return self.passed.total + self._clear

    def _needs_ticks(self) -> bool:
        """Tell whether a thread must be started that ticks: under the lock."""
        if self._ticking or not self._pending():
            return False
        self._ticking = True
        return True

    def _pending(self) -> bool:
        return self.alarmed or any(outlet.flood.pending for outlet in self._outlets)

    def _goes_on(self) -> bool:
        """Tick; tell whether to tick again."""
        self.tick()
        with self._lock:
            self._ticking = self._pending()
            return self._ticking

    def _sound(self, alarm: AlarmEvent) -> None:
        _emit([(outlet, alarm) for outlet in self._outlets])
        if self._on_alarm is not None:
            self._call(self._on_alarm, alarm, "alarm callback")

    def _call(self, callback: Callable[[Any], None], value: Any, what: str) -> None:
        try:
            callback(value)
        except Exception:  # noqa: BLE001 - it is the user's; logged below
            with self._lock:
                self._failures[what] += 1
                failures = self._failures[what]
            if str(failures).rstrip("0") == "1":  # the 1st, 10th, 100th ...: it must not fill the log, either
                audit_log().exception("the %s failed, for the %dth time", what, failures)

    def _flush_at_exit(self) -> None:
        if not self._at_exit:
            self._at_exit = True
            atexit.register(_flush, weakref.ref(self))


class _Outlet:
    """Where lines go, and what is held back there."""

    def __init__(self, sink: AuditSink | None, limit: FloodLimit | None) -> None:
        self.sink = sink
        """None: `logging`."""
        self.limit = limit
        self._limit = None if sink is not None and sink.required else limit
        self.queue = None if sink is None or sink.required else Queue(sink)
        self.begin_again()

    def begin_again(self) -> None:
        """Hold nothing back. The queue does so itself."""
        self.flood = Flood(self._limit)
        self._lost = 0

    @property
    def lost(self) -> int:
        """Lines that never reached the sink."""
        return self._lost + (0 if self.queue is None else self.queue.lost)

    def end(self) -> None:
        """Write what waits, and close the sink."""
        if self.queue is not None:
            self.queue.flush(_AT_EXIT)
        if self.sink is not None:
            self.sink.close()

    def lines(self, event: AuditEvent, now: float) -> list[Record]:
        """Return what is to be told now that *event* happened: under the auditor's lock."""
        lines: list[Record] = [*self.flood.due(now)]
        if self.flood.admit(event, now) and (self.sink is None or not self.sink.required):
            lines.append(event)
        return lines

    def tell(self, record: Record) -> None:
        """Tell *record*."""
        if self.sink is None:
            _log(record)
        elif self.queue is not None:
            self.queue.put(record.as_dict())
        else:  # events it had already; the rest it may have
            try:
                self.sink.write([record.as_dict()])
            except Exception:  # noqa: BLE001 - whatever it is, no message waits for this line
                self._lost += 1


def _emit(lines: Sequence[tuple[_Outlet, Record]]) -> None:
    for outlet, record in lines:
        outlet.tell(record)


def _checked(sinks: Iterable[AuditSink]) -> tuple[AuditSink, ...]:
    given = tuple(sinks)
    for sink in given:
        if not isinstance(sink, AuditSink):
            raise ConfigError(
                f"an audit sink has limit, required, write and close: {type(sink).__name__} has not"
            )
    if len(set(map(id, given))) < len(given):
        raise ConfigError("one audit sink was given twice")
    return given


def _log(record: Record) -> None:
    log, extra = audit_log(), {"postseal": record.as_dict()}
    if isinstance(record, AuditEvent):
        word = "let through" if record.let_through else "accepted" if record.handed_on else "refused"
        log.warning(
            "%s: %s at %s (%s)", word, record.verdict.value, record.destination, record.detail, extra=extra
        )
    elif isinstance(record, MoreEvents):
        what = "others" if record.verdict is None else f"{record.verdict.value} at {record.destination}"
        log.warning("and %s more like it: %s", f"{record.events:,}", what, extra=extra)
    elif record.raised:
        log.error(
            "alarm: %s of %s messages were refused within %.0f s (%s)",
            f"{record.refused:,}",
            f"{record.deliveries:,}",
            max(record.seconds, 1),
            ", ".join(f"{name} {count:,}" for name, count in record.verdicts.items()),
            extra=extra,
        )
    else:
        log.warning(
            "the alarm is over: %s of %s messages were refused within %.0f s",
            f"{record.refused:,}",
            f"{record.deliveries:,}",
            record.seconds,
            extra=extra,
        )


def _tick_on(ref: weakref.ref[Auditor]) -> None:
    """Tick for as long as there is something to wait for."""
    pause = threading.Event()
    while True:
        pause.wait(_TICK)
        auditor = ref()
        if auditor is None or not auditor._goes_on():  # noqa: SLF001 - of this room
            return
        del auditor


def _flush(ref: weakref.ref[Auditor]) -> None:
    if (auditor := ref()) is not None:
        auditor.flush(_AT_EXIT)
