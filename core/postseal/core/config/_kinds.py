"""The kinds of values that a policy file holds: how each is read, and how a JSON Schema says it.

Both come from one object, so that the schema that an editor uses and the reader cannot say different things. A reader that finds a
mistake tells of it and returns None, which no value of TOML is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, time
from difflib import get_close_matches
from typing import Any, Final, NamedTuple, Protocol

from postseal.core.config._report import At
from postseal.core.context import check_name
from postseal.core.errors import ConfigError, nearest

__all__ = [
    "Count",
    "Day",
    "Duration",
    "Either",
    "FileName",
    "FileRef",
    "Flag",
    "Items",
    "Kind",
    "Listed",
    "Named",
    "Option",
    "PathRef",
    "Schema",
    "Size",
    "StoreName",
    "Table",
    "Tables",
    "Text",
    "Word",
    "a_kind_of",
    "in_words",
    "looks_secret",
    "name_of",
    "shown",
]

Schema = dict[str, Any]

_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_BYTES: Final = {
    "B": 1,
    "kB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}
_DURATION: Final = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|[smhdw]))+")
_DURATION_PART: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|[smhdw])")
_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?) ?([kMGT]?B|[KMGT]iB)")
_TYPES: Final = (
    (bool, "true or false"),
    (str, "text"),
    (int, "a whole number"),
    (float, "a number"),
    (list, "a list"),
    (dict, "a table"),
    (datetime, "a date and time"),
    (date, "a date"),
    (time, "a time of day"),
)
_PRIVATE: Final = re.compile(r"PRIVATE KEY-----|\bAKIA[0-9A-Z]{16}\b|\bhvs\.[A-Za-z0-9_-]{20,}")
"""A private key in PEM, an access key of AWS, a token of Vault."""
_MOST_SHOWN: Final = 60
_MAX_TABLE_NAME: Final = 255


def shown(value: object) -> str:
    """Show *value* in an error: short, and not where it may be a secret."""
    if isinstance(value, str):
        if looks_secret(value):
            return "what looks like a secret"
        return repr(value if len(value) <= _MOST_SHOWN else value[:_MOST_SHOWN] + "...")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    return a_kind_of(value)


def a_kind_of(value: object) -> str:
    """Say what *value* is in words of TOML."""
    return next((words for kind, words in _TYPES if isinstance(value, kind)), type(value).__name__)


def looks_secret(value: str) -> bool:
    """Tell whether *value* is plainly a secret: a private key, a cloud's credential."""
    return _PRIVATE.search(value) is not None


class Kind(Protocol):
    """One kind of value."""

    @property
    def words(self) -> str:
        """What it is, for people."""
        ...

    def read(self, value: object, at: At) -> Any:
        """Return what *value* says; None where it is wrong, which was told then."""
        ...

    def schema(self) -> Schema:
        """Return its JSON Schema."""
        ...


class Text:
    """Text, in whatever form."""

    def __init__(
        self, words: str = "text", *, check: Callable[[str], str] | None = None, schema: Schema | None = None
    ) -> None:
        self.words = words
        self._typed = words
        self._check = check
        self._schema = schema or {}

    def read(self, value: object, at: At) -> str | None:
        """Return the text."""
        if not isinstance(value, str):
            at.wrong(f"{name_of(at)} must be {self._typed}, not {a_kind_of(value)}")
            return None
        if looks_secret(value):
            at.wrong(
                f"{name_of(at)} holds what looks like a secret: a secret never stands in the policy file"
            )
            return None
        if self._check is None:
            return value
        try:
            return self._check(value)
        except ConfigError as error:
            at.wrong(f"{name_of(at)}: {error}")
            return None

    def schema(self) -> Schema:
        """Say that it is text."""
        return {"type": "string", **self._schema}


class Named(Text):
    """A name of 1 to *most* bytes: NFC, no control characters."""

    def __init__(self, words: str = "a name", most: int = 255) -> None:
        super().__init__(
            words,
            check=lambda value: check_name(value, words, most=most),
            schema={"minLength": 1, "maxLength": most},
        )
        self._typed = "text"


class FileName(Text):
    """The path of a file, from the folder of the policy file. It is read when the file is put to use."""

    def __init__(self, words: str = "the path of a file") -> None:
        super().__init__(words, schema={"minLength": 1})

    def read(self, value: object, at: At) -> Any:
        """Return the reference."""
        name = super().read(value, at)
        if name == "":
            at.wrong(f"{name_of(at)} is empty: it must be {self.words}")
            return None
        return None if name is None else FileRef(name)


class StoreName(FileName):
    """The path of a file that is written while it is in use, and made if it is not there."""

    def read(self, value: object, at: At) -> Any:
        """Return the reference."""
        found = super().read(value, at)
        return None if found is None else PathRef(found.name)


