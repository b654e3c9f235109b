"""The programs of examples/clients/kafka on a real broker: bare, then with the one line changed; they see the same."""

from __future__ import annotations

import pytest

from tests.kafka.examples import PROGRAMS, compare
from tests.kafka.lines import ClientLine


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_sees_the_same(kafka, make_topic, name):
    compare(name, ClientLine(kafka.address, make_topic), make_topic)
