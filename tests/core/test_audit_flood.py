"""A flood of refused messages: the log stays short, the counts exact, the alarm sounds once. And sinks that are slow or full."""

from __future__ import annotations

import errno
import gc
import logging
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest

from postseal.core import (
    AlarmLimits,
    AuditEvent,
    AuditUnavailable,
    ConfigError,
    FloodLimit,
    KeyUnavailable,
    Refused,
    Verdict,
)
from postseal.core.audit import Auditor
from postseal.core.counting import TalliesByMode, Tally
from tests.core.kit import HERE, Clock, Party, party, policy

FORGED = AuditEvent(datetime.now(UTC), Verdict.FORGED, "wrong", HERE, "orders")


class Sink:
    """Keeps lines; is slow or full when told to."""

    def __init__(self, *, limit=FloodLimit(), required=False):  # noqa: B008 - frozen
        self.limit = limit
        self.required = required
        self.lines = []
        self.closed = 0
        self.full = False
        self.open = threading.Event()
        self.open.set()

    def write(self, lines):
        assert self.open.wait(30)
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.lines += lines

    def close(self):
        self.closed += 1


def lines_of(caplog):
    return [record for record in caplog.records if record.name == "postseal.audit"]


def run(one, bad, good=0):
    """Have *one* refuse and open messages in turn, evenly mixed."""
    sealed = one.seal(b"order", destination=HERE)
    each = good // bad if bad else 0
    for _ in range(bad):
        with pytest.raises(Refused):
            one.open(b"clear", destination=HERE)
        for _ in range(each):
            one.open(sealed, destination=HERE)
    for _ in range(good - bad * each):
        one.open(sealed, destination=HERE)


# -- the flood ---------------------------------------------------------------------------------------------------------


def allocated() -> int:
    """Blocks of memory that are in use."""
    gc.collect()
    return sys.getallocatedblocks()


def test_a_flood_of_100_000_makes_few_lines_exact_counts_and_one_alarm(caplog):
    """E7: 100,000 refused in one run: at most 100 log lines, each event to the callback, one alarm within 5 s, memory flat."""
    alarms, seen, memory = [], [0], []

    def on_audit(event):
        seen[0] += 1

    sink = Sink()
    one = Party(policy(), on_audit=on_audit, on_alarm=alarms.append, audit=[sink])
    one.sealer.auditor._monotonic = time.monotonic  # it is the real time that a flood takes
    begun = time.monotonic()
    for count in range(100_000):
        with suppress(Refused):
            one.open(b"clear", destination=HERE)
        if alarms and len(alarms) > len(memory):
            assert time.monotonic() - begun < 5
            memory.append(allocated())
        if count == 20_000:
            memory.append(allocated())
    # A block kept for one message in ten would be 8,000; other threads of this process have some of their own.
    assert abs(allocated() - memory[-1]) < 8_000
    assert one.sealer.auditor.flush()
    assert [alarm.raised for alarm in alarms] == [True]
    assert seen == [100_000]
    assert one.sealer.auditor.counts == {Verdict.UNPROTECTED: 100_000}
    assert one.sealer.auditor.counts_by_destination == {(Verdict.UNPROTECTED, HERE): 100_000}
    assert one.sealer.auditor.lost == 0
    assert len(lines_of(caplog)) <= 100
    for told in ([record.postseal for record in lines_of(caplog)], sink.lines):
        assert len(told) <= 100
        whole = sum(line["kind"] == "event" for line in told)
        assert whole + sum(line["events"] for line in told if line["kind"] == "more") == 100_000
        assert sum(line["kind"] == "alarm" for line in told) == 1


def test_the_first_few_of_each_kind_are_told_and_then_how_many_more(caplog):
    clock = Clock()
    auditor = Auditor(log=FloodLimit(first=2, interval=60), monotonic=clock.seconds)
    for second in range(4):
        auditor.tell(FORGED._replace(time=FORGED.time + timedelta(seconds=second)))
    auditor.tell(FORGED._replace(verdict=Verdict.STALE))
    said = [record.getMessage() for record in lines_of(caplog)]
    assert said == [f"refused: forged at {HERE} (wrong)"] * 2 + [f"refused: stale at {HERE} (wrong)"]
    clock.ms += 59_000
    auditor.tick()
    assert len(lines_of(caplog)) == 3
    clock.ms += 1_000
    auditor.tick()
    last = lines_of(caplog)[-1]
    assert last.getMessage() == f"and 2 more like it: forged at {HERE}"
    assert last.postseal["since"] == (FORGED.time + timedelta(seconds=2)).isoformat(timespec="milliseconds")
    assert last.postseal["time"] == (FORGED.time + timedelta(seconds=3)).isoformat(timespec="milliseconds")
    auditor.tick()
    auditor.tell(FORGED)
    assert [record.postseal["kind"] for record in lines_of(caplog)] == ["event"] * 3 + ["more", "event"]


