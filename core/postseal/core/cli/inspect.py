"""``postseal inspect``: the parts of an envelope, without opening it."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from postseal.core.cli._anatomy import anatomy, short_anatomy
from postseal.core.cli._console import console, print_json, printable, sign_for
from postseal.core.cli._encodings import ENCODINGS, Encoding, read
from postseal.core.cli._references import HELP, references_in
from postseal.core.errors import ConfigError, Refused, nearest
from postseal.core.shortening import is_short
from postseal.core.wire import decode

if TYPE_CHECKING:
    from postseal.core.references import References

__all__ = ["command", "panel_of"]

_UNVERIFIED: Final = "UNVERIFIED: nothing below is authenticated. Whoever made these bytes chose every word; only opening proves it."
_STDIN: Final = "-"


def command(
    files: Annotated[
        list[str] | None,
        typer.Argument(metavar="[FILE|-]...", help="Files with one envelope each; - is standard input."),
    ] = None,
    *,
    encoding: Annotated[
        str, typer.Option(help=f"How it is written: auto, {', '.join(ENCODINGS)}.", metavar="ENCODING")
    ] = "auto",
    references: Annotated[str | None, typer.Option(help=HELP)] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object a line for each envelope.")
    ] = False,
) -> None:
    """Show the parts of sealed messages without opening them.

    Takes an envelope as raw bytes, base64, base64url or hex, from files or from standard input. Needs no key, asks no key service, and
    proves nothing: what an envelope says of itself may be anybody's words. Exit code 1: something was no envelope of ours.
    """
    chosen = _encoding(encoding)
    sources = files or [_STDIN]
    if not files and sys.stdin.isatty():
        raise ConfigError("nothing to inspect: name a file, or pipe an envelope in")
    contents = [(source, _content(source)) for source in sources]
    records = references_in(references)
    reports = [_report(source, content, chosen, records) for source, content in contents]
    if as_json:
        for report in reports:
            print_json(report)
    else:
        _show(console(), reports)
    if not all(report["ok"] for report in reports):
        raise typer.Exit(1)


def _encoding(word: str) -> Encoding | None:
    if word == "auto":
        return None
    for encoding in ENCODINGS:
        if word == encoding:
            return encoding
    raise ConfigError(f"--encoding is {word!r}{nearest(word, ['auto', *ENCODINGS])}")


def _content(source: str) -> bytes:
    if source == _STDIN:
        return sys.stdin.buffer.read()
    path = Path(source)
    try:
        return path.read_bytes()
    except FileNotFoundError:
        near = [str(path.with_name(each.name)) for each in _neighbours(path)]
        hint = nearest(source, near) if near else ""
        # Of a folder's many names only a near one helps.
        raise ConfigError(f"there is no file {source!r}{hint if 'did you mean' in hint else ''}") from None
    except OSError as error:
        raise ConfigError(f"{source!r} cannot be read: {error.strerror}") from None


def _neighbours(path: Path) -> list[Path]:
    try:
        return [each for each in path.parent.iterdir() if each.is_file()]
    except OSError:
        return []


def _report(
    source: str, content: bytes, encoding: Encoding | None, records: References | None = None
) -> dict[str, Any]:
    """Say all that there is to say of one input."""
    name = "standard input" if source == _STDIN else source
    try:
        data, found = read(content, encoding)
        report = {"source": name, "ok": True, "authenticated": False, "encoding": found}
        if not is_short(data):
            return report | anatomy(data, decode(data))
        if records is None:
            return report | short_anatomy(data)
        return (
            report
            | anatomy(data, decode(records.fetch(data)))
            | {"reference": short_anatomy(data)["reference"]}
        )
    except Refused as refused:
        return {"source": name, "ok": False, "verdict": refused.verdict.value, "error": refused.detail}


# -- for people --------------------------------------------------------------------------------------------------------


def _show(out: Console, reports: Iterable[Mapping[str, Any]]) -> None:
    for report in reports:
        if report["ok"]:
            out.print(_panel(report))
        else:
            cross, source = sign_for(out, good=False), printable(report["source"])
            out.print(
                Text.assemble(
                    (f"{cross} {source}: {report['verdict']}: ", "bold red"), printable(report["error"])
                )
            )


def panel_of(source: str, envelope: bytes) -> RenderableType:
    """Return what is shown of one envelope, or why it is none."""
    report = _report(source, envelope, "raw")
    if report["ok"]:
        return _panel(report)
    return Text(f"{report['verdict']}: {printable(report['error'])}", style="bold red")


def _short_panel(report: Mapping[str, Any]) -> RenderableType:
    said = report["unverified"]
    parts: list[RenderableType] = [
        Text(_UNVERIFIED, style="bold yellow"),
        _section(
            "short form",
            ("data key", "by reference; --references FILE shows the rest", ""),
            ("reference", report["reference"], "[0]"),
            ("sent at", said["sent_at"], "[1]"),
            ("message id", said["message_id"], "[1]"),
            ("signature", f"{said['signature_bytes']} bytes" if said["signature_bytes"] else "none", "[3]"),
            ("envelope", f"{report['bytes']['envelope']:,} bytes", ""),
            ("body", f"{report['bytes']['body']:,} bytes, sealed", ""),
            ("written as", report["encoding"], ""),
        ),
    ]
    title = Text(printable(report["source"]), style="bold")
    return Panel(Group(*parts), title=title, title_align="left", border_style="cyan", padding=(0, 1))


def _panel(report: Mapping[str, Any]) -> RenderableType:
    if "protection" not in report:
        return _short_panel(report)
    said, sizes = report["unverified"], report["bytes"]
    encryption, signature = said["encryption"], said["signature"]
    parts: list[RenderableType] = [
        Text(_UNVERIFIED, style="bold yellow"),
        _section(
            "envelope",
            ("version", report["version"], "postseal[0]"),
            ("protection", report["protection"], "postseal[1]"),
            ("structure", report["structure"], ""),
            *([("reference", report["reference"], "short form")] if "reference" in report else []),
            ("written as", report["encoding"], ""),
        ),
        _section(
            "what it says of itself",
            ("sender", said["sender"], "claim 1, iss"),
            ("destination", said["destination"], "claim 3, aud"),
            ("sent at", said["sent_at"], "claim 6, iat"),
            ("expires at", said["expires_at"] or "never", "claim 4, exp"),
            ("message id", said["message_id"], "claim 7, cti"),
            ("content type", said["content_type"] or "not said", "label 3"),
            ("policy", f"{said['policy']}, version {said['policy_version']}", "postseal[3], [4]"),
            ("bound headers", ", ".join(said["bound_headers"]) or "none", "postseal[5]"),
            *([("encrypted headers", "inside", "postseal[6]")] if said["encrypts_headers"] else []),
            *([("in reply to", said["in_reply_to"], "postseal[6]")] if said["in_reply_to"] else []),
        ),
    ]
    if encryption is not None:
        parts.append(
            _section(
                "encryption",
                ("algorithm", f"{encryption['algorithm']} ({encryption['number']})", "label 1, alg"),
                ("nonce", encryption["nonce"] or "the service's own, if any", "label 5, IV"),
                ("commitment", encryption["key_commitment"] or "none: no data key", "postseal, last"),
            )
        )
    parts += [
        _section(
            f"recipient {index} of {len(said['recipients'])}",
            ("algorithm", f"{recipient['algorithm']} ({recipient['number']})", "label 1, alg"),
            ("key id", _key_id(recipient), "label 4, kid"),
            ("wrapped key", f"{recipient['wrapped_key_bytes']:,} bytes", ""),
        )
        for index, recipient in enumerate(said["recipients"], 1)
    ]
    if signature is not None:
        parts.append(
            _section(
                "signature, unchecked",
                ("algorithm", f"{signature['algorithm']} ({signature['number']})", "label 1, alg"),
                ("key id", _key_id(signature), "label 4, kid"),
                ("length", f"{signature['bytes']} bytes", ""),
                ("would prove", _PROVES[signature["would_prove"]], ""),
            )
        )
    parts.append(
        _section(
            "sizes",
            ("body", _body(report), ""),
            (
                "added",
                _added(sizes),
                "",
            ),
            ("envelope", f"{sizes['envelope']:,} bytes; {sizes['as_base64url']:,} as base64url", ""),
        )
    )
    title = Text(printable(report["source"]), style="bold")
    return Panel(Group(*parts), title=title, title_align="left", border_style="cyan", padding=(0, 1))


_PROVES: Final = {
    "sender": "the sender: only the holder of the private key can sign",
    "group": "the group: everyone who can verify could have made it",
}


def _section(title: str, *rows: tuple[str, object, str]) -> RenderableType:
    table = Table.grid(padding=(0, 1), expand=True)
    table.add_column(width=13, style="cyan")
    table.add_column(ratio=1, overflow="fold")
    table.add_column(justify="right", style="dim", no_wrap=True)
    for name, value, place in rows:
        table.add_row(name, Text(printable(str(value))), place)
    return Group(Text(f"\n{title}", style="bold"), table)


def _body(report: Mapping[str, Any]) -> str:
    sizes = report["bytes"]
    if sizes["body"] is None:
        return f"within {sizes['ciphertext']:,} bytes that the key service encrypted"
    return f"{sizes['body']:,} bytes{_in_clear(report)}"


def _added(sizes: Mapping[str, int | None]) -> str:
    added = "not known" if sizes["added"] is None else f"{sizes['added']:,} bytes"
    return (
        f"{added}: header {sizes['header']:,}, recipients {sizes['recipients']:,}, "
        f"signature {sizes['signature']:,}, the rest structure and tags"
    )


def _key_id(part: Mapping[str, Any]) -> str:
    return f"{part['key_id']!r}" if part["key_id"] is not None else str(part["key_id_hex"])


def _in_clear(report: Mapping[str, Any]) -> str:
    return (
        ", in clear: integrity hides nothing (not shown)"
        if report["protection"] == "integrity"
        else ", sealed"
    )
