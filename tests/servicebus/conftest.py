"""A Service Bus in this process: the test server, on a thread."""

from collections.abc import Iterator

import pytest

from integration.servers.servicebus import ServiceBusTestServer
from tests.contract import World
from tests.servicebus.lines import QueueLine
from tests.servicebus.naps import short_naps


@pytest.fixture(scope="session")
def server() -> Iterator[ServiceBusTestServer]:
    with short_naps(), ServiceBusTestServer() as server:
        yield server


@pytest.fixture
def line(server: ServiceBusTestServer) -> Iterator[QueueLine]:
    yield from closing(QueueLine(server))


@pytest.fixture
def world(line: QueueLine) -> World:
    return World(line)


def closing(line: QueueLine) -> Iterator[QueueLine]:
    """Hand out *line*, then close it."""
    yield line
    line.close()
