"""What a job's runs say about the epochs that they need to reach the target, T, by batch size.

ln T is a Gaussian process over x = log2(batch size / default): smooth, and the same on every GPU. A converged run
observes it with noise, a failed one says that it needs more epochs than it had. When T is seen to have changed
(drift), what was known is kept as a guess and learnt anew.

The constants are those of docs/policies.md. Nothing here knows what an epoch costs.
"""

import math
from dataclasses import dataclass, field, replace

import numpy as np

from backend.core.gp_ucb.gaussian import Gaussian, Kernel, Vector, survival_site

KERNEL = Kernel(level=2.0, slope=0.2, shape=0.2, jitter=0.05, length=4.0)
MEAN_BELOW_MAX_EPOCHS = 1.5
"""How far the prior mean of ln T at the default lies under ln max_epochs."""
MEAN_SLOPE = 0.15
"""Prior mean of the rise of ln T per doubling of the batch size."""
NOISE_SD, NOISE_RUNS, LEAST_NOISE_SD = 0.15, 4.0, 0.02
"""Spread of ln T between runs of one batch size: a guess, the runs that it is worth, and the least."""
DRIFT_CLIP, DRIFT_SLACK, DRIFT_THRESHOLD = 4.0, 0.75, 5.0
"""CUSUM of standardised residuals: largest residual, what each may be off, the sum that raises the alarm."""
DRIFT_LEVEL_SD, DRIFT_SHAPE_SHARE = 1.0, 0.5
"""What an alarm adds to the covariance: to the common level, and as a share of the kernel's slope and shape."""


@dataclass(frozen=True, slots=True)
class EpochsBelief:
    """What is known of ln T. Vectors (n,) have one entry per batch size, ascending; none is changed in place."""

    x: Vector
    prior: Gaussian
    """What was known before the runs counted here."""
    runs: Vector
    """Converged runs."""
    mean: Vector
    """Mean of their ln T."""
    site_precision: Vector
    """What the failed runs say: precision of their evidence on ln T, and"""
    site_shift: Vector
    """that precision times its mean."""
    squares: float = 0.0
    """Sum of squares of ln T around the means of the batch sizes, and"""
    freedom: float = 0.0
    """its degrees of freedom."""
    rising: float = 0.0
    """CUSUM of what says that T has grown, and"""
    falling: float = 0.0
    """that it has shrunk."""
    noise_variance: float = NOISE_SD**2
    """Variance of ln T between runs of one batch size."""
    law: Gaussian = field(kw_only=True)
    """The law of the mean of ln T, given all of this."""


def cold(x: Vector, max_epochs: int) -> Gaussian:
    """The law of ln T of a job of which nothing has run."""
    mean = math.log(max_epochs) - MEAN_BELOW_MAX_EPOCHS + MEAN_SLOPE * x
    return Gaussian(mean, KERNEL.covariance(x))


def beginning(x: Vector, prior: Gaussian, squares: float = 0.0, freedom: float = 0.0) -> EpochsBelief:
    """What is known before the first run; of the noise, what `squares` and `freedom` of earlier ones tell."""
    none = np.zeros(len(x))
    return with_law(EpochsBelief(x, prior, none, none, none, none, squares, freedom, law=prior))


def converged(belief: EpochsBelief, at: int, epochs: float) -> EpochsBelief:
    """What is known after a run of batch size number `at` that reached the target after `epochs`."""
    value = math.log(epochs)
    runs, mean = belief.runs.copy(), belief.mean.copy()
    runs[at] += 1
    before = value - mean[at]
    mean[at] += before / runs[at]
    squares, freedom = belief.squares, belief.freedom
    if runs[at] > 1:
        squares, freedom = squares + before * (value - mean[at]), freedom + 1
    return with_law(replace(belief, runs=runs, mean=mean, squares=squares, freedom=freedom))


def failed(belief: EpochsBelief, at: int, epochs: float) -> EpochsBelief:
    """What is known after a run of batch size number `at` that had not reached the target after `epochs`."""
    precision, shift = survival_site(
        float(belief.law.mean[at]),
        float(belief.law.variance[at]),
        math.log(epochs + 0.5),
        belief.noise_variance,
    )
    precisions, shifts = belief.site_precision.copy(), belief.site_shift.copy()
    precisions[at] += precision
    shifts[at] += shift
    return with_law(replace(belief, site_precision=precisions, site_shift=shifts))


def watch(belief: EpochsBelief, at: int, epochs: float, *, reached: bool) -> tuple[EpochsBelief, bool]:
    """Compare a run with what was expected of it, before it is taken in; whether T must have changed.

    A failed run counts only where it is already past the mean: as one standard deviation, or as far as it is past.
    On alarm what was known becomes the new prior, widened, and all counting begins anew.
    """
    spread = math.sqrt(float(belief.law.variance[at]) + belief.noise_variance)
    residual = (math.log(epochs if reached else epochs + 0.5) - float(belief.law.mean[at])) / spread
    if not reached:
        if residual <= 0:
            return belief, False
        residual = max(residual, 1.0)
    residual = min(max(residual, -DRIFT_CLIP), DRIFT_CLIP)
    rising = max(0.0, belief.rising + residual - DRIFT_SLACK)
    falling = max(0.0, belief.falling - residual - DRIFT_SLACK)
    if max(rising, falling) <= DRIFT_THRESHOLD:
        return replace(belief, rising=rising, falling=falling), False
    law = belief.law
    widened = law.covariance + DRIFT_LEVEL_SD**2 + DRIFT_SHAPE_SHARE * KERNEL.around_level(belief.x, belief.x)
    return beginning(belief.x, Gaussian(law.mean, widened), belief.squares / 2, belief.freedom / 2), True


def expecting(belief: EpochsBelief, in_flight: Vector) -> Gaussian:
    """The law of the mean of ln T once runs in flight (their number per batch size) have said as much as expected."""
    precision = (belief.runs + in_flight) / belief.noise_variance + belief.site_precision
    return Gaussian(belief.law.mean, belief.prior.given(precision, precision).covariance)


def with_law(belief: EpochsBelief) -> EpochsBelief:
    """What is known, with the law that follows from what was counted."""
    noise = (NOISE_RUNS * NOISE_SD**2 + belief.squares) / (NOISE_RUNS + belief.freedom)
    noise = max(noise, LEAST_NOISE_SD**2)
    precision = belief.runs / noise
    law = belief.prior.given(precision + belief.site_precision, precision * belief.mean + belief.site_shift)
    return replace(belief, noise_variance=noise, law=law)
