"""The rows of the matrix: what breaks, and when it is whole again."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar

import pytest

from integration.faults.brokers import OfKafka
from integration.faults.case import BATCH, PER_KEY, SCALE, Case
from integration.proxy import Answer, TcpProxy
from integration.servers.machine import REPOSITORY
from postseal.core import (
    CombinedKeys,
    DataKeyLimits,
    HmacKey,
    KeyRing,
    MemoryLedger,
    OpeningLimits,
    VaultTransit,
    Verdict,
)
from postseal.core.errors import PolicyFileError
from postseal.core.resilience import Deadline, Limited, Limiter
from tests.contract import Raw

DURING = 2 * PER_KEY
"""Messages that are tried while something is broken."""


class Fault:
    """One row. It does nothing but what a subclass says: the row of a day on which nothing breaks.

    Args:
        folder: For files of this case.
        openbao: A second key service.

    Attributes:
        own_broker: Whether it needs a broker that no other test has; and where that is Kafka, whether a proxy before it needs one.
        through_proxy: Whether clients meet the broker through a `TcpProxy`, which is given to `strike`.
        hidden: Seconds for which the broker keeps from others what a consumer has that was killed.
        patience: Seconds that a key service is given to answer.
        starts_late: Whether the consumer is away until the fault has struck.
        redrives: Whether an operator has to put back what was refused.
        most: Messages of a long run, where each of them costs calls to the key service.
    """

    own_broker: ClassVar[bool] = False
    through_proxy: ClassVar[bool] = False
    dead_letters: ClassVar[bool] = False
    hidden: ClassVar[int] = 30
    patience: ClassVar[float] = 5
    starts_late: ClassVar[bool] = False
    redrives: ClassVar[bool] = False
    most: ClassVar[int] = 1_000_000
    policy: ClassVar[Mapping[str, Any]] = {}

    def __init__(self, folder: Path, openbao: Any) -> None:
        self.folder = folder
        self.openbao = openbao
        self.proxy: TcpProxy | None = None

    def prepare(self, case: Case) -> None:
        """Before anything is sent."""

    def before(self, case: Case) -> None:
        """When a part lies at the broker, and nobody consumes."""

    def strike(self, case: Case) -> None:
        """Break it."""

    def during(self, case: Case) -> None:
        """Go on working."""
        case.produce(DURING)

    def heal(self, case: Case) -> None:
        """Mend it."""

    def after(self, case: Case) -> None:
        """See that it was what it says."""


# -- the key service ---------------------------------------------------------------------------------------------------


class _Answering(Fault):
    """Answers in the key service's place, in its words."""

    status: ClassVar[int] = 400
    error: ClassVar[str]
    every: ClassVar[int] = 1
    asked: ClassVar[tuple[str, ...]] = ("GenerateDataKey", "Decrypt")

    def answer(self, number: int, asked: str) -> Answer | None:
        if number % self.every or asked not in self.asked:
            return None
        return self.status, json.dumps({"__type": self.error, "message": ""})

    def strike(self, case: Case) -> None:
        case.keys.proxy.answer = self.answer

    def heal(self, case: Case) -> None:
        case.keys.proxy.heal()

    def after(self, case: Case) -> None:
        assert case.keys.proxy.answered


class BlackHole(Fault):
    """The key service takes requests and never answers."""

    patience = 0.5

    def strike(self, case: Case) -> None:
        case.keys.proxy.hole = True

    def during(self, case: Case) -> None:
        case.produce(DURING)
        assert case.unsent

    def heal(self, case: Case) -> None:
        case.keys.proxy.heal()


class HalfErrors(_Answering):
    """Every other request fails with a 500."""

    status, error, every = 500, "KMSInternalException", 2


class Throttled(_Answering):
    """The quota is used up."""

    error = "ThrottlingException"

    def during(self, case: Case) -> None:
        case.produce(DURING)
        assert case.unsent


class Slow(Fault):
    """Each answer takes two seconds."""

    def strike(self, case: Case) -> None:
        case.keys.proxy.delay = 2

    def heal(self, case: Case) -> None:
        case.keys.proxy.heal()


