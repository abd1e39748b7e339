"""What all tests share."""

from hypothesis import HealthCheck, settings

# A test that is slow on a busy machine has not failed: times are for benchmarks.
settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any machine")
