"""What SQS and SNS call the same things: operations, parameters, and where bodies stand in a request. Pure.

Source: Amazon SQS API and Amazon SNS API References; AWS JSON protocol (SQS) and AWS Query protocol (SNS), as botocore writes them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from botocore.exceptions import ParamValidationError

from postseal.core import ConfigError
from postseal.sqs._message import (
    MAX_BYTES,
    MAX_TOPIC_BYTES,
    destination_of,
    topic_destination_of,
)
from postseal.sqs._text import in_order

__all__ = ["DIALECTS", "SNS", "SQS", "Dialect", "queue_url_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """One service that messages are sent to.

    Args:
        single: The operation that sends one message.
        batch: The operation that sends several.
        body: The parameter with a message's body.
        entries: The parameter with the messages of a batch.
        max_bytes: What a message, and a batch in all, may have.
        address_of: Reads from parameters where they go; raises what botocore would, or `ConfigError`.
        destination_of: Names the destination of such an address.
        carries: Tells whether the bodies in a serialized request are those texts and no other.
        digests: Whether answers say what MD5 the bodies have.
        check: Refuses a message that cannot be sealed.
    """

    single: str
    batch: str
    body: str
    entries: str
    max_bytes: int
    address_of: Callable[[Mapping[str, Any]], str]
    destination_of: Callable[[str], str]
    carries: Callable[[list[str], Any], bool]
    digests: bool
    check: Callable[[Mapping[str, Any]], None] | None = None


# -- SQS ---------------------------------------------------------------------------------------------------------------

_BODY_KEY: Final = b'"MessageBody": "'
"""What stands before a body in a request of the AWS JSON protocol, as `json.dumps` writes it. Inside text the quotes would be escaped."""


def queue_url_of(params: Mapping[str, Any]) -> str:
    """Return QueueUrl of *params*.

    Raises:
        ParamValidationError: It is not there or no text; as botocore would say, but that would show all that is beside it.
    """
    queue_url = params.get("QueueUrl")
    if not isinstance(queue_url, str):
        raise ParamValidationError(report="QueueUrl must be given, as str")
    return queue_url


def _json_carries(texts: list[str], body: Any) -> bool:
    data = body if isinstance(body, bytes) else str(body or "").encode()
    # As botocore writes JSON: the quick answer.
    return in_order(_BODY_KEY, texts, data) or _are_all(texts, data)


def _are_all(texts: list[str], data: bytes) -> bool:
    """Tell whether all bodies in *data* are among *texts*: the slow answer, for handlers that rearrange, and other ways to write JSON."""
    try:
        request = json.loads(data)
    except ValueError:
        return False  # a protocol that this adapter does not know
    if not isinstance(request, dict):
        return False
    entries = request.get("Entries", [request])
    return isinstance(entries, list) and all(
        isinstance(entry, dict) and entry.get("MessageBody") in texts for entry in entries
    )


SQS: Final = Dialect(
    single="SendMessage",
    batch="SendMessageBatch",
    body="MessageBody",
    entries="Entries",
    max_bytes=MAX_BYTES,
    address_of=queue_url_of,
    destination_of=destination_of,
    carries=_json_carries,
    digests=True,
)

# -- SNS ---------------------------------------------------------------------------------------------------------------

_MEMBER: Final = "PublishBatchRequestEntries.member."


def _topic_of(params: Mapping[str, Any]) -> str:
    """Return the ARN of the topic that *params* publish to.

    Raises:
        ParamValidationError: There is none, and nothing else that one may publish to.
        ConfigError: They go to a phone: it could not open what it gets, and in clear nothing leaves a protected client.
    """
    if params.get("PhoneNumber") is not None:
        raise ConfigError(
            "a text message to a phone cannot be sealed: a protected client sends none; nothing was sent"
        )
    topic = params.get("TopicArn")
    target = params.get("TargetArn")
    arn = target if topic is None else topic
    if not isinstance(arn, str) or (target is not None and topic is not None):
        raise ParamValidationError(report="TopicArn must be given, as str")
    return arn


def _check_structure(message: Mapping[str, Any]) -> None:
    if message.get("MessageStructure") is not None:
        raise ConfigError(
            "MessageStructure gives each protocol a text of its own, of which a queue gets but one: publish that one; nothing was sent"
        )


def _query_carries(texts: list[str], body: Any) -> bool:
    if not isinstance(body, Mapping):
        return False  # a protocol that this adapter does not know
    bodies = [
        value
        for name, value in body.items()
        if name == "Message" or (name.startswith(_MEMBER) and name.endswith(".Message"))
    ]
    return bool(bodies) and all(value in texts for value in bodies)


SNS: Final = Dialect(
    single="Publish",
    batch="PublishBatch",
    body="Message",
    entries="PublishBatchRequestEntries",
    max_bytes=MAX_TOPIC_BYTES,
    address_of=_topic_of,
    destination_of=topic_destination_of,
    carries=_query_carries,
    digests=False,
    check=_check_structure,
)

DIALECTS: Final[Mapping[str, Dialect]] = {"sqs": SQS, "sns": SNS}
"""By the name that botocore gives the service."""
