"""Topics of SNS that queues subscribe to: raw delivery, and inside SNS's JSON."""

# ruff: noqa: PLR0917 - a test's arguments are its fixtures, which pytest gives by name

import base64
import copy
import json

import boto3
import pytest
from botocore.exceptions import ParamValidationError

from postseal.core import ConfigError, KeyUnavailable, Refused, TooLarge, Verdict
from postseal.sqs import protect, unprotect
from postseal.sqs._text import envelope_of, text_of
from postseal.sqs._wrapped import Wrapper
from tests.contract import Raw
from tests.sqs.conftest import _OPTIONS, make_client

CLEAR = 'order 4711: 4111 1111 1111 1111, "Zoë"\n'
TENANT = {"tenant": {"DataType": "String", "StringValue": "grün"}}
SECRET = bytes(range(32))


def make_topics():
    return boto3.client("sns", **_OPTIONS)


class Topic:
    """A topic, and a queue that gets what is published there."""

    def __init__(self, line, *, raw, suffix="", **attributes):
        self.queue = line.place() if not suffix else line.place(FifoQueue="true")
        self.name = f"shop-{self.queue}"
        self.url = line.url(self.queue)
        bare = make_topics()
        kind = {"FifoTopic": "true"} if suffix else {}
        self.arn = bare.create_topic(Name=self.name, Attributes={**kind, **attributes})["TopicArn"]
        answer = line.bare.get_queue_attributes(QueueUrl=self.url, AttributeNames=["QueueArn"])
        bare.subscribe(
            TopicArn=self.arn,
            Protocol="sqs",
            Endpoint=answer["Attributes"]["QueueArn"],
            Attributes={"RawMessageDelivery": "true" if raw else "false"},
        )

    def policy(self, world, **options):
        """Seals for the topic; the queue is where its messages may lie."""
        from postseal.core import Policy

        return Policy(
            name="shop",
            destinations=[f"sns:{self.name}"],
            accept_from=[f"sqs:{self.queue}"],
            keys=["main"],
            **options,
        )


@pytest.fixture(params=[True, False], ids=["raw", "wrapped"])
def topic(request, line):
    return Topic(line, raw=request.param)


@pytest.fixture
def wrapped(line):
    return Topic(line, raw=False)


def publisher(world, policy, **options):
    return protect(make_topics(), world.sealer(policy, **options))


def receive(world, policy, url, **options):
    client = protect(make_client(), world.sealer(policy), sleep=lambda _: None)
    options = {"MaxNumberOfMessages": 10, "VisibilityTimeout": 0} | options
    return client.receive_message(QueueUrl=url, **options).get("Messages", [])


def text_in(message):
    """Return what a program reads from a message of either delivery."""
    body = message["Body"]
    return json.loads(body)["Message"] if body.startswith("{") else body


# -- there and back


def test_what_is_published_arrives_as_it_was(world, line, topic):
    policy = topic.policy(world)
    answer = publisher(world, policy).publish(TopicArn=topic.arn, Message=CLEAR)
    [message] = receive(world, policy, topic.url)
    assert answer["MessageId"]
    assert text_in(message) == CLEAR
    assert world.events == []


def test_neither_topic_nor_queue_holds_clear_text(world, line, topic):
    """A1."""
    policy = topic.policy(world)
    publisher(world, policy).publish(TopicArn=topic.arn, Message=CLEAR)
    [raw] = line.held(topic.queue, 1)
    assert b"4111" not in raw.body


def test_a_batch_arrives_whole_and_the_callers_entries_stay(world, topic):
    policy = topic.policy(world)
    entries = [{"Id": f"e{n}", "Message": f"order {n}", "Subject": "order"} for n in range(10)]
    before = copy.deepcopy(entries)
    answer = publisher(world, policy).publish_batch(TopicArn=topic.arn, PublishBatchRequestEntries=entries)
    assert entries == before
    assert len(answer["Successful"]) == 10
    came = [text_in(message) for message in receive(world, policy, topic.url)]
    assert sorted(came) == sorted(f"order {n}" for n in range(10))


