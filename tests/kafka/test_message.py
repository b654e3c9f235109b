"""What of a Kafka message is bound, and what the quarantine says of it."""

from __future__ import annotations

import pytest

from postseal.core import ConfigError, Policy, Sealer, Verdict
from postseal.kafka._message import (
    Topic,
    Topics,
    clear_headers,
    quarantine_headers,
    wire_bytes,
    wire_headers,
    without,
)
from tests.fakes import FakeKeys


def topic(name: str = "orders", **options) -> Topic:
    policy = Policy(name="p", destinations=["kafka:*"], keys=["main"], **options)
    return Topic(name, f"kafka:{name}", policy)


@pytest.mark.parametrize(
    ("given", "wire"), [("grün", b"gr\xc3\xbcn"), (b"\xff", b"\xff"), ("", b""), (b"", b""), (None, None)]
)
def test_a_value_is_bound_as_it_is_on_the_wire(given, wire) -> None:
    assert wire_bytes(given) == wire


def test_a_dict_and_a_list_of_headers_are_bound_alike() -> None:
    as_list = wire_headers([("a", "1"), ("x", "2"), ("b", None)])
    assert (
        as_list == wire_headers({"a": b"1", "x": "2", "b": None}) == [("a", b"1"), ("x", b"2"), ("b", None)]
    )


def test_headers_of_one_name_are_bound_in_order() -> None:
    assert wire_headers([("a", "1"), ("a", "0"), ("a", None)]) == [("a", b"1"), ("a", b"0"), ("a", None)]


def test_no_headers_bind_nothing() -> None:
    assert wire_headers(None) is wire_headers([]) is wire_headers({}) is None


def test_headers_that_are_taken_out_leave_the_others_as_they_were() -> None:
    assert without([("a", "1"), ("b", None), ("a", b"2")], ("a",)) == [("b", None)]
    assert without({"a": "1"}, ("a",)) is without(None, ("a",)) is None
    assert clear_headers([("A", b"1"), ("b", b"2")], ("a",)) == [("b", b"2")]


def test_a_topic_is_looked_up_once() -> None:
    policy = Policy(name="p", destinations=["kafka:orders"], keys=["main"])
    sealer = Sealer(sender="shop", policies=[policy], keys={"main": FakeKeys()})
    topics = Topics(sealer)
    assert topics["orders"] is topics["orders"]
    assert topics["orders"].destination == "kafka:orders"


def test_a_topic_without_a_policy_is_a_mistake() -> None:
    policy = Policy(name="p", destinations=["kafka:orders"], keys=["main"])
    topics = Topics(Sealer(sender="shop", policies=[policy], keys={"main": FakeKeys()}))
    with pytest.raises(ConfigError, match=r"'kafka:order'; did you mean 'kafka:orders'\?"):
        topics["order"]
    assert topics == {}


def test_a_topic_that_is_no_text_is_a_type_error() -> None:
    policy = Policy(name="p", destinations=["kafka:orders"], keys=["main"])
    topics = Topics(Sealer(sender="shop", policies=[policy], keys={"main": FakeKeys()}))
    with pytest.raises(TypeError, match="topic must be a str, not int"):
        topics[5]


@pytest.mark.parametrize(
    ("name", "options", "target"),
    [
        ("orders", {"on_refused": "raise"}, None),
        ("orders", {"on_refused": "discard"}, None),
        ("orders", {"on_refused": "dead-letter"}, "orders.refused"),
        ("orders", {"on_refused": "dead-letter", "quarantine": "kafka:bad"}, "bad"),
        # The broker's own dead letters are meant, and another broker's are no use here.
        ("orders", {"on_refused": "dead-letter", "quarantine": "sqs:bad"}, "orders.refused"),
        ("orders", {"on_refused": "quarantine", "quarantine": "kafka:bad"}, "bad"),
        # What is refused where it lies in quarantine would go round for ever.
        ("bad", {"on_refused": "quarantine", "quarantine": "kafka:bad"}, None),
        ("orders.refused", {"on_refused": "dead-letter"}, None),
    ],
)
def test_the_policy_names_the_quarantine(name, options, target) -> None:
    """A10."""
    assert topic(name, **options).quarantine == target


def test_a_quarantine_of_another_broker_is_a_mistake() -> None:
    with pytest.raises(ConfigError, match="quarantine is 'sqs:bad'"):
        _ = topic(on_refused="quarantine", quarantine="sqs:bad").quarantine


def test_quarantine_headers_say_the_verdict_and_the_place_and_no_more() -> None:
    assert quarantine_headers([("a", b"1"), ("a", None)], Verdict.FORGED, "orders", 3, 42) == [
        ("a", b"1"),
        ("a", None),
        ("postseal-verdict", b"forged"),
        ("postseal-topic", b"orders"),
        ("postseal-partition", b"3"),
        ("postseal-offset", b"42"),
    ]


def test_what_a_forger_wrote_under_our_names_is_replaced() -> None:
    """A9."""
    headers = quarantine_headers([("postseal-verdict", b"ok")], Verdict.STALE, "orders", 0, 0)
    assert dict(headers)["postseal-verdict"] == b"stale"
    assert [name for name, _ in headers].count("postseal-verdict") == 1
