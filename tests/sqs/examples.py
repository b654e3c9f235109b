"""Runs the programs of examples/clients/sqs, bare and with the one line changed, and compares what they see."""

from __future__ import annotations

import importlib.util
import json
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from postseal.core import Policy, Sealer
from postseal.sqs import protect
from postseal.sqs._text import envelope_of
from tests.fakes import local_keys

__all__ = ["ASYNC", "FAN_OUT", "SYNC", "Travelled", "compare", "program"]

_FOLDER = Path(__file__).parents[2] / "examples" / "clients" / "sqs"

SYNC = {
    "messages": "client",
    "batches": "client",
    "fifo": "client",
    "resource": "resource",
    "visibility": "client",
    "dead_letters": "client",
}
"""Each program, and what of boto3 it is given."""
ASYNC = ("aio_tasks",)
FAN_OUT = ("fan_out",)


def program(name: str) -> Any:
    """Load a program."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", _FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Travelled:
    """The bodies that left clients, whichever service they went to."""

    def __init__(self) -> None:
        self.bodies: list[str] = []

    def listen(self, client: Any) -> Any:
        """Note what *client* sends."""
        # A resource has its client in `meta`.
        client = getattr(client.meta, "client", client)
        client.meta.events.register_first("before-send", self._on_send)
        return client

    def _on_send(self, request: Any, event_name: str, **_: Any) -> None:
        operation = event_name.rpartition(".")[2]
        if operation in {"SendMessage", "SendMessageBatch"}:
            params = json.loads(request.body)
            self.bodies += [entry["MessageBody"] for entry in params.get("Entries", [params])]
        elif operation in {"Publish", "PublishBatch"}:
            text = request.body.decode() if isinstance(request.body, bytes) else request.body
            self.bodies += [
                value
                for name, values in parse_qs(text).items()
                for value in values
                if name == "Message" or name.endswith(".Message")
            ]

    def take(self) -> list[str]:
        """Return what was noted since it was last taken."""
        taken, self.bodies = self.bodies, []
        return taken


def compare(run: Callable[[Callable[[Any], Any], str], Any], travelled: Travelled) -> None:
    """Have *run* run a program twice, and see that it saw the same, and that nothing lay in clear the second time.

    Args:
        run: Runs it with clients made as they are told, and with queues of that name.
        travelled: Notes what its clients send.
    """
    name = f"example-{uuid.uuid4().hex[:8]}"
    bare = run(lambda client: client, name)
    assert bare
    assert not any(_looks_sealed(body) for body in travelled.take())

    name = f"example-{uuid.uuid4().hex[:8]}"
    policies = [
        Policy(
            name="queues",
            destinations=[f"sqs:{name}", f"sqs:{name}.fifo"],
            accept_from=[f"sqs:{name}-dlq"],
            keys=["main"],
        ),
        Policy(
            name="topics",
            destinations=[f"sns:{name}"],
            accept_from=[f"sqs:{name}-raw", f"sqs:{name}-wrapped"],
            keys=["main"],
        ),
    ]
    sealer = Sealer(
        sender="shop", policies=policies, keys={"main": local_keys()}, deduplication_secret=bytes(range(32))
    )
    assert run(lambda client: protect(client, sealer), name) == bare  # the one line
    sealed = travelled.take()
    assert sealed
    assert all(_looks_sealed(body) for body in sealed)


def _looks_sealed(body: str) -> bool:
    return envelope_of(body) is not None
