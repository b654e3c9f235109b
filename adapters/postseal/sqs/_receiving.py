"""Opens what a client receives, before anybody else sees the response."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from postseal.core import AuditEvent, ConfigError, KeyUnavailable, Refused, Sealer, Verdict
from postseal.core.policy import Policy
from postseal.core.wire import decode
from postseal.sqs._message import (
    asks_for,
    asks_for_all,
    attributes_md5,
    destination_of,
    envelope_of,
    is_fifo,
    text_md5,
    values_of,
)
from postseal.sqs._sending import CONTEXT, UNTOUCHED, queue_url_of
from postseal.sqs._settling import Received, Settling, Turned

__all__ = ["Receiving"]

_log: Final = logging.getLogger("postseal.sqs")
_SYSTEM_NAMES: Final = ("MessageSystemAttributeNames", "AttributeNames")
"""The parameter of today, and the one it replaced. Source: SQS API, ReceiveMessage."""
_RECEIVE_COUNT: Final = "ApproximateReceiveCount"
_GROUP: Final = "MessageGroupId"


class _Asked(NamedTuple):
    """What is known of one ReceiveMessage while it is under way."""

    queue_url: str
    destination: str
    policy: Policy
    names: tuple[str, ...]
    """Attributes that the caller asked for."""
    system_names: tuple[str, ...]
    """System attributes likewise."""
    wait: float
    """Seconds that the caller would wait for a message."""


class _Damaged(Refused):
    """The answer is damaged, not of necessity the message: it is not handed on, and stays on the queue."""


class Receiving:
    """The handlers of ReceiveMessage.

    Args:
        sealer: Opens.
        settling: Settles what is not handed on.
    """

    def __init__(self, sealer: Sealer, settling: Settling) -> None:
        self._sealer = sealer
        self._settling = settling

    # -- before ----------------------------------------------------------------------------------------------------

    def ask(self, params: dict[str, Any], context: dict[str, Any]) -> None:
        """Ask for the attributes that opening needs, besides the caller's. The caller's lists stay as they are."""
        if context.get("is_presign_request"):
            return  # what it will bring is sealed, and stays so
        queue_url = queue_url_of(params)
        destination = destination_of(queue_url)
        policy = self._sealer.policy_for(destination)
        if policy.mode == "off":
            context[CONTEXT] = UNTOUCHED
            return
        names = _names(params, "MessageAttributeNames")
        system_names = tuple(name for option in _SYSTEM_NAMES for name in _names(params, option))
        wait = params.get("WaitTimeSeconds")
        context[CONTEXT] = _Asked(
            queue_url, destination, policy, names, system_names, wait if isinstance(wait, int) else 0
        )
        # A copy in the quarantine is to have all of them.
        wanted = ("All",) if policy.on_refused == "quarantine" else policy.bind_headers
        if not asks_for_all(names):
            _add(params, "MessageAttributeNames", wanted)
        needed = [_RECEIVE_COUNT]
        if policy.bind_ordering_key or is_fifo(destination):
            needed.append(_GROUP)
        for option in [option for option in _SYSTEM_NAMES if params.get(option)] or _SYSTEM_NAMES[:1]:
            if "All" not in _names(params, option):
                _add(params, option, needed)

    # -- after -----------------------------------------------------------------------------------------------------

    def receive(self, parsed: dict[str, Any], context: Mapping[str, Any]) -> None:
        """Open the messages of a response in place; take out and settle those that are not to be handed on.

        Raises:
            Refused: The response held nothing but refused messages, and their policy says to raise.
            ConfigError: This call began before `protect`.
        """
        asked, messages = context.get(CONTEXT), parsed.get("Messages")
        if asked is UNTOUCHED or not messages:
            return
        if not isinstance(asked, _Asked):
            raise ConfigError("this call began before protect, so nothing it brought is handed on")
        opened, refused, withheld, broken = self._sort(messages, asked)
        if opened:
            parsed["Messages"] = opened
        else:
            del parsed["Messages"]  # as in an empty response
        if refused:
            self._settling.settle(asked.queue_url, asked.destination, asked.policy, refused)
        if withheld:
            self._settling.give_back(asked.queue_url, asked.destination, withheld)
        if opened:
            return
        if broken:
            raise broken[0]
        if withheld:
            self._settling.pause(asked.wait)
        elif refused and asked.policy.on_refused == "raise":
            raise refused[0].refusal

    def _sort(
        self, messages: list[dict[str, Any]], asked: _Asked
    ) -> tuple[list[dict[str, Any]], list[Turned], list[Received], list[Exception]]:
        """Open each of *messages*: those opened, refused, withheld for now, and what went wrong with those that no verdict fits."""
        opened: list[dict[str, Any]] = []
        refused: list[Turned] = []
        withheld: list[Received] = []
        broken: list[Exception] = []
        groups: set[str] = set()
        keys: set[bytes] = set()
        for message in messages:
            received = Received.of(message)
            if received.group in groups or (keys and _wrapped_key(message) in keys):
                # Behind one of its group that waits, or of a key that the service was just asked for in vain.
                withheld.append(received)
                continue
            try:
                self._open(message, asked, received)
            except _Damaged as error:
                refused.append(Turned(received, error, stays=True))
            except Refused as error:
                # Who only observes wants nothing done to the queue.
                refused.append(Turned(received, error, stays=asked.policy.mode == "observe"))
            except KeyUnavailable:
                withheld.append(received)
                if (key := _wrapped_key(message)) is not None:
                    keys.add(key)
                self._hold(groups, received, asked)
            except ConfigError:
                raise
            except Exception as error:  # noqa: BLE001 - a fault of a key provider or of ours, for which the others must not pay
                # The message stays on its queue. The text of the error may quote anything, so only its kind is logged.
                _log.error("a message at %s could not be opened: %s", asked.destination, type(error).__name__)
                broken.append(error)
                self._hold(groups, received, asked)
            else:
                opened.append(message)
        return opened, refused, withheld, broken

    @staticmethod
    def _hold(groups: set[str], received: Received, asked: _Asked) -> None:
        """Keep the order: what is behind *received* in its group has to wait with it."""
        if is_fifo(asked.destination) and received.group is not None:
            groups.add(received.group)

    def _open(self, message: dict[str, Any], asked: _Asked, received: Received) -> None:
        """Put the clear body in the place of the sealed one."""
        text, policy = message.get("Body", ""), asked.policy
        claimed = message.get("MD5OfBody")
        data = text.encode("utf-8", "surrogatepass")
        if claimed is not None and claimed != text_md5(data):
            raise self._damaged("MD5OfBody is not that of the body received", asked, received)
        envelope = envelope_of(text)
        opened = self._sealer.open(
            data if envelope is None else envelope,
            destination=asked.destination,
            headers=values_of(message.get("MessageAttributes"), policy.bind_headers)
            if policy.bind_headers
            else None,
            ordering_key=received.group.encode()
            if policy.bind_ordering_key and received.group is not None
            else None,
            coordinates=received.coordinates,
        )
        try:
            message["Body"] = opened.body.decode()
        except UnicodeDecodeError:
            raise self._refusal(
                Refused(Verdict.MALFORMED, "the opened body is no text", destination=asked.destination),
                asked,
                received,
            ) from None
        if claimed is not None:
            message["MD5OfBody"] = text_md5(opened.body)
        _take_out(message, asked)

    def _damaged(self, detail: str, asked: _Asked, received: Received) -> Refused:
        return self._refusal(
            _Damaged(Verdict.MALFORMED, detail, destination=asked.destination), asked, received
        )

    def _refusal(self, refused: Refused, asked: _Asked, received: Received) -> Refused:
        """Tell of a message that is refused here, not by the sealer."""
        self._sealer.auditor.tell(
            AuditEvent(
                time=datetime.now(UTC),
                verdict=refused.verdict,
                detail=refused.detail,
                destination=asked.destination,
                policy=asked.policy.name,
                coordinates=received.coordinates,
            )
        )
        return refused


def _names(params: Mapping[str, Any], option: str) -> tuple[str, ...]:
    names = params.get(option)
    return tuple(names) if isinstance(names, (list, tuple)) else ()


def _add(params: dict[str, Any], option: str, wanted: tuple[str, ...] | list[str]) -> None:
    given = params.get(option)
    if given is not None and not isinstance(given, (list, tuple)):
        return  # botocore will say so
    names = _names(params, option)
    missing = [name for name in wanted if name not in names]
    if missing:
        params[option] = [*names, *missing]


def _take_out(message: dict[str, Any], asked: _Asked) -> None:
    """Take out of *message* what the caller did not ask for."""
    system = message.get("Attributes")
    if system is not None and "All" not in asked.system_names:
        for name in (_RECEIVE_COUNT, _GROUP):
            if name not in asked.system_names:
                system.pop(name, None)
        if not system:
            del message["Attributes"]
    attributes = message.get("MessageAttributes")
    if attributes is None:
        return
    kept = {name: value for name, value in attributes.items() if asks_for(name, asked.names)}
    if len(kept) == len(attributes):
        return
    if kept:
        message["MessageAttributes"] = kept
        message["MD5OfMessageAttributes"] = attributes_md5(kept)
    else:
        del message["MessageAttributes"]
        message.pop("MD5OfMessageAttributes", None)


def _wrapped_key(message: Mapping[str, Any]) -> bytes | None:
    """Return the wrapped keys that *message* carries, as they stand there, unverified; None where it carries none."""
    envelope = envelope_of(message.get("Body", ""))
    if envelope is None:
        return None
    try:
        return decode(envelope).recipients_bytes or None
    except Refused:
        return None
