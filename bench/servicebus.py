"""What protection costs a Service Bus client: messages per second there and back, bare and protected, against the test server.

    python bench/servicebus.py [--json] [--rounds N]

One message after the other is sent, received and completed, each step waiting for the server, which runs in a process of its own. Bare and
protected take turns every few messages, so that both meet the same moods of the machine; each figure is the median of the ratios of the
rounds. 1 KiB bodies, confidentiality.
"""

import argparse
import asyncio
import json
import statistics
import sys
import time
import warnings
from pathlib import Path

from azure.servicebus import ServiceBusClient, ServiceBusMessage
from azure.servicebus import aio as azure_aio

from postseal.core import Policy, Sealer, UnsafeLocalKeys
from postseal.core.accelerator import native
from postseal.servicebus import protect

sys.path.insert(0, str(Path(__file__).parents[1]))

from integration.servers import ServiceBus

BODY = b"x" * 1024
ROUNDS = 9
MESSAGES = 25
TURNS = 10


class Side:
    """A sender and a receiver of one queue: bare, or protected."""

    def __init__(self, client, queue):
        self._sender = client.get_queue_sender(queue).__enter__()
        self._receiver = client.get_queue_receiver(queue).__enter__()

    def roundtrip(self):
        """Send, receive and complete, one after the other."""
        start = time.perf_counter()
        for _ in range(MESSAGES):
            self._sender.send_messages(ServiceBusMessage(BODY))
            message = next(self._receiver)
            assert len(b"".join(message.body)) == len(BODY)
            self._receiver.complete_message(message)
        return time.perf_counter() - start

    def batch(self):
        """Send as batches, receive and complete."""
        start = time.perf_counter()
        batch = self._sender.create_message_batch()
        for _ in range(MESSAGES):
            batch.add_message(ServiceBusMessage(BODY))
        self._sender.send_messages(batch)
        for _ in range(MESSAGES):
            self._receiver.complete_message(next(self._receiver))
        return time.perf_counter() - start


class AioSide:
    """The same by asyncio."""

    def __init__(self, runner, client, queue):
        self._runner = runner
        self._client = client
        runner.run(self._open(queue))

    async def _open(self, queue):
        self._sender = await self._client.get_queue_sender(queue).__aenter__()
        self._receiver = await self._client.get_queue_receiver(queue).__aenter__()

    def roundtrip(self):
        """Send, receive and complete, one after the other."""
        return self._runner.run(self._roundtrip())

    async def _roundtrip(self):
        start = time.perf_counter()
        for _ in range(MESSAGES):
            await self._sender.send_messages(ServiceBusMessage(BODY))
            message = await anext(self._receiver)
            assert len(b"".join(message.body)) == len(BODY)
            await self._receiver.complete_message(message)
        return time.perf_counter() - start


def sealer_for(queue):
    """Make a sealer whose data key is cached."""
    policy = Policy(name="orders", destinations=[f"servicebus:{queue}"], keys=["main"])
    return Sealer(sender="shop", policies=[policy], keys={"main": UnsafeLocalKeys.ephemeral()})


def in_turn(rounds, bare, protected):
    """Return the median of the ratios of messages per second, and that of the bare rates."""
    bare(), protected()  # warm
    ratios, rates = [], []
    for _ in range(rounds):
        times = [(bare(), protected()) for _ in range(TURNS)]
        without, with_it = map(sum, zip(*times, strict=True))
        ratios.append(without / with_it)
        rates.append(TURNS * MESSAGES / without)
    return statistics.median(ratios), statistics.median(rates)


def measure(rounds=ROUNDS):
    """Measure against a test server of its own. Ratios sealed/bare of messages per second, and the bare rate."""
    warnings.simplefilter("ignore")
    with ServiceBus() as server, asyncio.Runner() as runner:
        queues = [server.new_queue() for _ in range(4)]
        clients = [ServiceBusClient.from_connection_string(server.address) for _ in range(2)]
        protect(clients[1], sealer_for(queues[1]))
        sides = [Side(client, queue) for client, queue in zip(clients, queues, strict=False)]
        roundtrip, per_s = in_turn(rounds, sides[0].roundtrip, sides[1].roundtrip)
        batch, _ = in_turn(rounds, sides[0].batch, sides[1].batch)
        for client in clients:
            client.close()

        clients = [azure_aio.ServiceBusClient.from_connection_string(server.address) for _ in range(2)]
        protect(clients[1], sealer_for(queues[3]))
        sides = [AioSide(runner, client, queue) for client, queue in zip(clients, queues[2:], strict=True)]
        aio, _ = in_turn(rounds, sides[0].roundtrip, sides[1].roundtrip)
        for client in clients:
            runner.run(client.close())
    return {
        "servicebus.roundtrip": round(roundtrip, 3),
        "servicebus.batch": round(batch, 3),
        "servicebus.aio_roundtrip": round(aio, 3),
        "servicebus.bare_per_s": round(per_s),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args()
    figures = measure(options.rounds)
    if options.json:
        print(json.dumps({"accelerator": native() is not None, **figures}, indent=2))
        return
    for name, value in figures.items():
        print(f"{name:26} {value}")


if __name__ == "__main__":
    main()
