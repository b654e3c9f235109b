"""A message as the broker sees it: what was sent, and what it looks like when it is handed out."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from . import encoding
from .entries import Entry

_DATA = bytes([0, 0x53, encoding.DATA])
_BEGINNINGS = tuple(bytes([0, 0x53, code]) for code in range(encoding.HEADER, encoding.FOOTER))


@dataclass(eq=False)
class Sent:
    """A message as it was sent, cut into sections; read where the broker must know something.

    Raises:
        Malformed: It is no AMQP message.
    """

    raw: bytes
    sections: dict[int, bytes] = field(init=False)
    bodies: list[bytes] = field(init=False)

    def __post_init__(self) -> None:
        self.sections, self.bodies = {}, []
        for code, section in encoding.sections(self.raw):
            if encoding.DATA <= code <= encoding.VALUE:
                self.bodies.append(section)
            elif code in self.sections:
                raise encoding.Malformed("a section twice")
            else:
                self.sections[code] = section

    @property
    def size(self) -> int:
        """Its length in bytes."""
        return len(self.raw)

    @property
    def ttl(self) -> float | None:
        """How long it wants to live, in seconds."""
        value = self._header[2]
        return None if value is None else int(value) / 1000

    @property
    def scheduled_at(self) -> float | None:
        """When it wants to be enqueued, in seconds since 1970."""
        return encoding.seconds(self._annotations.get("x-opt-scheduled-enqueue-time"))

    @property
    def message_id(self) -> str | None:
        """The sender's own identifier."""
        return encoding.text(self._fields[0])

    @property
    def to(self) -> str | None:
        """Whom it is for, as the sender says."""
        return encoding.text(self._fields[2])

    @property
    def subject(self) -> str | None:
        """Also known as label."""
        return encoding.text(self._fields[3])

    @property
    def reply_to(self) -> str | None:
        """Where answers go."""
        return encoding.text(self._fields[4])

    @property
    def correlation_id(self) -> str | None:
        """What it answers."""
        return encoding.text(self._fields[5])

    @property
    def content_type(self) -> str | None:
        """The type of its body."""
        return encoding.text(self._fields[6])

    @property
    def session_id(self) -> str | None:
        """The session that it belongs to."""
        return encoding.text(self._fields[10])

    @property
    def reply_to_session_id(self) -> str | None:
        """The session of the answer."""
        return encoding.text(self._fields[12])

    @cached_property
    def properties(self) -> dict[str, Any]:
        """What the application added."""
        section = self.sections.get(encoding.APPLICATION_PROPERTIES)
        return encoding.annotations_of(section) if section else {}

    @cached_property
    def _header(self) -> list[Any]:
        return self._list(encoding.HEADER, 5)

    @cached_property
    def _fields(self) -> list[Any]:
        return self._list(encoding.PROPERTIES, 13)

    @cached_property
    def _annotations(self) -> dict[str, Any]:
        section = self.sections.get(encoding.ANNOTATIONS)
        return encoding.annotations_of(section) if section else {}

    def _list(self, code: int, length: int) -> list[Any]:
        section = self.sections.get(code)
        found = encoding.fields_of(section) if section else []
        return found + [None] * (length - len(found))

    def handed_out(self, entry: Entry) -> bytes:
        """Write it as a receiver gets it: the sender's sections, with what the broker knows."""
        durable, priority = bool(self._header[0]), self._header[1]
        head = encoding.header(
            durable=durable,
            priority=4 if priority is None else int(priority),
            ttl=self.ttl,
            delivery_count=entry.delivery_count,
        )
        added = {
            "x-opt-enqueued-time": encoding.timestamp(entry.enqueued_at),
            "x-opt-sequence-number": encoding.long(entry.sequence),
            "x-opt-enqueue-sequence-number": encoding.long(entry.sequence),
            "x-opt-message-state": encoding.integer(entry.state),
        }
        if entry.lock is not None:
            added["x-opt-locked-until"] = encoding.timestamp(entry.lock.until)
        if entry.source is not None:
            added["x-opt-deadletter-source"] = encoding.string(entry.source)
        annotations = _joined(self.sections.get(encoding.ANNOTATIONS), added, encoding.symbolic)
        stamped = {name: encoding.string(value) for name, value in entry.stamps.items()}
        properties = self.sections.get(encoding.APPLICATION_PROPERTIES, b"")
        if stamped:
            joined = _joined(properties or None, stamped, encoding.string)
            properties = encoding.section_of_map(encoding.APPLICATION_PROPERTIES, joined)
        return b"".join(
            [
                head,
                encoding.section_of_map(encoding.ANNOTATIONS, annotations),
                self.sections.get(encoding.PROPERTIES, b""),
                properties,
                *self.bodies,
                self.sections.get(encoding.FOOTER, b""),
            ]
        )


def _joined(section: bytes | None, added: dict[str, bytes], write: Any) -> dict[bytes, bytes]:
    """Join a map as it came with values of the broker's, which replace those of the same name."""
    kept = {} if section is None else dict(encoding.pairs(section))
    for key in list(kept):
        # A key is a symbol or string: one byte of type, one or four of length, the name.
        name = key[2:] if key[0] in (0xA1, 0xA3) else key[5:]
        if name.decode(errors="replace") in added:
            del kept[key]
    return {**kept, **{write(name): value for name, value in added.items()}}


def arrived(raw: bytes) -> list[Sent]:
    """Read what arrived in one transfer: a message, or the messages of a batch.

    The transfer's format, which tells them apart, is not shown by proton, so the content must: a batch consists of
    data sections, each of which is a whole message.

    Raises:
        Malformed: It is neither.
    """
    whole = Sent(raw)
    if (
        encoding.HEADER in whole.sections
        or encoding.APPLICATION_PROPERTIES in whole.sections
        or not whole.bodies
    ):
        return [whole]
    inner = []
    for section in whole.bodies:
        content = encoding.binary(section) if section.startswith(_DATA) else b""
        # Quickly, for the many bodies that are none.
        if not content.startswith(_BEGINNINGS):
            return [whole]
        try:
            inner.append(Sent(content))
        except encoding.Malformed:
            return [whole]
    return inner
