"""SQS: moto's, in this process, with boto3."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from typing import Any, Final

from postseal.core import Refused, Sealer
from postseal.core.cli._broker import CONTENT_TYPE, Held, Until
from postseal.core.cli._encodings import read
from postseal.core.cli._orders import Order
from postseal.sqs import protect

__all__ = ["Sqs"]

_BATCH: Final = 10
"""Messages of one call at most. Source: SQS API, SendMessageBatch."""


class Sqs:
    """Two queues that live as long as the emulator.

    Args:
        make_client: Makes an SQS client.
    """

    name = "SQS"
    scheme = "sqs"
    where = "moto, in this process"
    settled = "on the queue, for its redrive policy"

    def __init__(self, make_client: Callable[[], Any]) -> None:
        self._make_client = make_client
        self._bare = make_client()
        self._urls = {
            name: self._bare.create_queue(QueueName=name)["QueueUrl"] for name in ("orders", "refunds")
        }

    # -- with the adapter: what a program looks like ---------------------------------------------------------------

    def send(self, sealer: Sealer, orders: Sequence[Order]) -> None:
        """Send as any producer does; `protect` is the one line."""
        sqs = protect(self._make_client(), sealer)
        for start in range(0, len(orders), _BATCH):
            entries = [
                {
                    "Id": order.number,
                    "MessageBody": order.to_json().decode(),
                    "MessageAttributes": _attributes(CONTENT_TYPE),
                }
                for order in orders[start : start + _BATCH]
            ]
            sqs.send_message_batch(QueueUrl=self._urls["orders"], Entries=entries)

    def receive(self, sealer: Sealer, handle: Callable[[bytes], None], done: Until) -> None:
        """Receive as any consumer does: what is refused never gets here."""
        sqs = protect(self._make_client(), sealer)
        while not done():
            for url in self._urls.values():
                answer = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=_BATCH)
                for message in answer.get("Messages", []):
                    handle(message["Body"].encode())
                    sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])

    # -- with bare clients: what an administrator can do -----------------------------------------------------------

    def look(self, count: int) -> list[Held]:
        """Read *count* messages of the queue ``orders``, then let the consumers have them."""
        url = self._urls["orders"]
        messages: list[dict[str, Any]] = []
        while len(messages) < count:
            answer = self._bare.receive_message(
                QueueUrl=url, MaxNumberOfMessages=_BATCH, MessageAttributeNames=["All"]
            )
            if "Messages" not in answer:
                break
            messages += answer["Messages"]
        for message in messages:
            self._bare.change_message_visibility(
                QueueUrl=url, ReceiptHandle=message["ReceiptHandle"], VisibilityTimeout=0
            )
        return [_held(message) for message in messages]

    def put(self, place: str, message: Held) -> None:
        """Send *message* as it is."""
        attributes = {} if message.content_type is None else _attributes(message.content_type)
        self._bare.send_message(
            QueueUrl=self._urls[place], MessageBody=message.body.decode(), MessageAttributes=attributes
        )

    def refused(self) -> int:
        """Count what was received and never deleted."""
        name = "ApproximateNumberOfMessagesNotVisible"
        return sum(
            int(self._bare.get_queue_attributes(QueueUrl=url, AttributeNames=[name])["Attributes"][name])
            for url in self._urls.values()
        )

    def envelope(self, body: bytes) -> bytes:
        """Return the envelope that is written in *body* as base64url: SQS takes text only."""
        try:
            return read(body, "base64url").data
        except Refused:  # nothing was sealed
            return body

    def body(self, envelope: bytes) -> bytes:
        """Write *envelope* likewise."""
        return base64.urlsafe_b64encode(envelope).rstrip(b"=")

    def close(self) -> None:
        """Do nothing: nothing is kept open."""


def _attributes(content_type: str) -> dict[str, dict[str, str]]:
    return {"content-type": {"DataType": "String", "StringValue": content_type}}


def _held(message: dict[str, Any]) -> Held:
    attribute = message.get("MessageAttributes", {}).get("content-type", {})
    return Held(message["Body"].encode(), None, attribute.get("StringValue"))