class FileRef(NamedTuple):
    """A file that is not secret: a certificate, a public key."""

    name: str


class PathRef(NamedTuple):
    """A file that is read while it is in use, and not when the policy file is."""

    name: str


class Word:
    """One of a few words."""

    def __init__(self, *choices: str) -> None:
        self.choices = choices
        self.words = " \\| ".join(f"`{choice}`" for choice in choices)

    def read(self, value: object, at: At) -> str | None:
        """Return the word."""
        if value in self.choices and isinstance(value, str):
            return value
        what = shown(value) if isinstance(value, (str, bool, int, float)) else a_kind_of(value)
        at.wrong(f"{name_of(at)} is {what}{nearest(str(value), self.choices)}")
        return None

    def schema(self) -> Schema:
        """List the words."""
        return {"enum": list(self.choices)}


class Flag:
    """True or false."""

    words = "`true` \\| `false`"

    def read(self, value: object, at: At) -> bool | None:
        """Return it."""
        if isinstance(value, bool):
            return value
        hint = (
            f"; did you mean {value.lower()}?"
            if isinstance(value, str) and value.lower() in ("true", "false")
            else ""
        )
        at.wrong(f"{name_of(at)} must be true or false, not {shown(value)}{hint}")
        return None

    def schema(self) -> Schema:
        """Say that it is a boolean."""
        return {"type": "boolean"}


class Count:
    """A whole number from *least* to *most*."""

    def __init__(self, least: int, most: int) -> None:
        self._least, self._most = least, most
        self.words = f"a whole number, {least:,} to {most:,}"

    def read(self, value: object, at: At) -> int | None:
        """Return it."""
        if isinstance(value, bool) or not isinstance(value, int):
            hint = (
                "; take the quotes away"
                if isinstance(value, str) and value.replace("_", "").isdigit()
                else ""
            )
            at.wrong(f"{name_of(at)} must be a whole number, not {shown(value)}{hint}")
            return None
        if not self._least <= value <= self._most:
            at.wrong(f"{name_of(at)} must be {self._least:,} to {self._most:,}, not {value:,}")
            return None
        return value

    def schema(self) -> Schema:
        """Say which numbers."""
        return {"type": "integer", "minimum": self._least, "maximum": self._most}


class Duration:
    """A time with its unit, as seconds: ``"10m"``, ``"1h30m"``."""

    words = 'a duration, like `"10m"`'

    def __init__(self, *, zero: bool = False, least: float = 0.0, most: float = 30 * 86400.0) -> None:
        self._zero, self._least, self._most = zero, least, most

    def read(self, value: object, at: At) -> float | None:
        """Return the seconds."""
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            at.wrong(
                f'{name_of(at)} = {value} has no unit: write "{value}s" for seconds, or "{value}m", "{value}h", "{value}d"'
            )
            return None
        if not isinstance(value, str):
            at.wrong(f'{name_of(at)} must be a duration like "10m", not {a_kind_of(value)}')
            return None
        compact = value.replace(" ", "")
        if _DURATION.fullmatch(compact) is None:
            at.wrong(f"{name_of(at)} is {shown(value)}: {_why_no_duration(compact)}")
            return None
        seconds = sum(float(number) * _UNITS[unit] for number, unit in _DURATION_PART.findall(compact))
        if (outside := self._outside(seconds, value)) is not None:
            at.wrong(f"{name_of(at)} {outside}")
            return None
        return seconds

    def _outside(self, seconds: float, written: str) -> str | None:
        if seconds == 0 and not self._zero:
            return "must be over 0"
        if 0 < seconds < self._least:
            return f"must be at least {in_words(self._least)}, not {written!r}"
        if seconds > self._most:
            return f"is {written!r}, over the most that is allowed: {in_words(self._most)}"
        return None

    def schema(self) -> Schema:
        """Say how it is written."""
        return {
            "type": "string",
            "pattern": r"^(\d+(\.\d+)?(ms|[smhdw]) ?)+$",
            "examples": ["10m", "1h30m", "14d"],
        }


def _why_no_duration(written: str) -> str:
    if re.fullmatch(r"\d+(\.\d+)?", written):
        return f'it has no unit; write "{written}s" for seconds, or "{written}m", "{written}h", "{written}d"'
    if match := re.fullmatch(r"(\d+(?:\.\d+)?)([A-Za-z]+)", written):
        long = {"sec": "s", "min": "m", "hour": "h", "hr": "h", "day": "d", "week": "w", "millisecond": "ms"}
        short = next(
            (unit for word, unit in long.items() if match[2].lower().startswith(word)), match[2].lower()
        )
        if short in _UNITS:
            return f'no such unit; did you mean "{match[1]}{short}"?'
    return f"no duration; units are {', '.join(_UNITS)}"


