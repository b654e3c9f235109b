"""``postseal plan``: what a key service will be asked, and what that costs, before anything is built."""

from __future__ import annotations

import json
import math
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from postseal.core.cli._console import console, print_json
from postseal.core.datakeys import DataKeyLimits, OpeningLimits
from postseal.core.errors import ConfigError, nearest
from postseal.core.planning import SERVICES, Load, Mode, Service, advice, messages_of_a_key, plan, service_of

__all__ = ["command"]

_DURATIONS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_SIZES: Final = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
_AMOUNT: Final = re.compile(r"\s*([0-9][0-9_,]*(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*")


def command(
    file: Annotated[
        str | None,
        typer.Argument(
            metavar="[FILE]",
            help="TOML or JSON with the options below, by name; what is given here goes before it.",
        ),
    ] = None,
    *,
    service: Annotated[str | None, typer.Option(help=f"{' or '.join(SERVICES)}.", metavar="NAME")] = None,
    rate: Annotated[
        str | None, typer.Option(help="Messages a second, of all producers: 1000.", metavar="N")
    ] = None,
    size: Annotated[str | None, typer.Option(help="Size of a body: 1KiB.", metavar="SIZE")] = None,
    retention: Annotated[
        str | None, typer.Option(help="How long brokers keep messages: 4d.", metavar="TIME")
    ] = None,
    producers: Annotated[str | None, typer.Option(help="Processes that seal: 10.", metavar="N")] = None,
    consumers: Annotated[str | None, typer.Option(help="Processes that open: 10.", metavar="N")] = None,
    destinations: Annotated[str | None, typer.Option(help="Queues and topics: 1.", metavar="N")] = None,
    max_age: Annotated[str | None, typer.Option(help="Of a data key: 10m.", metavar="TIME")] = None,
    max_messages: Annotated[str | None, typer.Option(help="Of a data key: 1048576.", metavar="N")] = None,
    max_bytes: Annotated[str | None, typer.Option(help="Of a data key: 64GiB.", metavar="SIZE")] = None,
    opening_age: Annotated[
        str | None, typer.Option(help="How long an unwrapped data key opens: 5m.", metavar="TIME")
    ] = None,
    opening_keys: Annotated[
        str | None, typer.Option(help="Unwrapped data keys that a consumer keeps: 1024.", metavar="N")
    ] = None,
    branches: Annotated[
        str | None, typer.Option(help="Branch keys: 1, or one a tenant.", metavar="N")
    ] = None,
    branch_age: Annotated[
        str | None, typer.Option(help="How long a branch key is used: 1h.", metavar="TIME")
    ] = None,
    backlog: Annotated[
        str | None,
        typer.Option(help="What a restart of all consumers finds: 6h of messages.", metavar="TIME"),
    ] = None,
    catch_up: Annotated[
        str | None, typer.Option(help="How many times as fast they read that: 10.", metavar="N")
    ] = None,
    price: Annotated[
        str | None, typer.Option(help="US dollars for 10,000 calls, where yours is another.", metavar="N")
    ] = None,
    quota: Annotated[
        str | None, typer.Option(help="Calls a second, where yours is another.", metavar="N")
    ] = None,
    plot: Annotated[str | None, typer.Option(help="Draw it: FILE.svg or FILE.html.", metavar="FILE")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Say what data keys will cost: calls to the key service, its quota, dollars a month, bytes added.

    For four ways to have them: the service encrypts each message itself (direct), a data key for each message, data keys from a cache (as
    postseal does by default), branch keys. Asks nobody; its prices and quotas have a date, and may be given.
    """
    given = {name: value for name, value in locals().items() if name in _OPTIONS and value is not None}
    options = {**_read(file), **given}
    chosen = service_of(
        str(options.pop("service", "aws-kms")),
        price=_number("price", options.pop("price", None)),
        quota=_number("quota", options.pop("quota", None)),
    )
    load = _load(options)
    modes = plan(load, chosen)
    sentence = advice(load, chosen)
    if plot is not None:
        _draw(plot, load, chosen, sentence)
    if as_json:
        print_json(_as_dict(load, chosen, modes, sentence))
    else:
        _show(console(), load, chosen, modes, sentence)


# -- what is given -----------------------------------------------------------------------------------------------------


def _count(name: str, value: Any) -> int:
    number = _number(name, value)
    if number is None or number != int(number):
        raise ConfigError(f"{name} is a whole number: {value!r}")
    return int(number)


def _number(name: str, value: Any) -> float | None:
    if value is None or (isinstance(value, (int, float)) and not isinstance(value, bool)):
        return value
    found = _AMOUNT.fullmatch(str(value))
    if found is None or found[2]:
        raise ConfigError(f"{name} is a number: {value!r}")
    return float(re.sub("[_,]", "", found[1]))


def _amount(name: str, value: Any, units: Mapping[str, int], example: str) -> float:
    found = _AMOUNT.fullmatch(str(value))
    unit = "" if found is None else found[2].lower()
    if found is None or (unit and unit not in units):
        raise ConfigError(
            f"{name} is an amount like {example}: {value!r}{nearest(unit, units) if unit else ''}"
        )
    if not unit and units is _DURATIONS:
        raise ConfigError(f"{name} needs a unit, {', '.join(units)}: {value!r}")
    return float(re.sub("[_,]", "", found[1])) * units.get(unit, 1)


def _time(name: str, value: Any) -> float:
    return _amount(name, value, _DURATIONS, "10m")


def _size(name: str, value: Any) -> int:
    return int(_amount(name, value, _SIZES, "64GiB"))


_OPTIONS: Final = {
    "service": None,
    "price": None,
    "quota": None,
    "rate": _number,
    "size": _size,
    "retention": _time,
    "producers": _count,
    "consumers": _count,
    "destinations": _count,
    "max_age": _time,
    "max_messages": _count,
    "max_bytes": _size,
    "opening_age": _time,
    "opening_keys": _count,
    "branches": _count,
    "branch_age": _time,
    "backlog": _time,
    "catch_up": _number,
}
"""What may be given, on the command line or in a file, and what reads it."""
_DATA_KEY: Final = {"max_age": "max_age", "max_messages": "max_messages", "max_bytes": "max_bytes"}
_OPENING: Final = {"opening_age": "max_age", "opening_keys": "max_keys"}


def _read(name: str | None) -> dict[str, Any]:
    if name is None:
        return {}
    path = Path(name)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{name} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    try:
        options = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except ValueError as error:
        raise ConfigError(f"{name}: {error}") from None
    if not isinstance(options, dict):
        raise ConfigError(f"{name} holds no options")
    options = {str(key).replace("-", "_"): value for key, value in options.items()}
    for key in options:
        if key not in _OPTIONS:
            raise ConfigError(f"{name}: there is no option {key!r}{nearest(key, _OPTIONS)}")
    return options


def _load(options: Mapping[str, Any]) -> Load:
    values: dict[str, Any] = {
        name: read(name, options[name]) for name, read in _OPTIONS.items() if read and name in options
    }
    data_key = DataKeyLimits(**{_DATA_KEY[name]: values.pop(name) for name in _DATA_KEY if name in values})
    opening = OpeningLimits(**{_OPENING[name]: values.pop(name) for name in _OPENING if name in values})
    return Load(data_key=data_key, opening=opening, **values)


def _draw(name: str, load: Load, service: Service, sentence: str) -> None:
    from postseal.core.cli._plan_plot import html, svg

    path = Path(name)
    if path.suffix not in (".svg", ".html"):
        raise ConfigError(f"--plot draws .svg and .html: {name!r}")
    try:
        path.write_text(
            svg(load, service) if path.suffix == ".svg" else html(load, service, sentence), encoding="utf-8"
        )
    except OSError as error:
        raise ConfigError(f"{name} cannot be written: {error.strerror}") from None


# -- what is shown -----------------------------------------------------------------------------------------------------


def _as_dict(load: Load, service: Service, modes: tuple[Mode, ...], sentence: str) -> dict[str, Any]:
    shown = {name: getattr(load, name) for name in Load.__slots__ if name not in ("data_key", "opening")}
    shown["data_key"] = {
        name: getattr(load.data_key, name) for name in ("max_age", "max_messages", "max_bytes")
    }
    shown["opening"] = {name: getattr(load.opening, name) for name in ("max_age", "max_keys")}
    return {
        "service": service._asdict(),
        "load": shown,
        "messages_of_a_key": messages_of_a_key(load),
        "modes": {mode.name: _finite(mode._asdict() | {"calls": mode.calls}) for mode in modes},
        "advice": sentence,
    }


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    return {
        name: None if isinstance(value, float) and math.isinf(value) else value
        for name, value in values.items()
        if name != "name"
    }


def _show(out: Console, load: Load, service: Service, modes: tuple[Mode, ...], sentence: str) -> None:
    out.print(
        Text(
            f"{service.name}: {load.rate:,g} messages a second of {load.size:,} bytes, {load.producers:,} producers, "
            f"{load.consumers:,} consumers, {load.destinations:,} destination{'s' * (load.destinations > 1)}",
            style="bold",
        )
    )
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("")
    for mode in modes:
        table.add_column(mode.name, justify="right")
    rows: dict[str, list[str] | list[Text]] = {
        "calls a second, sealing": [_calls(mode.sealing) for mode in modes],
        "  opening": [_calls(mode.opening) for mode in modes],
        "messages for each call": [
            "no calls" if math.isinf(m.messages_per_call) else f"{m.messages_per_call:,.4g}" for m in modes
        ],
        "of the quota": [_share(mode.share) for mode in modes],
        "US dollars a month": [Text(f"{mode.cost:,.2f}") for mode in modes],
        "a restart: calls": [f"{mode.restart:,.0f}" for mode in modes],
        "  a second, at most": [_over(mode.restart_peak, service.quota) for mode in modes],
        "  takes, at least": [_span(mode.restart_seconds) for mode in modes],
        "bytes added: to a message": [f"{mode.added:,}" for mode in modes],
        "  in a month": [_bytes(mode.added_month) for mode in modes],
        "  kept by brokers": [_bytes(mode.added_kept) for mode in modes],
    }
    for name, cells in rows.items():
        table.add_row(name, *cells)
    out.print(table)
    for mode in modes:
        for remark in mode.remarks:
            out.print(Text(f"{mode.name}: {remark}", style="yellow"))
    out.print(Text(f"{sentence}.", style="green"))
    out.print(
        Text(
            f"${service.price:g} for 10,000 calls, {service.quota:,g} a second for all of one {service.shared}. "
            f"Source: {service.source}; seen {service.seen}. --price and --quota take yours.",
            style="dim",
        )
    )


def _calls(value: float) -> str:
    return f"{value:,.4g}" if value < 10_000 else f"{value:,.0f}"  # noqa: PLR2004 - then digits are easier to read


def _share(value: float) -> Text:
    return Text(f"{value:.3%}" if value < 0.01 else f"{value:,.0%}", style="red" if value > 1 else "")  # noqa: PLR2004 - small ones need digits


def _over(value: float, quota: float) -> Text:
    return Text(_calls(value), style="red" if value > quota else "")


def _span(seconds: float) -> str:
    if math.isinf(seconds):
        return "for ever"
    if seconds < 120:  # noqa: PLR2004 - two minutes
        return f"{seconds:,.1f} s"
    return f"{seconds / 60:,.0f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"  # noqa: PLR2004 - two hours


def _bytes(value: float) -> str:
    for size, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if value >= size:
            return f"{value / size:,.1f} {unit}"
    return f"{value / 1e3:,.1f} kB"
