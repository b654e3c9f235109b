"""The ledger of deliveries: what it says of a message that comes again, and when it is written."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import threading
import tracemalloc
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postseal.core import (
    ConfigError,
    KeyUnavailable,
    LedgerUnavailable,
    MemoryLedger,
    Opened,
    Refused,
    SqliteLedger,
    Verdict,
)
from postseal.core.replay import Ledger
from postseal.core.replay._table import Table
from postseal.core.wire import decode
from tests.core.kit import FORMS, HERE, Clock, Party, local_keys, party, policy

pytestmark = pytest.mark.usefixtures("way")
BODY = b"4111 1111 1111 1111"
OTHER = "kafka:invoices"


@pytest.fixture(params=["memory", "sqlite"])
def ledger(request, tmp_path):
    if request.param == "memory":
        yield MemoryLedger()
        return
    made = SqliteLedger(tmp_path / "ledger.db")
    yield made
    made.close()


def opening(ledger, form="confidentiality", **options):
    return Party(policy(form, **options), ledger=ledger)


def refusal(call):
    with pytest.raises(Refused) as refused:
        call()
    return refused.value.verdict


def fixed_id(size):
    """Random bytes of a sealer whose messages all have one id: behind the nonce, if both are drawn at once."""
    return os.urandom(size - 16) + bytes(range(16)) if size >= 16 else os.urandom(size)


def same_id():
    """Seal two bodies under one message id: what only a sender who holds the keys can do."""
    made = Party(policy(), random=fixed_id)
    return [made.seal(body, destination=HERE) for body in (b"one", b"two")]


# -- what it says ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_redelivery_is_no_replay(ledger, form):
    """A message that was not settled is handed on again, however often; only what was settled is a duplicate."""
    here = opening(ledger, form)
    envelope = here.seal(BODY, destination=HERE)
    verdicts = [here.open(envelope, destination=HERE).verdict for _ in range(3)]
    assert verdicts == [Verdict.OK, Verdict.REDELIVERY, Verdict.REDELIVERY]
    assert here.events == []
    here.sealer.settled(here.open(envelope, destination=HERE))
    opened = here.open(envelope, destination=HERE)
    assert (opened.verdict, opened.body) == (Verdict.DUPLICATE, BODY)
    [event] = here.events
    assert event.verdict is Verdict.DUPLICATE
    assert event.handed_on
    assert event.unverified_message_id == opened.message_id


@pytest.mark.parametrize("form", FORMS)
def test_the_short_way_asks_the_ledger_too(ledger, form):
    here = opening(ledger, form)
    envelopes = [here.seal(BODY + b"%d" % at, destination=HERE) for at in range(5)]
    at_hand = here.sealer.open_at_hand(HERE)
    first = [here.open(envelope, destination=HERE) for envelope in envelopes]
    assert {opened.verdict for opened in first} == {Verdict.OK}
    assert all(at_hand(envelope) is None for envelope in envelopes)
    here.sealer.settled(*first)
    assert {here.open(envelope, destination=HERE).verdict for envelope in envelopes} == {Verdict.DUPLICATE}
    fresh = here.seal(BODY, destination=HERE)
    if form.startswith("integrity"):
        assert at_hand(fresh) is None  # nothing is learnt of what costs no key
    else:
        opened = at_hand(fresh)
        assert opened is not None
        assert opened.receipt is not None
        here.sealer.settled(opened)
    opened = here.open(fresh, destination=HERE)
    assert opened.verdict is (Verdict.OK if form.startswith("integrity") else Verdict.DUPLICATE)


def test_a_long_body_is_known_by_its_tag_too(ledger):
    """From 4,096 bytes on the short way leaves the ciphertext where it is."""
    here = opening(ledger)
    opened = [here.open(here.seal(bytes([at]) * 9000, destination=HERE), destination=HERE) for at in (1, 2)]
    digests = {each.receipt[1] for each in opened}
    assert len(digests) == 2
    assert bytes(16) not in digests
    here.sealer.settled(*opened)


@pytest.mark.parametrize("verb", ["open", "aopen", "open_cached"])
def test_every_way_to_open_asks(ledger, verb):
    here = opening(ledger)
    envelope = here.seal(BODY, destination=HERE)
    here.sealer.settled(here.open(envelope, destination=HERE))
    opened = getattr(here.sealer, verb)(envelope, destination=HERE)
    opened = asyncio.run(opened) if verb == "aopen" else opened
    assert opened.verdict is Verdict.DUPLICATE


@pytest.mark.parametrize("settled", [False, True])
def test_another_body_under_the_same_id_is_an_attack(ledger, settled):
    """A9: whatever on_duplicate says, and whether the first was settled or not."""
    one, two = same_id()
    here = Party(policy(), ledger=ledger, keys=local_keys())
    opened = here.open(one, destination=HERE)
    if settled:
        here.sealer.settled(opened)
    assert refusal(lambda: here.open(two, destination=HERE)) is Verdict.CONFLICT
    assert [event.verdict for event in here.events] == [Verdict.CONFLICT]
    again = here.open(one, destination=HERE)
    assert again.verdict is (Verdict.DUPLICATE if settled else Verdict.REDELIVERY)


def test_an_id_is_one_of_its_sender_and_its_destination(ledger):
    """Two senders, or two destinations, may have the same id by chance or by malice: nobody can use up another's."""
    fixed = {"random": fixed_id, "keys": local_keys()}
    rules = [policy(), policy(name="invoices", destinations=[OTHER])]
    senders = [Party(rules, sender=name, **fixed) for name in ("billing-api", "shop-web")]
    here = Party(rules, ledger=ledger, keys=local_keys())
    opened = [
        here.open(sender.seal(BODY, destination=place), destination=place)
        for sender in senders
        for place in (HERE, OTHER)
    ]
    assert {each.verdict for each in opened} == {Verdict.OK}
    assert len({each.receipt[0] for each in opened}) == 4


