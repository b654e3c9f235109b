"""Branch keys: keys between the key service and data keys, each fetched once by a process, under which data keys are wrapped locally.

A branch key is made once, wrapped by a key service, and kept in a store. Whoever uses it has the service unwrap it once, and then wraps
and unwraps data keys without asking: calls grow with the processes, not with producers times consumers times data keys. The root (in the
service), the branch and the data keys each rotate alone. Destroying a branch destroys what was sealed under it.

Source: SPEC.md 6.3; AWS Encryption SDK, hierarchical keyring, for the idea.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, Protocol, runtime_checkable

from postseal.core import crypto
from postseal.core.context import check_name, head, text
from postseal.core.crypto import DATA_KEY_SIZE, HmacContext, InvalidTag, RandomBytes
from postseal.core.errors import ConfigError
from postseal.core.forking import ForkSafeLock
from postseal.core.keys import (
    KeyBroken,
    KeyContext,
    KeyProvider,
    KeyRefused,
    KeyUnavailable,
    NewDataKey,
    NotMine,
    Recipient,
)
from postseal.core.providers._binding import canonical

__all__ = ["ALGORITHM", "BranchKeys", "BranchRecord", "BranchStore", "branch_id"]

ALGORITHM: Final = -65542
_ID_SIZE: Final = 8
_VERSION_SIZE: Final = 4
_WRAPPED_SIZE: Final = 60
_DOMAIN: Final = "postseal v1 branch"
_MOST: Final = 4096
"""Branch keys kept at once."""
_FORGET_AFTER: Final = 30.0
"""Seconds for which a version that nobody knows is not asked for again."""


class BranchRecord(NamedTuple):
    """A branch key as a store keeps it: wrapped. Nothing in it is secret. One without recipients was destroyed."""

    branch: str
    version: int
    recipients: tuple[Recipient, ...]


@runtime_checkable
class BranchStore(Protocol):
    """Keeps wrapped branch keys. Every method may raise `KeyUnavailable`."""

    def newest(self, branch: str) -> BranchRecord | None:
        """Return the record of the highest version."""
        ...

    def get(self, branch: str, version: int) -> BranchRecord | None:
        """Return that record."""
        ...

    def add(self, record: BranchRecord) -> bool:
        """Keep *record*, unless there is one of that version: then return False."""
        ...

    def destroy(self, branch: str) -> int:
        """Leave of all versions nothing but their numbers, so that none is ever given again; return how many there were."""
        ...


class _Kept(NamedTuple):
    """A branch key in memory, as an HMAC that has absorbed it: its bytes are not kept."""

    version: int
    keyed: HmacContext
    until: float
    """Monotonic; then the key service is asked again."""

    def __repr__(self) -> str:
        return f"<branch key, version {self.version}>"


def branch_id(branch: str) -> bytes:
    """Return how the kid of envelopes begins for *branch*: 8 bytes. Source: SPEC.md 6.3."""
    return crypto.sha256(head(4, 2) + text(_DOMAIN) + text(branch))[:_ID_SIZE]


class BranchKeys:
    """Key provider on branch keys.

    Args:
        inner: The key service, or several combined, that wraps branch keys. Not one that anybody can wrap for: who writes to the store
            could put a key of his own there.
        store: Keeps them.
        branch: The branch, or a function that names it for a policy and destination: a tenant's, say. 1 to 255 bytes.
        branches: What such a function may give; opens what names one of these, and nothing else.
        max_age: Seconds for which a branch key is used before the service is asked again. With `OpeningLimits.max_age` it is the revocation
            window.
        max_stale: Seconds past that, while the service or the store does not answer.

    Raises:
        ConfigError: No branches, or one that cannot be.
    """

    def __init__(
        self,
        inner: KeyProvider,
        store: BranchStore,
        branch: str | Callable[[KeyContext], str],
        *,
        branches: Sequence[str] = (),
        max_age: float = 3600.0,
        max_stale: float = 3600.0,
        random: RandomBytes = crypto.random_bytes,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        names = (branch,) if isinstance(branch, str) else tuple(branches)
        if isinstance(branches, str) or not names:
            raise ConfigError(
                "BranchKeys needs a branch, or a function and the list of branches that it may name"
            )
        self._names = {branch_id(check_name(name, "a branch")): name for name in names}
        self._branch = branch
        self.inner = inner
        self._store, self._random = store, random
        self._max_age, self._max_stale, self._monotonic = max_age, max_stale, monotonic
        self._lock = ForkSafeLock()
        self._newest: dict[str, _Kept] = {}
        self._kept: dict[tuple[str, int], _Kept] = {}
        self._unknown: dict[tuple[str, int], float] = {}

    def __repr__(self) -> str:
        return f"<BranchKeys {', '.join(sorted(self._names.values())[:4])} under {self.inner!r}>"

    def __reduce__(self) -> str:
        raise TypeError("a key is not for pickling")

    # -- a key provider --------------------------------------------------------------------------------------------

    def generate(self, context: KeyContext) -> NewDataKey:
        """Make a data key from the operating system's randomness, and wrap it: no call while the branch key is kept."""
        data_key = self._random(DATA_KEY_SIZE)
        return NewDataKey(data_key, self.wrap(data_key, context))

    def wrap(self, data_key: bytes, context: KeyContext) -> tuple[Recipient, ...]:
        """Wrap *data_key* under the newest key of its branch; the first time ever, make that key.

        Raises:
            KeyRefused: The branch was destroyed, or the key service said no.
        """
        try:
            branch = self._branch_of(context)
            kept = self._for_wrapping(branch)
            bound = canonical(context)
            wrapped = crypto.encrypt_once(_derived(kept.keyed, bound), data_key, bound, random=self._random)
        finally:
            del data_key  # a traceback shows the locals of its frames to whoever asks
        key_id = branch_id(branch) + kept.version.to_bytes(_VERSION_SIZE, "big")
        return (Recipient(ALGORITHM, key_id, wrapped),)

    def unwrap(self, recipients: Sequence[Recipient], context: KeyContext) -> bytes:
        """Unwrap with the branch key that one of *recipients* names: no call while that is kept."""
        for recipient in recipients:
            branch = self._names.get(recipient.key_id[:_ID_SIZE])
            if (
                recipient.algorithm == ALGORITHM
                and branch is not None
                and len(recipient.key_id) == _ID_SIZE + _VERSION_SIZE
            ):
                # Of several that name our branches, the first alone: an honest message has one.
                return self._unwrapped(branch, recipient, context)
        raise NotMine("no recipient is of a branch of this process")

    def _unwrapped(self, branch: str, recipient: Recipient, context: KeyContext) -> bytes:
        if len(recipient.wrapped_key) != _WRAPPED_SIZE:
            raise KeyBroken("the wrapped key has another size")
        kept = self._for_opening(branch, int.from_bytes(recipient.key_id[_ID_SIZE:], "big"))
        bound = canonical(context)
        try:
            return crypto.decrypt_once(_derived(kept.keyed, bound), recipient.wrapped_key, bound)
        except InvalidTag:
            raise KeyBroken("the wrapped key was changed, or is of another context") from None

    def _branch_of(self, context: KeyContext) -> str:
        branch = self._branch if isinstance(self._branch, str) else self._branch(context)
        if branch_id(branch) not in self._names:
            raise ConfigError(f"branch {branch!r} is none of `branches`: nobody could open it here")
        return branch

    # -- the life of a branch --------------------------------------------------------------------------------------

    def create(self, branch: str) -> int:
        """Make a key of *branch*, where there is none or it was destroyed; return the version in force."""
        with self._lock:
            newest = self._store.newest(branch)
            if newest is not None and not newest.recipients:
                self._store.add(self._made(branch, newest.version + 1))
            return self._first(branch).version

    def rotate(self, branch: str) -> int:
        """Have a new key of *branch*; return its version. Other processes wrap under it within `max_age`; older ones go on to open.

        Raises:
            KeyRefused: There is no such branch.
        """
        with self._lock:
            newest = self._store.newest(branch)
            if newest is None or not newest.recipients:
                raise KeyRefused(f"there is no branch {branch!r}: it was destroyed, or never made")
            made = self._made(branch, newest.version + 1)
            # Where somebody else was quicker, theirs is as new.
            self._newest.pop(branch, None)
            return made.version if self._store.add(made) else newest.version + 1

    def destroy(self, branch: str) -> float:
        """Delete every key of *branch* from the store, and from this process.

        What was sealed under it alone cannot be opened again once no process has the key in memory, and no backup of the store has the
        record. Nothing is sealed under that name until `create`.

        Returns:
            Seconds after which no process that is configured alike has it any more, but in data keys that it has cached: add
            `OpeningLimits.max_age` and `max_stale`.

        Raises:
            ConfigError: The store has no such branch, so nothing was destroyed.
        """
        with self._lock:
            destroyed = self._store.destroy(branch)
            self._newest.pop(branch, None)
            for place in [place for place in self._kept if place[0] == branch]:
                del self._kept[place]
        if not destroyed:
            raise ConfigError(f"there is no branch {branch!r}: nothing was destroyed")
        return self._max_age + self._max_stale

    # -- keys in memory --------------------------------------------------------------------------------------------

    def forget(self) -> None:
        """Drop what is kept in memory: the next use asks again."""
        with self._lock:
            self._newest.clear()
            self._kept.clear()

    def _for_wrapping(self, branch: str) -> _Kept:
        kept = self._newest.get(branch)
        if kept is not None and self._monotonic() < kept.until:
            return kept
        with self._lock:
            kept = self._newest.get(branch)
            if kept is not None and self._monotonic() < kept.until:
                return kept
            return self._renewed(kept, branch, lambda: self._first(branch))

    def _for_opening(self, branch: str, version: int) -> _Kept:
        kept = self._kept.get((branch, version))
        if kept is not None and self._monotonic() < kept.until:
            return kept
        with self._lock:
            kept = self._kept.get((branch, version))
            if kept is not None and self._monotonic() < kept.until:
                return kept
            return self._renewed(kept, branch, lambda: self._known(branch, version))

    def _renewed(self, kept: _Kept | None, branch: str, ask: Callable[[], _Kept]) -> _Kept:
        """Ask for a key again; go on with *kept* a while where nobody answers, and never where somebody says no."""
        try:
            return ask()
        except KeyUnavailable:
            if kept is not None and self._monotonic() < kept.until + self._max_stale:
                return kept
            raise
        except (KeyRefused, KeyBroken, NotMine):
            if kept is not None:
                self._newest.pop(branch, None)
                self._kept.pop((branch, kept.version), None)
            raise

    def _first(self, branch: str) -> _Kept:
        """Return the newest key of *branch*; make the first."""
        record = self._store.newest(branch)
        if record is None:
            made = self._made(branch, 1)
            record = made if self._store.add(made) else self._store.newest(branch)
        if record is None or not record.recipients:
            raise KeyRefused(f"branch {branch!r} was destroyed")
        return self._keep(record, newest=True)

    def _known(self, branch: str, version: int) -> _Kept:
        place = branch, version
        if self._monotonic() < self._unknown.get(place, float("-inf")):
            raise KeyRefused(f"there is no version {version} of branch {branch!r}")
        record = self._store.get(branch, version)
        if record is None or not record.recipients:
            if len(self._unknown) >= _MOST:
                self._unknown.clear()
            self._unknown[place] = self._monotonic() + _FORGET_AFTER
            raise KeyRefused(f"there is no version {version} of branch {branch!r}")
        return self._keep(record, newest=False)

    def _made(self, branch: str, version: int) -> BranchRecord:
        """Make a branch key, wrapped."""
        made = self.inner.generate(_context_of(branch, version))
        return BranchRecord(branch, version, made.recipients)

    def _keep(self, record: BranchRecord, *, newest: bool) -> _Kept:
        key = self.inner.unwrap(record.recipients, _context_of(record.branch, record.version))
        kept = _Kept(record.version, crypto.hmac_context(key), self._monotonic() + self._max_age)
        del key  # likewise
        if len(self._kept) >= _MOST:
            self._kept.clear()
        self._kept[record.branch, record.version] = kept
        if newest:
            self._newest[record.branch] = kept
        return kept


def _context_of(branch: str, version: int) -> KeyContext:
    """Return what a branch key is bound to at its key service: no record can stand in for another."""
    return KeyContext("postseal branch", f"branch:{branch}/{version}")


def _derived(keyed: HmacContext, bound: bytes) -> bytes:
    """Derive the wrapping key of a context: HKDF-Expand of one block, the branch key being uniform. Source: RFC 5869 2.3."""
    block = keyed.copy()
    block.update(_DOMAIN.encode() + bound + b"\x01")
    return block.finalize()
