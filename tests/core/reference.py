"""The published policy once more, written from its description for runs that come one after the other.

It shares no code with the one under test: a generator walks the pruning rounds, and the bandit keeps sums.
"""

from collections.abc import Generator
from dataclasses import dataclass

import numpy as np

Result = tuple[float, bool]
"""What a run cost and whether it converged."""


@dataclass
class Zeus:
    """One job. `next_size` and `finish` take turns."""

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
        """Stand at the beginning."""
        self.rng = np.random.default_rng(self.seed)
        self.rewards: dict[int, list[float]] = {size: [] for size in self.sizes}
        self.arms: list[int] = []
        self._walk: Generator[int, Result, None] | None = self._prune()
        self._size: int | None = next(self._walk, None)

    def next_size(self) -> tuple[int, str]:
        """The next run's batch size and the type of its trial."""
        if self._size is not None:
            return self._size, "Pruning"
        return self._draw(), "MAB"

    def finish(self, size: int, cost: float, converged: bool) -> None:
        """Take in what the run found."""
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
        """The cost beyond which a run is stopped."""
        return np.inf if self.beta is None else float(self.beta * self.cheapest)

    def _prune(self) -> Generator[int, Result, None]:
        sizes, default = self.sizes, self.default
        for _ in range(self.rounds):
            price: dict[int, float] = {}
            cost, converged = yield default
            if converged:
                price[default] = cost
            for direction in ([s for s in sizes if s < default][::-1], [s for s in sizes if s > default]):
                for size in direction:
                    cost, converged = yield size
                    if not converged:
                        break
                    price[size] = cost
            if not price:
                self.stuck = True
                return
            sizes = sorted(price)
            default = min(sizes, key=price.__getitem__)
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
            seen = self.rewards[arm][-self.window :] if self.window else self.rewards[arm]
            spread = float(np.mean((np.array(seen) - np.mean(seen)) ** 2))
            if spread == 0:
                samples.append(self.rng.normal(np.mean(seen), 0))
                continue
            posterior = precision + len(seen) / spread
            samples.append(self.rng.normal((precision * mean + sum(seen) / spread) / posterior, posterior**-0.5))
        return arms[int(np.argmax(samples))]
