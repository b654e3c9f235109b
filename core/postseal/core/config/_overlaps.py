"""Which patterns of different policies mean some destination in common, and which of them wins there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from postseal.core.policy import specificity, wildcard

__all__ = ["both_match", "overlaps"]


def overlaps(patterns: Mapping[str, tuple[Any, str]]) -> Iterator[tuple[str, str, str]]:
    """Yield pairs of patterns that overlap, and what comes of it in words.

    Args:
        patterns: Patterns in the order of the file, each with what stands for its policy, and how that is called.
    """
    order = {pattern: index for index, pattern in enumerate(patterns)}
    wild = [pattern for pattern in patterns if wildcard(pattern)]
    for pattern in wild:
        for other in patterns:
            if other == pattern or patterns[other][0] == patterns[pattern][0]:
                continue
            if wildcard(other) and order[other] < order[pattern]:
                continue  # each pair once
            if not both_match(pattern, other):
                continue
            first, second = sorted((pattern, other), key=lambda each: (-_rank(each), order[each]))
            later, earlier = sorted((pattern, other), key=order.__getitem__, reverse=True)
            winner, tie = patterns[first][1], _rank(first) == _rank(second)
            why = "both are as specific, so the first in the file wins" if tie else "the more specific wins"
            yield later, earlier, f"{first!r} overlaps {second!r} of {patterns[second][1]}; {why}: {winner}"


def _rank(pattern: str) -> float:
    return specificity(pattern) if wildcard(pattern) else float("inf")


def both_match(one: str, other: str) -> bool:
    """Tell whether some destination matches both patterns."""
    scheme, _, name = one.partition(":")
    other_scheme, _, other_name = other.partition(":")
    if scheme != other_scheme:
        return False
    if scheme != "rabbitmq" or ("/" not in name and "/" not in other_name):
        return _meet(name, other_name, many="*")
    if "/" not in name or "/" not in other_name:
        # A pattern without a slash is one run of characters over exchange and key; only `*` alone is of use there.
        return (name if "/" not in name else other_name) == "*"
    exchange, _, key = name.partition("/")
    other_exchange, _, other_key = other_name.partition("/")
    return _meet(exchange, other_exchange, many="*") and _meet(
        key.split("."), other_key.split("."), many="#", one="*"
    )


def _meet(left: Sequence[str], right: Sequence[str], *, many: str, one: str | None = None) -> bool:
    """Tell whether some sequence matches both: *many* stands for any number of items, *one* for one."""
    reach = {(0, 0)}
    seen = set(reach)
    while reach:
        here, there = reach.pop()
        if here == len(left) and there == len(right):
            return True
        this = left[here] if here < len(left) else None
        that = right[there] if there < len(right) else None
        steps = set()
        if many in (this, that):  # it stands for nothing, or for one item more of the other
            steps |= {(here + 1, there)} if this is not None else set()
            steps |= {(here, there + 1)} if that is not None else set()
        elif this is not None and that is not None and (this == that or one in (this, that)):
            steps.add((here + 1, there + 1))
        reach |= steps - seen
        seen |= steps
    return False
