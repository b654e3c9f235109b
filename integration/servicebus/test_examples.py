"""The client's own expectations, on a Service Bus in a process of its own: sealing is invisible to correct code."""

import pytest

from tests.servicebus.client_examples import TOPICS, bare_and_protected


@pytest.mark.parametrize("topic", TOPICS)
def test_a_program_sees_no_difference(servicebus, topic):
    bare, protected, sealed = bare_and_protected(servicebus, topic)
    assert bare
    assert protected == bare
    assert sealed
