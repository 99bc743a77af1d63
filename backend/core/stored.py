"""A belief as text, so that a server need not read and learn a long history anew, and back.

Only what was counted is written: the laws follow from it, and what a job begins with is at hand anyway. Python writes
the shortest text that is read as the same number, so a belief comes back bit for bit.
"""

import json
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from backend.core import epoch_cost, epochs
from backend.core.belief import Belief
from backend.core.gaussian import Gaussian
from backend.core.state import Trial, TrialStatus, TrialType

VERSION = 2
"""Raised whenever the same trials make another belief, or another text: what was stored before is learnt anew."""

_COUNTED = ("converged", "failed", "failed_since_success", "failed_factor", "changed", "too_large")
_OF_EPOCHS = ("runs", "mean", "site_precision", "site_shift", "squares", "freedom", "rising", "falling")
_OF_EPOCH_COST = ("runs", "mean", "energy_j", "time_s")


def save(belief: Belief, beginning: Belief) -> str:
    """What a belief has learnt since the job's beginning, from one run at least, as text."""
    if belief.last is None:
        raise ValueError("nothing has been learnt yet")
    prior, first = belief.epochs.prior, beginning.epochs.prior
    as_begun = np.array_equal(prior.mean, first.mean) and np.array_equal(prior.covariance, first.covariance)
    return json.dumps(
        {
            "version": VERSION,
            "last": asdict(belief.last),
            "counted": _plain(belief, _COUNTED),
            "epochs": _plain(belief.epochs, _OF_EPOCHS),
            "epochs_prior": None if as_begun else _plain(prior, ("mean", "covariance")),
            "epoch_cost": _plain(belief.epoch_cost, _OF_EPOCH_COST),
        }
    )


def restore(text: str, beginning: Belief) -> Belief | None:
    """The belief that `save` wrote; None if that was another version."""
    told = json.loads(text)
    if told["version"] != VERSION:
        return None
    last, prior = told["last"], told["epochs_prior"]
    first = beginning.epochs if prior is None else replace(beginning.epochs, prior=Gaussian(**_arrays(prior)))
    return replace(
        beginning,
        last=Trial(**last | {"type": TrialType(last["type"]), "status": TrialStatus(last["status"])}),
        epochs=epochs.with_law(replace(first, **_arrays(told["epochs"]))),
        epoch_cost=epoch_cost.with_law(replace(beginning.epoch_cost, **_arrays(told["epoch_cost"]))),
        **_arrays(told["counted"]),
    )


def _plain(part: object, names: tuple[str, ...]) -> dict[str, Any]:
    values = {name: getattr(part, name) for name in names}
    return {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in values.items()}


def _arrays(values: dict[str, Any]) -> dict[str, Any]:
    return {name: np.array(value) if isinstance(value, list) else value for name, value in values.items()}
