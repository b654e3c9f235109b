"""Where each attack is tried: on the core alone, and through each adapter on its broker in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import pytest

from postseal.core import KeyUnavailable, Refused, Sealer, Verdict
from tests.contract import ORDER, AdapterContract, Line, Raw, Receiving, World
from tests.kafka.conftest import _mock, cluster, make_topic  # noqa: F401 - fixtures
from tests.kafka.lines import ClientLine as KafkaLine
from tests.rabbitmq.conftest import broker, parameters  # noqa: F401 - likewise
from tests.rabbitmq.line import CallbackLine as RabbitLine
from tests.servicebus.conftest import closing, server  # noqa: F401 - likewise
from tests.servicebus.lines import QueueLine as ServiceBusLine
from tests.sqs.conftest import aws, make_client  # noqa: F401 - likewise
from tests.sqs.line import ClientLine as SqsLine

SIGNED: Mapping[str, Any] = {"protection": "privacy", "sign": "shop", "senders": ["shop"]}


class CoreLine(Line):
    """No adapter: a program that seals and opens by hand, and a list for a broker."""

    scheme: ClassVar[str] = "kafka"
    ordered: ClassVar[bool] = True

    def __init__(self) -> None:
        self._places: dict[str, list[Raw]] = {}

    def place(self) -> str:
        name = f"place-{len(self._places)}"
        self._places[name] = []
        return name

    def place_with_dead_letters(self) -> tuple[str, str]:
        return self.place(), self.place()

    def send(
        self, sealer: Sealer, place: str, body: bytes | None, headers: Mapping[str, str] | None = None
    ) -> None:
        destination = f"kafka:{place}"
        taken = sealer.policy_for(destination).taken_headers
        beside = {name: value for name, value in (headers or {}).items() if name not in taken}
        self._places[place].append(
            Raw(sealer.seal(body or b"", destination=destination, headers=headers), beside)
        )

    def batch(self, place: str, bodies: list[bytes]) -> Any:
        return bodies

    def send_batch(self, sealer: Sealer, place: str, batch: Any) -> None:
        for body in batch:
            self.send(sealer, place, body)

    @contextmanager
    def receiving(self, sealer: Sealer, place: str, *, settles: bool = True) -> Iterator[Receiving]:
        yield CoreReceiving(sealer, place, self._places[place], settles)

    def put(self, place: str, *messages: Raw) -> None:
        self._places[place].extend(messages)

    def held(self, place: str, count: int) -> list[Raw]:
        assert len(self._places[place]) >= count
        return list(self._places[place])

    def has_message(self, place: str) -> bool:
        return bool(self._places[place])


class CoreReceiving(Receiving):
    def __init__(self, sealer: Sealer, place: str, lying: list[Raw], settles: bool) -> None:
        super().__init__()
        self._sealer, self._place, self._lying, self._settles = sealer, place, lying, settles

    def step(self) -> None:
        if not self._lying:
            return
        raw = self._lying.pop(0)
        try:
            opened = self._sealer.open(
                raw.body or b"",
                destination=f"kafka:{self._place}",
                headers=raw.headers,
                coordinates={"offset": 0},
            )
        except Refused as refused:
            self.refused.append(refused)
        except KeyUnavailable:
            self._lying.insert(0, raw)
        else:
            self.got(opened.body, [*raw.headers.items(), *opened.headers])
            if self._settles:
                self._sealer.settled(opened)


@dataclass
class Scene:
    """Who sends, what the broker holds of it, who is to open it, and what becomes of what an attacker makes of it."""

    line: Line
    world: World = field(init=False)

    def __post_init__(self) -> None:
        self.world = World(self.line)

    def sent(self, *bodies: bytes, headers: dict[str, str] | None = None, **options: Any) -> Caught:
        """Send genuine messages, and let the attacker have them; none was received yet."""
        place, raws, sealer = AdapterContract._moved(
            self.world, self.line, list(bodies or (ORDER,)), headers, **options
        )
        return Caught(self, place, raws, sealer)


@dataclass
class Caught:
    """Genuine messages in the hands of the attacker, who may put anything at *place*, where *sealer* receives."""

    scene: Scene
    place: str
    raws: list[Raw]
    sealer: Sealer

    @property
    def raw(self) -> Raw:
        return self.raws[0]

    @property
    def envelopes(self) -> list[bytes]:
        return [self.scene.line.envelope(raw.body or b"") for raw in self.raws]

    @property
    def envelope(self) -> bytes:
        return self.envelopes[0]

    @property
    def policy(self) -> Any:
        return self.sealer.policies[0]

    @property
    def destination(self) -> str:
        return str(self.policy.destinations[0])

    def put_raw(self, raw: Raw) -> Verdict:
        """Put *raw*, receive, and return why it was refused; nothing may have been handed on, and one event made."""
        self.scene.line.put(self.place, raw)
        return AdapterContract._refused(self.scene.world, self.scene.line, self.sealer, self.place)

    def put(self, envelope: bytes, headers: Mapping[str, str] | None = None) -> Verdict:
        """Put an envelope of the attacker's making in the place of the first message, with its headers or others."""
        raw = replace(self.raw, body=self.scene.line.body(envelope))
        return self.put_raw(raw if headers is None else replace(raw, headers=headers))

    def forging(self, **options: Any) -> Sealer:
        """Make a sealer of the attacker's own, with what he has besides."""
        policy = self.policy.replace(accept_from=[], **options.pop("policy", {}))
        return self.scene.world.sealer(policy, **options)

    def forged(self, body: bytes = b"mine", **options: Any) -> bytes:
        """Seal as `forging` says."""
        return self.forging(**options).seal(body, destination=self.destination)


LINES: Mapping[str, Callable[[pytest.FixtureRequest], Line]] = {
    "core": lambda _: CoreLine(),
    "kafka": lambda request: KafkaLine(
        request.getfixturevalue("cluster"), request.getfixturevalue("make_topic")
    ),
    "rabbitmq": lambda request: RabbitLine(request.getfixturevalue("parameters")),
    "sqs": lambda request: request.getfixturevalue("aws") or SqsLine(make_client),
    "servicebus": lambda request: ServiceBusLine(request.getfixturevalue("server")),
}


@pytest.fixture(params=list(LINES))
def scene(request: pytest.FixtureRequest) -> Iterator[Scene]:
    """The same attack on each line."""
    line = LINES[request.param](request)
    yield Scene(line)
    if isinstance(line, ServiceBusLine):
        line.close()
