"""Seals what a client sends, between the caller and the serializer; guards what leaves; checks what SQS says it got.

All but the sealing itself is here, in two halves, so that the hooks of a client seal between them: `Sender.prepare`, then `Sealer.seal` or
`Sealer.aseal` of each message, then `Sender.finish`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from botocore.exceptions import ChecksumError, ParamValidationError

from postseal.core import ConfigError, Sealer, TooLarge
from postseal.core.context import Headers
from postseal.sqs._dialect import Dialect
from postseal.sqs._message import Place, Places, attributes_size, envelope_of, text_md5, text_of, values_of

__all__ = ["CONTEXT", "UNTOUCHED", "AsItCame", "Sending", "ToSeal", "Unsealed"]

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


class ToSeal(NamedTuple):
    """One message that is about to be sealed."""

    message: Mapping[str, Any]
    """As the caller gave it."""
    text: str
    """Its body."""
    clear: bytes
    already: bool
    """Whether the caller's body is an envelope."""
    data: bytes
    """What the sealer is to get: the clear body, or the envelope that it is."""
    headers: Headers | None
    ordering_key: bytes | None


class Unsealed(NamedTuple):
    """One call whose messages are about to be sealed."""

    place: Place
    messages: list[ToSeal]
    batch: bool


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

    def __init__(self, messages: Sequence[_Message]) -> None:
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
            return None
        if not batch:
            return Unsealed(place, [self._read(params, place)], batch=False)
        entries = params.get(self._dialect.entries)
        if not isinstance(entries, (list, tuple)) or not all(isinstance(e, Mapping) for e in entries):
            # botocore would say so, too, and show the bodies.
            raise ParamValidationError(report=f"{self._dialect.entries} must be a list of dicts")
        return Unsealed(place, [self._read(entry, place) for entry in entries], batch=True)

    def _read(self, message: Mapping[str, Any], place: Place) -> ToSeal:
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
        headers = values_of(message.get("MessageAttributes"), place.bind) if place.bind else None
        group = message.get("MessageGroupId") if place.bind_group else None
        return ToSeal(
            message,
            text,
            clear,
            already is not None,
            clear if already is None else already,
            headers,
            None if group is None else str(group).encode(),
        )

    def finish(
        self,
        params: dict[str, Any],
        context: dict[str, Any],
        unsealed: Unsealed,
        envelopes: Sequence[bytes],
    ) -> None:
        """Put *envelopes* in the places of the bodies. The caller's list and its entries stay as they are.

        Raises:
            TooLarge: A message, or all together, have more bytes than may be sent.
            ConfigError: The queue deduplicates by content, and the sealer has no secret to do so.
        """
        messages = [
            self._sealed(to_seal, envelope, unsealed)
            for to_seal, envelope in zip(unsealed.messages, envelopes, strict=True)
        ]
        if unsealed.batch:
            self._check_batch(messages)
            params[self._dialect.entries] = [
                {**to_seal.message, **self._changed(message)}
                for to_seal, message in zip(unsealed.messages, messages, strict=True)
            ]
        else:
            self._check(messages[0])
            params.update(self._changed(messages[0]))
        context[CONTEXT] = _Sent(messages)

    def _sealed(self, to_seal: ToSeal, envelope: bytes, unsealed: Unsealed) -> _Message:
        message, place = to_seal.message, unsealed.place
        attributes = message.get("MessageAttributes")
        beside = attributes_size(attributes) if attributes else 0
        clear, already = to_seal.clear, to_seal.already
        text = to_seal.text if already else text_of(envelope)
        deduplication_id = None
        # What was sealed before is deduplicated by SQS itself, by its text, which is one and the same.
        if place.fifo and not already and message.get("MessageDeduplicationId") is None:
            deduplication_id = self._sealer.deduplication_id(clear, destination=place.destination)
        return _Message(
            str(message.get("Id")) if unsealed.batch else None,
            text,
            text_md5(clear) if self._dialect.digests else "",
            len(clear) + beside,
            len(text) + beside,
            deduplication_id,
        )

    def _changed(self, message: _Message) -> dict[str, str]:
        changed = {self._dialect.body: message.text}
        if message.deduplication_id is not None:
            changed["MessageDeduplicationId"] = message.deduplication_id
        return changed

    def _check(self, message: _Message) -> None:
        if message.sealed_size > self._max_bytes:
            raise TooLarge(
                f"a message of {message.clear_size:,} bytes has {message.sealed_size:,} bytes once sealed, over the "
                f"limit of {self._max_bytes:,} bytes (body as base64url and attributes); {_NOTHING_SENT}"
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
