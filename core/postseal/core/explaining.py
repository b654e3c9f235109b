"""What a policy file comes to: for each destination who can read and who can write, where, and for how long.

Pure: a file that was read, in; facts in words, out. Nothing here is asked of a broker or a key service, so it says what is promised where
clients and brokers are set up as the file assumes.

Source: core/THREATS.md, of which this is the part that depends on the policy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from postseal.core.policy import Policy

if TYPE_CHECKING:
    from postseal.core.config import PolicyFile

__all__ = ["VISIBLE", "Explained", "Period", "State", "Who", "explain", "words_of"]

VISIBLE: Final = (
    "sender, destination, time of sealing, message id, expiry",
    "name and version of the policy, and which protection it is",
    "content type of the body, and its exact size",
    "names of bound headers, and the values of all headers that are not encrypted; record keys and group ids",
    "key ids, and which messages share a data key",
    "that a message was sent, when and how often",
)
"""What everybody sees who holds a sealed message. Source: THREATS.md, What stays visible."""

_AT_REST: Final = {
    "sqs": "SQS server-side encryption (SSE-SQS, SSE-KMS)",
    "servicebus": "Service Bus encryption at rest (Microsoft's keys or customer-managed ones)",
    "kafka": "encrypted disks and volumes under Kafka",
    "rabbitmq": "encrypted disks and volumes under RabbitMQ",
}
_SERVICES: Final = {
    "aws-kms": "AWS KMS",
    "azure-key-vault": "Azure Key Vault",
    "vault": "Vault",
    "local": "a key file, for development only",
    "aws-kms-public-key": "AWS KMS",
    "azure-key-vault-public-key": "Azure Key Vault",
    "public-key": "holders of private keys",
    "combined": "several key services",
    "branch": "branch keys, kept in a store and wrapped by a key service",
    "given": "a provider that the program hands in",
}
_SERVICES_WITH_RIGHTS: Final = frozenset(
    {"aws-kms", "azure-key-vault", "vault", "aws-kms-public-key", "azure-key-vault-public-key"}
)
_ALGORITHMS: Final = {
    "hmac-sha256": "HMAC-SHA-256",
    "ed25519": "Ed25519",
    "es256": "ES256",
    "x509": "X.509",
    "delegated": "a short-lived key",
}
_ROOTS: Final = {
    "aws-kms-es256": "AWS KMS",
    "aws-kms-hmac": "AWS KMS",
    "azure-key-vault-es256": "Azure Key Vault",
}
"""Where keys that delegate are, by their algorithm; any other one is held by the process."""


class Who(NamedTuple):
    """Somebody who can read or write, and by what right."""

    who: str
    why: str


class State(NamedTuple):
    """A place or a party that bodies pass.

    Attributes:
        name: In a word or two: ``"at rest"``.
        where: What that is.
        reads: Whether bodies can be read there.
        forges: Whether a body can be changed or put there and is handed on all the same.
        why: In a sentence.
    """

    name: str
    where: str
    reads: bool
    forges: bool
    why: str


class Period(NamedTuple):
    """How long something holds. *seconds* is None where it is no duration, or has no end."""

    what: str
    seconds: float | None
    says: str


class Explained(NamedTuple):
    """All that one policy comes to.

    Attributes:
        policy: Its name.
        line: Where it begins in the file.
        destinations: What it is for.
        accept_from: Where its messages may also lie.
        protection: As the policy says.
        mode: Likewise, in words where the sides differ: ``"observe (producers), enforce (consumers)"``.
        produce_mode: In force for producers.
        consume_mode: In force for consumers.
        readers: Who can read bodies.
        writers: Whose messages are handed on.
        states: What passes where.
        periods: Revocation, cryptoperiods, freshness.
        cautions: What an auditor would ask about.
    """

    policy: str
    line: int
    destinations: tuple[str, ...]
    accept_from: tuple[str, ...]
    protection: str
    mode: str
    produce_mode: str
    consume_mode: str
    readers: tuple[Who, ...]
    writers: tuple[Who, ...]
    states: tuple[State, ...]
    periods: tuple[Period, ...]
    cautions: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON takes it."""
        return {
            name: [each._asdict() for each in value] if name in _ROWS else _listed(value)
            for name, value in self._asdict().items()
        }


