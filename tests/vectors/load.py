"""Turn a vector into what opens or seals it: a `Sealer` of ours, or the `Opening` of the reference."""

from __future__ import annotations

import base64
import json
import warnings
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from postseal.core import (
    AuditEvent,
    BranchKeys,
    CombinedKeys,
    Ed25519Key,
    Es256Key,
    HmacKey,
    KeyContext,
    KeyProvider,
    KeyRing,
    NewDataKey,
    OpeningKey,
    Policy,
    PublicKeyRecipients,
    Recipient,
    Sealer,
    UnsafeLocalKeys,
    UnsafeLocalKeysWarning,
)
from postseal.core.certified import X509Roots
from postseal.core.delegation import DelegatedKey
from postseal.core.providers.branch import BranchRecord
from postseal.core.providers.branch_stores import MemoryBranches
from tests import reference

DIRECTORY = Path(__file__).parent
FILES = sorted(DIRECTORY.glob("*.json"))


def read(name: str) -> dict[str, Any]:
    """Read the vector of that name."""
    return json.loads((DIRECTORY / f"{name}.json").read_text("utf-8"))


def binary(vector: dict[str, Any], field: str) -> bytes:
    """Return bytes that stand there as hex or base64."""
    if field in vector:
        return bytes.fromhex(vector[field])
    return base64.b64decode(vector[f"{field}_base64"], validate=True)


def headers(entries: Sequence[dict[str, Any]]) -> list[tuple[str, Any]]:
    """Return headers as pairs."""
    values: dict[str, Callable[[Any], Any]] = {
        "text": str,
        "bytes": bytes.fromhex,
        "integer": int,
        "boolean": bool,
        "null": lambda _: None,
    }
    return [
        (entry["name"], values[kind](entry[kind])) for entry in entries for kind in entry if kind != "name"
    ]


def beside(part: dict[str, Any]) -> dict[str, Any]:
    """Return what travels beside the body, as `Sealer.open` and `Sealer.seal` take it."""
    key = part["ordering_key"]
    return {
        "headers": headers(part["headers"]),
        "content_encoding": part["content_encoding"],
        "ordering_key": None if key is None else bytes.fromhex(key),
    }


def policy(entry: dict[str, Any]) -> Policy:
    """Return the policy."""
    hides, signs = entry["protection"] != "integrity", entry["protection"] != "confidentiality"
    return Policy(
        name=entry["name"],
        version=entry["version"],
        protection=entry["protection"],
        destinations=entry["destinations"],
        accept_from=entry["accept_from"],
        senders=entry["senders"],
        bind_headers=entry["bind_headers"],
        encrypt_headers=entry.get("encrypt_headers", []),
        bind_ordering_key=entry["bind_ordering_key"],
        direct=entry.get("direct", False),
        bind_replies=entry.get("bind_replies", False),
        max_message_age=entry["max_message_age_s"],
        max_clock_skew=entry["max_clock_skew_s"],
        keys=["main"] if hides else [],
        sign="ring" if signs else None,
    )


def any_key(entry: dict[str, Any], clock: Callable[[], float]) -> Any:
    """Return a key of a ring, or what speaks for keys."""
    if entry["algorithm"] == "X.509":
        known = _pem(entry.get("known", ()))
        return X509Roots(
            entry["id"], roots=_pem(entry["roots"]), senders=entry["names"], known=known, clock=clock
        )
    key = signing_key(entry)
    if not entry.get("delegates"):
        return key
    return DelegatedKey(key, senders=entry["senders"], accept_for=entry["accept_for_s"], clock=clock)


def _pem(ders: Sequence[str]) -> bytes:
    certificates = [x509.load_der_x509_certificate(bytes.fromhex(der)) for der in ders]
    return b"".join(one.public_bytes(serialization.Encoding.PEM) for one in certificates)


def signing_key(entry: dict[str, Any]) -> HmacKey | Ed25519Key | Es256Key:
    """Return a key of a ring."""
    until = entry.get("retired_until_ms")
    options: dict[str, Any] = {
        "senders": entry["senders"],
        "state": entry.get("state", "active"),
        "retired_until": None if until is None else datetime.fromtimestamp(until / 1000, UTC),
    }
    if entry["algorithm"] == "HMAC-SHA-256":
        return HmacKey(entry["id"], bytes.fromhex(entry["secret"]), **options)
    kind: Any = {"Ed25519": Ed25519Key, "ES256": Es256Key}[entry["algorithm"]]
    if "private_key" in entry:
        private = serialization.load_der_private_key(bytes.fromhex(entry["private_key"]), None)
        return kind(entry["id"], private_key=private, **options)
    public = serialization.load_der_public_key(bytes.fromhex(entry["public_key"]))
    return kind(entry["id"], public_key=public, **options)


