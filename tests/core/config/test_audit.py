"""The sections [audit] and [alarm] of a policy file."""

from __future__ import annotations

import json

import pytest

from postseal.core import AlarmLimits, FloodLimit, Refused, Sealer
from postseal.core.audit.chain import verify
from postseal.core.config import PolicyFile
from postseal.core.errors import PolicyFileError
from tests.core.config.kit import SECRET

LOGS = """
sender = "billing-api"

[[policy]]
name = "orders"
destinations = ["kafka:orders"]
keys = ["main"]
"""
AUDIT = """
[audit]
log = { first = 1, interval = "10m" }

[audit.file]
path = "audit.jsonl"
every_event = true
secret = { env = "POSTSEAL_AUDIT" }
max_bytes = "1MiB"
keep = 3

[audit.syslog]
address = "localhost:514"
facility = "local3"
limit = { first = 2 }

[alarm]
share = "5%"
least = 10
window = "30s"
"""


class Keys:
    """Never asked."""

    def generate(self, context):
        raise NotImplementedError

    wrap = unwrap = generate


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "postseal.toml"
        path.write_text(LOGS + text)
        return path

    return write


def test_a_file_says_where_events_go_and_when_the_alarm_is_raised(write, monkeypatch, tmp_path):
    """E6, E7: by policy, without a line of code."""
    monkeypatch.setenv("POSTSEAL_AUDIT", SECRET)
    path = write(AUDIT)
    settings = PolicyFile.read(path, keys=["main"]).resolve(keys={"main": Keys()})
    assert settings.arguments["audit_log"] == FloodLimit(first=1, interval=600)
    assert settings.arguments["alarm"] == AlarmLimits(share=0.05, least=10, window=30)
    file, syslog = settings.arguments["audit"]
    assert (file.limit, file.path, syslog.limit) == (None, tmp_path / "audit.jsonl", FloodLimit(first=2))
    assert str(syslog) == "syslog at localhost:514"
    again = PolicyFile.read(path, keys=["main"]).resolve(keys={"main": Keys()}, before=settings)
    assert again.arguments["audit"] == (file, syslog)  # not opened twice when the file is read again

    alarms = []
    sealer = Sealer.from_file(path, keys={"main": Keys()}, audit=[file], on_alarm=alarms.append)
    for _ in range(20):
        with pytest.raises(Refused):
            sealer.open(b"clear", destination="kafka:orders")
    sealer.close()
    lines = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    assert sum(line["kind"] == "event" for line in lines) == 20
    assert [alarm.refused for alarm in alarms] == [10]
    assert verify([tmp_path / "audit.jsonl"], secret=bytes(range(32)), from_start=True).ok


def test_without_the_sections_it_is_as_without_a_file(write):
    arguments = PolicyFile.read(write(""), keys=["main"]).resolve(keys={"main": Keys()}).arguments
    assert not {"audit", "audit_log", "alarm"} & set(arguments)


def test_the_alarm_can_be_off(write):
    path = write("[alarm]\non = false\n")
    assert PolicyFile.read(path, keys=["main"]).resolve(keys={"main": Keys()}).arguments["alarm"] is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[alarm]\nshare = 0.01", 'share must be a percentage like "1%"'),
        ('[alarm]\nshare = "0%"', "over 0%"),
        ('[alarm]\nwindow = "1"', "window"),
        ("[alarm]\nleest = 1", "did you mean 'least'"),
        ("[audit.file]\nkeep = 3", "has no path"),
        ('[audit]\npath = "a"', "it belongs in [audit.file]"),
        ('[audit.file]\npath = "a"\nsecret = "hush"', "secret"),
        ('[audit.syslog]\nfacility = "locall3"', "did you mean 'local3'"),
        ('[audit.file]\npath = "a"\nmax_bytes = 5', "max_bytes"),
    ],
)
def test_a_mistake_is_said_before_anything_moves(write, text, said):
    with pytest.raises(PolicyFileError) as error:
        PolicyFile.read(write(text), keys=["main"])
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[audit.file]\npath = "nowhere/audit.jsonl"', "cannot be written"),
        ('[audit.file]\npath = "a"\nmax_bytes = "1KiB"', "max_bytes is at least"),
        ('[audit.file]\npath = "a"\nsecret = { env = "POSTSEAL_NOT_SET" }', "POSTSEAL_NOT_SET"),
        ('[alarm]\nwindow = "1ms"', "alarm.window is 1 to 86,400 seconds"),
    ],
)
def test_what_only_shows_when_it_is_made_is_said_too(write, text, said):
    with pytest.raises(PolicyFileError) as error:
        PolicyFile.read(write(text), keys=["main"]).resolve(keys={"main": Keys()})
    assert said in str(error.value)


