"""What protection costs a RabbitMQ client: messages per second of one blocking connection of pika, bare and protected, with a real broker.

    python bench/rabbitmq.py [--json] [--rounds N]

The broker is one of `integration/servers`, or that at POSTSEAL_TEST_RABBITMQ. Bare and protected take turns; each figure is the median of
the ratios of the rounds. 1 KiB bodies, confidentiality, one queue, nothing persistent. Beside each share of the rate stands, as `.cpu`,
that of the client's own processor time: the broker and other programs disturb it less, and it is what a client is left with that need not
wait for its broker.

A protected connection sends the frames of a message in one piece. What it would be without that stands as `.apart`, and what a bare one
would be with it as `.bare_joined`, both as shares of what a bare one is.
"""

import argparse
import gc
import json
import statistics
import sys
import time
import uuid
import warnings
from pathlib import Path

import pika

from postseal.core import Policy, Sealer, UnsafeLocalKeys
from postseal.core.accelerator import native
from postseal.rabbitmq import protect
from postseal.rabbitmq._frames import join_frames, part_frames

sys.path.insert(0, str(Path(__file__).parents[1]))

from integration.servers import RabbitMq

BODY = b"x" * 1024
ROUNDS = 9
MESSAGES = 3000
CONFIRMED = 500


class Side:
    """A connection and its queue: bare, or protected; and either with the frames of a message joined, or not."""

    def __init__(self, url, sealer=None, *, joined):
        self._connection = pika.BlockingConnection(pika.URLParameters(url))
        if sealer is not None:
            protect(self._connection, sealer)
        part_frames(self._connection._impl)
        if joined:
            join_frames(self._connection._impl)
        self._queue = f"bench.{uuid.uuid4().hex}"
        self._channel = self._connection.channel()
        self._channel.queue_declare(self._queue, exclusive=True)
        self._confirming = self._connection.channel()
        self._confirming.confirm_delivery()
        self._properties = pika.BasicProperties(content_type="application/json")

    def timed(self, name):
        """Do *name* once; return its messages per second, and per second of this thread's processor time."""
        gc.collect()
        start, cpu = time.perf_counter(), time.thread_time()
        done = getattr(self, name)()
        return done / (time.perf_counter() - start), done / (time.thread_time() - cpu)

    def publish(self):
        """Publish without confirms; the broker has all when it answers the call behind."""
        for _ in range(MESSAGES):
            self._channel.basic_publish("", self._queue, BODY, self._properties)
        self._channel.queue_declare(self._queue, passive=True)
        return MESSAGES

    def consume(self):
        """Consume what `publish` left, with a callback and without acknowledgements: nothing is cheaper."""
        came = 0

        def on_message(channel, method, properties, body):
            nonlocal came
            came += 1

        tag = self._channel.basic_consume(self._queue, on_message, auto_ack=True)
        while came < MESSAGES:
            self._connection.process_data_events(None)
        self._channel.basic_cancel(tag)
        return MESSAGES

    def confirmed(self):
        """Publish, waiting for each to be confirmed."""
        for _ in range(CONFIRMED):
            self._confirming.basic_publish("", self._queue, BODY, self._properties)
        self._channel.queue_purge(self._queue)
        return CONFIRMED

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
    sides = {
        "bare": Side(url, joined=False),
        "": Side(url, sealer, joined=True),
        ".apart": Side(url, sealer, joined=False),
        ".bare_joined": Side(url, joined=True),
    }
    names = ("publish", "consume", "confirmed")
    rates = {name: {which: [] for which in sides} for name in names}
    for side in sides.values():
        for name in names:
            getattr(side, name)()  # the first is to make keys and queues warm
    order = list(sides)
    for _ in range(rounds):
        for name in names:
            for which in order:
                if name != "consume" or not which.startswith("."):
                    rates[name][which].append(sides[which].timed(name))
                else:
                    sides[which].consume()
        order.reverse()
    for side in sides.values():
        side.close()
    return _shares(rates)


def _shares(rates):
    """Return what is left of the bare client's rates in the median of all rounds, and those rates."""
    figures = {}
    for name, of_sides in rates.items():
        before = of_sides.pop("bare")
        for which, after in of_sides.items():
            for at, what in enumerate(("", ".cpu") if after else ()):
                shares = (b[at] / a[at] for a, b in zip(before, after, strict=True))
                figures[f"rabbitmq.{name}{which}{what}"] = round(statistics.median(shares), 3)
        figures[f"rabbitmq.{name}.bare_per_s"] = round(statistics.median(rate for rate, _ in before))
    return figures


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    arguments = parser.parse_args()
    figures = measure(arguments.rounds)
    if arguments.json:
        print(json.dumps({"accelerator": native() is not None, **figures}, indent=2))
        return
    for name, figure in figures.items():
        print(f"{name:30} {figure:>10,}")


if __name__ == "__main__":
    main()
