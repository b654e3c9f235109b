"""The policy of a link that stays open while the sealer takes over other rules."""

from __future__ import annotations

from postseal.core import Sealer
from postseal.core.policy import Policy

__all__ = ["InForce"]


class InForce:
    """The policy in force at one destination: looked up again whenever the sealer has taken over other rules.

    Args:
        sealer: Knows it.
        destination: Of the link.

    Attributes:
        last: The policy as it was when it was last asked for.

    Raises:
        ConfigError: No policy speaks of *destination*.
    """

    def __init__(self, sealer: Sealer, destination: str) -> None:
        self._sealer = sealer
        self._destination = destination
        self.generation = -1
        """Of the rules that `last` is of."""
        self.last: Policy = self.policy

    @property
    def policy(self) -> Policy:
        """The policy in force now.

        Raises:
            ConfigError: No policy speaks of the destination any more.
        """
        generation = self._sealer.generation
        if self.generation != generation:
            # In this order: what is taken over meanwhile is looked up the next time.
            self.last = self._sealer.policy_for(self._destination)
            self.generation = generation
        return self.last
