"""The section ``[signers.NAME]``: a key ring, whose keys are all of one algorithm.

Each algorithm is one entry of `ALGORITHMS`: the table that reads and documents one of its keys, and the function that makes it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, get_args

from postseal.core import crypto
from postseal.core.config._kinds import (
    Day,
    FileName,
    Listed,
    Named,
    Option,
    Schema,
    Table,
    Word,
    a_kind_of,
    name_of,
    shown,
)
from postseal.core.config._report import At
from postseal.core.config._secrets import Secret
from postseal.core.errors import nearest
from postseal.core.signing import Ed25519Key, Es256Key, HmacKey, SigningKey, State
from postseal.core.wire import MAX_KEY_ID

__all__ = ["ALGORITHMS", "SignerKind", "SigningAlgorithm"]


class SigningAlgorithm(NamedTuple):
    """One kind of signing key.

    Attributes:
        key: The options of one key.
        make: Makes it of its options, with bytes in the place of references. Raises `ConfigError`.
        binary: Those of its secrets that are bytes in an encoding; all others are text, or PEM.
        asymmetric: Whether each key belongs to senders that it must name.
    """

    key: Table
    make: Callable[[Mapping[str, Any]], SigningKey]
    binary: frozenset[str] = frozenset()
    asymmetric: bool = False


def _hmac(options: Mapping[str, Any]) -> SigningKey:
    return HmacKey(
        options["id"],
        options["secret"],
        senders=options.get("senders"),
        state=options.get("state", "active"),
        retired_until=options.get("retired_until"),
    )


def _pair(kind: type[Ed25519Key | Es256Key]) -> Callable[[Mapping[str, Any]], SigningKey]:
    def make(options: Mapping[str, Any]) -> SigningKey:
        private, public = options.get("private_key"), options.get("public_key")
        passphrase = options.get("passphrase")
        return kind(
            options["id"],
            senders=options["senders"],
            private_key=None if private is None else crypto.private_key_of(private, passphrase),
            public_key=None if public is None else crypto.public_key_of(public.content),
            state=options.get("state", "active"),
            retired_until=options.get("retired_until"),
        )

    return make


def _table(what: str, *options: Option, senders: str | None) -> Table:
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
            "Who may use it"
            + ("; all senders of the policy where it is not there." if senders is None else "."),
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


_PEM: Final = (
    Option("private_key", Secret(binary=False), "PEM of the private key: signs and verifies."),
    Option("passphrase", Secret(binary=False), "Of an encrypted private key."),
    Option("public_key", FileName("the path of a PEM file"), "PEM file of the public key: verifies only."),
)
_WHOSE: Final = "whose signature is it?"

ALGORITHMS: Final[dict[str, SigningAlgorithm]] = {
    "hmac-sha256": SigningAlgorithm(
        _table(
            "a key of algorithm 'hmac-sha256'",
            Option(
                "secret",
                Secret(),
                "At least 32 random bytes that only senders and consumers hold; each sender and destination gets a key derived from it.",
                required='secret = { env = "NAME" }',
            ),
            senders=None,
        ),
        _hmac,
        binary=frozenset({"secret"}),
    ),
    "ed25519": SigningAlgorithm(
        _table("a key of algorithm 'ed25519'", *_PEM, senders=_WHOSE), _pair(Ed25519Key), asymmetric=True
    ),
    "es256": SigningAlgorithm(
        _table("a key of algorithm 'es256'", *_PEM, senders=_WHOSE), _pair(Es256Key), asymmetric=True
    ),
}
"""By the word of ``algorithm``."""


class SignerKind:
    """A section of ``[signers]``: its algorithm decides which options its keys have."""

    words = "a signer"

    def read(self, value: object, at: At) -> dict[str, Any] | None:
        """Return its options."""
        name = name_of(at)
        if not isinstance(value, dict):
            at.wrong(f"signers.{name} must be a table, not {a_kind_of(value)}: [signers.{name}]")
            return None
        word = value.get("algorithm")
        if word is None:
            at.wrong(f"signers.{name} has no algorithm; there are: {', '.join(ALGORITHMS)}", key=True)
            return None
        if not isinstance(word, str) or word not in ALGORITHMS:
            (at / "algorithm").wrong(f"algorithm is {shown(word)}{nearest(str(word), ALGORITHMS)}")
            return None
        found = _section(word).read(value, at)
        if found is not None:
            _check_keys(value.get("keys"), at / "keys", ALGORITHMS[word])
        return found

    def schema(self) -> Schema:
        """Return one form for each algorithm."""
        return {
            "type": "object",
            "required": ["algorithm"],
            "oneOf": [_section(word).schema() for word in ALGORITHMS],
        }


def _section(word: str) -> Table:
    return Table(
        Option("algorithm", Word(word), "What its keys are for.", required="what are its keys for?"),
        Option(
            "keys",
            Listed(ALGORITHMS[word].key, empty="a key ring needs a key", tables=True),
            "Its keys. The first active one with a private part signs; all that are not revoked verify.",
            required="a key ring needs a key",
        ),
        what=f"a signer of algorithm {word!r}",
        elsewhere=dict.fromkeys(ALGORITHMS[word].key.options, "the keys of the signer: keys = [{ ... }]"),
    )


def _check_keys(keys: object, at: At, algorithm: SigningAlgorithm) -> None:
    """See that ids differ, dates go with states, and each pair has one part."""
    seen: dict[str, int] = {}
    for index, given in enumerate(keys if isinstance(keys, list) else []):
        if not isinstance(given, dict):
            continue
        place = at / index
        key_id = given.get("id")
        if isinstance(key_id, str):
            if key_id in seen:
                (place / "id").wrong(
                    f"two keys have the id {key_id!r}: line {(at / seen[key_id] / 'id').line}, too"
                )
            seen.setdefault(key_id, index)
        if "retired_until" in given and given.get("state", "active") != "retired":
            (place / "retired_until").wrong("retired_until needs state = 'retired'", key=True)
        if algorithm.asymmetric and {"private_key", "public_key"} <= algorithm.key.options.keys():
            parts = [part for part in ("private_key", "public_key") if part in given]
            if len(parts) != 1:
                place.wrong(
                    "a key takes either private_key or public_key" + ("" if parts else ", and has neither")
                )
            if "passphrase" in given and "private_key" not in given:
                (place / "passphrase").wrong("passphrase is for a private_key", key=True)
