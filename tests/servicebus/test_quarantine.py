"""``postseal quarantine`` on a Service Bus in this process."""

import pytest

from tests.quarantines import QuarantineContract


class TestServiceBus(QuarantineContract):
    @pytest.fixture
    def at(self, server):
        return ["--at", server.address]