def test_a_flood_to_many_destinations_makes_few_lines_too(caplog):
    clock = Clock()
    auditor = Auditor(alarm=None, monotonic=clock.seconds)
    for number in range(20_000):
        auditor.tell(FORGED._replace(destination=f"kafka:topic-{number % 10_000}"))
    auditor.flush()
    told = [record.postseal for record in lines_of(caplog)]
    assert len(told) <= 41
    assert sum(line.get("events", 1) for line in told) == 20_000
    assert lines_of(caplog)[-1].getMessage().endswith(" more like it: others")
    counts = auditor.counts_by_destination
    assert len(counts) <= 8193
    assert counts[Verdict.FORGED, "kafka:topic-0"] == 2
    assert counts[Verdict.FORGED, "(others)"] == 2 * (10_000 - 8192)
    assert auditor.counts == {Verdict.FORGED: 20_000}


def test_a_summary_comes_although_nothing_more_happens(caplog):
    """The thread that tells of it lives only while there is something to tell."""
    before = set(threading.enumerate())
    auditor = Auditor(log=FloodLimit(first=0, interval=1))
    auditor.tell(FORGED)
    [thread] = {thread for thread in threading.enumerate() if thread.name == "postseal-audit"} - before
    until(lambda: lines_of(caplog))
    assert lines_of(caplog)[0].postseal["events"] == 1
    thread.join(30)
    assert not thread.is_alive()


def test_an_auditor_that_is_gone_leaves_no_thread():
    before = set(threading.enumerate())
    auditor = Auditor(log=FloodLimit(first=0, interval=86400))
    auditor.tell(FORGED)
    [thread] = {thread for thread in threading.enumerate() if thread.name == "postseal-audit"} - before
    del auditor
    thread.join(30)
    assert not thread.is_alive()


def test_a_callback_that_always_fails_fills_no_log(caplog):
    one = Party(policy(), on_audit=lambda event: 1 / 0, audit_log=FloodLimit(first=0))
    run(one, 250)
    assert [record.getMessage() for record in lines_of(caplog) if record.exc_info] == [
        f"the audit callback failed, for the {count}th time" for count in (1, 10, 100)
    ]


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: FloodLimit(first=-1), "first"),
        (lambda: FloodLimit(first=True), "first"),
        (lambda: FloodLimit(most=1.5), "most"),
        (lambda: FloodLimit(interval=0.1), "interval"),
        (lambda: AlarmLimits(share=0), "share"),
        (lambda: AlarmLimits(share=5), "where 0.01 means 1 %"),
        (lambda: AlarmLimits(least=0), "least"),
        (lambda: AlarmLimits(window=0), "window"),
        (lambda: Auditor(sinks=["audit.jsonl"]), "str has not"),
        (lambda: Auditor(sinks=[Sink()] * 2), "given twice"),
    ],
)
def test_what_cannot_be_meant_is_said(make, word):
    with pytest.raises(ConfigError, match=word):
        make()


# -- the alarm ---------------------------------------------------------------------------------------------------------


def test_1000_bad_in_10_000_raise_one_alarm_within_5_seconds(caplog):
    """E7: at the hundredth, as a callback, as one ERROR line, and as what a metric reads."""
    alarms = []
    one = Party(policy(), on_alarm=alarms.append)
    assert not one.sealer.auditor.alarmed
    begun = time.monotonic()
    run(one, bad=100, good=900)
    assert time.monotonic() - begun < 5
    [alarm] = alarms
    assert (alarm.raised, alarm.refused, alarm.verdicts) == (True, 100, {"unprotected": 100})
    assert 890 <= alarm.deliveries <= 1000
    run(one, bad=900, good=8100)
    assert len(alarms) == 1
    assert one.sealer.auditor.alarmed
    [line] = [record for record in lines_of(caplog) if record.levelno == logging.ERROR]
    assert line.getMessage().startswith("alarm: 100 of ")
    assert line.postseal == alarm.as_dict()


