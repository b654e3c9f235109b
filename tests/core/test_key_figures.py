"""The scenarios of bench/keys.py, small: what it measures is so, whatever the machine."""

from __future__ import annotations

import logging

from bench import keys


def test_messages_per_call_are_those_of_one_data_key_for_each_producer():
    """D4: 4 producers make 4 data keys, and 4 consumers have each of these unwrapped once: 20 calls, for however many messages."""
    found = keys.messages_per_call(messages=8000)
    assert (found["calls"], found["messages_per_call"]) == (20, 400)


def test_a_herd_makes_one_call_however_it_comes():
    """D4: threads and tasks, to seal and to open, cold and expired."""
    found = keys.herd_calls(threads=16, tasks=100, seconds=0.01)
    assert len(found) == 8
    assert set(found.values()) == {1}


def test_no_message_fails_or_is_lost_in_an_outage_within_the_stale_time():
    """B14: ten minutes, once without any answer and once with errors."""
    found = keys.outage(rate=0.5)
    assert (found["failures"], found["lost"]) == (0, 0)
    assert found["messages"] > 1000


def test_messages_fail_in_an_outage_that_is_longer():
    """So the test above can fail."""
    assert keys.outage(rate=0.5, max_stale=120, silent=(False,))["failures"] > 0


def test_a_disabled_key_opens_nothing_after_the_window():
    """A13."""
    found = keys.disabled(phases=6, rate=1)
    assert 0 < found["last_open_s"] <= found["window_s"] == 300


def test_with_one_of_two_key_services_dead_everything_opens():
    """B12."""
    assert keys.one_dead(messages=5, hedge=0.01, call=0.0)["opened"] == 1


def test_a_flood_of_forged_wrapped_keys_makes_a_call_a_second_and_an_honest_one_comes_through(caplog):
    caplog.set_level(logging.CRITICAL)  # else pytest keeps what is logged, and memory is not flat
    found = keys.forged(messages=4000, rate=40)
    assert found["calls_a_second"] <= 1
    assert found["memory_grown_bytes"] < 200_000
    assert found["honest_opened_after_s"] <= 20


def test_a_backlog_drains_in_the_time_that_the_quota_allows():
    """D8."""
    found = keys.limiter(backlog=2100, calls=40, per=1.0)
    assert found["throttled"] == 0
    assert found["drain_ratio"] < 1.1


def test_the_scenarios_of_a_clock_run_with_small_sizes():
    assert keys.rotation(messages=2000, each=500, rounds=2)["rotation_ratio"] > 0
    assert keys.expiry(rounds=1, rate=200, seconds=0.5, call=0.02, life=0.3)["expiry_p999_ratio"] > 0


def test_the_figures_are_found_under_the_names_that_were_promised():
    found = {
        "messages_per_call": {"messages_per_call": 50_000},
        "herd_calls": {"seal": 1, "open": 1},
        "expiry": {"expiry_p999_ratio": 1.0},
        "rotation": {"rotation_ratio": 1.0},
    }
    assert keys.flat(found) == {
        "messages_per_call": 50_000,
        "herd_calls": 1,
        "expiry_p999_ratio": 1.0,
        "rotation_ratio": 1.0,
        "details": found,
    }
