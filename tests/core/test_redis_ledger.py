"""A ledger in Redis, on a stand-in that passes the same suite as the real one in integration/."""

import pytest

from tests.core.redis_ledger import AsyncStandIn, RedisLedgerContract, StandIn


class TestStandIn(RedisLedgerContract):
    @pytest.fixture
    def client(self):
        return StandIn()

    @pytest.fixture
    def async_client(self, client):
        return lambda: AsyncStandIn(client)

    @pytest.fixture
    def cut(self, client):
        def cut():
            client.away = True

        return cut
