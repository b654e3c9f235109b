"""What must be done for which destination: the objects that a policy file will be read into.

A policy says what a producer must do and what a consumer must demand. Source: SPEC.md 8, for what each option makes of a message.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from math import isfinite
from typing import Final, Literal, TypeAlias, get_args

from postseal.core.context import check_destination, check_name, fold
from postseal.core.datakeys import DataKeyLimits, OpeningLimits
from postseal.core.errors import ConfigError, Verdict, nearest
from postseal.core.values import Value
from postseal.core.wire import MAX_BOUND, MAX_POLICY, Protection

__all__ = [
    "Mode",
    "OnDuplicate",
    "OnRefused",
    "Outcome",
    "Policies",
    "Policy",
    "ProtectionName",
    "specificity",
    "wildcard",
]

ProtectionName: TypeAlias = Literal["confidentiality", "privacy", "integrity"]
Mode: TypeAlias = Literal["off", "observe", "tolerate", "enforce"]
OnRefused: TypeAlias = Literal["raise", "dead-letter", "quarantine", "discard"]
Outcome: TypeAlias = Literal["raise", "dead-letter", "quarantine", "discard", "leave"]
OnDuplicate: TypeAlias = Literal["deliver", "settle", "refuse"]

_PROTECTIONS: Final = {name: Protection[name.upper()] for name in get_args(ProtectionName)}
_HEADERS: Final = ("bind_headers", "encrypt_headers")
_NEVER_BOUND: Final = frozenset(
    {"traceparent", "tracestate", "baggage", "AWSTraceHeader", "_datadog", "ExtendedPayloadSize"}
)
"""Headers that tracing and transport change on the way. Source: field experience with SQS and OpenTelemetry."""


class Policy(Value):
    """What a producer must do, and a consumer demand, for the destinations that match.

    Args:
        name: 1 to 64 bytes; travels in each message.
        destinations: Patterns like ``"kafka:orders"``, ``"sqs:orders*"``, ``"rabbitmq:shop/orders.#"``. ``*`` is any run of characters; in
            RabbitMQ routing keys ``*`` is one word and ``#`` any number of words.
        accept_from: Patterns of where messages of these destinations may also lie: dead letters, retries, mirrors.
        protection: ``"confidentiality"`` hides the body, ``"integrity"`` signs it, ``"privacy"`` does both.
        keys: Names of the key providers that wrap the data key; each can open. Needed where the body is hidden.
        direct: Whether the key service encrypts each body itself, without a data key: one call for each message. For small bodies, with the
            one key that *keys* names; SPEC.md 3.7 and docs/keys.md say how small.
        sign: Name of the key ring. Needed where something is signed.
        senders: Who may send. Mandatory wherever something is signed.
        sensitive: Whether bodies must be hidden: *integrity* is refused then.
        bind_headers: Names of application headers that are authenticated with the body.
        encrypt_headers: Names of application headers that travel inside the envelope, encrypted with the body; the broker gets none of
            them. Only where the body is hidden.
        bind_replies: Whether messages here are replies: each names the request that it answers, and one that names none is not sealed, and
            refused. Adapters of RabbitMQ and Service Bus name and demand it themselves, by correlation id.
        bind_ordering_key: Authenticate the Kafka record key, the SQS message group id and the like, too.
        mode: ``"enforce"``; ``"tolerate"`` also accepts clear text until *tolerate_until*; ``"observe"`` seals nothing, hands on clear
            text, and tells what *enforce* would refuse; ``"off"`` touches nothing.
        produce_mode: That of producers, where it is another: ``"enforce"`` seals; ``"off"`` and ``"observe"`` do not.
        consume_mode: That of consumers, where it is another.
        tolerate_until: When *tolerate* ends for consumers, with its time zone. Mandatory there.
        on_refused: What an adapter does with a refused message.
        on_duplicate: What becomes of a message that was settled here before, as the sealer's ledger knows: ``"deliver"`` hands it on, with
            that verdict and one event; ``"settle"`` settles it and hands it to nobody; ``"refuse"`` refuses it.
        quarantine: Destination of refused messages, where *on_refused* sends them to one of ours.
        data_key: When a data key ends to seal.
        key_by_reference: Publish what all messages of a data key have in common, wrapped keys included, and have each message name it in
            16 bytes. The sealer needs ``references``.
        opening: How long an unwrapped data key opens; its ``max_age`` is the revocation window.
        max_message_age: Seconds since it was sent after which a message is stale; None for never. Give it the destination's retention.
        max_clock_skew: Seconds by which a message may seem to come from the future.
        version: Of this policy; travels in each message, for the audit.

    Raises:
        ConfigError: An option is wrong; the text names it and the nearest right one.
    """

    __slots__ = (
        "accept_from",
        "bind_headers",
        "bind_ordering_key",
        "bind_replies",
        "consume_mode",
        "data_key",
        "destinations",
        "direct",
        "encrypt_headers",
        "key_by_reference",
        "keys",
        "max_clock_skew",
        "max_message_age",
        "mode",
        "name",
        "on_duplicate",
        "on_refused",
        "opening",
        "produce_mode",
        "protection",
        "quarantine",
        "senders",
        "sensitive",
        "sign",
        "tolerate_until",
        "version",
    )

    name: str
    destinations: tuple[str, ...]
    accept_from: tuple[str, ...]
    protection: ProtectionName
    keys: tuple[str, ...]
    direct: bool
    sign: str | None
    senders: tuple[str, ...]
    sensitive: bool
    bind_headers: tuple[str, ...]
    encrypt_headers: tuple[str, ...]
    bind_replies: bool
    bind_ordering_key: bool
    mode: Mode
    produce_mode: Mode | None
    consume_mode: Mode | None
    tolerate_until: datetime | None
    on_refused: OnRefused
    on_duplicate: OnDuplicate
    quarantine: str | None
    data_key: DataKeyLimits
    key_by_reference: bool
    opening: OpeningLimits
    max_message_age: float | None
    max_clock_skew: float
    version: int

    def __init__(
        self,
        *,
        name: str,
        destinations: Iterable[str],
        accept_from: Iterable[str] = (),
        protection: ProtectionName = "confidentiality",
        keys: Iterable[str] = (),
        direct: bool = False,
        sign: str | None = None,
        senders: Iterable[str] = (),
        sensitive: bool = False,
        bind_headers: Iterable[str] = (),
        encrypt_headers: Iterable[str] = (),
        bind_replies: bool = False,
        bind_ordering_key: bool = False,
        mode: Mode = "enforce",
        produce_mode: Mode | None = None,
        consume_mode: Mode | None = None,
        tolerate_until: datetime | None = None,
        on_refused: OnRefused = "raise",
        on_duplicate: OnDuplicate = "deliver",
        quarantine: str | None = None,
        data_key: DataKeyLimits | None = None,
        key_by_reference: bool = False,
        opening: OpeningLimits | None = None,
        max_message_age: float | None = None,
        max_clock_skew: float = 300.0,
        version: int = 0,
    ) -> None:
        self._set(
            name=name,
            destinations=destinations,
            accept_from=accept_from,
            protection=protection,
            keys=keys,
            direct=direct,
            sign=sign,
            senders=senders,
            sensitive=sensitive,
            bind_headers=bind_headers,
            encrypt_headers=encrypt_headers,
            bind_replies=bind_replies,
            bind_ordering_key=bind_ordering_key,
            mode=mode,
            produce_mode=produce_mode,
            consume_mode=consume_mode,
            tolerate_until=tolerate_until,
            on_refused=on_refused,
            on_duplicate=on_duplicate,
            quarantine=quarantine,
            data_key=data_key or DataKeyLimits(),
            key_by_reference=key_by_reference,
            opening=opening or OpeningLimits(),
            max_message_age=max_message_age,
            max_clock_skew=max_clock_skew,
            version=version,
        )
        check_name(self.name, "a policy's name", most=MAX_POLICY)
        for option in ("destinations", "accept_from", "keys", "senders", *_HEADERS):
            self._set(**{option: self._names(option)})
        self._check_word("protection", self.protection, get_args(ProtectionName))
        self._check_word("mode", self.mode, get_args(Mode))
        self._check_word("on_refused", self.on_refused, get_args(OnRefused))
        self._check_word("on_duplicate", self.on_duplicate, get_args(OnDuplicate))
        self._check_destinations()
        self._check_protection()
        self._check_direct()
        self._check_headers()
        self._check_mode()
        self._check_numbers()

    @property
    def code(self) -> Protection:
        """The protection as envelopes number it."""
        return _PROTECTIONS[self.protection]

    @property
    def producing(self) -> Mode:
        """The mode of producers. ``"tolerate"`` seals, as ``"enforce"`` does."""
        return self.produce_mode or self.mode

    @property
    def consuming(self) -> Mode:
        """The mode of consumers."""
        return self.consume_mode or self.mode

    @property
    def seals(self) -> bool:
        """Whether producers seal."""
        return self.producing not in ("off", "observe")

    def outcome(self, verdict: Verdict) -> Outcome:
        """Return what an adapter does with a message that is refused by *verdict*.

        That is *on_refused*, but for duplicates that are only to be settled. Who observes settles nothing, moves nothing and discards
        nothing: ``"leave"`` means that the message stays as it is at its broker, and is not handed on.
        """
        if self.consuming == "observe":
            return "raise" if self.on_refused == "raise" else "leave"
        settles = verdict is Verdict.DUPLICATE and self.on_duplicate == "settle"
        return "discard" if settles else self.on_refused

    @property
    def taken_headers(self) -> tuple[str, ...]:
        """The headers that an adapter takes out of what it sends: `encrypt_headers`, where something is sealed at all."""
        return self.encrypt_headers if self.seals else ()

    def _names(self, option: str) -> tuple[str, ...]:
        value = getattr(self, option)
        if isinstance(value, str):
            raise self._error(f"{option} must be a list of names, not one text: [{value!r}]")
        if not isinstance(value, Iterable):
            raise self._error(f"{option} must be a list of names, not {type(value).__name__}")
        names = tuple(
            check_name(name, f"policy {self.name!r}: an entry of {option}", most=512) for name in value
        )
        if len(set(names)) != len(names):
            raise self._error(f"{option} names something twice")
        return names

    def _check_word(self, option: str, value: object, words: Iterable[str]) -> None:
        if value not in tuple(words):
            raise self._error(f"{option} is {value!r}{nearest(str(value), words)}")

    def _check_destinations(self) -> None:
        if not self.destinations:
            raise self._error("destinations is empty, so it would protect nothing")
        for option in ("destinations", "accept_from"):
            for pattern in getattr(self, option):
                check_destination(pattern, f"policy {self.name!r}: a pattern of {option}")
        if self.on_refused == "quarantine" and self.quarantine is None:
            raise self._error(
                "on_refused = 'quarantine' needs quarantine, the destination of refused messages"
            )
        if self.quarantine is not None:
            check_destination(self.quarantine, f"policy {self.name!r}: quarantine")

    def _check_protection(self) -> None:
        hides = self.protection != "integrity"
        signs = self.protection != "confidentiality"
        if hides and not self.keys:
            raise self._error(f"protection = {self.protection!r} needs keys: who is to open its messages?")
        if not hides and self.keys:
            raise self._error(
                "protection = 'integrity' hides nothing, so it takes no keys; did you mean 'privacy'?"
            )
        if not hides and self.sensitive:
            raise self._error("protection = 'integrity' hides nothing, and sensitive wants bodies hidden")
        if signs and self.sign is None:
            raise self._error(f"protection = {self.protection!r} needs sign, the name of a key ring")
        if not signs and self.sign is not None:
            raise self._error("protection = 'confidentiality' signs nothing; did you mean 'privacy'?")
        if signs and not self.senders:
            raise self._error("senders is empty: wherever something is signed, it must say who may send")

    def _check_direct(self) -> None:
        if not self.direct:
            return
        if self.protection == "integrity":
            raise self._error("direct says how bodies are encrypted, and protection = 'integrity' hides none")
        if len(self.keys) != 1:
            raise self._error(
                f"direct takes one key, not {len(self.keys)}: without a data key, nothing could be wrapped for another"
            )
        for option, usual in (
            ("data_key", DataKeyLimits()),
            ("opening", OpeningLimits()),
            ("key_by_reference", False),
        ):
            value = getattr(self, option)
            if option == "opening" and isinstance(value, OpeningLimits):
                value = value.replace(max_failures=OpeningLimits().max_failures)  # that holds here, too
            if value != usual:
                raise self._error(f"{option} speaks of data keys, and direct has none")

    def _check_headers(self) -> None:
        for option in _HEADERS:
            names: tuple[str, ...] = getattr(self, option)
            if len(names) > MAX_BOUND:
                raise self._error(f"{option} names {len(names)} headers; at most {MAX_BOUND} may be")
            for name in names:
                check_name(name, f"policy {self.name!r}: a header of {option}")
            changing = _NEVER_BOUND.intersection(names)
            if changing:
                raise self._error(f"{option} names {sorted(changing)}, which change on the way")
            self._set(**{option: tuple(sorted(names, key=str.encode))})
        if twice := {fold(name) for name in self.bind_headers} & {
            fold(name) for name in self.encrypt_headers
        }:
            raise self._error(
                f"bind_headers and encrypt_headers both name {sorted(map(str, twice))}; what is encrypted is authenticated, too"
            )
        if self.encrypt_headers and self.protection == "integrity":
            raise self._error(
                "protection = 'integrity' hides nothing, so it takes no encrypt_headers; did you mean 'privacy'?"
            )

    def _check_mode(self) -> None:
        for option in ("produce_mode", "consume_mode"):
            if getattr(self, option) is not None:
                self._check_word(option, getattr(self, option), get_args(Mode))
        if self.produce_mode == "tolerate":
            raise self._error(
                "produce_mode is 'tolerate': a producer seals or it does not; did you mean 'enforce'?"
            )
        if (self.consuming == "tolerate") != (self.tolerate_until is not None):
            option = "mode" if self.consume_mode is None else "consume_mode"
            raise self._error(
                f"{option} = 'tolerate' and tolerate_until belong together: toleration must end"
            )
        if self.tolerate_until is not None:
            if not isinstance(self.tolerate_until, datetime):
                raise self._error(
                    f"tolerate_until must be a datetime, not {type(self.tolerate_until).__name__}"
                )
            if self.tolerate_until.tzinfo is None:
                raise self._error("tolerate_until needs a time zone")

    def _check_numbers(self) -> None:
        if self.max_message_age is not None and not (
            _is_number(self.max_message_age) and self.max_message_age > 0
        ):
            raise self._error(
                f"max_message_age must be over 0 seconds, or None for never: {self.max_message_age!r}"
            )
        if not (_is_number(self.max_clock_skew) and self.max_clock_skew >= 0):
            raise self._error(f"max_clock_skew must be 0 seconds or more: {self.max_clock_skew!r}")
        for option, kind in (("data_key", DataKeyLimits), ("opening", OpeningLimits)):
            if not isinstance(getattr(self, option), kind):
                raise self._error(
                    f"{option} must be {kind.__name__}, not {type(getattr(self, option)).__name__}"
                )
        if self.key_by_reference and (self.protection == "integrity" or self.data_key.max_messages == 1):
            why = (
                "a data key for each message"
                if self.data_key.max_messages == 1
                else "integrity, which has no data key"
            )
            raise self._error(f"key_by_reference saves nothing with {why}")
        if not isinstance(self.version, int) or not 0 <= self.version < 2**32:
            raise self._error(f"version must be a whole number below 2**32: {self.version!r}")

    def _error(self, text: str) -> ConfigError:
        return ConfigError(f"policy {self.name!r}: {text}")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and isfinite(value)


class Policies:
    """The policies of one sealer, found by destination: an exact name before a pattern, a longer pattern before a shorter.

    Args:
        policies: No two of one name, none with a destination that another has.

    Raises:
        ConfigError: Two of them are in each other's way.
    """

    def __init__(self, policies: Iterable[Policy]) -> None:
        self._policies = tuple(policies)
        self._patterns: dict[str, tuple[Policy, bool]] = {}
        names: set[str] = set()
        for policy in self._policies:
            if not isinstance(policy, Policy):
                raise ConfigError(f"policies must be a list of Policy, not of {type(policy).__name__}")
            if policy.name in names:
                raise ConfigError(f"two policies have the name {policy.name!r}")
            names.add(policy.name)
            self._add(policy, policy.destinations, home=True)
            self._add(policy, policy.accept_from, home=False)
        self._starts: dict[str, list[str]] = {}
        for pattern in self._patterns:
            if wildcard(pattern):
                self._starts.setdefault(_start(pattern), []).append(pattern)
        self._lengths = sorted({len(start) for start in self._starts})

    def _add(self, policy: Policy, patterns: Iterable[str], *, home: bool) -> None:
        for pattern in patterns:
            other, _ = self._patterns.setdefault(pattern, (policy, home))
            if self._patterns[pattern] != (policy, home):
                both = (
                    f"policies {other.name!r} and {policy.name!r} both speak"
                    if other is not policy
                    else (f"policy {policy.name!r} speaks twice")
                )
                raise ConfigError(f"{both} of {pattern!r}")

    def __iter__(self) -> Iterator[Policy]:
        return iter(self._policies)

    def find(self, destination: str) -> Policy:
        """Return the policy under which *destination* is sent to and read.

        Raises:
            ConfigError: No policy speaks of it. A destination without a policy is refused.
        """
        found = self._best(destination)
        if found is None:
            raise ConfigError(
                f"no policy speaks of destination {destination!r}{nearest(destination, self._patterns)}"
            )
        return found[0]

    def finds(self, destination: str) -> Policy | None:
        """Return what `find` does, and None where no policy speaks of it."""
        found = self._best(destination)
        return None if found is None else found[0]

    def is_home(self, destination: str) -> bool:
        """Tell whether *destination* is one that messages are sent to, and not only one where they may lie."""
        found = self._best(destination)
        return found is not None and found[1]

    def may_lie(self, policy: Policy, logical: str, physical: str) -> bool:
        """Tell whether a message of *policy* that was sent to *logical* may be read from *physical*."""
        if logical == physical:
            return True
        return self._best(physical) == (policy, False) and self._best(logical) == (policy, True)

    def _best(self, destination: str) -> tuple[Policy, bool] | None:
        """Return the policy of the most specific pattern, and whether that is one of its own destinations."""
        exact = self._patterns.get(destination)
        if exact is not None:
            return exact
        matching = [pattern for pattern in self._candidates(destination) if _matches(pattern, destination)]
        if not matching:
            return None
        most = max(map(specificity, matching))
        best = [pattern for pattern in matching if specificity(pattern) == most]
        # Where two are as specific, the first wins, as they were given.
        first = best[0] if len(best) == 1 else next(pattern for pattern in self._patterns if pattern in best)
        return self._patterns[first]

    def _candidates(self, destination: str) -> Iterator[str]:
        """Yield the patterns that begin as *destination* does: of a thousand policies' only a few."""
        for length in self._lengths:
            if length > len(destination):
                return
            yield from self._starts.get(destination[:length], ())


