"""What `$management` answers where the Python SDK does not ask: rules, pages of sessions, requests that make no sense."""

import uuid

import pytest
from proton import UNDESCRIBED, Array, Data, Message, int32, symbol, timestamp

from integration.servers.servicebus.broker import Broker
from integration.servers.servicebus.entries import Options
from integration.servers.servicebus.management import Management
from integration.servers.servicebus.message import Sent
from integration.servers.servicebus.rules import nothing

ONE = {"from-sequence-number": 1, "message-count": 1}
NONE = {"lock-tokens": Array(UNDESCRIBED, Data.UUID, uuid.UUID(int=1))}
LATER = timestamp(253_402_300_800_000)


@pytest.fixture
def broker():
    return Broker(lambda: 1000.0)


@pytest.fixture
def ask(broker):
    """Ask as a client does, by way of bytes: status, condition, body."""

    def ask(path, operation, body):
        request = Message(id=uuid.uuid4(), properties={"operation": f"com.microsoft:{operation}"}, body=body)
        arrived = Message()
        arrived.decode(request.encode())
        answer = Message()
        answer.decode(Management(broker).answer(arrived, path).encode())
        assert answer.correlation_id == request.id
        return answer.properties["statusCode"], answer.properties.get("errorCondition"), answer.body

    return ask


def sent(**properties):
    return Sent(bytes(Message(body=b"x", **properties).encode()))


def test_a_rule_is_added_listed_and_removed(broker, ask):
    broker.create_topic("events")
    queue = broker.create_subscription("events", "some", rules={"none": nothing}).queue
    path = "events/Subscriptions/some"
    broker.send("events", sent(properties={"colour": "red"}))
    assert len(queue) == 0

    rule = {"sql-filter": {"expression": "colour = 'red'"}}
    assert ask(path, "add-rule", {"rule-name": "red", "rule-description": rule})[0] == 200
    rule = {"correlation-filter": {"label": "big", "properties": {"n": 1}}}
    assert ask(path, "add-rule", {"rule-name": "big", "rule-description": rule})[0] == 200
    broker.send("events", sent(properties={"colour": "red"}))
    broker.send("events", sent(subject="big", properties={"n": 1}))
    assert len(queue) == 2

    status, _, body = ask(path, "enumerate-rules", {"top": int32(10), "skip": int32(0)})
    assert status == 200
    assert [rule["rule-description"].value[2] for rule in body["rules"]] == ["none", "red", "big"]
    assert body["rules"][1]["rule-description"].value[0].value[0] == "colour = 'red'"
    assert ask(path, "enumerate-rules", {"top": int32(10), "skip": int32(3)})[0] == 204

    assert ask(path, "remove-rule", {"rule-name": "red"})[0] == 200
    broker.send("events", sent(properties={"colour": "red"}))
    assert len(queue) == 2


def test_sessions_are_listed_by_pages(broker, ask):
    broker.create_queue("orders", Options(requires_session=True))
    for name in "abc":
        broker.send("orders", sent(group_id=name))

    def page(skip):
        body = {"last-updated-time": LATER, "skip": int32(skip), "top": int32(2)}
        return ask("orders", "get-message-sessions", body)

    assert page(0)[2]["sessions-ids"] == ["a", "b"]
    assert page(2)[2]["sessions-ids"] == ["c"]
    assert page(3)[0] == 204


def test_locks_are_renewed_together(broker, ask):
    queue = broker.create_queue("orders", Options(lock_duration=30))
    for _ in range(2):
        broker.send("orders", sent())
    tokens = [queue.take().lock.token for _ in range(2)]

    status, _, body = ask("orders", "renew-lock", {"lock-tokens": Array(UNDESCRIBED, Data.UUID, *tokens)})

    assert (status, list(body["expirations"].elements)) == (200, [1_030_000, 1_030_000])


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (("orders", "make-tea", {}), (501, "amqp:not-implemented")),
        (("orders", "peek-message", {}), (400, "com.microsoft:argument-error")),
        (("orders", "peek-message", "text"), (400, "com.microsoft:argument-error")),
        (("nowhere", "peek-message", ONE), (404, "amqp:not-found")),
        (("orders", "get-session-state", {"session-id": "a"}), (410, "com.microsoft:session-lock-lost")),
        (
            ("orders", "schedule-message", {"messages": [{"message": b"x"}]}),
            (400, "com.microsoft:argument-error"),
        ),
        (
            ("orders", "update-disposition", {"disposition-status": "eaten", **NONE}),
            (400, "com.microsoft:argument-error"),
        ),
        (
            ("orders", "update-disposition", {"disposition-status": "completed", **NONE}),
            (410, "com.microsoft:message-lock-lost"),
        ),
    ],
)
def test_what_cannot_be_done_is_answered_with_the_reason(broker, ask, request_, answer):
    broker.create_queue("orders")

    assert ask(*request_)[:2] == (answer[0], symbol(answer[1]))