def in_words(seconds: float) -> str:
    """Write *seconds* as a person would: ``10m``, ``1h30m``, ``14d``."""
    if seconds <= 0:
        return "0s"
    parts, left = [], round(seconds * 1000)
    for unit, size in (("d", 86400000), ("h", 3600000), ("m", 60000), ("s", 1000), ("ms", 1)):
        number, left = divmod(left, size)
        if number:
            parts.append(f"{number}{unit}")
    return "".join(parts) or "0s"


class Size:
    """A number of bytes with its unit: ``"64GiB"``."""

    words = 'a size, like `"64GiB"`'

    def __init__(self, most: int) -> None:
        self._most = most

    def read(self, value: object, at: At) -> int | None:
        """Return the bytes."""
        if isinstance(value, int) and not isinstance(value, bool):
            at.wrong(
                f'{name_of(at)} = {value} has no unit: write "{value}B" for bytes, or "{value}MiB", "{value}GiB"'
            )
            return None
        match = _SIZE.fullmatch(value) if isinstance(value, str) else None
        if match is None:
            what = shown(value) if isinstance(value, (str, float)) else a_kind_of(value)
            at.wrong(f'{name_of(at)} is {what}: no size like "64GiB"{nearest_unit(value)}')
            return None
        size = int(float(match[1]) * _BYTES[match[2]])
        if not 0 < size <= self._most:
            at.wrong(f"{name_of(at)} must be over 0 and at most {self._most:,} bytes, not {size:,}")
            return None
        return size

    def schema(self) -> Schema:
        """Say how it is written."""
        return {
            "type": "string",
            "pattern": r"^\d+(\.\d+)? ?([kMGT]?B|[KMGT]iB)$",
            "examples": ["64GiB", "500MB"],
        }


def nearest_unit(value: object) -> str:
    """Return a hint at the unit that was meant."""
    match = re.fullmatch(r"([\d.]+) ?([A-Za-z]+)", value) if isinstance(value, str) else None
    if match is None:
        return ""
    units = {unit.lower(): unit for unit in _BYTES} | {"k": "KiB", "m": "MiB", "g": "GiB", "t": "TiB"}
    unit = units.get(match[2].lower())
    return f'; did you mean "{match[1]}{unit}"?' if unit else f"; units are {', '.join(_BYTES)}"


class Day:
    """A date, which lasts until its end in UTC, or a date and time with its zone."""

    words = "a date, like `2027-01-31`, to its end in UTC; or a date and time with its zone"

    def read(self, value: object, at: At) -> datetime | None:
        """Return the moment."""
        if isinstance(value, datetime):
            if value.tzinfo is None:
                at.wrong(
                    f"{name_of(at)} = {value.isoformat()} has no time zone: write {value.isoformat()}Z for UTC"
                )
                return None
            return value
        if isinstance(value, date):
            return datetime.combine(value, time.max, UTC)
        hint = (
            "; take the quotes away" if isinstance(value, str) and re.match(r"\d{4}-\d\d-\d\d", value) else ""
        )
        at.wrong(f"{name_of(at)} must be a date like 2027-01-31, not {shown(value)}{hint}")
        return None

    def schema(self) -> Schema:
        """Say that it is a date. Editors show dates of TOML as text."""
        return {"type": "string", "anyOf": [{"format": "date"}, {"format": "date-time"}]}


class Items(list[Any]):
    """Items that were read, and where in the list of the file each stands."""

    def __init__(self) -> None:
        super().__init__()
        self.places: list[int] = []

    def placed(self) -> Iterator[tuple[int, Any]]:
        """Yield each with its place."""
        return zip(self.places, self, strict=True)


class Listed:
    """A list of things of one kind, none twice; *tables* are told apart by their own names."""

    def __init__(self, item: Kind, *, empty: str | None = None, tables: bool = False) -> None:
        self._item = item
        self._empty = empty
        self._tables = tables
        self.words = f"a list: {item.words}"

    def read(self, value: object, at: At) -> Items | None:
        """Return those of the items that are right."""
        if not isinstance(value, list):
            example = f'; write ["{value}"]' if isinstance(value, str) and not looks_secret(value) else ""
            if self._tables and isinstance(value, dict):
                example = (
                    f"; write [[{name_of(at)}]], with two brackets"
                    if len(at.path) == 1
                    else "; write [{ ... }]"
                )
            at.wrong(f"{name_of(at)} must be a list, not {a_kind_of(value)}{example}")
            return None
        if not value and self._empty is not None:
            at.wrong(f"{name_of(at)} is empty: {self._empty}")
            return None
        found = Items()
        for index, item in enumerate(value):
            read = self._item.read(item, at / index)
            if read is None:
                continue
            if not self._tables and read in found:
                (at / index).wrong(f"{name_of(at)} names {shown(item)} twice")
                continue
            found.append(read)
            found.places.append(index)
        return found

    def schema(self) -> Schema:
        """Say what it lists."""
        least = {"minItems": 1} if self._empty is not None else {}
        return {"type": "array", "items": self._item.schema(), "uniqueItems": True, **least}


