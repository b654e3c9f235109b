"""The servers of one run of tests: each started once, when it is first asked for, however many processes test."""

import copy
import secrets
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing.connection import Client, Connection, Listener
from typing import Protocol

from .aws import AwsEmulator
from .kafka import Kafka
from .key_vault import KeyVault
from .openbao import OpenBao
from .rabbitmq import RabbitMq
from .server import Server, stop_all
from .servicebus.process import ServiceBus

KINDS: Mapping[str, Callable[[], Server]] = {
    kind.name: kind for kind in (Kafka, AwsEmulator, RabbitMq, ServiceBus, KeyVault, OpenBao)
}


class Lender(Protocol):
    """Where tests get their servers."""

    def begin(self, names: Iterable[str]) -> None:
        """Have these start, side by side, without waiting for them."""
        ...

    def borrow(self, name: str) -> Server:
        """Return one that answers, started now if need be. It can be neither killed nor stopped.

        Raises:
            ServerUnavailable: It cannot be had here.
            ServerFailed: It did not come up.
        """
        ...


class Servers:
    """Starts servers, lends them, and stops them at the end.

    Args:
        kinds: How each is made, by name.
    """

    def __init__(self, kinds: Mapping[str, Callable[[], Server]] = KINDS) -> None:
        self._kinds = kinds
        self._pool = ThreadPoolExecutor(max_workers=len(kinds))
        self._lock = threading.Lock()
        self._started: dict[str, tuple[Server, Future[Server]]] = {}

    def begin(self, names: Iterable[str]) -> None:
        """Have these start, side by side, without waiting for them."""
        with self._lock:
            for name in names:
                if name not in self._started:
                    server = self._kinds[name]()
                    self._started[name] = server, self._pool.submit(server.start)

    def borrow(self, name: str) -> Server:
        """Return one that answers, as `Lender` says."""
        self.begin([name])
        return copy.copy(self._started[name][1].result())

    def stop(self) -> None:
        """Stop all that were started."""
        self._pool.shutdown()
        stop_all(server for server, _ in self._started.values())


def lend(servers: Servers) -> tuple[str, bytes]:
    """Lend *servers* to other processes, as long as this one lives.

    Returns:
        Address and key, for their `Borrower`.
    """
    key = secrets.token_bytes(32)
    listener = Listener(authkey=key)

    def serve() -> None:
        while True:
            threading.Thread(target=_answer, args=[listener.accept(), servers], daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    return str(listener.address), key


def _answer(caller: Connection, servers: Servers) -> None:
    with caller:
        verb, names = caller.recv()
        answer: list[Server] | Exception = []
        try:
            if verb == "begin":
                servers.begin(names)
            else:
                answer = [servers.borrow(name) for name in names]
        except Exception as error:  # noqa: BLE001 (the borrower raises it)
            answer = error
        caller.send(answer)


class Borrower:
    """Borrows from another process.

    Args:
        address: As `lend` gave it there.
        key: Likewise.
    """

    def __init__(self, address: str, key: bytes) -> None:
        self._address = address
        self._key = key

    def begin(self, names: Iterable[str]) -> None:
        """Have these start, as `Lender` says."""
        self._ask("begin", list(names))

    def borrow(self, name: str) -> Server:
        """Return one that answers, as `Lender` says."""
        [server] = self._ask("borrow", [name])
        return server

    def _ask(self, verb: str, names: list[str]) -> list[Server]:
        with Client(self._address, authkey=self._key) as lender:
            lender.send((verb, names))
            answer: list[Server] | Exception = lender.recv()
        if isinstance(answer, Exception):
            raise answer
        return answer
