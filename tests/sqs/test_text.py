"""Envelopes as text: the accelerator writes and reads exactly what Python does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postseal.sqs._message import bytes_of, text_of
from tests.core.kit import chosen, is_compiled

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
STARTS = ("2GCE", "0Y", "0o")

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
