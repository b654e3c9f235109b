"""Share durable tasks between two workers, one at a time each, acknowledged when done."""

import os

import pika

TASKS = [f"task {number} of tenant Zoë" for number in range(6)]


def run(connection, name="task_queue"):
    """Return the tasks that were done, in order of their names."""
    done = []
    channel = connection.channel()
    channel.queue_declare(queue=name, durable=True)
    for task in TASKS:
        channel.basic_publish(
            exchange="",
            routing_key=name,
            body=task,
            properties=pika.BasicProperties(
                delivery_mode=pika.DeliveryMode.Persistent, content_type="text/plain"
            ),
        )

    def work(ch, method, properties, body):
        done.append((body.decode(), properties.content_type, properties.delivery_mode))
        ch.basic_ack(delivery_tag=method.delivery_tag)

    for worker in (connection.channel(), connection.channel()):
        worker.basic_qos(prefetch_count=1)
        worker.basic_consume(queue=name, on_message_callback=work)
    while len(done) < len(TASKS):
        connection.process_data_events(time_limit=1)
    channel.queue_delete(name)
    return sorted(done)


def main():
    with pika.BlockingConnection(pika.URLParameters(os.environ["RABBITMQ_URL"])) as connection:
        print(run(connection))


if __name__ == "__main__":
    main()
