"""Smaller parts of the Service Bus test server: rules, tokens, faults, AMQP's bytes, the emulator's configuration."""

import json
import urllib.error
from types import SimpleNamespace

import pytest
from azure.servicebus._base_handler import _generate_sas_token
from hypothesis import given
from hypothesis import strategies as st
from proton import Message

from integration.servers.machine import LOOPBACK, free_ports
from integration.servers.servicebus import encoding, tokens
from integration.servers.servicebus.config import options, seconds
from integration.servers.servicebus.control import Control, Refused, ask
from integration.servers.servicebus.entries import Entry, Lock
from integration.servers.servicebus.errors import BadRequest, Unauthorized
from integration.servers.servicebus.faults import Fault, Faults, Point
from integration.servers.servicebus.message import Sent, arrived
from integration.servers.servicebus.rules import Correlation, Sql

MESSAGE = SimpleNamespace(
    subject="big", correlation_id=None, properties={"colour": "red", "count": 3, "it's": True, "none": None}
)


@pytest.mark.parametrize(
    ("expression", "holds"),
    [
        ("colour = 'red'", True),
        ("colour = 'blue'", False),
        ("colour <> 'blue' AND count >= 3", True),
        ("colour = 'blue' OR count < 4", True),
        ("NOT colour = 'blue'", True),
        ("count IN (1, 2, 3)", True),
        ("count NOT IN (1, 2)", True),
        ("colour LIKE 'r%'", True),
        ("colour LIKE 'r_'", False),
        ("sys.Label = 'big'", True),
        ("sys.CorrelationId IS NULL", True),
        ("user.colour IS NOT NULL", True),
        ("[it's] = TRUE", True),
        ("EXISTS(none)", True),
        ("EXISTS(missing)", False),
        ("count = -3", False),
        # Unknown is not true, and neither is its contrary.
        ("missing = 'red'", False),
        ("NOT missing = 'red'", False),
        ("missing = 'red' OR count = 3", True),
        ("colour > 3", False),
        ("(count = 3 OR colour = 'blue') AND colour = 'blue'", False),
        ("count = 3 OR colour = 'blue' AND colour = 'blue'", True),
    ],
)
def test_a_sql_rule_is_read_as_sql(expression, holds):
    assert Sql(expression)(MESSAGE) is holds


@pytest.mark.parametrize(
    "expression", ["", "colour =", "colour = 'red", "AND", "colour IS 3", "a = 1 b", "sys.What = 1"]
)
def test_a_sql_rule_that_cannot_be_read_is_refused(expression):
    with pytest.raises(BadRequest):
        Sql(expression)


def test_a_correlation_rule_wants_all_of_its_values():
    assert Correlation({"subject": "big"}, {"colour": "red"})(MESSAGE)
    assert not Correlation({"subject": "big"}, {"colour": "blue"})(MESSAGE)
    assert not Correlation({"subject": "small"}, {"colour": "red"})(MESSAGE)


# Tokens


def sas(resource="sb://127.0.0.1:1/orders", *, key=tokens.KEY, name=tokens.KEY_NAME):
    return _generate_sas_token(resource, name, key).token


@pytest.mark.parametrize(
    "audience", ["sb://127.0.0.1:1/orders", "amqps://127.0.0.1:1/orders/Subscriptions/a"]
)
def test_a_token_of_the_sdk_is_accepted_for_its_resource_and_what_is_below(audience):
    assert tokens.check(sas(), audience) > 0


@pytest.mark.parametrize(
    ("token", "audience"),
    [
        (sas(key="another"), "sb://127.0.0.1:1/orders"),
        (sas(name="Another"), "sb://127.0.0.1:1/orders"),
        (sas(), "sb://127.0.0.1:1/orders2"),
        (sas().replace("se=", "se=9"), "sb://127.0.0.1:1/orders"),
        ("Bearer abc", "sb://127.0.0.1:1/orders"),
        ("", "sb://127.0.0.1:1/orders"),
    ],
)
def test_any_other_token_is_refused(token, audience):
    with pytest.raises(Unauthorized):
        tokens.check(token, audience)


def test_an_expired_token_is_refused():
    with pytest.raises(Unauthorized, match="expired"):
        tokens.check(sas(), "sb://127.0.0.1:1/orders", clock=lambda: 1e12)


# Faults


def test_a_fault_strikes_where_and_as_often_as_it_says():
    faults = Faults()
    faults.add(Fault.of({"point": "settle", "action": "drop", "entity": "orders*", "skip": 1, "times": 2}))

    assert faults.strike(Point.SETTLED, "orders") is None
    assert faults.strike(Point.SETTLE, "invoices") is None
    struck = [faults.strike(Point.SETTLE, "Orders-1") is not None for _ in range(4)]
    assert struck == [False, True, True, False]


@pytest.mark.parametrize(
    "given",
    [{}, {"point": "settle"}, {"point": "x", "action": "drop"}, {"point": "send", "action": "drop", "x": 1}],
)
def test_a_fault_that_cannot_be_is_refused(given):
    with pytest.raises(BadRequest):
        Fault.of(given)


