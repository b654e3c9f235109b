"""Binds replies to requests, where the policy of the queue that replies go to says ``bind_replies``.

A request names that queue in ``reply_to``, and itself in ``correlation_id``; its reply is published to the default exchange with that queue
as its routing key, and carries the same ``correlation_id``. Neither need be bound: what is checked is the reference of the request (SPEC.md
5.4), which travels authenticated in the reply.

Source: RabbitMQ tutorials, Remote procedure call; Direct Reply-to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from postseal.core import ConfigError, Opened, Refused, Sealer

if TYPE_CHECKING:
    from postseal.rabbitmq._settling import Place, Places

__all__ = ["answered", "asks", "demanded", "hears"]


def asks(sealer: Sealer, places: Places, properties: Any, envelope: bytes) -> None:
    """Note the request that *envelope* is, about to be published with a ``reply_to``.

    Raises:
        ConfigError: Its reply is to be bound, and nothing would tell that from others: it has no ``correlation_id``.
    """
    if (place := _bound(sealer, places, properties.reply_to)) is None:
        return
    if not properties.correlation_id:
        raise ConfigError(
            f"policy {place.policy.name!r} binds replies to requests: a request with reply_to needs a correlation_id. Nothing was sent"
        )
    try:
        reference = sealer.reference(envelope)
    except Refused:
        return  # it goes out in clear, as its policy is not in force
    sealer.requests.asked(place.policy.name, (properties.correlation_id,), reference)


def hears(sealer: Sealer, places: Places, properties: Any, opened: Opened) -> None:
    """Note the request that was *opened*, about to be handed on with a ``reply_to``."""
    if (place := _bound(sealer, places, properties.reply_to)) is not None:
        sealer.requests.heard(place.destination, (properties.correlation_id,), opened.reference)


def answered(sealer: Sealer, place: Place, properties: Any) -> str | None:
    """Return what a message that is about to be published to *place* answers."""
    if not place.policy.bind_replies or properties is None:
        return None
    return sealer.requests.answered(place.destination, properties.correlation_id)


def demanded(sealer: Sealer, place: Place, properties: Any) -> str | None:
    """Return what a message that lies at *place* has to answer; None where it need not answer anything."""
    if not place.policy.bind_replies:
        return None
    return sealer.requests.demanded(place.policy.name, properties.correlation_id)


def _bound(sealer: Sealer, places: Places, reply_to: Any) -> Place | None:
    """Return the place of replies to *reply_to*, if they are bound to their requests."""
    if not sealer.binds_replies:
        return None
    try:
        place = places["", reply_to]
    except ConfigError:  # not one of ours, or no name at all
        return None
    return place if place.policy.bind_replies else None
