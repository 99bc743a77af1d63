"""A policy's summary of ended trials as text, and back. It saves reading a long history again.

The text holds only counts. The initial summary of the job is an argument, and everything else follows from both.
Python writes the shortest text that reads as the same number, so the summary is restored bit for bit.

The JSON keys and the names in the tuples below are the stored format. A change needs a new `VERSION`.
"""

import hashlib
import json
import math
from dataclasses import fields, replace
from typing import Any

import numpy as np

from .gp_ucb import epoch_cost, epochs
from .gp_ucb.belief import Belief
from .gp_ucb.gaussian import Gaussian
from .state import EndedSummary, Trial, TrialStatus, TrialType
from .zeus.results import Results, Rewards

VERSION = 6
"""Raise it whenever the same trials give another summary or another text. Older texts are then ignored."""
NOTHING = '{"version": 0}'
"""The text while no run has ended. Programs of any version ignore it, so a job may be served by two of them."""

_HEAD_LENGTH = len('{"digest": "0123456789abcdef", ')

_COUNTED = (
    "converged",
    "failed",
    "failed_since_success",
    "priced_out",
    "failed_factor",
    "changed",
    "paid",
    "too_large",
)
_OF_EPOCHS = ("runs", "mean", "site_precision", "site_shift", "squares", "freedom", "rising", "falling")
_OF_EPOCH_COST = ("runs", "mean", "energy_j", "time_s")
_TRIAL = tuple(field.name for field in fields(Trial))
_REWARDS = tuple(field.name for field in fields(Rewards))


def save(summary: EndedSummary, initial: EndedSummary, reference_cost_j: float) -> str:
    """Return a summary as text.

    Args:
        summary: the summary of at least one run.
        initial: the job's summary before its first run.
        reference_cost_j: the policy's reference cost after these runs, in joules; infinity: there is none yet.

    Raises:
        ValueError: the summary covers no run.
        TypeError: the two summaries are of different policies.
    """
    if summary.last is None:
        raise ValueError("the summary covers no run; there is nothing to save")
    match summary, initial:
        case Belief(), Belief():
            data = _belief_data(summary, initial)
        case Results(), Results():
            data = _results_data(summary)
        case _:
            raise TypeError(f"{type(summary).__name__} and {type(initial).__name__} are of different policies")
    reference = reference_cost_j if math.isfinite(reference_cost_j) else None
    return _with_digest(
        json.dumps({"version": VERSION, "reference_cost_j": reference, "last": _plain(summary.last, _TRIAL)} | data)
    )


def restore(text: str, initial: EndedSummary) -> EndedSummary | None:
    """Return the summary that `save` turned into text; None if the text is damaged or of another version.

    Args:
        text: the text.
        initial: the job's summary before its first run.
    """
    data = _read(text)
    if data is None:
        return None
    summary = _to_belief(data, initial) if isinstance(initial, Belief) else _to_results(data)
    return replace(summary, last=_to_trial(data["last"]))


def reference_cost(text: str) -> float | None:
    """Return the reference cost that `save` put into the text; None if the text is damaged or of another version."""
    if text == NOTHING:
        return math.inf
    data = _read(text)
    if data is None:
        return None
    reference_j: float | None = data["reference_cost_j"]
    return math.inf if reference_j is None else reference_j


def _read(text: str) -> dict[str, Any] | None:
    plain = "{" + text[_HEAD_LENGTH:]
    if text != _with_digest(plain):
        return None
    data: dict[str, Any] = json.loads(plain)
    return data if data["version"] == VERSION else None


def _with_digest(text: str) -> str:
    """Return a JSON object as text with its own hash as the first member, which shows whether the text is damaged."""
    return f'{{"digest": "{hashlib.sha256(text.encode()).hexdigest()[:16]}", {text[1:]}'


def _belief_data(belief: Belief, initial: Belief) -> dict[str, Any]:
    prior, first = belief.epochs.prior, initial.epochs.prior
    unchanged = np.array_equal(prior.mean, first.mean) and np.array_equal(prior.covariance, first.covariance)
    return {
        "counted": _plain(belief, _COUNTED),
        "epochs": _plain(belief.epochs, _OF_EPOCHS),
        "epochs_prior": None if unchanged else _plain(prior, ("mean", "covariance")),
        "epoch_cost": _plain(belief.epoch_cost, _OF_EPOCH_COST),
    }


def _to_belief(data: dict[str, Any], initial: Belief) -> Belief:
    prior = data["epochs_prior"]
    first = initial.epochs if prior is None else replace(initial.epochs, prior=Gaussian(**_arrays(prior)))
    return replace(
        initial,
        epochs=epochs.with_posterior(replace(first, **_arrays(data["epochs"]))),
        epoch_cost=epoch_cost.with_posterior(replace(initial.epoch_cost, **_arrays(data["epoch_cost"]))),
        **_arrays(data["counted"]),
    )


def _results_data(results: Results) -> dict[str, Any]:
    return {
        "rewards": {size: [getattr(rewards, name) for name in _REWARDS] for size, rewards in results.rewards.items()},
        "explored": [[getattr(trial, name) for name in _TRIAL] for trial in results.explored],
        "cheapest": results.cheapest and _plain(results.cheapest, _TRIAL),
    }


def _to_results(data: dict[str, Any]) -> Results:
    return Results(
        rewards={
            int(size): Rewards(runs, mean_j, squares, tuple(latest_j))
            for size, (runs, mean_j, squares, latest_j) in data["rewards"].items()
        },
        explored=tuple(_to_trial(dict(zip(_TRIAL, values, strict=True))) for values in data["explored"]),
        cheapest=data["cheapest"] and _to_trial(data["cheapest"]),
    )


def _to_trial(values: dict[str, Any]) -> Trial:
    return Trial(**values | {"type": TrialType(values["type"]), "status": TrialStatus(values["status"])})


def _plain(part: object, names: tuple[str, ...]) -> dict[str, Any]:
    values = {name: getattr(part, name) for name in names}
    return {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in values.items()}


def _arrays(values: dict[str, Any]) -> dict[str, Any]:
    return {name: np.array(value) if isinstance(value, list) else value for name, value in values.items()}
