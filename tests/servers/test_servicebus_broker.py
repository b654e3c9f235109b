"""What the Service Bus test server keeps, without a wire: queues, locks, sessions, topics, time."""

import uuid
from dataclasses import dataclass, field
from datetime import timedelta

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from integration.servers.servicebus.broker import Broker
from integration.servers.servicebus.entries import Options, State
from integration.servers.servicebus.errors import (
    EntityNotFound,
    LockLost,
    MessageNotFound,
    NotAllowed,
    SessionLocked,
    SessionLockLost,
    TooLarge,
)
from integration.servers.servicebus.rules import Correlation, Sql


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@dataclass(eq=False)
class Plain:
    """A message as plain as can be."""

    name: str = "order 7"
    size: int = 100
    ttl: float | None = None
    message_id: str | None = None
    session_id: str | None = None
    subject: str | None = None
    properties: dict = field(default_factory=dict)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def broker(clock):
    return Broker(clock)


def wait(broker, clock, seconds):
    clock.now += seconds
    broker.tick()


def names(queue):
    """The messages that a receiver of everything gets, in order."""
    found = []
    while (entry := queue.take(remove=True)) is not None:
        found.append(entry.content.name)
    return found


def dead(broker, path="orders"):
    return broker.queue(f"{path}/$DeadLetterQueue")


def test_messages_are_handed_out_in_order(broker):
    queue = broker.create_queue("orders")
    for name in ("one", "two", "three"):
        broker.send("orders", Plain(name))

    assert names(queue) == ["one", "two", "three"]
    assert len(queue) == 0


def test_a_name_is_found_whatever_its_case(broker):
    queue = broker.create_queue("Orders")

    assert broker.queue("oRDERS") is queue
    assert broker.queue("orders/$deadLetterQUEUE").path == "Orders/$DeadLetterQueue"


def test_a_locked_message_is_nobody_elses(broker):
    queue = broker.create_queue("orders")
    broker.send("orders", Plain())

    assert queue.take() is not None
    assert queue.take() is None
    assert len(queue) == 1


def test_what_is_completed_is_gone(broker):
    queue = broker.create_queue("orders")
    broker.send("orders", Plain())
    token = queue.take().lock.token

    queue.complete(token)

    assert len(queue) == 0
    with pytest.raises(LockLost):
        queue.complete(token)


def test_what_is_abandoned_returns_to_its_place_and_is_counted(broker):
    queue = broker.create_queue("orders")
    broker.send("orders", Plain("one"))
    broker.send("orders", Plain("two"))

    queue.abandon(queue.take().lock.token)

    again = queue.take()
    assert (again.content.name, again.delivery_count, again.sequence) == ("one", 1, 1)


def test_what_is_released_is_not_counted(broker):
    queue = broker.create_queue("orders")
    broker.send("orders", Plain())

    queue.release(queue.take().lock.token)

    assert queue.take().delivery_count == 0


def test_after_the_last_delivery_a_message_is_dead_lettered_with_the_reason(broker):
    queue = broker.create_queue("orders", Options(max_delivery_count=2))
    broker.send("orders", Plain())

    queue.abandon(queue.take().lock.token)
    queue.abandon(queue.take().lock.token)

    assert queue.take() is None
    entry = dead(broker).take()
    assert entry.stamps["DeadLetterReason"] == "MaxDeliveryCountExceeded"
    assert entry.delivery_count == 2


def test_dead_letters_are_kept_however_often_they_are_abandoned(broker):
    queue = broker.create_queue("orders", Options(max_delivery_count=1))
    broker.send("orders", Plain())
    queue.dead_letter(queue.take().lock.token, "bad", "very bad")

    for _ in range(20):
        dead(broker).abandon(dead(broker).take().lock.token)

    assert dead(broker).take().stamps == {
        "DeadLetterReason": "bad",
        "DeadLetterErrorDescription": "very bad",
    }


def test_a_lock_ends_by_itself(broker, clock):
    queue = broker.create_queue("orders", Options(lock_duration=30))
    broker.send("orders", Plain())
    token = queue.take().lock.token

    wait(broker, clock, 29.9)
    assert queue.take() is None
    wait(broker, clock, 0.1)

    with pytest.raises(LockLost):
        queue.complete(token)
    assert queue.take().delivery_count == 1


