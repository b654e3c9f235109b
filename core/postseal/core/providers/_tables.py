"""Asking a SQLite file and a DynamoDB table, with what goes wrong told in our words."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any, Final

from postseal.core.errors import KeyRefused, KeyUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["call", "execute", "make_file"]

_DENIED: Final = frozenset(
    {"AccessDeniedException", "ResourceNotFoundException", "UnrecognizedClientException"}
)


def make_file(path: str) -> None:
    """Make *path* if it is not there, for its owner alone."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))


def execute(path: str, statement: str, *values: Any) -> tuple[list[Any], int]:
    """Execute *statement*; return its rows, and how many it changed.

    Raises:
        KeyUnavailable: The file is locked, or cannot be read or written.
    """
    # A connection for each: they are few, and none then is shared by threads or with a forked child.
    try:
        with closing(sqlite3.connect(path, timeout=5.0)) as connection, connection:
            connection.execute("PRAGMA secure_delete = ON")
            cursor = connection.execute(statement, values)
            return cursor.fetchall(), cursor.rowcount
    except sqlite3.Error as error:
        raise KeyUnavailable(f"{path}: {type(error).__name__}") from error


def call(table: str, method: Callable[..., Any], **options: Any) -> dict[str, Any]:
    """Return what DynamoDB answers for *table*; nothing where a condition does not hold.

    Raises:
        KeyRefused: It said no, or there is no such table.
        KeyUnavailable: No answer.
    """
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 - the client is the caller's

    try:
        answer: dict[str, Any] = method(TableName=table, **options)
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        if code == "ConditionalCheckFailedException":
            return {}
        kind = KeyRefused if code in _DENIED else KeyUnavailable
        raise kind(f"DynamoDB {table}: {code}") from error
    except BotoCoreError as error:
        raise KeyUnavailable(f"DynamoDB {table}: {type(error).__name__}") from error
    return answer
