"""How what a policy file names really is: its keys, rights, clocks, secrets, files. `postseal doctor` is its face.

It asks the real services, as this process would: data keys are made and unwrapped, a message is sealed and opened, nothing is sent.

Source: docs/doctor.md.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, Final, Literal, NamedTuple

from postseal.core import crypto
from postseal.core.audit import AuditSink
from postseal.core.config import Made, PolicyFile, Settings
from postseal.core.errors import (
    ConfigError,
    KeyBroken,
    KeyRefused,
    KeyUnavailable,
    LedgerUnavailable,
    MissingExtraError,
    NotMine,
    PolicyFileError,
    PostsealError,
    Refused,
)
from postseal.core.findings import Examined, Finding, bad, ends_of, good, room_at, warning
from postseal.core.keys import KeyContext, KeyProvider, Recipient
from postseal.core.policy import Policy
from postseal.core.providers.branch import BranchKeys
from postseal.core.providers.combined import CombinedKeys
from postseal.core.resilience import Around
from postseal.core.sealer import Sealer
from postseal.core.signing import KeyRing

__all__ = ["Role", "examine"]

Role = Literal["both", "producer", "consumer"]
_SLOW: Final = 1.0
"""Seconds for a call that are too many: messages wait for it."""
_DENIED: Final = {
    "generate": "give this process the right to make data keys, if the key itself is well",
    "wrap": "give this process the right to encrypt with it: it is not its policy's first, so it wraps; if the key itself is well",
    "message": "give this process the right that it names, if the key itself is well",
    "unwrap": "give this process the right to decrypt, if the key itself is well",
}
_AWAY: Final = "look at network, credentials, and the service's own status"


def examine(
    path: str | os.PathLike[str],
    *,
    role: Role = "both",
    policies: Iterable[str] = (),
    ledger: Callable[[], Examined] | None = None,
    keys: Mapping[str, KeyProvider] | None = None,
    signers: Mapping[str, KeyRing] | None = None,
    environ: Mapping[str, str] = os.environ,
    clock: Callable[[], float] = time.time,
    doing: Callable[[str], None] = lambda _: None,
) -> Iterator[Finding]:
    """Look at all that the policy file at *path* names, and yield what is found, as it is found.

    Args:
        path: Of the file.
        role: What this process is to do: what it need not do is not asked for.
        policies: Names of those to try; all by default.
        ledger: Makes the ledger of settled messages, in the place of the file's.
        keys: Key providers that the program hands in.
        signers: Key rings, likewise.
        environ: The environment.
        clock: Seconds since the epoch.
        doing: Told what is looked at next.

    Raises:
        ConfigError: There is no such file.
    """
    doing(f"reading {path}")
    given, rings = dict(keys or {}), dict(signers or {})
    try:
        file = PolicyFile.read(path, keys=given, signers=rings)
        for found in file.warnings:
            yield Finding("warning", f"{found.file}:{found.line}", found.text, "mend it, if it is not meant")
        doing("fetching secrets")
        settings = file.resolve(keys=given, signers=rings, environ=environ)
    except PolicyFileError as error:
        for mistake in error.mistakes:
            yield Finding(
                "bad", f"{mistake.file}:{mistake.line}", mistake.text, "mend the file, or what it refers to"
            )
        return
    except MissingExtraError as error:
        yield Finding("bad", str(path), str(error), "install it")
        return
    except LedgerUnavailable as error:
        yield Finding("bad", "ledger", str(error), "mend its path, its address, or its server")
        return
    yield Finding(
        "good", str(path), f"no mistake, and all that it refers to is there ({len(settings.files)} files)"
    )
    wanted = set(policies) or {policy.name for policy in file.policies}
    chosen = [policy for policy in file.policies if policy.name in wanted and policy.mode != "off"]
    yield from _Examination(settings, chosen, role, clock, doing).run()
    named = settings.arguments.get("ledger")
    if ledger is None and isinstance(named, Examined):
        ledger = partial(_itself, named)
    if ledger is not None:
        doing("the ledger")
        yield from _of("ledger", _made(ledger))


def _itself(ledger: Examined) -> Examined:
    return ledger


def _made(ledger: Callable[[], Examined]) -> Iterator[Finding]:
    try:
        made = ledger()
    except PostsealError as error:
        yield bad(str(error), "mend the path or the address")
        return
    yield from made.examine()


def _of(what: str, found: Iterable[Finding]) -> Iterator[Finding]:
    """Say of findings what they are of. Whatever else goes wrong is one more: an examination ends for no reason."""
    try:
        for each in found:
            yield each._replace(what=what)
    except Exception as error:  # noqa: BLE001 - of an error that nobody expected its kind alone is shown: a text may quote anything
        yield Finding(
            "bad", what, f"could not be looked at: {type(error).__name__}", "look at it by hand, and tell us"
        )


class _Unit(NamedTuple):
    """A key provider that wraps alone: one of a policy's keys, or a part of it."""

    name: str
    provider: KeyProvider
    makes: bool
    """Whether data keys are made by it; else it wraps what another made."""


