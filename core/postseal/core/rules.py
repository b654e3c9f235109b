"""What is in force: policies, with the key providers and key rings that they name. Made at once, and replaced at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, TypeVar, cast

from postseal.core.context import check_name
from postseal.core.datakeys import CacheTallies, Flights, OpeningKeys
from postseal.core.errors import ConfigError, nearest
from postseal.core.keys import DirectKeys, KeyProvider, PublicKeys, direct_keys, forget_with
from postseal.core.policy import Policies, Policy
from postseal.core.providers.combined import CombinedKeys
from postseal.core.signing import KeyRing

if TYPE_CHECKING:
    from postseal.core.direct import DirectBodies

__all__ = ["Rules"]

_T = TypeVar("_T")


class Rules:
    """The rules of one sealer. Never changed: other rules are other objects, which take over what is the same.

    Args:
        sender: Who we are.
        policies: What must be done for which destination.
        keys: Key providers by the names that policies use.
        signers: Key rings by the names that policies use.
        verify_only: Whether nothing is to be opened.
        monotonic: Seconds; runs the caches.
        tallies: Count what those do that open.
        watched: Puts something around each key provider, by its name, that tells of its calls.
        before: The rules that these replace. Unwrapped data keys of policies that open as they did stay at hand.

    Raises:
        ConfigError: Something is wrong with the above; the text names it and the nearest right one.
    """

    def __init__(
        self,
        *,
        sender: str,
        policies: Iterable[Policy],
        keys: Mapping[str, KeyProvider],
        signers: Mapping[str, KeyRing],
        verify_only: bool,
        monotonic: Callable[[], float],
        tallies: CacheTallies,
        watched: Callable[[str, KeyProvider], KeyProvider] | None = None,
        before: Rules | None = None,
    ) -> None:
        self.sender = check_name(sender, "sender")
        self.policies = Policies(policies)
        self.binds_replies = any(policy.bind_replies for policy in self.policies)
        self.providers: dict[str, KeyProvider] = {}
        """By the name of the policy, as all below."""
        self.rings: dict[str, KeyRing] = {}
        self.opening: dict[str, OpeningKeys] = {}
        """Those of policies that have data keys."""
        self.direct: dict[str, DirectBodies] = {}
        """Those of policies that have none."""
        self.flights: dict[str, Flights] = {}
        """Make the calls: the same ones for policies with the same keys, so that these together make no more than so many at once."""
        self._parts: dict[str, list[KeyProvider]] = {}
        self._by_name = {policy.name: policy for policy in self.policies}
        self._verify_only = verify_only
        self._watched = watched
        self._monotonic, self._tallies = monotonic, tallies
        if verify_only and keys:
            raise ConfigError("a sealer that only verifies takes no keys: it is not to open anything")
        for policy in self.policies:
            self._resolve_signer(policy, signers)
            if not verify_only:
                self._resolve_keys(policy, keys, before)
        self._check_identities()

    def seals_alike(self, other: Rules, policy: Policy, destination: str) -> bool:
        """Tell whether *other* would seal for *destination* exactly as these do by *policy*, with the same keys."""
        name = policy.name
        return (
            self.sender == other.sender
            and other._by_name.get(name) == policy
            and other.policies.finds(destination) == policy
            and self.providers.get(name) is other.providers.get(name)
            and self.direct.get(name) is other.direct.get(name)
            and self.rings.get(name) is other.rings.get(name)
        )

    def _resolve_keys(
        self,
        policy: Policy,
        keys: Mapping[str, KeyProvider],
        before: Rules | None,
    ) -> None:
        what = f"policy {policy.name!r}: keys"
        providers = [_named(name, keys, what) for name in policy.keys]
        for name, provider in zip(policy.keys, providers, strict=True):
            if not isinstance(provider, KeyProvider):
                raise ConfigError(
                    f"{what} names {name!r}, which is {type(provider).__name__} and no KeyProvider"
                )
        if not providers:
            return
        self.flights[policy.name] = self._flights_for(providers, before)
        self._parts[policy.name] = providers
        if before is not None and _same(providers, before._parts.get(policy.name, ())):  # noqa: SLF001 - of our own kind
            self.providers[policy.name] = before.providers[policy.name]
            was = before._by_name[policy.name]  # noqa: SLF001
            if (was.direct, was.opening) == (policy.direct, policy.opening) and not policy.direct:
                self.opening[policy.name] = before.opening[policy.name]
        else:
            if self._watched is not None:
                providers = [
                    self._watched(name, one) for name, one in zip(policy.keys, providers, strict=True)
                ]
            self.providers[policy.name] = providers[0] if len(providers) == 1 else CombinedKeys(providers)
        if policy.direct:
            self._resolve_direct(policy, providers[0], before)
            return
        if policy.name not in self.opening:
            provider = self.providers[policy.name]
            self.opening[policy.name] = OpeningKeys(
                provider,
                policy.name,
                policy.opening,
                clock=self._monotonic,
                flights=self.flights[policy.name],
                tallies=self._tallies,
            )

    def _flights_for(self, providers: list[KeyProvider], before: Rules | None) -> Flights:
        """Return what makes the calls of policies with these keys."""
        for rules in (self, before):
            for name, parts in () if rules is None else rules._parts.items():  # noqa: SLF001 - of our own kind
                if rules is not None and _same(parts, providers):
                    return rules.flights[name]
        return Flights(self._monotonic)

    def forget(self) -> None:
        """Have key providers forget the wrapping keys that they keep."""
        for parts in self._parts.values():
            forget_with(*parts)

    def _resolve_direct(self, policy: Policy, bare: KeyProvider, before: Rules | None) -> None:
        """See that the key of a direct policy can encrypt bodies."""
        provider = self.providers[policy.name]
        # What measures calls has these methods whatever is within.
        keys = direct_keys(self._parts[policy.name][0])
        if keys is None:
            raise ConfigError(
                f"policy {policy.name!r}: direct needs a key service that encrypts bodies itself, and {policy.keys[0]!r} is {bare!r}; "
                "AWS KMS, Azure Key Vault and Vault transit do"
            )
        if keys.anybody_encrypts and policy.sign is None:
            raise ConfigError(
                f"policy {policy.name!r}: direct with {policy.keys[0]!r} needs protection = 'privacy': anybody can encrypt with its public "
                "key, so only a signature tells whose message it is"
            )
        kept = None if before is None else before.direct.get(policy.name)
        failures = policy.opening.max_failures
        same = before is not None and before.providers.get(policy.name) is provider
        if kept is None or not same or kept.max_failures != failures:
            keys_of = cast("DirectKeys", provider)
            from postseal.core.direct import DirectBodies  # noqa: PLC0415 - for who has such policies

            kept = DirectBodies(keys_of, policy.name, failures, clock=self._monotonic)
        self.direct[policy.name] = kept

    def _resolve_signer(self, policy: Policy, signers: Mapping[str, KeyRing]) -> None:
        if policy.sign is None:
            return
        ring = self.rings[policy.name] = _named(policy.sign, signers, f"policy {policy.name!r}: sign")
        if not isinstance(ring, KeyRing):
            raise ConfigError(
                f"policy {policy.name!r}: sign names {policy.sign!r}, which is {type(ring).__name__} and no KeyRing"
            )
        if self._verify_only and ring.has_private:
            raise ConfigError(
                f"policy {policy.name!r}: {policy.sign!r} has a private key, which a sealer that only verifies must not "
                "have: give it the public key alone"
            )

    def _check_identities(self) -> None:
        """See that no key both opens and signs."""
        opening = frozenset[bytes]().union(
            *(p.public_key_fingerprints for p in self.providers.values() if isinstance(p, PublicKeys))
        )
        if opening:
            for ring in self.rings.values():
                ring.keep_apart(opening)


def _same(some: Iterable[object], others: Iterable[object]) -> bool:
    one, other = tuple(some), tuple(others)
    return len(one) == len(other) and all(a is b for a, b in zip(one, other, strict=True))


def _named(name: str, given: Mapping[str, _T], what: str) -> _T:
    try:
        return given[name]
    except KeyError:
        raise ConfigError(
            f"{what} names {name!r}, which the sealer was not given{nearest(name, given)}"
        ) from None
