"""postseal for Kafka in asyncio, with `confluent_kafka.aio`: the same names, the one import swapped.

A working program, which needs a broker; ``examples/clients/kafka/asyncio_clients.py`` shows more::

    from postseal.core import Policy, Sealer, UnsafeLocalKeys
    from postseal.kafka.aio import AIOConsumer, AIOProducer  # instead of confluent_kafka.aio

    orders = Policy(name="orders", destinations=["kafka:orders"], keys=["main"])
    sealer = Sealer(sender="shop", policies=[orders], keys={"main": UnsafeLocalKeys.ephemeral()})

    async def main():
        producer = AIOProducer({"bootstrap.servers": "localhost:9092"}, sealer=sealer)
        report = await producer.produce("orders", b"4111 1111 1111 1111", key="4711")
        await producer.flush()
        await report

        conf = {"bootstrap.servers": "localhost:9092", "group.id": "billing", "auto.offset.reset": "earliest"}
        async with AIOConsumer(conf, sealer=sealer) as consumer:
            await consumer.subscribe(["orders"])
            print((await consumer.poll(30)).value())

    asyncio.run(main())

A key service is never asked on the event loop; with a data key in the cache, sealing and opening ask nobody. See docs/kafka.md.
"""

from postseal.core import MissingExtraError

try:
    import confluent_kafka.aio as _aio  # noqa: F401 - asks whether it is there
except ImportError as missing:
    raise MissingExtraError(
        "postseal.kafka.aio needs confluent_kafka.aio, which confluent-kafka has from 2.13 on: "
        "pip install 'postseal[kafka]' 'confluent-kafka>=2.13'"
    ) from missing

from postseal.kafka.aio._consumer import AIOConsumer
from postseal.kafka.aio._producer import AIOProducer
from postseal.kafka.aio._serializer import AsyncOpeningDeserializer, AsyncSealingSerializer

__all__ = ["AIOConsumer", "AIOProducer", "AsyncOpeningDeserializer", "AsyncSealingSerializer"]
