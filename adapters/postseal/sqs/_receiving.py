"""Opens what a client receives, before anybody else sees the response.

All but the opening itself is here, so that the hooks of a client open between: `Receiving.begin` gives a `Sorting`, which says one by one
what is to be opened and is told what came of it; then `Receiving.finish` settles what is not handed on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from postseal.core import ConfigError, Sealer
from postseal.sqs._dialect import queue_url_of
from postseal.sqs._message import (
    Place,
    Places,
    asks_for,
    asks_for_all,
    attributes_md5,
    destination_of,
)
from postseal.sqs._sending import CONTEXT, UNTOUCHED
from postseal.sqs._settling import Settling, Steps
from postseal.sqs._sorting import Sorting

__all__ = ["Receiving"]

_SYSTEM_NAMES: Final = ("MessageSystemAttributeNames", "AttributeNames")
"""The parameter of today, and the one it replaced. Source: SQS API, ReceiveMessage."""
_RECEIVE_COUNT: Final = "ApproximateReceiveCount"
_GROUP: Final = "MessageGroupId"
_NEEDED: Final = {
    (counts, groups): (_RECEIVE_COUNT,) * counts + (_GROUP,) * groups
    for counts in (False, True)
    for groups in (False, True)
}
"""System attributes to ask for, where the receive count and the group matter, or do not."""
_MAX_TROUBLED: Final = 1024


class _Asked(NamedTuple):
    """What is known of one ReceiveMessage while it is under way."""

    queue_url: str
    place: Place
    names: tuple[str, ...]
    """Attributes that the caller asked for."""
    system_names: tuple[str, ...]
    """System attributes likewise."""
    wait: float
    """Seconds that the caller would wait for a message."""


class Receiving:
    """What the handlers of ReceiveMessage have in common, for any client.

    Args:
        sealer: Knows the policies; audits.
        settling: Settles what is not handed on.
    """

    def __init__(self, sealer: Sealer, settling: Settling) -> None:
        self._sealer = sealer
        self._settling = settling
        self._places = Places(sealer, destination_of)
        self._troubled: set[str] = set()
        """Destinations where a message was not handed on: there it is asked how often each came, which costs a twentieth of a receive."""

    # -- before ----------------------------------------------------------------------------------------------------

    def ask(self, params: dict[str, Any], context: dict[str, Any]) -> None:
        """Ask for the attributes that opening needs, besides the caller's. The caller's lists stay as they are."""
        if context.get("is_presign_request"):
            return  # what it will bring is sealed, and stays so
        queue_url = queue_url_of(params)
        place = self._places[queue_url]
        policy = place.policy
        if policy.consuming == "off":
            context[CONTEXT] = UNTOUCHED
            return
        wait = params.get("WaitTimeSeconds")
        wait = wait if isinstance(wait, int) else 0
        # A copy in the quarantine is to have all of them; and none may lie there that is to come encrypted.
        wanted = ("All",) if policy.on_refused == "quarantine" or policy.encrypt_headers else place.bind
        needed = _NEEDED[place.destination in self._troubled, place.bind_group or place.fifo]
        names = _names(params, "MessageAttributeNames")
        system_names: tuple[str, ...] = ()
        given = [option for option in _SYSTEM_NAMES if params.get(option)]
        if given:
            system_names = tuple(name for option in given for name in _names(params, option))
        context[CONTEXT] = _Asked(queue_url, place, names, system_names, wait)
        if wanted and not asks_for_all(names):
            _add(params, "MessageAttributeNames", wanted)
        for option in given or _SYSTEM_NAMES[:1]:
            if "All" not in _names(params, option):
                _add(params, option, needed)

    # -- after -----------------------------------------------------------------------------------------------------

    def begin(self, parsed: Mapping[str, Any], context: Mapping[str, Any]) -> Sorting | None:
        """Return what sorts the messages of a response; None where it is to be handed on as it is.

        Raises:
            ConfigError: This call began before `protect`.
        """
        asked, messages = context.get(CONTEXT), parsed.get("Messages")
        if asked is UNTOUCHED or not messages:
            return None
        if not isinstance(asked, _Asked):
            raise ConfigError("this call began before protect, so nothing it brought is handed on")
        return Sorting(messages, asked.place, self._sealer.auditor)

    def finish(self, parsed: dict[str, Any], context: Mapping[str, Any], sorting: Sorting) -> Steps[None]:
        """Leave in the response what was opened; settle what was not.

        Raises:
            Refused: The response held nothing but refused messages, and their policy says to raise.
        """
        asked: _Asked = context[CONTEXT]
        opened, place = sorting.done, asked.place
        if opened:
            parsed["Messages"] = opened
            for message in opened:
                if "Attributes" in message or "MessageAttributes" in message:
                    _take_out(message, asked)
        else:
            del parsed["Messages"]  # as in an empty response
        self._note_trouble(sorting)
        if sorting.refused:
            yield from self._settling.settle(
                asked.queue_url, place.destination, place.policy, sorting.refused
            )
        if sorting.withheld:
            yield from self._settling.give_back(asked.queue_url, place.destination, sorting.withheld)
        if opened:
            return
        if sorting.broken:
            raise sorting.broken[0].error
        if sorting.withheld:
            yield from self._settling.pause(asked.wait)
        elif (refusal := sorting.raised) is not None:
            raise refusal

    def _note_trouble(self, sorting: Sorting) -> None:
        if len(sorting.done) < len(sorting.messages) and len(self._troubled) < _MAX_TROUBLED:
            self._troubled.add(sorting.destination)


def _names(params: Mapping[str, Any], option: str) -> tuple[str, ...]:
    names = params.get(option)
    return tuple(names) if isinstance(names, (list, tuple)) else ()


def _add(params: dict[str, Any], option: str, wanted: tuple[str, ...]) -> None:
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
