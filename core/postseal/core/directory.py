"""Public keys looked up in a directory: a signed document, fetched now and then, that says whose key is which at this moment.

::

    directory = Directory(
        HttpsFile("https://keys.example/company.directory"),
        name="company",
        issuers=KeyRing([Ed25519Key("admin-1", public_key=..., senders=["key-admin"])]),
        recipients=["warehouse", "archive"],
    )
    main = PublicKeyRecipients(directory)

The document is an envelope of ours under *integrity*, so whoever keeps or serves it cannot change it, and an older one is not taken for a
newer. It holds public keys alone: no private key leaves its process. Once it was read nothing waits for a network: a thread beside
refreshes it, and it goes on for `max_stale` while that fails.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Generic, NamedTuple, Protocol, TypeVar
from urllib.error import HTTPError
from urllib.request import HTTPRedirectHandler, HTTPSHandler, Request, build_opener

from postseal.core.errors import ConfigError, KeyUnavailable, Refused, Verdict, nearest
from postseal.core.forking import ForkSafeLock
from postseal.core.keys import KeyContext
from postseal.core.policy import Policy
from postseal.core.publickeys import RecipientKey
from postseal.core.sealer import Sealer
from postseal.core.signing import KeyRing, Origin, SigningKey

__all__ = [
    "Directory",
    "Fetch",
    "Fetched",
    "HttpsFile",
    "LocalFile",
    "Published",
    "issue",
    "verify",
]

_log: Final = logging.getLogger("postseal.keys")
_MOST: Final = 4 * 1024 * 1024
"""Bytes of a document."""
_STATES: Final = ("active", "pending", "retired")
_NOT_MODIFIED: Final = 304
_LEAST_BETWEEN: Final = 1.0
"""Seconds between two fetches that somebody waits for."""

T = TypeVar("T")


# -- fetching ----------------------------------------------------------------------------------------------------------


class Fetched(NamedTuple):
    """A document as it was fetched, and the mark by which it is known again."""

    content: bytes
    etag: str | None


class Fetch(Protocol):
    """Fetches a document. Called in a thread beside, or by who opens what was sealed for a newer one."""

    def __call__(self, etag: str | None) -> Fetched | None:
        """Return the document, or None where it still is the one of *etag*.

        Raises:
            OSError: It cannot be had now.
        """
        ...


class LocalFile:
    """Fetches a file of this machine."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)

    def __repr__(self) -> str:
        return f"<LocalFile {self._path}>"

    def __call__(self, etag: str | None) -> Fetched | None:
        """Read it, where it changed."""
        with self._path.open("rb") as file:
            status = os.fstat(file.fileno())
            mark = f"{status.st_mtime_ns}-{status.st_size}-{status.st_ino}"
            return None if mark == etag else Fetched(file.read(_MOST + 1), mark)


class _NoRedirect(HTTPRedirectHandler):
    """Follows none: credentials are for the address that was given."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        """Have it reported as an error."""


class HttpsFile:
    """Fetches a file over HTTPS, and asks whether it changed (``If-None-Match``). Follows no redirection.

    Args:
        url: ``https://...``.
        timeout: Seconds.
        headers: Further ones, for authorisation.
        context: ``ssl.SSLContext``, where the authorities are not the machine's.

    Raises:
        ConfigError: Another scheme.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout: float = 10.0,
        headers: Mapping[str, str] | None = None,
        context: Any = None,
    ) -> None:
        if not url.startswith("https://"):
            raise ConfigError(f"a directory is fetched over https: {url!r}")
        self._url, self._timeout, self._headers = url, timeout, dict(headers or {})
        self._opener = build_opener(HTTPSHandler(context=context), _NoRedirect)

    def __repr__(self) -> str:
        return f"<HttpsFile {self._url}>"

    def __call__(self, etag: str | None) -> Fetched | None:
        """Fetch it, where it changed."""
        known = {} if etag is None else {"If-None-Match": etag}
        request = Request(self._url, headers={**self._headers, **known})  # noqa: S310 - https alone, above
        try:
            with self._opener.open(request, timeout=self._timeout) as answer:
                return Fetched(answer.read(_MOST + 1), answer.headers.get("ETag"))
        except HTTPError as error:
            with error:
                if error.code == _NOT_MODIFIED and etag is not None:
                    return None
                raise OSError(f"{self._url} answered {error.code}") from None


# -- signing and verifying ---------------------------------------------------------------------------------------------


def issue(
    document: Mapping[str, Any],
    *,
    destination: str,
    issuer: str,
    key: SigningKey,
    expires_at: datetime | None = None,
) -> bytes:
    """Sign *document*.

    Args:
        document: With its ``version``, a whole number that grows with each change.
        destination: ``directory:NAME`` or ``group:NAME``.
        issuer: The sender whose key it is.
        key: Signs: Ed25519, ES256, or one in a key service. No HMAC: whoever could verify could also issue.
        expires_at: It is refused from then on.

    Returns:
        An envelope under *integrity*.
    """
    _check_version(document)
    policy = _policy(destination, [issuer])
    sealer = Sealer(sender=issuer, policies=[policy], signers={"issuers": _signatures_alone(KeyRing([key]))})
    body = json.dumps(document, sort_keys=True, indent=1).encode()
    return sealer.seal(body, destination=destination, content_type="application/json", expires_at=expires_at)


