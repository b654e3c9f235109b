"""A12, E1: HMAC keys and policies are rotated while messages flow, on each broker: none refused, none lost.

    POSTSEAL_ROTATION_MESSAGES=100000 .venv/bin/pytest integration/rotation

sends so many on each broker; without it, a few hundred. Two producers and two consumers, each with a sealer of its own on one policy file,
as processes have it, and one client for the whole run. Meanwhile the file is written again and again, and each sealer reads it at another
moment: a new key is pending, then active while the old one is retired, then alone, once what the old one signed was consumed; and with it
change the policy's version, when data keys end, how long they open, who may send, and what stands about other destinations.
"""

from __future__ import annotations

import base64
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from integration.faults.brokers import KINDS, Broker
from integration.rotation.ends import BATCH, sending
from postseal.core import Sealer
from tests.contract import Line, Receiving
from tests.fakes import FakeKeys
from tests.servicebus.naps import short_naps

COUNT = int(os.environ.get("POSTSEAL_ROTATION_MESSAGES", "600"))
"""Messages on each broker."""
ROTATIONS = 3
"""New keys of a run; each is three new policy files."""
SECONDS = 120 + COUNT / 20
"""After which a run is given up. It only ends what would fail anyway."""

pytestmark = pytest.mark.timeout(600 + COUNT / 10, func_only=True)


@pytest.fixture(scope="session", autouse=True)
def _naps() -> Iterator[None]:
    with short_naps():
        yield


@pytest.fixture(params=KINDS)
def broker(
    request: pytest.FixtureRequest, kafka: Any, rabbitmq: Any, aws: Any, servicebus: Any
) -> Broker[Any]:
    """Each of the four."""
    servers = {"kafka": kafka, "rabbitmq": rabbitmq, "sqs": aws, "servicebus": servicebus}
    return KINDS[request.param](servers[request.param])


