"""Gaussian processes over a handful of points, and the integrals of the normal distribution that decisions need.

Exact, dense and pure numpy: a job has some dozens of batch sizes. The meaning of the points is up to the callers,
`epochs` and `epoch_cost`.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Kernel:
    """Prior covariance of a function over points x, given by the standard deviations of its four parts.

    `level` is a constant, `slope` a line through x = 0, `shape` a smooth curve (Matérn 5/2 with length scale
    `length`), and `jitter` each point's own deviation.
    """

    level: float
    slope: float
    shape: float
    jitter: float
    length: float

    def covariance(self, x: Vector, others: Vector | None = None) -> Matrix:
        """Return the covariance of the function's values at x (rows) and at `others` (columns; by default x)."""
        others = x if others is None else others
        same = (x[:, None] == others[None, :]).astype(float)
        covariance: Matrix = self.level**2 + self.around_level(x, others) + self.jitter**2 * same
        return covariance

    def around_level(self, x: Vector, others: Vector) -> Matrix:
        """Return the part of the covariance that comes from slope and shape."""
        distance = math.sqrt(5) * np.abs(x[:, None] - others[None, :]) / self.length
        matern: Matrix = (1 + distance + distance**2 / 3) * np.exp(-distance)
        return self.slope**2 * np.outer(x, others) + self.shape**2 * matern


@dataclass(frozen=True, slots=True)
class Gaussian:
    """A joint normal distribution of the function's values at the points: mean (n,) and covariance (n, n)."""

    mean: Vector
    covariance: Matrix

    @property
    def variance(self) -> Vector:
        """Variances of the single values (n,)."""
        return self.covariance.diagonal()

    def condition(self, precision: Vector, shift: Vector) -> "Gaussian":
        """Return the posterior after independent normal observations of the values.

        Args:
            precision: precision of the observation of each value (n,), 0 where there is none.
            shift: precision times the mean of the observation (n,).
        """
        root = np.sqrt(precision)
        scaled = root[:, None] * self.covariance
        system = scaled * root
        system.flat[:: len(root) + 1] += 1
        covariance = self.covariance - scaled.T @ np.linalg.solve(system, scaled)
        return Gaussian(self.mean + covariance @ (shift - precision * self.mean), covariance)


def normal_cdf(z: float) -> float:
    """Return the probability that a standard normal value is at most z."""
    return 0.5 * math.erfc(-z / math.sqrt(2))


def inverse_mills(z: float) -> float:
    """Return phi(z)/Phi(z), the normal density over its distribution function, without underflow for z far below 0."""
    if z < -30:  # the first terms of the continued fraction; the relative error is below 1e-5
        return -z - 1 / z + 2 / z**3
    return math.exp(-0.5 * z * z) / math.sqrt(2 * math.pi) / normal_cdf(z)


def survival_site(mean: float, variance: float, threshold: float, noise_variance: float) -> tuple[float, float]:
    """Approximate "the noisy value lies above the threshold" by a normal observation (one assumed-density step).

    The likelihood is Phi((f - threshold)/s), where s² is the noise variance. The step matches the first two moments of
    the posterior of f ~ N(mean, variance) (Rasmussen and Williams, Gaussian Processes for Machine Learning, 3.6).

    Returns:
        The precision of the observation, and that precision times the observation's mean.
    """
    spread = math.sqrt(variance + noise_variance)
    z = (mean - threshold) / spread
    mills = inverse_mills(z)
    first = mills / spread
    second = mills * (z + mills) / spread**2
    remaining = 1 - second * variance  # posterior variance over prior variance, in (0, 1]
    return second / remaining, (mean * second + first) / remaining


def capped_lognormal_mean(mu: float, sigma: float, cap: float) -> float:
    """Return E[min(X, cap)] of a lognormal X whose logarithm has mean mu and standard deviation sigma > 0."""
    distance = (math.log(cap) - mu) / sigma
    below = math.exp(mu + 0.5 * sigma**2) * normal_cdf(distance - sigma)
    return below + cap * normal_cdf(-distance)
