"""Look for a secret where it must not be: in files, in bytes, in the memory of a process.

Found are the bytes as they are and as base64, base64url, hex, or UTF-16 (a Java or Windows string). Not found are
compressed, encrypted, or escaped forms, and base64 broken into lines.
"""

import base64
import contextlib
import errno
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from io import RawIOBase
from pathlib import Path

_CHUNK = 64 * 1024
_PAGE = 4096
# Most of what a server maps and much of what it writes is this: index files made long, memory not used yet. Half of UTF-16 is zeros, too, so
# a search through them is slow, and in vain.
_ZEROS = bytes(_CHUNK)
# Fewer bytes may well be met by chance, above all in hex and base64, of which the ends are cut.
_SHORTEST = 12


@dataclass(frozen=True, slots=True)
class Hit:
    """One place where the secret was found.

    Args:
        place: The file, or the range of memory.
        offset: Bytes from the start of that place.
        form: How it was written there.
    """

    place: str
    offset: int
    form: str


def scan(needle: bytes, *places: Path | bytes) -> list[Hit]:
    """Look for *needle* in files, in all files below folders, and in bytes.

    Files are read in pieces, so their size does not matter. One that vanishes meanwhile is passed over.

    Raises:
        ValueError: *needle* is too short, or a place does not exist or is an empty folder: a scan of nothing proves
            nothing.
    """
    if not places:
        raise ValueError("no place to look in")
    forms = _forms(needle)
    hits: list[Hit] = []
    for place in places:
        if isinstance(place, bytes):
            hits += _search(forms, "bytes", _pieces_of(place))
        else:
            for file in _files(place):
                with contextlib.suppress(FileNotFoundError):
                    hits += _search(forms, str(file), _read(file))
    return hits


def scan_memory(needle: bytes, pid: int) -> list[Hit]:
    """Look for *needle* in the memory of a process: all that a core dump would hold, and its mapped files.

    The process stands still meanwhile, as for a core dump.

    Raises:
        PermissionError: This process may not read the other's memory.
        ProcessLookupError: There is no such process.
    """
    forms = _forms(needle)
    os.kill(pid, signal.SIGSTOP)
    try:
        return [hit for place, pieces in _memory(pid) for hit in _search(forms, place, pieces)]
    finally:
        os.kill(pid, signal.SIGCONT)


def _forms(needle: bytes) -> dict[str, bytes]:
    if len(needle) < _SHORTEST:
        raise ValueError(f"a needle of {len(needle)} bytes is too short: {_SHORTEST} or more")
    if not any(needle):
        raise ValueError("a needle of zeros is everywhere")
    forms = {"raw": needle, "hex": needle.hex().encode(), "HEX": needle.hex().upper().encode()}
    if needle.isascii():
        forms["UTF-16"] = needle.decode("ascii").encode("utf-16-le")
    for before in range(3):
        forms |= _base64(needle, before)
    return forms


def _base64(needle: bytes, before: int) -> dict[str, bytes]:
    """Write *needle* as it appears in the base64 of a longer text, *before* bytes after a group of three begins."""
    written = base64.b64encode(bytes(before) + needle)
    # A character stands for six bits. Those that also stand for bits of what comes before or after are unknown.
    first = -(-before * 8 // 6)
    last = (before + len(needle)) * 8 // 6
    standard = written[first:last]
    url = standard.translate(bytes.maketrans(b"+/", b"-_"))
    found = {f"base64+{before}": standard}
    return found if url == standard else {**found, f"base64url+{before}": url}


def _search(forms: dict[str, bytes], place: str, pieces: Iterable[bytes]) -> Iterator[Hit]:
    overlap = max(map(len, forms.values())) - 1
    start, window = 0, b""
    for piece in pieces:
        kept = window[-overlap:]
        start += len(window) - len(kept)
        window = kept + piece
        # Among zeros nothing is found but what began before them.
        looked = kept + piece[:overlap] if piece == _ZEROS[: len(piece)] else window
        for form, written in forms.items():
            # What ends within the kept part was found with the piece before.
            at = looked.find(written, max(0, len(kept) - len(written) + 1))
            while at >= 0:
                yield Hit(place, start + at, form)
                at = looked.find(written, at + 1)


def _pieces_of(content: bytes) -> Iterator[bytes]:
    return (content[at : at + _CHUNK] for at in range(0, len(content), _CHUNK))


def _files(place: Path) -> list[Path]:
    # Folders vanish, too, while a broker runs: `Path.rglob` would fail of it.
    below = (Path(folder, name) for folder, _, names in os.walk(place) for name in names)
    files = [place, *sorted(below)]
    files = [file for file in files if file.is_file() and not file.is_symlink()]
    if not files:
        raise ValueError(f"{place} holds no file")
    return files


def _read(file: Path) -> Iterator[bytes]:
    """Read a file in pieces. Its holes, which read as zeros, are not read."""
    with file.open("rb", buffering=0) as stream:
        data = 0
        while True:
            at = stream.tell()
            data = data if data > at else _next_data(stream, at)
            if at + _CHUNK <= data:
                stream.seek(_CHUNK, os.SEEK_CUR)
                yield _ZEROS[:_CHUNK]
            elif piece := stream.read(_CHUNK):
                yield piece
            else:
                return


def _next_data(stream: RawIOBase, at: int) -> int:
    """Find where a file goes on after a hole, if it has any there."""
    try:
        found = os.lseek(stream.fileno(), at, os.SEEK_DATA)
    except OSError as error:
        # Not a file that has holes; or nothing but a hole up to its end.
        found = os.fstat(stream.fileno()).st_size if error.errno == errno.ENXIO else at
    stream.seek(at)
    return found


def _memory(pid: int) -> Iterator[tuple[str, Iterator[bytes]]]:
    with Path(f"/proc/{pid}/maps").open() as maps:
        ranges = [line.split(maxsplit=5) for line in maps]
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for span, mode, _, _, _, *name in ranges:
            label = name[0].strip() if name else "anonymous"
            # The last two belong to the kernel; a device has no memory of the process.
            if "r" not in mode or label.startswith(("/dev/", "[vvar", "[vsyscall")):
                continue
            low, high = (int(end, 16) for end in span.split("-"))
            yield f"memory {span} {label}", _pieces_between(low, high, memory.seek, memory.read)


def _pieces_between(
    low: int, high: int, seek: Callable[[int], int], read: Callable[[int], bytes | None]
) -> Iterator[bytes]:
    while low < high:
        try:
            seek(low)
            piece = read(min(_CHUNK, high - low)) or b""
        except OSError:
            # A page beyond the end of a mapped file. The next one may be there.
            piece = b""
        if piece:
            yield piece
            low += len(piece)
        else:
            low += _PAGE
