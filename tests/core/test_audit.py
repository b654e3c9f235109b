"""One event for each refusal, to logging and a callback, without anything that was to be protected."""

from __future__ import annotations

import asyncio
import json
import logging
from datetime import UTC, datetime

import pytest

from postseal.core import AuditEvent, Refused, Verdict
from postseal.core.audit import Auditor
from tests.core.kit import FORMS, HERE, NOW, SECRET, SENDER, Party, party, policy

BODY = b"PAN 4111 1111 1111 1111"
VALUE = "header value 4929"
COORDINATES = {"topic": "orders", "partition": 3, "offset": 42}


def refused(one, envelope, *, way="open", **options):
    """Return the error with which *envelope* is refused."""
    options = {"destination": HERE, "coordinates": COORDINATES} | options
    calls = {
        "open": lambda: one.open(envelope, **options),
        "aopen": lambda: asyncio.run(one.sealer.aopen(envelope, **options)),
        "verify": lambda: one.sealer.verify(envelope, **options),
    }
    with pytest.raises(Refused) as error:
        calls[way]()
    return error.value


def damaged(envelope):
    return envelope[:-1] + bytes([envelope[-1] ^ 1])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("way", ["open", "aopen"])
def test_each_refusal_makes_exactly_one_event_and_one_log_record(form, way, caplog):
    """E6: one refused delivery, one event, whether it is met for the first time or after others like it."""
    one = party(form)
    caplog.set_level(logging.DEBUG, "postseal.audit")
    envelope = one.seal(BODY, destination=HERE)
    cold = [b"clear", damaged(envelope), envelope[:-1], damaged(envelope)]
    warm = [envelope[:40] + bytes([envelope[40] ^ 1]) + envelope[41:], envelope[:-1], b"clear"]
    for count, message in enumerate([*cold, None, *warm]):
        if message is None:
            one.open(envelope, destination=HERE)
        else:
            refused(one, message, way=way)
        expected = count + (count < len(cold))
        assert len(one.events) == expected
        assert len([record for record in caplog.records if record.name == "postseal.audit"]) == expected
    assert sum(one.sealer.auditor.counts.values()) == len(cold) + len(warm)


def test_verify_makes_exactly_one_event_too():
    one = party("privacy-hmac")
    refused(one, damaged(one.seal(BODY, destination=HERE)), way="verify")
    assert [event.verdict for event in one.events] == [Verdict.FORGED]


def test_what_opens_makes_no_event():
    one = party()
    one.open(one.seal(BODY, destination=HERE), destination=HERE)
    assert one.events == []
    assert one.sealer.auditor.counts == {}


def test_an_event_says_when_where_why_and_what_the_message_claims():
    one = Party(policy("privacy-hmac", destinations=[HERE, "kafka:refunds"]))
    envelope = one.seal(BODY, destination="kafka:refunds")
    error = refused(one, envelope)
    [event] = one.events
    assert event.time == datetime.fromtimestamp(NOW / 1000, UTC)
    assert (event.verdict, event.destination, event.policy) == (Verdict.WRONG_DESTINATION, HERE, "orders")
    assert event.detail == error.detail != ""
    assert (event.unverified_sender, event.unverified_destination) == (SENDER, "kafka:refunds")
    assert event.unverified_message_id == one.open(envelope, destination="kafka:refunds").message_id
    assert event.unverified_key_id == "hmac-1"
    assert event.coordinates == COORDINATES
    as_dict = json.loads(json.dumps(event.as_dict()))
    assert as_dict["time"] == "2026-10-01T09:30:15.123+00:00"
    assert as_dict["verdict"] == "wrong-destination"
    assert as_dict["coordinates"] == COORDINATES


def test_what_cannot_be_read_is_none():
    one = party()
    refused(one, b"clear text", coordinates=None)
    [event] = one.events
    assert [
        event.unverified_sender,
        event.unverified_destination,
        event.unverified_message_id,
        event.unverified_key_id,
    ] == [None] * 4
    assert dict(event.coordinates) == {}


def test_what_nothing_authenticated_has_a_name_that_says_so():
    claims = {"sender", "message_id", "key_id"}
    assert not claims & set(AuditEvent._fields)
    assert {f"unverified_{name}" for name in claims} <= set(AuditEvent._fields)


