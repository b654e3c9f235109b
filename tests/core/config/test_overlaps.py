"""Patterns of different policies that mean some destination in common: found among many, and none missed."""

from __future__ import annotations

import random

from postseal.core.config import PolicyFile
from postseal.core.config._overlaps import both_match, overlaps
from postseal.core.policy import wildcard

PARTS = ("kafka:", "sqs:", "rabbitmq:", "rabbitmq:shop/", "rabbitmq:*/", "rabbitmq:")
WORDS = ("orders", "ord", "*", "#", "new", ".", "-", "o*", "eu", "/")


def test_no_pair_is_missed_that_a_look_at_each_with_each_finds():
    """In the same order, too."""
    draw = random.Random(4711)
    found = 0
    for _ in range(60):
        patterns = {
            draw.choice(PARTS) + "".join(draw.choices(WORDS, k=draw.randint(1, 5))): (number % 7, str(number))
            for number in range(40)
        }
        quick = [(later, earlier) for later, earlier, _ in overlaps(patterns)]
        each = [
            {one, other}
            for index, one in enumerate(patterns)
            for other in list(patterns)[:index]
            if patterns[one][0] != patterns[other][0]
            and both_match(one, other)
            and _is_told(patterns, one, other)
        ]
        assert sorted(map(sorted, each)) == sorted(sorted(pair) for pair in quick)
        found += len(quick)
    assert found > 500


def _is_told(patterns, one, other):
    """Two names that are no patterns are alike, or have nothing in common."""
    return wildcard(one) or wildcard(other)


def test_of_a_thousand_policies_few_pairs_are_compared(tmp_path, monkeypatch):
    from postseal.core.config import _overlaps

    compared = []
    monkeypatch.setattr(
        _overlaps, "both_match", lambda one, other: compared.append(1) or both_match(one, other)
    )
    policies = "".join(
        f'[[policy]]\nname = "o{number}"\ndestinations = ["kafka:orders-{number}", "sqs:orders-{number}-*", "servicebus:*-{number}.eu", '
        f'"rabbitmq:shop/orders.{number}.#"]\nkeys = ["main"]\n'
        for number in range(1000)
    )
    file = tmp_path / "postseal.toml"
    file.write_text(f'sender = "billing-api"\n{policies}')
    assert PolicyFile.read(file, keys=["main"]).warnings == ()
    assert len(compared) < 5_000
