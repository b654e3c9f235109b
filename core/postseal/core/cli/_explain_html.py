"""`postseal explain` as one page that needs nothing else: no script, no font, no network."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Final

from postseal.core.explaining import VISIBLE, Explained, State, words_of

__all__ = ["page"]

_STYLE: Final = """
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #ffffff; --faint: #5b6470; --line: #d7dce2;
  --card: #f6f8fa;
  --good: #1a7f4b; --good-soft: #dcf3e6; --bad: #b3541e; --bad-soft: #fbe7d8; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ed; --paper: #14171b; --faint: #9aa4af; --line: #313840;
  --card: #1c2127;
  --good: #57c98c; --good-soft: #173526; --bad: #f0a06a; --bad-soft: #40291a; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 62rem;
  margin: 2rem auto; padding: 0 1.2rem; }
h1 { font-size: 1.6rem; margin-bottom: .2rem; } h2 { font-size: 1.25rem; margin: 2.6rem 0 .3rem; }
h3 { font-size: 1rem; margin: 1.4rem 0 .3rem; }
p { margin: .3rem 0; } .faint { color: var(--faint); } code { font: .92em ui-monospace, monospace; }
table { border-collapse: collapse; width: 100%; } th, td { text-align: left; vertical-align: top;
  padding: .35rem .6rem; border-bottom: 1px solid var(--line); }
th { color: var(--faint); font-weight: 600; } .no { color: var(--good); font-weight: 600; }
.yes { color: var(--bad); font-weight: 600; }
.caution { background: var(--bad-soft); border-left: 4px solid var(--bad); padding: .35rem .7rem; margin: .4rem 0;
  border-radius: 3px; }
svg { width: 100%; height: auto; margin: .8rem 0; } svg text { font: 14px system-ui, sans-serif; fill: var(--ink);
  } svg .small { font-size: 12px; fill: var(--faint); }
.box { fill: var(--card); stroke: var(--line); stroke-width: 1.5; } .sealed { fill: var(--good-soft);
  stroke: var(--good); } .clear { fill: var(--bad-soft); stroke: var(--bad); }
.wire { stroke-width: 3; fill: none; } .wire.sealed { stroke: var(--good); } .wire.clear { stroke: var(--bad); }
.dash { stroke: var(--faint); stroke-width: 1.5; stroke-dasharray: 4 4; fill: none; }
@media print { h2 { break-before: page; } }
"""


def page(file: str, explained: Sequence[Explained]) -> str:
    """Return the page for what was *explained* of *file*."""
    parts = [
        "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'><meta name='viewport' content='width=device-width'>",
        f"<title>Who can read, who can write: {escape(file)}</title><style>{_STYLE}</style></head><body>",
        "<h1>Who can read, who can write</h1>",
        f"<p class='faint'>What <code>{escape(file)}</code> comes to, for each destination.</p>",
        "<p class='faint'>Green is sealed, orange is clear.</p>",
        *map(_section, explained),
        "<h2>What stays visible</h2><p>To everybody who holds a sealed message, whatever the protection:</p><ul>",
        *(f"<li>{escape(each)}</li>" for each in VISIBLE),
        "</ul></body></html>\n",
    ]
    return "\n".join(parts)


def _section(each: Explained) -> str:
    where = ", ".join(f"<code>{escape(name)}</code>" for name in each.destinations)
    also = ", ".join(f"<code>{escape(name)}</code>" for name in each.accept_from)
    periods = (
        (period.what, "" if period.seconds is None else words_of(period.seconds), period.says)
        for period in each.periods
    )
    return "\n".join(
        [
            f"<h2>{escape(each.policy)}</h2>",
            f"<p>{where}{f', and also lying at {also}' if also else ''}</p>",
            f"<p><b>{escape(each.protection)}</b>, mode <b>{escape(each.mode)}</b></p>",
            f"<p class='faint'>line {each.line}</p>",
            *(f"<p class='caution'>{escape(caution)}</p>" for caution in each.cautions),
            _picture(each),
            "<h3>Who can read bodies</h3>" + _table(("who", "why"), each.readers),
            "<h3>Whose messages are handed on</h3>" + _table(("who", "why"), each.writers),
            "<h3>In which state</h3>" + _states(each.states),
            "<h3>For how long</h3>" + _table(("what", "at most", ""), periods),
        ]
    )


def _table(titles: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = "".join(f"<th>{escape(title)}</th>" for title in titles)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def _states(states: Iterable[State]) -> str:
    rows = "".join(
        f"<tr><td><b>{escape(state.name)}</b><br><span class='faint'>{escape(state.where)}</span></td>"
        f"{_yes(state.reads)}{_yes(state.forges)}<td>{escape(state.why)}</td></tr>"
        for state in states
    )
    return f"<table><tr><th>state</th><th>can read</th><th>can forge</th><th>why</th></tr>{rows}</table>"


def _yes(value: bool) -> str:
    return "<td class='yes'>yes</td>" if value else "<td class='no'>no</td>"


def _picture(each: Explained) -> str:
    """Draw producer, broker and consumer, what travels between them, and the key service above."""
    states = {state.name: state for state in each.states}
    travels = "clear" if states["in transit"].reads else "sealed"
    rests = "clear" if states["at rest"].reads else "sealed"
    asks = states["key service"].reads
    word = {"clear": "clear text", "sealed": "ciphertext"}
    administrator = "reads bodies" if states["broker administrator"].reads else "reads no body"
    forged = "can forge" if states["broker administrator"].forges else "forges nothing"
    keys = (
        "<rect class='box' x='350' y='8' width='220' height='48' rx='8'/><text x='460' y='29' text-anchor='middle'>key service</text>"
        "<text class='small' x='460' y='46' text-anchor='middle'>wraps and unwraps data keys</text>"
        "<path class='dash' d='M350 32 H120 V96'/><path class='dash' d='M570 32 H800 V96'/>"
        if asks
        else ""
    )
    label = f"{each.policy}: {word[travels]} travels, {word[rests]} lies at the broker, whose administrator {administrator} and {forged}"
    return (
        f"<svg viewBox='0 0 920 200' role='img' aria-label='{escape(label, quote=True)}'>{keys}"
        "<rect class='clear' x='20' y='96' width='200' height='64' rx='8'/><text x='120' y='124' text-anchor='middle'>producers</text>"
        "<text class='small' x='120' y='144' text-anchor='middle'>clear in memory</text>"
        f"<path class='wire {travels}' d='M220 128 H360'/><text class='small' x='290' y='118' text-anchor='middle'>{word[travels]}</text>"
        f"<rect class='{rests}' x='360' y='96' width='200' height='64' rx='8'/>"
        "<text x='460' y='124' text-anchor='middle'>broker, its disks</text>"
        f"<text class='small' x='460' y='144' text-anchor='middle'>{word[rests]}</text>"
        f"<path class='wire {travels}' d='M560 128 H700'/><text class='small' x='630' y='118' text-anchor='middle'>{word[travels]}</text>"
        "<rect class='clear' x='700' y='96' width='200' height='64' rx='8'/><text x='800' y='124' text-anchor='middle'>consumers</text>"
        "<text class='small' x='800' y='144' text-anchor='middle'>clear in memory</text>"
        f"<text class='small' x='460' y='186' text-anchor='middle'>its administrator {administrator}, {forged}</text></svg>"
    )
