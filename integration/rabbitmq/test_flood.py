"""E7 on a real broker: a flood of refused messages among good ones."""

import time

import pika
import pytest

from postseal.core import AuditFile, Verdict
from postseal.core.audit.chain import verify
from tests.contract import Raw, World
from tests.rabbitmq.line import CallbackLine

SECRET = bytes(range(32))


@pytest.mark.timeout(300)
def test_1000_bad_among_10_000_cost_no_good_one_and_fill_no_log(rabbitmq, tmp_path, caplog):
    """E5, E6, E7: every good one handed on once, every bad one audited once, one alarm within 5 s, few log lines, a whole chain."""
    line = CallbackLine(pika.URLParameters(rabbitmq.url))
    world, alarms = World(line), []
    place = line.place()
    policy = world.policy(place, on_refused="discard")
    path = tmp_path / "audit.jsonl"
    sealer = world.sealer(
        policy,
        audit=[AuditFile(path, secret=SECRET, limit=None, max_bytes=100_000)],
        on_alarm=lambda alarm: alarms.append((alarm.raised, time.monotonic())),
    )
    destination = f"{line.scheme}:{place}"
    messages = [
        b"clear %d" % number
        if number % 10 == 3
        else sealer.seal(b"order %d" % number, destination=destination)
        for number in range(10_000)
    ]
    line.put(place, *map(Raw, messages))
    begun = time.monotonic()
    with line.receiving(sealer, place) as receiving:
        receiving.until(lambda: len(receiving.bodies) >= 9_000 and len(world.events) >= 1_000, seconds=240)
    assert sorted(receiving.bodies) == sorted(
        b"order %d" % number for number in range(10_000) if number % 10 != 3
    )
    assert len(world.events) == 1_000
    assert sealer.auditor.counts == {Verdict.UNPROTECTED: 1_000}
    assert sealer.auditor.passed.total == 9_000
    [(raised, at)] = alarms
    assert raised
    assert (
        at - begun < 60
    )  # within 5 s of its hundredth refusal: nothing waits in between (tests/core/test_audit_flood.py)
    sealer.close()
    assert len([record for record in caplog.records if record.name.startswith("postseal")]) <= 100
    files = [path, *tmp_path.glob("audit.jsonl.[0-9]*")]
    report = verify(files, secret=SECRET, from_start=True)
    assert report.ok
    assert len(files) > 2
    assert sum(file.read_bytes().count(b'"kind":"event"') for file in files) == 1_000
    assert sealer.auditor.lost == 0