class Either:
    """One of two kinds, told apart by whether the value is a table."""

    def __init__(self, plain: Kind, table: Kind) -> None:
        self._plain, self._table = plain, table
        self.words = f"{plain.words}, or {table.words}"

    def read(self, value: object, at: At) -> Any:
        """Read it as what it is."""
        return (self._table if isinstance(value, dict) else self._plain).read(value, at)

    def schema(self) -> Schema:
        """Allow both."""
        return {"anyOf": [self._plain.schema(), self._table.schema()]}


class Tables:
    """Tables by names that the file chooses: ``[keys.main]``."""

    def __init__(self, kind: Kind, words: str) -> None:
        self._kind = kind
        self.words = words

    def read(self, value: object, at: At) -> dict[str, Any] | None:
        """Return those that are right."""
        section = name_of(at)
        if not isinstance(value, dict):
            at.wrong(f"{section} must be tables with names, not {a_kind_of(value)}: [{section}.main]")
            return None
        found = {}
        for name, given in value.items():
            try:
                check_name(name, f"a name of [{section}]", most=_MAX_TABLE_NAME)
            except ConfigError as error:
                (at / name).wrong(str(error), key=True)
                continue
            if (read := self._kind.read(given, at / name)) is not None:
                found[name] = read
        return found

    def schema(self) -> Schema:
        """Say what each is."""
        return {"type": "object", "additionalProperties": self._kind.schema()}


class Option(NamedTuple):
    """One name in a table of the file.

    Args:
        name: As it is written.
        kind: What its value is.
        doc: What it says, in a sentence or two; for the schema and the reference.
        required: Why it must be there; None where it need not.
        default: What holds where it is not there, as it would be written; None where that is nothing.
    """

    name: str
    kind: Kind
    doc: str
    required: str | None = None
    default: Any = None


class Table:
    """A table with known names."""

    def __init__(self, *options: Option, what: str, elsewhere: Mapping[str, str] | None = None) -> None:
        self.options = {option.name: option for option in options}
        self.what = what
        self.words = f"a table: {', '.join(f'`{name}`' for name in self.options)}"
        self._elsewhere = elsewhere or {}

    def read(self, value: object, at: At) -> dict[str, Any] | None:
        """Return the values of those options that are there and right."""
        if not isinstance(value, dict):
            at.wrong(f"{name_of(at)} must be a table, not {a_kind_of(value)}")
            return None
        found = {}
        for name, given in value.items():
            option = self.options.get(name)
            if option is None:
                (at / name).wrong(f"{self.what} has no option {name!r}{self._hint(name, given)}", key=True)
            elif (read := option.kind.read(given, at / name)) is not None:
                found[name] = read
        there = {self.meant(name) for name in value}
        for option in self.options.values():
            if option.required is not None and option.name not in there:
                at.wrong(f"{self.what} has no {option.name}: {option.required}", key=True)
        return found

    def meant(self, name: str) -> str:
        """Return the option that *name* is, or is misspelt for; *name* itself where it is like none."""
        if name in self.options:
            return name
        return next(iter(get_close_matches(name, self.options, n=1)), name)

    def _hint(self, name: str, given: object) -> str:
        if name in self._elsewhere:
            return f"; it belongs in {self._elsewhere[name]}"
        if re.search(r"secret|password|token|private_key$", name) and isinstance(given, str):
            return "; and a secret never stands in the policy file"
        return nearest(name, self.options)

    def schema(self) -> Schema:
        """Say which names there are."""
        properties = {
            option.name: {"description": option.doc, **option.kind.schema()}
            | ({} if option.default is None else {"default": option.default})
            for option in self.options.values()
        }
        required = [option.name for option in self.options.values() if option.required is not None]
        return {
            "type": "object",
            "properties": properties,
            "additionalProperties": False,
            **({"required": required} if required else {}),
        }


def name_of(at: At) -> str:
    """Return what the value at that place is called: the nearest name above it."""
    parts: Sequence[str | int] = at.path
    return str(next((part for part in reversed(parts) if isinstance(part, str)), "the file"))
