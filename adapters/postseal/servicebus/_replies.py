"""Binds replies to requests, where the policy of the queue or topic that replies go to says ``bind_replies``.

A request names that entity in ``reply_to``; its reply carries as ``correlation_id`` that of the request, or its ``message_id``, as Service
Bus has it. What is checked is the reference of the request (SPEC.md 5.4), which travels authenticated in the reply.

Source: Microsoft Learn, Messages, payloads, and serialization: message routing and correlation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from postseal.core import ConfigError, Opened, Refused, Sealer
from postseal.core.policy import Policy
from postseal.servicebus._message import destination_of, normal

__all__ = ["answered", "asks", "demanded", "hears"]

_IDS: Final = ("correlation_id", "message_id")


def asks(sealer: Sealer, fields: Mapping[str, Any], envelope: bytes) -> None:
    """Note the request that *envelope* is, about to be sent with a ``reply_to``.

    Raises:
        ConfigError: Its reply is to be bound, and nothing would tell that from others.
    """
    bound = _bound(sealer, fields.get("reply_to"))
    if bound is None:
        return
    policy, _ = bound
    ids = _ids(fields)
    if not ids:
        raise ConfigError(
            f"policy {policy.name!r} binds replies to requests: a request with reply_to needs a message_id or a correlation_id. "
            "Nothing was sent"
        )
    try:
        sealer.requests.asked(policy.name, ids, sealer.reference(envelope))
    except Refused:
        return  # it goes out in clear, as its policy is not in force


def hears(sealer: Sealer, fields: Mapping[str, Any], opened: Opened) -> None:
    """Note the request that was *opened*, about to be handed on with a ``reply_to``."""
    if (bound := _bound(sealer, fields.get("reply_to"))) is not None:
        sealer.requests.heard(bound[1], _ids(fields), opened.reference)


def answered(sealer: Sealer, destination: str, policy: Policy, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `Sealer.seal` is told that a message for *destination* answers."""
    if not policy.bind_replies:
        return {}
    return {"in_reply_to": sealer.requests.answered(destination, normal(fields.get("correlation_id")))}


def demanded(sealer: Sealer, policy: Policy, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `Sealer.open` is told that a message under *policy* has to answer."""
    if not policy.bind_replies:
        return {}
    return {"in_reply_to": sealer.requests.demanded(policy.name, normal(fields.get("correlation_id")))}


def _ids(fields: Mapping[str, Any]) -> list[object]:
    # Nothing has authenticated the other types that a broker might put there.
    return [value for name in _IDS if isinstance(value := normal(fields.get(name)), (str, bytes, int))]


def _bound(sealer: Sealer, reply_to: Any) -> tuple[Policy, str] | None:
    """Return policy and destination of replies to *reply_to*, if they are bound to their requests."""
    if not reply_to or not sealer.binds_replies:
        return None
    try:
        destination = destination_of(str(normal(reply_to)))
        policy = sealer.policy_for(destination)
    except ConfigError:  # not one of ours, or no name at all
        return None
    return (policy, destination) if policy.bind_replies else None
