"""Seals what a client sends, between the caller and the serializer; guards what leaves; checks what SQS says it got."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from botocore.exceptions import ChecksumError, ParamValidationError

from postseal.core import ConfigError, Sealer, TooLarge
from postseal.sqs._message import (
    attributes_size,
    destination_of,
    envelope_of,
    is_fifo,
    text_md5,
    text_of,
    values_of,
)

__all__ = ["CONTEXT", "UNTOUCHED", "AsItCame", "Sending", "queue_url_of"]

CONTEXT: Final = "postseal"
"""Under this name botocore's request context carries what one event of a call leaves for the next. botocore logs the context at DEBUG, so
what lies there holds no body and shows nothing in `repr`."""

_BODY_KEY: Final = b'"MessageBody": "'
"""What stands before a body in a request of the AWS JSON protocol, as `json.dumps` writes it. Inside text the quotes would be escaped."""
_NOTHING_SENT: Final = "nothing was sent"


class _Untouched:
    """Says that a call is none of ours: the mode of its policy is off or observe, or it is one of the adapter's own."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "<untouched>"


UNTOUCHED: Final = _Untouched()


class AsItCame(str):
    """The URL of a queue to which the adapter itself sends a refused message as it came. Only the adapter can make such a call."""

    __slots__ = ()


class _Message(NamedTuple):
    """One message about to travel. Sizes are in bytes, with attributes."""

    entry: str | None
    text: str
    clear_md5: str
    clear_size: int
    sealed_size: int
    deduplication_id: str | None


class _Sent:
    """What was sealed in one call: the sealed texts, and the MD5 of each clear one."""

    __slots__ = ("messages",)

    def __init__(self, messages: Iterable[_Message]) -> None:
        self.messages = tuple(messages)

    def __repr__(self) -> str:
        return f"<{len(self.messages)} sealed>"


