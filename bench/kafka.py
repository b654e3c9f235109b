"""What protection costs a Kafka client: messages per second through librdkafka's mock cluster in a process of its own, bare and sealed.

    python bench/kafka.py [--rounds 11] [--json]

A message counts when the broker has confirmed it, or when the application has it. The mock cluster keeps nothing on a disk and does little
for a message, so the share that is ours is about the largest that it can be.
"""

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
import warnings

import confluent_kafka
import confluent_kafka.aio
from confluent_kafka import TopicPartition
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.schema_registry.rule_registry import RuleRegistry
from confluent_kafka.schema_registry.rules.encryption.encrypt_executor import EncryptionExecutor
from confluent_kafka.schema_registry.rules.encryption.localkms.local_driver import LocalKmsDriver
from confluent_kafka.schema_registry.schema_registry_client import (
    Rule,
    RuleKind,
    RuleMode,
    RuleParams,
    RuleSet,
)
from confluent_kafka.serialization import MessageField, SerializationContext

from postseal.core import Policy, Sealer, UnsafeLocalKeys
from postseal.core.accelerator import native
from postseal.kafka import Consumer, Producer, SealingSerializer
from postseal.kafka.aio import AIOProducer

BODY = os.urandom(1024)
SENT = 10_000
"""Messages of one measurement; fewer than librdkafka's queue holds."""
PARTITION = 3_000
"""Messages in one partition: the mock cluster keeps 5 MiB of each."""
SERIALIZED = 300
MOCK = """
import sys, confluent_kafka
mock = confluent_kafka.Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "-", "log_level": 0})
print(",".join(f"{b.host}:{b.port}" for b in mock.list_topics(timeout=10).brokers.values()), flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def mock_cluster():
    """Run the mock cluster in a process of its own; give its address."""
    mock = subprocess.Popen(
        [sys.executable, "-c", MOCK], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        yield mock.stdout.readline().strip()
    finally:
        mock.stdin.close()
        mock.wait(10)
        mock.stdout.close()


def produce(producer, *names):
    """Return messages per second. *names* come before the value, as the client has them."""
    begun = time.perf_counter()
    for _ in range(SENT):
        producer.produce("orders", *names, BODY)
    assert producer.flush(60) == 0
    return SENT / (time.perf_counter() - begun)


async def produce_async(producer):
    """Return messages per second."""
    begun = time.perf_counter()
    reports = [await producer.produce("orders", BODY) for _ in range(SENT)]
    await producer.flush()
    await asyncio.gather(*reports)
    return SENT / (time.perf_counter() - begun)


def consume(consumer, topic):
    """Return messages per second from the first on."""
    partitions = range(4)
    consumer.assign([TopicPartition(topic, partition, 0) for partition in partitions])
    while consumer.poll(10) is None:
        pass
    count = PARTITION * len(partitions)
    begun = time.perf_counter()
    for _ in range(count - 1):
        assert consumer.poll(10).error() is None
    rate = count / (time.perf_counter() - begun)
    consumer.unassign()
    return rate


def pass_through(value, _):
    return value


def in_turn(rounds, bare, ours):
    """Measure both *rounds* times, one after the other; return the median of the bare one's figures, and of the ratios."""
    bare(), ours()  # what is only done once: connections, topics, keys
    figures = [(bare(), ours()) for _ in range(rounds)]
    return statistics.median(b for b, _ in figures), statistics.median(o / b for b, o in figures)


