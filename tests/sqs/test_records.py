"""What a Lambda function is handed, and what it answers."""

import base64
import copy
import hashlib
import json

import pytest

from postseal.core import ConfigError, KeyUnavailable, Refused, Verdict
from postseal.sqs import VERDICT_ATTRIBUTE, open_message, open_records, protect
from postseal.sqs._text import text_of
from tests.contract import World, flipped
from tests.fakes import FakeKeys
from tests.sqs.conftest import make_client
from tests.sqs.line import ClientLine

CLEAR = "4111 1111 1111 1111"


def md5(text):
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def record_of(body, at=0, queue="orders", group=None, **attributes):
    """Make a record as Lambda does. Source: AWS Lambda Developer Guide, example Amazon SQS message event."""
    system = {"ApproximateReceiveCount": "2", "SentTimestamp": "1545082649183", "SenderId": "AIDA"}
    return {
        "messageId": f"id-{at}",
        "receiptHandle": f"handle-{at}",
        "body": body,
        "attributes": system if group is None else {**system, "MessageGroupId": group},
        "messageAttributes": attributes,
        "md5OfBody": md5(body),
        "eventSource": "aws:sqs",
        "eventSourceARN": f"arn:aws:sqs:us-east-2:123456789012:{queue}",
        "awsRegion": "us-east-2",
    }


def event_of(*bodies, **options):
    return {"Records": [record_of(body, at, **options) for at, body in enumerate(bodies)]}


@pytest.fixture
def world():
    return World(ClientLine.__new__(ClientLine))


def sealed(world, policy, *bodies, queue="orders", **beside):
    sealer = world.sealer(policy)
    return [text_of(sealer.seal(body.encode(), destination=f"sqs:{queue}", **beside)) for body in bodies]


def failed(batch):
    return [item["itemIdentifier"] for item in batch.answer()["batchItemFailures"]]


# -- what opens


def test_records_open_and_look_as_if_they_had_never_been_sealed(world):
    policy = world.policy("orders")
    event = event_of(*sealed(world, policy, "one", "two"))
    before = copy.deepcopy(event)
    batch = open_records(event, world.sealer(policy), reports_failures=True)
    assert event == before
    assert list(batch) == event_of("one", "two")["Records"]
    assert len(batch) == 2
    assert batch[1]["body"] == "two"
    assert batch.answer() == {"batchItemFailures": []}


def test_an_event_without_records_is_answered_as_done(world):
    batch = open_records({"Records": []}, world.sealer(world.policy("orders")), reports_failures=True)
    assert list(batch) == []
    assert batch.answer() == {"batchItemFailures": []}


def test_bound_attributes_and_groups_are_read_from_records(world):
    """Lambda writes both in its own way: lower camel, and bytes as base64."""
    policy = world.policy("orders.fifo", bind_headers=["picture", "tenant"], bind_ordering_key=True)
    headers = {"tenant": "grün", "picture": b"\x00\xff"}
    [text] = sealed(world, policy, CLEAR, queue="orders.fifo", headers=headers, ordering_key=b"g")
    attributes = {
        "tenant": {
            "stringValue": "grün",
            "stringListValues": [],
            "binaryListValues": [],
            "dataType": "String",
        },
        "picture": {"binaryValue": base64.b64encode(b"\x00\xff").decode(), "dataType": "Binary"},
    }
    good = record_of(text, 0, "orders.fifo", "g", **attributes)
    event = {
        "Records": [
            good,
            record_of(text, 1, "orders.fifo", "other", **attributes),
            record_of(text, 2, "orders.fifo", "g", tenant=attributes["tenant"]),
            record_of(
                text,
                3,
                "orders.fifo",
                "g",
                **attributes | {"picture": {"binaryValue": "!", "dataType": "Binary"}},
            ),
        ]
    }
    batch = open_records(event, world.sealer(policy), reports_failures=True)
    assert [record["messageId"] for record in batch] == ["id-0"]
    assert failed(batch) == ["id-1", "id-2", "id-3"]
    assert world.verdicts() == [Verdict.FORGED] * 3


