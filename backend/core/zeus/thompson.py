"""The bandit of Zeus: Gaussian Thompson sampling over the batch sizes that survived the pruning.

The reward of a run is minus its cost. Each arm's mean reward has a Gaussian posterior whose reward
precision is learnt from the arm's own results (You et al., NSDI 2023, section 4.3).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from backend.core.state import JobState, Spec
from backend.core.zeus.results import Rewards, results


@dataclass(frozen=True, slots=True)
class Posterior:
    """Belief about an arm's mean reward, in joules (minus cost). `sd_j` 0: no spread was seen."""

    mean_j: float
    sd_j: float


def posterior(spec: Spec, rewards: Rewards) -> Posterior:
    """Posterior of an arm's mean reward (conjugate Gaussian, known precision 1/variance of the rewards).

    Args:
        spec: gives the prior and the window.
        rewards: the arm's; there may be none only under a proper prior.
    """
    if rewards.runs == 0:
        return Posterior(spec.mab_prior_mean, math.sqrt(1 / spec.mab_prior_precision))
    runs, mean_j, variance = rewards.runs, rewards.mean_j, rewards.squares / rewards.runs
    if latest_j := rewards.latest_j:
        runs, mean_j, variance = len(latest_j), float(np.mean(latest_j)), float(np.var(latest_j))
    reward_precision = 1 / variance if variance > 0 else math.inf
    precision = spec.mab_prior_precision + runs * reward_precision
    if not math.isfinite(precision):  # equal rewards, or a single one: infinite precision in the published code
        return Posterior(mean_j, 0.0)
    weighted = spec.mab_prior_precision * spec.mab_prior_mean + reward_precision * runs * mean_j
    return Posterior(weighted / precision, math.sqrt(1 / precision))


def draw(state: JobState, arms: Sequence[int], rng: np.random.Generator) -> tuple[int, str]:
    """The arm to pull next and why; advances `rng` by the draws that the choice needs.

    Args:
        state: the job; its trials are the arms' history.
        arms: batch sizes to choose from, ascending, at least one.
        rng: the job's generator. First the arms are shuffled and the first one in that order with too few
            results is taken; if there is none, one normal draw per arm, ascending, and the largest wins.
    """
    spec, found = state.spec, results(state).rewards
    rewards = {arm: found.get(arm, Rewards()) for arm in arms}
    # Without results and under a flat prior there is nothing to sample from.
    needed = max(spec.mab_num_explorations, 0 if spec.mab_prior_precision > 0 else 1)
    for arm in map(int, rng.choice(np.asarray(arms), size=len(arms), replace=False)):
        if rewards[arm].runs < needed:
            return arm, f"bandit: batch size {arm} has {rewards[arm].runs} of the {needed} results it is to have"
    beliefs = {arm: posterior(spec, rewards[arm]) for arm in arms}
    samples = {arm: float(rng.normal(belief.mean_j, belief.sd_j)) for arm, belief in beliefs.items()}
    best = max(samples, key=lambda arm: samples[arm])
    belief = beliefs[best]
    return best, (
        f"bandit: batch size {best} drew the lowest of {len(arms)} sampled costs, {-samples[best]:.6g} J "
        f"(expected {-belief.mean_j:.6g} J, standard deviation {belief.sd_j:.3g} J)"
    )
