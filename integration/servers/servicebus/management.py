"""What is asked of `$management`: locks, peeks, schedules, deferred messages, settlements, sessions, rules.

Source: Service Bus, "AMQP request/response operations".
"""

import uuid
from collections.abc import Callable
from typing import Any

from proton import UNDESCRIBED, Array, Data, Message, int32, symbol, timestamp

from .broker import Broker
from .entries import Entry
from .errors import BadRequest, BrokerError, NotImplementedHere
from .message import Sent
from .queue import Queue
from .rules import from_amqp, to_amqp

Answer = dict[Any, Any]
# What has no messages is no error.
_NOTHING = 204
# A receiver that settles at once, that is: receive and delete.
_FIRST = 0


class Management:
    """Answers requests about one entity after the other.

    Args:
        broker: Where the entities are.
    """

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._operations: dict[str, Callable[[str, dict[str, Any]], tuple[int, Answer]]] = {
            "renew-lock": self._renew_lock,
            "peek-message": self._peek,
            "schedule-message": self._schedule,
            "cancel-scheduled-message": self._cancel,
            "receive-by-sequence-number": self._receive_deferred,
            "update-disposition": self._settle,
            "renew-session-lock": self._renew_session,
            "get-session-state": self._get_state,
            "set-session-state": self._set_state,
            "get-message-sessions": self._list_sessions,
            "add-rule": self._add_rule,
            "remove-rule": self._remove_rule,
            "enumerate-rules": self._list_rules,
        }

    def answer(self, request: Message, path: str) -> Message:
        """Do what is asked about the entity at *path*; what is refused is an answer, too."""
        properties: dict[Any, Any] = request.properties or {}
        name = str(properties.get("operation", "")).removeprefix("com.microsoft:")
        try:
            operation = self._operations.get(name)
            if operation is None:
                raise NotImplementedHere(f"operation {name!r}")
            if not isinstance(request.body, dict):
                raise BadRequest("the body is no map")
            status, body = operation(path, request.body)
        except BrokerError as error:
            return refusal(request, error)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            return refusal(request, BadRequest(f"{name}: {type(error).__name__}: {error}"))
        return reply(request, status, body)

    def _renew_lock(self, path: str, body: dict[str, Any]) -> tuple[int, Answer]:
        queue = self._broker.queue(path)
        ends = [timestamp(int(queue.renew(token) * 1000)) for token in body["lock-tokens"]]
        return 200, {"expirations": _array(Data.TIMESTAMP, ends)}

    def _peek(self, path: str, body: dict[str, Any]) -> tuple[int, Answer]:
        first, count = int(body["from-sequence-number"]), int(body["message-count"])
        found = self._broker.queue(path).peek(first, count, body.get("session-id"))
        return (
            (200, {"messages": [{"message": _written(entry)} for entry in found]})
            if found
            else (_NOTHING, {})
        )

    def _schedule(self, path: str, body: dict[str, Any]) -> tuple[int, Answer]:
        messages = [Sent(bytes(one["message"])) for one in body["messages"]]
        numbers = [self._broker.send(path, message, at=message.scheduled_at) for message in messages]
        return 200, {"sequence-numbers": _array(Data.LONG, numbers)}

    def _cancel(self, path: str, body: dict[str, Any]) -> tuple[int, Answer]:
        self._broker.cancel(path, [int(number) for number in body["sequence-numbers"]])
        return 200, {}

    def _receive_deferred(self, path: str, body: dict[str, Any]) -> tuple[int, Answer]:
        queue = self._broker.queue(path)
        numbers = [int(number) for number in body["sequence-numbers"]]
        session = queue.sessions.find(body["session-id"]) if "session-id" in body else None
        entries = queue.take_deferred(numbers, session, remove=int(body["receiver-settle-mode"]) == _FIRST)
        return 200, {"messages": [_locked(entry) for entry in entries]}

    def _settle(self, path: str, body: dict[str, Any]) -> tuple[int, Answer]:
        queue, status = self._broker.queue(path), body["disposition-status"]
        for token in body["lock-tokens"]:
            settle(
                queue,
                token,
                str(status),
                reason=body.get("deadletter-reason") or "",
                description=body.get("deadletter-description") or "",
            )
        return 200, {}

    def _renew_session(self, path: str, body: dict[str, Any]) -> tuple[int, Answer]:
        queue = self._broker.queue(path)
        until = queue.sessions.renew(queue.sessions.find(body["session-id"]))
        return 200, {"expiration": timestamp(int(until * 1000))}

    def _get_state(self, path: str, body: dict[str, Any]) -> tuple[int, Answer]:
        queue = self._broker.queue(path)
        return 200, {"session-state": queue.sessions.find(body["session-id"]).state}

    def _set_state(self, path: str, body: dict[str, Any]) -> tuple[int, Answer]:
        queue, state = self._broker.queue(path), body["session-state"]
        queue.sessions.set_state(
            queue.sessions.find(body["session-id"]).name, None if state is None else bytes(state)
        )
        return 200, {}

    def _list_sessions(self, path: str, body: dict[str, Any]) -> tuple[int, Answer]:
        # A time beyond all others asks for those that have messages or a state.
        since = int(body["last-updated-time"]) / 1000
        names = self._broker.queue(path).sessions.names(since if since < _END_OF_TIME else None)
        page = names[int(body["skip"]) :][: int(body["top"])]
        return (200, {"skip": int32(int(body["skip"])), "sessions-ids": page}) if page else (_NOTHING, {})

    def _add_rule(self, path: str, body: dict[str, Any]) -> tuple[int, Answer]:
        self._broker.subscription(path).rules[body["rule-name"]] = from_amqp(body["rule-description"])
        return 200, {}

    def _remove_rule(self, path: str, body: dict[str, Any]) -> tuple[int, Answer]:
        del self._broker.subscription(path).rules[body["rule-name"]]
        return 200, {}

    def _list_rules(self, path: str, body: dict[str, Any]) -> tuple[int, Answer]:
        rules = list(self._broker.subscription(path).rules.items())[int(body["skip"]) :][: int(body["top"])]
        return (200, {"rules": [to_amqp(*rule) for rule in rules]}) if rules else (_NOTHING, {})


