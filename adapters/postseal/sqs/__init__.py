"""postseal for Amazon SQS: `protect` a boto3 client or resource, and leave the rest of the program as it is.

A working program::

    import boto3
    from postseal.core import Policy, Sealer, UnsafeLocalKeys
    from postseal.sqs import protect

    orders = Policy(name="orders", destinations=["sqs:orders"], keys=["main"])
    sealer = Sealer(sender="billing-api", policies=[orders], keys={"main": UnsafeLocalKeys.ephemeral()})

    sqs = protect(boto3.client("sqs"), sealer)  # the one line
    url = sqs.create_queue(QueueName="orders")["QueueUrl"]
    sqs.send_message(QueueUrl=url, MessageBody="4111 1111 1111 1111")
    print(sqs.receive_message(QueueUrl=url)["Messages"][0]["Body"])

What is sealed, what is not, and what becomes of a refused message: docs/sqs.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from postseal.core import ConfigError, MissingExtraError, Sealer

try:
    import botocore.client as _client
except ImportError as _error:
    raise MissingExtraError.naming("sqs", __name__, _error) from _error

from postseal.sqs._hooks import Options, client_of, hooks_for, hooks_of
from postseal.sqs._message import MAX_BYTES
from postseal.sqs._records import OpenedRecords, open_message, open_records
from postseal.sqs._settling import VERDICT_ATTRIBUTE

del _client

__all__ = [
    "MAX_BYTES",
    "VERDICT_ATTRIBUTE",
    "OpenedRecords",
    "open_message",
    "open_records",
    "protect",
    "unprotect",
]

_T = TypeVar("_T")


def protect(
    target: _T,
    sealer: Sealer,
    *,
    max_bytes: int | None = None,
    quarantine: Mapping[str, str] | None = None,
    come_again_after: int = 10,
    sleep: Callable[[float], object] | None = None,
) -> _T:
    """Have *target* seal all that it sends and open all that it receives, from now on.

    Sealed are the bodies of SendMessage and SendMessageBatch, opened those of ReceiveMessage, also through ``Queue`` and ``Message``. The
    destination of a queue is ``sqs:`` and its name. Of an SNS client, sealed are the messages of Publish and PublishBatch to topics, whose
    destination is ``sns:`` and their name; nothing else may be published. Calls that are under way in other threads are refused.

    Args:
        target: An SQS or SNS client, of boto3 or of aiobotocore, or ``boto3.resource("sqs")`` or anything made from it: the client behind
            it is protected, with all that uses it. Clients of aiobotocore wait for the key service without blocking their loop.
        sealer: Seals and opens.
        max_bytes: What a message, or a batch in all, may have once sealed, attributes counted: 1 MiB, and for topics 256 KiB, unless
            given. For queues whose ``MaximumMessageSize`` is lower, as it was 262,144 by default until 2025.
        quarantine: URLs of queues by destination, as ``{"sqs:refused": "https://..."}``, where *target* may not ask for them (GetQueueUrl).
        come_again_after: Seconds until a message comes again for which the key service did not answer; doubled each time it comes, up to
            900.
        sleep: Pauses for some seconds, after a receive of which all messages wait for the key service; with an asyncio client, a
            coroutine function.

    Returns:
        *target*.

    Raises:
        ConfigError: *target* cannot be protected, or is with another sealer or other options.

    What calls of *target* raise besides what they always raised, each before anything is sent:
        ConfigError: No policy speaks of the queue; a FIFO queue deduplicates and the sealer has no ``deduplication_secret``.
        KeyUnavailable: The key service did not answer. Retrying may help.
        KeyRefused: The key service said no.
        TooLarge: The message or batch is over *max_bytes* once sealed.
        Refused: A body that looks sealed does not open here; a receive brought nothing but refused messages, and the policy says
            to raise.
    """
    if not isinstance(sealer, Sealer):
        raise ConfigError(f"protect takes a Sealer, not {type(sealer).__name__}")
    client = client_of(target)
    options = Options(
        max_bytes=max_bytes, quarantine=dict(quarantine or {}), come_again_after=come_again_after, sleep=sleep
    )
    present = hooks_of(client)
    if present is None:
        hooks_for(client, sealer, options).attach()
    elif present.sealer is not sealer:
        raise ConfigError("this client is protected with another sealer already; unprotect it first")
    elif present.options != options:
        raise ConfigError("this client is protected with other options already; unprotect it first")
    return target


def unprotect(target: _T) -> _T:
    """Undo `protect`; without it, do nothing. What lies on queues stays sealed, and *target* then hands it out as it lies.

    Returns:
        *target*.
    """
    client = client_of(target)
    present = hooks_of(client)
    if present is not None:
        present.detach()
    return target
