"""How long an event loop stands still while a message is sealed, and one opened, whose key service takes 300 ms to answer.

    python bench/loop_gap.py [--json]

A ticker wakes up every millisecond; the longest time between two of its turns is the gap. What the loop itself needs to tick on this
machine is in it.
"""

import argparse
import asyncio
import itertools
import json
import statistics
import time
import warnings

from postseal.core import Policy, Sealer, UnsafeLocalKeys

ANSWER = 0.3
ROUNDS = 7
BODY = bytes(1024)
DESTINATION = "rabbitmq:/orders"


class SlowKeys:
    """A key service that takes its time, as one does that is asked over a network: the thread that asks is blocked."""

    def __init__(self, inner: UnsafeLocalKeys) -> None:
        self._inner = inner
        self.calls = 0

    def _wait(self) -> None:
        self.calls += 1
        time.sleep(ANSWER)

    def generate(self, context):
        self._wait()
        return self._inner.generate(context)

    def wrap(self, data_key, context):
        self._wait()
        return self._inner.wrap(data_key, context)

    def unwrap(self, recipients, context):
        self._wait()
        return self._inner.unwrap(recipients, context)


def measure(rounds: int = ROUNDS) -> dict:
    """Return the longest gap of the loop, in milliseconds, over sealing and opening with a cold cache; the median of *rounds*."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        keys = UnsafeLocalKeys.ephemeral()
    gaps = [asyncio.run(_round(SlowKeys(keys))) for _ in range(rounds)]
    return {"loop_gap_ms": round(statistics.median(gaps) * 1000, 2)}


async def _round(keys: SlowKeys) -> float:
    policy = Policy(name="orders", destinations=[DESTINATION], keys=["main"])
    sealing, opening = (
        Sealer(sender="shop", policies=[policy], keys={"main": keys}, on_audit=lambda _: None)
        for _ in range(2)
    )
    envelope, while_sealing = await _watched(sealing.aseal(BODY, destination=DESTINATION))
    opened, while_opening = await _watched(opening.aopen(envelope, destination=DESTINATION))
    if opened.body != BODY or keys.calls != 2:
        raise RuntimeError("the key service was not asked as it should be: the figure would mean nothing")
    return max(while_sealing, while_opening)


async def _watched(work):
    """Do *work*; return what it returns, and the loop's longest gap meanwhile."""
    ticks = [time.perf_counter()]

    async def tick():
        while True:
            await asyncio.sleep(0.001)
            ticks.append(time.perf_counter())

    ticker = asyncio.create_task(tick())
    await asyncio.sleep(0.005)
    result = await work
    await asyncio.sleep(0.005)
    ticker.cancel()
    return result, max(after - before for before, after in itertools.pairwise(ticks))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    as_json = parser.parse_args().json
    figures = measure()
    if as_json:
        print(json.dumps(figures, indent=2))
        return
    print(
        f"longest gap of the loop while a key service takes {ANSWER * 1000:.0f} ms: {figures['loop_gap_ms']} ms"
    )


if __name__ == "__main__":
    main()
