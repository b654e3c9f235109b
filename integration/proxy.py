"""What stands between clients and a server and has bad days: a TCP proxy, and one for key services that speaks HTTP.

Both run on an event loop in a thread of their own, and are told from outside what to do.
"""

import asyncio
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any, Self, TypeVar

from aiohttp import ClientSession, web

from integration.servers import Route

_LOOPBACK = "127.0.0.1"
_T = TypeVar("_T")
# Closing a socket with this sends a reset. Source: socket(7), SO_LINGER.
_RESET = struct.pack("ii", 1, 0)


class _OnALoop:
    """Has an event loop in a thread, from entry to exit of the block."""

    def __init__(self) -> None:
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault proxy", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._run(self._open())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._run(self._close())
        self._run(_cancel_all())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def address(self) -> str:
        """What clients use in place of the server's own: host:port."""
        return f"{_LOOPBACK}:{self.port}"

    def _run(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(60)

    async def _open(self) -> None:
        raise NotImplementedError

    async def _close(self) -> None:
        raise NotImplementedError


class TcpProxy(_OnALoop):
    """Pass connections along *route*, and break them when told to.

    Attributes:
        refusing: While set, new connections are reset at once.
        swallowing: While set, nothing is passed on and nothing answered: a black hole.
        delay: Seconds for which each piece is kept.
    """

    def __init__(self, route: Route) -> None:
        super().__init__()
        self._route = route
        self._writers: set[asyncio.StreamWriter] = set()
        self._until_reset: int | None = None
        self.refusing = False
        self.swallowing = False
        self.delay = 0.0

    def reset(self) -> None:
        """Reset all connections there are."""
        self._run(self._reset())

    @contextmanager
    def closed(self) -> Iterator[None]:
        """Reset all connections, and let none in meanwhile."""
        self.refusing = True
        self.reset()
        try:
            yield
        finally:
            self.refusing = False

    def reset_after(self, count: int) -> None:
        """Reset all connections when clients have sent so many bytes more."""
        self._until_reset = count

    @property
    def is_armed(self) -> bool:
        """Whether the reset that was asked for is still to come."""
        return self._until_reset is not None

    async def _open(self) -> None:
        self._server = await asyncio.start_server(self._serve, _LOOPBACK, self._route.listen)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        self._server.close()
        await self._reset()

    async def _reset(self) -> None:
        for writer in list(self._writers):
            _reset(writer)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refusing:
            _reset(writer)
            return
        try:
            there, back = await asyncio.open_connection(self._route.host, self._route.port)
        except OSError:
            _reset(writer)
            return
        self._writers |= {writer, back}
        try:
            await asyncio.gather(self._pass(reader, back, sent=True), self._pass(there, writer, sent=False))
        finally:
            self._writers -= {writer, back}
            writer.close()
            back.close()

    async def _pass(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, *, sent: bool) -> None:
        with suppress(OSError):
            while piece := await source.read(65536):
                if self.delay:
                    await asyncio.sleep(self.delay)
                if self.swallowing:
                    continue
                if sent and self._until_reset is not None:
                    passed, self._until_reset = piece[: self._until_reset], self._until_reset - len(piece)
                    target.write(passed)
                    await target.drain()
                    if self._until_reset <= 0:
                        self._until_reset = None
                        await self._reset()
                        return
                    continue
                target.write(piece)
                await target.drain()
            if target.can_write_eof():
                target.write_eof()


def _reset(writer: asyncio.StreamWriter) -> None:
    with suppress(OSError, ValueError):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()


Answer = tuple[int, str]
"""Status and JSON in a key service's place."""
Answering = Callable[[int, str], Answer | None]


class HttpProxy(_OnALoop):
    """Pass requests to the service at *upstream*, slowly, not at all, or with an answer of our own.

    Attributes:
        answer: Given a request's number, counted from when it was set, and what it asks for, says what is answered in the service's
            place; None passes it on.
        hole: While set, nothing is answered. What waits is passed on afterwards.
        delay: Seconds that each request waits.
        asked: How often each operation was asked for, as AWS names it, or each path.
        answered: How many requests were answered in the service's place.
    """

    def __init__(self, upstream: str) -> None:
        super().__init__()
        self._upstream = upstream.rstrip("/")
        self._number = 0
        self._answer: Answering | None = None
        self.hole = False
        self.delay = 0.0
        self.asked: Counter[str] = Counter()
        self.answered = 0

    @property
    def answer(self) -> Answering | None:
        """What is answered in the service's place."""
        return self._answer

    @answer.setter
    def answer(self, answer: Answering | None) -> None:
        self._number, self._answer = 0, answer

    def heal(self) -> None:
        """Pass everything on again."""
        self.answer, self.hole, self.delay = None, False, 0.0

    async def _open(self) -> None:
        self._session = ClientSession(auto_decompress=False)
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(application, shutdown_timeout=0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, _LOOPBACK, 0)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def _close(self) -> None:
        self.heal()
        await self._runner.cleanup()
        await self._session.close()

    async def _handle(self, request: web.Request) -> web.Response:
        body = await request.read()
        asked = request.headers.get("X-Amz-Target", request.path).rpartition(".")[2]
        self.asked[asked] += 1
        number, self._number = self._number, self._number + 1
        while self.hole:  # noqa: ASYNC110 (set from another thread)
            await asyncio.sleep(0.05)
        if self.delay:
            await asyncio.sleep(self.delay)
        if self._answer is not None and (found := self._answer(number, asked)) is not None:
            self.answered += 1
            return web.Response(status=found[0], text=found[1], content_type="application/x-amz-json-1.1")
        headers = {name: value for name, value in request.headers.items() if name != "Content-Length"}
        async with self._session.request(
            request.method, f"{self._upstream}{request.path_qs}", data=body, headers=headers
        ) as got:
            kept = {
                name: value for name, value in got.headers.items() if name.lower() not in _OF_THE_CONNECTION
            }
            return web.Response(status=got.status, body=await got.read(), headers=kept)


_OF_THE_CONNECTION = {"content-length", "transfer-encoding", "connection", "date", "server"}


async def _cancel_all() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
