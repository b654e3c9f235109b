"""What leaves the client, and what it is told."""

# ruff: noqa: PLR0917 - a test's arguments are its fixtures, which pytest gives by name

import copy
import hashlib
import io
import json

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ChecksumError, ClientError, ParamValidationError

from postseal.core import ConfigError, KeyUnavailable, Refused, TooLarge
from postseal.sqs import MAX_BYTES, protect
from postseal.sqs._text import envelope_of, text_of
from tests.sqs.conftest import _OPTIONS, Wire, make_client
from tests.sqs.line import FifoLine

CLEAR = "4111 1111 1111 1111"
SECRET = bytes(range(32))


def md5(text):
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


@pytest.fixture
def place(line):
    return line.place()


@pytest.fixture
def url(line, place):
    return line.url(place)


@pytest.fixture
def policy(world, place):
    return world.policy(place)


@pytest.fixture
def client(world, policy):
    return protect(make_client(), world.sealer(policy))


def opened(world, policy, place, text, **beside):
    return world.sealer(policy).open(envelope_of(text), destination=f"sqs:{place}", **beside).body.decode()


# -- what travels


def test_only_the_body_is_changed(world, policy, place, url, client):
    wire = Wire(client)
    attributes = {"tenant": {"DataType": "String", "StringValue": "north"}}
    client.send_message(QueueUrl=url, MessageBody=CLEAR, MessageAttributes=attributes, DelaySeconds=1)
    [sent] = wire.sent("SendMessage")
    assert opened(world, policy, place, sent.pop("MessageBody")) == CLEAR
    assert sent == {"QueueUrl": url, "MessageAttributes": attributes, "DelaySeconds": 1}


def test_a_kibibyte_grows_to_about_fourteen_hundred_bytes(url, client):
    wire = Wire(client)
    client.send_message(QueueUrl=url, MessageBody="x" * 1024)
    assert 1400 < len(wire.sent("SendMessage")[0]["MessageBody"]) < 1900


def test_each_entry_of_a_batch_is_sealed(world, policy, place, url, client):
    wire = Wire(client)
    entries = [{"Id": f"e{n}", "MessageBody": f"order {n}", "DelaySeconds": n} for n in range(10)]
    client.send_message_batch(QueueUrl=url, Entries=entries)
    [sent] = wire.sent("SendMessageBatch")
    assert [opened(world, policy, place, e.pop("MessageBody")) for e in sent["Entries"]] == [
        f"order {n}" for n in range(10)
    ]
    assert sent["Entries"] == [{"Id": f"e{n}", "DelaySeconds": n} for n in range(10)]


def test_nothing_of_the_callers_is_changed(url, client):
    attributes = {"tenant": {"DataType": "String", "StringValue": "north"}}
    message = {"QueueUrl": url, "MessageBody": CLEAR, "MessageAttributes": attributes}
    batch = {"QueueUrl": url, "Entries": [{"Id": "1", "MessageBody": CLEAR, "MessageAttributes": attributes}]}
    before = copy.deepcopy((message, batch))
    client.send_message(**message)
    client.send_message_batch(**batch)
    assert (message, batch) == before


def test_a_retry_sends_the_same_envelope(url, client):
    """A retry after an answer that was lost must not make two messages of it."""
    wire = Wire(client, (500, {"__type": "InternalError"}))
    client.send_message(QueueUrl=url, MessageBody=CLEAR)
    first, second = wire.sent("SendMessage")
    assert first == second
    assert envelope_of(first["MessageBody"])


