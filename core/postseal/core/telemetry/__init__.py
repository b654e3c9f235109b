"""OpenTelemetry: what a sealer counts as metrics, its calls to key services as a histogram and spans. Needs the extra ``otel``.

It uses the API package alone; where its numbers go is configured in the SDK, as for anything else::

    from postseal.core import Sealer
    from postseal.core.telemetry import Telemetry

    sealer = Sealer(..., telemetry=Telemetry())

Metrics are read from the sealer's own counts when they are collected, so they cost a message nothing. Source: docs/audit.md.
"""

from __future__ import annotations

import time
import weakref
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from postseal.core.counting import TalliesByMode
from postseal.core.datakeys import CacheCounts
from postseal.core.errors import KeyBroken, KeyRefused, KeyUnavailable, MissingExtraError, NotMine, Refused
from postseal.core.keys import KeyContext, KeyProvider, NewDataKey, PublicKeys, Recipient
from postseal.core.resilience import measures
from postseal.core.sealer import Sealer

try:
    from opentelemetry import metrics, trace
    from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation
    from opentelemetry.trace import Span, SpanKind, StatusCode, TracerProvider
except ImportError as missing:
    raise MissingExtraError.naming("otel", __name__, missing) from None

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["METRICS", "Telemetry"]

_SYSTEMS: Final = {"sqs": "aws_sqs", "sns": "aws.sns"}
"""``messaging.system`` where it is not the scheme. Source: OpenTelemetry, semantic conventions for messaging."""

METRICS: Final = {
    "postseal.sealed.messages": ("counter", "{message}", "Messages sealed."),
    "postseal.unsealed.messages": (
        "counter",
        "{message}",
        "Messages that went out as they were, because the mode seals nothing.",
    ),
    "postseal.opened.messages": ("counter", "{message}", "Messages opened or verified."),
    "postseal.audit.events": (
        "counter",
        "{message}",
        "Messages refused, and those handed on that were told of, by verdict, mode and outcome.",
    ),
    "postseal.audit.lost": ("counter", "{line}", "Audit lines that never reached their sink."),
    "postseal.alarm": ("gauge", "", "1 while the alarm of refused messages is raised."),
    "postseal.signing_key.calls": (
        "counter",
        "{call}",
        "Calls to key services for keys that sign there, by operation.",
    ),
    "postseal.data_keys": ("gauge", "{key}", "Data keys held, by cache and state: fresh, stale, ended."),
    "postseal.data_key.requests": (
        "counter",
        "{message}",
        "Messages that asked a cache for a data key, by result: hit, miss, negative, rationed.",
    ),
    "postseal.data_key.calls": (
        "counter",
        "{call}",
        "Calls to key services for data keys, by outcome: key, failed.",
    ),
    "postseal.data_key.ahead": (
        "counter",
        "{call}",
        "Times that a key service was asked ahead of time, with no message waiting.",
    ),
    "postseal.data_key.stale": (
        "counter",
        "{time}",
        "Times that a data key went on past its age for 2 seconds, its key service being away.",
    ),
    "postseal.data_key.in_flight": ("gauge", "{call}", "Calls to key services for data keys under way."),
    "postseal.key_service.duration": ("histogram", "s", "Calls to key services."),
    "postseal.key_service.retries": ("counter", "{call}", "Further tries of calls that had no answer."),
    "postseal.key_service.timeouts": ("counter", "{call}", "Calls that were ended at their deadline."),
    "postseal.key_service.hedges": ("counter", "{call}", "Key services asked beside one that was silent."),
    "postseal.key_service.not_asked": (
        "counter",
        "{call}",
        "Calls that were not made, by reason: breaker, limit, budget.",
    ),
    "postseal.key_service.breaker": ("gauge", "", "1 while the breaker of an operation is open."),
    "postseal.key_service.waiting": ("gauge", "{call}", "Calls that wait for their turn under a quota."),
}
"""Each metric with its kind, its unit and its description."""