def verify(envelope: bytes, *, destination: str, issuers: KeyRing) -> dict[str, Any]:
    """Return the document of *envelope*, once it is seen that one of *issuers* signed it, and who: ``issued_by``.

    Raises:
        Refused: It is not, has expired, or is of another name.
    """
    ring = _signatures_alone(issuers)
    names = sorted({name for key in ring for name in key.senders or ()})
    sealer = Sealer(sender="reader", policies=[_policy(destination, names)], signers={"issuers": ring})
    opened = sealer.open(envelope, destination=destination)
    try:
        document = json.loads(opened.body)
        _check_version(document)
    except (ValueError, RecursionError):
        raise Refused(Verdict.MALFORMED, "it is no document", destination=destination) from None
    return {**document, "issued_by": opened.sender}


def _policy(destination: str, issuers: Iterable[str]) -> Policy:
    return Policy(
        name="directory",
        destinations=[destination],
        protection="integrity",
        sign="issuers",
        senders=tuple(issuers),
    )


def _signatures_alone(ring: KeyRing) -> KeyRing:
    if any(key.origin is not Origin.SENDER for key in ring):
        raise ConfigError("a directory is signed with Ed25519 or ES256: who can verify an HMAC can forge it")
    return ring


def _check_version(document: Any) -> int:
    version = document.get("version") if isinstance(document, Mapping) else None
    if type(version) is not int or version < 1:
        raise ConfigError(f"a document needs a version, a whole number of 1 or more: {version!r}")
    return version


# -- keeping it fresh --------------------------------------------------------------------------------------------------


def _in_thread(job: Callable[[], None]) -> None:
    threading.Thread(target=job, name="postseal-directory", daemon=True).start()


class Published(Generic[T]):
    """A document, verified, parsed and kept fresh.

    Args:
        fetch: `LocalFile`, `HttpsFile`, or a function of yours.
        destination: ``directory:NAME`` or ``group:NAME``.
        issuers: Public keys of who may issue it. None only for a `LocalFile`, which is then TOML or JSON, and believed as it lies there.
        parse: Makes of the document what is kept; raises `ConfigError`.
        at_least: The lowest version that is taken: an older one, though signed, is refused. Within a process it only grows.
        refresh: Seconds after which a thread looks again.
        max_stale: Seconds for which what was last seen to be current goes on.
        run: Runs a job beside.

    Raises:
        ConfigError: What is there at first is refused.
        KeyUnavailable: There is nothing at first.
    """

    def __init__(
        self,
        fetch: Fetch,
        *,
        destination: str,
        issuers: KeyRing | None,
        parse: Callable[[Mapping[str, Any]], T],
        at_least: int = 1,
        refresh: float = 300.0,
        max_stale: float = 86_400.0,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        run: Callable[[Callable[[], None]], object] = _in_thread,
    ) -> None:
        if issuers is None and not isinstance(fetch, LocalFile):
            raise ConfigError(
                "a directory from elsewhere needs issuers, who sign it: its host is not trusted"
            )
        if issuers is not None:
            _signatures_alone(issuers)
        self._fetch, self._destination, self._issuers, self._parse = fetch, destination, issuers, parse
        self._refresh, self._max_stale = refresh, max_stale
        self._monotonic, self._sleep, self._run = monotonic, sleep, run
        self._lock = ForkSafeLock()
        self._etag: str | None = None
        self._version = at_least
        self._begun = float("-inf")
        self._beside = 0
        self._seen = self._due = 0.0
        self._value: T
        try:
            self._look()
        except Refused as refused:
            raise ConfigError(f"{self}: {refused.verdict.value}: {refused.detail}") from None
        except OSError as error:
            raise KeyUnavailable(f"{self} cannot be had: {type(error).__name__}") from None

    def __repr__(self) -> str:
        return f"<{self._destination} from {self._fetch!r}>"

    @property
    def version(self) -> int:
        """Of the document that is kept."""
        return self._version

    def current(self) -> T:
        """Return what is kept; have it looked after beside, where it is time to. Waits for nothing.

        Raises:
            KeyUnavailable: It was last seen to be current longer than `max_stale` ago.
        """
        now = self._monotonic()
        if now >= self._due and self._beside != os.getpid():
            self._beside = os.getpid()  # a forked child has not its parent's thread
            self._run(self._look_beside)
        if now - self._seen > self._max_stale:
            raise KeyUnavailable(f"{self} could not be refreshed for {self._max_stale:g} seconds")
        return self._value

    def renewed(self) -> T:
        """Return what is there now: fetched after this call began, at most once a second however many ask.

        Raises:
            KeyUnavailable: It cannot be had, or is refused.
        """
        arrived = self._monotonic()
        with self._lock:
            if self._begun <= arrived:
                wait = self._begun + _LEAST_BETWEEN - self._monotonic()
                if wait > 0:
                    self._sleep(wait)
                try:
                    self._look_locked()
                except (OSError, Refused, ConfigError) as error:
                    raise KeyUnavailable(f"{self} cannot be renewed: {type(error).__name__}") from None
            return self._value

    def _look_beside(self) -> None:
        try:
            self._look()
        except (OSError, Refused, ConfigError) as error:
            # The text of an answer is somebody else's: the kind will do.
            _log.warning("%r was not refreshed: %s", self, type(error).__name__)
        finally:
            # Soon again after a failure, but not at once.
            self._due = max(self._due, self._monotonic() + min(self._refresh, 30.0))
            self._beside = 0

    def _look(self) -> None:
        with self._lock:
            self._look_locked()

    def _look_locked(self) -> None:
        self._begun = now = self._monotonic()
        fetched = self._fetch(self._etag)
        if fetched is not None:
            self._take(fetched)
        self._seen = now
        self._due = now + self._refresh

    def _take(self, fetched: Fetched) -> None:
        if len(fetched.content) > _MOST:
            raise Refused(Verdict.MALFORMED, f"over {_MOST} bytes")
        if self._issuers is None:
            document: Mapping[str, Any] = _plain(fetched.content)
        else:
            document = verify(fetched.content, destination=self._destination, issuers=self._issuers)
        version = _check_version(document)
        if version < self._version:
            raise Refused(Verdict.STALE, f"version {version}, where {self._version} was seen already")
        self._value = self._parse(document)
        self._version, self._etag = version, fetched.etag


