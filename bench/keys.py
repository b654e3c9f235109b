"""The key service: how often it is asked, who waits for it, and what happens when it is slow, away, dead or says no.

    python bench/keys.py [--json] [--only NAME ...]

The key service is one in this process that counts its calls, with wrapped keys as long as those of AWS KMS. Where a figure needs minutes
of time, the clocks are turned by hand: the caches run on a monotonic clock that is an argument. Each scenario is a function with its sizes
as arguments; tests/core/test_key_figures.py runs all of them with small ones.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import logging
import os
import statistics
import threading
import time
import tracemalloc
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

from postseal.core import (
    DataKeyLimits,
    KeyContext,
    KeyRefused,
    KeyUnavailable,
    NewDataKey,
    OpeningLimits,
    Policy,
    Recipient,
    Refused,
    Sealer,
)
from postseal.core.keys import KeyBroken
from postseal.core.providers.combined import CombinedKeys
from postseal.core.resilience import Limiter

HERE = "kafka:orders"
BODY = os.urandom(256)


class Service:
    """A key service. Its wrapped keys have 184 bytes, as those of AWS KMS; others than it made do not unwrap.

    Args:
        seconds: What a call takes.
        key_id: Of its one wrapping key.
    """

    def __init__(self, *, seconds: float = 0.0, key_id: bytes = b"8 bytes.") -> None:
        self.seconds = seconds
        self.calls = 0
        self.says: Exception | None = None
        """What it answers to every call."""
        self.answers = threading.Event()
        """Not set while it is a black hole: then no call returns."""
        self.answers.set()
        self._key_id = key_id
        self._keys: dict[bytes, bytes] = {}
        self._lock = threading.Lock()

    def _called(self) -> None:
        with self._lock:
            self.calls += 1
        self.answers.wait()
        if self.seconds:
            time.sleep(self.seconds)
        if self.says is not None:
            raise self.says

    def generate(self, context: KeyContext) -> NewDataKey:
        self._called()
        data_key = os.urandom(32)
        return NewDataKey(data_key, self.wrap(data_key, context))

    def wrap(self, data_key: bytes, context: KeyContext) -> tuple[Recipient, ...]:
        wrapped = os.urandom(184)
        self._keys[wrapped] = data_key
        return (Recipient(-65537, self._key_id, wrapped),)

    def unwrap(self, recipients: Any, context: KeyContext) -> bytes:
        self._called()
        for recipient in recipients:
            if recipient.key_id == self._key_id and recipient.wrapped_key in self._keys:
                return self._keys[recipient.wrapped_key]
        raise KeyBroken("the wrapped key was changed")


class Clock:
    """A monotonic clock that is turned by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def sealer_of(
    keys: Any, *, monotonic: Callable[[], float] = time.monotonic, opening: Any = None, **limits: Any
) -> Sealer:
    policy = Policy(
        name="orders",
        destinations=[HERE],
        keys=["main"],
        data_key=DataKeyLimits(**limits),
        opening=opening or OpeningLimits(),
    )
    return Sealer(
        sender="billing-api",
        policies=[policy],
        keys={"main": keys},
        monotonic=monotonic,
        audit_log=None,
        alarm=None,
    )


def let_land() -> None:
    """Wait for what was asked ahead of time: where a clock is turned by hand, a real thread must not come late."""
    if threading.active_count() > 1:
        for thread in threading.enumerate():
            if thread.name == "postseal-data-key":
                thread.join()


def at_once(*works: Callable[[], Any]) -> None:
    """Do each in a thread of its own; all begin together."""
    barrier = threading.Barrier(len(works))

    def run(work: Callable[[], Any]) -> None:
        barrier.wait()
        work()

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


# -- how often it is asked -----------------------------------------------------------------------------------------------


