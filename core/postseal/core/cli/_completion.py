"""What shells complete: names that stand in the policy file of the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import typer

from postseal.core.errors import PostsealError

__all__ = ["DEFAULT_FILE", "destinations"]

DEFAULT_FILE: Final = "postseal.toml"


def destinations(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the destinations that the policy file names and that begin with *incomplete*; of patterns, what comes before the wildcard.

    A file with a mistake has none: a shell is no place to say so.
    """
    from postseal.core.config import PolicyFile

    try:
        found = PolicyFile.read(Path(ctx.params.get("file") or DEFAULT_FILE))
    except PostsealError:
        return []
    patterns = (
        pattern for policy in found.policies for pattern in (*policy.destinations, *policy.accept_from)
    )
    names = {min(pattern.partition("*")[0], pattern.partition("#")[0], key=len) for pattern in patterns}
    return sorted(name for name in names if name.startswith(incomplete))
