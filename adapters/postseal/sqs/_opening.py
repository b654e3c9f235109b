"""Seals and opens messages one by one, with and without ``await``: the only lines that differ between clients."""

from __future__ import annotations

from postseal.core import Sealer
from postseal.sqs._sending import Unsealed
from postseal.sqs._sorting import Sorting
from postseal.sqs._text import text_of

__all__ = ["aopen_each", "aseal_each", "open_each", "seal_each"]


def seal_each(unsealed: Unsealed, sealer: Sealer) -> None:
    """Seal those messages that are not sealed yet."""
    destination, seal = unsealed.place.destination, sealer.seal
    for one in unsealed.messages:
        if one.sealed is None:
            envelope = seal(
                one.data, destination=destination, headers=one.headers, ordering_key=one.ordering_key
            )
            one.sealed = text_of(envelope)


async def aseal_each(unsealed: Unsealed, sealer: Sealer) -> None:
    """Do it like `seal_each`, without blocking the loop."""
    destination, seal = unsealed.place.destination, sealer.aseal
    for one in unsealed.messages:
        if one.sealed is None:
            envelope = await seal(
                one.data, destination=destination, headers=one.headers, ordering_key=one.ordering_key
            )
            one.sealed = text_of(envelope)


def open_each(sorting: Sorting, sealer: Sealer) -> None:
    """Open what *sorting* says is to be opened, and tell it what came of each."""
    destination, open_one = sorting.destination, sealer.open
    for one in sorting:
        try:
            opened = open_one(
                one.data,
                destination=destination,
                headers=one.headers,
                ordering_key=one.ordering_key,
                coordinates=one,
                reader=sorting.reader,
            )
        except Exception as error:  # noqa: BLE001 - sorted by its kind
            sorting.failed(one, error)
        else:
            sorting.opened(one, opened)


async def aopen_each(sorting: Sorting, sealer: Sealer) -> None:
    """Do it like `open_each`, without blocking the loop."""
    destination, open_one = sorting.destination, sealer.aopen
    for one in sorting:
        try:
            opened = await open_one(
                one.data,
                destination=destination,
                headers=one.headers,
                ordering_key=one.ordering_key,
                coordinates=one,
                reader=sorting.reader,
            )
        except Exception as error:  # noqa: BLE001 - sorted by its kind
            sorting.failed(one, error)
        else:
            sorting.opened(one, opened)