def test_each_reader_is_a_place_of_its_own(ledger):
    """The copies of a fan-out are no duplicates of each other."""
    here = opening(ledger)
    envelope = here.seal(BODY, destination=HERE)
    for reader in ("", "billing", "audit"):
        opened = here.open(envelope, destination=HERE, reader=reader)
        assert opened.verdict is Verdict.OK
        here.sealer.settled(opened)
    for reader in ("", "billing", "audit"):
        assert here.open(envelope, destination=HERE, reader=reader).verdict is Verdict.DUPLICATE
    quick = here.sealer.open_at_hand(HERE, "billing")(here.seal(BODY, destination=HERE))
    assert quick is not None
    assert quick.verdict is Verdict.OK
    assert here.sealer.body_at_hand(HERE)(here.seal(BODY, destination=HERE)) is None  # the ledger is to know
    another = here.seal(BODY, destination=HERE)
    parts = here.sealer.parts_at_hand(HERE, "billing")
    body, _, receipt = parts(another)
    assert body == BODY
    assert parts(another) is None  # it was met before, and the whole way says what it is
    here.sealer.settled(receipt)
    assert here.open(another, destination=HERE, reader="billing").verdict is Verdict.DUPLICATE


def test_a_dead_letter_is_known_for_what_it_is(ledger):
    """A10: where the policy lets messages lie elsewhere, a copy there of what was settled at home is a duplicate."""
    here = opening(ledger, accept_from=["kafka:orders.dead"])
    envelope = here.seal(BODY, destination=HERE)
    here.sealer.settled(here.open(envelope, destination=HERE))
    assert here.open(envelope, destination="kafka:orders.dead").verdict is Verdict.DUPLICATE