class Sending:
    """The handlers of SendMessage and SendMessageBatch.

    Args:
        sealer: Seals.
        max_bytes: What a message, and a batch, may have in all.
    """

    def __init__(self, sealer: Sealer, *, max_bytes: int) -> None:
        self._sealer = sealer
        self._max_bytes = max_bytes

    # -- before ----------------------------------------------------------------------------------------------------

    def seal(self, params: dict[str, Any], context: dict[str, Any]) -> None:
        """Seal the body in the parameters of SendMessage."""
        destination = self._destination(params, context)
        if destination is None:
            return
        message = self._seal(params, destination, None)
        if message.sealed_size > self._max_bytes:
            raise TooLarge(
                f"a message of {message.clear_size:,} bytes has {message.sealed_size:,} bytes once sealed, over the "
                f"limit of {self._max_bytes:,} bytes (body as base64url and attributes); {_NOTHING_SENT}"
            )
        params.update(_changed(message))
        context[CONTEXT] = _Sent((message,))

    def seal_batch(self, params: dict[str, Any], context: dict[str, Any]) -> None:
        """Seal the bodies in the parameters of SendMessageBatch. The caller's list and its entries stay as they are."""
        destination = self._destination(params, context)
        if destination is None:
            return
        entries = params.get("Entries")
        if not isinstance(entries, (list, tuple)) or not all(isinstance(e, Mapping) for e in entries):
            # botocore would say so, too, and show the bodies.
            raise ParamValidationError(report="Entries must be a list of dicts")
        messages = [self._seal(entry, destination, str(entry.get("Id"))) for entry in entries]
        self._check_batch(messages)
        params["Entries"] = [
            {**entry, **_changed(message)} for entry, message in zip(entries, messages, strict=True)
        ]
        context[CONTEXT] = _Sent(messages)

    def _destination(self, params: Mapping[str, Any], context: dict[str, Any]) -> str | None:
        """Return where to, or None where nothing is to be sealed."""
        if context.get("is_presign_request"):
            raise ConfigError(
                "a presigned URL carries no body, so whoever uses it would send clear text: a protected client makes none to send with"
            )
        queue_url = queue_url_of(params)
        if type(queue_url) is AsItCame:
            context[CONTEXT] = UNTOUCHED
            return None
        destination = destination_of(queue_url)
        if self._sealer.policy_for(destination).mode in ("off", "observe"):
            context[CONTEXT] = UNTOUCHED
            return None
        return destination

    def _seal(self, message: Mapping[str, Any], destination: str, entry: str | None) -> _Message:
        text = message.get("MessageBody")
        if not isinstance(text, str):
            # botocore would say so, too, and show the body.
            raise ParamValidationError(report=f"MessageBody must be str, not {type(text).__name__}")
        try:
            clear = text.encode()
        except UnicodeEncodeError:
            raise ParamValidationError(report="MessageBody holds half of a surrogate pair") from None
        policy = self._sealer.policy_for(destination)
        attributes = message.get("MessageAttributes")
        group = message.get("MessageGroupId") if policy.bind_ordering_key else None
        already = envelope_of(text)
        envelope = self._sealer.seal(
            clear if already is None else already,
            destination=destination,
            headers=values_of(attributes, policy.bind_headers) if policy.bind_headers else None,
            ordering_key=None if group is None else str(group).encode(),
        )
        beside = attributes_size(attributes)
        sealed = text_of(envelope) if already is None else text
        deduplication_id = None
        # What was sealed before is deduplicated by SQS itself, by its text, which is one and the same.
        if already is None and is_fifo(destination) and message.get("MessageDeduplicationId") is None:
            deduplication_id = self._sealer.deduplication_id(clear, destination=destination)
        return _Message(
            entry, sealed, text_md5(clear), len(clear) + beside, len(sealed) + beside, deduplication_id
        )

    def _check_batch(self, messages: list[_Message]) -> None:
        """Refuse a batch of which one message, or the sum of all, is over the limit."""
        total, late = 0, []
        for message in messages:
            total += message.sealed_size
            if message.sealed_size > self._max_bytes or total > self._max_bytes:
                late.append(message)
        if not late:
            return
        alone = [message for message in messages if message.sealed_size > self._max_bytes]
        which = ", ".join(
            f"{m.entry!r} ({m.clear_size:,} bytes, {m.sealed_size:,} once sealed)" for m in alone or late
        )
        raise TooLarge(
            f"a batch of {sum(m.clear_size for m in messages):,} bytes has {total:,} bytes once sealed, with the limit at "
            f"{self._max_bytes:,} bytes (bodies as base64url and attributes); "
            f"{'over it by themselves' if alone else 'not fitting any more'}: {which}; {_NOTHING_SENT}"
        )

    # -- the guard -------------------------------------------------------------------------------------------------

    def guard(self, request: Mapping[str, Any], context: Mapping[str, Any]) -> None:
        """Refuse a serialized *request* that carries a body other than those sealed.

        Raises:
            ConfigError: Another handler changed a body after it was sealed, or this call began before `protect`.
        """
        sent = context.get(CONTEXT)
        if sent is UNTOUCHED:
            return
        if not isinstance(sent, _Sent):
            raise ConfigError(f"this call was not sealed, as it began before protect; {_NOTHING_SENT}")
        texts = [message.text for message in sent.messages]
        body = request.get("body") or b""
        data = body if isinstance(body, bytes) else str(body).encode()
        if not _are_in_order(texts, data) and not _are_all(texts, data):
            raise ConfigError(
                f"another event handler of this client changed a body after it was sealed; {_NOTHING_SENT}. Handlers that change "
                "bodies belong on before-parameter-build, registered with register or register_first"
            )

    # -- after -----------------------------------------------------------------------------------------------------

    def check(self, parsed: dict[str, Any], context: Mapping[str, Any]) -> None:
        """Compare the MD5 that SQS answers with what travelled, then put that of the clear body in its place.

        Raises:
            ChecksumError: SQS got something else.
        """
        sent, claimed = context.get(CONTEXT), parsed.get("MD5OfMessageBody")
        if not isinstance(sent, _Sent) or claimed is None:
            return
        (message,) = sent.messages
        actual = text_md5(message.text)
        if claimed != actual:
            raise ChecksumError(
                checksum_type="MD5OfMessageBody", expected_checksum=actual, actual_checksum=claimed
            )
        parsed["MD5OfMessageBody"] = message.clear_md5

    def check_batch(self, parsed: dict[str, Any], context: Mapping[str, Any]) -> None:
        """Do the same for each entry. One of which SQS got something else is moved to ``Failed``, so that it does not cost the others."""
        sent, successful = context.get(CONTEXT), parsed.get("Successful")
        if not isinstance(sent, _Sent) or not successful:
            return
        by_entry = {message.entry: message for message in sent.messages}
        right, wrong = [], []
        for result in successful:
            message = by_entry.get(result.get("Id"))
            if message is None or "MD5OfMessageBody" not in result:
                right.append(result)
            elif result["MD5OfMessageBody"] == text_md5(message.text):
                result["MD5OfMessageBody"] = message.clear_md5
                right.append(result)
            else:
                wrong.append(
                    {
                        "Id": result["Id"],
                        "SenderFault": False,
                        "Code": "ChecksumMismatch",
                        "Message": "MD5OfMessageBody is not that of the body sent: SQS got something else",
                    }
                )
        if wrong:
            parsed["Successful"] = right
            parsed["Failed"] = [*parsed.get("Failed", ()), *wrong]


def queue_url_of(params: Mapping[str, Any]) -> str:
    """Return QueueUrl of *params*.

    Raises:
        ParamValidationError: It is not there or no text; as botocore would say, but that would show all that is beside it.
    """
    queue_url = params.get("QueueUrl")
    if not isinstance(queue_url, str):
        raise ParamValidationError(report="QueueUrl must be given, as str")
    return queue_url


def _changed(message: _Message) -> dict[str, str]:
    changed = {"MessageBody": message.text}
    if message.deduplication_id is not None:
        changed["MessageDeduplicationId"] = message.deduplication_id
    return changed


def _are_in_order(texts: list[str], data: bytes) -> bool:
    """Tell whether the bodies in *data*, read as botocore writes JSON, are *texts*: the quick answer."""
    _, *bodies = data.split(_BODY_KEY)
    return len(bodies) == len(texts) and all(
        body.startswith(text.encode() + b'"') for body, text in zip(bodies, texts, strict=True)
    )


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
