"""Protecting a connection of pika, and what it publishes."""

import logging

import pika
import pytest
from pika.exceptions import ChannelClosedByBroker, NackError, UnroutableError

from postseal.core import ConfigError, KeyUnavailable, Refused, Sealer, Verdict
from postseal.core.wire import looks_sealed
from postseal.rabbitmq import protect, unprotect
from tests.contract import ORDER, SECRETS, Raw
from tests.core.kit import local_keys
from tests.rabbitmq.line import Running


@pytest.fixture
def place(line):
    return line.place()


@pytest.fixture
def queue(line, place):
    return line.queue(place)


@pytest.fixture
def sealer(world, place):
    return world.sealer(world.policy(place))


@pytest.fixture
def connection(line, sealer):
    with line.connect(sealer) as connection:
        yield connection


def bodies(line, place, count):
    return [raw.body for raw in line.held(place, count)]


# -- protect and unprotect ---------------------------------------------------------------------------------------------


def test_protect_returns_its_target_and_may_be_called_twice(connection, sealer):
    assert protect(connection, sealer) is connection
    assert unprotect(unprotect(connection)) is connection


def test_another_sealer_or_other_options_are_refused(world, place, connection, sealer):
    with pytest.raises(ConfigError, match="another sealer"):
        protect(connection, world.sealer(world.policy(place)))
    with pytest.raises(ConfigError, match="other options"):
        protect(connection, sealer, give_back_after=1)


@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), "5", True, None])
def test_a_wait_that_is_none_is_refused(line, sealer, value):
    with pytest.raises(ConfigError, match="give_back_after"), line.bare() as channel:
        protect(channel.connection, sealer, give_back_after=value)


@pytest.mark.parametrize("target", [object(), None, "amqp://localhost"])
def test_what_is_no_connection_is_refused(sealer, target):
    with pytest.raises(ConfigError, match="takes a connection"):
        protect(target, sealer)


def test_a_channel_is_no_connection(line, sealer):
    with line.bare() as channel, pytest.raises(ConfigError, match="BlockingChannel"):
        protect(channel, sealer)


def test_a_sealer_is_needed(line):
    with line.bare() as channel, pytest.raises(ConfigError, match="takes a Sealer"):
        protect(channel.connection, object())


def test_a_policy_that_rabbitmq_cannot_keep_is_said_at_once(world, line, place):
    sealer = world.sealer(world.policy(place, bind_headers=["x-tenant"]))
    with line.bare() as channel, pytest.raises(ConfigError, match="x-tenant"):
        protect(channel.connection, sealer)


def test_another_pika_is_refused(line, sealer, monkeypatch):
    """Not knowing it, we could not protect it."""
    with line.bare() as channel:
        monkeypatch.delattr("pika.adapters.base_connection.BaseConnection._adapter_call_later")
        monkeypatch.delattr("pika.connection.Connection._adapter_call_later")
        with pytest.raises(ConfigError, match="_adapter_call_later"):
            protect(channel.connection, sealer)
        monkeypatch.undo()


def test_channels_that_are_open_already_are_protected_too(line, sealer, place, queue):
    with line.bare() as channel:
        protect(channel.connection, sealer)
        channel.basic_publish("", queue, ORDER)
        assert channel.basic_get(queue, auto_ack=True)[2] == ORDER
        channel.basic_publish("", queue, ORDER)
        unprotect(channel.connection)
        assert looks_sealed(channel.basic_get(queue, auto_ack=True)[2])


def test_a_channel_that_consumes_already_is_refused_and_nothing_is_changed(line, sealer, queue):
    with line.bare() as channel:
        other = channel.connection.channel()
        channel.basic_consume(queue, lambda *_: None)
        with pytest.raises(ConfigError, match="consumes already"):
            protect(channel.connection, sealer)
        for one in (other, channel):
            one.basic_publish("", "nowhere", b"clear")
            assert "basic_publish" not in vars(one)
            assert "basic_publish" not in vars(one._impl)