def test_what_is_only_looked_at_is_not_noted(ledger):
    here = opening(ledger)
    envelope = here.seal(BODY, destination=HERE)
    peeked = here.open(envelope, destination=HERE, is_delivery=False)
    assert (peeked.verdict, peeked.receipt) == (Verdict.OK, None)
    assert asyncio.run(here.sealer.aopen(envelope, destination=HERE, is_delivery=False)).receipt is None
    assert here.sealer.open_cached(envelope, destination=HERE, is_delivery=False).receipt is None
    assert here.open(envelope, destination=HERE).verdict is Verdict.OK


def test_nothing_that_is_refused_enters_the_ledger(ledger):
    """Or a forger could use up the id of a message that is yet to come."""
    here = opening(ledger)
    envelope = here.seal(BODY, destination=HERE)
    payload = decode(envelope).payload
    forged = envelope.replace(payload, bytes([payload[0] ^ 1]) + payload[1:])
    assert refusal(lambda: here.open(forged, destination=HERE)) is Verdict.FORGED
    assert here.open(envelope, destination=HERE).verdict is Verdict.OK


def test_a_twin_of_an_ecdsa_signature_is_the_same_message(ledger):
    """Either of s and n - s verifies: whoever turns one into the other has a copy, and no new message."""
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    here = opening(ledger, "privacy-es256")
    envelope = here.seal(BODY, destination=HERE)
    s = int.from_bytes(envelope[-32:])
    twin = envelope[:-32] + (order - s).to_bytes(32)
    here.sealer.settled(here.open(envelope, destination=HERE))
    assert here.open(twin, destination=HERE).verdict is Verdict.DUPLICATE


def test_clear_text_that_passes_has_no_receipt(ledger):
    here = opening(ledger, mode="observe")
    opened = here.open(b"clear", destination=HERE)
    assert opened.receipt is None
    here.sealer.settled(opened)


def test_without_a_ledger_nothing_is_asked():
    here = party()
    envelope = here.seal(BODY, destination=HERE)
    opened = here.open(envelope, destination=HERE)
    here.sealer.settled(opened)
    here.sealer.unsettled(opened)
    assert opened.receipt is None
    assert here.open(envelope, destination=HERE).verdict is Verdict.OK


# -- what becomes of duplicates ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("on_duplicate", "outcome"), [("settle", "discard"), ("refuse", "quarantine")])
def test_a_duplicate_follows_its_policy(ledger, on_duplicate, outcome):
    here = opening(ledger, on_duplicate=on_duplicate, on_refused="quarantine", quarantine="kafka:bad")
    envelope = here.seal(BODY, destination=HERE)
    here.sealer.settled(here.open(envelope, destination=HERE))
    assert refusal(lambda: here.open(envelope, destination=HERE)) is Verdict.DUPLICATE
    [event] = here.events
    assert (event.verdict, event.handed_on) == (Verdict.DUPLICATE, False)
    [rule] = here.sealer.policies
    assert rule.outcome(Verdict.DUPLICATE) == outcome
    assert rule.outcome(Verdict.FORGED) == "quarantine"
    assert rule.outcome(Verdict.CONFLICT) == "quarantine"


def test_a_policy_that_speaks_of_duplicates_needs_a_ledger():
    with pytest.raises(ConfigError, match="on_duplicate = 'settle' needs a ledger"):
        party(on_duplicate="settle")
    with pytest.raises(ConfigError, match="on_duplicate is 'settled'; did you mean 'settle'"):
        policy(on_duplicate="settled")


def test_what_the_broker_did_not_take_is_no_duplicate(ledger):
    here = opening(ledger)
    envelope = here.seal(BODY, destination=HERE)
    opened = here.open(envelope, destination=HERE)
    here.sealer.settled(opened)
    here.sealer.unsettled(opened.receipt)
    assert here.open(envelope, destination=HERE).verdict is Verdict.REDELIVERY