def test_messages_of_topics_open_inside_their_json(world):
    from postseal.core import Policy

    policy = Policy(name="shop", destinations=["sns:shop"], accept_from=["sqs:orders"], keys=["main"])
    text = text_of(world.sealer(policy).seal(CLEAR.encode(), destination="sns:shop"))
    content = {
        "Type": "Notification",
        "TopicArn": "arn:aws:sns:us-east-2:123456789012:shop",
        "Message": text,
        "Subject": "x",
    }
    [record] = open_records(event_of(json.dumps(content)), world.sealer(policy), reports_failures=True)
    assert json.loads(record["body"]) == content | {"Message": CLEAR}
    assert record["md5OfBody"] == md5(record["body"])


def test_in_off_records_are_handed_on_as_they_are(world):
    policy = world.policy("orders", mode="off")
    event = event_of("clear")
    assert list(open_records(event, world.sealer(policy), reports_failures=True)) == event["Records"]


# -- what is refused


@pytest.mark.parametrize("bad", range(3))
@pytest.mark.parametrize("on_refused", ["raise", "dead-letter", "discard"])
def test_one_bad_record_never_costs_the_others(world, bad, on_refused):
    """A9, E5, E6: it comes again, until its queue's redrive policy takes it, or Lambda deletes it, as the policy says."""
    policy = world.policy("orders", on_refused=on_refused)
    bodies = sealed(world, policy, "0", "1", "2")
    bodies[bad] = CLEAR
    batch = open_records(event_of(*bodies), world.sealer(policy), reports_failures=True)
    assert [record["body"] for record in batch] == [str(at) for at in range(3) if at != bad]
    assert failed(batch) == ([] if on_refused == "discard" else [f"id-{bad}"])
    [event] = world.events
    assert event.verdict is Verdict.UNPROTECTED
    assert event.coordinates == {"message_id": f"id-{bad}", "receive_count": 2}


def test_a_refused_record_is_quarantined(world, line):
    """A10: with a client that copies it; once that is confirmed, Lambda may delete it."""
    refused = line.place()
    policy = world.policy("orders", on_refused="quarantine", quarantine=f"sqs:{refused}")
    record = record_of("injected", tenant={"stringValue": "north", "dataType": "String"})
    sealer = world.sealer(policy)
    batch = open_records({"Records": [record]}, sealer, reports_failures=True, client=make_client())
    assert list(batch) == []
    assert failed(batch) == []
    [held] = line.held(refused, 1)
    assert held.body == b"injected"
    assert held.headers.pop("postseal-destination").startswith("sqs:")
    assert held.headers == {"tenant": "north", VERDICT_ATTRIBUTE: "unprotected"}


def test_a_protected_client_copies_as_it_came_too(world, line):
    refused = line.place()
    policy = world.policy("orders", on_refused="quarantine", quarantine=f"sqs:{refused}")
    sealer = world.sealer(policy)
    open_records(event_of("injected"), sealer, reports_failures=True, client=protect(make_client(), sealer))
    assert [held.body for held in line.held(refused, 1)] == [b"injected"]


def test_without_a_confirmed_copy_it_comes_again(world, aws):
    policy = world.policy("orders", on_refused="quarantine", quarantine="sqs:no-such-queue")
    batch = open_records(
        event_of("injected"), world.sealer(policy), reports_failures=True, client=make_client()
    )
    assert failed(batch) == ["id-0"]


def test_a_quarantine_needs_a_client(world):
    policy = world.policy("orders", on_refused="quarantine", quarantine="sqs:refused")
    with pytest.raises(ConfigError, match="client"):
        open_records(event_of("x"), world.sealer(policy), reports_failures=True)


def test_in_observe_a_refused_record_stays(world):
    policy = world.policy("orders", "others", mode="observe", on_refused="discard")
    [text] = sealed(world, world.policy("orders", "others"), CLEAR, queue="others")
    assert failed(open_records(event_of(text), world.sealer(policy), reports_failures=True)) == ["id-0"]


