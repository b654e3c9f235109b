"""The commands, their help, and one sentence for whatever was used wrongly."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Annotated, Any, Final, cast

import typer
from typer.main import get_command

from postseal.core.cli import (
    archive,
    audit,
    demo,
    doctor,
    explain,
    group,
    inspect,
    plan,
    policy,
    quarantine,
    recover,
    rewrap,
)
from postseal.core.cli._commands import Commands
from postseal.core.cli._console import printable
from postseal.core.errors import PostsealError, nearest

__all__ = ["app", "run"]

# typer brought click along before it had a copy of its own; this reaches the base of all errors of whichever it is.
_ClickError = cast("type[Exception]", typer.BadParameter.__mro__[2])
USAGE: Final = 2


app = typer.Typer(
    name="postseal",
    cls=Commands,
    help="Seals messages in the producer and opens them in the consumer; the broker holds only ciphertext.",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,  # its traceback shows local variables, and those hold keys and bodies
)
app.command("demo")(demo.command)
app.command("doctor")(doctor.command)
app.command("explain")(explain.command)
app.command("inspect")(inspect.command)
app.command("plan")(plan.command)
app.command("recover")(recover.command)
app.command("rewrap")(rewrap.command)
app.add_typer(archive.app, name="archive", cls=Commands)
app.add_typer(audit.app, name="audit", cls=Commands)
app.add_typer(group.app, name="group", cls=Commands)
app.add_typer(policy.app, name="policy")
app.add_typer(quarantine.app, name="quarantine", cls=Commands)


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"postseal {version('postseal')}")
        raise typer.Exit


@app.callback()
def _postseal(
    *,
    _version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    pass


def run(args: Sequence[str] | None = None) -> int:
    """Run the command that *args* name, those of the process by default, and return its exit code."""
    try:
        code = get_command(app).main(
            args=None if args is None else list(args), prog_name="postseal", standalone_mode=False
        )
    except _ClickError as error:
        return _complain(_sentence(error), getattr(error, "ctx", None))
    except PostsealError as error:
        return _complain(str(error))
    except typer.Abort:
        return 130  # as shells say of SIGINT
    return int(code or 0)


def _complain(sentence: str, context: Any = None) -> int:
    path = getattr(context, "command_path", "postseal")
    print(f"{path}: {printable(sentence)}", file=sys.stderr)  # noqa: T201 - one line, whatever the terminal
    return USAGE


def _sentence(error: Any) -> str:
    """Say what *error* of the command line is, and what would be right."""
    option, context = getattr(error, "option_name", None), getattr(error, "ctx", None)
    if type(error).__name__ == "NoSuchOption" and context is not None:
        options = [each for each in context.command.params if not getattr(each, "hidden", False)]
        known = {name for each in options for name in each.opts if name.startswith("-")}
        return f"there is no option {option!r}{nearest(str(option), known | {'--help'})}"
    text: str = error.format_message().strip().rstrip(".")
    if text.startswith("Missing command"):
        return f"no command was given{nearest('', context.command.commands if context else ())}"
    return text[:1].lower() + text[1:]
