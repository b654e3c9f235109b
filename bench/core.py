"""Measure sealing and opening, side by side with bare AES-GCM and with the AWS Encryption SDK.

Every figure is a ratio of two things measured in turn in one run; the median of several rounds is given. Run ``make bench``,
or ``python bench/core.py --json`` for machines.

"Raw" is ``AESGCM(key).encrypt(os.urandom(12), body, aad)`` and ``.decrypt(...)`` with the cipher object kept and as much additional data
as ours has. The AWS Encryption SDK runs with its caching materials manager, a local raw AES key, its committing suite without signature,
and an encryption context of what is the same for all of these messages: sender, destination, policy and its version.

The garbage collector runs, as it does where messages are sent.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import logging
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from postseal.core import (
    HmacKey,
    KeyContext,
    KeyRing,
    MemoryReferences,
    NewDataKey,
    Policy,
    Recipient,
    Sealer,
)
from postseal.core.accelerator import native
from postseal.core.context import byte_string
from postseal.core.wire import decode

SIZES = (100, 1024, 16384, 262144)
CONFIDENTIAL, PRIVATE = "kafka:orders", "kafka:payments"


class LikeKms:
    """A key provider whose wrapped keys have the size of AWS KMS's, 184 bytes, and that counts its calls."""

    def __init__(self, delay: float = 0.0) -> None:
        self.keys: dict[bytes, bytes] = {}
        self.calls = 0
        self.delay = delay
        self._lock = threading.Lock()

    def _call(self) -> None:
        with self._lock:
            self.calls += 1
        time.sleep(self.delay)

    def generate(self, context: KeyContext) -> NewDataKey:
        self._call()
        key = os.urandom(32)
        return NewDataKey(key, self.wrap(key, context))

    def wrap(self, data_key: bytes, context: KeyContext) -> tuple[Recipient, ...]:
        wrapped = os.urandom(184)
        self.keys[wrapped] = data_key
        return (Recipient(-65537, b"8 bytes.", wrapped),)

    def unwrap(self, recipients: Any, context: KeyContext) -> bytes:
        self._call()
        return self.keys[recipients[0].wrapped_key]


def make_sealer(provider: Any, *, references: Any = None) -> Sealer:
    options: dict[str, Any] = {"key_by_reference": references is not None}
    policies = [
        Policy(name="orders", destinations=(CONFIDENTIAL,), keys=("main",), **options),
        Policy(
            name="payments",
            destinations=(PRIVATE,),
            protection="privacy",
            keys=("main",),
            sign="billing",
            senders=("billing-api",),
            **options,
        ),
    ]
    ring = KeyRing([HmacKey("2026-10", os.urandom(32))])
    return Sealer(
        sender="billing-api",
        policies=policies,
        keys={"main": provider},
        signers={"billing": ring},
        references=references,
    )


def additional_data_like(envelope: bytes) -> bytes:
    """Make random bytes, as many as AES-GCM authenticates beside the body of *envelope*: its Enc_structure."""
    return os.urandom(len(b"\x83\x67Encrypt" + byte_string(decode(envelope).protected) + byte_string(b"")))


def seconds_for(call: Callable[[], Any], count: int) -> float:
    start = time.thread_time()  # of the processor: what else runs on the machine does not count
    for _ in range(count):
        call()
    return (time.thread_time() - start) / count


def side_by_side(calls: dict[str, tuple[Callable[[], Any], int]], rounds: int) -> dict[str, list[float]]:
    """Time each of *calls* (and how often) in turn, *rounds* times; return the seconds of each round."""
    found: dict[str, list[float]] = {name: [] for name in calls}
    for call, _ in calls.values():
        call()
    gc.collect()
    for _ in range(rounds):
        for name, (call, count) in calls.items():
            found[name].append(seconds_for(call, count))
    return found


def ratio(found: dict[str, list[float]], name: str, base: str) -> float:
    return statistics.median(a / b for a, b in zip(found[name], found[base], strict=True))