def test_a_resource_of_a_topic_is_protected_too(world, line, wrapped):
    policy = wrapped.policy(world)
    resource = protect(boto3.resource("sns", **_OPTIONS), world.sealer(policy))
    resource.Topic(wrapped.arn).publish(Message=CLEAR)
    [message] = receive(world, policy, wrapped.url)
    assert text_in(message) == CLEAR


def test_a_topic_may_be_named_as_target(world, topic):
    policy = topic.policy(world)
    publisher(world, policy).publish(TargetArn=topic.arn, Message=CLEAR)
    [message] = receive(world, policy, topic.url)
    assert text_in(message) == CLEAR


def test_the_json_around_it_is_as_sns_wrote_it(world, line, wrapped):
    """All of it but the message. The subject was never sealed."""
    policy = wrapped.policy(world)
    publisher(world, policy).publish(
        TopicArn=wrapped.arn, Message=CLEAR, Subject="an order", MessageAttributes=TENANT
    )
    [raw] = line.held(wrapped.queue, 1)
    [message] = receive(world, policy, wrapped.url)
    sealed, opened = json.loads(raw.body), json.loads(message["Body"])
    assert opened.pop("Message") == CLEAR
    assert envelope_of(sealed.pop("Message"))
    assert opened == sealed
    assert opened["Subject"] == "an order"


@pytest.mark.parametrize(
    "attribute",
    [
        {"DataType": "String", "StringValue": "grün"},
        {"DataType": "Number", "StringValue": "1.50"},
        None,
    ],
    ids=["string", "number", "absent"],
)
def test_bound_attributes_are_read_from_either_delivery(world, topic, attribute):
    policy = topic.policy(world, bind_headers=["tenant"])
    attributes = {} if attribute is None else {"tenant": attribute}
    publisher(world, policy).publish(TopicArn=topic.arn, Message=CLEAR, MessageAttributes=attributes)
    [message] = receive(world, policy, topic.url)
    assert text_in(message) == CLEAR


def test_bound_bytes_are_read_from_the_json(world, wrapped):
    """By raw delivery, moto cannot hand out binary attributes; integration/sqs/test_topics.py has them."""
    policy = wrapped.policy(world, bind_headers=["tenant"])
    attributes = {"tenant": {"DataType": "Binary", "BinaryValue": b"\x00\xff"}}
    publisher(world, policy).publish(TopicArn=wrapped.arn, Message=CLEAR, MessageAttributes=attributes)
    [message] = receive(world, policy, wrapped.url)
    assert text_in(message) == CLEAR


def test_a_message_that_is_sealed_already_is_not_sealed_again(world, line, topic):
    """A10."""
    policy = topic.policy(world)
    text = text_of(world.sealer(policy).seal(CLEAR.encode(), destination=f"sns:{topic.name}"))
    publisher(world, policy).publish(TopicArn=topic.arn, Message=text)
    [raw] = line.held(topic.queue, 1)
    assert text.encode() in raw.body


def test_what_is_sent_to_the_queue_itself_opens_beside(world, line, wrapped):
    policy = wrapped.policy(world)
    sender = protect(make_client(), world.sealer(policy))
    sender.send_message(QueueUrl=wrapped.url, MessageBody="direct")
    publisher(world, policy).publish(TopicArn=wrapped.arn, Message="by the topic")
    came = [text_in(message) for message in receive(world, policy, wrapped.url)]
    assert sorted(came) == ["by the topic", "direct"]


