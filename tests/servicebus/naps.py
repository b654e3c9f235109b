"""Shorter naps for azure-servicebus: it polls every 50 ms for a link to open, and lets a thread sleep for a second that `close` waits for.

Against a server on this machine that is nearly all the time of a test. Nothing else of the client is changed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any

import pytest

__all__ = ["short_naps"]

_BLOCKING = (
    "_servicebus_sender",
    "_servicebus_receiver",
    "_pyamqp.client",
    "_pyamqp._connection",
    "_pyamqp.session",
)
_ASYNCIO = (
    "aio._servicebus_sender_async",
    "aio._servicebus_receiver_async",
    "_pyamqp.aio._client_async",
    "_pyamqp.aio._connection_async",
    "_pyamqp.aio._session_async",
)


class _Quick:
    """A module as those of the client see it, but for its ``sleep``."""

    def __init__(self, module: ModuleType) -> None:
        self._module = module

    def sleep(self, seconds: float) -> Any:
        return self._module.sleep(seconds / 25)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


@contextmanager
def short_naps() -> Iterator[None]:
    """Have the client nap for a twenty-fifth of its time."""
    with pytest.MonkeyPatch.context() as patch:
        for names, module in ((_BLOCKING, time), (_ASYNCIO, asyncio)):
            for name in names:
                patch.setattr(import_module(f"azure.servicebus.{name}"), module.__name__, _Quick(module))
        yield