class Denied(_Answering):
    """The right to unwrap is withdrawn, and given back: what came meanwhile was refused, and is redriven."""

    error = "AccessDeniedException"
    asked = ("Decrypt",)
    redrives = True

    def heal(self, case: Case) -> None:
        case.wait_for_refused(BATCH)  # some of the others are under a data key that it has
        super().heal(case)
        case.restart()  # what was refused is remembered for half a minute


class Disabled(Fault):
    """The key is disabled, and enabled again: as `Denied`."""

    redrives = True
    starts_late = True

    def strike(self, case: Case) -> None:
        case.keys.kms.disable_key(KeyId=case.keys.arn)

    def during(self, case: Case) -> None:
        case.produce(DURING)
        assert case.unsent
        case.wait_for_refused(DURING)

    def heal(self, case: Case) -> None:
        case.keys.kms.enable_key(KeyId=case.keys.arn)
        case.restart()


class Redrive(Denied):
    """The broker's own dead letters, moved back."""

    dead_letters = True

    def prepare(self, case: Case) -> None:
        if (
            case.line.scheme == "sqs"
        ):  # hides a message for a second alone there, so that it soon comes for the third time
            case.may_come_twice()


class OneOfTwoDead(Fault):
    """Two key services, of two makers: one is dead, and every message opens through the other."""

    patience = 0.5
    starts_late = True

    def prepare(self, case: Case) -> None:
        client = self.openbao.client()
        client.secrets.transit.create_key(name := f"orders-{os.urandom(6).hex()}")
        case.providers["second"] = VaultTransit(client, name)

    def strike(self, case: Case) -> None:
        case.keys.proxy.hole = True

    def during(self, case: Case) -> None:
        case.wait(lambda: not case.missing, "with one of two key services dead", 120)
        case.produce(PER_KEY)
        assert case.unsent  # a message carries every wrap that its policy names, or is not sent

    def heal(self, case: Case) -> None:
        case.keys.proxy.heal()


class Backlog(_Answering):
    """A consumer comes back to messages under many data keys, at a key service that answers one request in two."""

    error, every = "ThrottlingException", 2
    starts_late = True
    policy: ClassVar = {"data_key": DataKeyLimits(max_messages=2 * SCALE)}

    def during(self, case: Case) -> None:
        case.wait(lambda: not case.missing, "the backlog", 120)


class Quota(_Answering):
    """A consumer comes back to a backlog under many data keys, and keeps under the quota of the service itself."""

    error = "ThrottlingException"
    starts_late = True
    policy: ClassVar = {"data_key": DataKeyLimits(max_messages=2 * SCALE)}
    per: ClassVar[float] = 1.0

    def prepare(self, case: Case) -> None:
        self._times: list[float] = []
        self.calls = case.count // 12  # many messages are to take minutes, not hours

    def before(self, case: Case) -> None:
        case.produce(DURING)  # without a limit: it is the consumer who comes back
        for thread in threading.enumerate():
            if thread.name == "postseal-data-key":
                thread.join(
                    30
                )  # what it asks ahead of time has no limit, and must not be counted with what has
        limiter = Limiter(self.calls, per=self.per)
        case.providers["main"] = Limited(case.providers["main"], limiter)
        case.restart()

    def answer(self, number: int, asked: str) -> Answer | None:
        """As the service counts: in any second."""
        now = time.monotonic()
        self._times = [one for one in self._times if now - one < self.per] + [now]
        return (self.status, json.dumps({"__type": self.error})) if len(self._times) > self.calls else None

    def during(self, case: Case) -> None:
        case.wait(lambda: not case.missing, "the backlog", 120)

    def after(self, case: Case) -> None:
        assert case.keys.proxy.answered == 0  # nothing was throttled


class OneOfTwoSilent(OneOfTwoDead):
    """As `OneOfTwoDead`, with a client that would wait for a minute: the other is asked beside it."""

    patience = 60

    def prepare(self, case: Case) -> None:
        super().prepare(case)
        first, second = case.providers["main"], case.providers.pop("second")
        case.providers["main"] = CombinedKeys([Deadline(first, 2), second], hedge=0.05)


