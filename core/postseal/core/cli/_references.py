"""``--references``: the file of records that messages name whose data keys travel by reference."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from postseal.core.errors import ConfigError

if TYPE_CHECKING:
    from postseal.core.references import References

__all__ = ["HELP", "references_in"]

HELP: Final = (
    "A SQLite file of records (SqliteReferences), where messages carry their data keys by reference."
)


def references_in(path: str | None) -> References | None:
    """Return the records at *path*.

    Raises:
        ConfigError: There is no such file, or it is none of records.
    """
    if path is None:
        return None
    if not Path(path).is_file():
        raise ConfigError(f"there is no file {path!r}")
    from postseal.core.errors import KeyUnavailable
    from postseal.core.providers.reference_stores import SqliteReferences
    from postseal.core.references import References

    try:
        return References(SqliteReferences(path))
    except KeyUnavailable as error:
        raise ConfigError(f"{path!r} is no file of records: {error}") from None