def test_a_fifo_topic_deduplicates_by_content(world, line):
    """Ciphertexts differ each time; the id made of the clear bodies does not."""
    from tests.sqs.line import FifoLine

    fifo = FifoLine(make_client)
    topic = Topic.__new__(Topic)
    name = fifo.place()
    bare = make_topics()
    topic.queue, topic.name, topic.url = name, f"shop-{name}", fifo.url(name)
    topic.arn = bare.create_topic(Name=topic.name, Attributes={"FifoTopic": "true"})["TopicArn"]
    policy = topic.policy(world)
    seen = []
    client = publisher(world, policy, deduplication_secret=SECRET)
    client.meta.events.register(
        "before-call.sns", lambda params, **_: seen.append(params["body"]["MessageDeduplicationId"])
    )
    for _ in range(2):
        client.publish(TopicArn=topic.arn, Message=CLEAR, MessageGroupId="g")
    expected = world.sealer(policy, deduplication_secret=SECRET).deduplication_id(
        CLEAR.encode(), destination=f"sns:{topic.name}"
    )
    assert seen == [expected] * 2
    with pytest.raises(ConfigError, match="deduplication_secret"):
        publisher(world, policy).publish(TopicArn=topic.arn, Message=CLEAR, MessageGroupId="g")


def test_unprotect_undoes_it(world, line, topic):
    client = unprotect(publisher(world, topic.policy(world)))
    client.publish(TopicArn=topic.arn, Message="in clear")
    assert b"in clear" in line.held(topic.queue, 1)[0].body


# -- what is not published


@pytest.fixture
def silent():
    """A client of SNS whose requests are noted, and none expected."""
    client = make_topics()
    client.requests = []
    client.meta.events.register_first("before-send.sns", lambda request, **_: client.requests.append(request))
    return client


ARN = "arn:aws:sns:eu-west-1:123456789012:shop"


@pytest.mark.parametrize(
    ("params", "error", "match"),
    [
        ({"PhoneNumber": "+4915112345678", "Message": CLEAR}, ConfigError, "phone"),
        ({"TargetArn": "arn:aws:sns:eu-west-1:1:endpoint/GCM/app/x", "Message": CLEAR}, ConfigError, "topic"),
        ({"TopicArn": "arn:aws:sqs:eu-west-1:1:shop", "Message": CLEAR}, ConfigError, "topic"),
        ({"TopicArn": "shop", "Message": CLEAR}, ConfigError, "topic"),
        ({"TopicArn": ARN, "TargetArn": ARN, "Message": CLEAR}, ParamValidationError, "TopicArn"),
        ({"Message": CLEAR}, ParamValidationError, "TopicArn"),
        ({"TopicArn": ARN, "Message": CLEAR.encode()}, ParamValidationError, "Message must be str"),
        ({"TopicArn": ARN}, ParamValidationError, "Message must be str"),
        ({"TopicArn": ARN, "Message": "{}", "MessageStructure": "json"}, ConfigError, "MessageStructure"),
        ({"TopicArn": ARN + "-unspoken", "Message": CLEAR}, ConfigError, "no policy"),
        ({"TopicArn": ARN, "Message": "x" * 300_000}, TooLarge, "262,144"),
    ],
)
def test_what_cannot_be_sealed_is_not_published(world, aws, silent, params, error, match):
    """And no error shows the message or the phone."""
    policy = world.policy("unused").__class__(name="shop", destinations=["sns:shop"], keys=["main"])
    client = protect(silent, world.sealer(policy))
    with pytest.raises(error, match=match) as raised:
        client.publish(**params)
    assert "4111" not in str(raised.value)
    assert "49151" not in str(raised.value)
    assert silent.requests == []


def test_an_entry_with_a_structure_stops_its_batch(world, aws, silent):
    from postseal.core import Policy

    sealer = world.sealer(Policy(name="shop", destinations=["sns:shop"], keys=["main"]))
    entries = [{"Id": "1", "Message": "x"}, {"Id": "2", "Message": "{}", "MessageStructure": "json"}]
    with pytest.raises(ConfigError, match="MessageStructure"):
        protect(silent, sealer).publish_batch(TopicArn=ARN, PublishBatchRequestEntries=entries)
    assert silent.requests == []


def test_without_a_key_nothing_is_published(world, line, topic):
    client = publisher(world, topic.policy(world))
    world.keys.unavailable.set()
    with pytest.raises(KeyUnavailable):
        client.publish(TopicArn=topic.arn, Message=CLEAR)
    assert not line.has_message(topic.queue)


