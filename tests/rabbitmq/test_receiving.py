"""What pika hands on, what it is kept from, and what becomes of that at the broker."""

import asyncio
import time
from contextlib import contextmanager

import aio_pika
import pika
import pytest
from pamqp.commands import Basic

from postseal.core import ConfigError, KeyUnavailable, Policy, Refused, Verdict
from postseal.rabbitmq import VERDICT_HEADER
from postseal.rabbitmq._pika import hooks_of
from tests.contract import ORDER, Raw
from tests.rabbitmq.line import Running, RunningAsyncio


@pytest.fixture
def place(line):
    return line.place()


@pytest.fixture
def queue(line, place):
    return line.queue(place)


@contextmanager
def running_with(parameters, sealer, kind=Running, **options):
    running = kind(parameters, sealer, **options)
    try:
        yield running
    finally:
        running.close()


def state(broker, queue):
    """Tell how many messages lie in a queue, and how many are with consumers."""
    with broker.lock:
        lent = [
            tag
            for connection in broker._connections
            for channel in connection._channels.values()
            for tag, (held, _, _) in channel._lent.items()
            if held.name == queue
        ]
        return len(broker.vhost.queues[queue].messages), len(lent)


def until(connection, done):
    end = time.monotonic() + 30
    while not done():
        assert time.monotonic() < end
        connection.process_data_events(0.02)


def forge(line, place, *bodies):
    line.put(place, *(Raw(body) for body in bodies))


# -- refused -----------------------------------------------------------------------------------------------------------


def test_start_consuming_raises_and_goes_on_behind_it(world, line, broker, place, queue):
    sealer = world.sealer(world.policy(place))
    forge(line, place, b"forged")
    line.send(sealer, place, ORDER)
    came = []

    def on_message(channel, method, _, body):
        came.append(body)
        channel.stop_consuming()

    with line.connect(sealer) as connection:
        channel = connection.channel()
        channel.basic_qos(prefetch_count=10)
        channel.basic_consume(queue, on_message, auto_ack=False)
        with pytest.raises(Refused) as refused:
            channel.start_consuming()
        channel.start_consuming()
        assert state(broker, queue) == (0, 2)
    assert refused.value.verdict is Verdict.UNPROTECTED
    assert came == [ORDER]
    assert line.has_message(place)


@pytest.mark.parametrize("kind", [Running, RunningAsyncio])
def test_an_asynchronous_loop_raises_and_its_connection_stays_open(
    world, line, parameters, place, queue, *, kind
):
    sealer = world.sealer(world.policy(place))
    with running_with(parameters, sealer, kind) as running:
        running.consume(queue, settles=True)
        forge(line, place, b"one", b"two")
        line.send(sealer, place, ORDER)
        running.until(lambda: len(running.refused) == 2 and running.bodies == [ORDER])
        assert running.connection.is_open


def test_discarded_is_gone(world, line, broker, place, queue):
    sealer = world.sealer(world.policy(place, on_refused="discard"))
    with line.connect(sealer) as connection:
        channel = connection.channel()
        channel.basic_consume(queue, lambda *_: None)
        forge(line, place, b"forged")
        until(connection, lambda: world.events and state(broker, queue) == (0, 0))
    assert not line.has_message(place)


def test_observing_leaves_a_refused_message_where_it_is(world, line, broker, place, queue):
    home = line.place()
    policy = world.policy(place, home, on_refused="discard", mode="observe")
    line.send(world.sealer(world.policy(home)), home, ORDER)
    line.put(place, *line.held(home, 1))
    with line.connect(world.sealer(policy)) as connection:
        connection.channel().basic_consume(queue, lambda *_: pytest.fail("handed on"))
        until(connection, lambda: bool(world.events))
        assert state(broker, queue) == (0, 1)
    assert world.verdicts() == [Verdict.WRONG_DESTINATION]
    assert line.has_message(place)


