"""How the demonstration looks: in a terminal, as a picture, as JSON."""

from __future__ import annotations

import base64
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from io import StringIO
from pathlib import Path
from typing import Any, Final

from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from postseal.core.cli._console import printable, sign_for
from postseal.core.cli._orders import Order
from postseal.core.cli._story import Act, Outcome

__all__ = ["act", "as_dict", "attacks", "opening", "progress", "summary", "write_svg"]

_ROWS: Final = 5
"""Rows of a panel, one for each field of an order."""
_PICTURE_WIDTH: Final = 100


# -- in a terminal -----------------------------------------------------------------------------------------------------


def opening(out: Console) -> None:
    """Say what is about to be seen."""
    text = Text.assemble(
        ("postseal", "bold cyan"),
        " seals messages in the producer and opens them in the consumer. Here both run in this process, and so do a Kafka cluster, "
        "SQS and AWS KMS (emulated). One policy for all brokers: every order is encrypted, and signed by its sender.",
    )
    out.print(Panel(text, border_style="cyan", padding=(0, 1)))


@contextmanager
def progress(out: Console) -> Iterator[Callable[[str], None]]:
    """Show what is being done, where there is a terminal to show it on."""
    if not out.is_terminal:
        yield lambda _: None
        return
    with out.status("") as status:
        yield lambda what: status.update(Text(f"{what} ...", style="dim"))


def act(out: Console, played: Act) -> None:
    """Show what the two ends and the broker saw of honest orders."""
    out.print()
    out.print(_title(played.broker, played.where))
    out.print(_side_by_side(played, out.width))
    out.print(_findings(out, played))


def attacks(out: Console, acts: Sequence[Act]) -> None:
    """Show what came of each attack, on each broker, with its audit event."""
    out.print()
    out.print(_title("Attacks", "with the verdict and the audit event of each"))
    out.print(_attacks(out, acts))


def summary(out: Console, acts: Sequence[Act], left_out: Mapping[str, str], seconds: float) -> None:
    """Show the figures of all *acts*, what must not have happened, and which brokers took no part."""
    table = Table(box=None, padding=(0, 1, 0, 0), show_edge=False)
    for name in ("", *_FIGURES):
        table.add_column(name, header_style="bold", style=None if name else "cyan", no_wrap=True)
    for played in acts:
        table.add_row(played.broker, *_figures(played))
    problems = [problem for played in acts for problem in played.problems]
    if problems:
        parts = [_finding(out, good=False, text=printable(each)) for each in problems]
        verdict: RenderableType = Group(Text("This must not happen:", style="bold red"), *parts)
    else:
        verdict = _finding(
            out, good=True, text="The brokers could read nothing, and the handler saw honest orders only."
        )
    kept = [
        Text(f"  {played.broker} keeps {played.refused_kept} refused messages {played.settled}", style="dim")
        for played in acts
    ]
    absent = [Text(f"  Left out: {name}; {why}", style="dim") for name, why in left_out.items()]
    out.print()
    out.print(
        Panel(
            Group(
                table, Text(), verdict, *kept, *absent, Text(f"  {seconds:.1f} seconds in all", style="dim")
            ),
            title="summary",
            title_align="left",
            border_style="red" if problems else "green",
        )
    )


def _title(name: str, more: str) -> RenderableType:
    return Rule(Text.assemble((name, "bold"), "  ", (more, "dim")), style="cyan", align="left")


_FIGURES: Final = ("sent", "unchanged", "readable", "key calls", "added", "refused", "seconds")


def _figures(played: Act) -> tuple[str, ...]:
    """Return one of each of `_FIGURES`: of orders, of secrets, of calls, of bytes, of attacks."""
    return (
        f"{len(played.sent)}",
        f"{_unchanged(played)}",
        f"{len(played.leaks)}/{played.secrets}",
        f"{sum(played.calls.values())}",
        f"{played.added} B",
        f"{sum(played.refused.values())}/{len(played.outcomes)}",
        f"{played.seconds:.1f}",
    )


def _unchanged(played: Act) -> int:
    return (Counter(played.got) & Counter(order.to_json() for order in played.sent)).total()


