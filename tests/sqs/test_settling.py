"""What becomes of refused messages: quarantine, discard, or left where they are."""

# ruff: noqa: PLR0917 - a test's arguments are its fixtures, which pytest gives by name

import pytest

from postseal.core import Verdict
from postseal.sqs import VERDICT_ATTRIBUTE, protect
from tests.contract import Raw
from tests.sqs.conftest import Wire, make_client
from tests.sqs.line import FifoLine, attributes

CLEAR = "4111 1111 1111 1111"
NUMBER = {"DataType": "Number", "StringValue": "7"}


@pytest.fixture
def place(line):
    return line.place()


@pytest.fixture
def refused(line):
    return line.place()


@pytest.fixture
def policy(world, place, refused):
    return world.policy(place, on_refused="quarantine", quarantine=f"sqs:{refused}", bind_headers=["tenant"])


@pytest.fixture
def client(world, policy):
    return protect(make_client(), world.sealer(policy))


def receive(client, url, **options):
    answer = client.receive_message(QueueUrl=url, **{"MaxNumberOfMessages": 10} | options)
    return [message["Body"] for message in answer.get("Messages", ())]


def lies(line, place):
    """Return what lies at *place*, also what another receive has hidden."""
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    answer = line.bare.get_queue_attributes(QueueUrl=line.url(place), AttributeNames=names)
    return sum(map(int, answer["Attributes"].values()))


# -- quarantine


def test_a_refused_message_goes_to_the_quarantine_as_it_came(world, line, place, refused, client):
    """A10, E5: with its attributes, whether the caller wants them or not, and the verdict."""
    url = line.url(place)
    client.send_message(QueueUrl=url, MessageBody="good")
    line.put(place, Raw(CLEAR.encode(), {"tenant": "north", "colour": "grün"}))
    wire = Wire(client)
    assert receive(client, url) == ["good"]
    [held] = line.held(refused, 1)
    assert held.body == CLEAR.encode()
    assert held.headers.pop("postseal-destination").startswith("sqs:")
    assert held.headers == {"tenant": "north", "colour": "grün", VERDICT_ATTRIBUTE: "unprotected"}
    assert lies(line, place) == 1
    assert [name for name, _ in wire.requests] == [
        "ReceiveMessage",
        "GetQueueUrl",
        "SendMessage",
        "DeleteMessageBatch",
    ]
    assert world.verdicts() == [Verdict.UNPROTECTED]


def test_a_sealed_message_is_not_sealed_again_on_its_way_there(world, line, place, refused, client):
    """A10."""
    elsewhere = line.place()
    other = world.sealer(world.policy(elsewhere, bind_headers=["tenant"]))
    line.send(other, elsewhere, CLEAR.encode())
    [raw] = line.held(elsewhere, 1)
    line.put(place, raw)
    receive(client, line.url(place))
    [held] = line.held(refused, 1)
    assert held.body == raw.body
    assert held.headers.pop("postseal-destination").startswith("sqs:")
    assert held.headers == {VERDICT_ATTRIBUTE: "wrong-destination"}


def test_the_caller_gets_the_attributes_it_asked_for(line, place, client):
    url = line.url(place)
    client.send_message(QueueUrl=url, MessageBody="good", MessageAttributes={"a": NUMBER, "b": NUMBER})
    [message] = client.receive_message(QueueUrl=url, MessageAttributeNames=["b"])["Messages"]
    assert message["MessageAttributes"] == {"b": NUMBER}


def test_the_url_is_asked_for_once(line, place, client):
    wire = Wire(client)
    for _ in range(3):
        line.put(place, Raw(b"injected"))
        receive(client, line.url(place))
    assert len(wire.sent("GetQueueUrl")) == 1
    assert len(wire.sent("SendMessage")) == 3


def test_a_url_that_is_given_is_not_asked_for(world, line, place, refused, policy):
    client = protect(make_client(), world.sealer(policy), quarantine={f"sqs:{refused}": line.url(refused)})
    line.put(place, Raw(b"injected"))
    wire = Wire(client)
    receive(client, line.url(place))
    assert wire.sent("GetQueueUrl") == []
    assert len(line.held(refused, 1)) == 1


