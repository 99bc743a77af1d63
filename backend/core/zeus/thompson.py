"""The bandit of Zeus: Gaussian Thompson sampling over the batch sizes that survived the pruning.

The reward of a run is minus its cost. The mean reward of each arm has a Gaussian posterior. Its reward precision is
estimated from the arm's own results (You et al., NSDI 2023, section 4.3).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lightning_bso.quantities import joules

from ..state import JobState, Spec
from .results import Rewards, results


@dataclass(frozen=True, slots=True)
class Posterior:
    """The posterior of an arm's mean reward, in joules (minus cost). `sd_j` is 0 if the rewards show no spread."""

    mean_j: float
    sd_j: float


def posterior(spec: Spec, rewards: Rewards) -> Posterior:
    """Return the posterior of an arm's mean reward.

    The model is the conjugate Gaussian with known precision, 1/variance of the rewards.

    Args:
        spec: gives the prior and the window.
        rewards: the arm's rewards. There may be none only under a proper prior.
    """
    if rewards.runs == 0:
        return Posterior(spec.mab_prior_mean, math.sqrt(1 / spec.mab_prior_precision))
    runs, mean_j, variance = rewards.runs, rewards.mean_j, rewards.squares / rewards.runs
    if latest_j := rewards.latest_j:
        runs, mean_j, variance = len(latest_j), float(np.mean(latest_j)), float(np.var(latest_j))
    reward_precision = 1 / variance if variance > 0 else math.inf
    precision = spec.mab_prior_precision + runs * reward_precision
    # Equal rewards, or a single reward: the published code has an infinite precision here.
    if not math.isfinite(precision):
        return Posterior(mean_j, 0.0)
    weighted = spec.mab_prior_precision * spec.mab_prior_mean + reward_precision * runs * mean_j
    return Posterior(weighted / precision, math.sqrt(1 / precision))


def draw(state: JobState, arms: Sequence[int], rng: np.random.Generator) -> tuple[int, str]:
    """Return the arm to pull next, and the reason. Advance `rng` by the draws that the choice needs.

    The arms are shuffled first. The first arm in that order with too few results is pulled. If there is none, each arm
    gets one normal draw, in ascending order, and the largest draw wins.

    Args:
        state: the job; its trials are the arms' history.
        arms: the batch sizes to choose from, ascending, at least one.
        rng: the job's generator.
    """
    spec, by_size = state.spec, results(state).rewards
    rewards = {arm: by_size.get(arm, Rewards()) for arm in arms}
    # Without results and under a flat prior there is no distribution to sample from.
    needed = max(spec.mab_num_explorations, 0 if spec.mab_prior_precision > 0 else 1)
    for arm in map(int, rng.choice(np.asarray(arms), size=len(arms), replace=False)):
        if rewards[arm].runs < needed:
            return arm, f"bandit: batch size {arm} has {rewards[arm].runs} of the {needed} results that it needs"
    posteriors = {arm: posterior(spec, rewards[arm]) for arm in arms}
    samples = {arm: float(rng.normal(of_arm.mean_j, of_arm.sd_j)) for arm, of_arm in posteriors.items()}
    best = max(samples, key=lambda arm: samples[arm])
    of_best = posteriors[best]
    return best, (
        f"bandit: batch size {best} drew the lowest of {len(arms)} sampled costs, {joules(-samples[best])} "
        f"(expected {joules(-of_best.mean_j)}, standard deviation {joules(of_best.sd_j)})"
    )
