"""Opens messages of any policy and destination with one private key; verifies them where the keys for that are given."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from typing import Final, NamedTuple, NoReturn

from postseal.core.context import Headers
from postseal.core.crypto import MessageKey, equal
from postseal.core.errors import (
    ConfigError,
    KeyBroken,
    KeyRefused,
    KeyUnavailable,
    NotMine,
    Refused,
    Verdict,
)
from postseal.core.incoming import Beside, Examined, Incoming
from postseal.core.keys import KeyContext, KeyProvider
from postseal.core.opened import Opened
from postseal.core.policy import Policies, Policy, ProtectionName
from postseal.core.recovery._dumps import Kept
from postseal.core.references import References, is_short
from postseal.core.signing import KeyRing, Origin
from postseal.core.wire import Envelope, Header, Protection, decode

__all__ = ["Proof", "Recovered", "Recovery"]

_MOST: Final = 4096
"""Data keys, and ways to open, that are kept at once."""
_WORDS: Final[dict[Protection, ProtectionName]] = {
    Protection.CONFIDENTIALITY: "confidentiality",
    Protection.PRIVACY: "privacy",
    Protection.INTEGRITY: "integrity",
}


class Proof(StrEnum):
    """What is known of who sealed a recovered message."""

    SENDER = "sender"
    """Its signature was verified."""
    GROUP = "group"
    """Its MAC was verified: some holder of the secret."""
    NONE = "none"
    """Confidentiality: nothing signs it; whoever had the archive's public key could have sealed it."""
    UNCHECKED = "unchecked"
    """It is signed, and no key was given to verify it with: whoever had the archive's public key could have sealed it."""


class Recovered(NamedTuple):
    """A message that opened. The body does not show in `repr`."""

    source: str
    opened: Opened
    proof: Proof

    def __repr__(self) -> str:
        return f"<Recovered {self.source} {self.proof}>"