_ROWS: Final = frozenset({"readers", "writers", "states", "periods"})


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def explain(file: PolicyFile) -> list[Explained]:
    """Say what each policy of *file* comes to, in the order of the file."""
    return [_explained(policy, file.options, file.lines[policy.name]) for policy in file.policies]


def _explained(policy: Policy, options: Mapping[str, Any], line: int) -> Explained:
    hides = policy.seals and policy.protection != "integrity"
    ring = options["signers"].get(policy.sign) if policy.sign else None
    return Explained(
        policy=policy.name,
        line=line,
        destinations=policy.destinations,
        accept_from=policy.accept_from,
        protection=policy.protection,
        mode=_modes(policy),
        produce_mode=policy.producing,
        consume_mode=policy.consuming,
        readers=_readers(policy, options["keys"], hides=hides),
        writers=_writers(policy, ring),
        states=_states(policy, hides=hides),
        periods=_periods(policy, ring, hides=hides),
        cautions=_cautions(policy, options["keys"], ring),
    )


def _modes(policy: Policy) -> str:
    one, other = policy.producing, policy.consuming
    alike = policy.produce_mode is None and policy.consume_mode is None
    return policy.mode if alike or one == other else f"{one} (producers), {other} (consumers)"


def _readers(policy: Policy, keys: Mapping[str, Any], *, hides: bool) -> tuple[Who, ...]:
    if not hides:
        why = (
            "the policy signs bodies and does not hide them"
            if policy.seals
            else f"mode is {policy.producing}: nothing is sealed"
        )
        return (Who("everybody who can see a message, the broker's administrators included", why),)
    found = []
    for name in policy.keys:
        section = keys.get(name)
        service = "given" if section is None else section["provider"]
        key = "" if section is None else _key_of(section)
        found.append(
            Who(
                f"whoever may {'decrypt' if policy.direct else 'unwrap'} with {name!r}",
                f"{_SERVICES.get(service, service)}{key}"
                + ("; it decrypts each body itself" if policy.direct else "; each key alone opens"),
            )
        )
        if service in _SERVICES_WITH_RIGHTS:
            found.append(
                Who(f"the administrators of that {_SERVICES[service]}", "they can give themselves that right")
            )
    return tuple(found)


def _key_of(section: Mapping[str, Any]) -> str:
    key = section.get("key_id") or section.get("key")
    if section.get("provider") in ("aws-kms-public-key", "azure-key-vault-public-key"):
        key = ", ".join(section.get("keys") or section.get("open_with") or ())
    return f", key {key}" if isinstance(key, str) else ""


def _writers(policy: Policy, ring: Mapping[str, Any] | None) -> tuple[Who, ...]:
    found: list[Who] = []
    if policy.consuming in ("off", "observe"):
        refused = "nothing is refused" if policy.consuming == "off" else "clear text is handed on"
        return (Who("everybody who can send to the broker", f"mode is {policy.consuming}: {refused}"),)
    if policy.consuming == "tolerate":
        found.append(
            Who(
                "everybody who can send to the broker",
                f"clear text is accepted until {_day(policy.tolerate_until)}",
            )
        )
    if policy.sign is None:
        found.append(
            Who(
                "whoever may encrypt with its key"
                if policy.direct
                else "whoever may make data keys with one of its keys",
                "confidentiality proves no sender; names in `senders` are compared and not proved",
            )
        )
        return tuple(found)
    if ring is not None and ring["algorithm"] == "delegated":
        return (*found, *_delegating(policy, ring))
    algorithm = "given" if ring is None else ring["algorithm"]
    name = _ALGORITHMS.get(algorithm, algorithm)
    if algorithm == "hmac-sha256":
        found.append(
            Who(
                "whoever holds a secret of the ring: " + ", ".join(policy.senders) + ", and every consumer",
                f"{name} by {policy.sign!r}: a MAC proves the group, and no single sender",
            )
        )
    else:
        what = (
            "a certificate with that sender's names" if algorithm == "x509" else "that sender's private key"
        )
        found.extend(
            Who(sender, f"{name} by {policy.sign!r}: only the holder of {what}") for sender in policy.senders
        )
    if algorithm == "x509":
        found.append(Who("the authorities that are trusted", "they can certify anybody as any sender"))
    return tuple(found)


