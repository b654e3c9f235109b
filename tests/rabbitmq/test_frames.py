"""The frames of a message go out in one piece, and nothing else of pika is changed by that."""

from functools import partial
from typing import Any

import pika
import pytest
from pika.adapters.utils.io_services_utils import _AsyncTransportBase
from pika.exceptions import ChannelWrongStateError, ConnectionWrongStateError

from postseal.rabbitmq import protect, unprotect
from tests.contract import ORDER
from tests.rabbitmq.line import Running, RunningAsyncio

JOINS = "_output_marshaled_frames"
FRAME_MAX = 131_072


@pytest.fixture
def place(line):
    return line.place()


@pytest.fixture
def queue(line, place):
    return line.queue(place)


@pytest.fixture
def sealer(world, place):
    return world.sealer(world.policy(place))


def written(connection):
    """Have *connection* note each piece that it hands to its transport."""
    pieces = []
    put_out = connection._adapter_emit_data
    connection._adapter_emit_data = lambda piece: (pieces.append(piece), put_out(piece))
    return pieces


def got(line, place, count):
    return [raw.body for raw in line.held(place, count)]


def test_a_message_is_one_piece_where_it_was_three(line, place, queue, sealer):
    """The same bytes in the same order, and pika counts what it counted before."""
    with line.bare() as bare, line.connect(sealer) as connection:
        channel = connection.channel()
        channel.basic_publish("", queue, ORDER)
        (envelope,) = got(line, place, 1)
        theirs, ours = bare.connection._impl, connection._impl
        pieces = written(theirs), written(ours)
        before = [(one.bytes_sent, one.frames_sent) for one in (theirs, ours)]
        for sender in (bare, channel._impl):
            # What a channel of ours is given here is sealed already, and so sent as it is.
            sender.basic_publish("", queue, envelope, pika.BasicProperties(content_type="a/b"))
        connection.process_data_events(0)
        assert b"".join(pieces[0]) == b"".join(pieces[1])
        assert [len(each) for each in pieces] == [3, 1]
        after = [(one.bytes_sent, one.frames_sent) for one in (theirs, ours)]
    sent = [(b - a, d - c) for (a, c), (b, d) in zip(before, after, strict=True)]
    assert sent == [(len(pieces[1][0]), 3)] * 2
    assert got(line, place, 2) == [envelope] * 2


@pytest.mark.parametrize("kind", [Running, RunningAsyncio])
def test_asynchronous_connections_send_one_piece_too(line, sealer, place, kind):
    running = kind(line.parameters, sealer)
    try:
        pieces = written(running.connection)
        running.channel.basic_publish("", line.queue(place), ORDER)
        assert len(pieces) == 1
        running.until(lambda: line.has_message(place))
    finally:
        running.close()


@pytest.mark.parametrize("size", [0, 15_000, 17_000, FRAME_MAX - 400, FRAME_MAX, 3 * FRAME_MAX])
def test_bodies_of_all_sizes_arrive_and_long_ones_as_pika_sends_them(line, queue, sealer, size):
    body = bytes(range(256)) * (size // 256) + bytes(size % 256)
    with line.connect(sealer) as connection:
        pieces = written(connection._impl)
        channel = connection.channel()
        pieces.clear()
        channel.basic_publish("", queue, body)
        assert (len(pieces) == 1) is (size < 16_000)
        assert channel.basic_get(queue, auto_ack=True)[2] == body


def test_what_the_network_takes_in_parts_arrives_whole(line, queue, sealer, monkeypatch):
    """Backpressure is pika's own: what is left of a piece waits in its buffer."""
    transport: Any = _AsyncTransportBase
    send = transport._sigint_safe_send
    monkeypatch.setattr(transport, "_sigint_safe_send", staticmethod(lambda sock, data: send(sock, data[:7])))
    with line.connect(sealer) as connection:
        channel = connection.channel()
        for number in range(5):
            channel.basic_publish("", queue, ORDER + bytes([number]))
        assert [channel.basic_get(queue, auto_ack=True)[2][-1] for _ in range(5)] == list(range(5))


def test_a_closed_channel_or_connection_says_what_it_said(line, queue, sealer):
    with line.connect(sealer) as connection:
        channel, other = connection.channel(), connection.channel()
        channel.close()
        with pytest.raises(ChannelWrongStateError):
            channel.basic_publish("", queue, ORDER)
        other.basic_publish("", queue, ORDER)
        connection.close()
        with pytest.raises((ChannelWrongStateError, ConnectionWrongStateError)):
            other.basic_publish("", queue, ORDER)


def test_unprotect_has_pika_send_as_before(line, queue, sealer):
    with line.bare() as channel:
        connection = channel.connection
        protect(connection, sealer)
        assert JOINS in vars(connection._impl)
        unprotect(connection)
        assert JOINS not in vars(connection._impl)
        pieces = written(connection._impl)
        channel.basic_publish("", queue, b"clear")
        assert len(pieces) == 3


def own_method(connection):
    """An adapter that puts frames out in a way of its own."""

    class Own(type(connection)):
        def _output_marshaled_frames(self, marshaled_frames):
            super()._output_marshaled_frames(marshaled_frames)

    connection.__class__ = Own


def covered(connection):
    """Another library has covered the method already."""
    setattr(connection, JOINS, partial(getattr(connection, JOINS)))


def no_counter(connection):
    """A pika that counts otherwise."""
    connection.frames_sent = None


@pytest.mark.parametrize("change", [own_method, covered, no_counter])
def test_where_pika_is_not_as_we_know_it_its_own_way_is_kept(line, queue, sealer, change):
    with line.bare() as channel:
        connection = channel.connection
        change(connection._impl)
        before = vars(connection._impl).get(JOINS)
        protect(connection, sealer)
        assert vars(connection._impl).get(JOINS) is before
        if change is no_counter:
            connection._impl.frames_sent = 0
        pieces = written(connection._impl)
        channel.basic_publish("", queue, ORDER)
        assert len(pieces) == 3
        unprotect(protect(connection, sealer))
        assert vars(connection._impl).get(JOINS) is before
        protect(connection, sealer)
        assert channel.basic_get(queue, auto_ack=True)[2] == ORDER
