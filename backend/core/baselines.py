"""Baselines to compare the policies with: choosers that learn little or nothing. Only simulations use them."""

from dataclasses import replace

import numpy as np

from .cost import trial_cost
from .state import Choice, JobState, Trial, TrialStatus, TrialType


def pick_at_random(state: JobState, rng: np.random.Generator) -> Choice:
    """Choose any batch size, each with the same probability."""
    return _choice(int(rng.choice(np.asarray(state.spec.batch_sizes))), "at random")


def search_grid(state: JobState, _rng: np.random.Generator) -> Choice:
    """Choose every batch size once, the default first; then always the one whose first converged run was cheapest.

    Until a run has converged, all batch sizes are tried again in turn.
    """
    spec = state.spec
    tried = {trial.batch_size for trial in state.trials}
    for size in (spec.default_batch_size, *spec.batch_sizes):
        if size not in tried:
            return _choice(size, "not tried yet")
    ended = [trial for trial in state.trials if trial.status is TrialStatus.SUCCEEDED]
    if not any(trial.converged for trial in ended):  # try all of them again, in turn
        sizes = spec.batch_sizes
        return _choice(sizes[len(state.trials) % len(sizes)], "no run has converged")
    first_j: dict[int, float] = {}
    for trial in ended:
        if trial.converged:
            first_j.setdefault(trial.batch_size, trial_cost(spec, trial))
    return _choice(min(first_j, key=lambda size: first_j[size]), "its run was the cheapest")


def compact(state: JobState) -> JobState:
    """Return the same job with only the trials that the baselines read.

    Once a trial has converged, one trial per batch size remains: its first that converged, or else its first.
    """
    if not any(trial.converged for trial in state.trials):
        return state
    first: dict[int, Trial] = {}
    for trial in state.trials:
        earlier = first.setdefault(trial.batch_size, trial)
        if trial.converged and not earlier.converged:
            first[trial.batch_size] = trial
    return replace(state, trials=tuple(first.values()))


def _choice(size: int, reason: str) -> Choice:
    return Choice(size, TrialType.MAB, reason, bound_factor=None)