def test_unprotect_leaves_nothing_behind(connection, line, queue, place):
    channel = connection.channel()
    came = []
    channel.basic_consume(queue, lambda *message: came.append(message[3]), auto_ack=True)
    channel.basic_publish("", queue, ORDER)
    connection.process_data_events(0.2)
    unprotect(connection)
    channel.basic_publish("", queue, b"clear")
    line.put(place, Raw(b"raw"))
    while len(came) < 3:
        connection.process_data_events(0.2)
    assert came == [ORDER, b"clear", b"raw"]
    for one in (connection, connection._impl, channel, channel._impl):
        assert not [name for name in vars(one) if name.startswith("basic_") or name == "_postseal"]


def test_a_closed_channel_is_forgotten(connection):
    from postseal.rabbitmq._pika import hooks_of

    hooks = hooks_of(connection)
    for _ in range(3):
        connection.channel().close()
    assert hooks._guards == {}
    assert hooks._shown == {}


# -- publishing --------------------------------------------------------------------------------------------------------


def test_text_is_sent_as_pika_sends_it(connection, queue):
    channel = connection.channel()
    channel.basic_publish("", queue, "Straße")
    assert channel.basic_get(queue)[2] == "Straße".encode()


def test_properties_are_the_callers_own(connection, queue):
    properties = pika.BasicProperties(
        content_type="application/json",
        content_encoding="gzip",
        headers={"n": 1, "deep": {"list": [True, None]}},
        delivery_mode=2,
        priority=3,
        correlation_id="7",
        reply_to="here",
        expiration="60000",
        message_id="m",
        timestamp=1_800_000_000,
        type="pay",
        user_id="guest",
        app_id="shop",
    )
    before = repr(vars(properties))
    channel = connection.channel()
    channel.basic_publish("", queue, ORDER, properties)
    _, came, body = channel.basic_get(queue)
    assert repr(vars(properties)) == before
    assert (came, body) == (properties, ORDER)


def test_the_handler_sees_the_content_type_that_was_sealed(connection, line, place, queue):
    """A9: who changes it at the broker changes how a body would be read."""
    channel = connection.channel()
    for content_type in ("application/json", None):
        channel.basic_publish("", queue, ORDER, pika.BasicProperties(content_type=content_type))
    with line.bare() as bare:
        for _ in range(2):
            _, properties, body = bare.basic_get(queue, auto_ack=True)
            properties.content_type = "application/x-python-pickle"
            bare.basic_publish("", queue, body, properties)
    assert [channel.basic_get(queue)[1].content_type for _ in range(2)] == ["application/json", None]


def test_a_tolerated_message_keeps_its_content_type(world, line, place, queue):
    sealer = world.sealer(world.policy(place, mode="observe"))
    with line.bare() as bare, line.connect(sealer) as connection:
        bare.confirm_delivery()
        bare.basic_publish("", queue, b"{}", pika.BasicProperties(content_type="application/json"))
        _, properties, body = connection.channel().basic_get(queue)
    assert (properties.content_type, body) == ("application/json", b"{}")
    assert world.verdicts() == [Verdict.UNPROTECTED]


def _altered(line, place, queue, alter):
    with line.bare() as bare:
        _, properties, body = bare.basic_get(queue, auto_ack=True)
        alter(properties)
        bare.basic_publish("", queue, body, properties)


@pytest.mark.parametrize(
    ("name", "value"),
    [("correlation_id", "8"), ("reply_to", "mine"), ("type", "refund"), ("content_encoding", None)],
)
def test_a_bound_property_that_was_tampered_with_is_refused(world, line, place, queue, *, name, value):
    """A9: the content encoding is bound whatever the policy says."""
    policy = world.policy(place, bind_headers=["correlation-id", "reply_to", "type"])
    properties = pika.BasicProperties(
        correlation_id="7", reply_to="yours", type="pay", content_encoding="gzip"
    )
    with line.connect(world.sealer(policy)) as connection:
        channel = connection.channel()
        channel.basic_publish("", queue, ORDER, properties)
        _altered(line, place, queue, lambda properties: setattr(properties, name, value))
        with pytest.raises(Refused):
            channel.basic_get(queue)
        assert world.verdicts() == [Verdict.FORGED]


