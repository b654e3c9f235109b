"""The program of examples/one_policy on moto."""

from __future__ import annotations

import uuid

from tests.one_policy import bare_and_protected


def test_a_program_runs_under_the_one_policy_file(moto_address, tmp_path):
    """A4: with no word of protection in it but the hook line."""
    environment = {
        "AWS_ENDPOINT_URL": moto_address,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "eu-west-1",
    }
    bare_and_protected("sqs", tmp_path, environment, lambda: f"orders-{uuid.uuid4().hex[:12]}")
