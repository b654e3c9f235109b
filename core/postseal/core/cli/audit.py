"""``postseal audit``: check the chain of an audit file, add up what is in it."""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from postseal.core.audit.chain import Report, verify
from postseal.core.cli._console import console, print_json, printable, sign_for
from postseal.core.errors import ConfigError, nearest

__all__ = ["app"]

app = typer.Typer(help="Check an audit file, and add up what is in it.")

_SHOWN: Final = 10
"""Problems shown; ``--json`` has up to 100."""
_ROWS: Final = 20


@app.command("verify")
def verify_command(
    files: Annotated[
        list[str], typer.Argument(metavar="FILE...", help="The current file and older ones, in any order.")
    ],
    *,
    secret_file: Annotated[
        Path | None,
        typer.Option(help="File with the chain's secret: raw bytes, hex or base64.", metavar="FILE"),
    ] = None,
    secret_env: Annotated[
        str | None,
        typer.Option(help="Environment variable with the chain's secret in hex or base64.", metavar="NAME"),
    ] = None,
    no_head: Annotated[
        bool,
        typer.Option(
            "--no-head",
            help="Do not demand a head beside the files: what was cut off at the end is not missed.",
        ),
    ] = False,
    from_start: Annotated[bool, typer.Option("--from-start", help="Demand line number 1.")] = False,
    expect: Annotated[
        str | None,
        typer.Option(
            help="Number and hash of a line noted before, which must still be there.", metavar="N:HASH"
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Check that no line of a chained audit file was altered, taken out, moved or cut off.

    Exit code 1: one was; the first is named. Note the number and hash that it prints: with --expect the next run proves that nothing of
    before was replaced, whoever knows the secret.
    """
    secret = _secret(secret_file, secret_env)
    expected = _expected(expect)
    report = verify(
        _files(files), secret=secret, needs_head=not no_head, from_start=from_start, expected=expected
    )
    if as_json:
        print_json(_as_dict(report, keyed=secret is not None))
    else:
        _show(console(), report, keyed=secret is not None)
    if not report.ok:
        raise typer.Exit(1)


@app.command("summary")
def summary_command(
    files: Annotated[list[str], typer.Argument(metavar="FILE...", help="Audit files, in any order.")],
    *,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Count the events of audit files by verdict, destination and the sender that a message named. Proves nothing: see verify."""
    found = _summed(_files(files))
    if as_json:
        print_json(found.as_dict())
    else:
        _show_summary(console(), found)


# -- verify ------------------------------------------------------------------------------------------------------------


def _files(names: Sequence[str]) -> list[Path]:
    paths = [
        Path(name) for name in names if not name.endswith((".head", ".lock"))
    ]  # of a shell's audit.jsonl*
    for path in paths:
        if not path.is_file():
            near = nearest(
                str(path),
                [str(each) for each in path.parent.glob("*") if each.is_file()]
                if path.parent.is_dir()
                else [],
            )
            raise ConfigError(f"there is no file {str(path)!r}{near if 'did you mean' in near else ''}")
    if not paths:
        raise ConfigError("only heads and locks were named: name the audit files")
    return paths


def _secret(file: Path | None, name: str | None) -> bytes | None:
    if file is not None and name is not None:
        raise ConfigError("--secret-file and --secret-env name two secrets: give one")
    if file is not None:
        try:
            data = file.read_bytes()
        except OSError as error:
            raise ConfigError(f"the secret cannot be read: {error.strerror}") from None
        return _decoded(data.decode("ascii", "replace").strip()) or data
    if name is not None:
        import os

        value = os.environ.get(name)
        if value is None:
            raise ConfigError(f"there is no environment variable {name!r}")
        return _decoded(value.strip()) or value.encode()
    return None


def _decoded(text: str) -> bytes | None:
    """Return what hex or base64 stands for, as in the policy file; None where it is neither."""
    if (found := _unhexed(text)) is not None:
        return found
    try:
        return base64.b64decode(text, validate=True) or None
    except ValueError:
        return None


def _unhexed(text: str) -> bytes | None:
    try:
        return bytes.fromhex(text) or None
    except ValueError:
        return None


def _expected(text: str | None) -> tuple[int, str] | None:
    if text is None:
        return None
    number, _, value = text.partition(":")
    if not number.isdecimal() or len(value) != 64 or _unhexed(value) is None:  # noqa: PLR2004 - SHA-256 in hex
        raise ConfigError(f"--expect is a number, a colon and 64 hex digits: {text!r}")
    return int(number), value.lower()


def _as_dict(report: Report, *, keyed: bool) -> dict[str, Any]:
    return {
        "ok": report.ok,
        "keyed": keyed,
        "lines": report.lines,
        "first": report.first,
        "last": report.last,
        "last_hash": report.last_hash,
        "problems": [problem._asdict() for problem in report.problems],
        "remarks": list(report.remarks),
    }


def _show(out: Console, report: Report, *, keyed: bool) -> None:
    for problem in report.problems[:_SHOWN]:
        where = f"{problem.file}:{problem.line}" if problem.line else problem.file
        out.print(Text(f"{sign_for(out, good=False)} {printable(where)}: {problem.what}", style="red"))
    if (more := len(report.problems) - _SHOWN) > 0:
        out.print(f"  and {more} more")
    for remark in report.remarks:
        out.print(Text(f"  {remark}", style="dim"))
    if report.ok:
        how = "keyed" if keyed else "not keyed: whoever can write the file can make another chain"
        out.print(
            Text(
                f"{sign_for(out, good=True)} {report.lines:,} lines, numbers {report.first} to {report.last}, hang together ({how})",
                style="green",
            )
        )
    out.print(Text(f"  last: {report.last}:{report.last_hash}", style="dim"), soft_wrap=True)


# -- summary -----------------------------------------------------------------------------------------------------------


class _Sum(NamedTuple):
    """What the files hold in all."""

    events: Counter[tuple[str, str, str]]
    """By verdict, destination, and sender as the message names him."""
    alarms: int
    lost: int
    unread: int
    since: str
    until: str

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON takes it."""
        rows = [
            {"verdict": verdict, "destination": destination, "unverified_sender": sender, "events": count}
            for (verdict, destination, sender), count in self.events.most_common()
        ]
        return {
            "events": sum(self.events.values()),
            "by": rows,
            "alarms": self.alarms,
            "lost_lines": self.lost,
            "unread_lines": self.unread,
            "since": self.since or None,
            "until": self.until or None,
        }


def _summed(files: Iterable[Path]) -> _Sum:
    events: Counter[tuple[str, str, str]] = Counter()
    alarms = lost = unread = 0
    times: list[str] = []
    for file in files:
        with file.open(encoding="utf-8", errors="replace") as lines:
            for text in lines:
                line = _parsed(text)
                if line is None:
                    unread += 1
                    continue
                if isinstance(time := line.get("time"), str):
                    times = [min([*times[:1], time]), max([*times[1:], time])]
                kind = line.get("kind")
                if kind in ("event", "more"):
                    sender = line.get("unverified_sender") or (
                        "?" if kind == "event" else "(not told one by one)"
                    )
                    what = str(line.get("verdict")), str(line.get("destination")), str(sender)
                    events[what] += int(line.get("events", 1))
                alarms += kind == "alarm" and line.get("raised") is True
                lost += int(line.get("count", 0)) if kind == "lost" else 0
    since, until = (times[0], times[-1]) if times else ("", "")
    return _Sum(events, alarms, lost, unread, since, until)


def _parsed(text: str) -> Mapping[str, Any] | None:
    try:
        line = json.loads(text)
    except ValueError:
        return None
    return line if isinstance(line, dict) else None


def _show_summary(out: Console, found: _Sum) -> None:
    if not found.events:
        out.print("no events")
    else:
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("events", justify="right")
        for name in ("verdict", "destination", "sender, unverified"):
            table.add_column(name, overflow="fold")
        for (verdict, destination, sender), count in found.events.most_common(_ROWS):
            table.add_row(f"{count:,}", printable(verdict), printable(destination), printable(sender))
        out.print(table)
        if (more := len(found.events) - _ROWS) > 0:
            out.print(f"and {more} more rows: --json has all")
    words = [f"{sum(found.events.values()):,} events", f"{found.alarms:,} alarms"]
    words += [f"{found.lost:,} lines lost"] if found.lost else []
    words += [f"{found.unread:,} lines not read"] if found.unread else []
    span = f", {printable(found.since)} to {printable(found.until)}" if found.since else ""
    out.print(Text("; ".join(words) + span, style="dim"))
