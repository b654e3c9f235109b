"""The program of examples/one_policy on the broker in this process."""

from __future__ import annotations

import uuid

from tests.one_policy import bare_and_protected


def test_a_program_runs_under_the_one_policy_file(broker, tmp_path):
    """A4: with no word of protection in it but the hook line."""
    url = f"amqp://guest:guest@127.0.0.1:{broker.port}"
    bare_and_protected("rabbitmq", tmp_path, {"RABBITMQ_URL": url}, lambda: f"orders-{uuid.uuid4().hex[:12]}")