def test_a_damaged_record_is_not_discarded(world):
    policy = world.policy("orders", on_refused="discard")
    event = event_of(*sealed(world, policy, CLEAR))
    event["Records"][0]["body"] = event["Records"][0]["body"][:-8]
    assert failed(open_records(event, world.sealer(policy), reports_failures=True)) == ["id-0"]


def test_json_of_a_topic_that_was_damaged_around_the_message_comes_again(world):
    """A9: sealed is the message alone; all else of that JSON is only guarded by MD5OfBody."""
    from postseal.core import Policy

    policy = Policy(
        name="shop",
        destinations=["sns:shop"],
        accept_from=["sqs:orders"],
        keys=["main"],
        on_refused="discard",
    )
    text = text_of(world.sealer(policy).seal(CLEAR.encode(), destination="sns:shop"))
    content = {
        "Type": "Notification",
        "TopicArn": "arn:aws:sns:us-east-2:123456789012:shop",
        "Message": text,
        "Subject": "pay",
    }
    event = event_of(json.dumps(content), json.dumps(content))
    event["Records"][0]["body"] = event["Records"][0]["body"].replace("pay", "p\u00e4y")
    batch = open_records(event, world.sealer(policy), reports_failures=True)
    assert [record["messageId"] for record in batch] == ["id-1"]
    assert failed(batch) == ["id-0"]
    assert world.verdicts() == [Verdict.MALFORMED]


# -- what waits


def test_without_the_key_service_records_come_again(world):
    """B14: never lost, whatever opens beside them."""
    policy = world.policy("orders")
    known, other = sealed(world, policy, "known")[0], sealed(world, policy, "other", "other, too")
    sealer = world.sealer(policy)
    open_records(event_of(known), sealer, reports_failures=True)
    world.keys.unavailable.set()
    batch = open_records(event_of(other[0], known, other[1]), sealer, reports_failures=True)
    assert [record["body"] for record in batch] == ["known"]
    assert failed(batch) == ["id-0", "id-2"]
    assert world.events == []


def test_a_fifo_group_waits_behind_its_first(world):
    policy = world.policy("orders.fifo")
    known, other = (sealed(world, policy, body, queue="orders.fifo")[0] for body in ("known", "other"))
    sealer = world.sealer(policy)
    open_records(event_of(known, queue="orders.fifo", group="g"), sealer, reports_failures=True)
    world.keys.unavailable.set()
    event = event_of(known, other, known, queue="orders.fifo", group="g")
    batch = open_records(event, sealer, reports_failures=True)
    assert [record["messageId"] for record in batch] == ["id-0"]
    assert failed(batch) == ["id-1", "id-2"]


def test_a_fault_of_a_provider_is_a_failure_too(world, caplog):
    class Odd(FakeKeys):
        def unwrap(self, recipients, context):
            raise ZeroDivisionError(CLEAR)

    policy = world.policy("orders")
    event = event_of(*sealed(world, policy, "x"))
    sealer = world.sealer(policy, keys={"main": Odd()})
    assert failed(open_records(event, sealer, reports_failures=True)) == ["id-0"]
    assert CLEAR not in caplog.text
    with pytest.raises(ZeroDivisionError):
        open_records(event, sealer, reports_failures=False)


# -- where Lambda would delete whatever is answered


def test_without_partial_failures_a_record_that_must_come_again_raises(world):
    """Else Lambda would delete it with the others."""
    policy = world.policy("orders")
    [good] = sealed(world, policy, "good")
    with pytest.raises(Refused):
        open_records(event_of(good, CLEAR), world.sealer(policy), reports_failures=False)
    world.keys.unavailable.set()
    with pytest.raises(KeyUnavailable):
        open_records(event_of(good), world.sealer(policy), reports_failures=False)


