"""The `postseal` command.

Needs the extra ``cli``; `main` says so where it is missing. Nothing else of postseal imports this package, so a program that seals and
opens loads neither typer nor rich.
"""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> int:
    """Run the command with the process's arguments.

    Returns:
        0 where all is well, 1 where something was found or a demonstration failed, 2 where the command was used wrongly.
    """
    try:
        from postseal.core.cli._app import run
    except ModuleNotFoundError as missing:
        if (missing.name or "").partition(".")[0] not in {"typer", "rich"}:
            raise
        print(  # noqa: T201 - rich is what is missing
            f"postseal: the command needs {missing.name}, which is not installed: pip install 'postseal[cli]'",
            file=sys.stderr,
        )
        return 2
    return run()
