"""Groups of commands."""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup

from postseal.core.errors import nearest

__all__ = ["Commands"]


class Commands(TyperGroup):
    """Commands that answer a misspelt name with the nearest right one."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command that *args* begin with."""
        if args and not args[0].startswith("-") and args[0] not in self.commands:
            ctx.fail(f"there is no command {args[0]!r}{nearest(args[0], self.commands)}")
        return super().resolve_command(ctx, args)
