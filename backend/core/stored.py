"""What a policy knows from a job's ended trials as text, and back, so that a long history need not be read anew.

Only what was counted is written: what a job begins with is at hand anyway, and all else follows. Python writes the
shortest text that is read as the same number, so what is known comes back bit for bit.
"""

import json
from dataclasses import asdict, astuple, fields, replace
from typing import Any

import numpy as np

from backend.core.gp_ucb import epoch_cost, epochs
from backend.core.gp_ucb.belief import Belief
from backend.core.gp_ucb.gaussian import Gaussian
from backend.core.state import Past, Trial, TrialStatus, TrialType
from backend.core.zeus.results import Results, Rewards

VERSION = 2
"""Raised whenever the same trials come to something else, or another text: what was stored before is learnt anew."""

_COUNTED = ("converged", "failed", "failed_since_success", "failed_factor", "changed", "too_large")
_OF_EPOCHS = ("runs", "mean", "site_precision", "site_shift", "squares", "freedom", "rising", "falling")
_OF_EPOCH_COST = ("runs", "mean", "energy_j", "time_s")
_TRIAL = tuple(field.name for field in fields(Trial))


def save(past: Past, beginning: Past) -> str:
    """What has been learnt since the job's beginning, from one run at least, as text."""
    if past.last is None:
        raise ValueError("nothing has been learnt yet")
    match past, beginning:
        case Belief(), Belief():
            told = _told_by_belief(past, beginning)
        case Results(), Results():
            told = _told_by_results(past)
        case _:
            raise TypeError(f"{type(past).__name__} did not begin as {type(beginning).__name__}")
    return json.dumps({"version": VERSION, "last": asdict(past.last)} | told)


def restore(text: str, beginning: Past) -> Past | None:
    """What `save` wrote; None if that was another version."""
    told = json.loads(text)
    if told["version"] != VERSION:
        return None
    known = _belief(told, beginning) if isinstance(beginning, Belief) else _results(told)
    return replace(known, last=_trial(told["last"]))


def _told_by_belief(belief: Belief, beginning: Belief) -> dict[str, Any]:
    prior, first = belief.epochs.prior, beginning.epochs.prior
    as_begun = np.array_equal(prior.mean, first.mean) and np.array_equal(prior.covariance, first.covariance)
    return {
        "counted": _plain(belief, _COUNTED),
        "epochs": _plain(belief.epochs, _OF_EPOCHS),
        "epochs_prior": None if as_begun else _plain(prior, ("mean", "covariance")),
        "epoch_cost": _plain(belief.epoch_cost, _OF_EPOCH_COST),
    }


def _belief(told: dict[str, Any], beginning: Belief) -> Belief:
    prior = told["epochs_prior"]
    first = beginning.epochs if prior is None else replace(beginning.epochs, prior=Gaussian(**_arrays(prior)))
    return replace(
        beginning,
        epochs=epochs.with_law(replace(first, **_arrays(told["epochs"]))),
        epoch_cost=epoch_cost.with_law(replace(beginning.epoch_cost, **_arrays(told["epoch_cost"]))),
        **_arrays(told["counted"]),
    )


def _told_by_results(known: Results) -> dict[str, Any]:
    return {
        "rewards": {size: astuple(rewards) for size, rewards in known.rewards.items()},
        "explored": [astuple(trial) for trial in known.explored],
        "cheapest": known.cheapest and asdict(known.cheapest),
    }


def _results(told: dict[str, Any]) -> Results:
    return Results(
        rewards={
            int(size): Rewards(runs, mean_j, squares, tuple(latest_j))
            for size, (runs, mean_j, squares, latest_j) in told["rewards"].items()
        },
        explored=tuple(_trial(dict(zip(_TRIAL, values, strict=True))) for values in told["explored"]),
        cheapest=told["cheapest"] and _trial(told["cheapest"]),
    )


def _trial(values: dict[str, Any]) -> Trial:
    return Trial(**values | {"type": TrialType(values["type"]), "status": TrialStatus(values["status"])})


def _plain(part: object, names: tuple[str, ...]) -> dict[str, Any]:
    values = {name: getattr(part, name) for name in names}
    return {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in values.items()}


def _arrays(values: dict[str, Any]) -> dict[str, Any]:
    return {name: np.array(value) if isinstance(value, list) else value for name, value in values.items()}
