"""What a key service will be asked, and what that costs: for each way of having data keys, from rates and limits.

Messages are taken to come evenly, and every consumer to read a part of every destination, which is the dearest case. The calls of real
sealers are counted against these numbers in tests/core/test_planning.py.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Final, NamedTuple

from postseal.core.datakeys import DataKeyLimits, OpeningLimits
from postseal.core.direct import BOUND_SIZE
from postseal.core.errors import ConfigError, nearest
from postseal.core.keys import KeyContext, NewDataKey, Recipient
from postseal.core.policy import Policy
from postseal.core.sealer import Sealer
from postseal.core.values import Value

__all__ = [
    "MODES",
    "MONTH",
    "SERVICES",
    "Load",
    "Mode",
    "Service",
    "advice",
    "messages_of_a_key",
    "plan",
    "service_of",
    "with_rate",
]

MODES: Final = ("direct", "per-message", "cached", "branch")
MONTH: Final = 30 * 86400
"""Seconds."""
DATA_KEY: Final = 32
_EASY: Final = 0.1
"""Share of the quota that one system may take without asking the others."""
_CHEAP: Final = 10.0
"""US dollars a month."""


class Service(NamedTuple):
    """A key service: what it takes for a call, and how many it answers.

    Attributes:
        name: As people say it.
        price: US dollars for 10,000 calls.
        quota: Calls a second, by default, for all who share it.
        wraps_locally: Whether data keys are wrapped with a public key, so that sealing calls nobody.
        wrapped: Bytes of a wrapped data key.
        key_id: Bytes of what names its wrapping key.
        most: Bytes that the service itself encrypts; of the body, 33 fewer (SPEC.md 3.7).
        shared: Who shares the quota.
        source: Where price and quota are from.
        seen: When they were looked up: year and month.
    """

    name: str
    price: float
    quota: float
    wraps_locally: bool
    wrapped: int
    key_id: int
    most: int
    shared: str
    source: str
    seen: str


SERVICES: Final[Mapping[str, Service]] = {
    "aws-kms": Service(
        "AWS KMS, symmetric key",
        price=0.03,
        quota=10_000,
        wraps_locally=False,
        wrapped=184,
        key_id=8,
        most=4096,
        shared="account and region",
        source="aws.amazon.com/kms/pricing; AWS KMS Developer Guide, Request quotas (20,000 or 100,000 in large regions)",
        seen="2026-12",
    ),
    "azure-key-vault": Service(
        "Azure Key Vault, RSA-2048 software key",
        price=0.03,
        quota=400,
        wraps_locally=True,
        wrapped=256,
        key_id=24,
        most=190,
        shared="vault and region",
        source="azure.microsoft.com/pricing/details/key-vault; Azure Key Vault service limits (4,000 in 10 s; HSM keys 2,000)",
        seen="2026-12",
    ),
}
"""Prices and quotas differ by region and change: look them up again before you decide."""


class Load(Value):
    """What there is to protect.

    Args:
        rate: Messages a second, of all producers.
        size: Bytes of a body.
        producers: Processes that seal.
        consumers: Processes that open.
        destinations: Queues and topics; each has data keys of its own.
        retention: Seconds for which brokers keep messages.
        data_key: When a data key ends.
        opening: How long an unwrapped one opens.
        branches: Branch keys: 1, or as many as there are tenants.
        branch_age: Seconds for which a branch key is used before the service is asked again.
        backlog: Seconds of messages that consumers find after a restart of all.
        catch_up: How many times as fast as *rate* they read them.

    Raises:
        ConfigError: A number is out of its range.
    """

    __slots__ = (
        "backlog",
        "branch_age",
        "branches",
        "catch_up",
        "consumers",
        "data_key",
        "destinations",
        "opening",
        "producers",
        "rate",
        "retention",
        "size",
    )

    rate: float
    size: int
    producers: int
    consumers: int
    destinations: int
    retention: float
    data_key: DataKeyLimits
    opening: OpeningLimits
    branches: int
    branch_age: float
    backlog: float
    catch_up: float

    def __init__(
        self,
        *,
        rate: float = 1000.0,
        size: int = 1024,
        producers: int = 10,
        consumers: int = 10,
        destinations: int = 1,
        retention: float = 4 * 86400.0,
        data_key: DataKeyLimits = DataKeyLimits(),  # noqa: B008 - frozen
        opening: OpeningLimits = OpeningLimits(),  # noqa: B008 - frozen
        branches: int = 1,
        branch_age: float = 3600.0,
        backlog: float = 6 * 3600.0,
        catch_up: float = 10.0,
    ) -> None:
        self._set(
            rate=rate,
            size=size,
            producers=producers,
            consumers=consumers,
            destinations=destinations,
            retention=retention,
            data_key=data_key,
            opening=opening,
            branches=branches,
            branch_age=branch_age,
            backlog=backlog,
            catch_up=catch_up,
        )
        for name, most in (
            ("rate", 1e9),
            ("producers", 10**6),
            ("consumers", 10**6),
            ("destinations", 10**6),
            ("branches", 10**6),
            ("branch_age", 30 * 86400),
            ("catch_up", 10**6),
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= most:
                raise ConfigError(f"{name} must be over 0 and at most {most:,.0f}: {value!r}")
        for name in ("size", "retention", "backlog"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 2**31:
                raise ConfigError(f"{name} must be 0 to {2**31:,}: {value!r}")


class Mode(NamedTuple):
    """What one way of having data keys comes to.

    Attributes:
        name: One of `MODES`.
        sealing: Calls a second.
        opening: Calls a second.
        restart: Calls after all consumers were restarted, until they have caught up.
        restart_peak: Calls a second meanwhile, if the service answers as many.
        restart_seconds: How long the service's quota makes that take, at least.
        share: Of the quota, in steady work.
        cost: US dollars a month.
        added: Bytes added to a message.
        added_month: Bytes added to all messages of a month.
        added_kept: Bytes added to what brokers keep.
        messages_per_call: Messages sealed and opened for each call.
        remarks: What to know of it.
    """

    name: str
    sealing: float
    opening: float
    restart: float
    restart_peak: float
    restart_seconds: float
    share: float
    cost: float
    added: int
    added_month: float
    added_kept: float
    messages_per_call: float
    remarks: tuple[str, ...]

    @property
    def calls(self) -> float:
        """Calls a second."""
        return self.sealing + self.opening


def plan(load: Load, service: Service) -> tuple[Mode, ...]:
    """Work out all modes for *load* on *service*."""
    return tuple(_MODES[name](load, service) for name in MODES)


def advice(load: Load, service: Service) -> str:
    """Say in a sentence which mode to take."""
    _, each, cached, branch = plan(load, service)
    if each.share <= _EASY and each.cost < _CHEAP:
        return f"per-message is affordable here ({_money(each.cost)} a month); cached costs {_money(cached.cost)}"
    saved = (
        f"cached costs {_money(cached.cost)} a month where a key for each message costs {_money(each.cost)}"
    )
    if cached.share <= _EASY and cached.restart_peak <= service.quota:
        return f"{saved}: take cached"
    why = (
        f"it takes {cached.share:.0%} of the quota"
        if cached.share > _EASY
        else f"a restart of all consumers asks {cached.restart_peak:,.0f} times a second"
    )
    live = load.producers * load.destinations
    other = "raise opening.max_keys" if live > load.opening.max_keys else "make data keys last longer"
    return f"{saved}, but {why}: take branch keys ({_money(branch.cost)}), or {other}"


def _money(dollars: float) -> str:
    return f"${dollars:,.2f}" if dollars < 100 else f"${dollars:,.0f}"  # noqa: PLR2004 - cents matter below


def with_rate(load: Load, rate: float) -> Load:
    """Return *load* at another rate."""
    return load.replace(rate=rate)


def service_of(name: str, *, price: float | None = None, quota: float | None = None) -> Service:
    """Return the service of that name, with a price and a quota of the caller's own where they are given.

    Raises:
        ConfigError: There is none, or a number is out of its range.
    """
    if name not in SERVICES:
        raise ConfigError(f"there is no key service {name!r}{nearest(name, SERVICES)}")
    service = SERVICES[name]
    for what, value in (("price", price), ("quota", quota)):
        if value is not None and not 0 <= value < math.inf:
            raise ConfigError(f"{what} must be 0 or more: {value!r}")
    if quota == 0:
        raise ConfigError("a quota of 0 answers nobody")
    if price is not None or quota is not None:
        own = "given by you"
        service = service._replace(
            price=service.price if price is None else price,
            quota=service.quota if quota is None else quota,
            source=own if price is not None and quota is not None else f"{own}; {service.source}",
        )
    return service


# -- how often ---------------------------------------------------------------------------------------------------------


def messages_of_a_key(load: Load) -> int:
    """Return how many messages a data key seals: of one producer, to one destination, until the first of its limits."""
    limits = load.data_key
    rate = load.rate / (load.producers * load.destinations)
    counted = max(load.size, limits.max_bytes // limits.max_messages, 1)
    of_age = max(1, math.ceil(limits.max_age * rate - 1e-9))
    return int(max(1, min(limits.max_messages, limits.max_bytes // counted, of_age)))


def _unwraps_of_a_key(load: Load, messages: int) -> float:
    """Return how often the data key of so many *messages* is unwrapped, by all consumers."""
    consumers = load.consumers
    if messages <= consumers:
        return messages  # each by another one
    rate = load.rate / (load.producers * load.destinations)
    each = messages / consumers
    if load.producers * load.destinations > load.opening.max_keys:
        return messages  # each pushes out the one that is needed next
    served = max(1, math.ceil(load.opening.max_age * rate / consumers - 1e-9))
    return consumers * math.ceil(each / served)


def _direct(load: Load, service: Service) -> Mode:
    most = service.most - BOUND_SIZE
    remarks = []
    if load.size > most:
        remarks.append(
            f"cannot be: the service encrypts {service.most:,} bytes at most, {BOUND_SIZE} of them not the body's"
        )
    if service.wraps_locally:
        remarks.append("needs a signature: anybody can encrypt with a public key")
    # A symmetric ciphertext of the service is so much longer than what is in it; RSA's is as long as its key.
    plain = min(load.size, most)
    encrypted = service.wrapped if service.wraps_locally else service.wrapped - DATA_KEY + BOUND_SIZE + plain
    return _mode(
        "direct",
        load,
        service,
        sealing=0.0 if service.wraps_locally else load.rate,
        opening=load.rate,
        restart=load.rate * load.backlog,
        added=direct_bytes(encrypted, service.key_id) - plain,
        remarks=remarks,
    )


def _per_message(load: Load, service: Service) -> Mode:
    return _mode(
        "per-message",
        load,
        service,
        sealing=0.0 if service.wraps_locally else load.rate,
        opening=load.rate,
        restart=load.rate * load.backlog,
        added=added_bytes(service.wrapped, service.key_id),
    )


def _cached(load: Load, service: Service) -> Mode:
    messages = messages_of_a_key(load)
    keys = load.rate / messages
    live, kept = load.producers * load.destinations, load.opening.max_keys
    too_many = f"{live:,} data keys are in use at a time, and consumers keep {kept:,}: raise opening.max_keys"
    return _mode(
        "cached",
        load,
        service,
        sealing=0.0 if service.wraps_locally else keys,
        opening=keys * _unwraps_of_a_key(load, messages),
        # Each consumer meets each data key of the backlog once.
        restart=load.backlog * keys * min(load.consumers, messages),
        added=added_bytes(service.wrapped, service.key_id),
        remarks=[too_many] if live > kept else [],
    )


def _branch(load: Load, service: Service) -> Mode:
    processes = load.producers + load.consumers
    return _mode(
        "branch",
        load,
        service,
        sealing=load.producers * load.branches / load.branch_age,
        opening=load.consumers * load.branches / load.branch_age,
        restart=load.consumers * load.branches,
        added=added_bytes(_BRANCH_WRAPPED, _BRANCH_ID),
        remarks=[
            f"{processes:,} processes ask once in {load.branch_age:,.0f} s for each branch key; it needs a store"
        ],
    )


_BRANCH_WRAPPED: Final = 60
"""Nonce, data key and tag. Source: SPEC.md 6.3."""
_BRANCH_ID: Final = 12
_MODES: Final = {"direct": _direct, "per-message": _per_message, "cached": _cached, "branch": _branch}


def _mode(
    name: str,
    load: Load,
    service: Service,
    *,
    sealing: float,
    opening: float,
    restart: float,
    added: int,
    remarks: Sequence[str] = (),
) -> Mode:
    calls = sealing + opening
    # Read so many times as fast as they came, while new ones come.
    catching_up = load.backlog / max(load.catch_up - 1, 1e-9) if load.backlog else 0.0
    peak = restart / catching_up + calls if catching_up else calls
    left = service.quota - calls
    notes = list(remarks)
    if calls > service.quota:
        notes.append(f"{calls / service.quota:,.1f} times what the service answers")
    elif peak > service.quota:
        notes.append("a restart of all consumers is throttled")
    return Mode(
        name=name,
        sealing=sealing,
        opening=opening,
        restart=restart,
        restart_peak=peak,
        restart_seconds=max(restart / left, 0.0) if left > 0 else math.inf,
        share=calls / service.quota,
        cost=calls * MONTH * service.price / 10_000,
        added=added,
        added_month=added * load.rate * MONTH,
        added_kept=added * load.rate * load.retention,
        messages_per_call=2 * load.rate / calls if calls else math.inf,
        remarks=tuple(notes),
    )


class _Sized:
    """A provider whose wrapped keys have a size."""

    def __init__(self, wrapped: int, key_id: int) -> None:
        self._recipient = Recipient(-65537, bytes(key_id), bytes(wrapped))

    def generate(self, context: KeyContext) -> NewDataKey:  # noqa: ARG002 - as the protocol has it
        """Make a data key that protects nothing."""
        return NewDataKey(bytes(DATA_KEY), (self._recipient,))

    def wrap(self, data_key: bytes, context: KeyContext) -> tuple[Recipient, ...]:  # noqa: ARG002
        """Wrap nothing."""
        return (self._recipient,)

    def unwrap(self, recipients: Sequence[Recipient], context: KeyContext) -> bytes:  # noqa: ARG002
        """Unwrap nothing."""
        return bytes(DATA_KEY)

    @property
    def most_direct(self) -> int:
        """As much as is asked."""
        return 2**16

    @property
    def anybody_encrypts(self) -> bool:
        """No."""
        return False

    def encrypt(self, plaintext: bytes, context: KeyContext) -> Recipient:  # noqa: ARG002
        """Encrypt nothing."""
        return self._recipient

    def decrypt(self, recipient: Recipient, context: KeyContext) -> bytes:  # noqa: ARG002
        """Decrypt nothing."""
        return b""


@cache
def direct_bytes(encrypted: int, key_id: int) -> int:
    """Return the size of an envelope around so many *encrypted* bytes, in confidentiality: measured on one."""
    policy = Policy(name="orders", destinations=["kafka:orders"], keys=["main"], direct=True)
    keys = {"main": _Sized(encrypted, key_id)}
    sealer = Sealer(sender="billing-api", policies=[policy], keys=keys, alarm=None)
    return len(sealer.seal(b"", destination="kafka:orders"))


@cache
def added_bytes(wrapped: int, key_id: int) -> int:
    """Return what an envelope adds to 1 KiB, with one wrapped key and key id of so many bytes, in confidentiality: measured on one."""
    policy = Policy(name="orders", destinations=["kafka:orders"], keys=["main"])
    keys = {"main": _Sized(wrapped, key_id)}
    sealer = Sealer(sender="billing-api", policies=[policy], keys=keys, alarm=None)
    return len(sealer.seal(bytes(1024), destination="kafka:orders")) - 1024
