"""SQS as the contract of all adapters sees it: through a client, through the resource API, through FIFO queues."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from typing import Any, ClassVar, Self

from postseal.core import Refused, Sealer
from postseal.sqs import protect
from postseal.sqs._text import envelope_of, text_of
from tests.contract import Line, Raw, Receiving

__all__ = ["AioLine", "Aiobotocore", "ClientLine", "FifoLine", "ResourceLine", "attributes"]

Clients = Callable[[], Any]


class ClientLine(Line):
    """Standard queues, through ``boto3.client("sqs")``.

    Args:
        clients: Makes a client, unprotected, of the same SQS each time.
        shown: Seconds for which a message is hidden from others after it was received.
    """

    scheme: ClassVar[str] = "sqs"
    ordered: ClassVar[bool] = False
    suffix: ClassVar[str] = ""
    queue_attributes: ClassVar[Mapping[str, str]] = {}

    def __init__(self, clients: Clients) -> None:
        self._clients = clients
        self.bare = clients()

    # -- places ----------------------------------------------------------------------------------------------------

    def place(self, **options: str) -> str:
        name = f"orders-{uuid.uuid4().hex[:12]}{self.suffix}"
        self.bare.create_queue(QueueName=name, Attributes={**self.queue_attributes, **options})
        return name

    def place_with_dead_letters(self) -> tuple[str, str]:
        dead = self.place()
        arn = self.bare.get_queue_attributes(QueueUrl=self.url(dead), AttributeNames=["QueueArn"])
        redrive = {"deadLetterTargetArn": arn["Attributes"]["QueueArn"], "maxReceiveCount": "3"}
        return self.place(RedrivePolicy=json.dumps(redrive), VisibilityTimeout="1"), dead

    def url(self, place: str) -> str:
        url: str = self.bare.get_queue_url(QueueName=place)["QueueUrl"]
        return url

    def envelope(self, body: bytes) -> bytes:
        envelope = envelope_of(body.decode())
        assert envelope is not None
        return envelope

    def body(self, envelope: bytes) -> bytes:
        return text_of(envelope).encode()

    # -- the adapter -----------------------------------------------------------------------------------------------

    def protected(self, sealer: Sealer, **options: Any) -> Any:
        """Make a client of its own for *sealer*."""
        options = {"come_again_after": 0, "sleep": lambda _: None} | options
        return protect(self._clients(), sealer, **options)

    def ordering(self, entry: dict[str, Any]) -> dict[str, Any]:
        """Add what queues of this kind want of a message."""
        return entry

    def send(
        self, sealer: Sealer, place: str, body: bytes | None, headers: Mapping[str, str] | None = None
    ) -> None:
        assert body is not None
        message = self.ordering({"MessageBody": body.decode(), "MessageAttributes": attributes(headers)})
        self.protected(sealer).send_message(QueueUrl=self.url(place), **message)

    def batch(self, place: str, bodies: list[bytes]) -> Any:
        return [{"Id": str(at), "MessageBody": body.decode()} for at, body in enumerate(bodies)]

    def send_batch(self, sealer: Sealer, place: str, batch: Any) -> None:
        entries = [self.ordering(entry) for entry in batch] if self.suffix else batch
        answer = self.protected(sealer).send_message_batch(QueueUrl=self.url(place), Entries=entries)
        assert len(answer["Successful"]) == len(batch)

    @contextmanager
    def receiving(self, sealer: Sealer, place: str, *, settles: bool = True) -> Iterator[Receiving]:
        receiving = self.at_work(sealer, self.url(place), settles)
        yield receiving
        receiving.give_back()

    def at_work(self, sealer: Sealer, url: str, settles: bool) -> ClientReceiving:
        return ClientReceiving(self.protected(sealer), url, settles)

    # -- bare clients ----------------------------------------------------------------------------------------------

    def put(self, place: str, *messages: Raw) -> None:
        for raw in messages:
            assert raw.body is not None
            message = {"MessageBody": raw.body.decode(), "MessageAttributes": attributes(raw.headers)}
            self.bare.send_message(QueueUrl=self.url(place), **self.ordering(message))

    def held(self, place: str, count: int) -> list[Raw]:
        url, seen = self.url(place), {}
        for _ in range(50):
            answer = self.bare.receive_message(
                QueueUrl=url,
                VisibilityTimeout=0,
                MaxNumberOfMessages=10,
                WaitTimeSeconds=1,
                MessageAttributeNames=["All"],
            )
            for message in answer.get("Messages", ()):
                seen[message["MessageId"]] = Raw(message["Body"].encode(), _headers(message))
            if len(seen) >= count:
                return list(seen.values())
        raise AssertionError(f"{place} holds {len(seen)} of {count}")

    def has_message(self, place: str) -> bool:
        names = ["ApproximateNumberOfMessages"]
        answer = self.bare.get_queue_attributes(QueueUrl=self.url(place), AttributeNames=names)
        return int(answer["Attributes"][names[0]]) > 0


class ClientReceiving(Receiving):
    def __init__(self, client: Any, url: str, settles: bool) -> None:
        super().__init__()
        self._client = client
        self._url = url
        self._settles = settles
        self._unsettled: list[str] = []

    def step(self) -> None:
        try:
            answer = self._client.receive_message(
                QueueUrl=self._url, MaxNumberOfMessages=10, WaitTimeSeconds=1, MessageAttributeNames=["All"]
            )
        except Refused as error:
            self.refused.append(error)
            return
        for message in answer.get("Messages", ()):
            self.got(message["Body"].encode(), _headers(message))
            if self._settles:
                self._client.delete_message(QueueUrl=self._url, ReceiptHandle=message["ReceiptHandle"])
            else:
                self._unsettled.append(message["ReceiptHandle"])

    def give_back(self) -> None:
        for handle in self._unsettled:
            self._client.change_message_visibility(
                QueueUrl=self._url, ReceiptHandle=handle, VisibilityTimeout=0
            )


class FifoLine(ClientLine):
    """FIFO queues, all messages in one group."""

    ordered: ClassVar[bool] = True
    suffix: ClassVar[str] = ".fifo"
    queue_attributes: ClassVar[Mapping[str, str]] = {"FifoQueue": "true"}

    def ordering(self, entry: dict[str, Any]) -> dict[str, Any]:
        return {**entry, "MessageGroupId": "all", "MessageDeduplicationId": uuid.uuid4().hex}


class Aiobotocore:
    """Clients of aiobotocore on a loop of their own, each behind a face without coroutines.

    Args:
        options: What ``create_client`` takes besides the service.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        from aiobotocore.config import AioConfig
        from aiobotocore.session import get_session

        config = AioConfig(retries={"total_max_attempts": 2}, connect_timeout=5, read_timeout=60)
        self._options = {**options, "config": config}
        self._session = get_session()
        self._runner = asyncio.Runner()
        self._stack = AsyncExitStack()

    def run(self, coroutine: Any) -> Any:
        """Run *coroutine* to its end."""
        return self._runner.run(coroutine)

    def client(self, service: str = "sqs") -> Any:
        """Make a client, unprotected. It works in this loop only."""
        return self.run(
            self._stack.enter_async_context(self._session.create_client(service, **self._options))
        )

    def blocking(self, client: Any) -> Any:
        """Return what calls methods of *client* and waits for them."""
        return _Blocking(client, self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.run(self._stack.aclose())
        self._runner.close()


class _Blocking:
    def __init__(self, client: Any, aio: Aiobotocore) -> None:
        self._client = client
        self._aio = aio

    def __getattr__(self, name: str) -> Any:
        return lambda **params: self._aio.run(getattr(self._client, name)(**params))


class AioLine(ClientLine):
    """Standard queues, through a client of aiobotocore.

    Args:
        clients: As of `ClientLine`.
        aio: Makes clients of aiobotocore, of the same SQS.
    """

    def __init__(self, clients: Clients, aio: Aiobotocore) -> None:
        super().__init__(clients)
        self._aio = aio

    def protected(self, sealer: Sealer, **options: Any) -> Any:
        options = {"come_again_after": 0, "sleep": lambda _: None} | options
        return self._aio.blocking(protect(self._aio.client(), sealer, **options))


class ResourceLine(ClientLine):
    """Standard queues, through ``boto3.resource("sqs")``.

    Args:
        clients: As of `ClientLine`.
        resources: Makes a resource, unprotected, of the same SQS.
    """

    def __init__(self, clients: Clients, resources: Callable[[], Any]) -> None:
        super().__init__(clients)
        self._resources = resources

    def queue(self, sealer: Sealer, place: str) -> Any:
        options: dict[str, Any] = {"come_again_after": 0, "sleep": lambda _: None}
        return protect(self._resources(), sealer, **options).Queue(self.url(place))

    def send(
        self, sealer: Sealer, place: str, body: bytes | None, headers: Mapping[str, str] | None = None
    ) -> None:
        assert body is not None
        self.queue(sealer, place).send_message(
            MessageBody=body.decode(), MessageAttributes=attributes(headers)
        )

    def send_batch(self, sealer: Sealer, place: str, batch: Any) -> None:
        answer = self.queue(sealer, place).send_messages(Entries=batch)
        assert len(answer["Successful"]) == len(batch)

    @contextmanager
    def receiving(self, sealer: Sealer, place: str, *, settles: bool = True) -> Iterator[Receiving]:
        receiving = ResourceReceiving(self.queue(sealer, place), settles)
        yield receiving
        receiving.give_back()


class ResourceReceiving(Receiving):
    def __init__(self, queue: Any, settles: bool) -> None:
        super().__init__()
        self._queue = queue
        self._settles = settles
        self._unsettled: list[Any] = []

    def step(self) -> None:
        try:
            messages = self._queue.receive_messages(
                MaxNumberOfMessages=10, WaitTimeSeconds=1, MessageAttributeNames=["All"]
            )
        except Refused as error:
            self.refused.append(error)
            return
        for message in messages:
            self.got(message.body.encode(), _headers({"MessageAttributes": message.message_attributes or {}}))
            if self._settles:
                message.delete()
            else:
                self._unsettled.append(message)

    def give_back(self) -> None:
        for message in self._unsettled:
            message.change_visibility(VisibilityTimeout=0)


def attributes(headers: Mapping[str, str] | None) -> dict[str, Any]:
    """Write headers as message attributes."""
    return {name: {"DataType": "String", "StringValue": value} for name, value in dict(headers or {}).items()}


def _headers(message: Mapping[str, Any]) -> dict[str, str]:
    return {
        name: value["StringValue"]
        for name, value in message.get("MessageAttributes", {}).items()
        if "StringValue" in value
    }