def _plain(content: bytes) -> Mapping[str, Any]:
    try:
        text = content.decode()
        document = json.loads(text) if text.lstrip().startswith("{") else tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"the directory is neither JSON nor TOML ({type(error).__name__})") from None
    if not isinstance(document, dict):
        raise ConfigError("the directory is no table")
    return document


# -- the directory -----------------------------------------------------------------------------------------------------


class Directory:
    """Says for whom to wrap, by name: a source for `PublicKeyRecipients`.

    The document::

        version = 7                       # grows with each change

        [[recipient]]
        name = "warehouse"
        version = 2                       # of this key, for people
        state = "active"                  # wraps; pending and retired do not
        public_key = '''-----BEGIN PUBLIC KEY-----...'''      # or a certificate, with those towards a root

    Args:
        fetch: Where it is.
        name: Of the directory; it is signed for ``directory:NAME``.
        issuers: Who may sign it; None for a local file that is believed.
        recipients: The names to wrap for. All active keys of each.
        roots: Authorities, in PEM, that must vouch for certificates.
        **options: As for `Published`: ``at_least``, ``refresh``, ``max_stale``.

    Raises:
        ConfigError: The document is refused, or has not those names.
        KeyUnavailable: It cannot be had.
    """

    def __init__(
        self,
        fetch: Fetch,
        *,
        name: str,
        issuers: KeyRing | None,
        recipients: Iterable[str],
        roots: bytes | str | None = None,
        clock: Callable[[], float] = time.time,
        **options: Any,
    ) -> None:
        if isinstance(recipients, str):
            raise ConfigError(f"recipients must be a list of names, not one text: [{recipients!r}]")
        self._names = tuple(recipients)
        self._roots, self._clock = roots, clock
        self._published = Published(
            fetch, destination=f"directory:{name}", issuers=issuers, parse=self._parsed, **options
        )

    def __repr__(self) -> str:
        return f"<Directory {self._published!r}>"

    @property
    def version(self) -> int:
        """Of the document that is kept."""
        return self._published.version

    def recipients(self, context: KeyContext) -> Sequence[RecipientKey]:  # noqa: ARG002 - the same for all
        """Return the active keys of the names to wrap for."""
        return self._published.current()

    def _parsed(self, document: Mapping[str, Any]) -> tuple[RecipientKey, ...]:
        entries = document.get("recipient", [])
        keys: dict[str, list[RecipientKey]] = {name: [] for name in self._names}
        known: set[str] = set()
        try:
            for entry in entries:
                name, state = str(entry["name"]), entry.get("state", "active")
                known.add(name)
                if state not in _STATES:
                    raise ConfigError(f"state of {name!r} is {state!r}{nearest(str(state), _STATES)}")
                if name in keys and state == "active":
                    keys[name].append(self._key(entry["public_key"], name))
        except (KeyError, TypeError, AttributeError):
            raise ConfigError("an entry of the directory lacks its name or its public_key") from None
        for name, found in keys.items():
            if not found:
                raise ConfigError(f"the directory has no active key of {name!r}{nearest(name, known)}")
        return tuple(key for found in keys.values() for key in found)

    def _key(self, pem: str, name: str) -> RecipientKey:
        roots = self._roots if "BEGIN CERTIFICATE" in pem else None
        if self._roots is not None and roots is None:
            raise ConfigError(f"{name!r} has a bare key, where a certificate must lead to a root")
        return RecipientKey.from_pem(pem, roots=roots, name=name, clock=self._clock)