def _calls(calls: Mapping[str, int]) -> str:
    """Say how often the key service was asked for what: making data keys first, then opening them."""
    return (
        ", ".join(f"{number} {operation}" for operation, number in sorted(calls.items(), reverse=True)) or "0"
    )


def _side_by_side(played: Act, width: int) -> RenderableType:
    """Lay what was sent, what is held and what was got beside each other."""
    inside = width // 3 - 4
    order = played.sent[0]
    got = order if order.to_json() in played.got else None
    held = (
        _text(played.example.body, inside) if played.scheme == "sqs" else _dump(played.example.body, inside)
    )
    table = Table.grid(expand=True)
    for _ in range(3):
        table.add_column(ratio=1)
    table.add_row(
        Panel(_order(order, inside), title="the shop sent", border_style="green"),
        Panel(held, title=f"{played.broker} holds", border_style="red"),
        Panel(_order(got, inside), title="billing got", border_style="green"),
    )
    return table


def _order(order: Order | None, width: int) -> RenderableType:
    if order is None:
        return Text("nothing" + "\n" * (_ROWS - 1), style="bold red")
    lines = order._asdict().items()
    longest = max(len(name) + len(value) for name, value in lines) + 3
    named = longest + 5 <= width  # where there is no room, the values speak for themselves
    return Text("\n".join(f"{name:<9} {value}" if named else value for name, value in lines), no_wrap=True)


def _dump(data: bytes, width: int) -> Text:
    """Return the beginning of *data* as a dump: bytes in hex, then as text where they are text."""
    columns = max(width // 4, 4)
    text = Text(no_wrap=True)
    for start in range(0, columns * (_ROWS - 1), columns):
        row = data[start : start + columns]
        text.append(row.hex(" ").ljust(columns * 3))
        text.append("".join(chr(b) if 32 <= b < 127 else "." for b in row) + "\n", style="dim")  # noqa: PLR2004 - ASCII
    text.append(f"... {len(data)} bytes", style="dim")
    return text


def _text(data: bytes, width: int) -> Text:
    """Return the beginning of *data*, which is text."""
    text = data.decode(errors="replace")
    lines = [printable(text[start : start + width]) for start in range(0, width * (_ROWS - 1), width)]
    return Text.assemble("\n".join(lines), (f"\n... {len(text)} characters", "dim"), no_wrap=True)


def _findings(out: Console, played: Act) -> RenderableType:
    return Group(
        _finding(
            out,
            good=not played.leaks,
            text=f"{len(played.leaks)} of {played.secrets} names, addresses and card numbers can be read at the broker",
        ),
        _finding(
            out,
            good=_unchanged(played) == len(played.sent),
            text=f"{_unchanged(played)} of {len(played.sent)} orders were handed on as they were sent",
        ),
        _finding(out, good=True, text=f"key service: {_calls(played.calls)}, for all of them"),
    )


def _finding(out: Console, *, good: bool, text: str) -> RenderableType:
    grid = Table.grid(padding=(0, 1))
    grid.add_row(Text(sign_for(out, good=good), style=_style(good=good)), Text(text))
    return grid


def _style(*, good: bool) -> str:
    return "bold green" if good else "bold red"


def _attacks(out: Console, acts: Sequence[Act]) -> RenderableType:
    parts: list[RenderableType] = []
    # Where nothing could be read at the broker, there was nothing to attack with; that is said below.
    for outcomes in zip(*(played.outcomes for played in acts if played.outcomes), strict=True):
        attack = outcomes[0].attack
        title = Text.assemble((attack.name, "bold"), ": ", attack.what)
        table = Table.grid(padding=(0, 1))
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True, width=17)
        table.add_column()
        for outcome in outcomes:
            good = outcome.as_it_must_be
            table.add_row(
                Text(sign_for(out, good=good), style=_style(good=good)),
                Text(outcome.verdict, style="red"),
                Text(_audit(outcome), style="dim"),
            )
        parts += [title, table]
    played = [outcome for each in acts for outcome in each.outcomes]
    handed_on, asked = sum(o.handed_on for o in played), sum(o.key_calls for o in played)
    told = sum(len(o.events) for o in played)
    text = f"of {len(played)} attacks {handed_on} were handed on; {told} audit events, {asked} calls to the key service"
    good = all(outcome.as_it_must_be for outcome in played)
    return Group(*parts, Text(), _finding(out, good=good, text=text))


