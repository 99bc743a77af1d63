"""The state of a run in a checkpoint: its contents, and the checks before a run resumes from it.

A state is a dict of plain values. Its keys are a file format, so a later version must still read them.
`optimizer` decides when to save and to load a state. `lightning.checkpoints` finds the state in a checkpoint file.
"""

from typing import Any

from lightning_bso.errors import BSOError
from lightning_bso.wire import AskAnswer, JobSpec


def reported_state(
    trial: AskAnswer, run_id: str, energy_j: float, time_s: float, metric: float | None
) -> dict[str, Any]:
    """Return the state of a run that has a trial. `metric` is the last that was reported."""
    return {
        "job_id": trial.job_id,
        "run_id": run_id,
        "trial_number": trial.trial_number,
        "batch_size": trial.batch_size,
        "energy_j": energy_j,
        "time_s": time_s,
        "metric": metric,
    }


def unreported_state(batch_size: int) -> dict[str, Any]:
    """Return the state of a run that is not reported. It names no trial, and the run's cost is unknown."""
    return {"unreported": True, "batch_size": batch_size}


def is_unreported(state: dict[str, Any]) -> bool:
    """Return whether the state is that of an unreported run."""
    return bool(state.get("unreported"))


def unreported_batch_size(state: dict[str, Any], job: JobSpec, number_of_ranks: int) -> int:
    """Return the batch size with which an unreported run resumes.

    Raises:
        BSOError: the job no longer has this batch size, or the ranks cannot divide it.
    """
    batch_size = int(state["batch_size"])
    if batch_size not in job.batch_sizes:
        problem = f"but this job has only {', '.join(map(str, job.batch_sizes))}"
    elif batch_size % number_of_ranks:
        problem = f"which cannot be divided among {number_of_ranks} processes"
    else:
        return batch_size
    raise BSOError(
        f"the checkpoint comes from an unreported run with batch size {batch_size}, {problem}. To resume that run, use "
        "its job and its number of processes. To start a new run, load only its weights"
    )


def check_run(state: dict[str, Any], job_id: str | None, run_id: str) -> None:
    """Check that a state is that of a run.

    Raises:
        BSOError: the state is that of another run or job.
    """
    if (state["job_id"], state["run_id"]) != (job_id, run_id):
        raise _another_run(state, f"run {run_id!r} of job {job_id}")


def check_trial(state: dict[str, Any], trial: AskAnswer) -> None:
    """Check that a state is that of a run with this trial.

    Raises:
        BSOError: the state is that of another trial, or of an unreported run.
    """
    if is_unreported(state):
        raise BSOError(
            "the checkpoint comes from an unreported run, whose cost is unknown. To resume that run, let its state be "
            "read before the training starts: fit(…, weights_only=False), or get_batch_size(resumed_from=…) in your "
            "own loop. To start a new run, load only its weights"
        )
    if (state["job_id"], state["trial_number"]) != (trial.job_id, trial.trial_number):
        raise _another_run(state, f"trial {trial.trial_number} of job {trial.job_id}")


def _another_run(state: dict[str, Any], expected: str) -> BSOError:
    return BSOError(
        f"the checkpoint comes from trial {state['trial_number']} of job {state['job_id']} with batch size "
        f"{state['batch_size']}, but this is {expected}. To resume the checkpoint's run, give "
        f"run_id={state['run_id']!r} and its job. To start a new run, load only its weights"
    )
