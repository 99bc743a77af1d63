"""How the random tests of the server run: few examples, or many with --many-examples.

`tests.conftest` decides whether examples are always the same.
"""

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
    has_many = bool(request.config.getoption("many_examples"))
    return settings(
        max_examples=many if has_many else examples,
        stateful_step_count=steps,
        print_blob=has_many,
        suppress_health_check=list(HealthCheck),
    )
