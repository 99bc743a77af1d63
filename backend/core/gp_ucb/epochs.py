"""The posterior of T, the number of epochs to the target, by batch size.

ln T is a Gaussian process over x = log2(batch size / default). It is smooth, and the same on every GPU. A converged
run observes ln T with noise. A failed run observes that T is larger than the epochs that the run had. If the runs show
that T has changed (drift), the posterior becomes the prior of a new count.

docs/policies.md explains the constants. The cost of an epoch is in `epoch_cost`.
"""

import math
from dataclasses import dataclass, field, replace

import numpy as np

from .gaussian import Gaussian, Kernel, Vector, survival_site

KERNEL = Kernel(level=2.0, slope=0.2, shape=0.2, jitter=0.05, length=4.0)
MEAN_BELOW_MAX_EPOCHS = 1.5
"""ln max_epochs minus the prior mean of ln T at the default batch size."""
MEAN_SLOPE = 0.15
"""Prior mean of the rise of ln T per doubling of the batch size."""
NOISE_SD, NOISE_RUNS, MIN_NOISE_SD = 0.15, 4.0, 0.02
"""Spread of ln T between runs of one batch size: the prior guess, its weight in runs, and the minimum."""
DRIFT_CLIP, DRIFT_SLACK, DRIFT_THRESHOLD = 4.0, 0.75, 5.0
"""CUSUM of standardised residuals: the largest residual, the slack per residual, and the sum that raises the alarm."""
DRIFT_LEVEL_SD, DRIFT_SHAPE_SHARE = 1.0, 0.5
"""Growth of the covariance on an alarm: of the common level, and as a share of the kernel's slope and shape."""


@dataclass(frozen=True, slots=True)
class EpochsBelief:
    """The observations of ln T, and its posterior.

    Vectors (n,) have one entry per batch size, ascending. None is changed in place.
    """

    x: Vector
    prior: Gaussian
    """Distribution of the mean of ln T before the runs that are counted here."""
    runs: Vector
    """Number of converged runs."""
    mean: Vector
    """Mean ln T of the converged runs."""
    site_precision: Vector
    """Precision of the failed runs' observations of ln T."""
    site_shift: Vector
    """`site_precision` times the mean of these observations."""
    squares: float = 0.0
    """Sum of squares of ln T around the means of the batch sizes."""
    freedom: float = 0.0
    """Degrees of freedom of `squares`."""
    rising: float = 0.0
    """CUSUM of the evidence that T has grown."""
    falling: float = 0.0
    """CUSUM of the evidence that T has shrunk."""
    noise_variance: float = NOISE_SD**2
    """Variance of ln T between runs of one batch size."""
    posterior: Gaussian = field(kw_only=True)
    """Distribution of the mean of ln T, given all of this."""


def default_prior(x: Vector, max_epochs: int) -> Gaussian:
    """Return the prior of ln T of a job without runs and without a warm start."""
    mean = math.log(max_epochs) - MEAN_BELOW_MAX_EPOCHS + MEAN_SLOPE * x
    return Gaussian(mean, KERNEL.covariance(x))


def initial(x: Vector, prior: Gaussian, squares: float = 0.0, freedom: float = 0.0) -> EpochsBelief:
    """Return the belief before the first run. `squares` and `freedom` carry over the noise of earlier runs."""
    zeros = np.zeros(len(x))
    return with_posterior(EpochsBelief(x, prior, zeros, zeros, zeros, zeros, squares, freedom, posterior=prior))


def after_success(belief: EpochsBelief, i: int, epochs: float) -> EpochsBelief:
    """Return the belief after a run of the batch size with index `i` that reached the target after `epochs`."""
    value = math.log(epochs)
    runs, mean = belief.runs.copy(), belief.mean.copy()
    runs[i] += 1
    deviation = value - mean[i]
    mean[i] += deviation / runs[i]
    squares, freedom = belief.squares, belief.freedom
    if runs[i] > 1:
        squares, freedom = squares + deviation * (value - mean[i]), freedom + 1
    return with_posterior(replace(belief, runs=runs, mean=mean, squares=squares, freedom=freedom))


def after_failure(belief: EpochsBelief, i: int, epochs: float) -> EpochsBelief:
    """Return the belief after a run of the batch size with index `i` that missed the target within `epochs`."""
    precision, shift = survival_site(
        float(belief.posterior.mean[i]),
        float(belief.posterior.variance[i]),
        math.log(epochs + 0.5),
        belief.noise_variance,
    )
    precisions, shifts = belief.site_precision.copy(), belief.site_shift.copy()
    precisions[i] += precision
    shifts[i] += shift
    return with_posterior(replace(belief, site_precision=precisions, site_shift=shifts))


def detect_drift(belief: EpochsBelief, i: int, epochs: float, *, reached: bool) -> tuple[EpochsBelief, bool]:
    """Compare a run with its prediction, before the run is counted.

    A failed run counts only once it is past the mean. Its residual is then at least one standard deviation. On an
    alarm the posterior, widened, becomes the new prior, and all counts start from zero.

    Args:
        belief: the belief before the run.
        i: index of the run's batch size.
        epochs: epochs of the run.
        reached: whether the run reached the target.

    Returns:
        The belief with updated CUSUMs or with the new prior, and whether the alarm was raised.
    """
    spread = math.sqrt(float(belief.posterior.variance[i]) + belief.noise_variance)
    residual = (math.log(epochs if reached else epochs + 0.5) - float(belief.posterior.mean[i])) / spread
    if not reached:
        if residual <= 0:
            return belief, False
        residual = max(residual, 1.0)
    residual = min(max(residual, -DRIFT_CLIP), DRIFT_CLIP)
    rising = max(0.0, belief.rising + residual - DRIFT_SLACK)
    falling = max(0.0, belief.falling - residual - DRIFT_SLACK)
    if max(rising, falling) <= DRIFT_THRESHOLD:
        return replace(belief, rising=rising, falling=falling), False
    posterior = belief.posterior
    widened = posterior.covariance + DRIFT_LEVEL_SD**2 + DRIFT_SHAPE_SHARE * KERNEL.around_level(belief.x, belief.x)
    return initial(belief.x, Gaussian(posterior.mean, widened), belief.squares / 2, belief.freedom / 2), True


def with_runs_in_flight(belief: EpochsBelief, in_flight: Vector) -> Gaussian:
    """Return the posterior of the mean of ln T, as narrow as if the runs in flight had ended as expected.

    Args:
        belief: the belief without these runs.
        in_flight: number of runs in flight per batch size (n,).
    """
    precision = (belief.runs + in_flight) / belief.noise_variance + belief.site_precision
    return Gaussian(belief.posterior.mean, belief.prior.condition(precision, precision).covariance)


def with_posterior(belief: EpochsBelief) -> EpochsBelief:
    """Return the belief with the noise and the posterior that follow from its counts."""
    noise = (NOISE_RUNS * NOISE_SD**2 + belief.squares) / (NOISE_RUNS + belief.freedom)
    noise = max(noise, MIN_NOISE_SD**2)
    precision = belief.runs / noise
    posterior = belief.prior.condition(precision + belief.site_precision, precision * belief.mean + belief.site_shift)
    return replace(belief, noise_variance=noise, posterior=posterior)
