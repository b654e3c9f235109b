"""A scan that cannot find is worse than none: each form is planted first."""

import base64
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from integration import scan as module
from integration.scan import scan, scan_memory

CANARY = b"canary-4111111111111111?>"
FORMS = {
    "raw": CANARY,
    "hex": CANARY.hex().encode(),
    "HEX": CANARY.hex().upper().encode(),
    "UTF-16": CANARY.decode().encode("utf-16-le"),
}


@pytest.mark.parametrize("form", FORMS)
def test_each_form_is_found_where_it_lies(form):
    (hit,) = scan(CANARY, b"before" + FORMS[form] + b"after")

    assert (hit.form, hit.offset) == (form, 6)


@pytest.mark.parametrize("before", range(7))
@pytest.mark.parametrize("after", range(4))
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_base64_is_found_at_every_alignment(before, after, encode):
    text = b'{"body": "' + encode(b"\xff" * before + CANARY + b"\xff" * after) + b'"}'

    assert [hit.form[:6] for hit in scan(CANARY, text)] == ["base64"]


def test_what_is_not_there_is_not_found():
    assert scan(CANARY, CANARY[:-1] + CANARY[1:], base64.b64encode(CANARY[:-1]), b"") == []


@pytest.mark.parametrize("form", FORMS)
def test_a_canary_across_the_pieces_of_a_file_is_found_once(tmp_path, monkeypatch, form):
    monkeypatch.setattr(module, "_CHUNK", 64)
    for at in range(30, 130):
        (tmp_path / f"{at:03}.log").write_bytes(b"." * at + FORMS[form] + b"." * 100)

    hits = scan(CANARY, tmp_path)

    assert [hit.offset for hit in hits] == list(range(30, 130))
    assert {hit.form for hit in hits} == {form}


@pytest.mark.parametrize(
    "needle", [CANARY, b"\0" * 20 + CANARY, CANARY + b"\0" * 20, b"a" + b"\0" * 60 + b"b"]
)
@given(data=st.data())
def test_among_zeros_and_in_holes_a_canary_is_found_where_a_plain_search_finds_it(needle, data):
    zeros = st.integers(0, 300).map(bytes)
    parts = st.one_of(zeros, st.just(needle), st.just(needle.hex().encode()), st.binary(max_size=40))
    content = b"".join(data.draw(st.lists(parts, max_size=12)))
    at = [found for found in range(len(content)) if content.startswith(needle, found)]

    with pytest.MonkeyPatch.context() as patch, tempfile.NamedTemporaryFile() as file:
        patch.setattr(module, "_CHUNK", 64)
        file.write(content)
        file.flush()
        for place in (content, Path(file.name)):
            assert [hit.offset for hit in scan(needle, place) if hit.form == "raw"] == at


def test_a_canary_between_holes_of_a_file_is_found(tmp_path):
    size, at = 50_000_000, [123_456, 10_000_000, 49_999_000]
    with (tmp_path / "index").open("wb") as file:
        file.truncate(size)
        for place in at:
            file.seek(place)
            file.write(CANARY)
    (tmp_path / "hole").touch()
    os.truncate(tmp_path / "hole", size)

    assert [hit.offset for hit in scan(CANARY, tmp_path)] == at
    assert (tmp_path / "index").stat().st_size == size


def test_a_needle_of_zeros_is_an_error():
    with pytest.raises(ValueError, match="everywhere"):
        scan(bytes(20), bytes(100))


def test_files_below_folders_are_read(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "00000000.log").write_bytes(CANARY)

    (hit,) = scan(CANARY, tmp_path)

    assert hit.place.endswith("a/b/00000000.log")


def test_nothing_to_scan_is_an_error(tmp_path):
    for places in [(), (tmp_path,), (tmp_path / "absent",)]:
        with pytest.raises(ValueError, match=r"no place|no file"):
            scan(CANARY, *places)


def test_a_needle_that_chance_could_write_is_an_error():
    with pytest.raises(ValueError, match="too short"):
        scan(b"short", b"short")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory_of_a_process_is_read():
    # Made in the process itself, so that it stands in no argument, file or environment variable.
    program = "import sys, time; made = bytes(b ^ 1 for b in bytes.fromhex(sys.argv[1])); print(flush=True); time.sleep(60)"
    masked = bytes(byte ^ 1 for byte in CANARY).hex()
    process = subprocess.Popen([sys.executable, "-c", program, masked], stdout=subprocess.PIPE)
    try:
        process.stdout.readline()

        assert "raw" in {hit.form for hit in scan_memory(CANARY, process.pid)}
        assert scan_memory(b"another canary, not there"[::-1], process.pid) == []
    finally:
        process.kill()
        process.communicate()


def test_memory_of_no_process_is_an_error():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()

    with pytest.raises(ProcessLookupError):
        scan_memory(CANARY, process.pid)
