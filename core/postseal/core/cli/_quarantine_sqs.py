"""Quarantine queues of SQS. To look at a message is to receive it; it is shown to others again at the end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final
from uuid import uuid4

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from postseal.core.cli._held import Held, Quarantine, aud_of, named
from postseal.core.errors import ConfigError
from postseal.sqs._text import envelope_of, text_of

__all__ = ["connect"]

_VERDICT: Final = "postseal-verdict"
_DESTINATION: Final = "postseal-destination"
_HIDDEN: Final = 300
"""Seconds for which what is looked at is hidden from others."""


def connect(name: str, address: str | None) -> SqsQuarantine:
    """Connect to the queue *name*, with AWS's own environment and settings."""
    try:
        client = boto3.client("sqs", endpoint_url=address)
        return SqsQuarantine(client, name)
    except (BotoCoreError, ClientError) as error:
        raise ConfigError(f"SQS does not answer for {name!r}: {error}") from error


class SqsQuarantine(Quarantine):
    """A quarantine queue."""

    def __init__(self, client: Any, name: str) -> None:
        self._client = client
        self._url = client.get_queue_url(QueueName=name)["QueueUrl"]
        self._seen: dict[str, str] = {}

    def each(self, *, taking: bool) -> Iterator[Held]:
        """Receive until nothing comes any more."""
        del taking
        while True:
            answer = self._client.receive_message(
                QueueUrl=self._url,
                MaxNumberOfMessages=10,
                WaitTimeSeconds=1,
                VisibilityTimeout=_HIDDEN,
                MessageAttributeNames=["All"],
                MessageSystemAttributeNames=["All"],
            )
            messages = answer.get("Messages", ())
            if not messages:
                return
            fresh = [message for message in messages if message["MessageId"] not in self._seen]
            for message in messages:
                self._seen[message["MessageId"]] = message["ReceiptHandle"]
            if not fresh:
                return
            for message in fresh:
                yield _held(message)

    def send_back(self, held: Held, destination: str) -> None:
        """Send it to its queue."""
        attributes = {
            n: v
            for n, v in (held.native.get("MessageAttributes") or {}).items()
            if n not in (_VERDICT, _DESTINATION)
        }
        self._send(held, held.native["Body"], attributes, destination)

    def move(self, held: Held, body: bytes, destination: str) -> None:
        """Send it to that queue."""
        text = held.native["Body"] if body == held.body else text_of(body)
        self._send(held, text, held.native.get("MessageAttributes") or {}, destination)

    def _send(self, held: Held, text: str, attributes: dict[str, Any], destination: str) -> None:
        name = named(destination, "sqs")
        params: dict[str, Any] = {"MessageBody": text, "MessageAttributes": attributes}
        if name.endswith(".fifo"):
            group = held.native.get("Attributes", {}).get("MessageGroupId", "replayed")
            params |= {"MessageGroupId": group, "MessageDeduplicationId": uuid4().hex}
        try:
            url = self._client.get_queue_url(QueueName=name)["QueueUrl"]
            self._client.send_message(QueueUrl=url, **params)
        except ClientError as error:
            raise ConfigError(f"SQS did not take {held.id} for {name!r}: {error}") from error

    def take_out(self, messages: Sequence[Held]) -> None:
        """Delete them."""
        for held in messages:
            self._client.delete_message(QueueUrl=self._url, ReceiptHandle=held.native["ReceiptHandle"])
            self._seen.pop(held.id, None)

    def close(self) -> None:
        """Show the rest to others again."""
        for handle in self._seen.values():
            self._client.change_message_visibility(
                QueueUrl=self._url, ReceiptHandle=handle, VisibilityTimeout=0
            )


def _held(message: dict[str, Any]) -> Held:
    text: str = message["Body"]
    body = envelope_of(text) or text.encode("utf-8", "surrogatepass")
    sent = message.get("Attributes", {}).get("SentTimestamp")
    attributes = message.get("MessageAttributes") or {}
    verdict = attributes.get(_VERDICT, {}).get("StringValue")
    return Held(
        id=message["MessageId"],
        body=body,
        verdict=verdict,
        source=attributes.get(_DESTINATION, {}).get("StringValue") or aud_of(body, "sqs"),
        at=None if sent is None else datetime.fromtimestamp(int(sent) / 1000, UTC),
        native=message,
    )