@pytest.mark.parametrize(
    ("kind", "bound"),
    [
        ({"DataType": "String", "StringValue": "grün"}, ["grün"]),
        ({"DataType": "Number", "StringValue": "1.50"}, ["Number", "1.50"]),
        ({"DataType": "Binary.png", "BinaryValue": b"\x00\xff"}, ["Binary.png", b"\x00\xff"]),
        ({"DataType": "Binary", "BinaryValue": bytearray(b"\x00\xff")}, [b"\x00\xff"]),
    ],
    ids=["string", "number", "binary", "bytearray"],
)
def test_bound_attributes_are_authenticated(world, place, url, kind, bound):
    """A9: String as text, Binary as bytes, any other data type with its name."""
    policy = world.policy(place, bind_headers=["t"])
    client = protect(make_client(), world.sealer(policy))
    wire = Wire(client)
    client.send_message(QueueUrl=url, MessageBody=CLEAR, MessageAttributes={"t": kind})
    text = wire.sent("SendMessage")[0]["MessageBody"]
    assert opened(world, policy, place, text, headers=[("t", value) for value in bound]) == CLEAR
    with pytest.raises(Refused):
        opened(world, policy, place, text, headers={"t": "other"})


def test_the_group_is_bound_where_the_policy_says(world, aws):
    line = FifoLine(make_client)
    place = line.place()
    policy = world.policy(place, bind_ordering_key=True)
    client = protect(make_client(), world.sealer(policy))
    wire = Wire(client)
    client.send_message(
        QueueUrl=line.url(place), MessageBody=CLEAR, MessageGroupId="grün", MessageDeduplicationId="1"
    )
    text = wire.sent("SendMessage")[0]["MessageBody"]
    assert opened(world, policy, place, text, ordering_key="grün".encode()) == CLEAR
    with pytest.raises(Refused):
        opened(world, policy, place, text, ordering_key=b"other")


@pytest.mark.parametrize("mode", ["off", "observe"])
def test_a_policy_that_seals_nothing_leaves_all_as_it_is(world, place, url, mode):
    client = protect(make_client(), world.sealer(world.policy(place, mode=mode)))
    wire = Wire(client)
    answer = client.send_message(QueueUrl=url, MessageBody=CLEAR)
    batch = client.send_message_batch(QueueUrl=url, Entries=[{"Id": "1", "MessageBody": CLEAR}])
    assert wire.sent("SendMessage")[0] == {"QueueUrl": url, "MessageBody": CLEAR}
    assert wire.sent("SendMessageBatch")[0]["Entries"] == [{"Id": "1", "MessageBody": CLEAR}]
    assert answer["MD5OfMessageBody"] == batch["Successful"][0]["MD5OfMessageBody"] == md5(CLEAR)


def test_text_that_sqs_would_not_take_can_be_sent(world, policy, place, url, client):
    """SQS takes no control characters and no empty body; sealed, they are letters."""
    wire = Wire(client)
    for text in ("", "\x00\x01", "\ufffe"):
        client.send_message(QueueUrl=url, MessageBody=text)
        assert opened(world, policy, place, wire.sent("SendMessage")[-1]["MessageBody"]) == text


def test_text_whose_bytes_look_sealed_is_not_sent(url, client):
    """SPEC.md 3.4: such text is refused, never sent in clear. It needs a character that SQS takes from nobody, so nobody meets this by chance."""
    wire = Wire(client)
    with pytest.raises(Refused):
        client.send_message(QueueUrl=url, MessageBody="фX£\x01")
    assert wire.requests == []


def test_without_a_key_nothing_leaves(world, url, client):
    world.keys.unavailable.set()
    wire = Wire(client)
    with pytest.raises(KeyUnavailable):
        client.send_message(QueueUrl=url, MessageBody=CLEAR)
    with pytest.raises(KeyUnavailable):
        client.send_message_batch(QueueUrl=url, Entries=[{"Id": "1", "MessageBody": CLEAR}])
    assert wire.requests == []


# -- parameters that are wrong


@pytest.mark.parametrize("validation", [True, False])
@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("send_message", {"MessageBody": CLEAR}),
        ("send_message", {"QueueUrl": None, "MessageBody": CLEAR}),
        ("send_message", {"QueueUrl": "orders", "MessageBody": CLEAR.encode()}),
        ("send_message", {"QueueUrl": "orders", "MessageBody": [CLEAR]}),
        ("send_message", {"QueueUrl": "orders", "MessageBody": CLEAR + "\ud800"}),
        ("send_message_batch", {"QueueUrl": "orders", "Entries": CLEAR}),
        ("send_message_batch", {"QueueUrl": "orders", "Entries": [CLEAR]}),
        (
            "send_message_batch",
            {"QueueUrl": "orders", "Entries": [{"Id": "1", "MessageBody": CLEAR.encode()}]},
        ),
    ],
)
def test_wrong_parameters_raise_what_botocore_raises_and_show_no_body(world, aws, method, params, validation):
    options = {**_OPTIONS, "config": Config(parameter_validation=validation)}
    client = protect(boto3.client("sqs", **options), world.sealer(world.policy("orders")))
    wire = Wire(client)
    with pytest.raises(ParamValidationError) as error:
        getattr(client, method)(**params)
    assert "4111" not in str(error.value)
    assert wire.requests == []


