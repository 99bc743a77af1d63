"""Studies: the cost of the recurrences of policies and baselines, on workloads and over many seeds.

`report` shows the results of a study.
"""

import math
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from ..core import baselines, policies
from ..core.baselines import pick_at_random, search_grid
from ..core.gp_ucb.belief import Belief
from ..core.gp_ucb.gaussian import Matrix, Vector
from ..core.policies import POLICIES, choose
from ..core.simulate import (
    Chooser,
    EndlessRetry,
    Run,
    Workload,
    cheapest_size,
    no_drift,
    simulate,
    simulate_fixed,
)
from ..core.state import NothingConverges

BASELINES: dict[str, Chooser] = {"grid": search_grid, "random": pick_at_random}
CONTENDERS = (*POLICIES, *BASELINES)
LAST = 5
"""Number of recurrences at the end over which savings are computed, as in the paper."""


class NothingToCompare(Exception):
    """Raised when no batch size of a workload ever converges."""


@dataclass(frozen=True, slots=True)
class Drift:
    """From recurrence number `recurrence` on, the epochs to the target are multiplied by `factor`."""

    recurrence: int
    factor: float

    def __call__(self, recurrence: int) -> float:
        """Return the factor in a recurrence."""
        return self.factor if recurrence >= self.recurrence else 1.0


@dataclass(frozen=True, slots=True)
class Scenario:
    """A workload, its number of recurrences, and the circumstances."""

    workload: Workload
    recurrences: int
    concurrency: int = 1
    drift: Drift | None = None
    initial: Belief | None = None
    """Initial belief of gp-ucb, e.g. from a warm start."""
    probe_s: float | None = None
    """Seconds that gp-ucb's probe spends on each batch size after the first run that converges; None: no probe."""


@dataclass(slots=True)
class Outcome:
    """The recurrences of one contender on one workload. Rows are seeds, columns are recurrences."""

    cost_j: Matrix
    energy_j: Matrix
    time_s: Matrix
    failed: int = 0
    """Number of failed launches."""
    stuck: int = 0
    """Number of seeds for which no batch size was left. From there on the user trains with the default."""
    endless: int = 0
    """Number of seeds for which a recurrence failed a thousand times. The user then does the same."""


@dataclass(slots=True)
class Comparison:
    """The outcomes of all contenders on one workload. `default` is None if the default batch size never converges."""

    scenario: Scenario
    clairvoyant: Outcome
    floor: Outcome
    """The first recurrence with the default batch size, then the clairvoyant."""
    default: Outcome | None
    contenders: dict[str, Outcome] = field(default_factory=dict)


def compare(scenario: Scenario, contenders: Sequence[str], seeds: int) -> Comparison:
    """Simulate the contenders, the clairvoyant, the floor and the default on one scenario.

    Raises:
        NothingToCompare: no batch size ever converges.
    """
    workload, drift = scenario.workload, scenario.drift or no_drift
    best = {factor: cheapest_size(workload, factor) for factor in set(map(drift, range(scenario.recurrences)))}
    if None in best.values():
        raise NothingToCompare(f"no batch size of {workload.name} converges within max_epochs")

    def cheapest(recurrence: int) -> int:
        return best[drift(recurrence)] or 0

    def fixed(first: int | None, later: int | None = None) -> list[list[Run]]:
        def size(recurrence: int) -> int:
            return (first if recurrence == 0 else later) or cheapest(recurrence)

        return [simulate_fixed(workload, scenario.recurrences, seed, size, drift) for seed in range(seeds)]

    default = workload.spec.default_batch_size
    try:
        always_default = _outcome(fixed(default, default), scenario.recurrences)
        floor = _outcome(fixed(default), scenario.recurrences)
    except EndlessRetry:
        always_default, floor = None, _outcome(fixed(None), scenario.recurrences)
    clairvoyant = _outcome(fixed(None), scenario.recurrences)
    comparison = Comparison(scenario, clairvoyant, floor, always_default)
    for name in contenders:
        comparison.contenders[name] = _simulate_contender(scenario, name, seeds)
    return comparison


