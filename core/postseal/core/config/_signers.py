"""The section ``[signers.NAME]``: a key ring, whose keys are all of one algorithm.

Each algorithm is one entry of `ALGORITHMS`: the table that reads and documents one of its keys, and the function that makes it.
"""

from __future__ import annotations

from typing import Any, Final

from postseal.core.config._delegation import DELEGATED
from postseal.core.config._kinds import Listed, Option, Schema, Table, Word, a_kind_of, name_of, shown
from postseal.core.config._report import At
from postseal.core.config._signing import HMAC_SHA256, SigningAlgorithm, pairs
from postseal.core.config._x509 import X509
from postseal.core.errors import nearest
from postseal.core.signing import Ed25519Key, Es256Key

__all__ = ["ALGORITHMS", "SignerKind"]


ALGORITHMS: Final[dict[str, SigningAlgorithm]] = {
    "hmac-sha256": HMAC_SHA256,
    "ed25519": pairs("ed25519", Ed25519Key),
    "es256": pairs("es256", Es256Key),
    "x509": X509,
    "delegated": DELEGATED,
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
    """See that ids differ, dates go with states, and each key has what its algorithm wants."""
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
        if algorithm.check is not None:
            algorithm.check(given, place)