def test_what_a_sender_binds_beyond_the_policy_opens_too(world, line, place, queue):
    """Producers may be told first."""
    binding = world.sealer(world.policy(place, bind_headers=["correlation_id", "tenant"]))
    with line.connect(binding) as connection:
        properties = pika.BasicProperties(correlation_id="7", headers={"tenant": b"north"})
        connection.channel().basic_publish("", queue, ORDER, properties)
    with line.connect(world.sealer(world.policy(place))) as connection:
        assert connection.channel().basic_get(queue)[2] == ORDER


def test_a_header_that_cannot_be_bound_is_said_before_anything_is_sent(world, line, place, queue):
    sealer = world.sealer(world.policy(place, bind_headers=["tenant"]))
    deep = [[]]
    for _ in range(40):
        deep = [deep]
    with line.connect(sealer) as connection, pytest.raises(TypeError, match="tenant"):
        connection.channel().basic_publish("", queue, ORDER, pika.BasicProperties(headers={"tenant": deep}))
    assert not line.has_message(place)


@pytest.mark.parametrize(("exchange", "words"), [("", "no policy speaks"), ("a/b", "has a '/'")])
def test_a_destination_of_no_policy_is_refused(connection, exchange, words):
    with pytest.raises(ConfigError, match=words):
        connection.channel().basic_publish(exchange, "elsewhere", ORDER)


def test_what_a_callback_publishes_is_sealed(world, line, place, queue):
    """The callback gets a channel, and a reply must not leave by it in clear."""
    reply = line.place()
    with line.connect(world.sealer(world.policy(place, reply))) as connection:

        def on_message(channel, method, properties, body):
            channel.basic_publish("", properties.reply_to, body + b" done")
            channel.basic_ack(method.delivery_tag)

        channel = connection.channel()
        channel.basic_consume(queue, on_message)
        channel.basic_publish("", queue, ORDER, pika.BasicProperties(reply_to=line.queue(reply)))
        while not line.has_message(reply):
            connection.process_data_events(0.05)
        [held] = line.held(reply, 1)
        assert looks_sealed(held.body)
        assert channel.basic_get(line.queue(reply))[2] == ORDER + b" done"


def test_without_a_key_a_confirming_channel_can_go_on(world, line, place, queue):
    """B14: nothing was sent, so nothing is waited for."""
    with line.connect(world.sealer(world.policy(place))) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        world.keys.unavailable.set()
        with pytest.raises(KeyUnavailable):
            channel.basic_publish("", queue, ORDER)
        world.keys.unavailable.clear()
        channel.basic_publish("", queue, ORDER)
        assert channel.basic_get(queue)[2] == ORDER


# -- what the broker sends back ----------------------------------------------------------------------------------------


@pytest.fixture
def unroutable(world, line, place):
    with line.connect(world.sealer(world.policy(place, "/nowhere"))) as connection:
        yield connection.channel()


def test_an_unroutable_message_is_raised_as_it_was_published(unroutable, caplog):
    """And not logged: pika logs the beginning of what it was returned."""
    caplog.set_level(logging.DEBUG)
    unroutable.confirm_delivery()
    with pytest.raises(UnroutableError) as raised:
        unroutable.basic_publish("", "nowhere", ORDER, mandatory=True)
    [returned] = raised.value.messages
    assert returned.body == ORDER
    assert "was returned" in caplog.text
    assert not [secret for secret in SECRETS if secret.decode() in caplog.text]


def test_a_returned_message_is_shown_as_it_was_published(unroutable):
    came = []
    unroutable.add_on_return_callback(lambda *message: came.append(message[3]))
    unroutable.basic_publish("", "nowhere", "text", mandatory=True)
    unroutable.basic_publish("", "nowhere", ORDER, mandatory=True)
    while len(came) < 2:
        unroutable.connection.process_data_events(0.05)
    assert came == [b"text", ORDER]


