"""The clients' own expectations, on a real broker: sealing is invisible to correct code."""

import pika
import pytest
from pika.adapters.asyncio_connection import AsyncioConnection

from tests.rabbitmq.client_examples import BLOCKING, bare_and_protected


@pytest.mark.parametrize("topic", BLOCKING)
def test_a_blocking_program_sees_no_difference(rabbitmq, fresh, topic):
    parameters = pika.URLParameters(rabbitmq.url)
    bare, protected, sealer = bare_and_protected(
        topic,
        lambda: pika.BlockingConnection(parameters),
        fresh(topic),
        lambda connection: connection.close(),
    )
    assert bare == protected
    assert bare
    assert sealer._outgoing  # it did seal


@pytest.mark.parametrize("adapter", [pika.SelectConnection, AsyncioConnection])
@pytest.mark.filterwarnings("ignore:There is no current event loop:DeprecationWarning")
def test_an_asynchronous_program_sees_no_difference(rabbitmq, fresh, adapter):
    parameters = pika.URLParameters(rabbitmq.url)
    bare, protected, sealer = bare_and_protected(
        "asynchronous", lambda: adapter(parameters), fresh("asynchronous"), lambda _: None
    )
    assert bare == protected
    assert sealer._outgoing
