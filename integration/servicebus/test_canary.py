"""What the server and the wire hold: never the body of a protected client; that of a bare one, found by the same search."""

import asyncio
import secrets

import pytest
from azure.servicebus import ServiceBusClient, ServiceBusMessage, aio

from integration.capture import Recorder
from integration.scan import scan, scan_memory
from postseal.core import Policy, Sealer
from postseal.servicebus import protect
from tests.fakes import local_keys


@pytest.fixture
def canary():
    """A body nobody else has."""
    return f"canary {secrets.token_hex(8)} 4111 1111 1111 1111"


def sealer_for(name):
    policy = Policy(name="orders", destinations=[f"servicebus:{name}"], keys=["main"])
    return Sealer(sender="shop", policies=[policy], keys={"main": local_keys()})


def bodies(canary):
    """Return the canary by itself and within, as messages are made of."""
    return canary, f'{{"card": "{canary}"}}', f"<card>{canary}</card>"


def blocking(address, queue, sealer, canary):
    """Send by every verb, peek, receive and give back; set the session's state; leave the messages in the queue."""
    one, two, three = bodies(canary)
    with ServiceBusClient.from_connection_string(address) as client:
        if sealer is not None:
            protect(client, sealer)
        with client.get_queue_sender(queue) as sender:
            sender.send_messages(ServiceBusMessage(one, session_id="s"))
            sender.send_messages([ServiceBusMessage(two, session_id="s")])
            batch = sender.create_message_batch()
            batch.add_message(ServiceBusMessage(three, session_id="s"))
            sender.send_messages(batch)
        with client.get_queue_receiver(queue, session_id="s", max_wait_time=2) as receiver:
            receiver.session.set_state(canary)
            assert receiver.session.get_state() == canary.encode()
            came = {str(message) for message in receiver.peek_messages(10)}
            for message in [next(receiver) for _ in range(3)]:
                came.add(str(message))
                receiver.abandon_message(message)
        return came


def by_asyncio(address, queue, sealer, canary):
    """Do the same with the other client."""
    one, two, three = bodies(canary)

    async def main():
        async with aio.ServiceBusClient.from_connection_string(address) as client:
            if sealer is not None:
                protect(client, sealer)
            async with client.get_queue_sender(queue) as sender:
                await sender.send_messages(ServiceBusMessage(one, session_id="s"))
                await sender.send_messages([ServiceBusMessage(two, session_id="s")])
                batch = await sender.create_message_batch()
                batch.add_message(ServiceBusMessage(three, session_id="s"))
                await sender.send_messages(batch)
            async with client.get_queue_receiver(queue, session_id="s", max_wait_time=2) as receiver:
                await receiver.session.set_state(canary)
                assert await receiver.session.get_state() == canary.encode()
                came = {str(message) for message in await receiver.peek_messages(10)}
                for message in [await receiver.__anext__() for _ in range(3)]:
                    came.add(str(message))
                    await receiver.abandon_message(message)
            return came

    return asyncio.run(main())


def run(servicebus, canary, folder, work, *, sealed):
    """Do *work* through a recorder, without TLS; return what the consumer got."""
    queue = servicebus.new_queue(requires_session=True)
    with Recorder(servicebus.route, folder) as recorder:
        port = int(recorder.address.rpartition(":")[2])
        came = work(servicebus.address_at(port), queue, sealer_for(queue) if sealed else None, canary)
        assert recorder.connections > 0
    return came


@pytest.mark.parametrize("work", [blocking, by_asyncio])
def test_a_sealed_body_is_in_the_consumer_and_nowhere_else(servicebus, canary, tmp_path, work):
    """A1, A2: not in the server's memory, not in its files, not in plain traffic of either direction."""
    came = run(servicebus, canary, tmp_path / "wire", work, sealed=True)
    assert came == set(bodies(canary))
    assert scan(canary.encode(), tmp_path / "wire") == []
    assert _in_memory(servicebus, canary) == []
    if servicebus.data_dir is not None:
        assert scan(canary.encode(), servicebus.data_dir) == []


@pytest.mark.parametrize("work", [blocking, by_asyncio])
def test_a_clear_body_is_found_by_the_same_search(servicebus, canary, tmp_path, work):
    """The control: a bare client's is on the wire, both ways, and in the server's memory."""
    came = run(servicebus, canary, tmp_path / "wire", work, sealed=False)
    assert came == set(bodies(canary))
    places = {hit.place.rpartition("-")[2] for hit in scan(canary.encode(), tmp_path / "wire")}
    assert places == {"sent", "received"}
    assert _in_memory(servicebus, canary) != []


def _in_memory(servicebus, canary):
    if servicebus.pid is None:
        pytest.skip(
            "the server runs elsewhere (a container, or one that was given), so its memory cannot be read"
        )
    return scan_memory(canary.encode(), servicebus.pid)
