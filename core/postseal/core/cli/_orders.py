"""The orders that the demonstration sends, and the search for what of them must not be readable at a broker."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

__all__ = ["Order", "leaks", "orders"]

_CUSTOMERS: Final = (
    "Zoë Beispiel",
    "Ada Testmann",
    "Juan Muestra",
    "Mary Sample",
    "Ola Nordmann",
    "Jan Modaal",
)
_CARDS: Final = ("4111 1111 1111 1111", "5555 5555 5555 4444", "4242 4242 4242 4242", "4000 0566 5566 5556")
"""Numbers that card schemes and payment services publish for tests; no such card exists."""


class Order(NamedTuple):
    """What a web shop might put on a queue, and an auditor would not like to find there."""

    number: str
    customer: str
    email: str
    card: str
    amount: str

    def to_json(self) -> bytes:
        """Return the message body."""
        return json.dumps(self._asdict(), ensure_ascii=False).encode()

    @property
    def secrets(self) -> tuple[str, ...]:
        """What nobody but the consumer may read."""
        return self.customer, self.email, self.card


def orders(count: int, first: int = 1) -> list[Order]:
    """Make *count* orders of customers who do not exist."""
    made = []
    for number in range(first, first + count):
        customer = _CUSTOMERS[number % len(_CUSTOMERS) - 1]
        made.append(
            Order(
                number=f"A-{1000 + number}",
                customer=customer,
                # example.com is nobody's. Source: RFC 2606 3.
                email=f"{customer.split()[1].lower()}{number}@example.com",
                card=_CARDS[number % len(_CARDS) - 1],
                amount=f"{19 + number * 7 % 400}.90 EUR",
            )
        )
    return made


def leaks(sent: Iterable[Order], held: Iterable[bytes]) -> list[str]:
    """Return which secrets of *sent* can be read in *held*, and in which form; never the secrets themselves."""
    # Between two things held stands what is in no form, so that nothing is found across them.
    haystack = b"\0".join(held)
    found = []
    for order in sent:
        for kind, secret in zip(("customer", "email", "card"), order.secrets, strict=True):
            form = next((form for form, needle in _forms(secret) if needle in haystack), None)
            if form is not None:
                found.append(f"{kind} of {order.number}, {form}")
    return found


def _forms(secret: str) -> Iterator[tuple[str, bytes]]:
    raw = secret.encode()
    yield "as text", raw
    yield "as hex", raw.hex().encode()
    yield "as hex", raw.hex().upper().encode()
    yield "as escaped text", json.dumps(secret)[1:-1].encode()
    for shift in range(3):
        # In base64 the same bytes look different by where they begin; the characters that mix with neighbours are cut.
        whole = base64.b64encode(b"\0" * shift + raw)
        inside = whole[(0, 2, 3)[shift] : len(whole) - (0, 3, 2)[(shift + len(raw)) % 3]]
        yield "as base64", inside
        yield "as base64url", inside.translate(bytes.maketrans(b"+/", b"-_"))