@pytest.fixture
def refused_queue(line):
    with line.bare() as channel:
        channel.queue_declare("refused")
    line._queues["/refused"] = "refused"
    return "/refused"


def quarantining(world, place, **options):
    return world.policy(place, on_refused="quarantine", quarantine="rabbitmq:/refused", **options)


@pytest.mark.parametrize("auto_ack", [False, True])
def test_the_quarantine_gets_a_copy_and_the_queue_is_rid_of_it(
    world, line, broker, place, queue, *, refused_queue, auto_ack
):
    with line.bare() as channel:
        properties = pika.BasicProperties(
            headers={"tenant": "north", "CC": ["victim"]}, expiration="1000", user_id="mallory", type="pay"
        )
        channel.queue_declare("victim")
        channel.basic_publish("", queue, b"forged", properties)
    with line.connect(world.sealer(quarantining(world, place))) as connection:
        connection.channel().basic_consume(queue, lambda *_: pytest.fail("handed on"), auto_ack=auto_ack)
        until(connection, lambda: line.has_message(refused_queue) and state(broker, queue) == (0, 0))
    with line.bare() as channel:
        _, properties, body = channel.basic_get("refused")
        assert channel.queue_declare("victim", passive=True).method.message_count == 1
    assert body == b"forged"
    assert properties.headers == {
        "tenant": "north",
        VERDICT_HEADER: "unprotected",
        "postseal-exchange": "",
        "postseal-routing-key": queue,
    }
    assert (properties.expiration, properties.user_id, properties.type) == (None, None, "pay")
    assert world.verdicts() == [Verdict.UNPROTECTED]


@pytest.mark.parametrize(
    "value", [["x" * 1000] * 130 + ["x" * 300], [1] * 60_000], ids=["almost a frame", "small integers"]
)
def test_headers_that_cannot_be_copied_do_not_keep_a_message_out_of_quarantine(
    world, line, broker, place, queue, *, refused_queue, value
):
    """E5: whoever may publish could else have the consumer's connection closed, for a frame that is too large."""
    sent = Basic.Properties(headers={"big": value, "tenant": "north"}, message_id="7")

    async def forge_it():
        async with await aio_pika.connect(f"amqp://127.0.0.1:{broker.port}/") as connection:
            channel = await (await connection.channel()).get_underlay_channel()
            await channel.basic_publish(b"forged", routing_key=queue, properties=sent)

    asyncio.run(forge_it())
    with line.connect(world.sealer(quarantining(world, place))) as connection:
        connection.channel().basic_consume(queue, lambda *_: pytest.fail("handed on"))
        until(connection, lambda: line.has_message(refused_queue) and state(broker, queue) == (0, 0))
    with line.bare() as channel:
        _, properties, body = channel.basic_get("refused")
    assert (body, properties.message_id) == (b"forged", "7")
    assert properties.headers == {
        VERDICT_HEADER: "unprotected",
        "postseal-exchange": "",
        "postseal-routing-key": queue,
    }


def test_a_message_that_cc_puts_into_another_queue_lies_there_and_not_where_it_was_sent(world, line):
    """A9: whoever may publish to the default exchange could else have one queue's messages handed on by another's handler."""
    orders, refunds, audit = (line.place() for _ in range(3))
    accepts = {orders: [f"rabbitmq:{audit}"], refunds: []}
    sealer = world.sealer(
        *(
            Policy(name=place[1:], destinations=[f"rabbitmq:{place}"], accept_from=others, keys=["main"])
            for place, others in accepts.items()
        )
    )
    line.send(sealer, orders, ORDER)
    [raw] = line.held(orders, 1)
    with line.bare() as channel:
        names = [line.queue(refunds), line.queue(audit)]
        channel.basic_publish("", line.queue(orders), raw.body, pika.BasicProperties(headers={"BCC": names}))
    with line.connect(sealer) as connection:
        channel = connection.channel()
        came = []
        channel.basic_consume(line.queue(orders), lambda *message: came.append(message[3]))
        until(connection, lambda: bool(came))  # from now on, its like is opened at hand
        assert channel.basic_get(line.queue(audit))[2] == ORDER
        with pytest.raises(Refused) as refused:
            channel.basic_get(line.queue(refunds))
    assert refused.value.verdict is Verdict.DOWNGRADE  # another policy's
    assert world.verdicts() == [Verdict.DOWNGRADE]


