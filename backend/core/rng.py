"""A job's random generator: how it starts, and its position as text.

Every random choice of a job draws from this one generator. The position is stored with the choice. The same seed and
the same reports therefore give the same choices on every server, also after a restart.
"""

import json
from typing import cast

import numpy as np


def seeded(seed: int) -> np.random.Generator:
    """Return the generator of a new job."""
    return np.random.default_rng(seed)


def position_of(rng: np.random.Generator) -> str:
    """Return the generator's position as text. `at_position` continues from there."""
    return json.dumps(rng.bit_generator.state)


def at_position(position: str) -> np.random.Generator:
    """Return the generator at a position that `position_of` returned."""
    rng = np.random.default_rng(0)
    rng.bit_generator.state = cast(dict[str, object], json.loads(position))
    return rng
