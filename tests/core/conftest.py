"""Settings of the core's tests."""

from hypothesis import HealthCheck, settings

# Many short examples on shared machines: no deadlines, because a test must not fail for want of speed.
settings.register_profile("ci", max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile(
    "deep", max_examples=5000, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("ci")
