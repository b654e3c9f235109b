"""What is pure: destinations, text, attributes, sizes, MD5."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postseal.core import ConfigError
from postseal.core.wire import looks_sealed
from postseal.sqs import _message as m
from postseal.sqs import _text as t

SEALED_STARTS = (
    b"\xd8\x60\x84\x58\x20\xa4\x01",
    b"\xd8\x60\x84\x59\x01\x00\xa5\x01",
    b"\xd1\x84\x43\xa3\x01",
    b"\xd2\x84\x59\x01\x00\xa4\x01",
)
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

sealed = st.builds(lambda start, rest: start + rest, st.sampled_from(SEALED_STARTS), st.binary(min_size=1))


# -- destinations


@pytest.mark.parametrize(
    ("url", "destination"),
    [
        ("https://sqs.eu-west-1.amazonaws.com/111122223333/orders", "sqs:orders"),
        ("https://queue.amazonaws.com/111122223333/orders-2.fifo", "sqs:orders-2.fifo"),
        ("http://127.0.0.1:4566/000000000000/a_b", "sqs:a_b"),
        ("orders", "sqs:orders"),
    ],
)
def test_the_destination_is_the_name_of_the_queue(url, destination):
    assert m.destination_of(url) == destination


@pytest.mark.parametrize(
    "url",
    [
        "",
        "https://host/1/",
        "https://host/1/orders?x=1",
        "https://host/1/a%2e",
        "https://host/1/.fifo",
        "x" * 81,
    ],
)
def test_a_url_without_the_name_of_a_queue_is_an_error(url):
    with pytest.raises(ConfigError, match="QueueUrl"):
        m.destination_of(url)


# -- text


@given(sealed)
def test_text_gives_back_the_envelope(envelope):
    text = t.text_of(envelope)
    assert set(text) <= set(ALPHABET)
    assert base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)) == envelope
    assert t.envelope_of(text) == envelope


@given(sealed, st.data())
def test_one_envelope_has_one_text(envelope, data):
    """Whatever else would decode to the same bytes by a lax decoder is no envelope."""
    text = t.text_of(envelope)
    at = data.draw(st.integers(0, len(text)))
    other = data.draw(
        st.sampled_from(
            [
                text + "=" * (-len(text) % 4 or 4),
                text[:at] + "\n" + text[at:],
                text[:at] + " " + text[at:],
                text[:at] + "=" + text[at:],
                text[:at] + "é" + text[at:],
                text[:at] + "+" + text[at + 1 :] if at < len(text) else text + "/",
            ]
        )
    )
    assert t.envelope_of(other) is None


@given(sealed, st.sampled_from(ALPHABET))
def test_bits_left_over_must_be_zero(envelope, last):
    text = t.text_of(envelope)
    changed = t.envelope_of(text[:-1] + last)
    assert changed is None or t.text_of(changed) == text[:-1] + last


@given(st.text(alphabet=ALPHABET, max_size=40))
def test_whatever_is_an_envelope_looks_sealed_and_is_canonical(text):
    for candidate in (text, "2GCEW" + text, "0YR" + text, "0oRZ" + text):
        envelope = t.envelope_of(candidate)
        if envelope is not None:
            assert looks_sealed(envelope)
            assert t.text_of(envelope) == candidate


@pytest.mark.parametrize(
    "clear", ["", "hello", "aGVsbG8", "2GCEW\ud800", '{"order": 1}', "2GCE", "0Yes", "0oops", "2GCEAAAA"]
)
def test_clear_text_is_no_envelope(clear):
    assert t.envelope_of(clear) is None


# -- attributes

ATTRIBUTES = {
    "tenant": {"DataType": "String", "StringValue": "grün"},
    "count": {"DataType": "Number.int", "StringValue": "7"},
    "picture": {"DataType": "Binary.png", "BinaryValue": b"\x00\xff"},
}


def test_values_are_text_or_bytes_and_any_other_type_is_told_before_them():
    """A9: to call a Number a String, or the other way round, changes what is bound."""
    headers = [
        ("tenant", "grün"),
        ("count", "Number.int"),
        ("count", "7"),
        ("picture", "Binary.png"),
        ("picture", b"\x00\xff"),
    ]
    assert m.values_of(ATTRIBUTES) == headers
    assert m.attributes_of(headers) == ATTRIBUTES
    assert m.values_of(None) == []
    assert m.values_of({"b": {"DataType": "Binary", "BinaryValue": "text"}}) == [("b", b"text")]


def test_attributes_that_somebody_sealed_without_the_adapter_become_text():
    assert m.attributes_of([("a", 1), ("b", None), ("c", b"x")]) == {
        "a": {"DataType": "String", "StringValue": "1"},
        "b": {"DataType": "String", "StringValue": "None"},
        "c": {"DataType": "Binary", "BinaryValue": b"x"},
    }


def test_names_types_and_values_count():
    assert m.attributes_size(ATTRIBUTES) == (6 + 6 + 5) + (5 + 10 + 1) + (7 + 10 + 2)
    assert m.attributes_size(None) == 0


@pytest.mark.parametrize(
    ("names", "asked"),
    [
        ((), False),
        (("tenant",), True),
        (("All",), True),
        ((".*",), True),
        (("ten.*",), True),
        (("tenants",), False),
        (("x.*",), False),
    ],
)
def test_names_ask_for_attributes_as_sqs_says(names, asked):
    assert m.asks_for("tenant", names) is asked


# -- MD5


def test_md5_of_a_body_is_that_of_sqs():
    # Source: SQS API Reference, SendMessage, example response for "This is a test message".
    assert t.text_md5("This is a test message") == "fafb00f5732ab283681e124bf8747ed1"
    assert t.text_md5("grün") == t.text_md5("grün".encode())


def test_md5_of_attributes_is_that_of_sqs(line):
    answer = line.bare.send_message(
        QueueUrl=line.url(line.place()), MessageBody="x", MessageAttributes=ATTRIBUTES
    )
    assert m.attributes_md5(ATTRIBUTES) == answer["MD5OfMessageAttributes"]
