"""postseal for RabbitMQ, with pika and aio-pika: seals what is published, opens what is delivered."""

from importlib.util import find_spec

from postseal.core import MissingExtraError

__all__: list[str] = []

if find_spec("pika") is None and find_spec("aio_pika") is None:
    raise MissingExtraError.naming("rabbitmq", __name__, ImportError("pika"))
