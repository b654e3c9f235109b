"""``postseal recover``: opens a dump offline, with the archive's private key."""

from __future__ import annotations

import os
from collections.abc import Iterator
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
    from postseal.core.policy import Policy
    from postseal.core.publickeys import OpeningKey
    from postseal.core.recovery import Kept, Recovery, Report
    from postseal.core.signing import KeyRing

__all__ = ["command"]

_EVERY: Final = 64
"""Messages between two looks at the progress."""


def command(
    inputs: Annotated[
        list[str], typer.Argument(metavar="INPUT...", help="Folders of envelopes, or files of many.")
    ],
    *,
    out: Annotated[
        str,
        typer.Option(
            "--out", help="Folder for what opened, IN CLEAR; name that of an earlier run to go on with it."
        ),
    ],
    shares: Annotated[
        list[str] | None,
        typer.Option("--shares", help="A share, or a folder of shares; as often as there are shares."),
    ] = None,
    private_key: Annotated[
        str | None, typer.Option(help="Instead of shares: a private key, PEM or PKCS #12.")
    ] = None,
    password_env: Annotated[
        str | None, typer.Option(help="The environment variable with the private key's password.")
    ] = None,
    kind: Annotated[
        str | None, typer.Option(help="x25519 or x-wing, where the shares are bare words.")
    ] = None,
    policy: Annotated[
        str | None,
        typer.Option(
            help="Policy file: its signers verify, and what its policies demand must hold. Its keys are not used."
        ),
    ] = None,
    references: Annotated[str | None, typer.Option(help=HELP)] = None,
    dump_format: Annotated[str, typer.Option("--format", help="auto, envelopes, lengths or jsonl.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object at the end.")] = False,
) -> None:
    """Open sealed messages offline with an archive's private key.

    Reads folders of envelopes (bytes, base64 or hex), files of envelopes behind their lengths (4 bytes), and lines of JSON with the
    envelope in base64. Asks no network. What opened goes to recovered.jsonl, what did not to failed.jsonl, with why. Run it again with
    the same --out after an interruption. Exit code 1: something did not open.
    """
    from postseal.core.providers.public_key import PublicKeyRecipients
    from postseal.core.recovery import Output, Recovery, recover

    key = _key(shares or [], private_key, password_env, kind)
    policies, signers = ((), {}) if policy is None else _rules(policy)
    recovery: Recovery = Recovery(
        PublicKeyRecipients(open_with=[key]),
        policies=policies,
        signers=signers,
        references=references_in(references),
    )
    _check_places(inputs, out)
    screen = console()
    with Output(out) as output, progress_bar(screen, shown=not as_json) as bar:
        report = recover(_messages(inputs, dump_format), recovery, output, progress=_Shown(bar))
    if as_json:
        print_json(report.as_dict() | {"out": out, "key_id": key.public.key_id.hex()})
    else:
        _tell(screen, report, out)
    if report.lost:
        raise typer.Exit(1)


def _key(
    shares: list[str], private_key: str | None, password_env: str | None, kind: str | None
) -> OpeningKey:
    from postseal.core.publickeys import OpeningKey
    from postseal.core.recovery import join

    if bool(shares) == (private_key is not None):
        raise ConfigError("give either --shares or --private-key")
    if private_key is not None:
        password = None if password_env is None else os.environ.get(password_env)
        if password_env is not None and password is None:
            raise ConfigError(f"the environment has no {password_env}")
        return OpeningKey.from_file(private_key, password)
    files = [file for given in shares for file in _files(Path(given))]
    return join([_text(file) for file in files], kind=kind)


def _rules(path: str) -> tuple[tuple[Policy, ...], dict[str, KeyRing]]:
    """Return the policies of a policy file, and the rings that verify for them."""
    from postseal.core.config import PolicyFile

    settings = PolicyFile.read(path).resolve(sender="recover", verify_only=True)
    return settings.arguments["policies"], dict(settings.arguments["signers"])


def _files(path: Path) -> list[Path]:
    return sorted(path.glob("share-*.txt")) if path.is_dir() else [path]


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError:
        raise ConfigError(f"{str(path)!r} is no share") from None
    except OSError as error:
        raise ConfigError(f"{str(path)!r} cannot be read: {error.strerror}") from None


def _check_places(inputs: list[str], out: str) -> None:
    target = Path(out).resolve()
    for given in inputs:
        if not Path(given).exists():
            raise ConfigError(f"there is no {given!r}")
        if Path(given).resolve() in (target, *target.parents):
            raise ConfigError("what is in clear must not be written among what is sealed: another --out")


def _messages(inputs: list[str], dump_format: str) -> Iterator[Kept]:
    from postseal.core.recovery import read_dump

    for given in inputs:
        for kept in read_dump(given, dump_format):
            # Names within different inputs may be the same.
            yield kept if len(inputs) == 1 else kept._replace(source=f"{given}/{kept.source}")


# -- for people --------------------------------------------------------------------------------------------------------


class _Shown:
    """Shows how far it is, now and then."""

    def __init__(self, bar: Progress | None) -> None:
        self._bar = bar
        self._task: Any = None if bar is None else bar.add_task("opening")

    def __call__(self, report: Report) -> None:
        if self._bar is not None and report.seen % _EVERY == 0:
            opened = report.recovered + report.before
            self._bar.update(self._task, description=f"{opened:,} opened, {report.lost:,} not")


def _tell(screen: Console, report: Report, out: str) -> None:
    from postseal.core.recovery import Proof

    good = report.lost == 0
    opened = report.recovered + report.before
    style = "bold green" if good else "bold red"
    sign = sign_for(screen, good=good)
    screen.print(
        Text(f"{sign} {opened:,} of {report.seen:,} messages opened, in clear in {printable(out)}", style)
    )
    if report.before:
        screen.print(Text(f"  {report.before:,} of them by an earlier run"))
    for reason, count in report.failed.most_common():
        examples = ", ".join(report.examples[reason])
        screen.print(Text(f"  {count:,} not: {printable(reason)} ({printable(examples)})", "red"))
    if report.proofs[Proof.UNCHECKED]:
        screen.print(
            Text(
                f"  UNVERIFIED: {report.proofs[Proof.UNCHECKED]:,} signed messages were not checked, because no keys to verify with were "
                "given. Whoever has the archive's public key could have made them.",
                "bold yellow",
            )
        )
    if report.proofs[Proof.NONE]:
        screen.print(
            Text(
                f"  NOT SIGNED: {report.proofs[Proof.NONE]:,} messages have confidentiality alone: who sealed them is not proved.",
                "yellow",
            )
        )
