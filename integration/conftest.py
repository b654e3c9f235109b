"""Servers for the tests, started once, side by side, when the first test asks for one."""

import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from integration.servers import (
    AwsEmulator,
    Kafka,
    KeyVault,
    OpenBao,
    RabbitMq,
    Server,
    ServerUnavailable,
    ServiceBus,
    start_all,
    stop_all,
)

_KINDS: dict[str, Callable[[], Server]] = {
    "kafka": Kafka,
    "aws": AwsEmulator,
    "rabbitmq": RabbitMq,
    "servicebus": ServiceBus,
    "key_vault": KeyVault,
    "openbao": OpenBao,
}
_HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the time limit count a test alone, not the installation of its servers."""
    for item in items:
        if _HERE in item.path.parents and item.get_closest_marker("timeout") is None:
            # A busy machine takes its time over what a server does in seconds.
            item.add_marker(pytest.mark.timeout(600, func_only=True))


@pytest.fixture(scope="session")
def servers(request: pytest.FixtureRequest) -> Iterator[dict[str, Server | Exception]]:
    """All servers that the chosen tests name: each running, or why it does not."""
    asked = {name for item in request.session.items for name in getattr(item, "fixturenames", ())}
    wanted = [kind() for name, kind in _KINDS.items() if name in asked]
    capture = request.config.pluginmanager.getplugin("capturemanager")
    # Installing takes minutes: its progress is shown as it comes.
    with capture.global_and_fixture_disabled():
        failed = start_all(wanted)
    yield {server.name: failed.get(server.name, server) for server in wanted}
    stop_all(wanted)


@pytest.fixture(scope="session")
def kafka(servers: dict[str, Server | Exception]) -> Kafka:
    """A Kafka broker at `kafka.address`."""
    server = _running(servers["kafka"])
    assert isinstance(server, Kafka)
    return server


@pytest.fixture(scope="session")
def rabbitmq(servers: dict[str, Server | Exception]) -> RabbitMq:
    """A RabbitMQ broker at `rabbitmq.url`."""
    server = _running(servers["rabbitmq"])
    assert isinstance(server, RabbitMq)
    return server


@pytest.fixture(scope="session")
def aws(servers: dict[str, Server | Exception]) -> AwsEmulator:
    """SQS and KMS at `aws.address`; `aws.sqs()` and `aws.kms()` make clients."""
    server = _running(servers["aws"])
    assert isinstance(server, AwsEmulator)
    return server


@pytest.fixture(scope="session")
def sqs(aws: AwsEmulator):
    """An SQS client."""
    with closing(aws.sqs()) as client:
        yield client


@pytest.fixture(scope="session")
def kms(aws: AwsEmulator):
    """A KMS client."""
    with closing(aws.kms()) as client:
        yield client


@pytest.fixture(scope="session")
def servicebus(servers: dict[str, Server | Exception]) -> ServiceBus:
    """Service Bus at `servicebus.address`, a connection string; `servicebus.new_queue()` makes queues."""
    server = _running(servers["servicebus"])
    assert isinstance(server, ServiceBus)
    return server


@pytest.fixture(scope="session")
def key_vault(servers: dict[str, Server | Exception]) -> KeyVault:
    """A key vault at `key_vault.address`; `key_vault.client()` makes clients."""
    server = _running(servers["key_vault"])
    assert isinstance(server, KeyVault)
    return server


@pytest.fixture(scope="session")
def openbao(servers: dict[str, Server | Exception]) -> OpenBao:
    """A vault with a transit engine at `openbao.address`; `openbao.client()` makes clients."""
    server = _running(servers["openbao"])
    assert isinstance(server, OpenBao)
    return server


@pytest.fixture
def fresh() -> Callable[[str], str]:
    """Make names that no other test and no earlier run has used: `fresh("orders")`."""
    return lambda name: f"{name}-{uuid.uuid4().hex[:12]}"


def _running(server: Server | Exception) -> Server:
    if isinstance(server, ServerUnavailable) and os.environ.get("CI") != "true":
        pytest.skip(str(server))
    if isinstance(server, Exception):
        raise server
    return server
