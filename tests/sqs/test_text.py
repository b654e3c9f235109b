"""Envelopes as text, and what is done for all messages of a call at once: the accelerator does exactly what Python does."""

from __future__ import annotations

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postseal.sqs._text import bytes_of, in_order, open_texts, seal_texts, text_md5s, text_of
from tests.core.kit import chosen, is_compiled

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
STARTS = ("2GCE", "0Y", "0o", "2nBzbDG")

pytestmark = pytest.mark.skipif(not is_compiled(), reason="the accelerator was not built, or is not wanted")


def both(call, argument):
    found = []
    for way in ("compiled", "python"):
        with chosen(way):
            found.append(call(argument))
    return found


@given(st.sampled_from([b"\xd8\x60\x84", b"\xd1\x84", b"\xd2\x84"]), st.binary(max_size=3000))
def test_both_write_the_same_text_and_read_it_back(start, rest):
    compiled, python = both(text_of, start + rest)
    assert compiled == python
    assert both(bytes_of, compiled) == [start + rest] * 2


@given(
    st.sampled_from(STARTS),
    st.text(ALPHABET, max_size=40) | st.text(ALPHABET + "+/= \n\0\u00e9\ud800", max_size=12),
)
def test_both_read_the_same_and_refuse_the_same(start, rest):
    """Padding, the other alphabet, bits left over, a lone surrogate: none is read, and none is an error."""
    compiled, python = both(bytes_of, start + rest)
    assert compiled == python
    assert compiled is None or text_of(compiled) == start + rest


@pytest.mark.parametrize("last", ALPHABET)
@pytest.mark.parametrize("before", ["0Y", "0YA", "2GCE", "2GCEA"])
def test_both_refuse_the_same_bits_left_over(before, last):
    compiled, python = both(bytes_of, before + last)
    assert compiled == python


# -- those of a whole call

HEAD = b"\xd8\x60\x84"
clear_texts = st.one_of(
    st.text(max_size=100),
    st.sampled_from([*STARTS, "stop", "wait", "\ud800", "", "2GC", "gr\u00fcn", "0"]),
)
anything = st.one_of(clear_texts, st.sampled_from([None, b"bytes", 7, ["list"]]))


class Text(str):
    """A kind of text of somebody's own."""

    __slots__ = ()


def seal(body):
    return None if body == b"stop" else HEAD + body


def open_(envelope):
    return None if envelope == HEAD + b"stop" else envelope.removeprefix(HEAD)


@given(st.lists(anything, max_size=6))
def test_both_seal_the_same_of_a_call(texts):
    compiled, python = both(lambda given: seal_texts(seal, given), texts)
    assert compiled == python
    assert [bytes_of(text) for text in compiled] == [HEAD + text.encode() for text in texts[: len(compiled)]]
    for text in texts[len(compiled) :][:1]:  # what goes the whole way
        assert not isinstance(text, str) or text == "stop" or text.startswith(STARTS) or "\ud800" in text


@pytest.mark.parametrize("other", ["stop", "0Yes", "2nBzbDG", "\ud800", None, b"x", Text("x")])
def test_both_seal_up_to_what_is_no_common_case(other):
    for found in both(lambda given: seal_texts(seal, given), ["a", "b", other, "c"]):
        assert found == [text_of(HEAD + b"a"), text_of(HEAD + b"b")]


@given(
    st.lists(st.one_of(anything, st.binary(max_size=40).map(lambda rest: text_of(HEAD + rest))), max_size=6)
)
def test_both_open_the_same_of_a_call(texts):
    compiled, python = both(lambda given: open_texts(open_, given), texts)
    assert compiled == python


@pytest.mark.parametrize("other", ["stop", "0Yes", text_of(HEAD + b"stop"), text_of(HEAD + b"\xff"), None])
def test_both_open_up_to_what_is_no_common_case(other):
    texts = [text_of(HEAD + b"a"), text_of(HEAD + "gr\u00fcn".encode()), other, text_of(HEAD + b"c")]
    for found in both(lambda given: open_texts(open_, given), texts):
        assert found == ["a", "gr\u00fcn"]


@pytest.mark.parametrize("work", [seal_texts, open_texts])
def test_both_let_an_error_of_the_sealer_out(work):
    def broken(_):
        raise RuntimeError("broken")

    for way in ("compiled", "python"):
        with chosen(way), pytest.raises(RuntimeError, match="broken"):
            work(broken, [text_of(HEAD) if work is open_texts else "x"])


# -- MD5


def md5(text):
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


@pytest.mark.parametrize("size", [*range(130), 1024, 100_000])
def test_md5_is_that_of_hashlib_at_every_size_of_the_last_block(size):
    texts = ["x" * size, "", "y" * (size + 1), "\u20ac" * size, "z" * 64]
    assert both(text_md5s, texts) == [[md5(text) for text in texts]] * 2


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=300), max_size=25))
def test_each_text_has_its_own_md5_however_many_there_are(texts):
    assert both(text_md5s, texts) == [[md5(text) for text in texts]] * 2


# -- the guard

KEY = b'"MessageBody": "'
bodies = st.text("ab", max_size=3)


@given(
    st.lists(bodies, max_size=3),
    st.lists(bodies, max_size=3),
    st.sampled_from(["", "x", '"MessageBody": "a"']),
)
def test_both_see_whether_a_request_carries_what_was_sealed(sealed, sent, beside):
    entries = [{"Id": beside, "MessageBody": body, "Other": beside} for body in sent]
    data = json.dumps({"QueueUrl": beside, "Entries": entries}).encode()
    assert both(lambda texts: in_order(KEY, texts, data), sealed) == [sealed == sent] * 2


@given(
    st.lists(bodies, max_size=3),
    st.lists(st.sampled_from([KEY, b'"', b"a", b"b", KEY[1:], b"\xff"]), max_size=9),
)
def test_both_see_the_same_in_any_bytes(sealed, parts):
    compiled, python = both(lambda texts: in_order(KEY, texts, b"".join(parts)), sealed)
    assert compiled is python
