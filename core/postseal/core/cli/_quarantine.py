"""Quarantines of four brokers behind one face, for ``postseal quarantine``."""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Final

from postseal.core.cli._held import Held, Quarantine
from postseal.core.context import check_destination
from postseal.core.errors import ConfigError, nearest

if TYPE_CHECKING:
    from postseal.core.policy import Policy

__all__ = ["ADDRESSES", "Held", "Quarantine", "open_quarantine", "quarantine_by_policy"]

ADDRESSES: Final = {
    "kafka": "POSTSEAL_KAFKA",
    "rabbitmq": "POSTSEAL_RABBITMQ",
    "servicebus": "POSTSEAL_SERVICEBUS",
    "sqs": "POSTSEAL_SQS",
}
"""Environment variables that say where a broker is, by scheme."""


def open_quarantine(destination: str, address: str | None) -> Quarantine:
    """Connect to the quarantine at *destination*.

    Args:
        destination: Such as ``kafka:orders.refused``, ``rabbitmq:/refused``, ``sqs:refused``, ``servicebus:orders/$deadletterqueue``.
        address: Where the broker is: ``bootstrap.servers``, an AMQP URL, an endpoint of SQS (AWS's own unless given), a connection string.
            By default what the environment says.

    Raises:
        ConfigError: It is no such destination, or nobody says where the broker is.
        MissingExtraError: Its client is not installed.
    """
    scheme, _, name = check_destination(destination, "the quarantine").partition(":")
    if scheme not in ADDRESSES:
        raise ConfigError(f"there are no quarantines of {scheme!r}{nearest(scheme, ADDRESSES)}")
    variable = ADDRESSES[scheme]
    where = address or os.environ.get(variable)
    if where is None and scheme != "sqs":
        raise ConfigError(f"where is the broker? Say --at, or set {variable}")
    room = import_module(f"postseal.core.cli._quarantine_{scheme}")
    quarantine: Quarantine = room.connect(name, where)
    return quarantine


def quarantine_by_policy(where: str, file: Path) -> str:
    """Return the quarantine that a policy file has for *where*: the name of a policy, or a destination under one.

    Raises:
        ConfigError: There is none, or more than one.
    """
    from postseal.core.config import PolicyFile
    from postseal.core.policy import Policies

    policies = PolicyFile.read(file).policies
    if where in {policy.quarantine for policy in policies}:
        return where
    policy = {each.name: each for each in policies}.get(where)
    if policy is None and ":" not in where:
        raise ConfigError(f"{file} has no policy {where!r}{nearest(where, [each.name for each in policies])}")
    found = _quarantines(policy or Policies(policies).find(where), None if policy else where)
    if len(found) == 1:
        return found[0]
    if not found:
        raise ConfigError(
            f"{file} names no quarantine of {where!r}: where its broker has dead letters, it knows; name that"
        )
    raise ConfigError(f"{file} has several quarantines of {where!r}: name one of {', '.join(found)}")


def _quarantines(policy: Policy, destination: str | None) -> list[str]:
    """Return where the adapters put what *policy* refuses, as far as a policy says it."""
    from postseal.core.policy import wildcard

    if policy.quarantine is not None:
        return [policy.quarantine]
    if policy.on_refused != "dead-letter":
        return []
    places = (
        [each for each in policy.destinations if not wildcard(each)] if destination is None else [destination]
    )
    ends = {"kafka": ".refused", "servicebus": "/$deadletterqueue"}
    return [place + ends[scheme] for place in places if (scheme := place.partition(":")[0]) in ends]