def esdk() -> tuple[Callable[[bytes], bytes], Callable[[bytes], bytes]]:
    """Make the AWS Encryption SDK's encrypt and decrypt."""
    warnings.simplefilter("ignore")
    import aws_encryption_sdk as sdk
    from aws_encryption_sdk.identifiers import (
        Algorithm,
        CommitmentPolicy,
        EncryptionKeyType,
        WrappingAlgorithm,
    )
    from aws_encryption_sdk.internal.crypto.wrapping_keys import WrappingKey
    from aws_encryption_sdk.key_providers.raw import RawMasterKeyProvider

    class Local(RawMasterKeyProvider):
        provider_id = "bench"
        _keys: dict[bytes, bytes] = {}  # noqa: RUF012 - the SDK makes the object itself

        def _get_raw_key(self, key_id: bytes) -> WrappingKey:
            key = self._keys.setdefault(key_id, os.urandom(32))
            return WrappingKey(
                wrapping_algorithm=WrappingAlgorithm.AES_256_GCM_IV12_TAG16_NO_PADDING,
                wrapping_key=key,
                wrapping_key_type=EncryptionKeyType.SYMMETRIC,
            )

    provider = Local()
    provider.add_master_key("bench")
    client = sdk.EncryptionSDKClient(commitment_policy=CommitmentPolicy.REQUIRE_ENCRYPT_REQUIRE_DECRYPT)
    materials = sdk.CachingCryptoMaterialsManager(
        master_key_provider=provider,
        cache=sdk.LocalCryptoMaterialsCache(100),
        max_age=600.0,
        max_messages_encrypted=2**20,
    )
    # What ours binds, but for time and message id: where those differ, the SDK's cache finds nothing and each message costs a new key.
    bound = {"sender": "billing-api", "destination": CONFIDENTIAL, "policy": "orders", "policy-version": "0"}
    suite = Algorithm.AES_256_GCM_HKDF_SHA512_COMMIT_KEY

    def encrypt(body: bytes) -> bytes:
        return client.encrypt(
            source=body,
            materials_manager=materials,
            algorithm=suite,
            encryption_context=bound,
        )[0]

    def decrypt(sealed: bytes) -> bytes:
        return client.decrypt(source=sealed, materials_manager=materials)[0]

    return encrypt, decrypt


def measure_speed(rounds: int, scale: float, *, with_esdk: bool) -> dict[str, Any]:
    sealer = make_sealer(LikeKms())
    cipher, aad = AESGCM(os.urandom(32)), additional_data_like(sealer.seal(b"", destination=CONFIDENTIAL))
    encrypt, decrypt = esdk() if with_esdk else (None, None)
    out: dict[str, Any] = {
        "seal": {},
        "open": {},
        "privacy_hmac": {"seal": {}, "open": {}},
        "raw_us": {},
    }
    for size in SIZES:
        body, nonce = os.urandom(size), os.urandom(12)
        raw = cipher.encrypt(nonce, body, aad)
        plain = sealer.seal(body, destination=CONFIDENTIAL)
        private = sealer.seal(body, destination=PRIVATE)
        count = int((3000 if size < 100_000 else 300) * scale)
        calls: dict[str, tuple[Callable[[], Any], int]] = {
            "raw_seal": (lambda: cipher.encrypt(os.urandom(12), body, aad), count),  # noqa: B023 - used in this turn
            "seal": (lambda: sealer.seal(body, destination=CONFIDENTIAL), count),  # noqa: B023
            "private_seal": (lambda: sealer.seal(body, destination=PRIVATE), count),  # noqa: B023
            "raw_open": (lambda: cipher.decrypt(nonce, raw, aad), count),  # noqa: B023
            "open": (lambda: sealer.open(plain, destination=CONFIDENTIAL), count),  # noqa: B023
            "private_open": (lambda: sealer.open(private, destination=PRIVATE), count),  # noqa: B023
        }
        if encrypt and decrypt:
            theirs = encrypt(body)
            few = max(int(100 * scale), 5)
            calls["esdk_seal"] = (lambda: encrypt(body), few)  # noqa: B023
            calls["esdk_open"] = (lambda: decrypt(theirs), few)  # noqa: B023
        found = side_by_side(calls, rounds)
        out["raw_us"][str(size)] = {
            "seal": round(statistics.median(found["raw_seal"]) * 1e6, 2),
            "open": round(statistics.median(found["raw_open"]) * 1e6, 2),
        }
        for verb in ("seal", "open"):
            row = {"vs_raw": round(ratio(found, verb, f"raw_{verb}"), 2)}
            if encrypt:
                row["vs_esdk"] = round(ratio(found, f"esdk_{verb}", verb), 1)
            out[verb][str(size)] = row
            out["privacy_hmac"][verb][str(size)] = {
                "vs_raw": round(ratio(found, f"private_{verb}", f"raw_{verb}"), 2)
            }
    return out


def measure_overhead() -> dict[str, int]:
    sealer, body = make_sealer(LikeKms()), bytes(100)
    return {
        "confidentiality": len(sealer.seal(body, destination=CONFIDENTIAL)) - 100,
        "confidentiality_with_content_type": len(
            sealer.seal(body, destination=CONFIDENTIAL, content_type="application/json")
        )
        - 100,
        "privacy_hmac": len(sealer.seal(body, destination=PRIVATE)) - 100,
        **measure_references(body),
    }