def test_the_twins_of_asyncio_do_the_same(ledger):
    here = opening(ledger)
    envelope = here.seal(BODY, destination=HERE)

    async def run():
        opened = await here.sealer.aopen(envelope, destination=HERE)
        await here.sealer.asettled(opened)
        assert (await here.sealer.aopen(envelope, destination=HERE)).verdict is Verdict.DUPLICATE
        await here.sealer.aunsettled(opened)
        assert (await here.sealer.aopen(envelope, destination=HERE)).verdict is Verdict.REDELIVERY

    asyncio.run(run())


# -- how long and how much ---------------------------------------------------------------------------------------------


def test_an_id_is_kept_until_its_message_is_stale(tmp_path):
    """Not longer, and not shorter: what the ledger has forgotten is refused by its age."""
    clock = Clock()
    for ledger in (
        MemoryLedger(max_ids=100, clock=clock.seconds),
        SqliteLedger(tmp_path / "ledger.db", clock=clock.seconds),
    ):
        here = Party(policy(max_message_age=60), ledger=ledger, clock=clock)
        envelope = here.seal(BODY, destination=HERE)
        here.sealer.settled(here.open(envelope, destination=HERE))
        clock.ms += 60_000
        assert here.open(envelope, destination=HERE).verdict is Verdict.DUPLICATE
        clock.ms += 1000
        assert refusal(lambda: here.open(envelope, destination=HERE)) is Verdict.STALE  # noqa: B023 - called at once
        clock.ms += 400_000
        receipt = here.open(here.seal(BODY, destination=HERE), destination=HERE).receipt
        ledger.settle([receipt])
        assert len(ledger) == 1


def test_a_ledger_that_forgets_too_soon_is_refused():
    with pytest.raises(ConfigError, match="the ledger remembers for 60"):
        Party(policy(max_message_age=61), ledger=MemoryLedger(max_age=60))
    Party(policy(max_message_age=60), ledger=MemoryLedger(max_age=60))
    with pytest.raises(ConfigError, match="ledger must be a Ledger"):
        Party(policy(), ledger={})


@pytest.mark.parametrize(
    "options",
    [{"max_ids": 0}, {"max_ids": 1.5}, {"max_ids": True}, {"max_age": 0}, {"max_age": float("inf")}],
)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        MemoryLedger(**options)


def test_at_its_cap_the_oldest_go_and_are_counted(caplog):
    ledger = MemoryLedger(max_ids=100)
    receipts = [(at.to_bytes(16), bytes(16), 60) for at in range(150)]
    for receipt in receipts:
        ledger.meet(receipt)
        ledger.settle([receipt])
    assert len(ledger) == 100
    assert ledger.forgotten == 50
    assert [record.message for record in caplog.records] == [
        "more than 100 messages in the ledger: the oldest are forgotten"
    ]
    assert {ledger.meet(receipt) for receipt in receipts[50:]} == {Verdict.DUPLICATE}
    assert ledger.meet(receipts[49]) is Verdict.OK


def test_an_id_takes_at_most_120_bytes():
    """Issue 4: whatever room is kept for more."""
    for count in (9_000, 12_000):
        tracemalloc.start()
        ledger = MemoryLedger(max_ids=count)
        before, _ = tracemalloc.get_traced_memory()
        for at in range(count):
            ledger.settle([(hash(at * 7919).to_bytes(16), bytes(16), 60)])
        after, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert (after - before) / len(ledger) <= 120
        assert ledger.nbytes <= after - before


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["meet", "settle", "unsettle"]),
            st.integers(0, 40),
            st.integers(0, 1),
            st.integers(0, 4),
        ),
        max_size=200,
    ),
    st.integers(1, 30),
)
def test_the_table_is_as_a_plain_dict_would_be(steps, most):  # noqa: C901 - one model, in one place
    """With the oldest going at the cap, and what has expired."""
    table, plain, now = Table(most), {}, 0
    for verb, number, which, later in steps:
        now += later
        message, digest = number.to_bytes(16), bytes([which]) * 16
        if verb == "unsettle":
            table.unsettle(message)
            if number in plain:
                plain[number] = (plain[number][0], plain[number][1], False)
            continue
        known = plain.get(number)
        if known is None:
            for _ in range(2):
                if (oldest := next(iter(plain), None)) is not None and plain[oldest][1] <= now:
                    del plain[oldest]
            if len(plain) == most:
                del plain[next(iter(plain))]
        if verb == "settle":
            table.settle(message, digest, now, now + 30)
            plain[number] = (digest, now + 30, True)
            continue
        verdict = table.meet(message, digest, now, now + 30)
        if known is None or known[1] <= now:
            assert verdict is Verdict.OK
            plain[number] = (digest, now + 30, False)
        elif known[0] != digest:
            assert verdict is Verdict.CONFLICT
        else:
            assert verdict is (Verdict.DUPLICATE if known[2] else Verdict.REDELIVERY)
    assert len(table) == len(plain)