def test_a_lock_that_is_over_settles_nothing_even_before_anybody_looked(broker, clock):
    queue = broker.create_queue("orders", Options(lock_duration=30))
    broker.send("orders", Plain())
    token = queue.take().lock.token
    clock.now += 30

    with pytest.raises(LockLost):
        queue.complete(token)
    assert len(queue) == 1


def test_a_renewed_lock_lasts(broker, clock):
    queue = broker.create_queue("orders", Options(lock_duration=30))
    broker.send("orders", Plain())
    token = queue.take().lock.token
    wait(broker, clock, 20)

    assert queue.renew(token) == clock.now + 30

    wait(broker, clock, 20)
    queue.complete(token)
    assert len(queue) == 0


def test_a_deferred_message_is_had_by_its_number_only(broker):
    queue = broker.create_queue("orders")
    number = broker.send("orders", Plain())
    queue.defer(queue.take().lock.token)

    assert queue.take() is None
    assert [entry.state for entry in queue.peek(1, 10)] == [State.DEFERRED]
    (entry,) = queue.take_deferred([number])
    with pytest.raises(MessageNotFound):
        queue.take_deferred([number])
    queue.complete(entry.lock.token)
    assert len(queue) == 0


def test_deferred_messages_are_had_together_or_not_at_all(broker):
    queue = broker.create_queue("orders")
    number = broker.send("orders", Plain())
    queue.defer(queue.take().lock.token)

    with pytest.raises(MessageNotFound):
        queue.take_deferred([number, 99])
    assert len(queue.take_deferred([number])) == 1


def test_an_abandoned_deferred_message_stays_deferred(broker):
    queue = broker.create_queue("orders")
    number = broker.send("orders", Plain())
    queue.defer(queue.take().lock.token)
    (entry,) = queue.take_deferred([number])

    queue.abandon(entry.lock.token)

    assert queue.take() is None
    assert len(queue.take_deferred([number])) == 1


def test_a_scheduled_message_comes_in_time_with_a_number_of_that_time(broker, clock):
    queue = broker.create_queue("orders")
    scheduled = broker.send("orders", Plain("later"), at=clock.now + 60)
    broker.send("orders", Plain("now"))
    assert [entry.state for entry in queue.peek(1, 10)] == [State.SCHEDULED, State.ACTIVE]
    assert names(queue) == ["now"]

    wait(broker, clock, 60)

    entry = queue.take()
    assert entry.content.name == "later"
    assert entry.sequence > scheduled
    assert entry.enqueued_at == clock.now


def test_a_cancelled_message_never_comes(broker, clock):
    queue = broker.create_queue("orders")
    number = broker.send("orders", Plain(), at=clock.now + 60)

    broker.cancel("orders", [number])
    wait(broker, clock, 60)

    assert len(queue) == 0
    with pytest.raises(MessageNotFound):
        broker.cancel("orders", [number])


def test_a_message_expires(broker, clock):
    queue = broker.create_queue("orders")
    broker.send("orders", Plain(ttl=10))

    wait(broker, clock, 10)

    assert queue.take() is None
    assert len(queue) == len(dead(broker)) == 0


def test_an_expired_message_is_dead_lettered_where_that_is_asked_for(broker, clock):
    broker.create_queue(
        "orders", Options(default_message_time_to_live=10, dead_lettering_on_message_expiration=True)
    )
    broker.send("orders", Plain())

    wait(broker, clock, 10)

    assert dead(broker).take().stamps["DeadLetterReason"] == "TTLExpiredException"


def test_a_locked_message_expires_only_after_its_lock(broker, clock):
    queue = broker.create_queue("orders", Options(lock_duration=30))
    broker.send("orders", Plain(ttl=10))
    token = queue.take().lock.token
    wait(broker, clock, 20)

    queue.abandon(token)

    assert queue.take() is None
    assert len(queue) == 0


def test_a_message_with_a_known_id_is_dropped_within_the_window(broker, clock):
    queue = broker.create_queue("orders", Options(duplicate_detection=60))
    broker.send("orders", Plain("first", message_id="7"))
    broker.send("orders", Plain("again", message_id="7"))
    broker.send("orders", Plain("none"))
    clock.now += 60
    broker.send("orders", Plain("later", message_id="7"))

    assert names(queue) == ["first", "none", "later"]


def test_a_large_message_is_refused_and_nothing_kept(broker):
    queue = broker.create_queue("orders", Options(max_message_size=99))

    with pytest.raises(TooLarge):
        broker.send("orders", Plain())
    assert len(queue) == 0


