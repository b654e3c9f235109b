"""`protect`, `unprotect` and `SealedServiceBusClient`: what they take, what they change, what they leave."""

import asyncio

import pytest
from azure.servicebus import (
    ServiceBusClient,
    ServiceBusMessage,
    ServiceBusReceivedMessage,
    ServiceBusReceiver,
    ServiceBusSender,
    aio,
)

import postseal.servicebus
import postseal.servicebus.aio
from postseal.core import ConfigError
from postseal.core.wire import looks_sealed
from postseal.servicebus import protect, unprotect


def body(message):
    return b"".join(message.body)


def inner(client):
    return getattr(client, "inner", client)


def peeked(ends, queue):
    with ends.bare.get_queue_receiver(queue) as receiver:
        return [body(message) for message in receiver.peek_messages(10)]


def test_it_returns_its_target_which_stays_what_it_was(ends, queue):
    client = inner(ends.client())
    kind = type(client)
    assert protect(client, ends.sealer(ends.policy(queue))) is client
    assert type(client) is kind


def test_senders_and_receivers_are_still_the_clients_own(ends, queue):
    """Code that checks types goes on working."""
    client = ends.client(ends.sealer(ends.policy(queue)))
    kinds = (
        (aio.ServiceBusSender, aio.ServiceBusReceiver)
        if ends.is_asyncio
        else (ServiceBusSender, ServiceBusReceiver)
    )
    sender, receiver = client.get_queue_sender(queue), client.get_queue_receiver(queue)
    assert isinstance(inner(sender), kinds[0])
    assert isinstance(inner(receiver), kinds[1])
    assert len(type(inner(sender)).__bases__) == len(type(inner(receiver)).__bases__) == 1
    with sender, receiver:
        sender.send_messages(ServiceBusMessage("x"))
        [message] = receiver.receive_messages(max_wait_time=5)
        assert type(message) is ServiceBusReceivedMessage
        receiver.complete_message(message)


def test_what_was_made_before_is_protected_too(ends, queue):
    client = ends.client()
    sender, receiver = client.get_queue_sender(queue), client.get_queue_receiver(queue)
    with sender, receiver:
        sender.send_messages(ServiceBusMessage("before"))
        protect(inner(client), ends.sealer(ends.policy(queue)))
        sender.send_messages(ServiceBusMessage("4111"))
        clear, sealed = peeked(ends, queue)
        assert clear == b"before"
        assert looks_sealed(sealed)
        came = receiver.receive_messages(2, max_wait_time=5)
    assert [str(message) for message in came] == ["4111"]
    assert [event.verdict for event in ends.events] == ["unprotected"]


def test_other_clients_are_left_alone(ends, queue):
    ends.client(ends.sealer(ends.policy(queue)))
    with ends.bare.get_queue_sender(queue) as sender:
        sender.send_messages(ServiceBusMessage("clear"))
    assert peeked(ends, queue) == [b"clear"]


def test_twice_with_the_same_is_once(ends, queue):
    sealer = ends.sealer(ends.policy(queue))
    client = ends.client(sealer)
    protect(inner(client), sealer, retry_after=0.05)
    with client.get_queue_sender(queue) as sender:
        sender.send_messages(ServiceBusMessage("4111"))
    with client.get_queue_receiver(queue) as receiver:
        assert [str(m) for m in receiver.receive_messages(max_wait_time=5)] == ["4111"]


def test_twice_with_another_sealer_or_other_options_is_refused(ends, queue):
    policy = ends.policy(queue)
    sealer = ends.sealer(policy)
    client = inner(ends.client(sealer))
    with pytest.raises(ConfigError, match="another sealer"):
        protect(client, ends.sealer(policy), retry_after=0.05)
    with pytest.raises(ConfigError, match="other options"):
        protect(client, sealer, retry_after=1)


def test_unprotect_undoes_it(ends, queue):
    sealer = ends.sealer(ends.policy(queue))
    client = ends.client(sealer)
    with client.get_queue_sender(queue) as sender, client.get_queue_receiver(queue) as receiver:
        sender.send_messages(ServiceBusMessage("4111"))
        assert unprotect(inner(client)) is inner(client)
        assert type(inner(sender)) in (ServiceBusSender, aio.ServiceBusSender)
        assert type(inner(receiver)) in (ServiceBusReceiver, aio.ServiceBusReceiver)
        sender.send_messages(ServiceBusMessage("clear"))
        came = receiver.receive_messages(2, max_wait_time=5)
        assert looks_sealed(body(came[0]))
        assert body(came[1]) == b"clear"
    with client.get_queue_sender(queue) as sender:
        sender.send_messages(ServiceBusMessage("clear, too"))
    assert b"clear, too" in peeked(ends, queue)
    unprotect(inner(client))
    protect(inner(client), ends.sealer(ends.policy(queue)))


