"""The programs of examples/clients/rabbitmq for aio-pika: run bare, then with the one line changed, and compared."""

from __future__ import annotations

import importlib.util
import uuid
from pathlib import Path
from typing import Any

import aio_pika

from postseal.core import Policy, Sealer
from postseal.rabbitmq import protect
from tests.fakes import FakeKeys

__all__ = ["FOLDER", "ONLY_REAL", "PROGRAMS", "compare"]

FOLDER = Path(__file__).parents[2] / "examples" / "clients" / "rabbitmq"
ONLY_REAL = ["aio_pika_patterns", "aio_pika_transaction"]
"""Those that need what the broker in the process of the tests has not."""
PROGRAMS = sorted(path.stem for path in FOLDER.glob("aio_pika_*.py") if path.stem not in ONLY_REAL)


async def compare(url: str, program: str) -> None:
    """Run *program* on every kind of connection, bare and protected: the application must see the same."""
    for connect in (aio_pika.connect, aio_pika.connect_robust):
        keys = FakeKeys()
        policy = Policy(name="all", destinations=["rabbitmq:*"], keys=["main"])
        sealer = Sealer(sender="shop", policies=[policy], keys={"main": keys})
        bare = await _seen(await connect(url), program)
        ours = await _seen(protect(await connect(url), sealer), program)
        assert bare
        assert ours == bare
        assert keys.calls["generate"] >= 1


async def _seen(connection: Any, program: str) -> Any:
    spec = importlib.util.spec_from_file_location(program, FOLDER / f"{program}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    async with connection:
        return await module.run(connection, f"example-{uuid.uuid4().hex[:12]}")
