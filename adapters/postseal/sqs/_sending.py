"""Seals what a client sends, between the caller and the serializer; guards what leaves; checks what SQS says it got.

All but the sealing itself is here, in two halves, so that the hooks of a client seal between them: `Sending.prepare`, which seals at once
what can be, then `Sealer.seal` or `Sealer.aseal` of each other message, then `Sending.finish`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Sized
from hashlib import md5
from itertools import accumulate
from typing import Any, Final, NamedTuple

from botocore.exceptions import ChecksumError, ParamValidationError

from postseal.core import ConfigError, Sealer, TooLarge
from postseal.core.context import Headers
from postseal.sqs._dialect import Dialect
from postseal.sqs._message import (
    Place,
    Places,
    attributes_md5,
    attributes_size,
    envelope_of,
    text_md5,
    text_of,
    values_of,
    without,
)

__all__ = ["CONTEXT", "UNTOUCHED", "AsItCame", "Outgoing", "Sending", "Unsealed"]

CONTEXT: Final = "postseal"
"""Under this name botocore's request context carries what one event of a call leaves for the next. botocore logs the context at DEBUG, so
what lies there holds no body and shows nothing in `repr`."""

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


class Outgoing:
    """One message on its way out. Sizes are in bytes, with attributes. Of many calls it is the most, so it is one plain object.

    Attributes:
        message: As the caller gave it.
        entry: Its Id in a batch, else None.
        clear: The clear body; gone once it is sealed, because what is left is kept where botocore may log it.
        already: Whether that is an envelope already.
        data: What the sealer is to get: the clear body, or the envelope that it is.
        envelope: What it made of that; None where it is still to be asked.
        headers: What of its attributes is bound; None where nothing can be.
        ordering_key: Its group, where that is bound.
        text: What travels: at first the caller's, then the sealed text.
        clear_md5: MD5 of the clear body, in hex.
        taken: MD5 of the attributes as the caller gave them, where some were taken out; else empty.
    """

    __slots__ = (
        "already",
        "clear",
        "clear_md5",
        "clear_size",
        "data",
        "entry",
        "envelope",
        "headers",
        "message",
        "ordering_key",
        "sealed_size",
        "taken",
        "text",
    )

    message: Mapping[str, Any]
    entry: str | None
    clear: bytes
    already: bool
    data: bytes
    envelope: bytes | None
    headers: Headers | None
    ordering_key: bytes | None
    text: str
    clear_md5: str
    clear_size: int
    sealed_size: int
    taken: str

    def __repr__(self) -> str:
        return "<outgoing message>"


class Unsealed(NamedTuple):
    """One call whose messages are about to be sealed."""

    place: Place
    messages: list[Outgoing]
    batch: bool


class _Sent:
    """What was sealed in one call: the sealed texts, and the MD5 of each clear one."""

    __slots__ = ("messages",)

    def __init__(self, messages: Sequence[Outgoing]) -> None:
        self.messages = messages

    def __repr__(self) -> str:
        return f"<{len(self.messages)} sealed>"


class Sending:
    """What the handlers of the two operations that send have in common, for any client.

    Args:
        sealer: Makes deduplication ids; knows the policies.
        dialect: Of the client's service.
        max_bytes: What a message, and a batch, may have in all.
    """

    def __init__(self, sealer: Sealer, dialect: Dialect, *, max_bytes: int) -> None:
        self._sealer = sealer
        self._dialect = dialect
        self._max_bytes = max_bytes
        self._places = Places(sealer, dialect.destination_of)

    # -- before ----------------------------------------------------------------------------------------------------

    def prepare(self, params: Mapping[str, Any], context: dict[str, Any], *, batch: bool) -> Unsealed | None:
        """Tell what is to be sealed of the parameters of a call; None where nothing is."""
        if context.get("is_presign_request"):
            raise ConfigError(
                "a presigned URL carries no body, so whoever uses it would send clear text: a protected client makes none to send with"
            )
        address = self._dialect.address_of(params)
        if type(address) is AsItCame:
            context[CONTEXT] = UNTOUCHED
            return None
        place = self._places[address]
        if not place.seals:
            context[CONTEXT] = UNTOUCHED
            entries = params.get(self._dialect.entries) if batch else None
            self._sealer.note_unsealed(place.destination, len(entries) if isinstance(entries, Sized) else 1)
            return None
        if not batch:
            return Unsealed(place, [self._read(params, place)], batch=False)
        entries = params.get(self._dialect.entries)
        if not isinstance(entries, (list, tuple)) or not all(isinstance(e, Mapping) for e in entries):
            # botocore would say so, too, and show the bodies.
            raise ParamValidationError(report=f"{self._dialect.entries} must be a list of dicts")
        return Unsealed(place, [self._read(entry, place) for entry in entries], batch=True)

    def _read(self, message: Mapping[str, Any], place: Place) -> Outgoing:
        text = message.get(self._dialect.body)
        if not isinstance(text, str):
            # botocore would say so, too, and show the body.
            raise ParamValidationError(report=f"{self._dialect.body} must be str, not {type(text).__name__}")
        if self._dialect.check is not None:
            self._dialect.check(message)
        try:
            clear = text.encode()
        except UnicodeEncodeError:
            raise ParamValidationError(
                report=f"{self._dialect.body} holds half of a surrogate pair"
            ) from None
        already = envelope_of(text)
        one = Outgoing()
        one.message = message
        one.text = text
        one.clear = clear
        one.already = already is not None
        one.data = clear if already is None else already
        one.headers = one.ordering_key = None
        one.taken = ""
        if place.plain:
            one.envelope = place.seal(clear) if already is None else None
            return one
        one.envelope = None
        if place.bind or place.takes:
            one.headers = values_of(message.get("MessageAttributes"))
        group = message.get("MessageGroupId") if place.bind_group else None
        if group is not None:
            one.ordering_key = str(group).encode()
        return one

    def finish(  # noqa: C901 - one story, message by message
        self,
        params: dict[str, Any],
        context: dict[str, Any],
        unsealed: Unsealed,
    ) -> None:
        """Put envelopes in the places of the bodies. The caller's list and its entries stay as they are.

        Raises:
            TooLarge: A message, or all together, have more bytes than may be sent.
            ConfigError: The queue deduplicates by content, and the sealer has no secret to do so.
        """
        place, messages, batch = unsealed
        name, digests, fifo, total, entries = self._dialect.body, self._dialect.digests, place.fifo, 0, []
        for one in messages:
            message, clear = one.message, one.clear
            if one.envelope is None:
                raise AssertionError("not sealed")
            if not one.already:
                one.text = text_of(one.envelope)
            attributes = message.get("MessageAttributes")
            if place.takes and attributes:
                attributes = without(attributes, place.takes)
            beside = attributes_size(attributes) if attributes else 0
            one.clear_size, one.sealed_size = len(clear) + beside, len(one.text) + beside
            total += one.sealed_size
            if digests:
                one.clear_md5 = md5(clear, usedforsecurity=False).hexdigest()
            if batch:
                one.entry = str(message.get("Id"))
                changed = {**message, name: one.text}
                entries.append(changed)
            else:
                one.entry = None
                changed = params
                changed[name] = one.text
            if place.takes and "MessageAttributes" in changed:
                changed["MessageAttributes"] = attributes
                if digests and attributes != (given := message["MessageAttributes"]):
                    one.taken = attributes_md5(given)
            # What was sealed before is deduplicated by SQS itself, by its text, which is one and the same.
            if fifo and not one.already and message.get("MessageDeduplicationId") is None:
                changed["MessageDeduplicationId"] = self._sealer.deduplication_id(
                    clear, destination=place.destination
                )
            one.clear = one.data = one.envelope = b""
        if total > self._max_bytes:
            raise self._too_large(unsealed)
        if batch:
            params[self._dialect.entries] = entries
        context[CONTEXT] = _Sent(messages)

    def _too_large(self, unsealed: Unsealed) -> TooLarge:
        """Say which message, or which of a batch in the order of its entries, is over the limit."""
        messages, limit = unsealed.messages, self._max_bytes
        if not unsealed.batch:
            (one,) = messages
            return TooLarge(
                f"a message of {one.clear_size:,} bytes has {one.sealed_size:,} bytes once sealed, over the "
                f"limit of {limit:,} bytes (body as base64url and attributes); {_NOTHING_SENT}"
            )
        totals = list(accumulate(one.sealed_size for one in messages))
        alone = [one for one in messages if one.sealed_size > limit]
        late = [one for one, total in zip(messages, totals, strict=True) if total > limit]
        which = ", ".join(
            f"{one.entry!r} ({one.clear_size:,} bytes, {one.sealed_size:,} once sealed)"
            for one in alone or late
        )
        return TooLarge(
            f"a batch of {sum(one.clear_size for one in messages):,} bytes has {totals[-1]:,} bytes once sealed, with the limit at "
            f"{limit:,} bytes (bodies as base64url and attributes); "
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
        if not self._dialect.carries([message.text for message in sent.messages], request.get("body")):
            raise ConfigError(
                f"another event handler of this client changed a body after it was sealed; {_NOTHING_SENT}. Handlers that change "
                "bodies belong on before-parameter-build, registered with register or register_first"
            )

    # -- after -----------------------------------------------------------------------------------------------------

    @staticmethod
    def check(parsed: dict[str, Any], context: Mapping[str, Any]) -> None:
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
        if message.taken:
            parsed["MD5OfMessageAttributes"] = message.taken

    @staticmethod
    def check_batch(parsed: dict[str, Any], context: Mapping[str, Any]) -> None:
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
                if message.taken:
                    result["MD5OfMessageAttributes"] = message.taken
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
