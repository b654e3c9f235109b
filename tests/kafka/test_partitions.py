"""Which partitions wait, from where they go on, and when."""

from __future__ import annotations

import pytest

from postseal.core import Verdict
from postseal.kafka._partitions import Troubles

P0, P1 = ("orders", 0), ("orders", 1)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def troubles(clock: Clock) -> Troubles:
    return Troubles(clock=clock, first_wait=1, longest_wait=5)


def test_without_trouble_there_is_nothing_to_do(troubles: Troubles) -> None:
    assert not troubles
    assert troubles.due() == []
    assert troubles.until_due() is None
    assert troubles.over(P0) is None


def test_a_wait_doubles_with_each_failure_up_to_the_longest(troubles: Troubles, clock: Clock) -> None:
    waits = []
    for _ in range(5):
        troubles.wait(P0, 7)
        waits.append(troubles.until_due())
        clock.now += waits[-1]
        assert troubles.due() == [P0]
    assert waits == [1, 2, 4, 5, 5]


def test_an_endless_outage_does_not_overflow(troubles: Troubles) -> None:
    for _ in range(3000):
        trouble = troubles.wait(P0, 7)
    assert trouble.due == 105


def test_the_next_message_begins_with_the_first_wait(troubles: Troubles) -> None:
    troubles.wait(P0, 7)
    troubles.wait(P0, 7)
    assert troubles.wait(P0, 8).due == 101


def test_a_partition_is_due_once(troubles: Troubles, clock: Clock) -> None:
    troubles.wait(P0, 7)
    troubles.wait(P1, 9)
    assert troubles.due() == []
    clock.now += 1
    assert sorted(troubles.due()) == [P0, P1]
    assert troubles.due() == []
    assert troubles.until_due() is None
    assert troubles  # until they hand on a message, their position is ours to know


def test_the_next_one_due_counts(troubles: Troubles, clock: Clock) -> None:
    troubles.wait(P0, 7)
    clock.now += 0.5
    troubles.wait(P1, 9)
    assert troubles.until_due() == 0.5


def test_a_partition_that_handed_on_a_message_is_forgotten(troubles: Troubles) -> None:
    troubles.wait(P0, 7)
    over = troubles.over(P0)
    assert over is not None
    assert over.waits
    assert not troubles


def test_setting_back_does_not_wait(troubles: Troubles) -> None:
    troubles.wait(P0, 7)
    assert not troubles.set_back(P0, 7).waits


def test_a_verdict_is_known_at_its_own_offset_only(troubles: Troubles) -> None:
    troubles.wait(P0, 7, Verdict.FORGED)
    assert troubles.known_verdict(P0, 7) is Verdict.FORGED
    assert troubles.known_verdict(P0, 8) is None
    assert troubles.known_verdict(P1, 7) is None
    troubles.wait(P0, 8)
    assert troubles.known_verdict(P0, 8) is None
