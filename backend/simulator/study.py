"""Policies and baselines on workloads, over many seeds: what their recurrences cost in all."""

import math
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from backend.core import baselines, policies
from backend.core.baselines import pick_at_random, search_grid
from backend.core.gp_ucb.belief import Belief
from backend.core.gp_ucb.gaussian import Matrix, Vector
from backend.core.policies import POLICIES, choose
from backend.core.simulate import (
    Chooser,
    EndlessRetry,
    Run,
    Workload,
    cheapest_size,
    no_drift,
    simulate,
    simulate_fixed,
)
from backend.core.state import NothingConverges

BASELINES: dict[str, Chooser] = {"grid": search_grid, "random": pick_at_random}
CONTENDERS = (*POLICIES, *BASELINES)
LAST = 5
"""Recurrences at the end that the savings are counted over, as in the paper."""


class NothingToCompare(Exception):
    """Raised when no batch size of a workload ever converges."""


@dataclass(frozen=True, slots=True)
class Drift:
    """From a recurrence on, the epochs to the target are multiplied."""

    recurrence: int
    factor: float

    def __call__(self, recurrence: int) -> float:
        """The factor in a recurrence."""
        return self.factor if recurrence >= self.recurrence else 1.0


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is played: a workload, for how long, and under which circumstances."""

    workload: Workload
    recurrences: int
    concurrency: int = 1
    drift: Drift | None = None
    past: Belief | None = None
    """What gp-ucb knows at the beginning."""
    probe_s: float | None = None
    """Seconds for which gp-ucb tries every batch size after the first run that converges; None: it does not."""


@dataclass(slots=True)
class Outcome:
    """What one contender's recurrences cost on one workload; rows are seeds, columns recurrences."""

    cost_j: Matrix
    energy_j: Matrix
    time_s: Matrix
    failed: int = 0
    """Launches that failed."""
    stuck: int = 0
    """Seeds under which no batch size was left; from there on its user trained with the default."""
    endless: int = 0
    """Seeds under which a recurrence failed a thousand times; from there on likewise."""


@dataclass(slots=True)
class Comparison:
    """Everyone on one workload. `default` is None if the default batch size never converges."""

    scenario: Scenario
    clairvoyant: Outcome
    floor: Outcome
    """The first recurrence at the default, then clairvoyant."""
    default: Outcome | None
    contenders: dict[str, Outcome] = field(default_factory=dict)


def compare(scenario: Scenario, contenders: Sequence[str], seeds: int) -> Comparison:
    """Play contenders, and what they are measured against, on one scenario.

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
    found = Comparison(scenario, clairvoyant, floor, always_default)
    for name in contenders:
        found.contenders[name] = _play(scenario, name, seeds)
    return found


def compare_all(
    scenarios: Sequence[Scenario], contenders: Sequence[str], seeds: int, jobs: int | None = None
) -> Iterator[Comparison]:
    """`compare` on several scenarios, in as many processes as there are cores, in their order."""
    jobs = jobs or os.cpu_count() or 1
    task = partial(compare, contenders=tuple(contenders), seeds=seeds)
    if jobs == 1:
        yield from map(task, scenarios)
        return
    with ProcessPoolExecutor(jobs) as pool:
        yield from pool.map(task, scenarios)


def ratio(above: Outcome, below: Outcome, recurrences: int, since: int = 0) -> float:
    """Mean total cost of the first recurrences over that of another; luck is the same for both."""
    return float(above.cost_j[:, since:recurrences].sum() / below.cost_j[:, since:recurrences].sum())


def geometric_mean(values: Sequence[float]) -> float:
    """The mean of ratios."""
    return math.exp(sum(map(math.log, values)) / len(values))


def regret(outcome: Outcome, clairvoyant: Outcome) -> Vector:
    """Cumulative cost above the clairvoyant's (seeds, recurrences), in joules."""
    above: Vector = np.cumsum(outcome.cost_j - clairvoyant.cost_j, axis=1)
    return above


def _play(scenario: Scenario, name: str, seeds: int) -> Outcome:
    workload = scenario.workload
    bounded = name in POLICIES
    spec = replace(
        workload.spec,
        policy=name if bounded else "zeus",
        beta_knob=workload.spec.beta_knob if bounded else None,
    )
    chooser = choose if bounded else BASELINES[name]
    own = replace(scenario, workload=replace(workload, spec=spec))
    played, left_off = [], []
    for seed in range(seeds):
        runs, why = _until_left_off(own, chooser, seed)
        played.append(runs)
        left_off.append(why)
    found = _outcome(played, scenario.recurrences)
    found.stuck, found.endless = left_off.count(NothingConverges), left_off.count(EndlessRetry)
    return found


def _until_left_off(scenario: Scenario, chooser: Chooser, seed: int) -> tuple[list[Run], type[Exception] | None]:
    """The runs of one seed, and why its user had to do without the policy from some recurrence on."""
    drift = scenario.drift or no_drift
    past, probe_s = (scenario.past, scenario.probe_s) if scenario.workload.spec.policy == "gp-ucb" else (None, None)
    runs: list[Run] = []
    try:
        for run in simulate(
            scenario.workload,
            scenario.recurrences,
            seed,
            chooser=chooser,
            condense=policies.condensed if chooser is choose else baselines.condensed,
            concurrency=scenario.concurrency,
            drift=drift,
            past=past,
            probe_s=probe_s,
        ):
            runs.append(run)  # noqa: PERF402 - what was played before counts
        return runs, None
    except (NothingConverges, EndlessRetry) as error:
        done = {run.recurrence for run in runs if run.converged}
        sizes = {
            factor: _fallback(scenario.workload, factor) for factor in set(map(drift, range(scenario.recurrences)))
        }
        rest = simulate_fixed(scenario.workload, scenario.recurrences, seed, lambda at: sizes[drift(at)], drift)
        return runs + [run for run in rest if run.recurrence not in done], type(error)


def _fallback(workload: Workload, stretch: float) -> int:
    """The default batch size, or the cheapest where the default does not converge."""
    default = workload.spec.default_batch_size
    only_default = replace(workload, sizes={default: workload.sizes[default]})
    return cheapest_size(only_default, stretch) or cheapest_size(workload, stretch) or default


def _outcome(played: list[list[Run]], recurrences: int) -> Outcome:
    shape = (len(played), recurrences)
    found = Outcome(np.zeros(shape), np.zeros(shape), np.zeros(shape))
    for seed, runs in enumerate(played):
        for run in runs:
            found.cost_j[seed, run.recurrence] += run.cost_j
            found.energy_j[seed, run.recurrence] += run.energy_j
            found.time_s[seed, run.recurrence] += run.time_s
            found.failed += not run.converged
    return found
