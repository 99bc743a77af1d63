"""The posterior of c, the cost of one epoch, by batch size.

ln c is a Gaussian process over x = log2(batch size / default). One run reveals c nearly exactly, even if it fails or
is still running. For batch sizes without a run the power draw is a hint: a GPU that is not fully busy finishes an
epoch sooner with a larger batch size.

docs/policies.md explains the constants. The number of epochs is in `epochs`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from .gaussian import Gaussian, Kernel, Matrix, Vector

KERNEL = Kernel(level=10.0, slope=0.15, shape=0.2, jitter=0.02, length=4.0)
NOISE_SD = 0.01
PROBE_WEIGHT = 0.1
"""Weight of a probe of a few steps, in runs. Its standard deviation is about three times that of a run."""
MEMORY_RUNS = 8.0
"""The newest run has at least 1/`MEMORY_RUNS` of the weight in its batch size's mean: data and machines change."""
GAIN = 0.6
"""Assumed share of the largest possible gain: a doubling of the batch size lowers ln c by GAIN * ln 2 * (1 - u).

u is the utilization: the mean power draw over the maximum.
"""
MIN_COST_J = 1e-9
"""Below any real cost. It keeps the logarithm finite for a run that reported a cost of almost zero."""
MAX_LOG_COST = 300.0
"""Beyond any real ln c. It keeps costs finite when incomparable runs are extrapolated to other batch sizes."""


@dataclass(frozen=True, slots=True)
class EpochCostBelief:
    """The observations of ln c, and its posterior.

    Vectors (n,) have one entry per batch size, ascending. None is changed in place.
    """

    x: Vector
    covariance: Matrix
    """Covariance of the prior (n, n)."""
    shape: Vector | None
    """ln c over the batch sizes, up to a constant, from the job of the warm start; None without a warm start."""
    runs: Vector
    """Number of observed runs, at most `MEMORY_RUNS`."""
    mean: Vector
    """Mean ln c of these runs."""
    energy_j: Vector
    time_s: Vector
    max_power_w: float
    posterior: Gaussian = field(kw_only=True)


def initial(x: Vector, max_power_w: float, shape: Vector | None = None) -> EpochCostBelief:
    """Return the belief before the first run."""
    zeros, covariance = np.zeros(len(x)), KERNEL.covariance(x)
    posterior = Gaussian(zeros if shape is None else shape, covariance)
    return EpochCostBelief(x, covariance, shape, zeros, zeros, zeros, zeros, max_power_w, posterior=posterior)


@dataclass(frozen=True, slots=True)
class Observation:
    """The cost of a run so far. `i` is the index of its batch size."""

    i: int
    cost_j: float
    epochs: float
    energy_j: float
    time_s: float
    weight: float = 1.0
    """Weight, in runs."""


def observe(belief: EpochCostBelief, observations: Sequence[Observation]) -> EpochCostBelief:
    """Return the belief after more observations.

    A cost of zero means that the run's meter was broken. Such an observation is skipped.
    """
    observations = [observation for observation in observations if observation.cost_j > 0]
    if not observations:
        return belief
    runs, mean = belief.runs.copy(), belief.mean.copy()
    energy_j, time_s = belief.energy_j.copy(), belief.time_s.copy()
    for observation in observations:
        runs[observation.i] = min(runs[observation.i] + observation.weight, MEMORY_RUNS)
        deviation = math.log(max(observation.cost_j, MIN_COST_J) / observation.epochs) - mean[observation.i]
        mean[observation.i] += deviation * observation.weight / runs[observation.i]
        energy_j[observation.i] += observation.energy_j
        time_s[observation.i] += observation.time_s
    return with_posterior(replace(belief, runs=runs, mean=mean, energy_j=energy_j, time_s=time_s))


def mean_at(belief: EpochCostBelief, x: Vector) -> Vector:
    """Return the posterior mean of ln c at other points. The belief must have observed a run."""
    across = np.linalg.solve(belief.covariance, KERNEL.covariance(belief.x, x)).T
    prior_mean = _prior_mean(belief)
    mean: Vector = np.interp(x, belief.x, prior_mean) + across @ (belief.posterior.mean - prior_mean)
    return mean


def with_posterior(belief: EpochCostBelief) -> EpochCostBelief:
    """Return the belief with the posterior that follows from its counts; unchanged if nothing was observed."""
    if not belief.runs.any():
        return belief
    precision = belief.runs / NOISE_SD**2
    posterior = Gaussian(_prior_mean(belief), belief.covariance).condition(precision, precision * belief.mean)
    return replace(belief, posterior=replace(posterior, mean=np.clip(posterior.mean, -MAX_LOG_COST, MAX_LOG_COST)))


def _prior_mean(belief: EpochCostBelief) -> Vector:
    """Return the prior mean of ln c: its estimated shape over the batch sizes, at the level of the observed runs."""
    shape = belief.shape
    if shape is None:
        shape = -GAIN * math.log(2) * (1 - _utilization(belief)) * belief.x
    prior_mean: Vector = shape + float(np.mean((belief.mean - shape)[belief.runs > 0]))
    return prior_mean


def _utilization(belief: EpochCostBelief) -> float:
    """Return the mean power draw over the maximum, at the default batch size; at all batch sizes if it has no run."""
    default = belief.x == 0
    where = default if float(belief.time_s[default].sum()) > 0 else np.ones(len(belief.x), dtype=bool)
    time_s = float(belief.time_s[where].sum())
    return min(float(belief.energy_j[where].sum()) / time_s / belief.max_power_w, 1.0) if time_s > 0 else 1.0
