"""Moves stored envelopes to other wrapping keys: their data keys are wrapped anew, their bodies are not touched.

In *confidentiality* nothing authenticates the recipients, so whoever can unwrap the data key can put others in their place. In *privacy*
the sender's signature covers them: such an envelope cannot be moved without the sender, and stays as it is. *Integrity* wraps nothing.

Source: SPEC.md 3.1, 3.2 and 8.
"""

from __future__ import annotations

import base64
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeAlias

from postseal.core.crypto import MessageKey, equal
from postseal.core.errors import ConfigError, KeyBroken, KeyRefused, NotMine, Refused, Verdict
from postseal.core.keys import KeyContext, KeyProvider
from postseal.core.recovery._dumps import BODIES, Kept, decoded, looked_at, message_of_line
from postseal.core.references import References, is_short
from postseal.core.wire import Envelope, Protection, Recipient, decode, encode_recipients, looks_sealed

__all__ = ["Moved", "Rewrapper", "rewrap_dump"]

_MOST: Final = 4096
"""Data keys whose new recipients are kept at once."""
_SIGNED: Final = (
    "its sender signed its recipients, too: only the sender can seal it for others, and it stays as it is"
)
_DIRECT: Final = "the key service encrypted its body itself: it has no data key that another key could wrap"
_NOTHING: Final = "it hides nothing, so there is nothing to wrap"
_LEFT_BEFORE: Final = "by an earlier run, which told why; a new folder to try it again"


class Rewrapper:
    """Wraps the data keys of envelopes anew.

    Args:
        old: Unwraps them now.
        new: Is to unwrap them from now on.
        keep: Whether the recipients that are there stay beside the new ones.
        references: Records that envelopes name whose data keys travel by reference: moved, these carry theirs.

    It has data keys in memory, one at a time, and keeps none.
    """

    def __init__(
        self, old: KeyProvider, new: KeyProvider, *, keep: bool = False, references: References | None = None
    ) -> None:
        self._old, self._new, self._keep = old, new, keep
        self._references = references
        self._known: dict[tuple[str, str, bytes | None, bytes], tuple[Recipient, ...]] = {}

    def rewrap(self, envelope: bytes) -> bytes:
        """Return *envelope* with other recipients; all else in it is the same, byte for byte.

        Raises:
            Refused: It cannot be moved; the detail says why.
            KeyUnavailable: A key service did not answer. Try again.
            KeyRefused: The new one said no.
        """
        if self._references is not None and is_short(envelope):
            envelope = self._references.fetch(envelope)
        parsed = decode(envelope)
        if parsed.header.protection is Protection.INTEGRITY:
            raise Refused(Verdict.DOWNGRADE, _NOTHING)
        if parsed.header.protection is Protection.PRIVACY:
            raise Refused(Verdict.DOWNGRADE, _SIGNED)
        if parsed.header.direct:
            raise Refused(Verdict.DOWNGRADE, _DIRECT)
        before = envelope[: len(envelope) - len(parsed.recipients_bytes)]
        moved = before + encode_recipients(self._recipients(parsed))
        decode(moved)  # what is written can be read
        return moved

    def _recipients(self, envelope: Envelope) -> tuple[Recipient, ...]:
        header = envelope.header
        place = header.policy, header.destination, header.commitment, envelope.recipients_bytes
        found = self._known.get(place)
        if found is None:
            found = self._wrapped(envelope)
            if len(self._known) >= _MOST:
                self._known.clear()
            self._known[place] = found
        return found

    def _wrapped(self, envelope: Envelope) -> tuple[Recipient, ...]:
        header = envelope.header
        context = KeyContext(header.policy, header.destination)
        try:
            data_key = self._old.unwrap(envelope.recipients, context)
        except NotMine:
            raise Refused(Verdict.UNKNOWN_KEY, "its data key was not wrapped for the old key") from None
        except KeyRefused as refused:
            raise Refused(Verdict.UNKNOWN_KEY, str(refused)) from None
        except KeyBroken:
            raise Refused(Verdict.FORGED, "what was wrapped for the old key is changed") from None
        try:
            # Else a forger could have a key of his own wrapped for us.
            if not equal(MessageKey(data_key).commitment, header.commitment or b""):
                raise Refused(Verdict.FORGED, "its data key is not the one that it is committed to")
            added = self._new.wrap(data_key, context)
        finally:
            del data_key  # a traceback shows the locals of its frames to whoever asks
        names = {recipient[:2] for recipient in added}
        kept = [r for r in envelope.recipients if r[:2] not in names] if self._keep else []
        return (*added, *kept)