class Recovery:
    """Opens what a dump has kept, offline.

    Args:
        keys: Unwraps data keys: `PublicKeyRecipients` with the archive's private key, say.
        policies: As consumers had them; what they demand must hold. Messages of other policies open, too, *unchecked*.
        signers: Key rings by name, as policies name them: public keys are enough.
        references: Records that messages name whose data keys travel by reference.

    A message that expired opens; its age is no matter here.
    """

    def __init__(
        self,
        keys: KeyProvider,
        *,
        policies: Iterable[Policy] = (),
        signers: Mapping[str, KeyRing] | None = None,
        references: References | None = None,
    ) -> None:
        self._provider = keys
        self._references = references
        self._policies = {policy.name: policy for policy in policies}
        self._signers = dict(signers or {})
        self._keys: dict[tuple[str, str, bytes | None], MessageKey] = {}
        self._ways: dict[tuple[str, str, Protection, str], Incoming] = {}
        self._now = 0

    def open(self, kept: Kept) -> Recovered:
        """Open one message.

        Raises:
            Refused: Never to be opened so: damaged, forged, or not for this key. The detail says why, in a sentence.
            KeyUnavailable: The key provider is none that works offline, and did not answer.
        """
        if kept.trouble:
            raise Refused(Verdict.MALFORMED, kept.trouble)
        if self._references is not None and is_short(kept.envelope):
            kept = kept._replace(envelope=self._references.fetch(kept.envelope))
        envelope = decode(kept.envelope)
        header = envelope.header
        if header.protection is Protection.PRIVACY and envelope.outer is None:
            raise Refused(Verdict.DOWNGRADE, "the signature was taken away")
        if header.direct:
            raise Refused(
                Verdict.UNKNOWN_KEY,
                "its key service encrypted it itself: only that opens it, and no archive key can",
            )
        way, checked = self._way(header)
        # Whatever it was that time: what is judged is not its age.
        self._now = (header.seconds * 1000 + header.millis) * 1_000_000
        examined, opened = self._opened(way, kept, header)
        return Recovered(kept.source, opened, _proof(examined, checked=checked))

    def _opened(self, way: Incoming, kept: Kept, header: Header) -> tuple[Examined, Opened]:
        """Open it with what the dump has kept beside it. An envelope does not say whether its encoding and its ordering key are bound."""
        failure: Refused | None = None
        for beside in _besides(kept, header):
            try:
                examined = way.examine(kept.envelope, beside)
                if header.protection is Protection.INTEGRITY:
                    return examined, way.clear(examined)
                return examined, way.decrypt(examined, self._key(examined.envelope))
            except Refused as refused:
                if refused.verdict is not Verdict.FORGED or refused.detail == _BROKEN:
                    raise
                failure = failure or refused
        missing = sorted(set(header.bound) - {name for name, _ in kept.headers})
        if missing:
            raise Refused(
                Verdict.FORGED,
                f"it binds headers that this dump does not have: {', '.join(missing)}; or it was changed",
            )
        raise failure or Refused(Verdict.FORGED)

    def _way(self, header: Header) -> tuple[Incoming, bool]:
        """Return what opens messages with such a header, and whether it verifies them."""
        policy = self._policies.get(header.policy)
        ring = None if policy is None or policy.sign is None else self._signers.get(policy.sign)
        checked = policy is not None and (policy.sign is None or ring is not None)
        place = (header.policy, header.destination, header.protection, "" if checked else header.sender)
        if place not in self._ways:
            if len(self._ways) >= _MOST:
                self._ways.clear()
            if policy is None or not checked:
                policy, ring = _any_policy(header), None
            self._ways[place] = Incoming(
                header.destination,
                policy.replace(max_message_age=None),
                Policies([policy]),
                None,
                ring,
                clock=lambda: self._now,
            )
        return self._ways[place], checked

    def _key(self, envelope: Envelope) -> MessageKey:
        header = envelope.header
        place = header.policy, header.destination, header.commitment
        key = self._keys.get(place)
        if key is None:
            key = self._unwrapped(envelope)
            if len(self._keys) >= _MOST:
                self._keys.clear()
            self._keys[place] = key
        return key

    def _unwrapped(self, envelope: Envelope) -> MessageKey:
        header = envelope.header
        try:
            data_key = self._provider.unwrap(
                envelope.recipients, KeyContext(header.policy, header.destination)
            )
        except NotMine:
            raise Refused(Verdict.UNKNOWN_KEY, "its data key was not wrapped for this archive key") from None
        except KeyRefused as refused:
            raise Refused(Verdict.UNKNOWN_KEY, str(refused)) from None
        except KeyBroken:
            _broken()
        except KeyUnavailable:
            raise
        key = MessageKey(data_key)
        del data_key  # a traceback shows the locals of its frames to whoever asks
        if not equal(key.commitment, header.commitment or b""):
            raise Refused(Verdict.FORGED, "its data key is not the one that it is committed to")
        return key


_BROKEN: Final = "what was wrapped for this archive key is changed, or of another message"


def _broken() -> NoReturn:
    raise Refused(Verdict.FORGED, _BROKEN) from None


def _any_policy(header: Header) -> Policy:
    """Make a policy that demands what the header says, and nothing else."""
    signed = header.protection is not Protection.CONFIDENTIALITY
    try:
        return Policy(
            name=header.policy,
            destinations=[header.destination],
            protection=_WORDS[header.protection],
            keys=[] if header.protection is Protection.INTEGRITY else ["archive"],
            sign="unchecked" if signed else None,
            senders=[header.sender] if signed else (),
        )
    except ConfigError:
        raise Refused(Verdict.WRONG_DESTINATION, "its destination is none") from None


def _proof(examined: Examined, *, checked: bool) -> Proof:
    if examined.envelope.header.protection is Protection.CONFIDENTIALITY:
        return Proof.NONE
    if not checked or examined.signer is None:
        return Proof.UNCHECKED
    return Proof.SENDER if examined.signer.origin is Origin.SENDER else Proof.GROUP


def _besides(kept: Kept, header: Header) -> Iterator[Beside]:
    """Yield what may have been bound, the likeliest first."""
    headers: Headers = kept.headers
    if header.destination.startswith("kafka:"):
        # Kafka's values are bytes; dumps like to write them as text.
        headers = [
            (name, value.encode() if isinstance(value, str) else value) for name, value in kept.headers
        ]
    keys = dict.fromkeys((None, kept.ordering_key))
    for encoding in dict.fromkeys((kept.content_encoding, None)):
        for key in keys:
            yield Beside(headers, encoding, key)