def compare_all(
    scenarios: Sequence[Scenario], contenders: Sequence[str], seeds: int, jobs: int | None = None
) -> Iterator[Comparison]:
    """Run `compare` on several scenarios in parallel, and yield the results in the order of the scenarios.

    Args:
        scenarios: the scenarios.
        contenders: names of policies and baselines.
        seeds: number of seeds.
        jobs: number of processes; None: one per core.
    """
    jobs = jobs or os.cpu_count() or 1
    task = partial(compare, contenders=tuple(contenders), seeds=seeds)
    if jobs == 1:
        yield from map(task, scenarios)
        return
    with ProcessPoolExecutor(jobs) as pool:
        yield from pool.map(task, scenarios)


def ratio(above: Outcome, below: Outcome, recurrences: int, since: int = 0) -> float:
    """Return the total cost of one outcome over that of another, under the same luck.

    Args:
        above: the numerator.
        below: the denominator.
        recurrences: the recurrence at which the sum ends.
        since: the recurrence at which the sum starts.
    """
    return float(above.cost_j[:, since:recurrences].sum() / below.cost_j[:, since:recurrences].sum())


def geometric_mean(values: Sequence[float]) -> float:
    """Return the geometric mean, which suits ratios."""
    return math.exp(sum(map(math.log, values)) / len(values))


def regret(outcome: Outcome, clairvoyant: Outcome) -> Vector:
    """Return the cumulative cost above the clairvoyant's (seeds, recurrences), in joules."""
    above: Vector = np.cumsum(outcome.cost_j - clairvoyant.cost_j, axis=1)
    return above


def _simulate_contender(scenario: Scenario, name: str, seeds: int) -> Outcome:
    workload = scenario.workload
    is_policy = name in POLICIES
    spec = replace(
        workload.spec,
        policy=name if is_policy else "zeus",
        beta_knob=workload.spec.beta_knob if is_policy else None,
    )
    chooser = choose if is_policy else BASELINES[name]
    own_scenario = replace(scenario, workload=replace(workload, spec=spec))
    runs_by_seed, failures = [], []
    for seed in range(seeds):
        runs, failure = _simulate_seed(own_scenario, chooser, seed)
        runs_by_seed.append(runs)
        failures.append(failure)
    outcome = _outcome(runs_by_seed, scenario.recurrences)
    outcome.stuck, outcome.endless = failures.count(NothingConverges), failures.count(EndlessRetry)
    return outcome


def _simulate_seed(scenario: Scenario, chooser: Chooser, seed: int) -> tuple[list[Run], type[Exception] | None]:
    """Return the runs of one seed, and the exception that ended the policy early, if any.

    The remaining recurrences then have a fixed batch size.
    """
    drift = scenario.drift or no_drift
    is_gp_ucb = scenario.workload.spec.policy == "gp-ucb"
    initial, probe_s = (scenario.initial, scenario.probe_s) if is_gp_ucb else (None, None)
    runs: list[Run] = []
    try:
        for run in simulate(
            scenario.workload,
            scenario.recurrences,
            seed,
            chooser=chooser,
            compactor=policies.compact if chooser is choose else baselines.compact,
            concurrency=scenario.concurrency,
            drift=drift,
            initial=initial,
            probe_s=probe_s,
        ):
            runs.append(run)  # noqa: PERF402 - the runs before an exception count
        return runs, None
    except (NothingConverges, EndlessRetry) as error:
        done = {run.recurrence for run in runs if run.converged}
        sizes = {
            factor: _fallback_size(scenario.workload, factor) for factor in set(map(drift, range(scenario.recurrences)))
        }
        rest = simulate_fixed(
            scenario.workload, scenario.recurrences, seed, lambda recurrence: sizes[drift(recurrence)], drift
        )
        return runs + [run for run in rest if run.recurrence not in done], type(error)


def _fallback_size(workload: Workload, stretch: float) -> int:
    """Return the default batch size, or the cheapest one if the default does not converge."""
    default = workload.spec.default_batch_size
    only_default = replace(workload, sizes={default: workload.sizes[default]})
    return cheapest_size(only_default, stretch) or cheapest_size(workload, stretch) or default


def _outcome(runs_by_seed: list[list[Run]], recurrences: int) -> Outcome:
    shape = (len(runs_by_seed), recurrences)
    outcome = Outcome(np.zeros(shape), np.zeros(shape), np.zeros(shape))
    for seed, runs in enumerate(runs_by_seed):
        for run in runs:
            outcome.cost_j[seed, run.recurrence] += run.cost_j
            outcome.energy_j[seed, run.recurrence] += run.energy_j
            outcome.time_s[seed, run.recurrence] += run.time_s
            outcome.failed += not run.converged
    return outcome
