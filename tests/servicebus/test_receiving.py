"""What a protected receiver hands on, by every way to receive; sessions and their state; locks."""

import pytest
from azure.servicebus import NEXT_AVAILABLE_SESSION, ServiceBusMessage, ServiceBusReceiveMode
from azure.servicebus.amqp import AmqpAnnotatedMessage
from azure.servicebus.exceptions import MessageLockLostError, SessionLockLostError

from postseal.core import KeyUnavailable, Refused, Verdict
from postseal.core.wire import looks_sealed
from tests.servicebus.ends import Blocking

CARD = "4111 1111 1111 1111"


def body(message):
    return b"".join(message.body)


def send(ends, queue, sealer, *texts, **options):
    with ends.client(sealer).get_queue_sender(queue) as sender:
        for text in texts:
            sender.send_messages(ServiceBusMessage(text, **options))


def inject(ends, queue, *bodies, **options):
    """Send with a bare client, as an attacker would."""
    with ends.bare.get_queue_sender(queue) as sender:
        for one in bodies:
            sender.send_messages(
                one if isinstance(one, AmqpAnnotatedMessage) else ServiceBusMessage(one, **options)
            )


def raw_bodies(ends, queue, **options):
    with ends.bare.get_queue_receiver(queue, **options) as receiver:
        return [body(message) for message in receiver.peek_messages(100)]


# -- every way to receive ----------------------------------------------------------------------------------------------


def test_next_and_iteration_hand_on_opened_messages(ends, queue):
    sealer = ends.sealer(ends.policy(queue))
    send(ends, queue, sealer, "one", "two", "three")
    with ends.client(ends.sealer(ends.policy(queue))).get_queue_receiver(
        queue, max_wait_time=0.3
    ) as receiver:
        first = next(receiver)
        assert str(first) == "one"
        receiver.complete_message(first)
        rest = []
        for message in receiver:
            rest.append(str(message))
            receiver.complete_message(message)
        assert rest == ["two", "three"]
        with pytest.raises(StopIteration):
            next(receiver)


def test_the_streaming_iterator_is_opened_too(ends, queue):
    """It is private in the client library, and in its samples."""
    sealer = ends.sealer(ends.policy(queue))
    send(ends, queue, sealer, "one", "two")
    inject(ends, queue, "clear")
    with ends.client(ends.sealer(ends.policy(queue, on_refused="discard"))).get_queue_receiver(
        queue
    ) as receiver:
        stream = receiver._get_streaming_message_iter(max_wait_time=0.3)
        if ends.is_asyncio:
            stream = Blocking(stream, receiver._runner)
        assert [str(message) for message in stream] == ["one", "two"]
    assert ends.verdicts() == [Verdict.UNPROTECTED]


def test_peeked_messages_are_opened_and_nothing_is_settled(ends, queue):
    sealer = ends.sealer(ends.policy(queue, on_refused="dead-letter"))
    send(ends, queue, sealer, "one", "two")
    inject(ends, queue, "clear")
    send(ends, queue, sealer, "three")
    with ends.client(sealer).get_queue_receiver(queue) as receiver:
        assert [str(m) for m in receiver.peek_messages(10)] == ["one", "two", "three"]
        assert [str(m) for m in receiver.peek_messages(1, sequence_number=3)] == ["three"]
        with pytest.raises(ValueError, match="peek"):
            receiver.complete_message(receiver.peek_messages(1, sequence_number=1)[0])
    assert len(raw_bodies(ends, queue)) == 4


def test_peeking_at_nothing_but_refused_messages_raises_where_the_policy_says(ends, queue):
    inject(ends, queue, "clear")
    sealer = ends.sealer(ends.policy(queue))
    with ends.client(sealer).get_queue_receiver(queue) as receiver, pytest.raises(Refused):
        receiver.peek_messages(10)
    assert raw_bodies(ends, queue) == [b"clear"]