def test_other_wrong_parameters_are_botocores(url, client):
    with pytest.raises(ParamValidationError, match="DelaySeconds"):
        client.send_message(QueueUrl=url, MessageBody=CLEAR, DelaySeconds="soon")
    with pytest.raises(ParamValidationError, match="Missing required parameter"):
        client.send_message_batch(QueueUrl=url, Entries=[{"MessageBody": CLEAR}])
    with pytest.raises(ParamValidationError, match="DataType"):
        client.send_message(QueueUrl=url, MessageBody=CLEAR, MessageAttributes={"t": {"StringValue": "x"}})


def test_errors_of_sqs_arrive_as_they_are(world, aws):
    client = protect(make_client(), world.sealer(world.policy("orders")))
    with pytest.raises(client.exceptions.QueueDoesNotExist):
        client.send_message(
            QueueUrl="https://sqs.eu-west-1.amazonaws.com/123456789012/orders", MessageBody=CLEAR
        )


# -- FIFO


@pytest.fixture
def fifo(aws):
    return FifoLine(make_client)


@pytest.fixture
def fifo_place(fifo):
    return fifo.place(ContentBasedDeduplication="true")


def test_equal_bodies_are_one_message_in_a_fifo_queue(world, fifo, fifo_place):
    """Ciphertexts differ each time; the id of the clear bodies does not."""
    policy, url = world.policy(fifo_place), fifo.url(fifo_place)
    for body in ("order 1", "order 2", "order 1"):
        client = protect(make_client(), world.sealer(policy, deduplication_secret=SECRET))
        client.send_message(QueueUrl=url, MessageBody=body, MessageGroupId="g")
        client.send_message_batch(
            QueueUrl=url, Entries=[{"Id": "1", "MessageBody": body, "MessageGroupId": "g"}]
        )
    bodies = []
    while messages := client.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages"):
        bodies += [message["Body"] for message in messages]
        for message in messages:
            client.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    assert bodies == ["order 1", "order 2"]


def test_the_deduplication_id_tells_nothing_of_the_body(world, fifo, fifo_place):
    sealer = world.sealer(world.policy(fifo_place), deduplication_secret=SECRET)
    client = protect(make_client(), sealer)
    wire = Wire(client)
    client.send_message(QueueUrl=fifo.url(fifo_place), MessageBody=CLEAR, MessageGroupId="g")
    [sent] = wire.sent("SendMessage")
    assert sent["MessageDeduplicationId"] == sealer.deduplication_id(
        CLEAR.encode(), destination=f"sqs:{fifo_place}"
    )
    assert sent["MessageDeduplicationId"] != hashlib.sha256(CLEAR.encode()).hexdigest()


def test_an_id_of_the_callers_own_stays(world, fifo, fifo_place):
    client = protect(make_client(), world.sealer(world.policy(fifo_place)))
    wire = Wire(client)
    client.send_message(
        QueueUrl=fifo.url(fifo_place), MessageBody=CLEAR, MessageGroupId="g", MessageDeduplicationId="mine"
    )
    assert wire.sent("SendMessage")[0]["MessageDeduplicationId"] == "mine"