def test_1_bad_in_10_000_raises_none():
    """E7: and as many more as stay under the rate."""
    alarms = []
    one = Party(policy(), on_alarm=alarms.append)
    run(one, bad=1, good=9999)
    run(one, bad=150, good=29_850)
    assert alarms == []
    assert one.sealer.auditor.counts == {Verdict.UNPROTECTED: 151}
    assert one.sealer.auditor.passed.values_now == {HERE: 39_849}


def test_it_is_over_only_when_a_whole_window_has_less_than_half_and_may_be_raised_again():
    clock, alarms = Clock(), []
    auditor = Auditor(
        alarm=AlarmLimits(least=10, window=60), on_alarm=alarms.append, log=None, monotonic=clock.seconds
    )

    def minute(bad):
        for second in range(60):
            clock.ms += 1000
            for _ in range(bad // 60 + (second < bad % 60)):
                auditor.tell(FORGED)
            auditor.tick()

    minute(600)
    minute(0)
    minute(0)
    assert [alarm.raised for alarm in alarms] == [True, False]
    minute(12)
    minute(8)  # under what raises it, over half of that: it does not flap
    minute(8)
    assert [alarm.raised for alarm in alarms] == [True, False, True]
    assert auditor.alarmed
    minute(4)
    minute(0)
    assert [alarm.raised for alarm in alarms] == [True, False, True, False]
    assert not auditor.alarmed


@pytest.mark.parametrize(
    ("option", "word", "hint"),
    [
        ("audit_log", "usuall", "did you mean 'usual'"),
        ("alarm", "Usual", "did you mean 'usual'"),
        ("audit_log", "off", "None"),
        ("alarm", FloodLimit(), "AlarmLimits"),
        ("audit_log", 5, "FloodLimit"),
    ],
)
def test_an_unknown_word_is_an_error_before_anything_is_sent(option, word, hint):
    with pytest.raises(ConfigError, match=option) as error:
        Party(policy(), **{option: word})
    assert hint in str(error.value)


ENDS = """
import warnings
warnings.simplefilter("ignore")
from postseal.core import Policy, Refused, Sealer, UnsafeLocalKeys
orders = Policy(name="orders", destinations=["kafka:orders"], keys=["main"])
sealer = Sealer(sender="shop", policies=[orders], keys={"main": UnsafeLocalKeys.ephemeral()})
for _ in range(100):
    try:
        sealer.open(b"clear", destination="kafka:orders")
    except Refused:
        pass
CLOSE
"""


@pytest.mark.parametrize("ends", ["sealer.close()", "sealer.auditor.flush()", ""])
def test_a_sealer_that_ends_says_nothing_on_stderr_where_no_logging_is_configured(ends):
    """E7: Python shows warnings there then; the first few of refused messages are enough. Where logging is configured, how many more is told."""
    for setup, told in (("", 0), ("import logging; logging.basicConfig()", 1)):
        script = setup + ENDS.replace("CLOSE", ends)
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
        )
        assert done.stdout == ""
        assert done.stderr.count("refused: unprotected at kafka:orders") == 5
        assert done.stderr.count("and 95 more like it") == told


def test_messages_that_came_long_before_cannot_hide_a_burst():
    """A million good ones, an hour ago, are no reason to wait."""
    clock, alarms = Clock(), []
    auditor = Auditor(on_alarm=alarms.append, log=None, monotonic=clock.seconds)
    auditor.tell(FORGED)
    for _ in range(100_000):
        auditor.passed[HERE, "enforce"].tick()
    clock.ms += 3_600_000
    for _ in range(100):
        auditor.tell(FORGED)
    assert [(alarm.raised, alarm.refused, alarm.deliveries) for alarm in alarms] == [(True, 100, 100)]


def test_what_was_accepted_in_clear_counts_as_delivered():
    alarms = []
    auditor = Auditor(on_alarm=alarms.append, log=None)
    for _ in range(300):
        auditor.tell(FORGED._replace(verdict=Verdict.CLEAR, handed_on=True))
    assert alarms == []


