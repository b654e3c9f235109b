"""Azure Service Bus in a process of its own: the test server, or Microsoft's emulator in a container."""

import json
import os
import random
import socket
import sys
import uuid
from pathlib import Path
from typing import Any, ClassVar

from azure.servicebus import ServiceBusClient, ServiceBusReceiveMode

from integration.servers import containers
from integration.servers.errors import ServerUnavailable
from integration.servers.machine import LOOPBACK, REPOSITORY, SERVERS, free_ports
from integration.servers.server import Launch, Route, Server

from .config import options as read_options
from .control import ask
from .entries import Options
from .server import connection_string

# What Microsoft's emulator is configured with. It makes no entity later.
_CONFIG = REPOSITORY / "docker" / "servicebus" / "Config.json"
# Offered before anything else: AMQP's header for SASL. Source: AMQP 1.0, part 5, 5.3.
_HEADER = b"AMQP\x03\x01\x00\x00"


class ServiceBus(Server):
    """Service Bus at `address`, a connection string. Messages stay in memory: `kill` loses them, `outage` does not.

    Args:
        base_dir: Where programs are installed, once.
        data_dir: Where it keeps its log.
    """

    name: ClassVar[str] = "servicebus"
    variable: ClassVar[str] = "POSTSEAL_TEST_SERVICEBUS"
    # In a container, a database must start first.
    patience: ClassVar[float] = 300

    def __init__(self, *, base_dir: Path = SERVERS, data_dir: Path | None = None) -> None:
        super().__init__(base_dir=base_dir, data_dir=data_dir)
        self._port, self._control = free_ports(2)
        # The emulator's entities that no test has had.
        self._unused: list[tuple[str, dict[str, Any]]] | None = None

    @property
    def address(self) -> str:
        """The connection string of a client."""
        return self.given or connection_string(LOOPBACK, self._port)

    @property
    def route(self) -> Route:
        """Where a recorder has to stand. Clients then use `address_at` its port."""
        host, port = self._listens()
        return Route(listen=0, host=host, port=port)

    def address_at(self, port: int) -> str:
        """The connection string of a client that connects to *port*, where a recorder stands."""
        host, own = self._listens()
        return self.address.replace(f"{host}:{own}", f"{LOOPBACK}:{port}")

    @property
    def is_ours(self) -> bool:
        """Whether it is the test server, which makes any entity and any fault."""
        return not self.given and not (self._launch is not None and self._launch.in_container)

    def is_up(self) -> bool:
        """Begin to speak AMQP with it."""
        try:
            with socket.create_connection(self._listens(), timeout=5) as connection:
                connection.sendall(_HEADER)
                return connection.recv(len(_HEADER)) == _HEADER
        except OSError:
            return False

    # Entities that no test has used. The emulator has those of its configuration, and then no more.

    def new_queue(self, **options: Any) -> str:
        """Give a queue of its own to a test; *options* as `Options` has them."""
        if self.is_ours:
            return str(ask(self._url, "create_queue", name=_fresh("queue"), **options))
        name = self._from_pool("Queues", options)
        if not options.get("requires_session"):
            self._empty(name)
        return name

    def new_topic(self, *subscriptions: str, **options: Any) -> str:
        """Give a topic of its own to a test, with *subscriptions* that do as *options* say."""
        if self.is_ours:
            topic = str(ask(self._url, "create_topic", name=_fresh("topic")))
            for name in subscriptions:
                ask(self._url, "create_subscription", topic=topic, name=name, **options)
            return topic
        if options or set(subscriptions) - {"first", "second"}:
            raise ServerUnavailable("the emulator's topics have plain subscriptions, first and second")
        return self._from_pool("Topics", {})

    def subscribe(self, topic: str, name: str, **options: Any) -> str:
        """Make a subscription, with rules or options of its own."""
        return str(self.control("create_subscription", topic=topic, name=name, **options))

    # What only the test server does.

    def inject(self, point: str, action: str, **how: Any) -> None:
        """Have a fault strike: see `faults.Fault`."""
        self.control("inject", point=point, action=action, **how)

    def heal(self) -> None:
        """Forget the faults that have not struck."""
        self.control("heal")

    def outage(self, seconds: float = 0) -> None:
        """End all connections, and refuse new ones for some *seconds*. Messages and locks stay."""
        self.control("outage", seconds=seconds)

    def count(self, path: str) -> int:
        """Count the messages of a queue, whatever their state."""
        return int(self.control("count", path=path))

    def control(self, method: str, **arguments: Any) -> Any:
        """Call a method of the test server.

        Raises:
            ServerUnavailable: It is another that runs.
        """
        if not self.is_ours:
            raise ServerUnavailable(f"only the test server knows {method}")
        return ask(self._url, method, **arguments)

    @property
    def _url(self) -> str:
        return f"http://{LOOPBACK}:{self._control}"

    def _from_pool(self, kind: str, wanted: dict[str, Any]) -> str:
        if self._unused is None:
            self._unused = _entities()
        defaults = Options()
        for at, (name, does) in enumerate(self._unused):
            same = all(does.get(key, getattr(defaults, key)) == value for key, value in wanted.items())
            sessions = bool(does.get("requires_session")) == bool(wanted.get("requires_session"))
            if does["kind"] == kind and same and sessions:
                del self._unused[at]
                return name
        raise ServerUnavailable(f"{_CONFIG} has no more {kind.lower()} with {wanted}")

    def _empty(self, name: str) -> None:
        with (
            ServiceBusClient.from_connection_string(self.address) as client,
            client.get_queue_receiver(
                name, receive_mode=ServiceBusReceiveMode.RECEIVE_AND_DELETE, max_wait_time=1
            ) as receiver,
        ):
            for _ in receiver:
                pass

    def _listens(self) -> tuple[str, int]:
        endpoint = self.address.split("://", 1)[1].split(";")[0].strip("/")
        host, _, port = endpoint.partition(":")
        return host, int(port or 5672)

    def _native(self, data_dir: Path) -> Launch:
        return Launch(
            [
                *[sys.executable, "-m", "integration.servers.servicebus"],
                *["--port", str(self._port), "--control", str(self._control)],
            ],
            environment={
                "PATH": os.environ["PATH"],
                "HOME": str(data_dir),
                "LANG": "C.UTF-8",
                "PYTHONPATH": str(REPOSITORY),
            },
            patience=1,
        )

    def _container(self) -> Launch:
        if os.environ.get("ACCEPT_EULA") != "Y":
            raise ServerUnavailable("Microsoft's emulator asks for its licence: ACCEPT_EULA=Y accepts it")
        up, down = containers.compose_up("servicebus")
        return Launch(
            up,
            containers.environment(
                {"POSTSEAL_SERVICEBUS_PORT": self._port, "POSTSEAL_SERVICEBUS_HTTP_PORT": self._control}
            ),
            afterwards=down,
            in_container=True,
        )


def _entities() -> list[tuple[str, dict[str, Any]]]:
    """List the emulator's entities, in an order of this run."""
    found = [
        (entity["Name"], {"kind": kind, **read_options(entity["Properties"])})
        for namespace in json.loads(_CONFIG.read_text())["UserConfig"]["Namespaces"]
        for kind in ("Queues", "Topics")
        for entity in namespace.get(kind, [])
    ]
    random.shuffle(found)
    return found


def _fresh(kind: str) -> str:
    return f"{kind}-{uuid.uuid4().hex[:12]}"
