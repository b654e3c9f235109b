"""``postseal policy``: what a policy file says, and what is wrong in it."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.text import Text

from postseal.core.cli._commands import Commands
from postseal.core.cli._console import console, print_json, printable, sign_for
from postseal.core.errors import Mistake, PolicyFileError

__all__ = ["app"]

DEFAULT: Final = "postseal.toml"

app = typer.Typer(
    cls=Commands,
    help="What a policy file says, and what is wrong in it.",
    context_settings={"help_option_names": ["-h", "--help"]},
)

File = Annotated[
    Path, typer.Argument(metavar="[FILE]", help="The policy file.", show_default=DEFAULT, exists=False)
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object.")]


@app.command("check")
def check(
    file: File = Path(DEFAULT),
    *,
    resolve: Annotated[
        bool,
        typer.Option(
            "--resolve",
            help="Also fetch the secrets and make the clients of key services, as this process would.",
        ),
    ] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings are mistakes.")] = False,
    as_json: Json = False,
) -> None:
    """Say all that is wrong in a policy file, each with its line.

    Fetches no secret and asks nobody, unless told to. Exit code 1: there are mistakes.
    """
    from postseal.core.config import PolicyFile

    mistakes: tuple[Mistake, ...] = ()
    warnings: tuple[Mistake, ...] = ()
    policies = 0
    try:
        found = PolicyFile.read(file)
        warnings, policies = found.warnings, len(found.policies)
        if resolve:
            found.resolve()
    except PolicyFileError as error:
        mistakes = error.mistakes
    good = not mistakes and not (strict and warnings)
    if as_json:
        print_json(
            {
                "file": str(file),
                "ok": good,
                "policies": policies,
                "mistakes": [_as_dict(each) for each in mistakes],
                "warnings": [_as_dict(each) for each in warnings],
            }
        )
    else:
        _show_check(console(), file, mistakes, warnings, policies)
    if not good:
        raise typer.Exit(1)


def _as_dict(mistake: Mistake) -> Mapping[str, Any]:
    return {"line": mistake.line, "column": mistake.column, "text": mistake.text}


def _show_check(
    out: Console, file: Path, mistakes: Iterable[Mistake], warnings: Iterable[Mistake], policies: int
) -> None:
    """One line for each, as compilers write them, so that editors can jump there."""
    count = 0
    for mistake in mistakes:
        count += 1
        out.print(_line(mistake, "mistake", "bold red"), soft_wrap=True)
    for warning in warnings:
        out.print(_line(warning, "warning", "yellow"), soft_wrap=True)
    name = printable(str(file))
    if count:
        out.print(Text(f"{sign_for(out, good=False)} {name}: {_counted(count, 'mistake')}", style="bold red"))
    else:
        out.print(
            Text(f"{sign_for(out, good=True)} {name}: {_counted(policies, 'policy')}", style="bold green")
        )


def _line(mistake: Mistake, word: str, style: str) -> Text:
    return Text.assemble(
        (printable(f"{mistake.file}:{mistake.line}:{mistake.column}"), "bold"),
        ": ",
        (word, style),
        ": ",
        printable(mistake.text),
    )


def _counted(number: int, word: str) -> str:
    plural = word[:-1] + "ies" if word.endswith("y") else word + "s"
    return f"{number} {word if number == 1 else plural}"


@app.command("schema")
def schema() -> None:
    """Print the JSON Schema of policy files, for editors."""
    import json

    from postseal.core.config import policy_schema

    sys.stdout.write(json.dumps(policy_schema(), indent=2) + "\n")