def test_many_are_quarantined_in_order_and_good_ones_pass_them(world, line, place, queue, refused_queue):
    sealer = world.sealer(quarantining(world, place))
    forge(line, place, *(b"forged %d" % number for number in range(5)))
    line.send(sealer, place, ORDER)
    with line.receiving(sealer, place) as receiving:
        assert receiving.take(1) == [ORDER]
        copies = []
        receiving.until(lambda: len(world.events) == 5)
        receiving.step()
        copies = line.held(refused_queue, 5)
    assert [copy.body for copy in copies] == [b"forged %d" % number for number in range(5)]


@pytest.mark.parametrize("target", ["rabbitmq:/absent", "rabbitmq:absent/key"])
def test_a_quarantine_that_takes_nothing_costs_no_message(world, line, broker, place, queue, *, target):
    """Neither one that has no queue nor one that has no exchange: what is not confirmed is not acknowledged."""
    policy = world.policy(place, on_refused="quarantine", quarantine=target)
    forge(line, place, b"forged")
    with line.connect(world.sealer(policy), give_back_after=0.5) as connection:
        connection.channel().basic_consume(queue, lambda *_: pytest.fail("handed on"))
        until(connection, lambda: len(world.events) >= 2)  # requeued, and refused again
    assert [raw.body for raw in line.held(place, 1)] == [b"forged"]


def test_a_quarantine_that_comes_later_gets_it_then(world, line, broker, place, queue):
    forge(line, place, b"forged")
    with line.connect(world.sealer(quarantining(world, place))) as connection:
        connection.channel().basic_consume(queue, lambda *_: pytest.fail("handed on"))
        until(connection, lambda: broker.seen.count("Basic.Publish") >= 2)
        with line.bare() as channel:
            channel.queue_declare("refused")
        until(connection, lambda: state(broker, queue) == (0, 0))
    line._queues["/refused"] = "refused"
    assert len(line.held("/refused", 1)) == 1
    assert len(world.events) == 1


def test_what_is_refused_in_the_quarantine_stays_there(world, line, broker, refused_queue):
    forge(line, refused_queue, b"forged")
    with line.connect(world.sealer(quarantining(world, "/refused"))) as connection:
        connection.channel().basic_consume("refused", lambda *_: pytest.fail("handed on"))
        until(connection, lambda: bool(world.events))
        assert state(broker, "refused") == (0, 1)


def test_without_a_quarantine_auto_ack_drops_what_is_refused(world, line, place, queue):
    """It is gone at the broker already; it is audited, and never handed on."""
    sealer = world.sealer(world.policy(place, on_refused="dead-letter"))
    forge(line, place, b"forged")
    line.send(sealer, place, ORDER)
    came = []
    with line.connect(sealer) as connection:
        connection.channel().basic_consume(queue, lambda *message: came.append(message[3]), auto_ack=True)
        until(connection, lambda: bool(came))
    assert came == [ORDER]
    assert world.verdicts() == [Verdict.UNPROTECTED]


def test_a_message_of_no_policy_is_told_and_stays(world, line, broker, place, queue):
    with line.bare() as channel:
        channel.exchange_declare("other", "fanout")
        channel.queue_bind(queue, "other")
        channel.basic_publish("other", "x", b"stray")
    with line.connect(world.sealer(world.policy(place))) as connection:
        connection.channel().basic_consume(queue, lambda *_: pytest.fail("handed on"))
        with pytest.raises(ConfigError, match="'rabbitmq:other/x'"):
            until(connection, lambda: False)
        assert state(broker, queue) == (0, 1)