@pytest.mark.parametrize("form", FORMS)
def test_no_body_no_key_and_no_header_value_is_in_an_event_or_a_log(form, caplog):
    """E6: neither of what was clear nor of what was sealed, in any record of any logger, tracebacks included."""
    caplog.set_level(logging.DEBUG)
    one = party(form, bind_headers=["a"])
    envelope = one.seal(BODY, destination=HERE, headers={"a": VALUE})
    one.open(envelope, destination=HERE, headers={"a": VALUE})
    errors = [
        refused(one, BODY, headers={"a": VALUE}),
        refused(
            one, damaged(envelope) if form != "confidentiality" else envelope[:170], headers={"a": VALUE}
        ),
        refused(one, envelope, headers={"a": VALUE + "!"}),
        refused(one, envelope, headers={"a": [VALUE]}),
        refused(one, envelope, headers={"a": VALUE + "\ud800"}),
        refused(one, envelope, headers={"a": VALUE}, content_encoding="gzip"),
    ]
    assert len(one.events) == len(errors)
    formatter = logging.Formatter()
    told = [json.dumps(event.as_dict()) for event in one.events]
    told += [repr(event) for event in one.events]
    told += [formatter.format(record) + str(record.__dict__) for record in caplog.records]
    told += [
        str(error)
        + repr(error)
        + str(error.__cause__)
        + (str(error.__context__) if not error.__suppress_context__ else "")
        for error in errors
    ]
    for secret in (
        BODY.decode(),
        BODY.hex(),
        VALUE,
        SECRET.hex(),
        repr(SECRET),
        bytes(32).hex(),
        envelope[-40:].hex(),
    ):
        for text in told:
            assert secret not in text


def test_names_of_a_message_cannot_forge_log_lines(caplog):
    """What a message claims goes into the record's data, not into its line; and control characters are malformed before that."""
    one = Party(policy(destinations=[HERE, "kafka:x\u2028refused: ok"]))
    caplog.set_level(logging.DEBUG, "postseal.audit")
    refused(one, one.seal(BODY, destination="kafka:x\u2028refused: ok"))
    [record] = [r for r in caplog.records if r.name == "postseal.audit"]
    assert "\u2028" not in record.getMessage()
    assert record.postseal["unverified_destination"] == "kafka:x\u2028refused: ok"


def test_a_callback_that_raises_changes_no_verdict(caplog):
    """The alarm may fail; the message is refused all the same, counted and logged."""

    def broken(event):
        raise RuntimeError("the alarm is broken")

    one = Party(policy(), on_audit=broken)
    assert refused(one, b"clear").verdict is Verdict.UNPROTECTED
    assert refused(one, b"clear", way="aopen").verdict is Verdict.UNPROTECTED
    assert one.sealer.auditor.counts == {Verdict.UNPROTECTED: 2}
    assert "the audit callback failed" in caplog.text


def test_a_refusal_is_told_before_it_is_raised():
    seen = []
    one = Party(policy(), on_audit=lambda event: seen.append(event.verdict))
    with pytest.raises(Refused):
        one.open(b"clear", destination=HERE)
    assert seen == [Verdict.UNPROTECTED]


def test_counts_are_exact_under_threads():
    from concurrent.futures import ThreadPoolExecutor

    logging.getLogger("postseal.audit").disabled = True
    try:
        auditor = Auditor()
        event = AuditEvent(
            time=datetime.now(UTC), verdict=Verdict.FORGED, detail="", destination=HERE, policy="orders"
        )
        with ThreadPoolExecutor(8) as pool:
            for _ in range(8):
                pool.submit(lambda: [auditor.tell(event) for _ in range(500)])
    finally:
        logging.getLogger("postseal.audit").disabled = False
    assert auditor.counts == {Verdict.FORGED: 4000}


def test_key_ids_that_are_no_text_are_shown_in_hex():
    from postseal.core import Recipient

    class Odd:
        def __init__(self, inner):
            self.inner = inner

        def generate(self, context):
            made = self.inner.generate(context)
            return made._replace(
                recipients=(
                    *made.recipients,
                    Recipient(-65537, b"\x00\xff", b"?"),
                    Recipient(7, b"a\nb", b"?"),
                )
            )

        def wrap(self, data_key, context):
            raise NotImplementedError

        def unwrap(self, recipients, context):
            return self.inner.unwrap(recipients, context)

    from tests.core.kit import local_keys

    one = Party(policy(destinations=[HERE, "kafka:refunds"]), keys=Odd(local_keys()))
    refused(one, one.seal(BODY, destination="kafka:refunds"))
    assert one.events[0].unverified_key_id == "main-1, 00ff, 610a62"