def _delegating(policy: Policy, ring: Mapping[str, Any]) -> list[Who]:
    """Say who can write where keys delegate: whoever may use them."""
    found = []
    for key in ring["keys"]:
        root = key["root"]
        where = _ROOTS.get(root["algorithm"])
        whom = ", ".join(key["senders"])
        what = f"a short-lived key for which {key['id']!r} of {policy.sign!r} speaks, as {whom}"
        if root["algorithm"] == "hmac-sha256":
            found.append(Who("whoever holds its secret, and so every consumer", what))
            continue
        found.append(Who(f"whoever may sign with {key['id']!r}{_key_of(root)}", what))
        if where is not None:
            found.append(Who(f"the administrators of that {where}", "they can give themselves that right"))
    return found


def _states(policy: Policy, *, hides: bool) -> tuple[State, ...]:
    open_door = policy.consuming != "enforce"
    keeps = (
        "a change is refused"
        if not open_door
        else "a change of what is sealed is refused, and clear text is let in"
    )
    if policy.consuming == "off":
        keeps = "nothing is refused"
    body = "ciphertext" if hides else "the clear body"
    provided = [
        text
        for scheme, text in _AT_REST.items()
        if any(d.startswith(scheme + ":") for d in policy.destinations)
    ]
    return (
        State(
            "in use",
            "memory of producers and consumers",
            reads=True,
            forges=True,
            why="bodies are clear while they are handled",
        ),
        State(
            "in transit",
            "the network, with TLS or without",
            reads=not hides,
            forges=open_door,
            why=f"{body} travels; {keeps}",
        ),
        State(
            "at rest",
            "memory, disks, snapshots and backups of the broker",
            reads=not hides,
            forges=open_door,
            why=f"{body} lies there; {keeps}",
        ),
        State(
            "broker administrator",
            "whoever runs the broker, its bridges, mirrors, dead letters and quarantines",
            reads=not hides,
            forges=open_door,
            why=f"sees {body}; {keeps}; can drop, delay and repeat messages",
        ),
        State(
            "provider-side encryption",
            ", ".join(provided) or "disk encryption",
            reads=not hides,
            forges=open_door,
            why="guards disks that are taken away; it hands clear text to whoever may receive, so it adds nothing against those above",
        ),
        State(
            "key service",
            "the service that holds the wrapping keys, and its administrators",
            reads=hides,
            forges=open_door or (hides and policy.sign is None),
            why=(
                "decrypts each body itself, so every body passes it in clear"
                if hides and policy.direct
                else "can open whatever sealed message it is shown; the broker's messages do not pass it"
                if hides
                else "no data key is used here, so it can open nothing; what is to be read is read elsewhere"
            ),
        ),
        State(
            "logs and traces",
            "what logs bodies before sealing or after opening",
            reads=True,
            forges=False,
            why="postseal logs no body; your own code and tracing may",
        ),
    )


