"""What the ended runs of a `zeus` job came to, as a summary that grows by one run at a time.

It holds what the bandit and the pruning look at. What follows from it is told by `thompson` and `pruning`.
"""

from dataclasses import dataclass, field, replace
from functools import reduce

from backend.core.cost import trial_cost
from backend.core.state import JobState, Past, Spec, Trial, TrialStatus, TrialType


@dataclass(frozen=True, slots=True)
class Rewards:
    """What the runs of one batch size were rewarded with, in joules: minus the cost of each that has a verdict."""

    runs: int = 0
    mean_j: float = 0.0
    squares: float = 0.0
    """Sum of the squared differences from the mean."""
    latest_j: tuple[float, ...] = ()
    """The last of them, oldest first, where the job counts those of a window alone."""


@dataclass(frozen=True, slots=True)
class Results(Past):
    """The summary. None of its parts is changed in place."""

    rewards: dict[int, Rewards] = field(default_factory=dict)
    """By batch size, of those that have any."""
    explored: tuple[Trial, ...] = ()
    """The runs of the pruning, in the order of their ends."""
    cheapest: Trial | None = None
    """The converged run that cost least, the earliest of equals."""


def results(state: JobState) -> Results:
    """What all ended runs of a job came to."""
    known = Results() if state.past is None else state.past
    if not isinstance(known, Results):
        raise TypeError(f"{type(known).__name__} is what another policy knows")
    ended = [trial for trial in state.trials if trial.status is TrialStatus.SUCCEEDED]
    ended.sort(key=lambda trial: trial.ended or 0)
    return reduce(lambda known, trial: with_run(state.spec, known, trial), ended, known)


def with_run(spec: Spec, known: Results, trial: Trial) -> Results:
    """The summary after one more run, which has ended with a verdict."""
    of_size = with_reward(spec, known.rewards.get(trial.batch_size, Rewards()), -trial_cost(spec, trial))
    return replace(
        known,
        last=trial,
        rewards=known.rewards | {trial.batch_size: of_size},
        explored=(*known.explored, trial) if trial.type is TrialType.PRUNING else known.explored,
        cheapest=_cheaper(spec, known.cheapest, trial) if trial.converged else known.cheapest,
    )


def with_reward(spec: Spec, known: Rewards, reward_j: float) -> Rewards:
    """The rewards and one more; mean and squares are carried on as Welford does (Technometrics 4, 1962)."""
    runs = known.runs + 1
    mean_j = known.mean_j + (reward_j - known.mean_j) / runs
    return Rewards(
        runs,
        mean_j,
        known.squares + (reward_j - known.mean_j) * (reward_j - mean_j),
        (*known.latest_j, reward_j)[-spec.window_size :] if spec.window_size else (),
    )


def _cheaper(spec: Spec, one: Trial | None, other: Trial) -> Trial:
    return other if one is None else min(one, other, key=lambda trial: (trial_cost(spec, trial), trial.number))