# Bytes


def test_a_message_comes_out_as_it_went_in_with_what_the_broker_knows():
    sent = Message(
        body=b"order 7",
        id="7",
        subject="s",
        group_id="g",
        ttl=5,
        durable=True,
        priority=7,
        properties={"a": 1, "DeadLetterReason": "mine"},
        annotations={"x-opt-partition-key": "p", "x-opt-sequence-number": 1},
    )
    content = Sent(bytes(sent.encode()))
    entry = Entry(
        9, content, enqueued_at=1.5, expires_at=0, stamps={"DeadLetterReason": "bad"}, delivery_count=3
    )

    out = Message()
    out.decode(content.handed_out(entry))

    assert (content.message_id, content.session_id, content.ttl) == ("7", "g", 5)
    assert (out.body, out.id, out.subject, out.ttl, out.durable, out.priority) == (
        b"order 7",
        "7",
        "s",
        5,
        True,
        7,
    )
    assert out.delivery_count == 3
    assert out.properties == {"a": 1, "DeadLetterReason": "bad"}
    assert dict(out.annotations) == {
        "x-opt-partition-key": "p",
        "x-opt-sequence-number": 9,
        "x-opt-enqueue-sequence-number": 9,
        "x-opt-enqueued-time": 1500,
        "x-opt-message-state": 0,
    }


def test_a_first_delivery_has_a_count_of_0_and_not_none():
    entry = Entry(1, content := Sent(Message(body=b"x").encode()), 0, 0, lock=Lock(None, 2))
    (head, *_) = encoding.sections(content.handed_out(entry))

    assert encoding.fields_of(head[1])[4] == 0


@pytest.mark.parametrize("body", [b"", b"x", b"x" * 300, "text", 7, {"a": 1}, [b"\x00Sp", 1]])
def test_one_message_is_one_whatever_its_body(body):
    (message,) = arrived(Message(body=body).encode())
    assert message.size > 0


def test_a_batch_is_each_of_its_messages():
    inner = [Message(body=name, id=name.decode()).encode() for name in (b"one", b"two")]
    whole = b"".join(b"\x00\x53\x75\xb0" + len(one).to_bytes(4, "big") + one for one in inner)

    assert [message.message_id for message in arrived(whole)] == ["one", "two"]
    # Also with the properties that the SDK copies from the first.
    properties = Message(id="one", body=None).encode()
    head = dict(encoding.sections(properties))[encoding.PROPERTIES]
    assert [message.message_id for message in arrived(head + whole)] == ["one", "two"]


def test_a_body_that_only_begins_like_a_message_is_a_body():
    body = Message(body=b"x").encode()[:-1]
    (message,) = arrived(Message(body=body).encode())
    assert message.bodies[0].endswith(body)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_refused(raw):
    try:
        found = arrived(raw)
    except encoding.Malformed:
        return
    assert b"".join(section for _, section in encoding.sections(raw)) == raw
    assert found


@given(st.data())
def test_a_message_that_was_cut_is_refused_or_ends_between_sections(data):
    raw = Message(body=b"x" * 300, id="7", properties={"a": 1, "b": [1, "x"]}).encode()
    ends = {0}
    for _, section in encoding.sections(raw):
        ends.add(max(ends) + len(section))
    at = data.draw(st.integers(0, len(raw) - 1).filter(lambda end: end not in ends))

    with pytest.raises(encoding.Malformed):
        list(encoding.sections(raw[:at]))


# Configuration and control


def test_the_emulators_words_are_understood():
    given = {
        "LockDuration": "PT1M30S",
        "DefaultMessageTimeToLive": "PT1H",
        "MaxDeliveryCount": 3,
        "RequiresSession": True,
        "RequiresDuplicateDetection": True,
        "DuplicateDetectionHistoryTimeWindow": "PT20S",
    }
    assert options(given) == {
        "lock_duration": 90,
        "default_message_time_to_live": 3600,
        "max_delivery_count": 3,
        "requires_session": True,
        "duplicate_detection": 20,
    }
    assert seconds("P1DT0.5S") == 86400.5
    with pytest.raises(ValueError, match="no duration"):
        seconds("1 minute")


class Target:
    def count(self, path):
        if path != "orders":
            raise KeyError(path)
        return 7

    def secret(self):
        return "never told"


def test_another_process_asks_for_what_is_offered_and_nothing_else():
    (port,) = free_ports(1)
    control = Control(Target(), LOOPBACK, port)
    try:
        url = f"http://{LOOPBACK}:{port}"
        assert ask(url, "count", path="orders") == 7
        with pytest.raises(Refused, match="KeyError"):
            ask(url, "count", path="x")
        with pytest.raises(Refused, match="no method"):
            ask(url, "secret")
    finally:
        control.close()
    with pytest.raises(urllib.error.URLError):
        ask(url, "count", path="orders")


def test_json_of_control_is_plain():
    assert json.loads(json.dumps({"point": Point.SEND})) == {"point": "send"}
