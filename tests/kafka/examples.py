"""The programs of examples/clients/kafka, run bare and with the one line changed; what they see is compared."""

from __future__ import annotations

import asyncio
import importlib.util
import inspect
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import confluent_kafka
import confluent_kafka.aio

import postseal.kafka
import postseal.kafka.aio
from postseal.core import Policy, Sealer
from postseal.core.wire import looks_sealed
from tests.fakes import FakeKeys
from tests.kafka.lines import KafkaLine

__all__ = ["PROGRAMS", "compare"]

FOLDER = Path(__file__).parents[2] / "examples" / "clients" / "kafka"
PROGRAMS = {
    "delivery_reports": [""],
    "consumer": [""],
    "batches": [""],
    "serializers": ["-avro", "-json", "-protobuf"],
    "asyncio_clients": [""],
    "transactions": ["-in", "-out"],
}
"""Each with the endings of the topics that it writes to. Transactions need a real broker."""


def _program(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _changed(sealer: Sealer) -> Any:
    """What a program has after the one line: classes of the same names, of ours, with the sealer."""
    sealed = (
        ["Producer", "Consumer", "SerializingProducer", "DeserializingConsumer"],
        ["AIOProducer", "AIOConsumer"],
    )
    return SimpleNamespace(
        **{name: partial(getattr(postseal.kafka, name), sealer=sealer) for name in sealed[0]},
        **{name: partial(getattr(postseal.kafka.aio, name), sealer=sealer) for name in sealed[1]},
    )


def _run(name: str, kafka: Any, line: KafkaLine, topic: str) -> list[Any]:
    # A group of the new protocol is ready at once; a producer passes these over.
    conf = {"group.protocol": "consumer", "fetch.wait.max.ms": 20} | line.conf()
    seen = _program(name).run(kafka, conf, topic)
    return asyncio.run(seen) if inspect.iscoroutine(seen) else seen


def compare(name: str, line: KafkaLine, make_topic: Any) -> None:
    """Run the program of that *name* bare, then sealed: it sees the same, and the broker holds clear text, then none."""
    endings = PROGRAMS[name]
    topics = {True: line.place(), False: line.place()}
    for topic in topics.values():
        for ending in filter(None, endings):
            make_topic(topic + ending)
    bare = confluent_kafka.aio if name.startswith("asyncio") else confluent_kafka
    policy = Policy(name="examples", destinations=[f"kafka:{topics[True]}*"], keys=["main"])
    sealer = Sealer(sender="shop", policies=[policy], keys={"main": FakeKeys()})
    seen = {
        sealed: _run(name, _changed(sealer) if sealed else bare, line, topic)
        for sealed, topic in topics.items()
    }
    assert seen[True] == seen[False]
    assert len(seen[True]) >= 4
    for sealed, topic in topics.items():
        for ending in endings:
            held = [m.value() for m in line.messages(topic + ending, 1)]
            assert [looks_sealed(value) for value in held if value is not None] == [sealed] * len(
                [value for value in held if value is not None]
            )
