"""From a policy file without mistakes to what a `Sealer` is made of: secrets fetched, key providers and key rings made.

What has not changed since the last time is taken over as it is, so that a file that is read again costs no call to a key service.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

from postseal.core.audit import AuditSink
from postseal.core.config._audit import alarm_of, file_of, flood_of, syslog_of
from postseal.core.config._keys import GIVEN, OF_OTHERS, PROVIDERS, RESILIENCE, Material, made_resilient
from postseal.core.config._kinds import FileRef, PathRef
from postseal.core.config._ledger import ledger_of
from postseal.core.config._references import store_of
from postseal.core.config._report import At
from postseal.core.config._secrets import SecretRef, Secrets
from postseal.core.config._signers import ALGORITHMS
from postseal.core.errors import ConfigError
from postseal.core.keys import KeyProvider, ReferenceStore
from postseal.core.policy import Policy
from postseal.core.signing import KeyRing, deduplication_key

if TYPE_CHECKING:
    from postseal.core.replay import Ledger
    from postseal.core.resilience import Limiter

__all__ = ["Maker", "Settings"]

_T = TypeVar("_T")


class Settings(NamedTuple):
    """What a sealer is made of, and what it was made from.

    Attributes:
        arguments: Of `Sealer`, by name.
        files: Those that were read besides the policy file: secrets, certificates.
        made: Key providers and rings, by the digest of all that they were made from.
    """

    arguments: Mapping[str, Any]
    files: frozenset[Path]
    made: Mapping[str, Any]

    def __repr__(self) -> str:
        return f"<Settings of {self.arguments['sender']!r}>"


class Maker:
    """Makes what the options of one file say.

    Args:
        at: The top of the file; told of all that goes wrong.
        secrets: Gets secrets.
        keys: Key providers that the program hands in, by name. They go before those of the file.
        signers: Key rings likewise.
        before: What was made the last time.
    """

    def __init__(
        self,
        at: At,
        secrets: Secrets,
        keys: Mapping[str, KeyProvider],
        signers: Mapping[str, KeyRing],
        before: Mapping[str, Any],
    ) -> None:
        self._at = at
        self._secrets = secrets
        self._given_keys = keys
        self._given_signers = signers
        self._before = before
        self._made: dict[str, Any] = {}
        self._digests: dict[str, str | None] = {}
        self._providers: dict[str, KeyProvider | None] = {}

    def make(
        self, options: Mapping[str, Any], policies: tuple[Policy, ...], sender: str | None, *, opens: bool
    ) -> Settings:
        """Make everything that policies use.

        Args:
            options: Of the file.
            policies: Of the file.
            sender: What the program says; None for what the file does.
            opens: Whether it is to have key providers.
        """
        who = sender if sender is not None else self._sender(options.get("sender"))
        keys: dict[str, KeyProvider] = dict(self._given_keys)
        signers: dict[str, KeyRing] = dict(self._given_signers)
        for name in dict.fromkeys(name for policy in policies for name in policy.keys if opens):
            if (provider := self._provider(name, options)) is not None:
                keys[name] = provider
        for name in dict.fromkeys(policy.sign for policy in policies if policy.sign is not None):
            if name not in signers and (ring := self._ring(name, options["signers"][name], who)) is not None:
                signers[name] = ring
        arguments: dict[str, Any] = {
            "sender": who,
            "policies": policies,
            "keys": keys,
            "signers": signers,
        }
        if (ref := options.get("deduplication_secret")) is not None:
            arguments["deduplication_secret"] = self._deduplication(ref)
        if (section := options.get("references")) is not None:
            arguments["references"] = self._references(section)
        arguments |= self._audit(options.get("audit", {}))
        if (limits := options.get("alarm")) is not None:
            arguments["alarm"] = self._tried(self._at / "alarm", lambda: alarm_of(limits))
        if (section := options.get("ledger")) is not None and (ledger := self._ledger(section)) is not None:
            arguments["ledger"] = ledger
        return Settings(arguments, frozenset(self._secrets.files), self._made)

    def _sender(self, said: str | SecretRef | None) -> str | None:
        if said is None:
            self._at.wrong("the file has no sender, and the program names none: who are we?", key=True)
            return None
        if isinstance(said, str):
            return said
        return self._tried(self._at / "sender", lambda: self._secrets.content(said).decode())

    def _deduplication(self, ref: SecretRef) -> bytes | None:
        def get() -> bytes:
            secret = self._secrets.binary(ref)
            deduplication_key(secret, "")  # complains, if it must
            return secret

        return self._tried(self._at / "deduplication_secret", get)

    def _references(self, section: Mapping[str, Any]) -> ReferenceStore | None:
        found = dict(section)
        if "path" in found:
            found["path"] = self._secrets.path(found["path"].name)
        at = self._at / "references"
        return self._same_or(self._digest(found, ["references"]), at, lambda: store_of(found))

    # -- the audit -----------------------------------------------------------------------------------------------------

    def _audit(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Make what *options* of [audit] say, as arguments of `Sealer`."""
        arguments: dict[str, Any] = {}
        if (log := options.get("log")) is not None:
            arguments["audit_log"] = self._tried(self._at / "audit" / "log", lambda: flood_of(log))
        sinks: list[AuditSink] = []
        for name, make in (("file", self._audit_file), ("syslog", syslog_of)):
            if (section := options.get(name)) is None:
                continue
            at = self._at / "audit" / name
            if (found := self._found(section, at)) is None:
                continue
            sink = self._same_or(self._digest(found, ["audit", name]), at, lambda m=make, f=found: m(f))  # type: ignore[misc] # as below
            if sink is not None:
                sinks.append(sink)
        if sinks:
            arguments["audit"] = tuple(sinks)
        return arguments

    def _found(self, section: Mapping[str, Any], at: At) -> dict[str, Any] | None:
        """Return *section* with its secret and its path; what it writes is not read."""
        found = self._material({k: v for k, v in section.items() if k != "path"}, at, frozenset({"secret"}))
        if found is not None and (path := section.get("path")) is not None:
            found["path"] = self._secrets.path(path.name)
        return found

    def _ledger(self, section: Mapping[str, Any]) -> Ledger | None:
        at = self._at / "ledger"
        # Only what holds a password is fetched; a path is written to, and not read.
        bare = {option: value for option, value in section.items() if option != "path"}
        if (found := self._material(bare, at, frozenset())) is None:
            return None
        path = None if "path" not in section else self._secrets.path(section["path"].name)
        digest = self._digest({**found, "path": str(path)}, ["ledger"])
        return self._same_or(digest, at, lambda: ledger_of(found, path))

    @staticmethod
    def _audit_file(found: Mapping[str, Any]) -> AuditSink:
        return file_of(found, found["path"])

    # -- keys ----------------------------------------------------------------------------------------------------------

    def providers(self, names: Iterable[str], options: Mapping[str, Any]) -> dict[str, KeyProvider]:
        """Make the key providers of these *names*."""
        made = {name: self._provider(name, options) for name in names}
        return {name: provider for name, provider in made.items() if provider is not None}

    def _provider(self, name: str, options: Mapping[str, Any]) -> KeyProvider | None:
        if name not in self._providers:
            given = self._given_keys.get(name)
            self._providers[name] = (
                self._make_provider(name, options) if given is None else self._as_said(name, given, options)
            )
        return self._providers[name]

    def _as_said(self, name: str, given: KeyProvider, options: Mapping[str, Any]) -> KeyProvider | None:
        """Return what the program hands in, with what the file says that is to be around it."""
        section = options["keys"].get(name, {})
        if section.get("provider") != GIVEN or not RESILIENCE & section.keys():
            return given
        digest = self._digests[name] = self._digest(section, ["given", name, str(id(given))])
        return self._same_or(digest, self._at / "keys" / name, lambda: self._resilient(name, given, section))

    def _resilient(self, name: str, provider: KeyProvider, section: Mapping[str, Any]) -> KeyProvider:
        return made_resilient(name, provider, section, self._limiter(name, section.get("limit")))

    def _limiter(self, name: str, limit: Mapping[str, Any] | None) -> Limiter | None:
        """Return the limiter of that section, which others may share."""
        if limit is None:
            return None
        from postseal.core.resilience import Limiter  # noqa: PLC0415 - for who wants it

        more = {option: value for option, value in limit.items() if option != "shared"}
        shared = ["shared", limit["shared"]] if "shared" in limit else ["of", name]
        at = self._at / "keys" / name / "limit"
        return self._same_or(self._digest(more, ["limiter", *shared]), at, lambda: Limiter(**more))

    def _make_provider(self, name: str, options: Mapping[str, Any]) -> KeyProvider | None:
        section, at = options["keys"][name], self._at / "keys" / name
        kind = PROVIDERS[section["provider"]]
        names = section.get("keys", ()) if section["provider"] in OF_OTHERS else ()
        parts = [self._provider(part, options) for part in names]
        found = self._material(section, at, kind.binary)
        if found is None or None in parts:
            return None
        # Who tells of itself does so by its name: two that say the same are two.
        own = [name] if {*RESILIENCE, "hedge"} & section.keys() else []
        digest = self._digest(
            found, ["key", *own, *(self._digests.get(part) or f"given {part}" for part in names)]
        )
        self._digests[name] = digest
        whole = [part for part in parts if part is not None]
        if section["provider"] == GIVEN:
            self._tried(at / "provider", lambda: kind.make(Material(found)))
            return None
        return self._same_or(
            digest, at, lambda: self._resilient(name, kind.make(Material(found, whole, name)), found)
        )

    # -- signers -------------------------------------------------------------------------------------------------------

    def _ring(self, name: str, section: Mapping[str, Any], sender: str | None) -> KeyRing | None:
        at = self._at / "signers" / name
        algorithm = ALGORITHMS[section["algorithm"]]
        materials = [
            (at / "keys" / index, self._material(key, at / "keys" / index, algorithm.binary))
            for index, key in section["keys"].placed()
        ]
        found = [(place, material) for place, material in materials if material is not None]
        if len(found) != len(materials):
            return None
        digest = self._digest(
            [material for _, material in found], ["ring", section["algorithm"], repr(sender)]
        )
        if (same := self._known(digest)) is not None:
            return cast("KeyRing", same)  # and no key is made anew, with a client of its own
        keys = [self._tried(place, lambda m=material: algorithm.make(m, sender)) for place, material in found]  # type: ignore[misc] # mypy cannot infer the type of a lambda with a default
        if None in keys:
            return None
        return self._same_or(digest, at, lambda: KeyRing(key for key in keys if key is not None))

    # -- what both refer to --------------------------------------------------------------------------------------------

    def _material(self, options: Mapping[str, Any], at: At, binary: frozenset[str]) -> dict[str, Any] | None:
        """Return *options* with what references refer to in their place; None where something is missing, which was told."""
        found: dict[str, Any] = {}
        for option, value in options.items():
            got = value
            if isinstance(value, SecretRef):
                get = self._secrets.binary if option in binary else self._secrets.content
                got = self._tried(at / option, lambda g=get, v=value: g(v))  # type: ignore[misc] # as above
            elif isinstance(value, Mapping):
                got = self._material(value, at / option, binary)
            elif isinstance(value, list) and any(isinstance(each, PathRef) for each in value):
                got = [self._secrets.path(each.name) if isinstance(each, PathRef) else each for each in value]
            elif isinstance(value, PathRef):
                got = self._secrets.path(value.name)
            elif isinstance(value, FileRef):
                got = self._tried(at / option, lambda v=value: self._file(v))  # type: ignore[misc] # as above
            if got is not None:
                found[option] = got
        return found if len(found) == len(options) else None

    def _file(self, ref: FileRef) -> FileContent:
        return FileContent(self._secrets.path(ref.name), self._secrets.file(ref.name))

    @staticmethod
    def _digest(material: object, what: list[str]) -> str:
        """Return what two sections have in common only where they say the same and refer to the same."""
        digest = sha256()
        for part in (*what, *_flat(material)):
            content = part if isinstance(part, bytes) else repr(part).encode()
            digest.update(len(content).to_bytes(8, "big") + content)
        return digest.hexdigest()

    def _same_or(self, digest: str, at: At, make: Callable[[], _T]) -> _T | None:
        """Return what was made of the same the last time, or make it."""
        found: _T | None = self._known(digest)
        if found is None and (found := self._tried(at, make)) is not None:
            self._made[digest] = found
        return found

    def _known(self, digest: str) -> Any:
        """Return what was made of the same before, and go on to keep it; None where nothing was."""
        found = self._made.get(digest, self._before.get(digest))
        if found is not None:
            self._made[digest] = found
        return found

    @staticmethod
    def _tried(at: At, get: Callable[[], _T]) -> _T | None:
        try:
            return get()
        except ConfigError as error:
            at.wrong(f"{'.'.join(map(str, at.path))}: {error}")
        except UnicodeDecodeError:
            at.wrong(f"{'.'.join(map(str, at.path))}: no UTF-8")
        return None


class FileContent(NamedTuple):
    """A file that a section refers to, and what is in it."""

    path: Path
    content: bytes

    def __fspath__(self) -> str:
        return os.fspath(self.path)

    def __str__(self) -> str:
        return str(self.path)


def _flat(material: object) -> Iterator[object]:
    """Yield all that *material* holds, in a fixed order."""
    if isinstance(material, Mapping):
        for name in sorted(material):
            yield name
            yield from _flat(material[name])
    elif isinstance(material, (list, tuple)):
        yield len(material)
        for each in material:
            yield from _flat(each)
    else:
        yield material
