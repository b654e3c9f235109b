"""E11: replies that the adapter binds to their requests: no line of it stands in the programs of either side."""

from __future__ import annotations

import pytest
from azure.servicebus import ServiceBusMessage

from postseal.core import ConfigError, Policy, Refused, Verdict

DELETE = "receiveanddelete"


@pytest.fixture
def places(server):
    return server.new_queue(), server.new_queue()


@pytest.fixture
def policies(places):
    questions, answers = places
    return (
        Policy(name="questions", destinations=[f"servicebus:{questions}"], keys=["main"]),
        Policy(name="answers", destinations=[f"servicebus:{answers}"], keys=["main"], bind_replies=True),
    )


class Side:
    """A process that asks or answers, with a sealer and a client of its own."""

    def __init__(self, ends, places, policies) -> None:
        self.questions, self.answers = places
        self.sealer = ends.sealer(*policies)
        self.client = ends.client(self.sealer)

    def ask(self, *messages: ServiceBusMessage) -> None:
        with self.client.get_queue_sender(self.questions) as sender:
            for message in messages:
                message.reply_to = self.answers
                sender.send_messages(message)

    def answer(self, count: int = 1) -> None:
        """As the client's samples do: the reply's correlation id is the request's message id."""
        with self.client.get_queue_receiver(self.questions) as receiver:
            for _ in range(count):
                [request] = receiver.receive_messages(1, max_wait_time=20)
                reply = ServiceBusMessage(
                    str(request).upper(), correlation_id=request.correlation_id or request.message_id
                )
                with self.client.get_queue_sender(request.reply_to) as sender:
                    sender.send_messages(reply)
                receiver.complete_message(request)

    def take(self, count: int = 1) -> dict[str, str]:
        """Receive replies, by their correlation ids."""
        came = {}
        with self.client.get_queue_receiver(self.answers) as receiver:
            while len(came) < count:
                for message in receiver.receive_messages(count, max_wait_time=20):
                    came[message.correlation_id] = str(message)
                    receiver.complete_message(message)
        return came


@pytest.fixture
def side(ends, places, policies):
    return lambda: Side(ends, places, policies)


def stolen(ends, queue, count):
    """Take what lies in *queue*, as the broker's administrator does."""
    with ends.bare.get_queue_receiver(queue, receive_mode=DELETE) as receiver:
        came = []
        while len(came) < count:
            came += receiver.receive_messages(count, max_wait_time=20)
    return {message.correlation_id or message.message_id: b"".join(message.body) for message in came}


def put(ends, queue, envelope, **options):
    with ends.bare.get_queue_sender(queue) as sender:
        sender.send_messages(ServiceBusMessage(envelope, **options))


@pytest.mark.parametrize("name", ["message_id", "correlation_id"])
def test_replies_are_bound_to_their_requests_and_both_programs_know_nothing_of_it(side, ends, name):
    asks, answers = side(), side()
    asks.ask(*(ServiceBusMessage(f"question {n}", **{name: f"c-{n}"}) for n in range(5)))
    answers.answer(5)
    assert asks.take(5) == {f"c-{n}": f"QUESTION {n}" for n in range(5)}
    assert ends.events == []


def test_the_reply_to_another_request_is_refused_without_asking_the_key_service(side, ends, places):
    """A9: the broker delivers the reply of one request as that of another."""
    asks, answers = side(), side()
    asks.ask(*(ServiceBusMessage(f"question {n}", message_id=f"c-{n}") for n in (1, 2)))
    answers.answer(2)
    replies = stolen(ends, places[1], 2)
    put(ends, places[1], replies["c-1"], correlation_id="c-2")
    opened = ends.keys.opened
    with pytest.raises(Refused):
        asks.take()
    assert ends.verdicts() == [Verdict.WRONG_DESTINATION]
    assert ends.keys.opened == opened


def test_a_reply_to_nothing_that_was_asked_and_what_answers_nothing_are_refused(side, ends, places, policies):
    asks, answers = side(), side()
    asks.ask(ServiceBusMessage("question", message_id="c-1"))
    answers.answer()
    [reply] = stolen(ends, places[1], 1).values()
    put(ends, places[1], reply, correlation_id="c-9")
    with pytest.raises(Refused):
        asks.take()
    assert ends.verdicts() == [Verdict.WRONG_DESTINATION]


def test_what_answers_nothing_is_refused_in_its_place(side, ends, places, policies):
    asks = side()
    lax = Side(ends, places, (policies[0], policies[1].replace(bind_replies=False)))
    asks.ask(ServiceBusMessage("question", message_id="c-1"))
    with lax.client.get_queue_sender(places[1]) as sender:
        sender.send_messages(ServiceBusMessage("4711", correlation_id="c-1"))
    with pytest.raises(Refused):
        asks.take()
    assert ends.verdicts() == [Verdict.DOWNGRADE]


def test_what_answers_nothing_that_was_heard_is_not_sent(side, places):
    answers = side()
    with (
        answers.client.get_queue_sender(places[1]) as sender,
        pytest.raises(ConfigError, match="names no request"),
    ):
        sender.send_messages(ServiceBusMessage("4711", correlation_id="c-1"))


def test_a_request_that_no_reply_could_name_is_not_sent(side):
    asks = side()
    message = ServiceBusMessage("question")
    message.message_id = None
    with pytest.raises(ConfigError, match="message_id or a correlation_id"):
        asks.ask(message)


def test_a_batch_of_replies_is_bound_too(side, ends, places):
    """Also where it is filled without waiting, of asyncio."""
    asks, answers = side(), side()
    asks.ask(*(ServiceBusMessage(f"question {n}", message_id=f"c-{n}") for n in range(3)))
    with (
        answers.client.get_queue_receiver(places[0], receive_mode=DELETE) as receiver,
        answers.client.get_queue_sender(places[1]) as sender,
    ):
        requests = []
        while len(requests) < 3:
            requests += receiver.receive_messages(3, max_wait_time=20)
        batch = sender.create_message_batch()
        for request in requests:
            batch.add_message(ServiceBusMessage(str(request).upper(), correlation_id=request.message_id))
        sender.send_messages(batch)
    assert asks.take(3) == {f"c-{n}": f"QUESTION {n}" for n in range(3)}
    assert ends.events == []


def test_a_batch_of_requests_is_noted_too(side, ends, places):
    asks, answers = side(), side()
    with asks.client.get_queue_sender(places[0]) as sender:
        batch = sender.create_message_batch()
        for n in range(3):
            message = ServiceBusMessage(f"question {n}", message_id=f"c-{n}", reply_to=places[1])
            batch.add_message(message)
        sender.send_messages(batch)
    answers.answer(3)
    assert asks.take(3) == {f"c-{n}": f"QUESTION {n}" for n in range(3)}
    assert ends.events == []


def test_a_session_whose_entity_binds_replies_keeps_no_state(ends, server):
    """A state answers nothing: docs/replies.md."""
    queue = server.new_queue(requires_session=True)
    policy = Policy(name="answers", destinations=[f"servicebus:{queue}"], keys=["main"], bind_replies=True)
    client = ends.client(ends.sealer(policy))
    with (
        client.get_queue_receiver(queue, session_id="one") as receiver,
        pytest.raises(ConfigError, match="names no request"),
    ):
        receiver.session.set_state("state")