@pytest.mark.parametrize("verb", ["publish", "publish_batch"])
def test_what_a_later_handler_puts_in_clear_is_not_published(world, line, topic, verb):
    client = publisher(world, topic.policy(world))

    def overwrite(params, **_):
        if "Message" in params:
            params["Message"] = CLEAR
        else:
            params["PublishBatchRequestEntries"] = [{"Id": "1", "Message": CLEAR}]

    client.meta.events.register_last("before-parameter-build", overwrite)
    params = {
        "publish": {"Message": "x"},
        "publish_batch": {"PublishBatchRequestEntries": [{"Id": "1", "Message": "x"}]},
    }
    with pytest.raises(ConfigError, match="changed a body"):
        getattr(client, verb)(TopicArn=topic.arn, **params[verb])
    assert not line.has_message(topic.queue)


@pytest.mark.parametrize("body", [b"{}", "Message=x", {}, {"Message": CLEAR}, None])
def test_a_request_rewritten_after_it_was_serialized_is_not_sent(world, line, topic, body):
    client = publisher(world, topic.policy(world))
    client.meta.events.register_first("before-call", lambda params, **_: params.update(body=body))
    with pytest.raises(ConfigError, match="changed a body"):
        client.publish(TopicArn=topic.arn, Message="x")
    assert not line.has_message(topic.queue)


# -- what is refused


def rewrap(line, topic, change):
    """Put at the queue what it holds, changed inside SNS's JSON."""
    [raw] = line.held(topic.queue, 1)
    line.bare.purge_queue(QueueUrl=topic.url)
    content = json.loads(raw.body)
    line.put(topic.queue, Raw(json.dumps(change(content)).encode()))


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        (lambda c: c | {"Message": CLEAR}, Verdict.UNPROTECTED),
        (lambda c: c | {"Message": c["Message"][:-4]}, Verdict.MALFORMED),
        (lambda c: c | {"Message": c["Message"] + "AAAA"}, Verdict.MALFORMED),
        (lambda c: c | {"TopicArn": ARN}, Verdict.WRONG_DESTINATION),
        (lambda c: {k: v for k, v in c.items() if k != "TopicArn"}, Verdict.WRONG_DESTINATION),
        (lambda c: c | {"Type": "Other"}, Verdict.UNPROTECTED),
        (
            lambda c: c | {"MessageAttributes": {"tenant": {"Type": "String", "Value": "south"}}},
            Verdict.FORGED,
        ),
        (lambda c: c | {"MessageAttributes": {"tenant": {"Type": "Binary", "Value": "!"}}}, Verdict.FORGED),
        (lambda c: c | {"MessageAttributes": {"tenant": "grün"}}, Verdict.FORGED),
        (lambda c: c | {"MessageAttributes": 3}, Verdict.FORGED),
        (lambda c: {k: v for k, v in c.items() if k != "MessageAttributes"}, Verdict.FORGED),
    ],
    ids=["clear", "cut", "grown", "topic", "no topic", "type", "attribute", "binary", "odd", "odder", "none"],
)
def test_a_changed_wrapper_is_refused(world, line, wrapped, change, verdict):
    """A9: one event each."""
    policy = wrapped.policy(world, bind_headers=["tenant"], on_refused="dead-letter")
    publisher(world, policy).publish(TopicArn=wrapped.arn, Message=CLEAR, MessageAttributes=TENANT)
    rewrap(line, wrapped, change)
    assert receive(world, policy, wrapped.url) == []
    assert world.verdicts() == [verdict]


def test_what_was_sent_to_the_queue_itself_opens_in_no_wrapper(world, line, wrapped):
    """A9: else whoever can write to the queue could give it a subject of their own."""
    policy = wrapped.policy(world, on_refused="dead-letter")
    protect(make_client(), world.sealer(policy)).send_message(QueueUrl=wrapped.url, MessageBody=CLEAR)
    [raw] = line.held(wrapped.queue, 1)
    line.bare.purge_queue(QueueUrl=wrapped.url)
    content = {"Type": "Notification", "TopicArn": wrapped.arn, "Message": raw.body.decode()}
    line.put(wrapped.queue, Raw(json.dumps(content).encode()))
    assert receive(world, policy, wrapped.url) == []
    assert world.verdicts() == [Verdict.WRONG_DESTINATION]


