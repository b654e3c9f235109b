"""What a ledger in Redis does, whether that is a real one or the stand-in of the fast tests; and that stand-in."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from postseal.core import ConfigError, LedgerUnavailable, RedisLedger, Verdict
from tests.core.kit import HERE, Party, policy

__all__ = ["AsyncStandIn", "RedisLedgerContract", "StandIn"]

BODY = b"4111 1111 1111 1111"


class StandIn:
    """As much of `redis.Redis` as a ledger needs.

    Attributes:
        away: Whether it does not answer.
    """

    def __init__(self) -> None:
        self.away = False
        self._values: dict[bytes, tuple[bytes, float]] = {}

    def _there(self) -> None:
        if self.away:
            raise RedisConnectionError("away")

    def get(self, key: bytes) -> bytes | None:
        self._there()
        value, ends = self._values.get(key, (None, 0.0))
        return value if time.time() < ends else None

    def set(self, key: bytes, value: bytes, *, ex: int, nx: bool) -> None:
        if not nx or self.get(key) is None:
            self._values[key] = (value, time.time() + ex)

    def delete(self, *keys: bytes) -> None:
        self._there()
        for key in keys:
            self._values.pop(key, None)

    def pipeline(self, *, transaction: bool) -> Pipeline:
        assert transaction
        return Pipeline(self)

    def ttl(self, key: bytes) -> float:
        return self._values[key][1] - time.time()

    def keys(self, pattern: str) -> list[bytes]:
        prefix = pattern.removesuffix("*").encode()
        return [key for key in self._values if key.startswith(prefix)]


class Pipeline:
    def __init__(self, redis: StandIn) -> None:
        self._redis = redis
        self._steps: list[tuple[bytes, bytes, int, bool]] = []

    def set(self, key: bytes, value: bytes, *, ex: int, nx: bool) -> None:
        self._steps.append((key, value, ex, nx))

    def execute(self) -> None:
        self._redis._there()
        for key, value, ex, nx in self._steps:
            self._redis.set(key, value, ex=ex, nx=nx)


class AsyncStandIn:
    """As much of `redis.asyncio.Redis`, on the same data."""

    def __init__(self, redis: StandIn) -> None:
        self._redis = redis

    async def get(self, key: bytes) -> bytes | None:
        await asyncio.sleep(0)
        return self._redis.get(key)

    async def delete(self, *keys: bytes) -> None:
        await asyncio.sleep(0)
        self._redis.delete(*keys)

    def pipeline(self, *, transaction: bool) -> Any:
        pipeline = self._redis.pipeline(transaction=transaction)
        execute = pipeline.execute

        async def later() -> None:
            await asyncio.sleep(0)
            execute()

        pipeline.execute = later  # type: ignore[method-assign] # awaited, as the real one's
        return pipeline


class RedisLedgerContract:
    """To be inherited with the fixtures ``client``, ``async_client`` (makes one, in its loop) and ``cut`` (has the server be away)."""

    @pytest.fixture
    def prefix(self) -> str:
        return f"test:{time.time_ns()}:"

    def here(self, prefix, client=None, **options):
        """Make a consumer; its policy is the same each time, and so are its keys."""
        ledger = RedisLedger(client, prefix=prefix, **options)
        return Party(policy(), ledger=ledger, keys=self.keys)

    @pytest.fixture(autouse=True)
    def _keys(self):
        from tests.core.kit import CountedKeys

        self.keys = CountedKeys()

    def test_processes_see_what_each_other_settled(self, client, prefix):
        one, two = self.here(prefix, client), self.here(prefix, client)
        envelope = one.seal(BODY, destination=HERE)
        opened = one.open(envelope, destination=HERE)
        assert two.open(envelope, destination=HERE).verdict is Verdict.OK
        assert two.open(envelope, destination=HERE).verdict is Verdict.REDELIVERY
        one.sealer.settled(opened)
        assert two.open(envelope, destination=HERE).verdict is Verdict.DUPLICATE
        one.sealer.unsettled(opened)
        assert two.open(envelope, destination=HERE).verdict is Verdict.REDELIVERY

    def test_the_first_that_was_settled_stays(self, client, prefix):
        """Else what conflicts with it could take its place."""
        ledger = RedisLedger(client, prefix=prefix)
        ledger.settle([(bytes(16), b"1" * 16, 60)])
        ledger.settle([(bytes(16), b"2" * 16, 60)])
        other = RedisLedger(client, prefix=prefix)
        assert other.meet((bytes(16), b"1" * 16, 60)) is Verdict.DUPLICATE
        assert other.meet((bytes(16), b"2" * 16, 60)) is Verdict.CONFLICT

    def test_keys_expire_with_their_message(self, client, prefix):
        ledger = RedisLedger(client, prefix=prefix)
        ledger.settle([(bytes(16), bytes(16), 60)])
        [key] = client.keys(f"{prefix}*")
        assert 50 < client.ttl(key) <= 60
        assert len(key) == len(prefix) + 16

    def test_prefixes_are_places_of_their_own(self, client, prefix):
        receipt = (bytes(16), bytes(16), 60)
        RedisLedger(client, prefix=prefix).settle([receipt])
        assert RedisLedger(client, prefix=f"{prefix}other:").meet(receipt) is Verdict.OK

    def test_the_loop_waits_for_an_asyncio_client(self, client, async_client, prefix):
        async def run():
            redis = async_client()
            here = self.here(prefix, async_client=redis)
            envelope = here.seal(BODY, destination=HERE)
            opened = await here.sealer.aopen(envelope, destination=HERE)
            assert opened.verdict is Verdict.OK
            await here.sealer.asettled(opened)
            there = self.here(prefix, async_client=redis)
            assert (await there.sealer.aopen(envelope, destination=HERE)).verdict is Verdict.DUPLICATE
            await here.sealer.aunsettled(opened)
            assert (await there.sealer.aopen(envelope, destination=HERE)).verdict is Verdict.OK
            with pytest.raises(ConfigError, match="has no client for code that is not asyncio's"):
                here.open(envelope, destination=HERE)
            if hasattr(redis, "aclose"):
                await redis.aclose()

        asyncio.run(run())

    def test_without_one_the_loop_has_a_thread_wait(self, client, prefix):
        async def run():
            here = self.here(prefix, client)
            envelope = here.seal(BODY, destination=HERE)
            opened = await here.sealer.aopen(envelope, destination=HERE)
            await here.sealer.asettled(opened)
            assert (await here.sealer.aopen(envelope, destination=HERE)).verdict is Verdict.DUPLICATE
            await here.sealer.aunsettled(opened)

        asyncio.run(run())

    def test_nothing_is_opened_where_the_loop_would_be_blocked(self, client, prefix):
        here = self.here(prefix, client)
        envelope = here.seal(BODY, destination=HERE)
        assert here.open(envelope, destination=HERE).verdict is Verdict.OK
        assert here.sealer.open_cached(envelope, destination=HERE) is None
        assert here.sealer.open_at_hand(HERE)(envelope) is None

    def test_a_server_that_is_away_keeps_the_message(self, client, async_client, prefix, cut):
        async def apart(here, envelope):
            redis = async_client()
            ledger = RedisLedger(async_client=redis, prefix=prefix)
            there = Party(policy(), ledger=ledger, keys=self.keys)
            with pytest.raises(LedgerUnavailable):
                await there.sealer.aopen(envelope, destination=HERE)
            for verb in (there.sealer.asettled, there.sealer.aunsettled):
                with pytest.raises(LedgerUnavailable):
                    await verb(opened)
            if hasattr(redis, "aclose"):
                await redis.aclose()

        here = self.here(prefix, client)
        envelope = here.seal(BODY, destination=HERE)
        opened = here.open(envelope, destination=HERE)
        lenient = self.here(prefix, client, on_failure="deliver")
        cut()
        for call in (
            lambda: here.open(envelope, destination=HERE),
            lambda: here.sealer.settled(opened),
            lambda: here.sealer.unsettled(opened),
        ):
            with pytest.raises(LedgerUnavailable):
                call()
        asyncio.run(apart(here, envelope))
        assert here.events == []
        assert lenient.open(envelope, destination=HERE).verdict is Verdict.OK
        lenient.sealer.settled(opened)
        assert lenient.open(envelope, destination=HERE).verdict is Verdict.DUPLICATE
        assert lenient.sealer.ledger.unasked == 3

    def test_without_a_client_there_is_no_ledger(self):
        with pytest.raises(ConfigError, match="needs a client, an async_client or both"):
            RedisLedger()
