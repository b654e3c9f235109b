"""The tag that binds a wrapped key to its context where a key service cannot."""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from postseal.core.errors import KeyBroken
from postseal.core.keys import KeyContext
from postseal.core.providers._binding import TAG_SIZE, canonical, check_tag, tag
from tests.core.stand_ins import CONTEXT, forms_of, shown_by_tracebacks

DATA_KEY = bytes(range(32))
SPEC = (Path(__file__).parents[2] / "core" / "SPEC.md").read_text("utf-8")
contexts = st.builds(KeyContext, st.text(max_size=40), st.text(max_size=40))


def hkdf(secret: bytes, info: bytes, length: int) -> bytes:
    """RFC 5869 with SHA-256 and an empty salt, for one block, by the standard library alone."""
    extracted = hmac.digest(bytes(32), secret, hashlib.sha256)
    return hmac.digest(extracted, info + b"\x01", hashlib.sha256)[:length]


def test_the_example_of_the_specification_is_right():
    """SPEC.md 6.2, made again by strangers: cbor2 and the standard library."""
    context_bytes = cbor2.dumps(["postseal v1 context", "orders", "kafka:orders"], canonical=True)
    made = hkdf(DATA_KEY, context_bytes, 16)
    assert (canonical(CONTEXT), tag(DATA_KEY, CONTEXT)) == (context_bytes, made)
    for shown in (DATA_KEY.hex(), f"context bytes  {context_bytes.hex()}", f"tag            {made.hex()}"):
        assert shown in SPEC


@given(contexts, contexts)
def test_two_contexts_never_have_the_same_bytes(first, second):
    assert (canonical(first) == canonical(second)) == (first == second)


@given(st.binary(min_size=32, max_size=32), contexts)
def test_every_tag_is_checked_by_its_own_key_and_context_alone(data_key, context):
    made = tag(data_key, context)
    assert len(made) == TAG_SIZE
    check_tag(data_key, context, made)
    for other in (bytes(16), made[:-1], made + b"\0", b"", bytes([made[0] ^ 1]) + made[1:]):
        with pytest.raises(KeyBroken):
            check_tag(data_key, context, other)
    with pytest.raises(KeyBroken):
        check_tag(data_key, context._replace(policy=context.policy + "x"), made)
    with pytest.raises(KeyBroken):
        check_tag(bytes([data_key[0] ^ 1]) + data_key[1:], context, made)


def test_no_data_key_shows_in_the_traceback_of_a_wrong_tag():
    """D3."""
    secret = bytes(range(100, 132))
    with pytest.raises(KeyBroken) as caught:
        check_tag(bytes(secret), CONTEXT, bytes(16))
    shown = shown_by_tracebacks(caught.value)
    assert "claimed=" in shown  # locals were captured
    assert not [form for form in forms_of(secret) if form in shown]
