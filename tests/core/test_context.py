"""What a message is bound to, and its canonical bytes: SPEC.md 5."""

from __future__ import annotations

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from postseal.core import ConfigError
from postseal.core.context import EMPTY, canonical, check_destination, check_name, is_plain

texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
values = st.one_of(texts, st.binary(max_size=12), st.integers(-(2**63), 2**64 - 1), st.booleans(), st.none())
names = st.sets(texts.filter(bool), max_size=5).map(lambda found: tuple(sorted(found, key=str.encode)))
contexts = st.tuples(
    names,
    st.lists(st.tuples(texts, values), max_size=5),
    st.none() | texts,
    st.none() | st.binary(max_size=12),
)


def _model(context):
    bound, headers, encoding, key = context
    return ["postseal v1", encoding, key, [[name, [v for n, v in headers if n == name]] for name in bound]]


def _canonical(context):
    bound, headers, encoding, key = context
    return canonical(bound, headers, content_encoding=encoding, ordering_key=key)


@given(contexts)
def test_it_is_the_deterministic_encoding_that_the_spec_names(context):
    assert _canonical(context) == cbor2.dumps(_model(context), canonical=True)


@given(contexts, contexts)
def test_two_different_contexts_never_have_the_same_bytes(one, other):
    typed = [cbor2.dumps(_model(context)) for context in (one, other)]  # True and 1 are equal in Python
    assert (_canonical(one) == _canonical(other)) == (typed[0] == typed[1])


def test_nothing_bound_is_the_sixteen_bytes_of_the_spec():
    assert canonical() == EMPTY == bytes.fromhex("84 6b 706f73747365616c207631 f6 f6 80")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([], [("x", None)]),
        ([("x", "")], [("x", None)]),
        ([("x", "")], [("x", b"")]),
        ([("x", 1)], [("x", True)]),
        ([("x", 0)], [("x", False)]),
        ([("x", 1)], [("x", "1")]),
        ([("x", "a"), ("x", "b")], [("x", "b"), ("x", "a")]),
        ([("x", "ab")], [("x", "a"), ("x", "b")]),
    ],
)
def test_what_looks_alike_is_bound_apart(one, other):
    assert canonical(("x",), one) != canonical(("x",), other)


def test_order_counts_only_among_equal_names():
    assert canonical(("a", "b"), [("a", 1), ("b", 2)]) == canonical(("a", "b"), [("b", 2), ("a", 1)])
    assert canonical(("a", "b"), {"b": 2, "a": 1}) == canonical(("a", "b"), [("a", 1), ("b", 2)])


def test_headers_that_are_not_bound_are_passed_over_whatever_they_hold():
    assert canonical(("a",), [("a", "1"), ("b", object())]) == canonical(("a",), [("a", "1")])


def test_buffers_are_bound_like_bytes():
    assert canonical(("a",), {"a": bytearray(b"x")}) == canonical(("a",), {"a": b"x"})
    assert canonical(("a",), {"a": memoryview(b"x")}) == canonical(("a",), {"a": b"x"})


@pytest.mark.parametrize("value", [1.5, 2**64, -(2**63) - 1, ["a"], {"a": 1}, object()])
def test_a_value_without_a_canonical_form_is_a_type_error_that_names_the_header(value):
    with pytest.raises(TypeError, match="'a'"):
        canonical(("a",), {"a": value})


@pytest.mark.parametrize("part", ["header", "encoding"])
def test_text_that_is_no_unicode_has_no_canonical_form_and_is_not_shown(part):
    value = "secret\ud800"
    with pytest.raises(TypeError) as error:
        canonical(("a",), {"a": value}) if part == "header" else canonical(content_encoding=value)
    assert "secret" not in str(error.value)
    assert error.value.__cause__ is None
    assert error.value.__suppress_context__


@pytest.mark.parametrize("name", ["orders", "größe", "x" * 255, "a b", "注文"])
def test_plain_names_are_taken(name):
    assert check_name(name, "sender") == name


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("", "1 to 255 bytes"),
        ("x" * 256, "1 to 255 bytes"),
        ("ö" * 128, "1 to 255 bytes"),
        ("cafe\u0301", "normalisation form C"),
        ("a\nb", "control characters"),
        ("a\x7f", "control characters"),
        ("a\u0085", "control characters"),
        ("a\ud800", "normalisation form C"),
        (b"bytes", "must be text"),
        (None, "must be text"),
    ],
)
def test_other_names_are_refused_with_what_is_wrong(name, what):
    with pytest.raises(ConfigError, match=what) as error:
        check_name(name, "the sender")
    assert "the sender" in str(error.value)


@given(texts)
def test_names_are_plain_by_the_same_rule_whether_ascii_or_not(name):
    import unicodedata

    plain = unicodedata.is_normalized("NFC", name) and not any(unicodedata.category(c) == "Cc" for c in name)
    assert is_plain(name) == plain


@pytest.mark.parametrize(
    "name", ["kafka:orders", "rabbitmq:shop/orders.#", "x:y", "servicebus:" + "d" * 501, "sqs:größe"]
)
def test_destinations_are_scheme_and_name(name):
    assert check_destination(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "orders",
        "kafka:",
        ":orders",
        "Kafka:orders",
        "k8s:x",
        "a" * 17 + ":x",
        "servicebus:" + "d" * 502,
        "ä:x",
    ],
)
def test_other_destinations_are_refused(name):
    with pytest.raises(ConfigError):
        check_destination(name)
