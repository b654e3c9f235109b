"""Whatever breaks: no message lost, none handled that was not verified, none in clear on a disk, none twice but by the broker.

    POSTSEAL_FAULT_MESSAGES=100000 .venv/bin/pytest integration/faults

sends so many through each case; without it, as many as a case needs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from integration.faults.brokers import KINDS, Broker, OfKafka, OfRabbit, OfServiceBus, OfSqs
from integration.faults.case import COUNT, PER_KEY, Case, KeyService
from integration.faults.faults import DURING, FAULTS, BrokerKilled, Fault
from integration.proxy import HttpProxy, TcpProxy
from tests.servicebus.naps import short_naps

SECONDS = 120 + COUNT / 50
"""After which a case is given up. It only ends what would fail anyway."""

pytestmark = [
    pytest.mark.timeout(600 + COUNT / 10, func_only=True),
    # Clients whose connection was broken leave sockets for the collector.
    pytest.mark.filterwarnings(
        "ignore:unclosed:ResourceWarning", "ignore:.*unclosed:pytest.PytestUnraisableExceptionWarning"
    ),
]


@pytest.fixture(scope="session", autouse=True)
def _naps() -> Iterator[None]:
    with short_naps():
        yield


@pytest.fixture(params=KINDS)
def broker(
    request: pytest.FixtureRequest, kafka: Any, rabbitmq: Any, aws: Any, servicebus: Any
) -> Broker[Any]:
    """Each of the four."""
    servers = {"kafka": kafka, "rabbitmq": rabbitmq, "sqs": aws, "servicebus": servicebus}
    return KINDS[request.param](servers[request.param])


@pytest.fixture
def keys(aws: Any) -> Iterator[KeyService]:
    """A key service behind a proxy."""
    with HttpProxy(aws.address) as proxy:
        yield KeyService(aws, proxy)


@pytest.fixture(params=FAULTS, ids=lambda kind: kind.__name__)
def fault(request: pytest.FixtureRequest, tmp_path: Path, openbao: Any) -> Fault:
    """Each row of the matrix."""
    return request.param(tmp_path, openbao)


@pytest.fixture
def case(broker: Broker[Any], keys: KeyService, fault: Fault) -> Iterator[Case]:
    """The cell, not yet begun."""
    broker.hidden = fault.hidden
    with ExitStack() as stack:
        if fault.own_broker and _needs_its_own(broker, fault):
            broker = stack.enter_context(broker.own())
        address = None
        if fault.through_proxy or (isinstance(fault, BrokerKilled) and isinstance(broker, OfSqs)):
            fault.proxy = stack.enter_context(TcpProxy(broker.server.route))
            address = fault.proxy.address
        case = Case(
            broker,
            keys,
            count=max(min(COUNT, fault.most), 3 * DURING),
            address=address,
            policy=fault.policy,
            dead_letters=fault.dead_letters,
            patience=fault.patience,
        )
        yield case
        case.stop()


def _needs_its_own(broker: Broker[Any], fault: Fault) -> bool:
    """Kafka names one port to clients that a proxy leads to it; others stand behind any."""
    return isinstance(broker, OfKafka) or (
        isinstance(broker, OfRabbit | OfServiceBus) and not fault.through_proxy
    )


def test_nothing_is_lost_and_nothing_unverified_is_handled(case: Case, fault: Fault) -> None:
    """A1, A9, B12, B14, E5, E6: confirmed to the producer less handled is none."""
    fault.prepare(case)
    case.produce(2 * PER_KEY)
    case.forge()
    fault.before(case)
    if not fault.starts_late:
        case.start()
        case.wait(lambda: not case.missing, "before anything broke", SECONDS)
    fault.strike(case)
    if fault.starts_late:
        case.start()
    fault.during(case)
    fault.heal(case)
    case.produce_rest(SECONDS)
    if fault.redrives:
        case.redrive(SECONDS)
    case.wait(lambda: not case.missing and len(case.events) >= len(case.forged), "in the end", SECONDS)
    fault.after(case)
    case.stop()
    case.check()