def test_all_of_a_batch_may_go(line, place, refused, client):
    line.put(place, *(Raw(b"injected %d" % n) for n in range(10)))
    assert receive(client, line.url(place)) == []
    assert len(line.held(refused, 10)) == 10
    assert lies(line, place) == 0


def test_with_ten_attributes_there_is_no_room_for_the_verdict(line, place, refused, client):
    ten = {f"a{n}": "x" for n in range(10)}
    line.put(place, Raw(b"injected", ten))
    receive(client, line.url(place))
    assert line.held(refused, 1)[0].headers == ten


def test_a_verdict_that_was_there_is_replaced(line, place, refused, client):
    line.put(place, Raw(b"injected", {VERDICT_ATTRIBUTE: "ok"} | {f"a{n}": "x" for n in range(9)}))
    receive(client, line.url(place))
    assert line.held(refused, 1)[0].headers[VERDICT_ATTRIBUTE] == "unprotected"


def test_what_is_refused_in_the_quarantine_itself_stays_there(world, line, place, refused):
    """Else a reader of the quarantine would copy its messages for ever."""
    policy = world.policy(
        place, accept_from=[f"sqs:{refused}"], on_refused="quarantine", quarantine=f"sqs:{refused}"
    )
    client = protect(make_client(), world.sealer(policy))
    line.put(refused, Raw(b"injected"))
    wire = Wire(client)
    assert receive(client, line.url(refused)) == []
    assert [name for name, _ in wire.requests] == ["ReceiveMessage"]
    assert lies(line, refused) == 1


def test_a_fifo_quarantine_gets_group_and_id(world, aws):
    """A copy that is made twice, because the deletion failed, is one."""
    line = FifoLine(make_client)
    place, refused = line.place(), line.place()
    policy = world.policy(place, on_refused="quarantine", quarantine=f"sqs:{refused}")
    client = protect(make_client(), world.sealer(policy))
    line.put(place, Raw(b"injected"))
    wire = Wire(client, None, None, None, (500, {}), (500, {}))
    receive(client, line.url(place), VisibilityTimeout=0)
    receive(client, line.url(place))
    first, second = wire.sent("SendMessage")
    assert first["MessageGroupId"] == "all"
    assert first["MessageDeduplicationId"] == second["MessageDeduplicationId"]
    assert lies(line, refused) == 1
    assert lies(line, place) == 0


def test_a_standard_queue_may_have_a_fifo_quarantine(world, line, place, aws):
    refused = FifoLine(make_client).place()
    policy = world.policy(place, on_refused="quarantine", quarantine=f"sqs:{refused}")
    line.put(place, Raw(b"injected"))
    receive(protect(make_client(), world.sealer(policy)), line.url(place))
    assert lies(line, refused) == 1


DENIED = (403, {"__type": "com.amazon.coral.service#AccessDeniedException", "message": CLEAR})


@pytest.mark.parametrize(
    "answers",
    [
        (None, DENIED),
        (None, None, DENIED),
        (None, None, (500, {}), (500, {})),
        (None, None, (200, {})),
        (None, None, (200, {"MessageId": "1"})),
        (None, None, (200, {"MessageId": "1", "MD5OfMessageBody": "0" * 32})),
    ],
    ids=["no url", "denied", "fault", "nothing confirmed", "no md5", "another md5"],
)
def test_without_a_confirmed_copy_nothing_is_deleted(world, line, place, client, answers, caplog):
    """And the good message beside it is handed on all the same."""
    url = line.url(place)
    client.send_message(QueueUrl=url, MessageBody="good")
    line.put(place, Raw(b"injected"))
    wire = Wire(client, *answers)
    assert receive(client, url) == ["good"]
    assert wire.sent("DeleteMessageBatch") == []
    assert lies(line, place) == 2
    assert "left there for its redrive policy" in caplog.text
    assert CLEAR not in caplog.text