def local_keys(keys: dict[str, str]) -> UnsafeLocalKeys:
    """Return the wrapping keys, without their warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnsafeLocalKeysWarning)
        return UnsafeLocalKeys({key_id: bytes.fromhex(key) for key_id, key in keys.items()})


def private_keys(keys: Sequence[str]) -> PublicKeyRecipients:
    """Return what opens with these: PKCS #8, DER."""
    heads = "-----BEGIN PRIVATE KEY-----\n", "\n-----END PRIVATE KEY-----\n"
    pems = [heads[0] + base64.b64encode(bytes.fromhex(key)).decode() + heads[1] for key in keys]
    return PublicKeyRecipients(open_with=[OpeningKey.from_pem(pem) for pem in pems])


class _InClear:
    """A key service that gives back what it is given."""

    def unwrap(self, recipients: Sequence[Recipient], context: KeyContext) -> bytes:
        """Return it."""
        return recipients[0].wrapped_key

    def generate(self, context: KeyContext) -> NewDataKey:
        """Not for this."""
        raise NotImplementedError

    def wrap(self, data_key: bytes, context: KeyContext) -> tuple[Recipient, ...]:
        """Not for this."""
        raise NotImplementedError


def branch_keys(keys: Sequence[dict[str, Any]]) -> BranchKeys:
    """Return the branch keys, all of one branch."""
    store = MemoryBranches()
    for key in keys:
        wrapped = Recipient(-1, b"k", bytes.fromhex(key["key"]))
        store.add(BranchRecord(key["name"], key["version"], (wrapped,)))
    return BranchKeys(_InClear(), store, keys[0]["name"])


def key_providers(opening: dict[str, Any]) -> dict[str, KeyProvider]:
    """Return the keys of a policy, of either kind."""
    providers: list[KeyProvider] = []
    if opening["wrapping_keys"]:
        providers.append(local_keys(opening["wrapping_keys"]))
    if opening.get("opening_keys"):
        providers.append(private_keys(opening["opening_keys"]))
    if opening.get("branch_keys"):
        providers.append(branch_keys(opening["branch_keys"]))
    if len(providers) == 1:
        return {"main": providers[0]}
    return {"main": CombinedKeys(providers)} if providers else {}


class Consumer:
    """A sealer that opens what one vector describes, at a time that can be set."""

    def __init__(self, opening: dict[str, Any]) -> None:
        self.events: list[AuditEvent] = []
        self.clock_ms: int = opening["clock_ms"]
        self.destination: str = opening["destination"]
        self._opening = opening
        seconds = lambda: self.clock_ms / 1000  # noqa: E731 - as short as a name
        ring = [any_key(entry, seconds) for entry in opening["verifying_keys"]]
        self.sealer = Sealer(
            sender="consumer",
            policies=[policy(opening["policy"])],
            keys=key_providers(opening),
            signers={"ring": KeyRing(ring, clock=seconds)} if ring else {},
            clock=lambda: self.clock_ms * 1_000_000,
            monotonic=lambda: 0.0,
            on_audit=self.events.append,
        )

    def open(self, envelope: bytes, at: dict[str, Any] | None = None) -> Any:
        """Open *envelope* as the vector says, or with what *at* says to be beside it."""
        at = at or self._opening
        self.clock_ms = at["clock_ms"]
        demanded = self._opening.get("in_reply_to")
        return self.sealer.open(envelope, destination=self.destination, in_reply_to=demanded, **beside(at))


class FixedKeys:
    """A key provider that has one data key, wrapped already; or one body, encrypted already."""

    most_direct = 4096
    anybody_encrypts = False

    def __init__(
        self,
        data_key: bytes,
        recipients: Sequence[Recipient],
        plaintext: bytes = b"",
        ciphertext: bytes = b"",
    ) -> None:
        self._made = NewDataKey(data_key, tuple(recipients))
        self._plaintext, self._ciphertext = plaintext, ciphertext

    def encrypt(self, plaintext: bytes, context: KeyContext) -> Recipient:
        """Return what *plaintext* was encrypted to, if it is the one."""
        assert plaintext == self._plaintext
        return self._made.recipients[0]._replace(wrapped_key=self._ciphertext)

    def decrypt(self, recipient: Recipient, context: KeyContext) -> bytes:
        """Not for this."""
        raise NotImplementedError

    def generate(self, context: KeyContext) -> NewDataKey:
        """Return it."""
        return self._made

    def wrap(self, data_key: bytes, context: KeyContext) -> tuple[Recipient, ...]:
        """Not for this."""
        raise NotImplementedError

    def unwrap(self, recipients: Sequence[Recipient], context: KeyContext) -> bytes:
        """Not for this."""
        raise NotImplementedError