def test_an_alarm_callback_that_raises_changes_nothing(caplog):
    one = Party(policy(), on_alarm=lambda alarm: 1 / 0)
    run(one, 150)
    assert "the alarm callback failed" in caplog.text
    assert one.sealer.auditor.counts == {Verdict.UNPROTECTED: 150}


def test_without_an_alarm_there_is_none(caplog):
    one = Party(policy(), alarm=None)
    run(one, 300)
    assert not one.sealer.auditor.alarmed
    assert not [record for record in lines_of(caplog) if record.levelno == logging.ERROR]


# -- sinks -------------------------------------------------------------------------------------------------------------


def until(done, seconds=30.0):
    """Wait until *done*. The time only ends a test that would fail anyway."""
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_a_sink_may_have_every_event():
    sink = Sink(limit=None)
    one = Party(policy(), audit=[sink])
    run(one, 3000)
    one.sealer.close()
    assert sum(line["kind"] == "event" for line in sink.lines) == 3000
    assert sink.closed == 1


def test_a_full_disk_loses_no_message_and_the_lines_come_when_it_has_room(caplog):
    """E6: they wait; what no longer fits is counted, and the sink itself is told of it."""
    sink = Sink(limit=None)
    sink.full = True
    one = Party(policy(), audit=[sink], audit_log=FloodLimit(first=0), alarm=None)
    run(one, 1500)
    auditor = one.sealer.auditor
    assert auditor.counts == {Verdict.UNPROTECTED: 1500}
    assert auditor.lost == 500
    [said] = [record for record in lines_of(caplog) if record.levelno == logging.ERROR]
    assert "No space left on device" in said.getMessage()
    sink.full = False
    assert auditor.flush()
    assert [line["count"] for line in sink.lines if line["kind"] == "lost"] == [500]
    assert sum(line["kind"] == "event" for line in sink.lines) == 1000


def test_a_sink_that_hangs_holds_nobody_up_for_long():
    """One tenth of a second, once, until it has caught up."""
    sink = Sink(limit=None)
    sink.open.clear()
    one = Party(policy(), audit=[sink], audit_log=FloodLimit(first=0), alarm=None)
    waits = []
    [queue] = [outlet.queue for outlet in one.sealer.auditor._outlets if outlet.queue]
    wait_for = queue._condition.wait_for
    queue._condition.wait_for = lambda done, seconds: waits.append(seconds) or wait_for(done, seconds)
    run(one, 1400)
    assert [seconds for seconds in waits if seconds != 5.0] == [0.1]
    assert one.sealer.auditor.lost == 400
    sink.open.set()
    assert one.sealer.auditor.flush()


def test_a_broken_sink_loses_its_lines_and_nothing_else(caplog):
    sink = Sink()
    sink.write = lambda lines: 1 / 0
    one = Party(policy(), audit=[sink])
    run(one, 3)
    one.sealer.auditor.flush()
    assert one.sealer.auditor.lost == 3
    assert one.sealer.auditor.counts == {Verdict.UNPROTECTED: 3}
    assert "ZeroDivisionError" in caplog.text


def test_a_required_sink_that_is_full_keeps_the_message(caplog):
    """E6: no event, no verdict: the message is neither handed on nor settled, and tried again."""
    sink = Sink(required=True)
    sink.full = True
    one = Party(policy(), audit=[sink])
    for _ in range(30):
        with pytest.raises(AuditUnavailable) as error:
            one.open(b"clear", destination=HERE)
        assert isinstance(error.value, KeyUnavailable)
    assert one.events == []
    assert one.sealer.auditor.counts == {}
    assert len(lines_of(caplog)) == 1
    sink.full = False
    run(one, 1)
    assert [line["verdict"] for line in sink.lines] == ["unprotected"]
    assert len(one.events) == 1


def test_a_required_sink_is_told_every_event_whatever_its_limit_and_before_anyone_else():
    sink, seen = Sink(required=True), []
    one = Party(policy(), audit=[sink], on_audit=lambda event: seen.append(len(sink.lines)))
    run(one, 40)
    assert len(sink.lines) == 40
    assert seen == list(range(1, 41))


