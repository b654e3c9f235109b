"""A Service Bus in this process: the test server, on a thread."""

import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from integration.servers.servicebus import ServiceBusTestServer
from tests.contract import World
from tests.servicebus.ends import Ends
from tests.servicebus.lines import QueueLine
from tests.servicebus.naps import short_naps


class InThread(ServiceBusTestServer):
    """The test server, with the words of the one in a process of its own."""

    @property
    def address(self) -> str:
        return self.connection_string

    def new_queue(self, **options: Any) -> str:
        return self.create_queue(f"queue-{uuid.uuid4().hex[:12]}", **options)

    def new_topic(self, *subscriptions: str, **options: Any) -> str:
        topic = self.create_topic(f"topic-{uuid.uuid4().hex[:12]}")
        for name in subscriptions:
            self.create_subscription(topic, name, **options)
        return topic


@pytest.fixture(scope="session")
def server() -> Iterator[InThread]:
    with short_naps(), InThread() as server:
        yield server


@pytest.fixture
def line(server: InThread) -> Iterator[QueueLine]:
    yield from closing(QueueLine(server))


@pytest.fixture
def world(line: QueueLine) -> World:
    return World(line)


def closing(line: QueueLine) -> Iterator[QueueLine]:
    """Hand out *line*, then close it."""
    yield line
    line.close()


@pytest.fixture(params=["blocking", "asyncio"])
def ends(server: InThread, request: pytest.FixtureRequest) -> Iterator[Ends]:
    """Clients, blocking and of asyncio in turn."""
    ends = Ends(server, request.param)
    yield ends
    ends.close()


@pytest.fixture
def queue(server: InThread) -> str:
    """A queue that nobody used before."""
    return server.new_queue()
