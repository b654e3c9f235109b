"""Orders through RabbitMQ, sealed: what the application publishes, what the queue holds, what the consumer gets; and a forged one.

pip install 'postseal[rabbitmq]'
RABBITMQ_URL=amqp://guest:guest@localhost python examples/rabbitmq_orders.py
"""

import logging
import os
import warnings

import pika

from postseal.core import AuditEvent, Policy, Sealer, UnsafeLocalKeys
from postseal.rabbitmq import VERDICT_HEADER, protect

ORDER = '{"order": 4711, "card": "4111 1111 1111 1111"}'


def audit(event: AuditEvent) -> None:
    print(f"  audit       {event.verdict}: {event.detail} ({event.destination})")


def main() -> None:
    orders = Policy(
        name="orders",
        destinations=["rabbitmq:shop/orders.#"],
        keys=["main"],
        bind_headers=["correlation_id", "tenant"],
        on_refused="quarantine",
        quarantine="rabbitmq:/orders.refused",
    )
    # In production: AwsKms(boto3.client("kms"), "arn:aws:kms:...").
    keys = {"main": UnsafeLocalKeys.ephemeral()}
    sealer = Sealer(sender="shop", policies=[orders], keys=keys, on_audit=audit)

    parameters = pika.URLParameters(os.environ.get("RABBITMQ_URL", "amqp://guest:guest@localhost"))
    attacker = pika.BlockingConnection(parameters).channel()
    connection = protect(pika.BlockingConnection(parameters), sealer)  # the one line

    channel = connection.channel()
    channel.exchange_declare("shop", "topic")
    for queue in ("orders", "orders.refused"):
        channel.queue_declare(queue)
        channel.queue_purge(queue)
    channel.queue_bind("orders", "shop", "orders.#")
    channel.confirm_delivery()

    print(f"published     {ORDER}")
    properties = pika.BasicProperties(correlation_id="7", headers={"tenant": "north"})
    channel.basic_publish("shop", "orders.new", ORDER, properties)

    method, properties, held = attacker.basic_get("orders")
    print(f"queue holds   {held[:30]!r}... ({len(held)} bytes)")
    properties.headers = {"tenant": "south"}
    attacker.basic_publish("shop", "orders.new", held, properties)
    attacker.basic_publish("shop", "orders.new", '{"order": 666}')
    attacker.basic_nack(method.delivery_tag, requeue=True)
    injected = 2
    print("injected      the same order for another tenant, and one in clear")

    def on_message(channel, method, _, body):
        print(f"consumer gets {body.decode()}")
        channel.basic_ack(method.delivery_tag)

    channel.basic_consume("orders", on_message)
    for _, properties, body in attacker.consume("orders.refused", auto_ack=True, inactivity_timeout=0.2):
        if body is not None:
            print(f"quarantined   {properties.headers[VERDICT_HEADER]}: {body[:40]!r}")
            injected -= 1
        if not injected:
            break
        connection.process_data_events(0.2)
    connection.close()
    attacker.connection.close()


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    main()
