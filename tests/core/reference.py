"""A second implementation of the published policy, from its description, for runs one after the other.

It shares no code with the implementation under test. A generator walks the pruning rounds.
"""

from collections.abc import Generator
from dataclasses import dataclass

import numpy as np

Result = tuple[float, bool]
"""The cost of a run, and whether it converged."""


@dataclass
class Zeus:
    """One job. Call `next_size` and `finish` in turns."""

    sizes: list[int]
    default: int
    rounds: int
    seed: int = 0
    beta: float | None = None
    explorations: int = 2
    window: int = 0
    prior: tuple[float, float] = (0.0, 0.0)
    """Mean and precision."""
    cheapest: float = np.inf
    stuck: bool = False

    def __post_init__(self) -> None:
        """Start the first pruning round."""
        self.rng = np.random.default_rng(self.seed)
        self.rewards: dict[int, list[float]] = {size: [] for size in self.sizes}
        self.arms: list[int] = []
        self._walk: Generator[int, Result, None] | None = self._prune()
        self._size: int | None = next(self._walk, None)

    def next_size(self) -> tuple[int, str]:
        """Return the next run's batch size and the type of its trial."""
        if self._size is not None:
            return self._size, "Pruning"
        return self._draw(), "MAB"

    def finish(self, size: int, cost: float, converged: bool) -> None:
        """Add the result of the run."""
        self.rewards[size].append(-cost)
        if converged:
            self.cheapest = min(self.cheapest, cost)
        if self._size is not None and self._walk is not None:
            try:
                self._size = self._walk.send((cost, converged))
            except StopIteration:
                self._size = None

    @property
    def bound(self) -> float:
        """The cost bound of a run."""
        return np.inf if self.beta is None else float(self.beta * self.cheapest)

    def _prune(self) -> Generator[int, Result, None]:
        sizes, default = self.sizes, self.default
        for _ in range(self.rounds):
            costs: dict[int, float] = {}
            for direction in ([s for s in sizes if s <= default][::-1], [s for s in sizes if s > default]):
                for size in direction:
                    cost, converged = yield size
                    if not converged:
                        break
                    costs[size] = cost
            if not costs:
                self.stuck = True
                return
            sizes = sorted(costs)
            default = min(sizes, key=costs.__getitem__)
        self.arms = sizes

    def _draw(self) -> int:
        assert not self.stuck
        arms = self.arms or self.sizes
        mean, precision = self.prior
        for arm in self.rng.choice(arms, size=len(arms), replace=False):
            if len(self.rewards[int(arm)]) < self.explorations:
                return int(arm)
        samples = []
        for arm in arms:
            rewards = self.rewards[arm][-self.window :] if self.window else self.rewards[arm]
            spread = float(np.mean((np.array(rewards) - np.mean(rewards)) ** 2))
            if spread == 0:
                samples.append(self.rng.normal(np.mean(rewards), 0))
                continue
            posterior = precision + len(rewards) / spread
            samples.append(self.rng.normal((precision * mean + sum(rewards) / spread) / posterior, posterior**-0.5))
        return arms[int(np.argmax(samples))]