def test_threads_agree_on_who_was_first(ledger):
    receipts = [(at.to_bytes(16), bytes(16), 60) for at in range(200)]
    firsts = []

    def meet():
        firsts.extend(receipt for receipt in receipts if ledger.meet(receipt) is Verdict.OK)

    threads = [threading.Thread(target=meet) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(firsts) == receipts


def test_both_are_ledgers(ledger):
    assert isinstance(ledger, Ledger)


# -- windows -----------------------------------------------------------------------------------------------------------


def test_a_deliberate_rewind_is_let_through_and_told_of_once(ledger):
    here = opening(ledger, on_duplicate="refuse")
    sent = datetime.fromtimestamp(here.clock.seconds(), UTC)
    envelopes = [here.seal(b"%d" % at, destination=HERE) for at in range(3)]
    here.sealer.settled(*(here.open(envelope, destination=HERE) for envelope in envelopes))
    minute = timedelta(minutes=1)
    with here.sealer.replay_allowed(
        HERE, sent - minute, sent + minute, reason="offsets reset after incident 4711"
    ) as window:
        opened = [here.open(envelope, destination=HERE) for envelope in envelopes]
        assert {each.verdict for each in opened} == {Verdict.REDELIVERY}
        assert window.count == 3
        assert "incident 4711" in repr(window)
    [event] = here.events
    assert (event.verdict, event.handed_on, event.destination) == (Verdict.REDELIVERY, True, HERE)
    assert "incident 4711" in event.detail
    assert refusal(lambda: here.open(envelopes[0], destination=HERE)) is Verdict.DUPLICATE


def test_a_window_is_bounded_in_every_direction(ledger):
    here = opening(ledger, on_duplicate="refuse", accept_from=["kafka:orders.dead"])
    now = datetime.fromtimestamp(here.clock.seconds(), UTC)
    envelope = here.seal(BODY, destination=HERE)
    here.sealer.settled(here.open(envelope, destination=HERE))
    second, allowed = timedelta(seconds=1), here.sealer.replay_allowed
    with allowed(HERE, now + second, now + 2 * second, reason="too late"):
        assert refusal(lambda: here.open(envelope, destination=HERE)) is Verdict.DUPLICATE
    with allowed("kafka:orders.dead", now - second, now + second, reason="elsewhere"):
        assert refusal(lambda: here.open(envelope, destination=HERE)) is Verdict.DUPLICATE
        assert here.open(envelope, destination="kafka:orders.dead").verdict is Verdict.REDELIVERY
    allowed(HERE, now - second, now + second, reason="ends by itself", lasts=60)
    assert here.open(envelope, destination=HERE).verdict is Verdict.REDELIVERY
    here.clock.ms += 60_000
    assert refusal(lambda: here.open(envelope, destination=HERE)) is Verdict.DUPLICATE


def test_no_window_lets_a_conflict_through(ledger):
    one, two = same_id()
    here = Party(policy(), ledger=ledger, keys=local_keys())
    now = datetime.fromtimestamp(here.clock.seconds(), UTC)
    here.sealer.settled(here.open(one, destination=HERE))
    with here.sealer.replay_allowed(HERE, now - timedelta(days=1), now + timedelta(days=1), reason="x"):
        assert refusal(lambda: here.open(two, destination=HERE)) is Verdict.CONFLICT


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"since": datetime(2026, 1, 1)}, "since must be a datetime with its time zone"),  # noqa: DTZ001 - that is what is wrong
        ({"until": datetime(2020, 1, 1, tzinfo=UTC)}, "since is after until"),
        ({"reason": " "}, "reason must say"),
        ({"lasts": 0}, "lasts must be over 0"),
        ({"lasts": 8 * 86400}, "lasts must be over 0 and up to 604,800"),
        ({"destination": "kafka:ordres"}, "no policy speaks of destination 'kafka:ordres'; did you mean"),
    ],
)
def test_a_window_that_says_too_little_is_refused(change, says):
    here = opening(MemoryLedger())
    given = {
        "destination": HERE,
        "since": datetime(2026, 1, 1, tzinfo=UTC),
        "until": datetime(2026, 1, 2, tzinfo=UTC),
        "reason": "x",
    }
    with pytest.raises(ConfigError, match=says):
        here.sealer.replay_allowed(**given | change)
    assert here.events == []