def producer(sealing: dict[str, Any]) -> Sealer:
    """Return a sealer whose clock, data key and randomness are those of the vector."""
    recipients = [
        Recipient(entry["algorithm"], bytes.fromhex(entry["key_id"]), bytes.fromhex(entry["wrapped_key"]))
        for entry in sealing["recipients"]
    ]
    noise = bytes.fromhex(sealing["nonce"] or "00" * 12) + bytes.fromhex(sealing["message_id"])
    data_key, key = sealing["data_key"], sealing["signing_key"]
    direct = [bytes.fromhex(sealing.get(field, "")) for field in ("plaintext", "ciphertext")]
    return Sealer(
        sender=sealing["sender"],
        policies=[policy(sealing["policy"])],
        keys={"main": FixedKeys(bytes.fromhex(data_key or ""), recipients, *direct)} if recipients else {},
        signers={"ring": KeyRing([signing_key(key)])} if key else {},
        clock=lambda: sealing["clock_ms"] * 1_000_000,
        monotonic=lambda: 0.0,
        random=lambda size: noise[:size],
    )


def seal(sealing: dict[str, Any], body: bytes) -> bytes:
    """Seal *body* as the vector says."""
    expires = sealing["expires_s"]
    return producer(sealing).seal(
        body,
        in_reply_to=sealing.get("in_reply_to"),
        destination=sealing["destination"],
        content_type=sealing["content_type"],
        expires_at=None if expires is None else datetime.fromtimestamp(expires, UTC),
        **beside(sealing),
    )


def reference_opening(opening: dict[str, Any]) -> reference.Opening:
    """Return what the reference needs to open a vector."""
    rules, here = opening["policy"], opening["destination"]
    found: dict[str, list[Any]] = {}
    for name, value in headers(opening["headers"]):
        found.setdefault(name, []).append(value)
    numbers = {"HMAC-SHA-256": reference.HMAC_256, "Ed25519": reference.EDDSA, "ES256": reference.ES256}
    authorities = tuple(
        reference.Authorities(
            key_id=key["id"],
            roots=tuple(map(bytes.fromhex, key["roots"])),
            names=key["names"],
            known=tuple(map(bytes.fromhex, key.get("known", ()))),
        )
        for key in opening["verifying_keys"]
        if key["algorithm"] == "X.509"
    )
    ring = tuple(
        reference.VerifyingKey(
            key_id=key["id"],
            alg=numbers[key["algorithm"]],
            senders=key["senders"],
            secret=bytes.fromhex(key.get("secret", "")),
            public=bytes.fromhex(key.get("public_key", "")),
            delegates=key.get("delegates", False),
            accept_for_s=key.get("accept_for_s", 0),
        )
        for key in opening["verifying_keys"]
        if key["algorithm"] in numbers
        and key.get("state") != "revoked"
        and opening["clock_ms"] < key.get("retired_until_ms", 1 << 62)
    )
    return reference.Opening(
        now_ms=opening["clock_ms"],
        destination=here,
        protection={"confidentiality": 1, "privacy": 2, "integrity": 3}[rules["protection"]],
        policy=rules["name"],
        also_here=tuple(rules["destinations"]) if here in rules["accept_from"] else (),
        senders=tuple(rules["senders"]),
        bind_headers=tuple(rules["bind_headers"]),
        encrypt_headers=tuple(rules.get("encrypt_headers", ())),
        in_reply_to=bytes.fromhex(opening["in_reply_to"]) if "in_reply_to" in opening else None,
        direct=rules.get("direct", False),
        bind_replies=rules.get("bind_replies", False),
        max_age_s=rules["max_message_age_s"],
        skew_s=rules["max_clock_skew_s"],
        headers=found,
        content_encoding=opening["content_encoding"],
        ordering_key=None
        if opening["ordering_key"] is None or not rules["bind_ordering_key"]
        else bytes.fromhex(opening["ordering_key"]),
        ring=ring,
        authorities=authorities,
        wrapping_keys={key_id: bytes.fromhex(key) for key_id, key in opening["wrapping_keys"].items()},
        opening_keys=tuple(bytes.fromhex(key) for key in opening.get("opening_keys", ())),
        branch_keys={
            (each["name"], each["version"]): bytes.fromhex(each["key"])
            for each in opening.get("branch_keys", ())
        },
    )