def test_without_a_deduplication_secret_nothing_is_sent(world, fifo, fifo_place):
    client, url = protect(make_client(), world.sealer(world.policy(fifo_place))), fifo.url(fifo_place)
    wire = Wire(client)
    entries = [
        {"Id": "1", "MessageBody": "one", "MessageGroupId": "g", "MessageDeduplicationId": "1"},
        {"Id": "2", "MessageBody": "two", "MessageGroupId": "g"},
    ]
    with pytest.raises(ConfigError, match="deduplication_secret"):
        client.send_message(QueueUrl=url, MessageBody=CLEAR, MessageGroupId="g")
    with pytest.raises(ConfigError, match="deduplication_secret"):
        client.send_message_batch(QueueUrl=url, Entries=entries)
    assert wire.requests == []


def test_standard_queues_get_no_deduplication_id(world, policy, url):
    client = protect(make_client(), world.sealer(policy, deduplication_secret=SECRET))
    wire = Wire(client)
    client.send_message(QueueUrl=url, MessageBody=CLEAR)
    assert set(wire.sent("SendMessage")[0]) == {"QueueUrl", "MessageBody"}


def test_a_message_sealed_before_is_deduplicated_by_sqs_itself(world, fifo, fifo_place):
    """A10: a dead-letter tool sends the envelope on; its text is one and the same."""
    policy, url = world.policy(fifo_place), fifo.url(fifo_place)
    first = protect(make_client(), world.sealer(policy, deduplication_secret=SECRET))
    wire = Wire(first)
    first.send_message(QueueUrl=url, MessageBody=CLEAR, MessageGroupId="g")
    text = wire.sent("SendMessage")[0]["MessageBody"]
    tool = protect(make_client(), world.sealer(policy))
    wire = Wire(tool)
    tool.send_message(QueueUrl=url, MessageBody=text, MessageGroupId="g")
    assert wire.sent("SendMessage")[0] == {"QueueUrl": url, "MessageBody": text, "MessageGroupId": "g"}


# -- sizes


@pytest.fixture
def beside(url, client):
    """How many bytes the envelope of an ``x`` adds to its body, before it is text."""
    wire = Wire(client)
    client.send_message(QueueUrl=url, MessageBody="x" * 1000)
    return len(envelope_of(wire.sent("SendMessage")[0]["MessageBody"])) - 1000


def largest(beside):
    """The largest body that fits: longer ones have longer heads by 2 and 4 bytes in two places."""
    return (MAX_BYTES * 3) // 4 - beside - 2


def test_a_message_of_just_the_limit_is_sent(url, client, beside):
    wire = Wire(client)
    client.send_message(QueueUrl=url, MessageBody="x" * largest(beside))
    assert MAX_BYTES - 4 < len(wire.sent("SendMessage")[0]["MessageBody"]) <= MAX_BYTES


def test_one_byte_more_is_too_large(url, client, beside):
    wire, size = Wire(client), largest(beside) + 1
    with pytest.raises(TooLarge) as error:
        client.send_message(QueueUrl=url, MessageBody="x" * size)
    assert f"{size:,} bytes" in str(error.value)
    assert "1,048,578 bytes once sealed" in str(error.value)
    assert "1,048,576" in str(error.value)
    assert wire.requests == []


def test_attributes_count(url, client, beside):
    wire, body = Wire(client), "x" * (largest(beside) - 12)
    client.send_message(
        QueueUrl=url,
        MessageBody=body,
        MessageAttributes={"t": {"DataType": "String", "StringValue": "x" * 9}},
    )
    with pytest.raises(TooLarge):
        client.send_message(
            QueueUrl=url,
            MessageBody=body,
            MessageAttributes={"t": {"DataType": "String", "StringValue": "x" * 10}},
        )
    assert len(wire.requests) == 1


def test_an_entry_over_the_limit_is_named(url, client):
    wire = Wire(client)
    entries = [{"Id": "small", "MessageBody": "x"}, {"Id": "big", "MessageBody": "x" * MAX_BYTES}]
    with pytest.raises(TooLarge) as error:
        client.send_message_batch(QueueUrl=url, Entries=entries)
    assert "'big' (1,048,576 bytes, 1,398," in str(error.value)
    assert "'small'" not in str(error.value)
    assert wire.requests == []


