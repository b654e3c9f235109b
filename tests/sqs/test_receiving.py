"""What the caller is handed, and what it is not."""

# ruff: noqa: PLR0917 - a test's arguments are its fixtures, which pytest gives by name

import copy
import hashlib
import json
from datetime import UTC, datetime, timedelta

import pytest
from botocore.exceptions import ParamValidationError

from postseal.core import Refused, Verdict
from postseal.sqs import protect
from postseal.sqs._text import text_of
from tests.contract import Raw, World, flipped
from tests.fakes import FakeKeys
from tests.sqs.conftest import Wire, make_client, make_resource
from tests.sqs.line import FifoLine

CLEAR = "4111 1111 1111 1111"
ATTRIBUTES = {
    "tenant": {"DataType": "String", "StringValue": "grün"},
    "count": {"DataType": "Number", "StringValue": "7"},
    "picture": {"DataType": "Binary", "BinaryValue": b"\x00\xff"},
}


def md5(text):
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


@pytest.fixture
def place(line):
    return line.place()


@pytest.fixture
def url(line, place):
    return line.url(place)


class Naps:
    """Sleeps for no time, and counts."""

    def __init__(self):
        self.seconds = []

    def __call__(self, seconds):
        self.seconds.append(seconds)


@pytest.fixture
def naps():
    return Naps()


@pytest.fixture
def client_of(world, naps):
    """Make a protected client for a policy."""

    def make(policy, **options):
        return protect(make_client(), world.sealer(policy), **{"sleep": naps} | options)

    return make


def fill(client, url, *bodies, **options):
    for body in bodies:
        client.send_message(QueueUrl=url, MessageBody=body, **options)


def receive(client, url, **options):
    return client.receive_message(QueueUrl=url, **{"MaxNumberOfMessages": 10} | options)


def bodies(answer):
    return [message["Body"] for message in answer.get("Messages", ())]


# -- what is handed on


def test_a_message_looks_as_if_it_had_never_been_sealed(line, world, url, place, client_of):
    client = client_of(world.policy(place, bind_headers=["tenant", "picture"]))
    fill(client, url, CLEAR, MessageAttributes=ATTRIBUTES)
    names = {"MessageAttributeNames": ["All"], "MessageSystemAttributeNames": ["All"]}
    [ours] = receive(client, url, VisibilityTimeout=0, **names)["Messages"]
    [bare] = receive(line.bare, url, **names)["Messages"]
    assert ours["Body"] == CLEAR
    assert ours["MD5OfBody"] == md5(CLEAR)
    assert set(ours) == set(bare)
    assert ours["MessageAttributes"] == bare["MessageAttributes"] == ATTRIBUTES
    assert ours["MD5OfMessageAttributes"] == bare["MD5OfMessageAttributes"]
    assert set(ours["Attributes"]) == set(bare["Attributes"])


def test_an_empty_answer_stays_one(world, url, place, client_of):
    assert "Messages" not in receive(client_of(world.policy(place)), url)


def test_resources_show_the_clear_body_and_its_md5(world, url, place):
    queue = protect(make_resource(), world.sealer(world.policy(place))).Queue(url)
    queue.send_message(MessageBody=CLEAR)
    [message] = queue.receive_messages()
    assert (message.body, message.md5_of_body) == (CLEAR, md5(CLEAR))


