"""A ledger in Redis, which processes of several machines share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, Self

from postseal.core.errors import ConfigError, LedgerUnavailable, MissingExtraError, Verdict
from postseal.core.findings import Finding, bad, good, warning
from postseal.core.replay._ledger import LedgerFailure, Receipt, StoredLedger

try:
    from redis import Redis
    from redis.exceptions import RedisError
except ImportError as _missing:
    raise MissingExtraError.naming("redis", "postseal.core.RedisLedger", _missing) from _missing

__all__ = ["RedisLedger"]

_KEEPS: Final = frozenset({"noeviction", "volatile-ttl"})
"""What Redis may do when its memory is full without forgetting what may still be copied."""


class RedisLedger(StoredLedger):
    """Keeps settled messages in Redis: one key each, which Redis lets expire.

    What Redis does at its memory limit is Redis's to say: with ``noeviction`` settling fails, and with that waits; with
    ``volatile-ttl`` those go first that would expire first.

    Args:
        client: A `redis.Redis`. Give it timeouts of its own: ``socket_timeout=1, socket_connect_timeout=1``.
        async_client: A `redis.asyncio.Redis` for asyncio's clients; without it, they call *client* in threads.
        prefix: Begins every key. Consumers that each are to get every message need one each.
        max_age: As in `MemoryLedger`.
        on_failure: ``"keep"`` or ``"deliver"``; see `StoredLedger`.
        max_seen: Messages of this process that are remembered in memory as seen.
        clock: Seconds since the epoch.

    Raises:
        ConfigError: An option is wrong, or there is no client.
    """

    waits = True

    def __init__(
        self,
        client: Any = None,
        *,
        async_client: Any = None,
        prefix: str = "postseal:ledger:",
        max_age: float = 14 * 86400.0,
        on_failure: LedgerFailure = "keep",
        max_seen: int = 65_536,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(max_age=max_age, on_failure=on_failure, max_seen=max_seen, clock=clock)
        if client is None and async_client is None:
            raise ConfigError("a RedisLedger needs a client, an async_client or both")
        self._client = client
        self._async = async_client
        self._prefix = prefix.encode()

    def examine(self) -> Iterator[Finding]:
        """Ask the server whether it is there, and what it does when its memory is full. Settles nothing."""
        try:
            client = self._sync()
            client.ping()
            memory = client.info("memory")
        except (RedisError, OSError, ConfigError) as error:
            yield bad(f"no answer ({type(error).__name__})", "look at its address, password, TLS and network")
            return
        yield good("it answers")
        policy = str(memory.get("maxmemory_policy", "noeviction"))
        if policy not in _KEEPS and memory.get("maxmemory"):
            yield warning(
                f"when its memory is full it forgets messages that may still be copied: maxmemory-policy {policy}",
                "maxmemory-policy noeviction, or volatile-ttl, and enough memory",
            )

    @classmethod
    def from_url(cls, url: str | bytes, *, timeout: float, **options: Any) -> Self:
        """Make a ledger in the Redis at *url*; that asks nobody.

        It has no asyncio client, which would be one event loop's: in asyncio, a thread asks.

        Args:
            url: Like ``redis://host:6379/0``.
            timeout: Seconds for a connection, and for an answer.
            **options: As for the class.

        Raises:
            ConfigError: *url* is none of Redis.
        """
        address = url if isinstance(url, str) else url.decode()
        try:
            client = Redis.from_url(address, socket_timeout=timeout, socket_connect_timeout=timeout)
        except ValueError:  # its text quotes the url, and that may have a password
            raise ConfigError("no address of Redis like redis://host:6379/0") from None
        return cls(client, **options)

    def _sync(self) -> Any:
        if self._client is None:
            raise ConfigError(
                "this RedisLedger has no client for code that is not asyncio's: give it client=redis.Redis(...)"
            )
        return self._client

    def _find(self, message: bytes) -> bytes | None:
        try:
            found: bytes | None = self._sync().get(self._prefix + message)
        except (RedisError, OSError) as error:
            raise _unavailable(error) from error
        return found

    def _write(self, receipts: Sequence[Receipt]) -> None:
        try:
            self._adding(self._sync(), receipts).execute()
        except (RedisError, OSError) as error:
            raise _unavailable(error) from error

    def _erase(self, receipts: Sequence[Receipt]) -> None:
        try:
            self._sync().delete(*(self._prefix + receipt[0] for receipt in receipts))
        except (RedisError, OSError) as error:
            raise _unavailable(error) from error

    async def ameet(self, receipt: Receipt) -> Verdict:
        """Like `meet`, without blocking the loop."""
        if self._async is None:
            return await asyncio.to_thread(self.meet, receipt)
        try:
            known = await self._async.get(self._prefix + receipt[0])
        except (RedisError, OSError) as error:
            self._pass(_unavailable(error))
            known = None
        return self._judge(receipt, known)

    async def asettle(self, receipts: Sequence[Receipt]) -> None:
        """Like `settle`, without blocking the loop."""
        if self._async is None:
            await asyncio.to_thread(self.settle, receipts)
            return
        try:
            await self._adding(self._async, receipts).execute()
        except (RedisError, OSError) as error:
            self._pass(_unavailable(error))
        self._here.settle(receipts)

    async def aunsettle(self, receipts: Sequence[Receipt]) -> None:
        """Like `unsettle`, without blocking the loop."""
        if self._async is None:
            await asyncio.to_thread(self.unsettle, receipts)
            return
        self._here.unsettle(receipts)
        try:
            await self._async.delete(*(self._prefix + receipt[0] for receipt in receipts))
        except (RedisError, OSError) as error:
            self._pass(_unavailable(error))

    def _adding(self, client: Any, receipts: Sequence[Receipt]) -> Any:
        pipeline = client.pipeline(transaction=True)
        for message, digest, keep in receipts:
            # The first that was settled stays: what conflicts with it must not take its place.
            pipeline.set(self._prefix + message, digest, ex=keep, nx=True)
        return pipeline


def _unavailable(error: Exception) -> LedgerUnavailable:
    return LedgerUnavailable(f"the ledger in Redis failed: {type(error).__name__}: {error}")