def test_peeking_without_a_key_service_says_so(ends, queue):
    send(ends, queue, ends.sealer(ends.policy(queue)), "one")
    ends.keys.unavailable.set()
    with ends.client(ends.sealer(ends.policy(queue))).get_queue_receiver(queue) as receiver:
        with pytest.raises(KeyUnavailable):
            receiver.peek_messages()
        ends.keys.unavailable.clear()
        assert [str(m) for m in receiver.peek_messages(sequence_number=1)] == ["one"]


def test_deferred_messages_are_opened_and_settled(ends, queue):
    sealer = ends.sealer(ends.policy(queue))
    send(ends, queue, sealer, "one", "two")
    with ends.client(sealer).get_queue_receiver(queue) as receiver:
        numbers = []
        while len(numbers) < 2:
            for message in receiver.receive_messages(2, max_wait_time=5):
                numbers.append(message.sequence_number)
                receiver.defer_message(message)
        came = receiver.receive_deferred_messages(numbers)
        assert [str(m) for m in came] == ["one", "two"]
        for message in came:
            receiver.complete_message(message)
    assert raw_bodies(ends, queue) == []


def test_a_refused_deferred_message_is_settled_and_the_others_handed_on(ends, queue):
    sealer = ends.sealer(ends.policy(queue, on_refused="dead-letter"))
    send(ends, queue, sealer, "one")
    inject(ends, queue, "clear")
    with ends.bare.get_queue_receiver(queue) as bare:
        numbers = []
        while len(numbers) < 2:
            for message in bare.receive_messages(2, max_wait_time=5):
                numbers.append(message.sequence_number)
                bare.defer_message(message)
    with ends.client(sealer).get_queue_receiver(queue) as receiver:
        [came] = receiver.receive_deferred_messages(numbers)
        assert str(came) == "one"
        receiver.complete_message(came)
    assert raw_bodies(ends, queue, sub_queue="deadletter") == [b"clear"]
    assert ends.verdicts() == [Verdict.UNPROTECTED]


def test_a_deferred_message_without_a_key_stays_deferred(ends, queue):
    send(ends, queue, ends.sealer(ends.policy(queue)), "one")
    with ends.client(ends.sealer(ends.policy(queue))).get_queue_receiver(queue) as receiver:
        [message] = receiver.receive_messages(max_wait_time=5)
        receiver.defer_message(message)
    ends.keys.unavailable.set()
    with ends.client(ends.sealer(ends.policy(queue))).get_queue_receiver(queue) as receiver:
        with pytest.raises(KeyUnavailable, match="stay deferred"):
            receiver.receive_deferred_messages(message.sequence_number)
        ends.keys.unavailable.clear()
        [came] = receiver.receive_deferred_messages(message.sequence_number)
        assert str(came) == "one"
        receiver.complete_message(came)


def test_received_and_deleted_messages_are_opened(ends, queue):
    sealer = ends.sealer(ends.policy(queue))
    send(ends, queue, sealer, "one", "two")
    mode = ServiceBusReceiveMode.RECEIVE_AND_DELETE
    with ends.client(sealer).get_queue_receiver(queue, receive_mode=mode, max_wait_time=0.5) as receiver:
        assert [str(m) for m in receiver.receive_messages(2)] == ["one", "two"]
    assert raw_bodies(ends, queue) == []


@pytest.mark.parametrize("wrong", [{"max_wait_time": 0}, {"max_wait_time": -1}, {"max_message_count": 0}])
def test_arguments_that_make_no_sense_are_refused_as_ever(ends, queue, wrong):
    with (
        ends.client(ends.sealer(ends.policy(queue))).get_queue_receiver(queue) as receiver,
        pytest.raises(ValueError, match="greater than 0"),
    ):
        receiver.receive_messages(**wrong)


def test_an_empty_queue_is_empty(ends, queue):
    with ends.client(ends.sealer(ends.policy(queue))).get_queue_receiver(
        queue, max_wait_time=0.2
    ) as receiver:
        assert receiver.receive_messages(10) == []
        assert receiver.receive_messages(max_message_count=None) == []
        assert receiver.peek_messages() == []
        assert receiver.receive_deferred_messages([]) == []
        assert list(receiver) == []


