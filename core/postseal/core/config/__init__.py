"""The policy file: TOML that says what must be done for which destination, with which keys, signed by whom.

`PolicyFile.read` checks a file: all that is wrong in it is said at once, each with its line, before anything is sent. `PolicyFile.resolve`
fetches the secrets that it refers to and makes key providers and key rings: what a `Sealer` is made of. `Sealer.from_file` does both.

Nothing here is loaded by who makes a sealer from objects. The standard library reads the file.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from postseal.core.config._keys import OF_OTHERS, Made
from postseal.core.config._ledger import check_ledger
from postseal.core.config._making import Maker, Settings
from postseal.core.config._parsing import parse
from postseal.core.config._policies import build, check_direct, check_together
from postseal.core.config._report import At, Report
from postseal.core.config._schema import policy_schema
from postseal.core.config._secrets import SecretRef, Secrets, read_file
from postseal.core.config._sections import FILE
from postseal.core.config._source import PolicySource, Reload, Watch, compared
from postseal.core.errors import ConfigError, Mistake, nearest
from postseal.core.keys import KeyProvider
from postseal.core.policy import Policy
from postseal.core.signing import KeyRing

__all__ = ["Made", "PolicyFile", "PolicySource", "Reload", "Settings", "Watch", "compared", "policy_schema"]


class PolicyFile:
    """A policy file without mistakes.

    Attributes:
        path: Where it is.
        content: Its bytes.
        policies: In the order of the file.
        lines: Line of each policy, by its name.
        options: All that it says, as it was read: secrets as references.
        warnings: What is no mistake, and yet hardly meant.
    """

    def __init__(
        self,
        path: Path,
        content: bytes,
        policies: tuple[Policy, ...],
        options: Mapping[str, Any],
        report: Report,
    ) -> None:
        self.path = path
        self.content = content
        self.policies = policies
        self.options = options
        self._report = report

    @classmethod
    def read(
        cls,
        path: str | os.PathLike[str],
        *,
        keys: Iterable[str] = (),
        signers: Iterable[str] = (),
        now: datetime | None = None,
    ) -> PolicyFile:
        """Read and check the file at *path*. Fetches no secret, asks nobody.

        Args:
            path: Of the file.
            keys: Names of key providers that the program hands in; policies may use them without a section.
            signers: Names of key rings, likewise.
            now: Dates before it are past.

        Raises:
            PolicyFileError: There are mistakes; all of them.
            ConfigError: There is no such file.
        """
        file = Path(path)
        content = read_file(file)
        report, raw = parse(content, str(path))
        at = At(report)
        options = FILE.read(raw, at) or {}
        moment = now or datetime.now(UTC)
        tables = [] if "policy" not in options else list(options["policy"].placed())
        built = [
            build(read, at / "policy" / index, raw["policy"][index], now=moment) for index, read in tables
        ]
        # Also those that were read as wrong are there.
        key_names = {*_names(raw, "keys"), *keys}
        signer_names = {*_names(raw, "signers"), *signers}
        check_together(
            [(at / "policy" / index, read) for index, read in tables],
            key_names,
            signer_names,
            at,
            _parts(options),
        )
        check_direct([(at / "policy" / index, read) for index, read in tables], options.get("keys", {}))
        if "ledger" in options or "ledger" not in raw:  # else what is wrong with it was told
            check_ledger([(at / "policy" / index, read) for index, read in tables], options.get("ledger"))
        _check_combined(options.get("keys", {}), key_names, at / "keys")
        _check_shared(options.get("keys", {}), at / "keys")
        report.finish()
        policies = tuple(policy for policy in built if policy is not None)
        return cls(file, content, policies, {"keys": {}, "signers": {}, **options}, report)

    @property
    def warnings(self) -> tuple[Mistake, ...]:
        """What is no mistake, and yet hardly meant, by line."""
        return self._report.warnings

    @property
    def lines(self) -> dict[str, int]:
        """The line where each policy begins, by its name."""
        return {
            policy.name: self._report.line(("policy", index)) for index, policy in enumerate(self.policies)
        }

    def resolve(
        self,
        *,
        sender: str | None = None,
        keys: Mapping[str, KeyProvider] | None = None,
        signers: Mapping[str, KeyRing] | None = None,
        environ: Mapping[str, str] = os.environ,
        fetch: Callable[[SecretRef], str | bytes] | None = None,
        before: Settings | None = None,
        verify_only: bool = False,
    ) -> Settings:
        """Fetch what the file refers to, and make what a sealer is made of.

        Args:
            sender: Who we are, where the program says it.
            keys: Key providers by name, in the place of the file's.
            signers: Key rings by name, likewise.
            environ: The environment.
            fetch: Gets secrets of AWS Secrets Manager and Azure Key Vault; for tests.
            before: What was made of the file as it was before; taken over where it is still the same.
            verify_only: Whether no key providers are to be made.

        Raises:
            PolicyFileError: Something that it refers to is missing or not as it should be; all that is.
            MissingExtraError: A library is not installed that a key service needs.
        """
        secrets = Secrets(self.path.parent, environ, fetch)
        made = {} if before is None else before.made
        maker = Maker(At(self._report), secrets, keys or {}, signers or {}, made)
        settings = maker.make(self.options, self.policies, sender, opens=not verify_only)
        self._report.finish()
        return settings

    def providers(
        self,
        names: Iterable[str],
        *,
        environ: Mapping[str, str] = os.environ,
        fetch: Callable[[SecretRef], str | bytes] | None = None,
    ) -> dict[str, KeyProvider]:
        """Make the key providers of these *names*, whether or not a policy uses them.

        Raises:
            ConfigError: The file has no such keys.
            PolicyFileError: Something that they refer to is missing or not as it should be.
            MissingExtraError: A library is not installed that a key service needs.
        """
        known = self.options["keys"]
        for name in names:
            if name not in known:
                raise ConfigError(f"{str(self.path)!r} has no [keys.{name}]{nearest(name, known)}")
        maker = Maker(At(self._report), Secrets(self.path.parent, environ, fetch), {}, {}, {})
        made = maker.providers(names, self.options)
        self._report.finish()
        return made


def _names(raw: Mapping[str, Any], section: str) -> set[str]:
    """Return the names of tables in *section*, and in what is misspelt for it: that was told, and what follows from it need not be."""
    tables = [raw[name] for name in raw if name == section or name not in FILE.options]
    return {name for table in tables if isinstance(table, dict) for name in table}


def _parts(options: Mapping[str, Any]) -> set[str]:
    """Return the names of key providers that others are combined of."""
    sections = options.get("keys", {}).values()
    return {part for each in sections if each.get("provider") in OF_OTHERS for part in each.get("keys", ())}


def _check_combined(keys: Mapping[str, Any], known: set[str], at: At) -> None:
    """See that combined keys name others that there are, and none itself by a detour."""
    parts = {
        name: options.get("keys", ())
        for name, options in keys.items()
        if options.get("provider") in OF_OTHERS
    }
    for name, names in parts.items():
        for index, part in names.placed() if names else ():
            place = at / name / "keys" / index
            if part not in known:
                place.wrong(
                    f"keys.{name} combines {part!r}, which [keys] has not{nearest(part, known - {name})}"
                )
            elif _reaches(parts, part, name):
                place.wrong(f"keys.{name} combines {part!r}, which leads back to {name!r}")
            elif keys[name]["provider"] == "branch" and "public-key" in keys.get(part, {}).get(
                "provider", ""
            ):
                place.wrong(
                    f"keys.{name} has its branch key wrapped for {part!r}, and anybody can wrap for a public key: who writes to the store "
                    "could put a key of his own there"
                )


def _check_shared(keys: Mapping[str, Any], at: At) -> None:
    """See that keys that share a quota say the same of it."""
    first: dict[str, tuple[str, Mapping[str, Any]]] = {}
    for name, options in keys.items():
        limit = options.get("limit", {})
        if "shared" in limit:
            other, said = first.setdefault(limit["shared"], (name, limit))
            if said != limit:
                (at / name / "limit").wrong(
                    f"keys.{name} and keys.{other} share the quota {limit['shared']!r}, and say different things of it"
                )


def _reaches(parts: Mapping[str, Any], start: str, end: str) -> bool:
    """Tell whether *end* is *start* or one of what that combines."""
    seen: set[str] = set()
    left = [start]
    while left:
        name = left.pop()
        if name == end:
            return True
        if name not in seen:
            seen.add(name)
            left += parts.get(name, ())
    return False
