"""The program of examples/one_policy on the test server."""

from __future__ import annotations

from tests.one_policy import bare_and_protected


def test_a_program_runs_under_the_one_policy_file(server, tmp_path):
    """A4: with no word of protection in it but the hook line."""
    bare_and_protected(
        "servicebus",
        tmp_path,
        {"SERVICEBUS_CONNECTION_STRING": server.address},
        server.new_queue,
        lambda name: f"servicebus:{name}",
    )