def test_windows_are_no_way_around_having_a_ledger():
    here = party()
    with pytest.raises(ConfigError, match="has no ledger"):
        here.sealer.replay_allowed(
            HERE, datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC), reason="x"
        )


# -- SQLite ------------------------------------------------------------------------------------------------------------


def test_processes_share_one_file(tmp_path):
    path = tmp_path / "ledger.db"
    child = """
import sys
from postseal.core import SqliteLedger
ledger = SqliteLedger(sys.argv[1])
for at in range(int(sys.argv[2]), int(sys.argv[2]) + 200):
    ledger.settle([(at.to_bytes(16), bytes(16), 60)])
"""
    children = [
        subprocess.Popen([sys.executable, "-c", child, str(path), str(start)]) for start in (0, 200, 400)
    ]
    assert [each.wait() for each in children] == [0, 0, 0]
    ledger = SqliteLedger(path)
    assert len(ledger) == 600
    assert {ledger.meet((at.to_bytes(16), bytes(16), 60)) for at in range(600)} == {Verdict.DUPLICATE}
    assert path.stat().st_mode & 0o077 == 0
    ledger.close()


def test_a_new_process_knows_what_the_old_one_settled(tmp_path):
    here = opening(SqliteLedger(tmp_path / "ledger.db"))
    envelopes = [here.seal(b"%d" % at, destination=HERE) for at in range(2)]
    opened = [here.open(envelope, destination=HERE) for envelope in envelopes]
    here.sealer.settled(opened[0])
    here.sealer.ledger.close()
    there = Party(policy(), ledger=SqliteLedger(tmp_path / "ledger.db"), keys=here.keys)
    verdicts = [there.open(envelope, destination=HERE).verdict for envelope in envelopes]
    assert verdicts == [Verdict.DUPLICATE, Verdict.OK]  # the other one was seen by who is no more
    there.sealer.ledger.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_opens_the_file_anew(tmp_path):
    ledger = SqliteLedger(tmp_path / "ledger.db")
    ledger.settle([(bytes(16), bytes(16), 60)])
    child = os.fork()
    if child == 0:
        known = ledger.meet((bytes(16), bytes(16), 60)) is Verdict.DUPLICATE
        ledger.settle([(b"c" * 16, bytes(16), 60)])
        os._exit(0 if known else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert ledger.meet((b"c" * 16, bytes(16), 60)) is Verdict.DUPLICATE
    ledger.close()


def test_the_file_is_pruned(tmp_path):
    clock = Clock()
    ledger = SqliteLedger(tmp_path / "ledger.db", max_ids=50, clock=clock.seconds)
    for at in range(200):
        ledger.settle([(at.to_bytes(16), bytes(16), 60 + at)])
    assert len(ledger) <= 53
    assert ledger.forgotten >= 147
    assert ledger.meet(((199).to_bytes(16), bytes(16), 60)) is Verdict.DUPLICATE
    assert ledger.meet(((0).to_bytes(16), bytes(16), 60)) is not Verdict.OK  # by what this process remembers
    clock.ms += 3_600_000
    ledger.settle([(b"x" * 16, bytes(16), 60)])
    assert len(ledger) == 1
    ledger.close()


@pytest.mark.parametrize("content", [b"not a database at all" * 100, None])
def test_another_file_is_left_alone(tmp_path, content):
    path = tmp_path / "other.db"
    if content is None:
        other = sqlite3.connect(path)
        other.execute("CREATE TABLE people (name)")
        other.close()
    else:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match="no ledger"):
        SqliteLedger(path)