def test_what_may_be_deleted_does_not_raise(world):
    policy = world.policy("orders", on_refused="discard")
    [good] = sealed(world, policy, "good")
    batch = open_records(event_of(good, CLEAR), world.sealer(policy), reports_failures=False)
    assert [record["body"] for record in batch] == ["good"]


# -- the function's own failures


def test_a_record_that_the_function_could_not_use_comes_again_once(world):
    policy = world.policy("orders")
    batch = open_records(
        event_of(*sealed(world, policy, "0", "1")), world.sealer(policy), reports_failures=True
    )
    batch.fail(batch[1])
    batch.fail(batch[1])
    assert failed(batch) == ["id-1"]
    assert repr(batch) == "<2 opened, 1 failed>"


# -- what is no event of SQS


@pytest.mark.parametrize(
    "event",
    [
        {},
        {"Records": "x"},
        {"Records": [3]},
        {"Records": [{"EventSource": "aws:sns"}]},
        {"Records": [record_of("x") | {"eventSource": "aws:kinesis"}]},
        {"Records": [record_of("x"), record_of("x", queue="other")]},
        {"records": {"orders-0": []}, "eventSource": "aws:kafka"},
    ],
)
def test_another_event_is_an_error(world, event):
    with pytest.raises(ConfigError, match="event of SQS"):
        open_records(event, world.sealer(world.policy("orders")), reports_failures=True)


def test_a_queue_without_a_policy_is_an_error(world):
    with pytest.raises(ConfigError, match="no policy"):
        open_records(
            event_of("x", queue="unspoken"), world.sealer(world.policy("orders")), reports_failures=True
        )


# -- one message


def test_one_message_opens_with_what_is_bound(world):
    policy = world.policy("orders", bind_headers=["picture", "tenant"], bind_ordering_key=True)
    headers = {"tenant": "north", "picture": b"\x00"}
    [text] = sealed(world, policy, CLEAR, headers=headers, ordering_key=b"g")
    sealer, beside = world.sealer(policy), {"destination": "sqs:orders"}
    assert open_message(text, sealer, attributes=headers, group="g", **beside) == CLEAR
    for other in (
        {"attributes": headers},
        {"group": "g"},
        {"attributes": headers | {"tenant": "x"}, "group": "g"},
    ):
        with pytest.raises(Refused):
            open_message(text, sealer, **beside, **other)


def test_in_off_one_message_is_handed_on_as_it_is(world):
    [text] = sealed(world, world.policy("orders"), CLEAR)
    sealer = world.sealer(world.policy("orders", mode="off"))
    assert [open_message(each, sealer, destination="sqs:orders") for each in (text, CLEAR)] == [text, CLEAR]
    assert world.events == []


def test_one_message_is_refused_with_one_event(world):
    """E6."""
    policy = world.policy("orders")
    with pytest.raises(Refused):
        open_message(CLEAR, world.sealer(policy), destination="sqs:orders", coordinates={"pipe": "p"})
    [event] = world.events
    assert event.coordinates == {"pipe": "p"}


def test_one_message_waits_for_the_key_service(world):
    policy = world.policy("orders")
    [text] = sealed(world, policy, CLEAR)
    world.keys.unavailable.set()
    with pytest.raises(KeyUnavailable):
        open_message(text, world.sealer(policy), destination="sqs:orders")


def test_one_message_that_is_no_text_is_refused(world):
    policy = world.policy("orders")
    text = text_of(world.sealer(policy).seal(b"\xff", destination="sqs:orders"))
    with pytest.raises(Refused):
        open_message(text, world.sealer(policy), destination="sqs:orders")
    assert world.verdicts() == [Verdict.MALFORMED]


def test_a_flipped_bit_is_refused_here_too(line):
    world = World(line)
    place = line.place()
    policy = world.policy(place)
    line.send(world.sealer(policy), place, CLEAR.encode())
    [raw] = line.held(place, 1)
    bad = flipped(line, raw).body.decode()
    with pytest.raises(Refused):
        open_message(bad, world.sealer(policy), destination=f"sqs:{place}")