def test_a_peek_locks_nothing(broker):
    queue = broker.create_queue("orders")
    for name in ("one", "two", "three"):
        broker.send("orders", Plain(name))

    assert [entry.content.name for entry in queue.peek(2, 10)] == ["two", "three"]
    assert [entry.content.name for entry in queue.peek(1, 1)] == ["one"]
    assert names(queue) == ["one", "two", "three"]


@pytest.mark.parametrize("name", ["orders/$DeadLetterQueue", "events/Subscriptions/all"])
def test_nothing_is_sent_to_what_is_only_received_from(broker, name):
    broker.create_queue("orders")
    broker.create_topic("events")
    broker.create_subscription("events", "all")

    with pytest.raises(NotAllowed):
        broker.send(name, Plain())


def test_what_does_not_exist_is_not_found(broker):
    for ask in (broker.queue, broker.topic, broker.delete, broker.largest, broker.subscription):
        with pytest.raises(EntityNotFound):
            ask("nowhere")


def test_a_name_is_given_once(broker):
    broker.create_queue("orders")

    for make in (broker.create_queue, broker.create_topic):
        with pytest.raises(NotAllowed):
            make("ORDERS")


def test_what_is_deleted_is_gone_with_all_below_it(broker):
    broker.create_topic("events")
    broker.create_subscription("events", "all")
    broker.create_queue("events-too")

    broker.delete("events")

    assert sorted(broker.names()) == ["events-too", "events-too/$DeadLetterQueue"]


# Forwarding


def test_a_message_is_forwarded(broker):
    broker.create_queue("last")
    broker.create_queue("orders", Options(forward_to="last"))

    broker.send("orders", Plain())

    assert names(broker.queue("last")) == ["order 7"]


def test_dead_letters_are_forwarded_and_say_whence_they_came(broker):
    broker.create_queue("quarantine")
    queue = broker.create_queue("orders", Options(forward_dead_lettered_messages_to="quarantine"))
    broker.send("orders", Plain())
    queue.dead_letter(queue.take().lock.token, "bad")

    entry = broker.queue("quarantine").take()
    assert (entry.source, entry.stamps) == ("orders", {"DeadLetterReason": "bad"})


def test_a_message_does_not_go_in_circles(broker):
    broker.create_queue("one", Options(forward_to="two"))
    broker.create_queue("two", Options(forward_to="one"))

    broker.send("one", Plain())

    assert len(dead(broker, "one")) + len(dead(broker, "two")) == 1


# Topics


def test_each_subscription_gets_its_own(broker):
    broker.create_topic("events")
    first, second = (broker.create_subscription("events", name).queue for name in ("a", "b"))
    broker.send("events", Plain())

    first.complete(first.take().lock.token)

    assert len(first) == 0
    assert names(second) == ["order 7"]


def test_a_subscription_gets_what_one_of_its_rules_lets_through(broker):
    broker.create_topic("events")
    rules = {"red": Sql("colour = 'red'"), "big": Correlation({"subject": "big"})}
    queue = broker.create_subscription("events", "some", rules=rules).queue
    for name, colour, subject in [("one", "red", None), ("two", "blue", None), ("three", "blue", "big")]:
        broker.send("events", Plain(name, properties={"colour": colour}, subject=subject))

    assert names(queue) == ["one", "three"]


def test_a_scheduled_message_is_cancelled_in_each_subscription(broker, clock):
    broker.create_topic("events")
    queues = [broker.create_subscription("events", name).queue for name in ("a", "b")]
    number = broker.send("events", Plain(), at=clock.now + 10)

    broker.cancel("events", [number])
    wait(broker, clock, 10)

    assert [len(queue) for queue in queues] == [0, 0]


# Sessions


@pytest.fixture
def queue(broker):
    queue = broker.create_queue("orders", Options(requires_session=True, lock_duration=30))
    for name, session in [("a1", "a"), ("b1", "b"), ("a2", "a")]:
        broker.send("orders", Plain(name, session_id=session))
    return queue


def test_a_receiver_gets_the_messages_of_its_session(queue):
    session = queue.sessions.accept("a")

    assert [queue.take(session).content.name for _ in range(2)] == ["a1", "a2"]
    assert queue.take(session) is None


def test_a_session_is_one_receivers(queue):
    session = queue.sessions.accept("a")

    with pytest.raises(SessionLocked):
        queue.sessions.accept("a")
    queue.sessions.leave(session)
    assert queue.sessions.accept("a") is session