def test_entries_that_do_not_fit_together_are_named(url, client):
    """Legal in clear, not once sealed."""
    wire = Wire(client)
    entries = [{"Id": f"e{n}", "MessageBody": "x" * 100_000} for n in range(10)]
    with pytest.raises(TooLarge) as error:
        client.send_message_batch(QueueUrl=url, Entries=entries)
    assert "1,000,000 bytes" in str(error.value)
    assert [f"'e{n}'" in str(error.value) for n in range(10)] == [False] * 7 + [True] * 3
    assert wire.requests == []


def test_the_limit_is_an_option(world, policy, url):
    """Queues made before 2025 keep MaximumMessageSize at 256 KiB."""
    client = protect(make_client(), world.sealer(policy), max_bytes=262_144)
    client.send_message(QueueUrl=url, MessageBody="x" * 190_000)
    with pytest.raises(TooLarge, match="262,144"):
        client.send_message(QueueUrl=url, MessageBody="x" * 200_000)


# -- the guard


def overwrite(body):
    def handler(params, **_):
        params["MessageBody"] = body

    return handler


@pytest.mark.parametrize(
    "event",
    [
        "provide-client-params",
        "provide-client-params.sqs.SendMessage",
        "before-parameter-build",
        "before-parameter-build.sqs",
        "before-parameter-build.*.SendMessage",
        "before-parameter-build.sqs.SendMessage",
    ],
)
def test_what_earlier_handlers_change_is_sealed(world, policy, place, url, client, event):
    """Ours comes last of all, also of those that were registered later and of shorter names."""
    wire = Wire(client)
    client.meta.events.register(event, overwrite("changed"))
    client.send_message(QueueUrl=url, MessageBody=CLEAR)
    assert opened(world, policy, place, wire.sent("SendMessage")[0]["MessageBody"]) == "changed"


def test_parameters_given_by_another_handler_are_sealed(world, policy, place, url, client):
    wire = Wire(client)
    client.meta.events.register(
        "provide-client-params.sqs.SendMessage", lambda params, **_: {**params, "MessageBody": "other"}
    )
    client.send_message(QueueUrl=url, MessageBody=CLEAR)
    assert opened(world, policy, place, wire.sent("SendMessage")[0]["MessageBody"]) == "other"


def test_what_a_later_handler_puts_in_clear_is_not_sent(url, client):
    wire = Wire(client)
    client.meta.events.register_last("before-parameter-build", overwrite(CLEAR))
    with pytest.raises(ConfigError, match="changed a body") as error:
        client.send_message(QueueUrl=url, MessageBody=CLEAR)
    assert "4111" not in str(error.value)
    assert wire.requests == []


def test_what_a_later_handler_seals_otherwise_is_not_sent(url, client):
    """Another envelope is no better: who knows what is in it."""
    wire = Wire(client)
    client.send_message(QueueUrl=url, MessageBody="other")
    other = wire.sent("SendMessage")[0]["MessageBody"]
    client.meta.events.register_last("before-parameter-build", overwrite(other))
    with pytest.raises(ConfigError, match="changed a body"):
        client.send_message(QueueUrl=url, MessageBody=CLEAR)


@pytest.mark.parametrize("event", ["before-call", "before-call.sqs", "before-call.sqs.SendMessage"])
def test_a_request_rewritten_after_it_was_serialized_is_not_sent(url, client, event):
    def rewrite(params, **_):
        params["body"] = json.dumps({"QueueUrl": url, "MessageBody": CLEAR}).encode()

    wire = Wire(client)
    client.meta.events.register(event, rewrite)
    with pytest.raises(ConfigError, match="changed a body"):
        client.send_message(QueueUrl=url, MessageBody=CLEAR)
    assert wire.requests == []


