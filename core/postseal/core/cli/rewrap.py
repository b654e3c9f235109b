"""``postseal rewrap``: moves stored envelopes to other wrapping keys without touching their bodies."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.console import Console
from rich.progress import Progress
from rich.text import Text

from postseal.core.cli._console import console, print_json, printable, progress_bar, sign_for
from postseal.core.cli._references import HELP, references_in
from postseal.core.errors import ConfigError

if TYPE_CHECKING:
    from postseal.core.keys import KeyProvider
    from postseal.core.rewrapping import Moved

__all__ = ["command"]

_EVERY: Final = 64
"""Messages between two looks at the progress."""


def command(
    source: Annotated[str, typer.Argument(metavar="INPUT", help="A folder of envelopes, or a file of many.")],
    *,
    old: Annotated[
        list[str],
        typer.Option(help="What opens now: a private key (PEM, PKCS #12), or the ARN of a key of AWS KMS."),
    ],
    new: Annotated[
        list[str],
        typer.Option(help="What is to open: a public key or certificate in PEM, or an ARN. One or several."),
    ],
    out: Annotated[
        str, typer.Option(help="Folder for the new envelopes; that of an earlier run is gone on with.")
    ],
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave the old recipients beside the new ones.")
    ] = False,
    password_env: Annotated[
        str | None, typer.Option(help="The environment variable with the private key's password.")
    ] = None,
    references: Annotated[str | None, typer.Option(help=HELP)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object at the end.")] = False,
) -> None:
    """Move stored envelopes to other wrapping keys. Their bodies are not opened and not touched.

    Reads folders of envelopes, files of envelopes behind their lengths, and lines of JSON with the envelope in base64, as recover does, and
    writes the same to another folder. What its sender signed (privacy) cannot be moved, and is copied as it is. Run it again with the same
    --out after an interruption. Exit code 1: something was left as it was.
    """
    from postseal.core.rewrapping import Rewrapper, rewrap_dump

    rewrapper = Rewrapper(
        _combined(old, password_env, opens=True),
        _combined(new, None, opens=False),
        keep=keep,
        references=references_in(references),
    )
    screen = console()
    with progress_bar(screen, shown=not as_json) as bar:
        moved = rewrap_dump(source, out, rewrapper, progress=_Shown(bar))
    if as_json:
        print_json(moved.as_dict() | {"out": out})
    else:
        _tell(screen, moved, out)
    if moved.left:
        raise typer.Exit(1)


def _combined(names: list[str], password_env: str | None, *, opens: bool) -> KeyProvider:
    from postseal.core.providers.combined import CombinedKeys

    return CombinedKeys([_provider(name, password_env, opens=opens) for name in names])


def _provider(name: str, password_env: str | None, *, opens: bool) -> KeyProvider:
    if name.startswith("arn:"):
        return _kms(name)
    from postseal.core.providers.public_key import PublicKeyRecipients
    from postseal.core.publickeys import OpeningKey, RecipientKey

    if not opens:
        return PublicKeyRecipients([RecipientKey.from_file(name)])
    password = None if password_env is None else os.environ.get(password_env)
    if password_env is not None and password is None:
        raise ConfigError(f"the environment has no {password_env}")
    return PublicKeyRecipients(open_with=[OpeningKey.from_file(name, password)])


def _kms(arn: str) -> KeyProvider:
    from postseal.core.providers.aws_kms import AwsKms

    parts = arn.split(":")
    if len(parts) != 6 or parts[2] != "kms":  # noqa: PLR2004 - arn:partition:service:region:account:resource
        raise ConfigError(f"this is not the ARN of a key of AWS KMS: {arn!r}")
    import boto3
    from botocore.config import Config

    patient = Config(
        connect_timeout=5, read_timeout=10, retries={"mode": "standard", "total_max_attempts": 10}
    )
    return AwsKms(boto3.client("kms", region_name=parts[3], config=patient), arn)


# -- for people --------------------------------------------------------------------------------------------------------


class _Shown:
    """Shows how far it is, now and then."""

    def __init__(self, bar: Progress | None) -> None:
        self._bar = bar
        self._task: Any = None if bar is None else bar.add_task("moving")

    def __call__(self, moved: Moved) -> None:
        if self._bar is not None and moved.seen % _EVERY == 0:
            self._bar.update(
                self._task, description=f"{moved.moved + moved.before:,} moved, {moved.left.total():,} left"
            )


def _tell(screen: Console, moved: Moved, out: str) -> None:
    good = not moved.left
    said = f"{sign_for(screen, good=good)} {moved.moved:,} of {moved.seen:,} messages moved, in {printable(str(Path(out)))}"
    screen.print(Text(said, "bold green" if good else "bold yellow"))
    if moved.before:
        screen.print(Text(f"  {moved.before:,} were written by an earlier run"))
    for reason, count in moved.left.most_common():
        examples = ", ".join(moved.examples[reason])
        screen.print(
            Text(f"  {count:,} left as they were: {printable(reason)} ({printable(examples)})", "yellow")
        )
