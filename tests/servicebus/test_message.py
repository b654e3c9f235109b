"""What of a message is bound, packed, copied and restored: no client, no broker."""

import copy
import uuid
from datetime import UTC, datetime, timedelta, timezone

import pytest
from azure.servicebus import ServiceBusMessage
from azure.servicebus.amqp import AmqpAnnotatedMessage, AmqpMessageBodyType
from hypothesis import given
from hypothesis import strategies as st

from postseal.core import ConfigError, Policy
from postseal.servicebus._bodies import SECTIONS, pack, unpack
from postseal.servicebus._copies import copy_of
from postseal.servicebus._message import (
    beside_of as plain_beside_of,
)
from postseal.servicebus._message import (
    bound_by,
    destination_of,
    draft_of,
    fields_of,
    is_sub_queue,
    normal,
)
from postseal.servicebus._sdk import check, decode_sections, encode_sections


def beside_of(fields, application, policy):
    """Return what the adapter says, its pairs of headers as a dict."""
    found = plain_beside_of(fields, application, policy)
    return found | ({"headers": dict(found["headers"])} if "headers" in found else {})


def policy(*names, **options):
    return Policy(
        name="orders", destinations=["servicebus:orders"], keys=["main"], bind_headers=names, **options
    )


def received(raw):
    """Return *raw* as a client receives it."""
    return AmqpAnnotatedMessage(message=decode_sections(encode_sections(raw)))


# -- destinations ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "destination"),
    [
        ("orders", "servicebus:orders"),
        ("team/orders", "servicebus:team/orders"),
        ("orders/$DeadLetterQueue", "servicebus:orders"),
        ("orders/$deadletterqueue", "servicebus:orders"),
        ("orders/$Transfer/$DeadLetterQueue", "servicebus:orders"),
        ("orders/Subscriptions/emea", "servicebus:orders"),
        ("orders/subscriptions/emea/$DeadLetterQueue", "servicebus:orders"),
        ("team/orders/Subscriptions/emea", "servicebus:team/orders"),
    ],
)
def test_a_destination_is_what_the_producer_meant(path, destination):
    assert destination_of(path) == destination


def test_only_dead_letters_are_sub_queues():
    assert is_sub_queue("orders/$DeadLetterQueue")
    assert is_sub_queue("orders/Subscriptions/emea/$Transfer/$DeadLetterQueue")
    assert not is_sub_queue("orders/Subscriptions/emea")


def test_nothing_is_no_destination():
    with pytest.raises(ConfigError, match="not the path"):
        destination_of("")


# -- what is bound -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        "text",
        "Grün, 漢字",
        b"bytes that are text",
        0,
        -(2**31),
        2**31 - 1,
        True,
        None,
        1.5,
        -0.0,
        uuid.UUID(int=7),
        datetime(2026, 10, 1, 12, 30, 15, 123456, tzinfo=UTC),
        datetime(2026, 10, 1, 12, 30, tzinfo=timezone(timedelta(hours=2))),
        datetime(1969, 12, 31, 23, 59, 59, 999000, tzinfo=UTC),
    ],
    ids=repr,
)
def test_a_bound_property_is_the_same_sent_and_received(value):
    raw = AmqpAnnotatedMessage(data_body=b"", application_properties={"name": value})
    sent = beside_of(fields_of(raw.properties), raw.application_properties, policy("name"))
    came = received(AmqpAnnotatedMessage(data_body=b"", application_properties={"name": value}))
    assert beside_of(fields_of(came.properties), came.application_properties, policy("name")) == sent
    assert sent["headers"] == {"name": normal(value)}


def test_values_of_different_types_are_bound_differently():
    values = ["5", 5, 5.0, True, None, uuid.UUID(int=5), b"\xff5"]
    assert len({repr(normal(value)) for value in values}) == len(values)


