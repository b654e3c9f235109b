"""The examples of the client's own things, bare and with the one line changed."""

from __future__ import annotations

import asyncio
import importlib.util
from pathlib import Path
from typing import Any

from azure.servicebus import ServiceBusClient
from azure.servicebus import aio as azure_aio

from postseal.core import Policy, Sealer
from postseal.servicebus import protect
from tests.fakes import local_keys
from tests.servicebus.lines import Server

__all__ = ["TOPICS", "bare_and_protected"]

_FOLDER = Path(__file__).parents[2] / "examples" / "clients" / "servicebus"
TOPICS = sorted(path.stem for path in _FOLDER.glob("*.py"))


def bare_and_protected(server: Server, topic: str) -> tuple[list[Any], list[Any], int]:
    """Run the example *topic* bare, then protected, each on an entity of its own.

    Returns:
        What the application saw bare, what it saw protected, and how many data keys were asked for: none would mean that nothing was sealed.
    """
    asked = 0

    def sealer(name: str) -> Sealer:
        policy = Policy(name="orders", destinations=[f"servicebus:{name}"], keys=["main"])
        keys = local_keys()
        generate = keys.generate

        def counted(context: Any) -> Any:
            nonlocal asked
            asked += 1
            return generate(context)

        keys.generate = counted  # type: ignore[method-assign]
        return Sealer(sender="shop", policies=[policy], keys={"main": keys})

    seen = [_seen(server, topic, sealer if protected else None) for protected in (False, True)]
    return seen[0], seen[1], asked


def _seen(server: Server, topic: str, sealer: Any) -> list[Any]:
    run = _loaded(topic).run
    names = _entity(server, topic)
    if not topic.startswith("aio_"):
        with ServiceBusClient.from_connection_string(server.address) as client:
            return list(run(protect(client, sealer(names[0])) if sealer else client, *names))

    async def main() -> list[Any]:
        async with azure_aio.ServiceBusClient.from_connection_string(server.address) as client:
            return list(await run(protect(client, sealer(names[0])) if sealer else client, *names))

    return asyncio.run(main())


def _entity(server: Server, topic: str) -> tuple[str, ...]:
    if topic.endswith("topic"):
        return server.new_topic("first"), "first"
    return (server.new_queue(**({"requires_session": True} if topic.endswith("sessions") else {})),)


def _loaded(topic: str) -> Any:
    spec = importlib.util.spec_from_file_location(f"client_example_{topic}", _FOLDER / f"{topic}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