class _Examination:
    """One examination of what a file was resolved to."""

    def __init__(
        self,
        settings: Settings,
        policies: list[Policy],
        role: Role,
        clock: Callable[[], float],
        doing: Callable[[str], None],
    ) -> None:
        self._arguments: Mapping[str, Any] = settings.arguments
        self._policies, self._role, self._clock, self._doing = policies, role, clock, doing
        self._keys: Mapping[str, KeyProvider] = settings.arguments["keys"]
        self._rings: Mapping[str, KeyRing] = settings.arguments["signers"]
        self._bound: set[int] = set()
        """Providers that were seen to keep contexts apart."""

    def run(self) -> Iterator[Finding]:
        """Look at keys, then signers, then whole messages, then where the audit goes."""
        for name in dict.fromkeys(name for policy in self._policies for name in policy.keys):
            yield from _of(f"keys.{name}", _together(self._keys[name]))
            for unit in _units(name, self._keys[name]):
                self._doing(f"keys.{unit.name}: its state")
                yield from _of(f"keys.{unit.name}", _states(unit.provider))
        for name in dict.fromkeys(policy.sign for policy in self._policies if policy.sign is not None):
            yield from _of(f"signers.{name}", self._ring(self._rings[name]))
        for policy in self._policies:
            well = True
            for finding in self._rights(policy):
                well = well and finding.grade != "bad"
                yield finding
            if well:
                self._doing(f"policy {policy.name}: a message")
                yield from _of(f"policy {policy.name}", self._message(policy))
        yield from self._audit()

    # -- rights ----------------------------------------------------------------------------------------------------

    def _rights(self, policy: Policy) -> Iterator[Finding]:
        if policy.direct:
            return  # it has no data key: a message shows what there is
        context = KeyContext(policy.name, _destination_of(policy))
        units = [unit for name in policy.keys for unit in _units(name, self._keys[name])]
        for index, unit in enumerate(units):
            what = f"keys.{unit.name}, policy {policy.name}"
            self._doing(f"{what}: a data key")
            yield from _of(what, self._right(unit._replace(makes=index == 0), context))

    def _right(self, unit: _Unit, context: KeyContext) -> Iterator[Finding]:
        """Make or wrap a data key and unwrap it, as producer and consumer of that policy would."""
        verb = "generate" if unit.makes else "wrap"
        begun = time.perf_counter()
        try:
            recipients = self._wrapped(unit, context)
        except PostsealError as error:
            if self._role == "consumer" and isinstance(error, KeyRefused):
                yield warning(
                    "whether it opens is not seen, as this process may not make data keys (which a consumer need not)",
                    "try the doctor where both may be done, or open a message",
                )
            else:
                yield _failed(verb, error)
            return
        took = time.perf_counter() - begun
        says = f"{'makes' if unit.makes else 'wraps'} a data key in {_ms(took)}"
        if self._role == "producer":
            yield good(says)
        else:
            begun = time.perf_counter()
            try:
                unit.provider.unwrap(recipients, context)
            except NotMine:
                yield good(f"{says}; opens nothing here: it has no private key")
                return
            except PostsealError as error:
                yield good(says)
                yield _failed("unwrap", error)
                return
            opened = time.perf_counter() - begun
            yield good(f"{says}, opens it in {_ms(opened)}")
            took = max(took, opened)
            yield from self._binding(unit, recipients, context)
        if took > _SLOW:
            yield warning(
                f"a call takes {took:.1f} s, for which messages wait",
                "take a nearer endpoint; docs/resilience.md: deadline, hedge",
            )

    @staticmethod
    def _wrapped(unit: _Unit, context: KeyContext) -> tuple[Recipient, ...]:
        if unit.makes:
            return unit.provider.generate(context).recipients
        return unit.provider.wrap(crypto.random_bytes(crypto.DATA_KEY_SIZE), context)

    def _binding(
        self, unit: _Unit, recipients: tuple[Recipient, ...], context: KeyContext
    ) -> Iterator[Finding]:
        """See once of each that what was wrapped for one destination does not open for another."""
        if id(unit.provider) in self._bound:
            return
        self._bound.add(id(unit.provider))
        try:
            unit.provider.unwrap(
                recipients, context._replace(destination=f"{context.destination}-of-another")
            )
        except (KeyBroken, KeyRefused, NotMine, KeyUnavailable):
            return
        yield bad(
            "it opens what was wrapped for another destination",
            "this key provider does not bind: do not use it",
        )

    # -- signers ---------------------------------------------------------------------------------------------------

    def _ring(self, ring: KeyRing) -> Iterator[Finding]:
        now = self._clock()
        if ring.active is not None:
            yield good(f"key {ring.active.id!r} signs")
        elif self._role == "consumer":
            yield good("it verifies")
        else:
            yield warning(
                "it signs nothing here: no active key has its private part",
                "give the producer the private part",
            )
        for key in ring:
            if isinstance(key, Examined):
                self._doing(f"key {key.id!r}: its state")
                yield from key.examine()
            if key.state == "pending":
                yield good(f"key {key.id!r} is pending: it verifies, and does not sign yet")
            if (
                key.state == "retired"
                and key.retired_until is not None
                and key.retired_until.timestamp() <= now
            ):
                yield warning(f"key {key.id!r} is retired, and verifies no more", "take it away")
            yield from ends_of(
                getattr(key, "good_until", None), f"the certificate of key {key.id!r}", now, "have it renewed"
            )

    # -- a message -------------------------------------------------------------------------------------------------

    def _message(self, policy: Policy) -> Iterator[Finding]:
        """Seal an empty message as *policy* says, and open it again from nothing that is at hand."""
        if self._role == "consumer":
            return
        ring = self._rings.get(policy.sign or "")
        if ring is not None and ring.active is None:
            return
        names = ("sender", "keys", "signers")
        sealer = Sealer(policies=[policy], **{name: self._arguments[name] for name in names})
        destination = _destination_of(policy)
        begun = time.perf_counter()
        try:
            sealed = sealer.seal(b"", destination=destination)
            sealer.close()
            if self._role == "both":
                sealer.open(sealed, destination=destination)
        except Refused as error:
            yield bad(
                f"what was sealed here is refused: {error.verdict.value}, {error.detail}", "mend the policy"
            )
        except KeyRefused as error:
            yield bad(
                f"no message is sealed and opened: {error}",
                _DENIED["message"],
            )
        except PostsealError as error:
            yield bad(f"no message is sealed and opened: {error}", "mend what it says")
        else:
            done = "is sealed and opened" if self._role == "both" else "is sealed"
            yield good(
                f"a message {done} in {_ms(time.perf_counter() - begun)}; {len(sealed):,} bytes are added to each"
            )
        finally:
            sealer.close()

    # -- the audit -------------------------------------------------------------------------------------------------

    def _audit(self) -> Iterator[Finding]:
        sinks: tuple[AuditSink, ...] = self._arguments.get("audit", ())
        for sink in sinks:
            self._doing(str(sink))
            yield from _of(str(sink), _sink(sink))
            sink.close()


