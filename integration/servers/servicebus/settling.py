"""What a receiver says of a message, applied to its queue; and how it is answered."""

import uuid
from typing import Any

from proton import Condition, Delivery, symbol

from .encoding import text
from .errors import BadRequest, BrokerError
from .queue import Queue

_DEAD_LETTER = "com.microsoft:dead-letter"


def apply(queue: Queue, token: uuid.UUID, delivery: Delivery) -> None:
    """Do what the receiver decided.

    Raises:
        LockLost: The message is not its own any more.
        BadRequest: It decided nothing.
    """
    said = delivery.remote
    if said.type == Delivery.ACCEPTED:
        queue.complete(token)
    elif said.type == Delivery.RELEASED:
        queue.release(token)
    elif said.type == Delivery.REJECTED:
        queue.dead_letter(token, *_why(delivery))
    elif said.type == Delivery.MODIFIED and said.undeliverable:
        queue.defer(token)
    elif said.type == Delivery.MODIFIED:
        queue.abandon(token) if said.failed else queue.release(token)
    else:
        raise BadRequest("settled without an outcome")


def confirm(delivery: Delivery) -> None:
    """Answer with the same outcome: the client compares it with what it asked for."""
    said = delivery.remote
    if said.type == Delivery.MODIFIED:
        delivery.local.failed, delivery.local.undeliverable = said.failed, said.undeliverable
    delivery.update(said.type)
    delivery.settle()


def refuse(delivery: Delivery, error: BrokerError) -> None:
    """Answer that it is refused."""
    delivery.local.condition = condition(error)
    delivery.update(Delivery.REJECTED)
    delivery.settle()


def condition(error: BrokerError) -> Condition:
    """Write an error as AMQP has it. The client reads its third part always, so that must not be left out."""
    return Condition(error.condition, str(error), {symbol("source"): "postseal test server"})


def _why(delivery: Delivery) -> tuple[str, str]:
    found = delivery.remote.condition
    if found is None or found.name != _DEAD_LETTER:
        return "", ""
    said: Any = found.info or {}
    info = {text(key): value for key, value in said.items()}
    return text(info.get("DeadLetterReason")) or "", text(info.get("DeadLetterErrorDescription")) or ""


def accept(delivery: Delivery) -> None:
    """Tell a sender that its message is kept."""
    delivery.update(Delivery.ACCEPTED)
    delivery.settle()
