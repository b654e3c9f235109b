"""The four brokers as the fault matrix sees them: a line each, what breaks it, and where its files lie."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import pika
from azure.servicebus.exceptions import ServiceBusError
from botocore.exceptions import BotoCoreError, ClientError
from confluent_kafka import KafkaException
from pika.exceptions import AMQPError

from integration.kafka.conftest import topics_of
from integration.servers import AwsEmulator, Kafka, RabbitMq, Server, ServiceBus
from postseal.core import Sealer
from tests.contract import Line, Raw
from tests.kafka.lines import ClientLine as KafkaLine
from tests.rabbitmq.line import CallbackLine
from tests.servicebus.lines import QueueLine
from tests.sqs.line import ClientLine as SqsLine

S = TypeVar("S", bound=Server)


class Broker(ABC, Generic[S]):
    """A broker that is broken, and healed again.

    Args:
        server: It, running.
        hidden: Seconds for which a message is another's before it comes again, where the broker counts so.

    Attributes:
        errors: What its client raises while it is broken.
    """

    name: ClassVar[str]
    errors: ClassVar[tuple[type[Exception], ...]]

    def __init__(self, server: S, *, hidden: int = 30) -> None:
        self.server = server
        self.hidden = hidden

    @abstractmethod
    def line(self, address: str | None = None) -> Line:
        """Make a line to it, through the proxy at *address* if there is one."""

    def known(self, line: Line, place: str) -> None:
        """Have *line* know a place that another process made."""

    def most_at_once(self, wanted: int) -> int:
        """Return how many messages may be sent at once, where *wanted* are to be."""
        return wanted

    def send(self, line: Line, sealer: Sealer, place: str, bodies: list[bytes]) -> list[bytes]:
        """Send *bodies*, and return those that the broker has confirmed."""
        line.send_batch(sealer, place, line.batch(place, bodies))
        return bodies

    def kept(self, line: Line, place: str, count: int) -> list[Raw]:
        """Read what lies at *place*, where nobody else reads: *count* messages at least."""
        return line.held(place, count)

    @contextmanager
    def own(self) -> Iterator[Broker[S]]:
        """Give one that may be killed."""
        yield self

    @contextmanager
    def killed(self) -> Iterator[None]:
        """Have it killed meanwhile."""
        self.server.kill()
        try:
            yield
        finally:
            self.server.start()

    def files(self, *places: str) -> list[Path]:
        """List where messages of *places* may lie on its disk."""
        return [] if self.server.data_dir is None else [self.server.data_dir]


class OfKafka(Broker[Kafka]):
    name = "kafka"
    # That something was not sent in time is an assertion of the line's.
    errors = (KafkaException, AssertionError)

    def line(self, address: str | None = None) -> KafkaLine:
        return _KafkaLineAt(address or self.server.address, self.server, self.hidden)

    def send(self, line: Line, sealer: Sealer, place: str, bodies: list[bytes]) -> list[bytes]:
        """By delivery reports, of which each speaks of one message."""
        assert isinstance(line, KafkaLine)
        confirmed: list[bytes] = []
        producer = line.producer(sealer)
        for body in bodies:

            def report(error: Any, _: Any, body: bytes = body) -> None:
                if error is None:
                    confirmed.append(body)

            producer.produce(place, body, partition=0, on_delivery=report)
        producer.flush(60)
        return confirmed

    @contextmanager
    def own(self) -> Iterator[Broker[Kafka]]:
        with Kafka() as server:
            yield OfKafka(server, hidden=self.hidden)

    def files(self, *places: str) -> list[Path]:
        [folder] = super().files() or [None]
        return [] if folder is None else [path for place in places for path in folder.glob(f"logs/{place}-*")]


class _KafkaLineAt(KafkaLine):
    """What a killed consumer had is given to another when its session ends."""

    def __init__(self, address: str, server: Kafka, hidden: int) -> None:
        super().__init__(address, topics_of(server))
        self._hidden = hidden

    def consuming(self, place: str, **more: Any) -> dict[str, Any]:
        session = {"group.protocol": "classic", "session.timeout.ms": self._hidden * 1000}
        return super().consuming(place, **session, **more)


class OfRabbit(Broker[RabbitMq]):
    name = "rabbitmq"
    errors = (AMQPError, OSError)

    def line(self, address: str | None = None) -> CallbackLine:
        url = self.server.url if address is None else self.server.url_at(address)
        return CallbackLine(pika.URLParameters(url))

    def known(self, line: Line, place: str) -> None:
        assert isinstance(line, CallbackLine)
        line._queues[place] = place.partition("/")[2]

    @contextmanager
    def own(self) -> Iterator[Broker[RabbitMq]]:
        with RabbitMq() as server:
            yield OfRabbit(server, hidden=self.hidden)

    @contextmanager
    def killed(self) -> Iterator[None]:
        self.server.flush()
        with super().killed():
            yield


class OfSqs(Broker[AwsEmulator]):
    """Messages of the emulator lie in its memory: it is not killed, but away behind a proxy."""

    name = "sqs"
    errors = (BotoCoreError, ClientError)

    def most_at_once(self, wanted: int) -> int:
        """Ten in one call."""
        return min(wanted, 10)

    def line(self, address: str | None = None) -> SqsLine:
        return _SqsLineAt(self.server, address, self.hidden)

    def kept(self, line: Line, place: str, count: int) -> list[Raw]:
        """What was read is hidden, as the next is not given otherwise: it comes but once."""
        assert isinstance(line, SqsLine)
        url, found = line.url(place), list[Raw]()
        end = time.monotonic() + 60
        while len(found) < count:
            assert time.monotonic() < end, f"{place} holds {len(found)} of {count}"
            answer = line.bare.receive_message(
                QueueUrl=url, MaxNumberOfMessages=10, VisibilityTimeout=600, WaitTimeSeconds=1
            )
            found += [Raw(message["Body"].encode()) for message in answer.get("Messages", ())]
        return found


class _SqsLineAt(SqsLine):
    """The address of a queue leads to the server itself: whoever is to go through a proxy has that in its place."""

    def __init__(self, server: AwsEmulator, address: str | None, hidden: int) -> None:
        self._server = server
        self._endpoint = server.address if address is None else f"http://{address}"
        self._hidden = hidden
        super().__init__(lambda: server.sqs(self._endpoint))

    def place(self, **options: str) -> str:
        return super().place(**{"VisibilityTimeout": str(self._hidden), **options})

    def url(self, place: str) -> str:
        return super().url(place).replace(self._server.address, self._endpoint)


class OfServiceBus(Broker[ServiceBus]):
    """Messages of the test server lie in its memory: its connections are ended, and none is let in for a while."""

    name = "servicebus"
    errors = (ServiceBusError, OSError, AssertionError)

    def most_at_once(self, wanted: int) -> int:
        """So many go into one AMQP message with room to spare."""
        return min(wanted, 100)

    def line(self, address: str | None = None) -> QueueLine:
        return QueueLine(_At(self.server, address, self.hidden))

    @contextmanager
    def own(self) -> Iterator[Broker[ServiceBus]]:
        with ServiceBus() as server:
            yield OfServiceBus(server, hidden=self.hidden)

    @contextmanager
    def killed(self) -> Iterator[None]:
        self.server.outage(2)
        yield


class _At:
    """A Service Bus as it is met at another port."""

    def __init__(self, server: ServiceBus, address: str | None, hidden: int) -> None:
        self._server = server
        port = None if address is None else int(address.rpartition(":")[2])
        self.address = server.address if port is None else server.address_at(port)
        self._hidden = hidden

    def new_queue(self, **options: Any) -> str:
        return self._server.new_queue(
            **{"lock_duration": self._hidden, "max_delivery_count": 1000, **options}
        )

    def new_topic(self, *subscriptions: str, **options: Any) -> str:
        return self._server.new_topic(*subscriptions, **options)


KINDS: Mapping[str, type[Broker[Any]]] = {
    kind.name: kind for kind in (OfKafka, OfRabbit, OfSqs, OfServiceBus)
}
