"""Keys of a signer that are held here: their options, and how each is made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, get_args

from postseal.core import crypto
from postseal.core.config._kinds import Day, FileName, Listed, Named, Option, Table, Word
from postseal.core.config._report import At
from postseal.core.config._secrets import Secret
from postseal.core.signing import AnyKey, Ed25519Key, Es256Key, HmacKey, SigningKey, State
from postseal.core.wire import MAX_KEY_ID

__all__ = [
    "HMAC_SHA256",
    "PEM",
    "SECRET",
    "WHOSE",
    "SigningAlgorithm",
    "check_pair",
    "hmac_key",
    "key_table",
    "life_of",
    "pair_key",
    "pairs",
]


class SigningAlgorithm(NamedTuple):
    """One kind of signing key.

    Attributes:
        key: The options of one key.
        make: Makes it of its options, with bytes in the place of references, and of the name of who we are, where that is known.
            Raises `ConfigError` or `MissingExtraError`.
        binary: Those of its secrets that are bytes in an encoding; all others are text, or PEM.
        check: Looks at options that go together, or do not.
    """

    key: Table
    make: Callable[[Mapping[str, Any], str | None], AnyKey]
    binary: frozenset[str] = frozenset()
    check: Callable[[Mapping[str, Any], At], None] | None = None


WHOSE: Final = "whose signature is it?"

SECRET: Final = Option(
    "secret",
    Secret(),
    "At least 32 random bytes that only senders and consumers hold; each sender and destination gets a key derived from it.",
    required='secret = { env = "NAME" }',
)
PEM: Final = (
    Option("private_key", Secret(binary=False), "PEM of the private key: signs and verifies."),
    Option("passphrase", Secret(binary=False), "Of an encrypted private key."),
    Option("public_key", FileName("the path of a PEM file"), "PEM file of the public key: verifies only."),
)


def key_table(what: str, *options: Option, senders: str | None, doc: str = "") -> Table:
    """Make the table of a key: its own *options* among those that all have. *senders* is why they must be there."""
    of_whom = "" if senders else "; all senders of the policy where it is not there"
    return Table(
        Option(
            "id",
            Named("a key's id", most=MAX_KEY_ID),
            "Names it in envelopes: 1 to 64 bytes.",
            required="it names the key in envelopes",
        ),
        *options,
        Option(
            "senders",
            Listed(Named("a sender"), empty="nobody could use the key"),
            doc or f"Who may use it{of_whom}.",
            required=senders,
        ),
        Option(
            "state",
            Word(*get_args(State)),
            "`pending` verifies and does not sign yet, `active` does both, `retired` verifies, `revoked` does neither.",
            default="active",
        ),
        Option("retired_until", Day(), "When a retired key ends to verify."),
        what=what,
        elsewhere={"algorithm": "[signers.NAME], above its keys"},
    )


def life_of(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a key that say whether it signs and verifies."""
    return {"state": options.get("state", "active"), "retired_until": options.get("retired_until")}


def hmac_key(options: Mapping[str, Any], _sender: str | None) -> SigningKey:
    """Make a key of algorithm ``hmac-sha256``."""
    return HmacKey(options["id"], options["secret"], senders=options.get("senders"), **life_of(options))


def pair_key(
    kind: type[Ed25519Key | Es256Key],
) -> Callable[[Mapping[str, Any], str | None], Ed25519Key | Es256Key]:
    """Return what makes a key of algorithm ``ed25519`` or ``es256``."""

    def make(options: Mapping[str, Any], _sender: str | None) -> Ed25519Key | Es256Key:
        private, public = options.get("private_key"), options.get("public_key")
        return kind(
            options["id"],
            senders=options["senders"],
            private_key=None
            if private is None
            else crypto.private_key_of(private, options.get("passphrase")),
            public_key=None if public is None else crypto.public_key_of(public.content),
            **life_of(options),
        )

    return make


def check_pair(given: Mapping[str, Any], at: At) -> None:
    """See that a pair has one part."""
    parts = [part for part in ("private_key", "public_key") if part in given]
    if len(parts) != 1:
        at.wrong("a key takes either private_key or public_key" + ("" if parts else ", and has neither"))
    check_passphrase(given, at)


def check_passphrase(given: Mapping[str, Any], at: At) -> None:
    """See that there is a private key for the passphrase."""
    if "passphrase" in given and "private_key" not in given:
        (at / "passphrase").wrong("passphrase is for a private_key", key=True)


def pairs(word: str, kind: type[Ed25519Key | Es256Key]) -> SigningAlgorithm:
    """Make the algorithm of a key pair."""
    table = key_table(f"a key of algorithm {word!r}", *PEM, senders=WHOSE)
    return SigningAlgorithm(table, pair_key(kind), check=check_pair)


HMAC_SHA256: Final = SigningAlgorithm(
    key_table("a key of algorithm 'hmac-sha256'", SECRET, senders=None),
    hmac_key,
    binary=frozenset({"secret"}),
)
