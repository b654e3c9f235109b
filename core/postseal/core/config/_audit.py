"""What a policy file says of the audit and the alarm, and what is made of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from postseal.core.audit import AlarmLimits, AuditSink, FloodLimit
from postseal.core.config._kinds import (
    Count,
    Duration,
    FileName,
    Flag,
    Option,
    Schema,
    Size,
    Table,
    Text,
    Word,
    name_of,
    shown,
)
from postseal.core.config._report import At
from postseal.core.config._secrets import Secret

__all__ = ["ALARM", "AUDIT", "alarm_of", "file_of", "flood_of", "syslog_of"]

_PERCENT: Final = re.compile(r"(\d+(?:\.\d+)?) ?%")
_FACILITIES: Final = (
    *("kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp"),
    *(f"local{number}" for number in range(8)),
)
"""Those that every platform's standard library knows. Source: RFC 5424 6.2.1."""


class Share:
    """A share of all messages, as a percentage."""

    words = 'a percentage: `"1%"`'

    def read(self, value: object, at: At) -> float | None:
        """Return it as a number from 0 to 1."""
        found = _PERCENT.fullmatch(value) if isinstance(value, str) else None
        if found is None:
            at.wrong(f'{name_of(at)} must be a percentage like "1%", not {shown(value)}')
            return None
        if not 0 < (share := float(found[1]) / 100) <= 1:
            at.wrong(f"{name_of(at)} must be over 0% and at most 100%, not {shown(value)}")
            return None
        return share

    def schema(self) -> Schema:
        """Say how one is written."""
        return {"type": "string", "pattern": f"^{_PERCENT.pattern}$"}


FLOOD: Final = Table(
    Option(
        "first",
        Count(0, 10**6),
        "Events of each verdict and destination told whole in an interval.",
        default=5,
    ),
    Option("most", Count(0, 10**6), "Events of all kinds told whole in an interval.", default=30),
    Option("interval", Duration(most=86400.0), "How long that is, from a second to a day.", default="1m"),
    what="the limit of an audit",
)
_EVERY: Final = Option(
    "every_event",
    Flag(),
    "Whether a flood of refused messages is written whole, instead of as numbers.",
    default=False,
)
_FILE: Final = Table(
    Option(
        "path",
        FileName(),
        "Where it is; relative to this file. Older ones are `PATH.1` and so on.",
        required="where is it to be?",
    ),
    _EVERY,
    Option("limit", FLOOD, "What is told whole of a flood."),
    Option(
        "required",
        Flag(),
        "Whether an event must be on disk before its message is settled: where it cannot be written, the message is kept.",
        default=False,
    ),
    Option(
        "chained",
        Flag(),
        "Whether each line carries the hash of the one before: see `postseal audit verify`.",
        default=False,
    ),
    Option("secret", Secret(), "Keys the chain, which is on then. At least 32 random bytes."),
    Option("max_bytes", Size(2**40), "Size at which a new file is begun; at least 4 KiB.", default="100MiB"),
    Option("keep", Count(1, 10_000), "Older files that are kept.", default=10),
    what="[audit.file]",
)
_SYSLOG: Final = Table(
    Option("address", Text("the path of a socket, or `host:port`"), "Where syslog is.", default="/dev/log"),
    Option("tcp", Flag(), "Over TCP instead of UDP.", default=False),
    Option("facility", Word(*_FACILITIES), "The facility.", default="authpriv"),
    _EVERY,
    Option("limit", FLOOD, "What is told whole of a flood."),
    what="[audit.syslog]",
)
AUDIT: Final = Table(
    Option("log", FLOOD, "What `logging` is told whole of a flood."),
    Option("file", _FILE, "A file of JSON lines: `[audit.file]`."),
    Option("syslog", _SYSLOG, "A syslog server: `[audit.syslog]`."),
    what="[audit]",
    elsewhere={
        **{name: "[audit.file]" for name in _FILE.options if name not in _SYSLOG.options},
        **{name: "[audit.syslog]" for name in _SYSLOG.options if name not in _FILE.options},
    },
)
ALARM: Final = Table(
    Option("on", Flag(), "Whether there is an alarm.", default=True),
    Option(
        "share", Share(), "Refused messages, of all that came in the window, that raise it.", default="1%"
    ),
    Option("least", Count(1, 10**9), "Refused messages that there must be, however few came.", default=100),
    Option(
        "window", Duration(most=86400.0), "How long is looked back, from a second to a day.", default="1m"
    ),
    what="[alarm]",
)


def flood_of(options: Mapping[str, Any]) -> FloodLimit:
    """Make the limit that *options* name."""
    return FloodLimit(**options)


def alarm_of(options: Mapping[str, Any]) -> AlarmLimits | None:
    """Make the limits of the alarm; None where it is off."""
    limits = AlarmLimits(**{name: value for name, value in options.items() if name != "on"})
    return limits if options.get("on", True) else None


def file_of(options: Mapping[str, Any], path: Path) -> AuditSink:
    """Make the file at *path*."""
    from postseal.core.audit.files import AuditFile  # noqa: PLC0415 - for who has one

    passed = ("required", "chained", "secret", "max_bytes", "keep")
    return AuditFile(
        path, limit=_limit(options), **{name: options[name] for name in passed if name in options}
    )


def syslog_of(options: Mapping[str, Any]) -> AuditSink:
    """Make the way to syslog."""
    from postseal.core.audit.syslog import AuditSyslog  # noqa: PLC0415 - for who has one

    where: str = options.get("address", "/dev/log")
    host, _, port = where.rpartition(":")
    address: str | tuple[str, int] = (host, int(port)) if host and port.isdecimal() else where
    passed = {name: options[name] for name in ("tcp", "facility") if name in options}
    return AuditSyslog(address, limit=_limit(options), **passed)


def _limit(options: Mapping[str, Any]) -> FloodLimit | None:
    return None if options.get("every_event") else flood_of(options.get("limit", {}))
