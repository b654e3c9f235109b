"""``postseal archive``: the key pair of an archive, its private part in shares."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Final

import typer

from postseal.core.cli._console import console, print_json, sign_for
from postseal.core.errors import ConfigError

__all__ = ["app"]

app = typer.Typer(help="Make the key pair of an archive, which opens what no key service opens any more.")

_KINDS: Final = ("x25519", "x-wing")


@app.callback()
def _archive() -> None:
    """Keep the sub-command's name, though there is one alone."""


@app.command("create")
def create(
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="Where to write; made if it is not there.")],
    *,
    threshold: Annotated[int, typer.Option(help="How many shares give the private key back: 2 or more.")],
    shares: Annotated[int, typer.Option(help="How many shares there are: 16 at most.")],
    kind: Annotated[
        str,
        typer.Option(help="x25519 (93 bytes a message), or x-wing (1,182; also against quantum computers)."),
    ] = "x25519",
    private_key: Annotated[
        bool, typer.Option("--private-key", help="Also write the whole private key, unencrypted.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Make an archive's key pair: archive.pem for every producer, and a file for each share.

    The private key is in the shares alone, and is not written unless you ask for it. Give the shares to different people, on paper or on
    sticks; try them with `postseal recover` before you rely on them.
    """
    from postseal.core.publickeys import OpeningKey
    from postseal.core.recovery import split

    if kind not in _KINDS:
        raise ConfigError(f"--kind is {kind!r}; an archive's key is x25519 or x-wing")
    key = OpeningKey.generate(kind)
    texts = split(key, threshold=threshold, shares=shares)
    files = {"archive.pem": key.public.to_pem()}
    files |= {f"share-{n}-of-{shares}.txt": text.encode() for n, text in enumerate(texts, 1)}
    if private_key:
        files["archive-private.pem"] = key.to_pem()
    root = Path(folder)
    _write(root, files)
    told = {"folder": str(root), "kind": kind, "key_id": key.public.key_id.hex(), "threshold": threshold, "files": list(files)}  # fmt: skip
    if as_json:
        print_json(told)
        return
    out = console()
    out.print(f"{sign_for(out, good=True)} archive key {told['key_id']}, {kind}, in {root}", markup=False)
    out.print("  archive.pem is for every producer: RecipientKey.from_file('archive.pem')", markup=False)
    out.print(f"  any {threshold} of the {shares} shares open; keep them apart, and not here", markup=False)


def _write(root: Path, files: dict[str, bytes]) -> None:
    """Write *files*, and nothing if one of them is there: a key that is overwritten is lost with all that was wrapped for it."""
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        there = [name for name in files if (root / name).exists()]
        if there:
            raise ConfigError(f"{root / there[0]} is there already, and a key is never overwritten")
        for name, content in files.items():
            mode = 0o644 if name == "archive.pem" else 0o600
            descriptor = os.open(root / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
    except OSError as error:
        raise ConfigError(f"{str(root)!r} cannot be written to: {error.strerror}") from None
