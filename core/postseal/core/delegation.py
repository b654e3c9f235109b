"""Delegated keys: a key that is slow or dear to use says once in a while that another one signs for it.

A signing key in a cloud costs a call for each signature. So it signs one statement every ten minutes or so: this public key signs as that
sender, from then to then. Messages are signed here with the other half, which never leaves memory and is thrown away, and carry the
statement. Who verifies looks at it once, and then at each message, without a call.

Source: SPEC.md 7.3.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import datetime
from math import inf
from typing import Final, Literal, NamedTuple, Protocol, TypeAlias, TypeVar, get_args, runtime_checkable
from weakref import WeakSet

from postseal.core import crypto
from postseal.core.crypto import InvalidSignature
from postseal.core.errors import ConfigError, KeyRefused, KeyUnavailable, Refused, Verdict, nearest
from postseal.core.findings import Examined, Finding
from postseal.core.forking import ForkSafeLock
from postseal.core.signing import (
    Ask,
    Ed25519Key,
    Es256Key,
    RingKey,
    Sign,
    SigningKey,
    State,
    Watcher,
    vouched_key,
)
from postseal.core.wire import Credential, Delegation

__all__ = ["DESTINATION", "AskedRoot", "Delegate", "DelegatedKey", "FetchedRoot"]

Clock: TypeAlias = Callable[[], float]
Delegate: TypeAlias = Literal["ed25519", "es256"]
"""What a short-lived key is."""

DESTINATION: Final = "postseal v1 delegation"
"""What an HMAC key that delegates is derived for, in place of a destination."""
MAX_LIFETIME: Final = 86_400
_EARLIER: Final = 300
"""Seconds by which a delegation begins before it is made: a clock that is set back a little must not spoil messages."""
_RETRY_AFTER: Final = 2.0
"""Seconds for which those who waited for it share one failure."""
_MARGIN: Final = 5.0
"""Seconds before the end from which on the next key is waited for."""
_MAX_ASKED: Final = 1024
_KID_SIZE: Final = 32
_REMEMBER: Final = 30.0
"""Seconds for which a delegation that the key service did not confirm is refused without a call."""
_T = TypeVar("_T")


@runtime_checkable
class FetchedRoot(Protocol):
    """A key that delegates, and verifies with a public half that has to be fetched now and then."""

    def fresh_for(self) -> float:
        """Return for how many seconds it verifies without a call."""
        ...

    def fetch(self) -> None:
        """Fetch the public half, if it is time. Raises `KeyUnavailable` or `KeyRefused`."""
        ...


@runtime_checkable
class AskedRoot(Protocol):
    """A key that delegates, and each time that it verifies takes a call."""

    confirmed_for: float
    """Seconds for which an answer holds."""
    max_stale: float
    """Seconds for which it goes on to hold while the service does not answer."""


class _Confirmed(NamedTuple):
    """A delegation that the root confirmed: when, and to when that holds, in seconds since the epoch."""

    seen: float
    until: float


class _Delegated:
    """A short-lived key that signs, and carries what its root said of it. *ends* is in seconds since the epoch."""

    signed_between: tuple[int, int] | None = None
    retired_until: datetime | None = None
    state: State = "active"
    can_sign = True

    def __init__(
        self, key: Ed25519Key | Es256Key, credential: Credential, root: SigningKey, ends: int, clock: Clock
    ) -> None:
        self.id, self.origin = root.id, root.origin
        self.algorithm, self.senders = key.algorithm, key.senders
        self.public_key_fingerprints = key.public_key_fingerprints
        self.kid, self.credential = crypto.sha256(credential.value), credential.encode()
        self.verifier = key.verifier
        self._key, self._ends, self._clock = key, ends, clock

    def signer(self, sender: str, destination: str, prefix: bytes = b"") -> Sign:
        """Return the function that signs, until the delegation ends."""
        sign, ends, clock, name = (
            self._key.signer(sender, destination, prefix),
            self._ends,
            self._clock,
            self.id,
        )

        def sign_until(message: bytes) -> bytes:
            if clock() >= ends:
                raise KeyUnavailable(f"the delegation by key {name!r} ended while a message was being sealed")
            return sign(message)

        return sign_until


class _Current(NamedTuple):
    """The key that signs now; when the next is made ahead of time, and when this one ends, in seconds since the epoch."""

    key: _Delegated
    ahead: float
    ends: float


class DelegatedKey(RingKey):
    """Signs with short-lived keys for which *root* speaks, and verifies what such keys signed.

    Nothing is asked at construction. The first message waits for one call; later ones for none, because the next key is made ahead of time,
    in a thread. While the key service is away the last key goes on to its end; then sealing raises `KeyUnavailable`. Where the service says
    no, it ends at once.

    Args:
        root: The key that delegates: one in a key service (`AwsKmsEs256Key`, `AwsKmsHmacKey`, `AzureEs256Key`), one that is held here, or
            any `SigningKey`. With its public half alone, this only verifies.
        senders: Whose keys *root* may speak for.
        sender: As whom this process signs; needed where *senders* names several, and it signs.
        lifetime: Seconds that a delegation lasts, 60 to 86,400. Who steals a short-lived key signs as this sender until then.
        accept_for: Seconds after its end for which what it signed verifies: how long messages may lie, dead letters included.
        delegate: What the short-lived keys are.
        revoked: Key ids of short-lived keys, in hex, that no longer verify.
        state: Whether it signs and verifies.
        retired_until: When a retired key ends to verify.
        clock: Seconds since the epoch.

    Raises:
        ConfigError: An option makes no sense.
    """

    def __init__(
        self,
        root: SigningKey,
        *,
        senders: Iterable[str],
        sender: str | None = None,
        lifetime: float = 600.0,
        accept_for: float = 14 * 86_400.0,
        delegate: Delegate = "ed25519",
        revoked: Iterable[str] = (),
        state: State = "active",
        retired_until: datetime | None = None,
        clock: Clock = time.time,
    ) -> None:
        super().__init__(root.id, senders, state, retired_until)
        names = self.must_name_senders()
        if sender is None and len(names) == 1:
            (sender,) = names
        if sender is not None and sender not in names:
            raise ConfigError(f"key {self.id!r} is not for sender {sender!r}{nearest(sender, names)}")
        if not 60 <= lifetime <= MAX_LIFETIME:  # noqa: PLR2004 - as the docstring says
            raise ConfigError(
                f"lifetime of key {self.id!r} must be 60 to {MAX_LIFETIME:,} seconds: {lifetime!r}"
            )
        if not 0 <= accept_for < inf:
            raise ConfigError(f"accept_for of key {self.id!r} must be 0 seconds or more: {accept_for!r}")
        if delegate not in get_args(Delegate):
            raise ConfigError(
                f"delegate of key {self.id!r} is {delegate!r}{nearest(str(delegate), get_args(Delegate))}"
            )
        self.origin = root.origin
        self.algorithm = root.algorithm
        self.can_sign = root.can_sign and sender is not None
        self._root, self.sender = root, sender
        self._lifetime, self._accept_for = lifetime, accept_for
        self._delegate: Delegate = delegate
        self._revoked = _kids(revoked, self.id)
        self._clock = clock
        self._renewing = ForkSafeLock()
        """Held while the root is asked."""
        self._lock = ForkSafeLock()
        self._watchers: WeakSet[Watcher] = WeakSet()
        self._current: _Current | None = None
        self._told: _Current | None = None
        """The current one, once all who sign with it know."""
        self._try_again = 0.0
        self._failure: tuple[float, KeyUnavailable] | None = None
        self._confirmed: dict[bytes, _Confirmed] = {}
        """Delegations that a root confirmed which has to be asked."""
        self._unconfirmed: dict[bytes, float] = {}
        """Those that it did not, and to when each is refused without asking again. Apart, so that a flood of them drives none out above."""

    @property
    def public_key_fingerprints(self) -> frozenset[bytes]:
        """Of the root's public half; where that has to be fetched, once it was."""
        return self._root.public_key_fingerprints

    def examine(self) -> Iterator[Finding]:
        """Ask about the root, where it is in a key service."""
        if isinstance(self._root, Examined):
            yield from self._root.examine()

    @property
    def calls(self) -> object:
        """How often the root's key service was asked, by operation, where it has one: `Tallies`."""
        return getattr(self._root, "calls", None)

    # -- signing ---------------------------------------------------------------------------------------------------

    def current(self) -> SigningKey | None:
        """Return the short-lived key that signs now; None where there is none yet."""
        current = self._current
        return None if current is None else current.key

    def due(self) -> bool:
        """Tell whether the next key must be waited for; have it made ahead of time, where it need not."""
        now, current = self._clock(), self._told
        if current is None or not now < current.ends - _MARGIN:
            return True
        if now >= current.ahead and now >= self._try_again:
            # Not a flag, which would stay up in a forked child for ever, with no thread to take it down.
            self._try_again = now + self._lifetime / 20
            self._ahead_of_time()
        return False

    def _ahead_of_time(self) -> None:
        def renew() -> None:
            with suppress(KeyUnavailable, KeyRefused):
                self._renew(ahead=True)

        with suppress(
            RuntimeError
        ):  # the system has no more threads for us: the last message before the end waits
            threading.Thread(target=renew, name="postseal-delegation", daemon=True).start()

    def renew(self) -> None:
        """Have the root speak for a new key, if the current one has ended or will soon. One call, however many threads come.

        Raises:
            KeyUnavailable: No answer, and the current key has ended.
            KeyRefused: The root may not be used: nothing is signed from now on.
        """
        self._renew(ahead=False)

    def _renew(self, *, ahead: bool) -> None:
        with self._renewing:
            now, current = self._clock(), self._current
            if current is not None and now < (current.ahead if ahead else current.ends - _MARGIN):
                if (
                    self._told is not current
                ):  # who was to tell of it stayed behind in the parent of this process
                    self._tell()
                return
            failure = self._failure
            if not ahead and failure is not None and 0 <= now - failure[0] < _RETRY_AFTER:
                raise KeyUnavailable(*failure[1].args)
            try:
                self._current = self._made(now)
                self._failure = None
            except KeyUnavailable as error:
                self._failure = self._clock(), KeyUnavailable(*error.args)
                if current is None or now >= current.ends:
                    raise
            except KeyRefused:
                self._current = self._told = None
                raise
            self._tell()

    def _tell(self) -> None:
        """Have all who sign take up the current key. Who is not waited for by then would sign with the last one, or with none."""
        with self._lock:
            watchers = tuple(self._watchers)
        for watcher in watchers:
            watcher.ring_changed()
        self._told = self._current

    def _made(self, now: float) -> _Current:
        if self.sender is None:
            raise ConfigError(f"key {self.id!r} has several senders: say as which of them this process signs")
        key = _new_key(self._delegate, self.id, self.sender)
        ends = int(now + self._lifetime)
        unsigned = Delegation(
            algorithm=self._root.algorithm,
            key_id=self._root.kid,
            sender=self.sender,
            begins=int(now) - _EARLIER,
            ends=ends,
            delegate=key.algorithm,
            public_key=key.public_bytes,
        )
        signature = self._root.signer(self.sender, DESTINATION)(unsigned.to_be_signed())
        delegated = _Delegated(
            key, Credential.of(unsigned._replace(signature=signature)), self._root, ends, self._clock
        )
        if isinstance(self._root, AskedRoot):
            self._confirm(delegated.kid, self._root, now)
        return _Current(delegated, now + self._lifetime * 2 / 3, ends)

    def watch(self, watcher: Watcher) -> None:
        """Have *watcher* told of each new key, for as long as it lives."""
        with self._lock:
            self._watchers.add(watcher)

    # -- verifying -------------------------------------------------------------------------------------------------

    def vouch(self, unverified_key_id: bytes, unverified_credential: Credential | None) -> SigningKey | None:
        """Return the short-lived key of that id, if the root speaks for it.

        Raises:
            Refused: It does not, or no longer.
            Ask: The root has to be asked.
        """
        if unverified_credential is None or (delegation := unverified_credential.delegation) is None:
            return None
        root = self._root
        if delegation.key_id != root.kid:
            return None
        if delegation.algorithm is not root.algorithm:
            raise Refused(Verdict.FORGED, "the algorithm of the delegation is not that of the key")
        until = self._check(delegation, unverified_key_id)
        until = min(until, self._genuine_until(delegation, unverified_key_id))
        try:
            public = crypto.public_key(delegation.public_key)
        except ValueError:
            raise Refused(Verdict.FORGED, "the delegated key is no point of its curve") from None
        return vouched_key(
            public,
            voucher=self,
            kid=unverified_key_id,
            senders=[delegation.sender],
            until=until,
            signed_between=(delegation.begins, delegation.ends),
        )

    def _check(self, delegation: Delegation, key_id: bytes) -> float:
        """See whether *delegation* counts, if it is genuine; return to when what it signed verifies."""
        if key_id in self._revoked:
            raise Refused(Verdict.UNKNOWN_KEY, "the delegated key was revoked")
        if delegation.sender not in self.must_name_senders():
            raise Refused(Verdict.UNKNOWN_SENDER, f"key {self.id!r} may not speak for that sender")
        if not 0 <= delegation.ends - delegation.begins <= MAX_LIFETIME + _EARLIER:
            raise Refused(Verdict.UNKNOWN_KEY, "the delegation is for longer than any may be")
        until = delegation.ends + self._accept_for
        if self._clock() >= until:
            raise Refused(Verdict.UNKNOWN_KEY, "the delegation ended longer ago than is accepted")
        return until

    def _genuine_until(self, delegation: Delegation, key_id: bytes) -> float:
        """See that the root signed *delegation*; return to when that holds, in seconds since the epoch."""
        root = self._root
        if isinstance(root, AskedRoot):
            return self._confirmed_until(root, delegation, key_id)
        until = inf
        if isinstance(root, FetchedRoot):
            fresh_for = root.fresh_for()
            if fresh_for <= 0:
                raise Ask((id(root), "public key"), root.fetch)
            until = self._clock() + fresh_for
        self._verify(delegation)
        return until

    def _confirmed_until(self, root: AskedRoot, delegation: Delegation, key_id: bytes) -> float:
        now, confirmed = self._clock(), self._confirmed.get(key_id)
        if confirmed is not None and now < confirmed.until:
            return confirmed.until
        if now < self._unconfirmed.get(key_id, 0.0):
            raise Refused(Verdict.FORGED, "the signature of the delegation is wrong")
        raise Ask((id(self), key_id), lambda: self._ask(root, delegation, key_id))

    def _verify(self, delegation: Delegation) -> None:
        verify = self._root.verifier(delegation.sender, DESTINATION)
        try:
            verify(delegation.to_be_signed(), delegation.signature)
        except InvalidSignature:
            raise Refused(Verdict.FORGED, "the signature of the delegation is wrong") from None

    def _ask(self, root: AskedRoot, delegation: Delegation, key_id: bytes) -> None:
        """Have *root* say whether it signed *delegation*, and keep the answer."""
        now, confirmed = self._clock(), self._confirmed.get(key_id)
        if (confirmed is not None and now < confirmed.until) or now < self._unconfirmed.get(key_id, 0.0):
            return  # by the call that ended between our look and ours
        try:
            self._verify(delegation)
        except Refused:
            with self._lock:
                self._confirmed.pop(key_id, None)
                _put(self._unconfirmed, key_id, now + _REMEMBER)
        except KeyUnavailable:
            if confirmed is None or now >= confirmed.seen + root.max_stale:
                raise
            # It was genuine, and goes on to be.
            self._confirmed[key_id] = confirmed._replace(until=now + _RETRY_AFTER)
        else:
            self._confirm(key_id, root, now)

    def _confirm(self, key_id: bytes, root: AskedRoot, now: float) -> None:
        with self._lock:
            _put(self._confirmed, key_id, _Confirmed(now, now + root.confirmed_for))


def _put(kept: dict[bytes, _T], key_id: bytes, value: _T) -> None:
    """Keep *value*, and no more than so many."""
    while len(kept) >= _MAX_ASKED and key_id not in kept:
        del kept[next(iter(kept))]
    kept[key_id] = value


def _new_key(kind: Delegate, name: str, sender: str) -> Ed25519Key | Es256Key:
    private = crypto.new_private_key(kind)
    if kind == "ed25519":
        return Ed25519Key(name, private_key=private, senders=[sender])
    return Es256Key(name, private_key=private, senders=[sender])


def _kids(revoked: Iterable[str], name: str) -> frozenset[bytes]:
    if isinstance(revoked, str):
        raise ConfigError(f"revoked of key {name!r} must be a list of key ids, not one text")
    try:
        kids = frozenset(bytes.fromhex(kid) for kid in revoked)
    except ValueError:
        kids = frozenset({b""})
    if any(len(kid) != _KID_SIZE for kid in kids):
        raise ConfigError(f"revoked of key {name!r} takes key ids of {_KID_SIZE} bytes in hex")
    return kids