def _periods(policy: Policy, ring: Mapping[str, Any] | None, *, hides: bool) -> tuple[Period, ...]:
    found = []
    if hides and policy.direct:
        found.append(
            Period("revocation window", 0.0, "the key service is asked for each message; nothing is cached")
        )
    elif hides:
        opening, data_key = policy.opening, policy.data_key
        found += [
            Period("revocation window", opening.max_age, "a right to open that is withdrawn ends within it"),
            Period(
                "the same while the key service does not answer",
                opening.max_age + opening.max_stale,
                "cached data keys go on that long, and no longer; never where the service says no",
            ),
            Period(
                "cryptoperiod of a data key",
                data_key.max_age,
                f"or {data_key.max_messages:,} messages, or {data_key.max_bytes:,} bytes; {data_key.max_stale:g} s more in an outage",
            ),
        ]
    for key in (ring or {}).get("keys", ()):
        ends: datetime | None = key.get("retired_until")
        state = key.get("state", "active")
        says = f"{state}, verifies until {_day(ends)}" if ends is not None else f"{state}, no end is set"
        found.append(Period(f"signing key {key.get('id')}", None, says))
        if "roots" in key and not {"lists", "ocsp"}.isdisjoint(key):
            says = "a certificate that was revoked ends within it, once the authority says so"
            found.append(Period(f"revocation window of {key['id']}", key.get("max_age", 300.0), says))
        if "root" in key:
            says = "a short-lived key that is stolen signs for that long"
            found.append(Period(f"delegation by {key['id']}", key.get("lifetime", 600.0), says))
    age = policy.max_message_age
    found.append(
        Period("freshness", age, "older messages are refused as stale")
        if age is not None
        else Period("freshness", None, "a message of any age is accepted; a ledger tells copies apart")
    )
    return tuple(found)


def _cautions(policy: Policy, keys: Mapping[str, Any], ring: Mapping[str, Any] | None) -> tuple[str, ...]:
    services = {keys[name]["provider"] for name in policy.keys if name in keys}
    algorithm = None if ring is None else ring["algorithm"]
    keys_to_sign = [] if ring is None else ring["keys"]
    roots = {key["root"]["algorithm"] for key in keys_to_sign if "root" in key}
    found = (
        *_mode_cautions(policy),
        (
            policy.consuming == "tolerate",
            f"clear text from anybody is accepted until {_day(policy.tolerate_until)}",
        ),
        (
            policy.direct,
            "direct: one call of the key service opens one message, so its quota is the limit of what can be read",
        ),
        (policy.protection == "integrity", "bodies are not hidden from anybody"),
        (policy.protection == "confidentiality", "who sent a message is not proved"),
        (
            algorithm == "hmac-sha256" or "hmac-sha256" in roots,
            "consumers hold the secret too, so they could forge messages of its senders",
        ),
        (
            "aws-kms-hmac" in roots,
            "a MAC of AWS KMS convinces nobody else, and each forged delegation costs a call",
        ),
        (
            any("roots" in key and {"lists", "ocsp"}.isdisjoint(key) for key in keys_to_sign),
            "neither lists nor ocsp: a certificate that was revoked is accepted until it expires",
        ),
        ("local" in services, "a key file is for development: whoever reads the file reads all bodies"),
        (
            "azure-key-vault" in services,
            "Azure's wrap knows no context: a right to unwrap with a key is one for all its policies",
        ),
        (
            not services.isdisjoint(("aws-kms-public-key", "azure-key-vault-public-key")),
            "a wrap for an RSA key knows no context: a right to unwrap with a key is one for all its policies",
        ),
        (
            policy.max_message_age is None,
            "max_message_age is not set: without a ledger an old copy opens for ever",
        ),
    )
    return tuple(text for holds, text in found if holds)


def _mode_cautions(policy: Policy) -> tuple[tuple[bool, str], ...]:
    one, other = policy.producing, policy.consuming
    passes = other in ("off", "observe")
    if not policy.seals and passes:
        return ((True, f"mode is {_modes(policy)}: it protects nothing"),)
    return (
        (passes, f"mode of consumers is {other}: clear text from anybody is handed on"),
        (not policy.seals, f"mode of producers is {one}: bodies are not sealed"),
        (
            not policy.seals and other == "enforce",
            "consumers refuse what producers under this policy send",
        ),
    )


def _day(moment: datetime | None) -> str:
    return "" if moment is None else moment.date().isoformat()


def words_of(seconds: float) -> str:
    """Say a duration as people do: ``65 min``, ``14 d``."""
    for unit, size in _UNITS:
        if seconds >= 2 * size or seconds == size:
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} s"


_UNITS: Final[Sequence[tuple[str, int]]] = (("d", 86400), ("h", 3600), ("min", 60))