_OF_WHAT: Final = {
    "postseal.key_service.retries": "",
    "postseal.key_service.timeouts": "",
    "postseal.key_service.hedges": "",
    "postseal.key_service.not_asked": "postseal.reason",
    "postseal.key_service.breaker": "postseal.operation",
    "postseal.key_service.waiting": "",
}
"""What resilience tells of, by key, and which attribute says what it is of. Source: docs/resilience.md."""

_Counts = Mapping[tuple[tuple[str, str], ...], int]
_Numbers = Callable[[Sealer], _Counts]


class Telemetry:
    """Has a sealer measured: give it to ``Sealer(telemetry=...)``. One for a process.

    Args:
        meter_provider: The global one by default.
        tracer_provider: Likewise.
        message_spans: Whether each message has a span of its own, for sealing and for opening. It then takes the long way: several times
            as long. Calls to key services have theirs anyway.
    """

    def __init__(
        self,
        *,
        meter_provider: MeterProvider | None = None,
        tracer_provider: TracerProvider | None = None,
        message_spans: bool = False,
    ) -> None:
        self._sealers: weakref.WeakSet[Sealer] = weakref.WeakSet()
        self._message_spans = message_spans
        self._tracer = trace.get_tracer("postseal", tracer_provider=tracer_provider)
        self._meter = metrics.get_meter("postseal", meter_provider=meter_provider)
        self._each("postseal.sealed.messages", lambda sealer: _placed(sealer.auditor.sealed))
        self._each("postseal.unsealed.messages", lambda sealer: _placed(sealer.auditor.unsealed))
        self._each("postseal.opened.messages", lambda sealer: _placed(sealer.auditor.passed))
        self._each("postseal.audit.events", _events)
        self._each("postseal.audit.lost", lambda sealer: {(): sealer.auditor.lost})
        self._each("postseal.alarm", lambda sealer: {(): int(sealer.auditor.alarmed)})
        self._each("postseal.data_keys", _data_keys)
        self._observe("postseal.signing_key.calls", _signing_calls)
        for metric, attribute in _OF_WHAT.items():
            self._observe(metric, partial(_measured, metric, attribute))
        self._each("postseal.data_key.requests", _requests)
        self._each("postseal.data_key.calls", _calls)
        self._each("postseal.data_key.ahead", _counted("ahead"))
        self._each("postseal.data_key.stale", _counted("stale"))
        self._each("postseal.data_key.in_flight", _counted("in_flight"))
        _, unit, description = METRICS["postseal.key_service.duration"]
        self._durations = self._meter.create_histogram(
            "postseal.key_service.duration",
            unit,
            description,
            explicit_bucket_boundaries_advisory=[
                0.001,
                0.0025,
                0.005,
                0.01,
                0.025,
                0.05,
                0.1,
                0.25,
                0.5,
                1,
                2.5,
                5,
                10,
            ],
        )

    def watch(self, sealer: Sealer) -> None:
        """Measure *sealer*. It calls this itself."""
        self._sealers.add(sealer)
        if self._message_spans:
            for name in ("seal", "open", "open_cached", "verify"):
                setattr(sealer, name, self._spanned(getattr(sealer, name), name.partition("_")[0]))
            for name in ("aseal", "aopen"):
                setattr(sealer, name, self._spanned_async(getattr(sealer, name), name[1:]))
            # Adapters ask these first; they answer: go the long way.
            for name in ("at_hand", "open_at_hand", "body_at_hand", "parts_at_hand"):
                setattr(sealer, name, lambda *_: lambda *_: None)

    def watched(self, name: str, provider: KeyProvider) -> KeyProvider:
        """Return *provider* with its calls measured, as the one of that *name*."""
        return _Watched(self, name, provider)

    # -- metrics ---------------------------------------------------------------------------------------------------

    def _each(self, name: str, numbers: _Numbers) -> None:
        """Observe the sum of what each sealer counts."""

        def total(sealers: Iterable[Sealer]) -> _Counts:
            totals: Counter[tuple[tuple[str, str], ...]] = Counter()
            for sealer in sealers:
                totals.update(numbers(sealer))
            return totals

        self._observe(name, total)

    def _observe(self, name: str, numbers: Callable[[Iterable[Sealer]], _Counts]) -> None:
        kind, unit, description = METRICS[name]

        def read(_: CallbackOptions) -> Iterable[Observation]:
            counts = numbers(tuple(self._sealers))
            return [Observation(count, dict(attributes)) for attributes, count in counts.items()]

        make = (
            self._meter.create_observable_counter
            if kind == "counter"
            else self._meter.create_observable_gauge
        )
        make(name, [read], unit, description)

    # -- key services ----------------------------------------------------------------------------------------------

    @contextmanager
    def call(self, name: str, verb: str, context: KeyContext) -> Iterator[None]:
        """Measure one call. Of what it raises only the kind is told: a text may quote anything."""
        attributes = {"postseal.key": name, "postseal.operation": verb}
        begun = time.perf_counter()
        spans = attributes | _place(context.destination) | {"postseal.policy": context.policy}
        with self._span(f"{verb} {name}", spans, SpanKind.CLIENT):
            try:
                yield
            except Exception as error:
                attributes["error.type"] = _kind(error)
                raise
            finally:
                self._durations.record(time.perf_counter() - begun, attributes)

    @contextmanager
    def _span(
        self, name: str, attributes: Mapping[str, str], kind: SpanKind = SpanKind.INTERNAL
    ) -> Iterator[Span]:
        with self._tracer.start_as_current_span(
            name, kind=kind, attributes=attributes, record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                yield span
            except Exception as error:
                span.set_attribute("error.type", _kind(error))
                span.set_status(StatusCode.ERROR)
                raise

    # -- messages --------------------------------------------------------------------------------------------------

    def _spanned(self, verb: Callable[..., Any], name: str) -> Callable[..., Any]:
        def spanned(body: bytes, *, destination: str, **options: Any) -> Any:
            with self._span(f"{name} {destination}", _about(name, destination)) as span:
                return _noted(span, verb(body, destination=destination, **options))

        return spanned

    def _spanned_async(self, verb: Callable[..., Awaitable[Any]], name: str) -> Callable[..., Awaitable[Any]]:
        async def spanned(body: bytes, *, destination: str, **options: Any) -> Any:
            with self._span(f"{name} {destination}", _about(name, destination)) as span:
                return _noted(span, await verb(body, destination=destination, **options))

        return spanned


class _Watched:
    """A key provider whose calls are measured. Whatever else it has is the inner one's."""

    def __init__(self, telemetry: Telemetry, name: str, inner: KeyProvider) -> None:
        self._telemetry = telemetry
        self._name = name
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    @property
    def inner(self) -> KeyProvider:
        """The one that is measured."""
        return self._inner

    @property
    def public_key_fingerprints(self) -> frozenset[bytes]:
        """Those of the inner one. Said here, as a `Protocol` looks at the class alone since Python 3.12."""
        return self._inner.public_key_fingerprints if isinstance(self._inner, PublicKeys) else frozenset()

    def generate(self, context: KeyContext) -> NewDataKey:
        """Have a new data key made."""
        with self._telemetry.call(self._name, "generate", context):
            return self._inner.generate(context)

    def wrap(self, data_key: bytes, context: KeyContext) -> tuple[Recipient, ...]:
        """Wrap a data key that another provider made."""
        with self._telemetry.call(self._name, "wrap", context):
            return self._inner.wrap(data_key, context)

    def unwrap(self, recipients: Sequence[Recipient], context: KeyContext) -> bytes:
        """Unwrap a data key."""
        with self._telemetry.call(self._name, "unwrap", context):
            return self._inner.unwrap(recipients, context)

    def encrypt(self, plaintext: bytes, context: KeyContext) -> Recipient:
        """Encrypt a body, where the provider does that."""
        with self._telemetry.call(self._name, "encrypt", context):
            return self._inner.encrypt(plaintext, context)  # type: ignore[no-any-return, attr-defined]  # asked of `DirectKeys` alone

    def decrypt(self, recipient: Recipient, context: KeyContext) -> bytes:
        """Decrypt a body, likewise."""
        with self._telemetry.call(self._name, "decrypt", context):
            return self._inner.decrypt(recipient, context)  # type: ignore[no-any-return, attr-defined]  # likewise


def _place(destination: str) -> dict[str, str]:
    scheme, _, name = destination.partition(":")
    return (
        {"messaging.system": _SYSTEMS.get(scheme, scheme), "messaging.destination.name": name} if name else {}
    )


def _placed(tallies: TalliesByMode) -> dict[tuple[tuple[str, str], ...], int]:
    return {
        (*_place(destination).items(), ("postseal.mode", mode)): count
        for (destination, mode), count in tallies.by_mode.items()
    }


def _events(sealer: Sealer) -> dict[tuple[tuple[str, str], ...], int]:
    return {
        (
            ("postseal.verdict", kind.verdict.value),
            *_place(kind.destination).items(),
            ("postseal.mode", kind.mode),
            ("postseal.outcome", kind.outcome),
        ): count
        for kind, count in sealer.auditor.counts_by_kind.items()
    }


def _data_keys(sealer: Sealer) -> dict[tuple[tuple[str, str], ...], int]:
    return _split(
        sealer,
        "postseal.state",
        lambda counts: {"fresh": counts.fresh, "stale": counts.going_on, "ended": counts.ended},
    )


def _requests(sealer: Sealer) -> dict[tuple[tuple[str, str], ...], int]:
    return _split(
        sealer,
        "postseal.result",
        lambda counts: {
            "hit": counts.hits,
            "miss": counts.misses,
            "negative": counts.negative,
            "rationed": counts.rationed,
        },
    )


def _calls(sealer: Sealer) -> dict[tuple[tuple[str, str], ...], int]:
    return _split(
        sealer,
        "postseal.outcome",
        lambda counts: {"key": counts.calls - counts.in_flight - counts.failed, "failed": counts.failed},
    )


def _split(
    sealer: Sealer, name: str, parts: Callable[[CacheCounts], Mapping[str, int]]
) -> dict[tuple[tuple[str, str], ...], int]:
    return {
        (("postseal.cache", cache), (name, part)): count
        for cache, counts in sealer.caches.items()
        for part, count in parts(counts).items()
    }


def _counted(name: str) -> _Numbers:
    return lambda sealer: {
        (("postseal.cache", cache),): getattr(counts, name) for cache, counts in sealer.caches.items()
    }


def _signing_calls(sealers: Iterable[Sealer]) -> _Counts:
    """Sum the calls of each key ring once, however many sealers have it."""
    totals: Counter[tuple[tuple[str, str], ...]] = Counter()
    for ring in {ring for sealer in sealers for ring in sealer.key_rings}:
        for (key, operation), count in ring.calls.items():
            totals[("postseal.key", key), ("postseal.operation", operation)] += count
    return totals


def _measured(metric: str, attribute: str, sealers: Iterable[Sealer]) -> _Counts:
    """Sum what is around key providers, each once, however many sealers and policies ask it."""
    totals: Counter[tuple[tuple[str, str], ...]] = Counter()
    for measure in measures(*(provider for sealer in sealers for provider in sealer.key_providers)):
        if measure.metric == metric:
            more = ((attribute, measure.what),) if attribute else ()
            totals[("postseal.key", measure.key), *more] += measure.value
    return totals


def _about(name: str, destination: str) -> dict[str, str]:
    return _place(destination) | {"messaging.operation.name": name}


def _noted(span: Span, result: Any) -> Any:
    message_id = getattr(result, "message_id", None)
    if message_id is not None:
        span.set_attribute("messaging.message.id", message_id)
        span.set_attribute("postseal.verdict", str(getattr(result, "verdict", "ok")))
    return result


def _kind(error: Exception) -> str:
    if isinstance(error, Refused):
        return error.verdict.value
    words = {KeyUnavailable: "unavailable", KeyRefused: "refused", KeyBroken: "broken", NotMine: "not-mine"}
    return next((word for kind, word in words.items() if isinstance(error, kind)), type(error).__name__)