def test_without_a_policy_nothing_is_sent_or_received(ends, queue):
    client = ends.client(ends.sealer(ends.policy(queue)))
    with pytest.raises(ConfigError, match="no policy speaks of destination 'servicebus:other'"):
        client.get_queue_sender("other")
    with pytest.raises(ConfigError, match="no policy speaks"):
        client.get_queue_receiver("other")
    with pytest.raises(ConfigError, match="no policy speaks"):
        client.get_topic_sender("other")
    with pytest.raises(ConfigError, match="no policy speaks"):
        client.get_subscription_receiver("other", "all")


def test_a_client_with_a_queue_of_no_policy_is_not_protected_at_all(ends, queue):
    client = ends.client()
    kept, other = client.get_queue_sender(queue), client.get_queue_sender("other")
    with pytest.raises(ConfigError, match="'servicebus:other'"):
        protect(inner(client), ends.sealer(ends.policy(queue)))
    assert type(inner(kept)) in (ServiceBusSender, aio.ServiceBusSender)
    del other
    with kept:
        kept.send_messages(ServiceBusMessage("clear"))
    assert peeked(ends, queue) == [b"clear"]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"retry_after": 0}, "retry_after"),
        ({"give_back_after": -1}, "give_back_after"),
        ({"give_back_after": True}, "give_back_after"),
        ({"give_back_after": "60"}, "give_back_after"),
    ],
)
def test_options_that_make_no_sense_are_refused(ends, queue, wrong, said):
    with pytest.raises(ConfigError, match=said):
        protect(inner(ends.client()), ends.sealer(ends.policy(queue)), **wrong)


def test_only_a_client_and_a_sealer_are_taken(ends, queue):
    sealer = ends.sealer(ends.policy(queue))
    with pytest.raises(ConfigError, match="takes a ServiceBusClient, not str"):
        protect("Endpoint=...", sealer)
    with pytest.raises(ConfigError, match="takes a ServiceBusClient"):
        unprotect(object())
    with pytest.raises(ConfigError, match="takes a Sealer"):
        protect(inner(ends.client()), object())


def test_the_old_transport_is_refused(ends, queue, monkeypatch):
    client = inner(ends.client())
    old = type("Uamqp", (), {"KIND": "uamqp"})
    monkeypatch.setattr(client, "_amqp_transport", old)
    with pytest.raises(ConfigError, match="uAMQP"):
        protect(client, ends.sealer(ends.policy(queue)))


def test_a_quarantine_elsewhere_is_refused(ends, queue):
    policy = ends.policy(queue, on_refused="quarantine", quarantine="sqs:refused")
    with pytest.raises(ConfigError, match="no queue or topic of Service Bus"):
        protect(inner(ends.client()), ends.sealer(policy))


def test_a_client_library_that_changed_is_not_protected(ends, queue, monkeypatch):
    client = inner(ends.client())
    monkeypatch.delattr(client, "_handlers")
    with pytest.raises(ConfigError, match="is not as postseal"):
        protect(client, ends.sealer(ends.policy(queue)))
    client._handlers = set()  # for `close`


def test_the_sealed_client_is_one_from_the_start(server, ends, queue):
    module = postseal.servicebus.aio if ends.is_asyncio else postseal.servicebus
    kind = aio.ServiceBusClient if ends.is_asyncio else ServiceBusClient
    sealer = ends.sealer(ends.policy(queue))
    client = module.SealedServiceBusClient.from_connection_string(
        server.address, sealer=sealer, give_back_after=60
    )
    assert isinstance(client, kind)
    with ends.kept(client) as opened:
        with opened.get_queue_sender(queue) as sender:
            sender.send_messages(ServiceBusMessage("4111"))
        assert looks_sealed(peeked(ends, queue)[0])
        with opened.get_queue_receiver(queue) as receiver:
            [message] = receiver.receive_messages(max_wait_time=5)
            assert str(message) == "4111"
            receiver.complete_message(message)


def test_the_sealed_client_has_the_same_constructor(ends, queue):
    module = postseal.servicebus.aio if ends.is_asyncio else postseal.servicebus
    sealer = ends.sealer(ends.policy(queue))

    async def made():
        return module.SealedServiceBusClient(
            "ns.servicebus.windows.net", object(), sealer=sealer, retry_total=7
        )

    client = asyncio.run(made())
    assert client.fully_qualified_namespace == "ns.servicebus.windows.net"
    assert client._config.retry_total == 7
    with pytest.raises(TypeError, match="sealer"):
        module.SealedServiceBusClient("ns.servicebus.windows.net", object())
