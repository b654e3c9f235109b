"""The programs of examples/clients/rabbitmq for aio-pika, on RabbitMQ: bare, then with the one line changed; they see the same."""

import asyncio

import pytest

from tests.rabbitmq.aio_pika_examples import ONLY_REAL, PROGRAMS, compare


@pytest.mark.parametrize("program", [*PROGRAMS, *ONLY_REAL])
def test_a_program_sees_the_same(rabbitmq, program):
    asyncio.run(asyncio.wait_for(compare(rabbitmq.url, program), 60))
