"""What a job's runs say about the cost of one epoch, c, by batch size.

ln c is a Gaussian process over x = log2(batch size / default). One run, even one that fails or still goes on, tells
c nearly exactly; of batch sizes that have not run the power draw tells something: a GPU that is not yet busy gets
through an epoch sooner with larger batches.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from backend.core.gp_ucb.gaussian import Gaussian, Kernel, Matrix, Vector

KERNEL = Kernel(level=10.0, slope=0.15, shape=0.2, jitter=0.02, length=4.0)
NOISE_SD = 0.01
PROBE_WEIGHT = 0.1
"""What timing a few steps counts beside a run: its standard deviation is taken to be three times as large."""
MEMORY_RUNS = 8.0
"""The newest run weighs at least one in so many in the mean of its batch size, since data and machines change."""
GAIN = 0.6
"""Share of what an idle GPU could gain from a doubling of the batch size that it is taken to gain."""
LEAST_J = 1e-9
"""Below any real cost; keeps the logarithm finite where a run seems to have cost nothing."""
MOST_LOG = 300.0
"""Beyond any real ln c; keeps costs finite where runs that cannot be compared are carried on to other batch sizes."""


@dataclass(frozen=True, slots=True)
class EpochCostBelief:
    """What is known of ln c. Vectors (n,) have one entry per batch size, ascending; none is changed in place."""

    x: Vector
    covariance: Matrix
    """Of the prior (n, n)."""
    shape: Vector | None
    """How ln c goes over the batch sizes as far as another job knows it; its level means nothing."""
    runs: Vector
    """Runs that told their epoch cost, up to `MEMORY_RUNS`."""
    mean: Vector
    """Their mean ln c."""
    energy_j: Vector
    time_s: Vector
    max_power_w: float
    law: Gaussian = field(kw_only=True)


def beginning(x: Vector, max_power_w: float, shape: Vector | None = None) -> EpochCostBelief:
    """What is known before the first run."""
    none, covariance = np.zeros(len(x)), KERNEL.covariance(x)
    law = Gaussian(none if shape is None else shape, covariance)
    return EpochCostBelief(x, covariance, shape, none, none, none, none, max_power_w, law=law)


@dataclass(frozen=True, slots=True)
class Observation:
    """What a run has cost so far. `at`: where its batch size is among the job's."""

    at: int
    cost_j: float
    epochs: float
    energy_j: float
    time_s: float
    weight: float = 1.0
    """Runs that it counts as."""


def observed(belief: EpochCostBelief, observations: Sequence[Observation]) -> EpochCostBelief:
    """What is known after some more runs. Those that seem to have cost nothing had a broken meter, and tell nothing."""
    observations = [one for one in observations if one.cost_j > 0]
    if not observations:
        return belief
    runs, mean = belief.runs.copy(), belief.mean.copy()
    energy_j, time_s = belief.energy_j.copy(), belief.time_s.copy()
    for one in observations:
        runs[one.at] = min(runs[one.at] + one.weight, MEMORY_RUNS)
        told = math.log(max(one.cost_j, LEAST_J) / one.epochs) - mean[one.at]
        mean[one.at] += told * one.weight / runs[one.at]
        energy_j[one.at] += one.energy_j
        time_s[one.at] += one.time_s
    return with_law(replace(belief, runs=runs, mean=mean, energy_j=energy_j, time_s=time_s))


def at(belief: EpochCostBelief, x: Vector) -> Vector:
    """Mean of ln c at other points, of a belief that some runs have told."""
    across = np.linalg.solve(belief.covariance, KERNEL.covariance(belief.x, x)).T
    guess = _guess(belief)
    mean: Vector = np.interp(x, belief.x, guess) + across @ (belief.law.mean - guess)
    return mean


def with_law(belief: EpochCostBelief) -> EpochCostBelief:
    """What is known, with the law that follows from what was counted, if anything was."""
    if not belief.runs.any():
        return belief
    precision = belief.runs / NOISE_SD**2
    law = Gaussian(_guess(belief), belief.covariance).given(precision, precision * belief.mean)
    return replace(belief, law=replace(law, mean=np.clip(law.mean, -MOST_LOG, MOST_LOG)))


def _guess(belief: EpochCostBelief) -> Vector:
    """Prior mean of ln c: its course as far as it can be guessed, at the height of the runs."""
    shape = belief.shape
    if shape is None:
        shape = -GAIN * math.log(2) * (1 - _utilization(belief)) * belief.x
    guess: Vector = shape + float(np.mean((belief.mean - shape)[belief.runs > 0]))
    return guess


def _utilization(belief: EpochCostBelief) -> float:
    """Mean power draw over the maximum, at the default batch size if that has run, else at all that have."""
    default = belief.x == 0
    where = default if float(belief.time_s[default].sum()) > 0 else np.ones(len(belief.x), dtype=bool)
    time_s = float(belief.time_s[where].sum())
    return min(float(belief.energy_j[where].sum()) / time_s / belief.max_power_w, 1.0) if time_s > 0 else 1.0