def test_clear_text_is_accepted_only_when_its_event_is_written():
    sink = Sink(required=True)
    sink.full = True
    one = Party(policy(mode="observe"), audit=[sink])
    with pytest.raises(AuditUnavailable):
        one.open(b"clear", destination=HERE)
    sink.full = False
    assert one.open(b"clear", destination=HERE).verdict is Verdict.CLEAR


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_a_forked_child_counts_from_0_and_writes_its_own_lines_only():
    sink = Sink()
    one = Party(policy(), audit=[sink])
    run(one, 2, 2)
    assert one.sealer.auditor.flush()
    assert len(sink.lines) == 2
    sink.open.clear()
    run(one, 1)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            sink.open.set()
            auditor = one.sealer.auditor
            before = (dict(auditor.counts), auditor.passed.total)
            run(one, 1, 3)
            ok = auditor.flush() and len(sink.lines) == 3 and before == ({}, 0)
            ok = ok and auditor.counts == {Verdict.UNPROTECTED: 1} and auditor.passed.total == 3
            os.write(write, b"1" if ok else b"0")
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert os.read(read, 1) == b"1"
    os.close(read)
    os.close(write)
    sink.open.set()
    assert one.sealer.auditor.flush()
    assert len(sink.lines) == 3
    assert one.sealer.auditor.counts == {Verdict.UNPROTECTED: 3}


# -- counts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["confidentiality", "privacy-hmac", "integrity-hmac"])
def test_what_is_sealed_and_opened_is_counted_whatever_way_it_takes(form):
    one = party(form)
    auditor = one.sealer.auditor
    sealed = [one.seal(b"order", destination=HERE) for _ in range(5)]
    sealed.append(one.sealer.at_hand(HERE)(b"order") or one.seal(b"order", destination=HERE))
    sealed.append(one.seal(b"order", destination=HERE, headers={"a": "b"}))
    assert auditor.sealed.values_now == {HERE: 7}
    assert one.seal(sealed[0], destination=HERE) == sealed[0]
    assert auditor.sealed.total == 7
    for envelope in sealed:
        one.open(envelope, destination=HERE)
    if one.sealer.open_at_hand(HERE)(sealed[0]) is None:
        one.open(sealed[0], destination=HERE)
    assert auditor.passed.values_now == {HERE: 8}
    if form != "confidentiality":
        one.sealer.verify(sealed[0], destination=HERE)
        assert auditor.passed.total == 9
    with pytest.raises(Refused):
        one.open(sealed[0][:-1], destination=HERE)
    assert auditor.passed.total == 8 + (form != "confidentiality")


def test_a_tally_is_exact_under_threads_and_reading_does_not_count():
    tally = Tally()

    def work():
        for _ in range(20_000):
            tally.tick()
            if not _ % 1000:
                assert tally.value > 0

    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(work) for _ in range(8)]:
            done.result()
    assert [tally.value, tally.value] == [160_000, 160_000]


def test_there_is_an_end_to_the_names_that_are_counted_apart():
    tallies = TalliesByMode()
    for number in range(9000):
        tallies[f"kafka:{number}", "enforce"].tick()
    assert len(tallies) == 8193
    assert tallies.values_now["(others)"] == 9000 - 8192
    assert tallies.total == 9000


# -- what adapters say beside it ---------------------------------------------------------------------------------------


def test_a_quiet_log_says_a_few_of_each_kind_and_later_how_many_more(caplog):
    """E7: the lines of adapters about what became of refused messages cannot fill a log, either."""
    from postseal.core.audit import QuietLog

    clock = Clock()
    quiet = QuietLog(logging.getLogger("postseal.audit"), clock=clock.seconds)
    for number in range(1000):
        quiet.warning("%d refused at %s", number, HERE)
    quiet.warning("%d refused at %s", 1, "kafka:other")
    assert len(lines_of(caplog)) == 6
    clock.ms += 60_000
    quiet.warning("%d refused at %s", 7, HERE)
    quiet.warning("%d refused at %s", 8, HERE)
    assert [record.getMessage() for record in lines_of(caplog)[6:]] == [
        f"7 refused at {HERE} (and 995 more like it before)",
        f"8 refused at {HERE}",
    ]
    for number in range(5000):
        quiet.warning("refused at %s", f"kafka:{number}")
    assert len(lines_of(caplog)) < 300