def measure_references(body: bytes) -> dict[str, int]:
    """Measure what is added where data keys travel by reference, once their records are published."""
    sealer = make_sealer(LikeKms(), references=MemoryReferences())
    added = {}
    for name, destination in (("confidentiality", CONFIDENTIAL), ("privacy_hmac", PRIVATE)):
        sealer.seal(body, destination=destination)
        for thread in threading.enumerate():
            if thread.name == "postseal-references":
                thread.join()
        added[f"{name}_by_reference"] = len(sealer.seal(body, destination=destination)) - len(body)
    return added


def measure_calls() -> dict[str, int]:
    """Count key-service calls of a cold cache under a herd: sealing, then opening what was sealed."""
    provider = LikeKms(delay=0.05)
    sealer = make_sealer(provider)
    sealed: list[bytes] = []

    def herd(work: Callable[[], Any]) -> int:
        before, barrier = provider.calls, threading.Barrier(64)

        def run() -> None:
            barrier.wait()
            work()

        threads = [threading.Thread(target=run) for _ in range(64)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return provider.calls - before

    sealing = herd(lambda: sealed.append(sealer.seal(b"x", destination=CONFIDENTIAL)))
    opening = herd(lambda: sealer.open(sealed[0], destination=CONFIDENTIAL))

    async def tasks() -> tuple[int, int]:
        provider = LikeKms(delay=0.05)
        sealer = make_sealer(provider)
        envelopes = await asyncio.gather(*(sealer.aseal(b"x", destination=CONFIDENTIAL) for _ in range(1000)))
        after_sealing = provider.calls
        await asyncio.gather(*(sealer.aopen(e, destination=CONFIDENTIAL) for e in envelopes))
        return after_sealing, provider.calls - after_sealing

    seal_tasks, open_tasks = asyncio.run(tasks())
    return {
        "cold_64_threads": max(sealing, opening),
        "cold_1000_tasks": max(seal_tasks, open_tasks),
    }


IMPORTS = {
    "aesgcm": "from cryptography.hazmat.primitives.ciphers.aead import AESGCM",
    "postseal": "import postseal.core",
}
TIMED = "import time; start = time.perf_counter(); {}; print(time.perf_counter() - start)"
LOADED = "import sys, postseal.core; print(*sys.modules)"


def measure_import(rounds: int) -> dict[str, Any]:
    """Compare importing postseal.core with importing AESGCM alone, each in a new interpreter, with byte code that is already compiled."""
    with tempfile.TemporaryDirectory() as compiled:
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        environment["PYTHONPYCACHEPREFIX"] = compiled

        def run(code: str) -> str:
            command = [sys.executable, "-c", code]
            return subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout

        loaded = run(LOADED).split()
        found: dict[str, list[float]] = {name: [] for name in IMPORTS}
        for _ in range(rounds):
            for name, code in IMPORTS.items():
                found[name].append(float(run(TIMED.format(code))))
    return {
        "vs_aesgcm": round(ratio(found, "postseal", "aesgcm"), 2),
        "milliseconds": round(min(found["postseal"]) * 1e3, 1),
        "clients_loaded": sorted({"boto3", "botocore", "confluent_kafka"} & set(loaded)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--scale", type=float, default=1.0, help="calls in each round, as a multiple")
    parser.add_argument("--without-esdk", action="store_true", help="leave the AWS Encryption SDK out")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    result = measure_speed(options.rounds, options.scale, with_esdk=not options.without_esdk)
    result["python"] = f"{platform.python_implementation()} {platform.python_version()}, {sys.executable}"
    result["overhead_bytes"] = measure_overhead()
    result["kms_calls"] = measure_calls()
    result["import"] = measure_import(max(options.rounds, 11))
    if options.json:
        print(json.dumps({"accelerator": native() is not None, **result}, indent=2))
        return
    for verb in ("seal", "open"):
        for size, row in result[verb].items():
            private = result["privacy_hmac"][verb][size]["vs_raw"]
            against = f", {row['vs_esdk']:6.1f} times the AWS Encryption SDK" if "vs_esdk" in row else ""
            print(
                f"{verb} {int(size):7,} B: {row['vs_raw']:5.2f} x raw{against}; privacy with HMAC {private:5.2f} x raw"
            )
    for name in ("overhead_bytes", "kms_calls", "import", "python"):
        print(f"{name}: {result[name]}")


if __name__ == "__main__":
    main()
