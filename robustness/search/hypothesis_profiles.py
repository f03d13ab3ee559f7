"""Hypothesis profiles for the suites; Hypothesis loads them through its entry point when it is imported."""

from __future__ import annotations

# Factors on the number of examples in a card.
SCALES = {"robustness-fast": 0.25, "robustness-ci": 1.0, "robustness-thorough": 20.0}


def register() -> None:
    """Register the profiles: fast and ci are reproducible bit for bit, thorough is random and slow."""
    from hypothesis import HealthCheck, settings

    for name, scale in SCALES.items():
        settings.register_profile(
            name,
            max_examples=int(100 * scale),
            derandomize=name != "robustness-thorough",
            database=None,
            deadline=None,  # a model's first call is slow
            print_blob=True,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        )