def test_an_exchange_whose_name_would_be_anothers_is_refused(world, line, broker, place, queue):
    """``rabbitmq:a/b/c`` is exchange a with key b/c, and never exchange a/b with key c."""
    policy = world.policy("a/b/c", on_refused="dead-letter")
    line.send(world.sealer(world.policy(place)), place, ORDER)
    with line.bare() as channel:
        channel.exchange_declare("a/b", "fanout")
        channel.queue_bind(queue, "a/b")
        channel.queue_purge(queue)
        sealed = world.sealer(policy).seal(ORDER, destination="rabbitmq:a/b/c")
        channel.basic_publish("a/b", "c", sealed)
    with line.connect(world.sealer(policy)) as connection:
        connection.channel().basic_consume(queue, lambda *_: pytest.fail("handed on"))
        until(connection, lambda: bool(world.events))
    assert world.verdicts() == [Verdict.WRONG_DESTINATION]


def test_a_fault_of_a_key_provider_is_told_and_settles_nothing(world, line, broker, place, queue):
    sealer = world.sealer(world.policy(place, on_refused="discard"))
    line.send(sealer, place, ORDER)
    world.keys.unwrap = lambda *_: 1 / 0
    with line.connect(world.sealer(world.policy(place, on_refused="discard"))) as connection:
        connection.channel().basic_consume(queue, lambda *_: pytest.fail("handed on"))
        with pytest.raises(ZeroDivisionError):
            until(connection, lambda: False)
        assert state(broker, queue) == (0, 1)


# -- one message -------------------------------------------------------------------------------------------------------


def test_get_passes_over_what_was_refused_and_settled(world, line, place, queue, refused_queue):
    sealer = world.sealer(quarantining(world, place))
    forge(line, place, b"one", b"two")
    line.send(sealer, place, ORDER)
    with line.connect(sealer) as connection:
        channel = connection.channel()
        assert channel.basic_get(queue, auto_ack=True)[2] == ORDER
        forge(line, place, b"three")
        assert channel.basic_get(queue) == (None, None, None)
    assert len(line.held(refused_queue, 3)) == 3


def test_get_raises_what_its_policy_says(world, line, broker, place, queue):
    with line.connect(world.sealer(world.policy(place))) as connection:
        channel = connection.channel()
        forge(line, place, b"one", b"two")
        for count in (1, 2):
            with pytest.raises(Refused):
                channel.basic_get(queue)
            assert state(broker, queue) == (2 - count, count)
        assert channel.basic_get(queue) == (None, None, None)


def test_get_requeues_what_has_no_key_and_raises(world, line, broker, place, queue):
    """B14."""
    line.send(world.sealer(world.policy(place)), place, ORDER)
    world.keys.unavailable.set()
    with line.connect(world.sealer(world.policy(place))) as connection:
        channel = connection.channel()
        for _ in range(2):
            with pytest.raises(KeyUnavailable):
                channel.basic_get(queue)
        until(connection, lambda: state(broker, queue) == (1, 0))
        world.keys.unavailable.clear()
        assert channel.basic_get(queue)[2] == ORDER


def test_get_with_auto_ack_waits_for_its_key(world, line, place, queue):
    """It is gone at the broker: to give it up would be to lose it."""
    line.send(world.sealer(world.policy(place)), place, ORDER)
    world.keys.unavailable.set()
    with line.connect(world.sealer(world.policy(place))) as connection:
        channel = connection.channel()
        connection._impl._adapter_call_later(0.4, world.keys.unavailable.clear)
        assert channel.basic_get(queue, auto_ack=True)[2] == ORDER
    assert world.keys.calls["unwrap"] >= 2


