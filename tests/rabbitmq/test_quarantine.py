"""``postseal quarantine`` on a RabbitMQ in this process."""

import pytest

from postseal.core.cli._app import run
from tests.quarantines import QuarantineContract


class TestRabbitMq(QuarantineContract):
    @pytest.fixture
    def at(self, broker):
        return ["--at", f"amqp://guest:guest@127.0.0.1:{broker.port}/%2F"]

    def test_a_queue_is_what_it_is_named_by(self, at, capsys):
        assert run(["quarantine", "list", "rabbitmq:shop/refused", *at]) == 2
        assert "rabbitmq:/refused" in capsys.readouterr().err
