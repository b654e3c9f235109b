"""Audit lines to syslog, through the standard library's handler, in the format of RFC 5424; and formatters for any handler of `logging`.

The formatters serve who would rather configure `logging`: attach them to a handler of the logger ``postseal.audit``.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from logging.handlers import SysLogHandler
from typing import Any, Final, NoReturn

from postseal.core.audit._flood import FloodLimit
from postseal.core.audit.files import encode
from postseal.core.errors import ConfigError, nearest

__all__ = ["AuditSyslog", "JsonFormatter", "Rfc5424Formatter"]

_SD_ID: Final = "postseal@32473"
"""Name of our structured data. 32473 is the enterprise number that RFC 5612 sets aside for names that have none."""
_PATIENCE: Final = 10.0
"""Seconds for which a server may keep a line waiting."""
_LEVELS: Final = {
    "event": logging.WARNING,
    "more": logging.WARNING,
    "lost": logging.ERROR,
    "alarm": logging.ERROR,
}


class JsonFormatter(logging.Formatter):
    """Formats a record of ``postseal.audit`` as the JSON object that an audit file has; others as ``{"message": ...}``."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line of ASCII."""
        values = getattr(record, "postseal", None)
        if not isinstance(values, Mapping):
            values = {"kind": "log", "time": _time(record), "message": record.getMessage()}
        return encode(values)


class Rfc5424Formatter(logging.Formatter):
    """Formats a record as RFC 5424 has it, behind its priority: what is told goes into structured data.

    Args:
        app_name: 1 to 48 printable ASCII characters without a space.
        sd_id: Name of the structured data; ``name@number``, where number is a private enterprise number.

    Raises:
        ConfigError: An argument has other characters, or is too long.
    """

    def __init__(self, *, app_name: str = "postseal", sd_id: str = _SD_ID) -> None:
        super().__init__()
        for what, name, longest in (("app_name", app_name, 48), ("sd_id", sd_id, 32)):
            if not 1 <= len(name) <= longest or not all("!" <= letter <= "~" for letter in name):
                raise ConfigError(f"syslog's {what} is 1 to {longest} printable ASCII characters: {name!r}")
        if set('="]') & set(sd_id):
            raise ConfigError(f"syslog's sd_id has none of = ] \": {sd_id!r}")
        self._app_name = app_name
        self._sd_id = sd_id
        self._host = _word(socket.gethostname(), 255)

    def format(self, record: logging.LogRecord) -> str:
        """Return one line of ASCII."""
        values = getattr(record, "postseal", None)
        data, kind = "-", "-"
        if isinstance(values, Mapping):
            kind = str(values.get("kind", "-"))
            parts = "".join(f' {name}="{_escaped(value)}"' for name, value in _flat(values))
            data = f"[{self._sd_id}{parts}]"
        message = record.getMessage().encode("ascii", "backslashreplace").decode()
        return f"1 {_time(record)} {self._host} {self._app_name} {os.getpid()} {_word(kind, 32)} {data} {message}"


