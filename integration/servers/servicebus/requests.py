"""Links on which clients ask and are answered: `$cbs` takes their tokens, `ENTITY/$management` all else."""

import uuid
from typing import Any

from proton import Message

from . import tokens
from .errors import BadRequest, BrokerError, Unauthorized
from .faults import Point
from .management import Management, refusal, reply
from .settling import accept
from .wire import Client, Delivery, Link, Wire, path_of

_CBS = "$cbs"
_MANAGEMENT = "/$management"
# How many requests a client may have on their way.
_CREDIT = 10_000


def is_asked(path: str) -> bool:
    """Tell whether this is where clients ask."""
    return path.lower() == _CBS or path.lower().endswith(_MANAGEMENT)


class Requests:
    """Answers what clients ask.

    Args:
        wire: What is shared.
        key: With which clients sign their tokens.
    """

    def __init__(self, wire: Wire, key: str) -> None:
        self._wire = wire
        self._key = key
        self._management = Management(wire.broker)

    def attach(self, client: Client, link: Link) -> None:
        """Open one of the two links that a client needs for asking.

        Raises:
            Unauthorized: It showed no token for that entity.
        """
        if link.path.lower() != _CBS:
            client.demand(_entity(link), self._wire.clock())
        if link.is_sender:
            client.answers[link.path] = link
        link.open()
        if link.is_receiver:
            link.flow(_CREDIT)

    def arrived(self, client: Client, link: Link, delivery: Delivery, raw: bytes) -> None:
        """Answer a request."""
        accept(delivery)
        request = Message()
        request.decode(raw)
        if link.path.lower() == _CBS:
            self._token(client, link, request)
        else:
            self._manage(client, link, request)

    def _token(self, client: Client, link: Link, request: Message) -> None:
        properties: dict[Any, Any] = request.properties or {}
        audience = str(properties.get("name", ""))

        def refuse(error: BrokerError) -> None:
            self._answer(client, link, refusal(request, error))

        def check() -> None:
            if properties.get("operation") != "put-token":
                refuse(BadRequest(f"operation {properties.get('operation')!r}"))
                return
            try:
                until = tokens.check(str(request.body), audience, key=self._key, clock=self._wire.clock)
            except Unauthorized as error:
                refuse(error)
            else:
                client.allowed[path_of(audience)] = until
                self._answer(client, link, reply(request, 202, text="Accepted"))

        self._wire.fate(Point.TOKEN, link, check, refuse=refuse, entity=path_of(audience))

    def _manage(self, client: Client, link: Link, request: Message) -> None:
        def refuse(error: BrokerError) -> None:
            self._answer(client, link, refusal(request, error))

        def do() -> None:
            answer = self._management.answer(request, _entity(link))
            self._wire.fate(
                Point.MANAGED,
                link,
                lambda: self._answer(client, link, answer),
                refuse=refuse,
                entity=_entity(link),
            )

        self._wire.fate(Point.MANAGE, link, do, refuse=refuse, entity=_entity(link))

    def _answer(self, client: Client, link: Link, message: Message) -> None:
        back = client.answers.get(link.path)
        if back is not None and client.connection in self._wire.clients:
            delivery = back.delivery(uuid.uuid4().bytes)
            back.stream(message.encode())
            delivery.settle()
            back.advance()


def _entity(link: Link) -> str:
    path: str = link.path
    return path[: -len(_MANAGEMENT)]
