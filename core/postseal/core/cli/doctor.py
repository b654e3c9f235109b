"""``postseal doctor``: whether all that a policy file names works, and what mends what does not."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.text import Text

from postseal.core.cli._console import console, print_json, printable, progress_bar, sign_for
from postseal.core.errors import ConfigError
from postseal.core.findings import Examined, Finding, bad, good, room_at

__all__ = ["command"]

_DEFAULT: Final = "postseal.toml"
_STYLES: Final = {"good": "green", "warning": "yellow", "bad": "bold red"}


class _Role(StrEnum):
    BOTH = "both"
    PRODUCER = "producer"
    CONSUMER = "consumer"


def command(
    *,
    config: Annotated[
        Path, typer.Option("--config", "-c", metavar="FILE", help="The policy file.", show_default=_DEFAULT)
    ] = Path(_DEFAULT),
    role: Annotated[
        _Role, typer.Option(help="What this process is to do: rights for the rest are not asked for.")
    ] = _Role.BOTH,
    policy: Annotated[
        list[str] | None, typer.Option("--policy", metavar="NAME", help="Only this policy. Again for more.")
    ] = None,
    ledger: Annotated[
        str | None,
        typer.Option(
            metavar="PATH|URL", help="The ledger, where it is not the file's: a SQLite file, or redis://..."
        ),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings count, too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Try what a policy file names, as this process would, and say what to mend: a line each.

    Asks the real key services: rights, states, clocks, times. Makes data keys, seals and opens a message; sends nothing. Exit code 1:
    something is to be mended.
    """
    from postseal.core.examining import examine

    out = console()
    found: list[Finding] = []
    with warnings.catch_warnings(), progress_bar(out, shown=not as_json) as progress:
        warnings.simplefilter(
            "ignore", UserWarning
        )  # that keys are not for production is one of the findings
        task = None if progress is None else progress.add_task("", total=None)

        def doing(what: str) -> None:
            if progress is not None and task is not None:
                progress.update(task, description=printable(what))

        made = None if ledger is None else _ledger(ledger)
        for finding in examine(
            config, role=role.value, policies=_known(config, policy or []), ledger=made, doing=doing
        ):
            found.append(finding)
            if not as_json:
                _show(out, finding)
    counts = Counter(finding.grade for finding in found)
    wrong = counts["bad"] + (counts["warning"] if strict else 0)
    if as_json:
        print_json({"file": str(config), "ok": not wrong, "findings": [each._asdict() for each in found]})
    else:
        says = f"{counts['good']} good, {counts['warning']} warnings, {counts['bad']} to be mended"
        out.print(
            Text(f"{sign_for(out, good=not wrong)} {says}", style="bold red" if wrong else "bold green")
        )
    if wrong:
        raise typer.Exit(1)


def _known(config: Path, names: list[str]) -> list[str]:
    """See that there are policies of these names."""
    if names:
        from postseal.core.config import PolicyFile
        from postseal.core.errors import PolicyFileError, nearest

        try:
            known = [policy.name for policy in PolicyFile.read(config).policies]
        except PolicyFileError:
            return names  # the mistakes are found again, and said
        for name in names:
            if name not in known:
                raise ConfigError(f"{config} has no policy {name!r}{nearest(name, known)}")
    return names


def _ledger(named: str) -> Callable[[], Examined]:
    """Make the ledger that *named* is the path or address of. An address may hold a password, and is not shown."""

    def make() -> Examined:
        if "://" not in named:
            from postseal.core.replay import SqliteLedger

            path = Path(named)
            return SqliteLedger(path) if path.exists() else _NotYet(path)
        from postseal.core.replay import RedisLedger

        return RedisLedger.from_url(named, timeout=5)

    return make


class _NotYet:
    """A file that the first process makes which settles something. It is not made here, where another user may run."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def examine(self) -> Iterator[Finding]:
        """Say whether it can be made."""
        folder = self._path.absolute().parent
        if os.access(folder, os.W_OK):
            yield good(f"{self._path} is not there yet, and can be made")
        else:
            yield bad(f"{folder} cannot be written", "make it, for the user that this process runs as")
        yield from room_at(str(folder))


def _show(out: Console, finding: Finding) -> None:
    mark = "!" if finding.grade == "warning" else sign_for(out, good=finding.grade == "good")
    line = Text(f"{mark} ", style=_STYLES[finding.grade])
    line.append(printable(finding.what), style="bold")
    line.append(f": {printable(finding.says)}")
    if finding.mend:
        line.append(f" -> {printable(finding.mend)}", style="cyan")
    out.print(line, soft_wrap=True)
