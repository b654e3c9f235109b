"""Audit lines in files and in syslog: rotated, shared by processes, chained; and what of a chain is found that was tampered with."""

from __future__ import annotations

import errno
import json
import logging
import os
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from logging.handlers import SysLogHandler

import pytest

from postseal.core import (
    AlarmEvent,
    AuditEvent,
    AuditFile,
    AuditSyslog,
    AuditUnavailable,
    ConfigError,
    MoreEvents,
    Refused,
    Verdict,
)
from postseal.core.audit.chain import Chain, head_of, verify
from postseal.core.audit.syslog import JsonFormatter, Rfc5424Formatter
from tests.core.kit import HERE, Party, policy

SECRET = bytes(range(32))
EVENT = AuditEvent(
    datetime(2026, 10, 1, 9, 30, 15, 123000, UTC), Verdict.FORGED, "wrong", HERE, "orders", "shop"
).as_dict()


def number(n):
    return EVENT | {"detail": f"event {n}"}


def lines_in(path):
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def details(*paths):
    return [line["detail"] for path in paths for line in lines_in(path)]


def family(path):
    """Return the file and all older ones."""
    return [path, *sorted(path.parent.glob(f"{path.name}.[0-9]*"))]


# -- the file ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [{}, {"chained": True}, {"secret": SECRET}, {"required": True, "secret": SECRET}]
)
def test_an_event_is_one_line_of_json(tmp_path, options):
    path = tmp_path / "audit.jsonl"
    one = Party(policy(), audit=[AuditFile(path, **options)])
    with pytest.raises(Refused):
        one.open(b"PAN 4111 1111 1111 1111", destination=HERE, coordinates={"topic": "orders", "offset": 4})
    one.sealer.close()
    [line] = lines_in(path)
    told = one.events[0].as_dict()
    assert {name: line[name] for name in told} == told
    assert path.read_bytes().endswith(b"\n")
    assert path.stat().st_mode & 0o777 == 0o600
    assert not [file for file in tmp_path.iterdir() if b"4111" in file.read_bytes()]


@pytest.mark.parametrize("chained", [False, True])
def test_it_is_rotated_and_the_oldest_goes(tmp_path, chained):
    path = tmp_path / "audit.jsonl"
    file = AuditFile(path, max_bytes=4096, keep=3, chained=chained)
    for n in range(200):
        file.write([number(n)])
    files = family(path)
    assert [each.name for each in files] == ["audit.jsonl", "audit.jsonl.1", "audit.jsonl.2", "audit.jsonl.3"]
    assert all(each.stat().st_size <= 4096 for each in files)
    kept = details(*reversed(files))
    assert kept == [f"event {n}" for n in range(200 - len(kept), 200)]
    if chained:
        report = verify(files)
        assert report.ok
        assert (report.lines, report.last) == (len(kept), 200)
        assert "rotated away" in report.remarks[0]
        assert not verify(files, from_start=True).ok


@pytest.mark.parametrize("secret", [None, SECRET])
def test_a_chain_goes_on_over_restarts(tmp_path, secret):
    path = tmp_path / "audit.jsonl"
    for n in range(5):
        file = AuditFile(path, chained=True, secret=secret)
        file.write([number(2 * n), number(2 * n + 1)])
        file.close()
    report = verify([path], secret=secret, from_start=True)
    assert (report.ok, report.lines, report.first, report.last) == (True, 10, 1, 10)
    assert report.remarks == ()


WRITER = """
import sys
from postseal.core import AuditFile
file = AuditFile(sys.argv[1], secret=bytes(range(32)), max_bytes=20_000, keep=50)
for n in range(100):
    file.write([{"kind": "event", "detail": f"{sys.argv[2]} {n}"}])
"""


def test_processes_share_a_file_and_its_chain(tmp_path):
    """Whoever rotates, nothing mixes and nothing is lost."""
    path = tmp_path / "audit.jsonl"
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, path, str(each)]) for each in range(3)]
    assert [writer.wait(100) for writer in writers] == [0, 0, 0]
    files = family(path)
    assert len(files) > 2
    assert sorted(details(*files)) == sorted(f"{each} {n}" for each in range(3) for n in range(100))
    report = verify(files, secret=SECRET, from_start=True)
    assert (report.ok, report.last) == (True, 300)


