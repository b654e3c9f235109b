"""One way to start, ask, kill and stop any server."""

import contextlib
import os
import shutil
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

from . import containers
from .errors import ServerFailed, ServerUnavailable
from .machine import SERVERS, connects
from .process import Leashed, Lent, tail


@dataclass(frozen=True, slots=True)
class Launch:
    """How a server is started."""

    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    # Runs after the program ended and will not be started again.
    afterwards: Sequence[str] = ()
    in_container: bool = False
    # Seconds between asking it to end and killing it.
    patience: float = 10


@dataclass(frozen=True, slots=True)
class Route:
    """Where a recorder has to stand to see what clients and server say.

    Args:
        listen: The port that clients must use; 0 for any free one.
        host: Where the server itself listens.
        port: Likewise.
    """

    listen: int
    host: str
    port: int


class Server(ABC):
    """A server on the loopback interface, held by this process.

    With its environment variable set, it is one that runs already: nothing is started, killed or stopped. Otherwise it
    is installed and run natively, or in a container where that was asked for or nothing else is possible.

        with Kafka() as kafka:
            Producer({"bootstrap.servers": kafka.address})

    Args:
        base_dir: Where programs are installed, once.
        data_dir: Where it keeps its data; a temporary folder, removed with the server, unless given.
    """

    name: ClassVar[str]
    variable: ClassVar[str]
    patience: ClassVar[float] = 90  # seconds until it must answer

    def __init__(self, *, base_dir: Path = SERVERS, data_dir: Path | None = None) -> None:
        self.base_dir = base_dir
        self._own_data = data_dir is None
        self._data_dir = data_dir
        self._launch: Launch | None = None
        self._process: Leashed | Lent | None = None

    # What each server says of itself.

    @property
    @abstractmethod
    def address(self) -> str:
        """What a client is given to find it."""

    @property
    @abstractmethod
    def route(self) -> Route:
        """Where a recorder has to stand.

        Raises:
            ServerUnavailable: Traffic to this one cannot be led through a recorder.
        """

    @abstractmethod
    def is_up(self) -> bool:
        """Ask it something real, and tell whether it answered."""

    @abstractmethod
    def _native(self, data_dir: Path) -> Launch:
        """Install it, prepare an empty data folder, and say how it starts."""

    @abstractmethod
    def _container(self) -> Launch:
        """Say how it starts in a container."""

    @abstractmethod
    def _listens(self) -> tuple[str, int]:
        """Host and port of its own listener."""

    # What is the same for all.

    @property
    def given(self) -> str:
        """The address of one that runs already, or nothing."""
        return os.environ.get(self.variable, "")

    @property
    def pid(self) -> int | None:
        """Its process id, where this process started it natively and it runs."""
        if self._process is None or self._launch is None or self._launch.in_container:
            return None
        return self._process.pid

    @property
    def data_dir(self) -> Path | None:
        """Where it keeps its data, if that is on this machine."""
        if self.given or (self._launch is not None and self._launch.in_container):
            return None
        return self._data_dir

    def start(self) -> Self:
        """Start it, and wait until it answers.

        Started again after `kill`, it finds its address and data as they were.

        Raises:
            ServerUnavailable: It cannot be had here.
            ServerFailed: It did not come up; the text ends with its log.
        """
        if self._process is not None:
            raise ServerFailed(f"{self.name} runs already")
        try:
            if not self.given:
                self._process = self._spawn()
            self._wait()
        except BaseException:
            self.stop()
            raise
        return self

    def kill(self) -> None:
        """End it as a power cut would. Its data stays for the next `start`."""
        if self.given:
            raise ServerUnavailable(f"{self.variable} names a server that is not ours to kill")
        if isinstance(self._process, Lent):
            raise ServerUnavailable(f"{self.name} belongs to another process, and other tests use it")
        process, self._process = self._process, None
        if process is not None:
            if self._launch is not None and self._launch.in_container:
                containers.kill(self._launch.command)
            process.kill()

    def stop(self) -> None:
        """End it in order, and remove what it kept, unless the folder was given. Again does no harm."""
        process, self._process = self._process, None
        launch, self._launch = self._launch, None
        if process is not None:
            process.stop()
        if launch is not None and launch.afterwards:
            containers.run(launch.afterwards)
        if self._own_data and self._data_dir is not None:
            shutil.rmtree(self._data_dir, ignore_errors=True)
            self._data_dir = None

    def __getstate__(self) -> dict[str, Any]:
        """What a copy knows: where it is and what can be read of it. Whoever made it alone kills and stops it."""
        lent = None if self._process is None else Lent(self._process.pid)
        return {**self.__dict__, "_process": lent, "_own_data": False}

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _spawn(self) -> Leashed:
        if self._data_dir is None:
            self._data_dir = Path(tempfile.mkdtemp(prefix=f"postseal-{self.name}-"))
        self._data_dir.mkdir(parents=True, exist_ok=True)
        if self._launch is None:
            self._launch = self._choose(self._data_dir)
        return Leashed(
            self._launch.command,
            environment=self._launch.environment,
            directory=self._data_dir,
            log=self._log,
            patience=self._launch.patience,
        )

    def _choose(self, data_dir: Path) -> Launch:
        if os.environ.get("POSTSEAL_TEST_CONTAINERS") == "1":
            if not containers.engine_answers():
                raise ServerUnavailable("POSTSEAL_TEST_CONTAINERS=1, and no container engine answers")
            return self._container()
        try:
            return self._native(data_dir)
        except ServerUnavailable:
            if containers.engine_answers():
                return self._container()
            raise

    def _wait(self) -> None:
        deadline = time.monotonic() + self.patience
        while True:
            if self._process is not None and self._process.ended:
                raise ServerFailed(f"{self.name} ended before it answered:\n{tail(self._log)}")
            # The first question is cheap: a client's own would fill the log while nothing listens yet.
            if connects(*self._listens()) and self.is_up():
                return
            if time.monotonic() > deadline:
                log = "" if self.given else f":\n{tail(self._log)}"
                raise ServerFailed(
                    f"{self.name} at {self.address} did not answer in {self.patience:.0f} s{log}"
                )
            time.sleep(0.1)

    @property
    def _log(self) -> Path:
        assert self._data_dir is not None
        return self._data_dir / "server.log"


def start_all(servers: Iterable[Server]) -> dict[str, Exception]:
    """Start all of them side by side, and wait for the last.

    Returns:
        For each that did not start, by name, why. The others run.
    """
    waiting = list(servers)
    failed: dict[str, Exception] = {}
    with ThreadPoolExecutor(max_workers=max(1, len(waiting))) as pool:
        starting = {server.name: pool.submit(server.start) for server in waiting}
        for name, start in starting.items():
            error = start.exception()
            if isinstance(error, Exception):
                failed[name] = error
            elif error is not None:
                raise error
    return failed


def stop_all(servers: Iterable[Server]) -> None:
    """Stop all of them, even where stopping one fails; the last failure is raised."""
    with contextlib.ExitStack() as stack:
        for server in servers:
            stack.callback(server.stop)
