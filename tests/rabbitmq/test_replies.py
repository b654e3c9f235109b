"""E11: replies that the adapter binds to their requests: no line of it stands in the programs of either side."""

from __future__ import annotations

import asyncio
import uuid
from contextlib import ExitStack, contextmanager

import aio_pika
import pika
import pytest

from postseal.core import ConfigError, KeyUnavailable, Policy, Refused, Sealer, Verdict
from postseal.rabbitmq import protect
from tests.fakes import FakeKeys
from tests.rabbitmq.aio_pika_world import on_loop

POLICIES = (
    Policy(name="questions", destinations=["rabbitmq:/questions"], keys=["main"]),
    Policy(name="answers", destinations=["rabbitmq:/answers.#"], keys=["main"], bind_replies=True),
)


class Side:
    """A process that asks or answers, with a sealer and a connection of its own."""

    def __init__(self, parameters, keys: FakeKeys, *policies: Policy) -> None:
        self.events = []
        self.sealer = Sealer(
            sender="shop", policies=policies or POLICIES, keys={"main": keys}, on_audit=self.events.append
        )
        self.connection = protect(pika.BlockingConnection(parameters), self.sealer)
        self.channel = self.connection.channel()
        self.channel.confirm_delivery()  # what is published lies there when the call returns

    @property
    def verdicts(self):
        return [event.verdict for event in self.events]

    def ask(self, body: bytes, reply_to: str, correlation_id: str | None) -> None:
        properties = pika.BasicProperties(reply_to=reply_to, correlation_id=correlation_id)
        self.channel.basic_publish("", "questions", body, properties)

    def answer(self, answer=bytes.upper) -> None:
        """As the tutorial has it."""
        method, properties, body = self.channel.basic_get("questions")
        self.channel.basic_publish(
            "",
            properties.reply_to,
            answer(body),
            pika.BasicProperties(correlation_id=properties.correlation_id),
        )
        self.channel.basic_ack(method.delivery_tag)

    def take(self, queue: str):
        return self.channel.basic_get(queue, auto_ack=True)


@pytest.fixture
def keys() -> FakeKeys:
    return FakeKeys()


@pytest.fixture
def side(parameters, keys):
    """Makes sides, with queues to ask in and to be answered in."""
    with ExitStack() as stack:

        def make(*policies: Policy) -> Side:
            made = Side(parameters, keys, *policies)
            stack.callback(made.connection.close)
            return made

        first = make()
        for queue in ("questions", "answers.a", "answers.b"):
            first.channel.queue_declare(queue)
        yield make


@pytest.fixture
def bare(parameters):
    connection = pika.BlockingConnection(parameters)
    channel = connection.channel()
    channel.confirm_delivery()
    yield channel
    connection.close()


def test_a_reply_is_bound_to_its_request_and_both_programs_know_nothing_of_it(side):
    asks, answers = side(), side()
    asks.ask(b"how much?", "answers.a", "c-1")
    answers.answer()
    _, properties, body = asks.take("answers.a")
    assert (body, properties.correlation_id) == (b"HOW MUCH?", "c-1")
    assert asks.events == []
    assert answers.events == []


def test_a_hundred_requests_answered_out_of_order_each_get_their_own(side):
    asks, answers = side(), side()
    for number in range(100):
        asks.ask(b"question %d" % number, "answers.a", f"c-{number}")
    taken = [answers.channel.basic_get("questions", auto_ack=True) for _ in range(100)]
    for _, properties, body in reversed(taken):
        reply = pika.BasicProperties(correlation_id=properties.correlation_id)
        answers.channel.basic_publish("", properties.reply_to, body, reply)
    for _ in range(100):
        _, properties, body = asks.take("answers.a")
        assert body == b"question %d" % int(properties.correlation_id.removeprefix("c-"))
    assert asks.events == []


def test_the_reply_to_another_request_is_refused_without_asking_the_key_service(side, bare, keys):
    """A9: the broker delivers the reply of one request as that of another."""
    asks, answers = side(), side()
    for number in (1, 2):
        asks.ask(b"question %d" % number, "answers.a", f"c-{number}")
        answers.answer()
    _, one, first = bare.basic_get("answers.a", auto_ack=True)
    _, two, second = bare.basic_get("answers.a", auto_ack=True)
    assert (one.correlation_id, two.correlation_id) == ("c-1", "c-2")
    opened = keys.opened
    for properties, body in ((two, first), (one, second)):  # each under the other's correlation id
        bare.basic_publish("", "answers.a", body, properties)
        with pytest.raises(Refused):
            asks.take("answers.a")
    assert asks.verdicts == [Verdict.WRONG_DESTINATION] * 2
    assert keys.opened == opened
    bare.basic_publish("", "answers.a", first, one)
    assert asks.take("answers.a")[2] == b"QUESTION 1"


