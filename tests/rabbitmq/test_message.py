"""What of an AMQP message is bound, and the names of places."""

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from types import SimpleNamespace

import pika
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pika.data import decode_table, encode_table

from postseal.core import ConfigError, Policy, Verdict
from postseal.rabbitmq._message import (
    Bound,
    check_bound,
    check_policy,
    destination_of,
    place_of,
    quarantine_headers,
)

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.text(st.characters(exclude_categories=("Cs",)), max_size=8),
    st.binary(max_size=8),
    st.decimals(-1000, 1000, places=2),
    st.datetimes(datetime(1971, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001 - bounds are naive
)
names = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=8)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3)
)


def bound(*, sent=True, **properties):
    return list(Bound(pika.BasicProperties(**properties), sent=sent))


def form(value, *, sent=False):
    return bound(headers={"it": value}, sent=sent)[-1][1]


# -- destinations ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("exchange", "routing_key", "destination"),
    [
        ("shop", "orders.new", "rabbitmq:shop/orders.new"),
        ("", "orders", "rabbitmq:/orders"),
        ("fan", "", "rabbitmq:fan/"),
        ("shop", "a/b", "rabbitmq:shop/a/b"),
        ("größe", "füße", "rabbitmq:größe/füße"),
    ],
)
def test_a_destination_is_exchange_and_routing_key(exchange, routing_key, destination):
    assert destination_of(exchange, routing_key) == destination
    assert place_of(destination) == (exchange, routing_key)


@pytest.mark.parametrize(
    ("exchange", "routing_key"),
    [("a/b", "c"), ("shop", "new\n"), (b"\xff", "x"), ("shop", b"\xff"), ("x" * 255, "y" * 255)],
)
def test_what_cannot_be_told_from_another_destination_is_none(exchange, routing_key):
    with pytest.raises(ConfigError):
        destination_of(exchange, routing_key)


@pytest.mark.parametrize("destination", ["rabbitmq:orders", "sqs:orders", "kafka:a/b"])
def test_a_place_of_another_broker_is_none(destination):
    with pytest.raises(ConfigError, match="is no destination of RabbitMQ"):
        place_of(destination)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"destinations": ["rabbitmq:orders"]}, "'rabbitmq:/orders'"),
        ({"accept_from": ["rabbitmq:orders-dlq"]}, "'rabbitmq:/orders-dlq'"),
        ({"bind_headers": ["x-tenant"]}, "x-tenant"),
        ({"bind_headers": ["expiration"]}, "expiration"),
        ({"bind_headers": ["user-id"]}, "user-id"),
        ({"bind_headers": ["CC"]}, "CC"),
        ({"on_refused": "quarantine", "quarantine": "sqs:refused"}, "sqs:refused"),
    ],
)
def test_a_policy_that_rabbitmq_cannot_keep_is_refused(options, words):
    options = {"destinations": ["rabbitmq:/orders"]} | options
    with pytest.raises(ConfigError, match=words):
        check_policy(Policy(name="orders", keys=["main"], **options))


def test_patterns_may_leave_the_exchange_open():
    check_policy(Policy(name="all", destinations=["rabbitmq:*", "rabbitmq:*/orders.#"], keys=["main"]))


# -- what is bound -----------------------------------------------------------------------------------------------------


def test_properties_have_both_their_names_and_come_before_headers():
    pairs = bound(correlation_id="7", headers={"correlation-id": "8", "type": "refund"})
    assert [value for name, value in pairs if name == "correlation-id"] == ["7", "8"]
    assert [value for name, value in pairs if name == "correlation_id"] == ["7"]
    assert [value for name, value in pairs if name == "type"] == [None, "refund"]


def test_a_property_cannot_be_swapped_for_a_header_of_its_name():
    sent = [value for name, value in bound(type="pay") if name == "type"]
    swapped = [value for name, value in bound(headers={"type": "pay"}) if name == "type"]
    assert sent != swapped


def test_no_properties_are_bound_as_absent():
    assert {value for _, value in Bound(None, sent=True)} == {None}