def test_the_next_session_is_the_one_that_waits_longest(queue):
    assert [queue.sessions.accept(None).name for _ in range(2)] == ["a", "b"]
    assert queue.sessions.accept(None) is None


def test_a_message_without_a_session_is_refused_where_one_is_required(broker, queue):
    with pytest.raises(NotAllowed):
        broker.send("orders", Plain())


def test_with_its_session_a_message_is_unlocked(broker, clock, queue):
    session = queue.sessions.accept("a")
    token = queue.take(session).lock.token

    wait(broker, clock, 30)

    with pytest.raises(LockLost):
        queue.complete(token)
    with pytest.raises(SessionLockLost):
        queue.sessions.renew(session)
    again = queue.take(queue.sessions.accept("a"))
    assert (again.content.name, again.delivery_count) == ("a1", 1)


def test_a_renewed_session_keeps_its_messages(broker, clock, queue):
    session = queue.sessions.accept("a")
    token = queue.take(session).lock.token
    wait(broker, clock, 20)

    queue.sessions.renew(session)
    wait(broker, clock, 20)

    queue.complete(token)
    assert queue.sessions.find("a") is session


def test_a_state_is_kept_with_its_session(queue):
    session = queue.sessions.accept("c")
    queue.sessions.set_state("c", b"half done")
    queue.sessions.leave(session)

    assert queue.sessions.accept("c").state == b"half done"
    assert queue.sessions.names() == ["a", "b", "c"]


def test_sessions_are_listed_by_the_time_of_their_state(clock, queue):
    queue.sessions.set_state("a", b"early")
    clock.now += 10
    queue.sessions.set_state("b", b"late")

    assert queue.sessions.names(changed_since=clock.now) == ["b"]


# Whatever is done, no message is lost or had twice.


class Anything(RuleBasedStateMachine):
    """Send, receive, settle, wait in any order: what is neither completed nor dead is still there."""

    def __init__(self):
        super().__init__()
        self.clock = Clock()
        self.broker = Broker(self.clock)
        self.queue = self.broker.create_queue("orders", Options(lock_duration=10, max_delivery_count=3))
        self.sent, self.completed, self.tokens, self.deferred = 0, 0, [], []

    @rule()
    def send(self):
        self.broker.send("orders", Plain())
        self.sent += 1

    @rule()
    def take(self):
        entry = self.queue.take()
        if entry is not None:
            self.tokens.append((entry.lock.token, entry.lock.until, entry.sequence))

    @precondition(lambda self: self.tokens)
    @rule(verb=st.sampled_from(["complete", "abandon", "release", "defer", "dead_letter", "renew"]))
    def settle(self, verb):
        token, until, sequence = self.tokens.pop(0)
        if until <= self.clock.now:
            with pytest.raises(LockLost):
                getattr(self.queue, verb)(token)
            return
        found = getattr(self.queue, verb)(token)
        if verb == "renew":
            self.tokens.append((token, found, sequence))
        self.completed += verb == "complete"
        self.deferred += [sequence] if verb == "defer" else []

    @precondition(lambda self: self.deferred)
    @rule()
    def take_deferred(self):
        sequence = self.deferred.pop()
        try:
            (entry,) = self.queue.take_deferred([sequence])
        except MessageNotFound:
            return
        self.tokens.append((entry.lock.token, entry.lock.until, sequence))

    @rule(seconds=st.floats(0, 12))
    def wait(self, seconds):
        wait(self.broker, self.clock, seconds)

    @invariant()
    def nothing_is_lost(self):
        assert len(self.queue) + len(dead(self.broker)) + self.completed == self.sent

    def teardown(self):
        wait(self.broker, self.clock, 11)
        seen = set()
        while (entry := self.queue.take()) is not None:
            assert entry.sequence not in seen
            seen.add(entry.sequence)
        kept = self.queue.peek(1, 10_000)
        assert {entry.sequence for entry in kept if entry.state is State.ACTIVE} == seen


Anything.TestCase.settings = settings(max_examples=50, deadline=timedelta(seconds=5), stateful_step_count=40)
TestAnything = Anything.TestCase


def test_a_strangers_token_settles_nothing(broker):
    queue = broker.create_queue("orders")
    broker.send("orders", Plain())
    queue.take()

    for settle in (queue.complete, queue.abandon, queue.release, queue.defer, queue.dead_letter, queue.renew):
        with pytest.raises(LockLost):
            settle(uuid.uuid4())
