"""Quarantines of four brokers behind one face, for ``postseal quarantine``."""

from __future__ import annotations

import os
from importlib import import_module
from typing import Final

from postseal.core.cli._held import Held, Quarantine
from postseal.core.context import check_destination
from postseal.core.errors import ConfigError, nearest

__all__ = ["ADDRESSES", "Held", "Quarantine", "open_quarantine"]

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
