"""E11 on a real broker: its direct reply-to, whose queue has another name on each side."""

from __future__ import annotations

import pika
import pytest

from postseal.core import Policy, Refused, Sealer, Verdict
from postseal.rabbitmq import protect
from tests.fakes import FakeKeys

DIRECT = "amq.rabbitmq.reply-to"


def test_replies_by_direct_reply_to_are_bound_too(rabbitmq, fresh):
    queue, keys, events = fresh("questions"), FakeKeys(), []
    policies = [
        Policy(name="questions", destinations=[f"rabbitmq:/{queue}"], keys=["main"]),
        Policy(name="answers", destinations=[f"rabbitmq:/{DIRECT}.#"], keys=["main"], bind_replies=True),
    ]

    def side():
        sealer = Sealer(sender="shop", policies=policies, keys={"main": keys}, on_audit=events.append)
        return protect(pika.BlockingConnection(pika.URLParameters(rabbitmq.url)), sealer)

    came: list[tuple[str, bytes]] = []
    with side() as asks, side() as answers:
        asking, answering = asks.channel(), answers.channel()
        asking.queue_declare(queue)
        asking.basic_consume(
            DIRECT, lambda c, m, p, body: came.append((p.correlation_id, body)), auto_ack=True
        )
        for number in range(3):
            asking.basic_publish(
                "",
                queue,
                b"question %d" % number,
                pika.BasicProperties(reply_to=DIRECT, correlation_id=f"c-{number}"),
            )
        taken = []
        while len(taken) < 3:
            method, properties, body = answering.basic_get(queue, auto_ack=True)
            if method is not None:
                taken.append((properties, body))
        for properties, body in reversed(taken):
            assert properties.reply_to.startswith(f"{DIRECT}.")
            reply = pika.BasicProperties(correlation_id=properties.correlation_id)
            answering.basic_publish("", properties.reply_to, body.upper(), reply)
        for _ in range(600):
            if len(came) == 3:
                break
            asks.process_data_events(0.05)
        assert sorted(came) == [(f"c-{n}", b"QUESTION %d" % n) for n in range(3)]
        assert events == []
        # The reply to one under the id of another.
        first, _ = taken[0]
        sealed = answers_sealer(policies, keys).seal(
            b"4711",
            destination=f"rabbitmq:/{first.reply_to}",
            in_reply_to="ab" * 32,
        )
        answering.basic_publish(
            "", first.reply_to, sealed, pika.BasicProperties(correlation_id=first.correlation_id)
        )
        with pytest.raises(Refused):
            asks.process_data_events(60)
    assert [event.verdict for event in events] == [Verdict.WRONG_DESTINATION]
    assert len(came) == 3


def answers_sealer(policies, keys):
    return Sealer(sender="shop", policies=policies, keys={"main": keys})