def test_a_queue_without_topics_takes_no_wrapper(world, line):
    """Its policy speaks of none."""
    place = line.place()
    policy = world.policy(place, on_refused="dead-letter")
    text = text_of(world.sealer(policy).seal(b"x", destination=f"sqs:{place}"))
    line.put(place, Raw(json.dumps({"Type": "Notification", "TopicArn": ARN, "Message": text}).encode()))
    assert receive(world, policy, line.url(place)) == []
    assert world.verdicts() == [Verdict.UNPROTECTED]


def test_a_message_of_another_topic_is_refused(world, line, wrapped):
    """E3."""
    other = Topic(line, raw=False)
    publisher(world, other.policy(world)).publish(TopicArn=other.arn, Message=CLEAR)
    line.put(wrapped.queue, *line.held(other.queue, 1))
    assert receive(world, wrapped.policy(world, on_refused="dead-letter"), wrapped.url) == []
    assert world.verdicts() == [Verdict.WRONG_DESTINATION]


@pytest.mark.parametrize("bad", range(3))
def test_one_bad_message_never_costs_the_others(world, line, topic, bad):
    policy = topic.policy(world, on_refused="discard")
    client = publisher(world, policy)
    for at in range(3):
        if at == bad:
            make_topics().publish(TopicArn=topic.arn, Message="injected")
        else:
            client.publish(TopicArn=topic.arn, Message=f"order {at}")
    came = [text_in(message) for message in receive(world, policy, topic.url)]
    assert sorted(came) == [f"order {at}" for at in range(3) if at != bad]
    assert world.verdicts() == [Verdict.UNPROTECTED]


def test_without_the_key_service_wrapped_messages_are_given_back(world, line, wrapped):
    """B14: one wrapped key is asked for once, also inside the JSON."""
    policy = wrapped.policy(world)
    client = publisher(world, policy)
    for at in range(3):
        client.publish(TopicArn=wrapped.arn, Message=f"order {at}")
    world.keys.unavailable.set()
    assert receive(world, policy, wrapped.url) == []
    assert world.keys.calls["unwrap"] == 1
    assert world.events == []


def test_a_refused_publication_raises_where_the_policy_says(world, line, topic):
    make_topics().publish(TopicArn=topic.arn, Message="injected")
    with pytest.raises(Refused):
        receive(world, topic.policy(world), topic.url)


# -- the wrapper by itself


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        '{"Type": "Notification"',
        "[" * 10_000 + '"Notification"',
        '{"Notification": ' + "[" * 100_000,
        '{"Type": "Notification"}',
        '{"Type": "Notification", "Message": 3}',
        '{"Type": "Notification", "Message": "clear"}',
    ],
)
def test_what_is_no_wrapper_is_none(text):
    assert Wrapper.of(text) is None


def test_names_given_twice_leave_one():
    """What a lax reader would take for the message is what was opened."""
    from tests.sqs.test_message import SEALED_STARTS

    text = text_of(SEALED_STARTS[0] + b"x")
    wrapper = Wrapper.of(f'{{"Type": "Notification", "Message": "{CLEAR.strip()[:5]}", "Message": "{text}"}}')
    assert wrapper.filled("clear", {}) == '{"Type": "Notification", "Message": "clear"}'


def test_binary_attributes_are_read_as_bytes():
    from tests.sqs.test_message import SEALED_STARTS

    content = {
        "Type": "Notification",
        "Message": text_of(SEALED_STARTS[0] + b"x"),
        "MessageAttributes": {"b": {"Type": "Binary", "Value": base64.b64encode(b"\x00\xff").decode()}},
    }
    assert Wrapper.of(json.dumps(content)).attributes["b"] == {
        "DataType": "Binary",
        "BinaryValue": b"\x00\xff",
    }
