"""The identity of jobs and runs: a job's complete spec and name, and a run's name.

These functions call no server. `optimizer` registers the job and asks for the run's batch size.
"""

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass

from lightning_bso import variables
from lightning_bso.energy import Machine
from lightning_bso.errors import BSOError, EnergyUnavailable
from lightning_bso.wire import MAX_RUN_ID_LENGTH, JobSpec, RegisteredJobSpec

RUN_NUMBER_LENGTH = 8
"""Characters that a run id from a scheduler leaves free, for the number of a later run under the same id."""


@dataclass(frozen=True, slots=True)
class DerivedJob:
    """A job that no user has described. Its name is known before its spec.

    The spec depends on what may change from day to day, such as the amount of data. So it is derived once, and then the
    server knows it.
    """

    job_id_prefix: str
    identity: str
    """What tells this training from others, as text. The GPU model is added to it."""
    derive: Callable[[], JobSpec]
    """Describes the job as it is now, without its name. All ranks call it."""
    only_default: int | None = None
    """The batch size of this launch, if it takes no part in a job with another default. None: any default is right."""

    def check_default(self, job: JobSpec) -> None:
        """Check that a launch may take part in its job as the server knows it.

        Raises:
            BSOError: the job has another default batch size than the only one that is right.
        """
        if self.only_default not in (None, job.default_batch_size):
            raise BSOError(of_another_default(job.job_id, job.default_batch_size, self.only_default))

    def job_id(self, machine: Machine) -> str:
        """Return the name of the job on a machine."""
        return _with_digest(self.job_id_prefix, f"{self.identity}\n{machine.gpu_model}")


def of_another_default(job_id: str | None, default: int, own: int | None) -> str:
    """Return why a launch takes no part in a job that began with another batch size than its own."""
    return (
        f"job {job_id!r} began with batch size {default}. This launch has {own} and keeps it, because it may be one of "
        f"a search. If {own} is the new default, give the job another name with ${variables.JOB}, or delete the job"
    )


def complete_spec(job: JobSpec, machine: Machine) -> RegisteredJobSpec:
    """Return the job with a name, and with the machine's values where the job does not give its own.

    Raises:
        EnergyUnavailable: neither the job nor the meter knows the machine.
    """
    fields = job.model_dump()
    fields["max_power"] = job.max_power or machine.max_power_w
    fields["number_of_gpus"] = job.number_of_gpus or machine.number_of_gpus
    fields["gpu_model"] = job.gpu_model or machine.gpu_model
    if not (fields["max_power"] and fields["gpu_model"]):
        raise EnergyUnavailable("the GPUs are unknown: set max_power (in W) and gpu_model in the job")
    spec = RegisteredJobSpec.model_validate(fields)
    if spec.job_id is not None:
        return spec
    # The hash leaves out defaults, so a later version with one more field still finds the job.
    identity = spec.model_dump_json(exclude={"job_id"}, exclude_defaults=True)
    return spec.model_copy(update={"job_id": _with_digest(spec.job_id_prefix, identity)})


def scheduler_run_id() -> str | None:
    """Return the run id that the scheduler's environment gives, or None without a scheduler.

    The id stays the same when the scheduler launches the run again.
    """
    slurm, step = os.environ.get("SLURM_JOB_ID"), os.environ.get("SLURM_STEP_ID")
    if slurm:
        return f"slurm-{slurm}" + (f".{step}" if step else "")
    elastic = os.environ.get("TORCHELASTIC_RUN_ID")
    if elastic in (None, "", "none"):  # "none" is torchrun's default
        return None
    run_id = f"torchelastic-{elastic}"
    if len(run_id) <= MAX_RUN_ID_LENGTH - RUN_NUMBER_LENGTH and run_id.isprintable():
        return run_id
    return f"torchelastic-{hashlib.sha256(run_id.encode(errors='surrogateescape')).hexdigest()[:32]}"


def check_run_id(run_id: str | None) -> None:
    """Check the run id that a caller gives. None is valid.

    Raises:
        ValueError: the run id is empty, too long, or not printable.
    """
    if run_id is not None and not (0 < len(run_id) <= MAX_RUN_ID_LENGTH and run_id.isprintable()):
        raise ValueError(f"run_id={run_id!r} is not a valid run id; give 1 to {MAX_RUN_ID_LENGTH} printable characters")


def _with_digest(prefix: str, identity: str) -> str:
    return f"{prefix}-{hashlib.sha256(identity.encode(errors='surrogatepass')).hexdigest()[:8]}"
