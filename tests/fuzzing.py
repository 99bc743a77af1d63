"""How random tests run: few examples that are always the same, or with --many-examples many that differ each time."""

import pytest
from hypothesis import HealthCheck, settings


def settings_for(request: pytest.FixtureRequest, examples: int, many: int, steps: int = 50) -> settings:
    """Return Hypothesis' settings for a test.

    Args:
        request: pytest's request.
        examples: number of examples without --many-examples.
        many: number of examples with --many-examples. Hypothesis prints how to repeat one that fails.
        steps: most steps of an example of a state machine.
    """
    varies = bool(request.config.getoption("many_examples"))
    return settings(
        max_examples=many if varies else examples,
        stateful_step_count=steps,
        derandomize=not varies,
        print_blob=varies,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
