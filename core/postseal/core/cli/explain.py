"""``postseal explain``: who can read and who can write, where, and for how long."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from postseal.core.cli._completion import destinations
from postseal.core.cli._console import console, print_json, printable
from postseal.core.errors import ConfigError
from postseal.core.explaining import VISIBLE, Explained, explain, words_of

__all__ = ["command"]

_DEFAULT: Final = "postseal.toml"


def command(
    file: Annotated[
        Path, typer.Argument(metavar="[FILE]", help="The policy file.", show_default=_DEFAULT)
    ] = Path(_DEFAULT),
    *,
    destination: Annotated[
        str | None,
        typer.Option(
            "--destination",
            "-d",
            help="Only the policy in force there.",
            metavar="NAME",
            autocompletion=destinations,
        ),
    ] = None,
    html: Annotated[
        Path | None, typer.Option(help="Write one page for people, with pictures.", metavar="FILE")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Say for each destination who can read and who can write, in which state, and for how long.

    Reads the file alone: it fetches no secret and asks nobody.
    """
    from postseal.core.config import PolicyFile
    from postseal.core.policy import Policies

    found = PolicyFile.read(file)
    explained = explain(found)
    if destination is not None:
        name = Policies(found.policies).find(destination).name
        explained = [each for each in explained if each.policy == name]
    if html is not None:
        from postseal.core.cli._explain_html import page

        try:
            html.write_text(page(str(file), explained), encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"{html} cannot be written: {error.strerror}") from None
    if as_json:
        print_json(
            {"file": str(file), "policies": [each.as_dict() for each in explained], "visible": list(VISIBLE)}
        )
    elif html is None:
        out = console()
        for each in explained:
            _show(out, each)
        out.print(Text("To everybody who holds a sealed message stays visible: " + "; ".join(VISIBLE) + "."))


def _show(out: Console, each: Explained) -> None:
    out.rule(Text(printable(f"{each.policy} (line {each.line})"), style="bold"))
    out.print(Text(printable(f"{', '.join(each.destinations)}: {each.protection}, {each.mode}")))
    for caution in each.cautions:
        out.print(Text(f"! {printable(caution)}", style="yellow"))
    for title, rows in (("can read", each.readers), ("can write", each.writers)):
        table = Table(title=title, title_justify="left", expand=True)
        table.add_column("who", overflow="fold", ratio=1)
        table.add_column("why", overflow="fold", ratio=1)
        for row in rows:
            table.add_row(printable(row.who), printable(row.why))
        out.print(table)
    states = Table(title="where", title_justify="left", expand=True)
    for column in ("state", "reads", "forges", "why"):
        states.add_column(column, overflow="fold")
    for state in each.states:
        states.add_row(
            state.name, _yes(state.reads), _yes(state.forges), printable(f"{state.where}: {state.why}")
        )
    out.print(states)
    periods = Table(title="how long", title_justify="left", expand=True)
    for column in ("what", "at most", "says"):
        periods.add_column(column, overflow="fold")
    for period in each.periods:
        most = "" if period.seconds is None else words_of(period.seconds)
        periods.add_row(printable(period.what), most, printable(period.says))
    out.print(periods)


def _yes(value: bool) -> Text:
    return Text("yes", style="yellow") if value else Text("no", style="green")
