"""A Service Bus in this process: the test server, on a thread."""

import uuid
from collections.abc import Iterator

import pytest

from integration.servers.servicebus import ServiceBusTestServer
from tests.contract import World
from tests.servicebus.ends import Ends
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


@pytest.fixture(params=["blocking", "asyncio"])
def ends(server: ServiceBusTestServer, request: pytest.FixtureRequest) -> Iterator[Ends]:
    """Clients, blocking and of asyncio in turn."""
    ends = Ends(server, request.param)
    yield ends
    ends.close()


@pytest.fixture
def queue(server: ServiceBusTestServer) -> str:
    """A queue that nobody used before."""
    return server.create_queue(f"orders-{uuid.uuid4().hex[:12]}")