class PolicyFile:
    """The one that all read. Keys are named by number; the state of each is what `write` is told."""

    def __init__(self, path: Path, destination: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path = path
        self.version = 0
        self._destination = destination
        for number in range(ROTATIONS + 1):
            secret = base64.b64encode(os.urandom(32)).decode()
            monkeypatch.setenv(f"POSTSEAL_ROTATION_{number}", secret)

    def write(self, **states: str) -> None:
        """Write it anew, in one step: ``k0="retired", k1="active"``."""
        self.version += 1
        retired = ', retired_until = "2100-01-01T00:00:00Z"'.replace('"', "")
        keys = ",\n".join(
            f'    {{ id = "{name}", state = "{state}"{retired if state == "retired" else ""}, '
            f'secret = {{ env = "POSTSEAL_ROTATION_{name[1:]}" }} }}'
            for name, state in states.items()
        )
        odd = self.version % 2
        text = f"""\
sender = "shop"

[keys.main]
provider = "given"

[signers.shop]
algorithm = "hmac-sha256"
keys = [
{keys},
]

[[policy]]
name = "orders"
version = {self.version}
destinations = ["{self._destination}"]
protection = "privacy"
keys = ["main"]
sign = "shop"
senders = ["shop"{', "web"' if odd else ""}]
data_key = {{ max_messages = {50 if odd else 70}, max_age = "{10 if odd else 5}m" }}
opening = {{ max_age = "{5 if odd else 3}m" }}
max_message_age = "14d"

[[policy]]
name = "others-{self.version}"
destinations = ["kafka:others-{self.version}"]
keys = ["main"]
"""
        new = self.path.with_suffix(".new")
        new.write_text(text, "utf-8")
        new.replace(self.path)


class Run:
    """Messages of one broker, from producers to consumers, and what is known of them.

    Args:
        broker: It.
        place: Where they go.
        path: Of the policy file.
    """

    def __init__(self, broker: Broker[Any], place: str, path: Path) -> None:
        self.broker = broker
        self.place = place
        self.keys = FakeKeys()
        self.events: list[Any] = []
        self.errors: list[BaseException] = []
        self.sent: list[list[bytes]] = [[], []]
        self.begun: list[list[bytes]] = [[], []]
        """Those that were sent, and those that are just being sealed, perhaps with a key of a moment ago."""
        self.receiving: list[Receiving] = []
        self._consumed: set[bytes] = set()
        self._seen = [0, 0]
        self.ready = threading.Barrier(5)
        """Both producers, both consumers, and who rotates."""
        self.over = threading.Event()
        self.sealers = [
            Sealer.from_file(
                path,
                keys={"main": self.keys},
                on_audit=self.events.append,
                audit_log=None,
            )
            for _ in range(4)
        ]
        self._allowed = 0
        self._gate = threading.Condition()

    @property
    def produced(self) -> int:
        return sum(map(len, self.sent))

    def consumed(self) -> set[bytes]:
        """Return what was handed on so far; asked by one thread."""
        for at, receiving in enumerate(self.receiving):
            seen, came = self._seen[at], len(receiving.bodies)
            self._consumed.update(body for body in receiving.bodies[seen:came] if body is not None)
            self._seen[at] = came
        return self._consumed

    def allow(self, count: int) -> None:
        """Let producers go on until they have sent *count* messages in all."""
        with self._gate:
            self._allowed = count
            self._gate.notify_all()

    def wait(self, done: Callable[[], bool]) -> None:
        """Wait until *done*, or somebody has failed."""
        end = time.monotonic() + SECONDS
        while not done():
            assert not self.errors, self.errors
            assert time.monotonic() < end, f"{self.produced} sent, {len(self.consumed())} consumed of {COUNT}"
            time.sleep(0.01 + COUNT / 1e6)

    def produce(self, number: int, line: Line) -> None:
        """Send half of the messages, as far as is allowed."""
        mine = range(number, COUNT, 2)
        with sending(self.broker, line, self.sealers[number], self.place) as send:
            self.ready.wait(60)
            for at in range(0, len(mine), BATCH):
                with self._gate:
                    self._gate.wait_for(
                        lambda: self.produced < self._allowed or self.over.is_set(), timeout=SECONDS
                    )
                if self.over.is_set():
                    return
                bodies = [b"order %06d" % each for each in mine[at : at + BATCH]]
                self.begun[number] += bodies
                send(bodies)
                self.sent[number] += bodies

    def consume(self, number: int, line: Line) -> None:
        """Take what comes until it is over."""
        with line.receiving(self.sealers[2 + number], self.place) as receiving:
            self.receiving.append(receiving)
            self.ready.wait(60)
            while not self.over.is_set():
                receiving.step()

    def rotate(self, file: PolicyFile) -> None:
        """Bring in one key after another, a third of the way each, while messages flow."""
        chance = random.Random(4711)
        steps = 3 * ROTATIONS + 1
        step = 0

        def reload(active: str, **states: str) -> None:
            nonlocal step
            step += 1
            self.allow((step + 1) * COUNT // steps)  # they go on while the file is read
            self.wait(lambda: self.produced >= step * COUNT // steps)
            file.write(**states)
            for sealer in chance.sample(self.sealers, 4):  # each at another moment
                sealer.reload()
                time.sleep(chance.random() * 0.02)
            for sealer in self.sealers:
                assert sealer._rules.rings["orders"].signing_key("shop").kid == active.encode()

        self.ready.wait(60)
        for number in range(ROTATIONS):
            old, new = f"k{number}", f"k{number + 1}"
            reload(old, **{old: "active", new: "pending"})
            reload(new, **{old: "retired", new: "active"})
            # The operator's rule: the old one goes when nothing that it signed lies anywhere.
            before = {body for bodies in self.begun for body in tuple(bodies)}
            self.wait(lambda before=before: before <= self.consumed())
            reload(new, **{new: "active"})
        self.allow(COUNT)

    def guarded(self, work: Callable[..., None], *arguments: Any) -> threading.Thread:
        """Do *work* in a thread, and note what it raises."""

        def run() -> None:
            try:
                work(*arguments)
            except BaseException as error:  # noqa: BLE001 - whatever it is, the test says it
                self.errors.append(error)
                self.ready.abort()

        thread = threading.Thread(target=run, name=f"rotation-{work.__name__}")
        thread.start()
        return thread


def test_keys_and_policies_are_rotated_while_messages_flow(
    broker: Broker[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A12, E1: 0 refused, 0 lost; counters exact."""
    with ExitStack() as ends:
        lines = [broker.line() for _ in range(4)]
        for line in lines:
            if (close := getattr(line, "close", None)) is not None:
                ends.callback(close)
        place = lines[0].place()
        for line in lines[1:]:
            broker.known(line, place)
        file = PolicyFile(tmp_path / "postseal.toml", f"{lines[0].scheme}:{place}", monkeypatch)
        file.write(k0="active")
        run = Run(broker, place, file.path)
        threads = [
            *(run.guarded(run.produce, number, lines[number]) for number in range(2)),
            *(run.guarded(run.consume, number, lines[2 + number]) for number in range(2)),
        ]
        try:
            run.rotate(file)
            run.wait(lambda: run.produced == COUNT)
            expected = {body for bodies in run.sent for body in bodies}
            run.wait(lambda: expected <= run.consumed())
        finally:
            run.over.set()
            run.allow(COUNT)
            for thread in threads:
                thread.join(60)
        producers, consumers = run.sealers[:2], run.sealers[2:]
        came = Counter(body for receiving in run.receiving for body in receiving.bodies)
        assert run.errors == []
        assert run.events == []  # none refused, and none told of
        assert [each for receiving in run.receiving for each in receiving.refused] == []
        assert set(came) == {b"order %06d" % number for number in range(COUNT)}  # none lost, none made up
        # What a Service Bus sender seals while the rules change is sealed anew, by the new ones.
        again = 2 * 3 * ROTATIONS if broker.name == "servicebus" else 0
        assert COUNT <= sum(sealer.auditor.sealed.total for sealer in producers) <= COUNT + again
        assert sum(sealer.auditor.passed.total for sealer in consumers) >= came.total() >= COUNT
        assert all(not sealer.auditor.counts for sealer in run.sealers)
        assert {sealer.generation for sealer in run.sealers} == {3 * ROTATIONS}
        assert file.version == 3 * ROTATIONS + 1
        for sealer in run.sealers:
            sealer.close()
