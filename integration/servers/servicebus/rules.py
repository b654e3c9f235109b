"""Which messages of a topic a subscription takes.

Source: Service Bus, "Topic filters and actions", "SQL filter syntax", of which the useful part is here.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from proton import Described, symbol, ulong

from .encoding import text
from .errors import BadRequest

Filter = Callable[[Any], bool]

# As they travel. Source: "AMQP request/response operations", rule operations.
_DESCRIPTION, _NO_ACTION = 0x0000013700000004, 0x0000013700000005
_SQL, _TRUE, _FALSE, _CORRELATION = (0x0000013700000000 + low for low in (6, 7, 8, 9))
_SYSTEM = (
    "correlation_id",
    "message_id",
    "to",
    "reply_to",
    "subject",
    "session_id",
    "reply_to_session_id",
    "content_type",
)
_IN_SQL = {
    "correlationid": "correlation_id",
    "messageid": "message_id",
    "to": "to",
    "replyto": "reply_to",
    "label": "subject",
    "sessionid": "session_id",
    "replytosessionid": "reply_to_session_id",
    "contenttype": "content_type",
}


def everything(_: Any) -> bool:
    """Let each message through."""
    return True


def nothing(_: Any) -> bool:
    """Let none through."""
    return False


@dataclass(frozen=True, slots=True)
class Correlation:
    """Let through what has all these values.

    Args:
        system: By name, such as subject or correlation_id.
        properties: Of the application.
    """

    system: Mapping[str, str] = field(default_factory=dict)
    properties: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, message: Any) -> bool:
        """Tell whether it is let through."""
        return all(getattr(message, name) == value for name, value in self.system.items()) and all(
            message.properties.get(name) == value for name, value in self.properties.items()
        )


@dataclass(frozen=True, slots=True)
class Sql:
    """Let through what an expression is true of: AND, OR, NOT, comparisons, IN, LIKE, IS NULL, EXISTS.

    Raises:
        BadRequest: It cannot be read.
    """

    expression: str
    _holds: Callable[[Any], Any] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_holds", _Parser(self.expression).parse())

    def __call__(self, message: Any) -> bool:
        """Tell whether it is let through. Unknown, as in SQL, is no."""
        return self._holds(message) is True


_TOKEN = re.compile(
    r"\s*(?:(?P<text>'(?:[^']|'')*')|(?P<number>\d+(?:\.\d+)?)|(?P<name>(?:(?:sys|user)\.)?(?:\[[^\]]+\]|[A-Za-z_]\w*))"
    r"|(?P<sign><>|!=|<=|>=|[=<>(),-]))"
)
_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "=": lambda left, right: left == right,
    "<>": lambda left, right: left != right,
    "!=": lambda left, right: left != right,
    "<": lambda left, right: left < right,
    ">": lambda left, right: left > right,
    "<=": lambda left, right: left <= right,
    ">=": lambda left, right: left >= right,
}


class _Parser:
    """By descent, a method for each level. What a method gives computes True, False, a value, or None for unknown."""

    def __init__(self, expression: str) -> None:
        self._expression = expression
        self._tokens = list(self._cut())

    def _cut(self) -> Iterator[tuple[str, str]]:
        at, end = 0, len(self._expression.rstrip())
        while at < end:
            found = _TOKEN.match(self._expression, at)
            if found is None or found.lastgroup is None:
                raise BadRequest(f"not understood from {self._expression[at:]!r} on")
            yield found.lastgroup, found[found.lastgroup]
            at = found.end()

    def parse(self) -> Callable[[Any], Any]:
        holds = self._or()
        if self._tokens:
            raise BadRequest(f"not understood: {self._expression!r} from {self._tokens[0][1]!r} on")
        return holds

    def _or(self) -> Callable[[Any], Any]:
        terms = [self._and()]
        while self._word("OR"):
            terms.append(self._and())
        return lambda message: _any([term(message) for term in terms])

    def _and(self) -> Callable[[Any], Any]:
        terms = [self._not()]
        while self._word("AND"):
            terms.append(self._not())
        return lambda message: _not(_any([_not(term(message)) for term in terms]))

    def _not(self) -> Callable[[Any], Any]:
        if self._word("NOT"):
            inner = self._not()
            return lambda message: _not(inner(message))
        return self._comparison()

    def _comparison(self) -> Callable[[Any], Any]:
        if self._word("EXISTS"):
            self._need("(")
            name = self._take("name").rpartition(".")[2].strip("[]")
            self._need(")")
            return lambda message: name in message.properties
        left = self._value()
        sign = self._sign(*_COMPARISONS)
        if sign:
            right, compare = self._value(), _COMPARISONS[sign]
            return lambda message: _compared(compare, left(message), right(message))
        if self._word("IS"):
            negated = self._word("NOT")
            if not self._word("NULL"):
                raise BadRequest("IS is for NULL")
            return lambda message: (left(message) is None) is not negated
        negated = self._word("NOT")
        inner = self._in_or_like(left)
        return (lambda message: _not(inner(message))) if negated else inner

    def _in_or_like(self, left: Callable[[Any], Any]) -> Callable[[Any], Any]:
        if self._word("IN"):
            self._need("(")
            options = [self._value()]
            while self._sign(","):
                options.append(self._value())
            self._need(")")
            return lambda message: _compared(
                lambda value, given: value in given, left(message), [option(message) for option in options]
            )
        if self._word("LIKE"):
            pattern = self._take("text")[1:-1].replace("''", "'")
            like = re.compile(re.escape(pattern).replace("%", ".*").replace("_", "."), re.DOTALL)
            return lambda message: _compared(
                lambda value, given: given.fullmatch(str(value)) is not None, left(message), like
            )
        return left

    def _value(self) -> Callable[[Any], Any]:
        if self._sign("("):
            inner = self._or()
            self._need(")")
            return inner
        if self._sign("-"):
            number = self._take("number")
            return lambda _: -float(number)
        if not self._tokens:
            raise BadRequest(f"cut off: {self._expression!r}")
        kind, found = self._tokens.pop(0)
        if kind == "text":
            return lambda _: found[1:-1].replace("''", "'")
        if kind == "number":
            return lambda _: float(found)
        if kind == "name":
            return _named(found)
        raise BadRequest(f"not understood: {found!r} in {self._expression!r}")

    def _word(self, word: str) -> bool:
        if self._tokens and self._tokens[0][0] == "name" and self._tokens[0][1].upper() == word:
            self._tokens.pop(0)
            return True
        return False

    def _sign(self, *signs: str) -> str:
        if self._tokens and self._tokens[0][0] == "sign" and self._tokens[0][1] in signs:
            return self._tokens.pop(0)[1]
        return ""

    def _need(self, sign: str) -> None:
        if not self._sign(sign):
            raise BadRequest(f"{sign!r} is missing in {self._expression!r}")

    def _take(self, kind: str) -> str:
        if not self._tokens or self._tokens[0][0] != kind:
            raise BadRequest(f"a {kind} is missing in {self._expression!r}")
        return self._tokens.pop(0)[1]


_WORDS = {"AND", "OR", "NOT", "IN", "IS", "LIKE", "EXISTS"}


def _named(found: str) -> Callable[[Any], Any]:
    if found.upper() in _WORDS:
        raise BadRequest(f"no value: {found}")
    if found.upper() in ("TRUE", "FALSE"):
        return lambda _: found.upper() == "TRUE"
    if found.upper() == "NULL":
        return lambda _: None
    scope, _, name = found.rpartition(".")
    name = name.strip("[]")
    if scope.lower() == "sys":
        if name.lower() not in _IN_SQL:
            raise BadRequest(f"no system property: {name}")
        return lambda message: getattr(message, _IN_SQL[name.lower()])
    return lambda message: message.properties.get(name)


def _compared(compare: Callable[[Any, Any], bool], left: Any, right: Any) -> bool | None:
    if left is None or right is None:
        return None
    try:
        return compare(left, right)
    except TypeError:
        return None


def _any(values: list[Any]) -> bool | None:
    if any(value is True for value in values):
        return True
    return None if any(value is None for value in values) else False


def _not(value: Any) -> bool | None:
    return None if value is None else value is not True


def from_json(given: Mapping[str, Any]) -> Filter:
    """Read a rule as tests give it: {"sql": ...}, or {"correlation": {...}, "properties": {...}}.

    Raises:
        BadRequest: It is none.
    """
    if "sql" in given:
        return Sql(given["sql"])
    if (
        not given.keys()
        or given.keys() - {"correlation", "properties"}
        or given.get("correlation", {}).keys() - set(_SYSTEM)
    ):
        raise BadRequest(f"no rule: {dict(given)}")
    return Correlation(given.get("correlation", {}), given.get("properties", {}))


def from_amqp(description: dict[Any, Any]) -> Filter:
    """Read a rule as `add-rule` has it.

    Raises:
        BadRequest: It is none.
    """
    if "sql-filter" in description:
        return Sql(str(description["sql-filter"]["expression"]))
    given = description.get("correlation-filter")
    if given is None:
        raise BadRequest("a rule of an unknown kind")
    spelt = {name.replace("_", "-"): name for name in _SYSTEM} | {"label": "subject"}
    system = {spelt[name]: str(value) for name, value in given.items() if name in spelt and value is not None}
    return Correlation(
        system, {text(key) or "": value for key, value in (given.get("properties") or {}).items()}
    )


def to_amqp(name: str, rule: Filter) -> dict[str, Any]:
    """Write a rule as `enumerate-rules` has it."""
    if isinstance(rule, Sql):
        written: Any = Described(ulong(_SQL), [rule.expression, 20])
    elif isinstance(rule, Correlation):
        values: list[Any] = [rule.system.get(one) for one in _SYSTEM]
        written = Described(
            ulong(_CORRELATION), [*values, {symbol(key): value for key, value in rule.properties.items()}]
        )
    else:
        written = Described(ulong(_FALSE if rule is nothing else _TRUE), [])
    no_action = Described(ulong(_NO_ACTION), [])
    return {"rule-description": Described(ulong(_DESCRIPTION), [written, no_action, name])}
