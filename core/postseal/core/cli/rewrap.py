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
from postseal.core.cli._quarantine import ADDRESSES, open_quarantine
from postseal.core.cli._references import HELP, references_in
from postseal.core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from postseal.core.keys import KeyProvider
    from postseal.core.rewrapping import Moved, Rewrapper

__all__ = ["command"]

_EVERY: Final = 64
"""Messages between two looks at the progress."""


def command(
    source: Annotated[
        str,
        typer.Argument(
            metavar="INPUT",
            help="A folder of envelopes, a file of many, or a place at a broker: kafka:orders, rabbitmq:/dead, sqs:dead, "
            "servicebus:orders/$deadletterqueue.",
        ),
    ],
    *,
    old: Annotated[
        list[str],
        typer.Option(
            help="What opens now: a private key (PEM, PKCS #12), the ARN of a key of AWS KMS, or a name of \\[keys] in --policy."
        ),
    ],
    new: Annotated[
        list[str],
        typer.Option(
            help="What is to open: a public key or certificate in PEM, an ARN, or a name of \\[keys]. One or several."
        ),
    ],
    out: Annotated[
        str | None, typer.Option(help="Folder for the new envelopes; that of an earlier run is gone on with.")
    ] = None,
    to: Annotated[
        str | None,
        typer.Option(
            metavar="DESTINATION", help="Where at the same broker what is moved goes, instead of --out."
        ),
    ] = None,
    at: Annotated[
        str | None,
        typer.Option("--at", metavar="ADDRESS", help="Where the broker is, as for `postseal quarantine`."),
    ] = None,
    policy: Annotated[str | None, typer.Option(help="Policy file, for names of its \\[keys].")] = None,
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

    Or moves what lies in a queue or topic to another of the same broker, with all that travels beside it. A queue keeps what cannot be
    moved, and loses each message once its copy is confirmed; a topic keeps all, what cannot be moved is copied as it is, and another run
    goes on behind what was moved. If it is interrupted, one message may be in both places.
    """
    from postseal.core.rewrapping import Rewrapper, rewrap_dump

    named = {} if policy is None else _named([*old, *new], policy)
    rewrapper = Rewrapper(
        _combined(old, named, password_env, opens=True),
        _combined(new, named, None, opens=False),
        keep=keep,
        references=references_in(references),
    )
    target = _target(source, out, to)
    screen = console()
    with progress_bar(screen, shown=not as_json) as bar:
        if to is not None:
            moved = _at_broker(source, to, at, rewrapper, progress=_Shown(bar))
        else:
            moved = rewrap_dump(source, target, rewrapper, progress=_Shown(bar))
    if as_json:
        print_json(moved.as_dict() | {"out": target})
    else:
        _tell(screen, moved, target)
    if moved.left:
        raise typer.Exit(1)


def _target(source: str, out: str | None, to: str | None) -> str:
    """Return where what is moved goes."""
    at_broker = source.partition(":")[0] in ADDRESSES and not Path(source).exists()
    if at_broker != (to is not None) or at_broker == (out is not None):
        raise ConfigError(
            f"{source!r} is a place at a broker: say --to, another place there"
            if at_broker
            else f"{source!r} is a file or folder: say --out, a folder"
        )
    if to == source:
        raise ConfigError("what is moved must not go back to where it lies")
    return str(to or out)


def _at_broker(
    source: str, to: str, at: str | None, rewrapper: Rewrapper, *, progress: Callable[[Moved], None]
) -> Moved:
    """Move what lies at *source* to *to*, one after the other."""
    from postseal.core.errors import Refused
    from postseal.core.rewrapping import Moved

    moved = Moved()
    with open_quarantine(source, at) as place:
        place.go_on(to)
        for held in place.each(taking=True):
            try:
                body = rewrapper.rewrap(held.body)
            except Refused as refused:
                moved.leave(held.id, f"{refused.verdict.value}: {refused.detail}")
                if source.startswith("kafka:"):
                    place.move(held, held.body, to)
                    place.moved(held)
            else:
                place.move(held, body, to)
                place.moved(held)
                moved.moved += 1
            progress(moved)
    return moved


def _named(names: list[str], policy: str) -> Mapping[str, KeyProvider]:
    """Return the key providers of those *names* that are none of files and no ARNs."""
    from postseal.core.config import PolicyFile

    wanted = [name for name in names if not name.startswith("arn:") and not Path(name).exists()]
    return PolicyFile.read(policy).providers(wanted)


def _combined(
    names: list[str], named: Mapping[str, KeyProvider], password_env: str | None, *, opens: bool
) -> KeyProvider:
    from postseal.core.providers.combined import CombinedKeys

    return CombinedKeys([named.get(name) or _provider(name, password_env, opens=opens) for name in names])


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
