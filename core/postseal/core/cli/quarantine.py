"""``postseal quarantine``: what was refused and kept: list it, look at it, send it back, drop it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Final, TypeAlias

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn
from rich.table import Table
from rich.text import Text

from postseal.core.cli._console import console, print_json, printable
from postseal.core.cli._quarantine import Held, Quarantine, open_quarantine, quarantine_by_policy
from postseal.core.cli.inspect import panel_of
from postseal.core.errors import ConfigError, Verdict, nearest

__all__ = ["app"]

app = typer.Typer(help="What was refused and kept: list it, look at it, send it back, drop it.")

_AGES: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}

_Where: TypeAlias = Annotated[
    str,
    typer.Argument(
        metavar="QUARANTINE",
        help="Its destination: kafka:orders.refused, rabbitmq:/refused, sqs:refused, servicebus:orders/$deadletterqueue.",
    ),
]
_At: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--at",
        metavar="ADDRESS",
        help="Where the broker is: bootstrap.servers, an AMQP URL, a connection string, an endpoint of SQS. By default what "
        "POSTSEAL_KAFKA, POSTSEAL_RABBITMQ, POSTSEAL_SERVICEBUS or POSTSEAL_SQS says; for SQS, AWS's own.",
    ),
]
_Policy: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--policy",
        metavar="FILE",
        help="A policy file: QUARANTINE is then the name of a policy, or a destination under one, whose quarantine is meant.",
    ),
]
_Ids: TypeAlias = Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="As list shows them.")]
_All: TypeAlias = Annotated[bool, typer.Option("--all", help="All that the filters let through.")]
_OfVerdict: TypeAlias = Annotated[
    str | None, typer.Option("--verdict", metavar="VERDICT", help="Refused for this reason alone.")
]
_Since: TypeAlias = Annotated[
    str | None, typer.Option("--since", metavar="TIME", help="A time with its zone, or an age: 90m, 2d.")
]
_Sender: TypeAlias = Annotated[
    str | None,
    typer.Option("--sender", metavar="NAME", help="From this sender, by their own unverified account."),
]
_Json: TypeAlias = Annotated[bool, typer.Option("--json", help="One JSON object a line for each message.")]


@app.command("list")
def list_command(
    where: _Where,
    *,
    at: _At = None,
    policy: _Policy = None,
    verdict: _OfVerdict = None,
    since: _Since = None,
    sender: _Sender = None,
    as_json: _Json = False,
) -> None:
    """List what lies in a quarantine, never a body."""
    chosen = _chooser(None, verdict, since, sender)
    with _opened(where, at, policy) as quarantine:
        found = list(_found(quarantine, chosen))
    if as_json:
        for held in found:
            print_json(held.as_dict())
        return
    _show_list(console(), found, where)


@app.command("show")
def show_command(
    where: _Where, ids: _Ids = None, *, at: _At = None, policy: _Policy = None, as_json: _Json = False
) -> None:
    """Show the parts of messages in quarantine as ``postseal inspect`` does, never a body. Exit code 1: one of them is not there."""
    if not ids:
        raise ConfigError("which? Name the ids that list shows")
    with _opened(where, at, policy) as quarantine:
        found = list(_found(quarantine, _chooser(ids, None, None, None)))
    out = console()
    for held in found:
        if as_json:
            print_json(held.as_dict())
            continue
        out.print(Text(printable(_line(held)), style="bold"))
        out.print(panel_of(held.id, held.body))
    _miss(ids, found)


@app.command("replay")
def replay_command(
    where: _Where,
    ids: _Ids = None,
    *,
    every: _All = False,
    to: Annotated[
        str | None,
        typer.Option("--to", metavar="DESTINATION", help="Where to; by default where each came from."),
    ] = None,
    at: _At = None,
    policy: _Policy = None,
    verdict: _OfVerdict = None,
    since: _Since = None,
    sender: _Sender = None,
    as_json: _Json = False,
) -> None:
    """Send messages back to where they came from, sealed as they are, when what they were refused for is mended.

    Each is taken out of the quarantine once the broker has it at home; on Kafka it stays there. If that is interrupted in between, a
    message is in both places: its copy is known to the consumer's ledger. Exit code 1: one of them is not there.
    """
    chosen = _chooser(_some(ids, every=every), verdict, since, sender)
    done: list[Held] = []
    with _opened(where, at, policy) as quarantine:
        for held in list(_found(quarantine, chosen, taking=True)):
            target = to or held.source
            if target is None:
                raise ConfigError(f"nothing says where {held.id} came from: say --to")
            quarantine.send_back(held, target)
            quarantine.sent_back(held)
            done.append(held)
            _tell(held, f"sent back to {target}", {"sent_to": target}, as_json=as_json)
    _miss(ids, done)


@app.command("drop")
def drop_command(
    where: _Where,
    ids: _Ids = None,
    *,
    every: _All = False,
    at: _At = None,
    policy: _Policy = None,
    verdict: _OfVerdict = None,
    since: _Since = None,
    sender: _Sender = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: _Json = False,
) -> None:
    """Take messages out of a quarantine for good. Asks first. Exit code 1: one of them is not there, or the answer was no."""
    chosen = _chooser(_some(ids, every=every), verdict, since, sender)
    with _opened(where, at, policy) as quarantine:
        found = list(_found(quarantine, chosen, taking=True))
        if (
            found
            and not yes
            and not typer.confirm(f"Drop {len(found)} messages of {where} for good?", err=True)
        ):
            raise typer.Exit(1)
        if found:
            quarantine.take_out(found)
        for held in found:
            _tell(held, "dropped", {"dropped": True}, as_json=as_json)
    _miss(ids, found)


def _opened(where: str, at: str | None, policy: Path | None) -> Quarantine:
    return open_quarantine(where if policy is None else quarantine_by_policy(where, policy), at)


# -- which -------------------------------------------------------------------------------------------------------------


class _Chooser:
    """Says which messages are meant."""

    def __init__(
        self, ids: list[str] | None, verdict: str | None, since: datetime | None, sender: str | None
    ) -> None:
        self._ids = None if ids is None else set(ids)
        self._verdict = verdict
        self._since = since
        self._sender = sender

    def __call__(self, held: Held) -> bool:
        return (
            (self._ids is None or held.id in self._ids)
            and (self._verdict is None or held.verdict == self._verdict)
            and (self._since is None or (held.at is not None and held.at >= self._since))
            and (self._sender is None or held.sender == self._sender)
        )


def _chooser(ids: list[str] | None, verdict: str | None, since: str | None, sender: str | None) -> _Chooser:
    verdicts = [each.value for each in Verdict]
    if verdict is not None and verdict not in verdicts:
        raise ConfigError(f"--verdict is {verdict!r}{nearest(verdict, verdicts)}")
    return _Chooser(ids, verdict, None if since is None else _time(since), sender)


def _time(text: str) -> datetime:
    if (age := re.fullmatch(r"(\d{1,6})([smhdw])", text)) is not None:
        return datetime.now(UTC) - timedelta(seconds=int(age[1]) * _AGES[age[2]])
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(
            f"--since is {text!r}: a time such as 2026-10-17T12:30:00+00:00, or an age such as 2d"
        ) from None
    if time.tzinfo is None:
        raise ConfigError(f"--since needs a time zone: {text!r}")
    return time


def _some(ids: list[str] | None, *, every: bool) -> list[str] | None:
    """Return the ids that are meant; None for all."""
    if bool(ids) == every:
        raise ConfigError("which? Name ids that list shows, or say --all")
    return ids or None


def _found(quarantine: Quarantine, chosen: _Chooser, *, taking: bool = False) -> Iterator[Held]:
    """Go through a quarantine, and show on a terminal how far that is."""
    waiting = Console(stderr=True)
    with Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        console=waiting,
        transient=True,
        disable=not waiting.is_terminal,
    ) as progress:
        task = progress.add_task("looking")
        for count, held in enumerate(quarantine.each(taking=taking), 1):
            progress.update(task, description=f"{count} looked at")
            if chosen(held):
                yield held


def _miss(ids: list[str] | None, found: Iterable[Held]) -> None:
    missing = sorted(set(ids or ()) - {held.id for held in found})
    if missing:
        typer.echo(f"not there: {printable(', '.join(missing))}", err=True)
        raise typer.Exit(1)


# -- what is shown -----------------------------------------------------------------------------------------------------


def _tell(held: Held, what: str, more: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(held.as_dict() | more)
    else:
        typer.echo(printable(f"{held.id} {what}"))


def _line(held: Held) -> str:
    return f"{held.id}: {held.verdict or 'no verdict'}, from {held.source or 'nobody says where'}"


def _show_list(out: Console, found: list[Held], where: str) -> None:
    if not found:
        out.print(f"Nothing of that lies in {printable(where)}.")
        return
    table = Table(box=None, header_style="bold")
    for column in ("id", "verdict", "came from", "sender, unverified", "at", "bytes"):
        table.add_column(column, justify="right" if column == "bytes" else "left", overflow="fold")
    for held in found:
        at = "" if held.at is None else held.at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")
        row = (held.id, held.verdict or "", held.source or "", held.sender or "", at, f"{len(held.body):,}")
        table.add_row(*(Text(printable(cell)) for cell in row))
    out.print(table)
    out.print(f"{len(found)} in {printable(where)}")
