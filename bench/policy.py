"""What is not cryptography: policies looked up, caches, counts, time, decoding, with a file of 1,000 policies.

    python bench/policy.py [--json]

Privacy with HMAC, 1 KiB, the data key cached. Of sealing and of opening such a message the time of its AES-GCM and HMAC, made by hand
over bytes as long, is taken away; what is left is given as a multiple of sealing 1 KiB with raw AES-GCM. ``load_s`` is how long the file
takes to be read, and ``first_us`` how long the first message to a destination of it waits for its policy.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
import warnings
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC

from postseal.core import HmacKey, KeyRing, Sealer, UnsafeLocalKeys
from postseal.core.accelerator import native

POLICIES = 1000
CALLS = 3000
ONE = """
[[policy]]
name = "orders-{0}"
destinations = ["kafka:orders-{0}", "sqs:orders-{0}-*"]
protection = "privacy"
keys = ["main"]
sign = "billing"
senders = ["billing-api"]
"""
HEAD = 'sender = "billing-api"\n'


def sealer_of_file(folder):
    file = Path(folder, "postseal.toml")
    file.write_text(HEAD + "".join(map(ONE.format, range(POLICIES))))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        keys = UnsafeLocalKeys.ephemeral()
    begun = time.perf_counter()
    ring = KeyRing([HmacKey("2026-10", os.urandom(32))])
    sealer = Sealer.from_file(file, keys={"main": keys}, signers={"billing": ring})
    return sealer, time.perf_counter() - begun


def cost(call):
    """Return microseconds of the processor."""
    begun = time.thread_time()
    for _ in range(CALLS):
        call()
    return (time.thread_time() - begun) / CALLS * 1e6


def measure(rounds):
    with tempfile.TemporaryDirectory() as folder:
        sealer, load = sealer_of_file(folder)
    first = []
    for number in range(0, POLICIES, 50):
        begun = time.perf_counter()
        sealer.policy_for(f"sqs:orders-{number}-eu")
        first.append(time.perf_counter() - begun)
    body, destination = os.urandom(1024), f"kafka:orders-{POLICIES - 1}"
    envelope = sealer.seal(body, destination=destination)
    sealer.open(envelope, destination=destination)
    cipher, begun, aad = AESGCM(os.urandom(32)), HMAC(os.urandom(32), SHA256()), os.urandom(140)
    nonce, signed = os.urandom(12), os.urandom(len(envelope) - 50)
    raw = cipher.encrypt(nonce, body, aad)

    def mac():
        context = begun.copy()
        context.update(signed)
        return context.finalize()

    calls = {
        "raw": lambda: cipher.encrypt(os.urandom(12), body, aad),
        "raw_open": lambda: cipher.decrypt(nonce, raw, aad),
        "mac": mac,
        "seal": lambda: sealer.seal(body, destination=destination),
        "open": lambda: sealer.open(envelope, destination=destination),
    }
    for call in calls.values():
        cost(call)
    taken = [{name: cost(call) for name, call in calls.items()} for _ in range(rounds)]
    sealing = statistics.median((t["seal"] - t["raw"] - t["mac"]) / t["raw"] for t in taken)
    opening = statistics.median((t["open"] - t["raw_open"] - t["mac"]) / t["raw"] for t in taken)
    return {
        "lookup_us_vs_raw": round(max(sealing, opening), 2),
        "seal_rest_vs_raw": round(sealing, 2),
        "open_rest_vs_raw": round(opening, 2),
        "load_s": round(load, 2),
        "first_us": round(statistics.median(first) * 1e6, 1),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    figures = measure(arguments.rounds)
    if arguments.json:
        json.dump({"accelerator": native() is not None, **figures}, sys.stdout, indent=2)
        print()
        return
    for name, figure in figures.items():
        print(f"{name:20} {figure}")


if __name__ == "__main__":
    main()