def test_dead_letters_are_opened_with_their_reason(ends, queue):
    """A10: a message that the application dead-letters is sealed there, too."""
    sealer = ends.sealer(ends.policy(queue))
    send(ends, queue, sealer, CARD)
    client = ends.client(sealer)
    with client.get_queue_receiver(queue) as receiver:
        [message] = receiver.receive_messages(max_wait_time=5)
        receiver.dead_letter_message(message, reason="no stock", error_description="of that")
    [raw] = raw_bodies(ends, queue, sub_queue="deadletter")
    assert looks_sealed(raw)
    with client.get_queue_receiver(queue, sub_queue="deadletter") as receiver:
        [letter] = receiver.receive_messages(max_wait_time=5)
        assert str(letter) == CARD
        assert (letter.dead_letter_reason, letter.dead_letter_error_description) == ("no stock", "of that")
        receiver.complete_message(letter)


def test_a_subscription_reads_what_was_sent_to_its_topic(server, ends):
    topic = server.new_topic("emea", "apac")
    sealer = ends.sealer(ends.policy(topic))
    client = ends.client(sealer)
    with client.get_topic_sender(topic) as sender:
        sender.send_messages(ServiceBusMessage(CARD))
    for name in ("emea", "apac"):
        with client.get_subscription_receiver(topic, name) as receiver:
            [message] = receiver.receive_messages(max_wait_time=5)
            assert str(message) == CARD
            receiver.complete_message(message)
    assert ends.keys.calls == {"generate": 1, "unwrap": 1}


def test_a_forwarded_message_opens_where_the_policy_accepts_it(server, ends):
    """E2: from queue to queue by the broker's own hand."""
    there = server.new_queue()
    here = server.new_queue(forward_to=there)
    sealer = ends.sealer(ends.policy(here, accept_from=[f"servicebus:{there}"]))
    send(ends, here, sealer, CARD)
    with ends.client(sealer).get_queue_receiver(there) as receiver:
        [message] = receiver.receive_messages(max_wait_time=5)
        assert str(message) == CARD
        receiver.complete_message(message)


def test_a_forwarded_message_is_refused_where_no_policy_accepts_it(server, ends):
    there = server.new_queue()
    here = server.new_queue(forward_to=there)
    send(ends, here, ends.sealer(ends.policy(here)), CARD)
    with (
        ends.client(ends.sealer(ends.policy(there))).get_queue_receiver(there) as receiver,
        pytest.raises(Refused),
    ):
        receiver.receive_messages(max_wait_time=5)
    assert ends.verdicts() == [Verdict.WRONG_DESTINATION]


# -- sessions ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def sessions(server):
    """A queue with sessions."""
    return server.new_queue(requires_session=True)


def test_sessions_are_received_each_by_itself(ends, sessions):
    policy = ends.policy(sessions, bind_ordering_key=True)
    sealer = ends.sealer(policy)
    for session in ("north", "south"):
        send(ends, sessions, sealer, f"{session} 1", f"{session} 2", session_id=session)
    client = ends.client(ends.sealer(policy))
    seen = {}
    for _ in range(2):
        with client.get_queue_receiver(
            sessions, session_id=NEXT_AVAILABLE_SESSION, max_wait_time=5
        ) as receiver:
            seen[receiver.session.session_id] = [str(m) for m in (next(receiver), next(receiver))]
            receiver.session.renew_lock()
            assert receiver.receive_messages(2, max_wait_time=0.2) == []
        if len(seen) == 1:
            with client.get_queue_receiver(
                sessions, session_id=next(iter(seen)), max_wait_time=1
            ) as receiver:
                for message in receiver:
                    receiver.complete_message(message)
    assert seen == {"north": ["north 1", "north 2"], "south": ["south 1", "south 2"]}


