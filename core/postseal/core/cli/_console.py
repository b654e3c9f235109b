"""What is printed and how: consoles, and text that others wrote."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TextIO

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

__all__ = ["console", "print_json", "printable", "progress_bar", "sign_for"]


def console() -> Console:
    """Make the console for standard output: colours for a terminal, none where NO_COLOR is set or something else reads."""
    _never_fail(sys.stdout)
    return Console(highlight=False, emoji=False)


def print_json(value: Mapping[str, Any]) -> None:
    """Print *value* as one line for machines. ASCII, so that no locale can garble it."""
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def printable(text: str) -> str:
    """Return *text* with every character escaped that a terminal could act upon: control codes, changes of direction."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def sign_for(console: Console, *, good: bool) -> str:
    """Return a tick or a cross, in what the terminal can show."""
    if console.encoding.lower().startswith("utf"):
        return "✓" if good else "✗"
    return "ok" if good else "!!"


def progress_bar(console: Console, *, shown: bool) -> AbstractContextManager[Progress | None]:
    """Make what shows how far long work is, on a terminal; nothing where something else reads."""
    if not shown or not console.is_terminal:
        return nullcontext()
    return Progress(SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), console=console)


def _never_fail(stream: TextIO) -> None:
    """Show what the terminal's encoding has not as ``?``."""
    with contextlib.suppress(AttributeError, ValueError):
        stream.reconfigure(errors="replace")  # type: ignore[attr-defined]  # not every stream has it
