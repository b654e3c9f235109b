"""The test server, on a thread of this process."""

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from integration.servers.machine import LOOPBACK, free_ports

from .broker import Broker
from .control import Control
from .engine import Engine
from .entries import Options
from .faults import Fault, Faults
from .rules import from_json
from .tokens import KEY, KEY_NAME


class ServiceBusTestServer:
    """Azure Service Bus as far as its SDK needs it, in memory, on a loopback port.

    with ServiceBusTestServer() as server:
        server.create_queue("orders")
        client = ServiceBusClient.from_connection_string(server.connection_string)

    Args:
        port: Where clients connect; any free one by default.
        control: Where entities are made and faults asked for, over HTTP; any free one by default.
        key: With which clients sign their tokens.
        clock: Gives the time in seconds since 1970.
    """

    def __init__(
        self,
        *,
        port: int = 0,
        control: int = 0,
        key: str = KEY,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._port, self._control_port = (
            given or free for given, free in zip((port, control), free_ports(2), strict=True)
        )
        self._key = key
        self._clock = clock
        self._engine: Engine | None = None
        self._thread: threading.Thread | None = None
        self._control: Control | None = None

    @property
    def connection_string(self) -> str:
        """What a client is given."""
        return connection_string(LOOPBACK, self._port, key=self._key)

    @property
    def control_url(self) -> str:
        """Where entities are made and faults asked for, from another process."""
        return f"http://{LOOPBACK}:{self._control_port}"

    def start(self) -> Self:
        """Serve, on a thread of its own."""
        engine = Engine(
            Broker(self._clock), Faults(), host=LOOPBACK, port=self._port, key=self._key, clock=self._clock
        )
        self._engine = engine
        self._thread = threading.Thread(target=engine.run, name="servicebus", daemon=True)
        self._thread.start()
        self._control = Control(self, LOOPBACK, self._control_port)
        return self

    def stop(self) -> None:
        """End all connections, and forget all messages. Again does no harm.

        Raises:
            ExceptionGroup: The server itself failed meanwhile, so that the tests showed nothing.
        """
        control, self._control = self._control, None
        engine, self._engine = self._engine, None
        thread, self._thread = self._thread, None
        if control is not None:
            control.close()
        if engine is not None and thread is not None:
            engine.call(engine.stop)
            thread.join(10)
            if engine.errors:
                raise ExceptionGroup("the test server failed", engine.errors)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # What a test asks for. Each runs on the engine's thread.

    def create_queue(self, name: str, **options: Any) -> str:
        """Make a queue; *options* as `Options` has them. Gives the name."""
        self._do(lambda engine: engine.broker.create_queue(name, Options(**options)))
        return name

    def create_topic(self, name: str, **options: Any) -> str:
        """Make a topic. Gives the name."""
        self._do(lambda engine: engine.broker.create_topic(name, Options(**options)))
        return name

    def create_subscription(
        self, topic: str, name: str, *, rules: list[dict[str, Any]] | None = None, **options: Any
    ) -> str:
        """Make a subscription. Gives the name.

        Args:
            topic: Of which.
            name: Its own.
            rules: One of them must let a message through; each {"sql": "..."} or {"correlation": {"subject": "..."},
                "properties": {...}}. By default it takes everything.
            options: As `Options` has them.
        """
        filters = None if rules is None else {f"rule {at}": from_json(rule) for at, rule in enumerate(rules)}
        self._do(
            lambda engine: engine.broker.create_subscription(topic, name, Options(**options), rules=filters)
        )
        return name

    def delete(self, name: str) -> None:
        """Remove an entity."""
        self._do(lambda engine: engine.broker.delete(name))

    def inject(self, point: str, action: str, **how: Any) -> None:
        """Have a fault strike: see `Fault`."""
        fault = Fault.of({"point": point, "action": action, **how})
        self._do(lambda engine: engine.faults.add(fault))

    def heal(self) -> None:
        """Forget the faults that have not struck."""
        self._do(lambda engine: engine.faults.clear())

    def outage(self, seconds: float = 0) -> None:
        """End all connections, and refuse new ones for some *seconds*. Messages and locks stay."""
        self._do(lambda engine: engine.outage(seconds))

    def count(self, path: str) -> int:
        """Count the messages of a queue, whatever their state."""
        return int(self._do(lambda engine: len(engine.broker.queue(path))))

    def _do(self, work: Callable[[Engine], Any]) -> Any:
        engine = self._engine
        if engine is None:
            raise RuntimeError("the server does not run")
        return engine.call(lambda: work(engine))


def connection_string(host: str, port: int, *, key: str = KEY) -> str:
    """Write what a client is given: without TLS, at a port of our own."""
    return f"Endpoint=sb://{host}:{port};SharedAccessKeyName={KEY_NAME};SharedAccessKey={key};UseDevelopmentEmulator=true;"