@pytest.mark.parametrize("correlation_id", ["c-9", None], ids=["of nothing that was asked", "without an id"])
def test_a_reply_to_nothing_is_refused(side, bare, correlation_id):
    asks, answers = side(), side()
    asks.ask(b"question", "answers.a", "c-1")
    answers.answer()
    _, properties, body = bare.basic_get("answers.a", auto_ack=True)
    properties.correlation_id = correlation_id
    bare.basic_publish("", "answers.a", body, properties)
    with pytest.raises(Refused):
        asks.take("answers.a")
    assert asks.verdicts == [Verdict.WRONG_DESTINATION]


def test_a_genuine_message_that_answers_nothing_is_refused(side, bare):
    """A9: sealed for that queue, by who may, under a policy of that name that binds no replies."""
    asks = side()
    lax = side(POLICIES[0], POLICIES[1].replace(bind_replies=False))
    asks.ask(b"question", "answers.a", "c-1")
    lax.channel.basic_publish("", "answers.a", b"4711", pika.BasicProperties(correlation_id="c-1"))
    with pytest.raises(Refused):
        asks.take("answers.a")
    assert asks.verdicts == [Verdict.DOWNGRADE]


def test_a_correlation_id_that_the_broker_changed_on_the_way_there_makes_no_reply_to_another(side, bare):
    """A9: neither correlation_id nor reply_to of the request is bound here, and still the reply is refused."""
    asks, answers = side(), side()
    asks.ask(b"question 1", "answers.a", "c-1")
    asks.ask(b"question 2", "answers.a", "c-2")
    _, one, first = bare.basic_get("questions", auto_ack=True)
    bare.basic_get("questions", auto_ack=True)
    one.correlation_id = "c-2"
    bare.basic_publish("", "questions", first, one)
    answers.answer()
    with pytest.raises(Refused):
        asks.take("answers.a")
    assert asks.verdicts == [Verdict.WRONG_DESTINATION]


def test_what_answers_nothing_that_was_heard_is_not_sent(side, bare):
    answers = side()
    with pytest.raises(ConfigError, match="names no request"):
        answers.channel.basic_publish("", "answers.a", b"4711", pika.BasicProperties(correlation_id="c-1"))
    with pytest.raises(ConfigError, match="names no request"):
        answers.channel.basic_publish("", "answers.a", b"4711")
    assert bare.basic_get("answers.a") == (None, None, None)


def test_a_request_without_a_correlation_id_is_not_sent(side, bare):
    asks = side()
    with pytest.raises(ConfigError, match="correlation_id"):
        asks.ask(b"question", "answers.a", None)
    assert bare.basic_get("questions") == (None, None, None)


def test_a_reply_by_hand_passes(side):
    """Who has the request elsewhere names it in `Sealer.seal`."""
    asks, answers, elsewhere = side(), side(), side()
    asks.ask(b"question", "answers.a", "c-1")
    _, properties, body = answers.channel.basic_get("questions", auto_ack=True)
    assert body == b"question"
    reference = answers.sealer.requests.answered("rabbitmq:/answers.a", "c-1")
    envelope = elsewhere.sealer.seal(b"by hand", destination="rabbitmq:/answers.a", in_reply_to=reference)
    elsewhere.channel.basic_publish(
        "", properties.reply_to, envelope, pika.BasicProperties(correlation_id="c-1")
    )
    assert asks.take("answers.a")[2] == b"by hand"


def test_a_redelivered_reply_and_a_second_one_open_too(side):
    """At least once: what was asked is not forgotten with its first reply."""
    asks, answers = side(), side()
    asks.ask(b"question", "answers.a", "c-1")
    method, properties, _ = answers.channel.basic_get("questions", auto_ack=True)
    for _ in range(2):
        reply = pika.BasicProperties(correlation_id=properties.correlation_id)
        answers.channel.basic_publish("", properties.reply_to, b"yes", reply)
    method, _, body = asks.channel.basic_get("answers.a")
    assert body == b"yes"
    asks.channel.basic_nack(method.delivery_tag, requeue=True)
    assert [asks.take("answers.a")[2] for _ in range(2)] == [b"yes", b"yes"]


def test_a_request_whose_replies_are_not_bound_costs_nothing_and_is_answered_as_ever(side):
    asks, answers = (
        side(POLICIES[0], POLICIES[1].replace(bind_replies=False)),
        side(POLICIES[0], POLICIES[1].replace(bind_replies=False)),
    )
    asks.ask(b"question", "answers.a", None)
    answers.answer()
    assert asks.take("answers.a")[2] == b"QUESTION"
    assert not asks.sealer.requests._asked
    assert not answers.sealer.requests._heard


def test_reply_to_a_queue_of_which_no_policy_speaks_is_as_ever(side, bare):
    asks, answers = side(), side()
    asks.ask(b"question", "elsewhere", None)
    assert answers.channel.basic_get("questions", auto_ack=True)[2] == b"question"


