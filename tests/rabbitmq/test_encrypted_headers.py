"""Headers that travel in the envelope: what is RabbitMQ's own of it. The rest stands in the contract."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from types import SimpleNamespace

import pika
import pytest

from postseal.core import ConfigError, Policy, Sealer
from postseal.rabbitmq._inside import put_back, without
from postseal.rabbitmq._message import Bound, check_policy
from tests.contract import World
from tests.fakes import FakeKeys
from tests.rabbitmq.line import CallbackLine

TABLE = {
    "text": "grün",
    "empty": "",
    "bytes": b"\x00\xff",
    "whole": -(2**63),
    "yes": True,
    "nothing": None,
    "real": 0.5,
    "exact": Decimal("-1.5"),
    "list": [1, "two", [b"three", None, Decimal(100)]],
    "table": {"a": {"b": [True, {"c": "d"}]}, "at": datetime(2026, 12, 1, 1, 2, 3, tzinfo=UTC)},
}
HERE = "rabbitmq:/orders"


def sealer_for(**options):
    policy = Policy(name="p", destinations=[HERE], keys=["main"], **options)
    return Sealer(sender="shop", policies=[policy], keys={"main": FakeKeys()})


def test_values_of_every_type_come_back_as_they_were():
    sealer = sealer_for(encrypt_headers=list(TABLE))
    properties = pika.BasicProperties(headers={**TABLE, "other": "x"})
    envelope = sealer.seal(b"body", destination=HERE, headers=Bound(properties, sent=True))
    sent = without(properties, sealer.policies[0].taken_headers)
    assert sent.headers == {"other": "x"}
    assert properties.headers == {**TABLE, "other": "x"}
    opened = sealer.open(envelope, destination=HERE, headers=Bound(sent, sent=False))
    put_back(sent, opened, aware=True)
    assert sent.headers == {**TABLE, "other": "x"}
    assert {name: type(value) for name, value in sent.headers.items() if name in TABLE} == {
        name: type(value) for name, value in TABLE.items()
    }


def test_pika_has_times_without_a_zone():
    sealer = sealer_for(encrypt_headers=["at"])
    properties = pika.BasicProperties(headers={"at": datetime(2026, 12, 1, 1, 2, 3)})  # noqa: DTZ001 - as pika has it
    opened = sealer.open(
        sealer.seal(b"body", destination=HERE, headers=Bound(properties, sent=True)), destination=HERE
    )
    received = pika.BasicProperties()
    put_back(received, opened, aware=False)
    assert received.headers == properties.headers


@pytest.mark.parametrize(
    "form",
    [
        b"",
        b"north",
        b"d\x00",
        b"Dx",
        b"T",
        b"Tx.y",
        b"T9999999999999999.0",
        b"A",
        b"A\x82\x01",
        b"F\xa1",
        b"A\x81\x01\x02",
    ],
)
def test_bytes_that_somebody_sealed_without_the_adapter_come_back_as_they_are(form):
    received = pika.BasicProperties()
    put_back(received, SimpleNamespace(headers=(("a", form),)), aware=True)
    assert received.headers == {"a": form}


@pytest.mark.parametrize(
    "name", ["correlation_id", "content-type", "Type", "priority", "user_id", "x-match", "CC", "expiration"]
)
def test_properties_cannot_be_encrypted(name):
    policy = Policy(name="p", destinations=[HERE], keys=["main"], encrypt_headers=[name])
    with pytest.raises(ConfigError, match="encrypt_headers names"):
        check_policy(policy)


def test_a_header_of_a_propertys_name_in_another_case_can_be_bound():
    sealer = sealer_for(bind_headers=["Content-Type"])
    bound = Bound(pika.BasicProperties(content_type="a/b", headers={"Content-Type": "c/d"}), sent=True)
    envelope = sealer.seal(b"body", destination=HERE, headers=bound)
    assert sealer.open(envelope, destination=HERE, headers=bound).body == b"body"


def test_a_returned_message_shows_the_headers_that_it_was_published_with(parameters):
    line = CallbackLine(parameters)
    world = World(line)
    sealer = world.sealer(world.policy("/nowhere-at-all", encrypt_headers=["patient"]))
    returned = []
    with line.connect(sealer) as connection:
        channel = connection.channel()
        channel.add_on_return_callback(lambda *args: returned.append((args[2].headers, args[3])))
        properties = pika.BasicProperties(headers={"patient": "Zoe", "other": "x"})
        channel.basic_publish("", "nowhere-at-all", b"body", properties, mandatory=True)
        connection.process_data_events(1)
        assert properties.headers == {"patient": "Zoe", "other": "x"}
    assert returned == [({"patient": "Zoe", "other": "x"}, b"body")]