def test_a_returned_message_of_long_ago_is_shown_sealed(unroutable, monkeypatch):
    monkeypatch.setattr("postseal.rabbitmq._channel.Sent.MOST", 1)
    came = []
    unroutable.add_on_return_callback(lambda *message: came.append(message[3]))
    with unroutable.connection._acquire_event_dispatch():  # so that no return is dispatched in between
        unroutable.basic_publish("", "nowhere", b"first", mandatory=True)
    unroutable.basic_publish("", "nowhere", b"second", mandatory=True)
    while len(came) < 2:
        unroutable.connection.process_data_events(0.05)
    assert looks_sealed(came[0])
    assert came[1] == b"second"


def test_an_asynchronous_channel_shows_returns_as_they_were_published(world, parameters):
    running = Running(parameters, world.sealer(world.policy("/nowhere")))
    came = []
    running.channel.add_on_return_callback(lambda *message: came.append(message[3]))
    running.channel.basic_publish("", "nowhere", ORDER, mandatory=True)
    running.until(lambda: bool(came))
    running.close()
    assert came == [ORDER]


def test_a_queue_that_is_full_says_so_as_ever(world, line):
    place = line.place(**{"x-max-length": 1, "x-overflow": "reject-publish"})
    with line.connect(world.sealer(world.policy(place))) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        channel.basic_publish("", line.queue(place), ORDER)
        with pytest.raises(NackError):
            channel.basic_publish("", line.queue(place), ORDER)


# -- a broker that hangs up --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["cut", "close", "channel"])
@pytest.mark.parametrize("method", ["Basic.Publish", "Basic.Get", "Basic.Ack", "Basic.Consume"])
def test_a_broker_that_hangs_up_is_reported_by_pika_and_costs_no_message(
    world, line, broker, place, queue, *, method, fault
):
    """Bad input: a broker that closes the connection, or the channel, in each call."""
    sealer = world.sealer(world.policy(place))
    line.send(sealer, place, ORDER)
    connection = line.connect(sealer)
    channel = connection.channel()
    channel.confirm_delivery()
    broker.faults[method] = fault

    def use():
        channel.basic_publish("", queue, ORDER)
        got, _, _ = channel.basic_get(queue)
        channel.basic_ack(got.delivery_tag)
        channel.basic_consume(queue, lambda *_: None)
        connection.process_data_events(1)
        channel.basic_get(queue)

    with pytest.raises(pika.exceptions.AMQPError):
        use()
    if connection.is_open:
        connection.close()
    assert broker.faults == {}
    with line.receiving(sealer, place) as receiving:
        receiving.take(1)
    assert set(receiving.bodies) == {ORDER}


def test_a_queue_that_does_not_exist_is_pikas_own_error(connection):
    with pytest.raises(ChannelClosedByBroker, match="404"):
        connection.channel().basic_get("no such queue")


# -- other rules -------------------------------------------------------------------------------------------------------


def test_what_the_policies_say_is_looked_up_for_each_message_of_an_open_channel(line, place, queue, tmp_path):
    """Rules that are taken over hold for channels and consumers that have published and received before."""
    path = tmp_path / "postseal.toml"
    rules = (
        'sender = "billing"\n[[policy]]\nname = "orders"\ndestinations = ["rabbitmq:{}"]\nkeys = ["main"]\n'
    )
    path.write_text(rules.format(place))
    sealer = Sealer.from_file(path, keys={"main": local_keys()})
    exchange, _, routing_key = place.partition("/")
    came = []
    with line.connect(sealer) as connection:
        channel = connection.channel()
        channel.basic_consume(queue, lambda *message: came.append(message[3]), auto_ack=True)
        while len(came) < 3:
            channel.basic_publish(exchange, routing_key, ORDER)
            connection.process_data_events(30)
        envelope = sealer.seal(ORDER, destination=f"rabbitmq:{place}")
        path.write_text(rules.format("/elsewhere"))
        sealer.reload()
        with pytest.raises(ConfigError, match="no policy"):
            channel.basic_publish(exchange, routing_key, ORDER)
        line.put(place, Raw(envelope))
        with pytest.raises(ConfigError, match="no policy"):
            connection.process_data_events(30)
    assert came == [ORDER] * 3
