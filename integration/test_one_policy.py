"""The four programs of examples/one_policy under the one policy file, on real brokers: bare, then with their hook line; they see the same."""

from __future__ import annotations

import pytest

from integration.servers import REGION
from postseal.core.config import PolicyFile
from tests.one_policy import EXAMPLES, bare_and_protected

PROGRAMS = ("kafka", "rabbitmq", "servicebus", "sqs")


def test_every_program_is_run():
    assert sorted(path.stem for path in (EXAMPLES / "one_policy").glob("*.py")) == list(PROGRAMS)
    assert PolicyFile.read(EXAMPLES / "postseal.toml").warnings == ()


@pytest.mark.parametrize("program", ["kafka", "rabbitmq", "sqs"])
def test_a_program_runs_under_the_one_policy_file(program, fresh, tmp_path, request):
    """A4, A6: with no word of protection in it but the hook line."""
    if program == "kafka":
        environment = {"KAFKA_BOOTSTRAP_SERVERS": request.getfixturevalue("kafka").address}
    elif program == "rabbitmq":
        environment = {"RABBITMQ_URL": request.getfixturevalue("rabbitmq").url}
    else:
        environment = {
            "AWS_ENDPOINT_URL": request.getfixturevalue("aws").address,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": REGION,
        }
    bare_and_protected(program, tmp_path, environment, lambda: fresh("orders"))


def test_the_program_of_service_bus_runs_under_the_one_policy_file(servicebus, tmp_path):
    """A4, A6."""
    bare_and_protected(
        "servicebus",
        tmp_path,
        {"SERVICEBUS_CONNECTION_STRING": servicebus.address},
        servicebus.new_queue,
        lambda name: f"servicebus:{name}",
    )
