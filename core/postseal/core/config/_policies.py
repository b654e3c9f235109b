"""The sections ``[[policy]]``: the table that reads them, and what must hold between options and between policies."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, get_args

from postseal.core.config._destinations import Destination
from postseal.core.config._kinds import (
    Count,
    Day,
    Duration,
    Flag,
    Listed,
    Named,
    Option,
    Size,
    Table,
    Text,
    Word,
)
from postseal.core.config._overlaps import overlaps
from postseal.core.config._report import At
from postseal.core.datakeys import MAX_BYTES, MAX_FAILURES, MAX_MESSAGES, DataKeyLimits, OpeningLimits
from postseal.core.errors import ConfigError, nearest
from postseal.core.policy import Mode, OnDuplicate, OnRefused, Policy, ProtectionName
from postseal.core.wire import MAX_POLICY

__all__ = ["POLICY", "build", "check_direct", "check_together"]

_SENDERS: Final = "wherever something is signed, it must say who may send"

DATA_KEY: Final = Table(
    Option("max_age", Duration(), "How long a data key seals.", default="10m"),
    Option(
        "max_messages",
        Count(1, MAX_MESSAGES),
        "How many messages it seals; 1 makes a key for each.",
        default=2**20,
    ),
    Option("max_bytes", Size(MAX_BYTES), "How many bytes of bodies it seals.", default="64GiB"),
    Option(
        "max_stale",
        Duration(zero=True),
        "How long past its age it goes on while the key service does not answer.",
        default="1h",
    ),
    what="data_key",
    elsewhere={"max_keys": "opening", "max_failures": "opening"},
)
OPENING: Final = Table(
    Option(
        "max_age",
        Duration(),
        "How long an unwrapped data key opens: **the revocation window**.",
        default="5m",
    ),
    Option(
        "max_stale",
        Duration(zero=True),
        "How long past its age it goes on while the key service does not answer.",
        default="1h",
    ),
    Option("max_keys", Count(1, 2**20), "How many are kept.", default=1024),
    Option(
        "max_failures",
        Count(1, MAX_FAILURES),
        "How many calls a second may fail for wrapped keys that were never opened here, from one sender or, unsigned, from all; after the "
        "first ten. What is beyond is kept for later.",
        default=1,
    ),
    what="opening",
    elsewhere={"max_messages": "data_key", "max_bytes": "data_key"},
)
POLICY: Final = Table(
    Option(
        "name",
        Named("a policy's name", most=MAX_POLICY),
        "1 to 64 bytes; travels in each message.",
        required='name = "orders"',
    ),
    Option(
        "destinations",
        Listed(Destination(), empty="it would protect nothing"),
        "What it is for: names and patterns, as the users of each broker write them.",
        required='what is it for? destinations = ["kafka:orders"]',
    ),
    Option(
        "accept_from",
        Listed(Destination()),
        "Where messages of these destinations may also lie: dead letters, retries, mirrors.",
    ),
    Option(
        "protection",
        Word(*get_args(ProtectionName)),
        "`confidentiality` hides the body, `integrity` signs it, `privacy` does both.",
        default="confidentiality",
    ),
    Option(
        "keys",
        Listed(Text("a name of [keys]")),
        "Which [keys] wrap the data key; each can open. Needed where the body is hidden.",
    ),
    Option(
        "direct",
        Flag(),
        "Whether the key service encrypts each body itself, without a data key: one call for each message, bodies of 4,063 bytes at most "
        "(RSA-2048: 157). With one key, of AWS KMS, Azure Key Vault (only in privacy) or Vault.",
        default=False,
    ),
    Option(
        "sign", Text("a name of [signers]"), "Which of [signers] signs. Needed for privacy and integrity."
    ),
    Option(
        "senders",
        Listed(Named("a sender"), empty=_SENDERS),
        "Who may send. Mandatory wherever something is signed.",
    ),
    Option(
        "sensitive", Flag(), "Whether bodies must be hidden: integrity is refused here then.", default=False
    ),
    Option(
        "bind_headers",
        Listed(Named("a header's name")),
        "Application headers that are authenticated with the body.",
    ),
    Option(
        "encrypt_headers",
        Listed(Named("a header's name")),
        "Application headers that travel inside the envelope, encrypted with the body. The broker gets none of them.",
    ),
    Option(
        "bind_replies",
        Flag(),
        "Whether messages here are replies: each names its request, and is refused as the reply to another. docs/replies.md.",
        default=False,
    ),
    Option(
        "bind_ordering_key",
        Flag(),
        "Authenticate the Kafka record key, the SQS message group id and the like, too.",
        default=False,
    ),
    Option(
        "mode",
        Word(*get_args(Mode)),
        "`enforce`; `tolerate` also accepts clear text until its date; `observe` seals nothing, hands on clear text, and tells what "
        "`enforce` would refuse; `off` does nothing.",
        default="enforce",
    ),
    Option(
        "produce_mode",
        Word("off", "observe", "enforce"),
        "The mode of producers, where it is another than `mode`.",
    ),
    Option("consume_mode", Word(*get_args(Mode)), "The mode of consumers, likewise."),
    Option("tolerate_until", Day(), "When `tolerate` ends for consumers. Mandatory there."),
    Option(
        "on_refused",
        Word(*get_args(OnRefused)),
        "What an adapter does with a refused message.",
        default="raise",
    ),
    Option(
        "on_duplicate",
        Word(*get_args(OnDuplicate)),
        "What becomes of a message that was settled here before, as the ledger knows: `deliver` hands it on, marked; `settle` settles it "
        "unseen; `refuse` refuses it.",
        default="deliver",
    ),
    Option(
        "quarantine",
        Destination(pattern=False),
        'Where refused messages go, for `on_refused = "quarantine"`.',
    ),
    Option("data_key", DATA_KEY, "When a data key ends to seal. The first limit reached ends it."),
    Option(
        "key_by_reference",
        Flag(),
        "Whether wrapped keys are published once, and each message names them in 16 bytes. Needs references.",
        default=False,
    ),
    Option("opening", OPENING, "How long an unwrapped data key opens."),
    Option(
        "max_message_age",
        Duration(most=3650 * 86400.0),
        "How old a message may be: the retention of the destination. Any age where it is not there.",
    ),
    Option(
        "max_clock_skew",
        Duration(zero=True, most=86400.0),
        "By how much a message may seem to come from the future.",
        default="5m",
    ),
    Option(
        "version", Count(0, 2**32 - 1), "Of this policy; travels in each message, for the audit.", default=0
    ),
    what="a policy",
    elsewhere={
        **dict.fromkeys(("max_age", "max_messages", "max_bytes"), "data_key = { ... }"),
        "max_stale": "opening = { ... } or data_key = { ... }",
        "max_keys": "opening = { ... }",
        "max_failures": "opening = { ... }",
        "provider": "[keys.NAME]",
        "algorithm": "[signers.NAME]",
        "sender": "the top of the file",
    },
)
"""The options of a policy: one for each argument of `Policy`, by the same name. Whoever adds an argument adds its line here."""


def build(options: Mapping[str, Any], at: At, raw: Mapping[str, Any], *, now: datetime) -> Policy | None:
    """Make the policy of its *options*, or tell why there can be none.

    Args:
        options: Those that were read well.
        at: Where the policy stands.
        raw: As it stands there.
        now: Dates before it are past.
    """
    _check_options(options, at, raw, now)
    if not at.report.clean(at.path):
        return None
    limits: dict[str, Any] = {}
    if "data_key" in options:
        limits["data_key"] = DataKeyLimits(**options["data_key"])
    if "opening" in options:
        limits["opening"] = OpeningLimits(**options["opening"])
    try:
        return Policy(**{**options, **limits})
    except ConfigError as error:
        text = str(error)
        # `Policy` begins with the option that is wrong.
        option = text.removeprefix(f"policy {options['name']!r}: ").partition(" ")[0]
        if option in options:
            (at / option).wrong(text)
        else:
            at.wrong(text, key=True)
        return None


class _Checks:
    """Notes mistakes in one policy."""

    def __init__(self, at: At, name: object) -> None:
        self._at = at
        self.who = f"policy {name!r}" if isinstance(name, str) else "a policy"

    def wrong(self, option: str | None, text: str) -> None:
        """Note what is wrong with *option*; with None, with the policy as a whole."""
        if option is None:
            self._at.wrong(f"{self.who}: {text}", key=True)
        else:
            (self._at / option).wrong(f"{self.who}: {text}")


def _check_options(options: Mapping[str, Any], at: At, raw: Mapping[str, Any], now: datetime) -> None:
    """See that the options go together. What is missing because it was read as wrong is not told of again."""
    checks = _Checks(at, options.get("name"))
    wrong = {POLICY.meant(name) for name in raw.keys() - options.keys()}
    if "protection" not in wrong:
        _check_protection(options, wrong, checks)
    _check_toleration(options, wrong, checks, raw, now)
    producing = options.get("produce_mode") or options.get("mode", "enforce")
    if producing in ("off", "observe") and options.get("consume_mode") == "enforce":
        (at / "consume_mode").warn(
            f"{checks.who}: consume_mode = 'enforce' refuses what producers send while their mode is {producing!r}"
        )
    on_refused, quarantine = options.get("on_refused"), options.get("quarantine")
    if on_refused == "quarantine" and quarantine is None and "quarantine" not in wrong:
        checks.wrong(
            "on_refused", "on_refused = 'quarantine' needs quarantine, the destination of refused messages"
        )
    if quarantine is not None and quarantine in options.get("destinations", ()):
        checks.wrong(
            "quarantine",
            f"quarantine {quarantine!r} is one of its own destinations: refused messages would come back",
        )
    homes = options.get("destinations", ())
    for index, pattern in _placed(options, "accept_from"):
        if pattern in homes:
            (at / "accept_from" / index).wrong(
                f"accept_from names {pattern!r}, which is one of its destinations already"
            )


def _check_toleration(
    options: Mapping[str, Any], wrong: set[str], checks: _Checks, raw: Mapping[str, Any], now: datetime
) -> None:
    option = "consume_mode" if "consume_mode" in options else "mode"
    mode, until = options.get(option, "enforce"), options.get("tolerate_until")
    if mode == "tolerate" and until is None and "tolerate_until" not in wrong:
        checks.wrong(option, f"{option} = 'tolerate' needs tolerate_until, a date: toleration must end")
    if mode != "tolerate" and until is not None and not wrong & {"mode", "consume_mode"}:
        checks.wrong("tolerate_until", f"tolerate_until says nothing without {option} = 'tolerate'")
    if mode == "tolerate" and until is not None and until <= now:
        checks.wrong(
            "tolerate_until",
            f"tolerate_until is past ({raw['tolerate_until']}): set {option} = 'enforce', or a later date",
        )


def _placed(options: Mapping[str, Any], option: str) -> Iterator[tuple[int, Any]]:
    """Yield the items of a list that was read, each with its place in the file."""
    items = options.get(option)
    return iter(()) if items is None else items.placed()


def _check_protection(options: Mapping[str, Any], wrong: Iterable[str], checks: _Checks) -> None:
    protection = options.get("protection", "confidentiality")
    where = "protection" if "protection" in options else None
    hides, signs = protection != "integrity", protection != "confidentiality"
    sign, keys, senders = options.get("sign"), options.get("keys"), options.get("senders")
    if not hides and options.get("sensitive"):
        checks.wrong(
            "protection",
            "protection = 'integrity' hides nothing, and sensitive = true wants bodies hidden; did you mean 'privacy'?",
        )
    if hides and not keys and "keys" not in wrong:
        checks.wrong(
            "keys" if keys is not None else where,
            f"protection = {protection!r} needs keys: who is to open its messages?",
        )
    if not hides and keys:
        checks.wrong(
            "keys", "protection = 'integrity' hides nothing, so it takes no keys; did you mean 'privacy'?"
        )
    if signs and sign is None and "sign" not in wrong:
        checks.wrong(where, f"protection = {protection!r} needs sign, the name of one of [signers]")
    if not signs and sign is not None:
        checks.wrong(
            "sign", "protection = 'confidentiality' signs nothing; did you mean protection = 'privacy'?"
        )
    if signs and senders is None and "senders" not in wrong:
        checks.wrong(where, f"protection = {protection!r} needs senders: {_SENDERS}")


# -- between policies --------------------------------------------------------------------------------------------------


def check_together(
    tables: Sequence[tuple[At, Mapping[str, Any]]],
    keys: Iterable[str],
    signers: Iterable[str],
    at: At,
    used_keys: set[str],
) -> None:
    """See that policies are not in each other's way, and name only what there is.

    Args:
        tables: Where each policy stands, and its options.
        keys: Names of key providers that there are.
        signers: Names of signers that there are.
        at: The top of the file.
        used_keys: Names of key providers that others are combined of.
    """
    together = _Together(set(keys), set(signers))
    for place, options in tables:
        together.add(place, options)
    at.report.later(together.check_overlaps)  # with many policies it takes a while
    together.check_unused(at, used_keys | {key for _, options in tables for key in options.get("keys", ())})


def check_direct(
    tables: Sequence[tuple[At, Mapping[str, Any]]], sections: Mapping[str, Mapping[str, Any]]
) -> None:
    """See that the key of each direct policy can encrypt bodies, as far as *sections*, those of ``[keys]``, tell."""
    for place, options in tables:
        if not options.get("direct"):
            continue
        who = f"policy {options.get('name')!r}"
        for index, key in _placed(options, "keys"):
            provider = sections.get(key, {}).get("provider", "given")
            if provider not in _ENCRYPTS_BODIES:
                (place / "keys" / index).wrong(
                    f"{who}: direct needs a key service that encrypts bodies itself, and keys.{key} is {provider}; "
                    "aws-kms, azure-key-vault and vault do"
                )
            elif (
                provider == "azure-key-vault"
                and options.get("protection", "confidentiality") == "confidentiality"
            ):
                (place / "direct").wrong(
                    f"{who}: direct with keys.{key} needs protection = 'privacy': anybody can encrypt with its public key"
                )


_ENCRYPTS_BODIES: Final = frozenset({"aws-kms", "azure-key-vault", "vault", "local", "given"})


class _Together:
    """What the policies of one file have in common."""

    def __init__(self, keys: set[str], signers: set[str]) -> None:
        self._keys, self._signers = keys, signers
        self._names: dict[str, At] = {}
        self._patterns: dict[str, tuple[At, At, str]] = {}
        """Where each pattern stands, in which policy, and how that is called."""
        self._signs: set[str] = set()

    def add(self, place: At, options: Mapping[str, Any]) -> None:
        """See how one more policy goes with those before."""
        name = options.get("name")
        who = "a policy" if name is None else f"policy {name!r}"
        if name is not None and self._names.setdefault(name, place) is not place:
            (place / "name").wrong(
                f"two policies have the name {name!r}: line {(self._names[name] / 'name').line}, too"
            )
        for index, key in _placed(options, "keys"):
            if key not in self._keys:
                (place / "keys" / index).wrong(
                    f"{who}: keys names {key!r}, which [keys] has not{nearest(key, self._keys)}"
                )
        if (sign := options.get("sign")) is not None:
            self._signs.add(sign)
            if sign not in self._signers:
                (place / "sign").wrong(
                    f"{who}: sign names {sign!r}, which [signers] has not{nearest(sign, self._signers)}"
                )
        for option in ("destinations", "accept_from"):
            for index, pattern in _placed(options, option):
                here = place / option / index
                other, whose_place, whose = self._patterns.setdefault(pattern, (here, place, who))
                if whose_place is not place:
                    here.wrong(f"{whose} and {who} both speak of {pattern!r}: line {other.line}, too")

    def check_overlaps(self) -> None:
        """Warn of patterns of different policies that mean some destination in common."""
        owners = {pattern: (id(place), who) for pattern, (_, place, who) in self._patterns.items()}
        for one, other, text in overlaps(owners):
            self._patterns[one][0].warn(f"{text} (line {self._patterns[other][0].line})")

    def check_unused(self, at: At, used: set[str]) -> None:
        """Warn of keys and signers that nobody uses."""
        for section, known, needed in (("keys", self._keys, used), ("signers", self._signers, self._signs)):
            for name in sorted(known - needed):
                (at / section / name).warn(f"{section}.{name} is used by no policy", key=True)