def _sink(sink: Any) -> Iterator[Finding]:
    """Look at a sink. That a file can be written was seen when it was made."""
    if (path := getattr(sink, "path", None)) is not None:
        yield good("can be written")
        yield from room_at(str(path.absolute().parent))
    elif hasattr(sink, "reach"):
        try:
            sink.reach()
        except OSError as error:
            yield bad(
                f"takes no lines: {error.strerror or type(error).__name__}", "start it, or mend its address"
            )
        else:
            yield good("takes lines, as far as can be told")


def _units(name: str, provider: KeyProvider) -> Iterator[_Unit]:
    """Yield *provider*, or what it is combined of."""
    parts: tuple[KeyProvider, ...] = getattr(provider, "parts", ())
    if not parts:
        yield _Unit(name, provider, makes=True)
    for index, part in enumerate(parts, 1):
        yield from _units(f"{name}[{index}]", part)


def _states(provider: object) -> Iterator[Finding]:
    """Ask *provider*, or what it is around, how it is. Of some, nobody can be asked."""
    around: list[str] = []
    while isinstance(provider, (Around, Made)):
        if isinstance(provider, Around):
            around.append(provider.in_words)
        provider = provider.inner
    if around:
        yield good(f"asked with {', '.join(around)}")
    if isinstance(provider, BranchKeys):
        for unit in _units("", provider.inner):
            yield from _states(unit.provider)
    elif isinstance(provider, Examined):
        yield from provider.examine()


def _together(provider: object) -> Iterator[Finding]:
    """Say how those that *provider* is combined of are asked."""
    if isinstance(provider, CombinedKeys) and len(provider.parts) > 1:
        if provider.hedge is None:
            yield warning(
                f"one of its {len(provider.parts)} that is silent holds up each message until its client gives up",
                'hedge = "200ms": docs/resilience.md',
            )
        else:
            yield good(
                f"the next of its {len(provider.parts)} is asked beside one that is silent for {provider.hedge:g} s"
            )


def _destination_of(policy: Policy) -> str:
    """Return a destination of *policy*; of a pattern, one that it may mean."""
    exact = [each for each in policy.destinations if "*" not in each and "#" not in each]
    if exact:
        return exact[0]
    scheme, _, name = policy.destinations[0].partition(":")
    plain = name.replace("#", "doctor").replace("*", "doctor")
    return f"{scheme}:{plain}"


def _failed(verb: str, error: PostsealError) -> Finding:
    if isinstance(error, KeyUnavailable):
        return bad(str(error), _AWAY)
    if isinstance(error, KeyRefused):
        return bad(str(error), _DENIED[verb])
    if isinstance(error, ConfigError):
        return bad(str(error), "mend the section")
    return bad(f"{verb}: {error}", "this key provider does not open what it wrapped: look at its key")


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds >= 0.001 else "under 1 ms"  # noqa: PLR2004 - so it is