def test_a_ledger_that_fails_keeps_the_message(tmp_path):
    """A passing fault: nothing is handed on, nothing settled, no event is made."""
    ledger = SqliteLedger(tmp_path / "ledger.db", timeout=0.01)
    here = opening(ledger)
    envelope = here.seal(BODY, destination=HERE)
    opened = here.open(envelope, destination=HERE)
    other = sqlite3.connect(tmp_path / "ledger.db")
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(LedgerUnavailable, match="locked"):
        here.sealer.settled(opened)
    other.execute("DROP TABLE settled")
    other.commit()
    with pytest.raises(KeyUnavailable):
        here.open(envelope, destination=HERE)
    assert here.sealer.open_at_hand(HERE)(here.seal(BODY, destination=HERE)) is None
    assert here.events == []
    other.close()
    ledger.close()


def test_a_ledger_that_fails_may_be_told_to_let_pass(tmp_path):
    ledger = SqliteLedger(tmp_path / "none" / "ledger.db", on_failure="deliver")
    here = opening(ledger)
    envelope = here.seal(BODY, destination=HERE)
    opened = here.open(envelope, destination=HERE)
    here.sealer.settled(opened)
    assert here.open(envelope, destination=HERE).verdict is Verdict.DUPLICATE  # this process remembers
    here.sealer.unsettled(opened)
    assert ledger.unasked >= 4
    with pytest.raises(LedgerUnavailable):
        SqliteLedger(tmp_path / "none" / "ledger.db")
    with pytest.raises(ConfigError, match="on_failure is 'delivers'; did you mean 'deliver'"):
        SqliteLedger(tmp_path / "ledger.db", on_failure="delivers")


def test_a_ledger_of_ones_own_is_asked():
    """The protocol is all that is needed."""

    class Strict(MemoryLedger):
        waits = True

        def meet(self, receipt):
            raise LedgerUnavailable("away")

    here = opening(Strict())
    envelope = here.seal(BODY, destination=HERE)
    with pytest.raises(LedgerUnavailable):
        here.open(envelope, destination=HERE)
    assert here.sealer.open_cached(envelope, destination=HERE) is None
    assert isinstance(here.open(envelope, destination=HERE, is_delivery=False), Opened)


@pytest.mark.parametrize("options", [{"encrypt_headers": ["tenant"]}, {"bind_headers": ["tenant"]}])
def test_what_is_bound_or_encrypted_beside_the_body_changes_nothing(ledger, options):
    here = opening(ledger, **options)
    headers = {"tenant": "north"}
    envelopes = [here.seal(BODY, destination=HERE, headers=headers) for _ in range(2)]
    beside = {} if "encrypt_headers" in options else {"headers": headers}
    opened = [here.open(envelope, destination=HERE, **beside) for envelope in envelopes]
    assert [each.verdict for each in opened] == [Verdict.OK, Verdict.OK]
    here.sealer.settled(*opened)
    for envelope in envelopes:
        assert here.open(envelope, destination=HERE, **beside).verdict is Verdict.DUPLICATE
