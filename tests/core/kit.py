"""What the tests of the core share: a clock, keys, policies and pairs of sealers that understand each other."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from postseal.core import (
    AuditEvent,
    Ed25519Key,
    Es256Key,
    HmacKey,
    KeyContext,
    KeyRing,
    NewDataKey,
    Policy,
    Recipient,
    Sealer,
    UnsafeLocalKeys,
    UnsafeLocalKeysWarning,
)
from postseal.core.accelerator import SWITCH, native

HERE = "kafka:orders"
SENDER = "billing-api"
SECRET = bytes(range(32))
ED25519 = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
P256 = ec.derive_private_key(12345, ec.SECP256R1())
NOW = 1_790_847_015_123
FORMS = (
    "confidentiality",
    "privacy-hmac",
    "privacy-ed25519",
    "privacy-es256",
    "integrity-hmac",
    "integrity-es256",
)


class Clock:
    """A clock that stands still until it is told to go on; for both kinds of time."""

    def __init__(self, ms: int = NOW) -> None:
        self.ms = ms

    def __call__(self) -> int:
        """Nanoseconds since the epoch."""
        return self.ms * 1_000_000

    def seconds(self) -> float:
        """Seconds, for caches and key rings."""
        return self.ms / 1000


def local_keys(keys: dict[str, bytes] | None = None, **options: Any) -> UnsafeLocalKeys:
    """Make wrapping keys, without their warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnsafeLocalKeysWarning)
        return UnsafeLocalKeys(keys or {"main-1": bytes(32)}, **options)


class CountedKeys:
    """Wrapping keys that count what is asked of them."""

    def __init__(self, inner: Any = None) -> None:
        self.inner = inner or local_keys()
        self.generated = 0
        self.unwrapped = 0
        self.fail: BaseException | None = None

    def generate(self, context: KeyContext) -> NewDataKey:
        """Count and pass on."""
        self.generated += 1
        self._fail()
        return self.inner.generate(context)

    def wrap(self, data_key: bytes, context: KeyContext) -> tuple[Recipient, ...]:
        """Pass on."""
        self._fail()
        return self.inner.wrap(data_key, context)

    def unwrap(self, recipients: Sequence[Recipient], context: KeyContext) -> bytes:
        """Count and pass on."""
        self.unwrapped += 1
        self._fail()
        return self.inner.unwrap(recipients, context)

    def _fail(self) -> None:
        if self.fail is not None:
            raise self.fail


def ring(kind: str = "hmac", **options: Any) -> KeyRing:
    """Make a ring of one key that signs and verifies."""
    options.setdefault("senders", [SENDER])
    if kind == "hmac":
        return KeyRing([HmacKey("hmac-1", SECRET, **options)])
    if kind == "ed25519":
        return KeyRing([Ed25519Key("ed-1", private_key=ED25519, **options)])
    return KeyRing([Es256Key("es-1", private_key=P256, **options)])


def policy(form: str = "confidentiality", **options: Any) -> Policy:
    """Make a policy for `HERE` of one of `FORMS`."""
    protection, _, kind = form.partition("-")
    base: dict[str, Any] = {"name": "orders", "destinations": [HERE], "protection": protection}
    if protection != "integrity":
        base["keys"] = ["main"]
    if kind:
        base |= {"sign": kind, "senders": [SENDER, "shop-web"]}
    return Policy(**base | options)


class Party:
    """A sealer, with its clock and what it told of."""

    def __init__(
        self,
        policies: Policy | Iterable[Policy],
        *,
        sender: str = SENDER,
        keys: Any = None,
        rings: Any = None,
        clock: Clock | None = None,
        **options: Any,
    ) -> None:
        self.clock = clock or Clock()
        self.events: list[AuditEvent] = []
        self.policies = [policies] if isinstance(policies, Policy) else list(policies)
        self.keys = keys or CountedKeys()
        options.setdefault("on_audit", self.events.append)
        self.sealer = Sealer(
            sender=sender,
            policies=self.policies,
            keys={"main": self.keys},
            signers=rings or {kind: ring(kind) for kind in ("hmac", "ed25519", "es256")},
            clock=self.clock,
            monotonic=self.clock.seconds,
            **options,
        )
        self.seal = self.sealer.seal
        self.open = self.sealer.open


def party(form: str = "confidentiality", **options: Any) -> Party:
    """Make a sealer for one form."""
    return Party(policy(form, **options))


@contextmanager
def chosen(way: str) -> Iterator[None]:
    """Choose how what is made inside seals and opens: *compiled* or *python*."""
    with mock.patch.dict(os.environ, {SWITCH: "1" if way == "compiled" else "0"}):
        native.cache_clear()
        try:
            yield
        finally:
            native.cache_clear()


def is_compiled() -> bool:
    """Tell whether the accelerator is here and wanted."""
    return native() is not None


def wire_view(envelope: bytes) -> bytes:
    """Return what of *envelope* is authenticated whatever keys are kept: in confidentiality all but the recipients."""
    from postseal.core.wire import decode

    parsed = decode(envelope)
    if parsed.outer is not None or not parsed.recipients_bytes:
        return envelope
    return envelope[: len(envelope) - len(parsed.recipients_bytes)]
