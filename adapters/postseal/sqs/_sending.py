"""Seals what a client sends, between the caller and the serializer; guards what leaves; checks what SQS says it got.

The common case is sealed in `Sending.prepare`, all messages of a call at once. What that leaves goes the whole way: the hooks do
`Sealer.seal` or `Sealer.aseal` of each message, then `Sending.finish`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Sized
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
    values_of,
    without,
)
from postseal.sqs._text import envelope_of, seal_texts, text_md5s

__all__ = ["CONTEXT", "UNTOUCHED", "AsItCame", "Outgoing", "Sending", "Unsealed"]

CONTEXT: Final = "postseal"
"""Under this name botocore's request context carries what one event of a call leaves for the next. botocore logs the context at DEBUG, so
what lies there holds no body and shows nothing in `repr`."""

_NOTHING_SENT: Final = "nothing was sent"
_NOTHING_TAKEN: Final[Mapping[int, str]] = {}


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
    """One message that goes the whole way out.

    Attributes:
        message: As the caller gave it.
        data: What the sealer is to get: the clear body, or the envelope that it is already.
        headers: What of its attributes is bound or encrypted; None where nothing can be.
        ordering_key: Its group, where that is bound.
        sealed: What travels; None until it is sealed.
    """

    __slots__ = ("data", "headers", "message", "ordering_key", "sealed")

    def __init__(
        self,
        message: Mapping[str, Any],
        data: bytes,
        headers: Headers | None = None,
        ordering_key: bytes | None = None,
    ) -> None:
        self.message = message
        self.data = data
        self.headers = headers
        self.ordering_key = ordering_key
        self.sealed: str | None = None

    def __repr__(self) -> str:
        return "<outgoing message>"


class Unsealed(NamedTuple):
    """One call whose messages are about to be sealed."""

    place: Place
    messages: list[Outgoing]
    batch: bool


class _Sent:
    """What was sealed in one call: kept where botocore may log it, so no clear body is among it.

    Args:
        texts: What travels.
        entries: The Ids of a batch; empty for a single message.
        digests: Of each message the MD5 of what travels and that of the clear body; empty where answers say no MD5.
        taken: The MD5 of the attributes as the caller gave them, by the place of those messages of which some were taken out.
    """

    __slots__ = ("digests", "entries", "taken", "texts")

    def __init__(
        self,
        texts: list[str],
        entries: list[Any],
        digests: list[tuple[str, str]],
        taken: Mapping[int, str],
    ) -> None:
        self.texts = texts
        self.entries = entries
        self.digests = digests
        self.taken = taken

    def __repr__(self) -> str:
        return f"<{len(self.texts)} sealed>"


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

    def prepare(self, params: dict[str, Any], context: dict[str, Any], *, batch: bool) -> Unsealed | None:
        """Seal a call at once, if it can be; else tell what is still to be sealed. None where nothing is, for either reason."""
        if context.get("is_presign_request"):
            raise ConfigError(
                "a presigned URL carries no body, so whoever uses it would send clear text: a protected client makes none to send with"
            )
        dialect = self._dialect
        address = dialect.address_of(params)
        if type(address) is AsItCame:
            context[CONTEXT] = UNTOUCHED
            return None
        place = self._places[address]
        if not place.seals:
            context[CONTEXT] = UNTOUCHED
            entries = params.get(self._dialect.entries) if batch else None
            self._sealer.note_unsealed(place.destination, len(entries) if isinstance(entries, Sized) else 1)
            return None
        messages: list[Mapping[str, Any]] = self._entries(params) if batch else [params]
        if dialect.check is not None:
            for message in messages:
                dialect.check(message)
        sealed: list[str] = []
        if place.plain:
            sealed = seal_texts(place.seal, [message.get(dialect.body) for message in messages])
            if len(sealed) == len(messages):
                self._put(params, context, place, messages, sealed, batch=batch)
                return None
        unsealed = [self._read(message, place) for message in messages]
        for one, text in zip(unsealed, sealed, strict=False):  # the first of them, as far as that went
            one.sealed = text
        return Unsealed(place, unsealed, batch)

    def _entries(self, params: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        entries = params.get(self._dialect.entries)
        if not isinstance(entries, (list, tuple)) or not all(map(_is_mapping, entries)):
            # botocore would say so, too, and show the bodies.
            raise ParamValidationError(report=f"{self._dialect.entries} must be a list of dicts")
        return list(entries)

    def _read(self, message: Mapping[str, Any], place: Place) -> Outgoing:
        text = message.get(self._dialect.body)
        if not isinstance(text, str):
            # botocore would say so, too, and show the body.
            raise ParamValidationError(report=f"{self._dialect.body} must be str, not {type(text).__name__}")
        try:
            clear = text.encode()
        except UnicodeEncodeError:
            raise ParamValidationError(
                report=f"{self._dialect.body} holds half of a surrogate pair"
            ) from None
        one = Outgoing(message, envelope_of(text) or clear)
        if place.bind or place.takes:
            one.headers = values_of(message.get("MessageAttributes"))
        group = message.get("MessageGroupId") if place.bind_group else None
        if group is not None:
            one.ordering_key = str(group).encode()
        return one

    def finish(self, params: dict[str, Any], context: dict[str, Any], unsealed: Unsealed) -> None:
        """Put what was sealed in the places of the bodies. Raises what `_put` does."""
        place, messages, batch = unsealed
        sealed = [one.sealed for one in messages if one.sealed is not None]
        self._put(params, context, place, [one.message for one in messages], sealed, batch=batch)

    def _put(
        self,
        params: dict[str, Any],
        context: dict[str, Any],
        place: Place,
        messages: Sequence[Mapping[str, Any]],
        sealed: list[str],
        *,
        batch: bool,
    ) -> None:
        """Put *sealed* in the places of the bodies of *messages*. The caller's list and its entries stay as they are.

        Raises:
            TooLarge: A message, or all together, have more bytes than may be sent.
            ConfigError: The queue deduplicates by content, and the sealer has no secret to do so.
        """
        dialect, name = self._dialect, self._dialect.body
        changed = [{**message, name: text} for message, text in zip(messages, sealed, strict=True)]
        taken = self._take_out(changed, place) if place.takes else _NOTHING_TAKEN
        beside = sum(attributes_size(a) for each in changed if (a := each.get("MessageAttributes")))
        if sum(map(len, sealed)) + beside > self._max_bytes:
            raise self._too_large(messages, changed, batch=batch)
        clear = [message[name] for message in messages]
        if place.fifo:
            self._deduplicate(changed, clear, place.destination)
        digests: list[tuple[str, str]] = []
        if dialect.digests:
            found = text_md5s([*sealed, *clear])
            digests = list(zip(found, found[len(sealed) :], strict=False))
        if batch:
            params[dialect.entries] = changed
            entries = [each.get("Id") for each in changed]
        else:
            params.update(changed[0])
            entries = []
        context[CONTEXT] = _Sent(sealed, entries, digests, taken)

    def _take_out(self, changed: list[dict[str, Any]], place: Place) -> dict[int, str]:
        """Take out of messages the attributes that are encrypted with their bodies."""
        taken: dict[int, str] = {}
        for index, each in enumerate(changed):
            given = each.get("MessageAttributes")
            if not given:
                continue
            each["MessageAttributes"] = left = without(given, place.takes)
            if self._dialect.digests and len(left) != len(given):
                taken[index] = attributes_md5(given)
        return taken

    def _deduplicate(self, changed: list[dict[str, Any]], clear: list[str], destination: str) -> None:
        """Have SQS know again what is sent twice, of which no two envelopes are alike."""
        for each, text in zip(changed, clear, strict=True):
            # What was sealed before is deduplicated by SQS itself, by its text, which is one and the same.
            if each.get("MessageDeduplicationId") is None and each[self._dialect.body] != text:
                each["MessageDeduplicationId"] = self._sealer.deduplication_id(
                    text.encode(), destination=destination
                )

    def _too_large(
        self, messages: Sequence[Mapping[str, Any]], changed: list[dict[str, Any]], *, batch: bool
    ) -> TooLarge:
        """Say which message, or which of a batch in the order of its entries, is over the limit."""
        limit = self._max_bytes
        sizes = [
            (str(each.get("Id")), self._size(message, each), self._size(each, each))
            for message, each in zip(messages, changed, strict=True)
        ]
        if not batch:
            ((_, clear, sealed),) = sizes
            return TooLarge(
                f"a message of {clear:,} bytes has {sealed:,} bytes once sealed, over the "
                f"limit of {limit:,} bytes (body as base64url and attributes); {_NOTHING_SENT}"
            )
        totals = list(accumulate(sealed for _, _, sealed in sizes))
        alone = [size for size in sizes if size[2] > limit]
        late = [size for size, total in zip(sizes, totals, strict=True) if total > limit]
        which = ", ".join(
            f"{entry!r} ({clear:,} bytes, {sealed:,} once sealed)" for entry, clear, sealed in alone or late
        )
        return TooLarge(
            f"a batch of {sum(clear for _, clear, _ in sizes):,} bytes has {totals[-1]:,} bytes once sealed, with the limit at "
            f"{limit:,} bytes (bodies as base64url and attributes); "
            f"{'over it by themselves' if alone else 'not fitting any more'}: {which}; {_NOTHING_SENT}"
        )

    def _size(self, body_of: Mapping[str, Any], attributes_of: Mapping[str, Any]) -> int:
        """Return the bytes of the body of one and of the attributes of the other."""
        return len(body_of[self._dialect.body].encode()) + attributes_size(
            attributes_of.get("MessageAttributes")
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
        if not self._dialect.carries(sent.texts, request.get("body")):
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
        ((actual, clear),) = sent.digests
        if claimed != actual:
            raise ChecksumError(
                checksum_type="MD5OfMessageBody", expected_checksum=actual, actual_checksum=claimed
            )
        parsed["MD5OfMessageBody"] = clear
        if 0 in sent.taken:
            parsed["MD5OfMessageAttributes"] = sent.taken[0]

    @staticmethod
    def check_batch(parsed: dict[str, Any], context: Mapping[str, Any]) -> None:
        """Do the same for each entry. One of which SQS got something else is moved to ``Failed``, so that it does not cost the others."""
        sent, successful = context.get(CONTEXT), parsed.get("Successful")
        if not isinstance(sent, _Sent) or not successful:
            return
        by_entry = dict(zip(sent.entries, sent.digests, strict=True))
        wrong = []
        for result in successful:
            claimed, digests = result.get("MD5OfMessageBody"), by_entry.get(result.get("Id"))
            if claimed is None or digests is None:
                continue
            actual, clear = digests
            if claimed == actual:
                result["MD5OfMessageBody"] = clear
            else:
                wrong.append(result)
        if wrong:
            parsed["Successful"] = [each for each in successful if all(each is not one for one in wrong)]
            parsed["Failed"] = [*parsed.get("Failed", ()), *map(_failed, wrong)]
        if sent.taken:
            taken = {sent.entries[index]: digest for index, digest in sent.taken.items()}
            for result in successful:
                if result.get("Id") in taken:
                    result["MD5OfMessageAttributes"] = taken[result["Id"]]


def _is_mapping(entry: object) -> bool:
    return type(entry) is dict or isinstance(entry, Mapping)  # the first is quicker by half a microsecond


def _failed(result: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "Id": result["Id"],
        "SenderFault": False,
        "Code": "ChecksumMismatch",
        "Message": "MD5OfMessageBody is not that of the body sent: SQS got something else",
    }