def test_threads_share_it_too(tmp_path):
    path = tmp_path / "audit.jsonl"
    files = [AuditFile(path, secret=SECRET, max_bytes=10_000, keep=50) for _ in range(2)]
    with ThreadPoolExecutor(4) as pool:
        for done in [
            pool.submit(lambda each=each: [files[each % 2].write([number(n)]) for n in range(50)])
            for each in range(4)
        ]:
            done.result()
    report = verify(family(path), secret=SECRET, from_start=True)
    assert (report.ok, report.last) == (True, 200)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_a_forked_child_goes_on_with_the_chain(tmp_path):
    path = tmp_path / "audit.jsonl"
    file = AuditFile(path, secret=SECRET)
    file.write([number(1)])
    child = os.fork()
    if child == 0:
        try:
            file.write([number(2)])
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    file.write([number(3)])
    assert details(path) == ["event 1", "event 2", "event 3"]
    assert verify([path], secret=SECRET, from_start=True).ok


@pytest.mark.parametrize("chained", [False, True])
def test_half_a_line_of_a_killed_process_spoils_nothing(tmp_path, chained):
    path = tmp_path / "audit.jsonl"
    AuditFile(path, chained=chained).write([number(1)])
    with path.open("ab") as half:
        half.write(b'{"kind":"event","det')
    AuditFile(path, chained=chained).write([number(2)])
    whole = [line for line in path.read_bytes().splitlines() if line.endswith(b"}")]
    assert [json.loads(line)["detail"] for line in whole] == ["event 1", "event 2"]
    if chained:
        assert verify([path], from_start=True).ok


def test_a_line_written_just_before_the_end_of_a_process_is_taken_into_the_chain(tmp_path):
    """The process ended between the line and its head."""
    path = tmp_path / "audit.jsonl"
    file = AuditFile(path, secret=SECRET)
    file.write([number(1)])
    before = head_of(path).read_bytes()
    file.write([number(2)])
    head_of(path).write_bytes(before)
    assert verify([path], secret=SECRET).ok
    AuditFile(path, secret=SECRET).write([number(3)])
    assert verify([path], secret=SECRET, from_start=True).last == 3


def test_a_disk_that_is_full_leaves_no_half_a_line(tmp_path, monkeypatch):
    path = tmp_path / "audit.jsonl"
    file = AuditFile(path, secret=SECRET)
    file.write([number(1)])
    write = os.write

    def full(fd, data):
        if len(data) < 200:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(fd, data[:100])

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space left"):
        file.write([number(2)])
    monkeypatch.undo()
    assert details(path) == ["event 1"]
    file.write([number(2)])
    assert verify([path], secret=SECRET, from_start=True).last == 2


def test_a_required_file_that_cannot_be_written_keeps_the_message(tmp_path, monkeypatch):
    """E6."""
    one = Party(policy(), audit=[AuditFile(tmp_path / "audit.jsonl", required=True)])
    monkeypatch.setattr(
        os, "fsync", lambda fd: (_ for _ in ()).throw(OSError(errno.EIO, "Input/output error"))
    )
    with pytest.raises(AuditUnavailable):
        one.open(b"clear", destination=HERE)
    assert (tmp_path / "audit.jsonl").read_bytes() == b""
    assert one.events == []
    monkeypatch.undo()
    with pytest.raises(Refused):
        one.open(b"clear", destination=HERE)
    assert len(lines_in(tmp_path / "audit.jsonl")) == 1


def test_a_lock_that_somebody_holds_is_waited_for_not_for_ever(tmp_path, monkeypatch):
    import fcntl

    from postseal.core.audit import files

    path = tmp_path / "audit.jsonl"
    file = AuditFile(path)
    monkeypatch.setattr(files, "_LOCK_WAIT", 0.02)
    with (tmp_path / "audit.jsonl.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(TimeoutError, match="another process"):
            file.write([number(1)])
    file.write([number(1)])
    assert details(path) == ["event 1"]


def test_what_a_broker_says_at_length_is_cut(tmp_path):
    AuditFile(tmp_path / "a").write([EVENT | {"coordinates": {"id": "x" * 5000}}])
    [line] = lines_in(tmp_path / "a")
    assert line["coordinates"] == {"id": "x" * 1024 + "..."}


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"path": "nowhere/audit.jsonl"}, "cannot be written: No such file"),
        ({"secret": b"short"}, "at least 32 bytes"),
        ({"max_bytes": 100}, "max_bytes"),
        ({"keep": 0}, "keep"),
    ],
)
def test_a_file_that_cannot_be_meant_is_said_at_once(tmp_path, options, word):
    path = tmp_path / options.pop("path", "audit.jsonl")
    with pytest.raises(ConfigError, match=word):
        AuditFile(path, **options)


# -- what is tampered with ---------------------------------------------------------------------------------------------


@pytest.fixture
def chained(tmp_path):
    """Return a keyed chain of 40 lines in several files, the oldest first."""
    path = tmp_path / "audit.jsonl"
    file = AuditFile(path, secret=SECRET, max_bytes=4096, keep=50)
    for n in range(1, 41):
        file.write([number(n)])
    files = list(reversed(family(path)))
    files.sort(key=lambda each: lines_in(each)[0]["n"])
    assert len(files) > 2
    return files


