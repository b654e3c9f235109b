"""What becomes of a refused message: the whole table."""

import pytest

from postseal.core import ConfigError, Policy, Refused, Sealer, Verdict
from postseal.rabbitmq._settling import Places, Settle, pause_after
from tests.fakes import FakeKeys

HERE = ("shop", "orders.new")


def policy(name="orders", **options):
    options = {"destinations": ["rabbitmq:shop/orders.#"], "keys": ["main"]} | options
    return Policy(name=name, **options)


def places(*policies, events=None):
    on_audit = None if events is None else events.append
    return Places(Sealer(sender="shop", policies=policies, keys={"main": FakeKeys()}, on_audit=on_audit))


def refused():
    return Refused(Verdict.FORGED, "because", destination="rabbitmq:shop/orders.new")


def turned(where, error=None, exchange="shop", routing_key="orders.new", *, auto_ack=False):
    return where.turn(error or refused(), exchange, routing_key, {"queue": "q"}, auto_ack=auto_ack)


@pytest.mark.parametrize(
    ("options", "settle", "with_auto_ack"),
    [
        ({"on_refused": "raise"}, Settle.RAISE, Settle.RAISE),
        ({"on_refused": "dead-letter"}, Settle.REJECT, Settle.DROP),
        (
            {"on_refused": "dead-letter", "quarantine": "rabbitmq:/refused"},
            Settle.REJECT,
            Settle.QUARANTINE,
        ),
        ({"on_refused": "dead-letter", "quarantine": "sqs:refused"}, Settle.REJECT, Settle.DROP),
        (
            {"on_refused": "quarantine", "quarantine": "rabbitmq:/refused"},
            Settle.QUARANTINE,
            Settle.QUARANTINE,
        ),
        (
            {"on_refused": "quarantine", "quarantine": "rabbitmq:shop/orders.new"},
            Settle.LEAVE,
            Settle.DROP,
        ),
        ({"on_refused": "discard"}, Settle.DISCARD, Settle.DROP),
        ({"on_refused": "discard", "mode": "observe"}, Settle.LEAVE, Settle.DROP),
        ({"on_refused": "raise", "mode": "observe"}, Settle.RAISE, Settle.RAISE),
    ],
)
def test_the_policy_says_what_becomes_of_a_refused_message(options, settle, with_auto_ack):
    where = places(policy(**options))
    assert turned(where).settle is settle
    assert turned(where, auto_ack=True).settle is with_auto_ack


def test_the_quarantine_is_a_place():
    found = turned(places(policy(on_refused="quarantine", quarantine="rabbitmq:shop/refused.orders")))
    assert found.quarantine == ("shop", "refused.orders")
    assert found.verdict is Verdict.FORGED


def test_a_fault_that_is_no_verdict_is_told_and_settles_nothing():
    where = places(policy(on_refused="discard"))
    fault = RuntimeError("4111")
    assert turned(where, fault) == (fault, Settle.RAISE, ("", ""))


def stray(where, **options):
    error = ConfigError("no policy speaks of it")
    return turned(where, error, exchange="", routing_key="q\n", **options)


def test_a_message_of_no_policy_is_told():
    events = []
    for options in ({"on_refused": "raise"}, {"on_refused": "discard"}):
        found = stray(places(policy(**options), events=events))
        assert found.settle is Settle.RAISE
        assert isinstance(found.error, ConfigError)
    assert events == []


def test_a_message_of_no_policy_is_put_aside_where_all_policies_put_aside():
    """Else whoever may publish to the default exchange could stop every consumer."""
    events = []
    both = [
        policy(on_refused="dead-letter"),
        policy("b", on_refused="dead-letter", destinations=["rabbitmq:b/#"]),
    ]
    found = stray(places(*both, events=events))
    assert (found.settle, found.verdict) == (Settle.REJECT, Verdict.WRONG_DESTINATION)
    [event] = events
    assert (event.verdict, event.destination) == (Verdict.WRONG_DESTINATION, "rabbitmq:/q\\n")
    assert event.coordinates == {"queue": "q"}


def test_policies_that_differ_leave_a_message_of_no_policy_alone():
    differing = [
        policy(on_refused="dead-letter"),
        policy("b", on_refused="quarantine", quarantine="rabbitmq:/r", destinations=["rabbitmq:b/#"]),
    ]
    assert stray(places(*differing)).settle is Settle.RAISE


def test_places_are_looked_up_once_and_not_kept_without_end():
    where = places(policy(destinations=["rabbitmq:/#"]))
    assert where["", "a"] is where["", "a"]
    for number in range(5000):
        where["", str(number)]
    assert len(where) <= 4096


def test_what_policies_cannot_keep_is_said_at_once():
    with pytest.raises(ConfigError, match="x-tenant"):
        places(policy(bind_headers=["x-tenant"]))


def test_pauses_grow_to_ten_seconds():
    assert [pause_after(failures) for failures in (1, 2, 3, 6, 7, 1000)] == [0.25, 0.5, 1.0, 8.0, 10.0, 10.0]
