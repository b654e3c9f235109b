"""Servers for the tests: each started once, side by side, whether one process tests or several of pytest-xdist."""

import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

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
)
from integration.servers.shared import KINDS, Borrower, Lender, Servers, lend

_HERE = Path(__file__).parent
_LENDER = pytest.StashKey[Lender]()
_LENT = pytest.StashKey[tuple[str, bytes]]()


def pytest_configure(config: pytest.Config) -> None:
    """Have servers of our own, or borrow from the process that started this one."""
    lent = getattr(config, "workerinput", {}).get("servers")
    config.stash[_LENDER] = Servers() if lent is None else Borrower(*lent)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a process that will test where it can borrow servers."""
    stash, servers = node.config.stash, node.config.stash[_LENDER]
    if _LENT not in stash:
        stash[_LENT] = lend(servers)
        # This process runs no test of its own: what it says is how servers are installed, and is shown as it comes.
        node.config.pluginmanager.getplugin("capturemanager").suspend_global_capture()
    node.workerinput["servers"] = stash[_LENT]


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop the servers that are ours."""
    servers = config.stash[_LENDER]
    if isinstance(servers, Servers):
        servers.stop()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the time limit count a test alone, not the installation of its servers."""
    for item in items:
        if _HERE in item.path.parents and item.get_closest_marker("timeout") is None:
            # A busy machine takes its time over what a server does in seconds.
            item.add_marker(pytest.mark.timeout(600, func_only=True))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Have all servers start that the chosen tests name: they come up while other tests run."""
    asked = {name for item in session.items for name in getattr(item, "fixturenames", ())}
    if not session.config.option.collectonly:
        session.config.stash[_LENDER].begin(asked & KINDS.keys())


@pytest.fixture(scope="session")
def borrow(request: pytest.FixtureRequest) -> Callable[[str], Server]:
    """Give a server by its name, when it answers."""
    capture = request.config.pluginmanager.getplugin("capturemanager")

    def borrowed(name: str) -> Server:
        try:
            # Installing takes minutes: its progress is shown as it comes.
            with capture.global_and_fixture_disabled():
                return request.config.stash[_LENDER].borrow(name)
        except ServerUnavailable as error:
            if os.environ.get("CI") == "true":
                raise
            pytest.skip(str(error))

    return borrowed


@pytest.fixture(scope="session")
def kafka(borrow: Callable[[str], Server]) -> Server:
    """A Kafka broker at `kafka.address`."""
    return borrow(Kafka.name)


@pytest.fixture
def own_kafka(kafka: Kafka) -> Iterator[Kafka]:
    """A Kafka broker of this test alone: it may stand still while its memory is looked through."""
    with Kafka() as own:
        yield own


@pytest.fixture(scope="session")
def rabbitmq(borrow: Callable[[str], Server]) -> Server:
    """A RabbitMQ broker at `rabbitmq.url`."""
    return borrow(RabbitMq.name)


@pytest.fixture(scope="session")
def aws(borrow: Callable[[str], Server]) -> Server:
    """SQS and KMS at `aws.address`; `aws.sqs()` and `aws.kms()` make clients."""
    return borrow(AwsEmulator.name)


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
def servicebus(borrow: Callable[[str], Server]) -> Server:
    """Service Bus at `servicebus.address`, a connection string; `servicebus.new_queue()` makes queues."""
    return borrow(ServiceBus.name)


@pytest.fixture(scope="session")
def key_vault(borrow: Callable[[str], Server]) -> Server:
    """A key vault at `key_vault.address`; `key_vault.client()` makes clients."""
    return borrow(KeyVault.name)


@pytest.fixture(scope="session")
def openbao(borrow: Callable[[str], Server]) -> Server:
    """A vault with a transit engine at `openbao.address`; `openbao.client()` makes clients."""
    return borrow(OpenBao.name)


@pytest.fixture
def fresh() -> Callable[[str], str]:
    """Make names that no other test and no earlier run has used: `fresh("orders")`."""
    return lambda name: f"{name}-{uuid.uuid4().hex[:12]}"
