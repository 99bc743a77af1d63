"""Example jobs: the body of a registration, and the same job as a core `Spec`."""

from typing import Any

from backend.core.state import Spec


def job(**changes: Any) -> dict[str, Any]:
    """Return the body of `POST /jobs`. The cost is the energy in joules, time is free, and the target is 1.0."""
    return {
        "job_id": "train",
        "job_id_prefix": "train",
        "batch_sizes": [8, 16, 32],
        "default_batch_size": 16,
        "eta_knob": 1.0,
        "beta_knob": 2.0,
        "target_metric": 1.0,
        "max_epochs": 10,
        "num_pruning_rounds": 2,
        "mab_seed": 1,
        "max_power": 100.0,
        "number_of_gpus": 1,
        "gpu_model": "A40",
    } | changes


def core_spec(**changes: Any) -> Spec:
    """Return the same job as a core `Spec`."""
    return Spec(
        **{
            "batch_sizes": (8, 16, 32),
            "default_batch_size": 16,
            "eta_knob": 1.0,
            "beta_knob": 2.0,
            "target_metric": 1.0,
            "higher_is_better_metric": True,
            "max_epochs": 10,
            "num_pruning_rounds": 2,
            "window_size": 0,
            "mab_prior_mean": 0.0,
            "mab_prior_precision": 0.0,
            "mab_num_explorations": 2,
            "max_power": 100.0,
            "policy": "zeus",
        }
        | changes
    )
