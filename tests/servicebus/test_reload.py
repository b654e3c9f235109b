"""Links that stay open while the policy file is read again: from then on they do what it says."""

from __future__ import annotations

import pytest
from azure.servicebus import ServiceBusMessage

from postseal.core import ConfigError, Sealer
from postseal.core.wire import looks_sealed
from tests.servicebus.test_settling import body, inject, peeked

CARD = "4111 1111 1111 1111"


class Reloaded:
    """A sealer of a policy file of one queue, which changes."""

    def __init__(self, ends, queue, folder, **options):
        self._file, self._queue = folder / "postseal.toml", queue
        self._write(options)
        self.sealer = Sealer.from_file(
            self._file, keys={"main": ends.keys}, on_audit=ends.events.append, sender="shop"
        )

    def _write(self, options):
        lines = {"name": "orders", "destinations": [f"servicebus:{self._queue}"], "keys": ["main"]} | options
        self._file.write_text("[[policy]]\n" + "".join(f"{k} = {_toml(v)}\n" for k, v in lines.items()))

    def to(self, **options):
        """Put another file in its place and have it read."""
        self._write(options)
        self.sealer.reload()


def test_an_open_sender_seals_from_then_on(ends, queue, tmp_path):
    policies = Reloaded(ends, queue, tmp_path, mode="observe")
    with ends.client(policies.sealer).get_queue_sender(queue) as sender:
        sender.send_messages(ServiceBusMessage("one"))
        policies.to(mode="enforce", bind_headers=["tenant"])
        sender.send_messages(ServiceBusMessage("two", application_properties={"tenant": "north"}))
        batch = sender.create_message_batch()
        batch.add_message(ServiceBusMessage("three", application_properties={"tenant": "north"}))
        sender.send_messages(batch)
    clear, *sealed = peeked(ends, queue)
    assert str(clear) == "one"
    assert all(looks_sealed(body(message)) for message in sealed)
    with ends.client(policies.sealer).get_queue_receiver(queue) as receiver:
        came = receiver.receive_messages(3, max_wait_time=5)
        assert [str(message) for message in came] == ["two", "three"]


def test_an_open_receiver_demands_and_settles_by_the_new_policy(ends, queue, tmp_path):
    policies = Reloaded(ends, queue, tmp_path, mode="observe", on_refused="discard")
    with ends.client(policies.sealer).get_queue_receiver(queue) as receiver:
        inject(ends, queue, CARD)
        [first] = receiver.receive_messages(1, max_wait_time=5)
        assert str(first) == CARD
        receiver.complete_message(first)
        policies.to(on_refused="dead-letter")
        inject(ends, queue, CARD)
        assert receiver.receive_messages(1, max_wait_time=2) == []
    assert [body(message) for message in peeked(ends, queue, sub_queue="deadletter")] == [CARD.encode()]
    assert [event.outcome for event in ends.events] == ["let-through", "refused"]


def test_an_open_link_of_a_queue_that_has_no_policy_any_more_sends_nothing_and_hands_on_nothing(
    ends, queue, tmp_path
):
    policies = Reloaded(ends, queue, tmp_path, mode="off")
    client = ends.client(policies.sealer)
    with client.get_queue_sender(queue) as sender, client.get_queue_receiver(queue) as receiver:
        sender.send_messages(ServiceBusMessage(CARD))
        policies.to(destinations=["servicebus:others"])
        with pytest.raises(ConfigError):
            sender.send_messages(ServiceBusMessage(CARD))
        with pytest.raises(ConfigError):
            receiver.receive_messages(1, max_wait_time=5)
    assert len(peeked(ends, queue)) == 1


def test_a_batch_that_was_filled_in_clear_is_not_sent_where_its_queue_seals_now(ends, queue, tmp_path):
    """A1: nothing goes out in clear because it was there before."""
    policies = Reloaded(ends, queue, tmp_path, mode="observe")
    with ends.client(policies.sealer).get_queue_sender(queue) as sender:
        batch = sender.create_message_batch()
        batch.add_message(ServiceBusMessage(CARD))
        policies.to(mode="enforce")
        with pytest.raises(ConfigError, match="fill another"):
            sender.send_messages(batch)
    assert peeked(ends, queue) == []


def test_a_batch_that_was_filled_sealed_stays_so_where_its_queue_seals_no_more(ends, queue, tmp_path):
    policies = Reloaded(ends, queue, tmp_path)
    with ends.client(policies.sealer).get_queue_sender(queue) as sender:
        sender.send_messages(ServiceBusMessage("first"))  # so that a data key is at hand
        batch = sender.create_message_batch()
        batch.add_message(ServiceBusMessage(CARD))
        policies.to(mode="off")
        sender.send_messages(batch)
        sender.send_messages(ServiceBusMessage("clear"))
    first, card, clear = peeked(ends, queue)
    assert looks_sealed(body(first))
    assert looks_sealed(body(card))
    assert str(clear) == "clear"


@pytest.mark.parametrize(
    "ends", ["asyncio"], indirect=True
)  # the blocking client seals as it fills, and puts nothing off
def test_what_was_put_off_is_never_sent_as_a_placeholder(ends, queue, tmp_path):
    """asyncio fills a batch without a data key at hand; then the policies change."""
    policies = Reloaded(ends, queue, tmp_path, data_key={"max_messages": 1})
    with ends.client(policies.sealer).get_queue_sender(queue) as sender:
        for options in ({"mode": "off"}, {"bind_headers": ["tenant"]}):
            policies.to(data_key={"max_messages": 1})
            batch = sender.create_message_batch()
            batch.add_message(ServiceBusMessage(CARD))
            policies.to(**options)
            with pytest.raises(ConfigError, match="fill another"):
                sender.send_messages(batch)
    assert peeked(ends, queue) == []


def _toml(value):
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{name} = {_toml(each)}" for name, each in value.items()) + " }"
    return repr(value)