def test_an_asynchronous_get_is_opened_too(world, line, parameters, place, queue):
    sealer = world.sealer(world.policy(place))
    line.send(sealer, place, ORDER)
    forge(line, place, b"forged")
    with running_with(parameters, world.sealer(world.policy(place))) as running:
        for _ in range(2):
            running.channel.basic_get(queue, lambda *message: running.bodies.append(message[3]))
            running.until(lambda: running.bodies or running.refused)
        running.until(lambda: bool(running.refused))
    assert running.bodies == [ORDER]


# -- waiting for a key -------------------------------------------------------------------------------------------------


def test_while_the_key_service_dawdles_the_loop_goes_on(world, line, parameters, place, queue):
    """C: heartbeats, and other consumers, of keys that are here, do not wait."""
    other = line.place()
    policy = world.policy(place, other)
    sealer = world.sealer(policy)
    line.send(sealer, other, b"warm")
    line.send(sealer, place, ORDER)
    with running_with(parameters, world.sealer(policy)) as running:
        running.consume(line.queue(other), settles=True)
        running.until(lambda: running.bodies == [b"warm"])
        world.keys.slow.set()
        running.consume(queue, settles=True)
        running.until(world.keys.waiting.is_set)
        line.send(sealer, other, b"more")
        running.until(lambda: running.bodies == [b"warm", b"more"])
        world.keys.unblock()
        running.until(lambda: running.bodies == [b"warm", b"more", ORDER])


def test_what_waits_is_held_and_not_requeued_round_and_round(world, line, broker, place, queue):
    """B14: a queue that counts deliveries would soon give up on it."""
    sealer = world.sealer(world.policy(place))
    for number in range(3):
        line.send(sealer, place, b"order %d" % number)
    world.keys.unavailable.set()
    with line.receiving(world.sealer(world.policy(place)), place) as receiving:
        receiving.until(lambda: world.keys.calls["unwrap"] >= 3)
        assert state(broker, queue) == (0, 3)
        assert broker.seen.count("Basic.Nack") == broker.seen.count("Basic.Reject") == 0
        world.keys.unavailable.clear()
        assert receiving.take(3) == [b"order %d" % number for number in range(3)]


def test_after_its_time_what_waits_is_requeued_for_another(world, line, broker, place, queue):
    sealer = world.sealer(world.policy(place))
    for number in range(3):
        line.send(sealer, place, b"order %d" % number)
    world.keys.unavailable.set()
    elsewhere = world.sealer(world.policy(place), keys={"main": world.keys._inner})
    with line.connect(world.sealer(world.policy(place)), give_back_after=0) as connection:
        channel = connection.channel()
        channel.basic_consume(queue, lambda *_: pytest.fail("handed on"))
        until(connection, lambda: broker.seen.count("Basic.Nack") >= 3)
    with line.receiving(elsewhere, place) as receiving:
        assert receiving.take(3) == [b"order %d" % number for number in range(3)]


def test_a_requeue_does_not_run_hot(world, line, broker, place, queue):
    """B14: also where nothing is held, the pauses between two tries grow."""
    line.send(world.sealer(world.policy(place)), place, ORDER)
    world.keys.unavailable.set()
    pauses = []
    with line.connect(world.sealer(world.policy(place)), give_back_after=0) as connection:
        host = hooks_of(connection).host
        later = host.later
        host.later = lambda seconds, call: (pauses.append(seconds), later(0, call))
        connection.channel().basic_consume(queue, lambda *_: pytest.fail("handed on"))
        until(connection, lambda: broker.seen.count("Basic.Nack") >= 4)
    assert pauses[:4] == [0.25, 0.5, 1.0, 2.0]
    assert world.keys.calls["unwrap"] <= len(pauses) + 1


def test_cancelling_gives_back_what_waits(world, line, broker, place, queue):
    line.send(world.sealer(world.policy(place)), place, ORDER)
    world.keys.unavailable.set()
    with line.connect(world.sealer(world.policy(place))) as connection:
        channel = connection.channel()
        tag = channel.basic_consume(queue, lambda *_: pytest.fail("handed on"))
        until(connection, lambda: state(broker, queue) == (0, 1))
        assert channel.basic_cancel(tag) == []
        until(connection, lambda: state(broker, queue) == (1, 0))
        world.keys.unavailable.clear()
        connection.sleep(0.5)
    assert line.has_message(place)


