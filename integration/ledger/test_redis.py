"""A ledger in a real Redis."""

import pytest
import redis.asyncio

from integration.servers import Redis
from postseal.core import LedgerUnavailable, RedisLedger
from tests.core.redis_ledger import RedisLedgerContract


@pytest.fixture
def server():
    with Redis() as server:
        yield server


class TestRedis(RedisLedgerContract):
    @pytest.fixture
    def client(self, server):
        client = server.client()
        yield client
        client.close()

    @pytest.fixture
    def async_client(self, server):
        return lambda: redis.asyncio.Redis.from_url(server.address, socket_connect_timeout=2)

    @pytest.fixture
    def cut(self, server):
        return server.kill

    def test_a_server_that_is_full_keeps_the_message(self, client, prefix):
        client.config_set("maxmemory", "1")
        with pytest.raises(LedgerUnavailable, match="OutOfMemory"):
            RedisLedger(client, prefix=prefix).settle([(bytes(16), bytes(16), 60)])
