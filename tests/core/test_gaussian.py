"""Distributions over a handful of points, against linear algebra, numerical integration and exact arithmetic."""

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import integrate, stats

from backend.core.gp_ucb.gaussian import (
    Gaussian,
    Kernel,
    Vector,
    capped_lognormal_mean,
    inverse_mills,
    normal_cdf,
    survival_site,
)

SWITCH = -30.0  # below it `inverse_mills` is a series

points = st.lists(st.integers(-20, 20), min_size=1, max_size=7, unique=True).map(lambda xs: np.array(sorted(xs)) / 2)
kernels = st.builds(
    Kernel,
    level=st.floats(0.1, 10),
    slope=st.floats(0, 0.5),
    shape=st.floats(0, 0.5),
    jitter=st.floats(0.01, 0.5),
    length=st.floats(1, 10),
)


@st.composite
def observations(draw: st.DrawFn) -> tuple[Gaussian, Vector, Vector]:
    """Return a distribution, and the precisions (some 0) and means of observations of its values."""
    x = draw(points)
    mean = np.array(draw(st.lists(st.floats(-20, 20), min_size=len(x), max_size=len(x))))
    precisions = st.one_of(st.just(0.0), st.floats(1e-3, 1e4))
    precision = np.array(draw(st.lists(precisions, min_size=len(x), max_size=len(x))))
    means = np.array(draw(st.lists(st.floats(-20, 20), min_size=len(x), max_size=len(x))))
    return Gaussian(mean, draw(kernels).covariance(x)), precision, means


def mills(z: float) -> float:
    """Return phi(z)/Phi(z) from scipy's logarithms of both."""
    return float(np.exp(stats.norm.logpdf(z) - stats.norm.logcdf(z)))


def moments_above(mean: float, variance: float, threshold: float, noise_variance: float) -> tuple[float, float]:
    """Return mean and variance of f ~ N(mean, variance), given that f plus noise exceeds a threshold, by quadrature."""
    sd, noise_sd = math.sqrt(variance), math.sqrt(noise_variance)

    def log_density(f: Vector) -> Vector:
        return np.asarray(stats.norm.logpdf(f, mean, sd) + stats.norm.logcdf((f - threshold) / noise_sd))

    grid = np.linspace(mean - 12 * sd, max(mean, threshold) + 12 * max(sd, noise_sd), 20_001)
    logs = log_density(grid)
    low, high = grid[logs > logs.max() - 60][[0, -1]]
    values = np.linspace(low, high, 2001)  # the density vanishes at both ends, so equal weights are exact
    mass = np.exp(log_density(values) - logs.max())
    centre = float((mass * values).sum() / mass.sum())
    return centre, float((mass * (values - centre) ** 2).sum() / mass.sum())