class EvictionStorm(Fault):
    """Each message has a data key of its own, and the consumer keeps two: one call for each."""

    most = 5_000
    policy: ClassVar = {"data_key": DataKeyLimits(max_messages=1), "opening": OpeningLimits(max_keys=2)}

    def after(self, case: Case) -> None:
        asked = case.keys.proxy.asked
        assert asked["GenerateDataKey"] >= case.count
        # One for each delivery: the altered one, too.
        assert case.count <= asked["Decrypt"] <= len(case.handled) + len(case.forged)


# -- brokers and connections -------------------------------------------------------------------------------------------


class BrokerKilled(Fault):
    """The broker is killed and comes back. Where its messages lie in memory, it is only away."""

    own_broker = True

    def __init__(self, folder: Path, openbao: Any) -> None:
        super().__init__(folder, openbao)
        self._returning: threading.Thread | None = None

    def strike(self, case: Case) -> None:
        case.may_come_twice()
        self._stack = ExitStack()
        self._stack.enter_context(case.broker.killed() if self.proxy is None else self.proxy.closed())
        self._returning = threading.Thread(target=self._return)
        self._returning.start()

    def _return(self) -> None:
        time.sleep(0.5)
        self._stack.close()

    def heal(self, case: Case) -> None:
        assert self._returning is not None
        self._returning.join()


class Reset(Fault):
    """All connections are reset in the middle of publishing, twice."""

    own_broker = through_proxy = True
    hidden = 6

    def during(self, case: Case) -> None:
        case.may_come_twice()
        for _ in range(2):
            assert self.proxy is not None
            self.proxy.reset_after(3000)
            case.produce(BATCH)

    def after(self, case: Case) -> None:
        assert self.proxy is not None
        assert not self.proxy.is_armed


class _InAProcess(Fault):
    """Has another process do something."""

    def run(self, case: Case, what: str, **options: Any) -> tuple[int, list[bytes]]:
        """Run it. Return its exit code, and the bodies that it noted."""
        note = self.folder / "noted"
        note.touch()
        wanted = {
            "kind": case.broker.name,
            "variable": case.broker.server.variable,
            "address": getattr(case.broker.server, "url", case.broker.server.address),
            "hidden": case.broker.hidden,
            "place": case.place,
            "refused": case.refused,
            "kms": f"http://{case.keys.proxy.address}",
            "arn": case.keys.arn,
            "note": str(note),
            **options,
        }
        command = [sys.executable, "-W", "ignore", "-m", "integration.faults.worker", what]
        done = subprocess.run(
            command, cwd=REPOSITORY, input=json.dumps(wanted).encode(), check=False, timeout=120
        )
        return done.returncode, [line for line in note.read_bytes().split(b"\n") if line]


class KilledBeforeSettling(_InAProcess):
    """A consumer is killed when it has handled a message and not yet settled it."""

    hidden = 6
    settled: ClassVar[bool] = False

    def before(self, case: Case) -> None:
        code, bodies = self.run(case, "consume", ends_at=7, settled=self.settled)
        assert code == -9
        assert len(bodies) == 7
        case.handled += bodies
        # Offsets are committed now and then, for all that was handled; others settle one by one.
        case.doubtful.update(bodies if isinstance(case.broker, OfKafka) else bodies[-1:])


class KilledAfterSettling(KilledBeforeSettling):
    """It is killed when the message is settled."""

    settled = True


class Forked(_InAProcess):
    """A producer forks when it has sealed; both go on with one sealer."""

    def strike(self, case: Case) -> None:
        bodies = [case.next_body() for _ in range(DURING)]
        asked = case.keys.proxy.asked["GenerateDataKey"]
        code, confirmed = self.run(case, "fork", bodies=[body.decode() for body in bodies])
        assert code == 0
        assert sorted(confirmed) == sorted(bodies)
        # Of the parent's, the child has none: before the fork, and each after it.
        assert case.keys.proxy.asked["GenerateDataKey"] - asked >= 3

    def during(self, case: Case) -> None:
        """It is over."""


# -- the machine -------------------------------------------------------------------------------------------------------