def test_a_consumer_that_the_broker_cancels_gets_nothing_more(world, line, broker, place, queue):
    line.send(world.sealer(world.policy(place)), place, ORDER)
    world.keys.slow.set()
    with line.connect(world.sealer(world.policy(place))) as connection:
        channel = connection.channel()
        channel.basic_consume(queue, lambda *_: pytest.fail("handed on"))
        until(connection, world.keys.waiting.is_set)
        with line.bare() as bare:
            bare.queue_delete(queue)
        until(connection, lambda: not channel.consumer_tags)
        world.keys.unblock()
        connection.sleep(0.2)
        assert connection.is_open
        assert channel.is_open


def test_a_connection_that_ends_meanwhile_costs_nothing(world, line, broker, place, queue):
    line.send(world.sealer(world.policy(place)), place, ORDER)
    world.keys.slow.set()
    connection = line.connect(world.sealer(world.policy(place)))
    connection.channel().basic_consume(queue, lambda *_: pytest.fail("handed on"))
    until(connection, world.keys.waiting.is_set)
    connection.close()
    world.keys.unblock()
    with line.receiving(world.sealer(world.policy(place)), place) as receiving:
        assert receiving.take(1) == [ORDER]


@pytest.mark.parametrize("up_to", ["all", "that one"])
@pytest.mark.parametrize("settle", ["basic_ack", "basic_nack"])
def test_settling_all_up_to_one_spares_what_was_not_handed_on(
    world, line, broker, place, queue, *, settle, up_to
):
    """B14, A9: "multiple" must not take what waits for its key, nor what was refused, with it. To requeue them before is not enough: they may
    be here again when the broker handles the acknowledgement."""
    ready = line.place()
    policy = world.policy(place, ready)
    sealer = world.sealer(policy)
    line.send(sealer, place, b"waits")
    forge(line, place, b"forged")
    line.send(sealer, ready, b"ready")
    consumer = world.sealer(policy)
    consumer.open(line.held(ready, 1)[0].body, destination=f"rabbitmq:{ready}")
    world.keys.unavailable.set()
    came = []
    with line.connect(consumer) as connection:
        channel = connection.channel()
        channel.basic_consume(queue, lambda *message: came.append((message[1], message[3])))
        until(connection, lambda: state(broker, queue) == (0, 2))

        def on_message(channel, method, *_):
            getattr(channel, settle)(0 if up_to == "all" else method.delivery_tag, multiple=True)
            channel.basic_cancel(method.consumer_tag)

        channel.basic_consume(line.queue(ready), on_message)
        until(connection, lambda: len(channel.consumer_tags) == 1)
        until(connection, lambda: state(broker, line.queue(ready)) == (settle == "basic_nack", 0))
        assert state(broker, queue) == (0, 2)
        world.keys.unavailable.clear()
        with pytest.raises(Refused):
            until(connection, lambda: False)
        until(connection, lambda: bool(came))
        [(method, body)] = came
        assert (body, method.redelivered) == (b"waits", False)
        channel.basic_ack(method.delivery_tag, multiple=True)
    assert [raw.body for raw in line.held(place, 1)] == [b"forged"]


