"""What a job is: its spec, the machine that it runs on, and the name that follows from both. And a run's name."""

import hashlib
import os

from lightning_bso.energy import Machine
from lightning_bso.errors import EnergyUnavailable
from lightning_bso.wire import MAX_RUN_ID_LENGTH, JobSpec, RegisteredJobSpec

ROOM_FOR_A_NUMBER = 8
"""What a scheduler's name leaves free, for the number of a further run under it."""


def complete_spec(job: JobSpec, machine: Machine) -> RegisteredJobSpec:
    """The job with its machine, as far as the job does not say it itself, and with a name.

    Raises:
        EnergyUnavailable: neither the job nor the meter knows it.
    """
    fields = job.model_dump()
    fields["max_power"] = job.max_power or machine.max_power_w
    fields["number_of_gpus"] = job.number_of_gpus or machine.number_of_gpus
    fields["gpu_model"] = job.gpu_model or machine.gpu_model
    if not (fields["max_power"] and fields["gpu_model"]):
        raise EnergyUnavailable("the GPUs are not known: give the job its max_power (in W) and gpu_model")
    spec = RegisteredJobSpec.model_validate(fields)
    if spec.job_id is not None:
        return spec
    # Defaults are left out, so that a later version with one more field still finds the job.
    identity = spec.model_dump_json(exclude={"job_id"}, exclude_defaults=True)
    digest = hashlib.sha256(identity.encode()).hexdigest()[:8]
    return spec.model_copy(update={"job_id": f"{spec.job_id_prefix}-{digest}"})


def scheduled_run_id() -> str | None:
    """The name that a run has by its scheduler, the same when that launches it again; None without one."""
    slurm, step = os.environ.get("SLURM_JOB_ID"), os.environ.get("SLURM_STEP_ID")
    if slurm:
        return f"slurm-{slurm}" + (f".{step}" if step else "")
    elastic = os.environ.get("TORCHELASTIC_RUN_ID")
    if elastic in (None, "", "none"):  # torchrun's own default
        return None
    name = f"torchelastic-{elastic}"
    if len(name) <= MAX_RUN_ID_LENGTH - ROOM_FOR_A_NUMBER and name.isprintable():
        return name
    return f"torchelastic-{hashlib.sha256(name.encode(errors='surrogateescape')).hexdigest()[:32]}"


def check_run_id(run_id: str | None) -> None:
    """Make sure that a caller's name of a run can be one.

    Raises:
        ValueError: it cannot.
    """
    if run_id is not None and not (0 < len(run_id) <= MAX_RUN_ID_LENGTH and run_id.isprintable()):
        raise ValueError(f"run_id={run_id!r} is no name of a run; give 1 to {MAX_RUN_ID_LENGTH} printable characters")
