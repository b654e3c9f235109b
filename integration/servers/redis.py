"""Redis, one server, of Debian's package."""

import contextlib
import os
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal
from urllib.parse import urlsplit

import redis

from . import containers, debian
from .machine import LOOPBACK, SERVERS, free_ports, installed
from .server import Launch, Route, Server

Release = Literal["bookworm"]
_RELEASE: Release = "bookworm"  # Redis 7.0; trixie has 8.0. docker/compose.yaml names the former.


class Redis(Server):
    """A Redis that keeps everything in memory, and may be told to take no more."""

    name: ClassVar[str] = "redis"
    variable: ClassVar[str] = "POSTSEAL_TEST_REDIS"

    def __init__(self, *, base_dir: Path = SERVERS, data_dir: Path | None = None) -> None:
        super().__init__(base_dir=base_dir, data_dir=data_dir)
        (self._port,) = free_ports(1)

    @property
    def address(self) -> str:
        """The URL of a client."""
        return self.given or f"redis://{LOOPBACK}:{self._port}/0"

    @property
    def route(self) -> Route:
        """Where a recorder has to stand."""
        host, port = self._listens()
        return Route(listen=0, host=host, port=port)

    def client(self, **options: Any) -> Any:
        """Make a client that does not wait for long."""
        return redis.Redis.from_url(
            self.address, **{"socket_timeout": 2, "socket_connect_timeout": 2} | options
        )

    def is_up(self) -> bool:
        """Ping it."""
        with contextlib.closing(self.client()) as client, contextlib.suppress(redis.RedisError, OSError):
            return bool(client.ping())
        return False

    def _listens(self) -> tuple[str, int]:
        url = urlsplit(self.address)
        return url.hostname or LOOPBACK, url.port or 6379

    def _native(self, data_dir: Path) -> Launch:
        unpack = partial(debian.unpack, release=_RELEASE, package="redis-server")
        installation = installed(self.base_dir, f"redis-{_RELEASE}", unpack)
        return Launch(
            [
                *[str(installation / "enter"), str(installation / "usr/bin/redis-server")],
                *["--bind", LOOPBACK, "--port", str(self._port), "--save", "", "--appendonly", "no"],
                *["--dir", str(data_dir)],
            ],
            environment={"PATH": os.environ["PATH"], "LANG": "C.UTF-8"},
            patience=5,
        )

    def _container(self) -> Launch:
        up, down = containers.compose_up("redis")
        return Launch(
            up,
            containers.environment({"POSTSEAL_REDIS_PORT": self._port}),
            afterwards=down,
            in_container=True,
        )