def wildcard(pattern: str) -> bool:
    """Tell whether *pattern* means more than one destination."""
    scheme, _, name = pattern.partition(":")
    if scheme != "rabbitmq" or "/" not in name:
        return "*" in name
    exchange, _, key = name.partition("/")
    return "*" in exchange or not {"*", "#"}.isdisjoint(key.split("."))


def specificity(pattern: str) -> int:
    """Return how many characters of *pattern* stand for themselves: the more, the more specific."""
    return len(pattern) - pattern.count("*") - pattern.count("#")


def _start(pattern: str) -> str:
    """Return with what every destination begins that *pattern* means."""
    start = min(pattern.partition("*")[0], pattern.partition("#")[0], key=len)
    return start.removesuffix(".")  # `orders.#` means `orders`, too


def _matches(pattern: str, destination: str) -> bool:
    """Tell whether *destination* is one of those that *pattern* means.

    By hand and not by regular expressions, because destinations also come from messages that nothing has authenticated: those
    could be made to cost an expression with several wildcards seconds each.
    """
    scheme, _, name = destination.partition(":")
    pattern_scheme, _, pattern_name = pattern.partition(":")
    if scheme != pattern_scheme:
        return False
    if scheme != "rabbitmq" or "/" not in pattern_name:
        return _globbed(pattern_name, name, many="*")
    exchange, slash, key = name.partition("/")
    pattern_exchange, _, pattern_key = pattern_name.partition("/")
    # `*` is one word, `#` none or more. Source: AMQP 0-9-1, topic exchange.
    return (
        bool(slash)
        and _globbed(pattern_exchange, exchange, many="*")
        and _globbed(pattern_key.split("."), key.split("."), many="#", one="*")
    )


def _globbed(pattern: Sequence[str], subject: Sequence[str], *, many: str, one: str | None = None) -> bool:
    """Match item by item: *many* stands for any number of items, *one* for one. Takes at most the product of both lengths."""
    at, index, last, mark = 0, 0, -1, 0
    while at < len(subject):
        item = pattern[index] if index < len(pattern) else None
        if item is not None and item == many:
            last, mark = index, at
            index += 1
        elif item is not None and item in (one, subject[at]):
            index += 1
            at += 1
        elif (
            last >= 0
        ):  # the last *many* takes one item more; going back to earlier ones could find nothing else
            mark += 1
            at, index = mark, last + 1
        else:
            return False
    return all(item == many for item in pattern[index:])