def test_all_up_to_one_is_settled_once_each_in_whatever_order_it_was_handed_on(
    world, line, broker, place, queue
):
    """What waited is handed on behind what came later, and settled with it or before it."""
    ready = line.place()
    policy = world.policy(place, ready)
    sealer = world.sealer(policy)
    line.send(sealer, place, b"waits")
    for body in (b"one", b"two", b"three"):
        line.send(sealer, ready, body)
    consumer = world.sealer(policy)
    consumer.open(line.held(ready, 3)[0].body, destination=f"rabbitmq:{ready}")
    world.keys.unavailable.set()
    came = []
    with line.connect(consumer) as connection:
        channel = connection.channel()
        channel.basic_consume(queue, lambda *message: came.append((message[1].delivery_tag, message[3])))
        until(connection, lambda: state(broker, queue) == (0, 1))
        channel.basic_consume(
            line.queue(ready), lambda *message: came.append((message[1].delivery_tag, message[3]))
        )
        until(connection, lambda: len(came) == 3)
        channel.basic_ack(came[0][0])
        world.keys.unavailable.clear()
        until(connection, lambda: len(came) == 4)
        assert came[3] == (1, b"waits")
        channel.basic_ack(came[1][0], multiple=True)  # "one" was, "waits" is
        forge(line, place, b"forged")
        with pytest.raises(Refused):
            until(connection, lambda: False)
        channel.basic_ack(came[2][0], multiple=True)
        channel.queue_declare(queue, passive=True)  # the broker has had no complaint
        assert state(broker, queue) == (0, 1)
        assert state(broker, line.queue(ready)) == (0, 0)


def test_recovering_delivers_again_what_waits(world, line, broker, place, queue):
    line.send(world.sealer(world.policy(place)), place, ORDER)
    world.keys.unavailable.set()
    came = []
    with line.connect(world.sealer(world.policy(place))) as connection:
        channel = connection.channel()
        channel.basic_consume(queue, lambda *message: came.append(message[3]))
        until(connection, lambda: state(broker, queue) == (0, 1))
        channel.basic_recover(requeue=True)
        world.keys.unavailable.clear()
        until(connection, lambda: bool(came))
        connection.sleep(0.6)
    assert came == [ORDER]


def test_with_auto_ack_what_waits_is_not_dropped(world, line, place, queue):
    line.send(world.sealer(world.policy(place)), place, ORDER)
    world.keys.unavailable.set()
    came = []
    with line.connect(world.sealer(world.policy(place)), give_back_after=0) as connection:
        connection.channel().basic_consume(queue, lambda *message: came.append(message[3]), auto_ack=True)
        until(connection, lambda: world.keys.calls["unwrap"] >= 2)
        world.keys.unavailable.clear()
        until(connection, lambda: bool(came))
    assert came == [ORDER]


def test_a_handler_that_raises_does_not_stop_those_behind(world, line, parameters, place, queue):
    sealer = world.sealer(world.policy(place))
    for number in range(3):
        line.send(sealer, place, b"order %d" % number)
    world.keys.slow.set()
    with running_with(parameters, world.sealer(world.policy(place))) as running:

        def on_message(channel, method, _, body):
            running.bodies.append(body)
            if len(running.bodies) == 1:
                raise Refused(Verdict.FORGED, "the handler's own")

        running.channel.basic_consume(queue, on_message)
        running.until(world.keys.waiting.is_set)
        world.keys.unblock()
        running.until(lambda: len(running.bodies) == 3)
        assert running.bodies == [b"order %d" % number for number in range(3)]
        assert len(running.refused) == 1


def test_a_dead_letter_by_another_routing_key_opens_where_its_policy_accepts_it(world, line):
    """A10: exchange and routing key are others then, and the envelope still says where it was sent."""
    place = line.place(**{"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "graveyard"})
    with line.bare() as channel:
        channel.queue_declare("graveyard")
    line._queues["/graveyard"] = "graveyard"
    policy = world.policy(place, accept_from=["rabbitmq:/graveyard"])
    line.send(world.sealer(policy), place, ORDER)
    with line.bare() as channel:
        method, _, _ = channel.basic_get(line.queue(place))
        channel.basic_reject(method.delivery_tag, requeue=False)
    with line.receiving(world.sealer(policy), "/graveyard") as receiving:
        assert receiving.take(1) == [ORDER]
    assert world.events == []
