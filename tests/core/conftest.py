"""Settings of the core's tests, and the choice between both ways of doing what is done for each message."""

from contextlib import suppress

import pytest
from hypothesis import HealthCheck, settings

from postseal.core.datakeys import Flights
from tests.core.kit import chosen, is_compiled

# Many short examples on shared machines: no deadlines, because a test must not fail for want of speed.
settings.register_profile("ci", max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile(
    "deep", max_examples=5000, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("ci")


@pytest.fixture(scope="module", params=["compiled", "python"])
def way(request):
    """With the accelerator, then without: for modules that say so."""
    if request.param == "compiled" and not is_compiled():
        pytest.skip("the accelerator was not built, or is not wanted")
    with chosen(request.param):
        yield request.param


@pytest.fixture
def asks_at_once(monkeypatch):
    """What is asked ahead of time is asked in the thread that finds it due: so that tests on clocks that are turned by hand can count calls."""

    def begin(self, what, call):
        flight, leads = self._join(what)
        if leads:
            with suppress(Exception):
                self._fly(flight, call)
        return True

    monkeypatch.setattr(Flights, "begin", begin)
