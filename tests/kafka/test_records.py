"""What a Lambda function is handed from Kafka."""

import copy
from base64 import b64decode, b64encode

import pytest

from postseal.core import ConfigError, KeyUnavailable, Policy, Refused, Sealer, Verdict
from postseal.kafka import open_records
from tests.fakes import FakeKeys

CLEAR = b'{"card": "4111 1111 1111 1111"}'


class World:
    def __init__(self):
        self.keys, self.events = FakeKeys(), []

    def sealer(self, **options):
        policy = Policy(name="orders", destinations=["kafka:orders"], keys=["main"], **options)
        return Sealer(sender="shop", policies=[policy], keys={"main": self.keys}, on_audit=self.events.append)


@pytest.fixture
def world():
    return World()


def record_of(value, offset=15, partition=0, key=b"4711", **headers):
    """Make a record as Lambda does. Source: AWS Lambda Developer Guide, example Amazon MSK event."""
    record = {
        "topic": "orders",
        "partition": partition,
        "offset": offset,
        "timestamp": 1545084650987,
        "timestampType": "CREATE_TIME",
        "headers": [
            {name: [byte - 256 if byte > 127 else byte for byte in value]} for name, value in headers.items()
        ],
    }
    if key is not None:
        record["key"] = b64encode(key).decode()
    if value is not None:
        record["value"] = b64encode(value).decode()
    return record


def event_of(*records, source="aws:kafka"):
    partitions = {}
    for record in records:
        partitions.setdefault(f"{record['topic']}-{record['partition']}", []).append(record)
    return {"eventSource": source, "bootstrapServers": "b-1:9092", "records": partitions}


def values(records):
    return [b64decode(record["value"]) for record in records]


@pytest.mark.parametrize("source", ["aws:kafka", "SelfManagedKafka"])
def test_records_open_and_look_as_if_they_had_never_been_sealed(world, source):
    sealer = world.sealer()
    envelopes = [sealer.seal(b"%d" % at, destination="kafka:orders") for at in range(4)]
    event = event_of(*(record_of(e, at, at // 2) for at, e in enumerate(envelopes)), source=source)
    before = copy.deepcopy(event)
    opened = open_records(event, world.sealer())
    assert event == before
    assert opened == [record_of(b"%d" % at, at, at // 2) for at in range(4)]


def test_a_tombstone_stays_one(world):
    [opened] = open_records(event_of(record_of(None)), world.sealer())
    assert opened == record_of(None)


def test_bound_headers_and_keys_are_read_as_java_writes_them(world):
    """A9: numbers from -128 to 127."""
    options = {"bind_headers": ["tenant"], "bind_ordering_key": True, "on_refused": "discard"}
    tenant = "grün".encode()
    envelope = world.sealer(**options).seal(
        CLEAR, destination="kafka:orders", headers=[("tenant", tenant)], ordering_key=b"4711"
    )
    event = event_of(
        record_of(envelope, 1, tenant=tenant),
        record_of(envelope, 2, tenant=b"south"),
        record_of(envelope, 3),
        record_of(envelope, 4, key=b"4712", tenant=tenant),
        record_of(envelope, 5, key=None, tenant=tenant),
    )
    opened = open_records(event, world.sealer(**options))
    assert [record["offset"] for record in opened] == [1]
    assert [event.verdict for event in world.events] == [Verdict.FORGED] * 4


@pytest.mark.parametrize("bad", range(3))
@pytest.mark.parametrize("on_refused", ["dead-letter", "quarantine", "discard"])
def test_one_bad_record_never_costs_the_others(world, bad, on_refused):
    """A9, E5, E6: it goes as it came to whoever takes it, with the verdict."""
    options = {"on_refused": on_refused, "quarantine": "kafka:refused"}
    records = [record_of(world.sealer().seal(b"%d" % at, destination="kafka:orders"), at) for at in range(3)]
    records[bad] = record_of(CLEAR, bad)
    taken = []
    opened = open_records(
        event_of(*records),
        world.sealer(**options),
        quarantine=lambda record, why: taken.append((record, why.verdict)),
    )
    assert values(opened) == [b"%d" % at for at in range(3) if at != bad]
    assert taken == ([] if on_refused == "discard" else [(record_of(CLEAR, bad), Verdict.UNPROTECTED)])
    [event] = world.events
    assert event.coordinates == {"topic": "orders", "partition": 0, "offset": bad}


def test_a_refused_record_is_raised_where_the_policy_says(world):
    with pytest.raises(Refused):
        open_records(event_of(record_of(CLEAR)), world.sealer())


def test_what_the_quarantine_raises_is_raised(world):
    """So that the batch comes again, and nothing is lost."""

    def broken(record, why):
        raise OSError("no broker")

    with pytest.raises(OSError, match="no broker"):
        open_records(event_of(record_of(CLEAR)), world.sealer(on_refused="dead-letter"), quarantine=broken)


def test_a_policy_that_needs_a_quarantine_says_so_before_anything_is_opened(world):
    with pytest.raises(ConfigError, match="quarantine"):
        open_records(event_of(record_of(CLEAR)), world.sealer(on_refused="dead-letter"))
    assert world.events == []


def test_without_the_key_service_the_batch_comes_again(world):
    """B14."""
    event = event_of(record_of(world.sealer().seal(CLEAR, destination="kafka:orders")))
    world.keys.unavailable.set()
    with pytest.raises(KeyUnavailable):
        open_records(event, world.sealer(on_refused="discard"))
    assert world.events == []


@pytest.mark.parametrize(
    "event",
    [
        {},
        {"Records": []},
        {"eventSource": "aws:sqs", "records": {}},
        {"eventSource": "aws:kafka", "records": []},
    ],
)
def test_another_event_is_an_error(world, event):
    with pytest.raises(ConfigError, match="event of Kafka"):
        open_records(event, world.sealer())


@pytest.mark.parametrize("value", ["not base64!", 3])
def test_a_value_that_lambda_would_not_write_is_an_error(world, value):
    with pytest.raises(ConfigError, match="base64"):
        open_records(event_of(record_of(b"") | {"value": value}), world.sealer())


def test_a_topic_without_a_policy_is_an_error(world):
    with pytest.raises(ConfigError, match="no policy"):
        open_records(event_of(record_of(CLEAR) | {"topic": "unspoken"}), world.sealer())
