"""How random tests run: few examples that are always the same, or with --full-size many that are always others."""

import pytest
from hypothesis import HealthCheck, settings


def settings_for(request: pytest.FixtureRequest, examples: int, at_full_size: int, steps: int = 50) -> settings:
    """Return Hypothesis' settings for a test.

    Args:
        request: pytest's request.
        examples: number of examples without --full-size.
        at_full_size: number of examples with --full-size. Hypothesis prints how to repeat one that fails.
        steps: most steps of an example of a state machine.
    """
    full_size = bool(request.config.getoption("full_size"))
    return settings(
        max_examples=at_full_size if full_size else examples,
        stateful_step_count=steps,
        derandomize=not full_size,
        print_blob=full_size,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