@contextmanager
def consuming(side: Side, queue: str):
    """Consume by callback; yields what came."""
    came: list[tuple[str | None, bytes]] = []

    def on_message(channel, method, properties, body):
        came.append((properties.correlation_id, body))
        channel.basic_ack(method.delivery_tag)

    tag = side.channel.basic_consume(queue, on_message)
    yield came
    side.channel.basic_cancel(tag)


def test_callbacks_bind_and_demand_as_well(side):
    """The example of the tutorial: both ends consume."""
    asks, answers = side(), side()

    def on_request(channel, method, properties, body):
        reply = pika.BasicProperties(correlation_id=properties.correlation_id)
        channel.basic_publish("", properties.reply_to, body.upper(), reply)
        channel.basic_ack(method.delivery_tag)

    answers.channel.basic_consume("questions", on_request)
    with consuming(asks, "answers.b") as came:
        for number in range(20):
            asks.ask(b"question %d" % number, "answers.b", str(uuid.UUID(int=number)))
        while len(came) < 20:
            answers.connection.process_data_events(0.02)
            asks.connection.process_data_events(0.02)
    assert sorted(came) == sorted((str(uuid.UUID(int=n)), b"QUESTION %d" % n) for n in range(20))
    assert asks.events == []


def test_a_request_that_waits_for_its_key_is_heard_too(side, keys):
    asks, answers = side(), side()
    asks.ask(b"question", "answers.a", "c-1")
    keys.unavailable.set()
    with pytest.raises(KeyUnavailable):
        answers.channel.basic_get("questions")
    keys.unavailable.clear()
    answers.answer()
    assert asks.take("answers.a")[2] == b"QUESTION"


# -- aio-pika ----------------------------------------------------------------------------------------------------------


def aio_sealer(keys, events):
    return Sealer(sender="shop", policies=POLICIES, keys={"main": keys}, on_audit=events.append)


@on_loop
async def test_aio_pika_binds_and_demands(broker):
    url, keys, events = f"amqp://guest:guest@127.0.0.1:{broker.port}/%2F", FakeKeys(), []
    async with await aio_pika.connect(url) as plain:
        asks = protect(await aio_pika.connect(url), aio_sealer(keys, events))
        answers = protect(await aio_pika.connect(url), aio_sealer(keys, events))
        async with asks, answers:
            bare = await plain.channel()
            for queue in ("questions", "answers.a"):
                await bare.declare_queue(queue)
            asking, answering = await asks.channel(), await answers.channel()
            replies, questions = await asking.get_queue("answers.a"), await answering.get_queue("questions")

            async def on_request(message):
                async with message.process():
                    await answering.default_exchange.publish(
                        aio_pika.Message(message.body.upper(), correlation_id=message.correlation_id),
                        routing_key=message.reply_to,
                    )

            await questions.consume(on_request)
            for number in (1, 2):
                request = aio_pika.Message(
                    b"question %d" % number, reply_to="answers.a", correlation_id=f"c-{number}"
                )
                await asking.default_exchange.publish(request, routing_key="questions")
            lying = await bare.get_queue("answers.a")
            raw = []
            while len(raw) < 2:
                if (message := await lying.get(no_ack=True, fail=False)) is not None:
                    raw.append(message)
                await asyncio.sleep(0.01)
            genuine = {message.correlation_id: message.body for message in raw}
            await bare.default_exchange.publish(
                aio_pika.Message(genuine["c-1"], correlation_id="c-2"), routing_key="answers.a"
            )
            with pytest.raises(Refused):
                await replies.get(no_ack=True)
            assert [event.verdict for event in events] == [Verdict.WRONG_DESTINATION]
            await bare.default_exchange.publish(
                aio_pika.Message(genuine["c-2"], correlation_id="c-2"), routing_key="answers.a"
            )
            assert (await replies.get(no_ack=True)).body == b"QUESTION 2"


@on_loop
async def test_the_rpc_of_aio_pika_needs_no_line(broker):
    """Its own pattern for it."""
    from aio_pika.patterns import RPC

    url, keys, events = f"amqp://guest:guest@127.0.0.1:{broker.port}/%2F", FakeKeys(), []
    policies = (
        Policy(name="rpc", destinations=["rabbitmq:/multiply"], keys=["main"]),
        Policy(name="answers", destinations=["rabbitmq:*"], keys=["main"], bind_replies=True),
    )
    sealers = [
        Sealer(sender="shop", policies=policies, keys={"main": keys}, on_audit=events.append)
        for _ in range(2)
    ]
    connections = [protect(await aio_pika.connect(url), sealer) for sealer in sealers]
    async with connections[0], connections[1]:
        asks = await RPC.create(await connections[0].channel())
        answers = await RPC.create(await connections[1].channel())

        async def multiply(*, x: int, y: int) -> int:
            return x * y

        await answers.register("multiply", multiply)
        assert [await asks.call("multiply", {"x": n, "y": 2}) for n in range(5)] == [0, 2, 4, 6, 8]
        await asks.close()
        await answers.close()
    assert events == []