def messages_per_call(
    messages: int = 1_000_000, producers: int = 4, consumers: int = 4, life: float = 300.0
) -> dict[str, Any]:
    """Seal and open so many messages, each consumer reading of each producer; within one life of the data keys."""
    service = Service()
    sends = [sealer_of(service, max_age=life) for _ in range(producers)]
    reads = [sealer_of(service, opening=OpeningLimits(max_age=life)) for _ in range(consumers)]
    each, batch = messages // producers, 500
    began = time.monotonic()

    def produce(number: int) -> None:
        seal = sends[number].seal
        for turn in range(each // batch):
            envelopes = [seal(BODY, destination=HERE) for _ in range(batch)]
            open_ = reads[(turn + number) % consumers].open
            for envelope in envelopes:
                open_(envelope, destination=HERE)

    at_once(*(lambda number=number: produce(number) for number in range(producers)))
    done = each // batch * batch * producers
    return {
        "messages_per_call": done // service.calls,
        "calls": service.calls,
        "took_s": round(time.monotonic() - began, 1),
    }


def herd_calls(threads: int = 64, tasks: int = 1000, seconds: float = 0.05) -> dict[str, int]:
    """Count the calls of many that ask at once, with nothing cached and with a data key that has just ended."""
    found: dict[str, int] = {}
    for verb in ("seal", "open"):
        for when in ("cold", "expired"):
            for kind in ("threads", "tasks"):
                service, clock = Service(seconds=seconds), Clock()
                sealer = sealer_of(service, monotonic=clock)
                envelope = sealer.seal(BODY, destination=HERE)
                if when == "cold" and verb == "seal":
                    sealer.close()
                elif when == "expired":
                    sealer.open(envelope, destination=HERE)
                    clock.now += 600
                before = service.calls
                if kind == "threads":
                    work = (
                        (lambda sealer=sealer: sealer.seal(BODY, destination=HERE))
                        if verb == "seal"
                        else (
                            lambda sealer=sealer, envelope=envelope: sealer.open(envelope, destination=HERE)
                        )
                    )
                    at_once(*[work] * threads)
                else:
                    asyncio.run(_herd(sealer, verb, envelope, tasks))
                found[f"{verb}_{when}_{kind}"] = service.calls - before
    return found


async def _herd(sealer: Sealer, verb: str, envelope: bytes, tasks: int) -> None:
    if verb == "seal":
        await asyncio.gather(*(sealer.aseal(BODY, destination=HERE) for _ in range(tasks)))
    else:
        await asyncio.gather(*(sealer.aopen(envelope, destination=HERE) for _ in range(tasks)))


# -- who waits -----------------------------------------------------------------------------------------------------------


def expiry(
    rounds: int = 11, rate: float = 2000.0, seconds: float = 4.0, call: float = 0.2, life: float = 2.0
) -> dict[str, Any]:
    """Seal at a steady rate, in turn across expiries of the data key and without any. A message's time counts from when it was due.

    At each expiry one message starts the thread that asks for the next key, and one is the first under that: of 4,000 messages of a life
    these two are no 0.1 %, and the 400 that would wait for a call are 10 %.
    """

    def latencies(max_age: float) -> list[float]:
        sealer = sealer_of(Service(seconds=call), max_age=max_age)
        sealer.seal(BODY, destination=HERE)
        found, began = [], time.perf_counter()
        for number in range(int(rate * seconds)):
            due = began + number / rate
            if (wait := due - time.perf_counter()) > 0:
                time.sleep(wait)
            sealer.seal(BODY, destination=HERE)
            found.append(time.perf_counter() - due)
        return found

    def p999(found: list[float]) -> float:
        return sorted(found)[int(len(found) * 0.999) - 1]

    across, without, slow = [], [], 0
    for _ in range(rounds):
        found = latencies(life)
        across.append(p999(found))
        slow += sum(latency > call / 2 for latency in found)
        without.append(p999(latencies(3600.0)))
    return {
        "expiry_p999_ratio": round(statistics.median(across) / statistics.median(without), 2),
        "p999_ms": [round(statistics.median(found) * 1e3, 2) for found in (across, without)],
        "messages_that_waited": slow,
    }


def rotation(messages: int = 200_000, each: int = 100_000, rounds: int = 11) -> dict[str, Any]:
    """Compare the messages that a second of the processor seals, with a new data key for each so many and with one for all."""

    def seconds(most: int) -> float:
        sealer = sealer_of(Service(), max_messages=most, max_bytes=2**38)
        seal = sealer.seal
        seal(BODY, destination=HERE)
        began = time.process_time()
        for _ in range(messages):
            seal(BODY, destination=HERE)
        return time.process_time() - began

    seconds(each)
    gc.collect()
    ratios = []
    for turn in range(rounds):
        if turn % 2:
            rotating = seconds(each)
            ratios.append(seconds(2**28) / rotating)
        else:
            never = seconds(2**28)
            ratios.append(never / seconds(each))
    return {"rotation_ratio": round(statistics.median(ratios), 3)}


# -- away, dead, or says no ----------------------------------------------------------------------------------------------


def outage(
    minutes: float = 10.0,
    rate: float = 10.0,
    max_stale: float = 3600.0,
    silent: tuple[bool, ...] = (True, False),
) -> dict[str, Any]:
    """Seal and open at a steady rate while the service is away for so long: once it answers nothing, once it says that it is overloaded."""
    lost = failures = messages = 0
    for hangs in silent:
        service, clock = Service(), Clock()
        sealer = sealer_of(
            service, monotonic=clock, max_stale=max_stale, opening=OpeningLimits(max_stale=max_stale)
        )
        away_from, away_to = 1000.0 + 330, 1000.0 + 330 + minutes * 60
        while clock.now < away_to + 660:
            clock.now += 1 / rate
            is_away = away_from <= clock.now < away_to
            service.says = KeyUnavailable("overloaded") if is_away and not hangs else None
            if is_away and hangs:
                service.answers.clear()
            elif not service.answers.is_set():
                service.answers.set()
            messages += 1
            body = str(messages).encode()
            try:
                lost += sealer.open(sealer.seal(body, destination=HERE), destination=HERE).body != body
            except (KeyUnavailable, Refused):
                failures += 1
            if service.answers.is_set():
                let_land()
        sealer.close()
    return {"failures": failures, "lost": lost, "messages": messages}


def disabled(phases: int = 24, rate: float = 5.0) -> dict[str, Any]:
    """Disable the key at many moments of a data key's life; return how long after that the last message opened, at worst."""
    window, worst = OpeningLimits().max_age, 0.0
    for phase in range(phases):
        service, clock = Service(), Clock()
        sealer = sealer_of(service, monotonic=clock)
        envelope = sealer.seal(BODY, destination=HERE)
        at, last = clock.now + 2 * window * phase / phases, 0.0
        while clock.now < at + window + 30:
            clock.now += 1 / rate
            service.says = KeyRefused("disabled") if clock.now >= at else None
            try:
                sealer.open(envelope, destination=HERE)
                last = clock.now
            except Refused:
                pass
            let_land()
        worst = max(worst, last - at)
    return {"last_open_s": round(worst, 2), "window_s": window}


def one_dead(messages: int = 200, hedge: float = 0.05, call: float = 0.005) -> dict[str, Any]:
    """Open messages, each with its own data key, with two key services alive and with the first one a black hole."""
    services = Service(seconds=call, key_id=b"first..."), Service(seconds=call, key_id=b"second..")
    producer = sealer_of(CombinedKeys(services), max_messages=1)
    envelopes = [producer.seal(BODY, destination=HERE) for _ in range(messages)]
    times: list[list[float]] = []
    opened = 0
    for dead in (False, True):
        if dead:
            services[0].answers.clear()
        consumer, found = sealer_of(CombinedKeys(services, hedge=hedge)), []
        for envelope in envelopes:
            began = time.perf_counter()
            opened += dead and consumer.open(envelope, destination=HERE).body == BODY
            if not dead:
                consumer.open(envelope, destination=HERE)
            found.append(time.perf_counter() - began)
        times.append(sorted(found))
    services[0].answers.set()
    added = [dead - alive for alive, dead in zip(*times, strict=True)]
    return {
        "opened": opened / messages,
        "added_ms_median": round(statistics.median(added) * 1e3, 1),
        "hedge_ms": hedge * 1e3,
    }


# -- floods --------------------------------------------------------------------------------------------------------------


def forged(messages: int = 100_000, rate: float = 1000.0, good_share: int = 100) -> dict[str, Any]:
    """Open messages with forged wrapped keys, each another; then the same with one in so many an honest one, of a new data key."""
    service, clock = Service(), Clock()
    consumer = sealer_of(service, monotonic=clock)
    real = sealer_of(service).seal(BODY, destination=HERE)
    outcomes: Counter[str] = Counter()

    def come(envelope: bytes) -> None:
        clock.now += 1 / rate
        try:
            consumer.open(envelope, destination=HERE)
            outcomes["opened"] += 1
        except (Refused, KeyUnavailable) as error:
            outcomes[type(error).__name__] += 1

    began, before, memory = clock.now, service.calls, []
    tracemalloc.start()
    for number in range(messages):
        come(real[:-16] + os.urandom(16))
        if number in (messages // 2, messages - 1):
            memory.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.reset_peak()
    tracemalloc.stop()
    seconds, calls = clock.now - began, service.calls - before
    began, opened_before = clock.now, outcomes["opened"]
    while outcomes["opened"] == opened_before and clock.now < began + 600:
        for _ in range(good_share - 1):
            come(real[:-16] + os.urandom(16))
        come(real)
    return {
        "calls_a_second": round(calls / seconds, 2),
        "memory_grown_bytes": memory[1] - memory[0],
        "refused": outcomes["Refused"],
        "kept": outcomes["KeyUnavailable"],
        "honest_opened_after_s": round(clock.now - began, 2),
    }


def limiter(backlog: int = 5000, calls: int = 400, per: float = 10.0) -> dict[str, Any]:
    """Let a backlog of calls through a limiter, against a service that throttles beyond the quota in any such time."""
    clock, counted, throttled = Clock(), deque[float](), 0

    def pause(_: Any, seconds: float) -> None:
        clock.now += seconds

    limit, began = Limiter(calls, per=per, max_wait=3600.0, clock=clock, pause=pause), clock.now
    for _ in range(backlog):
        limit.begin("backlog")
        while counted and counted[0] <= clock.now - per:
            counted.popleft()
        throttled += len(counted) >= calls
        counted.append(clock.now)
        limit.end()
    optimal = (backlog - 1) // calls * per
    return {"throttled": throttled, "drain_ratio": round((clock.now - began) / optimal, 3)}


FIGURES: dict[str, Callable[[], dict[str, Any]]] = {
    "messages_per_call": messages_per_call,
    "herd_calls": herd_calls,
    "expiry": expiry,
    "rotation": rotation,
    "outage": outage,
    "disabled": disabled,
    "one_dead": one_dead,
    "forged": forged,
    "limiter": limiter,
}
"""By the name of its row; each is told of in bench/README.md."""


def flat(found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Put the figures that were promised at the top, by the names that they were promised under."""
    top: dict[str, Any] = {}
    if "messages_per_call" in found:
        top["messages_per_call"] = found["messages_per_call"]["messages_per_call"]
    if "herd_calls" in found:
        top["herd_calls"] = max(found["herd_calls"].values())
    if "expiry" in found:
        top["expiry_p999_ratio"] = found["expiry"]["expiry_p999_ratio"]
    if "rotation" in found:
        top["rotation_ratio"] = found["rotation"]["rotation_ratio"]
    return {**top, "details": found}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--only", nargs="*", choices=FIGURES, help="leave the others out")
    options = parser.parse_args()
    logging.disable()
    found = {name: FIGURES[name]() for name in options.only or FIGURES}
    if options.json:
        print(json.dumps(flat(found), indent=2))
        return
    for name, figures in found.items():
        print(f"{name:20} " + ", ".join(f"{what} {value}" for what, value in figures.items()))


if __name__ == "__main__":
    main()