def test_a_copy_that_cannot_even_be_tried_costs_nothing(line, place, client, caplog):
    """A handler of the caller's may raise whatever it likes."""

    def stop(params, **_):
        raise RuntimeError(CLEAR)

    client.meta.events.register("before-call.sqs.SendMessage", stop)
    line.put(place, Raw(b"injected"))
    assert receive(client, line.url(place)) == []
    assert lies(line, place) == 1
    assert "RuntimeError" in caplog.text
    assert CLEAR not in caplog.text


def test_a_handler_that_changes_where_a_copy_goes_sends_nothing_in_clear(line, place, refused, client):
    """The way around the guard is for the adapter's own call and no other."""

    def elsewhere(params, **_):
        params["QueueUrl"] = line.url(refused)

    client.meta.events.register("before-parameter-build.sqs.SendMessage", elsewhere)
    line.put(place, Raw(b"injected"))
    assert receive(client, line.url(place)) == []
    assert lies(line, refused) == 0
    assert lies(line, place) == 1


# -- discard


@pytest.fixture
def discarding(world, place):
    return protect(make_client(), world.sealer(world.policy(place, on_refused="discard")))


def test_a_refused_message_is_deleted(world, line, place, discarding):
    """E5: and recorded all the same."""
    line.put(place, Raw(b"injected"), Raw(b"too"))
    discarding.send_message(QueueUrl=line.url(place), MessageBody="good")
    wire = Wire(discarding)
    assert receive(discarding, line.url(place)) == ["good"]
    assert lies(line, place) == 1
    assert len(wire.sent("DeleteMessageBatch")) == 1
    assert world.verdicts() == [Verdict.UNPROTECTED] * 2


def test_a_deletion_that_fails_costs_nothing(line, place, discarding, caplog):
    line.put(place, Raw(b"injected"))
    discarding.send_message(QueueUrl=line.url(place), MessageBody="good")
    failed = {"Id": "0", "SenderFault": False, "Code": "InternalError", "Message": CLEAR}
    Wire(discarding, None, (200, {"Successful": [], "Failed": [failed]}))
    assert receive(discarding, line.url(place)) == ["good"]
    assert lies(line, place) == 2
    assert "deleting failed: InternalError" in caplog.text
    assert CLEAR not in caplog.text


@pytest.mark.parametrize("on_refused", ["discard", "quarantine"])
def test_in_observe_a_refused_message_stays(world, line, place, refused, on_refused):
    """Observing reports, and does nothing to the queue."""
    home = line.place()
    line.send(world.sealer(world.policy(home)), home, CLEAR.encode())
    line.put(place, *line.held(home, 1))
    policy = world.policy(place, home, mode="observe", on_refused=on_refused, quarantine=f"sqs:{refused}")
    assert receive(protect(make_client(), world.sealer(policy)), line.url(place)) == []
    assert world.verdicts() == [Verdict.WRONG_DESTINATION]
    assert lies(line, place) == 1
    assert lies(line, refused) == 0


# -- dead letters


def test_redrive_takes_a_refused_message_and_never_seals_it_again(world, line):
    """A10: maxReceiveCount counts what was left; the dead letter is what was sent; it opens there, and after the way back."""
    place, dead = line.place_with_dead_letters()
    policy = world.policy(
        place, accept_from=[f"sqs:{dead}"], on_refused="dead-letter", bind_headers=["tenant"]
    )
    url = line.url(place)
    sender = protect(make_client(), world.sealer(policy))
    wire = Wire(sender)
    sender.send_message(QueueUrl=url, MessageBody=CLEAR, MessageAttributes=attributes({"tenant": "north"}))
    text = wire.sent("SendMessage")[0]["MessageBody"]
    world.keys.refused.set()
    for _ in range(4):
        assert receive(protect(make_client(), world.sealer(policy)), url, VisibilityTimeout=0) == []
    assert set(world.verdicts()) == {Verdict.UNKNOWN_KEY}
    assert lies(line, place) == 0
    assert [raw.body.decode() for raw in line.held(dead, 1)] == [text]
    world.keys.refused.clear()
    consumer = protect(make_client(), world.sealer(policy))
    assert receive(consumer, line.url(dead), VisibilityTimeout=0) == [CLEAR]
    line.put(place, *line.held(dead, 1))
    assert receive(consumer, url) == [CLEAR]
