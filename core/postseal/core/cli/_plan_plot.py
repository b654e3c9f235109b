"""The picture of a plan: calls and cost against the rate of messages, one line for each mode, on scales that multiply."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape
from typing import Final, NamedTuple

from postseal.core.planning import MODES, MONTH, Load, Service, plan, with_rate

__all__ = ["html", "svg"]

_WIDTH: Final = 960
_HEIGHT: Final = 600
_LEFT: Final = 90
_RIGHT: Final = 200
_TOP: Final = 92
_BOTTOM: Final = 84
_POINTS: Final = 97
_COLOURS: Final = {"direct": "#b23a48", "per-message": "#d9822b", "cached": "#1f7a5c", "branch": "#2b59c3"}
_DASHES: Final = {"direct": "9 5", "per-message": "", "cached": "", "branch": ""}
_FONT: Final = 'font-family="system-ui, -apple-system, Segoe UI, Helvetica, Arial, sans-serif" role="img"'
_APART: Final = 19
"""Between two labels, at least."""


class _Scale(NamedTuple):
    """Maps decades to pixels."""

    low: float
    high: float
    begin: float
    end: float

    def __call__(self, value: float) -> float:
        at = (math.log10(value) - self.low) / (self.high - self.low)
        return self.begin + min(max(at, 0.0), 1.0) * (self.end - self.begin)

    def decades(self) -> Iterator[float]:
        """Each power of ten on it."""
        for power in range(math.ceil(self.low), math.floor(self.high) + 1):
            yield 10.0**power


def svg(load: Load, service: Service) -> str:
    """Draw *load* on *service*, from a thousandth to a hundredfold of its rate."""
    x = _Scale(
        math.floor(math.log10(load.rate)) - 2, math.ceil(math.log10(load.rate)) + 2, _LEFT, _WIDTH - _RIGHT
    )
    rates = [10 ** (x.low + (x.high - x.low) * step / (_POINTS - 1)) for step in range(_POINTS)]
    lines = {
        name: [
            (rate, modes[at].calls) for rate, modes in ((r, plan(with_rate(load, r), service)) for r in rates)
        ]
        for at, name in enumerate(MODES)
    }
    values = [calls for line in lines.values() for _, calls in line if calls > 0]
    y = _Scale(
        math.floor(math.log10(min(values))),
        math.ceil(math.log10(max(*values, service.quota))),
        _HEIGHT - _BOTTOM,
        _TOP,
    )
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}" {_FONT}>',
        f"<title>{escape(_title(service))}</title>",
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#ffffff"/>',
        _text(_LEFT, 34, _title(service), size=20, weight=600),
        _text(_LEFT, 58, _subtitle(load), size=13, colour="#5b6470"),
        *_axes(x, y, service),
        *_quota(x, y, service),
        *_here(x, y, load),
        *(_line(x, y, name, lines[name]) for name in reversed(MODES)),  # so that a dashed one lies on another
        *_dots(x, y, load, service),
        *_labels(y, lines, too_large=load.size > service.most),
        _text(
            _LEFT,
            _HEIGHT - 12,
            f"${service.price:g} for 10,000 calls, {service.quota:,.0f} calls a second ({service.shared}); seen {service.seen}. "
            "Prices and quotas change: look them up again.",
            size=11,
            colour="#7a838f",
        ),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def html(load: Load, service: Service, sentence: str) -> str:
    """Make a page of the picture, the table behind it, and a sentence."""
    rows = "".join(
        f"<tr><td>{mode.name}</td><td>{mode.calls:,.4g}</td><td>{mode.share:.2%}</td><td>${mode.cost:,.2f}</td>"
        f"<td>{mode.added:,}</td><td>{mode.restart:,.0f}</td><td>{escape('; '.join(mode.remarks))}</td></tr>"
        for mode in plan(load, service)
    )
    return (
        "<!doctype html>\n<html lang='en'><meta charset='utf-8'><title>postseal plan</title>\n"
        "<style>body{font:15px/1.5 system-ui,sans-serif;max-width:980px;margin:2rem auto;padding:0 1rem;color:#1d2430}"
        "table{border-collapse:collapse;width:100%}th,td{padding:.35rem .6rem;text-align:right;border-bottom:1px solid #e3e7ec}"
        "th:first-child,td:first-child,th:last-child,td:last-child{text-align:left}svg{max-width:100%;height:auto}</style>\n"
        f"{svg(load, service)}<p><b>{escape(sentence)}.</b></p>\n<table><tr><th>mode</th><th>calls a second</th><th>of the quota</th>"
        "<th>a month</th><th>bytes added</th><th>calls after a restart</th><th></th></tr>"
        f"{rows}</table></html>\n"
    )


def _title(service: Service) -> str:
    return f"What {service.name} is asked, and what that costs"


def _subtitle(load: Load) -> str:
    many = f"{load.destinations:,} destination" + "s" * (load.destinations > 1)
    return (
        f"{load.producers:,} producers, {load.consumers:,} consumers, {many}; a data key lasts {load.data_key.max_age:,.0f} s or "
        f"{load.data_key.max_messages:,} messages, and opens for {load.opening.max_age:,.0f} s"
    )


def _axes(x: _Scale, y: _Scale, service: Service) -> Iterator[str]:
    bottom, top, right = y.begin, y.end, x.end
    for value in y.decades():
        at = y(value)
        yield f'<line x1="{x.begin}" y1="{at:.1f}" x2="{right}" y2="{at:.1f}" stroke="#e8ebef"/>'
        yield _text(x.begin - 10, at + 4, _short(value), anchor="end")
    if service.price:
        each = MONTH * service.price / 10_000
        for cost in y._replace(low=y.low + math.log10(each), high=y.high + math.log10(each)).decades():
            yield _text(right + 10, y(cost / each) + 4, f"${_short(cost)}", colour="#7a838f", size=11)
        yield _text(right + 10, top - 12, "a month", colour="#7a838f", size=11)
    for value in x.decades():
        at = x(value)
        yield f'<line x1="{at:.1f}" y1="{bottom}" x2="{at:.1f}" y2="{top}" stroke="#f2f4f6"/>'
        yield _text(at, bottom + 20, _short(value), anchor="middle")
    yield f'<line x1="{x.begin}" y1="{bottom}" x2="{right}" y2="{bottom}" stroke="#9aa3ad"/>'
    yield _text((x.begin + right) / 2, bottom + 44, "messages a second", anchor="middle", colour="#5b6470")
    yield _text(16, top - 12, "calls a second", colour="#5b6470")


def _quota(x: _Scale, y: _Scale, service: Service) -> Iterator[str]:
    at = y(service.quota)
    yield f'<rect x="{x.begin}" y="{y.end}" width="{x.end - x.begin}" height="{at - y.end:.1f}" fill="#b23a48" opacity="0.06"/>'
    yield f'<line x1="{x.begin}" y1="{at:.1f}" x2="{x.end}" y2="{at:.1f}" stroke="#b23a48" stroke-width="1.2" stroke-dasharray="2 4"/>'
    yield _text(x.begin + 8, at - 7, f"the quota: {service.quota:,.0f} a second", colour="#b23a48")


def _here(x: _Scale, y: _Scale, load: Load) -> Iterator[str]:
    at = x(load.rate)
    yield f'<line x1="{at:.1f}" y1="{y.begin}" x2="{at:.1f}" y2="{y.end}" stroke="#1d2430" stroke-dasharray="3 4" opacity="0.45"/>'
    yield _text(at, y.end - 12, f"you: {load.rate:,g} a second", anchor="middle", weight=600)


def _line(x: _Scale, y: _Scale, name: str, line: Sequence[tuple[float, float]]) -> str:
    points = " ".join(f"{x(rate):.1f},{y(calls):.1f}" for rate, calls in line if calls > 0)
    dash = f' stroke-dasharray="{_DASHES[name]}"' if _DASHES[name] else ""
    return (
        f'<polyline points="{points}" fill="none" stroke="{_COLOURS[name]}" stroke-width="2.6" '
        f'stroke-linejoin="round"{dash}/>'
    )


def _dots(x: _Scale, y: _Scale, load: Load, service: Service) -> Iterator[str]:
    for mode in reversed(plan(load, service)):
        if mode.calls > 0:
            yield (
                f'<circle cx="{x(load.rate):.1f}" cy="{y(mode.calls):.1f}" r="5" fill="{_COLOURS[mode.name]}" stroke="#ffffff" '
                f'stroke-width="1.5"><title>{mode.name}: {mode.calls:,.4g} calls a second, ${mode.cost:,.2f} a month</title></circle>'
            )


def _labels(y: _Scale, lines: dict[str, list[tuple[float, float]]], *, too_large: bool) -> Iterator[str]:
    """Name each line at its end, no two on one another."""
    ends = sorted((y(line[-1][1]), name) for name, line in lines.items())
    last = -math.inf
    for at, name in ends:
        last = max(at, last + _APART)
        label = "direct: too large" if name == "direct" and too_large else name
        yield _text(_WIDTH - _RIGHT + 78, last + 5, label, colour=_COLOURS[name], size=14, weight=600)


def _text(
    x: float,
    y: float,
    text: str,
    *,
    anchor: str = "start",
    size: int = 12,
    colour: str = "#1d2430",
    weight: int = 400,
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" font-weight="{weight}" fill="{colour}">'
        f"{escape(text)}</text>"
    )


def _short(value: float) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}" if value >= 0.001 else f"{value:.0e}".replace("e-0", "e-")  # noqa: PLR2004 - then zeros are hard to count
