"""A policy file as the source of a sealer's rules: read again on demand, or when it has changed."""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from postseal.core.config._making import Settings
from postseal.core.errors import ConfigError, MissingExtraError
from postseal.core.forking import begin_again_in_child
from postseal.core.keys import KeyProvider
from postseal.core.policy import Policy
from postseal.core.signing import KeyRing

if TYPE_CHECKING:
    from postseal.core.config import PolicyFile

__all__ = ["PolicySource", "Reload", "Watch", "compared"]

_log: Final = logging.getLogger("postseal.policy")
_SETTLED: Final = 0.2
"""Seconds for which a file must have been left alone before it is read: who writes it may not be done."""


class Reload(NamedTuple):
    """A policy file was read again.

    Attributes:
        file: Its path.
        error: Why it is not in force, and the one before still is; None where it is in force.
        added: Names of policies that are new.
        changed: Names of policies that say something else now.
        removed: Names of policies that are gone.
        waits: Sections whose change waits until the program starts again.
    """

    file: str
    error: ConfigError | MissingExtraError | None = None
    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    waits: tuple[str, ...] = ()


class PolicySource:
    """Reads one file, again and again.

    Args:
        path: Of the file.
        sender: Who we are, where the program says it.
        keys: Key providers that the program hands in.
        signers: Key rings likewise.
        verify_only: Whether no key providers are to be made.
        on_reload: Called with each `Reload`.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        sender: str | None,
        keys: Mapping[str, KeyProvider],
        signers: Mapping[str, KeyRing],
        verify_only: bool,
        on_reload: Callable[[Reload], None] | None = None,
    ) -> None:
        self.path = Path(path)
        self._sender = sender
        self._keys = keys
        self._signers = signers
        self._verify_only = verify_only
        self._on_reload = on_reload
        self.settings: Settings | None = None
        self._files: frozenset[Path] = frozenset({self.path})

    def read(self) -> Settings:
        """Read the file and all that it refers to. What has not changed is what it was.

        Raises:
            ConfigError: As `PolicyFile.read` and `resolve`.
            MissingExtraError: As `PolicyFile.resolve`.
        """
        from postseal.core.config import PolicyFile  # noqa: PLC0415 - which imports this

        file: PolicyFile = PolicyFile.read(self.path, keys=self._keys, signers=self._signers)
        return file.resolve(
            sender=self._sender,
            keys=self._keys,
            signers=self._signers,
            before=self.settings,
            verify_only=self._verify_only,
        )

    def take(self, settings: Settings) -> None:
        """Note that *settings* are in force."""
        self.settings = settings
        self._files = settings.files | {self.path}

    def state(self) -> dict[Path, object]:
        """Return what is equal for as long as no file was touched."""
        return {path: _state_of(path) for path in self._files}

    def tell(self, reload: Reload) -> None:
        """Log it, and hand it to the callback."""
        if reload.error is not None:
            _log.error("%s is not in force, what was before still is: %s", reload.file, reload.error)
        else:
            _log.info(
                "%s was read again: %d policies added, %d changed, %d removed",
                reload.file,
                len(reload.added),
                len(reload.changed),
                len(reload.removed),
            )
            for section in reload.waits:
                _log.warning(
                    "%s: what [%s] says now waits until the program starts again", reload.file, section
                )
        if self._on_reload is not None:
            try:
                self._on_reload(reload)
            except Exception:  # noqa: BLE001 - the file is in force all the same; it is logged
                _log.exception("the callback failed on a reload of %s", reload.file)


def _state_of(path: Path) -> object:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def compared(file: str, before: tuple[Policy, ...], after: tuple[Policy, ...]) -> Reload:
    """Say what differs."""
    old, new = {each.name: each for each in before}, {each.name: each for each in after}
    return Reload(
        file,
        added=tuple(name for name in new if name not in old),
        changed=tuple(name for name in new if name in old and new[name] != old[name]),
        removed=tuple(name for name in old if name not in new),
    )


class Watch:
    """A thread that looks after a file, for as long as its sealer lives. A forked child has one of its own.

    Args:
        sealer: Is told to read its file again.
        source: Tells whether it has changed.
        interval: Seconds between looks.
    """

    def __init__(self, sealer: Any, source: PolicySource, interval: float) -> None:
        self._sealer = weakref.ref(sealer)
        self._source = source
        self._interval = interval
        self._seen = source.state()
        self._ended = False
        self.begin_again()
        begin_again_in_child(self)

    def begin_again(self) -> None:
        """Start the thread."""
        self._stop = threading.Event()
        if not self._ended:
            threading.Thread(
                target=self._run, args=(self._stop,), name="postseal-policy", daemon=True
            ).start()

    def end(self) -> None:
        """Stop looking."""
        self._ended = True
        self._stop.set()

    def _run(self, stop: threading.Event) -> None:
        while not stop.wait(self._interval):
            state = self._source.state()
            if state == self._seen:
                if self._sealer() is None:
                    return
                continue
            if stop.wait(min(_SETTLED, self._interval)) or self._source.state() != state:
                continue  # somebody is at it
            self._seen = state
            sealer = self._sealer()
            if sealer is None:
                return
            try:
                sealer.reload()
            except (ConfigError, MissingExtraError):
                pass  # it was told, and what was before is in force
            except Exception:  # noqa: BLE001 - the thread goes on to look; it is logged
                _log.exception("%s could not be read again", self._source.path)
            else:
                # Files that it refers to newly; of the others, what they were before they were read.
                self._seen = {
                    **(now := self._source.state()),
                    **{path: state[path] for path in now if path in state},
                }
            del sealer
