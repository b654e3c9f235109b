"""Record what clients and a server say to each other.

A recorder stands between them and writes every byte of both directions to files, as it went over the wire. It needs no
privilege, and a secret that two packets share is found, as it may not be in a capture of packets.

    with Recorder(kafka.route, tmp_path) as recorder:
        Producer({"bootstrap.servers": recorder.address})
    assert scan(canary, tmp_path) == []
"""

import contextlib
import itertools
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from integration.servers import Route

_LOOPBACK = "127.0.0.1"


class Recorder:
    """Pass on and record all connections along *route*, from entry to exit of the block.

    Args:
        route: Where to listen, and where the server is.
        directory: Gets two files for each connection: `NNN-sent` by the client, `NNN-received` by it.
    """

    def __init__(self, route: Route, directory: Path) -> None:
        self._route = route
        self._directory = directory
        self._number = itertools.count(1)
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._closed = False

    def __enter__(self) -> Self:
        self._directory.mkdir(parents=True, exist_ok=True)
        self._listener = socket.create_server((_LOOPBACK, self._route.listen))
        self._port: int = self._listener.getsockname()[1]
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Shutting down wakes a thread that waits in accept or recv, which closing does not.
        _shut(self._listener)
        self._listener.close()
        self._accepting.join()
        with self._lock:
            self._closed = True
            for open_socket in self._sockets:
                _shut(open_socket)
        for thread in self._threads:
            thread.join()

    @property
    def address(self) -> str:
        """What clients must use in place of the server's own: host:port."""
        return f"{_LOOPBACK}:{self._port}"

    @property
    def connections(self) -> int:
        """How many connections were recorded: none would prove nothing."""
        return len(list(self._directory.glob("*-sent")))

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(client, next(self._number)), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, client: socket.socket, number: int) -> None:
        with client:
            try:
                server = socket.create_connection((self._route.host, self._route.port), timeout=5)
            except OSError:
                return
            server.settimeout(None)
            with server, self._known(client, server):
                back = threading.Thread(
                    target=self._pass, args=(server, client, f"{number:03}-received"), daemon=True
                )
                back.start()
                self._pass(client, server, f"{number:03}-sent")
                back.join()

    @contextlib.contextmanager
    def _known(self, *pair: socket.socket) -> Iterator[None]:
        with self._lock:
            self._sockets.update(pair)
            if self._closed:
                for late in pair:
                    _shut(late)
        try:
            yield
        finally:
            with self._lock:
                self._sockets.difference_update(pair)

    def _pass(self, source: socket.socket, target: socket.socket, name: str) -> None:
        with (self._directory / name).open("wb", buffering=0) as record, contextlib.suppress(OSError):
            while data := source.recv(65536):
                record.write(data)
                target.sendall(data)
        # The end of one direction is passed on; the other may still speak.
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)


def _shut(open_socket: socket.socket) -> None:
    with contextlib.suppress(OSError):
        open_socket.shutdown(socket.SHUT_RDWR)
