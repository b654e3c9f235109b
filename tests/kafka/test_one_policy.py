"""The program of examples/one_policy on the mock cluster."""

from __future__ import annotations

import uuid

from tests.one_policy import bare_and_protected


def test_a_program_runs_under_the_one_policy_file(cluster, make_topic, tmp_path):
    """A4: with no word of protection in it but the hook line."""

    def make():
        name = f"orders-{uuid.uuid4().hex[:12]}"
        make_topic(name)
        return name

    bare_and_protected("kafka", tmp_path, {"KAFKA_BOOTSTRAP_SERVERS": cluster}, make)