# The last second of the year 9999.
_END_OF_TIME = 253_402_300_799


def settle(queue: Queue, token: uuid.UUID, status: str, *, reason: str = "", description: str = "") -> None:
    """Settle a message in the words of `update-disposition`.

    Raises:
        LockLost: The token locks nothing any more.
        BadRequest: No such status.
    """
    if status == "completed":
        queue.complete(token)
    elif status == "abandoned":
        queue.abandon(token)
    elif status == "defered":
        queue.defer(token)
    elif status == "suspended":
        queue.dead_letter(token, reason, description)
    else:
        raise BadRequest(f"no status: {status}")


def reply(request: Message, status: int, body: Any = None, *, condition: str = "", text: str = "") -> Message:
    """Answer a request, in the words of `$management` and of `$cbs`."""
    properties: dict[str, Any] = {
        "statusCode": int32(status),
        "status-code": int32(status),
        "statusDescription": text,
        "status-description": text,
    }
    if condition:
        properties["errorCondition"] = symbol(condition)
    return Message(correlation_id=request.id, properties=properties, body=body)


def refusal(request: Message, error: BrokerError) -> Message:
    """Answer that it is refused."""
    return reply(request, error.status, condition=error.condition, text=str(error))


def _array(kind: int, values: list[Any]) -> Array:
    nothing: Any = UNDESCRIBED
    return Array(nothing, kind, *values)


def _written(entry: Entry) -> bytes:
    assert isinstance(entry.content, Sent)
    return entry.content.handed_out(entry)


def _locked(entry: Entry) -> Answer:
    return {"message": _written(entry), **({"lock-token": entry.lock.token} if entry.lock else {})}
