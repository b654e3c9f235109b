"""The ledger of deliveries: which messages were settled here, so that a copy of one is known for what it is.

Brokers deliver again what was not settled; that is no replay. So the ledger is written when a message is settled, and not when it is
verified.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from postseal.core.replay._ledger import Ledger, LedgerFailure, MemoryLedger, Receipt, StoredLedger
from postseal.core.replay._register import Register, digest_of
from postseal.core.replay._windows import ReplayWindow, Windows

if TYPE_CHECKING:
    from postseal.core.replay._redis import RedisLedger
    from postseal.core.replay._sqlite import SqliteLedger

__all__ = [
    "Ledger",
    "LedgerFailure",
    "MemoryLedger",
    "Receipt",
    "RedisLedger",
    "Register",
    "ReplayWindow",
    "SqliteLedger",
    "StoredLedger",
    "Windows",
    "digest_of",
]

_LAZY = {"RedisLedger": "postseal.core.replay._redis", "SqliteLedger": "postseal.core.replay._sqlite"}
"""Stores are loaded by who uses them."""


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415 - for these few alone

    return getattr(import_module(_LAZY[name]), name)