@pytest.mark.parametrize(
    "change",
    [
        lambda entries: [*entries, {"Id": "9", "MessageBody": CLEAR}],
        lambda entries: [{**entries[0], "MessageBody": CLEAR}, *entries[1:]],
        lambda entries: [entries[1], entries[1], {"Id": "9", "MessageBody": CLEAR}],
        lambda entries: [{**entries[0], "MessageBody": entries[0]["MessageBody"] + CLEAR}, entries[1]],
    ],
    ids=["added", "first", "twins", "appended"],
)
def test_a_batch_with_one_body_in_clear_is_not_sent(url, client, change):
    def handler(params, **_):
        params["Entries"] = change(params["Entries"])

    wire = Wire(client)
    client.meta.events.register_last("before-parameter-build", handler)
    with pytest.raises(ConfigError, match="changed a body"):
        client.send_message_batch(
            QueueUrl=url, Entries=[{"Id": str(n), "MessageBody": f"order {n}"} for n in range(3)][:2]
        )
    assert wire.requests == []


@pytest.mark.parametrize(
    "change",
    [
        lambda entries: entries[::-1],
        lambda entries: entries[:1],
        lambda entries: [{**e, "DelaySeconds": 1} for e in entries],
    ],
    ids=["turned round", "fewer", "delayed"],
)
def test_a_later_handler_may_change_all_but_bodies(url, client, change):
    def handler(params, **_):
        params["Entries"] = change(params["Entries"])

    client.meta.events.register_last("before-parameter-build", handler)
    answer = client.send_message_batch(
        QueueUrl=url, Entries=[{"Id": str(n), "MessageBody": f"order {n}"} for n in range(3)]
    )
    assert answer["Successful"]


@pytest.mark.parametrize("name", ["MessageBody", '"MessageBody": "', "Entries"])
def test_attributes_with_odd_names_and_values_pass(url, client, name):
    """What stands in quotes inside text is not mistaken for a body."""
    value = {"DataType": "String", "StringValue": '", "MessageBody": "clear", "'}
    Wire(client, (200, {"MessageId": "1", "MD5OfMessageBody": None}))
    client.send_message(QueueUrl=url, MessageBody=CLEAR, MessageAttributes={name: value})


def test_another_way_to_write_json_passes(url, client):
    def compact(params, **_):
        params["body"] = json.dumps(json.loads(params["body"]), separators=(",", ":")).encode()

    client.meta.events.register_last("before-call.sqs", compact)
    client.send_message(QueueUrl=url, MessageBody=CLEAR)


@pytest.mark.parametrize(
    "body",
    [
        b"\xbf\x68QueueUrl\xff",
        b"[]",
        b"3",
        b'{"Entries": [1]}',
        b'{"Entries": 1}',
        b"{}",
        b"",
        io.BytesIO(b"x"),
    ],
)
def test_a_request_that_cannot_be_read_is_not_sent(url, client, body):
    """Should botocore come to speak another protocol, nothing leaves until the adapter knows it."""

    def other(params, **_):
        params["body"] = body

    wire = Wire(client)
    client.meta.events.register_last("before-call.sqs", other)
    with pytest.raises(ConfigError, match="changed a body"):
        client.send_message(QueueUrl=url, MessageBody=CLEAR)
    assert wire.requests == []


# -- what SQS answers


def test_md5_is_that_of_the_callers_body(url, client):
    attributes = {"t": {"DataType": "String", "StringValue": "x"}}
    answer = client.send_message(QueueUrl=url, MessageBody=CLEAR, MessageAttributes=attributes)
    assert answer["MD5OfMessageBody"] == md5(CLEAR)
    bare = make_client().send_message(QueueUrl=url, MessageBody=CLEAR, MessageAttributes=attributes)
    assert answer["MD5OfMessageAttributes"] == bare["MD5OfMessageAttributes"]


@pytest.mark.parametrize("batch", [False, True])
def test_md5_of_attributes_is_that_of_the_callers_whatever_is_encrypted_of_them(world, place, url, batch):
    client = protect(make_client(), world.sealer(world.policy(place, encrypt_headers=["a"])))
    attributes = {name: {"DataType": "String", "StringValue": "x"} for name in "ab"}
    message = {"MessageBody": CLEAR, "MessageAttributes": attributes}

    def digest(sends):
        if not batch:
            return sends.send_message(QueueUrl=url, **message)["MD5OfMessageAttributes"]
        answer = sends.send_message_batch(QueueUrl=url, Entries=[{"Id": "1", **message}])
        return answer["Successful"][0]["MD5OfMessageAttributes"]

    assert digest(client) == digest(make_client())