@pytest.mark.parametrize(
    "names",
    [
        {},
        {"MessageAttributeNames": []},
        {"MessageAttributeNames": ["count"]},
        {"MessageAttributeNames": ["count", "tenant"]},
        {"MessageAttributeNames": ["All"]},
        {"MessageAttributeNames": [".*"]},
        {"MessageAttributeNames": ["tenant"], "AttributeNames": ["SentTimestamp"]},
        {"AttributeNames": ["All"]},
        {"AttributeNames": ["ApproximateReceiveCount"]},
        {"MessageSystemAttributeNames": ["SenderId"]},
        {"MessageSystemAttributeNames": ["All"]},
        {"MessageSystemAttributeNames": ["MessageGroupId"]},
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", ["standard", "fifo"])
def test_what_was_not_asked_for_is_not_handed_on(world, line, client_of, names, kind):
    """Opening needs attributes that the caller may not want. They are asked for, and taken out again."""
    line = FifoLine(make_client) if kind == "fifo" else line
    place = line.place()
    url = line.url(place)
    client = client_of(
        world.policy(place, bind_headers=["tenant", "picture"], bind_ordering_key=kind == "fifo")
    )
    client.send_message(QueueUrl=url, MessageAttributes=ATTRIBUTES, **line.ordering({"MessageBody": CLEAR}))
    before = copy.deepcopy(names)
    [bare] = receive(line.bare, url, VisibilityTimeout=0, **names)["Messages"]
    [ours] = receive(client, url, VisibilityTimeout=0, **names)["Messages"]
    assert names == before
    assert ours["Body"] == CLEAR
    for part in ("MessageAttributes", "MD5OfMessageAttributes"):
        assert ours.get(part) == bare.get(part)
    assert set(ours.get("Attributes", ())) == set(bare.get("Attributes", ()))


def test_only_what_is_needed_is_asked_for(world, url, place, client_of):
    client = client_of(world.policy(place, bind_headers=["tenant"], bind_ordering_key=True))
    wire = Wire(client)
    receive(client, url, MessageAttributeNames=["tenant", "x.*"], AttributeNames=["SenderId"])
    receive(client, url)
    receive(client, url, MessageAttributeNames=["All"], MessageSystemAttributeNames=["All"])
    first, second, third = wire.sent("ReceiveMessage")
    assert first["MessageAttributeNames"] == ["tenant", "x.*"]
    assert first["AttributeNames"] == ["SenderId", "MessageGroupId"]
    assert "MessageSystemAttributeNames" not in first
    assert second["MessageAttributeNames"] == ["tenant"]
    assert second["MessageSystemAttributeNames"] == ["MessageGroupId"]
    assert third["MessageAttributeNames"] == third["MessageSystemAttributeNames"] == ["All"]


@pytest.mark.parametrize("trouble", ["refused", "withheld"])
def test_how_often_a_message_came_is_asked_only_after_one_was_not_handed_on(
    world, line, url, place, client_of, trouble
):
    """SQS need not say it, and nobody read it, where all is well."""
    policy = world.policy(place, on_refused="dead-letter")
    client = client_of(policy)
    wire = Wire(client)
    fill(client, url, CLEAR)
    assert bodies(receive(client, url)) == [CLEAR]
    if trouble == "refused":
        fill(line.bare, url, "injected")
    else:
        fill(client_of(policy), url, CLEAR)
        client = client_of(policy)
        wire = Wire(client)
        world.keys.unavailable.set()
    receive(client, url)
    receive(client, url)
    *before, after = wire.sent("ReceiveMessage")
    assert all("MessageSystemAttributeNames" not in asked for asked in before)
    assert after["MessageSystemAttributeNames"] == ["ApproximateReceiveCount"]


@pytest.mark.parametrize(
    "names",
    [{"MessageAttributeNames": "All"}, {"AttributeNames": "All"}, {"MessageSystemAttributeNames": 3}],
    ids=str,
)
def test_wrong_names_are_botocores_to_refuse(world, url, place, client_of, names):
    with pytest.raises(ParamValidationError):
        receive(client_of(world.policy(place)), url, **names)


def test_a_wrong_queue_url_raises_what_botocore_raises(world, place, client_of):
    with pytest.raises(ParamValidationError):
        client_of(world.policy(place)).receive_message()


@pytest.mark.parametrize("group", ["other", None])
def test_another_group_is_refused(world, client_of, group):
    """A9: who moves a message into another group is noticed, where the policy binds it."""
    line = FifoLine(make_client)
    home, place = line.place(), line.place()
    policy = world.policy(home, accept_from=[f"sqs:{place}"], bind_ordering_key=True)
    client = client_of(policy)
    fill(client, line.url(home), CLEAR, MessageGroupId="g", MessageDeduplicationId="1")
    [raw] = line.held(home, 1)
    for at, group_id in enumerate(["g", group or "h"]):
        line.bare.send_message(
            QueueUrl=line.url(place),
            MessageBody=raw.body.decode(),
            MessageGroupId=group_id,
            MessageDeduplicationId=str(at),
        )
    assert bodies(receive(client, line.url(place))) == [CLEAR]
    assert world.verdicts() == [Verdict.FORGED]


def test_in_tolerate_clear_text_is_handed_on_as_it_came(world, line, url, place, client_of):
    """Also such as reads like base64."""
    until = datetime.now(UTC) + timedelta(days=1)
    client = client_of(world.policy(place, mode="tolerate", tolerate_until=until))
    fill(line.bare, url, "aGVsbG8", MessageAttributes=ATTRIBUTES)
    fill(client, url, "sealed")
    messages = receive(client, url)["Messages"]
    assert sorted((m["Body"], m["MD5OfBody"]) for m in messages) == [
        ("aGVsbG8", md5("aGVsbG8")),
        ("sealed", md5("sealed")),
    ]
    assert all("MessageAttributes" not in message for message in messages)
    assert world.verdicts() == [Verdict.CLEAR]


def test_in_observe_both_are_handed_on(world, line, url, place, client_of):
    fill(client_of(world.policy(place)), url, "sealed")
    fill(line.bare, url, "clear")
    assert sorted(bodies(receive(client_of(world.policy(place, mode="observe")), url))) == ["clear", "sealed"]


def test_in_off_everything_is_handed_on_as_it_lies(world, line, url, place, client_of):
    fill(client_of(world.policy(place)), url, "sealed")
    [raw] = line.held(place, 1)
    client = client_of(world.policy(place, mode="off"))
    wire = Wire(client)
    assert bodies(receive(client, url)) == [raw.body.decode()]
    assert wire.sent("ReceiveMessage") == [{"QueueUrl": url, "MaxNumberOfMessages": 10}]


def test_handlers_of_others_see_the_opened_message(world, url, place, client_of):
    """Ours comes first, so that what they note is what the caller gets."""
    client = client_of(world.policy(place))
    seen = []
    client.meta.events.register(
        "after-call.sqs.ReceiveMessage", lambda parsed, **_: seen.extend(bodies(parsed))
    )
    fill(client, url, CLEAR)
    receive(client, url)
    assert seen == [CLEAR]


# -- what is refused


@pytest.mark.parametrize("on_refused", ["raise", "dead-letter"])
def test_one_refused_of_ten_is_left_on_the_queue(world, line, url, place, client_of, on_refused):
    """A9, E5, E6: the nine are handed on, the one stays for the redrive policy, with one event."""
    client = client_of(world.policy(place, on_refused=on_refused))
    fill(client, url, *(f"order {n}" for n in range(9)))
    fill(line.bare, url, "injected")
    wire = Wire(client)
    answer = receive(client, url, VisibilityTimeout=0)
    assert sorted(bodies(answer)) == [f"order {n}" for n in range(9)]
    assert world.verdicts() == [Verdict.UNPROTECTED]
    assert [name for name, _ in wire.requests] == ["ReceiveMessage"]
    for message in answer["Messages"]:
        client.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    assert [raw.body for raw in line.held(place, 1)] == [b"injected"]


def test_a_receive_of_nothing_but_refused_messages_raises_where_the_policy_says(
    world, line, url, place, client_of
):
    fill(line.bare, url, "injected", "injected, too")
    with pytest.raises(Refused) as error:
        receive(client_of(world.policy(place)), url)
    assert error.value.verdict is Verdict.UNPROTECTED
    assert error.value.destination == f"sqs:{place}"
    assert world.verdicts() == [Verdict.UNPROTECTED] * 2


def test_else_it_is_an_empty_answer(world, line, url, place, client_of, naps):
    fill(line.bare, url, "injected")
    answer = receive(client_of(world.policy(place, on_refused="dead-letter")), url)
    assert "Messages" not in answer
    assert naps.seconds == []


def test_the_audit_event_names_the_message_of_sqs(world, line, url, place, client_of):
    """E6."""
    sent = line.bare.send_message(QueueUrl=url, MessageBody="injected")
    client = client_of(world.policy(place, on_refused="dead-letter"))
    receive(client, url, VisibilityTimeout=0)
    receive(client, url)
    first, second = world.events
    assert first.coordinates == {"message_id": sent["MessageId"]}
    assert second.coordinates == {"message_id": sent["MessageId"], "receive_count": 2}


@pytest.mark.parametrize(
    ("spoil", "verdict"),
    [
        (lambda text: text + "A", Verdict.UNPROTECTED),
        (lambda text: text + "AAAA", Verdict.MALFORMED),
        (lambda text: text + "=", Verdict.UNPROTECTED),
        (lambda text: text[:40] + "\n" + text[40:], Verdict.UNPROTECTED),
        (lambda text: text[:-4], Verdict.MALFORMED),
        (lambda text: text[:12], Verdict.MALFORMED),
        (lambda text: text[:8], Verdict.UNPROTECTED),
        (lambda text: text.replace("-", "+").replace("_", "/") + "+", Verdict.UNPROTECTED),
        (json.dumps, Verdict.UNPROTECTED),
        (lambda text: "фCD", Verdict.UNPROTECTED),
    ],
)
def test_a_text_that_was_changed_is_refused(world, line, place, url, client_of, spoil, verdict):
    client = client_of(world.policy(place, on_refused="dead-letter"))
    wire = Wire(client)
    # The length of an envelope, modulo 3, decides what is left of its last letter.
    for body in ("x", "xx", "xxx"):
        fill(client, url, body)
        text = wire.sent("SendMessage")[-1]["MessageBody"]
        if len(text) % 4 == 0:
            break
    client.purge_queue(QueueUrl=url)
    fill(line.bare, url, spoil(text))
    assert bodies(receive(client, url)) == []
    assert world.verdicts() == [verdict]


def test_an_opened_body_that_is_no_text_is_refused(world, line, place, url, client_of):
    """Who seals bytes for a queue by other means cannot make SQS carry them."""
    policy = world.policy(place, on_refused="dead-letter")
    envelope = world.sealer(policy).seal(b"\xff\xfe", destination=f"sqs:{place}")
    fill(line.bare, url, text_of(envelope))
    assert bodies(receive(client_of(policy), url)) == []
    assert world.verdicts() == [Verdict.MALFORMED]


def test_what_is_like_a_message_opened_before_is_refused_once_for_what_is_wrong_with_it(
    world, line, place, url
):
    """What opens at once is no other way in: whatever is wrong goes the whole way, and makes one audit event that says where it lay."""
    policy = world.policy(place, on_refused="dead-letter")
    sealer = world.sealer(policy)
    client = protect(make_client(), sealer)
    texts = [
        text_of(sealer.seal(body, destination=f"sqs:{place}"))
        for body in (b"first", b"\xff\xfe", b"x", b"last")
    ]
    texts[2] = swap_a_letter(texts[2])
    fill(line.bare, url, texts[0])
    assert bodies(receive(client, url)) == ["first"]
    fill(line.bare, url, *texts[1:])
    assert bodies(receive(client, url)) == ["last"]
    assert sorted(world.verdicts()) == sorted([Verdict.MALFORMED, Verdict.FORGED])
    assert len({event.coordinates["message_id"] for event in world.events}) == 2


def swap_a_letter(text):
    at = len(text) // 2
    return text[:at] + ("A" if text[at] != "A" else "B") + text[at + 1 :]


@pytest.mark.parametrize("on_refused", ["dead-letter", "discard"])
def test_a_damaged_answer_is_refused_and_its_message_stays(world, line, place, url, client_of, on_refused):
    """botocore checks no MD5. A fault on the way from SQS is no fault of the message, so it is never discarded."""
    client = client_of(world.policy(place, on_refused=on_refused))
    fill(client, url, "good", "damaged")

    def damage(parsed, **_):
        if parsed.get("Messages"):
            parsed["Messages"][1]["Body"] = swap_a_letter(parsed["Messages"][1]["Body"])

    client.meta.events.register_first("after-call.*.*", damage)
    assert len(bodies(receive(client, url, VisibilityTimeout=0))) == 1
    [event] = world.events
    assert event.verdict is Verdict.FORGED
    assert "MD5" in event.coordinates["damaged"]
    assert event.policy == "orders"
    assert len(line.held(place, 2)) == 2


def test_a_message_that_was_changed_at_its_queue_is_not_called_damaged(world, line, place, url, client_of):
    """The control: SQS names the MD5 of what it holds, and discard is done."""
    client = client_of(world.policy(place, on_refused="discard"))
    fill(client, url, CLEAR)
    [raw] = line.held(place, 1)
    line.put(place, Raw(swap_a_letter(raw.body.decode()).encode()))
    assert bodies(receive(client, url, VisibilityTimeout=0)) == [CLEAR]
    [event] = world.events
    assert "damaged" not in event.coordinates
    assert [held.body for held in line.held(place, 1)] == [raw.body]


def test_a_wrong_md5_of_an_authentic_body_is_put_right(world, line, place, url, client_of):
    """What opens is authentic to the last letter, which is more than an MD5 can say: not the body was damaged, but the MD5."""
    client = client_of(world.policy(place))
    fill(client, url, CLEAR)

    def damage(parsed, **_):
        parsed["Messages"][0]["MD5OfBody"] = md5("something else")

    client.meta.events.register_first("after-call.*.ReceiveMessage", damage)
    [message] = receive(client, url)["Messages"]
    assert (message["Body"], message["MD5OfBody"]) == (CLEAR, md5(CLEAR))
    assert world.events == []


@pytest.mark.parametrize("mode", ["tolerate", "observe"])
def test_damaged_clear_text_is_not_handed_on(world, line, place, url, client_of, mode):
    """Nothing else speaks for it. And one event is made, not one for the clear text beside."""
    until = {"tolerate_until": datetime.now(UTC) + timedelta(days=1)} if mode == "tolerate" else {}
    client = client_of(world.policy(place, mode=mode, on_refused="discard", **until))
    fill(line.bare, url, "clear")

    def damage(parsed, **_):
        for message in parsed.get("Messages", ()):
            message["Body"] += "er"

    client.meta.events.register_first("after-call.*.ReceiveMessage", damage)
    assert bodies(receive(client, url, VisibilityTimeout=0)) == []
    [event] = world.events
    assert event.verdict is Verdict.MALFORMED
    assert "MD5" in event.detail
    assert len(line.held(place, 1)) == 1


def test_a_message_opens_in_its_dead_letter_queue_where_the_policy_accepts_it(
    world, line, place, url, client_of
):
    """A10."""
    dead = line.place()
    fill(client_of(world.policy(place)), url, CLEAR)
    line.put(dead, *line.held(place, 1))
    accepting = client_of(world.policy(place, accept_from=[f"sqs:{dead}"]))
    assert bodies(receive(accepting, line.url(dead), VisibilityTimeout=0)) == [CLEAR]
    with pytest.raises(Refused) as error:
        receive(client_of(world.policy(place, dead)), line.url(dead))
    assert error.value.verdict is Verdict.WRONG_DESTINATION


# -- what waits


def test_without_the_key_service_messages_are_given_back(world, line, place, url, client_of, naps):
    """B14: none handed on, none deleted; they come again after a while, each time a longer one."""
    policy = world.policy(place)
    fill(client_of(policy), url, *(f"order {n}" for n in range(3)))
    client = client_of(policy, come_again_after=10)
    wire = Wire(client)
    world.keys.unavailable.set()
    assert "Messages" not in receive(client, url)
    [given_back] = wire.sent("ChangeMessageVisibilityBatch")
    assert [entry["VisibilityTimeout"] for entry in given_back["Entries"]] == [10, 10, 10]
    assert world.events == []
    for _ in range(4):
        receive(line.bare, url, VisibilityTimeout=0)
    for entry in given_back["Entries"]:
        handle = entry["ReceiptHandle"]
        line.bare.change_message_visibility(QueueUrl=url, ReceiptHandle=handle, VisibilityTimeout=0)
    receive(client, url)
    later = wire.sent("ChangeMessageVisibilityBatch")[1]["Entries"]
    assert [entry["VisibilityTimeout"] for entry in later] == [20, 20, 20]
    world.keys.unavailable.clear()
    for entry in later:
        handle = entry["ReceiptHandle"]
        line.bare.change_message_visibility(QueueUrl=url, ReceiptHandle=handle, VisibilityTimeout=0)
    assert sorted(bodies(receive(client, url))) == ["order 0", "order 1", "order 2"]


@pytest.mark.parametrize(
    ("count", "seconds"), [("1", 10), ("2", 20), ("5", 160), ("8", 900), ("5000", 900), ("0", 10), ("", 10)]
)
def test_the_while_doubles_up_to_a_quarter_of_an_hour(world, place, url, client_of, count, seconds):
    policy = world.policy(place)
    client = client_of(policy)
    wire = Wire(client)
    fill(client, url, CLEAR)
    world.keys.unavailable.set()

    def age(parsed, **_):
        for message in parsed.get("Messages", ()):
            message["Attributes"] = {"ApproximateReceiveCount": count}

    late = client_of(policy, come_again_after=10)
    late.meta.events.register_first("after-call.*.*", age)
    wire = Wire(late)
    receive(late, url)
    assert wire.sent("ChangeMessageVisibilityBatch")[0]["Entries"][0]["VisibilityTimeout"] == seconds


@pytest.mark.parametrize(
    ("wait", "seconds"), [({}, 1), ({"WaitTimeSeconds": 5}, 5), ({"WaitTimeSeconds": 20}, 20)]
)
def test_a_receive_that_can_hand_on_nothing_pauses_like_a_long_poll(
    world, place, url, client_of, naps, wait, seconds
):
    """Else a loop around it would take the whole queue round and round."""
    policy = world.policy(place)
    fill(client_of(policy), url, CLEAR)
    world.keys.unavailable.set()
    assert "Messages" not in receive(client_of(policy), url, **wait)
    assert naps.seconds == [seconds]


def test_what_needs_no_key_service_is_handed_on(world, line, place, url, client_of, naps):
    """B14: one key is cached, of the other the service was asked in vain, once for all its messages."""
    policy = world.policy(place)
    client = client_of(policy)
    fill(client, url, "known")
    client.delete_message(QueueUrl=url, ReceiptHandle=receive(client, url)["Messages"][0]["ReceiptHandle"])
    fill(client, url, "of a known key")
    fill(client_of(policy), url, "one of another", "two of another", "three of another")
    asked = world.keys.calls["unwrap"]
    world.keys.unavailable.set()
    assert bodies(receive(client, url)) == ["of a known key"]
    assert world.keys.calls["unwrap"] == asked + 1
    assert naps.seconds == []


def test_refused_beside_withheld_is_not_raised(world, line, place, url, client_of, naps):
    policy = world.policy(place)
    fill(client_of(policy), url, CLEAR)
    fill(line.bare, url, "injected")
    world.keys.unavailable.set()
    assert "Messages" not in receive(client_of(policy), url)
    assert naps.seconds == [1]


def test_a_fifo_group_waits_behind_its_first(world, client_of):
    """B14: an order that depends on one before is not handed on before it."""
    line = FifoLine(make_client)
    place = line.place()
    policy, url = world.policy(place), line.url(place)
    known, other = client_of(policy), client_of(policy)

    def send(client, body, group):
        fill(client, url, body, MessageGroupId=group, MessageDeduplicationId=body)

    send(known, "learn", "x")
    [message] = receive(known, url)["Messages"]
    known.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    send(known, "a1", "a")
    send(other, "a2", "a")
    send(known, "a3", "a")
    send(known, "b1", "b")
    wire = Wire(known)
    world.keys.unavailable.set()
    assert sorted(bodies(receive(known, url))) == ["a1", "b1"]
    assert len(wire.sent("ChangeMessageVisibilityBatch")[0]["Entries"]) == 2


def test_a_giving_back_that_fails_costs_nothing(world, line, place, url, client_of):
    policy = world.policy(place)
    client = client_of(policy)
    fill(client, url, "known")
    receive(client, url, VisibilityTimeout=0)
    fill(client_of(policy), url, "other")
    world.keys.unavailable.set()
    Wire(client, None, (403, {"__type": "AccessDenied"}))
    assert bodies(receive(client, url)) == ["known"]


# -- what nobody thought of


class Odd(FakeKeys):
    """Raises, where told to, what a key provider must not."""

    odd = False

    def unwrap(self, recipients, context):
        if self.odd:
            raise ZeroDivisionError(CLEAR)
        return super().unwrap(recipients, context)


@pytest.fixture
def odd_world(line):
    return World(line, Odd())


@pytest.mark.parametrize("alone", [True, False])
def test_a_fault_in_opening_one_does_not_cost_the_others(odd_world, line, place, url, alone, naps, caplog):
    """And is raised where it costs none. Its text may quote anything, so it is not logged."""
    policy = odd_world.policy(place)
    client = protect(make_client(), odd_world.sealer(policy), sleep=naps)
    if not alone:
        fill(client, url, "known")
        receive(client, url, VisibilityTimeout=0)
    fill(protect(make_client(), odd_world.sealer(policy)), url, "of another key")
    odd_world.keys.odd = True
    wire = Wire(client)
    if alone:
        with pytest.raises(ZeroDivisionError):
            receive(client, url, VisibilityTimeout=0)
    else:
        assert bodies(receive(client, url, VisibilityTimeout=0)) == ["known"]
    assert [name for name, _ in wire.requests] == ["ReceiveMessage"]
    assert "ZeroDivisionError" in caplog.text
    assert CLEAR not in caplog.text
    odd_world.keys.odd = False
    assert "of another key" in bodies(receive(client, url))


def test_a_batch_with_a_flipped_bit_anywhere_never_raises_anything_else(world, line, place, url, client_of):
    policy = world.policy(place, on_refused="dead-letter")
    client = client_of(policy)
    fill(client, url, CLEAR)
    [raw] = line.held(place, 1)
    bad = flipped(line, raw)
    line.put(place, bad, Raw(bad.body[:50]), Raw(b"2GCEWA"), Raw(b"2GCE"))
    assert bodies(receive(client, url)) == [CLEAR]
    assert len(world.events) == 4
