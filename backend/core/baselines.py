"""What a policy is measured against: ways to pick batch sizes that need no policy."""

from dataclasses import replace

import numpy as np

from backend.core.cost import trial_cost
from backend.core.state import Choice, JobState, Trial, TrialStatus, TrialType


def pick_at_random(state: JobState, rng: np.random.Generator) -> Choice:
    """Any batch size, each with the same chance."""
    return _choice(int(rng.choice(np.asarray(state.spec.batch_sizes))), "at random")


def search_grid(state: JobState, _rng: np.random.Generator) -> Choice:
    """Every batch size once, the default first; then always the one whose only run was cheapest."""
    spec = state.spec
    tried = {trial.batch_size for trial in state.trials}
    for size in (spec.default_batch_size, *spec.batch_sizes):
        if size not in tried:
            return _choice(size, "not tried yet")
    ended = [trial for trial in state.trials if trial.status is TrialStatus.SUCCEEDED]
    if not any(trial.converged for trial in ended):  # and all again, in turn
        sizes = spec.batch_sizes
        return _choice(sizes[len(state.trials) % len(sizes)], "nothing has converged")
    first: dict[int, float] = {}
    for trial in ended:
        if trial.converged:
            first.setdefault(trial.batch_size, trial_cost(spec, trial))
    return _choice(min(first, key=lambda size: first[size]), "its run was the cheapest")


def condensed(state: JobState) -> JobState:
    """The same job with the trials that matter here: once one has converged, the first of each batch size that did."""
    if not any(trial.converged for trial in state.trials):
        return state
    first: dict[int, Trial] = {}
    for trial in state.trials:
        known = first.setdefault(trial.batch_size, trial)
        if trial.converged and not known.converged:
            first[trial.batch_size] = trial
    return replace(state, trials=tuple(first.values()))


def _choice(size: int, reason: str) -> Choice:
    return Choice(size, TrialType.MAB, reason, bound_factor=None)
