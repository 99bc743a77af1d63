"""The bandit of Zeus: Gaussian Thompson sampling over the batch sizes that survived the pruning.

The reward of a run is minus its cost. Each arm's mean reward has a Gaussian posterior whose reward
precision is learnt from the arm's own results (You et al., NSDI 2023, section 4.3).
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from backend.core.cost import trial_cost
from backend.core.state import JobState, Spec, TrialStatus


@dataclass(frozen=True, slots=True)
class Posterior:
    """Belief about an arm's mean reward, in joules (minus cost). `sd_j` 0: no spread was seen."""

    mean_j: float
    sd_j: float


def rewards(state: JobState) -> dict[int, list[float]]:
    """Minus the cost of every run that ended with a verdict, by batch size, in the order of their ends."""
    ended = [trial for trial in state.trials if trial.status is TrialStatus.SUCCEEDED]
    ended.sort(key=lambda trial: trial.ended or 0)
    by_size: dict[int, list[float]] = {}
    for trial in ended:
        by_size.setdefault(trial.batch_size, []).append(-trial_cost(state.spec, trial))
    return by_size


def posterior(spec: Spec, arm_rewards: Sequence[float]) -> Posterior:
    """Posterior of an arm's mean reward (conjugate Gaussian, known precision 1/variance of the rewards).

    Args:
        spec: gives the prior and the window.
        arm_rewards: the arm's rewards in joules, oldest first; may be empty only under a proper prior.
    """
    window = np.asarray(arm_rewards[-spec.window_size :], dtype=float)  # [-0:] is all of them
    if window.size == 0:
        return Posterior(spec.mab_prior_mean, math.sqrt(1 / spec.mab_prior_precision))
    variance = float(np.var(window))
    reward_precision = 1 / variance if variance > 0 else math.inf
    precision = spec.mab_prior_precision + window.size * reward_precision
    if not math.isfinite(precision):  # equal rewards, or a single one: infinite precision in the published code
        return Posterior(float(np.mean(window)), 0.0)
    weighted = spec.mab_prior_precision * spec.mab_prior_mean + reward_precision * float(np.sum(window))
    return Posterior(weighted / precision, math.sqrt(1 / precision))


def draw(state: JobState, arms: Sequence[int], rng: np.random.Generator) -> tuple[int, str]:
    """The arm to pull next and why; advances `rng` by the draws that the choice needs.

    Args:
        state: the job; its trials are the arms' history.
        arms: batch sizes to choose from, ascending, at least one.
        rng: the job's generator. First the arms are shuffled and the first one in that order with too few
            results is taken; if there is none, one normal draw per arm, ascending, and the largest wins.
    """
    spec = state.spec
    history = rewards(state)
    results = {arm: history.get(arm, []) for arm in arms}
    # Without results and under a flat prior there is nothing to sample from.
    needed = max(spec.mab_num_explorations, 0 if spec.mab_prior_precision > 0 else 1)
    for arm in map(int, rng.choice(np.asarray(arms), size=len(arms), replace=False)):
        if len(results[arm]) < needed:
            return (
                arm,
                f"bandit: batch size {arm} has {len(results[arm])} of the {needed} results it is to have",
            )
    beliefs = {arm: posterior(spec, results[arm]) for arm in arms}
    samples = {arm: float(rng.normal(belief.mean_j, belief.sd_j)) for arm, belief in beliefs.items()}
    best = max(samples, key=lambda arm: samples[arm])
    belief = beliefs[best]
    return best, (
        f"bandit: batch size {best} drew the lowest of {len(arms)} sampled costs, {-samples[best]:.6g} J "
        f"(expected {-belief.mean_j:.6g} J, standard deviation {belief.sd_j:.3g} J)"
    )


def seeded(seed: int) -> np.random.Generator:
    """A job's random generator at its beginning."""
    return np.random.default_rng(seed)


def save(rng: np.random.Generator) -> str:
    """The generator's position as text; `restore` goes on from there."""
    return json.dumps(rng.bit_generator.state)


def restore(position: str) -> np.random.Generator:
    """The generator at a position that `save` wrote."""
    rng = np.random.default_rng(0)
    rng.bit_generator.state = cast(dict[str, object], json.loads(position))
    return rng