def test_a_message_moved_to_another_session_is_refused(ends, sessions):
    """A9: where the policy binds the ordering key."""
    policy = ends.policy(sessions, bind_ordering_key=True)
    send(ends, sessions, ends.sealer(policy), CARD, session_id="north")
    [raw] = raw_bodies(ends, sessions, session_id="north")
    inject(ends, sessions, raw, session_id="south")
    client = ends.client(ends.sealer(policy))
    with client.get_queue_receiver(sessions, session_id="south") as receiver, pytest.raises(Refused):
        receiver.receive_messages(max_wait_time=5)
    assert ends.verdicts() == [Verdict.FORGED]


def test_the_state_of_a_session_is_sealed(ends, sessions):
    """A1: it lies in clear at the broker otherwise, like a body."""
    client = ends.client(ends.sealer(ends.policy(sessions, bind_headers=["tenant"])))
    with client.get_queue_receiver(sessions, session_id="north") as receiver:
        assert receiver.session.get_state() is None
        for state, came in (
            (CARD, CARD.encode()),
            (b"\x00\xff", b"\x00\xff"),
            (bytearray(b"x"), b"x"),
            (b"", b""),
        ):
            receiver.session.set_state(state)
            assert receiver.session.get_state() == came
    with ends.bare.get_queue_receiver(sessions, session_id="north") as receiver:
        assert looks_sealed(receiver.session.get_state())
    with client.get_queue_receiver(sessions, session_id="north") as receiver:
        receiver.session.set_state(None)
        assert receiver.session.get_state() is None
    assert ends.events == []


def test_a_state_that_was_not_set_by_us_is_refused(ends, sessions):
    """A9: clear text, another session's state, and a message's body cannot stand in for a state."""
    sealer = ends.sealer(ends.policy(sessions))
    client = ends.client(sealer)
    with client.get_queue_receiver(sessions, session_id="north") as receiver:
        receiver.session.set_state(b"rich")
    with ends.bare.get_queue_receiver(sessions, session_id="north") as receiver:
        other = receiver.session.get_state()
    send(ends, sessions, sealer, "rich", session_id="south")
    [message] = raw_bodies(ends, sessions, session_id="south")
    for forged, verdict in (
        (b"rich", Verdict.UNPROTECTED),
        (other, Verdict.FORGED),
        (message, Verdict.FORGED),
    ):
        ends.events.clear()
        with ends.bare.get_queue_receiver(sessions, session_id="south") as receiver:
            receiver.session.set_state(forged)
        with client.get_queue_receiver(sessions, session_id="south") as receiver:
            with pytest.raises(Refused):
                receiver.session.get_state()
            assert ends.verdicts() == [verdict]


def test_a_state_cannot_stand_in_for_a_message(ends, sessions):
    client = ends.client(ends.sealer(ends.policy(sessions)))
    with client.get_queue_receiver(sessions, session_id="north") as receiver:
        receiver.session.set_state(b"rich")
    with ends.bare.get_queue_receiver(sessions, session_id="north") as receiver:
        state = receiver.session.get_state()
    inject(ends, sessions, state, session_id="north")
    with client.get_queue_receiver(sessions, session_id="north") as receiver, pytest.raises(Refused):
        receiver.receive_messages(max_wait_time=5)
    assert ends.verdicts() == [Verdict.FORGED]


def test_without_a_key_the_state_stays_what_it_was(ends, sessions):
    client = ends.client(ends.sealer(ends.policy(sessions)))
    with client.get_queue_receiver(sessions, session_id="north") as receiver:
        receiver.session.set_state(b"one")
    ends.keys.unavailable.set()
    late = ends.client(ends.sealer(ends.policy(sessions)))
    with late.get_queue_receiver(sessions, session_id="north") as receiver:
        with pytest.raises(KeyUnavailable):
            receiver.session.set_state(b"two")
        with pytest.raises(KeyUnavailable):
            receiver.session.get_state()
        ends.keys.unavailable.clear()
        assert receiver.session.get_state() == b"one"


def test_the_state_of_a_session_that_is_not_known_yet_cannot_be_used(ends, sessions):
    client = ends.client(ends.sealer(ends.policy(sessions)))
    receiver = client.get_queue_receiver(sessions, session_id=NEXT_AVAILABLE_SESSION, max_wait_time=1)
    with pytest.raises(ValueError, match="open it before"):
        receiver.session.set_state(b"x")