class ClockJumps(Fault):
    """The consumer's clock jumps ahead by a day. No cache ends early or late by it: they run on another clock."""

    seconds: ClassVar[float] = 86400

    def prepare(self, case: Case) -> None:
        self._off = 0.0
        case.opening["clock"] = lambda: time.time_ns() + int(self._off * 1e9)

    def heal(self, case: Case) -> None:
        case.wait(lambda: not case.missing, "after the clock had jumped", 60)
        self._off = 0.0

    def strike(self, case: Case) -> None:
        """A data key that was at hand before opens after it, and is not asked for again."""
        place = f"{case.line.scheme}:{case.place}"
        first, second = case.next_body(), case.next_body()
        apart = case.sealer()  # one data key for both, and for nothing else
        sealed = [apart.seal(body, destination=place) for body in (first, second)]
        case.copy(sealed[0])
        case.wait(lambda: first in case.handled, "before the clock jumps", 60)
        asked = case.keys.proxy.asked["Decrypt"]
        self._off = self.seconds
        case.copy(sealed[1])
        case.wait(lambda: second in case.handled, "after the clock has jumped", 60)
        assert case.keys.proxy.asked["Decrypt"] == asked


class ClockJumpsBack(ClockJumps):
    """It jumps back by four minutes, within ``max_clock_skew``."""

    seconds = -240


class ClockJumpsFarBack(ClockJumps):
    """It jumps back by an hour: messages seem to come from the future, are refused, and are redriven when the clock is right again."""

    seconds = -3600
    redrives = True

    def strike(self, case: Case) -> None:
        self._off = self.seconds

    def heal(self, case: Case) -> None:
        case.wait_for_refused(DURING)
        self._off = 0.0


class AuditDiskFull(Fault):
    """The audit is required, and its disk is full: what is refused waits."""

    def prepare(self, case: Case) -> None:
        self.sink = _Disk()
        case.opening["audit"] = [self.sink]

    def strike(self, case: Case) -> None:
        self.sink.full = True
        case.forge()

    def heal(self, case: Case) -> None:
        case.wait(lambda: self.sink.failed > 0, "something to audit", 60)
        self.sink.full = False

    def after(self, case: Case) -> None:
        case.wait(lambda: len(self.sink.lines) >= len(case.forged), "what was refused is written down", 60)


class _Disk:
    """A required sink on a disk that fills."""

    limit = None
    required = True

    def __init__(self) -> None:
        self.full = False
        self.failed = 0
        self.lines: list[Mapping[str, Any]] = []

    def write(self, lines: Sequence[Mapping[str, Any]]) -> None:
        if self.full:
            self.failed += 1
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.lines += lines

    def close(self) -> None:
        """Nothing is open."""


class LedgerLost(Fault):
    """The ledger is lost, and the consumer begins again with an empty one: copies of what was settled pass once more."""

    policy: ClassVar = {"on_duplicate": "settle"}

    def prepare(self, case: Case) -> None:
        case.sealing["ledger"] = case.opening["ledger"] = MemoryLedger()

    def strike(self, case: Case) -> None:
        body = case.next_body()
        sealed = case.producer.seal(body, destination=f"{case.line.scheme}:{case.place}")
        case.doubtful.add(body)
        # Until it was settled, a copy is a redelivery, and is handed on; from then on it is settled unseen.
        self._copy_until(case, sealed, lambda: Verdict.DUPLICATE in [event.verdict for event in case.events])
        case.opening["ledger"] = MemoryLedger()
        case.restart()
        handled = case.handled.count(body)
        # With the ledger that it had, no copy would be handed on ever again.
        self._copy_until(case, sealed, lambda: case.handled.count(body) > handled)

    @staticmethod
    def _copy_until(case: Case, sealed: bytes, so: Callable[[], bool]) -> None:
        end = time.monotonic() + 60
        while not so():
            assert time.monotonic() < end, "no copy came to what it should"
            case.copy(sealed)
            time.sleep(0.5)


# -- what people do ----------------------------------------------------------------------------------------------------


