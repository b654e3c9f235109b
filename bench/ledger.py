"""What a ledger costs: bytes an id in memory, and microseconds that it adds to opening and to settling.

python bench/ledger.py [--json] [--ids 200000]
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import tempfile
import time
import tracemalloc
import warnings
from pathlib import Path

from postseal.core import MemoryLedger, Policy, Sealer, SqliteLedger, UnsafeLocalKeys

MESSAGES = 4000
HERE = "kafka:orders"


def bytes_an_id(ids: int) -> float:
    """Measure all that a ledger takes while it fills, at its worst."""
    worst = 0.0
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    ledger = MemoryLedger(max_ids=ids)
    for count in range(1, ids + 1):
        ledger.settle([(os.urandom(16), bytes(16), 86400)])
        if count >= 1000 and count % 1000 == 0:
            now, _ = tracemalloc.get_traced_memory()
            worst = max(worst, (now - before) / count)
    tracemalloc.stop()
    return worst


def microseconds(keys: UnsafeLocalKeys, envelopes: list[bytes], ledger: object) -> tuple[float, float]:
    """Open and settle each, one by one."""
    policy = Policy(name="orders", destinations=[HERE], keys=["main"])
    sealer = Sealer(sender="shop", policies=[policy], keys={"main": keys}, ledger=ledger)  # type: ignore[arg-type]
    sealer.open(envelopes[0], destination=HERE)
    began = time.perf_counter()
    opened = [sealer.open(envelope, destination=HERE) for envelope in envelopes[1:]]
    opening = time.perf_counter() - began
    began = time.perf_counter()
    for one in opened:
        sealer.settled(one)
    settling = time.perf_counter() - began
    return opening / len(opened) * 1e6, settling / len(opened) * 1e6


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--ids", type=int, default=200_000)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable()
    keys = UnsafeLocalKeys.ephemeral()
    policy = Policy(name="orders", destinations=[HERE], keys=["main"])
    producer = Sealer(sender="shop", policies=[policy], keys={"main": keys})
    envelopes = [producer.seal(os.urandom(1024), destination=HERE) for _ in range(MESSAGES)]
    figures: dict[str, float] = {"bytes_an_id": round(bytes_an_id(options.ids), 1)}
    with tempfile.TemporaryDirectory() as folder:
        store = SqliteLedger(Path(folder) / "ledger.db")
        for name, ledger in (("none", None), ("memory", MemoryLedger()), ("sqlite", store)):
            runs = [microseconds(keys, envelopes, ledger) for _ in range(1 if ledger is store else 3)]
            figures[f"open_us_{name}"] = round(min(run[0] for run in runs), 2)
            figures[f"settle_us_{name}"] = round(min(run[1] for run in runs), 2)
        store.close()
    if options.json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(f"{name:20} {value:8.2f}")


if __name__ == "__main__":
    main()