# -- reload ------------------------------------------------------------------------------------------------------------


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def refuse(sealer, times=1):
    for _ in range(times):
        with pytest.raises(Refused):
            sealer.open(b"clear", destination="kafka:orders")


def test_a_reload_takes_over_where_events_go_and_loses_none(write, tmp_path):
    """E7: what was held back for the old place is told there; counts go on."""
    path = write('[audit.file]\npath = "one.jsonl"\nlimit = { first = 1 }\n')
    with Sealer.from_file(path, keys={"main": Keys()}) as sealer:
        refuse(sealer, 3)
        write('[audit.file]\npath = "two.jsonl"\nevery_event = true\n')
        sealer.reload()
        refuse(sealer, 2)
        write('[audit.file]\npath = "two.jsonl"\nevery_event = true\n[alarm]\nleast = 7\nshare = "1%"\n')
        sealer.reload()
        refuse(sealer)
        assert sealer.auditor.lost == 0
        assert sum(sealer.auditor.counts.values()) == 6
    one, two = lines_of(tmp_path / "one.jsonl"), lines_of(tmp_path / "two.jsonl")
    assert [line["kind"] for line in one] == ["event", "more"]
    assert one[1]["events"] == 2
    assert [line["kind"] for line in two] == ["event"] * 3


def test_a_reload_takes_over_when_the_alarm_is_raised(write):
    path, alarms = write("[alarm]\nleast = 1000\n"), []
    with Sealer.from_file(path, keys={"main": Keys()}, on_alarm=alarms.append) as sealer:
        refuse(sealer, 20)
        assert alarms == []
        write("[alarm]\nleast = 5\n")
        sealer.reload()
        refuse(sealer, 5)
        assert [alarm.raised for alarm in alarms] == [True]
        write("[alarm]\nleast = 6\n")
        sealer.reload()
        assert sealer.auditor.alarmed  # it is not raised twice
        refuse(sealer, 10)
        assert [alarm.raised for alarm in alarms] == [True]
        write("[alarm]\non = false\n")
        sealer.reload()
        assert [alarm.raised for alarm in alarms] == [True, False]
        refuse(sealer, 20)
    assert len(alarms) == 2


def test_a_reload_takes_over_what_logging_is_told(write, caplog):
    path = write("[audit]\nlog = { first = 1 }\n")
    with Sealer.from_file(path, keys={"main": Keys()}) as sealer:
        refuse(sealer, 3)
        write("[audit]\nlog = { first = 3 }\n")
        sealer.reload()
        refuse(sealer, 3)
        sealer.auditor.flush()
    told = [record.getMessage() for record in caplog.records if record.name == "postseal.audit"]
    assert [text.partition(":")[0] for text in told] == ["refused", "and 2 more like it", *["refused"] * 3]


def test_the_same_places_are_begun_anew_by_no_reload(write):
    path = write(AUDIT.replace('secret = { env = "POSTSEAL_AUDIT" }\n', ""))
    with Sealer.from_file(path, keys={"main": Keys()}) as sealer:
        before = list(sealer.auditor._outlets), sealer.auditor._alarm
        sealer.reload()
        assert (sealer.auditor._outlets, sealer.auditor._alarm) == before


def test_sinks_that_the_program_gives_stay_through_a_reload(write):
    class Sink:
        limit, required = None, False

        def __init__(self):
            self.lines = []

        def write(self, lines):
            self.lines += lines

        def close(self):
            pass

    sink = Sink()
    path = write('[audit.file]\npath = "one.jsonl"\n')
    with Sealer.from_file(path, keys={"main": Keys()}, audit=iter([sink])) as sealer:
        sealer.reload()
        refuse(sealer)
    assert [line["kind"] for line in sink.lines] == ["event"]
    assert lines_of(path.parent / "one.jsonl") == []
