"""Every file of tests/vectors/, through our sealer and through the reference that was written from SPEC.md alone."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from postseal.core import Refused
from postseal.core.shortening import Record, is_short, read_short
from postseal.core.wire import decode, looks_sealed
from tests import reference
from tests.vectors import load

ROOT = Path(__file__).parents[2]
VECTORS = {file.stem: json.loads(file.read_text("utf-8")) for file in load.FILES}
OPENING = sorted(name for name, vector in VECTORS.items() if vector["expect"]["opens"])
REFUSED = sorted(set(VECTORS) - set(OPENING))
pytestmark = pytest.mark.usefixtures("way")
SEALED = [name for name in OPENING if VECTORS[name]["sealing"]]


@pytest.fixture(scope="module")
def make():
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("make_vectors", load.DIRECTORY / "make.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


def test_there_are_at_least_sixty_and_every_verdict_of_opening_is_among_them():
    verdicts = {VECTORS[name]["expect"]["verdict"] for name in REFUSED}
    assert len(VECTORS) >= 60
    assert verdicts == {
        "unprotected",
        "malformed",
        "downgrade",
        "wrong-destination",
        "unknown-sender",
        "unknown-key",
        "forged",
        "stale",
        "future",
    }
    assert {VECTORS[name]["expect"]["step"] for name in REFUSED} == set(range(1, 12))


def test_the_script_makes_exactly_these_files(make, tmp_path):
    make.write(tmp_path)
    made = {file.name: file.read_bytes() for file in tmp_path.glob("*.json")}
    assert made == {file.name: file.read_bytes() for file in load.FILES}


def test_the_worked_examples_of_the_spec_are_what_the_script_makes(make):
    spec = (ROOT / "core" / "SPEC.md").read_text("utf-8")
    assert make.with_examples(spec) == spec
    assert make.BEGIN in spec


@pytest.mark.parametrize("index", range(5))
def test_the_worked_examples_of_the_spec_are_what_the_library_seals_and_opens(make, index):
    title, message = make.EXAMPLES[index]
    spec = (ROOT / "core" / "SPEC.md").read_text("utf-8")
    section = spec.split(f"### 13.{index + 1} {title}\n")[1].split("\n### ")[0].split(make.END)[0]
    told = bytes.fromhex("".join(section.split(" bytes:\n")[-1].split()))
    sealed = load.seal(make.sealing_json(message), message.body)
    if title.endswith("ES256"):  # random, but for the example's
        assert sealed[:-64] == told[:-64]
    else:
        assert sealed == told
    assert load.Consumer(make.opening_json(message)).open(told).body == message.body


@pytest.mark.parametrize("name", OPENING)
def test_opens_the_whole_way_and_the_short_way(name):
    vector = VECTORS[name]
    consumer = load.Consumer(vector["opening"])
    for _ in range(2):
        opened = consumer.open(load.binary(vector, "envelope"))
        expect = vector["expect"]
        assert opened.body == load.binary(expect, "body")
        assert opened.sender == expect["sender"]
        assert opened.destination == expect["destination"]
        assert opened.policy == expect["policy"]
        assert opened.message_id == expect["message_id"]
        assert list(opened.headers) == load.headers(expect.get("headers", []))
        assert opened.in_reply_to == expect.get("in_reply_to")
        assert opened.content_type == expect["content_type"]
        assert opened.origin.value == expect["origin"]
        assert round(opened.sent_at.timestamp() * 1000) == expect["sent_ms"]
        expires = opened.expires_at
        assert (None if expires is None else expires.timestamp()) == expect["expires_s"]
    assert consumer.events == []


@pytest.mark.parametrize("name", OPENING)
def test_reference_opens_it_with_the_same_intermediate_values(name):
    vector = VECTORS[name]
    result = reference.open_envelope(
        load.binary(vector, "envelope"), load.reference_opening(vector["opening"])
    )
    assert result.body == load.binary(vector["expect"], "body")
    assert list(result.headers) == load.headers(vector["expect"].get("headers", []))
    told = {step: bytes.fromhex(value) for step, value in vector["intermediate"].items()}
    for step in told.keys() & result.intermediate.keys():
        assert result.intermediate[step] == told[step], step
    assert told.keys() >= {"external_aad"} or not told


@pytest.mark.parametrize("name", SEALED)
def test_seals_to_exactly_these_bytes(name):
    vector = VECTORS[name]
    sealed = load.seal(vector["sealing"], load.binary(vector["expect"], "body"))
    envelope = load.binary(vector, "envelope")
    if vector["sealing"]["signature_is_deterministic"]:
        assert sealed == envelope
    else:
        assert sealed[:-64] == envelope[:-64]
        consumer = load.Consumer(vector["opening"])
        assert consumer.open(sealed).body == load.binary(vector["expect"], "body")


@pytest.mark.parametrize("name", REFUSED)
def test_is_refused_cold_with_the_verdict_told_and_one_audit_event(name):
    vector = VECTORS[name]
    consumer = load.Consumer(vector["opening"])
    for count in (1, 2):  # the second time, failures of keys are remembered
        with pytest.raises(Refused) as refused:
            consumer.open(load.binary(vector, "envelope"))
        assert refused.value.verdict.value == vector["expect"]["verdict"]
        assert [event.verdict.value for event in consumer.events] == [vector["expect"]["verdict"]] * count


@pytest.mark.parametrize("name", REFUSED)
def test_is_refused_warm_after_a_good_one_of_the_same_data_key(name):
    vector = VECTORS[name]
    warm_up = vector["warm_up"]
    consumer = load.Consumer(vector["opening"])
    for _ in range(2):
        opened = consumer.open(load.binary(warm_up, "envelope"), warm_up)
        assert opened.body == load.binary(warm_up, "body")
    with pytest.raises(Refused) as refused:
        consumer.open(load.binary(vector, "envelope"))
    assert refused.value.verdict.value == vector["expect"]["verdict"]
    assert len(consumer.events) == 1
    assert consumer.open(load.binary(warm_up, "envelope"), warm_up).body == load.binary(warm_up, "body")


@pytest.mark.parametrize("name", REFUSED)
def test_reference_refuses_it_at_the_step_told(name):
    vector = VECTORS[name]
    with pytest.raises(reference.RefusedError) as refused:
        reference.open_envelope(load.binary(vector, "envelope"), load.reference_opening(vector["opening"]))
    assert (refused.value.verdict, refused.value.step) == (
        vector["expect"]["verdict"],
        vector["expect"]["step"],
    )


@pytest.mark.parametrize("name", [name for name in REFUSED if VECTORS[name]["expect"]["step"] == 2])
def test_the_decoder_alone_refuses_what_is_malformed(name):
    with pytest.raises(Refused) as refused:
        decode(load.binary(VECTORS[name], "envelope"))
    assert refused.value.verdict.value == "malformed"


@pytest.mark.parametrize("name", [name for name in REFUSED if VECTORS[name]["expect"]["step"] != 2])
def test_the_decoder_alone_has_nothing_against_what_fails_later(name):
    vector = VECTORS[name]
    if vector["expect"]["step"] == 1:
        with pytest.raises(Refused) as refused:
            decode(load.binary(vector, "envelope"))
        assert refused.value.verdict.value == "unprotected"
    else:
        decode(load.binary(vector, "envelope"))


def _has_short_form(name):
    header = decode(load.binary(VECTORS[name], "envelope")).header
    return header.nonce is not None and header.in_reply_to is None


@pytest.mark.parametrize("name", [name for name in OPENING if _has_short_form(name)])
def test_a_short_form_is_what_the_spec_says_and_gives_the_envelope_again(name):
    """SPEC.md 3.6."""
    envelope = load.binary(VECTORS[name], "envelope")
    record = Record(decode(envelope))
    short = record.shorten(envelope)
    assert (record.data, short) == (reference.record_of(envelope), reference.shortened(envelope))
    assert looks_sealed(short)
    assert is_short(short)
    assert Record.read(record.data, record.reference).whole(read_short(short)) == envelope
    assert reference.made_whole(short, record.data) == envelope
