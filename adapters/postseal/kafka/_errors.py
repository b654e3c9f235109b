"""Errors that are both ours and the client's, so that code which knows either catches them."""

from __future__ import annotations

from confluent_kafka import KafkaException, Message

from postseal.core import Refused, TooLarge

__all__ = ["MessageTooLarge", "RefusedMessage"]


class RefusedMessage(Refused):
    """A message that will never be handed on.

    Attributes:
        kafka_message: The message as it lay at the broker: still sealed, or the clear text that somebody injected. For its coordinates, or
            to move it away; never for its value.
    """

    def __init__(self, refused: Refused, kafka_message: Message) -> None:
        super().__init__(refused.verdict, refused.detail, destination=refused.destination)
        self.kafka_message = kafka_message


class MessageTooLarge(TooLarge, KafkaException):
    """A message that, once sealed, is over ``message.max.bytes``. Nothing was sent.

    It is a `KafkaException` of code ``MSG_SIZE_TOO_LARGE``, too, as the client itself would raise.

    Attributes:
        clear_size: Bytes of the value as it was given.
        sealed_size: Bytes of it once sealed.
    """

    def __init__(self, error: KafkaException, clear_size: int, sealed_size: int) -> None:
        super().__init__(*error.args)
        self.clear_size = clear_size
        self.sealed_size = sealed_size

    def __str__(self) -> str:
        return (
            f"a value of {self.clear_size:,} bytes is {self.sealed_size:,} bytes once sealed, "
            f"and too large for message.max.bytes: {self.args[0]}"
        )
