"""Which patterns of different policies mean some destination in common, and which of them wins there."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
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
    ends = _Ends(patterns)
    for pattern in wild:
        for other in sorted(ends.candidates(pattern), key=order.__getitem__):
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


class _Ends:
    """Knows with what all destinations begin and end that a pattern means: so that of thousands only a few pairs are looked at.

    A destination that two patterns mean begins as both do: one of their beginnings is the beginning of the other. And it ends likewise.
    """

    def __init__(self, patterns: Iterable[str]) -> None:
        self._ends = {pattern: _ends_of(pattern) for pattern in patterns}
        self._by_start: dict[str, list[str]] = {}
        for pattern, (start, _) in self._ends.items():
            self._by_start.setdefault(start, []).append(pattern)
        self._starts = sorted(self._by_start)
        self._lengths = sorted({len(start) for start in self._starts})

    def candidates(self, pattern: str) -> Iterator[str]:
        """Yield the patterns that may mean some destination that *pattern* means; itself, too."""
        start, end = self._ends[pattern]
        for other in self._by_starts(start):
            other_end = self._ends[other][1]
            if end.endswith(other_end) or other_end.endswith(end):
                yield other

    def _by_starts(self, start: str) -> Iterator[str]:
        for length in self._lengths[: bisect_left(self._lengths, len(start))]:
            yield from self._by_start.get(start[:length], ())
        for each in islice(self._starts, bisect_left(self._starts, start), None):
            if not each.startswith(start):
                return
            yield from self._by_start[each]


def _ends_of(pattern: str) -> tuple[str, str]:
    """Return with what every destination begins and ends that *pattern* means."""
    if not wildcard(pattern):
        return pattern, pattern
    first = min(at for sign in "*#" if (at := pattern.find(sign)) >= 0)
    last = max(pattern.rfind("*"), pattern.rfind("#"))
    # `orders.#` means `orders`, too, and `#.new` means `new`.
    return pattern[:first].removesuffix("."), pattern[last + 1 :].removeprefix(".")


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