def edit(file, change):
    lines = file.read_bytes().splitlines(keepends=True)
    change(lines)
    file.write_bytes(b"".join(lines))


def altered(lines):
    lines[1] = lines[1].replace(b'"verdict":"forged"', b'"verdict":"stale"')


def removed(lines):
    del lines[1]


def doubled(lines):
    lines.insert(1, lines[1])


def swapped(lines):
    lines[1], lines[2] = lines[2], lines[1]


def added(lines):
    lines.insert(1, b'{"kind":"event"}\n')


def cut_in_the_middle(lines):
    lines[1] = lines[1][:40] + b"\n"


def remade_without_the_secret(lines):
    chain, old = Chain(None), json.loads(lines[1])
    n, prev = old.pop("n"), old.pop("prev")
    old.pop("hash")
    lines[1] = chain.line(json.dumps(old | {"verdict": "stale"}, separators=(",", ":")), n, prev)[0]


@pytest.mark.parametrize(
    ("change", "line", "what"),
    [
        (altered, 2, "was altered"),
        (removed, 2, "missing"),
        (doubled, 3, "out of order"),
        (swapped, 2, "missing"),
        (added, 2, "is no line of a chain"),
        (cut_in_the_middle, 2, "is no line of a chain"),
        (remade_without_the_secret, 2, "was altered"),
    ],
)
def test_what_was_done_to_a_line_is_found_and_the_first_bad_line_named(chained, change, line, what):
    edit(chained[1], change)
    report = verify(list(reversed(chained)), secret=SECRET)
    first = report.problems[0]
    assert (first.file, first.line) == (str(chained[1]), line)
    assert what in first.what


def test_a_whole_file_taken_out_is_found(chained):
    report = verify([chained[0], *chained[2:]], secret=SECRET)
    assert "missing" in report.problems[0].what
    assert report.problems[0].file == str(chained[2])


def test_lines_cut_off_at_the_end_are_found_also_after_the_file_was_written_to_again(chained, caplog):
    edit(chained[-1], lambda lines: lines.pop())
    report = verify(chained, secret=SECRET)
    assert report.problems[0].what == "is the last, but number 40 is missing behind it"
    AuditFile(chained[-1], secret=SECRET).write([number(41)])
    assert "was cut short" in caplog.text
    report = verify(chained, secret=SECRET)
    assert "number 41 after 39: number 40 is missing" in report.problems[0].what


def test_a_head_taken_away_or_made_without_the_secret_is_found(chained):
    head = head_of(chained[-1])
    edit(chained[-1], lambda lines: lines.pop())
    last = json.loads(chained[-1].read_bytes().splitlines()[-1])
    whole = head.read_bytes()
    head.write_bytes(b"%020d %b" % (39, last["hash"].encode()) + whole[85:])
    assert "head was altered" in verify(chained, secret=SECRET).problems[0].what
    head.unlink()
    assert "no head" in verify(chained, secret=SECRET).problems[0].what
    assert verify(chained, secret=SECRET, needs_head=False).ok  # as asked for


def test_an_old_head_put_back_is_found_by_who_noted_a_line(chained):
    """Whoever keeps a copy of file and head can put both back: that is what a line noted elsewhere is for."""
    noted = verify(chained, secret=SECRET)
    edit(chained[-1], lambda lines: lines.pop())
    lines = chained[-1].read_bytes().splitlines()
    last = json.loads(lines[-1])
    from postseal.core.audit.chain import Head

    head_of(chained[-1]).write_bytes(Chain(SECRET).head(Head(39, last["hash"], chained[-1].stat().st_size)))
    assert verify(chained, secret=SECRET).ok
    report = verify(chained, secret=SECRET, expected=(noted.last, noted.last_hash))
    assert "line 40, which was expected, is not there" in report.problems[0].what
    AuditFile(chained[-1], secret=SECRET).write([number(100)])
    report = verify(chained, secret=SECRET, expected=(noted.last, noted.last_hash))
    assert "line 40 is another one than it was" in report.problems[0].what


def test_another_secret_is_told_from_an_altered_file(chained):
    report = verify(chained, secret=bytes(32))
    assert not report.ok
    assert "is it the right secret?" in report.remarks[0]
    assert "made with a secret?" in verify(chained).remarks[0]


def test_no_field_can_pass_for_the_end_of_a_line(tmp_path):
    """Names of a message may hold anything."""
    path = tmp_path / "audit.jsonl"
    file = AuditFile(path, secret=SECRET)
    evil = '","n":7,"prev":"' + "0" * 64 + '","hash":"' + "0" * 64 + '"}\n{"'
    file.write([EVENT | {"unverified_sender": evil}, number(2)])
    assert len(path.read_bytes().splitlines()) == 2
    assert verify([path], secret=SECRET, from_start=True).ok
    assert lines_in(path)[0]["unverified_sender"] == evil


