"""``postseal policy``: what a policy file says, and what is wrong in it."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from postseal.core.cli._commands import Commands
from postseal.core.cli._completion import destinations
from postseal.core.cli._console import console, print_json, printable, sign_for
from postseal.core.errors import Mistake, PolicyFileError
from postseal.core.values import Value

if TYPE_CHECKING:
    from postseal.core.config import PolicyFile
    from postseal.core.policy import Policy

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


@app.command("show")
def show(file: File = Path(DEFAULT), *, as_json: Json = False) -> None:
    """Show the policies of a file, with all that it leaves to defaults."""
    found = _read(file)
    if as_json:
        print_json({"file": str(file), "policies": [_options(each) for each in found.policies]})
        return
    out = console()
    for policy in found.policies:
        table = Table(
            title=printable(f"{policy.name}  (line {found.lines[policy.name]})"), title_justify="left"
        )
        table.add_column("option", style="bold")
        table.add_column("value", overflow="fold")
        for name, value in _options(policy).items():
            table.add_row(name, printable(_words(value)))
        out.print(table)


@app.command("test")
def tell(
    destination: Annotated[
        str,
        typer.Argument(help="Like kafka:orders, rabbitmq:shop/orders.new.", autocompletion=destinations),
    ],
    file: Annotated[Path, typer.Option("--file", "-f", help="The policy file.")] = Path(DEFAULT),
    *,
    as_json: Json = False,
) -> None:
    """Say which policy is in force at a destination, and whether messages may be sent there or only lie there.

    Exit code 1: none is, so that nothing is sent to it and nothing is read from it.
    """
    from postseal.core.context import check_destination
    from postseal.core.policy import Policies

    found = _read(file)
    name = check_destination(destination)
    policies = Policies(found.policies)
    policy = policies.finds(name)
    home = policy is not None and policies.is_home(name)
    if as_json:
        answer: dict[str, Any] = {"destination": name, "policy": None}
        if policy is not None:
            answer |= {"policy": policy.name, "line": found.lines[policy.name], "sent_to": home}
            answer["options"] = _options(policy)
        print_json(answer)
    else:
        out = console()
        if policy is None:
            sentence, style = f"{name}: no policy speaks of it; it is refused, in both directions", "bold red"
        else:
            role = (
                "sent to and read"
                if home
                else "only read: messages of its destinations may lie there (accept_from)"
            )
            sentence, style = (
                f"{name}: policy {policy.name!r}, line {found.lines[policy.name]}; {role}",
                "bold green",
            )
        out.print(
            Text(f"{sign_for(out, good=policy is not None)} {printable(sentence)}", style=style),
            soft_wrap=True,
        )
    if policy is None:
        raise typer.Exit(1)


@app.command("diff")
def diff(
    old: Annotated[Path, typer.Argument(help="The policy file as it was.")],
    new: Annotated[Path, typer.Argument(help="The policy file as it will be.")],
    *,
    as_json: Json = False,
) -> None:
    """Say in which policies two files differ, option by option. Exit code 1: they do."""
    before = {each.name: _options(each) for each in _read(old).policies}
    after = {each.name: _options(each) for each in _read(new).policies}
    added = [name for name in after if name not in before]
    removed = [name for name in before if name not in after]
    changed = {
        name: {
            option: [before[name][option], value]
            for option, value in after[name].items()
            if value != before[name][option]
        }
        for name in after
        if name in before and after[name] != before[name]
    }
    if as_json:
        print_json({"added": added, "removed": removed, "changed": changed})
    else:
        out = console()
        for name in removed:
            out.print(Text(f"- {printable(name)}", style="red"))
        for name in added:
            out.print(Text(f"+ {printable(name)}", style="green"))
        for name, options in changed.items():
            out.print(Text(f"~ {printable(name)}", style="yellow"))
            for option, (was, becomes) in options.items():
                line = f"    {option}: {_words(was)} -> {_words(becomes)}"
                out.print(Text(printable(line)), soft_wrap=True)
        if not (added or removed or changed):
            out.print("the policies are the same")
    if added or removed or changed:
        raise typer.Exit(1)


def _read(file: Path) -> PolicyFile:
    from postseal.core.config import PolicyFile

    return PolicyFile.read(file)


def _options(policy: Policy) -> dict[str, Any]:
    """Return all options of *policy* as JSON takes them: durations in seconds, sizes in bytes."""
    return {name: _plain(getattr(policy, name)) for name in policy.__slots__}


def _plain(value: Any) -> Any:
    if isinstance(value, Value):
        return {name: getattr(value, name) for name in value.__slots__}
    if isinstance(value, datetime):
        return value.isoformat()
    return list(value) if isinstance(value, tuple) else value


def _words(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {each:,}" for name, each in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)


@app.command("schema")
def schema() -> None:
    """Print the JSON Schema of policy files, for editors."""
    import json

    from postseal.core.config import policy_schema

    sys.stdout.write(json.dumps(policy_schema(), indent=2) + "\n")
