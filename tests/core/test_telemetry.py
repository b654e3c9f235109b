"""OpenTelemetry: what is measured, under which names, and what is never told."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from postseal.core import CombinedKeys, DelegatedKey, Ed25519Key, KeyRing, KeyUnavailable, Refused
from postseal.core.counting import Tallies
from postseal.core.keys import PublicKeys
from postseal.core.resilience import Breaker, Limiter, Retrying, resilient
from postseal.core.telemetry import METRICS, Telemetry
from tests.core.kit import ED25519, FORMS, HERE, SENDER, Clock, CountedKeys, Party, local_keys, policy

PLACE = {"messaging.system": "kafka", "messaging.destination.name": "orders"}
ROOT = Path(__file__).parents[2]
WITHOUT_THE_API = """
import sys
sys.modules["opentelemetry"] = None
try:
    import postseal.core.telemetry
except ImportError as error:
    print(error)
"""


class World:
    """An SDK that keeps in memory what it is told."""

    def __init__(self, **options):
        self.reader = InMemoryMetricReader()
        self.exporter = InMemorySpanExporter()
        tracers = TracerProvider()
        tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.telemetry = Telemetry(
            meter_provider=MeterProvider([self.reader]), tracer_provider=tracers, **options
        )

    def party(self, form="confidentiality", **options):
        return Party(policy(form), telemetry=self.telemetry, **options)

    def points(self, name):
        data = self.reader.get_metrics_data()
        found = [
            metric
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
        ]
        return [] if not found else list(found[0].data.data_points)

    def values(self, name):
        return {tuple(sorted(point.attributes.items())): point.value for point in self.points(name)}

    def spans(self):
        return {span.name: span for span in self.exporter.get_finished_spans()}


def key(**attributes):
    return tuple(
        sorted(({name.replace("_", "."): value for name, value in attributes.items()} | PLACE).items())
    )


def test_what_is_sealed_opened_and_refused_is_counted_by_destination():
    """E7: the alarm is a metric, too."""
    world = World()
    one = world.party()
    envelopes = [one.seal(b"order", destination=HERE) for _ in range(7)]
    for envelope in envelopes[:5]:
        one.open(envelope, destination=HERE)
    assert world.values("postseal.alarm") == {(): 0}
    for _ in range(120):
        with pytest.raises(Refused):
            one.open(b"clear", destination=HERE)
    assert world.values("postseal.sealed.messages") == {key(postseal_mode="enforce"): 7}
    assert world.values("postseal.opened.messages") == {key(postseal_mode="enforce"): 5}
    assert world.values("postseal.audit.events") == {
        key(postseal_verdict="unprotected", postseal_mode="enforce", postseal_outcome="refused"): 120
    }
    assert world.values("postseal.audit.lost") == {(): 0}
    assert world.values("postseal.alarm") == {(): 1}
    held = {labels: count for labels, count in world.values("postseal.data_keys").items() if count}
    assert held == {
        (("postseal.cache", cache), ("postseal.state", "fresh")): 1 for cache in ("sealing", "opening")
    }
    one.sealer.close()
    assert set(world.values("postseal.data_keys").values()) == {0}


def test_what_enforce_would_refuse_is_counted_by_mode_and_outcome():
    """A11: when it is safe to go on."""
    world = World()
    options = {"telemetry": world.telemetry}
    early = Party(policy(mode="observe"), **options)
    later = Party(policy(mode="tolerate", tolerate_until=datetime(2030, 1, 1, tzinfo=UTC)), **options)
    for one in (early, later):
        one.open(b"clear", destination=HERE)
        one.open(Party(policy(), keys=one.keys).seal(b"order", destination=HERE), destination=HERE)
    early.seal(b"order", destination=HERE)
    assert world.values("postseal.audit.events") == {
        key(postseal_verdict="unprotected", postseal_mode="observe", postseal_outcome="let-through"): 1,
        key(postseal_verdict="clear", postseal_mode="tolerate", postseal_outcome="let-through"): 1,
    }
    assert world.values("postseal.opened.messages") == {
        key(postseal_mode="observe"): 1,
        key(postseal_mode="tolerate"): 1,
    }
    assert world.values("postseal.unsealed.messages") == {key(postseal_mode="observe"): 1}


def test_calls_to_key_services_are_measured_and_spanned():
    world, keys = World(), CountedKeys()
    one = world.party(keys=keys)
    envelope = one.seal(b"order", destination=HERE)
    one.open(envelope, destination=HERE)
    one.open(envelope, destination=HERE)
    keys.fail = KeyUnavailable("the text may quote anything: PAN 4111")
    one.sealer.close()
    with pytest.raises(KeyUnavailable):
        one.seal(b"order", destination=HERE)
    counts = {
        (point.attributes["postseal.operation"], point.attributes.get("error.type")): point.count
        for point in world.points("postseal.key_service.duration")
    }
    assert counts == {("generate", None): 1, ("unwrap", None): 1, ("generate", "unavailable"): 1}
    spans = world.exporter.get_finished_spans()
    assert [span.name for span in spans] == ["generate main", "unwrap main", "generate main"]
    assert {span.kind for span in spans} == {SpanKind.CLIENT}
    assert dict(spans[0].attributes) == PLACE | {
        "postseal.key": "main",
        "postseal.operation": "generate",
        "postseal.policy": "orders",
    }
    assert spans[2].status.status_code is StatusCode.ERROR
    assert spans[2].attributes["error.type"] == "unavailable"
    assert not any("PAN" in span.to_json() for span in spans)


def test_calls_of_keys_that_sign_in_a_service_are_counted_once_however_many_sealers_have_the_ring():
    world, root = World(), Counted()
    clock = Clock()
    ring = KeyRing([DelegatedKey(root, senders=[SENDER], clock=clock.seconds)], clock=clock.seconds)
    parties = [
        Party(policy("privacy-hmac"), rings={"hmac": ring}, clock=clock, telemetry=world.telemetry)
        for _ in range(3)
    ]
    for one in parties:
        one.seal(b"order", destination=HERE)
    assert world.values("postseal.signing_key.calls") == {
        (("postseal.key", "root"), ("postseal.operation", "Sign")): 1
    }


class Counted(Ed25519Key):
    """A key that counts as one of a service does."""

    def __init__(self):
        super().__init__("root", private_key=ED25519, senders=[SENDER])
        self.calls = Tallies()

    def signer(self, sender, destination, prefix=b""):
        self.calls["Sign"].tick()
        return super().signer(sender, destination, prefix)


@pytest.mark.parametrize("form", FORMS)
def test_each_message_is_a_span_where_that_is_asked_for(form):
    world = World(message_spans=True)
    one = world.party(form)
    assert one.sealer.at_hand(HERE)(b"order") is None  # adapters go through the spans
    envelope = one.sealer.seal(b"PAN 4111", destination=HERE)
    assert one.sealer.open_at_hand(HERE)(envelope) is one.sealer.body_at_hand(HERE)(envelope) is None
    assert one.sealer.parts_at_hand(HERE)(envelope) is None
    opened = one.sealer.open(envelope, destination=HERE)
    assert asyncio.run(one.sealer.aopen(envelope, destination=HERE)).body == b"PAN 4111"
    assert asyncio.run(one.sealer.aseal(b"PAN 4111", destination=HERE))
    with pytest.raises(Refused):
        one.sealer.open(b"PAN 4111", destination=HERE)
    spans = [span for span in world.exporter.get_finished_spans() if span.kind is SpanKind.INTERNAL]
    assert [span.name for span in spans] == [
        f"{verb} {HERE}" for verb in ("seal", "open", "open", "seal", "open")
    ]
    assert spans[1].attributes["messaging.message.id"] == opened.message_id
    assert spans[1].attributes["postseal.verdict"] == "ok"
    assert spans[4].attributes["error.type"] == "unprotected"
    assert not any("PAN" in span.to_json() for span in world.exporter.get_finished_spans())
    if "confidentiality" in form:
        calls = [span for span in world.exporter.get_finished_spans() if span.name == "generate main"]
        assert calls[0].parent.span_id == spans[0].context.span_id


def test_without_message_spans_messages_go_the_short_way():
    world = World()
    one = world.party()
    one.seal(b"order", destination=HERE)
    assert one.sealer.at_hand(HERE)(b"order")
    assert "seal" not in vars(one.sealer)


def test_a_watched_provider_is_still_what_it_was():
    """B1: a key that opens and signs is found out whether or not its provider is watched."""
    inner = CountedKeys()
    inner.public_key_fingerprints = frozenset({b"x"})
    watched = World().telemetry.watched("main", inner)
    assert watched.public_key_fingerprints == {b"x"}
    with pytest.raises(AttributeError):
        watched.nothing  # noqa: B018 - looking is the test


def test_every_metric_is_there_once_something_happened():
    world = World()
    around = [
        resilient(local_keys({name: bytes([at]) * 32}), limiter=Limiter(9, per=1))
        for at, name in enumerate("ab")
    ]
    one = world.party(keys=CombinedKeys(around, hedge=50))
    early = Party(policy(mode="observe"), telemetry=world.telemetry)
    early.seal(b"order", destination=HERE)
    one.open(one.seal(b"order", destination=HERE), destination=HERE)
    with pytest.raises(Refused):
        one.open(b"clear", destination=HERE)
    assert [name for name in METRICS if not world.points(name)] == ["postseal.signing_key.calls"], (
        "counted where such a key signs: above"
    )


def test_what_is_around_a_key_service_is_told_by_its_name():
    world, keys = World(), CountedKeys()
    keys.fail = KeyUnavailable("no answer")
    around = Retrying(
        Breaker(keys, failures=2, wait=1000, max_wait=1000, name="main"), name="main", sleep=lambda _: None
    )
    one = world.party(keys=around)
    for _ in range(4):
        with pytest.raises(KeyUnavailable):
            one.seal(b"order", destination=HERE)
    main = ("postseal.key", "main")
    assert world.values("postseal.key_service.retries") == {(main,): 2}
    assert world.values("postseal.key_service.breaker") == {
        (main, ("postseal.operation", "wrap")): 1,
        (main, ("postseal.operation", "unwrap")): 0,
    }
    assert world.values("postseal.key_service.not_asked") == {
        (main, ("postseal.reason", "breaker")): 4,
        (main, ("postseal.reason", "budget")): 0,
    }


def test_a_key_that_opens_cannot_sign_where_calls_are_measured_either():
    """A `Protocol` looks at the class alone since Python 3.12, and the decorator stands before it."""

    class Known(CountedKeys):
        public_key_fingerprints = frozenset({b"f" * 32})

    watched = World().telemetry.watched("main", Known())
    assert isinstance(watched, PublicKeys)
    assert watched.public_key_fingerprints == {b"f" * 32}
    assert "public_key_fingerprints" in dir(type(watched))


def test_without_the_api_it_names_its_extra():
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            WITHOUT_THE_API,
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "pip install 'postseal[otel]'" in done.stdout


def test_every_metric_of_the_dashboard_exists_and_every_metric_is_on_it():
    """As OpenTelemetry's metrics are named in Prometheus: https://opentelemetry.io/docs/specs/otel/compatibility/prometheus_and_openmetrics/"""
    named = {}
    for name, (kind, unit, _) in METRICS.items():
        base = name.replace(".", "_") + ("_seconds" if unit == "s" else "")
        ends = {"counter": ["_total"], "gauge": [""], "histogram": ["_bucket", "_count", "_sum"]}[kind]
        named |= {base + end: name for end in ends}
    dashboard = json.loads((ROOT / "docs/grafana/postseal.json").read_text())
    shown = set()
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            without_labels = re.sub(r"by \([^)]*\)|\{[^}]*\}", "", target["expr"])
            shown |= set(re.findall(r"\bpostseal_\w+", without_labels))
    assert shown <= set(named)
    assert {named[metric] for metric in shown} == set(METRICS)
    documented = set(re.findall(r"`(postseal\.[a-z_.]+)`", (ROOT / "docs/audit.md").read_text()))
    assert set(METRICS) <= documented