class Moved:
    """What came of a dump, counted in messages."""

    def __init__(self) -> None:
        self.moved = 0
        self.before = 0
        """Written by an earlier run."""
        self.left: Counter[str] = Counter()
        """Copied as they were, by verdict and reason."""
        self.examples: dict[str, list[str]] = {}

    @property
    def seen(self) -> int:
        """How many there were."""
        return self.moved + self.before + self.left.total()

    def leave(self, source: str, reason: str) -> None:
        """Count a message that was copied as it was."""
        self.left[reason] += 1
        examples = self.examples.setdefault(reason, [])
        if len(examples) < 3:  # noqa: PLR2004 - a few will do
            examples.append(source)

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {
            "messages": self.seen,
            "moved": self.moved,
            "written_before": self.before,
            "left": self.left.total(),
            "reasons": [
                {"reason": reason, "messages": count, "examples": self.examples[reason]}
                for reason, count in self.left.most_common()
            ],
        }


def rewrap_dump(
    path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    rewrapper: Rewrapper,
    *,
    progress: Callable[[Moved], None] = lambda moved: None,  # noqa: ARG005 - nobody looks
) -> Moved:
    """Write what is at *path* to *out*, moved to other wrapping keys; what cannot be moved is copied as it is.

    Args:
        path: A folder of files, of which each is written under its name; or a file. The formats are those of `recovery.read_dump`.
        out: A folder. That of an earlier run is gone on with: what it has written whole is not done again, and what it left as it was is
            told as left.
        rewrapper: Moves each.
        progress: Told after each message.

    Raises:
        ConfigError: There is nothing, or *out* cannot be written to or lies in *path*.
        KeyUnavailable: A key service did not answer. What was written stands: run it again.
    """
    root, target = Path(path), Path(out)
    if not root.exists():
        raise ConfigError(f"there is no {str(path)!r}")
    if root.resolve() == target.resolve() or root.resolve() in target.resolve().parents:
        raise ConfigError("the new envelopes must not be written among the old ones")
    files = sorted(each for each in root.rglob("*") if each.is_file()) if root.is_dir() else [root]
    moved = Moved()
    for file in files:
        name = str(file.relative_to(root)) if root.is_dir() else file.name
        try:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            _file(file, target / name, name, rewrapper, moved, progress)
        except OSError as error:
            raise ConfigError(f"{name!r} cannot be read or written: {error.strerror}") from None
    return moved


def _file(  # noqa: PLR0917 - from where, to where, by whom, and who is told
    file: Path,
    to: Path,
    name: str,
    rewrapper: Rewrapper,
    moved: Moved,
    progress: Callable[[Moved], None],
) -> None:
    """Write one file, under another name until it is whole; go on with what an earlier run has written of it."""
    part = to.with_name(f"{to.name}.part")
    with file.open("rb") as given:
        kind = looked_at(given)
        messages = _READERS[kind](given, name)
        if to.exists():
            with to.open("rb") as written:
                _taken_up(messages, written, kind, moved)
            return
        with part.open("r+b" if part.exists() else "w+b") as written:
            count = _whole(written, kind)
            end = written.tell()
            written.seek(0)
            _taken_up(islice(messages, count), written, kind, moved)
            written.seek(end)
            for kept, write in messages:
                written.write(write(_one(kept, rewrapper, moved)))
                progress(moved)
    part.replace(to)