class AuditSyslog:
    """Audit lines to a syslog server.

    Args:
        address: Path of a socket (``/dev/log``), or host and port.
        tcp: Over TCP, a line for each message (RFC 6587 3.4.2), instead of UDP, which tells nobody what is lost.
        facility: Name of the facility, as in RFC 5424.
        limit: How many events are told whole; None for every event.
        app_name: As of `Rfc5424Formatter`.
        sd_id: Likewise.

    Raises:
        ConfigError: An option is wrong. A server that does not answer is no such error: lines wait for it.
    """

    required = False

    def __init__(
        self,
        address: str | tuple[str, int] = "/dev/log",
        *,
        tcp: bool = False,
        facility: str = "authpriv",
        limit: FloodLimit | None = FloodLimit(),  # noqa: B008 - frozen
        app_name: str = "postseal",
        sd_id: str = _SD_ID,
    ) -> None:
        self.limit = limit
        names = SysLogHandler.facility_names
        if facility not in names:
            raise ConfigError(f"there is no syslog facility {facility!r}{nearest(facility, names)}")
        self._address = address
        self._facility = names[facility]
        self._type = socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM
        self._formatter = Rfc5424Formatter(app_name=app_name, sd_id=sd_id)
        self._handler: _Handler | None = None

    def __str__(self) -> str:
        where = self._address if isinstance(self._address, str) else ":".join(map(str, self._address))
        return f"syslog at {where}"

    def write(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Send *lines*.

        Raises:
            OSError: The server does not take them. Those that it took before come again.
        """
        if self._handler is None:
            self._handler = _Handler(self._address, self._facility, self._type)
            self._handler.setFormatter(self._formatter)
        try:
            for line in lines:
                self._handler.emit(_record(line))
        except BaseException:
            self.close()
            raise

    def reach(self) -> None:
        """Open the socket. Over UDP that tells nothing of who is there.

        Raises:
            OSError: Nobody takes lines there.
        """
        self.write(())

    def close(self) -> None:
        """Close the socket; `write` opens it again."""
        if self._handler is not None:
            self._handler.close()
            self._handler = None


class _Handler(SysLogHandler):
    """The standard handler, which raises what went wrong."""

    append_nul = False

    def __init__(self, address: str | tuple[str, int], facility: int, socktype: socket.SocketKind) -> None:
        super().__init__(address, facility, socktype)
        if socktype == socket.SOCK_STREAM and (opened := getattr(self, "socket", None)) is not None:
            opened.settimeout(_PATIENCE)
        self._ends = "\n" if socktype == socket.SOCK_STREAM else ""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, with what ends it on a stream."""
        return super().format(record) + self._ends

    def handleError(self, record: logging.LogRecord) -> NoReturn:  # noqa: ARG002, N802 - as `logging` has it
        """Raise what `emit` met."""
        error = sys.exc_info()[1]
        raise error if error is not None else OSError("syslog did not take a line")


def _record(line: Mapping[str, Any]) -> logging.LogRecord:
    kind = str(line.get("kind", "event"))
    texts = {
        "event": "%(verdict)s at %(destination)s",
        "more": "%(events)s more like it: %(verdict)s at %(destination)s",
        "lost": "%(count)s audit lines were lost",
        "alarm": "alarm: %(refused)s of %(deliveries)s messages were refused",
    }
    raised = line.get("raised", True)
    level = _LEVELS.get(kind, logging.WARNING) if raised else logging.WARNING
    text = texts.get(kind, "") if raised else "the alarm is over"
    record = logging.LogRecord("postseal.audit", level, "", 0, text, (dict(line),), None)
    record.postseal = line
    return record


def _flat(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return pairs of names and values; a mapping's own as ``outer.inner``. What is None is left out."""
    found = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            found += [(f"{name}.{inner}"[:32], str(each)[:256]) for inner, each in value.items()]
        elif value is not None:
            found.append((name[:32], str(value)[:256]))
    return [
        (_word(name, 32).replace("=", "_").replace("]", "_").replace('"', "_"), value)
        for name, value in found
    ]


def _escaped(value: str) -> str:
    """Escape as RFC 5424 6.3.3 says; what is no printable ASCII as Python does."""
    text = value.replace("\\", "\\\\").replace('"', '\\"').replace("]", "\\]")
    return "".join(
        letter if " " <= letter <= "~" else letter.encode("unicode_escape").decode().replace("\\", "\\\\")
        for letter in text
    )


def _word(text: str, longest: int) -> str:
    """Make one printable word of *text*."""
    return "".join(letter if "!" <= letter <= "~" else "_" for letter in text)[:longest] or "-"


def _time(record: logging.LogRecord) -> str:
    values = getattr(record, "postseal", None)
    if isinstance(values, Mapping) and isinstance(time := values.get("time"), str):
        return time
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