def clients(address, sealer, rounds):
    conf = {"bootstrap.servers": address, "log_level": 0, "linger.ms": 5}
    bare, ours = confluent_kafka.Producer(conf), Producer(conf, sealer=sealer)
    yield "kafka.produce", in_turn(rounds, lambda: produce(bare), lambda: produce(ours))

    serializing = [
        confluent_kafka.SerializingProducer(conf | {"value.serializer": serializer})
        for serializer in (pass_through, SealingSerializer(pass_through, sealer))
    ]
    yield (
        "kafka.serializer",
        in_turn(rounds, lambda: produce(serializing[0], None), lambda: produce(serializing[1], None)),
    )

    with asyncio.Runner() as runner:

        async def make():
            return confluent_kafka.aio.AIOProducer(dict(conf)), AIOProducer(conf, sealer=sealer)

        pair = runner.run(make())
        yield (
            "kafka.aio",
            in_turn(
                rounds, lambda: runner.run(produce_async(pair[0])), lambda: runner.run(produce_async(pair[1]))
            ),
        )
        for producer in pair:
            runner.run(producer.close())

    for partition in range(4):
        for _ in range(PARTITION):
            ours.produce("consumed", BODY, partition=partition)
        assert ours.flush(60) == 0
    group = {"bootstrap.servers": address, "log_level": 0, "group.id": "bench", "enable.auto.commit": False}
    with confluent_kafka.Consumer(group) as polling, Consumer(group, sealer=sealer) as opening:
        yield (
            "kafka.consume",
            in_turn(rounds, lambda: consume(polling, "consumed"), lambda: consume(opening, "consumed")),
        )


def against_confluent(sealer, rounds):
    """Return how many times more than ours Confluent's payload encryption adds to one and the same Avro serializer."""
    RuleRegistry.register_rule_executor(EncryptionExecutor())
    LocalKmsDriver.register()
    client = SchemaRegistryClient.new_client({"url": "mock://"})
    params = {"encrypt.kek.name": "kek", "encrypt.kms.type": "local-kms", "encrypt.kms.key.id": "key"}
    rule = Rule(
        "encrypt", None, RuleKind.TRANSFORM, RuleMode.WRITEREAD, "ENCRYPT_PAYLOAD", None,
        RuleParams(params), None, None, "ERROR,NONE", disabled=False,
    )  # fmt: skip
    client.register_schema("plain-value", Schema('"bytes"', "AVRO", []))
    client.register_schema(
        "encrypted-value", Schema('"bytes"', "AVRO", [], None, RuleSet(None, None, [rule]))
    )
    options = {"auto.register.schemas": False, "use.latest.version": True}
    avro = AvroSerializer(client, conf=options, rule_conf={"secret": "only for this measurement"})
    serializers = {
        "plain": (avro, SerializationContext("plain", MessageField.VALUE)),
        "ours": (SealingSerializer(avro, sealer), SerializationContext("plain", MessageField.VALUE)),
        "theirs": (avro, SerializationContext("encrypted", MessageField.VALUE)),
    }

    def seconds(name):
        serializer, context = serializers[name]
        begun = time.perf_counter()
        for _ in range(SERIALIZED):
            serializer(BODY, context)
        return (time.perf_counter() - begun) / SERIALIZED

    for name in serializers:
        seconds(name)
    taken = [{name: seconds(name) for name in serializers} for _ in range(3 * rounds)]
    least = {name: statistics.median(round_[name] for round_ in taken) for name in serializers}
    return (least["theirs"] - least["plain"]) / (least["ours"] - least["plain"])


def measure(rounds):
    """Return the figures by their names: shares of the bare client's messages per second, and how many times dearer Confluent's is."""
    figures, _ = _measure(rounds)
    return figures


def _measure(rounds):
    warnings.simplefilter("ignore")
    policy = Policy(
        name="orders", destinations=["kafka:orders", "kafka:consumed", "kafka:plain"], keys=["main"]
    )
    sealer = Sealer(sender="shop", policies=[policy], keys={"main": UnsafeLocalKeys.ephemeral()})
    figures, bare = {}, {}
    with mock_cluster() as address:
        for name, (rate, ratio) in clients(address, sealer, rounds):
            figures[name], bare[name] = round(ratio, 3), round(rate)
    figures["kafka.vs_cspe"] = round(against_confluent(sealer, rounds), 1)
    return figures, bare


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    figures, bare = _measure(arguments.rounds)
    if arguments.json:
        print(json.dumps({"accelerator": native() is not None, **figures}, indent=2))
        return
    for name, figure in figures.items():
        what = f"{bare[name]:>9,}/s bare, sealed of it" if name in bare else "what is added, theirs to ours:"
        print(f"{name:18}{what} {figure}")


if __name__ == "__main__":
    main()