def test_of_a_batch_what_is_no_common_case_costs_the_others_nothing(world, policy, place, url):
    """Each is sealed once, and counted once; what was sealed before is sent as it is."""
    sealer = world.sealer(policy)
    client = protect(make_client(), sealer)
    client.send_message(QueueUrl=url, MessageBody="a key at hand")
    before = text_of(sealer.seal(b"before", destination=f"sqs:{place}"))
    count = sealer.auditor.sealed[f"sqs:{place}", "enforce"].value
    wire = Wire(client)
    texts = ["one", "two", before, "three"]
    client.send_message_batch(
        QueueUrl=url, Entries=[{"Id": f"e{n}", "MessageBody": text} for n, text in enumerate(texts)]
    )
    [sent] = wire.sent("SendMessageBatch")
    travelled = [entry["MessageBody"] for entry in sent["Entries"]]
    assert travelled[2] == before
    assert [opened(world, policy, place, text) for text in travelled] == ["one", "two", "before", "three"]
    assert sealer.auditor.sealed[f"sqs:{place}", "enforce"].value == count + 3


def test_md5_of_each_entry_is_that_of_the_callers_body(url, client):
    entries = [{"Id": f"e{n}", "MessageBody": f"order {n}"} for n in range(3)]
    answer = client.send_message_batch(QueueUrl=url, Entries=entries)
    assert {e["Id"]: e["MD5OfMessageBody"] for e in answer["Successful"]} == {
        f"e{n}": md5(f"order {n}") for n in range(3)
    }


def test_an_md5_of_something_else_is_an_error(url, client):
    Wire(client, (200, {"MessageId": "1", "MD5OfMessageBody": md5("something else")}))
    with pytest.raises(ChecksumError):
        client.send_message(QueueUrl=url, MessageBody=CLEAR)


def test_an_md5_of_the_clear_body_is_an_error(url, client):
    """Then SQS would have got it in clear."""
    Wire(client, (200, {"MessageId": "1", "MD5OfMessageBody": md5(CLEAR)}))
    with pytest.raises(ChecksumError):
        client.send_message(QueueUrl=url, MessageBody=CLEAR)


def test_an_entry_with_another_md5_has_failed_and_the_others_have_not(url, client):
    wire = Wire(client)

    def spoil(parsed, **_):
        parsed["Successful"][1]["MD5OfMessageBody"] = md5("something else")

    client.meta.events.register_first("after-call.*.*", spoil)
    answer = client.send_message_batch(
        QueueUrl=url, Entries=[{"Id": f"e{n}", "MessageBody": f"order {n}"} for n in range(3)]
    )
    assert [(e["Id"], e["MD5OfMessageBody"]) for e in answer["Successful"]] == [
        ("e0", md5("order 0")),
        ("e2", md5("order 2")),
    ]
    assert [(e["Id"], e["Code"], e["SenderFault"]) for e in answer["Failed"]] == [
        ("e1", "ChecksumMismatch", False)
    ]
    assert len(wire.requests) == 1


def test_failed_entries_stay_failed(url, client):
    entry = {"Id": "1", "SenderFault": True, "Code": "InvalidMessageContents"}
    Wire(client, (200, {"Successful": [], "Failed": [entry]}))
    answer = client.send_message_batch(QueueUrl=url, Entries=[{"Id": "1", "MessageBody": CLEAR}])
    assert answer["Failed"] == [entry]


def test_an_error_answer_raises_as_ever(url, client):
    Wire(client, (400, {"__type": "com.amazonaws.sqs#OverLimit"}))
    with pytest.raises(ClientError):
        client.send_message(QueueUrl=url, MessageBody=CLEAR)


def test_one_client_serves_many_threads(world, policy, place, url):
    """What belongs to a call travels with the call."""
    from concurrent.futures import ThreadPoolExecutor

    client = protect(make_client(), world.sealer(policy))

    def send(number):
        body = f"order {number}"
        return client.send_message(QueueUrl=url, MessageBody=body)["MD5OfMessageBody"] == md5(body)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(send, range(80)))