def _audit(outcome: Outcome) -> str:
    """Say in a line what the audit event says."""
    if not outcome.events:
        return f"no audit event; handed on: {outcome.handed_on}"
    event = outcome.events[0]
    at = "".join(
        f"/{event.coordinates[name]}" for name in ("partition", "offset") if name in event.coordinates
    )
    claims = f" (claims: {event.unverified_sender})" if event.unverified_sender else ""
    return printable(f"{event.destination}{at}: {event.detail}{claims}")


# -- as a picture ------------------------------------------------------------------------------------------------------


def write_svg(path: Path, acts: Sequence[Act]) -> None:
    """Write the picture for the README: what the brokers hold, and what was refused at the first of them."""
    out = Console(
        record=True,
        width=_PICTURE_WIDTH,
        file=StringIO(),
        force_terminal=True,
        color_system="truecolor",
        highlight=False,
    )
    for played in acts:
        out.print(Text(played.broker, style="bold cyan"))
        out.print(_side_by_side(played, out.width))
    attacks(out, acts[:1])
    path.write_text(
        _without_fetched_fonts(out.export_svg(title="postseal demo", unique_id="postseal")), "utf-8"
    )


def _without_fetched_fonts(svg: str) -> str:
    """Take out of *svg* the fonts that rich would have a browser fetch; each viewer's own monospaced one will do."""
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r"@font-face\s*\{.*?\}", "", svg, flags=re.DOTALL)
    return svg.replace("Fira Code, monospace", "ui-monospace, Menlo, Consolas, monospace")


# -- as JSON -----------------------------------------------------------------------------------------------------------


def as_dict(acts: Sequence[Act], left_out: Mapping[str, str], seconds: float) -> dict[str, Any]:
    """Return all that is shown, for machines."""
    problems = [problem for played in acts for problem in played.problems]
    calls = sum((Counter(played.calls) for played in acts), Counter[str]())
    refused = sum((played.refused for played in acts), Counter[str]())
    return {
        "postseal": version("postseal"),
        "ok": not problems,
        "problems": problems,
        "seconds": round(seconds, 3),
        "summary": {
            "messages": sum(len(played.sent) for played in acts),
            "handed_on_unchanged": sum(_unchanged(played) for played in acts),
            "key_service_calls": dict(calls),
            "bytes_added": sum(played.held_bytes - played.clear_bytes for played in acts),
            "refused": dict(refused),
        },
        "brokers": {played.scheme: _act_as_dict(played) for played in acts},
        "left_out": dict(left_out),
    }


def _act_as_dict(played: Act) -> dict[str, Any]:
    return {
        "broker": played.where,
        "messages": len(played.sent),
        "handler_calls": len(played.got),
        "handed_on_unchanged": _unchanged(played),
        "secrets_looked_for": played.secrets,
        "secrets_found": played.leaks,
        "key_service_calls": played.calls,
        "bytes": {"clear": played.clear_bytes, "held": played.held_bytes, "added_to_each": played.added},
        "example": {
            "sent": played.sent[0]._asdict(),
            "held_base64": base64.b64encode(played.example.body).decode(),
            "envelope_hex": played.example_envelope.hex(),
        },
        "attacks": [
            {
                "attack": outcome.attack.name,
                "what": outcome.attack.what,
                "due": outcome.attack.verdict.value,
                "verdict": outcome.verdict,
                "handed_on": outcome.handed_on,
                "key_service_calls": outcome.key_calls,
                "audit": [event.as_dict() for event in outcome.events],
            }
            for outcome in played.outcomes
        ],
        "refused_kept": {"where": played.settled, "messages": played.refused_kept},
        "seconds": round(played.seconds, 3),
    }