def test_what_waits_for_its_key_keeps_its_place_in_a_session(ends, sessions):
    """What comes behind it waits, too, also where its own key is at hand."""
    policy = ends.policy(sessions)
    cold, warm = ends.sealer(policy), ends.sealer(policy)
    opener = ends.sealer(policy)
    send(ends, sessions, warm, "warm", session_id="north")
    with ends.client(opener).get_queue_receiver(sessions, session_id="north") as receiver:
        [message] = receiver.receive_messages(max_wait_time=5)
        receiver.complete_message(message)
    send(ends, sessions, cold, "1", session_id="north")
    send(ends, sessions, warm, "2", "3", session_id="north")
    ends.keys.unavailable.set()
    with ends.client(opener).get_queue_receiver(sessions, session_id="north") as receiver:
        assert receiver.receive_messages(10, max_wait_time=0.3) == []
        ends.keys.unavailable.clear()
        came = []
        while len(came) < 3:
            came += [str(m) for m in receiver.receive_messages(10, max_wait_time=5)]
        assert came == ["1", "2", "3"]


def test_a_session_lock_that_was_lost_is_told_as_ever(server, ends, sessions):
    sealer = ends.sealer(ends.policy(sessions))
    send(ends, sessions, sealer, "one", session_id="north")
    with ends.client(sealer).get_queue_receiver(sessions, session_id="north") as receiver:
        [message] = receiver.receive_messages(max_wait_time=5)
        server.inject("settle", "lose-lock", entity=sessions)
        with pytest.raises(SessionLockLostError):
            receiver.complete_message(message)
    with ends.client(sealer).get_queue_receiver(sessions, session_id="north") as receiver:
        [message] = receiver.receive_messages(max_wait_time=5)
        assert str(message) == "one"
        receiver.complete_message(message)


# -- locks -------------------------------------------------------------------------------------------------------------


def test_locks_are_renewed_by_hand_and_by_the_clients_own_renewer(server, ends):
    queue = server.new_queue(lock_duration=3)
    sealer = ends.sealer(ends.policy(queue))
    send(ends, queue, sealer, "one", "two")
    renewer = ends.renewer(max_lock_renewal_duration=30)
    client = ends.client(sealer)
    with renewer, client.get_queue_receiver(queue) as receiver:
        [message] = receiver.receive_messages(max_wait_time=5)
        renewer.register(receiver, message)
        before = message.locked_until_utc
        ends.nap(3.2)
        assert message.locked_until_utc > before
        receiver.complete_message(message)
    with client.get_queue_receiver(queue) as receiver:
        [message] = receiver.receive_messages(max_wait_time=5)
        assert receiver.renew_message_lock(message) == message.locked_until_utc
        receiver.complete_message(message)
    assert raw_bodies(ends, queue) == []


def test_a_renewer_given_to_the_receiver_takes_opened_messages(ends, queue):
    sealer = ends.sealer(ends.policy(queue))
    send(ends, queue, sealer, "one", "two")
    renewer = ends.renewer()
    given = getattr(renewer, "inner", renewer)
    with (
        renewer,
        ends.client(sealer).get_queue_receiver(queue, auto_lock_renewer=given, max_wait_time=1) as receiver,
    ):
        came = []
        for message in receiver:
            came.append(str(message))
            receiver.complete_message(message)
        assert came == ["one", "two"]


def test_a_lock_that_was_lost_is_told_as_ever_and_nothing_is_lost(server, ends, queue):
    sealer = ends.sealer(ends.policy(queue))
    send(ends, queue, sealer, "one")
    with ends.client(sealer).get_queue_receiver(queue) as receiver:
        [message] = receiver.receive_messages(max_wait_time=5)
        server.inject("settle", "lose-lock", entity=queue)
        with pytest.raises(MessageLockLostError):
            receiver.complete_message(message)
        [again] = receiver.receive_messages(max_wait_time=5)
        assert (str(again), again.delivery_count) == ("one", 1)
        receiver.complete_message(again)
    assert ends.events == []
