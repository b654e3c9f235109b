"""Runs the examples of `examples/clients/rabbitmq` with pika: bare, then with the one line changed."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from postseal.core import Policy, Sealer
from postseal.rabbitmq import protect
from tests.fakes import FakeKeys

__all__ = ["BLOCKING", "bare_and_protected", "load"]

FOLDER = Path(__file__).parents[2] / "examples" / "clients" / "rabbitmq"
BLOCKING = [
    "basic_get",
    "consume_generator",
    "hello_world",
    "publish_subscribe",
    "publisher_confirms",
    "routing",
    "rpc",
    "topics",
    "work_queues",
]


def load(topic: str) -> ModuleType:
    """Import an example by its file."""
    spec = importlib.util.spec_from_file_location(topic, FOLDER / f"{topic}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def bare_and_protected(
    topic: str, connect: Callable[[], Any], name: str, close: Callable[[Any], None]
) -> tuple[Any, Any, Sealer]:
    """Run an example both ways; return what the application saw, and the sealer.

    Args:
        topic: Name of its file.
        connect: Makes a connection.
        name: For its queues, which nobody else uses.
        close: Closes a connection.
    """
    policy = Policy(name="all", destinations=["rabbitmq:*"], keys=["main"])
    sealer = Sealer(sender="shop", policies=[policy], keys={"main": FakeKeys()})
    run, seen = load(topic).run, []
    for connection in (connect(), protect(connect(), sealer)):
        seen.append(run(connection, name))
        close(connection)
    return seen[0], seen[1], sealer
