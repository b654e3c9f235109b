"""One cell of the matrix: a producer, a consumer beside it, forgers, and the account at the end."""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from integration.faults.brokers import Broker
from integration.proxy import HttpProxy
from integration.scan import scan
from integration.servers import AwsEmulator
from postseal.core import (
    AuditEvent,
    AwsKms,
    DataKeyLimits,
    KeyProvider,
    KeyRefused,
    KeyUnavailable,
    Policy,
    Sealer,
)
from tests.contract import Raw, Receiving, flipped

COUNT = int(os.environ.get("POSTSEAL_FAULT_MESSAGES", "60"))
"""Messages of a case."""
SCALE = max(1, COUNT // 2000)
"""By how much a long run is longer where a case goes by numbers of messages: a key service answers a few hundred calls a second."""
BATCH = 10
"""Messages that are sent at once while something is broken."""
PER_KEY = BATCH * SCALE
"""Messages of a data key, where a row does not say otherwise."""


@dataclass
class KeyService:
    """A KMS behind a proxy, with one key.

    Args:
        aws: Where it is.
        proxy: Before it.
    """

    aws: AwsEmulator
    proxy: HttpProxy

    def __post_init__(self) -> None:
        self.kms = self.aws.kms()
        self.arn: str = self.kms.create_key()["KeyMetadata"]["Arn"]

    def provider(self, patience: float) -> AwsKms:
        """Make a provider that waits so many seconds for an answer, and asks once."""
        return AwsKms(client_at(f"http://{self.proxy.address}", self.arn, patience), self.arn)


def client_at(address: str, arn: str, patience: float = 5) -> Any:
    """Make a client of the KMS at *address*, for the key *arn*."""
    config = Config(retries={"total_max_attempts": 1}, connect_timeout=patience, read_timeout=patience)
    return boto3.client(
        "kms",
        endpoint_url=address,
        region_name=arn.split(":")[3],
        aws_access_key_id="postseal",
        aws_secret_access_key="postseal",
        config=config,
    )


class Case:
    """A producer and a consumer of one place, each with a sealer of its own, and what became of each message.

    Args:
        broker: Where the place is.
        keys: The key service.
        count: Messages in all.
        address: Of a proxy before the broker.
        policy: Options of the policy.
        dead_letters: Have the broker itself move what is refused, and not our quarantine.

    Attributes:
        sealing: Options of the producer's sealer.
        opening: Options of the consumer's.
        providers: Of both; the key service alone unless a fault adds to it.
        file: A policy file that the sealers are made of; without it, they are made of `policy`.
        doubtful: Bodies that the broker may have more than once: sent again after an error, or in the hands of a consumer that ended.
        redelivered: Bodies of which the broker itself said that it delivers them again, where its messages say so.
        handled: What was handed on, in that order.
        events: What the consumer's audit was told.
    """

    def __init__(
        self,
        broker: Broker[Any],
        keys: KeyService,
        *,
        count: int,
        address: str | None = None,
        policy: Mapping[str, Any] | None = None,
        dead_letters: bool = False,
        patience: float = 5,
    ) -> None:
        self.broker, self.keys, self.count = broker, keys, count
        self.line = broker.line(address)
        self.bare = self.line if address is None else broker.line()
        if dead_letters:
            self.place, self.refused = self.bare.place_with_dead_letters()
        else:
            self.place, self.refused = self.bare.place(), self.bare.place()
        if address is not None:
            broker.known(self.line, self.place)
        self.providers: dict[str, KeyProvider] = {"main": keys.provider(patience)}
        scheme = self.line.scheme
        away: dict[str, Any] = {"on_refused": "quarantine", "quarantine": f"{scheme}:{self.refused}"}
        if dead_letters:
            away = {
                "on_refused": "dead-letter",
                **({"quarantine": away["quarantine"]} if scheme == "kafka" else {}),
            }
        self._policy = {
            "name": "orders",
            "destinations": [f"{scheme}:{self.place}"],
            # Many data keys: the service is asked while it is broken, too.
            "data_key": DataKeyLimits(max_messages=PER_KEY),
            **away,
            **(policy or {}),
        }
        self.file: Path | None = None
        self.sealing: dict[str, Any] = {}
        self.opening: dict[str, Any] = {}
        # Nobody else's: bare clients of other tests leave well-known card numbers at the same broker.
        self._canary = uuid.uuid4().hex
        self._bodies = [self._body(number) for number in range(count)]
        self._next = 0
        self._waiting: list[bytes] = []
        self._producer: Sealer | None = None
        self._consumer: Sealer | None = None
        self._thread: threading.Thread | None = None
        self._over = threading.Event()
        self._failure: BaseException | None = None
        self.confirmed: set[bytes] = set()
        self.doubtful: set[bytes] = set()
        self.handled: list[bytes | None] = []
        self.redelivered: set[bytes | None] = set()
        self.forged: list[Raw] = []
        self.events: list[AuditEvent] = []

    def next_body(self) -> bytes:
        """Take the next message out of the producer's hands: the fault brings it to the broker itself."""
        body = self._bodies[self._next]
        self._next += 1
        self.confirmed.add(body)
        return body

    def _body(self, number: object) -> bytes:
        return f'{{"order": "{number}", "card": "{self._canary}"}}'.encode()

    # -- sealers ---------------------------------------------------------------------------------------------------

    def sealer(self, **options: Any) -> Sealer:
        """Make a sealer with caches of its own, as another process would have."""
        if self.file is not None:
            return Sealer.from_file(self.file, keys=self.providers, **options)
        return Sealer(sender="shop", policies=[self.policy], keys=self.providers, **options)

    @property
    def producer(self) -> Sealer:
        """The producer's sealer."""
        if self._producer is None:
            self._producer = self.sealer(**self.sealing)
        return self._producer

    @property
    def policy(self) -> Policy:
        """What both sealers keep to."""
        return Policy(**{"keys": list(self.providers), **self._policy})

    @property
    def sealers(self) -> list[Sealer]:
        """Those of producer and consumer that are at work."""
        return [sealer for sealer in (self.producer, self._consumer) if sealer is not None]

    def restart(self) -> None:
        """Have both begin again with empty caches, the consumer in a moment."""
        self._producer, self._consumer = None, None

    # -- the producer ----------------------------------------------------------------------------------------------

    def produce(self, count: int) -> None:
        """Send the next so many, and what was not confirmed so far: each batch is tried once."""
        self._produce(count, BATCH)

    def _produce(self, count: int, batch: int) -> None:
        due = [*self._waiting, *self._bodies[self._next : self._next + count]]
        self._next += count
        self._waiting = []
        for at in range(0, len(due), batch):
            self._send(due[at : at + batch])

    def produce_rest(self, seconds: float) -> None:
        """Send all that is left, until all is confirmed."""
        end = time.monotonic() + seconds
        batch = self.broker.most_at_once(BATCH * SCALE)
        self._produce(self.count - self._next, batch)
        while self._waiting:
            assert time.monotonic() < end, f"{len(self._waiting)} messages could not be sent"
            time.sleep(0.2)
            self._produce(0, batch)

    def _send(self, bodies: list[bytes]) -> None:
        confirmed: list[bytes] = []
        try:
            confirmed = self.broker.send(self.line, self.producer, self.place, bodies)
        except (KeyUnavailable, KeyRefused, *self.broker.errors):
            pass
        self.confirmed.update(confirmed)
        missing = [body for body in bodies if body not in confirmed]
        # Some of them may have come through all the same, and will be sent again.
        self.doubtful.update(missing)
        self._waiting += missing

    def copy(self, sealed: bytes) -> None:
        """Put a message to the broker itself, as whoever kept a copy can."""
        self.bare.put(self.place, Raw(self.bare.body(sealed)))

    def forge(self) -> None:
        """Put clear text, and an altered message, among the others: what nobody may ever handle."""
        body = self._body("forged")
        sealed = self.producer.seal(body, destination=f"{self.line.scheme}:{self.place}")
        altered = flipped(self.bare, Raw(self.bare.body(sealed)))
        self.inject(Raw(b'{"order": "injected"}'), altered)

    def inject(self, *messages: Raw) -> None:
        """Put messages to be refused."""
        self.forged += messages
        self.bare.put(self.place, *messages)

    # -- the consumer ----------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to consume, in a thread, which begins again whenever the broker's client gives up."""
        self._thread = threading.Thread(target=self._consume, name="consumer", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the consumer.

        Raises:
            BaseException: What ended it before.
        """
        self._over.set()
        if self._thread is not None:
            self._thread.join()
        if self._failure is not None:
            raise self._failure

    def may_come_twice(self) -> None:
        """Say that the broker may deliver again what it has."""
        self.doubtful.update(self._bodies)

    def _consume(self) -> None:
        try:
            while not self._over.is_set():
                sealer = self._consumer = self.sealer(on_audit=self.events.append, **self.opening)
                with suppress(*self.broker.errors), self.line.receiving(sealer, self.place) as receiving:
                    receiving.bodies, receiving.redelivered = self.handled, self.redelivered
                    self._until_changed(receiving, sealer)
                if not self._over.is_set() and self._consumer is sealer:
                    # What was in its hands comes again.
                    self.doubtful.update(body for body in self.handled if body is not None)
                    time.sleep(0.2)
        except BaseException as error:  # noqa: BLE001 (raised by who stops it)
            self._failure = error

    def _until_changed(self, receiving: Receiving, sealer: Sealer) -> None:
        while not self._over.is_set() and self._consumer is sealer:
            receiving.step()

    # -- the account -----------------------------------------------------------------------------------------------

    @property
    def unsent(self) -> int:
        """How many were tried and not confirmed."""
        return len(self._waiting)

    @property
    def missing(self) -> set[bytes]:
        """What the broker confirmed and nobody handled."""
        return self.confirmed - set(self.handled)

    def wait(self, done: Callable[[], bool], what: str, seconds: float) -> None:
        """Wait until *done*. The time only ends what would fail anyway."""
        end = time.monotonic() + seconds
        while not done():
            assert self._failure is None, self._failure
            assert time.monotonic() < end, f"{what}: {len(self.missing)} of {self.count} missing"
            time.sleep(0.05)

    def wait_for_refused(self, count: int) -> None:
        """Wait until so many messages were refused besides the forged ones."""
        self.wait(lambda: len(self.events) >= len(self.forged) + count, "what is refused", 120)

    def redrive(self, seconds: float) -> None:
        """Put back what was refused, as an operator does who has mended the cause: forged messages, too."""
        end = time.monotonic() + seconds
        missing = len(self.missing)
        assert missing, "nothing was refused, so nothing is to be redriven"
        while missing:
            assert time.monotonic() < end, f"{missing} are neither handled nor kept"
            time.sleep(1)
            before, missing = missing, len(self.missing)
            if missing == before:  # the rest has come through
                with suppress(AssertionError):
                    kept = self.broker.kept(self.bare, self.refused, missing + len(self.forged))
                    self.bare.put(self.place, *kept)
                    return

    def check(self) -> None:
        """Nothing lost, nothing unverified handled, nothing in clear on the disk, nothing twice that the broker did not deliver twice."""
        assert self.confirmed == set(self._bodies)
        assert self.missing == set()
        assert set(self.handled) <= set(self._bodies)
        assert len(self.events) >= len(self.forged)
        twice = {body for body, times in Counter(self.handled).items() if times > 1}
        assert twice <= self.doubtful | self.redelivered
        files = self.broker.files(self.place, self.refused)
        assert files or self.broker.server.data_dir is None
        for file in files:
            assert scan(self._canary.encode(), Path(file)) == []
