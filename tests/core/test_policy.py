"""Policies: what is wrong is said before any message moves, and the most specific pattern wins."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postseal.core import ConfigError, DataKeyLimits, OpeningLimits, Policy
from postseal.core.policy import Policies
from postseal.core.wire import Protection
from tests.core.kit import policy

PRIVACY = {"protection": "privacy", "sign": "hmac", "senders": ["billing-api"]}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"protection": "privcy"}, ["protection", "'privacy'"]),
        ({"protection": "encryption"}, ["protection", "'confidentiality'", "'integrity'", "'privacy'"]),
        ({"mode": "enforced"}, ["mode", "'enforce'"]),
        ({"mode": "observ"}, ["mode", "'observe'"]),
        ({"mode": None}, ["mode", "'off'"]),
        ({"on_refused": "deadletter"}, ["on_refused", "'dead-letter'"]),
        ({"on_refused": "quarantine"}, ["on_refused", "quarantine"]),
        ({"quarantine": "quarantine"}, ["quarantine", "scheme:name"]),
        ({"destinations": []}, ["destinations", "empty"]),
        ({"destinations": "kafka:orders"}, ["destinations", "list"]),
        ({"destinations": None}, ["destinations", "list"]),
        ({"destinations": ["orders"]}, ["destinations", "scheme:name"]),
        ({"destinations": ["kafka:a", "kafka:a"]}, ["destinations", "twice"]),
        ({"destinations": [7]}, ["destinations", "text"]),
        ({"accept_from": ["dlq"]}, ["accept_from", "scheme:name"]),
        ({"accept_from": "sqs:dlq"}, ["accept_from", "list"]),
        ({"keys": []}, ["keys", "confidentiality"]),
        ({"keys": "main"}, ["keys", "list"]),
        ({"keys": 7}, ["keys", "list"]),
        ({"sign": "hmac"}, ["confidentiality", "'privacy'"]),
        ({**PRIVACY, "sign": None}, ["sign"]),
        ({**PRIVACY, "senders": []}, ["senders", "empty"]),
        ({**PRIVACY, "senders": "billing-api"}, ["senders", "list"]),
        ({**PRIVACY, "keys": []}, ["keys"]),
        ({**PRIVACY, "protection": "integrity"}, ["integrity", "'privacy'"]),
        ({"bind_headers": "a"}, ["bind_headers", "list"]),
        ({"bind_headers": ["traceparent"]}, ["bind_headers", "traceparent"]),
        ({"bind_headers": [f"h{i}" for i in range(65)]}, ["bind_headers", "64"]),
        ({"bind_headers": ["h" * 256]}, ["bind_headers", "255"]),
        ({"bind_headers": ["a\nb"]}, ["bind_headers", "control"]),
        ({"mode": "tolerate"}, ["tolerate_until"]),
        ({"tolerate_until": datetime(2027, 1, 31, tzinfo=UTC)}, ["tolerate"]),
        ({"mode": "tolerate", "tolerate_until": datetime(2027, 1, 31)}, ["tolerate_until", "time zone"]),  # noqa: DTZ001 - the fault itself
        ({"mode": "tolerate", "tolerate_until": "2027-01-31"}, ["tolerate_until"]),
        ({"max_message_age": 0}, ["max_message_age"]),
        ({"max_message_age": -1}, ["max_message_age"]),
        ({"max_message_age": float("nan")}, ["max_message_age"]),
        ({"max_message_age": float("inf")}, ["max_message_age", "None"]),
        ({"max_message_age": "14d"}, ["max_message_age", "seconds"]),
        ({"max_clock_skew": -1}, ["max_clock_skew"]),
        ({"max_clock_skew": float("inf")}, ["max_clock_skew"]),
        ({"max_clock_skew": "5m"}, ["max_clock_skew", "seconds"]),
        ({"version": -1}, ["version"]),
        ({"version": 2**32}, ["version"]),
        ({"version": 1.5}, ["version"]),
        ({"data_key": {"max_age": 600}}, ["data_key", "DataKeyLimits"]),
        ({"opening": {"max_age": 600}}, ["opening", "OpeningLimits"]),
        ({"name": ""}, ["name", "1 to 64"]),
        ({"name": "p" * 65}, ["name", "1 to 64"]),
        ({"name": "cafe\u0301"}, ["name", "normalisation"]),
        ({"name": None}, ["name", "text"]),
    ],
    ids=lambda value: str(value)[:60] if isinstance(value, dict) else "",
)
def test_a_mistake_is_said_at_construction_with_its_option_and_the_nearest_word(options, words):
    with pytest.raises(ConfigError) as error:
        Policy(**{"name": "orders", "destinations": ["kafka:orders"], "keys": ["main"]} | options)
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize(
    ("kind", "option", "value"),
    [
        (DataKeyLimits, "max_age", 0),
        (DataKeyLimits, "max_age", "10m"),
        (DataKeyLimits, "max_messages", 2**28 + 1),
        (DataKeyLimits, "max_messages", True),
        (DataKeyLimits, "max_bytes", 2**38 + 1),
        (DataKeyLimits, "max_stale", -1),
        (OpeningLimits, "max_age", 31 * 86400),
        (OpeningLimits, "max_stale", float("inf")),
        (OpeningLimits, "max_keys", 0),
    ],
)
def test_limits_out_of_range_are_named(kind, option, value):
    with pytest.raises(ConfigError, match=option):
        kind(**{option: value})


def test_a_policy_is_frozen_and_compares_by_value():
    one, other = policy(), policy()
    assert one == other
    assert hash(one) == hash(other)
    assert one.replace(version=1) != one
    with pytest.raises(AttributeError):
        one.mode = "off"
    with pytest.raises(ConfigError, match="'mode'"):
        one.replace(mod="off")


def test_a_copy_is_checked_like_a_new_one():
    with pytest.raises(ConfigError):
        policy().replace(mode="tolerate")


def test_bound_headers_are_sorted_by_their_bytes():
    assert policy(bind_headers=["b", "aa", "ä", "a", "B"]).bind_headers == ("B", "a", "aa", "b", "ä")


def test_protections_have_the_numbers_of_the_spec():
    assert [policy(form).code for form in ("confidentiality", "privacy-hmac", "integrity-hmac")] == [1, 2, 3]
    assert Protection.PRIVACY == 2


def _named(name, *patterns, accept_from=()):
    return Policy(name=name, destinations=patterns, accept_from=accept_from, keys=["main"])


@pytest.mark.parametrize(
    ("pattern", "matching", "other"),
    [
        (
            "kafka:orders",
            ["kafka:orders"],
            ["kafka:orders2", "kafka:order", "kafka:Orders", "sqs:orders", "kafka:orders "],
        ),
        ("sqs:orders*", ["sqs:orders", "sqs:orders-eu", "sqs:orders.fifo"], ["sqs:order", "kafka:orders"]),
        ("sqs:*-orders", ["sqs:eu-orders", "sqs:-orders"], ["sqs:orders", "sqs:eu-orders-2"]),
        ("kafka:*", ["kafka:a", "kafka:a.b", "kafka:a/b"], ["sqs:a"]),
        ("kafka:a.b", ["kafka:a.b"], ["kafka:axb"]),
        ("kafka:a#b", ["kafka:a#b"], ["kafka:ab", "kafka:a.b"]),
        ("kafka:(a+)+", ["kafka:(a+)+"], ["kafka:aa"]),
        ("servicebus:orders/*", ["servicebus:orders/eu"], ["servicebus:orders"]),
        (
            "rabbitmq:shop/orders.new",
            ["rabbitmq:shop/orders.new"],
            ["rabbitmq:shop/orders", "rabbitmq:shop2/orders.new"],
        ),
        (
            "rabbitmq:shop/orders.*",
            ["rabbitmq:shop/orders.new"],
            ["rabbitmq:shop/orders", "rabbitmq:shop/orders.new.eu"],
        ),
        ("rabbitmq:shop/*.new", ["rabbitmq:shop/orders.new"], ["rabbitmq:shop/new", "rabbitmq:shop/a.b.new"]),
        ("rabbitmq:shop/*", ["rabbitmq:shop/orders", "rabbitmq:shop/"], ["rabbitmq:shop/orders.new"]),
        (
            "rabbitmq:shop/orders.#",
            ["rabbitmq:shop/orders", "rabbitmq:shop/orders.a", "rabbitmq:shop/orders.a.b"],
            ["rabbitmq:shop/orders2"],
        ),
        (
            "rabbitmq:shop/#.new",
            ["rabbitmq:shop/new", "rabbitmq:shop/a.new", "rabbitmq:shop/a.b.new"],
            ["rabbitmq:shop/anew"],
        ),
        (
            "rabbitmq:shop/a.#.z",
            ["rabbitmq:shop/a.z", "rabbitmq:shop/a.b.z", "rabbitmq:shop/a.b.c.z"],
            ["rabbitmq:shop/az", "rabbitmq:shop/a"],
        ),
        ("rabbitmq:shop/#", ["rabbitmq:shop/", "rabbitmq:shop/a", "rabbitmq:shop/a.b"], ["rabbitmq:shop2/a"]),
        ("rabbitmq:shop/#.#", ["rabbitmq:shop/a", "rabbitmq:shop/a.b"], []),
        ("rabbitmq:shop/#.#.a", ["rabbitmq:shop/a", "rabbitmq:shop/b.a"], ["rabbitmq:shop/ba"]),
        ("rabbitmq:shop/#.*", ["rabbitmq:shop/a", "rabbitmq:shop/a.b"], []),
        ("rabbitmq:*/orders", ["rabbitmq:shop/orders", "rabbitmq:/orders"], ["rabbitmq:shop/x/orders"]),
        ("rabbitmq:sh*/orders", ["rabbitmq:shop/orders"], ["rabbitmq:shop/evil/orders"]),
    ],
)
def test_patterns_match_as_their_broker_would(pattern, matching, other):
    policies = Policies([_named("p", pattern)])
    for destination in matching:
        assert policies.find(destination).name == "p"
    for destination in other:
        with pytest.raises(ConfigError):
            policies.find(destination)


@given(
    st.lists(st.sampled_from(["a", "b", "*", "#"]), min_size=1, max_size=5),
    st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=5),
)
def test_routing_keys_match_as_amqp_says(pattern, key):
    """Against a matcher that says it word by word. Source: AMQP 0-9-1, topic exchange."""

    def matches(pattern, words):
        if not pattern:
            return not words
        if pattern[0] == "#":
            return matches(pattern[1:], words) or (bool(words) and matches(pattern, words[1:]))
        return bool(words) and pattern[0] in ("*", words[0]) and matches(pattern[1:], words[1:])

    policies = Policies([_named("p", "rabbitmq:x/" + ".".join(pattern))])
    try:
        found = policies.find("rabbitmq:x/" + ".".join(key)).name == "p"
    except ConfigError:
        found = False
    assert found == matches(pattern, key)


def test_the_most_specific_pattern_wins_in_any_order():
    policies = [
        _named("all", "kafka:*"),
        _named("orders", "kafka:orders*"),
        _named("eu", "kafka:orders-eu*"),
        _named("one", "kafka:orders-eu-1"),
    ]
    for order in (policies, policies[::-1]):
        found = Policies(order)
        assert found.find("kafka:orders-eu-1").name == "one"
        assert found.find("kafka:orders-eu-2").name == "eu"
        assert found.find("kafka:orders-us").name == "orders"
        assert found.find("kafka:other").name == "all"


def test_an_exact_name_wins_over_a_longer_pattern():
    assert (
        Policies([_named("star", "kafka:o*rders*"), _named("one", "kafka:orders")]).find("kafka:orders").name
        == "one"
    )


def test_a_destination_without_a_policy_is_refused_and_the_nearest_is_named():
    with pytest.raises(ConfigError, match=r"kafka:order'.*did you mean 'kafka:orders'"):
        Policies([_named("orders", "kafka:orders")]).find("kafka:order")


@pytest.mark.parametrize(
    "both",
    [
        [_named("a", "kafka:x"), _named("a", "kafka:y")],
        [_named("a", "kafka:x"), _named("b", "kafka:x")],
        [_named("a", "kafka:x", accept_from=["kafka:dlq"]), _named("b", "kafka:dlq")],
        [
            _named("a", "kafka:x", accept_from=["kafka:dlq"]),
            _named("b", "kafka:y", accept_from=["kafka:dlq"]),
        ],
        [_named("a", "kafka:x", accept_from=["kafka:x"])],
        ["kafka:x"],
    ],
    ids=["name", "destination", "home-and-dead-letters", "dead-letters", "own", "no-policy"],
)
def test_policies_that_are_in_each_others_way_are_refused(both):
    with pytest.raises(ConfigError):
        Policies(both)


def test_messages_may_lie_where_the_policy_accepts_them_and_nowhere_else():
    """A10: a dead-lettered message opens from the dead letters, and only from its own policy's."""
    orders = _named("orders", "kafka:orders*", accept_from=["kafka:dlq"])
    refunds = _named("refunds", "kafka:refunds", accept_from=["kafka:refunds-dlq"])
    policies = Policies([orders, refunds])
    assert policies.may_lie(orders, "kafka:orders", "kafka:orders")
    assert policies.may_lie(orders, "kafka:orders-eu", "kafka:dlq")
    assert not policies.may_lie(orders, "kafka:orders-eu", "kafka:orders")
    assert not policies.may_lie(orders, "kafka:dlq", "kafka:orders")
    assert not policies.may_lie(orders, "kafka:refunds", "kafka:dlq")
    assert not policies.may_lie(refunds, "kafka:orders", "kafka:refunds-dlq")
    assert not policies.may_lie(orders, "kafka:nobody", "kafka:dlq")
    assert not policies.may_lie(orders, "no scheme", "kafka:dlq")


@pytest.mark.parametrize(
    ("pattern", "destination"),
    [
        ("kafka:" + "*a" * 20 + "*z", "kafka:" + "a" * 500),
        ("rabbitmq:x/" + "#.a." * 20 + "#.z", "rabbitmq:x/" + ".".join("a" * 250)),
    ],
)
def test_no_destination_can_make_a_pattern_cost_the_age_of_the_universe(pattern, destination):
    """Destinations come from messages, too, before anything in them was authenticated."""
    policies = Policies([_named("p", pattern, "kafka:other")])
    with pytest.raises(ConfigError):
        policies.find(destination)
    policies.find(destination + ("z" if destination.startswith("kafka") else ".z"))