@given(observations())
def test_the_posterior_is_the_joint_distribution_conditioned_on_the_observations(
    observed: tuple[Gaussian, Vector, Vector],
) -> None:
    prior, precision, values = observed
    has_data = precision > 0
    after = prior.condition(precision, precision * values)
    gain = prior.covariance[:, has_data] @ np.linalg.inv(
        prior.covariance[np.ix_(has_data, has_data)] + np.diag(1 / precision[has_data])
    )
    mean = prior.mean + gain @ (values - prior.mean)[has_data]
    covariance = prior.covariance - gain @ prior.covariance[has_data, :]
    scale = float(prior.variance.max())
    np.testing.assert_allclose(after.mean, mean, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(after.covariance, covariance, rtol=1e-6, atol=1e-9 * scale)


@given(observations())
def test_observations_make_no_value_less_certain_and_no_variance_negative(
    observed: tuple[Gaussian, Vector, Vector],
) -> None:
    prior, precision, values = observed
    after = prior.condition(precision, precision * values)
    assert (after.variance > 0).all()
    assert (after.variance <= prior.variance * (1 + 1e-9)).all()


@given(observations())
def test_without_observations_nothing_changes(observed: tuple[Gaussian, Vector, Vector]) -> None:
    prior, precision, _ = observed
    none = np.zeros_like(precision)
    after = prior.condition(none, none)
    np.testing.assert_array_equal(after.mean, prior.mean)
    np.testing.assert_array_equal(after.covariance, prior.covariance)


@given(observations())
def test_observations_at_once_or_in_two_parts_give_the_same_posterior(
    observed: tuple[Gaussian, Vector, Vector],
) -> None:
    prior, precision, values = observed
    first = precision * (np.arange(len(precision)) % 2)
    second = precision - first
    at_once = prior.condition(precision, precision * values)
    in_turn = prior.condition(first, first * values).condition(second, second * values)
    np.testing.assert_allclose(in_turn.mean, at_once.mean, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(
        in_turn.covariance, at_once.covariance, rtol=1e-5, atol=1e-8 * float(prior.variance.max())
    )


@pytest.mark.parametrize("runs", [1, 100, 10_000])
def test_even_dozens_of_close_points_with_many_exact_runs_keep_a_variance_above_zero(runs: int) -> None:
    x = np.log2(np.arange(1000.0, 1064.0) / 1000)
    prior = Gaussian(np.zeros(64), Kernel(level=2.0, slope=0.2, shape=0.2, jitter=0.05, length=4.0).covariance(x))
    noise = 0.02**2 / runs
    after = prior.condition(np.full(64, 1 / noise), np.full(64, 3.0 / noise))
    assert (after.variance > 0).all()
    assert (after.variance <= noise).all()
    np.testing.assert_allclose(after.mean, 3.0, atol=0.01)


@given(kernels, points)
def test_a_covariance_is_symmetric_and_positive(kernel: Kernel, x: Vector) -> None:
    covariance = kernel.covariance(x)
    np.testing.assert_array_equal(covariance, covariance.T)
    assert np.linalg.eigvalsh(covariance).min() > 0
    np.testing.assert_allclose(covariance, kernel.covariance(x, x))


@given(st.floats(-8, 8))
def test_the_normal_distribution_function_is_that_of_scipy(z: float) -> None:
    assert normal_cdf(z) == pytest.approx(stats.norm.cdf(z), rel=1e-12)


@given(st.floats(-3000, 35))
def test_the_inverse_mills_ratio_is_right_from_far_below_to_far_above(z: float) -> None:
    assert inverse_mills(z) == pytest.approx(mills(z), rel=1e-6, abs=1e-290)


def test_the_inverse_mills_ratio_does_not_jump_where_it_changes_to_the_series() -> None:
    above, below = inverse_mills(SWITCH), inverse_mills(math.nextafter(SWITCH, -math.inf))
    assert below == pytest.approx(above, rel=1e-7)


@given(st.floats(-1e6, -30))
def test_far_below_zero_the_inverse_mills_ratio_lies_between_its_known_bounds(z: float) -> None:
    assert -z * (1 - 1e-12) < inverse_mills(z) <= (-z + 1 / -z) * (1 + 1e-12)


@pytest.mark.parametrize("z", [40.0, 1e3, 1e100])
def test_far_above_zero_the_inverse_mills_ratio_is_nothing(z: float) -> None:
    assert inverse_mills(z) == 0.0


@given(st.floats(-60, 8), st.floats(0.01, 0.5))
def test_the_inverse_mills_ratio_falls(z: float, step: float) -> None:
    assert inverse_mills(z + step) < inverse_mills(z)


@pytest.mark.parametrize("noise_variance", [0.02**2, 0.15**2, 1.0])
@pytest.mark.parametrize("variance", [0.01, 1.0, 4.1])
@pytest.mark.parametrize("above_mean", [-3.0, -1.0, 0.0, 1.0, 3.0])
def test_a_run_that_failed_moves_mean_and_variance_as_numerical_integration_does(
    above_mean: float, variance: float, noise_variance: float
) -> None:
    mean = 2.5
    precision, shift = survival_site(mean, variance, mean + above_mean, noise_variance)
    after = Gaussian(np.array([mean]), np.array([[variance]])).condition(np.array([precision]), np.array([shift]))
    expected_mean, expected_variance = moments_above(mean, variance, mean + above_mean, noise_variance)
    assert after.mean[0] == pytest.approx(expected_mean, rel=1e-6, abs=1e-6)
    assert after.variance[0] == pytest.approx(expected_variance, rel=1e-4)


@given(
    mean=st.floats(-10, 30),
    variance=st.floats(1e-6, 10),
    threshold=st.floats(-10, 30),
    noise_variance=st.floats(0.02**2, 1),
)
def test_a_run_that_failed_never_lowers_the_mean_nor_widens_the_posterior(
    mean: float, variance: float, threshold: float, noise_variance: float
) -> None:
    precision, shift = survival_site(mean, variance, threshold, noise_variance)
    assert math.isfinite(precision)
    assert precision >= 0
    after = Gaussian(np.array([mean]), np.array([[variance]])).condition(np.array([precision]), np.array([shift]))
    assert after.mean[0] >= mean - 1e-9 * max(1, abs(mean))
    assert 0 < after.variance[0] <= variance


@given(mean=st.floats(-3, 3), variance=st.floats(0.01, 4))
def test_a_run_that_failed_long_before_its_expected_end_says_next_to_nothing(mean: float, variance: float) -> None:
    precision, shift = survival_site(mean, variance, mean - 12 * math.sqrt(variance + 0.0225), 0.0225)
    assert precision == pytest.approx(0, abs=1e-20)
    assert shift == pytest.approx(0, abs=1e-20)


@given(mu=st.floats(-20, 30), sigma=st.floats(0.02, 2), ratio=st.floats(-5, 5))
def test_the_mean_of_a_capped_cost_is_what_numerical_integration_gives(mu: float, sigma: float, ratio: float) -> None:
    log_cap = mu + ratio * sigma
    value = capped_lognormal_mean(mu, sigma, math.exp(log_cap))

    def integrand(z: float) -> float:
        return math.exp(min(sigma * z, log_cap - mu)) * math.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)

    below = integrate.quad(integrand, -12, ratio, epsabs=0, epsrel=1e-11)[0]
    above = integrate.quad(integrand, ratio, max(12.0, ratio + 12), epsabs=0, epsrel=1e-11)[0]
    assert value / math.exp(mu) == pytest.approx(below + above, rel=1e-8)


@given(mu=st.floats(-20, 30), sigma=st.floats(0.02, 2))
def test_a_cap_far_above_a_cost_means_nothing(mu: float, sigma: float) -> None:
    assert capped_lognormal_mean(mu, sigma, math.exp(mu + 15 * sigma)) == pytest.approx(math.exp(mu + sigma**2 / 2))


@given(mu=st.floats(-20, 30), sigma=st.floats(0.02, 2))
def test_a_cap_far_below_a_cost_is_the_cost(mu: float, sigma: float) -> None:
    cap = math.exp(mu - 15 * sigma)
    assert capped_lognormal_mean(mu, sigma, cap) == pytest.approx(cap)


@given(mu=st.floats(-20, 30), sigma=st.floats(0.02, 2), ratio=st.floats(-10, 10), factor=st.floats(1.01, 10))
def test_a_higher_cap_never_makes_a_run_cheaper_nor_more_expensive_than_the_cap(
    mu: float, sigma: float, ratio: float, factor: float
) -> None:
    cap = math.exp(mu + ratio * sigma)
    mean = capped_lognormal_mean(mu, sigma, cap)
    assume(mean > 0)
    assert mean <= cap * (1 + 1e-12)
    assert mean <= capped_lognormal_mean(mu, sigma, cap * factor) * (1 + 1e-12)
