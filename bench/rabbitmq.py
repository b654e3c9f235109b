"""What protection costs a RabbitMQ client: messages per second of one blocking connection of pika, bare and protected, with a real broker.

    python bench/rabbitmq.py [--json] [--rounds N]

The broker is one of `integration/servers`, or that at POSTSEAL_TEST_RABBITMQ. Bare and protected take turns; each figure is the median of
the ratios of the rounds. 1 KiB bodies, confidentiality, one queue, nothing persistent.
"""

import argparse
import json
import statistics
import sys
import time
import uuid
import warnings
from pathlib import Path

import pika

from postseal.core import Policy, Sealer, UnsafeLocalKeys
from postseal.rabbitmq import protect

sys.path.insert(0, str(Path(__file__).parents[1]))

from integration.servers import RabbitMq

BODY = b"x" * 1024
ROUNDS = 9
MESSAGES = 3000
CONFIRMED = 500


class Side:
    """A connection and its queue: bare, or protected."""

    def __init__(self, url, sealer=None):
        self._connection = pika.BlockingConnection(pika.URLParameters(url))
        if sealer is not None:
            protect(self._connection, sealer)
        self._queue = f"bench.{uuid.uuid4().hex}"
        self._channel = self._connection.channel()
        self._channel.queue_declare(self._queue, exclusive=True)
        self._confirming = self._connection.channel()
        self._confirming.confirm_delivery()
        self._properties = pika.BasicProperties(content_type="application/json")

    def publish(self):
        """Publish without confirms; the broker has all when it answers the call behind."""
        start = time.perf_counter()
        for _ in range(MESSAGES):
            self._channel.basic_publish("", self._queue, BODY, self._properties)
        self._channel.queue_declare(self._queue, passive=True)
        return MESSAGES / (time.perf_counter() - start)

    def consume(self):
        """Consume what `publish` left, with a callback and without acknowledgements: nothing is cheaper."""
        came = 0

        def on_message(channel, method, properties, body):
            nonlocal came
            came += 1

        start = time.perf_counter()
        tag = self._channel.basic_consume(self._queue, on_message, auto_ack=True)
        while came < MESSAGES:
            self._connection.process_data_events(None)
        rate = MESSAGES / (time.perf_counter() - start)
        self._channel.basic_cancel(tag)
        return rate

    def confirmed(self):
        """Publish, waiting for each to be confirmed."""
        start = time.perf_counter()
        for _ in range(CONFIRMED):
            self._confirming.basic_publish("", self._queue, BODY, self._properties)
        rate = CONFIRMED / (time.perf_counter() - start)
        self._channel.queue_purge(self._queue)
        return rate

    def close(self):
        self._connection.close()


def measure(rounds, url=None):
    """Return the shares that are left of the bare client's rates, and those rates.

    Args:
        rounds: How often each is measured.
        url: Of a broker; one is started where there is none.
    """
    if url is None:
        with RabbitMq() as rabbitmq:
            return measure(rounds, rabbitmq.url)
    policy = Policy(name="bench", destinations=["rabbitmq:/bench.*"], keys=["main"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        keys = UnsafeLocalKeys.ephemeral()
    sealer = Sealer(sender="bench", policies=[policy], keys={"main": keys})
    bare, ours = Side(url), Side(url, sealer)
    rates = {name: ([], []) for name in ("publish", "consume", "confirmed")}
    for side in (bare, ours):
        for name in rates:
            getattr(side, name)()  # the first is to make keys and queues warm
    for at in range(rounds):
        for name, both in rates.items():
            pair = ((bare, both[0]), (ours, both[1]))
            for side, into in pair if at % 2 else reversed(pair):
                into.append(getattr(side, name)())
    bare.close()
    ours.close()
    figures = {}
    for name, (before, after) in rates.items():
        figures[f"rabbitmq.{name}"] = round(
            statistics.median(b / a for a, b in zip(before, after, strict=True)), 3
        )
        figures[f"rabbitmq.{name}.bare_per_s"] = round(statistics.median(before))
    return figures


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    arguments = parser.parse_args()
    figures = measure(arguments.rounds)
    if arguments.json:
        print(json.dumps(figures, indent=2))
        return
    for name, figure in figures.items():
        print(f"{name:30} {figure:>10,}")


if __name__ == "__main__":
    main()