class Rotation(Fault):
    """Wrapping key, data key and signing key change in the middle of a batch."""

    policy: ClassVar = {
        "protection": "privacy",
        "sign": "shop",
        "senders": ["shop"],
        "data_key": DataKeyLimits(max_messages=3 * SCALE),
    }

    def prepare(self, case: Case) -> None:
        self._old, self._new = os.urandom(32), os.urandom(32)
        self._rings = [KeyRing([HmacKey("old", self._old)]) for _ in range(2)]
        case.sealing["signers"], case.opening["signers"] = ({"shop": ring} for ring in self._rings)

    def strike(self, case: Case) -> None:
        producer, consumer = self._rings
        case.keys.kms.rotate_key_on_demand(KeyId=case.keys.arn)
        consumer.replace([HmacKey("old", self._old), HmacKey("new", self._new, state="pending")])
        self._turn = threading.Thread(
            target=lambda: producer.replace(
                [HmacKey("new", self._new), HmacKey("old", self._old, state="retired")]
            )
        )
        case.keys.proxy.delay = 0.05  # long enough for a batch that the change comes in its middle
        threading.Timer(0.1, self._turn.start).start()

    def heal(self, case: Case) -> None:
        case.keys.proxy.heal()
        self._turn.join()

    def after(self, case: Case) -> None:
        assert self._rings[0].signing_key("shop").id == "new"


class PolicyReload(Fault):
    """The policy file changes in the middle of a batch, and is read again by both while they work; then it has a mistake."""

    def prepare(self, case: Case) -> None:
        case.file = self.folder / "postseal.toml"
        self._write(case, version=1, data_key=f"max_messages = {PER_KEY}", opening="max_keys = 1024")
        assert [policy.version for sealer in case.sealers for policy in sealer.policies] == [1]

    def _write(self, case: Case, *, version: int, data_key: str, opening: str, more: str = "") -> None:
        policy = case.policy
        assert case.file is not None
        case.file.write_text(
            f"""sender = "shop"
{more}
[keys.main]
provider = "given"
[[policy]]
name = "orders"
version = {version}
destinations = {json.dumps(list(policy.destinations))}
keys = ["main"]
on_refused = "quarantine"
quarantine = {json.dumps(policy.quarantine)}
data_key = {{ {data_key} }}
opening = {{ {opening} }}
"""
        )

    def strike(self, case: Case) -> None:
        assert len(case.sealers) == 2
        self._write(case, version=2, data_key=f"max_messages = {3 * SCALE}", opening="max_keys = 2")
        self._turn = threading.Timer(0.1, lambda: [sealer.reload() for sealer in case.sealers])
        case.keys.proxy.delay = 0.05  # as for `Rotation`
        self._turn.start()

    def heal(self, case: Case) -> None:
        self._turn.join()
        case.keys.proxy.heal()
        self._write(
            case, version=3, data_key=f"max_messages = {3 * SCALE}", opening="max_keys = 2", more="sendr = 1"
        )
        for sealer in case.sealers:
            with pytest.raises(PolicyFileError, match="sendr"):
                sealer.reload()

    def after(self, case: Case) -> None:
        versions = [policy.version for sealer in case.sealers for policy in sealer.policies]
        assert versions == [2, 2]  # the mistake left in force what was before it


class HeaderDropped(Fault):
    """A bridge drops headers: what lost one that is bound is refused; of any other, nobody minds."""

    policy: ClassVar = {"bind_headers": ["tenant"]}

    def strike(self, case: Case) -> None:
        tenant = b"north" if isinstance(case.broker, OfKafka) else "north"
        for keeps in ({"tenant": "north"}, {}):
            for _ in range(5):
                body = case.next_body() if keeps else b'{"order": "without its tenant"}'
                sealed = case.producer.seal(
                    body,
                    destination=f"{case.line.scheme}:{case.place}",
                    headers={"tenant": tenant, "trace": "x"},
                )
                raw = Raw(case.bare.body(sealed), keeps)
                if keeps:
                    case.bare.put(case.place, raw)
                else:
                    case.inject(raw)


def _all_below(kind: type[Fault]) -> Iterator[type[Fault]]:
    for each in kind.__subclasses__():
        if not each.__name__.startswith("_"):
            yield each
        yield from _all_below(each)


FAULTS = sorted(_all_below(Fault), key=lambda kind: kind.__name__)