# -- syslog ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def server():
    """Return a UDP syslog server: its address, and what reads one datagram."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listening:
        listening.bind(("127.0.0.1", 0))
        listening.settimeout(30)
        yield listening.getsockname(), lambda: listening.recv(65536).decode()


def test_syslog_gets_an_event_as_structured_data(server):
    """Source: RFC 5424 6."""
    address, read = server
    sink = AuditSyslog(address, facility="local3")
    evil = 'a"b]c\\d\n\u2028é'
    sink.write([EVENT | {"unverified_sender": evil, "coordinates": {"offset": 42}}])
    line = read()
    pri, rest = line.split(">", 1)
    assert pri == f"<{SysLogHandler.LOG_LOCAL3 * 8 + SysLogHandler.LOG_WARNING}"
    version, time, _, app, process, kind, data = rest.split(" ", 6)
    assert (version, app, process, kind) == ("1", "postseal", str(os.getpid()), "event")
    assert time == "2026-10-01T09:30:15.123+00:00"
    assert data.startswith('[postseal@32473 kind="event"')
    assert f'destination="{HERE}"' in data
    assert 'coordinates.offset="42"' in data
    assert r'unverified_sender="a\"b\]c\\d\\n\\u2028\\xe9"' in data
    assert data.endswith(f"] forged at {HERE}")
    assert line.isascii()
    assert "\n" not in line
    sink.close()


def test_syslog_gets_whatever_else_is_told(server):
    address, read = server
    sink = AuditSyslog(address)
    now = datetime.now(UTC)
    sink.write(
        [
            MoreEvents(now, now, Verdict.STALE, HERE, 7).as_dict(),
            AlarmEvent(now, True, 100, 900, 5.0, {"forged": 100}).as_dict(),
            AlarmEvent(now, False, 1, 900, 60.0, {}).as_dict(),
            {"kind": "lost", "time": now.isoformat(), "count": 3},
        ]
    )
    told = [read() for _ in range(4)]
    sink.close()
    for line, text in zip(
        told,
        ["7 more like it: stale at", "alarm: 100 of 900", "the alarm is over", "3 audit lines were lost"],
        strict=True,
    ):
        assert text in line
    assert 'verdicts.forged="100"' in told[1]
    assert told[1].startswith(f"<{SysLogHandler.LOG_AUTHPRIV * 8 + SysLogHandler.LOG_ERR}>")


def test_syslog_over_tcp_has_a_line_for_each(tmp_path):
    got = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve():
            connection, _ = listening.accept()
            with connection, connection.makefile("rb") as lines:
                got.extend(lines)

        thread = threading.Thread(target=serve)
        thread.start()
        sink = AuditSyslog(listening.getsockname(), tcp=True)
        one = Party(policy(), audit=[sink])
        for _ in range(3):
            with pytest.raises(Refused):
                one.open(b"clear", destination=HERE)
        one.sealer.close()
        thread.join(30)
    assert len(got) == 3
    assert all(line.endswith(b"\n") and b'verdict="unprotected"' in line for line in got)


def test_a_syslog_that_is_not_there_holds_up_nothing(tmp_path):
    sink = AuditSyslog(str(tmp_path / "log"))
    one = Party(policy(), audit=[sink])
    with pytest.raises(Refused):
        one.open(b"clear", destination=HERE)
    assert not one.sealer.auditor.flush(0.05)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "log"))
        listening.settimeout(30)
        assert one.sealer.auditor.flush()
        assert b"unprotected" in listening.recv(65536)
    one.sealer.close()


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"facility": "locall3"}, "did you mean 'local3'"),
        ({"app_name": "a b"}, "app_name"),
        ({"sd_id": "a]b"}, "sd_id"),
    ],
)
def test_a_syslog_that_cannot_be_meant_is_said(options, word):
    with pytest.raises(ConfigError, match=word):
        AuditSyslog(**options)


@pytest.mark.parametrize("formatter", [JsonFormatter(), Rfc5424Formatter()])
def test_the_formatters_serve_any_handler_of_logging(formatter, caplog):
    one = Party(policy())
    with pytest.raises(Refused):
        one.open(b"clear", destination=HERE)
    [record] = [each for each in caplog.records if each.name == "postseal.audit"]
    text = formatter.format(record)
    assert "unprotected" in text
    assert "\n" not in text
    if isinstance(formatter, JsonFormatter):
        assert json.loads(text) == one.events[0].as_dict()
    other = logging.LogRecord("else", logging.INFO, "", 0, "two\nlines", (), None)
    assert "two" in formatter.format(other)
