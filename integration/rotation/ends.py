"""The sending ends of the rotation: one client for the whole run, so that it has to follow what the policy file says now."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pika

from integration.faults.brokers import Broker, OfKafka, OfRabbit, OfServiceBus, OfSqs
from postseal.core import Sealer
from tests.contract import Line

__all__ = ["BATCH", "Send", "sending"]

BATCH = 10
"""Messages in one call: as many as SQS takes."""

Send = Callable[[Sequence[bytes]], None]
"""Sends up to `BATCH` bodies, and returns when the broker has all of them."""


@contextmanager
def sending(broker: Broker[Any], line: Line, sealer: Sealer, place: str) -> Iterator[Send]:
    """Give what sends to *place*, through the adapter."""
    end = _ENDS[type(broker)]
    with end(line, sealer, place) as send:
        yield send


@contextmanager
def _kafka(line: Any, sealer: Sealer, place: str) -> Iterator[Send]:
    producer = line.producer(sealer)

    def send(bodies: Sequence[bytes]) -> None:
        failed: list[Any] = []
        for body in bodies:
            producer.produce(
                place, body, partition=0, on_delivery=lambda error, _: error is None or failed.append(error)
            )
        assert producer.flush(60) == 0
        assert failed == []

    yield send


@contextmanager
def _rabbitmq(line: Any, sealer: Sealer, place: str) -> Iterator[Send]:
    exchange, _, routing_key = place.partition("/")
    with line.connect(sealer) as connection:
        channel = connection.channel()
        channel.confirm_delivery()

        def send(bodies: Sequence[bytes]) -> None:
            for body in bodies:
                channel.basic_publish(exchange, routing_key, body, pika.BasicProperties(delivery_mode=2))

        yield send


@contextmanager
def _sqs(line: Any, sealer: Sealer, place: str) -> Iterator[Send]:
    client, url = line.protected(sealer), line.url(place)

    def send(bodies: Sequence[bytes]) -> None:
        answer = client.send_message_batch(QueueUrl=url, Entries=line.batch(place, list(bodies)))
        assert len(answer["Successful"]) == len(bodies)

    yield send


@contextmanager
def _servicebus(line: Any, sealer: Sealer, place: str) -> Iterator[Send]:
    with line.sender(line.client(sealer), place) as sender:
        yield lambda bodies: sender.send_messages(line.batch(place, list(bodies)))


_ENDS = {OfKafka: _kafka, OfRabbit: _rabbitmq, OfSqs: _sqs, OfServiceBus: _servicebus}