def test_both_clients_properties_are_read():
    ours = dict.fromkeys(
        ("content_type", "content_encoding", "message_id", "correlation_id", "reply_to", "app_id", "priority")
    )
    theirs = SimpleNamespace(**ours, message_type="pay", headers={})
    assert ("type", "pay") in list(Bound(theirs, sent=True))


@given(value=values)
def test_what_is_sent_has_the_form_of_what_comes(value):
    """The form is made by the sender from what it was given, by the consumer from what pika decoded."""
    pieces = []
    encode_table(pieces, {"it": value})
    decoded, _ = decode_table(b"".join(pieces), 0)
    assert form(value, sent=True) == form(decoded["it"])


@given(one=values, other=values)
def test_two_values_have_two_forms(one, other):
    if form(one) == form(other):
        assert one == other or str(one) == str(other)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"x", b"xx"),
        (bytearray(b"x"), b"xx"),
        (Decimal("-1.50"), b"D-1.5"),
        (Decimal("-0.0"), b"D0"),
        (Decimal("1E+2"), b"D100"),
        (Decimal("100.00"), b"D100"),
        (0.5, b"d\x3f\xe0\0\0\0\0\0\0"),
        (datetime(2026, 1, 1, tzinfo=UTC), b"T1767225600.000000"),
        (datetime(2026, 1, 1, 2, tzinfo=timezone(timedelta(hours=2))), b"T1767225600.000000"),
        ([1, None, "a"], b"A\x83\x01\xf6\x61a"),
        ({"b": True, "a": [b"\0"]}, b"F\xa2\x61a\x45A\x81\x42x\0\x61b\xf5"),
        ("A\x83", "A\x83"),
    ],
)
def test_forms_are_those_of_the_specification(value, expected):
    """SPEC.md 5.3."""
    assert form(value) == expected


def test_a_sent_float_is_bound_as_a_client_sends_it():
    assert form(0.1, sent=True) == form(0.10000000149011612)
    assert form(0.1) != form(0.10000000149011612)


def test_a_sent_moment_is_bound_as_a_client_sends_it():
    naive = datetime(2026, 1, 1, 0, 0, 0, 999_999)  # noqa: DTZ001 - clients take it as UTC
    assert form(naive, sent=True) == b"T1767225600.000000"


@pytest.mark.parametrize("value", [object(), Decimal("NaN"), 2**64, {b"\xff": 1}, ["\ud800"]])
def test_what_has_no_form_is_left_to_be_refused(value):
    headers = {"it": [value] if value == 2**64 else value}
    ((_, same),) = [pair for pair in bound(headers=headers) if pair[0] == "it"]
    assert same is headers["it"]


def test_tables_without_end_have_no_form():
    deep = "x"
    for _ in range(40):
        deep = [deep]
    assert isinstance(form(deep), list)


def test_a_reply_queue_that_the_broker_renames_cannot_be_bound():
    properties = pika.BasicProperties(reply_to="amq.rabbitmq.reply-to")
    binding = Policy(name="rpc", destinations=["rabbitmq:/rpc"], keys=["main"], bind_headers=["reply-to"])
    with pytest.raises(ConfigError, match="reply_to"):
        check_bound(properties, binding)
    check_bound(pika.BasicProperties(reply_to="mine"), binding)
    check_bound(
        properties, Policy(name="rpc", destinations=["rabbitmq:/rpc"], keys=["main"], bind_headers=["type"])
    )


# -- the quarantine ----------------------------------------------------------------------------------------------------


def test_a_copy_says_why_and_whence_and_is_sent_to_nobody_else():
    came = {"tenant": "north", "CC": ["victim"], "BCC": ["victim"], "postseal-verdict": "ok"}
    assert quarantine_headers(came, Verdict.FORGED, "shop", "orders") == {
        "tenant": "north",
        "postseal-verdict": "forged",
        "postseal-exchange": "shop",
        "postseal-routing-key": "orders",
    }
    assert "CC" in came