def test_bytes_that_are_no_text_cannot_stand_for_a_float():
    assert normal(normal(1.5)) != normal(1.5)


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        ("correlation-id", "correlation_id", "c-1"),
        ("correlation_id", "correlation_id", "c-1"),
        ("reply-to", "reply_to", "replies"),
        ("subject", "subject", "new order"),
        ("label", "subject", "new order"),
        ("session-id", "session_id", "s-1"),
        ("reply-to-session-id", "reply_to_session_id", "s-2"),
        ("to", "to", "there"),
        ("message-id", "message_id", "m-1"),
    ],
)
def test_properties_of_amqp_are_bound_by_their_names(name, option, value):
    raw = ServiceBusMessage("x", **{option: value}).raw_amqp_message
    bound = beside_of(fields_of(raw.properties), raw.application_properties, policy(name))
    assert bound == {"headers": {name: value}}
    came = received(raw)
    assert beside_of(fields_of(came.properties), came.application_properties, policy(name)) == bound


def test_an_application_property_cannot_stand_in_for_one_of_amqp():
    raw = ServiceBusMessage("x", application_properties={"subject": "forged"}).raw_amqp_message
    assert beside_of(fields_of(raw.properties), raw.application_properties, policy("subject")) == {
        "headers": {}
    }


def test_content_encoding_and_session_are_handed_on():
    raw = AmqpAnnotatedMessage(data_body=b"", properties={"content_encoding": "gzip", "group_id": "s-1"})
    ordered = policy(bind_ordering_key=True)
    assert beside_of(fields_of(raw.properties), None, ordered) == {
        "content_encoding": "gzip",
        "ordering_key": b"s-1",
    }
    assert beside_of(fields_of(received(raw).properties), None, ordered) == beside_of(
        fields_of(raw.properties), None, ordered
    )
    assert "ordering_key" not in beside_of(fields_of(raw.properties), None, policy())


@pytest.mark.parametrize(
    "name", ["creation-time", "absolute_expiry_time", "DeadLetterReason", "Diagnostic-Id"]
)
def test_what_the_broker_changes_cannot_be_bound(name):
    with pytest.raises(ConfigError, match="changes on the way"):
        bound_by(policy(name))


def test_a_property_that_stands_there_twice_cannot_be_bound():
    with pytest.raises(TypeError, match="twice"):
        beside_of({}, {"a": 1, b"a": 2}, policy("a"))


# -- drafts ------------------------------------------------------------------------------------------------------------


def test_a_draft_leaves_the_message_as_it_was():
    message = ServiceBusMessage(
        "body",
        application_properties={"a": b"x"},
        session_id="s",
        content_type="text/plain",
        time_to_live=timedelta(1),
    )
    before = copy.deepcopy(vars(message.raw_amqp_message))
    draft = draft_of(message.raw_amqp_message, policy("a"))
    encode_sections(draft.finished(b"envelope", None))
    assert vars(message.raw_amqp_message) == before
    assert message.application_properties == {"a": b"x"}


def test_a_draft_does_not_change_with_the_message():
    message = ServiceBusMessage("body", application_properties={"a": "x"})
    draft = draft_of(message.raw_amqp_message, policy())
    message.application_properties["a"] = "y"
    message.subject = "late"
    finished = draft.finished(b"envelope", None)
    assert finished.application_properties == {"a": "x"}
    assert finished.properties.subject is None


# -- bodies ------------------------------------------------------------------------------------------------------------

_LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**31), 2**31 - 1)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
)
_VALUES = st.recursive(
    _LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(_VALUES)
def test_any_value_is_restored_as_a_bare_client_would_receive_it(value):
    bare = received(AmqpAnnotatedMessage(value_body=value))
    body, _ = unpack(*pack(AmqpAnnotatedMessage(value_body=value)))
    assert body == {"value_body": bare.body}


@given(st.lists(st.lists(_VALUES, max_size=3), min_size=1, max_size=3))
def test_any_sequence_is_restored_as_a_bare_client_would_receive_it(sequence):
    bare = received(AmqpAnnotatedMessage(sequence_body=sequence))
    body, _ = unpack(*pack(AmqpAnnotatedMessage(sequence_body=sequence)))
    assert body == {"sequence_body": list(bare.body)}


@pytest.mark.parametrize("sections", [[b"a", b"b"], [b"", b""], [b"a", "text"]])
def test_several_data_sections_stay_several(sections):
    raw = AmqpAnnotatedMessage(data_body=sections)
    body, _ = unpack(*pack(raw))
    assert body == {"data_body": list(received(raw).body)}


@given(st.binary())
def test_one_data_section_is_sealed_as_it_is(body):
    raw = AmqpAnnotatedMessage(data_body=body)
    if body[:1] < b"\xd1":
        assert pack(raw) == (body, None)
    assert unpack(*pack(raw))[0] == {"data_body": [body]}


@pytest.mark.parametrize(
    "content_type", [None, "application/json", "text/plain; charset=utf-8", "", "ü", "x" * 300, SECTIONS]
)
def test_any_content_type_comes_back(content_type):
    """One that says that the body is sections of AMQP cannot make sections of a body."""
    raw = AmqpAnnotatedMessage(data_body=b"body", properties={"content_type": content_type})
    body, named = unpack(*pack(raw))
    assert body == {"data_body": [b"body"]}
    assert named == (None if content_type is None else content_type.encode())


def test_a_body_that_is_none_is_told_without_showing_it():
    with pytest.raises(ValueError, match="no section of AMQP") as failed:
        unpack(b"4111 1111 1111 1111", SECTIONS)
    assert "4111" not in str(failed.value)
    assert failed.value.__cause__ is None


def test_a_section_that_is_neither_bytes_nor_text_is_not_shown():
    with pytest.raises(TypeError, match="not int"):
        pack(AmqpAnnotatedMessage(data_body=[4111]))


# -- copies ------------------------------------------------------------------------------------------------------------


def test_a_copy_carries_what_the_sender_gave_and_its_verdict():
    raw = received(
        AmqpAnnotatedMessage(
            data_body=[b"one", b"two"],
            application_properties={"text": "grün", "number": 7, "none": None, "DeadLetterReason": "x"},
            properties={"message_id": "m", "group_id": "s", "absolute_expiry_time": 1, "creation_time": 1},
            annotations={"x-opt-partition-key": "s", "x-opt-sequence-number": 3},
            header={"time_to_live": 5, "delivery_count": 3},
        )
    )
    came = received(copy_of(raw, "forged", "servicebus:orders"))
    assert list(came.body) == [b"one", b"two"]
    assert came.application_properties == {
        b"text": "grün".encode(),
        b"number": 7,
        b"none": None,
        b"postseal-verdict": b"forged",
        b"postseal-destination": b"servicebus:orders",
    }
    assert came.annotations == {b"x-opt-partition-key": b"s"}
    assert came.properties.group_id == b"s"
    assert came.properties.message_id == b"m"
    assert came.properties.absolute_expiry_time is None
    assert came.header is None


@pytest.mark.parametrize("value", [2**40, -(2**40), 2**63, b"\xff\x00"], ids=repr)
def test_a_copy_carries_what_only_other_clients_send(value):
    raw = AmqpAnnotatedMessage(data_body=b"", application_properties={b"name": value})
    assert received(copy_of(raw, "forged")).application_properties[b"name"] == value


@pytest.mark.parametrize(
    "hostile",
    [
        {"application_properties": [b"no map"]},
        {"application_properties": {5: b"x", b"ok": b"y", b"list": [1]}},
        {"annotations": {2**62: b"x"}},
        {"annotations": b"no map"},
    ],
    ids=repr,
)
def test_no_sender_can_make_a_message_that_cannot_be_kept(hostile):
    raw = AmqpAnnotatedMessage(data_body=b"body", **hostile)
    came = received(copy_of(raw, "forged"))
    assert b"".join(came.body) == b"body"
    assert came.application_properties[b"postseal-verdict"] == b"forged"


def test_a_body_that_cannot_be_sent_is_kept_as_text():
    raw = AmqpAnnotatedMessage(value_body={b"number": 2**40})
    came = received(copy_of(raw, "unprotected"))
    assert came.body_type is AmqpMessageBodyType.DATA
    assert str(2**40).encode() in b"".join(came.body)


# -- the client library ------------------------------------------------------------------------------------------------


def test_a_client_library_that_changed_is_noticed():
    class Elsewhere(ServiceBusMessage):
        @property
        def body(self):
            return iter([b"before"])

    with pytest.raises(ConfigError, match="keeps its body elsewhere"):
        check(outgoing=Elsewhere)

    class Other(ServiceBusMessage):
        @property
        def body(self):
            return None

    with pytest.raises(ConfigError, match="another body"):
        check(received=Other)
    with pytest.raises(ConfigError, match="a batch takes messages otherwise"):
        check(batch=object)