def _taken_up(messages: Iterator[tuple[Kept, _Write]], written: BinaryIO, kind: str, moved: Moved) -> None:
    """Count what an earlier run has written of *messages*: moved, or left as it was, which must never be taken for moved."""
    stands = _READERS[kind](written, "")
    for kept, write in messages:
        there = next(stands, None)
        if there is None or there[1](None) == write(None):
            moved.leave(kept.source, _LEFT_BEFORE)
        else:
            moved.before += 1


def _one(kept: Kept, rewrapper: Rewrapper, moved: Moved) -> bytes | None:
    """Return the moved envelope; None where the old one stays."""
    if kept.trouble:
        moved.leave(kept.source, f"{Verdict.MALFORMED.value}: {kept.trouble}")
        return None
    try:
        envelope = rewrapper.rewrap(kept.envelope)
    except Refused as refused:
        moved.leave(kept.source, f"{refused.verdict.value}: {refused.detail}")
        return None
    moved.moved += 1
    return envelope


# -- formats -----------------------------------------------------------------------------------------------------------

_Write: TypeAlias = Callable[[bytes | None], bytes]
"""Gives what to write for a moved envelope, or for None the message as it stood there."""


def _whole(written: BinaryIO, kind: str) -> int:
    """Count the whole messages that an earlier run has written, and cut off the one in which it was stopped."""
    count = end = 0
    if kind == "jsonl":
        for line in written:
            if not line.endswith(b"\n"):
                break
            count, end = count + bool(line.strip()), end + len(line)
    elif kind == "lengths":
        size = written.seek(0, os.SEEK_END)
        while end + 4 <= size:
            written.seek(end)
            after = end + 4 + int.from_bytes(written.read(4), "big")
            if after > size:
                break
            count, end = count + 1, after
    written.seek(end)
    written.truncate()
    return count


def _of_one(given: BinaryIO, name: str) -> Iterator[tuple[Kept, _Write]]:
    content = given.read()
    envelope = decoded(content)
    raw = looks_sealed(content)
    yield (
        Kept(name, envelope),
        lambda moved: content if moved is None else moved if raw else base64.b64encode(moved) + b"\n",
    )


def _of_lengths(given: BinaryIO, name: str) -> Iterator[tuple[Kept, _Write]]:
    number = 0
    while head := given.read(4):
        number += 1
        size = int.from_bytes(head, "big")
        envelope = given.read(size) if len(head) == 4 and size < 1 << 31 else b""  # noqa: PLR2004 - the format
        cut = len(head) < 4 or len(envelope) < size  # noqa: PLR2004
        trouble = "the file ends within it, or its length is wrong" if cut else ""
        stood = head + envelope + (given.read() if cut else b"")
        yield (
            Kept(f"{name}:{number}", envelope, trouble=trouble),
            lambda moved, stood=stood: stood if moved is None else len(moved).to_bytes(4, "big") + moved,  # type: ignore[misc]  # bound now
        )


def _of_lines(given: BinaryIO, name: str) -> Iterator[tuple[Kept, _Write]]:
    for number, line in enumerate(given, 1):
        if line.strip():
            stood = line if line.endswith(b"\n") else line + b"\n"
            yield message_of_line(line, f"{name}:{number}"), partial(_line, stood)


def _line(stood: bytes, moved: bytes | None) -> bytes:
    if moved is None:
        return stood
    message = json.loads(stood)
    field = next(name for name in BODIES if name in message)
    return json.dumps(message | {field: base64.b64encode(moved).decode()}).encode() + b"\n"


_READERS: Final[dict[str, Callable[[BinaryIO, str], Iterator[tuple[Kept, _Write]]]]] = {
    "envelopes": _of_one,
    "lengths": _of_lengths,
    "jsonl": _of_lines,
}
